"""`fit_surface` and `PriceSurface`: in order everywhere, near the quotes, exact."""

import copy
import datetime
import json
import pickle
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import mpmath
import numpy as np
import pandas as pd
import pytest
from compilations import compilations
from real_quotes import real_quotes, spx
from scipy import sparse
from scipy.integrate import quad
from scipy.spatial import ConvexHull
from scipy.stats import norm

import relu_options as ro
from benchmarks.peers.convex import clarabel
from relu_options import plotting
from relu_options.errors import QuoteError
from relu_options.fitting import calendar_program
from relu_options.fitting.calendar_program import (
    CalendarProgram,
    solve,
    starting_point,
)
from relu_options.fitting.grid import shared_kinks
from relu_options.fitting.objective import tilted
from relu_options.market_data import prepare_quotes
from relu_options.simulation import bundled_truth
from relu_options.surface_law import _convex_slopes, time_values
from relu_options.verify import verify_surface


@pytest.fixture(scope="module")
def surface():
    return ro.fit_surface(ro.bundled_chain())


def undiscounted_time_values(surface, deviations, times):
    """Out-of-the-money prices over the forward on a grid, of shape (times, strikes)."""
    last = surface.times[-1]
    widest = surface.implied_volatility(surface.forward(last), last) * last**0.5
    moneyness = np.exp(np.linspace(-deviations, deviations, 400) * widest)
    forwards, discounts = surface.forward(times), surface.discount_factor(times)
    strikes = forwards[:, None] * moneyness
    calls = surface.price(strikes, times[:, None], moneyness >= 1.0)
    return calls / (forwards * discounts)[:, None], moneyness


def assert_no_static_arbitrage(surface):
    """Convex in strike, rising with time, to rounding, far out and at all times."""
    times = np.geomspace(1.0 / 365.0, 2.0 * surface.times[-1], 200)
    values, moneyness = undiscounted_time_values(surface, 10.0, times)
    assert np.diff(values, axis=0).min() >= -1e-14
    for side in (moneyness < 1.0, moneyness >= 1.0):
        slopes = np.diff(values[:, side], axis=1) / np.diff(moneyness[side])
        assert np.diff(slopes, axis=1).min() >= -1e-13
    strikes = surface.forward(times)[:, None] * moneyness
    assert surface.density(strikes, times[:, None]).min() >= 0.0
    local = surface.local_volatility(strikes, times[:, None])
    assert np.nanmin(local) >= 0.0


def test_bundled_surface_is_inside_every_spread_and_near_the_truth(surface):
    truth = ro.simulation.bundled_truth()
    assert surface.share_inside == 1.0
    for label in surface.expiries:
        day = label.partition(" ")[0]
        curve = surface[day]
        strikes = curve.quantile(np.linspace(0.02, 0.98, 25))
        error = curve.implied_volatility(strikes) - truth.true_volatility(day, strikes)
        assert np.abs(error).max() < 0.004


def test_no_static_arbitrage_on_a_fine_grid(surface):
    assert bool(surface.certificate)
    assert_no_static_arbitrage(surface)


def test_curves_of_the_surface_agree_with_it(surface):
    for time in (0.001, float(surface.times[2]), 0.2, 3.0):
        curve = surface.curve(time)
        strikes = curve.forward * np.array([0.8, 1.0, 1.1])
        for is_call in (True, False):
            expected = curve.price(strikes, is_call)
            actual = surface.price(strikes, time, is_call)
            np.testing.assert_allclose(actual, expected, rtol=1e-11, atol=1e-12)
        np.testing.assert_allclose(
            surface.implied_volatility(strikes, time),
            curve.implied_volatility(strikes),
            rtol=1e-9,
        )
        for name in ("density", "distribution", "gamma", "delta"):
            np.testing.assert_allclose(
                getattr(surface, name)(strikes, time),
                getattr(curve, name)(strikes),
                rtol=1e-9,
            )
        assert curve.certificate.smallest_weight >= 0.0


def test_total_variance_at_the_money_is_linear_between_expiries(surface):
    low, high = surface.times[3], surface.times[4]
    times = np.linspace(low, high, 5)
    variance = surface.implied_volatility(surface.forward(times), times) ** 2 * times
    np.testing.assert_allclose(np.diff(variance, 2), 0.0, atol=1e-5 * variance[0])
    early = surface.times[0] * np.array([0.002, 0.01, 0.2, 0.7, 1.0])
    volatility = surface.implied_volatility(surface.forward(early), early)
    np.testing.assert_allclose(volatility, volatility[-1], rtol=1e-5)


def test_local_variance_is_the_ratio_of_differences(surface):
    time, step = 0.4, 1e-5
    forward = surface.forward(time)
    moneyness = np.array([0.85, 1.0, 1.08])

    def value(moneyness, time):
        strike = surface.forward(time) * moneyness
        price = surface.price(strike, time, moneyness >= 1.0)
        return price / surface.forward(time) / surface.discount_factor(time)

    rise = (value(moneyness, time + step) - value(moneyness, time - step)) / (2 * step)
    density = surface.density(forward * moneyness, time) * forward
    expected = np.sqrt(2.0 * rise / (moneyness**2 * density))
    actual = surface.local_volatility(forward * moneyness, time)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_variance_swap_is_the_log_contract(surface):
    for time in (0.1, 1.0, 2.5):
        curve = surface.curve(time)
        log_contract = curve.expectation(lambda spot, f=curve.forward: np.log(spot / f))
        np.testing.assert_allclose(
            surface.variance_swap(time), -2.0 * log_contract / time, rtol=1e-9
        )


def test_theta_is_minus_the_derivative_in_time(surface):
    actual = surface.theta(5000.0, 0.3)
    step = 1e-4
    prices = surface.price(5000.0, np.array([0.3 - step, 0.3 + step]))
    assert actual == pytest.approx(-np.diff(prices)[0] / (2 * step), rel=1e-3)


def test_surface_makes_the_json_round_trip(surface, tmp_path):
    path = tmp_path / "surface.json"
    text = surface.to_json(path)
    again = ro.PriceSurface.from_json(path)
    for name in ("kinks", "weights", "bandwidths", "times", "forwards"):
        np.testing.assert_array_equal(getattr(again, name), getattr(surface, name))
    assert again.to_json() == text
    assert again.price(4900.0, 0.33) == surface.price(4900.0, 0.33)
    with pytest.raises(ValueError, match="not a price surface"):
        ro.PriceSurface.from_json('{"format": "other"}')


def test_labels_and_frames(surface):
    assert len(list(surface)) == len(surface) == 8
    by_time = surface.curve(float(surface.times[4]))
    assert surface["2025-06-20"].price(5000.0) == by_time.price(5000.0)
    assert surface["2025-06-20", "PM"].fit is not None
    with pytest.raises(KeyError, match="no expiry 2025-06-21; the nearest are"):
        surface["2025-06-21"]
    frame = surface.to_frame([0.9, 1.0])
    assert len(frame) == 16
    assert list(surface.forward_curve().index) == list(surface.times)
    assert surface.discount_curve().is_monotonic_decreasing
    assert "8 expiries from 2025-03-21 PM" in repr(surface)
    strikes = pd.Series([4800.0, 5200.0], index=["a", "b"])
    prices = surface.price(strikes, "2025-06-20")
    assert list(prices.index) == ["a", "b"]


@pytest.mark.parametrize(
    "kind",
    ["smiles", "total_variance", "implied_volatility", "local_volatility", "density"],
)
def test_pictures(surface, kind):
    figure, axes = plt.subplots()
    assert surface.plot(kind, axes) is axes
    plt.close(figure)


def test_times_are_years_or_labels_or_dates_or_instants(surface):
    """The quotes are of the close of 14 March 2025; 48 days later it is May."""
    place = surface.expiries.index("2025-06-20 PM")
    years = float(surface.times[place])
    for time in (
        "2025-06-20",
        "2025-06-20 PM",
        "06/20/2025",
        pd.Timestamp("2025-06-20"),
        datetime.date(2025, 6, 20),
        datetime.datetime(2025, 6, 20),
        np.datetime64("2025-06-20"),
        "2025-06-20 16:00",
        pd.Timestamp("2025-06-20 20:00", tz="UTC"),
    ):
        assert surface.price(5000.0, time) == surface.price(5000.0, years)
        assert surface.curve(time).time_to_expiry == years
    later = surface.price(5000.0, [years, 48.0 / 365.0])
    mixed = ["2025-06-20", pd.Timestamp("2025-05-01")]
    for times in (
        mixed,
        np.array(mixed, object),
        pd.DatetimeIndex(["2025-06-20", "2025-05-01"]),
        np.array(["2025-06-20", "2025-05-01"], "datetime64[D]"),
        [years, "2025-05-01"],
    ):
        np.testing.assert_allclose(surface.price(5000.0, times), later, rtol=1e-12)
    column = pd.Series(["2025-06-20", "2025-05-01"], index=["a", "b"])
    for name in ("variance_swap", "forward", "discount_factor"):
        by_date = getattr(surface, name)(column)
        assert list(by_date.index) == ["a", "b"]
        assert by_date["a"] == getattr(surface, name)(years)
    assert surface.local_volatility(5000.0, "2025-05-01") > 0.0


def test_a_time_that_cannot_be_placed_is_named(surface):
    unknown = replace(surface, quote_time=None)
    assert unknown.price(5000.0, "2025-06-20") == surface.price(5000.0, "2025-06-20")
    with pytest.raises(KeyError, match=r"2025-05-01; the nearest are .*`quote_time=`"):
        unknown.price(5000.0, "2025-05-01")
    with pytest.raises(ValueError, match="2025-01-02 is before the quotes, of 2025-03"):
        surface.price(5000.0, "2025-01-02")
    with pytest.raises(ValueError, match="a time is missing"):
        surface.price(5000.0, [pd.NaT])
    for name in ("June", "2025-06-20 AM"):
        with pytest.raises(KeyError, match=f"no expiry {name}"):
            surface.price(5000.0, name)
    with pytest.raises(KeyError, match="no expiry 2025-05-01"):
        surface["2025-05-01"]


def test_a_surface_read_back_is_judged_as_before(surface, tmp_path):
    surface.to_json(tmp_path / "surface.json")
    again = ro.PriceSurface.from_json(tmp_path / "surface.json")
    assert again.to_json() == surface.to_json()
    pd.testing.assert_frame_equal(again.quotes, surface.quotes, check_exact=True)
    pd.testing.assert_frame_equal(again.conflicts(), surface.conflicts())
    assert str(again) == str(surface)
    assert again.quote_time == surface.quote_time
    first: Any = again["2025-06-20"]
    second: Any = surface["2025-06-20"]
    assert repr(first.report) == repr(second.report)
    assert first.fit.smoothing == second.fit.smoothing
    assert first.fit.quotes.parity.forward == second.fit.quotes.parity.forward
    assert plotting._title(first) == plotting._title(second)
    bare = ro.PriceSurface.from_json(surface.to_json(quotes=False))
    assert bare.fit is None
    assert bare.price(5000.0, "2025-05-01") == surface.price(5000.0, "2025-05-01")


def test_tables_are_copies_and_repr_computes_nothing(surface):
    fresh: Any = ro.PriceSurface.from_json(surface.to_json())
    assert "619 quotes" in repr(fresh)
    assert "_judged" not in vars(fresh)
    assert "inside" not in repr(fresh)
    share = fresh.share_inside
    quotes = fresh.quotes
    quotes["inside"] = False
    conflicts = fresh.fit.conflicts
    conflicts["strike"] = 0.0
    assert not (fresh.conflicts()["strike"] == 0.0).any()
    assert fresh.share_inside == share
    assert "100.00% inside" in str(fresh)


def test_to_judge_quotes_compiles_little(surface):
    """At the expiries no law is interpolated: prices, and volatilities of quotes."""
    fresh = ro.PriceSurface.from_json(surface.to_json())
    jax.clear_caches()
    with compilations() as compiled:
        assert "inside" in str(fresh)
        assert len(fresh.quotes) == 619
        assert fresh.implied_volatility(5000.0, fresh.times).shape == (8,)
    assert len(compiled) <= 6
    with compilations() as compiled:
        fresh.implied_volatility(np.linspace(4000.0, 6000.0, 300), fresh.times[0])
        fresh.price(np.linspace(4000.0, 6000.0, 5000), fresh.times[0])
    assert len(compiled) <= 2  # volatilities of so many


def test_unknown_pictures_are_refused(surface):
    with pytest.raises(ValueError, match="kind must be one of 'smiles'"):
        surface.plot("pie")


def test_neighbours_lend_their_shape_to_an_expiry_of_three_quotes():
    chain, truth = ro.bundled_chain(), bundled_truth()
    prepared = [prepare_quotes(part) for part in chain]
    one = prepared[2]
    deviation = 0.17 * one.time_to_expiry**0.5
    wanted = one.forward * np.exp(deviation * np.array([-0.5, 0.0, 0.5]))
    near = np.abs(one.strike[:, None] - wanted).argmin(axis=0)
    table = list(chain)[2].table
    thin = prepare_quotes(
        table[table["strike"].isin(one.strike[near])],
        forward=one.forward,
        discount_factor=one.discount_factor,
        time_to_expiry=one.time_to_expiry,
    )
    assert len(thin) == 3
    surface = ro.fit_surface([*prepared[:2], thin, *prepared[3:]])
    strikes = one.forward * np.exp(deviation * np.linspace(-3.0, 2.0, 21))
    expected = truth.true_volatility(one.expiry, strikes)
    lent = surface.implied_volatility(strikes, one.time_to_expiry) - expected
    alone = ro.fit_curve(thin).implied_volatility(strikes) - expected
    assert np.sqrt(np.mean(lent**2)) < 0.0025
    assert np.sqrt(np.mean(alone**2)) > 0.015
    assert surface.share_inside == 1.0


def test_smiles_between_expiries_look_like_their_neighbours():
    """An expiry left out whole is near the truth, where a mixture misses by 2%."""
    truth = bundled_truth()
    prepared = [prepare_quotes(part) for part in ro.bundled_chain()]
    out = prepared[4]
    surface = ro.fit_surface([one for one in prepared if one is not out])
    deviation = 0.17 * out.time_to_expiry**0.5
    moneyness = np.exp(deviation * np.linspace(-3.0, 2.0, 21))
    expected = truth.true_volatility(out.expiry, out.forward * moneyness)
    strikes = surface.forward(out.time_to_expiry) * moneyness
    found = surface.implied_volatility(strikes, out.time_to_expiry)
    assert np.sqrt(np.mean((found - expected) ** 2)) < 0.005


def test_theta_is_the_derivative_of_the_price(surface):
    times, step = np.array([0.004, 0.05, 0.3, 0.7, 3.5]), 1e-6
    for is_call in (True, False):
        later = surface.price(4900.0, times + step, is_call)
        sooner = surface.price(4900.0, times - step, is_call)
        theta = surface.theta(4900.0, times, is_call)
        np.testing.assert_allclose(theta, (sooner - later) / (2 * step), rtol=1e-6)


SHARED = {
    "times": np.array([0.25, 0.5, 1.0]),
    "forwards": np.array([101.0, 104.0, 103.0]),
    "discount_factors": np.array([0.99, 0.96, 0.95]),
    "spot": 100.0,
}


def by_hand():
    """A surface with states of no weight, where the law's convex hull has ties."""
    weights = [
        [0.0, 0.05, 0.1, 0.725, 0.1, 0.01, 0.015],
        [0.0, 0.0625, 0.1, 0.6875, 0.1, 0.05, 0.0],
        [0.01, 0.105, 0.1, 0.595, 0.1, 0.08, 0.01],
    ]
    kinks = np.array([0.6, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5])
    return ro.PriceSurface(kinks, np.array(weights), np.full(7, 0.05), **SHARED)


@pytest.mark.parametrize("kind", ["one unit", "by hand", "fitted"])
def test_at_an_expiry_theta_and_local_volatility_are_those_of_the_time_before(
    surface, kind
):
    """At every time where the law's derivative jumps, the extrapolation's ends too."""
    if kind == "one unit":
        flat: dict[str, Any] = SHARED | {"volatilities": [0.2, 0.25, 0.22]}
        surface = ro.BlackScholesSurface(**flat)
    elif kind == "by hand":
        surface = by_hand()
    jumps = [*surface.times[[0, 1, -1]]]
    if kind != "one unit":
        jumps += [*np.asarray(surface.law.times[:2])]
    for time in map(float, jumps):
        forward = surface.forward(time)
        width = surface.implied_volatility(forward, time) * time**0.5
        moneyness = np.exp(width * np.linspace(-2.0, 2.0, 9))
        past = time * (1.0 - np.array([[0.0], [2e-5], [4e-5]]))
        step = 2e-5 * time
        for is_call in (True, False):
            prices = surface.price(forward * moneyness, past, is_call)
            expected = (-3.0 * prices[0] + 4.0 * prices[1] - prices[2]) / (2.0 * step)
            theta = surface.theta(forward * moneyness, time, is_call)
            np.testing.assert_allclose(
                theta, expected, rtol=0.0, atol=1e-6 * np.abs(expected).max()
            )
        strikes = surface.forward(past) * moneyness
        levels = surface.discount_factor(past) * surface.forward(past)
        values = surface.price(strikes, past, moneyness >= 1.0) / levels
        rise = (3.0 * values[0] - 4.0 * values[1] + values[2]) / (2.0 * step)
        curvature = moneyness**2 * forward * surface.density(strikes[0], time)
        local = surface.local_volatility(strikes[0], time)
        np.testing.assert_allclose(
            local**2 * curvature, 2.0 * rise, rtol=0.0, atol=1e-6 * rise.max()
        )


def test_local_volatility_is_a_number_or_nan_in_the_wings(surface):
    """NaN where the density is too small for a number, and nowhere infinite."""
    for law in (surface, by_hand()):
        time = 0.6 * law.times[-1]
        moneyness = np.geomspace(1e-6, 1e6, 2001)
        local = law.local_volatility(law.forward(time) * moneyness, time)
        density = law.density(law.forward(time) * moneyness, time)
        assert not np.isinf(local).any()
        assert np.isnan(local[density == 0.0]).all()
        assert np.isfinite(local[density > 1e-290]).all()


def test_times_that_are_none(surface):
    """Negative times are refused; at no time at all every answer is NaN."""
    flat = ro.BlackScholesSurface(volatilities=0.2, times=[1.0], forwards=100.0)
    for law in (surface, flat):
        level = law.forwards[0]
        for time in (np.nan,):
            answers = [law.variance_swap(time), law.forward(time)]
            answers += [law.discount_factor(time), law.local_volatility(level, time)]
            questions = "price implied_volatility delta gamma vega theta density"
            for name in [*questions.split(), "distribution"]:
                answers.append(getattr(law, name)(level, time))
            assert np.isnan(answers).all()
            with pytest.raises(ValueError, match="of one positive time, in years"):
                law.curve(time)
        assert np.isnan(law.variance_swap(0.0))
        for name in ("price", "implied_volatility", "theta", "local_volatility"):
            with pytest.raises(
                ValueError, match=r"years from the quotes on, not -0\.1"
            ):
                getattr(law, name)(level, [0.5, -0.1])
        for name in ("variance_swap", "forward", "discount_factor", "curve"):
            with pytest.raises(
                ValueError, match=r"years from the quotes on, not -0\.1"
            ):
                getattr(law, name)(-0.1)
        swaps = law.variance_swap(np.array([np.nan, 0.5]))
        assert np.isnan(swaps[0])
        assert swaps[1] > 0.0


def test_the_largest_convex_function_below_prices():
    """Against the lower hull of random points, and with digits kept in the wings."""
    rng = np.random.default_rng(5)
    kinks = np.sort(np.append(rng.uniform(0.3, 2.0, 19), 1.0))
    for _ in range(50):
        values = rng.uniform(0.0, 0.2, 20)
        points = np.column_stack([kinks, values])
        hull = ConvexHull(np.vstack([points, [[kinks[0], 9.0], [kinks[-1], 9.0]]]))
        below = np.sort([at for at in hull.vertices if at < 20])
        expected = np.diff(np.interp(kinks, kinks[below], values[below]))
        slopes = _convex_slopes(
            jnp.asarray(kinks), jnp.asarray(values), jnp.zeros(19, bool)
        )
        np.testing.assert_allclose(slopes * np.diff(kinks), expected, atol=1e-15)


def test_a_stale_expiry_is_the_dearest_conflict():
    """Prices at 6 % of volatility, among others at 16 %, contradict those before."""
    chain = ro.bundled_chain()
    prepared = [ro.prepare_quotes(one) for one in chain]
    stale = prepared[4]
    model = ro.BlackScholesCurve(
        volatility=0.06, forward=stale.forward, time_to_expiry=stale.time_to_expiry
    )
    mid = np.where(
        stale.is_call,
        model.price(stale.strike),
        model.price(stale.strike, is_call=False),
    )
    prepared[4] = replace(stale, mid=mid, bid=0.98 * mid, ask=1.02 * mid + 0.05)
    surface = ro.fit_surface(prepared)
    assert bool(surface.certificate)
    first = surface.conflicts().iloc[0]
    assert "2025-06-20 PM" in (first["earlier"], first["later"])
    assert first["shadow_price"] > 0.0
    assert surface.left_quotes["expiry"].isin([first["earlier"], first["later"]]).any()


def test_noise_never_breaks_the_proof():
    """Mids shaken by a spread, expiry by expiry: certified whatever the fit does."""
    prepared = [ro.prepare_quotes(one) for one in ro.bundled_chain()]
    for seed in range(4):
        rng = np.random.default_rng(seed)
        shaken = []
        for one in prepared:
            shift = rng.normal(0.0, 1.0, len(one)) * (one.ask - one.bid)
            bid = np.maximum(one.bid + shift, 0.0)
            ask = np.maximum(one.ask + shift, bid + 0.05)
            mid = 0.5 * (bid + ask)
            shaken.append(replace(one, bid=bid, ask=ask, mid=mid))
        surface = ro.fit_surface(shaken)
        assert bool(surface.certificate)
        assert_no_static_arbitrage(surface)


def test_identical_expiries_are_in_order():
    """One of the eight is there twice, so that no other shape is compiled."""
    slices = [ro.prepare_quotes(one) for one in ro.bundled_chain()][:-1]
    one = slices[4]
    twin = replace(one, time_to_expiry=one.time_to_expiry + 1e-4, settlement="AM")
    surface = ro.fit_surface([*slices[:5], twin, *slices[5:]])
    assert bool(surface.certificate)
    assert surface.share_inside == 1.0


def tiny_surface(**changes: Any):
    """A surface of three kinks and one expiry, with changes."""
    arrays: dict[str, Any] = {
        "kinks": [0.9, 1.0, 1.1],
        "weights": [[0.25, 0.5, 0.25]],
        "bandwidths": [0.1, 0.1, 0.1],
        "times": [1.0],
        "forwards": [100.0],
        "discount_factors": [1.0],
    }
    return ro.PriceSurface(**{**arrays, **changes})


def test_one_kink_is_black_scholes():
    """All mass at the forward: one lognormal law, at every time."""
    surface = tiny_surface(kinks=[1.0], weights=[[1.0]], bandwidths=[0.2])
    assert surface.certificate
    strikes, times = np.array([80.0, 100.0, 130.0]), np.array([[0.3], [1.0], [2.5]])
    flat = ro.BlackScholesSurface(volatilities=0.2, times=[1.0], forwards=100.0)
    for name in ("price", "delta", "gamma", "density", "theta", "local_volatility"):
        actual = getattr(surface, name)(strikes, times)
        expected = getattr(flat, name)(strikes, times)
        np.testing.assert_allclose(actual, expected, rtol=1e-7)
    assert surface.curve(1.0).price(90.0) == pytest.approx(flat.price(90.0, 1.0))
    again = ro.PriceSurface.from_json(surface.to_json())
    assert again.price(90.0, 0.5) == surface.price(90.0, 0.5)


def test_two_kinks_have_one_law():
    """With mean 1 it is at the forward."""
    two: Any = {"kinks": [0.5, 1.0], "weights": [[0.0, 1.0]], "bandwidths": [0.2, 0.2]}
    surface = tiny_surface(**two)
    assert surface.certificate
    assert surface.implied_volatility(90.0, 1.0) == pytest.approx(0.2)


def test_a_surface_cannot_be_changed_from_outside():
    """Neither by the arrays it was made of nor by those it hands out, nor a copy."""
    weights = np.array([[0.25, 0.5, 0.25]])
    given = tiny_surface(weights=weights)
    flat = ro.BlackScholesSurface(volatilities=weights[0, :1], times=[1.0], forwards=9)
    weights[:] = 9.0
    assert given.certificate
    assert flat.volatilities[0] == 0.25
    for one in (given, flat):
        for surface in (one, copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
            arrays = [x for x in vars(surface).values() if isinstance(x, np.ndarray)]
            assert len(arrays) >= 4
            for array in arrays:
                with pytest.raises(ValueError, match="read-only"):
                    array[...] = 2.0
            forwards = surface.forward_curve()
            forwards.iloc[0] = 2.0
            assert surface.forwards[0] != 2.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": [[0.25, np.nan, 0.25]]}, "weights must be finite numbers"),
        ({"times": [np.inf]}, "times must be finite numbers"),
        ({"forwards": [np.inf]}, "forwards must be finite numbers"),
        ({"times": 1.0}, r"times must have shape \(1,\)"),
        ({"bandwidths": [0.1, -0.1, 0.1]}, "kinks and bandwidths must not be negative"),
        ({"kinks": [-0.9, 1.0, 1.1]}, "kinks and bandwidths must not be negative"),
        (
            {"kinks": [1.0], "bandwidths": [0.2], "weights": [[0.9]]},
            "the weights of a single kink must be 1",
        ),
        ({"spot": -5000.0}, "spot must be a positive number or None, not -5000.0"),
        ({"spot": np.nan}, "spot must be a positive number or None, not nan"),
        ({"spot": "100"}, "spot must be a positive number or None, not '100'"),
    ],
)
def test_a_surface_of_no_numbers_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny_surface(**changes)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("times", {}, "not a price surface: "),
        ("times", [10**400], "not a price surface: "),
        ("times", ["soon"], "could not convert"),
        ("times", None, "times"),
        ("weights", [[0.25, 0.5]], "weights must have shape"),
        ("weights", [[0.25], [0.5, 0.25]], "inhomogeneous"),
        ("expiries", "J", "expiries must be a list of texts"),
        ("expiries", [7], "expiries must be a list of texts"),
        ("spot", [], "spot must be a positive number"),
    ],
)
def test_a_file_of_no_surface_is_refused(name, value, message):
    values = json.loads(tiny_surface().to_json())
    with pytest.raises(ValueError, match=message):
        ro.PriceSurface.from_json(json.dumps({**values, name: value}))
    del values[name]
    with pytest.raises(ValueError, match=f"no field '{name}'"):
        ro.PriceSurface.from_json(json.dumps(values))


def test_surfaces_of_quotes_are_proved_from_their_files(surface):
    """Bounds of the rounding of weights and bandwidths are far below the limit."""
    rng = np.random.default_rng(11)
    surfaces = [surface, tiny_surface()]
    kinks = np.exp(np.linspace(-1.0, 1.0, 41))
    kinks[20] = 1.0
    for _ in range(20):
        laws = np.exp(-0.5 * (np.log(kinks) / rng.uniform(0.1, 0.3, (4, 1))) ** 2)
        laws = np.array([tilted(w / w.sum(), kinks - 1.0) for w in laws])
        surfaces.append(
            ro.PriceSurface(
                kinks,
                ro.arbitrage.settle_weights(laws, kinks),
                np.full(41, rng.uniform(0.02, 0.5)),
                np.arange(1.0, 5.0),
                np.full(4, 100.0),
                np.ones(4),
            )
        )
    for one in surfaces:
        lines = verify_surface(json.loads(one.to_json()))
        assert lines[0].startswith("proved: no butterfly")
        assert one.certificate
        assert one.certificate.largest_change < 1e-14


def test_bad_input_is_named():
    one = ro.prepare_quotes(ro.bundled_chain()["2025-06-20"])
    with pytest.raises(QuoteError, match="two expiries have one time to expiry"):
        ro.fit_surface([one, one])
    with pytest.raises(QuoteError, match="no expiry can be used"):
        ro.fit_surface([])
    with pytest.raises(ValueError, match="smoothing must be positive"):
        ro.fit_surface([one], smoothing=0.0)
    with pytest.raises(ValueError, match="kinks must be a whole number"):
        ro.fit_surface([one], kinks=3)
    with pytest.raises(ValueError, match="weights must have shape"):
        tiny_surface(weights=[0.25, 0.5, 0.25])
    with pytest.raises(ValueError, match="one of them must be 1"):
        tiny_surface(kinks=[0.9, 1.01, 1.1])
    with pytest.raises(ValueError, match="times must be positive"):
        tiny_surface(times=[0.0])
    with pytest.raises(ValueError, match="total variance falls"):
        ro.BlackScholesSurface(
            volatilities=[0.4, 0.1], times=[1.0, 2.0], forwards=100.0
        )


def test_black_scholes_surface_is_black_scholes():
    surface = ro.BlackScholesSurface(
        volatilities=[0.2, 0.25], times=[0.5, 1.5], forwards=[100.0, 103.0], spot=99.0
    )
    strikes = np.array([70.0, 100.0, 150.0])
    np.testing.assert_allclose(surface.implied_volatility(strikes, 1.5), 0.25)
    np.testing.assert_allclose(surface.local_volatility(strikes, 0.25), 0.2, rtol=1e-9)
    np.testing.assert_allclose(surface.implied_volatility(strikes, 9.0), 0.25)
    assert surface.variance_swap(1.5) == pytest.approx(0.0625)
    d1 = np.log(103.0 / 70.0) / (0.25 * 1.5**0.5) + 0.125 * 1.5**0.5
    assert surface.delta(70.0, 1.5) == pytest.approx(norm.cdf(d1))


def test_kernel_price_of_the_shared_grid_is_convex_and_its_calls_too():
    """The condition of the proof, and what it is for, in fifty digits."""
    x, h = shared_kinks(80, low=-3.0, high=1.5, narrowest=0.002)
    price = 2.0 * norm.cdf(h / 2.0) - 1.0
    assert np.diff(np.diff(price) / np.diff(x)).min() > 0.0
    assert np.exp(x[np.flatnonzero(x == 0.0)]) == 1.0
    mpmath.mp.dps = 50

    def call(j, k):
        s, width = mpmath.e ** mpmath.mpf(float(x[j])), mpmath.mpf(float(h[j]))
        d = mpmath.log(s / k) / width + width / 2
        return s, s * mpmath.ncdf(d) - k * mpmath.ncdf(d - width)

    for j in (1, 20, 50, 78):
        for k in (mpmath.mpf("0.2"), mpmath.mpf("0.97"), mpmath.mpf("2.5")):
            (a, left), (b, middle), (c, right) = (call(i, k) for i in (j - 1, j, j + 1))
            bend = (right - middle) / (c - b) - (middle - left) / (b - a)
            assert bend > -(mpmath.mpf(10) ** -40)


def test_coupled_programme_agrees_with_clarabel():
    rng = np.random.default_rng(3)
    count, n, m = 4, 24, 30
    x, bandwidths = shared_kinks(n, low=-1.0, high=0.8, narrowest=0.02)
    kinks = np.exp(x)
    strikes = np.exp(np.linspace(-0.5, 0.4, m))
    hidden = ro.black_scholes.undiscounted_price(
        jnp.asarray(kinks), jnp.asarray(strikes)[:, None], bandwidths, True
    )
    design = 100.0 * np.asarray(hidden)
    hessian, gradient, constant = [], [], []
    for place in range(count):
        total = 0.2 - 0.01 * place  # falls: every order binds somewhere
        model = ro.black_scholes.undiscounted_price(
            1.0, jnp.asarray(strikes), total, True
        )
        data = 100.0 * np.asarray(model) + rng.normal(0.0, 0.05, m)
        hessian.append(design.T @ design + 1e-2 * np.eye(n))
        gradient.append(-design.T @ data)
        constant.append(0.5 * data @ data)
    empty = jnp.zeros((0, 1))
    program = CalendarProgram(
        kinks=jnp.asarray(kinks),
        hessian=jnp.asarray(hessian),
        gradient=jnp.asarray(gradient),
        constant=jnp.asarray(constant),
        rows=jnp.zeros((0, 1, n)),
        owner=jnp.zeros(0, int),
        lower=empty,
        upper=empty,
        penalty=empty,
        coupled=jnp.arange(count) > 0,
    )
    first = np.exp(-np.abs(np.log(kinks)) * 4.0)
    first = np.asarray(tilted(first / first.sum(), kinks - 1.0))
    start = starting_point(program, jnp.asarray(np.tile(first, (count, 1))))
    solution = jax.jit(lambda p, s: solve(p, s, tolerance=1e-10))(program, start)

    levels = np.asarray(time_values(jnp.eye(n), jnp.asarray(kinks))).T
    identities = np.kron(np.eye(count), np.stack([np.ones(n), kinks]))
    order = np.kron(np.eye(count)[:-1], levels) - np.kron(
        np.eye(count)[1:], levels
    )  # earlier minus later is at most zero
    matrix = np.vstack([identities, order, -np.eye(count * n)])
    rhs = np.concatenate([np.ones(2 * count), np.zeros(len(matrix) - 2 * count)])
    blocks = sparse.block_diag(hessian, format="csc")
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_rel = settings.tol_gap_abs = settings.tol_feas = 1e-11
    cones = [
        clarabel.ZeroConeT(2 * count),
        clarabel.NonnegativeConeT(len(matrix) - 2 * count),
    ]
    generic = clarabel.DefaultSolver(
        sparse.triu(blocks).tocsc(),
        np.concatenate(gradient),
        sparse.csc_matrix(matrix),
        rhs,
        cones,
        settings,
    ).solve()
    expected = generic.obj_val + sum(constant)
    actual = float(solution.objective.sum())
    assert actual <= expected + 1e-8 * abs(expected)
    rise = np.diff(time_values(solution.iterate.weights, jnp.asarray(kinks)), axis=0)
    assert rise.min() > -1e-12
    assert (np.asarray(solution.iterate.calendar_dual)[1:] > 1e-3).any()
    assert calendar_program.COUPLED.ridge < 1e-15


def test_density_integrates_to_one(surface):
    curve = surface.curve(0.6)
    low, high = curve.quantile(np.array([1e-9, 1.0 - 1e-9]))
    mass, _ = quad(
        lambda k: surface.density(k, 0.6), low, high, limit=400, points=[5000]
    )
    assert mass == pytest.approx(1.0, abs=1e-6)


def test_published_table_is_fitted_in_order():
    surface = ro.fit_surface(
        pd.read_csv(real_quotes("sx5e_20100301_andreasen_huge.csv"))
    )
    assert len(surface) == 12
    assert 1e4 * surface.volatility_error <= 2.5
    assert bool(surface.certificate)
    assert verify_surface(json.loads(surface.to_json()))
    assert_no_static_arbitrage(surface)


def test_real_chain_is_inside_its_spreads_in_order():
    chain = spx(2019)
    surface = ro.fit_surface(chain)
    assert len(surface) == 39
    assert surface.share_inside >= 0.999
    assert bool(surface.certificate)
    assert_no_static_arbitrage(surface)
    assert {"2019-06-21 AM", "2019-06-21 PM"} <= set(surface.expiries)
    with pytest.raises(KeyError, match="stands for 2 expiries; choose"):
        surface["2019-06-21"]


def test_expiries_of_very_different_variance_are_solved_to_stationarity():
    """Two days of a calm market and a year: a ratio of variances of ten thousand."""
    prepared = []
    for time, volatility in ((0.002, 0.03), (0.1, 0.08), (1.0, 0.16)):
        model = ro.BlackScholesCurve(
            volatility=volatility, forward=5000.0, time_to_expiry=time
        )
        steps = np.linspace(-4.0, 3.0, 40) * volatility * time**0.5
        table = pd.DataFrame({"strike": 5000.0 * np.exp(steps)})
        table["option_type"] = np.where(steps < 0.0, "put", "call")
        calls = np.asarray(model.price(table["strike"].to_numpy()))
        price = np.where(steps >= 0.0, calls, calls + table["strike"] - 5000.0)
        table["bid"], table["ask"] = 0.98 * price, 1.02 * price + 0.01
        one = prepare_quotes(
            table, forward=5000.0, discount_factor=1.0, time_to_expiry=time
        )
        prepared.append(one)
    surface = ro.fit_surface(prepared)
    assert surface.share_inside == 1.0
    assert surface.fit is not None
    assert surface.fit.gap <= 1e-6
    assert bool(surface.certificate)
    variance = surface.implied_volatility(5000.0, surface.times) ** 2
    np.testing.assert_allclose(np.sqrt(variance), [0.03, 0.08, 0.16], rtol=0.02)

"""The surfaces that the benchmark compares with are strong and do what they say."""

import importlib
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy.integrate import trapezoid
from scipy.stats import norm

from benchmarks.peers import (
    andreasen_huge,
    andreasen_huge_surface,
    fengler_surface,
    sanos_surface,
    ssvi,
    svi,
)
from benchmarks.peers.curve import read_quotes
from benchmarks.peers.surface import balanced, local_variance

TIMES = np.array([0.1, 0.35, 1.0])
FORWARDS = np.array([100.0, 101.0, 104.0])
RHO, ETA, POWER = -0.5, 0.9, 0.4
DEVIATIONS = np.linspace(-2.2, 1.6, 12)
METHODS = {
    "svi": ssvi.fit_slices,
    "ssvi": ssvi.fit_ssvi,
    "essvi": ssvi.fit_essvi,
    "fengler": fengler_surface.fit,
    "fengler, mixed": partial(fengler_surface.fit, mixed=True),
    "sanos": sanos_surface.fit,
    "andreasen-huge": andreasen_huge_surface.fit,
}


def truth():
    """An SSVI surface without arbitrage: 20% at the money."""
    theta = 0.04 * TIMES
    psi = ETA * (theta / (1.0 + theta)) ** (1.0 - POWER)
    rho = np.full(TIMES.size, RHO)
    return ssvi.SSVISurface(
        "truth", TIMES, FORWARDS, theta, rho, psi, power_law=(ETA, POWER)
    )


def moneyness(time, deviations=DEVIATIONS):
    return np.exp(0.2 * np.sqrt(time) * deviations)


def quotes_of(noise=None):
    """The true surface's quotes at each expiry, and noise in their volatilities."""
    found = []
    for place, (time, forward) in enumerate(zip(TIMES, FORWARDS, strict=True)):
        strike = forward * moneyness(time)
        volatility = truth().implied_volatility(strike, time)
        if noise is not None:
            volatility = volatility + noise[place]
        found.append(
            read_quotes(strike, volatility, forward=forward, time_to_expiry=time)
        )
    return tuple(found)


def crossing_quotes():
    """Quotes whose total variance falls in the second half of the year."""
    volatilities = (0.2, 0.3, 0.17)
    return tuple(
        read_quotes(
            forward * moneyness(time),
            volatility * (1.0 - 0.05 * DEVIATIONS),
            forward=forward,
            time_to_expiry=time,
        )
        for time, forward, volatility in zip(TIMES, FORWARDS, volatilities, strict=True)
    )


def misses(surface, quotes):
    """Errors of volatility at the quotes."""
    return np.concatenate(
        [
            surface.implied_volatility(item.forward * item.moneyness, time)
            - item.total_volatility / np.sqrt(time)
            for item in quotes
            for time in [item.time_to_expiry]
        ]
    )


def largest_fall(surface, times, deviations):
    """By how much a price over the forward falls from one time to the next."""
    return max(
        np.max(surface.time_value(k, early) - surface.time_value(k, late))
        for early, late in pairwise(times)
        for k in [np.exp(0.2 * np.sqrt(late) * deviations)]
    )


@pytest.fixture(scope="module", params=METHODS)
def fitted(request):
    return METHODS[request.param](quotes_of())


def test_quotes_of_a_smooth_surface_are_fitted_and_interpolated(fitted):
    np.testing.assert_allclose(misses(fitted, quotes_of()), 0.0, atol=7e-4)
    between = 0.5 * (DEVIATIONS[1:] + DEVIATIONS[:-1])
    for time, forward in zip(TIMES, FORWARDS, strict=True):
        strike = forward * moneyness(time, between)
        exact = truth().implied_volatility(strike, time)
        np.testing.assert_allclose(
            fitted.implied_volatility(strike, time), exact, atol=1.5e-3
        )
    # At the money every method's total variance is about linear between expiries.
    for time in (0.2, 0.7):
        found = fitted.implied_volatility(fitted.forward(time), time)
        assert found == pytest.approx(0.2, abs=5e-3)


@pytest.mark.parametrize("time", [0.05, 0.1, 0.6])
def test_the_density_is_the_second_derivative_of_the_price(fitted, time):
    """Its integral over a stretch of strikes is the change of the price's slope."""
    # Not over the forward, where some methods have an atom before the first expiry.
    low, high = fitted.forward(time) * moneyness(time, np.array([0.15, 1.05]))
    width = 1e-4 * low

    def slope(strike):
        prices = fitted.price(np.array([strike - width, strike + width]), time)
        return np.diff(prices)[0] / (2.0 * width)

    strikes = np.linspace(low, high, 4001)
    mass = trapezoid(fitted.density(strikes, time), strikes)
    # Andreasen and Huge's density comes from coarse differences and has kinks.
    assert mass == pytest.approx(slope(high) - slope(low), abs=5e-3)


def test_puts_and_calls_differ_by_the_forward(fitted):
    strike = np.array([90.0, 100.0, 115.0])
    call, put = (fitted.price(strike, 0.6, side) for side in (True, False))
    np.testing.assert_allclose(call - put, fitted.forward(0.6) - strike, atol=1e-12)


def test_ssvi_recovers_its_own_parameters():
    fitted = ssvi.fit_ssvi(quotes_of())
    assert fitted.rho[0] == pytest.approx(RHO, rel=1e-4)
    assert fitted.power_law == pytest.approx((ETA, POWER), rel=1e-3)
    np.testing.assert_allclose(fitted.theta, truth().theta, rtol=1e-5)


@pytest.mark.parametrize("together", [False, True])
def test_essvi_recovers_its_own_slices(together):
    fitted = ssvi.fit_essvi(quotes_of(), together=together)
    for found, exact in [
        (fitted.theta, truth().theta),
        (fitted.rho, truth().rho),
        (fitted.psi, truth().psi),
    ]:
        np.testing.assert_allclose(found, exact, rtol=1e-3)


def test_every_choice_of_the_free_parameters_of_essvi_is_free_of_arbitrage(rng):
    """The conditions of Hendriks and Martini, and total variances and densities."""
    for _ in range(50):
        rho = rng.uniform(-0.95, 0.95, 4)
        excess, share = rng.uniform(1e-3, 0.05, 4), rng.uniform(0.0, 1.0, 4)
        theta, rho, psi = ssvi._ordered_slices(rho, excess, share)
        assert np.all(psi * (1.0 + np.abs(rho)) <= 4.0 + 1e-12)
        assert np.all(psi**2 * (1.0 + np.abs(rho)) <= 4.0 * theta * (1.0 + 1e-12))
        assert np.all(np.abs(np.diff(rho * psi)) <= np.diff(psi) + 1e-12)
        assert np.all(np.diff(psi / theta) <= 1e-9)
        np.testing.assert_allclose(ssvi._shares(theta, rho, psi)[0], excess, rtol=1e-6)
        surface = ssvi.SSVISurface(
            "drawn", np.arange(1.0, 5.0), np.ones(4), theta, rho, psi
        )
        x = np.linspace(-3.0, 3.0, 301)
        times = (0.3, 1.0, 1.5, 2.0, 2.4, 3.0, 3.6, 4.0, 5.0)
        variances = [surface.total_variance(x, time)[0] for time in times]
        assert np.min(np.diff(variances, axis=0)) >= -1e-12
        for time in times:
            assert surface.normalised_density(np.exp(x), time).min() >= -1e-12


def test_the_bound_on_eta_is_where_the_butterfly_condition_binds():
    """For every theta from the first on, the larger side of both conditions is 4."""
    for first, rho, power in [(1e-3, -0.7, 0.3), (0.05, 0.2, 0.8), (0.5, -0.1, 0.05)]:
        eta = ssvi._largest_eta(first, rho, power)
        theta = first * np.exp(np.linspace(0.0, 12.0, 20001))
        psi = ssvi._power_psi(theta, eta, power)
        tilt = 1.0 + abs(rho)
        worst = max(np.max(psi * tilt), np.max(psi**2 / theta * tilt))
        assert worst == pytest.approx(4.0, rel=1e-3)


def test_svi_slices_have_the_variances_of_their_curves():
    fitted = ssvi.fit_slices(quotes_of())
    x = np.linspace(-0.3, 0.3, 7)
    first, second = (curve.total_variance(x) for curve in fitted.slices[:2])
    np.testing.assert_allclose(fitted.total_variance(x, TIMES[0])[0], first)
    middle = 0.5 * (TIMES[0] + TIMES[1])
    np.testing.assert_allclose(
        fitted.total_variance(x, middle)[0], 0.5 * (first + second)
    )
    np.testing.assert_allclose(fitted.total_variance(x, 0.05)[0], 0.5 * first)
    step = 1e-5
    w = [fitted.total_variance(x + shift, 0.6)[0] for shift in (-step, 0.0, step)]
    _, slope, bend = fitted.total_variance(x, 0.6)
    np.testing.assert_allclose((w[2] - w[0]) / (2 * step), slope, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(
        (w[2] - 2 * w[1] + w[0]) / step**2, bend, rtol=1e-3, atol=1e-5
    )


@pytest.mark.parametrize("name", ["ssvi", "essvi", "fengler, mixed", "sanos"])
def test_quotes_with_calendar_arbitrage_are_fitted_in_order(name):
    quotes = crossing_quotes()
    fitted = METHODS[name](quotes)
    assert np.abs(misses(fitted, quotes)).max() > 5e-3
    deviations = np.linspace(-8.0, 8.0, 801)
    times = [0.05, 0.1, 0.2, 0.35, 0.6, 1.0, 1.3]
    # Fengler's order holds at the nodes only.
    allowed = 1e-5 if "fengler" in name else 1e-12
    assert largest_fall(fitted, times, deviations) <= allowed
    for time in times:
        k = np.exp(0.3 * np.sqrt(time) * deviations)
        assert fitted.normalised_density(k, time).min() >= -1e-10


def test_svi_slices_keep_the_calendar_arbitrage_of_the_quotes():
    fitted = ssvi.fit_slices(crossing_quotes())
    assert largest_fall(fitted, TIMES, np.linspace(-2.0, 2.0, 41)) > 1e-3


def test_order_at_nodes_is_the_weaker_condition():
    """It fits no worse, and leaves what the stricter one does not."""
    quotes = crossing_quotes()
    strict = sanos_surface.fit(quotes)
    weak = sanos_surface.fit(quotes, strict=False)

    def error(surface):
        return np.sum(misses(surface, quotes) ** 2)

    assert error(weak) <= error(strict) * (1.0 + 1e-6)
    deviations = np.linspace(-8.0, 8.0, 2001)
    assert largest_fall(strict, TIMES, deviations) <= 1e-12
    assert largest_fall(weak, TIMES, deviations) > 1e-9


def test_andreasen_huge_of_one_expiry_is_that_of_the_curve():
    item = quotes_of()[0]
    surface = andreasen_huge_surface.fit([item])
    curve = andreasen_huge.fit(
        item.forward * item.moneyness,
        item.total_volatility / np.sqrt(item.time_to_expiry),
        forward=item.forward,
        time_to_expiry=item.time_to_expiry,
        nodes=1000,
    )
    k = item.moneyness
    np.testing.assert_allclose(
        surface.time_value(k, TIMES[0]), curve.time_value(k), atol=1e-6
    )


def test_andreasen_huge_keeps_time_with_its_expiries():
    fitted = andreasen_huge_surface.fit(quotes_of())
    assert [fitted.clock(time) for time in TIMES] == [1.0, 2.0, 3.0]
    assert fitted.clock(0.05) == pytest.approx(0.5)
    assert fitted.clock(1.65) == pytest.approx(4.0)
    times = [0.05, *TIMES[:1], 0.2, *TIMES[1:2], 0.6, *TIMES[2:]]
    assert largest_fall(fitted, times, np.linspace(-6.0, 6.0, 241)) <= 1e-9


def test_local_variance_of_a_flat_surface_is_its_variance():
    flat = flat_surface(0.04 * TIMES)
    k = moneyness(0.6)
    np.testing.assert_allclose(local_variance(flat, k, 0.6), 0.04, rtol=1e-5)
    found = flat.local_volatility(flat.forward(0.6) * k, 0.6)
    np.testing.assert_allclose(found, 0.2, rtol=1e-5)


def flat_surface(variances):
    """The same volatility at all strikes of an expiry."""
    slices = tuple(
        svi.SVICurve(
            "flat", forward, time, a=variance, b=0.0, rho=0.0, m=0.0, sigma=1.0
        )
        for time, forward, variance in zip(TIMES, FORWARDS, variances, strict=True)
    )
    return ssvi.SVISlices("flat", TIMES, FORWARDS, slices)


def test_weights_are_balanced_over_all_expiries_in_order_of_time():
    quotes = quotes_of()[::-1]
    weights = [np.full(DEVIATIONS.size, weight) for weight in (1.0, 2.0, 6.0)]
    found = balanced(quotes, weights)
    assert [item.time_to_expiry for item in found] == list(TIMES)
    assert [item.weights[0] for item in found] == pytest.approx([2.0, 2 / 3, 1 / 3])
    with pytest.raises(ValueError, match="same time"):
        balanced([quotes[0], quotes[0]], weights[:2])


@pytest.fixture
def surface_accuracy(monkeypatch):
    """The script, imported as it is when it runs."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    return importlib.import_module("surface_accuracy")


def test_the_grid_finds_a_calendar_arbitrage_and_its_size(surface_accuracy):
    """Of flat surfaces it is near the money, where Black's formula gives it."""
    clean = surface_accuracy.arbitrage(flat_surface(0.04 * TIMES))
    assert clean["calendar_pairs"] == clean["calendar"] == 0.0
    assert clean["negative_probability"] == 0.0
    assert clean["least_local_variance"] == pytest.approx(0.04, rel=1e-4)
    falling = np.array([0.01, 0.04, 0.03])
    found = surface_accuracy.arbitrage(flat_surface(falling))
    x = np.linspace(-0.1, 0.1, 2001)

    def call(variance):
        d1 = -x / np.sqrt(variance) + 0.5 * np.sqrt(variance)
        return norm.cdf(d1) - np.exp(x) * norm.cdf(d1 - np.sqrt(variance))

    fall = np.max(call(falling[1]) - call(falling[2]))
    assert found["calendar_pairs"] == 1
    assert found["calendar"] == pytest.approx(fall, rel=1e-3)
    assert found["least_local_variance"] == pytest.approx(-0.01 / 0.65, rel=1e-3)


def test_the_grid_finds_the_negative_densities_of_a_steep_slice(surface_accuracy):
    steep = svi.SVICurve("steep", 1.0, 1.0, a=0.0, b=0.5, rho=-0.9, m=0.1, sigma=0.01)
    surface = ssvi.SVISlices("steep", TIMES[-1:], FORWARDS[-1:], (steep,))
    found = surface_accuracy.arbitrage(surface)
    assert found["least_density"] < -1e-3
    assert found["negative_probability"] > 1e-4


def expiries_of(script, spread=None):
    """The true surface's quotes as the script holds them."""
    found = []
    for item in quotes_of():
        side = 0.0 if spread is None else spread
        bid, ask = item.time_value - side, item.time_value + side
        if spread is None:
            bid = ask = np.full(item.moneyness.size, np.nan)
        found.append(
            script.Expiry(
                item.forward * item.moneyness,
                item.total_volatility / np.sqrt(item.time_to_expiry),
                bid,
                ask,
                item.forward,
                1.0,
                item.time_to_expiry,
            )
        )
    return found


def test_halves_judge_every_strike_once_and_expiries_the_inner_ones(surface_accuracy):
    expiries = expiries_of(surface_accuracy)
    judged = [rest for _, rests in surface_accuracy.halves(expiries) for rest in rests]
    for place, expiry in enumerate(expiries):
        strikes = np.concatenate([rest.strike for rest in judged[place :: len(TIMES)]])
        np.testing.assert_array_equal(np.sort(strikes), expiry.strike)
    kept, left_out = surface_accuracy.left_out_expiries(expiries)
    assert [expiry.time_to_expiry for expiry in kept] == [TIMES[0], TIMES[2]]
    assert [expiry.time_to_expiry for expiry in left_out] == [TIMES[1]]
    # The first expiry's strikes reach less far.
    assert 0 < left_out[0].strike.size < DEVIATIONS.size


def test_the_true_family_has_no_error_and_is_inside_every_spread(surface_accuracy):
    method = surface_accuracy.Method(
        "SSVI", "SSVI", ssvi.fit_ssvi, surface_accuracy.peer_quotes
    )
    expiries = expiries_of(surface_accuracy, spread=1e-5)
    found = surface_accuracy.measure(expiries, method)
    assert found["failures"] == 0
    assert found["inside"] == found["left_out_inside"] == 100.0
    for name in ("in_sample_bp", "left_out_bp", "beyond_bp", "expiries_bp"):
        assert found[name] == pytest.approx(0.0, abs=0.05)
    assert found["calendar_pairs"] == 0


def test_methods_say_which_data_sets_they_are_for(surface_accuracy):
    bare, spread = expiries_of(surface_accuracy), expiries_of(surface_accuracy, 1e-5)
    assert surface_accuracy.count_told(bare) == TIMES.size * DEVIATIONS.size
    terms = ("SSVI", "SSVI", ssvi.fit_ssvi, surface_accuracy.peer_quotes)
    plain = surface_accuracy.Method(*terms)
    assert plain.applies(bare)
    assert plain.applies(spread)
    weighted = surface_accuracy.Method(*terms, spreads_only=True)
    assert not weighted.applies(bare)
    assert weighted.applies(spread)
    slow = surface_accuracy.Method(*terms, slow=True)
    assert slow.applies(bare)
    assert not slow.applies(bare * 100)


def test_narrow_spreads_weigh_more(surface_accuracy):
    quotes = surface_accuracy.peer_quotes(expiries_of(surface_accuracy, spread=1e-5))
    assert all(isinstance(item.moneyness, np.ndarray) for item in quotes)
    every = np.concatenate([item.weights for item in quotes])
    assert every.mean() == pytest.approx(1.0)
    # A spread of one price is a spread in volatility of that over vega.
    expected = [item.vega**2 * item.time_to_expiry for item in quotes]
    ratio = every / np.concatenate(expected)
    np.testing.assert_allclose(ratio, ratio[0], rtol=2e-2)
    alike = surface_accuracy.peer_quotes(
        expiries_of(surface_accuracy, spread=1e-5), equal=True
    )
    assert all(np.all(item.weights == 1.0) for item in alike)

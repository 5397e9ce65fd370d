"""The convex programmes, against other solvers, published bounds and known truth."""

import dataclasses
import datetime
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from random_smiles import random_chain
from real_quotes import real_quotes, spx
from scipy.integrate import trapezoid
from scipy.optimize import nnls
from scipy.signal import find_peaks

import relu_options as ro
from benchmarks.peers.convex import solve_least_squares
from relu_options.arbitrage import static_arbitrage_violations
from relu_options.errors import QuoteError
from relu_options.fitting.convex import fit_convex
from relu_options.fitting.grid import SPACING, kinks_by_distance
from relu_options.fitting.least_error import least_square, proved
from relu_options.fitting.quotes import normalise, told_smile
from relu_options.fitting.smooth import fit_smooth, solve_mids
from relu_options.simulation import bundled_truth

# File, volatility error at most (bp), least possible error (bp), modes at most.
TABLES = [
    ("sx5e_20100301_andreasen_huge.csv", 2.5, 1.05, 4),
    ("tsla_20180615_exp20180720.csv", 20.0, 2.77, 4),
    ("tsla_20180615_exp20200117.csv", 38.0, 31.46, 4),
]


def smooth(quotes: ro.market_data.ExpiryQuotes, smoothing: float):
    """The smooth fit of prepared quotes."""
    (normalised,) = normalise([quotes])
    smile = told_smile(quotes, normalised)
    return fit_smooth(normalised, smile, smoothing=smoothing, narrowest=0.125, n=64)


@pytest.fixture(scope="module")
def chain():
    return ro.bundled_chain()


@pytest.fixture(scope="module")
def curves(chain):
    return ro.fit_curves(chain)


def test_kinks_reach_from_end_to_end(rng):
    low = -np.exp(rng.uniform(-4, 2, 200))
    high = np.exp(rng.uniform(-4, 2, 200))
    narrowest = np.exp(rng.uniform(-7, 0, 200))
    for a, b, c in zip(low, high, narrowest, strict=True):
        x, bandwidths = kinks_by_distance(40, low=a, high=b, narrowest=c)
        np.testing.assert_allclose(x[[0, -1]], [a, b], rtol=1e-9)
        assert bandwidths.min() <= c * (1 + 1e-2)
        wider = np.maximum(bandwidths[1:], bandwidths[:-1])
        assert (np.diff(x) <= 2.0 * SPACING * wider).all()


@pytest.mark.parametrize("position", [1, 4, 6])
def test_the_core_agrees_with_a_generic_solver(chain, position):
    """On the same programme, to 1e-8 of the objective, or below it."""
    fit = smooth(ro.prepare_quotes(chain[chain.slices[position]]), 1.0)
    made = fit.trial.objective
    generic = solve_least_squares(
        made.design,
        made.data,
        made.equality,
        np.array([1.0, 0.0]),
        penalty=fit.trial.smoothing**2 * made.prior,
        accept_reduced=True,
    )
    excess = fit.value / generic.objective - 1.0
    assert -1e-3 < excess < 1e-8
    assert fit.gap < 1e-8


def test_convex_regression_agrees_with_an_active_set_method(rng):
    for size in (4, 12, 30):
        x = rng.uniform(50.0, 150.0, size)
        y = np.abs(x - 100.0) + 5.0 * rng.standard_normal(size)
        weights = rng.uniform(0.5, 2.0, size)
        ordered = np.sort(x)
        hinges = np.maximum(x[:, None] - ordered[1:-1], 0.0)
        line = np.column_stack([np.ones(size), -np.ones(size), x, -x])
        root = np.sqrt(weights)[:, None]
        _, expected = nnls(np.hstack([line, hinges]) * root, y * root[:, 0])
        network = fit_convex(x, y, weights=weights)
        residual = np.sqrt(weights @ (np.asarray(network(x)) - y) ** 2)
        assert residual <= expected * (1 + 1e-9)
        assert (np.asarray(network.weights) >= 0.0).all()


def test_convex_regression_keeps_slope_bounds_and_units(rng):
    x = rng.uniform(50.0, 150.0, 40)
    y = np.maximum(100.0 - x, 0.0) + rng.standard_normal(40)
    network = fit_convex(x, y, slopes=(-0.8, -0.1))
    ends = np.asarray(network.derivative(jnp.array([0.0, 1000.0])))
    np.testing.assert_allclose(ends, [-0.8, -0.1], atol=1e-7)
    scaled = fit_convex(10.0 * x, 1e-3 * y, slopes=(-0.8e-4, -0.1e-4))
    np.testing.assert_allclose(1e3 * scaled(10.0 * x), network(x), atol=1e-6)
    straight = fit_convex([1.0, 2.0, 2.0, 3.0], [1.0, 1.5, 2.5, 3.0])
    np.testing.assert_allclose(straight(jnp.array([1.0, 2.5])), [1.0, 2.5], atol=1e-7)


@pytest.mark.parametrize(
    ("x", "y", "options", "match"),
    [
        ([1.0, 2.0], [1.0], {}, "shapes"),
        ([1.0, 1.0], [1.0, 2.0], {}, "two different"),
        ([1.0, np.nan, 3.0], [1.0, 2.0, 3.0], {}, r"positions \[1\]"),
        ([1.0, 2.0], [1.0, 2.0], {"slopes": (1.0, 0.0)}, "increasing"),
        ([1.0, 2.0], [1.0, 2.0], {"weights": [1.0, 0.0]}, "weight"),
    ],
)
def test_convex_regression_refuses(x, y, options, match):
    with pytest.raises(ValueError, match=match):
        fit_convex(x, y, **options)


def test_many_curves_are_the_curves_one_by_one(chain, curves):
    for one, many in zip(chain, curves.values(), strict=True):
        alone = ro.fit_curve(one)
        np.testing.assert_array_equal(alone.network.weights, many.network.weights)
        assert alone.expiry == many.expiry
    table = pd.concat([one.to_frame() for one in chain])
    again = ro.fit_curves(table, rate=0.04)
    assert list(again) == list(ro.fit_curves(chain))
    for curve in again.values():
        expected = np.exp(-0.04 * curve.time_to_expiry)
        assert curve.discount_factor == pytest.approx(expected, rel=1e-12)


def test_an_expiry_that_cannot_be_fitted_is_named_and_the_rest_go_on(chain):
    """Alone or in a batch; an error only if there is nothing else."""
    sound = ro.prepare_quotes(chain["2025-06-20"])
    strikes = np.linspace(4000.0, 6000.0, 30)
    worthless = pd.DataFrame({"strike": strikes, "mid": 0.0, "is_call": True})
    worthless["mid"] = np.maximum(5000.0 - strikes, 0.0)
    worthless["forward"], worthless["discount_factor"] = 5000.0, 1.0
    worthless["time_to_expiry"] = 0.5
    bad = pd.DataFrame({"strike": [1.0]})
    curves = ro.fit_curves([bad, chain["2025-03-21"], worthless, *[sound] * 40])
    assert list(curves)[:3] == [
        "2025-03-21 PM",
        "2025-06-20 PM (1)",
        "2025-06-20 PM (2)",
    ]
    assert len(curves) == 41
    (first, why), (second, also) = curves.left_out
    assert (first, second) == ("table 0", "0.5 years")
    assert "quotes need" in why or "time to expiry unknown" in why
    assert "only 0 usable strikes" in also
    assert repr(curves) == (
        "CurvesByExpiry(41 curves from 2025-03-21 PM to 2025-06-20 PM (40), "
        "2 left out: see `left_out`)"
    )
    with pytest.raises(KeyError, match="left out: only 0 usable"):
        curves[0.5]
    with pytest.raises(KeyError, match="stands for 40 expiries; choose"):
        curves["2025-06-20"]
    with pytest.raises(QuoteError, match="no expiry can be used: table 0: "):
        ro.fit_curves([bad, bad])
    with pytest.raises(QuoteError, match="there are none"):
        ro.fit_curves([])


def test_curves_are_looked_up_by_their_expiry(curves):
    place = list(curves).index("2025-06-20 PM")
    wanted = list(curves.values())[place]
    for key in (
        "2025-06-20",
        "06/20/2025",
        "2025-06-20 PM",
        ("2025-06-20", "PM"),
        pd.Timestamp("2025-06-20"),
        datetime.date(2025, 6, 20),
        np.datetime64("2025-06-20"),
        (pd.Timestamp("2025-06-20"), "PM"),
    ):
        assert curves[key] is wanted
        assert key in curves
    for key in ("2025-06-21", ("2025-06-20", "AM")):
        assert key not in curves
        with pytest.raises(KeyError, match=r"the nearest are .*2025-06-20 PM"):
            curves[key]
    with pytest.raises(KeyError, match="no expiry June; the labels are 2025-03-21"):
        curves["June"]


def test_a_table_and_a_picture_of_curves(curves):
    table = curves.to_frame()
    assert list(table.index) == list(curves)
    np.testing.assert_array_equal(table["inside"], 1.0)
    np.testing.assert_array_equal(table["excess"], 0.0)
    for label, curve in curves.items():
        assert table.loc[label, "quotes"] == len(curve.quotes)
        assert table.loc[label, "volatility"] == curve.implied_volatility(curve.forward)
    ax = curves.plot()
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == list(curves)
    plt.close("all")


def test_more_smoothing_is_further_from_the_mids_and_less_rough(chain):
    """By one ruler."""
    trial = smooth(ro.prepare_quotes(chain[chain.slices[4]]), 1.0).trial
    errors, rough = [], []
    for factor in (0.1, 1.0, 10.0, 100.0):
        smoother = dataclasses.replace(trial, smoothing=factor * trial.smoothing)
        weights = solve_mids(smoother, 1e-10).weights
        residual = trial.objective.residual(weights)
        errors.append(float(residual @ residual))
        rough.append(trial.objective.penalty(weights))
    assert errors == sorted(errors)
    assert rough == sorted(rough, reverse=True)


def test_flat_volatility_is_recovered_at_any_level():
    for volatility in (0.02, 0.3, 2.0):
        total = volatility * np.sqrt(0.5)
        strikes = 100.0 * np.exp(total * np.linspace(-2.0, 2.0, 25))
        table = pd.DataFrame({"strike": strikes, "implied_volatility": volatility})
        curve = ro.fit_curve(
            table, forward=100.0, discount_factor=1.0, time_to_expiry=0.5
        )
        np.testing.assert_allclose(
            curve.implied_volatility(strikes), volatility, rtol=5e-5
        )


def test_the_fit_is_near_the_truth_that_the_quotes_were_made_from(curves):
    """Median error below a quarter of the half-spread, in volatility; and the law."""
    truth = bundled_truth()
    distances = []
    for curve in curves.values():
        quotes = curve.quotes[curve.quotes["bid"] > 0.0]
        strike = quotes["strike"].to_numpy()
        true = np.asarray(truth.true_volatility(curve.expiry, strike))
        error = np.abs(curve.implied_volatility(strike) - true)
        vega = ro.black_scholes.vega(
            forward=curve.forward,
            strike=strike,
            time_to_expiry=curve.time_to_expiry,
            volatility=true,
            discount_factor=curve.discount_factor,
        )
        half_spread = 0.5 * (quotes["ask"] - quotes["bid"]) / vega
        assert np.median(error / half_spread) < 0.25
        low, high = curve.quantile([1e-5, 1.0 - 1e-5])
        grid = np.linspace(low, high, 1001)
        gap = np.abs(curve.density(grid) - truth.true_density(curve.expiry, grid))
        distances.append(0.5 * trapezoid(gap, grid))
    assert max(distances) < 0.05
    assert np.median(distances) < 0.03


def test_least_error_is_below_that_of_every_curve(curves):
    for curve in list(curves.values())[::3]:
        assert 0.0 < curve.least_error < curve.volatility_error
    flat = ro.BlackScholesCurve(volatility=0.2, forward=100.0, time_to_expiry=1.0)
    with pytest.raises(ValueError, match="not fitted"):
        _ = flat.least_error


def test_no_trade_proves_an_error_that_a_law_goes_below(rng):
    """Of random quantities, and of those that are near the best; true laws are known.

    The quotes are a law's with noise, so that the law itself has its noise as error.
    """
    for seed in range(12):
        (expiry,) = random_chain(seed, expiries=1, strikes=(5, 40))
        quotes = ro.prepare_quotes(
            expiry.quotes,
            forward=expiry.forward,
            discount_factor=expiry.discount_factor,
            time_to_expiry=expiry.time_to_expiry,
        )
        (true,) = normalise([quotes])
        true = true.take(true.total_volatility > 0.0)
        law = ro.fit_curve(quotes)
        strike = true.kernel.currency(true.kernel.place(true.x), quotes)
        totals = law.implied_volatility(strike) * np.sqrt(quotes.time_to_expiry)
        price = true.kernel.price(1.0, np.exp(true.x), totals, true.is_call)
        noise = 1e-3 * totals * rng.standard_normal(len(true))
        shaken = dataclasses.replace(
            true,
            total_volatility=totals + noise,
            mid=true.kernel.price(1.0, np.exp(true.x), totals + noise, true.is_call),
        )
        error = noise @ noise
        assert least_square(shaken) <= error
        vega = shaken.vega
        for size in (0.3, 1.0, 3.0):
            near = -2.0 * noise / vega * size
            far = size * np.abs(noise).max() / vega * rng.standard_normal(len(true))
            for quantity in (near, far, 100.0 * far, np.round(near, 2)):
                bound, minima = proved(shaken, quantity)
                assert bound <= error
                gain = quantity * (price - shaken.mid)
                assert not bound or (minima <= noise**2 - gain + 1e-14).all()


def test_curves_are_pytrees(curves):
    curve = list(curves.values())[4]
    strikes = jnp.array([4800.0, 5200.0])
    compiled = jax.jit(lambda c, k: c.price(k))(curve, strikes)
    np.testing.assert_allclose(compiled, curve.price(np.asarray(strikes)), rtol=1e-14)
    slope = jax.grad(lambda k: curve.price(k))(5000.0)
    assert slope == pytest.approx(curve.strike_delta(5000.0), rel=1e-12)
    flat = ro.BlackScholesCurve(volatility=0.2, forward=100.0, time_to_expiry=1.0)
    doubled = jax.tree.map(lambda leaf: leaf, flat)
    assert type(doubled) is ro.BlackScholesCurve
    vega = jax.grad(
        lambda v: ro.BlackScholesCurve(
            volatility=v, forward=100.0, time_to_expiry=1.0
        ).price(100.0)
    )(0.2)
    expected = ro.black_scholes.vega(
        forward=100.0, strike=100.0, time_to_expiry=1.0, volatility=0.2
    )
    assert vega == pytest.approx(expected, rel=1e-10)


def read_table(name: str) -> list[tuple[pd.DataFrame, dict[str, Any]]]:
    """The expiries of a table of volatilities, with their terms."""
    found = []
    for time, rows in pd.read_csv(real_quotes(name)).groupby("t"):
        table = rows[["strike", "iv"]].rename(columns={"iv": "implied_volatility"})
        terms = {
            "forward": float(rows["forward"].iloc[0]),
            "discount_factor": 1.0,
            "time_to_expiry": float(str(time)),
        }
        found.append((table, terms))
    return found


@pytest.mark.parametrize(("name", "most", "least", "modes"), TABLES)
def test_published_tables_are_fitted_closely_by_simple_densities(
    name, most, least, modes
):
    errors, bounds, counts = [], [], []
    for table, terms in read_table(name):
        curve = ro.fit_curve(table, **terms)
        errors.append(len(table) * curve.volatility_error**2)
        bounds.append(len(table) * curve.least_error**2)
        counts.append(len(table))
        strikes = np.linspace(table["strike"].min(), table["strike"].max(), 2000)
        density = np.asarray(curve.density(strikes)) * strikes
        peaks, _ = find_peaks(density, prominence=0.01 * density.max())
        assert len(peaks) <= modes
        assert curve.certificate
    total = sum(counts)
    assert 1e4 * np.sqrt(sum(errors) / total) < most
    assert 1e4 * np.sqrt(sum(bounds) / total) == pytest.approx(least, rel=0.01)


def test_every_spx_quote_is_inside_its_spread_and_nothing_is_violated():
    """39 expiries: shares inside, and a fine grid to ten deviations either side."""
    chain = spx(2019)
    curves = ro.fit_curves(chain)
    assert len(curves) == 39
    fitted = list(curves.values())
    inside = np.concatenate([curve.quotes["inside"].to_numpy() for curve in fitted])
    assert inside.mean() >= 0.999
    for curve in fitted:
        assert curve.certificate
        total = curve.implied_volatility(curve.forward) * curve.time_to_expiry**0.5
        strikes = curve.forward * np.exp(total * np.linspace(-10.0, 10.0, 2001))
        violations = static_arbitrage_violations(
            curve.price,
            forward=curve.forward,
            discount_factor=curve.discount_factor,
            strikes=strikes,
        )
        assert violations.empty, (curve, violations)

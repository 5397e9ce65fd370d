"""The methods that the benchmarks compare with are strong and do what they say."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.integrate import trapezoid
from scipy.stats import norm

from benchmarks.peers import (
    andreasen_huge,
    bound,
    convex,
    curve,
    fengler,
    mixtures,
    svi,
)

TERMS: dict[str, Any] = {"forward": 100.0, "time_to_expiry": 0.5}
STRIKES = np.linspace(70.0, 135.0, 14)
SVI_PARAMETERS = {"a": 0.006, "b": 0.06, "rho": -0.4, "m": 0.02, "sigma": 0.12}


def smile(strike):
    """Volatilities of an SVI curve without arbitrage."""
    true_curve = svi.SVICurve(name="truth", **TERMS, **SVI_PARAMETERS)
    return true_curve(strike)


METHODS = {
    "fengler": fengler.fit,
    "svi": svi.fit,
    "andreasen-huge": andreasen_huge.fit,
    "mixture": mixtures.fit,
    "sanos": mixtures.fit_sanos,
}


@pytest.fixture(scope="module", params=METHODS)
def fitted(request):
    return METHODS[request.param](STRIKES, smile(STRIKES), **TERMS)


def test_volatilities_of_a_smooth_smile_are_fitted_and_interpolated(fitted):
    between = 0.5 * (STRIKES[1:] + STRIKES[:-1])
    np.testing.assert_allclose(fitted(STRIKES), smile(STRIKES), atol=5e-4)
    np.testing.assert_allclose(fitted(between), smile(between), atol=1.5e-3)


def test_the_density_is_the_second_derivative_of_the_price(fitted):
    """Its integral over a stretch of strikes is the change of the price's slope."""
    width = 1e-3
    low, high = 81.3, 118.7

    def slope(strike):
        prices = fitted.price(np.array([strike - width, strike + width]))
        return np.diff(prices)[0] / (2.0 * width)

    strikes = np.linspace(low, high, 4001)
    mass = trapezoid(fitted.density(strikes), strikes)
    # Andreasen and Huge's density comes from coarse differences and has a kink.
    assert mass == pytest.approx(slope(high) - slope(low), abs=5e-3)


def test_svi_recovers_the_parameters_of_its_own_smile():
    fitted = svi.fit(STRIKES, smile(STRIKES), **TERMS)
    found = {name: getattr(fitted, name) for name in SVI_PARAMETERS}
    assert found == pytest.approx(SVI_PARAMETERS, rel=1e-3)


def test_fengler_spline_is_free_of_static_arbitrage_on_noisy_quotes():
    rng = np.random.default_rng(1)
    noisy = smile(STRIKES) + rng.normal(0.0, 5e-3, STRIKES.size)
    for smoothing in (1e-6, 1e-2):
        fitted = fengler.fit(STRIKES, noisy, **TERMS, smoothing=smoothing)
        strikes = np.linspace(1e-6, 400.0, 4001)
        assert fitted.density(strikes).min() >= 0.0
        price = fitted.price(strikes)
        assert price[0] == pytest.approx(TERMS["forward"], rel=1e-6)
        assert np.diff(price).max() <= 1e-9
        assert np.diff(price, 2).min() >= -1e-9


def test_more_smoothing_gives_a_smoother_spline_further_from_the_quotes():
    rng = np.random.default_rng(2)
    noisy = smile(STRIKES) + rng.normal(0.0, 2e-3, STRIKES.size)
    errors, bends = [], []
    for smoothing in (1e-5, 1e-2, 1.0):
        fitted = fengler.fit(STRIKES, noisy, **TERMS, smoothing=smoothing)
        errors.append(np.sum((fitted(STRIKES) - noisy) ** 2))
        density = fitted.density(np.linspace(1.0, 300.0, 3000))
        bends.append(np.sum(density**2))
    assert errors == sorted(errors)
    assert bends == sorted(bends, reverse=True)


def test_no_curve_is_nearer_to_the_quotes_than_the_bound():
    """Quotes without arbitrage cost it nothing, others less than any method."""
    clean = bound.fit(STRIKES, smile(STRIKES), **TERMS)
    np.testing.assert_allclose(clean(STRIKES), smile(STRIKES), atol=1e-8)
    rng = np.random.default_rng(3)
    noisy = smile(STRIKES) + rng.normal(0.0, 1e-2, STRIKES.size)

    def error(fit):
        return np.sum((fit(STRIKES, noisy, **TERMS)(STRIKES) - noisy) ** 2)

    assert 0.0 < error(bound.fit) <= error(fengler.fit)
    assert error(bound.fit) <= error(mixtures.fit_sanos)


def test_clarabel_projects_on_the_simplex():
    """The nearest point of the simplex moves every kept coordinate equally."""
    target = np.array([0.9, 0.5, -0.3])
    solution = convex.solve_clarabel(
        np.eye(3), -target, np.ones((1, 3)), np.array([1.0])
    )
    np.testing.assert_allclose(solution.x, [0.7, 0.3, 0.0], atol=1e-8)
    gradient = solution.x - target + solution.equality_duals - solution.lower_duals
    np.testing.assert_allclose(gradient, 0.0, atol=1e-8)
    rows = convex.solve_least_squares(
        np.eye(3), target, np.ones((1, 3)), np.array([1.0])
    )
    np.testing.assert_allclose(rows.x, [0.7, 0.3, 0.0], atol=1e-7)
    assert rows.objective == pytest.approx(0.5 * (0.2**2 + 0.2**2 + 0.3**2), rel=1e-8)


def test_clarabel_pays_for_leaving_an_interval():
    """Two quotes cannot share one price: the cheaper interval is left, by the gap."""
    # Unknowns: the price, then what each quote is exceeded by.
    cost = np.array([0.0, 1.0, 3.0])
    G = np.array([[1.0, -1.0, 0.0], [-1.0, 0.0, -1.0]])
    h = np.array([2.0, -5.0])
    solution = convex.solve_clarabel(
        np.zeros((3, 3)), cost, np.zeros((0, 3)), np.empty(0), G, h
    )
    np.testing.assert_allclose(solution.x, [5.0, 3.0, 0.0], atol=1e-7)
    assert solution.objective == pytest.approx(3.0, rel=1e-8)


def test_implied_volatility_inverts_blacks_formula_far_from_the_money():
    total = np.array([0.05, 0.3, 1.5])[:, None]
    moneyness = np.exp(total * np.linspace(-8.0, 8.0, 17))
    total = np.broadcast_to(total, moneyness.shape)
    price = curve.black_time_value(moneyness, total)
    found = curve.implied_total_volatility(moneyness, price)
    np.testing.assert_allclose(found, total, rtol=1e-8)
    d1 = -np.log(moneyness) / total + 0.5 * total
    call = norm.cdf(d1) - moneyness * norm.cdf(d1 - total)
    intrinsic = np.maximum(1.0 - moneyness, 0.0)
    np.testing.assert_allclose(price, call - intrinsic, atol=1e-12)


def test_prices_outside_their_bounds_have_the_documented_volatility():
    found = curve.implied_total_volatility(np.array([1.1, 0.9]), np.array([-0.1, 0.9]))
    assert found[0] == 0.0
    assert np.isnan(found[1])


def test_quotes_that_no_method_can_use_are_refused():
    with pytest.raises(ValueError, match="repeated"):
        fengler.fit([90.0, 90.0, 110.0], [0.2, 0.2, 0.2], **TERMS)
    with pytest.raises(ValueError, match="positive"):
        svi.fit([90.0, 100.0, 110.0], [0.2, 0.0, 0.2], **TERMS)


@pytest.fixture
def curve_accuracy(monkeypatch):
    """The script, imported as it is when it runs."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    return importlib.import_module("curve_accuracy")


def test_modes_and_roughness_of_known_densities(curve_accuracy):
    z = np.linspace(-5.0, 5.0, 100 * curve_accuracy.POINTS_PER_CELL)
    one, two = norm.pdf(z), 0.7 * norm.pdf(z, -1.0, 0.5) + 0.3 * norm.pdf(z, 1.0, 0.5)
    assert curve_accuracy.count_modes(one) == 1
    assert curve_accuracy.count_modes(two) == 2
    # The integral of the squared third derivative of the standard normal density.
    exact = 15.0 / (16.0 * np.sqrt(np.pi))
    assert curve_accuracy.roughness(one) == pytest.approx(exact, rel=0.02)


def test_left_out_errors_judge_every_inner_strike_once(curve_accuracy):
    expiry = curve_accuracy.Expiry(STRIKES, smile(STRIKES), **TERMS)
    method = curve_accuracy.Method("SVI", "SVI", svi.fit)
    errors = curve_accuracy.left_out_errors(expiry, method)
    assert errors.shape == (STRIKES.size - 2,)
    np.testing.assert_allclose(errors, 0.0, atol=1e-6)

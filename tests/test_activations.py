"""Each hidden unit against the option that the table says it is."""

import numpy as np
import pytest
from scipy import integrate, stats

from relu_options import activations, bachelier, black_scholes
from relu_options.activations import ACTIVATIONS

SPOT = 100.0
STRIKES = np.linspace(60.0, 150.0, 19)
PARAMETERS: dict[str, dict[str, float]] = {
    "relu": {},
    "leaky_relu": {"alpha": 0.25},
    "clipped_relu": {"width": 12.5},
    "bachelier": {"bandwidth": 15.0},
    "black": {"total_volatility": 0.15},
    "softplus": {"bandwidth": 8.0},
    "gelu": {"bandwidth": 15.0},
}


def expected_call(law, strike: float) -> float:
    """E max(X - K, 0) by quadrature of the probability of exceeding each level."""
    return integrate.quad(law.sf, strike, np.inf, epsabs=1e-13, epsrel=1e-13)[0]


def test_relu_is_a_call_at_expiry():
    np.testing.assert_array_equal(
        activations.relu(SPOT, STRIKES), np.maximum(SPOT - STRIKES, 0.0)
    )


def test_leaky_relu_is_a_call_and_short_puts():
    call, put = np.maximum(SPOT - STRIKES, 0.0), np.maximum(STRIKES - SPOT, 0.0)
    np.testing.assert_array_equal(
        activations.leaky_relu(SPOT, STRIKES, alpha=0.25), call - 0.25 * put
    )


def test_clipped_relu_is_a_call_spread():
    np.testing.assert_array_equal(
        activations.clipped_relu(SPOT, STRIKES, width=12.5),
        np.maximum(SPOT - STRIKES, 0.0) - np.maximum(SPOT - STRIKES - 12.5, 0.0),
    )


def test_bachelier_is_a_call_under_a_normal_law():
    unit = activations.bachelier(SPOT, STRIKES, bandwidth=15.0)
    law = stats.norm(SPOT, 15.0)
    np.testing.assert_allclose(unit, [expected_call(law, k) for k in STRIKES], 1e-9)
    price = bachelier.price(
        forward=SPOT, strike=STRIKES, time_to_expiry=0.25, volatility=30.0
    )
    np.testing.assert_allclose(unit, price, rtol=1e-14)


def test_black_is_a_call_under_a_lognormal_law():
    unit = activations.black(SPOT, STRIKES, total_volatility=0.15)
    law = stats.lognorm(0.15, scale=SPOT * np.exp(-0.5 * 0.15**2))
    np.testing.assert_allclose(unit, [expected_call(law, k) for k in STRIKES], 1e-9)
    price = black_scholes.price(
        forward=SPOT, strike=STRIKES, time_to_expiry=0.25, volatility=0.3
    )
    np.testing.assert_allclose(unit, price, rtol=1e-14)


def test_softplus_is_a_call_under_a_logistic_law():
    unit = activations.softplus(SPOT, STRIKES, bandwidth=8.0)
    law = stats.logistic(SPOT, 8.0)
    np.testing.assert_allclose(unit, [expected_call(law, k) for k in STRIKES], 1e-9)


def test_gelu_sells_a_butterfly_below_zero():
    """The witness: strikes two bandwidths above the spot, 0.1 bandwidths apart."""
    low, middle, high = activations.gelu(0.0, np.array([1.9, 2.0, 2.1]))
    assert low - 2.0 * middle + high < -0.001
    assert not activations.gelu.is_call_price
    distance = np.linspace(-4.0, 4.0, 1601)
    butterflies = np.diff(np.asarray(activations.gelu(distance)), 2)
    beyond = np.abs(distance[1:-1]) > np.sqrt(2.0)
    np.testing.assert_array_equal(butterflies < 0.0, beyond)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_unit_is_a_call_price_if_and_only_if_it_has_a_law(name):
    """Convex in the strike, slopes from -1 to 0, vanishing at high strikes."""
    unit = ACTIVATIONS[name]
    strikes = np.linspace(1.0, 1000.0, 4000)
    price = np.asarray(unit(SPOT, strikes, **PARAMETERS[name]))
    slopes = np.diff(price) / np.diff(strikes)
    is_price = (
        slopes.min() >= -1.0 - 1e-10
        and slopes.max() <= 1e-10
        and np.diff(slopes).min() >= -1e-10
        and abs(price[-1]) <= 1e-10
    )
    assert unit.is_call_price == is_price
    assert (unit.law is None) == (not is_price)

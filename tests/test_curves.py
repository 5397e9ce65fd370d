"""Fitted curves on simulated and on real quotes."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import relu_options as ro
from relu_options import black_scholes
from relu_options.arbitrage import static_arbitrage_violations
from relu_options.errors import ArbitrageError
from relu_options.networks import PriceNetwork, price_from_kinks, price_from_strikes

MARKET = Path(__file__).parents[2] / "shared" / "market"
needs_market = pytest.mark.skipif(
    not MARKET.exists(), reason="the real quotes are not beside the project"
)


@pytest.fixture(scope="module")
def curve():
    chain = ro.bundled_chain()
    return ro.fit_curve(chain[chain.slices[4]])


def test_curve_is_inside_every_spread_and_free_of_arbitrage(curve):
    assert curve.share_inside == 1.0
    assert curve.certificate
    deviation = curve.implied_volatility(curve.forward) * np.sqrt(curve.time_to_expiry)
    strikes = curve.forward * np.exp(np.linspace(-10, 10, 2001) * deviation)
    clean = static_arbitrage_violations(
        curve.price,
        forward=curve.forward,
        discount_factor=curve.discount_factor,
        strikes=strikes,
    )
    assert clean.empty
    assert np.isfinite(curve.implied_volatility(strikes)).all()


def test_parity_distribution_quantile_and_density_agree(curve):
    strikes = curve.quantile(np.linspace(0.01, 0.99, 25))
    np.testing.assert_allclose(
        curve.distribution(strikes), np.linspace(0.01, 0.99, 25), atol=1e-12
    )
    parity = curve.price(strikes) - curve.price(strikes, is_call=False)
    np.testing.assert_allclose(
        parity, curve.discount_factor * (curve.forward - strikes), atol=1e-9
    )
    step = 1e-3
    slope = curve.distribution(strikes + step) - curve.distribution(strikes - step)
    np.testing.assert_allclose(
        slope / (2 * step), curve.density(strikes), rtol=1e-6, atol=1e-12
    )


def test_json_keeps_every_digit(curve, tmp_path):
    curve.to_json(tmp_path / "curve.json")
    again = ro.PriceCurve.from_json(tmp_path / "curve.json")
    for name in ("kinks", "weights", "bandwidths"):
        np.testing.assert_array_equal(
            getattr(again.network, name), getattr(curve.network, name)
        )
    assert (again.forward, again.discount_factor) == (
        curve.forward,
        curve.discount_factor,
    )


def test_series_keep_their_index(curve):
    strikes = pd.Series([4800.0, 5000.0], index=["a", "b"])
    assert list(curve.price(strikes).index) == ["a", "b"]
    assert isinstance(curve.price(5000.0), float)


def test_moments_and_samples_agree_with_the_law(curve):
    moments = curve.moments()
    assert moments["mean"] == pytest.approx(curve.forward, rel=1e-12)
    second = curve.expectation(lambda spot: (spot - curve.forward) ** 2)
    assert second == pytest.approx(moments["variance"], rel=1e-10)
    draws = np.asarray(curve.sample(jax.random.key(0), 200_000))
    error = np.sqrt(moments["variance"] / draws.size)
    assert abs(draws.mean() - curve.forward) < 5 * error


def test_expectation_of_a_payoff_is_that_of_its_options(curve):
    """Exactly, although the payoff is a function too, which quadrature would blur."""
    payoff = ro.payoffs.butterfly(4900.0, 5000.0, 5100.0)
    low, middle, high = curve.price(np.array([4900.0, 5000.0, 5100.0]))
    expected = (low - 2.0 * middle + high) / curve.discount_factor
    assert curve.expectation(payoff) == pytest.approx(expected, rel=1e-10)
    assert curve.expectation(payoff.to_network()) == curve.expectation(payoff)


def test_one_hidden_unit_is_black_scholes():
    flat = ro.BlackScholesCurve(volatility=0.3, forward=100.0, time_to_expiry=0.5)
    strikes = np.array([50.0, 100.0, 180.0])
    expected = black_scholes.price(
        forward=100.0, strike=strikes, time_to_expiry=0.5, volatility=0.3
    )
    np.testing.assert_allclose(flat.price(strikes), expected, rtol=1e-13)


def test_price_of_a_payoff_is_one_inner_product(rng):
    kinks = jnp.sort(jnp.asarray(rng.uniform(50, 150, 20)))
    prices = PriceNetwork(
        kinks,
        jnp.asarray(rng.dirichlet(np.ones(20))),
        jnp.asarray(rng.uniform(0.0, 0.2, 20)),
    )
    payoff = ro.ReLUNetwork(
        1.5,
        -0.3,
        jnp.asarray(rng.uniform(60, 140, 7)),
        jnp.asarray(rng.normal(size=7)),
    )
    left, right = price_from_strikes(payoff, prices), price_from_kinks(payoff, prices)
    np.testing.assert_allclose(left, right, rtol=1e-13)


def test_arbitrage_in_the_quotes_is_fitted_or_named():
    quotes = pd.DataFrame(
        {
            "strike": [80.0, 90.0, 100.0, 110.0, 120.0],
            "option_type": "call",
            "bid": [20.85, 12.05, 8.6, 3.55, 1.5],
            "ask": [20.95, 12.15, 8.7, 3.65, 1.6],
        }
    )
    terms: dict[str, Any] = {
        "forward": 100.0,
        "discount_factor": 1.0,
        "time_to_expiry": 0.5,
    }
    curve = ro.fit_curve(quotes, **terms)
    assert curve.certificate
    assert curve.quotes["excess"].sum() > 0.0
    with pytest.raises(ArbitrageError, match="butterfly"):
        ro.fit_curve(quotes, **terms, on_arbitrage="raise")


@pytest.mark.parametrize("request_", [{"smoothing": -1.0}, {"kinks": 2}])
def test_requests_out_of_range_are_refused(request_: dict[str, Any]):
    with pytest.raises(ValueError, match=r"-1|kinks"):
        ro.fit_curve(pd.DataFrame(), **request_)


@needs_market
def test_unsmoothed_fit_reaches_the_least_error_any_curve_can_have():
    """31.5 bp on the long TSLA table, as a second solver finds too."""
    table = pd.read_csv(MARKET / "tsla_20180615_exp20200117.csv")
    quotes = table.rename(columns={"iv": "implied_volatility"})[
        ["strike", "implied_volatility"]
    ]
    terms: dict[str, Any] = {
        "forward": float(table.forward[0]),
        "discount_factor": 1.0,
        "time_to_expiry": float(table.t[0]),
    }
    exact = ro.fit_curve(quotes, **terms, smoothing=0.0)
    assert 1e4 * exact.volatility_error == pytest.approx(31.47, rel=0.01)
    smooth = ro.fit_curve(quotes, **terms)
    assert exact.volatility_error < smooth.volatility_error < 38e-4

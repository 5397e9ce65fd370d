"""Portfolios: without loss from networks and back, priced, quoted, drawn."""

from fractions import Fraction
from typing import Any

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from test_payoffs import NAMED, random_payoff

import relu_options as ro
from relu_options import black_scholes, payoffs
from relu_options.decomposition import onto_strikes
from relu_options.networks import price_from_kinks
from relu_options.payoffs import Payoff

CHOICES: list[dict[str, Any]] = [
    {"options": "calls"},
    {"options": "puts"},
    {"options": "out_of_the_money", "boundary": 5.0},
    {"options": "out_of_the_money", "boundary": 6.25},
]


@pytest.fixture(scope="module")
def quotes():
    chain = ro.bundled_chain()
    return ro.prepare_quotes(chain[chain.slices[4]])


@pytest.fixture(scope="module")
def curve(quotes):
    return ro.fit_curve(quotes)


@pytest.mark.parametrize("choice", CHOICES)
def test_nothing_is_lost_in_rational_arithmetic(rng, choice):
    for _ in range(40):
        payoff = random_payoff(rng, int(rng.integers(0, 7)))
        portfolio = ro.decompose(payoff, **choice, multiplier=Fraction(100))  # type: ignore[arg-type]
        assert isinstance(portfolio.cash, Fraction)
        assert portfolio.payoff() == payoff
        again = ro.decompose(portfolio.to_network(), **choice, multiplier=100)
        assert again.payoff() == payoff
        np.testing.assert_array_equal(again.quantities, portfolio.quantities)
        is_put = ~portfolio.is_call
        split = {"calls": -np.inf, "puts": np.inf}.get(choice["options"])
        boundary = choice["boundary"] if split is None else split
        assert (portfolio.strikes[is_put] <= boundary).all()
        assert (portfolio.strikes[~is_put] >= boundary).all()


def test_floats_are_rounded_once(rng):
    """Legs keep every digit; cash and slope are the nearest floats to the exact."""
    payoff = Payoff(
        rng.normal(), rng.normal(), rng.uniform(1, 9, 30), rng.normal(size=30)
    )
    exact = payoff.exactly()
    for choice in CHOICES:
        portfolio, truth = ro.decompose(payoff, **choice), ro.decompose(exact, **choice)
        assert portfolio.cash == float(truth.cash)
        assert portfolio.forwards == float(truth.forwards)
        np.testing.assert_array_equal(
            portfolio.quantities, truth.quantities.astype(float)
        )
    assert ro.decompose(payoff).payoff() == payoff


def test_a_kink_at_the_boundary_holds_as_little_underlying_as_possible():
    choice: dict[str, Any] = {"options": "out_of_the_money", "boundary": 100.0}
    for payoff, forwards, types in [
        (payoffs.straddle(100.0), 0.0, [False, True]),
        (payoffs.call(100.0), 0.0, [True]),
        (payoffs.put(100.0), 0.0, [False]),
        (payoffs.forward() + payoffs.call(100.0), 1.0, [True]),
        (payoffs.forward() + payoffs.put(100.0), 0.0, [True]),
        (payoffs.forward(100.0), 1.0, []),
    ]:
        portfolio = ro.decompose(payoff, **choice)
        assert portfolio.forwards == forwards
        assert portfolio.is_call.tolist() == types
        assert portfolio.payoff() == payoff


def demeterfi_table() -> pd.DataFrame:
    """Demeterfi, Derman, Kamal and Zou (1999), Table 1: strike, weight, volatility."""
    weights = [163.04, 134.63, 113.05, 96.27, 82.98, 72.26, 63.49, 56.23, 50.15, 45.00]
    weights += [20.98, 19.63, 36.83, 33.55, 30.69, 28.19, 25.98, 24.02, 22.27]
    strikes = [*np.arange(50.0, 101.0, 5.0), *np.arange(100.0, 136.0, 5.0)]
    table = pd.DataFrame({"strike": strikes, "weight": weights})
    table["option_type"] = ["put"] * 11 + ["call"] * 8
    table["volatility"] = 0.30 - 0.01 * (table["strike"] - 50.0) / 5.0
    return table


def test_demeterfi_derman_kamal_and_zou():
    """Their discrete replication of a three-month variance swap, to every digit."""
    table = demeterfi_table()
    spot, rate, time_to_expiry = 100.0, 0.05, 90.0 / 365.0
    contract = 2.0 / time_to_expiry * payoffs.log_contract(spot)
    strip = contract.piecewise_linear(np.arange(45.0, 141.0, 5.0))
    portfolio = ro.decompose(
        1e4 * strip, options="out_of_the_money", boundary=spot, multiplier=1.0
    )
    np.testing.assert_array_equal(portfolio.strikes, table["strike"])
    np.testing.assert_array_equal(portfolio.is_call, table["option_type"] == "call")
    np.testing.assert_allclose(portfolio.quantities, table["weight"], atol=0.0051)
    assert portfolio.cash == pytest.approx(0.0, abs=1e-9)
    assert portfolio.forwards == pytest.approx(0.0, abs=1e-11)
    prices = black_scholes.price(
        spot=spot,
        rate=rate,
        strike=table["strike"].to_numpy(),
        time_to_expiry=time_to_expiry,
        volatility=table["volatility"].to_numpy(),
        is_call=(table["option_type"] == "call").to_numpy(),
    )
    cost = portfolio.quantities @ prices
    assert cost == pytest.approx(419.8671, abs=5e-5)
    growth = np.exp(rate * time_to_expiry)
    fair_variance = (
        2.0 / time_to_expiry * (rate * time_to_expiry - (growth - 1.0))
        + growth * cost / 1e4
    )
    assert 100 * np.sqrt(fair_variance) == pytest.approx(20.467, abs=5e-4)


@pytest.mark.parametrize("name", NAMED)
def test_price_is_the_sum_of_legs_and_the_expectation(name, curve):
    """Three ways, to 1e-12 of what the legs are worth: legs, kinks, density."""
    payoff = NAMED[name][0]
    scale = curve.forward / 100.0
    payoff = Payoff(
        scale * payoff.cash, payoff.slope, scale * payoff.strikes, payoff.weights
    )
    calls = ro.decompose(payoff)
    others = ro.decompose(payoff, options="out_of_the_money", boundary=curve.forward)
    gross = abs(calls.cash) + abs(calls.forwards) * curve.forward
    gross += np.abs(calls.quantities) @ np.atleast_1d(curve.price(calls.strikes))
    tolerance = 1e-12 * gross
    network = padded(payoff)
    assert calls.price(curve) == pytest.approx(others.price(curve), abs=tolerance)
    kinks = float(price_from_kinks(network, curve.network))
    assert calls.price(curve) == pytest.approx(kinks, abs=tolerance)
    discount = curve.discount_factor
    integral = discount * expectation_by_quadrature(payoff, curve)
    assert calls.price(curve) == pytest.approx(integral, abs=tolerance)
    direct = discount * curve.expectation(network)
    assert calls.price(curve) == pytest.approx(direct, abs=tolerance)


def padded(payoff: Payoff) -> ro.ReLUNetwork:
    """With four kinks, so that all networks compile once."""
    network, extra = payoff.to_network(), 4 - len(payoff.strikes)
    return ro.ReLUNetwork(
        network.intercept,
        network.slope,
        jnp.asarray(np.append(payoff.strikes, np.full(extra, 100.0))),
        jnp.asarray(np.append(payoff.weights, np.zeros(extra))),
    )


def expectation_by_quadrature(payoff: Payoff, curve) -> float:
    """Payoff times density, by Gauss-Legendre on panels that end at the strikes."""
    deviation = curve.implied_volatility(curve.forward) * np.sqrt(curve.time_to_expiry)
    middle = np.log(curve.forward)
    edges = np.linspace(middle - 16.0 * deviation, middle + 12.0 * deviation, 320)
    kinks = np.log(payoff.strikes)
    # A kink takes the place of the nearest edge, so that all shapes are the same.
    for kink in kinks:
        edges[np.abs(edges - kink).argmin()] = kink
    nodes, weights = np.polynomial.legendre.leggauss(24)
    middle, half = 0.5 * (edges[1:] + edges[:-1]), 0.5 * np.diff(edges)
    spots = np.exp(middle[:, None] + half[:, None] * nodes)
    terms = half[:, None] * weights * spots * curve.density(spots) * payoff(spots)
    return float(terms.sum())


def test_listed_strikes_take_a_kink_between_them(rng):
    listed = np.array([80.0, 90.0, 95.0, 110.0])
    payoff = Payoff(1.0, -0.5, rng.uniform(81, 109, 6), rng.normal(size=6))
    portfolio = ro.decompose(payoff, strikes=listed[[2, 0, 3, 1]])
    assert set(portfolio.strikes) <= set(listed)
    spots = np.linspace(0.0, 200.0, 2001)
    expected = np.interp(spots, [0, *listed, 200], payoff(np.array([0, *listed, 200])))
    np.testing.assert_allclose(portfolio.payoff()(spots), expected, atol=1e-11)
    low, high = portfolio.error_payoff.bounds()
    np.testing.assert_allclose(
        portfolio.error(spots), portfolio.error_payoff(spots), atol=1e-12
    )
    fine = portfolio.error(np.union1d(spots, payoff.strikes))
    np.testing.assert_allclose([low, high], [fine.min(), fine.max()], atol=1e-11)


def test_kinks_beyond_the_listed_strikes():
    """Below, the forward is a call of strike zero; above, the last strike has it."""
    listed = np.array([90.0, 110.0])
    below = onto_strikes(payoffs.call(60.0), listed)
    assert below == payoffs.forward() / 3.0 + payoffs.call(90.0) * (2.0 / 3.0)
    above = ro.decompose(payoffs.call(120.0), strikes=listed)
    assert above.error_payoff.bounds() == (0.0, 10.0)
    negative = Payoff(0, 0, np.array([-5.0]), np.array([1.0]))
    assert onto_strikes(negative, listed) == payoffs.forward() + 5.0
    with pytest.raises(ValueError, match="must be positive, not 0"):
        onto_strikes(payoffs.call(60.0), np.array([0.0, 1.0]))


def test_whole_contracts_keep_the_slope_within_half_a_contract(rng):
    payoff = Payoff(0.0, 0.0, np.arange(50.0, 150.0, 5.0), rng.normal(size=20) * 300)
    portfolio = ro.decompose(
        payoff,
        options="out_of_the_money",
        boundary=101.0,
        multiplier=100.0,
        whole_contracts=True,
    )
    np.testing.assert_array_equal(portfolio.quantities, np.round(portfolio.quantities))
    between = np.arange(47.5, 150.0, 5.0)
    slopes = portfolio.error_payoff.derivative(between)
    assert np.abs(slopes).max() <= 50.0 + 1e-9
    assert portfolio.error(101.0) == pytest.approx(0.0, abs=1e-9)


def test_a_price_network_is_its_law(curve):
    """Strikes are outcomes, quantities state prices, its payoff the skeleton."""
    portfolio = ro.decompose(curve.network)
    assert not portfolio.is_call.any()
    assert (portfolio.cash, portfolio.forwards) == (0.0, 0.0)
    total = portfolio.quantities.sum()
    assert total == pytest.approx(curve.discount_factor, rel=1e-13)
    mean = portfolio.quantities @ portfolio.strikes
    assert mean == pytest.approx(curve.discount_factor * curve.forward, rel=1e-13)
    strikes = curve.quantile(np.linspace(0.01, 0.99, 17))
    skeleton = np.asarray(curve.network.skeleton(strikes))
    np.testing.assert_allclose(portfolio.payoff()(strikes), skeleton, atol=1e-9)
    assert (portfolio.error(strikes) <= 1e-9).all()
    as_calls = ro.decompose(curve.network, options="calls")
    np.testing.assert_allclose(as_calls.payoff()(strikes), skeleton, atol=1e-9)


def test_a_smooth_value_against_the_spot_is_hedged_by_its_skeleton():
    value = ro.BachelierNetwork(
        1.0, 0.0, jnp.array([90.0, 110.0]), jnp.array([0.5, -0.25]), jnp.full(2, 4.0)
    )
    portfolio = ro.decompose(value)
    assert portfolio.payoff() == 1.0 + 0.5 * payoffs.call(90.0) - 0.25 * payoffs.call(
        110.0
    )
    assert portfolio.error(90.0) == pytest.approx(
        -0.5 * 4.0 / np.sqrt(2 * np.pi), rel=1e-5
    )


def test_costs_at_the_quotes(quotes):
    strikes = np.sort(quotes.strike)
    low, high = strikes[[30, -30]]
    collar = ro.decompose(payoffs.collar(low, high), quotes=quotes, multiplier=100.0)
    table = quotes.to_frame().set_index("strike")
    forward = quotes.discount_factor * quotes.forward
    bought, sold = table.loc[low], table.loc[high]
    assert collar.cost("ask") == pytest.approx(forward + bought["ask"] - sold["bid"])
    assert collar.cost("bid") == pytest.approx(forward + bought["bid"] - sold["ask"])
    assert collar.cost("mid") == pytest.approx(forward + bought["mid"] - sold["mid"])
    frame = collar.to_frame()
    assert frame["cost"].sum() == pytest.approx(collar.cost())
    assert frame["side"].tolist() == ["buy", "buy", "sell"]
    # The same trade in calls costs the same, its puts being turned by parity.
    calls = ro.decompose(payoffs.collar(low, high), quotes=quotes, options="calls")
    assert calls.cost() == pytest.approx(collar.cost(), rel=1e-12)
    assert "costs" in repr(collar)


def test_greeks_are_derivatives_of_the_price(curve):
    portfolio = ro.decompose(
        payoffs.iron_condor(*(curve.forward * np.array([0.9, 0.95, 1.05, 1.1]))),
        options="out_of_the_money",
        boundary=curve.forward,
    )
    portfolio = ro.StrikePortfolio(
        5.0, 0.25, portfolio.strikes, portfolio.is_call, portfolio.quantities
    )
    greeks = portfolio.greeks(curve)
    by_leg = portfolio.greeks(curve, by_leg=True)
    pd.testing.assert_series_equal(
        by_leg[greeks.index].sum(), greeks, check_names=False
    )
    assert greeks["price"] == pytest.approx(portfolio.price(curve), rel=1e-12)
    flat = ro.BlackScholesCurve(volatility=0.2, forward=100.0, time_to_expiry=0.5)
    strangle = ro.decompose(
        payoffs.strangle(90.0, 110.0), options="out_of_the_money", boundary=100.0
    )

    def price(forward=100.0, volatility=0.2, time_to_expiry=0.5):
        moved = ro.BlackScholesCurve(
            volatility=volatility, forward=forward, time_to_expiry=time_to_expiry
        )
        return strangle.price(moved)

    found = strangle.greeks(flat)
    step = 1e-3
    slope = (price(100 + step) - price(100 - step)) / (2 * step)
    bend = (price(100 + step) - 2 * price() + price(100 - step)) / step**2
    vega = (price(volatility=0.2 + 1e-5) - price(volatility=0.2 - 1e-5)) / 2e-5
    theta = (
        -(price(time_to_expiry=0.5 + 1e-5) - price(time_to_expiry=0.5 - 1e-5)) / 2e-5
    )
    assert found["delta"] == pytest.approx(slope, rel=1e-6)
    assert found["gamma"] == pytest.approx(bend, rel=1e-4)
    assert found["vega"] == pytest.approx(vega, rel=1e-6)
    assert found["theta"] == pytest.approx(theta, rel=1e-6)


def test_bad_requests_are_named(quotes):
    call: Any = payoffs.call(100.0)
    with pytest.raises(ValueError, match="need a `boundary=`"):
        ro.decompose(call, options="out_of_the_money")
    with pytest.raises(ValueError, match="options must be"):
        ro.decompose(call, options="otm")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="cannot decompose str"):
        ro.decompose("call")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="pass listed `strikes=`"):
        ro.decompose(payoffs.power(2.0))
    with pytest.raises(ValueError, match="no quotes"):
        ro.decompose(call).cost()
    with pytest.raises(ValueError, match="side must be"):
        ro.decompose(call, quotes=quotes).cost("last")  # type: ignore[arg-type]
    strike = float(np.sort(quotes.strike)[0]) + 0.01
    unlisted = ro.decompose(payoffs.call(strike), strikes=[strike], quotes=quotes)
    with pytest.raises(ValueError, match="no bid or ask for 1 of 1 legs"):
        unlisted.cost()
    with pytest.raises(ValueError, match="not a piecewise-linear payoff"):
        _ = ro.decompose(payoffs.power(2.0), strikes=[1.0, 2.0]).error_payoff
    with pytest.raises(ValueError, match="multiplier must be positive"):
        ro.StrikePortfolio(0, 0, np.zeros(0), np.zeros(0), np.zeros(0), multiplier=0)
    with pytest.raises(ValueError, match="legs have one shape"):
        ro.StrikePortfolio(0, 0, np.zeros(2), np.zeros(2), np.zeros(1))


def test_smooth_payoffs_meet_listed_strikes():
    listed = np.linspace(50.0, 150.0, 21)
    contract = payoffs.log_contract(100.0)
    portfolio = ro.decompose(contract, strikes=listed)
    np.testing.assert_allclose(portfolio.error(listed), 0.0, atol=1e-14)
    assert portfolio.payoff().right_slope == pytest.approx(contract.derivative(150.0))


def test_plot_returns_axes(curve):
    strikes = curve.forward * np.array([0.9, 0.95, 1.0, 1.05, 1.1])
    contract = 2.0 * payoffs.log_contract(curve.forward)
    assert ro.decompose(contract, strikes=strikes).plot(curve=curve).lines
    assert ro.decompose(payoffs.straddle(100.0)).plot().lines
    plt.close("all")

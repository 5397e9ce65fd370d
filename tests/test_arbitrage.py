"""`arbitrage`: of quotes by linear programmes, of networks by their certificates."""

from dataclasses import replace
from fractions import Fraction
from typing import Any

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from real_quotes import spx
from scipy.optimize import linprog
from scipy.sparse import csc_matrix

from benchmarks.peers.convex import clarabel
from relu_options.arbitrage import (
    IDENTITY_ROUNDING,
    bound_violations,
    certify_network,
    check_quote_arbitrage,
    least_excess,
    static_arbitrage_violations,
)
from relu_options.errors import ArbitrageError, QuoteError
from relu_options.market_data import prepare_quotes
from relu_options.networks import Kernel, PriceNetwork

FORWARD, DISCOUNT = 103.0, 0.97
TERMS: dict[str, Any] = {"forward": FORWARD, "discount_factor": DISCOUNT}
UNIT_TERMS: dict[str, Any] = {"forward": 100.0, "discount_factor": 1.0}


def random_network(rng, kernel: Kernel = "black", n=40, forward=FORWARD):
    """Lognormal kinks, some weights tiny; mass and forward as in `TERMS`."""
    kinks = np.sort(np.exp(rng.normal(0.0, 0.3, n)))
    weights = rng.dirichlet(np.full(n, 0.3))
    kinks *= forward / (weights @ kinks)
    bandwidths = rng.uniform(0.0, 0.1, n) * (1.0 if kernel == "black" else forward)
    return PriceNetwork(
        jnp.array(kinks),
        jnp.array(DISCOUNT * weights / weights.sum()),
        jnp.array(bandwidths),
        kernel,
    )


def network_quotes(rng, m=60, half_spread=0.0):
    """Calls and puts, some strikes twice, around the prices of a random network."""
    network = random_network(rng)
    strike = rng.choice(np.linspace(60.0, 170.0, m), m)
    is_call = rng.random(m) < 0.5
    price = np.where(is_call, network(strike), network.put(strike))
    half = half_spread * rng.uniform(0.2, 1.0, m)
    bid, ask = np.maximum(price - half, 0.0), price + half
    return {"strike": strike, "bid": bid, "ask": ask, "is_call": is_call, **TERMS}


def even_quotes(half_spread=0.01):
    """Calls from 80 to 120 where any spot from 70 to 130 is as likely as another.

    Prices at 95, 100 and 105 are 10.208, 7.5 and 5.208; a butterfly of neighbours costs
    0.2083 per call in its middle.
    """
    strike = np.arange(80.0, 121.0, 5.0)
    price = (130.0 - strike) ** 2 / 120.0
    return {
        "strike": strike,
        "bid": price - half_spread,
        "ask": price + half_spread,
        "is_call": np.full(len(strike), True),
        **UNIT_TERMS,
    }


def assert_cannot_lose(legs: pd.DataFrame, strikes: np.ndarray):
    """Assert, in rational arithmetic, that no spot from zero on costs anything."""

    def payoff(spot: Fraction) -> Fraction:
        total = Fraction(0)
        for leg in legs.to_dict(orient="records"):
            kind, quantity = leg["option_type"], Fraction(leg["quantity"])
            strike = Fraction(0) if kind == "cash" else Fraction(leg["strike"])
            total += (
                quantity
                * {
                    "call": max(spot - strike, Fraction(0)),
                    "put": max(strike - spot, Fraction(0)),
                    "forward": spot - strike,
                    "cash": Fraction(1),
                }[kind]
            )
        return total

    spots = [Fraction(0), *(Fraction(float(strike)) for strike in np.unique(strikes))]
    assert min(payoff(spot) for spot in spots) >= 0
    assert payoff(spots[-1] + 1) >= payoff(spots[-1])  # and so does every spot beyond


def assert_is_price_curve(result):
    """Assert that the call prices are convex and fall, with slopes in [-D, 0]."""
    (forward,), (discount_factor,) = result.forwards, result.discount_factors
    strikes = np.append(0.0, result.strikes)
    prices = np.append(discount_factor * forward, result.call_prices)
    slopes = np.diff(prices) / np.diff(strikes)
    assert slopes[0] >= -discount_factor - 1e-10
    assert slopes[-1] <= 1e-10
    width = np.diff(strikes)
    middle = (width[1:] * prices[:-2] + width[:-1] * prices[2:]) / (
        width[1:] + width[:-1]
    )
    assert (prices[1:-1] <= middle + 1e-9).all()


def dense_least_excess(quotes, weights):
    """The same programme in probabilities of a fine grid of spots, every row dense."""
    top = np.array([1e4 * quotes["forward"]])
    spots = np.unique(np.concatenate([[0.0], quotes["strike"], [100.0, 103.0], top]))
    sign = np.where(quotes["is_call"], 1.0, -1.0)[:, None]
    payoffs = quotes["discount_factor"] * np.maximum(
        sign * (spots - quotes["strike"][:, None]), 0.0
    )
    eye = np.eye(len(payoffs))
    solution = linprog(
        np.concatenate([np.zeros(len(spots)), weights]),
        A_ub=np.block([[-payoffs, -eye], [payoffs, -eye]]),
        b_ub=np.concatenate([-quotes["bid"], quotes["ask"]]),
        A_eq=np.block(
            [[np.ones(len(spots)), np.zeros(len(eye))], [spots, np.zeros(len(eye))]]
        ),
        b_eq=[1.0, quotes["forward"]],
    )
    assert solution.status == 0
    return solution.fun


# Quotes, by hand.


def test_the_butterfly_that_costs_minus_three_tenths():
    """Its middle must fall by half of that, and selling it earns all of it."""
    price = np.array([20.9, 12.1, 8.0, 3.6])
    strike = np.array([80.0, 90.0, 100.0, 110.0])
    result = least_excess(
        strike=strike, bid=price, ask=price, is_call=True, **UNIT_TERMS
    )
    assert not result.is_arbitrage_free
    assert result.family == "butterfly"
    assert result.family_strikes == (90.0, 100.0, 110.0)
    np.testing.assert_allclose(result.excess, [0.0, 0.0, 0.15, 0.0], atol=1e-12)
    np.testing.assert_allclose(result.total_excess, 0.15, rtol=1e-12)
    assert result.share_inside == 0.75
    legs = result.simplest_trade()
    assert legs["quantity"].tolist() == [1.0, -2.0, 1.0]
    assert legs["side"].tolist() == ["buy", "sell", "buy"]
    np.testing.assert_allclose(legs["cash_flow"].sum(), 0.3)
    legs = result.trade()
    assert legs["quantity"].tolist() == [0.5, -1.0, 0.5]
    np.testing.assert_allclose(legs["cash_flow"].sum(), 0.15)
    assert_cannot_lose(legs, strike)


def test_a_call_below_intrinsic_value_is_bought_and_the_forward_sold():
    result = least_excess(
        strike=[90.0, 110.0], bid=[4.0, 1.0], ask=[5.0, 1.2], is_call=True, **UNIT_TERMS
    )
    assert (result.family, result.family_strikes) == ("bounds", (90.0,))
    np.testing.assert_allclose(result.total_excess, 5.0)
    legs = result.simplest_trade().set_index("option_type")
    assert legs["quantity"].to_dict() == {"call": 1.0, "forward": -1.0, "cash": -10.0}
    np.testing.assert_allclose(legs["cash_flow"].sum(), 5.0)


@pytest.mark.parametrize(
    ("strike", "is_call", "bid"), [(90.0, True, 98.0), (110.0, False, 108.0)]
)
def test_an_option_above_its_upper_bound_is_sold(strike, is_call, bid):
    """A call is not worth more than the discounted forward, a put than its strike."""
    bound = 0.97 * (100.0 if is_call else strike)
    result = least_excess(
        strike=[strike],
        bid=[bid],
        ask=[bid + 1.0],
        is_call=is_call,
        forward=100.0,
        discount_factor=0.97,
    )
    assert result.family == "bounds"
    np.testing.assert_allclose(result.total_excess, bid - bound)
    legs = result.trade()
    np.testing.assert_allclose(legs["cash_flow"].sum(), bid - bound)
    assert_cannot_lose(legs, np.array([strike]))


def test_a_call_and_a_put_that_break_parity():
    result = least_excess(
        strike=[100.0, 100.0],
        bid=[5.0, 3.0],
        ask=[5.2, 3.1],
        is_call=[True, False],
        forward=101.0,
        discount_factor=0.99,
    )
    assert result.family == "parity"
    np.testing.assert_allclose(result.total_excess, 5.0 - 3.1 - 0.99)
    legs = result.simplest_trade()
    assert legs["option_type"].tolist() == ["call", "put", "forward", "cash"]
    assert_cannot_lose(legs, np.array([100.0]))


def test_a_call_spread_with_a_negative_price_and_one_above_its_width():
    rising = least_excess(
        strike=[100.0, 110.0],
        bid=[4.0, 4.5],
        ask=[4.1, 4.7],
        is_call=True,
        **UNIT_TERMS,
    )
    assert (rising.family, rising.family_strikes) == ("call_spread", (100.0, 110.0))
    np.testing.assert_allclose(rising.simplest_trade()["cash_flow"].sum(), 0.4)
    wide = least_excess(
        strike=[80.0, 90.0],
        bid=[24.0, 12.0],
        ask=[24.5, 12.5],
        is_call=True,
        **UNIT_TERMS,
    )
    assert (wide.family, wide.family_strikes) == ("call_spread", (80.0, 90.0))
    np.testing.assert_allclose(wide.simplest_trade()["cash_flow"].sum(), 1.5)


def test_a_butterfly_with_the_forward_as_its_lower_wing():
    """The line from the forward, at strike zero, to 4.2 at 100 has 23.36 at 80."""
    result = least_excess(
        strike=[80.0, 100.0],
        bid=[24.0, 4.0],
        ask=[24.5, 4.2],
        is_call=True,
        **UNIT_TERMS,
    )
    assert (result.family, result.family_strikes) == ("butterfly", (0.0, 80.0, 100.0))
    np.testing.assert_allclose(result.total_excess, 24.0 - 23.36)
    for legs in (result.trade(), result.simplest_trade()):
        assert legs["cash_flow"].sum() > 0.0
        assert_cannot_lose(legs, result.strike)


def test_the_message_names_family_strikes_and_earnings():
    quotes = even_quotes()
    quotes["bid"][4] += 0.5
    quotes["ask"][4] += 0.5
    with pytest.raises(
        ArbitrageError,
        match=r"butterfly 95-100-105: buy 1 call 95 at [\d.]+, sell 2 call 100 at "
        r"[\d.]+, buy 1 call 105 at [\d.]+ earns [\d.]+ today and cannot lose; .* "
        r"outside 1 of 9 quotes: call 100",
    ):
        check_quote_arbitrage(**quotes)


def test_clean_quotes_pass_the_check_and_have_no_trade():
    quotes = even_quotes()
    check_quote_arbitrage(**quotes)
    result = least_excess(**quotes)
    assert result.family is None
    assert result.trade().empty
    assert result.simplest_trade().empty
    assert list(result.trade().columns) == [
        "strike",
        "option_type",
        "side",
        "quantity",
        "price",
        "cash_flow",
    ]
    assert result.describe().startswith("no static arbitrage")


# Quotes, at random.


@pytest.mark.parametrize("half_spread", [0.0, 0.2])
def test_quotes_of_a_network_are_free_of_arbitrage(rng, half_spread):
    for _ in range(5):
        quotes = network_quotes(rng, half_spread=half_spread)
        result = least_excess(**quotes)
        assert result.is_arbitrage_free
        assert result.share_inside == 1.0
        assert result.total_excess == 0.0
        assert_is_price_curve(result)
        call = result.call_prices[np.searchsorted(result.strikes, quotes["strike"])]
        put = call - DISCOUNT * (FORWARD - quotes["strike"])
        price = np.where(quotes["is_call"], call, put)
        assert (price >= quotes["bid"] - 1e-8).all()
        assert (price <= quotes["ask"] + 1e-8).all()


@pytest.mark.parametrize(
    ("row", "move", "as_put", "family", "strikes"),
    [
        (4, 0.3, False, "butterfly", (95.0, 100.0, 105.0)),
        (4, 0.3, True, "butterfly", (95.0, 100.0, 105.0)),
        (0, -0.6, False, "butterfly", (80.0, 85.0, 90.0)),
        (5, 3.0, False, "call_spread", (100.0, 105.0)),
        (3, 3.0, True, "call_spread", (95.0, 100.0)),
        (2, -3.6, False, "bounds", (90.0,)),
        (6, -3.6, True, "bounds", (110.0,)),
        (4, 92.6, False, "bounds", (100.0,)),
        (4, 92.6, True, "bounds", (100.0,)),
    ],
)
def test_a_planted_violation_is_named_with_its_strikes(
    row, move, as_put, family, strikes
):
    """Moving one price by enough breaks a butterfly, then a spread, then a bound."""
    quotes = even_quotes(half_spread=1e-3)
    parity = 100.0 - quotes["strike"][row] if as_put else 0.0
    quotes["is_call"][row] = not as_put
    for side in ("bid", "ask"):
        quotes[side][row] += move - parity
    result = least_excess(**quotes)
    assert (result.family, result.family_strikes) == (family, strikes)
    for legs in (result.trade(), result.simplest_trade()):
        assert legs["cash_flow"].sum() > 0.0
        assert_cannot_lose(legs, quotes["strike"])


def test_the_trade_earns_the_total_excess_and_cannot_lose(rng):
    for _ in range(4):
        quotes = network_quotes(rng, m=40, half_spread=0.05)
        noise = rng.normal(0.0, 0.1, 40)
        quotes["bid"] = np.maximum(quotes["bid"] + noise, 0.0)
        quotes["ask"] = np.maximum(quotes["ask"] + noise, quotes["bid"])
        weights = rng.uniform(0.5, 20.0, 40)
        result = least_excess(**quotes, weights=weights)
        assert not result.is_arbitrage_free
        assert_is_price_curve(result)
        np.testing.assert_allclose(result.total_excess, weights @ result.excess)
        assert (np.abs(result.quantity) <= weights * (1.0 + 1e-12)).all()
        # As much as is allowed of every quote that the curve is outside of.
        outside = result.excess > 0.0
        np.testing.assert_allclose(np.abs(result.quantity)[outside], weights[outside])
        legs = result.trade()
        np.testing.assert_allclose(
            legs["cash_flow"].sum(), result.total_excess, rtol=1e-9
        )
        assert_cannot_lose(legs, quotes["strike"])
        legs = result.simplest_trade()
        assert legs["cash_flow"].sum() > 0.0
        assert_cannot_lose(legs, quotes["strike"])


def test_the_total_excess_is_that_of_the_programme_in_probabilities(rng):
    for _ in range(5):
        quotes = network_quotes(rng, m=15, half_spread=0.05)
        noise = rng.normal(0.0, 0.3, 15)
        quotes["bid"] = np.maximum(quotes["bid"] + noise, 0.0)
        quotes["ask"] = np.maximum(quotes["ask"] + noise, quotes["bid"])
        weights = rng.uniform(0.5, 5.0, 15)
        np.testing.assert_allclose(
            least_excess(**quotes, weights=weights).total_excess,
            dense_least_excess(quotes, weights),
            rtol=1e-5,  # the grid ends somewhere, here at ten thousand forwards
            atol=1e-5,
        )


def test_it_agrees_with_an_interior_point_solver(rng):
    m = 30
    strike = np.linspace(70.0, 140.0, m)
    price = np.asarray(random_network(rng)(strike)) / DISCOUNT
    price = np.maximum(price + rng.normal(0.0, 0.2, m), 0.0)
    result = least_excess(
        strike=strike, bid=DISCOUNT * price, ask=DISCOUNT * price, is_call=True, **TERMS
    )
    # Calls and excesses as unknowns, slopes as plain differences, all rows dense.
    x = np.append(0.0, strike)
    slope = np.diff(np.eye(m + 1), axis=0) / np.diff(x)[:, None]
    curve = np.vstack([-np.diff(slope, axis=0), -slope[:1], slope[-1:]])
    limit = np.concatenate([np.zeros(m - 1), [1.0, 0.0], np.zeros(m)])
    limit -= np.concatenate([curve[:, 0] * FORWARD, np.zeros(m)])
    eye, none = np.eye(m), np.zeros((m, m))
    rows = np.vstack(
        [
            np.hstack([curve[:, 1:], np.zeros((m + 1, m))]),
            np.hstack([-eye, none]),
            np.hstack([-eye, -eye]),
            np.hstack([eye, -eye]),
        ]
    )
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    solution = clarabel.DefaultSolver(
        csc_matrix((2 * m, 2 * m)),
        np.concatenate([np.zeros(m), np.ones(m)]),
        csc_matrix(rows),
        np.concatenate([limit, -price, price]),
        [clarabel.NonnegativeConeT(len(rows))],
        settings,
    ).solve()
    np.testing.assert_allclose(
        result.total_excess, DISCOUNT * solution.obj_val, rtol=1e-7
    )


def test_currency_order_and_duplicates_change_nothing(rng):
    quotes = network_quotes(rng, half_spread=0.05)
    quotes["bid"][7] += 1.0
    quotes["ask"][7] += 1.0
    result = least_excess(**quotes)
    order = np.append(rng.permutation(60), 3)
    for factor in (1e-4, 1.0, 1e6):
        money = {
            name: factor * quotes[name][order] for name in ("strike", "bid", "ask")
        }
        other = least_excess(
            **money,
            is_call=quotes["is_call"][order],
            forward=factor * FORWARD,
            discount_factor=DISCOUNT,
        )
        np.testing.assert_allclose(
            other.total_excess, factor * result.total_excess, rtol=1e-8
        )
        assert other.family == result.family


def test_a_missing_side_asks_for_nothing():
    quotes = even_quotes()
    quotes["bid"][4] += 0.5
    quotes["ask"][4] += 0.5
    assert not least_excess(**quotes).is_arbitrage_free
    quotes["bid"][4] = np.nan
    assert least_excess(**quotes).is_arbitrage_free
    quotes["bid"] = np.full(9, np.nan)
    assert least_excess(**quotes).is_arbitrage_free


def test_bids_alone_are_met_where_the_underlying_may_be_negative():
    """Nothing is above them: with no price at a strike of zero, there is no bound."""
    quotes = even_quotes()
    quotes["ask"] = np.full(9, np.nan)
    quotes["bid"][4] += 200.0
    assert not least_excess(**quotes).is_arbitrage_free
    result = least_excess(**quotes, signed=True)
    assert result.is_arbitrage_free
    assert (result.price >= quotes["bid"]).all()
    assert (np.diff(result.call_prices, 2) >= -1e-9).all()


def test_weights_decide_which_quotes_are_left():
    price = np.array([20.9, 12.1, 8.0, 3.6])
    result = least_excess(
        strike=[80.0, 90.0, 100.0, 110.0],
        bid=price,
        ask=price,
        is_call=True,
        weights=[1.0, 1.0, 10.0, 1.0],
        **UNIT_TERMS,
    )
    assert result.excess[2] == 0.0
    np.testing.assert_allclose(result.excess.sum(), 0.3)


def test_every_quote_of_the_spx_in_2019_is_attainable():
    chain = spx(2019)
    quotes = [prepare_quotes(one) for one in chain]
    assert len(quotes) == 39
    for one in quotes:
        result = least_excess(
            strike=one.strike,
            bid=one.bid,
            ask=one.ask,
            is_call=one.is_call,
            forward=one.forward,
            discount_factor=one.discount_factor,
        )
        assert result.share_inside == 1.0
        assert_is_price_curve(result)
    # A curve through their mids is another matter.
    at_mids = [
        least_excess(
            strike=one.strike,
            bid=one.mid,
            ask=one.mid,
            is_call=one.is_call,
            forward=one.forward,
            discount_factor=one.discount_factor,
        )
        for one in quotes[:5]
    ]
    for result in at_mids:
        assert not result.is_arbitrage_free
        assert_cannot_lose(result.trade(), result.strike)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"bid": [2.0, 5.0]}, QuoteError, r"bid above ask in 1 of 2 .* 110 \(5 / 3\)"),
        ({"strike": [0.0, 110.0]}, QuoteError, "strike not positive in 1 of 2"),
        ({"strike": [np.nan, 110.0]}, QuoteError, "strike not positive"),
        ({"bid": [-1.0, 1.0]}, QuoteError, "negative or infinite quote in 1 of 2"),
        ({"ask": [6.0, np.inf]}, QuoteError, "negative or infinite quote"),
        ({"bid": [np.nan] * 2, "ask": [np.nan] * 2}, QuoteError, "neither .* 2 of 2"),
        ({"bid": [1.0]}, ValueError, r"shapes differ: strike \(2,\), bid \(1,\)"),
        ({"strike": []}, ValueError, "strikes have shape"),
        ({"forward": -1.0}, ValueError, "forward must be positive"),
        ({"discount_factor": np.nan}, ValueError, "discount_factor must be positive"),
    ],
)
@pytest.mark.parametrize(
    "function", [least_excess, check_quote_arbitrage, bound_violations]
)
def test_bad_input_is_named(function, change, error, message):
    quotes = {
        "strike": [100.0, 110.0],
        "bid": [5.0, 2.0],
        "ask": [6.0, 3.0],
        "is_call": True,
        **TERMS,
    }
    with pytest.raises(error, match=message):
        function(**(quotes | change))


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, np.nan]])
def test_bad_weights_are_named(weights):
    with pytest.raises(ValueError, match="weights are 2 positive numbers"):
        least_excess(
            strike=[100.0, 110.0],
            bid=1.0,
            ask=2.0,
            is_call=True,
            weights=weights,
            **TERMS,
        )


def test_bound_violations_are_labelled():
    table = bound_violations(
        strike=[90.0, 100.0, 110.0, 110.0],
        bid=[9.0, 98.0, 0.0, 108.0],
        ask=[9.5, 99.0, 0.1, 109.0],
        is_call=[True, True, True, False],
        labels=["deep", "dear", "fair", "put"],
        forward=100.0,
        discount_factor=0.97,
    )
    assert table.index.tolist() == ["deep", "dear", "put"]
    assert table["bound"].tolist() == ["below_intrinsic", "above_bound", "above_bound"]
    np.testing.assert_allclose(table["bound_price"], [9.7, 97.0, 106.7])
    np.testing.assert_allclose(table["size"], [0.2, 1.0, 1.3])


def test_bound_violations_are_none_for_quotes_of_a_network(rng):
    assert bound_violations(**network_quotes(rng)).empty


# Curves.


@pytest.mark.parametrize("kernel", ["black", "bachelier"])
def test_certified_networks_have_no_violations_on_a_fine_grid(rng, kernel):
    strikes = FORWARD * np.exp(np.linspace(-4.0, 4.0, 1000))
    if kernel == "bachelier":
        strikes = np.linspace(-5.0, 5.0, 1000) * FORWARD
    for _ in range(4):
        network = random_network(rng, kernel)
        assert certify_network(network, **TERMS)
        table = static_arbitrage_violations(network, **TERMS, strikes=strikes)
        assert table.empty


def test_a_certificate_prints_its_numbers(rng):
    certificate = certify_network(random_network(rng), **TERMS)
    assert certificate.holds
    assert bool(certificate) is True
    assert str(certificate).startswith("free of butterfly and call-spread arbitrage")
    assert "40 output weights >= 0" in repr(certificate)
    assert certificate.to_frame()["holds"].all()


def test_errors_of_mass_and_forward_are_exact():
    """One tenth three times over is not three tenths, and its error is known."""
    weights = np.array([0.1, 0.2, 0.7])
    network = PriceNetwork(
        jnp.array([50.0, 100.0, 110.0]), jnp.array(weights), jnp.zeros(3)
    )
    certificate = certify_network(network, forward=102.0, discount_factor=1.0)
    mass = sum(Fraction(weight) for weight in weights.tolist())
    mean = sum(
        Fraction(weight) * kink
        for weight, kink in zip(weights.tolist(), (50, 100, 110), strict=True)
    )
    assert certificate.mass_error == float(mass - 1)
    assert certificate.forward_error == float(mean / 102 - 1)
    assert certificate.mass_error != 0.0


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (lambda n: replace(n, weights=n.weights.at[3].set(-1e-300)), "smallest_weight"),
        (lambda n: replace(n, weights=n.weights.at[3].add(1e-12)), "mass_error"),
        (
            lambda n: replace(n, weights=n.weights.at[3].add(-n.weights[3])),
            "mass_error",
        ),
        (lambda n: replace(n, kinks=n.kinks * (1.0 + 1e-12)), "forward_error"),
        (lambda n: replace(n, kinks=n.kinks.at[0].set(-1.0)), "smallest_kink"),
        (
            lambda n: replace(n, bandwidths=n.bandwidths.at[5].set(-1e-9)),
            "smallest_bandwidth",
        ),
        (lambda n: replace(n, weights=n.weights.at[3].set(jnp.nan)), "smallest_weight"),
        (lambda n: replace(n, kinks=n.kinks.at[3].set(jnp.inf)), "forward_error"),
    ],
)
def test_changed_networks_are_rejected(rng, change, fact):
    network = random_network(rng)
    certificate = certify_network(change(network), **TERMS)
    assert not certificate.holds
    assert not certificate
    assert certificate.to_frame()["holds"].to_dict()[fact] is False
    assert str(certificate).startswith("not free of static arbitrage")
    assert fact in str(certificate)


def test_the_certificate_allows_a_few_roundings_only(rng):
    network = random_network(rng)
    off = network * (1.0 + 2.0 * IDENTITY_ROUNDING)
    assert certify_network(network, **TERMS)
    assert not certify_network(off, **TERMS)


def test_a_negative_kink_is_allowed_where_the_underlying_may_be_negative():
    network = PriceNetwork(
        jnp.array([-10.0, 30.0]), jnp.array([0.5, 0.5]), jnp.ones(2), "bachelier"
    )
    assert certify_network(network, forward=10.0, discount_factor=1.0)


def test_a_network_without_kinks_is_an_error():
    none = jnp.zeros(0)
    with pytest.raises(ValueError, match="without kinks"):
        certify_network(PriceNetwork(none, none, none), **TERMS)


@pytest.mark.parametrize(
    ("move", "family", "strikes", "size"),
    [
        (0.3, "butterfly", (95.0, 100.0, 105.0), 0.3 - 25.0 / 120.0),
        (-8.0, "bounds", (100.0,), 0.5),
        (92.6, "bounds", (100.0,), 0.1),
        (3.0, "call_spread", (95.0, 100.0), 10.5 - 1225.0 / 120.0),
        (3.0, "call_spread", (100.0, 105.0), 10.5 - 625.0 / 120.0 - 5.0),
    ],
)
def test_violations_of_a_curve_are_found_with_their_size(move, family, strikes, size):
    quotes = even_quotes()
    price = 0.5 * (quotes["bid"] + quotes["ask"])
    curve = {"strikes": quotes["strike"], **UNIT_TERMS}
    assert static_arbitrage_violations(price, **curve).empty
    price[4] += move
    table = static_arbitrage_violations(price, **curve)
    assert (np.diff(table["size"]) <= 0.0).all()
    row = table[(table["family"] == family) & (table["strikes"] == strikes)]
    np.testing.assert_allclose(row["size"], [size], rtol=1e-9)


def test_a_curve_that_has_no_price_somewhere_is_an_error():
    def price(strike):
        return np.where(strike < 105.0, 10.0, np.nan)

    with pytest.raises(ValueError, match=r"not finite at 1 of 3 strikes: 110"):
        static_arbitrage_violations(price, **TERMS, strikes=[90.0, 100.0, 110.0])
    with pytest.raises(ValueError, match="strikes repeat: 90"):
        static_arbitrage_violations(price, **TERMS, strikes=[90.0, 100.0, 90.0])
    with pytest.raises(ValueError, match="have one shape"):
        static_arbitrage_violations([1.0], **TERMS, strikes=[90.0, 100.0])

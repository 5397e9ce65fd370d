"""Arbitrage in the quotes of several expiries: programmes, trades, repairs."""

import re
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from real_quotes import spx
from scipy.optimize import linprog
from scipy.sparse import csc_matrix

import relu_options as ro
from benchmarks.peers.convex import clarabel
from relu_options.arbitrage import (
    chain_excess_in_half_spreads,
    cover_chain,
    forward_range,
    half_spreads,
    imply_forward,
    least_chain_excess,
    least_excess,
)
from relu_options.arbitrage.check import QuoteCheck, check_quotes, repair_quotes
from relu_options.errors import QuoteError
from relu_options.market_data import prepare_quotes
from relu_options.simulation import bundled_chain

UNIT_TERMS = {"is_call": True, "forward": 100.0, "discount_factor": 1.0}


def lognormal_chain(rng, *, expiries=4, strikes=12, half_spread=0.1, noise=0.0):
    """Calls and puts of a lognormal underlying, strikes and forwards all different."""
    chain = []
    for time in np.cumsum(rng.uniform(0.1, 0.4, expiries)):
        forward = 100.0 * np.exp(rng.uniform(0.0, 0.05) * time)
        discount = float(np.exp(-0.04 * time))
        strike = forward * np.exp(0.25 * np.sqrt(time) * rng.uniform(-2, 2, strikes))
        is_call = rng.random(strikes) < 0.5
        price = np.asarray(
            ro.black_scholes.price(
                forward=forward,
                strike=strike,
                time_to_expiry=time,
                volatility=0.25,
                discount_factor=discount,
                is_call=is_call,
            )
        )
        price = np.maximum(price + noise * rng.normal(size=strikes), 0.0)
        width = half_spread * rng.uniform(0.2, 1.0, strikes)
        chain.append(
            {
                "strike": strike,
                "bid": np.maximum(price - width, 0.0),
                "ask": price + width,
                "is_call": is_call,
                "forward": float(forward),
                "discount_factor": discount,
            }
        )
    return chain


def chain_table(chain, years=(0.1, 0.2, 0.3, 0.4, 0.5)) -> pd.DataFrame:
    """The same as a table."""
    parts = [
        pd.DataFrame(
            {
                "time_to_expiry": time,
                "strike": one["strike"],
                "option_type": np.where(one["is_call"], "call", "put"),
                "bid": one["bid"],
                "ask": one["ask"],
                "forward": one["forward"],
                "discount_factor": one["discount_factor"],
            }
        )
        for time, one in zip(years, chain, strict=False)
    ]
    return pd.concat(parts, ignore_index=True)


def stale_chain() -> pd.DataFrame:
    """The bundled chain, its fourth expiry priced at a volatility of long ago: 8 %."""
    chain = bundled_chain()
    table = chain.to_frame()
    stale = prepare_quotes(list(chain)[3])
    rows = table["expiry"] == stale.expiry
    price = np.asarray(
        ro.black_scholes.price(
            forward=stale.forward,
            strike=table.loc[rows, "strike"].to_numpy(),
            time_to_expiry=stale.time_to_expiry,
            volatility=0.08,
            discount_factor=stale.discount_factor,
            is_call=(table.loc[rows, "option_type"] == "call").to_numpy(),
        )
    )
    table.loc[rows, "bid"] = np.maximum(price - 0.2, 0.0)
    table.loc[rows, "ask"] = price + 0.2
    return table


def excess_in_masses(chain, weights=None, calendar=True) -> float:
    """The least excess by an interior-point solver, in masses on all strikes at once.

    Masses of each expiry sit at zero, at the strikes of all expiries, and far away;
    convex order is asked for at each of them.
    """
    moneyness = [one["strike"] / one["forward"] for one in chain]
    spots = np.unique(np.concatenate([[0.0, 1.0, 1e4], *moneyness]))
    count, n = len(chain), len(spots)
    sizes = [len(one["strike"]) for one in chain]
    total = count * n + sum(sizes)
    calls = np.maximum(spots[None, :] - spots[:, None], 0.0)
    equal, equal_to, below, limits = [], [], [], []
    cost = np.zeros(total)
    place = count * n
    for i, one in enumerate(chain):
        own = slice(i * n, (i + 1) * n)
        for row in (np.ones(n), spots):
            equal.append(np.zeros(total))
            equal[-1][own] = row
            equal_to.append(1.0)
        notional = one["forward"] * one["discount_factor"]
        sign = np.where(one["is_call"], 1.0, -1.0)
        payoff = np.maximum(sign[:, None] * (spots - moneyness[i][:, None]), 0.0)
        for j in range(sizes[i]):
            for side, quoted in ((-1.0, one["bid"][j]), (1.0, one["ask"][j])):
                below.append(np.zeros(total))
                below[-1][own] = side * notional * payoff[j]
                below[-1][place] = -1.0
                limits.append(side * quoted)
            cost[place] = 1.0 if weights is None else weights[i][j]
            place += 1
        if i and calendar:
            for row in calls:
                below.append(np.zeros(total))
                below[-1][own] = -row
                below[-1][(i - 1) * n : i * n] = row
                limits.append(0.0)
    rows = np.vstack([equal, below, -np.eye(total)])
    limits = np.concatenate([equal_to, limits, np.zeros(total)])
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-10
    solution = clarabel.DefaultSolver(
        csc_matrix((total, total)),
        cost,
        csc_matrix(rows),
        limits,
        [
            clarabel.ZeroConeT(len(equal)),
            clarabel.NonnegativeConeT(len(rows) - len(equal)),
        ],
        settings,
    ).solve()
    return float(solution.obj_val)


def assert_is_surface(chain, result):
    """Assert that the prices admit no arbitrage by any three, in any expiries.

    A call is not worth more than the straight line between a call struck lower and one
    struck higher, of its own or any later expiry; zero, where it is the forward, and
    far away, where it is nothing less than level, count as strikes.
    """
    moneyness = np.concatenate([one["strike"] / one["forward"] for one in chain])
    notional = (result.forwards * result.discount_factors)[result.expiry]
    sign = np.where(result.is_call, 0.0, 1.0)
    call = result.price / notional + sign * (1.0 - moneyness)
    assert (call >= np.maximum(1.0 - moneyness, 0.0) - 1e-12).all()
    for k, c, expiry in zip(moneyness, call, result.expiry, strict=True):
        later = result.expiry >= expiry
        left = later & (moneyness <= k)
        right = later & (moneyness > k)
        x0, y0 = np.append(moneyness[left], 0.0), np.append(call[left], 1.0)
        assert c <= y0.min() + 1e-12  # against the level line
        x1, y1 = moneyness[right], call[right]
        share = (k - x0[:, None]) / (x1 - x0[:, None])
        line = (1.0 - share) * y0[:, None] + share * y1
        assert (c <= line + 1e-12).all()


def assert_cannot_lose(rng, chain, result, paths=300):
    """Assert that trades, hedged as told, lose on no path; corners included."""
    forwards, discounts = result.forwards, result.discount_factors
    for trade in result.trades:
        strikes = result.strike[trade.quotes] / forwards[result.expiry[trade.quotes]]
        spots = np.concatenate([[0.0, 1.0, 50.0], strikes, rng.uniform(0.3, 2.0, 20)])
        notional = np.abs(trade.quantity).sum() * forwards.max()
        for _ in range(paths):
            total = discounts[trade.expiries[0]] * trade.cash_quantity
            held, before = trade.forward_quantity, 1.0
            for expiry in trade.expiries:
                unit = forwards[expiry] * discounts[expiry]
                x = 0.0 if before == 0.0 else rng.choice(spots)
                total += held * unit * (x - before)
                own = result.expiry[trade.quotes] == expiry
                sign = np.where(result.is_call[trade.quotes], 1.0, -1.0)[own]
                payoff = np.maximum(sign * (x - strikes[own]), 0.0)
                total += unit * trade.quantity[own] @ payoff
                if expiry != trade.expiries[-1]:
                    spot = float(x * forwards[expiry])
                    held = trade.forwards_to_hold(expiry, spot)
                before = x
            assert total >= -1e-11 * notional


def hull_by_pairs(points, tail, x):
    """The lower hull of points, and a ray of slope `tail`, at `x`: the least chord."""
    best = min(y + tail * (x - a) for a, y in points if a <= x)
    for a, y in points:
        for b, z in points:
            if a <= x < b:
                best = min(best, y + (z - y) * (x - a) / (b - a))
    return best


def worst_in_fractions(trade, result):
    """The worst payoff of a trade over two expiries, in rational arithmetic."""
    first, second = trade.expiries
    terms = [
        (Fraction(float(f)), Fraction(float(d)))
        for f, d in zip(result.forwards, result.discount_factors, strict=True)
    ]
    legs = [
        (
            int(result.expiry[quote]),
            Fraction(float(result.strike[quote])) / terms[result.expiry[quote]][0],
            bool(result.is_call[quote]),
            Fraction(float(quantity)),
        )
        for quote, quantity in zip(trade.quotes, trade.quantity, strict=True)
    ]

    def payoff(expiry, x):
        forward, discount = terms[expiry]
        return (
            forward
            * discount
            * sum(
                q * max(x - k if call else k - x, Fraction(0))
                for e, k, call, q in legs
                if e == expiry
            )
        )

    kinks = {
        e: {Fraction(0)} | {k for i, k, *_ in legs if i == e} for e in terms_of(legs)
    }
    last = [(x, payoff(second, x)) for x in sorted(kinks[second])]
    far = max(*kinks[first], *kinks[second]) + 1
    tail = payoff(second, far + 1) - payoff(second, far)
    forward, discount = terms[first]
    worst = []
    for x in sorted(kinks[first] | kinks[second] | {far, far + 1}):
        value = payoff(first, x) + hull_by_pairs(last, tail, x)
        value += Fraction(trade.forward_quantity) * forward * discount * (x - 1)
        worst.append(value + Fraction(trade.cash_quantity) * discount)
    assert worst[-1] >= worst[-2]  # and so beyond
    return min(worst)


def terms_of(legs):
    return {expiry for expiry, *_ in legs}


# Chains by hand.


def test_a_dearer_first_expiry_is_sold_against_the_second():
    result = least_chain_excess(
        [
            {"strike": [100.0], "bid": [5.0], "ask": [5.2], **UNIT_TERMS},
            {"strike": [100.0], "bid": [4.5], "ask": [4.7], **UNIT_TERMS},
        ]
    )
    assert not result.is_arbitrage_free
    assert result.family == "calendar_spread"
    np.testing.assert_allclose(result.total_excess, 0.3)
    np.testing.assert_allclose(result.quantity, [-1.0, 1.0])
    (trade,) = result.trades
    assert trade.expiries == (0, 1)
    assert (trade.forward_quantity, trade.cash_quantity) == (0.0, 0.0)
    assert trade.worst_payoff == 0.0
    # After an exercise of the first call the second is covered by a forward sold.
    assert trade.forwards_to_hold(0, 80.0) == 0.0
    assert trade.forwards_to_hold(0, 130.0) == -1.0
    np.testing.assert_allclose(result.calendar["quantity"], [1.0])
    np.testing.assert_allclose(result.calendar["strike"], [100.0])


def test_strikes_are_compared_over_forwards():
    """A later call at a strike raised with the forward must cost as much as it does."""
    first = {"strike": [100.0], "bid": [5.0], "ask": [5.0], **UNIT_TERMS}
    later = {"is_call": True, "forward": 110.0, "discount_factor": 0.9}
    least = 5.0 * 110.0 * 0.9 / 100.0
    for price, excess in ((least, 0.0), (least - 0.1, 0.1)):
        result = least_chain_excess(
            [first, {"strike": [110.0], "bid": [price], "ask": [price], **later}]
        )
        np.testing.assert_allclose(result.total_excess, excess, atol=1e-12)
    # At the same strike in currency it is another option, and may be dearer.
    dear = least_chain_excess(
        [first, {"strike": [100.0], "bid": [13.0], "ask": [13.5], **later}]
    )
    assert dear.is_arbitrage_free


def test_a_butterfly_whose_wings_expire_later():
    result = least_chain_excess(
        [
            {"strike": [100.0], "bid": [4.0], "ask": [4.1], **UNIT_TERMS},
            {
                "strike": [95.0, 105.0],
                "bid": [5.0, 2.2],
                "ask": [5.2, 2.4],
                **UNIT_TERMS,
            },
        ]
    )
    assert result.family == "calendar_butterfly"
    np.testing.assert_allclose(result.total_excess, 4.0 - 3.8)
    assert result.simplest is not None
    legs = result.legs(result.simplest)
    assert legs["quantity"].tolist() == [-2.0, 1.0, 1.0]
    assert legs["expiry"].tolist() == [0, 1, 1]
    np.testing.assert_allclose(legs["cash_flow"].sum(), 0.4)


def test_curves_may_bend_where_only_a_later_expiry_is_quoted():
    """Between its two strikes the early curve passes below its chord, as it must.

    Another quote is wrong, so that the programme is needed. It alone is left.
    """
    early = {
        "strike": [70.0, 130.0],
        "bid": [30.1, 0.1],
        "ask": [30.3, 0.3],
        **UNIT_TERMS,
    }
    late = {
        "strike": [95.0, 100.0, 105.0],
        "bid": [7.0, 4.0, 2.0],
        "ask": [7.1, 4.1, 2.1],
        **UNIT_TERMS,
    }
    assert least_chain_excess([early, late]).is_arbitrage_free
    late["strike"] = [*late["strike"], 160.0]
    late["bid"], late["ask"] = [*late["bid"], 2.5], [*late["ask"], 2.6]
    result = least_chain_excess([early, late])
    np.testing.assert_allclose(result.excess, [0.0] * 5 + [0.4], atol=1e-9)
    np.testing.assert_allclose(result.earned, 0.4)


def test_a_violation_within_one_expiry_is_named_first():
    price = np.array([20.9, 12.1, 8.0, 3.6])
    late = np.array([21.5, 14.0, 9.0, 5.0])
    strike = np.array([80.0, 90.0, 100.0, 110.0])
    result = least_chain_excess(
        [
            {"strike": strike, "bid": price, "ask": price, **UNIT_TERMS},
            {"strike": strike, "bid": late, "ask": late, **UNIT_TERMS},
        ]
    )
    assert result.family == "butterfly"
    assert result.simplest is not None
    assert result.legs(result.simplest)["quantity"].tolist() == [1.0, -2.0, 1.0]
    np.testing.assert_allclose(result.total_excess, 0.15)


# Chains at random.


def test_a_lognormal_chain_is_free_whatever_its_strikes(rng):
    for half_spread in (0.0, 0.1):
        chain = lognormal_chain(rng, expiries=5, strikes=30, half_spread=half_spread)
        result = least_chain_excess(chain)
        assert result.is_arbitrage_free
        assert result.share_inside == 1.0
        assert result.trades == ()
        assert result.simplest is None
        assert result.calendar.empty
        assert_is_surface(chain, result)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_trades_earn_the_least_excess_and_cannot_lose(rng, weighted):
    for _ in range(3):
        chain = lognormal_chain(rng, expiries=4, strikes=15, noise=0.4)
        weights = [
            rng.uniform(0.5, 20.0, 15) if weighted else np.ones(15) for _ in chain
        ]
        result = least_chain_excess(chain, weights=weights)
        assert not result.is_arbitrage_free
        flat = np.concatenate(weights)
        np.testing.assert_allclose(result.total_excess, flat @ result.excess)
        np.testing.assert_allclose(result.earned, result.total_excess, rtol=1e-8)
        legs = result.legs(*result.trades)
        np.testing.assert_allclose(legs["cash_flow"].sum(), result.earned)
        assert (np.abs(result.quantity) <= flat * (1.0 + 1e-9)).all()
        outside = result.excess > 0.0
        np.testing.assert_allclose(np.abs(result.quantity)[outside], flat[outside])
        assert all(trade.worst_payoff >= 0.0 for trade in result.trades)
        assert_is_surface(chain, result)
        assert_cannot_lose(rng, chain, result)


def test_the_worst_payoff_is_that_of_rational_arithmetic(rng):
    found = 0
    for _ in range(12):
        chain = lognormal_chain(rng, expiries=2, strikes=6, noise=1.0)
        result = least_chain_excess(chain)
        for trade in (*result.trades, result.simplest):
            if trade is not None and len(trade.expiries) == 2:
                worst = worst_in_fractions(trade, result)
                assert worst >= 0
                assert 0.0 <= float(worst) - trade.worst_payoff <= 1e-9
                found += 1
    assert found >= 4


def test_the_least_excess_is_that_of_the_programme_in_masses(rng):
    for trial in range(4):
        chain = lognormal_chain(rng, expiries=3, strikes=7, noise=0.8)
        weights = [rng.uniform(0.5, 5.0, 7) for _ in chain] if trial % 2 else None
        for calendar in (True, False):
            result = least_chain_excess(chain, weights=weights, calendar=calendar)
            np.testing.assert_allclose(
                result.total_excess,
                excess_in_masses(chain, weights, calendar),
                rtol=1e-5,  # masses end somewhere, here at ten thousand forwards
                atol=1e-5,
            )


def test_without_calendar_it_is_the_sum_over_the_expiries(rng):
    chain = lognormal_chain(rng, expiries=4, strikes=20, noise=0.5)
    result = least_chain_excess(chain, calendar=False)
    alone = [least_excess(**one) for one in chain]
    np.testing.assert_allclose(
        result.total_excess, sum(one.total_excess for one in alone), rtol=1e-8
    )
    assert all(len(trade.expiries) == 1 for trade in result.trades)
    assert result.calendar.empty
    together = least_chain_excess(chain)
    assert together.total_excess > result.total_excess + 0.01
    one = least_chain_excess(chain[:1])
    np.testing.assert_allclose(one.total_excess, alone[0].total_excess, rtol=1e-8)


def test_currency_and_order_of_quotes_change_nothing(rng):
    chain = lognormal_chain(rng, noise=0.5)
    result = least_chain_excess(chain)
    for factor in (1e-4, 1e6):
        other = []
        for one in chain:
            order = rng.permutation(len(one["strike"]))
            money = {
                name: factor * one[name][order] for name in ("strike", "bid", "ask")
            }
            other.append(
                one
                | money
                | {"is_call": one["is_call"][order], "forward": factor * one["forward"]}
            )
        np.testing.assert_allclose(
            least_chain_excess(other).total_excess,
            factor * result.total_excess,
            rtol=1e-7,
        )


def test_a_missing_side_asks_for_nothing():
    early = {"strike": [100.0], "bid": [5.0], "ask": [5.2], **UNIT_TERMS}
    late = {"strike": [100.0], "bid": [4.5], "ask": [4.7], **UNIT_TERMS}
    assert not least_chain_excess([early, late]).is_arbitrage_free
    for one, side in ((early, "bid"), (late, "ask")):
        kept = one[side]
        one[side] = [np.nan]
        assert least_chain_excess([early, late]).is_arbitrage_free
        one[side] = kept


def test_the_nearest_prices_are_those_of_a_dense_programme():
    """Least distance from mids in half-spreads, inside all quotes, one expiry."""
    strike = np.array([80.0, 90.0, 100.0, 110.0, 120.0])
    mid = np.array([21.0, 12.4, 7.9, 2.2, 1.3])
    half = np.array([0.5, 0.4, 0.8, 0.6, 0.4])
    result = least_chain_excess(
        [{"strike": strike, "bid": mid - half, "ask": mid + half, **UNIT_TERMS}],
        weights=[1.0 / half],
        nearest_to_mids=True,
    )
    assert result.is_arbitrage_free
    x = np.append(0.0, strike)
    slopes = np.diff(np.eye(6), axis=0) / np.diff(x)[:, None]
    rows = np.vstack([-np.diff(slopes, axis=0), -slopes[:1], slopes[-1:]])
    limits = np.append(np.zeros(4), [1.0, 0.0]) - 100.0 * rows[:, 0]
    eye, none = np.eye(5), np.zeros((6, 5))
    solution = linprog(
        np.concatenate([np.zeros(5), 1.0 / half]),
        A_ub=np.block([[rows[:, 1:], none], [eye, -eye], [-eye, -eye]]),
        b_ub=np.concatenate([limits, mid, -mid]),
        bounds=[*zip(mid - half, mid + half, strict=True), *[(0.0, None)] * 5],
    )
    assert solution.status == 0
    assert solution.fun > 0.1
    np.testing.assert_allclose(
        np.sum(np.abs(result.price - mid) / half), solution.fun, rtol=1e-8
    )


# Unknown forwards.


def test_free_forwards_do_no_worse_than_any_given(rng):
    for noise in (0.0, 0.3):
        (one,) = lognormal_chain(rng, expiries=1, strikes=20, noise=noise)
        forward, discount = one["forward"], one["discount_factor"]
        guess = one | {"forward": 1.02 * forward, "discount_factor": 0.99 * discount}
        found = imply_forward(**guess)
        terms = {"forward": found.forward, "discount_factor": found.discount_factor}
        np.testing.assert_allclose(
            least_excess(**(one | terms)).total_excess, found.total_excess, atol=1e-7
        )
        assert found.is_arbitrage_free == (noise == 0.0)
        for _ in range(10):
            other = {
                "forward": forward * rng.uniform(0.98, 1.02),
                "discount_factor": discount * rng.uniform(0.98, 1.02),
            }
            least = least_excess(**(one | other)).total_excess
            assert least >= found.total_excess - 1e-7


def test_a_guess_that_serves_is_kept(rng):
    (one,) = lognormal_chain(rng, expiries=1, strikes=20)
    found = imply_forward(**one)
    assert found.forward == one["forward"]
    assert found.discount_factor == one["discount_factor"]
    assert found.total_excess == 0.0


def test_the_range_of_the_forward_is_that_of_a_dense_programme(rng):
    """Calls, forward and one over the discount factor as unknowns, slopes as rows."""
    (one,) = lognormal_chain(rng, expiries=1, strikes=6)
    forward, discount = one["forward"], one["discount_factor"]
    strike = np.sort(one["strike"])
    call = np.asarray(
        ro.black_scholes.price(
            forward=forward,
            strike=strike,
            time_to_expiry=0.3,
            volatility=0.25,
            discount_factor=discount,
            is_call=True,
        )
    )
    put = call - discount * (forward - strike)
    bid, ask = (np.concatenate([call, put]) + half for half in (-0.2, 0.2))
    bid = np.maximum(bid, 0.0)
    ranges = forward_range(
        strike=np.tile(strike, 2),
        bid=bid,
        ask=ask,
        is_call=np.repeat([True, False], 6),
        forward=forward,
        discount_factor=discount,
    )
    prices = np.zeros((12, 8))
    prices[:6, :6] = prices[6:, :6] = np.eye(6)
    prices[6:, 6] = -1.0
    fixed = np.append(np.zeros(6), strike)
    values = np.vstack([np.eye(8)[6], np.eye(8)[:6]])  # the call struck at zero is F
    slopes = np.diff(values, axis=0) / np.diff(np.append(0.0, strike))[:, None]
    rows = np.vstack(
        [
            -np.diff(slopes, axis=0),
            -slopes[:1],
            slopes[-1:],
            bid[:, None] * np.eye(8)[7] - prices,
            prices - ask[:, None] * np.eye(8)[7],
        ]
    )
    limits = np.concatenate([np.zeros(5), [1.0, 0.0], fixed, -fixed])
    ends = []
    for column in (6, 7):
        for sign in (1.0, -1.0):
            solution = linprog(
                sign * np.eye(8)[column], A_ub=rows, b_ub=limits, bounds=(0.0, None)
            )
            assert solution.status == 0
            ends.append(sign * solution.fun)
    assert ends[0] < forward < ends[1]
    np.testing.assert_allclose(ranges.forward, ends[:2], rtol=1e-7)
    np.testing.assert_allclose(
        ranges.discount_factor, [1.0 / ends[3], 1.0 / ends[2]], rtol=1e-6
    )


# Chains as tables.


@pytest.mark.parametrize("forwards", ["given", "free"])
def test_the_bundled_chain_is_free(forwards):
    check = check_quotes(bundled_chain(), forwards=forwards)
    assert check.is_arbitrage_free
    assert check.share_inside == 1.0
    assert (check.total_excess, check.cost, check.worst_payoff) == (0.0, 0.0, 0.0)
    assert len(check.slices) == 8
    assert len(check.to_frame()) == (619 if forwards == "given" else 1238)
    assert check.outside.empty
    assert check.calendar.empty
    assert check.trade().empty
    assert check.simplest_trade().empty
    assert "619 of 619" in repr(check) or "1,238 of 1,238" in repr(check)
    assert check.describe().startswith("no static arbitrage")


def test_a_stale_expiry_is_traded_against_those_before(rng):
    table = stale_chain()
    check = check_quotes(table)
    stale = np.sort(table["expiry"].unique())[3]
    assert check_quotes(table, calendar=False).is_arbitrage_free
    assert not check.is_arbitrage_free
    assert str(check.arbitrage.family).startswith("calendar")
    assert check.cost < 0.0
    assert check.worst_payoff >= 0.0
    np.testing.assert_allclose(-check.cost, check.total_excess, rtol=1e-8)
    legs = check.trade()
    np.testing.assert_allclose(legs["cash_flow"].sum(), check.total_excess, rtol=1e-8)
    options = legs[legs["option_type"].isin(["call", "put"])]
    assert (options.loc[options["expiry"] == stale, "side"] == "buy").mean() > 0.5
    assert (options["expiry"] < stale).any()
    assert_cannot_lose(rng, None, check.arbitrage, paths=100)
    outside = check.outside
    assert outside["excess"].is_monotonic_decreasing
    below = np.maximum(outside["bid"] - outside["nearest_price"], 0.0)
    above = np.maximum(outside["nearest_price"] - outside["ask"], 0.0)
    np.testing.assert_allclose(outside["excess"], np.maximum(below, above), atol=1e-9)
    row = table.loc[outside["label"].iloc[0]]
    assert row["strike"] == outside["strike"].iloc[0]
    assert (check.calendar["quantity"] > 0.0).all()
    assert (check.calendar["later_expiry"] == stale).any()
    assert (check.calendar["money"] > 0.0).all()
    words = repr(check)
    assert "calendar" in words
    assert re.search(r"sell [\d.]+ (call|put) \d+ 2025-\d\d-\d\d", check.describe())


def test_prepared_quotes_and_their_order_do_not_matter(rng):
    table = stale_chain()
    check = check_quotes(table)
    prepared = [prepare_quotes(one) for one in ro.read_chain(table)]
    shuffled = [prepared[i] for i in rng.permutation(len(prepared))]
    other = check_quotes(iter(shuffled))
    np.testing.assert_allclose(other.total_excess, check.total_excess, rtol=1e-9)
    pd.testing.assert_index_equal(other.slices.index, check.slices.index)
    alone = check_quotes(prepared[0])
    assert len(alone.slices) == 1
    assert alone.is_arbitrage_free


def test_half_spreads_are_the_unit_asked_for():
    table = stale_chain()
    check = check_quotes(table, unit="half_spread")
    found = check.arbitrage
    np.testing.assert_allclose(
        check.total_excess, np.sum(found.excess / (0.5 * (found.ask - found.bid)))
    )
    prepared = [prepare_quotes(one) for one in ro.read_chain(table)]
    result = chain_excess_in_half_spreads(prepared)
    np.testing.assert_allclose(result.total_excess, check.total_excess, rtol=1e-7)
    unrelated = chain_excess_in_half_spreads(prepared, calendar=False)
    assert unrelated.total_excess < result.total_excess
    with pytest.raises(ValueError, match="must be in order of time"):
        chain_excess_in_half_spreads(prepared[::-1])


def test_quotes_without_a_width_count_as_the_median():
    bid = np.array([1.0, 2.0, 3.0, np.nan])
    ask = np.array([1.2, 2.0, 3.6, 4.0])
    np.testing.assert_allclose(half_spreads(bid, ask), [0.1, 0.2, 0.3, 0.2])
    with pytest.raises(QuoteError, match="none of 4 quotes has a spread"):
        half_spreads(bid, bid)


def test_slices_that_cannot_be_used_are_named():
    table = bundled_chain().to_frame()
    expiries = np.sort(table["expiry"].unique())
    table = table[(table["expiry"] != expiries[1]) | (table["option_type"] == "call")]
    table.loc[table.index[:2], "bid"] = 1e4
    check = check_quotes(table)
    name = f"{pd.Timestamp(expiries[1]):%Y-%m-%d} PM"
    assert list(check.skipped) == [name]
    assert "too few strikes have both a call and a put" in check.skipped[name]
    assert f"skipped {name}: too few" in repr(check)
    assert len(check.slices) == 7
    assert "2 rows were dropped before: 2 bid above ask" in check.notes
    with pytest.raises(QuoteError, match="none of 8 slices can be prepared"):
        check_quotes(bundled_chain().to_frame().query("option_type == 'call'"))


def test_american_options_are_noted():
    table = bundled_chain().to_frame()
    table["exercise_style"] = "american"
    assert any("exercised early" in note for note in check_quotes(table).notes)


def test_mids_alone_are_prices_to_be_met(rng):
    chain = lognormal_chain(rng, half_spread=0.0)
    table = chain_table(chain).rename(columns={"bid": "mid"}).drop(columns="ask")
    assert check_quotes(table).is_arbitrage_free
    table["mid"] += 2.0 * (table.index == 5)
    check = check_quotes(table)
    assert 0.0 < check.total_excess <= 2.0
    repaired = repair_quotes(table)
    np.testing.assert_allclose(
        np.abs(repaired["moved"]).sum(), check.total_excess, rtol=1e-7
    )
    with pytest.raises(QuoteError, match="has a spread to count in"):
        check_quotes(table, unit="half_spread")


# Repairs.


@pytest.mark.parametrize("forwards", ["given", "free"])
def test_repaired_quotes_are_free_and_inside_wherever_possible(forwards):
    table = stale_chain()
    table["note"] = "mine"
    repaired = repair_quotes(table, forwards=forwards)
    check = check_quotes(table, forwards=forwards, unit="half_spread")
    assert (repaired["note"] == "mine").all()
    assert repaired.index.isin(table.index).all()
    half = 0.5 * (repaired["ask"] - repaired["bid"])
    np.testing.assert_allclose(
        np.sum(repaired["excess"] / half), check.total_excess, rtol=1e-6
    )
    mid = 0.5 * (repaired["ask"] + repaired["bid"])
    np.testing.assert_allclose(repaired["moved"], repaired["repaired"] - mid, atol=1e-6)
    outside = np.maximum(
        repaired["bid"] - repaired["repaired"], repaired["repaired"] - repaired["ask"]
    )
    np.testing.assert_allclose(
        np.maximum(outside, 0.0), repaired["excess"], atol=1e-9 * 5000.0
    )
    met = repaired.assign(bid=repaired["repaired"], ask=repaired["repaired"])
    met = met[met["repaired"] > 0.0]
    again = check_quotes(met)
    assert again.is_arbitrage_free
    assert again.total_excess == 0.0


def test_repairing_sound_quotes_moves_few_and_leaves_none():
    repaired = repair_quotes(bundled_chain())
    assert len(repaired) == 619
    assert (repaired["excess"] == 0.0).all()
    assert (repaired["moved"] == 0.0).mean() > 0.3
    width = repaired["ask"] - repaired["bid"]
    assert (repaired["moved"].abs() <= 0.5 * width + 1e-6).all()


def test_repairs_of_random_chains_have_no_arbitrage(rng):
    for noise in (0.05, 1.0):
        chain = lognormal_chain(rng, expiries=4, strikes=15, noise=noise)
        result = least_chain_excess(chain, nearest_to_mids=True)
        assert_is_surface(chain, result)
        nearest = least_chain_excess(chain)
        np.testing.assert_allclose(
            result.total_excess, nearest.total_excess, rtol=1e-7, atol=1e-8
        )
        mid = 0.5 * (result.bid + result.ask)
        moved = [np.abs(one.price - mid).sum() for one in (result, nearest)]
        assert moved[0] < moved[1]


# Reports, requests.


def test_a_report_speaks_of_arbitrage_once_asked():
    report = ro.read_chain(stale_chain()).report()
    assert "arbitrage" not in repr(report)
    assert isinstance(report.arbitrage, QuoteCheck)
    assert report.arbitrage is report.arbitrage
    assert repr(report).splitlines()[-1] == report.arbitrage.describe()


def test_what_cannot_be_asked_is_named():
    chain = bundled_chain()
    with pytest.raises(ValueError, match="`forwards` must be"):
        check_quotes(chain, forwards="any")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`unit` must be"):
        check_quotes(chain, unit="ticks")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="pass the chain or the table"):
        check_quotes([prepare_quotes(chain["2025-06-20"])], forwards="free")
    with pytest.raises(TypeError, match="a path or a DataFrame, not int"):
        check_quotes([1])  # type: ignore[list-item]
    with pytest.raises(QuoteError, match="no quotes: there are no expiries"):
        check_quotes([])
    with pytest.raises(ValueError, match="forwards were given"):
        check_quotes(chain).forward_ranges()
    with pytest.raises(ValueError, match="at least one expiry"):
        least_chain_excess([])
    one = {"strike": [100.0], "bid": [5.0], "ask": [5.2], **UNIT_TERMS}
    for weights in ([[1.0, 1.0]], [[0.0]], [[1.0], [1.0]]):
        with pytest.raises(ValueError, match="one per quote of each expiry"):
            least_chain_excess([one], weights=weights)
    with pytest.raises(QuoteError, match="bid above ask in 1 of 1 quotes"):
        least_chain_excess([one, one | {"bid": [6.0]}])
    with pytest.raises(ValueError, match="weights are 1 positive numbers"):
        imply_forward(**one, weights=[1.0, 2.0])
    with pytest.raises(ValueError, match="shapes differ: excess"):
        forward_range(**one, excess=[0.0, 0.0])


def test_a_trade_needs_quantities_and_names_its_expiries():
    terms = {
        "expiry": [0, 1],
        "strike": [100.0, 100.0],
        "is_call": [True, True],
        "price": [4.0, 4.0],
        "forwards": [100.0, 100.0],
        "discount_factors": [1.0, 1.0],
    }
    with pytest.raises(ValueError, match="a quantity that is not zero"):
        cover_chain(**terms, quantity=[0.0, 0.0])
    trade = cover_chain(**terms, quantity=[-1.0, 1.0])
    with pytest.raises(ValueError, match=r"entered at expiries \(0,\) .* not at 1"):
        trade.forwards_to_hold(1, 100.0)


@pytest.mark.parametrize("quantity", [[-1.0, 0.5], [1.0, -2.0], [3.0, 1.0]])
def test_any_options_can_be_covered(rng, quantity):
    """With the cheapest forwards and cash: the worst is then nothing, not more."""
    trade = cover_chain(
        expiry=[0, 1],
        strike=[95.0, 104.0],
        is_call=[True, False],
        quantity=quantity,
        price=[7.0, 6.0],
        forwards=[100.0, 101.0],
        discount_factors=[0.99, 0.98],
    )
    assert 0.0 <= trade.worst_payoff < 1e-6


# Real quotes.


def test_the_spx_of_2019_has_one_quote_outside_by_a_thousandth_of_a_tick():
    """Each of 39 slices is free; between them one call is not, at parity's forwards."""
    chain = spx(2019)
    assert check_quotes(chain, calendar=False).is_arbitrage_free
    check = check_quotes(chain)
    assert len(check.slices) == 39
    assert check.skipped == {}
    assert len(check.outside) <= 1
    assert check.total_excess < 5e-5
    assert abs(check.arbitrage.gap) < 1e-10
    assert check.worst_payoff >= 0.0


def test_the_spx_of_2026_is_dirty_and_its_offenders_are_found():
    """Without the times of last trades, which tell the stale ones beforehand."""
    chain = spx(2026)
    assert check_quotes(chain).share_inside == 1.0
    chain = replace(chain, rows=chain.rows.drop(columns="last_trade_time"))
    check = check_quotes(chain)
    assert list(check.skipped) == ["2026-03-10 PM"]
    assert 0.99 < check.share_inside < 1.0
    assert abs(check.arbitrage.gap) < 1e-6 * check.total_excess
    worst = check.outside.iloc[0]
    assert (worst["strike"], worst["option_type"]) == (4250.0, "put")
    legs = check.trade()
    earned = legs.groupby("trade")["cash_flow"].sum()
    assert (earned > 0.0).all()
    assert earned.is_monotonic_decreasing
    assert all(a >= b for a, b in pairwise(earned))

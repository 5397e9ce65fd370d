"""Which quotes are too old to stand beside others."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from real_quotes import spx
from scipy.optimize import linprog
from scipy.signal import find_peaks
from scipy.special import ndtr

import relu_options as ro
from relu_options.errors import QuoteError
from relu_options.market_data import prepare_quotes, read_chain
from relu_options.market_data.cleaning import (
    RULES,
    SliceQuotes,
    TradingLimits,
    one_sided_quotes,
)
from relu_options.market_data.freshness import Neighbours, _least_absolute, stale_quotes

FORWARD, DISCOUNT, YEARS = 100.0, 0.98, 0.4
EVERY = slice(None)


def black(strike, is_call, forward=FORWARD):
    """Prices on a smile that is steep on the left."""
    volatility = 0.2 - 0.15 * np.log(strike / forward)
    deviation = volatility * np.sqrt(YEARS)
    d1 = np.log(forward / strike) / deviation + 0.5 * deviation
    call = forward * ndtr(d1) - strike * ndtr(d1 - deviation)
    return DISCOUNT * np.where(is_call, call, call - forward + strike)


def live(rng, strike=None, in_the_money=False):
    """Quotes of one moment: mids off by noise well inside of spreads of two widths."""
    if strike is None:
        strike = np.arange(70.0, 140.0, 1.0)
    is_call = strike >= FORWARD
    if in_the_money:
        strike, is_call = np.tile(strike, 2), np.concatenate([is_call, ~is_call])
    half = rng.uniform(0.5, 1.0, len(strike)) * (0.02 + 0.01 * black(strike, is_call))
    mid = black(strike, is_call) + 0.1 * half * rng.uniform(-1.0, 1.0, len(strike))
    return SliceQuotes(
        strike,
        is_call,
        mid - half,
        mid + half,
        np.zeros(len(strike)),
        FORWARD,
        DISCOUNT,
    )


def with_stale(rng, quotes, count):
    """The same with quotes that were made before the forward had moved by 2 %."""
    rows = rng.choice(np.arange(4, len(quotes.strike) - 4), count, replace=False)
    shift = np.zeros(len(quotes.strike))
    before = black(quotes.strike, quotes.is_call, FORWARD * rng.choice([0.98, 1.02]))
    shift[rows] = (before - black(quotes.strike, quotes.is_call))[rows]
    age = quotes.age.copy()
    age[rows] = rng.uniform(2.0, 90.0, count)
    return replace(
        quotes, bid=quotes.bid + shift, ask=quotes.ask + shift, age=age
    ), rows


def all_rows(quotes):
    return np.ones(len(quotes.strike), dtype=bool)


def test_quotes_of_another_moment_are_found_and_no_others(rng):
    found = there = 0
    for _ in range(40):
        quotes, rows = with_stale(rng, live(rng), 6)
        stale = stale_quotes(quotes, all_rows(quotes))
        assert not stale[np.setdiff1d(np.arange(len(stale)), rows)].any()
        true = black(quotes.strike, quotes.is_call)
        half = 0.5 * (quotes.ask - quotes.bid)
        beyond = np.maximum(quotes.bid - true, true - quotes.ask) > 0.5 * half
        found += np.count_nonzero(stale & beyond)
        there += np.count_nonzero(beyond[rows])
    assert there > 180
    assert found > 0.93 * there  # two that moved alike and stand together may agree


def test_age_alone_condemns_nothing(rng):
    """Quotes that a source keeps alive agree, however long ago their last trade was."""
    wrong = 0
    for _ in range(40):
        quotes = live(rng)
        quotes = replace(quotes, age=rng.exponential(20.0, len(quotes.strike)))
        wrong += np.count_nonzero(stale_quotes(quotes, all_rows(quotes)))
    assert wrong == 0


@pytest.mark.parametrize("age", [np.nan, 3.0])
def test_without_a_difference_in_age_nothing_is_stale(rng, age):
    quotes, _ = with_stale(rng, live(rng), 6)
    quotes = replace(quotes, age=np.full(len(quotes.strike), age))
    assert not stale_quotes(quotes, all_rows(quotes)).any()
    same_session = replace(quotes, age=rng.uniform(0.0, 0.99, len(quotes.strike)))
    assert not stale_quotes(same_session, all_rows(quotes)).any()


def test_a_contract_that_never_traded_is_older_than_all(rng):
    quotes, rows = with_stale(rng, live(rng), 3)
    age = quotes.age.copy()
    age[rows] = np.nan
    unknown = replace(quotes, age=age)
    np.testing.assert_array_equal(
        stale_quotes(unknown, all_rows(quotes)), stale_quotes(quotes, all_rows(quotes))
    )


def test_where_most_are_stale_it_is_not_they_who_are_wrong(rng):
    quotes, rows = with_stale(rng, live(rng), 24)
    assert not stale_quotes(quotes, all_rows(quotes)).any()
    lenient = Neighbours(most=1.0)
    assert stale_quotes(quotes, all_rows(quotes), lenient)[rows].any()


def test_the_order_of_rows_does_not_matter(rng):
    quotes, _ = with_stale(rng, live(rng, in_the_money=True), 8)
    order = rng.permutation(len(quotes.strike))
    arrays = ("strike", "is_call", "bid", "ask", "age")
    mixed = replace(quotes, **{name: getattr(quotes, name)[order] for name in arrays})
    np.testing.assert_array_equal(
        stale_quotes(mixed, all_rows(mixed)),
        stale_quotes(quotes, all_rows(quotes))[order],
    )


def test_in_the_money_quotes_are_judged_by_parity(rng):
    """A call below the forward is held against puts, and the other way round."""
    quotes = live(rng, in_the_money=True)
    far = np.flatnonzero(~quotes.out_of_the_money)[[20, 50]]
    moved = np.zeros(len(quotes.strike))
    moved[far] = 5.0 * (quotes.ask - quotes.bid)[far]
    age = quotes.age.copy()
    age[far] = 9.0
    wrong = replace(quotes, bid=quotes.bid + moved, ask=quotes.ask + moved, age=age)
    np.testing.assert_array_equal(
        np.flatnonzero(stale_quotes(wrong, all_rows(wrong))), np.sort(far)
    )
    # Where parity is known no better than that, they contradict nothing.
    vague = replace(wrong, forward_error=10.0 * moved.max())
    assert not stale_quotes(vague, all_rows(vague)).any()


def test_the_error_of_parity(rng):
    quotes = replace(
        live(rng, in_the_money=True), forward_error=0.3, discount_error=0.004
    )
    error = quotes.parity_error
    np.testing.assert_array_equal(error[quotes.out_of_the_money], 0.0)
    draws = rng.standard_normal((2, 20000, 1))
    turned = (DISCOUNT + 0.004 * draws[1]) * (FORWARD + 0.3 * draws[0] - quotes.strike)
    inside = ~quotes.out_of_the_money
    np.testing.assert_allclose(error[inside], turned.std(0)[inside], rtol=0.03)


def test_the_least_sum_of_absolute_residuals(rng):
    """As a linear programme finds it."""
    powers = np.vander(np.linspace(-1.0, 1.0, 8), 3, increasing=True)
    values = rng.standard_normal((20, 8))
    levels, residuals, leverage = _least_absolute(
        np.broadcast_to(powers, (20, 8, 3)), values, np.ones((20, 8), bool), 15
    )
    for row in range(20):
        cost = np.concatenate([np.zeros(3), np.ones(8)])
        wide = np.block([[powers, -np.eye(8)], [-powers, -np.eye(8)]])
        bounds: Any = [(None, None)] * 3 + [(0.0, None)] * 8
        least = linprog(
            cost, wide, np.concatenate([values[row], -values[row]]), bounds=bounds
        ).fun
        assert np.abs(residuals[row]).sum() <= 1.02 * least
    hat = np.linalg.inv(powers.T @ powers)
    np.testing.assert_allclose(leverage, hat[0, 0])
    assert np.isfinite(levels).all()


def test_a_one_sided_quote_is_used_if_it_is_no_wider_than_its_neighbours(rng):
    quotes = live(rng)
    swapped = np.isin(quotes.strike, [85.0, 95.0, 120.0])
    is_call = quotes.is_call ^ swapped
    mid = black(quotes.strike, is_call)
    half = np.where(quotes.strike == 95.0, 1.0, 1e-3)
    one_sided = replace(
        quotes,
        is_call=is_call,
        bid=np.where(swapped, mid - half, quotes.bid),
        ask=np.where(swapped, mid + half, quotes.ask),
    )
    wide = one_sided_quotes(one_sided, all_rows(one_sided))
    np.testing.assert_array_equal(quotes.strike[wide], [95.0])


def test_a_table_of_calls_only_is_used_whole(rng):
    quotes = live(rng)
    calls = replace(quotes, is_call=np.ones(len(quotes.strike), dtype=bool))
    assert not one_sided_quotes(calls, all_rows(calls)).any()


def table(**columns):
    strike = np.repeat(np.arange(80.0, 126.0, 5.0), 2)
    is_call = np.arange(len(strike)) % 2 == 0
    mid = black(strike, is_call)
    return pd.DataFrame(
        {
            "expiry": "2024-06-21",
            "strike": strike,
            "option_type": np.where(is_call, "call", "put"),
            "bid": mid - 0.05,
            "ask": mid + 0.05,
            **columns,
        }
    )


def test_what_is_known_of_trading_is_kept():
    quotes = table(
        lastTradeDate="2024-01-25 15:59:00-05:00", volume=7, openInterest=np.arange(20)
    )
    rows = read_chain(quotes, quote_time="2024-01-26 16:00").rows
    assert rows["last_trade_time"].iloc[0] == pd.Timestamp("2024-01-25 20:59", tz="UTC")
    assert rows["volume"].tolist() == [7.0] * 20
    assert rows["open_interest"].tolist() == list(range(20))
    quotes["lastTradeDate"] = ["-"] * 5 + quotes["lastTradeDate"].tolist()[5:]
    rows = read_chain(quotes, quote_time="2024-01-26 16:00").rows
    assert rows["last_trade_time"].isna().sum() == 5


@pytest.mark.parametrize("function", ["read_chain", "prepare_quotes"])
def test_limits_set_rows_aside_under_their_rules(function):
    quotes = table(
        lastTradeDate=pd.Timestamp("2024-01-26 15:00", tz="America/New_York"),
        volume=7.0,
        openInterest=50.0,
    )
    quotes.loc[0, "lastTradeDate"] = pd.Timestamp("2024-01-24 20:00", tz="UTC")
    quotes.loc[1, "lastTradeDate"] = pd.NaT
    quotes.loc[2, "volume"] = 6.0
    quotes.loc[3, "volume"] = np.nan
    quotes.loc[4, "openInterest"] = 0.0
    limits: dict[str, Any] = {
        "max_age": 1.5,
        "min_volume": 7.0,
        "min_open_interest": 1,
        "quote_time": "2024-01-26 16:00",
    }
    if function == "read_chain":
        report = read_chain(quotes, **limits).report().rows
    else:
        report = prepare_quotes(quotes, **limits).report
    set_aside = {rows.rule: list(rows.labels) for rows in report}
    assert set_aside["too_old"] == [0, 1]
    assert set_aside["thin"] == [2, 3, 4]
    assert report.rows_in == report.rows_used + sum(report.counts.values())
    assert "set aside 3: traded less" in repr(report)


def test_a_limit_on_what_the_table_does_not_say_is_refused():
    quotes = table()
    for limit, column in (
        ("max_age", "last_trade_time"),
        ("min_volume", "volume"),
        ("min_open_interest", "open_interest"),
    ):
        asked: dict[str, Any] = {limit: 1.0}
        with pytest.raises(QuoteError, match=f"`{limit}=` needs a column '{column}'"):
            read_chain(quotes, quote_time="2024-01-26", **asked)
        with pytest.raises(QuoteError, match=f"`{limit}=` needs a column '{column}'"):
            prepare_quotes(quotes, quote_time="2024-01-26", **asked)
    renamed = table(traded=10.0)
    chain = read_chain(
        renamed, quote_time="2024-01-26", min_volume=1.0, columns={"volume": "traded"}
    )
    assert len(chain.table) == 20


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf, "3"])
def test_limits_are_numbers(value):
    with pytest.raises(ValueError, match="`max_age` must be"):
        TradingLimits(max_age=value)


def test_a_chain_that_limits_leave_empty_says_which_and_how_to_lift_them():
    """By the rules that set its rows aside, counted; the remedies are taken."""
    traded = pd.Timestamp("2024-01-20 20:00", tz="UTC")
    quotes = table(lastTradeDate=traded, volume=10.0)
    when: dict[str, Any] = {"quote_time": "2024-01-26 16:00"}
    chain = read_chain(quotes, **when)
    rows = len(chain.rows)
    cases: list[tuple[dict[str, Any], str, dict[str, Any]]] = [
        ({"max_age": 1.0}, "too_old", {"max_age": 7.0}),
        ({"min_volume": 11.0}, "thin", {"min_volume": 10.0}),
    ]
    for limits, rule, remedy in cases:
        message = f"set aside {rows}: {RULES[rule]}; .* `{next(iter(limits))}=`"
        sources: list[tuple[Any, dict[str, Any]]] = [(quotes, when), (chain, {})]
        for source, how in sources:
            with pytest.raises(QuoteError, match=message) as error:
                ro.fit_curve(source, **how, **limits)
            assert "expired" not in str(error.value)
            assert ro.fit_curve(source, **how, **remedy).share_inside == 1.0
    assert "no row can be used" in repr(read_chain(chain, max_age=1.0))


def test_limits_count_from_the_number_itself():
    now = pd.Timestamp("2024-01-26 21:00", tz="UTC")
    ages = pd.to_timedelta([24.0, 26.4], unit="h")
    rows = {"last_trade_time": now - ages, "volume": [5, 4], "open_interest": [2, 1]}
    for limits in (
        TradingLimits(max_age=1.0),
        TradingLimits(min_volume=5.0),
        TradingLimits(min_open_interest=2.0),
    ):
        codes = np.zeros(2, dtype=int)
        limits.mark(codes, pd.DataFrame(rows), now)
        assert codes[0] == 0 < codes[1]


def test_a_stale_quote_gives_way_to_its_fresh_twin():
    quotes = table(lastTradeDate=pd.Timestamp("2024-01-26 20:00", tz="UTC"))
    row = (quotes["strike"] == 110.0) & (quotes["option_type"] == "call")
    quotes.loc[row, ["bid", "ask"]] += 0.8
    quotes.loc[row, "lastTradeDate"] = pd.Timestamp("2023-12-27 20:00", tz="UTC")
    prepared = prepare_quotes(quotes, quote_time="2024-01-26 16:00")
    place = int(np.flatnonzero(prepared.strike == 110.0)[0])
    assert prepared.converted[place]
    assert prepared.report.counts == {"stale": 1, "in_the_money": 9}
    assert "stale: contradicts fresher neighbours beyond its spread" in repr(
        prepared.report
    )
    # Its interval is wider by what parity adds, and it is listed as it is quoted.
    twin = quotes[(quotes["strike"] == 110.0) & (quotes["option_type"] == "put")]
    parity = prepared.parity
    assert parity is not None
    error = np.hypot(
        parity.discount_factor * parity.forward_standard_error,
        (110.0 - parity.forward) * parity.discount_standard_error,
    )
    spread = prepared.ask[place] - prepared.bid[place]
    np.testing.assert_allclose(spread, 0.1 + 2.0 * error, rtol=1e-9)
    assert prepared.listed["bid"][place] == twin["bid"].iloc[0]
    assert prepared.listed["ask"][place] == twin["ask"].iloc[0]
    assert not prepared.listed["is_call"][place]


def test_quotes_taken_by_position_stay_together():
    prepared = prepare_quotes(table(), quote_time="2024-01-26 16:00")
    rows = np.array([3, 1])
    taken = prepared.take(rows)
    pd.testing.assert_frame_equal(taken.to_frame(), prepared.to_frame().iloc[rows])
    pd.testing.assert_frame_equal(taken.table, prepared.table.iloc[rows])
    for name, values in taken.listed.items():
        np.testing.assert_array_equal(values, prepared.listed[name][rows])


def one_sided_table():
    """Between 100 and 115 calls are quoted only in the money, and puts likewise."""
    quotes = table()
    is_call = quotes["option_type"] == "call"
    turned = quotes["strike"].isin([90.0, 110.0])
    out = is_call == (quotes["strike"] >= FORWARD)
    return quotes[~(turned & out)].reset_index(drop=True)


def listed_prices(quotes):
    keys = zip(quotes["strike"], quotes["option_type"], strict=True)
    return dict(zip(keys, zip(quotes["bid"], quotes["ask"], strict=True), strict=True))


def assert_listed(portfolio, known):
    """Assert that its options are those that are quoted, at these prices."""
    assert portfolio.bid is not None
    assert portfolio.ask is not None
    kinds = np.where(portfolio.is_call, "call", "put")
    legs = zip(portfolio.strikes, kinds, strict=True)
    prices = zip(portfolio.bid, portfolio.ask, strict=True)
    assert [known[leg] for leg in legs] == list(prices)


@pytest.mark.parametrize("side", ["super", "sub"])
def test_hedges_hold_what_is_listed_at_the_prices_quoted(side):
    """And cost the same as with the options that parity makes of them."""
    quotes = one_sided_table()
    prepared = prepare_quotes(
        quotes, forward=FORWARD, discount_factor=DISCOUNT, time_to_expiry=YEARS
    )
    turned = quotes["strike"].isin([90.0, 110.0])
    by_parity = quotes.copy()
    is_call = (quotes["option_type"] == "call")[turned]
    worth = DISCOUNT * (FORWARD - quotes["strike"])[turned]
    for name in ("bid", "ask"):
        by_parity.loc[turned, name] -= np.where(is_call, worth, -worth)
    by_parity.loc[turned, "option_type"] = np.where(is_call, "put", "call")
    other = prepare_quotes(
        by_parity, forward=FORWARD, discount_factor=DISCOUNT, time_to_expiry=YEARS
    )
    assert prepared.converted.sum() == 2
    assert not other.converted.any()
    spots = np.linspace(0.0, 300.0, 3001)
    sign = 1.0 if side == "super" else -1.0
    for payoff in (
        ro.payoffs.put(90.0),
        ro.payoffs.straddle(110.0),
        ro.payoffs.butterfly(90.0, 100.0, 110.0),
        ro.payoffs.call_spread(109.0, 111.0),
        ro.payoffs.call_spread(90.0, 110.0),
    ):
        hedge = ro.replicate(payoff, prepared, method=side)
        held = hedge.portfolio
        known = listed_prices(quotes)
        assert_listed(held, known)
        excess = np.asarray(held.payoff()(spots)) - np.asarray(payoff(spots))
        assert (sign * excess).min() > -1e-9
        expected = ro.replicate(payoff, other, method=side)
        assert hedge.cost == pytest.approx(expected.cost, abs=1e-9)
        # Without the forward, what is listed in the money cannot stand for the other.
        alone = ro.replicate(payoff, prepared, method=side, trade_forward=False)
        assert not np.isin(alone.portfolio.strikes, [90.0, 110.0]).any()


def test_conflicts_name_what_is_listed_at_the_prices_quoted():
    quotes = one_sided_table()
    row = (quotes["strike"] == 110.0) & (quotes["option_type"] == "put")
    quotes.loc[row, ["bid", "ask"]] += 0.4
    curve = ro.fit_curve(
        quotes, forward=FORWARD, discount_factor=DISCOUNT, time_to_expiry=YEARS
    )
    conflict = curve.conflicts.loc[curve.conflicts["strike"] == 110.0].iloc[0]
    assert conflict["option_type"] == "put"
    assert (conflict["bid"], conflict["ask"]) == listed_prices(quotes)[110.0, "put"]
    assert conflict["fitted_price"] == pytest.approx(curve.price(110.0, is_call=False))
    outside = max(
        conflict["bid"] - conflict["fitted_price"],
        conflict["fitted_price"] - conflict["ask"],
    )
    assert conflict["excess"] == pytest.approx(outside, abs=1e-9)


def test_an_arbitrage_that_stops_a_hedge_is_named_with_its_remedy():
    quotes = one_sided_table()
    quotes.loc[quotes["strike"] == 110.0, ["bid", "ask"]] += 2.0
    prepared = prepare_quotes(
        quotes, forward=FORWARD, discount_factor=DISCOUNT, time_to_expiry=YEARS
    )
    payoff = ro.payoffs.straddle(100.0)
    with pytest.raises(
        ro.ArbitrageError, match=r"put 110 .*`strikes=`.*`fit_curve"
    ) as e:
        ro.replicate(payoff, prepared, method="super")
    bid = listed_prices(quotes)[110.0, "put"][0]
    assert f"{bid:.6g}" in str(e.value)
    sound = np.setdiff1d(prepared.strike, [110.0])
    assert ro.replicate(payoff, prepared, method="super", strikes=sound).cost > 0.0
    assert ro.replicate(payoff, ro.fit_curve(prepared), method="super").cost > 0.0


def peaks(curve):
    """Peaks of the density of the log-moneyness, of 2 % of the highest at least."""
    kinks = np.asarray(curve.network.kinks)
    strikes = np.geomspace(kinks[kinks > 0.0].min() * 0.9, kinks.max() * 1.1, 8001)
    density = np.asarray(curve.density(strikes)) * strikes
    found, _ = find_peaks(np.pad(density, 1), prominence=0.02 * density.max())
    return len(found)


def test_a_chain_with_stale_quotes_is_fitted_and_hedged():
    """SPX as Yahoo showed it: quotes a month old among those of the close."""
    chain = spx(2026)["2026-09-30", "PM"]
    report = chain.report()
    stale = report.set_aside("stale")
    assert 0 < len(stale) < 0.05 * len(chain.table)
    assert {7160.0, 7165.0, 7245.0, 7305.0} <= set(stale["strike"])
    assert chain.quote_time is not None
    assert stale["last_trade_time"].max() < chain.quote_time - pd.Timedelta(days=1)
    quotes = prepare_quotes(chain)
    curve = ro.fit_curve(quotes)
    assert curve.share_inside >= 0.995
    assert peaks(curve) == 1
    known = listed_prices(chain.rows)
    for payoff in (
        ro.payoffs.call_spread(6900.0, 7200.0),
        ro.payoffs.straddle(7072.0),
        ro.payoffs.put(6738.0),
        ro.payoffs.butterfly(6915.0, 7070.0, 7225.0),
        ro.payoffs.call_spread(7070.0, 7071.0),
    ):
        held = ro.replicate(payoff, quotes, method="super").portfolio
        assert_listed(held, known)
        low, high = ro.price_interval(payoff, quotes)
        assert low < high


def test_a_chain_of_fresh_quotes_loses_nothing():
    counts = spx(2019).report().rows.counts
    assert not {"stale", "one_sided"} & set(counts)

"""Backtests: money is conserved, the future is not seen, expiries pay their value."""

import ast
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from backtest_histories import (
    MemoryHistory,
    black_scholes_history,
    black_scholes_price,
    black_scholes_table,
    lognormal_path,
)

import relu_options as ro
from relu_options.backtest import (
    EVENTS,
    Claim,
    Costs,
    DeltaHedge,
    Settlement,
    Setup,
    Target,
    backtest,
    sweep,
)
from relu_options.backtest.contracts import Contract
from relu_options.backtest.day import Day, curve_of
from relu_options.backtest.strategies import (
    BuyWrite,
    Calendar,
    HoldToExpiry,
    Leg,
    short_strangle,
    straddle,
)
from relu_options.errors import BacktestError, LookAheadError
from relu_options.market_data.clocks import expiry_time, utc_time, years_between
from relu_options.plotting_backtest import UNMARKED

EXPIRIES = ("2025-01-24", "2025-02-14", "2025-03-21")
CAPITAL = 1e4
HEDGE = DeltaHedge(delta="black_scholes")
FREE = Costs.none()


@cache
def path_history():
    """Thirty dates of a Black-Scholes world with spreads, expiries on some of them."""
    spots = lognormal_path(np.random.default_rng(5), 30)
    return black_scholes_history(spots, EXPIRIES, rate=0.03)


@cache
def quiet_history():
    """The same path, quoted so tightly that mids are prices."""
    spots = lognormal_path(np.random.default_rng(5), 30)
    return black_scholes_history(spots, EXPIRIES, rate=0.03, half_spread=1e-5)


@cache
def surfaces_of_path():
    """The true surfaces of that world."""
    history = path_history()
    return {
        date: true_surface(date, history.underlying_prices[date])
        for date in history.dates
    }


def true_surface(date, spot, *, rate=0.03, volatility=0.2):
    now = utc_time(date)[0]
    times = [years_between(now, expiry_time(pd.Timestamp(one))) for one in EXPIRIES]
    labels = [
        f"{one} PM" for one, time in zip(EXPIRIES, times, strict=True) if time > 0
    ]
    times = np.array([time for time in times if time > 0.0])
    return ro.BlackScholesSurface(
        volatilities=volatility,
        times=times,
        forwards=spot * np.exp(rate * times),
        discount_factors=np.exp(-rate * times),
        expiries=labels,
        spot=spot,
    )


def idle(view):
    return None


def buy_once(view):
    """A call and a put of the first expiry, on the first date."""
    if view.has_traded:
        return None
    expiry = view.expiry(days=18)
    return [view.call(expiry, 100.0, 2.0), view.put(expiry, 95.0, -1.0)]


def assert_conserves_capital(result, atol=1e-9):
    """Cash and market value are equity, and its changes are accounted for."""
    daily, flows = result.daily, result.attribution
    value = daily["options_value"] + daily["underlying_value"]
    np.testing.assert_allclose(
        daily["cash"] + value, daily["equity"], rtol=0, atol=atol
    )
    by_date = result.positions.groupby("date")["market_value"].sum()
    held = by_date.reindex(daily.index, fill_value=0.0)
    np.testing.assert_allclose(held, value, rtol=0, atol=atol)
    change = daily["equity"].diff()
    change.iloc[0] = daily["equity"].iloc[0] - result.capital
    np.testing.assert_allclose(flows.sum(axis=1), change, rtol=0, atol=atol)
    paid = result.trades["amount"].sum() - result.trades["fee"].sum()
    carried = flows[["interest", "dividends"]].to_numpy().sum()
    cash = result.capital + paid + carried
    np.testing.assert_allclose(daily["cash"].iloc[-1], cash, rtol=0, atol=atol)
    costs = result.trades[["spread", "fee"]].sum().to_numpy()
    np.testing.assert_allclose(
        -flows[["spread", "fees"]].sum().to_numpy(), costs, rtol=0, atol=atol
    )


def assert_same(first, second):
    """Two results are equal to the last bit."""
    for name in ("daily", "greeks", "attribution", "trades", "positions", "events"):
        pd.testing.assert_frame_equal(
            getattr(first, name), getattr(second, name), check_exact=True
        )


@pytest.mark.parametrize(
    ("strategy", "terms"),
    [
        (short_strangle(days=20), {"hedge": HEDGE, "rate": 0.03}),
        (BuyWrite(days=20), {"dividend_yield": 0.02, "rate": 0.05}),
        (
            Calendar(near=15, far=40),
            {"hedge": DeltaHedge(every=3, band=5.0, delta="black_scholes")},
        ),
        (straddle(-1.5, days=40), {"rate": "curve", "dividend_yield": "curve"}),
    ],
    ids=["strangle", "buy-write", "calendar", "straddle"],
)
@pytest.mark.parametrize("marks", ["mid", "surface"])
def test_capital_is_conserved_on_every_date(strategy, terms, marks):
    surfaces = surfaces_of_path() if marks == "surface" else None
    result = backtest(
        path_history(), strategy, capital=CAPITAL, surfaces=surfaces, **terms
    )
    assert len(result.trades) > 2
    assert (result.trades["kind"] == "expiry").any()
    assert_conserves_capital(result)


def test_hold_to_expiry_is_what_pandas_computes():
    """Premium at bid and ask, fees, intrinsic value at the close: nothing else."""
    history = path_history()
    legs = (Leg(2.0, True, moneyness=1.0), Leg(-3.0, False, moneyness=0.95))
    costs = Costs(fee_per_contract=0.7)
    result = backtest(
        history, HoldToExpiry(legs, days=18), costs=costs, capital=CAPITAL
    )
    profit, free_from = 0.0, history.dates[0]
    for date, table in history.tables.items():
        if date < free_from:
            continue
        table = table[table["expiry"] > date]
        days = (table["expiry"] - date).dt.days
        expiry = table["expiry"][(days - 18).abs().idxmin()]
        slice_ = table[table["expiry"] == expiry].set_index(["option_type", "strike"])
        forward = ro.prepare_quotes(slice_.reset_index()).forward
        strikes = slice_.loc["call"].index.to_numpy()
        final = history.underlying_prices.get(expiry)
        for quantity, kind, moneyness in ((2.0, "call", 1.0), (-3.0, "put", 0.95)):
            strike = strikes[np.abs(strikes - moneyness * forward).argmin()]
            quote = slice_.loc[(kind, strike)]
            price = quote["ask"] if quantity > 0 else quote["bid"]
            profit -= 100.0 * quantity * price + 0.7 * abs(quantity)
            if final is not None:
                sign = 1.0 if kind == "call" else -1.0
                profit += 100.0 * quantity * max(sign * (final - strike), 0.0)
        if final is None:  # open at the end
            break
        free_from = expiry
    assert (result.trades["kind"] == "expiry").sum() == 4
    cash = result.daily["cash"].iloc[-1]
    np.testing.assert_allclose(cash - CAPITAL, profit, rtol=0, atol=1e-9)


# The past only


def test_the_future_does_not_change_the_past():
    """Doubled prices after a date leave everything up to it as it was."""
    history = path_history()
    date = history.dates[17]

    def doubled(day, table):
        if day <= date:
            return table
        later = table.copy()
        later[["bid", "ask", "underlying_price"]] *= 2.0
        return later

    prices = history.underlying_prices
    other = replace(
        history.changed(doubled),
        underlying_prices=prices.where(prices.index <= date, 7.0),
    )
    terms: dict[str, Any] = {"hedge": HEDGE, "rate": 0.03}
    first = backtest(history, short_strangle(days=10), **terms)
    second = backtest(other, short_strangle(days=10), **terms)
    for name in ("daily", "greeks", "attribution"):
        ours, theirs = (getattr(one, name)[:date] for one in (first, second))
        pd.testing.assert_frame_equal(ours, theirs, check_exact=True)
    assert first.equity.iloc[-1] != second.equity.iloc[-1]


@pytest.mark.parametrize("ask", ["chain", "surface"])
def test_a_later_date_cannot_be_asked_for(ask):
    tomorrow = path_history().dates[3]

    def peek(view):
        if view.date < tomorrow - pd.Timedelta(days=1):
            return
        _ = view[tomorrow] if ask == "chain" else view.surface_on(tomorrow)

    with pytest.raises(LookAheadError, match="asked for 2025-01-09 on 2025-01-08"):
        backtest(path_history(), peek, surfaces=surfaces_of_path())


def test_a_view_ends_with_its_date():
    history = replace(
        path_history(),
        splits=pd.Series([2.0], pd.DatetimeIndex(["2025-06-02"])),
        settlement_prices=pd.DataFrame(
            {"expiry": EXPIRIES, "settlement": "PM", "price": 100.0}
        ),
    )
    seen = []

    def look(view):
        seen.append(
            (
                view.dates[-1] == view.date,
                view.underlying_prices.index[-1] == view.date,
                len(view.splits),
                len(view.settlement_prices),
            )
        )
        assert view[view.dates[0]].quote_time == utc_time(view.dates[0])[0]

    backtest(history, look, end="2025-01-24")
    assert set(seen[:-1]) == {(True, True, 0, 0)}
    assert seen[-1] == (True, True, 0, 1)


# Scale, order, workers


def test_twice_the_quantities_are_twice_the_profit():
    first, second = (
        backtest(
            path_history(), short_strangle(size, days=20), hedge=HEDGE, capital=0.0
        )
        for size in (1.0, 2.0)
    )
    np.testing.assert_array_equal(2.0 * first.equity, second.equity)
    np.testing.assert_array_equal(2.0 * first.attribution, second.attribution)
    assert first.returns.isna().all()
    assert np.isnan(first.summary()["return"])


def test_a_strategy_that_does_nothing_keeps_its_capital():
    result = backtest(path_history(), idle, capital=CAPITAL, hedge=HEDGE)
    assert (result.equity == CAPITAL).all()
    assert not result.attribution.to_numpy().any()
    assert not len(result.trades) + len(result.positions) + len(result.events)
    earning = backtest(path_history(), idle, capital=CAPITAL, rate=0.05)
    days = (earning.equity.index - earning.equity.index[0]).days.to_numpy()
    np.testing.assert_allclose(
        earning.equity, CAPITAL * np.exp(0.05 * days / 365.0), rtol=1e-12
    )


def test_the_order_of_rows_does_not_matter(rng):
    def shuffled(date, table):
        return table.sample(frac=1.0, random_state=rng)

    terms: dict[str, Any] = {"hedge": HEDGE, "rate": "curve"}
    first = backtest(path_history(), short_strangle(days=20), **terms)
    second = backtest(
        path_history().changed(shuffled), short_strangle(days=20), **terms
    )
    assert first.to_frame().to_csv() == second.to_frame().to_csv()
    assert first.trades.to_csv() == second.trades.to_csv()


def test_results_do_not_depend_on_the_workers():
    """One process, two processes, an executor: the same bits, in the same order."""
    setups = {
        "strangle": Setup(short_strangle(days=20), hedge=HEDGE),
        "strangle at mid": Setup(short_strangle(days=20), costs=FREE, hedge=HEDGE),
        "buy-write": BuyWrite(days=20),
        "fails": HoldToExpiry((Leg(1.0, True, delta=2.0),)),
    }
    one = sweep(path_history(), setups)
    two = sweep(path_history(), setups, n_jobs=2)
    with ThreadPoolExecutor(2) as pool:
        other = sweep(path_history(), setups, executor=pool)
    assert list(one) == list(two) == list(other) == list(setups)[:3]
    assert one.failures == two.failures == other.failures
    assert "delta must be between -1 and 1" in one.failures["fails"]
    for name, result in one.items():
        assert_same(result, two[name])
        assert_same(result, other[name])
    with pytest.raises(KeyError, match="failed"):
        one["fails"]
    profit = one.table["profit"].to_dict()
    assert profit["strangle"] < profit["strangle at mid"]
    assert "fails failed" in repr(one)


# Settlement


def settled_history(settlement):
    """Three dates, an expiry on the last; settlement in the morning or evening."""
    dates = pd.bdate_range("2025-01-22", periods=3)
    spots = [100.0, 103.0, 110.0]
    expiries = [dates[-1], dates[-1] + pd.Timedelta(days=30)]
    tables = {
        date: black_scholes_table(
            date, spot, expiries, np.arange(90.0, 116.0, 5.0), settlement=settlement
        )
        for date, spot in zip(dates, spots, strict=True)
    }
    return MemoryHistory(tables, pd.Series(spots, dates))


@pytest.mark.parametrize(
    ("settlement", "table", "price", "events"),
    [
        ("PM", {}, 110.0, []),
        ("PM", {"PM": 108.0}, 108.0, []),
        ("AM", {"AM": 106.5}, 106.5, []),
        ("AM", {}, 103.0, ["settlement_price"]),
        ("AM", {"PM": 108.0}, 103.0, ["settlement_price"]),
    ],
)
def test_an_expiry_is_settled_at_its_own_price(settlement, table, price, events):
    """PM at the close; AM at a price of the table, or else at the close before."""
    history = settled_history(settlement)
    expiry = history.dates[-1]
    prices = pd.DataFrame(
        [(expiry, clock, value) for clock, value in table.items()],
        columns=["expiry", "settlement", "price"],
    )

    def hold(view):
        if view.has_traded:
            return None
        label = f"{expiry:%Y-%m-%d} {settlement}"
        return view.order(label, [100.0, 115.0], [True, False], [1.0, -2.0])

    for given in (
        backtest(history, hold, settlement=prices),
        backtest(replace(history, settlement_prices=prices), hold),
    ):
        expired = given.trades[given.trades["kind"] == "expiry"]
        np.testing.assert_allclose(expired["price"], [price - 100.0, 115.0 - price])
        assert given.events["kind"].tolist() == events
        assert_conserves_capital(given)


def test_a_missing_settlement_price_can_be_an_error():
    with pytest.raises(
        BacktestError, match="for 2025-01-24 AM; pass `settlement=`, a table"
    ):
        backtest(
            settled_history("AM"),
            straddle(days=2),
            settlement=Settlement(on_missing="raise"),
        )


def test_a_fallback_price_is_adjusted_for_a_split_in_between():
    """The close before is per old share, the contract per new one."""
    history = settled_history("AM")
    day = history.dates[-1]
    tables = dict(history.tables)
    tables[day] = black_scholes_table(
        day, 55.0, [day + pd.Timedelta(days=30)], np.arange(45.0, 66.0, 5.0)
    )
    history = replace(
        history, tables=tables, splits=pd.Series([2.0], pd.DatetimeIndex([day]))
    )
    result = backtest(history, straddle(days=2), costs=FREE)
    expired = result.trades[result.trades["kind"] == "expiry"]
    np.testing.assert_allclose(expired["strike"], [50.0, 50.0])
    np.testing.assert_allclose(expired["price"], [0.0, 1.5])
    assert_conserves_capital(result)


# What happens to histories


@pytest.mark.parametrize("ratio", [2.0, 4.0, 0.1])
def test_a_split_that_is_not_stated_is_refused_with_the_statement_to_make(ratio):
    """Or the old contracts would be worth the difference between two units."""
    history = path_history()
    day = history.dates[8]

    def in_new_shares(date, table):
        scaled = ["bid", "ask", "strike", "underlying_price"]
        if date < day:
            return table
        return table.assign(**(table[scaled] / ratio))

    prices = history.underlying_prices
    silent = replace(
        history.changed(in_new_shares),
        underlying_prices=prices.where(prices.index < day, prices / ratio),
    )
    free = Costs(fee_per_contract=0.0)
    message = "split, which the history does not state"
    with pytest.raises(BacktestError, match=message) as refused:
        backtest(silent, buy_once, costs=free, capital=CAPITAL)
    remedy = re.search(r"write_splits\((\{.*\})\)", str(refused.value))
    assert remedy is not None
    splits = pd.Series(ast.literal_eval(remedy[1]))
    splits.index = pd.DatetimeIndex(splits.index)
    told = backtest(
        replace(silent, splits=splits), buy_once, costs=free, capital=CAPITAL
    )
    whole = backtest(history, buy_once, costs=free, capital=CAPITAL)
    np.testing.assert_allclose(told.equity, whole.equity, rtol=0, atol=1e-7)
    none = replace(silent, splits=0.0 * splits + 1.0)
    backtest(none, buy_once, costs=free, capital=CAPITAL)


@pytest.mark.parametrize("hedge", [None, HEDGE])
def test_a_split_changes_no_value(hedge):
    """The same world in new shares: equity is as without the split, to rounding."""
    history = path_history()
    day = history.dates[8]

    def halved(date, table):
        if date < day:
            return table
        table = table.copy()
        table[["bid", "ask", "strike", "underlying_price"]] /= 2.0
        return table

    prices = history.underlying_prices
    split = replace(
        history.changed(halved),
        underlying_prices=prices.where(prices.index < day, prices / 2.0),
        splits=pd.Series([2.0], pd.DatetimeIndex([day])),
    )
    terms: dict[str, Any] = {
        "costs": Costs(fee_per_contract=0.0),
        "capital": CAPITAL,
        "hedge": hedge,
    }
    whole = backtest(history, buy_once, **terms)
    parts = backtest(split, buy_once, **terms)
    np.testing.assert_allclose(parts.equity, whole.equity, rtol=0, atol=1e-7)
    np.testing.assert_allclose(parts.attribution, whole.attribution, rtol=0, atol=1e-7)
    assert parts.events["kind"].tolist() == ["split"]
    zoned = replace(
        split,
        splits=split.splits.tz_localize("America/New_York"),
        underlying_prices=split.underlying_prices.tz_localize("UTC"),
    )
    pd.testing.assert_series_equal(
        backtest(zoned, buy_once, **terms).equity, parts.equity
    )
    held = parts.positions[parts.positions["date"] == day]
    assert held["strike"].tolist()[:2] == [50.0, 47.5]
    assert held["quantity"].tolist()[:2] == [4.0, -2.0]
    assert_conserves_capital(parts)


def test_a_gap_is_reported_and_positions_are_carried():
    history = path_history()
    gap = history.dates[5]
    whole = backtest(history, buy_once, capital=CAPITAL)
    holed = backtest(history.without(gap), buy_once, capital=CAPITAL)
    assert holed.events["kind"].tolist() == ["missing_day"]
    np.testing.assert_allclose(holed.equity, whole.equity.drop(gap), rtol=0, atol=1e-9)
    assert_conserves_capital(holed)


def test_an_expiry_on_a_missing_date_is_settled_at_the_price_of_that_date():
    history = path_history()
    gap = pd.Timestamp("2025-01-24")
    whole = backtest(history, buy_once, capital=CAPITAL)
    holed = backtest(history.without(gap), buy_once, capital=CAPITAL)
    assert holed.events["kind"].tolist() == ["missing_day", "settled_late"]
    assert holed.equity.iloc[-1] == pytest.approx(whole.equity.iloc[-1], abs=1e-9)
    unknown = replace(
        history.without(gap), underlying_prices=history.underlying_prices.drop(gap)
    )
    guessed = backtest(unknown, buy_once, capital=CAPITAL)
    assert "settlement_price" in guessed.events["kind"].tolist()
    settled = guessed.trades[guessed.trades["kind"] == "expiry"]
    before = history.underlying_prices[pd.Timestamp("2025-01-23")]
    np.testing.assert_allclose(settled["price"].iloc[0], max(before - 100.0, 0.0))


def test_a_delisted_strike_is_marked_at_its_last_volatility():
    """In a world of one volatility that is its price; the event comes once."""
    history = quiet_history()
    gone = history.dates[3]

    def delisted(date, table):
        return table if date < gone else table[table["strike"] != 100.0]

    whole = backtest(history, buy_once, capital=CAPITAL)
    result = backtest(history.changed(delisted), buy_once, capital=CAPITAL)
    assert result.events["kind"].tolist() == ["not_quoted"]
    assert result.events["date"].tolist() == [gone]
    assert "the nearest are 95 and 105" in result.events["reason"][0]
    np.testing.assert_allclose(result.equity, whole.equity, rtol=0, atol=0.02)
    assert result.equity.iloc[-1] == pytest.approx(whole.equity.iloc[-1], abs=1e-9)


def test_a_delisted_expiry_is_still_marked_and_settled():
    history = quiet_history()
    gone = history.dates[3]

    def delisted(date, table):
        first = table["expiry"] == pd.Timestamp(EXPIRIES[0])
        return table if date < gone else table[~first]

    whole = backtest(history, buy_once, capital=CAPITAL)
    result = backtest(history.changed(delisted), buy_once, capital=CAPITAL)
    assert set(result.events["kind"]) == {"not_quoted", "no_forward"}
    np.testing.assert_allclose(result.equity, whole.equity, rtol=0, atol=0.05)
    assert result.equity.iloc[-1] == pytest.approx(whole.equity.iloc[-1], abs=1e-9)


def test_a_quote_that_cannot_be_used_is_named_so():
    history = path_history()
    bad = history.dates[3]

    def crossed(date, table):
        table = table.copy()
        if date == bad:
            table.loc[table["strike"] == 100.0, "bid"] = 50.0
        return table

    result = backtest(history.changed(crossed), buy_once)
    assert result.events["reason"][0].startswith("its row cannot be used")


def test_an_unreadable_date_is_left_out_with_its_reason():
    history = path_history()
    bad = history.dates[4]

    def emptied(date, table):
        return table.iloc[:0] if date == bad else table

    result = backtest(history.changed(emptied), buy_once)
    assert result.events["kind"].tolist() == ["unreadable_day"]
    assert bad not in result.equity.index
    nothing = history.changed(lambda date, table: table.iloc[:0])
    with pytest.raises(BacktestError, match="no date of the history can be read"):
        backtest(nothing, buy_once)


@pytest.mark.parametrize("quantity", [1.0, -1.0])
def test_early_exercise_is_flagged(quantity):
    """A deep put under a high rate: intrinsic value exceeds the European price."""
    history = black_scholes_history(
        [100.0] * 4, EXPIRIES, rate=0.2, style="american", half_spread=0.02
    )

    def deep(view):
        if view.has_traded:
            return None
        return view.put("2025-03-21", 120.0, quantity)

    result = backtest(history, deep)
    assert result.events["kind"].tolist() == ["early_exercise"]
    who = "exercise pays more" if quantity > 0.0 else "expect assignment"
    assert who in result.events["reason"][0]
    european = black_scholes_history([100.0] * 4, EXPIRIES, rate=0.2)
    assert not len(backtest(european, deep).events)


@pytest.mark.parametrize("multiplier", [1, 10, 250, np.nan])
@pytest.mark.parametrize("how", ["close", "target"])
def test_a_contract_stays_one_whatever_its_multiplier(how, multiplier):
    """Its units are kept: profits are as if the chains had always said the same."""
    history = path_history()
    day = history.dates[5]

    def other(date, table):
        return table if date < day else table.assign(multiplier=multiplier)

    def trade(view):
        if view.date == history.dates[0]:
            return buy_once(view)
        if view.date == history.dates[7]:
            return view.close() if how == "close" else Target()
        return None

    terms: dict[str, Any] = {
        "costs": Costs(fee_per_contract=0.0),
        "capital": CAPITAL,
        "hedge": HEDGE,
    }
    same = backtest(history, trade, **terms)
    result = backtest(history.changed(other), trade, **terms)
    assert_conserves_capital(result)
    np.testing.assert_allclose(result.equity, same.equity, rtol=0, atol=1e-9)
    assert not (result.positions["date"] >= history.dates[7]).any()
    held = result.positions[result.positions["date"] == day]
    restated = 100.0 if np.isnan(multiplier) else multiplier
    assert held["quantity"].tolist()[:2] == [200.0 / restated, -100.0 / restated]
    changed = result.events[result.events["kind"] == "contract_changed"]
    if np.isnan(multiplier):  # unknown is not another
        assert not len(changed)
    else:
        assert changed["date"].tolist() == [day]
        assert f"multiplier {multiplier} where it was 100" in changed["reason"].iloc[0]


@pytest.mark.parametrize("hours", [-3, 3])
def test_a_contract_stays_one_whatever_its_expiry_time(hours):
    """Closed under the new time; held, it is settled once."""
    history = path_history()
    day = history.dates[5]

    def stated(date, table):
        clock = table["expiry"] + pd.Timedelta(hours=15 if date < day else 15 + hours)
        return table.assign(expiry_time=clock.dt.tz_localize("America/New_York"))

    def trade(view):
        if view.date == history.dates[7]:
            return view.close()
        return buy_once(view)

    moved = history.changed(stated)
    closed = backtest(moved, trade, capital=CAPITAL, end=history.dates[10])
    assert not (closed.positions["date"] >= history.dates[7]).any()
    assert closed.events["kind"].tolist() == ["contract_changed"]
    assert "rather than" in closed.events["reason"][0]
    assert_conserves_capital(closed)
    held = backtest(moved, buy_once, capital=CAPITAL)
    assert held.trades["kind"].tolist() == ["order", "order", "expiry", "expiry"]
    assert_conserves_capital(held)


def test_coins_and_dates_without_quotes_can_be_traded_on():
    """Settled at 08:00 UTC; a slice without a price is not there to trade in."""
    history = settled_history("PM").changed(
        lambda date, table: table.assign(settlement="08:00 UTC")
    )

    def hold(view):
        return None if view.has_traded else view.call("2025-02-23", 100.0)

    result = backtest(history, hold, end="2025-01-23")
    assert result.trades["settlement"].tolist() == ["08:00 UTC"]
    first = path_history().dates[0]

    def unpriced(date, table):
        expiry = pd.Timestamp(EXPIRIES[0]) if date == first else None
        gone = table["expiry"] == expiry if date == first else table["strike"] > 0.0
        columns = ["bid", "ask"]
        table = table.assign(implied_volatility=0.2)
        table.loc[gone, columns] = np.nan
        return table

    seen = []

    def look(view):
        seen.append(view.expiries.index.tolist())

    result = backtest(path_history().changed(unpriced), look, end="2025-01-08")
    assert seen == [["2025-02-14 PM", "2025-03-21 PM"]]
    assert result.events["kind"].tolist() == ["unreadable_day"] * 2


def test_two_quotes_of_one_contract_are_the_tighter():
    def duplicated(date, table):
        wide = table.copy()
        wide["bid"], wide["ask"] = 0.5 * wide["bid"], 2.0 * wide["ask"]
        return pd.concat([wide, table], ignore_index=True)

    first = backtest(path_history(), buy_once)
    second = backtest(path_history().changed(duplicated), buy_once)
    pd.testing.assert_series_equal(first.trades["price"], second.trades["price"])


# What strategies get wrong


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            lambda view: view.call(EXPIRIES[0], 100.0, np.nan),
            "1 of 1 legs that are not finite",
        ),
        (lambda view: view.underlying(np.nan), "forwards nan"),
        (lambda view: 1.0 / 0.0, "the strategy raised ZeroDivisionError"),
        (lambda view: 17, "17 is no order"),
        (lambda view: ["buy"], "'buy' is no order"),
        (lambda view: ro.decompose(ro.payoffs.call(100.0)), "has no expiry"),
        (lambda view: Target(underlying=np.inf), "underlying inf"),
        (lambda view: Target(underlying="x"), "underlying 'x'"),  # type: ignore[arg-type]
        (lambda view: Target(view.call(EXPIRIES[0], 100.0)), "tuple of Strike"),  # type: ignore[arg-type]
        (lambda view: (1 // 0 for _ in "x"), "raised ZeroDivisionError"),
        (
            lambda view: replace(
                view.call(EXPIRIES[0], 100.0), quantities=np.array(["many"])
            ),
            "no numbers",
        ),
        (
            lambda view: replace(view.call(EXPIRIES[0], 100.0), expiry="soon"),
            "'soon' is no label of an expiry",
        ),
        (lambda view: view.strike(EXPIRIES[0], moneyness=np.nan), "moneyness must be"),
        (lambda view: view.expiry(days=np.nan), "days and least must be finite"),
    ],
)
def test_an_answer_that_is_no_order_is_an_error(answer, message):
    with pytest.raises(BacktestError, match=message) as caught:
        backtest(path_history(), answer)
    assert str(caught.value).startswith("2025-01-06, ")


@pytest.mark.parametrize(
    ("order", "what", "reason"),
    [
        (
            lambda view: view.call(EXPIRIES[0], 101.0),
            "call 101",
            "the nearest are 100 and 105",
        ),
        (
            lambda view: view.order(EXPIRIES[0], [100.0, 101.0], True, [1.0, 1.0]),
            "call 101",
            "the 1 other legs of the order were left too",
        ),
        (
            lambda view: view.call(EXPIRIES[0], 120.0, -1.0),
            "call 120",
            "no bid to sell at",
        ),
        (
            lambda view: replace(view.call(EXPIRIES[0], 100.0), expiry="2025-01-31"),
            "2025-01-31",
            "the expiry is not in the chain",
        ),
    ],
)
def test_an_order_that_cannot_be_filled_is_an_event(order, what, reason):
    """None of its legs is traded, and nothing else changes."""

    def once(view):
        return None if view.date > path_history().dates[0] else order(view)

    result = backtest(path_history(), once, end="2025-01-08")
    assert not len(result.trades)
    assert result.events["kind"].tolist() == ["rejected"]
    assert what in result.events["what"][0]
    assert reason in result.events["reason"][0]


def test_two_settlements_of_one_date_have_to_be_told_apart():
    first, second = (settled_history(one) for one in ("AM", "PM"))
    both = first.changed(lambda date, table: pd.concat([table, second.tables[date]]))

    def order_of(label):
        return ro.StrikePortfolio(
            0.0, 0.0, np.array([100.0]), np.array([True]), np.ones(1), expiry=label
        )

    with pytest.raises(BacktestError, match="'2025-01-24 AM' or '2025-01-24 PM'"):
        backtest(both, lambda view: order_of("2025-01-24"))
    result = backtest(both, lambda view: order_of("2025-01-24 PM"), end="2025-01-22")
    assert result.trades["settlement"].tolist() == ["PM"]


@pytest.mark.parametrize(
    ("bid", "reason"),
    [
        (1.0, "strike not listed; the nearest are 90 and 100"),
        (99.0, "its row cannot be used"),  # crossed
    ],
)
def test_a_strike_of_the_other_settlement_is_not_that_of_the_contract(bid, reason):
    """95 is listed as PM alone, or as AM also, with a row that cannot be used."""
    first, second = (settled_history(one) for one in ("AM", "PM"))

    def both(date, table):
        only = pd.concat([table, second.tables[date]], ignore_index=True)
        am = (only["strike"] == 95.0) & (only["settlement"] == "AM")
        only.loc[am, "bid"] = bid
        return only if bid > 50.0 else only[~am]

    day = Day(first.changed(both)[first.dates[0]], first.dates[0], 100.0, None)
    contract = Contract(*day.slices[0], 95.0, True, 100.0, first.dates[-1])
    assert contract.settlement == "AM"
    assert day.why_unquoted(contract).startswith(reason)


def test_rows_without_an_expiry_time_are_not_traded():
    history = settled_history("PM")
    date = history.dates[0]
    chain = history[date]
    for slices in (1, 0):
        timeless = chain.rows["expiry"].isin([one for one, _ in chain.slices[slices:]])
        rows = chain.rows.copy()
        rows.loc[timeless, "expiry_time"] = pd.NaT
        other = replace(chain, rows=rows)
        if slices:
            assert Day(other, date, 100.0, None).slices == tuple(chain.slices[:1])
            continue
        with pytest.raises(ro.QuoteError, match="no row has an expiry time"):
            Day(other, date, 100.0, None)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"capital": -1.0}, "capital must not be negative"),
        ({"marks": "last"}, "marks must be"),
        ({"rate": 5.0}, "0.05 meaning 5 %"),
        ({"settlement": pd.DataFrame({"expiry": [1]})}, "missing"),
    ],
)
def test_terms_out_of_range_are_refused(terms, message):
    with pytest.raises(ValueError, match=message):
        backtest(path_history(), idle, **terms)


def test_other_requests_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="spread_fraction"):
        Costs(spread_fraction=-0.5)
    with pytest.raises(ValueError, match="every"):
        DeltaHedge(every=0)
    with pytest.raises(ValueError, match="delta must be"):
        DeltaHedge(delta="vega")  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="function of the view"):
        backtest(path_history(), "buy")  # pyright: ignore[reportArgumentType]
    with pytest.raises(BacktestError, match="no dates from 2026-01-01"):
        backtest(path_history(), idle, start="2026-01-01")
    with pytest.raises(TypeError, match="costs must be a Costs"):
        Setup(idle, costs=0.5)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="every strategy is a `Setup`"):
        sweep(path_history(), {"idle": Setup(idle)}, costs=FREE)
    with ThreadPoolExecutor(1) as pool, pytest.raises(ValueError, match="not both"):
        sweep(path_history(), {"idle": idle}, executor=pool, n_jobs=2)
    with pytest.raises(ValueError, match="no strategies"):
        sweep(path_history(), {})
    with pytest.raises(ValueError, match="n_jobs"):
        sweep(path_history(), {"idle": idle}, n_jobs=0)
    with pytest.raises(ValueError, match="kind must be one of"):
        backtest(path_history(), idle, end="2025-01-07").plot("fees")


# Fills, costs, marks


@pytest.mark.parametrize("fraction", [0.0, 0.4, 1.0])
def test_fills_are_a_fraction_of_the_spread_from_mid(fraction):
    costs = Costs(spread_fraction=fraction, fee_per_contract=0.5, underlying_bps=2.0)

    def once(view):
        if view.has_traded:
            return None
        return [
            view.order("2025-02-14", 100.0, [True, False], [3.0, -2.0]),
            view.underlying(-50.0),
        ]

    result = backtest(path_history(), once, costs=costs)
    trades = result.trades[result.trades["kind"] == "order"]
    mid = trades["mark"]
    np.testing.assert_allclose(
        trades["price"] - mid, [0.1 * fraction, -0.1 * fraction, -0.02], atol=1e-12
    )
    np.testing.assert_allclose(trades["spread"], [30 * fraction, 20 * fraction, 1.0])
    np.testing.assert_allclose(trades["fee"], [1.5, 1.0, 0.0])


def test_a_portfolio_is_traded_in_units_whatever_its_multiplier():
    """One contract of 100 units is 100 contracts of one."""

    def once(view):
        if view.has_traded:
            return None
        order = view.call(EXPIRIES[1], 100.0)
        units = replace(order, multiplier=1.0, quantities=np.array([100.0]))
        return [order, units]

    trades = backtest(path_history(), once, end="2025-01-07").trades
    assert trades["quantity"].tolist() == [1.0, 1.0]
    assert trades["amount"].nunique() == 1


@pytest.mark.parametrize("marks", ["mid", "surface"])
def test_forwards_of_an_order_settle_with_its_expiry(marks):
    """They cost the discounted forward, and pay the underlying, as options do."""
    surfaces = surfaces_of_path() if marks == "surface" else None

    def once(view):
        if view.has_traded:
            return None
        empty = np.zeros(0)
        return ro.StrikePortfolio(
            5.0, 30.0, empty, empty > 0, empty, expiry=EXPIRIES[0]
        )

    history = quiet_history()
    costs = Costs(underlying_bps=2.0)
    result = backtest(history, once, costs=costs, surfaces=surfaces, capital=CAPITAL)
    bought, paid = result.trades["price"]
    spot = history.underlying_prices
    assert bought == pytest.approx(spot.iloc[0] * 1.0002, rel=1e-4)
    assert paid == spot[EXPIRIES[0]]
    assert result.trades["option_type"].tolist() == ["forward", "forward"]
    profit = 30.0 * (paid - bought)
    assert result.profit.iloc[-1] == pytest.approx(profit, abs=1e-9)
    assert result.greeks["delta"].iloc[0] == pytest.approx(30.0, rel=1e-4)
    hedged = backtest(
        history,
        once,
        surfaces=surfaces,
        hedge=DeltaHedge(delta="curve" if surfaces else "black_scholes"),
    )
    assert np.abs(hedged.greeks["delta"]).max() < 1e-9
    assert_conserves_capital(result)


def test_marks_on_the_surface_are_its_prices():
    """True surfaces give Black-Scholes prices, whatever the quotes are."""
    history = path_history()
    result = backtest(history, buy_once, surfaces=surfaces_of_path(), costs=FREE)
    held = result.positions
    spot = history.underlying_prices[held["date"]].to_numpy()
    years = (held["expiry"] - held["date"]).dt.days.to_numpy() / 365.0
    price = black_scholes_price(
        spot, held["strike"], years, 0.2, 0.03, held["option_type"] == "call"
    )
    np.testing.assert_allclose(held["price"], price, rtol=0, atol=1e-9)
    np.testing.assert_allclose(held["volatility"], 0.2, rtol=1e-6)


def test_a_date_without_a_surface_is_marked_at_mid():
    surfaces = dict(surfaces_of_path())
    date = path_history().dates[2]
    del surfaces[date]
    result = backtest(path_history(), buy_once, surfaces=surfaces)
    assert result.events["kind"].tolist() == ["no_surface"]
    mids = backtest(path_history(), buy_once)
    day = result.positions["date"] == date
    np.testing.assert_array_equal(
        result.positions["price"][day], mids.positions["price"][day]
    )


def test_the_curve_of_an_expiry_is_that_of_the_surface():
    kinks = np.array([0.8, 0.9, 1.0, 1.1, 1.2])
    weights = np.array([[0.1, 0.2, 0.4, 0.2, 0.1], [0.2, 0.2, 0.2, 0.2, 0.2]])
    surface = ro.PriceSurface(
        kinks,
        weights,
        np.full(5, 0.05),
        *np.array([[0.1, 0.2], [100.0, 101.0], [0.99, 0.98]]),
    )
    strikes = np.array([80.0, 95.0, 103.0])
    for years in (0.1, 0.2, 0.15):
        curve = curve_of(surface, years)
        np.testing.assert_allclose(
            curve.price(strikes), surface.price(strikes, years), rtol=1e-13
        )
        np.testing.assert_allclose(
            curve.delta(strikes), surface.delta(strikes, years), rtol=1e-13
        )


def test_a_date_closes_what_its_label_does():
    def trade(view):
        if view.date == path_history().dates[1]:
            return view.close(EXPIRIES[0])
        return buy_once(view)

    result = backtest(path_history(), trade, end="2025-01-08")
    assert result.trades["quantity"].tolist() == [2.0, -1.0, -2.0, 1.0]


def test_a_target_is_reached_and_left():
    dates = path_history().dates

    def switch(view):
        if view.date == dates[0]:
            return Target((view.call(EXPIRIES[1], [95.0, 100.0], [2.0, -1.0]),))
        if view.date == dates[1]:
            wanted = (
                view.call(EXPIRIES[1], 100.0, 1.0),
                view.put(EXPIRIES[2], 90.0, 3.0),
            )
            return Target(wanted, underlying=40.0)
        if view.date == dates[2]:
            return Target(underlying=0.0)
        return None

    result = backtest(path_history(), switch)
    by_date = result.trades.groupby("date")["quantity"].apply(list)
    assert by_date[dates[0]] == [2.0, -1.0]
    assert sorted(by_date[dates[1]]) == [-2.0, 2.0, 3.0, 40.0]
    assert sorted(by_date[dates[2]]) == [-40.0, -3.0, -1.0]
    assert not (result.positions["date"] > dates[1]).any()
    assert_conserves_capital(result)


def test_a_claim_is_settled_like_the_options_that_it_is():
    """Sold over the counter and bought as listed options, at mid: nothing is left."""

    def both(view):
        if view.has_options:
            return None
        expiry = view.expiry(days=18)
        butterfly = ro.decompose(ro.payoffs.butterfly(95.0, 100.0, 110.0))
        sold = replace(butterfly, quantities=-butterfly.quantities, expiry=expiry)
        return [Claim(sold), replace(butterfly, expiry=expiry)]

    result = backtest(
        path_history(), both, surfaces=surfaces_of_path(), costs=FREE, capital=CAPITAL
    )
    bought = result.trades["spread"].cumsum()
    assert (result.trades["kind"] == "claim").any()
    assert (~result.positions["listed"]).any()
    paid = bought.iloc[-1]  # quotes are clipped at zero, so mids differ from prices
    np.testing.assert_allclose(result.equity.iloc[-1], CAPITAL - paid, atol=1e-9)
    assert_conserves_capital(result)


# Hedging, attribution


def test_greeks_are_those_of_the_formula():
    result = backtest(path_history(), buy_once, surfaces=surfaces_of_path())
    held = result.positions[result.positions["date"] == result.equity.index[0]]
    greeks = ro.black_scholes.greeks(
        spot=100.0,
        rate=0.03,
        strike=held["strike"].to_numpy(),
        time_to_expiry=18.0 / 365.0,
        volatility=0.2,
        is_call=(held["option_type"] == "call").to_numpy(),
    )
    units = 100.0 * held["quantity"].to_numpy()
    for name in ("delta", "gamma", "vega", "theta"):
        expected = units @ getattr(greeks, name)
        assert result.greeks[name].iloc[0] == pytest.approx(expected, rel=1e-6)


def test_small_moves_are_explained_by_the_greeks():
    """The residual is a fiftieth of what delta, gamma, vega and theta explain."""
    spots = 100.0 * np.exp(0.002 * np.sin(np.arange(12.0)))
    history = black_scholes_history(spots, EXPIRIES, rate=0.03)
    moved = history.changed(
        lambda date, table: black_scholes_table(
            date,
            history.underlying_prices[date],
            [pd.Timestamp(one) for one in EXPIRIES],
            np.arange(80.0, 121.0, 5.0),
            rate=0.03,
            volatility=0.2 + 0.0002 * date.day,
        )
    )
    result = backtest(moved, straddle(10.0, days=70), costs=FREE)
    explained = (
        result.attribution[["delta", "gamma", "vega", "theta"]].abs().sum(axis=1)
    )
    residual = result.attribution["residual"].abs()
    assert (residual <= 0.02 * explained).all()
    assert result.attribution["vega"].sum() > 0.0
    assert result.attribution["theta"].sum() < 0.0


@pytest.mark.parametrize("delta", ["curve", "black_scholes"])
def test_a_hedge_leaves_no_delta(delta):
    result = backtest(
        path_history(),
        straddle(days=40),
        surfaces=surfaces_of_path(),
        hedge=DeltaHedge(delta=delta),
    )
    assert np.abs(result.greeks["delta"]).max() < 1e-6
    assert (result.trades["kind"] == "hedge").sum() > 20


def test_a_hedge_keeps_to_its_band_and_schedule():
    banded = backtest(
        path_history(),
        straddle(days=40),
        hedge=DeltaHedge(band=30.0, delta="black_scholes"),
    )
    assert np.abs(banded.greeks["delta"]).max() <= 30.0
    assert 0 < (banded.trades["kind"] == "hedge").sum() < 20
    weekly = backtest(
        path_history(),
        straddle(days=40),
        hedge=DeltaHedge(every=5, delta="black_scholes"),
    )
    days = weekly.trades["date"][weekly.trades["kind"] == "hedge"]
    assert set(days) <= set(path_history().dates[::5])


def test_delta_hedging_converges_to_the_price():
    """Of a sold option, in a Black-Scholes world without costs.

    Hedged on every date its profit scatters by a fraction of what it does unhedged, and
    by less than hedged every fifth date; on average it is nearly zero: the premium is
    what the hedge costs.
    """
    rng = np.random.default_rng(11)
    expiries = ("2025-01-31", "2025-06-20")
    strikes = np.array([80.0, 90.0, 100.0, 110.0, 120.0])
    option = HoldToExpiry((Leg(-1.0, True, moneyness=1.0),), days=25, renew=False)
    setups = {
        "unhedged": Setup(option, costs=FREE),
        "weekly": Setup(
            option, costs=FREE, hedge=DeltaHedge(every=5, delta="black_scholes")
        ),
        "daily": Setup(option, costs=FREE, hedge=HEDGE),
    }
    profits = {name: [] for name in setups}
    for _ in range(10):
        spots = lognormal_path(rng, 20, volatility=0.2)
        history = black_scholes_history(spots, expiries, strikes=strikes)
        for name, result in sweep(history, setups).items():
            profits[name].append(result.profit.iloc[-1])
    scatter = {name: np.std(values) for name, values in profits.items()}
    premium = 100.0 * black_scholes_price(100.0, 100.0, 25.0 / 365.0, 0.2, 0.0, True)
    assert scatter["daily"] < scatter["weekly"] < scatter["unhedged"]
    # Kamal and Derman: the deviation is sqrt(pi / 4 n) of the premium, with n hedges.
    assert scatter["daily"] < 2.0 * np.sqrt(0.25 * np.pi / 20.0) * premium
    assert abs(np.mean(profits["daily"])) < 0.1 * premium


def test_the_summary_prints_as_a_report():
    result = backtest(path_history(), short_strangle(days=20), hedge=HEDGE)
    summary = result.summary()
    lines = dict(line.split(maxsplit=1) for line in repr(summary).splitlines())
    assert lines["start"].strip() == "2025-01-06"
    assert lines["trades"].strip() == str(summary["trades"])
    assert summary["profit"] == pytest.approx(result.attribution.to_numpy().sum())
    returns = result.equity.pct_change().dropna()
    np.testing.assert_allclose(result.returns.iloc[1:], returns)
    days = (result.equity.index[-1] - result.equity.index[0]).days
    per_year = 29.0 / (days / 365.25)
    assert summary["volatility"] == pytest.approx(returns.std() * per_year**0.5)
    assert "BacktestResult" in repr(result)
    assert {"cash", "delta", "pnl_gamma"} <= set(result.to_frame())
    assert set(EVENTS) >= set(result.events["kind"])


@pytest.mark.parametrize("kind", ["equity", "attribution", "greeks", "positions"])
def test_results_can_be_drawn(kind):
    result = backtest(path_history(), short_strangle(days=20), hedge=HEDGE)
    axes = result.plot(kind)
    assert len(axes.lines) >= 1
    assert axes.get_ylabel()


def test_what_has_happened_is_in_the_picture():
    """All that is not of every day: restated contracts, days that could not be read."""
    history = path_history()
    tables = dict(history.tables)
    for day in history.dates[5:]:
        tables[day] = tables[day].assign(multiplier=10)
    tables[history.dates[8]] = tables[history.dates[8]].iloc[:0]
    result = backtest(replace(history, tables=tables), buy_once, capital=CAPITAL)
    labels = result.plot("equity").get_legend_handles_labels()[1]
    assert {"contract changed", "unreadable day"} <= set(labels)
    assert set(UNMARKED) < set(EVENTS)

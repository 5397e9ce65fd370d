"""Each expiry pays its value once, the last of a history too, whatever is missing."""

from dataclasses import replace

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
from test_backtest import assert_conserves_capital

import relu_options as ro
from relu_options.backtest import (
    Costs,
    DeltaHedge,
    Settlement,
    Setup,
    backtest,
    sweep,
)
from relu_options.backtest.strategies import short_strangle, straddle
from relu_options.errors import BacktestError
from relu_options.market_data.clocks import expiry_time, years_between

FEE = 0.65
OPTIONS = ["expiry", "root", "kind", "strike"]


def index_quotes(rng, days=22) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A month of an index like the S&P 500: SPX settles AM, SPXW PM, to the last day.

    Returns the table that a vendor would deliver, and settlement prices.
    """
    dates = pd.bdate_range("2025-01-20", periods=days)
    spots = np.round(lognormal_path(rng, days, spot=6000.0), 2)
    fridays = dates[dates.day_of_week == 4]
    contracts = [("SPXW", day) for day in dates[-1:].union(fridays)]
    third = pd.Timestamp("2025-02-21")
    contracts += [("SPX", third)]
    rows = []
    for date, spot in zip(dates, spots, strict=True):
        now = (date + pd.Timedelta(hours=16, minutes=15)).tz_localize(
            "America/New_York"
        )
        for root, expiry in contracts:
            if expiry < date:
                continue
            ends = expiry_time(expiry, "AM" if root == "SPX" else "PM")
            years = max(years_between(now.tz_convert("UTC"), ends), 0.0)
            strikes = np.arange(5700.0, 6301.0, 50.0)
            for kind in ("C", "P"):
                sign = 1.0 if kind == "C" else -1.0
                price = np.maximum(sign * (spot - strikes), 0.0)
                if years > 0.0:
                    price = black_scholes_price(
                        spot, strikes, years, 0.18, 0.0, kind == "C"
                    )
                tick = 0.05 * rng.integers(1, 12, len(strikes))
                rows.append(
                    pd.DataFrame(
                        {
                            "quote_datetime": now.tz_localize(None),
                            "option_symbol": [
                                f"{root}{expiry:%y%m%d}{kind}{1000 * int(one):08d}"
                                for one in strikes
                            ],
                            "bid": np.maximum(np.round(price - tick, 2), 0.0),
                            "ask": np.round(price + tick, 2),
                            "underlying_price": spot,
                        }
                    )
                )
    openings = pd.DataFrame(
        {"expiry": [third], "settlement": ["AM"], "price": [spots[-1] + 12.34]}
    )
    return pd.concat(rows, ignore_index=True), openings


def with_parts(quotes):
    """The table with what its symbols say, by pandas alone."""
    parts = quotes["option_symbol"].str.extract(r"([A-Z]+)(\d{6})([CP])(\d{8})")
    return quotes.assign(
        date=quotes["quote_datetime"].dt.normalize(),
        root=parts[0],
        expiry=pd.to_datetime(parts[1], format="%y%m%d"),
        kind=parts[2],
        strike=parts[3].astype(int) / 1000,
    )


def live(quotes):
    """What can be traded: it has not expired at 16:15."""
    return quotes[quotes["date"] < quotes["expiry"]]


def buy_every_day(view):
    """Two calls and one put at the money, of each expiry."""
    orders = []
    for label in view.expiries.index:
        strikes = view.strikes(label)
        strike = float(strikes[np.argmin(np.abs(strikes - view.spot))])
        orders.append(view.call(label, strike, 2.0))
        orders.append(view.put(label, strike, 1.0))
    return orders


def profit_in_pandas(quotes, openings):
    """Premiums at the ask, payoffs, and fees, of contracts on 100 units."""
    table = with_parts(quotes)
    spot = table.groupby("date")["underlying_price"].first()
    bought = live(table).copy()
    distance = (bought["strike"] - bought["underlying_price"]).abs()
    nearest = distance.groupby([bought["date"], bought["root"], bought["expiry"]])
    bought = bought[distance == nearest.transform("min")]
    bought["quantity"] = bought["kind"].map({"C": 2.0, "P": 1.0})
    settled = bought["expiry"].map(spot)
    opening = bought["expiry"].map(openings.set_index("expiry")["price"])
    settled = settled.where(bought["root"] == "SPXW", opening)
    sign = bought["kind"].map({"C": 1.0, "P": -1.0})
    payoff = (sign * (settled - bought["strike"])).clip(lower=0.0)
    by_row = bought["quantity"] * (100.0 * (payoff - bought["ask"]) - FEE)
    return by_row.sum(), bought["quantity"].sum()


@pytest.mark.parametrize("file_format", ["csv", "parquet"])
def test_options_held_through_the_last_expiry_are_what_pandas_computes(
    rng, file_format, tmp_path
):
    quotes, openings = index_quotes(rng, days=25)
    assert quotes["quote_datetime"].max().normalize() == pd.Timestamp("2025-02-21")
    quotes.to_csv(tmp_path / "quotes.csv", index=False)
    history = ro.ChainHistory(tmp_path / "history", file_format=file_format)
    for chain in ro.read_chains(tmp_path / "quotes.csv"):
        history.append(chain)
    history.write_settlement_prices(openings)
    assert len(history) == 25
    last = history[history.dates[-1]]
    assert last.slices == []  # both roots have expired by 16:15
    assert set(history.to_frame()["multiplier"]) == {100.0}
    result = backtest(history, buy_every_day, costs=Costs(fee_per_contract=FEE))
    profit, contracts = profit_in_pandas(quotes, openings)
    assert abs(result.profit.iloc[-1] - profit) <= 1e-9 * result.capital
    np.testing.assert_allclose(result.profit.iloc[-1], profit, rtol=1e-9)
    np.testing.assert_allclose(result.trades["fee"].sum(), FEE * contracts)
    assert not len(result.positions[result.positions["date"] == history.dates[-1]])
    assert set(result.events["kind"]) == {"all_expired"}
    assert_conserves_capital(result, atol=1e-6)


def hold(view):
    """A call of the first expiry and a put of the last, from the first date on."""
    if view.has_traded:
        return None
    first, last = view.expiries.index[[0, -1]]
    return [view.call(first, 95.0, 3.0), view.put(last, 105.0, 2.0)]


def ending_history(**terms):
    """Four dates; the expiries are those of the second and the last."""
    dates = pd.bdate_range("2025-01-06", periods=4)
    spots = [100.0, 101.0, 103.0, 104.0]
    return black_scholes_history(
        spots, [dates[1], dates[3]], expired=True, **terms
    ), dates


def paid(result, date):
    """What expired options paid per unit on a date."""
    trades = result.trades
    expired = trades[(trades["kind"] == "expiry") & (trades["date"] == date)]
    return expired["price"].tolist()


def kinds(result):
    return result.events["kind"].tolist()


def test_a_history_that_ends_on_an_expiry_settles_it():
    history, dates = ending_history()
    result = backtest(history, hold)
    assert paid(result, dates[1]) == [6.0]
    assert paid(result, dates[3]) == [1.0]
    assert result.daily["options_value"].iloc[-1] == 0.0
    assert kinds(result) == ["all_expired"]
    assert_conserves_capital(result)


def test_an_expired_chain_without_a_price_settles_at_the_last():
    """Neither the chain nor the history has one: the close before, with two events."""
    history, dates = ending_history()
    bare = history.tables[dates[3]].drop(columns="underlying_price")
    history = replace(
        history,
        tables={**history.tables, dates[3]: bare},
        underlying_prices=history.underlying_prices.iloc[:3],
    )
    result = backtest(history, hold)
    assert paid(result, dates[3]) == [2.0]
    assert set(kinds(result)) == {"all_expired", "no_price", "settlement_price"}
    assert "103 of 2025-01-08" in result.events["reason"].str.cat(sep=" ")
    assert result.daily["spot"].iloc[-1] == 103.0
    assert_conserves_capital(result)
    with pytest.raises(BacktestError, match="no settlement price for 2025-01-09 PM"):
        backtest(history, hold, settlement=Settlement(on_missing="raise"))
    table = pd.DataFrame({"expiry": [dates[3]], "settlement": ["PM"], "price": [99.0]})
    told = backtest(history, hold, settlement=table)
    assert paid(told, dates[3]) == [6.0]
    assert set(kinds(told)) == {"all_expired", "no_price"}


def test_morning_settlement_without_an_opening_price_is_that_of_the_close_before():
    history, dates = ending_history(settlement="AM")
    result = backtest(history, hold)
    assert paid(result, dates[1]) == [5.0]
    assert paid(result, dates[3]) == [2.0]
    assert kinds(result).count("settlement_price") == 2
    assert_conserves_capital(result)


def test_a_split_on_the_last_day_changes_no_value():
    """Strikes, quotes and the price of that day are per new share."""
    history, dates = ending_history()
    halved = history.tables[dates[3]].copy()
    halved[["strike", "bid", "ask", "underlying_price"]] /= 2.0
    prices = history.underlying_prices.copy()
    prices.iloc[3] /= 2.0
    split = replace(
        history,
        tables={**history.tables, dates[3]: halved},
        underlying_prices=prices,
        splits=pd.Series([2.0], dates[3:]),
    )
    whole, parts = backtest(history, hold), backtest(split, hold)
    assert paid(parts, dates[3]) == [0.5]
    np.testing.assert_allclose(parts.equity, whole.equity, rtol=0, atol=1e-9)
    assert set(kinds(parts)) == {"all_expired", "split"}
    unknown = replace(split, underlying_prices=prices.iloc[:3])
    unknown.tables[dates[3]] = halved.drop(columns="underlying_price")
    carried = backtest(unknown, hold)
    assert carried.daily["spot"].iloc[-1] == 51.5
    assert paid(carried, dates[3]) == [1.0]
    assert_conserves_capital(carried)


def test_an_expiry_on_a_holiday_settles_at_the_close_before():
    """Good Friday has no chain and no price; the last price before is the rule."""
    dates = pd.DatetimeIndex(["2025-04-16", "2025-04-17", "2025-04-21"])
    holiday, later = pd.Timestamp("2025-04-18"), pd.Timestamp("2025-05-16")
    spots = pd.Series([100.0, 97.0, 110.0], dates)
    strikes = np.arange(80.0, 121.0, 5.0)
    tables = {
        date: black_scholes_table(date, spot, [holiday, later], strikes)
        for date, spot in spots.items()
    }
    history = MemoryHistory(tables, spots)
    result = backtest(history, hold)
    assert paid(result, dates[2]) == [2.0]
    assert kinds(result) == ["settlement_price", "settled_late"]
    assert "97 of 2025-04-17" in result.events["reason"][0]
    assert_conserves_capital(result)
    stops = backtest(history, hold, end=dates[1])  # still to come: marked
    assert not paid(stops, dates[1])
    assert "unsettled" not in kinds(stops)
    assert_conserves_capital(stops)


def test_what_expires_on_an_unreadable_last_date_is_said():
    history, dates = ending_history()
    history.tables[dates[3]] = history.tables[dates[3]].iloc[:0]
    result = backtest(history, hold)
    assert kinds(result) == ["unreadable_day", "unsettled"]
    assert result.events["what"].tolist() == ["2025-01-09", "2025-01-09 PM"]
    assert result.daily.index[-1] == dates[2]
    assert_conserves_capital(result)


def test_a_day_on_which_all_expires_is_hedged_and_goes_on():
    """No orders are asked for; what is left of the hedge is sold; the next day trades.

    The last expiry is listed on the first day and again after the second.
    """
    days = pd.bdate_range("2025-01-06", periods=5)
    spots = [100.0, 102.0, 101.0, 99.0, 98.0]
    history = black_scholes_history(
        spots, [days[2], days[4]], half_spread=0.01, expired=True
    )
    for day in days[:3]:
        table = history.tables[day]
        history.tables[day] = table[table["expiry"] == days[2]]
    asked = []

    def write(view):
        asked.append(view.date)
        return None if view.has_options else view.call(view.expiry(days=2), 100.0, -1)

    hedge = DeltaHedge(delta="black_scholes")
    result = backtest(history, write, hedge=hedge, rate="curve")
    assert asked == [days[0], days[1], days[3]]
    assert kinds(result) == ["all_expired", "all_expired"]
    units = result.greeks["delta"].loc[[days[2], days[4]]]
    np.testing.assert_allclose(units, 0.0, atol=1e-12)
    assert (result.trades["kind"] == "expiry").sum() == 2
    assert_conserves_capital(result)


@pytest.mark.parametrize("case", range(12))
def test_equity_is_conserved_whatever_a_history_lacks(case):
    """Seeded histories with holes of every kind; what expired is held no longer."""
    rng = np.random.default_rng([14, case])
    days = pd.bdate_range("2025-01-06", periods=12)
    clock = str(rng.choice(["AM", "PM"]))
    history = black_scholes_history(
        lognormal_path(rng, 12),
        days[[3, 7, 11]],
        settlement=clock,
        rate=0.02,
        expired=True,
    )
    tables, prices = dict(history.tables), history.underlying_prices
    for day in days[1:]:
        hole = rng.choice(["none", "none", "gone", "empty", "priceless", "worthless"])
        if hole == "gone" and day != days[11]:
            del tables[day]
            prices = prices.drop(day)
        elif hole == "empty":
            tables[day] = tables[day].iloc[:0]
        elif hole == "priceless":
            tables[day] = tables[day].drop(columns="underlying_price")
            prices = prices.drop(day)
        elif hole == "worthless":
            tables[day] = tables[day].assign(bid=0.0, ask=0.0)
    split = pd.Series([2.0], [days[int(rng.integers(1, 12))]])
    for day in days[days >= split.index[0]]:
        if day in prices:
            prices[day] /= 2.0
        if day in tables:
            columns = [
                name
                for name in ("strike", "bid", "ask", "underlying_price")
                if name in tables[day]
            ]
            tables[day] = tables[day].copy()
            tables[day][columns] /= 2.0
    holed = MemoryHistory(tables, prices, splits=split)
    strategy = [straddle(days=4), short_strangle(days=6)][case % 2]
    result = backtest(holed, strategy, hedge=DeltaHedge(delta="black_scholes"))
    assert_conserves_capital(result, atol=1e-6)
    seen = result.daily.index[-1]
    held = result.positions[result.positions["date"] == seen].dropna(subset="expiry")
    expiry = pd.to_datetime(held["expiry"])
    assert (expiry >= seen).all()
    overdue = held[expiry <= days[11]]
    said = result.events[result.events["kind"] == "unsettled"]["what"].nunique()
    assert said == overdue["expiry"].nunique()
    assert result.events["reason"].str.len().gt(0).all()


# Multipliers


def nameless(multiplier=np.nan):
    """A history of a name of which nothing is known."""
    return black_scholes_history([100.0] * 3, ["2025-02-14"], multiplier=multiplier)


LABEL = "2025-02-14 PM"


def one_call(view):
    return ro.StrikePortfolio(
        0.0, 0.0, np.array([100.0]), np.array([True]), np.ones(1), expiry=LABEL
    )


@pytest.mark.parametrize(
    "order",
    [
        lambda view: view.call(LABEL, 100.0),
        one_call,
        lambda view: ro.backtest.Target((one_call(view),)),
        straddle(),
    ],
    ids=["view", "portfolio", "target", "strategy"],
)
def test_an_unknown_multiplier_is_asked_for(order):
    message = "the multiplier of SIM 2025-02-14 PM is not known; pass `multiplier=`"
    with pytest.raises(BacktestError, match=message):
        backtest(nameless(), order)
    given = backtest(nameless(), order, multiplier=10.0)
    known = backtest(nameless(10.0), order)
    pd.testing.assert_frame_equal(given.trades, known.trades)
    two = {"one": order, "two": Setup(order, multiplier=5)}
    found = sweep(nameless(), two)
    assert message in found.failures["one"]
    assert set(found["two"].trades["multiplier"]) == {5.0}


def test_claims_forwards_and_views_need_no_multiplier():
    def agree(view):
        strike = view.strike(LABEL, delta=0.3)
        put = replace(ro.decompose(ro.payoffs.put(strike)), expiry=LABEL)
        forward = replace(view.underlying(2.0), expiry=LABEL)
        return [ro.backtest.Claim(put), forward, view.underlying(-1.0)]

    result = backtest(nameless(), agree)
    assert set(result.trades["multiplier"]) == {1.0}
    assert_conserves_capital(result)


def test_what_the_user_says_of_a_multiplier_wins():
    def buy(view):
        return None if view.has_traded else view.call(LABEL, 100.0, 3.0)

    said = backtest(nameless(100.0), buy, multiplier=10.0)
    trade = said.trades.iloc[0]
    assert trade["multiplier"] == 10.0
    assert trade["amount"] == pytest.approx(-30.0 * trade["price"])
    assert trade["fee"] == pytest.approx(3 * 0.65)
    for bad in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="multiplier must be positive"):
            backtest(nameless(), buy, multiplier=bad)

"""What a newcomer does wrong: the message says what, where, and a remedy that works.

Each case is a call that fails, words of its message, and the call with the remedy that
the message names.
"""

import re
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import relu_options as ro
from relu_options import black_scholes
from relu_options.__main__ import main

PACKAGE = Path(ro.__file__).parent
STRIKES = np.arange(80.0, 121.0, 5.0)
QUOTED: dict[str, Any] = {"quote_time": "2025-03-14 16:00"}
LONGEST = 760
"""Characters that a person reads; the longest lists the layouts there are."""


def table(**columns: Any) -> pd.DataFrame:
    """Quotes at a volatility of 20 % around a forward of 100."""
    parts = []
    for option_type in ("call", "put"):
        price = black_scholes.price(
            forward=100.0,
            strike=STRIKES,
            time_to_expiry=98 / 365,
            volatility=0.2,
            discount_factor=0.99,
            is_call=option_type == "call",
        )
        bid, ask = np.maximum(price - 0.03, 0.0).round(2), (price + 0.03).round(2)
        parts.append({"strike": STRIKES, "type": option_type, "bid": bid, "ask": ask})
    found = pd.concat(map(pd.DataFrame, parts), ignore_index=True)
    return found.assign(expiry="2025-06-20").assign(**columns)


def without(*names: str, **columns: Any) -> pd.DataFrame:
    return table(**columns).drop(columns=list(names))


def two_expiries() -> pd.DataFrame:
    return pd.concat([table(), table(expiry="2025-09-19")], ignore_index=True)


def types(call: Any, put: Any) -> pd.DataFrame:
    return table(type=[call] * len(STRIKES) + [put] * len(STRIKES))


def read(frame: Any, **how: Any) -> ro.OptionChain:
    return ro.read_chain(frame, **QUOTED | how)


def fit(frame: Any, **how: Any) -> ro.PriceCurve:
    return ro.fit_curve(frame, **QUOTED | how)


def option(**terms: Any) -> Any:
    """The price of an option, with some of its terms given otherwise; None is none."""
    usual = {"forward": 100.0, "strike": 100.0, "time_to_expiry": 1.0}
    given = usual | {"volatility": 0.2} | terms
    return black_scholes.price(**{k: v for k, v in given.items() if v is not None})


@dataclass(frozen=True)
class Desk:
    """What is fitted once, and a folder of files."""

    chain: ro.OptionChain
    curve: ro.PriceCurve
    surface: Any
    folder: Path


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    folder = tmp_path_factory.mktemp("newcomer")
    table().to_csv(folder / "quotes.csv", index=False)
    two_expiries().to_csv(folder / "several.csv", index=False)
    (folder / "notes.csv").write_text("dear diary\nnothing today\n")
    (folder / "empty").mkdir()
    chain = read(table())
    return Desk(
        chain, ro.fit_curve(chain), ro.fit_surface(two_expiries(), **QUOTED), folder
    )


STRADDLE = ro.payoffs.straddle(100.0)
CALL: Callable[[Any], Any] = lambda spot: np.maximum(spot - 100.0, 0.0)  # noqa: E731
TERMS: dict[str, Any] = {"forward": 100.0, "discount_factor": 0.99}
YEARS = 98 / 365
Call = Callable[[Desk], Any]

CASES: dict[str, tuple[Call, str | list[str], Call]] = {
    # Columns
    "strike misspelt": (
        lambda _: fit(table().rename(columns={"strike": "stirke"})),
        ["'strike'", "'stirke'", "columns={'strike': ...}"],
        lambda _: fit(
            table().rename(columns={"strike": "stirke"}), columns={"strike": "stirke"}
        ),
    ),
    "ask misspelt": (
        lambda _: fit(table().rename(columns={"ask": "akss"})),
        ["missing 'ask'", "'akss'", "columns={'ask': ...}"],
        lambda _: fit(table().rename(columns={"ask": "akss"}), columns={"ask": "akss"}),
    ),
    "no prices": (
        lambda _: fit(without("bid", "ask")),
        ["'bid' and 'ask', or 'mid'", "columns={'bid': ..., 'ask': ...}"],
        lambda _: fit(without("bid", "ask", mid=table()[["bid", "ask"]].mean(axis=1))),
    ),
    "columns the wrong way round": (
        lambda _: fit(
            table().rename(columns={"strike": "K_eur"}), columns={"K_eur": "strike"}
        ),
        ["unknown names ['K_eur']", "keys are among", "'strike'"],
        lambda _: fit(
            table().rename(columns={"strike": "K_eur"}), columns={"strike": "K_eur"}
        ),
    ),
    "columns that are not there": (
        lambda _: fit(table(), columns={"strike": "K"}),
        ["names ['K']", "the table does not have; it has ['strike'"],
        lambda _: fit(table(), columns={"strike": "strike"}),
    ),
    "columns as a list": (
        lambda _: fit(table(), columns=["strike"]),
        ["`columns` is a dict", "{'strike': 'K_usd'}", "not list"],
        lambda _: fit(table(), columns={"strike": "strike"}),
    ),
    "a column twice": (
        lambda _: fit(pd.concat([table(), table()[["bid"]]], axis=1)),
        ["2 columns are named 'bid'", "drop all but one"],
        lambda _: fit(table()),
    ),
    "no option type": (
        lambda _: fit(without("type")),
        [
            "strikes 80, 85, 90",
            "no column that tells them apart",
            "add or fill 'option_type'",
        ],
        lambda _: fit(without("type", option_type=table()["type"])),
    ),
    "no expiry": (
        lambda _: fit(without("expiry")),
        ["'expiry' or 'time_to_expiry'", "`expiry=`", "`time_to_expiry=` in years"],
        lambda _: fit(without("expiry"), expiry="2025-06-20"),
    ),
    "no quote time": (
        lambda _: ro.fit_curve(table()),
        ["when the quotes were taken", "`quote_time=`", "'2019-05-17 16:15'"],
        lambda _: ro.fit_curve(table(), quote_time="2025-03-14 16:15"),
    ),
    # Cells
    "dashes for bids": (
        lambda _: fit(table(bid="-")),
        ["18 rows in, 0 used", "bid missing", "0: call 80", "write numbers"],
        lambda _: fit(table(bid=table()["bid"].map("${}".format))),
    ),
    "n/a for quotes": (
        lambda _: fit(table(bid="n/a", ask="n/a")),
        ["no bid, ask, mid or volatility", "0: call 80", "columns={'bid': ...}"],
        lambda _: fit(
            table(bid="n/a", ask="n/a", b=table()["bid"], a=table()["ask"]),
            columns={"bid": "b", "ask": "a"},
        ),
    ),
    "words for strikes": (
        lambda _: fit(table(strike="ATM")),
        ["dropped 18: strike missing", "write numbers", "columns={'strike': ...}"],
        lambda _: fit(table(strike=table()["strike"].map("{:,.1f}".format))),
    ),
    "strikes that are NaN": (
        lambda _: fit(table(strike=np.nan)),
        ["dropped 18: strike missing", "columns={'strike': ...}"],
        lambda _: fit(
            table(strike=np.nan, K=table()["strike"]), columns={"strike": "K"}
        ),
    ),
    "all zero": (
        lambda _: fit(table(bid=0.0, ask=0.0)),
        ["bid and ask, or mid, zero", "0: call 80 (0 / 0)", "outside of trading hours"],
        lambda _: fit(table()),
    ),
    "bid and ask swapped": (
        lambda _: fit(table().rename(columns={"bid": "ask", "ask": "bid"})),
        ["bid is above ask in 18 of 18 rows", "columns={'bid': ..., 'ask': ...}"],
        lambda _: fit(
            table().rename(columns={"bid": "ask", "ask": "bid"}),
            columns={"bid": "ask", "ask": "bid"},
        ),
    ),
    "all bids zero": (
        lambda _: fit(table(bid=0.0)),
        ["every bid is zero", "9 pairs", "`forward=` and `discount_factor=`"],
        lambda _: fit(table(bid=0.0), **TERMS),
    ),
    "option type foo": (
        lambda _: fit(table(type="foo")),
        ["'foo' are not understood", '"C" and "P", or 1 and -1'],
        lambda _: fit(types("C", "P")),
    ),
    "option types 0 for calls": (
        lambda _: fit(types(0, 1)),
        ["read as 1 = call, 0 = put", "the reverse", ".map({1: 'put', 0: 'call'})"],
        lambda _: fit(types(0, 1).replace({"type": {1: "put", 0: "call"}})),
    ),
    "option types foo and bar": (
        lambda _: fit(types("foo", "bar")),
        ["'foo', 'bar' are not understood", '"C" and "P", or 1 and -1'],
        lambda _: fit(types(1, -1)),
    ),
    "half of the types foo": (
        lambda _: fit(types("calls", "foo")),
        ["neither call nor put", "9: 80", "`forward=`, or quotes of both"],
        lambda _: fit(types("calls", "puts")),
    ),
    "strikes in cents": (
        lambda _: fit(table(strike=100.0 * table()["strike"])),
        ["per unit of strike over 9 pairs", "prices and strikes are in one unit"],
        lambda _: fit(table(strike=100.0 * table()["strike"]), strike_scale=100.0),
    ),
    "strikes repeated": (
        lambda _: fit(pd.concat([table().iloc[:2]] * 4)),
        ["dropped 6: strike quoted again", "0: call 80", "quotes of both"],
        lambda _: fit(pd.concat([table()] * 4).sample(frac=1.0, random_state=0)),
    ),
    # Dates and times
    "expiry soon": (
        lambda _: fit(table(expiry="soon")),
        ["'soon' is not a date", "write it as 2019-06-21"],
        lambda _: fit(table(expiry="2025-06-20")),
    ),
    "expiry June": (
        lambda _: fit(without("expiry"), expiry="June"),
        ["'June' is not a date", "write it as 2019-06-21"],
        lambda _: fit(without("expiry"), expiry="2025-06-20"),
    ),
    "quoted yesterday": (
        lambda _: fit(table(), quote_time="yesterday"),
        ["quote time 'yesterday' is not a time", "'2019-05-17 16:00'"],
        lambda _: fit(table(), quote_time="2025-03-14 16:00"),
    ),
    "quote times of nowhere": (
        lambda _: ro.fit_curve(table(timestamp="2025-03-14 16:00:00 Mars")),
        ["16:00:00 Mars' is not a time", "or pass `quote_time=`"],
        lambda _: ro.fit_curve(table(timestamp="2025-03-14 16:00:00-04:00")),
    ),
    "quoted after expiry": (
        lambda _: fit(table(), quote_time="2025-07-14"),
        ["the expiry, 2025-06-20", "2025-07-14 20:00 UTC; check `quote_time`"],
        lambda _: fit(table(), quote_time="2025-03-14"),
    ),
    "days for years": (
        lambda _: ro.fit_curve(without("expiry"), time_to_expiry=98),
        ["`time_to_expiry` of 98 years", "98 days are 0.2685"],
        lambda _: ro.fit_curve(without("expiry"), time_to_expiry=0.2685),
    ),
    "a year of 365": (
        lambda _: ro.fit_curve(without("expiry"), time_to_expiry=365),
        ["`time_to_expiry` of 365 years", "so 365 days are 1"],
        lambda _: ro.fit_curve(without("expiry"), time_to_expiry=1),
    ),
    "a column of days": (
        lambda _: ro.fit_curve(without("expiry", time_to_expiry=98)),
        ["`time_to_expiry` of 98 years", "98 days are 0.2685"],
        lambda _: ro.fit_curve(without("expiry", time_to_expiry=0.2685)),
    ),
    "a negative time": (
        lambda _: ro.fit_curve(without("expiry"), time_to_expiry=-YEARS),
        ["`time_to_expiry` must be positive", "-0.26"],
        lambda _: ro.fit_curve(without("expiry"), time_to_expiry=YEARS),
    ),
    "two expiries, one curve": (
        lambda _: fit(two_expiries()),
        ["2025-06-20, 2025-09-19", "select one, as `chain[expiry]`"],
        lambda _: ro.fit_curve(read(two_expiries())["2025-06-20"]),
    ),
    # What is known of the market
    "discount factor in per cent": (
        lambda _: fit(table(), discount_factor=95),
        ["`discount_factor` of 95", "price today of 1 at expiry", "at 5 %"],
        lambda _: fit(table(), discount_factor=0.99),
    ),
    "discount factor of -1": (
        lambda _: fit(table(), discount_factor=-1),
        ["`discount_factor` must be positive", "-1"],
        lambda _: fit(table()),
    ),
    "discount factor of 0": (
        lambda _: ro.fit_surface(two_expiries(), discount_factor=0, **QUOTED),
        ["`discount_factor` must be positive", "not 0"],
        lambda _: ro.fit_surface(two_expiries(), **QUOTED),
    ),
    "rate in per cent": (
        lambda _: fit(table(), rate=5),
        ["`rate` of 5 is 500% a year", "5 % is 0.05"],
        lambda _: fit(table(), rate=0.05),
    ),
    "rate as text": (
        lambda _: fit(table(), rate="5%"),
        ["`rate` must be one number, not '5%'", "one for each expiry"],
        lambda _: fit(table(), rate={"2025-06-20": 0.05}),
    ),
    "a forward that parity contradicts": (
        lambda _: fit(table(), forward=150.0),
        ["forward is given as 150", "9 pairs of calls and puts imply 100", "leave it"],
        lambda _: fit(table()),
    ),
    "a forward beyond all strikes": (
        lambda _: fit(table(), forward=1.0, discount_factor=0.99),
        ["only 2 usable strikes", "exclude the forward given, 1:", "it is about 100"],
        lambda _: fit(table(), forward=100.0, discount_factor=0.99),
    ),
    "no such argument": (
        lambda d: ro.fit_curve(d.chain, discount=0.99),  # type: ignore[call-arg]
        ["unknown arguments ['discount']", "did you mean `discount_factor`?"],
        lambda d: ro.fit_curve(d.chain, discount_factor=0.99),
    ),
    # What is no chain
    "None": (
        lambda _: ro.fit_curve(None),  # type: ignore[arg-type]
        ["a path or a DataFrame, not NoneType", "a dict of columns"],
        lambda _: fit(table().to_dict("list")),
    ),
    "a list of lists": (
        lambda _: ro.fit_surface([[100.0, 1.0, 2.0]]),  # type: ignore[arg-type]
        ["a path or a DataFrame, not list", "a dict of columns"],
        lambda _: ro.fit_surface(two_expiries(), **QUOTED),
    ),
    "a number": (
        lambda _: ro.fit_curves(5),  # type: ignore[arg-type]
        ["a path or a DataFrame, not int"],
        lambda d: ro.fit_curves(d.chain)["2025-06-20"],
    ),
    "many chains of nothing": (
        lambda _: next(ro.read_chains(None)),  # type: ignore[arg-type]
        ["a path or a DataFrame, not NoneType"],
        lambda _: next(ro.read_chains(table(), **QUOTED)),
    ),
    "quotes to check": (
        lambda _: ro.check_quotes(3.5),  # type: ignore[arg-type]
        ["a path or a DataFrame, not float"],
        lambda _: ro.check_quotes(table(), **QUOTED),
    ),
    "an empty frame": (
        lambda _: ro.fit_curve(pd.DataFrame()),
        ["has no rows", "the filter that made the table"],
        lambda _: fit(table()),
    ),
    "no rows": (
        lambda _: read(table().query("strike > 1000")),
        ["has no rows", "the filter that made the table"],
        lambda _: read(table().query("strike > 90")),
    ),
    "one quote for a curve": (
        lambda _: fit(table().iloc[:1]),
        ["both a call and a put quoted (0)", "`forward=`, or quotes of both"],
        lambda _: fit(table()),
    ),
    "one quote for a surface": (
        lambda _: ro.fit_surface(table().iloc[:1], **QUOTED),
        ["2025-06-20 PM", "`forward=`, or quotes of both"],
        lambda _: ro.fit_surface(two_expiries(), **QUOTED),
    ),
    "no such layout": (
        lambda _: read(table(), layout="bloomberg"),
        ["no layout 'bloomberg'; there are", "'tidy'"],
        lambda _: read(table(), layout="tidy"),
    ),
    "no such unit": (
        lambda _: read(table(iv=20.0), volatility_unit="percentage"),
        ["volatility_unit", "'percentage'", "percent"],
        lambda _: read(table(iv=20.0), volatility_unit="percent"),
    ),
    "no such file": (
        lambda d: ro.read_chain(d.folder / "qoutes.csv"),
        ["no file qoutes.csv in", "did you mean quotes.csv?"],
        lambda d: read(d.folder / "quotes.csv"),
    ),
    "no such folder": (
        lambda d: list(ro.read_chains(d.folder / "nowhere" / "quotes.csv")),
        ["no folder", "nowhere", "check the path"],
        lambda d: next(ro.read_chains(d.folder / "quotes.csv", **QUOTED)),
    ),
    "an empty folder": (
        lambda d: read(d.folder / "empty"),
        ["empty holds no tables", ".csv", ".parquet"],
        lambda d: read(d.folder / "quotes.csv"),
    ),
    # Which slice
    "a month by name": (
        lambda d: d.chain["June"],
        ["'June' is no expiry", "months such as '2019-06'", "slices are 2025-06-20"],
        lambda d: d.chain["2025-06"],
    ),
    "31 June": (
        lambda d: d.chain["2025-06-31"],
        ["'2025-06-31' is no expiry", "slices are 2025-06-20"],
        lambda d: d.chain["2025-06-20"],
    ),
    "a slice that is not there": (
        lambda d: d.chain["2025-07-18"],
        ["no slice 2025-07-18", "the nearest are 2025-06-20"],
        lambda d: d.chain["2025-06-20"],
    ),
    "a slice by its place": (
        lambda d: d.chain[0],
        ["0 is no expiry", "dates such as", "slices are 2025-06-20"],
        lambda d: d.chain[d.chain.slices[0]],
    ),
    "a slice of no date": (
        lambda d: d.chain[None],
        ["None is no expiry", "slices are 2025-06-20"],
        lambda d: d.chain[pd.Timestamp("2025-06-20")],
    ),
    # Curves and surfaces
    "negative smoothing": (
        lambda d: ro.fit_curve(d.chain, smoothing=-1.0),
        ["smoothing must be 'auto' or >= 0, not -1"],
        lambda d: ro.fit_curve(d.chain, smoothing="auto"),
    ),
    "three kinks": (
        lambda d: ro.fit_curve(d.chain, kinks=3),
        ["kinks must be a whole number from 8 on, not 3"],
        lambda d: ro.fit_curve(d.chain, kinks=64),
    ),
    "a quantile above 1": (
        lambda d: d.curve.quantile(1.2),
        ["from 0 to 1, not 1.2"],
        lambda d: [d.curve.quantile(0.95), d.curve.quantile(0)],
    ),
    "a quantile in per cent": (
        lambda d: d.curve.quantile([5, 95]),
        ["from 0 to 1, not 5", "5 % is 0.05"],
        lambda d: d.curve.quantile([0.05, 0.95]),
    ),
    "put as a word": (
        lambda d: d.curve.price(100.0, "put"),  # type: ignore[arg-type]
        ["`is_call` must be boolean", 'option_type == "call"'],
        lambda d: d.curve.price(100.0, is_call=False),
    ),
    "put as a word, on a surface": (
        lambda d: d.surface.price(100.0, 0.3, "put"),
        ["`is_call` must be boolean", 'option_type == "call"'],
        lambda d: d.surface.price(100.0, 0.3, is_call=False),
    ),
    "a time before the quotes": (
        lambda d: d.surface.price(100.0, -0.5),
        ["years from the quotes on, not -0.5"],
        lambda d: d.surface.price(100.0, 0.5),
    ),
    "a date before the quotes": (
        lambda d: d.surface.price(100.0, "2024-06-20"),
        ["2024-06-20 is before the quotes", "2025-03-14"],
        lambda d: d.surface.price(100.0, "2025-06-20"),
    ),
    "a plot by another name": (
        lambda d: d.surface.plot("smile"),
        ["kind must be one of 'smiles'", "not 'smile'"],
        lambda d: d.surface.plot("smiles") is not None,
    ),
    "a sample of less than none": (
        lambda d: d.curve.sample(0, -5),
        ["`n`", "from 0 on, not -5"],
        lambda d: d.curve.sample(0, 5),
    ),
    # Formulas
    "r": (
        lambda _: option(forward=None, spot=100.0, r=0.01),
        ["not `r`", "did you mean `rate`?"],
        lambda _: option(forward=None, spot=100.0, rate=0.01),
    ),
    "neither forward nor spot": (
        lambda _: option(forward=None),
        ["either `forward`", "or `spot`", "got neither"],
        lambda _: option(forward=None, spot=100.0),
    ),
    "arrays of two lengths": (
        lambda _: option(strike=STRIKES, volatility=np.full(2, 0.2)),
        ["shapes (2,) and (9,)", "arrays of one shape"],
        lambda _: option(strike=STRIKES, volatility=np.full(9, 0.2)),
    ),
    "an option type for a flag": (
        lambda _: option(is_call="put"),
        ["`is_call` must be boolean", 'option_type == "call"'],
        lambda _: option(is_call=False),
    ),
    # Portfolios and tables
    "a payoff by name": (
        lambda d: ro.replicate("straddle", d.chain),  # type: ignore[arg-type]
        ["`payoffs.straddle(100.0)`", "not str"],
        lambda d: ro.replicate(STRADDLE, d.chain),
    ),
    "chain and payoff swapped": (
        lambda d: ro.replicate(d.chain, STRADDLE),  # type: ignore[arg-type]
        ["`payoffs.straddle(100.0)`", "not OptionChain"],
        lambda d: ro.replicate(STRADDLE, d.chain),
    ),
    "a payoff as a lambda": (
        lambda d: ro.replicate(CALL, d.chain, method="super"),  # type: ignore[call-overload]
        ["a Payoff or a SmoothPayoff", "`payoffs.from_function(function, strikes)`"],
        lambda d: ro.replicate(
            ro.payoffs.from_function(CALL, STRIKES), d.chain, method="super"
        ),
    ),
    "a hedge without bids": (
        lambda _: ro.replicate(STRADDLE, table(bid=np.nan), **QUOTED),
        ["dropped 18: bid missing", "a zero would be a quote", "write numbers"],
        lambda _: ro.replicate(STRADDLE, table(), **QUOTED),
    ),
    "an unknown method": (
        lambda d: ro.replicate(STRADDLE, d.chain, method="best"),  # type: ignore[call-overload]
        ["method must be one of ['quadratic', 'super', 'sub']", "'best'"],
        lambda d: ro.replicate(STRADDLE, d.chain, method="quadratic"),
    ),
    "an expectation of a number": (
        lambda d: d.curve.expectation(3.0),  # type: ignore[arg-type]
        ["`payoffs.straddle(100.0)`", "not float"],
        lambda d: d.curve.expectation(STRADDLE),
    ),
    "a strike as text": (
        lambda _: ro.payoffs.straddle("100"),  # type: ignore[arg-type]
        ["are numbers, not ['100']"],
        lambda _: ro.payoffs.straddle(float("100"))(100.0),
    ),
    "no strike": (
        lambda _: ro.payoffs.call(None),  # type: ignore[arg-type]
        ["are numbers, not", "None"],
        lambda _: ro.payoffs.call(100.0)(100.0),
    ),
    "a portfolio at a spot": (
        lambda _: ro.decompose(STRADDLE).price(100.0),  # type: ignore[arg-type]
        ["priced on a curve, such as `fit_curve(quotes)`", "not on float"],
        lambda d: ro.decompose(STRADDLE).price(d.curve),
    ),
    "a backtest of a chain": (
        lambda d: ro.backtest(d.chain, lambda view: None),  # type: ignore[arg-type]
        ["runs on a history", "`bundled_history()`", "not on OptionChain"],
        lambda _: len(ro.bundled_history().dates),
    ),
    "Greeks of nothing": (
        lambda _: ro.add_greeks(None, **TERMS),  # type: ignore[arg-type]
        ["a path or a DataFrame, not NoneType"],
        lambda d: ro.add_greeks(d.folder / "quotes.csv", **QUOTED),
    ),
    "Greeks without a time": (
        lambda _: ro.add_greeks(without("expiry"), **TERMS),
        ["no column 'time_to_expiry'", "pass `time_to_expiry=`"],
        lambda _: ro.add_greeks(without("expiry"), time_to_expiry=YEARS, **TERMS),
    ),
    "Greeks with r": (
        lambda _: ro.add_greeks(table(), r=0.01, **QUOTED),
        ["unknown terms ['r']", "'rate'"],
        lambda _: ro.add_greeks(table(), rate=0.01, **QUOTED),
    ),
}


def require_sense(found: Any) -> None:
    """A remedied call gives what can be used."""
    if isinstance(found, ro.PriceCurve):
        assert found.certificate.holds
        assert 95.0 < found.forward < 105.0
        found = found.implied_volatility([95.0, 105.0])
    if isinstance(found, ro.OptionChain):
        assert len(found)
        assert len(found.table)
    elif isinstance(found, float | list | np.ndarray):
        assert np.isfinite(found).all()
    else:
        assert found is not None


@pytest.mark.parametrize("name", CASES)
def test_what_a_newcomer_does_wrong_is_told_with_its_remedy(name, desk):
    wrong, words, right = CASES[name]
    with pytest.raises((ValueError, TypeError, KeyError, FileNotFoundError)) as caught:
        wrong(desk)
    error = caught.value
    message = str(error.args[0])
    for word in words:
        assert word in message
    assert len(message) < LONGEST
    assert "\n" not in message
    raised = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    assert raised.is_relative_to(PACKAGE), "an error of another library"
    require_sense(right(desk))


FIT = "inspect quotes.csv --quote-time 2025-03-14"
SEVERAL = "inspect several.csv --quote-time 2025-03-14"
COMMANDS: dict[str, tuple[str, list[str], str]] = {
    "no command": ("", ["required: command", "relu-options --help"], FIT),
    "a command misspelt": ("inspct quotes.csv", ["'inspct'", "'inspect'"], FIT),
    "an option misspelt": (
        "inspect quotes.csv --quote-tme 2025-03-14",
        ["--quote-tme", "--help"],
        FIT,
    ),
    "no file": ("inspect", ["required: file", "relu-options inspect --help"], FIT),
    "no such file": (
        "fit qoutes.csv",
        ["no file qoutes.csv", "did you mean quotes.csv?"],
        FIT,
    ),
    "no quote time": ("fit quotes.csv", ["`--quote-time`"], FIT),
    "no quotes in it": (
        "fit notes.csv",
        ["'strike'", "['dear diary']", "`--column strike=...`"],
        FIT,
    ),
    "an empty folder": ("fit empty", ["empty holds no tables", ".csv"], FIT),
    "a rate in words": (
        f"{FIT} --rate five",
        ["--rate", "'five'"],
        f"{FIT} --rate 0.05",
    ),
    "a rate in per cent": (
        f"{FIT} --rate 5",
        ["500% a year", "5 % is 0.05"],
        f"{FIT} --rate 0.05",
    ),
    "a month by name": (
        f"{SEVERAL} --expiry June",
        ["'June' is no expiry", "2025-06-20"],
        f"{SEVERAL} --expiry 2025-06",
    ),
    "an expiry that is not there": (
        f"{SEVERAL} --expiry 2025-07-18",
        ["no slice 2025-07-18", "the nearest are 2025-06-20"],
        f"{SEVERAL} --expiry 2025-06-20",
    ),
}


def in_shell(line: str) -> int:
    """The exit code of a command."""
    try:
        return main(line.split())
    except SystemExit as stopped:
        return int(stopped.code or 0)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_shell_says_it_in_one_line(name, desk, capsys, monkeypatch):
    monkeypatch.chdir(desk.folder)
    wrong, words, right = COMMANDS[name]
    assert in_shell(wrong) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert re.fullmatch(r"[^\n]+\n", said.err)
    for word in words:
        assert word in said.err
    assert in_shell(right) == 0
    assert "18 rows in" in capsys.readouterr().out or SEVERAL in right


@pytest.mark.parametrize("known", [{}, {"discount_factor": 0.99}])
def test_a_forward_that_is_a_little_off_is_noted(known):
    notes = ro.prepare_quotes(table(), forward=101.0, **known, **QUOTED).report.notes
    found = [note for note in notes if "exclude the forward given, 101" in note]
    assert len(found) == 1
    assert re.search("by parity it is about (99.9|100)", found[0])

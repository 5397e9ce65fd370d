"""Whatever holds quotes goes one road, and what the user knows wins on all of it."""

import sys
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import relu_options as ro
from relu_options.errors import MissingColumnError, QuoteError
from relu_options.market_data import (
    ExpiryQuotes,
    MarketTerms,
    Reading,
    prepare_quotes,
    read_chain,
)
from relu_options.market_data.rates import RateCurve
from relu_options.simulation import bundled_chain

STRIKES = np.arange(80.0, 125.0, 5.0)
FORWARD, RATE = 102.0, 0.05
WHEN: dict[str, Any] = {"quote_time": "2025-03-14"}
EXPIRIES = ("2025-03-21", "2025-04-17", "2025-06-20", "2025-12-19")


def years_to(expiry):
    return (pd.Timestamp(expiry) - pd.Timestamp("2025-03-14")).days / 365.0


def table(expiry="2025-06-20", rate=RATE, half_spread=0.05, **more):
    """Calls, then puts, whose parity holds exactly."""
    discount = np.exp(-rate * years_to(expiry))
    strike = np.concatenate([STRIKES, STRIKES])
    is_call = np.arange(len(strike)) < len(STRIKES)
    value = 0.5 * np.hypot(strike - FORWARD, 15.0)
    mid = discount * (value + np.where(is_call, 0.5, -0.5) * (FORWARD - strike))
    columns: dict[str, Any] = {
        "expiry": expiry,
        "strike": strike,
        "type": np.where(is_call, "call", "put"),
        "bid": mid - half_spread,
        "ask": mid + half_spread,
    }
    return pd.DataFrame(columns | more)


def chain_of(*expiries, **more):
    return pd.concat([table(one, **more) for one in expiries], ignore_index=True)


# Sources


def as_sources(frame, folder):
    """One table as every library and file format holds it."""
    paths = [folder / f"quotes{suffix}" for suffix in (".csv", ".parquet", ".xlsx")]
    frame.to_csv(paths[0], index=False)
    frame.to_parquet(paths[1])
    frame.to_excel(paths[2], index=False)
    return {
        "polars": pl.from_pandas(frame),
        "arrow": pa.Table.from_pandas(frame),
        "duckdb": duckdb.from_df(frame),
        "dict": frame.to_dict("list"),
        **{path.suffix: path for path in paths},
    }


def test_every_function_takes_what_is_read(tmp_path):
    frame = table().rename(columns={"strike": "level"})
    how: dict[str, Any] = WHEN | {"columns": {"strike": "level"}}
    expected = prepare_quotes(frame, **how)
    straddle = ro.payoffs.straddle(100.0)
    for name, source in as_sources(frame, tmp_path).items():
        prepared = prepare_quotes(source, **how)
        np.testing.assert_allclose(prepared.mid, expected.mid, rtol=1e-12, err_msg=name)
        assert ro.check_quotes(source, **how).is_arbitrage_free
        low, high = ro.price_interval(straddle, source, **how)
        assert low <= high
    path = tmp_path / "quotes.csv"
    curve = ro.fit_curve(path, **how)
    assert curve.share_inside == 1.0
    assert ro.fit_curves(path, **how)["2025-06-20"].forward == curve.forward
    assert ro.fit_surface(path, **how).expiries == ("2025-06-20 PM",)
    assert len(ro.repair_quotes(path, **how)) == len(STRIKES)


def test_a_preamble_above_a_sheet_is_left_out(tmp_path):
    path = tmp_path / "quotes.xlsx"
    frame = table()
    frame.to_excel(path, index=False, startrow=3)
    assert len(read_chain(path, **WHEN).rows) == len(frame)


def test_a_frame_of_a_chain_goes_through_excel_and_back(tmp_path):
    chain = bundled_chain()["2025-06-20"]
    path = tmp_path / "chain.xlsx"
    chain.to_frame().to_excel(path)
    again = read_chain(path)
    assert again.quote_time == chain.quote_time
    assert again.time_to_expiry == chain.time_to_expiry
    names = ["strike", "bid", "ask", "expiry_time"]
    pd.testing.assert_frame_equal(
        again.table[names].reset_index(drop=True),
        chain.table[names].reset_index(drop=True),
    )


def test_what_cannot_be_read_is_refused():
    for one in (1.0, None, object()):
        with pytest.raises(TypeError, match="a chain is read from a path"):
            prepare_quotes(one)
    with pytest.raises(QuoteError, match="lists of one length"):
        read_chain({"strike": [1.0, 2.0], "mid": [1.0]})
    with pytest.raises(TypeError, match=r"unknown arguments \['quote_tme'\]"):
        prepare_quotes(table(), quote_tme="2025-03-14")  # type: ignore[call-arg]


def test_a_reading_has_the_arguments_of_read_chain():
    import inspect

    arguments = list(inspect.signature(read_chain).parameters)[1:]
    assert set(arguments) == set(Reading.__annotations__)


# What the user knows


def test_what_is_known_wins_over_table_and_parity():
    frame = chain_of(*EXPIRIES, spot=100.0)
    chain = read_chain(frame, rate=0.03, **WHEN)
    for one in chain:
        prepared = prepare_quotes(one)
        expected = np.exp(-0.03 * one.time_to_expiry)
        assert prepared.discount_factor == pytest.approx(expected, rel=1e-12)
    rates = pd.Series({"2025-06-20": 0.01})
    chain = read_chain(frame, rate=rates, forward={"2025-12-19": 103.5}, **WHEN)
    june, december = (
        prepare_quotes(chain["2025-06-20"]),
        prepare_quotes(chain["2025-12-19"]),
    )
    assert june.discount_factor == pytest.approx(np.exp(-0.01 * years_to("2025-06-20")))
    assert december.forward == 103.5
    carried = read_chain(frame, rate=0.03, dividend_yield=0.01, **WHEN)
    for one in carried:
        expected = 100.0 * np.exp(0.02 * one.time_to_expiry)
        assert prepare_quotes(one).forward == pytest.approx(expected, rel=1e-12)
    moved = read_chain(frame, rate=0.03, dividend_yield=0.01, spot=50.0, **WHEN)
    assert prepare_quotes(moved["2025-06-20"]).forward == pytest.approx(50.0, rel=0.01)


def test_a_chain_that_was_read_is_told_what_is_known():
    chain = read_chain(chain_of(*EXPIRIES), **WHEN)
    known = read_chain(chain, discount_factor={"2025-06-20": 0.97})
    assert prepare_quotes(known["2025-06-20"]).discount_factor == 0.97
    assert prepare_quotes(chain["2025-06-20"], forward=101.0).forward == 101.0
    later = read_chain(chain, quote_time="2025-03-24")
    assert len(later) == len(EXPIRIES) - 1  # the first has expired
    with pytest.raises(ValueError, match="`columns` has no effect: the chain has been"):
        read_chain(chain, columns={"strike": "K"})


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"rate": 5.0}, "5 % is 0.05"),
        ({"rate": 0.05, "discount_factor": 0.9}, "say the same; pass one"),
        ({"forward": "70"}, "must be one number, not '70'"),
        ({"forward": {"2025-06-20": 0.0}}, "`forward` must be positive"),
        ({"forward": -1.0, "kernel": "lognormal"}, "pass `kernel='normal'` if the"),
        ({"spot": -1.0}, "`spot` must be positive .* pass `kernel='normal'` if the"),
        ({"kernel": "bachelier"}, "kernel must be 'auto', 'lognormal' or 'normal'"),
        ({"spot": [1.0, 2.0]}, "`spot` must be one number"),
        ({"dividend_yield": 3.0}, "300% a year"),
    ],
)
def test_nonsense_is_not_known(terms, message):
    with pytest.raises(ValueError, match=message):
        MarketTerms(**terms)


def test_terms_of_expiries_that_are_not_there_are_refused():
    with pytest.raises(QuoteError, match="`forward` is given for 2026-06-20, and no"):
        read_chain(table(), forward={"2026-06-20": 100.0}, **WHEN)
    with pytest.raises(QuoteError, match="the table has none; pass `spot=`"):
        prepare_quotes(table(), dividend_yield=0.01, **WHEN)


# Rates


def test_a_slice_that_cannot_tell_its_rate_borrows_that_of_the_others():
    later = chain_of(*EXPIRIES[1:], half_spread=0.01)
    frame = pd.concat([table(EXPIRIES[0], half_spread=0.5), later])
    first = frame["expiry"] == EXPIRIES[0]
    alone = prepare_quotes(frame[first], **WHEN)
    assert "on an assumed rate of 2% ± 3%" in repr(alone.report)
    chain = read_chain(frame, **WHEN)
    lent = prepare_quotes(chain[EXPIRIES[0]])
    assert "expiries of the chain that tell theirs" in repr(lent.report)
    years = years_to(EXPIRIES[0])
    assert lent.parity is not None
    assert lent.parity.rate(years) == pytest.approx(RATE, abs=0.002)
    assert alone.parity is not None
    assert abs(alone.parity.rate(years) - RATE) > 0.02
    last = prepare_quotes(chain[EXPIRIES[-1]])
    assert "tell theirs" not in repr(last.report)  # it tells its own


def test_a_curve_of_rates_is_a_weighted_mean_and_flat_beyond(rng):
    times = np.sort(rng.uniform(0.1, 2.0, 12))
    errors = rng.uniform(1e-4, 1e-3, 12)
    curve = RateCurve(times, np.full(12, 0.043), errors)
    for time in (0.001, 0.7, 30.0):
        assert curve.prior(time).rate == pytest.approx(0.043, rel=1e-12)
    sloped = RateCurve(times, 0.02 + 0.01 * times, errors)
    assert sloped.prior(1e-3).rate == sloped.prior(times[0]).rate
    low, high = sloped.rates.min(), sloped.rates.max()
    assert low <= sloped.prior(0.6).rate <= high


def test_a_high_rate_is_said_and_not_refused():
    prepared = prepare_quotes(table("2025-12-19", rate=0.3, half_spread=0.01), **WHEN)
    assert "the pairs imply a rate of 30% a year" in repr(prepared.report)


def test_an_expiry_that_the_quotes_deny_is_refused_with_both():
    frame = table().drop(columns="expiry")
    stated = frame.assign(dte=117)
    with pytest.raises(QuoteError, match=r"state 117 days .* 2025-04-09 PM is 26 days"):
        read_chain(stated, expiry="2025-04-09", **WHEN)
    assert len(read_chain(stated, expiry="2025-07-09", **WHEN)) == 1
    years = years_to("2025-07-09")
    prepared = prepare_quotes(frame, time_to_expiry=years, forward=FORWARD, rate=RATE)
    volatility = ro.black_scholes.implied_volatility(
        price=0.5 * (frame["bid"] + frame["ask"]),
        forward=prepared.forward,
        discount_factor=prepared.discount_factor,
        strike=frame["strike"],
        time_to_expiry=years,
        is_call=(frame["type"] == "call").to_numpy(),
    )
    quoted = frame.assign(iv=np.asarray(volatility))
    with pytest.raises(QuoteError, match=r"of 117 days .* 2025-04-09 PM is 26 days"):
        prepare_quotes(quoted, expiry="2025-04-09", **WHEN)
    assert len(prepare_quotes(quoted, expiry="2025-07-09", **WHEN)) > 5


# Volatilities and option types


def test_low_volatilities_are_quotes_unless_they_repeat():
    frame = pd.DataFrame({"strike": STRIKES, "t": 0.5, "forward": 102.0})
    pegged = frame.assign(iv=0.003 + 1e-5 * np.abs(STRIKES - 102.0))
    assert len(prepare_quotes(pegged)) == len(STRIKES)
    pegged.loc[[1, 2], "iv"] = 1e-5
    assert prepare_quotes(pegged).report.counts == {"placeholder_volatility": 2}


@pytest.mark.parametrize(
    ("call", "put"), [(1, -1), (1, 0), ("C", "P"), ("call", "Put"), (True, False)]
)
def test_option_types_of_every_spelling(call, put):
    frame = table()
    frame["type"] = [call if one == "call" else put for one in frame["type"]]
    assert prepare_quotes(frame, **WHEN).forward == pytest.approx(FORWARD, abs=1e-3)


def test_option_types_that_are_not_understood_are_named():
    frame = table()
    frame["type"] = np.where(frame["type"] == "call", "foo", "bar")
    with pytest.raises(QuoteError, match=r"'foo', 'bar' are not understood"):
        prepare_quotes(frame, **WHEN)
    frame["type"] = frame["type"].map({"foo": "call", "bar": "put"})  # the remedy
    assert len(prepare_quotes(frame, **WHEN)) == len(STRIKES)


def test_swapped_sides_are_named():
    frame = table().rename(columns={"bid": "ask", "ask": "bid"})
    with pytest.raises(QuoteError, match="the two columns seem to be swapped"):
        prepare_quotes(frame, **WHEN)
    columns = {"bid": "ask", "ask": "bid"}  # the remedy
    assert len(prepare_quotes(frame, columns=columns, **WHEN)) == len(STRIKES)


def test_a_missing_column_says_which():
    with pytest.raises(MissingColumnError) as error:
        read_chain(table().drop(columns="expiry"), **WHEN)
    assert error.value.columns == ("expiry", "time_to_expiry")


# Slices


def test_several_slices_make_a_chain():
    chain = read_chain(chain_of(*EXPIRIES), **WHEN)
    days = [f"{key[0]:%Y-%m-%d}" for key in chain["2025-04":"2025-06"].slices]
    assert days == list(EXPIRIES[1:3])
    assert chain[:"2025-04-17"].slices == chain.slices[:2]
    assert chain[pd.Timestamp("2025-04-18") :].slices == chain.slices[2:]
    assert chain["2025"].slices == chain.slices
    assert chain["2025-06"].slices == chain.slices[2:3]
    picked = chain[["2025-12-19", "2025-03-21"]]
    assert picked.slices == [chain.slices[0], chain.slices[3]]
    assert len(picked.table) == 4 * len(STRIKES)
    assert chain["2025-06"].label == "2025-06-20 PM"


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("June", r"'June' is no expiry: keys are dates .* slices are 2025-03-21 PM"),
        ("2027-01", r"no slice in 2027-01; the nearest are .*2025-12-19 PM"),
        (("2025-06", "AM"), r"no slice 2025-06 AM; the nearest are .*2025-06-20 PM"),
        (slice("2026", None), "no slice from 2026 to None; the nearest"),
        ([], "no expiry is named"),
        (slice("2025", "2026", 2), "have no step"),
    ],
)
def test_keys_that_are_no_expiry_say_what_keys_are(key, message):
    with pytest.raises(KeyError, match=message):
        _ = read_chain(chain_of(*EXPIRIES), **WHEN)[key]


# The road itself


def test_a_quote_enters_few_files_on_its_way(tmp_path):
    """From a file to prepared arrays, each file of the package for its own purpose."""
    path = tmp_path / "quotes.csv"
    table().to_csv(path, index=False)
    ExpiryQuotes.of(read_chain(path, layout="tidy", **WHEN))
    entered, package = set(), Path(ro.__file__).parent

    def note(frame, event, _):
        name = Path(frame.f_code.co_filename)
        if event == "call" and name.is_relative_to(package):
            entered.add(name.name)

    sys.setprofile(note)
    try:
        ExpiryQuotes.of(read_chain(path, layout="tidy", **WHEN))
    finally:
        sys.setprofile(None)
    rooms = {
        "reading.py", "sources.py", "layouts.py", "columns.py", "contracts.py",
        "clocks.py", "canonical.py", "cleaning.py", "chain.py", "rates.py",
        "parity.py", "expiry_quotes.py",
    }  # fmt: skip
    assert entered == rooms
    assert len(rooms) == 12

"""Chains: read, sliced by expiry and settlement, and reported on."""

import gzip
from typing import Any

import numpy as np
import pandas as pd
import pytest
from real_quotes import real_quotes, spx

from relu_options.errors import QuoteError
from relu_options.market_data import (
    CANONICAL_COLUMNS,
    OptionChain,
    prepare_quotes,
    read_chain,
    read_chains,
)
from relu_options.simulation import bundled_chain

PREAMBLE_2019 = """SPX (S&P 500 INDEX),2859.53,-16.79,
May 17 2019 @ 15:06 ET,Bid,2859.11,Ask,2860.02,
"""
PREAMBLE_2024 = """
S&P 500 INDEX,Last: 4697.24,Change: 8.56
"Date: January 6, 2024 at 5:06 PM EST",Bid: 4696.2,Ask: 4698.1,Volume: 0
"""
CBOE_HEADER = (
    "Expiration Date,Calls,Last Sale,Net,Bid,Ask,Vol,IV,Delta,Gamma,Open Int,Strike,"
    "Puts,Last Sale,Net,Bid,Ask,Vol,IV,Delta,Gamma,Open Int\n"
)


def cboe_line(date, root, day, strike, call, put):
    symbol = f"{root}{day}{{}}{1000 * strike:08d}"
    left = f"{symbol.format('C')},9.9,0,{call[0]},{call[1]},7,9.9,0.5,0,11"
    right = f"{symbol.format('P')},9.9,0,{put[0]},{put[1]},8,9.9,-0.5,0,12"
    return f"{date},{left},{strike},{right}\n"


def cboe_text(preamble=""):
    """Two settlements on 21 June, and a 3 June that a spreadsheet has made 6 March."""
    lines = [preamble, CBOE_HEADER]
    for root, day, date, drift in (
        ("SPXW", "190603", "2019-03-06 00:00:00", 1.0),
        ("SPX", "190621", "06/21/2019", 2.0),
        ("SPXW", "190621", "06/21/2019", 2.1),
    ):
        for strike in range(2800, 2925, 25):
            value = 40.0 + 0.001 * (strike - 2860) ** 2
            difference = 0.5 * (2860.0 + drift - strike)
            call, put = value + difference, value - difference
            lines.append(
                cboe_line(
                    date,
                    root,
                    day,
                    strike,
                    (round(call - 0.2, 2), round(call + 0.2, 2)),
                    (round(put - 0.2, 2), round(put + 0.2, 2)),
                )
            )
    return "".join(lines)


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def tidy(expiries=("2025-06-20", "2025-09-19"), strikes=(90.0, 95.0, 100.0, 105.0)):
    """A long table with an index of its own, out of order."""
    rows = [
        {
            "exp": expiry,
            "K": strike,
            "cp": kind,
            "bid": round(max(0.98 * (102 - strike) * sign, 0.0) + 3.0, 2),
            "ask": round(max(0.98 * (102 - strike) * sign, 0.0) + 3.2, 2),
        }
        for expiry in expiries
        for strike in strikes
        for kind, sign in (("C", 1.0), ("P", -1.0))
    ]
    table = pd.DataFrame(rows)
    table.index = pd.Index([f"row {at}" for at in range(len(table))])
    return table.sample(frac=1.0, random_state=3)


def test_a_tidy_frame_keeps_its_index_and_is_not_touched():
    table = tidy()
    before = table.copy(deep=True)
    chain = read_chain(table, quote_time="2025-03-14")
    pd.testing.assert_frame_equal(table, before)
    assert chain.table.index.equals(table.index)
    assert tuple(chain.table.columns) == CANONICAL_COLUMNS
    assert chain.table["option_type"].isin(["call", "put"]).all()
    assert chain.table["expiry"].dtype.kind == "M"
    assert chain.quote_time == pd.Timestamp("2025-03-14 20:00", tz="UTC")
    assert (chain.table["quote_time"] == chain.quote_time).all()


def test_slices_by_date_and_iteration():
    chain = read_chain(tidy(), quote_time="2025-03-14")
    june = pd.Timestamp("2025-06-20")
    assert chain.slices == [(june, "PM"), (pd.Timestamp("2025-09-19"), "PM")]
    assert len(chain) == 2
    for key in ("2025-06-20", june, june.date(), ("2025-06-20", "PM"), "06/20/2025"):
        assert chain[key].slices == [(june, "PM")]
    assert [one.slices[0] for one in chain] == chain.slices
    assert sum(len(one.table) for one in chain) == len(chain.table)
    assert chain["2025-06-20"].time_to_expiry == pytest.approx(98 / 365, rel=1e-12)


def test_a_slice_that_is_not_there_names_the_nearest():
    chain = read_chain(tidy(), quote_time="2025-03-14")
    with pytest.raises(
        KeyError, match="no slice 2025-06-21; the nearest are 2025-06-20"
    ):
        chain["2025-06-21"]
    with pytest.raises(KeyError, match="no slice 2025-06-20 AM"):
        chain["2025-06-20", "AM"]


def test_a_fit_needs_one_slice():
    chain = read_chain(tidy(), quote_time="2025-03-14")
    with pytest.raises(QuoteError, match="2 slices where one expiry is needed"):
        prepare_quotes(chain)
    with pytest.raises(QuoteError, match="2 slices where one expiry is needed"):
        _ = chain.time_to_expiry


def test_a_slice_and_its_rows_prepare_alike():
    table = tidy()
    chain = read_chain(table, quote_time="2025-03-14")
    rows = table[table["exp"] == "2025-06-20"]
    one = prepare_quotes(chain["2025-06-20"])
    other = prepare_quotes(rows, quote_time="2025-03-14")
    assert one.labels.equals(other.labels)
    np.testing.assert_array_equal(one.mid, other.mid)
    assert one.forward == other.forward
    assert one.time_to_expiry == other.time_to_expiry


def test_a_column_of_years_decides_unless_a_quote_time_is_asked_for():
    table = tidy(expiries=("2025-06-20",)).assign(t=0.25, date="2025-03-14")
    assert read_chain(table).time_to_expiry == 0.25
    assert prepare_quotes(read_chain(table)).time_to_expiry == 0.25
    assert prepare_quotes(table).time_to_expiry == 0.25
    asked: dict[str, Any] = {"quote_time": "2025-03-14"}
    assert prepare_quotes(table, **asked).time_to_expiry == 98 / 365
    assert prepare_quotes(read_chain(table, **asked)).time_to_expiry == 98 / 365
    assert read_chain(table, **asked).time_to_expiry == 98 / 365


def test_years_without_dates_are_slices_too():
    table = pd.DataFrame(
        {
            "t": [0.25] * 3 + [1.5] * 3,
            "K": [90.0, 100.0, 110.0] * 2,
            "iv": 0.2,
            "F": 101,
        }
    )
    chain = read_chain(table)
    assert chain.slices == [(0.25, None), (1.5, None)]
    prepared = prepare_quotes(chain[1.5])
    assert prepared.time_to_expiry == 1.5
    assert prepared.expiry is None
    with pytest.raises(KeyError, match=r"no slice 0\.5 years; the nearest are 0\.25 "):
        chain[0.5]


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet"])
def test_files_of_each_kind(tmp_path, suffix):
    path = tmp_path / f"chain{suffix}"
    table = tidy().reset_index(drop=True)
    if suffix == ".parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False)
    chain = read_chain(path, quote_time="2025-03-14")
    expected = read_chain(table, quote_time="2025-03-14")
    pd.testing.assert_frame_equal(chain.table, expected.table, check_dtype=False)
    assert len(read_chain(str(path), quote_time="2025-03-14")) == 2


def test_columns_can_be_named():
    table = tidy().rename(columns={"K": "level"})
    with pytest.raises(QuoteError, match="need a column 'strike'; the table has"):
        read_chain(table, quote_time="2025-03-14")
    chain = read_chain(table, quote_time="2025-03-14", columns={"strike": "level"})
    assert chain.table["strike"].min() == 90.0


@pytest.mark.parametrize("preamble", ["", PREAMBLE_2019])
def test_the_cboe_layout_with_and_without_its_preamble(tmp_path, preamble):
    path = write(tmp_path / "quotedata.csv", cboe_text(preamble))
    quote_time = None if preamble else "2019-05-17 15:06"
    chain = read_chain(path, quote_time=quote_time)
    assert chain.quote_time == pd.Timestamp("2019-05-17 19:06", tz="UTC")
    assert [(f"{date:%m-%d}", clock) for date, clock in chain.slices] == [
        ("06-03", "PM"),
        ("06-21", "AM"),
        ("06-21", "PM"),
    ]
    assert len(chain.table) == 30
    assert chain.underlying == "SPX"
    assert set(chain.table["exercise_style"]) == {"european"}
    assert set(chain.table["multiplier"]) == {100.0}
    assert "implied_volatility" not in chain.table
    row = chain.table.loc["SPX190621P02800000"]
    assert (row["option_type"], row["volume"], row["open_interest"]) == ("put", 8, 12)
    if preamble:
        assert set(chain.table["underlying_price"]) == {2859.53}


def test_a_stamp_outside_of_trading_means_the_last_close(tmp_path):
    text = cboe_text(PREAMBLE_2024).replace("1906", "2406")
    chain = read_chain(write(tmp_path / "quotedata.csv", text))
    assert chain.quote_time == pd.Timestamp("2024-01-05 21:15", tz="UTC")
    assert any("when the market was closed" in note for note in chain.notes)
    assert set(chain.table["underlying_price"]) == {4697.24}


def test_the_cboe_layout_as_a_frame(tmp_path):
    path = write(tmp_path / "quotedata.csv", cboe_text())
    chain = read_chain(pd.read_csv(path), quote_time="2019-05-17 15:06")
    expected = read_chain(path, quote_time="2019-05-17 15:06")
    pd.testing.assert_frame_equal(chain.table, expected.table)


def test_contract_symbols_win_over_a_swapped_date(tmp_path):
    path = write(tmp_path / "quotedata.csv", cboe_text())
    chain = read_chain(path, quote_time="2019-05-17")
    (note,) = (note for note in chain.notes if "disagrees" in note)
    assert "expiry disagrees with the contract symbol in 10 of 30 rows" in note
    assert "day and month are swapped in 10" in note
    assert "SPXW190603C02800000 2019-03-06 for 2019-06-03" in note


def test_contract_symbols_win_over_strikes_and_types():
    table = pd.DataFrame(
        {
            "symbol": ["SPXW190621C02800000", "SPXW190621P02900000"],
            "strike": [2800.0, 2.9],
            "type": ["put", "put"],
            "bid": [90.0, 60.0],
            "ask": [91.0, 61.0],
        }
    )
    chain = read_chain(table, quote_time="2019-05-17")
    assert chain.table["strike"].tolist() == [2800.0, 2900.0]
    assert chain.table["option_type"].tolist() == ["call", "put"]
    assert sum("the symbol is right" in note for note in chain.notes) == 2


def test_settlements_of_one_date_are_two_slices_with_two_clocks(tmp_path):
    path = write(tmp_path / "quotedata.csv", cboe_text())
    chain = read_chain(path, quote_time="2019-05-17 16:15")
    with pytest.raises(KeyError, match="settled AM and PM; choose chain"):
        chain["2019-06-21"]
    morning, evening = chain["2019-06-21", "AM"], chain["2019-06-21", "PM"]
    hours = 365 * 24 * (evening.time_to_expiry - morning.time_to_expiry)
    assert hours == pytest.approx(6.5, abs=1e-9)
    assert prepare_quotes(morning).settlement == "AM"
    assert prepare_quotes(evening).time_to_expiry == evening.time_to_expiry


def test_bad_rows_are_dropped_counted_and_named():
    table = tidy()
    table = pd.concat([table, table.iloc[:1].rename(index=lambda _: "again")])
    table.loc["row 1", "K"] = np.nan
    table.loc["row 2", ["bid", "ask"]] = [5.0, 4.0]
    table.loc["row 3", "exp"] = None
    table.loc["row 4", "exp"] = "2025-03-07"
    chain = read_chain(table, quote_time="2025-03-14")
    report = chain.report()
    counts = report.rows.counts
    for rule in ("missing_strike", "crossed_quote", "missing_expiry", "expired"):
        assert counts[rule] == 1
    assert counts["duplicated_strike"] == 1
    assert sum(counts.values()) + report.rows.rows_used == len(table)
    assert str(report.to_frame().loc["crossed_quote", "examples"]).startswith("row 2: ")
    assert "dropped 1: expired at the quote time: row 4" in repr(report)
    assert "5 of 17 rows dropped" in repr(chain)
    assert len(chain.rows) == len(table)


def test_a_slice_that_cannot_be_fitted_is_reported_not_lost():
    table = tidy()
    calls_only = table[(table["exp"] == "2025-06-20") | (table["cp"] == "C")]
    report = read_chain(calls_only, quote_time="2025-03-14").report()
    assert report.rows.counts["unusable_slice"] == 4
    (problem,) = report.slices["problem"].dropna()
    assert problem.startswith("too few strikes have both a call and a put")
    assert "problem" in repr(report)


def test_reports_and_chains_on_bundled_data():
    chain = bundled_chain()
    report = chain.report()
    assert isinstance(chain, OptionChain)
    assert report.rows.counts == {"in_the_money": 619}
    assert report.slices["rate"].iloc[2:].between(0.03, 0.05).all()
    assert repr(chain) == (
        "OptionChain(SIM at 2025-03-14 20:00 UTC: 1,238 quotes, "
        "8 slices from 2025-03-21 PM to 2027-03-19 PM)"
    )
    assert "8 slices" not in repr(report)
    copied = chain.to_frame()
    copied["bid"] = -1.0
    assert (chain.table["bid"] >= 0.0).all()


@pytest.mark.parametrize(
    ("table", "arguments", "message"),
    [
        (tidy(), {}, "does not say when the quotes were taken; pass `quote_time=`"),
        (tidy().iloc[:0], {"quote_time": "2025-03-14"}, "has no rows"),
        (tidy().drop(columns="exp"), {}, "need a column 'expiry' or 'time_to_expiry'"),
        (tidy().drop(columns=["bid", "ask"]), {"quote_time": "2025-03-14"}, "'bid'"),
        (tidy().assign(bid=0.0, ask=0.0), {"quote_time": "2025-03-14"}, "no row can"),
        (tidy(), {"quote_time": "2026-03-14"}, "dropped 16: expired at the quote time"),
        (
            tidy().assign(ticker=["A"] * 4 + ["B"] * 12),
            {"quote_time": "2025-03-14"},
            r"2 underlyings in one table of 16 rows: B \(12\), A \(4\)",
        ),
        (
            tidy().assign(date=["2025-03-13"] * 4 + ["2025-03-14"] * 12),
            {},
            "2 quote dates in one table: 2025-03-13, 2025-03-14; choose",
        ),
        (tidy().assign(exp="soon"), {"quote_time": "2025-03-14"}, "not a date"),
    ],
)
def test_tables_that_cannot_be_chains(table, arguments, message):
    with pytest.raises(QuoteError, match=message):
        read_chain(table, **arguments)


def test_sources_that_cannot_be_read(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_chain(tmp_path / "missing.csv")
    with pytest.raises(FileNotFoundError):
        read_chain(tmp_path / "missing.parquet")
    with pytest.raises(QuoteError, match="holds no table of quotes"):
        read_chain(write(tmp_path / "empty.csv", ""))
    with pytest.raises(TypeError, match="a path or a DataFrame, not list"):
        read_chain([1, 2])  # type: ignore[arg-type]
    with gzip.open(tmp_path / "empty.csv.gz", "wt") as file:
        file.write("strike,bid,ask,expiry\n")
    with pytest.raises(QuoteError, match="has no rows"):
        read_chain(tmp_path / "empty.csv.gz")


def test_every_slice_of_a_real_spx_chain():
    """Implied rates are those of May 2019: near 2.4 % for a year, smooth."""
    chain = spx(2019)
    assert len(chain) == 39
    assert len(chain.rows) == len(chain.table) == 12_626
    assert len({date for date, _ in chain.slices}) == 34
    report = chain.report()
    assert report.slices["problem"].isna().all()
    assert report.rows.rows_used == 6_313
    assert report.rows.counts == {"in_the_money": 6_313}
    (note,) = (note for note in chain.notes if "disagrees" in note)
    assert "2,206 of 12,626 rows" in note
    assert "swapped in 2,206" in note
    slices = report.slices
    long = slices[slices["time_to_expiry"] > 0.25]
    assert long["rate"].between(0.023, 0.027).all()
    middle = slices[slices["time_to_expiry"].between(0.08, 0.25)]
    assert middle["rate"].between(0.025, 0.030).all()
    both = slices["rate"].unstack().dropna()
    assert (both["AM"] - both["PM"]).abs().max() < 0.0015
    forwards = slices["forward"].to_numpy()
    assert np.all(np.abs(np.diff(forwards)) < 6.0)
    assert slices["forward_standard_error"].max() < 0.3


def test_a_real_spx_chain_survives_corruption(rng):
    """A tenth of the quotes of every slice spoilt moves no forward by a half-spread."""
    chain = spx(2019)
    table = chain.to_frame()
    rows = rng.random(len(table)) < 0.1
    factor = rng.choice([0.5, 1.3, 2.0], rows.sum())
    table.loc[rows, "bid"] *= factor
    table.loc[rows, "ask"] *= factor
    spoilt = read_chain(table).report().slices
    clean = chain.report().slices
    moved = (spoilt["forward"] - clean["forward"]).abs()
    assert (moved < 5.0 * clean["forward_standard_error"] + 0.05).all()
    long = clean["time_to_expiry"] > 0.25
    assert (spoilt["rate"] - clean["rate"])[long].abs().max() < 0.002


@pytest.mark.parametrize(
    ("name", "slices", "rows"),
    [
        ("sx5e_20100301_andreasen_huge.csv", 12, 155),
        ("tsla_20180615_exp20200117.csv", 1, 61),
        ("tsla_20180615_exp20180720.csv", 1, 71),
    ],
)
def test_published_tables_of_volatilities(name, slices, rows):
    chain = read_chain(real_quotes(name))
    assert len(chain) == slices
    prepared = [prepare_quotes(one) for one in chain]
    assert sum(map(len, prepared)) == rows
    for one in prepared:
        assert one.implied_volatility is not None
        assert one.parity is None
        assert np.all(one.mid > 0.0)


# Contracts


def listed(symbols, **more):
    """A call and a put of each root or name, in a table with nothing but that."""
    rows = [
        {"strike": strike, "type": kind, "bid": 4.0, "ask": 4.2, **more}
        for strike in (95.0, 100.0, 105.0)
        for kind in ("call", "put")
    ]
    frame = pd.concat([pd.DataFrame(rows).assign(**one) for one in symbols])
    return frame.assign(expiry="2025-06-20").reset_index(drop=True)


@pytest.mark.parametrize(
    ("named", "multiplier"),
    [
        ({"root": "SPXW"}, 100.0),
        ({"root": "VIXW"}, 100.0),
        ({"root": "XSP"}, 100.0),
        ({"root": "NANOS"}, 1.0),
        ({"root": "ODAX"}, 5.0),
        ({"root": "OESX"}, 10.0),
        ({"root": "CL"}, np.nan),  # a share, or a future
        ({"root": "BTC-USDT"}, 1.0),
        ({"root": "SOL-USD"}, np.nan),
        ({"underlying": "^SPX"}, 100.0),
        ({"underlying": "OEX"}, 100.0),
        ({"underlying": "DAX"}, 5.0),
        ({"underlying": "XYZ"}, np.nan),
        ({"underlying": "DAX", "multiplier": 25.0}, 25.0),
        ({"underlying": "SPX", "multiplier": np.nan}, 100.0),
    ],
)
def test_a_multiplier_is_known_by_name_or_not_at_all(named, multiplier):
    frame = listed([named])
    chain = read_chain(frame, quote_time="2025-03-14", price_unit="currency")
    np.testing.assert_equal(chain.table["multiplier"].unique(), [multiplier])
    given = read_chain(
        frame, quote_time="2025-03-14", price_unit="currency", multiplier=7.0
    )
    assert set(given.table["multiplier"]) == {7.0}


@pytest.mark.parametrize(
    ("symbol", "multiplier"),
    [
        ("AAPL250620C00095000", 100.0),
        ("SPXW250620C00095000", 100.0),
        ("DAX250620C00095000", 100.0),  # the fund, not the index
        ("NANOS250620C00095000", 1.0),
        ("BTC-20JUN25-95-C", 1.0),
        ("BTC_USDC-20JUN25-95-C", np.nan),
        ("BTC-USD-250620-95-C", np.nan),  # parts of a coin
        ("ETH-250620-95-C", 1.0),
        ("SOL-20JUN25-95-C", np.nan),
    ],
)
def test_a_symbol_tells_the_multiplier(symbol, multiplier):
    frame = pd.DataFrame({"contract": [symbol], "bid": [4.0], "ask": [4.2]})
    chain = read_chain(frame, quote_time="2025-03-14", price_unit="currency")
    np.testing.assert_equal(chain.table["multiplier"].tolist(), [multiplier])


def test_futures_of_barchart_have_their_multipliers(tmp_path):
    text = (
        "Type,Strike,Latest,Bid,Ask,Volume,Open Int\nCall,60.00C,4,4.0,4.2,1,1\n"
        "Put,60.00P,2,2.0,2.2,1,1\n"
    )
    for name, multiplier in (("clv25", 1000.0), ("esz25", 50.0), ("zzz25", np.nan)):
        path = write(tmp_path / f"{name}-options-exp-2025-10-17.csv", text)
        chain = read_chain(path, quote_time="2025-09-08")
        assert chain.underlying == name.upper()
        np.testing.assert_equal(chain.table["multiplier"].unique(), [multiplier])


@pytest.mark.parametrize("multiplier", [0.0, -100.0, np.nan, np.inf])
def test_a_multiplier_is_positive(multiplier):
    with pytest.raises(ValueError, match="multiplier must be positive"):
        read_chain(
            listed([{"root": "SPX"}]), quote_time="2025-03-14", multiplier=multiplier
        )


@pytest.mark.parametrize("named", [{}, {"underlying": "OEX"}])
def test_american_and_european_options_are_kept_apart(named):
    """OEX and XEO are on one index and expire together: they are other options."""
    frame = listed([{"root": "OEX", **named}, {"root": "XEO", **named}])
    frame.loc[frame["root"] == "XEO", ["bid", "ask"]] = (
        3.9,
        3.95,
    )  # tighter, and cheaper
    with pytest.raises(QuoteError, match=r"2 underlyings .*OEX \(6\), XEO \(6\)"):
        read_chain(frame, quote_time="2025-03-14")
    chains = list(read_chains(frame.assign(quote_time="2025-03-14")))
    styles = {one.underlying: one.table["exercise_style"].unique() for one in chains}
    assert styles == {"OEX": ["american"], "XEO": ["european"]}
    for one in chains:
        assert len(one.table) == 6
        assert set(one.table["ask"]) == {4.2 if one.underlying == "OEX" else 3.95}
        assert set(one.table["multiplier"]) == {100.0}
        assert any("kept apart, as XEO" in note for note in one.notes)
    alone = read_chain(frame, quote_time="2025-03-14", underlying="oex")
    assert len(alone.table) == 6


def test_styles_without_roots_are_kept_apart():
    frame = listed(
        [
            {"underlying": "XYZ", "exercise_style": style}
            for style in ("American", "E", None)
        ]
    )
    chains = list(read_chains(frame.assign(quote_time="2025-03-14")))
    counts = {one.underlying: one.report().rows.rows_in for one in chains}
    assert counts == {"XYZ": 12, "XYZ european": 6}
    later = frame["exercise_style"] == "E"  # of another expiry, they do not meet
    frame.loc[later, "expiry"] = "2025-09-19"
    assert len(list(read_chains(frame.assign(quote_time="2025-03-14")))) == 1

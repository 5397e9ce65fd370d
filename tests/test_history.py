"""Histories on disk: what goes in comes out, whatever interrupts it."""

import dataclasses
import gc
import gzip
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
import weakref
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars
import pyarrow as pa
import pytest
from pyarrow import dataset, parquet
from test_files import contents, flipped

from relu_options.errors import QuoteError
from relu_options.market_data import OptionChain, read_chain, stored_chain
from relu_options.market_data.history import ChainHistory, trade_date
from relu_options.market_data.stored_chain import (
    PARTS,
    StoredChain,
    encode_chain,
    part_name,
    underlying_folder,
    underlying_of,
)
from relu_options.simulation import bundled_chain
from relu_options.simulation.bundled import bundled_history

SYMBOLS = [
    "SPX190621P02800000",
    "SPX190621C02900000",
    "SPXW190621P02800000",
    "SPXW190621C02900000",
    "SPXW190621C02900000",
    "not a contract",
]


def chain_of(date: str, underlying: Any = "SPX", **columns: Any) -> OptionChain:
    """A small chain at the close of a date, with a fault or two."""
    table = pd.DataFrame(
        {
            "underlying": underlying,
            "expiry": pd.Timestamp(date) + pd.Timedelta(days=30),
            "strike": [90.0, 100.0, 100.0, 110.0],
            "option_type": ["put", "put", "call", "call"],
            "bid": [1.0, 3.0, 3.3, 0.9],
            "ask": [1.2, 3.2, 3.1, 1.1],
            "underlying_price": 100.5,
        }
        | columns
    )
    return read_chain(table, quote_time=date)


def contract_chain():
    """Contracts settled AM and PM, with rows dropped and notes."""
    table = pd.DataFrame(
        {
            "contract": SYMBOLS,
            "strike": [2800.0, 2900.0, 2800.0, 2900.0, 2900.0, 2900.0],
            "bid": [31.0, 26.0, 31.5, 26.5, 20.0, 1.0],
            "ask": [31.4, 26.3, 31.9, np.nan, 30.0, 2.0],
            "volume": [1, 2, 3, 4, 5, 6],
        },
        index=pd.Index(list("abcdef"), name="line"),
    )
    return read_chain(table, quote_time="2019-05-17 16:15")


def labelled_chain():
    """A chain whose index has two levels, one of times, and whose floats are random."""
    rng = np.random.default_rng(5)
    chain = bundled_chain()
    rows = chain.rows.assign(bid=rng.random(len(chain.rows)), mid=rng.random())
    rows.index = pd.MultiIndex.from_arrays(
        [rows["expiry_time"], np.arange(len(rows))], names=["when", None]
    )
    return dataclasses.replace(chain, rows=rows)


def undated_chain():
    """A chain of American volatilities by time to expiry, of nobody knows what."""
    table = pd.DataFrame(
        {
            "time_to_expiry": [0.1, 0.1, 0.1, 0.5, 0.5, 0.5],
            "strike": [90.0, 100.0, 110.0] * 2,
            "implied_volatility": [0.25, 0.2, np.nan, 0.24, 0.21, 0.19],
            "exercise_style": "american",
        },
        index=[7, 5, 3, 1, 0, 2],
    )
    return read_chain(table)


two_missing_strings = pytest.mark.filterwarnings(
    "ignore:Mismatched null-like values:FutureWarning"
)
"""pandas 2 has None and NaN where later releases have one missing string."""


def part_of_chain():
    """One slice of a chain, whose rows say nothing of the others."""
    return bundled_chain()["2025-06-20"]


CHAINS = [
    bundled_chain,
    contract_chain,
    labelled_chain,
    undated_chain,
    part_of_chain,
]


def assert_same_chain(one, other):
    """Assert that two chains are one: rows, rules, labels and everything beside."""
    pd.testing.assert_frame_equal(one.rows, other.rows, check_exact=True)
    np.testing.assert_array_equal(one.codes, other.codes)
    for field in dataclasses.fields(OptionChain):
        if field.name not in ("rows", "codes", "_whole"):
            assert getattr(one, field.name) == getattr(other, field.name), field.name
    assert one.slices == other.slices
    assert repr(one) == repr(other)
    assert repr(one.report()) == repr(other.report())


@pytest.mark.parametrize("file_format", PARTS)
@pytest.mark.parametrize("chain", CHAINS, ids=lambda make: make.__name__)
def test_everything_that_a_chain_has_survives(chain, file_format, tmp_path):
    history = ChainHistory(tmp_path, file_format=file_format)
    history.append(chain(), date="2025-03-14")
    assert_same_chain(history["2025-03-14"], chain())


def test_no_field_of_a_chain_is_forgotten():
    """A field added to chains must be stored by `encode_chain`, and then named here."""
    names = {field.name for field in dataclasses.fields(OptionChain)}
    stored = {"rows", "codes", "quote_time", "notes", "_only_slice", "layout"}
    stored |= {"strange_types", "expiry_given", "kernel"}
    assert names - {"_whole"} == stored  # a part is stored without its whole


@pytest.mark.parametrize("file_format", PARTS)
def test_rows_without_an_underlying_come_back_so(file_format, tmp_path):
    chain = chain_of("2025-03-14", underlying=["SPX", None, None, "SPX"])
    assert chain.rows["underlying"].isna().sum() == 2
    history = ChainHistory(tmp_path, file_format=file_format)
    history.append(chain)
    assert_same_chain(history["2025-03-14"], chain)


def test_encoding_is_the_same_every_time():
    for file_format in PARTS:
        once, again = (encode_chain(bundled_chain(), file_format) for _ in range(2))
        assert once == again


def test_what_cannot_be_stored_is_refused():
    chain = chain_of("2025-03-14")
    mixed = dataclasses.replace(chain, rows=chain.rows.set_axis([1, "a", 2, "b"]))
    with pytest.raises(QuoteError, match=r"labels .* of dtype object cannot be stored"):
        encode_chain(mixed, "csv")
    taken = dataclasses.replace(chain, rows=chain.rows.assign(rule="mine"))
    with pytest.raises(QuoteError, match=r"columns \['rule'\] have names"):
        encode_chain(taken, "csv")


def three_days(path, **options):
    """A history of three dates."""
    history = ChainHistory(path, **options)
    for date in ("2025-03-14", "2025-03-17", "2025-03-19"):
        history.append(chain_of(date))
    return history


@pytest.mark.parametrize("file_format", PARTS)
def test_a_history_is_a_mapping_from_dates_to_chains(file_format, tmp_path):
    history = three_days(tmp_path, file_format=file_format)
    assert len(history) == 3
    assert list(history) == list(history.dates) == list(history.keys())
    assert history.dates.tz is None
    assert history.dates.is_monotonic_increasing
    assert history.underlyings == ["SPX"]
    assert "2025-03-14" in history
    assert pd.Timestamp("2025-03-17") in history
    assert "2025-03-18" not in history
    assert "nonsense" not in history
    for date, chain in history.items():
        assert trade_date(chain) == date
    assert repr(history) == (
        "ChainHistory(SPX: 3 dates from 2025-03-14 to 2025-03-19, 12 rows)"
    )
    assert ChainHistory(tmp_path) == ChainHistory(str(tmp_path))


def test_dates_are_those_of_the_market_not_of_utc():
    """Late in New York it is already tomorrow in London; coins trade by UTC."""
    assert trade_date(chain_of("2025-03-14 23:30")) == pd.Timestamp("2025-03-14")
    chain = chain_of("2025-03-14 23:30")
    assert chain.quote_time is not None
    assert chain.quote_time.day == 15
    coins = dataclasses.replace(chain, rows=chain.rows.assign(settlement="08:00 UTC"))
    assert trade_date(coins) == pd.Timestamp("2025-03-15")
    assert trade_date(chain, "2025-03-13") == pd.Timestamp("2025-03-13")
    with pytest.raises(QuoteError, match="no quote time, so no date; pass `date=`"):
        trade_date(undated_chain())


def test_scan_chooses_dates_and_expiries(tmp_path):
    history = three_days(tmp_path)

    def dates(*args, **options):
        return [f"{trade_date(one):%m-%d}" for one in history.scan(*args, **options)]

    assert dates() == ["03-14", "03-17", "03-19"]
    assert dates(slice("2025-03-15", None)) == ["03-17", "03-19"]
    assert dates(slice(None, "2025-03-17")) == ["03-14", "03-17"]
    assert dates(slice("2025-03-17", "2025-03-17")) == ["03-17"]
    assert dates(slice("2025-03-20", None)) == []
    assert dates(["2025-03-19", "2025-03-14"]) == ["03-14", "03-19"]
    assert dates("2025-03-19") == ["03-19"]
    assert dates(expiries=["2025-04-16"]) == ["03-17"]
    with pytest.raises(KeyError, match=r"no chain of 1 of 2 dates, first 2025-03-18"):
        dates(["2025-03-14", "2025-03-18"])
    with pytest.raises(ValueError, match="a slice of dates has no step"):
        dates(slice(None, None, 2))


@two_missing_strings
def test_scan_keeps_the_rows_of_the_expiries(tmp_path):
    history = ChainHistory(tmp_path)
    history.append(bundled_chain())
    (chain,) = history.scan(expiries=["2025-06-20", "2025-09-19"])
    assert [one[0] for one in chain.slices] == [
        pd.Timestamp("2025-06-20"),
        pd.Timestamp("2025-09-19"),
    ]
    expected = bundled_chain()["2025-06-20"].table
    pd.testing.assert_frame_equal(chain["2025-06-20"].table, expected)


def test_scan_loads_one_chain_at_a_time(tmp_path):
    """A later file is not touched before its turn, an earlier chain is not kept."""
    history = three_days(tmp_path)
    damaged = next(tmp_path.glob("*/date=2025-03-19/part*"))
    damaged.write_bytes(b"nothing")
    chains = history.scan()
    first = next(chains)
    gone = weakref.ref(first)
    del first
    second = next(chains)
    gc.collect()
    assert gone() is None
    assert trade_date(second) == pd.Timestamp("2025-03-17")
    with pytest.raises(QuoteError, match="2025-03-19"):
        next(chains)


@two_missing_strings
def test_tables_are_the_used_rows_of_all_dates(tmp_path):
    history = three_days(tmp_path)
    table = history.to_frame()
    assert table["date"].value_counts().tolist() == [3, 3, 3]  # one quote is crossed
    day = table[table["date"] == "2025-03-17"].drop(columns="date")
    expected = chain_of("2025-03-17").to_frame()
    pd.testing.assert_frame_equal(
        day.reset_index(drop=True), expected.reset_index(drop=True)
    )
    assert len(history.to_frame(slice("2025-03-15", None))) == 6
    with pytest.raises(KeyError, match="there is no chain to make a table of"):
        history.to_frame(slice("2026-01-01", None))


class TestReaders:
    """Others read the folder as it is, with all that lies in it."""

    @pytest.fixture
    def folder(self, tmp_path):
        history = three_days(tmp_path)
        history.append(chain_of("2025-03-17", underlying="BRK/B"))
        for name in ("SPX", "BRK/B"):
            history.of(name).write_splits({"2025-03-17": 2.0})
        left = next(tmp_path.glob("underlying=SPX/date=2025-03-14"))
        (left / ".part.parquet.0.tmp").write_bytes(b"PAR1 and then killed")
        return tmp_path

    def test_pyarrow(self, folder):
        table = dataset.dataset(folder, format="parquet", partitioning="hive")
        frame = table.to_table().to_pandas()
        assert sorted(frame["underlying"].unique()) == ["BRK/B", "SPX"]
        assert frame.groupby(["underlying", "date"]).size().tolist() == [4] * 4
        used = frame[(frame["rule"] == "used") & (frame["underlying"] == "SPX")]
        ours = ChainHistory(folder).to_frame(underlying="SPX")
        assert used["bid"].sum() == pytest.approx(ours["bid"].sum(), rel=1e-15)
        columns = [one for one in table.schema if not one.name.startswith("label_")]
        kinds = {str(column.type) for column in columns}
        assert kinds == {
            "double",
            "string",
            "timestamp[us]",
            "timestamp[us, tz=UTC]",
        }

    def test_duckdb(self, folder):
        relation = duckdb.sql(
            "select underlying, date, count(*), max(expiry - date) "
            f"from read_parquet('{folder}/**/*.parquet', hive_partitioning=true) "
            "group by all order by all"
        )
        assert relation is not None
        rows = relation.fetchall()
        assert [row[:3] for row in rows] == [
            ("BRK/B", pd.Timestamp("2025-03-17").date(), 4),
            ("SPX", pd.Timestamp("2025-03-14").date(), 4),
            ("SPX", pd.Timestamp("2025-03-17").date(), 4),
            ("SPX", pd.Timestamp("2025-03-19").date(), 4),
        ]
        assert all(row[3].days == 30 for row in rows)

    def test_polars(self, folder):
        lazy = polars.scan_parquet(f"{folder}/**/*.parquet", hive_partitioning=True)
        counts = lazy.group_by("underlying", "date").len().collect()
        assert counts["len"].to_list() == [4] * 4
        assert set(counts["underlying"]) == {"BRK/B", "SPX"}


@pytest.mark.parametrize("file_format", PARTS)
def test_the_same_chain_again_changes_nothing(file_format, tmp_path):
    history = three_days(tmp_path, file_format=file_format)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("part*")}
    three_days(tmp_path, file_format=file_format)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    # Nor in the other format: it is the same chain.
    other = "csv" if file_format == "parquet" else "parquet"
    three_days(tmp_path, file_format=other)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(history) == 3


def test_another_chain_of_a_date_needs_overwrite(tmp_path):
    history = three_days(tmp_path)
    other = chain_of("2025-03-17", bid=[1.0, 3.0, 3.1, 0.8])
    with pytest.raises(
        ValueError, match=r"another chain of 2025-03-17 is in .*overwrite"
    ):
        history.append(other)
    assert_same_chain(history["2025-03-17"], chain_of("2025-03-17"))
    history.append(other, overwrite=True)
    assert_same_chain(history["2025-03-17"], other)
    assert len(history) == 3


def test_overwriting_in_another_format_leaves_one_file(tmp_path):
    three_days(tmp_path, file_format="parquet")
    history = ChainHistory(tmp_path, file_format="csv")
    history.append(chain_of("2025-03-17"), overwrite=True)
    names = sorted(path.name for path in tmp_path.rglob("part*"))
    assert names == ["part.csv.gz", "part.parquet", "part.parquet"]
    assert_same_chain(history["2025-03-17"], chain_of("2025-03-17"))


@pytest.mark.parametrize("file_format", PARTS)
def test_files_of_both_formats_become_one(file_format, tmp_path):
    """As a process leaves them that was killed between the new file and the old."""
    history = three_days(tmp_path, file_format="parquet")
    other = chain_of("2025-03-17", bid=0.5)
    path = tmp_path / part_name("SPX", "2025-03-17", "csv")
    path.write_bytes(encode_chain(other, "csv"))
    assert_same_chain(history["2025-03-17"], chain_of("2025-03-17"))
    assert len(history) == len(list(history.scan())) == 3
    ChainHistory(tmp_path, file_format=file_format).append(other, overwrite=True)
    assert [one.name for one in path.parent.iterdir()] == [PARTS[file_format]]
    assert_same_chain(history["2025-03-17"], other)


def test_a_history_goes_on_in_its_own_format(tmp_path):
    three_days(tmp_path, file_format="csv")
    ChainHistory(tmp_path).append(chain_of("2025-03-20"))
    assert len(list(tmp_path.rglob("part.csv.gz"))) == 4


def test_without_pyarrow_a_history_is_csv(tmp_path, monkeypatch):
    monkeypatch.setattr("relu_options.market_data.history.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    monkeypatch.delattr(pa, "parquet", raising=False)
    history = three_days(tmp_path)
    assert len(list(tmp_path.rglob("part.csv.gz"))) == 3
    assert_same_chain(history["2025-03-17"], chain_of("2025-03-17"))
    with pytest.raises(ImportError, match=r"pip install relu_options\[parquet\]"):
        three_days(tmp_path / "other", file_format="parquet")
    assert not (tmp_path / "other").exists()


def test_several_underlyings_are_told_apart(tmp_path):
    history = three_days(tmp_path)
    history.append(chain_of("2025-03-17", underlying="AAPL"))
    history.append(chain_of("2025-03-18", underlying="AAPL"))
    assert history.underlyings == ["AAPL", "SPX"]
    assert [f"{date:%d}" for date in history] == ["14", "17", "18", "19"]
    assert repr(history) == (
        "ChainHistory(AAPL, SPX: 4 dates from 2025-03-14 to 2025-03-19, 20 rows)"
    )
    with pytest.raises(ValueError, match=r"2 underlyings: AAPL, SPX; .*of\('AAPL'\)"):
        history["2025-03-17"]
    with pytest.raises(ValueError, match="2 underlyings"):
        _ = history.splits
    apple = history.of("AAPL")
    assert apple["2025-03-17"].underlying == "AAPL"
    assert len(apple) == 2
    assert [one.underlying for one in history.scan("2025-03-17")] == ["AAPL", "SPX"]
    assert [one.underlying for one in history.scan(underlying="AAPL")] == ["AAPL"] * 2
    apple.write_splits({"2025-03-18": 4.0})
    assert history.of("SPX").splits.empty
    with pytest.raises(ValueError, match="a chain on SPX in the history of AAPL"):
        apple.append(chain_of("2025-03-20"))
    with pytest.raises(ValueError, match="the history of AAPL, not of SPX"):
        apple.of("SPX")
    with pytest.raises(KeyError, match=r"no chain of 2025-03-19; the nearest are"):
        apple["2025-03-19"]


NAMES = [
    "BRK/B",
    "SPX^",
    "a=b",
    "..",
    ".",
    "BRK.",
    "../../etc",
    "C:\\nul",
    "É & co",
    "100%",
    "%2F",
    "__HIVE_DEFAULT_PARTITION__",
    "__hive_default_partition__",
    "_splits.csv",
    "spx",
    "SPX",
    "NULL",
    "nan",
    " SPX",
    "日経225",
    "X" * 244,
]


@pytest.mark.parametrize("file_format", PARTS)
def test_any_name_is_a_folder_and_back(file_format, tmp_path):
    """All in one history, each as other readers of such folders decode it."""
    history = ChainHistory(tmp_path, file_format=file_format)
    for place, name in enumerate([*NAMES, None]):
        chain = chain_of("2025-03-14", underlying="SPX", underlying_price=100.0 + place)
        rows = chain.rows.assign(underlying=pd.Series([name] * 4, dtype="str"))
        history.append(dataclasses.replace(chain, rows=rows))
    assert history.underlyings == [*sorted(NAMES), None]
    for place, name in enumerate(NAMES):
        chain = history.of(name)["2025-03-14"]
        assert chain.underlying == name
        assert chain.table["underlying_price"].iloc[0] == 100.0 + place
    folders = {path.parent.parent for path in tmp_path.rglob("part.*")}
    assert len({path.name.casefold() for path in folders}) == len(NAMES) + 1
    if file_format == "parquet":
        table = dataset.dataset(tmp_path, format="parquet", partitioning="hive")
        found = set(table.to_table()["underlying"].to_pylist())
        # pyarrow takes a missing name for one that is spelled as Hive's.
        assert found == {*NAMES, None} - {"__HIVE_DEFAULT_PARTITION__"}


def test_names_of_folders_are_told_apart_whatever_the_case(rng):
    """Names drawn at random, in which capitals, dots and percent signs abound."""
    letters = "aAbB._%=/é0 ßİ\u0301\U0001f600\x00"
    draws = (rng.integers(len(letters), size=rng.integers(1, 6)) for _ in range(3000))
    names = {"".join(letters[place] for place in draw) for draw in draws}
    folders = {underlying_folder(name): name for name in names}
    assert len({folder.casefold() for folder in folders}) == len(names)
    assert {folder: underlying_of(folder) for folder in folders} == folders
    safe = re.compile(r"underlying=[A-Z0-9_~%.-]*[A-Z0-9_~-]")
    assert all(safe.fullmatch(folder) for folder in folders)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "'' of 0 characters cannot name a folder"),
        ("X" * 245, "of 245 characters cannot name a folder, which has room for 1 to"),
        ("x" * 82, "of 82 characters cannot name a folder"),
        ("\udc80", "is no text"),
    ],
)
def test_names_that_no_folder_can_have_are_refused(name, message):
    with pytest.raises(QuoteError, match=message):
        underlying_folder(name)


@pytest.mark.parametrize("folder", ["spx", "SPX%2f", "A B", "%FF", ""])
def test_folders_that_are_not_of_an_underlying_are_named(folder, tmp_path):
    history = three_days(tmp_path)
    (tmp_path / f"underlying={folder}").mkdir()
    with pytest.raises(QuoteError, match=f"'underlying={folder}' of a history is not"):
        _ = history.underlyings


@pytest.mark.parametrize("file_format", PARTS)
@pytest.mark.parametrize("damage", ["empty", "cut", "changed", "other"])
def test_a_damaged_file_is_named(file_format, damage, tmp_path):
    history = three_days(tmp_path, file_format=file_format)
    path = tmp_path / part_name("SPX", "2025-03-17", file_format)
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(
        {
            "empty": b"",
            "cut": content[:middle],
            "changed": content[:middle] + b"\x00\xff" * 20 + content[middle + 40 :],
            "other": gzip.compress(b"strike,bid\n1,2\n"),
        }[damage]
    )
    with pytest.raises(
        QuoteError, match=r"2025-03-17/part.* cannot be read: .*overwrite"
    ):
        history["2025-03-17"]
    assert len(history["2025-03-14"].table) == 3
    history.append(chain_of("2025-03-17"), overwrite=True)
    assert_same_chain(history["2025-03-17"], chain_of("2025-03-17"))


def read_of(history, kind):
    """All that a history says from the files of a kind, as text; or why it does not."""
    try:
        if kind in TABLES:
            return pd.DataFrame(getattr(history, kind[1:])).to_csv()
        (chain,) = history.scan()
        prices = history.underlying_prices.to_csv()
        return f"{chain.rows.to_csv()} {chain.codes} {chain!r} {history!r} {prices}"
    except QuoteError as error:
        return error


DAMAGED = 100  # files of each kind; 2,000 have been tried
TABLES = ("_splits", "_settlement_prices", "_underlying_prices", "_calendar")


def damages(content, rng, count):
    """Copies of a file with a bit flipped, and a few cut, overwritten or emptied."""
    for _ in range(count):
        yield flipped(content, rng)
    for place in rng.integers(0, len(content), count // 10):
        yield content[:place]
        yield content[:place] + rng.bytes(20) + content[place + 20 :]
    yield from (b"", b"\n", b"#", b"\x00" * len(content))


@pytest.mark.parametrize("kind", [*PARTS, *TABLES])
def test_no_damage_is_read_as_something_else(kind, tmp_path, rng):
    """A file with a bit flipped is named, or nothing that is read of it changes."""
    history = ChainHistory(tmp_path, file_format="csv" if kind in TABLES else kind)
    history.append(chain_of("2025-03-14"))
    history.write_splits({"2025-03-17": 2.0})
    price = {"expiry": ["2025-04-18"], "settlement": ["AM"], "price": [99.25]}
    history.write_settlement_prices(pd.DataFrame(price))
    history.write_underlying_prices({"2025-03-17": 7.5, "2025-03-18": 8.0})
    history.write_calendar(["2025-03-14", "2025-03-17"])
    expected = read_of(history, kind)
    assert isinstance(expected, str)
    path = next(tmp_path.rglob(f"{kind}.csv" if kind in TABLES else "part.*"))
    content = path.read_bytes()
    seen = {True: 0, False: 0}
    for damaged in damages(content, rng, DAMAGED):
        path.write_bytes(damaged)
        found = read_of(history, kind)
        if isinstance(found, QuoteError):
            assert path.relative_to(tmp_path).as_posix() in str(found)
        else:
            assert found == expected
        seen[isinstance(found, QuoteError)] += 1
    assert seen[True] > 0.9 * sum(seen.values())


def test_other_readers_can_check_the_pages_of_a_file(tmp_path, rng):
    """Flips beside the footer are found by pyarrow, which knows of no digest."""
    content = encode_chain(bundled_chain(), "parquet")
    footer = int.from_bytes(content[-8:-4], "little") + 8
    pages, rest = content[:-footer], content[-footer:]
    expected = bundled_chain().rows["bid"].to_numpy()
    for _ in range(30):
        path = tmp_path / "part.parquet"
        path.write_bytes(flipped(pages, rng) + rest)
        try:
            table = parquet.read_table(path, page_checksum_verification=True)
        except (OSError, ValueError, NotImplementedError):
            continue
        np.testing.assert_array_equal(table["bid"].to_numpy(), expected)


@pytest.mark.parametrize("file_format", PARTS)
def test_a_damaged_header_is_named(file_format, tmp_path):
    history = three_days(tmp_path, file_format=file_format)
    path = tmp_path / part_name("SPX", "2025-03-17", file_format)
    assert history.stored("2025-03-17").header()["underlying_price"] == 100.5
    path.write_bytes(path.read_bytes()[:30])
    with pytest.raises(QuoteError, match=r"part.* cannot be read: .*overwrite"):
        repr(history)


def test_a_file_of_another_version_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(stored_chain, "FORMAT", "relu_options.OptionChain/2")
    history = three_days(tmp_path)
    monkeypatch.undo()
    with pytest.raises(QuoteError, match=r"part.* format 'relu_options.OptionChain/1'"):
        history["2025-03-17"]


def test_folders_in_the_place_of_files_are_named(tmp_path):
    history = three_days(tmp_path)
    underlying = tmp_path / underlying_folder("SPX")
    (underlying / "date=2025-03-18" / "part.parquet").mkdir(parents=True)
    assert "2025-03-18" in history
    with pytest.raises(QuoteError, match=r"date=2025-03-18/part.parquet is a folder"):
        history["2025-03-18"]
    (underlying / "_splits.csv").mkdir()
    with pytest.raises(QuoteError, match=r"_splits.csv cannot be read: .*directory"):
        _ = history.splits


@pytest.mark.parametrize("name", ["date=2025-3-18", "date=2025-02-30", "date=soon"])
def test_folders_that_are_not_of_a_date_are_named(name, tmp_path):
    history = three_days(tmp_path)
    (tmp_path / underlying_folder("SPX") / name).mkdir()
    with pytest.raises(QuoteError, match=f"{name} is not the folder of a date: .*move"):
        _ = history.dates


def test_tables_may_be_edited_by_hand_on_purpose(tmp_path):
    history = three_days(tmp_path)
    folder = tmp_path / underlying_folder("SPX")
    (folder / "_splits.csv").write_text("date,ratio\n2025-03-19,2\n2025-03-17,0.5\n")
    assert history.splits.tolist() == [0.5, 2.0]
    history.write_underlying_prices({"2025-03-17": 7.5})
    path = folder / "_underlying_prices.csv"
    written = path.read_bytes()
    path.write_bytes(written.replace(b"\n", b"\r\n"))
    assert history.underlying_prices["2025-03-17"] == 7.5
    edited = written.replace(b"7.5", b"7.6")
    path.write_bytes(edited)
    with pytest.raises(QuoteError, match=r"_underlying_prices.csv cannot be read: it "):
        _ = history.underlying_prices
    path.write_bytes(edited.partition(b"\n")[2])
    assert history.underlying_prices["2025-03-17"] == 7.6
    for text, message in {
        "day,ratio\n2025-03-17,2\n": r"missing \['date'\]",
        "date,ratio\n2025-03-17,2\n2025-03-17,3\n": "1 of 2 rows do not have a date",
        "date,ratio\n2025-03-17,-2\n": "do not have a positive ratio",
        "date,ratio\n2025-03-17,\n": "do not have a positive ratio",
        "date,ratio\nsoon,2\n": "1 of 1 rows do not have a date as 2025-03-14: soon",
        "date,ratio\n03/04/2025,2\n": "a date as 2025-03-14: 03/04/2025",
        "date,ratio\n2025-02-30,2\n": "is not a date",
        "date,ratio\n2025-03-17,two\n": "could not convert string to float",
        "# the splits\ndate,ratio\n2025-03-17,2\n": "it has no digest",
    }.items():
        (folder / "_splits.csv").write_text(text)
        with pytest.raises(
            QuoteError, match=rf"_splits.csv cannot be read: .*{message}"
        ):
            _ = history.splits


def test_a_missing_date_names_its_neighbours(tmp_path):
    history = three_days(tmp_path)
    message = (
        "no chain of 2025-03-18; the nearest are 2025-03-14, 2025-03-17, 2025-03-19"
    )
    with pytest.raises(KeyError, match=message):
        history["2025-03-18"]
    with pytest.raises(QuoteError, match="'soon' is not a date"):
        history["soon"]
    with pytest.raises(KeyError, match="no chain of 2025-03-18; there is none of any"):
        ChainHistory(tmp_path / "new")["2025-03-18"]


def test_an_empty_history_says_so_and_writes_nothing(tmp_path):
    history = ChainHistory(tmp_path / "new")
    assert repr(history) == f"ChainHistory({tmp_path / 'new'}: empty)"
    assert len(history) == 0
    assert history.splits.empty
    assert history.settlement_prices.empty
    assert history.underlying_prices.empty
    assert history.missing_dates.empty
    assert list(history.scan()) == []
    assert not (tmp_path / "new").exists()
    with pytest.raises(ValueError, match="no chain says yet on which underlying"):
        history.write_splits({"2025-03-14": 2.0})


def test_a_history_is_a_folder(tmp_path):
    (tmp_path / "quotes.csv").write_text("strike\n")
    with pytest.raises(ValueError, match=r"quotes\.csv is a file, and a history is a"):
        ChainHistory(tmp_path / "quotes.csv")
    with pytest.raises(ValueError, match="file_format must be one of"):
        ChainHistory(tmp_path, file_format="feather")


def test_reading_leaves_a_folder_as_it_is(tmp_path):
    """Not one file or time of change differs after all was read."""
    history = three_days(tmp_path)
    history.write_splits({"2025-03-17": 2.0})

    def state():
        paths = [tmp_path, *tmp_path.rglob("*")]
        return {path: path.stat().st_mtime_ns for path in paths}

    before = state()
    if os.name == "posix":
        for path in before:
            path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        again = ChainHistory(tmp_path)
        repr(again)
        list(again.scan())
        again.to_frame()
        for name in ("splits", "settlement_prices", "underlying_prices", "calendar"):
            getattr(again, name)
        assert state() == before
    finally:
        for path in before:
            path.chmod(0o755 if path.is_dir() else 0o644)


def test_tables_beside_the_chains(tmp_path):
    history = three_days(tmp_path)
    history.write_splits(pd.Series({"2025-03-19": 0.1, "2025-03-17": 2.0}))
    assert history.splits.to_dict() == {
        pd.Timestamp("2025-03-17"): 2.0,
        pd.Timestamp("2025-03-19"): 0.1,
    }
    prices = pd.DataFrame(
        {
            "expiry": ["2025-04-18", "2025-04-18", "2025-03-21"],
            "settlement": ["PM", "AM", "AM"],
            "price": [101.0, 1 / 3, 99.0],
        }
    )
    history.write_settlement_prices(prices)
    table = history.settlement_prices
    assert table["settlement"].tolist() == ["AM", "AM", "PM"]
    assert table["price"].tolist() == [99.0, 1 / 3, 101.0]
    assert table["expiry"].is_monotonic_increasing
    history.write_settlement_prices(prices[["expiry", "price"]].iloc[1:])
    assert history.settlement_prices["settlement"].tolist() == ["PM", "PM"]
    assert history.underlying_prices.tolist() == [100.5] * 3
    history.write_underlying_prices({"2025-03-17": 7.5, "2025-03-18": 8.0})
    assert history.underlying_prices.tolist() == [100.5, 7.5, 8.0, 100.5]
    assert history.underlying_prices.index.name == "date"


def test_underlying_prices_that_differ_within_a_chain_say_nothing(tmp_path):
    history = three_days(tmp_path)
    chain = chain_of("2025-03-18", underlying_price=[100.0, 101.0, 100.0, 100.0])
    history.append(chain)
    assert pd.Timestamp("2025-03-18") not in history.underlying_prices.index


def test_gaps_are_the_expected_dates_without_a_chain(tmp_path):
    history = three_days(tmp_path)
    assert history.missing_dates.empty
    assert history.calendar.equals(history.dates)
    history.write_calendar(pd.bdate_range("2025-03-10", "2025-03-25"))
    assert history.missing_dates.strftime("%m-%d").tolist() == ["03-18"]
    assert "(1 missing)" in repr(history)
    history.append(chain_of("2025-03-18"))
    assert history.missing_dates.empty


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"expiry": ["2025-03-21"]}, r"missing \['price'\]"),
        (
            {"expiry": ["2025-03-21"], "settlement": ["noon"], "price": [1.0]},
            "1 of 1 rows do not have a settlement among .*noon",
        ),
        ({"expiry": ["2025-03-21"], "price": [np.nan]}, "a positive price"),
        (
            {"expiry": ["2025-03-21"], "price": [-1.0]},
            "a positive price: 2025-03-21 PM",
        ),
        (
            {"expiry": ["2025-03-21"] * 2, "price": [1.0, 2.0]},
            "1 of 2 rows do not have an expiry and settlement of their own",
        ),
        (
            {"expiry": [pd.NaT, "2025-03-21"], "price": [1.0, 2.0]},
            "1 of 2 rows do not have an expiry: NaT PM 1.0",
        ),
    ],
)
def test_settlement_prices_must_make_sense(table, message, tmp_path):
    history = three_days(tmp_path)
    with pytest.raises(ValueError, match=message):
        history.write_settlement_prices(pd.DataFrame(table))
    assert history.settlement_prices.empty


@pytest.mark.parametrize("ratio", [0.0, -2.0, np.nan, np.inf])
def test_splits_must_be_positive(ratio, tmp_path):
    history = three_days(tmp_path)
    with pytest.raises(ValueError, match="1 of 2 rows do not have a positive ratio"):
        history.write_splits({"2025-03-14": 2.0, "2025-03-17": ratio})


@pytest.mark.parametrize("date", [None, np.nan, pd.NaT, ""])
def test_what_has_no_date_is_not_written(date, tmp_path):
    history = three_days(tmp_path)
    with pytest.raises(ValueError, match="a date"):
        history.write_splits({"2025-03-14": 2.0, date: 3.0})
    with pytest.raises(ValueError, match="a date"):
        history.write_underlying_prices({"2025-03-14": 2.0, date: 3.0})
    with pytest.raises(ValueError, match="a date"):
        history.write_calendar(["2025-03-14", date])
    assert history.splits.empty
    assert history.missing_dates.empty


KILLED = """
import os, signal, sys
from pathlib import Path
from test_history import chain_of
from relu_options.market_data import history

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def half(descriptor):
    os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
    die()

if sys.argv[2] == "half written":
    history.os.fsync = half
else:
    Path.replace = die
chain = chain_of("2025-03-17", bid=[1.0, 3.0, 3.1, 0.8])
history.ChainHistory(sys.argv[1], file_format=sys.argv[3]).append(chain, overwrite=True)
"""


def run_killed(script, *arguments):
    """Run a script that kills itself."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])
    }
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        env=environment,
        timeout=600,
        check=False,
        capture_output=True,
    )
    assert run.returncode == -signal.SIGKILL, run.stderr.decode()


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
@pytest.mark.parametrize("moment", ["half written", "not in place"])
@pytest.mark.parametrize("there", [True, False])
def test_a_process_killed_while_appending_loses_nothing(moment, there, tmp_path):
    """What was there is there still, nothing half-written shows, and it can go on."""
    history = ChainHistory(tmp_path, file_format="csv")
    dates = ["2025-03-14", "2025-03-17"] if there else ["2025-03-14"]
    for date in dates:
        history.append(chain_of(date))
    before = contents(tmp_path)
    run_killed(KILLED, tmp_path, moment, "csv")
    after = contents(tmp_path)
    left, lock = sorted(after.keys() - before.keys(), reverse=True)
    assert "/.part.csv.gz." in left
    assert lock.endswith("/.lock")
    assert {name: after[name] for name in before} == before
    assert [f"{date:%Y-%m-%d}" for date in history] == dates
    assert len(list(history.scan())) == len(dates)
    repr(history)
    whole = chain_of("2025-03-17", bid=[1.0, 3.0, 3.1, 0.8])
    history.append(whole, overwrite=True)
    assert_same_chain(history["2025-03-17"], whole)
    assert contents(tmp_path).keys() == {
        part_name("SPX", date, "csv") for date in ("2025-03-14", "2025-03-17")
    }


IMPORT = """
import sys
from relu_options.simulation.bundled import bundled_history
from relu_options.market_data.history import ChainHistory

history = ChainHistory(sys.argv[1], file_format="csv")
for chain in bundled_history().scan():
    history.append(chain)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_an_import_that_was_killed_is_simply_run_again(tmp_path):
    """To the same bytes as one that was not."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", IMPORT, str(tmp_path / "killed")]
    process = subprocess.Popen(command, env=environment)
    try:
        deadline = time.monotonic() + 600
        while len(ChainHistory(tmp_path / "killed")) < 3:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.001)
    finally:
        process.kill()
        process.wait()
    history = ChainHistory(tmp_path / "killed", file_format="csv")
    assert 3 <= len(history) < len(bundled_history())
    clean = ChainHistory(tmp_path / "clean", file_format="csv")
    for chain in bundled_history().scan():
        history.append(chain)
        clean.append(chain)
    assert contents(tmp_path / "killed") == contents(tmp_path / "clean")


ROUNDS = 8  # 200 have been tried

TOGETHER = """
import sys, time
from pathlib import Path
import numpy as np
from relu_options.market_data.history import ChainHistory
from test_history import chain_of, round_dates

path, start, me, rounds = Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:])
rng = np.random.default_rng(me)
for place in range(rounds):
    # The same format or the other one, in turn.
    file_format = "csv" if (me * place) % 2 else "parquet"
    history = ChainHistory(path, file_format=file_format)
    shared, *own = round_dates(place)
    chain = chain_of(shared, bid=[1.0, 3.0, 3.1, 0.8 - 0.1 * me])
    (start / f"{place} {me}").touch()
    while not (start / f"{place} {1 - me}").exists():
        pass
    time.sleep(rng.uniform(0.0, 0.003))
    try:
        history.append(chain)
        outcome = "written"
    except ValueError as error:
        outcome = "told" if "another chain" in str(error) else repr(error)
    history.append(chain_of(own[me]))
    history.append(chain_of(own[2], bid=0.5), overwrite=True)
    history.write_underlying_prices({shared: 1.0 + me, own[me]: 2.0 + me})
    print(outcome)
"""


def round_dates(place):
    """The date that two processes append to in a round, one for each, and another."""
    days = pd.bdate_range("2010-01-04", periods=4 * place + 4)[-4:]
    return [f"{day:%Y-%m-%d}" for day in days]


def test_two_processes_append_and_one_reads(tmp_path):
    """Of two chains of one date one is there, and the other's process is told so."""
    path, start = tmp_path / "history", tmp_path / "start"
    start.mkdir()
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])
    }
    command = [sys.executable, "-c", TOGETHER, str(path), str(start)]
    running = [
        subprocess.Popen(
            [*command, str(me), str(ROUNDS)], env=environment, stdout=subprocess.PIPE
        )
        for me in range(2)
    ]
    history = ChainHistory(path)
    while any(process.poll() is None for process in running):
        for chain in history.scan():  # what can be read is whole, at any time
            assert len(chain.rows) == 4
        if len(history):
            assert set(history.underlying_prices) <= {1.0, 2.0, 3.0, 100.5}
        time.sleep(0.01)
    lines = [process.communicate()[0].decode().split() for process in running]
    assert [process.returncode for process in running] == [0, 0]
    for place in range(ROUNDS):
        outcomes = [line[place] for line in lines]
        assert sorted(outcomes) == ["told", "written"], (place, outcomes)
        shared, *own = round_dates(place)
        bids = [1.0, 3.0, 3.1, 0.8 - 0.1 * outcomes.index("written")]
        assert_same_chain(history[shared], chain_of(shared, bid=bids))
        for date in own[:2]:
            assert_same_chain(history[date], chain_of(date))
        assert_same_chain(history[own[2]], chain_of(own[2], bid=0.5))
    parts = [name for name in contents(path) if "date=" in name]
    assert len(parts) == len(history) == 4 * ROUNDS
    assert all(name.rpartition("/")[2] in PARTS.values() for name in parts)


def test_a_stored_chain_travels_without_its_folder(tmp_path):
    history = three_days(tmp_path)
    stored = history.stored("2025-03-17")
    for path in tmp_path.rglob("part*"):
        path.unlink()
    again = StoredChain(stored.name, bytes(stored.content))
    assert again.date == pd.Timestamp("2025-03-17")
    assert again.underlying == "SPX"
    assert again.digest == stored.digest
    assert_same_chain(again.chain(), chain_of("2025-03-17"))


def test_the_bundled_history_is_whole_and_small():
    history = bundled_history()
    size = sum(path.stat().st_size for path in history.path.rglob("*"))
    assert size < 1_000_000
    assert len(history) == 40
    assert len(history.missing_dates) == 2
    assert history.splits.tolist() == [2.0]
    prices = history.underlying_prices
    split = history.splits.index[0]
    assert prices[:split].iloc[-2] / prices[split] == pytest.approx(2.0, rel=0.05)
    settled = history.settlement_prices
    assert set(settled["settlement"]) == {"AM", "PM"}
    for chain in history.scan(["2025-01-06", "2025-03-04"]):
        assert len(chain) == 5
        assert chain.report().slices["problem"].isna().all()

"""A history of option chains on disk: one file a date, read one at a time.

A folder holds `underlying=SPX/date=2025-03-14/part.parquet`, the layout that Hive made
common. Spark and pyarrow read the folder, and DuckDB and Polars its `**/*.parquet`, as
one table, with columns `underlying` and `date` from the names of the folders. Without
pyarrow the parts are gzipped CSV. Tables of splits, settlement prices, underlying
prices and expected dates lie beside the dates, under names that those readers pass
over.

Processes may append and read at a time: files appear whole or not at all, and of two
that append other chains of one date, one is told. A file that was damaged is named
when it is read, and never taken for another.

The tables may be edited, or added, by hand. Their first line, a comment, holds a
digest, with which they differ then: whoever means the change deletes that line.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from relu_options.errors import QuoteError
from relu_options.files import UNSEALED, check_seal, seal, sole_writer
from relu_options.market_data.chain import OptionChain
from relu_options.market_data.clocks import (
    COIN_SETTLEMENT,
    MARKET_TIMEZONE,
    SETTLEMENT_TIMES,
    as_date,
)
from relu_options.market_data.stored_chain import (
    PARTS,
    StoredChain,
    encode_chain,
    part_name,
    underlying_folder,
    underlying_of,
)

_SPLITS, _SETTLEMENT_PRICES = "_splits.csv", "_settlement_prices.csv"
_UNDERLYING_PRICES, _CALENDAR = "_underlying_prices.csv", "_calendar.csv"
# Columns of the tables: those that a row is known by, and its positive number.
_COLUMNS = {
    _SPLITS: (["date"], ["ratio"]),
    _UNDERLYING_PRICES: (["date"], ["underlying_price"]),
    _SETTLEMENT_PRICES: (["expiry", "settlement"], ["price"]),
    _CALENDAR: (["date"], []),
}
_A = {"date": "a date", "expiry": "an expiry"}
_DAY = re.compile(r"date=\d{4}-\d\d-\d\d")
_TRIES = 5  # to read a file that another process replaces by one of another name
_SHOWN = 3  # dates or names in a message


@dataclass(frozen=True, init=False)
class ChainHistory(Mapping[pd.Timestamp, OptionChain]):
    """Option chains of many dates in a folder, one a date, loaded when asked for.

    `history[date]` is the chain that was appended, `len(history)` the number of dates,
    and iterating gives the dates. Opening a folder writes nothing; a folder that is not
    there is made by the first `append`.

    A folder may hold several underlyings. `dates`, `append`, `scan` and `to_frame` know
    them all; the rest asks for the history of one, `history.of("SPX")`.

    Attributes:
        path: The folder.
        underlying: The only one that is read and written; None for all.
        file_format: "parquet" or "csv", of what is written; by default that of the
            files that are there, or else "parquet" if pyarrow is installed.

    Raises:
        ValueError: If the format is unknown, or the path is a file.

    Examples:
        >>> import tempfile
        >>> from relu_options.simulation import bundled_chain
        >>> folder = tempfile.TemporaryDirectory()
        >>> history = ChainHistory(folder.name)
        >>> history.append(bundled_chain())
        >>> history
        ChainHistory(SIM: 1 date, 2025-03-14, 1,238 rows)
        >>> len(history["2025-03-14"]), history.underlying_prices.tolist()
        (8, [5000.0])
        >>> folder.cleanup()
    """

    path: Path
    underlying: str | None
    file_format: str | None

    def __init__(
        self,
        path: str | Path,
        underlying: str | None = None,
        file_format: str | None = None,
    ):
        folder = Path(path)
        if folder.exists() and not folder.is_dir():
            raise ValueError(
                f"{folder} is a file, and a history is a folder; read the file with "
                "`read_chain` and `append` its chain to a history"
            )
        if file_format not in (None, *PARTS):
            raise ValueError(
                f"file_format must be one of {list(PARTS)}, not {file_format!r}"
            )
        object.__setattr__(self, "path", folder)
        object.__setattr__(self, "underlying", underlying)
        object.__setattr__(self, "file_format", file_format)

    @property
    def underlyings(self) -> list[str | None]:
        """The underlyings that have chains; None for chains that do not know theirs."""
        if self.underlying is not None:
            found: list[str | None] = [self.underlying]
        else:
            found = [underlying_of(name) for name in _folders(self.path, "underlying")]
        found = [name for name in found if any(self._parts(name))]
        return sorted(found, key=lambda name: (name is None, name or ""))

    @property
    def dates(self) -> pd.DatetimeIndex:
        """The dates that have a chain, in order: trade dates without time and zone."""
        return _as_index(
            date for name in self.underlyings for date in self._parts(name)
        )

    def __len__(self) -> int:
        return len(self.dates)

    def __iter__(self) -> Iterator[pd.Timestamp]:
        return iter(self.dates)

    def __contains__(self, date: object) -> bool:
        try:
            day = as_date(date)
        except QuoteError:
            return False
        return any(self._part(name, day) is not None for name in self.underlyings)

    def __getitem__(self, date: object) -> OptionChain:
        """The chain of a date.

        Raises:
            KeyError: If there is none; the message names the nearest dates.
            ValueError: If the history holds several underlyings.
            QuoteError: If its file cannot be read.
        """
        return self.stored(date).chain()

    def stored(self, date: object) -> StoredChain:
        """The chain of a date as the bytes of its file, small enough to send anywhere.

        Raises:
            KeyError: If there is none; the message names the nearest dates.
            ValueError: If the history holds several underlyings.

        Examples:
            >>> from relu_options.simulation.bundled import bundled_history
            >>> stored = bundled_history().stored("2025-01-06")
            >>> len(stored.content) < 20_000, stored.chain().underlying
            (True, 'SIM')
        """
        day = as_date(date)
        names = self.underlyings
        stored = self._stored(self._one_underlying(), day) if names else None
        if stored is None:
            raise KeyError(f"no chain of {day:%Y-%m-%d}; {nearest(day, self.dates)}")
        return stored

    def append(
        self, chain: OptionChain, overwrite: bool = False, date: object = None
    ) -> None:
        """Write a chain under the date of its quote time; see `trade_date`.

        The file appears whole or not at all, whatever interrupts the writing. To append
        the same chain again changes nothing, so an import that was interrupted is
        simply run again. Of two processes that append to one date, the second finds
        the chain of the first.

        Args:
            chain: The chain.
            overwrite: Whether to replace another chain of that date.
            date: The trade date, where it is another.

        Raises:
            ValueError: If there is another chain of that date, or the chain is on
                another underlying than the history's.
            QuoteError: If the chain has no quote time and no date is given, or holds
                values that cannot be stored.
            ImportError: If the format is Parquet and pyarrow is not installed.
            TimeoutError: If another process has been writing there for a minute.
            OSError: If the file cannot be written.
        """
        name, day = chain.underlying, trade_date(chain, date)
        if self.underlying is not None and name != self.underlying:
            raise ValueError(
                f"a chain on {name or 'an unknown underlying'} in the history of "
                f"{self.underlying}; `ChainHistory(path)` holds both"
            )
        file_format = self._format(name)
        content = encode_chain(chain, file_format)
        path = self.path / part_name(name, f"{day:%Y-%m-%d}", file_format)

        def is_there() -> bool:
            there = None if overwrite else self._stored(name, day)
            if there is None or _same_chain(there, content, chain):
                return there is not None
            raise ValueError(
                f"another chain of {day:%Y-%m-%d} is in {self.path / there.name}; pass "
                "`overwrite=True` to replace it"
            )

        if is_there():
            return
        with sole_writer(path.parent) as write:
            if is_there():  # by now
                return
            write(path.name, content)
            for other in {*PARTS.values()} - {path.name}:
                (path.parent / other).unlink(missing_ok=True)

    def scan(
        self,
        dates: slice | Iterable[object] | None = None,
        underlying: str | None = None,
        expiries: Iterable[object] | None = None,
    ) -> Iterator[OptionChain]:
        """Chains in the order of their dates, each loaded when its turn comes.

        Args:
            dates: Which: a slice whose ends count, `slice("2025-01", "2025-03-14")`, or
                a list; by default all.
            underlying: Of which underlying; by default of all, in their order.
            expiries: Keep these expiries only, and skip chains without any.

        Raises:
            KeyError: If a date of a list has no chain.
            QuoteError: If a file cannot be read.

        Examples:
            >>> from relu_options.simulation.bundled import bundled_history
            >>> history = bundled_history()
            >>> [len(chain) for chain in history.scan(slice(None, "2025-01-08"))]
            [5, 5, 5, 5, 5]
        """
        one = self if underlying is None else self.of(underlying)
        kept = None if expiries is None else _as_index(map(as_date, expiries))
        for date in one.select_dates(dates):
            for name in one.underlyings:
                stored = one._stored(name, date)
                if stored is None:
                    continue
                chain = stored.chain()
                if kept is not None:
                    chain = _of_expiries(chain, kept)
                if len(chain.rows):
                    yield chain

    def of(self, underlying: str) -> ChainHistory:
        """The history of one underlying, in the same folder."""
        if self.underlying not in (None, underlying):
            raise ValueError(
                f"this is the history of {self.underlying}, not of {underlying}"
            )
        return ChainHistory(self.path, underlying, self.file_format)

    def select_dates(
        self, dates: slice | Iterable[object] | None = None
    ) -> pd.DatetimeIndex:
        """Dates that have a chain: of a slice whose ends count, or of a list.

        Raises:
            KeyError: If a date of a list has no chain.

        Examples:
            >>> from relu_options.simulation.bundled import bundled_history
            >>> history = bundled_history()
            >>> 0 < len(history.select_dates(slice("2025-02-01", None))) < len(history)
            True
        """
        known = self.dates
        if dates is None:
            return known
        if isinstance(dates, slice):
            if dates.step is not None:
                raise ValueError("a slice of dates has no step; pass a list of dates")
            return known[known.slice_indexer(dates.start, dates.stop)]
        listed = [dates] if isinstance(dates, str | pd.Timestamp) else dates
        chosen = _as_index(map(as_date, listed))
        unknown = chosen.difference(known)
        if len(unknown):
            raise KeyError(
                f"no chain of {len(unknown)} of {len(chosen)} dates, first "
                f"{unknown[0]:%Y-%m-%d}; {nearest(unknown[0], known)}"
            )
        return chosen

    def to_frame(
        self,
        dates: slice | Iterable[object] | None = None,
        underlying: str | None = None,
    ) -> pd.DataFrame:
        """The rows that are used, of many dates, with a column `date` before the rest.

        All are in memory at once; use `scan` where they would not fit.
        """
        one = self if underlying is None else self.of(underlying)
        tables = []
        for date in one.select_dates(dates):
            for chain in one.scan([date]):
                table = chain.to_frame()
                table.insert(0, "date", date)
                tables.append(table)
        if not tables:
            raise KeyError(f"there is no chain to make a table of in {self}")
        return pd.concat(tables, ignore_index=True)

    @property
    def splits(self) -> pd.Series:
        """New shares per old one, by the date from which prices count in new shares."""
        return self._series(_SPLITS, "ratio")

    def write_splits(self, splits: pd.Series | Mapping[Any, float]) -> None:
        """Replace the table of splits; see `splits`.

        Raises:
            ValueError: If a ratio is not positive, a date is missing or there twice, or
                it is unclear whose splits these are.
        """
        table = pd.DataFrame(list(splits.items()), columns=["date", "ratio"])
        self._write_table(_SPLITS, table)

    @property
    def settlement_prices(self) -> pd.DataFrame:
        """What contracts settled at: `expiry`, `settlement` (as in chains), `price`.

        Raises:
            QuoteError: If the table is damaged, as for all tables.
        """
        table = self._table(_SETTLEMENT_PRICES)
        if table is not None:
            return table
        empty = {"expiry": _as_index([]), "settlement": [], "price": []}
        return pd.DataFrame(empty).astype({"settlement": "str", "price": float})

    def write_settlement_prices(self, table: pd.DataFrame) -> None:
        """Replace the table of settlement prices.

        Args:
            table: Columns `expiry`, `settlement` ("AM", "PM" or "08:00 UTC"; all are
                PM without the column) and `price`, in currency units.

        Raises:
            ValueError: If a column or an expiry is missing, a settlement unknown, a
                price not positive, or a contract there twice.
        """
        self._write_table(_SETTLEMENT_PRICES, table)

    @property
    def underlying_prices(self) -> pd.Series:
        """Price of the underlying by date: as written, or else as the chain says it.

        A chain says it if all its rows that are used agree; where all have expired, if
        all its rows do.
        """
        written = self._series(_UNDERLYING_PRICES, "underlying_price")
        said = {
            date: stored.header()["underlying_price"]
            for name in self.underlyings
            if name == self._one_underlying()
            for date in self._parts(name)
            if date not in written.index
            and (stored := self._stored(name, date)) is not None
        }
        chains = pd.Series(said, dtype=float)
        chains.index = chains.index.astype("datetime64[us]")
        prices = pd.concat([written, chains.dropna()]).sort_index()
        return prices.rename("underlying_price").rename_axis("date")

    def write_underlying_prices(self, prices: pd.Series | Mapping[Any, float]) -> None:
        """Replace the table of underlying prices; it wins over what the chains say.

        Raises:
            ValueError: If a price is not positive, or a date is missing or there twice.
        """
        columns = ["date", "underlying_price"]
        table = pd.DataFrame(list(prices.items()), columns=columns)
        self._write_table(_UNDERLYING_PRICES, table)

    @property
    def calendar(self) -> pd.DatetimeIndex:
        """The dates on which a chain is expected; if not written, those with one."""
        table = self._table(_CALENDAR)
        return self.dates if table is None else _as_index(table["date"])

    def write_calendar(self, dates: Iterable[object]) -> None:
        """Replace the table of dates on which a chain is expected.

        Raises:
            ValueError: If a date is missing.
        """
        self._write_table(_CALENDAR, _as_index(map(as_date, dates)).to_frame())

    @property
    def missing_dates(self) -> pd.DatetimeIndex:
        """Dates of the calendar without a chain, between the first and last chain."""
        known, expected = self.dates, self.calendar
        if not len(known):
            return known
        within = (expected >= known[0]) & (expected <= known[-1])
        return expected[within].difference(known)

    def __repr__(self) -> str:
        names, dates = self.underlyings, self.dates
        if not names:
            return f"ChainHistory({self.underlying or self.path}: empty)"
        shown = ", ".join(name or "options" for name in names[:_SHOWN])
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        span = f"1 date, {dates[0]:%Y-%m-%d}"
        if len(dates) > 1:
            span = (
                f"{len(dates):,} dates from {dates[0]:%Y-%m-%d} to {dates[-1]:%Y-%m-%d}"
            )
        if len(names) == 1 and len(self.missing_dates):
            span += f" ({len(self.missing_dates)} missing)"
        chains = (
            self._stored(name, day) for name in names for day in self._parts(name)
        )
        rows = sum(one.header()["rows"] for one in chains if one is not None)
        return f"ChainHistory({shown}{more}: {span}, {rows:,} rows)"

    def _parts(self, name: str | None) -> Iterator[pd.Timestamp]:
        """The dates of one underlying that have a file."""
        folder = self.path / underlying_folder(name)
        for day in _folders(folder, "date"):
            try:
                if _DAY.fullmatch(day) is None:
                    raise ValueError("it is not written as date=2025-03-14")
                date = pd.Timestamp(day.partition("=")[2])
            except ValueError as error:
                raise QuoteError(
                    f"{folder / day} is not the folder of a date: {error}; rename it "
                    "or move it elsewhere"
                ) from error
            if self._part(name, date) is not None:
                yield date

    def _part(self, name: str | None, date: pd.Timestamp) -> Path | None:
        """The file of a date, if there is one."""
        parts = [self.path / part_name(name, f"{date:%Y-%m-%d}", one) for one in PARTS]
        return next((part for part in parts if part.exists()), None)

    def _stored(self, name: str | None, date: pd.Timestamp) -> StoredChain | None:
        """The file of a date with its bytes, if there is one."""
        for _ in range(_TRIES):
            part = self._part(name, date)
            if part is None:
                return None
            if part.is_dir():
                raise QuoteError(
                    f"{part} is a folder, and a chain is a file; move it elsewhere"
                )
            try:
                content = part.read_bytes()
            except FileNotFoundError:
                continue
            return StoredChain(part.relative_to(self.path).as_posix(), content)
        raise QuoteError(
            f"the chain of {date:%Y-%m-%d} in {self.path} is being replaced by other "
            "processes all the time; try again later"
        )

    def _format(self, name: str | None) -> str:
        """The format to write."""
        if self.file_format is not None:
            return self.file_format
        for date in self._parts(name):
            part = self._part(name, date)
            if part is not None:
                return next(one for one, file in PARTS.items() if part.name == file)
        return "csv" if find_spec("pyarrow") is None else "parquet"

    def _one_underlying(self) -> str | None:
        """The only underlying.

        Raises:
            ValueError: If there are several, or none yet.
        """
        if self.underlying is not None:
            return self.underlying
        names = self.underlyings
        if not names:
            raise ValueError(
                "no chain says yet on which underlying this is; append one first, or "
                "open the history of one: `ChainHistory(path, underlying=...)`"
            )
        if len(names) > 1:
            shown = ", ".join(str(name) for name in names[:_SHOWN])
            raise ValueError(
                f"the history holds {len(names)} underlyings: {shown}; choose one, as "
                f"`history.of({names[0]!r})`"
            )
        return names[0]

    def _table(self, name: str) -> pd.DataFrame | None:
        """A table beside the dates, if there is one."""
        if self.underlying is None and not self.underlyings:
            return None
        path = self.path / underlying_folder(self._one_underlying()) / name
        try:
            return _sound_table(name, _read_table(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (ValueError, OSError) as error:
            raise QuoteError(
                f"{path} cannot be read: {error}; write it again with "
                f"`write{name.removesuffix('.csv')}`, or, if you changed it on "
                "purpose, delete the digest, its first line"
            ) from error

    def _series(self, name: str, column: str) -> pd.Series:
        """A table of one number a date, empty if there is none."""
        table = self._table(name)
        if table is None:
            table = pd.DataFrame({"date": [], column: []})
        dates = _as_index(table["date"])
        return pd.Series(table[column].to_numpy(), dates, float, column)

    def _write_table(self, name: str, table: pd.DataFrame) -> None:
        text = _sound_table(name, table).to_csv(index=False, lineterminator="\n")
        header = json.dumps({"digest": UNSEALED})
        folder = self.path / underlying_folder(self._one_underlying())
        with sole_writer(folder) as write:
            write(name, seal(f"# {header}\n{text}".encode()))


def trade_date(chain: OptionChain, date: object = None) -> pd.Timestamp:
    """The date under which a chain is stored, without time and zone.

    Args:
        chain: The chain.
        date: The date, if it is not that of the quote time: in New York, or of options
            on coins, which trade at all hours, in UTC.

    Raises:
        QuoteError: If neither is known.

    Examples:
        >>> from relu_options.simulation import bundled_chain
        >>> print(trade_date(bundled_chain()))
        2025-03-14 00:00:00
    """
    if date is not None:
        return as_date(date)
    if chain.quote_time is None:
        raise QuoteError("the chain has no quote time, so no date; pass `date=`")
    on_coins = (chain.rows["settlement"] == COIN_SETTLEMENT).all()
    timezone = "UTC" if on_coins else MARKET_TIMEZONE
    return as_date(chain.quote_time.tz_convert(timezone))


def nearest(date: pd.Timestamp, known: pd.DatetimeIndex) -> str:
    """The dates nearest to one that is not there, for a message.

    Examples:
        >>> known = pd.DatetimeIndex(["2025-01-02", "2025-01-03"])
        >>> nearest(pd.Timestamp("2025-01-04"), known)
        'the nearest are 2025-01-02, 2025-01-03'
    """
    if not len(known):
        return "there is none of any date"
    near = known[np.argsort(np.abs(known - date), kind="stable")[:_SHOWN]]
    return f"the nearest are {', '.join(f'{one:%Y-%m-%d}' for one in sorted(near))}"


def _folders(path: Path, key: str) -> Iterator[str]:
    """Names of the folders `key=...` in a folder, one by one as the system has them."""
    if path.is_dir():
        with os.scandir(path) as entries:
            for one in entries:
                if one.name.startswith(f"{key}=") and one.is_dir():
                    yield one.name


def _as_index(dates: Iterable[pd.Timestamp]) -> pd.DatetimeIndex:
    """Dates in order, each once."""
    return pd.DatetimeIndex(sorted(set(dates)), dtype="datetime64[us]", name="date")


def _of_expiries(chain: OptionChain, expiries: pd.DatetimeIndex) -> OptionChain:
    """The part of a chain that has these expiries."""
    kept = chain.rows["expiry"].isin(expiries).to_numpy()
    return replace(chain, rows=chain.rows[kept], codes=chain.codes[kept])


def _same_chain(stored: StoredChain, content: bytes, chain: OptionChain) -> bool:
    """Whether a file holds a chain: its very bytes, or the same in another format."""
    if stored.content == content:
        return True
    other = stored.chain()
    return (
        other.rows.equals(chain.rows)
        and other.rows.index.equals(chain.rows.index)
        and np.array_equal(other.codes, chain.codes)
        and other.quote_time == chain.quote_time
        and other.notes == chain.notes
    )


def _read_table(content: bytes) -> pd.DataFrame:
    """The table of a file, as text, checked against its digest if it has one."""
    text = content.replace(b"\r\n", b"\n")  # as other programs may have saved it
    if text.startswith(b"#"):
        check_seal(text)
        text = text.partition(b"\n")[2]
    table = pd.read_csv(io.BytesIO(text), dtype="str")
    for column in ("date", "expiry"):
        if column in table:  # which comes first, day or month, is never guessed
            sound = table[column].str.fullmatch(r"\d{4}-\d\d-\d\d", na=False)
            _require(table, sound, f"{_A[column]} as 2025-03-14")
    return table


def _sound_table(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """A table as it is to be, read or written: columns, kinds, order.

    Raises:
        ValueError: If it cannot be.
    """
    keys, numbers = _COLUMNS[name]
    day, *rest = keys
    missing = [column for column in (day, *numbers) if column not in table]
    if missing:
        raise ValueError(f"it needs columns {keys + numbers}; missing {missing}")
    days = [as_date(value) for value in table[day]]
    rows = pd.DataFrame({day: pd.Series(days, dtype="datetime64[us]")})
    for column in rest:
        rows[column] = np.asarray(table[column]) if column in table else "PM"
        known = rows[column].isin(list(SETTLEMENT_TIMES))
        _require(rows, known, f"a {column} among {list(SETTLEMENT_TIMES)}")
    for column in numbers:
        rows[column] = np.asarray(table[column], dtype=float)
        sound = (rows[column] > 0.0) & (rows[column] < np.inf)
        _require(rows, sound, f"a positive {column.replace('_', ' ')}")
    _require(rows, rows[day].notna(), _A[day])
    _require(
        rows, ~rows.duplicated(keys), f"{' and '.join([_A[day], *rest])} of their own"
    )
    return rows.sort_values(keys, ignore_index=True)


def _require(rows: pd.DataFrame, sound: pd.Series, what: str) -> None:
    """Raise unless all rows are sound, naming the first few that are not."""
    bad = rows[~sound]
    if len(bad):
        shown = "; ".join(
            " ".join(str(value) for value in line).replace(" 00:00:00", "")
            for line in bad.head(_SHOWN).itertuples(index=False)
        )
        raise ValueError(
            f"{len(bad)} of {len(rows)} rows do not have {what}: {shown}; correct them"
        )

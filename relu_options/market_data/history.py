"""A history of option chains on disk: one file a date, read one at a time.

A folder holds `underlying=SPX/date=2025-03-14/part.parquet`, the layout that Hive made
common. Spark and pyarrow read the folder, and DuckDB and Polars its `**/*.parquet`, as
one table, with columns `underlying` and `date` from the names of the folders. Without
pyarrow the parts are gzipped CSV. Tables of splits, settlement prices, underlying
prices and expected dates lie beside the dates, under names that those readers pass
over.

Files appear whole or not at all: each is written beside its place under a hidden name,
then moved there.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from relu_options.errors import QuoteError
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
    read_header,
    underlying_folder,
    underlying_of,
)

_SPLITS, _SETTLEMENT_PRICES = "_splits.csv", "_settlement_prices.csv"
_UNDERLYING_PRICES, _CALENDAR = "_underlying_prices.csv", "_calendar.csv"
_KINDS = {"date": "datetime64[us]", "expiry": "datetime64[us]", "settlement": "str"}
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
        >>> from relu_options.market_data import bundled_chain
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
            found = [
                underlying_of(one.name) for one in _folders(self.path, "underlying")
            ]
        found = [name for name in found if any(self._parts(name))]
        return sorted(found, key=lambda name: (name is None, name or ""))

    @property
    def dates(self) -> pd.DatetimeIndex:
        """The dates that have a chain, in order: trade dates without time and zone."""
        return _as_index(
            date for name in self.underlyings for date, _ in self._parts(name)
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
            >>> from relu_options.market_data.bundled import bundled_history
            >>> stored = bundled_history().stored("2025-01-06")
            >>> len(stored.content) < 20_000, stored.chain().underlying
            (True, 'SIM')
        """
        day = as_date(date)
        names = self.underlyings
        part = self._part(self._one_underlying(), day) if names else None
        if part is None:
            raise KeyError(f"no chain of {day:%Y-%m-%d}; {nearest(day, self.dates)}")
        return self._read(part)

    def append(
        self, chain: OptionChain, overwrite: bool = False, date: object = None
    ) -> None:
        """Write a chain under the date of its quote time; see `trade_date`.

        The file appears whole or not at all, whatever interrupts the writing. To append
        the same chain again changes nothing, so an import that was interrupted is
        simply run again.

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
        """
        name, day = chain.underlying, trade_date(chain, date)
        if self.underlying is not None and name != self.underlying:
            raise ValueError(
                f"a chain on {name or 'an unknown underlying'} in the history of "
                f"{self.underlying}; `ChainHistory(path)` holds both"
            )
        there = self._part(name, day)
        file_format = self._format(name)
        content = encode_chain(chain, file_format)
        if there is not None and not overwrite:
            if _same_chain(self._read(there), content, chain):
                return
            raise ValueError(
                f"another chain of {day:%Y-%m-%d} is in {there}; pass "
                "`overwrite=True` to replace it"
            )
        path = self.path / part_name(name, f"{day:%Y-%m-%d}", file_format)
        write_whole(path, content)
        if there is not None and there != path:
            there.unlink()

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
            >>> from relu_options.market_data.bundled import bundled_history
            >>> history = bundled_history()
            >>> [len(chain) for chain in history.scan(slice(None, "2025-01-08"))]
            [5, 5, 5, 5, 5]
        """
        one = self if underlying is None else self.of(underlying)
        kept = None if expiries is None else _as_index(map(as_date, expiries))
        for date in one.select_dates(dates):
            for name in one.underlyings:
                part = one._part(name, date)
                if part is None:
                    continue
                chain = one._read(part).chain()
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
            >>> from relu_options.market_data.bundled import bundled_history
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
            ValueError: If a ratio is not positive, or it is unclear whose splits these
                are.
        """
        self._write_table(_SPLITS, _positive_by_date(splits, "ratio"))

    @property
    def settlement_prices(self) -> pd.DataFrame:
        """What contracts settled at: `expiry`, `settlement` (as in chains), `price`."""
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
            ValueError: If a column is missing, a settlement unknown, a price not
                positive, or a contract there twice.
        """
        missing = [name for name in ("expiry", "price") if name not in table]
        if missing:
            raise ValueError(
                "settlement prices need columns 'expiry', 'settlement' and 'price'; "
                f"missing {missing}"
            )
        rows = pd.DataFrame(
            {
                "expiry": [as_date(day) for day in table["expiry"]],
                "settlement": table.get("settlement", "PM"),
                "price": table["price"].to_numpy(float),
            }
        )
        keys = ["expiry", "settlement"]
        known = rows["settlement"].isin(list(SETTLEMENT_TIMES))
        _require(rows, known, f"a settlement among {list(SETTLEMENT_TIMES)}")
        _require(rows, _is_positive(rows["price"]), "a positive price")
        _require(rows, ~rows.duplicated(keys), "one price for an expiry and settlement")
        self._write_table(_SETTLEMENT_PRICES, rows.sort_values(keys))

    @property
    def underlying_prices(self) -> pd.Series:
        """Price of the underlying by date: as written, or else as the chain says it.

        A chain says it if all its rows that are used agree.
        """
        written = self._series(_UNDERLYING_PRICES, "underlying_price")
        said = {
            date: read_header(part)["underlying_price"]
            for name in self.underlyings
            if name == self._one_underlying()
            for date, part in self._parts(name)
            if date not in written.index
        }
        chains = pd.Series(said, dtype=float)
        chains.index = chains.index.astype("datetime64[us]")
        prices = pd.concat([written, chains.dropna()]).sort_index()
        return prices.rename("underlying_price").rename_axis("date")

    def write_underlying_prices(self, prices: pd.Series | Mapping[Any, float]) -> None:
        """Replace the table of underlying prices; it wins over what the chains say.

        Raises:
            ValueError: If a price is not positive.
        """
        table = _positive_by_date(prices, "underlying_price")
        self._write_table(_UNDERLYING_PRICES, table)

    @property
    def calendar(self) -> pd.DatetimeIndex:
        """The dates on which a chain is expected; if not written, those with one."""
        table = self._table(_CALENDAR)
        return self.dates if table is None else _as_index(table["date"])

    def write_calendar(self, dates: Iterable[object]) -> None:
        """Replace the table of dates on which a chain is expected."""
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
        parts = (part for name in names for _, part in self._parts(name))
        rows = sum(read_header(part)["rows"] for part in parts)
        return f"ChainHistory({shown}{more}: {span}, {rows:,} rows)"

    def _parts(self, name: str | None) -> Iterator[tuple[pd.Timestamp, Path]]:
        """The dates of one underlying, each with its file."""
        for folder in _folders(self.path / underlying_folder(name), "date"):
            date = pd.Timestamp(folder.name.partition("=")[2])
            part = self._part(name, date)
            if part is not None:
                yield date, part

    def _part(self, name: str | None, date: pd.Timestamp) -> Path | None:
        """The file of a date, if there is one."""
        parts = [self.path / part_name(name, f"{date:%Y-%m-%d}", one) for one in PARTS]
        return next((part for part in parts if part.is_file()), None)

    def _read(self, part: Path) -> StoredChain:
        return StoredChain(part.relative_to(self.path).as_posix(), part.read_bytes())

    def _format(self, name: str | None) -> str:
        """The format to write."""
        if self.file_format is not None:
            return self.file_format
        for _, part in self._parts(name):
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
        if not path.is_file():
            return None
        table = pd.read_csv(path, dtype="str")
        kinds = {name: _KINDS.get(str(name), "float64") for name in table}
        return table.astype(kinds)  # type: ignore[arg-type]

    def _series(self, name: str, column: str) -> pd.Series:
        """A table of one number a date, empty if there is none."""
        table = self._table(name)
        if table is None:
            return pd.Series([], _as_index([]), float, column)
        return pd.Series(
            table[column].to_numpy(), _as_index(table["date"]), float, column
        )

    def _write_table(self, name: str, table: pd.DataFrame) -> None:
        folder = self.path / underlying_folder(self._one_underlying())
        text = table.to_csv(index=False, lineterminator="\n")
        write_whole(folder / name, text.encode())


def trade_date(chain: OptionChain, date: object = None) -> pd.Timestamp:
    """The date under which a chain is stored, without time and zone.

    Args:
        chain: The chain.
        date: The date, if it is not that of the quote time: in New York, or of options
            on coins, which trade at all hours, in UTC.

    Raises:
        QuoteError: If neither is known.

    Examples:
        >>> from relu_options.market_data import bundled_chain
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


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all, whenever the process is killed.

    What an attempt at the same file that was killed has left is removed.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "date=2025-03-14" / "part.csv"
        ...     write_whole(path, b"strike")
        ...     path.read_bytes()
        b'strike'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        leftover.unlink(missing_ok=True)
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex}.tmp"
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _folders(path: Path, key: str) -> Iterator[os.DirEntry[str]]:
    """The folders `key=...` in a folder, one after the other as the system has them."""
    if path.is_dir():
        with os.scandir(path) as entries:
            for one in entries:
                if one.name.startswith(f"{key}=") and one.is_dir():
                    yield one


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


def _positive_by_date(
    values: pd.Series | Mapping[Any, float], name: str
) -> pd.DataFrame:
    """A table of one positive number a date, in their order."""
    rows = pd.DataFrame(
        [(as_date(day), float(value)) for day, value in values.items()],
        columns=["date", name],
    )
    _require(rows, _is_positive(rows[name]), f"a positive {name.replace('_', ' ')}")
    _require(rows, ~rows["date"].duplicated(), "one row for a date")
    return rows.sort_values("date")


def _is_positive(values: pd.Series) -> pd.Series:
    return (values > 0.0) & (values < np.inf)


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

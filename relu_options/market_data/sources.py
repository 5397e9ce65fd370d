"""What users hand in - files, folders, tables, objects - opened as sources of rows."""

import gzip
import json
import re
import zipfile
import zlib
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd

from relu_options.errors import QuoteError

Readable: TypeAlias = str | Path | pd.DataFrame | Mapping[str, Any] | Any
"""A path, a table of some library, or what yfinance's `option_chain` returns."""

_TO_PANDAS = ("to_pandas", "to_df")  # Polars and Arrow; a relation of DuckDB
_SHEETS = (".xlsx", ".xlsm")
_HEAD_LINES = 12
_SUFFIXES = (".csv", ".csv.gz", ".txt", ".txt.gz", ".tsv", ".parquet", ".zip")
_BROKEN = (EOFError, zlib.error, zipfile.BadZipFile, UnicodeDecodeError)
_ISO_DATE = r"(?<!\d)((?:19|20)\d{2})[-_.]?(\d{2})[-_.]?(\d{2})(?!\d)"
_US_DATE = r"(?<!\d)(\d{2})[-_.](\d{2})[-_.]((?:19|20)\d{2})(?!\d)"
_NAMED_DATE = r"(?<![A-Za-z\d])(\d{1,2})([A-Z]{3})((?:20)?\d{2})(?!\d)"
_EXPIRY_PREFIX = r"(?:exp|expiry|expiration)[-_ ]?$"


@dataclass(frozen=True, eq=False)
class ChainSource:
    """One file or table, opened as far as is needed to recognise its layout.

    Attributes:
        path: The file, or None.
        table: The table, or None for a text file, which is read when asked for.
        head: The first lines of a text file.
        columns: Names of columns that the user gave.
        members: Names of the files in a zip archive.

    Examples:
        >>> source = ChainSource(path=None, table=pd.DataFrame({"Strike": [100.0]}))
        >>> source.read()
           Strike
        0   100.0
        >>> source.has("strike"), source.has("strike", "bid")
        (True, False)
    """

    path: Path | None
    table: pd.DataFrame | None
    head: tuple[str, ...] = ()
    columns: Mapping[str, Hashable] | None = None
    members: tuple[str, ...] = ()

    @cached_property
    def names(self) -> list[str]:
        """Names of the columns, in their order, as they are written."""
        if self.table is not None:
            return [str(name) for name in self.table.columns]
        if not self.head:
            return []
        line = self.head[self.header].strip()
        return [name.strip().strip('"') for name in line.split(_delimiter(line))]

    @cached_property
    def keys(self) -> frozenset[str]:
        """The same, with levels of the index, by their `column_key`."""
        levels = [] if self.table is None else self.table.index.names
        named = [name for name in levels if name is not None]
        return frozenset(map(column_key, [*self.names, *named]))

    @cached_property
    def header(self) -> int:
        """The line on which the table starts: the first one as full as the fullest."""
        plain = [re.sub(r'"[^"]*"', "", line) for line in self.head]
        counts = [line.count(_delimiter(line)) for line in plain]
        if not counts:
            return 0
        return next(at for at, count in enumerate(counts) if count >= 0.8 * max(counts))

    def has(self, *names: str) -> bool:
        """Whether the table has columns of all these names, however written."""
        return {column_key(name) for name in names} <= self.keys

    def read(self, *, skiprows: int = 0) -> pd.DataFrame:
        """The table, read from the file where there is one.

        Raises:
            QuoteError: If the file holds no table.
        """
        if self.table is not None:
            return self.table
        if self.path is None:
            raise ValueError("a source needs a path or a table")
        line = self.head[skiprows] if skiprows < len(self.head) else ""
        how = {"skiprows": skiprows, "sep": _delimiter(line), "low_memory": False}
        how["skipinitialspace"] = True
        try:
            if not self.members:
                return pd.read_csv(self.path, **how)  # type: ignore[call-overload]
            with zipfile.ZipFile(self.path) as archive:
                tables = []
                for name in self.members:
                    with archive.open(name) as file:
                        tables.append(pd.read_csv(file, **how))  # type: ignore[call-overload]
            return tables[0] if len(tables) == 1 else pd.concat(tables)
        except (pd.errors.EmptyDataError, pd.errors.ParserError, *_BROKEN) as error:
            raise QuoteError(
                f"{self.path} holds no table of quotes: {error}"
            ) from error


def column_key(name: Hashable) -> str:
    """A column's name in lower case, without anything but letters and digits.

    Examples:
        >>> column_key(" [QUOTE_DATE]"), column_key("details.strike_price")
        ('quotedate', 'detailsstrikeprice')
    """
    return re.sub(r"[^a-z0-9]", "", str(name).lower())


def _delimiter(line: str) -> str:
    """What separates the fields of a line: the most frequent of the usual four."""
    return max(",;\t|", key=line.count)


def open_source(
    source: object, columns: Mapping[str, Hashable] | None = None
) -> ChainSource:
    """A source from what a user handed in, if it is not a folder.

    Raises:
        FileNotFoundError: If there is no such file.
        QuoteError: If a file is broken.
        TypeError: If it is none of these.
        ImportError: If a format needs a library that is not installed.
    """
    if hasattr(source, "calls") and hasattr(source, "puts"):
        return ChainSource(None, _both_sides(source), columns=columns)
    if isinstance(source, list | tuple) and all(map(_is_table, source)) and source:
        tables = [open_source(one, columns).table for one in source]
        table = pd.concat(tables, ignore_index=True)  # type: ignore[arg-type]
        table.attrs = tables[0].attrs  # type: ignore[union-attr]
        return ChainSource(None, table, columns=columns)
    if not isinstance(source, str | Path):
        return ChainSource(None, _as_frame(source), columns=columns)
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(_no_file(path))
    try:
        return _open_file(path, columns)
    except (*_BROKEN, gzip.BadGzipFile) as error:
        raise QuoteError(f"{path} is broken: {error}") from error


def _no_file(path: Path) -> str:
    """The message where there is no such file, with the one that may be meant."""
    folder = path.parent
    if not folder.is_dir():
        return f"there is no folder {folder}, nor {path}; check the path"
    names = [one.name for one in folder.iterdir()]
    near = get_close_matches(path.name, names, 1)
    meant = f"; did you mean {near[0]}?" if near else "; check its name"
    return f"there is no file {path.name} in {folder.resolve()}{meant}"


def is_readable(source: object) -> bool:
    """Whether something is a path or a table, or yfinance's, rather than several.

    Examples:
        >>> is_readable({"strike": [90.0]}), is_readable("quotes.csv"), is_readable([1])
        (True, True, False)
    """
    several = isinstance(source, list | tuple) and bool(source)
    if several and all(map(_is_table, source)):  # type: ignore[arg-type]
        return True
    return (
        isinstance(source, str | Path | pd.DataFrame | Mapping)
        or hasattr(source, "calls")
        or any(hasattr(source, name) for name in _TO_PANDAS)
    )


def not_readable(source: object) -> str:
    """The message on what no chain is read from."""
    return (
        "a chain is read from a path or a DataFrame, not "
        f"{type(source).__name__}; or from a Polars, Arrow or DuckDB table, a dict of "
        "columns, or what yfinance's `option_chain` returns"
    )


def _as_frame(table: Any) -> pd.DataFrame:
    """A table of whatever library as a DataFrame.

    Raises:
        QuoteError: If a dict is not one of columns of one length.
        TypeError: If it is no table.
        ImportError: If what its library needs is not installed.
    """
    if isinstance(table, pd.DataFrame):
        return table
    if isinstance(table, Mapping):
        try:
            return pd.DataFrame(dict(table))
        except ValueError as error:
            raise QuoteError(
                f"a dict of columns needs lists of one length: {error}"
            ) from error
    name = next((name for name in _TO_PANDAS if hasattr(table, name)), None)
    if name is None:
        raise TypeError(not_readable(table))
    return pd.DataFrame(getattr(table, name)())


def _is_table(source: object) -> bool:
    """Whether something is a DataFrame, or a pair of calls and puts."""
    return isinstance(source, pd.DataFrame) or hasattr(source, "calls")


def _open_file(path: Path, columns: Mapping[str, Hashable] | None) -> ChainSource:
    """A source from a file of any kind."""
    suffix = path.suffix.lower()
    path.stat()
    if suffix in (".xls", ".xlsb", ".ods", ".feather", ".pkl", ".7z", ".h5"):
        raise QuoteError(
            f"{path} is not CSV, Parquet, JSON, xlsx or zip; read it with pandas and "
            "pass the DataFrame"
        )
    read = {".parquet": _parquet_table, ".json": _json_table}
    read |= dict.fromkeys(_SHEETS, _sheet_table)
    if suffix in read:
        return ChainSource(path, read[suffix](path), columns=columns)
    members: tuple[str, ...] = ()
    if suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            members = tuple(name for name in names if not name.endswith("/"))
            if not members:
                raise QuoteError(f"{path} is an empty archive")
            with archive.open(members[0]) as file:
                text = file.read(65_536).decode("utf-8-sig", errors="replace")
        head = tuple(text.splitlines(keepends=True)[:_HEAD_LINES])
        return ChainSource(path, None, head, columns, members)
    opened = gzip.open if suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8-sig", errors="replace") as file:
        head = tuple(line for line, _ in zip(file, range(_HEAD_LINES), strict=False))
    return ChainSource(path, None, head, columns)


def _parquet_table(path: Path) -> pd.DataFrame:
    """The table of a Parquet file."""
    try:
        return pd.read_parquet(path)
    except ImportError as error:
        raise ImportError(
            "Parquet files need pyarrow: pip install relu_options[parquet]"
        ) from error
    except (ValueError, OSError) as error:
        raise QuoteError(f"{path} is broken: {error}") from error


def _sheet_table(path: Path) -> pd.DataFrame:
    """The table in the first sheet of an Excel file, below what stands above it."""
    try:
        cells = pd.read_excel(path, header=None)
    except ImportError as error:
        raise ImportError(
            f"{path}: Excel files need openpyxl (pip install openpyxl); or save it as "
            "CSV"
        ) from error
    except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise QuoteError(f"{path} is broken: {error}") from error
    filled = cells.head(_HEAD_LINES).notna().sum(axis=1)
    if not len(filled) or not filled.max():
        raise QuoteError(f"{path} holds no table of quotes: the first sheet is empty")
    top = int((filled >= 0.8 * filled.max()).to_numpy().argmax())
    table = cells.iloc[top + 1 :].reset_index(drop=True).infer_objects()
    table.columns = pd.Index([str(name) for name in cells.iloc[top]])
    return table


def _both_sides(chain: object) -> pd.DataFrame:
    """Calls and puts in one table, with what the pair says of the underlying."""
    sides = [
        pd.DataFrame(getattr(chain, side)).assign(option_type=side[:-1])
        for side in ("calls", "puts")
        if getattr(chain, side) is not None
    ]
    table = pd.concat(sides, ignore_index=True)
    underlying = getattr(chain, "underlying", None)
    table.attrs = {"underlying": underlying if isinstance(underlying, dict) else {}}
    return table


def _json_table(path: Path) -> pd.DataFrame:
    """The longest list of records in a JSON file, nested names joined by dots."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".json" and text.lstrip()[:1] not in ("{", "["):
            raise QuoteError(f"{path} holds no table of quotes")
        parsed = json.loads(text)
    except json.JSONDecodeError as error:
        raise QuoteError(f"{path} is not JSON: {error}") from error
    records = max(_record_lists(parsed), key=len, default=[])
    if not records:
        raise QuoteError(f"{path} holds no list of quotes")
    table = pd.json_normalize(records)
    stamp = parsed.get("timestamp") if isinstance(parsed, dict) else None
    if isinstance(stamp, str) and "timestamp" not in table:
        table["timestamp"] = stamp
    return table


def _record_lists(node: object) -> Iterator[list]:
    """Every list of records in a parsed JSON document."""
    if isinstance(node, dict):
        for value in node.values():
            yield from _record_lists(value)
    elif isinstance(node, list) and node:
        if all(isinstance(one, dict) for one in node):
            yield node
        else:
            for value in node:
                yield from _record_lists(value)


def path_date(path: Path | None, within: Path | None = None) -> pd.Timestamp | None:
    """The date in a file's name, or else in the names of the folders around it.

    The last date of a name counts; one that follows "exp" is an expiry.

    Args:
        path: The file.
        within: The folder up to which to look; else only the folder that it is in.

    Examples:
        >>> print(path_date(Path("spx_2019-05-17_quotes.csv")))
        2019-05-17 00:00:00
        >>> print(path_date(Path("aapl-options-exp-2026-02-20-weekly-01-15-2026.csv")))
        2026-01-15 00:00:00
        >>> print(path_date(Path("2026-08-12/SPY.csv")), path_date(Path("SPY.csv")))
        2026-08-12 00:00:00 None
    """
    if path is None:
        return None
    levels = 2 if within is None else len(path.parts) - len(within.parts)
    for part in list(reversed(path.parts))[: max(levels, 1)]:
        dates = [date for date, is_expiry in _dates_in(part) if not is_expiry]
        if dates:
            return dates[-1]
    return None


def path_expiry(path: Path | None) -> pd.Timestamp | None:
    """The expiry in a file's name: a date after "exp", or one such as "26DEC25".

    Examples:
        >>> print(path_expiry(Path("aapl-options-exp-2026-02-20-weekly-01-15.csv")))
        2026-02-20 00:00:00
        >>> print(path_expiry(Path("BTC-26DEC25-export.csv")))
        2025-12-26 00:00:00
    """
    if path is None:
        return None
    expiries = [date for date, is_expiry in _dates_in(path.name) if is_expiry]
    return expiries[-1] if expiries else None


def _dates_in(name: str) -> list[tuple[pd.Timestamp, bool]]:
    """The dates in a name, in their order, and whether each is an expiry."""
    found = []
    for pattern, order in ((_ISO_DATE, (0, 1, 2)), (_US_DATE, (2, 0, 1))):
        for match in re.finditer(pattern, name):
            year, month, day = (int(match.groups()[at]) for at in order)
            if 1 <= month <= 12 and 1 <= day <= 31:
                is_expiry = bool(
                    re.search(_EXPIRY_PREFIX, name[: match.start()], re.IGNORECASE)
                )
                stamp = pd.to_datetime(
                    f"{year}-{month:02d}-{day:02d}", format="%Y-%m-%d", errors="coerce"
                )
                found.append((match.start(), stamp, is_expiry))
    for match in re.finditer(_NAMED_DATE, name):
        text = match[1].zfill(2) + match[2] + match[3][-2:]
        stamp = pd.to_datetime(text, format="%d%b%y", errors="coerce")
        found.append((match.start(), stamp, len(match[3]) == 2))
    return [(date, flag) for _, date, flag in sorted(found) if not pd.isna(date)]


@dataclass(frozen=True)
class FileGroup:
    """Files of a folder that belong together: those of one date.

    Attributes:
        date: The date in their names, or None.
        paths: The files, sorted.
    """

    date: pd.Timestamp | None
    paths: tuple[Path, ...]

    @property
    def label(self) -> str:
        """What to call it in messages: its date, or else its folder."""
        if self.date is None:
            return str(self.paths[0].parent)
        return f"{self.date:%Y-%m-%d}"


def folder_groups(folder: Path) -> list[FileGroup]:
    """The tables in a folder and below it, those of one date together.

    Where there are LEAN's archives of quotes, they alone are read.

    Raises:
        QuoteError: If there are no tables.
    """
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and not path.name.startswith((".", "_"))
        and path.name.lower().endswith(_SUFFIXES)
    )
    if not files:
        files = sorted(folder.rglob("*.json"))
    lean = [path for path in files if re.search(r"_quote(_\w+)?\.zip$", path.name)]
    if not files:
        raise QuoteError(f"{folder} holds no tables: {', '.join(_SUFFIXES)}")
    groups: dict[object, list[Path]] = {}
    for path in lean or files:
        date = path_date(path, folder.parent)
        groups.setdefault(date if date is not None else path.parent, []).append(path)
    return [
        FileGroup(key if isinstance(key, pd.Timestamp) else None, tuple(paths))
        for key, paths in sorted(groups.items(), key=lambda item: str(item[0]))
    ]

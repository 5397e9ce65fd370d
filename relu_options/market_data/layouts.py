"""The layouts in which chains come, and the registry that recognises them.

A layout turns a file or a table into one row per option with canonical column names
(`relu_options.market_data.columns`); values stay as they came. What all layouts share -
contract symbols, dates, clocks, numbers, cleaning - is done once, after the layout, by
`relu_options.market_data.canonical`.
"""

import gzip
import re
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from relu_options.errors import QuoteError
from relu_options.market_data.clocks import MARKET_TIMEZONE
from relu_options.market_data.columns import match_columns

_HEAD_LINES = 12
_LAST_TRADE = pd.Timedelta(hours=16, minutes=15)


@dataclass(frozen=True, eq=False)
class ChainSource:
    """What a user handed in: a file or a table.

    Attributes:
        path: The file, or None.
        table: The table, or None for a file.
        head: The first lines of a text file.
        columns: Names of columns that the user gave.

    Examples:
        >>> source = ChainSource(path=None, table=pd.DataFrame({"strike": [100.0]}))
        >>> source.read()
           strike
        0   100.0
    """

    path: Path | None
    table: pd.DataFrame | None
    head: tuple[str, ...] = ()
    columns: Mapping[str, Hashable] | None = None

    def read(self, *, skiprows: int = 0) -> pd.DataFrame:
        """The table, read from the file where there is one.

        Raises:
            QuoteError: If the file holds no table.
        """
        if self.table is not None:
            return self.table
        if self.path is None:
            raise ValueError("a source needs a path or a table")
        if self.path.suffix == ".parquet":
            try:
                return pd.read_parquet(self.path)
            except ImportError as error:
                raise ImportError(
                    "Parquet files need pyarrow: pip install relu_options[parquet]"
                ) from error
        try:
            return pd.read_csv(self.path, skiprows=skiprows)
        except (pd.errors.EmptyDataError, pd.errors.ParserError) as error:
            raise QuoteError(
                f"{self.path} holds no table of quotes: {error}"
            ) from error


@dataclass(frozen=True, eq=False)
class LayoutRows:
    """What a layout makes of a source.

    Attributes:
        rows: One row per option, some of the canonical columns, values as they came.
        notes: What was assumed or found, for the report.
        quote_time: Where the source states it outside of the table.

    Examples:
        >>> made = LayoutRows(pd.DataFrame({"strike": [100.0]}), notes=("no types",))
        >>> made.notes
        ('no types',)
    """

    rows: pd.DataFrame
    notes: tuple[str, ...] = ()
    quote_time: object = None


@dataclass(frozen=True)
class Layout:
    """A way in which chains are written down.

    Attributes:
        name: What users call it, as in `read_chain(..., layout="cboe")`.
        recognises: Whether a source is of this layout; looks, does not read.
        read: Turns a source into rows.

    Examples:
        A layout of files whose name says what they are.

        >>> layout = Layout("broker",
        ...                 lambda source: "broker" in getattr(source.path, "name", ""),
        ...                 lambda source: LayoutRows(source.read(skiprows=2)))
        >>> layout.recognises(ChainSource(path=Path("broker_quotes.csv"), table=None))
        True
    """

    name: str
    recognises: Callable[[ChainSource], bool] = field(repr=False)
    read: Callable[[ChainSource], LayoutRows] = field(repr=False)


_LAYOUTS: dict[str, Layout] = {}


def register_layout(layout: Layout) -> None:
    """Add a layout to those that `read_chain` recognises.

    Layouts are tried from the one registered last to the first, "tidy", which takes any
    table. A layout of the same name is replaced.

    Examples:
        Prices in units of 1/10000.

        >>> def read(source):
        ...     table = source.read()
        ...     return LayoutRows(table.assign(bid=table["bid"] / 1e4,
        ...                                    ask=table["ask"] / 1e4))
        >>> register_layout(Layout("scaled", lambda source: False, read))
        >>> layout_names()
        ['scaled', 'cboe', 'tidy']
        >>> unregister_layout("scaled")
    """
    unregister_layout(layout.name)
    _LAYOUTS[layout.name] = layout


def unregister_layout(name: str) -> None:
    """Forget a layout, if there is one of this name."""
    _LAYOUTS.pop(name, None)


def layout_names() -> list[str]:
    """Names of the registered layouts, in the order in which they are tried.

    Examples:
        >>> layout_names()
        ['cboe', 'tidy']
    """
    return list(reversed(_LAYOUTS))


def find_layout(source: ChainSource, name: str | None = None) -> Layout:
    """The layout of that name, or the first that recognises the source.

    Raises:
        ValueError: If no layout has this name.
    """
    if name is not None:
        if name not in _LAYOUTS:
            raise ValueError(f"no layout {name!r}; there are {layout_names()}")
        return _LAYOUTS[name]
    if source.columns is not None:
        return _LAYOUTS["tidy"]
    return next(
        _LAYOUTS[name] for name in layout_names() if _LAYOUTS[name].recognises(source)
    )


def open_source(
    source: str | Path | pd.DataFrame, columns: Mapping[str, Hashable] | None = None
) -> ChainSource:
    """A source from what a user handed in.

    Raises:
        FileNotFoundError: If there is no such file.
        TypeError: If `source` is neither a path nor a DataFrame.
    """
    if isinstance(source, pd.DataFrame):
        return ChainSource(None, source, columns=columns)
    if not isinstance(source, str | Path):
        raise TypeError(
            f"a chain is read from a path or a DataFrame, not {type(source).__name__}"
        )
    path = Path(source)
    if path.suffix == ".parquet":
        path.stat()
        return ChainSource(path, None, columns=columns)
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8", errors="replace") as file:
        head = tuple(line for line, _ in zip(file, range(_HEAD_LINES), strict=False))
    return ChainSource(path, None, head, columns)


def _always(source: ChainSource) -> bool:
    """Any table may be tidy."""
    return True


def _read_tidy(source: ChainSource) -> LayoutRows:
    """One row per option; columns found by name."""
    table = source.read()
    names = match_columns(table, source.columns)
    rows = table[list(names.values())].copy(deep=False)
    rows.columns = list(names)
    return LayoutRows(rows)


_CBOE_FIELDS = {
    "bid": "bid",
    "ask": "ask",
    "vol": "volume",
    "volume": "volume",
    "openint": "open_interest",
    "openinterest": "open_interest",
    "iv": "implied_volatility",
}


def _cboe_header(source: ChainSource) -> int | None:
    """The line on which the table of a Cboe download starts, or None."""
    lines = source.head
    if source.table is not None:
        lines = (",".join(map(str, source.table.columns)),)
    for at, line in enumerate(lines):
        if {"calls", "puts", "strike"} <= set(line.strip().lower().split(",")):
            return at
    return None


def _is_cboe(source: ChainSource) -> bool:
    """Calls on the left, puts on the right, the strike between them."""
    return _cboe_header(source) is not None


def _read_cboe(source: ChainSource) -> LayoutRows:
    """The delayed quotes of Cboe's website, with or without their preamble lines.

    The vendor's implied volatilities are left out: they are not quotes.
    """
    header = _cboe_header(source) or 0
    table = source.read(skiprows=header)
    titles = [re.sub(r"[^a-z]", "", str(name).lower()) for name in table.columns]
    calls, strike, puts = (titles.index(name) for name in ("calls", "strike", "puts"))
    expiry = next((at for at in range(calls) if titles[at].startswith("expir")), None)
    sides = []
    for option_type, first, end in (
        ("call", calls, strike),
        ("put", puts, len(titles)),
    ):
        side = {"contract": table.iloc[:, first], "strike": table.iloc[:, strike]}
        if expiry is not None:
            side["expiry"] = table.iloc[:, expiry]
        for at in range(first + 1, end):
            name = _CBOE_FIELDS.get(titles[at])
            if name is not None and name != "implied_volatility":
                side[name] = table.iloc[:, at]
        sides.append(pd.DataFrame(side).assign(option_type=option_type))
    rows = pd.concat(sides, ignore_index=True)
    rows.index = pd.Index(rows["contract"], name="contract")
    preamble = " ".join(source.head[:header])
    price = re.search(r"(?:\),|Last:\s*)\s*\"?([0-9][0-9.]*)", preamble)
    if price:
        rows["underlying_price"] = float(price[1])
    quote_time, notes = _cboe_quote_time(preamble)
    return LayoutRows(rows, notes, quote_time)


def _cboe_quote_time(preamble: str) -> tuple[pd.Timestamp | None, tuple[str, ...]]:
    """The time in a preamble; moved back to the last close if the market was shut."""
    found = re.search(
        r"([A-Z][a-z]+ \d{1,2},? \d{4}) (?:@|at) (\d{1,2}:\d{2}(?: ?[AP]M)?)", preamble
    )
    if not found:
        return None, ()
    stamp = pd.Timestamp(f"{found[1]} {found[2]}").tz_localize(MARKET_TIMEZONE)
    day = stamp.normalize()
    close = day.tz_localize(None) + _LAST_TRADE
    while close.weekday() > 4 or close.tz_localize(MARKET_TIMEZONE) > stamp:
        close -= pd.Timedelta(days=1)
    last = close.tz_localize(MARKET_TIMEZONE)
    opened = last.normalize().tz_localize(None) + pd.Timedelta(hours=9, minutes=30)
    trading = stamp.weekday() < 5 and (opened.time() <= stamp.time() <= close.time())
    if trading:
        return stamp, ()
    note = (
        f"stamped {stamp:%Y-%m-%d %H:%M} New York, when the market was closed: taken "
        f"as its last close, {last:%Y-%m-%d %H:%M}"
    )
    return last, (note,)


register_layout(Layout("tidy", _always, _read_tidy))
register_layout(Layout("cboe", _is_cboe, _read_cboe))

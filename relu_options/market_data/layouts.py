"""What a layout is, and the registry that recognises the layout of a source.

A layout turns a file or a table into one row per option with canonical column names
(`relu_options.market_data.columns`); values stay as they came. What all layouts share -
contract symbols, dates, clocks, numbers, units, cleaning - is done once, after the
layout, by `relu_options.market_data.canonical`.

Most layouts are a `TableLayout`: a list of names. The vendors' are in
`relu_options.market_data.vendors`.
"""

import re
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pandas as pd

from relu_options.errors import QuoteError, refuse
from relu_options.market_data.clocks import MARKET_TIMEZONE, as_date
from relu_options.market_data.columns import (
    LAST_PRICES,
    column_of,
    match_columns,
    numbers,
)
from relu_options.market_data.sources import ChainSource, column_key

_PRICES = ["bid", "ask", "mid"]


@dataclass(frozen=True, eq=False)
class LayoutRows:
    """What a layout makes of a source.

    Besides canonical columns, rows may have `nonstandard` (true where a contract does
    not deliver the usual), `days_to_expiry`, and any of `OPTIONAL_COLUMNS`.

    Attributes:
        rows: One row per option, some of the canonical columns, values as they came.
        notes: What was assumed or found, for the report.
        quote_time: Where the source states it outside of the table, or implies it.
        inferred: Whether the quote time is only implied, say by the last trade.
        timezone: Of times without one, and of the market's close.
        us_listed: Whether underlyings are US tickers, whose options are American unless
            on an index.
        own_names: The source's own names of columns, for messages on what is missing.

    Examples:
        >>> made = LayoutRows(pd.DataFrame({"strike": [100.0]}), notes=("no types",))
        >>> made.notes
        ('no types',)
    """

    rows: pd.DataFrame
    notes: tuple[str, ...] = ()
    quote_time: object = None
    inferred: bool = False
    timezone: str = MARKET_TIMEZONE
    us_listed: bool = False
    own_names: tuple[str, ...] = ()


class AnyLayout(Protocol):
    """Whatever has a name, recognises sources, and reads them."""

    @property
    def name(self) -> str:
        """What users call it."""
        ...

    def recognises(self, source: ChainSource, /) -> bool:
        """Whether a source is of this layout."""
        ...

    def read(self, source: ChainSource, /) -> LayoutRows:
        """The rows of a source."""
        ...


@dataclass(frozen=True)
class Layout:
    """A way in which chains are written down, given as two functions.

    Attributes:
        name: What users call it, as in `read_chain(..., layout="cboe")`.
        recognises: Whether a source is of this layout; looks, does not read.
        read: Turns a source into rows.

    Examples:
        A layout of files whose name says what they are.

        >>> from pathlib import Path
        >>> layout = Layout("broker",
        ...                 lambda source: "broker" in getattr(source.path, "name", ""),
        ...                 lambda source: LayoutRows(source.read(skiprows=2)))
        >>> layout.recognises(ChainSource(path=Path("broker_quotes.csv"), table=None))
        True
    """

    name: str
    recognises: Callable[[ChainSource], bool] = field(repr=False)
    read: Callable[[ChainSource], LayoutRows] = field(repr=False)


@dataclass(frozen=True)
class TableLayout:
    """A layout given as a list of names: which column means what, in which unit.

    Names are compared in lower case and without anything but letters and digits, so
    `"[QUOTE_DATE]"`, `" quote_date"` and `"quoteDate"` are one.

    Attributes:
        name: What users call it.
        signature: Columns that together only this layout has.
        columns: Canonical names, each with the layout's own, or several of which the
            first that is there counts.
        calls: The same for the columns of the calls, where a row holds a call and a
            put.
        puts: The same for those of the puts.
        values: What holds for all rows: `{"currency": "INR"}`.
        strike_scale: By what strikes are divided.
        price_scale: By what prices are divided.
        missing: Numbers that stand for a missing one.
        snapshot: When within the day quotes are taken, "15:45", where the table has
            dates only; the close if None.
        timezone: Of times without one, and of the market's close.
        us_listed: Whether underlyings are US tickers.
        empty_bid_is_zero: Whether a missing bid beside an ask says that nobody bids.
        underlying_in_name: Pattern of the underlying in names of files.
        prepare: What else is done to the table, its columns already in lower case.
        notes: For the report.

    Examples:
        >>> layout = TableLayout(
        ...     "thousandths", signature=("strike_price", "best_offer"),
        ...     columns={"strike": "strike_price", "bid": "best_bid",
        ...              "ask": "best_offer", "expiry": "exdate"},
        ...     strike_scale=1000.0)
        >>> table = pd.DataFrame({"strike_price": [100_000], "best_bid": [5.0],
        ...                       "best_offer": [5.2], "exdate": ["2019-06-21"]})
        >>> source = ChainSource(path=None, table=table)
        >>> layout.recognises(source)
        True
        >>> print(layout.read(source).rows)
           strike  bid  ask      expiry
        0   100.0  5.0  5.2  2019-06-21
    """

    name: str
    signature: tuple[str, ...]
    columns: Mapping[str, str | tuple[str, ...]] = field(repr=False)
    calls: Mapping[str, str] | None = field(default=None, repr=False)
    puts: Mapping[str, str] | None = field(default=None, repr=False)
    values: Mapping[str, object] = field(default_factory=dict, repr=False)
    strike_scale: float = 1.0
    price_scale: float = 1.0
    missing: tuple[float, ...] = ()
    snapshot: str | None = None
    timezone: str = MARKET_TIMEZONE
    us_listed: bool = False
    empty_bid_is_zero: bool = False
    underlying_in_name: str | None = None
    prepare: Callable[[pd.DataFrame], pd.DataFrame] | None = field(
        default=None, repr=False
    )
    notes: tuple[str, ...] = ()

    def recognises(self, source: ChainSource) -> bool:
        """Whether the table has all columns of the signature."""
        return source.has(*self.signature)

    def read(self, source: ChainSource) -> LayoutRows:
        """The rows of a table, with canonical names."""
        table = keyed_columns(source.read(skiprows=source.header))
        if self.prepare is not None:
            table = self.prepare(table)
        notes = list(self.notes)
        two_sided = self.calls is not None and self.puts is not None
        rows = (
            self._both_sides(table) if two_sided else self._renamed(table, self.columns)
        )
        for name, value in self.values.items():
            rows[name] = value  # type: ignore[call-overload]
        if self.underlying_in_name is not None and source.path is not None:
            found = re.search(self.underlying_in_name, source.path.name.lower())
            if found:
                rows["underlying"] = found[1].upper()
        for name in rows.columns.intersection([*_PRICES, "implied_volatility"]):
            rows[name] = self._without_placeholders(rows[name])
        notes.extend(self._scale(rows))
        if self.empty_bid_is_zero and {"bid", "ask"} <= set(rows.columns):
            notes.extend(fill_bids(rows))
        if self.snapshot is not None and "quote_time" in rows:
            rows["quote_time"] = _at_time(rows["quote_time"], self.snapshot)
        return LayoutRows(
            rows, tuple(notes), timezone=self.timezone, us_listed=self.us_listed
        )

    def _renamed(
        self, table: pd.DataFrame, names: Mapping[str, str | tuple[str, ...]]
    ) -> pd.DataFrame:
        """The columns that are there, under their canonical names."""
        found = {}
        for canonical, own in names.items():
            choices = (own,) if isinstance(own, str) else own
            present = [key for key in map(column_key, choices) if key in table]
            if present:
                found[canonical] = table[present[0]]
        return pd.DataFrame(found, index=table.index)

    def _both_sides(self, table: pd.DataFrame) -> pd.DataFrame:
        """Calls, then puts, labelled by the row that each comes from."""
        sides = {"call": self.calls or {}, "put": self.puts or {}}
        return stack_sides(
            {
                side: self._renamed(table, {**self.columns, **names})
                for side, names in sides.items()
            }
        )

    def _scale(self, rows: pd.DataFrame) -> list[str]:
        """Bring strikes and prices to currency units, in place; says what was done."""
        notes = []
        if self.strike_scale != 1.0:
            rows["strike"] = numbers(rows["strike"]) / self.strike_scale
            notes.append(f"{self.name}: strikes divided by {self.strike_scale:g}")
        if self.price_scale != 1.0:
            for name in rows.columns.intersection(_PRICES):
                rows[name] = numbers(rows[name]) / self.price_scale
            notes.append(f"{self.name}: prices divided by {self.price_scale:g}")
        return notes

    def _without_placeholders(self, column: pd.Series) -> pd.Series:
        """A column of numbers in which placeholders are missing."""
        if not self.missing:
            return column
        values = pd.Series(numbers(column), index=column.index)
        return values.mask(values.isin(self.missing))


def keyed_columns(table: pd.DataFrame) -> pd.DataFrame:
    """A table under the keys of its columns, levels of its index among them.

    Where several columns have one key, the first keeps it and others get a number.

    Examples:
        >>> list(keyed_columns(pd.DataFrame([[1, 2]], columns=["Size", "size"])))
        ['size', 'size1']
    """
    named = [name for name in table.index.names if isinstance(name, str)]
    extra = {
        name: table.index.get_level_values(str(name))
        for name in named
        if name not in table.columns
    }
    keyed = table.assign(**{str(key): value for key, value in extra.items()})
    seen: dict[str, int] = {}
    keys = []
    for name in keyed.columns:
        key = column_key(name)
        count = seen.get(key, 0)
        seen[key] = count + 1
        keys.append(f"{key}{count}" if count else key)
    keyed.columns = pd.Index(keys)
    return keyed


def stack_sides(sides: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Rows that hold a call and a put as two, labelled by the row that each is of.

    Examples:
        >>> row = pd.DataFrame({"bid": [1.0]}, index=["a"])
        >>> print(stack_sides({"call": row, "put": row + 1.0}))
                bid option_type
        a call  1.0        call
        a put   2.0         put
    """
    return pd.concat(
        side.assign(option_type=name).set_axis(side.index.astype("str") + f" {name}")
        for name, side in sides.items()
    )


def renamed(table: pd.DataFrame, names: Mapping[str, Hashable]) -> pd.DataFrame:
    """Columns of a table under the names given, each with its own."""
    return table[list(names.values())].set_axis(list(names), axis=1)


def fill_bids(rows: pd.DataFrame) -> list[str]:
    """Zero where nobody bids for what is offered, in place, with a note.

    Examples:
        >>> rows = pd.DataFrame({"bid": [None, 1.0], "ask": [0.1, 1.2]})
        >>> fill_bids(rows), rows["bid"].tolist()
        (['ask without a bid in 1 of 2 rows: nobody bids, so it is zero'], [0.0, 1.0])
    """
    bid, ask = numbers(rows["bid"]), numbers(rows["ask"])
    nobody = np.isnan(bid) & (ask > 0.0)
    rows["bid"] = np.where(nobody, 0.0, bid)
    count = int(nobody.sum())
    if not count:
        return []
    where = f"{count:,} of {len(rows):,} rows"
    return [f"ask without a bid in {where}: nobody bids, so it is zero"]


def _at_time(dates: pd.Series, clock: str) -> pd.Series:
    """Dates at a time of the day; times stay as they are."""
    known = {value: as_date(value) for value in dates.dropna().unique()}
    return pd.to_datetime(dates.map(known)) + pd.Timedelta(f"{clock}:00")


_LAYOUTS: dict[str, AnyLayout] = {}


def register_layout(layout: AnyLayout) -> None:
    """Add a layout to those that `read_chain` recognises.

    Layouts are tried from the one registered last to the first, "tidy", which takes any
    table. A layout of the same name is replaced.

    Examples:
        Prices in units of 1/10000.

        >>> register_layout(TableLayout(
        ...     "scaled", signature=("K", "bid_e4", "ask_e4"), price_scale=1e4,
        ...     columns={"strike": "K", "bid": "bid_e4", "ask": "ask_e4"}))
        >>> layout_names()[0]
        'scaled'
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
        >>> layout_names()[-1]
        'tidy'
    """
    return list(reversed(_LAYOUTS))


def find_layout(source: ChainSource, name: str | None = None) -> AnyLayout:
    """The layout of that name, or the first that recognises the source.

    Raises:
        ValueError: If no layout has this name.
    """
    if name is not None:
        if name not in _LAYOUTS:
            raise ValueError(f"no layout {name!r}; there are {layout_names()}")
        if isinstance(_LAYOUTS[name], TableLayout):
            refuse(
                f"the layout {name!r} has names of its own; pass layout='tidy', or "
                "register a layout",
                columns=source.columns,
            )
        return _LAYOUTS[name]
    if source.columns is not None:
        return _LAYOUTS["tidy"]
    return next(
        _LAYOUTS[name] for name in layout_names() if _LAYOUTS[name].recognises(source)
    )


def read_layout(layout: AnyLayout, source: ChainSource) -> LayoutRows:
    """The rows of a source, or an error that says what is not as the layout has it.

    Raises:
        QuoteError: If a column is missing that the layout needs, or holds what its
            vendor does not write.
    """
    try:
        return layout.read(source)
    except QuoteError:
        raise
    except (
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        OverflowError,
    ) as error:
        reason = f"{type(error).__name__}: {error}"
        if isinstance(error, KeyError):
            reason = f"it has no column {error}"
        if source.table is not None and source.table.columns.has_duplicates:
            names = source.table.columns
            several = names[names.duplicated()].tolist()[0]
            reason = (
                f"several columns are named {several!r}; rename or drop all but one"
            )
        tidy = layout.name == "tidy"
        other = "" if tidy else "`layout='tidy'` with "
        raise QuoteError(
            f"the table looks like the layout {layout.name!r}, but is not as it should "
            f"be: {reason}; mend it, or pass {other}`columns=` for its names"
        ) from error


def _read_tidy(source: ChainSource) -> LayoutRows:
    """One row per option; columns found by name."""
    table = source.read(skiprows=source.header if source.head else 0)
    names = match_columns(table, source.columns)
    notes = []
    quoted = {"bid", "ask", "implied_volatility"} & names.keys()
    if "mid" in names and column_key(names["mid"]) in LAST_PRICES:
        if quoted:
            del names["mid"]
        else:
            notes.append(f"no quotes: prices are {names['mid']!r}, of whatever time")
    for own in names.values():
        column_of(table, own)  # an error where several share a name
    return LayoutRows(
        renamed(table, names), tuple(notes), own_names=tuple(map(str, table.columns))
    )


register_layout(Layout("tidy", lambda source: True, _read_tidy))

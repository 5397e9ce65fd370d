"""From a file, a folder or a table to option chains."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypedDict, Unpack

import numpy as np
import pandas as pd

from relu_options.errors import QuoteError, refuse
from relu_options.market_data import vendors as vendors  # registers the layouts
from relu_options.market_data.canonical import (
    CanonicalTable,
    Selection,
    Wanted,
    canonical_table,
    select_all,
    select_one,
    split_notes,
)
from relu_options.market_data.chain import OptionChain
from relu_options.market_data.cleaning import (
    Kernel,
    TradingLimits,
    clean_rows,
    nothing_left,
)
from relu_options.market_data.clocks import MARKET_TIMEZONE, as_date
from relu_options.market_data.columns import PriceUnit, Units, VolatilityUnit
from relu_options.market_data.expiry_quotes import ExpiryQuotes
from relu_options.market_data.layouts import LayoutRows, find_layout, read_layout
from relu_options.market_data.rates import ByExpiry, MarketTerms, at_odds
from relu_options.market_data.sources import (
    ChainSource,
    FileGroup,
    Readable,
    folder_groups,
    is_readable,
    not_readable,
    open_source,
    path_date,
)

Quotes: TypeAlias = Readable | OptionChain
"""What `read_chain` reads, or has read."""


class Reading(TypedDict, total=False):
    """How a source is read, and what is known of it: the arguments of `read_chain`.

    Every function that takes quotes takes them.

    Examples:
        >>> from relu_options.simulation import bundled_chain
        >>> known: Reading = {"rate": 0.04}
        >>> quotes = prepare_quotes(bundled_chain()["2025-06-20"], **known)
        >>> print(round(-np.log(quotes.discount_factor) / quotes.time_to_expiry, 4))
        0.04
    """

    quote_time: object
    date: object
    underlying: str | None
    expiry: object
    columns: Mapping[str, Hashable] | None
    layout: str | None
    spot: float | None
    forward: ByExpiry | None
    discount_factor: ByExpiry | None
    rate: ByExpiry | None
    dividend_yield: ByExpiry | None
    time_to_expiry: float | None
    kernel: Kernel
    multiplier: float | None
    strike_scale: float | None
    price_unit: PriceUnit
    volatility_unit: VolatilityUnit
    max_age: float | None
    min_volume: float | None
    min_open_interest: float | None


def read_chain(
    source: Quotes,
    *,
    quote_time: object = None,
    date: object = None,
    underlying: str | None = None,
    expiry: object = None,
    columns: Mapping[str, Hashable] | None = None,
    layout: str | None = None,
    spot: float | None = None,
    forward: ByExpiry | None = None,
    discount_factor: ByExpiry | None = None,
    rate: ByExpiry | None = None,
    dividend_yield: ByExpiry | None = None,
    time_to_expiry: float | None = None,
    kernel: Kernel = "auto",
    multiplier: float | None = None,
    strike_scale: float | None = None,
    price_unit: PriceUnit = "auto",
    volatility_unit: VolatilityUnit = "auto",
    max_age: float | None = None,
    min_volume: float | None = None,
    min_open_interest: float | None = None,
) -> OptionChain:
    """Read an option chain, clean it, and keep account of every row.

    The layout is recognised: those of data vendors and exchanges
    (`relu_options.market_data.layout_names`), or any table with one row per option, its
    columns found by name. `relu_options.market_data.register_layout` adds one.

    Rows that cannot be quotes are dropped and counted (`OptionChain.report`): without
    strike, quote or expiry, negative, crossed, repeated, expired, of adjusted
    contracts. A bid of zero is a quote; a missing bid or ask is unknown. Contract
    symbols win over columns that disagree with them, and their roots tell AM- from
    PM-settled contracts, European from American ones. What is assumed of units and
    times is noted in the report, and can be overridden here. What is known of the
    market wins over the source, and over what put-call parity implies.

    A chain all of which has expired within a day before its quotes is one without
    slices: nothing can be fitted to it, but a history settles on it.

    Args:
        source: A file (CSV, also gzipped or zipped, Parquet, JSON, Excel), a folder of
            them, a table (pandas, Polars, Arrow, a relation of DuckDB, a dict of
            columns), which is not modified and whose index is kept, or what yfinance's
            `Ticker.option_chain` returns, also a list of these; or a chain, which is
            given what is known.
        quote_time: When the quotes were taken; needed where the source does not say.
            Without a time zone it is the market's time (New York's, unless the layout
            says otherwise), and a date alone is its close: a download on Saturday 18
            May 2019 shows the close of "2019-05-17 16:15".
        date: The day whose quotes to read, where a source holds several.
        underlying: The underlying to read, where a source holds several.
        expiry: The expiry, for a table of one expiry that does not say it.
        columns: Names of columns that are not found: `{"strike": "K_usd"}`.
        layout: A layout's name, if it is not to be recognised.
        spot: Price of the underlying in currency units: prices in a coin are converted
            with it.
        forward: Forward price of the underlying, in currency units: a number, or a
            Series or dict by expiry. Keys are dates, (date, "AM") where two contracts
            of a date differ, or years where there are no dates. A negative one says
            that the underlying may be negative.
        discount_factor: Price today of one unit of currency paid at expiry; likewise.
        rate: Continuous, per year, instead of a discount factor; likewise.
        dividend_yield: Continuous, per year; likewise. With the spot it makes the
            forward, where none is given.
        time_to_expiry: Years, for quotes of one expiry.
        kernel: The law of the underlying. "normal" is for one that may be negative, as
            rates, spreads and the oil of April 2020 are: strikes of zero and below are
            quotes, and volatilities that are quoted are normal ones, in currency units
            per square root of a year. With "lognormal" they are faults, and a forward
            that is not positive an error. "auto" takes such strikes as quotes where the
            forward told is negative, or where at three or more of them puts of one
            expiry have bids that rise with the strike; an expiry is then normal if its
            forward or one of its strikes is zero or below.
        multiplier: Units of the underlying in a contract. Without it that of the table,
            or else 100 for contracts listed in the US and what is known of others;
            a backtest asks for it where nothing tells.
        strike_scale: By what to divide strikes; None detects scales of 100, 1000 and
            10000 where the underlying's price is known.
        price_unit: "coin" if prices are in units of the underlying, "currency" if not;
            "auto" tells from symbols and from in-the-money prices.
        volatility_unit: "percent" if 20.5 means 20.5 %, "fraction" if 0.205 does;
            "auto" takes volatilities as percent where their median exceeds 4.
        max_age: Days from a contract's last trade to the quote time, at most; rows
            beyond this and the next two limits are set aside, as are those that do not
            say. `chain.report()` lists them.
        min_volume: Contracts traded, at least.
        min_open_interest: Contracts open, at least.

    Returns:
        The chain.

    Raises:
        QuoteError: If columns are missing, there are no rows, none can be used, or
            there are several quote dates or underlyings and none is chosen.
        FileNotFoundError: If there is no such file.
        TypeError: If `source` is none of these.
        ValueError: If there is no such layout or unit, what is known makes no sense,
            or an argument has no effect on a chain.

    Examples:
        >>> quotes = pd.DataFrame({"expiration": "2019-06-21", "right": ["C", "C", "P"],
        ...                        "K": [2800.0, 2900.0, 2900.0],
        ...                        "bid": [90.2, 26.0, 60.0],
        ...                        "ask": [91.0, 26.3, 59.0]})
        >>> chain = read_chain(quotes, quote_time="2019-05-17")
        >>> print(chain.table[["strike", "option_type", "bid", "ask"]])
           strike option_type   bid   ask
        0  2800.0        call  90.2  91.0
        1  2900.0        call  26.0  26.3
    """
    reading = {name: given for name, given in locals().items() if name != "source"}
    return _Reader.asked(reading).one(source)[0]


def prepare_quotes(
    quotes: Quotes,
    *,
    on_bad_quotes: Literal["drop", "raise"] = "drop",
    **reading: Unpack[Reading],
) -> ExpiryQuotes:
    """Clean the quotes of one expiry and choose one per strike, out of the money.

    It is `read_chain`, of whose chain there must be one slice, followed by the choice
    of quotes. A table needs a strike; bid and ask, or else a mid, or else an implied
    volatility; call or put; and, where not given as arguments, expiry and quote time or
    a time to expiry. A forward or discount factor that is neither given nor in the
    table is implied by put-call parity. Bids and asks win over mids, and prices over
    volatilities: a vendor's volatility, or a last trade, is never used beside a quote.

    Puts are used below the forward and calls at and above it. A strike that is quoted
    in the money only is kept, its quotes turned by parity into those of the
    out-of-the-money option. A bid of zero is a quote; a missing bid or ask is unknown,
    and its row dropped.

    Where last trades are known, a quote that contradicts neighbours which traded a day
    or more after it, beyond its spread, is stale and set aside. A quote in the money
    without an out-of-the-money one is used only if its spread is no wider than its
    neighbours', and with the standard error that parity adds. See
    `relu_options.market_data.freshness`.

    A slice whose pairs do not tell its discount factor borrows the rate of the other
    slices of its chain, one smooth curve through all that tell theirs; where none does,
    2 % is assumed. The report says which.

    American options are worth more than European ones by the right to exercise early,
    which is least out of the money: only such quotes are used. Parity then tells the
    forward, from the pairs within a quarter of a deviation of the money, but not the
    discount factor (its slope holds the right too): it is borrowed or assumed unless
    given.

    Args:
        quotes: What `read_chain` reads, of one expiry; or a chain with one slice. It is
            not modified.
        on_bad_quotes: "drop" drops bad rows and reports them; "raise" raises instead.
        **reading: The arguments of `read_chain`: `forward` and `discount_factor`,
            `time_to_expiry` and `quote_time`, `columns` and so on. With a forward given
            and too few pairs to imply it, the discount factor is taken as one, and
            noted.

    Returns:
        The quotes as arrays, with a report on every row of the table.

    Raises:
        QuoteError: If a column is missing, the table has no rows or more than one
            expiry, the expiry is not after the quote time, the forward cannot be
            implied, fewer than three strikes can be used, or a limit is set on what the
            table does not say; and, with `on_bad_quotes="raise"`, if any row is bad.
            The message names rows.
        TypeError: If `quotes` is nothing that can be read.
        ValueError: If a number given makes no sense: a time to expiry of 365 "years",
            a discount factor that implies 500 % a year, or what must be positive and is
            not.

    Examples:
        >>> quotes = pd.DataFrame({"K": [80.0, 90.0, 100.0, 110.0, 110.0, 120.0],
        ...                        "right": ["P", "P", "C", "C", "P", "C"],
        ...                        "bid": [0.0, 1.0, 4.0, 0.9, 9.6, 0.1],
        ...                        "ask": [0.1, 1.2, 4.2, 1.1, 9.9, 0.0]})
        >>> prepared = prepare_quotes(quotes, forward=101.0, discount_factor=0.99,
        ...                           time_to_expiry=0.25)
        >>> print(prepared.to_frame())
           strike option_type   bid   ask   mid
        0    80.0         put  0.00  0.10  0.05
        1    90.0         put  1.00  1.20  1.10
        2   100.0         put  3.01  3.21  3.11
        3   110.0        call  0.90  1.10  1.00
        >>> prepared.report
        6 rows in, 4 used
          dropped 1: bid above ask: 5: call 120 (0.1 / 0)
          set aside 1: in the money, at a strike whose out-of-the-money quote is used
    """
    if on_bad_quotes not in ("drop", "raise"):
        raise ValueError(
            f'`on_bad_quotes` must be "drop" or "raise", not {on_bad_quotes!r}'
        )
    chain, source = _Reader.asked(reading).one(quotes)
    found = ExpiryQuotes.of(chain, on_bad_quotes=on_bad_quotes, source=source)
    if isinstance(quotes, OptionChain):
        return found
    report = replace(found.report, notes=(*chain.notes, *found.report.notes))
    return replace(found, report=report)


def prepared_again(quotes: ExpiryQuotes, **reading: Unpack[Reading]) -> ExpiryQuotes:
    """Prepared quotes, with the law that is asked for; nothing else is asked again.

    Raises:
        QuoteError: If they cannot have that law.
        ValueError: If anything else is asked: the quotes have been read.

    Examples:
        >>> from relu_options.simulation import bundled_chain
        >>> quotes = prepare_quotes(bundled_chain()["2025-06-20"])
        >>> quotes.kernel, prepared_again(quotes, kernel="normal").kernel
        ('lognormal', 'normal')
    """
    kernel = reading.pop("kernel", "auto")
    refuse("the quotes are prepared; pass it to `prepare_quotes`", **reading)
    return quotes.with_kernel(kernel)


@dataclass(frozen=True, eq=False)
class PreparedSlices:
    """The slices of whatever quotes were given.

    Attributes:
        quotes: Those that can be used, in the order given.
        chains: The chain of each; None where quotes were prepared before.
        rows: All rows of each chain, the user's own if asked for; likewise.
        skipped: The others by their labels, each with the reason.
        chain: The one chain that was read, if it was one.
    """

    quotes: list[ExpiryQuotes] = field(default_factory=list)
    chains: list[OptionChain | None] = field(default_factory=list)
    rows: list[pd.DataFrame | None] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    chain: OptionChain | None = None

    def require_any(self) -> None:
        """Raise `QuoteError` if no slice can be used, saying why."""
        if self.quotes:
            return
        reasons = [f"{name}: {why}" for name, why in list(self.skipped.items())[:3]]
        raise QuoteError(
            f"none of {len(self.skipped)} slices can be prepared: "
            f"{'; '.join(reasons)}; see `chain.report()`"
            if reasons
            else "no quotes: there are no expiries"
        )


def prepare_slices(
    quotes: Quotes | ExpiryQuotes | Iterable[Quotes | ExpiryQuotes],
    *,
    as_given: bool = False,
    **reading: Unpack[Reading],
) -> PreparedSlices:
    """Prepare every slice of whatever quotes are given, by `ExpiryQuotes.of`.

    Args:
        quotes: What `read_chain` reads, prepared quotes, or several of these.
        as_given: Whether `ExpiryQuotes.table` is to have the user's own rows, where
            there is a table of them, rather than canonical ones.
        **reading: The arguments of `read_chain`.

    Raises:
        QuoteError: If a source cannot be read.
        TypeError: If it is nothing that can be read.
        ValueError: If an argument has no effect: prepared quotes have been read.

    Examples:
        >>> from relu_options.simulation import bundled_chain
        >>> prepared = prepare_slices(bundled_chain())
        >>> len(prepared.quotes), prepared.skipped
        (8, {})
    """
    found = PreparedSlices()
    # Several tables are of an expiry each; only yfinance's results make one chain.
    tables = isinstance(quotes, list | tuple) and not all(
        hasattr(one, "calls") for one in quotes
    )
    if isinstance(quotes, OptionChain) or (is_readable(quotes) and not tables):
        chain, source = _Reader.asked(reading).one(quotes)
        _add_slices(found, chain, source if as_given else None)
        return replace(found, chain=chain)
    several = [quotes] if isinstance(quotes, ExpiryQuotes) else quotes
    if not isinstance(several, Iterable):
        raise TypeError(not_readable(quotes))
    for position, one in enumerate(several):
        if isinstance(one, ExpiryQuotes):
            found.quotes.append(prepared_again(one, **reading))
            found.chains.append(None)
            found.rows.append(None)
            continue
        try:
            chain, source = _Reader.asked(reading).one(one)
        except QuoteError as error:
            found.skipped[f"table {position}"] = str(error)
        else:
            _add_slices(found, chain, source if as_given else None)
    return found


def _add_slices(
    found: PreparedSlices,
    chain: OptionChain,
    source: tuple[pd.DataFrame, np.ndarray] | None,
) -> None:
    """Add the slices of a chain, in place."""
    chain.require_slices()
    for one, positions in zip(chain, chain.positions.values(), strict=True):
        own = None if source is None else (source[0], source[1][positions])
        try:
            quotes = ExpiryQuotes.of(one, source=own)
        except QuoteError as error:
            found.skipped[one.label] = str(error)
        else:
            found.quotes.append(quotes)
            found.chains.append(one)
            found.rows.append(one.rows if own is None else own[0].iloc[own[1]])


class ChainReader(Iterator[OptionChain]):
    """The chains of a source, each read when its turn comes, and what was skipped.

    Attributes:
        skipped: Why dates were skipped, so far, by date and underlying.

    Examples:
        See `read_chains`.

        >>> ChainReader(iter([]), {}).skipped
        {}
    """

    def __init__(self, chains: Iterator[OptionChain], skipped: dict[str, str]):
        self._chains = chains
        self.skipped = skipped

    def __next__(self) -> OptionChain:
        return next(self._chains)


def read_chains(
    source: Readable,
    *,
    on_error: Literal["raise", "skip"] = "raise",
    **reading: Unpack[Reading],
) -> ChainReader:
    """Read all chains of a source: one for each quote date and underlying.

    A folder is read date by date, as the names of its files and folders tell, so that
    it need not fit into memory; a file is read whole.

    Args:
        source: As in `read_chain`.
        on_error: What to do where a date of several, or the files of one, cannot be
            read: "raise", or "skip" and keep the reason.
        **reading: As in `read_chain`, but for a date: `underlying`, the one to read if
            not all; `quote_time`, for a source that states none; and so on.

    Returns:
        An iterator over the chains, in the order of their dates within a file; its
        `skipped` holds the reasons, by date, of what was skipped so far.

    Raises:
        QuoteError: As `read_chain`, when the turn of a chain comes; the message names
            the date. If all are skipped, at the end.
        ValueError: If `on_error` is neither "raise" nor "skip".

    Examples:
        >>> quotes = pd.DataFrame({"date": ["2019-05-17", "2019-05-20"] * 2,
        ...                        "exp": "2019-06-21", "right": ["C", "C", "P", "P"],
        ...                        "K": 2900.0, "bid": [26.0, 20.0, 59.0, 70.0],
        ...                        "ask": [26.3, 20.4, 60.0, 69.0]})
        >>> for chain in read_chains(quotes):
        ...     print(f"{chain.quote_time:%Y-%m-%d}", len(chain.table), "quotes")
        2019-05-17 2 quotes
        2019-05-20 1 quotes

        Of a date all of whose quotes are crossed, nothing is left.

        >>> crossed = quotes.assign(ask=quotes["ask"].where(quotes["bid"] > 20.0, 1.0))
        >>> reader = read_chains(crossed, on_error="skip")
        >>> len(list(reader)), list(reader.skipped)
        (1, ['2019-05-20'])
    """
    if on_error not in ("raise", "skip"):
        raise ValueError(f'`on_error` must be "raise" or "skip", not {on_error!r}')
    refuse("all dates are read; use `read_chain` for one", date=reading.get("date"))
    how = _Reader.asked(reading)
    groups = _groups(source)
    skipped: dict[str, str] = {}

    def chains() -> Iterator[OptionChain]:
        found = 0
        for label, chain in how.all(groups):
            if isinstance(chain, OptionChain):
                found += 1
                yield chain
            elif on_error == "raise":
                raise QuoteError(
                    f"{label}: {chain}" if label else str(chain)
                ) from chain
            elif not label:  # the one table
                raise chain
            else:
                reasons = [skipped[label]] if label in skipped else []
                skipped[label] = "; ".join([*reasons, str(chain)])
        if skipped and not found:
            label, reason = next(iter(skipped.items()))
            raise QuoteError(
                f"none of {len(skipped)} dates can be read; {label}: {reason}"
            )
        if not found:  # as of no date
            raise QuoteError(
                f"no options on {how.wanted.underlying!r}; without `underlying=` all "
                "are read"
            )

    return ChainReader(chains(), skipped)


@dataclass(frozen=True, eq=False)
class _Reader:
    """What a user says of a source, and of the chain wanted from it.

    Attributes:
        wanted: Which rows, and when they were quoted.
        expiry: Of rows that have none.
        columns: Names of columns that are not found.
        layout: A layout's name.
        units: What is said of units.
        known: What is known of the market.
        limits: What is asked of a contract's trading.
    """

    wanted: Wanted
    expiry: object
    columns: Mapping[str, Hashable] | None
    layout: str | None
    units: Units
    known: MarketTerms
    limits: TradingLimits

    def __post_init__(self) -> None:
        if self.columns is not None and not isinstance(self.columns, Mapping):
            raise TypeError(
                "`columns` is a dict from names of this library to those of the table, "
                f"such as {{'strike': 'K_usd'}}, not {type(self.columns).__name__}"
            )

    @classmethod
    def asked(cls, reading: Mapping[str, Any]) -> "_Reader":
        """From the arguments of `read_chain` that are given.

        Raises:
            TypeError: If there are others.
        """
        unknown = reading.keys() - Reading.__annotations__.keys()
        if unknown:
            known = sorted(Reading.__annotations__)
            near = get_close_matches(min(unknown), known, 1)
            meant = f", did you mean `{near[0]}`?" if near else ";"
            raise TypeError(
                f"unknown arguments {sorted(unknown)}{meant} those of `read_chain` are "
                f"{known}"
            )

        def pick(kind: Callable, *names: str) -> Any:
            return kind(**{name: reading[name] for name in names if name in reading})

        return cls(
            wanted=pick(Wanted, "quote_time", "date", "underlying"),
            expiry=reading.get("expiry"),
            columns=reading.get("columns"),
            layout=reading.get("layout"),
            units=pick(Units, *Units.__annotations__),
            known=pick(MarketTerms, *MarketTerms.__annotations__),
            limits=pick(TradingLimits, *TradingLimits.__annotations__),
        )

    def one(
        self, source: Any
    ) -> tuple[OptionChain, tuple[pd.DataFrame, np.ndarray] | None]:
        """The one chain of a source; of a table, also it and the place of each row."""
        if isinstance(source, OptionChain):
            return self._known_of(source), None
        table = self.open(_one_group(source, self.wanted.date))
        chosen = select_one(table.canonical.table, table.wanted)
        splits = split_notes(table.canonical.table, table.wanted.timezone)
        chosen = replace(chosen, notes=(*chosen.notes, *splits))
        own = None if table.own is None else (table.own, chosen.positions)
        return table.chain(chosen), own

    def all(self, groups: list[Any]) -> Iterator[tuple[str, OptionChain | QuoteError]]:
        """Labels, and chains or why there is none; unlabelled, of a whole source."""
        for group in groups:
            try:
                table = self.open(group)
                choices = list(select_all(table.canonical.table, table.wanted))
            except QuoteError as error:
                yield (group.label if isinstance(group, FileGroup) else ""), error
                continue
            for label, chosen in choices:
                try:
                    yield label, table.chain(chosen)
                except QuoteError as error:
                    yield label, error

    def _known_of(self, chain: OptionChain) -> OptionChain:
        """A chain that was read, with what is known."""
        given = {
            "date": self.wanted.date,
            "underlying": self.wanted.underlying,
            "expiry": self.expiry,
            "columns": self.columns,
            "layout": self.layout,
            **vars(self.units),
        }
        said = {name: one for name, one in given.items() if str(one) != "auto"}
        refuse(
            "the chain has been read; pass it to `read_chain` with the source", **said
        )
        if not self.known.is_empty or self.wanted.quote_time is not None:
            chain = chain.knowing(self.known, self.wanted.quote_time)
        return chain.within(self.limits)

    def open(self, group: Any) -> "_SourceTable":
        """All rows of a file, a table, or the files of one date."""
        own = None
        if isinstance(group, FileGroup):
            reads = [self._read(path)[1:] for path in group.paths]
            read, name = reads[0] if len(reads) == 1 else _together(reads)
            date = group.date
        else:
            opened, read, name = self._read(group)
            date = path_date(opened.path)
            if opened.table is not None and opened.path is None:
                same = read.rows.index.equals(opened.table.index)
                own = opened.table if same else None
        units = self.units
        if self.known.is_signed and units.volatility_unit == "auto":
            # Normal volatilities are in currency units: 25 is no quarter.
            units = replace(units, volatility_unit="fraction")
        canonical = canonical_table(
            read,
            expiry=self.expiry,
            underlying=self.wanted.underlying,
            units=units,
            known=self.known,
        )
        if own is not None:  # what the user does to it later must not change the result
            own = own.copy(deep=not _COPIES_ON_WRITE)
        wanted = replace(
            self.wanted,
            path_date=date,
            inferred=read.inferred,
            timezone=read.timezone,
        )
        return _SourceTable(canonical, wanted, name, self, own)

    def _read(self, source: Any) -> tuple[ChainSource, LayoutRows, str]:
        """A source opened, its rows, and the name of its layout."""
        opened = open_source(source, self.columns)
        found = find_layout(opened, self.layout)
        return opened, read_layout(found, opened), found.name


@dataclass(frozen=True, eq=False)
class _SourceTable:
    """All rows of a source, in canonical columns.

    Attributes:
        canonical: The rows.
        wanted: Which of them are asked for, beside what the source implies.
        layout: The name of its layout.
        how: How it was read.
        own: The user's own table, if there is one of the same rows.
    """

    canonical: CanonicalTable
    wanted: Wanted
    layout: str
    how: _Reader
    own: pd.DataFrame | None

    def chain(self, chosen: Selection) -> OptionChain:
        """A chain of the rows chosen, each with the rule that it falls under."""
        canonical, known = self.canonical, self.how.known
        rows = canonical.table.iloc[chosen.positions]
        if chosen.quote_time is not None:
            stamp = pd.Series(chosen.quote_time, index=rows.index)
            rows = rows.assign(quote_time=stamp.astype("datetime64[us, UTC]"))
        dated = rows["expiry"].notna().any()
        if chosen.restamped and dated and known.time_to_expiry is None:
            rows = rows.drop(columns="time_to_expiry", errors="ignore")
        rows = known.applied(rows, chosen.quote_time)
        codes, found = clean_rows(
            rows,
            chosen.quote_time,
            nonstandard=canonical.nonstandard[chosen.positions],
            superseded=chosen.superseded,
            limits=self.how.limits,
            kernel=known.kernel,
        )
        weekend = _weekend_note(rows, chosen)
        chain = OptionChain(
            rows=rows,
            codes=codes,
            quote_time=chosen.quote_time,
            notes=(*canonical.notes, *chosen.notes, *weekend, *found),
            layout=self.layout,
            strange_types=canonical.strange_types,
            expiry_given=self.how.expiry is not None,
            kernel=known.kernel,
        )
        if chain.has_ended:
            note = "all has expired: a history settles on this chain"
            return replace(chain, notes=(*chain.notes, note))
        if codes.all():
            raise QuoteError(nothing_left(rows, codes, chain.quote_time, chain.notes))
        if canonical.stated_years is not None:
            _check_stated(chain, canonical.stated_years[chosen.positions])
        return chain


def _check_stated(chain: OptionChain, stated: np.ndarray) -> None:
    """Raise if rows state another time to expiry than the expiry that was given."""
    stated = stated[(chain.codes == 0) & np.isfinite(stated)]
    if len(chain) != 1 or not len(stated):
        return
    told, given = float(np.median(stated)), chain.time_to_expiry
    if at_odds(told, given):
        raise QuoteError(
            f"the quotes contradict the expiry given: they state {365.0 * told:.0f} "
            f"days to expiry, where {chain.label} is {365.0 * given:.0f} days away; "
            "check `expiry=` and `quote_time=`"
        )


def _groups(source: object) -> list[Any]:
    """The source, or if it is a folder, the groups of its files, by their dates."""
    if isinstance(source, str | Path) and Path(source).is_dir():
        return list(folder_groups(Path(source)))
    return [source]


def _one_group(source: object, date: object) -> Any:
    """The source, or of a folder the files of the date asked for.

    Raises:
        QuoteError: If the names of files tell of several dates, and none of them is the
            one asked for.
    """
    groups = _groups(source)
    if date is not None and isinstance(groups[0], FileGroup):
        day = as_date(date)
        groups = [group for group in groups if group.date == day] or groups
    if len(groups) == 1:
        return groups[0]
    dates = [group.date for group in groups]
    if None in dates:  # names do not tell: the tables must
        return FileGroup(None, tuple(path for group in groups for path in group.paths))
    shown = ", ".join(f"{one:%Y-%m-%d}" for one in dates[:31])
    more = ", ..." if len(dates) > 31 else ""
    raise QuoteError(
        f"{len(groups)} dates in {source}: {shown}{more}; choose one with `date=`, or "
        "read all with `read_chains`"
    )


def _together(reads: list[tuple[LayoutRows, str]]) -> tuple[LayoutRows, str]:
    """The rows of several files together, and the names of their layouts."""
    tables = [
        read.rows
        if read.quote_time is None or "quote_time" in read.rows
        else read.rows.assign(
            quote_time=pd.Series([read.quote_time] * len(read.rows), read.rows.index)
        )
        for read, _ in reads
    ]
    notes = dict.fromkeys(note for read, _ in reads for note in read.notes)
    together = replace(
        reads[0][0],
        rows=pd.concat(tables, ignore_index=True),
        notes=(f"{len(reads)} files read together", *notes),
        quote_time=None,
        inferred=any(read.inferred for read, _ in reads),
    )
    return together, ", ".join(dict.fromkeys(name for _, name in reads))


def _weekend_note(rows: pd.DataFrame, chosen: Selection) -> list[str]:
    """A note where an exchange's quotes bear the time of a weekend."""
    stamp = chosen.quote_time
    if stamp is None or not rows["settlement"].isin(["AM", "PM"]).all():
        return []
    local = stamp.tz_convert(MARKET_TIMEZONE)
    if local.weekday() < 5:
        return []
    friday = local - pd.Timedelta(days=local.weekday() - 4)
    return [
        f"quote time on a {local:%A}, when the market was closed: if these are quotes "
        f"of its last close, pass `quote_time='{friday:%Y-%m-%d} 16:00'`"
    ]


_COPIES_ON_WRITE = int(pd.__version__.split(".")[0]) >= 3

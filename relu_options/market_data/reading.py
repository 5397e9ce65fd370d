"""From a file, a folder or a table to option chains."""

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from relu_options.errors import QuoteError
from relu_options.market_data import vendors as vendors  # registers the layouts
from relu_options.market_data.canonical import CanonicalTable, canonical_table
from relu_options.market_data.chain import (
    OptionChain,
    quote_report,
    quoted_without_spread,
)
from relu_options.market_data.cleaning import (
    PLACEHOLDER_BELOW,
    QuoteReport,
    contradicting_rows,
    duplicated_rows,
    mark,
    quote_faults,
)
from relu_options.market_data.clocks import MARKET_TIMEZONE, as_date
from relu_options.market_data.freshness import Trading, TradingLimits
from relu_options.market_data.layouts import LayoutRows, find_layout, read_layout
from relu_options.market_data.selection import (
    Selection,
    Wanted,
    select_all,
    select_one,
    split_notes,
)
from relu_options.market_data.sources import (
    FileGroup,
    folder_groups,
    open_source,
    path_date,
)
from relu_options.market_data.units import PriceUnit, Units, VolatilityUnit


def read_chain(
    source: str | Path | pd.DataFrame | object,
    *,
    quote_time: object = None,
    date: object = None,
    underlying: str | None = None,
    expiry: object = None,
    columns: Mapping[str, Hashable] | None = None,
    layout: str | None = None,
    underlying_price: float | None = None,
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
    times is noted in the report, and can be overridden here.

    A chain all of which has expired within a day before its quotes is one without
    slices: nothing can be fitted to it, but a history settles on it.

    Args:
        source: A file (CSV, also gzipped or zipped, Parquet, JSON), a folder of them, a
            DataFrame, which is not modified and whose index is kept, or what yfinance's
            `Ticker.option_chain` returns, also a list of these.
        quote_time: When the quotes were taken; needed where the source does not say.
            Without a time zone it is the market's time (New York's, unless the layout
            says otherwise), and a date alone is its close: a download on Saturday 18
            May 2019 shows the close of "2019-05-17 16:15".
        date: The day whose quotes to read, where a source holds several.
        underlying: The underlying to read, where a source holds several.
        expiry: The expiry, for a table of one expiry that does not say it.
        columns: Names of columns that are not found: `{"strike": "K_usd"}`.
        layout: A layout's name, if it is not to be recognised.
        underlying_price: Price of the underlying in currency units, where the table has
            none: prices in a coin are converted with it.
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
        ValueError: If there is no such layout or unit.

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
    units = Units(
        strike_scale, price_unit, volatility_unit, underlying_price, multiplier
    )
    limits = TradingLimits(max_age, min_volume, min_open_interest)
    group = _one_group(source, date)
    source_table = _open(
        group,
        columns,
        layout,
        expiry=expiry,
        underlying=underlying,
        units=units,
        limits=limits,
    )
    wanted = source_table.wanted(quote_time, date, underlying)
    table = source_table.canonical.table
    chosen = select_one(table, wanted)
    splits = split_notes(table, wanted.timezone)
    chosen = replace(chosen, notes=(*chosen.notes, *splits))
    return source_table.chain(chosen)


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
    source: str | Path | pd.DataFrame | object,
    *,
    on_error: Literal["raise", "skip"] = "raise",
    underlying: str | None = None,
    quote_time: object = None,
    expiry: object = None,
    columns: Mapping[str, Hashable] | None = None,
    layout: str | None = None,
    underlying_price: float | None = None,
    multiplier: float | None = None,
    strike_scale: float | None = None,
    price_unit: PriceUnit = "auto",
    volatility_unit: VolatilityUnit = "auto",
    max_age: float | None = None,
    min_volume: float | None = None,
    min_open_interest: float | None = None,
) -> ChainReader:
    """Read all chains of a source: one for each quote date and underlying.

    A folder is read date by date, as the names of its files and folders tell, so that
    it need not fit into memory; a file is read whole.

    Args:
        source: As in `read_chain`.
        on_error: What to do where a date of several, or the files of one, cannot be
            read: "raise", or "skip" and keep the reason.
        underlying: The one underlying to read, if not all.
        quote_time: As in `read_chain`, for a source that states no quote time.
        expiry: As in `read_chain`.
        columns: As in `read_chain`.
        layout: As in `read_chain`.
        underlying_price: As in `read_chain`.
        multiplier: As in `read_chain`.
        strike_scale: As in `read_chain`.
        price_unit: As in `read_chain`.
        volatility_unit: As in `read_chain`.
        max_age: As in `read_chain`.
        min_volume: As in `read_chain`.
        min_open_interest: As in `read_chain`.

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
    units = Units(
        strike_scale, price_unit, volatility_unit, underlying_price, multiplier
    )
    limits = TradingLimits(max_age, min_volume, min_open_interest)
    groups = _groups(source)

    def read(group: Any) -> _SourceTable:
        return _open(
            group,
            columns,
            layout,
            expiry=expiry,
            underlying=underlying,
            units=units,
            limits=limits,
        )

    skipped: dict[str, str] = {}

    def chains() -> Iterator[OptionChain]:
        found = 0
        for label, chain in _chains_of(groups, read, quote_time, underlying):
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
                f"no options on {underlying!r}; without `underlying=` all are read"
            )

    return ChainReader(chains(), skipped)


def _chains_of(
    groups: list[Any],
    read: Callable[[Any], "_SourceTable"],
    quote_time: object,
    underlying: str | None,
) -> Iterator[tuple[str, OptionChain | QuoteError]]:
    """Labels, and chains or why there is none; without a label, of a whole source."""
    for group in groups:
        try:
            table = read(group)
            wanted = table.wanted(quote_time, None, underlying)
            choices = list(select_all(table.canonical.table, wanted))
        except QuoteError as error:
            yield (group.label if isinstance(group, FileGroup) else ""), error
            continue
        for label, chosen in choices:
            try:
                yield label, table.chain(chosen)
            except QuoteError as error:
                yield label, error


@dataclass(frozen=True, eq=False)
class _SourceTable:
    """All rows of a source, in canonical columns.

    Attributes:
        canonical: The rows.
        read: What the layout made of the source.
        layout: Its name.
        date: The date in the names of the files.
        limits: What is asked of a contract's trading.
    """

    canonical: CanonicalTable
    read: LayoutRows
    layout: str
    date: pd.Timestamp | None
    limits: TradingLimits

    def wanted(
        self, quote_time: object, date: object, underlying: str | None
    ) -> Wanted:
        """What a user asks for, beside what the source implies."""
        return Wanted(
            quote_time=quote_time,
            date=date,
            underlying=underlying,
            path_date=self.date,
            inferred=self.read.inferred,
            timezone=self.read.timezone,
        )

    def chain(self, chosen: Selection) -> OptionChain:
        """A chain of the rows chosen, each with the rule that it falls under."""
        rows = self.canonical.table.iloc[chosen.positions]
        if chosen.quote_time is not None:
            stamp = pd.Series(chosen.quote_time, index=rows.index)
            rows = rows.assign(quote_time=stamp.astype("datetime64[us, UTC]"))
        if chosen.restamped and rows["expiry"].notna().any():
            rows = rows.drop(columns="time_to_expiry", errors="ignore")
        ended = _has_ended(rows, chosen.quote_time)
        codes, found = _row_faults(
            rows,
            chosen.quote_time,
            ended=ended,
            nonstandard=self.canonical.nonstandard[chosen.positions],
            superseded=chosen.superseded,
            limits=self.limits,
        )
        weekend = _weekend_note(rows, chosen)
        notes = (*self.canonical.notes, *chosen.notes, *weekend, *found)
        if ended:
            notes = (*notes, "all has expired: a history settles on this chain")
        elif codes.all():
            raise QuoteError(_nothing_left(quote_report(rows, codes, notes)))
        return OptionChain(
            rows=rows,
            codes=codes,
            quote_time=chosen.quote_time,
            notes=notes,
            layout=self.layout,
        )


def _has_ended(rows: pd.DataFrame, quote_time: pd.Timestamp | None) -> bool:
    """Whether all rows have expired, the last of them within a day before."""
    ends = rows["expiry_time"].dropna()
    if quote_time is None or ends.empty:
        return False
    return bool(ends.max() <= quote_time < ends.max() + pd.Timedelta(days=1))


def _nothing_left(report: QuoteReport) -> str:
    """The message where every row falls under a rule."""
    text = f"no row can be used: {report.in_one_line()}"
    if report.counts.get("no_quote", 0) > 0.5 * report.rows_in:
        text += "; quotes are empty outside of trading hours"
    return text


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


def _open(
    group: Any,
    columns: Mapping[str, Hashable] | None,
    layout: str | None,
    *,
    expiry: object,
    underlying: str | None,
    units: Units,
    limits: TradingLimits,
) -> _SourceTable:
    """All rows of a file, a table, or the files of one date."""
    if isinstance(group, FileGroup):
        read, name = _read_files(group.paths, columns, layout)
        date = group.date
    else:
        opened = open_source(group, columns)
        found = find_layout(opened, layout)
        read, name, date = (
            read_layout(found, opened),
            found.name,
            path_date(opened.path),
        )
    canonical = canonical_table(read, expiry=expiry, underlying=underlying, units=units)
    return _SourceTable(canonical, read, name, date, limits)


def _read_files(
    paths: tuple[Path, ...],
    columns: Mapping[str, Hashable] | None,
    layout: str | None,
) -> tuple[LayoutRows, str]:
    """The rows of several files together, and the names of their layouts."""
    reads, names = [], []
    for path in paths:
        opened = open_source(path, columns)
        found = find_layout(opened, layout)
        reads.append(read_layout(found, opened))
        names.append(found.name)
    if len(reads) == 1:
        return reads[0], names[0]
    tables = [
        read.rows
        if read.quote_time is None or "quote_time" in read.rows
        else read.rows.assign(
            quote_time=pd.Series([read.quote_time] * len(read.rows), read.rows.index)
        )
        for read in reads
    ]
    notes = dict.fromkeys(note for read in reads for note in read.notes)
    together = replace(
        reads[0],
        rows=pd.concat(tables, ignore_index=True),
        notes=(f"{len(paths)} files read together", *notes),
        quote_time=None,
        inferred=any(read.inferred for read in reads),
    )
    return together, ", ".join(dict.fromkeys(names))


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


def _row_faults(
    rows: pd.DataFrame,
    quote_time: pd.Timestamp | None,
    *,
    ended: bool,
    nonstandard: np.ndarray,
    superseded: np.ndarray,
    limits: TradingLimits,
) -> tuple[np.ndarray, list[str]]:
    """The rule that each canonical row falls under, 0 where it is used, and notes."""
    bid, ask = rows["bid"].to_numpy(), rows["ask"].to_numpy()
    has_spreads = bool((np.isfinite(bid) & np.isfinite(ask)).any())
    types_known = rows["option_type"].notna().to_numpy()
    are_volatilities = False
    if not has_spreads:
        bid = ask = quoted_without_spread(rows)
        are_volatilities = "mid" not in rows or not rows["mid"].notna().any()
        if not (ended or np.isfinite(bid).any()):
            raise QuoteError(
                "quotes need columns 'bid' and 'ask', or 'mid', or "
                "'implied_volatility', with values; name them with `columns=`"
            )
    codes = np.zeros(len(rows), dtype=np.int64)
    mark(codes, superseded, "superseded")
    mark(codes, nonstandard, "nonstandard_contract")
    faults = quote_faults(
        strike=rows["strike"].to_numpy(),
        bid=bid,
        ask=ask,
        type_known=types_known if types_known.any() and has_spreads else None,
    )
    codes = np.where(codes == 0, faults, codes)
    if are_volatilities:
        mark(codes, bid < PLACEHOLDER_BELOW, "placeholder_volatility")
    if limits:
        old, thin = limits.missed(Trading.of(rows, quote_time))
        mark(codes, old, "too_old")
        mark(codes, thin, "thin")
    dated = rows["expiry"].notna().to_numpy()
    if dated.any():
        mark(codes, ~dated, "missing_expiry")
        if quote_time is not None:
            ends = rows["expiry_time"]
            mark(codes, (ends <= quote_time).to_numpy(dtype=bool), "expired")
        times = rows["expiry_time"].astype("int64").to_numpy()
    else:
        times = rows["time_to_expiry"].to_numpy()
        mark(codes, np.isnan(times), "missing_expiry")
        mark(codes, times <= 0.0, "expired")
    is_call = (rows["option_type"] == "call").to_numpy(dtype=bool, na_value=False)
    contract = np.stack([times, rows["strike"].to_numpy(), is_call], axis=1)
    _, keys = np.unique(contract, axis=0, return_inverse=True)
    keys = keys.ravel()
    repeated = duplicated_rows(codes, keys, ask - bid)
    notes: list[str] = []
    if repeated.any():
        repeated &= ~_contradictions(codes, keys, times, bid, ask, repeated, notes)
        notes += _shared_roots(rows, keys, repeated)
        mark(codes, repeated, "duplicated_strike")
    return codes, notes


def _contradictions(
    codes: np.ndarray,
    keys: np.ndarray,
    times: np.ndarray,
    bid: np.ndarray,
    ask: np.ndarray,
    repeated: np.ndarray,
    notes: list[str],
) -> np.ndarray:
    """Repeated rows of slices most of whose repeats contradict: nothing to choose by.

    They stay, so that a fit of the slice says what is wrong with it.
    """
    differs = contradicting_rows(codes, keys, bid, ask, repeated)
    kept = np.zeros(len(codes), dtype=bool)
    worst = (0, 0)
    for time in np.unique(times[differs]):
        here = times == time
        contracts = len(np.unique(keys[here & (codes == 0)]))
        again = len(np.unique(keys[here & differs]))
        if again > max(0.2 * contracts, 1):
            kept |= here & differs
            worst = max(worst, (again, contracts))
    if kept.any():
        notes.append(
            f"{worst[0]} of {worst[1]} contracts of one expiry are quoted several "
            "times with other values: the table seems to mix expiries or times"
        )
    return kept


def _shared_roots(
    rows: pd.DataFrame, keys: np.ndarray, repeated: np.ndarray
) -> list[str]:
    """A note where contracts of two roots are the same option."""
    roots = rows["root"]
    if not repeated.any() or roots.nunique() < 2:
        return []
    again = np.isin(keys, keys[repeated])
    names = sorted(roots[again].dropna().unique())
    if len(names) < 2:
        return []
    return [
        f"roots {', '.join(map(str, names[:4]))} share expiry, settlement and strike "
        f"in {int(repeated.sum()):,} rows: the tighter quote of each is used"
    ]

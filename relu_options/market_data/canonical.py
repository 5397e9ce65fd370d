"""From the rows of any layout to the canonical table, and to the rows of one chain.

A column has one meaning in it; a chain has one quote time and one underlying.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from relu_options.errors import MissingColumnError, QuoteError
from relu_options.market_data.clocks import (
    MARKET_CLOSE,
    as_date,
    expiry_time,
    is_dayfirst,
    known_times,
    utc_time,
    utc_times,
)
from relu_options.market_data.columns import (
    CANONICAL_COLUMNS,
    NUMBERS,
    OPTIONAL_COLUMNS,
    Units,
    call_flags,
    check_option_types,
    convert_units,
    flags,
    not_understood,
    numbers,
    require_scalars,
)
from relu_options.market_data.contracts import (
    index_terms,
    multipliers_of,
    of_roots,
    parse_contracts,
    settlement_of,
)
from relu_options.market_data.layouts import LayoutRows
from relu_options.market_data.rates import MarketTerms

_SHOWN_DATES = 31
_SAME_CONTRACT = ["root", "expiry", "settlement", "strike", "option_type"]
_CONTRACT_CURRENCY = "USD"
_ZONED = r"^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}.*(?:Z|[+-]\d{2}:?\d{2})$"
_FARTHEST_EXPIRY = pd.Timedelta(hours=36)  # from the date's start to a stated instant


@dataclass(frozen=True, eq=False)
class CanonicalTable:
    """A table in canonical columns, of all quote times and underlyings of a source.

    Attributes:
        table: One row per option and quote time, with the source's index.
        nonstandard: Shape `(rows,)`: contracts that do not deliver the usual.
        notes: What was assumed or found, for the report.
        strange_types: Option types that are not understood, where none is.
        stated_years: Years to expiry that rows state by themselves, where the user gave
            the expiry; they must not contradict it.
    """

    table: pd.DataFrame
    nonstandard: np.ndarray
    notes: tuple[str, ...]
    strange_types: tuple[str, ...] = ()
    stated_years: np.ndarray | None = None


def canonical_table(
    read: LayoutRows,
    *,
    expiry: object = None,
    underlying: str | None = None,
    units: Units = Units(),  # noqa: B008  (frozen)
    known: MarketTerms = MarketTerms(),  # noqa: B008
) -> CanonicalTable:
    """The canonical table of the rows of a layout, with their index.

    Contract symbols of the Options Clearing Corporation win over columns that disagree
    with them: spreadsheets swap days and months, symbols do not change.

    Args:
        read: One row per option; some canonical columns, values as they came.
        expiry: A date, for rows that have none.
        underlying: A name, for rows that have none.
        units: What the user says of the units.
        known: What the user knows of the market.

    Returns:
        The table, and what was found on the way.

    Raises:
        QuoteError: If there are no rows, no strikes, neither expiry nor time to expiry,
            prices in a coin without its price, or option types that prices contradict.
    """
    rows = read.rows
    if not len(rows):
        raise QuoteError(
            "the table of quotes has no rows; it needs one for each option: check the "
            "file, or the filter that made the table"
        )
    for name in rows.columns:
        require_scalars(rows[name])
    notes: list[str] = []
    columns, strange = _columns_as_said(rows, notes)
    if "strike" not in columns:
        raise _missing_column(read, "strike")
    _require_quotes(read)
    stated_years = _stated_years(rows) if expiry is not None else None
    _fill_expiry(columns, expiry, notes)
    for name, value in known.columns.items():
        columns[name] = pd.Series(value, index=rows.index)
    columns |= _terms_of_contracts(read, columns["root"], columns["expiry"], underlying)
    columns["multiplier"] = _multipliers(columns, read.us_listed, units.multiplier)
    columns["underlying"] = _one_style_each(columns, notes)
    columns["quote_time"] = _quote_times(read, notes)
    dated = bool(columns["expiry"].notna().any())
    stamped = bool(columns["quote_time"].notna().any())
    # Whole days are less exact than two dates with their clocks.
    by_days = "days_to_expiry" in rows and not (dated and stamped)
    if by_days and "time_to_expiry" not in columns and expiry is None:
        days = pd.Series(numbers(rows["days_to_expiry"]), index=rows.index)
        columns["time_to_expiry"] = days / 365.0
    if not dated and "time_to_expiry" not in columns:
        raise _missing_column(read, "expiry", "time_to_expiry")
    notes.extend(convert_units(columns, units))
    columns["expiry_time"] = _expiry_times(columns, rows, read.timezone)
    if "last_trade_time" in rows:
        columns["last_trade_time"] = known_times(rows["last_trade_time"], read.timezone)
    adjusted = flags(of_roots(columns["root"], "adjusted"))
    if "nonstandard" in rows:
        adjusted = adjusted | flags(rows["nonstandard"])
    table = _in_order(columns, rows.index)
    notes.extend(_types_told_by_prices(rows, table))
    return CanonicalTable(
        table,
        nonstandard=adjusted,
        notes=(*read.notes, *notes),
        strange_types=strange,
        stated_years=stated_years,
    )


def _columns_as_said(
    rows: pd.DataFrame, notes: list[str]
) -> tuple[dict[str, pd.Series], tuple[str, ...]]:
    """Numbers, dates, types and names, contracts' symbols first; and strange types."""
    columns: dict[str, pd.Series] = {
        name: pd.Series(numbers(rows[name]), index=rows.index)
        for name in NUMBERS
        if name in rows
    }
    none = pd.Series(pd.NaT, index=rows.index, dtype="datetime64[us]")
    columns["expiry"] = _dates(rows["expiry"], notes) if "expiry" in rows else none
    columns["option_type"], strange = _option_types(rows, notes)
    columns["root"] = _names(rows, "root")
    if "currency" in rows:
        columns["currency"] = _text(rows, "currency")
    if "contract" in rows:
        columns["contract"] = _text(rows, "contract")
        _apply_contracts(columns, parse_contracts(rows["contract"]), notes)
    return columns, strange


def _in_order(columns: dict[str, pd.Series], index: pd.Index) -> pd.DataFrame:
    """Canonical columns in their order, empty where unknown, then optional ones."""
    for name in CANONICAL_COLUMNS:
        if name not in columns:
            kind = {"dtype": "float64" if name in NUMBERS else "str"}
            columns[name] = pd.Series(None, index=index, **kind)  # type: ignore[call-overload]
    names = (*CANONICAL_COLUMNS, *OPTIONAL_COLUMNS)
    return pd.DataFrame({name: columns[name] for name in names if name in columns})


def _missing_column(read: LayoutRows, *wanted: str) -> MissingColumnError:
    """The error of a table without a column, with the names that it has."""
    message = (
        f"quotes need a column {' or '.join(map(repr, wanted))}; the table has "
        f"{_own_names(read)}; name it with `columns={{{wanted[0]!r}: ...}}`"
    )
    if "expiry" in wanted:
        message += (
            ", or pass `expiry=` if all rows share one, or `time_to_expiry=` in years"
        )
    return MissingColumnError(message, wanted)


def _own_names(read: LayoutRows) -> list[str]:
    """The names of columns as the source has them."""
    return list(read.own_names or map(str, read.rows.columns))


def _require_quotes(read: LayoutRows) -> None:
    """Raise unless there are columns of quotes: both sides, mids, or volatilities."""
    there = [name for name in ("bid", "ask") if name in read.rows]
    if len(there) == 2 or "mid" in read.rows:
        return
    if there:
        (missing,) = {"bid", "ask"} - {*there}
        raise MissingColumnError(
            f"quotes need both 'bid' and 'ask', or 'mid'; missing {missing!r} in "
            f"{_own_names(read)}; name it with `columns={{{missing!r}: ...}}`",
            (missing,),
        )
    if "implied_volatility" not in read.rows:
        raise MissingColumnError(
            "quotes need columns 'bid' and 'ask', or 'mid', or 'implied_volatility'; "
            f"the table has {_own_names(read)}; name them with "
            "`columns={'bid': ..., 'ask': ...}`",
            ("bid", "ask"),
        )


def _stated_years(rows: pd.DataFrame) -> np.ndarray | None:
    """Years to expiry that rows state by themselves, if they do."""
    for name, per_year in (("time_to_expiry", 1.0), ("days_to_expiry", 365.0)):
        if name in rows:
            return numbers(rows[name]) / per_year
    return None


def _fill_expiry(
    columns: dict[str, pd.Series], expiry: object, notes: list[str]
) -> None:
    """Put the expiry that the user gave where rows have none, in place."""
    if expiry is None:
        return
    date = as_date(expiry)
    known = columns["expiry"].notna()
    if known.all():
        raise QuoteError(
            "all rows have an expiry; `expiry=` is for tables without one: select with "
            f"`chain[{date:%Y-%m-%d}]` instead"
        )
    columns["expiry"] = columns["expiry"].where(known, date)
    columns.pop("time_to_expiry", None)
    notes.append(f"expiry {date:%Y-%m-%d} as given, in {int((~known).sum()):,} rows")


def _apply_contracts(
    columns: dict[str, pd.Series], parsed: pd.DataFrame, notes: list[str]
) -> None:
    """Let contract symbols win over columns, in place, and note what disagrees."""
    is_contract = parsed["expiry"].notna()
    if not is_contract.any():
        return
    columns["root"] = parsed["root"].where(is_contract, columns["root"])
    for name in ("expiry", "strike", "option_type"):
        given = columns.get(name)
        if given is None:
            columns[name] = parsed[name]
        else:
            columns[name] = _prefer_symbol(given, parsed[name], name, notes)
    cleared = is_contract & of_roots(parsed["root"], "settlement").isin(["AM", "PM"])
    if "currency" not in columns and cleared.any():
        currency = pd.Series(_CONTRACT_CURRENCY, index=parsed.index)
        columns["currency"] = currency.where(cleared)


def _text(rows: pd.DataFrame, name: str) -> pd.Series:
    """A column as text, missing where it is missing or absent."""
    if name not in rows:
        return pd.Series(None, index=rows.index, dtype="str")
    column = rows[name]
    return column.astype("str").str.strip().where(column.notna())


def _names(rows: pd.DataFrame, name: str) -> pd.Series:
    """Names of underlyings or roots, without the marks of an index: "^SPX", "I:SPX"."""
    return _text(rows, name).str.replace(r"^(?:[\^$]|[OI]:)", "", regex=True)


def _dates(column: pd.Series, notes: list[str]) -> pd.Series:
    """A column of dates, written in whatever way, without time and zone."""
    codes, unique = pd.factorize(column)
    values = list(unique)
    dayfirst = is_dayfirst(values)
    if dayfirst:
        notes.append("expiries are written with the day first")
    dates = pd.Series(
        [as_date(value, dayfirst=dayfirst) for value in values], dtype="datetime64[us]"
    )
    found = dates.reindex(codes)  # a code of -1 is none
    return found.set_axis(column.index)


def _option_types(
    rows: pd.DataFrame, notes: list[str]
) -> tuple[pd.Series, tuple[str, ...]]:
    """The column of option types, and what it holds where none is understood."""
    if "option_type" not in rows:
        return pd.Series(None, index=rows.index, dtype="str"), ()
    is_call, known = call_flags(rows["option_type"])
    said = rows["option_type"].dropna().unique()
    strange: tuple[str, ...] = ()
    if len(said) and not known.any():
        strange = tuple(map(repr, said[:3].tolist()))
        notes.append(not_understood(strange))
    kinds = pd.Series(np.where(is_call, "call", "put"), index=rows.index, dtype="str")
    return kinds.where(known), strange


def _types_told_by_prices(rows: pd.DataFrame, table: pd.DataFrame) -> list[str]:
    """A note if prices do not tell what types mean; raises if they contradict them."""
    if "option_type" not in rows:
        return []
    contract = ["quote_time", "underlying", "root", "expiry_time"]
    if table["expiry_time"].isna().all():
        contract.append("time_to_expiry")
    kinds, price = table["option_type"], 0.5 * (table["bid"] + table["ask"])
    if "mid" in table:
        price = price.fillna(table["mid"])
    return check_option_types(
        rows["option_type"],
        (kinds == "call").to_numpy(dtype=bool, na_value=False),
        kinds.notna().to_numpy(),
        strike=table["strike"].to_numpy(),
        price=price.to_numpy(),
        slices=table.groupby(contract, dropna=False, sort=False).ngroup().to_numpy(),
    )


def _prefer_symbol(
    column: pd.Series, symbol: pd.Series, what: str, notes: list[str]
) -> pd.Series:
    """The symbol's values where it has any, with a note on those that differ."""
    differs = (column.notna() & symbol.notna() & (column != symbol)).to_numpy()
    if differs.any():
        note = (
            f"{what.replace('_', ' ')} disagrees with the contract symbol in "
            f"{differs.sum():,} of {len(column):,} rows; the symbol is right"
        )
        if what == "expiry":
            swapped = (column.dt.month == symbol.dt.day) & (
                column.dt.day == symbol.dt.month
            )
            swapped &= column.dt.year == symbol.dt.year
            count = int((swapped.to_numpy() & differs).sum())
            if count:
                note += f" (day and month are swapped in {count:,})"
        at = int(np.flatnonzero(differs)[0])
        note += f"; first: {column.index[at]} {column.iloc[at]} for {symbol.iloc[at]}"
        notes.append(note.replace(" 00:00:00", ""))
    return symbol.where(symbol.notna(), column)


def _terms_of_contracts(
    read: LayoutRows, roots: pd.Series, expiry: pd.Series, named: str | None
) -> dict[str, pd.Series]:
    """Underlying, settlement and exercise style: from the table, or by root or name."""
    rows = read.rows

    def of_root(attribute: str) -> pd.Series:
        return of_roots(roots, attribute).astype("str").where(roots.notna())

    underlying = _names(rows, "underlying")
    underlying = underlying.where(underlying.notna(), of_root("underlying"))
    if named is not None:
        underlying = underlying.where(underlying.notna(), named)
    by_name = {name: index_terms(name) for name in underlying.dropna().unique()}

    def of_name(attribute: str, otherwise: str | None) -> pd.Series:
        terms = {
            name: otherwise if one is None else getattr(one, attribute)
            for name, one in by_name.items()
        }
        found = underlying.map(terms)
        return found.astype("str").where(found.notna())

    settlement = _text(rows, "settlement")
    said = {value: settlement_of(value) for value in settlement.dropna().unique()}
    settlement = settlement.map(said).astype("str").where(settlement.map(said).notna())
    for found in (of_root("settlement"), of_name("settlement", None)):
        settlement = settlement.where(settlement.notna(), found)
    settlement = settlement.where(settlement.notna() | expiry.isna(), "PM")
    style = _text(rows, "exercise_style").str.lower()
    for letter, word in (("a", "american"), ("e", "european")):
        style = style.mask(style == letter, word)
    listed = "american" if read.us_listed else None
    for found in (of_root("exercise_style"), of_name("exercise_style", listed)):
        style = style.where(style.notna(), found)
    return {"underlying": underlying, "settlement": settlement, "exercise_style": style}


def _multipliers(
    columns: dict[str, pd.Series], us_listed: bool, given: float | None
) -> pd.Series:
    """Units of the underlying in a contract: as given, as in the table, or by root."""
    roots = columns["root"]
    if given is not None:
        return pd.Series(given, index=roots.index)
    found = multipliers_of(
        columns.get("contract"), roots, columns["underlying"], us_listed=us_listed
    )
    stated = columns.get("multiplier")
    return found if stated is None else stated.where(stated > 0.0, found)


def _one_style_each(columns: dict[str, pd.Series], notes: list[str]) -> pd.Series:
    """Names of the underlyings, of one exercise style in each expiry.

    Where American and European options on one underlying expire together (OEX and XEO),
    they are other options: the European ones get the name of their root.
    """
    names, style = columns["underlying"], columns["exercise_style"]
    if style.nunique() < 2:
        return names
    unnamed = names.fillna("options")
    keys = [unnamed, columns["expiry"], columns["settlement"]]
    mixed = unnamed[style.groupby(keys).transform("nunique") > 1].unique()
    apart = unnamed.isin(mixed) & (style == "european")
    if not apart.any():
        return names
    roots = columns["root"]
    own = roots.where(roots != unnamed, unnamed + " european")
    own = own.fillna(unnamed + " european")
    for name in mixed:
        new = sorted(own[apart & (unnamed == name)].unique())
        notes.append(
            f"{name} has American and European options of one expiry, which differ: "
            f"the European ones are kept apart, as {', '.join(new)}"
        )
    return names.mask(apart, own)


def _quote_times(read: LayoutRows, notes: list[str]) -> pd.Series:
    """The quote time of each row, in UTC, missing where it is unknown."""
    rows = read.rows
    column = rows.get("quote_time")
    if column is None or column.isna().all():
        if read.quote_time is None:
            return pd.Series(pd.NaT, index=rows.index, dtype="datetime64[us, UTC]")
        column = pd.Series([read.quote_time] * len(rows), index=rows.index)
    times, found = utc_times(column, read.timezone)
    notes.extend(found)
    return times


def _expiry_times(
    columns: dict[str, pd.Series], rows: pd.DataFrame, timezone: str
) -> pd.Series:
    """When each contract's payoff is fixed, in UTC; missing where the expiry is.

    Instants that the table states are kept where they fall on the expiry.
    """
    expiry, settlement = columns["expiry"], columns["settlement"]
    codes, unique = pd.factorize(pd.MultiIndex.from_arrays([expiry, settlement]))
    times = [
        pd.NaT if pd.isna(date) else expiry_time(date, clock, timezone)
        for date, clock in unique
    ]
    column = pd.Series(times, dtype="datetime64[us, UTC]").take(codes)
    column.index = expiry.index
    stated = rows.get("expiry_time")
    if stated is not None and not isinstance(stated.dtype, pd.DatetimeTZDtype):
        zoned = stated.astype("str").str.contains(_ZONED).all()
        parsed = pd.to_datetime(stated, format="ISO8601", utc=True, errors="coerce")
        stated = parsed if zoned else None
    if stated is not None:
        stated = stated.dt.tz_convert("UTC").astype("datetime64[us, UTC]")
        apart = (stated - expiry.dt.tz_localize("UTC")).abs()
        column = column.where(~(apart < _FARTHEST_EXPIRY), stated)
    return column


@dataclass(frozen=True, eq=False)
class Selection:
    """Rows of a source that make one chain.

    Attributes:
        positions: Of the rows.
        superseded: Shape of `positions`: rows whose contract has a later quote.
        quote_time: In UTC, if known.
        restamped: Whether it is not the table's own: expiries then decide over years.
        notes: For the report.
    """

    positions: np.ndarray
    superseded: np.ndarray
    quote_time: pd.Timestamp | None
    restamped: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wanted:
    """Which chain a user asks for.

    Attributes:
        quote_time: When the quotes were taken.
        date: The day on which they were taken.
        underlying: What the options are written on.
        path_date: The date in the path of the source, if any.
        inferred: Whether the source's own quote time is only implied.
        timezone: Of days, and of times without one.
    """

    quote_time: object = None
    date: object = None
    underlying: str | None = None
    path_date: pd.Timestamp | None = None
    inferred: bool = False
    timezone: str = "America/New_York"

    def day(self) -> pd.Timestamp | None:
        """The day asked for, if any."""
        return None if self.date is None else as_date(self.date)

    def stamp(self) -> tuple[pd.Timestamp | None, str | None]:
        """The time asked for, in UTC, and what was assumed; a day means its close."""
        asked = self.quote_time if self.quote_time is not None else self.day()
        return (None, None) if asked is None else utc_time(asked, self.timezone)


def select_one(table: pd.DataFrame, wanted: Wanted) -> Selection:
    """The rows of the one chain that is asked for.

    Raises:
        QuoteError: If there are several quote dates or underlyings and none is chosen,
            or the one chosen is not there; the message lists them. And if expiries are
            dates, and the quote time is unknown.
    """
    chosen, notes = _of_underlying(table, wanted.underlying)
    times = table["quote_time"].iloc[chosen]
    stamp, note = wanted.stamp()
    if note and (wanted.quote_time is not None or times.isna().all()):
        notes.append(note)
    if times.isna().all():
        return _undated(table, chosen, stamp, wanted, notes)
    days = _local_days(times, wanted.timezone)
    counts = days.value_counts().sort_index()
    only, day = counts.index[0], wanted.day()
    if len(counts) > 1:
        day = _day_of_several(counts, wanted, stamp)
        chosen = chosen[(days == day).to_numpy()]
        notes.append(f"quotes of {day:%Y-%m-%d}, one of {len(counts)} dates")
    elif day is not None and day != only:
        _check_only_day(day, only, wanted, notes)
    elif wanted.path_date is not None and wanted.path_date != only:
        notes.append(
            f"the path says {wanted.path_date:%Y-%m-%d}, but the quotes are of "
            f"{only:%Y-%m-%d}"
        )
    if wanted.quote_time is None and wanted.date is not None:
        kept = len(counts) > 1 or day in (only, wanted.path_date)
        stamp = None if kept else stamp
    return _latest(table, chosen, stamp, notes)


def _day_of_several(
    counts: pd.Series, wanted: Wanted, stamp: pd.Timestamp | None
) -> pd.Timestamp:
    """The day asked for, or that of the time asked for, of those in a table."""
    day = wanted.day()
    if day is None and stamp is not None:
        day = stamp.tz_convert(wanted.timezone).tz_localize(None).normalize()
    if day is None:
        raise QuoteError(
            f"{len(counts)} quote dates in one table: {_shown_days(counts)}; "
            "choose one with `date=`, or read all with `read_chains`"
        )
    if day not in counts.index:
        raise QuoteError(f"no quotes of {day:%Y-%m-%d}; {_shown_days(counts)}")
    return day


def select_all(table: pd.DataFrame, wanted: Wanted) -> Iterator[tuple[str, Selection]]:
    """The rows of each chain: of each quote date and underlying, in their order."""
    days = _local_days(table["quote_time"], wanted.timezone)
    keys = pd.DataFrame({"day": days, "underlying": table["underlying"]})
    groups = keys.reset_index(drop=True).groupby(
        ["day", "underlying"], dropna=False, sort=True
    )
    stamp, note = wanted.stamp()
    for (day, name), positions in groups.indices.items():  # type: ignore[misc]
        shown = wanted.path_date if pd.isna(day) else day
        known = ["" if shown is None else f"{shown:%Y-%m-%d}"]
        known += ["" if pd.isna(name) else str(name)]
        label = " ".join(filter(None, known)) or "undated"
        if wanted.underlying is not None and not _is_named(name, wanted.underlying):
            continue
        chosen = np.asarray(positions)
        notes = [note] if note else []
        if pd.isna(day):
            yield label, _undated(table, chosen, stamp, wanted, notes)
        else:
            yield label, _latest(table, chosen, None, [])


def _undated(
    table: pd.DataFrame,
    chosen: np.ndarray,
    stamp: pd.Timestamp | None,
    wanted: Wanted,
    notes: list[str],
) -> Selection:
    """Rows without a quote time: it is the one asked for, or the path's date."""
    dated = bool(table["expiry"].iloc[chosen].notna().any())
    years_known = "time_to_expiry" in table
    if stamp is None and dated and not years_known:
        if wanted.path_date is None:
            raise QuoteError(
                "the source does not say when the quotes were taken; pass "
                "`quote_time=`, such as '2019-05-17 16:15' (New York), or name its "
                "column with `columns={'quote_time': ...}`; for one expiry, "
                "`time_to_expiry=` in years will do"
            )
        stamp, note = _close_before(wanted.path_date, wanted.timezone)
        notes.append(note)
    none = np.zeros(len(chosen), dtype=bool)
    return Selection(chosen, none, stamp, stamp is not None, tuple(notes))


def _close_before(date: pd.Timestamp, timezone: str) -> tuple[pd.Timestamp, str]:
    """The last close at the end of a date: that of Friday at weekends."""
    closed = 0 if timezone == "UTC" else max(0, date.weekday() - 4)
    day = date - pd.Timedelta(days=closed)
    stamp = (day + MARKET_CLOSE).tz_localize(timezone).tz_convert("UTC")
    return stamp, (
        f"the path says {date:%Y-%m-%d}: quote time taken as the close of "
        f"{day:%A} {day:%Y-%m-%d}; pass `quote_time=` if you know it"
    )


def _of_underlying(
    table: pd.DataFrame, asked: str | None
) -> tuple[np.ndarray, list[str]]:
    """Positions of the rows on the one underlying, or the one asked for."""
    names = table["underlying"]
    counts = names.value_counts()
    if asked is not None and len(counts):
        rows = np.array([_is_named(name, asked) for name in names.tolist()], dtype=bool)
        if not rows.any():
            raise QuoteError(f"no options on {asked!r}; {_shown_names(counts)}")
        others = len(rows) - int(rows.sum())
        notes = [f"{others:,} rows on other underlyings left aside"] if others else []
        return np.flatnonzero(rows), notes
    if len(counts) > 1:
        raise QuoteError(
            f"{len(counts)} underlyings in one table of {len(names):,} rows: "
            f"{_shown_names(counts)}; choose one with `underlying=`, or read all with "
            "`read_chains`"
        )
    return np.arange(len(table)), []


def _is_named(name: object, asked: str) -> bool:
    """Whether an underlying is the one asked for, whatever the case."""
    return isinstance(name, str) and name.upper() == asked.lstrip("^$").upper()


def _shown_names(counts: pd.Series) -> str:
    """The most frequent underlyings, with their numbers of rows."""
    shown = ", ".join(f"{name} ({count:,})" for name, count in counts[:10].items())
    return shown + (", ..." if len(counts) > 10 else "")


def _shown_days(counts: pd.Series) -> str:
    """The dates there are; the first and last where they are many."""
    days = [f"{day:%Y-%m-%d}" for day in counts.index]
    if len(days) > _SHOWN_DATES:
        days = [*days[:10], "...", *days[-3:]]
    return ", ".join(days)


def _local_days(times: pd.Series, timezone: str) -> pd.Series:
    """The day of each quote time in the market's own time."""
    return times.dt.tz_convert(timezone).dt.tz_localize(None).dt.normalize()


def _check_only_day(
    asked: pd.Timestamp, only: pd.Timestamp, wanted: Wanted, notes: list[str]
) -> None:
    """A date asked for that is not the table's: its path may say so, or its guess."""
    if wanted.path_date is not None and wanted.path_date == asked:
        notes.append(
            f"the path says {asked:%Y-%m-%d}, the quotes are of {only:%Y-%m-%d}"
        )
        return
    if wanted.inferred:
        notes.append(f"the source implies {only:%Y-%m-%d}: the date asked for decides")
        return
    raise QuoteError(f"no quotes of {asked:%Y-%m-%d}; {only:%Y-%m-%d} is the only date")


def _latest(
    table: pd.DataFrame,
    chosen: np.ndarray,
    stamp: pd.Timestamp | None,
    notes: list[str],
) -> Selection:
    """The last quote of each contract, not after the time asked for."""
    times = table["quote_time"].iloc[chosen]
    first, last = times.min(), times.max()
    superseded = np.zeros(len(chosen), dtype=bool)
    if first != last:
        if stamp is not None and first <= stamp < last:
            early = (times <= stamp).to_numpy(dtype=bool, na_value=False)
            count = np.count_nonzero(~early)
            notes.append(f"{count:,} quotes after the time asked for left out")
            chosen, times = chosen[early], times[early]
        contracts = table[_SAME_CONTRACT].iloc[chosen]
        order = np.argsort((last - times.fillna(first)).to_numpy(), kind="stable")
        superseded = np.zeros(len(chosen), dtype=bool)
        superseded[order] = contracts.iloc[order].duplicated().to_numpy()
        last = times.max()
        notes.append(
            f"quote times from {times.min():%H:%M} to {last:%H:%M} UTC on one day: the "
            "last quote of each contract, all taken as of the last"
        )
    return Selection(chosen, superseded, stamp or last, stamp is not None, tuple(notes))


def split_notes(table: pd.DataFrame, timezone: str) -> list[str]:
    """Notes on dates between which strikes fall by a whole factor: splits."""
    days = _local_days(table["quote_time"], timezone)
    if days.nunique() < 2 or table["underlying"].nunique() > 1:
        return []
    middle = table["strike"].groupby(days.to_numpy()).median()
    ratios = (middle.shift(1) / middle).dropna()
    found = []
    for at, ratio in enumerate(ratios):
        whole = round(ratio) if ratio > 1.0 else round(1.0 / ratio)
        near = ratio if ratio > 1.0 else 1.0 / ratio
        if whole >= 2 and abs(near - whole) < 0.05 * whole:
            before, after = middle.index[at], middle.index[at + 1]
            kind = f"{whole}:1" if ratio > 1.0 else f"1:{whole}"
            found.append(
                f"strikes change by a factor of {ratio:.3g} between "
                f"{before:%Y-%m-%d} and {after:%Y-%m-%d}: a {kind} split"
            )
    return found

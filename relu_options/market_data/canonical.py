"""From the rows of any layout to the canonical table: one meaning per column."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from relu_options.errors import MissingColumnError, QuoteError
from relu_options.market_data.clocks import (
    as_date,
    expiry_time,
    is_dayfirst,
    known_times,
    utc_times,
)
from relu_options.market_data.columns import (
    CANONICAL_COLUMNS,
    OPTIONAL_COLUMNS,
    call_flags,
    check_option_types,
    flags,
    not_understood,
    numbers,
    require_scalars,
)
from relu_options.market_data.contracts import (
    contract_root,
    index_terms,
    multipliers_of,
    parse_contracts,
    settlement_of,
)
from relu_options.market_data.layouts import LayoutRows
from relu_options.market_data.rates import MarketTerms
from relu_options.market_data.units import Units, convert_units

_NUMBERS = (
    "strike",
    "bid",
    "ask",
    "bid_size",
    "ask_size",
    "volume",
    "open_interest",
    "underlying_price",
    "multiplier",
    "mid",
    "implied_volatility",
    "time_to_expiry",
    "forward",
    "discount_factor",
)
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
    columns: dict[str, pd.Series] = {
        name: pd.Series(numbers(rows[name]), index=rows.index)
        for name in _NUMBERS
        if name in rows
    }
    columns["expiry"] = _missing_dates(rows)
    if "expiry" in rows:
        columns["expiry"] = _dates(rows["expiry"], notes)
    columns["option_type"], strange = _option_types(rows, notes)
    columns["root"] = _names(rows, "root")
    if "currency" in rows:
        columns["currency"] = _text(rows, "currency")
    if "contract" in rows:
        columns["contract"] = _text(rows, "contract")
        _apply_contracts(columns, parse_contracts(rows["contract"]), notes)
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
    table = _in_order(columns, rows.index)
    notes.extend(_types_told_by_prices(rows, table))
    return CanonicalTable(
        table,
        nonstandard=_nonstandard(rows, columns["root"]),
        notes=(*read.notes, *notes),
        strange_types=strange,
        stated_years=stated_years,
    )


def _in_order(columns: dict[str, pd.Series], index: pd.Index) -> pd.DataFrame:
    """Canonical columns in their order, empty where unknown, then optional ones."""
    for name in CANONICAL_COLUMNS:
        if name not in columns:
            empty = np.nan if name in _NUMBERS else None
            dtype = "float64" if name in _NUMBERS else "str"
            columns[name] = pd.Series(empty, index=index, dtype=dtype)
    present = [name for name in OPTIONAL_COLUMNS if name in columns]
    table = pd.DataFrame({name: columns[name] for name in CANONICAL_COLUMNS})
    for name in present:
        table[name] = columns[name]
    return table


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
    coins = {
        root: contract_root(root).settlement not in ("AM", "PM")
        for root in parsed["root"].dropna().unique()
    }
    cleared = is_contract & ~flags(parsed["root"].map(coins))
    if "currency" not in columns and cleared.any():
        currency = pd.Series(_CONTRACT_CURRENCY, index=parsed.index)
        columns["currency"] = currency.where(cleared)


def _missing_dates(rows: pd.DataFrame) -> pd.Series:
    """A column of dates, all missing."""
    return pd.Series(pd.NaT, index=rows.index, dtype="datetime64[us]")


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
    if not len(dates):
        return pd.Series(pd.NaT, index=column.index, dtype="datetime64[us]")
    result = pd.Series(dates.to_numpy()[codes], index=column.index)
    return result.astype("datetime64[us]").where(codes >= 0)


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
    by_root = {root: contract_root(root) for root in roots.dropna().unique()}

    def of_root(attribute: str) -> pd.Series:
        terms = {root: getattr(one, attribute) for root, one in by_root.items()}
        return roots.map(terms).astype("str").where(roots.notna())

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

    settlement = pd.Series(None, index=rows.index, dtype="str")
    if "settlement" in rows:
        given = rows["settlement"]
        said = {value: settlement_of(value) for value in given.dropna().unique()}
        settlement = given.map(said).astype("str").where(given.map(said).notna())
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


def _nonstandard(rows: pd.DataFrame, roots: pd.Series) -> np.ndarray:
    """Contracts that a table, or their root, says do not deliver the usual."""
    adjusted = {root: contract_root(root).adjusted for root in roots.dropna().unique()}
    found = flags(roots.map(adjusted))
    if "nonstandard" in rows:
        found = found | flags(rows["nonstandard"])
    return found

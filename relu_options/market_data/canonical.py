"""From the rows of any layout to the canonical table: one meaning per column."""

import numpy as np
import pandas as pd

from relu_options.errors import QuoteError
from relu_options.market_data.clocks import as_date, expiry_time, utc_time
from relu_options.market_data.columns import (
    CANONICAL_COLUMNS,
    OPTIONAL_COLUMNS,
    call_flags,
    numbers,
)
from relu_options.market_data.contracts import (
    contract_root,
    parse_contracts,
    settlement_of,
)

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
_CONTRACT_MULTIPLIER = 100.0
_CONTRACT_CURRENCY = "USD"


def canonical_table(
    rows: pd.DataFrame, *, quote_time: object = None
) -> tuple[pd.DataFrame, pd.Timestamp | None, list[str]]:
    """The canonical table of the rows of a layout, with their index.

    Contract symbols of the Options Clearing Corporation win over columns that disagree
    with them: spreadsheets swap days and months, symbols do not change.

    Args:
        rows: One row per option; some canonical columns, values as they came.
        quote_time: When the quotes were taken; wins over a column.

    Returns:
        The table; the quote time, in UTC, if known; notes for the report.

    Raises:
        QuoteError: If there are no rows, neither expiry nor time to expiry, several
            underlyings or several quote dates, or an expiry without a quote time.
    """
    if not len(rows):
        raise QuoteError("the table of quotes has no rows")
    notes: list[str] = []
    columns: dict[str, pd.Series] = {
        name: pd.Series(numbers(rows[name]), index=rows.index)
        for name in _NUMBERS
        if name in rows
    }
    if "days_to_expiry" in rows and "time_to_expiry" not in rows:
        days = pd.Series(numbers(rows["days_to_expiry"]), index=rows.index)
        columns["time_to_expiry"] = days / 365.0
    columns["expiry"] = (
        _dates(rows["expiry"]) if "expiry" in rows else _missing_dates(rows)
    )
    columns["option_type"] = _option_types(rows)
    columns["root"] = _text(rows, "root")
    if "currency" in rows:
        columns["currency"] = _text(rows, "currency")
    if "contract" in rows:
        columns["contract"] = _text(rows, "contract")
        _apply_contracts(columns, parse_contracts(rows["contract"]), notes)
    if "strike" not in columns:
        raise _missing_column(rows, "strike")
    columns |= _terms_of_roots(rows, columns["root"], columns["expiry"])
    _require_one_underlying(columns["underlying"])
    dated = bool(columns["expiry"].notna().any())
    if not dated and "time_to_expiry" not in columns:
        raise _missing_column(rows, "expiry", "time_to_expiry")
    stamp, time_notes = _quote_time(rows, quote_time)
    if stamp is None and dated and "time_to_expiry" not in columns:
        raise QuoteError(
            "the source does not say when the quotes were taken; pass `quote_time=`, "
            "such as '2019-05-17 16:15' (New York)"
        )
    if dated and quote_time is not None:
        columns.pop("time_to_expiry", None)  # the time that was asked for decides
    columns["quote_time"] = pd.Series(
        stamp or pd.NaT, index=rows.index, dtype="datetime64[us, UTC]"
    )
    columns["expiry_time"] = _expiry_times(columns["expiry"], columns["settlement"])
    for name in CANONICAL_COLUMNS:
        if name not in columns:
            empty = np.nan if name in _NUMBERS else None
            dtype = "float64" if name in _NUMBERS else "str"
            columns[name] = pd.Series(empty, index=rows.index, dtype=dtype)
    present = [name for name in OPTIONAL_COLUMNS if name in columns]
    table = pd.DataFrame({name: columns[name] for name in CANONICAL_COLUMNS})
    for name in present:
        table[name] = columns[name]
    return table, stamp, [*notes, *time_notes]


def _missing_column(rows: pd.DataFrame, *wanted: str) -> QuoteError:
    """The error of a table without a column."""
    return QuoteError(
        f"quotes need a column {' or '.join(map(repr, wanted))}; found "
        f"{list(rows.columns)}; name it with `columns={{{wanted[0]!r}: ...}}`"
    )


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
    for name, value in (
        ("multiplier", _CONTRACT_MULTIPLIER),
        ("currency", _CONTRACT_CURRENCY),
    ):
        if name not in columns:
            columns[name] = pd.Series(value, index=parsed.index).where(is_contract)


def _missing_dates(rows: pd.DataFrame) -> pd.Series:
    """A column of dates, all missing."""
    return pd.Series(pd.NaT, index=rows.index, dtype="datetime64[us]")


def _text(rows: pd.DataFrame, name: str) -> pd.Series:
    """A column as text, missing where it is missing or absent."""
    if name not in rows:
        return pd.Series(None, index=rows.index, dtype="str")
    column = rows[name]
    return column.astype("str").where(column.notna())


def _dates(column: pd.Series) -> pd.Series:
    """A column of dates, written in whatever way, without time and zone."""
    codes, unique = pd.factorize(column)
    dates = pd.Series([as_date(value) for value in unique], dtype="datetime64[us]")
    values = dates.to_numpy()[codes] if len(dates) else np.full(len(codes), np.nan)
    result = pd.Series(values, index=column.index).astype("datetime64[us]")
    return result.where(codes >= 0)


def _option_types(rows: pd.DataFrame) -> pd.Series:
    """The column of option types: "call", "put" or missing."""
    if "option_type" not in rows:
        return pd.Series(None, index=rows.index, dtype="str")
    is_call, known = call_flags(rows["option_type"])
    kinds = pd.Series(np.where(is_call, "call", "put"), index=rows.index, dtype="str")
    return kinds.where(known)


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


def _terms_of_roots(
    rows: pd.DataFrame, roots: pd.Series, expiry: pd.Series
) -> dict[str, pd.Series]:
    """Underlying, settlement and exercise style, from the table or else by root."""
    known = {root: contract_root(root) for root in roots.dropna().unique()}

    def by_root(attribute: str) -> pd.Series:
        return (
            roots.map(
                {root: getattr(terms, attribute) for root, terms in known.items()}
            )
            .astype("str")
            .where(roots.notna())
        )

    underlying = _text(rows, "underlying")
    settlement = pd.Series(None, index=rows.index, dtype="str")
    if "settlement" in rows:
        given = rows["settlement"]
        said = {value: settlement_of(value) for value in given.dropna().unique()}
        settlement = given.map(said).astype("str").where(given.map(said).notna())
    settlement = settlement.where(settlement.notna(), by_root("settlement"))
    settlement = settlement.where(settlement.notna() | expiry.isna(), "PM")
    style = _text(rows, "exercise_style").str.lower()
    style = style.where(style.notna(), by_root("exercise_style"))
    return {
        "underlying": underlying.where(underlying.notna(), by_root("underlying")),
        "settlement": settlement,
        "exercise_style": style,
    }


def _require_one_underlying(underlying: pd.Series) -> None:
    """Raise unless all rows are on one underlying."""
    counts = underlying.value_counts()
    if len(counts) > 1:
        shown = ", ".join(f"{name} ({count:,})" for name, count in counts[:3].items())
        raise QuoteError(
            f"{len(counts)} underlyings in one table of {len(underlying):,} rows: "
            f"{shown}; select one, as `table[table['underlying'] == ...]`"
        )


def _quote_time(
    rows: pd.DataFrame, asked: object
) -> tuple[pd.Timestamp | None, list[str]]:
    """The one quote time, in UTC: the one asked for, or the last of a column's day."""
    if asked is not None:
        stamp, note = utc_time(asked)
        return stamp, [note] if note else []
    if "quote_time" not in rows or rows["quote_time"].isna().all():
        return None, []
    pairs = [utc_time(value) for value in rows["quote_time"].dropna().unique()]
    stamps = [stamp for stamp, _ in pairs]
    first, last = min(stamps), max(stamps)
    if last - first > pd.Timedelta(hours=12):
        raise QuoteError(
            f"{len(stamps)} quote times from {first:%Y-%m-%d %H:%M} to "
            f"{last:%Y-%m-%d %H:%M} UTC in one table; select the rows of one of them"
        )
    notes = [note for _, note in pairs[:1] if note]
    if len(stamps) > 1:
        notes.append(
            f"{len(stamps)} quote times within one day; all taken as the last, "
            f"{last:%Y-%m-%d %H:%M} UTC"
        )
    return last, notes


def _expiry_times(expiry: pd.Series, settlement: pd.Series) -> pd.Series:
    """When each contract's payoff is fixed, in UTC; missing where the expiry is."""
    keys = pd.MultiIndex.from_arrays([expiry, settlement])
    codes, unique = pd.factorize(keys)
    times = [
        pd.NaT if pd.isna(date) else expiry_time(date, clock) for date, clock in unique
    ]
    column = pd.Series(times, dtype="datetime64[us, UTC]").take(codes)
    column.index = expiry.index
    return column

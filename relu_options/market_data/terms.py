"""What the rows of one expiry share: dates, clocks, settlement, underlying."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from relu_options.errors import QuoteError
from relu_options.market_data.clocks import (
    as_date,
    expiry_time,
    utc_time,
    years_between,
)
from relu_options.market_data.columns import column_of, numbers
from relu_options.market_data.contracts import contract_root, root_of, settlement_of


@dataclass(frozen=True)
class ContractTerms:
    """What the rows of one expiry share.

    Attributes:
        expiry: The date, if known.
        settlement: "AM" or "PM", if known.
        underlying: Its name, if known.
        quote_time: In UTC, if known.
        time_to_expiry: Years.
        american: Whether the options can be exercised early, as far as is known.
    """

    expiry: pd.Timestamp | None
    settlement: str | None
    underlying: str | None
    quote_time: pd.Timestamp | None
    time_to_expiry: float
    american: bool


def contract_terms(
    frame: pd.DataFrame,
    names: Mapping[str, Hashable],
    *,
    time_to_expiry: float | None,
    quote_time: object,
    is_slice: bool,
    notes: list[str],
) -> ContractTerms:
    """What the rows of a table share.

    Args:
        frame: The table.
        names: Its columns, by canonical name.
        time_to_expiry: Years, if given.
        quote_time: When the quotes were taken, if given; it wins over a column, and the
            dates then win over a column of times to expiry.
        is_slice: Whether the table is a slice of a chain, so known to be of one kind.
        notes: Notes for the report, to which to add.

    Raises:
        QuoteError: If the rows do not share them, or the time to expiry is unknown or
            not positive.
    """
    one_expiry = "select one, as `table[table['expiry'] == ...]` or `chain[expiry]`"

    def shared(name: str, what: str, remedy: str) -> object:
        if name not in names:
            return None
        column = column_of(frame, names[name])
        value = column.iloc[0] if is_slice else only_value(column, what, remedy)
        return None if value is None or pd.isna(value) else value  # type: ignore[call-overload]

    expiry = shared("expiry", "expiries", one_expiry)
    expiry = None if expiry is None else as_date(expiry)
    settlement = settlement_of(
        shared("settlement", "settlements (AM and PM)", "select one of them")
    )
    root = None
    if "root" in names and settlement is None:
        root = shared("root", "contract roots", "select one of them")
    elif "contract" in names and settlement is None:
        root = _shared_root(column_of(frame, names["contract"]))
    underlying = shared("underlying", "underlyings", "select one of them")
    american = False
    if root is not None:
        terms = contract_root(str(root))
        settlement = settlement or terms.settlement
        underlying = underlying or terms.underlying
        american = terms.exercise_style == "american"
    if "exercise_style" in names:
        style = shared("exercise_style", "exercise styles", "select one of them")
        american = str(style).lower().startswith("a") if style else american

    asked = quote_time is not None
    stamp = None
    if quote_time is None:
        quote_time = shared("quote_time", "quote times", "or pass `quote_time=`")
    if quote_time is not None:
        stamp, note = utc_time(quote_time)
        if note:
            notes.append(note)
    years = time_to_expiry
    if years is None:
        years = _years(frame, names, expiry, settlement, stamp, asked, one_expiry)
    return ContractTerms(
        expiry=expiry,
        settlement=settlement,
        underlying=None if underlying is None else str(underlying),
        quote_time=stamp,
        time_to_expiry=float(years),
        american=american,
    )


def _shared_root(contracts: pd.Series) -> object:
    """The root of a column of contract symbols of one expiry and settlement."""
    stems = {str(symbol)[:-9].strip() for symbol in contracts.tolist()}
    roots = {root_of(stem + "C00001000") for stem in stems}
    clocks = {contract_root(root).settlement for root in roots if root is not None}
    if len(clocks) > 1:
        raise QuoteError(
            "contracts that settle AM and PM in one table: roots "
            f"{sorted(map(str, roots))}; select one, or read it with `read_chain`"
        )
    return roots.pop() if len(roots) == 1 else None


def _years(
    frame: pd.DataFrame,
    names: Mapping[str, Hashable],
    expiry: pd.Timestamp | None,
    settlement: str | None,
    quote_time: pd.Timestamp | None,
    asked: bool,
    one_expiry: str,
) -> float:
    """Time to expiry from a table's column, or from its expiry and the quote time."""
    years = None
    for name, per_year in (("time_to_expiry", 1.0), ("days_to_expiry", 365.0)):
        if name in names and not (asked and expiry is not None):
            column = pd.Series(numbers(column_of(frame, names[name])))
            value = only_value(column, "times to expiry", one_expiry)
            if value is not None and value == value:
                years = float(value) / per_year  # type: ignore[arg-type]
                break
    if years is None:
        if expiry is None:
            raise QuoteError(
                "time to expiry unknown: the table has neither an 'expiry' nor a "
                "'time_to_expiry' column; pass `time_to_expiry=` in years"
            )
        if quote_time is None:
            raise QuoteError(
                f"time to expiry {expiry:%Y-%m-%d} unknown: the table has no "
                "'quote_time' column; pass `quote_time=`, or `time_to_expiry=` in years"
            )
        end = None
        if "expiry_time" in names:
            end = column_of(frame, names["expiry_time"]).iloc[0]
        if not isinstance(end, pd.Timestamp) or end.tzinfo is None:
            end = expiry_time(expiry, settlement or "PM")
        years = years_between(quote_time, end)
        if years <= 0.0:
            raise QuoteError(
                f"the expiry, {end:%Y-%m-%d %H:%M} UTC, is not after the quote time, "
                f"{quote_time:%Y-%m-%d %H:%M} UTC; check `quote_time` and the expiry"
            )
    if not 0.0 < years < np.inf:
        raise QuoteError(
            f"the time to expiry is {years:.6g} years; it must be positive"
        )
    return years


def only_value(column: pd.Series, what: str, remedy: str) -> object:
    """The one value of a column, missing ones aside; None if all are missing."""
    first = column.iloc[0]
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        if (column == first).all():
            return first
    else:
        values = column.to_numpy()
        if values.dtype.kind in "Mf" and (values == values[0]).all():
            return first
    unique = {value for value in set(column.tolist()) if not pd.isna(value)}
    if len(unique) > 1:
        shown = ", ".join(str(value) for value in sorted(unique, key=str)[:3])
        more = ", ..." if len(unique) > 3 else ""
        raise QuoteError(
            f"{len(unique)} {what} in one table of {len(column)} rows: {shown}{more}; "
            f"{remedy}"
        )
    return unique.pop() if unique else None

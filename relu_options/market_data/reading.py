"""From a file or a table to an option chain."""

from collections.abc import Hashable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from relu_options.errors import QuoteError
from relu_options.market_data.canonical import canonical_table
from relu_options.market_data.chain import (
    OptionChain,
    quote_report,
    quoted_without_spread,
)
from relu_options.market_data.cleaning import duplicated_rows, mark, quote_faults
from relu_options.market_data.layouts import find_layout, open_source


def read_chain(
    source: str | Path | pd.DataFrame,
    *,
    quote_time: object = None,
    columns: Mapping[str, Hashable] | None = None,
    layout: str | None = None,
) -> OptionChain:
    """Read an option chain, clean it, and keep account of every row.

    The layout is recognised: the wide tables of Cboe's website (calls left, puts right,
    with or without their preamble), or any table with one row per option, its columns
    found by name. See `relu_options.market_data.register_layout` for more.

    Rows that cannot be quotes are dropped and counted (`OptionChain.report`): without
    strike, quote or expiry, negative, crossed, repeated, expired. A bid of zero is a
    quote; a missing bid or ask is unknown. Contract symbols win over columns that
    disagree with them, and their roots tell AM- from PM-settled contracts.

    Args:
        source: A CSV file (also gzipped), a Parquet file, or a DataFrame, which is not
            modified and whose index is kept.
        quote_time: When the quotes were taken; needed where the source does not say.
            Without a time zone it is New York time, and a date alone is its close: a
            download on Saturday 18 May 2019 shows the close of "2019-05-17 16:15".
        columns: Names of columns that are not found: `{"strike": "K_usd"}`.
        layout: A layout's name, if it is not to be recognised.

    Returns:
        The chain.

    Raises:
        QuoteError: If columns are missing, there are no rows, or none can be used.
        FileNotFoundError: If there is no such file.

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
    opened = open_source(source, columns)
    read = find_layout(opened, layout).read(opened)
    if quote_time is None:
        quote_time = read.quote_time
    rows, stamp, notes = canonical_table(read.rows, quote_time=quote_time)
    codes = _row_faults(rows, stamp)
    notes = (*read.notes, *notes)
    if codes.all():
        report = quote_report(rows, codes, notes)
        raise QuoteError(f"no row can be used: {report!r}".replace("\n", ";"))
    return OptionChain(rows=rows, codes=codes, quote_time=stamp, notes=notes)


def _row_faults(rows: pd.DataFrame, quote_time: pd.Timestamp | None) -> np.ndarray:
    """The rule that each canonical row falls under, as codes; 0 where it is used."""
    bid, ask = rows["bid"].to_numpy(), rows["ask"].to_numpy()
    has_spreads = bool((np.isfinite(bid) & np.isfinite(ask)).any())
    types_known = rows["option_type"].notna().to_numpy()
    if not has_spreads:
        bid = ask = quoted_without_spread(rows)
        if not np.isfinite(bid).any():
            raise QuoteError(
                "quotes need columns 'bid' and 'ask', or 'mid', or "
                "'implied_volatility', with values; name them with `columns=`"
            )
    codes = quote_faults(
        strike=rows["strike"].to_numpy(),
        bid=bid,
        ask=ask,
        type_known=types_known if types_known.any() and has_spreads else None,
    )
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
    mark(codes, duplicated_rows(codes, keys.ravel(), ask - bid), "duplicated_strike")
    return codes

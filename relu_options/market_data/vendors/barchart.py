"""Barchart: chains as its pages export them, of stocks, indices and futures."""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from relu_options.market_data.clocks import MARKET_TIMEZONE
from relu_options.market_data.contracts import FUTURE_MULTIPLIERS
from relu_options.market_data.layouts import Layout, LayoutRows, keyed_columns
from relu_options.market_data.sources import ChainSource, path_date, path_expiry

_FOOTER = r"Downloaded from Barchart\.com as of (\d{2}-\d{2}-\d{4} \d{1,2}:\d{2}[ap]m)"
_COLUMNS = {
    "strike": "strike",
    "type": "option_type",
    "bid": "bid",
    "ask": "ask",
    "volume": "volume",
    "openint": "open_interest",
}


def _is_barchart(source: ChainSource) -> bool:
    """Barchart's open interest and last price beside strike, bid, ask and type."""
    return source.has("Strike", "Bid", "Ask", "Open Int", "Type") and (
        source.has("Latest") or source.has("Last")
    )


def _read_barchart(source: ChainSource) -> LayoutRows:
    """One expiry, which is in the file's name; futures' strikes end in C or P."""
    table = keyed_columns(source.read(skiprows=source.header))
    strikes = table["strike"].astype("str").str.strip()
    footer = strikes.str.extract(_FOOTER)[0].dropna()
    table = table[table["type"].notna()]
    rows = pd.DataFrame(
        {name: table[key] for key, name in _COLUMNS.items() if key in table}
    )
    futures = strikes.reindex(table.index).str.match(r".*\d[CP]$")
    notes = []
    if futures.any():
        rows["strike"] = table["strike"].astype("str").str.strip().str.rstrip("CP")
        rows["exercise_style"] = "american"
        rows["currency"] = "USD"
        notes.append("options on a future: American")
    expiry = path_expiry(source.path)
    if expiry is not None:
        rows["expiry"] = expiry
    symbol = _symbol(source.path)
    if symbol is not None:
        rows["underlying"] = symbol
        if futures.any():
            # A letter of the month and digits of the year follow the root.
            root = re.sub(r"[FGHJKMNQUVXZ]\d{1,4}$", "", symbol)
            rows["multiplier"] = FUTURE_MULTIPLIERS.get(root, np.nan)
    quote_time: object = None
    if len(footer):
        stamp = pd.to_datetime(footer.iloc[0], format="%m-%d-%Y %I:%M%p")
        quote_time = stamp.tz_localize("America/Chicago").tz_convert(MARKET_TIMEZONE)
    elif path_date(source.path) is None and "time" in table:
        dates = table["time"].astype("str").str.extract(r"(\d{2}/\d{2}/\d{2,4})")[0]
        if dates.notna().any():
            quote_time = max(pd.Timestamp(date) for date in dates.dropna().unique())
    return LayoutRows(
        rows,
        tuple(notes),
        quote_time,
        inferred=quote_time is not None,
        us_listed=not futures.any(),
    )


def _symbol(path: Path | None) -> str | None:
    """The symbol with which Barchart's names of option files begin."""
    match = (
        re.match(r"\$?([a-z.]+\d{0,2})-(?:options|volatility)", path.name)
        if path
        else None
    )
    return match[1].upper() if match else None


LAYOUTS = (Layout("barchart", _is_barchart, _read_barchart),)

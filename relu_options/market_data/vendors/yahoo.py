"""Yahoo Finance, as the yfinance package returns it or as users save it."""

import re

import pandas as pd

from relu_options.errors import QuoteError
from relu_options.market_data.columns import match_columns
from relu_options.market_data.layouts import Layout, LayoutRows, renamed
from relu_options.market_data.sources import ChainSource


def _is_yahoo(source: ChainSource) -> bool:
    """The contract's symbol beside its last trade or Yahoo's volatility."""
    return source.has("contractSymbol") and (
        source.has("lastTradeDate") or source.has("impliedVolatility")
    )


def _read_yahoo(source: ChainSource) -> LayoutRows:
    """Yahoo's columns, and a quote time from its last trades.

    Quotes carry no time of their own, but the last trade of any contract is minutes
    before they were taken, or at the close. Yahoo's volatilities are left out.
    """
    table = source.read()
    names = match_columns(table, source.columns)
    for unused in ("implied_volatility", "multiplier", "mid"):
        names.pop(unused, None)
    rows = renamed(table, names)
    if "contractSize" in table:
        size = table["contractSize"].astype("str").str.upper()
        rows["nonstandard"] = table["contractSize"].notna() & (size != "REGULAR")
    notes: list[str] = []
    about = table.attrs.get("underlying") or {}
    price = about.get("regularMarketPrice")
    if price and "underlying_price" not in rows:
        rows["underlying_price"] = float(price)
    stated = about.get("regularMarketTime")
    if stated and "quote_time" not in rows:
        return LayoutRows(rows, quote_time=stated, inferred=True, us_listed=True)
    quote_time = None
    if "quote_time" not in rows and "lastTradeDate" in table:
        quote_time = _last_trade(table["lastTradeDate"])
        if quote_time is not None:
            notes.append(
                "quote time taken as that of the last trade, "
                f"{quote_time:%Y-%m-%d %H:%M} UTC; pass `quote_time=` if you know it"
            )
    return LayoutRows(
        rows, tuple(notes), quote_time, inferred=quote_time is not None, us_listed=True
    )


def _last_trade(column: pd.Series) -> pd.Timestamp | None:
    """The latest time of a column, to the minute, or None."""
    trades = column.dropna()
    if not len(trades):
        return None
    try:
        last = pd.to_datetime(trades, utc=True, format="mixed").max()
    except (ValueError, TypeError) as error:
        shown = re.sub(r"\s+", " ", str(trades.iloc[0]))
        raise QuoteError(f"lastTradeDate {shown!r} is not a time") from error
    return last.floor("min")


LAYOUTS = (Layout("yfinance", _is_yahoo, _read_yahoo),)

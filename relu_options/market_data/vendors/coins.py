"""Options on coins: Deribit, OKX, and Deribit as Tardis records it.

Prices are in the coin, or in dollars where the contract is settled in a dollar coin;
`relu_options.market_data.columns` tells which and converts.
"""

import re

import numpy as np
import pandas as pd

from relu_options.market_data.clocks import COIN_SETTLEMENT
from relu_options.market_data.columns import numbers
from relu_options.market_data.layouts import (
    Layout,
    LayoutRows,
    TableLayout,
    fill_bids,
    keyed_columns,
)
from relu_options.market_data.sources import ChainSource, path_expiry

_COINS = ("BTC", "ETH", "SOL", "XRP", "BNB", "DOGE", "PAXG", "TRUMP")
_DAYS_PER_YEAR = 365.0


def _options_only(table: pd.DataFrame) -> pd.DataFrame:
    """Futures and perpetuals, which the same requests return, are not options."""
    name = next(one for one in ("instrumentname", "instid", "symbol") if one in table)
    kept = table[name].astype("str").str.contains(r"-[CPcp](?:-|$)", regex=True)
    return table[kept]


def _is_export(source: ChainSource) -> bool:
    """The table that Deribit's own pages export, with volatilities of both sides."""
    return source.has("Strike", "OptionType", "IV Bid", "IV Ask", "ExtValue")


def _read_export(source: ChainSource) -> LayoutRows:
    """Deribit's own export: one expiry, prices in the coin and in dollars.

    The underlying's price is what makes one of the two prices the other. Where the
    file's name holds no expiry, the time to it follows from the Greeks: vega over theta
    is time over half the volatility.
    """
    table = keyed_columns(source.read(skiprows=source.header))
    names = {
        "strike": "strike",
        "option_type": "optiontype",
        "bid": "bid",
        "ask": "ask",
        "bid_size": "size",
        "ask_size": "size1",
        "volume": "volume",
        "open_interest": "open",
    }
    present = {name: table[own] for name, own in names.items() if own in table}
    rows = pd.DataFrame(present, index=table.index)
    notes = []
    if {"bid", "ask"} <= present.keys():
        notes += fill_bids(rows)
    ratios = [
        numbers(table[f"{side}usd"]) / numbers(table[side])
        for side in ("last", "ask")
        if {side, f"{side}usd"} <= set(table.columns)
    ]
    ratio = np.concatenate(ratios) if ratios else np.array([np.nan])
    ratio = ratio[np.isfinite(ratio) & (ratio > 1.0)]
    if len(ratio):
        price = float(np.median(ratio))
        rows["underlying_price"] = price
        notes.append(f"underlying price {price:.8g}: prices in dollars over prices")
    rows["settlement"] = COIN_SETTLEMENT
    rows["exercise_style"] = "european"
    name = source.path.name.upper() if source.path is not None else ""
    coin = next((one for one in _COINS if one in re.split(r"[^A-Z]", name)), None)
    if coin is not None:
        rows["underlying"] = coin
        rows["currency"] = coin
    expiry = path_expiry(source.path)
    if expiry is not None:
        rows["expiry"] = expiry
    else:
        years = _years_from_greeks(table)
        if years is not None:
            rows["time_to_expiry"] = years
            notes.append(
                "no expiry in the table: the Greeks imply "
                f"{years * _DAYS_PER_YEAR:.1f} days; pass `expiry=` and `quote_time=`"
            )
    return LayoutRows(rows, tuple(notes), timezone="UTC")


def _years_from_greeks(table: pd.DataFrame) -> float | None:
    r"""Time to expiry, from $\theta = -\nu \sigma / (2 T)$ with no interest.

    Deribit's vega is for one per cent of volatility, its theta for one day.
    """
    if not {"vega", "theta", "ivbid", "ivask"} <= set(table.columns):
        return None
    vega = 100.0 * numbers(table["vega"])
    theta = -_DAYS_PER_YEAR * numbers(table["theta"])
    volatility = 0.005 * (numbers(table["ivbid"]) + numbers(table["ivask"]))
    with np.errstate(divide="ignore", invalid="ignore"):
        years = vega * volatility / (2.0 * theta)
    spread = numbers(table["ivask"]) - numbers(table["ivbid"])
    known = np.isfinite(years) & (years > 0.0) & (spread >= 0.0)
    if not known.any():
        return None
    near = known & (spread <= np.median(spread[known]))
    return float(np.median(years[near]))


LAYOUTS = (
    TableLayout(
        "tardis",
        signature=("exchange", "symbol", "local_timestamp", "mark_iv", "ask_price"),
        columns={
            "contract": "symbol",
            "quote_time": "timestamp",
            "expiry": "expiration",
            "strike": "strike_price",
            "option_type": "type",
            "bid": "bid_price",
            "ask": "ask_price",
            "bid_size": "bid_amount",
            "ask_size": "ask_amount",
            "open_interest": "open_interest",
            "underlying_price": "underlying_price",
        },
        timezone="UTC",
        empty_bid_is_zero=True,
        prepare=_options_only,
    ),
    TableLayout(
        "deribit",
        signature=("instrument_name", "bid_price", "ask_price", "mark_price"),
        columns={
            "contract": "instrument_name",
            "quote_time": ("timestamp", "creation_timestamp"),
            "bid": "bid_price",
            "ask": "ask_price",
            "volume": "volume",
            "open_interest": "open_interest",
            "underlying_price": (
                "underlying_price",
                "index_price",
                "estimated_delivery_price",
            ),
            "currency": "quote_currency",
        },
        timezone="UTC",
        empty_bid_is_zero=True,
        prepare=_options_only,
    ),
    TableLayout(
        "deribit ticker",
        signature=("instrument_name", "best_bid_price", "best_ask_price"),
        columns={
            "contract": "instrument_name",
            "quote_time": "timestamp",
            "bid": "best_bid_price",
            "ask": "best_ask_price",
            "bid_size": "best_bid_amount",
            "ask_size": "best_ask_amount",
            "volume": "stats.volume",
            "open_interest": "open_interest",
            "underlying_price": ("underlying_price", "index_price"),
        },
        timezone="UTC",
        empty_bid_is_zero=True,
        prepare=_options_only,
    ),
    TableLayout(
        "okx",
        signature=("instId", "bidPx", "askPx"),
        columns={
            "contract": "instId",
            "quote_time": "ts",
            "bid": "bidPx",
            "ask": "askPx",
            "bid_size": "bidSz",
            "ask_size": "askSz",
            "volume": "vol24h",
            "open_interest": ("oi", "openInterest"),
            "underlying_price": ("fwdPx", "idxPx"),
        },
        timezone="UTC",
        empty_bid_is_zero=True,
        prepare=_options_only,
    ),
    Layout("deribit export", _is_export, _read_export),
)

"""Cboe: the delayed quotes of its website, and the files that DataShop sells."""

import re

import numpy as np
import pandas as pd

from relu_options.market_data.clocks import MARKET_TIMEZONE
from relu_options.market_data.columns import numbers
from relu_options.market_data.layouts import Layout, LayoutRows, TableLayout
from relu_options.market_data.sources import ChainSource

_LAST_TRADE = pd.Timedelta(hours=16, minutes=15)
_FIELDS = {
    "bid": "bid",
    "ask": "ask",
    "vol": "volume",
    "volume": "volume",
    "openint": "open_interest",
    "openinterest": "open_interest",
}


def _header(source: ChainSource) -> int | None:
    """The line on which the table of a download starts, or None."""
    lines = source.head
    if source.table is not None:
        lines = (",".join(map(str, source.table.columns)),)
    for at, line in enumerate(lines):
        if {"calls", "puts", "strike"} <= set(line.strip().lower().split(",")):
            return at
    return None


def _is_website(source: ChainSource) -> bool:
    """Calls on the left, puts on the right, the strike between them."""
    return _header(source) is not None


def _read_website(source: ChainSource) -> LayoutRows:
    """The delayed quotes of Cboe's website, with or without their preamble lines.

    The vendor's implied volatilities are left out: they are not quotes.
    """
    header = _header(source) or 0
    table = source.read(skiprows=header)
    titles = [re.sub(r"[^a-z]", "", str(name).lower()) for name in table.columns]
    calls, strike, puts = (titles.index(name) for name in ("calls", "strike", "puts"))
    expiry = next((at for at in range(calls) if titles[at].startswith("expir")), None)
    sides = []
    for option_type, first, end in (
        ("call", calls, strike),
        ("put", puts, len(titles)),
    ):
        side = {"contract": table.iloc[:, first], "strike": table.iloc[:, strike]}
        if expiry is not None:
            side["expiry"] = table.iloc[:, expiry]
        for at in range(first + 1, end):
            name = _FIELDS.get(titles[at])
            if name is not None:
                side[name] = table.iloc[:, at]
        sides.append(pd.DataFrame(side).assign(option_type=option_type))
    rows = pd.concat(sides, ignore_index=True)
    rows.index = pd.Index(rows["contract"], name="contract")
    preamble = " ".join(source.head[:header])
    price = re.search(r"(?:\),|Last:\s*)\s*\"?([0-9][0-9.]*)", preamble)
    if price:
        rows["underlying_price"] = float(price[1])
    quote_time, notes = _preamble_time(preamble)
    return LayoutRows(rows, notes, quote_time, us_listed=True)


def _preamble_time(preamble: str) -> tuple[pd.Timestamp | None, tuple[str, ...]]:
    """The time in a preamble; moved back to the last close if the market was shut."""
    found = re.search(
        r"([A-Z][a-z]+ \d{1,2},? \d{4}) (?:@|at) (\d{1,2}:\d{2}(?: ?[AP]M)?)", preamble
    )
    if not found:
        return None, ()
    stamp = pd.Timestamp(f"{found[1]} {found[2]}").tz_localize(MARKET_TIMEZONE)
    day = stamp.normalize()
    close = day.tz_localize(None) + _LAST_TRADE
    while close.weekday() > 4 or close.tz_localize(MARKET_TIMEZONE) > stamp:
        close -= pd.Timedelta(days=1)
    last = close.tz_localize(MARKET_TIMEZONE)
    opened = last.normalize().tz_localize(None) + pd.Timedelta(hours=9, minutes=30)
    trading = stamp.weekday() < 5 and (opened.time() <= stamp.time() <= close.time())
    if trading:
        return stamp, ()
    note = (
        f"stamped {stamp:%Y-%m-%d %H:%M} New York, when the market was closed: taken "
        f"as its last close, {last:%Y-%m-%d %H:%M}"
    )
    return last, (note,)


def _underlying_mid(table: pd.DataFrame) -> pd.DataFrame:
    """The middle of the underlying's bid and ask; zero is missing."""
    for suffix in ("1545", "eod", ""):
        sides = [f"underlyingbid{suffix}", f"underlyingask{suffix}"]
        if set(sides) <= set(table.columns):
            mid = np.mean([numbers(table[name]) for name in sides], axis=0)
            table[f"underlyingmid{suffix}"] = np.where(mid > 0.0, mid, np.nan)
    if "deliverycode" in table:
        code = table["deliverycode"].astype("str").str.strip()
        usual = table["deliverycode"].isna() | code.isin(["", "0", "0.0"])
        table["nonstandard"] = ~usual
    return table


_DATASHOP = {
    "underlying": "underlying_symbol",
    "quote_time": "quote_date",
    "root": "root",
    "expiry": "expiration",
    "strike": "strike",
    "option_type": "option_type",
    "volume": "trade_volume",
    "open_interest": "open_interest",
    "nonstandard": "nonstandard",
}


def _at_snapshot(suffix: str) -> dict[str, str | tuple[str, ...]]:
    """DataShop's columns of one of its two snapshots."""
    return {
        **_DATASHOP,
        "bid": f"bid_{suffix}",
        "ask": f"ask_{suffix}",
        "bid_size": f"bid_size_{suffix}",
        "ask_size": f"ask_size_{suffix}",
        "underlying_price": f"underlying_mid_{suffix}",
    }


LAYOUTS = (
    TableLayout(
        "cboe datashop intervals",
        signature=("underlying_symbol", "quote_datetime", "underlying_bid", "bid"),
        columns={
            **_DATASHOP,
            "quote_time": "quote_datetime",
            "bid": "bid",
            "ask": "ask",
            "bid_size": "bid_size",
            "ask_size": "ask_size",
            "underlying_price": "underlying_mid",
        },
        us_listed=True,
        prepare=_underlying_mid,
    ),
    TableLayout(
        "cboe datashop close",
        signature=("underlying_symbol", "quote_date", "bid_eod", "ask_eod"),
        columns=_at_snapshot("eod"),
        us_listed=True,
        prepare=_underlying_mid,
    ),
    TableLayout(
        "cboe datashop",
        signature=("underlying_symbol", "quote_date", "bid_1545", "ask_1545"),
        columns=_at_snapshot("1545"),
        snapshot="15:45",
        us_listed=True,
        prepare=_underlying_mid,
        notes=(
            "quotes of 15:45, when index options and stocks both trade; for those of "
            'the close, pass `layout="cboe datashop close"`',
        ),
    ),
    Layout("cboe", _is_website, _read_website),
)

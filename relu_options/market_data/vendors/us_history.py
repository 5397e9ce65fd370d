"""Vendors of US options: their histories and interfaces, one short entry each."""

import numpy as np
import pandas as pd

from relu_options.market_data.columns import numbers
from relu_options.market_data.layouts import LayoutRows, TableLayout
from relu_options.market_data.sources import ChainSource

_UNDEFINED_PRICE = 9_223_372_036.854775807  # Databento's largest int64, in 1e-9
_NANO = 1e-9


def _ivydb(table: pd.DataFrame) -> pd.DataFrame:
    """AM or PM from a flag, contracts with special settlement, and roots."""
    if "amsettlement" in table:
        flag = numbers(table["amsettlement"])
        clock = pd.Series(np.where(flag == 1, "AM", "PM"), index=table.index)
        table["clock"] = clock.where(np.isfinite(flag))
    if "ssflag" in table:
        flag = table["ssflag"].astype("str").str.strip()
        table["nonstandard"] = table["ssflag"].notna() & ~flag.isin(["", "0", "0.0"])
    if "symbol" in table and "root" not in table:
        root = table["symbol"].astype("str").str.extract(r"^\s*([A-Z][A-Z0-9.]*)[ .]")
        table["root"] = root[0]
    return table


def _orats(table: pd.DataFrame) -> pd.DataFrame:
    """Symbols of the contracts under one name each, where there are any."""
    return table.rename(columns={"copra": "callsymbol", "popra": "putsymbol"})


def _databento(table: pd.DataFrame) -> pd.DataFrame:
    """Prices that came as whole numbers of 1e-9, and the one that means none."""
    for name in ("bidpx00", "askpx00", "strikeprice"):
        if name not in table:
            continue
        values = numbers(table[name])
        if np.nanmax(np.abs(values), initial=0.0) > 1e6:
            values = values * _NANO
        table[name] = np.where(values >= 0.999 * _UNDEFINED_PRICE, np.nan, values)
    return table


def _theta_v2(table: pd.DataFrame) -> pd.DataFrame:
    """Quote times from a date and the milliseconds since New York's midnight."""
    date = table["date"].astype("str").str.replace("-", "").str.removesuffix(".0")
    day = pd.to_datetime(date, format="%Y%m%d")
    clock = table["msofday"]
    counted = pd.to_numeric(clock, errors="coerce").notna().all()
    elapsed = pd.to_timedelta(clock, unit="ms") if counted else pd.to_timedelta(clock)
    # A report of the day, written after the close, holds the quotes of the close.
    close = pd.Timedelta(hours=16)
    if "msofday2" in table:
        elapsed = elapsed.where(elapsed <= close, close)
    table["quotetime"] = day + elapsed
    return table


def _theta_v3(table: pd.DataFrame) -> pd.DataFrame:
    """Quote times from the column that a request returns; reports are of the close."""
    if "timestamp" in table:
        table["quotetime"] = table["timestamp"]
    else:
        table["quotetime"] = pd.to_datetime(
            table["created"], format="mixed"
        ).dt.normalize()
    return table


class _Polygon(TableLayout):
    """Polygon's snapshot of a chain: quotes of one time, each with its last change."""

    def recognises(self, source: ChainSource) -> bool:
        """Names as `json_normalize` makes them, the ticker with its prefix."""
        return source.has("details.ticker", "details.strike_price") or (
            source.has("strike_price", "last_quote.bid")
        )

    def read(self, source: ChainSource) -> LayoutRows:
        """The rows; the quote time is the last change of any of them."""
        made = super().read(source)
        stamps = made.rows.pop("changed") if "changed" in made.rows else None
        if stamps is None or stamps.isna().all():
            return made
        last = pd.Timestamp(int(numbers(stamps)[~stamps.isna()].max()), unit="ns")
        return LayoutRows(
            made.rows,
            (
                *made.notes,
                "quote time taken as that of the last change of any quote, "
                f"{last:%Y-%m-%d %H:%M} UTC",
            ),
            last.tz_localize("UTC"),
            inferred=True,
            us_listed=True,
        )


def _polygon(table: pd.DataFrame) -> pd.DataFrame:
    """Contracts that deliver anything but 100 shares are not standard."""
    if "detailssharespercontract" in table:
        shares = numbers(table["detailssharespercontract"])
        table["nonstandard"] = np.isfinite(shares) & (shares != 100)
    if "detailsadditionalunderlyings" in table:
        more = table["detailsadditionalunderlyings"].notna()
        table["nonstandard"] = more | table.get("nonstandard", False)
    return table


def _sided(prefix: str) -> dict[str, str]:
    """ORATS's names for one side, those of its files and of its interface."""
    side = {"c": "call", "p": "put"}[prefix]
    return {
        "contract": f"{side}symbol",
        "bid": f"{side}BidPrice",
        "ask": f"{side}AskPrice",
        "bid_size": f"{side}BidSize",
        "ask_size": f"{side}AskSize",
        "volume": f"{side}Volume",
        "open_interest": f"{side}OpenInterest",
    }


def _sided_file(prefix: str) -> dict[str, str]:
    """ORATS's names for one side in its daily files."""
    side = {"c": "call", "p": "put"}[prefix]
    return {
        "contract": f"{side}symbol",
        "bid": f"{prefix}BidPx",
        "ask": f"{prefix}AskPx",
        "volume": f"{prefix}Volu",
        "open_interest": f"{prefix}Oi",
    }


def _sided_optionsdx(prefix: str) -> dict[str, str]:
    """OptionsDX's names for one side."""
    return {
        "bid": f"{prefix}_BID",
        "ask": f"{prefix}_ASK",
        "volume": f"{prefix}_VOLUME",
    }


_THETA = {
    "expiry": "expiration",
    "strike": "strike",
    "option_type": "right",
    "quote_time": "quotetime",
    "bid": "bid",
    "ask": "ask",
    "bid_size": "bid_size",
    "ask_size": "ask_size",
    "volume": "volume",
    "open_interest": "open_interest",
    "underlying_price": "underlying_price",
}

LAYOUTS = (
    TableLayout(
        "optionmetrics",
        signature=("exdate", "cp_flag", "strike_price", "best_bid", "best_offer"),
        columns={
            "quote_time": "date",
            "underlying": "ticker",
            "root": "root",
            "expiry": "exdate",
            "settlement": "clock",
            "exercise_style": "exercise_style",
            "strike": "strike_price",
            "option_type": "cp_flag",
            "bid": "best_bid",
            "ask": "best_offer",
            "volume": "volume",
            "open_interest": "open_interest",
            "underlying_price": ("spotprice", "under_price"),
            "multiplier": "contract_size",
            "nonstandard": "nonstandard",
        },
        strike_scale=1000.0,
        missing=(-99.99,),
        us_listed=True,
        prepare=_ivydb,
    ),
    TableLayout(
        "optionsdx",
        signature=("QUOTE_DATE", "EXPIRE_DATE", "STRIKE", "C_BID", "P_ASK"),
        columns={
            "quote_time": ("QUOTE_READTIME", "QUOTE_DATE"),
            "expiry": "EXPIRE_DATE",
            "strike": "STRIKE",
            "underlying_price": "UNDERLYING_LAST",
        },
        calls=_sided_optionsdx("C"),
        puts=_sided_optionsdx("P"),
        us_listed=True,
        underlying_in_name=r"^([a-z]+)_(?:eod|15x|30x|60x|intraday)",
    ),
    TableLayout(
        "orats",
        signature=("ticker", "expirDate", "strike", "callBidPrice", "putAskPrice"),
        columns={
            "underlying": "ticker",
            "quote_time": ("quoteDate", "tradeDate"),
            "expiry": "expirDate",
            "strike": "strike",
            "underlying_price": ("stockPrice", "spotPrice"),
        },
        calls=_sided("c"),
        puts=_sided("p"),
        snapshot="15:46",
        us_listed=True,
        prepare=_orats,
    ),
    TableLayout(
        "orats files",
        signature=("ticker", "expirDate", "strike", "cBidPx", "pAskPx"),
        columns={
            "underlying": "ticker",
            "quote_time": "trade_date",
            "expiry": "expirDate",
            "strike": "strike",
            "underlying_price": ("stkPx", "spot_px"),
        },
        calls=_sided_file("c"),
        puts=_sided_file("p"),
        snapshot="15:46",
        us_listed=True,
        prepare=_orats,
    ),
    _Polygon(
        "polygon",
        signature=(),
        columns={
            "contract": ("details.ticker", "ticker"),
            "underlying": "underlying_asset.ticker",
            "expiry": ("details.expiration_date", "expiration_date"),
            "exercise_style": ("details.exercise_style", "exercise_style"),
            "strike": ("details.strike_price", "strike_price"),
            "option_type": ("details.contract_type", "contract_type"),
            "bid": "last_quote.bid",
            "ask": "last_quote.ask",
            "bid_size": "last_quote.bid_size",
            "ask_size": "last_quote.ask_size",
            "volume": "day.volume",
            "open_interest": "open_interest",
            "underlying_price": ("underlying_asset.price", "underlying_asset.value"),
            "multiplier": "details.shares_per_contract",
            "changed": "last_quote.last_updated",
            "nonstandard": "nonstandard",
        },
        us_listed=True,
        prepare=_polygon,
    ),
    TableLayout(
        "databento",
        signature=("bid_px_00", "ask_px_00", "symbol"),
        columns={
            "contract": ("raw_symbol", "symbol"),
            "quote_time": ("ts_recv", "ts_event"),
            "expiry": "expiration",
            "strike": "strike_price",
            "option_type": "instrument_class",
            "bid": "bid_px_00",
            "ask": "ask_px_00",
            "bid_size": "bid_sz_00",
            "ask_size": "ask_sz_00",
        },
        timezone="UTC",
        us_listed=True,
        empty_bid_is_zero=True,
        prepare=_databento,
    ),
    TableLayout(
        "thetadata",
        signature=("symbol", "expiration", "right", "bid_condition", "ask"),
        columns={"root": "symbol", **_THETA},
        us_listed=True,
        prepare=_theta_v3,
    ),
    TableLayout(
        "thetadata greeks",
        signature=("symbol", "expiration", "right", "timestamp", "iv_error", "ask"),
        columns={"root": "symbol", **_THETA},
        us_listed=True,
        prepare=_theta_v3,
    ),
    TableLayout(
        "thetadata v2",
        signature=("root", "expiration", "right", "ms_of_day", "date", "ask"),
        columns={"root": "root", **_THETA},
        strike_scale=1000.0,
        us_listed=True,
        prepare=_theta_v2,
    ),
    TableLayout(
        "historicaloptiondata",
        signature=("UnderlyingSymbol", "UnderlyingPrice", "DataDate", "Bid", "Ask"),
        columns={
            "underlying": "UnderlyingSymbol",
            "underlying_price": "UnderlyingPrice",
            "contract": ("OptionSymbol", "OptionRoot"),
            "quote_time": "DataDate",
            "expiry": "Expiration",
            "strike": "Strike",
            "option_type": "Type",
            "bid": "Bid",
            "ask": "Ask",
            "volume": "Volume",
            "open_interest": "OpenInterest",
        },
        us_listed=True,
    ),
)

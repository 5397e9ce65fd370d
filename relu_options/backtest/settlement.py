"""The price at which an expiry is settled: of a table, or of the underlying.

It is never the last quote of an option.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from relu_options.backtest.contracts import Slice, slice_name
from relu_options.errors import BacktestError
from relu_options.market_data import utc_time
from relu_options.market_data.clocks import MARKET_TIMEZONE, as_date

COLUMNS = ("expiry", "settlement", "price")


class SettlementPrice(NamedTuple):
    """A price, and where it is from if that is not as it should be.

    Attributes:
        price: Currency units.
        reason: Why another price was used; empty if it was not.

    Examples:
        >>> SettlementPrice(2890.3).reason
        ''
    """

    price: float
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Settlement:
    """Where settlement prices come from.

    A PM expiry settles at the table's price, or else at the price of the underlying on
    its date. An AM expiry settles at the table's price only: closing prices are not
    opening prices. Where that price is missing, as on a holiday, "last" uses the last
    price of the underlying at or before the settlement, adjusted for splits, and
    reports it as an event of the kind "settlement_price"; "raise" raises.

    Attributes:
        prices: Columns `expiry`, `settlement` ("AM" or "PM") and `price`; wins over the
            history's own. None to use only that.
        on_missing: "last" or "raise".

    Raises:
        ValueError: If a column is missing, or `on_missing` is unknown.

    Examples:
        >>> table = pd.DataFrame({"expiry": ["2019-06-21"], "settlement": ["AM"],
        ...                       "price": [2960.6]})
        >>> Settlement(table).table[pd.Timestamp("2019-06-21"), "AM"]
        2960.6
    """

    prices: pd.DataFrame | None = None
    on_missing: Literal["last", "raise"] = "last"

    def __post_init__(self) -> None:
        if self.on_missing not in ("last", "raise"):
            raise ValueError(
                f"on_missing must be 'last' or 'raise', not {self.on_missing!r}"
            )
        price_table(self.prices)

    @property
    def table(self) -> dict[Slice, float]:
        """The prices by slice."""
        return price_table(self.prices)


def price_table(prices: pd.DataFrame | None) -> dict[Slice, float]:
    """Positive prices of a table by expiry and settlement.

    Raises:
        ValueError: If the table lacks a column.
    """
    if prices is None or not len(prices):
        return {}
    missing = [name for name in COLUMNS if name not in prices]
    if missing:
        raise ValueError(
            f"settlement prices need columns {list(COLUMNS)}; missing {missing}"
        )
    rows = zip(*(prices[name].tolist() for name in COLUMNS), strict=True)
    return {
        (as_date(expiry), str(settlement)): float(price)
        for expiry, settlement, price in rows
        if price > 0.0
    }


def last_price(
    prices: pd.Series, splits: pd.Series, day: pd.Timestamp
) -> tuple[float, pd.Timestamp | None]:
    """The last price by a date, per share of that date, and its date; NaN without one.

    Examples:
        >>> days = pd.DatetimeIndex(["2025-01-06", "2025-01-07", "2025-01-08"])
        >>> prices = pd.Series([100.0, 110.0], days[:2])
        >>> price, date = last_price(prices, pd.Series([2.0], days[2:]), days[2])
        >>> print(price, date)
        55.0 2025-01-07 00:00:00
    """
    known = prices[(prices.index <= day) & (prices > 0.0).to_numpy()]
    if not len(known):
        return np.nan, None
    found = known.index[-1]
    later = splits[(splits.index > found) & (splits.index <= day)]
    return float(known.iloc[-1] / later.prod()), found


def settlement_price(
    key: Slice,
    expires: pd.Timestamp,
    *,
    settlement: Settlement,
    table: dict[Slice, float],
    underlying_prices: pd.Series,
    splits: pd.Series,
) -> SettlementPrice:
    """The price of the underlying at which a slice settles.

    Args:
        key: Expiry and settlement.
        expires: When the payoff is fixed, in UTC.
        settlement: What to do if the price is missing.
        table: Prices by slice.
        underlying_prices: By date, as far as they are known.
        splits: New shares per old one by date.

    Raises:
        BacktestError: If the price is missing and `settlement` says to raise, or there
            is no price at all.
    """
    if key in table:
        return SettlementPrice(table[key])
    day = expires.tz_convert(MARKET_TIMEZONE).tz_localize(None).normalize()
    at_close = utc_time(day)[0] <= expires
    by_then = underlying_prices
    if not at_close:  # a closing price of its date is later
        by_then = underlying_prices[underlying_prices.index < day]
    price, found = last_price(by_then, splits, day)
    if at_close and found == day:
        return SettlementPrice(price)
    if settlement.on_missing == "raise" or found is None:
        raise BacktestError(
            f"no settlement price for {slice_name(key)}; pass `settlement=`, a table "
            f"with the columns {list(COLUMNS)}, or one of "
            "`relu_options.backtest.Settlement(prices, on_missing='last')`"
        )
    return SettlementPrice(
        price,
        f"no settlement price: the last price before, {price:.10g} of "
        f"{found:%Y-%m-%d}, was used",
    )

"""What a history says beside its chains, read once and served up to a date."""

from __future__ import annotations

import numpy as np
import pandas as pd

from relu_options.backtest.contracts import Event
from relu_options.backtest.day import Day, History
from relu_options.backtest.settlement import COLUMNS, last_price, price_table
from relu_options.market_data.clocks import as_date, expiry_time


class Facts:
    """Dates, splits, settlement prices and prices of the underlying of a history.

    Args:
        history: Read here, once.
        dates: That are gone through.
    """

    def __init__(self, history: History, dates: pd.DatetimeIndex):
        self.dates = pd.DatetimeIndex(history.dates).sort_values()
        self.splits = _by_date(history.splits)
        self.settlement_prices = price_table(history.settlement_prices)
        self.underlying_prices = _by_date(history.underlying_prices)
        gaps = pd.DatetimeIndex(history.missing_dates)
        self.missing = [
            Event(
                day,
                "missing_day",
                f"{day:%Y-%m-%d}",
                "expected, but not in the history; positions were carried",
            )
            for day in gaps[(gaps > dates[0]) & (gaps < dates[-1])]
        ]

    def see(self, day: Day) -> None:
        """Remember the price of the underlying of a date that had none."""
        if not (day.carried_price or day.date in self.underlying_prices.index):
            seen = pd.Series({day.date: day.spot})
            self.underlying_prices = pd.concat(
                [self.underlying_prices, seen]
            ).sort_index()

    def price_on(self, date: pd.Timestamp) -> float:
        """Price of the underlying on a date; NaN where it is not known."""
        return float(self.underlying_prices.get(date, np.nan))

    def last_price(self, date: pd.Timestamp) -> float:
        """Last price of the underlying by a date, per share of it; NaN without one."""
        return last_price(self.underlying_prices, self.splits, date)[0]

    def dates_until(self, date: pd.Timestamp) -> pd.DatetimeIndex:
        """Dates of the history, up to one."""
        return self.dates[: self.dates.searchsorted(date, side="right")]

    def splits_until(self, date: pd.Timestamp) -> pd.Series:
        """Splits up to a date."""
        return _until(self.splits, date)

    def prices_until(self, date: pd.Timestamp) -> pd.Series:
        """Prices of the underlying up to a date."""
        return _until(self.underlying_prices, date)

    def settled_until(self, time: pd.Timestamp) -> pd.DataFrame:
        """Settlement prices of what has expired by an instant."""
        passed = {
            key: price
            for key, price in self.settlement_prices.items()
            if expiry_time(*key) <= time
        }
        rows = [(*key, price) for key, price in passed.items()]
        return pd.DataFrame(rows, columns=list(COLUMNS))


def _by_date(series: pd.Series) -> pd.Series:
    """A series sorted by dates that have neither clock nor zone."""
    days = [as_date(day) for day in series.index]
    return series.set_axis(pd.DatetimeIndex(days)).sort_index()


def _until(series: pd.Series, date: pd.Timestamp) -> pd.Series:
    """The part of a sorted series up to a date."""
    index = pd.DatetimeIndex(series.index)
    return series.iloc[: index.searchsorted(date, side="right")]

"""Small histories in memory, whose truth is known, for the tests of backtests."""

from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from scipy.stats import norm

from relu_options.market_data import read_chain
from relu_options.market_data.clocks import expiry_time, utc_time, years_between
from relu_options.simulation import BatesModel, SimulationTerms, simulate_chain


@dataclass
class MemoryHistory:
    """Tables of quotes by date; a chain is read when it is first asked for."""

    tables: dict
    underlying_prices: pd.Series
    splits: pd.Series = field(
        default_factory=lambda: pd.Series(dtype=float, index=pd.DatetimeIndex([]))
    )
    settlement_prices: pd.DataFrame = field(default_factory=pd.DataFrame)
    missing_dates: pd.DatetimeIndex = field(
        default_factory=lambda: pd.DatetimeIndex([])
    )

    def __post_init__(self):
        self.chains = {}

    @property
    def dates(self):
        return pd.DatetimeIndex(sorted(self.tables))

    def __getitem__(self, date):
        if date not in self.chains:
            self.chains[date] = read_chain(self.tables[date])
        return self.chains[date]

    def without(self, date):
        """The history with a gap."""
        tables = {day: table for day, table in self.tables.items() if day != date}
        return replace(self, tables=tables, missing_dates=pd.DatetimeIndex([date]))

    def changed(self, change):
        """The history with every table changed: `change(date, table)`."""
        tables = {day: change(day, table) for day, table in self.tables.items()}
        return replace(self, tables=tables)


def black_scholes_price(spot, strike, years, volatility, rate, is_call):
    """The formula, written again from scipy."""
    total = volatility * np.sqrt(years)
    d1 = np.log(spot * np.exp(rate * years) / strike) / total + 0.5 * total
    call = spot * norm.cdf(d1) - strike * np.exp(-rate * years) * norm.cdf(d1 - total)
    return np.where(is_call, call, call - spot + strike * np.exp(-rate * years))


def black_scholes_table(
    date,
    spot,
    expiries,
    strikes,
    *,
    volatility=0.2,
    rate=0.0,
    half_spread=0.1,
    style="european",
    settlement="PM",
    multiplier=100,
    expired=False,
):
    """Quotes around Black-Scholes prices, calls and puts of every strike.

    Those that expire on the date are there, at their intrinsic value, if asked for.
    """
    rows = []
    now = utc_time(date)[0]
    for expiry in expiries:
        years = years_between(now, expiry_time(expiry, settlement))
        if years <= 0.0 and not (expired and expiry == date):
            continue
        for is_call in (True, False):
            price = np.maximum((spot - strikes) * (1.0 if is_call else -1.0), 0.0)
            if years > 0.0:
                price = black_scholes_price(
                    spot, strikes, years, volatility, rate, is_call
                )
            rows.append(
                pd.DataFrame(
                    {
                        "quote_time": now,
                        "underlying": "SIM",
                        "expiry": expiry,
                        "settlement": settlement,
                        "exercise_style": style,
                        "strike": strikes,
                        "option_type": "call" if is_call else "put",
                        "bid": np.maximum(price - half_spread, 0.0),
                        "ask": price + half_spread,
                        "underlying_price": spot,
                        "multiplier": multiplier,
                    }
                )
            )
    return pd.concat(rows, ignore_index=True)


def black_scholes_history(
    spots,
    expiries,
    *,
    start="2025-01-06",
    strikes=None,
    **terms,
):
    """A history on business days with one spot each."""
    dates = pd.bdate_range(start, periods=len(spots))
    strikes = np.arange(80.0, 121.0, 5.0) if strikes is None else strikes
    expiries = [pd.Timestamp(one) for one in expiries]
    tables = {
        date: black_scholes_table(date, spot, expiries, strikes, **terms)
        for date, spot in zip(dates, spots, strict=True)
    }
    return MemoryHistory(tables, pd.Series(np.asarray(spots, float), dates))


def lognormal_path(rng, days, *, volatility=0.2, drift=0.0, spot=100.0):
    """Daily closes of a geometric Brownian motion on business days."""
    step = volatility * np.sqrt(1.0 / 252.0)
    moves = rng.normal((drift - 0.5 * volatility**2) / 252.0, step, days - 1)
    return spot * np.exp(np.append(0.0, np.cumsum(moves)))


def bates_history(days=6, *, start="2025-03-14"):
    """Chains of the Bates model, as an index option market shows them."""
    rng = np.random.default_rng(7)
    spots = lognormal_path(rng, days, spot=1000.0)
    dates = pd.bdate_range(start, periods=days)
    model = BatesModel(0.04, 0.04, 2.0, 0.5, -0.7, 0.3, -0.1, 0.1)
    tables = {}
    for place, (date, spot) in enumerate(zip(dates, spots, strict=True)):
        terms = SimulationTerms(
            model=model,
            spot=float(spot),
            rate=0.03,
            dividend_yield=0.01,
            quote_time=f"{date:%Y-%m-%d}",
            expiries=("2025-04-17", "2025-06-20"),
            seed=place,
        )
        tables[date] = simulate_chain(terms).table
    return MemoryHistory(tables, pd.Series(spots, dates))

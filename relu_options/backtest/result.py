"""What a backtest found: equity by date, trades, events, and where the money went."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from relu_options.backtest.account import ATTRIBUTION, GREEKS, Account
from relu_options.backtest.contracts import Contract

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CONTRACT_COLUMNS = ("expiry", "settlement", "strike", "option_type", "listed")
YEAR = pd.Timedelta(days=365.25)


class Summary(pd.Series):
    """The figures of a backtest as a Series that prints as its report.

    Examples:
        >>> print(Summary({"start": pd.Timestamp("2025-01-02"), "return": 0.0123,
        ...                "fees": 1234.5, "trades": 12}))
        start   2025-01-02
        return      1.23 %
        fees      1,234.50
        trades          12
    """

    @property
    def _constructor(self) -> type[pd.Series]:
        return pd.Series

    def __repr__(self) -> str:
        texts = [_figure(str(name), value) for name, value in self.items()]
        names = [str(name) for name in self.index]
        left = max(map(len, names), default=0)
        right = max(map(len, texts), default=0)
        pairs = zip(names, texts, strict=True)
        return "\n".join(f"{name:<{left}}  {text:>{right}}" for name, text in pairs)

    __str__ = __repr__


SHARES = ("return", "volatility", "max_drawdown")


def _figure(name: str, value: Any) -> str:
    """One figure as text, in its unit."""
    if isinstance(value, pd.Timestamp):
        return f"{value:%Y-%m-%d}"
    if isinstance(value, str):
        return value
    if not np.isfinite(value):
        return "n/a"
    if name in SHARES:
        return f"{100.0 * value:.2f} %"
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    return f"{value:,.2f}"


@dataclass(frozen=True, eq=False, repr=False)
class BacktestResult:
    """Equity, positions, trades and events of one strategy.

    On every date equity is cash plus the market value of the positions, and its change
    is the sum of the columns of `attribution`.

    Attributes:
        name: Of the strategy.
        capital: Cash at the start, in currency units.
        daily: One row per date: `spot`, `cash`, `options_value`, `underlying_value`,
            `equity`.
        greeks: One row per date, of the whole account: `delta` (units of the
            underlying), `gamma` (per currency unit), `vega` (currency per 1.00 of
            volatility), `theta` (currency per year).
        attribution: One row per date, the change of equity since the date before:
            `interest`, `dividends`, `underlying` (units held times the move), of the
            options `delta`, `gamma`, `vega`, `theta` and the `residual` that these
            leave, `spread` (fills against marks) and `fees`.
        trades: One row per fill or expiry: `date`, `kind` ("order", "hedge", "claim",
            "expiry"), `expiry`, `settlement`, `strike`, `option_type` ("call", "put",
            "forward" or "underlying"), `listed`, `quantity`, `multiplier`, `price`,
            `mark`, `amount` (cash received before the fee), `spread`, `fee`.
        positions: One row per date and position, with its `market_value`.
        events: `date`, `kind`, `what`, `reason`; see
            `relu_options.backtest.EVENTS` for the kinds.

    Examples:
        See `relu_options.backtest.backtest`.

        >>> from relu_options.backtest import BacktestResult
        >>> sorted(name for name in vars(BacktestResult) if "equity" in name)
        ['equity']
    """

    name: str
    capital: float
    daily: pd.DataFrame
    greeks: pd.DataFrame
    attribution: pd.DataFrame
    trades: pd.DataFrame
    positions: pd.DataFrame
    events: pd.DataFrame

    @property
    def equity(self) -> pd.Series:
        """Cash plus market value by date, in currency units."""
        return self.daily["equity"]

    @property
    def profit(self) -> pd.Series:
        """Equity less the capital, by date."""
        return (self.equity - self.capital).rename("profit")

    @property
    def returns(self) -> pd.Series:
        """Change of equity over the equity of the date before; NaN without capital."""
        before = self.equity.shift(fill_value=self.capital)
        known = before.where(before > 0.0) if self.capital > 0.0 else np.nan
        return ((self.equity - before) / known).rename("return")

    @property
    def drawdown(self) -> pd.Series:
        """Equity over its greatest value so far, less one."""
        peak = self.equity.cummax().clip(lower=self.capital)
        known = peak if self.capital > 0.0 else np.nan
        return (self.equity / known - 1.0).rename("drawdown")

    def summary(self) -> Summary:
        """The figures of the backtest; it prints as a report.

        Volatility and Sharpe ratio are annualised by the number of dates per year that
        the history has; the ratio is of returns, without a deduction of interest.
        """
        equity, returns = self.equity, self.returns.iloc[1:]
        span = (equity.index[-1] - equity.index[0]) / YEAR
        per_year = (len(equity) - 1) / span if span > 0.0 else np.nan
        deviation = returns.std()
        sharpe = np.nan
        if deviation > 0.0:
            sharpe = float(returns.mean() / deviation * np.sqrt(per_year))
        traded = self.trades[self.trades["kind"] != "expiry"]
        return Summary(
            {
                "strategy": self.name,
                "start": equity.index[0],
                "end": equity.index[-1],
                "dates": len(equity),
                "capital": self.capital,
                "final_equity": float(equity.iloc[-1]),
                "profit": float(self.profit.iloc[-1]),
                "return": float(equity.iloc[-1] / self.capital - 1.0)
                if self.capital > 0.0
                else np.nan,
                "volatility": float(deviation * np.sqrt(per_year)),
                "sharpe": sharpe,
                "max_drawdown": float(self.drawdown.min()),
                "fees": float(self.trades["fee"].sum()),
                "spread_cost": float(self.trades["spread"].sum()),
                "trades": len(traded),
                "expired": len(self.trades) - len(traded),
                "events": len(self.events),
            },
            name=self.name,
        )

    def to_frame(self) -> pd.DataFrame:
        """One row per date: `daily`, `return`, Greeks, and the attribution.

        Columns of the attribution have the prefix `pnl_`.
        """
        return pd.concat(
            [
                self.daily,
                self.returns,
                self.greeks,
                self.attribution.add_prefix("pnl_"),
            ],
            axis=1,
        )

    def plot(self, kind: str = "equity", ax: Axes | None = None) -> Axes:
        """Draw the result; returns the Axes.

        Args:
            kind: "equity" (with its drawdown, and the events), "attribution"
                (cumulative, where the profit comes from), "greeks", or "positions"
                (strikes held over time, beside the spot).
            ax: Where to draw; by default a new figure.

        Raises:
            ValueError: If there is no such kind.
        """
        from relu_options.plotting_backtest import plot_backtest

        return plot_backtest(self, kind, ax)

    def __repr__(self) -> str:
        return f"BacktestResult\n{self.summary()!r}"


def result_of(name: str, capital: float, account: Account) -> BacktestResult:
    """The tables of an account at the end."""
    days = account.days
    dates = pd.DatetimeIndex([day["date"] for day in days], name="date")
    columns = ["spot", "cash", "options_value", "underlying_value", "equity"]
    events = pd.DataFrame(account.events, columns=["date", "kind", "what", "reason"])
    return BacktestResult(
        name=name,
        capital=capital,
        daily=pd.DataFrame(
            [[day[one] for one in columns] for day in days], dates, columns
        ),
        greeks=_by_date(days, dates, "greeks", GREEKS),
        attribution=_by_date(days, dates, "attribution", ATTRIBUTION),
        trades=_trades(account),
        positions=_positions(account, pd.Series([day["spot"] for day in days], dates)),
        events=events.sort_values("date", kind="stable", ignore_index=True),
    )


def _by_date(
    days: list[dict], dates: pd.DatetimeIndex, name: str, columns: tuple[str, ...]
) -> pd.DataFrame:
    """A table of one group of numbers."""
    rows = [[day[name][one] for one in columns] for day in days]
    return pd.DataFrame(rows, dates, list(columns), dtype=float)


def _contract_columns(contracts: list[Contract | None]) -> dict[str, list]:
    """What names contracts in tables; None is the underlying."""
    rows = [
        (pd.NaT, None, np.nan, "underlying", True)
        if one is None
        else (one.expiry, one.settlement, one.strike, one.option_type, one.listed)
        for one in contracts
    ]
    columns = zip(*rows, strict=True) if rows else ([] for _ in CONTRACT_COLUMNS)
    return {
        name: list(values)
        for name, values in zip(CONTRACT_COLUMNS, columns, strict=True)
    }


def _trades(account: Account) -> pd.DataFrame:
    """One row per trade."""
    trades = account.trades
    names = ("quantity", "multiplier", "price", "mark", "amount", "spread", "fee")
    return pd.DataFrame(
        {
            "date": pd.DatetimeIndex([trade.date for trade in trades]),
            "kind": [trade.kind for trade in trades],
            **_contract_columns([trade.contract for trade in trades]),
            **{
                name: np.array([getattr(trade, name) for trade in trades], float)
                for name in names
            },
        }
    )


def _positions(account: Account, spot: pd.Series) -> pd.DataFrame:
    """One row per date and position, the underlying last."""
    dates: list[pd.Timestamp] = []
    contracts: list[Contract | None] = []
    quantity: list[float] = []
    marks: list[tuple[float, float]] = []
    for date, held, quantities, values, units in account.positions:
        dates += [date] * len(held)
        contracts += held
        quantity += quantities.tolist()
        marks += values.tolist()
        if units:
            dates.append(date)
            contracts.append(None)
            quantity.append(units)
            marks.append((spot[date], np.nan))
    multiplier = np.array(
        [1.0 if one is None else one.multiplier for one in contracts], float
    )
    price, volatility = np.array(marks, float).reshape(-1, 2).T
    return pd.DataFrame(
        {
            "date": pd.DatetimeIndex(dates),
            **_contract_columns(contracts),
            "quantity": quantity,
            "multiplier": multiplier,
            "price": price,
            "volatility": volatility,
            "market_value": np.array(quantity, float) * multiplier * price,
        }
    )


@dataclass(frozen=True, eq=False, repr=False)
class SweepResult(Mapping[str, BacktestResult]):
    """Results by name, and why the others failed.

    Attributes:
        results: By name, in the order asked.
        failures: Reason by name, of strategies that failed.

    Examples:
        >>> SweepResult({}, {"mine": "2025-03-14, mine: ZeroDivisionError"}).failures
        {'mine': '2025-03-14, mine: ZeroDivisionError'}
    """

    results: dict[str, BacktestResult]
    failures: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> BacktestResult:
        if name in self.failures:
            raise KeyError(f"{name!r} failed: {self.failures[name]}")
        return self.results[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row of `BacktestResult.summary` per name."""
        rows = {name: dict(one.summary()) for name, one in self.results.items()}
        return pd.DataFrame.from_dict(rows, orient="index").drop(columns="strategy")

    def to_frame(self) -> pd.DataFrame:
        """`table`, as a copy."""
        return self.table.copy()

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the profits of all, one line each."""
        from relu_options.plotting_backtest import plot_profits

        return plot_profits(self, ax)

    def __repr__(self) -> str:
        columns = ["profit", "volatility", "sharpe", "max_drawdown", "spread_cost"]
        shown = self.table[columns] if self.results else pd.DataFrame()
        text = f"SweepResult({len(self)} strategies)"
        if self.results:
            text += f"\n{shown.to_string(float_format=lambda value: f'{value:,.4g}')}"
        for name, reason in self.failures.items():
            text += f"\n{name} failed: {reason}"
        return text

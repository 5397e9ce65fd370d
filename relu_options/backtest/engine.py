r"""Run a strategy over a history of option chains.

On each date, in this order: interest is paid; splits adjust the positions; what has
expired is settled at its intrinsic value; what is left is marked; the strategy, who
sees the past and this date only, gives its orders, if anything can be traded; they are
filled at the quotes; the underlying is traded to hedge; and the date is recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import pandas as pd

from relu_options.backtest.account import Account
from relu_options.backtest.contracts import Event
from relu_options.backtest.day import Day, History
from relu_options.backtest.facts import Facts
from relu_options.backtest.market import Market, Marks
from relu_options.backtest.orders import Order, OrderFiller, orders_in
from relu_options.backtest.result import BacktestResult, SweepResult, result_of
from relu_options.backtest.settlement import Settlement
from relu_options.backtest.terms import Costs, DeltaHedge
from relu_options.backtest.view import MarketView
from relu_options.errors import (
    BacktestError,
    LookAheadError,
    QuoteError,
    require_positive,
)
from relu_options.fitting.compiled import one_thread
from relu_options.market_data.clocks import as_date, utc_time
from relu_options.progress import with_progress
from relu_options.surfaces import Surface

Strategy = Callable[[MarketView], Any]
"""A function of the view that returns its orders: None, one, or several."""

Surfaces = Mapping[pd.Timestamp, Surface]
"""Fitted surfaces by date, as of `relu_options.fit_history`."""


@dataclass(frozen=True)
class Setup:
    """A strategy and the terms on which it trades; the arguments of `backtest`.

    Attributes:
        strategy: A function of a `MarketView` that returns orders.
        costs: Of trading.
        settlement: Where settlement prices come from.
        marks: "surface", "mid", or None for the surface where surfaces are given.
        capital: Cash at the start, in currency units.
        hedge: How the account is hedged with the underlying; None if it is not.
        rate: Interest on cash, continuous, per year, or "curve" for that of the chain.
        dividend_yield: Of the underlying held, likewise.
        multiplier: Units of the underlying in a contract; None for those of the chains.

    Raises:
        ValueError: If a term is out of range.
        TypeError: If the strategy cannot be called, or a term is of another type.

    Examples:
        >>> def idle(view):
        ...     return None
        >>> Setup(idle, capital=1e5).costs
        Costs(spread_fraction=1.0, fee_per_contract=0.65, underlying_bps=1.0)
    """

    strategy: Strategy
    costs: Costs = field(default_factory=Costs)
    settlement: Settlement = field(default_factory=Settlement)
    marks: Marks | None = None
    capital: float = 1e6
    hedge: DeltaHedge | None = None
    rate: float | Literal["curve"] = 0.0
    dividend_yield: float | Literal["curve"] = 0.0
    multiplier: float | None = None

    def __post_init__(self) -> None:
        if not callable(self.strategy):
            raise TypeError(
                "a strategy is a function of the view, not "
                f"{type(self.strategy).__name__}"
            )
        kinds = {"costs": Costs, "settlement": Settlement, "hedge": DeltaHedge}
        for name, kind in kinds.items():
            value = getattr(self, name)
            optional = name == "hedge" and value is None
            if not (optional or isinstance(value, kind)):
                raise TypeError(f"{name} must be a {kind.__name__}, not {value!r}")
        if self.marks not in (None, "surface", "mid"):
            raise ValueError(f"marks must be 'surface' or 'mid', not {self.marks!r}")
        if not 0.0 <= self.capital < np.inf:
            raise ValueError(f"capital must not be negative, but is {self.capital!r}")
        if self.multiplier is not None:
            require_positive(multiplier=self.multiplier)
        for name in ("rate", "dividend_yield"):
            value = getattr(self, name)
            if value != "curve" and not abs(float(value)) < 1.0:
                raise ValueError(
                    f"{name} is per year, 0.05 meaning 5 %, or 'curve'; not {value!r}"
                )


def backtest(
    history: History,
    strategy: Strategy,
    *,
    costs: Costs | None = None,
    settlement: Settlement | pd.DataFrame | None = None,
    surfaces: Surfaces | None = None,
    marks: Marks | None = None,
    capital: float = 1e6,
    hedge: DeltaHedge | None = None,
    rate: float | Literal["curve"] = 0.0,
    dividend_yield: float | Literal["curve"] = 0.0,
    multiplier: float | None = None,
    start: Any = None,
    end: Any = None,
    progress: bool | None = None,
) -> BacktestResult:
    """Run a strategy over a history of option chains.

    The strategy is called on every date with a `MarketView`, which cannot be asked for
    a later date, and returns orders; it trades at the quotes of that date. Options that
    are held when they expire pay their intrinsic value. Positions at the end are
    marked, not sold. On a date on which all that is quoted has expired, positions are
    settled and hedged, and the strategy is not called.

    Quantities count contracts: one of SPXW is on 100 units of its index, so that its
    price, and what it pays, count a hundredfold, and its fee once. A contract whose
    multiplier or expiry time a later chain states otherwise is the same contract: its
    units of the underlying are kept, its quantity is restated, and the result has an
    event of the kind "contract_changed".

    Args:
        history: Chains by date; see `relu_options.backtest.History`.
        strategy: A function of the view that returns `StrikePortfolio`s, `Target`s or
            `Claim`s, one or several; or None.
        costs: Spreads and fees; by default the whole spread, 0.65 per contract, and one
            basis point of the underlying.
        settlement: Settlement prices, a table with columns `expiry`, `settlement` and
            `price` that wins over the history's, or a `Settlement`.
        surfaces: Fitted surfaces by date, as of `relu_options.fit_history`. Without
            them a surface is fitted on the dates on which it is asked for.
        marks: What positions are valued at: "surface" or "mid"; by default the surface
            if `surfaces` are given.
        capital: Cash at the start, in currency units. Cash may become negative.
        hedge: Trade the underlying to keep the delta near zero.
        rate: Interest on cash, continuous, per year, or "curve" for that of the chain.
        dividend_yield: What the underlying pays, likewise.
        multiplier: Units of the underlying in a contract; by default what the chains
            say, which know those of US options and of some others.
        start: First date; by default that of the history.
        end: Last date, likewise.
        progress: Whether to show a bar; by default for long jobs. See
            `relu_options.progress`.

    Returns:
        Equity, trades, positions, events, Greeks and attribution.

    Raises:
        BacktestError: If the strategy raises, or orders what is no order or not finite;
            if a settlement price is missing and the settlement says to raise; if the
            multiplier of a contract that is ordered is not known; if the history has no
            dates between `start` and `end`.
        LookAheadError: If the strategy asks for a later date.
        ValueError: If an argument is out of range.

    Examples:
        A straddle of a month, bought again at each expiry. The history has a split,
        missing days, and strikes that are no longer listed when far in the money.

        >>> from relu_options.backtest.strategies import straddle
        >>> from relu_options.simulation.bundled import bundled_history
        >>> result = backtest(bundled_history(), straddle())
        >>> result.summary()[["dates", "capital"]].to_list()
        [40, 1000000.0]
        >>> sorted(result.events["kind"].unique())
        ['missing_day', 'not_quoted', 'split']
        >>> explained = result.attribution.sum(axis=1).sum()
        >>> bool(abs(explained - result.profit.iloc[-1]) < 1e-6)
        True

        A strategy of one's own is a function.

        >>> def protect(view):
        ...     if not view.units:
        ...         return view.underlying(100.0)
        ...     if view.has_options:
        ...         return None
        ...     expiry = view.expiry(days=30)
        ...     return view.put(expiry, view.strike(expiry, moneyness=0.95))
        >>> protected = backtest(bundled_history(), protect)
        >>> protected.trades["option_type"].head(2).to_list()
        ['underlying', 'put']
    """
    setup = setup_of(
        strategy,
        costs=costs,
        settlement=settlement,
        marks=marks,
        capital=capital,
        hedge=hedge,
        rate=rate,
        dividend_yield=dividend_yield,
        multiplier=multiplier,
    )
    name = strategy_name(strategy)
    dates = dates_between(history, start, end)
    found = run(history, {name: setup}, surfaces, dates, progress=progress)
    return found[name]


def setup_of(
    strategy: Strategy,
    *,
    costs: Costs | None = None,
    settlement: Settlement | pd.DataFrame | None = None,
    **terms: Any,
) -> Setup:
    """The setup of a strategy on terms as `backtest` takes them."""
    if settlement is None or isinstance(settlement, pd.DataFrame):
        settlement = Settlement(settlement)
    costs = Costs() if costs is None else costs
    return Setup(strategy, costs=costs, settlement=settlement, **terms)


def strategy_name(strategy: Strategy) -> str:
    """What to call a strategy in messages and reports."""
    return getattr(strategy, "__name__", None) or type(strategy).__name__


def dates_between(history: History, start: Any, end: Any) -> pd.DatetimeIndex:
    """Dates of a history from `start` to `end`.

    Raises:
        BacktestError: If there are none.
    """
    if not hasattr(history, "dates"):
        raise TypeError(
            "a backtest runs on a history, such as `ChainHistory(folder)` or "
            f"`bundled_history()`, not on {type(history).__name__}"
        )
    dates = pd.DatetimeIndex(history.dates).sort_values()
    if start is not None:
        dates = dates[dates >= as_date(start)]
    if end is not None:
        dates = dates[dates <= as_date(end)]
    if not len(dates):
        raise BacktestError(
            f"the history has no dates from {start or 'its start'} to "
            f"{end or 'its end'}"
        )
    return dates


def run(
    history: History,
    setups: Mapping[str, Setup],
    surfaces: Surfaces | None,
    dates: pd.DatetimeIndex,
    *,
    progress: bool | None = None,
    collect: bool = False,
) -> SweepResult:
    """Run several strategies side by side, each with its own account.

    Args:
        history: Read once, date by date.
        setups: By name.
        surfaces: By date, or None.
        dates: Which to go through.
        progress: Whether to show a bar.
        collect: Whether a failing strategy is left out with its reason, instead of
            raising.
    """
    accounts = {name: _account(setup, surfaces) for name, setup in setups.items()}
    failures: dict[str, str] = {}
    facts = Facts(history, dates)
    unreadable: list[Event] = []
    with one_thread():
        for date in with_progress(dates, "backtest", len(dates), progress):
            try:
                chain = history[date]
                day = Day(
                    chain,
                    date,
                    facts.price_on(date),
                    surfaces,
                    facts.last_price(date),
                )
            except QuoteError as error:
                reason = str(error)
                what = f"{date:%Y-%m-%d}"
                unreadable.append(Event(date, "unreadable_day", what, reason))
                continue
            facts.see(day)
            for name, account in accounts.items():
                if name in failures:
                    continue
                market = account.market_on(day)
                view = partial(MarketView, market, account, facts, history, surfaces)
                try:
                    _one_date(name, setups[name], account, market, facts, view)
                except (BacktestError, LookAheadError) as error:
                    if not collect:
                        raise
                    failures[name] = str(error)
    done = {}
    for name, account in accounts.items():
        if name in failures:
            continue
        if not account.days:
            first = unreadable[0].reason
            raise BacktestError(f"no date of the history can be read: {first}")
        account.events.extend([*facts.missing, *unreadable])
        account.note_unsettled(dates[-1], utc_time(dates[-1])[0])
        done[name] = result_of(name, setups[name].capital, account)
    return SweepResult(done, failures)


def _account(setup: Setup, surfaces: Surfaces | None) -> Account:
    """The account that a strategy begins with."""
    return Account(
        capital=setup.capital,
        costs=setup.costs,
        settlement=setup.settlement,
        marks=setup.marks or ("mid" if surfaces is None else "surface"),
        rate=setup.rate,
        dividend_yield=setup.dividend_yield,
        multiplier=setup.multiplier,
    )


def _one_date(
    name: str,
    setup: Setup,
    account: Account,
    market: Market,
    facts: Facts,
    view: Callable[[], MarketView],
) -> None:
    """One date of one strategy."""
    account.begin(
        market,
        splits=facts.splits_until(market.date),
        settlement_prices=facts.settlement_prices,
        underlying_prices=facts.prices_until(market.date),
    )
    if market.slices:
        orders = _orders(f"{market.date:%Y-%m-%d}, {name}", setup.strategy, view)
        OrderFiller(market, account, name).fill(orders)
    if setup.hedge is not None:
        account.hedge(market, setup.hedge, day=len(account.days))
    account.end(market)


def _orders(
    where: str, strategy: Strategy, view: Callable[[], MarketView]
) -> list[Order]:
    """What a strategy orders; an error of its own has the date and its name."""
    try:
        return orders_in(strategy(view()))
    except LookAheadError:
        raise
    except BacktestError as error:
        raise BacktestError(f"{where}: {error}") from error
    except Exception as error:  # whatever a user's function raises
        raise BacktestError(
            f"{where}: the strategy raised {type(error).__name__}: {error}"
        ) from error

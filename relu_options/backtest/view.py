"""What a strategy sees on a date: the market up to then, and its own account.

A view has figures and copies of its own, and asks the engine by functions for the rest.
What the engine reads is no attribute of anything that a strategy is handed, so that
whatever it writes to changes neither the market, nor the account, nor the strategies
beside it, and sets no date.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import cached_property
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeVar

import numpy as np
import pandas as pd

from relu_options.backtest.account import Account
from relu_options.backtest.contracts import Contract, Mark, Slice, slice_name
from relu_options.backtest.day import History, SliceQuotes, Terms, slices_named
from relu_options.backtest.facts import Facts
from relu_options.backtest.market import Market
from relu_options.backtest.orders import option_order, underlying_order
from relu_options.errors import BacktestError, LookAheadError
from relu_options.market_data.clocks import as_date, years_between

if TYPE_CHECKING:
    from collections.abc import Mapping

    from relu_options.curves import PriceCurve
    from relu_options.market_data import OptionChain
    from relu_options.portfolio import StrikePortfolio
    from relu_options.surfaces import Surface


Owned = TypeVar("Owned")


def own_copy(value: Owned) -> Owned:
    """A copy that shares nothing which can be written to, labels of tables included.

    Labels of tables that are in sets, or in objects without a `__dict__` (of slots),
    are not reached: these share them.

    Examples:
        >>> table = pd.DataFrame({"strike": [90.0, 110.0]}, index=[4, 7])
        >>> np.shares_memory(own_copy(table).index.values, table.index.values)
        False
    """
    copied = deepcopy(value)
    _own_labels(copied, set())
    return copied


def _own_labels(value: Any, seen: set[int]) -> None:
    """Give the tables in a copy labels of their own: pandas copies only their data."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, pd.DataFrame | pd.Series):
        value.index = value.index.copy(deep=True)
        if isinstance(value, pd.DataFrame):
            value.columns = value.columns.copy(deep=True)
    elif isinstance(value, list | tuple):
        for one in value:
            _own_labels(one, seen)
    elif isinstance(value, dict):
        _own_labels(list(value.values()), seen)
    elif not isinstance(value, type | FunctionType | ModuleType):
        _own_labels(list(getattr(value, "__dict__", {}).values()), seen)


class _Position(NamedTuple):
    """An option held, its quantity in contracts, and its mark."""

    contract: Contract
    quantity: float
    mark: Mark


class _Today(NamedTuple):
    """Date, quote time in UTC, price of the underlying and slices of the chain."""

    date: pd.Timestamp
    time: pd.Timestamp
    spot: float
    slices: tuple[Slice, ...]


class _Account(NamedTuple):
    """An account as it is when the strategy is called."""

    cash: float
    equity: float
    units: float
    options: tuple[_Position, ...]
    has_traded: bool
    last_order: pd.Timestamp | None

    @staticmethod
    def of(account: Account) -> _Account:
        """A copy of what an account holds."""
        options = tuple(
            _Position(replace(one), quantity, account.marks[one])
            for one, quantity in account.quantities.items()
        )
        return _Account(
            account.cash,
            account.equity,
            account.units,
            options,
            bool(account.trades),
            account.last_order,
        )


class _Engine(NamedTuple):
    """What a view asks: functions of the engine, whose answers are the view's own."""

    chain_on: Callable[[Any], OptionChain]
    surface_on: Callable[[Any], Surface | None]
    dates: Callable[[], pd.DatetimeIndex]
    prices: Callable[[], pd.Series]
    splits: Callable[[], pd.Series]
    settled: Callable[[], pd.DataFrame]
    slice_chain: Callable[[Slice], OptionChain]
    quotes: Callable[[Slice], SliceQuotes]
    expires: Callable[[Slice], pd.Timestamp]
    multiplier: Callable[[Slice], float]
    terms: Callable[[Slice], Terms]
    curve: Callable[[Slice], PriceCurve | None]
    deltas: Callable[[Slice, Sequence[float], bool], np.ndarray]


def _engine(
    market: Market,
    facts: Facts,
    history: History,
    surfaces: Mapping[pd.Timestamp, Surface] | None,
) -> _Engine:
    """The functions that answer a view: closures, so that what they read is hidden."""
    day = market.day

    def past(date: Any) -> pd.Timestamp:
        """A date, unless it is a later one; an instance of no class of the asker's."""
        asked = pd.Timestamp(as_date(date).to_datetime64())
        if asked > day.date:
            raise LookAheadError(
                f"asked for {asked:%Y-%m-%d} on {day.date:%Y-%m-%d}: a strategy sees "
                "the past and the present only"
            )
        return asked

    def chain_on(date: Any) -> OptionChain:
        asked = past(date)
        return own_copy(day.chain if asked == day.date else history[asked])

    def surface_on(date: Any) -> Surface | None:
        asked = past(date)
        if asked == day.date:
            return own_copy(market.surface)
        return None if surfaces is None else own_copy(surfaces.get(asked))

    def deltas(key: Slice, strikes: Sequence[float], is_call: bool) -> np.ndarray:
        contracts = [market.contract(key, one, is_call=is_call) for one in strikes]
        marks, _ = market.value(contracts, {}, "mid")
        return np.array([mark.delta for mark in marks])

    def expires(key: Slice) -> pd.Timestamp:
        return day.quotes(key).expires

    return _Engine(
        chain_on=chain_on,
        surface_on=surface_on,
        dates=lambda: own_copy(facts.dates_until(day.date)),
        prices=lambda: own_copy(facts.prices_until(day.date)),
        splits=lambda: own_copy(facts.splits_until(day.date)),
        settled=lambda: facts.settled_until(day.time),
        slice_chain=lambda key: own_copy(day.slice_chain(key)),
        quotes=lambda key: own_copy(day.quotes(key)),
        expires=expires,
        multiplier=lambda key: market.multiplier(key),
        terms=lambda key: market.terms(key, expires(key)),
        curve=lambda key: own_copy(market.curve(key, expires(key))),
        deltas=deltas,
    )


class MarketView:
    """The market as it is known on one date, and the account of the strategy.

    `view[date]` is the chain of an earlier date; a later one cannot be asked for.
    Expiries are named by their labels, "2019-06-21 PM". Tables, chains, curves and
    surfaces are the strategy's own copies, and a view has no attributes to set.

    Examples:
        A strategy is a function of the view. This one sells a strangle of a month when
        it holds none.

        >>> def strangle(view):
        ...     if view.has_options:
        ...         return None
        ...     expiry = view.expiry(days=30)
        ...     low = view.strike(expiry, delta=-0.25)
        ...     high = view.strike(expiry, delta=0.25)
        ...     return [view.put(expiry, low, -1), view.call(expiry, high, -1)]
    """

    _today: _Today
    _account: _Account
    _engine: _Engine

    def __init__(
        self,
        market: Market,
        account: Account,
        facts: Facts,
        history: History,
        surfaces: Mapping[pd.Timestamp, Surface] | None,
    ):
        vars(self).update(
            _today=_Today(market.date, market.time, market.spot, market.slices),
            _account=_Account.of(account),
            _engine=_engine(market, facts, history, surfaces),
        )

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(
            f"{name!r} of a view cannot be set; a strategy acts by the orders that it "
            "returns"
        )

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{name!r} of a view cannot be deleted")

    # The past

    def __getitem__(self, date: Any) -> OptionChain:
        """The chain of this or of an earlier date.

        Raises:
            LookAheadError: If the date is later.
            KeyError: If it is not in the history.
        """
        return self._engine.chain_on(date)

    def surface_on(self, date: Any) -> Surface | None:
        """The fitted surface of this or of an earlier date; None if it has none.

        Raises:
            LookAheadError: If the date is later.
        """
        return self._engine.surface_on(date)

    @property
    def dates(self) -> pd.DatetimeIndex:
        """Dates of the history, up to this one."""
        return self._engine.dates()

    @property
    def underlying_prices(self) -> pd.Series:
        """Prices of the underlying by date, up to this one."""
        return self._engine.prices()

    @property
    def splits(self) -> pd.Series:
        """New shares per old one by date, up to this one."""
        return self._engine.splits()

    @property
    def settlement_prices(self) -> pd.DataFrame:
        """Of the expiries that have passed: columns `expiry`, `settlement`, `price`."""
        return self._engine.settled()

    # The present

    @property
    def date(self) -> pd.Timestamp:
        """On which the strategy decides, at the quotes of which it trades."""
        return self._today.date

    @property
    def time(self) -> pd.Timestamp:
        """When the quotes were taken, in UTC."""
        return self._today.time

    @property
    def spot(self) -> float:
        """Price of the underlying, in currency units."""
        return self._today.spot

    @cached_property
    def chain(self) -> OptionChain:
        """The chain of the date."""
        return self._engine.chain_on(self.date)

    @cached_property
    def surface(self) -> Surface | None:
        """The fitted surface of the date; fitted now, if the backtest was given none.

        None if it could not be fitted, which is an event.
        """
        return self._engine.surface_on(self.date)

    @property
    def expiries(self) -> pd.DataFrame:
        """Columns `expiry`, `settlement` and `days` from now, by label."""
        keys = self._today.slices
        days = [self._days(key) for key in keys]
        table = pd.DataFrame(keys, columns=["expiry", "settlement"])
        table.index = pd.Index([slice_name(key) for key in keys], name="label")
        return table.assign(days=days)

    def expiry(self, *, days: float, least: float = 0.0) -> str:
        """Label of the expiry that is nearest to a number of days from now.

        Args:
            days: Wanted.
            least: No fewer than this, as long as there is such an expiry.

        Raises:
            ValueError: If a number is not finite.
        """
        if not (np.isfinite(days) and np.isfinite(least)):
            raise ValueError(f"days and least must be finite, not {days} and {least}")
        keys = [key for key in self._today.slices if self._days(key) >= least]
        keys = keys or list(self._today.slices)
        best = min(keys, key=lambda key: (abs(self._days(key) - days), key))
        return slice_name(best)

    def days_to_expiry(self, expiry: str) -> float:
        """Days from now to an expiry."""
        return self._days(self._slice(expiry))

    def quotes(self, expiry: str) -> pd.DataFrame:
        """Columns `strike`, `option_type`, `bid`, `ask` and `mid`, puts first."""
        found = self._quotes(expiry)
        return pd.DataFrame(
            {
                "strike": np.abs(found.keys),
                "option_type": np.where(found.keys > 0.0, "call", "put"),
                "bid": found.bid,
                "ask": found.ask,
                "mid": 0.5 * (found.bid + found.ask),
            }
        )

    def slice_chain(self, expiry: str) -> OptionChain:
        """The chain of one expiry, as a fit or a replication takes it."""
        return self._engine.slice_chain(self._slice(expiry))

    def forward(self, expiry: str) -> float:
        """Forward price, of the surface or by put-call parity."""
        return self._engine.terms(self._slice(expiry)).forward

    def curve(self, expiry: str) -> PriceCurve | None:
        """Price curve of an expiry on the surface of the date; None without one."""
        return self._engine.curve(self._slice(expiry))

    def strikes(self, expiry: str) -> np.ndarray:
        """Strikes with both a call and a put; of either, if there are none."""
        quotes = self._quotes(expiry)
        calls, puts = (quotes.strikes(is_call=kind) for kind in (True, False))
        both = np.intersect1d(calls, puts)
        return both if len(both) else np.union1d(calls, puts)

    def strike(
        self, expiry: str, *, moneyness: float | None = None, delta: float | None = None
    ) -> float:
        """A listed strike: nearest to a moneyness, or to a delta.

        Args:
            expiry: Label.
            moneyness: Strike over forward.
            delta: Of one option in the spot, by the Black-Scholes formula at its own
                volatility: 0.25 for a call, -0.25 for a put.

        Raises:
            ValueError: Unless one of the two is given, the moneyness positive, or the
                delta between -1 and 1 and not zero.
        """
        if (moneyness is None) == (delta is None):
            raise ValueError("a strike is found by `moneyness=` or by `delta=`")
        if moneyness is not None:
            if not 0.0 < moneyness < np.inf:
                raise ValueError(f"moneyness must be positive, not {moneyness!r}")
            listed = self.strikes(expiry)
            distance = np.abs(listed - moneyness * self.forward(expiry))
        else:
            if delta is None or not 0.0 < abs(delta) < 1.0:
                raise ValueError(f"delta must be between -1 and 1, not {delta!r}")
            is_call = delta > 0.0
            listed = self._quotes(expiry).strikes(is_call=is_call)
            deltas = self._engine.deltas(self._slice(expiry), listed.tolist(), is_call)
            distance = np.abs(deltas - delta)
        if not len(listed):
            raise BacktestError(f"{expiry} has no quoted strike of that type")
        return float(listed[np.argmin(distance)])

    # Orders

    def call(self, expiry: str, strike: Any, quantity: Any = 1.0) -> StrikePortfolio:
        """An order for calls, in contracts; sold if the quantity is negative."""
        return self.order(expiry, strike, True, quantity)

    def put(self, expiry: str, strike: Any, quantity: Any = 1.0) -> StrikePortfolio:
        """An order for puts, in contracts; sold if the quantity is negative."""
        return self.order(expiry, strike, False, quantity)

    def order(
        self, expiry: str, strike: Any, is_call: Any, quantity: Any
    ) -> StrikePortfolio:
        """An order for options of one expiry, filled together; arguments broadcast."""
        multiplier = self._engine.multiplier(self._slice(expiry))
        return option_order(expiry, strike, is_call, quantity, multiplier)

    def underlying(self, units: float) -> StrikePortfolio:
        """An order for units of the underlying."""
        return underlying_order(units)

    def close(self, expiry: str | None = None) -> list[StrikePortfolio]:
        """Orders that close all listed options, or those of one expiry.

        Args:
            expiry: A label; "2019-06-21" closes those of both settlements. None for
                all.
        """
        held: dict[Slice, list[_Position]] = {}
        for one in self._account.options:
            if one.contract.listed:
                held.setdefault(one.contract.slice, []).append(one)
        closed = list(held) if expiry is None else slices_named(held, expiry)
        return [
            option_order(
                slice_name(key),
                [one.contract.strike for one in held[key]],
                [one.contract.is_call for one in held[key]],
                [-one.quantity for one in held[key]],
                held[key][0].contract.multiplier,
            )
            for key in closed
        ]

    # The account

    @property
    def cash(self) -> float:
        """Of the account, in currency units."""
        return self._account.cash

    @property
    def equity(self) -> float:
        """Cash and market value, in currency units."""
        return self._account.equity

    @property
    def units(self) -> float:
        """Units of the underlying held."""
        return self._account.units

    @property
    def has_options(self) -> bool:
        """Whether the account holds any option."""
        return bool(self._account.options)

    @property
    def positions(self) -> pd.DataFrame:
        """Options held, one row each: contract, quantity, mark and Greeks per unit.

        Columns `expiry` (label), `strike`, `option_type`, `listed`, `days`, `quantity`,
        `multiplier`, `price`, `volatility`, `delta`, `gamma`, `vega`, `theta`.
        """
        rows = [
            (
                slice_name(one.slice),
                one.strike,
                one.option_type,
                one.listed,
                365.0 * one.years(self.time),
                quantity,
                one.multiplier,
                *mark,
            )
            for one, quantity, mark in self._account.options
        ]
        names = [
            "expiry",
            "strike",
            "option_type",
            "listed",
            "days",
            "quantity",
            "multiplier",
            *Mark._fields,
        ]
        return pd.DataFrame(rows, columns=names)

    @property
    def has_traded(self) -> bool:
        """Whether the account has traded before this date."""
        return self._account.has_traded

    @property
    def last_order(self) -> pd.Timestamp | None:
        """Date of the last order that was filled, hedges aside; None before any."""
        return self._account.last_order

    # Names

    def _slice(self, expiry: str) -> Slice:
        """The slice of a label, or of a date that has one."""
        keys = self._today.slices
        found = slices_named(keys, expiry)
        if len(found) != 1:
            known = ", ".join(slice_name(key) for key in (found or keys))
            raise KeyError(f"no one expiry {expiry!r}; choose of {known}")
        return found[0]

    def _quotes(self, expiry: str) -> SliceQuotes:
        return self._engine.quotes(self._slice(expiry))

    def _days(self, key: Slice) -> float:
        return 365.0 * years_between(self.time, self._engine.expires(key))

    def __repr__(self) -> str:
        return (
            f"MarketView({self.date:%Y-%m-%d}: {self.chain.underlying or 'underlying'} "
            f"{self.spot:.10g}, {len(self._today.slices)} expiries; equity "
            f"{self.equity:.10g}, {len(self._account.options)} option positions)"
        )

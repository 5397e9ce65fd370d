"""What a strategy sees on a date: the market up to then, and its own account."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from relu_options.backtest.account import Account
from relu_options.backtest.contracts import Contract, Mark, Slice, slice_name
from relu_options.backtest.facts import Facts
from relu_options.backtest.market import History, Market, SliceQuotes
from relu_options.backtest.orders import option_order, underlying_order
from relu_options.errors import BacktestError, LookAheadError
from relu_options.market_data.clocks import as_date, years_between

if TYPE_CHECKING:
    from collections.abc import Mapping

    from relu_options.curves import PriceCurve
    from relu_options.market_data import OptionChain
    from relu_options.portfolio import StrikePortfolio
    from relu_options.surfaces import Surface


class MarketView:
    """The market as it is known on one date, and the account of the strategy.

    `view[date]` is the chain of an earlier date; a later one cannot be asked for.
    Expiries are named by their labels, "2019-06-21 PM".

    Attributes:
        date: On which the strategy decides, at the quotes of which it trades.
        chain: The chain of the date.
        spot: Price of the underlying, in currency units.
        cash: Of the account, in currency units.
        equity: Cash and market value.
        units: Units of the underlying held.

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

    def __init__(
        self,
        market: Market,
        account: Account,
        facts: Facts,
        history: History,
        surfaces: Mapping[pd.Timestamp, Surface] | None,
    ):
        self.date = market.date
        self.time = market.time
        self.chain = market.chain
        self.spot = market.spot
        self.cash = account.cash
        self.units = account.units
        self.equity = account.equity
        self._market = market
        self._account = account
        self._facts = facts
        self._history = history
        self._surfaces = surfaces

    # The past

    def _past(self, date: Any) -> pd.Timestamp:
        """A date, unless it is a later one."""
        day = as_date(date)
        if day > self.date:
            raise LookAheadError(
                f"asked for {day:%Y-%m-%d} on {self.date:%Y-%m-%d}: a strategy sees "
                "the past and the present only"
            )
        return day

    def __getitem__(self, date: Any) -> OptionChain:
        """The chain of this or of an earlier date.

        Raises:
            LookAheadError: If the date is later.
            KeyError: If it is not in the history.
        """
        day = self._past(date)
        return self.chain if day == self.date else self._history[day]

    def surface_on(self, date: Any) -> Surface | None:
        """The fitted surface of this or of an earlier date; None if it has none.

        Raises:
            LookAheadError: If the date is later.
        """
        day = self._past(date)
        if day == self.date:
            return self.surface
        return None if self._surfaces is None else self._surfaces.get(day)

    @property
    def dates(self) -> pd.DatetimeIndex:
        """Dates of the history, up to this one."""
        return self._facts.dates_until(self.date)

    @property
    def underlying_prices(self) -> pd.Series:
        """Prices of the underlying by date, up to this one."""
        return self._facts.prices_until(self.date)

    @property
    def splits(self) -> pd.Series:
        """New shares per old one by date, up to this one."""
        return self._facts.splits_until(self.date)

    @property
    def settlement_prices(self) -> pd.DataFrame:
        """Of the expiries that have passed: columns `expiry`, `settlement`, `price`."""
        return self._facts.settled_until(self.time)

    # The present

    @property
    def surface(self) -> Surface | None:
        """The fitted surface of the date; fitted now, if the backtest was given none.

        None if it could not be fitted, which is an event.
        """
        return self._market.surface

    @property
    def expiries(self) -> pd.DataFrame:
        """Columns `expiry`, `settlement` and `days` from now, by label."""
        keys = self._market.slices
        days = [self._days(key) for key in keys]
        table = pd.DataFrame(keys, columns=["expiry", "settlement"])
        table.index = pd.Index([slice_name(key) for key in keys], name="label")
        return table.assign(days=days)

    def expiry(self, *, days: float, least: float = 0.0) -> str:
        """Label of the expiry that is nearest to a number of days from now.

        Args:
            days: Wanted.
            least: No fewer than this, as long as there is such an expiry.
        """
        keys = [key for key in self._market.slices if self._days(key) >= least]
        keys = keys or list(self._market.slices)
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
        return self.chain[self._slice(expiry)]

    def forward(self, expiry: str) -> float:
        """Forward price, of the surface or by put-call parity."""
        key = self._slice(expiry)
        return self._market.terms(key, self._quotes(expiry).expires).forward

    def curve(self, expiry: str) -> PriceCurve | None:
        """Price curve of an expiry on the surface of the date; None without one."""
        key = self._slice(expiry)
        return self._market.curve(key, self._quotes(expiry).expires)

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
            ValueError: Unless one of the two is given, and the delta is between -1 and
                1 and not zero.
        """
        quotes = self._quotes(expiry)
        if (moneyness is None) == (delta is None):
            raise ValueError("a strike is found by `moneyness=` or by `delta=`")
        if delta is None:
            listed = self.strikes(expiry)
            distance = np.abs(listed - (moneyness or 0.0) * self.forward(expiry))
        else:
            if not 0.0 < abs(delta) < 1.0:
                raise ValueError(f"delta must be between -1 and 1, not {delta!r}")
            listed = quotes.strikes(is_call=delta > 0.0)
            contracts = [
                self._contract(expiry, strike, is_call=delta > 0.0) for strike in listed
            ]
            marks, _ = self._market.value(contracts, {}, "mid")
            distance = np.abs(np.array([mark.delta for mark in marks]) - delta)
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
        multiplier = self._quotes(expiry).multiplier
        return option_order(expiry, strike, is_call, quantity, multiplier)

    def underlying(self, units: float) -> StrikePortfolio:
        """An order for units of the underlying."""
        return underlying_order(units)

    def close(self, expiry: str | None = None) -> list[StrikePortfolio]:
        """Orders that close all listed options, or those of one expiry."""
        legs: dict[tuple[Slice, float], list[tuple[Contract, float]]] = {}
        for one, quantity in self._account.quantities.items():
            if one.listed and expiry in (None, slice_name(one.slice)):
                legs.setdefault((one.slice, one.multiplier), []).append((one, quantity))
        return [
            option_order(
                slice_name(key),
                [one.strike for one, _ in held],
                [one.is_call for one, _ in held],
                [-quantity for _, quantity in held],
                multiplier,
            )
            for (key, multiplier), held in legs.items()
        ]

    # The account

    @property
    def has_options(self) -> bool:
        """Whether the account holds any option."""
        return bool(self._account.quantities)

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
                *self._account.marks[one],
            )
            for one, quantity in self._account.quantities.items()
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
        return bool(self._account.trades)

    @property
    def last_order(self) -> pd.Timestamp | None:
        """Date of the last order that was filled, hedges aside; None before any."""
        for trade in reversed(self._account.trades):
            if trade.kind in ("order", "claim"):
                return trade.date
        return None

    # Names

    def _slice(self, expiry: str) -> Slice:
        """The slice of a label, or of a date that has one."""
        found = self._market.slices_named(expiry)
        if len(found) != 1:
            known = ", ".join(slice_name(key) for key in (found or self._market.slices))
            raise KeyError(f"no one expiry {expiry!r}; choose of {known}")
        return found[0]

    def _quotes(self, expiry: str) -> SliceQuotes:
        return self._market.quotes_of(self._slice(expiry))

    def _days(self, key: Slice) -> float:
        return 365.0 * years_between(self.time, self._market.quotes_of(key).expires)

    def _contract(self, expiry: str, strike: float, *, is_call: bool) -> Contract:
        key, quotes = self._slice(expiry), self._quotes(expiry)
        return Contract(*key, strike, is_call, quotes.multiplier, quotes.expires)

    def __repr__(self) -> str:
        return (
            f"MarketView({self.date:%Y-%m-%d}: {self.chain.underlying or 'underlying'} "
            f"{self.spot:.10g}, {len(self._market.slices)} expiries; equity "
            f"{self.equity:.10g}, {len(self._account.quantities)} option positions)"
        )

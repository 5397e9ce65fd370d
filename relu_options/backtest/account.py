r"""An account: cash, options and the underlying, and where every change comes from.

Equity is cash and market value. From one date to the next it changes by

$$
\underbrace{\text{interest} + \text{dividends}}_{\text{carry}}
+ \underbrace{n \, \Delta S}_{\text{underlying}}
+ \sum_i q_i \Big( \delta_i \Delta S + \tfrac12 \gamma_i \Delta S^2
+ \nu_i \Delta \sigma_i + \theta_i \Delta t + \varepsilon_i \Big)
- \text{spread} - \text{fees},
$$

with the Greeks of the date before and $\varepsilon$ what they leave unexplained.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from relu_options.backtest.contracts import (
    Contract,
    Event,
    Mark,
    Slice,
    Trade,
    slice_name,
)
from relu_options.backtest.day import Day, Terms
from relu_options.backtest.market import Market, Marks
from relu_options.backtest.settlement import (
    Settlement,
    price_table,
    settlement_price,
)
from relu_options.backtest.terms import Costs, DeltaHedge
from relu_options.errors import BacktestError
from relu_options.market_data.clocks import years_between

_WHOLE = 0.05  # by how much the underlying may have moved on the day of a split

ATTRIBUTION = (
    "interest",
    "dividends",
    "underlying",
    "delta",
    "gamma",
    "vega",
    "theta",
    "residual",
    "spread",
    "fees",
)
"""Where a change of equity comes from; the columns of `BacktestResult.attribution`."""

GREEKS = ("delta", "gamma", "vega", "theta")
DUST = 1e-12  # of a quantity: what rounding leaves of a position that was closed


class Account:
    """What one strategy owns, from date to date.

    Args:
        capital: Cash to start with, in currency units.
        costs: What trading costs.
        settlement: Where settlement prices come from.
        marks: "surface" or "mid".
        rate: Interest on cash, continuous, per year; "curve" takes that of the chain.
        dividend_yield: Of the underlying held, likewise.
        multiplier: Units of the underlying in a contract; None for those of the chains.
    """

    def __init__(
        self,
        *,
        capital: float,
        costs: Costs,
        settlement: Settlement,
        marks: Marks,
        rate: float | Literal["curve"],
        dividend_yield: float | Literal["curve"],
        multiplier: float | None = None,
    ):
        self.cash = capital
        self.units = 0.0
        self.quantities: dict[Contract, float] = {}
        self.marks: dict[Contract, Mark] = {}
        self.trades: list[Trade] = []
        self.events: list[Event] = []
        self.days: list[dict[str, Any]] = []
        self.positions: list[tuple] = []
        self.costs = costs
        self._settlement = settlement
        self._own_prices = price_table(settlement.prices)
        self.kind_of_marks: Marks = marks
        self._terms = rate, dividend_yield
        self._multiplier = multiplier
        self._carry = 0.0, 0.0
        self._flows = _no_flows()
        self._spot = np.nan
        self._time: pd.Timestamp | None = None
        self._date: pd.Timestamp | None = None
        self._unquoted: set[Contract] = set()
        self._exercise_noted: set[Contract] = set()
        self._carries: dict[Slice, tuple[float, float]] = {}
        self.last_order: pd.Timestamp | None = None

    @property
    def options_value(self) -> float:
        """Market value of the options, in currency units."""
        return sum(
            quantity * one.multiplier * self.marks[one].price
            for one, quantity in self.quantities.items()
        )

    @property
    def underlying_value(self) -> float:
        """Market value of the units of the underlying."""
        return self.units * self._spot if self.units else 0.0

    @property
    def equity(self) -> float:
        """Cash and market value."""
        return self.cash + self.options_value + self.underlying_value

    def market_on(self, day: Day) -> Market:
        """A date as this account sees it."""
        held = {one.slice: one.multiplier for one in self.quantities if one.listed}
        return Market(day, self._carries, held, self._multiplier)

    def begin(
        self,
        market: Market,
        *,
        splits: pd.Series,
        settlement_prices: dict,
        underlying_prices: pd.Series,
    ) -> None:
        """Carry the account to a date: interest, splits, terms, expiries, new marks.

        Args:
            market: The date.
            splits: Up to this date.
            settlement_prices: Of the history, by slice.
            underlying_prices: Up to this date.

        Raises:
            BacktestError: If the underlying has split, and the history does not say so.
        """
        if self._time is not None:
            self._accrue(years_between(self._time, market.time))
        prices = {
            "settlement": self._settlement,
            "table": settlement_prices | self._own_prices,
            "underlying_prices": underlying_prices,
            "splits": splits,
        }
        stated = False
        for day, ratio in zip(pd.DatetimeIndex(splits.index), splits, strict=True):
            if self._date is not None and day > self._date:
                self._settle(market, self._expired(market, day), prices)
                self._split(market.date, day, float(ratio))
                stated = True
        self._restate(market)
        self._settle(market, self._expired(market), prices)
        if not stated:
            self._refuse_split_unstated(market)
        self._revalue(market)
        self._time, self._date, self._spot = market.time, market.date, market.spot
        carry = self._carry  # goes on where nothing is quoted
        if "curve" in self._terms and market.slices:
            carry = market.carry
        self._carry = tuple(
            known if given == "curve" else given
            for given, known in zip(self._terms, carry, strict=True)
        )

    def _accrue(self, years: float) -> None:
        """Interest on cash and dividends on the underlying, paid in cash."""
        rate, dividend_yield = self._carry
        interest = float(self.cash * np.expm1(rate * years))
        dividends = float(self.underlying_value * np.expm1(dividend_yield * years))
        self.cash += interest + dividends
        self._flows["interest"] += interest
        self._flows["dividends"] += dividends

    def _split(self, date: pd.Timestamp, day: Any, ratio: float) -> None:
        """Turn every old share into `ratio` new ones; the value stays."""
        if not self.quantities and not self.units:
            return
        self.events.append(
            Event(
                date,
                "split",
                "underlying",
                f"{ratio:g} new for 1 on {day:%Y-%m-%d}: strikes divided, quantities "
                "multiplied",
            )
        )
        self.units *= ratio
        self._spot /= ratio
        quantities, marks = {}, {}
        for one, quantity in self.quantities.items():
            new = one.adjusted(ratio)
            quantities[new] = quantities.get(new, 0.0) + ratio * quantity
            marks[new] = self.marks[one].after_split(ratio)
        self.quantities, self.marks = quantities, marks

    def _refuse_split_unstated(self, market: Market) -> None:
        """Raise if prices say that a split has passed between two dates.

        The underlying moves by a whole factor, and no strike held is listed any more.
        """
        held = [
            one for one in self.quantities if one.listed and one.slice in market.slices
        ]
        if not held or not (self._spot > 0.0 and market.spot > 0.0):
            return
        ratio = self._spot / market.spot
        factor = max(ratio, 1.0 / ratio)
        whole = round(factor)
        if whole < 2 or abs(factor - whole) > _WHOLE * whole:
            return
        if any(market.day.lists(one) for one in held):
            return
        new, kind = (whole, f"{whole}:1") if ratio > 1.0 else (1 / whole, f"1:{whole}")
        raise BacktestError(
            f"{market.date:%Y-%m-%d}: the underlying goes from {self._spot:.6g} to "
            f"{market.spot:.6g}, and none of {len(held)} strikes held is listed: it "
            f"seems to be a {kind} split, which the history does not state; say so "
            f"with `history.write_splits({{'{market.date:%Y-%m-%d}': {new:.6g}}})`, or "
            "give 1 if it is none"
        )

    def _restate(self, market: Market) -> None:
        """State positions in the multiplier and expiry time that their chain has now.

        The units of the underlying are kept, and so is the value: of 10 contracts of
        100 units 1,000 of one are left, which is what the chain calls them and what
        closes them. A contract that delivers more than it did is a split.
        """
        quantities: dict[Contract, float] = {}
        changed: dict[tuple[Slice, str], None] = {}
        for one, quantity in self.quantities.items():
            new = one
            if one.slice in market.slices:
                new = market.contract(one.slice, one.strike, is_call=one.is_call)
                kept = one.multiplier if not one.listed else new.multiplier
                new = replace(new, listed=one.listed, multiplier=kept)
            if new.multiplier != one.multiplier:
                quantity *= one.multiplier / new.multiplier
                reason = (
                    f"multiplier {new.multiplier:.10g} where it was "
                    f"{one.multiplier:.10g}: quantities restated, units kept"
                )
                changed[one.slice, reason] = None
            if new.expires != one.expires:
                reason = f"expires at {new.expires} rather than {one.expires}"
                changed[one.slice, reason] = None
            quantities[new] = quantity
        self.quantities = quantities
        for key, reason in changed:
            name = slice_name(key)
            self.events.append(Event(market.date, "contract_changed", name, reason))

    def _expired(self, market: Market, day: Any = None) -> list[Contract]:
        """Contracts whose payoff is fixed by now; of a `day`, those before it."""
        return [
            one
            for one in self.quantities
            if one.expires <= market.time and (day is None or one.expiry < day)
        ]

    def _settle(self, market: Market, expired: list[Contract], prices: dict) -> None:
        """Pay the intrinsic value of expired contracts."""
        noted = set()
        for one in expired:
            spot, reason = settlement_price(one.slice, one.expires, **prices)
            if one.slice not in noted:
                noted.add(one.slice)
                self._note_settlement(market, one, reason)
            payoff = one.payoff(spot)
            last = self.marks[one]
            paid = Mark(payoff, last.volatility, *[np.nan] * 4)
            years = one.years(self._time) if self._time is not None else 0.0
            self._explain([one], [paid], spot - self._spot, years)
            self._book(
                Trade(market.date, "expiry", one, -self.quantities[one], payoff, payoff)
            )
            del self.marks[one]

    def _note_settlement(self, market: Market, one: Contract, reason: str) -> None:
        """Say where a settlement price is from, and if it came late."""
        name = slice_name(one.slice)
        if reason:
            self.events.append(Event(market.date, "settlement_price", name, reason))
        days = (market.time - one.expires).total_seconds() / 86400.0
        if days >= 1.0 and self._date is not None and self._date < one.expiry:
            late = f"the history has no chain from its expiry to {market.date:%Y-%m-%d}"
            self.events.append(Event(market.date, "settled_late", name, late))

    def _revalue(self, market: Market) -> None:
        """Mark all options anew and explain what changed."""
        contracts = list(self.quantities)
        marks, quoted = market.value(contracts, self.marks, self.kind_of_marks)
        if self._time is not None:
            move = market.spot - self._spot
            years = years_between(self._time, market.time)
            self._flows["underlying"] += self.units * move if self.units else 0.0
            self._explain(contracts, marks, move, years)
        self.marks = dict(zip(contracts, marks, strict=True))
        self._note_unquoted(market, contracts, quoted)
        self._note_exercise(market)

    def _explain(
        self, contracts: list[Contract], marks: list[Mark], move: float, years: float
    ) -> None:
        """Attribute changes of value to the Greeks of the last marks, and the rest."""
        if not contracts:
            return
        units = np.array([self.quantities[one] * one.multiplier for one in contracts])
        last = Mark(*np.array([self.marks[one] for one in contracts]).T)
        new = Mark(*np.array(marks).T)
        parts = {
            "delta": last.delta * move,
            "gamma": 0.5 * last.gamma * move**2,
            "vega": last.vega * np.nan_to_num(new.volatility - last.volatility),
            "theta": last.theta * years,
        }
        parts["residual"] = new.price - last.price - sum(parts.values())
        for name, values in parts.items():
            self._flows[name] += float(units @ values)

    def _note_unquoted(
        self, market: Market, contracts: list[Contract], quoted: np.ndarray
    ) -> None:
        """An event on the first date on which a listed position has no quote."""
        places = np.flatnonzero(~quoted)
        missing = {contracts[place] for place in places if contracts[place].listed}
        for one in contracts if missing - self._unquoted else ():
            if one in missing and one not in self._unquoted:
                reason = market.day.why_unquoted(one)
                self.events.append(Event(market.date, "not_quoted", str(one), reason))
        self._unquoted = missing

    def _note_exercise(self, market: Market) -> None:
        """An event on the first date on which exercise is worth more than the price."""
        early = {
            key
            for key in {one.slice for one in self.quantities}
            if key in market.slices and market.day.quotes(key).american
        }
        for one, quantity in self.quantities.items() if early else ():
            if one.slice not in early or one in self._exercise_noted or not one.listed:
                continue
            intrinsic, mark = one.payoff(market.spot), self.marks[one].price
            if intrinsic > mark:
                self._exercise_noted.add(one)
                who = "exercise pays more" if quantity > 0.0 else "expect assignment"
                reason = f"intrinsic {intrinsic:.6g} above the mark {mark:.6g}: {who}"
                self.events.append(
                    Event(market.date, "early_exercise", str(one), reason)
                )

    def trade(self, trades: Iterable[Trade], marks: dict[Contract, Mark]) -> None:
        """Book trades of options and of the underlying.

        Args:
            trades: Filled.
            marks: Of the contracts traded.
        """
        for trade in trades:
            self._book(trade)
            one = trade.contract
            if one is None or one not in self.quantities:
                continue
            if one not in self.marks:
                self.marks[one] = marks[one]

    def _book(self, trade: Trade) -> None:
        """Move cash and quantity; the difference from the mark is a cost."""
        self.trades.append(trade)
        self.cash += trade.amount - trade.fee
        self._flows["spread"] -= trade.spread
        self._flows["fees"] -= trade.fee
        if trade.kind in ("order", "claim"):
            self.last_order = trade.date
        one = trade.contract
        if one is None:
            self.units += trade.quantity
            return
        before = self.quantities.get(one, 0.0)
        left = before + trade.quantity
        if abs(left) > DUST * max(abs(before), abs(trade.quantity)):
            self.quantities[one] = left
        else:
            self.quantities.pop(one, None)
            if trade.kind != "expiry":
                self.marks.pop(one, None)

    def hedge(self, market: Market, hedge: DeltaHedge, day: int) -> None:
        """Trade the underlying to bring the delta of the account to zero."""
        contracts = list(self.quantities)
        deltas = None
        if hedge.delta == "curve" and contracts:
            deltas = market.curve_deltas(contracts)
        if deltas is None:
            deltas = np.array([self.marks[one].delta for one in contracts])
        units = [self.quantities[one] * one.multiplier for one in contracts]
        net = self.units + float(np.dot(units, deltas))
        quantity = hedge.trade(day=day, delta=net)
        if quantity:
            self.trade([self.underlying_trade(market, quantity, "hedge")], {})

    def underlying_trade(self, market: Market, quantity: float, kind: str) -> Trade:
        """A trade in the underlying, filled."""
        price = self.costs.fill_underlying(market.spot, quantity)
        return Trade(market.date, kind, None, quantity, price, market.spot)

    def note_unsettled(self, date: pd.Timestamp, time: pd.Timestamp) -> None:
        """Say what expired after the last date that could be read.

        Args:
            date: The last of the history.
            time: When its quotes would have been taken, in UTC.
        """
        for key in dict.fromkeys(
            one.slice for one in self.quantities if one.expires <= time
        ):
            reason = (
                f"expired by {date:%Y-%m-%d}, of which no chain could be read: not "
                "settled, and marked as last seen"
            )
            self.events.append(Event(date, "unsettled", slice_name(key), reason))

    def end(self, market: Market) -> None:
        """Record the date: cash, values, Greeks, and where the change came from."""
        contracts = list(self.quantities)
        for one in contracts:
            terms = market.day.terms(one.slice, one.expires)
            if isinstance(terms, Terms):
                self._carries[one.slice] = terms.carry(market.spot)
        held = np.array([[*self.marks[one]] for one in contracts]).reshape(-1, 6)
        quantity = np.array([self.quantities[one] for one in contracts])
        units = quantity * np.array([one.multiplier for one in contracts])
        greeks = dict(zip(GREEKS, units @ held[:, 2:], strict=True))
        greeks["delta"] += self.units
        self.days.append(
            {
                "date": market.date,
                "spot": market.spot,
                "cash": self.cash,
                "options_value": self.options_value,
                "underlying_value": self.underlying_value,
                "equity": self.equity,
                "greeks": greeks,
                "attribution": self._flows,
            }
        )
        self.positions.append(
            (market.date, tuple(contracts), quantity, held[:, :2], self.units)
        )
        self._flows = _no_flows()
        self.events.extend(market.events)


def _no_flows() -> dict[str, float]:
    """The attribution of a date on which nothing has happened yet."""
    return {name: 0.0 for name in ATTRIBUTION}

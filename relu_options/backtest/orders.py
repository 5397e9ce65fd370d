"""What a strategy can order, and how orders are filled.

An order is a `StrikePortfolio` with the label of an expiry: its legs are bought, or
sold where the quantity is negative, all of them or none. Its forwards are paid for now
and settle with the options; without an expiry they are units of the underlying. Its
cash stays in the account. `Target` states what to hold, and `Claim` options agreed over
the counter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from relu_options.backtest.account import Account
from relu_options.backtest.contracts import (
    Contract,
    Event,
    Mark,
    Slice,
    Trade,
    slice_name,
)
from relu_options.backtest.day import slices_named
from relu_options.backtest.market import Market
from relu_options.errors import BacktestError, QuoteError
from relu_options.portfolio import StrikePortfolio


@dataclass(frozen=True)
class Target:
    """Hold these listed options, and no others; the difference is traded.

    Attributes:
        portfolios: One or more, each with its expiry; none closes every position.
        underlying: Units of the underlying to hold; None leaves them as they are.

    Raises:
        TypeError: If `portfolios` is no tuple of portfolios.

    Examples:
        >>> everything_sold = Target((), underlying=0.0)
        >>> everything_sold.portfolios
        ()
    """

    portfolios: tuple[StrikePortfolio, ...] = ()
    underlying: float | None = None

    def __post_init__(self) -> None:
        known = isinstance(self.portfolios, tuple | list)
        if not known or not all(
            isinstance(one, StrikePortfolio) for one in self.portfolios
        ):
            raise TypeError(
                "a Target takes a tuple of StrikePortfolios, such as "
                f"`Target((view.call(expiry, strike),))`, not {self.portfolios!r}"
            )


@dataclass(frozen=True)
class Claim:
    """Options agreed over the counter, of any strikes, at the price of the surface.

    They have no spread and no fee, are marked on the surface, and pay their intrinsic
    value at an expiry of the chain: what an exotic payoff is sold as, and hedged.

    Attributes:
        portfolio: With the label of an expiry; negative quantities are sold. Its
            forwards are calls of strike zero. Its cash is left out: neither paid for
            nor received.

    Raises:
        TypeError: If it is none.

    Examples:
        >>> import relu_options as ro
        >>> digital = ro.decompose(ro.payoffs.digital(103.0, width=2.0))
        >>> Claim(digital).portfolio.strikes
        array([102., 104.])
    """

    portfolio: StrikePortfolio

    def __post_init__(self) -> None:
        if not isinstance(self.portfolio, StrikePortfolio):
            raise TypeError(f"a Claim is on a StrikePortfolio, not {self.portfolio!r}")


Order = StrikePortfolio | Target | Claim


@dataclass(frozen=True)
class OrderFiller:
    """Turns the orders of one date into trades.

    Attributes:
        market: The date.
        account: Whose orders they are.
        name: Of the strategy, for messages.
    """

    market: Market
    account: Account
    name: str
    _valued: dict[Contract, Mark] = field(default_factory=dict)

    def fill(self, orders: Iterable[Order]) -> None:
        """Trade orders; what cannot be filled becomes an event.

        Raises:
            BacktestError: If one holds what is no number, or not finite.
        """
        for order in orders:
            if isinstance(order, Target):
                self._fill_target(order)
            elif isinstance(order, Claim):
                self._fill_claim(order.portfolio)
            else:
                self._fill_portfolio(order)

    def _error(self, reason: str) -> BacktestError:
        return BacktestError(f"{self.market.date:%Y-%m-%d}, {self.name}: {reason}")

    def _reject(self, what: str, reason: str) -> None:
        event = Event(self.market.date, "rejected", what, reason)
        self.account.events.append(event)

    def _fill_portfolio(self, order: StrikePortfolio) -> None:
        """Buy the legs and the forwards."""
        key, legs = self._legs(order)
        forwards = self._number(order.forwards, "its forwards")
        if order.expiry is None:
            if forwards:
                trade = self.account.underlying_trade(self.market, forwards, "order")
                self._book([trade])
            return
        if key is None:
            return
        trades = self._listed(key, legs) if legs else []
        if trades is None:
            return
        if forwards:
            trades.append(self._forward(key, forwards))
        self._book(trades)

    def _forward(self, key: Slice, units: float) -> Trade:
        """Units of the underlying at expiry, paid for now at the costs of it."""
        one = self._unlisted(key, 0.0, True)
        mark = self._value([one])[one].price
        price = self.account.costs.fill_underlying(mark, units)
        return Trade(self.market.date, "order", one, units, price, mark)

    def _unlisted(self, key: Slice, strike: float, is_call: bool) -> Contract:
        """A contract on one unit, agreed over the counter, of a slice of the chain."""
        listed = self.market.contract(key, strike, is_call=is_call)
        return replace(listed, multiplier=1.0, listed=False)

    def _fill_claim(self, order: StrikePortfolio) -> None:
        """Agree on options at the price of the surface."""
        key, legs = self._legs(order)
        forwards = self._number(order.forwards, "its forwards")
        if forwards:
            legs.append((0.0, True, forwards))
        if key is None:
            if order.expiry is None:
                raise self._error("a claim needs the label of an expiry")
            return
        if self.market.surface is None:
            self._reject(str(order), "there is no surface to price the claim on")
            return
        trades = []
        for strike, is_call, units in legs:
            contract = self._unlisted(key, strike, is_call)
            price = self._value([contract])[contract].price
            trades.append(
                Trade(self.market.date, "claim", contract, units, price, price)
            )
        self._book(trades)

    def _fill_target(self, order: Target) -> None:
        """Trade the difference between what is wanted and what is held, by expiry."""
        wanted: dict[Contract, float] = {}
        for portfolio in order.portfolios:
            key, legs = self._legs(portfolio)
            if portfolio.forwards:
                raise self._error("a Target states units as `underlying=`")
            if key is None:
                continue
            for strike, is_call, units in legs:
                one = self.market.contract(key, strike, is_call=is_call)
                wanted[one] = wanted.get(one, 0.0) + units
        trades: dict[Slice, list[tuple[float, bool, float]]] = {}
        held = self.account.quantities
        for one in [*wanted, *(other for other in held if other not in wanted)]:
            units = wanted.get(one, 0.0) - held.get(one, 0.0) * one.multiplier
            if one.listed and units:
                leg = one.strike, one.is_call, units
                trades.setdefault(one.slice, []).append(leg)
        for key, legs in trades.items():
            filled = self._listed(key, legs)
            if filled is not None:
                self._book(filled)
        if order.underlying is not None:
            units = self._number(order.underlying, "underlying") - self.account.units
            if units:
                trade = self.account.underlying_trade(self.market, units, "order")
                self._book([trade])

    def _legs(
        self, order: StrikePortfolio
    ) -> tuple[Slice | None, list[tuple[float, bool, float]]]:
        """Slice, and strike, type and units of the underlying of each leg.

        The slice is None if it is not in the chain, which is an event.
        """
        try:
            strikes = np.asarray(order.strikes, float)
            units = float(order.multiplier) * np.asarray(order.quantities, float)
            is_call = np.asarray(order.is_call, bool)
        except (TypeError, ValueError) as error:
            raise self._error(
                f"an order has legs that are no numbers: {error}"
            ) from error
        bad = ~(np.isfinite(strikes) & np.isfinite(units))
        if bad.any():
            at = int(np.flatnonzero(bad)[0])
            raise self._error(
                f"an order has {bad.sum()} of {len(bad)} legs that are not finite: "
                f"strike {strikes[at]}, quantity {units[at]}"
            )
        rows = zip(strikes.tolist(), is_call.tolist(), units.tolist(), strict=True)
        legs = [leg for leg in rows if leg[2]]
        if order.expiry is None:
            if legs:
                raise self._error(
                    f"{order!r} has no expiry; pass `expiry=`, such as "
                    "`view.expiry(days=30)`"
                )
            return None, []
        return self._slice(order.expiry), legs

    def _slice(self, label: str) -> Slice | None:
        """The slice of a label, "2019-06-21" or "2019-06-21 AM"."""
        try:
            found = slices_named(self.market.slices, label)
        except QuoteError as error:
            raise self._error(f"{label!r} is no label of an expiry: {error}") from error
        if len(found) > 1:
            choices = " or ".join(repr(slice_name(key)) for key in found)
            raise self._error(f"{label} has two settlements; choose {choices}")
        if not found:
            self._reject(str(label), "the expiry is not in the chain")
            return None
        return found[0]

    def _listed(
        self, key: Slice, legs: list[tuple[float, bool, float]]
    ) -> list[Trade] | None:
        """Trades of listed options at their quotes; None if a leg cannot be filled."""
        if key not in self.market.slices:
            self._reject(slice_name(key), "the expiry is not in the chain")
            return None
        quotes = self.market.day.quotes(key)
        contracts = [
            self.market.contract(key, strike, is_call=is_call)
            for strike, is_call, _ in legs
        ]
        strike, is_call, units = (
            np.array(column) for column in zip(*legs, strict=True)
        )
        at = quotes.find(strike, is_call.astype(bool))
        refused = {
            contracts[place]: self.market.day.why_unquoted(contracts[place])
            for place in np.flatnonzero(at < 0)
        }
        bid, ask = quotes.bid[at], quotes.ask[at]
        for place in np.flatnonzero((at >= 0) & (units < 0.0) & (bid <= 0.0)):
            refused[contracts[place]] = "there is no bid to sell at"
        for one, reason in refused.items():
            others = len(legs) - len(refused)
            more = f"; the {others} other legs of the order were left too"
            self._reject(str(one), reason + (more if others else ""))
        if refused:
            return None
        quantity = units / self.market.multiplier(key)
        prices = self.account.costs.fill(bid, ask, quantity)
        fees = self.account.costs.fee_per_contract * np.abs(quantity)
        valued = self._value(contracts)
        rows = zip(
            contracts, quantity.tolist(), prices.tolist(), fees.tolist(), strict=True
        )
        return [
            Trade(self.market.date, "order", one, bought, price, valued[one].price, fee)
            for one, bought, price, fee in rows
        ]

    def _value(self, contracts: list[Contract]) -> dict[Contract, Mark]:
        """Marks of contracts, those of the account if it holds them."""
        held = self.account.marks
        new = [one for one in contracts if one not in held and one not in self._valued]
        if new:
            marks, _ = self.market.value(new, {}, self.account.kind_of_marks)
            self._valued.update(zip(new, marks, strict=True))
        return {one: held.get(one) or self._valued[one] for one in contracts}

    def _book(self, trades: list[Trade]) -> None:
        self.account.trade(trades, self._valued)

    def _number(self, value: Any, what: str) -> float:
        try:
            number = float(value)
        except (TypeError, ValueError) as error:
            raise self._error(f"an order has {what} {value!r}") from error
        if not np.isfinite(number):
            raise self._error(f"an order has {what} {number}")
        return number


def orders_in(answer: Any) -> list[Order]:
    """What a strategy answered, as a list of orders; a generator is run to its end.

    Raises:
        BacktestError: If the answer holds what is no order.

    Examples:
        >>> orders_in(None), orders_in(underlying_order(2.0))
        ([], [StrikePortfolio(2 forwards)])
    """
    if answer is None:
        return []
    if isinstance(answer, StrikePortfolio | Target | Claim):
        return [answer]
    if isinstance(answer, Mapping):
        answer = answer.values()
    if not isinstance(answer, Iterable):
        raise BacktestError(f"{answer!r} is no order")
    orders = list(answer)
    for order in orders:
        if not isinstance(order, StrikePortfolio | Target | Claim):
            raise BacktestError(
                f"{order!r} is no order; orders are StrikePortfolios, such as "
                "`view.call(expiry, strike)`, or Target, or Claim"
            )
    return orders


def underlying_order(units: float) -> StrikePortfolio:
    """An order for units of the underlying.

    Examples:
        >>> underlying_order(-50.0)
        StrikePortfolio(-50 forwards)
    """
    empty = np.zeros(0)
    return StrikePortfolio(0.0, units, empty, empty.astype(bool), empty)


def option_order(
    expiry: str, strike: Any, is_call: Any, quantity: Any, multiplier: float
) -> StrikePortfolio:
    """An order for options of one expiry; arguments broadcast.

    Examples:
        >>> option_order("2025-06-20 PM", [90.0, 110.0], [False, True], -1.0, 100.0)
        StrikePortfolio(-1 put 90, -1 call 110; multiplier 100; expiry 2025-06-20 PM)
    """
    strike, is_call, quantity = np.broadcast_arrays(
        np.atleast_1d(np.asarray(strike, float)),
        np.asarray(is_call, bool),
        np.asarray(quantity, float),
    )
    return StrikePortfolio(
        0.0, 0.0, strike, is_call, quantity, multiplier=multiplier, expiry=expiry
    )

"""What an account holds, what it trades, and what happens to it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import pandas as pd

from relu_options.market_data.clocks import years_between

Slice = tuple[pd.Timestamp, str]
"""Expiry and settlement, "AM" or "PM", or a time such as "08:00 UTC"."""


@dataclass(frozen=True)
class Contract:
    """An option that an account can hold.

    What it is are its expiry, settlement, strike and type, and whether it is listed:
    contracts that agree in these are equal. Multiplier and expiry time are the terms on
    which it is quoted on a date; if a later chain states others, the position stays one
    and is restated. Roots of one settlement are not told apart, as a chain does not.

    Attributes:
        expiry: The date.
        settlement: "AM" or "PM", or a time such as "08:00 UTC".
        strike: Currency units.
        is_call: False for puts.
        multiplier: Units of the underlying in a contract.
        expires: When the payoff is fixed, in UTC.
        listed: False for an option agreed over the counter; see `Claim`.

    Examples:
        >>> expires = pd.Timestamp("2025-06-20 20:00", tz="UTC")
        >>> option = Contract(pd.Timestamp("2025-06-20"), "PM", 105.0, True, 100.0,
        ...                   expires)
        >>> print(option)
        2025-06-20 PM call 105
        >>> option.payoff(107.0), option.adjusted(2.0).strike
        (2.0, 52.5)
        >>> option == replace(option, multiplier=10.0)
        True
    """

    expiry: pd.Timestamp
    settlement: str
    strike: float
    is_call: bool
    multiplier: float = field(compare=False)
    expires: pd.Timestamp = field(compare=False)
    listed: bool = True

    @property
    def slice(self) -> Slice:
        """Expiry and settlement."""
        return self.expiry, self.settlement

    @property
    def is_forward(self) -> bool:
        """Whether it is a call of strike zero, which is the underlying at expiry."""
        return self.is_call and self.strike == 0.0

    @property
    def option_type(self) -> str:
        """What tables say it is: a call, a put or a forward."""
        if self.is_forward:
            return "forward"
        return "call" if self.is_call else "put"

    def payoff(self, spot: float) -> float:
        """What it pays per unit of the underlying: its intrinsic value at expiry."""
        gain = spot - self.strike if self.is_call else self.strike - spot
        return max(gain, 0.0)

    def years(self, time: pd.Timestamp) -> float:
        """Time to expiry from an instant, in years."""
        return years_between(time, self.expires)

    def adjusted(self, ratio: float) -> Contract:
        """The contract after a split; strikes of listed ones are rounded to cents."""
        strike = self.strike / ratio
        return replace(self, strike=round(strike, 2) if self.listed else strike)

    def __str__(self) -> str:
        name = f"{slice_name(self.slice)} {self.option_type}"
        if self.is_forward:
            return name
        name = f"{name} {self.strike:.10g}"
        return name if self.listed else f"{name} (over the counter)"


class Mark(NamedTuple):
    """What one unit of an option is worth on a date, and its Greeks in the spot.

    Attributes:
        price: Currency units.
        volatility: Black-Scholes volatility of the price; NaN where it has none.
        delta, gamma: Derivatives in the spot.
        vega: Per 1.00 of volatility.
        theta: Per year that passes, with spot, rate and dividend yield held.

    Examples:
        >>> Mark(2.0, 0.2, 0.5, 0.03, 11.0, -5.0).after_split(2.0).price
        1.0
    """

    price: float
    volatility: float
    delta: float
    gamma: float
    vega: float
    theta: float

    def after_split(self, ratio: float) -> Mark:
        """Of one new unit, of which there are `ratio` per old one."""
        return Mark(
            self.price / ratio,
            self.volatility,
            self.delta,
            self.gamma * ratio,
            self.vega / ratio,
            self.theta / ratio,
        )


class Trade(NamedTuple):
    """A change of position: bought if `quantity` is positive.

    Attributes:
        date: Trade date.
        kind: "order", "hedge", "claim" (over the counter) or "expiry" (settlement).
        contract: What was traded; None for the underlying.
        quantity: Contracts, of `multiplier` units each; or units of the underlying.
        price: Paid per unit of the underlying.
        mark: What it was valued at, likewise.
        fee: Currency units.

    Examples:
        >>> trade = Trade(pd.Timestamp("2025-03-14"), "hedge", None, -30.0, 99.9, 100.0,
        ...               1.5)
        >>> trade.amount, round(trade.spread, 9)
        (2997.0, 3.0)
    """

    date: pd.Timestamp
    kind: str
    contract: Contract | None
    quantity: float
    price: float
    mark: float
    fee: float = 0.0

    @property
    def multiplier(self) -> float:
        """Units of the underlying in a unit of quantity."""
        return 1.0 if self.contract is None else self.contract.multiplier

    @property
    def amount(self) -> float:
        """Cash received, before the fee."""
        return -self.quantity * self.multiplier * self.price

    @property
    def spread(self) -> float:
        """What was paid more, or received less, than the mark."""
        return self.quantity * self.multiplier * (self.price - self.mark)


class Event(NamedTuple):
    """Something that a reader of the result should know.

    Attributes:
        date: When it happened.
        kind: One of `EVENTS`.
        what: The contract or thing concerned.
        reason: Why, and what was done.

    Examples:
        >>> event = Event(pd.Timestamp("2025-06-20"), "split", "underlying", "2 for 1")
        >>> event.kind in EVENTS
        True
    """

    date: pd.Timestamp
    kind: str
    what: str
    reason: str


EVENTS = {
    "missing_day": "a date was expected and is not in the history",
    "unreadable_day": "the chain of a date could not be read",
    "no_surface": "a date has no surface: marks are mids, deltas Black-Scholes",
    "not_quoted": "a position has no quote: it is marked at its last volatility",
    "rejected": "an order could not be filled",
    "split": "positions were adjusted for a split",
    "contract_changed": "a chain states other terms: positions were restated",
    "settlement_price": "no settlement price: another price was used",
    "settled_late": "the expiry was on a date without a chain",
    "early_exercise": "intrinsic value exceeds the price of an American option",
    "no_forward": "forward and discount factor of the last known carry were used",
    "no_price": "no price of the underlying: the last one was used",
    "all_expired": "nothing is left to trade: positions were settled, no orders asked",
    "unsettled": "expired on a date at the end that could not be read: still marked",
}
"""Kinds of events, each with its meaning."""


def slice_name(key: Slice) -> str:
    """A slice as text: "2025-06-20 PM"."""
    return f"{key[0]:%Y-%m-%d} {key[1]}"

"""What trading costs, and how a book is hedged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

DeltaModel = Literal["curve", "black_scholes"]


@dataclass(frozen=True)
class Costs:
    r"""Spreads and fees.

    An option is filled at $m \pm \lambda (a - b) / 2$, with bid `b`, ask `a`, mid `m`
    and $\lambda$ the spread fraction.

    Attributes:
        spread_fraction: 1 buys at the ask and sells at the bid; 0 trades at mid.
        fee_per_contract: Currency units, for options; none at expiry.
        underlying_bps: Paid on the value of each trade in the underlying, in hundredths
            of a per cent; forwards too.

    Raises:
        ValueError: If a number is negative or not finite.

    Examples:
        >>> costs = Costs(spread_fraction=0.5)
        >>> print(costs.fill(np.array([4.0]), np.array([4.4]), np.array([-1.0])))
        [4.1]
        >>> round(costs.fill_underlying(100.0, 50.0), 6)
        100.01
    """

    spread_fraction: float = 1.0
    fee_per_contract: float = 0.65
    underlying_bps: float = 1.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0.0 <= value < np.inf:
                raise ValueError(f"{name} must not be negative, but is {value!r}")

    @classmethod
    def none(cls) -> Costs:
        """Trading at mid without fees."""
        return cls(0.0, 0.0, 0.0)

    def fill(self, bid: np.ndarray, ask: np.ndarray, quantity: np.ndarray):
        """Prices at which quantities are filled, of their shape."""
        half = 0.5 * self.spread_fraction * (ask - bid)
        return 0.5 * (bid + ask) + np.sign(quantity) * half

    def fill_underlying(self, spot: float, quantity: float) -> float:
        """Price at which the underlying is traded."""
        return float(spot * (1.0 + 1e-4 * np.sign(quantity) * self.underlying_bps))


@dataclass(frozen=True)
class DeltaHedge:
    """Trade the underlying so that the delta of the account is zero.

    Attributes:
        every: Number of dates from one look to the next; 1 looks on every date.
        band: Units of the underlying: a net delta inside of it is left alone.
        delta: "curve" takes the delta of the fitted surface, which moves with the
            forward; "black_scholes" that of the formula at each option's own
            volatility.

    Raises:
        ValueError: If a number is out of range, or `delta` unknown.

    Examples:
        >>> hedge = DeltaHedge(every=5, band=20.0)
        >>> hedge.trade(day=5, delta=-30.0), hedge.trade(day=5, delta=15.0)
        (30.0, 0.0)
        >>> hedge.trade(day=6, delta=-30.0)
        0.0
    """

    every: int = 1
    band: float = 0.0
    delta: DeltaModel = "curve"

    def __post_init__(self) -> None:
        if self.every < 1 or int(self.every) != self.every:
            raise ValueError(f"every must be a whole number from 1 on: {self.every!r}")
        if not 0.0 <= self.band < np.inf:
            raise ValueError(f"band must not be negative, but is {self.band!r}")
        if self.delta not in ("curve", "black_scholes"):
            raise ValueError(
                f"delta must be 'curve' or 'black_scholes', not {self.delta!r}"
            )

    def trade(self, *, day: int, delta: float) -> float:
        """Units to buy on a day, counted from 0, given the net delta."""
        if day % self.every or abs(delta) <= self.band:
            return 0.0
        return -delta

"""What a verification answers: a proof, a counterexample, or that it does not know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from relu_options.errors import VerificationError
from relu_options.payoffs.numbers import nearest_float, short
from relu_options.portfolio import StrikePortfolio
from relu_options.verification.domain import Domain

FAMILIES = {
    "convex": "butterfly",
    "decreasing": "call_spread",
    "slope": "call_spread",
    "calendar": "calendar_spread",
    "bounds": "bounds",
}
"""Each condition, and the family of trades that violates it."""

ExpiryTrades: TypeAlias = dict[float | Fraction, StrikePortfolio]
"""A portfolio for each time to expiry."""


@dataclass(frozen=True)
class Margin:
    """By how much one condition holds where it is nearest to failing.

    Of a condition that mixed-integer programmes found to fail, it is the worst that was
    confirmed in exact arithmetic: where hinges coincide, there may be a worse one.

    Attributes:
        condition: One of `FAMILIES`.
        value: Not negative if the condition holds. Of "convex" a change of slope, of
            "decreasing", "slope" and "calendar" a slope, of "bounds" a price; rational
            where it is exact.
        at: The inputs there, if they are known.
        method: How it was found.
        tolerance: To which it is certain that no value is lower; 0 where it is exact.

    Examples:
        >>> Margin("convex", Fraction(1, 8), (1.0,), "kinks")
        Margin(convex: 0.125 at 1, by kinks)
    """

    condition: str
    value: Fraction | float
    at: tuple[float, ...] | None
    method: str
    tolerance: float = 0.0

    def __repr__(self) -> str:
        at = "" if self.at is None else f" at {_listed(self.at)}"
        within = f" to {self.tolerance:.1e}" if self.tolerance else ""
        return (
            f"Margin({self.condition}: {short(self.value)}{at}, by "
            f"{self.method}{within})"
        )


@dataclass(frozen=True, repr=False)
class _Verdict:
    """What all answers hold.

    Attributes:
        domain: Where the network was examined.
        margins: Of the conditions that are decided.
        allowed: The violation that was allowed by the question.
        seconds: The time it took.
    """

    domain: Domain
    margins: tuple[Margin, ...]
    allowed: float = field(kw_only=True, default=0.0)
    seconds: float = field(kw_only=True, default=0.0, compare=False)

    def to_frame(self) -> pd.DataFrame:
        """One row for each condition that is decided.

        Returns:
            Indexed by `condition`, with columns `holds`, `margin`, the inputs by name
            where it is least, `method`, and `tolerance` (0 where it is exact).
        """
        unknown = (np.nan,) * len(self.domain)
        rows = [
            {
                "condition": margin.condition,
                "holds": bool(margin.value >= -margin.tolerance - self.allowed),
                "margin": nearest_float(margin.value),
                **dict(zip(self.domain.names, margin.at or unknown, strict=True)),
                "method": margin.method,
                "tolerance": margin.tolerance,
            }
            for margin in self.margins
        ]
        columns = ["condition", "holds", "margin", *self.domain.names]
        table = pd.DataFrame(rows, columns=[*columns, "method", "tolerance"])
        return table.set_index("condition")


@dataclass(frozen=True, repr=False)
class Proof(_Verdict):
    """Every condition holds at every point of the domain.

    It is true as a boolean; a counterexample and an unknown are false.

    Attributes:
        domain: Where.
        margins: Of each condition how far it is from failing.
        allowed: The violation that was allowed by the question; zero by default.
        seconds: The time it took.

    Examples:
        >>> from relu_options import PriceNetwork
        >>> import jax.numpy as jnp
        >>> from relu_options.verification import verify_no_arbitrage
        >>> curve = PriceNetwork(jnp.array([80.0, 120.0]), jnp.array([0.5, 0.5]),
        ...                      jnp.zeros(2))
        >>> proof = verify_no_arbitrage(curve, [(0.0, 200.0)], forward=100.0)
        >>> proof
        Proof: convex, decreasing, slope, bounds, exactly, on strike 0 to 200; by kinks
        >>> bool(proof), proof.is_exact
        (True, True)
    """

    @property
    def conditions(self) -> tuple[str, ...]:
        """What is proved."""
        return tuple(margin.condition for margin in self.margins)

    @property
    def tolerance(self) -> float:
        """No violation is larger than this; 0 if the proof is exact."""
        return self.allowed + max((m.tolerance for m in self.margins), default=0.0)

    @property
    def is_exact(self) -> bool:
        """Whether it is proved in exact arithmetic that there is no violation."""
        return self.tolerance == 0.0

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        within = f"to {self.tolerance:.1e}" if self.tolerance else "exactly"
        return (
            f"Proof: {', '.join(self.conditions)}, {within}, on {self.domain}; by "
            f"{_methods(self.margins)}"
        )


@dataclass(frozen=True, repr=False)
class Counterexample(_Verdict):
    """A trade that costs less than nothing and cannot lose.

    All numbers are exact: prices are those of the network in rational arithmetic.

    Attributes:
        domain: Where the network was examined.
        margins: Of all conditions that are decided, those that hold included.
        condition: Which one fails here.
        amount: By how much: minus its margin.
        strikes: Of the calls, increasing, in currency units.
        times: Of the calls, in years; None for a network without time.
        quantities: Of the calls; positive is long.
        prices: What the network says that one call costs.
        cash: Units of currency received at expiry.
        forwards: Units of the underlying received at expiry.
        forward: Forward price, in currency units.
        discount_factor: Price today of one unit of currency paid at expiry.
        others: Values of the inputs besides strike and time, by name.
        further: Counterexamples of the other conditions that fail.
        allowed: The violation that was allowed by the question.
        seconds: The time it took.

    Examples:
        Half of a call at 100 is missing from this curve, so that it bends downward.

        >>> from relu_options import ReLUNetwork
        >>> import jax.numpy as jnp
        >>> from relu_options.verification import verify_no_arbitrage
        >>> curve = ReLUNetwork(100.0, -1.0, jnp.array([80.0, 100.0, 120.0]),
        ...                     jnp.array([1.0, -0.5, 0.5]))
        >>> found = verify_no_arbitrage(curve, [(50.0, 200.0)], forward=100.0)
        >>> found
        Counterexample: convex fails by 0.5 at strike 100; butterfly costs -9.375
        >>> found.as_trade()
        StrikePortfolio(1 call 81.25, -2 call 100, 1 call 118.75; costs -9.375)
        >>> found.to_frame()["holds"].to_dict()
        {'convex': False, 'decreasing': True, 'slope': True, 'bounds': True}
    """

    condition: str
    amount: Fraction
    strikes: tuple[Fraction, ...]
    times: tuple[Fraction, ...] | None
    quantities: tuple[int, ...]
    prices: tuple[Fraction, ...]
    cash: Fraction
    forwards: int
    forward: Fraction
    discount_factor: Fraction
    others: dict[str, float | Fraction] = field(default_factory=dict)
    further: tuple[Counterexample, ...] = ()

    @property
    def family(self) -> str:
        """The trade: "butterfly", "call_spread", "calendar_spread" or "bounds"."""
        return FAMILIES[self.condition]

    @property
    def cost(self) -> Fraction:
        """What the trade costs today: less than nothing, exactly."""
        calls = sum(
            (q * price for q, price in zip(self.quantities, self.prices, strict=True)),
            Fraction(0),
        )
        return calls + self.discount_factor * (self.cash + self.forwards * self.forward)

    def as_trade(self) -> StrikePortfolio | ExpiryTrades:
        """The trade as portfolios, at the prices of the network.

        A calendar spread is short the earlier call. If that is exercised, a forward is
        sold until the later expiry: the later call is worth no less than it.

        Returns:
            One portfolio, whose payoff is nowhere negative; for a calendar spread one
            for each time to expiry, the earlier first. Numbers are floats where these
            are exact, and otherwise rationals; quotes are the nearest floats.

        Raises:
            VerificationError: If the prices add up to more than any float.
        """
        if self.condition != "calendar" or self.times is None:
            return self._portfolio(range(len(self.strikes)))
        return {
            simplest([time])[0]: self._portfolio([leg])
            for leg, time in enumerate(self.times)
        }

    def _portfolio(self, legs: Sequence[int]) -> StrikePortfolio:
        """Some of the calls, with cash and forwards."""
        paid = [abs(self.quantities[leg] * self.prices[leg]) for leg in legs]
        linear = self.discount_factor * (self.cash + self.forwards * self.forward)
        total = sum(paid, abs(linear))
        if np.isinf(nearest_float(total)):
            raise VerificationError(
                f"the prices add up to {short(total)}, and a portfolio is "
                "quoted in floats; read `strikes`, `quantities`, `prices` and `cost`, "
                "which are exact, or scale the network down"
            )
        strikes = np.array(simplest([self.strikes[leg] for leg in legs]))
        quoted = np.array([nearest_float(self.prices[leg]) for leg in legs])
        return StrikePortfolio(
            cash=simplest([self.cash])[0],
            forwards=float(self.forwards),
            strikes=strikes,
            is_call=np.ones(len(strikes), bool),
            quantities=np.array([self.quantities[leg] for leg in legs]).astype(
                strikes.dtype
            ),
            bid=quoted,
            ask=quoted,
            forward=nearest_float(self.forward),
            discount_factor=nearest_float(self.discount_factor),
        )

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        margin = next(m for m in self.margins if m.condition == self.condition)
        at = "" if margin.at is None else f" at {_named(self.domain, margin.at)}"
        more = ", ".join(other.condition for other in self.further)
        return (
            f"Counterexample: {self.condition} fails by {short(self.amount)}{at}; "
            f"{self.family} costs {short(self.cost)}"
            + (f"; also fails: {more}" if more else "")
        )


@dataclass(frozen=True, repr=False)
class Unknown(_Verdict):
    """Neither proved nor refuted: the time was too short, or arithmetic too coarse.

    Attributes:
        domain: Where the network was examined.
        margins: Of the conditions that are proved.
        undecided: The others, each with the reason.
        allowed: The violation that was allowed by the question.
        seconds: The time it took.

    Examples:
        >>> from relu_options.verification import verify_no_arbitrage
        >>> wide = [(np.ones((400, 2)), np.linspace(-3.0, 0.0, 400)),
        ...         (np.ones((1, 400)), np.zeros(1))]
        >>> verdict = verify_no_arbitrage(wide, [(0, 1), (0, 1)], time_limit=1e-9,
        ...                               conditions=("decreasing",))
        >>> bool(verdict), verdict.undecided["decreasing"].split(":")[0]
        (False, 'out of time')
    """

    undecided: dict[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        reasons = "; ".join(
            f"{name}: {reason}" for name, reason in self.undecided.items()
        )
        proved = ", ".join(margin.condition for margin in self.margins)
        return f"Unknown: {reasons}" + (f"; proved: {proved}" if proved else "")


def _methods(margins: Sequence[Margin]) -> str:
    """The methods used, each once."""
    return ", ".join(dict.fromkeys(margin.method for margin in margins))


def _listed(numbers: Sequence[Any]) -> str:
    return ", ".join(short(number) for number in numbers)


def _named(domain: Domain, at: Sequence[float]) -> str:
    """Inputs with their names."""
    return ", ".join(
        f"{name} {value:.6g}" for name, value in zip(domain.names, at, strict=True)
    )


def simplest(numbers: Sequence[Fraction]) -> list[Any]:
    """As floats if all of them are, else as they are."""
    floats = [nearest_float(number) for number in numbers]
    exact = all(one == number for one, number in zip(floats, numbers, strict=True))
    return floats if exact else list(numbers)

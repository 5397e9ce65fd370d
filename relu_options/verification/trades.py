r"""The trade that earns a violation, with strikes and times that are plain numbers.

| condition | trade | its payoff | costs less than nothing if |
|---|---|---|---|
| convex | +1, -2, +1 calls at $K - h, K, K + h$ | a tent | the slope falls at $K$ |
| decreasing | +1 call $K_1$, -1 call $K_2$ | a call spread | $C(K_2) > C(K_1)$ |
| slope | -1 call $K_1$, +1 call $K_2$, cash $K_2 - K_1$ | $K_2 - K_1$ less a call spread | $C(K_1) - C(K_2) > D (K_2 - K_1)$ |
| calendar | -1 call of $T_1$, +1 call of $T_2$ | by Jensen's inequality | $C(T_2) < C(T_1)$ |
| bounds | +1 call | the call | $C < 0$ |
| bounds | +1 call, -1 forward, cash $K$ | a put | $C < D (F - K)$ |
| bounds | -1 call, +1 forward | the lesser of spot and $K$ | $C > D F$ |

Each payoff is nowhere negative. A violation that is found on a line or in a region is
moved to strikes and times with few binary digits, where the network is evaluated again
in rational arithmetic; only if this loses a tiny violation are they fractions.
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from relu_options.verification.domain import Domain
from relu_options.verification.exact import ExactNetwork
from relu_options.verification.results import Counterexample, simplest

_DIGITS = 10  # binary digits, to which a number is rounded in a range
Rest = Sequence[Fraction]
"""All inputs but the strike."""


@dataclass(frozen=True, eq=False)
class Question:
    """A network, where it is examined, and the terms of the trades.

    Attributes:
        exact: The network in integers.
        domain: The box.
        forward: Currency units.
        discount_factor: Price today of one unit of currency paid at expiry.
    """

    exact: ExactNetwork
    domain: Domain
    forward: Fraction
    discount_factor: Fraction

    def price(self, strike: Fraction, rest: Rest) -> Fraction:
        """Price of a call, exactly."""
        return self.exact.value([strike, *rest])

    def low(self, of_input: int = 0) -> Fraction:
        """Lower end of the domain."""
        return Fraction(self.domain.low[of_input])

    def high(self, of_input: int = 0) -> Fraction:
        """Upper end of the domain."""
        return Fraction(self.domain.high[of_input])


def on_grid(value: Fraction, width: Fraction) -> Fraction:
    """The nearest number with few binary digits, within a thousandth of a width.

    Examples:
        >>> print(on_grid(Fraction(1, 3), Fraction(1, 10)))
        5461/16384
    """
    digits = width.denominator.bit_length() - width.numerator.bit_length() + _DIGITS
    step = Fraction(2) ** -(digits + 1)
    return round(value / step) * step


def butterfly(
    question: Question,
    left: Fraction,
    kink: Fraction,
    right: Fraction,
    rest: Rest,
    amount: Fraction,
) -> Counterexample | None:
    """The butterfly around a kink at which the slope falls.

    The network is linear from `left` to `kink` and from there to `right`.
    """
    reach = min(kink - left, right - kink)
    middle = on_grid(kink, reach)
    half = on_grid(reach * Fraction(15, 16), reach)
    for middle, half in ((middle, half), (kink, reach)):  # noqa: B020
        strikes = (middle - half, middle, middle + half)
        found = _counterexample(
            question, "convex", amount, strikes, rest, (1, -2, 1), at=(kink, *rest)
        )
        if found is not None:
            return found
    return None


def call_spread(
    question: Question,
    condition: str,
    low: Fraction,
    high: Fraction,
    rest: Rest,
    amount: Fraction,
) -> Counterexample | None:
    """The call spread on a range of strikes where the slope is out of bounds.

    It is bought where the slope is above zero ("decreasing"), and sold where it is
    below minus the discount factor ("slope").
    """
    width = high - low
    inside = (on_grid(low + width / 16, width), on_grid(high - width / 16, width))
    for strikes in (inside, (low, high)):
        quantities, cash = (1, -1), Fraction(0)
        if condition == "slope":
            quantities, cash = (-1, 1), strikes[1] - strikes[0]
        found = _counterexample(
            question,
            condition,
            amount,
            strikes,
            rest,
            quantities,
            cash=cash,
            at=((low + high) / 2, *rest),
        )
        if found is not None:
            return found
    return None


def calendar_spread(
    question: Question,
    strike: Fraction,
    early: Fraction,
    late: Fraction,
    rest: Rest,
    amount: Fraction,
) -> Counterexample | None:
    """The calendar spread on a range of times over which the price falls.

    `rest` are the inputs after the time.
    """
    width = late - early
    inside = (on_grid(early + width / 16, width), on_grid(late - width / 16, width))
    for times in (inside, (early, late)):
        prices = tuple(question.price(strike, [time, *rest]) for time in times)
        found = Counterexample(
            condition="calendar",
            amount=amount,
            strikes=(strike, strike),
            times=times,
            quantities=(-1, 1),
            prices=prices,
            cash=Fraction(0),
            forwards=0,
            **_terms(question, rest, 2, (strike, (early + late) / 2, *rest)),
        )
        if found.cost < 0:
            return found
    return None


def bound_trade(
    question: Question, point: Sequence[Fraction], amount: Fraction
) -> Counterexample | None:
    """A call against its underlying and cash, at a point where a bound is broken."""
    domain = question.domain
    rounded = [
        min(max(Fraction(float(x)), Fraction(low)), Fraction(high))
        for x, low, high in zip(point, domain.low, domain.high, strict=True)
    ]
    for strike, *rest in (rounded, point):
        for quantity, forwards, cash in (
            (1, 0, Fraction(0)),
            (1, -1, strike),
            (-1, 1, Fraction(0)),
        ):
            found = _counterexample(
                question,
                "bounds",
                amount,
                (strike,),
                rest,
                (quantity,),
                cash=cash,
                forwards=forwards,
                at=point,
            )
            if found is not None:
                return found
    return None


def _counterexample(
    question: Question,
    condition: str,
    amount: Fraction,
    strikes: tuple[Fraction, ...],
    rest: Rest,
    quantities: tuple[int, ...],
    *,
    at: Sequence[Fraction],
    cash: Fraction = Fraction(0),
    forwards: int = 0,
) -> Counterexample | None:
    """Calls of one expiry with cash and forwards, if they cost less than nothing."""
    has_time = question.domain.has_time
    found = Counterexample(
        condition=condition,
        amount=amount,
        strikes=strikes,
        times=(rest[0],) * len(strikes) if has_time else None,
        quantities=quantities,
        prices=tuple(question.price(strike, rest) for strike in strikes),
        cash=cash,
        forwards=forwards,
        **_terms(question, rest[has_time:], 1 + has_time, at),
    )
    return found if found.cost < 0 else None


def _terms(
    question: Question, others: Rest, first: int, at: Sequence[Fraction]
) -> dict[str, Any]:
    """What every counterexample says about the question."""
    names = question.domain.names[first:]
    return {
        "domain": question.domain,
        "margins": (),
        "forward": question.forward,
        "discount_factor": question.discount_factor,
        "others": {
            name: simplest([x])[0] for name, x in zip(names, others, strict=True)
        },
    }

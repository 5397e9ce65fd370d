r"""Options of several expiries that together cannot lose, in exact arithmetic.

Payoffs of different expiries are compared in one unit: with $x_i = S_{T_i} / F_i$, the
spot at expiry $i$ in units of its forward, and $q_l$ options struck at $K_l$, the legs
of one expiry pay, in today's currency,

$$ f_i(x_i) = D_i F_i \sum_l q_l \max(\pm (x_i - K_l / F_i), 0). $$

A forward entered at one expiry for the next pays a multiple of $x_{i+1} - x_i$: rates
are taken as known, and dividends as a known share of the spot, so that its price then
is $S_{T_i} F_{i+1} / F_i$. Whoever holds such forwards until the next expiry can turn
what the later legs pay into their convex hull, and nobody can do better whatever the
model. So the worst that legs and forwards together pay is found backwards, from
$V_{N+1} = 0$, as

$$ V_i = \operatorname{hull}(f_i + V_{i+1}), \qquad \text{worst} = V_1(1), $$

the hull being the highest convex function below, on spots from zero on. Between the
corners all is linear, so finitely many points decide. They are integers here, and what
cannot be one is rounded to the disadvantage of the holder.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike

from relu_options.arbitrage.quotes import _cover

_SPOT_BITS = 96  # of a strike in the forward of another expiry
_QUANTITY_BITS = 40  # to which quantities are rounded up
_IDLE = 1e-10  # of the notional: what is left lying rather than traded


@dataclass(frozen=True, eq=False)
class ChainTrade:
    """Quotes of several expiries, with forwards and cash, that cannot lose.

    Attributes:
        expiries: Positions of the expiries of its options, the earliest first.
        quotes: Positions of its options among the quotes of the chain.
        quantity: Their quantities; positive is long.
        forward_quantity: Forwards bought today on its first expiry.
        cash_quantity: Units of cash that pay 1 at its first expiry.
        cash_flow: Received today, in currency units.
        worst_payoff: The least that it pays on any path of the underlying, in currency
            units of today; it is not negative, exactly.

    Examples:
        A call struck at 100 is sold for May and bought for June, whose forwards and
        discount factors are equal. Nothing need be done until May; then, if the call
        is exercised, one forward is sold until June.

        >>> trade = cover_chain(expiry=[0, 1], strike=[100.0, 100.0],
        ...                     is_call=[True, True], quantity=[-1.0, 1.0],
        ...                     price=[4.2, 4.0], forwards=[101.0, 101.0],
        ...                     discount_factors=[0.99, 0.99])
        >>> trade.forward_quantity, trade.cash_quantity, trade.worst_payoff
        (0.0, 0.0, 0.0)
        >>> print(round(trade.cash_flow, 10))
        0.2
        >>> [trade.forwards_to_hold(0, spot) for spot in (90.0, 120.0)]
        [0.0, -1.0]
    """

    expiries: tuple[int, ...]
    quotes: np.ndarray = field(repr=False)
    quantity: np.ndarray = field(repr=False)
    forward_quantity: float
    cash_quantity: float
    cash_flow: float
    worst_payoff: float
    _forwards: np.ndarray = field(repr=False)
    _discount_factors: np.ndarray = field(repr=False)
    _corners: tuple[np.ndarray, ...] = field(repr=False)
    _slopes: tuple[np.ndarray, ...] = field(repr=False)

    def forwards_to_hold(self, expiry: int, spot: float) -> float:
        """Forwards on the next expiry of the trade to enter at `expiry`.

        Args:
            expiry: Position of one of its expiries but the last.
            spot: Of the underlying then, in currency units.

        Returns:
            Their number, negative to sell, at the forward price of that moment.

        Raises:
            ValueError: If `expiry` is none of these.
        """
        if expiry not in self.expiries[:-1]:
            raise ValueError(
                f"forwards are entered at expiries {self.expiries[:-1]} of this trade, "
                f"not at {expiry}"
            )
        place = self.expiries.index(expiry) + 1
        notional = self._forwards[place] * self._discount_factors[place]
        corners, slopes = self._corners[place], self._slopes[place]
        x = spot / self._forwards[place - 1]
        before = slopes[max(np.searchsorted(corners, x, side="left") - 1, 0)]
        after = slopes[np.searchsorted(corners, x, side="right") - 1]
        slope = np.clip(0.0, min(before, after), max(before, after))
        return float(0.0 - slope / notional)

    def lower_hull(self, expiry: int) -> np.ndarray:
        """Corners of the hull from which the payoff of an expiry on is bounded.

        In units of the forward; those of the next expiry with options where `expiry`
        has none.
        """
        place = int(np.searchsorted(self.expiries, expiry))
        return self._corners[place]


def cover_chain(
    *,
    expiry: ArrayLike,
    strike: ArrayLike,
    is_call: ArrayLike,
    quantity: ArrayLike,
    price: ArrayLike,
    forwards: ArrayLike,
    discount_factors: ArrayLike,
) -> ChainTrade:
    """Add the cheapest forwards and cash with which options cannot lose.

    Args:
        expiry: Position of each option's expiry, of shape `(m,)`, from zero, in order
            of time.
        strike: Shape `(m,)`, positive, in currency units.
        is_call: Shape `(m,)`.
        quantity: Shape `(m,)`; positive is long. They are rounded, up where there are
            several expiries, in their eleventh digit.
        price: Shape `(m,)`, in currency units paid today.
        forwards: Of all expiries, in currency units.
        discount_factors: Of all expiries.

    Returns:
        The options with a forward and a cash leg on the first of their expiries.

    Raises:
        ValueError: If no quantity differs from zero.

    Examples:
        A put that is sold can cost its strike: that much cash must lie by.

        >>> trade = cover_chain(expiry=[0], strike=[90.0], is_call=[False],
        ...                     quantity=[-1.0], price=[2.0], forwards=[100.0],
        ...                     discount_factors=[0.98])
        >>> trade.forward_quantity, trade.cash_quantity, round(trade.cash_flow, 6)
        (0.0, 90.0, -86.2)
    """
    expiry = np.asarray(expiry, int)
    strike, quantity, price = (
        np.asarray(values, float) for values in (strike, quantity, price)
    )
    is_call = np.asarray(is_call, bool)
    forwards, discounts = (
        np.asarray(forwards, float),
        np.asarray(discount_factors, float),
    )
    rows = np.flatnonzero(quantity)
    if not len(rows):
        raise ValueError("a trade needs a quantity that is not zero")
    rows = rows[np.lexsort((~is_call[rows], strike[rows], expiry[rows]))]
    strike, is_call, quantity = strike[rows], is_call[rows], quantity[rows]
    expiry, price = expiry[rows], price[rows]
    spanned = np.unique(expiry)
    forwards, discounts = forwards[spanned], discounts[spanned]
    place = np.searchsorted(spanned, expiry)
    if len(spanned) == 1:
        quantity, bought, cash = _cover(strike, is_call, quantity, float(forwards[0]))
        hulls = _hulls(place, strike, is_call, quantity, forwards, discounts)
        first = _first_line(hulls[0], forwards[0], discounts[0])
    else:
        step = 2.0 ** (math.frexp(np.abs(quantity).max())[1] - _QUANTITY_BITS)
        quantity = step * np.ceil(quantity / step - 1e-3)
        hulls = _hulls(place, strike, is_call, quantity, forwards, discounts)
        first = _first_line(hulls[0], forwards[0], discounts[0])
        bought, cash = first.cheapest(step, float(np.abs(quantity).max()))
    worst = first.worst(bought, cash)
    return ChainTrade(
        expiries=tuple(spanned.tolist()),
        quotes=rows,
        quantity=quantity,
        forward_quantity=bought,
        cash_quantity=cash,
        cash_flow=-math.fsum([*(quantity * price), cash * float(discounts[0])]),
        worst_payoff=_rounded_down(worst),
        _forwards=forwards,
        _discount_factors=discounts,
        _corners=tuple(hull.corners for hull in hulls),
        _slopes=tuple(hull.slopes for hull in hulls),
    )


@dataclass(frozen=True, eq=False)
class _Line:
    """A continuous piecewise linear function on spots from zero on, in integers.

    Spots are those of any expiry in units of its forward, times the first forward.
    Values are in today's currency times the first forward, which makes the slopes exact
    sums of $D F q$.

    Attributes:
        x: Where it bends, from zero on, times `2**x_bits`.
        y: Its values there, times `2**(x_bits + slope_bits)`.
        tail: Its slope beyond, times `2**slope_bits`.
        unit: The first forward.
    """

    x: list[int]
    y: list[int]
    tail: int
    x_bits: int
    slope_bits: int
    unit: float

    @property
    def corners(self) -> np.ndarray:
        """Where it bends, in units of the forward."""
        scale = Fraction(self.unit) * 2**self.x_bits
        return np.array([float(x / scale) for x in self.x])

    @property
    def slopes(self) -> np.ndarray:
        """Slopes to the right of each corner, in today's currency per unit forward."""
        steps = zip(
            self.x, self.y, [*self.x[1:], None], [*self.y[1:], None], strict=True
        )
        slopes = [
            self.tail if x1 is None or y1 is None else Fraction(y1 - y0, x1 - x0)
            for x0, y0, x1, y1 in steps
        ]
        return np.array(
            [float(Fraction(slope, 2**self.slope_bits)) for slope in slopes]
        )

    def at(self, points: Sequence[int]) -> list[int]:
        """Values at increasing points, rounded down between its corners."""
        values, j = [], 0
        x, y = self.x, self.y
        for point in points:
            while j + 1 < len(x) and x[j + 1] <= point:
                j += 1
            if j + 1 == len(x):
                values.append(y[j] + self.tail * (point - x[j]))
            else:
                rise = (y[j + 1] - y[j]) * (point - x[j])
                values.append(y[j] + rise // (x[j + 1] - x[j]))
        return values

    def plus(self, other: _Line) -> _Line:
        """The sum, rounded down."""
        x = sorted({*self.x, *other.x})
        y = [a + b for a, b in zip(self.at(x), other.at(x), strict=True)]
        return _Line(
            x, y, self.tail + other.tail, self.x_bits, self.slope_bits, self.unit
        )

    def hull(self) -> _Line:
        """The highest convex function below it."""
        x, y, kept = self.x, self.y, []
        for i in range(len(x)):
            while len(kept) > 1:
                a, b = kept[-2], kept[-1]
                if (y[b] - y[a]) * (x[i] - x[a]) < (y[i] - y[a]) * (x[b] - x[a]):
                    break
                kept.pop()
            kept.append(i)
        while len(kept) > 1:
            a, b = kept[-2], kept[-1]
            if y[b] - y[a] < self.tail * (x[b] - x[a]):
                break
            kept.pop()
        return _Line(
            [x[i] for i in kept],
            [y[i] for i in kept],
            self.tail,
            self.x_bits,
            self.slope_bits,
            self.unit,
        )


def _hulls(
    place: np.ndarray,
    strike: np.ndarray,
    is_call: np.ndarray,
    quantity: np.ndarray,
    forwards: np.ndarray,
    discounts: np.ndarray,
) -> list[_Line]:
    """The hulls $V_i$ of each expiry with options, rounded down."""
    unit = Fraction(float(forwards[0]))
    notional = [
        Fraction(float(d)) * Fraction(float(f))
        for d, f in zip(discounts, forwards, strict=True)
    ]
    slopes = [
        notional[i] * Fraction(amount)
        for i, amount in zip(place, quantity.tolist(), strict=True)
    ]
    spots = [
        Fraction(k) * unit / Fraction(float(forwards[i])) if i else Fraction(k)
        for i, k in zip(place, strike.tolist(), strict=True)
    ]
    # What floats can hold is exact: the strikes of the first expiry, and all slopes.
    exact = [unit, *(k for i, k in zip(place, spots, strict=True) if i == 0)]
    x_bits = max(_bits(exact), _SPOT_BITS - math.frexp(float(unit))[1])
    slope_bits = _bits(slopes)
    amounts = [int(slope * 2**slope_bits) for slope in slopes]
    # A long call and a short put lose by a higher strike, the others by a lower one.
    kinks = [
        math.ceil(k * 2**x_bits) if call == (a > 0) else math.floor(k * 2**x_bits)
        for k, call, a in zip(spots, is_call.tolist(), amounts, strict=True)
    ]
    later = _Line([0], [0], 0, x_bits, slope_bits, float(unit))
    hulls = []
    for i in reversed(range(len(forwards))):
        legs = np.flatnonzero(place == i).tolist()
        later = _payoff(
            [kinks[j] for j in legs],
            [bool(is_call[j]) for j in legs],
            [amounts[j] for j in legs],
            later,
        )
        hulls.append(later)
    return hulls[::-1]


def _payoff(
    kinks: list[int], is_call: list[bool], amounts: list[int], later: _Line
) -> _Line:
    """Hull of the payoff of one expiry's options with what follows."""
    bends: dict[int, int] = {}
    for kink, amount in zip(kinks, amounts, strict=True):
        bends[kink] = bends.get(kink, 0) + amount
    puts = [
        (k, a) for k, a, call in zip(kinks, amounts, is_call, strict=True) if not call
    ]
    x, y = [0], [sum(k * a for k, a in puts)]
    slope = -sum(a for _, a in puts)
    for kink in sorted(bends):
        y.append(y[-1] + slope * (kink - x[-1]))
        x.append(kink)
        slope += bends[kink]
    payoff = _Line(x, y, slope, later.x_bits, later.slope_bits, later.unit)
    return payoff.plus(later).hull()


@dataclass(frozen=True, eq=False)
class _FirstLine:
    """The hull of the first expiry as fractions, to which forwards and cash are added.

    Spots are in currency units of the first expiry, values in today's currency times
    `forward`.
    """

    points: list[tuple[Fraction, Fraction]]
    tail: Fraction
    forward: Fraction
    discount: Fraction

    def least(self, bought: float) -> Fraction | None:
        """Least value with forwards; None if it has no bound."""
        slope = self.discount * self.forward * Fraction(bought)
        if self.tail + slope < 0:
            return None
        return min(y + slope * (x - self.forward) for x, y in self.points)

    def worst(self, bought: float, cash: float) -> Fraction:
        """Least value with forwards and cash, in today's currency."""
        least = self.least(bought)
        if least is None:  # the forwards are chosen so that it is not
            raise ArithmeticError(f"{bought} forwards do not bound the loss")
        return least / self.forward + self.discount * Fraction(cash)

    def cheapest(self, step: float, largest: float) -> tuple[float, float]:
        """Forwards and cash that cost least; round numbers where these cost no more."""
        notional = self.discount * self.forward
        slope = self._slope()
        exact = float(-slope / notional)
        while self.tail + notional * Fraction(exact) < 0:
            exact = math.nextafter(exact, math.inf)
        best = self.least(exact)
        idle = Fraction(_IDLE * largest) * notional * self.forward
        bought = exact
        for candidate in (0.0, step * round(exact / step)):
            value = self.least(candidate)
            if value is not None and best is not None and value >= best - idle:
                bought = candidate
                break
        value = self.least(bought)
        if value is None:
            raise ArithmeticError("a payoff without a bound")
        if 0 <= value <= idle:
            return bought + 0.0, 0.0
        cash = float(-value / notional)
        if notional * Fraction(cash) < -value:
            cash = math.nextafter(cash, math.inf)
        return bought + 0.0, cash

    def _slope(self) -> Fraction:
        """Of the line that supports it at the forward, the nearest to level."""
        slopes = [
            (after[1] - before[1]) / (after[0] - before[0])
            for before, after in zip(self.points, self.points[1:], strict=False)
        ]
        slopes.append(self.tail)
        spots = [x for x, _ in self.points]
        before = slopes[max(sum(x < self.forward for x in spots) - 1, 0)]
        after = slopes[sum(x <= self.forward for x in spots) - 1]
        return min(max(Fraction(0), before), after)


def _first_line(hull: _Line, forward: float, discount: float) -> _FirstLine:
    """The hull of the first expiry, in fractions."""
    return _FirstLine(
        [
            (
                Fraction(x, 2**hull.x_bits),
                Fraction(y, 2 ** (hull.x_bits + hull.slope_bits)),
            )
            for x, y in zip(hull.x, hull.y, strict=True)
        ],
        Fraction(hull.tail, 2**hull.slope_bits),
        Fraction(float(forward)),
        Fraction(float(discount)),
    )


def _bits(values: Sequence[Fraction]) -> int:
    """Binary digits behind the point that hold all values, sums of powers of two."""
    return max(value.denominator.bit_length() - 1 for value in values)


def _rounded_down(value: Fraction) -> float:
    """The largest float that is not above a fraction."""
    rounded = float(value)
    return math.nextafter(rounded, -math.inf) if Fraction(rounded) > value else rounded

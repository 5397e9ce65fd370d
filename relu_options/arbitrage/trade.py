r"""Options of one or several expiries that cannot lose, in exact arithmetic.

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
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from relu_options.arbitrage.quotes import ROUNDING, QuotedChain, Surface

_SPOT_BITS = 96  # of a strike in the forward of another expiry
_QUANTITY_BITS = 40  # to which quantities are rounded up
_IDLE = 1e-10  # of the notional: what is left lying rather than traded


@dataclass(frozen=True, eq=False)
class Trade:
    """Quotes of one or several expiries, with forwards and cash, that cannot lose.

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
    _hulls: Sequence[_Line] = field(repr=False)

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
        corners, slopes = self._hulls[place].corners, self._hulls[place].slopes
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
        return self._hulls[place].corners


def cover_chain(
    *,
    expiry: ArrayLike,
    strike: ArrayLike,
    is_call: ArrayLike,
    quantity: ArrayLike,
    price: ArrayLike,
    forwards: ArrayLike,
    discount_factors: ArrayLike,
    signed: bool = False,
) -> Trade:
    """Add the cheapest forwards and cash with which options cannot lose.

    Args:
        expiry: Position of each option's expiry, of shape `(m,)`, from zero, in order
            of time.
        strike: Shape `(m,)`, positive, in currency units.
        is_call: Shape `(m,)`.
        quantity: Shape `(m,)`; positive is long. They are rounded up in their eleventh
            digit.
        price: Shape `(m,)`, in currency units paid today.
        forwards: Of all expiries, in currency units.
        discount_factors: Of all expiries.
        signed: Whether the underlying, and so strikes and forward, may be negative; of
            one expiry only.

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
    step = 2.0 ** (math.frexp(np.abs(quantity).max())[1] - _QUANTITY_BITS)
    quantity = step * np.ceil(quantity / step - 1e-3)
    if signed:
        # Options that are sold more than bought lose without a limit on one side: the
        # last bits of a solution are bought more.
        quantity[np.argmax(quantity)] += max(-math.fsum(quantity), 0.0)
    hulls = _hulls(place, strike, is_call, quantity, forwards, discounts, signed)
    first = _FirstLine(
        hulls[0], *(Fraction(float(x[0])) for x in (forwards, discounts))
    )
    bought, cash = first.cheapest(step, float(np.abs(quantity).max()))
    worst = first.worst(bought, cash)
    return Trade(
        expiries=tuple(spanned.tolist()),
        quotes=rows,
        quantity=quantity,
        forward_quantity=bought,
        cash_quantity=cash,
        cash_flow=-math.fsum([*(quantity * price), cash * float(discounts[0])]),
        worst_payoff=_rounded_down(worst),
        _forwards=forwards,
        _discount_factors=discounts,
        _hulls=hulls,
    )


def simplest_trade(
    quotes: QuotedChain, highest: Surface
) -> tuple[str, tuple[float, ...], np.ndarray]:
    """The trade with the fewest options that earns something.

    Within a family it is the one that earns most, within one expiry where one does. If
    none earns, the highest surface below the asks is above the bids.

    Args:
        quotes: Of which some bid is above the highest surface below the asks.
        highest: That surface.

    Returns:
        Family, strikes in currency units (zero is the forward itself), and what is
        traded of each quote, of shape `(m,)`: one of the smallest leg.
    """
    alone = highest
    if quotes.calendar:
        alone = quotes.highest_surface(quotes.high, calendar=False)
    short = quotes.shortfall(alone)
    if short.max() > ROUNDING:
        i = int(quotes.expiry[int((short * quotes.notional).argmax())])
        pair = _pair_of_one_expiry(quotes, i)
        if pair is None:
            own = quotes.own(i)
            sold = own.start + int(short[own].argmax())
            pair = "butterfly", _wings(quotes, alone, sold), sold
        family, bought, sold = pair
    else:
        short = (quotes.low - highest.time_value) * quotes.notional
        sold = int(np.nanargmax(short))
        bought = _wings(quotes, highest, sold)
        family = "calendar_butterfly" if len(bought) > 1 else "calendar_spread"
    traded = np.zeros(len(quotes.k))
    if sold is not None:
        traded[sold] = -1.0 / quotes.notional[sold]
    for quote, amount in bought.items():
        if quote >= 0:  # at a strike of zero is the forward, which covers
            traded[quote] = amount / quotes.notional[quote]
    traded /= np.abs(traded[traded != 0.0]).min()
    legs = [quote for quote in (*bought, sold) if quote is not None]
    strikes = {float(quotes.strike[quote]) if quote >= 0 else 0.0 for quote in legs}
    return family, tuple(sorted(strikes)), traded


_Pair: TypeAlias = tuple[str, dict[int, float], int | None]
"""Family, quotes bought with their amounts, and the quote sold, if any."""


def _pair_of_one_expiry(quotes: QuotedChain, expiry: int) -> _Pair | None:
    """One option against the forward and cash, or one against another; None if none."""
    own = quotes.own(expiry)
    order = own.start + np.argsort(quotes.k[own], kind="stable")
    k = quotes.k[order]
    intrinsic = np.maximum(1.0 - k, 0.0)
    lower = np.fmax(quotes.low[order], -np.inf) + intrinsic
    upper = np.fmin(quotes.high[order], np.inf) + intrinsic
    below, above = intrinsic - upper, lower - (np.inf if quotes.signed else 1.0)
    if max(below.max(), above.max()) > ROUNDING:
        if below.max() >= above.max():
            return "bounds", {int(order[below.argmax()]): 1.0}, None
        return "bounds", {}, int(order[above.argmax()])

    # Sold above the price of the same strike, of a lower one, or of a higher one and
    # the width; the quotes of one strike follow one another.
    _, first, strike = np.unique(k, return_index=True, return_inverse=True)
    crossed = lower - np.minimum.reduceat(upper, first)[strike]
    if crossed.max() > ROUNDING:
        place = int(crossed.argmax())
        bought = int(np.where(strike == strike[place], upper, np.inf).argmin())
        same = quotes.is_call[order[place]] == quotes.is_call[order[bought]]
        family = "call_spread" if same else "parity"
        return family, {int(order[bought]): 1.0}, int(order[place])
    rising = lower - np.minimum.accumulate(upper)
    wide = lower + k - np.minimum.accumulate((upper + k)[::-1])[::-1]
    if max(rising.max(), wide.max()) > ROUNDING:
        if rising.max() >= wide.max():
            place = int(rising.argmax())
            bought = int(upper[: place + 1].argmin())
        else:
            place = int(wide.argmax())
            bought = place + int((upper + k)[place:].argmin())
        return "call_spread", {int(order[bought]): 1.0}, int(order[place])
    return None


def _wings(quotes: QuotedChain, surface: Surface, sold: int) -> dict[int, float]:
    """The quotes at the corners around one that is above them, and their amounts."""
    i, k = quotes.expiry[sold], quotes.k[sold]
    corners, source = surface.corners[i], surface.source[i]
    left = max(int(np.searchsorted(corners, k, side="right")) - 1, 0)
    if corners[left] >= k or left + 1 == len(corners):
        return {int(source[left]): 1.0}
    share = float((k - corners[left]) / (corners[left + 1] - corners[left]))
    return {int(source[left]): 1.0 - share, int(source[left + 1]): share}


def legs_of(quotes: QuotedChain, trades: Sequence[Trade]) -> pd.DataFrame:
    """One row per leg of trades of these quotes; see `QuoteArbitrage.legs`."""
    parts = []
    for number, trade in enumerate(trades):
        rows, first = trade.quotes, trade.expiries[0]
        kind = np.where(quotes.is_call[rows], "call", "put").astype(object)
        paid = np.where(trade.quantity > 0.0, quotes.ask[rows], quotes.bid[rows])
        ends = [trade.forward_quantity, trade.cash_quantity]
        part = (
            np.full(len(rows) + 2, number),
            np.append(quotes.expiry[rows], [first, first]),
            np.append(quotes.strike[rows], [quotes.forwards[first], np.nan]),
            np.append(kind, ["forward", "cash"]),
            np.append(trade.quantity, ends),
            np.append(paid, [0.0, quotes.discount_factors[first]]),
        )
        held = part[4] != 0.0
        parts.append([column[held] for column in part])
    if not parts:
        parts = [[*np.zeros((2, 0), int), *np.zeros((4, 0))]]
    number, expiry, strike, kind, quantity, price = map(
        np.concatenate, zip(*parts, strict=True)
    )
    return pd.DataFrame(
        {
            "trade": number,
            "expiry": expiry,
            "strike": strike,
            "option_type": kind.astype(object),
            "side": np.where(quantity > 0.0, "buy", "sell"),
            "quantity": quantity,
            "price": price,
            "cash_flow": 0.0 - quantity * price,
        }
    )


def legs_in_words(legs: pd.DataFrame, expiries: Sequence[str]) -> str:
    """Legs and what they earn: buy 1 call 90 2019-06-21 AM at 12.1, ... earns 0.3.

    Args:
        legs: Of one trade, from `legs_of`.
        expiries: Names of the expiries; empty where there is one that has none.
    """
    words = []
    leg: Any
    for leg in legs.itertuples():
        when = f" {expiries[leg.expiry]}" if expiries else ""
        amount = f"{abs(leg.quantity):.6g}"
        if leg.option_type == "cash":
            verb = "lend" if leg.side == "buy" else "borrow"
            amount = f"{abs(leg.cash_flow):.6g}"
            words.append(f"{verb} {amount} until{when or ' expiry'}")
        elif leg.option_type == "forward":
            words.append(f"{leg.side} {amount} forward{when} at {leg.strike:.10g}")
        else:
            words.append(
                f"{leg.side} {amount} {leg.option_type} {leg.strike:.10g}{when} at "
                f"{leg.price:.6g}"
            )
    return f"{', '.join(words)} earns {legs['cash_flow'].sum():.6g}"


@dataclass(frozen=True, eq=False)
class _Line:
    """A continuous piecewise linear function on spots from zero on, in integers.

    Spots are those of any expiry in units of its forward, times the first forward.
    Values are in today's currency times the first forward, which makes the slopes exact
    sums of $D F q$.

    Attributes:
        x: Where it bends, from zero on (from the first strike on if the underlying may
            be negative), times `2**x_bits`.
        y: Its values there, times `2**(x_bits + slope_bits)`.
        tail: Its slope beyond, times `2**slope_bits`.
        unit: The first forward; 1 if the underlying may be negative.
        head: Likewise its slope before, if there is anything before.
    """

    x: list[int]
    y: list[int]
    tail: int
    x_bits: int
    slope_bits: int
    unit: float
    head: int | None = None

    @cached_property
    def corners(self) -> np.ndarray:
        """Where it bends, in units of the forward."""
        scale = Fraction(self.unit) * 2**self.x_bits
        return np.array([float(x / scale) for x in self.x])

    @cached_property
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
        while len(kept) > 1 and self.head is not None:
            a, b = kept[0], kept[1]
            if y[b] - y[a] > self.head * (x[b] - x[a]):
                break
            kept.pop(0)
        return replace(self, x=[x[i] for i in kept], y=[y[i] for i in kept])


def _hulls(
    place: np.ndarray,
    strike: np.ndarray,
    is_call: np.ndarray,
    quantity: np.ndarray,
    forwards: np.ndarray,
    discounts: np.ndarray,
    signed: bool,
) -> list[_Line]:
    """The hulls $V_i$ of each expiry with options, rounded down."""
    units = np.ones(1) if signed else forwards
    unit = Fraction(float(units[0]))
    notional = [
        Fraction(float(d)) * Fraction(float(f))
        for d, f in zip(discounts, units, strict=True)
    ]
    slopes = [
        notional[i] * Fraction(amount)
        for i, amount in zip(place, quantity.tolist(), strict=True)
    ]
    spots = [
        Fraction(k) * unit / Fraction(float(units[i])) if i else Fraction(k)
        for i, k in zip(place, strike.tolist(), strict=True)
    ]
    # What floats can hold is exact: the strikes of the first expiry, and all slopes.
    exact = [unit, Fraction(float(forwards[0]))]
    exact += [k for i, k in zip(place, spots, strict=True) if i == 0]
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
    for i in reversed(range(len(units))):
        legs = np.flatnonzero(place == i).tolist()
        later = _payoff(
            [kinks[j] for j in legs],
            [bool(is_call[j]) for j in legs],
            [amounts[j] for j in legs],
            later,
            signed,
        )
        hulls.append(later)
    return hulls[::-1]


def _payoff(
    kinks: list[int],
    is_call: list[bool],
    amounts: list[int],
    later: _Line,
    signed: bool,
) -> _Line:
    """Hull of the payoff of one expiry's options with what follows."""
    bends: dict[int, int] = {}
    for kink, amount in zip(kinks, amounts, strict=True):
        bends[kink] = bends.get(kink, 0) + amount
    puts = [
        (k, a) for k, a, call in zip(kinks, amounts, is_call, strict=True) if not call
    ]
    start = min(kinks) if signed else 0
    x, y = [start], [sum((k - start) * a for k, a in puts)]
    head = slope = -sum(a for _, a in puts)
    for kink in sorted(bends):
        y.append(y[-1] + slope * (kink - x[-1]))
        x.append(kink)
        slope += bends[kink]
    payoff = replace(later, x=x, y=y, tail=slope)
    if signed:
        return replace(payoff, head=head).hull()
    return payoff.plus(later).hull()


@dataclass(frozen=True, eq=False)
class _FirstLine:
    """The hull of the first expiry, to which forwards and cash are added."""

    hull: _Line
    forward: Fraction
    discount: Fraction

    @property
    def at(self) -> int:
        """The forward among the spots of the hull."""
        return int(self.forward * 2**self.hull.x_bits)

    @property
    def notional(self) -> Fraction:
        """Slope of one forward."""
        return self.discount * Fraction(self.hull.unit)

    def slope_of(self, bought: float) -> Fraction:
        """Slope of forwards, in the unit of the hull's."""
        return self.notional * Fraction(bought) * 2**self.hull.slope_bits

    def is_bounded(self, bought: float) -> bool:
        """Whether with forwards it falls without limit on neither side."""
        head, tail, slope = self.hull.head, self.hull.tail, self.slope_of(bought)
        return tail + slope >= 0 and (head is None or head + slope <= 0)

    def least(self, bought: float) -> Fraction | None:
        """Least value with forwards, in today's currency; None if it has no bound."""
        if not self.is_bounded(bought):
            return None
        hull, slope, at = self.hull, self.slope_of(bought), self.at
        unit, rise = slope.denominator, slope.numerator
        value = min(
            y * unit + rise * (x - at) for x, y in zip(hull.x, hull.y, strict=True)
        )
        value = Fraction(value, unit << hull.x_bits + hull.slope_bits)
        return value / Fraction(hull.unit)

    def worst(self, bought: float, cash: float) -> Fraction:
        """Least value with forwards and cash, in today's currency."""
        least = self.least(bought)
        if least is None:  # the forwards are chosen so that it is not
            raise ArithmeticError(f"{bought} forwards do not bound the loss")
        return least + self.discount * Fraction(cash)

    def cheapest(self, step: float, largest: float) -> tuple[float, float]:
        """Forwards and cash that cost least; round numbers where these cost no more."""
        exact = float(-self._slope() / self.notional)
        while self.hull.tail + self.slope_of(exact) < 0:
            exact = math.nextafter(exact, math.inf)
        bought, value = exact, self.least(exact)
        if value is None:
            raise ArithmeticError("a payoff without a bound")
        idle = Fraction(_IDLE * largest) * self.notional
        for candidate in (0.0, step * round(exact / step)):
            other = self.least(candidate)
            if other is not None and other >= value - idle:
                bought, value = candidate, other
                break
        if 0 <= value <= idle:
            return bought + 0.0, 0.0
        cash = float(-value / self.discount)
        if self.discount * Fraction(cash) < -value:
            cash = math.nextafter(cash, math.inf)
        return bought + 0.0, cash

    def _slope(self) -> Fraction:
        """Of the line that supports it at the forward, the nearest to level."""
        hull = self.hull
        ends = [hull.tail] if hull.head is None else [hull.head, hull.tail]
        steps = list(pairwise(zip(hull.x, hull.y, strict=True)))
        slopes = [
            *(Fraction(end) for end in ends[:-1]),
            *(Fraction(y1 - y0, x1 - x0) for (x0, y0), (x1, y1) in steps),
            Fraction(hull.tail),
        ]
        inside = len(ends) - 2  # of slopes before that of the first corner
        before = slopes[max(bisect_left(hull.x, self.at) + inside, 0)]
        after = slopes[bisect_right(hull.x, self.at) + inside]
        return min(max(Fraction(0), before), after) / 2**hull.slope_bits


def _bits(values: Sequence[Fraction]) -> int:
    """Binary digits behind the point that hold all values, sums of powers of two."""
    return max(value.denominator.bit_length() - 1 for value in values)


def _rounded_down(value: Fraction) -> float:
    """The largest float that is not above a fraction."""
    rounded = float(value)
    return math.nextafter(rounded, -math.inf) if Fraction(rounded) > value else rounded

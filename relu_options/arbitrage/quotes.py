r"""Quotes that have been checked, and the highest prices without arbitrage below them.

Call prices of all expiries are compared as $c_i(k) = C_i / (D_i F_i)$ at $k = K / F_i$,
puts turned into calls by parity. Time values, $c_i - (1 - k)^+$, are the same for the
call and the put of a strike; out of the money they are the prices, with all their
digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from relu_options.errors import QuoteError, require_forward, require_positive

ROUNDING = 1e-10
"""Of the forward: prices that differ by less are taken as equal."""

SHOWN = 3
"""How many quotes a message names."""

Curves: TypeAlias = tuple[np.ndarray, ...]
"""An array of each expiry."""


def bound_violations(
    *,
    strike: ArrayLike,
    bid: ArrayLike,
    ask: ArrayLike,
    is_call: ArrayLike,
    forward: float,
    discount_factor: float,
    labels: Sequence[object] | pd.Index | None = None,
    signed: bool = False,
) -> pd.DataFrame:
    r"""Quotes offered below intrinsic value, or wanted above their upper bound.

    A call is worth from $D \max(F - K, 0)$ to $D F$, a put from $D \max(K - F, 0)$ to
    $D K$. Outside of these no volatility explains a price. Where the underlying may be
    negative there is no upper bound.

    Args:
        strike: As for `least_excess`, like those that follow.
        bid: Currency units paid today.
        ask: Currency units paid today.
        is_call: True for calls.
        forward: Currency units.
        discount_factor: Price today of one unit of currency paid at expiry.
        labels: Of the quotes, for the index of the table; by default their positions.
        signed: Whether the underlying may be negative.

    Returns:
        One row per violation, indexed by label: `strike`, `option_type`, `bid`, `ask`,
        `bound` ("below_intrinsic" or "above_bound"), `bound_price` and `size` (by how
        much the bound is missed, in currency units paid today). No rows if none.

    Raises:
        ValueError: As `least_excess`, or if there are not as many labels as quotes.
        QuoteError: As `least_excess`.

    Examples:
        >>> table = bound_violations(strike=[90.0, 100.0], bid=[9.0, 3.0],
        ...                          ask=[9.5, 3.2], is_call=True, forward=100.0,
        ...                          discount_factor=1.0, labels=["deep", "near"])
        >>> print(table[["strike", "ask", "bound", "bound_price", "size"]])
              strike  ask            bound  bound_price  size
        deep    90.0  9.5  below_intrinsic         10.0   0.5
    """
    quotes = CheckedQuotes.of(
        strike, bid, ask, is_call, forward, discount_factor, signed
    )
    index = pd.RangeIndex(len(quotes.strike)) if labels is None else pd.Index(labels)
    if len(index) != len(quotes.strike):
        raise ValueError(f"{len(index)} labels for {len(quotes.strike)} quotes")
    floor = quotes.discount_factor * quotes.intrinsic
    cap = np.where(quotes.is_call, quotes.forward, quotes.strike)
    cap = np.full_like(cap, np.inf) if signed else quotes.discount_factor * cap
    below, above = floor - quotes.ask, quotes.bid - cap
    rounding = ROUNDING * quotes.discount_factor * quotes.unit
    is_below = below > rounding
    rows = np.flatnonzero(is_below | (above > rounding))
    table = pd.DataFrame(
        {
            "strike": quotes.strike,
            "option_type": np.where(quotes.is_call, "call", "put"),
            "bid": quotes.bid,
            "ask": quotes.ask,
            "bound": np.where(is_below, "below_intrinsic", "above_bound"),
            "bound_price": np.where(is_below, floor, cap),
            "size": np.where(is_below, below, above),
        },
        index=index,
    )
    return table.iloc[rows]


def half_spreads(bid: np.ndarray, ask: np.ndarray) -> np.ndarray:
    """Half of ask minus bid; the median of the others where a quote has no width.

    Args:
        bid: Of one expiry, of shape `(m,)`, in currency units; NaN where unknown.
        ask: Likewise.

    Returns:
        Positive numbers, of shape `(m,)`. A quote without a width is locked or has one
        side only.

    Raises:
        QuoteError: If no quote has a width.

    Examples:
        >>> print(half_spreads(np.array([1.0, 2.0, 3.0]), np.array([1.2, 2.0, 3.6])))
        [0.1 0.2 0.3]
    """
    width = 0.5 * (ask - bid)
    wide = width > 0.0
    if not wide.any():
        raise QuoteError(
            f"none of {len(width)} quotes has a spread to count in: they are mids, or "
            'bids equal to asks; use `unit="currency"`'
        )
    return np.where(wide, width, np.median(width[wide]))


def positive_weights(weights: ArrayLike | None, count: int) -> np.ndarray:
    """Weights of the quotes of one expiry, of shape `(count,)`; by default all 1."""
    weights = np.ones(count) if weights is None else np.asarray(weights, float)
    if weights.shape != (count,) or not (np.isfinite(weights) & (weights > 0)).all():
        raise ValueError(
            f"weights are {count} positive numbers, one per quote, not {weights!r}"
        )
    return weights


@dataclass(frozen=True, eq=False)
class CheckedQuotes:
    """Quotes of one expiry that have been checked; arrays of shape `(m,)`.

    `signed` says whether the underlying may be negative.
    """

    strike: np.ndarray
    bid: np.ndarray
    ask: np.ndarray
    is_call: np.ndarray
    forward: float
    discount_factor: float
    signed: bool = False

    @classmethod
    def of(
        cls,
        strike: ArrayLike,
        bid: ArrayLike,
        ask: ArrayLike,
        is_call: ArrayLike,
        forward: float,
        discount_factor: float,
        signed: bool = False,
    ) -> CheckedQuotes:
        """The arguments as arrays, after checking them."""
        require_forward(forward, signed=signed)
        require_positive(discount_factor=discount_factor)
        strike, bid, ask = (np.asarray(values, float) for values in (strike, bid, ask))
        flags = np.asarray(is_call, bool)
        if strike.ndim != 1 or not len(strike):
            raise ValueError(f"strikes have shape `(m,)` and m > 0, not {strike.shape}")
        if {bid.shape, ask.shape, flags.shape} - {strike.shape, ()}:
            raise ValueError(
                f"shapes differ: strike {strike.shape}, bid {bid.shape}, ask "
                f"{ask.shape}, is_call {flags.shape}"
            )
        bid, ask, flags = (
            values if values.ndim else np.full(strike.shape, values)
            for values in (bid, ask, flags)
        )
        faults = {
            f"strike not {'finite' if signed else 'positive'}": ~(
                np.isfinite(strike) & (signed | (strike > 0.0))
            ),
            "neither bid nor ask": np.isnan(bid) & np.isnan(ask),
            "negative or infinite quote": (bid < 0.0)
            | (ask < 0.0)
            | np.isinf(bid + ask),
            "bid above ask": bid > ask,
        }
        for meaning, bad in faults.items():
            if bad.any():
                rows = np.flatnonzero(bad)
                shown = ", ".join(
                    f"strike {strike[row]:.10g} ({bid[row]:.10g} / {ask[row]:.10g})"
                    for row in rows[:SHOWN]
                )
                more = ", ..." if len(rows) > SHOWN else ""
                raise QuoteError(
                    f"{meaning} in {len(rows)} of {len(strike)} quotes: {shown}{more}; "
                    "drop these quotes"
                )
        return cls(
            strike, bid, ask, flags, float(forward), float(discount_factor), signed
        )

    @property
    def intrinsic(self) -> np.ndarray:
        """Undiscounted intrinsic value of each option."""
        ahead = self.forward - self.strike
        return np.maximum(np.where(self.is_call, ahead, -ahead), 0.0)

    @property
    def unit(self) -> float:
        """What prices are compared with: the forward, or the farthest strike from it.

        The latter where the underlying may be negative, and the forward zero.
        """
        if not self.signed:
            return self.forward
        return max(float(np.abs(self.strike - self.forward).max()), abs(self.forward))


@dataclass(frozen=True, eq=False)
class QuotedChain:
    """Quotes of one or several expiries, which follow one another in arrays `(m,)`.

    Attributes:
        starts: Where the quotes of each expiry start, and where the last ones end.
        expiry: Position of each quote's expiry.
        strike: Currency units.
        bid: Currency units paid today; NaN where unknown.
        ask: Likewise.
        is_call: True for calls.
        forwards: Of each expiry, in currency units.
        discount_factors: Of each expiry.
        weights: How much a unit of currency outside of each quote counts.
        calendar: Whether the expiries are related.
        signed: Whether the underlying may be negative. What excludes arbitrage is then
            the same wherever strikes and forward are moved together, and its quotes are
            those on a forward that is its unit, without a price at a strike of zero.
        units: Of each expiry: the forward; see `CheckedQuotes.unit`.
        k: Strikes in that unit.
        intrinsic: Of each option, in units of the discounted forward, like those below.
        low: Bid minus intrinsic value.
        high: Ask minus intrinsic value.
    """

    starts: tuple[int, ...]
    expiry: np.ndarray
    strike: np.ndarray
    bid: np.ndarray
    ask: np.ndarray
    is_call: np.ndarray
    forwards: np.ndarray
    discount_factors: np.ndarray
    weights: np.ndarray
    calendar: bool
    signed: bool
    units: np.ndarray = field(repr=False)
    k: np.ndarray = field(repr=False)
    intrinsic: np.ndarray = field(repr=False)
    low: np.ndarray = field(repr=False)
    high: np.ndarray = field(repr=False)

    @classmethod
    def of(
        cls, quotes: Sequence[CheckedQuotes], weights: np.ndarray, calendar: bool = True
    ) -> QuotedChain:
        """Quotes of each expiry, the earliest first, and the weights of all."""
        strike, bid, ask, is_call, intrinsic = (
            np.concatenate([getattr(one, name) for one in quotes])
            for name in ("strike", "bid", "ask", "is_call", "intrinsic")
        )
        forwards = np.array([one.forward for one in quotes])
        discounts = np.array([one.discount_factor for one in quotes])
        counts = [len(one.strike) for one in quotes]
        expiry = np.repeat(np.arange(len(quotes)), counts)
        signed = any(one.signed for one in quotes)
        units = np.array([one.unit for one in quotes])
        unit, discount = units[expiry], discounts[expiry]
        moved = strike + (units - forwards)[expiry] if signed else strike
        return cls(
            (0, *accumulate(counts)),
            expiry,
            strike,
            bid,
            ask,
            is_call,
            forwards,
            discounts,
            weights,
            calendar and len(quotes) > 1,
            signed,
            units,
            moved / unit,
            intrinsic / unit,
            (bid / discount - intrinsic) / unit,
            (ask / discount - intrinsic) / unit,
        )

    @property
    def notional(self) -> np.ndarray:
        """Discounted unit of each quote's expiry, in currency units."""
        return (self.discount_factors * self.units)[self.expiry]

    def own(self, expiry: int) -> slice:
        """Where the quotes of an expiry are."""
        return slice(*self.starts[expiry : expiry + 2])

    def excess(self, fitted: np.ndarray) -> np.ndarray:
        """How far time values are outside each quote, in currency; no roundings."""
        outside = np.fmax(np.fmax(self.low - fitted, fitted - self.high), 0.0)
        return self.notional * np.where(outside > ROUNDING, outside, 0.0)

    def shortfall(self, surface: Surface) -> np.ndarray:
        """How far the surface is below each bid and intrinsic value."""
        return np.fmax(self.low, 0.0) - surface.time_value

    def highest_surface(
        self, time_value: np.ndarray, *, calendar: bool | None = None
    ) -> Surface:
        """The highest surface that is at or below given time values of the quotes."""
        linked = self.calendar if calendar is None else calendar
        call_intrinsic = np.maximum(1.0 - self.k, 0.0)
        call = time_value + call_intrinsic
        start = 0 if self.signed else 1  # a strike of zero, where there is one
        origin = np.zeros(start), np.ones(start), np.full(start, -1)
        x, y, source = origin
        height = np.empty(len(call))
        curves = []
        for i in reversed(range(len(self.forwards))):
            if not linked:
                x, y, source = origin
            own = self.own(i)
            quoted = np.flatnonzero(~np.isnan(call[own])) + own.start
            x, y = np.append(x, self.k[quoted]), np.append(y, call[quoted])
            source = np.append(source, quoted)
            if not len(x):  # nothing is above, and it passes above all bids
                x, y = np.ones(1), np.fmax(self.low[own], 0.0).max(keepdims=True)
                source = np.full(1, -1)
            order = np.lexsort((y, x))
            order = order[np.append(True, np.diff(x[order]) > 0.0)]
            corners = order[lower_hull(x[order], y[order], steep=not self.signed)]
            x, y, source = x[corners], y[corners], source[corners]
            height[own] = np.interp(self.k[own], x, y)
            if self.signed:
                height[own] += np.maximum(x[0] - self.k[own], 0.0)
            curves.append((x, y, source))
        x, y, source = zip(*reversed(curves), strict=True)
        return Surface(height - call_intrinsic, x, y, source)


@dataclass(frozen=True, eq=False)
class Surface:
    """A surface of convex curves, each below all later ones.

    Attributes:
        time_value: At the quotes, of shape `(m,)`, in units of the discounted forward.
        corners: Of each expiry: strikes, in units of the forward, from zero on.
        calls: Of each expiry: call prices there, in units of the discounted forward.
        source: Of each expiry: the quote that each corner comes from; -1 at zero.
    """

    time_value: np.ndarray
    corners: Curves
    calls: Curves
    source: Curves


def lower_hull(x: np.ndarray, y: np.ndarray, *, steep: bool = True) -> list[int]:
    """Corners of the highest convex, nowhere rising curve below points.

    `x` increases. Beyond the last corner the curve is level. Unless `steep`, no slope
    is below -1, which it has before the first corner.
    """
    xs, ys = x.tolist(), y.tolist()
    hull: list[int] = []
    for i, (c, d) in enumerate(zip(xs, ys, strict=True)):
        while len(hull) > 1:
            a, b = hull[-2], hull[-1]
            x0, y0 = xs[a], ys[a]
            if (ys[b] - y0) * (c - x0) < (d - y0) * (xs[b] - x0):
                break
            hull.pop()
        hull.append(i)
    while len(hull) > 1 and ys[hull[-1]] >= ys[hull[-2]]:
        hull.pop()
    while len(hull) > 1 and not steep:
        a, b = hull[0], hull[1]
        if ys[b] - ys[a] > xs[a] - xs[b]:
            break
        hull.pop(0)
    return hull

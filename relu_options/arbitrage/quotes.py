"""Arbitrage in quotes: the nearest price curve, and the trade that earns the rest.

The nearest curve solves a linear programme; its dual is a portfolio of the quotes, made
to pay nothing at worst in exact arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.optimize import linprog
from scipy.sparse import csr_array

from relu_options.errors import (
    ArbitrageError,
    FitError,
    QuoteError,
    require_forward,
    require_positive,
)

ROUNDING = 1e-10
"""Of the forward: prices that differ by less are taken as equal."""

_SOLVER_TOLERANCE = 1e-10  # the smallest that HiGHS takes
_QUANTITY_BITS = 44  # to which quantities are rounded: sums of 512 are exact
_SHOWN = 3


@dataclass(frozen=True, eq=False)
class QuoteArbitrage:
    """How near a price curve without arbitrage can come to quotes of one expiry.

    Attributes:
        strike: Of the quotes, of shape `(m,)`, in currency units.
        bid: Of shape `(m,)`, in currency units paid today; NaN where unknown.
        ask: Likewise.
        is_call: Of shape `(m,)`.
        forward: Currency units.
        discount_factor: Price today of one unit of currency paid at expiry.
        excess: Of shape `(m,)`: by how much the nearest curve is below the bid or above
            the ask, in currency units paid today; zero inside.
        total_excess: Sum of the excesses, each times its weight; in currency units
            where no weights were given. It is what `trade` earns.
        strikes: Distinct strikes, increasing, of shape `(n,)`.
        call_prices: The nearest curve's call prices there, in currency units paid
            today. Straight lines between them, and to the forward at a strike of zero,
            are a price curve.
        quantity: Of shape `(m,)`: the quotes that `trade` buys (positive) and sells
            (negative).
        family: The simplest trade that earns something: "bounds", "parity",
            "call_spread" or "butterfly"; None if there is none.
        family_strikes: Its strikes; a strike of zero is the forward itself.
        simplest_quantity: Of shape `(m,)`: the quotes that `simplest_trade` trades.
        signed: Whether the underlying may be negative: the curve then ends in straight
            lines of slope -1 and 0 in the undiscounted price.

    Examples:
        A call struck at 110 that is wanted above where one struck at 100 is offered.

        >>> result = least_excess(strike=[100.0, 110.0], bid=[3.9, 4.5],
        ...                       ask=[4.1, 4.7], is_call=True, forward=100.0,
        ...                       discount_factor=1.0)
        >>> result.is_arbitrage_free, result.family, result.family_strikes
        (False, 'call_spread', (100.0, 110.0))
        >>> print(result.excess.round(6).sum())
        0.4
    """

    strike: np.ndarray = field(repr=False)
    bid: np.ndarray = field(repr=False)
    ask: np.ndarray = field(repr=False)
    is_call: np.ndarray = field(repr=False)
    forward: float
    discount_factor: float
    excess: np.ndarray = field(repr=False)
    total_excess: float
    strikes: np.ndarray = field(repr=False)
    call_prices: np.ndarray = field(repr=False)
    quantity: np.ndarray = field(repr=False)
    family: str | None
    family_strikes: tuple[float, ...]
    simplest_quantity: np.ndarray = field(repr=False)
    signed: bool = False

    @property
    def is_arbitrage_free(self) -> bool:
        """Whether a price curve passes inside every bid and ask, up to `ROUNDING`."""
        return not self.excess.any()

    @property
    def share_inside(self) -> float:
        """Share of the quotes inside which the nearest curve passes."""
        return float(np.mean(self.excess == 0.0))

    def trade(self) -> pd.DataFrame:
        """The portfolio of quotes that earns `total_excess` today and cannot lose.

        Its quantities are the dual variables of the programme: what a quote's bid or
        ask would have to move for the total excess to change by one. No quantity
        exceeds the weight of its quote (1 where none were given), and no portfolio
        within these limits earns more. Forward and cash legs make its payoff
        non-negative for every spot, exactly, not merely up to rounding.

        Returns:
            One row per leg, with columns `strike`, `option_type` ("call", "put",
            "forward" or "cash"), `side` ("buy" or "sell"), `quantity` (positive is
            long), `price` (paid today: asks where bought, bids where sold) and
            `cash_flow` (received today). A forward at the forward price costs nothing
            and pays the spot minus it; a unit of cash pays 1 at expiry. No rows if the
            quotes are free of arbitrage.
        """
        return self._legs(self.quantity)

    def simplest_trade(self) -> pd.DataFrame:
        """The trade with the fewest options that earns something and cannot lose.

        Its smallest option leg is 1. See `trade` for the columns.
        """
        return self._legs(self.simplest_quantity)

    def describe(self) -> str:
        """What is wrong with the quotes, in one sentence that names the trade."""
        count = len(self.excess)
        if self.is_arbitrage_free:
            return (
                "no static arbitrage: a price curve passes inside the bid and ask of "
                f"all {count} quotes"
            )
        legs = self.simplest_trade()
        outside = np.flatnonzero(self.excess)
        shown = ", ".join(
            f"{'call' if self.is_call[row] else 'put'} {self.strike[row]:.10g} "
            f"({self.excess[row]:.3g})"
            for row in outside[:_SHOWN]
        )
        more = ", ..." if len(outside) > _SHOWN else ""
        return (
            f"static arbitrage in {count} quotes: {self.family} "
            f"{'-'.join(f'{strike:.10g}' for strike in self.family_strikes)}: "
            f"{', '.join(_leg_in_words(leg) for leg in legs.itertuples())} earns "
            f"{legs['cash_flow'].sum():.6g} today and cannot lose; the nearest price "
            f"curve is outside {len(outside)} of {count} quotes: {shown}{more}; drop "
            "or widen these quotes, or fit with the least excess"
        )

    def _legs(self, quantity: np.ndarray) -> pd.DataFrame:
        """Quotes with the forward and cash that make their payoff non-negative."""
        rows = np.flatnonzero(quantity)
        rows = rows[np.lexsort((~self.is_call[rows], self.strike[rows]))]
        strike, is_call = self.strike[rows], self.is_call[rows]
        quantity, forwards, cash = _cover(
            strike, is_call, quantity[rows], self.forward, signed=self.signed
        )
        strike = np.append(strike, [self.forward, np.nan])
        kind = [*np.where(is_call, "call", "put").tolist(), "forward", "cash"]
        price = np.where(quantity > 0.0, self.ask[rows], self.bid[rows])
        price = np.append(price, [0.0, self.discount_factor])
        quantity = np.append(quantity, [forwards, cash])
        table = pd.DataFrame(
            {
                "strike": strike,
                "option_type": kind,
                "side": np.where(quantity > 0.0, "buy", "sell"),
                "quantity": quantity,
                "price": price,
                "cash_flow": 0.0 - quantity * price,
            }
        )
        return table[quantity != 0.0].reset_index(drop=True)


def least_excess(
    *,
    strike: ArrayLike,
    bid: ArrayLike,
    ask: ArrayLike,
    is_call: ArrayLike,
    forward: float,
    discount_factor: float,
    weights: ArrayLike | None = None,
    signed: bool = False,
) -> QuoteArbitrage:
    r"""Price curve without arbitrage that is least outside the bids and asks.

    With undiscounted call prices $c_j$ at the distinct strikes as unknowns, and puts
    turned into calls by parity, it solves the linear programme

    $$
    \text{minimise} \; \sum_i w_i e_i \quad \text{subject to} \quad
    \text{bid}_i - e_i \le p_i \le \text{ask}_i + e_i, \; e_i \ge 0,
    $$

    $p_i$ being today's price of option $i$ on a curve that is convex in the strike,
    with slopes in $[-1, 0]$ and $c(0) = F$, which does not hold where the underlying
    may be negative. Three non-zeros a row, whatever the number
    of strikes. Whether the total is zero is decided first, without the programme: the
    highest convex curve below all asks must be nowhere below a bid.

    Args:
        strike: Shape `(m,)`, positive unless `signed`, in currency units, in any order;
            a call and a put, or several quotes of one option, may share a strike.
        bid: Shape `(m,)`, in currency units paid today; NaN where unknown.
        ask: Likewise. Equal to `bid` for a price that must be met.
        is_call: Shape `(m,)`, or one value for all.
        forward: Currency units.
        discount_factor: Price today of one unit of currency paid at expiry.
        weights: How much a unit of excess counts, of shape `(m,)` and positive; one
            over the half-spread counts it in half-spreads. By default all 1.
        signed: Whether the underlying may be negative, and so strikes and forward.

    Returns:
        The excess of each quote, the curve, and the trades that earn an arbitrage.

    Raises:
        ValueError: If shapes differ, or forward (unless `signed`), discount factor or a
            weight is not positive.
        QuoteError: If a strike is not positive, a quote is negative or has neither bid
            nor ask, or a bid is above its ask; the message names the quotes.
        FitError: If HiGHS does not solve the programme.

    Examples:
        These calls are offered and wanted at one price each; the butterfly at 90, 100
        and 110 costs 12.1 - 2 * 8.0 + 3.6, which is -0.3. Lowering the price at 100 by
        0.15 is the least that mends it.

        >>> price = np.array([20.9, 12.1, 8.0, 3.6])
        >>> result = least_excess(strike=[80.0, 90.0, 100.0, 110.0], bid=price,
        ...                       ask=price, is_call=True, forward=100.0,
        ...                       discount_factor=1.0)
        >>> print(result.excess.round(6), round(result.total_excess, 6))
        [0.   0.   0.15 0.  ] 0.15
        >>> print(result.simplest_trade())
           strike option_type  side  quantity  price  cash_flow
        0    90.0        call   buy       1.0   12.1      -12.1
        1   100.0        call  sell      -2.0    8.0       16.0
        2   110.0        call   buy       1.0    3.6       -3.6

        With 0.08 more to pay and less to receive everywhere, the trade costs money.

        >>> wide = least_excess(strike=[80.0, 90.0, 100.0, 110.0], bid=price - 0.08,
        ...                     ask=price + 0.08, is_call=True, forward=100.0,
        ...                     discount_factor=1.0)
        >>> wide.is_arbitrage_free, wide.share_inside
        (True, 1.0)
    """
    quotes = _read_quotes(
        strike, bid, ask, is_call, forward, discount_factor, signed=signed
    )
    count = len(quotes.strike)
    weights = _checked_weights(weights, count)
    best = _BestPrices.of(quotes)
    rounding = ROUNDING * quotes.unit
    simplest = quantity = excess = np.zeros(count)
    family, family_strikes, total_excess = None, (), 0.0
    if best.shortfall.max() <= rounding:
        call_prices = best.highest_curve
    else:
        time_value, quantity = _solve(quotes, weights)
        low, high = quotes.time_value_range
        fitted = time_value[quotes.node]
        excess = np.fmax(np.fmax(low - fitted, fitted - high), 0.0)
        excess = quotes.discount_factor * np.where(excess > rounding, excess, 0.0)
        total_excess = float(weights @ excess)
        call_prices = time_value + quotes.intrinsic
        if total_excess > 0.0:
            family, family_strikes, simplest = _simplest_trade(quotes, best, rounding)
        else:
            quantity = np.zeros(count)
    return QuoteArbitrage(
        strike=quotes.strike,
        bid=quotes.bid,
        ask=quotes.ask,
        is_call=quotes.is_call,
        forward=quotes.forward,
        discount_factor=quotes.discount_factor,
        excess=excess,
        total_excess=total_excess,
        strikes=quotes.nodes,
        call_prices=quotes.discount_factor * call_prices,
        quantity=quantity,
        family=family,
        family_strikes=family_strikes,
        simplest_quantity=simplest,
        signed=signed,
    )


def check_quote_arbitrage(
    *,
    strike: ArrayLike,
    bid: ArrayLike,
    ask: ArrayLike,
    is_call: ArrayLike,
    forward: float,
    discount_factor: float,
    signed: bool = False,
) -> None:
    """Raise if no price curve passes inside every bid and ask.

    Args:
        strike: As for `least_excess`, like all the others.
        bid: Currency units paid today.
        ask: Currency units paid today.
        is_call: True for calls.
        forward: Currency units.
        discount_factor: Price today of one unit of currency paid at expiry.
        signed: Whether the underlying may be negative.

    Raises:
        ArbitrageError: If there is none, naming the simplest trade that earns the
            arbitrage and the quotes that a nearest curve is outside of.

    Examples:
        A call struck at 110 that is wanted above where one struck at 100 is offered.

        >>> check_quote_arbitrage(strike=[100.0, 110.0], bid=[3.9, 4.5],
        ...                       ask=[4.1, 4.7], is_call=True, forward=100.0,
        ...                       discount_factor=0.99
        ... )  # doctest: +NORMALIZE_WHITESPACE, +ELLIPSIS
        Traceback (most recent call last):
            ...
        relu_options.errors.ArbitrageError: static arbitrage in 2 quotes: call_spread
            100-110: buy 1 call 100 at 4.1, sell 1 call 110 at 4.5 earns 0.4 today and
            cannot lose; the nearest price curve is outside 1 of 2 quotes: ...
    """
    result = least_excess(
        strike=strike,
        bid=bid,
        ask=ask,
        is_call=is_call,
        forward=forward,
        discount_factor=discount_factor,
        signed=signed,
    )
    if not result.is_arbitrage_free:
        raise ArbitrageError(result.describe())


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
    quotes = _read_quotes(
        strike, bid, ask, is_call, forward, discount_factor, signed=signed
    )
    index = pd.RangeIndex(len(quotes.strike)) if labels is None else pd.Index(labels)
    if len(index) != len(quotes.strike):
        raise ValueError(f"{len(index)} labels for {len(quotes.strike)} quotes")
    discount = quotes.discount_factor
    moneyness = np.where(quotes.is_call, 1.0, -1.0) * (quotes.forward - quotes.strike)
    floor = discount * np.maximum(moneyness, 0.0)
    cap = discount * np.where(quotes.is_call, quotes.forward, quotes.strike)
    cap = np.full_like(cap, np.inf) if signed else cap
    below, above = floor - quotes.ask, quotes.bid - cap
    rounding = ROUNDING * discount * quotes.unit
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


@dataclass(frozen=True, eq=False)
class _Quotes:
    """Quotes of one expiry that have been checked; arrays of shape `(m,)`.

    `nodes`, of shape `(n,)`, are the distinct strikes, increasing; `node` is the
    position of each quote's strike among them.
    """

    strike: np.ndarray
    bid: np.ndarray
    ask: np.ndarray
    is_call: np.ndarray
    forward: float
    discount_factor: float
    nodes: np.ndarray
    node: np.ndarray
    signed: bool = False

    @property
    def unit(self) -> float:
        """What prices are compared with: the forward, or the farthest strike from it.

        The latter where the underlying may be negative, and the forward zero.
        """
        if not self.signed:
            return self.forward
        return max(float(np.abs(self.nodes - self.forward).max()), abs(self.forward))

    @property
    def intrinsic(self) -> np.ndarray:
        """Undiscounted intrinsic value of a call at the nodes."""
        return np.maximum(self.forward - self.nodes, 0.0)

    @property
    def time_value_range(self) -> tuple[np.ndarray, np.ndarray]:
        """Bid and ask, undiscounted, minus intrinsic value; NaN where unknown.

        By parity the same for the call and the put of a strike. Out of the money they
        are the prices themselves, with all their digits.
        """
        sign = np.where(self.is_call, 1.0, -1.0)
        intrinsic = np.maximum(sign * (self.forward - self.strike), 0.0)
        discount = self.discount_factor
        return self.bid / discount - intrinsic, self.ask / discount - intrinsic


def _checked_weights(weights: ArrayLike | None, count: int) -> np.ndarray:
    """Positive weights of the quotes, of shape `(count,)`; by default all 1."""
    weights = np.ones(count) if weights is None else np.asarray(weights, float)
    if weights.shape != (count,) or not (np.isfinite(weights) & (weights > 0)).all():
        raise ValueError(
            f"weights are {count} positive numbers, one per quote, not {weights!r}"
        )
    return weights


def _read_quotes(
    strike: ArrayLike,
    bid: ArrayLike,
    ask: ArrayLike,
    is_call: ArrayLike,
    forward: float,
    discount_factor: float,
    *,
    signed: bool = False,
) -> _Quotes:
    """The arguments as arrays, after checking them."""
    require_forward(forward, signed=signed)
    require_positive(discount_factor=discount_factor)
    strike, bid, ask = (np.asarray(values, float) for values in (strike, bid, ask))
    flags = np.asarray(is_call, bool)
    if strike.ndim != 1 or not len(strike):
        raise ValueError(f"strikes have shape `(m,)` and m > 0, not {strike.shape}")
    if {bid.shape, ask.shape, flags.shape} - {strike.shape, ()}:
        raise ValueError(
            f"shapes differ: strike {strike.shape}, bid {bid.shape}, ask {ask.shape}, "
            f"is_call {flags.shape}"
        )
    bid, ask, flags = (np.broadcast_to(v, strike.shape) for v in (bid, ask, flags))
    faults = {
        f"strike not {'finite' if signed else 'positive'}": ~(
            np.isfinite(strike) & (signed | (strike > 0.0))
        ),
        "neither bid nor ask": np.isnan(bid) & np.isnan(ask),
        "negative or infinite quote": (bid < 0.0) | (ask < 0.0) | np.isinf(bid + ask),
        "bid above ask": bid > ask,
    }
    for meaning, bad in faults.items():
        if bad.any():
            rows = np.flatnonzero(bad)
            shown = ", ".join(
                f"strike {strike[row]:.10g} ({bid[row]:.10g} / {ask[row]:.10g})"
                for row in rows[:_SHOWN]
            )
            more = ", ..." if len(rows) > _SHOWN else ""
            raise QuoteError(
                f"{meaning} in {len(rows)} of {len(strike)} quotes: {shown}{more}; "
                "drop these quotes"
            )
    nodes, node = np.unique(strike, return_inverse=True)
    return _Quotes(
        strike,
        bid,
        ask,
        flags,
        float(forward),
        float(discount_factor),
        nodes,
        node,
        signed,
    )


@dataclass(frozen=True, eq=False)
class _BestPrices:
    """At each node, the most at which a call can be sold, the least at which bought.

    A put, the forward and cash are a call. All in undiscounted currency units and of
    shape `(n,)`.

    Attributes:
        lower: Highest bid; minus infinity where there is none.
        upper: Lowest ask; infinity where there is none.
        seller: The quote that has the bid.
        buyer: The quote that has the ask.
        vertices: Positions among `(0, *nodes)` of the corners of the highest curve.
        highest_curve: The highest convex curve through the forward at a strike of zero,
            at or below all asks and nowhere rising; where the underlying may be
            negative, of a slope of at least -1 in its place.
        shortfall: How far that curve is below the bid or intrinsic value.
    """

    lower: np.ndarray
    upper: np.ndarray
    seller: np.ndarray
    buyer: np.ndarray
    vertices: list[int]
    highest_curve: np.ndarray
    shortfall: np.ndarray

    @classmethod
    def of(cls, quotes: _Quotes) -> _BestPrices:
        """The best prices of all quotes at each node, and the curve below the asks."""
        intrinsic = quotes.intrinsic
        low, high = quotes.time_value_range
        low = np.where(np.isnan(low), -np.inf, low)
        high = np.where(np.isnan(high), np.inf, high)
        positions = np.arange(len(quotes.nodes))
        sellers = np.lexsort((-low, quotes.node))
        seller = sellers[np.searchsorted(quotes.node[sellers], positions)]
        buyers = np.lexsort((high, quotes.node))
        buyer = buyers[np.searchsorted(quotes.node[buyers], positions)]
        lower, upper = low[seller] + intrinsic, high[buyer] + intrinsic
        x = np.append(0.0, quotes.nodes)
        y = np.append(np.inf if quotes.signed else quotes.forward, upper)
        vertices = _lower_hull(x, y, 0.0, -1.0 if quotes.signed else -np.inf)
        curve = np.interp(quotes.nodes, x[vertices], y[vertices])
        if quotes.signed:
            curve += np.maximum(x[vertices[0]] - quotes.nodes, 0.0)
        shortfall = np.maximum(lower, intrinsic) - curve
        return cls(lower, upper, seller, buyer, vertices, curve, shortfall)


def _lower_hull(
    x: np.ndarray, y: np.ndarray, tail_slope: float, first_slope: float = -np.inf
) -> list[int]:
    """Corners of the highest convex curve below points that ends with given slopes.

    `x` increases; infinite `y` are passed over. Beyond the last corner the curve is a
    ray of slope `tail_slope`, before the first one of slope `first_slope`.
    """
    xs, ys = x.tolist(), y.tolist()
    hull: list[int] = []
    for i in np.flatnonzero(np.isfinite(y)).tolist():
        while len(hull) > 1:
            a, b = hull[-2], hull[-1]
            turn = (ys[b] - ys[a]) * (xs[i] - xs[a]) - (ys[i] - ys[a]) * (xs[b] - xs[a])
            if turn < 0.0:
                break
            hull.pop()
        hull.append(i)
    while len(hull) > 1:
        a, b = hull[-2], hull[-1]
        if ys[b] - ys[a] < tail_slope * (xs[b] - xs[a]):
            break
        hull.pop()
    while len(hull) > 1:
        a, b = hull[0], hull[1]
        if ys[b] - ys[a] > first_slope * (xs[b] - xs[a]):
            break
        hull.pop(0)
    return hull


def _simplest_trade(
    quotes: _Quotes, best: _BestPrices, rounding: float
) -> tuple[str, tuple[float, ...], np.ndarray]:
    """Family, strikes, and quantities of the quotes, with a smallest of one."""
    family, bought, sold = _simplest_family(quotes, best, rounding)
    amounts = [amount for node, amount in bought.items() if node >= 0]
    unit = min([*amounts, 1.0])
    quantity = np.zeros(len(quotes.strike))
    for node, amount in bought.items():
        if node >= 0:  # a strike of zero is the forward, which covers what is missing
            quantity[best.buyer[node]] += amount / unit
    if sold is not None:
        quantity[best.seller[sold]] -= 1.0 / unit
    nodes = sorted({*bought} if sold is None else {*bought, sold})
    strikes = tuple(float(quotes.nodes[node]) if node >= 0 else 0.0 for node in nodes)
    return family, strikes, quantity


def _simplest_family(
    quotes: _Quotes, best: _BestPrices, rounding: float
) -> tuple[str, dict[int, float], int | None]:
    """The trade with the fewest options that earns: family, and what is traded.

    Nodes and the amounts bought there, and the node where one call is sold, if any;
    node -1 is a strike of zero. Within a family the trade is the one that earns most.
    If none earns, a curve passes inside all quotes, which is how `_BestPrices` decides.
    """
    k, lower, upper = quotes.nodes, best.lower, best.upper
    below = quotes.intrinsic - upper
    above = lower - (np.inf if quotes.signed else quotes.forward)
    if max(below.max(), above.max()) > rounding:
        if below.max() >= above.max():
            return "bounds", {int(below.argmax()): 1.0}, None
        return "bounds", {}, int(above.argmax())

    crossed = lower - upper
    if crossed.max() > rounding:
        node = int(crossed.argmax())
        is_call = quotes.is_call[[best.seller[node], best.buyer[node]]]
        family = "call_spread" if is_call[0] == is_call[1] else "parity"
        return family, {node: 1.0}, node

    # Sold above the price of a lower strike, or of a higher strike and the width.
    cheapest = np.minimum.accumulate(upper)
    nearest = np.minimum.accumulate((upper + k)[::-1])[::-1]
    rising, wide = lower - cheapest, lower + k - nearest
    if max(rising.max(), wide.max()) > rounding:
        if rising.max() >= wide.max():
            sold = int(rising.argmax())
            bought = int(upper[: sold + 1].argmin())
        else:
            sold = int(wide.argmax())
            bought = sold + int((upper + k)[sold:].argmin())
        return "call_spread", {bought: 1.0}, sold

    # The wings are the corners of the highest curve below the asks, around the middle.
    sold = int((lower - best.highest_curve).argmax())
    corners = np.array(best.vertices) - 1
    place = int(np.searchsorted(corners, sold))
    left, right = int(corners[place - 1]), int(corners[place])
    start = k[left] if left >= 0 else 0.0
    share = float((k[sold] - start) / (k[right] - start))
    return "butterfly", {left: 1.0 - share, right: share}, sold


def _solve(quotes: _Quotes, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Time values at the nodes, undiscounted, and quantities of the quotes.

    The unknowns are time values, which are the call prices shifted by constants, in
    units of the largest quoted: HiGHS keeps constraints to 1e-10 of that unit.
    """
    count, n = len(quotes.strike), len(quotes.nodes)
    low, high = quotes.time_value_range
    largest = np.fmax(low, high).max()
    unit = float(np.clip(largest, 1e-6 * quotes.unit, quotes.unit))
    # A bid below zero time value says nothing, since no curve is there.
    sells, buys = np.flatnonzero(low > 0.0), np.flatnonzero(np.isfinite(high))
    quote = np.concatenate([sells, buys])
    sign = np.repeat([-1.0, 1.0], [len(sells), len(buys)])
    limit = np.concatenate([-low[sells], high[buys]]) / unit
    rows = np.arange(len(quote))
    curve_row, curve_node, coefficient, curve_limit = _curve_rows(
        quotes.nodes, quotes.forward, signed=quotes.signed
    )
    matrix = csr_array(
        (
            np.concatenate([sign, np.full(len(quote), -1.0), coefficient]),
            (
                np.concatenate([rows, rows, len(quote) + curve_row]),
                np.concatenate([quotes.node[quote], n + quote, curve_node]),
            ),
        ),
        shape=(len(quote) + n, n + count),
    )
    mean_weight = float(weights.mean())
    solution = linprog(
        np.concatenate([np.zeros(n), weights / mean_weight]),
        A_ub=matrix,
        b_ub=np.concatenate([limit, curve_limit / unit]),
        bounds=(0.0, None),
        method="highs-ds",
        options={
            "primal_feasibility_tolerance": _SOLVER_TOLERANCE,
            "dual_feasibility_tolerance": _SOLVER_TOLERANCE,
        },
    )
    if solution["status"] != 0:
        raise FitError(
            f"the linear programme of {count} quotes at {n} strikes was not solved: "
            f"{solution['message']}; check the quotes for prices out by orders of "
            "magnitude"
        )
    marginals = solution["ineqlin"]["marginals"][: len(quote)]
    quantity = np.zeros(count)
    np.add.at(quantity, quote, -sign * mean_weight * marginals)
    return unit * solution["x"][:n], quantity


def _curve_rows(
    nodes: np.ndarray, forward: float, *, signed: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows of the time values of one expiry: convex, and not rising at the end.

    Row, column and value of each non-zero, and the upper limits, of shape `(n,)`. A
    strike of zero, where the call is the forward, stands before the nodes; with it
    convexity and non-negative time values bound every slope. A row is in units of
    price: the call at a node less what its neighbours' straight line has there. Several
    expiries are blocks of such rows, with rows of their own between them. Where the
    underlying may be negative, the price before the nodes is that of a line of slope
    -1 through the first.
    """
    n = len(nodes)
    x = np.append(nodes[0] - 1.0 if signed else 0.0, nodes)
    intrinsic = np.maximum(forward - x, 0.0)
    width = np.diff(x)
    left = width[1:] / (width[1:] + width[:-1])
    right = 1.0 - left
    bend = left * intrinsic[:-2] + right * intrinsic[2:] - intrinsic[1:-1]
    limit = np.where((x[:-2] < forward) & (forward < x[2:]), bend, 0.0)
    # The row of the last node: not above the one before it.
    left, right = np.append(left, 1.0), np.append(right, 0.0)
    limit = np.append(limit, intrinsic[-2] - intrinsic[-1])
    own = np.ones(n)
    if signed and n > 1:  # the limit of a node before that is ever farther away
        right[0], limit[0] = 1.0, width[1] + intrinsic[2] - intrinsic[1]
    elif signed:  # of one strike alone there is nothing to say
        own[0] = limit[0] = 0.0
    row = np.arange(n)
    return (
        np.concatenate([row, row[1:], row[:-1]]),
        np.concatenate([row, row[:-1], row[1:]]),
        np.concatenate([own, -left[1:], -right[:-1]]),
        limit,
    )


def _cover(
    strike: np.ndarray,
    is_call: np.ndarray,
    quantity: np.ndarray,
    forward: float,
    *,
    signed: bool = False,
) -> tuple[np.ndarray, float, float]:
    """Quantities, and the cheapest forwards and cash that keep them from losing.

    The payoff of the options is above the supporting line, at the forward, of its
    convex hull over spots from zero on, or over all where the underlying may be
    negative; selling that line leaves what cannot lose. The line's slope is rounded
    first and its level then found in rational arithmetic and rounded up, so that the
    payoff of the floats returned is exactly non-negative. Strikes must not decrease.
    """
    if not len(quantity):
        return quantity, 0.0, 0.0
    step = 2.0 ** (math.frexp(float(np.abs(quantity).max()))[1] - _QUANTITY_BITS)
    quantity = step * np.round(quantity / step)
    if signed:
        # Options that are sold more than bought lose without a limit on one side: the
        # last bits of a solution are bought more.
        quantity[np.argmax(quantity)] += max(-math.fsum(quantity), 0.0)
    spots = np.unique(strike) if signed else np.append(0.0, np.unique(strike))
    sign = np.where(is_call, 1.0, -1.0)
    payoff = np.maximum(sign * (spots[:, None] - strike), 0.0) @ quantity
    tail_slope = math.fsum(quantity[is_call])
    first_slope = -math.fsum(quantity[~is_call]) if signed else -np.inf
    hull = _lower_hull(spots, payoff, tail_slope, first_slope)
    corners = spots[hull]
    slopes = np.diff(payoff[hull]) / np.diff(corners)
    slopes = np.concatenate([[first_slope], slopes, [tail_slope]])
    before = slopes[np.searchsorted(corners, forward, side="left")]
    after = slopes[np.searchsorted(corners, forward, side="right")]
    slope = step * np.round(np.clip(0.0, min(before, after), max(before, after)) / step)
    forwards = max(float(-slope), -tail_slope)
    # From a spot of zero, or from the line through it that the payoff begins with, each
    # strike adds its quantity to the slope.
    amounts = [Fraction(amount) for amount in quantity.tolist()]
    bends = [Fraction(k) for k in strike.tolist()]
    puts = np.flatnonzero(~is_call).tolist()
    spot, rise = Fraction(0), Fraction(forwards) - sum(amounts[leg] for leg in puts)
    level = sum(amounts[leg] * bends[leg] for leg in puts)
    level -= Fraction(forwards) * Fraction(forward)
    levels = [] if signed else [level]
    for bend, amount in zip(bends, amounts, strict=True):
        level += rise * (bend - spot)
        spot, rise = bend, rise + amount
        levels.append(level)
    least = min(levels)
    cash = float(-least)
    if Fraction(cash) < -least:
        cash = math.nextafter(cash, math.inf)
    return quantity, forwards + 0.0, cash + 0.0


def _leg_in_words(leg) -> str:
    """One row of a trade: buy 1 call 90 at 12.1."""
    amount = f"{abs(leg.quantity):.6g}"
    if leg.option_type == "cash":
        verb = "lend" if leg.side == "buy" else "borrow"
        return f"{verb} {abs(leg.cash_flow):.6g} until expiry"
    if leg.option_type == "forward":
        return f"{leg.side} {amount} forward at {leg.strike:.10g}"
    return f"{leg.side} {amount} {leg.option_type} {leg.strike:.10g} at {leg.price:.6g}"

r"""Forward and discount factor as unknowns of the program on quotes of one expiry.

European calls and puts of one strike are tied by parity, $C - P = A - D K$, with the
discount factor $D$ and the discounted forward $A = D F$ unknown. Today's prices are
linear in $C$, $A$ and $D$, and so is what excludes arbitrage: $C$ is convex and falls,
with $C(0) = A$, $C' \ge -D$ and $C \ge 0$. The least excess is one linear program.

The forward is not linear in these, but it is in undiscounted prices $C / D$, with $F$
and $1 / D$ as unknowns and bids and asks multiplied by the latter. So the ranges of
both, where all quotes are met, are four more programs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from relu_options.arbitrage.excess import curve_rows
from relu_options.arbitrage.price_program import Entries, PriceProgram, joined
from relu_options.arbitrage.quotes import (
    ROUNDING,
    CheckedQuotes,
    QuotedChain,
    positive_weights,
)
from relu_options.errors import require_positive

_DISCOUNT_FACTORS = 0.2, 1.2  # the least and the greatest that are looked for


@dataclass(frozen=True, eq=False)
class ImpliedForward:
    """The forward and discount factor at which quotes of one expiry agree best.

    Attributes:
        forward: Currency units.
        discount_factor: Price today of one unit of currency paid at expiry.
        total_excess: The least, over all forwards and discount factors; zero if quotes
            admit no arbitrage whatever these are. Times weights, where given.
        excess: Of each quote at these, in currency units paid today, of shape `(m,)`.

    Examples:
        >>> implied = imply_forward(strike=[90.0, 90.0, 110.0, 110.0],
        ...                         is_call=[True, False, True, False],
        ...                         bid=[12.6, 0.9, 0.9, 8.6],
        ...                         ask=[12.8, 1.1, 1.1, 8.8],
        ...                         forward=100.0, discount_factor=0.98)
        >>> print(round(implied.forward, 2), round(implied.discount_factor, 2))
        101.86 0.97
        >>> implied.is_arbitrage_free
        True
    """

    forward: float
    discount_factor: float
    total_excess: float
    excess: np.ndarray = field(repr=False)

    @property
    def is_arbitrage_free(self) -> bool:
        """Whether all quotes can be met with some forward and discount factor."""
        return not self.excess.any()


@dataclass(frozen=True)
class ForwardRange:
    """Forwards and discount factors with which all quotes of one expiry can be met.

    Attributes:
        forward: Lowest and highest, in currency units; infinite where puts alone are
            quoted.
        discount_factor: Lowest and highest; no further than from 0.2 to 1.2.

    Examples:
        >>> ranges = forward_range(strike=[100.0, 100.0], bid=[5.0, 4.9],
        ...                       ask=[5.1, 5.0], is_call=[True, False], forward=100.0,
        ...                       discount_factor=0.98)
        >>> print(round(ranges.forward[0], 6))
        100.0
    """

    forward: tuple[float, float]
    discount_factor: tuple[float, float]


def imply_forward(
    *,
    strike: ArrayLike,
    bid: ArrayLike,
    ask: ArrayLike,
    is_call: ArrayLike,
    forward: float,
    discount_factor: float,
    weights: ArrayLike | None = None,
    forward_error: float | None = None,
    discount_error: float | None = None,
) -> ImpliedForward:
    r"""Forward and discount factor with which a price curve is least outside quotes.

    Where several serve, those nearest to a first guess are taken: the guess itself if
    it does, else what minimises $|F - F_0| D / (\sigma_F D_0) + |D - D_0| / \sigma_D$.

    Args:
        strike: As for `relu_options.arbitrage.least_excess`; calls and puts, those in
            the money included.
        bid: Currency units paid today; NaN where unknown.
        ask: Likewise.
        is_call: True for calls.
        forward: A first guess, in currency units.
        discount_factor: A first guess.
        weights: How much a unit of excess counts, of shape `(m,)`; by default 1.
        forward_error: Standard error of the guess, in currency units; by default 1e-4
            of it.
        discount_error: Standard error of the guess; by default 1e-3.

    Returns:
        Forward, discount factor, and the excess of each quote at these.

    Raises:
        ValueError: If shapes differ or a number is not positive.
        QuoteError: As `relu_options.arbitrage.least_excess`.
        FitError: If HiGHS does not solve the program.

    Examples:
        A call that costs less than one struck higher, whatever the forward.

        >>> implied = imply_forward(strike=[90.0, 100.0], bid=[5.0, 6.0],
        ...                       ask=[5.2, 6.1], is_call=True, forward=100.0,
        ...                       discount_factor=0.98)
        >>> implied.is_arbitrage_free, round(implied.total_excess, 9)
        (False, 0.8)
    """
    quotes = CheckedQuotes.of(strike, bid, ask, is_call, forward, discount_factor)
    count = len(quotes.strike)
    weights = positive_weights(weights, count)
    chain = QuotedChain.of([quotes], weights)
    forward_error = 1e-4 * forward if forward_error is None else forward_error
    discount_error = 1e-3 if discount_error is None else discount_error
    highest = chain.highest_surface(chain.high)
    if chain.shortfall(highest).max() <= ROUNDING:
        return ImpliedForward(forward, discount_factor, 0.0, np.zeros(count))
    require_positive(forward_error=forward_error, discount_error=discount_error)
    program, unit = _today(chain)
    none = np.full(2, np.nan)
    low, high = (np.append(side / unit, none) for side in (chain.low, chain.high))
    solution = program.least_distance(low, high, np.append(weights, [0.0, 0.0]))
    fitted = program.prices_of(solution.unknowns, count + 2)
    target = np.append(np.full(count, np.nan), [0.0, 0.0])
    solution = program.least_distance(
        target,
        target,
        np.append(
            np.zeros(count), [forward / forward_error, discount_factor / discount_error]
        ),
        within=(
            np.where(np.isnan(low), np.nan, np.fmin(low, fitted)),
            np.where(np.isnan(high), np.nan, np.fmax(high, fitted)),
        ),
    )
    prices = unit * program.prices_of(solution.unknowns, count + 2)
    growth = 1.0 + prices[-1]
    excess = chain.excess(prices[:count])
    return ImpliedForward(
        float(forward * (1.0 + prices[-2] / growth)),
        float(discount_factor * growth),
        float(weights @ excess),
        excess,
    )


def forward_range(
    *,
    strike: ArrayLike,
    bid: ArrayLike,
    ask: ArrayLike,
    is_call: ArrayLike,
    forward: float,
    discount_factor: float,
    excess: ArrayLike | None = None,
) -> ForwardRange:
    """Range of the forward and of the discount factor that quotes allow.

    Args:
        strike: As for `imply_forward`, like all the others.
        bid: Currency units paid today.
        ask: Currency units paid today.
        is_call: True for calls.
        forward: A guess, in currency units.
        discount_factor: A guess.
        excess: By how much each quote may be left, of shape `(m,)`, in currency units;
            by default nothing. `imply_forward` says how much it must.

    Returns:
        Their ranges: each of the two may be anywhere in its own, not in both at once.

    Raises:
        ValueError: If shapes differ.
        QuoteError: As `relu_options.arbitrage.least_excess`.
        FitError: If HiGHS does not solve a program, as where no forward serves.

    Examples:
        Parity at two strikes: the forward is within 100 ± 0.2 / D, roughly.

        >>> ranges = forward_range(strike=[90.0, 90.0, 110.0, 110.0],
        ...                       is_call=[True, False, True, False],
        ...                       bid=[11.0, 1.2, 1.2, 11.0],
        ...                       ask=[11.2, 1.4, 1.4, 11.2],
        ...                       forward=100.0, discount_factor=1.0)
        >>> print(np.round(ranges.forward, 2), np.round(ranges.discount_factor, 2))
        [ 99.8 100.2] [0.96 1.  ]
    """
    quotes = CheckedQuotes.of(strike, bid, ask, is_call, forward, discount_factor)
    count = len(quotes.strike)
    room = np.zeros(count) if excess is None else np.asarray(excess, float)
    if room.shape != (count,):
        raise ValueError(f"shapes differ: excess {room.shape}, strike ({count},)")
    room = room + ROUNDING * quotes.forward
    chain = QuotedChain.of([quotes], np.ones(count))
    program, unit, low, high = _undiscounted(chain, room / chain.notional)
    ends = []
    for column in (-2, -1):  # the forward, and one over the discount factor
        unknown = np.zeros(len(program.bounds))
        unknown[column] = 1.0
        for sign in (1.0, -1.0):
            least = program.least(sign * unknown, low, high)
            ends.append(1.0 + unit * sign * least)
    return ForwardRange(
        (quotes.forward * ends[0], quotes.forward * ends[1]),
        (quotes.discount_factor / ends[3], quotes.discount_factor / ends[2]),
    )


def _today(chain: QuotedChain) -> tuple[PriceProgram, float]:
    """Today's prices as functions of time values, discounted forward and discount.

    All are counted from their values at the guess, in units of the discounted forward
    guessed, the discount factor in units of its guess, and then of the largest time
    value. The last two prices are $D (F - F_0)$ and $F_0 (D - D_0)$.
    """
    rows, limits, parity, unit = _free_forward(chain)
    m, n = len(chain.k), len(limits) - 2
    put = np.flatnonzero(~chain.is_call)
    # From a strike of zero to the first node it falls by no more than D a strike.
    discount = Entries(
        np.array([n + 1]), np.array([n + 1]), -chain.k.min(keepdims=True)
    )
    ends = Entries(
        np.array([m, m, m + 1]), np.array([n, n + 1, n + 1]), np.array([1.0, -1.0, 1.0])
    )
    strikes = Entries(put, np.full(len(put), n + 1), chain.k[put])
    bounds = np.tile([-np.inf, np.inf], (n + 2, 1))
    bounds[-1] = (np.array(_DISCOUNT_FACTORS) / chain.discount_factors[0] - 1.0) / unit
    program = PriceProgram(
        joined(parity, strikes, ends), joined(rows, discount), limits / unit, bounds
    )
    return program, unit


def _undiscounted(
    chain: QuotedChain, room: np.ndarray
) -> tuple[PriceProgram, float, np.ndarray, np.ndarray]:
    """Prices less bids, and less asks, over the discount factor, with their limits.

    Unknown are time values, the forward, and one over the discount factor, counted from
    their values at the guess in units of these, and then of the largest time value.
    """
    rows, limits, parity, unit = _free_forward(chain)
    m, n = len(chain.k), len(limits) - 2
    at, none = np.arange(m), np.full(m, np.nan)
    sides = []
    for i, limit in enumerate((chain.low - room, chain.high + room)):
        quoted = Entries(at, np.full(m, n + 1), -np.nan_to_num(limit + chain.intrinsic))
        sides.append(joined(parity, quoted).moved(i * m))
    bounds = np.tile([-np.inf, np.inf], (n + 2, 1))
    bounds[n, 0] = -1.0 / unit
    growth = chain.discount_factors[0] / np.array(_DISCOUNT_FACTORS[::-1]) - 1.0
    bounds[n + 1] = growth / unit
    program = PriceProgram(joined(*sides), rows, limits / unit, bounds)
    low = np.append((chain.low - room) / unit, none)
    return program, unit, low, np.append(none, (chain.high + room) / unit)


def _free_forward(
    chain: QuotedChain,
) -> tuple[Entries, np.ndarray, Entries, float]:
    """Rows and limits of a curve with a free forward, prices by parity, and the unit.

    Columns are time values at the nodes, the forward's distance from the guess, and one
    to spare. The curve is convex and falling, is not negative at its last node, and
    falls to its first by no more than the strike.
    """
    nodes, node = np.unique(chain.k, return_inverse=True)
    n = len(nodes)
    entries, limits = curve_rows(nodes)
    intrinsic = np.maximum(1.0 - nodes, 0.0)
    # The strike of zero, where the call is the forward, stands in the first row.
    before = -1.0 if n == 1 else (nodes[0] - nodes[1]) / nodes[1]
    forward = Entries(
        np.array([0, n, n + 1, n + 1]),
        np.array([n, n - 1, 0, n]),
        np.array([before, -1.0, -1.0, 1.0]),
    )
    limits = np.append(limits, [intrinsic[-1], nodes[0] - 1.0 + intrinsic[0]])
    put = np.flatnonzero(~chain.is_call)
    parity = Entries(
        np.append(np.arange(len(node)), put),
        np.append(node, np.full(len(put), n)),
        np.append(np.ones(len(node)), np.full(len(put), -1.0)),
    )
    unit = float(np.clip(np.fmax(chain.low, chain.high).max(), 1e-6, 1.0))
    return joined(entries, forward), limits, parity, unit

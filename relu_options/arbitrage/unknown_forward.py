r"""Forward and discount factor as unknowns of the programme on quotes of one expiry.

European calls and puts of one strike are tied by parity, $C - P = A - D K$, with the
discount factor $D$ and the discounted forward $A = D F$ unknown. Today's prices are
linear in $C$, $A$ and $D$, and so is what excludes arbitrage: $C$ is convex and falls,
with $C(0) = A$, $C' \ge -D$ and $C \ge 0$. The least excess is one linear programme.

The forward is not linear in these, but it is in undiscounted prices $C / D$, with $F$
and $1 / D$ as unknowns and bids and asks multiplied by the latter. So the ranges of
both, where all quotes are met, are four more programmes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csr_array, vstack

from relu_options.arbitrage.elastic_programme import ElasticProgramme
from relu_options.arbitrage.quotes import (
    ROUNDING,
    _BestPrices,
    _checked_weights,
    _curve_rows,
    _Quotes,
    _read_quotes,
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
        >>> found = imply_forward(strike=[90.0, 90.0, 110.0, 110.0],
        ...                       is_call=[True, False, True, False],
        ...                       bid=[12.6, 0.9, 0.9, 8.6], ask=[12.8, 1.1, 1.1, 8.8],
        ...                       forward=100.0, discount_factor=1.0)
        >>> print(round(found.forward, 2), round(found.discount_factor, 2))
        101.94 0.98
        >>> found.is_arbitrage_free
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
        >>> found = forward_range(strike=[100.0, 100.0], bid=[5.0, 4.9],
        ...                       ask=[5.1, 5.0], is_call=[True, False], forward=100.0,
        ...                       discount_factor=0.98)
        >>> print(round(found.forward[0], 6))
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
        FitError: If HiGHS does not solve the programme.

    Examples:
        A call that costs less than one struck higher, whatever the forward.

        >>> found = imply_forward(strike=[90.0, 100.0], bid=[5.0, 6.0],
        ...                       ask=[5.2, 6.1], is_call=True, forward=100.0,
        ...                       discount_factor=0.98)
        >>> found.is_arbitrage_free, round(found.total_excess, 9)
        (False, 0.8)
    """
    quotes = _read_quotes(strike, bid, ask, is_call, forward, discount_factor)
    count = len(quotes.strike)
    weights = _checked_weights(weights, count)
    forward_error = 1e-4 * forward if forward_error is None else forward_error
    discount_error = 1e-3 if discount_error is None else discount_error
    if _BestPrices.of(quotes).shortfall.max() <= ROUNDING * forward:
        return ImpliedForward(forward, discount_factor, 0.0, np.zeros(count))
    require_positive(forward_error=forward_error, discount_error=discount_error)
    programme, unit = _today(quotes)
    low, high = (quotes.discount_factor * v / unit for v in quotes.time_value_range)
    unknown = np.array([np.nan, np.nan])
    solved = programme.least_excess(
        np.append(low, unknown),
        np.append(high, unknown),
        np.append(weights, [0.0, 0.0]),
    )
    fitted = (programme.prices @ solved.unknowns)[:count]
    low, high = np.fmin(low, fitted), np.fmax(high, fitted)
    solved = programme.nearest(
        np.append(fitted, [0.0, 0.0]),
        np.append(low, [-np.inf, -np.inf]),
        np.append(high, [np.inf, np.inf]),
        np.append(
            np.zeros(count),
            [1.0 / (discount_factor * forward_error), 1.0 / (discount_error * forward)],
        ),
    )
    prices = programme.prices @ solved.unknowns
    discount = quotes.discount_factor + unit * prices[-1] / quotes.forward
    implied = quotes.forward + unit * prices[-2] / discount
    low, high = (quotes.discount_factor * v for v in quotes.time_value_range)
    fitted = unit * prices[:count]
    excess = np.fmax(np.fmax(low - fitted, fitted - high), 0.0)
    excess = np.where(excess > ROUNDING * quotes.forward, excess, 0.0)
    return ImpliedForward(
        float(implied), float(discount), float(weights @ excess), excess
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
        FitError: If HiGHS does not solve a programme, as where no forward serves.

    Examples:
        Parity at two strikes: the forward is within 100 ± 0.2 / D, roughly.

        >>> found = forward_range(strike=[90.0, 90.0, 110.0, 110.0],
        ...                       is_call=[True, False, True, False],
        ...                       bid=[11.0, 1.2, 1.2, 11.0],
        ...                       ask=[11.2, 1.4, 1.4, 11.2],
        ...                       forward=100.0, discount_factor=1.0)
        >>> print(np.round(found.forward, 2), np.round(found.discount_factor, 2))
        [ 99.8 100.2] [0.96 1.  ]
    """
    quotes = _read_quotes(strike, bid, ask, is_call, forward, discount_factor)
    room = np.zeros(len(quotes.strike)) if excess is None else np.asarray(excess, float)
    if room.shape != quotes.strike.shape:
        raise ValueError(
            f"shapes differ: excess {room.shape}, strike {quotes.strike.shape}"
        )
    room = room + ROUNDING * quotes.forward
    programme, unit, low, high = _undiscounted(quotes, room)
    found = []
    for column in (-2, -1):  # the forward, and one over the discount factor
        objective = np.zeros(len(programme.lower))
        objective[column] = 1.0
        found.append(
            tuple(
                sign * programme.extreme(sign * objective, low, high)
                for sign in (1.0, -1.0)
            )
        )
    (lowest, highest), growth = found
    inverse = [1.0 / quotes.discount_factor + unit * g / quotes.forward for g in growth]
    return ForwardRange(
        (quotes.forward + unit * lowest, quotes.forward + unit * highest),
        (1.0 / inverse[1], 1.0 / inverse[0]),
    )


def _today(quotes: _Quotes) -> tuple[ElasticProgramme, float]:
    """Today's prices as functions of time values, discounted forward and discount.

    All are counted from their values at the guess, in units of the largest time value;
    the discount factor times the forward guessed. The last two prices are $D (F - F_0)$
    and $F_0 (D - D_0)$.
    """
    m, n = len(quotes.strike), len(quotes.nodes)
    unit = _unit(quotes)
    discount, scale = quotes.discount_factor, quotes.nodes / quotes.forward
    matrix, limits = _curve(quotes)
    # From a strike of zero to the first node it falls by no more than D a strike; and
    # D has a limit.
    last = csr_array(
        (np.array([-1.0, 1.0, -scale[0], 1.0]), ([0, 0, 0, 1], [0, n, n + 1, n + 1])),
        shape=(2, n + 2),
    )
    least, greatest = (quotes.forward * (d - discount) for d in _DISCOUNT_FACTORS)
    room = discount * (quotes.nodes[0] - quotes.forward + quotes.intrinsic[0])
    put = np.flatnonzero(~quotes.is_call)
    ends = [m, m, m + 1]
    prices = csr_array(
        (
            np.concatenate(
                [
                    np.ones(m),
                    np.full(len(put), -1.0),
                    scale[quotes.node[put]],
                    [1.0, -1.0, 1.0],
                ]
            ),
            (
                np.concatenate([np.arange(m), put, put, ends]),
                np.concatenate(
                    [
                        quotes.node,
                        np.full(len(put), n),
                        np.full(len(put), n + 1),
                        [n, n + 1, n + 1],
                    ]
                ),
            ),
        ),
        shape=(m + 2, n + 2),
    )
    lower = np.full(n + 2, -np.inf)
    lower[n + 1] = least / unit
    programme = ElasticProgramme(
        prices,
        csr_array(vstack([matrix, last])),
        np.append(discount * limits, [room, greatest]) / unit,
        lower,
    )
    return programme, unit


def _undiscounted(
    quotes: _Quotes, excess: np.ndarray
) -> tuple[ElasticProgramme, float, np.ndarray, np.ndarray]:
    """Prices less bids, and less asks, over the discount factor, with their ranges.

    Unknown are time values, the forward, and one over the discount factor times the
    forward guessed, counted from their values at the guess, in units of the largest
    time value.
    """
    m, n = len(quotes.strike), len(quotes.nodes)
    unit = _unit(quotes)
    matrix, limits = _curve(quotes)
    last = csr_array(
        (np.array([-1.0, 1.0, 1.0]), ([0, 0, 1], [0, n, n + 1])), shape=(2, n + 2)
    )
    room = quotes.nodes[0] - quotes.forward + quotes.intrinsic[0]
    greatest, least = (
        quotes.forward * (1.0 / d - 1.0 / quotes.discount_factor)
        for d in _DISCOUNT_FACTORS
    )
    limits = np.append(limits, [room, greatest])
    put = (~quotes.is_call).astype(float)
    sign = np.where(quotes.is_call, 1.0, -1.0)
    intrinsic = np.maximum(sign * (quotes.forward - quotes.strike), 0.0)
    rows, ranges = [], []
    for quoted, low, high in (
        (quotes.bid - excess, 0.0, np.inf),
        (quotes.ask + excess, -np.inf, 0.0),
    ):
        known = np.isfinite(quoted)
        at = np.arange(m)
        rows.append(
            csr_array(
                (
                    np.concatenate(
                        [
                            np.ones(m),
                            -put,
                            np.where(known, -quoted, 0.0) / quotes.forward,
                        ]
                    ),
                    (
                        np.tile(at, 3),
                        np.concatenate([quotes.node, np.full(m, n), np.full(m, n + 1)]),
                    ),
                ),
                shape=(m, n + 2),
            )
        )
        shift = np.where(known, quoted / quotes.discount_factor - intrinsic, 0.0) / unit
        ranges.append(
            (
                np.where(known, shift + low, -np.inf),
                np.where(known, shift + high, np.inf),
            )
        )
    lower = np.full(n + 2, -np.inf)
    lower[n] = -quotes.forward / unit
    lower[n + 1] = least / unit
    programme = ElasticProgramme(
        csr_array(vstack(rows)),
        csr_array(vstack([matrix, last])),
        limits / unit,
        lower,
    )
    low, high = (np.concatenate(one) for one in zip(*ranges, strict=True))
    return programme, unit, low, high


def _curve(quotes: _Quotes) -> tuple[csr_array, np.ndarray]:
    """Rows that make a curve convex, falling and positive, the forward unknown.

    Columns are time values at the nodes and the forward's distance from the guess, with
    one more to spare; limits are undiscounted, in currency units.
    """
    n = len(quotes.nodes)
    row, column, value, limit = _curve_rows(quotes.nodes, quotes.forward)
    before = -1.0  # weight of the strike of zero in the first row
    if n > 1:
        before = (quotes.nodes[0] - quotes.nodes[1]) / quotes.nodes[1]
    matrix = csr_array(
        (
            np.concatenate([value, [before, -1.0]]),
            (np.concatenate([row, [0, n]]), np.concatenate([column, [n, n - 1]])),
        ),
        shape=(n + 1, n + 2),
    )
    return matrix, np.append(limit, quotes.intrinsic[-1])


def _unit(quotes: _Quotes) -> float:
    """The largest time value quoted, at the guess."""
    largest = float(np.fmax(*quotes.time_value_range).max())
    return float(np.clip(largest, 1e-6 * quotes.forward, quotes.forward))

r"""The best hedge with few strikes, and the proof of how good it is.

`best_strikes` starts from the best breaks for pieces that may jump
(`relu_options.replication.pieces`), closes the jumps, and then moves neighbouring
strikes together to the best places near by. What it reaches, and the bound
that no choice of strikes can be below, differ by a few tenths of a per cent.

`least_largest_error` is about the largest error in place of the expected square, and
exact: for a convex payoff the best line on a piece is its chord lowered by half of its
height above the payoff, and such lines do not jump.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from relu_options.replication.pieces import (
    Parabola,
    Regression,
    extend,
    join,
    least_error_bound,
)

_SWEEPS = 50
_WINDOW = 8
_GAIN = 1e-5
_VISIBLE = 3e-3  # of the squared error: half of that of its root


def best_strikes(regression: Regression, count: int) -> tuple[np.ndarray, float]:
    """Positions of the strikes of the hedge, and the bound on its squared error.

    Args:
        regression: Of the payoff on all listed strikes.
        count: Number of strikes, at most as many as are listed.

    Returns:
        Positions of shape `(count,)`, increasing, and a number that the squared error
        with any `count` of the listed strikes is not below.
    """
    bound, breaks = least_error_bound(regression, count)
    best, least = breaks, np.inf
    for shift in (0, -1, 1):  # other starts, while the gap is visible
        start = breaks + shift
        if start[0] < 0 or start[-1] >= len(regression.strikes):
            continue
        chosen = move_strikes(regression, start)
        error = squared_error(regression, chosen)
        if error < least:
            best, least = chosen, error
        if least <= bound * (1.0 + _VISIBLE):
            break
    return best, bound


def move_strikes(regression: Regression, chosen: np.ndarray) -> np.ndarray:
    """Move neighbouring pairs of strikes to the best places near by.

    Args:
        regression: Of the payoff on all listed strikes.
        chosen: Positions among them, increasing, of shape `(count,)`.

    Returns:
        Positions from which no move of two neighbours, by up to `_WINDOW` listed
        strikes each, makes the error less by a part in `1 / _GAIN`.
    """
    chosen = np.array(chosen)
    below, beyond = regression.tails()
    count, listed = len(chosen), len(regression.strikes)
    least = np.inf
    moved = np.ones(count, bool)  # in the last sweep, or in this one
    for _ in range(_SWEEPS):
        before, stale, moved = least, moved, np.zeros(count, bool)
        # Errors of all to the right of each strike, by the value there.
        right = [_at(beyond, chosen[-1])]
        for low, high in zip(chosen[-2::-1], chosen[:0:-1], strict=True):
            right.append(extend(right[-1], regression.piece(low, high).mirrored))
        right.reverse()
        left = None
        for leg in range(max(count - 1, 1)):
            after = leg + min(2, count)  # the first leg that stays where it is
            low = chosen[leg - 1] + 1 if leg else 0
            high = chosen[after] if after < count else listed
            around = slice(max(leg - 1, 0), after + 1)
            if not (stale[around] | moved[around]).any():
                if left is None:
                    left = _at(below, chosen[0])
                else:
                    left = extend(left, regression.piece(chosen[leg - 1], chosen[leg]))
                continue
            first = _places(chosen[leg], low, high)
            start = _at(below, first)
            if left is not None:
                start = extend(left, regression.piece(chosen[leg - 1], first))
            if count == 1:
                errors = join(start, _at(beyond, first))
                best, least = int(np.argmin(errors)), float(errors.min())
                chosen[0] = first[best]
                break
            second = _places(chosen[leg + 1], low, high)
            rows, columns = np.nonzero(first[:, None] < second)
            places = second[columns]
            inner = regression.piece(first[rows], places)
            both = extend(_at(start, rows), inner)
            if after < count:
                end = regression.piece(second, chosen[after]).mirrored
                rest = extend(right[after], end)
            else:
                rest = _at(beyond, second)
            errors = join(both, _at(rest, columns))
            best = int(np.argmin(errors))
            pair = first[rows[best]], places[best]
            moved[leg : leg + 2] |= chosen[leg : leg + 2] != pair
            chosen[leg : leg + 2] = pair
            least, left = float(errors[best]), _at(start, rows[best])
        if not least < before * (1.0 - _GAIN):
            break
    return chosen


def _places(place: int, low: int, high: int) -> np.ndarray:
    """Positions near one, from `low` to below `high`."""
    return np.arange(max(low, place - _WINDOW), min(high, place + _WINDOW + 1))


def squared_error(regression: Regression, chosen: np.ndarray) -> float:
    """Least expected squared error with calls at the chosen strikes."""
    below, beyond = regression.tails()
    left = _at(below, chosen[0])
    for first, last in pairwise(chosen):
        left = extend(left, regression.piece(first, last))
    return float(join(left, _at(beyond, chosen[-1])))


def _at(parabola: Parabola, place: Any) -> Parabola:
    return Parabola(*(part[place] for part in parabola))


def least_largest_error(
    payoff: Any, strikes: np.ndarray, count: int
) -> tuple[float, np.ndarray]:
    r"""Breaks for which the largest error of chords of a convex payoff is least.

    With $n$ pieces of the best free lengths it tends to $(\int \sqrt{f''})^2 / 16 n^2$.

    Args:
        payoff: A smooth payoff, convex or concave between the first and the last
            strike.
        strikes: Increasing, of shape `(n,)`; the first and the last are always breaks.
        count: Number of breaks between them.

    Returns:
        The least largest error of any piecewise-linear function with these breaks, and
        the positions of all `count + 2` of them. It is reached by the chords, moved by
        that error towards the payoff.

    Raises:
        ValueError: If the payoff is neither convex nor concave, or there are not that
            many strikes.

    Examples:
        The chord of a square over a width of 1 is up to 1/4 above it.

        >>> from relu_options.payoffs import power
        >>> least_largest_error(power(2.0), np.linspace(0.0, 4.0, 9), 3)
        (0.125, array([0, 2, 4, 6, 8]))
    """
    if not 0 <= count <= len(strikes) - 2:
        raise ValueError(
            f"{len(strikes)} strikes have no {count} between the first and the last"
        )
    curvature = np.asarray(payoff.second_derivative(strikes), float)
    if not ((curvature >= 0.0).all() or (curvature <= 0.0).all()):
        raise ValueError(
            "the payoff is neither convex nor concave at the strikes; split it in two"
        )
    values, slopes = np.asarray(payoff(strikes)), np.asarray(payoff.derivative(strikes))
    # The distance is largest where the slope is that of the chord.
    with np.errstate(divide="ignore", invalid="ignore"):
        chord = (values[None] - values[:, None]) / (strikes[None] - strikes[:, None])
    upper = np.triu_indices(len(strikes), 1)
    low, high = strikes[upper[0]], strikes[upper[1]]
    rising = 1.0 if slopes[-1] >= slopes[0] else -1.0
    for _ in range(50):
        middle = 0.5 * (low + high)
        before = rising * np.asarray(payoff.derivative(middle)) < rising * chord[upper]
        low, high = np.where(before, middle, low), np.where(before, high, middle)
    line = values[upper[0]] + chord[upper] * (low - strikes[upper[0]])
    errors = np.full(chord.shape, np.inf)
    errors[upper] = 0.5 * np.abs(line - np.asarray(payoff(low)))
    reach = errors[0].copy()
    columns, came_from = np.arange(len(reach)), []
    for _ in range(count):
        sums = np.maximum(reach[:, None], errors)
        before = np.argmin(sums, axis=0)
        came_from.append(before)
        reach = sums[before, columns]
    breaks = [len(reach) - 1]
    for before in reversed(came_from):
        breaks.append(before[breaks[-1]])
    return float(reach[-1]), np.array([0, *breaks[::-1]], int)

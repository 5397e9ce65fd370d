r"""Squared errors of straight pieces, and of how they join: a dynamic programme.

A piece is a line between two breaks. Its squared error, as a function of the value $y$
that it takes at one of its ends, is a parabola $P y^2 - 2 Q y + R$ (the other
parameter of the line being the best); as a function of both ends it is a quadratic
form. `Regression` has the sums that these need; breaks are strikes, numbered from 0,
and minus and plus infinity.

`least_error_bound` bounds from below the squared error of every *continuous* piecewise
linear function with a given number of breaks among the strikes. Letting the pieces
jump makes the error a sum, and its least value a dynamic programme. That alone is a
weak bound where a wide tail is fitted by one piece, so the outermost pieces are joined:
two parabolas in the value at their common break have the least sum

$$
R_1 - Q_1^2 / P_1 + R_2 - Q_2^2 / P_2
+ \frac{P_1 P_2}{P_1 + P_2} \left(\frac{Q_1}{P_1} - \frac{Q_2}{P_2}\right)^2 .
$$

Three pieces are joined where the middle one spans at most `NEAR` strikes (it could
otherwise hold next to no probability, and join its neighbours at no cost).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from relu_options.replication.spot_law import SpotLaw

NEAR = 2
MOST_BREAKS = 64
_SIZES = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)  # strikes are padded to one
_NOTHING = 1e-14  # probabilities below it, and their moments, are taken as zero


class Parabola(NamedTuple):
    """$P y^2 - 2 Q y + R$: a squared error by the value at a break."""

    bend: Any
    slope: Any
    level: Any

    @property
    def least(self) -> Any:
        """Its least value."""
        return self.level - _ratio(self.slope**2, self.bend)


class Piece(NamedTuple):
    """A squared error by the values `y`, `z` at the two ends of a piece.

    $A y^2 + 2 B y z + C z^2 - 2 u y - 2 v z + R$.
    """

    left: Any
    both: Any
    right: Any
    left_moment: Any
    right_moment: Any
    level: Any

    @property
    def mirrored(self) -> Piece:
        """The piece with its ends exchanged."""
        return Piece(
            self.right,
            self.both,
            self.left,
            self.right_moment,
            self.left_moment,
            self.level,
        )


@dataclass(frozen=True, eq=False)
class Regression:
    r"""Expected squared error of a payoff against cash, forward and calls.

    Spots are measured from the mean in units of the standard deviation, and the payoff
    from its regression on cash and forward, so that no digits are lost.

    Attributes:
        spots: Standardised, increasing, of shape `(m,)`.
        probabilities: Of shape `(m,)`.
        values: Of the payoff, less its regression line, of shape `(m,)`.
        strikes: Standardised, increasing, of shape `(n,)`.
    """

    spots: np.ndarray
    probabilities: np.ndarray
    values: np.ndarray
    strikes: np.ndarray

    @staticmethod
    def of(law: SpotLaw, values: np.ndarray, strikes: np.ndarray) -> Regression:
        """The regression of `values` at the spots of a law on calls at `strikes`."""
        weights = law.probabilities
        total = weights.sum()
        mean = weights @ law.spots / total
        scale = np.sqrt(weights @ np.square(law.spots - mean) / total)
        spots = (law.spots - mean) / scale
        level, tilt = weights @ values / total, weights @ (spots * values) / total
        residual = values - level - tilt * spots
        return Regression(spots, weights, residual, (strikes - mean) / scale)

    @cached_property
    def above(self) -> np.ndarray:
        """Sums over the spots above each strike, of shape `(6, n)`.

        Those of 1, x, x^2, f, x f and f^2, times the probability.
        """
        return self._sums[:, np.searchsorted(self.spots, self.strikes)]

    @cached_property
    def total(self) -> np.ndarray:
        """The same sums over all spots, of shape `(6,)`."""
        return self._sums[:, 0]

    @cached_property
    def _sums(self) -> np.ndarray:
        x, f, p = self.spots, self.values, self.probabilities
        terms = np.stack([p, p * x, p * x * x, p * f, p * x * f, p * f * f])
        sums = np.cumsum(terms[:, ::-1], axis=1)[:, ::-1]
        return np.concatenate([sums, np.zeros((6, 1))], axis=1)

    def tails(self) -> tuple[Parabola, Parabola]:
        """Error below each strike and above it, by the value there, of shape `(n,)`."""
        below = self.total[:, None] - self.above
        return _tail(below, self.strikes), _tail(self.above, self.strikes)

    def piece(self, first: Any, last: Any) -> Piece:
        """Pieces between strikes at positions that broadcast, the first the lower."""
        first, last = np.broadcast_arrays(first, last)
        sums = self.above[:, first] - self.above[:, last]
        return _piece(sums, self.strikes[first], self.strikes[last])


def extend(parabola: Parabola, piece: Piece) -> Parabola:
    """A parabola and a piece to its right: their least error by the far value."""
    pivot = parabola.bend + piece.left
    moment = parabola.slope + piece.left_moment
    return Parabola(
        piece.right - _ratio(piece.both**2, pivot),
        piece.right_moment - _ratio(piece.both * moment, pivot),
        parabola.level + piece.level - _ratio(moment**2, pivot),
    )


def join(first: Parabola, second: Parabola) -> Any:
    """Least sum of two parabolas."""
    return Parabola(
        first.bend + second.bend,
        first.slope + second.slope,
        first.level + second.level,
    ).least


def least_error_bound(regression: Regression, count: int) -> tuple[float, np.ndarray]:
    """Bound on the squared error with any `count` breaks, and breaks that are near it.

    Args:
        regression: Of the payoff on all strikes.
        count: At least one, at most the number of strikes and `MOST_BREAKS`.

    Returns:
        A number that the squared error of no continuous piecewise-linear function with
        `count` breaks among the strikes is below, up to rounding; and the positions of
        the best breaks for pieces that may jump, increasing, of shape `(count,)`.

    Raises:
        ValueError: If there are too few or too many breaks, or too many strikes.
    """
    listed = len(regression.strikes)
    if not 1 <= count <= min(listed, MOST_BREAKS) or listed > _SIZES[-1]:
        raise ValueError(
            f"1 to {min(listed, MOST_BREAKS)} of {listed} strikes can be chosen, from "
            f"at most {_SIZES[-1]}, not {count}"
        )
    extra = next(size for size in _SIZES if size >= listed) - listed
    after = regression.strikes[-1] + 1.0 + np.arange(extra)
    bound, errors, reach = _programme(
        np.concatenate([regression.above, np.zeros((6, extra))], axis=1),
        np.append(regression.strikes, after),
        regression.total,
        listed,
        count,
        joins=min(count, 5),
    )
    errors, reach = np.asarray(errors), np.asarray(reach)
    breaks = [int(np.argmin(reach[count]))]
    for used in range(count - 1, 0, -1):
        breaks.append(int(np.argmin(reach[used] + errors[:, breaks[-1]])))
    return max(float(bound), 0.0), np.array(breaks[::-1])


@partial(jax.jit, static_argnames="joins")
def _programme(above, strikes, total, listed, count, *, joins):
    """The bound, errors of pieces `(n, n)`, and least errors by breaks used `(65, n)`.

    Row `t` of the last holds the least error of everything below a break that is the
    `t`-th; row `count` that of everything, the `count`-th break being there.
    """
    size = strikes.shape[0]
    at = jnp.arange(size)
    known = at < listed
    ordered = (at[:, None] < at) & known
    below, beyond = _tail(total[:, None] - above, strikes), _tail(above, strikes)
    sums = above[:, :, None] - above[:, None, :]
    piece = _piece(
        sums, strikes[:, None], jnp.where(ordered, strikes, strikes[:, None] + 1.0)
    )
    nothing = Parabola(0.0, 0.0, 0.0)
    by_right, by_left = extend(nothing, piece), extend(nothing, piece.mirrored)
    errors = jnp.where(ordered, jnp.maximum(by_right.least, 0.0), jnp.inf)
    first = jnp.where(known, jnp.maximum(below.least, 0.0), jnp.inf)
    last = jnp.where(known, jnp.maximum(beyond.least, 0.0), jnp.inf)

    def step(reach):
        return jnp.min(reach[:, None] + errors, axis=0)

    def advance(used, reaches):
        return reaches.at[used].set(step(reaches[used - 1]))

    reach = jnp.full((MOST_BREAKS + 1, size), jnp.inf).at[1].set(first)
    reach = jax.lax.fori_loop(2, count + 1, advance, reach)
    jumping = jnp.min(reach[count] + last)
    reach = reach.at[count].add(last)

    def columns(parabola):
        return Parabola(*(part[:, None] for part in parabola))

    if joins == 1:
        return jnp.min(jnp.where(known, join(below, beyond), jnp.inf)), errors, reach
    left_two = jnp.where(ordered, join(columns(below), by_left), jnp.inf)
    right_two = jnp.where(ordered, join(by_right, beyond), jnp.inf)
    left, right = jnp.min(left_two, axis=0), jnp.min(right_two, axis=1)
    if joins == 2:
        bound = jnp.maximum(jnp.min(first + right), jnp.min(left + last))
        return jnp.maximum(bound, jumping), errors, reach
    near = at - at[:, None] <= NEAR
    if joins >= 4:
        far = jnp.min(jnp.where(near, jnp.inf, left_two), axis=0)
        three = far[:, None] + errors
        for distance in range(1, NEAR + 1):
            start = jnp.maximum(at - distance, 0)
            inner = _piece(above[:, start] - above, strikes[start], strikes)
            two = extend(Parabola(*(part[start] for part in below)), inner)
            joint = jnp.where(
                (at >= distance)[:, None], join(columns(two), by_left), jnp.inf
            )
            three = jnp.minimum(three, joint)
        left = jnp.min(jnp.where(ordered, three, jnp.inf), axis=0)
    if joins == 5:
        far = jnp.min(jnp.where(near, jnp.inf, right_two), axis=1)
        three = errors + far
        for distance in range(1, NEAR + 1):
            end = jnp.minimum(at + distance, size - 1)
            inner = _piece(above - above[:, end], strikes, strikes[end])
            two = extend(Parabola(*(part[end] for part in beyond)), inner.mirrored)
            joint = jnp.where(at + distance < listed, join(by_right, two), jnp.inf)
            three = jnp.minimum(three, joint)
        right = jnp.min(jnp.where(ordered, three, jnp.inf), axis=1)
        left = jax.lax.fori_loop(0, count - 5, lambda _, reached: step(reached), left)
    return jnp.maximum(jnp.min(left + right), jumping), errors, reach


def _tail(sums: Any, strike: Any) -> Parabola:
    """A line without end, by its value at the strike where it begins."""
    count, x, xx, f, xf, ff = sums
    away = x - strike * count
    square = xx - strike * (2.0 * x - strike * count)
    moment = xf - strike * f
    return Parabola(
        count - _ratio(away**2, square),
        f - _ratio(away * moment, square),
        ff - _ratio(moment**2, square),
    )


def _piece(sums: Any, low: Any, high: Any) -> Piece:
    """A line between two strikes, by its values there."""
    count, x, xx, f, xf, ff = sums
    width = high - low
    share = (x - low * count) / width
    square = (xx - low * (2.0 * x - low * count)) / width**2
    moment = (xf - low * f) / width
    left, both = count - 2.0 * share + square, share - square
    return Piece(left, both, square, f - moment, moment, ff)


def _ratio(numerator: Any, denominator: Any) -> Any:
    """A quotient, zero where there is nothing to divide by; of any array module."""
    some = denominator > _NOTHING
    return numerator * some / (denominator * some + (1.0 - some))

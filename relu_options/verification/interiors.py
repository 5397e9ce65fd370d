r"""Whether hidden units can be on given pieces in the inside of a box, exactly.

On given pieces all inputs of units are affine, and each piece asks of them that
$a_r \cdot x + c_r > 0$ for some rows $r$. Either these have a common solution, and then
a region of full dimension, or multipliers show that they have none (Motzkin):

$$
\lambda \ge 0, \quad \sum_r \lambda_r = 1, \quad \sum_r \lambda_r a_r = 0, \quad
\sum_r \lambda_r c_r \le 0 .
$$

Minimising the last sum, by the simplex method in rationals, decides which: its dual is
to find the point at which the least row is largest. With the rows scaled by what the
box moves them, that point is the centre of the largest copy of the box that fits.

A programme's solution may be on pieces that occur only where hinges coincide or on the
border of the domain; slopes there are those of no region.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from relu_options.verification.exact import ExactNetwork
from relu_options.verification.trades import on_grid


class Side(NamedTuple):
    """A unit on one side of one of its kinks."""

    layer: int
    unit: int
    kink: int
    above: bool


@dataclass(frozen=True)
class Interior:
    """A point inside a region, or why there is none.

    Attributes:
        point: With few binary digits; None if there is no region.
        room: Half the size of a copy of the box around the point that is inside the
            region, relative to half the size of the box.
        conflict: Sides that exclude each other, given the pieces of all units in the
            layers before the last of them; empty if there is a point.
    """

    point: list[Fraction] | None
    room: Fraction
    conflict: list[Side]


def interior(
    exact: ExactNetwork,
    pieces: Sequence[np.ndarray],
    low: Iterable[float],
    high: Iterable[float],
) -> Interior:
    """A point inside the part of a box where the units are on given pieces.

    Args:
        exact: The network.
        pieces: Of each hidden layer.
        low: Lower ends of the box.
        high: Upper ends.

    Returns:
        The point, or sides that exclude each other.

    Examples:
        Two hinges that coincide are not both below zero, nor both above.

        >>> from relu_options.verification.network_reader import layered
        >>> network = layered([([[1.0], [-1.0]], [-0.5, 0.5]), ([[1.0, 1.0]], [0.0])])
        >>> exact = network.in_integers
        >>> found = interior(exact, [np.array([1, 0])], [0.0], [1.0])
        >>> 0.5 < float(found.point[0]) < 1.0, found.conflict
        (True, [])
        >>> found = interior(exact, [np.array([1, 1])], [0.0], [1.0])
        >>> [side.above for side in found.conflict]
        [True, True]
    """
    ends = [(Fraction(l), Fraction(h)) for l, h in zip(low, high, strict=True)]
    halves = [(h - l) / 2 for l, h in ends]
    rows, names = _box_rows(ends, halves)
    for side, row in _sides(exact, pieces):
        reach = sum((abs(a) * h for a, h in zip(row[:-1], halves, strict=True)), 0)
        if not reach:  # a constant: at its kink, both pieces are the same function
            if row[-1] < 0:
                return Interior(None, Fraction(0), [side])
            continue
        size = _power_above(Fraction(reach))
        rows.append([a / size for a in row])
        names.append(side)
    centre, room, support = _highest_point(rows, len(ends))
    if room <= 0:
        conflict = [name for k in support if (name := names[k]) is not None]
        return Interior(None, Fraction(0), conflict)
    point = [on_grid(x, room * h) for x, h in zip(centre, halves, strict=True)]
    return Interior(point, room * Fraction(3, 4), [])


def _box_rows(
    ends: list[tuple[Fraction, Fraction]], halves: list[Fraction]
) -> tuple[list[list[Fraction]], list[Side | None]]:
    """Distances from the faces of a box, two for each input, lower and upper."""
    rows = []
    for axis, ((low, high), half) in enumerate(zip(ends, halves, strict=True)):
        for end, sign in ((low, 1), (high, -1)):
            row = [Fraction(0)] * (len(ends) + 1)
            row[axis], row[-1] = sign / half, -sign * end / half
            rows.append(row)
    return rows, [None] * len(rows)


def _sides(exact: ExactNetwork, pieces: Sequence[np.ndarray]):
    """What the pieces ask to be positive: each side with its row, in integers."""
    for depth, piece in enumerate(pieces):
        layer = exact.layers[depth]
        before = exact.output_rows(depth, pieces)
        inputs = exact.input_rows(depth, before, range(len(piece)))
        for unit, (row, kinks) in enumerate(zip(inputs, layer.kinks, strict=True)):
            place = int(piece[unit])
            if place > 0:
                above = [*row[:-1], row[-1] - kinks[place - 1]]
                yield Side(depth, unit, place - 1, True), [Fraction(a) for a in above]
            if place < len(kinks):
                below = [*(-a for a in row[:-1]), kinks[place] - row[-1]]
                yield Side(depth, unit, place, False), [Fraction(a) for a in below]


def _power_above(number: Fraction) -> Fraction:
    """A power of two that is not below a positive number, nor above four times it."""
    digits = number.numerator.bit_length() - number.denominator.bit_length() + 1
    return Fraction(2) ** digits


def _highest_point(
    rows: list[list[Fraction]], count: int
) -> tuple[list[Fraction], Fraction, list[int]]:
    """Where the least of affine rows is largest, unless it is seen not to be positive.

    The first rows are those of the box, which give a first basis. A row is in the basis
    as the column `(a, 1)`; `inverse` is that of the matrix of columns.

    Returns:
        The point; the least row there, or, if it is not positive, a bound on it; and
        the rows that prove the bound.
    """
    basis = [0, 1, *range(2, 2 * count, 2)]
    inverse = _first_inverse(rows, count)
    step = 0
    while True:
        step += 1
        weights = [row[-1] for row in inverse]
        heights = [rows[k][-1] for k in basis]
        prices = [_dot(heights, column) for column in zip(*inverse, strict=True)]
        point, least = [-p for p in prices[:-1]], prices[-1]
        if least <= 0:
            return point, least, [k for k, w in zip(basis, weights, strict=True) if w]
        slack = [row[-1] + _dot(row[:-1], point) - least for row in rows]
        short = [k for k, s in enumerate(slack) if s < 0]
        if not short:
            return point, least, basis
        # The lowest row, which is fast; in a degenerate corner, the first (Bland).
        entering = min(short, key=slack.__getitem__) if step < 50 else short[0]
        column = [*rows[entering][:-1], Fraction(1)]
        change = [_dot(row, column) for row in inverse]
        leaving = _first_to_vanish(weights, change, basis)
        inverse = _exchanged(inverse, change, leaving)
        basis[leaving] = entering


def _dot(left: Sequence[Fraction], right: Sequence[Fraction]) -> Fraction:
    """The sum of the products of two rows."""
    return sum((a * b for a, b in zip(left, right, strict=True)), Fraction(0))


def _first_to_vanish(
    weights: list[Fraction], change: list[Fraction], basis: list[int]
) -> int:
    """The place in the basis whose weight is zero first; of several, the first row."""
    ratios = [
        (w / c, row, place)
        for place, (w, c, row) in enumerate(zip(weights, change, basis, strict=True))
        if c > 0
    ]
    return min(ratios)[2]


def _exchanged(
    inverse: list[list[Fraction]], change: list[Fraction], leaving: int
) -> list[list[Fraction]]:
    """The inverse when the column at `leaving` is another, `change` times the basis."""
    pivot = [x / change[leaving] for x in inverse[leaving]]
    return [
        pivot
        if i == leaving
        else [x - change[i] * p for x, p in zip(row, pivot, strict=True)]
        for i, row in enumerate(inverse)
    ]


def _first_inverse(rows: list[list[Fraction]], count: int) -> list[list[Fraction]]:
    """Inverse of the columns of both faces of the first input, and one of each other.

    With `u` the inverse of half the width of an input these are
    `(u, 0, ..., 1), (-u, 0, ..., 1), (0, v, ..., 1), ...`.
    """
    zero, half = Fraction(0), Fraction(1, 2)
    inverse = [[zero] * (count + 1) for _ in range(count + 1)]
    for sign, row in ((1, inverse[0]), (-1, inverse[1])):
        row[0], row[-1] = sign * half / rows[0][0], half
        for axis in range(1, count):
            row[axis] = -half / rows[2 * axis][axis]
    for axis in range(1, count):
        inverse[axis + 1][axis] = 1 / rows[2 * axis][axis]
    return inverse

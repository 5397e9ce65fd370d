r"""The linear regions of a network of two inputs, by splitting polygons, exactly.

Layer by layer, each region found so far is split by the lines on which a unit of the
next layer has its kink: inside the region the unit's input is affine. What remains are
convex polygons on each of which the network is affine. Their union is the domain, and
they meet edge to edge: a unit's input is continuous, so that a line that ends at an
edge goes on from the same point on its other side. Edges inside are facets, across
which the gradient jumps.

Lines are integers, and a corner is the cross product of two lines, so that every
question "on which side?" is answered without rounding. Floating point with a bound on
its error answers it first, for all corners and units at once, and leaves the few units
whose kink comes near the region.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import TypeAlias

import numpy as np

from relu_options.payoffs.numbers import nearest_float
from relu_options.verification.domain import Domain
from relu_options.verification.exact import ExactNetwork
from relu_options.verification.layers import LayeredNetwork
from relu_options.verification.rounding import Bounded, RoundedNetwork, bounded

Corner: TypeAlias = tuple[int, int, int]
"""A point `(x / w, y / w)` as `(x, y, w)` with `w > 0`."""
Line: TypeAlias = Sequence[int]
"""`a x + b y + c = 0` as `(a, b, c)`."""
Polygon: TypeAlias = tuple[int, ...]
"""Positions of its corners, counterclockwise."""
Point: TypeAlias = tuple[Fraction, ...]

_BATCH = 2**20  # of units times corners that floating point answers at once


class OutOfTime(Exception):
    """The time allowed is over; holds how many regions had been found."""

    def __init__(self, regions: int) -> None:
        super().__init__(regions)
        self.regions = regions


@dataclass(frozen=True, eq=False)
class Facets:
    """Edges between two regions, of shape `(F,)` each.

    Attributes:
        below: Region on the side of lower strikes, or of shorter times where the facet
            runs along the strike.
        above: Region on the other side.
        corners: Positions of its ends, of shape `(F, 2)`.
        across_strike: Whether the strike changes across it.
    """

    below: np.ndarray
    above: np.ndarray
    corners: np.ndarray
    across_strike: np.ndarray

    def __len__(self) -> int:
        return len(self.below)


class Regions:
    """The linear regions of a network of two inputs on a box.

    Attributes:
        network: The network.
        exact: The same in integers.
        corners: Of all regions.
        polygons: Of each region the positions of its corners.
        pieces: Of each hidden layer, of shape `(C, n)`: the units' pieces by region.
    """

    def __init__(
        self,
        network: LayeredNetwork,
        corners: list[Corner],
        polygons: list[Polygon],
        pieces: list[np.ndarray],
        exact: ExactNetwork,
        rounded: RoundedNetwork,
    ) -> None:
        self.network, self.exact, self._rounded = network, exact, rounded
        self.corners, self.polygons, self.pieces = corners, polygons, pieces
        self._exact_gradients: dict[int, Point] = {}

    def __len__(self) -> int:
        """Number of regions."""
        return len(self.polygons)

    @cached_property
    def points(self) -> np.ndarray:
        """Corners in floating point, of shape `(V, 2)`."""
        return _in_floats(self.corners)

    @cached_property
    def a_region(self) -> np.ndarray:
        """Of each corner, of shape `(V,)`, one of the regions that it belongs to."""
        owner = np.zeros(len(self.corners), int)
        for region, polygon in enumerate(self.polygons):
            owner[list(polygon)] = region
        return owner

    @cached_property
    def gradients(self) -> Bounded:
        """Gradient on each region, of shape `(C, 2)`, with a bound on its error."""
        gradients = self._rounded.gradients(self.pieces)
        shape = (len(self), 2)
        return Bounded(*(np.broadcast_to(a, shape) for a in gradients))

    @cached_property
    def values(self) -> Bounded:
        """Value at each corner, of shape `(V,)`, with a bound on its error."""
        return self._rounded.values(
            self.points, [piece[self.a_region] for piece in self.pieces]
        )

    @cached_property
    def last_inputs(self) -> Bounded:
        """Inputs of the last hidden layer at each corner, of shape `(V, n)`."""
        return self._rounded.hidden_inputs(
            self.points, [piece[self.a_region] for piece in self.pieces[:-1]]
        )

    @cached_property
    def last_outputs(self) -> np.ndarray:
        """Outputs of the last hidden layer at each corner, of shape `(V, n)`."""
        return self._rounded.last_outputs(
            self.points, [piece[self.a_region] for piece in self.pieces]
        )

    def last_gradients(self, of_input: int) -> np.ndarray:
        """Derivatives of the last hidden layer's outputs, of shape `(C, n)`."""
        return self._rounded.last_gradients(self.pieces, of_input)

    def exact_gradient(self, region: int) -> Point:
        """Gradient on a region, in rationals."""
        if region not in self._exact_gradients:
            pieces = [piece[region] for piece in self.pieces]
            self._exact_gradients[region] = self.exact.gradient(pieces)
        return self._exact_gradients[region]

    def exact_value(self, corner: int) -> Fraction:
        """Value at a corner, in rationals."""
        x, y, w = self.corners[corner]
        return self.exact.value_at((x, y), w)

    def exact_point(self, corner: int) -> Point:
        """A corner in rationals."""
        x, y, w = self.corners[corner]
        return Fraction(x, w), Fraction(y, w)

    def outline(self, region: int) -> list[Point]:
        """Corners of a region in rationals, counterclockwise."""
        return [self.exact_point(corner) for corner in self.polygons[region]]

    @cached_property
    def facets(self) -> Facets:
        """The edges between two regions."""
        sides: dict[tuple[int, int], list[tuple[int, bool]]] = {}
        for region, polygon in enumerate(self.polygons):
            for i, j in zip(polygon, polygon[1:] + polygon[:1], strict=True):
                forth = i < j
                sides.setdefault((i, j) if forth else (j, i), []).append(
                    (region, forth)
                )
        below, above, ends, across = [], [], [], []
        for (i, j), regions in sides.items():
            if len(regions) == 1:
                continue  # on the edge of the domain
            left, right = (
                next(region for region, way in regions if way is forth)
                for forth in (True, False)
            )
            # A region is on the left of its edges; left of "up" is the lower strike.
            (xi, yi, wi), (xj, yj, wj) = self.corners[i], self.corners[j]
            rise = yj * wi - yi * wj
            upward = rise > 0 if rise else xj * wi < xi * wj
            below.append(left if upward else right)
            above.append(right if upward else left)
            ends.append((i, j))
            across.append(rise != 0)
        return Facets(
            np.array(below, int),
            np.array(above, int),
            np.array(ends, int).reshape(-1, 2),
            np.array(across, bool),
        )

    @cached_property
    def slope_jumps(self) -> Bounded:
        """By how much the slope in strike rises across each facet, of shape `(F,)`."""
        slope, error = (a[:, 0] for a in self.gradients)
        above, below = self.facets.above, self.facets.below
        with np.errstate(over="ignore"):
            return bounded(slope[above] - slope[below], error[above] + error[below])

    def exact_slope_jump(self, facet: int) -> Fraction:
        """The same in rationals."""
        above, below = self.facets.above[facet], self.facets.below[facet]
        return self.exact_gradient(above)[0] - self.exact_gradient(below)[0]


def enumerate_regions(
    network: LayeredNetwork, domain: Domain, deadline: float = math.inf
) -> Regions:
    """All linear regions of a network of two inputs.

    Args:
        network: Any depth.
        domain: The box.
        deadline: On `time.monotonic`.

    Returns:
        The regions.

    Raises:
        OutOfTime: If the deadline passes.

    Examples:
        Two hinges that cross make four regions.

        >>> from relu_options.verification.domain import domain_of
        >>> from relu_options.verification.network_reader import layered
        >>> network = layered([([[1.0, 1.0], [1.0, -1.0]], [-1.0, 0.0]),
        ...                    ([[1.0, 1.0]], [0.0])])
        >>> regions = enumerate_regions(network, domain_of([(0, 1), (0, 1)], 2))
        >>> len(regions), len(regions.facets)
        (4, 4)
        >>> sorted(regions.gradients.value.tolist())
        [[0.0, 0.0], [1.0, -1.0], [1.0, 1.0], [2.0, 0.0]]
    """
    exact, rounded = network.in_integers, RoundedNetwork(network)
    plane = _Plane(domain, deadline)
    polygons, pieces = [plane.box], []
    for depth in range(len(network.layers)):
        polygons, parents, found = _split_by_layer(
            plane, exact, rounded, depth, polygons, pieces
        )
        pieces = [*(piece[parents] for piece in pieces), found]
    return Regions(network, plane.corners, polygons, pieces, exact, rounded)


class _Plane:
    """Corners and edges of the subdivision so far."""

    def __init__(self, domain: Domain, deadline: float) -> None:
        self.deadline = deadline
        self.corners: list[Corner] = []
        self.lines: dict[tuple[int, int], Line] = {}
        self.cuts: dict[tuple[int, int, int, int, int], int] = {}
        low, high = ([Fraction(x) for x in ends] for ends in (domain.low, domain.high))
        corners = [low, [high[0], low[1]], high, [low[0], high[1]]]
        for x, y in corners:
            w = math.lcm(x.denominator, y.denominator)
            self.corners.append((int(x * w), int(y * w), w))
        for i, (axis, x) in enumerate([(1, low), (0, high), (1, high), (0, low)]):
            ratio = x[axis].as_integer_ratio()
            line = [0, 0, -ratio[0]]
            line[axis] = ratio[1]
            self.lines[_edge(i, (i + 1) % 4)] = line
        self.box: Polygon = (0, 1, 2, 3)

    def split(
        self, polygon: Polygon, line: Line, sides: dict[int, int], name: tuple
    ) -> tuple[Polygon, Polygon] | bool:
        """The parts of a polygon below and above a line, or whether all is above.

        `sides` remembers on which side of this line a corner is, and `name` tells the
        line from others, such that both sides of an edge find the same corner on it.
        """
        a, b, c = line
        for i in polygon:
            if i not in sides:
                x, y, w = self.corners[i]
                sides[i] = a * x + b * y + c * w
        signs = [sides[i] for i in polygon]
        if min(signs) >= 0:
            return True
        if max(signs) <= 0:
            return False
        below: list[int] = []
        above: list[int] = []
        ends: list[int] = []
        for i, j, s, t in zip(
            polygon,
            polygon[1:] + polygon[:1],
            signs,
            signs[1:] + signs[:1],
            strict=True,
        ):
            if s >= 0:
                above.append(i)
            if s <= 0:
                below.append(i)
            if s == 0:
                ends.append(i)
            elif (s < 0 < t) or (t < 0 < s):
                cut = self._cut(i, j, line, name)
                sides[cut] = 0
                above.append(cut)
                below.append(cut)
                ends.append(cut)
        self.lines[_edge(*ends)] = line
        return tuple(below), tuple(above)

    def _cut(self, i: int, j: int, line: Line, name: tuple) -> int:
        """The corner where a line crosses an edge."""
        edge = _edge(i, j)
        key = (*edge, *name)
        if key not in self.cuts:
            along = self.lines[edge]
            a, b, c = along
            p, q, r = line
            x, y, w = b * r - c * q, c * p - a * r, a * q - b * p
            self.cuts[key] = len(self.corners)
            self.corners.append((x, y, w) if w > 0 else (-x, -y, -w))
            self.lines[_edge(i, self.cuts[key])] = along
            self.lines[_edge(self.cuts[key], j)] = along
        return self.cuts[key]


def _in_floats(corners: list[Corner]) -> np.ndarray:
    """The nearest floats of corners, in which only 0 itself is 0."""
    points = np.array([(x / w, y / w) for x, y, w in corners])
    for corner, axis in np.argwhere(points == 0.0):
        points[corner, axis] = nearest_float(
            Fraction(corners[corner][axis], corners[corner][2])
        )
    return points


def _edge(i: int, j: int) -> tuple[int, int]:
    """An edge whatever its direction."""
    return (i, j) if i < j else (j, i)


def _split_by_layer(
    plane: _Plane,
    exact: ExactNetwork,
    rounded: RoundedNetwork,
    depth: int,
    polygons: list[Polygon],
    pieces: list[np.ndarray],
) -> tuple[list[Polygon], np.ndarray, np.ndarray]:
    """Split all regions by the kinks of one layer.

    Returns:
        The parts, the position of the region that each is part of, and the pieces of
        this layer's units by part.
    """
    kinks = exact.layers[depth].kinks
    parts: list[Polygon] = []
    parents: list[int] = []
    found: list[np.ndarray] = []
    for region, (first, near) in enumerate(
        _near_kinks(plane, rounded, depth, polygons, pieces)
    ):
        split = [(polygons[region], first)]
        if len(near):
            before = exact.output_rows(depth, [piece[region] for piece in pieces])
            units = [int(unit) for unit in near[:, 0]]
            rows = exact.input_rows(depth, before, units)
            for (unit, place), (a, b, c) in zip(near.tolist(), rows, strict=True):
                line = (a, b, c - kinks[unit][place])
                split = _split_by_line(plane, split, line, (depth, unit, place))
                if time.monotonic() > plane.deadline:
                    raise OutOfTime(len(parts) + len(split))
        for polygon, piece in split:
            parts.append(polygon)
            parents.append(region)
            found.append(piece)
    return parts, np.array(parents), np.array(found, np.int8)


def _split_by_line(
    plane: _Plane,
    polygons: list[tuple[Polygon, np.ndarray]],
    line: Line,
    name: tuple[int, int, int],
) -> list[tuple[Polygon, np.ndarray]]:
    """Split polygons by the line of one kink; units above it are a piece further."""
    sides: dict[int, int] = {}
    result = []
    for polygon, piece in polygons:
        outcome = plane.split(polygon, line, sides, name)
        if outcome is False:
            result.append((polygon, piece))
            continue
        further = piece.copy()
        further[name[1]] += 1
        if outcome is True:
            result.append((polygon, further))
        else:
            below, above = outcome
            result += [(below, piece), (above, further)]
    return result


def _near_kinks(
    plane: _Plane,
    rounded: RoundedNetwork,
    depth: int,
    polygons: list[Polygon],
    pieces: list[np.ndarray],
):
    """Of each region the pieces that are certain, and the kinks that may cross it.

    Yields arrays `(n,)`, how many kinks of each unit are certainly below its input, and
    `(m, 2)`, a unit and the position of one of its kinks in each row.
    """
    points = _in_floats(plane.corners)
    kinks = rounded.kinks[depth]
    batch = max(1, _BATCH // (8 * max(kinks.size, 1)))
    for start in range(0, len(polygons), batch):
        some = polygons[start : start + batch]
        sizes = np.array([len(polygon) for polygon in some])
        region = start + np.repeat(np.arange(len(some)), sizes)
        inputs = rounded.hidden_inputs(
            points[np.concatenate(some)], [piece[region] for piece in pieces]
        )
        inputs = Bounded(inputs.value[..., None], inputs.error[..., None])
        first = np.append(0, np.cumsum(sizes)[:-1])
        above = np.logical_and.reduceat(inputs.above(kinks), first, axis=0)
        below = np.logical_and.reduceat(inputs.below(kinks), first, axis=0)
        certain = above.sum(axis=2, dtype=np.int8)
        near = ~above & ~below
        for place in range(len(some)):
            yield certain[place], np.argwhere(near[place])

"""Linear regions of small networks in any number of inputs, by splitting vertices.

An independent reference for verdicts: fractions throughout, convex polytopes as their
vertices, and no linear programme. Two vertices are joined by an edge if no third one
has all the constraints that both have (Motzkin's double description).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations, product
from typing import Any

Row = list[Fraction]
"""An affine function: its coefficients, and its constant last."""
Vertices = dict[tuple[Fraction, ...], frozenset]
"""Points, each with the names of the constraints that hold with equality."""


@dataclass(frozen=True, eq=False)
class Region:
    """A polytope of full dimension on which the network is one affine function."""

    vertices: Vertices
    output: Row

    def values(self) -> list[tuple[tuple[Fraction, ...], Fraction]]:
        """Vertices with the value of the network."""
        return [(point, at(self.output, point)) for point in self.vertices]

    @property
    def centre(self) -> tuple[Fraction, ...]:
        """A point inside."""
        count = len(self.vertices)
        return tuple(
            sum(x, Fraction(0)) / count for x in zip(*self.vertices, strict=True)
        )


def at(row: Row, point: tuple[Fraction, ...]) -> Fraction:
    """Value of an affine function."""
    return sum((a * x for a, x in zip(row, point, strict=False)), row[-1])


def split(vertices: Vertices, row: Row, name: Any) -> tuple[Vertices, Vertices]:
    """The parts where an affine function is negative and positive; empty if flat."""
    heights = {point: at(row, point) for point in vertices}
    if min(heights.values()) >= 0:
        return {}, vertices
    if max(heights.values()) <= 0:
        return vertices, {}
    on = {p: tight | {name} for p, tight in vertices.items() if heights[p] == 0}
    low = [p for p in vertices if heights[p] < 0]
    high = [p for p in vertices if heights[p] > 0]
    for p, q in product(low, high):
        shared = vertices[p] & vertices[q]
        if any(shared <= vertices[r] for r in vertices if r not in (p, q)):
            continue
        share = heights[p] / (heights[p] - heights[q])
        cut = tuple(x + share * (y - x) for x, y in zip(p, q, strict=True))
        on[cut] = on.get(cut, frozenset()) | shared | {name}
    return (
        {**{p: vertices[p] for p in low}, **on},
        {**{p: vertices[p] for p in high}, **on},
    )


def box_vertices(box: list[tuple[float, float]]) -> Vertices:
    """Corners of a box."""
    return {
        tuple(Fraction(box[axis][side]) for axis, side in enumerate(sides)): frozenset(
            enumerate(sides)
        )
        for sides in product((0, 1), repeat=len(box))
    }


def linear_regions(network: Any, box: list[tuple[float, float]]) -> list[Region]:
    """All of them; `network` is layered."""
    size = len(box)
    inputs = [
        [Fraction(int(i == j)) for j in range(size)] + [Fraction(0)]
        for i in range(size)
    ]
    parts = [(box_vertices(box), inputs)]
    for depth, layer in enumerate(network.layers):
        parts = [
            piece
            for vertices, rows in parts
            for piece in _through(layer, depth, vertices, rows)
        ]
    weights = [[Fraction(w) for w in network.weights.tolist()]]
    return [
        Region(vertices, combined(weights, [Fraction(network.bias)], rows)[0])
        for vertices, rows in parts
    ]


def combined(weights: list[Row], biases: Row, rows: list[Row]) -> list[Row]:
    """Affine functions of affine functions."""
    result = []
    for row, bias in zip(weights, biases, strict=True):
        total = [
            sum((w * r[i] for w, r in zip(row, rows, strict=True)), Fraction(0))
            for i in range(len(rows[0]))
        ]
        total[-1] += bias
        result.append(total)
    return result


def _through(
    layer: Any, depth: int, vertices: Vertices, rows: list[Row]
) -> list[tuple[Vertices, list[Row]]]:
    """A region split by the kinks of a layer, with the layer's outputs on each part."""
    weights = [[Fraction(w) for w in row] for row in layer.weights.tolist()]
    biases = [Fraction(b) for b in layer.biases.tolist()]
    parts: list[tuple[Vertices, list[Row]]] = [(vertices, [])]
    for place, (unit, row) in enumerate(
        zip(layer.units, combined(weights, biases, rows), strict=True)
    ):
        found = []
        for part, outputs in parts:
            left = part
            for number, slope in enumerate(unit.slopes):
                here = left
                if number < len(unit.kinks):
                    level = [*row[:-1], row[-1] - Fraction(unit.kinks[number])]
                    here, left = split(left, level, (depth, place, number))
                if here:
                    piece = [Fraction(slope) * a for a in row]
                    piece[-1] += unit.offsets[number]
                    found.append((here, [*outputs, piece]))
                if not left:
                    break
        parts = found
    return parts


def slope_range(regions: list[Region], axis: int) -> tuple[Fraction, Fraction]:
    """Least and largest derivative in an input."""
    slopes = [region.output[axis] for region in regions]
    return min(slopes), max(slopes)


def least_jump(regions: list[Region]) -> Fraction:
    """The least rise of the first derivative, along that input, across a facet."""
    jumps = [Fraction(0)]
    for one, two in combinations(regions, 2):
        shared = [p for p in one.vertices if p in two.vertices]
        size = len(one.output) - 1
        change = [b - a for a, b in zip(one.output, two.output, strict=True)]
        if len(shared) < size or not change[0] or rank(shared) < size - 1:
            continue
        # Continuous: the change is a multiple of the facet's normal, 0 on the facet.
        forth = at(change, two.centre) > 0
        rises = change[0] > 0
        upward = forth == rises  # whether the second is on the side of more
        jumps.append(change[0] if upward else -change[0])
    return min(jumps)


def rank(points: list[tuple[Fraction, ...]]) -> int:
    """Dimension of the flat through points."""
    rows = [[x - y for x, y in zip(p, points[0], strict=True)] for p in points[1:]]
    found = 0
    for axis in range(len(points[0])):
        pivot = next((r for r in rows[found:] if r[axis]), None)
        if pivot is None:
            continue
        rows.remove(pivot)
        rows.insert(found, pivot)
        for k in range(found + 1, len(rows)):
            factor = rows[k][axis] / pivot[axis]
            rows[k] = [x - factor * y for x, y in zip(rows[k], pivot, strict=True)]
        found += 1
    return found


def margins(
    network: Any,
    box: list[tuple[float, float]],
    forward: Fraction = Fraction(1),
    discount: Fraction = Fraction(1),
) -> dict[str, Fraction]:
    """By how much each condition on call prices holds."""
    regions = linear_regions(network, box)
    low, high = slope_range(regions, 0)
    values = [pair for region in regions for pair in region.values()]
    result = {
        "convex": least_jump(regions),
        "decreasing": -high,
        "slope": low + discount,
        "bounds": min(
            min(f, f - discount * (forward - x[0]), discount * forward - f)
            for x, f in values
        ),
    }
    if len(box) > 1:
        result["calendar"] = slope_range(regions, 1)[0]
    return result


def distance_to_level(
    network: Any,
    box: list[tuple[float, float]],
    point: list[Fraction],
    scales: list[Fraction],
    level: Fraction,
    sign: int,
) -> Fraction | None:
    """The least scaled largest move of an input that takes the value past a level."""
    size = len(box)
    walls: list[tuple[Row, Any]] = []
    for i in range(size):
        row = [Fraction(int(k == i)) for k in range(size)] + [-point[i]]
        walls.append((row, ("at", i)))
        for j in range(i):
            for turn in (1, -1):
                row = [Fraction(0)] * (size + 1)
                row[i], row[j] = scales[j], -turn * scales[i]
                row[-1] = -row[i] * point[i] - row[j] * point[j]
                walls.append((row, ("equal", i, j, turn)))
    found = []
    for region in linear_regions(network, box):
        level_row = [sign * a for a in region.output]
        level_row[-1] -= sign * level
        _, beyond = split(region.vertices, level_row, "level")
        parts = [beyond or region.vertices]  # a face may lie on the level
        for row, name in walls:
            parts = [p for part in parts for p in split(part, row, name) if p]
        found += [
            max(abs(x - p) / s for x, p, s in zip(vertex, point, scales, strict=True))
            for part in parts
            for vertex in part
            if at(level_row, vertex) >= 0
        ]
    return min(found, default=None)

"""A network of one input as what it is: straight lines between kinks, exactly."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from fractions import Fraction

from relu_options.verification.domain import Domain
from relu_options.verification.layers import LayeredNetwork
from relu_options.verification.regions import OutOfTime


@dataclass(frozen=True)
class Segments:
    """A piecewise-linear function of one number.

    Attributes:
        points: Where its slope may change, and the ends of the domain; increasing.
        values: At the points.
    """

    points: tuple[Fraction, ...]
    values: tuple[Fraction, ...]

    def __len__(self) -> int:
        """Number of segments."""
        return len(self.points) - 1

    @property
    def slopes(self) -> list[Fraction]:
        """Of each segment."""
        points, values = self.points, self.values
        return [
            (values[i + 1] - values[i]) / (points[i + 1] - points[i])
            for i in range(len(self))
        ]


def enumerate_segments(
    network: LayeredNetwork, domain: Domain, deadline: float = math.inf
) -> Segments:
    """The linear segments of a network of one input.

    Layer by layer: between the points found so far the input of a unit is linear, so
    that its values at the points tell where it has its kinks.

    Args:
        network: Any depth.
        domain: The interval.
        deadline: On `time.monotonic`.

    Returns:
        The segments, with all kinks of all units among their ends.

    Raises:
        OutOfTime: If the deadline passes.

    Examples:
        >>> from relu_options.verification.domain import domain_of
        >>> from relu_options.verification.network_reader import layered
        >>> tent = layered([([[1.0], [-1.0]], [0.0, 1.0]), ([[1.0, 1.0]], [0.0]),
        ...                 ([[2.0]], [0.0])])
        >>> segments = enumerate_segments(tent, domain_of([(0.0, 2.0)], 1))
        >>> [str(x) for x in segments.points], [str(s) for s in segments.slopes]
        (['0', '1', '2'], ['0', '2'])
    """
    exact = network.in_integers
    points = [Fraction(domain.low[0]), Fraction(domain.high[0])]
    for depth, layer in enumerate(network.layers):
        inputs = []
        for point in points:
            _require_time(deadline, points)
            inputs.append(exact.hidden_inputs([point], depth))
        found = set(points)
        for unit, heights in zip(layer.units, zip(*inputs, strict=True), strict=True):
            for kink in unit.kinks:
                found |= _crossings(points, heights, Fraction(kink))
        points = sorted(found)
    values = []
    for point in points:
        _require_time(deadline, points)
        values.append(exact.value([point]))
    return Segments(tuple(points), tuple(values))


def _require_time(deadline: float, points: list[Fraction]) -> None:
    """Raise if the time is over."""
    if time.monotonic() > deadline:
        raise OutOfTime(len(points) - 1)


def _crossings(
    points: list[Fraction], heights: tuple[Fraction, ...], level: Fraction
) -> set[Fraction]:
    """Where a function that is linear between points crosses a level."""
    found = set()
    for i in range(len(points) - 1):
        before, after = heights[i] - level, heights[i + 1] - level
        if (before < 0 < after) or (after < 0 < before):
            width = points[i + 1] - points[i]
            found.add(points[i] + width * (before / (before - after)))
    return found

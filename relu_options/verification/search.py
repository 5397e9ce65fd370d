"""The largest value of a goal over a box: programmes on parts of it, best first.

A box whose programme would have more binaries than HiGHS handles well is halved, along
the input that moves the hidden units most. Affine arithmetic bounds the goal on each
part, and parts on which it cannot exceed what has been attained are dropped.

Where hinges coincide or lie on the border, a programme finds slopes on pieces that no
region has: such pieces are seen to be none in rationals, forbidden, and the programme
is solved again.
"""

from __future__ import annotations

import heapq
import math
import time
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Protocol

import numpy as np
from scipy.optimize import OptimizeResult

from relu_options.payoffs.numbers import nearest_float
from relu_options.verification.bounds import (
    Ranges,
    gradient_range,
    ranges_on,
    through_layer,
    times_slopes,
)
from relu_options.verification.domain import Domain
from relu_options.verification.exact import ExactNetwork
from relu_options.verification.interiors import interior
from relu_options.verification.layers import LayeredNetwork, in_floats
from relu_options.verification.programme import Affine, EncodedNetwork, encode

_BINARIES = 8  # for each input, of a deep network, above which a box is halved
_SMALLEST = 2.0**-24  # of the domain: parts are not halved further
_GAP = 1e-11  # relative


class Goal(Protocol):
    """A quantity to maximise over a box."""

    def upper(self, network: LayeredNetwork, ranges: Ranges, box: Box) -> float:
        """An upper bound on a box, quickly."""
        ...

    def encoded(self, code: EncodedNetwork) -> Affine:
        """The quantity in a programme; may add constraints."""
        ...


Box = tuple[np.ndarray, np.ndarray]
"""Lower and upper ends, of shape `(d,)`."""


@dataclass(frozen=True)
class ValueGoal:
    """`sign` times the price, plus `slope` times the strike, plus `constant`."""

    sign: float
    slope: float = 0.0
    constant: float = 0.0

    def upper(self, network: LayeredNetwork, ranges: Ranges, box: Box) -> float:
        """Bound by the range of the output."""
        price = ranges.high if self.sign > 0 else -ranges.low
        strike = max(self.slope * box[0][0], self.slope * box[1][0])
        return price + strike + self.constant

    def encoded(self, code: EncodedNetwork) -> Affine:
        """The quantity in a programme."""
        parts = [code.output, code.inputs[0]]
        return Affine.combination([self.sign, self.slope], parts, self.constant)


@dataclass(frozen=True)
class SlopeGoal:
    """`sign` times the derivative in an input, plus `constant`."""

    of_input: int
    sign: float
    constant: float = 0.0

    def upper(self, network: LayeredNetwork, ranges: Ranges, box: Box) -> float:
        """Bound by interval arithmetic."""
        low, high = gradient_range(network, ranges, self.of_input)
        return (high if self.sign > 0 else -low) + self.constant

    def encoded(self, code: EncodedNetwork) -> Affine:
        """The quantity in a programme."""
        derivative = code.derivative(self.of_input)
        return Affine.combination([self.sign], [derivative], self.constant)


@dataclass(frozen=True)
class BendGoal:
    r"""By how much the slope in strike falls across the facets of one kink of a unit.

    With $y$ the unit's input, it falls by $-\Delta\varphi' \, (\partial f / \partial h)
    \, |\partial y / \partial K|$; `side` is the sign of the last derivative that is
    looked at.
    """

    layer: int
    unit: int
    kink: int
    side: int

    def upper(self, network: LayeredNetwork, ranges: Ranges, box: Box) -> float:
        """Bound by interval arithmetic; minus infinity where there is no such facet."""
        on = ranges.units[self.layer][self.unit]
        if not on.first <= self.kink < on.last:
            return -math.inf
        low, high = self._input_slope(network, ranges)
        if self.side * (high if self.side > 0 else low) <= 0.0:
            return -math.inf
        low, high = (max(low, 0.0), high) if self.side > 0 else (low, min(high, 0.0))
        tangent = np.zeros(len(network.layers[self.layer]))
        ends = []
        for slope in (low, high):
            tangent[self.unit] = self._rise(network) * slope
            ends.append(tangent.copy())
        least, most = np.minimum(*ends), np.maximum(*ends)
        for place in range(self.layer + 1, len(network.layers)):
            layer = network.layers[place]
            least, most = through_layer(layer.weights.astype(float), least, most)
            least, most = times_slopes(layer.units, ranges.units[place], least, most)
        least, most = through_layer(network.weights.astype(float)[None], least, most)
        return float(-least[0] if self.side > 0 else most[0]) * (1.0 + 1e-11)

    def encoded(self, code: EncodedNetwork) -> Affine:
        """The quantity in a programme, whose inputs are on the kink."""
        network = code.network
        unit = code.layers[self.layer][self.unit]
        kink = float(unit.unit.kinks[self.kink])
        code.programme.require(unit.input, kink, kink)
        seed = np.eye(network.inputs)[0]
        slope = code.carry(
            [Affine(float(x)) for x in seed], seed, seed, 0, (self.layer, self.unit)
        )
        code.programme.require(
            slope, **({"low": 0.0} if self.side > 0 else {"high": 0.0})
        )
        ranges = Ranges([[u.on for u in row] for row in code.layers], 0.0, 0.0)
        low, high = self._input_slope(network, ranges)
        count = len(network.layers[self.layer])
        tangents = [Affine() for _ in range(count)]
        tangents[self.unit].add(self._rise(network), slope)
        ends = np.zeros((2, count))
        ends[:, self.unit] = sorted(self._rise(network) * s for s in (low, high))
        jump = code.carry(tangents, ends[0], ends[1], self.layer + 1)
        return Affine.combination([-float(self.side)], [jump])

    def _rise(self, network: LayeredNetwork) -> float:
        """By how much the slope of the unit rises at the kink."""
        slopes = network.layers[self.layer].units[self.unit].slopes
        return float(slopes[self.kink + 1] - slopes[self.kink])

    def _input_slope(
        self, network: LayeredNetwork, ranges: Ranges
    ) -> tuple[float, float]:
        """Interval of the derivative of the unit's input in the strike."""
        low = high = np.eye(network.inputs)[0]
        for place in range(self.layer + 1):
            layer = network.layers[place]
            low, high = through_layer(layer.weights.astype(float), low, high)
            if place < self.layer:
                low, high = times_slopes(layer.units, ranges.units[place], low, high)
        return float(low[self.unit]), float(high[self.unit])


@dataclass(frozen=True, eq=False)
class Optimum:
    """What a search has found.

    Attributes:
        upper: No point of the box has more, to the programme's tolerance.
        attained: Of the best solution; minus infinity if there is none. A slope is that
            of a region, exactly but for its last rounding.
        point: Its inputs; where a slope is the goal, they are inside its region.
        room: Of that region around the point, as in `Interior`.
        pieces: The pieces of its hidden units.
        programmes: How many were solved.
        in_time: Whether the search came to its end.
    """

    upper: float
    attained: float
    point: list[Fraction] | None
    pieces: list[np.ndarray]
    programmes: int
    in_time: bool
    room: Fraction = Fraction(0)


def maximise(
    goal: Goal,
    network: LayeredNetwork,
    domain: Domain,
    deadline: float = math.inf,
    at_least: float = -math.inf,
) -> Optimum:
    """The largest value of a goal on a domain.

    Args:
        goal: What to maximise.
        network: Any.
        domain: The box.
        deadline: On `time.monotonic`.
        at_least: Values up to this one are of no interest, and not looked for.

    Returns:
        The optimum, with bounds on both sides.

    Examples:
        >>> from relu_options.verification.domain import domain_of
        >>> from relu_options.verification.network_reader import layered
        >>> network = layered([([[1.0], [1.0]], [-0.4, -0.6]), ([[1.0, -1.0]], [0.0])])
        >>> found = maximise(ValueGoal(1.0), network, domain_of([(0, 1)], 1))
        >>> print(round(found.upper, 6), round(found.attained, 6))
        0.2 0.2
    """
    exact, network = network.in_integers, in_floats(network)
    whole = np.array(domain.low), np.array(domain.high)
    deep = len(network.layers) > 1
    most_binaries = _BINARIES * network.inputs
    best = Optimum(at_least, -math.inf, None, [], 0, True)
    programmes, place = 0, 0
    ranges = ranges_on(network, *whole)
    queue = [(-goal.upper(network, ranges, whole), place, whole, ranges)]
    while queue:
        bound, _, box, ranges = heapq.heappop(queue)
        floor = max(best.attained, at_least)
        if -bound <= floor + _GAP * max(1.0, abs(floor)):
            queue.clear()
            break
        remaining = deadline - time.monotonic()
        if remaining <= 0.0:
            return _unfinished(best, -bound, programmes)
        size = ((box[1] - box[0]) / (whole[1] - whole[0])).max()
        if deep and ranges.changing > most_binaries and size > _SMALLEST:
            for part in _halves(network, box):
                ranges = ranges_on(network, *part)
                upper = min(goal.upper(network, ranges, part), -bound)
                place += 1
                if upper > floor:
                    heapq.heappush(queue, (-upper, place, part, ranges))
            continue
        code = encode(network, ranges, *box)
        objective = goal.encoded(code)
        if floor > -math.inf:
            code.programme.require(objective, low=floor)
        found, upper, tries, in_time = _in_box(
            goal, exact, code, objective, box, deadline
        )
        programmes += tries
        if found is not None and found.attained > best.attained:
            best = replace(found, upper=max(best.upper, found.attained))
        if not in_time:
            rest = max([-bound for bound, *_ in queue], default=-math.inf)
            return _unfinished(best, min(max(upper, rest), -bound), programmes)
        best = replace(best, upper=max(best.upper, upper))
    return replace(best, upper=max(best.upper, at_least), programmes=programmes)


def _in_box(
    goal: Goal,
    exact: ExactNetwork,
    code: EncodedNetwork,
    objective: Affine,
    box: Box,
    deadline: float,
) -> tuple[Optimum | None, float, int, bool]:
    """The best solution of a box's programme that some region in the box has.

    Returns:
        The solution, if there is one; a bound on all; how often the programme was
        solved; and whether that was in time.
    """
    programmes = 0
    while True:
        remaining = deadline - time.monotonic()
        result = code.programme.maximise(objective, min(remaining, 3600.0))
        programmes += 1
        found = _solution(goal, exact, code, objective, result, box)
        if found is None or found.point is not None or remaining <= 0.0:
            in_time = result.status != 1 and remaining > 0.0
            return found, result.upper, programmes, in_time


def _solution(
    goal: Goal,
    exact: ExactNetwork,
    code: EncodedNetwork,
    objective: Affine,
    result: OptimizeResult,
    box: Box,
) -> Optimum | None:
    """A programme's solution; None if it has none.

    Pieces that no region in the box has are forbidden in the programme, and then the
    solution has no point.
    """
    if result.x is None:
        return None
    pieces = code.pieces(result.x)
    if isinstance(goal, SlopeGoal):
        inside = interior(exact, pieces, *box)
        if inside.point is None:
            code.exclude(pieces, inside.conflict)
            return Optimum(-math.inf, -math.inf, None, pieces, 0, True)
        slope = nearest_float(exact.gradient(pieces)[goal.of_input])
        value = goal.sign * slope + goal.constant
        return Optimum(value, value, inside.point, pieces, 0, True, inside.room)
    value = objective.constant + sum(
        c * result.x[v] for v, c in objective.terms.items()
    )
    point = np.clip([result.x[next(iter(x.terms))] for x in code.inputs], *box)
    return Optimum(value, value, [Fraction(x) for x in point.tolist()], pieces, 0, True)


def _unfinished(best: Optimum, upper: float, programmes: int) -> Optimum:
    """What is known when the time is over."""
    upper = max(upper, best.upper)
    return replace(best, upper=upper, programmes=programmes, in_time=False)


def _halves(network: LayeredNetwork, box: Box) -> list[Box]:
    """The box in two, along the input that moves the first hidden layer most."""
    low, high = box
    pull = np.abs(network.layers[0].weights.astype(float)).sum(axis=0) * (high - low)
    axis = int(np.argmax(pull))
    middle = 0.5 * (low[axis] + high[axis])
    below, above = high.copy(), low.copy()
    below[axis] = above[axis] = middle
    return [(low, below), (above, high)]

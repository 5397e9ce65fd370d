r"""The conditions on a price network, decided on its linear regions.

Of a function that is affine on polygons that meet edge to edge,

* the slope in strike rises everywhere if, and only if, it rises across each facet that
  is not parallel to the strike's axis;
* a slope is bounded if, and only if, it is bounded on each region;
* a value is bounded if, and only if, it is bounded at each corner.

Each is a finite list of numbers that must not be negative. Floating point with a bound
on its error decides most of them; those that are too near to call, and the least one,
are computed in rationals.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np

from relu_options.payoffs.numbers import nearest_float
from relu_options.verification.one_input import Segments
from relu_options.verification.regions import OutOfTime, Point, Regions
from relu_options.verification.results import Counterexample, Margin
from relu_options.verification.rounding import UNDERFLOW, Bounded, bounded
from relu_options.verification.trades import (
    Question,
    bound_trade,
    butterfly,
    calendar_spread,
    call_spread,
    on_grid,
)

_EPS = 2.0**-52
_ALIKE = Fraction(1, 2**32)  # relative: margins that are not told apart
_MOST = float(np.finfo(float).max)


@dataclass(frozen=True)
class Finding:
    """What is known of one condition.

    Attributes:
        margin: By how much it holds; None if it is undecided.
        counterexample: If it fails.
        doubt: Why it is undecided.
    """

    margin: Margin | None
    counterexample: Counterexample | None = None
    doubt: str = ""


def exact_finding(
    condition: str,
    value: Fraction,
    at: Point,
    method: str,
    tolerance: Fraction,
    trade: Callable[[Fraction], Counterexample | None],
) -> Finding:
    """The finding of the least value of a condition, known exactly."""
    margin = Margin(condition, value, tuple(float(x) for x in at), method)
    if value >= -tolerance:
        return Finding(margin)
    found = trade(-value)
    if found is None:
        return Finding(None, doubt="the trade of a violation could not be formed")
    return Finding(margin, found)


def check_segments(
    question: Question,
    segments: Segments,
    conditions: tuple[str, ...],
    tolerance: Fraction,
) -> Iterator[Finding]:
    """Decide conditions on a function of the strike alone."""
    for condition in conditions:
        if condition == "convex":
            yield _check_kinks(question, segments, tolerance)
        elif condition == "bounds":
            yield _check_ends(question, segments, tolerance)
        else:
            yield _check_segment_slopes(question, segments, condition, tolerance)


def _check_kinks(
    question: Question, segments: Segments, tolerance: Fraction
) -> Finding:
    """Whether the slope falls at no kink."""
    points = segments.points
    rises = [after - before for before, after in pairwise(segments.slopes)]
    if not rises:
        return Finding(Margin("convex", Fraction(0), None, "kinks"))
    place = min(range(len(rises)), key=rises.__getitem__)
    left, kink, right = points[place : place + 3]

    def trade(amount: Fraction) -> Counterexample | None:
        return butterfly(question, left, kink, right, (), amount)

    return exact_finding("convex", rises[place], (kink,), "kinks", tolerance, trade)


def _check_segment_slopes(
    question: Question, segments: Segments, condition: str, tolerance: Fraction
) -> Finding:
    """Whether the slope is in its bounds on each segment."""
    discount = question.discount_factor
    distances = [
        -slope if condition == "decreasing" else slope + discount
        for slope in segments.slopes
    ]
    k = min(range(len(distances)), key=distances.__getitem__)
    low, high = segments.points[k : k + 2]

    def trade(amount: Fraction) -> Counterexample | None:
        return call_spread(question, condition, low, high, (), amount)

    at = ((low + high) / 2,)
    return exact_finding(condition, distances[k], at, "kinks", tolerance, trade)


def _check_ends(question: Question, segments: Segments, tolerance: Fraction) -> Finding:
    """Whether the price is in its bounds at each end of a segment."""
    forward, discount = question.forward, question.discount_factor
    distance, strike = min(
        (min(price, price - discount * (forward - k), discount * forward - price), k)
        for k, price in zip(segments.points, segments.values, strict=True)
    )

    def trade(amount: Fraction) -> Counterexample | None:
        return bound_trade(question, (strike,), amount)

    return exact_finding("bounds", distance, (strike,), "kinks", tolerance, trade)


def check_regions(
    question: Question,
    regions: Regions,
    conditions: tuple[str, ...],
    tolerance: Fraction,
    deadline: float = math.inf,
) -> Iterator[Finding]:
    """Decide conditions on a function of two inputs."""
    method = f"{len(regions):,} linear region{'s' * (len(regions) != 1)}"
    for condition in conditions:
        limits = (tolerance, deadline, method)
        try:
            if condition == "convex":
                yield _check_facets(question, regions, *limits)
            elif condition == "bounds":
                yield _check_corners(question, regions, *limits)
            else:
                yield _check_slopes(question, regions, condition, *limits)
        except OutOfTime:
            doubt = f"out of time: {method} are too many to confirm exactly"
            yield Finding(None, doubt=f"{doubt}; raise `time_limit`")


def _check_facets(
    question: Question,
    regions: Regions,
    tolerance: Fraction,
    deadline: float,
    method: str,
) -> Finding:
    """Whether the slope in strike falls across no facet."""
    facets = np.flatnonzero(regions.facets.across_strike)
    if not len(facets):
        return Finding(Margin("convex", Fraction(0), None, method))
    jumps = Bounded(*(a[facets] for a in regions.slope_jumps))
    place, value = least(
        jumps, lambda i: regions.exact_slope_jump(facets[i]), tolerance, deadline
    )
    facet = facets[place]
    start, end = (regions.exact_point(c) for c in regions.facets.corners[facet])
    middle = tuple((x + y) / 2 for x, y in zip(start, end, strict=True))

    def trade(amount: Fraction) -> Counterexample | None:
        height = on_grid(middle[1], abs(end[1] - start[1]))
        share = (height - start[1]) / (end[1] - start[1])
        kink = start[0] + share * (end[0] - start[0])
        sides = int(regions.facets.below[facet]), int(regions.facets.above[facet])
        left, right = (chord(regions.outline(side), 1, height) for side in sides)
        return butterfly(question, left[0], kink, right[1], (height,), amount)

    return exact_finding("convex", value, middle, method, tolerance, trade)


def _check_slopes(
    question: Question,
    regions: Regions,
    condition: str,
    tolerance: Fraction,
    deadline: float,
    method: str,
) -> Finding:
    """Whether a slope is in its bounds on each region."""
    axis, sign, shift = {
        "decreasing": (0, -1, Fraction(0)),
        "slope": (0, 1, question.discount_factor),
        "calendar": (1, 1, Fraction(0)),
    }[condition]
    slopes, errors = (a[:, axis] for a in regions.gradients)
    with np.errstate(over="ignore"):
        signed = sign * slopes + float(shift)
        rounding = _EPS * (np.abs(slopes) + 2.0 * abs(float(shift))) * bool(shift)
    region, value = least(
        bounded(signed, errors + rounding),
        lambda region: sign * regions.exact_gradient(region)[axis] + shift,
        tolerance,
        deadline,
    )
    outline = regions.outline(region)
    centre = tuple(
        sum(x, Fraction(0)) / len(outline) for x in zip(*outline, strict=True)
    )

    def trade(amount: Fraction) -> Counterexample | None:
        other = 1 - axis
        extent = [point[other] for point in outline]
        across = on_grid(centre[other], max(extent) - min(extent))
        if not min(extent) < across < max(extent):
            across = centre[other]
        ends = chord(outline, other, across)
        if axis == 1:
            return calendar_spread(question, across, *ends, (), amount)
        return call_spread(question, condition, *ends, (across,), amount)

    return exact_finding(condition, value, centre, method, tolerance, trade)


def _check_corners(
    question: Question,
    regions: Regions,
    tolerance: Fraction,
    deadline: float,
    method: str,
) -> Finding:
    """Whether the price is in its bounds at each corner."""
    forward, discount = question.forward, question.discount_factor
    price, error = regions.values
    strike = regions.points[:, 0]
    ceiling = nearest_float(discount * forward)
    with np.errstate(over="ignore"):
        floor = float(discount) * (float(forward) - strike)
        size = abs(float(discount)) * (abs(float(forward)) + np.abs(strike))
        above_floor, below_ceiling = price - floor, ceiling - price
    distances = {
        "above zero": (price, lambda f, _: f),
        "above intrinsic": (above_floor, lambda f, k: f - discount * (forward - k)),
        "below forward": (below_ceiling, lambda f, _: discount * forward - f),
    }
    found: list[tuple[Fraction, Point]] = []
    for name, (distance, exactly) in distances.items():
        rounding = np.zeros(())
        if name != "above zero":
            rounding = _EPS * (np.abs(price) + 8.0 * size) + UNDERFLOW

        def exact(corner: int, exactly=exactly) -> Fraction:
            point = regions.exact_point(corner)
            return exactly(regions.exact_value(corner), point[0])

        numbers = bounded(distance, error + rounding)
        corner, value = least(numbers, exact, tolerance, deadline)
        found.append((value, regions.exact_point(corner)))
    worst, point = min(found)
    return exact_finding(
        "bounds",
        worst,
        point,
        method,
        tolerance,
        lambda amount: bound_trade(question, point, amount),
    )


def least(
    numbers: Bounded,
    exact: Callable[[int], Fraction],
    tolerance: Fraction,
    deadline: float = math.inf,
) -> tuple[int, Fraction]:
    """Position and exact value of the least number, where that matters.

    The value is below `-tolerance` if, and only if, some number is; and no number is
    lower by more than a relative `_ALIKE`.

    Args:
        numbers: Shape `(n,)`, at least one.
        exact: Value of the number at a position.
        tolerance: Not negative.
        deadline: On `time.monotonic`.

    Returns:
        The position and the value.

    Raises:
        OutOfTime: If the deadline passes.
    """
    place = int(np.argmin(numbers.value + np.minimum(numbers.error, _MOST)))
    value = exact(place)
    lower = nearest_float(value - abs(value) * _ALIKE)
    doubtful = ~numbers.above(max(lower, -_MOST))
    if value >= -tolerance:
        doubtful |= ~numbers.above(-float(tolerance))
    doubtful[place] = False
    for other in np.flatnonzero(doubtful):
        if time.monotonic() > deadline:
            raise OutOfTime(len(numbers.value))
        candidate = exact(int(other))
        if candidate < value:
            place, value = int(other), candidate
    return place, value


def extreme(numbers: Bounded, exact: Callable[[int], Fraction]) -> tuple[int, Fraction]:
    """Position and value of the least number, exactly.

    Args:
        numbers: Shape `(n,)`, at least one.
        exact: Value of the number at a position.

    Returns:
        The position and the value.
    """
    highest = (numbers.value + numbers.error).min()
    near = np.flatnonzero(numbers.value - numbers.error <= highest)
    return min(((int(i), exact(int(i))) for i in near), key=lambda pair: pair[1])


def chord(outline: list[Point], axis: int, at: Fraction) -> tuple[Fraction, Fraction]:
    """Where the line on which one coordinate is `at` enters and leaves a polygon."""
    found = []
    for start, end in zip(outline, outline[1:] + outline[:1], strict=True):
        before, after = start[axis] - at, end[axis] - at
        if before == 0:
            found.append(start[1 - axis])
        elif (before < 0 < after) or (after < 0 < before):
            share = before / (before - after)
            found.append(start[1 - axis] + share * (end[1 - axis] - start[1 - axis]))
    return min(found), max(found)

"""The conditions on a network of any number of inputs, by mixed-integer programmes.

A programme's solution is a candidate: the point in the middle of its linear region is
evaluated in rational arithmetic, and only what is seen there is a violation. Where no
solution violates a condition, the programme's bound is the proof, to its tolerance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from relu_options.verification.bounds import TOO_WIDE, fits_floats, ranges_on
from relu_options.verification.conditions import Finding
from relu_options.verification.layers import LayeredNetwork, in_floats
from relu_options.verification.programme import TOLERANCE, largest_box
from relu_options.verification.results import Counterexample, Margin
from relu_options.verification.rounding import RoundedNetwork
from relu_options.verification.search import (
    BendGoal,
    Goal,
    Optimum,
    SlopeGoal,
    ValueGoal,
    maximise,
)
from relu_options.verification.trades import (
    Question,
    bound_trade,
    butterfly,
    calendar_spread,
    call_spread,
)

_SAMPLES = 4096  # of the domain, before a value is maximised
_HALVINGS = 40  # of a trade's width, until it is narrow enough to stay in its region


@dataclass(frozen=True)
class _Violation:
    """An exact violation at a point, with its trade."""

    value: Fraction
    at: list[Fraction]
    found: Counterexample


@dataclass(frozen=True)
class _Search:
    """What the programmes of a condition have found.

    Attributes:
        upper: No point violates it by more, to the programmes' tolerance.
        tolerance: That one.
        worst: The worst violation seen in exact arithmetic.
        programmes: How many were solved.
        doubt: Why the search has not come to its end.
    """

    upper: float
    tolerance: float
    worst: _Violation | None
    programmes: int
    doubt: str


def check_by_programme(
    question: Question,
    network: LayeredNetwork,
    condition: str,
    tolerance: Fraction,
    deadline: float,
) -> Finding:
    """Decide one condition.

    Args:
        question: The network, its domain and the terms.
        network: The same network.
        condition: Any; "convex" is for networks of several hidden layers.
        tolerance: The violation that is allowed.
        deadline: On `time.monotonic`.

    Returns:
        A proof to the programme's tolerance, a counterexample in exact arithmetic, or
        neither.
    """
    discount, forward = float(question.discount_factor), float(question.forward)
    if condition == "convex":
        goals: list[Goal] = [
            BendGoal(place, unit, kink, side)
            for place, layer in enumerate(network.layers)
            for unit in range(len(layer))
            for kink in range(len(layer.units[unit].kinks))
            for side in (1, -1)
        ]
    elif condition == "bounds":
        goals = [
            ValueGoal(-1.0),
            ValueGoal(-1.0, -discount, discount * forward),
            ValueGoal(1.0, 0.0, -discount * forward),
        ]
    else:
        goals = [
            {
                "decreasing": SlopeGoal(0, 1.0),
                "slope": SlopeGoal(0, -1.0, -discount),
                "calendar": SlopeGoal(1, -1.0),
            }[condition]
        ]
    return _check(question, network, condition, goals, tolerance, deadline)


def _check(
    question: Question,
    network: LayeredNetwork,
    condition: str,
    goals: list[Goal],
    tolerance: Fraction,
    deadline: float,
) -> Finding:
    """Whether no goal is above the tolerance; the largest decides."""
    box = np.array(question.domain.low), np.array(question.domain.high)
    if not fits_floats(network, *box):
        return Finding(None, doubt=TOO_WIDE)
    search = _search(question, network, condition, goals, tolerance, deadline)
    worst, upper = search.worst, search.upper
    reached = float(tolerance) if worst is None else -float(worst.value)
    if upper > reached + search.tolerance and isinstance(goals[0], SlopeGoal):
        sample = _sampled_slope(question, network, condition, goals[0], tolerance)
        if sample is not None and -float(sample.value) > reached:
            worst = sample
    programmes = search.programmes
    method = f"{programmes} mixed-integer programme{'s' * (programmes != 1)}"
    if worst is not None:
        at = tuple(float(x) for x in worst.at)
        return Finding(Margin(condition, worst.value, at, method), worst.found)
    if search.doubt:
        return Finding(None, doubt=search.doubt)
    if upper > float(tolerance) + search.tolerance:
        return Finding(
            None,
            doubt=f"a programme's violation of {upper:.3g} is none in exact "
            "arithmetic: hinges that coincide, or the solver's rounding",
        )
    value = 0.0 if upper == -np.inf else -upper
    return Finding(Margin(condition, value, None, method, search.tolerance))


def _search(
    question: Question,
    exactly: LayeredNetwork,
    condition: str,
    goals: list[Goal],
    tolerance: Fraction,
    deadline: float,
) -> _Search:
    """Maximise one goal after the other; each need only find what is worse."""
    network = in_floats(exactly)
    box = np.array(question.domain.low), np.array(question.domain.high)
    ranges = ranges_on(network, *box)
    at_least = float(tolerance) if condition == "convex" else -np.inf
    if condition == "bounds":
        at_least = _sampled(network, goals, box)
    upper, scale, programmes = at_least, 1.0, 0
    worst: _Violation | None = None
    doubt = ""
    for goal in goals:
        reach = goal.upper(network, ranges, box)
        if reach <= at_least:
            continue
        scale = max(scale, abs(reach))
        optimum = maximise(goal, exactly, question.domain, deadline, at_least)
        programmes += optimum.programmes
        upper = max(upper, optimum.upper)
        violation = _confirm(question, network, condition, goal, optimum)
        if violation is not None and violation.value < -tolerance:
            if worst is None or violation.value < worst.value:
                worst = violation
            at_least = max(at_least, -float(worst.value))
        if not optimum.in_time:
            doubt = f"out of time: a violation of up to {optimum.upper:.3g} is possible"
            break
    return _Search(upper, TOLERANCE * scale, worst, programmes, doubt)


def _sampled(
    network: LayeredNetwork, goals: list[Goal], box: tuple[np.ndarray, np.ndarray]
) -> float:
    """A value that some goal surely reaches, from a sample: a floor for the search."""
    points = np.random.default_rng(0).uniform(*box, (_SAMPLES, network.inputs))
    prices, strikes = network(points), points[:, 0]
    found = max(
        float((goal.sign * prices + goal.slope * strikes + goal.constant).max())
        for goal in goals
        if isinstance(goal, ValueGoal)
    )
    return found - 1e-6 * max(1.0, abs(found))


def _sampled_slope(
    question: Question,
    network: LayeredNetwork,
    condition: str,
    goal: SlopeGoal,
    tolerance: Fraction,
) -> _Violation | None:
    """The worst of a sample, for where a programme's solution is no region's."""
    network = in_floats(network)
    box = question.domain.low, question.domain.high
    points = np.random.default_rng(0).uniform(*box, (_SAMPLES, network.inputs))
    x, pieces = points, []
    for layer in network.layers:
        y = x @ layer.weights.T + layer.biases
        above = [
            sum((y[:, k] >= float(kink)).astype(np.int8) for kink in unit.kinks)
            + np.zeros(len(y), np.int8)
            for k, unit in enumerate(layer.units)
        ]
        pieces.append(np.stack(above, axis=1))
        x = layer(x)
    slopes = RoundedNetwork(network).gradients(pieces).value[:, goal.of_input]
    worst = points[int(np.argmax(goal.sign * slopes))]
    found = _slope_at(
        question, condition, [Fraction(x) for x in worst.tolist()], Fraction(0)
    )
    return found if found is not None and found.value < -tolerance else None


def _confirm(
    question: Question,
    network: LayeredNetwork,
    condition: str,
    goal: Goal,
    optimum: Optimum,
) -> _Violation | None:
    """The violation that a solution stands for, in exact arithmetic."""
    if optimum.point is None:
        return None
    if isinstance(goal, ValueGoal):
        return _confirm_value(question, optimum.point)
    if isinstance(goal, BendGoal):
        return _confirm_bend(question, network, goal, optimum)
    return _slope_at(question, condition, optimum.point, optimum.room)


def _confirm_value(question: Question, at: list[Fraction]) -> _Violation | None:
    """The bound that is broken at a point."""
    price = question.exact.value(at)
    discount, forward = question.discount_factor, question.forward
    intrinsic = discount * (forward - at[0])
    value = min(price, price - intrinsic, discount * forward - price)
    found = bound_trade(question, at, -value) if value < 0 else None
    return None if found is None else _Violation(value, at, found)


def _slope_at(
    question: Question, condition: str, at: list[Fraction], room: Fraction
) -> _Violation | None:
    """The slope at a point, if it violates; `room` is that of its region."""
    gradient = question.exact.gradient(question.exact.pieces(at))
    axis = int(condition == "calendar")
    value = {
        "decreasing": -gradient[0],
        "slope": gradient[0] + question.discount_factor,
        "calendar": gradient[axis],
    }[condition]
    if value >= 0:
        return None

    def trade(half: Fraction) -> Counterexample | None:
        low = max(at[axis] - half, question.low(axis))
        high = min(at[axis] + half, question.high(axis))
        if axis == 1:
            return calendar_spread(question, at[0], low, high, at[2:], -value)
        return call_spread(question, condition, low, high, at[1:], -value)

    width = question.high(axis) - question.low(axis)
    found = _narrowed(trade, width * (room or Fraction(1, 2**20)) / 2)
    return None if found is None else _Violation(value, at, found)


def _confirm_bend(
    question: Question, network: LayeredNetwork, goal: BendGoal, optimum: Optimum
) -> _Violation | None:
    """The fall of the slope across the facet of a solution."""
    box = np.array(question.domain.low), np.array(question.domain.high)
    rows, constants = _affine(network, optimum.pieces)[goal.layer]
    row, constant = rows[goal.unit], constants[goal.unit]
    kink = network.layers[goal.layer].units[goal.unit].kinks[goal.kink]
    plane = row, float(kink) - constant
    skip = goal.layer, goal.unit
    placed = largest_box(*_region(network, optimum.pieces, skip), *box, on=plane)
    if placed is None or not placed[1] > 0.0 or row[0] == 0.0:
        return None
    centre, size = placed
    exact = question.exact
    pieces = [piece.copy() for piece in optimum.pieces]
    before = exact.output_rows(goal.layer, pieces)
    (line,) = exact.input_rows(goal.layer, before, [goal.unit])
    rest = [Fraction(float(x)) for x in centre[1:]]
    level = exact.layers[goal.layer].kinks[goal.unit][goal.kink] - line[-1]
    level -= sum((a * x for a, x in zip(line[1:-1], rest, strict=True)), Fraction(0))
    strike = Fraction(level) / line[0]
    half = (question.high() - question.low()) * Fraction(size) * Fraction(15, 32)
    if not question.low() < strike < question.high():
        return None
    half = min(half, strike - question.low(), question.high() - strike)
    left, right = (
        exact.gradient(exact.pieces([strike + shift, *rest]))[0]
        for shift in (-half / 2, half / 2)
    )
    value = right - left
    if value >= 0:
        return None
    found = _narrowed(
        lambda reach: butterfly(
            question, strike - reach, strike, strike + reach, rest, -value
        ),
        half,
    )
    return None if found is None else _Violation(value, [strike, *rest], found)


def _narrowed(
    trade: Callable[[Fraction], Counterexample | None], width: Fraction
) -> Counterexample | None:
    """The widest trade of halved widths that costs less than nothing."""
    for _ in range(_HALVINGS):
        found = trade(width)
        if found is not None:
            return found
        width /= 2
    return None


def _affine(
    network: LayeredNetwork, pieces: list[np.ndarray]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Inputs of all units as affine functions, rows and constants, on given pieces."""
    rows, constants = np.eye(network.inputs), np.zeros(network.inputs)
    result = []
    for layer, piece in zip(network.layers, pieces, strict=True):
        weights = layer.weights.astype(float)
        rows, constants = weights @ rows, weights @ constants + layer.biases
        result.append((rows, constants))
        slopes, offsets = (
            np.array(
                [
                    float(getattr(u, name)[p])
                    for u, p in zip(layer.units, piece, strict=True)
                ]
            )
            for name in ("slopes", "offsets")
        )
        rows, constants = slopes[:, None] * rows, slopes * constants + offsets
    return result


def _region(
    network: LayeredNetwork,
    pieces: list[np.ndarray],
    skip: tuple[int, int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The polytope `A x >= b` on which the units are on given pieces, but for one."""
    sides, least = [np.zeros((0, network.inputs))], [np.zeros(0)]
    for depth, (rows, constants) in enumerate(_affine(network, pieces)):
        for k, unit in enumerate(network.layers[depth].units):
            if (depth, k) == skip:
                continue
            piece = int(pieces[depth][k])
            if piece > 0:
                sides.append(rows[k][None])
                least.append(np.array([float(unit.kinks[piece - 1]) - constants[k]]))
            if piece < len(unit.kinks):
                sides.append(-rows[k][None])
                least.append(np.array([constants[k] - float(unit.kinks[piece])]))
    return np.concatenate(sides), np.concatenate(least)

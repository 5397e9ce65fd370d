r"""How much a network's value can change, exactly: slopes, radii, profit and loss."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from relu_options.errors import VerificationError
from relu_options.networks import ReLUNetwork
from relu_options.payoffs import Payoff
from relu_options.payoffs.numbers import (
    Number,
    as_floats,
    is_full_float,
    nearest_float,
    short,
)
from relu_options.portfolio import StrikePortfolio
from relu_options.verification.bounds import (
    TOO_WIDE,
    fits_floats,
    gradient_range,
    ranges_on,
)
from relu_options.verification.composition import (
    difference,
    fix_inputs,
    with_kinks,
    with_level,
)
from relu_options.verification.conditions import extreme
from relu_options.verification.domain import Domain, DomainLike, domain_of
from relu_options.verification.layers import LayeredNetwork, in_floats
from relu_options.verification.network_reader import layered
from relu_options.verification.one_input import enumerate_segments
from relu_options.verification.programme import TOLERANCE, Affine, encode
from relu_options.verification.regions import OutOfTime, Regions, enumerate_regions
from relu_options.verification.rounding import Bounded
from relu_options.verification.search import SlopeGoal, maximise
from relu_options.verification.simplification import simplify


@dataclass(frozen=True)
class DeltaBound:
    """The range of the slopes of a network in one input.

    Attributes:
        low: The least slope; rational if it is exact.
        high: The largest slope.
        lipschitz: By how much the value changes at most for a unit of the input: the
            larger of their absolute values.
        norm_product: The usual bound on it, the product of the spectral norms of the
            weights, the first of them in this input alone; rational where no float
            holds it.
        at_low: Inputs where the slope is least.
        at_high: Inputs where it is largest.
        method: How it was found.
        tolerance: By how much `lipschitz` may be too small, `low` too high and `high`
            too low; 0 if they are exact. Both are slopes of some region in any case.

    Examples:
        >>> from relu_options.networks import relu
        >>> bound = delta_bound(relu(90.0) - 2.0 * relu(110.0), {"spot": (50.0, 150.0)})
        >>> print(bound.low, bound.high, bound.lipschitz, bound.at_low)
        -1 1 1 (130.0,)
    """

    low: Fraction | float
    high: Fraction | float
    lipschitz: Fraction | float
    norm_product: Number
    at_low: tuple[float, ...]
    at_high: tuple[float, ...]
    method: str
    tolerance: float = 0.0

    @property
    def ratio(self) -> float:
        """By how many times the product of norms is too large."""
        if not self.lipschitz:
            return math.inf if self.norm_product else 1.0
        return nearest_float(self._exact_ratio)

    @property
    def _exact_ratio(self) -> Fraction:
        return Fraction(self.norm_product) / Fraction(self.lipschitz)

    def __repr__(self) -> str:
        times = ""
        if self.lipschitz:
            times = f", {short(self._exact_ratio, digits=3)} times as large"
        return (
            f"DeltaBound(slopes {short(self.low)} to {short(self.high)}, "
            f"product of norms {short(self.norm_product)}{times}; by {self.method})"
        )


@dataclass(frozen=True)
class Radius:
    """How far inputs may move before something happens.

    Attributes:
        radius: Nothing happens while every input moves by less than this times its
            scale; infinite if it happens nowhere in the domain. Rational if exact.
        nearest: Inputs at this distance where it happens; None if it does not.
        value: Of the network at the given point.
        there: Of the network at the nearest point.
        method: How it was found.
        tolerance: To which it holds, relative; 0 if it is exact.

    Examples:
        >>> from relu_options.networks import relu
        >>> found = price_radius(relu(100.0), [95.0], 1.0, {"spot": (50.0, 150.0)})
        >>> print(found.radius, found.nearest[0], found.there)
        6 101 1
    """

    radius: Fraction | float
    nearest: tuple[Number, ...] | None
    value: Fraction
    there: Fraction | None
    method: str
    tolerance: float = 0.0

    def __repr__(self) -> str:
        if self.nearest is None or self.there is None:
            return f"Radius(inf: nowhere in the domain; by {self.method})"
        at = ", ".join(short(x) for x in self.nearest)
        return (
            f"Radius({short(self.radius)}, to {at}: from {short(self.value)} "
            f"to {short(self.there)}; by {self.method})"
        )


@dataclass(frozen=True)
class WorstCase:
    """The least profit or loss of a portfolio at expiry, and where.

    Attributes:
        pnl: Payoff less what was paid with interest, in currency units at expiry.
        spot: Where it is least; infinite if it falls without end.
        best: The largest profit.
        best_spot: Where.
        paid: What was paid, with interest.

    Examples:
        >>> import relu_options as ro
        >>> case = worst_case_pnl(ro.payoffs.call(100.0), high=120.0, cost=4.0)
        >>> print(case.pnl, case.spot, case.best, case.best_spot)
        -4 0 16 120
    """

    pnl: Fraction | float
    spot: Fraction | float
    best: Fraction | float
    best_spot: Fraction | float
    paid: Fraction

    def __repr__(self) -> str:
        return (
            f"WorstCase({short(self.pnl)} at spot {short(self.spot)}; best "
            f"{short(self.best)} at {short(self.best_spot)})"
        )


def delta_bound(
    network: Any,
    domain: DomainLike,
    *,
    of_input: int = 0,
    activation: str = "relu",
    alpha: float = 0.01,
    width: float = 1.0,
    time_limit: float = 60.0,
) -> DeltaBound:
    r"""The exact Lipschitz constant of a network in one input.

    $$
    \sup_x |\partial f / \partial x_i| \quad \text{beside} \quad
    \|v\|_2 \, \|W_L\|_2 \cdots \|W_2\|_2 \, \|W_1 e_i\|_2 .
    $$

    With one or two inputs the slopes of all linear regions are looked at, in rational
    arithmetic where floating point cannot tell which is largest; with more a
    mixed-integer programme is solved.

    Args:
        network: See `relu_options.verification.layered`.
        domain: A range for each input, spot or strike first.
        of_input: Position of the input.
        activation: See `relu_options.verification.layered`.
        alpha: Likewise.
        width: Likewise.
        time_limit: Seconds.

    Returns:
        The least and the largest slope, and the bound on both.

    Raises:
        VerificationError: If the time was too short, or, with three inputs and more,
            weights differ too much for a solver in floating point.

    Examples:
        A call spread moves by no more than its underlying; norms say twice as much.

        >>> from relu_options.networks import relu
        >>> delta_bound(relu(90.0) - relu(110.0), {"spot": (50.0, 150.0)})
        DeltaBound(slopes 0 to 1, product of norms 2, 2 times as large; by kinks)
    """
    network = layered(network, activation=activation, alpha=alpha, width=width)
    box = domain_of(domain, network.inputs)
    if of_input not in range(network.inputs):
        raise ValueError(
            f"of_input must be from 0 to {network.inputs - 1}, not {of_input}"
        )
    norms = _norm_product(network, of_input)
    deadline = time.monotonic() + time_limit
    try:
        if network.inputs == 1:
            segments = enumerate_segments(network, box, deadline)
            slopes, points = segments.slopes, segments.points
            places = [min, max]
            ends = [
                (slope := pick(slopes), _middle(points, slopes.index(slope)))
                for pick in places
            ]
            return _delta(ends, norms, "kinks")
        if network.inputs == 2:
            regions = enumerate_regions(network, box, deadline)
            numbers = Bounded(*(a[:, of_input] for a in regions.gradients))
            ends = []
            for sign in (1, -1):
                region, slope = extreme(
                    Bounded(sign * numbers.value, numbers.error),
                    lambda i, sign=sign: sign * regions.exact_gradient(i)[of_input],
                )
                corners = regions.points[list(regions.polygons[region])]
                ends.append((sign * slope, tuple(corners.mean(axis=0).tolist())))
            return _delta(ends, norms, f"{len(regions):,} linear regions")
    except OutOfTime as late:
        raise VerificationError(
            f"more than {late.regions:,} linear regions in {time_limit:g} s; raise "
            "`time_limit` or narrow the domain"
        ) from None
    return _delta_by_programme(network, box, of_input, norms, deadline)


def price_radius(
    network: Any,
    point: Sequence[float],
    tolerance: float,
    domain: DomainLike,
    *,
    scales: Sequence[float] | None = None,
    activation: str = "relu",
    alpha: float = 0.01,
    width: float = 1.0,
    time_limit: float = 60.0,
) -> Radius:
    r"""How far inputs may move before the price moves by a tolerance.

    $$ r = \min \{ \max_i |x_i - p_i| / s_i : |f(x) - f(p)| \ge \epsilon \}. $$

    Args:
        network: See `relu_options.verification.layered`.
        point: `p`, inside the domain.
        tolerance: $\epsilon$, in currency units; positive.
        domain: A range for each input.
        scales: `s`, of each input what counts as moving by one; 0 holds it fixed. By
            default all 1.
        activation: See `relu_options.verification.layered`.
        alpha: Likewise.
        width: Likewise.
        time_limit: Seconds.

    Returns:
        The radius, exact with one or two inputs that move.

    Raises:
        VerificationError: If the time was too short, or, with three inputs and more,
            weights differ too much for a solver in floating point.
        ValueError: If the point is outside the domain or a scale is negative.

    Examples:
        A butterfly struck at 100 loses two by moving to 102, or to 98.

        >>> from relu_options.networks import relu
        >>> butterfly = relu(90.0) - 2.0 * relu(100.0) + relu(110.0)
        >>> price_radius(butterfly, [101.0], 2.0, {"spot": (50.0, 150.0)})
        Radius(2, to 103: from 9 to 7; by kinks)
    """
    if not 0.0 < tolerance < math.inf:
        raise ValueError(f"tolerance must be positive, not {tolerance}")
    network = layered(network, activation=activation, alpha=alpha, width=width)
    box, centre, widths = _placed(network, point, domain, scales)
    value = network.in_integers.value(centre)
    levels = (value + Fraction(tolerance), value - Fraction(tolerance))
    return _radius(network, box, centre, widths, levels, (1, -1), time_limit)


def decision_radius(
    network: Any,
    point: Sequence[float],
    domain: DomainLike,
    *,
    exercise: Any = None,
    scales: Sequence[float] | None = None,
    activation: str = "relu",
    alpha: float = 0.01,
    width: float = 1.0,
    time_limit: float = 60.0,
) -> Radius:
    """How far inputs may move before the decision to hold or to exercise flips.

    One holds where the network is worth more than the exercise, and exercises where it
    is worth less.

    Args:
        network: Value of holding, or, without `exercise`, of holding less exercise.
        point: Inside the domain.
        domain: A range for each input, the spot first.
        exercise: Value of exercise: a network, or a `Payoff` of the spot.
        scales: Of each input what counts as moving by one; 0 holds it fixed.
        activation: See `relu_options.verification.layered`.
        alpha: Likewise.
        width: Likewise.
        time_limit: Seconds.

    Returns:
        The radius; `value` and `there` are those of holding less exercise.

    Raises:
        VerificationError: If the time was too short, or, with three inputs and more,
            weights differ too much for a solver in floating point.
        ValueError: If the point is outside the domain or a scale is negative.

    Examples:
        Held at 90, a put struck at 100 is exercised at 85 or below.

        >>> from relu_options.payoffs import call, cash, put
        >>> value = cash(15.0) - 1.0 * (call(85.0) - call(105.0)) * 0.75
        >>> decision_radius(value, [90.0], {"spot": (50.0, 99.0)}, exercise=put(100.0))
        Radius(5, to 85: from 1.25 to 0; by kinks)
    """
    options: dict[str, Any] = {
        "activation": activation,
        "alpha": alpha,
        "width": width,
    }
    network = layered(network, **options)
    if exercise is not None:
        network = difference(network, layered(exercise, **options))
    box, centre, widths = _placed(network, point, domain, scales)
    holds = network.in_integers.value(centre) > 0
    sign = -1 if holds else 1
    return _radius(network, box, centre, widths, (Fraction(0),), (sign,), time_limit)


def worst_case_pnl(
    portfolio: StrikePortfolio | Payoff | ReLUNetwork,
    low: float = 0.0,
    high: float = math.inf,
    *,
    cost: float | None = None,
) -> WorstCase:
    r"""The least profit or loss of a portfolio over a range of spots, exactly.

    $$ \min_{low \le S \le high} f(S) - c / D . $$

    Args:
        portfolio: What is held to expiry.
        low: Lowest spot, in currency units.
        high: Highest spot; may be infinite.
        cost: `c`, in currency units paid today; by default what the portfolio costs at
            its quotes, or nothing if it has none.

    Returns:
        The worst and the best case.

    Raises:
        ValueError: If the range is empty.

    Examples:
        >>> import relu_options as ro
        >>> worst_case_pnl(ro.payoffs.straddle(100.0), 60.0, 150.0, cost=12.5)
        WorstCase(-12.5 at spot 100; best 37.5 at 150)
        >>> worst_case_pnl(-1.0 * ro.payoffs.call(100.0))
        WorstCase(-inf at spot inf; best 0 at 0)
    """
    if not low < high or not math.isfinite(low):
        raise ValueError(f"spots go from low to high, not {low} to {high}")
    payoff, paid = _bought(portfolio, cost)
    spots = [Fraction(low), *(k for k in payoff.strikes if low < k < high)]
    if math.isfinite(high):
        spots.append(Fraction(high))
    cases: list[tuple[Any, Any]] = [(payoff(spot) - paid, spot) for spot in spots]
    last = payoff.right_slope
    if high == math.inf and last != 0:
        cases.append((math.inf if last > 0 else -math.inf, math.inf))
    worst, best = min(cases), max(cases, key=lambda case: (case[0], -case[1]))
    return WorstCase(*worst, *best, paid)


def _bought(
    portfolio: StrikePortfolio | Payoff | ReLUNetwork, cost: float | None
) -> tuple[Payoff, Fraction]:
    """What a portfolio pays, and what it costs with interest, exactly."""
    discount = Fraction(1)
    if isinstance(portfolio, StrikePortfolio):
        payoff = portfolio.payoff()
        discount = Fraction(portfolio.discount_factor or 1.0)
        if cost is None and portfolio.bid is not None:
            cost = portfolio.cost()
    elif isinstance(portfolio, ReLUNetwork):
        payoff = Payoff.from_network(portfolio)
    else:
        payoff = portfolio
    return payoff.exactly(), Fraction(cost or 0.0) / discount


def _delta(ends: list[Any], norms: Number, method: str) -> DeltaBound:
    """The range of slopes, from its two ends."""
    (low, at_low), (high, at_high) = ends
    largest = max(abs(low), abs(high))
    return DeltaBound(low, high, largest, norms, at_low, at_high, method)


def _middle(points: Sequence[Fraction], segment: int) -> tuple[float, ...]:
    return (float((points[segment] + points[segment + 1]) / 2),)


def _delta_by_programme(
    network: LayeredNetwork, box: Domain, of_input: int, norms: Number, deadline: float
) -> DeltaBound:
    """The range of slopes, by two mixed-integer programmes."""
    network = simplify(network, box)  # hinges that coincide would cost programmes
    exact = network.in_integers
    ends_of_box = np.array(box.low), np.array(box.high)
    if not fits_floats(network, *ends_of_box):
        raise VerificationError(f"{network!r}: {TOO_WIDE}")
    ranges = ranges_on(network, *ends_of_box)
    reach = max(map(abs, gradient_range(network, ranges, of_input)))
    tolerance = TOLERANCE * max(1.0, reach)
    ends, programmes, upper = [], 0, 0.0
    for sign in (-1.0, 1.0):
        found = maximise(SlopeGoal(of_input, sign), network, box, deadline)
        if not found.in_time:
            raise VerificationError(
                f"slopes up to {found.upper:.6g} are possible, and the time is over; "
                "raise `time_limit` or narrow the domain"
            )
        if found.point is None or found.upper > found.attained + tolerance:
            raise VerificationError(
                f"slopes up to {found.upper:.6g} cannot be excluded, but only "
                f"{found.attained:.6g} is attained: rounding in the solver is too "
                "coarse for weights that differ so much; narrow the domain"
            )
        programmes += found.programmes
        upper = max(upper, found.upper)
        slope = exact.gradient(exact.pieces(found.point))[of_input]
        ends.append((slope, tuple(float(x) for x in found.point)))
    bound = _delta(ends, norms, f"{programmes} mixed-integer programmes")
    largest = max(upper, nearest_float(bound.lipschitz))
    return replace(bound, lipschitz=largest, tolerance=tolerance)


def _norm_product(network: LayeredNetwork, of_input: int) -> Number:
    """Product of the spectral norms of the weights and of the largest slopes."""
    if not network.layers:
        return _as_float_if_one(abs(Fraction(network.weights[of_input])))
    factors = [_norm(network.layers[0].weights[:, of_input : of_input + 1])]
    for place, layer in enumerate(network.layers):
        if place:
            factors.append(_norm(layer.weights))
        factors.append(
            max(abs(Fraction(s)) for unit in layer.units for s in unit.slopes)
        )
    factors.append(_norm(network.weights[None]))
    return _as_float_if_one(math.prod(factors, start=Fraction(1)))


def _as_float_if_one(number: Fraction) -> Number:
    """The nearest float, to its full precision; the number itself if there is none."""
    nearest = nearest_float(number)
    return nearest if is_full_float(nearest) else number


def _norm(matrix: np.ndarray) -> Fraction:
    """The spectral norm of a matrix whose numbers may be of any size."""
    size = np.abs(matrix).max()
    if not size:
        return Fraction(0)
    norm = np.linalg.norm(as_floats(matrix / size), 2)
    return Fraction(size) * Fraction(float(norm))


def _placed(
    network: LayeredNetwork,
    point: Sequence[float],
    domain: DomainLike,
    scales: Sequence[float] | None,
) -> tuple[Domain, list[Fraction], list[Fraction]]:
    """The domain, and point and scales in rationals, after checking them."""
    box = domain_of(domain, network.inputs)
    widths = [1.0] * network.inputs if scales is None else list(scales)
    point = np.atleast_1d(np.asarray(point, float)).tolist()
    if len(point) != network.inputs or len(widths) != network.inputs:
        raise ValueError(
            f"the network has {network.inputs} inputs; the point has {len(point)} "
            f"and there are {len(widths)} scales"
        )
    for name, x, low, high in zip(box.names, point, box.low, box.high, strict=True):
        if not low <= x <= high:
            raise ValueError(f"{name} {x} of the point is not in {low} to {high}")
    if not all(0.0 <= s < math.inf for s in widths) or not any(widths):
        raise ValueError(f"scales are not negative and not all zero, not {widths}")
    return box, [Fraction(x) for x in point], [Fraction(s) for s in widths]


def _radius(
    network: LayeredNetwork,
    box: Domain,
    centre: list[Fraction],
    scales: list[Fraction],
    levels: tuple[Fraction, ...],
    signs: tuple[int, ...],
    time_limit: float,
) -> Radius:
    """The least distance at which a level is reached from the side it is on."""
    exact = network.in_integers
    value = exact.value(centre)
    if any(s * (value - level) >= 0 for level, s in zip(levels, signs, strict=True)):
        return Radius(Fraction(0), tuple(centre), value, value, "its value")
    moving = [i for i, scale in enumerate(scales) if scale]
    fixed = {i: x for i, x in enumerate(centre) if i not in moving}
    network = fix_inputs(network, fixed) if fixed else network
    inner = _along(box, moving)
    start, units = [centre[i] for i in moving], [scales[i] for i in moving]
    deadline = time.monotonic() + time_limit
    try:
        nearest, method, slack, radius = _nearest(
            network, inner, start, units, levels, signs, deadline
        )
    except OutOfTime as late:
        raise VerificationError(
            f"more than {late.regions:,} linear regions in {time_limit:g} s; raise "
            "`time_limit` or narrow the domain"
        ) from None
    if nearest is None:
        return Radius(math.inf, None, value, None, method, slack)
    at = list(centre)
    for i, x in zip(moving, nearest, strict=True):
        at[i] = x
    return Radius(radius, tuple(at), value, exact.value(at), method, slack)


def _along(box: Domain, inputs: Sequence[int]) -> Domain:
    """The box of some of the inputs."""
    return Domain(
        tuple(box.names[i] for i in inputs),
        tuple(box.low[i] for i in inputs),
        tuple(box.high[i] for i in inputs),
    )


def _nearest(
    network: LayeredNetwork,
    box: Domain,
    start: list[Fraction],
    scales: list[Fraction],
    levels: tuple[Fraction, ...],
    signs: tuple[int, ...],
    deadline: float,
) -> tuple[Any, str, float, Any]:
    """The nearest point beyond a level, the method, its tolerance and the distance."""

    def distance(point: Sequence[Fraction]) -> Fraction:
        return max(abs(x - p) / s for x, p, s in zip(point, start, scales, strict=True))

    if network.inputs > 2:
        return _nearest_by_programme(
            network, box, start, scales, levels, signs, deadline
        )
    beyond = with_level(network, levels, signs)
    if network.inputs == 1:
        points = enumerate_segments(beyond, box, deadline).points
        exact = network.in_integers
        reached = [
            point
            for point in points
            if any(
                sign * (exact.value([point]) - level) >= 0
                for level, sign in zip(levels, signs, strict=True)
            )
        ]
        candidates, method = [(point,) for point in reached], "kinks"
    else:
        # The distance is linear where neither input nor their balance changes sign.
        (p, q), (s, t) = start, scales
        rows = np.array([[1, 0], [0, 1], [t, -s], [t, s]], object) * Fraction(1)
        beyond = with_kinks(beyond, rows, -rows @ np.array([p, q], object))
        regions = enumerate_regions(beyond, box, deadline)
        candidates = [regions.exact_point(corner) for corner in _beyond(regions)]
        method = f"{len(regions):,} linear regions"
    if not candidates:
        return None, method, 0.0, math.inf
    nearest = min(candidates, key=distance)
    return nearest, method, 0.0, distance(nearest)


def _beyond(regions: Regions) -> set[int]:
    """Corners at which a unit of the last layer is at its kink, 0, or above it."""
    past = np.flatnonzero(regions.pieces[-1].any(axis=1))
    corners = {corner for region in past for corner in regions.polygons[region]}
    # An edge or a corner of the regions below may just touch the level.
    inputs, depth = regions.last_inputs, len(regions.pieces) - 1
    near = (inputs.value + inputs.error >= 0.0).any(axis=1)
    for corner in np.flatnonzero(near).tolist():
        if corner not in corners:
            point = regions.exact_point(corner)
            if max(regions.exact.hidden_inputs(point, depth)) >= 0:
                corners.add(corner)
    return corners


def _nearest_by_programme(
    network: LayeredNetwork,
    box: Domain,
    start: list[Fraction],
    scales: list[Fraction],
    levels: tuple[Fraction, ...],
    signs: tuple[int, ...],
    deadline: float,
) -> tuple[Any, str, float, Any]:
    """The same for three inputs and more: one mixed-integer programme a level."""
    low, high = np.array(box.low), np.array(box.high)
    if not fits_floats(network, low, high):
        raise VerificationError(f"{network!r}: {TOO_WIDE}")
    network = in_floats(network)
    ranges = ranges_on(network, low, high)
    nearest, lower = None, math.inf
    for level, sign in zip(levels, signs, strict=True):
        code = encode(network, ranges, low, high)
        reach = max(
            max(abs(float(p) - l), abs(float(p) - h)) / float(s)
            for p, s, l, h in zip(start, scales, low, high, strict=True)
        )
        radius = code.programme.variable(0.0, reach)
        for x, p, s in zip(code.inputs, start, scales, strict=True):
            for side in (1.0, -1.0):
                row = Affine.combination([side, -float(s)], [x, radius])
                code.programme.require(row, high=side * float(p))
        target = Affine.combination([float(sign)], [code.output])
        code.programme.require(target, low=float(sign * level))
        objective = Affine.combination([-1.0], [radius])
        remaining = deadline - time.monotonic()
        result = code.programme.maximise(objective, remaining)
        if result.status == 1:
            raise VerificationError(
                f"no input moves by less than {-result.upper:.6g}, and the time is "
                "over; raise `time_limit`"
            )
        if result.x is None and result.upper > -math.inf:
            raise VerificationError(
                f"the solver gave up ({result.message}); narrow the domain"
            )
        if result.x is not None and -result.upper < lower:
            lower = -result.upper
            nearest = [
                Fraction(float(np.clip(result.x[next(iter(x.terms))], l, h)))
                for x, l, h in zip(code.inputs, low, high, strict=True)
            ]
    method = f"{len(levels)} mixed-integer programmes"
    return nearest, method, TOLERANCE, lower

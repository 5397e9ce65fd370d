r"""A network as a mixed-integer programme, solved by HiGHS.

A hidden unit whose input $y$ ranges over $[l, u]$ with kinks $t_1 < \dots < t_m$ inside
is written in the lengths $e_j$ that $y$ covers of the pieces,

$$
y = l + \sum_{j=0}^m e_j, \qquad h = \varphi(l) + \sum_j s_j e_j, \qquad
e_{j-1} \ge |e_{j-1}| \delta_j, \quad e_j \le |e_j| \delta_j, \quad
\delta_j \in \{0, 1\},
$$

where $|e_j|$ is the length of piece $j$: one binary a ReLU, two a clipped one, and none
for a unit that stays on one piece. The unit's slope is then linear too, $s_0 + \sum_j
(s_j - s_{j-1}) \delta_j$, and so is the network's gradient, once the products of
binaries and sums are replaced by variables between their four bounds (McCormick, 1976),
which is exact at binaries.

What HiGHS calls optimal holds to its tolerances: it is labelled with `TOLERANCE`.

References:
    Anderson, R., Huchette, J., Ma, W., Tjandraatmadja, C. and Vielma, J. (2020). Strong
    mixed-integer programming formulations for trained neural networks. *Mathematical
    Programming*, 183, 3-39.

    McCormick, G. (1976). Computability of global solutions to factorable nonconvex
    programs: part I. *Mathematical Programming*, 10, 147-175.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, OptimizeResult, milp
from scipy.sparse import csr_array

from relu_options.verification.bounds import (
    Ranges,
    UnitRange,
    through_layer,
    times_slopes,
)
from relu_options.verification.interiors import Side
from relu_options.verification.layers import LayeredNetwork
from relu_options.verification.units import HiddenUnit

TOLERANCE = 1e-6
"""To which HiGHS holds constraints and integrality, relative to a programme's scale."""

_GAP = 1e-10  # between bound and incumbent, relative, at which HiGHS may stop
_ZOOM = 1e4  # objectives are scaled up: HiGHS stops at an absolute gap of 1e-6


@dataclass
class Affine:
    """A constant plus variables times coefficients."""

    constant: float = 0.0
    terms: dict[int, float] = field(default_factory=dict)

    def add(self, factor: float, other: Affine) -> None:
        """Add a multiple of another."""
        if factor == 0.0:
            return
        self.constant += factor * other.constant
        for variable, coefficient in other.terms.items():
            self.terms[variable] = self.terms.get(variable, 0.0) + factor * coefficient

    @staticmethod
    def combination(
        factors: Iterable[float], parts: Iterable[Affine], constant: float = 0.0
    ) -> Affine:
        """Sum of parts times factors."""
        total = Affine(constant)
        for factor, part in zip(factors, parts, strict=True):
            total.add(float(factor), part)
        return total


def _bounds(low: Any, high: Any) -> Bounds:
    """Bounds of arrays, which SciPy's types do not know of."""
    return Bounds(low, high)


def _between(matrix: Any, low: Any, high: Any) -> LinearConstraint:
    """Rows between bounds, likewise."""
    return LinearConstraint(matrix, low, high)


class Programme:
    """A mixed-integer programme under construction."""

    def __init__(self) -> None:
        self._low: list[float] = []
        self._high: list[float] = []
        self._integer: list[int] = []
        self._rows: list[tuple[dict[int, float], float, float]] = []

    def variable(self, low: float, high: float, *, integer: bool = False) -> Affine:
        """A new variable."""
        self._low.append(low)
        self._high.append(high)
        self._integer.append(int(integer))
        return Affine(0.0, {len(self._low) - 1: 1.0})

    def require(
        self, row: Affine, low: float = -math.inf, high: float = math.inf
    ) -> None:
        """Bound an affine expression."""
        self._rows.append((row.terms, low - row.constant, high - row.constant))

    def maximise(self, objective: Affine, seconds: float) -> OptimizeResult:
        """Solve; `upper` is proved, and `x` attained if it is not None.

        HiGHS's tolerances are absolute, and it drops coefficients below 1e-9: it is
        given variables between -1 and 1, but for binaries, and rows and costs whose
        largest coefficient is 1.
        """
        costs = np.zeros(len(self._low))
        for variable, coefficient in objective.terms.items():
            costs[variable] = -coefficient
        low, high = np.array(self._low), np.array(self._high)
        continuous = np.array(self._integer) == 0
        middle = np.where(continuous, 0.5 * (low + high), 0.0)
        half = np.where(continuous & (high > low), 0.5 * (high - low), 1.0)
        offset, costs = float(costs @ middle), costs * half
        zoom = _ZOOM / (np.abs(costs).max(initial=0.0) or 1.0)
        result = milp(
            zoom * costs,
            constraints=self._scaled_rows(middle, half) if self._rows else [],
            bounds=_bounds((low - middle) / half, (high - middle) / half),
            integrality=self._integer,
            options={"time_limit": max(seconds, 0.01), "mip_rel_gap": _GAP},
        )
        bound = result.get("mip_dual_bound")
        if bound is None and result.fun is not None:
            bound = result.fun  # no binaries: a linear programme
        infeasible = result.status == 2
        result.upper = -math.inf if infeasible else math.inf
        if bound is not None and not infeasible and math.isfinite(bound):
            result.upper = objective.constant - offset - bound / zoom
        if result.x is not None:
            result.x = np.clip(middle + half * result.x, low, high)
        return result

    def _scaled_rows(self, middle: np.ndarray, half: np.ndarray) -> LinearConstraint:
        """The rows, of variables between -1 and 1, with 1 for a largest coefficient."""
        terms = [terms for terms, _, _ in self._rows]
        places = np.repeat(np.arange(len(terms)), [len(t) for t in terms])
        columns = [variable for t in terms for variable in t]
        values = [coefficient for t in terms for coefficient in t.values()]
        matrix = csr_array((values, (places, columns)), shape=(len(terms), len(middle)))
        ends = np.array([row[1:] for row in self._rows]).T - matrix @ middle
        matrix = matrix * half[None]
        size = abs(matrix).max(axis=1).toarray().ravel()
        size = np.where(size > 0.0, size, 1.0)
        return _between(matrix / size[:, None], *(ends / size))


@dataclass(frozen=True, eq=False)
class EncodedUnit:
    """A hidden unit in a programme.

    Attributes:
        unit: Its function.
        on: Its range.
        input: Its input.
        output: Its output.
        binaries: Of each kink in the range, whether the input is above it.
    """

    unit: HiddenUnit
    on: UnitRange
    input: Affine
    output: Affine
    binaries: list[Affine]

    def piece(self, solution: np.ndarray) -> int:
        """The piece that it is on in a solution."""
        return self.on.first + sum(
            round(solution[next(iter(binary.terms))]) for binary in self.binaries
        )


@dataclass(frozen=True, eq=False)
class EncodedNetwork:
    """A network in a programme.

    Attributes:
        network: The network.
        programme: The programme.
        inputs: Its inputs.
        layers: Its hidden units.
        output: Its output.
    """

    network: LayeredNetwork
    programme: Programme
    inputs: list[Affine]
    layers: list[list[EncodedUnit]]
    output: Affine

    def pieces(self, solution: np.ndarray) -> list[np.ndarray]:
        """Pieces of all units in a solution."""
        return [
            np.array([unit.piece(solution) for unit in layer], np.int8)
            for layer in self.layers
        ]

    def exclude(self, pieces: list[np.ndarray], sides: list[Side]) -> None:
        """Forbid sides of the last of their layers, given the pieces before it."""
        last = max(side.layer for side in sides)
        fixed = [
            Side(layer, unit, kink, kink < pieces[layer][unit])
            for layer in range(last)
            for unit, encoded in enumerate(self.layers[layer])
            for kink in range(encoded.on.first, encoded.on.last)
        ]
        fixed += [side for side in sides if side.layer == last]
        # Not all binaries may be as they are.
        row = Affine()
        for side in fixed:
            unit = self.layers[side.layer][side.unit]
            if unit.on.first <= side.kink < unit.on.last:
                binary = unit.binaries[side.kink - unit.on.first]
                row.add(-1.0 if side.above else 1.0, binary)
                row.constant += float(side.above)
        self.programme.require(row, low=1.0)

    def derivative(self, of_input: int) -> Affine:
        """Derivative of the output in one input."""
        seed = np.eye(self.network.inputs)[of_input]
        tangents = [Affine(float(x)) for x in seed]
        return self.carry(tangents, seed, seed, 0)

    def carry(
        self,
        tangents: list[Affine],
        low: np.ndarray,
        high: np.ndarray,
        depth: int,
        until: tuple[int, int] | None = None,
    ) -> Affine:
        """Derivative of the output, given those of a layer's inputs.

        Args:
            tangents: Of the inputs of hidden layer `depth`.
            low: Their lower bounds.
            high: Their upper bounds.
            depth: Where to begin; counted from 0.
            until: Layer and unit whose input's derivative is wanted instead.
        """
        network = self.network
        for place in range(depth, len(self.layers)):
            weights = network.layers[place].weights.astype(float)
            low, high = through_layer(weights, low, high)
            sums = [Affine.combination(row, tangents) for row in weights]
            if until is not None and until[0] == place:
                return sums[until[1]]
            units = self.layers[place]
            tangents = [
                self._times_slope(unit, total, l, h)
                for unit, total, l, h in zip(units, sums, low, high, strict=True)
            ]
            low, high = times_slopes(
                network.layers[place].units, [unit.on for unit in units], low, high
            )
        return Affine.combination(network.weights.astype(float), tangents)

    def _times_slope(
        self, unit: EncodedUnit, tangent: Affine, low: float, high: float
    ) -> Affine:
        """A tangent times the slope of a unit."""
        slopes = [float(s) for s in unit.unit.slopes[unit.on.first :]]
        result = Affine()
        result.add(slopes[0], tangent)
        for place, binary in enumerate(unit.binaries):
            product = self._product(binary, tangent, low, high)
            result.add(slopes[place + 1] - slopes[place], product)
        return result

    def _product(
        self, binary: Affine, factor: Affine, low: float, high: float
    ) -> Affine:
        """A binary times an affine expression between bounds."""
        if not factor.terms:
            result = Affine()
            result.add(factor.constant, binary)
            return result
        product = self.programme.variable(min(low, 0.0), max(high, 0.0))
        one, combine = Affine(1.0), Affine.combination
        for bound, upper in ((low, False), (high, True)):
            # product between bound * binary and factor - bound * (1 - binary)
            near = combine([1.0, -bound], [product, binary])
            far = combine([1.0, -1.0, bound, -bound], [product, factor, one, binary])
            self.programme.require(near, **({"high": 0.0} if upper else {"low": 0.0}))
            self.programme.require(far, **({"low": 0.0} if upper else {"high": 0.0}))
        return product


def encode(
    network: LayeredNetwork, ranges: Ranges, low: np.ndarray, high: np.ndarray
) -> EncodedNetwork:
    """The network on a box as a programme.

    Args:
        network: Any.
        ranges: Of its units on the box.
        low: Of the inputs, of shape `(d,)`.
        high: Likewise.

    Returns:
        The network, its inputs and units as variables.

    Examples:
        The largest slope of a call spread is one.

        >>> from relu_options.verification.bounds import ranges_on
        >>> from relu_options.verification.network_reader import layered
        >>> network = layered([([[1.0], [1.0]], [-0.4, -0.6]), ([[1.0, -1.0]], [0.0])])
        >>> box = np.zeros(1), np.ones(1)
        >>> encoded = encode(network, ranges_on(network, *box), *box)
        >>> result = encoded.programme.maximise(encoded.derivative(0), seconds=10.0)
        >>> print(round(result.upper, 6), encoded.pieces(result.x))
        1.0 [array([1, 0], dtype=int8)]
    """
    programme = Programme()
    inputs = [
        programme.variable(float(l), float(h)) for l, h in zip(low, high, strict=True)
    ]
    values, layers = inputs, []
    for layer, units in zip(network.layers, ranges.units, strict=True):
        weights, biases = layer.weights.astype(float), layer.biases.astype(float)
        encoded = [
            _encode_unit(programme, unit, on, Affine.combination(row, values, float(b)))
            for unit, on, row, b in zip(
                layer.units, units, weights, biases, strict=True
            )
        ]
        layers.append(encoded)
        values = [unit.output for unit in encoded]
    output = Affine.combination(
        network.weights.astype(float), values, float(network.bias)
    )
    return EncodedNetwork(network, programme, inputs, layers, output)


def _encode_unit(
    programme: Programme, unit: HiddenUnit, on: UnitRange, total: Affine
) -> EncodedUnit:
    """One hidden unit, with its kinks as binaries."""
    slopes = [float(s) for s in unit.slopes[on.first : on.last + 1]]
    if on.is_stable:
        output = Affine(float(unit.offsets[on.first]))
        output.add(slopes[0], total)
        return EncodedUnit(unit, on, total, output, [])
    ends = [on.low, *(float(t) for t in unit.kinks[on.first : on.last]), on.high]
    lengths = np.diff(ends)
    covered = [programme.variable(0.0, float(length)) for length in lengths]
    binaries = [programme.variable(0.0, 1.0, integer=True) for _ in lengths[1:]]
    for place, binary in enumerate(binaries):
        full = Affine.combination([1.0, -lengths[place]], [covered[place], binary])
        programme.require(full, low=0.0)
        begun = Affine.combination(
            [1.0, -lengths[place + 1]], [covered[place + 1], binary]
        )
        programme.require(begun, high=0.0)
    split = Affine.combination([-1.0] * len(covered), covered, -on.low)
    split.add(1.0, total)
    programme.require(split, 0.0, 0.0)
    output = Affine.combination(slopes, covered, float(unit(on.low)))
    return EncodedUnit(unit, on, total, output, binaries)


def largest_box(
    rows: np.ndarray,
    least: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    *,
    on: tuple[np.ndarray, float] | None = None,
) -> tuple[np.ndarray, float] | None:
    """The largest copy of a box that fits into a polytope inside it.

    Args:
        rows: `A` of the polytope `A x >= least`, of shape `(m, d)`.
        least: Shape `(m,)`.
        low: Of the box.
        high: Of the box.
        on: A plane `a x = b` on which the copy's centre must lie.

    Returns:
        Its centre and its size relative to the box; None if the polytope is empty.

    Examples:
        >>> centre, size = largest_box(np.array([[1.0]]), np.array([0.5]),
        ...                            np.zeros(1), np.ones(1))
        >>> print(centre, size)
        [0.75] 0.5
    """
    half = 0.5 * (high - low)
    reach = np.abs(rows) @ half
    costs = np.append(np.zeros(len(low)), -1.0)
    inside = np.hstack([rows, -reach[:, None]])
    edges = np.hstack([np.eye(len(low)), half[:, None]])
    constraints: list[Any] = [
        _between(inside, least, np.inf),
        _between(edges, -np.inf, high),
        _between(np.hstack([np.eye(len(low)), -half[:, None]]), low, np.inf),
    ]
    if on is not None:
        constraints.append(_between(np.append(on[0], 0.0)[None], on[1], on[1]))
    bounds = _bounds(np.append(low, 0.0), np.append(high, 1.0))
    result = milp(costs, constraints=constraints, bounds=bounds)
    if result.x is None:
        return None
    return np.clip(result.x[:-1], low, high), float(result.x[-1])

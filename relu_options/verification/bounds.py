r"""Ranges of hidden units and of slopes on a box, by affine arithmetic.

Every quantity is written as $c + \sum_i e_i \epsilon_i$ with $|\epsilon_i| \le 1$, so
that what two units share is not counted twice. On its range a hidden unit lies between
two parallel lines; half their distance is an error term of its own. The slopes of the
units that can change piece are intervals, and so is what they multiply up to.

References:
    De Figueiredo, L. and Stolfi, J. (2004). Affine arithmetic: concepts and
    applications. *Numerical Algorithms*, 37, 147-158.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from relu_options.verification.layers import LayeredNetwork
from relu_options.verification.units import HiddenUnit

_SAFETY = 1e-11  # relative: above the rounding errors of the arithmetic itself
_BITS = 400  # of products, and of their inverses: far from where floats end
TOO_WIDE = (
    "weights differ by more powers of two than floats and a solver can hold; scale the "
    "layers to like sizes, or drop weights that are negligible"
)


@dataclass(frozen=True, eq=False)
class UnitRange:
    """What a hidden unit does on a box.

    Attributes:
        low: Least input.
        high: Largest input.
        first: Position of the piece at `low`.
        last: Position of the piece at `high`.
    """

    low: float
    high: float
    first: int
    last: int

    @property
    def is_stable(self) -> bool:
        """Whether the unit is on one piece."""
        return self.first == self.last


@dataclass(frozen=True, eq=False)
class Ranges:
    """Ranges of all units on a box, and of the output.

    Attributes:
        units: Of each layer.
        low: Least output.
        high: Largest output.
    """

    units: list[list[UnitRange]]
    low: float
    high: float

    @property
    def changing(self) -> int:
        """Number of kinks that lie inside the ranges: binaries of a programme."""
        return sum(unit.last - unit.first for layer in self.units for unit in layer)


def fits_floats(network: LayeredNetwork, low: np.ndarray, high: np.ndarray) -> bool:
    """Whether no product along a path through a network comes near the ends of floats.

    Only then do the bounds of this module hold, and what is computed from them.

    Examples:
        >>> from relu_options.verification.network_reader import layered
        >>> chain = [([[x]], [0.0]) for x in (1e-200, 1e-200, 1e200, 1e200)]
        >>> fits_floats(layered(chain), np.zeros(1), np.ones(1))
        False
    """
    least = most = 0
    stages = [[low, high, high - low]]
    for layer in network.layers:
        stages.append([layer.weights, layer.biases, np.array(layer.biases.shape)])
        for part in ("kinks", "slopes"):
            stages.append([np.array(getattr(u, part)) for u in set(layer.units)])
    stages.append([network.weights, np.array([network.bias])])
    for stage in stages:
        numbers = [x for array in stage for x in array.ravel().tolist() if x]
        bits = [_exponent(x) for x in numbers] or [0]
        least, most = least + min(*bits, 0), most + max(*bits, 0)
    return least > -_BITS and most < _BITS


def _exponent(number: float | Fraction) -> int:
    """Nearly the binary logarithm of an absolute value that is not 0."""
    top, bottom = abs(number).as_integer_ratio()
    return top.bit_length() - bottom.bit_length()


def ranges_on(network: LayeredNetwork, low: np.ndarray, high: np.ndarray) -> Ranges:
    """Ranges of all hidden units and of the output on a box.

    Args:
        network: Any.
        low: Of shape `(d,)`.
        high: Likewise.

    Returns:
        Intervals that contain all values.

    Examples:
        >>> from relu_options.verification.network_reader import layered
        >>> network = layered([([[1.0], [1.0]], [0.0, 0.0]), ([[1.0, -1.0]], [0.5])])
        >>> ranges = ranges_on(network, np.array([-1.0]), np.array([1.0]))
        >>> ranges.changing
        2
    """
    centre, errors = 0.5 * (low + high), np.diag(0.5 * (high - low))
    least, most = low, high
    units = []
    for layer in network.layers:
        weights, biases = layer.weights.astype(float), layer.biases.astype(float)
        centre, errors = weights @ centre + biases, weights @ errors
        least, most = _interval(weights, biases, centre, errors, least, most)
        row, slopes, shifts, rests = [], [], [], []
        for unit, l, u in zip(layer.units, least, most, strict=True):
            row.append(_range_of(unit, l, u))
            slope, shift, rest = _between_lines(unit, row[-1])
            slopes.append(slope)
            shifts.append(shift)
            rests.append(rest)
        units.append(row)
        centre = np.array(slopes) * centre + np.array(shifts)
        own = np.diag(rests)[:, np.array(rests) > 0.0]
        errors = np.hstack([np.array(slopes)[:, None] * errors, own])
        ends = [
            unit(np.array([l, u, *(float(t) for t in unit.kinks if l < t < u)]))
            for unit, l, u in zip(layer.units, least, most, strict=True)
        ]
        least = np.array([values.min() for values in ends])
        most = np.array([values.max() for values in ends])
    weights, bias = network.weights.astype(float)[None], np.array([float(network.bias)])
    centre, errors = weights @ centre + bias, weights @ errors
    least, most = _interval(weights, bias, centre, errors, least, most)
    return Ranges(units, float(least[0]), float(most[0]))


def slopes_of(unit: HiddenUnit, on: UnitRange) -> tuple[float, float]:
    """Least and largest slope of a unit on its range."""
    slopes = [float(s) for s in unit.slopes[on.first : on.last + 1]]
    return min(slopes), max(slopes)


def through_layer(
    weights: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Interval of `weights @ x` for x in an interval."""
    positive, negative = np.maximum(weights, 0.0), np.minimum(weights, 0.0)
    return positive @ low + negative @ high, positive @ high + negative @ low


def times_slopes(
    layer_units: tuple[HiddenUnit, ...],
    ranges: list[UnitRange],
    low: np.ndarray,
    high: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Interval of the units' slopes times an interval, unit by unit."""
    pairs = [slopes_of(u, on) for u, on in zip(layer_units, ranges, strict=True)]
    slopes = np.array(pairs).T
    products = np.stack([s * x for s in slopes for x in (low, high)])
    return products.min(axis=0), products.max(axis=0)


def gradient_range(
    network: LayeredNetwork, ranges: Ranges, of_input: int
) -> tuple[float, float]:
    """Interval that contains the derivative in one input on the box of the ranges."""
    low = high = np.eye(network.inputs)[of_input]
    for layer, units in zip(network.layers, ranges.units, strict=True):
        low, high = through_layer(layer.weights.astype(float), low, high)
        low, high = times_slopes(layer.units, units, low, high)
    low, high = through_layer(network.weights.astype(float)[None], low, high)
    room = _SAFETY * (abs(low[0]) + abs(high[0]))
    return float(low[0] - room), float(high[0] + room)


def _interval(
    weights: np.ndarray,
    biases: np.ndarray,
    centre: np.ndarray,
    errors: np.ndarray,
    least: np.ndarray,
    most: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """The narrower of the affine and the plain interval, a little widened."""
    reach = np.abs(errors).sum(axis=1)
    low, high = through_layer(weights, least, most)
    size = np.abs(weights) @ np.maximum(np.abs(least), np.abs(most)) + np.abs(biases)
    room = _SAFETY * (size + np.abs(centre) + reach)
    return (
        np.maximum(centre - reach, low + biases) - room,
        np.minimum(centre + reach, high + biases) + room,
    )


def _range_of(unit: HiddenUnit, low: float, high: float) -> UnitRange:
    """Which pieces an interval of inputs reaches."""
    kinks = np.array([float(t) for t in unit.kinks])
    first, last = int((kinks <= low).sum()), int((kinks < high).sum())
    return UnitRange(float(low), float(high), first, max(first, last))


def _between_lines(unit: HiddenUnit, on: UnitRange) -> tuple[float, float, float]:
    """Slope, shift and half distance of two parallel lines around a unit."""
    if on.is_stable:
        return float(unit.slopes[on.first]), float(unit.offsets[on.first]), 0.0
    inside = [float(t) for t in unit.kinks[on.first : on.last]]
    at = np.array([on.low, on.high, *inside])
    values = unit(at)
    slope = (values[1] - values[0]) / (on.high - on.low)
    distance = values - slope * at
    return (
        float(slope),
        float(0.5 * (distance.max() + distance.min())),
        float(0.5 * (distance.max() - distance.min())),
    )

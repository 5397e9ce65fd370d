r"""Floating point with a bound on its error: most signs need no more.

A sum of $n$ products, in whatever order, is off by no more than $n u \sum |a_i b_i|$
with $u = 2^{-53}$, and by $n 2^{-1074}$ more where a product underflows. So the network
of absolute values, evaluated beside the network, bounds its error, once none of them
that is not zero is taken to be less than $2^{-500}$: then no product of two vanishes,
and $u$ times the sum is more than all underflow. Zeros stay exact. What overflows is
not known at all. Where a number is farther from a threshold than its error, its side is
certain; the rest is for `ExactNetwork`.

References:
    Higham, N. (2002). *Accuracy and Stability of Numerical Algorithms*, chapter 3.
    Society for Industrial and Applied Mathematics, Philadelphia.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from relu_options.payoffs.numbers import as_floats, nearest_float
from relu_options.verification.layers import LayeredNetwork

_EPS = 2.0**-52
_SPARE = 8  # roundings of a layer besides its sum: weights, slope, offset, point
_FLOOR = 2.0**-500  # of absolute values, but for zeros
UNDERFLOW = 2.0**-1000  # more than what underflow takes from an expression


class Bounded(NamedTuple):
    """Numbers, each within `error` of its exact value."""

    value: np.ndarray
    error: np.ndarray

    def above(self, threshold: np.ndarray | float) -> np.ndarray:
        """Where it is certain that the exact value is at the threshold or above."""
        return self.value - threshold >= self.error + _EPS * np.abs(threshold)

    def below(self, threshold: np.ndarray | float) -> np.ndarray:
        """Where it is certain that the exact value is at the threshold or below."""
        return threshold - self.value >= self.error + _EPS * np.abs(threshold)


def bounded(value: np.ndarray, error: np.ndarray) -> Bounded:
    """Numbers with their errors: 0 within infinity where either overflows."""
    known = np.isfinite(value) & np.isfinite(error)
    return Bounded(np.where(known, value, 0.0), np.where(known, error, np.inf))


class RoundedNetwork:
    """A layered network in floating point, evaluated on given pieces."""

    def __init__(self, network: LayeredNetwork) -> None:
        self.weights = [as_floats(layer.weights) for layer in network.layers]
        self.biases = [as_floats(layer.biases) for layer in network.layers]
        self.output = as_floats(network.weights)
        self.bias = np.array([nearest_float(network.bias)])
        self.kinks = [
            _table([unit.kinks for unit in layer.units], np.inf)
            for layer in network.layers
        ]
        self.slopes = [
            _table([unit.slopes for unit in layer.units], 0.0)
            for layer in network.layers
        ]
        self.offsets = [
            _table([unit.offsets for unit in layer.units], 0.0)
            for layer in network.layers
        ]
        sizes = [*network.widths, network.inputs]
        self._roundings = _EPS * (sum(sizes) + _SPARE * (len(sizes) + 1))

    def hidden_inputs(self, points: np.ndarray, pieces: list[np.ndarray]) -> Bounded:
        """Inputs of the units of the first layer for which no pieces are given.

        Args:
            points: Shape `(P, d)`; each coordinate is off by half an ulp at most.
            pieces: Of the layers before, each of shape `(P, n)`.

        Returns:
            Shape `(P, n)`.
        """
        value, size = self._outputs(points, pieces)
        weights, biases = self.weights[len(pieces)], self.biases[len(pieces)]
        return self._bounded(*_affine(value, size, weights.T, biases))

    def values(self, points: np.ndarray, pieces: list[np.ndarray]) -> Bounded:
        """Values of the network at points whose pieces in all layers are given."""
        value, size = self._outputs(points, pieces)
        value, size = _affine(value, size, self.output[:, None], self.bias)
        return self._bounded(value[:, 0], size[:, 0])

    def last_outputs(self, points: np.ndarray, pieces: list[np.ndarray]) -> np.ndarray:
        """Outputs of the last hidden layer, of shape `(P, n)`."""
        return self._outputs(points, pieces)[0]

    def gradients(self, pieces: list[np.ndarray]) -> Bounded:
        """Gradients, of shape `(C, d)`, on regions of given pieces `(C, n)`."""
        count = len(pieces[0]) if pieces else 1
        value = np.broadcast_to(self.output, (count, len(self.output)))
        size = _sizes(value)
        for layer in reversed(range(len(pieces))):
            slopes = _chosen(self.slopes[layer], pieces[layer])
            with np.errstate(over="ignore", invalid="ignore"):
                value, size = value * slopes, size * _sizes(slopes)
            value, size = _affine(value, size, self.weights[layer], 0.0)
        return self._bounded(value, size)

    def last_gradients(self, pieces: list[np.ndarray], of_input: int) -> np.ndarray:
        """Derivatives of the last hidden layer's outputs, of shape `(C, n)`."""
        count = len(pieces[0])
        rows = np.zeros((count, self.weights[0].shape[1]))
        rows[:, of_input] = 1.0
        for layer, piece in enumerate(pieces):
            rows = _chosen(self.slopes[layer], piece) * (rows @ self.weights[layer].T)
        return rows

    def _outputs(
        self, points: np.ndarray, pieces: list[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Outputs of the last layer for which pieces are given, and their sizes."""
        value, size = points, _sizes(points)
        for layer, piece in enumerate(pieces):
            value, size = _affine(
                value, size, self.weights[layer].T, self.biases[layer]
            )
            slopes = _chosen(self.slopes[layer], piece)
            offsets = _chosen(self.offsets[layer], piece)
            with np.errstate(over="ignore", invalid="ignore"):
                value = slopes * value + offsets
                size = _sizes(_sizes(slopes) * size + np.abs(offsets))
        return value, size

    def _bounded(self, value: np.ndarray, size: np.ndarray) -> Bounded:
        return bounded(value, self._roundings * size)


def _affine(
    value: np.ndarray, size: np.ndarray, weights: np.ndarray, biases: np.ndarray | float
) -> tuple[np.ndarray, np.ndarray]:
    """`value @ weights + biases`, and its size."""
    with np.errstate(over="ignore", invalid="ignore"):
        return (
            value @ weights + biases,
            _sizes(size @ _sizes(weights) + np.abs(biases)),
        )


def _sizes(numbers: np.ndarray) -> np.ndarray:
    """Absolute values, none of which vanishes in a product."""
    sizes = np.abs(numbers)
    return np.maximum(sizes, _FLOOR, out=sizes, where=sizes > 0.0)


def _table(rows: list[tuple], fill: float) -> np.ndarray:
    """Rows of different lengths as an array, filled up on the right."""
    table = np.full((len(rows), max(map(len, rows), default=0)), fill)
    for place, row in enumerate(rows):
        table[place, : len(row)] = [nearest_float(number) for number in row]
    return table


def _chosen(table: np.ndarray, pieces: np.ndarray) -> np.ndarray:
    """Entry of each unit's row on its piece; `pieces` has shape `(..., n)`."""
    return table[np.arange(len(table)), pieces]

r"""Floating point with a bound on its error: most signs need no more.

A sum of $n$ products, in whatever order, is off by no more than $n u \sum |a_i b_i|$
with $u = 2^{-53}$. So the network of absolute values, evaluated beside the network,
bounds its error. Where a number is farther from a threshold than that, its side is
certain; the rest is for `ExactNetwork`.

References:
    Higham, N. (2002). *Accuracy and Stability of Numerical Algorithms*, chapter 3.
    Society for Industrial and Applied Mathematics, Philadelphia.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from relu_options.verification.layers import LayeredNetwork

_EPS = 2.0**-52
_SPARE = 8  # roundings of a layer besides its sum: weights, slope, offset, point
_TINY = 1e-290  # against underflow


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


class RoundedNetwork:
    """A layered network in floating point, evaluated on given pieces."""

    def __init__(self, network: LayeredNetwork) -> None:
        self.weights = [layer.weights.astype(float) for layer in network.layers]
        self.biases = [layer.biases.astype(float) for layer in network.layers]
        self.output = network.weights.astype(float)
        self.bias = float(network.bias)
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
        return self._bounded(
            value @ weights.T + biases, size @ np.abs(weights).T + np.abs(biases)
        )

    def values(self, points: np.ndarray, pieces: list[np.ndarray]) -> Bounded:
        """Values of the network at points whose pieces in all layers are given."""
        value, size = self._outputs(points, pieces)
        return self._bounded(
            value @ self.output + self.bias,
            size @ np.abs(self.output) + abs(self.bias),
        )

    def last_outputs(self, points: np.ndarray, pieces: list[np.ndarray]) -> np.ndarray:
        """Outputs of the last hidden layer, of shape `(P, n)`."""
        return self._outputs(points, pieces)[0]

    def gradients(self, pieces: list[np.ndarray]) -> Bounded:
        """Gradients, of shape `(C, d)`, on regions of given pieces `(C, n)`."""
        count = len(pieces[0]) if pieces else 1
        value = np.broadcast_to(self.output, (count, len(self.output)))
        size = np.abs(value)
        for layer in reversed(range(len(pieces))):
            slopes = _chosen(self.slopes[layer], pieces[layer])
            value = (value * slopes) @ self.weights[layer]
            size = (size * np.abs(slopes)) @ np.abs(self.weights[layer])
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
        value, size = points, np.abs(points)
        for layer, piece in enumerate(pieces):
            weights, biases = self.weights[layer], self.biases[layer]
            slopes = _chosen(self.slopes[layer], piece)
            offsets = _chosen(self.offsets[layer], piece)
            value = slopes * (value @ weights.T + biases) + offsets
            size = np.abs(slopes) * (size @ np.abs(weights).T + np.abs(biases))
            size = size + np.abs(offsets)
        return value, size

    def _bounded(self, value: np.ndarray, size: np.ndarray) -> Bounded:
        return Bounded(value, self._roundings * size + _TINY * (size > 0.0))


def _table(rows: list[tuple], fill: float) -> np.ndarray:
    """Rows of different lengths as an array, filled up on the right."""
    table = np.full((len(rows), max(map(len, rows), default=0)), fill)
    for place, row in enumerate(rows):
        table[place, : len(row)] = [float(number) for number in row]
    return table


def _chosen(table: np.ndarray, pieces: np.ndarray) -> np.ndarray:
    """Entry of each unit's row on its piece; `pieces` has shape `(..., n)`."""
    return table[np.arange(len(table)), pieces]

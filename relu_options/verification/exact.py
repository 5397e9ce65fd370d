r"""A network in integers: values, gradients and pieces without rounding.

Every float is a rational number, so that a network is one with integer weights over a
common denominator in each layer. A point is $(X_1, \dots, X_d) / W$ with integers, an
affine function of the inputs is a row of integers $(a_1, \dots, a_d, c)$, and its sign
at the point is that of $\sum_i a_i X_i + c W$.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np

from relu_options.payoffs.numbers import Number
from relu_options.verification.units import HiddenLayer, rational

Pieces: TypeAlias = Sequence[np.ndarray]
"""Of each hidden layer the positions of the pieces that its units are on."""


@dataclass(frozen=True, eq=False)
class _IntegerLayer:
    """A hidden layer whose numbers are integers over `before` and `after`.

    `before` is the denominator of its units' inputs, `after` of their outputs.
    """

    weights: np.ndarray
    biases: np.ndarray
    kinks: list[list[int]]
    slopes: list[list[int]]
    offsets: list[list[int]]
    before: int
    after: int


class ExactNetwork:
    """A layered network in integers: see `LayeredNetwork.in_integers`."""

    def __init__(
        self,
        layers: Sequence[HiddenLayer],
        weights: np.ndarray,
        bias: Number,
        inputs: int,
    ) -> None:
        self.inputs = inputs
        self.layers: list[_IntegerLayer] = []
        scale = 1
        for layer in layers:
            self.layers.append(_integer_layer(layer, scale))
            scale = self.layers[-1].after
        weights, bias = rational(weights), Fraction(bias)
        self.scale = math.lcm(scale * _denominator(weights), bias.denominator)
        self.weights = _integers(weights, Fraction(self.scale, scale))
        self.bias = int(bias * self.scale)

    def value(self, point: Sequence[Fraction]) -> Fraction:
        """Value at a point."""
        coordinates, unit = homogeneous(point)
        return self.value_at(coordinates, unit)

    def value_at(self, coordinates: Sequence[int], unit: int) -> Fraction:
        """Value at the point `coordinates / unit`, the unit being positive."""
        outputs = self._outputs_at(coordinates, unit)[0]
        numerator = int(self.weights @ outputs) if len(outputs) else 0
        return Fraction(numerator + self.bias * unit, self.scale * unit)

    def pieces(self, point: Sequence[Fraction]) -> list[np.ndarray]:
        """Pieces that the units are on at a point; at a kink, the upper one."""
        return self._outputs_at(*homogeneous(point))[1]

    def last_outputs(self, coordinates: Sequence[int], unit: int) -> list[Fraction]:
        """Outputs of the last hidden layer at the point `coordinates / unit`."""
        scale = (self.layers[-1].after if self.layers else 1) * unit
        return [Fraction(h, scale) for h in self._outputs_at(coordinates, unit)[0]]

    def hidden_inputs(self, point: Sequence[Fraction], depth: int) -> list[Fraction]:
        """Inputs of the units of hidden layer `depth`, counted from 0, at a point."""
        coordinates, unit = homogeneous(point)
        outputs, _ = self._outputs_at(coordinates, unit, depth)
        layer = self.layers[depth]
        scale = layer.before * unit
        return [Fraction(y, scale) for y in _layer_inputs(layer, outputs, unit)]

    def _outputs_at(
        self, coordinates: Sequence[int], unit: int, depth: int | None = None
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """Outputs of a hidden layer, the last by default, and pieces up to there.

        The outputs are times their scale and `unit`.
        """
        outputs, pieces = np.array(coordinates, object), []
        for layer in self.layers[:depth]:
            inputs = _layer_inputs(layer, outputs, unit)
            piece = [
                sum(y >= kink * unit for kink in kinks)
                for y, kinks in zip(inputs, layer.kinks, strict=True)
            ]
            slopes, offsets = _of_pieces(layer, piece)
            outputs = slopes * inputs + offsets * unit
            pieces.append(np.array(piece, np.int8))
        return outputs, pieces

    def output_rows(self, depth: int, pieces: Pieces) -> np.ndarray:
        """Outputs of hidden layer `depth` as rows of the inputs, on given pieces.

        Depth 0 is the inputs themselves. The rows are over the layer's `after`.
        """
        rows = np.array(
            [[int(i == j) for j in range(self.inputs + 1)] for i in range(self.inputs)],
            object,
        )
        for layer, piece in zip(self.layers[:depth], pieces, strict=False):
            slopes, offsets = _of_pieces(layer, piece)
            rows = slopes[:, None] * _input_rows(layer, rows)
            rows[:, -1] = rows[:, -1] + offsets
        return rows

    def input_rows(
        self, depth: int, before: np.ndarray, units: Sequence[int]
    ) -> list[list[int]]:
        """Inputs of some units of layer `depth`, given the rows of the layer before."""
        return _input_rows(self.layers[depth], before, list(units)).tolist()

    def gradient(self, pieces: Pieces) -> tuple[Fraction, ...]:
        """Gradient on the region where the units are on these pieces."""
        sensitivity, scale = self.weights, self.scale
        for layer, piece in zip(reversed(self.layers), reversed(pieces), strict=True):
            slopes = _of_pieces(layer, piece)[0]
            sensitivity = (sensitivity * slopes) @ layer.weights
        # The product of all integer factors stands over the output's denominator.
        return tuple(Fraction(int(g), scale) for g in sensitivity)


def homogeneous(point: Sequence[Fraction]) -> tuple[list[int], int]:
    """A point as integers over one positive integer."""
    unit = math.lcm(*(x.denominator for x in point))
    return [int(x * unit) for x in point], unit


def _layer_inputs(layer: _IntegerLayer, outputs: np.ndarray, unit: int) -> np.ndarray:
    """Inputs of a layer's units, from the outputs before it."""
    return layer.weights @ outputs + layer.biases * unit


def _input_rows(
    layer: _IntegerLayer, before: np.ndarray, units: Any = slice(None)
) -> np.ndarray:
    """Rows of a layer's inputs, from the rows of the outputs before it."""
    rows = layer.weights[units] @ before
    rows[:, -1] = rows[:, -1] + layer.biases[units]
    return rows


def _of_pieces(layer: _IntegerLayer, piece: Any) -> tuple[np.ndarray, np.ndarray]:
    """Slopes and offsets of the units on their pieces."""
    slopes = [s[p] for s, p in zip(layer.slopes, piece, strict=True)]
    offsets = [o[p] for o, p in zip(layer.offsets, piece, strict=True)]
    return np.array(slopes, object), np.array(offsets, object)


def _integer_layer(layer: HiddenLayer, scale: int) -> _IntegerLayer:
    """The layer over common denominators, its inputs being over `scale`."""
    weights, biases = rational(layer.weights), rational(layer.biases)
    kinks = [[Fraction(t) for t in unit.kinks] for unit in layer.units]
    slopes = [[Fraction(s) for s in unit.slopes] for unit in layer.units]
    before = math.lcm(
        scale * _denominator(weights),
        _denominator(biases),
        *(t.denominator for row in kinks for t in row),
    )
    steep = math.lcm(*(s.denominator for row in slopes for s in row))
    after = before * steep
    return _IntegerLayer(
        weights=_integers(weights, Fraction(before, scale)),
        biases=_integers(biases, Fraction(before)),
        kinks=[[int(t * before) for t in row] for row in kinks],
        slopes=[[int(s * steep) for s in row] for row in slopes],
        offsets=[[int(o * after) for o in unit.offsets] for unit in layer.units],
        before=before,
        after=after,
    )


def _denominator(values: np.ndarray) -> int:
    """Least common denominator of an array of rationals."""
    return math.lcm(*(x.denominator for x in values.ravel()))


def _integers(values: np.ndarray, scale: Fraction) -> np.ndarray:
    """Rationals times a scale that makes integers of them."""
    numbers = [int(x * scale) for x in values.ravel()]
    return np.array(numbers, object).reshape(values.shape)

r"""Layered networks of piecewise-linear hidden units, whoever trained them.

$$
h_0 = x, \qquad h_l = \varphi(W_l h_{l-1} + b_l), \qquad f(x) = v \cdot h_L + c .
$$

Weights are read as the rational numbers that they are: the function meant is the one of
real arithmetic, from which an evaluation in floating point differs by rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from relu_options.payoffs import Payoff
from relu_options.payoffs.numbers import Number, as_floats, nearest_float
from relu_options.verification.exact import ExactNetwork
from relu_options.verification.units import HiddenLayer, rational


@dataclass(frozen=True, eq=False, repr=False)
class LayeredNetwork:
    """A network of one output, with any number of hidden layers.

    Weights are floats, or rationals where `simplify` has added some up.

    Attributes:
        layers: Hidden layers, in order.
        weights: Output weights, of shape `(n,)`, `n` units being in the last layer.
        bias: Added to the output.
        inputs: Their number.

    Examples:
        >>> from relu_options.verification.network_reader import layered
        >>> network = layered([([[1.0, 0.0], [1.0, -1.0]], [-1.0, 0.0]),
        ...                    ([[1.0, 0.5]], [0.25])])
        >>> network
        LayeredNetwork(2-2-1, relu)
        >>> network(np.array([[2.0, 1.0], [0.5, 1.0]]))
        array([1.75, 0.25])
        >>> print(network.exact([2, 1]))
        7/4
    """

    layers: tuple[HiddenLayer, ...]
    weights: np.ndarray
    bias: Number
    inputs: int

    def __call__(self, x: ArrayLike) -> np.ndarray:
        """Value at points `(..., inputs)`; of any shape where there is one input."""
        x = np.asarray(x, float)
        if self.inputs == 1 and x.shape[-1:] != (1,):
            x = x[..., None]
        for layer in self.layers:
            x = layer(x)
        return x @ as_floats(self.weights) + nearest_float(self.bias)

    def exact(self, point: Sequence[Number]) -> Fraction:
        """Value at one point, in rational arithmetic."""
        return self.in_integers.value([Fraction(x) for x in point])

    @cached_property
    def in_integers(self) -> ExactNetwork:
        """The network over common denominators."""
        return ExactNetwork(self.layers, self.weights, self.bias, self.inputs)

    def to_payoff(self) -> Payoff:
        """A network of one input and one hidden layer as a function of that input.

        Raises:
            ValueError: If it has more of either.
        """
        if self.inputs != 1 or len(self.layers) > 1:
            raise ValueError(
                f"a payoff has one input and one hidden layer; {self!r} has more"
            )
        cash, slope = Fraction(self.bias), Fraction(0)
        strikes, weights = [], []
        if not self.layers:
            slope = Fraction(self.weights[0])
        for layer in self.layers:
            for (a,), b, unit, weight in zip(
                rational(layer.weights),
                rational(layer.biases),
                layer.units,
                rational(self.weights),
                strict=True,
            ):
                left = 0 if a >= 0 else len(unit.kinks)  # the piece at low inputs
                if a == 0:
                    left = sum(b >= kink for kink in unit.kinks)
                first = Fraction(unit.slopes[left])
                cash += weight * (first * b + unit.offsets[left])
                slope += weight * first * a
                for place, kink in enumerate(unit.kinks if a else ()):
                    rise = Fraction(unit.slopes[place + 1]) - Fraction(
                        unit.slopes[place]
                    )
                    strikes.append((Fraction(kink) - b) / a)
                    weights.append(weight * rise * abs(a))
        return Payoff(cash, slope, np.array(strikes, object), np.array(weights, object))

    @property
    def widths(self) -> tuple[int, ...]:
        """Number of units in each hidden layer."""
        return tuple(len(layer) for layer in self.layers)

    @property
    def number_of_kinks(self) -> int:
        """Kinks of all hidden units: the strikes, in a network of one input."""
        return sum(len(unit.kinks) for layer in self.layers for unit in layer.units)

    def __repr__(self) -> str:
        names = {unit.name for layer in self.layers for unit in layer.units}
        sizes = "-".join(str(n) for n in (self.inputs, *self.widths, 1))
        return f"LayeredNetwork({', '.join([sizes, *sorted(names)])})"


def in_floats(network: LayeredNetwork) -> LayeredNetwork:
    """The network with its rationals rounded to floats."""
    layers = tuple(
        replace(layer, weights=as_floats(layer.weights), biases=as_floats(layer.biases))
        for layer in network.layers
    )
    weights, bias = as_floats(network.weights), nearest_float(network.bias)
    return replace(network, layers=layers, weights=weights, bias=bias)

r"""Layered networks of piecewise-linear hidden units, whoever trained them.

$$
h_0 = x, \qquad h_l = \varphi(W_l h_{l-1} + b_l), \qquad f(x) = v \cdot h_L + c .
$$

Weights are read as the rational numbers that they are: the function meant is the one of
real arithmetic, from which an evaluation in floating point differs by rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from relu_options.networks import BachelierNetwork, PriceNetwork, ReLUNetwork
from relu_options.payoffs import Payoff
from relu_options.payoffs.numbers import (
    Number,
    as_floats,
    as_numbers,
    as_rationals,
    is_exact,
    nearest_float,
)

if TYPE_CHECKING:
    from relu_options.verification.exact import ExactNetwork

Arrays: TypeAlias = Sequence[tuple[ArrayLike, ArrayLike]]
"""Weights `(outputs, inputs)` and biases `(outputs,)` by layer, the last linear."""


@dataclass(frozen=True)
class HiddenUnit:
    """A continuous piecewise-linear function of one number that is 0 at 0.

    Attributes:
        name: For messages.
        kinks: Where the slope changes: increasing, none below zero.
        slopes: Left of the first kink, between them, and right of the last.

    Examples:
        >>> clipped = hidden_unit("clipped", width=2.0)
        >>> clipped.kinks, clipped.slopes, clipped(np.array([-1.0, 1.0, 3.0]))
        ((0.0, 2.0), (0.0, 1.0, 0.0), array([0., 1., 2.]))
    """

    name: str
    kinks: tuple[Number, ...]
    slopes: tuple[Number, ...]
    offsets: tuple[Fraction, ...] = field(init=False, repr=False)
    """Of each piece: there the function is its slope times the number, plus this."""

    def __post_init__(self) -> None:
        if any(t < 0 for t in self.kinks) or list(self.kinks) != sorted(
            set(self.kinks)
        ):
            raise ValueError(
                f"kinks of a hidden unit increase from zero or above, not {self.kinks}"
            )
        offsets = [Fraction(0)]
        for left, right, kink in zip(
            self.slopes, self.slopes[1:], self.kinks, strict=False
        ):
            offsets.append(
                offsets[-1] + (Fraction(left) - Fraction(right)) * Fraction(kink)
            )
        object.__setattr__(self, "offsets", tuple(offsets))

    def __call__(self, y: ArrayLike) -> np.ndarray:
        """Value at `y`, of any shape, in floating point."""
        y = np.asarray(y, float)
        result = float(self.slopes[0]) * y
        for kink, left, right in zip(
            self.kinks, self.slopes, self.slopes[1:], strict=False
        ):
            result = result + float(right - left) * np.maximum(y - float(kink), 0.0)
        return result

    @property
    def is_linear(self) -> bool:
        """Whether it has no kink."""
        return not self.kinks

    @property
    def is_homogeneous(self) -> bool:
        """Whether a positive factor can be drawn out of it."""
        return all(kink == 0 for kink in self.kinks)


LINEAR = HiddenUnit("linear", (), (1.0,))
RELU = HiddenUnit("relu", (0.0,), (0.0, 1.0))


def hidden_unit(name: str, *, alpha: float = 0.01, width: float = 1.0) -> HiddenUnit:
    """The hidden unit of a name.

    Args:
        name: "relu"; "leaky" or "leaky_relu"; "clipped" or "clipped_relu"; "linear".
        alpha: Slope of the leaky unit below zero, less than 1.
        width: Where the clipped unit ends to rise; positive.

    Returns:
        The unit.

    Raises:
        ValueError: If the unit is not one of these, such as tanh, which has no linear
            regions to enumerate, or its parameter is out of range.

    Examples:
        >>> hidden_unit("leaky", alpha=0.25).slopes
        (0.25, 1.0)
    """
    kind = str(name).removesuffix("_relu")
    if kind == "relu":
        return RELU
    if kind == "linear":
        return LINEAR
    if kind == "leaky":
        if not -np.inf < alpha < 1.0:
            raise ValueError(f"alpha of a leaky unit must be below 1, not {alpha}")
        return HiddenUnit("leaky", (0.0,), (float(alpha), 1.0))
    if kind == "clipped":
        if not 0.0 < width < np.inf:
            raise ValueError(f"width of a clipped unit must be positive, not {width}")
        return HiddenUnit("clipped", (0.0, float(width)), (0.0, 1.0, 0.0))
    raise ValueError(
        f"activation {name!r} is not one that can be verified exactly; these are "
        "'relu', 'leaky' and 'clipped' (smooth ones have no linear regions)"
    )


@dataclass(frozen=True, eq=False)
class HiddenLayer:
    r"""One layer, $h = \varphi(W x + b)$.

    Attributes:
        weights: `W`, of shape `(n, m)`: one row for each of its units.
        biases: `b`, of shape `(n,)`.
        units: Of each row.
    """

    weights: np.ndarray
    biases: np.ndarray
    units: tuple[HiddenUnit, ...]

    def __len__(self) -> int:
        """Number of units."""
        return len(self.units)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Outputs `(..., n)` at inputs `(..., m)`, in floating point."""
        y = x @ as_floats(self.weights).T + as_floats(self.biases)
        columns = [unit(y[..., k]) for k, unit in enumerate(self.units)]
        return np.stack(columns, axis=-1) if columns else y


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
        return self._in_integers.value([Fraction(x) for x in point])

    @cached_property
    def _in_integers(self) -> ExactNetwork:
        """The network over common denominators."""
        from relu_options.verification.exact import ExactNetwork

        return ExactNetwork(self)

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


def layered(
    network: Any,
    *,
    activation: str = "relu",
    alpha: float = 0.01,
    width: float = 1.0,
) -> LayeredNetwork:
    r"""Any network that can be verified, as layers; nothing is rounded.

    Args:
        network: A `ReLUNetwork`; a `PriceNetwork` or `BachelierNetwork` without
            bandwidths; a `Payoff`; a sequence of pairs `(W, b)`, the last of which is
            the linear output, with `W` of shape `(outputs, inputs)` as in PyTorch and
            ONNX (transpose those of `x @ W`); or a path to an ONNX file.
        activation: Of the hidden units of such a sequence: "relu", "leaky", "clipped".
        alpha: Slope of leaky units below zero.
        width: Where clipped units end to rise.

    Returns:
        The network.

    Raises:
        ValueError: If shapes do not fit, a weight is not finite, the network is smooth,
            or the activation cannot be verified.
        TypeError: If it is none of these.

    Examples:
        A price curve has its kinks in one layer.

        >>> import jax.numpy as jnp
        >>> curve = PriceNetwork(jnp.array([80.0, 120.0]), jnp.array([0.5, 0.5]),
        ...                      jnp.zeros(2))
        >>> layered(curve), layered(curve)(np.array([90.0, 100.0]))
        (LayeredNetwork(1-2-1, relu), array([15., 10.]))
    """
    if isinstance(network, LayeredNetwork):
        return network
    if isinstance(network, Payoff):
        return _one_layer(
            network.cash, network.slope, network.strikes, network.weights, 1.0
        )
    if isinstance(network, ReLUNetwork | BachelierNetwork):
        _require_sharp(network)
        return _one_layer(
            network.intercept, network.slope, network.kinks, network.weights, 1.0
        )
    if isinstance(network, PriceNetwork):
        _require_sharp(network)
        return _one_layer(0.0, 0.0, network.kinks, network.weights, -1.0)
    if isinstance(network, str | Path):
        from relu_options.verification.onnx_reader import read_onnx

        return read_onnx(network)
    if isinstance(network, Sequence):
        return _from_arrays(network, hidden_unit(activation, alpha=alpha, width=width))
    raise TypeError(
        f"cannot read layers of {type(network).__name__}; pass a ReLUNetwork, pairs "
        "(W, b) or an ONNX file (a price surface brings its own `certificate`)"
    )


def _require_sharp(network: Any) -> None:
    """Raise if a hidden unit has a bandwidth."""
    widths = np.asarray(getattr(network, "bandwidths", 0.0), float)
    if widths.any():
        raise ValueError(
            f"{type(network).__name__} has bandwidths up to {widths.max():.3g} and no "
            "linear regions; `relu_options.arbitrage.certify_network` proves it, or "
            "pass its `skeleton`"
        )


def _one_layer(
    intercept: Any, slope: Any, kinks: Any, weights: Any, direction: float
) -> LayeredNetwork:
    """Hinges in one input, and a linear unit if there is a slope."""
    kinks, weights = (as_numbers(np.asarray(a)) for a in (kinks, weights))
    if kinks.shape != weights.shape or kinks.ndim != 1:
        raise ValueError(
            f"kinks and weights are of one shape (n,), not {kinks.shape} and "
            f"{weights.shape}"
        )
    intercept, slope = _number(intercept), _number(slope)
    rows = np.full(len(kinks), direction)
    biases, units = -direction * kinks, [RELU] * len(kinks)
    if slope != 0:
        rows, biases = np.append(rows, 1.0), np.append(biases, 0.0)
        weights, units = np.append(weights, slope), [*units, LINEAR]
    layer = HiddenLayer(rows[:, None], biases, tuple(units))
    return _checked(LayeredNetwork((layer,), weights, intercept, 1))


def _number(value: Any) -> Number:
    """A scalar as it is if rational, else as a float."""
    return value if isinstance(value, Fraction) else float(value)


def _from_arrays(arrays: Sequence[Any], unit: HiddenUnit) -> LayeredNetwork:
    """The network of pairs `(W, b)`."""
    if not arrays:
        raise ValueError("a network needs at least its output layer, a pair (W, b)")
    layers, before = [], None
    for place, pair in enumerate(arrays):
        try:
            weights, biases = (as_numbers(np.asarray(a)) for a in pair)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"layer {place + 1} of {len(arrays)} is not a pair (W, b) of arrays "
                f"of numbers: {error}"
            ) from None
        weights = weights[None] if weights.ndim == 1 else weights
        biases = np.atleast_1d(biases)
        count = weights.shape[0]
        if weights.ndim != 2 or biases.shape != (count,) or not weights.size:
            raise ValueError(
                f"layer {place + 1} of {len(arrays)}: W of shape (outputs, inputs) "
                f"and b of shape (outputs,) are needed, not {weights.shape} and "
                f"{biases.shape}; transpose weights that multiply as x @ W"
            )
        if before not in (None, weights.shape[1]):
            raise ValueError(
                f"layer {place + 1} of {len(arrays)} takes {weights.shape[1]} inputs, "
                f"but the layer before has {before} outputs; transpose weights that "
                "multiply as x @ W"
            )
        before = count
        layers.append(HiddenLayer(weights, biases, (unit,) * count))
    output = layers.pop()
    if len(output) != 1:
        raise ValueError(f"a price is one output, not {len(output)}; pass one row")
    inputs = (layers[0] if layers else output).weights.shape[1]
    return _checked(
        LayeredNetwork(
            tuple(layers), output.weights[0], _number(output.biases[0]), inputs
        )
    )


def _checked(network: LayeredNetwork) -> LayeredNetwork:
    """The network, if all its numbers are finite."""
    places = [
        (f"{name} of hidden layer {place + 1}", values)
        for place, layer in enumerate(network.layers)
        for name, values in (("weights", layer.weights), ("biases", layer.biases))
    ]
    places += [
        ("output weights", network.weights),
        ("output bias", np.array([network.bias])),
    ]
    for name, values in places:
        if is_exact(values):
            continue
        bad = np.argwhere(~np.isfinite(values))
        if len(bad):
            first = tuple(bad[0].tolist())
            raise ValueError(
                f"{name} are not finite in {len(bad)} of {values.size} places, first "
                f"{values[first]} at {first}; nothing can be proved of such a network"
            )
    return network


def rational(array: np.ndarray) -> np.ndarray:
    """Each number as a `Fraction`."""
    return array if is_exact(array) else as_rationals(array)


def in_floats(network: LayeredNetwork) -> LayeredNetwork:
    """The network with its rationals rounded to floats."""
    layers = tuple(
        replace(layer, weights=as_floats(layer.weights), biases=as_floats(layer.biases))
        for layer in network.layers
    )
    weights, bias = as_floats(network.weights), nearest_float(network.bias)
    return replace(network, layers=layers, weights=weights, bias=bias)

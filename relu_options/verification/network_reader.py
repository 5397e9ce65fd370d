"""Networks from arrays, from this package, and from ONNX files."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from relu_options.networks import BachelierNetwork, PriceNetwork, ReLUNetwork
from relu_options.payoffs import Payoff
from relu_options.payoffs.numbers import Number, as_numbers, is_exact
from relu_options.verification.layers import LayeredNetwork
from relu_options.verification.units import (
    LINEAR,
    RELU,
    HiddenLayer,
    HiddenUnit,
    hidden_unit,
    rational,
)

Arrays: TypeAlias = Sequence[tuple[ArrayLike, ArrayLike]]
"""Weights `(outputs, inputs)` and biases `(outputs,)` by layer, the last linear."""

_PASSED = {"Identity", "Flatten", "Cast", "Dropout", "Squeeze", "Reshape"}


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


def read_onnx(model: Any) -> LayeredNetwork:
    """The network of an ONNX file, which needs the package `onnx`.

    Read are chains of `Gemm`, `MatMul`, `Add`, `Sub`, `Mul` and `Div` by constants,
    `Relu`, `LeakyRelu` and `Clip` from zero, as PyTorch exports them. Weights keep
    every bit: the network is the one of real arithmetic with these weights.

    Args:
        model: A path, or a model that is loaded.

    Returns:
        The network.

    Raises:
        ImportError: If the package `onnx` is not installed.
        ValueError: If the graph is not such a chain; the message names the node.

    Examples:
        >>> read_onnx("prices.onnx")  # doctest: +SKIP
        LayeredNetwork(2-32-32-1, relu)
    """
    try:
        onnx = import_module("onnx")
        numpy_helper = import_module("onnx.numpy_helper")
    except ImportError as error:
        raise ImportError(
            "reading ONNX files needs the package onnx: pip install relu_options[onnx]"
        ) from error
    if isinstance(model, str | Path):
        model = onnx.load(str(model))
    graph = model.graph
    constants = {c.name: numpy_helper.to_array(c) for c in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            value = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            constants[node.output[0]] = numpy_helper.to_array(value["value"])
    inputs = [x for x in graph.input if x.name not in constants]
    if len(inputs) != 1:
        raise ValueError(f"an ONNX network of one input is needed, not {len(inputs)}")
    chain = _Chain(inputs[0].name)
    for node in graph.node:
        if node.op_type == "Constant":
            continue
        settings = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        chain.follow(node, settings, constants)
    return chain.network()


class _Chain:
    """The layers read so far: the last affine map waits for its activation."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.layers: list[HiddenLayer] = []
        self.weights: np.ndarray | None = None
        self.biases: np.ndarray | None = None

    def follow(self, node: Any, settings: dict, constants: dict) -> None:
        """Read one node."""
        kind, given = node.op_type, self._constants_of(node, constants)
        if kind == "Gemm":
            self._gemm(given, settings)
        elif kind == "MatMul":
            if node.input[0] != self.name:
                raise ValueError(
                    f"ONNX node {node.name!r}: weights must be on the right"
                )
            self._affine(given[0].T, np.zeros(given[0].shape[1]))
        elif kind in ("Add", "Sub"):
            sign = -1.0 if kind == "Sub" else 1.0
            self._add(sign * given[0].ravel(), node, kind == "Sub")
        elif kind in ("Mul", "Div"):
            self._scale(given[0].ravel(), node, kind == "Div")
        elif kind == "Relu":
            self._activate(RELU)
        elif kind == "LeakyRelu":
            self._activate(hidden_unit("leaky", alpha=settings.get("alpha", 0.01)))
        elif kind == "Clip":
            self._clip(node, settings, constants)
        elif kind not in _PASSED:
            raise ValueError(
                f"ONNX node {node.name or kind!r} ({kind}) is not piecewise linear, or "
                "not one that can be read: affine maps, Relu, LeakyRelu and Clip are"
            )
        self.name = node.output[0]

    def _constants_of(self, node: Any, constants: dict) -> list[np.ndarray]:
        """The inputs of a node but for the chain's own."""
        others = [name for name in node.input if name and name != self.name]
        once = list(node.input).count(self.name) == 1
        if not once or any(name not in constants for name in others):
            raise ValueError(
                f"ONNX node {node.name or node.op_type!r} ({node.op_type}) joins "
                "several branches; only chains of layers can be verified"
            )
        return [
            np.asarray(constants[name], float)
            for name in node.input
            if name in constants
        ]

    def network(self) -> LayeredNetwork:
        """The network, after its last affine map."""
        if self.weights is None or self.biases is None or len(self.weights) != 1:
            raise ValueError("an ONNX network must end in an affine map to one output")
        inputs = (self.layers[0].weights if self.layers else self.weights).shape[1]
        bias = self.biases[0]
        bias = bias if isinstance(bias, Fraction) else float(bias)
        return layered(
            LayeredNetwork(tuple(self.layers), self.weights[0], bias, inputs)
        )

    def _gemm(self, given: list[np.ndarray], settings: dict) -> None:
        if settings.get("transA", 0):
            raise ValueError("an ONNX Gemm node with transA cannot be read")
        weights = given[0] if settings.get("transB", 0) else given[0].T
        biases = given[1].ravel() if len(given) > 1 else np.zeros(len(weights))
        alpha, beta = settings.get("alpha", 1.0), settings.get("beta", 1.0)
        if (alpha, beta) != (1.0, 1.0):
            weights = rational(weights) * Fraction(alpha)
            biases = rational(biases) * Fraction(beta)
        self._affine(weights, np.broadcast_to(biases, (len(weights),)))

    def _affine(self, weights: np.ndarray, biases: np.ndarray) -> None:
        """A new map; one that waits becomes a layer of linear units."""
        if self.weights is not None:
            self._activate(LINEAR)
        self.weights, self.biases = weights, biases

    def _add(self, shift: np.ndarray, node: Any, subtracted: bool) -> None:
        if subtracted and node.input[0] != self.name:
            raise ValueError(f"ONNX node {node.name!r}: constant minus layer")
        if self.weights is None or self.biases is None:
            self._affine(np.eye(len(shift)), np.zeros(len(shift)))
        if self.biases is not None:
            total = rational(self.biases) + rational(
                np.broadcast_to(shift, self.biases.shape)
            )
            self.biases = total if self.biases.any() else total.astype(float)

    def _scale(self, factor: np.ndarray, node: Any, divided: bool) -> None:
        if divided and node.input[0] != self.name:
            raise ValueError(f"ONNX node {node.name!r}: constant over layer")
        if divided and not factor.all():
            raise ValueError(f"ONNX node {node.name!r} divides by zero")
        exact = rational(factor)
        exact = 1 / exact if divided else exact
        if self.weights is None or self.biases is None:
            self._affine(np.eye(len(factor)), np.zeros(len(factor)))
        if self.weights is not None and self.biases is not None:
            self.weights = rational(self.weights) * exact[:, None]
            self.biases = rational(self.biases) * exact

    def _clip(self, node: Any, settings: dict, constants: dict) -> None:
        ends = [
            float(constants[name]) if name else None for name in list(node.input)[1:]
        ]
        ends += [None] * (2 - len(ends))
        low, high = settings.get("min", ends[0]), settings.get("max", ends[1])
        if low != 0.0:
            raise ValueError(f"an ONNX Clip from 0 can be read, not from {low}")
        if high is None or high == np.inf:
            self._activate(RELU)
        else:
            self._activate(hidden_unit("clipped", width=high))

    def _activate(self, unit: HiddenUnit) -> None:
        """The waiting map becomes a hidden layer."""
        if self.weights is None or self.biases is None:
            raise ValueError("an ONNX network must begin with an affine map")
        units = (unit,) * len(self.weights)
        self.layers.append(HiddenLayer(self.weights, self.biases, units))
        self.weights = self.biases = None

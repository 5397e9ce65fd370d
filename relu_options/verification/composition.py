"""Networks made of networks, without rounding: differences, fixed inputs, levels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

import numpy as np

from relu_options.payoffs.numbers import Number
from relu_options.verification.layers import LayeredNetwork
from relu_options.verification.units import LINEAR, RELU, HiddenLayer, rational


def fix_inputs(network: LayeredNetwork, values: Mapping[int, Number]) -> LayeredNetwork:
    """The network as a function of its other inputs.

    Args:
        network: Any.
        values: Of the inputs to fix, by position.

    Returns:
        A network of fewer inputs.

    Examples:
        >>> from relu_options.verification.network_reader import layered
        >>> plane = layered([([[1.0, 2.0]], [0.0]), ([[1.0]], [0.0])])
        >>> print(fix_inputs(plane, {1: 0.25}).exact([Fraction(1, 2)]))
        1
    """
    kept = [i for i in range(network.inputs) if i not in values]
    fixed = np.array([Fraction(values[i]) for i in sorted(values)], object)
    if not network.layers:
        weights = rational(network.weights)
        bias = Fraction(network.bias) + weights[sorted(values)] @ fixed
        return LayeredNetwork((), weights[kept], bias, len(kept))
    first, *rest = network.layers
    weights = rational(first.weights)
    biases = rational(first.biases) + weights[:, sorted(values)] @ fixed
    layer = replace(first, weights=weights[:, kept], biases=biases)
    return replace(network, layers=(layer, *rest), inputs=len(kept))


def difference(first: LayeredNetwork, second: LayeredNetwork) -> LayeredNetwork:
    """One network minus another, side by side.

    The shallower one is carried on by linear units. A network of fewer inputs is a
    function of the first ones of the other.

    Examples:
        >>> from relu_options.verification.network_reader import layered
        >>> call = layered([([[1.0]], [-1.0]), ([[1.0]], [0.0])])
        >>> spread = difference(call, layered([([[1.0]], [-2.0]), ([[1.0]], [0.0])]))
        >>> spread(np.array([0.0, 1.5, 4.0]))
        array([0. , 0.5, 1. ])
    """
    inputs = max(first.inputs, second.inputs)
    depth = max(len(first.layers), len(second.layers), 1)
    one, two = (_stretched(network, inputs, depth) for network in (first, second))
    layers = []
    for place, (a, b) in enumerate(zip(one.layers, two.layers, strict=True)):
        upper, lower = rational(a.weights), rational(b.weights)
        if place:
            zero = Fraction(0)
            right = np.full((len(a), lower.shape[1]), zero)
            left = np.full((len(b), upper.shape[1]), zero)
            upper, lower = np.hstack([upper, right]), np.hstack([left, lower])
        layers.append(
            HiddenLayer(
                np.vstack([upper, lower]),
                np.append(rational(a.biases), rational(b.biases)),
                a.units + b.units,
            )
        )
    return LayeredNetwork(
        tuple(layers),
        np.append(rational(one.weights), -rational(two.weights)),
        Fraction(one.bias) - Fraction(two.bias),
        inputs,
    )


def with_level(
    network: LayeredNetwork, levels: tuple[Fraction, ...], signs: tuple[int, ...]
) -> LayeredNetwork:
    """The network with one more layer, whose units have their kinks at given levels.

    Unit `i` is above its kink where `signs[i] * (value - levels[i]) > 0`.
    """
    weights = rational(network.weights)
    last = HiddenLayer(
        np.array([sign * weights for sign in signs]),
        np.array(
            [
                sign * (Fraction(network.bias) - level)
                for sign, level in zip(signs, levels, strict=True)
            ],
            object,
        ),
        (RELU,) * len(signs),
    )
    return replace(
        network,
        layers=(*network.layers, last),
        weights=np.full(len(signs), Fraction(1)),
        bias=Fraction(0),
    )


def with_kinks(
    network: LayeredNetwork, rows: np.ndarray, biases: np.ndarray
) -> LayeredNetwork:
    """The same function, with more kinks where `rows @ x + biases` is zero."""
    first, *rest = network.layers
    layer = HiddenLayer(
        np.vstack([rational(first.weights), rows]),
        np.append(rational(first.biases), biases),
        first.units + (RELU,) * len(rows),
    )
    unread = np.full((1, len(rows)), Fraction(0))
    if not rest:
        weights = np.append(rational(network.weights), unread[0])
        return replace(network, layers=(layer,), weights=weights)
    second = rest[0]
    wider = np.hstack(
        [rational(second.weights), np.repeat(unread, len(second), axis=0)]
    )
    layers = (layer, replace(second, weights=wider), *rest[1:])
    return replace(network, layers=layers)


def _stretched(network: LayeredNetwork, inputs: int, depth: int) -> LayeredNetwork:
    """The network with more inputs, which it ignores, and linear layers at its end."""
    layers = list(network.layers)
    weights, bias = rational(network.weights), network.bias
    while len(layers) < depth:
        biases = np.array([Fraction(bias)], object)
        layers.append(HiddenLayer(weights[None], biases, (LINEAR,)))
        weights, bias = np.array([Fraction(1)], object), Fraction(0)
    first = layers[0]
    ignored = np.full((len(first), inputs - network.inputs), Fraction(0))
    layers[0] = replace(first, weights=np.hstack([rational(first.weights), ignored]))
    return LayeredNetwork(tuple(layers), weights, bias, inputs)

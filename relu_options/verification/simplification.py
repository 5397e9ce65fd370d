"""The same function with fewer kinks, without rounding."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np

from relu_options.errors import VerificationError
from relu_options.payoffs.numbers import as_floats, is_exact, nearest_float
from relu_options.verification.bounds import fits_floats, ranges_on
from relu_options.verification.domain import Domain, DomainLike, domain_of
from relu_options.verification.layers import LayeredNetwork
from relu_options.verification.network_reader import layered
from relu_options.verification.one_input import enumerate_segments
from relu_options.verification.regions import OutOfTime, enumerate_regions
from relu_options.verification.units import LINEAR, HiddenLayer, HiddenUnit, rational


def simplify(
    network: Any,
    domain: DomainLike,
    *,
    activation: str = "relu",
    alpha: float = 0.01,
    width: float = 1.0,
    time_limit: float = 60.0,
) -> LayeredNetwork:
    r"""The same function on a domain, with fewer units and kinks.

    * A unit that is on one piece throughout the domain has no kink there: a dead one
      becomes a constant, one that is always on becomes linear. That is proved by the
      linear regions, for one and two inputs, and by affine arithmetic for more.
    * Units of one layer whose kinks coincide become one. Those of opposite direction
      too, since $\max(-y, 0) = \max(y, 0) - y$.
    * Linear units of a layer are added up to as few as the next layer can tell apart.
    * Units that nothing reads are dropped.

    Weights that are sums or quotients are rational numbers, so that the result is equal
    to the network exactly: `LayeredNetwork.exact` of both agree at every point.

    Args:
        network: See `relu_options.verification.layered`.
        domain: A range for each input.
        activation: See `relu_options.verification.layered`.
        alpha: Likewise.
        width: Likewise.
        time_limit: Seconds.

    Returns:
        The smaller network; equal to the given one on the domain, though perhaps not
        outside.

    Raises:
        VerificationError: If the time was too short to find the regions.

    Examples:
        One kink is outside the domain, and two coincide.

        >>> network = [([[1.0], [1.0], [-2.0]], [-90.0, -500.0, 180.0]),
        ...            ([[1.0, 1.0, 0.5]], [0.0])]
        >>> simple = simplify(network, {"strike": (50.0, 150.0)})
        >>> simple.number_of_kinks, simple.widths
        (1, (2,))
        >>> simple.to_payoff()
        Payoff(cash 90, -1 underlying, 2 calls 90)
    """
    network = layered(network, activation=activation, alpha=alpha, width=width)
    box = domain_of(domain, network.inputs)
    if not network.layers:
        return network
    try:
        used = _pieces_used(network, box, time.monotonic() + time_limit)
    except OutOfTime as late:
        raise VerificationError(
            f"more than {late.regions:,} linear regions in {time_limit:g} s; raise "
            "`time_limit` or narrow the domain"
        ) from None
    layers: list[HiddenLayer] = []
    reads = [rational(layer.weights) for layer in network.layers[1:]]
    reads.append(rational(network.weights)[None])
    adds = [rational(layer.biases) for layer in network.layers[1:]]
    adds.append(np.array([Fraction(network.bias)], object))
    rows = rational(network.layers[0].weights)
    biases = rational(network.layers[0].biases)
    for layer, pieces, read, add in zip(network.layers, used, reads, adds, strict=True):
        part = _Part(rows, biases, list(layer.units), read, add)
        part = _without_steady_units(part, pieces)
        part = _without_coincident_kinks(part)
        part = _with_few_linear_units(part)
        layers.append(HiddenLayer(part.rows, part.biases, tuple(part.units)))
        rows, biases = part.read, part.add
    return _plain(_read_only(layers, rows[0], biases[0], network.inputs))


@dataclass(frozen=True, eq=False)
class _Part:
    """A layer, and what the next one reads of it: all in rationals.

    The next layer's inputs are `read @ units(rows @ x + biases) + add`.
    """

    rows: np.ndarray
    biases: np.ndarray
    units: list[HiddenUnit]
    read: np.ndarray
    add: np.ndarray

    def only(self, kept: list[int]) -> _Part:
        """The part with some of its units."""
        return replace(
            self,
            rows=self.rows[kept],
            biases=self.biases[kept],
            units=[self.units[k] for k in kept],
            read=self.read[:, kept],
        )


def _pieces_used(
    network: LayeredNetwork, domain: Domain, deadline: float
) -> list[list[tuple[int, int]]]:
    """Of each unit the first and the last of its pieces that occur on the domain."""
    if network.inputs == 1:
        exact = network.in_integers
        points = enumerate_segments(network, domain, deadline).points
        middles = [exact.pieces([(x + y) / 2]) for x, y in pairwise(points)]
        occurring = [np.array(pieces) for pieces in zip(*middles, strict=True)]
    elif network.inputs == 2:
        occurring = enumerate_regions(network, domain, deadline).pieces
    else:
        box = np.array(domain.low), np.array(domain.high)
        if not fits_floats(network, *box):
            return [
                [(0, len(unit.kinks)) for unit in layer.units]
                for layer in network.layers
            ]
        ranges = ranges_on(network, *box)
        return [[(on.first, on.last) for on in units] for units in ranges.units]
    return [
        list(zip(p.min(axis=0).tolist(), p.max(axis=0).tolist(), strict=True))
        for p in occurring
    ]


def _without_steady_units(part: _Part, pieces: list[tuple[int, int]]) -> _Part:
    """Units on one piece as constants and linear units; unused kinks dropped."""
    units, read, add = list(part.units), part.read.copy(), part.add.copy()
    kept = []
    for k, (unit, (first, last)) in enumerate(zip(units, pieces, strict=True)):
        offset = unit.offsets[first]
        if first < last:
            if offset == 0:
                units[k] = HiddenUnit(
                    unit.name, unit.kinks[first:last], unit.slopes[first : last + 1]
                )
            kept.append(k)
            continue
        slope = Fraction(unit.slopes[first])
        add = add + read[:, k] * offset
        if slope != 0:
            units[k] = LINEAR
            read[:, k] = read[:, k] * slope
            kept.append(k)
    return replace(part, units=units, read=read, add=add).only(kept)


def _without_coincident_kinks(part: _Part) -> _Part:
    """Units whose inputs are multiples of each other as one, if that is exact."""
    read, first = part.read.copy(), {}
    kept, linear = [], []
    for k, unit in enumerate(part.units):
        numbers = [*part.rows[k], part.biases[k]]
        lead = next((x for x in numbers if x != 0), None)
        if unit.is_linear or lead is None:
            kept.append(k)
            continue
        size = abs(lead) if unit.is_homogeneous else Fraction(1)
        direction = tuple(x / size for x in numbers)
        opposite = tuple(-x for x in direction)
        key = unit.kinks, unit.slopes
        if (key, direction) in first:
            base, base_size = first[key, direction]
            read[:, base] = read[:, base] + read[:, k] * (size / base_size)
        elif unit.is_homogeneous and (key, opposite) in first:
            base, base_size = first[key, opposite]
            factor = size / base_size
            read[:, base] = read[:, base] + read[:, k] * factor
            both = Fraction(unit.slopes[0]) + Fraction(unit.slopes[-1])
            linear.append((base, read[:, k] * (-both * factor)))
        else:
            first[key, direction] = k, size
            kept.append(k)
    smaller = replace(part, read=read).only(kept)
    if not linear:
        return smaller
    bases = [base for base, _ in linear]
    return replace(
        smaller,
        rows=np.vstack([smaller.rows, part.rows[bases]]),
        biases=np.append(smaller.biases, part.biases[bases]),
        units=[*smaller.units, *[LINEAR] * len(bases)],
        read=np.hstack([smaller.read, np.array([r for _, r in linear], object).T]),
    )


def _with_few_linear_units(part: _Part) -> _Part:
    """Linear units added up: no more than the layer has inputs or is read by."""
    linear = [k for k, unit in enumerate(part.units) if unit.is_linear]
    readers, inputs = len(part.read), part.rows.shape[1]
    if len(linear) <= min(readers, inputs):
        return part
    through = part.read[:, linear] @ part.rows[linear]
    add = part.add + part.read[:, linear] @ part.biases[linear]
    rest = part.only([k for k in range(len(part.units)) if k not in linear])
    if inputs <= readers:  # the inputs themselves are passed on
        rows, read = _identity(inputs), through
    else:  # what each reader reads of them
        rows, read = through, _identity(readers)
    return _Part(
        np.vstack([rest.rows, rows]),
        np.append(rest.biases, np.full(len(rows), Fraction(0))),
        [*rest.units, *[LINEAR] * len(rows)],
        np.hstack([rest.read, read]),
        add,
    )


def _identity(size: int) -> np.ndarray:
    """The identity matrix in rationals."""
    return np.eye(size, dtype=int).astype(object) * Fraction(1)


def _read_only(
    layers: list[HiddenLayer], weights: np.ndarray, bias: Fraction, inputs: int
) -> LayeredNetwork:
    """The network without the units that nothing reads."""
    kept_layers: list[HiddenLayer] = []
    read = weights[None]
    below = list(layers)
    while below:
        layer = below.pop()
        kept = [k for k in range(len(layer)) if (read[:, k] != 0).any()]
        if not kept:  # nothing below is read: a constant goes up
            level = np.full(len(read), Fraction(0))
            return _constant_below(kept_layers, level, weights, bias, inputs)
        read = read[:, kept]
        if kept_layers:
            above = kept_layers[0]
            kept_layers[0] = replace(above, weights=read)
        else:
            weights = read[0]
        layer = HiddenLayer(
            layer.weights[kept],
            layer.biases[kept],
            tuple(layer.units[k] for k in kept),
        )
        kept_layers.insert(0, layer)
        read = layer.weights
    return LayeredNetwork(tuple(kept_layers), weights, bias, inputs)


def _constant_below(
    layers: list[HiddenLayer],
    level: np.ndarray,
    weights: np.ndarray,
    bias: Fraction,
    inputs: int,
) -> LayeredNetwork:
    """A network whose lowest layer reads nothing: it is a constant."""
    for place, layer in enumerate(layers):
        total = layer.biases if place == 0 else layer.weights @ level + layer.biases
        level = np.array(
            [_at(unit, y) for unit, y in zip(layer.units, total, strict=True)], object
        )
    value = bias + (weights @ level if layers else Fraction(0))
    return LayeredNetwork((), np.full(inputs, Fraction(0)), value, inputs)


def _at(unit: HiddenUnit, y: Fraction) -> Fraction:
    """A unit at a rational number."""
    piece = sum(y >= kink for kink in unit.kinks)
    return Fraction(unit.slopes[piece]) * y + unit.offsets[piece]


def _plain(network: LayeredNetwork) -> LayeredNetwork:
    """Arrays as floats where all their numbers are."""
    layers = tuple(
        replace(layer, weights=_floats(layer.weights), biases=_floats(layer.biases))
        for layer in network.layers
    )
    bias = Fraction(network.bias)
    exactly = _is_float(bias)
    return replace(
        network,
        layers=layers,
        weights=_floats(network.weights),
        bias=nearest_float(bias) if exactly else bias,
    )


def _floats(array: np.ndarray) -> np.ndarray:
    """As floats if nothing is lost."""
    if is_exact(array) and all(_is_float(Fraction(x)) for x in array.ravel()):
        return as_floats(array)
    return array


def _is_float(number: Fraction) -> bool:
    """Whether a rational is a finite float."""
    value = nearest_float(number)
    return math.isfinite(value) and Fraction(value) == number

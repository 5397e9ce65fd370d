r"""Where training starts: strikes inside the data, and signals of one size.

A hidden unit $\max(w x + b, 0)$ of one input has its strike at $-b / w$. What becomes
of it depends on where that is, on data from `low` to `high`:

| start | of the strikes inside the data |
|---|---|
| He, zero bias | none of raw strikes, all being 0; of standardised, all in one place |
| uniform, raw strikes | 0.33 % in [50, 150]: $P(\lvert b / w \rvert > t) = 1/2t$ |
| uniform, standardised | 71 % in $\pm\sqrt{3}$ |
| quantiles of the data | all |

On a Black-Scholes call curve (spot 100, volatility 20 %, one year, strikes 50 to 150)
16 units trained for 2,000 steps have, in the median of five seeds, a root mean square
price error of 0.018 from quantiles (with the last layer regressed first), 0.096 from
uniform strikes and 0.091 from He's, both on standardised inputs, and 5.4 from uniform
ones on raw strikes: that of a straight line (`benchmarks/training.py`).

In a deep network the size of the signals matters too: if the inputs of a layer have
variance one, the mean square of its outputs is the *gain* of its units, and weights of
variance $1 / \sum_j g_j$ pass variance one on (He et al., 2015, for ReLU).

References:
    He, K., Zhang, X., Ren, S. and Sun, J. (2015). Delving deep into rectifiers.
    *ICCV*, 1026-1034.

    LeCun, Y., Bottou, L., Orr, G. and Müller, K.-R. (1998). Efficient BackProp.
    *Neural Networks: Tricks of the Trade*, 9-50.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from relu_options import activations
from relu_options.formulas import bachelier
from relu_options.networks import BachelierNetwork, PriceNetwork, ReLUNetwork

Layers = Sequence[tuple[ArrayLike, ArrayLike]]
"""Weights `(outputs, inputs)` and biases `(outputs,)` by layer, the last linear."""

NODES = 200  # of the quadrature, on each side of zero
FARTHEST = 12.0  # standard deviations at which it ends
SAME = 1e-9  # of the range of the data: strikes nearer to each other are one


def quantile_strikes(values: ArrayLike, n: int) -> np.ndarray:
    """Strikes at the quantiles `(j + 1/2) / n` of the data: each sees as many of them.

    Args:
        values: Where the data are, of any shape; not all equal.
        n: Number of strikes.

    Returns:
        The strikes, increasing, of shape `(n,)`.

    Raises:
        ValueError: If `n` is not positive, or values are not finite or all equal.

    Examples:
        >>> quantile_strikes(np.linspace(50.0, 150.0, 101), 4).tolist()
        [62.5, 87.5, 112.5, 137.5]
    """
    data = np.asarray(values, float).reshape(-1)
    _require_count(n)
    if not data.size or not np.isfinite(data).all() or np.ptp(data) == 0.0:
        raise ValueError(
            f"strikes at quantiles need finite data that differ, not {data[:3]} of "
            f"{data.size} values"
        )
    return np.quantile(data, (np.arange(n) + 0.5) / n)


def uniform_strikes(n: int, seed: int = 0) -> np.ndarray:
    r"""Strikes $-b / w$ of weights and biases drawn alike from one uniform law.

    It is the default of common frameworks for layers of one input. The ratio has
    $P(\lvert b / w \rvert > t) = 1 / 2t$ for $t \ge 1$: strikes are of the order of
    one, whatever the units of the data, and one in 300 is from 50 to 150.

    Args:
        n: Number of strikes.
        seed: Of the draw.

    Returns:
        The strikes, in the units of the inputs, of shape `(n,)`.

    Raises:
        ValueError: If `n` is not positive.

    Examples:
        >>> strikes = uniform_strikes(1_000_000)
        >>> print(f"{np.mean((strikes > 50.0) & (strikes < 150.0)):.1%}")
        0.3%
        >>> print(f"{np.mean(np.abs(strikes) < np.sqrt(3.0)):.0%}")
        71%
    """
    _require_count(n)
    weights, biases = np.random.default_rng(seed).uniform(-1.0, 1.0, (2, n))
    return -biases / weights


def he_strikes(n: int, seed: int = 0) -> np.ndarray:
    """Strikes of normal weights and zero biases: all at zero, whatever the seed.

    Args:
        n: Number of strikes.
        seed: Of the draw.

    Returns:
        The strikes, in the units of the inputs, of shape `(n,)`.

    Raises:
        ValueError: If `n` is not positive.

    Examples:
        >>> strike_coverage(he_strikes(16), 50.0, 150.0)
        StrikeCoverage(useful=0, merged=0, dead=0, always_on=16)
        >>> strike_coverage(he_strikes(16), -1.0, 1.0)  # standardised: one place
        StrikeCoverage(useful=1, merged=15, dead=0, always_on=0)
    """
    _require_count(n)
    weights = np.random.default_rng(seed).normal(0.0, np.sqrt(2.0), n)
    return np.zeros(n) / weights + 0.0


@dataclass(frozen=True)
class StrikeCoverage:
    """What the hidden units of a layer do on the data; each is counted once.

    Attributes:
        useful: Units with a hinge inside the domain, which no unit before them has.
        merged: Units whose hinge an earlier one has already.
        dead: Units that are zero on the domain: a ReLU there has no gradient.
        always_on: Units that are linear on the domain.

    Examples:
        >>> strike_coverage([40.0, 90.0, 90.0, 110.0, 200.0], 50.0, 150.0)
        StrikeCoverage(useful=2, merged=1, dead=1, always_on=1)
    """

    useful: int
    merged: int
    dead: int
    always_on: int

    @property
    def units(self) -> int:
        """Number of hidden units."""
        return self.useful + self.merged + self.dead + self.always_on


def strike_coverage(network: Any, low: ArrayLike, high: ArrayLike) -> StrikeCoverage:
    """Count the strikes inside the data, and those that do nothing there.

    Args:
        network: A payoff or price network; a price curve, whose strikes are then its
            kinks; strikes alone, of calls; or layers of `(W, b)`, or what has such
            `layers`, of which the first is looked at.
        low: Lower ends of the inputs of the data: one number, or one for each input.
        high: Upper ends, likewise.

    Returns:
        The counts.

    Raises:
        ValueError: If the domain is empty, or has another number of inputs than the
            network.

    Examples:
        Of two inputs, a hinge is a line.

        >>> layers = [(np.array([[1.0, 1.0], [2.0, 2.0], [1.0, 0.0]]),
        ...            np.array([-1.0, -2.0, -5.0])), (np.ones((1, 3)), np.zeros(1))]
        >>> strike_coverage(layers, [0.0, 0.0], [1.0, 1.0])
        StrikeCoverage(useful=1, merged=1, dead=1, always_on=0)
    """
    weights, biases = _first_layer(network)
    low, high = np.atleast_1d(np.asarray(low, float), np.asarray(high, float))
    if low.shape != high.shape or low.shape != weights.shape[1:]:
        raise ValueError(
            f"low and high must have {weights.shape[1]} numbers, one for each input, "
            f"not shapes {low.shape} and {high.shape}"
        )
    if not (low < high).all():
        raise ValueError(f"the domain is empty: from {low} to {high}")
    # On the unit box, where equal hinges are equal up to a factor.
    biases = biases + weights @ low
    weights = weights * (high - low)
    least = biases + np.minimum(weights, 0.0).sum(axis=1)
    most = biases + np.maximum(weights, 0.0).sum(axis=1)
    dead, always_on = most <= 0.0, (least >= 0.0) & (most > 0.0)
    crossing = ~dead & ~always_on
    hinges = np.column_stack([weights, biases])[crossing]
    hinges = hinges / np.linalg.norm(hinges[:, :-1], axis=1, keepdims=True)
    first = np.argmax(np.abs(hinges[:, :-1]), axis=1)[:, None]
    hinges = hinges * np.sign(np.take_along_axis(hinges, first, axis=1))
    near = np.abs(hinges[:, None] - hinges).max(axis=2) < SAME
    merged = int(np.tril(near, -1).any(axis=1).sum())
    return StrikeCoverage(
        useful=int(crossing.sum()) - merged,
        merged=merged,
        dead=int(dead.sum()),
        always_on=int(always_on.sum()),
    )


def gain(activation: str, *, backward: bool = False, **parameter: float) -> float:
    r"""Mean square of a unit's output, or of its slope, for a standard normal input.

    By quadrature on each side of zero, where there may be a kink. Forward it is $E
    \varphi(Z)^2$: 1/2 for ReLU, $1/3 + 1/(2 \pi \sqrt{3}) = 0.425221$ for GELU, and
    0.608998 for the Bachelier unit with a bandwidth of one; backward it is $E
    \varphi'(Z)^2$: 1/2, 0.455851 and 1/3.

    Args:
        activation: A name of `relu_options.activations`, of a unit with a normal input.
        backward: Whether the slope is meant.
        **parameter: Of the unit, as `alpha` of the leaky one.

    Returns:
        The gain.

    Raises:
        ValueError: If there is no such unit, or it has no values at negative spots.

    Examples:
        >>> for name in ("relu", "gelu", "bachelier"):
        ...     print(f"{gain(name):.6f} {gain(name, backward=True):.6f}")
        0.500000 0.500000
        0.425221 0.455851
        0.608998 0.333333
    """
    unit = activations.ACTIVATIONS.get(activation)
    if unit is None or activation == "black":
        known = sorted(set(activations.ACTIVATIONS) - {"black"})
        raise ValueError(f"activation must be one of {known}, not {activation!r}")
    nodes, masses = _half_normal()
    nodes, masses = np.concatenate([nodes, -nodes]), np.tile(masses, 2) / 2.0

    def output(x):
        return unit(x, 0.0, **parameter)

    values = jax.vmap(jax.grad(output))(nodes) if backward else output(nodes)
    return float(masses @ np.asarray(values) ** 2)


def variance_preserving(
    widths: Sequence[int], hidden: Sequence[str | Sequence[str]], seed: int = 0
) -> list[tuple[np.ndarray, np.ndarray]]:
    r"""Layers that pass signals of variance one on, whatever their hidden units.

    Weights are normal of variance $1 / \sum_j g_j$, the sum being over the inputs of
    the layer: $g = 1$ for the inputs of the network, which are to be standardised, and
    the `gain` of each hidden unit after that. Biases are zero.

    Args:
        widths: Numbers of inputs, of the units of each hidden layer, and of outputs.
        hidden: For each hidden layer the activation, or that of each of its units.
        seed: Of the draw.

    Returns:
        Weights `(outputs, inputs)` and biases `(outputs,)` of each layer.

    Raises:
        ValueError: If numbers of layers or units do not match.

    Examples:
        >>> mixed = ["relu"] * 150 + ["bachelier"] * 150
        >>> layers = variance_preserving([50, 300, 300], [mixed])
        >>> x = np.random.default_rng(1).normal(size=(2000, 50))
        >>> y = x @ layers[0][0].T
        >>> h = np.hstack([np.maximum(y[:, :150], 0.0),
        ...                activations.bachelier(y[:, 150:])])
        >>> print(f"{y.var():.1f} {np.mean((h @ layers[1][0].T) ** 2):.1f}")
        1.0 1.0
    """
    if len(hidden) != len(widths) - 2:
        raise ValueError(
            f"{len(widths)} widths have {max(len(widths) - 2, 0)} hidden layers, but "
            f"activations are given for {len(hidden)}"
        )
    rng = np.random.default_rng(seed)
    gains = np.ones(widths[0])
    layers = []
    for place, (inputs, outputs) in enumerate(pairwise(widths)):
        scale = 1.0 / np.sqrt(gains.sum())
        layers.append((scale * rng.normal(size=(outputs, inputs)), np.zeros(outputs)))
        if place == len(hidden):
            break
        units = hidden[place]
        if isinstance(units, str):
            units = [units] * outputs
        if len(units) != outputs:
            raise ValueError(
                f"hidden layer {place + 1} has {outputs} units, but {len(units)} "
                "activations"
            )
        each = {name: gain(name) for name in set(units)}
        gains = np.array([each[name] for name in units])
    return layers


def annealed(
    x: jax.Array, width: ArrayLike, progress: ArrayLike, *, until: float = 0.8
) -> jax.Array:
    r"""A hidden unit whose volatility falls to zero as training goes on.

    $\psi_h(x)$ with $h = \text{width} \cdot (1 - \text{progress} / \text{until})^+$: a
    Bachelier unit at first, and a ReLU from then on. A payoff beyond the data is flat
    and has no gradient; before expiry it has time value, and its strike feels where the
    data are.

    Measured on the call curve of this module, with 16 units that are all dead at first,
    median of five seeds: an error of 0.25 with 5 strikes back among the data, where
    leaky slopes from 0.01 to 0.3 end at 0.91 with 1 or 2 (at 0.37 at best, in another
    draw of the starts), and ReLU at 15.3 with none. From raw strikes it is 0.37 against
    5.4 for both. Where only half of the units are dead nothing is gained for certain:
    0.12 to 0.15 for all of them.

    Args:
        x: Inputs of the unit.
        width: Standard deviation at the first step, in the units of `x`.
        progress: Share of the steps taken.
        until: Share of the steps after which the unit is a ReLU.

    Returns:
        The outputs, of the shape of `x`.

    Examples:
        >>> print(annealed(jnp.array([-1.0, 0.0, 1.0]), 1.0, 0.0).round(4))
        [0.0833 0.3989 1.0833]
        >>> print(annealed(jnp.array([-1.0, 0.0, 1.0]), 1.0, 0.8))
        [0. 0. 1.]
    """
    bandwidth = jnp.asarray(width) * jnp.maximum(
        1.0 - jnp.asarray(progress) / until, 0.0
    )
    safe = jnp.where(bandwidth > 0.0, bandwidth, 1.0)
    smooth = bachelier.undiscounted_price(x, 0.0, safe, True)
    return jnp.where(bandwidth > 0.0, smooth, jax.nn.relu(x))


@cache
def _half_normal() -> tuple[np.ndarray, np.ndarray]:
    """Nodes and masses of the law of `|Z|`, by Gauss and Legendre."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    nodes = 0.5 * FARTHEST * (nodes + 1.0)
    density = np.sqrt(2.0 / np.pi) * np.exp(-0.5 * nodes**2)
    return nodes, 0.5 * FARTHEST * weights * density


def _first_layer(network: Any) -> tuple[np.ndarray, np.ndarray]:
    """Weights `(n, inputs)` and biases `(n,)` of the first hidden layer."""
    network = getattr(network, "network", network)
    if isinstance(network, PriceNetwork):
        kinks = np.asarray(network.kinks, float)
        return np.full((kinks.size, 1), -1.0), kinks
    if isinstance(network, ReLUNetwork | BachelierNetwork):
        network = network.kinks
    layers = getattr(network, "layers", network)
    if isinstance(layers, list | tuple) and layers and isinstance(layers[0], tuple):
        weights, biases = layers[0]
        return np.asarray(weights, float), np.asarray(biases, float)
    strikes = np.asarray(layers, float).reshape(-1)
    return np.ones((strikes.size, 1)), -strikes


def _require_count(n: int) -> None:
    if not isinstance(n, int | np.integer) or n < 1:
        raise ValueError(f"n must be a whole number from 1 on, not {n!r}")

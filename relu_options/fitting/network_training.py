r"""Layered networks without constraints, trained on prices: for comparison and proof.

$$
h_0 = x, \qquad h_l = \varphi(W_l h_{l-1} + b_l), \qquad f(x) = v \cdot h_L + c .
$$

Nothing keeps such a network free of arbitrage. With inputs strike over forward and
time, and undiscounted calls over the forward as targets, `relu_options.verification`
takes its layers as they are. The constrained network of strike and time is
`PriceSurface`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from relu_options import activations
from relu_options.errors import refuse
from relu_options.fitting.initialisation import (
    Layers,
    StrikeCoverage,
    annealed,
    strike_coverage,
    variance_preserving,
)
from relu_options.fitting.training import (
    RowLoss,
    TrainingHistory,
    TrainingOptions,
    squared_residual,
    train,
)

LEARNING_RATE = 0.01
SLOPE = 0.01  # of leaky units, below zero
STEPS = 2000
RIDGE = 1e-8  # of the regression of the last layer, per point
JITTER = 0.25  # of the distance of two shares, by which seeds move the quantiles
HIDDEN = ("relu", "leaky_relu", "clipped_relu", "gelu", "bachelier", "softplus")


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """A layered network and how it was trained.

    Attributes:
        layers: Weights `(outputs, inputs)` and biases `(outputs,)`, the last linear, in
            the units of the inputs and targets.
        activation: Of all hidden units.
        alpha: Slope of leaky units below zero.
        history: Of the training.

    Examples:
        >>> x = np.linspace(-1.0, 1.0, 41)
        >>> network = train_network(x, np.abs(x), widths=(4,),
        ...                         training=TrainingOptions(steps=300))
        >>> [weights.shape for weights, _ in network.layers]
        [(4, 1), (1, 4)]
        >>> network(x).shape
        (41,)
    """

    layers: tuple[tuple[np.ndarray, np.ndarray], ...] = field(repr=False)
    activation: str
    alpha: float
    history: TrainingHistory

    def __call__(self, inputs: ArrayLike) -> np.ndarray:
        """Values at inputs of shape `(..., d)`, or `(...)` of a single input."""
        x = np.asarray(inputs, float)
        d = self.layers[0][0].shape[1]
        if d == 1 and (x.ndim == 0 or x.shape[-1] != 1):
            x = x[..., None]
        if x.shape[-1] != d:
            raise ValueError(f"the network has {d} inputs, not {x.shape[-1]}")
        units = [_unit(self.activation, self.alpha)] * (len(self.layers) - 1)
        return np.asarray(_forward(self.layers, jnp.asarray(x), units))

    def coverage(self, low: ArrayLike, high: ArrayLike) -> StrikeCoverage:
        """What the units of the first layer do on a domain; see `strike_coverage`."""
        return strike_coverage(self.layers, low, high)

    def plot_history(self, ax: Any = None) -> Any:
        """Draw the losses by step; returns the Axes."""
        return self.history.plot(ax)


def train_network(
    inputs: ArrayLike,
    targets: ArrayLike,
    *,
    widths: Sequence[int] = (64,),
    positive_output: bool = False,
    activation: str = "relu",
    alpha: float = SLOPE,
    initial: Literal["quantile", "uniform", "raw", "he"] | Layers = "quantile",
    annealing: float = 0.0,
    weights: ArrayLike | None = None,
    training: TrainingOptions | None = None,
) -> TrainedNetwork:
    r"""Fit a layered network to values at points, by gradient.

    Args:
        inputs: Points, of shape `(m, d)`, or `(m,)` of one input. For prices: strike
            over forward first, time in years second.
        targets: Values, of shape `(m,)`: undiscounted calls over the forward.
        widths: Units of each hidden layer.
        positive_output: Whether the output weights are kept positive: with one hidden
            layer of convex units the network is then convex in all inputs together.
        activation: Of the hidden units: "relu", "leaky_relu", "clipped_relu", "gelu",
            "bachelier" or "softplus".
        alpha: Slope of leaky units below zero.
        initial: `"quantile"`: the hinges of the first layer have random directions and
            go through quantiles of the data, layers after it preserve the variance, and
            the last is regressed. `"uniform"`: weights and biases uniform up to one
            over the root of the number of inputs of their layer, on standardised
            inputs; `"raw"`: the same on the inputs as they are. `"he"`: variance
            preserved, zero biases. Or layers to start from.
        annealing: Standard deviation of the hidden units at the first step, in those of
            the data; it falls to zero (`initialisation.annealed`). ReLU only.
        weights: How much each point counts, of shape `(m,)`; by default alike.
        training: How to train; by default 2000 steps.

    Returns:
        The network.

    Raises:
        ValueError: If shapes differ, numbers are not finite, a width is not positive,
            or a name is not known.

    Examples:
        >>> strike, time = np.meshgrid(np.linspace(0.5, 1.5, 21), [0.25, 0.5, 1.0])
        >>> from relu_options import black_scholes
        >>> calls = black_scholes.price(spot=1.0, strike=strike, time_to_expiry=time,
        ...                             volatility=0.2)
        >>> points = np.stack([strike.ravel(), time.ravel()], axis=1)
        >>> network = train_network(points, calls.ravel(), widths=(16,),
        ...                         training=TrainingOptions(steps=500))
        >>> bool(np.sqrt(np.mean((network(points) - calls.ravel()) ** 2)) < 0.01)
        True
    """
    options = training or TrainingOptions(steps=STEPS)
    x, y, counts = _checked(inputs, targets, weights)
    widths = tuple(int(width) for width in widths)
    if not widths or min(widths) < 1:
        raise ValueError(f"widths must be positive numbers of units, not {widths}")
    _check_units(activation, alpha, annealing)
    row_loss = _row_loss(options)
    units = _Units.of(x, y, raw=isinstance(initial, str) and initial == "raw")
    z, target = units.inputs(x), units.targets(y)
    each = []
    for restart in range(options.restarts):
        seed = options.seed + 1000 * restart
        if isinstance(initial, str):
            layers = _initial_layers(initial, z, target, widths, activation, seed)
        else:
            layers = units.inside(_given(initial, x.shape[1], widths))
        if positive_output:
            last = np.log(np.abs(layers[-1][0]) + 1e-3)
            layers = [*layers[:-1], (last, layers[-1][1])]
        each.append(tuple(layers))
    starts = jax.tree.map(lambda *many: jnp.stack(many), *each)
    best, history = train(
        _model(activation, float(alpha), positive_output, annealing > 0.0),
        row_loss,
        starts,
        context=(float(annealing), z.std(axis=0)),
        rows={"inputs": z, "target": target},
        weight=counts,
        options=options,
        learning_rate=LEARNING_RATE,
        description="network",
    )
    layers = [(np.asarray(w), np.asarray(b)) for w, b in best]
    if positive_output:
        layers[-1] = np.exp(layers[-1][0]), layers[-1][1]
    return TrainedNetwork(tuple(units.outside(layers)), activation, alpha, history)


def _check_units(activation: str, alpha: float, annealing: float) -> None:
    """Raise if there are no such hidden units, or an argument is not of theirs."""
    if activation not in HIDDEN:
        raise ValueError(f"activation must be one of {HIDDEN}, not {activation!r}")
    if activation != "leaky_relu":
        refuse(
            f"it is the slope of leaky units, and {activation!r} has none; use "
            "activation='leaky_relu'",
            alpha=None if alpha == SLOPE else alpha,
        )
    if annealing < 0.0 or (annealing and activation != "relu"):
        raise ValueError(
            f"annealing must be a width >= 0 of 'relu' units, not {annealing!r} of "
            f"{activation!r}"
        )


def _row_loss(options: TrainingOptions) -> RowLoss:
    """What each row is charged, unless that is of price curves."""
    if options.weights != "auto" or (
        isinstance(options.loss, str) and options.loss != "auto"
    ):
        raise ValueError(
            "a layered network learns its weights from squared residuals or a loss of "
            f"(fitted, rows); weights={options.weights!r} and loss={options.loss!r} "
            "are for price curves"
        )
    return squared_residual if isinstance(options.loss, str) else options.loss


@dataclass(frozen=True)
class _Units:
    """Means and standard deviations of inputs and targets: what the network sees."""

    mean: np.ndarray
    scale: np.ndarray
    level: float
    size: float

    @staticmethod
    def of(x: np.ndarray, y: np.ndarray, *, raw: bool) -> _Units:
        scale = np.where(x.std(axis=0) > 0.0, x.std(axis=0), 1.0)
        mean = x.mean(axis=0)
        if raw:
            mean, scale = np.zeros_like(mean), np.ones_like(scale)
        return _Units(mean, scale, float(y.mean()), float(y.std()) or 1.0)

    def inputs(self, x: np.ndarray) -> np.ndarray:
        return (x - self.mean) / self.scale

    def targets(self, y: np.ndarray) -> np.ndarray:
        return (y - self.level) / self.size

    def outside(self, layers: Layers) -> list[tuple[np.ndarray, np.ndarray]]:
        """The same function of inputs and targets as they are."""
        result = [(np.asarray(w), np.asarray(b)) for w, b in layers]
        weights, biases = result[0]
        result[0] = (
            weights / self.scale,
            biases - weights @ (self.mean / self.scale),
        )
        weights, biases = result[-1]
        result[-1] = self.size * weights, self.size * biases + self.level
        return result

    def inside(self, layers: Layers) -> list[tuple[np.ndarray, np.ndarray]]:
        """The reverse of `outside`."""
        result = [(np.asarray(w), np.asarray(b)) for w, b in layers]
        weights, biases = result[0]
        result[0] = weights * self.scale, biases + weights @ self.mean
        weights, biases = result[-1]
        result[-1] = weights / self.size, (biases - self.level) / self.size
        return result


class _LayeredModel:
    """Values of the layers, as a function that is the same object every time."""

    def __init__(self, activation: str, alpha: float, positive: bool, annealing: bool):
        self.unit = _unit(activation, alpha)
        self.positive, self.annealing = positive, annealing

    def __call__(self, parameters, context, rows, weight, progress):
        """Values at the rows, of shape `(m,)`."""
        width, spread = context
        layers = list(parameters)
        if self.positive:
            layers[-1] = jnp.exp(layers[-1][0]), layers[-1][1]
        units = [self.unit] * (len(layers) - 1)
        if self.annealing:
            units = []
            for weights, _ in layers[:-1]:
                reach = width * jnp.sqrt(jnp.sum((weights * spread) ** 2, axis=1))
                units.append(_annealing(jax.lax.stop_gradient(reach), progress))
                spread = 1.0
        return _forward(layers, rows["inputs"], units)


_model = cache(_LayeredModel)


def _unit(activation: str, alpha: float):
    """The hidden unit as a function of one number."""
    formula = activations.ACTIVATIONS[activation]
    if activation == "leaky_relu":
        return lambda x: formula(x, alpha=alpha)
    return formula


def _annealing(width, progress):
    return lambda x: annealed(x, width, progress)


def _forward(layers, x, units):
    for (weights, biases), unit in zip(layers[:-1], units, strict=True):
        x = unit(x @ weights.T + biases)
    weights, biases = layers[-1]
    return (x @ weights.T + biases)[..., 0]


def _initial_layers(initial, z, target, widths, activation, seed):
    """Layers to start from, in the units that the network sees."""
    d = z.shape[1]
    rng = np.random.default_rng(seed)
    if initial in ("uniform", "raw"):
        layers = []
        for inputs, outputs in zip((d, *widths), (*widths, 1), strict=True):
            bound = 1.0 / np.sqrt(inputs)
            weights = rng.uniform(-bound, bound, (outputs, inputs))
            layers.append((weights, rng.uniform(-bound, bound, outputs)))
        return layers
    if initial not in ("quantile", "he"):
        raise ValueError(
            "initial must be 'quantile', 'uniform', 'raw', 'he' or layers, not "
            f"{initial!r}"
        )
    layers = variance_preserving((d, *widths, 1), [activation] * len(widths), seed)
    if initial == "he":
        return layers
    layers[0] = _quantile_layer(z, widths[0], rng)
    return [*layers[:-1], _regressed(layers, z, target, activation)]


def _quantile_layer(z, n, rng) -> tuple[np.ndarray, np.ndarray]:
    """Hinges through quantiles of the data.

    Of one input, units left of the middle face left and the others right, each seeing
    few of the others' data; the first is linear on all of it. Of several, directions
    are random.
    """
    shares = (np.arange(n) + 0.5 + rng.uniform(-JITTER, JITTER, n)) / n
    if z.shape[1] == 1:
        directions = np.where(np.arange(n) < n // 2, -1.0, 1.0)[:, None]
        directions[0], shares[0] = 1.0, 0.0
        strikes = directions[:, 0] * np.quantile(z[:, 0], shares)
        return directions, -strikes
    directions = rng.normal(size=(n, z.shape[1]))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    along = z @ directions.T
    pairs = zip(along.T, rng.permutation(shares), strict=True)
    return directions, -np.array([np.quantile(row, share) for row, share in pairs])


def _regressed(layers, z, target, activation) -> tuple[np.ndarray, np.ndarray]:
    """The last layer by linear regression on the hidden units before it."""
    unit = _unit(activation, 0.01)
    hidden = z
    for weights, biases in layers[:-1]:
        hidden = np.asarray(unit(hidden @ weights.T + biases))
    centre, level = hidden.mean(axis=0), target.mean()
    gram = (hidden - centre).T @ (hidden - centre) / len(z)
    moment = (hidden - centre).T @ (target - level) / len(z)
    weights = np.linalg.solve(gram + RIDGE * np.eye(len(gram)), moment)
    return weights[None], np.array([level - centre @ weights])


def _given(layers: Layers, d: int, widths: tuple[int, ...]):
    """Layers of the user, checked."""
    result = [(np.asarray(w, float), np.asarray(b, float)) for w, b in layers]
    shapes = [(*w.shape, *b.shape) for w, b in result]
    asked = list(zip((*widths, 1), (d, *widths), (*widths, 1), strict=True))
    if shapes != asked:
        raise ValueError(
            f"layers to start from have shapes {shapes} of (outputs, inputs, biases); "
            f"{d} inputs and widths {widths} ask for {asked}"
        )
    return result


def _checked(inputs, targets, weights):
    """The arguments as arrays."""
    x, y = np.asarray(inputs, float), np.asarray(targets, float)
    x = x[:, None] if x.ndim == 1 else x
    counts = np.ones(y.shape) if weights is None else np.asarray(weights, float)
    if x.ndim != 2 or y.shape != x.shape[:1] or counts.shape != y.shape:
        raise ValueError(
            "inputs, targets and weights must have shapes (m, d), (m,) and (m,), not "
            f"{x.shape}, {y.shape} and {counts.shape}"
        )
    bad = ~(np.isfinite(x).all(axis=1) & np.isfinite(y) & (counts >= 0.0))
    if bad.any() or not counts.any():
        raise ValueError(
            f"{bad.sum()} of {len(y)} points are not finite or of negative weight, "
            f"first at positions {np.flatnonzero(bad)[:5].tolist()}; leave them out"
        )
    return x, y, counts

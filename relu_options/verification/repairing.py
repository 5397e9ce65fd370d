r"""The nearest network that is free of arbitrage, by its output weights.

The hidden units, and with them the linear regions, stay as they are. Price, slopes and
jumps are linear in the output weights $v$ and the output bias $c$, so that every
condition is a row of $G (v, c) \ge h$, and the nearest weights are the solution of a
least-distance programme,

$$ \min \|v - v_0\|^2 + (c - c_0)^2 \quad \text{subject to} \quad G (v, c) \ge h , $$

which is a non-negative least-squares problem (Lawson and Hanson, 1974, chapter 23).
Rows are added as they are found violated. A small margin keeps the rounded weights
inside; where no weight can keep it, since some must be zero, a linear programme says
which. The result is proved by `verify_no_arbitrage`.

References:
    Lawson, C. and Hanson, R. (1974). *Solving Least Squares Problems*. Prentice-Hall.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from scipy.optimize import linprog, nnls

from relu_options.errors import VerificationError
from relu_options.verification.bounds import TOO_WIDE, fits_floats
from relu_options.verification.domain import Domain, DomainLike, domain_of
from relu_options.verification.hinges import hinge_rows
from relu_options.verification.layers import LayeredNetwork, in_floats
from relu_options.verification.network_reader import layered
from relu_options.verification.no_arbitrage import conditions_of, verify_no_arbitrage
from relu_options.verification.one_input import enumerate_segments
from relu_options.verification.regions import OutOfTime, Regions, enumerate_regions
from relu_options.verification.results import Proof
from relu_options.verification.rounding import RoundedNetwork
from relu_options.verification.units import LINEAR, HiddenLayer


@dataclass(frozen=True)
class Correction:
    """How the least change of weights is found that holds in exact arithmetic.

    Attributes:
        margins: Relative, by which rows hold in floats so that they do in fractions;
            tried in this order.
        rounds: Of adding the rows that are violated, after which to give up.
        added: Violated rows that are added in a round.
        nothing: Relative: coefficients that are zero.
        slack: Of each row, that weights are asked to leave if they can.
        nothing_much: Weights that are zero in such a solution.
        samples: Of the domain, for the mean square change of the price.
        ridge: Relative to the largest feature: weights that hardly move the price.
    """

    margins: tuple[float, ...] = (1e-10, 1e-9, 1e-8, 1e-7, 1e-6)
    rounds: int = 60
    added: int = 100
    nothing: float = 1e-13
    slack: float = 1e-3
    nothing_much: float = 1e-9
    samples: int = 4096
    ridge: float = 1e-4


CORRECTION = Correction()

Distance = Literal["weights", "prices"]


@dataclass(frozen=True, repr=False)
class Repair:
    """A network that passes, and how far it is from the given one.

    Attributes:
        network: With the same hidden units and other output weights.
        proof: That it passes.
        distance: Euclidean, of the output weights and the output bias.
        largest_change: Of an output weight or the output bias.

    Examples:
        A curve that rises beyond 100 is made level there.

        >>> import jax.numpy as jnp
        >>> from relu_options import ReLUNetwork
        >>> curve = ReLUNetwork(100.0, -1.0, jnp.array([100.0]), jnp.array([1.25]))
        >>> result = repair(curve, [(50.0, 150.0)], forward=100.0,
        ...                 conditions=["convex", "decreasing"])
        >>> result.proof
        Proof: convex, decreasing, exactly, on strike 50 to 150; by kinks
        >>> slopes = result.network.weights
        >>> print(f"{slopes.sum():.6f}", result.distance < 0.25)
        -0.000000 True
    """

    network: LayeredNetwork
    proof: Proof
    distance: float
    largest_change: float

    def __repr__(self) -> str:
        return (
            f"Repair({self.network!r} at a distance of {self.distance:.3g}, largest "
            f"change {self.largest_change:.3g}; {self.proof!r})"
        )


def repair(
    network: Any,
    domain: DomainLike,
    *,
    conditions: Sequence[str] | None = None,
    forward: float = 1.0,
    discount_factor: float = 1.0,
    nearest: Distance = "weights",
    activation: str = "relu",
    alpha: float = 0.01,
    width: float = 1.0,
    time_limit: float = 60.0,
) -> Repair:
    """The network nearest in its output weights whose prices admit no arbitrage.

    It is for networks of one or two inputs. With one hidden layer the result is the
    nearest of all networks with the same hinges; a linear unit of each input, of output
    weight zero before, joins it. With several hidden layers only the output weights and
    the bias change: that such a network passes may ask much of them, up to a constant.

    Args:
        network: See `relu_options.verification.layered`.
        domain: A range for each input, as in `verify_no_arbitrage`.
        conditions: Names, likewise.
        forward: Likewise.
        discount_factor: Likewise.
        nearest: "weights" for the least Euclidean change of the output weights and
            bias; "prices" for the least mean square change of the price on the domain.
        activation: Likewise.
        alpha: Likewise.
        width: Likewise.
        time_limit: Seconds, for the repair and for its proof each.

    Returns:
        The network with its proof.

    Raises:
        VerificationError: If the time was too short, no output weights pass, or
            weights differ too much for a solver in floating point.
        ValueError: If the network has more than two inputs.

    Examples:
        A curve whose butterfly at 100 costs -0.25 per unit of width: that weight
        becomes zero.

        >>> import jax.numpy as jnp
        >>> from relu_options import ReLUNetwork
        >>> curve = ReLUNetwork(100.0, -1.0, jnp.array([80.0, 100.0, 120.0]),
        ...                     jnp.array([0.5, -0.25, 0.5]))
        >>> result = repair(curve, [(50.0, 150.0)], forward=100.0,
        ...                 conditions=["convex"])
        >>> bool(result.proof), round(result.distance, 6)
        (True, 0.25)
        >>> print(result.network.weights[:3].round(6))
        [0.5 0.  0.5]
    """
    network = in_floats(
        layered(network, activation=activation, alpha=alpha, width=width)
    )
    box = domain_of(domain, network.inputs)
    if network.inputs > 2 or not network.layers:
        raise ValueError(
            f"networks of one or two inputs and a hidden layer can be repaired, not "
            f"{network!r}"
        )
    if nearest not in ("weights", "prices"):
        raise ValueError(f"nearest must be 'weights' or 'prices', not {nearest!r}")
    if not fits_floats(network, np.array(box.low), np.array(box.high)):
        raise VerificationError(f"no repair of {network!r}: {TOO_WIDE}")
    if len(network.layers) == 1:
        network = _with_linear_part(network)
    names = conditions_of(conditions, box.has_time)
    deadline = time.monotonic() + time_limit
    try:
        rows = _rows(network, box, names, forward, discount_factor, deadline)
    except OutOfTime as late:
        raise VerificationError(
            f"more than {late.regions:,} linear regions in {time_limit:g} s; raise "
            "`time_limit` or narrow the domain"
        ) from None
    start = np.append(network.weights, network.bias)
    metric = _metric(network, box) if nearest == "prices" else np.eye(len(start))
    for weights in _candidates(start, *rows, metric, deadline):
        passing = replace(network, weights=weights[:-1], bias=float(weights[-1]))
        verdict = verify_no_arbitrage(
            passing,
            box,
            conditions=names,
            forward=forward,
            discount_factor=discount_factor,
            time_limit=time_limit,
        )
        if isinstance(verdict, Proof):
            change = weights - start
            distance = float(np.linalg.norm(change))
            return Repair(passing, verdict, distance, float(np.abs(change).max()))
    raise VerificationError(
        f"no output weights of {network!r} were found with which {', '.join(names)} "
        "hold; ask for fewer conditions, or train with one hidden layer"
    )


def _with_linear_part(network: LayeredNetwork) -> LayeredNetwork:
    """The network with a linear unit for each input, of output weight zero."""
    (layer,) = network.layers
    count = network.inputs
    wider = HiddenLayer(
        np.vstack([layer.weights, np.eye(count)]),
        np.append(layer.biases, np.zeros(count)),
        layer.units + (LINEAR,) * count,
    )
    weights = np.append(network.weights, np.zeros(count))
    return replace(network, layers=(wider,), weights=weights)


def _rows(
    network: LayeredNetwork,
    domain: Domain,
    names: Sequence[str],
    forward: float,
    discount: float,
    deadline: float,
) -> tuple[np.ndarray, np.ndarray]:
    """All conditions as rows of `G (v, c) >= h`, without those that always hold."""
    parts = _Parts.of(network, domain, deadline)
    blocks = list(_blocks(network, domain, parts, names, forward, discount))
    rows = np.concatenate([block for block, _ in blocks])
    least = np.concatenate(
        [np.broadcast_to(level, len(block)) for block, level in blocks]
    )
    size = np.abs(rows).max(axis=1, initial=0.0)
    kept = size > CORRECTION.nothing * max(size.max(initial=0.0), 1.0)
    rows, least = rows[kept], least[kept]
    norms = np.linalg.norm(rows, axis=1)
    return rows / norms[:, None], least / norms


@dataclass(frozen=True, eq=False)
class _Parts:
    """What the hidden units are on the linear regions.

    Attributes:
        slopes: Of each input, their derivatives by region, of shape `(C, n)`.
        jumps: Rises of their slopes in strike across facets, of shape `(F, n)`.
        outputs: At the corners, of shape `(V, n)`.
        strikes: Of the corners.
    """

    slopes: list[np.ndarray]
    jumps: np.ndarray
    outputs: np.ndarray
    strikes: np.ndarray

    @staticmethod
    def of(network: LayeredNetwork, domain: Domain, deadline: float) -> _Parts:
        """Enumerate the regions."""
        if network.inputs == 2:
            regions: Regions = enumerate_regions(network, domain, deadline)
            slopes = [regions.last_gradients(axis) for axis in (0, 1)]
            facets = regions.facets
            jumps = slopes[0][facets.above] - slopes[0][facets.below]
            return _Parts(
                slopes,
                jumps[facets.across_strike],
                regions.last_outputs,
                regions.points[:, 0],
            )
        points = enumerate_segments(network, domain, deadline).points
        exact, rounded = network.in_integers, RoundedNetwork(network)
        middles = [exact.pieces([(x + y) / 2]) for x, y in pairwise(points)]
        pieces = [np.array(p) for p in zip(*middles, strict=True)]
        slope = rounded.last_gradients(pieces, 0)
        strikes = np.array([float(x) for x in points])
        ends = [np.append(p, p[-1:], axis=0) for p in pieces]
        outputs = rounded.last_outputs(strikes[:, None], ends)
        return _Parts([slope], np.diff(slope, axis=0), outputs, strikes)


def _blocks(
    network: LayeredNetwork,
    domain: Domain,
    parts: _Parts,
    names: Sequence[str],
    forward: float,
    discount: float,
) -> Iterator[tuple[np.ndarray, Any]]:
    """Rows and levels of each condition."""

    def rows(units: np.ndarray, bias: float = 0.0) -> np.ndarray:
        return np.hstack([units, np.full((len(units), 1), bias)])

    for name in names:
        if name == "convex":
            if len(network.layers) == 1:
                yield rows(hinge_rows(network, domain)), 0.0
            else:
                yield rows(parts.jumps), 0.0
        elif name == "decreasing":
            yield rows(-parts.slopes[0]), 0.0
        elif name == "slope":
            yield rows(parts.slopes[0]), -discount
        elif name == "calendar":
            yield rows(parts.slopes[1]), 0.0
        else:
            floor = discount * np.maximum(forward - parts.strikes, 0.0)
            yield rows(parts.outputs, 1.0), floor
            yield rows(-parts.outputs, -1.0), -discount * forward


def _candidates(
    start: np.ndarray,
    rows: np.ndarray,
    least: np.ndarray,
    metric: np.ndarray,
    deadline: float,
) -> Iterator[np.ndarray]:
    """Nearest weights with ever larger margins, first all free, then some at zero."""
    free = np.ones(len(start), bool)
    for _ in range(2):
        for margin in CORRECTION.margins:
            found = _nearest(start, rows, least, metric, free, margin, deadline)
            if found is None:
                break
            yield found
        free = _can_differ_from_zero(rows, least)


def _metric(network: LayeredNetwork, domain: Domain) -> np.ndarray:
    """A root of the matrix whose form is the mean square change of the price."""
    points = np.random.default_rng(0).uniform(
        domain.low, domain.high, (CORRECTION.samples, network.inputs)
    )
    for layer in network.layers:
        points = layer(points)
    features = np.hstack([points, np.ones((CORRECTION.samples, 1))]) / np.sqrt(
        CORRECTION.samples
    )
    ridge = CORRECTION.ridge * np.linalg.norm(features, 2) * np.eye(features.shape[1])
    return _root(np.vstack([features, ridge]))


def _root(matrix: np.ndarray) -> np.ndarray:
    """A square matrix with the same norms of products."""
    return np.asarray(np.linalg.qr(matrix, mode="r"))


def _can_differ_from_zero(rows: np.ndarray, least: np.ndarray) -> np.ndarray:
    """Which weights are not zero where as many rows as possible have slack."""
    count, size = rows.shape
    costs = np.append(np.zeros(size), -np.ones(count))
    matrix = np.hstack([-rows, np.eye(count)])
    bounds = [(None, None)] * size + [(0.0, CORRECTION.slack)] * count
    result = linprog(costs, A_ub=matrix, b_ub=-least, bounds=bounds)
    if result.x is None:
        return np.zeros(size, bool)
    free = np.abs(result.x[:size]) > CORRECTION.nothing_much
    free[-1] = True  # the bias
    return free


def _nearest(
    start: np.ndarray,
    rows: np.ndarray,
    least: np.ndarray,
    metric: np.ndarray,
    free: np.ndarray,
    margin: float,
    deadline: float,
) -> np.ndarray | None:
    """The nearest point to `start` with `rows @ x >= least`; None if there is none.

    Weights that are not free are zero, and rows in which no others are read are left
    out.
    """
    shift = margin * max(1.0, float(np.abs(start).max()))
    read = np.abs(rows[:, free]).max(axis=1, initial=0.0) > CORRECTION.nothing
    if (least[~read] > 0.0).any():
        return None
    # In the metric, the others moved to zero, the free ones move by x = R^-1 y.
    fixed = np.where(free, start, 0.0)
    root = _root(metric[:, free])
    inverse = np.linalg.inv(root)
    pulled = np.zeros(len(start))
    gone = metric @ (start - fixed)
    pulled[free] = np.linalg.lstsq(metric[:, free], gone, rcond=None)[0]
    centre = fixed + pulled
    goal = least[read] + shift - rows[read] @ centre
    turned = rows[read][:, free] @ inverse
    norms = np.linalg.norm(turned, axis=1)
    active, step = np.zeros(0, int), np.zeros(int(free.sum()))
    for _ in range(CORRECTION.rounds):
        if time.monotonic() > deadline:
            raise VerificationError("no repair in the time; raise `time_limit`")
        short = goal - turned @ step
        short[active] = -np.inf
        worst = np.argsort(-short)[: CORRECTION.added]
        worst = worst[short[worst] > 0.25 * shift]
        if not len(worst):
            break
        active = np.append(active, worst)
        scale = norms[active]
        found = _least_distance(turned[active] / scale[:, None], goal[active] / scale)
        if found is None:
            return None
        step = found
    moved = centre.copy()
    moved[free] += inverse @ step
    return moved


def _least_distance(rows: np.ndarray, least: np.ndarray) -> np.ndarray | None:
    """The shortest x with `rows @ x >= least`; None if there is none."""
    scale = max(float(np.abs(least).max()), 1e-300)
    matrix = np.vstack([rows.T, least / scale])
    target = np.zeros(len(matrix))
    target[-1] = 1.0
    multipliers, distance = nnls(matrix, target, maxiter=50 * matrix.shape[1])
    residual = matrix @ multipliers - target
    if distance < 1e-9 or residual[-1] >= 0.0:
        return None
    return -residual[:-1] / residual[-1] * scale

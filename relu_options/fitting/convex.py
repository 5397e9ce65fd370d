r"""Convex regression: the convex function nearest to a cloud of points.

A convex function of one variable is, on any sample, a one-layer ReLU network with
non-negative output weights and a kink at every point,

$$
f(x) = c + a x + \sum_j w_j (x - x_j)^+, \qquad w_j \ge 0,
\qquad a \ge a_{\min}, \qquad a + \sum_j w_j \le a_{\max}.
$$

No law of prices is assumed. It fits whatever must be convex: undiscounted calls with
slopes from -1 to 0, American options, total costs, value functions.
"""

from __future__ import annotations

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from relu_options.errors import FitError
from relu_options.fitting.interior_point import (
    QuadraticProgram,
    Solution,
    no_rows,
    solve,
    starting_point,
)
from relu_options.networks import ReLUNetwork

BUCKETS = (64, 256, 1024)  # padded numbers of different points
TOLERANCE = 1e-10
ACCEPTABLE_GAP = 1e-6
FREE = 4.0  # a free slope may exceed those between neighbours by this many ranges


def fit_convex(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    slopes: tuple[float, float] = (-np.inf, np.inf),
    weights: npt.ArrayLike | None = None,
) -> ReLUNetwork:
    r"""Fit a convex function, a ReLU network, to points by weighted least squares.

    Args:
        x: Abscissae in any order, of shape `(m,)`; equal ones are one point.
        y: Ordinates, of shape `(m,)`.
        slopes: Least and greatest slope allowed; infinite where free.
        weights: How much each squared residual counts, of shape `(m,)`, positive.

    Returns:
        The network $f$, with a kink at every different `x` but the outermost two.

    Raises:
        ValueError: If shapes differ, a value is not finite, fewer than two `x` differ,
            a weight is not positive or the slopes are not increasing.
        FitError: If the programme was not solved to its tolerance.

    Examples:
        Prices that no convex function meets are met as nearly as one can:

        >>> f = fit_convex([90.0, 100.0, 110.0], [12.0, 8.0, 1.0], slopes=(-1.0, 0.0))
        >>> print(f(jnp.array([90.0, 100.0, 110.0])).round(4))
        [12.5  7.   1.5]
    """
    points = _points(x, y, weights)
    at, mean, mass = _merged(*points)
    size = next((bucket for bucket in BUCKETS if bucket >= at.size), None)
    if size is None:
        raise ValueError(
            f"{at.size} different x exceed the {BUCKETS[-1]} that one fit takes; "
            "merge neighbours, with their number as weight"
        )
    low, high = slopes
    if np.isnan(low) or np.isnan(high) or not low < high:
        raise ValueError(f"slopes must be increasing, not {slopes}")

    # In units in which x reaches from 0 to 1 and y varies by about one.
    length = at[-1] - at[0]
    u = (at - at[0]) / length
    scale = float(np.sqrt(np.average((mean - mean.mean()) ** 2))) or 1.0
    v = (mean - mean.mean()) / scale
    between = np.diff(v) / np.diff(u)
    steepest = FREE * (np.ptp(between) + np.abs(between).max() + 1.0)
    low, high = (bound * length / scale for bound in slopes)
    low = max(low, min(between.min() - steepest, high - steepest))
    high = min(high, max(between.max() + steepest, low + steepest))

    def padded(values, filling):
        return np.concatenate([values, np.full(size - at.size, filling)])

    u, v = padded(u, 2.0), padded(v, 0.0)
    solution, level = _compiled()(u, v, padded(mass / mass.mean(), 0.0), low, high)
    if not float(solution.gap) <= ACCEPTABLE_GAP:
        raise FitError(
            f"duality gap {float(solution.gap):.1e} after {int(solution.steps)} steps; "
            "check the points for outliers"
        )
    bends = np.asarray(solution.iterate.x)
    inner = bends[1 : at.size - 1] * scale / length
    slope = (low + bends[0]) * scale / length
    origin = mean.mean() + float(level) * scale
    return ReLUNetwork(
        intercept=origin - slope * at[0],
        slope=slope,
        kinks=jnp.asarray(at[1:-1]),
        weights=jnp.asarray(inner),
    )


def _points(x, y, weights) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The arguments as checked arrays."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    weights = np.ones_like(x) if weights is None else np.asarray(weights, float)
    if x.ndim != 1 or x.shape != y.shape or x.shape != weights.shape:
        raise ValueError(
            "x, y and weights must be rows of one length, not of shapes "
            f"{x.shape}, {y.shape} and {weights.shape}"
        )
    bad = ~(np.isfinite(x) & np.isfinite(y) & np.isfinite(weights) & (weights > 0.0))
    if bad.any():
        where = np.flatnonzero(bad)[:5].tolist()
        raise ValueError(
            f"{bad.sum()} points are not finite or of no weight, first at positions "
            f"{where}; leave them out"
        )
    if np.unique(x).size < 2:
        raise ValueError("a slope needs two different x")
    return x, y, weights


def _merged(x, y, weights) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Different abscissae, increasing, with mean ordinates and summed weights."""
    at, place = np.unique(x, return_inverse=True)
    mass = np.bincount(place, weights)
    return at, np.bincount(place, weights * y) / mass, mass


@cache
def _compiled():
    return jax.jit(_regress)


def _regress(x, y, weight, low, high) -> tuple[Solution, jax.Array]:
    """The bends of the function, `x` being padded beyond 1, and its value at 0.

    The unknowns are the first slope above `low`, a bend at every point, and how far the
    last slope is below `high` (in the place of the bend at the first point).
    """
    n = x.shape[0]
    total = weight.sum()
    columns = jnp.maximum(x[:, None] - x[None, :], 0.0)
    first = jnp.zeros((n, 1))
    design = jnp.concatenate([x[:, None], columns[:, 1:], first], axis=1)
    # The level is free: centred columns leave it out.
    centre = weight @ design / total
    data = y - low * x
    middle = weight @ data / total
    root = jnp.sqrt(weight)
    centred = (design - centre) * root[:, None]
    target = (data - middle) * root
    program = QuadraticProgram(
        hessian=centred.T @ centred,
        gradient=-centred.T @ target,
        constant=0.5 * target @ target,
        equality=jnp.ones((1, n + 1)),
        target=jnp.full(1, high - low),
        **no_rows(n + 1),
    )
    start = starting_point(program, jnp.full(n + 1, (high - low) / (n + 1)))
    solution = solve(program, start, tolerance=TOLERANCE)
    return solution, middle - centre @ solution.iterate.x

r"""How much smoothing, and by which ruler: what a first solution tells.

For a given $\lambda$ the fit minimises $\|A w - r\|^2 + \lambda^2 \|L w\|^2$ over
weights that are non-negative and satisfy two identities. With the weights that are zero
held at zero it is linear in the data: the fitted values have $d(\lambda)$ degrees of
freedom, the trace of the matrix that makes them, and *generalised cross-validation*
estimates the error on quotes that were left out by

$$
V(\lambda) = \frac{m \, \|A w - r\|^2}{(m - \gamma d)^2} .
$$

A factor $\gamma$ a little above one keeps it from taking few quotes for exact. Of
rulers the one with the lesser `V` is chosen (`relu_options.fitting.grid`).

*Mids alone.* Ten or twenty quotes tell $\lambda$ to an order of magnitude only. So
$\lambda$ is the one that minimises $\tfrac{m}{2} \log V(\lambda) + \tfrac12
(\log_{10} (\lambda / \lambda_0) / c)^2$: a reference $\lambda_0$ in proportion to the
number of quotes, unless they contradict it. Exact quotes do: `V` falls with every
decade, and nothing is smoothed that need not be.

*Spreads* tell what noise there is. Read as a mixed model, the residuals have variance
$\sigma^2$ and the components of $L w$ variance $\tau^2$, with $\lambda = \sigma /
\tau$; one step of Schall's method,

$$
\sigma^2 = \frac{\|A w - r\|^2}{m - d}, \qquad
\tau^2 = \frac{\|L w\|^2}{d}, \qquad
\lambda \leftarrow \frac{\sigma}{\tau},
$$

is taken from the reference.

References:
    Craven, P. and Wahba, G. (1979). Smoothing noisy data with spline functions.
    *Numerische Mathematik*, 31, 377-403.

    Schall, R. (1991). Estimation in generalized linear models with random effects.
    *Biometrika*, 78(4), 719-727.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import get_lapack_funcs

from relu_options.fitting.objective import Objective

REFERENCE = 1.2e-4  # the reference for lambda / m, with residuals in quote tolerances
FACTORS = 10.0 ** np.array([-1.0, -0.5, 0.0, 0.5])  # that are tried around a solution
LEAST = 1e-3  # of the reference: below it, quotes are met to all digits that matter
MOST = 10.0  # the same above
DECADES = 0.25  # c
CAUTION = 0.8  # gamma
LEAST_LEFT = 1e-9
LEAST_FREEDOM = 0.3  # of the residuals, however many degrees the fitted values have
SPREAD_NOISE = 0.1  # least variance of a mid in its spread, in half-spreads squared
OUTLYING = 2.0  # half-spreads from which a residual is a wrong quote, not its noise


_factorise, _invert = get_lapack_funcs(("potrf", "trtri"), dtype=float)


def reference_smoothing(count: int) -> float:
    """The reference for `lambda`, given the number of quotes."""
    return REFERENCE * count


@dataclass(frozen=True)
class Judgement:
    """What a solution says of its ruler, and of `lambda`.

    Attributes:
        criterion: By which rulers are compared; the less the better.
        smoothing: The `lambda` that it recommends.
    """

    criterion: float
    smoothing: float


def judge(
    objective: Objective,
    weights: np.ndarray,
    springs: np.ndarray,
    smoothing: float,
    *,
    has_spreads: bool,
    free: bool,
) -> Judgement:
    """Judge a solution.

    Args:
        objective: What was minimised.
        weights: `w` of the solution, of shape `(n,)`.
        springs: Stiffness that holds each weight, `z / w` of the solution; `(n,)`.
        smoothing: Its `lambda`.
        has_spreads: Whether residuals are in half-spreads.
        free: Whether `lambda` is to be chosen.

    Returns:
        The judgement.
    """
    held = _Held(objective, weights, springs, smoothing)
    if has_spreads:
        return held.by_spreads(free)
    return held.by_cross_validation(FACTORS if free else np.ones(1))


class _Held:
    """A solution with its zero weights held at zero: linear in the data."""

    def __init__(self, objective, weights, springs, smoothing):
        self._objective, self._weights = objective, weights
        self._smoothing = smoothing
        self._count = len(objective.data)
        self._reference = reference_smoothing(self._count)
        unit = np.trace(objective.gram) / len(weights)
        rows = objective.equality
        self._held = objective.gram + 1e4 * unit * rows.T @ rows
        self._held += np.diag(np.minimum(springs, 1e12 * unit))
        self._slope = objective.prior @ weights + objective.pull
        self._residual = objective.residual(weights)

    def _root(self, smoothing: float) -> np.ndarray:
        """`R` with `R' R` the inverse of the matrix that answers to the data."""
        total = self._held + smoothing**2 * self._objective.prior
        scale = 1.0 / np.sqrt(np.diagonal(total))
        unit = total * scale[:, None] * scale
        # In exact arithmetic it is positive; rounding is about the size of this.
        unit[np.diag_indices_from(unit)] = 1.0 + 1e-15
        factor, _ = _factorise(unit, lower=True, clean=True, overwrite_a=True)
        inverse, _ = _invert(factor, lower=True, overwrite_c=True)
        return inverse * scale

    def _freedom(self, root: np.ndarray) -> float:
        return float(np.sum((root @ self._objective.gram) * root))

    def by_spreads(self, free: bool) -> Judgement:
        """One step of Schall's method."""
        objective, count = self._objective, self._count
        freedom = self._freedom(self._root(self._smoothing))
        # One quote far off must not have the others smoothed as if they were.
        counted = np.clip(self._residual, -OUTLYING, OUTLYING)
        noise = counted @ counted / max(count - freedom, 0.5)
        # Few quotes can be met too well to tell; but anywhere in a spread is a price.
        noise = max(noise, SPREAD_NOISE)
        signal = objective.penalty(self._weights) / max(freedom, 1.0)
        criterion = 0.5 * count * np.log(noise / max(count - freedom, LEAST_FREEDOM))
        chosen = np.sqrt(noise / signal) if free else self._smoothing
        return Judgement(criterion, self._limited(chosen, 0.25))

    def by_cross_validation(self, factors: np.ndarray) -> Judgement:
        """The best of a few multiples of `lambda`."""
        trials = [self._cross_validated(self._smoothing * each) for each in factors]
        return min(trials, key=lambda trial: trial.criterion)

    def _cross_validated(self, smoothing: float) -> Judgement:
        root = self._root(smoothing)
        change = smoothing**2 - self._smoothing**2
        residual = self._residual
        if change:
            moved = root.T @ (root @ self._slope)
            residual = residual - change * (self._objective.design @ moved)
        influence = root @ self._objective.gram @ root.T
        left = max(self._count - np.trace(influence), LEAST_LEFT)
        # Rounding: a square of residuals below it says that there are none.
        least = 1e-26 * self._objective.data @ self._objective.data
        error = np.log(max(residual @ residual, least) * self._count / left**2)
        error += np.log(CAUTION + (1.0 - CAUTION) * np.sum(influence**2) / self._count)
        away = np.log10(smoothing / self._reference) / DECADES
        criterion = 0.5 * self._count * error + 0.5 * away**2
        return Judgement(float(criterion), self._limited(smoothing, LEAST))

    def _limited(self, smoothing: float, least: float) -> float:
        if not np.isfinite(smoothing):
            smoothing = self._smoothing
        return float(
            np.clip(smoothing, least * self._reference, MOST * self._reference)
        )

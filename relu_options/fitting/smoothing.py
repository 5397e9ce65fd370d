r"""How much smoothing, and by which ruler: what a first solution tells.

For a given $\lambda$ the fit minimises $\|A w - r\|^2 + \lambda^2 \|L w\|^2$ over
weights that are non-negative and satisfy two identities. With the weights that are zero
held at zero it is linear in the data: the fitted values have $d(\lambda)$ degrees of
freedom, the trace of the matrix that makes them, and *generalised cross-validation*
estimates the error on quotes that were left out by

$$
V(\lambda) = \frac{m \, \|A w - r\|^2}{(m - d)^2} (\gamma + (1 - \gamma) \mu) .
$$

The last factor, with $\mu$ the mean square of the eigenvalues of that matrix, keeps it
from taking few quotes for exact. Of rulers the one with the lesser `V` is chosen
(`relu_options.fitting.grid`).

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

    Lukas, M. (2006). Robust generalized cross-validation for choosing the
    regularization parameter. *Inverse Problems*, 22(5), 1883-1902.

    Schall, R. (1991). Estimation in generalized linear models with random effects.
    *Biometrika*, 78(4), 719-727.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import get_lapack_funcs

from relu_options.fitting.objective import Objective


@dataclass(frozen=True)
class Choice:
    """How the smoothing is chosen.

    Attributes:
        reference: The reference for `lambda`, per quote, with residuals in tolerances.
        factors: That are tried around a solution; a quarter of a decade is finer than
            quotes tell.
        least: Of the reference: below it, quotes are met to all digits that matter.
        least_of_spreads: The same where spreads tell the noise.
        most: Of the reference.
        decades: `c`: how far quotes usually contradict the reference.
        caution: `gamma`.
        left: Least degrees of freedom of the residuals, which rounding may take.
        left_of_spreads: The same where these are not what is told by.
        noise: Least variance of a mid in its spread, in half-spreads squared: few
            quotes can be met too well to tell, but anywhere in a spread is a price.
        outlying: Half-spreads from which a residual is a wrong quote, not its noise.
        rounding: Of a squared residual, as a share of the squared data.
    """

    reference: float = 1.2e-4
    factors: tuple[float, ...] = tuple(10.0 ** (0.25 * np.array([-4, -2, -1, 0, 1, 2])))
    least: float = 1e-3
    least_of_spreads: float = 0.25
    most: float = 10.0
    decades: float = 0.25
    caution: float = 0.8
    left: float = 1e-9
    left_of_spreads: float = 0.3
    noise: float = 0.1
    outlying: float = 2.0
    rounding: float = 1e-26


CHOICE = Choice()
_factorise, _invert = get_lapack_funcs(("potrf", "trtri"), dtype=float)


def reference_smoothing(count: int) -> float:
    """The reference for `lambda`, given the number of quotes."""
    return CHOICE.reference * count


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
    held = Response(objective, weights, springs, smoothing)
    if has_spreads:
        judged = held.by_spreads()
    else:
        judged = held.by_cross_validation(CHOICE.factors if free else (1.0,))
    # The limits of the choice are not those of who has chosen.
    return judged if free else replace(judged, smoothing=smoothing)


class Response:
    """How a solution answers to the data, its zero weights held at zero: linearly.

    Args:
        objective: What was minimised.
        weights: `w` of the solution, of shape `(n,)`.
        springs: Stiffness that holds each weight, `z / w` of the solution; `(n,)`.
        smoothing: Its `lambda`.
    """

    def __init__(
        self,
        objective: Objective,
        weights: np.ndarray,
        springs: np.ndarray,
        smoothing: float,
    ):
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

    def root(self, smoothing: float) -> np.ndarray:
        """`R` with `R' R` the inverse of the matrix that answers to the data."""
        total = self._held + smoothing**2 * self._objective.prior
        scale = 1.0 / np.sqrt(np.diagonal(total))
        unit = total * scale[:, None] * scale
        # In exact arithmetic it is positive; rounding is about the size of this.
        unit[np.diag_indices_from(unit)] = 1.0 + 1e-15
        factor, _ = _factorise(unit, lower=True, clean=True, overwrite_a=True)
        inverse, _ = _invert(factor, lower=True, overwrite_c=True)
        return inverse * scale

    def influence(self, root: np.ndarray) -> np.ndarray:
        """A matrix with the eigenvalues of that from data to fitted values."""
        return root @ self._objective.gram @ root.T

    def by_spreads(self) -> Judgement:
        """One step of Schall's method."""
        objective, count = self._objective, self._count
        freedom = float(np.trace(self.influence(self.root(self._smoothing))))
        # One quote far off must not have the others smoothed as if they were.
        counted = np.clip(self._residual, -CHOICE.outlying, CHOICE.outlying)
        noise = counted @ counted / max(count - freedom, 0.5)
        noise = max(noise, CHOICE.noise)
        signal = objective.penalty(self._weights) / max(freedom, 1.0)
        left = max(count - freedom, CHOICE.left_of_spreads)
        criterion = 0.5 * count * float(np.log(noise / left))
        chosen = float(np.sqrt(noise / signal))
        return Judgement(criterion, self._limited(chosen, CHOICE.least_of_spreads))

    def by_cross_validation(self, factors: Sequence[float]) -> Judgement:
        """The best of a few multiples of `lambda`."""
        trials = [self._cross_validated(self._smoothing * each) for each in factors]
        return min(trials, key=lambda trial: trial.criterion)

    def _cross_validated(self, smoothing: float) -> Judgement:
        root = self.root(smoothing)
        change = smoothing**2 - self._smoothing**2
        residual = self._residual
        if change:
            moved = root.T @ (root @ self._slope)
            residual = residual - change * (self._objective.design @ moved)
        influence = self.influence(root)
        left = max(self._count - np.trace(influence), CHOICE.left)
        # Rounding: a square of residuals below it says that there are none.
        least = CHOICE.rounding * self._objective.data @ self._objective.data
        error = np.log(max(residual @ residual, least) * self._count / left**2)
        share = np.sum(influence**2) / self._count
        error += np.log(CHOICE.caution + (1.0 - CHOICE.caution) * share)
        away = np.log10(smoothing / self._reference) / CHOICE.decades
        criterion = 0.5 * self._count * error + 0.5 * away**2
        return Judgement(float(criterion), self._limited(smoothing, CHOICE.least))

    def _limited(self, smoothing: float, least: float) -> float:
        if not np.isfinite(smoothing):
            smoothing = self._smoothing
        ends = least * self._reference, CHOICE.most * self._reference
        return float(np.clip(smoothing, *ends))

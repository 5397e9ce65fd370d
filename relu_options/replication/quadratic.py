r"""Hedges of the least expected squared error under the density of a curve.

With cash, forward and calls at the listed strikes it is a linear regression of the
payoff, weighted by the risk-neutral density (Carr and Madan, 2001, hedge with all
strikes; here with those there are). Weighting by cost adds
$\lambda \sum_i c_i |q_i|$, with $c_i$ the half-spread: options whose spread is not
worth their error are then left out, exactly.

References:
    Carr, P. and Madan, D. (2001). Optimal positioning in derivative securities.
    *Quantitative Finance*, 1, 19-37.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from relu_options.errors import FitError
from relu_options.portfolio import StrikePortfolio
from relu_options.replication.instruments import Instruments
from relu_options.replication.spot_law import SpotLaw

_STEPS = 2000


@dataclass(frozen=True, eq=False)
class QuadraticHedge:
    """A hedge by regression, and how good it is.

    Attributes:
        portfolio: The hedge.
        rms_error: Root mean square of payoff minus hedge, in currency units at expiry.
        unhedged_error: The same with cash and forward alone.
        lower_bound: What the root mean square is not below with any choice of as many
            of the listed strikes; None if all were used.

    Examples:
        >>> import relu_options as ro
        >>> curve = ro.BlackScholesCurve(volatility=0.2, forward=100.0,
        ...                              time_to_expiry=0.25)
        >>> hedge = ro.replicate(ro.payoffs.call(102.0), curve, strikes=[100.0, 105.0])
        >>> round(hedge.rms_error, 4), round(hedge.share_explained, 4)
        (0.2531, 0.993)
    """

    portfolio: StrikePortfolio
    rms_error: float
    unhedged_error: float
    lower_bound: float | None = None

    @property
    def gap(self) -> float:
        """Relative distance of the error from the lower bound; zero if all were used.

        Errors below a billionth of the unhedged one are rounding, and have no gap.
        """
        rounding = 1e-9 * self.unhedged_error
        if self.lower_bound is None or self.rms_error <= rounding:
            return 0.0
        return self.rms_error / max(self.lower_bound, rounding) - 1.0

    @property
    def share_explained(self) -> float:
        """One minus the ratio of squared errors with and without options."""
        if self.unhedged_error == 0.0:
            return 1.0
        return 1.0 - (self.rms_error / self.unhedged_error) ** 2


def quadratic_hedge(
    payoff: Any,
    instruments: Instruments,
    law: SpotLaw,
    chosen: np.ndarray | None = None,
    cost_weight: float = 0.0,
) -> QuadraticHedge:
    """Regress a payoff on cash, forward and calls.

    Args:
        payoff: A function of an array of spots.
        instruments: What may be held.
        law: Of the spot at expiry.
        chosen: Positions of the strikes to use; all by default.
        cost_weight: Squared error that a unit of half-spread is worth, in currency
            units.

    Raises:
        FitError: If the regression with costs does not end.
    """
    strikes = instruments.strikes
    chosen = np.arange(len(strikes)) if chosen is None else chosen
    root = np.sqrt(law.probabilities / law.probabilities.sum())[:, None]
    centre = instruments.forward
    moved = law.spots - centre
    base = np.column_stack([np.ones_like(moved), moved / centre]) * root
    values = np.asarray(payoff(law.spots), float)[:, None] * root
    orthogonal, triangle = np.linalg.qr(base)
    calls = np.maximum(law.spots[:, None] - strikes[chosen], 0.0) * root
    moments = orthogonal.T @ calls
    rest = calls - orthogonal @ moments
    unhedged = (values - orthogonal @ (orthogonal.T @ values))[:, 0]
    scale = np.maximum(np.linalg.norm(rest, axis=0), 1e-12 * centre)
    rest = rest / scale
    if cost_weight > 0.0:
        half_spread = 0.5 * (instruments.ask - instruments.bid)[chosen]
        penalty = 0.5 * cost_weight * half_spread / scale
        weights = penalised_regression(rest.T @ rest, rest.T @ unhedged, penalty)
    else:
        weights = np.linalg.lstsq(rest, unhedged, rcond=1e-13)[0]
        # Columns are of length one: what moves the hedge by less is rounding, no trade.
        weights[np.abs(weights) < 1e-9 * np.linalg.norm(unhedged)] = 0.0
    error = float(np.linalg.norm(unhedged - rest @ weights))
    weights = weights / scale
    line = np.linalg.solve(triangle, orthogonal.T @ values[:, 0] - moments @ weights)
    every = np.zeros(len(strikes))
    every[chosen] = weights
    slope = line[1] / centre
    portfolio = instruments.from_calls(line[0] - line[1], slope, every, payoff)
    return QuadraticHedge(portfolio, error, float(np.linalg.norm(unhedged)))


def penalised_regression(
    gram: np.ndarray, moments: np.ndarray, penalty: np.ndarray
) -> np.ndarray:
    r"""Minimise $\frac12 x^T G x - m^T x + \sum_i c_i |x_i|$, exactly.

    An active-set method (Lee, Battle, Raina and Ng, 2007): guess which are not zero
    and their signs, solve, and correct; every step makes the objective less.

    Args:
        gram: `G`, positive semi-definite, of shape `(n, n)`.
        moments: `m`, of shape `(n,)`.
        penalty: `c`, not negative, of shape `(n,)`.

    Returns:
        The minimiser, with exact zeros.

    Raises:
        FitError: If it does not end.

    References:
        Lee, H., Battle, A., Raina, R. and Ng, A. (2007). Efficient sparse coding
        algorithms. *Advances in Neural Information Processing Systems*, 19, 801-808.
    """
    size = len(moments)
    x, signs = np.zeros(size), np.zeros(size)
    tolerance = 1e-10 * max(float(np.abs(moments).max(initial=0.0)), 1e-300)
    ridge = 1e-13 * float(np.diagonal(gram).max(initial=0.0))
    for _ in range(_STEPS):
        slope = gram @ x - moments
        active = np.flatnonzero(signs)
        settled = np.abs(slope[active] + penalty[active] * signs[active]) <= tolerance
        if settled.all():
            excess = np.where(signs == 0.0, np.abs(slope) - penalty, -np.inf)
            enter = int(np.argmax(excess))
            if excess[enter] <= tolerance:
                return x
            signs[enter] = -np.sign(slope[enter])
            active = np.flatnonzero(signs)
        block = gram[np.ix_(active, active)] + ridge * np.eye(len(active))
        right = moments[active] - penalty[active] * signs[active]
        target = np.linalg.solve(block, right)
        # As far as the first that changes its sign, which then leaves.
        with np.errstate(divide="ignore", invalid="ignore"):
            share = x[active] / (x[active] - target)
        crosses = (target * signs[active] <= 0.0) & (x[active] != 0.0)
        share = np.where(crosses, share, 1.0)
        stop = float(share.min())
        x[active] = x[active] + stop * (target - x[active])
        if stop < 1.0 or crosses.any():
            x[active[crosses & (share <= stop)]] = 0.0
        signs = np.sign(x)
    raise FitError(
        f"the regression with costs did not end in {_STEPS} steps; lower `cost_weight` "
        "or use fewer strikes"
    )

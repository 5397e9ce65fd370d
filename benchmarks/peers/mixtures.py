"""Mixtures of lognormals: a few free components, or many of one width (SANOS)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import least_squares
from scipy.special import ndtr

from .convex import solve_least_squares
from .curve import (
    PeerCurve,
    Quotes,
    black_vega,
    cross_validate,
    implied_total_volatility,
    normal_density,
    read_quotes,
    wing_strikes,
)

RANDOM_STARTS = 2
# From the widest down: of two equals, cross-validation keeps the first.
KERNEL_PATH = (0.8, 0.65, 0.5, 0.4, 0.3, 0.25, 0.2, 0.15, 0.1, 0.05)
SANOS_DEVIATIONS = 6.0


@dataclass(frozen=True)
class MixtureCurve(PeerCurve):
    """Lognormal components with non-negative weights.

    Attributes:
        weights: Probability of each component; they add up to one.
        forwards: Mean of each component over the forward.
        total_volatilities: Total volatility of each component.
    """

    weights: np.ndarray
    forwards: np.ndarray
    total_volatilities: np.ndarray

    def time_value(self, moneyness: np.ndarray) -> np.ndarray:
        """Weighted out-of-the-money prices."""
        moneyness = np.asarray(moneyness, float)
        kernels = _kernel(moneyness, self.forwards, self.total_volatilities)
        return kernels @ self.weights

    def normalised_density(self, moneyness: np.ndarray) -> np.ndarray:
        """Exact: the weighted lognormal densities."""
        k = np.asarray(moneyness, float)[..., None]
        h = self.total_volatilities
        d2 = np.log(self.forwards / k) / h - 0.5 * h
        return (normal_density(d2) / (h * k)) @ self.weights


def _kernel(
    moneyness: np.ndarray, forwards: np.ndarray, total_volatilities: np.ndarray
) -> np.ndarray:
    """Put below one and call above one, for each component: `(..., components)`."""
    k = moneyness[..., None]
    sign = np.where(k >= 1.0, 1.0, -1.0)
    d1 = np.log(forwards / k) / total_volatilities + 0.5 * total_volatilities
    d2 = d1 - total_volatilities
    return sign * (forwards * ndtr(sign * d1) - k * ndtr(sign * d2))


def fit(
    strike: ArrayLike,
    volatility: ArrayLike,
    *,
    forward: float,
    time_to_expiry: float,
    weights: ArrayLike | None = None,
    bid: ArrayLike | None = None,
    ask: ArrayLike | None = None,
    components: int = 4,
) -> MixtureCurve:
    """Fit weights, means and widths of a few lognormal components by least squares.

    The weights are a softmax, the means are scaled to an average of one, the widths are
    exponentials, so the search is free of constraints. It starts from one component
    per part of the quoted range at several common widths, then from random
    perturbations of the best end so far; errors are errors of implied volatility. The
    objective has many local minima and nothing proves the best end to be the minimum.

    Args:
        strike: Strikes, in currency units, all different.
        volatility: Black volatilities, annualised.
        forward: Forward price, in currency units.
        time_to_expiry: Time to expiry, in years.
        weights: Weight of each squared volatility error; equal if not given.
        bid: Bid volatilities; with `ask`, errors are in units of the half-spread.
        ask: Ask volatilities.
        components: Number of lognormals; fewer where three parameters for each would
            outnumber the quotes.

    Returns:
        The fitted mixture.

    References:
        Brigo, D. and Mercurio, F. (2002). Lognormal-mixture dynamics and calibration to
        market volatility smiles. *International Journal of Theoretical and Applied
        Finance*, 5(4), 427-446.
    """
    quotes = read_quotes(
        strike,
        volatility,
        forward=forward,
        time_to_expiry=time_to_expiry,
        weights=weights,
        bid=bid,
        ask=ask,
    )
    count = max(1, min(components, (quotes.moneyness.size + 2) // 3))
    scale = quotes.scale
    root_weight = np.sqrt(quotes.weights)

    def unpack(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        logits, shifts, widths = np.split(theta, 3)
        mix = np.exp(logits - logits.max())
        mix = mix / mix.sum()
        means = np.exp(scale * shifts)
        return mix, means / (mix @ means), scale * np.exp(widths)

    def residuals(theta: np.ndarray) -> np.ndarray:
        return root_weight * (implied(theta) - quotes.total_volatility) / scale

    def implied(theta: np.ndarray) -> np.ndarray:
        mix, means, widths = unpack(theta)
        price = _kernel(quotes.moneyness, means, widths) @ mix
        price = np.clip(price, 1e-300, 0.999999 * np.minimum(quotes.moneyness, 1.0))
        guess = quotes.total_volatility
        return implied_total_volatility(quotes.moneyness, price, guess)

    def jacobian(theta: np.ndarray) -> np.ndarray:
        mix, means, widths = unpack(theta)
        k = quotes.moneyness[:, None]
        d1 = np.log(means / k) / widths + 0.5 * widths
        by_mean = (ndtr(d1) - (k < 1.0)) * mix * means
        # Every mean is divided by their average, which all parameters of means and
        # weights move.
        moved = by_mean.sum(axis=1, keepdims=True)
        by_weight = _kernel(quotes.moneyness, means, widths) - moved * means
        by_logit = mix * (by_weight - (by_weight @ mix)[:, None])
        by_shift = scale * (by_mean - moved * mix * means)
        by_width = mix * means * widths * normal_density(d1)
        by_price = root_weight / black_vega(quotes.moneyness, implied(theta)) / scale
        return by_price[:, None] * np.hstack([by_logit, by_shift, by_width])

    bounds = (
        np.repeat([-20.0, -15.0, np.log(0.2)], count),
        np.repeat([20.0, 15.0, np.log(10.0)], count),
    )
    rng = np.random.default_rng(0)
    centres = np.linspace(-2.0, 1.5, count) if count > 1 else np.zeros(1)
    starts = [
        np.concatenate(
            [-0.5 * centres**2, centres, np.full(count, np.log(width)) + tilt * centres]
        )
        for width in (0.4, 0.8)
        for tilt in (0.0, -0.15)
    ]
    best = None
    for attempt in range(len(starts) + RANDOM_STARTS):
        if best is None or attempt < len(starts):
            start = starts[attempt]
        else:
            start = best.x + rng.normal(0.0, [[2.0], [1.0], [0.5]], (3, count)).ravel()
        margin = 1e-6 * (bounds[1] - bounds[0])
        solution = least_squares(
            residuals,
            np.clip(start, bounds[0] + margin, bounds[1] - margin),
            jac=jacobian,  # pyright: ignore[reportArgumentType]
            bounds=bounds,
            max_nfev=60,
        )
        if best is None or solution.cost < best.cost:
            best = solution
    if best is None:
        raise RuntimeError("no starting point for the mixture")
    mix, means, widths = unpack(best.x)
    return MixtureCurve(
        name=f"{components} lognormals",
        forward=quotes.forward,
        time_to_expiry=quotes.time_to_expiry,
        weights=mix,
        forwards=means,
        total_volatilities=widths,
    )


def fit_sanos(
    strike: ArrayLike,
    volatility: ArrayLike,
    *,
    forward: float,
    time_to_expiry: float,
    weights: ArrayLike | None = None,
    bid: ArrayLike | None = None,
    ask: ArrayLike | None = None,
    kernel: float | str = 0.25,
    folds: int = 10,
) -> MixtureCurve:
    """Fit the weights of lognormals of one common width, centred at the strikes.

    The nodes are the quoted strikes and, beyond them, points at the spacing of the
    quotes' ends growing to six deviations. Weights are non-negative, add up to one and
    match the forward. The published fit is a linear programme on bid and ask; with one
    volatility for each quote it becomes least squares in volatility (errors of price
    over vega), a quadratic programme.

    Args:
        strike: Strikes, in currency units, all different.
        volatility: Black volatilities, annualised.
        forward: Forward price, in currency units.
        time_to_expiry: Time to expiry, in years.
        weights: Weight of each squared volatility error; equal if not given.
        bid: Bid volatilities; with `ask`, errors are in units of the half-spread.
        ask: Ask volatilities.
        kernel: Width of every lognormal as a fraction of the total volatility at the
            money, or "cross-validation" for the one of `KERNEL_PATH` with the least
            squared error on left-out quotes.
        folds: Into how many interleaved parts cross-validation divides the quotes.

    Returns:
        The fitted mixture.

    References:
        Buehler, H., Horvath, B., Kratsios, A., Limmer, Y. and Saqur, R. (2026). SANOS.
        arXiv:2601.11209.
    """
    quotes = read_quotes(
        strike,
        volatility,
        forward=forward,
        time_to_expiry=time_to_expiry,
        weights=weights,
        bid=bid,
        ask=ask,
    )
    if isinstance(kernel, str):
        width = cross_validate(
            quotes,
            KERNEL_PATH,
            lambda part, width: _solve_sanos(part, width, "part"),
            folds=folds,
            fallback=0.25,
        )
        return _solve_sanos(quotes, width, "SANOS (cross-validated)")
    return _solve_sanos(quotes, kernel, f"SANOS ({kernel:g})")


def _solve_sanos(quotes: Quotes, kernel: float, name: str) -> MixtureCurve:
    """Solve the quadratic programme for one kernel width."""
    width = kernel * quotes.scale
    below, above = wing_strikes(quotes, SANOS_DEVIATIONS)
    nodes = np.concatenate([below, quotes.moneyness, above])
    widths = np.full(nodes.size, width)
    # Errors in thousandths of the volatility at the money, so that the solver's
    # absolute tolerances are small beside them.
    row = 1e3 * np.sqrt(quotes.weights) / (quotes.vega * quotes.scale)
    matrix = row[:, None] * _kernel(quotes.moneyness, nodes, widths)
    target = row * quotes.time_value
    solution = solve_least_squares(
        matrix,
        target,
        np.stack([np.ones_like(nodes), nodes]),
        np.array([1.0, 1.0]),
        accept_reduced=True,
    )
    return MixtureCurve(
        name=name,
        forward=quotes.forward,
        time_to_expiry=quotes.time_to_expiry,
        weights=solution.x,
        forwards=nodes,
        total_volatilities=widths,
    )

"""Fengler's arbitrage-free smoothing spline for one expiry."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from .convex import solve_least_squares
from .curve import PeerCurve, Quotes, cross_validate, read_quotes, wing_strikes

SMALL_SMOOTHING = 1e-6
# From the smoothest down: of two equals, cross-validation keeps the first.
SMOOTHING_PATH = tuple(10.0 ** np.arange(0.5, -6.1, -0.5))
WING_DEVIATIONS = 8.0


@dataclass(frozen=True)
class FenglerCurve(PeerCurve):
    """A natural cubic spline of call prices over standardised strikes.

    The spline is kept as its density: a combination of hat functions, straight between
    knots and zero at the first and last, and what lies beyond them.

    Attributes:
        scale: Total volatility at the money; a standardised strike is
            `(strike / forward - 1) / scale` and prices are in the same unit.
        knots: Standardised strikes, increasing, of shape `(n,)`.
        masses: Probability of each hat, of shape `(n - 2,)`.
        tails: Probability below the first knot, price of the put struck there,
            probability above the last knot, price of the call struck there.
        smoothing: The penalty on the squared second derivative that was used.
    """

    scale: float
    knots: np.ndarray
    masses: np.ndarray
    tails: np.ndarray
    smoothing: float

    def time_value(self, moneyness: np.ndarray) -> np.ndarray:
        """The spline less intrinsic value; straight beyond the outermost knots."""
        x = (np.asarray(moneyness, float) - 1.0) / self.scale
        weights = np.concatenate([self.masses, self.tails])
        return self.scale * (_time_value_matrix(self.knots, x) @ weights)

    def normalised_density(self, moneyness: np.ndarray) -> np.ndarray:
        """Exact: the spline's second derivative, straight between knots."""
        x = (np.asarray(moneyness, float) - 1.0) / self.scale
        heights = np.concatenate([[0.0], self.masses / _areas(self.knots), [0.0]])
        return np.interp(x, self.knots, heights, left=0.0, right=0.0) / self.scale


def fit(
    strike: ArrayLike,
    volatility: ArrayLike,
    *,
    forward: float,
    time_to_expiry: float,
    weights: ArrayLike | None = None,
    bid: ArrayLike | None = None,
    ask: ArrayLike | None = None,
    smoothing: float | str = "cross-validation",
    wings: bool = True,
    folds: int = 10,
) -> FenglerCurve:
    r"""Fit a natural cubic spline of call prices without butterfly arbitrage.

    With $g$ the prices at the knots $u$ and $\gamma$ the spline's second derivatives,
    the fit minimises

    $$
    \sum_i \omega_i \left(\frac{g_i - y_i}{\nu_i}\right)^2
    + \lambda \int g''(u)^2 du, \qquad Q'g = R\gamma, \quad \gamma \ge 0,
    $$

    with slopes between -1 and 0 at the two ends and prices not below intrinsic value.
    $Q$ and $R$ are the matrices of Green and Silverman; $\nu$ is the vega of the quote,
    so errors are errors of volatility, here as a fraction of the volatility at the
    money. Strikes and prices are in units of the forward times the total volatility at
    the money, which makes $\lambda$ a pure number that means the same at every expiry.

    As published, the knots are the quoted strikes and the density is zero at the first
    and last of them (`wings=False`). That costs accuracy near both ends, so by default
    knots without quotes are added down to a strike of zero, where the price is the
    forward, and up to eight deviations, where it is zero: the density then falls to
    zero there instead, and the spline prices the forward exactly. It is the stronger
    version, and complete: nothing is extrapolated, except that beyond the last knot
    the price is zero. Without wings the price is continued along the tangents.

    Args:
        strike: Strikes, in currency units, all different.
        volatility: Black volatilities, annualised.
        forward: Forward price, in currency units.
        time_to_expiry: Time to expiry, in years.
        weights: Weight of each squared volatility error; equal if not given.
        bid: Bid volatilities; with `ask`, errors are in units of the half-spread.
        ask: Ask volatilities.
        smoothing: $\lambda$, or "cross-validation" for the one of `SMOOTHING_PATH`
            with the least squared error on left-out quotes (below five quotes, too
            few to leave any out, `SMALL_SMOOTHING`).
        wings: Whether to add knots beyond the quoted strikes.
        folds: Into how many interleaved parts cross-validation divides the quotes;
            as many as there are inner quotes is leave-one-out.

    Returns:
        The fitted spline.

    Raises:
        RuntimeError: If the solver fails.

    References:
        Fengler, M. (2009). Arbitrage-free smoothing of the implied volatility surface.
        *Quantitative Finance*, 9(4), 417-428.
        Green, P. and Silverman, B. (1994). *Nonparametric Regression and Generalized
        Linear Models*. Chapman and Hall.
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
    chosen = isinstance(smoothing, str)
    if isinstance(smoothing, str):
        level = cross_validate(
            quotes,
            SMOOTHING_PATH,
            lambda part, level: _fit_spline(part, level, wings, "part"),
            folds=folds,
            fallback=SMALL_SMOOTHING,
        )
    else:
        level = smoothing
    label = "cross-validated" if chosen else f"λ={level:.0e}"
    ends = "" if wings else ", as published"
    return _fit_spline(quotes, level, wings, f"Fengler ({label}{ends})")


def _areas(knots: np.ndarray) -> np.ndarray:
    """Area of each hat function of height one, of shape `(n - 2,)`."""
    return 0.5 * (knots[2:] - knots[:-2])


def _hat_puts(knots: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Put prices at `x` under each hat function of mass one, `(x.size, n - 2)`."""
    left, middle, right = knots[:-2], knots[1:-1], knots[2:]
    x = x[:, None]
    rise, fall = middle - left, right - middle
    first = np.maximum(x - left, 0.0) ** 3 / (6.0 * rise)
    second = np.maximum(x - middle, 0.0) ** 3 * (1.0 / rise + 1.0 / fall) / 6.0
    inside = (first - second) / _areas(knots)
    return np.where(x < right, inside, x - (left + middle + right) / 3.0)


def _time_value_matrix(knots: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Out-of-the-money prices at `x` per unit of each hat and each of the tails.

    Every entry is non-negative: a price far from the money is a sum of small numbers,
    not a difference of large ones.
    """
    shape = x.shape
    x = x.ravel()
    is_put = (x < 0.0)[:, None]
    hats = np.where(is_put, _hat_puts(knots, x), _hat_puts(-knots[::-1], -x)[:, ::-1])
    above, below = x - knots[0], knots[-1] - x
    puts = np.stack([above, np.ones_like(x), 0.0 * x, 0.0 * x], axis=1)
    calls = np.stack([0.0 * x, 0.0 * x, below, np.ones_like(x)], axis=1)
    matrix = np.concatenate([hats, np.where(is_put, puts, calls)], axis=1)
    return matrix.reshape(*shape, -1)


def _fit_spline(
    quotes: Quotes, smoothing: float, wings: bool, name: str
) -> FenglerCurve:
    """Solve the quadratic programme for one smoothing parameter."""
    scale = quotes.scale
    empty = np.empty(0)
    below, above = wing_strikes(quotes, WING_DEVIATIONS) if wings else (empty, empty)
    zero = np.zeros(1 if wings else 0)
    moneyness = np.concatenate([zero, below, quotes.moneyness, above])
    knots = (moneyness - 1.0) / scale
    hats = knots.size - 2
    tails = 0 if wings else 4
    n = hats + tails

    # Errors in thousandths of the volatility at the money, so that the solver's
    # absolute tolerances are small beside them.
    x = (quotes.moneyness - 1.0) / scale
    row = 1e3 * np.sqrt(quotes.weights) / quotes.vega
    matrix = row[:, None] * _time_value_matrix(knots, x)[:, :n]
    target = row * quotes.time_value / scale

    # The integral of the squared second derivative, in terms of the masses.
    h = np.diff(knots)
    diagonal, beside = (h[:-1] + h[1:]) / 3.0, h[1:-1] / 6.0
    penalty = np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1)
    penalty = penalty / np.outer(_areas(knots), _areas(knots))
    padded = np.zeros((n, n))
    padded[:hats, :hats] = 1e6 * smoothing * penalty
    # Probability one, and at the forward call and put are worth the same.
    means = (knots[:-2] + knots[1:-1] + knots[2:]) / 3.0
    totals = np.concatenate([np.ones(hats), [1.0, 0.0, 1.0, 0.0]])[:n]
    forwards = np.concatenate([means, [knots[0], -1.0, knots[-1], 1.0]])[:n]
    solution = solve_least_squares(
        matrix,
        target,
        np.stack([totals, forwards]),
        np.array([1.0, 0.0]),
        penalty=padded,
        accept_reduced=True,
    )
    weights = np.zeros(hats + 4)
    weights[:n] = solution.x
    return FenglerCurve(
        name=name,
        forward=quotes.forward,
        time_to_expiry=quotes.time_to_expiry,
        scale=scale,
        knots=knots,
        masses=weights[:hats],
        tails=weights[hats:],
        smoothing=smoothing,
    )

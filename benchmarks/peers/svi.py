"""Gatheral's raw SVI for one expiry."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import least_squares

from .curve import PeerCurve, Quotes, black_time_value, normal_density, read_quotes

STARTS = 6
CENTRES = 15
WIDTHS = 12


@dataclass(frozen=True)
class SVICurve(PeerCurve):
    r"""Total variance $a + b(\rho(x - m) + \sqrt{(x - m)^2 + \sigma^2})$.

    Here $x$ is the logarithm of strike over forward.

    Attributes:
        a: Level.
        b: Steepness of the wings.
        rho: Their asymmetry, between -1 and 1.
        m: Centre, in log-moneyness.
        sigma: Width of the vertex, in log-moneyness.
    """

    a: float
    b: float
    rho: float
    m: float
    sigma: float

    def total_variance(self, log_moneyness: np.ndarray) -> np.ndarray:
        """Variance times time to expiry."""
        y = log_moneyness - self.m
        return self.a + self.b * (self.rho * y + np.hypot(y, self.sigma))

    def __call__(self, strike: ArrayLike) -> np.ndarray:
        """Black volatility at `strike`, without a detour over prices."""
        x = np.log(np.asarray(strike, float) / self.forward)
        return np.sqrt(self.total_variance(x) / self.time_to_expiry)

    def time_value(self, moneyness: np.ndarray) -> np.ndarray:
        """Black's formula at the fitted volatility."""
        total = np.sqrt(self.total_variance(np.log(moneyness)))
        return black_time_value(np.asarray(moneyness, float), total)

    def normalised_density(self, moneyness: np.ndarray) -> np.ndarray:
        """Exact, from the first two derivatives of the total variance."""
        x = np.log(moneyness)
        y = x - self.m
        root = np.hypot(y, self.sigma)
        w = self.total_variance(x)
        slope = self.b * (self.rho + y / root)
        curvature = self.b * self.sigma**2 / root**3
        factor = (
            (1.0 - 0.5 * x * slope / w) ** 2
            - 0.25 * slope**2 * (1.0 / w + 0.25)
            + 0.5 * curvature
        )
        d2 = -x / np.sqrt(w) - 0.5 * np.sqrt(w)
        return factor * normal_density(d2) / np.sqrt(w) / moneyness


def fit(
    strike: ArrayLike,
    volatility: ArrayLike,
    *,
    forward: float,
    time_to_expiry: float,
    weights: ArrayLike | None = None,
    bid: ArrayLike | None = None,
    ask: ArrayLike | None = None,
) -> SVICurve:
    r"""Fit the five parameters of raw SVI to volatilities by least squares.

    Starting points are quasi-explicit: for each centre $m$ and width $\sigma$ of a
    grid, total variance is linear in the other three parameters, which one small
    linear regression gives. The best few of them are polished by
    `scipy.optimize.least_squares` in all five, on errors of volatility, and the best
    end is kept. The parameters searched, minimum variance
    $a + b\sigma\sqrt{1 - \rho^2} \ge 0$, the steeper wing's slope
    $b(1 + |\rho|) \in [0, 2]$, $\rho$, $m$ and $\log\sigma$, turn the conditions for
    positive variance and for Lee's slopes into bounds. The absence of butterfly
    arbitrage inside is not imposed: raw SVI as used, at its most accurate.

    Fewer than five quotes do not determine five parameters; $\rho$, $m$ and $\sigma$
    are then drawn weakly towards a symmetric smile of the width of the quotes.

    Args:
        strike: Strikes, in currency units, all different.
        volatility: Black volatilities, annualised.
        forward: Forward price, in currency units.
        time_to_expiry: Time to expiry, in years.
        weights: Weight of each squared volatility error; equal if not given.
        bid: Bid volatilities; with `ask`, errors are in units of the half-spread.
        ask: Ask volatilities.

    Returns:
        The fitted curve.

    References:
        Gatheral, J. (2004). A parsimonious arbitrage-free implied volatility
        parameterization. *Global Derivatives*, Madrid.
        Zeliade Systems (2009). Quasi-explicit calibration of Gatheral's SVI model.
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
    # Everything in standardised units: log-moneyness over the total volatility at the
    # money, volatility as a fraction of that at the money.
    scale = quotes.scale
    x = quotes.log_moneyness / scale
    quoted = quotes.total_volatility / scale
    root_weight = np.sqrt(quotes.weights)
    pull = 1e-3 if x.size < 5 else 0.0
    centre = np.array([0.0, 0.0, np.log(np.ptp(x))])

    def residuals(parameters: np.ndarray) -> np.ndarray:
        minimum, slope, rho, m, log_sigma = parameters
        sigma, b = np.exp(log_sigma), slope / (1.0 + abs(rho))
        y = x - m
        shape = rho * y + np.hypot(y, sigma) - sigma * np.sqrt(1.0 - rho * rho)
        errors = root_weight * (
            np.sqrt(np.maximum(minimum + b * shape, 1e-12)) - quoted
        )
        if pull:
            errors = np.append(errors, pull * (parameters[2:] - centre))
        return errors

    def jacobian(parameters: np.ndarray) -> np.ndarray:
        minimum, slope, rho, m, log_sigma = parameters
        sigma, b = np.exp(log_sigma), slope / (1.0 + abs(rho))
        y = x - m
        root, cosine = np.hypot(y, sigma), np.sqrt(1.0 - rho * rho)
        shape = rho * y + root - sigma * cosine
        variance = np.maximum(minimum + b * shape, 1e-12)
        by_parameter = np.stack(
            [
                np.ones_like(x),
                shape / (1.0 + abs(rho)),
                b * (y + sigma * rho / cosine - np.sign(rho) * shape / (1 + abs(rho))),
                -b * (rho + y / root),
                b * sigma * (sigma / root - cosine),
            ],
            axis=1,
        )
        by_parameter *= (0.5 * root_weight / np.sqrt(variance))[:, None]
        if pull:
            by_parameter = np.vstack([by_parameter, pull * np.eye(5)[2:]])
        return by_parameter

    steepest = 2.0 / scale
    reach = np.ptp(x) + 1.0
    lower = np.array([0.0, 0.0, -0.9999, x[0] - reach, np.log(1e-3)])
    upper = np.array([4.0, steepest, 0.9999, x[-1] + reach, np.log(20.0 * reach)])
    best = None
    for start in _quasi_explicit_starts(quotes, x, quoted, steepest):
        margin = 1e-6 * (upper - lower)
        solution = least_squares(
            residuals,
            np.clip(start, lower + margin, upper - margin),
            jac=jacobian,  # pyright: ignore[reportArgumentType]
            bounds=(lower, upper),
            x_scale=np.array([0.1, 0.1, 0.1, 0.1, 0.3]),
            ftol=1e-9,
            xtol=1e-9,
            gtol=1e-9,
            max_nfev=300,
        )
        if best is None or solution.cost < best.cost:
            best = solution
    if best is None:
        raise RuntimeError("no starting point for SVI")
    minimum, slope, rho, m, log_sigma = best.x
    sigma, b = np.exp(log_sigma), slope / (1.0 + abs(rho))
    level = minimum - b * sigma * np.sqrt(1.0 - rho * rho)
    return SVICurve(
        name="SVI",
        forward=quotes.forward,
        time_to_expiry=quotes.time_to_expiry,
        a=float(scale**2 * level),
        b=float(scale * b),
        rho=float(rho),
        m=float(scale * m),
        sigma=float(scale * sigma),
    )


def _quasi_explicit_starts(
    quotes: Quotes, x: np.ndarray, quoted: np.ndarray, steepest: float
) -> list[np.ndarray]:
    """The best few of a grid of centres and widths, the rest solved for.

    The regression on 1, y and sqrt(y² + 1) of the total variance leaves its
    coefficients free; where they break the bounds of SVI they are clipped to them and
    the error is taken after clipping.
    """
    # The error of a variance is twice the volatility times the error of a volatility.
    row = np.sqrt(quotes.weights) / (2.0 * quoted)
    spread = np.ptp(x)
    sigmas = np.geomspace(0.02 * spread, 2.0 * spread, WIDTHS)
    centres = np.linspace(x[0] - 0.3 * spread, x[-1] + 0.3 * spread, CENTRES)
    sigma, m = (axis.ravel() for axis in np.meshgrid(sigmas, centres))
    y = (x - m[:, None]) / sigma[:, None]
    columns = np.stack([np.ones_like(y), y, np.hypot(y, 1.0)], axis=2)
    weighted = row[:, None] * columns
    normal = np.swapaxes(weighted, 1, 2) @ weighted
    # A little ridge keeps the regression solvable where the columns coincide.
    ridge = 1e-10 * np.trace(normal, axis1=1, axis2=2)[:, None, None] * np.eye(3)
    sides = np.swapaxes(weighted, 1, 2) @ (row * quoted**2)[:, None]
    solution = np.linalg.solve(normal + ridge, sides)[..., 0]
    c = np.clip(solution[:, 2], 1e-8, steepest * sigma)
    d = np.clip(solution[:, 1], -0.999 * c, 0.999 * c)
    shift = c[:, None] * columns[..., 2] + d[:, None] * columns[..., 1]
    a = np.average(quoted**2 - shift, weights=row**2, axis=1)
    vertex = np.sqrt(c * c - d * d)
    a = np.maximum(a, -vertex)
    error = np.sum((row * (a[:, None] + shift - quoted**2)) ** 2, axis=1)
    rho = d / c
    slope = c / sigma * (1.0 + np.abs(rho))
    found = np.stack([a + vertex, slope, rho, m, np.log(sigma)], axis=1)
    # Neighbours on the grid lead to the same end: take starts of different widths.
    starts: list[np.ndarray] = []
    for start in found[np.argsort(error)]:
        if all(abs(start[4] - other[4]) > 0.1 for other in starts):
            starts.append(start)
        if len(starts) == STARTS:
            break
    return starts

r"""Raw SVI, a parametric smile to compare with.

$$ w(x) = a + b \left( \rho (x - m) + \sqrt{(x - m)^2 + \sigma^2} \right) $$

is total variance at the log-moneyness $x = \log(K / F)$.

References:
    Gatheral, J. (2004). A parsimonious arbitrage-free implied volatility
    parameterization. *Global Derivatives*, Madrid.
    Zeliade Systems (2009). Quasi-explicit calibration of Gatheral's SVI model. White
    paper.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

CENTRES = np.linspace(-1.5, 1.5, 7)  # of starting points, in at-the-money deviations
WIDTHS = np.geomspace(0.1, 3.0, 6)
LEAST_VARIANCE = 1e-10


@dataclass(frozen=True)
class SVI:
    """Five parameters of one expiry's total variance.

    Attributes:
        a: Level.
        b: Steepness of the wings.
        rho: Their asymmetry, between -1 and 1.
        m: Centre, in log-moneyness.
        sigma: Width of the vertex, in log-moneyness.

    Examples:
        >>> smile = SVI(a=0.01, b=0.1, rho=-0.5, m=0.0, sigma=0.1)
        >>> round(float(smile.total_variance(0.0)), 6)
        0.02
    """

    a: float
    b: float
    rho: float
    m: float
    sigma: float

    def total_variance(self, log_moneyness: np.ndarray) -> np.ndarray:
        """Variance times time to expiry, at log(strike / forward)."""
        y = np.asarray(log_moneyness) - self.m
        variance = self.a + self.b * (self.rho * y + np.hypot(y, self.sigma))
        return np.maximum(variance, LEAST_VARIANCE)


def fit_svi(
    log_moneyness: np.ndarray, total_volatility: np.ndarray, weights: np.ndarray
) -> SVI:
    """Fit raw SVI to total volatilities by weighted least squares.

    Args:
        log_moneyness: log(strike / forward), of shape `(n,)`.
        total_volatility: Volatility times the root of time, of shape `(n,)`.
        weights: Of the errors of total volatility, of shape `(n,)`.

    Returns:
        The end of a local search from the best of a grid of centres and widths, for
        which the other three parameters are a linear regression (Zeliade, 2009).
        Minimum variance and wings are bounded as they must be; the absence of butterfly
        arbitrage between is not imposed.

    Examples:
        >>> x = np.linspace(-0.3, 0.2, 21)
        >>> true = SVI(a=0.01, b=0.1, rho=-0.5, m=0.02, sigma=0.1)
        >>> found = fit_svi(x, np.sqrt(true.total_variance(x)), np.ones(21))
        >>> round(found.rho, 4), round(found.sigma, 4)
        (-0.5, 0.1)
    """
    scale = float(np.interp(0.0, *_sorted(log_moneyness, total_volatility)))
    x, quoted = log_moneyness / scale, total_volatility / scale
    weights = weights / np.sqrt(np.mean(np.square(weights)))

    def smile(p: np.ndarray) -> SVI:
        # Minimum variance and the slope of the steeper wing are bounded, not a and b.
        least, steepest, rho, m, log_sigma = p
        sigma, b = np.exp(log_sigma), steepest / (1.0 + abs(rho))
        return SVI(least - b * sigma * np.sqrt(1.0 - rho * rho), b, rho, m, sigma)

    def errors(p: np.ndarray) -> np.ndarray:
        return weights * (np.sqrt(smile(p).total_variance(x)) - quoted)

    reach = float(np.ptp(x)) + 1.0
    lower = np.array([0.0, 0.0, -0.999, x.min() - reach, np.log(1e-3)])
    upper = np.array([4.0, 2.0 / scale, 0.999, x.max() + reach, np.log(20.0 * reach)])
    margin = 1e-6 * (upper - lower)
    start = _start(x, quoted, weights, steepest=upper[1])
    best = least_squares(
        errors,
        np.clip(start, lower + margin, upper - margin),
        bounds=(lower, upper),
        x_scale=[0.1, 0.1, 0.1, 0.1, 0.3],
        ftol=1e-10,
        xtol=1e-10,
        max_nfev=300,
    )
    found = smile(best.x)
    return SVI(
        a=float(scale**2 * found.a),
        b=float(scale * found.b),
        rho=float(found.rho),
        m=float(scale * found.m),
        sigma=float(scale * found.sigma),
    )


def _start(
    x: np.ndarray, quoted: np.ndarray, weights: np.ndarray, *, steepest: float
) -> np.ndarray:
    """Parameters of the search from which it starts, by linear regressions."""
    # The error of a variance is twice the volatility times the error of a volatility.
    row = weights / (2.0 * quoted)
    starts = []
    for m in CENTRES:
        for sigma in WIDTHS:
            y = x - m
            columns = np.stack([np.ones_like(y), y, np.hypot(y, sigma)], axis=1)
            solved = np.linalg.lstsq(
                row[:, None] * columns, row * quoted**2, rcond=None
            )[0]
            b = float(np.clip(solved[2], 1e-6, steepest))
            rho = float(np.clip(solved[1] / b, -0.99, 0.99))
            shape = b * (rho * y + columns[:, 2])
            a = float(np.average(quoted**2 - shape, weights=row**2))
            error = float(np.sum((row * (a + shape - quoted**2)) ** 2))
            least = a + b * sigma * np.sqrt(1.0 - rho * rho)
            starts.append((error, least, b * (1.0 + abs(rho)), rho, m, np.log(sigma)))
    return np.array(min(starts)[1:])


def _sorted(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points by increasing `x`."""
    order = np.argsort(x)
    return x[order], y[order]

"""The SVI family on a whole surface: slice by slice, SSVI and eSSVI."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from . import svi
from .curve import Quotes
from .surface import VarianceSurface, neighbours, surface_terms

LARGEST_RHO = 0.999
LEAST_POWER, LARGEST_POWER = 0.01, 0.99
DIFFERENCE = 1e-7  # step of the derivatives of slices by free parameters
FIRST_RHOS = (-0.8, -0.5, -0.2, 0.2)
FIRST_SHARES = (0.2, 0.5, 0.8)
POLISHED = 3  # starting points that are followed to their end


@dataclass(frozen=True)
class SVISlices(VarianceSurface):
    """Raw SVI at each expiry; total variance linear in time at each log-moneyness.

    Nothing orders the slices. Before the first and after the last, total variance is
    proportional to time.

    Attributes:
        slices: One for each expiry, in order of time.
    """

    slices: tuple[svi.SVICurve, ...]

    def total_variance(
        self, log_moneyness: np.ndarray, time: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Total variance and its first two derivatives in log-moneyness."""
        total = np.zeros((3, *np.shape(log_moneyness)))
        for weight, place in neighbours(self.times, time):
            curve = self.slices[place]
            y = log_moneyness - curve.m
            root = np.hypot(y, curve.sigma)
            total[0] += weight * curve.total_variance(log_moneyness)
            total[1] += weight * curve.b * (curve.rho + y / root)
            total[2] += weight * curve.b * curve.sigma**2 / root**3
        return total[0], total[1], total[2]


@dataclass(frozen=True)
class SSVISurface(VarianceSurface):
    r"""Slices $\tfrac12(\theta + \rho\psi x + \sqrt{(\psi x + \rho\theta)^2 + (1 - \rho^2)\theta^2})$.

    Here $x$ is log(strike / forward), $\theta$ the total variance at the money and
    $\psi = \theta\varphi$. Between the expiries $\theta$ is linear in time. Before the
    first $\theta$ and $\psi$ are proportional to time; after the last $\theta$ goes on
    at the rate of the last two expiries.

    Attributes:
        theta: Total variance at the money at each expiry, `(n,)`.
        rho: Asymmetry at each expiry, `(n,)`.
        psi: Steepness at each expiry, `(n,)`.
        power_law: $\eta$ and $\gamma$ of $\varphi(\theta) = \eta / (\theta^\gamma
            (1 + \theta)^{1 - \gamma})$, which then holds between and after the
            expiries too (SSVI); or None, when $\psi$ and $\rho\psi$ are linear in
            $\theta$'s share of the way and stay after the last (eSSVI).
    """  # noqa: E501

    theta: np.ndarray
    rho: np.ndarray
    psi: np.ndarray
    power_law: tuple[float, float] | None = None

    def parameters(self, time: float) -> tuple[float, float, float]:
        """Theta, rho and psi at a time."""
        if time <= self.times[0]:
            share = time / self.times[0]
            return share * self.theta[0], float(self.rho[0]), share * self.psi[0]
        theta = float(np.interp(time, self.times, self.theta))
        if time > self.times[-1]:
            # One expiry has but its own rate.
            ends = np.append(0.0, self.times)[-2:], np.append(0.0, self.theta)[-2:]
            rate = np.diff(ends[1])[0] / np.diff(ends[0])[0]
            theta += float(rate) * (time - float(self.times[-1]))
        if self.power_law is not None:
            return theta, float(self.rho[0]), float(_power_psi(theta, *self.power_law))
        psi = float(np.interp(time, self.times, self.psi))
        slope = float(np.interp(time, self.times, self.rho * self.psi))
        return theta, slope / psi if psi > 0.0 else float(self.rho[0]), psi

    def total_variance(
        self, log_moneyness: np.ndarray, time: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Total variance and its first two derivatives in log-moneyness."""
        theta, rho, psi = self.parameters(time)
        y = psi * log_moneyness + rho * theta
        root = np.hypot(y, theta * np.sqrt(1.0 - rho * rho))
        return (
            0.5 * (theta + rho * psi * log_moneyness + root),
            0.5 * psi * (rho + y / root),
            0.5 * (psi * theta) ** 2 * (1.0 - rho * rho) / root**3,
        )


def fit_slices(quotes: Sequence[Quotes]) -> SVISlices:
    """Fit raw SVI to each expiry by itself: `svi.fit`."""
    times, forwards = surface_terms(quotes)
    slices = tuple(
        svi.fit(
            item.forward * item.moneyness,
            item.total_volatility / np.sqrt(item.time_to_expiry),
            forward=item.forward,
            time_to_expiry=item.time_to_expiry,
            weights=item.weights,
        )
        for item in quotes
    )
    return SVISlices("SVI, slice by slice", times, forwards, slices)


def fit_ssvi(quotes: Sequence[Quotes]) -> SSVISurface:
    r"""Fit Gatheral and Jacquier's surface to all expiries at once.

    One $\rho$ and the power law $\varphi(\theta) = \eta/(\theta^\gamma(1 + \theta)^{1 -
    \gamma})$ for all expiries, and a $\theta$ for each, by least squares on errors of
    volatility. The surface is free of static arbitrage because $\theta$ increases,
    $0 < \gamma < 1$, and

    $$
    \theta\varphi(\theta)(1 + |\rho|) \le 4, \qquad
    \theta\varphi(\theta)^2(1 + |\rho|) \le 4 \qquad (\theta \ge \theta_1),
    $$

    which bound $\eta$ in terms of $\rho$, $\gamma$ and $\theta_1$: the fit moves the
    share of that bound. (For all $\theta > 0$ one would need $\gamma \le 1/2$; here
    $\varphi$ is constant before the first expiry instead, which lets short smiles be
    steeper.)

    Args:
        quotes: The expiries in order of time.

    Returns:
        The fitted surface.

    References:
        Gatheral, J. and Jacquier, A. (2014). Arbitrage-free SVI volatility surfaces.
        *Quantitative Finance*, 14(1), 59-71.
    """
    times, forwards = surface_terms(quotes)
    n = len(quotes)
    rises, scale = _variance_rises(quotes)

    def slices(free: np.ndarray) -> np.ndarray:
        """Theta, rho and psi of each expiry, `(3, n)`."""
        theta = np.cumsum(scale * free[:n])
        rho, power = free[n], free[n + 2]
        eta = free[n + 1] * _largest_eta(theta[0], rho, power)
        return np.stack([theta, np.full(n, rho), _power_psi(theta, eta, power)])

    lower = np.concatenate([[1e-3], np.zeros(n - 1), [-LARGEST_RHO, 0.0, LEAST_POWER]])
    upper = np.concatenate([np.full(n, np.inf), [LARGEST_RHO, 1.0, LARGEST_POWER]])
    starts = [
        np.concatenate([rises / scale, [rho, share, power]])
        for rho in FIRST_RHOS
        for share in FIRST_SHARES
        for power in (0.3, 0.5, 0.7)
    ]
    free = _least_squares(quotes, slices, starts, lower, upper)
    theta, rho, psi = slices(free)
    eta = free[n + 1] * _largest_eta(theta[0], rho[0], free[n + 2])
    law = (float(eta), float(free[n + 2]))
    return SSVISurface("SSVI", times, forwards, theta, rho, psi, law)


def fit_essvi(quotes: Sequence[Quotes], *, together: bool = True) -> SSVISurface:
    r"""Fit the extended SSVI surface, in which every expiry has its own $\rho$.

    Two slices, the earlier one first, have no calendar arbitrage if

    $$
    |\rho_2\psi_2 - \rho_1\psi_1| \le \psi_2 - \psi_1, \qquad
    \psi_2 / \theta_2 \le \psi_1 / \theta_1,
    $$

    and a slice has no butterfly arbitrage if $\psi(1 + |\rho|) \le 4$ and
    $\psi^2(1 + |\rho|) \le 4\theta$. With $p = \max(\frac{1 + \rho_1}{1 + \rho_2},
    \frac{1 - \rho_1}{1 - \rho_2})$ these say $\psi_1 p \le \psi_2$ and bounds from
    above, and $\theta_2 \ge p\,\theta_1$. So the free parameters of a slice are
    $\rho$, the excess of $\theta$ over its lower bound and $\psi$'s share of the way
    from its lower to its upper bound, and every choice of them is free of arbitrage.

    The expiries are fitted in order of time, each below the bounds that the one before
    leaves (Corbetta et al.), with $\theta$ free instead of tied to the quote nearest
    the money. With `together` that is the starting point of a fit of all expiries at
    once, whose upper bounds look ahead to all later slices (Mingone).

    Args:
        quotes: The expiries in order of time.
        together: Whether to go on to the fit of all expiries at once.

    Returns:
        The fitted surface.

    References:
        Hendriks, S. and Martini, C. (2019). The extended SSVI volatility surface.
        *Journal of Computational Finance*, 22(5), 25-39.
        Corbetta, J., Cohort, P., Laachir, I. and Martini, C. (2019). Robust calibration
        and arbitrage-free interpolation of SSVI slices. *Decisions in Economics and
        Finance*, 42, 665-677.
        Mingone, A. (2022). No arbitrage global parametrization for the eSSVI volatility
        surface. *Quantitative Finance*, 22(12), 2205-2217.
    """
    times, forwards = surface_terms(quotes)
    found = _sequential(quotes)
    if not together:
        return SSVISurface("eSSVI, in turn", times, forwards, *found)
    n = len(quotes)
    scale = _variance_rises(quotes)[1]
    lower = np.concatenate([np.full(n, -LARGEST_RHO), np.zeros(n), np.zeros(n)])
    lower[n] = 1e-3
    upper = np.concatenate([np.full(n, LARGEST_RHO), np.full(n, np.inf), np.ones(n)])

    def slices(free: np.ndarray) -> np.ndarray:
        """Theta, rho and psi of each expiry, `(3, n)`."""
        return _ordered_slices(free[:n], scale * free[n : 2 * n], free[2 * n :])

    excess, share = _shares(*found)
    start = np.concatenate([found[1], excess / scale, share])
    free = _least_squares(quotes, slices, [start], lower, upper)
    return SSVISurface("eSSVI, together", times, forwards, *slices(free))


def _power_psi(theta: np.ndarray | float, eta: float, power: float):
    """Theta times phi of the power law."""
    return eta * (theta / (1.0 + theta)) ** (1.0 - power)


def _largest_eta(theta: float, rho: float, power: float) -> float:
    """The largest eta without butterfly arbitrage from `theta` on."""
    worst = max(theta, 1.0 - 2.0 * power)
    steepest = worst ** (1.0 - 2.0 * power) * (1.0 + worst) ** (2.0 * power - 2.0)
    return min(4.0 / (1.0 + abs(rho)), 2.0 / np.sqrt((1.0 + abs(rho)) * steepest))


def _largest_psi(theta: np.ndarray, rho: np.ndarray) -> np.ndarray:
    """The largest psi without butterfly arbitrage."""
    tilt = 1.0 + np.abs(rho)
    return np.minimum(4.0 / tilt, 2.0 * np.sqrt(theta / tilt))


def _factors(rho: np.ndarray) -> np.ndarray:
    """By how much theta and psi must grow from slice to slice; one for the first."""
    growth = np.maximum(
        (1.0 + rho[:-1]) / (1.0 + rho[1:]), (1.0 - rho[:-1]) / (1.0 - rho[1:])
    )
    return np.append(1.0, growth)


def _psi_ceilings(theta: np.ndarray, rho: np.ndarray) -> np.ndarray:
    """The largest psi that leaves room for itself and for every later slice."""
    ceilings = _largest_psi(theta, rho)
    factors = _factors(rho)
    for i in range(theta.size - 2, -1, -1):
        ceilings[i] = min(ceilings[i], ceilings[i + 1] / factors[i + 1])
    return ceilings


def _ordered_slices(
    rho: np.ndarray, excess: np.ndarray, share: np.ndarray
) -> np.ndarray:
    """Slices without arbitrage from free parameters, `(3, n)`."""
    factors = _factors(rho)
    theta = np.empty_like(rho)
    psi = np.empty_like(rho)
    before = 0.0
    for i, factor in enumerate(factors):
        before = theta[i] = factor * before + excess[i]
    ceilings = _psi_ceilings(theta, rho)
    psi[0] = share[0] * ceilings[0]
    for i in range(1, rho.size):
        low = factors[i] * psi[i - 1]
        high = min(psi[i - 1] * theta[i] / theta[i - 1], ceilings[i])
        psi[i] = low + share[i] * (high - low)
    return np.stack([theta, rho, psi])


def _shares(
    theta: np.ndarray, rho: np.ndarray, psi: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The free parameters of `_ordered_slices` beside rho, from its result."""
    factors = _factors(rho)
    excess = theta - factors * np.append(0.0, theta[:-1])
    low = factors * np.append(0.0, psi[:-1])
    high = _psi_ceilings(theta, rho)
    high[1:] = np.minimum(high[1:], psi[:-1] * theta[1:] / theta[:-1])
    share = (psi - low) / np.where(high > low, high - low, 1.0)
    return np.maximum(excess, 0.0), np.clip(share, 0.0, 1.0)


def _variance_rises(quotes: Sequence[Quotes]) -> tuple[np.ndarray, np.ndarray]:
    """Quoted rises of the total variance at the money, and units to count them in."""
    theta = np.array([item.scale**2 for item in quotes])
    rises = np.diff(np.maximum.accumulate(theta), prepend=0.0)
    times = surface_terms(quotes)[0]
    return rises, theta * np.diff(times, prepend=0.0) / times


def _sequential(quotes: Sequence[Quotes]) -> np.ndarray:
    """Slices fitted in order of time, `(3, n)`."""
    found = np.empty((3, 0))
    for item in quotes:
        before = found[:, -1:]
        unit = item.scale**2

        def slices(free: np.ndarray, before=before, unit=unit) -> np.ndarray:
            """Theta, rho and psi of this expiry, `(3, 1)`."""
            rho, excess, share = free[0], unit * free[1], free[2]
            if not before.size:
                ceiling = _largest_psi(np.array([excess]), np.array([rho]))[0]
                return np.array([[excess], [rho], [share * ceiling]])
            theta0, rho0, psi0 = before[:, 0]
            factor = _factors(np.array([rho0, rho]))[1]
            theta = factor * theta0 + excess
            low = factor * psi0
            ceiling = _largest_psi(np.array([theta]), np.array([rho]))[0]
            high = min(psi0 * theta / theta0, ceiling)
            # A rho at which no psi is left gives a slice above the ceiling; it is
            # turned down below.
            return np.array([[theta], [rho], [low + share * (high - low)]])

        level = float(before[0, 0]) if before.size else 0.0
        excess = max(1.0 - level / unit, 0.01)
        rhos = (*FIRST_RHOS, float(before[1, 0])) if before.size else FIRST_RHOS
        starts = [np.array([r, excess, s]) for r in rhos for s in FIRST_SHARES]
        free = _least_squares(
            [item],
            slices,
            starts,
            np.array([-LARGEST_RHO, 0.0 if before.size else 1e-3, 0.0]),
            np.array([LARGEST_RHO, np.inf, 1.0]),
        )
        fitted = slices(free)
        if fitted[2, 0] > _largest_psi(fitted[0], fitted[1])[0]:
            # The rho of the slice before always leaves a psi.
            free = _least_squares(
                [item],
                lambda rest, slices=slices, rho=float(before[1, 0]): slices(
                    np.array([rho, *rest])
                ),
                [np.array([excess, s]) for s in FIRST_SHARES],
                np.zeros(2),
                np.array([np.inf, 1.0]),
            )
            fitted = slices(np.array([float(before[1, 0]), *free]))
        found = np.hstack([found, fitted])
    return found


def _least_squares(
    quotes: Sequence[Quotes],
    slices: Callable[[np.ndarray], np.ndarray],
    starts: Sequence[np.ndarray],
    lower: np.ndarray,
    upper: np.ndarray,
) -> np.ndarray:
    """Free parameters with the least weighted squared error of volatility.

    The best few starts are followed. Derivatives of volatilities by the parameters of
    the slices are exact, those of the slices by the free parameters differences.
    """
    sizes = [item.moneyness.size for item in quotes]
    own = np.repeat(np.arange(len(quotes)), sizes)
    x = np.concatenate([item.log_moneyness for item in quotes])
    years = np.repeat([item.time_to_expiry for item in quotes], sizes)
    # Errors relative to the volatility at the money of the whole surface.
    level = np.mean([item.scale / np.sqrt(item.time_to_expiry) for item in quotes])
    quoted = np.concatenate([item.total_volatility for item in quotes])
    row = np.sqrt(np.concatenate([item.weights for item in quotes]) / years) / level

    def variance(theta, rho, psi) -> tuple[np.ndarray, np.ndarray]:
        root = np.sqrt((psi * x) ** 2 + 2.0 * rho * theta * psi * x + theta**2)
        root = np.maximum(root, 1e-150)
        return 0.5 * (theta + rho * psi * x + root), root

    def residuals(free: np.ndarray) -> np.ndarray:
        total = variance(*slices(free)[:, own])[0]
        return row * (np.sqrt(np.maximum(total, 1e-14)) - quoted)

    def jacobian(free: np.ndarray) -> np.ndarray:
        theta, rho, psi = slices(free)[:, own]
        total, root = variance(theta, rho, psi)
        by_slice = np.stack(
            [
                1.0 + (rho * psi * x + theta) / root,
                psi * x * (1.0 + theta / root),
                x * (rho + (psi * x + rho * theta) / root),
            ]
        )
        by_slice *= 0.25 * row / np.sqrt(np.maximum(total, 1e-14))
        result = np.empty((x.size, free.size))
        for position, value in enumerate(free):
            step = DIFFERENCE * max(1.0, abs(value))
            if value + step > upper[position]:
                step = -step
            moved = free.copy()
            moved[position] += step
            change = (slices(moved) - slices(free)) / step
            result[:, position] = np.sum(by_slice * change[:, own], axis=0)
        return result

    def inside(start: np.ndarray) -> np.ndarray:
        margin = np.where(np.isfinite(upper), 1e-6 * (upper - lower), 1e-6)
        return np.clip(start, lower + margin, upper - margin)

    ranked = sorted(map(inside, starts), key=lambda s: float(np.sum(residuals(s) ** 2)))
    best = None
    for start in ranked[:POLISHED]:
        solution = least_squares(
            residuals,
            start,
            jac=jacobian,  # pyright: ignore[reportArgumentType]
            bounds=(lower, upper),
            ftol=1e-10,
            xtol=1e-10,
            gtol=1e-10,
            max_nfev=300,
        )
        if best is None or solution.cost < best.cost:
            best = solution
    if best is None:
        raise RuntimeError("no starting point for SSVI")
    return best.x

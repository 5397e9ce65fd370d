r"""The Bates model: stochastic variance with jumps, whose option prices are known.

Under the pricing measure the forward `F` and its variance `v` follow

$$ dF/F = \sqrt{v}\, dW_1 + \text{jumps}, \qquad
   dv = \kappa (\theta - v)\, dt + \eta \sqrt{v}\, dW_2, \qquad
   dW_1 dW_2 = \rho\, dt, $$

with jumps of normally distributed log size that arrive as a Poisson process. Prices,
densities and distributions come from the characteristic function of log(S / F) by one
integral along a line in the complex plane, to rounding error: a truth to test against.
`BatesModel.smiles` gives those of many expiries at once, on one grid, in far less time.
"""

from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import CubicSpline
from scipy.special import ndtr

from relu_options.formulas import black_scholes

_PANEL_NODES, _PANEL_WEIGHTS = np.polynomial.legendre.leggauss(16)


@dataclass(frozen=True)
class Quadrature:
    """How the integrals over the characteristic function are taken.

    Attributes:
        first_panel: End of the first panel of one price: half the distance to the pole
            of its integrand.
        least_panels: Of one price, in geometric steps from there on.
        phase_per_panel: Radians by which a wave turns in a panel at most, for sixteen
            nodes.
        negligible: Of the characteristic function, for one price: below rounding.
        wave_step: Of a grid of prices, so that it is less than half of a period, 84.
        wave_reaches: How far its waves go, in deviations; few, as each is kept.
        small: Of the characteristic function, there: beyond, prices have next to none.
        too_large: The same, from which the grid would be wrong.
    """

    first_panel: float = 0.25
    least_panels: int = 40
    phase_per_panel: float = 4.0
    negligible: float = 1e-17
    wave_step: float = 0.075
    wave_reaches: tuple[float, ...] = (40.0, 80.0, 160.0, 320.0)
    small: float = 1e-9
    too_large: float = 1e-4


QUADRATURE = Quadrature()
_GRID = np.linspace(-25.0, 12.0, 593)  # log(strike / forward) in deviations


@dataclass(frozen=True)
class BatesModel:
    """Parameters of the Bates model, per year where they have a unit of time.

    Attributes:
        initial_variance: Variance of log returns per year today.
        long_run_variance: `θ`, to which the variance reverts.
        mean_reversion: `κ`, the speed at which it does.
        volatility_of_variance: `η`; at zero the variance is deterministic.
        correlation: `ρ`, of returns and variance.
        jump_intensity: Expected number of jumps per year.
        jump_mean: Mean of the log jump size.
        jump_volatility: Standard deviation of the log jump size.

    Examples:
        With neither jumps nor volatility of variance, the model is Black-Scholes'.

        >>> model = BatesModel(initial_variance=0.04, long_run_variance=0.04,
        ...                    mean_reversion=1.0, volatility_of_variance=0.0)
        >>> call = model.price([100.0], forward=100.0, time_to_expiry=0.25)
        >>> print(call.round(6))
        [3.987761]

        Its quoted parity holds exactly, and its density integrates to one.

        >>> model = BatesModel(initial_variance=0.04, long_run_variance=0.05,
        ...                    mean_reversion=2.0, volatility_of_variance=0.5,
        ...                    correlation=-0.7, jump_intensity=0.5, jump_mean=-0.1,
        ...                    jump_volatility=0.1)
        >>> from scipy.integrate import trapezoid
        >>> strike = np.linspace(10.0, 250.0, 1001)
        >>> density = model.density(strike, forward=100.0, time_to_expiry=0.25)
        >>> print(trapezoid(density, strike).round(9))
        1.0

    References:
        Bates, D. (1996). Jumps and stochastic volatility: exchange rate processes
        implicit in Deutsche Mark options. *Review of Financial Studies*, 9(1), 69-107.

        Albrecher, H., Mayer, P., Schoutens, W. and Tistaert, J. (2007). The little
        Heston trap. *Wilmott*, January, 83-92.

        Lewis, A. (2001). A simple option formula for general jump-diffusion and other
        exponential Lévy processes. Envision Financial Systems.
    """

    initial_variance: float
    long_run_variance: float
    mean_reversion: float
    volatility_of_variance: float
    correlation: float = 0.0
    jump_intensity: float = 0.0
    jump_mean: float = 0.0
    jump_volatility: float = 0.0

    def __post_init__(self):
        signed = {"correlation", "jump_mean"}
        for one in fields(self):
            value = getattr(self, one.name)
            if not np.isfinite(value) or (value < 0.0 and one.name not in signed):
                raise ValueError(f"`{one.name}` must not be negative, but is {value!r}")
        if self.initial_variance == 0.0 or self.mean_reversion == 0.0:
            raise ValueError("`initial_variance` and `mean_reversion` must be positive")
        if not -1.0 < self.correlation < 1.0:
            raise ValueError(
                f"`correlation` must be between -1 and 1, but is {self.correlation!r}"
            )

    def characteristic_function(
        self, argument: ArrayLike, *, time_to_expiry: ArrayLike
    ) -> np.ndarray:
        """E[exp(i u log(S / F))] at complex `u`, in the form without branch cuts.

        Args:
            argument: `u`, of any shape.
            time_to_expiry: Years; broadcasts with `argument`.

        Returns:
            Complex values of the shape of both.

        Examples:
            The forward is a martingale: at `u = -i` this is its expectation, one.

            >>> model = BatesModel(0.04, 0.05, 2.0, 0.5, -0.7, 0.5, -0.1, 0.1)
            >>> value = model.characteristic_function(-1j, time_to_expiry=0.7)
            >>> print(abs(value).round(12))
            1.0
        """
        u = np.asarray(argument, dtype=np.complex128)
        years, eta = np.asarray(time_to_expiry), self.volatility_of_variance
        quadratic = u * u + 1j * u
        if eta == 0.0:
            relaxed = -np.expm1(-self.mean_reversion * years) / self.mean_reversion
            variance = self.long_run_variance * (years - relaxed)
            exponent = -0.5 * quadratic * (variance + self.initial_variance * relaxed)
        else:
            drift = self.mean_reversion - self.correlation * eta * 1j * u
            root = np.sqrt(drift * drift + eta * eta * quadratic)
            ratio = (drift - root) / (drift + root)
            decay = np.exp(-root * years)
            # (drift - root) / eta**2 without its cancellation at small arguments.
            slope = -quadratic / (drift + root)
            logarithm = np.log((1.0 - ratio * decay) / (1.0 - ratio)) / (eta * eta)
            exponent = self.mean_reversion * self.long_run_variance * (
                slope * years - 2.0 * logarithm
            ) + self.initial_variance * slope * (1.0 - decay) / (1.0 - ratio * decay)
        mean, deviation = self.jump_mean, self.jump_volatility
        jump = np.expm1(1j * u * mean - 0.5 * (deviation * u) ** 2)
        compensator = 1j * u * np.expm1(mean + 0.5 * deviation**2)
        return np.exp(exponent + self.jump_intensity * years * (jump - compensator))

    def price(
        self,
        strike: ArrayLike,
        *,
        forward: float,
        time_to_expiry: float,
        discount_factor: float = 1.0,
        is_call: ArrayLike = True,
    ) -> np.ndarray:
        """Option prices today, in currency units, of the shape of `strike`.

        Args:
            strike: Currency units; positive.
            forward: Currency units.
            time_to_expiry: Years.
            discount_factor: Price today of one unit of currency paid at expiry.
            is_call: True for calls, False for puts.
        """
        strike = np.asarray(strike, dtype=np.float64)
        k = np.log(strike / forward)
        covered = np.exp(0.5 * k) * self._integral(
            k, time_to_expiry, lambda u: 1.0 / (u * u + 0.25)
        )
        floor = np.where(is_call, 1.0, strike / forward)
        return discount_factor * forward * (floor - covered)

    def distribution(
        self, strike: ArrayLike, *, forward: float, time_to_expiry: float
    ) -> np.ndarray:
        """Probability of finishing below `strike`, of its shape."""
        k = np.log(np.asarray(strike, dtype=np.float64) / forward)
        above = self._integral(k, time_to_expiry, lambda u: 1.0 / (0.5 + 1j * u))
        return 1.0 - np.exp(-0.5 * k) * above

    def density(
        self, strike: ArrayLike, *, forward: float, time_to_expiry: float
    ) -> np.ndarray:
        """Probability density at `strike`, per currency unit, of its shape."""
        strike = np.asarray(strike, dtype=np.float64)
        k = np.log(strike / forward)
        return (
            np.exp(-0.5 * k)
            * self._integral(k, time_to_expiry, lambda u: np.ones_like(u))
            / strike
        )

    def implied_volatility(
        self, strike: ArrayLike, *, forward: float, time_to_expiry: float
    ) -> np.ndarray:
        """Black-Scholes volatility of the model's out-of-the-money prices."""
        strike = np.asarray(strike, dtype=np.float64)
        is_call = strike >= forward
        price = self.price(
            strike, forward=forward, time_to_expiry=time_to_expiry, is_call=is_call
        )
        return np.asarray(
            black_scholes.implied_volatility(
                price=price,
                strike=strike,
                time_to_expiry=time_to_expiry,
                forward=forward,
                is_call=is_call,
            )
        )

    def smiles(self, times: ArrayLike) -> "BatesSmiles":
        r"""Prices of many expiries at once, on one grid of standardised strikes.

        The integral of `price` less that of Black and Scholes with the same variance
        `w` of log returns,

        $$ \frac1\pi \int_0^\infty \Re\left[e^{-iuk} \frac{φ(u - i/2) - φ_{BS}(u -
           i/2)}{u^2 + 1/4}\right] du, $$

        has no poles near the line, so the trapezoidal rule on equal steps of `u √w`
        converges exponentially; and as strikes are in units of `√w`, the waves are the
        same for all expiries.

        Args:
            times: Years to the expiries, of shape `(N,)`.

        Raises:
            ValueError: If the characteristic function of an expiry falls too slowly.

        Examples:
            >>> model = BatesModel(0.04, 0.05, 2.0, 0.5, -0.7, 0.5, -0.1, 0.1)
            >>> strike = np.array([80.0, 100.0, 115.0])
            >>> at = {"forward": 100.0, "time_to_expiry": 0.25}
            >>> quick = model.smiles([0.02, 0.25]).call(1, np.log(strike / 100.0))
            >>> bool(np.abs(100.0 * quick - model.price(strike, **at)).max() < 1e-5)
            True
        """
        years = np.atleast_1d(np.asarray(times, dtype=np.float64))[:, None]
        scale = np.sqrt(self.log_variance(years))
        y, cosines, sines = _waves(self._wave_reach(years, scale))
        u = y / scale
        lognormal = np.exp(-0.5 * (scale * scale) * (u * u + 0.25))
        difference = (
            self.characteristic_function(u - 0.5j, time_to_expiry=years) - lognormal
        )
        step = np.where(y == 0.0, 0.5, 1.0) * QUADRATURE.wave_step / (np.pi * scale)
        k = _GRID * scale

        def integral(factor: np.ndarray) -> np.ndarray:
            values = difference * factor * step
            return values.real @ cosines + values.imag @ sines

        excess = -np.exp(0.5 * k) * integral(1.0 / (u * u + 0.25))
        above = np.exp(-0.5 * k) * integral(1.0 / (0.5 + 1j * u))
        below = ndtr(_GRID + 0.5 * scale) - above
        return BatesSmiles(_GRID, scale[:, 0], excess, np.clip(below, 0.0, 1.0))

    def log_variance(self, time_to_expiry: ArrayLike) -> np.ndarray:
        """Expected variance of the log return: of the diffusion and of the jumps.

        Examples:
            >>> model = BatesModel(0.04, 0.04, 2.0, 0.5, -0.7)
            >>> print(model.log_variance([0.25, 1.0]))
            [0.01 0.04]
        """
        years = np.asarray(time_to_expiry, dtype=np.float64)
        relaxed = -np.expm1(-self.mean_reversion * years) / self.mean_reversion
        above = self.initial_variance - self.long_run_variance
        jumps = self.jump_intensity * (self.jump_mean**2 + self.jump_volatility**2)
        return (self.long_run_variance + jumps) * years + above * relaxed

    def _integral(self, k: np.ndarray, years: float, factor) -> np.ndarray:
        r"""$\frac1\pi\int_0^\infty \Re[e^{-iuk} φ(u - i/2) f(u)] du$ at each `k`.

        Gauss-Legendre panels, short near zero and never longer than the fastest
        oscillation allows, up to where the characteristic function has fallen below
        rounding.
        """
        flat = np.atleast_1d(k).ravel()
        reach = self._reach(years)
        phase = reach * float(np.abs(flat).max(initial=0.0))
        panels = int(np.ceil(phase / QUADRATURE.phase_per_panel))
        first, least = QUADRATURE.first_panel, QUADRATURE.least_panels
        even = np.linspace(0.0, reach, 1 + panels)
        edges = np.union1d(even, np.geomspace(first, reach, least))
        edges = np.append(0.0, edges[edges > 0.0])
        half = 0.5 * np.diff(edges)[:, None]
        u = (edges[:-1, None] + half * (1.0 + _PANEL_NODES)).ravel()
        weights = (half * _PANEL_WEIGHTS).ravel()
        values = (
            self.characteristic_function(u - 0.5j, time_to_expiry=years)
            * factor(u)
            * weights
        )
        waves = np.exp(-1j * np.outer(flat, u))
        return ((waves @ values).real / np.pi).reshape(np.shape(k))

    def _wave_reach(self, years: np.ndarray, scale: np.ndarray) -> float:
        """How far the waves of a grid go: to where nothing is left of any expiry."""
        size, reach = np.inf, 0.0
        for reach in QUADRATURE.wave_reaches:
            u = reach / scale - 0.5j
            last = np.abs(self.characteristic_function(u, time_to_expiry=years))
            size = float(last.max())
            if size < QUADRATURE.small:
                return reach
        if not size < QUADRATURE.too_large:
            raise ValueError(
                f"the characteristic function is still {size:.0e} at "
                f"{reach:.0f} over the deviation, too large for the grid; "
                "use `price` for such terms"
            )
        return reach

    def _reach(self, years: float) -> float:
        """Where the characteristic function is negligible from there on."""
        u = np.geomspace(1.0, 1e7, 400)
        size = np.abs(self.characteristic_function(u - 0.5j, time_to_expiry=years))
        relevant = np.flatnonzero(size > QUADRATURE.negligible)
        return float(u[min(relevant[-1] + 1, len(u) - 1)]) if len(relevant) else 1.0


@dataclass(frozen=True, eq=False)
class BatesSmiles:
    """Prices and probabilities of many expiries, on one grid of standardised strikes.

    Attributes:
        grid: Log of strike over forward, in units of `scale`, of shape `(m,)`.
        scale: Square root of the expected variance of log returns, of shape `(N,)`.
        excess: By how much a call over its discounted forward is above Black and
            Scholes's at the total volatility `scale`, of shape `(N, m)`.
        below: Probability of finishing below each strike, of shape `(N, m)`.

    Examples:
        >>> model = BatesModel(0.04, 0.04, 2.0, 0.5, -0.7)
        >>> smiles = model.smiles([0.1, 0.2])
        >>> print(smiles.call(0, [-0.1, 0.0, 0.1]).round(4))
        [0.098  0.0246 0.0004]
    """

    grid: np.ndarray
    scale: np.ndarray
    excess: np.ndarray
    below: np.ndarray

    def call(self, row: int, log_moneyness: ArrayLike) -> np.ndarray:
        """Calls of one expiry over the discounted forward, at logs of strike over it.

        Beyond the grid they are Black and Scholes's, which there are next to nothing.
        """
        k, scale = np.asarray(log_moneyness, dtype=np.float64), self.scale[row]
        spline = CubicSpline(self.grid, self.excess[row], extrapolate=False)
        return _above_lognormal(k, scale, np.nan_to_num(spline(k / scale)))

    @cached_property
    def calls(self) -> np.ndarray:
        """Calls over the discounted forward on the grid, of shape `(N, m)`."""
        scale = self.scale[:, None]
        return _above_lognormal(self.grid * scale, scale, self.excess)


def _above_lognormal(k: np.ndarray, scale: Any, excess: np.ndarray) -> np.ndarray:
    """Black and Scholes's call and what exceeds it, at least the intrinsic value."""
    call = ndtr(0.5 * scale - k / scale) - np.exp(k) * ndtr(-0.5 * scale - k / scale)
    return np.maximum(call + excess, np.maximum(-np.expm1(k), 0.0))


@lru_cache(maxsize=len(QUADRATURE.wave_reaches))
def _waves(reach: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps of `u` times deviation, and cosines and sines of them times the grid."""
    y = np.arange(0.0, reach, QUADRATURE.wave_step)
    angle = np.outer(y, _GRID)
    return y, np.cos(angle), np.sin(angle)

r"""The Bates model: stochastic variance with jumps, whose option prices are known.

Under the pricing measure the forward `F` and its variance `v` follow

$$ dF/F = \sqrt{v}\, dW_1 + \text{jumps}, \qquad
   dv = \kappa (\theta - v)\, dt + \eta \sqrt{v}\, dW_2, \qquad
   dW_1 dW_2 = \rho\, dt, $$

with jumps of normally distributed log size that arrive as a Poisson process. Prices,
densities and distributions come from the characteristic function of log(S / F) by one
integral along a line in the complex plane, to rounding error: a truth to test against.
"""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike

_PANEL_NODES, _PANEL_WEIGHTS = np.polynomial.legendre.leggauss(16)
_FIRST_PANEL = 0.25  # half the distance to the pole of the integrand of a price
_LEAST_PANELS = 40
_PHASE_PER_PANEL = 4.0
_NEGLIGIBLE = 1e-17


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
        >>> strike = np.linspace(10.0, 250.0, 1001)
        >>> density = model.density(strike, forward=100.0, time_to_expiry=0.25)
        >>> print(np.trapezoid(density, strike).round(9))
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
        self, argument: ArrayLike, *, time_to_expiry: float
    ) -> np.ndarray:
        """E[exp(i u log(S / F))] at complex `u`, in the form without branch cuts.

        Args:
            argument: `u`, of any shape.
            time_to_expiry: Years.

        Returns:
            Complex values of the shape of `argument`.

        Examples:
            The forward is a martingale: at `u = -i` this is its expectation, one.

            >>> model = BatesModel(0.04, 0.05, 2.0, 0.5, -0.7, 0.5, -0.1, 0.1)
            >>> value = model.characteristic_function(-1j, time_to_expiry=0.7)
            >>> print(abs(value).round(12))
            1.0
        """
        u = np.asarray(argument, dtype=np.complex128)
        years, eta = time_to_expiry, self.volatility_of_variance
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
        from relu_options import black_scholes

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

    def _integral(self, k: np.ndarray, years: float, factor) -> np.ndarray:
        r"""$\frac1\pi\int_0^\infty \Re[e^{-iuk} φ(u - i/2) f(u)] du$ at each `k`.

        Gauss-Legendre panels, short near zero and never longer than the fastest
        oscillation allows, up to where the characteristic function has fallen below
        rounding.
        """
        flat = np.atleast_1d(k).ravel()
        reach = self._reach(years)
        phase = reach * float(np.abs(flat).max(initial=0.0))
        even = np.linspace(0.0, reach, 1 + int(np.ceil(phase / _PHASE_PER_PANEL)))
        edges = np.union1d(even, np.geomspace(_FIRST_PANEL, reach, _LEAST_PANELS))
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

    def _reach(self, years: float) -> float:
        """Where the characteristic function is negligible from there on."""
        u = np.geomspace(1.0, 1e7, 400)
        size = np.abs(self.characteristic_function(u - 0.5j, time_to_expiry=years))
        relevant = np.flatnonzero(size > _NEGLIGIBLE)
        return float(u[min(relevant[-1] + 1, len(u) - 1)]) if len(relevant) else 1.0

"""What every peer returns, and the Black formula in NumPy that they share.

The formulas are written here again, apart from the library, so that the benchmark does
not judge the library with the library's own code.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr

MAX_TOTAL_VOLATILITY = 16.0


def normal_density(x: np.ndarray) -> np.ndarray:
    """Density of the standard normal distribution."""
    return np.exp(-0.5 * x * x) / np.sqrt(2.0 * np.pi)


def black_time_value(moneyness: np.ndarray, total_volatility: np.ndarray) -> np.ndarray:
    """Undiscounted price over forward of the out-of-the-money option.

    Args:
        moneyness: Strike over forward; puts below one, calls above.
        total_volatility: Volatility times the square root of time; positive.

    Returns:
        Price over forward, with the broadcast shape.
    """
    d1 = -np.log(moneyness) / total_volatility + 0.5 * total_volatility
    sign = np.where(moneyness >= 1.0, 1.0, -1.0)
    d2 = d1 - total_volatility
    return sign * (ndtr(sign * d1) - moneyness * ndtr(sign * d2))


def black_vega(moneyness: np.ndarray, total_volatility: np.ndarray) -> np.ndarray:
    """Derivative of `black_time_value` by total volatility."""
    d1 = -np.log(moneyness) / total_volatility + 0.5 * total_volatility
    return normal_density(d1)


def implied_total_volatility(
    moneyness: np.ndarray, time_value: np.ndarray, guess: np.ndarray | None = None
) -> np.ndarray:
    """Total volatility at which `black_time_value` equals a time value.

    Newton's method on the logarithm of the price, inside a bracket that bisection
    shrinks whenever a step would leave it, so it ends for every input.

    Args:
        moneyness: Strike over forward, of shape `(n,)`.
        time_value: Out-of-the-money price over forward, of shape `(n,)`.
        guess: Total volatilities to start from.

    Returns:
        Total volatility; 0 where the price is at or below intrinsic value, which is
        the limit and lets such a price count as a large error instead of vanishing
        from an average; NaN where it is at or above its upper bound.
    """
    moneyness, time_value = np.broadcast_arrays(moneyness, time_value)
    ceiling = np.minimum(moneyness, 1.0)
    solvable = (time_value > 0.0) & (time_value < ceiling)
    target = np.log(np.where(solvable, time_value, 0.1 * ceiling))
    low = np.full(moneyness.shape, 1e-8)
    high = np.full(moneyness.shape, MAX_TOTAL_VOLATILITY)
    # The inflexion point of the price: Newton's steps from it do not overshoot.
    if guess is None:
        guess = np.clip(np.sqrt(2.0 * np.abs(np.log(moneyness))), 1e-2, 4.0)
    for _ in range(100):
        price = black_time_value(moneyness, guess)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            error = np.log(price) - target
            step = error * price / black_vega(moneyness, guess)
        # A price that rounds to zero says only that the volatility is too low.
        low = np.where(~(error > 0.0), guess, low)
        high = np.where(error > 0.0, guess, high)
        following = guess - step
        inside = (following > low) & (following < high)
        following = np.where(inside, following, 0.5 * (low + high))
        if np.all(np.abs(following - guess) <= 1e-13 * guess):
            break
        guess = following
    result = np.where(time_value > 0.0, guess, 0.0)
    return np.where(time_value < ceiling, result, np.nan)


@dataclass(frozen=True)
class Quotes:
    """Quotes of one expiry in units of the forward, ready for a fit.

    Attributes:
        forward: Forward price, in currency units.
        time_to_expiry: Time to expiry, in years.
        moneyness: Strike over forward, increasing, of shape `(n,)`.
        total_volatility: Quoted volatility times the square root of time.
        weights: Weight of each squared volatility error; their mean is one.
        scale: Total volatility at the money, by interpolation of the quotes.
    """

    forward: float
    time_to_expiry: float
    moneyness: np.ndarray
    total_volatility: np.ndarray
    weights: np.ndarray
    scale: float

    @property
    def log_moneyness(self) -> np.ndarray:
        """Logarithm of strike over forward."""
        return np.log(self.moneyness)

    @property
    def time_value(self) -> np.ndarray:
        """Quoted out-of-the-money prices over the forward."""
        return black_time_value(self.moneyness, self.total_volatility)

    @property
    def vega(self) -> np.ndarray:
        """Derivative of `time_value` by total volatility, at the quotes."""
        return black_vega(self.moneyness, self.total_volatility)

    def part(self, keep: np.ndarray) -> Quotes:
        """The quotes at which `keep` is true, in the units of the whole."""
        return Quotes(
            self.forward,
            self.time_to_expiry,
            self.moneyness[keep],
            self.total_volatility[keep],
            self.weights[keep],
            self.scale,
        )


def read_quotes(
    strike: ArrayLike,
    volatility: ArrayLike,
    *,
    forward: float,
    time_to_expiry: float,
    weights: ArrayLike | None = None,
    bid: ArrayLike | None = None,
    ask: ArrayLike | None = None,
) -> Quotes:
    """Sort and normalise one expiry.

    Args:
        strike: Strikes, in currency units, all different.
        volatility: Black volatilities, annualised, 0.2 meaning 20%.
        forward: Forward price, in currency units.
        time_to_expiry: Time to expiry, in years.
        weights: Weight of each squared volatility error; equal if not given.
        bid: Bid volatilities. With `ask`, and without `weights`, each error is
            measured in units of its half-spread.
        ask: Ask volatilities.

    Returns:
        The quotes in units of the forward.

    Raises:
        ValueError: If strikes repeat, or a strike or volatility is not positive.
    """
    strike = np.asarray(strike, float)
    volatility = np.asarray(volatility, float)
    if weights is not None:
        weight = np.asarray(weights, float)
    elif bid is not None and ask is not None:
        weight = 4.0 / (np.asarray(ask, float) - np.asarray(bid, float)) ** 2
    else:
        weight = np.ones_like(strike)
    order = np.argsort(strike)
    strike, volatility, weight = strike[order], volatility[order], weight[order]
    if np.any(np.diff(strike) <= 0.0):
        raise ValueError(f"{np.sum(np.diff(strike) <= 0.0)} strikes are repeated")
    if not (np.all(strike > 0.0) and np.all(volatility > 0.0)):
        raise ValueError("strikes and volatilities must be positive")
    total_volatility = volatility * np.sqrt(time_to_expiry)
    moneyness = strike / forward
    return Quotes(
        forward,
        time_to_expiry,
        moneyness,
        total_volatility,
        weight / weight.mean(),
        float(np.interp(0.0, np.log(moneyness), total_volatility)),
    )


@dataclass(frozen=True)
class PeerCurve(ABC):
    """A fitted smile: call it on strikes and it answers with Black volatilities.

    Attributes:
        name: Name of the method, with its settings.
        forward: Forward price, in currency units.
        time_to_expiry: Time to expiry, in years.
    """

    name: str
    forward: float
    time_to_expiry: float

    @abstractmethod
    def time_value(self, moneyness: np.ndarray) -> np.ndarray:
        """Out-of-the-money price over forward at strikes over forward."""

    @abstractmethod
    def normalised_density(self, moneyness: np.ndarray) -> np.ndarray:
        """Density of the underlying over its forward."""

    def __call__(self, strike: ArrayLike) -> np.ndarray:
        """Black volatility at `strike`; 0 where the price is below intrinsic."""
        moneyness = np.asarray(strike, float) / self.forward
        total = implied_total_volatility(moneyness, self.time_value(moneyness))
        return total / np.sqrt(self.time_to_expiry)

    def price(self, strike: ArrayLike) -> np.ndarray:
        """Undiscounted call price at `strike`, in currency units."""
        moneyness = np.asarray(strike, float) / self.forward
        intrinsic = np.maximum(1.0 - moneyness, 0.0)
        return self.forward * (self.time_value(moneyness) + intrinsic)

    def density(self, strike: ArrayLike) -> np.ndarray:
        """Risk-neutral density at `strike`: second strike derivative of `price`."""
        moneyness = np.asarray(strike, float) / self.forward
        return self.normalised_density(moneyness) / self.forward


def density_by_differences(
    time_value: Callable[[np.ndarray], np.ndarray],
    moneyness: np.ndarray,
    step: float,
) -> np.ndarray:
    """Second derivative of a call price by central differences.

    Args:
        time_value: Out-of-the-money price over forward.
        moneyness: Strikes over forward.
        step: Half-width of the difference, as a fraction of the strike.

    Returns:
        Density over the forward, of the shape of `moneyness`.
    """
    width = step * moneyness
    left, right = moneyness - width, moneyness + width

    def put_side(k: np.ndarray) -> np.ndarray:
        """The put's price, plus nothing that a second difference can see."""
        return time_value(k) + np.where(k >= 1.0, k - 1.0, 0.0)

    def call_side(k: np.ndarray) -> np.ndarray:
        return time_value(k) + np.where(k < 1.0, 1.0 - k, 0.0)

    # One side each, so that the small price is differenced and not the intrinsic value.
    below = put_side(left) - 2.0 * put_side(moneyness) + put_side(right)
    above = call_side(left) - 2.0 * call_side(moneyness) + call_side(right)
    return np.where(moneyness < 1.0, below, above) / width**2


def wing_strikes(
    quotes: Quotes, deviations: float, growth: float = 1.5
) -> tuple[np.ndarray, np.ndarray]:
    """Strikes to add beyond the quoted ones.

    Their log-distances start at the gap between the last two quotes and grow by a
    constant factor: an outermost quote needs room for the density close to it.

    Args:
        quotes: The quotes of one expiry.
        deviations: How far beyond the outermost quote, or beyond the forward where
            that is farther, in total volatilities of the outermost quote.
        growth: Factor from one distance to the next.

    Returns:
        Moneyness below and above the quotes, both increasing.
    """
    x = quotes.log_moneyness

    def steps(first: float, reach: float) -> np.ndarray:
        count = np.log1p(reach * (growth - 1.0) / first) / np.log(growth)
        powers = growth ** np.arange(1.0, np.ceil(count) + 1.0)
        return first * (powers - 1.0) / (growth - 1.0)

    reach = deviations * quotes.total_volatility
    below = x[0] - steps(x[1] - x[0], max(x[0], 0.0) + reach[0])
    above = x[-1] + steps(x[-1] - x[-2], max(-x[-1], 0.0) + reach[-1])
    return np.exp(below[::-1]), np.exp(above)


def cross_validate(
    quotes: Quotes,
    path: Sequence[float],
    fit: Callable[[Quotes, float], PeerCurve],
    *,
    folds: int,
    fallback: float,
) -> float:
    """The setting with the least weighted squared error on left-out quotes.

    The outermost quotes always stay: leaving one out would test the extrapolation.

    Args:
        quotes: The quotes of one expiry.
        path: Settings to try; of two equals the first is taken.
        fit: Fits a part of the quotes with a setting.
        folds: Into how many interleaved parts the inner quotes are divided; as many
            as there are, or more, is leave-one-out.
        fallback: The setting below five quotes, where there is nothing to leave out.

    Returns:
        A value of `path`, or `fallback`.
    """
    inner = np.arange(1, quotes.moneyness.size - 1)
    if inner.size < 3:
        return fallback
    folds = min(folds, inner.size)
    errors = np.zeros(len(path))
    for fold in range(folds):
        held = inner[fold::folds]
        keep = np.ones(quotes.moneyness.size, bool)
        keep[held] = False
        part = quotes.part(keep)
        strike = quotes.forward * quotes.moneyness[held]
        quoted = quotes.total_volatility[held] / np.sqrt(quotes.time_to_expiry)
        for position, setting in enumerate(path):
            residuals = fit(part, setting)(strike) - quoted
            errors[position] += quotes.weights[held] @ residuals**2
    return path[int(np.argmin(errors))]

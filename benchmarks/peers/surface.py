"""What every surface peer returns, and the ways from slices to a surface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri

from .curve import (
    PeerCurve,
    Quotes,
    black_time_value,
    density_by_differences,
    implied_total_volatility,
    normal_density,
)

TIME_STEP = 1e-3  # of the distance to the nearest expiry, for Dupire's derivative
STRIKE_STEP = 0.01  # deviations at the money, for densities by differences


@dataclass(frozen=True)
class PeerSurface(ABC):
    """Fitted prices of all strikes and times, undiscounted.

    Attributes:
        name: Name of the method, with its settings.
        times: Times to the quoted expiries, in years, increasing, of shape `(n,)`.
        forwards: Their forward prices, in currency units, of shape `(n,)`.
    """

    name: str
    times: np.ndarray
    forwards: np.ndarray

    @abstractmethod
    def time_value(self, moneyness: np.ndarray, time: float) -> np.ndarray:
        """Out-of-the-money price over forward at strikes over forward."""

    @abstractmethod
    def normalised_density(self, moneyness: np.ndarray, time: float) -> np.ndarray:
        """Density of the underlying over its forward."""

    def forward(self, time: float) -> float:
        """Forward price, log-linear in time; level beyond the expiries."""
        return float(np.exp(np.interp(time, self.times, np.log(self.forwards))))

    def price(
        self, strike: ArrayLike, time: float, is_call: ArrayLike = True
    ) -> np.ndarray:
        """Undiscounted price, in currency units."""
        forward = self.forward(time)
        moneyness = np.asarray(strike, float) / forward
        sign = np.where(is_call, 1.0, -1.0)
        intrinsic = np.maximum(sign * (1.0 - moneyness), 0.0)
        return forward * (self.time_value(moneyness, time) + intrinsic)

    def implied_volatility(self, strike: ArrayLike, time: float) -> np.ndarray:
        """Black volatility; 0 where the price is below intrinsic."""
        moneyness = np.asarray(strike, float) / self.forward(time)
        total = implied_total_volatility(moneyness, self.time_value(moneyness, time))
        return total / np.sqrt(time)

    def density(self, strike: ArrayLike, time: float) -> np.ndarray:
        """Risk-neutral density at `strike`."""
        forward = self.forward(time)
        moneyness = np.asarray(strike, float) / forward
        return self.normalised_density(moneyness, time) / forward

    def local_volatility(self, strike: ArrayLike, time: float) -> np.ndarray:
        """Dupire's, the derivative in time by differences; NaN where there is none."""
        moneyness = np.asarray(strike, float) / self.forward(time)
        variance = local_variance(self, moneyness, time)
        return np.sqrt(np.where(variance >= 0.0, variance, np.nan))


def local_variance(
    surface: PeerSurface, moneyness: np.ndarray, time: float
) -> np.ndarray:
    r"""Dupire's variance $2 \partial_T c / (k^2 \partial_k^2 c)$ of a surface.

    Here $c$ is the price over the forward and $k$ the strike over the forward. The
    derivative in time is a central difference that does not reach over an expiry.

    Args:
        surface: Anything with `times`, `time_value` and `normalised_density`.
        moneyness: Strikes over forward.
        time: Years; not an expiry, where the two sides differ.

    Returns:
        Variance a year, of the shape of `moneyness`; negative under a calendar
        arbitrage, NaN where the density is not positive.
    """
    step = TIME_STEP * min(np.abs(np.append(surface.times, 0.0) - time))
    later = surface.time_value(moneyness, time + step)
    earlier = surface.time_value(moneyness, time - step)
    density = surface.normalised_density(moneyness, time)
    rate = (later - earlier) / step
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(density > 0.0, rate / (moneyness**2 * density), np.nan)


def neighbours(times: np.ndarray, time: float) -> list[tuple[float, int]]:
    """Weights and positions of the expiries around a time, linear in time.

    Before the first expiry and after the last it is that expiry alone, with a weight
    proportional to time: what interpolates something that is zero at time zero.
    """
    after = int(np.searchsorted(times, time))
    if after in (0, times.size):
        nearest = min(after, times.size - 1)
        return [(float(time / times[nearest]), nearest)]
    start, end = times[after - 1], times[after]
    share = float((time - start) / (end - start))
    return [(share, after), (1.0 - share, after - 1)] if share < 1.0 else [(1.0, after)]


def balanced(
    quotes: Sequence[Quotes], weights: Sequence[np.ndarray]
) -> tuple[Quotes, ...]:
    """Quotes in order of time with weights whose mean over all expiries is one.

    Weights of `read_quotes` have a mean of one at each expiry, which is right for a
    curve and forgets that one expiry has narrower spreads than another.

    Args:
        quotes: One item for each expiry.
        weights: Weight of each squared volatility error, in the order of the quotes.

    Returns:
        The quotes, in order of time, with the weights.

    Raises:
        ValueError: If two expiries have the same time.
    """
    level = np.concatenate(weights).mean()
    found = [
        replace(q, weights=w / level) for q, w in zip(quotes, weights, strict=True)
    ]
    found.sort(key=lambda item: item.time_to_expiry)
    times = np.array([item.time_to_expiry for item in found])
    if np.any(np.diff(times) <= 0.0):
        raise ValueError("two expiries have the same time")
    return tuple(found)


def surface_terms(quotes: Sequence[Quotes]) -> tuple[np.ndarray, np.ndarray]:
    """Times and forwards of the expiries."""
    return (
        np.array([item.time_to_expiry for item in quotes]),
        np.array([item.forward for item in quotes]),
    )


@dataclass(frozen=True)
class VarianceSurface(PeerSurface):
    """A surface that is given by its total variance as a smooth function of strike."""

    @abstractmethod
    def total_variance(
        self, log_moneyness: np.ndarray, time: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Total variance and its first two derivatives in log(strike / forward)."""

    def time_value(self, moneyness: np.ndarray, time: float) -> np.ndarray:
        """Black's formula at the total variance."""
        variance = self.total_variance(np.log(moneyness), time)[0]
        return black_time_value(np.asarray(moneyness, float), np.sqrt(variance))

    def implied_volatility(self, strike: ArrayLike, time: float) -> np.ndarray:
        """Black volatility, without a detour over prices."""
        x = np.log(np.asarray(strike, float) / self.forward(time))
        return np.sqrt(self.total_variance(x, time)[0] / time)

    def normalised_density(self, moneyness: np.ndarray, time: float) -> np.ndarray:
        """Exact, from the derivatives of the total variance."""
        x = np.log(moneyness)
        w, slope, curvature = self.total_variance(x, time)
        factor = (
            (1.0 - 0.5 * x * slope / w) ** 2
            - 0.25 * slope**2 * (1.0 / w + 0.25)
            + 0.5 * curvature
        )
        d2 = -x / np.sqrt(w) - 0.5 * np.sqrt(w)
        return factor * normal_density(d2) / np.sqrt(w) / moneyness


@dataclass(frozen=True)
class MixedSurface(PeerSurface):
    """Curves of the expiries and, between two of them, a mixture of both.

    A mixture keeps densities non-negative and prices in order where those of the two
    curves are, which interpolation of total variance does not. Its weight moves with
    time so that the total variance at the money is linear. Before the first expiry the
    first curve is mixed with the payoff, whose density is an atom at the forward, left
    out of `normalised_density`; after the last, prices over the forward stay.

    Attributes:
        curves: One for each expiry, in order of time.
    """

    curves: tuple[PeerCurve, ...]

    def time_value(self, moneyness: np.ndarray, time: float) -> np.ndarray:
        """The mixture of the prices."""
        moneyness = np.asarray(moneyness, float)
        parts = self._parts(time)
        return sum(
            (weight * curve.time_value(moneyness) for weight, curve in parts),
            np.zeros(moneyness.shape),
        )

    def normalised_density(self, moneyness: np.ndarray, time: float) -> np.ndarray:
        """The mixture of the densities."""
        moneyness = np.asarray(moneyness, float)
        parts = self._parts(time)
        return sum(
            (weight * curve.normalised_density(moneyness) for weight, curve in parts),
            np.zeros(moneyness.shape),
        )

    def after_last(self, time: float) -> PeerCurve:
        """The curve at a time after the last expiry."""
        del time
        return self.curves[-1]

    def _parts(self, time: float) -> list[tuple[float, PeerCurve]]:
        """Weights and curves of the mixture at `time`."""
        after = int(np.searchsorted(self.times, time))
        if after == self.times.size:
            return [(1.0, self.after_last(time))]
        if self.times[after] == time:
            return [(1.0, self.curves[after])]
        start = self.times[after - 1] if after else 0.0
        share = (time - start) / (self.times[after] - start)
        one = np.ones(1)
        high = float(self.curves[after].time_value(one)[0])
        low = float(self.curves[after - 1].time_value(one)[0]) if after else 0.0
        if high > low:
            # At the money the price is 2 N(v / 2) - 1 with v the total volatility.
            variances = 4.0 * ndtri(0.5 + 0.5 * np.array([low, high])) ** 2
            total = np.sqrt((1.0 - share) * variances[0] + share * variances[1])
            share = (2.0 * ndtr(0.5 * total) - 1.0 - low) / (high - low)
        parts = [(float(share), self.curves[after])]
        if after:
            parts.append((1.0 - float(share), self.curves[after - 1]))
        return parts


@dataclass(frozen=True)
class LinearVarianceSurface(PeerSurface):
    """Curves of the expiries and, between them, total variance linear in time.

    At each strike over forward, which keeps prices in order where the curves are. It
    does not keep densities positive. Before the first expiry and after the last, total
    variance is proportional to time.

    Attributes:
        curves: One for each expiry, in order of time.
    """

    curves: tuple[PeerCurve, ...]

    def time_value(self, moneyness: np.ndarray, time: float) -> np.ndarray:
        """Black's formula at the interpolated variance."""
        moneyness = np.asarray(moneyness, float)
        parts = neighbours(self.times, time)
        if parts[0][0] == 1.0:
            return self.curves[parts[0][1]].time_value(moneyness)
        variance = np.zeros(moneyness.shape)
        for weight, place in parts:
            price = self.curves[place].time_value(moneyness)
            some = price > 0.0
            total = implied_total_volatility(moneyness[some], price[some])
            variance[some] += weight * total**2
        quoted = variance > 0.0
        total = np.sqrt(np.where(quoted, variance, 1.0))
        return np.where(quoted, black_time_value(moneyness, total), 0.0)

    def normalised_density(self, moneyness: np.ndarray, time: float) -> np.ndarray:
        """Second differences of prices; at an expiry that of its curve."""
        moneyness = np.asarray(moneyness, float)
        parts = neighbours(self.times, time)
        if parts[0][0] == 1.0:
            return self.curves[parts[0][1]].normalised_density(moneyness)
        one = np.ones(1)
        unit = float(implied_total_volatility(one, self.time_value(one, time))[0])
        return density_by_differences(
            lambda k: self.time_value(k, time), moneyness, STRIKE_STEP * unit
        )

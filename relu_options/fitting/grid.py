r"""Where the kinks of a price network stand, how wide they are, and how rough it is.

Kinks are placed, and roughness is measured, by a **ruler**: a coordinate in which the
density is expected to vary as slowly everywhere. Two are tried, and the quotes choose
(`relu_options.fitting.smoothing`).

*By distance.* Kinks are equally spaced in $q$ with $x = (a / b) \sinh(b q)$, where $x$
is the distance of a kink from the forward. The bandwidth is the local scale of that
map,

$$
h(x) = \frac{dx}{dq} = \sqrt{a^2 + b^2 x^2},
$$

narrowest at the forward and proportional to the distance in the wings. A spacing of one
and a half bandwidths leaves a ripple of $2 \exp(-2 \pi^2 / 1.5^2) = 3 \cdot 10^{-4}$ in
a mixture of equal weights. Roughness is measured in deviations, $z = x / \sigma$.

*By normal score.* After a crash the density of an index is a narrow peak right of the
forward with a long tail to the left: one scale is too coarse for the peak and too fine
for the tail. A first fit knows its distribution function `F`; in $z = N^{-1}(F(x))$ it
is the normal density. Kinks are equally spaced in $q$ with $z = c \sinh q$, one and a
quarter of bandwidths apart; bandwidths and roughness go by that ruler.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from relu_options.fitting.kernels import FitKernel
from relu_options.fitting.quotes import Smile

SPACING = 1.5  # distance between neighbouring kinks, in bandwidths
CLOSE = 1.25  # the same by score: where bandwidths are narrow, ripples are steep
NEWTON_STEPS = 12
FINEST = 0.02  # distance of kinks on the ruler that the roughness resolves
LEAST_PILOT = math.log(1e-12)
SLOWEST, FASTEST = 0.2, 8.0  # scores per deviation of the smile
CORE = 3.0  # scores around the forward in which kinks are nearly equally spaced
BLUR = 1.0  # kinks over which the rate of the scores is averaged


@dataclass(frozen=True, eq=False)
class KinkGrid:
    """Kinks and bandwidths of one expiry, and the ruler that they go by.

    Attributes:
        x: Distances of the kinks from the forward, of shape `(n,)` and increasing.
        bandwidths: In their unit, of shape `(n,)`.
        ruler: Places of the kinks on the ruler, of shape `(n,)`.
        cells: What each kink stands for there, of shape `(n,)`.
        log_pilot: Logarithm of the density that is expected there, of shape `(n,)`.
    """

    x: np.ndarray
    bandwidths: np.ndarray
    ruler: np.ndarray
    cells: np.ndarray
    log_pilot: np.ndarray

    @property
    def roughness(self) -> np.ndarray:
        r"""The matrix `L`, `(n - 3, n)`, whose square is the roughness of a density.

        With heights $f_j = w_j / \Delta z_j$ and a pilot density $f_0$,

        $$
        \|L w\|^2 \approx \int \frac{f'''(z)^2}{f_0(z)} \, dz .
        $$

        The division by the pilot asks for the same relative smoothness in the wings as
        near the money; without it a density that is small may be as rough as it likes.
        Where kinks are closer than `FINEST` they count as that far apart: for an expiry
        that is much later than the first, kinks near the forward are so close that
        third differences would span more orders of magnitude than floats have.
        """
        steps = np.sqrt(np.diff(self.ruler) ** 2 + FINEST**2)
        z = np.concatenate([[0.0], steps.cumsum()])
        differences = np.diag(1.0 / self.cells)
        for order in (1, 2, 3):
            width = (z[order:] - z[:-order]) / order
            differences = np.diff(differences, axis=0) / width[:, None]
        pilot = self.log_pilot
        between = 0.25 * (pilot[3:] + pilot[2:-1] + pilot[1:-2] + pilot[:-3])
        width = (z[3:] - z[:-3]) / 3.0
        return differences * np.sqrt(width * np.exp(-between))[:, None]


def kinks_by_distance(
    n: int, *, low: float, high: float, narrowest: float
) -> tuple[np.ndarray, np.ndarray]:
    """Place `n` kinks from `low` to `high`.

    The widening `b` is chosen so that `n` kinks reach from end to end. Where that takes
    a negative one (more kinks than the range needs) the bandwidth is narrowed instead.

    Args:
        n: Number of kinks.
        low: Distance of the first from the forward, negative.
        high: Distance of the last, positive.
        narrowest: Largest bandwidth at the forward.

    Returns:
        Distances and bandwidths, of shape `(n,)`.
    """
    narrowest, scaled, first = _map_by_distance(n, low, high, narrowest)
    q = first + SPACING * np.arange(n)
    x = np.sinh(scaled * narrowest * q) / scaled
    return x, narrowest * np.sqrt(1.0 + (scaled * x) ** 2)


def shared_kinks(
    n: int, *, low: float, high: float, narrowest: float
) -> tuple[np.ndarray, np.ndarray]:
    r"""Place kinks for all expiries of a surface, one of them at the forward exactly.

    The kinks are those of `kinks_by_distance`, shifted by at most half of a spacing.
    Bandwidths are such that the price of a hidden unit at its own kink, per unit of the
    kink,

    $$
    p(x) = 2 N(h(x) / 2) - 1 = \sqrt{(a^2 + b^2 x^2) / 2 \pi},
    $$

    is convex in `x`, which is what carries the order of expiries from the kinks to
    every strike. It differs from $h^2 = a^2 + b^2 x^2$ in the third order of `h` only.

    Args:
        n: Number of kinks.
        low: Log-moneyness of the first, negative.
        high: Log-moneyness of the last, positive.
        narrowest: Largest bandwidth at the forward.

    Returns:
        Log-moneyness and bandwidths, of shape `(n,)`.
    """
    narrowest, scaled, first = _map_by_distance(n, low, high, narrowest)
    left = min(max(round(-first / SPACING), 2), n - 3)
    q = SPACING * (np.arange(n) - left)
    x = np.sinh(scaled * narrowest * q) / scaled
    kernel_price = narrowest * np.sqrt((1.0 + (scaled * x) ** 2) / (2.0 * np.pi))
    return x, 2.0 * ndtri(0.5 * (1.0 + kernel_price))


def _map_by_distance(
    n: int, low: float, high: float, narrowest: float
) -> tuple[float, float, float]:
    """`a`, `b / a` and the place `q` of the first kink."""
    length = SPACING * (n - 1)
    narrowest = min(narrowest, 0.8 * (high - low) / length)
    widening = narrowest / high
    for _ in range(NEWTON_STEPS):
        # A step for the logarithm of the length, in that of the widening.
        first = math.asinh(widening / narrowest * low) / widening
        last = math.asinh(widening / narrowest * high) / widening
        rates = [end / math.hypot(narrowest, widening * end) for end in (low, high)]
        elasticity = (rates[1] - rates[0]) / (last - first) - 1.0
        step = math.log(length / (last - first)) / elasticity
        widening *= math.exp(min(max(step, -2.0), 2.0))
    first = math.asinh(widening / narrowest * low) / widening
    return narrowest, widening / narrowest, first


def by_distance(x: np.ndarray, bandwidths: np.ndarray, smile: Smile) -> KinkGrid:
    """Kinks with deviations as their ruler, and the normal law of the smile."""
    unit, width = smile.at_the_money, smile(x)
    log_pilot = np.maximum(_normal(x / width) + np.log(unit / width), LEAST_PILOT)
    return KinkGrid(x, bandwidths, x / unit, SPACING * bandwidths / unit, log_pilot)


def by_score(
    grid: KinkGrid, weights: np.ndarray, smile: Smile, kernel: FitKernel
) -> KinkGrid:
    """As many kinks, from end to end, with the normal score of a fit as their ruler.

    Args:
        grid: The kinks of that fit.
        weights: Its weights, of shape `(n,)`.
        smile: The smile; the rate of the scores is held near that of its law.
        kernel: The law of the hidden units.

    Returns:
        The grid.
    """
    x, rate, z = scores(grid.x, grid.bandwidths, weights, smile, kernel)
    first, last = np.arcsinh(z[[0, -1]] / CORE)
    q = np.linspace(first, last, len(x))
    ruler = CORE * np.sinh(q)
    cells = CORE * np.cosh(q) * (q[1] - q[0])
    at, slope = _inverse(ruler, z, x, 1.0 / rate)
    return KinkGrid(at, slope * cells / CLOSE, ruler, cells, _normal(ruler))


def _normal(z: np.ndarray) -> np.ndarray:
    """Logarithm of the normal density, not less than the least pilot."""
    return np.maximum(-0.5 * z**2 - 0.5 * math.log(2.0 * math.pi), LEAST_PILOT)


def rescored(
    grid: KinkGrid, weights: np.ndarray, smile: Smile, kernel: FitKernel
) -> KinkGrid:
    """The same kinks, with the normal score of a fit as their ruler."""
    _, rate, z = scores(grid.x, grid.bandwidths, weights, smile, kernel)
    cells = SPACING * grid.bandwidths * rate
    return KinkGrid(grid.x, grid.bandwidths, z, cells, _normal(z))


def scores(
    x: np.ndarray,
    bandwidths: np.ndarray,
    weights: np.ndarray,
    smile: Smile,
    kernel: FitKernel,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distances `x`, and there the normal score of a fit and its rate of change.

    The rate is between `SLOWEST` and `FASTEST` of that of the smile's own law, and
    averaged over neighbouring kinks; the score is its integral, zero at the forward.
    """
    deviations = (x[:, None] - x + 0.5 * kernel.drift * bandwidths**2) / bandwidths
    density = np.exp(-0.5 * deviations**2) @ (weights / bandwidths)
    below, above = ndtr(deviations) @ weights, ndtr(-deviations) @ weights
    tail = ndtri(np.maximum(np.minimum(below, above), 1e-300))
    with np.errstate(under="ignore"):
        rate = density * np.exp(0.5 * tail**2)
    usual = 1.0 / smile(x)
    rate = np.clip(
        np.where(np.isfinite(rate), rate, usual), SLOWEST * usual, FASTEST * usual
    )
    apart = np.subtract.outer(np.arange(len(x)), np.arange(len(x)))
    share = np.exp(-0.5 * (apart / BLUR) ** 2)
    rate = np.exp(share @ np.log(rate) / share.sum(axis=1))
    steps = np.diff(x) * 0.5 * (rate[1:] + rate[:-1])
    z = np.concatenate([[0.0], steps.cumsum()])
    return x, rate, z - np.interp(0.0, x, z)


def _inverse(
    at: np.ndarray, z: np.ndarray, x: np.ndarray, slope: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`x(z)` at new places, by cubics of given slopes, and its slope there."""
    after = np.clip(np.searchsorted(z, at, side="right"), 1, len(z) - 1)
    before = after - 1
    width, rise = z[after] - z[before], x[after] - x[before]
    share = (at - z[before]) / width
    start, end = slope[before] * width - rise, rise - slope[after] * width
    bulge = share * (1.0 - share) * ((1.0 - share) * start + share * end)
    between = slope[before] + share * (slope[after] - slope[before])
    return x[before] + share * rise + bulge, between

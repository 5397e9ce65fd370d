r"""The law of the underlying at any time, from the laws of a few expiries.

A law is a set of output weights and bandwidths for kinks that all times share, with
mass and mean one (in units of the forward). Between two expiries the weights are mixed,

$$
w(T) = (1 - \theta) w_i + \theta w_{i+1}, \qquad
\theta(T) = \frac{p(V(T)) - p(V_i)}{p(V_{i+1}) - p(V_i)}, \qquad
p(V) = 2 N(\sqrt V / 2) - 1,
$$

where $p(V)$ is the at-the-money price at a total variance `V`, so that the
at-the-money total variance $V(T)$ is linear in time. Before the first expiry the
weights are mixed with the single hidden unit at the kink 1, and before the time at
which that unit has the right variance the law is lognormal. After the last the
underlying is multiplied by an independent lognormal factor, which widens every hidden
unit. Each step is a mean-preserving spread, so that no calendar arbitrage arises at any
time.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtr
from jax.scipy.stats import norm

from relu_options import black_scholes

__all__ = ["LognormalLaw", "SurfaceLaw", "law_of"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SurfaceLaw:
    """The laws of all expiries, with what interpolation needs; made by `law_of`.

    Attributes:
        kinks: In units of the forward, of shape `(n,)`; one is 1.
        bandwidths: Total volatilities, of shape `(n,)`.
        weights: Probabilities, of shape `(N + 1, n)`; the first row is the single unit.
        times: Years, of shape `(N + 1,)`; the first is that of the single unit.
        total_variance: At the money, of shape `(N + 1,)`.

    Examples:
        >>> kinks = jnp.array([0.8, 1.0, 1.2])
        >>> law = law_of(kinks, jnp.full(3, 0.05), jnp.array([[0.25, 0.5, 0.25]]),
        ...              jnp.ones(1))
        >>> weights, bandwidths = law.at(1.0)
        >>> print(weights)
        [0.25 0.5  0.25]
    """

    kinks: jax.Array
    bandwidths: jax.Array
    weights: jax.Array
    times: jax.Array
    total_variance: jax.Array

    def at(self, time: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Weights and bandwidths at a time, of shape `(n,)`; NaN unless positive."""
        first, last = self.times[0], self.times[-1]
        inner = jnp.where(time < first, first, jnp.where(time > last, last, time))
        after = jnp.searchsorted(self.times, inner, side="right")
        after = jnp.clip(after, 1, self.times.shape[0] - 1)
        before = after - 1
        share = (inner - self.times[before]) / (self.times[after] - self.times[before])
        low, high = self.total_variance[before], self.total_variance[after]
        rise = at_the_money_price(high) - at_the_money_price(low)
        here = at_the_money_price(low + share * (high - low)) - at_the_money_price(low)
        flat = rise <= 1e-14
        mixing = jnp.where(flat, share, here / jnp.where(flat, 1.0, rise))
        weights = self.weights[before] + mixing * (
            self.weights[after] - self.weights[before]
        )
        shrunk = jnp.where(time < first, time / jnp.where(first > 0.0, first, 1.0), 1.0)
        beyond = (
            jnp.where(time > last, time - last, 0.0) * self.total_variance[-1] / last
        )
        variance = self.bandwidths**2 * shrunk + beyond
        zero = variance <= 0.0
        bandwidths = jnp.where(zero, 0.0, jnp.sqrt(jnp.where(zero, 1.0, variance)))
        weights = jnp.where(time > 0.0, weights, jnp.nan)
        return weights, bandwidths


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LognormalLaw:
    """Lognormal laws whose total variance is linear between given times.

    Attributes:
        times: Years, of shape `(N,)`.
        total_variance: Of shape `(N,)`, not decreasing.

    Examples:
        >>> law = LognormalLaw(jnp.array([1.0]), jnp.array([0.04]))
        >>> print(law.at(0.25)[1])
        [0.1]
    """

    times: jax.Array
    total_variance: jax.Array

    @property
    def kinks(self) -> jax.Array:
        """The one kink, at the forward."""
        return jnp.ones(1)

    def at(self, time: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The weight, one, and the bandwidth; NaN unless the time is positive."""
        times = jnp.concatenate([jnp.zeros(1), self.times])
        variances = jnp.concatenate([jnp.zeros(1), self.total_variance])
        inner = jnp.interp(time, times, variances)
        beyond = jnp.where(time > times[-1], time - times[-1], 0.0)
        variance = inner + beyond * variances[-1] / times[-1]
        weight = jnp.where(time > 0.0, 1.0, jnp.nan)
        return weight[None], jnp.sqrt(variance)[None]


Law = SurfaceLaw | LognormalLaw
"""What gives kinks, and weights and bandwidths at a time."""


def law_of(
    kinks: jax.Array, bandwidths: jax.Array, weights: jax.Array, times: jax.Array
) -> SurfaceLaw:
    """Put the single hidden unit before the expiries, whose weights are `(N, n)`.

    Args:
        kinks: In units of the forward, of shape `(n,)`; one is 1.
        bandwidths: Total volatilities, of shape `(n,)`.
        weights: Probabilities of every expiry, of shape `(N, n)`.
        times: Years, of shape `(N,)`, increasing.

    Returns:
        The law at all times.

    Examples:
        At the money total variance is linear in time, down to zero.

        >>> law = law_of(jnp.array([0.8, 1.0, 1.2]), jnp.full(3, 0.05),
        ...              jnp.array([[0.25, 0.5, 0.25]]), jnp.ones(1))
        >>> ratio = total_volatility(law, 1.0, 0.25) / total_volatility(law, 1.0, 1.0)
        >>> print(ratio.round(12))
        0.5
    """
    single = jnp.where(kinks == 1.0, 1.0, 0.0)
    price = black_scholes.undiscounted_price(kinks, 1.0, bandwidths, True)
    total = black_scholes.implied_total_volatility(weights @ price, 1.0, 1.0, True)
    start = (single @ bandwidths) ** 2
    # A first law that is the single unit itself leaves nothing to mix.
    first = times[0] * jnp.minimum(start / total[0] ** 2, 1.0 - 1e-9)
    return SurfaceLaw(
        kinks,
        bandwidths,
        jnp.concatenate([single[None], weights]),
        jnp.concatenate([first[None], times]),
        jnp.concatenate([start[None], total**2]),
    )


def at_the_money_price(total_variance: jax.Array) -> jax.Array:
    """Price at the forward, in units of it, of a lognormal law."""
    positive = total_variance > 0.0
    root = jnp.sqrt(jnp.where(positive, total_variance, 1.0))
    # Half of the root is small: the difference of two distributions near one half.
    return jnp.where(positive, jax.scipy.special.erf(root / 8.0**0.5), 0.0)


def time_value(law: Law, moneyness: jax.Array, time: jax.Array) -> jax.Array:
    """Undiscounted price of the out-of-the-money option, in units of the forward."""
    weights, bandwidths = law.at(time)
    is_call = moneyness >= 1.0
    hidden = black_scholes.undiscounted_price(law.kinks, moneyness, bandwidths, is_call)
    return hidden @ weights


def total_volatility(law: Law, moneyness: jax.Array, time: jax.Array) -> jax.Array:
    """Total Black-Scholes volatility at one strike over forward and time."""
    price = time_value(law, moneyness, time)
    return black_scholes.implied_total_volatility(
        price, 1.0, moneyness, moneyness >= 1.0
    )


def survival(law: Law, moneyness: jax.Array, time: jax.Array) -> jax.Array:
    """Probability of finishing above `moneyness`."""
    weights, bandwidths = law.at(time)
    return ndtr(_deviations(law.kinks, bandwidths, moneyness)) @ weights


def distribution(law: Law, moneyness: jax.Array, time: jax.Array) -> jax.Array:
    """Probability of finishing at or below `moneyness`."""
    weights, bandwidths = law.at(time)
    return ndtr(-_deviations(law.kinks, bandwidths, moneyness)) @ weights


def density(law: Law, moneyness: jax.Array, time: jax.Array) -> jax.Array:
    """Density of the underlying over its forward; infinite or zero if it has atoms."""
    weights, bandwidths = law.at(time)
    sharp = bandwidths == 0.0
    width = jnp.where(sharp, 1.0, bandwidths) * moneyness
    height = norm.pdf(_deviations(law.kinks, bandwidths, moneyness)) / width
    at_kink = jnp.where(law.kinks == moneyness, jnp.inf, 0.0)
    return jnp.where(
        jnp.any(sharp & (weights > 0.0)),
        jnp.sum(jnp.where(weights > 0.0, at_kink * weights, 0.0)),
        height @ weights,
    )


def local_variance(law: Law, moneyness: jax.Array, time: jax.Array) -> jax.Array:
    r"""Dupire's $2 \partial_T c / (k^2 \partial_{kk} c)$, in units of the forward."""
    time = jnp.asarray(time, float)
    one = jnp.ones_like(time)
    _, rise = jax.jvp(lambda at: time_value(law, moneyness, at), (time,), (one,))
    curvature = moneyness**2 * density(law, moneyness, time)
    return 2.0 * jnp.maximum(rise, 0.0) / curvature


def variance_swap(law: Law, time: jax.Array) -> jax.Array:
    r"""Fair annual variance, $-\tfrac2T E \log(S_T / F_T)$, of continuous paths."""
    weights, bandwidths = law.at(time)
    positive = weights > 0.0
    logs = jnp.log(jnp.where(positive, law.kinks, 1.0)) - 0.5 * bandwidths**2
    return -2.0 * jnp.sum(jnp.where(positive, weights * logs, 0.0)) / time


def _deviations(
    kinks: jax.Array, bandwidths: jax.Array, moneyness: jax.Array
) -> jax.Array:
    """`d_-`: how many bandwidths the median of each unit is above the strike."""
    distance = jnp.log(kinks / moneyness) - 0.5 * bandwidths**2
    sharp = bandwidths == 0.0
    sign = jnp.where(distance >= 0.0, jnp.inf, -jnp.inf)
    return jnp.where(sharp, sign, distance / jnp.where(sharp, 1.0, bandwidths))

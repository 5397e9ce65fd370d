r"""The law of the underlying at any time, from the laws of a few expiries.

A law is a set of output weights and bandwidths for kinks that all times share, with
mass and mean one (in units of the forward). Its skeleton is the same with all
bandwidths zero. Between two expiries the skeleton's *total variance* is linear in time
at every kink: with $v_i(s_m)$ implied by the time value of the skeleton of expiry `i`
at the kink $s_m$,

$$
v(s_m, T) = (1 - \theta) v_i(s_m) + \theta v_{i+1}(s_m), \qquad
\theta = \frac{T - T_i}{T_{i+1} - T_i},
$$

and the weights at `T` are the changes of slope of the largest convex function below the
prices at these variances. The prices rise with time, so does the largest convex
function below them, and order of the skeletons at the kinks is order of all prices: no
calendar arbitrage arises at any time, and smiles between expiries look like their
neighbours. Before the first expiry the skeleton's variance falls in proportion to time,
down to a quarter: an early law, below which the kinks are too far apart to tell. Times
before that mix the early law and the single hidden unit at the kink 1,

$$
w(T) = (1 - \mu) w_0 + \mu w_e, \qquad
\mu = \frac{p(V(T)) - p(V_0)}{p(V_e) - p(V_0)}, \qquad p(V) = 2 N(\sqrt V / 2) - 1,
$$

with the at-the-money total variance $V(T)$ linear in time; before the time at which the
single unit has the right variance the law is lognormal. After the last the underlying
is multiplied by an independent lognormal factor, which widens every hidden unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from relu_options.formulas import black_scholes
from relu_options.networks import PriceNetwork

EARLY = 0.25  # skeleton variance of the early law, over that of the first expiry
APART = 1e-9  # least distance of the first times, over that of the first expiry

__all__ = ["LognormalLaw", "Marginal", "SurfaceLaw", "law_of"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Marginal(PriceNetwork):
    """The law at one time: a mixture of lognormal laws, in units of the forward.

    Its weights are probabilities. A strike over the forward is rounded: `tie` is by how
    much.

    Examples:
        >>> marginal = Marginal(jnp.ones(1), jnp.ones(1), jnp.array([0.2]))
        >>> print(f"{time_value(marginal, jnp.array(1.0)):.4f}")
        0.0797
    """

    tie: ClassVar[float] = 5e-16


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SurfaceLaw:
    """The laws of all expiries, with what interpolation needs; made by `law_of`.

    Attributes:
        kinks: In units of the forward, of shape `(n,)`; one is 1.
        bandwidths: Total volatilities, of shape `(n,)`.
        weights: Probabilities, of shape `(N + 2, n)`: the single unit, the early law,
            and the expiries.
        times: Their times in years, of shape `(N + 2,)`; infinite where padded.
        skeleton_variance: Of the skeletons at the inner kinks, `(N + 2, n - 2)`.
        total_variance: At the money, of shape `(N + 2,)`.

    Examples:
        >>> kinks = jnp.array([0.8, 1.0, 1.2])
        >>> law = law_of(kinks, jnp.full(3, 0.05), jnp.array([[0.25, 0.5, 0.25]]),
        ...              jnp.ones(1))
        >>> print(law.at(1.0).weights)
        [0.25 0.5  0.25]
    """

    kinks: jax.Array
    bandwidths: jax.Array
    weights: jax.Array
    times: jax.Array
    skeleton_variance: jax.Array
    total_variance: jax.Array

    def at(self, time: jax.Array) -> Marginal:
        """The law at a time; NaN unless it is positive.

        Where its derivative in time jumps, at the expiries, it is that from the left.
        """
        first, rows = self.times[0], jnp.sum(jnp.isfinite(self.times))
        last = self.times[rows - 1]
        inner = jnp.where(time <= first, first, jnp.where(time > last, last, time))
        after = jnp.searchsorted(self.times, inner, side="left")
        after = jnp.clip(after, 1, rows - 1)
        before = after - 1
        share = (inner - self.times[before]) / (self.times[after] - self.times[before])
        low, high = self.skeleton_variance[before], self.skeleton_variance[after]
        weights = _skeleton_weights(self.kinks, low + share * (high - low))
        weights = jnp.where(before == 0, self._mixed(share), weights)
        # At an expiry its own weights, to the last digit; they still move with time.
        motion = weights - jax.lax.stop_gradient(weights)
        weights = jnp.where(share == 0.0, self.weights[before] + motion, weights)
        weights = jnp.where(share == 1.0, self.weights[after] + motion, weights)
        early = time / jnp.where(first > 0.0, first, 1.0)
        shrunk = jnp.where(time <= first, early, 1.0)
        beyond = jnp.where(time > last, time - last, 0.0)
        beyond = beyond * self.total_variance[-1] / last
        variance = self.bandwidths**2 * shrunk + beyond
        weights = jnp.where(time > 0.0, weights, jnp.nan)
        return Marginal(self.kinks, weights, _root(variance))

    def _mixed(self, share: jax.Array) -> jax.Array:
        """Weights between the single unit and the early law."""
        low, high = self.total_variance[0], self.total_variance[1]
        first = _at_the_money_price(low)
        rise = _at_the_money_price(high) - first
        here = _at_the_money_price(low + share * (high - low)) - first
        flat = rise <= 1e-14
        mixing = jnp.where(flat, share, here / jnp.where(flat, 1.0, rise))
        return self.weights[0] + mixing * (self.weights[1] - self.weights[0])


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LognormalLaw:
    """Lognormal laws whose total variance is linear between given times.

    Attributes:
        times: Years, of shape `(N,)`.
        total_variance: Of shape `(N,)`, not decreasing.

    Examples:
        >>> law = LognormalLaw(jnp.array([1.0]), jnp.array([0.04]))
        >>> print(law.at(0.25).bandwidths)
        [0.1]
    """

    times: jax.Array
    total_variance: jax.Array

    def at(self, time: jax.Array) -> Marginal:
        """One hidden unit at the forward; NaN unless the time is positive.

        Where its derivative in time jumps it is that from the left.
        """
        times = jnp.concatenate([jnp.zeros(1), self.times])
        variances = jnp.concatenate([jnp.zeros(1), self.total_variance])
        after = jnp.clip(jnp.searchsorted(times, time, side="left"), 1, len(times) - 1)
        share = (time - times[after - 1]) / (times[after] - times[after - 1])
        share = jnp.where(time > times[-1], 1.0, share)
        low, high = variances[after - 1], variances[after]
        inner = (1.0 - share) * low + share * high  # the ends to the last digit
        beyond = jnp.where(time > times[-1], time - times[-1], 0.0)
        variance = inner + beyond * variances[-1] / times[-1]
        weight = jnp.where(time > 0.0, 1.0, jnp.nan)
        return Marginal(jnp.ones(1), weight[None], jnp.sqrt(variance)[None])


Law = SurfaceLaw | LognormalLaw
"""What gives the marginal at a time."""


def law_of(
    kinks: ArrayLike, bandwidths: ArrayLike, weights: ArrayLike, times: ArrayLike
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
        Halfway to a first expiry of one year.

        >>> law = law_of(jnp.array([0.8, 1.0, 1.2]), jnp.full(3, 0.05),
        ...              jnp.array([[0.25, 0.5, 0.25]]), jnp.ones(1))
        >>> print(law.at(0.5).weights.round(3))
        [0.143 0.714 0.143]
    """
    # By NumPy, and formulas that others compile too: this as a whole takes seconds.
    kinks, bandwidths, weights, times = map(
        np.asarray, (kinks, bandwidths, weights, times)
    )
    variance = _total_variance(_compiled_time_values(weights, kinks), kinks[1:-1])
    early = EARLY * variance[0]
    single = np.where(kinks == 1.0, 1.0, 0.0)
    rows = np.stack([single, _compiled_skeleton_weights(kinks, early), *weights])
    units = black_scholes.price(
        forward=kinks, strike=1.0, time_to_expiry=1.0, volatility=bandwidths
    )
    totals = _total_variance(rows @ units, 1.0)
    # A first law that is the single unit itself leaves nothing to go through.
    shares = totals[:2] / (totals[2] if totals[2] > 0.0 else 1.0)
    second = np.minimum(np.maximum(shares[1], shares[0] + APART), 1.0 - APART)
    first = np.minimum(shares[0], second - APART)
    parts = [
        kinks,
        bandwidths,
        rows,
        np.concatenate([times[0] * np.stack([first, second]), times]),
        np.stack([np.zeros_like(early), early, *variance]),
        totals,
    ]
    return SurfaceLaw(*map(jnp.asarray, parts))


def _total_variance(time_value: Any, moneyness: Any) -> np.ndarray:
    """Total variances of the options out of the money; zero where there is none."""
    volatility = black_scholes.implied_volatility(
        price=np.asarray(time_value),
        forward=1.0,
        strike=moneyness,
        time_to_expiry=1.0,
        is_call=np.asarray(moneyness >= 1.0),
    )
    return np.where(volatility > 0.0, volatility, 0.0) ** 2


def time_values(weights: jax.Array, kinks: jax.Array) -> jax.Array:
    """Time values of the skeleton at the inner kinks, as sums of positive terms.

    Puts below 1 and calls above it; weights of shape `(..., n)`, mass and mean one.
    """
    calls = jnp.maximum(kinks - kinks[1:-1, None], 0.0)
    puts = jnp.maximum(kinks[1:-1, None] - kinks, 0.0)
    hinges = jnp.where(kinks[1:-1, None] >= 1.0, calls, puts)
    return jnp.einsum("...j,kj->...k", weights, hinges)


def _at_the_money_price(total_variance: jax.Array) -> jax.Array:
    """Price at the forward, in units of it, of a lognormal law."""
    # Half of the root is small: the difference of two distributions near one half.
    return jax.scipy.special.erf(_root(total_variance) / 8.0**0.5)


def _root(variance: jax.Array) -> jax.Array:
    """The square root, whose derivative is zero where it is."""
    zero = variance <= 0.0
    return jnp.where(zero, 0.0, jnp.sqrt(jnp.where(zero, 1.0, variance)))


def _skeleton_weights(kinks: jax.Array, variance: jax.Array) -> jax.Array:
    """Changes of slope of the largest convex function below prices at the kinks.

    Time values are kept apart below and above the kink 1, so that small ones keep their
    digits; only where the two sides do not fit together are they taken as one.
    """
    inner = kinks[1:-1]
    value = black_scholes.undiscounted_price(1.0, inner, _root(variance), inner >= 1.0)
    value = jnp.concatenate([jnp.zeros(1), value, jnp.zeros(1)])
    above = kinks[:-1] >= 1.0
    at_one = jnp.where(kinks == 1.0, 1.0, 0.0)
    # Both at once, since each scan takes its time to compile.
    apart, together = jax.vmap(_convex_slopes, (None, 0, 0))(
        kinks,
        jnp.stack([value, value + jnp.maximum(1.0 - kinks, 0.0)]),
        jnp.stack([above, jnp.zeros_like(above)]),
    )
    sides = at_one + _changes(apart, 0.0)
    fit = at_one @ sides >= 0.0
    return jnp.maximum(jnp.where(fit, sides, _changes(together, -1.0)), 0.0)


_compiled_time_values = jax.jit(time_values)
_compiled_skeleton_weights = jax.jit(_skeleton_weights)


def _changes(slopes: jax.Array, first: float) -> jax.Array:
    """Changes of slope at the kinks, from `first` on the left to zero on the right."""
    ends = jnp.array([first]), jnp.zeros(1)
    return jnp.diff(jnp.concatenate([ends[0], slopes, ends[1]]))


def _convex_slopes(kinks: jax.Array, values: jax.Array, side: jax.Array) -> jax.Array:
    r"""Slopes of the largest convex function below given values, on each side.

    The slope in cell `m` is $\max_{i \le m} \min_{k > m}$ of the slope of the chord
    from `i` to `k`; chords from one side to the other do not count.
    """
    cells = jnp.arange(kinks.shape[0] - 1)

    def before(least, cell):
        """The cell's slope, from the least slopes of chords that end after it."""
        counts = (cells <= cell) & (side == side[cell])
        run = jnp.where(counts, kinks[cell + 1] - kinks[:-1], 1.0)
        chords = (values[cell + 1] - values[:-1]) / run
        least = jnp.where(counts, jnp.minimum(least, chords), jnp.inf)
        return least, jnp.max(jnp.where(counts, least, -jnp.inf))

    _, slopes = jax.lax.scan(before, jnp.full(len(cells), jnp.inf), cells, reverse=True)
    return slopes


def time_value(marginal: Marginal, moneyness: jax.Array) -> jax.Array:
    """Undiscounted price of the out-of-the-money option, in units of the forward."""
    hidden = black_scholes.undiscounted_price(
        marginal.kinks, moneyness, marginal.bandwidths, moneyness >= 1.0
    )
    return hidden @ marginal.weights


def time_derivative(
    marginal: Marginal, rate: Marginal, moneyness: jax.Array
) -> jax.Array:
    """Derivative of the time value in the time; `rate` is that of the marginal."""
    _, rise = jax.jvp(lambda one: time_value(one, moneyness), (marginal,), (rate,))
    return jnp.maximum(rise, 0.0)


def local_variance(
    marginal: Marginal, rate: Marginal, moneyness: jax.Array
) -> jax.Array:
    r"""Dupire's $2 \partial_T c / (k^2 \partial_{kk} c)$, in units of the forward."""
    curvature = moneyness**2 * marginal.second_derivative(moneyness)
    variance = 2.0 * time_derivative(marginal, rate, moneyness) / curvature
    atoms = jnp.any((marginal.bandwidths == 0.0) & (marginal.weights > 0.0))
    least = jnp.finfo(curvature.dtype).tiny
    return jnp.where(atoms | (curvature >= least), variance, jnp.nan)


def log_variance(marginal: Marginal) -> jax.Array:
    r"""$-2 E \log(S_T / F_T)$: the fair total variance of continuous paths."""
    weights = marginal.weights
    none = weights == 0.0
    logs = jnp.log(jnp.where(none, 1.0, marginal.kinks)) - 0.5 * marginal.bandwidths**2
    return -2.0 * jnp.sum(jnp.where(none, 0.0, weights * logs))

r"""Dupire's equation in weak form: how the output weights of a ReLU network move.

Call prices of all strikes and expiries follow from the local volatility
$\sigma(k, T)$ by $\partial_T c = \tfrac12 \sigma^2 k^2 \, \partial_{kk} c$ (Dupire
1994), with $k$ the strike and $c$ the undiscounted price, both in units of the forward.
On a ReLU network with fixed kinks, $c(k, T) = \sum_j p_j(T) (k_j - k)^+$, the second
derivative is the measure of mass $p_j$ at the kinks. Asking for the equation at the
kinks, with $p_j$ spread over the half-intervals beside $k_j$, gives an equation for the
output weights,

$$
\frac{dp}{dT} = A^\top p, \qquad
A_{j, j-1} = \frac{v_j}{h_{j-1} (h_{j-1} + h_j)}, \quad
A_{j, j+1} = \frac{v_j}{h_j (h_{j-1} + h_j)}, \quad
A_{jj} = -A_{j, j-1} - A_{j, j+1},
$$

where $h_j = k_{j+1} - k_j$ and $v_j = \sigma(k_j, T)^2 k_j^2$. It is the forward
equation of a Markov chain on the kinks: the rates are not negative, $A 1 = 0$ keeps the
mass, and $A k = 0$ makes it a martingale. The chain stays where it is at both ends.

An implicit Euler step solves $(1 - \Delta A^\top) p' = p$ with an M-matrix, so that the
weights stay non-negative, with mass and mean kept, for every length $\Delta$ of the
step; and $c' - c = \Delta \, v_j p'_j / (h_{j-1} + h_j) \ge 0$ at the kinks. The prices
have neither butterfly nor calendar arbitrage. One such step from the payoff is the
method of Andreasen and Huge (2011). A Crank-Nicolson step is of second order, and has
the same properties as long as it makes no weight negative.

References:
    Dupire, B. (1994). Pricing with a smile. *Risk*, 7(1), 18-20.
    Andreasen, J. and Huge, B. (2011). Volatility interpolation. *Risk*, March, 76-79.
    Rannacher, R. (1984). Finite element solution of diffusion problems with irregular
    data. *Numerische Mathematik*, 43, 309-327.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.lax.linalg import tridiagonal_solve

from relu_options.arbitrage.surface_certificate import settle_weights
from relu_options.formulas.elementwise import ArrayLike
from relu_options.surfaces import PriceSurface

__all__ = [
    "Evolution",
    "TimeSteps",
    "evolve",
    "expiry_weights",
    "jump_rates",
    "local_volatility_surface",
    "spread_kinks",
    "time_steps",
]

Method = Literal["rannacher", "implicit"]
METHODS = ("rannacher", "implicit")

LocalVolatility: TypeAlias = Callable[[Any, Any], Any] | ArrayLike
"""A function of moneyness and time, or an array `(times, kinks)`."""

STARTING_STEPS = 2  # taken as two implicit halves each, which damp the kink of a payoff
REACH = 7.0  # at-the-money deviations from the forward to the last of chosen kinks
AT_THE_FORWARD = 1e-9  # how near to 1 a kink is taken as the forward


# The chain on the kinks


def jump_rates(
    kinks: ArrayLike, local_variance: ArrayLike
) -> tuple[jax.Array, jax.Array]:
    r"""Rates at which the chain jumps to the kink below and to the kink above.

    Args:
        kinks: `k`, increasing, of shape `(n,)`.
        local_variance: $v = \sigma^2 k^2$ per year, of shape `(..., n)`.

    Returns:
        $v_j / (h_{j-1} (h_{j-1} + h_j))$ and $v_j / (h_j (h_{j-1} + h_j))$, per
        year, of the shape of `local_variance`; zero at both ends, whatever the
        variance there.

    Examples:
        >>> down, up = jump_rates(jnp.array([0.8, 1.0, 1.3]), jnp.full(3, 0.03))
        >>> print(down.round(12), up.round(12))
        [0.  0.3 0. ] [0.  0.2 0. ]
    """
    kinks, variance = jnp.asarray(kinks), jnp.asarray(local_variance)[..., 1:-1]
    below, above = jnp.diff(kinks)[:-1], jnp.diff(kinks)[1:]
    ends = [(0, 0)] * (variance.ndim - 1) + [(1, 1)]
    down = jnp.pad(variance / (below * (below + above)), ends)
    up = jnp.pad(variance / (above * (below + above)), ends)
    return down, up


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Evolution:
    """Output weights after each of a number of time steps.

    Attributes:
        weights: Probabilities, of shape `(steps, n)`.
        replaced: Whether a Crank-Nicolson step would have made a weight negative, so
            that two implicit Euler steps were taken instead; of shape `(steps,)`.

    Examples:
        A volatility that is rough by the kink, and far too long a step.

        >>> kinks = jnp.exp(jnp.linspace(-0.5, 0.5, 11)).at[5].set(1.0)
        >>> rough = jnp.where(jnp.arange(11) % 2 == 1, 1.0, 0.05) * kinks
        >>> evolution = evolve(kinks, jnp.full(11, 1.0 / 11.0), rough[None] ** 2,
        ...                    jnp.array([1.0]), jnp.array([False]))
        >>> print(evolution.replaced, evolution.weights.min() >= 0.0)
        [ True] True
    """

    weights: jax.Array
    replaced: jax.Array


@jax.jit
def evolve(
    kinks: ArrayLike,
    start: ArrayLike,
    local_variance: ArrayLike,
    durations: ArrayLike,
    implicit: ArrayLike,
) -> Evolution:
    r"""Move output weights through time, step by step.

    Pure and differentiable, in every argument but the last.

    Args:
        kinks: In units of the forward, increasing, of shape `(n,)`.
        start: Weights to start from, of shape `(n,)`.
        local_variance: $\sigma^2 k^2$ per year during each step, of shape
            `(steps, n)`.
        durations: Years, of shape `(steps,)`; nothing moves in a step of zero.
        implicit: True for an implicit Euler step, False for one of Crank-Nicolson, of
            shape `(steps,)`.

    Returns:
        The weights after each step.

    Examples:
        From the forward, in one implicit step of a year at a volatility of 20%.

        >>> kinks = jnp.array([0.6, 0.8, 1.0, 1.2, 1.4])
        >>> start = jnp.array([0.0, 0.0, 1.0, 0.0, 0.0])
        >>> after = evolve(kinks, start, (0.2 * kinks[None]) ** 2,
        ...                jnp.array([1.0]), jnp.array([True]))
        >>> print(after.weights[0].round(4))
        [0.0556 0.1737 0.5698 0.1168 0.0841]
    """
    kinks = jnp.asarray(kinks)

    def step(weights, inputs):
        variance, duration, is_implicit = inputs
        down, up = jump_rates(kinks, variance)
        half = 0.5 * duration
        right = jnp.where(is_implicit, 0.0, half) * _flow(down, up, weights)
        left = jnp.where(is_implicit, duration, half)
        after = _implicit_euler(down, up, left, weights + right)

        def twice():
            middle = _implicit_euler(down, up, half, weights)
            return _implicit_euler(down, up, half, middle)

        negative = jnp.min(after) < 0.0
        after = jax.lax.cond(negative, twice, lambda: after)
        return after, (after, negative)

    inputs = (local_variance, durations, implicit)
    _, (weights, replaced) = jax.lax.scan(step, jnp.asarray(start), inputs)
    return Evolution(weights, replaced)


def _flow(down: jax.Array, up: jax.Array, weights: jax.Array) -> jax.Array:
    """What each kink gains per year, `A' p`."""
    falling, rising = down * weights, up * weights
    gained = jnp.pad(falling[1:], (0, 1)) + jnp.pad(rising[:-1], (1, 0))
    return gained - falling - rising


def _implicit_euler(
    down: jax.Array, up: jax.Array, duration: jax.Array, weights: jax.Array
) -> jax.Array:
    """Solve `(1 - duration A') x = weights`.

    Columns are diagonally dominant, so elimination neither exchanges rows nor subtracts
    in the weights: they stay non-negative in rounded arithmetic too.
    """
    return tridiagonal_solve(
        jnp.pad(-duration * up[:-1], (1, 0)),
        1.0 + duration * (down + up),
        jnp.pad(-duration * down[1:], (0, 1)),
        weights[:, None],
    )[:, 0]


# Steps in time


@dataclass(frozen=True)
class TimeSteps:
    """Time steps from zero to the last expiry.

    Attributes:
        durations: Years, of shape `(steps,)`.
        implicit: Which are of implicit Euler, of shape `(steps,)`.
        interval: Number of the expiry that each step leads to, of shape `(steps,)`.
        last: Position of the step that ends at each expiry, of shape `(times,)`.

    Examples:
        >>> plan = time_steps(np.array([0.5, 1.0]), method="implicit", steps=2)
        >>> print(plan.middles, plan.interval, plan.last)
        [0.125 0.375 0.75 ] [0 0 1] [1 2]
    """

    durations: np.ndarray
    implicit: np.ndarray
    interval: np.ndarray
    last: np.ndarray

    @property
    def middles(self) -> np.ndarray:
        """Years from today to the middle of each step, of shape `(steps,)`."""
        return np.cumsum(self.durations) - 0.5 * self.durations


def time_steps(times: np.ndarray, *, method: Method, steps: int) -> TimeSteps:
    r"""Choose the steps in time.

    The error of `N` equal steps from zero to $T$ is proportional to $\Delta^3 N$ in
    units of $T$, whenever they are taken. So that every expiry has the accuracy that
    `steps` steps give it, the interval from $T_{i-1}$ to $T_i$ has

    $$
    N_i = \left\lceil N \sqrt{\frac{(T_i - T_{i-1})^3}{T_i^3 - T_{i-1}^3}} \right\rceil
    $$

    equal steps, all $N$ in the first and fewer in the others. With "rannacher" the
    first two steps of all are taken as two implicit halves each.

    Args:
        times: Years to the expiries, positive and increasing, of shape `(times,)`.
        method: "rannacher" or "implicit".
        steps: `N`.

    Returns:
        The steps.

    Examples:
        >>> plan = time_steps(np.array([0.5, 1.0]), method="rannacher", steps=4)
        >>> print(plan.durations.round(4))
        [0.0625 0.0625 0.0625 0.0625 0.125  0.125  0.25   0.25  ]
    """
    times = np.asarray(times, float)
    before = np.concatenate([[0.0], times[:-1]])
    share = np.sqrt((times - before) ** 3 / (times**3 - before**3))
    counts = np.maximum(np.ceil(steps * share - 1e-9), 1).astype(int)
    durations = np.repeat((times - before) / counts, counts)
    interval = np.repeat(np.arange(times.size), counts)
    implicit = np.full(durations.size, method == "implicit")
    if method == "rannacher":
        halved = min(STARTING_STEPS, int(counts[0]))
        repeats = np.where(np.arange(durations.size) < halved, 2, 1)
        implicit[:halved] = True
        durations = np.repeat(durations / repeats, repeats)
        interval, implicit = np.repeat(interval, repeats), np.repeat(implicit, repeats)
    last = np.searchsorted(interval, np.arange(times.size), side="right") - 1
    return TimeSteps(durations, implicit, interval, last)


# Surfaces


def spread_kinks(n: int, *, low: float, high: float, narrowest: float) -> np.ndarray:
    r"""Kinks that lie densest at the forward, one of them at 1 exactly.

    They are equally spaced in $u$, with log-moneyness $x = a \sinh u$.

    Args:
        n: Number of kinks.
        low: Log-moneyness of the first, negative.
        high: Log-moneyness of the last, positive.
        narrowest: `a`; within this distance from the forward spacing is nearly equal,
            beyond it grows with the distance. The at-the-money total volatility of the
            first expiry serves.

    Returns:
        The kinks in units of the forward, of shape `(n,)`.

    Examples:
        >>> print(spread_kinks(7, low=-1.0, high=1.0, narrowest=0.2).round(3))
        [0.368 0.64  0.844 1.    1.185 1.562 2.718]
    """
    first, last = np.arcsinh(low / narrowest), np.arcsinh(high / narrowest)
    below = int(np.clip(round((n - 1) * first / (first - last)), 1, n - 2))
    left = np.linspace(first, 0.0, below + 1)
    right = np.linspace(0.0, last, n - below)
    return np.exp(narrowest * np.sinh(np.concatenate([left[:-1], right])))


def expiry_weights(
    kinks: ArrayLike,
    local_volatility: LocalVolatility,
    times: ArrayLike,
    *,
    method: Method = "rannacher",
    steps: int = 100,
) -> jax.Array:
    """Output weights of every expiry, from a local volatility.

    A JAX function of the local volatility and of the kinks: it can be differentiated
    in what they depend on. `local_volatility_surface` makes a price surface of it.

    Args:
        kinks: In units of the forward, increasing, one of them 1; of shape `(n,)`.
        local_volatility: A function of moneyness and years, called with arrays of shape
            `(time steps, n)` at the middles of the steps; or an array that broadcasts
            to `(times, n)`, whose rows hold up to each expiry from the one before.
            Values at the first and the last kink do not matter. Where a function is not
            finite in a wing, as Dupire's formula is not where there is no density, the
            outermost finite value of the same time is taken.
        times: Years to the expiries, positive and increasing.
        method: "rannacher" or "implicit"; see `local_volatility_surface`.
        steps: Time steps from today to an expiry; see `time_steps`.

    Returns:
        Probabilities of the kinks, of shape `(times, n)`: not negative, with mass and
        mean of one up to rounding.

    Examples:
        A derivative through all time steps: the vega of a call at the money.

        >>> kinks = spread_kinks(101, low=-1.5, high=1.5, narrowest=0.2)
        >>> def call(volatility):
        ...     weights = expiry_weights(kinks, volatility, [1.0])
        ...     return weights[0] @ jnp.maximum(kinks - 1.0, 0.0)
        >>> round(float(jax.grad(call)(0.2)), 3)
        0.397
    """
    kinks, times = jnp.asarray(kinks, float), np.asarray(times, float)
    plan = time_steps(times, method=method, steps=steps)
    shape = (plan.durations.size, kinks.size)
    if callable(local_volatility):
        moneyness = jnp.broadcast_to(kinks, shape)
        time = jnp.broadcast_to(plan.middles[:, None], shape)
        volatility = jnp.broadcast_to(local_volatility(moneyness, time), shape)
    else:
        rows = jnp.broadcast_to(jnp.asarray(local_volatility), (times.size, kinks.size))
        volatility = rows[plan.interval]
    if not isinstance(volatility, Tracer) and not isinstance(kinks, Tracer):
        volatility = np.asarray(volatility)
        if callable(local_volatility):
            volatility = _level_in_wings(volatility)
        _check_volatility(volatility, kinks, plan.middles)
    start = jnp.where(kinks == 1.0, 1.0, 0.0)
    variance = (volatility * kinks) ** 2
    evolution = evolve(kinks, start, variance, plan.durations, plan.implicit)
    return evolution.weights[plan.last]


def local_volatility_surface(
    kinks: ArrayLike | int,
    local_volatility: LocalVolatility,
    times: ArrayLike,
    *,
    forwards: ArrayLike = 1.0,
    discount_factors: ArrayLike = 1.0,
    method: Method = "rannacher",
    steps: int = 100,
    expiries: tuple[str, ...] = (),
    quote_time: object = None,
) -> PriceSurface:
    r"""Prices of all strikes and expiries at once, from a local volatility.

    Solves Dupire's equation for the output weights of a ReLU network (see
    `relu_options.dupire`). The surface is free of static arbitrage whatever the local
    volatility, for every number of kinks and of steps; it is accurate to second order
    in the spacing of the kinks and, by "rannacher", in the length of the steps, if the
    local volatility jumps in time at some of `times` only. Between kinks prices are
    straight lines, so that the density consists of atoms.

    Args:
        kinks: Moneyness: in units of the forward of whatever expiry. Increasing,
            positive, one of them 1. A whole number chooses that many, by
            `spread_kinks`, out to seven at-the-money deviations of the last expiry.
        local_volatility: Annualised, 0.2 meaning 20%: a function of moneyness and years
            from today, both arrays; or an array that broadcasts to `(times, n)`, rows
            holding up to each expiry from the one before. It is the volatility of spot
            over forward.
        times: Years to the expiries, increasing.
        forwards: Forward prices, currency units: one, or one for each expiry.
        discount_factors: Prices today of one unit of currency paid at expiry, likewise.
        method: "rannacher" takes four implicit Euler steps of half a length first, then
            Crank-Nicolson steps; one that would make a weight negative, as a rough
            local volatility can cause, is taken as two implicit Euler steps of half of
            its length instead, at the cost of the second order. "implicit" takes
            implicit Euler steps only, which are of first order.
        steps: Time steps from today to an expiry; see `time_steps`.
        expiries: Names of the expiries.
        quote_time: When the times begin, if known; see
            `relu_options.market_data.utc_time`.

    Returns:
        The surface: bandwidths zero, output weights the solution at each expiry.

    Raises:
        ValueError: If kinks or times are not increasing, no kink is at 1, shapes do not
            agree, a local volatility is negative or not finite, or a request is
            unknown.

    Examples:
        Constant elasticity of variance, $dS = 0.3 \sqrt{S} \, dW$ from 1.

        >>> surface = local_volatility_surface(
        ...     401, lambda moneyness, time: 0.3 / moneyness**0.5, [0.25, 1.0],
        ...     forwards=100.0)
        >>> print(surface.price(np.array([80.0, 100.0, 120.0]), 1.0).round(3))
        [24.006 11.934  4.969]
    """
    check_request(method, steps)
    times = np.atleast_1d(np.asarray(times, float))
    _check_increasing(times, "times")
    forwards = _per_expiry(forwards, times, "forwards")
    discount_factors = _per_expiry(discount_factors, times, "discount_factors")
    if isinstance(kinks, int | np.integer):
        kinks = _chosen_kinks(int(kinks), local_volatility, times)
    kinks = _checked_kinks(kinks)
    _check_rows(local_volatility, times, kinks)
    weights = expiry_weights(kinks, local_volatility, times, method=method, steps=steps)
    return PriceSurface(
        kinks=kinks,
        weights=settle_weights(np.asarray(weights), kinks),
        bandwidths=np.zeros(kinks.size),
        times=times,
        forwards=forwards,
        discount_factors=discount_factors,
        expiries=tuple(expiries),
        quote_time=quote_time,  # type: ignore[arg-type]
    )


def _chosen_kinks(
    n: int, local_volatility: LocalVolatility, times: np.ndarray
) -> np.ndarray:
    """Kinks by the deviations of the first and of the last expiry, at the money."""
    if n < 3:
        raise ValueError(f"kinks must be at least 3, not {n}")
    if callable(local_volatility):
        middles = times[-1] * (np.arange(64) + 0.5) / 64.0
        rows = local_volatility(np.ones(64), middles)
        levels = np.broadcast_to(np.asarray(rows, float), (64,))
        first = np.mean(levels[middles <= max(times[0], middles[0])] ** 2) * times[0]
        total = np.mean(levels**2) * times[-1]
    elif np.ndim(local_volatility) == 0:
        first, total = float(np.asarray(local_volatility)) ** 2 * times[[0, -1]]
    else:
        raise ValueError(
            f"{n} kinks cannot be chosen for a local volatility given on kinks; pass "
            "those kinks"
        )
    if not 0.0 < first <= total < np.inf:
        raise ValueError(
            "kinks cannot be chosen: local variance at the money adds up to "
            f"{first:.3g} at the first expiry and {total:.3g} at the last; pass kinks"
        )
    reach = REACH * float(np.sqrt(total))
    return spread_kinks(n, low=-reach, high=reach, narrowest=float(np.sqrt(first)))


def _checked_kinks(kinks: ArrayLike) -> np.ndarray:
    """The kinks, that at the forward being 1 exactly."""
    kinks = np.array(kinks, float)
    _check_increasing(kinks, "kinks")
    at = int(np.argmin(np.abs(kinks - 1.0)))
    if abs(kinks[at] - 1.0) > AT_THE_FORWARD or not 0 < at < kinks.size - 1:
        raise ValueError(
            f"kinks are in units of the forward and need one at 1 between others; "
            f"there are {kinks.size} from {kinks[0]:.6g} to {kinks[-1]:.6g}, the "
            f"nearest at {kinks[at]:.10g}; insert 1.0 or pass their number"
        )
    kinks[at] = 1.0
    return kinks


def check_request(method: str, steps: int) -> None:
    """Raise `ValueError` unless method and number of time steps make sense."""
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, not {method!r}")
    if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps < 1:
        raise ValueError(f"steps must be a whole number from 1 on, not {steps!r}")


def _check_increasing(values: np.ndarray, name: str) -> None:
    if values.ndim != 1 or not values.size:
        raise ValueError(f"{name} must be of shape (n,), not {values.shape}")
    steps = np.diff(values, prepend=0.0)
    bad = np.flatnonzero(~((steps > 0.0) & np.isfinite(values)))
    if bad.size:
        shown = ", ".join(f"{values[at]:.6g} (number {at})" for at in bad[:3])
        raise ValueError(
            f"{name} must be positive, finite and increasing; wrong in {bad.size} of "
            f"{values.size}: {shown}"
        )


def _per_expiry(values: ArrayLike, times: np.ndarray, name: str) -> np.ndarray:
    """One positive value for each expiry."""
    given = np.asarray(values, float)
    if given.shape not in ((), times.shape):
        raise ValueError(
            f"{name} must be one number or of shape {times.shape}, one for each "
            f"expiry, not {given.shape}"
        )
    if not ((given > 0.0) & np.isfinite(given)).all():
        raise ValueError(f"{name} must be positive and finite, not {values!r}")
    return np.broadcast_to(given, times.shape).copy()


def _check_rows(
    local_volatility: LocalVolatility, times: np.ndarray, kinks: np.ndarray
) -> None:
    """Raise unless a local volatility given as an array has a row for each expiry."""
    if callable(local_volatility):
        return
    shape, wanted = np.shape(local_volatility), (times.size, kinks.size)
    fits = all(
        one in (1, size) for one, size in zip(shape[::-1], wanted[::-1], strict=False)
    )
    if len(shape) > 2 or not fits:
        raise ValueError(
            f"local_volatility of shape {shape} does not broadcast to {wanted}, times "
            "by kinks"
        )


def _level_in_wings(volatility: np.ndarray) -> np.ndarray:
    """Of each time, the outermost finite values in place of what is beyond them."""
    finite = np.isfinite(volatility)
    n = finite.shape[1]
    first, last = finite.argmax(axis=1), n - 1 - finite[:, ::-1].argmax(axis=1)
    at = np.clip(np.arange(n), first[:, None], last[:, None])
    return np.take_along_axis(volatility, at, axis=1)


def _check_volatility(
    volatility: np.ndarray, kinks: jax.Array, middles: np.ndarray
) -> None:
    """Raise if a local volatility between the ends is negative or not finite."""
    inner = volatility[:, 1:-1]
    bad = np.argwhere(~((inner >= 0.0) & (inner < np.inf)))
    if len(bad):
        shown = ", ".join(
            f"{inner[row, at]:.6g} at moneyness {kinks[at + 1]:.6g}, time "
            f"{middles[row]:.4g}"
            for row, at in bad[:3]
        )
        raise ValueError(
            f"local volatility must be finite and not negative; wrong in {len(bad)} of "
            f"{inner.size}: {shown}"
        )

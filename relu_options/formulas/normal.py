"""The normal model's kernels: functions of arrays, for use in compiled code.

They mirror `lognormal`: forward, strike and total volatility of undiscounted
options, all in currency units, forward and strike of either sign.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from relu_options.formulas.constants import (
    NORMAL_GUESS,
    NORMAL_GUESS_SCALE,
    NORMAL_PAYOFF,
    ROOT_TWO_PI,
    TAIL_SCALE,
)
from relu_options.formulas.fusible import (
    horner,
    over,
    polynomial,
    quotient,
    reciprocal,
    square_root,
)
from relu_options.formulas.log_ratio import coarse_log1p_ratio, positive_log_ratio
from relu_options.formulas.mills_ratio import (
    normal_density,
    normal_distribution,
    unscaled_density,
)
from relu_options.formulas.price_series import log_volatility_step, small_expm1

_HUGE = 1e100
"""Stands for infinity where infinity times zero would come up."""
_TINY = 1e-30
"""A distance in units of time value at which an option is as good as at the money."""


def undiscounted_price(
    forward: ArrayLike,
    strike: ArrayLike,
    total_volatility: ArrayLike,
    is_call: ArrayLike,
) -> jax.Array:
    r"""Price paid at expiry of a call or put on a normal underlying.

    For use in compiled code: arguments broadcast to one JAX array, and first and second
    derivatives are exact. Accurate relative to itself however far out of the money.

    Args:
        forward: Forward price, in currency units, of either sign.
        strike: Strike, in currency units, of either sign.
        total_volatility: $\sigma \sqrt{T}$, in currency units.
        is_call: True for calls, False for puts.

    Returns:
        Price in currency units. Exactly the intrinsic value at a total volatility of
        zero, infinite at an infinite one; NaN where an argument is NaN or the
        volatility negative.

    Examples:
        >>> float(undiscounted_price(-1.0, -3.0, 0.0, True))
        2.0
    """
    return _undiscounted_price(
        *_broadcast(forward, strike, total_volatility, is_call=is_call)
    )


def implied_total_volatility(
    undiscounted_price: ArrayLike,
    forward: ArrayLike,
    strike: ArrayLike,
    is_call: ArrayLike,
) -> jax.Array:
    r"""Total volatility at which the undiscounted price is the one given.

    For use in compiled code: arguments broadcast to one JAX array, and first and second
    derivatives are exact. The result is within a few units of its last digit.

    Args:
        undiscounted_price: Price paid at expiry, in currency units.
        forward: Forward price, in currency units, of either sign.
        strike: Strike, in currency units, of either sign.
        is_call: True for calls, False for puts.

    Returns:
        $\sigma \sqrt{T}$ in currency units: zero where the price is exactly the
        intrinsic value, NaN below it, where an argument is NaN and where forward or
        strike is infinite. Derivatives are zero where the result is not a positive
        number.

    Examples:
        >>> price = undiscounted_price(-1.0, 2.0, 1.5, True)
        >>> round(float(implied_total_volatility(price, -1.0, 2.0, True)), 12)
        1.5
    """
    return _implied_total_volatility(
        *_broadcast(undiscounted_price, forward, strike, is_call=is_call)
    )


def _broadcast(*numbers: ArrayLike, is_call: ArrayLike) -> list[jax.Array]:
    return jnp.broadcast_arrays(
        *(jnp.asarray(number, jnp.float64) for number in numbers),
        jnp.asarray(is_call, bool),
    )


class Sides(NamedTuple):
    """Forward and strike by size, and how far apart."""

    higher: jax.Array
    lower: jax.Array
    gap: jax.Array
    in_the_money: jax.Array


def normalise(forward: jax.Array, strike: jax.Array, is_call: jax.Array) -> Sides:
    """Order forward and strike."""
    above = forward > strike
    higher = jnp.where(above, forward, strike)
    lower = jnp.where(above, strike, forward)
    return Sides(higher, lower, higher - lower, above == is_call)


def _payoff_ratio(d: jax.Array) -> jax.Array:
    """(n(d) - d N(-d)) / n(d) / sqrt(2 pi) for d from 0, with relative accuracy."""
    inverse = reciprocal(TAIL_SCALE + d)
    tau = d * inverse
    square = tau * tau
    even = polynomial(NORMAL_PAYOFF[0::2], square)
    odd = polynomial(NORMAL_PAYOFF[1::2], square)
    shrink = TAIL_SCALE * inverse
    return (even + tau * odd) * (shrink * shrink)


@jax.custom_jvp
def _undiscounted_price(forward, strike, v, is_call):
    """The out-of-the-money option of the same strike, and intrinsic value."""
    sides = normalise(forward, strike, is_call)
    d = quotient(sides.gap, v)
    d = jnp.where(d < _HUGE, d, _HUGE)
    regular = (v > 0.0) & (v < jnp.inf) & (sides.gap < jnp.inf)
    limit = jnp.where(v == jnp.inf, jnp.inf, 0.0)
    time_value = v * unscaled_density(d) * _payoff_ratio(d)
    intrinsic = jnp.where(sides.in_the_money, sides.gap, 0.0)
    price = jnp.where(regular, time_value, limit) + intrinsic
    return jnp.where((sides.gap >= 0.0) & (v >= 0.0), price, jnp.nan)


@_undiscounted_price.defjvp
def _(primals, tangents):
    forward, strike, v, is_call = primals
    forward_tangent, strike_tangent, v_tangent, _ = tangents
    slope = forward_delta(forward, strike, v, is_call)
    return _undiscounted_price(*primals), (
        slope * (forward_tangent - strike_tangent)
        + vega(forward, strike, v) * v_tangent
    )


def deviations(forward, strike, v):
    """(F - K) / v; finite, so that its products with a zero density are zero."""
    v = jnp.where(v >= 0.0, v, jnp.nan)
    distance = forward - strike
    d = jnp.where((distance == 0.0) & (v == 0.0), 0.0, distance / v)
    return jnp.clip(d, -_HUGE, _HUGE)


@jax.custom_jvp
def forward_delta(forward, strike, v, is_call):
    """Derivative of the undiscounted price in the forward."""
    sign = jnp.where(is_call, 1.0, -1.0)
    return sign * normal_distribution(sign * deviations(forward, strike, v))


def strike_delta(forward, strike, v, is_call):
    """Derivative of the undiscounted price in the strike."""
    return -forward_delta(forward, strike, v, is_call)


@jax.custom_jvp
def vega(forward, strike, v):
    """Derivative of the undiscounted price in the total volatility."""
    return normal_density(deviations(forward, strike, v))


def gamma(forward, strike, v):
    """Second derivative of the undiscounted price in the forward."""
    return over(vega(forward, strike, v), v)


def vanna(forward, strike, v):
    """Derivative of the undiscounted price in forward and total volatility."""
    return -over(vega(forward, strike, v) * deviations(forward, strike, v), v)


def volga(forward, strike, v):
    """Second derivative of the undiscounted price in the total volatility."""
    d = deviations(forward, strike, v)
    return over(vega(forward, strike, v) * d * d, v)


def density(forward, strike, v):
    """Probability density of the underlying at the strike."""
    return gamma(forward, strike, v)


def rate_sensitivity(forward, strike, v, is_call):
    """F dP/dF - P: what a higher forward brings, less what discounting takes."""
    slope = forward_delta(forward, strike, v, is_call)
    return forward * slope - _undiscounted_price(forward, strike, v, is_call)


def strike_from_deviation(forward, d, v):
    """Strike at which (F - K) / v is `d`."""
    return forward - v * d


@forward_delta.defjvp
def _(primals, tangents):
    forward, strike, v, _ = primals
    moved = tangents[0] - tangents[1]
    change = gamma(forward, strike, v) * moved + vanna(forward, strike, v) * tangents[2]
    return forward_delta(*primals), change


@vega.defjvp
def _(primals, tangents):
    forward, strike, v = primals
    moved = tangents[0] - tangents[1]
    change = vanna(forward, strike, v) * moved + volga(forward, strike, v) * tangents[2]
    return vega(*primals), change


@jax.custom_jvp
def _implied_total_volatility(undiscounted_price, forward, strike, is_call):
    """Total volatility by a guess good to four digits and one step of fourth order."""
    time_value, _, regular = distances_to_bounds(
        undiscounted_price, forward, strike, is_call
    )
    inside = regular & (time_value > 0.0) & (time_value < jnp.inf)
    limit = jnp.where(undiscounted_price == jnp.inf, jnp.inf, jnp.nan)
    limit = jnp.where(time_value == 0.0, 0.0, limit)
    time_value = jnp.where(inside, time_value, 1.0)
    gap = normalise(forward, strike, is_call).gap
    least = _TINY * time_value
    gap = jnp.where(gap > least, gap, least)

    a = coarse_log1p_ratio(gap, time_value)
    alpha = reciprocal(square_root(1.0 + a * (1.0 / NORMAL_GUESS_SCALE)))
    d = a * alpha * horner(NORMAL_GUESS, alpha)
    ratio = _payoff_ratio(d)
    square = d * d
    log_error = positive_log_ratio(ratio * gap, d * time_value) - 0.5 * square
    step = log_volatility_step(-log_error, ROOT_TWO_PI * ratio, square, None, order=4)
    v = quotient(gap + gap * small_expm1(step), d)
    return jnp.where(inside, v, jnp.where(regular, limit, jnp.nan))


@_implied_total_volatility.defjvp
def _(primals, tangents):
    price, forward, strike, is_call = primals
    price_tangent, forward_tangent, strike_tangent, _ = tangents
    v = _implied_total_volatility(price, forward, strike, is_call)
    # A price without a volatility, or without a finite derivative of it, is left out:
    # its row is computed from harmless numbers, and counts zero.
    exists = (v >= 0.0) & (v < jnp.inf)
    forward, strike, finite_v = (
        jnp.where(exists, x, 1.0) for x in (forward, strike, v)
    )
    derivative = vega(forward, strike, finite_v)
    exists &= derivative > 0.0
    # A division of many uses: here XLA should not repeat what leads to it.
    inverse = 1.0 / jnp.where(exists, derivative, jnp.inf)
    slope = forward_delta(forward, strike, finite_v, is_call)
    return v, inverse * (price_tangent - slope * (forward_tangent - strike_tangent))


def distances_to_bounds(undiscounted_price, forward, strike, is_call):
    """Time value, upper bound less price, and whether there are such numbers."""
    sides = normalise(forward, strike, is_call)
    # What the subtraction of the lower side from the higher one lost.
    lower_again = sides.higher - sides.gap
    higher_again = lower_again + sides.gap
    lost = (sides.higher - higher_again) + (lower_again - sides.lower)
    time_value = jnp.where(
        sides.in_the_money, (undiscounted_price - sides.gap) - lost, undiscounted_price
    )
    regular = (sides.gap < jnp.inf) & ~jnp.isnan(undiscounted_price)
    unbounded = jnp.where(undiscounted_price < jnp.inf, jnp.inf, 0.0)
    return time_value, unbounded, regular

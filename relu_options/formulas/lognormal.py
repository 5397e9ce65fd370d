"""The lognormal model's kernels: functions of arrays, for use in compiled code.

They know forward, strike and total volatility, of undiscounted options; markets, time
and everything that is not a JAX array are the business of `black_scholes`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jax.typing import ArrayLike

from relu_options.formulas.constants import (
    INVERSE_ROOT_TWO_PI,
    LOWER_GUESS,
    LOWER_GUESS_SCALE,
    ROOT_TWO_PI,
    UPPER_GUESS,
    UPPER_GUESS_SCALE,
)
from relu_options.formulas.fusible import (
    over,
    quotient,
    reciprocal,
    square_root,
)
from relu_options.formulas.log_ratio import (
    coarse_log1p_ratio,
    log_ratio,
    positive_log_ratio,
)
from relu_options.formulas.mills_ratio import (
    LEAST_ARGUMENT,
    mills_difference,
    mills_ratio,
    normal_distribution,
    unscaled_density,
)
from relu_options.formulas.price_series import log_volatility_step, small_expm1

_HUGE = 1e100
"""Stands for infinity where infinity times zero would come up."""
_TINY = 1e-100
"""Stands for zero where zero divided by zero would come up."""
_FAR = 1e8
"""Ratio of forward and strike from which one step is not enough."""


def undiscounted_price(
    forward: ArrayLike,
    strike: ArrayLike,
    total_volatility: ArrayLike,
    is_call: ArrayLike,
) -> jax.Array:
    r"""Price paid at expiry of a call or put on a lognormal underlying.

    For use in compiled code: arguments broadcast to one JAX array, and first and second
    derivatives are exact. Accurate relative to itself however far out of the money.

    Args:
        forward: Forward price, in currency units.
        strike: Strike, in currency units.
        total_volatility: $\sigma \sqrt{T}$, without unit.
        is_call: True for calls, False for puts.

    Returns:
        Price in currency units. Exactly the intrinsic value at a total volatility of
        zero, `forward` (calls) or `strike` (puts) at an infinite one, and the limits at
        a strike or forward of zero or infinity; NaN where an argument is NaN or
        negative.

    Examples:
        >>> float(undiscounted_price(100.0, 90.0, 0.0, True))
        10.0
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
        forward: Forward price, in currency units.
        strike: Strike, in currency units.
        is_call: True for calls, False for puts.

    Returns:
        $\sigma \sqrt{T}$: zero where the price is exactly the intrinsic value,
        infinite where it is exactly the upper bound, NaN beyond the bounds, where an
        argument is NaN, and where forward or strike is not positive and finite.
        Derivatives are zero where the result is not a positive number. Differences of
        price and bound below 2.2e-308, which processors flush, count as zero.

    Examples:
        >>> price = undiscounted_price(100.0, 90.0, 0.3, True)
        >>> round(float(implied_total_volatility(price, 100.0, 90.0, True)), 12)
        0.3
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
    """Forward and strike by size: the option's value depends on little else."""

    higher: jax.Array
    lower: jax.Array
    gap: jax.Array
    in_the_money: jax.Array


def normalise(
    forward: jax.Array, strike: jax.Array, is_call: jax.Array | bool
) -> Sides:
    """Order forward and strike."""
    above = forward > strike
    higher = jnp.where(above, forward, strike)
    lower = jnp.where(above, strike, forward)
    return Sides(higher, lower, higher - lower, above == is_call)


def scaled_moneyness(log_ratio_of_sides: jax.Array, v: jax.Array):
    """Return k / v to the last digit, capped, and 1 / v."""
    inverse = reciprocal(v)
    h = log_ratio_of_sides * inverse
    h = jnp.where(h < _HUGE, h + inverse * (log_ratio_of_sides - h * v), _HUGE)
    return h, inverse


class Tails(NamedTuple):
    """What one pair of Mills ratios tells, with nothing cancelled in any of it.

    Attributes:
        share: Price of the out-of-the-money option over the lower side.
        near: N(t - h), the probability on the near side of the money.
        near_complement: N(h - t).
        far: N(-h - t).
        density: exp(-(h - t)^2 / 2).
    """

    share: jax.Array
    near: jax.Array
    near_complement: jax.Array
    far: jax.Array
    density: jax.Array


def tails(sides: Sides, h: jax.Array, t: jax.Array) -> Tails:
    """Normal probabilities at h - t and h + t."""
    depth = h - t
    complement = depth < LEAST_ARGUMENT
    argument = jnp.where(complement, -depth, depth)
    gap = 2.0 * jnp.where(complement, h, t)
    difference, ratio = mills_difference(argument, h + t, gap)
    density = unscaled_density(depth)
    tail = density * jnp.where(complement, 2.0 * ratio - difference, difference)
    near_tail = density * ratio
    return Tails(
        share=jnp.where(complement, 1.0 - tail, tail),
        near=jnp.where(complement, 1.0 - near_tail, near_tail),
        near_complement=jnp.where(complement, near_tail, 1.0 - near_tail),
        # n(h + t) = n(h - t) lower / higher
        far=(density * (ratio - difference)) * quotient(sides.lower, sides.higher),
        density=density,
    )


def slopes(
    probabilities: Tails, above: jax.Array, is_call: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Derivatives of the undiscounted price in the forward and in the strike."""
    near, near_complement, far = probabilities[1:4]
    call = jnp.where(above, 1.0 - far, near), -jnp.where(above, near_complement, far)
    put = -jnp.where(above, far, near_complement), jnp.where(above, near, 1.0 - far)
    return jnp.where(is_call, call[0], put[0]), jnp.where(is_call, call[1], put[1])


@jax.custom_jvp
def _undiscounted_price(forward, strike, v, is_call):
    """The out-of-the-money option of the same strike, and intrinsic value.

    With k = log(higher / lower), h = k / v and t = v / 2 it is worth
    lower * n(h - t) * (R(h - t) - R(h + t)), of which nothing cancels. Where h - t is
    below -0.7 its complement `lower - price` is the smaller number, and is computed.
    """
    sides = normalise(forward, strike, is_call)
    k = positive_log_ratio(sides.higher, sides.lower)
    h, _ = scaled_moneyness(k, v)
    share = tails(sides, h, 0.5 * v).share
    regular = (sides.lower > 0.0) & (sides.higher < jnp.inf)
    regular &= (v > 0.0) & (v < jnp.inf)
    limit = jnp.where((v == jnp.inf) & (sides.higher < jnp.inf), sides.lower, 0.0)
    out_of_the_money = jnp.where(regular, sides.lower * share, limit)
    price = out_of_the_money + jnp.where(sides.in_the_money, sides.gap, 0.0)
    valid = (sides.lower >= 0.0) & (sides.higher >= 0.0) & (v >= 0.0)
    return jnp.where(valid, price, jnp.nan)


@_undiscounted_price.defjvp
def _(primals, tangents):
    forward, strike, v, is_call = primals
    forward_tangent, strike_tangent, v_tangent, _ = tangents
    return _undiscounted_price(*primals), (
        forward_delta(forward, strike, v, is_call) * forward_tangent
        + strike_delta(forward, strike, v, is_call) * strike_tangent
        + vega(forward, strike, v) * v_tangent
    )


def deviations(forward, strike, v):
    """d1 and d2; finite, so that their products with a zero density are zero."""
    k = log_ratio(forward, strike)
    v = jnp.where(v >= 0.0, v, jnp.nan)
    ratio = jnp.where(k == 0.0, 0.0, k / v)
    d1, d2 = ratio + 0.5 * v, ratio - 0.5 * v
    return jnp.clip(d1, -_HUGE, _HUGE), jnp.clip(d2, -_HUGE, _HUGE)


@jax.custom_jvp
def forward_delta(forward, strike, v, is_call):
    """Derivative of the undiscounted price in the forward."""
    d1, _ = deviations(forward, strike, v)
    sign = jnp.where(is_call, 1.0, -1.0)
    return sign * normal_distribution(sign * d1)


@jax.custom_jvp
def strike_delta(forward, strike, v, is_call):
    """Derivative of the undiscounted price in the strike."""
    _, d2 = deviations(forward, strike, v)
    sign = jnp.where(is_call, 1.0, -1.0)
    return -sign * normal_distribution(sign * d2)


@jax.custom_jvp
def vega(forward, strike, v):
    """Derivative of the undiscounted price in the total volatility.

    F n(d1) = K n(d2): the smaller of the two goes with the larger density.
    """
    d1, d2 = deviations(forward, strike, v)
    below = forward < strike
    density = INVERSE_ROOT_TWO_PI * unscaled_density(jnp.where(below, d1, d2))
    lower = jnp.where(below, forward, strike)
    return jnp.where(density == 0.0, 0.0, lower * density)


def vega_over_volatility(forward, strike, v):
    """F n(d1) / v, which every second derivative has; infinite for v = 0 at F = K."""
    derivative = vega(forward, strike, v)
    return jnp.where(derivative == 0.0, 0.0, derivative / v)


def gamma(forward, strike, v):
    """Second derivative of the undiscounted price in the forward."""
    return over(over(vega_over_volatility(forward, strike, v), forward), forward)


def vanna(forward, strike, v):
    """Derivative of the undiscounted price in forward and total volatility."""
    _, d2 = deviations(forward, strike, v)
    return -over(over(vega(forward, strike, v) * d2, v), forward)


def volga(forward, strike, v):
    """Second derivative of the undiscounted price in the total volatility."""
    d1, d2 = deviations(forward, strike, v)
    return over(vega(forward, strike, v) * d1 * d2, v)


def density(forward, strike, v):
    """Probability density of the underlying at the strike."""
    return over(over(vega_over_volatility(forward, strike, v), strike), strike)


def rate_sensitivity(forward, strike, v, is_call):
    """F dP/dF - P, without its cancellation: the price is homogeneous in F and K."""
    return -strike * strike_delta(forward, strike, v, is_call)


def strike_from_deviation(forward, d1, v):
    """Strike at which d1 is what it is."""
    return forward * jnp.exp(v * (0.5 * v - d1))


@forward_delta.defjvp
def _(primals, tangents):
    forward, strike, v, _ = primals
    _, d2 = deviations(forward, strike, v)
    weight = over(vega_over_volatility(forward, strike, v), forward)
    change = over(weight, forward) * tangents[0] - over(weight, strike) * tangents[1]
    return forward_delta(*primals), change - weight * d2 * tangents[2]


@strike_delta.defjvp
def _(primals, tangents):
    forward, strike, v, _ = primals
    d1, _ = deviations(forward, strike, v)
    weight = over(vega_over_volatility(forward, strike, v), strike)
    change = over(weight, strike) * tangents[1] - over(weight, forward) * tangents[0]
    return strike_delta(*primals), change + weight * d1 * tangents[2]


@vega.defjvp
def _(primals, tangents):
    forward, strike, v = primals
    d1, d2 = deviations(forward, strike, v)
    weight = vega_over_volatility(forward, strike, v)
    change = (
        over(weight, strike) * d1 * tangents[1]
        - over(weight, forward) * d2 * tangents[0]
    )
    return vega(*primals), change + weight * d1 * d2 * tangents[2]


@jax.custom_jvp
def vega_and_far_leg(forward, strike, v):
    """`vega`, and the higher side times N(-h - t), of a positive and finite v.

    The option out of the money is worth lower * N(t - h) less that leg.
    """
    sides = normalise(forward, strike, False)
    k = positive_log_ratio(sides.higher, sides.lower)
    h, _ = scaled_moneyness(k, v)
    t = 0.5 * v
    scaled_vega = sides.lower * unscaled_density(h - t)
    return INVERSE_ROOT_TWO_PI * scaled_vega, scaled_vega * mills_ratio(h + t)


@vega_and_far_leg.defjvp
def _(primals, tangents):
    forward, strike, v = primals
    derivative, leg = vega_and_far_leg(*primals)
    forward_change, strike_change = tangents[0] / forward, tangents[1] / strike
    above = forward > strike
    d1, d2 = deviations(*primals)
    depth = jnp.where(above, d2, -d1)
    moved = forward_change - strike_change
    moved = jnp.where(above, moved, -moved) - depth * tangents[2]
    scaled = jnp.where(above, forward_change, strike_change)
    return (derivative, leg), (
        jax.jvp(vega, primals, tangents)[1],
        leg * scaled - derivative / v * moved,
    )


def _slopes_at_price(undiscounted_price, forward, strike, far_leg, is_call):
    """Derivatives in forward and strike of a price known beside its volatility.

    The price is the difference of two legs, so one is enough. Nothing cancels: in the
    money the complement is at least twice the far leg.
    """
    sides = normalise(forward, strike, is_call)
    time_value, complement, _ = distances_to_bounds(
        undiscounted_price, forward, strike, is_call
    )
    inside = sides.in_the_money
    near = jnp.where(inside, far_leg - complement, far_leg + time_value) / sides.lower
    far = far_leg / sides.higher
    far = jnp.where(inside, 1.0 - far, -far)
    above = forward > strike
    return jnp.where(above, far, near), jnp.where(above, near, far)


@jax.custom_jvp
def _implied_total_volatility(undiscounted_price, forward, strike, is_call):
    quote = undiscounted_price, forward, strike, is_call
    return _polished_where_far(_solve_total_volatility(*quote), *quote)


def one_step_total_volatility(undiscounted_price, forward, strike, is_call):
    """Total volatility without derivatives; its negative where it may be inexact."""
    v = _solve_total_volatility(undiscounted_price, forward, strike, is_call)
    return jnp.where(_is_far(forward, strike), -v, v)


def _is_far(forward, strike):
    """Whether one step is not enough."""
    return (forward > _FAR * strike) | (strike > _FAR * forward)


@custom_vmap
def _polished_where_far(v, undiscounted_price, forward, strike, is_call):
    """Repeat the last step, on all options, if one has sides too far apart for one.

    The guess errs by the same share of v everywhere; what it errs in h - t then grows
    with v, and one step is no longer enough. No market quotes such options.
    """
    far = _is_far(forward, strike)
    return lax.cond(
        jnp.any(far),
        _polish,
        lambda v, *_: v,
        v,
        undiscounted_price,
        forward,
        strike,
        is_call,
    )


@_polished_where_far.def_vmap
def _(axis_size, in_batched, *arguments):
    # One decision for the batch: by default both branches would run for every option.
    batch = (
        x if batched else jnp.broadcast_to(x, (axis_size, *jnp.shape(x)))
        for x, batched in zip(arguments, in_batched, strict=True)
    )
    return _polished_where_far(*batch), True


def _polish(v, undiscounted_price, forward, strike, is_call):
    found = (v > 0.0) & (v < jnp.inf)
    target = _target(undiscounted_price, forward, strike, is_call)
    return jnp.where(found, _improve(jnp.where(found, v, 1.0), target, order=3), v)


@_implied_total_volatility.defjvp
def _(primals, tangents):
    price, forward, strike, is_call = primals
    price_tangent, forward_tangent, strike_tangent, _ = tangents
    v = _implied_total_volatility(price, forward, strike, is_call)
    # A price without a volatility, or without a finite derivative of it, is left out:
    # its row is computed from harmless numbers, and counts zero.
    exists = (v > 0.0) & (v < jnp.inf)
    price, forward, strike, finite_v = (
        jnp.where(exists, x, 1.0) for x in (price, forward, strike, v)
    )
    derivative, far_leg = vega_and_far_leg(forward, strike, finite_v)
    exists &= derivative > 0.0
    # A division of many uses: here XLA should not repeat what leads to it.
    inverse = 1.0 / jnp.where(exists, derivative, jnp.inf)
    slopes = _slopes_at_price(price, forward, strike, far_leg, is_call)
    change = price_tangent - slopes[0] * forward_tangent - slopes[1] * strike_tangent
    return v, inverse * change


def distances_to_bounds(undiscounted_price, forward, strike, is_call):
    """Time value, upper bound less price, and whether there are such numbers."""
    sides = normalise(forward, strike, is_call)
    # What the subtraction of the smaller side from the larger one lost.
    lost = (sides.higher - sides.gap) - sides.lower
    in_the_money = sides.in_the_money
    time_value = jnp.where(
        in_the_money, (undiscounted_price - sides.gap) - lost, undiscounted_price
    )
    bound = jnp.where(in_the_money, sides.higher, sides.lower)
    complement = bound - undiscounted_price
    regular = (sides.lower > 0.0) & (sides.higher < jnp.inf)
    return time_value, complement, regular & ~jnp.isnan(undiscounted_price)


class _Target(NamedTuple):
    """What the implied volatility of an out-of-the-money option is found from.

    Attributes:
        log_ratio: k, the logarithm of the larger side over the smaller.
        gap: The larger side less the smaller.
        lower: The smaller side, which is the upper bound of the price.
        time_value: Price of the out-of-the-money option.
        complement: Upper bound less that price.
        upper: Whether the complement is the smaller of the two.
        inside: Whether there is a volatility; where not, the rest are harmless numbers.
        limit: The result where there is none.
    """

    log_ratio: jax.Array
    gap: jax.Array
    lower: jax.Array
    time_value: jax.Array
    complement: jax.Array
    upper: jax.Array
    inside: jax.Array
    limit: jax.Array


def _target(undiscounted_price, forward, strike, is_call) -> _Target:
    sides = normalise(forward, strike, is_call)
    time_value, complement, regular = distances_to_bounds(
        undiscounted_price, forward, strike, is_call
    )
    inside = regular & (time_value > 0.0) & (complement > 0.0)
    limit = jnp.where(complement == 0.0, jnp.inf, jnp.nan)
    limit = jnp.where(time_value == 0.0, 0.0, limit)
    limit = jnp.where(regular, limit, jnp.nan)
    time_value = jnp.where(inside, time_value, 0.25 * sides.lower)
    complement = jnp.where(inside, complement, 0.75 * sides.lower)
    at_the_money = sides.gap == 0.0
    k = positive_log_ratio(sides.higher, sides.lower)
    return _Target(
        # Any positive number below rounding: formulas divide by it and multiply again.
        log_ratio=jnp.where(at_the_money, _TINY, k),
        gap=jnp.where(at_the_money, _TINY * sides.lower, sides.gap),
        lower=sides.lower,
        time_value=time_value,
        complement=complement,
        upper=2.0 * time_value > sides.lower,
        inside=inside,
        limit=limit,
    )


def _solve_total_volatility(undiscounted_price, forward, strike, is_call):
    """Total volatility by a guess good to 0.3 % and one step of sixth order."""
    target = _target(undiscounted_price, forward, strike, is_call)
    v = _improve(_guess_total_volatility(target), target, order=6)
    return jnp.where(target.inside, v, target.limit)


def _improve(guess: jax.Array, target: _Target, order: int) -> jax.Array:
    """Solve for v by one step in the logarithms of volatility and price.

    Above half of the upper bound the complement takes the price's place.
    """
    upper = target.upper
    h, inverse = scaled_moneyness(target.log_ratio, guess)
    t = 0.5 * guess
    depth = h - t
    near = jnp.where(upper, -depth, depth)
    difference, ratio = mills_difference(near, h + t, 2.0 * jnp.where(upper, h, t))
    value = jnp.where(upper, 2.0 * ratio - difference, difference)
    wanted = jnp.where(upper, target.complement, target.time_value)
    log_error = positive_log_ratio(value * target.lower, wanted) - 0.5 * depth * depth
    slope = (ROOT_TWO_PI * value) * inverse
    slope = jnp.where(upper, -slope, slope)
    step = log_volatility_step(-log_error, slope, h * h, t * t, order)
    return guess + guess * small_expm1(step)


def _guess_total_volatility(target: _Target) -> jax.Array:
    """Total volatility within 0.3 %, from polynomials in two bounded variables.

    Below half of the upper bound b = log(put / call); above it b = k - log(complement).
    Either way v grows like sqrt(b), and theta = k / b runs from 0 to 1.
    """
    k, upper = target.log_ratio, target.upper
    b = coarse_log1p_ratio(
        jnp.where(upper, target.time_value, target.gap),
        jnp.where(upper, target.complement, target.time_value),
    )
    b = jnp.where(upper, b + k, b)
    theta = k * reciprocal(b)
    remainder = jnp.where(theta < 1.0, 1.0 - theta, _TINY)
    s = square_root(remainder)
    growth = 1.0 + b * jnp.where(
        upper, 1.0 / UPPER_GUESS_SCALE, 1.0 / LOWER_GUESS_SCALE
    )
    root = square_root(growth)
    alpha = reciprocal(root)
    value = jnp.zeros_like(k)
    for upper_row, lower_row in zip(UPPER_GUESS[::-1], LOWER_GUESS[::-1], strict=True):
        row = jnp.zeros_like(k)
        for upper_one, lower_one in zip(upper_row[::-1], lower_row[::-1], strict=True):
            row = row * s + jnp.where(upper, upper_one, lower_one)
        value = value * alpha + row
    return jnp.where(upper, 1.0, ROOT_TWO_PI * theta) * root * value

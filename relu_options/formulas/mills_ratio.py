r"""The Mills ratio of the normal distribution, and differences of it.

The Mills ratio $R(u) = N(-u) / n(u)$ is what remains of a normal probability once its
density, the part that under- and overflows, is divided out. Here it is a polynomial
$r(\tau)$ of $\tau = u / (L + u)$, which maps the half line onto an interval, and a
difference is a *divided* difference of that polynomial,

$$R(a) - R(b) = -\frac{L (b - a)}{(L + a)(L + b)}\, r[\tau_a, \tau_b],$$

in which nothing cancels, however near the two points are. All values are divided by
$\sqrt{2\pi}$, the constant of the density.
"""

import jax
import jax.numpy as jnp

from relu_options.formulas.constants import INVERSE_ROOT_TWO_PI, MILLS, TAIL_SCALE
from relu_options.formulas.fusible import exponential, polynomial, reciprocal

LEAST_ARGUMENT = -0.7
"""Where the polynomials begin; below it use R(u) = 1 / n(u) - R(-u)."""


def _value_and_divided_difference(
    coefficients: tuple[float, ...], x: jax.Array, y: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """p(x) and (p(x) - p(y)) / (x - y), by two Horner sums that share their terms."""
    value = coefficients[-2] + x * coefficients[-1]
    difference = value + y * coefficients[-1]
    for coefficient in coefficients[-3:0:-1]:
        value = coefficient + x * value
        difference = value + y * difference
    return coefficients[0] + x * value, difference


def mills_difference(
    near: jax.Array, far: jax.Array, gap: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """R(near) - R(far) and R(near), both over sqrt(2 pi).

    `gap` is `far - near`, passed because the caller knows it without rounding.
    """
    near_shifted = TAIL_SCALE + near
    far_shifted = TAIL_SCALE + far
    inverse = reciprocal(near_shifted * far_shifted)
    x = near * (far_shifted * inverse)
    y = far * (near_shifted * inverse)
    # Even and odd powers apart: two short chains of operations instead of a long one.
    even, even_difference = _value_and_divided_difference(MILLS[0::2], x * x, y * y)
    odd, odd_difference = _value_and_divided_difference(MILLS[1::2], x * x, y * y)
    divided = odd + (x + y) * (even_difference + y * odd_difference)
    return (gap * inverse) * (-TAIL_SCALE * divided), even + x * odd


def mills_ratio(u: jax.Array) -> jax.Array:
    """R(u) / sqrt(2 pi) for u above `LEAST_ARGUMENT`."""
    tau = u * reciprocal(TAIL_SCALE + u)
    square = tau * tau
    return polynomial(MILLS[0::2], square) + tau * polynomial(MILLS[1::2], square)


def unscaled_density(u: jax.Array) -> jax.Array:
    """exp(-u^2 / 2)."""
    return exponential(-0.5 * u * u)


@jax.custom_jvp
def normal_density(u: jax.Array) -> jax.Array:
    """Density of the standard normal distribution, of any real or infinite argument."""
    return INVERSE_ROOT_TWO_PI * unscaled_density(u)


@normal_density.defjvp
def _(primals, tangents):
    (u,), (tangent,) = primals, tangents
    density = normal_density(u)
    finite = jnp.where(density == 0.0, 0.0, u)  # the limit of u n(u), not inf * 0
    return density, -finite * density * tangent


@jax.custom_jvp
def normal_distribution(u: jax.Array) -> jax.Array:
    """Standard normal distribution function, accurate relative to the lower tail."""
    size = jnp.abs(u)
    # Beyond 1e8 the density is zero; a finite argument keeps tau from being NaN.
    tail = unscaled_density(u) * mills_ratio(jnp.where(size > 1e8, 1e8, size))
    return jnp.where(u > 0.0, 1.0 - tail, tail)


@normal_distribution.defjvp
def _(primals, tangents):
    (u,), (tangent,) = primals, tangents
    return normal_distribution(u), normal_density(u) * tangent


def log_normal_distribution(u: jax.Array) -> jax.Array:
    """Its logarithm, also where the distribution function is below any number."""
    size = jnp.abs(u)
    ratio = mills_ratio(jnp.where(size > 1e8, 1e8, size))
    below = jnp.log(ratio) - 0.5 * size * size
    return jnp.where(u > 0.0, jnp.log1p(-unscaled_density(size) * ratio), below)

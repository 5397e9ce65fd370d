r"""The logarithm of a ratio, accurate also where the ratio is nearly one.

Write $a / b = 2^e\, a' / b$ with $a' / b$ near one. Then
$\log(a / b) = e \log 2 + 2 \operatorname{artanh} s$ with $s = (a' - b) / (a' + b)$,
whose numerator is exact. Neither the ratio nor its distance from one is rounded before
the logarithm is taken, and the ratio itself may be too large for a double.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from relu_options.formulas.constants import (
    ATANH,
    COARSE_ATANH,
    LOG_TWO_HIGH,
    LOG_TWO_LOW,
)
from relu_options.formulas.fusible import polynomial, quotient

_MANTISSA_BITS = 52
# Exponents are shifted by this much to be positive: unsigned shifts and a bit pattern
# then turn them into doubles, which AVX2 has no instruction for.
_OFFSET = 2047
_SHIFTED_HALF = np.int64((_OFFSET << _MANTISSA_BITS) + (1 << (_MANTISSA_BITS - 1)))
_SHIFTED = np.int64(_OFFSET << _MANTISSA_BITS)
_INTEGER_IN_DOUBLE = np.int64(0x433 << _MANTISSA_BITS)
_INTEGER_BIAS = float(2**_MANTISSA_BITS + _OFFSET)


def _bits(x: jax.Array) -> jax.Array:
    return lax.bitcast_convert_type(x, jnp.int64)


def _double(bits: jax.Array) -> jax.Array:
    return lax.bitcast_convert_type(bits, jnp.float64)


def _split(numerator: jax.Array, denominator: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The exponent `e`, and the numerator divided by `2**e`."""
    bits = _bits(numerator)
    shifted = lax.shift_right_logical(
        bits - _bits(denominator) + _SHIFTED_HALF, np.int64(_MANTISSA_BITS)
    )
    exponent = _double(shifted | _INTEGER_IN_DOUBLE) - _INTEGER_BIAS
    return exponent, _double(bits - (shifted << _MANTISSA_BITS) + _SHIFTED)


def positive_log_ratio(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """log(numerator / denominator) within two rounding errors.

    Both must be positive, finite and normal doubles; for others the result has no
    meaning and the caller replaces it. It has no derivative: see `log_ratio`.
    """
    exponent, near = _split(numerator, denominator)
    s = quotient(near - denominator, near + denominator)
    z = s * s
    tail = s * z * polynomial(ATANH, z) + exponent * LOG_TWO_LOW
    return exponent * LOG_TWO_HIGH + (2.0 * s + tail)


def coarse_log1p_ratio(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """log(1 + numerator / denominator) to six digits, of positive doubles."""
    total = numerator + denominator
    exponent, near = _split(total, denominator)
    difference = jnp.where(exponent == 0.0, numerator, near - denominator)
    s = quotient(difference, near + denominator)
    z = s * s
    log_two = LOG_TWO_HIGH + LOG_TWO_LOW
    return exponent * log_two + (2.0 * s + s * z * polynomial(COARSE_ATANH, z))


@jax.custom_jvp
def log_ratio(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """log(numerator / denominator) of non-negative doubles, with its limits.

    Infinite where one of the two is zero or infinite, NaN where both are, or where
    either is negative.
    """
    regular = (numerator > 0.0) & (denominator > 0.0)
    regular &= (numerator < jnp.inf) & (denominator < jnp.inf)
    inner = positive_log_ratio(
        jnp.where(regular, numerator, 1.0), jnp.where(regular, denominator, 1.0)
    )
    valid = (numerator >= 0.0) & (denominator >= 0.0)
    limit = jnp.where(numerator > denominator, jnp.inf, -jnp.inf)
    limit = jnp.where(valid & (numerator != denominator), limit, jnp.nan)
    return jnp.where(regular, inner, limit)


@log_ratio.defjvp
def _(primals, tangents):
    numerator, denominator = primals
    numerator_tangent, denominator_tangent = tangents
    return log_ratio(numerator, denominator), (
        numerator_tangent / numerator - denominator_tangent / denominator
    )

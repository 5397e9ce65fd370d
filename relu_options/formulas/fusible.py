"""Arithmetic that XLA's CPU compiler keeps in one loop.

XLA counts division and square roots as expensive. One whose result is used twice it
writes to memory, and it then splits the formula around it into many loops that repeat
each other's work (measured: twenty loops and four to six times the time). Each function
here hands its expensive result to exactly one cheap operation first, which changes no
value, so that a whole formula stays one loop.

Reciprocal square roots are left out: with AVX2 XLA computes them one at a time, and the
loop around them with them.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp


def reciprocal(x: jax.Array) -> jax.Array:
    """1 / x for non-negative x."""
    return jnp.abs(1.0 / x)


def quotient(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """`numerator / denominator`, and zero where the denominator is not positive."""
    return jnp.where(denominator > 0.0, numerator / denominator, 0.0)


def square_root(x: jax.Array) -> jax.Array:
    """Square root; NaN for negative x."""
    return jnp.abs(jnp.sqrt(x))


def exponential(x: jax.Array) -> jax.Array:
    """exp(x)."""
    return jnp.abs(jnp.exp(x))


def over(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """Quotient that is zero where the numerator is, whatever the denominator."""
    regular = numerator != 0.0
    return jnp.where(regular, numerator / jnp.where(regular, denominator, 1.0), 0.0)


def polynomial(coefficients: Sequence[float], x: jax.Array) -> jax.Array:
    """Sum of `coefficients[i] * x**i`, in pairs, so that few operations wait."""
    terms: list[Any] = list(coefficients)
    power = x
    while len(terms) > 1:
        paired = [a + b * power for a, b in zip(terms[::2], terms[1::2], strict=False)]
        if len(terms) % 2:
            paired.append(terms[-1])
        terms = paired
        power = power * power
    return terms[0]


def horner(coefficients: Sequence[float], x: jax.Array) -> jax.Array:
    """The same by Horner's rule: slower by itself, and easier to keep in one loop."""
    total = coefficients[-1] * x + coefficients[-2]
    for coefficient in coefficients[-3::-1]:
        total = total * x + coefficient
    return total

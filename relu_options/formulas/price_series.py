"""Volatility as a power series in price, both in logarithms.

The derivatives of price in volatility close on themselves in both models, so one
evaluation of the price gives as many terms of the inverse series as are wanted: a guess
with three good digits becomes a result with sixteen in a single step.
"""

import jax


def log_volatility_step(
    log_price_step: jax.Array,
    slope: jax.Array,
    h_squared: jax.Array,
    t_squared: jax.Array | None,
    order: int,
) -> jax.Array:
    """Change of x = log(v) when y = log(price) changes, by its Taylor series in y.

    With g = dx/dy, M = h^2 - t^2 and S = h^2 + t^2 the chain rule closes:
    dg/dy = g - g^2 (1 + M), dM/dy = -2 S g and dS/dy = -2 M g. Here h is the distance
    to the strike over v, and t half of v. In the normal model t is zero, or None here,
    and M and S are the same.
    """
    g = [slope]
    same = t_squared is None
    m = [h_squared if same else h_squared - t_squared]
    s = m if same else [h_squared + t_squared]
    squares = []
    for n in range(order - 1):
        squares.append(_square(g, n))
        change = g[n] - squares[n] - _cauchy_product(squares, m, n)
        if n < order - 2:
            m_change = _cauchy_product(s, g, n) * (-2.0 / (n + 1))
            if not same:
                s.append(_cauchy_product(m, g, n) * (-2.0 / (n + 1)))
            m.append(m_change)
        g.append(change * (1.0 / (n + 1)))
    total = g[-1] * (1.0 / order)
    for n in range(order - 2, -1, -1):
        total = g[n] * (1.0 / (n + 1)) + log_price_step * total
    return log_price_step * total


def small_expm1(x: jax.Array) -> jax.Array:
    """exp(x) - 1 for |x| below 0.005."""
    return x * (1.0 + x * (1 / 2 + x * (1 / 6 + x * (1 / 24 + x * (1 / 120)))))


def _cauchy_product(left, right, n):
    """Coefficient `n` of the product of two power series."""
    total = left[0] * right[n]
    for i in range(1, n + 1):
        total = total + left[i] * right[n - i]
    return total


def _square(series, n):
    """Coefficient `n` of the square of a power series, equal products taken once."""
    total = series[n // 2] * series[n // 2] if n % 2 == 0 else None
    for i in range((n + 1) // 2):
        product = 2.0 * (series[i] * series[n - i])
        total = product if total is None else total + product
    return total

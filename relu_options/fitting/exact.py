r"""The unsmoothed fit: a plain ReLU network with a free kink at every quote.

Between two quoted strikes an arbitrage-free curve can do no better than a straight
line, so the network with kinks at the quoted strikes, at zero and far beyond the last
quote reaches the least error that *any* arbitrage-free curve can have on the quotes.
That error is the quotes' own; what a smooth curve adds is the price of smoothness.

Quotes that are volatilities are fitted in volatility: the programme is solved again
with prices linearised at the fitted ones (Gauss and Newton's method), a few times.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from relu_options import black_scholes
from relu_options.fitting.programme import (
    PENALTY,
    TOLERANCE,
    VOLATILITY_UNIT,
    NormalisedQuotes,
    quote_tolerance,
    tilted,
    vega,
)
from relu_options.fitting.quadratic_program import (
    QuadraticProgram,
    Solution,
    solve,
    starting_point,
)

BEYOND_LAST = (
    1.5,
    4.0,
    30.0,
    1000.0,
)  # kinks beyond the last quote, as multiples of it
LINEARISATIONS = 4


def fit_exactly(
    quotes: NormalisedQuotes, kinks: jax.Array, *, in_volatility: bool
) -> tuple[jax.Array, Solution]:
    """Fit a ReLU price network with the given kinks to normalised quotes.

    Args:
        quotes: The quotes, padded.
        kinks: In units of the forward, of shape `(n,)`; increasing from zero.
        in_volatility: Whether mids are fitted in volatility, as against in price.

    Returns:
        The weights, of shape `(n,)`, and the last solution.
    """
    n = kinks.shape[0]
    moneyness = jnp.exp(quotes.log_moneyness)
    is_call = quotes.log_moneyness >= 0.0
    counted = quotes.weight > 0.0
    bounded = counted & jnp.isfinite(quotes.lower) & jnp.isfinite(quotes.upper)
    intrinsic = jnp.where(is_call, 1.0, -1.0)[:, None] * (kinks - moneyness[:, None])
    hidden = jax.nn.relu(intrinsic)
    quoted = black_scholes.implied_total_volatility(quotes.mid, 1.0, moneyness, is_call)

    def slope_at(total_volatility):
        return vega(quotes.log_moneyness, total_volatility)

    half_spread = quote_tolerance(quotes, slope_at(quoted))
    half_spread = jnp.where(bounded, half_spread, 1.0)

    def fit(target, tolerance):
        unit = jnp.where(counted, jnp.sqrt(quotes.weight) / tolerance, 0.0)
        design = hidden * unit[:, None]
        data = target * unit
        program = QuadraticProgram(
            hessian=design.T @ design,
            gradient=-design.T @ data,
            constant=0.5 * data @ data,
            equality=jnp.stack([jnp.ones(n), kinks]),
            target=jnp.ones(2),
            rows=jnp.where(bounded, 1.0 / half_spread, 0.0)[:, None] * hidden,
            lower=jnp.where(bounded, quotes.lower / half_spread, -1.0),
            upper=jnp.where(bounded, quotes.upper / half_spread, 1.0),
            penalty=jnp.full(data.shape, PENALTY),
        )
        start = starting_point(program, jnp.full(n, 1.0 / n))
        solution = solve(program, start, tolerance=TOLERANCE, max_steps=100)
        return solution, hidden @ solution.iterate.x

    def linearise(fitted, _):
        """Fit volatilities, with prices linear in them around the fitted ones."""
        reached = black_scholes.implied_total_volatility(
            fitted, 1.0, moneyness, is_call
        )
        reached = jnp.where(reached > 0.2 * quoted, reached, 0.2 * quoted)
        price = black_scholes.undiscounted_price(1.0, moneyness, reached, is_call)
        slope = slope_at(reached)
        target = price - slope * (reached - quoted)
        known = counted & jnp.isfinite(target)
        target = jnp.where(known, target, quotes.mid)
        solution, fitted = fit(target, VOLATILITY_UNIT * jnp.where(counted, slope, 1.0))
        return fitted, solution

    if in_volatility:
        _, solutions = jax.lax.scan(linearise, quotes.mid, length=LINEARISATIONS + 1)
        solution = jax.tree.map(lambda each: each[-1], solutions)
    else:
        unit_vega = VOLATILITY_UNIT * slope_at(quoted)
        solution, _ = fit(quotes.mid, jnp.where(bounded, half_spread, unit_vega))
    return tilted(solution.iterate.x, kinks), solution

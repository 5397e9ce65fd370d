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
import numpy as np

from relu_options.errors import QuoteError
from relu_options.fitting.compiled import compiled
from relu_options.fitting.interior_point import (
    QuadraticProgram,
    Solution,
    solve,
    starting_point,
)
from relu_options.fitting.objective import PENALTY, tilted
from relu_options.fitting.quotes import VOLATILITY_UNIT, NormalisedQuotes

SIZES = (32, 64, 128, 256, 512, 2048)  # padded numbers of quotes
BEYOND_LAST = (1.5, 4.0, 30.0, 1000.0)  # kinks beyond the last quote, in its multiples
LINEARISATIONS = 4
LEAST_SHARE = 0.2  # of a quoted volatility, to linearise at
TOLERANCE = 1e-10
MAX_STEPS = 100


def fit_unsmoothed(
    quotes: NormalisedQuotes,
) -> tuple[np.ndarray, np.ndarray, Solution]:
    """Fit a ReLU price network to normalised quotes.

    Args:
        quotes: The quotes.

    Returns:
        Kinks in the unit of the quotes, and weights, of shape `(n,)`; and the last
        solution.

    Raises:
        QuoteError: If there are more than one fit takes.
    """
    count = len(quotes)
    size = next((size for size in SIZES if size >= count), None)
    if size is None:
        raise QuoteError(
            f"{count} strikes exceed the {SIZES[-1]} that one fit takes; thin them out"
        )
    kinks = _kinks(quotes, size - count)
    at, sign = (
        quotes.kernel.place(quotes.x)[:, None],
        np.where(quotes.is_call, 1.0, -1.0),
    )
    hidden = np.maximum(sign[:, None] * (kinks - at), 0.0)
    if quotes.two_sided.any():
        weights, solution = _least_squares(
            quotes, kinks, hidden, quotes.mid, quotes.tolerance
        )
        return kinks, weights, solution
    fitted = quotes.mid
    for _ in range(LINEARISATIONS):
        fitted = hidden @ _linearised(quotes, kinks, hidden, fitted)[0]
    return kinks, *_linearised(quotes, kinks, hidden, fitted)


def _linearised(
    quotes: NormalisedQuotes,
    kinks: np.ndarray,
    hidden: np.ndarray,
    fitted: np.ndarray,
) -> tuple[np.ndarray, Solution]:
    """Weights that fit volatilities, with prices linear in them around `fitted`."""
    quoted = quotes.total_volatility
    reached = _implied(quotes, fitted)
    least = LEAST_SHARE * quoted
    reached = np.where(reached > least, reached, least)
    slope = quotes.kernel.vega(quotes.x, reached)
    target = _price(quotes, reached) - slope * (reached - quoted)
    target = np.where(np.isfinite(target), target, quotes.mid)
    return _least_squares(quotes, kinks, hidden, target, VOLATILITY_UNIT * slope)


def _kinks(quotes: NormalisedQuotes, more: int) -> np.ndarray:
    """At the quotes and beyond them, `more` of them for a length that is compiled."""
    at, kernel = quotes.kernel.place(quotes.x), quotes.kernel
    steps = np.geomspace(BEYOND_LAST[0], BEYOND_LAST[-1], len(BEYOND_LAST) + more)
    if kernel.drift:
        last = max(at[-1], kernel.forward)
        return np.concatenate([[0.0], at, last * steps])
    # The unit is the range of the strikes; the forward may be outside of them.
    first, last = min(at[0], kernel.forward), max(at[-1], kernel.forward)
    return np.concatenate([[first - 4.0], at, last + steps])


def _implied(quotes: NormalisedQuotes, fitted: np.ndarray) -> np.ndarray:
    kernel = quotes.kernel
    return kernel.implied(
        fitted, kernel.forward, kernel.place(quotes.x), quotes.is_call
    )


def _price(quotes: NormalisedQuotes, total_volatility: np.ndarray) -> np.ndarray:
    kernel = quotes.kernel
    strike = kernel.place(quotes.x)
    return kernel.price(kernel.forward, strike, total_volatility, quotes.is_call)


def _least_squares(
    quotes: NormalisedQuotes,
    kinks: np.ndarray,
    hidden: np.ndarray,
    target: np.ndarray,
    tolerance: np.ndarray,
) -> tuple[np.ndarray, Solution]:
    """Weights whose prices are nearest to the target, in tolerances, inside spreads."""
    count, n = hidden.shape
    size = n - 1 - len(BEYOND_LAST)
    beyond = kinks - quotes.kernel.forward
    design, data = hidden / tolerance[:, None], target / tolerance
    bounded = quotes.two_sided
    half_spread = np.where(bounded, quotes.tolerance, 1.0)
    rows, lower, upper = np.zeros((size, n)), np.full(size, -1.0), np.ones(size)
    rows[:count] = np.where(bounded, 1.0 / half_spread, 0.0)[:, None] * hidden
    lower[:count] = np.where(bounded, quotes.lower / half_spread, -1.0)
    upper[:count] = np.where(bounded, quotes.upper / half_spread, 1.0)
    program = {
        "hessian": design.T @ design,
        "gradient": -data @ design,
        "constant": np.asarray(0.5 * data @ data),
        "equality": np.stack([np.ones(n), beyond]),
        "target": np.array([1.0, 0.0]),
        "rows": rows,
        "lower": lower,
        "upper": upper,
        "penalty": np.full(size, PENALTY),
    }
    solution = compiled(_solve)(program)
    return tilted(np.asarray(solution.iterate.x), beyond), solution


def _solve(data: dict[str, jax.Array]) -> Solution:
    program = QuadraticProgram(**data)
    n = program.gradient.shape[0]
    start = starting_point(program, jnp.full(n, 1.0 / n))
    return solve(program, start, tolerance=TOLERANCE, max_steps=MAX_STEPS)

r"""The least volatility error that any arbitrage-free curve has on given quotes.

A static trade of the quoted options, out of the money, cash and the forward whose
payoff is negative nowhere has a price that is negative on no arbitrage-free curve. Its
price at the mids is; if it is $-v$, then the prices of every such curve differ from the
mids by $\Delta_i$ with $\sum_i \alpha_i \Delta_i \ge v$, for quantities $\alpha_i$ of
the options. In volatilities, $\Delta_i(e)$ being the difference that an error `e` of
the total volatility makes, weak duality says of every curve

$$
\sum_i e_i^2 \ge v + \sum_i \min_e \left( e^2 - \alpha_i \Delta_i(e) \right) .
$$

Any trade gives a bound. The best one is read off the unsmoothed fit, which is near the
least error from above: there $2 e_i = \alpha_i \Delta_i'(e_i)$. What is proved does not
depend on how well that was solved: the cash that the trade needs is its payoff's convex
envelope at the forward, and each minimum is bounded from below piece by piece, price
and vega being monotonic in the volatility or nearly so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from relu_options.fitting.quotes import NormalisedQuotes
from relu_options.fitting.unsmoothed import fit_unsmoothed

PIECES = 8  # into which an interval is cut where its bound does not do
CUTS = 8
SHARE = 4.0  # of its squared error that a minimum is usually below zero, at most
CLOSE = 1e-3  # of the least square, or of a minimum: how near its bound should be
ROUNDING = 1e-9  # of the terms: far more than what floating point takes from them


def least_square(quotes: NormalisedQuotes) -> float:
    """A lower bound of the sum of squared errors of total volatility.

    Args:
        quotes: Mids, each with a volatility.

    Returns:
        The bound; zero where none is found.
    """
    kinks, weights, _ = fit_unsmoothed(quotes)
    kernel, strike = quotes.kernel, quotes.kernel.place(quotes.x)
    sign = np.where(quotes.is_call, 1.0, -1.0)
    hidden = np.maximum(sign[:, None] * (kinks - strike[:, None]), 0.0)
    fitted = kernel.implied(hidden @ weights, kernel.forward, strike, quotes.is_call)
    error = fitted - quotes.total_volatility
    known = np.isfinite(error) & (fitted > 0.0)
    error = np.where(known, error, 0.0)
    vega = kernel.vega(quotes.x, np.where(known, fitted, quotes.total_volatility))
    quantity = 2.0 * error / vega
    best, minima = proved(quotes, quantity)
    # Far in the wings prices are no straight line: what is larger there than its own
    # error explains is worth more to the bound if it is not traded.
    usual = minima >= -SHARE * error**2 - CLOSE * best
    return max(best, proved(quotes, np.where(usual, quantity, 0.0))[0], 0.0)


def proved(quotes: NormalisedQuotes, quantity: np.ndarray) -> tuple[float, np.ndarray]:
    """The bound that a trade proves, and the minimum of each quote, of shape `(m,)`.

    Args:
        quotes: Mids, each with a volatility.
        quantity: Of the out-of-the-money option of each, of shape `(m,)`.

    Returns:
        The bound, negative where it says nothing, and the minima.
    """
    quantity = _without_ruin(quotes, quantity)
    value = _value(quotes, quantity)
    if not value > 0.0:
        return 0.0, np.zeros(len(quotes))
    minima = _minima(quotes, quantity, CLOSE * value / len(quotes))
    size = np.abs(quantity) @ quotes.mid + value - minima.sum()
    return value + float(minima.sum()) - ROUNDING * float(size), minima


def _without_ruin(quotes: NormalisedQuotes, quantity: np.ndarray) -> np.ndarray:
    """A trade that sells no more options than it buys, where each may be worth a lot.

    With an underlying that may rise and fall without a limit, it would lose so.
    """
    bought, sold = quantity.clip(0.0).sum(), -quantity.clip(None, 0.0).sum()
    if quotes.kernel.drift or bought >= sold:
        return quantity
    return np.where(quantity < 0.0, (1.0 - ROUNDING) * bought / sold, 1.0) * quantity


def _value(quotes: NormalisedQuotes, quantity: np.ndarray) -> float:
    """`v`: what the trade pays to whoever does it, with the cash that it needs."""
    kernel, strike = quotes.kernel, quotes.kernel.place(quotes.x)
    forward, sign = kernel.forward, np.where(quotes.is_call, 1.0, -1.0)
    # Puts and calls at the forward bend where the forward is not a strike, too.
    ends = [0.0] if kernel.drift else [min(strike[0], forward) - 1.0]
    at = np.unique(np.concatenate([ends, strike, [forward]]))
    payoff = np.maximum(sign * (at[:, None] - strike), 0.0) @ quantity
    last = float(quantity[quotes.is_call].sum())  # slope beyond all strikes
    first = -float(quantity[~quotes.is_call].sum())
    envelope = payoff[at == forward][0]
    left, right = at < forward, at > forward
    steps = (at[right] - forward)[None, :], (forward - at[left])[:, None]
    share = steps[0] / (steps[0] + steps[1])
    lines = share * payoff[left][:, None] + (1.0 - share) * payoff[right]
    envelope = min(envelope, lines.min(initial=np.inf))
    rays = payoff[left] + last * (forward - at[left])
    envelope = min(envelope, rays.min(initial=np.inf))
    if not kernel.drift:  # the underlying may fall without a limit
        rays = payoff[right] + first * (forward - at[right])
        envelope = min(envelope, rays.min(initial=np.inf))
    return float(envelope - quantity @ quotes.mid)


@dataclass(frozen=True, eq=False)
class _Pieces:
    """Intervals of the total volatility of some quotes, and bounds on each.

    Attributes:
        row: Which quote each is of.
        low: Their ends.
        high: Their ends.
        least: Lower bound of `e^2 - alpha Delta(e)` on each.
        reached: What it is at the middle of each.
    """

    row: np.ndarray
    low: np.ndarray
    high: np.ndarray
    least: np.ndarray
    reached: np.ndarray

    @classmethod
    def of(cls, quotes, quantity, row, low, high) -> _Pieces:
        x, total, mid = quotes.x[row], quotes.total_volatility[row], quotes.mid[row]
        alpha = quantity[row]
        middle = 0.5 * (low + high)
        kernel, strike = quotes.kernel, quotes.kernel.place(x)

        def price(volatility):
            return kernel.price(kernel.forward, strike, volatility, x >= 0.0)

        nearest, farthest = np.abs(low - total), np.abs(high - total)
        inside = (low <= total) & (total <= high)
        nearest, farthest = np.minimum(nearest, farthest), np.maximum(nearest, farthest)
        gain = np.where(alpha > 0.0, alpha * price(high), alpha * price(low))
        by_ends = np.where(inside, 0.0, nearest) ** 2 - (gain - alpha * mid)
        # Vega is greatest at the root of twice the distance, and falls on both sides.
        peak = np.sqrt(2.0 * np.abs(x) / kernel.drift) if kernel.drift else high
        least = np.minimum(_vega(quotes, x, low), _vega(quotes, x, high))
        most = _vega(quotes, x, np.clip(peak, low, high))
        vegas = np.stack([alpha * least, alpha * most])
        slopes = 2.0 * (low - total) - vegas.max(0), 2.0 * (high - total) - vegas.min(0)
        steepest = np.maximum(np.abs(slopes[0]), np.abs(slopes[1]))
        reached = (middle - total) ** 2 - alpha * (price(middle) - mid)
        by_slope = reached - 0.5 * (high - low) * steepest
        return cls(row, low, high, np.maximum(by_ends, by_slope), reached)


def _vega(quotes: NormalisedQuotes, x: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Vega without a floor: zero at a volatility of zero."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        d = x / total - 0.5 * quotes.kernel.drift * total
        value = np.exp(-0.5 * d * d) / np.sqrt(2.0 * np.pi)
    return np.where(total > 0.0, value, np.where(x == 0.0, 0.4, 0.0))


def _minima(quotes: NormalisedQuotes, quantity: np.ndarray, close: float) -> np.ndarray:
    """Lower bounds of `min_e e^2 - alpha Delta(e)`, of shape `(m,)`.

    The minimum is at most zero, where `e` is; so is it where `e^2` is no more than the
    whole range of prices is worth. An option bought can only gain, one sold only lose.
    """
    total, count = quotes.total_volatility, len(quotes)
    reach = 0.4 * np.abs(quantity)  # no error is larger than twice the slope's
    if quotes.kernel.drift:  # and prices have an upper limit
        most = np.where(quotes.is_call, 1.0, quotes.kernel.place(quotes.x))
        reach = np.minimum(np.sqrt(np.abs(quantity) * most), reach)
    bought = quantity > 0.0
    low = np.where(bought, total, np.maximum(total - reach, 0.0))
    high = np.where(bought, total + reach, total)
    row, found, bound = np.arange(count), np.zeros(count), np.zeros(count)
    for _ in range(CUTS):
        step = (high - low) / PIECES
        row = np.repeat(row, PIECES)
        place = np.tile(np.arange(PIECES), len(low))
        low = np.repeat(low, PIECES) + place * np.repeat(step, PIECES)
        high = low + np.repeat(step, PIECES)
        pieces = _Pieces.of(quotes, quantity, row, low, high)
        np.minimum.at(found, row, pieces.reached)
        bound = found - np.maximum(close, -CLOSE * found)
        open_ = pieces.least < bound[row]
        row, low, high = row[open_], low[open_], high[open_]
        np.minimum.at(bound, row, pieces.least[open_])
        if not len(row):
            break
    return bound

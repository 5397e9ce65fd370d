r"""Which quotes are too old to stand beside others.

A quote is stale if it was made before its neighbours were: the market has moved, and
the row still shows the old bid and ask. Nothing in it says so but that it disagrees
with fresher ones. So each quote is held against what its neighbours in strike that
traded later imply for it, and set aside where that is outside its own spread.

A source that keeps quotes alive between trades shows quotes that agree, however long
ago the last trade was: age alone condemns nothing, unless the user says so.
"""

from dataclasses import dataclass

import numpy as np

from relu_options.market_data.cleaning import SliceQuotes


@dataclass(frozen=True)
class Neighbours:
    r"""How a quote is judged by the neighbours in strike that are fresher.

    The nearest of them on each side say what it should be: a parabola in the strike
    through the logarithms of their mids, turned by parity into prices of its own type,
    that leaves the least sum of absolute residuals, so that two or three of eight may
    be wrong by any amount. Its standard error comes from the median residual.

    Attributes:
        lag: Days by which the last trade of one quote is later than that of another to
            be called fresher. Within a day both are of one session.
        each_side: Neighbours on each side. Four follow a smile between any two listed
            strikes and outvote two that are wrong.
        reach: Quotes on each side among which they must be: a parabola does not follow
            a smile much farther.
        least: On each side, without which there is no judgement: beyond the quotes a
            parabola follows nothing, and few have small residuals by chance.
        deviations: Standard errors beyond its spread from which a quote contradicts
            them.
        least_error: No mid is known better than to this part of its half-spread.
        most: Share of the quotes of one expiry that may contradict the rest. Where more
            do, it is not they who are wrong.
        steps: Of reweighting, after which the least sum is found to within what the
            standard error counts.
    """

    lag: float = 1.0
    each_side: int = 4
    reach: int = 8
    least: int = 3
    deviations: float = 3.0
    least_error: float = 0.1
    most: float = 0.2
    steps: int = 15


def stale_quotes(
    quotes: SliceQuotes,
    usable: np.ndarray,
    rule: Neighbours = Neighbours(),
) -> np.ndarray:
    """Quotes that contradict fresher neighbours beyond their spreads.

    The neighbours of a quote are the out-of-the-money quotes of other strikes, and at a
    strike without one the other, that have a bid and traded later than it. Those found
    stale are no neighbours of others.

    Args:
        quotes: Rows of one expiry.
        usable: Those to judge, and to judge by, a mask of shape `(n,)`.
        rule: How they are judged.

    Returns:
        A mask of shape `(n,)`; all false where ages are unknown or do not differ.

    Examples:
        The call at 104 last traded six days ago, when it was worth more.

        >>> strike = np.arange(92.0, 116.0, 2.0)
        >>> is_call = strike >= 100.0
        >>> mid = 4.0 * np.exp(-0.07 * np.abs(strike - 100.0))
        >>> mid[6] += 0.5
        >>> age = np.where(strike == 104.0, 6.0, 0.1)
        >>> quotes = SliceQuotes(strike, is_call, mid - 0.1, mid + 0.1, age,
        ...                      forward=100.0, discount_factor=1.0)
        >>> print(strike[stale_quotes(quotes, np.ones(12, dtype=bool))])
        [104.]
    """
    stale = np.zeros(len(quotes.strike), dtype=bool)
    age = np.where(np.isnan(quotes.age), np.inf, quotes.age)
    known = age[usable]
    if not np.isfinite(known).any() or known.max() - known.min() < rule.lag:
        return stale
    outside = usable & quotes.out_of_the_money
    used = outside | (usable & ~np.isin(quotes.strike, quotes.strike[outside]))
    speaks = used & (quotes.bid > 0.0)
    for _ in range(2):  # what was judged by the stale is judged again without them
        found = usable & _contradicting(quotes, age, speaks & ~stale, rule)
        if (found == stale).all():
            break
        stale = found
    if np.count_nonzero(stale & used) > rule.most * np.count_nonzero(used):
        return np.zeros(len(stale), dtype=bool)
    return stale


def _contradicting(
    quotes: SliceQuotes, age: np.ndarray, speaks: np.ndarray, rule: Neighbours
) -> np.ndarray:
    """Quotes that those which speak, and are fresher, contradict."""
    places = _nearest_fresher(quotes.strike, age, speaks, rule)
    known = places >= 0
    below = known & (quotes.strike[places] < quotes.strike[:, None])
    above = known & (quotes.strike[places] > quotes.strike[:, None])
    enough = (below.sum(1) >= rule.least) & (above.sum(1) >= rule.least)
    found = np.zeros(len(age), dtype=bool)
    rows = np.flatnonzero(enough)
    if not len(rows):
        return found
    price, error = _implied_by(quotes, rows, places[rows], rule)
    slack = rule.deviations * error + quotes.parity_error[rows]
    found[rows] = (quotes.bid[rows] > price + slack) | (
        quotes.ask[rows] < price - slack
    )
    return found


def _nearest_fresher(
    strike: np.ndarray, age: np.ndarray, speaks: np.ndarray, rule: Neighbours
) -> np.ndarray:
    """Positions of the nearest fresher quotes that speak, -1 where there are fewer.

    Shape `(n, 2 * each_side)`: those below each strike, then those above.
    """
    told = np.flatnonzero(speaks)
    told = told[np.argsort(strike[told], kind="stable")]
    sides = []
    for side in (-1.0, 1.0):
        order = told[:: int(side)]  # outwards from every strike
        beyond = side * (strike[order] - strike[:, None]) > 0.0
        near = beyond & (np.cumsum(beyond, axis=1) <= rule.reach)
        fresher = near & (age[order] <= age[:, None] - rule.lag)
        rank = np.cumsum(fresher, axis=1)
        row, column = np.nonzero(fresher & (rank <= rule.each_side))
        places = np.full((len(age), rule.each_side), -1)
        places[row, rank[row, column] - 1] = order[column]
        sides.append(places)
    return np.concatenate(sides, axis=1)


def _implied_by(
    quotes: SliceQuotes, rows: np.ndarray, places: np.ndarray, rule: Neighbours
) -> tuple[np.ndarray, np.ndarray]:
    """What neighbours imply for the quotes in `rows`, with its standard error."""
    mid = 0.5 * (quotes.bid + quotes.ask)
    turned = quotes.discount_factor * (quotes.forward - quotes.strike[places])
    kind = quotes.is_call[rows][:, None]
    other = quotes.is_call[places] != kind
    price = mid[places] + np.where(other, np.where(kind, turned, -turned), 0.0)
    known = (places >= 0) & (price > 0.0)
    price = np.where(known, price, 1.0)
    logarithm = np.log(price)
    half = 0.5 * (quotes.ask - quotes.bid)[places] / price
    x = quotes.strike[places] - quotes.strike[rows][:, None]
    x = x / np.abs(np.where(known, x, 0.0)).max(1, keepdims=True)
    powers = np.stack([np.ones_like(x), x, x * x], axis=-1)
    level, residual, leverage = _least_absolute(powers, logarithm, known, rule.steps)
    degrees = known.sum(1) - powers.shape[-1]
    off = np.where(known, np.abs(residual), np.nan)
    half = np.where(known, half, np.nan)
    # A parabola through as many points as it has parameters has no residuals.
    with np.errstate(all="ignore"):
        scatter = 1.4826 * _medians(off)
        scatter *= np.sqrt(known.sum(1) / np.maximum(degrees, 1))
        usual = _medians(half)
        least = rule.least_error * usual
    least = np.where(degrees > 0, least, usual)
    error = np.maximum(scatter, least) * np.sqrt(leverage)
    return np.exp(level), np.exp(level) * error


def _medians(rows: np.ndarray) -> np.ndarray:
    """Of what is not NaN in each row, `numpy.nanmedian` without its masks."""
    count = np.count_nonzero(~np.isnan(rows), axis=1)
    ordered, each = np.sort(rows, axis=1), np.arange(len(rows))
    low, high = (ordered[each, np.maximum(count - k, 0) // 2] for k in (1, 0))
    return np.where(count > 0, 0.5 * (low + high), np.nan)


def _least_absolute(
    powers: np.ndarray, values: np.ndarray, known: np.ndarray, steps: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Polynomials of the least sum of absolute residuals, many at once.

    By weights that are one over the residuals of the step before.

    Returns:
        Each polynomial's value at zero, its residuals, and the variance of that value
        in units of the variance of one observation.
    """
    size = powers.shape[-1]
    pairs = powers[..., None] * powers[..., None, :]
    pairs = pairs.reshape(*powers.shape[:-1], size * size)
    ridge = 1e-12 * np.eye(size)  # for fewer points than parameters

    def normal(weights: np.ndarray) -> np.ndarray:
        return (weights[:, None] @ pairs).reshape(-1, size, size) + ridge

    weights = known.astype(float)
    leverage = np.linalg.inv(normal(weights))[:, 0, 0]
    solution, residual = values[:, :0], values
    for _ in range(steps):
        right = (weights * values)[:, None] @ powers
        solution = np.linalg.solve(normal(weights), right[:, 0, :, None])
        residual = values - (powers @ solution)[..., 0]
        floor = 1e-9 + 1e-3 * np.abs(residual).max(1, keepdims=True)
        weights = known / np.maximum(np.abs(residual), floor) * floor
    return solution[:, 0, 0], residual, leverage

r"""Remove strikes from a portfolio, by the rules by which networks are pruned.

A hidden unit that is never active on the data can go, and one that is always active
is a straight line; neither is a loss. Beyond that it matters by which rule units go:
by how often they are active (the saliency of many pruning schemes), by the L1 norm, or
one after the other by what they add. None of these is as good as choosing all together,
and the first is poor: the units that are active most often have their strikes where
the payoff has long been a straight line. `benchmarks/static_hedge.py` has the figures.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from relu_options.errors import refuse
from relu_options.payoffs import Payoff
from relu_options.replication.few_strikes import best_strikes
from relu_options.replication.pieces import Regression
from relu_options.replication.quadratic import penalised_regression
from relu_options.replication.spot_law import SpotLaw

Rule = Literal["best", "greedy", "l1", "activation_rate"]
RULES = ("best", "greedy", "l1", "activation_rate")


def prune(
    payoff: Payoff,
    spots: ArrayLike,
    *,
    max_legs: int | None = None,
    rule: Rule = "best",
) -> Payoff:
    """A payoff with fewer strikes, near to the given one on data.

    Args:
        payoff: What to prune.
        spots: Data, of shape `(m,)`; each counts the same.
        max_legs: Number of strikes to keep; by default only those that make no
            difference on the data go.
        rule: "best" (the dynamic programme), "greedy" (each time the strike that lowers
            the squared error most), "l1" (a penalty on the sum of weights, raised until
            few enough remain) or "activation_rate" (the strikes that most of the data
            are above). The weights of those that stay are fitted again.

    Returns:
        The payoff that is left.

    Raises:
        ValueError: If the rule is unknown, there are no spots, or `max_legs` is not
            positive.

    Examples:
        On spots from 95 to 120, a strike at 90 is a straight line and one at 130 is not
        there.

        >>> from relu_options.payoffs import call
        >>> portfolio = call(90.0) + call(100.0) + call(130.0)
        >>> prune(portfolio, [95.0, 105.0, 120.0])
        Payoff(cash -90, 1 underlying, 1 calls 100)
    """
    if rule not in RULES:
        raise ValueError(f"rule must be one of {list(RULES)}, not {rule!r}")
    spots = np.sort(np.asarray(spots, float))
    if not len(spots) or not np.isfinite(spots).all():
        raise ValueError("pruning needs spots, all finite")
    if max_legs is None:
        refuse(
            "without `max_legs` only strikes that make no difference go",
            rule=None if rule == "best" else rule,
        )
    elif max_legs < 1:
        raise ValueError(f"max_legs must be positive, not {max_legs}")
    strikes, weights = payoff.strikes, payoff.weights
    always, never = strikes <= spots[0], strikes >= spots[-1]
    kept = ~always & ~never
    lossless = Payoff(
        payoff.cash - weights[always] @ strikes[always],
        payoff.slope + weights[always].sum(),
        strikes[kept],
        weights[kept],
    )
    if max_legs is None or len(lossless.strikes) <= max_legs:
        return lossless
    law = SpotLaw(spots, np.full(len(spots), 1.0 / len(spots)))
    strikes = lossless.strikes
    regression = Regression.of(law, lossless(spots), strikes)
    chosen = choose_strikes(regression, max_legs, rule)
    columns = np.maximum(spots[:, None] - strikes[chosen], 0.0)
    design = np.column_stack([np.ones_like(spots), spots, columns])
    solution = np.linalg.lstsq(design, lossless(spots), rcond=None)[0]
    return Payoff(solution[0], solution[1], strikes[chosen], solution[2:])


def choose_strikes(regression: Regression, count: int, rule: Rule) -> np.ndarray:
    """Positions of `count` strikes, increasing, by one of the rules of `prune`."""
    if rule == "best":
        return best_strikes(regression, count)[0]
    if rule == "activation_rate":
        return np.arange(count)  # the lowest strikes have most of the data above them
    gram, moments = products(regression)
    scale = np.sqrt(np.maximum(np.diagonal(gram), 1e-14 * np.diagonal(gram).max()))
    gram, moments = gram / np.outer(scale, scale), moments / scale
    if rule == "greedy":
        return _greedy(gram, moments, count)
    return _shrink(gram, moments, 1.0 / scale, count)


def products(regression: Regression) -> tuple[np.ndarray, np.ndarray]:
    """Expected products of calls, and of calls and payoff, less cash and forward.

    Returns:
        Arrays of shape `(n, n)` and `(n,)`.
    """
    k = regression.strikes
    count, x, xx, f, xf, _ = regression.above
    place = np.arange(len(k))
    high = np.maximum.outer(place, place)
    gram = xx[high] - np.add.outer(k, k) * x[high] + np.outer(k, k) * count[high]
    level, tilt = x - k * count, xx - k * x
    gram -= (np.outer(level, level) + np.outer(tilt, tilt)) / regression.total[0]
    return gram, xf - k * f


def _greedy(gram: np.ndarray, moments: np.ndarray, count: int) -> np.ndarray:
    """Add, each time, the strike that lowers the squared error most."""
    gram, moments = gram.copy(), moments.copy()
    free = np.ones(len(moments), bool)
    chosen = []
    for _ in range(count):
        variance = np.diagonal(gram)
        usable = free & (variance > 1e-10)
        gain = np.where(usable, moments**2 / np.where(usable, variance, 1.0), -1.0)
        best = int(np.argmax(gain))
        chosen.append(best)
        free[best] = False
        column = gram[:, best] / max(gram[best, best], 1e-300)
        moments -= column * moments[best]
        gram -= np.outer(column, gram[best])
    return np.sort(chosen)


def _shrink(
    gram: np.ndarray, moments: np.ndarray, unit: np.ndarray, count: int
) -> np.ndarray:
    """Raise a penalty on the weights until no more than `count` remain."""
    high = float(np.max(np.abs(moments) / unit))
    low = 1e-9 * high
    best = np.zeros(0, int)
    for _ in range(40):
        penalty = np.sqrt(low * high)
        kept = np.flatnonzero(penalised_regression(gram, moments, penalty * unit))
        if len(kept) <= count:
            high = penalty
            best = kept if len(kept) >= len(best) else best
        else:
            low = penalty
        if len(best) == count:
            break
    return best

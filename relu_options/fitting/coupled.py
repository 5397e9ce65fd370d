r"""The smooth fit of many expiries, in their order.

Every expiry has the objective of `relu_options.fitting.objective`, on kinks that all
share, and the skeleton of each must not be below the one before it at any kink:

$$
\sum_j w_{ij} (s_j - s_m)^+ \ge \sum_j w_{i-1,j} (s_j - s_m)^+ .
$$

Rough solutions of every expiry by itself choose ruler and smoothing; then all are
solved together. Of the spreads as bounds only those of the quotes nearest to leaving
theirs enter, in chunks of rows: the others cannot bind unless the solution says so, and
an expiry whose quotes are outside by the hundred has more chunks than the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from relu_options.fitting.calendar_program import (
    CalendarIterate,
    CalendarProgram,
    CalendarSolution,
    in_order,
    solve,
    starting_point,
)
from relu_options.fitting.compiled import compiled
from relu_options.fitting.grid import by_distance, rescored, shared_kinks
from relu_options.fitting.lent_shape import lend_shape
from relu_options.fitting.objective import Bounds, Objective, tilted
from relu_options.fitting.quotes import NormalisedQuotes, Smile
from relu_options.fitting.smooth import (
    Trial,
    better,
    heavy_tailed,
    leaves_others,
    rough,
)
from relu_options.fitting.workers import cores


@dataclass(frozen=True)
class CoupledSettings:
    """How expiries are fitted together.

    Attributes:
        longest: Ratio of at-the-money volatilities that bandwidths follow.
        freshness: How far from the first solution the second one starts.
        expiries: Padded numbers of expiries; one programme is compiled for each.
        chunk: Spreads of one expiry that enter together.
        chunks: Padded numbers of chunks, per expiry.
        spare: Spreads that enter, for each quote that is outside.
        rounds: Choices of spreads, each by the solution before.
        tolerance: Relative duality gap at which to stop.
    """

    longest: float = 50.0
    freshness: float = 1e-3
    expiries: tuple[int, ...] = (8, 16, 40, 64, 128)
    chunk: int = 48
    chunks: tuple[int, ...] = (0, 1, 2, 4, 8, 16, 48)
    spare: float = 1.25
    rounds: int = 8
    tolerance: float = 1e-6


HOW = CoupledSettings()


@dataclass(frozen=True, eq=False)
class CoupledFit:
    """Weights of all expiries and how they were found, in units of the forward.

    Attributes:
        trials: What was minimised, for each expiry.
        weights: Probabilities, of shape `(N, n)`.
        shadow_prices: Multipliers of the order at the inner kinks, `(N, n - 2)`.
        values: Of the objectives, of shape `(N,)`.
        gap: Relative duality gap.
        steps: Interior-point steps, of all solutions.
    """

    trials: Sequence[Trial]
    weights: np.ndarray
    shadow_prices: np.ndarray
    values: np.ndarray
    gap: float
    steps: int

    @property
    def fitted(self) -> list[np.ndarray]:
        """Prices fitted to the quotes of each expiry."""
        objectives = [trial.objective for trial in self.trials]
        return list(map(Objective.fitted, objectives, self.weights))


def fit_apart(
    quotes: Sequence[NormalisedQuotes],
    smiles: Sequence[Smile],
    *,
    smoothing: float,
    narrowest: float,
    n: int,
) -> list[Trial]:
    """Place the kinks, and fit every expiry by itself to choose its smoothing.

    Args:
        quotes: Of all expiries.
        smiles: Their smiles.
        smoothing: `lambda` in units of the reference; NaN to choose it from the data.
        narrowest: Bandwidth at the forward, in at-the-money total volatilities of the
            expiry where that is least.
        n: Number of kinks.

    Returns:
        Rough solutions.
    """
    units = np.array([smile.at_the_money for smile in smiles])
    x, bandwidths = shared_kinks(
        n,
        low=min(smile.low for smile in smiles),
        high=max(smile.high for smile in smiles),
        narrowest=narrowest * max(units.min(), units.max() / HOW.longest),
    )
    lent = lend_shape(smiles, x, bandwidths)

    def try_rulers(place: int) -> Trial:
        """The better of two rulers for one expiry."""
        one, smile = quotes[place], smiles[place]
        grid = by_distance(x, bandwidths, smile)
        objective = Objective.of(one, grid, smile.at_the_money, lent=lent[place])
        first = rough(objective, smoothing)
        score = rescored(grid, first.weights, smile, one.kernel)
        return better(first, rough(objective.on(score), smoothing))

    with ThreadPoolExecutor(cores()) as pool:
        return list(pool.map(try_rulers, range(len(quotes))))


def fit_together(
    trials: Sequence[Trial],
    weights: np.ndarray | None = None,
    *,
    tolerance: float = HOW.tolerance,
) -> CoupledFit:
    """Fit all expiries in their order, with spreads as elastic bounds.

    Args:
        trials: Of `fit_apart`.
        weights: A solution to start from, of shape `(N, n)`, which also says which
            quotes are nearest to leaving their spreads; by default the trials'.
        tolerance: Relative duality gap at which to stop.

    Returns:
        The solution.
    """
    if weights is None:
        weights = np.stack([trial.weights for trial in trials])
    steps = sum(trial.steps for trial in trials)
    chunks = _chunks(trials, weights)
    fit, more = _solved(trials, weights, chunks, steps, tolerance)
    for _ in range(HOW.rounds - 1):
        if not more.any():
            break
        chunks = np.maximum(chunks + more, _chunks(trials, fit.weights))
        fit, more = _solved(trials, fit.weights, chunks, fit.steps, tolerance)
    return fit


def _solved(
    trials: Sequence[Trial],
    weights: np.ndarray,
    chunks: np.ndarray,
    steps: int,
    tolerance: float,
) -> tuple[CoupledFit, np.ndarray]:
    """The solution with so many bounds, and which expiries leave others."""
    program, bounded = coupled_program(trials, weights, chunks)
    start = _start(trials, weights, len(program["hessian"]))
    fit = _fit(trials, compiled(_solve)(program, *start, tolerance), steps)
    objectives = [trial.objective for trial in trials]
    return fit, np.array(list(map(leaves_others, objectives, fit.weights, bounded)))


def _chunks(trials: Sequence[Trial], weights: np.ndarray) -> np.ndarray:
    """How many chunks of spreads each expiry should have, given a solution."""
    counts = []
    for trial, row in zip(trials, weights, strict=True):
        quotes = trial.objective.quotes
        outside = np.count_nonzero(trial.objective.outside(row))
        available = -(-int(quotes.two_sided.sum()) // HOW.chunk)
        wanted = max(1, -(-int(HOW.spare * outside) // HOW.chunk))
        counts.append(min(wanted, available))
    return np.array(counts)


def coupled_program(
    trials: Sequence[Trial], weights: np.ndarray, chunks: np.ndarray
) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
    """The programme of `fit_together`, padded, and which quotes are bounds.

    Args:
        trials: Of `fit_apart`.
        weights: A solution that says which quotes are nearest to leaving.
        chunks: How many chunks of spreads each expiry has, of shape `(N,)`.

    Returns:
        The programme, and for each expiry the places of the quotes.
    """
    count, n = weights.shape
    size = next(size for size in HOW.expiries if size >= count)
    total = int(chunks.sum())
    most = size * next(each for each in HOW.chunks if size * each >= total)
    # What pads, chunks of rows that bind nothing, belongs to the last expiry.
    owner = np.full(most, size - 1)
    owner[:total] = np.repeat(np.arange(count), chunks)
    asked = [trial.objective for trial in trials]
    bounds = list(map(Objective.bounds, asked, weights, HOW.chunk * chunks))
    sizes = HOW.chunk * np.append(chunks, most - total)
    padded = list(map(Bounds.padded, [*bounds, Bounds.none(n)], sizes))
    rows = {name: np.concatenate([each[name] for each in padded]) for name in padded[0]}
    smoothing = [trial.smoothing for trial in trials]
    place = np.arange(size)
    last = np.minimum(place, count - 1)
    program = {
        "kinks": asked[0].places,
        "hessian": np.stack(list(map(Objective.hessian, asked, smoothing)))[last],
        "gradient": np.stack(list(map(Objective.gradient, asked, smoothing)))[last],
        "constant": np.array(list(map(Objective.constant, asked, smoothing)))[last],
        "rows": rows["rows"].reshape(most, HOW.chunk, n),
        "owner": owner,
        "lower": rows["lower"].reshape(most, HOW.chunk),
        "upper": rows["upper"].reshape(most, HOW.chunk),
        "penalty": rows["penalty"].reshape(most, HOW.chunk),
        "coupled": (place > 0) & (place < count),
    }
    return program, [each.quotes for each in bounds]


def _start(
    trials: Sequence[Trial], weights: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Weights to start from and heavy-tailed ones, padded."""
    objectives = [trial.objective for trial in trials]
    spread = np.stack([tilted(heavy_tailed(one), one.beyond) for one in objectives])
    last = np.minimum(np.arange(size), len(trials) - 1)
    return weights[last], spread[last]


def _solve(
    data: dict[str, jax.Array], weights: jax.Array, spread: jax.Array, tolerance
) -> CalendarSolution:
    program = CalendarProgram(**data)
    begin = in_order(weights, program.kinks)
    begin = begin + HOW.freshness * (spread - begin)
    if program.rows.shape[0]:
        start = _warm_start(program, begin)
    else:
        start = starting_point(program, begin)
    return solve(program, start, tolerance=tolerance)


def _warm_start(program: CalendarProgram, weights: jax.Array) -> CalendarIterate:
    """Near the central path, at weights that nearly solve the programme."""
    start = starting_point(program, weights)
    objective = program.objective(weights, jnp.zeros_like(start.excess)).mean()
    product = 0.1 * objective / weights.shape[1]  # of each unknown and its multiplier
    excess = start.excess - 1.0 + HOW.freshness
    slack = start.slack - 1.0 + HOW.freshness
    slack_dual = jnp.minimum(product / slack, program.penalty / 4.0)
    coupled = program.ordered
    level = HOW.freshness * start.time_value
    calendar = jnp.where(coupled, jnp.maximum(start.calendar, level), 1.0)
    return replace(
        start,
        weights_dual=product / weights,
        calendar=calendar,
        calendar_dual=jnp.where(coupled, product / calendar, 0.0),
        excess=excess,
        excess_dual=program.penalty - slack_dual.sum(0),
        slack=slack,
        slack_dual=slack_dual,
    )


def _fit(trials: Sequence[Trial], answer: CalendarSolution, steps: int) -> CoupledFit:
    """Settle the last bits of the identities and collect the statistics."""
    count = len(trials)
    found = np.asarray(answer.iterate.weights)[:count]
    weights = [
        tilted(row, trial.objective.beyond)
        for trial, row in zip(trials, found, strict=True)
    ]
    return CoupledFit(
        trials=trials,
        weights=np.stack(weights),
        shadow_prices=np.asarray(answer.iterate.calendar_dual)[:count],
        values=np.asarray(answer.objective)[:count],
        gap=float(answer.gap),
        steps=steps + int(answer.steps),
    )

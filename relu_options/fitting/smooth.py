"""The smooth fit of one expiry: two rulers are tried, and the quotes choose.

A rough solution by each ruler says how much smoothing it wants, and how well it would
do on quotes that it has not seen; the better one is solved to its digits. If that is
outside of spreads, these become elastic bounds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from relu_options.fitting.compiled import compiled
from relu_options.fitting.grid import by_distance, by_score, kinks_by_distance
from relu_options.fitting.interior_point import (
    Iterate,
    QuadraticProgram,
    Solution,
    no_rows,
    solve,
    starting_point,
)
from relu_options.fitting.objective import Objective, tilted
from relu_options.fitting.quotes import NormalisedQuotes, Smile
from relu_options.fitting.smoothing import judge, reference_smoothing

NARROWEST = 0.125  # bandwidth at the forward, in at-the-money total volatilities


@dataclass(frozen=True)
class SmoothSettings:
    """How the programmes of one expiry are solved.

    Attributes:
        rough: Relative gap of the solutions that only choose.
        fine: Of the one that is kept.
        rounds: Choices of the smoothing, at most.
        freshness: How far from the first solution the second one starts: an interior
            point method is slow from the boundary.
        warmth: The same for the start with spreads as bounds.
        centrality: Duality gap to start from, relative to the objective there.
        rows: Padded numbers of spreads that are bounds; one is compiled for each.
    """

    rough: float = 1.0
    fine: float = 1e-10
    rounds: int = 5
    freshness: float = 0.1
    warmth: float = 0.01
    centrality: float = 1e-4
    rows: tuple[int, ...] = (64, 512, 4096, 32768)


HOW = SmoothSettings()


class Answer(NamedTuple):
    """What the compiled programme gives back.

    Attributes:
        weights: Of shape `(n,)`.
        duals: Multipliers of `weights >= 0`.
        objective: The objective.
        gap: Relative duality gap.
        steps: Interior-point steps.
    """

    weights: np.ndarray
    duals: np.ndarray
    objective: float
    gap: float
    steps: int


@dataclass(frozen=True, eq=False)
class Trial:
    """A rough solution by one ruler.

    Attributes:
        objective: What was minimised.
        weights: Of shape `(n,)`.
        smoothing: The `lambda` that is recommended.
        criterion: The less the better.
        steps: Interior-point steps.
    """

    objective: Objective
    weights: np.ndarray
    smoothing: float
    criterion: float
    steps: int

    @property
    def relative_smoothing(self) -> float:
        """`lambda` in units of the reference."""
        return self.smoothing / reference_smoothing(len(self.objective.quotes))


@dataclass(frozen=True)
class FitOptions:
    """What is asked of smooth curves, checked."""

    smoothing: float | str
    kinks: int
    narrowest: float

    def __post_init__(self):
        smoothing = self.smoothing
        if isinstance(smoothing, str):
            valid = smoothing == "auto"
        else:
            valid = bool(np.isfinite(smoothing)) and smoothing >= 0.0
        if not valid:
            raise ValueError(f"smoothing must be 'auto' or >= 0, not {smoothing!r}")
        if not isinstance(self.kinks, int | np.integer) or self.kinks < 8:
            raise ValueError(
                f"kinks must be a whole number from 8 on, not {self.kinks!r}"
            )
        if not 0.0 < self.narrowest < np.inf:
            raise ValueError(
                f"narrowest must be positive and finite, not {self.narrowest!r}"
            )

    @property
    def asked(self) -> float:
        """The smoothing as a number, NaN to choose it."""
        return np.nan if isinstance(self.smoothing, str) else float(self.smoothing)


@dataclass(frozen=True, eq=False)
class SmoothFit:
    """Weights of one expiry and how they were found, for a forward and a mass of one.

    Attributes:
        trial: What was minimised, at its kinks.
        weights: Probabilities, of shape `(n,)`.
        fitted: Fitted prices at the quotes, of shape `(m,)`.
        value: Of the objective.
        gap: Relative duality gap.
        steps: Interior-point steps, of all solutions.
    """

    trial: Trial
    weights: np.ndarray
    fitted: np.ndarray
    value: float
    gap: float
    steps: int

    @classmethod
    def of(cls, trial: Trial, answer: Answer) -> SmoothFit:
        """Settle the last bits of the identities."""
        weights = tilted(answer.weights, trial.objective.beyond)
        return cls(
            trial,
            weights,
            trial.objective.fitted(weights),
            answer.objective,
            answer.gap,
            trial.steps + answer.steps,
        )


def fit_smooth(
    quotes: NormalisedQuotes,
    smile: Smile,
    *,
    smoothing: float,
    narrowest: float,
    n: int,
) -> SmoothFit:
    """Fit the middle of the quotes, or inside their spreads where that is not.

    Args:
        quotes: The quotes.
        smile: Their smile.
        smoothing: `lambda` in units of the reference; NaN to choose it from the data.
        narrowest: Bandwidth at the forward, in at-the-money total volatilities.
        n: Number of kinks.

    Returns:
        The solution.
    """
    fit = fit_mids(quotes, smile, smoothing=smoothing, narrowest=narrowest, n=n)
    return fit_inside(fit) if np.any(quotes.excess(fit.fitted) > 0.0) else fit


def fit_mids(
    quotes: NormalisedQuotes,
    smile: Smile,
    *,
    smoothing: float,
    narrowest: float,
    n: int,
) -> SmoothFit:
    """Fit the middle of the quotes; see `fit_smooth`."""
    unit = smile.at_the_money
    kinks = kinks_by_distance(
        n, low=smile.low, high=smile.high, narrowest=narrowest * unit
    )
    distance = Objective.of(quotes, by_distance(*kinks, smile), unit)
    first = rough(distance, smoothing)
    score = by_score(distance.grid, first.weights, smile, quotes.kernel)
    best = better(first, rough(Objective.of(quotes, score, unit), smoothing))
    return SmoothFit.of(best, solve_mids(best, HOW.fine))


def better(first: Trial, second: Trial) -> Trial:
    """The one of two rulers that quotes prefer, with the steps of both."""
    best = min(first, second, key=lambda trial: trial.criterion)
    return replace(best, steps=first.steps + second.steps)


def rough(objective: Objective, smoothing: float) -> Trial:
    """A rough solution, at the smoothing that it asks for if none is given."""
    quotes = objective.quotes
    free = np.isnan(smoothing)
    reference = reference_smoothing(len(quotes))
    chosen = reference * (1.0 if free else smoothing)
    has_spreads = bool(quotes.two_sided.all())
    weights = heavy_tailed(objective)
    trial = Trial(objective, weights, chosen, np.inf, 0)
    for _ in range(HOW.rounds):
        answer = solve_mids(trial, HOW.rough)
        judgement = judge(
            objective,
            answer.weights,
            answer.duals / answer.weights,
            trial.smoothing,
            has_spreads=has_spreads,
            free=free,
        )
        settled = has_spreads or judgement.smoothing == trial.smoothing
        trial = Trial(
            objective,
            answer.weights,
            judgement.smoothing,
            judgement.criterion,
            trial.steps + answer.steps,
        )
        if settled:
            break
    return trial


def heavy_tailed(objective: Objective) -> np.ndarray:
    """Weights of a Cauchy law, from which the programme is started.

    No weight is then many orders of magnitude from its solution in the direction that
    is slow to come back from, which halves the steps.
    """
    grid, drift = objective.grid, objective.kernel.drift
    weights = grid.bandwidths / (1.0 + (grid.x / objective.unit) ** 2)
    weights = weights * np.exp(-drift * np.maximum(grid.x, 0.0))
    return weights / weights.sum()


def solve_mids(trial: Trial, tolerance: float) -> Answer:
    """Solve for the mids, from not too near to the weights of a trial."""
    objective, weights = trial.objective, trial.weights
    spread = heavy_tailed(objective)
    start = weights + HOW.freshness * (spread - weights)
    table = _table(objective, trial.smoothing, start)
    numbers = np.array([objective.constant(trial.smoothing), tolerance])
    return _answer(*compiled(_mids)(table, numbers))


def fit_inside(fit: SmoothFit) -> SmoothFit:
    """Fit with the spreads as elastic bounds: inside every spread if a curve can be."""
    trial, objective = fit.trial, fit.trial.objective
    spread = heavy_tailed(objective)
    numbers = np.array([objective.constant(trial.smoothing), HOW.fine])
    for size in HOW.rows:
        bounds = objective.bounds(fit.weights, size)
        start = fit.weights + HOW.warmth * (spread - fit.weights)
        table = _table(objective, trial.smoothing, start)
        answer = _answer(*compiled(_within)(table, numbers, bounds.padded(size)))
        fit = SmoothFit.of(replace(trial, steps=fit.steps), answer)
        if not leaves_others(objective, fit.weights, bounds.quotes):
            break
    return fit


def leaves_others(
    objective: Objective, weights: np.ndarray, bounded: np.ndarray
) -> bool:
    """Whether a solution is outside of quotes whose spreads are no bounds."""
    outside = objective.outside(weights)
    outside[bounded] = False
    return bool(outside.any())


def _table(objective: Objective, smoothing: float, start: np.ndarray) -> np.ndarray:
    """The programme without spreads, and a start: one array is handed over faster."""
    n = len(start)
    table = np.empty((n + 4, n))
    table[:n] = objective.hessian(smoothing)
    table[n : n + 2] = objective.equality
    table[n + 2] = objective.gradient(smoothing)
    table[n + 3] = start
    return table


def _program(table: jax.Array, numbers: jax.Array, rows) -> QuadraticProgram:
    n = table.shape[1]
    return QuadraticProgram(
        hessian=table[:n],
        gradient=table[n + 2],
        constant=numbers[0],
        equality=table[n : n + 2],
        target=jnp.array([1.0, 0.0]),
        **rows,
    )


def _mids(table: jax.Array, numbers: jax.Array):
    n = table.shape[1]
    program, weights = _program(table, numbers, no_rows(n)), table[n + 3]
    # Every product with its multiplier alike.
    start = starting_point(program, weights)
    gap = HOW.centrality * program.objective(weights, start.excess)
    start = replace(start, z=gap / n / weights)
    return _packed(solve(program, start, tolerance=numbers[1]))


def _within(table: jax.Array, numbers: jax.Array, rows: dict[str, jax.Array]):
    program = _program(table, numbers, rows)
    start = _warm_start(program, table[-1])
    return _packed(solve(program, start, tolerance=numbers[1]))


def _packed(final: Solution) -> tuple[jax.Array, jax.Array]:
    at = final.iterate
    numbers = final.objective, final.gap, final.steps.astype(float)
    return jnp.stack([at.x, at.z]), jnp.stack(numbers)


def _answer(vectors: jax.Array, numbers: jax.Array) -> Answer:
    weights, duals = np.asarray(vectors)
    objective, gap, steps = np.asarray(numbers).tolist()
    return Answer(weights, duals, objective, gap, int(steps))


def _warm_start(program: QuadraticProgram, weights: jax.Array) -> Iterate:
    """Near the central path, at weights that solve the programme without its rows."""
    start = starting_point(program, weights)
    n = weights.shape[0]
    objective = program.objective(weights, jnp.zeros_like(start.excess))
    product = 0.1 * objective / n  # of each unknown and its multiplier
    excess = start.excess - 1.0 + HOW.warmth
    slack = start.slack - 1.0 + HOW.warmth
    slack_dual = jnp.minimum(product / slack, program.penalty / 4.0)
    return replace(
        start,
        z=product / weights,
        excess=excess,
        excess_dual=program.penalty - slack_dual.sum(0),
        slack=slack,
        slack_dual=slack_dual,
    )

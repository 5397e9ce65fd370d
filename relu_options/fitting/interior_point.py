r"""Convex quadratic programmes with non-negative unknowns, by an interior-point method.

The programme is

$$
\min_{x \ge 0,\; e \ge 0} \; \tfrac12 x^\top P x + q^\top x + c + \rho^\top e
\quad \text{subject to} \quad E x = b, \quad
\ell - e \le A x \le u + e,
$$

where the elastic rows `A` may be absent. Their excess `e` is charged in proportion, an
exact penalty: it is zero wherever it can be, once `rho` exceeds the multipliers.

The method is Mehrotra's predictor-corrector on the primal-dual optimality conditions.
The slacks of the elastic rows are eliminated by hand, so that each step factorises one
matrix of the size of `x` whatever the number of rows. Unknowns that span many orders of
magnitude are met by scaling that matrix to a unit diagonal before it is factorised.

References:
    Colombo, M. and Gondzio, J. (2008). Further development of multiple centrality
    correctors for interior point methods. *Computational Optimization and
    Applications*, 41(3), 277-305. (Damped correctors.)

    Mehrotra, S. (1992). On the implementation of a primal-dual interior point method.
    *SIAM Journal on Optimization*, 2(4), 575-601.

    Nocedal, J. and Wright, S. (2006). *Numerical Optimization*, 2nd ed., chapter 16.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve, solve_triangular


@dataclass(frozen=True)
class LoopSettings:
    """Of the loop that all programmes share.

    Attributes:
        fraction: How much of the way to the boundary a step may go; all of it would
            make a product zero, from where no step leads away.
        slow: Gap after two steps, as a share, from which the corrector is damped: each
            second step then undoes the one before.
        ridge: Added to the unit diagonal of the scaled matrix, times its size: about
            the rounding of its factorisation.
        most_ridge: To which it grows, tenfold, where a factorisation fails.
        stall: Steps without progress after which the best iterate is kept: at the limit
            of the digits the gap stops falling and then drifts.
        patience: Steps in which an infeasible start may yet be far from moving.
        resolution: Least objective, as a share of its constant, to measure gaps by: an
            exact fit has an objective of zero.
    """

    fraction: float = 0.995
    slow: float = 0.8
    ridge: float = 4e-16
    most_ridge: float = 1e-12
    stall: int = 4
    patience: int = 20
    resolution: float = 1e-9


DENSE = LoopSettings()
ABREAST = 0.01  # of what is violated: the gap must not fall far ahead of it

Pairs: TypeAlias = tuple[tuple[jax.Array, jax.Array], ...]
"""Positive parts of an iterate, each with its multiplier."""


class Paired(Protocol):
    """What a step needs to know of an iterate, which is a pytree."""

    @property
    def pairs(self) -> Pairs:
        """Positive parts, each with its multiplier."""
        ...

    @property
    def gap(self) -> jax.Array:
        """Sum of their products."""
        ...


At = TypeVar("At", bound=Paired)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class QuadraticProgram:
    """The data of one programme; see the module's formula.

    Attributes:
        hessian: `P`, of shape `(n, n)`, positive semidefinite.
        gradient: `q`, of shape `(n,)`.
        constant: `c`, a scalar; it only sets the scale of the relative tolerance.
        equality: `E`, of shape `(p, n)` with full row rank.
        target: `b`, of shape `(p,)`.
        rows: `A`, of shape `(m, n)`; `m` may be zero.
        lower: `l`, of shape `(m,)`.
        upper: `u`, of shape `(m,)`, above `lower`.
        penalty: `rho`, of shape `(m,)`, positive.
    """

    hessian: jax.Array
    gradient: jax.Array
    constant: jax.Array
    equality: jax.Array
    target: jax.Array
    rows: jax.Array
    lower: jax.Array
    upper: jax.Array
    penalty: jax.Array

    def objective(self, x: jax.Array, excess: jax.Array) -> jax.Array:
        """Value of the objective."""
        quadratic = 0.5 * x @ (self.hessian @ x) + self.gradient @ x + self.constant
        return quadratic + self.penalty @ excess


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Iterate:
    """Unknowns, slacks and multipliers; all but `y` are positive.

    Attributes:
        x: Unknowns, of shape `(n,)`.
        y: Multipliers of the equalities, of shape `(p,)`.
        z: Multipliers of `x >= 0`, of shape `(n,)`.
        excess: `e`, of shape `(m,)`.
        excess_dual: Multipliers of `e >= 0`, of shape `(m,)`.
        slack: How far `A x` is inside the lower and upper bounds, of shape `(2, m)`.
        slack_dual: Their multipliers, of shape `(2, m)`.
    """

    x: jax.Array
    y: jax.Array
    z: jax.Array
    excess: jax.Array
    excess_dual: jax.Array
    slack: jax.Array
    slack_dual: jax.Array

    @property
    def pairs(self) -> Pairs:
        """Positive parts, each with its multiplier."""
        return (
            (self.x, self.z),
            (self.excess, self.excess_dual),
            (self.slack, self.slack_dual),
        )

    @property
    def gap(self) -> jax.Array:
        """Sum of the complementarity products: how far from optimal, if feasible."""
        rows = self.excess @ self.excess_dual + jnp.sum(self.slack * self.slack_dual)
        return self.x @ self.z + rows


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Solution:
    """Where the method stopped.

    Attributes:
        iterate: The best iterate.
        objective: The objective there.
        gap: Duality gap relative to the objective, or to `RESOLUTION` of its constant.
        residual: Largest violation of the optimality conditions that are equalities,
            relative to the size of their terms.
        steps: Number of steps taken.
    """

    iterate: Iterate
    objective: jax.Array
    gap: jax.Array
    residual: jax.Array
    steps: jax.Array


def no_rows(n: int) -> dict[str, jax.Array]:
    """The elastic rows of a programme that has none."""
    return {
        "rows": jnp.zeros((0, n)),
        "lower": jnp.zeros(0),
        "upper": jnp.zeros(0),
        "penalty": jnp.zeros(0),
    }


def starting_point(program: QuadraticProgram, x: jax.Array) -> Iterate:
    """A balanced interior point at `x > 0`.

    Every multiplier is as large as the gradient, so that no complementarity product is
    much smaller than the others: unbalanced starts cost steps.
    """
    slope = program.hessian @ x + program.gradient
    m = program.penalty.shape[0]
    inside = program.rows @ x
    excess = jnp.maximum(
        jnp.maximum(program.lower - inside, inside - program.upper), 0.0
    )
    excess = excess + 1.0
    slack = jnp.stack([inside - program.lower, program.upper - inside]) + excess
    return Iterate(
        x=x,
        y=jnp.zeros(program.target.shape[0]),
        z=jnp.full(x.shape, jnp.abs(slope).max()),
        excess=excess,
        excess_dual=program.penalty / 2.0,
        slack=slack,
        slack_dual=jnp.broadcast_to(program.penalty / 4.0, (2, m)),
    )


def solve(
    program: QuadraticProgram,
    start: Iterate,
    *,
    tolerance: float | jax.Array,
    max_steps: int = 60,
) -> Solution:
    """Solve the programme from an interior point.

    Args:
        program: The programme.
        start: Any iterate with positive parts, feasible or not; a previous solution of
            a similar programme saves steps if it was stopped early enough.
        tolerance: Relative duality gap at which to stop.
        max_steps: Steps after which to stop regardless.

    Returns:
        The best iterate and how good it is. Nothing is raised: check `gap`.
    """
    n = start.x.shape[0]
    # The units of the objective are taken out: what follows is free of scale.
    unit = jnp.trace(program.hessian) / n
    program = QuadraticProgram(
        hessian=program.hessian / unit,
        gradient=program.gradient / unit,
        constant=program.constant / unit,
        equality=program.equality,
        target=program.target,
        rows=program.rows,
        lower=program.lower,
        upper=program.upper,
        penalty=program.penalty / unit,
    )
    start = _scale_duals(start, 1.0 / unit)

    # Stationarity is linear: a step of length a leaves 1 - a of what was violated.
    stationary, stationary_excess, _, _ = _residuals(program, start)
    violated = start.x @ jnp.abs(stationary) + start.excess @ jnp.abs(stationary_excess)

    def measure(iterate, remaining):
        objective = program.objective(iterate.x, iterate.excess)
        gap = iterate.gap + remaining * violated
        gap = gap / jnp.maximum(jnp.abs(objective), DENSE.resolution * program.constant)
        return gap, _relative_residual(program, iterate)

    def advance(at, ridge, slow):
        before, remaining = at
        change, length = predictor_corrector(
            _newton_system(program, before, ridge),
            before,
            count=n + 3 * before.excess.shape[0],
            slow=slow,
            least=ABREAST * remaining * violated,
            fraction=DENSE.fraction,
        )
        iterate = jax.tree.map(lambda v, dv: v + length * dv, before, change)
        remaining = remaining * (1.0 - length)
        return (iterate, remaining), jnp.maximum(*measure(iterate, remaining))

    (best, remaining), _, steps = descend(
        advance,
        (start, jnp.asarray(1.0)),
        gap=lambda at: at[0].gap,
        settings=DENSE,
        tolerance=tolerance,
        max_steps=max_steps,
    )
    gap, residual = measure(best, remaining)
    objective = program.objective(best.x, best.excess) * unit
    return Solution(_scale_duals(best, unit), objective, gap, residual, steps)


Carried = TypeVar("Carried")


def descend(
    advance: Callable[..., tuple[Carried, jax.Array]],
    start: Carried,
    *,
    gap: Callable[[Carried], jax.Array],
    settings: LoopSettings,
    tolerance: float | jax.Array,
    max_steps: int,
) -> tuple[Carried, jax.Array, jax.Array]:
    """Take steps until one is good enough, and keep the best.

    Args:
        advance: One step, `(iterate, ridge, slow) -> (iterate, merit)`; the merit is
            what is left to do, and `slow` says whether the steps before gained little.
        start: The first iterate.
        gap: Of an iterate.
        settings: Of the loop.
        tolerance: Merit at which to stop.
        max_steps: Steps after which to stop regardless.

    Returns:
        The best iterate, its merit, and how many steps were taken.
    """

    def proceed(carry):
        *_, best_merit, _, steps, stalled = carry
        unfinished = (best_merit > tolerance) & (steps < max_steps)
        return unfinished & (stalled < settings.stall)

    def step(carry):
        before, gaps, best, best_merit, ridge, steps, stalled = carry
        iterate, merit = advance(before, ridge, gap(before) > settings.slow * gaps[0])
        # Where a factorisation has failed, the step is taken again with more ridge.
        failed = ~jnp.isfinite(merit)
        iterate = _choose(failed, before, iterate)
        ridge = jnp.where(failed, 10.0 * ridge, ridge)
        better = merit < best_merit
        moving = better | (gap(iterate) < 0.9 * gap(before))
        moving = moving | (steps < settings.patience)
        moving = moving | (failed & (ridge < settings.most_ridge))
        stalled = jnp.where(moving, 0, stalled + 1)
        gaps = jnp.stack([gaps[1], gap(before)])
        best, best_merit = _choose(better, iterate, best), jnp.fmin(merit, best_merit)
        return iterate, gaps, best, best_merit, ridge, steps + 1, stalled

    zero, infinite = jnp.asarray(0), jnp.asarray(jnp.inf)
    ridge = jnp.asarray(settings.ridge)
    carry = (start, jnp.full(2, infinite), start, infinite, ridge, zero, zero)
    _, _, best, merit, _, steps, _ = jax.lax.while_loop(proceed, step, carry)
    return best, merit, steps


def _choose(condition: jax.Array, one: Carried, other: Carried) -> Carried:
    """One pytree or another of the same kind."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), one, other)


def _scale_duals(iterate: Iterate, factor: jax.Array) -> Iterate:
    """The same point for an objective multiplied by `factor`."""
    return Iterate(
        x=iterate.x,
        y=iterate.y * factor,
        z=iterate.z * factor,
        excess=iterate.excess,
        excess_dual=iterate.excess_dual * factor,
        slack=iterate.slack,
        slack_dual=iterate.slack_dual * factor,
    )


def _residuals(program: QuadraticProgram, at: Iterate):
    """Violations of stationarity (in x and e) and of feasibility (of E and of A)."""
    pull = at.slack_dual[0] - at.slack_dual[1]
    slope = program.hessian @ at.x + program.gradient
    stationary = slope - program.equality.T @ at.y - at.z - program.rows.T @ pull
    stationary_excess = program.penalty - at.excess_dual - at.slack_dual.sum(0)
    balance = program.equality @ at.x - program.target
    inside = program.rows @ at.x
    slack = jnp.stack([inside - program.lower, program.upper - inside]) + at.excess
    return stationary, stationary_excess, balance, slack - at.slack


def _relative_residual(program: QuadraticProgram, at: Iterate) -> jax.Array:
    """The largest feasibility violation, relative to the terms that should cancel."""
    _, _, balance, slack = _residuals(program, at)
    size = jnp.abs(program.target) + jnp.abs(program.equality) @ at.x
    worst = jnp.max(jnp.abs(balance) / size)
    reach = 1.0 + jnp.abs(program.upper) + jnp.abs(program.lower)
    return jnp.maximum(worst, jnp.max(jnp.abs(slack) / reach, initial=0.0))


def predictor_corrector(
    direction: Callable[..., At],
    at: At,
    *,
    count: int | jax.Array,
    slow: jax.Array,
    fraction: float,
    least: float | jax.Array = 0.0,
) -> tuple[At, jax.Array]:
    """One step of Mehrotra's method and its length, given the solver of its system.

    The corrector meets the products of the predictor's changes, as if the predictor
    were to be taken whole. Where little of it can be, they may throw the iterate so far
    off the central path that each second step undoes the first, for ever. Scaled by the
    square of the predictor's length they cannot, but cost steps: so only where slow.

    Args:
        direction: Solves Newton's system, `(target, affine) -> change`: the products of
            pairs become `target` less the products of changes in `affine`.
        at: The iterate.
        count: Number of its pairs.
        slow: Whether the steps before have gained little.
        fraction: How much of the way to the boundary the step may go.
        least: Gap below which not to aim where slow.

    Returns:
        The change of the iterate, and how much of it to go.
    """
    affine = direction(0.0, jax.tree.map(jnp.zeros_like, at))
    reach = longest_step(at.pairs, affine.pairs)
    ahead = jax.tree.map(lambda v, dv: v + reach * dv, at, affine)
    target = (ahead.gap / at.gap) ** 3 * at.gap
    target = jnp.where(slow, jnp.maximum(target, least), target) / count
    damping = jnp.where(slow, reach, 1.0)
    step = direction(target, jax.tree.map(lambda dv: damping * dv, affine))
    return step, jnp.minimum(1.0, fraction * longest_step(at.pairs, step.pairs))


def _newton_system(program: QuadraticProgram, at: Iterate, ridge: jax.Array):
    """Factorise the Newton system once; return its solver `(target, affine) -> step`.

    Eliminated in turn: the multipliers of the bounds, the slacks, the excess. What is
    left is `H dx = r + E' dy` with `E dx` given.
    """
    stationary, stationary_excess, balance, slack_gap = _residuals(program, at)
    rate = at.slack_dual / at.slack
    excess_rate = at.excess_dual / at.excess + rate.sum(0)
    tilt = rate[0] - rate[1]
    stiffness = rate.sum(0) - tilt**2 / excess_rate

    rows = program.rows
    hessian = program.hessian + (rows.T * stiffness) @ rows
    diagonal = jnp.diagonal(hessian) + at.z / at.x
    scale = 1.0 / jnp.sqrt(diagonal)
    n = scale.shape[0]
    unit = hessian * scale[:, None] * scale
    unit = jnp.where(jnp.eye(n, dtype=bool), 1.0 + n * ridge, unit)
    factor = jnp.linalg.cholesky(unit, symmetrize_input=False)
    equality = solve_triangular(factor, (program.equality * scale).T, lower=True)
    schur = jnp.linalg.cholesky(equality.T @ equality)

    def direction(target, affine):
        def complementarity(v, dual, dv, ddual):
            return target - v * dual - dv * ddual

        rhs_x, rhs_excess, rhs_slack = (
            complementarity(*pair, *change)
            for pair, change in zip(at.pairs, affine.pairs, strict=True)
        )

        push = (rhs_slack - at.slack_dual * slack_gap) / at.slack
        drive = rhs_excess / at.excess + push.sum(0) - stationary_excess
        force = push[0] - push[1] - tilt * drive / excess_rate
        rhs = -stationary + rhs_x / at.x + rows.T @ force

        half = solve_triangular(factor, rhs * scale, lower=True)
        dy = cho_solve((schur, True), -balance - equality.T @ half)
        dx = scale * solve_triangular(factor.T, half + equality @ dy, lower=False)

        moved = rows @ dx
        dexcess = (drive - tilt * moved) / excess_rate
        dslack = jnp.stack([moved, -moved]) + dexcess + slack_gap
        return Iterate(
            x=dx,
            y=dy,
            z=(rhs_x - at.z * dx) / at.x,
            excess=dexcess,
            excess_dual=(rhs_excess - at.excess_dual * dexcess) / at.excess,
            slack=dslack,
            slack_dual=(rhs_slack - at.slack_dual * dslack) / at.slack,
        )

    return direction


def longest_step(pairs: Pairs, changes: Pairs) -> jax.Array:
    """The longest step, at most one, that keeps every positive part non-negative."""

    def reach(value, change):
        ratio = jnp.where(change < 0.0, -value / change, jnp.inf)
        return jnp.min(ratio, initial=1.0)

    lengths = [
        reach(value, change)
        for values, moves in zip(pairs, changes, strict=True)
        for value, change in zip(values, moves, strict=True)
    ]
    return jnp.min(jnp.stack(lengths))

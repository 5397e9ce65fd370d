r"""Convex programmes of many expiries in calendar order, by an interior-point method.

The unknowns are the time values $y_i$ of each skeleton at the inner kinks. With kinks
`s`, one of them 1, the weights of expiry `i` are the changes of slope

$$
w_i = e + D y_i, \qquad
(D y)_j = \frac{y_{j+1} - y_j}{s_{j+1} - s_j} - \frac{y_j - y_{j-1}}{s_j - s_{j-1}},
$$

where `e` is one at the kink 1 and time values are zero at both ends: mass and mean of
the weights are one, whatever `y` is. The programme is

$$
\min \; \sum_i \tfrac12 w_i^\top P_i w_i + q_i^\top w_i + c_i + \rho_i^\top e_i
\quad \text{subject to} \quad
w_i \ge 0, \quad y_i \ge y_{i-1}, \quad
\ell_i - e_i \le A_i w_i \le u_i + e_i, \quad e_i \ge 0 .
$$

In these unknowns the order of the expiries couples neighbours by a *diagonal* block, so
that Newton's matrix is block tridiagonal and one step costs, for each expiry, one
factorisation, one triangular inverse and its square. The method is Mehrotra's
predictor-corrector, as in `relu_options.fitting.interior_point`. Where no expiry is
coupled, the blocks are factorised side by side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from relu_options.fitting.interior_point import (
    LoopSettings,
    Pairs,
    descend,
    predictor_corrector,
)
from relu_options.surface_law import time_values

COUPLED = LoopSettings(ridge=4e-17, patience=50)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class CalendarProgram:
    """The data of one programme; see the module's formula.

    Attributes:
        kinks: `s`, of shape `(n,)` and increasing; one is 1.
        hessian: `P`, of shape `(N, n, n)`, each positive semidefinite.
        gradient: `q`, of shape `(N, n)`.
        constant: `c`, of shape `(N,)`.
        rows: `A`, in chunks of `m` rows that belong to one expiry, so that one with
            many costs the others nothing; of shape `(C, m, n)`, `C` may be zero.
        owner: The expiry of each chunk, of shape `(C,)`.
        lower: `l`, of shape `(C, m)`.
        upper: `u`, of shape `(C, m)`, above `lower`.
        penalty: `rho`, of shape `(C, m)`, positive.
        coupled: Of shape `(N,)`: whether the expiry must be above the one before it;
            the first is not. None where no expiry is.
    """

    kinks: jax.Array
    hessian: jax.Array
    gradient: jax.Array
    constant: jax.Array
    rows: jax.Array
    owner: jax.Array
    lower: jax.Array
    upper: jax.Array
    penalty: jax.Array
    coupled: jax.Array | None

    @property
    def ordered(self) -> jax.Array:
        """Whether the order binds, of shape `(N, 1)`."""
        if self.coupled is None:
            return jnp.zeros((self.hessian.shape[0], 1), bool)
        return self.coupled[:, None]

    def objective(self, weights: jax.Array, excess: jax.Array) -> jax.Array:
        """Value of the objective, of each expiry."""
        quadratic = 0.5 * jnp.einsum("ij,ijk,ik->i", weights, self.hessian, weights)
        linear = jnp.sum(self.gradient * weights, 1) + self.constant
        return quadratic + linear + self.by_expiry(jnp.sum(self.penalty * excess, 1))

    def by_expiry(self, chunks: jax.Array) -> jax.Array:
        """Sums of what chunks have, of shape `(C, ...)`, over those of each expiry."""
        return jax.ops.segment_sum(
            chunks, self.owner, self.hessian.shape[0], indices_are_sorted=True
        )

    def inside(self, weights: jax.Array) -> jax.Array:
        """`A w`, of shape `(C, m)`."""
        return jnp.einsum("cmj,cj->cm", self.rows, weights[self.owner])


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class CalendarIterate:
    """Unknowns, slacks and multipliers; all but `time_value` are positive.

    Attributes:
        time_value: `y`, of shape `(N, n - 2)`.
        weights: `w`, of shape `(N, n)`.
        weights_dual: Multipliers of `w >= 0`.
        calendar: `y_i - y_{i-1}`, of shape `(N, n - 2)`; one where not coupled.
        calendar_dual: Multipliers of `calendar >= 0`; zero where not coupled.
        excess: `e`, of shape `(C, m)`.
        excess_dual: Multipliers of `e >= 0`.
        slack: How far `A w` is inside lower and upper bounds, of shape `(2, C, m)`.
        slack_dual: Their multipliers.
    """

    time_value: jax.Array
    weights: jax.Array
    weights_dual: jax.Array
    calendar: jax.Array
    calendar_dual: jax.Array
    excess: jax.Array
    excess_dual: jax.Array
    slack: jax.Array
    slack_dual: jax.Array

    @property
    def pairs(self) -> Pairs:
        """Positive parts, each with its multiplier."""
        return (
            (self.weights, self.weights_dual),
            (self.calendar, self.calendar_dual),
            (self.excess, self.excess_dual),
            (self.slack, self.slack_dual),
        )

    @property
    def gap(self) -> jax.Array:
        """Sum of the complementarity products."""
        products = [jnp.sum(value * dual) for value, dual in self.pairs]
        return jnp.sum(jnp.stack(products))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class CalendarSolution:
    """Where the method stopped.

    Attributes:
        iterate: The best iterate.
        objective: Of each expiry, of shape `(N,)`.
        gap: Relative to the objective: the largest of the duality gap, of what the last
            step was to gain by meeting the equations of stationarity, which rounding
            may keep from being met, and of the residual.
        residual: Largest violation of the equations among unknowns and slacks.
        steps: Number of steps taken.
    """

    iterate: CalendarIterate
    objective: jax.Array
    gap: jax.Array
    residual: jax.Array
    steps: jax.Array


def in_order(weights: jax.Array, kinks: jax.Array) -> jax.Array:
    """The least skeletons in order above given ones, as weights of shape `(N, n)`.

    The greatest of convex functions is convex.
    """
    levels = jax.lax.cummax(time_values(weights, kinks), axis=0)
    changes = jnp.where(kinks == 1.0, 1.0, 0.0) + levels @ slope_changes(kinks).T
    return jnp.maximum(changes, 0.0)


def slope_changes(kinks: jax.Array) -> jax.Array:
    """`D`, of shape `(n, n - 2)`."""
    n = kinks.shape[0]
    slopes = jnp.diff(jnp.eye(n)[:, 1:-1], axis=0) / jnp.diff(kinks)[:, None]
    ends = jnp.zeros((1, n - 2))
    return jnp.diff(jnp.concatenate([ends, slopes, ends]), axis=0)


def starting_point(program: CalendarProgram, weights: jax.Array) -> CalendarIterate:
    """A balanced interior point at `weights > 0`, of shape `(N, n)`."""
    y = time_values(weights, program.kinks)
    coupled = program.ordered
    rise = y - _before(y)
    calendar = jnp.where(coupled, jnp.maximum(rise, 1e-3 * y), 1.0)
    slope = jnp.einsum("ijk,ik->ij", program.hessian, weights) + program.gradient
    product = jnp.abs(slope).max(1, keepdims=True) * jnp.mean(weights)
    inside = program.inside(weights)
    excess = jnp.maximum(
        jnp.maximum(program.lower - inside, inside - program.upper), 0.0
    )
    excess = excess + 1.0
    slack = jnp.stack([inside - program.lower, program.upper - inside]) + excess
    dual = jnp.broadcast_to(program.penalty / 4.0, slack.shape)
    return CalendarIterate(
        time_value=y,
        weights=weights,
        weights_dual=product / weights,
        calendar=calendar,
        calendar_dual=jnp.where(coupled, product / calendar, 0.0),
        excess=excess,
        excess_dual=program.penalty / 2.0,
        slack=slack,
        slack_dual=dual,
    )


def solve(
    program: CalendarProgram,
    start: CalendarIterate,
    *,
    tolerance: float | jax.Array,
    max_steps: int = 120,
) -> CalendarSolution:
    """Solve the programme from an interior point.

    Args:
        program: The programme.
        start: Any iterate with positive parts, feasible or not.
        tolerance: Relative duality gap at which to stop.
        max_steps: Steps after which to stop regardless.

    Returns:
        The best iterate and how good it is. Nothing is raised: check `gap`.
    """
    fixed = _Fixed.of(program)

    def measure(iterate, unmoved):
        objective = program.objective(iterate.weights, iterate.excess).sum()
        scale = jnp.maximum(
            jnp.abs(objective), COUPLED.resolution * program.constant.sum()
        )
        gap = jnp.maximum(iterate.gap, unmoved) / scale
        return jnp.maximum(gap, _infeasibility(program, fixed, iterate))

    def advance(before, ridge, slow):
        iterate, unmoved = _next(program, fixed, before, ridge, slow)
        return iterate, measure(iterate, unmoved)

    best, merit, steps = descend(
        advance,
        start,
        gap=lambda at: at.gap,
        settings=COUPLED,
        tolerance=tolerance,
        max_steps=max_steps,
    )
    objective = program.objective(best.weights, best.excess)
    residual = _infeasibility(program, fixed, best)
    return CalendarSolution(best, objective, merit, residual, steps)


def _before(values: jax.Array) -> jax.Array:
    """The row of the expiry before; zeros for the first."""
    return jnp.concatenate([jnp.zeros_like(values[:1]), values[:-1]])


def _after(values: jax.Array) -> jax.Array:
    """The row of the expiry after; zeros for the last."""
    return jnp.concatenate([values[1:], jnp.zeros_like(values[:1])])


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Fixed:
    """What does not change from step to step.

    Attributes:
        bend: `D`, of shape `(n, n - 2)`.
        centre: `e`, of shape `(n,)`.
        hessian: `D' P D`, of shape `(N, n - 2, n - 2)`.
        rows: `A D`, of shape `(C, m, n - 2)`.
    """

    bend: jax.Array
    centre: jax.Array
    hessian: jax.Array
    rows: jax.Array

    @classmethod
    def of(cls, program: CalendarProgram) -> _Fixed:
        bend = slope_changes(program.kinks)
        rows = jnp.einsum("cmj,jk->cmk", program.rows, bend)
        hessian = jnp.einsum("jk,ijl->ikl", bend, program.hessian)
        hessian = jnp.einsum("ikl,lm->ikm", hessian, bend)
        return cls(bend, jnp.where(program.kinks == 1.0, 1.0, 0.0), hessian, rows)


def _residuals(program: CalendarProgram, fixed: _Fixed, at: CalendarIterate):
    """Violations of stationarity (in y and e) and of the slacks' equations."""
    pull = at.slack_dual[0] - at.slack_dual[1]
    slope = jnp.einsum("ijk,ik->ij", program.hessian, at.weights) + program.gradient
    pulled = program.by_expiry(jnp.einsum("cmj,cm->cj", program.rows, pull))
    slope = slope - at.weights_dual - pulled
    stationary = slope @ fixed.bend - at.calendar_dual + _after(at.calendar_dual)
    stationary_excess = program.penalty - at.excess_dual - at.slack_dual.sum(0)
    weights = fixed.centre + at.time_value @ fixed.bend.T - at.weights
    rise = at.time_value - _before(at.time_value) - at.calendar
    calendar = jnp.where(program.ordered, rise, 0.0)
    inside = program.inside(at.weights)
    slack = jnp.stack([inside - program.lower, program.upper - inside]) + at.excess
    return stationary, stationary_excess, weights, calendar, slack - at.slack


def _infeasibility(program, fixed, at: CalendarIterate) -> jax.Array:
    """The largest violation of the slacks' equations, relative to their terms."""
    _, _, weights, calendar, slack = _residuals(program, fixed, at)
    reach = 1.0 + jnp.abs(program.upper) + jnp.abs(program.lower)
    return jnp.maximum(
        jnp.maximum(jnp.max(jnp.abs(weights)), jnp.max(jnp.abs(calendar))),
        jnp.max(jnp.abs(slack) / reach, initial=0.0),
    )


def _next(
    program: CalendarProgram,
    fixed: _Fixed,
    at: CalendarIterate,
    ridge: jax.Array,
    slow: jax.Array,
) -> tuple[CalendarIterate, jax.Array]:
    """The next iterate: one factorisation, two solves.

    Also what the step was to gain by meeting the equations of stationarity, along all
    of its way, whatever part of it is gone.
    """
    coupled = jnp.sum(program.ordered) * at.calendar.shape[1]
    count = at.weights.size + coupled + 3 * at.excess.size
    direction = _newton_system(program, fixed, at, ridge)
    change, length = predictor_corrector(
        direction, at, count=count, slow=slow, fraction=COUPLED.fraction
    )
    moved = jax.tree.map(lambda v, dv: v + length * dv, at, change)
    stationary, *_ = _residuals(program, fixed, at)
    return moved, jnp.abs(jnp.sum(stationary * change.time_value))


class _Factors(NamedTuple):
    """Newton's matrix, factorised, and what was eliminated on the way to it.

    Attributes:
        roots: Of `_inverse_roots`, in scaled time values.
        links: Off the diagonal of that matrix; None where no expiry is coupled.
        scale: Unit of each time value, of shape `(N, n - 2)`.
        rate: Multipliers over slacks, of shape `(2, C, m)`.
        tilt: The first less the second of them, of shape `(C, m)`.
        excess_rate: The same for the excess, with what its slacks add.
    """

    roots: jax.Array
    links: jax.Array | None
    scale: jax.Array
    rate: jax.Array
    tilt: jax.Array
    excess_rate: jax.Array


def _factorise(
    program: CalendarProgram, fixed: _Fixed, at: CalendarIterate, ridge: jax.Array
) -> _Factors:
    """Eliminate multipliers, slacks, excess and weights: time values are left."""
    rate = at.slack_dual / at.slack
    excess_rate = at.excess_dual / at.excess + rate.sum(0)
    tilt = rate[0] - rate[1]
    stiffness = rate.sum(0) - tilt**2 / excess_rate
    link = at.calendar_dual / at.calendar
    # The weights are linear in time values: their barrier adds five diagonals.
    hessian = _add_bands(fixed.hessian, fixed.bend, at.weights_dual / at.weights)
    if program.rows.shape[0]:
        scaled = fixed.rows * stiffness[..., None]
        squares = jnp.einsum("cmk,cml->ckl", fixed.rows, scaled)
        hessian = hessian + program.by_expiry(squares)
    q = hessian.shape[1]
    own = jnp.diagonal(hessian, axis1=1, axis2=2) + link + _after(link)
    scale = 1.0 / jnp.sqrt(own)
    unit = hessian * scale[:, :, None] * scale[:, None, :]
    unit = jnp.where(jnp.eye(q, dtype=bool), 1.0 + q * ridge, unit)
    links = None if program.coupled is None else link * scale * _before(scale)
    roots = _inverse_roots(unit, links)
    return _Factors(roots, links, scale, rate, tilt, excess_rate)


def _newton_system(
    program: CalendarProgram, fixed: _Fixed, at: CalendarIterate, ridge: jax.Array
):
    """Factorise the Newton system once; return its solver `(target, affine) -> step`.

    Eliminated in turn: the multipliers, the slacks, the excess, the weights. What is
    left are the time values, block tridiagonal in the expiries.
    """
    residuals = _residuals(program, fixed, at)
    stationary, stationary_excess, weights_gap, calendar_gap, slack_gap = residuals
    roots, links, scale, rate, tilt, excess_rate = _factorise(program, fixed, at, ridge)

    def direction(target, affine):
        def complementarity(value, dual, dvalue, ddual):
            return target - value * dual - dvalue * ddual

        rhs_weights, rhs_calendar, rhs_excess, rhs_slack = (
            complementarity(*pair, *change)
            for pair, change in zip(at.pairs, affine.pairs, strict=True)
        )
        coupled = program.ordered
        rhs_calendar = jnp.where(coupled, rhs_calendar, 0.0)

        push_weights = (rhs_weights - at.weights_dual * weights_gap) / at.weights
        push_calendar = (rhs_calendar - at.calendar_dual * calendar_gap) / at.calendar
        moved_gap = program.inside(weights_gap)
        signed = jnp.stack([moved_gap, -moved_gap])
        push = (rhs_slack - at.slack_dual * (slack_gap + signed)) / at.slack
        drive = rhs_excess / at.excess + push.sum(0) - stationary_excess
        force = push[0] - push[1] - tilt * drive / excess_rate
        rhs = -stationary + push_weights @ fixed.bend
        rhs = rhs + push_calendar - _after(push_calendar)
        rhs = rhs + program.by_expiry(jnp.einsum("cmk,cm->ck", fixed.rows, force))
        # The weights' own gap moves the quadratic part.
        pulled = jnp.einsum("ijk,ik->ij", program.hessian, weights_gap)
        rhs = rhs - pulled @ fixed.bend

        dy = scale * _substitute(roots, links, rhs * scale)
        dweights = dy @ fixed.bend.T + weights_gap
        dcalendar = jnp.where(coupled, dy - _before(dy) + calendar_gap, 0.0)
        moved = program.inside(dweights)
        dexcess = (
            rhs_excess / at.excess
            + (
                (rhs_slack - at.slack_dual * slack_gap) / at.slack
                - rate * jnp.stack([moved, -moved])
            ).sum(0)
            - stationary_excess
        ) / excess_rate
        dslack = jnp.stack([moved, -moved]) + dexcess + slack_gap
        return CalendarIterate(
            time_value=dy,
            weights=dweights,
            weights_dual=(rhs_weights - at.weights_dual * dweights) / at.weights,
            calendar=dcalendar,
            calendar_dual=(rhs_calendar - at.calendar_dual * dcalendar) / at.calendar,
            excess=dexcess,
            excess_dual=(rhs_excess - at.excess_dual * dexcess) / at.excess,
            slack=dslack,
            slack_dual=(rhs_slack - at.slack_dual * dslack) / at.slack,
        )

    return direction


def _add_bands(matrices: jax.Array, bend: jax.Array, barrier: jax.Array) -> jax.Array:
    """`matrices + D' diag(barrier) D`, of which only five diagonals are not zero."""
    at = jnp.arange(bend.shape[1])
    matrices = matrices.at[:, at, at].add(barrier @ bend**2)
    for order in (1, 2):
        left, right = at[:-order], at[order:]
        band = barrier @ (bend[:, :-order] * bend[:, order:])
        matrices = matrices.at[:, left, right].add(band)
        matrices = matrices.at[:, right, left].add(band)
    return matrices


def _inverse_roots(blocks: jax.Array, links: jax.Array | None) -> jax.Array:
    """Inverse Cholesky factors of a block tridiagonal matrix with diagonal links.

    Blocks have shape `(N, q, q)`; minus `links`, of shape `(N, q)`, stand to the left
    of each, and are None where there are none.
    """
    if links is None:
        return jax.vmap(_inverse_root)(blocks)

    def forward(before, inputs):
        block, link = inputs
        root = _inverse_root(block - link[:, None] * before * link)
        return root.T @ root, root

    nothing = jnp.zeros(blocks.shape[1:])
    _, roots = jax.lax.scan(forward, nothing, (blocks, links))
    return roots


def _inverse_root(block: jax.Array) -> jax.Array:
    """`R` with `R A R' = 1`, lower triangular; by halves, for products are fastest."""
    half = block.shape[0] // 2
    first = _small_inverse_root(block[:half, :half])
    below = block[half:, :half] @ first.T
    second = _small_inverse_root(block[half:, half:] - below @ below.T)
    corner = -(second @ below) @ first
    nothing = jnp.zeros((half, block.shape[0] - half))
    return jnp.block([[first, nothing], [corner, second]])


def _small_inverse_root(block: jax.Array) -> jax.Array:
    """The same in one piece."""
    factor = jnp.linalg.cholesky(block, symmetrize_input=False)
    return solve_triangular(factor, jnp.eye(block.shape[0]), lower=True)


def _substitute(roots: jax.Array, links: jax.Array | None, rhs: jax.Array) -> jax.Array:
    """Solve with the roots of `_inverse_roots`; `rhs` and result of shape `(N, q)`."""
    if links is None:
        return jnp.einsum("ikj,ik->ij", roots, jnp.einsum("ijk,ik->ij", roots, rhs))

    def forward(before, inputs):
        root, link, row = inputs
        half = root @ (row + link * before)
        return root.T @ half, half

    def backward(after, inputs):
        root, link_after, half = inputs
        now = root.T @ (half + root @ (link_after * after))
        return now, now

    zero = jnp.zeros(rhs.shape[1])
    _, half = jax.lax.scan(forward, zero, (roots, links, rhs))
    inputs = (roots, _after(links), half)
    _, full = jax.lax.scan(backward, zero, inputs, reverse=True)
    return full

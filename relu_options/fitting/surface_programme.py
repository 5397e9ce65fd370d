r"""The convex programme of a surface: from the quotes of all expiries to its weights.

Every expiry has the programme of `relu_options.fitting.programme`, on kinks that all
share, and the skeleton of each must not be below the one before it at any kink:

$$
\sum_j w_{ij} (s_j - s_m)^+ \ge \sum_j w_{i-1,j} (s_j - s_m)^+ .
$$

A first solution of every expiry by itself chooses the smoothing; the second couples
them. Of the spreads as bounds only those of the quotes nearest to leaving theirs enter,
`nearest` of each expiry: the others cannot bind unless the solution says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp

from relu_options.fitting.calendar_program import (
    CalendarIterate,
    CalendarProgram,
    CalendarSolution,
    in_order,
    solve,
    starting_point,
)
from relu_options.fitting.grid import KinkGrid, shared_grid
from relu_options.fitting.lent_shape import STRENGTH, lend_shape
from relu_options.fitting.programme import (
    MARGIN,
    PENALTY,
    ROUGH_TOLERANCE,
    NormalisedQuotes,
    Programme,
    assemble,
    fitted_prices,
    heavy_tailed,
    read_smile,
    tilted,
)
from relu_options.fitting.smoothing import choose_smoothing, reference_smoothing

LONGEST = 50.0  # ratio of at-the-money volatilities that bandwidths follow
FRESHNESS = 1e-3  # how far the second solution's start is from the first solution


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SurfaceProgramme:
    """The programmes of all expiries, and what a first solution told of them.

    Attributes:
        grid: The kinks, which all share.
        programmes: Of the expiries, with a leading axis of length `N`.
        gram: `A' A` of each expiry, of shape `(N, n, n)`.
        prior: The quadratic form that `lambda` multiplies: roughness, and how far an
            expiry is from the shape that its neighbours lend it; `(N, n, n)`.
        pull: Its linear part, of shape `(N, n)`.
        offset: Its constant, of shape `(N,)`.
        smoothing: `lambda` of each expiry, of shape `(N,)`.
        weights: Of the first solution, of shape `(N, n)`.
        left: How many quotes of each expiry it is outside of, of shape `(N,)`.
        steps: Interior-point steps of the first solution.
    """

    grid: KinkGrid
    programmes: Programme
    gram: jax.Array
    prior: jax.Array
    pull: jax.Array
    offset: jax.Array
    smoothing: jax.Array
    weights: jax.Array
    left: jax.Array
    steps: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SurfaceSolution:
    """Weights of all expiries and how they were found, in units of the forward.

    Attributes:
        kinks: Of shape `(n,)`.
        bandwidths: Total volatilities, of shape `(n,)`.
        weights: Probabilities, of shape `(N, n)`.
        fitted: Prices fitted to the quotes, of shape `(N, m)`.
        shadow_prices: Multipliers of the order at the inner kinks, `(N, n - 2)`.
        smoothing: `lambda` of each expiry in units of the reference, of shape `(N,)`.
        complete: Whether every quote that is left has its spread among the bounds, so
            that more bounds change nothing.
        objective: Of each expiry, of shape `(N,)`.
        gap: Relative duality gap.
        steps: Interior-point steps, of both solutions.
    """

    kinks: jax.Array
    bandwidths: jax.Array
    weights: jax.Array
    fitted: jax.Array
    shadow_prices: jax.Array
    smoothing: jax.Array
    complete: jax.Array
    objective: jax.Array
    gap: jax.Array
    steps: jax.Array


def fit_apart(
    quotes: NormalisedQuotes,
    smoothing: jax.Array,
    narrowest: jax.Array,
    *,
    n: int,
) -> SurfaceProgramme:
    """Place the kinks, and fit every expiry by itself to choose its smoothing.

    Args:
        quotes: Of all expiries, padded, with a leading axis of length `N`.
        smoothing: `lambda` in units of the reference; NaN to choose it from the data.
        narrowest: Bandwidth at the forward, in at-the-money total volatilities of the
            expiry where that is least.
        n: Number of kinks.

    Returns:
        The programmes and what the first solution told.
    """
    smiles = jax.vmap(read_smile)(quotes)
    at_the_money = jax.vmap(lambda smile: smile.at_the_money)(smiles)
    grid = shared_grid(
        n,
        low=smiles.low.min(),
        high=smiles.high.max(),
        narrowest=narrowest
        * jnp.maximum(at_the_money.min(), at_the_money.max() / LONGEST),
    )
    programmes = jax.vmap(assemble, (0, 0, None))(quotes, smiles, grid)
    count = jnp.sum(quotes.weight > 0.0, axis=1)
    reference = reference_smoothing(count)
    automatic = jnp.isnan(smoothing)
    trial = jnp.where(automatic, 1.0, smoothing) * reference
    gram = jnp.einsum("imj,imk->ijk", programmes.design, programmes.design)
    lent = lend_shape(smiles, grid)
    surface = SurfaceProgramme(
        grid=grid,
        programmes=programmes,
        gram=gram,
        prior=programmes.roughness
        + STRENGTH**2 * jnp.einsum("imj,imk->ijk", lent.rows, lent.rows),
        pull=-(STRENGTH**2) * jnp.einsum("imj,im->ij", lent.rows, lent.data),
        offset=0.5 * STRENGTH**2 * jnp.sum(lent.data**2, axis=1),
        smoothing=trial,
        weights=_spread(grid, at_the_money),
        left=jnp.zeros(count.shape, int),
        steps=jnp.zeros((), int),
    )
    program = _calendar_program(surface, None)
    start = starting_point(program, surface.weights)
    solution = solve(program, start, tolerance=ROUGH_TOLERANCE)
    first = solution.iterate

    def choose(programme, gram, quotes, weights, dual, smoothing, count):
        residual = programme.design @ weights - programme.data
        return choose_smoothing(
            gram=gram,
            roughness=programme.roughness,
            equality=programme.equality,
            weights=weights,
            springs=dual / weights,
            residual=residual,
            count=count,
            smoothing=smoothing,
            has_spreads=jnp.all(jnp.isfinite(quotes.upper) | (quotes.weight == 0.0)),
        )

    chosen = jax.vmap(choose)(
        programmes, gram, quotes, first.weights, first.weights_dual, trial, count
    )
    _, outside = jax.vmap(fitted_prices)(quotes, programmes, first.weights)
    return replace(
        surface,
        smoothing=jnp.where(automatic, chosen, trial),
        weights=first.weights,
        left=jnp.sum(outside, axis=1),
        steps=solution.steps,
    )


def fit_together(
    quotes: NormalisedQuotes,
    surface: SurfaceProgramme,
    weights: jax.Array,
    coupled: jax.Array,
    tolerance: jax.Array,
    *,
    nearest: int,
) -> SurfaceSolution:
    """Fit all expiries in their order, with spreads as elastic bounds.

    Args:
        quotes: As for `fit_apart`.
        surface: Of `fit_apart`.
        weights: A solution to start from, of shape `(N, n)`, which also says which
            quotes are nearest to leaving their spreads.
        coupled: Whether each expiry must be above the one before it, of shape `(N,)`.
        tolerance: Relative duality gap at which to stop.
        nearest: How many spreads of each expiry are bounds; zero for none.

    Returns:
        The solution.
    """
    program, start, bounded = coupled_programme(
        quotes, surface, weights, coupled, nearest
    )
    final = solve(program, start, tolerance=tolerance)
    return _surface_solution(quotes, surface, final, bounded)


def coupled_programme(
    quotes: NormalisedQuotes,
    surface: SurfaceProgramme,
    weights: jax.Array,
    coupled: jax.Array,
    nearest: int,
) -> tuple[CalendarProgram, CalendarIterate, jax.Array]:
    """The programme of `fit_together`, where it starts, and which quotes are bounds."""
    grid, programmes = surface.grid, surface.programmes
    program = _calendar_program(surface, coupled)
    spread = _spread(grid, programmes.at_the_money)
    begin = in_order(weights, grid.moneyness)
    begin = begin + FRESHNESS * (spread - begin)
    if not nearest:
        bounded = jnp.zeros(quotes.weight.shape, bool)
        return program, starting_point(program, begin), bounded
    bounds, bounded = _nearest_bounds(quotes, programmes, weights, nearest)
    program = replace(program, **bounds)
    return program, _warm_start(program, begin), bounded


def _calendar_program(
    surface: SurfaceProgramme, coupled: jax.Array | None
) -> CalendarProgram:
    """The programme without spreads."""
    design, data = surface.programmes.design, surface.programmes.data
    count, _, n = design.shape
    square = surface.smoothing**2
    nothing = jnp.zeros((count, 0))
    return CalendarProgram(
        kinks=surface.grid.moneyness,
        hessian=surface.gram + square[:, None, None] * surface.prior,
        gradient=square[:, None] * surface.pull
        - jnp.einsum("imj,im->ij", design, data),
        constant=0.5 * jnp.sum(data**2, axis=1) + square * surface.offset,
        rows=jnp.zeros((count, 0, n)),
        lower=nothing,
        upper=nothing,
        penalty=nothing,
        coupled=coupled,
    )


def _nearest_bounds(
    quotes: NormalisedQuotes, programmes: Programme, weights: jax.Array, nearest: int
) -> tuple[dict[str, jax.Array], jax.Array]:
    """Elastic rows of the quotes that a solution is nearest to leaving, or outside of.

    Rows are in half-spreads, around the mids; nothing binds the padding. Also which
    quotes they are, of shape `(N, m)`.
    """
    two_sided = jnp.isfinite(quotes.lower) & jnp.isfinite(quotes.upper)
    bounded = (quotes.weight > 0.0) & two_sided
    unit = jnp.where(bounded, 1.0 / jnp.sqrt(quotes.weight), 0.0)
    centre = jnp.where(bounded, quotes.mid / programmes.tolerance, 0.0)
    reach = 0.5 * (quotes.upper - quotes.lower) / programmes.tolerance
    reach = jnp.where(bounded, reach * (1.0 - MARGIN), 1.0)
    fitted = jnp.einsum("imj,ij->im", programmes.design, weights) * unit
    near = jnp.where(bounded, jnp.abs(fitted - centre) - reach, -jnp.inf)
    _, chosen = jax.lax.top_k(near, nearest)

    def take(values):
        return jnp.take_along_axis(values, chosen, axis=1)

    rows = jnp.take_along_axis(programmes.design, chosen[..., None], axis=1)
    centre, reach = take(centre), take(reach)
    bounds = {
        "rows": rows * take(unit)[..., None],
        "lower": centre - reach,
        "upper": centre + reach,
        "penalty": jnp.full(centre.shape, PENALTY),
    }
    least = jnp.min(take(near), axis=1, keepdims=True)
    return bounds, near >= least


def _spread(grid: KinkGrid, at_the_money: jax.Array) -> jax.Array:
    """Weights of a heavy-tailed law for each expiry, of shape `(N, n)`."""

    def one(deviation):
        return tilted(heavy_tailed(grid, deviation), grid.moneyness)

    return jax.vmap(one)(at_the_money)


def _warm_start(program: CalendarProgram, weights: jax.Array) -> CalendarIterate:
    """Near the central path, at weights that nearly solve the programme."""
    start = starting_point(program, weights)
    objective = program.objective(weights, jnp.zeros_like(start.excess)).mean()
    product = 0.1 * objective / weights.shape[1]  # of each unknown and its multiplier
    excess = start.excess - 1.0 + FRESHNESS
    slack = start.slack - 1.0 + FRESHNESS
    slack_dual = jnp.minimum(product / slack, program.penalty / 4.0)
    coupled = program.ordered
    level = FRESHNESS * start.time_value
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


def _surface_solution(
    quotes: NormalisedQuotes,
    surface: SurfaceProgramme,
    final: CalendarSolution,
    bounded: jax.Array,
) -> SurfaceSolution:
    """Settle the last bits of the identities and collect the statistics."""
    programmes, kinks = surface.programmes, surface.grid.moneyness
    weights = jax.vmap(tilted, (0, None))(final.iterate.weights, kinks)
    fitted, outside = jax.vmap(fitted_prices)(quotes, programmes, weights)
    count = jnp.sum(quotes.weight > 0.0, axis=1)
    return SurfaceSolution(
        kinks=kinks,
        bandwidths=surface.grid.bandwidths,
        weights=weights,
        fitted=fitted,
        shadow_prices=final.iterate.calendar_dual,
        smoothing=surface.smoothing / reference_smoothing(count),
        complete=~jnp.any(outside & ~bounded),
        objective=final.objective,
        gap=final.gap,
        steps=surface.steps + final.steps,
    )

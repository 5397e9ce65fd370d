r"""The convex programme of one expiry: from normalised quotes to output weights.

Prices are undiscounted, out of the money and in units of the forward; strikes are
$k = K / F$. With kinks `s`, bandwidths `h` and $A_{ij} = \varphi_{h_j}(s_j, k_i)$ the
weights minimise

$$
\tfrac12 \sum_i \left(\frac{(A w)_i - m_i}{\tau_i}\right)^2
+ \tfrac12 \lambda^2 \|L w\|^2
+ \rho \sum_i \frac{e_i}{\tau_i}
\quad \text{subject to} \quad
w \ge 0, \; \sum_j w_j = 1, \; \sum_j w_j s_j = 1, \;
\text{bid}_i - e_i \le (A w)_i \le \text{ask}_i + e_i .
$$

The tolerance $\tau_i$ of a quote is half of its spread, or of its neighbours' where
that is wider: the spread of a wrong price shrinks with it, and what it costs to leave
it would grow. Of a mid alone it is a hundredth of its vega, so that residuals are those
of the total volatility. Everything here is
pure, to be compiled and `vmap`ped; shapes depend on the number of kinks and on the
padded number of quotes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jax.scipy.stats import norm

from relu_options import black_scholes
from relu_options.fitting.grid import KinkGrid, kink_grid, roughness_matrix
from relu_options.fitting.quadratic_program import (
    Iterate,
    QuadraticProgram,
    Solution,
    no_rows,
    solve,
    starting_point,
)
from relu_options.fitting.smoothing import choose_smoothing, reference_smoothing

NARROWEST = 0.125  # bandwidth at the forward, in at-the-money total volatilities
REACH = 5.0  # kinks reach this many at-the-money total volatilities from the forward
BEYOND = 2.0  # and this many of the outermost quote's beyond that quote
VOLATILITY_UNIT = 0.01  # tolerance of a mid, as a total volatility
LEAST_VEGA = 1e-6
LOCKED = 1e-4  # of that unit: tolerance of a quote whose bid is its ask
FARTHEST_SMILE = 1.35  # ratio of a volatility to its neighbours' that no smile has
ROUGH_TOLERANCE = 1.0  # of the first solution, which only chooses the smoothing
WARMTH = 0.01  # how far a known solution is pushed off its bounds
FRESHNESS = 0.1  # how far the second solution's start is from the first solution
CENTRALITY = 1e-4  # duality gap to start from, relative to the objective there
TOLERANCE = 1e-10
PENALTY = 1e4  # price of leaving a spread, per half-spread
MARGIN = (
    1e-3  # how far inside its spread a fitted price is asked to be, in half-spreads
)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class NormalisedQuotes:
    """Out-of-the-money quotes of one expiry, undiscounted and in units of the forward.

    Attributes:
        log_moneyness: `log(strike / forward)`, of shape `(m,)`.
        mid: Of shape `(m,)`.
        lower: Bids, of shape `(m,)`; minus infinity where only the mid is known.
        upper: Asks, of shape `(m,)`; infinity where only the mid is known.
        half_spread: What each is held to where bid and ask are known, of shape `(m,)`:
            half of its spread, unless those of its neighbours are wider.
        weight: How much each quote counts, of shape `(m,)`; zero for padding.
    """

    log_moneyness: jax.Array
    mid: jax.Array
    lower: jax.Array
    upper: jax.Array
    half_spread: jax.Array
    weight: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Programme:
    """A programme and what it was made from.

    Attributes:
        grid: Kinks and bandwidths.
        design: `A / tau`, of shape `(m, n)`; zero rows for padding.
        data: `mid / tau`, of shape `(m,)`.
        tolerance: `tau`, of shape `(m,)`.
        roughness: `L' L`, of shape `(n, n)`.
        equality: Rows of the identities, `1` and `s - 1` in deviations, `(2, n)`.
        total_volatility: Implied by the mids, of shape `(m,)`; NaN where none.
        at_the_money: Total volatility at the forward.
    """

    grid: KinkGrid
    design: jax.Array
    data: jax.Array
    tolerance: jax.Array
    roughness: jax.Array
    equality: jax.Array
    total_volatility: jax.Array
    at_the_money: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class CurveSolution:
    """Kinks, weights and how they were found, for a forward and a mass of one.

    Attributes:
        kinks: In units of the forward, of shape `(n,)`.
        weights: Probabilities, of shape `(n,)`.
        bandwidths: Total volatilities, of shape `(n,)`.
        fitted: Fitted prices at the quotes, of shape `(m,)`.
        smoothing: `lambda` in units of the reference.
        at_the_money: Total volatility at the forward.
        inside: Whether the fitted prices are inside every spread.
        objective: Of the programme.
        gap: Relative duality gap.
        residual: Largest relative violation of the identities before rounding.
        steps: Interior-point steps, of all solutions.
    """

    kinks: jax.Array
    weights: jax.Array
    bandwidths: jax.Array
    fitted: jax.Array
    smoothing: jax.Array
    at_the_money: jax.Array
    inside: jax.Array
    objective: jax.Array
    gap: jax.Array
    residual: jax.Array
    steps: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Smile:
    """Total volatilities of the quotes of one expiry, joined by straight lines.

    Attributes:
        total_volatility: Implied by the mids, of shape `(m,)`; NaN where none.
        abscissae: Log-moneyness of the quotes that tell one, increasing, then padding.
        ordinates: Their total volatilities, then the last one again.
        first: Log-moneyness of the outermost of these quotes to the left.
        last: The same to the right.
        low: How far kinks should reach to the left, in log-moneyness.
        high: How far to the right.
    """

    total_volatility: jax.Array
    abscissae: jax.Array
    ordinates: jax.Array
    first: jax.Array
    last: jax.Array
    low: jax.Array
    high: jax.Array

    def __call__(self, at: jax.Array) -> jax.Array:
        """Total volatility at points of shape `(k,)`: flat beyond the quotes."""
        after = self._after(at)
        _, _, share = self.between(at)
        first, second = self.ordinates[after - 1], self.ordinates[after]
        return first + share * (second - first)

    def between(self, at: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The quotes left and right of each point, and its share of the way."""
        after = self._after(at)
        left, right = self.abscissae[after - 1], self.abscissae[after]
        return left, right, jnp.clip((at - left) / (right - left), 0.0, 1.0)

    def _after(self, at: jax.Array) -> jax.Array:
        """Which abscissa is the first beyond each point."""
        # A table of comparisons compiles fastest.
        after = jnp.sum(self.abscissae <= at[:, None], axis=1)
        return jnp.clip(after, 1, self.abscissae.shape[0] - 1)

    @property
    def at_the_money(self) -> jax.Array:
        """Total volatility at the forward."""
        return self(jnp.zeros(1))[0]


def read_smile(quotes: NormalisedQuotes) -> Smile:
    """Imply total volatilities, and how far kinks should reach beyond the quotes."""
    x = quotes.log_moneyness
    counted = quotes.weight > 0.0
    total_volatility = black_scholes.implied_total_volatility(
        quotes.mid, 1.0, jnp.exp(x), x >= 0.0
    )
    # The middle of a spread that starts at zero says little about the volatility.
    telling = counted & (total_volatility > 0.0) & (quotes.lower != 0.0)
    telling = telling & jnp.isfinite(total_volatility)

    order = jnp.argsort(jnp.where(telling, x, jnp.inf))
    count = telling.sum()
    last = order[jnp.maximum(count - 1, 0)]
    place = jnp.arange(x.shape[0])
    abscissae = jnp.where(place < count, x[order], x[last] + 1.0 + place)
    ordinates = jnp.where(
        place < count, total_volatility[order], total_volatility[last]
    )
    ordinates = _without_outliers(ordinates, count)
    zero = jnp.zeros(())
    first = jnp.min(jnp.where(telling, x, jnp.inf))
    final = jnp.max(jnp.where(telling, x, -jnp.inf))
    smile = Smile(total_volatility, abscissae, ordinates, first, final, zero, zero)

    at_the_money, at_first, at_last = smile(jnp.stack([zero, first, final]))
    low = jnp.minimum(first - BEYOND * at_first, -REACH * at_the_money)
    high = jnp.maximum(final + BEYOND * at_last, REACH * at_the_money)
    lowest = jnp.min(jnp.where(counted, x, jnp.inf))
    highest = jnp.max(jnp.where(counted, x, -jnp.inf))
    low = jnp.minimum(low, lowest - 0.5 * at_first)
    high = jnp.maximum(high, highest + 0.5 * at_last)
    return replace(smile, low=low, high=high)


def _without_outliers(volatilities: jax.Array, count: jax.Array) -> jax.Array:
    """No volatility far beyond all of its four neighbours: scales are read off them.

    The two outermost have neighbours on one side only, and are believed.
    """
    place = jnp.arange(volatilities.shape[0])
    last = volatilities.shape[0] - 1
    around = jnp.stack(
        [volatilities[jnp.clip(place + step, 0, last)] for step in (-2, -1, 1, 2)]
    )
    inner = (place >= 2) & (place < count - 2)
    low, high = around.min(0) / FARTHEST_SMILE, around.max(0) * FARTHEST_SMILE
    return jnp.where(inner, jnp.clip(volatilities, low, high), volatilities)


def vega(log_moneyness: jax.Array, total_volatility: jax.Array) -> jax.Array:
    """Derivative of a normalised price by its total volatility, nowhere zero."""
    # Where a volatility is not known, or tells no price, a mid is held to next to none.
    value = norm.pdf(log_moneyness / total_volatility - 0.5 * total_volatility)
    return jnp.where(jnp.isfinite(value), jnp.maximum(value, LEAST_VEGA), LEAST_VEGA)


def quote_tolerance(quotes: NormalisedQuotes, vega: jax.Array) -> jax.Array:
    """What each quote is held to: its half-spread, or some volatility for a mid."""
    two_sided = jnp.isfinite(quotes.lower) & jnp.isfinite(quotes.upper)
    # A locked quote is held to a small part of what its volatility is known to.
    least = LOCKED * VOLATILITY_UNIT * vega
    half_spread = jnp.maximum(quotes.half_spread, least)
    return jnp.where(two_sided, half_spread, VOLATILITY_UNIT * vega)


def fitted_prices(
    quotes: NormalisedQuotes, programme: Programme, weights: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Prices fitted to the quotes, zero for padding, and which are outside."""
    counted = quotes.weight > 0.0
    unit = jnp.where(counted, jnp.sqrt(quotes.weight), 1.0)
    fitted = programme.design @ weights * programme.tolerance / unit
    return fitted, counted & ((fitted < quotes.lower) | (fitted > quotes.upper))


def assemble(quotes: NormalisedQuotes, smile: Smile, grid: KinkGrid) -> Programme:
    """Build the matrices of the programme for given kinks."""
    x = quotes.log_moneyness
    moneyness = jnp.exp(x)
    is_call = x >= 0.0
    counted = quotes.weight > 0.0
    total_volatility, at_the_money = smile.total_volatility, smile.at_the_money
    tolerance = quote_tolerance(quotes, vega(x, total_volatility))
    tolerance = jnp.where(counted, tolerance, 1.0)

    unit = jnp.sqrt(quotes.weight) / tolerance
    design = black_scholes.undiscounted_price(
        grid.moneyness, moneyness[:, None], grid.bandwidths, is_call[:, None]
    )
    kinks = grid.log_moneyness
    width = smile(kinks)
    pilot = norm.pdf(kinks / width) * at_the_money / width
    rough = roughness_matrix(grid, scale=at_the_money, pilot=jnp.maximum(pilot, 1e-12))
    return Programme(
        grid=grid,
        design=design * unit[:, None],
        data=quotes.mid * unit,
        tolerance=tolerance,
        roughness=rough.T @ rough,
        # In deviations from the forward: a law that is narrow has kinks all near one,
        # and a row of them would hardly differ from the row of ones.
        equality=jnp.stack([jnp.ones(kinks.shape[0]), jnp.expm1(kinks) / at_the_money]),
        total_volatility=total_volatility,
        at_the_money=at_the_money,
    )


def fit_mids(
    quotes: NormalisedQuotes, smoothing: jax.Array, narrowest: jax.Array, *, n: int
) -> tuple[CurveSolution, Programme]:
    """Fit the middle of the quotes, smoothly.

    Args:
        quotes: The quotes, padded.
        smoothing: `lambda` in units of the reference; NaN to choose it from the data.
        narrowest: Bandwidth at the forward, in at-the-money total volatilities.
        n: Number of kinks.

    Returns:
        The solution and the programme, which `fit_inside` goes on with.
    """
    smile = read_smile(quotes)
    width = narrowest * smile.at_the_money
    grid = kink_grid(n, low=smile.low, high=smile.high, narrowest=width)
    programme = assemble(quotes, smile, grid)
    count = jnp.sum(quotes.weight > 0.0)
    reference = reference_smoothing(count)
    automatic = jnp.isnan(smoothing)
    trial = jnp.where(automatic, 1.0, smoothing) * reference

    gram = programme.design.T @ programme.design
    gradient = -programme.design.T @ programme.data
    spread = heavy_tailed(programme.grid, programme.at_the_money)

    def choose(at: Iterate) -> jax.Array:
        residual = programme.design @ at.x - programme.data
        return choose_smoothing(
            gram=gram,
            roughness=programme.roughness,
            equality=programme.equality,
            weights=at.x,
            springs=at.z / at.x,
            residual=residual,
            count=count,
            smoothing=trial,
            has_spreads=jnp.all(jnp.isfinite(quotes.upper) | (quotes.weight == 0.0)),
        )

    # One loop for both solutions compiles in half of the time that two take.
    def stage(carry, tolerance):
        weights, smoothing = carry
        program = _quadratic_program(programme, gram, gradient, smoothing)
        solution = solve(program, _centred(program, weights), tolerance=tolerance)
        at = solution.iterate
        first = automatic & (tolerance == ROUGH_TOLERANCE)
        chosen = jax.lax.cond(first, choose, lambda _: smoothing, at)
        return (at.x + FRESHNESS * (spread - at.x), chosen), solution

    stages = jnp.array([ROUGH_TOLERANCE, TOLERANCE])
    (_, chosen), solutions = jax.lax.scan(stage, (spread, trial), stages)
    final = jax.tree.map(lambda each: each[-1], solutions)
    steps = solutions.steps.sum()
    solution = _curve_solution(quotes, programme, final, chosen / reference, steps)
    return solution, programme


def fit_inside(
    quotes: NormalisedQuotes, programme: Programme, solution: CurveSolution
) -> CurveSolution:
    """Fit with the spreads as elastic bounds: inside every spread if a curve can be.

    Args:
        quotes: The quotes, padded.
        programme: Of `fit_mids`.
        solution: Of `fit_mids`.

    Returns:
        The solution.
    """
    count = jnp.sum(quotes.weight > 0.0)
    chosen = solution.smoothing * reference_smoothing(count)
    gram = programme.design.T @ programme.design
    gradient = -programme.design.T @ programme.data
    two_sided = jnp.isfinite(quotes.lower) & jnp.isfinite(quotes.upper)
    bounded = (quotes.weight > 0.0) & two_sided
    # Rows in half-spreads, whatever the weights; nothing binds the padding.
    unit = jnp.where(quotes.weight > 0.0, 1.0 / jnp.sqrt(quotes.weight), 0.0)
    rows = jnp.where(bounded[:, None], programme.design * unit[:, None], 0.0)
    centre = jnp.where(bounded, quotes.mid / programme.tolerance, 0.0)
    reach = 0.5 * (quotes.upper - quotes.lower) / programme.tolerance
    reach = jnp.where(bounded, reach * (1.0 - MARGIN), 1.0)
    program = _quadratic_program(programme, gram, gradient, chosen)
    program = replace(
        program,
        rows=rows,
        lower=centre - reach,
        upper=centre + reach,
        penalty=jnp.full(centre.shape, PENALTY),
    )
    spread = heavy_tailed(programme.grid, programme.at_the_money)
    start = _warm_start(program, solution.weights, spread)
    final = solve(program, start, tolerance=TOLERANCE)
    steps = solution.steps + final.steps
    return _curve_solution(quotes, programme, final, solution.smoothing, steps)


def heavy_tailed(grid: KinkGrid, at_the_money: jax.Array) -> jax.Array:
    """Weights of a Cauchy law, from which the programme is started.

    No weight is then many orders of magnitude from its solution in the direction that
    is slow to come back from, which halves the steps.
    """
    deviations = grid.log_moneyness / at_the_money
    weights = grid.bandwidths / (1.0 + deviations**2) / jnp.maximum(1.0, grid.moneyness)
    return weights / weights.sum()


def _centred(program: QuadraticProgram, weights: jax.Array) -> Iterate:
    """A start at the given weights, every product with its multiplier alike."""
    start = starting_point(program, weights)
    gap = CENTRALITY * program.objective(weights, start.excess)
    return replace(start, z=gap / weights.shape[0] / weights)


def _warm_start(
    program: QuadraticProgram, weights: jax.Array, spread: jax.Array
) -> Iterate:
    """Near the central path, at weights that solve the programme without its rows."""
    weights = weights + WARMTH * (spread - weights)
    start = starting_point(program, weights)
    n = weights.shape[0]
    objective = program.objective(weights, jnp.zeros_like(start.excess))
    product = 0.1 * objective / n  # of each unknown and its multiplier
    excess = start.excess - 1.0 + WARMTH
    slack = start.slack - 1.0 + WARMTH
    slack_dual = jnp.minimum(product / slack, program.penalty / 4.0)
    return replace(
        start,
        z=product / weights,
        excess=excess,
        excess_dual=program.penalty - slack_dual.sum(0),
        slack=slack,
        slack_dual=slack_dual,
    )


def _quadratic_program(programme, gram, gradient, smoothing) -> QuadraticProgram:
    """The programme without spreads, at one smoothing."""
    return QuadraticProgram(
        hessian=gram + smoothing**2 * programme.roughness,
        gradient=gradient,
        constant=0.5 * programme.data @ programme.data,
        equality=programme.equality,
        target=jnp.array([1.0, 0.0]),
        **no_rows(gram.shape[0]),
    )


def _curve_solution(
    quotes: NormalisedQuotes,
    programme: Programme,
    final: Solution,
    smoothing: jax.Array,
    steps: jax.Array,
) -> CurveSolution:
    """Settle the last bits of the identities and collect the statistics."""
    kinks = programme.grid.moneyness
    weights = tilted(final.iterate.x, kinks)
    fitted, outside = fitted_prices(quotes, programme, weights)
    return CurveSolution(
        kinks=kinks,
        weights=weights,
        bandwidths=programme.grid.bandwidths,
        fitted=fitted,
        smoothing=smoothing,
        at_the_money=programme.at_the_money,
        inside=~jnp.any(outside),
        objective=final.objective,
        gap=final.gap,
        residual=final.residual,
        steps=steps,
    )


def tilted(weights: jax.Array, kinks: jax.Array) -> jax.Array:
    """Weights times a straight line, so that mass and mean are one up to rounding."""
    beyond = kinks - 1.0  # so that nothing cancels in the determinant
    mass, mean, square = weights.sum(), weights @ beyond, weights @ beyond**2
    determinant = mass * square - mean**2
    level = ((1.0 - mass) * square + mean**2) / determinant
    slope = -mean / determinant
    return weights * (1.0 + level + slope * beyond)

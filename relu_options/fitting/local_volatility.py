r"""Calibrate a local volatility to quotes, through the solves of Dupire's equation.

Expiry by expiry, with the output weights of the one before as the start, the local
volatility is constant in time and $\theta = \log \sigma$ is piecewise linear in
log-moneyness `x`, with nodes at quotes and flat beyond them. Its values at the nodes
minimise

$$
\tfrac12 \sum_i \left(\frac{c_i(\theta) - m_i}{\tau_i}\right)^2
+ \tfrac12 \lambda \int \left(\frac{d^2 \theta}{dz^2}\right)^2 dz
+ \tfrac12 \lambda \sum_j (\theta_j - \theta_j^{\text{before}})^2, \qquad
z = \frac{x}{\sigma_0 \sqrt{T}},
$$

where $c_i$ is the price that the time steps of `relu_options.dupire` give to the quote
of mid price $m_i$, $\sigma_0$ is the at-the-money volatility and
$\theta^{\text{before}}$ what was found for the expiry before, at first $\log
\sigma_0$: where the quotes say little, as between two expiries of one day, the local
volatility stays smooth and what it was. The tolerance $\tau_i$ is half of the spread;
of a mid alone, one basis point of volatility. A bid of zero bounds the price by its ask
only.

Derivatives go through the tridiagonal solves, and the minimum is found by the method of
Levenberg and Marquardt. With one implicit Euler step for each expiry it is the method
of Andreasen and Huge (2011).

References:
    Andreasen, J. and Huge, B. (2011). Volatility interpolation. *Risk*, March, 76-79.
    Marquardt, D. (1963). An algorithm for least-squares estimation of nonlinear
    parameters. *SIAM Journal on Applied Mathematics*, 11(2), 431-441.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from relu_options.arbitrage.surface_certificate import settle_weights
from relu_options.curves import FitReport
from relu_options.dupire import (
    Method,
    check_request,
    evolve,
    spread_kinks,
    time_steps,
)
from relu_options.errors import FitError, QuoteError
from relu_options.fitting.compiled import one_thread
from relu_options.fitting.curve import expiry_labels, shared_quote_time
from relu_options.fitting.kernels import LEAST_VEGA
from relu_options.fitting.surface import prepared_expiries
from relu_options.formulas import black_scholes
from relu_options.formulas.elementwise import Numeric, restorer
from relu_options.market_data import ExpiryQuotes, Quotes, Reading
from relu_options.surfaces import PriceSurface, SurfaceFit


@dataclass(frozen=True)
class Descent:
    """How the local volatilities are found, from a first guess to the last step.

    Attributes:
        reach: Kinks reach this many at-the-money total volatilities from the forward.
        beyond: And this many of the outermost quote's beyond that quote.
        crowded: Of their distance: how near two kinks may be moved to each other.
        volatility_unit: Tolerance of a mid, as an annual volatility: a basis point.
        least_variance: Of the mean total variance per year, in a first guess: quotes
            may rise too little from one expiry to the next.
        bounds: Of local volatilities, at which steps end.
        largest_step: Of a logarithm: none changes by more than a factor of e at once.
        optimality: At which to stop.
        nearly: Optimality from which on to stop when steps gain little.
        slow: Relative decrease of the objective in a step that is little.
        acceptable: Optimality beyond which the fit is none.
        smoothing_of_mids: Where there are no spreads.
        smoothing_of_spreads: Where there are.
    """

    reach: float = 6.0
    beyond: float = 2.0
    crowded: float = 0.2
    volatility_unit: float = 1e-4
    least_variance: float = 0.1
    bounds: tuple[float, float] = (1e-5, 1e3)
    largest_step: float = 1.0
    optimality: float = 1e-5
    nearly: float = 1e-2
    slow: float = 1e-4
    acceptable: float = 0.1
    smoothing_of_mids: float = 1e-4
    smoothing_of_spreads: float = 0.1


DESCENT = Descent()
SIZES = (4, 8, 12, 16, 24, 32, 40, 48, 64, 96, 128, 256, 512, 1024, 2048)  # padded


@dataclass(frozen=True, eq=False)
class LocalVolatilityFit:
    r"""A price surface and the local volatility that it was calibrated by.

    Attributes:
        surface: Prices, volatilities and the quotes; free of static arbitrage.
        local_volatilities: Annualised, at the surface's kinks, of shape `(N, n)`; each
            row holds from the expiry before to its own. `local_volatility_surface` with
            these, and the same method and steps, gives `surface` again.
        nodes: Moneyness of the nodes of each expiry, between which the logarithm of the
            local volatility is linear in log-moneyness.
        method: "rannacher" or "implicit".
        steps: Time steps from today to an expiry.
        smoothing: `lambda` of each expiry, of shape `(N,)`.
        optimality: Of each expiry, the largest gain in the norm of the residuals that
            remains along any one node, relative to that norm or to 1, the larger.

    Examples:
        >>> import relu_options as ro
        >>> fit = ro.fit_local_volatility(ro.bundled_chain(), kinks=201)
        >>> fit.surface.share_inside
        1.0
        >>> round(fit.local_volatility(5000.0, 0.1), 2)
        0.18
    """

    surface: PriceSurface
    local_volatilities: np.ndarray
    nodes: tuple[np.ndarray, ...]
    method: Method
    steps: int
    smoothing: np.ndarray
    optimality: np.ndarray

    def local_volatility(self, strike: Any, time: Any) -> Numeric:
        """The calibrated local volatility, annualised; arguments broadcast.

        Args:
            strike: Currency units.
            time: Years; that of the last expiry holds beyond it.
        """
        surface, rows = self.surface, np.log(self.local_volatilities)
        years = np.asarray(time, float)
        x = np.log(np.asarray(strike, float) / np.asarray(surface.forward(years)))
        interval = np.searchsorted(surface.times, years)
        interval = np.minimum(interval, len(surface.times) - 1)
        x, interval = np.broadcast_arrays(x, interval)
        logs = np.zeros(x.shape)
        for row, values in enumerate(rows):
            logs += (interval == row) * np.interp(x, np.log(surface.kinks), values)
        return restorer((strike,), x.shape)(np.exp(logs).reshape(-1))

    @property
    def quotes(self) -> pd.DataFrame:
        """The fitted quotes of all expiries; see `PriceCurve.quotes`."""
        return self.surface.quotes

    @property
    def volatility_error(self) -> float:
        """Root mean square of fitted minus quoted volatility."""
        return self.surface.volatility_error

    def to_frame(self) -> pd.DataFrame:
        """The nodes.

        Returns:
            One row per expiry and node: `expiry`, `from_time` and `to_time` (years),
            `moneyness`, `strike` (at the forward of the expiry) and `local_volatility`.
        """
        surface = self.surface
        starts = np.concatenate([[0.0], surface.times[:-1]])
        tables = []
        for row, nodes in enumerate(self.nodes):
            at = np.searchsorted(surface.kinks, nodes)
            columns = {
                "expiry": surface.expiries[row],
                "from_time": starts[row],
                "to_time": surface.times[row],
                "moneyness": nodes,
                "strike": nodes * surface.forwards[row],
                "local_volatility": self.local_volatilities[row, at],
            }
            tables.append(pd.DataFrame(columns))
        return pd.concat(tables, ignore_index=True)

    def __repr__(self) -> str:
        values = self.to_frame()["local_volatility"]
        return (
            f"LocalVolatilityFit({len(values)} local volatilities from "
            f"{values.min():.2%} to {values.max():.2%}, {self.method}, "
            f"steps={self.steps}, {self.surface!r})"
        )


def fit_local_volatility(
    quotes: Quotes | ExpiryQuotes | Iterable[Quotes | ExpiryQuotes],
    *,
    kinks: int = 401,
    nodes: int = 64,
    method: Method = "rannacher",
    steps: int = 20,
    smoothing: float | str = "auto",
    max_steps: int = 200,
    **reading: Unpack[Reading],
) -> LocalVolatilityFit:
    """Calibrate a piecewise local volatility to the quotes of several expiries.

    See `relu_options.fitting.local_volatility` for what is minimised. Whatever the
    quotes, the surface is free of static arbitrage: it solves Dupire's equation for a
    positive local volatility. Where quotes are not, as where mids make a butterfly
    cheaper than nothing, the local volatility runs to extremes that keep the
    underlying away, and means nothing there; a larger `smoothing` prevents it, at the
    cost of error elsewhere.

    Args:
        quotes: A chain; or what `read_chain` reads, of several expiries; or the
            prepared quotes of each expiry.
        kinks: Number of kinks. They are densest at the forward, and the ones next to
            the quotes are moved onto them, as far as there are enough.
        nodes: Of one expiry, at most; with fewer quotes there is one node at each.
        method: Of the time steps, as for `local_volatility_surface`; "implicit" with
            `steps=1` is the method of Andreasen and Huge.
        steps: Time steps from today to an expiry; see `relu_options.dupire.time_steps`.
        smoothing: `lambda`; larger is smoother. `"auto"` takes 0.1 for quotes with
            spreads, whose noise is of the order of the tolerance, and 0.0001 for mids,
            which are then met to a small part of a basis point where they can be.
        max_steps: Steps of the minimisation for each expiry, after which to give up.
        **reading: What is known of the quotes, and how to read them, as for
            `read_chain`.

    Returns:
        The surface with its local volatility.

    Raises:
        QuoteError: If no expiry can be used, or two have one time to expiry, or no
            volatility can be implied; the message says why.
        FitError: If the minimum was not reached.
        ValueError: If an argument is out of range.

    Examples:
        >>> import relu_options as ro
        >>> fit = ro.fit_local_volatility(ro.bundled_chain(), kinks=201,
        ...                               method="implicit", steps=1)
        >>> bool(fit.surface.certificate)
        True
    """
    check_request(method, steps)
    _check_counts(kinks=(kinks, 16), nodes=(nodes, 1), max_steps=(max_steps, 1))
    prepared, left_out, spot = prepared_expiries(quotes, **reading)
    smooth = _smoothing(smoothing, prepared)
    smiles = [_Smile.of(one) for one in prepared]
    placed = _kinks(smiles, int(kinks))
    at_nodes = [_nodes(one, placed, int(nodes)) for one in smiles]
    problems = _problems(prepared, smiles, at_nodes, placed, method, steps, smooth)
    level = smiles[0].at_the_money / np.sqrt(prepared[0].time_to_expiry)
    with one_thread():
        solution = _calibrate(placed, problems, level, int(max_steps))
    count = len(prepared)
    solution = jax.tree.map(lambda each: np.asarray(each)[:count], solution)
    for quoted, optimality, taken in zip(
        prepared, solution.optimality, solution.steps, strict=True
    ):
        if not optimality <= DESCENT.acceptable:
            raise FitError(
                f"{quoted}: optimality {optimality:.1e} after {taken} steps, above the "
                f"tolerance of {DESCENT.acceptable:.0e}; raise `smoothing` or "
                "`max_steps`"
            )
    return LocalVolatilityFit(
        surface=_surface(prepared, left_out, spot, placed, solution, smooth),
        local_volatilities=solution.volatilities,
        nodes=tuple(placed[one] for one in at_nodes),
        method=method,
        steps=int(steps),
        smoothing=smooth,
        optimality=solution.optimality,
    )


def _check_counts(**counts: tuple[int, int]) -> None:
    """Raise unless each is a whole number, and at least its second number."""
    for name, (value, least) in counts.items():
        if not isinstance(value, int | np.integer) or value < least:
            raise ValueError(
                f"{name} must be a whole number from {least} on, not {value!r}"
            )


def _smoothing(asked: float | str, prepared: list[ExpiryQuotes]) -> np.ndarray:
    """`lambda` of each expiry."""
    if asked == "auto":
        spreads = [one.has_spreads for one in prepared]
        return np.where(
            spreads, DESCENT.smoothing_of_spreads, DESCENT.smoothing_of_mids
        )
    if isinstance(asked, str) or not 0.0 <= asked < np.inf:
        raise ValueError(f"smoothing must be 'auto' or >= 0, not {asked!r}")
    return np.full(len(prepared), float(asked))


# From quotes to arrays


@dataclass(frozen=True, eq=False)
class _Smile:
    """Quotes of one expiry by log-moneyness, and the volatilities that they imply.

    Attributes:
        x: Log-moneyness, increasing, of shape `(q,)`.
        order: Which quote each is, of shape `(q,)`.
        total_volatility: Of shape `(q,)`; NaN where none is implied.
        telling: Where the mid says something about the volatility, of shape `(q,)`.
    """

    x: np.ndarray
    order: np.ndarray
    total_volatility: np.ndarray
    telling: np.ndarray

    @staticmethod
    def of(quotes: ExpiryQuotes) -> _Smile:
        """Imply the volatilities.

        Raises:
            QuoteError: If there are none.
        """
        order = np.argsort(quotes.strike)
        x = np.log(quotes.strike[order] / quotes.forward)
        volatility = black_scholes.implied_volatility(
            price=quotes.mid[order],
            forward=quotes.forward,
            discount_factor=quotes.discount_factor,
            strike=quotes.strike[order],
            time_to_expiry=quotes.time_to_expiry,
            is_call=quotes.is_call[order],
        )
        total = np.asarray(volatility) * np.sqrt(quotes.time_to_expiry)
        telling = np.isfinite(total) & (total > 0.0) & (quotes.bid[order] != 0.0)
        if not telling.any():
            raise QuoteError(
                f"{quotes}: no quote has a bid and a time value, so no volatility can "
                "be implied; check prices, forward and discount factor"
            )
        return _Smile(x, order, total, telling)

    def __call__(self, x: np.ndarray | float) -> np.ndarray:
        """Total volatility: straight between the quotes, flat beyond them."""
        telling = self.telling
        values = np.interp(x, self.x[telling], self.total_volatility[telling])
        return np.asarray(values)

    @cached_property
    def at_the_money(self) -> float:
        """Total volatility at the forward."""
        return float(self(0.0))

    @property
    def reach(self) -> tuple[float, float]:
        """How far kinks should reach, in log-moneyness."""
        first, last = self.x[0], self.x[-1]
        reach = DESCENT.reach * self.at_the_money
        low = min(first - DESCENT.beyond * self(first), -reach)
        high = max(last + DESCENT.beyond * self(last), reach)
        return float(low), float(high)


def _kinks(smiles: list[_Smile], n: int) -> np.ndarray:
    """Kinks for all expiries, the nearest to each quote moved onto it."""
    low = min(one.reach[0] for one in smiles)
    high = max(one.reach[1] for one in smiles)
    narrowest = min(one.at_the_money for one in smiles)
    grid = np.log(spread_kinks(n, low=low, high=high, narrowest=narrowest))
    wanted = np.unique(np.concatenate([one.x for one in smiles]))
    middles = 0.5 * (grid[1:] + grid[:-1])
    nearest = np.searchsorted(middles, wanted)
    distance = np.abs(grid[nearest] - wanted)
    moved = grid.copy()
    fixed = {0, n - 1, int(np.flatnonzero(grid == 0.0)[0])}
    for at in np.argsort(distance, kind="stable"):
        place = int(nearest[at])
        if place in fixed:
            continue
        room = DESCENT.crowded * np.diff(grid[place - 1 : place + 2])
        gaps = wanted[at] - moved[place - 1], moved[place + 1] - wanted[at]
        if gaps[0] >= room[0] and gaps[1] >= room[1]:
            moved[place] = wanted[at]
            fixed.add(place)
    placed = np.exp(moved)
    placed[grid == 0.0] = 1.0
    return placed


def _nodes(smile: _Smile, kinks: np.ndarray, most: int) -> np.ndarray:
    """Which kinks are nodes: the nearest to each quote, or to every so many quotes."""
    x = np.log(kinks)
    nearest = np.unique(np.searchsorted(0.5 * (x[1:] + x[:-1]), smile.x))
    if nearest.size <= most:
        return nearest
    return nearest[np.linspace(0, nearest.size - 1, most).round().astype(int)]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Problem:
    """The least squares of one expiry; of all, with a first axis more.

    Attributes:
        moneyness: Of the quotes, of shape `(q,)`.
        low, high: Between which a price is met, `(q,)`: out of the money, undiscounted,
            over the forward. Both are the mid, but for a bid of zero, whose mid says
            nothing: zero and the ask.
        tolerance: Of the same unit, `(q,)`; infinite for padding.
        places: Which kinks are nodes, `(m,)`.
        interpolation: From nodes to kinks, `(n, m)`; zero for padding.
        roughness: A root of `lambda` times the integral, `(m, m)`.
        tie: A root of `lambda`, `(m,)`; zero for padding.
        guess: Logarithms of local volatilities at the nodes, `(m,)`.
        durations, implicit: Time steps, `(s,)`; padded with steps of zero.
    """

    moneyness: np.ndarray
    low: np.ndarray
    high: np.ndarray
    tolerance: np.ndarray
    places: np.ndarray
    interpolation: np.ndarray
    roughness: np.ndarray
    tie: np.ndarray
    guess: np.ndarray
    durations: np.ndarray
    implicit: np.ndarray


def _problems(
    prepared: list[ExpiryQuotes],
    smiles: list[_Smile],
    nodes: list[np.ndarray],
    kinks: np.ndarray,
    method: Method,
    steps: int,
    smoothing: np.ndarray,
) -> _Problem:
    """The problems of all expiries, padded to one size and stacked."""
    times = np.array([one.time_to_expiry for one in prepared])
    plan = time_steps(times, method=method, steps=steps)
    x = np.log(kinks)
    rows = []
    for place, smile in enumerate(smiles):
        quotes, at, root = prepared[place], nodes[place], np.sqrt(smoothing[place])
        before = None if place == 0 else (times[place - 1], smiles[place - 1])
        step = slice(*np.searchsorted(plan.interval, [place, place + 1]))
        free = quotes.bid == 0.0
        low, high = np.where(free, [quotes.bid, quotes.ask], quotes.mid) / (
            quotes.discount_factor * quotes.forward
        )
        rows.append(
            _Problem(
                moneyness=np.exp(smile.x),
                low=low[smile.order],
                high=high[smile.order],
                tolerance=_tolerance(quotes, smile),
                places=at,
                interpolation=np.stack(
                    [np.interp(x, x[at], row) for row in np.eye(at.size)], axis=1
                ),
                roughness=root * _roughness(x[at] / smile.at_the_money),
                tie=np.full(at.size, root),
                guess=_guess(times[place], smile, before, x[at]),
                durations=plan.durations[step],
                implicit=plan.implicit[step],
            )
        )
    filling = 1.0, 0.0, 0.0, np.inf, 0, 0.0, 0.0, 0.0, 0.0, 0.0, True
    columns = zip(*map(jax.tree.leaves, rows), strict=True)
    return _Problem(
        *(
            _stacked(one, value, keep=kinks.size)
            for one, value in zip(columns, filling, strict=True)
        )
    )


def _stacked(arrays: Sequence[np.ndarray], filling: float, *, keep: int) -> np.ndarray:
    """Arrays padded at their ends to one shape of `SIZES`, and stacked likewise.

    A length of `keep`, the number of kinks, is left.
    """
    shape = [
        size if size == keep else next((one for one in SIZES if one >= size), size)
        for size in (len(arrays), *np.max([one.shape for one in arrays], axis=0))
    ]
    stacked = np.full(shape, filling, dtype=arrays[0].dtype)
    for row, one in enumerate(arrays):
        stacked[(row, *map(slice, one.shape))] = one
    return stacked


def _tolerance(quotes: ExpiryQuotes, smile: _Smile) -> np.ndarray:
    """What a price may miss, over the forward: half a spread, or a basis point."""
    total = smile.total_volatility
    deviation = smile.x / total - 0.5 * total
    vega = np.exp(-0.5 * deviation**2) / np.sqrt(2.0 * np.pi)
    vega = np.where(vega > LEAST_VEGA, vega, LEAST_VEGA)
    least = DESCENT.volatility_unit * np.sqrt(quotes.time_to_expiry) * vega
    if not quotes.has_spreads:
        return least
    half = 0.5 * (quotes.ask - quotes.bid)[smile.order]
    # A locked quote is held to a small part of what its volatility is known to.
    return np.maximum(half / (quotes.discount_factor * quotes.forward), 0.01 * least)


def _guess(
    time: float,
    smile: _Smile,
    before: tuple[float, _Smile] | None,
    x: np.ndarray,
) -> np.ndarray:
    """Logarithm of the forward volatility at fixed moneyness."""
    variance, years = smile(x) ** 2, time
    least = DESCENT.least_variance * variance / time
    if before is not None:
        variance = variance - before[1](x) ** 2
        years = time - before[0]
    return 0.5 * np.log(np.maximum(variance / years, least))


def _roughness(z: np.ndarray) -> np.ndarray:
    """A square matrix whose square is the integral of a squared second derivative."""
    size = z.size
    if size < 3:
        return np.zeros((size, size))
    slopes = np.diff(np.eye(size), axis=0) / np.diff(z)[:, None]
    width = 0.5 * (z[2:] - z[:-2])
    bends = np.diff(slopes, axis=0) / np.sqrt(width)[:, None]
    return np.pad(bends, ((1, 1), (0, 0)))


# The calibration


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Solution:
    """Of every expiry: weights, local volatilities at the kinks, and how found."""

    weights: jax.Array
    volatilities: jax.Array
    objective: jax.Array
    optimality: jax.Array
    steps: jax.Array


@jax.jit
def _calibrate(kinks, problems: _Problem, level, max_steps) -> _Solution:
    """Expiry by expiry, each from what was found for the one before.

    The first is tied to the volatility `level`.
    """
    kinks = jnp.asarray(kinks)

    def expiry(before, problem):
        weights, volatility = before
        theta = jnp.log(volatility[problem.places])
        residuals = partial(_residuals, kinks, weights, problem, theta)
        theta, reached, steps = _levenberg_marquardt(
            residuals, problem.guess, max_steps
        )
        solution = _Solution(
            weights=reached.weights,
            volatilities=_volatility(problem, theta),
            objective=reached.objective,
            optimality=reached.optimality,
            steps=steps,
        )
        return (solution.weights, solution.volatilities), solution

    start = jnp.where(kinks == 1.0, 1.0, 0.0), jnp.full(kinks.size, level)
    return jax.lax.scan(expiry, start, problems)[1]


def _volatility(problem: _Problem, theta: jax.Array) -> jax.Array:
    """Local volatility at the kinks."""
    return jnp.exp(problem.interpolation @ theta)


def _weights(
    kinks: jax.Array, start: jax.Array, problem: _Problem, volatility: jax.Array
) -> jax.Array:
    """Output weights at the expiry."""
    shape = problem.durations.shape + kinks.shape
    variance = jnp.broadcast_to((volatility * kinks) ** 2, shape)
    return evolve(kinks, start, variance, problem.durations, problem.implicit).weights[
        -1
    ]


def _residuals(
    kinks: jax.Array,
    start: jax.Array,
    problem: _Problem,
    before: jax.Array,
    theta: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """What is squared and added, of shape `(q + 2 m,)`, and the output weights."""
    weights = _weights(kinks, start, problem, _volatility(problem, theta))
    strike = problem.moneyness[:, None]
    gain = jnp.where(strike >= 1.0, kinks - strike, strike - kinks)
    fitted = jnp.maximum(gain, 0.0) @ weights
    errors = fitted - jnp.clip(fitted, problem.low, problem.high)
    tied = problem.tie * (theta - before)
    errors = errors / problem.tolerance
    return jnp.concatenate([errors, problem.roughness @ theta, tied]), weights


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Model:
    """The least squares linearised.

    Attributes:
        objective: Half of the sum of squares.
        gradient: Of shape `(m,)`; zero where a value at a bound would leave it.
        square: The Gauss-Newton matrix, of shape `(m, m)`, with zero rows there.
        optimality: See `LocalVolatilityFit`.
        weights: Output weights, of shape `(n,)`.
    """

    objective: jax.Array
    gradient: jax.Array
    square: jax.Array
    optimality: jax.Array
    weights: jax.Array


def _levenberg_marquardt(
    residuals: Callable, start: jax.Array, max_steps: jax.Array
) -> tuple[jax.Array, _Model, jax.Array]:
    """Minimise half of the sum of squares: where, the model there, number of steps."""
    low, high = np.log(DESCENT.bounds)

    def valued(theta):
        value, weights = residuals(theta)
        return value, (value, weights)

    def linearised(theta):
        jacobian, (value, weights) = jax.jacfwd(valued, has_aux=True)(theta)
        gradient = jacobian.T @ value
        held = (theta <= low) & (gradient > 0.0) | (theta >= high) & (gradient < 0.0)
        jacobian = jnp.where(held, 0.0, jacobian)
        gradient = jnp.where(held, 0.0, gradient)
        square = jacobian.T @ jacobian
        scale = jnp.sqrt(jnp.diag(square))
        gain = jnp.abs(gradient) / jnp.where(scale > 0.0, scale, jnp.inf)
        norm = jnp.maximum(jnp.sqrt(value @ value), 1.0)
        optimality = jnp.max(gain) / norm
        return _Model(0.5 * value @ value, gradient, square, optimality, weights)

    def unfinished(state):
        _, model, damping, decrease, steps = state
        far = (model.optimality > DESCENT.nearly) | (decrease > DESCENT.slow)
        moving = (model.optimality > DESCENT.optimality) & far & (damping < 1e12)
        return moving & (steps <= max_steps)

    def improve(state):
        theta, model, damping, decrease, steps = state
        scale = jnp.diag(model.square)
        ridge = damping * scale + jnp.where(scale > 0.0, 0.0, 1.0)
        factor = jax.scipy.linalg.cho_factor(model.square + jnp.diag(ridge))
        step = -jax.scipy.linalg.cho_solve(factor, model.gradient)
        longest = jnp.maximum(jnp.max(jnp.abs(step)), DESCENT.largest_step)
        trial = jnp.clip(theta + step * DESCENT.largest_step / longest, low, high)
        value, _ = residuals(trial)
        gained = 1.0 - 0.5 * value @ value / model.objective
        better = gained > 0.0
        decrease = jnp.where(better, gained, decrease)
        theta = jnp.where(better, trial, theta)
        model = jax.lax.cond(better, linearised, lambda _: model, theta)
        damping = jnp.where(better, 0.1 * damping, 10.0 * damping)
        return theta, model, damping, decrease, steps + 1

    # A first step of zero from an infinite objective takes the model at the start.
    shapes = jax.eval_shape(linearised, start)
    nothing = jax.tree.map(lambda one: jnp.zeros(one.shape), shapes)
    infinite = jnp.asarray(jnp.inf)
    model = replace(nothing, objective=infinite, optimality=infinite)
    state = start, model, jnp.asarray(1e-2), infinite, jnp.asarray(0)
    theta, model, _, _, steps = jax.lax.while_loop(unfinished, improve, state)
    return theta, model, steps - 1


def _surface(
    prepared: list[ExpiryQuotes],
    left_out: tuple[tuple[str, str], ...],
    spot: float | None,
    kinks: np.ndarray,
    solution: _Solution,
    smoothing: np.ndarray,
) -> PriceSurface:
    """The surface, with how it was fitted."""
    curves = tuple(
        FitReport(
            quotes=one,
            smoothing=float(smooth),
            steps=int(steps),
            gap=float(optimality),
            objective=float(objective),
        )
        for one, smooth, steps, optimality, objective in zip(
            prepared,
            smoothing,
            solution.steps,
            solution.optimality,
            solution.objective,
            strict=True,
        )
    )
    columns = ["earlier", "later", "strike", "shadow_price", "pair_total"]
    return PriceSurface(
        kinks=kinks,
        weights=settle_weights(np.asarray(solution.weights), kinks),
        bandwidths=np.zeros(kinks.size),
        times=np.array([one.time_to_expiry for one in prepared]),
        forwards=np.array([one.forward for one in prepared]),
        discount_factors=np.array([one.discount_factor for one in prepared]),
        expiries=expiry_labels(prepared),
        spot=spot,
        quote_time=shared_quote_time(prepared),
        fit=SurfaceFit(
            curves=curves,
            steps=int(np.sum(solution.steps)),
            gap=float(np.max(solution.optimality)),
            _conflicts=pd.DataFrame(columns=columns),
            left_out=left_out,
        ),
    )

r"""Calibrate a local volatility to quotes, through the solves of Dupire's equation.

Expiry by expiry, with the output weights of the one before as the start, the local
volatility is constant in time and $\log \sigma$ is piecewise linear in log-moneyness
`x`, with a node at each quote and flat beyond them. Its values $\theta$ at the nodes
minimise

$$
\tfrac12 \sum_i \left(\frac{c_i(\theta) - m_i}{\tau_i}\right)^2
+ \tfrac12 \lambda \int \left(\frac{d^2 \theta}{dz^2}\right)^2 dz, \qquad
z = \frac{x}{\sigma_0 \sqrt{T}},
$$

where $c_i$ is the price that the time steps of `relu_options.dupire` give to the quote
of mid price $m_i$, and $\sigma_0$ the at-the-money volatility. The tolerance $\tau_i$
is half of the spread; of a mid alone, one basis point of volatility. Derivatives go
through the tridiagonal solves, and the minimum is found by the method of Levenberg and
Marquardt. With one implicit Euler step for each expiry it is the method of Andreasen
and Huge (2011).

References:
    Andreasen, J. and Huge, B. (2011). Volatility interpolation. *Risk*, March, 76-79.
    Marquardt, D. (1963). An algorithm for least-squares estimation of nonlinear
    parameters. *SIAM Journal on Applied Mathematics*, 11(2), 431-441.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, partial

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from relu_options import black_scholes
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
from relu_options.fitting.curve import least_error, one_thread
from relu_options.fitting.surface import _labels, _prepared
from relu_options.market_data import ExpiryQuotes, OptionChain
from relu_options.surfaces import PriceSurface, SurfaceFit

REACH = 6.0  # kinks reach this many at-the-money total volatilities from the forward
BEYOND = 2.0  # and this many of the outermost quote's beyond that quote
CROWDED = 0.2  # of their distance: how near two kinks may be moved to each other
VOLATILITY_UNIT = 1e-4  # tolerance of a mid, as an annual volatility
LEAST_VEGA = 1e-6
LEAST_VARIANCE = 0.1  # of the mean total variance per year: of a first guess
BOUNDS = 1e-4, 20.0  # of local volatilities
LARGEST_STEP = 1.0  # of a logarithm
OPTIMALITY = 1e-5
ACCEPTABLE = 1e-2
SIZES = (8, 16, 32, 64, 128, 256, 512, 1024, 2048)  # padded numbers of quotes


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
        smoothing: `lambda`.
        optimality: Of each expiry, the largest gain in the norm of the residuals that
            remains along any one node, relative to that norm or to 1, the larger.

    Examples:
        >>> import relu_options as ro
        >>> fit = ro.fit_local_volatility(ro.bundled_chain(), kinks=201)
        >>> fit.surface.share_inside
        1.0
        >>> round(fit.local_volatility(5000.0, 0.1), 2)
        0.17
    """

    surface: PriceSurface
    local_volatilities: np.ndarray
    nodes: tuple[np.ndarray, ...]
    method: Method
    steps: int
    smoothing: float
    optimality: np.ndarray

    def local_volatility(self, strike, time):
        """The calibrated local volatility at strikes in currency and times in years.

        That of the first expiry from today, and of the last beyond it.
        """
        surface = self.surface
        strike, time = np.asarray(strike, float), np.asarray(time, float)
        x = np.log(strike / np.asarray(surface.forward(time)))
        interval = np.searchsorted(surface.times, time)
        interval = np.minimum(interval, len(surface.times) - 1)
        x, interval = np.broadcast_arrays(x, interval)
        logs = np.empty(x.shape)
        for row, volatility in enumerate(self.local_volatilities):
            at = interval == row
            kinks = np.log(surface.kinks)
            logs[at] = np.interp(x[at], kinks, np.log(volatility))
        return float(np.exp(logs)) if logs.ndim == 0 else np.exp(logs)

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
            time = surface.times[row]
            at = np.searchsorted(surface.kinks, nodes)
            tables.append(
                pd.DataFrame(
                    {
                        "expiry": surface.expiries[row],
                        "from_time": starts[row],
                        "to_time": time,
                        "moneyness": nodes,
                        "strike": nodes * surface.forwards[row],
                        "local_volatility": self.local_volatilities[row, at],
                    }
                )
            )
        return pd.concat(tables, ignore_index=True)

    def __repr__(self) -> str:
        nodes = np.concatenate(
            [
                row[np.searchsorted(self.surface.kinks, one)]
                for row, one in zip(self.local_volatilities, self.nodes, strict=True)
            ]
        )
        return (
            f"LocalVolatilityFit({nodes.size} local volatilities from "
            f"{nodes.min():.2%} to {nodes.max():.2%}, {self.method}, "
            f"steps={self.steps}, {self.surface!r})"
        )


def fit_local_volatility(
    quotes: OptionChain | pd.DataFrame | Iterable[ExpiryQuotes | OptionChain],
    *,
    quote_time: object = None,
    kinks: int = 401,
    method: Method = "rannacher",
    steps: int = 20,
    smoothing: float = 1e-3,
    max_steps: int = 100,
) -> LocalVolatilityFit:
    """Calibrate a piecewise local volatility to the quotes of several expiries.

    See `relu_options.fitting.local_volatility` for what is minimised. Whatever the
    quotes, the surface is free of static arbitrage: it solves Dupire's equation for a
    positive local volatility.

    Args:
        quotes: A chain; or a table with several expiries that `read_chain` reads; or
            the prepared quotes of each expiry.
        quote_time: When the quotes were taken, for a table that does not say.
        kinks: Number of kinks. They are densest at the forward, and the ones next to
            the quotes are moved onto them, as far as there are enough.
        method: Of the time steps, as for `local_volatility_surface`; "implicit" with
            `steps=1` is the method of Andreasen and Huge.
        steps: Time steps from today to an expiry; see `relu_options.dupire.time_steps`.
        smoothing: `lambda`; larger is smoother.
        max_steps: Steps of the minimisation for each expiry, after which to give up.

    Returns:
        The surface with its local volatility.

    Raises:
        QuoteError: If no expiry can be used, or two have one time to expiry, or no
            volatility can be implied; the message says why.
        FitError: If `max_steps` were not enough.
        ValueError: If an argument is out of range.

    Examples:
        >>> import relu_options as ro
        >>> fit = ro.fit_local_volatility(ro.bundled_chain(), kinks=201,
        ...                               method="implicit", steps=1)
        >>> bool(fit.surface.certificate)
        True
    """
    check_request(method, steps)
    if not isinstance(kinks, int | np.integer) or kinks < 16:
        raise ValueError(f"kinks must be a whole number from 16 on, not {kinks!r}")
    if not 0.0 <= smoothing < np.inf:
        raise ValueError(f"smoothing must be finite and >= 0, not {smoothing!r}")
    if not isinstance(max_steps, int | np.integer) or max_steps < 1:
        raise ValueError(f"max_steps must be a whole number from 1, not {max_steps!r}")
    prepared, left_out, spot = _prepared(quotes, quote_time)
    smiles = [_Smile.of(one) for one in prepared]
    placed = _kinks(smiles, int(kinks))
    nodes = [_nodes(one, placed) for one in smiles]
    problems = _problems(prepared, smiles, nodes, placed, method, steps, smoothing)
    with one_thread():
        solution = jax.tree.map(np.asarray, _calibrate(placed, problems, max_steps))
    for one, optimality, taken in zip(
        prepared, solution.optimality, solution.steps, strict=True
    ):
        if not optimality <= ACCEPTABLE:
            raise FitError(
                f"{one}: optimality {optimality:.1e} after {taken} steps, above the "
                f"tolerance of {ACCEPTABLE:.0e}; raise `smoothing` or `max_steps`"
            )
    surface = _surface(prepared, left_out, spot, placed, solution, smoothing)
    return LocalVolatilityFit(
        surface=surface,
        local_volatilities=solution.volatilities,
        nodes=tuple(placed[one] for one in nodes),
        method=method,
        steps=int(steps),
        smoothing=float(smoothing),
        optimality=solution.optimality,
    )


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
        return np.interp(x, self.x[telling], self.total_volatility[telling])

    @cached_property
    def at_the_money(self) -> float:
        """Total volatility at the forward."""
        return float(self(0.0))

    @property
    def reach(self) -> tuple[float, float]:
        """How far kinks should reach, in log-moneyness."""
        first, last = self.x[0], self.x[-1]
        low = min(first - BEYOND * self(first), -REACH * self.at_the_money)
        high = max(last + BEYOND * self(last), REACH * self.at_the_money)
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
        room = CROWDED * np.diff(grid[place - 1 : place + 2])
        gaps = wanted[at] - moved[place - 1], moved[place + 1] - wanted[at]
        if gaps[0] >= room[0] and gaps[1] >= room[1]:
            moved[place] = wanted[at]
            fixed.add(place)
    placed = np.exp(moved)
    placed[grid == 0.0] = 1.0
    return placed


def _nodes(smile: _Smile, kinks: np.ndarray) -> np.ndarray:
    """Which kinks are nodes: the nearest to each quote."""
    x = np.log(kinks)
    return np.unique(np.searchsorted(0.5 * (x[1:] + x[:-1]), smile.x))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Problem:
    """The least squares of one expiry; of all, with a first axis more.

    Attributes:
        moneyness: Of the quotes, of shape `(q,)`.
        mid: Out-of-the-money prices, undiscounted, over the forward; `(q,)`.
        tolerance: Of the same unit, `(q,)`; infinite for padding.
        interpolation: From nodes to kinks, `(n, m)`.
        roughness: A root of `lambda` times the integral, `(m, m)`.
        guess: Logarithms of local volatilities at the nodes, `(m,)`.
        durations, implicit: Time steps, `(s,)`; padded with steps of zero.
    """

    moneyness: np.ndarray
    mid: np.ndarray
    tolerance: np.ndarray
    interpolation: np.ndarray
    roughness: np.ndarray
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
    smoothing: float,
) -> _Problem:
    """The problems of all expiries, stacked."""
    largest = max(len(one) for one in prepared)
    size = next((one for one in SIZES if one >= largest), largest)
    times = np.array([one.time_to_expiry for one in prepared])
    plan = time_steps(times, method=method, steps=steps)
    counts = np.bincount(plan.interval)
    x = np.log(kinks)
    rows = []
    for place, (quotes, smile, at) in enumerate(
        zip(prepared, smiles, nodes, strict=True)
    ):
        count, unit = len(quotes), quotes.discount_factor * quotes.forward
        mid = quotes.mid[smile.order] / unit
        deviation = smile.x / smile.total_volatility - 0.5 * smile.total_volatility
        vega = np.exp(-0.5 * deviation**2) / np.sqrt(2.0 * np.pi)
        vega = np.where(vega > LEAST_VEGA, vega, LEAST_VEGA)
        least = VOLATILITY_UNIT * np.sqrt(quotes.time_to_expiry) * vega
        half = 0.5 * (quotes.ask - quotes.bid)[smile.order] / unit
        # A locked quote is held to a small part of what its volatility is known to.
        tolerance = np.where(np.isnan(half), least, np.maximum(half, 0.01 * least))
        before = None if place == 0 else (times[place - 1], smiles[place - 1])
        guess = _guess(times[place], smile, before, x[at])
        basis = np.stack([np.interp(x, x[at], row) for row in np.eye(at.size)], axis=1)
        rough = _roughness(x[at] / smile.at_the_money)
        padding = size - at.size
        step = slice(*np.searchsorted(plan.interval, [place, place + 1]))
        quiet = counts.max() - counts[place]
        rows.append(
            _Problem(
                moneyness=np.pad(
                    np.exp(smile.x), (0, size - count), constant_values=1.0
                ),
                mid=np.pad(mid, (0, size - count)),
                tolerance=np.pad(tolerance, (0, size - count), constant_values=np.inf),
                interpolation=np.pad(basis, ((0, 0), (0, padding))),
                roughness=np.pad(np.sqrt(smoothing) * rough, ((0, padding),) * 2),
                guess=np.pad(guess, (0, padding)),
                durations=np.pad(plan.durations[step], (0, quiet)),
                implicit=np.pad(plan.implicit[step], (0, quiet), constant_values=True),
            )
        )
    return jax.tree.map(lambda *each: np.stack(each), *rows)


def _guess(
    time: float,
    smile: _Smile,
    before: tuple[float, _Smile] | None,
    x: np.ndarray,
) -> np.ndarray:
    """Logarithm of the forward volatility at fixed moneyness."""
    variance, years = smile(x) ** 2, time
    least = LEAST_VARIANCE * variance / time
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


@partial(jax.jit, static_argnums=2)
def _calibrate(kinks: jax.Array, problems: _Problem, max_steps: int) -> _Solution:
    """Expiry by expiry, each from the weights of the one before."""
    kinks = jnp.asarray(kinks)

    def expiry(weights, problem):
        residuals = partial(_residuals, kinks, weights, problem)
        theta, objective, optimality, steps = _levenberg_marquardt(
            residuals, problem.guess, max_steps
        )
        volatility = _volatility(problem, theta)
        after = _weights(kinks, weights, problem, volatility)
        return after, _Solution(after, volatility, objective, optimality, steps)

    _, solution = jax.lax.scan(expiry, jnp.where(kinks == 1.0, 1.0, 0.0), problems)
    return solution


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
    kinks: jax.Array, start: jax.Array, problem: _Problem, theta: jax.Array
) -> jax.Array:
    """What is squared and added, of shape `(q + m,)`."""
    weights = _weights(kinks, start, problem, _volatility(problem, theta))
    strike = problem.moneyness[:, None]
    gain = jnp.where(strike >= 1.0, kinks - strike, strike - kinks)
    fitted = jnp.maximum(gain, 0.0) @ weights
    errors = (fitted - problem.mid) / problem.tolerance
    return jnp.concatenate([errors, problem.roughness @ theta])


def _levenberg_marquardt(residuals, start: jax.Array, max_steps: int):
    """Minimise half of the sum of squares; theta, objective, optimality and steps."""
    low, high = np.log(BOUNDS)

    def linearised(theta):
        value = residuals(theta)
        jacobian = jax.jacfwd(residuals)(theta)
        gradient = jacobian.T @ value
        square = jacobian.T @ jacobian
        norm = jnp.sqrt(value @ value)
        scale = jnp.sqrt(jnp.diag(square))
        gain = jnp.abs(gradient) / jnp.where(scale > 0.0, scale, jnp.inf)
        optimality = jnp.max(gain) / jnp.maximum(norm, 1.0)
        return 0.5 * value @ value, gradient, square, optimality

    def unfinished(state):
        _, (_, _, _, optimality), damping, steps = state
        return (optimality > OPTIMALITY) & (steps < max_steps) & (damping < 1e12)

    def improve(state):
        theta, model, damping, steps = state
        objective, gradient, square, _ = model
        scale = jnp.diag(square)
        ridge = damping * scale + jnp.where(scale > 0.0, 0.0, 1.0)
        factor = jax.scipy.linalg.cho_factor(square + jnp.diag(ridge))
        step = -jax.scipy.linalg.cho_solve(factor, gradient)
        step = step * jnp.minimum(1.0, LARGEST_STEP / jnp.max(jnp.abs(step)))
        trial = jnp.clip(theta + step, low, high)
        value = residuals(trial)
        better = 0.5 * value @ value < objective
        theta = jnp.where(better, trial, theta)
        model = jax.lax.cond(better, linearised, lambda _: model, theta)
        damping = jnp.where(better, 0.1 * damping, 10.0 * damping)
        return theta, model, damping, steps + 1

    state = start, linearised(start), jnp.asarray(1e-3), jnp.asarray(0)
    theta, model, _, steps = jax.lax.while_loop(unfinished, improve, state)
    return theta, model[0], model[3], steps


def _surface(
    prepared: list[ExpiryQuotes],
    left_out: tuple[tuple[str, str], ...],
    spot: float | None,
    kinks: np.ndarray,
    solution: _Solution,
    smoothing: float,
) -> PriceSurface:
    """The surface, with how it was fitted."""
    curves = tuple(
        FitReport(
            quotes=one,
            smoothing=smoothing,
            steps=int(steps),
            gap=float(optimality),
            objective=float(objective),
            unsmoothed=partial(least_error, one),
        )
        for one, steps, optimality, objective in zip(
            prepared,
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
        expiries=_labels(prepared),
        spot=spot,
        fit=SurfaceFit(
            curves=curves,
            steps=int(np.sum(solution.steps)),
            gap=float(np.max(solution.optimality)),
            conflicts=pd.DataFrame(columns=columns),
            left_out=left_out,
        ),
    )

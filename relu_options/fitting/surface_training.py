r"""Train a price surface by gradient: one network of strike and time, in order.

All expiries share the hidden layer, whose kinks and bandwidths are learned, and each
has its output weights. Every choice of the parameters is a surface without arbitrage:

* kinks $x_j = \log s_j$ are sums of positive gaps on both sides of the forward;
* kernel prices $p_j = 2 N(h_j / 2) - 1$ are a constant plus hinges in `x` of positive
  slope, so convex, and the bandwidths follow from them;
* output weights go from one expiry to the next by one step of Dupire's equation on the
  network, in implicit form, from all mass at the forward,

$$
w_i = w_{i-1} + D (\theta_i \circ w_i), \qquad w_0 = e, \qquad
\theta_{ij} = \frac{e^{a_{ij}} s_j^2}{s_{j+1} - s_{j-1}} \ge 0,
$$

where $D y$ are the changes of slope of the time values `y`. The matrix
$I - D \operatorname{diag} \theta_i$ is an M-matrix, so weights stay positive; columns
of `D` have sum and mean zero, so mass and mean stay one; and time values rise by
$\theta_i \circ w_i \ge 0$. Nothing is lost: any skeletons in order with positive
weights are reached, by $\theta_i = (y_i - y_{i-1}) / w_i$. The parameters $e^{a}$ are
local variances from one expiry to the next.

References:
    Andreasen, J. and Huge, B. (2011). Volatility interpolation. *Risk*, March, 76-79.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax.lax.linalg import tridiagonal_solve
from jax.scipy.special import ndtr, ndtri

from relu_options.arbitrage.surface_certificate import settle_weights
from relu_options.fitting.compiled import compiled, one_thread
from relu_options.fitting.curve import expiry_labels, shared_quote_time
from relu_options.fitting.curve_training import (
    QuoteRows,
    out_of_the_money,
    padded,
    prepared_rows,
    price_loss,
)
from relu_options.fitting.grid import shared_kinks
from relu_options.fitting.quotes import (
    NormalisedQuotes,
    Smile,
    normalise,
    told_smile,
)
from relu_options.fitting.smooth import NARROWEST
from relu_options.fitting.training import (
    RowLoss,
    TrainingHistory,
    TrainingOptions,
    TrainingReport,
    train,
)
from relu_options.formulas import black_scholes
from relu_options.market_data import ExpiryQuotes
from relu_options.surface_law import time_values
from relu_options.surfaces import PriceSurface, SurfaceFit


@dataclass(frozen=True)
class SurfaceTraining:
    """How a surface is trained, where `TrainingOptions` say nothing.

    Attributes:
        learning_rate: Of logarithms.
        steps: Of gradient, by default.
        rows: Quotes of all expiries are padded to multiples of it, so that little is
            compiled.
        least_bend: Of the kernel price at the forward, per unit of log-moneyness.
        most_kernel_price: Beyond it a bandwidth is above four, and tells nothing.
        least_rise: Of total variance, from one expiry to the next, to start from.
        flat: Least bend to start from, of the kernel price at the forward.
        range: How far logarithms of local variances start at most from their median.
        jitter: Standard deviation by which restarts move the logarithms.
    """

    learning_rate: float = 0.1
    steps: int = 1000
    rows: int = 512
    least_bend: float = 1e-6
    most_kernel_price: float = 0.95
    least_rise: float = 1e-3
    flat: float = 1e-4
    range: float = 12.0
    jitter: float = 0.1


SURFACE = SurfaceTraining()


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SurfaceParameters:
    """What is learned of a surface: free numbers, logarithms of positive ones.

    Attributes:
        gaps: Between neighbouring kinks in log-moneyness, of shape `(n - 1,)`.
        level: Of the kernel price at the forward above its least, a scalar.
        bends: Slopes of the hinges that go up to the left and to the right, `(2, n)`.
        variances: Local variances to each expiry from the one before, `(N, n)`.
    """

    gaps: jax.Array
    level: jax.Array
    bends: jax.Array
    variances: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SurfaceRows:
    """Quotes of all expiries, one after the other, and which expiry each is of."""

    quotes: QuoteRows
    expiry: jax.Array


@dataclass(frozen=True, eq=False)
class TrainedSurfaceFit(SurfaceFit):
    """How a surface was trained, and on which quotes.

    Attributes:
        history: Of the training.

    Examples:
        >>> import relu_options as ro
        >>> chain = ro.bundled_chain()
        >>> quotes = [ro.prepare_quotes(chain[one]) for one in chain.slices[1:3]]
        >>> surface = train_surface(quotes, kinks=24,
        ...                         training=TrainingOptions(steps=50))
        >>> bool(surface.fit.history.judged[0, 0] > surface.fit.history.loss)
        True
    """

    history: TrainingHistory | None = None

    def plot_history(self, ax=None):
        """Draw the losses by step; returns the Axes."""
        if self.history is None:
            raise ValueError("the surface was not trained")
        return self.history.plot(ax)


def train_surface(
    prepared: list[ExpiryQuotes],
    left_out: tuple[tuple[str, str], ...] = (),
    spot: float | None = None,
    *,
    kinks: int = 80,
    narrowest: float = NARROWEST,
    start: PriceSurface | None = None,
    training: TrainingOptions | None = None,
) -> PriceSurface:
    """Train the surface of several expiries; see `relu_options.fit_surface`.

    Args:
        prepared: The quotes of each expiry, by time to expiry.
        left_out: Slices that could not be used, each with the reason.
        spot: Currency units, if known.
        kinks: Number of hidden units.
        narrowest: Half of it is the least bandwidth at the forward, in at-the-money
            total volatilities of the expiry where that is least.
        start: A surface of these expiries to start from, such as the convex fit; its
            kinks are then as many. By default that of flat smiles.
        training: How to train; by default 1000 steps.

    Returns:
        The surface; its `fit` is a `TrainedSurfaceFit`.

    Raises:
        QuoteError: If an expiry has no quote with a volatility.
        ValueError: If the loss is not known, weights are to be projected, or the
            surface to start from has other expiries.

    Examples:
        >>> import relu_options as ro
        >>> chain = ro.bundled_chain()
        >>> quotes = [ro.prepare_quotes(chain[one]) for one in chain.slices[1:3]]
        >>> surface = train_surface(quotes, kinks=24,
        ...                         training=TrainingOptions(steps=50))
        >>> bool(surface.certificate)
        True
    """
    options = training or TrainingOptions(steps=SURFACE.steps)
    if options.weights == "projected":
        raise ValueError(
            "the weights of a surface are learned: use weights='learned', or the "
            "convex fit for given kinks"
        )
    spreads = all(one.has_spreads for one in prepared)
    row_loss = _by_quote(price_loss(options.loss, has_spreads=spreads))
    quotes = normalise(prepared)
    smiles = [told_smile(*each) for each in zip(prepared, quotes, strict=True)]
    flat, weight = padded(_rows(quotes, smiles), SURFACE.rows)
    with one_thread():
        totals = np.array([smile.at_the_money for smile in smiles])
        least = _kernel_price(0.5 * narrowest * totals.min())
        if start is None:
            x, bandwidths, values = _flat_start(smiles, kinks, narrowest)
        else:
            x, bandwidths, values = _given_start(start, len(prepared))
        centre = int(np.flatnonzero(x == 0.0)[0])
        context = jnp.arange(len(x)) - centre, least
        starting = _parameters(x, bandwidths, values, least)
        best, history = train(
            fitted_prices,
            row_loss,
            _restarts(starting, options),
            context=context,
            rows=flat,
            weight=weight,
            options=options,
            learning_rate=SURFACE.learning_rate,
            description="surface",
        )
        sites, widths, weights = map(np.asarray, compiled(_network)(best, context))
    return PriceSurface(
        kinks=sites,
        weights=settle_weights(weights, sites),
        bandwidths=widths,
        times=np.array([one.time_to_expiry for one in prepared]),
        forwards=np.array([one.forward for one in prepared]),
        discount_factors=np.array([one.discount_factor for one in prepared]),
        expiries=expiry_labels(prepared),
        spot=spot,
        quote_time=shared_quote_time(prepared),
        fit=_fit_of(history, prepared, left_out),
    )


def _flat_start(
    smiles: Sequence[Smile], kinks: int, narrowest: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Kinks in log-moneyness, bandwidths, and the time values of flat smiles."""
    totals = np.array([smile.at_the_money for smile in smiles])
    x, bandwidths = shared_kinks(
        kinks,
        low=min(smile.low for smile in smiles),
        high=max(smile.high for smile in smiles),
        narrowest=narrowest * totals.min(),
    )
    return x, bandwidths, _flat_time_values(x, bandwidths, totals)


def _given_start(
    start: PriceSurface, expiries: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same of a surface, if it has as many expiries."""
    if start.weights.shape[0] != expiries:
        raise ValueError(
            f"the surface to start from has {start.weights.shape[0]} expiries, "
            f"the quotes have {expiries}"
        )
    values = time_values(*map(jnp.asarray, (start.weights, start.kinks)))
    return np.log(start.kinks), start.bandwidths, np.asarray(values)


def _fit_of(
    history: TrainingHistory,
    prepared: Sequence[ExpiryQuotes],
    left_out: tuple[tuple[str, str], ...],
) -> TrainedSurfaceFit:
    """What is known of the fit: all expiries were trained at once."""
    curves = tuple(
        TrainingReport(
            quotes=one,
            smoothing=np.nan,
            steps=int(history.steps[-1]),
            gap=np.nan,
            objective=history.loss,
            history=history,
        )
        for one in prepared
    )
    columns = ["earlier", "later", "strike", "shadow_price", "pair_total"]
    return TrainedSurfaceFit(
        curves=curves,
        steps=int(history.steps[-1]),
        gap=np.nan,
        _conflicts=pd.DataFrame(columns=columns),
        left_out=left_out,
        history=history,
    )


@cache
def _by_quote(loss: RowLoss) -> RowLoss:
    """The loss of `SurfaceRows`."""
    return lambda fitted, rows: loss(fitted, rows.quotes)


def _rows(quotes: Sequence[NormalisedQuotes], smiles: Sequence[Smile]) -> SurfaceRows:
    """The quotes of all expiries, one after the other."""
    each = map(prepared_rows, quotes, smiles)
    rows = jax.tree.map(lambda *parts: np.concatenate(parts), *each)
    expiry = np.repeat(np.arange(len(quotes)), list(map(len, quotes)))
    return SurfaceRows(rows, jnp.asarray(expiry))


def _kernel_price(bandwidth):
    return 2.0 * ndtr(0.5 * bandwidth) - 1.0


def _hidden_layer(parameters: SurfaceParameters, context):
    """Kinks over the forward, one of them 1 exactly, and bandwidths."""
    side, least = context
    ends = jnp.concatenate([jnp.zeros(1), jnp.cumsum(jnp.exp(parameters.gaps))])
    x = ends - jnp.sum(jnp.where(side == 0, ends, 0.0))
    level = least + jnp.exp(parameters.level)
    left, right = jnp.exp(parameters.bends) + SURFACE.least_bend * level
    distance = x[:, None] - x
    rises = jnp.where(side >= 0, right * jnp.maximum(distance, 0.0), 0.0)
    falls = jnp.where(side <= 0, left * jnp.maximum(-distance, 0.0), 0.0)
    prices = level + jnp.sum(rises + falls, axis=1)
    prices = prices * jnp.minimum(1.0, SURFACE.most_kernel_price / prices.max())
    return jnp.exp(x), 2.0 * ndtri(0.5 * (1.0 + prices))


def dupire_weights(variances: jax.Array, kinks: jax.Array, first: jax.Array):
    r"""Output weights of every expiry, by implicit steps of Dupire's equation.

    Args:
        variances: Local variance times the time of each step, of shape `(N, n)`; those
            of the first and the last kink do not count.
        kinks: In units of the forward, of shape `(n,)`, increasing.
        first: Weights before the first step, of shape `(n,)`.

    Returns:
        The weights, of shape `(N, n)`.

    Examples:
        >>> kinks = jnp.array([0.8, 0.9, 1.0, 1.1, 1.2])
        >>> weights = dupire_weights(jnp.full((2, 5), 0.01), kinks, jnp.eye(5)[2])
        >>> print(weights.round(3))
        [[0.064 0.158 0.571 0.129 0.078]
         [0.14  0.188 0.366 0.141 0.164]]
        >>> bool(jnp.allclose(weights @ kinks, 1.0, rtol=1e-14))
        True
    """
    gaps = jnp.diff(kinks)
    inner = kinks[1:-1] ** 2 / (gaps[:-1] + gaps[1:])
    rates = jnp.pad(variances[:, 1:-1] * inner, ((0, 0), (1, 1)))

    def step(weights, rate):
        up, down = rate[:-1] / gaps, rate[1:] / gaps  # from one kink to the next
        lower = jnp.concatenate([zero, -up])
        upper = jnp.concatenate([-down, zero])
        diagonal = 1.0 - jnp.roll(lower, -1) - jnp.roll(upper, 1)
        solved = tridiagonal_solve(lower, diagonal, upper, weights[:, None])[:, 0]
        return solved, solved

    zero = jnp.zeros(1)
    return jax.lax.scan(step, first, rates)[1]


def _network(parameters: SurfaceParameters, context):
    """Kinks, bandwidths and weights."""
    kinks, bandwidths = _hidden_layer(parameters, context)
    first = (context[0] == 0).astype(float)
    weights = dupire_weights(jnp.exp(parameters.variances), kinks, first)
    return kinks, bandwidths, weights


def fitted_prices(parameters, context, rows: SurfaceRows, weight, progress):
    """Prices at the rows, of shape `(m,)`: the model that is trained."""
    kinks, bandwidths, weights = _network(parameters, context)
    design = out_of_the_money(kinks, bandwidths, rows.quotes.log_moneyness)
    return jnp.sum(design * weights[rows.expiry], axis=1)


def _flat_time_values(x, bandwidths, totals) -> np.ndarray:
    """Time values of skeletons at the inner kinks for smiles that are flat."""
    rising = np.maximum.accumulate(totals**2)
    rising = rising + SURFACE.least_rise * rising[0] * np.arange(len(rising))
    narrow = bandwidths.min() ** 2
    spread = np.sqrt(np.maximum(rising - narrow, 0.25 * rising))[:, None]
    values = black_scholes.undiscounted_price(1.0, np.exp(x), spread, x >= 0.0)
    return np.asarray(values)[:, 1:-1]


def _parameters(x, bandwidths, values, least) -> SurfaceParameters:
    """The parameters of given kinks, bandwidths and time values at the inner kinks."""
    centre = int(np.flatnonzero(x == 0.0)[0])
    kinks, prices = np.exp(x), np.asarray(_kernel_price(bandwidths))
    slopes = np.diff(prices) / np.diff(x)
    floor = SURFACE.flat * prices[centre]
    bends = np.full((2, len(x)), floor)
    bends[0, centre] = max(-slopes[centre - 1], floor)
    bends[1, centre] = max(slopes[centre], floor)
    inner = np.maximum(np.diff(slopes), floor)
    bends[0, 1:centre] = inner[: centre - 1]
    bends[1, centre + 1 : -1] = inner[centre:]

    # How far time values rise, over weights: see the formula of the module.
    gaps = np.diff(kinks)
    changes = np.diff(np.diff(np.pad(values, ((0, 0), (1, 1)))) / gaps)
    changes[:, centre - 1] += 1.0
    rises = np.diff(values, axis=0, prepend=0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = rises / changes * (gaps[:-1] + gaps[1:]) / kinks[1:-1] ** 2
        logs = np.log(ratio)
    logs = np.where(np.isfinite(logs), logs, np.nan)
    middle = np.nanmedian(logs, axis=1, keepdims=True)
    logs = middle + np.clip(np.nan_to_num(logs - middle), -SURFACE.range, SURFACE.range)
    return SurfaceParameters(
        gaps=jnp.log(np.diff(x)),
        level=jnp.log(np.maximum(prices[centre] - least, 1e-3 * least)),
        bends=jnp.log(bends),
        variances=jnp.pad(jnp.asarray(logs), ((0, 0), (1, 1)), mode="edge"),
    )


def _restarts(start: SurfaceParameters, options: TrainingOptions) -> SurfaceParameters:
    """The starting point, and others near it."""
    rng = np.random.default_rng(options.seed)

    def moved(values):
        noise = rng.standard_normal((options.restarts, *np.shape(values)))
        noise[0] = 0.0
        return jnp.asarray(values + SURFACE.jitter * noise)

    return jax.tree.map(moved, start)

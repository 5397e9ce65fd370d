r"""Train a price curve by gradient: kinks, bandwidths and output weights.

In units of the at-the-money total volatility $v$ the parameters are free numbers:

* kinks $x_j = \log s_j = v \xi_j$, the first below the forward and the last above it,
  $\xi_1 = -e^{\cdot}$ and $\xi_n = e^{\cdot}$, so that a mean of one is in reach;
* bandwidths $h_j = v (h_{\min} + e^{\eta_j})$, or, of sharp kinks, zero: at first they
  are rounded, so that the loss has fewer minima, by a volatility that falls to zero;
* weights $w_j \propto e^{\ell_j + \lambda s_j}$ with the one $\lambda$ that gives the
  mean: positive, of sum and mean one for all $\ell$; or those of the convex programme
  (`relu_options.fitting.projection`).

The curve is the same object as that of the convex fit, and as free of arbitrage.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from relu_options.fitting.compiled import compiled, one_thread
from relu_options.fitting.initialisation import quantile_strikes
from relu_options.fitting.objective import tilted
from relu_options.fitting.projection import optimal_weights
from relu_options.fitting.quotes import (
    VOLATILITY_UNIT,
    NormalisedQuotes,
    Smile,
    normalise,
    told_smile,
)
from relu_options.fitting.smooth import FitOptions
from relu_options.fitting.training import (
    RowLoss,
    TrainingOptions,
    TrainingReport,
    learned_rows,
    train,
)
from relu_options.formulas import black_scholes
from relu_options.market_data import ExpiryQuotes
from relu_options.networks import PriceNetwork


@dataclass(frozen=True)
class CurveTraining:
    """How a curve is trained, where `TrainingOptions` say nothing.

    Attributes:
        learning_rate: Of parameters whose unit is about one.
        rows: Quotes are padded to multiples of it, so that little is compiled.
        kept_inside: Of a half-spread: how far from the mid the loss "inside" is zero.
        overlap: First bandwidth of a kink, as a share of the distance of its
            neighbours.
        jitter: Of that distance, by which restarts move the kinks.
        bracket: Inverse hyperbolic sine of the largest tilt.
        bisections: After which the bracket is of the size of rounding.
        annealing: First bandwidth of sharp kinks, in at-the-money total volatilities.
        until: Share of the steps after which they are sharp.
    """

    learning_rate: float = 0.1
    rows: int = 64
    kept_inside: float = 0.9
    overlap: float = 0.5
    jitter: float = 0.3
    bracket: float = 40.0
    bisections: int = 58
    annealing: float = 0.3
    until: float = 0.7


CURVE = CurveTraining()


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class CurveParameters:
    """What is learned of a curve: free numbers, each of shape `(n,)`.

    Attributes:
        kinks: In at-the-money total volatilities; of the first and the last the
            logarithm of the distance from the forward.
        bandwidths: Logarithm of what is above the least bandwidth.
        logits: Logarithms of the weights before they are tilted to the mean.
    """

    kinks: jax.Array
    bandwidths: jax.Array
    logits: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class QuoteRows:
    """Quotes as a loss sees them: prices undiscounted, out of the money, `F = 1`.

    Attributes:
        log_moneyness: `log(strike / forward)`, of shape `(m,)`.
        mid: Of shape `(m,)`.
        lower: Bids; minus infinity where only the mid is known.
        upper: Asks; infinity likewise.
        vega: Derivative of the mid in the total volatility.
        unit: At-the-money total volatility, at every row.
        tolerance: Half of the spread, or a volatility of 0.01 in price.
    """

    log_moneyness: jax.Array
    mid: jax.Array
    lower: jax.Array
    upper: jax.Array
    vega: jax.Array
    unit: jax.Array
    tolerance: jax.Array


def train_curve(
    quotes: ExpiryQuotes, fit: FitOptions, options: TrainingOptions
) -> tuple[PriceNetwork, TrainingReport]:
    """Train the network of one expiry; see `relu_options.fit_curve`.

    Args:
        quotes: The quotes of one expiry.
        fit: Number of kinks and least bandwidth; a smoothing of zero asks for sharp
            kinks, and no other number is possible.
        options: How to train.

    Returns:
        The network, in currency, and how it was trained.

    Raises:
        QuoteError: If no quote has a volatility.
        ValueError: If the loss is not known or the smoothing is a number but zero.

    Examples:
        >>> import relu_options as ro
        >>> chain = ro.bundled_chain()
        >>> quotes = ro.prepare_quotes(chain[chain.slices[2]])
        >>> network, report = train_curve(quotes, FitOptions("auto", 12, 0.125),
        ...                               TrainingOptions(steps=50))
        >>> len(network.kinks), report.steps
        (12, 50)
    """
    quotes.require_lognormal(
        "training by gradient moves lognormal kinks; use method='convex'"
    )
    if fit.asked > 0.0:
        raise ValueError(
            "a trained curve is as smooth as its bandwidths; raise `narrowest` in the "
            f"place of smoothing={fit.smoothing!r}, or say 0 for sharp kinks"
        )
    sharp = fit.asked == 0.0
    row_loss = price_loss(options.loss, has_spreads=quotes.has_spreads)
    (normalised,) = normalise([quotes])
    smile = told_smile(quotes, normalised)
    rows, weight = padded(prepared_rows(normalised, smile), CURVE.rows)
    unit = smile.at_the_money
    with one_thread():
        positions = normalised.x
        ends = smile.low / unit, smile.high / unit
        model = _model(sharp, options.weights != "learned", options.loss)
        context = unit, 0.0 if sharp else fit.narrowest
        best, history = train(
            model,
            row_loss,
            _starts(positions / unit, ends, fit.kinks, options),
            context=context,
            rows=rows,
            weight=weight,
            options=options,
            learning_rate=CURVE.learning_rate,
            description="curve",
        )
        learned = learned_rows(weight, options)
        kinks, bandwidths, weights, gap = compiled(model.network)(
            best, context, rows, learned
        )
    network = PriceNetwork(
        kinks=kinks * quotes.forward,
        weights=weights * quotes.discount_factor,
        bandwidths=bandwidths,
    )
    report = TrainingReport(
        quotes=quotes,
        smoothing=0.0 if sharp else np.nan,
        steps=int(history.steps[-1]),
        gap=float(gap),
        objective=history.loss,
        history=history,
    )
    return network, report


def price_loss(loss: str | RowLoss, *, has_spreads: bool) -> RowLoss:
    """The loss of a name; see `TrainingOptions.loss`.

    Args:
        loss: Its name, or the loss itself.
        has_spreads: Whether the quotes have bids and asks.

    Returns:
        The function of fitted prices and `QuoteRows`.

    Raises:
        ValueError: If the name is not known, or asks for spreads that are not there.

    Examples:
        >>> price_loss("vega", has_spreads=True)
        Traceback (most recent call last):
            ...
        ValueError: loss must be one of 'auto', 'volatility', 'price', 'inside', or a \
function of fitted prices and rows, not 'vega'
    """
    if callable(loss):
        return loss
    if loss not in LOSSES:
        known = ", ".join(repr(name) for name in LOSSES)
        raise ValueError(
            f"loss must be one of {known}, or a function of fitted prices and rows, "
            f"not {loss!r}"
        )
    if loss == "inside" and not has_spreads:
        raise ValueError(
            "the loss 'inside' needs a bid and an ask for every quote; use 'volatility'"
        )
    return LOSSES[loss]


def _in_tolerances(fitted: jax.Array, rows: QuoteRows) -> jax.Array:
    return ((fitted - rows.mid) / rows.tolerance) ** 2


def _in_volatility(fitted: jax.Array, rows: QuoteRows) -> jax.Array:
    """Squared residuals over vega, in hundredths: those of the total volatility."""
    return ((fitted - rows.mid) / (VOLATILITY_UNIT * rows.vega)) ** 2


def _in_price(fitted: jax.Array, rows: QuoteRows) -> jax.Array:
    """Squared residuals, in hundredths of the at-the-money total volatility."""
    return ((fitted - rows.mid) / (VOLATILITY_UNIT * rows.unit)) ** 2


def _outside(fitted: jax.Array, rows: QuoteRows) -> jax.Array:
    distance = jnp.abs(fitted - rows.mid) / rows.tolerance
    return jnp.maximum(distance - CURVE.kept_inside, 0.0) ** 2


LOSSES = {
    "auto": _in_tolerances,
    "volatility": _in_volatility,
    "price": _in_price,
    "inside": _outside,
}


def prepared_rows(quotes: NormalisedQuotes, smile: Smile) -> QuoteRows:
    """What losses need of the quotes.

    Args:
        quotes: The quotes.
        smile: Their total volatilities.

    Returns:
        The rows.
    """
    # A loss is in half-spreads as they are quoted: a user may ask for another.
    quoted = replace(quotes, half_spread=0.5 * (quotes.upper - quotes.lower))
    columns = {
        "log_moneyness": quotes.x,
        "mid": quotes.mid,
        "lower": quotes.lower,
        "upper": quotes.upper,
        "vega": quotes.vega,
        "unit": np.full(len(quotes), smile.at_the_money),
        "tolerance": quoted.tolerance,
    }
    return QuoteRows(**{name: jnp.asarray(each) for name, each in columns.items()})


Rows = TypeVar("Rows")


def padded(rows: Rows, multiple: int) -> tuple[Rows, np.ndarray]:
    """Rows and copies of the first, to a multiple of a length, and their weights."""
    count = len(jax.tree.leaves(rows)[0])
    size = multiple * -(-count // multiple)
    place = np.where(np.arange(size) < count, np.arange(size), 0)
    weight = (np.arange(size) < count).astype(float)
    return jax.tree.map(lambda each: jnp.asarray(each[place]), rows), weight


def out_of_the_money(
    kinks: jax.Array, bandwidths: jax.Array | None, log_moneyness: jax.Array
) -> jax.Array:
    """Prices of hidden units at the quotes, of shape `(m, n)`; None for sharp kinks."""
    strike = jnp.exp(log_moneyness)[:, None]
    is_call = log_moneyness[:, None] >= 0.0
    if bandwidths is None:
        return jax.nn.relu(jnp.where(is_call, kinks - strike, strike - kinks))
    return black_scholes.undiscounted_price(kinks, strike, bandwidths, is_call)


def tilted_softmax(logits: jax.Array, kinks: jax.Array) -> jax.Array:
    r"""Positive weights of sum and mean one, $w_j \propto \exp(\ell_j + \lambda s_j)$.

    Among the weights of mean one these are nearest to the softmax, in relative entropy.

    Args:
        logits: `l`, of shape `(n,)`.
        kinks: `s`, of shape `(n,)`, on both sides of 1.

    Returns:
        The weights, of shape `(n,)`, differentiable in both arguments.

    Examples:
        >>> kinks = jnp.array([0.5, 1.0, 2.0])
        >>> weights = tilted_softmax(jnp.zeros(3), kinks)
        >>> print(weights.round(4), f"{weights.sum():.12f} {weights @ kinks:.12f}")
        [0.436 0.346 0.218] 1.000000000000 1.000000000000
    """
    distance = kinks - 1.0
    root = _root(*jax.lax.stop_gradient((logits, distance)))
    # A Newton step from the constant root has the derivatives of the root.
    masses = jax.nn.softmax(logits + root * distance)
    mean = masses @ distance
    variance = jnp.maximum(masses @ (distance - mean) ** 2, 1e-300)
    tilt = root - mean / jax.lax.stop_gradient(variance)
    return tilted(jax.nn.softmax(logits + tilt * distance), kinks - 1.0)


def _root(logits: jax.Array, distance: jax.Array) -> jax.Array:
    """The tilt at which the mean distance is zero: bisection of its inverse sine."""
    unit = 1.0 / jnp.max(jnp.abs(distance))

    def bisect(_, ends):
        low, high = ends
        middle = 0.5 * (low + high)
        tilt = unit * jnp.sinh(middle)
        below = jax.nn.softmax(logits + tilt * distance) @ distance < 0.0
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    ends = jnp.full((), -CURVE.bracket), jnp.full((), CURVE.bracket)
    low, high = jax.lax.fori_loop(0, CURVE.bisections, bisect, ends)
    return unit * jnp.sinh(0.5 * (low + high))


class CurveModel:
    """Fitted prices of a curve, as a function that is the same object every time."""

    def __init__(self, sharp: bool, projected: bool, loss: str | RowLoss):
        self.sharp, self.projected, self.loss = sharp, projected, loss

    def __call__(self, parameters, context, rows, weight, progress):
        """Prices at the rows, of shape `(m,)`."""
        design, weights, _ = self._fitted(parameters, context, rows, weight, progress)
        return design @ weights

    def network(self, parameters, context, rows, weight):
        """Kinks in order, bandwidths, weights, and the gap of their programme."""
        kinks, bandwidths = self._layer(parameters, context)
        _, weights, gap = self._fitted(parameters, context, rows, weight, 1.0)
        order = jnp.argsort(kinks)
        widths = jnp.zeros_like(kinks) if bandwidths is None else bandwidths
        return kinks[order], widths[order], tilted(weights, kinks - 1.0)[order], gap

    def _layer(self, parameters: CurveParameters, context):
        """Kinks, and bandwidths but of sharp ones."""
        unit, narrowest = context
        free = parameters.kinks
        ends = -jnp.exp(free[:1]), jnp.exp(free[-1:])
        kinks = jnp.exp(unit * jnp.concatenate([ends[0], free[1:-1], ends[1]]))
        if self.sharp:
            return kinks, None
        return kinks, unit * (narrowest + jnp.exp(parameters.bandwidths))

    def _fitted(
        self, parameters: CurveParameters, context, rows: QuoteRows, weight, progress
    ):
        kinks, bandwidths = self._layer(parameters, context)
        design = out_of_the_money(kinks, bandwidths, rows.log_moneyness)
        if self.sharp:
            left = jnp.maximum(1.0 - progress / CURVE.until, 0.0)
            width = CURVE.annealing * context[0] * left
            safe = jnp.where(width > 0.0, width, 1.0)
            smooth = out_of_the_money(kinks, safe, rows.log_moneyness)
            design = jnp.where(width > 0.0, smooth, design)
        if not self.projected:
            return design, tilted_softmax(parameters.logits, kinks), jnp.nan
        scale = jnp.sqrt(weight) / self._inner_tolerance(rows)
        weights, solution = optimal_weights(
            design * scale[:, None], rows.mid * scale, kinks
        )
        return design, weights, solution.gap

    def _inner_tolerance(self, rows: QuoteRows) -> jax.Array:
        """Tolerances of the convex programme: those of the loss, if it has them."""
        if self.loss == "volatility":
            return VOLATILITY_UNIT * rows.vega
        return VOLATILITY_UNIT * rows.unit if self.loss == "price" else rows.tolerance


_model = cache(CurveModel)


def _starts(
    positions: np.ndarray, ends: tuple[float, float], n: int, options: TrainingOptions
) -> CurveParameters:
    """Kinks at quantiles of the quotes, and two beyond them, for every restart.

    All in at-the-money total volatilities. Restarts after the first move the kinks.
    """
    inner = quantile_strikes(positions, n - 2)
    low, high = ends
    rng = np.random.default_rng(options.seed)
    rows = []
    for restart in range(options.restarts):
        at = np.concatenate([[low], inner, [high]])
        gaps = np.maximum(np.gradient(at), 1e-3)
        if restart:
            at[1:-1] += CURVE.jitter * gaps[1:-1] * rng.standard_normal(n - 2)
        logits = -0.5 * at**2 + np.log(gaps)
        free = np.concatenate([[np.log(-at[0])], at[1:-1], [np.log(at[-1])]])
        numbers = free, np.log(CURVE.overlap * gaps), logits
        rows.append(CurveParameters(*map(jnp.asarray, numbers)))
    return jax.tree.map(lambda *each: jnp.stack(each), *rows)

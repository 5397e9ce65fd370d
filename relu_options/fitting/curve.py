"""Fit the price curve of one expiry to a table of quotes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal, Unpack

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax.typing import ArrayLike
from threadpoolctl import ThreadpoolController

from relu_options._formulas.elementwise import compiler_options
from relu_options.arbitrage import check_quote_arbitrage
from relu_options.curves import FitReport, PriceCurve
from relu_options.curves_by_expiry import CurvesByExpiry
from relu_options.errors import FitError, QuoteError, refuse
from relu_options.expiry_labels import numbered
from relu_options.fitting.exact import BEYOND_LAST, fit_exactly
from relu_options.fitting.programme import (
    NARROWEST,
    CurveSolution,
    NormalisedQuotes,
    fit_inside,
    fit_mids,
)
from relu_options.fitting.workers import cores
from relu_options.market_data import (
    ExpiryQuotes,
    Quotes,
    Reading,
    prepare_quotes,
    prepare_slices,
)
from relu_options.market_data.clocks import expiry_time, years_between
from relu_options.networks import PriceNetwork
from relu_options.progress import progress_bar

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController as Controller

    from relu_options.fitting.training import TrainingOptions

BUCKETS = (128, 256, 512, 2048)  # padded numbers of quotes
KINK_BUCKETS = (32, 64, *BUCKETS)  # the same for unsmoothed fits, with a kink at each
BATCH = 16  # curves fitted in one call
MANY = 32  # curves from which on calls are shared, which takes another compilation
ACCEPTABLE_GAP = 1e-6
KINKS = 64  # hidden units of a curve
FAR = 10.0  # half-spreads outside its spread from which a quote is wrong
MOST_FAR = 0.2  # of the quotes of an expiry that may be
NEIGHBOURS = 3  # to each side, that say how wide the spread of a quote is


def fit_curve(
    quotes: Quotes | ExpiryQuotes,
    *,
    smoothing: float | str = "auto",
    kinks: int = KINKS,
    narrowest: float = NARROWEST,
    on_arbitrage: Literal["fit", "raise"] = "fit",
    method: Literal["convex", "gradient"] = "convex",
    training: TrainingOptions | None = None,
    **reading: Unpack[Reading],
) -> PriceCurve:
    r"""Fit an arbitrage-free price curve to the quotes of one expiry.

    The curve is a one-layer network with non-negative output weights, found by the
    convex programme of `relu_options.fitting.programme`: it is inside every spread if a
    curve of this form can be, and otherwise leaves the spreads by as little as it can.
    Quotes that even so stay ten half-spreads and more outside are wrong, not tight: the
    rest is then fitted without them, and they are named with the others that are left.
    Training by gradient moves the kinks and bandwidths too, for any loss
    (`relu_options.fitting.curve_training`): with few kinks it is the better fit.

    Args:
        quotes: Options of one expiry: what `read_chain` reads, one slice of a chain, or
            prepared quotes.
        smoothing: `"auto"` chooses it by the noise of the quotes; a number is in units
            of the reference; zero fits the unsmoothed ReLU network, which reaches the
            least error of any arbitrage-free curve.
        kinks: Number of hidden units of a smooth curve.
        narrowest: Bandwidth at the forward, in at-the-money total volatilities.
        on_arbitrage: `"fit"` fits with the least excess and names the quotes that are
            left (`PriceCurve.conflicts`); `"raise"` raises instead if no arbitrage-free
            curve is inside all spreads, or meets all mids where only those are known.
            Both judge the quotes that are fitted, out of the money; pairs that break
            put-call parity are named in `PriceCurve.report`.
        method: `"convex"`, or `"gradient"` to learn kinks and bandwidths; `narrowest`
            is then the least bandwidth, and `smoothing` is `"auto"`, or zero for sharp
            kinks.
        training: How to train by gradient.
        **reading: What is known of the quotes, and how to read them, as for
            `read_chain`: `forward`, `discount_factor`, `time_to_expiry`, `quote_time`,
            `columns` and so on.

    Returns:
        The fitted curve.

    Raises:
        QuoteError: If the table cannot be used; the message names rows and remedy.
        ArbitrageError: If the quotes admit an arbitrage and `on_arbitrage="raise"`.
        FitError: If the programme was not solved to its tolerance.
        ValueError: If an argument is out of range, or has no effect: prepared quotes
            have their forward and times, and an unsmoothed fit its kinks.

    Examples:
        >>> import relu_options as ro
        >>> chain = ro.bundled_chain()
        >>> curve = ro.fit_curve(chain[chain.slices[2]])
        >>> bool(curve.certificate)
        True
    """
    options = FitOptions(smoothing, kinks, narrowest)
    if on_arbitrage not in ("fit", "raise"):
        raise ValueError(f"on_arbitrage must be 'fit' or 'raise', not {on_arbitrage!r}")
    if method not in ("convex", "gradient"):
        raise ValueError(f"method must be 'convex' or 'gradient', not {method!r}")
    if training is not None and method == "convex":
        raise ValueError("training is for method='gradient'; the convex fit has none")
    if smoothing == 0.0 and method == "convex":
        refuse(
            "an unsmoothed fit has sharp kinks, one at each strike; leave them out, or "
            "use smoothing='auto'",
            kinks=None if kinks == KINKS else kinks,
            narrowest=None if narrowest == NARROWEST else narrowest,
        )
    if isinstance(quotes, ExpiryQuotes):
        refuse("the quotes are prepared; pass it to `prepare_quotes`", **reading)
    else:
        quotes = prepare_quotes(quotes, **reading)
    if on_arbitrage == "raise":
        check_quote_arbitrage(
            **quotes.listed,
            forward=quotes.forward,
            discount_factor=quotes.discount_factor,
        )
    if method == "gradient":
        from relu_options.fitting.curve_training import train_curve
        from relu_options.fitting.training import TrainingOptions

        return train_curve(quotes, options, training or TrainingOptions())
    with one_thread():
        if smoothing == 0.0:
            return _fit_unsmoothed(quotes)
        return _fit_smooth(quotes, options)


def fit_curves(
    quotes: Quotes | ExpiryQuotes | Iterable[Quotes | ExpiryQuotes],
    *,
    smoothing: float | str = "auto",
    kinks: int = KINKS,
    narrowest: float = NARROWEST,
    progress: bool | None = None,
    **reading: Unpack[Reading],
) -> CurvesByExpiry:
    """Fit many price curves, each by itself, on all cores.

    The curves are those of `fit_curve`, up to rounding.

    Args:
        quotes: A chain, or what `read_chain` reads, of several expiries; or what
            `fit_curve` takes for each curve.
        smoothing: As for `fit_curve`, but not zero.
        kinks: Number of hidden units.
        narrowest: Bandwidth at the forward, in at-the-money total volatilities.
        progress: Whether to show a bar; by default for long jobs. See
            `relu_options.progress`.
        **reading: What is known of the quotes, and how to read them, as for
            `read_chain`.

    Returns:
        The curves by expiry, in the order of the items. Those that cannot be fitted are
        named in `left_out`, with the reason.

    Raises:
        QuoteError: If none can be fitted; the message says why.
        ValueError: If an argument is out of range.

    Examples:
        >>> import relu_options as ro
        >>> curves = ro.fit_curves(ro.bundled_chain())
        >>> all(curve.certificate for curve in curves.values())
        True
        >>> curves["2025-06-20"].share_inside, curves.left_out
        (1.0, ())
    """
    options = FitOptions(smoothing, kinks, narrowest)
    if smoothing == 0.0:
        raise ValueError(
            "many curves are fitted smooth; call fit_curve for smoothing=0"
        )
    slices = prepare_slices(quotes, **reading)
    prepared, left_out = slices.quotes, list(slices.skipped.items())
    if not prepared:
        raise nothing_left(left_out)
    outcomes: dict[int, PriceCurve | Exception] = {}
    batches = _batches(prepared)
    with (
        one_thread(),
        ThreadPoolExecutor(cores()) as pool,
        progress_bar("curves", len(prepared), progress) as bar,
    ):
        together = [[prepared[one] for one in batch] for batch in batches]
        done = pool.map(partial(_fit_batch, options=options), together)
        for batch, fitted in zip(batches, done, strict=True):
            outcomes.update(zip(batch, fitted, strict=True))
            bar.update(len(batch))
    labels, curves = [], []
    for position, label in enumerate(numbered(expiry_labels(prepared))):
        outcome = outcomes[position]
        if isinstance(outcome, PriceCurve):
            labels.append(label)
            curves.append(outcome)
        else:
            left_out.append((label, str(outcome)))
    if not curves:
        raise nothing_left(left_out)
    return CurvesByExpiry(tuple(labels), tuple(curves), tuple(left_out))


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


@cache
def _blas() -> Controller:
    """The linear algebra libraries."""
    return ThreadpoolController().select(user_api="blas")


def one_thread():
    """A context in which the linear algebra libraries keep to one thread.

    A team of threads costs a small matrix more than it saves.
    """
    return _blas().limit(limits=1)


@cache
def compiled(function: Callable, **static: Any) -> Callable:
    """The function, compiled once for each shape of its arguments."""
    return jax.jit(partial(function, **static), compiler_options=compiler_options())


def nothing_left(left_out: Sequence[tuple[str, str]]) -> QuoteError:
    """The error of a fit to which no quotes are left."""
    reasons = "; ".join(f"{name}: {why}" for name, why in left_out[:3])
    return QuoteError(f"no expiry can be used: {reasons or 'there are none'}")


def shared_quote_time(prepared: Sequence[ExpiryQuotes]) -> pd.Timestamp | None:
    """When all quotes were taken, if that is one time from which all times run."""
    began = prepared[0].quote_time
    for one in prepared:
        if began is None or one.expiry is None or one.quote_time != began:
            return None
        end = expiry_time(one.expiry, one.settlement or "PM")
        # Times that were given may run on another clock, such as that of business days.
        if abs(years_between(began, end) - one.time_to_expiry) > 1.0 / 365.0:
            return None
    return began


def expiry_labels(prepared: Iterable[ExpiryQuotes]) -> tuple[str, ...]:
    """Date and settlement of each expiry, or its time in years."""
    return tuple(one.label for one in prepared)


def _batches(prepared: list[ExpiryQuotes]) -> list[list[int]]:
    """Positions of the quotes to be fitted in one call: alike in padded length."""
    if len(prepared) < MANY:
        return [[position] for position in range(len(prepared))]
    groups: dict[int, list[int]] = {}
    for position, one in enumerate(prepared):
        # What is too long for every bucket is by itself, to fail by itself.
        alone = -1 - position
        size = next((bucket for bucket in BUCKETS if bucket >= len(one)), alone)
        groups.setdefault(size, []).append(position)
    return [
        group[first : first + BATCH]
        for group in groups.values()
        for first in range(0, len(group), BATCH)
    ]


def normalise(
    quotes: ExpiryQuotes, buckets: tuple[int, ...] = BUCKETS
) -> NormalisedQuotes:
    """Sorted, in units of the discounted forward, padded to a bucket."""
    order = np.argsort(quotes.strike)
    unit = 1.0 / (quotes.discount_factor * quotes.forward)
    count = len(quotes)
    size = next((bucket for bucket in buckets if bucket >= count), None)
    if size is None:
        raise QuoteError(
            f"{count} strikes exceed the {buckets[-1]} that one fit takes; "
            "thin them out"
        )

    def padded(values, filling):
        row = np.full(size, filling)
        row[:count] = values[order]
        return row

    bid = np.where(np.isnan(quotes.bid), -np.inf, quotes.bid * unit)
    ask = np.where(np.isnan(quotes.ask), np.inf, quotes.ask * unit)
    weight = np.zeros(size)
    weight[:count] = 1.0
    moneyness = np.log(quotes.strike / quotes.forward)
    half_spread = np.empty(count)
    half_spread[order] = credible_half_spreads(
        moneyness[order], 0.5 * unit * (quotes.ask - quotes.bid)[order]
    )
    rows: dict[str, Any] = {
        "log_moneyness": padded(moneyness, 0.0),
        "mid": padded(quotes.mid * unit, 0.1),
        "lower": padded(bid, -np.inf),
        "upper": padded(ask, np.inf),
        "half_spread": padded(half_spread, 1.0),
        "weight": weight,
    }
    return NormalisedQuotes(**rows)


def credible_half_spreads(position: np.ndarray, half_spread: np.ndarray) -> np.ndarray:
    """Half-spreads, none narrower than those on both of its sides say.

    Each two quotes that are one, two or three places to the left and to the right of a
    quote, joined by a straight line in logarithms, say one; the median of the three is
    believed, and near the ends, where there are not three, the narrower neighbour.

    Args:
        position: Of the quotes, of shape `(m,)`, increasing.
        half_spread: Of shape `(m,)`; NaN or zero where there is none, which says none.

    Returns:
        Half-spreads of shape `(m,)`.
    """
    count = len(position)
    logarithms = np.full(count, np.nan)
    known = half_spread > 0.0
    logarithms[known] = np.log(half_spread[known])
    said = np.full((NEIGHBOURS, count), np.nan)
    for row in range(min(NEIGHBOURS, (count - 1) // 2)):
        left, here, right = (
            slice(first, count - 2 * (row + 1) + first)
            for first in (0, row + 1, 2 * (row + 1))
        )
        share = (position[here] - position[left]) / (position[right] - position[left])
        rise = logarithms[right] - logarithms[left]
        said[row, here] = logarithms[left] + share * rise
    voices = np.isfinite(said).sum(axis=0)
    least = np.zeros(count)
    few, many = (voices > 0) & (voices < NEIGHBOURS), voices == NEIGHBOURS
    least[many] = np.exp(np.median(said[:, many], axis=0))
    # Near the ends no majority can outvote an odd one: the narrower side is believed.
    beside = np.minimum(_shifted(half_spread, 1), _shifted(half_spread, -1))
    least[few] = np.fmax(beside[few], 0.0)
    return np.fmax(half_spread, least)


def _fit_smooth(quotes: ExpiryQuotes, options: FitOptions) -> PriceCurve:
    normalised = normalise(quotes)
    network, solution = _solved(quotes, normalised, options)
    far = far_outside(normalised, solution.fitted)
    if far.any():
        normalised = replace(normalised, weight=np.where(far, 0.0, normalised.weight))
        network, solution = _solved(quotes, normalised, options)
    return _finished(quotes, network, solution)


def _solved(
    quotes: ExpiryQuotes, normalised: NormalisedQuotes, options: FitOptions
) -> tuple[PriceNetwork, CurveSolution]:
    """The fit to the mids, or inside the spreads where that one is not."""
    level = quotes.forward, quotes.discount_factor
    fit = compiled(_smooth, n=options.kinks)
    network, solution, programme = fit(
        normalised, options.asked, options.narrowest, *level
    )
    _check_told(quotes, solution)
    if not solution.inside:
        fit = compiled(_inside)
        network, solution = fit(normalised, programme, solution, *level)
    return network, solution


def far_outside(quotes: NormalisedQuotes, fitted: ArrayLike) -> np.ndarray:
    """Quotes so far outside of their spreads that they are wrong, not tight.

    No curve that is free of arbitrage is near them, and what they draw it by on the
    way is taken from their neighbours: they are set aside, and the rest fitted again.
    Where many are, it is not they who are wrong.

    Args:
        quotes: Normalised; the last axis is that of an expiry's quotes.
        fitted: Prices fitted to them, of their shape.

    Returns:
        A mask of that shape.
    """
    counted = np.asarray(quotes.weight) > 0.0
    price = np.asarray(fitted)
    excess = np.maximum(quotes.lower - price, price - quotes.upper)
    # A locked quote between locked ones does not say what would be far.
    unit = np.asarray(quotes.half_spread)
    known = counted & (unit > 0.0)
    excess = np.where(known, excess, -np.inf) / np.where(known, unit, 1.0)
    # A quote that is less far outside than the one beside it may be right, and drawn
    # away by it.
    beside = np.maximum(_shifted(excess, 1), _shifted(excess, -1))
    far = (excess > FAR) & (excess >= beside)
    few = far.sum(axis=-1) <= MOST_FAR * counted.sum(axis=-1)
    return far & few[..., None]


def _shifted(values: np.ndarray, places: int) -> np.ndarray:
    """The last axis moved by `places`; what comes in is minus infinity."""
    moved = np.roll(values, places, axis=-1)
    moved[..., 0 if places > 0 else -1] = -np.inf
    return moved


def _fit_batch(
    quotes: list[ExpiryQuotes], options: FitOptions
) -> list[PriceCurve | Exception]:
    """Fit quotes of one padded length in one call; few are fitted one by one.

    What cannot be fitted has its error in the place of its curve.
    """
    if len(quotes) < BATCH // 2:
        return [_attempt(_fit_smooth, one, options) for one in quotes]
    normalised = [normalise(one) for one in quotes]
    rows = [*normalised, *[normalised[0]] * (BATCH - len(quotes))]
    levels = np.ones((BATCH, 2))
    levels[: len(quotes)] = [(one.forward, one.discount_factor) for one in quotes]
    fit = compiled(_smooth_in_turn, n=options.kinks)
    stacked = jax.tree.map(lambda *each: np.stack(each), *rows)
    fitted = fit(stacked, levels, options.asked, options.narrowest)
    fitted = jax.tree.map(np.asarray, fitted)
    outcomes = []
    for row, one in enumerate(quotes):
        network, solution = jax.tree.map(itemgetter(row), fitted)
        # A second fit needs the programme, too large to keep for all.
        outcomes.append(
            _attempt(_finished, one, network, solution)
            if solution.inside
            else _attempt(_fit_smooth, one, options)
        )
    return outcomes


def _attempt(fit: Callable[..., PriceCurve], *arguments: Any) -> PriceCurve | Exception:
    """The curve that `fit` gives, or the error that says why there is none."""
    try:
        return fit(*arguments)
    except (QuoteError, FitError) as error:
        return error


def _smooth_in_turn(quotes, levels, smoothing, narrowest, *, n):
    """`_smooth` for many quotes, one after the other: faster than side by side.

    Side by side all would take the steps of the slowest, and small factorisations gain
    nothing from being many.
    """

    def fit(row):
        quotes, level = row
        network, solution, _ = _smooth(quotes, smoothing, narrowest, *level, n=n)
        return network, solution

    return jax.lax.map(fit, (quotes, levels))


def _smooth(quotes, smoothing, narrowest, forward, discount_factor, *, n):
    """Fit the mids; the solution, its network in currency and its programme."""
    solution, programme = fit_mids(quotes, smoothing, narrowest, n=n)
    return _in_currency(solution, forward, discount_factor), solution, programme


def _inside(quotes, programme, solution, forward, discount_factor):
    """Fit with the spreads as bounds; the solution and its network in currency."""
    solution = fit_inside(quotes, programme, solution)
    return _in_currency(solution, forward, discount_factor), solution


def _in_currency(solution: CurveSolution, forward, discount_factor) -> PriceNetwork:
    return PriceNetwork(
        kinks=solution.kinks * forward,
        weights=solution.weights * discount_factor,
        bandwidths=solution.bandwidths,
    )


def _check_told(quotes: ExpiryQuotes, solution: CurveSolution) -> None:
    """Raise if no quote told a volatility."""
    if not 0.0 < solution.at_the_money < np.inf:
        raise QuoteError(
            f"{quotes}: no quote has a bid and a time value, so no volatility can be "
            "implied; check prices, forward, discount factor and the unit of "
            "volatilities"
        )


def _finished(
    quotes: ExpiryQuotes, network: PriceNetwork, solution: CurveSolution
) -> PriceCurve:
    """The curve, with what is known of its fit."""
    report = FitReport(
        quotes=quotes,
        smoothing=float(solution.smoothing),
        steps=int(solution.steps),
        gap=float(solution.gap),
        objective=float(solution.objective),
    )
    return _curve(quotes, network, report)


def least_error(quotes: ExpiryQuotes) -> float:
    """The volatility error of the unsmoothed fit to the mids, whatever the spreads.

    Quotes with a bid of zero do not count: their mid says little about the volatility.
    """
    told = quotes.bid != 0.0
    if not told.any():
        return np.nan
    nothing = np.full(int(told.sum()), np.nan)
    mids = replace(quotes.take(told), bid=nothing, ask=nothing)
    with one_thread():
        return _fit_unsmoothed(mids).volatility_error


def _fit_unsmoothed(quotes: ExpiryQuotes) -> PriceCurve:
    normalised = normalise(quotes, KINK_BUCKETS)
    moneyness = np.sort(quotes.strike / quotes.forward)
    last = max(moneyness[-1], 1.0)
    extra = normalised.mid.shape[0] - len(quotes)
    far = last * np.geomspace(BEYOND_LAST[0], BEYOND_LAST[-1], len(BEYOND_LAST) + extra)
    kinks = np.concatenate([[0.0], moneyness, far])
    fit = compiled(fit_exactly, in_volatility=not quotes.has_spreads)
    weights, solution = fit(normalised, kinks)
    network = PriceNetwork(
        kinks=jnp.asarray(kinks * quotes.forward),
        weights=weights * quotes.discount_factor,
        bandwidths=jnp.zeros_like(weights),
    )
    report = FitReport(
        quotes=quotes,
        smoothing=0.0,
        steps=int(solution.steps),
        gap=float(solution.gap),
        objective=float(solution.objective),
    )
    return _curve(quotes, network, report)


def _curve(
    quotes: ExpiryQuotes, network: PriceNetwork, report: FitReport
) -> PriceCurve:
    """The curve, after the answer has been checked."""
    if not report.gap <= ACCEPTABLE_GAP:
        raise FitError(
            f"{quotes}: duality gap {report.gap:.1e} after {report.steps} steps, above "
            f"the tolerance of {ACCEPTABLE_GAP:.0e}; check the quotes for outliers, or "
            "raise `smoothing`"
        )
    return checked_curve(quotes, network, report)


def checked_curve(
    quotes: ExpiryQuotes, network: PriceNetwork, report: FitReport
) -> PriceCurve:
    """The curve of a network in currency, if its weights are those of a law.

    Raises:
        FitError: If one is negative, or mass or mean are off by more than rounding.
    """
    weights = np.asarray(network.weights) / quotes.discount_factor
    kinks = np.asarray(network.kinks) / quotes.forward
    mass = weights.sum() - 1.0
    mean = weights @ kinks - 1.0
    if weights.min() < 0.0 or abs(mass) > 1e-12 or abs(mean) > 1e-12:
        raise FitError(
            f"{quotes}: the weights miss their identities: least {weights.min():.1e}, "
            f"mass off by {mass:.1e}, forward by {mean:.1e}; check the quotes for "
            "outliers"
        )
    return PriceCurve(
        network=network,
        forward=quotes.forward,
        discount_factor=quotes.discount_factor,
        time_to_expiry=quotes.time_to_expiry,
        expiry=None if quotes.expiry is None else f"{quotes.expiry:%Y-%m-%d}",
        fit=report,
    )

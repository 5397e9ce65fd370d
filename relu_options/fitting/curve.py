"""Fit the price curve of one expiry to a table of quotes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Literal, Unpack

import jax.numpy as jnp
import numpy as np
import pandas as pd

from relu_options.arbitrage import check_quote_arbitrage
from relu_options.curves import FitReport, PriceCurve
from relu_options.curves_by_expiry import CurvesByExpiry
from relu_options.errors import FitError, QuoteError, refuse
from relu_options.expiry_labels import numbered
from relu_options.fitting.compiled import one_thread
from relu_options.fitting.kernels import FitKernel
from relu_options.fitting.least_error import least_square
from relu_options.fitting.quotes import (
    NormalisedQuotes,
    far_outside,
    normalise,
    told_smile,
)
from relu_options.fitting.smooth import NARROWEST, FitOptions, SmoothFit, fit_smooth
from relu_options.fitting.unsmoothed import fit_unsmoothed
from relu_options.fitting.workers import cores
from relu_options.market_data import (
    ExpiryQuotes,
    Quotes,
    Reading,
    prepare_quotes,
    prepare_slices,
    prepared_again,
)
from relu_options.market_data.clocks import expiry_time, years_between
from relu_options.networks import PriceNetwork
from relu_options.progress import progress_bar

if TYPE_CHECKING:
    from relu_options.fitting.training import TrainingOptions

ACCEPTABLE_GAP = 1e-6
KINKS = 64  # hidden units of a curve


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
    convex programme of `relu_options.fitting.objective`: it is inside every spread if a
    curve of this form can be, and otherwise leaves the spreads by as little as it can.
    Its kinks stand by distance from the forward or by the normal score of a first fit,
    whichever the quotes prefer (`relu_options.fitting.grid`, `.smoothing`).
    Quotes that even so stay ten half-spreads and more outside are wrong, not tight: the
    rest is then fitted without them, and they are named with the others that are left.
    Training by gradient moves the kinks and bandwidths too, for any loss
    (`relu_options.fitting.curve_training`): with few kinks it is the better fit.

    Args:
        quotes: Options of one expiry: what `read_chain` reads, one slice of a chain, or
            prepared quotes.
        smoothing: `"auto"` chooses it by the noise of the quotes, down to next to none
            where they are exact; a number is in units of the reference; zero fits the
            unsmoothed ReLU network, which reaches the least error of any
            arbitrage-free curve.
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
            `columns` and so on. `kernel` is the law of the hidden units: "lognormal",
            or "normal" for an underlying that may be negative; "auto", the default,
            takes the normal one where the forward or a strike is zero or below.
            Prepared quotes have one, and take another.

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

        Oil in April 2020: the forward is negative, and volatilities are in dollars.

        >>> strike = np.arange(-60.0, 1.0, 5.0)
        >>> options = dict(forward=-37.0, time_to_expiry=0.1, strike=strike)
        >>> is_call = strike >= -37.0
        >>> mid = ro.bachelier.price(volatility=60.0, **options, is_call=is_call)
        >>> oil = pd.DataFrame({"strike": strike, "mid": mid,
        ...                     "option_type": np.where(is_call, "call", "put")})
        >>> curve = ro.fit_curve(oil, forward=-37.0, discount_factor=1.0,
        ...                      time_to_expiry=0.1)
        >>> curve.kernel, round(float(curve.implied_volatility(-50.0)), 2)
        ('normal', 60.0)
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
        quotes = prepared_again(quotes, **reading)
    else:
        quotes = prepare_quotes(quotes, **reading)
    if on_arbitrage == "raise":
        check_quote_arbitrage(
            **quotes.listed,
            forward=quotes.forward,
            discount_factor=quotes.discount_factor,
            signed=quotes.is_signed,
        )
    if method == "gradient":
        from relu_options.fitting.curve_training import train_curve
        from relu_options.fitting.training import TrainingOptions

        training = training or TrainingOptions()
        return _checked_curve(quotes, *train_curve(quotes, options, training))
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
            `read_chain`; `kernel` as for `fit_curve`.

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
    with (
        one_thread(),
        ThreadPoolExecutor(cores()) as pool,
        progress_bar("curves", len(prepared), progress) as bar,
    ):
        outcomes = []
        for outcome in pool.map(partial(_attempt, options=options), prepared):
            outcomes.append(outcome)
            bar.update()
    labels, curves = [], []
    for label, outcome in zip(numbered(expiry_labels(prepared)), outcomes, strict=True):
        if isinstance(outcome, PriceCurve):
            labels.append(label)
            curves.append(outcome)
        else:
            left_out.append((label, str(outcome)))
    if not curves:
        raise nothing_left(left_out)
    return CurvesByExpiry(tuple(labels), tuple(curves), tuple(left_out))


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


def _fit_smooth(quotes: ExpiryQuotes, options: FitOptions) -> PriceCurve:
    (normalised,) = normalise([quotes])
    fit = _smooth(quotes, normalised, options)
    far = far_outside(normalised, fit.fitted)
    if far.any():
        fit = _smooth(quotes, normalised.take(~far), options)
    return _finished(quotes, fit)


def _smooth(
    quotes: ExpiryQuotes, normalised: NormalisedQuotes, options: FitOptions
) -> SmoothFit:
    return fit_smooth(
        normalised,
        told_smile(quotes, normalised),
        smoothing=options.asked,
        narrowest=options.narrowest,
        n=options.kinks,
    )


def _attempt(quotes: ExpiryQuotes, options: FitOptions) -> PriceCurve | Exception:
    """The curve, or the error that says why there is none."""
    try:
        return _fit_smooth(quotes, options)
    except (QuoteError, FitError) as error:
        return error


def _finished(quotes: ExpiryQuotes, fit: SmoothFit) -> PriceCurve:
    """The curve, with what is known of its fit."""
    objective = fit.trial.objective
    network = _network(
        quotes,
        objective.kernel,
        objective.places,
        fit.weights,
        objective.grid.bandwidths,
    )
    report = FitReport(
        quotes=quotes,
        smoothing=fit.trial.relative_smoothing,
        steps=fit.steps,
        gap=fit.gap,
        objective=fit.value,
    )
    return _curve(quotes, network, report)


def _network(
    quotes: ExpiryQuotes,
    kernel: FitKernel,
    places: np.ndarray,
    weights: np.ndarray,
    bandwidths: np.ndarray,
) -> PriceNetwork:
    """A network in currency."""
    return PriceNetwork(
        kinks=jnp.asarray(kernel.currency(places, quotes)),
        weights=jnp.asarray(weights * quotes.discount_factor),
        bandwidths=jnp.asarray(bandwidths * kernel.width(quotes)),
        kernel=kernel.network,
    )


def least_error(quotes: ExpiryQuotes) -> float:
    """A volatility error that no arbitrage-free curve goes below, for the mids.

    Quotes with a bid of zero do not count: their mid says little about the volatility.
    """
    told = quotes.bid != 0.0
    if not told.any():
        return np.nan
    nothing = np.full(int(told.sum()), np.nan)
    mids = replace(quotes.take(told), bid=nothing, ask=nothing)
    (normalised,) = normalise([mids])
    total = normalised.total_volatility
    normalised = normalised.take((total > 0.0) & (total < np.inf))
    if not len(normalised):
        return np.nan
    with one_thread():
        square = least_square(normalised) / len(normalised)
    width = normalised.kernel.width(mids)
    return float(width * np.sqrt(square / quotes.time_to_expiry))


def _fit_unsmoothed(quotes: ExpiryQuotes) -> PriceCurve:
    (normalised,) = normalise([quotes])
    kinks, weights, solution = fit_unsmoothed(normalised)
    kernel = normalised.kernel
    network = _network(quotes, kernel, kinks, weights, np.zeros(len(kinks)))
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
    return _checked_curve(quotes, network, report)


def _checked_curve(
    quotes: ExpiryQuotes, network: PriceNetwork, report: FitReport
) -> PriceCurve:
    """The curve of a network in currency, if its weights are those of a law.

    Raises:
        FitError: If one is negative, or mass or mean are off by more than rounding.
    """
    weights = np.asarray(network.weights) / quotes.discount_factor
    kinks = np.asarray(network.kinks)
    mass = weights.sum() - 1.0
    mean = (weights @ kinks - quotes.forward) / max(quotes.unit, abs(quotes.forward))
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

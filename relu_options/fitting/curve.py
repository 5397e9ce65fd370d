"""Fit the price curve of one expiry to a table of quotes."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Literal

import jax.numpy as jnp
import numpy as np
import pandas as pd
from threadpoolctl import ThreadpoolController

from relu_options.arbitrage import check_quote_arbitrage
from relu_options.curves import FitReport, PriceCurve
from relu_options.errors import FitError, QuoteError
from relu_options.fitting.exact import BEYOND_LAST, fit_exactly
from relu_options.fitting.programme import (
    NARROWEST,
    NormalisedQuotes,
    fit_inside,
    fit_mids,
)
from relu_options.market_data import ExpiryQuotes, OptionChain, prepare_quotes
from relu_options.networks import PriceNetwork

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController as Controller

BUCKETS = (32, 64, 128, 192, 256, 384, 512, 1024, 2048)  # padded numbers of quotes
ACCEPTABLE_GAP = 1e-6


def fit_curve(
    quotes: pd.DataFrame | OptionChain | ExpiryQuotes,
    *,
    forward: float | None = None,
    discount_factor: float | None = None,
    time_to_expiry: float | None = None,
    quote_time: object = None,
    smoothing: float | str = "auto",
    kinks: int = 64,
    narrowest: float = NARROWEST,
    on_arbitrage: Literal["fit", "raise"] = "fit",
) -> PriceCurve:
    r"""Fit an arbitrage-free price curve to the quotes of one expiry.

    The curve is a one-layer network with non-negative output weights, found by the
    convex programme of `relu_options.fitting.programme`: it is inside every spread if a
    curve of this form can be, and otherwise leaves the spreads by as little as it can.

    Args:
        quotes: Options of one expiry: see `relu_options.market_data.prepare_quotes`.
        forward: Currency units; from put-call parity if not given.
        discount_factor: Price today of one unit of currency paid at expiry; likewise.
        time_to_expiry: Years; from expiry and quote time if not given.
        quote_time: When the quotes were taken.
        smoothing: `"auto"` chooses it by cross-validation; a number is in units of the
            reference; zero fits the unsmoothed ReLU network, which reaches the least
            error of any arbitrage-free curve.
        kinks: Number of hidden units of a smooth curve.
        narrowest: Bandwidth at the forward, in at-the-money total volatilities.
        on_arbitrage: `"fit"` fits with the least excess and names the quotes that are
            left (`PriceCurve.conflicts`); `"raise"` raises instead if no arbitrage-free
            curve is inside all spreads, or meets all mids where only those are known.

    Returns:
        The fitted curve.

    Raises:
        QuoteError: If the table cannot be used; the message names rows and remedy.
        ArbitrageError: If the quotes admit an arbitrage and `on_arbitrage="raise"`.
        FitError: If the programme was not solved to its tolerance.
        ValueError: If an argument is out of range.

    Examples:
        >>> import relu_options as ro
        >>> chain = ro.bundled_chain()
        >>> curve = ro.fit_curve(chain[chain.slices[2]])
        >>> bool(curve.certificate)
        True
    """
    if on_arbitrage not in ("fit", "raise"):
        raise ValueError(f"on_arbitrage must be 'fit' or 'raise', not {on_arbitrage!r}")
    if isinstance(smoothing, str):
        valid = smoothing == "auto"
    else:
        valid = bool(np.isfinite(smoothing)) and smoothing >= 0.0
    if not valid:
        raise ValueError(f"smoothing must be 'auto' or >= 0, not {smoothing!r}")
    if not isinstance(kinks, int | np.integer) or kinks < 8:
        raise ValueError(f"kinks must be a whole number from 8 on, not {kinks!r}")
    if not 0.0 < narrowest < np.inf:
        raise ValueError(f"narrowest must be positive and finite, not {narrowest!r}")
    if not isinstance(quotes, ExpiryQuotes):
        quotes = prepare_quotes(
            quotes,
            forward=forward,
            discount_factor=discount_factor,
            time_to_expiry=time_to_expiry,
            quote_time=quote_time,
        )
    if on_arbitrage == "raise":
        check_quote_arbitrage(
            **quotes.listed,
            forward=quotes.forward,
            discount_factor=quotes.discount_factor,
        )
    with _blas().limit(limits=1):
        if smoothing == 0.0:
            return _fit_unsmoothed(quotes)
        return _fit_smooth(quotes, smoothing, kinks, narrowest)


@cache
def _blas() -> Controller:
    """The linear algebra libraries, which fits keep to one thread.

    A team of threads costs a small matrix more than it saves.
    """
    return ThreadpoolController().select(user_api="blas")


def _normalised(quotes: ExpiryQuotes) -> NormalisedQuotes:
    """Sorted, in units of the discounted forward, padded to a bucket."""
    order = np.argsort(quotes.strike)
    unit = 1.0 / (quotes.discount_factor * quotes.forward)
    size = next((bucket for bucket in BUCKETS if bucket >= len(quotes)), None)
    if size is None:
        raise QuoteError(
            f"{len(quotes)} strikes exceed the {BUCKETS[-1]} that one fit takes; "
            "thin them out"
        )
    extra = size - len(quotes)

    def padded(values, filling):
        return np.concatenate([values[order], np.full(extra, filling)])

    bid = np.where(np.isnan(quotes.bid), -np.inf, quotes.bid * unit)
    ask = np.where(np.isnan(quotes.ask), np.inf, quotes.ask * unit)
    return NormalisedQuotes(
        log_moneyness=jnp.asarray(padded(np.log(quotes.strike / quotes.forward), 0.0)),
        mid=jnp.asarray(padded(quotes.mid * unit, 0.1)),
        lower=jnp.asarray(padded(bid, -np.inf)),
        upper=jnp.asarray(padded(ask, np.inf)),
        weight=jnp.asarray(padded(np.ones(len(quotes)), 0.0)),
    )


def _fit_smooth(quotes, smoothing, kinks, narrowest) -> PriceCurve:
    normalised = _normalised(quotes)
    asked = np.nan if isinstance(smoothing, str) else float(smoothing)
    solution, programme = fit_mids(normalised, asked, narrowest, n=kinks)
    if not np.isfinite(solution.at_the_money):
        raise QuoteError(
            "no quote has a bid and a time value, so no volatility can be implied; "
            "check prices, forward and discount factor"
        )
    fitted = np.asarray(solution.fitted)
    if bool(((fitted < normalised.lower) | (fitted > normalised.upper)).any()):
        solution = fit_inside(normalised, programme, solution.smoothing)
    return _curve(
        quotes,
        np.asarray(solution.kinks),
        np.asarray(solution.weights),
        np.asarray(solution.bandwidths),
        FitReport(
            quotes=quotes,
            smoothing=float(solution.smoothing),
            steps=int(solution.steps),
            gap=float(solution.gap),
            objective=float(solution.objective),
        ),
    )


def _fit_unsmoothed(quotes: ExpiryQuotes) -> PriceCurve:
    normalised = _normalised(quotes)
    moneyness = np.sort(quotes.strike / quotes.forward)
    last = max(moneyness[-1], 1.0)
    extra = normalised.mid.shape[0] - len(quotes)
    far = last * np.geomspace(BEYOND_LAST[0], BEYOND_LAST[-1], len(BEYOND_LAST) + extra)
    kinks = np.concatenate([[0.0], moneyness, far])
    solution, _ = fit_exactly(
        normalised, jnp.asarray(kinks), in_volatility=not quotes.has_spreads
    )
    weights = np.asarray(solution.iterate.x)
    report = FitReport(
        quotes=quotes,
        smoothing=0.0,
        steps=int(solution.steps),
        gap=float(solution.gap),
        objective=float(solution.objective),
    )
    return _curve(quotes, kinks, weights, np.zeros_like(kinks), report)


def _curve(quotes, kinks, weights, bandwidths, report: FitReport) -> PriceCurve:
    """The curve in currency, after the answer has been checked."""
    if not report.gap <= ACCEPTABLE_GAP:
        raise FitError(
            f"duality gap {report.gap:.1e} after {report.steps} steps, above the "
            f"tolerance of {ACCEPTABLE_GAP:.0e}; check the quotes for outliers, or "
            "raise `smoothing`"
        )
    network = PriceNetwork(
        kinks=jnp.asarray(kinks * quotes.forward),
        weights=jnp.asarray(weights * quotes.discount_factor),
        bandwidths=jnp.asarray(bandwidths),
    )
    mass = weights.sum() - 1.0
    mean = weights @ kinks - 1.0
    if weights.min() < 0.0 or abs(mass) > 1e-12 or abs(mean) > 1e-12:
        raise FitError(
            f"the weights miss their identities: least {weights.min():.1e}, mass off "
            f"by {mass:.1e}, forward by {mean:.1e}; check the quotes for outliers"
        )
    return PriceCurve(
        network=network,
        forward=quotes.forward,
        discount_factor=quotes.discount_factor,
        time_to_expiry=quotes.time_to_expiry,
        expiry=None if quotes.expiry is None else f"{quotes.expiry:%Y-%m-%d}",
        fit=report,
    )

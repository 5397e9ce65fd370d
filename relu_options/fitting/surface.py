"""Fit the price surface of all expiries of a chain."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, Unpack

import jax
import numpy as np
import pandas as pd

from relu_options.arbitrage.surface_certificate import settle_weights
from relu_options.curves import FitReport
from relu_options.errors import FitError, QuoteError
from relu_options.fitting.curve import (
    ACCEPTABLE_GAP,
    FitOptions,
    compiled,
    expiry_labels,
    far_outside,
    normalise,
    nothing_left,
    one_thread,
    shared_quote_time,
)
from relu_options.fitting.programme import NARROWEST, PENALTY, NormalisedQuotes
from relu_options.fitting.surface_programme import (
    SurfaceProgramme,
    SurfaceSolution,
    fit_apart,
    fit_together,
)
from relu_options.market_data import (
    ExpiryQuotes,
    OptionChain,
    Quotes,
    Reading,
    prepare_slices,
)
from relu_options.surfaces import PriceSurface, SurfaceFit

if TYPE_CHECKING:
    from relu_options.fitting.training import TrainingOptions

EXPIRY_BUCKETS = (1, 4, 12, 24, 40, 64, 128)  # padded numbers of expiries
QUOTE_BUCKETS = (32, 64, 128, 288, 576, 2048)  # padded numbers of quotes of an expiry
NEAREST = (48, 96)  # spreads of each expiry that are bounds, before all of them are
ROUNDS = 4  # choices of so many, each by the solution before, before there are more
TOLERANCE = 1e-6
FARTHEST_APART = 200.0  # ratio of deviations: bandwidths are half of one at that
LEAST_SHADOW = 1e-6  # of the dearest shadow price: below it, none is reported


def fit_surface(
    quotes: Quotes | ExpiryQuotes | Iterable[Quotes | ExpiryQuotes],
    *,
    smoothing: float | str = "auto",
    kinks: int = 80,
    narrowest: float = NARROWEST,
    method: Literal["convex", "gradient"] = "convex",
    training: TrainingOptions | None = None,
    **reading: Unpack[Reading],
) -> PriceSurface:
    r"""Fit a surface without static arbitrage to the quotes of several expiries.

    All expiries share their hidden units. The output weights are found by the convex
    programme of `relu_options.fitting.surface_programme`: inside every spread if a
    surface of this form can be, and otherwise outside by as little as it can, in order
    at every strike and time; quotes far outside even so are set aside, as by
    `fit_curve`, and named in `surface.left_quotes`. Contracts that settle in the
    morning and in the afternoon of one date are two expiries. Training by gradient
    (`relu_options.fitting.surface_training`) goes on from there and moves the kinks and
    bandwidths too, in order at every step of it: with few kinks a better fit.

    Args:
        quotes: A chain; or what `read_chain` reads, of several expiries; or the
            prepared quotes of each expiry.
        smoothing: `"auto"` chooses it for every expiry by the noise of its quotes; a
            number is in units of the reference.
        kinks: Number of hidden units.
        narrowest: Bandwidth at the forward, in at-the-money total volatilities of the
            expiry where that is least.
        method: `"convex"`, or `"gradient"` to go on and learn kinks and bandwidths.
        training: How to train by gradient.
        **reading: What is known of the quotes, and how to read them, as for
            `read_chain`: `quote_time`, `rate`, `forward` by expiry, `columns` and so
            on.

    Returns:
        The fitted surface.

    Raises:
        QuoteError: If no expiry can be used, or two have one time to expiry; the
            message says why. Of several, those that cannot are left out and named in
            `surface.fit.left_out`.
        FitError: If the programme was not solved to its tolerance.
        ValueError: If an argument is out of range.

    Examples:
        >>> import relu_options as ro
        >>> surface = ro.fit_surface(ro.bundled_chain())
        >>> surface.share_inside
        1.0
        >>> print(len(surface), bool(surface.certificate))
        8 True
    """
    options = FitOptions(smoothing, kinks, narrowest)
    if options.asked == 0.0:
        raise ValueError("a surface is fitted smooth; smoothing must be positive")
    if method not in ("convex", "gradient"):
        raise ValueError(f"method must be 'convex' or 'gradient', not {method!r}")
    if training is not None and method == "convex":
        raise ValueError("training is for method='gradient'; the convex fit has none")
    prepared, left_out, spot = prepared_expiries(quotes, **reading)
    with one_thread():
        batch = _batch(prepared)
        programme = _apart(batch, prepared, options)
        unresolved = _unresolved(
            prepared, np.asarray(programme.programmes.at_the_money)
        )
        if unresolved:
            left_out = (*left_out, *unresolved)
            prepared = prepared[len(unresolved) :]
            batch = _batch(prepared)
            programme = _apart(batch, prepared, options)
        solution = _together(batch, programme, prepared, programme.weights)
        far = far_outside(batch, solution.fitted)
        if far.any():
            batch = replace(batch, weight=np.where(far, 0.0, batch.weight))
            programme = _apart(batch, prepared, options)
            solution = _together(batch, programme, prepared, solution.weights)
    count = len(prepared)
    if not float(solution.gap) <= ACCEPTABLE_GAP:
        raise FitError(
            f"{count} expiries: duality gap {float(solution.gap):.1e} after "
            f"{int(solution.steps)} steps, above the tolerance of "
            f"{ACCEPTABLE_GAP:.0e}; check the quotes for outliers, or raise `smoothing`"
        )
    surface = _surface(prepared, left_out, spot, solution)
    if method == "convex":
        return surface
    from relu_options.fitting.surface_training import train_surface

    return train_surface(
        prepared,
        left_out,
        spot,
        narrowest=narrowest,
        start=surface,
        training=training,
    )


def prepared_expiries(
    quotes: Quotes | ExpiryQuotes | Iterable[Quotes | ExpiryQuotes],
    **reading: Unpack[Reading],
) -> tuple[list[ExpiryQuotes], tuple[tuple[str, str], ...], float | None]:
    """Quotes by time to expiry, the slices left out with reasons, and the spot."""
    slices = prepare_slices(quotes, **reading)
    spot = None if slices.chain is None else _spot(slices.chain)
    prepared, left_out = slices.quotes, list(slices.skipped.items())
    if not prepared:
        raise nothing_left(left_out)
    prepared.sort(key=lambda one: one.time_to_expiry)
    for before, after in pairwise(prepared):
        if before.time_to_expiry == after.time_to_expiry:
            raise QuoteError(
                f"two expiries have one time to expiry, {after.time_to_expiry:.6g} "
                f"years: {before} and {after}; select one of them"
            )
    return prepared, tuple(left_out), spot


def _spot(chain: OptionChain) -> float | None:
    """The price of the underlying, if the rows agree on one."""
    rows = chain.table
    if "underlying_price" not in rows:
        return None
    prices = rows["underlying_price"].dropna().unique()
    return float(prices[0]) if len(prices) == 1 and prices[0] > 0.0 else None


def _batch(prepared: list[ExpiryQuotes]) -> NormalisedQuotes:
    """Normalised quotes of all expiries, padded to buckets with the last again."""
    rows = max(len(one) for one in prepared)
    size = next((bucket for bucket in QUOTE_BUCKETS if bucket >= rows), None)
    count = next((bucket for bucket in EXPIRY_BUCKETS if bucket >= len(prepared)), None)
    if size is None or count is None:
        raise QuoteError(
            f"{len(prepared)} expiries of up to {rows} strikes exceed the "
            f"{EXPIRY_BUCKETS[-1]} of {QUOTE_BUCKETS[-1]} that one fit takes; thin them"
        )
    each = [normalise(one, (size,)) for one in prepared]
    each += [each[-1]] * (count - len(each))
    return jax.tree.map(lambda *values: np.stack(values), *each)


def _apart(
    batch: NormalisedQuotes, prepared: list[ExpiryQuotes], options: FitOptions
) -> SurfaceProgramme:
    """The programmes of all expiries, with what a first solution told."""
    fit = compiled(fit_apart, n=options.kinks)
    programme = fit(batch, options.asked, options.narrowest)
    deviations = np.asarray(programme.programmes.at_the_money)[: len(prepared)]
    unknown = ~((deviations > 0.0) & (deviations < np.inf))
    if unknown.any():
        raise QuoteError(
            f"{prepared[int(unknown.argmax())]}: no quote has a bid and a time value, "
            "so no volatility can be implied; check prices, forward, discount factor "
            "and the unit of volatilities, or leave the expiry out"
        )
    return programme


def _unresolved(
    prepared: list[ExpiryQuotes], at_the_money: np.ndarray
) -> list[tuple[str, str]]:
    """The first expiries whose laws the shared bandwidths are too wide for, and why."""
    deviations = at_the_money[: len(prepared)]
    reach = FARTHEST_APART * deviations
    narrow = int(np.argmax(reach >= deviations.max()))
    labels = expiry_labels(prepared)
    return [
        (
            label,
            f"its deviation, {deviation:.2g}, is too small beside that of "
            f"{labels[int(deviations.argmax())]}, {deviations.max():.2g}, for one set "
            "of bandwidths; fit the short expiries by themselves",
        )
        for label, deviation in zip(labels[:narrow], deviations, strict=False)
    ]


def _together(
    batch: NormalisedQuotes,
    programme: SurfaceProgramme,
    prepared: list[ExpiryQuotes],
    weights: jax.Array,
) -> SurfaceSolution:
    """The coupled solution from `weights`, with as many bounds as it takes."""
    padded, size = batch.mid.shape
    place = np.arange(padded)
    coupled = (place > 0) & (place < len(prepared))
    if not any(one.has_spreads for one in prepared):
        fit = compiled(fit_together, nearest=0)
        return fit(batch, programme, weights, coupled, TOLERANCE)
    most = int(programme.left.max())
    for nearest in (count for count in NEAREST if most < count < size):
        fit = compiled(fit_together, nearest=nearest)
        for _ in range(ROUNDS):
            solution = fit(batch, programme, weights, coupled, TOLERANCE)
            if solution.complete:
                return solution
            weights = solution.weights
    fit = compiled(fit_together, nearest=size)
    return fit(batch, programme, weights, coupled, TOLERANCE)


def _surface(
    prepared: list[ExpiryQuotes],
    left_out: tuple[tuple[str, str], ...],
    spot: float | None,
    solution: SurfaceSolution,
) -> PriceSurface:
    """The surface, after the last bits have been settled and the answer checked."""
    count = len(prepared)
    kinks = np.asarray(solution.kinks)
    weights = settle_weights(np.asarray(solution.weights)[:count], kinks)
    forwards = np.array([one.forward for one in prepared])
    discounts = np.array([one.discount_factor for one in prepared])
    labels = expiry_labels(prepared)
    curves = tuple(
        FitReport(
            quotes=one,
            smoothing=float(solution.smoothing[place]),
            steps=int(solution.steps),
            gap=float(solution.gap),
            objective=float(solution.objective[place]),
        )
        for place, one in enumerate(prepared)
    )
    fit = SurfaceFit(
        curves=curves,
        steps=int(solution.steps),
        gap=float(solution.gap),
        _conflicts=_conflicts(solution, prepared, labels),
        left_out=left_out,
    )
    return PriceSurface(
        kinks=kinks,
        weights=weights,
        bandwidths=np.asarray(solution.bandwidths),
        times=np.array([one.time_to_expiry for one in prepared]),
        forwards=forwards,
        discount_factors=discounts,
        expiries=labels,
        spot=spot,
        quote_time=shared_quote_time(prepared),
        fit=fit,
    )


def _conflicts(
    solution: SurfaceSolution, prepared: list[ExpiryQuotes], labels: tuple[str, ...]
) -> pd.DataFrame:
    """Shadow prices of the order, dearest pair first; see `PriceSurface.conflicts`."""
    kinks = np.asarray(solution.kinks)[1:-1]
    prices = np.asarray(solution.shadow_prices)[: len(prepared)]
    # The penalty is per half-spread: it makes the excess of a typical quote.
    widths = [0.5 * (one.ask - one.bid) for one in prepared if one.has_spreads]
    typical = float(np.median(np.concatenate(widths))) / PENALTY if widths else 1.0
    tables = []
    for place in range(1, len(prepared)):
        one = prepared[place]
        scale = typical / (one.forward * one.discount_factor)
        table = {
            "earlier": labels[place - 1],
            "later": labels[place],
            "strike": one.forward * kinks,
            "shadow_price": scale * prices[place],
        }
        tables.append(pd.DataFrame(table))
    columns = ["earlier", "later", "strike", "shadow_price", "pair_total"]
    if not tables:
        return pd.DataFrame(columns=columns)
    table = pd.concat(tables, ignore_index=True)
    least = LEAST_SHADOW * table["shadow_price"].max()
    table = table[table["shadow_price"] > least]
    totals = table.groupby(["earlier", "later"])["shadow_price"].transform("sum")
    table = table.assign(pair_total=totals)
    order = ["pair_total", "shadow_price"]
    return table.sort_values(order, ascending=False).reset_index(drop=True)

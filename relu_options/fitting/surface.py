"""Fit the price surface of all expiries of a chain."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, Unpack

import numpy as np
import pandas as pd

from relu_options.arbitrage.surface_certificate import settle_weights
from relu_options.curves import FitReport
from relu_options.errors import FitError, QuoteError
from relu_options.fitting.compiled import one_thread
from relu_options.fitting.coupled import HOW, CoupledFit, fit_apart, fit_together
from relu_options.fitting.curve import (
    ACCEPTABLE_GAP,
    expiry_labels,
    nothing_left,
    shared_quote_time,
)
from relu_options.fitting.objective import PENALTY
from relu_options.fitting.quotes import Smile, far_outside, normalise, told_smile
from relu_options.fitting.smooth import NARROWEST, FitOptions
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
    programme of `relu_options.fitting.coupled`: inside every spread if a
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
        normalised = normalise(prepared)
        smiles = list(map(told_smile, prepared, normalised))
        unresolved = _unresolved(prepared, smiles)
        left_out = (*left_out, *unresolved)
        rest = slice(len(unresolved), None)
        prepared, normalised, smiles = prepared[rest], normalised[rest], smiles[rest]
        if len(prepared) > HOW.expiries[-1]:
            raise QuoteError(
                f"{len(prepared)} expiries exceed the {HOW.expiries[-1]} that one fit "
                "takes; thin them out"
            )
        how = {"smoothing": options.asked, "narrowest": narrowest, "n": kinks}
        solution = fit_together(fit_apart(normalised, smiles, **how))
        far = list(map(far_outside, normalised, solution.fitted))
        if any(mask.any() for mask in far):
            rest = zip(normalised, far, strict=True)
            normalised = [one.take(~mask) for one, mask in rest]
            smiles = list(map(told_smile, prepared, normalised))
            trials = fit_apart(normalised, smiles, **how)
            solution = fit_together(trials, solution.weights)
    count = len(prepared)
    if not solution.gap <= ACCEPTABLE_GAP:
        raise FitError(
            f"{count} expiries: duality gap {solution.gap:.1e} after {solution.steps} "
            f"steps, above the tolerance of {ACCEPTABLE_GAP:.0e}; check the quotes for "
            "outliers, or raise `smoothing`"
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
    for one in prepared:
        one.require_lognormal(
            "a surface is of an underlying that is positive: fit such expiries one by "
            "one, with `fit_curves`"
        )
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


def _unresolved(
    prepared: Sequence[ExpiryQuotes], smiles: Sequence[Smile]
) -> list[tuple[str, str]]:
    """The first expiries whose laws the shared bandwidths are too wide for, and why."""
    deviations = np.array([smile.at_the_money for smile in smiles])
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


def _surface(
    prepared: list[ExpiryQuotes],
    left_out: tuple[tuple[str, str], ...],
    spot: float | None,
    solution: CoupledFit,
) -> PriceSurface:
    """The surface, after the last bits have been settled and the answer checked."""
    objective = solution.trials[0].objective
    kinks = objective.places
    weights = settle_weights(solution.weights, kinks)
    forwards = np.array([one.forward for one in prepared])
    discounts = np.array([one.discount_factor for one in prepared])
    labels = expiry_labels(prepared)
    curves = tuple(
        FitReport(
            quotes=one,
            smoothing=trial.relative_smoothing,
            steps=solution.steps,
            gap=solution.gap,
            objective=float(value),
        )
        for one, trial, value in zip(
            prepared, solution.trials, solution.values, strict=True
        )
    )
    fit = SurfaceFit(
        curves=curves,
        steps=solution.steps,
        gap=solution.gap,
        _conflicts=_conflicts(solution, prepared, labels),
        left_out=left_out,
    )
    return PriceSurface(
        kinks=kinks,
        weights=weights,
        bandwidths=objective.grid.bandwidths,
        times=np.array([one.time_to_expiry for one in prepared]),
        forwards=forwards,
        discount_factors=discounts,
        expiries=labels,
        spot=spot,
        quote_time=shared_quote_time(prepared),
        fit=fit,
    )


def _conflicts(
    solution: CoupledFit, prepared: list[ExpiryQuotes], labels: tuple[str, ...]
) -> pd.DataFrame:
    """Shadow prices of the order, dearest pair first; see `PriceSurface.conflicts`."""
    kinks = solution.trials[0].objective.places[1:-1]
    prices = solution.shadow_prices
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

"""SANOS on a surface: mixtures of lognormals, one width at each expiry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from scipy import sparse

from .curve import Quotes, wing_strikes
from .fengler_surface import solve_bounded
from .mixtures import KERNEL_PATH, SANOS_DEVIATIONS, MixtureCurve, _kernel
from .surface import MixedSurface, surface_terms

PRICE_FLOOR = 1e-6  # over forward: prices are ordered relative to this at least


@dataclass(frozen=True)
class MixtureSurface(MixedSurface):
    """Lognormal mixtures; after the last expiry every lognormal widens alike."""

    def after_last(self, time: float) -> MixtureCurve:
        """The last mixture times an independent lognormal factor."""
        last = self.curves[-1]
        assert isinstance(last, MixtureCurve)
        added = last.total_volatilities**2 * (time / self.times[-1] - 1.0)
        widths = np.sqrt(last.total_volatilities**2 + added)
        return replace(last, total_volatilities=widths)


def fit(
    quotes: Sequence[Quotes],
    *,
    kernel: float | str = 0.25,
    strict: bool = True,
    folds: int = 5,
) -> MixtureSurface:
    r"""Fit the weights of all expiries at once.

    Lognormals of one width at each expiry, a fraction of its total volatility at the
    money, centred at its quoted strikes and beyond them as in `mixtures.fit_sanos`;
    weights by one quadratic programme, squared errors of volatility as there.

    Two mixtures with $g_i(k) = \sum_j w_{ij} (s_{ij} - k)^+$ and the later one not
    narrower have no calendar arbitrage if $g_1 \le g_2$ everywhere, for which the
    nodes of the later expiry suffice (`strict`). Or only the prices are ordered, at
    the nodes of both: a weaker condition and a better fit, with nothing said of the
    strikes between.

    Args:
        quotes: The expiries in order of time.
        kernel: Width of every lognormal over the total volatility at the money, or
            "cross-validation" for the one of `mixtures.KERNEL_PATH` with the least
            squared error on left-out quotes; one for all expiries.
        strict: Which of the two conditions is imposed.
        folds: Into how many interleaved parts cross-validation divides the inner
            quotes of each expiry.

    Returns:
        The fitted surface.

    Raises:
        RuntimeError: If the solver fails.

    References:
        Buehler, H., Horvath, B., Kratsios, A., Limmer, Y. and Saqur, R. (2026). SANOS.
        arXiv:2601.11209.
    """
    if isinstance(kernel, str):
        chosen = _cross_validate(quotes, strict, folds)
        label = "cross-validated"
    else:
        chosen = kernel
        label = f"{kernel:g}"
    name = f"SANOS ({label}{'' if strict else ', ordered at nodes'})"
    return _solve(quotes, chosen, strict, name)


def _cross_validate(quotes: Sequence[Quotes], strict: bool, folds: int) -> float:
    """The width with the least error on left-out quotes."""
    errors = np.zeros(len(KERNEL_PATH))
    for fold in range(folds):
        left_out = []
        for item in quotes:
            held = np.zeros(item.moneyness.size, bool)
            # Small expiries give less: two quotes and every second one between stay.
            held[1:-1][fold :: min(folds, max(2, held.size - 2))] = True
            left_out.append(held)
        parts = [q.part(~held) for q, held in zip(quotes, left_out, strict=True)]
        for position, kernel in enumerate(KERNEL_PATH):
            surface = _solve(parts, kernel, strict, "part")
            for item, held, curve in zip(quotes, left_out, surface.curves, strict=True):
                strike = item.forward * item.moneyness[held]
                quoted = item.total_volatility[held] / np.sqrt(item.time_to_expiry)
                misses = curve(strike) - quoted
                errors[position] += item.weights[held] @ misses**2
    return KERNEL_PATH[int(np.argmin(errors))]


def _solve(
    quotes: Sequence[Quotes], kernel: float, strict: bool, name: str
) -> MixtureSurface:
    """Solve the quadratic programme for one kernel width."""
    # A width may not shrink, whatever the quotes at the money say.
    scales = np.maximum.accumulate([item.scale for item in quotes])
    nodes, rows, targets = [], [], []
    for item in quotes:
        below, above = wing_strikes(item, SANOS_DEVIATIONS)
        nodes.append(np.concatenate([below, item.moneyness, above]))
    widths = [
        np.full(own.size, kernel * scale)
        for own, scale in zip(nodes, scales, strict=True)
    ]
    years = np.array([item.time_to_expiry for item in quotes])
    level = np.mean([item.scale for item in quotes] / np.sqrt(years))
    for item, own, width in zip(quotes, nodes, widths, strict=True):
        unit = 1e3 / (level * np.sqrt(item.time_to_expiry))
        row = unit * np.sqrt(item.weights) / item.vega
        rows.append(row[:, None] * _kernel(item.moneyness, own, width))
        targets.append(row * item.time_value)
    ends = np.cumsum([0, *(own.size for own in nodes)])
    order, sides = [], []
    for position, ((early, late), (narrow, wide)) in enumerate(
        zip(pairwise(nodes), pairwise(widths), strict=True)
    ):
        if strict:
            points = late
            sign = np.where(points >= 1.0, 1.0, -1.0)[:, None]
            first, second = (
                np.maximum(sign * (own - points[:, None]), 0.0) for own in (early, late)
            )
        else:
            points = np.union1d(early, late)
            first, second = _kernel(points, early, narrow), _kernel(points, late, wide)
        # Rows in the order of magnitude of a price there.
        size = PRICE_FLOOR + np.minimum(points, 1.0) * np.exp(
            -0.5 * (np.log(points) / scales[position + 1]) ** 2
        )
        block = sparse.lil_matrix((points.size, ends[-1]))
        block[:, ends[position] : ends[position + 1]] = first / size[:, None]
        block[:, ends[position + 1] : ends[position + 2]] = -second / size[:, None]
        order.append(sparse.csr_matrix(block))
        sides.append(np.zeros(points.size))
    weights = solve_bounded(
        sparse.block_diag(rows),
        np.concatenate(targets),
        sparse.block_diag([np.stack([np.ones(own.size), own]) for own in nodes]),
        np.ones(2 * len(nodes)),
        sparse.vstack(order) if order else sparse.csr_matrix((0, ends[-1])),
        np.concatenate([*sides, np.empty(0)]),
        sparse.csr_matrix((ends[-1], ends[-1])),
    )
    curves = tuple(
        MixtureCurve(name, item.forward, item.time_to_expiry, own, centres, width)
        for item, own, centres, width in zip(
            quotes, np.split(weights, ends[1:-1]), nodes, widths, strict=True
        )
    )
    return MixtureSurface(name, *surface_terms(quotes), curves)

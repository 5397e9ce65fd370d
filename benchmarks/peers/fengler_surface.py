"""Fengler's arbitrage-free smoothing spline for a surface."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import sparse

from .convex import Matrix, solve_clarabel
from .curve import Quotes, cross_validate, wing_strikes
from .fengler import (
    SMALL_SMOOTHING,
    SMOOTHING_PATH,
    WING_DEVIATIONS,
    FenglerCurve,
    _areas,
    _fit_spline,
    _time_value_matrix,
)
from .surface import LinearVarianceSurface, MixedSurface, surface_terms

PRICE_FLOOR = 1e-8  # over forward: prices are ordered relative to this at least


def solve_bounded(
    M: Matrix,
    r: np.ndarray,
    E: Matrix,
    b: np.ndarray,
    G: Matrix,
    h: np.ndarray,
    penalty: Matrix,
) -> np.ndarray:
    r"""Minimise $\tfrac12|Mx - r|^2 + \tfrac12 x'Rx$ with $Ex = b$, $Gx \le h$, $x \ge 0$.

    As `convex.solve_least_squares`, whose remarks on units and residuals hold here too.

    Args:
        M: Rows of the errors, `(m, n)`.
        r: Targets, `(m,)`.
        E: Equality rows, `(p, n)`.
        b: Right-hand side of the equalities, `(p,)`.
        G: Inequality rows, `(g, n)`.
        h: Right-hand side of the inequalities, `(g,)`.
        penalty: `R`, symmetric positive semidefinite, `(n, n)`.

    Returns:
        The minimiser, `(n,)`.

    Raises:
        RuntimeError: If the solver fails.
    """  # noqa: E501
    M, E, G = (sparse.csr_matrix(rows) for rows in (M, E, G))
    m, n = M.shape
    size = np.sqrt(np.maximum(*(rows.multiply(rows).sum(axis=0).A1 for rows in (M, E))))
    unit = 1.0 / np.where(size > 0.0, size, 1.0)
    units = sparse.diags(unit)
    identity = sparse.identity(m)
    solution = solve_clarabel(
        sparse.block_diag([units @ sparse.csr_matrix(penalty) @ units, identity]),
        np.zeros(n + m),
        sparse.bmat([[E @ units, None], [M @ units, -identity]]),
        np.concatenate([b, r]),
        sparse.hstack([G @ units, sparse.csr_matrix((h.size, m))]),
        h,
        nonnegative=np.arange(n + m) < n,
        tolerance=1e-9,
        accept_reduced=True,
    )
    # An interior point's signs hold to its tolerance only.
    return np.maximum(unit * solution.x[:n], 0.0)


def fit(
    quotes: Sequence[Quotes],
    *,
    smoothing: float | str = SMALL_SMOOTHING,
    mixed: bool = False,
) -> MixedSurface | LinearVarianceSurface:
    """Fit Fengler's splines from the last expiry backwards.

    The last spline is that of `fengler.fit`; each earlier one may at no node exceed the
    next at the same strike over forward. As published, the nodes are one grid of
    forward-moneyness for all expiries, to which the quotes are first smoothed. Here the
    quotes are fitted as they are, on knots at the quotes and beyond them, and prices
    are ordered at the knots of both splines and half-way between: between those points
    nothing orders two cubics.

    Args:
        quotes: The expiries in order of time.
        smoothing: The penalty of `fengler.fit`, or "cross-validation" to choose it for
            each expiry by itself.
        mixed: Whether prices between two expiries are a mixture, which keeps densities
            non-negative; otherwise total variance is linear in time, as published.

    Returns:
        The fitted surface.

    Raises:
        RuntimeError: If the solver fails.

    References:
        Fengler, M. (2009). Arbitrage-free smoothing of the implied volatility surface.
        *Quantitative Finance*, 9(4), 417-428.
    """
    curves: list[FenglerCurve] = []
    for item in reversed(quotes):
        own = replace(item, weights=item.weights / item.weights.mean())
        if isinstance(smoothing, str):
            level = cross_validate(
                own,
                SMOOTHING_PATH,
                lambda part, level: _fit_spline(part, level, True, "part"),
                folds=10,
                fallback=SMALL_SMOOTHING,
            )
        else:
            level = smoothing
        if curves:
            curves.append(_fit_below(own, level, curves[-1]))
        else:
            curves.append(_fit_spline(own, level, True, "Fengler"))
    label = "cross-validated" if isinstance(smoothing, str) else f"λ={smoothing:.0e}"
    kind = MixedSurface if mixed else LinearVarianceSurface
    return kind(f"Fengler ({label})", *surface_terms(quotes), tuple(reversed(curves)))


def _fit_below(quotes: Quotes, smoothing: float, later: FenglerCurve) -> FenglerCurve:
    """The spline of `fengler._fit_spline`, with prices not above a later spline's."""
    scale = quotes.scale
    below, above = wing_strikes(quotes, WING_DEVIATIONS)
    moneyness = np.concatenate([[0.0], below, quotes.moneyness, above])
    knots = (moneyness - 1.0) / scale
    hats = knots.size - 2

    x = (quotes.moneyness - 1.0) / scale
    row = 1e3 * np.sqrt(quotes.weights) / quotes.vega
    matrix = row[:, None] * _time_value_matrix(knots, x)[:, :hats]
    gaps = np.diff(knots)
    diagonal, beside = (gaps[:-1] + gaps[1:]) / 3.0, gaps[1:-1] / 6.0
    penalty = np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1)
    penalty = 1e6 * smoothing * penalty / np.outer(_areas(knots), _areas(knots))
    means = (knots[:-2] + knots[1:-1] + knots[2:]) / 3.0

    others = 1.0 + later.scale * later.knots
    nodes = np.unique(np.concatenate([moneyness, others]))
    nodes = np.unique(np.concatenate([nodes, 0.5 * (nodes[1:] + nodes[:-1])]))
    nodes = nodes[(nodes > 0.0) & (nodes < moneyness[-1])]
    ceiling = later.time_value(nodes)
    size = ceiling + PRICE_FLOOR
    order = scale * _time_value_matrix(knots, (nodes - 1.0) / scale)[:, :hats]
    masses = solve_bounded(
        matrix,
        row * quotes.time_value / scale,
        np.stack([np.ones(hats), means]),
        np.array([1.0, 0.0]),
        order / size[:, None],
        ceiling / size,
        penalty,
    )
    return FenglerCurve(
        name="Fengler",
        forward=quotes.forward,
        time_to_expiry=quotes.time_to_expiry,
        scale=scale,
        knots=knots,
        masses=masses,
        tails=np.zeros(4),
        smoothing=smoothing,
    )

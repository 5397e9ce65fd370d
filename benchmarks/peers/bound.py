"""The least error that any curve without static arbitrage can have on some quotes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from .convex import solve_clarabel
from .curve import PeerCurve, read_quotes

LINEARISATIONS = 3


@dataclass(frozen=True)
class PiecewiseLinearCurve(PeerCurve):
    """Call prices straight between the quoted strikes.

    Attributes:
        nodes: Moneyness of the quoted strikes.
        time_values: Out-of-the-money prices there, over the forward.
    """

    nodes: np.ndarray
    time_values: np.ndarray

    def time_value(self, moneyness: np.ndarray) -> np.ndarray:
        """Interpolated price; level beyond the quotes."""
        calls = self.time_values + np.maximum(1.0 - self.nodes, 0.0)
        price = np.interp(moneyness, self.nodes, calls)
        return price - np.maximum(1.0 - np.asarray(moneyness), 0.0)

    def normalised_density(self, moneyness: np.ndarray) -> np.ndarray:
        """NaN: the distribution has atoms and no density."""
        return np.full(np.shape(moneyness), np.nan)


def fit(
    strike: ArrayLike,
    volatility: ArrayLike,
    *,
    forward: float,
    time_to_expiry: float,
    weights: ArrayLike | None = None,
    bid: ArrayLike | None = None,
    ask: ArrayLike | None = None,
) -> PiecewiseLinearCurve:
    """Move the quotes to the nearest prices without butterfly arbitrage.

    The prices at the quoted strikes are convex with slopes between -1 and 0 and not
    below intrinsic value; nothing else is asked of them, so their volatility error is
    a bound from below for every method's. Errors are errors of price over vega; the
    programme is repeated with the secant from quoted to fitted volatility in place of
    the vega, which makes them errors of volatility.

    Args:
        strike: Strikes, in currency units, all different.
        volatility: Black volatilities, annualised.
        forward: Forward price, in currency units.
        time_to_expiry: Time to expiry, in years.
        weights: Weight of each squared volatility error; equal if not given.
        bid: Bid volatilities; with `ask`, errors are in units of the half-spread.
        ask: Ask volatilities.

    Returns:
        The piecewise linear curve; only its volatilities at the quotes mean anything.
    """
    quotes = read_quotes(
        strike,
        volatility,
        forward=forward,
        time_to_expiry=time_to_expiry,
        weights=weights,
        bid=bid,
        ask=ask,
    )
    k, scale, n = quotes.moneyness, quotes.scale, quotes.moneyness.size
    # Unknowns: changes of price, in thousandths of the total volatility at the money.
    unit = 1e-3 * scale
    price = quotes.time_value + np.maximum(1.0 - k, 0.0)
    slope = np.diff(np.eye(n), axis=0) / np.diff(k)[:, None]
    turns = np.diff(slope, axis=0)
    # A strike of zero is a quote too, and its put is worth nothing: the put's first
    # slope is at least the slope from there. To the right any fall is allowed.
    level = np.eye(n)[:1] / k[0]
    put_price = quotes.time_value + np.maximum(k - 1.0, 0.0)
    G = np.vstack([-turns, level - slope[:1], slope[-1:], -np.eye(n)])
    h = np.concatenate(
        [
            turns @ price,
            (slope[:1] - level) @ put_price,
            -(slope[-1:] @ price),
            quotes.time_value,
        ]
    )
    largest = np.abs(G).max(axis=1)
    G, h = unit * G / largest[:, None], h / largest
    sensitivity = quotes.vega
    curve = PiecewiseLinearCurve(
        "bound (no density)",
        quotes.forward,
        quotes.time_to_expiry,
        k,
        quotes.time_value,
    )
    for _ in range(LINEARISATIONS):
        row = np.sqrt(quotes.weights) / sensitivity
        solution = solve_clarabel(
            np.diag(row**2),
            np.zeros(n),
            np.empty((0, n)),
            np.empty(0),
            G,
            h,
            nonnegative=False,
            accept_reduced=True,
        )
        time_value = np.maximum(quotes.time_value + unit * solution.x, 1e-300)
        curve = replace(curve, time_values=time_value)
        fitted = curve(quotes.forward * k) * np.sqrt(quotes.time_to_expiry)
        moved = fitted - quotes.total_volatility
        secant = (time_value - quotes.time_value) / np.where(moved == 0.0, 1.0, moved)
        sensitivity = np.where(np.abs(moved) > 1e-9, secant, quotes.vega)
    return curve

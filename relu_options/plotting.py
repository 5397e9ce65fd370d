"""Every picture of the library."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np

from relu_options import black_scholes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from relu_options.curves import PriceCurve
    from relu_options.payoffs import Payoff, SmoothPayoff


def plot_curve(
    curve: PriceCurve, ax: Axes | None = None, *, comparators: Iterable[PriceCurve] = ()
) -> Axes:
    """Draw bid-ask bars and the curve in volatility, with the density below it.

    Args:
        curve: The curve.
        ax: Where to draw; a new figure if None.
        comparators: Other curves to draw beside it.

    Returns:
        The Axes.

    Examples:
        >>> import relu_options as ro
        >>> flat = ro.BlackScholesCurve(volatility=0.2, forward=100.0,
        ...                             time_to_expiry=0.25)
        >>> axes = plot_curve(flat)
        >>> axes.get_ylabel()
        'implied volatility, %'
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(8, 5))
    low, high = curve.quantile(np.array([0.0005, 0.9995]))
    if curve.fit is not None:
        quotes = curve.fit.quotes
        bars = {}
        for side in ("bid", "ask", "mid"):
            bars[side] = 100 * black_scholes.implied_volatility(
                price=getattr(quotes, side),
                forward=curve.forward,
                strike=quotes.strike,
                time_to_expiry=curve.time_to_expiry,
                discount_factor=curve.discount_factor,
                is_call=quotes.is_call,
            )
        low, high = min(low, quotes.strike.min()), max(high, quotes.strike.max())
        if quotes.has_spreads:
            ax.vlines(
                quotes.strike, bars["bid"], bars["ask"], colors="0.55", label="bid, ask"
            )
        else:
            ax.plot(quotes.strike, bars["mid"], ".", color="0.4", label="mid")
    strikes = np.linspace(low, high, 500)
    ax.plot(strikes, 100 * curve.implied_volatility(strikes), "C0", label="network")
    for place, other in enumerate(comparators, 1):
        label = type(other).__name__
        ax.plot(
            strikes, 100 * other.implied_volatility(strikes), f"C{place}--", label=label
        )
    density = ax.twinx()
    density.fill_between(strikes, curve.density(strikes), color="C0", alpha=0.12)
    density.set_ylim(0.0, 2.5 * float(np.max(curve.density(strikes))))
    density.set_yticks([])
    ax.axvline(curve.forward, color="0.8", lw=1, zorder=0)
    ax.set_xlabel("strike")
    ax.set_ylabel("implied volatility, %")
    ax.set_title(f"{curve.expiry or ''} forward {curve.forward:.6g} (shaded: density)")
    ax.legend(loc="upper right")
    return ax


def plot_payoff(
    payoff: Payoff | SmoothPayoff,
    ax: Axes | None = None,
    *,
    lowest: float | None = None,
    highest: float | None = None,
) -> Axes:
    """Draw the value of a payoff against the spot.

    Args:
        payoff: A function of the spot at expiry.
        ax: Where to draw; a new figure if None.
        lowest: Spot at the left end; by default the strikes and a margin are drawn.
        highest: Spot at the right end, likewise.

    Returns:
        The Axes.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(8, 5))
    strikes = np.asarray(getattr(payoff, "strikes", []), float)
    first, last = (strikes[0], strikes[-1]) if len(strikes) else (50.0, 150.0)
    margin = 0.5 * (last - first) or 0.25 * abs(last) or 1.0
    low = max(first - margin, 0.01 * margin) if lowest is None else lowest
    high = last + margin if highest is None else highest
    inside = strikes[(strikes > low) & (strikes < high)]
    spots = np.union1d(np.linspace(low, high, 501), inside)
    ax.plot(spots, np.asarray(payoff(spots), float), label="payoff")
    ax.plot(inside, np.asarray(payoff(inside), float), "C0.")
    ax.axhline(0.0, color="0.8", lw=1, zorder=0)
    ax.set_xlabel("spot at expiry")
    ax.set_ylabel("value at expiry")
    return ax

"""Every picture of the library."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.markers import CARETDOWN
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from mpl_toolkits.axes_grid1 import make_axes_locatable

from relu_options.formulas.laws import MODELS, Law

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from relu_options.curves import PriceCurve
    from relu_options.fitting.history import FittedHistory
    from relu_options.fitting.training import TrainingHistory
    from relu_options.payoffs import Payoff, SmoothPayoff
    from relu_options.portfolio import StrikePortfolio
    from relu_options.surfaces import Surface

SHOWN_DEVIATIONS = 6.0
"""Strikes farther from the forward, in at-the-money deviations, are not drawn."""
BEYOND = 0.25
"""By how much of the range of the quotes the picture goes beyond them."""
LEAST_SHOWN = 1e-9
"""Probability of a kink below which it is not drawn."""


def plot_curve(
    curve: PriceCurve,
    ax: Axes | None = None,
    *,
    comparators: Iterable[PriceCurve] | Mapping[str, PriceCurve] = (),
) -> Axes:
    """Draw quotes and curve in volatility, and the risk-neutral density below them.

    Bars go from bid to ask, red where the curve leaves them; a quote with a bid of zero
    is a caret at its ask, which is all that it says. The curve is dotted beyond the
    quotes that have a bid, and shown a little farther than they go. The density is that
    of the underlying over the forward, a pure number; with the normal kernel over its
    deviation, and volatilities are normal ones, in currency units. A curve without
    bandwidths has probabilities at its kinks instead, drawn as a histogram.

    Args:
        curve: The curve.
        ax: Where to draw; its lower quarter becomes the panel of the density. By
            default a new figure.
        comparators: Other curves to draw beside it, if you like by name.

    Returns:
        The Axes of the volatilities; the density's are the last of the figure.

    Examples:
        >>> import relu_options as ro
        >>> flat = ro.BlackScholesCurve(volatility=0.2, forward=100.0,
        ...                             time_to_expiry=0.25)
        >>> axes = plot_curve(flat)
        >>> axes.get_ylabel()
        'implied volatility, %'
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(8, 5.5))
    density = make_axes_locatable(ax).append_axes("bottom", "35%", pad=0.08, sharex=ax)
    ax.tick_params(labelbottom=False)

    quotes = None
    if curve.fit is not None:
        quotes = _QuotedVolatilities.of(curve, _VolatilityAxis(curve.kernel))
    low, high = _shown_strikes(curve, quotes)
    strikes = np.linspace(low, high, 500)
    scale = _VolatilityAxis(curve.kernel)
    fitted = scale.of(curve, strikes)
    first, last = (low, high) if quotes is None else quotes.telling_range
    quoted = (strikes >= first) & (strikes <= last)
    ax.set_xlim(low, high)
    ax.set_ylim(*_shown_volatilities(fitted, quotes, low, high))
    if quotes is not None:
        quotes.draw(ax)
    ax.plot(strikes, np.where(quoted, fitted, np.nan), "C0", label=_label(curve))
    ax.plot(strikes, fitted, "C0:")
    named = _named(comparators)
    for place, (label, other) in enumerate(named, 1):
        volatility = scale.of(other, strikes)
        ax.plot(strikes, volatility, f"C{place}--", lw=1.2, label=label)
        _draw_density(density, other, strikes, f"C{place}", label, filled=False)
    _draw_density(density, curve, strikes, "C0", _label(curve), filled=True)

    for panel in (ax, density):
        panel.axvline(curve.forward, color="0.8", lw=1, zorder=0)
    density.set_ylim(bottom=0.0)
    ax.set_ylabel(scale.label)
    density.set_xlabel(f"strike, {_currency(curve)}")
    ax.set_title(_title(curve), fontsize="medium")
    ax.legend(fontsize="small", frameon=False)
    if named:
        density.legend(fontsize="x-small", frameon=False)
    return ax


@dataclass(frozen=True)
class _VolatilityAxis:
    """What volatilities are drawn in: per cent, or currency units of the normal law."""

    kernel: Law

    @property
    def unit(self) -> float:
        """By what volatilities are multiplied."""
        return 1.0 if self.kernel == "normal" else 100.0

    @property
    def label(self) -> str:
        """What the axis is called."""
        if self.kernel == "normal":
            return "normal volatility, currency units"
        return "implied volatility, %"

    def of(self, curve: PriceCurve, strikes: np.ndarray) -> np.ndarray:
        """Volatilities of a curve, whatever its own law is."""
        if curve.kernel == self.kernel:
            return self.unit * curve.implied_volatility(strikes)
        is_call = strikes >= curve.forward
        calls, puts = curve.price(strikes), curve.price(strikes, is_call=False)
        return self.implied(curve, np.where(is_call, calls, puts), strikes, is_call)

    def implied(
        self,
        curve: PriceCurve,
        price: np.ndarray,
        strike: np.ndarray,
        is_call: np.ndarray,
    ) -> np.ndarray:
        """Volatilities of prices of one expiry."""
        return self.unit * np.asarray(
            MODELS[self.kernel].implied_volatility(
                price=price,
                forward=curve.forward,
                strike=strike,
                time_to_expiry=curve.time_to_expiry,
                discount_factor=curve.discount_factor,
                is_call=is_call,
            )
        )


def _deviation(curve: PriceCurve) -> float:
    """Total volatility at the forward."""
    volatility = curve.implied_volatility(curve.forward)
    return float(volatility) * curve.time_to_expiry**0.5


@dataclass(frozen=True, eq=False)
class _QuotedVolatilities:
    """Quotes in units of a volatility axis, of shape `(n,)`, and how to draw them.

    `left` is true where the curve leaves the quote; a bid of zero has no volatility.
    """

    strike: np.ndarray
    bid: np.ndarray
    ask: np.ndarray
    mid: np.ndarray
    left: np.ndarray
    has_spreads: bool

    @classmethod
    def of(cls, curve: PriceCurve, scale: _VolatilityAxis) -> _QuotedVolatilities:
        table = curve.quotes
        order = np.argsort(table["strike"].to_numpy())
        table = table.iloc[order]
        strike = table["strike"].to_numpy()
        is_call = (table["option_type"] == "call").to_numpy()

        def volatility(side: str) -> np.ndarray:
            return scale.implied(curve, table[side].to_numpy(), strike, is_call)

        bid = np.where(table["bid"] == 0.0, np.nan, volatility("bid"))
        has_spreads = bool(table["bid"].notna().any())
        return cls(
            strike=strike,
            bid=bid,
            ask=volatility("ask"),
            mid=volatility("mid"),
            left=~table["inside"].to_numpy(),
            has_spreads=has_spreads,
        )

    @property
    def telling(self) -> np.ndarray:
        """Where a quote tells a volatility, and not merely a bound."""
        return np.isfinite(self.bid) if self.has_spreads else np.isfinite(self.mid)

    @property
    def telling_range(self) -> tuple[float, float]:
        """First and last strike that tells a volatility; of all strikes, if none."""
        strikes = self.strike[self.telling] if self.telling.any() else self.strike
        return float(strikes[0]), float(strikes[-1])

    def draw(self, ax: Axes) -> None:
        """Bars and carets, or dots where only mids are known; limits are set before."""
        if not self.has_spreads:
            ax.plot(self.strike, self.mid, ".", color="0.4", label="quoted mid")
            return
        for rows, colour, label in (
            (self.telling & ~self.left, "0.45", "bid to ask"),
            (self.telling & self.left, "C3", "bid to ask, left by the curve"),
        ):
            if rows.any():
                bars = self.strike[rows], self.bid[rows], self.ask[rows]
                ax.vlines(*bars, colors=colour, lw=1.4, label=label)
                ends = np.concatenate(bars[1:])
                twice = np.tile(bars[0], 2)
                ax.plot(twice, ends, "_", color=colour, ms=3.5)
        bidless = ~self.telling & np.isfinite(self.ask)
        if bidless.any():
            strike, ask = self.strike[bidless], self.ask[bidless]
            (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
            seen = (strike >= left) & (strike <= right) & (ask >= bottom) & (ask <= top)
            ax.plot(
                strike,
                ask,
                linestyle="none",
                marker=CARETDOWN,
                color="0.6",
                ms=4,
                label="ask, with a bid of zero" if seen.any() else None,
            )


def _shown_strikes(
    curve: PriceCurve, quotes: _QuotedVolatilities | None
) -> tuple[float, float]:
    """From where to where: the quotes that tell, and the bulk of the distribution."""
    low, high = curve.quantile(np.array([0.002, 0.998]))
    if quotes is not None:
        first, last = quotes.telling_range
        low = max(min(low, first), first - BEYOND * (last - first))
        high = min(max(high, last), last + BEYOND * (last - first))
        ends = _strikes_at(curve, np.array([-SHOWN_DEVIATIONS, SHOWN_DEVIATIONS]))
        low, high = max(low, ends[0]), min(high, ends[1])
    margin = 0.03 * (high - low)
    least = 0.0 if curve.kernel == "lognormal" else -np.inf
    return max(low - margin, least), high + margin


def _strikes_at(curve: PriceCurve, deviations: np.ndarray) -> np.ndarray:
    """Strikes so many total volatilities from the forward, by the curve's own law."""
    moved = _deviation(curve) * deviations
    if curve.kernel == "normal":
        return curve.forward + moved
    return curve.forward * np.exp(moved)


def _deviations_of(curve: PriceCurve, strikes: np.ndarray) -> np.ndarray:
    """How many total volatilities strikes are from the forward, likewise."""
    if curve.kernel == "normal":
        return (strikes - curve.forward) / _deviation(curve)
    return np.log(strikes / curve.forward) / _deviation(curve)


def _shown_volatilities(
    fitted: np.ndarray, quotes: _QuotedVolatilities | None, low: float, high: float
) -> tuple[float, float]:
    """Limits that hold the curve and the quotes that tell, with some room."""
    values = fitted[np.isfinite(fitted)]
    if quotes is not None:
        shown = quotes.telling & (quotes.strike >= low) & (quotes.strike <= high)
        sides = (quotes.bid, quotes.ask) if quotes.has_spreads else (quotes.mid,)
        values = np.concatenate([values, *(side[shown] for side in sides)])
    bottom, top = float(np.nanmin(values)), float(np.nanmax(values))
    room = max(0.06 * (top - bottom), 0.02 * top)
    return max(bottom - room, 0.0), top + room


def _draw_density(
    ax: Axes,
    curve: PriceCurve,
    strikes: np.ndarray,
    colour: str,
    label: str,
    *,
    filled: bool,
) -> None:
    """The density of the underlying over the forward; of sharp kinks, a histogram.

    Of a normal law, in total volatilities.
    """
    normal = curve.kernel == "normal"
    unit = _deviation(curve) if normal else curve.forward
    name = "deviation" if normal else "forward"
    ax.set_ylabel(f"density × {name}", fontsize="small")
    if np.asarray(curve.network.bandwidths).any():
        density = unit * np.asarray(curve.density(strikes))
        if filled:
            ax.fill_between(strikes, density, color=colour, alpha=0.25, lw=0)
        style = "-" if filled else "--"
        ax.plot(strikes, density, style, color=colour, lw=1.2, label=label)
        return
    probability = np.asarray(curve.network.weights) / curve.discount_factor
    kinks = np.asarray(curve.network.kinks)[probability > LEAST_SHOWN]
    probability = probability[probability > LEAST_SHOWN]
    edges = np.convolve(kinks, [0.5, 0.5], "valid")
    edges = np.concatenate([kinks[:1], edges, kinks[-1:]])
    height = unit * probability / np.diff(edges)
    ax.stairs(height, edges, color=colour, fill=filled, alpha=0.5, label=label)


def _named(
    curves: Iterable[PriceCurve] | Mapping[str, PriceCurve],
) -> list[tuple[str, PriceCurve]]:
    """Curves with what the legend calls them."""
    if isinstance(curves, Mapping):
        return [(str(name), curve) for name, curve in curves.items()]
    return [(_label(curve), curve) for curve in curves]


def _label(curve: PriceCurve) -> str:
    """What the legend calls a curve: by its volatility if it has only one."""
    units = curve.network.kinks.shape[0]
    if units == 1:
        volatility = curve.implied_volatility(curve.forward)
        if curve.kernel == "normal":
            return f"Bachelier, {volatility:.3g}"
        return f"Black-Scholes, {100.0 * volatility:.3g} %"
    return f"network of {units} kinks"


def _currency(curve: PriceCurve) -> str:
    """The currency of the quotes, if they name one."""
    table = pd.DataFrame() if curve.fit is None else curve.fit.quotes.table
    names = table["currency"].dropna().unique() if "currency" in table else []
    return str(names[0]) if len(names) == 1 else "currency units"


def _title(curve: PriceCurve) -> str:
    """Underlying, expiry, forward, and how many quotes the curve is inside of."""
    quotes = None if curve.fit is None else curve.fit.quotes
    parts = [
        None if quotes is None else quotes.underlying,
        curve.expiry,
        None if quotes is None else quotes.settlement,
    ]
    name = " ".join(part for part in parts if part)
    time = f"{curve.time_to_expiry:.3g} years"
    if curve.time_to_expiry < 0.25:
        time = f"{365.0 * curve.time_to_expiry:.3g} days"
    text = f"{name} ({time})" if name else time
    text += f", forward {curve.forward:.6g}"
    if quotes is not None and quotes.has_spreads:
        inside = len(curve.quotes) - len(curve.conflicts)
        text += f", inside {inside} of {len(curve.quotes)} spreads"
    return text


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

    Examples:
        >>> from relu_options.payoffs import straddle
        >>> plot_payoff(straddle(100.0)).get_xlabel()
        'spot at expiry'
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(8, 5))
    strikes = np.asarray(getattr(payoff, "strikes", []), float)
    first, last = (strikes[0], strikes[-1]) if len(strikes) else (50.0, 150.0)
    margin = 0.5 * (last - first) or 0.25 * abs(last) or 1.0
    low = first - margin
    if lowest is not None:
        low = lowest
    elif first > 0.0:  # spots are positive, unless a strike says otherwise
        low = max(low, 0.01 * margin)
    high = last + margin if highest is None else highest
    inside = strikes[(strikes > low) & (strikes < high)]
    spots = np.union1d(np.linspace(low, high, 501), inside)
    ax.plot(spots, np.asarray(payoff(spots), float), label="payoff")
    ax.plot(inside, np.asarray(payoff(inside), float), "C0.")
    ax.axhline(0.0, color="0.8", lw=1, zorder=0)
    ax.set_xlabel("spot at expiry")
    ax.set_ylabel("value at expiry")
    return ax


def plot_portfolio(
    portfolio: StrikePortfolio,
    ax: Axes | None = None,
    *,
    curve: PriceCurve | None = None,
) -> Axes:
    """Draw what a portfolio pays, what it is worth today, and how far it misses.

    Args:
        portfolio: Options of one expiry.
        ax: Where to draw; a new figure if None.
        curve: Prices of that expiry. Value today is drawn against the forward, the
            curve moving with it.

    Returns:
        The Axes. The error, if there is one, is shaded against an axis of its own.

    Examples:
        >>> import relu_options as ro
        >>> butterfly = ro.payoffs.butterfly(90.0, 100.0, 110.0)
        >>> plot_portfolio(ro.decompose(butterfly)).get_ylabel()
        'value'
    """
    payoff = portfolio.payoff()
    ax = plot_payoff(payoff, ax)
    low, high = (float(end) for end in ax.lines[0].get_xdata()[[0, -1]])  # type: ignore[index]
    spots = np.linspace(low, high, 201)
    if curve is not None:
        # Prices are homogeneous: with the forward, strikes and prices scale alike. With
        # a normal law they are moved alike.
        scale = spots[:, None] / curve.forward
        strikes = portfolio.strikes / scale
        if curve.kernel == "normal":
            scale = 1.0
            strikes = portfolio.strikes - (spots[:, None] - curve.forward)
        calls, puts = curve.price(strikes), curve.price(strikes, is_call=False)
        units = portfolio.multiplier * portfolio.quantities
        options = scale * np.where(portfolio.is_call, calls, puts) @ units
        linear = curve.discount_factor * (portfolio.cash + portfolio.forwards * spots)
        ax.plot(spots, linear + options, "C1", label="value today")
        ax.axvline(curve.forward, color="0.8", lw=1, zorder=0)
    if portfolio.target is not None:
        ax.plot(spots, np.asarray(portfolio.target(spots)), "k:", label="target")
        error = np.asarray(portfolio.error(spots), float)
        if np.abs(error).max() > 1e-12 * np.abs(payoff(spots)).max():
            misses = ax.twinx()
            misses.fill_between(spots, error, color="C3", alpha=0.2)
            misses.set_ylim(*(3.0 * np.abs(error).max() * np.array([-1.0, 1.0])))
            misses.set_ylabel("shaded: payoff minus target")
    ax.set_xlabel("spot at expiry" if curve is None else "spot at expiry, or forward")
    ax.set_ylabel("value")
    ax.legend(loc="best")
    return ax


MOST_LINES = 9
"""Expiries that a picture of lines shows; of more, some are left out evenly."""


def plot_surface(
    surface: Surface,
    kind: str = "smiles",
    ax: Axes | None = None,
) -> Axes:
    """Draw a surface.

    Args:
        surface: The surface.
        kind: "smiles", volatility by standardised strike with the quotes as bars from
            bid to ask, one colour an expiry; "total_variance", of which no two lines
            cross where prices are in order; "implied_volatility" or
            "local_volatility", heat maps by strike over forward and time; "density", a
            fan of quantiles over time.
        ax: Where to draw; by default a new figure.

    Returns:
        The Axes.

    Raises:
        ValueError: If there is no such kind.

    Examples:
        >>> import relu_options as ro
        >>> flat = ro.BlackScholesSurface(volatilities=0.2, times=[0.5, 1.0],
        ...                               forwards=100.0)
        >>> plot_surface(flat, "total_variance").get_ylabel()
        'total variance'
    """
    draw = _SURFACE_PICTURES.get(kind)
    if draw is None:
        known = ", ".join(repr(name) for name in _SURFACE_PICTURES)
        raise ValueError(f"kind must be one of {known}, not {kind!r}")
    if ax is None:
        _, ax = plt.subplots(figsize=(8, 5.5))
    draw(surface, ax)
    return ax


def plot_curves(curves: Mapping[str, PriceCurve], ax: Axes | None = None) -> Axes:
    """Draw volatilities by standardised strike, with quotes as bars from bid to ask.

    Args:
        curves: By label; of many, some are drawn, from the first to the last.
        ax: Where to draw; by default a new figure.

    Returns:
        The Axes.

    Examples:
        >>> import relu_options as ro
        >>> flat = ro.BlackScholesCurve(volatility=0.2, forward=100.0,
        ...                             time_to_expiry=0.5)
        >>> plot_curves({"flat": flat}).get_ylabel()
        'implied volatility, %'
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(8, 5.5))
    shown = []
    # Only one unit fits on an axis, and only the normal one fits all laws.
    laws = {curve.kernel for curve in curves.values()}
    scale = _VolatilityAxis("normal" if "normal" in laws else "lognormal")
    for label, colour in _shown_labels(list(curves)):
        curve = curves[label]
        low, high = -4.0, 2.5
        if curve.fit is not None:
            quotes = _QuotedVolatilities.of(curve, scale)
            deviations = _deviations_of(curve, quotes.strike)
            rows = quotes.telling & (np.abs(deviations) < SHOWN_DEVIATIONS)
            low, high = deviations[rows].min(), deviations[rows].max()
            at = deviations[rows]
            if quotes.has_spreads:
                ax.vlines(at, quotes.bid[rows], quotes.ask[rows], colors=[colour], lw=1)
            else:
                ax.plot(at, quotes.mid[rows], ".", color=colour, ms=4)
        x = np.linspace(low, high, 200)
        volatility = scale.of(curve, _strikes_at(curve, x))
        shown.append(volatility)
        ax.plot(x, volatility, color=colour, lw=1.2, label=label)
    values = np.concatenate(shown)
    room = 0.05 * np.ptp(values) + 0.005 * scale.unit
    if "normal" in laws:
        room = 0.05 * (np.ptp(values) + np.median(values))
    ax.set_ylim(max(values.min() - room, 0.0), values.max() + room)
    distance = "strike - forward" if "normal" in laws else "log(strike / forward)"
    ax.set_xlabel(f"{distance}, in at-the-money deviations")
    ax.set_ylabel(scale.label)
    _legend_of_expiries(ax, len(curves))
    return ax


def _legend_of_expiries(ax: Axes, count: int) -> None:
    """The legend of the lines drawn; it says if they are some of many."""
    some = f"{MOST_LINES} of {count} expiries" if count > MOST_LINES else None
    ax.legend(fontsize="x-small", title_fontsize="x-small", frameon=False, title=some)


def _shown_labels(labels: list[str]) -> list[tuple[str, tuple]]:
    """Label and colour of the expiries that lines are drawn for."""
    count = len(labels)
    places = np.unique(np.linspace(0, count - 1, min(count, MOST_LINES)).round())
    colours = plt.get_cmap("viridis")(np.linspace(0.0, 0.9, len(places)))
    return [
        (labels[int(place)], tuple(colour))
        for place, colour in zip(places, colours, strict=True)
    ]


def _line_labels(surface: Surface) -> list[str]:
    """What the lines of the expiries are called."""
    years = (f"{time:.3g} years" for time in surface.times)
    return list(surface.expiries or years)


def _at_the_money(surface: Surface, place: int) -> tuple[float, float, float]:
    """Time, forward and at-the-money total volatility of one expiry."""
    time = float(surface.times[place])
    forward = float(surface.forwards[place])
    total = surface.implied_volatility(forward, time) * time**0.5
    return time, forward, float(total)


def _draw_smiles(surface: Surface, ax: Axes) -> None:
    plot_curves(dict(zip(_line_labels(surface), surface, strict=True)), ax)


def _draw_total_variance(surface: Surface, ax: Axes) -> None:
    *_, widest = _at_the_money(surface, len(surface.times) - 1)
    labels = _line_labels(surface)
    for label, colour in _shown_labels(labels):
        time, forward, total = _at_the_money(surface, labels.index(label))
        reach = min(SHOWN_DEVIATIONS * total, 3.0 * widest)
        x = np.linspace(-reach, 0.6 * reach, 300)
        volatility = surface.implied_volatility(forward * np.exp(x), time)
        ax.plot(x, volatility**2 * time, color=colour, lw=1.2, label=label)
    ax.set_yscale("log")
    ax.set_xlabel("log(strike / forward)")
    ax.set_ylabel("total variance")
    _legend_of_expiries(ax, len(labels))


def _draw_heat(surface: Surface, ax: Axes, method: str) -> None:
    deviations = np.linspace(-3.0, 2.0, 121)
    first, last = float(surface.times[0]), float(surface.times[-1])
    # Where nothing is quoted there is nothing to see; of one expiry, the way to it.
    times = np.geomspace(first if first < last else last / 3.0, last, 120)
    forwards = np.asarray(surface.forward(times))
    totals = surface.implied_volatility(forwards, times) * np.sqrt(times)
    strikes = forwards[:, None] * np.exp(deviations * totals[:, None])
    values = 100.0 * np.asarray(getattr(surface, method)(strikes, times[:, None]))
    low, high = np.quantile(values[np.isfinite(values)], [0.0, 0.99])
    limits = {"vmin": low, "vmax": high, "shading": "gouraud"}
    mesh = ax.pcolormesh(deviations, times, values, **limits)
    ax.figure.colorbar(mesh, ax=ax, label=f"{method.replace('_', ' ')}, %")
    ax.set_yscale("log")
    few = LogLocator(subs=(1.0, 2.0, 5.0)) if last > 5.0 * times[0] else MaxNLocator(5)
    ax.yaxis.set_major_locator(few)
    ax.yaxis.set_major_formatter(lambda years, _: f"{years:g}")
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("log(strike / forward), in at-the-money deviations")
    ax.set_ylabel("years")


def _draw_fan(surface: Surface, ax: Axes) -> None:
    first, last = surface.times[0], surface.times[-1]
    times = np.linspace(0.1 * first, 1.1 * last, 60)
    shares = np.array([0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99])
    levels = np.array([surface.curve(time).quantile(shares) for time in times]).T
    for edge, alpha in ((0, 0.15), (1, 0.25), (2, 0.4)):
        low, high = 100.0 * shares[edge], 100.0 * shares[-1 - edge]
        label = f"{low:.0f} % to {high:.0f} %"
        band = levels[edge], levels[-1 - edge]
        ax.fill_between(times, *band, color="C0", alpha=alpha, lw=0, label=label)
    ax.plot(times, levels[3], "C0", label="median")
    ax.plot(times, np.asarray(surface.forward(times)), "k:", lw=1, label="forward")
    ax.set_xlabel("years")
    ax.set_ylabel("underlying, quantiles")
    ax.legend(fontsize="x-small", frameon=False, loc="upper left")


_SURFACE_PICTURES = {
    "smiles": _draw_smiles,
    "total_variance": _draw_total_variance,
    "implied_volatility": lambda surface, ax: _draw_heat(
        surface, ax, "implied_volatility"
    ),
    "local_volatility": lambda surface, ax: _draw_heat(surface, ax, "local_volatility"),
    "density": _draw_fan,
}


def plot_fitted_history(fitted: FittedHistory, ax: Axes | None = None) -> Axes:
    """Draw volatilities at the money of constant maturities, by date.

    A line is broken where a date could not be fitted, or has no expiries on both sides
    of the maturity.

    Args:
        fitted: The surfaces of a history.
        ax: Where to draw; by default a new figure.

    Returns:
        The Axes.

    Examples:
        >>> from relu_options.fitting.history import fit_history
        >>> from relu_options.simulation.bundled import bundled_history
        >>> fitted = fit_history(bundled_history(), dates=["2025-01-06", "2025-01-07"])
        >>> plot_fitted_history(fitted).get_ylabel()
        'volatility at the money, %'
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(8, 4.5))
    table = (
        fitted.to_frame().filter(regex=r"^volatility_\d+d$").dropna(axis=1, how="all")
    )
    table = table.reindex(table.index.union(fitted.failures.index))
    colours = plt.get_cmap("viridis")(np.linspace(0.0, 0.9, max(table.shape[1], 1)))
    for name, colour in zip(table, colours, strict=False):
        label = f"{str(name).removeprefix('volatility_').removesuffix('d')} days"
        values = 100.0 * table[name].to_numpy()
        ax.plot(
            table.index, values, ".-", ms=3, lw=1.2, color=tuple(colour), label=label
        )
    ax.set_ylabel("volatility at the money, %")
    locator = AutoDateLocator()
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    if table.shape[1]:
        ax.legend(fontsize="x-small", frameon=False)
    return ax


def plot_training(history: TrainingHistory, ax: Axes | None = None) -> Axes:
    """Draw the losses of a training by step, all restarts, and the parameters kept.

    Args:
        history: Of the training.
        ax: Where to draw; by default a new figure.

    Returns:
        The Axes.

    Examples:
        >>> from relu_options.fitting.training import TrainingHistory
        >>> history = TrainingHistory(np.array([0, 25]), np.array([[np.nan, 2.0]]),
        ...                           np.array([[3.0, 1.0]]), 0, 0, 25, False)
        >>> plot_training(history).get_ylabel()
        'loss'
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(7, 4))
    judges = "held-out loss" if history.held_out else "loss"
    for restart, (training, judged) in enumerate(
        zip(history.training, history.judged, strict=True)
    ):
        kept = restart == history.restart
        strength = 1.0 if kept else 0.3
        if history.held_out:
            label = "training loss" if kept else None
            ax.plot(history.steps, training, "C1:", label=label, alpha=strength)
        label = judges if kept else None
        ax.plot(history.steps, judged, "C0", label=label, alpha=strength)
    label = f"kept, step {history.step}"
    ax.plot(history.step, history.loss, "ko", ms=5, label=label)
    ax.set_xlabel("step")
    ax.set_ylabel("loss")
    if history.loss > 0.0:
        ax.set_yscale("log")
    ax.legend(fontsize="small", frameon=False)
    return ax

"""Pictures of backtests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from relu_options.backtest import BacktestResult

MOST_EVENTS = 12
"""Events that are marked in a picture of equity; more would hide the line."""

MOST_INSIDE = 6
"""Lines that have their legend inside of a picture; of more, it is beside."""

UNMARKED = ("no_surface", "not_quoted", "no_forward", "all_expired")
"""Kinds of events that are usual, or of a single position, and left out of pictures."""

FLOW_COLOURS = {
    "interest": "0.55",
    "dividends": "0.75",
    "underlying": "C9",
    "delta": "C0",
    "gamma": "C2",
    "vega": "C4",
    "theta": "C1",
    "residual": "C5",
    "spread": "C3",
    "fees": "C6",
}


def plot_backtest(
    result: BacktestResult, kind: str = "equity", ax: Axes | None = None
) -> Axes:
    """Draw one aspect of a backtest; see `BacktestResult.plot`.

    Examples:
        >>> plot_backtest(None, "fees")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        ValueError: kind must be one of ['equity', 'attribution', 'greeks', ...
    """
    kinds: dict[str, Callable] = {
        "equity": _equity,
        "attribution": _attribution,
        "greeks": _greeks,
        "positions": _positions,
    }
    if kind not in kinds:
        raise ValueError(f"kind must be one of {list(kinds)}, not {kind!r}")
    if ax is None:
        _, ax = plt.subplots(figsize=(9, 4.5), layout="constrained")
    kinds[kind](result, ax)
    return ax


def plot_profits(results: Mapping[str, BacktestResult], ax: Axes | None = None) -> Axes:
    """Draw the profits of several backtests, one line each, best first.

    Args:
        results: By name.
        ax: Where to draw; by default a new figure.

    Examples:
        >>> plot_profits({}).get_ylabel()
        'profit'
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(9, 4.5), layout="constrained")
    order = sorted(results, key=lambda name: -float(results[name].profit.iloc[-1]))
    for name in order:
        profit = results[name].profit
        ax.plot(
            profit.index, profit, lw=1.3, label=f"{name}: {_short(profit.iloc[-1])}"
        )
    _finish(ax, "profit")
    return ax


def plot_model_comparison(
    table: pd.DataFrame, ax: Axes | None = None, *, column: str = "volatility_rmse"
) -> Axes:
    """Draw how well models predict, by date; the legend has the medians.

    Args:
        table: Of `relu_options.backtest.compare_models`.
        ax: Where to draw; by default a new figure.
        column: "volatility_rmse" (in basis points of volatility, on a logarithmic
            scale) or "share_inside" (in per cent).

    Examples:
        >>> table = pd.DataFrame({"date": pd.to_datetime(["2025-03-14"]),
        ...                       "model": ["svi"], "share_inside": [0.5]})
        >>> plot_model_comparison(table, column="share_inside").get_ylabel()
        'predicted inside bid and ask, %'
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(9, 4.5), layout="constrained")
    in_basis_points = column == "volatility_rmse"
    scale = 1e4 if in_basis_points else 100.0
    for name in table["model"].unique():
        rows = table[table["model"] == name]
        values = scale * rows[column]
        ax.plot(rows["date"], values, lw=1.3, label=f"{name}: {values.median():.3g}")
    if in_basis_points:
        ax.set_yscale("log")
        _finish(ax, "error of predicted volatility, bp", zero=False)
    else:
        ax.set_ylim(0.0, 102.0)
        _finish(ax, "predicted inside bid and ask, %", zero=False)
    return ax


def _equity(result: BacktestResult, ax: Axes) -> None:
    """Equity against its peak, with what happened."""
    equity = result.equity
    peak = equity.cummax().clip(lower=result.capital)
    ax.plot(equity.index, equity, lw=1.4, label="equity")
    ax.fill_between(equity.index, equity, peak, color="C3", alpha=0.2, lw=0)
    ax.axhline(result.capital, color="0.8", lw=1, zorder=0)
    events = result.events[~result.events["kind"].isin(UNMARKED)]
    for kind, rows in events.head(MOST_EVENTS).groupby("kind", sort=False):
        heights = np.interp(
            _numbers(rows["date"]), _numbers(equity.index), equity.to_numpy()
        )
        label = str(kind).replace("_", " ")
        ax.plot(rows["date"], heights, linestyle="none", marker="o", ms=4, label=label)
    summary = result.summary()
    text = f"{result.name}: profit {_short(summary['profit'])}"
    if np.isfinite(summary["sharpe"]):
        text += f", Sharpe ratio {summary['sharpe']:.2f}"
    ax.set_title(text, fontsize="medium")
    _finish(ax, "equity; shaded: drawdown", zero=False)


def _attribution(result: BacktestResult, ax: Axes) -> None:
    """Cumulative flows, those that were ever there."""
    total = result.attribution.cumsum()
    for name, colour in FLOW_COLOURS.items():
        if result.attribution[name].any():
            label = f"{name}: {_short(total[name].iloc[-1])}"
            ax.plot(total.index, total[name], color=colour, lw=1.1, label=label)
    whole = total.sum(axis=1)
    label = f"profit: {_short(whole.iloc[-1])}"
    ax.plot(total.index, whole, color="k", lw=1.8, label=label)
    ax.set_title(f"{result.name}: where the profit comes from", fontsize="medium")
    _finish(ax, "cumulative profit")


def _greeks(result: BacktestResult, ax: Axes) -> None:
    """What small moves would change on each date, in currency."""
    spot, greeks = result.daily["spot"], result.greeks
    move = 0.01 * spot
    lines = {
        "delta, spot up 1 %": greeks["delta"] * move,
        "gamma, spot moves 1 %": 0.5 * greeks["gamma"] * move**2,
        "vega, volatility up 1 %": 0.01 * greeks["vega"],
        "theta, one day": greeks["theta"] / 365.0,
    }
    colours = (FLOW_COLOURS[name] for name in ("delta", "gamma", "vega", "theta"))
    for (label, values), colour in zip(lines.items(), colours, strict=True):
        ax.plot(values.index, values, lw=1.2, color=colour, label=label)
    ax.set_title(f"{result.name}: sensitivities", fontsize="medium")
    _finish(ax, "change of equity")


def _positions(result: BacktestResult, ax: Axes) -> None:
    """Strikes held over time, over the spot, which splits leave as they are."""
    table = result.positions[result.positions["option_type"].isin(["call", "put"])]
    over_spot = 100.0 * table["strike"] / table["date"].map(result.daily["spot"])
    ax.axhline(100.0, color="k", lw=1.2, label="spot")
    size = table["quantity"].abs() * table["multiplier"]
    size = 4.0 + 16.0 * size / size.max() if len(size) else size
    for sign, colour, name in ((1.0, "C0", "bought"), (-1.0, "C3", "sold")):
        for kind, marker in (("call", "^"), ("put", "v")):
            rows = (np.sign(table["quantity"]) == sign) & (table["option_type"] == kind)
            if rows.any():
                ax.scatter(
                    table["date"][rows],
                    over_spot[rows],
                    s=size[rows],
                    color=colour,
                    alpha=0.6,
                    marker=marker,
                    lw=0,
                    label=f"{kind} {name}",
                )
    ax.set_title(f"{result.name}: strikes held", fontsize="medium")
    _finish(ax, "strike over spot, %", zero=False)


def _numbers(dates: pd.Series | pd.Index) -> np.ndarray:
    """Dates as numbers, in one unit."""
    return pd.DatetimeIndex(dates).as_unit("s").asi8.astype(float)


def _short(value: float) -> str:
    """An amount in few characters."""
    size = abs(value)
    if size >= 1e5:
        return f"{value / 1e3:,.0f}k"
    return f"{value:,.0f}" if size >= 100.0 else f"{value:.3g}"


def _finish(ax: Axes, label: str, *, zero: bool = True) -> None:
    """Dates, labels and legend."""
    if zero:
        ax.axhline(0.0, color="0.8", lw=1, zorder=0)
    locator = AutoDateLocator(minticks=4, maxticks=9)
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    ax.set_ylabel(label)
    lines = len(ax.get_legend_handles_labels()[0])
    if lines > MOST_INSIDE:
        place = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
        ax.legend(fontsize="small", frameon=False, **place)
    elif lines:
        ax.legend(fontsize="small", frameon=False, loc="best")


def save_report(result: BacktestResult, path: Path) -> None:
    """Write equity, attribution, sensitivities and strikes as one picture.

    Examples:
        >>> import inspect
        >>> list(inspect.signature(save_report).parameters)
        ['result', 'path']
    """
    with plt.rc_context({"backend": "agg"}):
        figure, axes = plt.subplots(2, 2, figsize=(15, 9), layout="constrained")
        kinds = ("equity", "attribution", "greeks", "positions")
        for kind, panel in zip(kinds, axes.flat, strict=True):
            plot_backtest(result, kind, panel)
        figure.savefig(str(path), dpi=100)
        plt.close(figure)

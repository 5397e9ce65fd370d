"""Accuracy and arbitrage of whole surfaces, beside published methods.

Run from the repository root:

    python benchmarks/surface_accuracy.py [FOLDER] [--output FOLDER]
        [--methods TEXT ...] [--data TEXT ...]

Data sets are the bundled simulated chain and, from FOLDER, every CSV file of several
expiries with columns `t` (time to expiry in years), `forward`, `strike` and `iv`, and
the first file `spx_*cboe*`, whole and as eight of its expiries. Without FOLDER a
folder `shared/market` beside the repository is used if there is one. `--output` writes
`surface_accuracy.csv` and `surface_accuracy.png`. What is measured is said in
`README.md` beside this file.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter
from peers import andreasen_huge_surface, fengler_surface, sanos_surface, ssvi
from peers.andreasen_huge import INTERPOLATION
from peers.curve import Quotes, implied_total_volatility, read_quotes
from peers.surface import balanced, local_variance
from threadpoolctl import threadpool_limits
from tqdm import tqdm

import relu_options as ro
from relu_options.market_data import ExpiryQuotes, prepare_quotes

ROOT = Path(__file__).resolve().parents[1]
BASIS_POINTS = 1e4
CLOSE = "2019-05-17 16:15"  # when the quotes of the SPX file were taken, New York
SOME_EXPIRIES = 8
PATIENCE = 2.0  # seconds of a fit of a slow method beyond which it is not repeated
WARM_FITS = 3
FEW_QUOTES = 2000  # beyond it slow methods are not run
FAR_DEVIATIONS = 10.0
GRID = np.linspace(-FAR_DEVIATIONS, FAR_DEVIATIONS, 2001)
BETWEEN = (0.25, 0.5, 0.75)  # of the way from one expiry to the next
BEFORE, BEYOND = 0.5, 1.25  # of the first and of the last time to expiry
CALENDAR_TOLERANCE = 1e-9  # of the forward
PRICE_TOLERANCE = 1e-9  # of the forward, for a price to be inside its spread
NEAR_DEVIATIONS = 4.0  # where local variance is judged
LEAST_DENSITY = 1e-4  # and how dense, in deviations, the law must be there
TABLE_COLUMNS: dict[str, tuple[str, str]] = {
    "in_sample_bp": ("in-sample bp", "{:.2f}"),
    "inside": ("inside %", "{:.1f}"),
    "left_out_bp": ("left-out bp", "{:.2f}"),
    "left_out_inside": ("inside %", "{:.1f}"),
    "beyond_bp": ("beyond bp", "{:.1f}"),
    "expiries_bp": ("expiries bp", "{:.1f}"),
    "least_density": ("least density", "{:.1e}"),
    "negative_probability": ("below zero", "{:.0e}"),
    "calendar_pairs": ("pairs", "{:.0f}"),
    "calendar": ("calendar", "{:.0e}"),
    "least_local_variance": ("local variance", "{:.1e}"),
    "milliseconds": ("ms", "{:.0f}"),
    "failures": ("failed", "{:.0f}"),
}


class Surface(Protocol):
    """What is asked of a fitted surface."""

    @property
    def times(self) -> np.ndarray:
        """Times to the fitted expiries, in years."""
        ...

    def time_value(self, moneyness: np.ndarray, time: float, /) -> np.ndarray:
        """Undiscounted out-of-the-money prices over the forward."""
        ...

    def normalised_density(self, moneyness: np.ndarray, time: float, /) -> np.ndarray:
        """Density of the underlying over its forward."""
        ...


@dataclass(frozen=True)
class Expiry:
    """The out-of-the-money quotes of one expiry.

    Attributes:
        strike: In currency units, increasing.
        volatility: Black volatilities of the quotes or of their mids; NaN where there
            is no bid.
        bid: Undiscounted prices over the forward; NaN if only volatilities are known.
        ask: Likewise.
        forward: In currency units.
        discount_factor: Price today of one unit of currency paid at expiry.
        time_to_expiry: In years.
    """

    strike: np.ndarray
    volatility: np.ndarray
    bid: np.ndarray
    ask: np.ndarray
    forward: float
    discount_factor: float
    time_to_expiry: float

    @property
    def told(self) -> np.ndarray:
        """Where there is a volatility."""
        return np.isfinite(self.volatility)

    @property
    def has_spreads(self) -> bool:
        """Whether bids and asks are known."""
        return bool(np.isfinite(self.ask).all())

    @property
    def moneyness(self) -> np.ndarray:
        """Strike over forward."""
        return self.strike / self.forward

    def part(self, keep: np.ndarray) -> Expiry:
        """The quotes at which `keep` is true."""
        return Expiry(
            self.strike[keep],
            self.volatility[keep],
            self.bid[keep],
            self.ask[keep],
            self.forward,
            self.discount_factor,
            self.time_to_expiry,
        )


@dataclass(frozen=True)
class Method:
    """One way to fit a surface.

    Attributes:
        family: Its colour in the figure.
        name: Its row in the table.
        fit: From what `prepare` returns to a surface.
        prepare: From the expiries to what `fit` takes; not in its time.
        spreads_only: Whether only data sets with spreads are fitted.
        slow: Whether large data sets are left out, and long fits not repeated.
    """

    family: str
    name: str
    fit: Callable[[Any], Surface]
    prepare: Callable[[Sequence[Expiry]], Any]
    slow: bool = False
    spreads_only: bool = False

    def applies(self, expiries: Sequence[Expiry]) -> bool:
        """Whether the method is run on a data set."""
        if self.spreads_only and not expiries[0].has_spreads:
            return False
        return not self.slow or count_told(expiries) <= FEW_QUOTES


def count_told(expiries: Sequence[Expiry]) -> int:
    """Quotes that have a volatility."""
    return sum(int(expiry.told.sum()) for expiry in expiries)


def peer_quotes(
    expiries: Sequence[Expiry], *, equal: bool = False
) -> tuple[Quotes, ...]:
    """Volatilities for the peers, without quotes that have no bid.

    An error counts in units of half the spread where there are spreads, unless all
    volatilities are to count alike.
    """
    quotes, weights = [], []
    for expiry in expiries:
        own = expiry.part(expiry.told)
        terms = {"forward": own.forward, "time_to_expiry": own.time_to_expiry}
        quotes.append(read_quotes(own.strike, own.volatility, **terms))
        weight = np.ones(own.strike.size)
        if own.has_spreads and not equal:
            low, high = (
                implied_total_volatility(own.moneyness, side)
                for side in (own.bid, own.ask)
            )
            weight = 4.0 * own.time_to_expiry / (high - low) ** 2
        weights.append(weight)
    return balanced(quotes, weights)


def library_quotes(expiries: Sequence[Expiry]) -> list[ExpiryQuotes]:
    """The same quotes, and those without a bid, as the library takes them."""
    prepared = []
    for expiry in expiries:
        columns: dict[str, np.ndarray] = {"strike": expiry.strike}
        if expiry.has_spreads:
            unit = expiry.forward * expiry.discount_factor
            is_call = expiry.strike >= expiry.forward
            columns["option_type"] = np.where(is_call, "call", "put")
            columns |= {"bid": unit * expiry.bid, "ask": unit * expiry.ask}
        else:
            columns["implied_volatility"] = expiry.volatility
        prepared.append(
            prepare_quotes(
                pd.DataFrame(columns),
                forward=expiry.forward,
                discount_factor=expiry.discount_factor,
                time_to_expiry=expiry.time_to_expiry,
            )
        )
    return prepared


class LibrarySurface:
    """The library's surface behind the interface of the peers."""

    def __init__(self, quotes: list[ExpiryQuotes]):
        # Not at the top: without the fit, the peers are still to be measured.
        from relu_options import fit_surface  # pyright: ignore

        self.surface = fit_surface(quotes)
        self.times = np.array([item.time_to_expiry for item in quotes])

    def time_value(self, moneyness: np.ndarray, time: float, /) -> np.ndarray:
        """Undiscounted out-of-the-money prices over the forward."""
        forward = float(self.surface.forward(time))
        unit = forward * float(self.surface.discount_factor(time))
        strike = forward * np.asarray(moneyness)
        price = self.surface.price(strike, time, is_call=moneyness >= 1.0)
        return np.asarray(price) / unit

    def normalised_density(self, moneyness: np.ndarray, time: float, /) -> np.ndarray:
        """Density of the underlying over its forward."""
        forward = float(self.surface.forward(time))
        strike = forward * np.asarray(moneyness)
        return forward * np.asarray(self.surface.density(strike, time))


def methods() -> list[Method]:
    """Every method of the comparison; ours only if the library can fit a surface."""
    peers: list[tuple[str, str, Callable[..., Surface], bool]] = [
        ("SVI", "SVI, slice by slice", ssvi.fit_slices, False),
        ("SSVI", "SSVI", ssvi.fit_ssvi, False),
        ("eSSVI", "eSSVI (in turn)", partial(ssvi.fit_essvi, together=False), False),
        ("eSSVI", "eSSVI (together)", ssvi.fit_essvi, False),
        ("Fengler", "Fengler (small λ)", fengler_surface.fit, False),
        (
            "Fengler",
            "Fengler (small λ, mixed)",
            partial(fengler_surface.fit, mixed=True),
            True,
        ),
        (
            "Fengler",
            "Fengler (cross-validated)",
            partial(fengler_surface.fit, smoothing="cross-validation"),
            True,
        ),
        ("SANOS", "SANOS (0.25)", sanos_surface.fit, True),
        ("SANOS", "SANOS (0.5)", partial(sanos_surface.fit, kernel=0.5), True),
        (
            "SANOS",
            "SANOS (0.25, ordered at nodes)",
            partial(sanos_surface.fit, strict=False),
            True,
        ),
        (
            "SANOS",
            "SANOS (cross-validated)",
            partial(sanos_surface.fit, kernel="cross-validation"),
            True,
        ),
        *(
            (
                "Andreasen-Huge",
                f"Andreasen-Huge ({kind})",
                partial(andreasen_huge_surface.fit, interpolation=kind),
                True,
            )
            for kind in INTERPOLATION
        ),
    ]
    found = [Method(*row[:3], peer_quotes, row[3]) for row in peers]
    # A few parameters cannot follow both the narrow spreads and the wide ones.
    found += [
        Method(
            row[0],
            f"{row[1]}, equal weights",
            row[2],
            partial(peer_quotes, equal=True),
            spreads_only=True,
        )
        for row in peers
        if "SVI" in row[0]
    ]
    if not hasattr(ro, "fit_surface"):
        print("relu_options: its row is skipped: the library has no fit_surface")
        return found
    ours = Method("relu_options", "relu_options", LibrarySurface, library_quotes)
    return [ours, *found]


def from_prepared(quotes: ExpiryQuotes) -> Expiry:
    """An expiry with spreads, from the quotes that the library chose."""
    order = np.argsort(quotes.strike)
    unit = 1.0 / (quotes.forward * quotes.discount_factor)
    strike = quotes.strike[order]
    bid, ask = unit * quotes.bid[order], unit * quotes.ask[order]
    total = implied_total_volatility(strike / quotes.forward, 0.5 * (bid + ask))
    volatility = np.where(bid > 0.0, total / np.sqrt(quotes.time_to_expiry), np.nan)
    return Expiry(
        strike,
        volatility,
        bid,
        ask,
        quotes.forward,
        quotes.discount_factor,
        quotes.time_to_expiry,
    )


def read_chains(folder: Path | None) -> dict[str, list[Expiry]]:
    """The data sets by name, each as its expiries in order of time."""
    chain = ro.bundled_chain()
    found = {
        "simulated": [from_prepared(prepare_quotes(chain[key])) for key in chain.slices]
    }
    for path in [] if folder is None else sorted(folder.glob("*.csv")):
        if not {"t", "forward", "strike", "iv"} <= set(pd.read_csv(path, nrows=0)):
            continue
        rows = pd.read_csv(path).sort_values(["t", "strike"])
        expiries = [
            Expiry(
                group["strike"].to_numpy(float),
                group["iv"].to_numpy(float),
                np.full(len(group), np.nan),
                np.full(len(group), np.nan),
                float(group["forward"].iloc[0]),
                1.0,
                float(group["t"].iloc[0]),
            )
            for _, group in rows.groupby("t")
        ]
        if len(expiries) > 1:
            found[path.stem] = expiries
    for path in [] if folder is None else sorted(folder.glob("spx_*cboe*"))[:1]:
        chain = ro.read_chain(path, quote_time=CLOSE)
        expiries = [from_prepared(prepare_quotes(chain[key])) for key in chain.slices]
        expiries.sort(key=lambda expiry: expiry.time_to_expiry)
        places = np.linspace(0, len(expiries) - 1, SOME_EXPIRIES).round().astype(int)
        found[f"SPX 2019, {SOME_EXPIRIES} expiries"] = [expiries[i] for i in places]
        found["SPX 2019, all"] = expiries
    return found


def volatility(surface: Surface, expiry: Expiry) -> np.ndarray:
    """The surface's volatilities at the quotes; 0 for a price below intrinsic."""
    k, years = expiry.moneyness, expiry.time_to_expiry
    if k.size == 0:
        return np.zeros(0)
    return implied_total_volatility(k, surface.time_value(k, years)) / np.sqrt(years)


def errors(surface: Surface, expiry: Expiry) -> np.ndarray:
    """Errors of volatility at the quotes, `(n,)`."""
    return volatility(surface, expiry) - expiry.volatility


def within(surface: Surface, expiry: Expiry) -> np.ndarray:
    """Whether prices are inside the spread; empty for an expiry without spreads."""
    if not expiry.has_spreads or expiry.strike.size == 0:
        return np.zeros(0, bool)
    price = surface.time_value(expiry.moneyness, expiry.time_to_expiry)
    low, high = expiry.bid - PRICE_TOLERANCE, expiry.ask + PRICE_TOLERANCE
    return (price >= low) & (price <= high)


def halves(expiries: Sequence[Expiry]) -> Iterator[tuple[list[Expiry], list[Expiry]]]:
    """Every second strike to be fitted, the others to be judged; and the other way.

    Neighbouring expiries do not keep the same strikes: what one lacks the next may say.
    """
    for parity in (0, 1):
        fitted, judged = [], []
        for place, expiry in enumerate(expiries):
            even = (np.arange(expiry.strike.size) + place) % 2 == parity
            fitted.append(expiry.part(even))
            judged.append(expiry.part(~even & expiry.told))
        yield fitted, judged


def in_range(judged: Expiry, fitted: Expiry) -> np.ndarray:
    """Where quotes lie strictly between the outermost fitted ones, in moneyness."""
    k = fitted.moneyness[fitted.told]
    return (judged.moneyness > k[0]) & (judged.moneyness < k[-1])


def left_out_expiries(
    expiries: Sequence[Expiry],
) -> tuple[list[Expiry], list[Expiry]]:
    """The first, third, ... and last expiry; and the others where both sides reach."""
    judged = []
    for place in range(1, len(expiries) - 1, 2):
        own = expiries[place].part(expiries[place].told)
        sides = [in_range(own, expiries[place + step]) for step in (-1, 1)]
        judged.append(own.part(sides[0] & sides[1]))
    kept = [e for i, e in enumerate(expiries) if i % 2 == 0 or i == len(expiries) - 1]
    return kept, judged


def time_grid(times: np.ndarray) -> np.ndarray:
    """Times before, at, between and beyond the expiries."""
    inner = [a + share * (b - a) for a, b in pairwise(times) for share in BETWEEN]
    ends = [BEFORE * times[0], BEYOND * times[-1]]
    return np.sort(np.concatenate([times, inner, ends]))


def deviation(surface: Surface, years: float) -> float:
    """Total volatility of the surface at the money."""
    one = np.ones(1)
    return float(implied_total_volatility(one, surface.time_value(one, years))[0])


def arbitrage(surface: Surface) -> dict[str, float]:
    """What a fine grid of strikes and times finds."""
    times = np.asarray(surface.times, float)
    grid = time_grid(times)
    least, below_zero, violations = [], [], {}
    step = GRID[1] - GRID[0]
    for years in grid:
        unit = deviation(surface, years)
        k = np.exp(unit * GRID)
        with np.errstate(all="ignore"):
            density = surface.normalised_density(k, years) * k * unit
        least.append(np.nanmin(density))
        below_zero.append(step * np.nansum(np.maximum(-density, 0.0)))
    for early, late in [*pairwise(grid), *pairwise(times)]:
        k = np.exp(deviation(surface, late) * GRID)
        excess = surface.time_value(k, early) - surface.time_value(k, late)
        violations[float(early), float(late)] = float(np.nanmax(excess))
    worst = max(violations.values())
    pairs = [violations[float(a), float(b)] for a, b in pairwise(times)]
    return {
        "least_density": float(min(least)),
        "negative_probability": float(max(below_zero)),
        "calendar_pairs": sum(value > CALENDAR_TOLERANCE for value in pairs),
        "calendar": max(worst, 0.0),
        "least_local_variance": least_local_variance(surface, times),
    }


def least_local_variance(surface: Surface, times: np.ndarray) -> float:
    """The least of Dupire's local variance between expiries, where the law is dense."""
    found = []
    near = GRID[np.abs(GRID) <= NEAR_DEVIATIONS]
    for years in np.setdiff1d(time_grid(times), times):
        if years > times[-1]:
            continue
        unit = deviation(surface, years)
        k = np.exp(unit * near)
        density = surface.normalised_density(k, years) * k * unit
        variance = local_variance(surface, k, years)  # pyright: ignore
        found.append(np.nanmin(np.where(density > LEAST_DENSITY, variance, np.nan)))
    return float(min(found))


def timed_fit(expiries: Sequence[Expiry], method: Method) -> tuple[Surface, float]:
    """The fit and its seconds, warm: a first fit pays for compilation and caches."""
    prepared = method.prepare(expiries)
    taken = []
    surface = None
    for _ in range(WARM_FITS):
        start = time.perf_counter()
        surface = method.fit(prepared)
        taken.append(time.perf_counter() - start)
        if method.slow and taken[0] > PATIENCE:
            break
    assert surface is not None
    return surface, min(taken)


def measure(expiries: Sequence[Expiry], method: Method) -> dict[str, float]:
    """Fit a data set, and its parts, and summarise."""
    told = [expiry.part(expiry.told) for expiry in expiries]
    misses: dict[str, list[np.ndarray]] = {}
    inside: dict[str, list[np.ndarray]] = {"inside": [], "left_out_inside": []}
    summary: dict[str, float] = {"failures": 0}

    def fitted(part: Sequence[Expiry]) -> Surface | None:
        """The surface, or None and one more failure."""
        try:
            return method.fit(method.prepare(part))
        except RuntimeError as error:
            summary["failures"] += 1
            warnings.warn(f"{method.name}: {error}", stacklevel=2)
            return None

    try:
        surface, seconds = timed_fit(expiries, method)
    except RuntimeError as error:
        summary["failures"] += 1
        warnings.warn(f"{method.name}: {error}", stacklevel=2)
    else:
        misses["in_sample_bp"] = [errors(surface, expiry) for expiry in told]
        inside["inside"] = [within(surface, expiry) for expiry in told]
        summary |= arbitrage(surface) | {"milliseconds": 1e3 * seconds}
    for part, judged in halves(expiries):
        surface = fitted(part)
        if surface is None:
            continue
        for own, rest in zip(part, judged, strict=True):
            between = in_range(rest, own)
            near, far = rest.part(between), rest.part(~between)
            misses.setdefault("left_out_bp", []).append(errors(surface, near))
            misses.setdefault("beyond_bp", []).append(errors(surface, far))
            inside["left_out_inside"].append(within(surface, near))
    part, judged = left_out_expiries(expiries)
    if judged and (surface := fitted(part)) is not None:
        misses["expiries_bp"] = [errors(surface, expiry) for expiry in judged]
    for name, found in misses.items():
        every = np.concatenate(found)
        summary[name] = BASIS_POINTS * float(np.sqrt(np.mean(every**2)))
    for name, counted in inside.items():
        every = np.concatenate([*counted, np.zeros(0, bool)])
        summary[name] = 100.0 * float(every.mean()) if every.size else np.nan
    return summary


def compare(
    chains: dict[str, list[Expiry]], chosen: Sequence[Method]
) -> Iterator[dict[str, object]]:
    """One row for each data set and method."""
    rows = [
        (data_set, method)
        for data_set, expiries in chains.items()
        for method in chosen
        if method.applies(expiries)
    ]
    progress = tqdm(rows, disable=None)
    for data_set, method in progress:
        progress.set_description(f"{data_set}, {method.name}")
        yield {
            "data_set": data_set,
            "family": method.family,
            "method": method.name,
            "expiries": len(chains[data_set]),
            "quotes": count_told(chains[data_set]),
            **measure(chains[data_set], method),
        }


def print_tables(results: pd.DataFrame) -> None:
    """Print one table for each data set."""
    for data_set, rows in results.groupby("data_set", sort=False):
        first = rows.iloc[0]
        print(f"\n{data_set}: {first['quotes']} quotes, {first['expiries']} expiries")
        rows = rows.set_index("method")
        table = {}
        for position, (column, (label, show)) in enumerate(TABLE_COLUMNS.items()):
            if column not in rows or rows[column].isna().all():
                continue
            # Two columns may have one label.
            table[position, label] = rows[column].map(show.format)
        shown = pd.DataFrame(table)
        shown.columns = [label for _, label in table]
        print(shown.rename_axis(None).to_string())


def draw(results: pd.DataFrame, path: Path) -> None:
    """Draw one row for each method and one panel for each data set.

    A line runs from the error in sample to that on left-out strikes, a cross marks that
    on left-out expiries. Methods in which the grid found an arbitrage are hollow and
    red, with the size of the larger of two: the fall of a price with time, over the
    forward, and the probability that a density below zero amounts to.
    """
    data_sets = list(results["data_set"].unique())
    names = list(results["method"].unique())[::-1]
    figure, axes = plt.subplots(
        1,
        len(data_sets),
        figsize=(2.2 + 3.3 * len(data_sets), 1.6 + 0.3 * len(names)),
        squeeze=False,
        sharey=True,
        layout="constrained",
    )
    for axis, data_set in zip(axes[0], data_sets, strict=True):
        rows = results[results["data_set"] == data_set].dropna(subset=["left_out_bp"])
        worst = rows[["calendar", "negative_probability"]].max(axis=1)
        for (_, row), size in zip(rows.iterrows(), worst, strict=True):
            y = names.index(str(row["method"]))
            clean = not size > CALENDAR_TOLERANCE
            colour = "black" if clean else "#d62728"
            ends = [row["in_sample_bp"], row["left_out_bp"]]
            axis.plot(ends, [y, y], color=colour, linewidth=1.2)
            axis.plot(ends[0], y, "|", color=colour, markersize=9)
            axis.plot(
                ends[1],
                y,
                "o",
                color=colour,
                markerfacecolor=colour if clean else "white",
                markersize=7,
            )
            axis.plot(row["expiries_bp"], y, "x", color=colour, markersize=6)
            if not clean:
                axis.annotate(
                    f"{size:.0e}",
                    (1.0, y),
                    xycoords=axis.get_yaxis_transform(),
                    xytext=(-3, 0),
                    textcoords="offset points",
                    ha="right",
                    va="center",
                    fontsize=7,
                    color=colour,
                )
        for y, name in enumerate(names):
            if name == "relu_options":
                axis.axhspan(y - 0.5, y + 0.5, color="#e8eef8", zorder=0)
        low, high = rows["in_sample_bp"].min(), rows["expiries_bp"].max()
        high = max(high, rows["left_out_bp"].max(), rows["in_sample_bp"].max())
        # Room at the right for the sizes.
        axis.set(
            xscale="log",
            xlim=(low / 1.5, high * (high / low) ** 0.25),
            title=f"{data_set}\n{rows['quotes'].iloc[0]} quotes",
            xlabel="volatility error (bp)",
        )
        axis.title.set_fontsize(9)
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.grid(axis="x", alpha=0.3)
    axes[0, 0].set_yticks(range(len(names)), names)
    axes[0, 0].set_ylim(-0.6, len(names) - 0.4)
    hollow = {"marker": "o", "markerfacecolor": "white", "color": "#d62728"}
    shown: list[tuple[dict[str, Any], str]] = [
        ({"marker": "|", "color": "black"}, "in sample"),
        ({"marker": "o", "color": "black"}, "left-out strikes"),
        ({"marker": "x", "color": "black"}, "left-out expiries"),
        (hollow, "red: has arbitrage, of this size"),
    ]
    handles = [Line2D([], [], ls="", label=label, **look) for look, label in shown]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    """Read the arguments, measure, print and write."""
    parser = argparse.ArgumentParser(
        description="Accuracy and arbitrage of whole surfaces."
    )
    parser.add_argument("folder", nargs="?", type=Path, help="folder with quotes")
    parser.add_argument("--output", type=Path, help="folder for the CSV and the figure")
    parser.add_argument(
        "--methods", nargs="*", default=[], help="only methods whose name has one of"
    )
    parser.add_argument(
        "--data", nargs="*", default=[], help="only data sets whose name has one of"
    )
    arguments = parser.parse_args()
    beside = ROOT.parent / "shared" / "market"
    folder = arguments.folder or (beside if beside.is_dir() else None)

    def wanted(name: str, words: list[str]) -> bool:
        """Whether a name has one of the words, or no word was given."""
        return not words or any(word.lower() in name.lower() for word in words)

    chains = {
        name: expiries
        for name, expiries in read_chains(folder).items()
        if wanted(name, arguments.data)
    }
    chosen = [m for m in methods() if wanted(m.name, arguments.methods)]
    with threadpool_limits(1, user_api="blas"):
        results = pd.DataFrame(compare(chains, chosen))
    if results.empty:
        raise SystemExit("no data set or no method has one of the words")
    print_tables(results)
    if arguments.output is not None:
        arguments.output.mkdir(parents=True, exist_ok=True)
        results.to_csv(arguments.output / "surface_accuracy.csv", index=False)
        draw(results, arguments.output / "surface_accuracy.png")


if __name__ == "__main__":
    main()

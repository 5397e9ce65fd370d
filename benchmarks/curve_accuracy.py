"""Accuracy of one-expiry curves on tables of quotes, beside published methods.

Run from the repository root:

    python benchmarks/curve_accuracy.py [FOLDER] [--output FOLDER] [--methods TEXT ...]

Every CSV file in FOLDER with columns `t` (time to expiry in years), `forward`, `strike`
and `iv` is a data set; each of its expiries is fitted by itself. Without FOLDER a
folder `shared/market` beside the repository is used if there is one, else the bundled
simulated chain. `--output` writes `curve_accuracy.csv` and `curve_accuracy.png`.
What is measured is said in `README.md` beside this file.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import LogLocator, NullFormatter
from peers import andreasen_huge, bound, fengler, mixtures, svi
from peers.curve import implied_total_volatility
from scipy.signal import find_peaks

ROOT = Path(__file__).resolve().parents[1]
BASIS_POINTS = 1e4
CELL = 0.1
POINTS_PER_CELL = 20
PROMINENCE = 0.01
FAR_DEVIATIONS = 10.0
OUTLYING = 5.0  # errors above this many times their median are not drawn to scale
OUR_SMOOTHING_PATH: tuple[float, ...] = tuple(10.0 ** np.arange(-2.0, 2.1, 0.5))
TABLE_COLUMNS = {
    "in_sample_bp": "in-sample bp",
    "left_out_bp": "left-out bp",
    "modes": "modes",
    "roughness": "roughness",
    "least_density": "least density",
    "milliseconds": "ms",
    "failures": "failed",
}


class Curve(Protocol):
    """What is asked of a fitted curve."""

    def __call__(self, strike: np.ndarray, /) -> np.ndarray:
        """Black volatilities."""
        ...

    def density(self, strike: np.ndarray, /) -> np.ndarray:
        """Risk-neutral density."""
        ...


@dataclass(frozen=True)
class Method:
    """One way to fit a curve.

    Attributes:
        family: Its colour in the figure.
        name: Its row in the table.
        fit: From strikes and volatilities (and `forward`, `time_to_expiry`) to a curve.
        knob: The value of its smoothing parameter, where the row is one point of a
            sweep; such rows are drawn as a line and left out of the printed table.
    """

    family: str
    name: str
    fit: Callable[..., Curve]
    knob: float | None = None


@dataclass(frozen=True)
class Expiry:
    """The quotes of one expiry.

    Attributes:
        strike: In currency units, increasing.
        volatility: Black volatilities of the quotes, or of their mids.
        forward: In currency units.
        time_to_expiry: In years.
    """

    strike: np.ndarray
    volatility: np.ndarray
    forward: float
    time_to_expiry: float

    @property
    def deviation(self) -> float:
        """Total volatility at the money, by interpolation of the quotes."""
        at_the_money = np.interp(self.forward, self.strike, self.volatility)
        return float(at_the_money * np.sqrt(self.time_to_expiry))

    def part(self, keep: np.ndarray) -> Expiry:
        """The quotes at which `keep` is true."""
        return Expiry(
            self.strike[keep],
            self.volatility[keep],
            self.forward,
            self.time_to_expiry,
        )

    def fit(self, method: Method) -> Curve:
        """Fit these quotes."""
        return method.fit(
            self.strike,
            self.volatility,
            forward=self.forward,
            time_to_expiry=self.time_to_expiry,
        )


class LibraryCurve:
    """The library's fit behind the interface of the peers."""

    def __init__(
        self,
        strike: np.ndarray,
        volatility: np.ndarray,
        *,
        forward: float,
        time_to_expiry: float,
        **options: float,
    ):
        # Not at the top: without the fit, the peers are still to be measured.
        from relu_options import fit_curve

        quotes = pd.DataFrame({"strike": strike, "implied_volatility": volatility})
        self.curve = fit_curve(
            quotes,
            forward=forward,
            discount_factor=1.0,
            time_to_expiry=time_to_expiry,
            **options,  # type: ignore
        )

    def __call__(self, strike: np.ndarray, /) -> np.ndarray:
        """Black volatilities."""
        return np.asarray(self.curve.implied_volatility(strike))

    def density(self, strike: np.ndarray, /) -> np.ndarray:
        """Risk-neutral density."""
        return np.asarray(self.curve.density(strike))


def methods() -> list[Method]:
    """Every method of the comparison; ours only if the library can fit a curve."""
    found = [
        Method("bound", "bound (no density)", bound.fit),
        Method(
            "Fengler",
            "Fengler (as published)",
            partial(fengler.fit, smoothing=fengler.SMALL_SMOOTHING, wings=False),
        ),
        Method(
            "Fengler",
            "Fengler (small λ)",
            partial(fengler.fit, smoothing=fengler.SMALL_SMOOTHING),
        ),
        Method("Fengler", "Fengler (cross-validated)", fengler.fit),
        Method("SVI", "SVI", svi.fit),
        *(
            Method(
                "Andreasen-Huge",
                f"Andreasen-Huge ({kind})",
                partial(andreasen_huge.fit, interpolation=kind),
            )
            for kind in andreasen_huge.INTERPOLATION
        ),
        Method("4 lognormals", "4 lognormals", mixtures.fit),
        Method("SANOS", "SANOS (0.25)", mixtures.fit_sanos),
        Method(
            "SANOS",
            "SANOS (cross-validated)",
            partial(mixtures.fit_sanos, kernel="cross-validation"),
        ),
    ]
    found += [
        Method(
            "Fengler",
            f"Fengler λ={level:.1e}",
            partial(fengler.fit, smoothing=level),
            level,
        )
        for level in fengler.SMOOTHING_PATH
    ]
    found += [
        Method("SANOS", f"SANOS h={k:g}", partial(mixtures.fit_sanos, kernel=k), k)
        for k in mixtures.KERNEL_PATH
    ]
    try:
        from relu_options import fit_curve  # noqa: F401
    except ImportError as error:
        print(f"relu_options: its rows are skipped: {error}")
        return found
    found.append(Method("relu_options", "relu_options", LibraryCurve))
    found += [
        Method(
            "relu_options",
            f"relu_options smoothing={level:.1e}",
            partial(LibraryCurve, smoothing=level),
            level,
        )
        for level in OUR_SMOOTHING_PATH
    ]
    return found


def read_tables(folder: Path) -> dict[str, list[Expiry]]:
    """Every tidy table of a folder, as its expiries in order of time."""
    tables = {}
    for path in sorted(folder.glob("*.csv")):
        if not {"t", "forward", "strike", "iv"} <= set(pd.read_csv(path, nrows=0)):
            continue
        rows = pd.read_csv(path).sort_values(["t", "strike"])
        tables[path.stem] = [
            Expiry(
                group["strike"].to_numpy(float),
                group["iv"].to_numpy(float),
                float(group["forward"].iloc[0]),
                float(group["t"].iloc[0]),
            )
            for _, group in rows.groupby("t")
        ]
    return tables


def read_bundled(folder: Path) -> dict[str, list[Expiry]]:
    """The simulated chain: volatilities of the mids of out-of-the-money quotes."""
    rows = pd.read_csv(folder / "bates_chain.csv")
    terms = json.loads((folder / "bates_chain.json").read_text(encoding="utf-8"))
    expiries = []
    for term in terms["slices"]:
        forward, growth = term["forward"], 1.0 / term["discount_factor"]
        group = rows[(rows["expiry"] == term["expiry"]) & (rows["bid"] > 0.0)]
        wanted = np.where(group["strike"] >= forward, "call", "put")
        group = group[group["option_type"] == wanted].sort_values("strike")
        strike = group["strike"].to_numpy(float)
        mid = group[["bid", "ask"]].mean(axis=1).to_numpy(float) * growth
        total = implied_total_volatility(strike / forward, mid / forward)
        volatility = total / np.sqrt(term["time_to_expiry"])
        expiries.append(Expiry(strike, volatility, forward, term["time_to_expiry"]))
    return {"bates_chain": expiries}


def left_out_errors(expiry: Expiry, method: Method) -> np.ndarray:
    """Errors at the strikes left out, when each half is fitted and the other judged.

    Only strikes strictly inside the range of the fitted half are judged: beyond it
    every method extrapolates by its own convention.
    """
    errors = []
    position = np.arange(expiry.strike.size)
    for parity in (0, 1):
        fitted = expiry.part(position % 2 == parity)
        judged = expiry.part(position % 2 != parity)
        low, high = fitted.strike[0], fitted.strike[-1]
        judged = judged.part((judged.strike > low) & (judged.strike < high))
        errors.append(fitted.fit(method)(judged.strike) - judged.volatility)
    return np.concatenate(errors)


def standardised_density(expiry: Expiry, curve: Curve, z: np.ndarray) -> np.ndarray:
    """Density of log(underlying / forward) over `Expiry.deviation`, at `z`."""
    strike = expiry.forward * np.exp(expiry.deviation * z)
    with np.errstate(all="ignore"):
        return np.asarray(curve.density(strike)) * strike * expiry.deviation


def quoted_density(expiry: Expiry, curve: Curve) -> np.ndarray:
    """Density at `POINTS_PER_CELL` points in each whole cell of the quoted range."""
    x = np.log(expiry.strike / expiry.forward) / expiry.deviation
    cells = int((x[-1] - x[0]) / CELL)
    centre = 0.5 * (x[0] + x[-1])
    points = np.arange(cells * POINTS_PER_CELL) + 0.5 - 0.5 * cells * POINTS_PER_CELL
    return standardised_density(expiry, curve, centre + points * CELL / POINTS_PER_CELL)


def count_modes(density: np.ndarray) -> int:
    """Local maxima inside the range that stand out by 1% of the highest point."""
    height = PROMINENCE * float(density.max())
    return len(find_peaks(density, prominence=height)[0])


def roughness(density: np.ndarray) -> float:
    """Integral of the squared third derivative, as seen by cells of 0.1 deviations.

    Averages over cells make it finite and comparable where a density has kinks: the
    third derivative of a straight piece is zero and that of its ends infinite.
    """
    cells = density.reshape(-1, POINTS_PER_CELL).mean(axis=1)
    return float(np.sum((np.diff(cells, 3) / CELL**3) ** 2) * CELL)


def timed_fit(expiry: Expiry, method: Method) -> tuple[Curve, float]:
    """The fit and its seconds, warm: a first fit pays for compilation and caches."""
    start = time.perf_counter()
    curve = expiry.fit(method)
    cold = time.perf_counter() - start
    start = time.perf_counter()
    curve = expiry.fit(method)
    return curve, min(cold, time.perf_counter() - start)


def measure(expiries: list[Expiry], method: Method) -> dict[str, float]:
    """Fit every expiry of a data set and summarise."""
    residuals, left_out, modes, rough, least, seconds = [], [], [], [], [], []
    failures = 0
    for expiry in expiries:
        try:
            curve, took = timed_fit(expiry, method)
            errors = left_out_errors(expiry, method)
        except RuntimeError as error:
            failures += 1
            warnings.warn(f"{method.name}: {error}", stacklevel=2)
            continue
        seconds.append(took)
        residuals.append(curve(expiry.strike) - expiry.volatility)
        left_out.append(errors)
        density = quoted_density(expiry, curve)
        if not np.isfinite(density).all():
            continue
        modes.append(count_modes(density))
        rough.append(roughness(density))
        far = np.linspace(-FAR_DEVIATIONS, FAR_DEVIATIONS, 2001)
        least.append(np.nanmin(standardised_density(expiry, curve, far)))

    def root_mean_square(errors: list[np.ndarray]) -> float:
        if not errors:
            return np.nan
        return float(BASIS_POINTS * np.sqrt(np.mean(np.concatenate(errors) ** 2)))

    return {
        "in_sample_bp": root_mean_square(residuals),
        "left_out_bp": root_mean_square(left_out),
        "modes": max(modes) if modes else np.nan,
        "mean_modes": float(np.mean(modes)) if modes else np.nan,
        # Orders of magnitude lie between expiries: their mean is that of logarithms.
        "roughness": float(np.exp(np.mean(np.log(rough)))) if rough else np.nan,
        "least_density": float(min(least)) if least else np.nan,
        "milliseconds": 1e3 * float(np.mean(seconds)) if seconds else np.nan,
        "failures": failures,
    }


def compare(
    tables: dict[str, list[Expiry]], chosen: list[Method]
) -> Iterator[dict[str, object]]:
    """One row for each data set and method."""
    for data_set, expiries in tables.items():
        for method in chosen:
            yield {
                "data_set": data_set,
                "family": method.family,
                "method": method.name,
                "knob": method.knob,
                "expiries": len(expiries),
                "quotes": sum(expiry.strike.size for expiry in expiries),
                **measure(expiries, method),
            }


def print_tables(results: pd.DataFrame) -> None:
    """Print one table for each data set; of a sweep, the best point in hindsight."""
    for data_set, rows in results.groupby("data_set", sort=False):
        first = rows.iloc[0]
        print(f"\n{data_set}: {first['quotes']} quotes, {first['expiries']} expiries")
        shown = [rows[rows["knob"].isna()]]
        for _, sweep in rows[rows["knob"].notna()].groupby("family", sort=False):
            if sweep["left_out_bp"].isna().all():
                continue
            best = sweep.loc[[sweep["left_out_bp"].idxmin()]]
            shown.append(best.assign(method=best["method"] + " (hindsight)"))
        table = pd.concat(shown).set_index("method")[list(TABLE_COLUMNS)]
        formats: dict[str, Callable[[float], str]] = {
            "in_sample_bp": "{:.2f}".format,
            "left_out_bp": "{:.2f}".format,
            "modes": "{:.0f}".format,
            "roughness": "{:.3g}".format,
            "least_density": "{:.1e}".format,
            "milliseconds": "{:.1f}".format,
            "failures": "{:.0f}".format,
        }
        for column, show in formats.items():
            table[column] = table[column].map(show)
        print(table.rename(columns=TABLE_COLUMNS).rename_axis(None).to_string())


def draw(results: pd.DataFrame, path: Path) -> None:
    """Draw error against roughness: sweeps as lines, other methods as points.

    A panel ends above the largest error of a named method that is not out of all
    proportion to the others; such a point sits on its upper edge.
    """
    data_sets = list(results["data_set"].unique())
    families = [f for f in results["family"].unique() if f != "bound"]
    palette = {"relu_options": "black"} | dict(
        zip(
            [family for family in families if family != "relu_options"],
            ["#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"],
            strict=False,
        )
    )
    markers = "osD^vPX*"
    figure, axes = plt.subplots(
        2,
        len(data_sets),
        figsize=(5.0 * len(data_sets), 8.0),
        squeeze=False,
        sharex="col",
        layout="constrained",
    )
    panels = [("in_sample_bp", "in-sample"), ("left_out_bp", "left-out")]
    for column, data_set in enumerate(data_sets):
        rows = results[results["data_set"] == data_set]
        floor = rows.loc[rows["family"] == "bound", "in_sample_bp"]
        for (measure_name, label), axis in zip(panels, axes[:, column], strict=True):
            named = rows.loc[rows["knob"].isna() & rows["roughness"].notna()]
            errors = named[measure_name]
            top = 1.2 * errors[errors <= OUTLYING * errors.median()].max()
            for family in families:
                own = rows[rows["family"] == family]
                points = own[own["knob"].isna()]
                sweep = own[own["knob"].notna()].sort_values("knob")
                axis.plot(
                    sweep["roughness"],
                    sweep[measure_name],
                    ".-",
                    color=palette[family],
                    linewidth=1.8 if family == "relu_options" else 1.2,
                    markersize=5,
                )
                for marker, (_, point) in zip(markers, points.iterrows(), strict=False):
                    axis.plot(
                        point["roughness"],
                        min(point[measure_name], top),
                        marker,
                        color=palette[family],
                        markersize=8 if family == "relu_options" else 7,
                        label=point["method"],
                        clip_on=False,
                        zorder=3,
                    )
            if measure_name == "in_sample_bp" and len(floor):
                axis.axhline(floor.iloc[0], color="grey", linestyle=":", label="bound")
            axis.set(xscale="log", yscale="log", ylabel=f"{label} error (bp)")
            axis.set_ylim(top=top)
            axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter(NullFormatter())
            axis.grid(alpha=0.3)
        count = int(rows["quotes"].iloc[0])
        axes[0, column].set_title(f"{data_set}\n{count} quotes")
        axes[1, column].set_xlabel("roughness of the density")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    """Read the arguments, measure, print and write."""
    parser = argparse.ArgumentParser(
        description="Accuracy of one-expiry curves on tables of quotes."
    )
    parser.add_argument("folder", nargs="?", type=Path, help="folder with tidy tables")
    parser.add_argument("--output", type=Path, help="folder for the CSV and the figure")
    parser.add_argument(
        "--methods", nargs="*", default=[], help="only methods whose name has one of"
    )
    arguments = parser.parse_args()
    beside = ROOT.parent / "shared" / "market"
    folder = arguments.folder or (beside if beside.is_dir() else ROOT / "data")
    tables = read_tables(folder)
    if not tables and (folder / "bates_chain.csv").is_file():
        tables = read_bundled(folder)
    if not tables:
        raise SystemExit(
            f"{folder} has no CSV file with columns t, forward, strike, iv"
        )
    chosen = [
        method
        for method in methods()
        if not arguments.methods
        or any(text.lower() in method.name.lower() for text in arguments.methods)
    ]
    results = pd.DataFrame(compare(tables, chosen))
    print_tables(results)
    if arguments.output is not None:
        arguments.output.mkdir(parents=True, exist_ok=True)
        results.to_csv(arguments.output / "curve_accuracy.csv", index=False)
        draw(results, arguments.output / "curve_accuracy.png")


if __name__ == "__main__":
    main()

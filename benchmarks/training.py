"""Training by gradient: where it starts, what it gains, how dead strikes come back.

Run from the repository root:

    python benchmarks/training.py [FOLDER] [--output FOLDER] [--tables TEXT ...]

Tables are `starts`, `kinks`, `dead`, `surface` and `conflict`. Data sets of `kinks` are
the bundled simulated chain and every CSV file in FOLDER with columns `t` (time to
expiry in years), `forward`, `strike` and `iv`; without FOLDER a folder `shared/market`
beside the repository is used if there is one. `--output` writes `training.csv` and
`training.png`, the errors of `kinks` by their number.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import optax
import pandas as pd
from scipy.optimize import lsq_linear

import relu_options as ro
from relu_options import black_scholes
from relu_options.errors import FitError
from relu_options.fitting.gradient_conflict import (
    gradient_similarity,
    pcgrad,
    task_gradients,
)
from relu_options.fitting.initialisation import strike_coverage
from relu_options.fitting.network_training import TrainedNetwork, train_network
from relu_options.fitting.surface_training import train_surface
from relu_options.fitting.training import TrainingOptions
from relu_options.market_data import ExpiryQuotes, prepare_quotes

ROOT = Path(__file__).resolve().parents[1]
BASIS_POINTS = 1e4
SEEDS = range(5)
UNITS = 16
STEPS = 2000
KINKS = (8, 12, 16, 24, 32, 64)
FIXED_WIDTHS = (0.125, 0.25, 0.5, 1.0)  # tried for the fixed grid, in hindsight
STRIKES = np.linspace(50.0, 150.0, 101)
CALLS = np.asarray(
    black_scholes.price(spot=100.0, strike=STRIKES, time_to_expiry=1.0, volatility=0.2)
)


def rms(values: np.ndarray) -> float:
    """Root mean square."""
    return float(np.sqrt(np.nanmean(np.square(values))))


def call_network(seed: int, *, steps: int = STEPS, **options) -> TrainedNetwork:
    """Sixteen units on the Black-Scholes call curve."""
    training = TrainingOptions(steps=steps, look_every=100, seed=seed)
    return train_network(STRIKES, CALLS, widths=(UNITS,), training=training, **options)


def starts() -> pd.DataFrame:
    """Price errors of sixteen units by where their strikes start."""
    rows = {}
    for start in ("quantile", "uniform", "he", "raw"):
        networks = [call_network(seed, initial=start) for seed in SEEDS]
        rows[f"{start} strikes"] = (
            [rms(one(STRIKES) - CALLS) for one in networks],
            np.median([one.coverage(50.0, 150.0).useful for one in networks]),
        )
    table = pd.DataFrame({"strike": STRIKES, "mid": CALLS, "option_type": "call"})
    for weights in ("projected", "learned"):
        curves = [
            ro.fit_curve(
                table,
                forward=100.0,
                discount_factor=1.0,
                time_to_expiry=1.0,
                kinks=UNITS,
                smoothing=0.0,
                method="gradient",
                training=TrainingOptions(
                    steps=STEPS if weights == "learned" else 300,
                    loss="price",
                    weights=weights,
                    restarts=2,
                    seed=seed,
                ),
            )
            for seed in SEEDS
        ]
        rows[f"price network, {weights}"] = (
            [rms(curve.price(STRIKES) - CALLS) for curve in curves],
            np.median([strike_coverage(one, 50.0, 150.0).useful for one in curves]),
        )
    fixed = np.linspace(50.0, 150.0, UNITS + 2)[1:-1]
    hinges = np.maximum(STRIKES[:, None] - fixed, 0.0)
    design = np.column_stack([np.ones_like(STRIKES), STRIKES, hinges])
    bounds = np.append([-np.inf] * 2, np.zeros(UNITS)), np.inf
    best = design @ lsq_linear(design, CALLS, bounds).x
    rows["convex fit, fixed strikes"] = [rms(best - CALLS)], UNITS
    return pd.DataFrame(
        {
            name: {
                "median": np.median(errors),
                "least": np.min(errors),
                "most": np.max(errors),
                "useful": useful,
            }
            for name, (errors, useful) in rows.items()
        }
    ).T


def data_sets(folder: Path | None) -> dict[str, list[ExpiryQuotes]]:
    """Prepared quotes of each expiry, by name of the data set."""
    chain = ro.bundled_chain()
    sets = {"bundled chain": [prepare_quotes(chain[one]) for one in chain.slices]}
    for path in sorted(folder.glob("*.csv")) if folder else []:
        table = pd.read_csv(path)
        if not {"t", "forward", "strike", "iv"} <= set(table.columns):
            continue
        sets[path.stem] = [
            prepare_quotes(
                rows.rename(columns={"iv": "implied_volatility"})[
                    ["strike", "implied_volatility"]
                ],
                forward=float(rows["forward"].iloc[0]),
                discount_factor=1.0,
                time_to_expiry=float(years),  # type: ignore[arg-type]
            )
            for years, rows in table.groupby("t")
        ]
    return sets


Fit = Callable[[ExpiryQuotes, int], ro.PriceCurve]


def learned_fit(quotes: ExpiryQuotes, kinks: int) -> ro.PriceCurve:
    """Kinks and bandwidths learned, weights projected."""
    training = TrainingOptions(steps=300, loss="volatility")
    return ro.fit_curve(quotes, kinks=kinks, method="gradient", training=training)


def fixed_fit(quotes: ExpiryQuotes, kinks: int) -> ro.PriceCurve:
    """The convex fit as it is."""
    return ro.fit_curve(quotes, kinks=kinks)


def best_fixed_fit(quotes: ExpiryQuotes, kinks: int) -> ro.PriceCurve:
    """The convex fit, hardly smoothed, with the width that fits best."""
    curves = [
        ro.fit_curve(quotes, kinks=kinks, smoothing=1e-3, narrowest=width)
        for width in FIXED_WIDTHS
    ]
    return min(curves, key=lambda curve: curve.volatility_error)


FITS: dict[str, Fit] = {
    "fixed grid": fixed_fit,
    "fixed grid, width in hindsight": best_fixed_fit,
    "learned": learned_fit,
}


def kinks(folder: Path | None) -> pd.DataFrame:
    """Volatility errors by number of kinks, in sample and on left-out strikes.

    Infinite where the programme of a coarse grid was not solved to its tolerance.
    """
    rows = []
    for name, expiries in data_sets(folder).items():
        for method, fit in FITS.items():
            for count in KINKS:
                began = time.perf_counter()
                inside = np.concatenate(
                    [in_sample(fit, one, count) for one in expiries]
                )
                seconds = time.perf_counter() - began
                left = [left_out(fit, one, count) for one in expiries]
                rows.append(
                    {
                        "data": name,
                        "method": method,
                        "kinks": count,
                        "in_sample_bp": BASIS_POINTS * rms(inside),
                        "left_out_bp": BASIS_POINTS * rms(np.concatenate(left)),
                        "ms": 1e3 * seconds / len(expiries),
                    }
                )
    return pd.DataFrame(rows)


def in_sample(fit: Fit, quotes: ExpiryQuotes, count: int) -> np.ndarray:
    """Fitted minus quoted volatilities, of quotes with a bid."""
    try:
        table = fit(quotes, count).quotes
    except FitError:
        return np.array([np.inf])
    table = table[table["bid"] != 0.0]
    return (table["fitted_volatility"] - table["implied_volatility"]).to_numpy()


def left_out(fit: Fit, quotes: ExpiryQuotes, count: int) -> np.ndarray:
    """Residuals at every other strike when the others are fitted, between them."""
    table = quotes.to_frame().sort_values("strike").reset_index(drop=True)
    table = table[table["bid"] != 0.0].reset_index(drop=True)
    if len(table) < 10:
        return np.zeros(0)
    terms: dict[str, Any] = {
        "forward": quotes.forward,
        "discount_factor": quotes.discount_factor,
        "time_to_expiry": quotes.time_to_expiry,
    }
    errors = []
    for parity in (0, 1):
        kept, others = table.iloc[parity::2], table.iloc[1 - parity :: 2]
        names = ["strike", "option_type", "mid"]
        if quotes.has_spreads:
            names = ["strike", "option_type", "bid", "ask"]
        try:
            curve = fit(prepare_quotes(kept[names], **terms), count)
        except FitError:
            return np.array([np.inf])
        strike = others["strike"].to_numpy()
        between = (strike > kept["strike"].min()) & (strike < kept["strike"].max())
        quoted = black_scholes.implied_volatility(
            price=others["mid"].to_numpy(),
            strike=strike,
            is_call=(others["option_type"] == "call").to_numpy(),
            **terms,
        )
        fitted = curve.implied_volatility(strike)
        errors.append((fitted - np.asarray(quoted))[between])
    return np.concatenate(errors)


def dead() -> pd.DataFrame:
    """How dead strikes come back: plain, leaky and annealed units."""

    def start(seed: int, share: float):
        rng = np.random.default_rng(seed)
        facing = np.where(rng.random(UNITS) < 0.5, -1.0, 1.0)
        at = rng.uniform(50.0, 150.0, UNITS)
        beyond = np.where(facing > 0, rng.uniform(155, 200, UNITS), 0.0)
        beyond = np.where(facing < 0, rng.uniform(0, 45, UNITS), beyond)
        at = np.where(rng.permutation(UNITS) < share * UNITS, beyond, at)
        scale = STRIKES.std()
        inner = facing[:, None] / scale, -facing * at / scale
        return [inner, (rng.normal(0.0, 2.5, (1, UNITS)), np.zeros(1))]

    kinds: dict[str, dict] = {"relu": {}}
    for alpha in (0.01, 0.1, 0.3):
        kinds[f"leaky, {alpha}"] = {"activation": "leaky_relu", "alpha": alpha}
    for width in (0.25, 0.5, 1.0, 2.0):
        kinds[f"annealed from {width}"] = {"annealing": width}
    rows: dict[str, dict[str, float]] = {}
    for name, options in kinds.items():
        rows[name] = {}
        for label, share in (("half dead", 0.5), ("all dead", 1.0), ("raw", None)):
            networks = [
                call_network(
                    seed,
                    steps=2 * STEPS,
                    initial="raw" if share is None else start(seed, share),
                    **options,
                )
                for seed in SEEDS
            ]
            errors = [rms(one(STRIKES) - CALLS) for one in networks]
            useful = [one.coverage(50.0, 150.0).useful for one in networks]
            rows[name][f"{label}: error"] = float(np.median(errors))
            rows[name][f"{label}: useful"] = float(np.median(useful))
    return pd.DataFrame(rows).T


def surface() -> pd.DataFrame:
    """The bundled chain: convex fit, and trained from there."""
    chain = ro.bundled_chain()
    quotes = [prepare_quotes(chain[one]) for one in chain.slices]
    rows = []
    for count in (24, 40):
        convex = ro.fit_surface(chain, kinks=count)
        training = TrainingOptions(steps=1000)
        trained = train_surface(quotes, start=convex, training=training)
        for name, one in (("convex", convex), ("trained", trained)):
            rows.append(
                {
                    "kinks": count,
                    "method": name,
                    "inside": one.share_inside,
                    "bp": BASIS_POINTS * one.volatility_error,
                    "proved": bool(one.certificate),
                }
            )
    return pd.DataFrame(rows)


def conflict() -> pd.DataFrame:
    """Expiries as tasks of one network (strike, time): summed, PCGrad, joint fit."""
    chain = ro.bundled_chain()
    fitted = ro.fit_surface(chain)
    table = fitted.quotes
    forward = np.asarray(fitted.forward(table["time_to_expiry"].to_numpy()))
    discount = np.asarray(fitted.discount_factor(table["time_to_expiry"].to_numpy()))
    moneyness = table["strike"].to_numpy() / forward
    is_put = (table["option_type"] == "put").to_numpy()
    target = table["mid"].to_numpy() / (forward * discount)
    target = target + np.where(is_put, 1.0 - moneyness, 0.0)
    points = np.stack([moneyness, table["time_to_expiry"].to_numpy()], axis=1)
    expiry = pd.factorize(table["expiry"])[0]
    network = train_network(
        points, target, widths=(32,), training=TrainingOptions(steps=1)
    )
    layers = [tuple(map(jnp.asarray, layer)) for layer in network.layers]

    def squared(parameters, chosen):
        (inner, shift), (outer, level) = parameters
        hidden = jax.nn.relu(points[chosen] @ inner.T + shift)
        return jnp.mean(((hidden @ outer.T + level)[:, 0] - target[chosen]) ** 2)

    tasks = [np.flatnonzero(expiry == place) for place in np.unique(expiry)]
    losses = [lambda parameters, at=at: squared(parameters, at) for at in tasks]

    def trained(combiner):
        optimizer = optax.chain(combiner, adam)
        adam_state = optimizer.init(layers)

        def step(carry, _):
            parameters, state = carry
            gradients = task_gradients(losses, parameters)
            change, state = optimizer.update(gradients, state, parameters)
            return (optax.apply_updates(parameters, change), state), None

        run = jax.jit(lambda carry: jax.lax.scan(step, carry, length=STEPS)[0])
        return run((layers, adam_state))[0]

    adam = optax.adam(optax.cosine_decay_schedule(1e-3, STEPS))
    summed = optax.stateless(lambda rows, _: jax.tree.map(lambda x: x.sum(0), rows))
    rows = []
    for name, parameters in (
        ("start", layers),
        ("sum of the losses", trained(summed)),
        ("PCGrad", trained(pcgrad())),
    ):
        cosines = np.asarray(gradient_similarity(losses, parameters))
        others = cosines[~np.eye(len(tasks), dtype=bool)]
        errors = [np.sqrt(float(loss(parameters))) for loss in losses]
        rows.append(
            {
                "method": name,
                "price_error": np.sqrt(np.mean(np.square(errors))),
                "worst_expiry": np.max(errors),
                "pairs_in_conflict": np.mean(others < 0.0),
                "least_cosine": others.min(),
            }
        )
    residual = (table["residual"].to_numpy() / (forward * discount)) ** 2
    errors = [np.sqrt(residual[at].mean()) for at in tasks]
    rows.append(
        {
            "method": "joint convex fit",
            "price_error": np.sqrt(np.mean(np.square(errors))),
            "worst_expiry": np.max(errors),
            "pairs_in_conflict": 0.0,
            "least_cosine": 0.0,
        }
    )
    return pd.DataFrame(rows)


def draw(table: pd.DataFrame, path: Path) -> None:
    """Errors by number of kinks, one panel for each data set."""
    names = list(table["data"].unique())
    figure, axes = plt.subplots(1, len(names), figsize=(4.2 * len(names), 3.8))
    for ax, name in zip(np.atleast_1d(axes), names, strict=True):
        for colour, method in enumerate(FITS):
            rows = table[(table["data"] == name) & (table["method"] == method)]
            line = {"color": f"C{colour}", "marker": ".", "ms": 5}
            ax.loglog(rows["kinks"], rows["in_sample_bp"], label=method, **line)
            ax.loglog(rows["kinks"], rows["left_out_bp"], ls=":", **line)
        ax.set_xticks(KINKS, [str(count) for count in KINKS])
        ax.minorticks_off()
        ax.set_title(name, fontsize="small")
        ax.set_xlabel("kinks")
    np.atleast_1d(axes)[0].set_ylabel("volatility error, bp (dotted: left out)")
    np.atleast_1d(axes)[-1].legend(fontsize="x-small", frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables; write the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--output", type=Path)
    names = ["starts", "dead", "kinks", "surface", "conflict"]
    parser.add_argument("--tables", nargs="*", default=names, choices=names)
    asked = parser.parse_args(arguments)
    folder = asked.folder or ROOT.parent / "shared" / "market"
    folder = folder if folder.exists() else None
    pd.set_option("display.width", 140)
    for name in asked.tables:
        began = time.perf_counter()
        if name == "kinks":
            table = kinks(folder)
            if asked.output:
                table.to_csv(asked.output / "training.csv", index=False)
                draw(table, asked.output / "training.png")
            for column in ("in_sample_bp", "left_out_bp"):
                wide = table.pivot(
                    index=["data", "method"], columns="kinks", values=column
                )
                print(f"\n{column}\n{wide.round(2).to_string()}")
        else:
            table = globals()[name]()
            text = table.to_string(float_format="{:.4g}".format)
            print(f"\n{name}\n{text}")
        print(f"({time.perf_counter() - began:.0f} s)", flush=True)


if __name__ == "__main__":
    main()

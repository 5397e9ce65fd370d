"""Dupire's equation on a network: accuracy, robustness, calibration, and time.

Run from the repository root:

    python benchmarks/dupire.py [FOLDER] [--rounds N]

The first table prices a flat volatility against Black-Scholes and a local volatility
of 30 % over the root of the strike against the non-central chi-square formula. The
second solves 200 random local volatilities. The third calibrates to the table of
volatilities `sx5e_20100301_andreasen_huge.csv` in FOLDER, beside QuantLib's
Andreasen-Huge, and then to every second quote; it is left out without FOLDER. Times are
the least of N calls, of everything: from kinks and local volatilities, or from the
quotes, to the surface. The linear algebra is kept to one thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from peers import andreasen_huge_surface
from peers.curve import read_quotes
from scipy.stats import ncx2
from threadpoolctl import threadpool_limits

import relu_options as ro
from relu_options import dupire
from relu_options.market_data import ExpiryQuotes

STRIKES = np.linspace(0.5, 1.5, 101)
GRIDS = ((101, 50), (201, 100), (401, 100), (401, 200), (801, 400))
RANDOM = 200  # local volatilities
FILE = "sx5e_20100301_andreasen_huge.csv"
METHODS: dict[str, dict[str, Any]] = {
    "20 steps (default)": {},
    "20 steps, smoothing 1": {"smoothing": 1.0},
    "20 steps, 201 kinks": {"kinks": 201},
    "5 implicit steps": {"method": "implicit", "steps": 5},
    "1 implicit step": {"method": "implicit", "steps": 1},
}


def least_time(function: Callable[[], object], rounds: int) -> float:
    """Milliseconds of the fastest of some calls, after one that compiles."""
    function()
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        function()
        taken.append(time.perf_counter() - start)
    return 1e3 * min(taken)


def cev_calls(scale: float) -> np.ndarray:
    """Prices after a year when dS = scale sqrt(S) dW from 1 (Schroder 1989)."""
    variance = 0.25 * scale**2
    x, y = 1.0 / variance, STRIKES / variance
    return 1.0 - ncx2.cdf(y, 4.0, x) - STRIKES * ncx2.cdf(x, 2.0, y)


def accuracy(rounds: int) -> None:
    """Print errors and times of the forward equation."""
    flat = ro.black_scholes.price(
        forward=1.0, strike=STRIKES, time_to_expiry=1.0, volatility=0.2
    )
    models: dict[str, tuple[Any, Any]] = {
        "Black-Scholes, 20 %": (0.2, flat),
        "CEV, beta 1/2, 30 %": (
            lambda moneyness, years: 0.3 / moneyness**0.5,
            cev_calls(0.3),
        ),
    }
    print(f"{'model':22}{'kinks':>6}{'steps':>7}{'relative L2':>13}{'ms':>8}")
    for name, (volatility, exact) in models.items():
        for kinks, steps in GRIDS:

            def solve(
                kinks: int = kinks, steps: int = steps, volatility: Any = volatility
            ) -> Any:
                """The surface of one expiry."""
                return ro.local_volatility_surface(
                    kinks, volatility, [1.0], steps=steps
                )

            price = np.asarray(solve().price(STRIKES, 1.0))
            error = np.linalg.norm(price - exact) / np.linalg.norm(exact)
            ms = least_time(solve, rounds)
            print(f"{name:22}{kinks:6d}{steps:7d}{error:13.1e}{ms:8.1f}")


def robustness() -> None:
    """Print the worst weights of random local volatilities, of 1 % to 1000 %."""
    rng = np.random.default_rng(0)
    times, steps = np.array([0.05, 0.5, 3.0]), 20
    worst = {"weight": np.inf, "mass": 0.0, "mean": 0.0, "order": np.inf}
    replaced, taken, proved = 0, 0, 0
    for _ in range(RANDOM):
        low, high = -rng.uniform(0.5, 4.0), rng.uniform(0.5, 4.0)
        kinks = dupire.spread_kinks(
            201, low=low, high=high, narrowest=np.exp(rng.uniform(-4.0, 1.0))
        )
        rows = np.exp(rng.normal(-1.5, 1.0, (3, 201)))
        weights = np.asarray(dupire.expiry_weights(kinks, rows, times, steps=steps))
        skeletons = weights @ np.maximum(kinks[:, None] - kinks, 0.0)
        worst["weight"] = min(worst["weight"], weights.min())
        worst["mass"] = max(worst["mass"], np.abs(weights.sum(axis=1) - 1.0).max())
        worst["mean"] = max(worst["mean"], np.abs(weights @ kinks - 1.0).max())
        worst["order"] = min(worst["order"], np.diff(skeletons, axis=0).min())
        plan = dupire.time_steps(times, method="rannacher", steps=steps)
        variance = (rows[plan.interval] * kinks) ** 2
        start = (kinks == 1.0).astype(float)
        evolution = dupire.evolve(kinks, start, variance, plan.durations, plan.implicit)
        replaced += int(np.sum(evolution.replaced))
        taken += plan.durations.size
        surface = ro.local_volatility_surface(kinks, rows, times, steps=steps)
        proved += bool(surface.certificate)
    print(f"\n{RANDOM} random local volatilities, 201 kinks, 3 expiries:")
    print(
        f"  least weight {worst['weight']:.1e}, mass off by {worst['mass']:.1e}, "
        f"mean by {worst['mean']:.1e}, calendar order by {worst['order']:.1e};\n"
        f"  {replaced} of {taken} steps taken implicitly instead; "
        f"{proved} of {RANDOM} certificates hold"
    )


def every_second(quotes: ExpiryQuotes, first: int) -> tuple[ExpiryQuotes, np.ndarray]:
    """Half of the quotes, and positions of the others strictly inside them."""
    order = np.argsort(quotes.strike)
    kept = order[first::2]
    between = order[first + 1 :: 2][: kept.size - 1]
    return quotes.take(kept), between


def left_out_error(quotes: list[ExpiryQuotes], **options: Any) -> float:
    """Error of volatility at every second quote when the others are fitted."""
    errors = []
    for first in (0, 1):
        halves = [every_second(one, first) for one in quotes]
        fit = ro.fit_local_volatility([half for half, _ in halves], **options)
        for one, (_, between) in zip(quotes, halves, strict=True):
            fitted = fit.surface.implied_volatility(
                one.strike[between], one.time_to_expiry
            )
            quoted = one.implied_volatility
            errors.append(fitted - quoted[between] if quoted is not None else [])
    return float(np.sqrt(np.mean(np.concatenate(errors) ** 2)))


def calibration(folder: Path, rounds: int) -> None:
    """Print errors and times of the way back."""
    chain = ro.read_chain(folder / FILE)
    quotes = [ro.prepare_quotes(one) for one in chain]
    print(f"\n{FILE}: {sum(map(len, quotes))} quotes, {len(quotes)} expiries")
    columns = f"{'in-sample bp':>14}{'left-out bp':>13}{'proved':>8}{'ms':>8}"
    print(f"  {'method':30}{columns}")
    for name, options in METHODS.items():
        fit = ro.fit_local_volatility(quotes, **options)
        ms = least_time(
            lambda options=options: ro.fit_local_volatility(quotes, **options), rounds
        )
        print(
            f"  {name:30}{1e4 * fit.volatility_error:14.2f}"
            f"{1e4 * left_out_error(quotes, **options):13.2f}"
            f"{bool(fit.surface.certificate)!s:>8}{ms:8.0f}"
        )
    slices = [
        read_quotes(
            one.strike,
            one.implied_volatility,
            forward=one.forward,
            time_to_expiry=one.time_to_expiry,
        )
        for one in quotes
        if one.implied_volatility is not None
    ]
    peer = andreasen_huge_surface.fit(slices)
    errors = []
    for one in quotes:
        fitted = peer.implied_volatility(one.strike, one.time_to_expiry)
        errors.append(np.asarray(fitted) - np.asarray(one.implied_volatility))
    error = np.sqrt(np.mean(np.concatenate(errors) ** 2))
    ms = least_time(lambda: andreasen_huge_surface.fit(slices), rounds)
    print(f"  {'QuantLib, Andreasen-Huge':30}{1e4 * error:14.2f}{'':13}{'':8}{ms:8.0f}")


def main() -> None:
    """Read the arguments, measure and print."""
    parser = argparse.ArgumentParser(description="Dupire's equation on a network.")
    parser.add_argument("folder", nargs="?", type=Path, help=f"folder with {FILE}")
    parser.add_argument("--rounds", type=int, default=7, help="calls to be timed")
    arguments = parser.parse_args()
    with threadpool_limits(1, user_api="blas"):
        accuracy(arguments.rounds)
        robustness()
        if arguments.folder is not None:
            calibration(arguments.folder, arguments.rounds)


if __name__ == "__main__":
    main()

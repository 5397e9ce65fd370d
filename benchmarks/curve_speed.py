"""Time of one price curve, beside published methods and a generic convex solver.

Run from the repository root:

    python benchmarks/curve_speed.py [FOLDER] [--rounds N] [--slices N]

Slices have a bid and an ask at every strike: a dense one from the model of the bundled
chain, the largest of the bundled chain and, with FOLDER, those of 100 to 250 quotes in
its first file `spx_*cboe*`. What is timed is said in `README.md` beside this file. All
linear algebra is kept to one thread, that of the peers too; `fit_curves` alone works
on all cores.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from peers import andreasen_huge, convex, svi
from scipy import sparse
from threadpoolctl import threadpool_limits

import relu_options as ro
from relu_options.fitting.objective import MARGIN, PENALTY
from relu_options.fitting.quotes import normalise, told_smile
from relu_options.fitting.smooth import NARROWEST, SmoothFit, fit_inside, fit_mids
from relu_options.market_data import ExpiryQuotes, prepare_quotes
from relu_options.simulation import bundled_truth

KINKS = 64
BATCH = 64
QUOTES = (100, 250)  # fewest and most in a slice of a file
PATIENCE = 0.05  # seconds that each contender may take in each round, after one call
CLOSE = "2019-05-17 16:15"  # when the quotes of the SPX file were taken, New York
OURS = "fit_curve, quotes prepared"
COLUMNS = ["min ms", "median ms", "ratio"]
DENSE_EXPIRY = "2025-06-20"
DENSE_STRIKES = np.arange(4000.0, 6000.0, 10.0)
FIRST_CALL = """
import json, time
start = time.perf_counter()
import relu_options as ro
imported = time.perf_counter()
chain = ro.bundled_chain()
slice_ = chain[chain.slices[{position}]]
read = time.perf_counter()
ro.fit_curve(slice_)
done = time.perf_counter()
print(json.dumps([imported - start, read - imported, done - read, time.process_time()]))
"""

IDENTITIES = np.array([1.0, 0.0])  # mass, and mean beyond the forward


@dataclass(frozen=True)
class Slice:
    """One expiry to be fitted.

    Attributes:
        name: What to call it.
        table: Its rows, as `fit_curve` takes them.
        terms: Keyword arguments that `fit_curve` needs beside the rows.
    """

    name: str
    table: Any
    terms: dict[str, Any]

    def prepared(self) -> ExpiryQuotes:
        """Cleaned and out of the money."""
        return prepare_quotes(self.table, **self.terms)


def dense_slice() -> Slice:
    """200 strikes around the bundled model's prices, 1 % wide, in ticks of 5 cents."""
    truth = bundled_truth()
    row = truth.slices.index.get_loc(pd.Timestamp(DENSE_EXPIRY))
    given = ["forward", "discount_factor", "time_to_expiry"]
    terms = {name: float(truth.slices[name].to_numpy()[row]) for name in given}
    strike = DENSE_STRIKES
    price = truth.true_price(DENSE_EXPIRY, strike)
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, strike.size)
    half = 0.05 + 0.005 * price
    middle = price + noise * half
    table = pd.DataFrame(
        {
            "strike": strike,
            "option_type": np.where(strike >= terms["forward"], "call", "put"),
            "bid": np.floor((middle - half) / 0.05) * 0.05,
            "ask": np.ceil((middle + half) / 0.05) * 0.05,
        }
    )
    return Slice("simulated, dense", table, terms)


def bundled_slice() -> tuple[Slice, int]:
    """The slice of the bundled chain with the most quotes, and its position."""
    chain = ro.bundled_chain()
    sizes = [len(prepare_quotes(chain[key])) for key in chain.slices]
    position = int(np.argmax(sizes))
    key = chain.slices[position]
    table = chain[key]
    return Slice(f"simulated {key[0]:%Y-%m-%d}", table, {}), position


def file_slices(folder: Path, count: int) -> list[Slice]:
    """Some slices of 100 to 250 quotes from a file of SPX options, first to last."""
    paths = sorted(folder.glob("spx_*cboe*"))
    if not paths:
        raise SystemExit(f"{folder} has no file spx_*cboe*")
    chain = ro.read_chain(paths[0], quote_time=CLOSE)
    found = []
    for key in chain.slices:
        if QUOTES[0] <= len(prepare_quotes(chain[key])) <= QUOTES[1]:
            found.append(Slice(f"SPX {key[0]:%Y-%m-%d} {key[1]}", chain[key], {}))
    places = np.unique(np.linspace(0, len(found) - 1, count).round().astype(int))
    return [found[place] for place in places]


def timed(function: Callable[[], object]) -> Callable[[], float]:
    """A function that calls `function` and returns the seconds that it took."""

    def call() -> float:
        """Call it; its seconds."""
        start = time.perf_counter()
        function()
        return time.perf_counter() - start

    return call


def fitted_mids(quotes: ExpiryQuotes) -> SmoothFit:
    """The fit to the mids, whatever the spreads."""
    (normalised,) = normalise([quotes])
    smile = told_smile(quotes, normalised)
    return fit_mids(normalised, smile, smoothing=np.nan, narrowest=NARROWEST, n=KINKS)


class GenericSolver:
    """The library's programme of one slice, for Clarabel to solve.

    Attributes:
        inside: Whether the fit to the mids is inside every spread already, so that
            `fit_curve` solves no second programme.
    """

    def __init__(self, quotes: ExpiryQuotes):
        """Assemble the programme at the smoothing that the library chooses."""
        mids = fitted_mids(quotes)
        objective, taken = mids.trial.objective, mids.trial.objective.quotes
        self.inside = not np.any(taken.excess(mids.fitted) > 0.0)
        self._ours, self._ours_inside = mids.value, fit_inside(mids).value
        self.design, self.data = objective.design, objective.data
        self.penalty = mids.trial.smoothing**2 * objective.prior
        self.equality = objective.equality
        half = 0.5 * (taken.upper - taken.lower) / taken.tolerance
        self.reach = half * (1.0 - MARGIN)

    def solve_normal(self) -> float:
        """Seconds of set-up and solve with the Hessian as the library has it."""
        solution = convex.solve_clarabel(
            self.design.T @ self.design + self.penalty,
            -self.design.T @ self.data,
            self.equality,
            IDENTITIES,
            tolerance=1e-8,
            accept_reduced=True,
        )
        return solution.seconds

    def solve_residuals(self) -> float:
        """Seconds of set-up and solve with the residuals as unknowns."""
        return self._residuals().seconds

    def _residuals(self) -> convex.ConvexSolution:
        """Clarabel's solution of the programme without spreads."""
        return convex.solve_least_squares(
            self.design,
            self.data,
            self.equality,
            IDENTITIES,
            penalty=self.penalty,
            accept_reduced=True,
        )

    def difference(self) -> float:
        """Our objective over Clarabel's, less one."""
        return self._ours / self._residuals().objective - 1.0

    def difference_inside(self) -> float:
        """The same of the programme with elastic spreads."""
        m, n = self.design.shape
        # Unknowns: weights in units of their effect, excesses in units of their price,
        # residuals.
        unit = 1.0 / np.linalg.norm(np.vstack([self.design, self.equality]), axis=0)
        rows, own = self.design * unit, self.penalty * unit * unit[:, None]
        one, none = sparse.identity(m), sparse.csr_matrix((m, m))
        excess = one / PENALTY
        bounds = sparse.bmat([[-excess, one], [-excess, -one]])
        solution = convex.solve_clarabel(
            sparse.block_diag([own, none, one]),
            np.concatenate([np.zeros(n), np.ones(m), np.zeros(m)]),
            sparse.bmat([[self.equality * unit, None, None], [rows, none, -one]]),
            np.concatenate([IDENTITIES, self.data]),
            sparse.hstack([sparse.csr_matrix((2 * m, n)), bounds]),
            np.concatenate([self.reach, self.reach]),
            nonnegative=np.arange(n + 2 * m) < n + m,
            tolerance=1e-9,
            accept_reduced=True,
        )
        # An interior point's excesses are positive even where no spread is left.
        weights = unit * np.maximum(solution.x[:n], 0.0)
        residual = self.design @ weights - self.data
        least_excess = np.maximum(np.abs(residual) - self.reach, 0.0).sum()
        roughness = weights @ self.penalty @ weights
        objective = 0.5 * (residual @ residual + roughness) + PENALTY * least_excess
        return self._ours_inside / objective - 1.0


def contenders(
    slice_: Slice, quotes: ExpiryQuotes, generic: GenericSolver
) -> dict[str, Callable[[], float]]:
    """What is timed: functions that return seconds for one curve."""
    # Volatilities of the mids; a bid of zero tells none, so peers have fewer quotes.
    kept = np.argsort(quotes.strike)
    kept = kept[quotes.bid[kept] > 0.0]
    strike = quotes.strike[kept]
    volatility = ro.black_scholes.implied_volatility(
        price=quotes.mid[kept],
        spot=quotes.forward * quotes.discount_factor,
        strike=strike,
        time_to_expiry=quotes.time_to_expiry,
        rate=-np.log(quotes.discount_factor) / quotes.time_to_expiry,
        is_call=quotes.is_call[kept],
    )
    terms: dict[str, Any] = {
        "forward": quotes.forward,
        "time_to_expiry": quotes.time_to_expiry,
    }
    peer = (strike, np.asarray(volatility))

    many = timed(lambda: ro.fit_curves([quotes] * BATCH))
    return {
        OURS: timed(lambda: ro.fit_curve(quotes)),
        "fit_curve, from a table": timed(
            lambda: ro.fit_curve(slice_.table, **slice_.terms)
        ),
        "mids only": timed(lambda: fitted_mids(quotes)),
        f"fit_curves, one of {BATCH}": lambda: many() / BATCH,
        "Clarabel, same Hessian": generic.solve_normal,
        "Clarabel, with residuals": generic.solve_residuals,
        "Andreasen-Huge (QuantLib)": timed(lambda: andreasen_huge.fit(*peer, **terms)),
        "SVI (least_squares)": timed(lambda: svi.fit(*peer, **terms)),
    }


def measure(calls: dict[str, Callable[[], float]], rounds: int) -> pd.DataFrame:
    """Least and median time of each, in turns, so that a busy machine slows them alike.

    The ratio is the median over rounds of the least time in a round over ours in it.
    """
    seconds: dict[str, list[list[float]]] = {}
    for name, call in calls.items():
        try:
            call()
        except RuntimeError as error:
            print(f"  {name}: failed: {error}")
            continue
        seconds[name] = []
    for _ in range(rounds):
        for name, taken in seconds.items():
            start = time.perf_counter()
            taken.append([calls[name]()])
            while time.perf_counter() - start < PATIENCE:
                taken[-1].append(calls[name]())
    ours = [min(once) for once in seconds[OURS]]
    rows = {}
    for name, taken in seconds.items():
        every = [1e3 * value for once in taken for value in once]
        ratios = [min(once) / own for once, own in zip(taken, ours, strict=True)]
        rows[name] = [min(every), statistics.median(every), statistics.median(ratios)]
    return pd.DataFrame.from_dict(rows, orient="index", columns=COLUMNS)


def first_call(position: int, repeats: int) -> None:
    """Time import, reading and a fit in fresh processes, nothing compiled before."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("JAX_COMPILATION_CACHE")
    }
    runs = []
    for _ in range(repeats):
        start = time.perf_counter()
        reply = subprocess.run(
            [sys.executable, "-c", FIRST_CALL.format(position=position)],
            capture_output=True,
            check=True,
            env=environment,
            text=True,
        )
        runs.append([time.perf_counter() - start, *json.loads(reply.stdout)])
    print("\nFirst call in a fresh process, seconds:")
    columns = ["whole process", "import", "read the chain", "first fit", "all, of CPU"]
    table = pd.DataFrame(runs, columns=columns)
    table = table.agg(["min", "median"]).T
    print(table.to_string(float_format="{:.2f}".format))


def main() -> None:
    """Read the arguments, measure and print."""
    parser = argparse.ArgumentParser(description="Time of one price curve.")
    parser.add_argument("folder", nargs="?", type=Path, help="folder with an SPX file")
    parser.add_argument("--rounds", type=int, default=9, help="turns for each")
    parser.add_argument("--slices", type=int, default=3, help="how many of the file")
    arguments = parser.parse_args()
    bundled, position = bundled_slice()
    slices = [dense_slice(), bundled]
    if arguments.folder is not None:
        slices += file_slices(arguments.folder, arguments.slices)
    print(f"BLAS on one thread; {os.cpu_count()} cores")
    with threadpool_limits(1, user_api="blas"):
        for slice_ in slices:
            quotes = slice_.prepared()
            generic = GenericSolver(quotes)
            no_bid = int((quotes.bid == 0.0).sum())
            print(f"\n{slice_.name}: {len(quotes)} quotes, {no_bid} without a bid")
            report = ro.fit_curve(quotes).fit
            assert report is not None
            second = "" if generic.inside else ", a second solve for the spreads"
            print(
                f"  {report.steps} steps{second}; objective over Clarabel's less one: "
                f"{generic.difference():.1e}, "
                f"with spreads {generic.difference_inside():.1e}"
            )
            table = measure(contenders(slice_, quotes, generic), arguments.rounds)
            print(table.to_string(float_format="{:.3g}".format))
    first_call(position, max(3, arguments.rounds // 3))


if __name__ == "__main__":
    main()

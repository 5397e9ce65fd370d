"""Time of a price surface, and of its coupled programme beside a generic solver.

Run from the repository root:

    python benchmarks/surface_speed.py [FOLDER] [--seeds N]

The bundled chain, and with FOLDER its files `sx5e_*` and `spx_2019*`. Clarabel is given
the very programme that the library solves, in time values of the skeleton, where its
constraints are sparsest; they stop at a relative gap of 1e-8 and 1e-9.
Linear algebra is on one thread. With `--seeds`, so many simulated chains with noise are
fitted, and prices on a grid of 400 strikes and 200 times are searched for arbitrage.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from peers.convex import solve_clarabel
from scipy import sparse
from tqdm import tqdm

import relu_options as ro
from relu_options.fitting.calendar_program import (
    CalendarProgram,
    in_order,
    slope_changes,
    solve,
    starting_point,
)
from relu_options.fitting.compiled import one_thread
from relu_options.fitting.coupled import coupled_program, fit_apart
from relu_options.fitting.quotes import normalise, told_smile
from relu_options.fitting.smooth import NARROWEST
from relu_options.fitting.surface import prepared_expiries
from relu_options.market_data import ExpiryQuotes, prepare_quotes

KINKS = 80
ROUNDS = 5
DEVIATIONS, STRIKES, TIMES = 10.0, 400, 200
CUTS = slice(None, -2), slice(1, -1), slice(2, None)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--seeds", type=int, default=0)
    options = parser.parse_args()
    chains = {"bundled": ro.bundled_chain()}
    if options.folder is not None:
        table = next(options.folder.glob("sx5e_*"))
        chains["SX5E"] = ro.read_chain(table)
        file = next(options.folder.glob("spx_2019*"))
        chains["SPX"] = ro.read_chain(file, quote_time="2019-05-17 16:15")
    for name, chain in chains.items():
        start = time.perf_counter()
        surface = ro.fit_surface(chain)
        first = time.perf_counter() - start
        warm = least_time(lambda chain=chain: ro.fit_surface(chain))
        print(f"{name}: {surface}")
        print(f"  first call {first:.2f} s, warm {1e3 * warm:.0f} ms")
        prepared, *_ = prepared_expiries(chain)
        warm = least_time(lambda quotes=prepared: ro.fit_surface(quotes))
        print(f"  quotes prepared, warm {1e3 * warm:.0f} ms")
        beside_clarabel(prepared)
    if options.seeds:
        search(options.seeds)


def least_time(run: Callable) -> float:
    """Seconds that the fastest of a few runs takes."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def beside_clarabel(prepared: list[ExpiryQuotes]) -> None:
    """Solve one coupled programme with both."""
    quotes = normalise(prepared)
    smiles = list(map(told_smile, prepared, quotes))
    count = len(prepared)
    with one_thread():
        trials = fit_apart(
            quotes, smiles, smoothing=np.nan, narrowest=NARROWEST, n=KINKS
        )
        weights = np.stack([trial.weights for trial in trials])
        spreads = all(one.has_spreads for one in prepared)
        chunks = np.full(count, int(spreads))
        data, _ = coupled_program(trials, weights, chunks)
        # Without what pads it.
        real = {name: count for name in ("hessian", "gradient", "constant", "coupled")}
        real |= dict.fromkeys(
            ("rows", "owner", "lower", "upper", "penalty"), sum(chunks)
        )
        program = CalendarProgram(
            **{name: jnp.asarray(each[: real.get(name)]) for name, each in data.items()}
        )
        begin = in_order(jnp.asarray(weights), program.kinks)
        start = starting_point(program, begin + 1e-3 * (1.0 / KINKS - begin))
        ours = jax.jit(lambda program, start: solve(program, start, tolerance=1e-8))
        solution = ours(program, start)
        seconds = least_time(lambda: jax.block_until_ready(ours(program, start)))
        objective = float(solution.objective.sum())
        iterate = solution.iterate
        rises = iterate.calendar[1:].min()
        least = float(jnp.minimum(iterate.weights.min(), rises))
        print(
            f"  coupled programme: {int(solution.steps)} steps, "
            f"{1e3 * seconds:.1f} ms, objective {objective:.12g}, "
            f"gap {float(solution.gap):.1e}, least slack {least:.1e}"
        )
        try:
            expected, least, theirs, steps = clarabel_objective(program)
        except RuntimeError as error:
            print(f"  Clarabel: {error}")
            return
    print(
        f"  Clarabel: {steps} steps, {1e3 * theirs:.0f} ms, {theirs / seconds:.0f} "
        f"times as long; objective {expected:.12g}, least slack {least:.1e}"
    )


def clarabel_objective(program: CalendarProgram) -> tuple[float, float, float, int]:
    """Objective, least slack, seconds and steps of Clarabel.

    Its unknowns are time values and excesses. The least slack is that of its weights
    and its order: below zero the objective may be below the minimum.
    """
    bend = np.asarray(slope_changes(program.kinks))
    centre = np.where(np.asarray(program.kinks) == 1.0, 1.0, 0.0)
    hessians, rows = np.asarray(program.hessian), np.asarray(program.rows)
    count, q, m = len(hessians), bend.shape[1], rows.shape[1]
    pulls = np.asarray(program.gradient) + hessians @ centre
    blocks = [bend.T @ one @ bend for one in hessians]
    nothing = sparse.csc_matrix((len(rows) * m, len(rows) * m))
    quadratic = sparse.block_diag([*blocks, nothing], format="csc")
    linear = np.concatenate([(pulls @ bend).ravel(), np.ravel(program.penalty)])
    wide = sparse.kron(sparse.eye(count), sparse.csc_matrix(bend))
    step = sparse.eye(count - 1, count, k=1) - sparse.eye(count - 1, count)
    order = sparse.kron(step, sparse.eye(q))
    owner = sparse.csr_matrix(np.eye(count)[np.asarray(program.owner)])
    spread = sparse.kron(owner, np.ones((m, 1)), format="csr")
    wide_inside = sparse.kron(spread, np.ones((1, q)), format="csr")
    inside = wide_inside.multiply(np.tile((rows @ bend).reshape(-1, q), (1, count)))
    excess = sparse.eye(len(rows) * m)
    at = rows @ centre
    wide_rows, order_rows = count * len(centre), (count - 1) * q
    below = [
        sparse.hstack([-wide, sparse.csc_matrix((wide_rows, len(rows) * m))]),
        sparse.hstack([-order, sparse.csc_matrix((order_rows, len(rows) * m))]),
        sparse.hstack([-inside, -excess]),
        sparse.hstack([inside, -excess]),
    ]
    limits = [
        np.tile(centre, count),
        np.zeros(order_rows),
        (at - np.asarray(program.lower)).ravel(),
        (np.asarray(program.upper) - at).ravel(),
    ]
    free = np.arange(linear.size) >= count * q
    solution = solve_clarabel(
        quadratic,
        linear,
        sparse.csc_matrix((0, linear.size)),
        np.zeros(0),
        sparse.vstack(below, format="csc"),
        np.concatenate(limits),
        nonnegative=free,
        tolerance=1e-9,
        accept_reduced=True,
    )
    weights = centre + solution.x[: count * q].reshape(count, q) @ bend.T
    levels = solution.x[: count * q].reshape(count, q)
    least = min(weights.min(), np.diff(levels, axis=0).min())
    excess = jnp.asarray(solution.x[count * q :].reshape(count, m))
    objective = float(program.objective(jnp.asarray(weights), excess).sum())
    return objective, least, solution.seconds, solution.iterations


def search(seeds: int) -> None:
    """Fit chains with noise of a whole spread and search prices for arbitrage."""
    prepared = [prepare_quotes(one) for one in ro.bundled_chain()]
    convex = rising = np.inf
    refused = 0
    for seed in tqdm(range(seeds)):
        rng = np.random.default_rng(seed)
        shaken = []
        for one in prepared:
            shift = rng.normal(0.0, 1.0, len(one)) * (one.ask - one.bid)
            bid = np.maximum(one.bid + shift, 0.0)
            ask = np.maximum(one.ask + shift, bid + 0.05)
            shaken.append(replace(one, bid=bid, ask=ask, mid=0.5 * (bid + ask)))
        surface = ro.fit_surface(shaken)
        refused += not surface.certificate
        times = np.geomspace(1.0 / 365.0, 2.0 * surface.times[-1], TIMES)
        last = surface.times[-1]
        width = surface.implied_volatility(surface.forward(last), last) * last**0.5
        moneyness = np.exp(np.linspace(-DEVIATIONS, DEVIATIONS, STRIKES) * width)
        forwards, discounts = surface.forward(times), surface.discount_factor(times)
        strikes = forwards[:, None] * moneyness
        values = surface.price(strikes, times[:, None], moneyness >= 1.0)
        values = values / (forwards * discounts)[:, None]
        rising = min(rising, np.diff(values, axis=0).min())
        for side in (moneyness < 1.0, moneyness >= 1.0):
            at = moneyness[side]
            first, middle, end = (values[:, side][:, cut] for cut in CUTS)
            share = (at[1:-1] - at[:-2]) / (at[2:] - at[:-2])
            butterfly = (1.0 - share) * first + share * end - middle
            convex = min(convex, butterfly.min())
    print(
        f"{seeds} noisy chains: {refused} certificates refused; least butterfly "
        f"{convex:.1e}, least calendar spread {rising:.1e}, over the forward"
    )


if __name__ == "__main__":
    main()

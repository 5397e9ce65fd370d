"""Exact verdicts on trained networks: how fast, and against what they are checked.

Run from the repository root:

    python benchmarks/verification.py [--seeds N]

Unconstrained networks are trained on Black-Scholes call prices, strike in [0.5, 1.5]
and time in [0.05, 2], for four inputs volatility in [0.1, 0.4] and rate in [0, 0.06]
too. Verification runs on one thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from threadpoolctl import threadpool_limits

from relu_options import black_scholes
from relu_options.arbitrage import cover_chain
from relu_options.verification import (
    Counterexample,
    LayeredNetwork,
    delta_bound,
    layered,
    repair,
    simplify,
    verify_no_arbitrage,
)
from relu_options.verification.conditions import check_regions
from relu_options.verification.domain import domain_of
from relu_options.verification.hinges import check_hinges
from relu_options.verification.regions import enumerate_regions
from relu_options.verification.trades import Question

LOW, HIGH = np.array([0.5, 0.05, 0.1, 0.0]), np.array([1.5, 2.0, 0.4, 0.06])
SURFACES = [(2, 32, 1), (2, 64, 1), (2, 16, 16, 1), (2, 32, 32, 1), (2, 64, 64, 1)]
LIMITS = {(2, 64, 1): 0.5, (2, 32, 32, 1): 1.0, (2, 64, 64, 1): 8.0}
SLOPES = ("decreasing", "slope", "calendar", "bounds")

Arrays = list[tuple[np.ndarray, np.ndarray]]


def domain(inputs: int) -> list[tuple[float, float]]:
    """The ranges of the first inputs."""
    return list(zip(LOW.tolist(), HIGH.tolist(), strict=True))[:inputs]


def train(sizes: tuple[int, ...], seed: int, steps: int = 4000) -> tuple[Arrays, float]:
    """A network trained on prices by Adam, and its error in price."""
    rng = np.random.default_rng(seed)
    inputs = sizes[0]
    low, high = LOW[:inputs], HIGH[:inputs]
    points = rng.uniform(low, high, (20_000, inputs))
    terms = {"volatility": 0.2, "rate": 0.0}
    if inputs > 2:
        terms = {"volatility": points[:, 2], "rate": points[:, 3]}
    prices = jnp.asarray(
        black_scholes.price(
            spot=1.0, strike=points[:, 0], time_to_expiry=points[:, 1], **terms
        )
    )
    scaled = jnp.asarray((points - low) / (high - low) * 2.0 - 1.0)
    start = [
        (
            jnp.asarray(rng.normal(size=(after, before)) * np.sqrt(2.0 / before)),
            jnp.asarray(rng.uniform(-1.0, 1.0, after) * (after > 1)),
        )
        for before, after in pairwise(sizes)
    ]

    def loss(layers, batch):
        x = scaled[batch]
        for weights, biases in layers[:-1]:
            x = jax.nn.relu(x @ weights.T + biases)
        weights, biases = layers[-1]
        return jnp.mean(((x @ weights.T + biases)[:, 0] - prices[batch]) ** 2)

    optimiser = optax.adam(optax.cosine_decay_schedule(5e-3, steps))

    @jax.jit
    def run(layers, batches):
        def step(carry, batch):
            layers, state = carry
            value, slope = jax.value_and_grad(loss)(layers, batch)
            updates, state = optimiser.update(slope, state)
            return (optax.apply_updates(layers, updates), state), value

        carry, losses = jax.lax.scan(step, (layers, optimiser.init(layers)), batches)
        return carry[0], losses

    trained, losses = run(start, jnp.asarray(rng.integers(0, 20_000, (steps, 512))))
    arrays = [(np.asarray(w), np.asarray(b)) for w, b in trained]
    scale = 2.0 / (high - low)
    first, biases = arrays[0]
    arrays[0] = first * scale, biases + first @ (-1.0 - low * scale)
    return arrays, float(jnp.sqrt(losses[-50:].mean()))


def fastest(run, times: int = 3) -> tuple[float, Any]:
    """Seconds of the fastest of several runs, and what it returns."""
    best = np.inf, None
    for _ in range(times):
        start = time.perf_counter()
        result = run()
        best = min(best, (time.perf_counter() - start, result), key=lambda x: x[0])
    return best


def surfaces(networks: dict[tuple[int, ...], tuple[Arrays, float]]) -> pd.DataFrame:
    """Seconds of the exact verdict, and of the programme that it is compared with."""
    rows = []
    for sizes, (arrays, error) in networks.items():
        if sizes[0] != 2:
            continue
        seconds, verdict = fastest(lambda a=arrays: verify_no_arbitrage(a, domain(2)))
        regions = enumerate_regions(layered(arrays), domain_of(domain(2), 2))
        names = SLOPES if sum(sizes[1:-1]) > 40 and len(sizes) > 3 else None
        programme = verify_no_arbitrage(
            arrays, domain(2), conditions=names, method="programme", time_limit=300.0
        )
        margins = verdict.to_frame()["margin"]
        compared = programme.to_frame()["margin"]
        rows.append(
            {
                "network": "-".join(map(str, sizes)),
                "price error": error,
                "regions": len(regions),
                "seconds": seconds,
                "limit": LIMITS.get(sizes, np.nan),
                "fails": 1 + len(getattr(verdict, "further", ())),
                "programme, s": programme.seconds,
                "margins compared": len(compared),
                "apart by": float((margins[compared.index] - compared).abs().max()),
            }
        )
    return pd.DataFrame(rows)


def planted(arrays: Arrays) -> Arrays:
    """A network that is convex in its inputs, with one hinge of -1e-12 added."""
    (weights, biases), *deeper = arrays
    inputs = weights.shape[1]
    new = np.ones((1, inputs))
    middle = -new @ (0.5 * (LOW + HIGH)[:inputs])
    result = [(np.vstack([weights, new]), np.append(biases, middle))]
    for place, (matrix, shift) in enumerate(deeper):
        last = place == len(deeper) - 1
        wider = np.pad(np.abs(matrix), ((0, 0 if last else 1), (0, 1)))
        wider[-1, -1] = -1e-12 if last else 1.0
        result.append((wider, shift if last else np.append(shift, 0.0)))
    return result


def four_inputs(arrays: Arrays, seed: int) -> pd.DataFrame:
    """Margins of a network of four inputs beside those of 200,000 samples."""
    network = layered(arrays)
    seconds, verdict = fastest(
        lambda: verify_no_arbitrage(network, domain(4), time_limit=300.0), times=1
    )
    points = np.random.default_rng(seed).uniform(LOW, HIGH, (200_000, 4))
    (weights, biases), (out, _) = arrays
    slopes = (points @ weights.T + biases > 0.0) @ (out[0][:, None] * weights)
    prices = network(points)
    bounds = np.minimum(prices - np.maximum(1.0 - points[:, 0], 0.0), 1.0 - prices)
    sampled = {
        "decreasing": -slopes[:, 0].max(),
        "slope": 1.0 + slopes[:, 0].min(),
        "calendar": slopes[:, 1].min(),
        "bounds": bounds.min(),
    }
    table = verdict.to_frame().loc[list(sampled), ["margin"]]
    table["sampled"] = pd.Series(sampled)
    table["understated"] = 1.0 - table["sampled"] / table["margin"]
    table["seconds"] = seconds
    return table


def rule_and_enumeration(rng: np.random.Generator) -> int:
    """On how many of 100 one-layer networks the two agree."""
    agree = 0
    for number in range(100):
        weights = rng.normal(size=(16, 2))
        biases = -(weights * rng.uniform(LOW[:2], HIGH[:2], (16, 2))).sum(axis=1)
        for k in range(number % 4):  # hinges that coincide
            weights[-1 - k], biases[-1 - k] = -2.0 * weights[k], -2.0 * biases[k]
        out = rng.normal(size=(1, 16))
        if number % 2:
            out = np.abs(out)
        network = layered([(weights, biases), (out, np.zeros(1))])
        box = domain_of(domain(2), 2)
        question = Question(network.in_integers, box, Fraction(1), Fraction(1))
        rule = check_hinges(question, network, Fraction(0))
        regions = enumerate_regions(network, box)
        (cells,) = check_regions(question, regions, ("convex",), Fraction(0))
        agree += (rule.counterexample is None) == (cells.counterexample is None)
    return agree


def facets(network: LayeredNetwork, rng: np.random.Generator) -> tuple[int, int]:
    """How many slope jumps equal the second difference exactly, of 1000 facets."""
    regions = enumerate_regions(network, domain_of(domain(2), 2))
    across = np.flatnonzero(regions.facets.across_strike)
    equal = 0
    chosen = rng.choice(across, min(1000, len(across)), replace=False)
    for facet in chosen:
        ends = [regions.exact_point(c) for c in regions.facets.corners[facet]]
        strike, height = ((p + q) / 2 for p, q in zip(*ends, strict=True))
        jump, step = regions.exact_slope_jump(facet), Fraction(1, 8)
        for _ in range(60):  # until the step is inside the two regions
            step /= 2
            low, at, high = (
                network.exact([strike + k * step, height]) for k in (-1, 0, 1)
            )
            if (low - 2 * at + high) / step == jump:
                equal += 1
                break
    return equal, len(chosen)


def counterexamples(verdicts: list[Any]) -> Iterator[Counterexample]:
    """All counterexamples of verdicts."""
    for verdict in verdicts:
        if isinstance(verdict, Counterexample):
            yield from (verdict, *verdict.further)


def earns(found: Counterexample) -> bool:
    """Whether a trade costs less than nothing and cannot lose, in exact arithmetic."""
    trade = found.as_trade()
    if not isinstance(trade, dict):
        return found.cost < 0 <= trade.payoff().exactly().bounds()[0]
    legs = list(trade.values())
    covered = cover_chain(
        expiry=[0, 1],
        strike=[float(leg.strikes[0]) for leg in legs],
        is_call=[True, True],
        quantity=[float(leg.quantities[0]) for leg in legs],
        price=[0.0, 0.0],
        forwards=[1.0, 1.0],
        discount_factors=[1.0, 1.0],
    )
    return found.cost < 0 <= covered.worst_payoff and covered.cash_quantity == 0.0


def simplified(networks: list[Arrays], rng: np.random.Generator) -> pd.DataFrame:
    """Kinks before and after, and points at which the values are equal exactly."""
    rows = []
    for arrays in networks:
        network = layered(arrays)
        simple = simplify(network, domain(network.inputs))
        points = rng.uniform(LOW, HIGH, (200, 4))[:, : network.inputs]
        equal = sum(
            network.exact(point) == simple.exact(point)
            for point in ([Fraction(x) for x in row] for row in points.tolist())
        )
        rows.append(
            {
                "network": repr(network),
                "kinks": network.number_of_kinks,
                "after": simple.number_of_kinks,
                "equal of 200": equal,
            }
        )
    return pd.DataFrame(rows)


def slopes(networks: dict[tuple[int, ...], tuple[Arrays, float]]) -> pd.DataFrame:
    """The exact range of slopes beside the product of norms."""
    rows = []
    for sizes, (arrays, _) in networks.items():
        for of_input, name in enumerate(("strike", "time")):
            bound = delta_bound(arrays, domain(sizes[0]), of_input=of_input)
            points = np.random.default_rng(0).uniform(LOW, HIGH, (100_000, 4))
            steps = np.zeros(4)
            steps[of_input] = 1e-7
            ends = (
                layered(arrays)((points + s * steps)[:, : sizes[0]]) for s in (1, -1)
            )
            sampled = np.abs(next(ends) - next(ends)).max() / 2e-7
            rows.append(
                {
                    "network": "-".join(map(str, sizes)),
                    "input": name,
                    "lipschitz": float(bound.lipschitz),
                    "sampled": sampled,
                    "product of norms": bound.norm_product,
                    "ratio": bound.ratio,
                }
            )
    return pd.DataFrame(rows)


def repairs(networks: dict[tuple[int, ...], tuple[Arrays, float]]) -> pd.DataFrame:
    """Nearest networks that pass, and by how much the price moves."""
    rows = []
    points = np.random.default_rng(0).uniform(LOW[:2], HIGH[:2], (5_000, 2))
    for sizes, (arrays, error) in networks.items():
        if sizes[0] != 2 or len(sizes) != 3:
            continue
        kinds: tuple[Literal["weights", "prices"], ...] = ("weights", "prices")
        for nearest in kinds:
            start = time.perf_counter()
            result = repair(arrays, domain(2), nearest=nearest)
            seconds = time.perf_counter() - start
            change = result.network(points) - layered(arrays)(points)
            rows.append(
                {
                    "network": "-".join(map(str, sizes)),
                    "nearest": nearest,
                    "proved": bool(result.proof),
                    "price error before": error,
                    "price moves by": float(np.sqrt(np.mean(change**2))),
                    "seconds": seconds,
                }
            )
    return pd.DataFrame(rows)


def main() -> None:
    """Train, verify, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="networks of four inputs")
    seeds = parser.parse_args().seeds
    rng = np.random.default_rng(0)
    pd.set_option("display.width", 160, "display.max_columns", 20)
    sizes = [*SURFACES, (4, 16, 1)]
    networks = {size: train(size, 0) for size in sizes}

    print("Strike and time: exact verdicts, and mixed-integer programmes")
    print(surfaces(networks).to_string(index=False), "\n")

    print("A hinge of -1e-12 in a convex network")
    for size in ((2, 64, 1), (2, 32, 32, 1), (2, 64, 64, 1)):
        arrays = planted(networks[size][0])
        found = verify_no_arbitrage(arrays, domain(2), conditions="convex")
        print("-".join(map(str, size)), found, f"({found.seconds:.2f} s)")

    print("\nFour inputs, 64 units: margins beside those of 200,000 samples")
    fours = []
    for seed in range(seeds):
        arrays, _ = train((4, 64, 1), seed)
        fours.append(arrays)
        print(four_inputs(arrays, seed).to_string(), "\n")

    agree = rule_and_enumeration(rng)
    print(f"Hinge rule and enumeration agree on {agree} of 100 networks")
    for size in ((2, 64, 1), (2, 32, 32, 1)):
        equal, count = facets(layered(networks[size][0]), rng)
        name = "-".join(map(str, size))
        print(f"{name}: {equal} of {count} slope jumps are the second difference")

    verdicts = [
        verify_no_arbitrage(arrays, domain(size[0]))
        for size, (arrays, _) in networks.items()
    ]
    trades = list(counterexamples(verdicts))
    good = sum(earns(found) for found in trades)
    print(f"{good} of {len(trades)} counterexamples cost below 0 and cannot lose\n")

    print("Simplification")
    every = [arrays for arrays, _ in networks.values()] + fours[:1]
    print(simplified(every, rng).to_string(index=False), "\n")
    print("Slopes")
    print(slopes(networks).to_string(index=False), "\n")
    print("Repair")
    print(repairs(networks).to_string(index=False))


if __name__ == "__main__":
    with threadpool_limits(limits=1):
        main()

"""Implied volatilities side by side: accuracy against the truth, and time per option.

    python benchmarks/option_formulas.py [--figure FILE] [--only NAME ...] [--seconds S]

Every library that is installed takes part; those that are not are named and left out.
Accuracy is measured on the lognormal rows of `tests/option_truth.csv`, whose
volatilities are known to 30 digits, time on realistic options drawn at random. All run
on one core. With `--figure` the errors are drawn against log-moneyness
and price.

A second table times this library's other formulas, and what a first call costs.
"""

# The other libraries need not be installed.
# pyright: reportMissingImports=false

import argparse
import csv
import os
import subprocess
import sys
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

if hasattr(os, "sched_setaffinity"):  # before JAX counts the cores
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import jax
import numpy as np

from relu_options import bachelier, black_scholes
from relu_options.formulas import elementwise, lognormal, normal

TRUTH = Path(__file__).parent.parent / "tests" / "option_truth.csv"
EPS = 2.0**-52
WRONG = 1e-3
"""Relative error from which a volatility counts as wrong, not as inaccurate."""

Options = dict[str, Any]
Solver = Callable[[Options], np.ndarray]


# The libraries, each a function of undiscounted prices


def one_by_one(function: Callable) -> Solver:
    """A solver that calls `function(price, forward, strike, years, is_call)`."""

    def solve(options: Options) -> np.ndarray:
        columns = (options[name] for name in COLUMNS)
        result = np.full(len(options["price"]), np.nan)
        for i, row in enumerate(zip(*(c.tolist() for c in columns), strict=True)):
            try:
                result[i] = function(*row)
            except (ArithmeticError, ValueError, RuntimeError, TypeError):
                continue  # counted as a failure, like NaN
        return result

    return solve


def by_type(function: Callable) -> Solver:
    """A solver that calls `function(price, forward, strike, years, is_call)` twice."""

    def solve(options: Options) -> np.ndarray:
        result = np.full(len(options["price"]), np.nan)
        for is_call in (True, False):
            rows = options["is_call"] == is_call
            columns = (options[name][rows] for name in COLUMNS[:4])
            result[rows] = function(*columns, is_call)
        return result

    return solve


COLUMNS = ("price", "forward", "strike", "time_to_expiry", "is_call")


def relu_options_numpy() -> Solver:
    """This library, from and to NumPy arrays."""
    return lambda options: black_scholes.implied_volatility(**options)


def relu_options_jax() -> Solver:
    """This library's kernel, compiled for the length, from and to JAX arrays."""
    kernel = jax.jit(
        lambda price, forward, strike, years, is_call: (
            lognormal.implied_total_volatility(price, forward, strike, is_call)
            / jax.numpy.sqrt(years)
        ),
        compiler_options=elementwise.compiler_options(),
    )

    def solve(options: Options) -> Any:
        return kernel(*(options[name] for name in COLUMNS)).block_until_ready()

    return solve


def lbriv() -> Solver:
    """Let's Be Rational in C, by Cython; its loop over strikes is timed."""
    import lbriv

    def solve(options: Options) -> np.ndarray:
        if len(options["price"]) < 2000:  # the truth set: every forward its own
            return one_by_one(
                lambda p, f, k, t, c: (
                    lbriv.implied_vol(p, f, k, 1 if c else -1) / t**0.5
                )
            )(options)
        scale = 100.0 / options["forward"]

        def strikes(price, forward, strike, years, is_call):
            total = lbriv.vectorized_implied_vol_strikes(
                price, 100.0, strike, 1 if is_call else -1
            )
            return total / np.sqrt(years)

        scaled = {name: options[name] * scale for name in ("price", "strike")}
        return by_type(strikes)(options | scaled)

    return solve


def iv_engine() -> Solver:
    """Let's Be Rational in Rust, on one thread."""
    import iv_engine

    return by_type(
        lambda p, f, k, t, c: iv_engine.implied_volatilities(p, f, k, t, c, False)
    )


def pyvolr() -> Solver:
    """Black 76 in Rust."""
    from pyvolr import black76

    def solve(options: Options) -> np.ndarray:
        p, f, k, t, c = (options[name] for name in COLUMNS)
        flag = np.where(c, "c", "p")
        return np.asarray(black76.implied_vol(p, flag, f, k, t, 0.0, on_error="ignore"))

    return solve


def py_lets_be_rational() -> Solver:
    """Let's Be Rational in Python, which py_vollib calls."""
    import py_lets_be_rational

    solve = py_lets_be_rational.implied_volatility_from_a_transformed_rational_guess
    return one_by_one(lambda p, f, k, t, c: solve(p, f, k, t, 1.0 if c else -1.0))


def py_vollib() -> Solver:
    """py_vollib, one option at a time."""
    from py_vollib.black.implied_volatility import implied_volatility

    return one_by_one(
        lambda p, f, k, t, c: implied_volatility(p, f, k, 0.0, t, "c" if c else "p")
    )


def py_vollib_vectorized() -> Solver:
    """py_vollib_vectorized, by Numba."""
    from numba.core.errors import NumbaError
    from py_vollib_vectorized import vectorized_implied_volatility_black

    def solve(options: Options) -> np.ndarray:
        p, f, k, t, c = (options[name] for name in COLUMNS)
        flag = np.where(c, "c", "p")
        return vectorized_implied_volatility_black(
            p, f, k, 0.0, t, flag, return_as="numpy", on_error="ignore"
        )

    try:
        solve(first(truth()[0], 1))
    except NumbaError as error:
        raise ImportError(
            "it does not compile beside this py_lets_be_rational; 1.0.1 is its own"
        ) from error
    return solve


def fast_vollib() -> Solver:
    """fast_vollib, on its own choice of backend."""
    from fast_vollib import fast_implied_volatility_black

    def solve(options: Options) -> np.ndarray:
        p, f, k, t, c = (options[name] for name in COLUMNS)
        flag = np.where(c, "c", "p")
        return np.asarray(
            fast_implied_volatility_black(
                p, f, k, 0.0, t, flag, return_as="numpy", on_error="ignore"
            )
        )

    return solve


def pyfeng() -> Solver:
    """PyFENG, by vectorised Newton steps."""
    from pyfeng import Bsm

    def solve(options: Options) -> np.ndarray:
        p, f, k, t, c = (options[name] for name in COLUMNS)
        return Bsm(0.2, is_fwd=True).impvol(p, k, f, t, cp=np.where(c, 1, -1))

    return solve


def quantlib() -> Solver:
    """QuantLib, by its solver to 1e-12."""
    import QuantLib as ql

    def solve(p, f, k, t, c):
        kind = ql.Option.Call if c else ql.Option.Put
        deviation = ql.blackFormulaImpliedStdDev(
            kind, k, f, p, 1.0, 0.0, ql.nullDouble(), 1e-12, 200
        )
        return deviation / t**0.5

    return one_by_one(solve)


def quantlib_lirs() -> Solver:
    """QuantLib, by the rational guess and overrelaxation of Li (2008)."""
    import QuantLib as ql

    def solve(p, f, k, t, c):
        kind = ql.Option.Call if c else ql.Option.Put
        deviation = ql.blackFormulaImpliedStdDevLiRS(
            kind, k, f, p, 1.0, 0.0, ql.nullDouble(), 1.0, 1e-12, 200
        )
        return deviation / t**0.5

    return one_by_one(solve)


LIBRARIES: dict[str, Callable[[], Solver]] = {
    "relu_options (JAX arrays)": relu_options_jax,
    "relu_options (NumPy)": relu_options_numpy,
    "lbriv (C)": lbriv,
    "iv_engine (Rust)": iv_engine,
    "pyvolr (Rust)": pyvolr,
    "QuantLib LiRS (C++)": quantlib_lirs,
    "QuantLib (C++)": quantlib,
    "fast_vollib": fast_vollib,
    "pyfeng": pyfeng,
    "py_lets_be_rational": py_lets_be_rational,
    "py_vollib": py_vollib,
    # Last, since it replaces the functions of py_vollib when it is imported.
    "py_vollib_vectorized": py_vollib_vectorized,
}


# Data


def truth() -> tuple[Options, np.ndarray, np.ndarray, np.ndarray]:
    """Options, volatilities as sums of two doubles, and kinds."""
    with TRUTH.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["model"] == "lognormal"]
    options: Options = {
        name: np.array([float.fromhex(row[name]) for row in rows])
        for name in COLUMNS[:4]
    }
    options["is_call"] = np.array([row["is_call"] == "1" for row in rows])
    roots = [Decimal(row["root"]) for row in rows]
    high = np.array([float(root) for root in roots])
    low = np.array([float(root - Decimal(float(root))) for root in roots])
    return options, high, low, np.array([row["kind"] for row in rows])


def realistic(size: int, seed: int = 1) -> Options:
    """Listed options of a day to two years, with smiles, of either type."""
    rng = np.random.default_rng(seed)
    days = np.array([1, 2, 5, 7, 14, 30, 45, 60, 90, 120, 180, 270, 365, 545, 730])
    draws = int(1.6 * size)
    years = rng.choice(days, draws) / 365.0 * rng.uniform(0.9, 1.1, draws)
    deviations = np.clip(rng.normal(0.0, 1.3, draws), -5.0, 5.0)
    level = np.exp(rng.uniform(np.log(0.08), np.log(0.7), draws))
    volatility = level * (1.0 + 0.05 * deviations**2)
    forward = np.exp(rng.uniform(np.log(5.0), np.log(5000.0), draws))
    strike = np.round(forward * np.exp(deviations * volatility * np.sqrt(years)), 2)
    options: Options = {
        "forward": forward,
        "strike": np.maximum(strike, 0.01),
        "time_to_expiry": years,
        "is_call": rng.random(draws) < 0.5,
    }
    price = black_scholes.price(volatility=volatility, **options)
    gain = options["forward"] - options["strike"]
    intrinsic = np.maximum(np.where(options["is_call"], gain, -gain), 0.0)
    lower = np.minimum(options["forward"], options["strike"])
    traded = np.flatnonzero(price - intrinsic > 1e-5 * lower)[:size]
    options |= {"price": price, "volatility": volatility}
    return {name: values[traded] for name, values in options.items()}


# Measuring


def nanoseconds(function: Callable[[], Any], count: int, seconds: float) -> float:
    """Least time per option over as many calls as fit into `seconds`."""
    function()
    best, end = np.inf, time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - start)
    return best / count * 1e9


def affordable(solve: Solver, options: Options) -> Options:
    """As many of `options` as the library solves in about a third of a second."""
    few = first(options, 2000)
    solve(few)
    start = time.perf_counter()
    solve(few)
    rate = (time.perf_counter() - start) / 2000
    return first(options, int(np.clip(0.3 / rate, 2000, len(options["price"]))))


def first(options: Options, count: int) -> Options:
    """The first `count` options."""
    return {name: values[:count] for name, values in options.items()}


def compare(only: list[str], seconds: float) -> Iterator[tuple[str, Any, np.ndarray]]:
    """For each library its name, a row of the table and its errors, in eps."""
    hard, high, low, kind = truth()
    usual = ~np.char.startswith(kind, "extreme")
    timed = realistic(1_000_000)
    timed.pop("volatility")
    for name, build in LIBRARIES.items():
        if only and not any(word in name for word in only):
            continue
        try:
            solve = build()
        except ImportError as error:
            print(f"{name}: left out, {error}", file=sys.stderr)
            continue
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            result = np.asarray(solve(hard), float)
            error = np.abs((result - high) - low) / high
            some = affordable(solve, timed)
            if build is relu_options_jax:
                some = {key: jax.numpy.asarray(x) for key, x in some.items()}

            def call(solve=solve, some=some):
                return solve(some)

            spent = nanoseconds(call, len(some["price"]), seconds)
        error = np.where(np.isfinite(error), error, np.inf)
        wrong = error > WRONG
        cells = [spent]
        for rows in (usual, ~usual):
            good = error[rows & ~wrong] / EPS
            cells += [good.max(), good.mean()] if len(good) else [np.nan, np.nan]
            cells += [int(wrong[rows].sum())]
        yield name, cells, error / EPS


def own_figures(seconds: float) -> Iterator[tuple[str, str]]:
    """Names and values of this library's other figures."""
    options = realistic(1_000_000)
    size = len(options["price"])
    names = ("forward", "strike", "time_to_expiry", "volatility", "is_call")
    inputs: Options = {name: options[name] for name in names}
    quote: Options = {name: options[name] for name in COLUMNS}
    flags = jax.numpy.asarray(options["is_call"])
    total = options["volatility"] * np.sqrt(options["time_to_expiry"])
    forward, strike, v, undiscounted = (
        jax.numpy.asarray(x)
        for x in (options["forward"], options["strike"], total, options["price"])
    )

    def timed(function: Callable, *arguments: Any) -> str:
        compiled = jax.jit(function, compiler_options=elementwise.compiler_options())
        spent = nanoseconds(
            lambda: jax.block_until_ready(compiled(*arguments)),
            len(arguments[0]),
            seconds,
        )
        return f"{spent:.1f} ns"

    quoted = undiscounted, forward, strike, flags
    yield (
        "price, kernel",
        timed(lognormal.undiscounted_price, forward, strike, v, flags),
    )
    yield (
        "implied volatility, kernel",
        timed(lognormal.implied_total_volatility, *quoted),
    )
    gradient = jax.grad(
        lambda price, forward, strike, years, is_call: (
            lognormal.implied_total_volatility(price, forward, strike, is_call)
            / jax.numpy.sqrt(years)
        ).sum(),
        argnums=(0, 1, 2, 3),
    )
    years = jax.numpy.asarray(options["time_to_expiry"])
    whole = *quoted[:3], years, flags
    piece = [column[: elementwise.BUCKETS[-1]] for column in whole]
    yield "volatility's four derivatives, 65,536 options", timed(gradient, *piece)
    yield "volatility's four derivatives, a million at once", timed(gradient, *whole)

    def by_pieces(*columns):
        return jax.lax.map(lambda row: gradient(*row), columns, batch_size=100_000)

    yield "volatility's four derivatives, by pieces", timed(by_pieces, *whole)
    yield (
        "normal price, kernel",
        timed(normal.undiscounted_price, forward, strike, v * forward, flags),
    )
    yield (
        "implied normal volatility, kernel",
        timed(normal.implied_total_volatility, *quoted),
    )
    for name, call in (
        ("price, NumPy", lambda: black_scholes.price(**inputs)),
        (
            "implied volatility, NumPy",
            lambda: black_scholes.implied_volatility(**quote),
        ),
        ("price and eight Greeks, NumPy", lambda: black_scholes.greeks(**inputs)),
        (
            "implied normal volatility, NumPy",
            lambda: bachelier.implied_normal_volatility(**quote),
        ),
    ):
        yield name, f"{nanoseconds(call, size, seconds):.1f} ns"
    few = first(quote, 1000)
    call = nanoseconds(lambda: black_scholes.implied_volatility(**few), 1, seconds)
    yield "implied volatility, 1000 options from NumPy", f"{call / 1e3:.0f} us"
    yield "compilations for lengths 1 to 10,000,000", str(compilations())
    yield "memory for 10,000,000 options", memory()
    code = (
        "import time; start = time.perf_counter();"
        "from relu_options import black_scholes;"
        "black_scholes.implied_volatility(price=[9.0], forward=100.0, strike=100.0,"
        " time_to_expiry=1.0); print(time.perf_counter() - start)"
    )
    spent = min(
        float(subprocess.run([sys.executable, "-c", code], **CAPTURED).stdout)
        for _ in range(3)
    )
    yield "first call in a fresh process, import included", f"{spent:.2f} s"


CAPTURED: dict[str, Any] = {"check": True, "capture_output": True, "text": True}


def compilations() -> int:
    """Kernels compiled for lengths 1, 7, 1000, 1001, a million and ten million."""
    traces: list[None] = []

    def formula(price, forward, strike, is_call):
        traces.append(None)
        return lognormal.implied_total_volatility(price, forward, strike, is_call)

    solve = elementwise.elementwise(formula)
    for length in (1, 7, 1000, 1001, 1_000_000, 10_000_000):
        solve(np.full(length, 9.0), 100.0, 100.0, True)
    return len(traces)


def memory() -> str:
    """What NumPy holds at most beyond the arguments, and the size of those."""
    count = 10_000_000
    strike = np.linspace(80.0, 120.0, count)
    option: Options = {"forward": 100.0, "time_to_expiry": 0.5}
    price = black_scholes.price(strike=strike, volatility=0.2, **option)
    tracemalloc.start()
    black_scholes.implied_volatility(price=price, strike=strike, **option)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    held = price.nbytes + strike.nbytes
    return (
        f"{peak / 1e9:.2f} GB, result included, beside {held / 1e9:.2f} GB of arguments"
    )


def draw(results: dict[str, np.ndarray], path: Path) -> None:
    """Errors against log-moneyness and price, one panel a library."""
    import matplotlib.pyplot as plt

    options, *_ = truth()
    depth = np.abs(np.log(options["strike"] / options["forward"]))
    lower = np.minimum(options["forward"], options["strike"])
    gain = options["forward"] - options["strike"]
    intrinsic = np.maximum(np.where(options["is_call"], gain, -gain), 0.0)
    share = np.maximum((options["price"] - intrinsic) / lower, 1e-320)
    columns = 3
    rows = -(-len(results) // columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(10, 2.6 * rows),
        sharex=True,
        sharey=True,
        layout="constrained",
        squeeze=False,
    )
    points: Any = None
    for axis, (name, error) in zip(axes.flat, results.items(), strict=False):
        digits = np.log10(np.clip(error, 0.1, 1e16))
        order = np.argsort(digits)
        points = axis.scatter(
            np.maximum(depth, 1e-12)[order],
            -np.log10(share)[order] + 1e-3,
            c=digits[order],
            s=9,
            cmap="viridis",
            vmin=-1,
            vmax=13,
        )
        axis.set_title(name, fontsize=9)
        axis.set_xscale("log")
        axis.set_yscale("symlog", linthresh=1.0)
    for axis in axes.flat[len(results) :]:
        axis.set_visible(False)
    figure.supxlabel("distance from the money, |log(strike / forward)|", fontsize=9)
    figure.supylabel("digits by which time value is below its bound", fontsize=9)
    bar = figure.colorbar(points, ax=axes, shrink=0.6, ticks=[0, 3, 6, 9, 12])
    bar.set_ticklabels(["1 eps", "1e3", "1e6", "1e9", "1e12"])
    bar.set_label("relative error; 1 eps is 2.2e-16", fontsize=9)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def main() -> None:
    """Print both tables, and draw the figure."""
    parser = argparse.ArgumentParser(description="Compare option formulas.")
    parser.add_argument("--figure", type=Path, help="where to draw the errors")
    parser.add_argument("--only", nargs="*", default=[], help="parts of names")
    parser.add_argument("--seconds", type=float, default=2.0, help="time per timing")
    arguments = parser.parse_args()
    print(f"{'':28}{'ns':>10}   8 hard classes: worst, mean eps, wrong   extremes")
    results, spent = {}, {}
    for name, cells, error in compare(arguments.only, arguments.seconds):
        results[name], spent[name] = error, cells[0]
        print(
            f"{name:28}{cells[0]:10.1f}{cells[1]:14.3g}{cells[2]:12.3g}{cells[3]:6d}"
            f"{cells[4]:16.3g}{cells[5]:12.3g}{cells[6]:6d}",
            flush=True,
        )
    compiled = [
        spent[name] for name in spent if name.endswith(("(C)", "(C++)", "(Rust)"))
    ]
    if compiled and "relu_options (JAX arrays)" in spent:
        ratio = min(compiled) / spent["relu_options (JAX arrays)"]
        print(f"the fastest in C, C++ or Rust takes {ratio:.0f} times as long")
    if arguments.figure is not None:
        draw(results, arguments.figure)
    if not arguments.only:
        print()
        for name, value in own_figures(arguments.seconds):
            print(f"{name:50}{value}", flush=True)


if __name__ == "__main__":
    main()

"""Generate `tests/option_truth.csv`: hard options and their volatilities to 30 digits.

    python benchmarks/generate_option_truth.py

Each row holds an option, as exact hexadecimal doubles, of one of the two models:
`price` is the price at `volatility`, correctly rounded to a double, and `root` is the
volatility, to 30 digits, at which the price is exactly that double. Prices and roots
are computed with 420 bits by the textbook formula, which shares nothing with the one
in the library. Rows whose price is on a bound are left out.

Exponentials of random numbers are computed by mpmath too, and rounded once: those of
NumPy and of C libraries differ in their last digit from one processor to another.
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mpmath as mp
import numpy as np

TRUTH = Path(__file__).parent.parent / "tests" / "option_truth.csv"
PRECISION_BITS = 420
ROWS_PER_CLASS = 30
SEED = 20261

Row = dict[str, Any]


def exponential(x: float) -> float:
    """exp(x), correctly rounded."""
    value: Any = mp.exp(x)
    return float(value)


def power_of_ten(x: float) -> float:
    """10^x, correctly rounded."""
    return float(mp.power(10, x))


def log_uniform(rng: np.random.Generator, least: float, most: float) -> float:
    """A number whose logarithm is uniform between those of the bounds."""
    return exponential(rng.uniform(float(mp.log(least)), float(mp.log(most))))


def lognormal_price(forward, strike, v) -> Any:
    """Undiscounted out-of-the-money price of the lognormal model."""
    d1 = mp.log(forward / strike) / v + v / 2
    d2 = d1 - v
    if forward <= strike:
        return forward * mp.ncdf(d1) - strike * mp.ncdf(d2)
    return strike * mp.ncdf(-d2) - forward * mp.ncdf(-d1)


def lognormal_vega(forward, strike, v) -> Any:
    """Derivative of the price in total volatility."""
    return forward * mp.npdf(mp.log(forward / strike) / v + v / 2)


def normal_price(forward, strike, v) -> Any:
    """Undiscounted out-of-the-money price of the normal model."""
    distance = abs(forward - strike)
    return v * mp.npdf(distance / v) - distance * mp.ncdf(-distance / v)


def normal_vega(forward, strike, v) -> Any:
    """Derivative of the price in total volatility."""
    return mp.npdf((forward - strike) / v)


MODELS = {
    "lognormal": (lognormal_price, lognormal_vega),
    "normal": (normal_price, normal_vega),
}


def intrinsic_value(forward, strike, is_call: bool) -> Any:
    """Exact intrinsic value."""
    gain = forward - strike if is_call else strike - forward
    return max(gain, mp.mpf(0))


def root(model: str, option: Row) -> Any:
    """Total volatility of the exact price, by Newton's method in log price."""
    price_of, vega_of = MODELS[model]
    forward, strike = mp.mpf(option["forward"]), mp.mpf(option["strike"])
    target = mp.mpf(option["price"]) - intrinsic_value(
        forward, strike, option["is_call"]
    )
    bound = min(forward, strike)
    # Below 2.2e-308 processors flush differences to zero.
    if target < 1e-300 or (model == "lognormal" and bound - target < 1e-300):
        return None
    upper = model == "lognormal" and 2 * target > bound
    v = mp.mpf(option["volatility"]) * mp.sqrt(mp.mpf(option["time_to_expiry"]))
    for _ in range(200):
        price, vega = price_of(forward, strike, v), vega_of(forward, strike, v)
        if upper:
            step = -mp.log((bound - price) / (bound - target)) * (bound - price) / vega
        else:
            step = mp.log(price / target) * price / vega
        v -= max(min(step, v / 2), -v / 2)
        if abs(step) < v * mp.mpf(10) ** -50:
            return v
    raise ArithmeticError(f"no root for {option}")


def lognormal_options(rng: np.random.Generator) -> Iterator[Row]:
    """Options of the hard classes, without their prices."""

    def option(kind, k, v, time_to_expiry, in_the_money):
        is_call = bool(rng.random() < 0.5)
        forward = float(np.round(log_uniform(rng, 5.0, 5000.0), 4))
        sign = 1.0 if is_call != in_the_money else -1.0
        return {
            "kind": kind,
            "forward": forward,
            "strike": forward * exponential(sign * k),
            "time_to_expiry": float(time_to_expiry),
            "volatility": float(v / np.sqrt(time_to_expiry)),
            "is_call": is_call,
        }

    def years():
        return power_of_ten(rng.uniform(-2.5, 1.0))

    def at_depth(k, depth):
        """Total volatility with k / v - v / 2 = depth."""
        root = np.sqrt(depth * depth + 2.0 * k)
        return 2.0 * k / (depth + root) if depth > 0.0 else root - depth

    while True:
        v = log_uniform(rng, 0.02, 0.8)
        k = abs(rng.normal(0.0, 1.3)) * v
        yield option("realistic", k, v, years(), rng.random() < 0.3)
        v = power_of_ten(rng.uniform(-3.0, 0.5))
        k = v * power_of_ten(rng.uniform(-12.0, -2.0)) * (rng.random() < 0.9)
        yield option("near the money", k, v, years(), rng.random() < 0.5)
        k = power_of_ten(rng.uniform(-3.0, 1.3))
        v = at_depth(k, rng.uniform(3.0, 36.0))
        yield option("deep out of the money", k, v, years(), False)
        k = power_of_ten(rng.uniform(-2.0, 0.5))
        v = at_depth(k, rng.uniform(1.0, 5.5))
        yield option("deep in the money", k, v, years(), True)
        v = power_of_ten(rng.uniform(-6.0, -2.0))
        k = abs(rng.normal(0.0, 1.5)) * v
        yield option("tiny volatility", k, v, years(), rng.random() < 0.2)
        v = rng.uniform(2.0, 8.0)
        k = abs(rng.normal(0.0, 2.0))
        yield option("huge volatility", k, v, years(), rng.random() < 0.3)
        v = power_of_ten(rng.uniform(-4.0, -2.0))
        k = rng.uniform(0.0, 5.0) * v
        yield option("tiny time", k, v, power_of_ten(rng.uniform(-6.0, -4.0)), False)
        k = power_of_ten(rng.uniform(-3.0, 1.0))
        v = at_depth(k, rng.uniform(-8.0, -3.0))
        yield option("near the upper bound", k, v, years(), rng.random() < 0.5)
        k = rng.uniform(20.0, 690.0)
        v = at_depth(k, rng.uniform(-7.0, 30.0))
        yield option("extreme moneyness", k, v, years(), False)
        k = power_of_ten(rng.uniform(-8.0, 2.5))
        v = at_depth(k, rng.uniform(34.0, 37.0))
        yield option("extreme price", k, v, years(), False)


def normal_options(rng: np.random.Generator) -> Iterator[Row]:
    """Options on forwards of either sign, without their prices."""
    while True:
        for kind, least, most, in_the_money in (
            ("realistic", 0.0, 3.0, False),
            ("near the money", 0.0, 1e-4, False),
            ("deep out of the money", 3.0, 36.5, False),
            ("deep in the money", 0.5, 5.5, True),
        ):
            v = power_of_ten(rng.uniform(-4.0, 2.0))
            forward = v * rng.uniform(-5.0, 5.0)
            is_call = bool(rng.random() < 0.5)
            sign = 1.0 if is_call != in_the_money else -1.0
            years = power_of_ten(rng.uniform(-2.5, 1.0))
            yield {
                "kind": kind,
                "forward": float(forward),
                "strike": float(forward + sign * v * rng.uniform(least, most)),
                "time_to_expiry": float(years),
                "volatility": float(v / np.sqrt(years)),
                "is_call": is_call,
            }


def truths(model: str, options: Iterator[Row]) -> Iterator[Row]:
    """`ROWS_PER_CLASS` priced options of each kind, with their roots."""
    price_of, _ = MODELS[model]
    counts: dict[str, int] = {}
    kinds = 10 if model == "lognormal" else 4
    while len(counts) < kinds or min(counts.values()) < ROWS_PER_CLASS:
        option = next(options)
        if counts.get(option["kind"], 0) >= ROWS_PER_CLASS:
            continue
        forward, strike = mp.mpf(option["forward"]), mp.mpf(option["strike"])
        time_to_expiry = mp.mpf(option["time_to_expiry"])
        v = mp.mpf(option["volatility"]) * mp.sqrt(time_to_expiry)
        exact = price_of(forward, strike, v) + intrinsic_value(
            forward, strike, option["is_call"]
        )
        option["price"] = float(exact)
        if option["price"] < 1e-300:
            continue
        total = root(model, option)
        if total is None:
            continue
        counts[option["kind"]] = counts.get(option["kind"], 0) + 1
        digits = mp.nstr(total / mp.sqrt(time_to_expiry), 30)
        yield {"model": model, **option, "root": digits}


def main() -> None:
    """Write the table."""
    rng = np.random.default_rng(SEED)
    with mp.workprec(PRECISION_BITS):
        rows = [
            *truths("lognormal", lognormal_options(rng)),
            *truths("normal", normal_options(rng)),
        ]
    columns = ["model", "kind", "forward", "strike", "time_to_expiry"]
    columns += ["volatility", "is_call", "price", "root"]
    with TRUTH.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        for row in sorted(rows, key=lambda row: (row["model"], row["kind"])):
            exact: Row = {
                name: value.hex() if isinstance(value, float) else value
                for name, value in row.items()
            }
            writer.writerow({**exact, "is_call": int(row["is_call"])})


if __name__ == "__main__":
    main()

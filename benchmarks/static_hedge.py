"""Static hedges with listed strikes: how good, how near to the best, how fast.

Run from the repository root:

    python benchmarks/static_hedge.py [QUOTES] [--quote-time TIME] [--expiry DATE]

Without a file of quotes the bundled simulated chain is used for the bounds on prices.
What is measured is said in `README.md` beside this file.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

import relu_options as ro
from relu_options import black_scholes, payoffs
from relu_options.market_data import ExpiryQuotes
from relu_options.replication import least_largest_error
from relu_options.replication.few_strikes import best_strikes, squared_error
from relu_options.replication.pieces import Regression
from relu_options.replication.pruning import choose_strikes
from relu_options.replication.spot_law import SpotLaw

FLAT = ro.BlackScholesCurve(volatility=0.2, forward=1.0, time_to_expiry=1.0)
CONTRACTS = {
    "log contract": 2.0 * payoffs.log_contract(1.0),
    "x^2": payoffs.power(2.0),
    "x^0.5": payoffs.power(0.5),
    "x^1.5": payoffs.power(1.5),
}


def published_strip() -> str:
    """The strip of Demeterfi, Derman, Kamal and Zou (1999), Table 1."""
    years, rate = 90.0 / 365.0, 0.05
    contract = 2.0 / years * payoffs.log_contract(100.0)
    strip = 1e4 * contract.piecewise_linear(np.arange(45.0, 141.0, 5.0))
    portfolio = ro.decompose(strip, options="out_of_the_money", boundary=100.0)
    prices = black_scholes.price(
        spot=100.0,
        rate=rate,
        strike=portfolio.strikes,
        time_to_expiry=years,
        volatility=0.30 - 0.002 * (portfolio.strikes - 50.0),
        is_call=portfolio.is_call,
    )
    cost = portfolio.quantities @ prices
    growth = np.exp(rate * years)
    variance = 2.0 / years * (rate * years - growth + 1.0) + growth * cost / 1e4
    return (
        f"cost {cost:.4f} (419.8671), volatility {100 * variance**0.5:.3f} % (20.467)"
    )


def few_strikes() -> pd.DataFrame:
    """Errors relative to the certified lower bound, by the rule that chose."""
    strikes = np.round(np.arange(0.50, 1.6001, 0.01), 2)
    law = SpotLaw.of(FLAT, strikes)
    rows = []
    for name, payoff in CONTRACTS.items():
        regression = Regression.of(law, np.asarray(payoff(law.spots)), strikes)
        for count in (4, 6, 8, 12, 16):
            chosen, bound = best_strikes(regression, count)
            row: dict[str, Any] = {
                "payoff": name,
                "strikes": count,
                "lower bound": np.sqrt(bound),
                "best": np.sqrt(squared_error(regression, chosen) / bound),
            }
            for rule in ("greedy", "l1", "activation_rate"):
                positions = choose_strikes(regression, count, rule)
                error = squared_error(regression, positions)
                row[rule] = np.sqrt(error / bound)
            rows.append(row)
    return pd.DataFrame(rows)


def largest_errors() -> pd.DataFrame:
    """The least largest error of the log contract, beside its limit."""
    rows = []
    for count in (5, 9, 13):
        strikes = np.geomspace(0.5, 1.6, 12 * count + 1)
        contract = CONTRACTS["log contract"]
        error, _ = least_largest_error(contract, strikes, count - 1)
        limit = 2.0 * np.log(1.6 / 0.5) ** 2 / (16.0 * count**2)
        rows.append({"segments": count, "error": error, "ratio": error / limit})
    return pd.DataFrame(rows)


def speeds() -> pd.DataFrame:
    """Milliseconds to choose strikes and to certify the choice, 500 strikes, warm."""
    strikes = np.linspace(0.5, 1.6, 500)
    rows = []
    for name, payoff in CONTRACTS.items():
        row: dict[str, Any] = {"payoff": name}
        for count in (4, 8, 16):

            def choose(payoff=payoff, count=count):
                law = SpotLaw.of(FLAT, strikes)
                values = np.asarray(payoff(law.spots))
                best_strikes(Regression.of(law, values, strikes), count)

            row[f"{count} strikes"] = 1e3 * fastest(choose, 9)
        rows.append(row)
    return pd.DataFrame(rows)


def fastest(run: Callable[[], Any], times: int) -> float:
    """Seconds of the fastest of several runs, after one to warm up."""
    run()
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def price_bounds(quotes: ExpiryQuotes) -> pd.DataFrame:
    """Prices that the quotes allow, beside that of a fitted curve."""
    forward = quotes.forward
    curve = ro.fit_curve(quotes)
    k = forward * np.array([0.8, 0.9, 0.95, 1.0, 1.05, 1.1]) + 0.3
    inside = {"spots": (0.5 * forward, 1.5 * forward)}
    kinds: dict[str, tuple[Any, dict[str, Any]]] = {
        "call": (payoffs.call(k[4]), {}),
        "straddle": (payoffs.straddle(k[3]), {}),
        "butterfly": (payoffs.butterfly(*k[2:5]), {}),
        "condor": (payoffs.condor(*k[1:5]), {}),
        "collar": (payoffs.collar(k[2], k[4]), {}),
        "ratio spread": (payoffs.ratio_spread(k[3], k[5]), {}),
        "digital, 10 wide": (payoffs.digital(k[3], width=10.0), {}),
        "log contract": (2.0 * forward * payoffs.log_contract(forward), inside),
    }
    rows = []
    for name, (payoff, request) in kinds.items():
        start = time.perf_counter()
        above = ro.replicate(payoff, quotes, method="super", **request)
        seconds = time.perf_counter() - start
        below = ro.replicate(payoff, quotes, method="sub", **request)
        fair = curve.discount_factor * curve.expectation(payoff)
        rows.append(
            {
                "payoff": name,
                "sub": below.cost,
                "curve": fair,
                "super": above.cost,
                "legs": len(above.portfolio),
                "super, ms": 1e3 * seconds,
            }
        )
    return pd.DataFrame(rows)


def main() -> None:
    """Print every table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("quotes", nargs="?")
    parser.add_argument("--quote-time", default=None)
    parser.add_argument("--expiry", default=None)
    options = parser.parse_args()
    if options.quotes is None:
        chain = ro.bundled_chain()
    else:
        chain = ro.read_chain(options.quotes, quote_time=options.quote_time)
    one = chain[chain.slices[len(chain) // 2]]
    if options.expiry is not None:
        one = chain[tuple(options.expiry.split())]
    print("Replication of a variance swap, published figures in brackets")
    print(published_strip())
    print("\nExpected error over the lower bound, 111 strikes from 0.5 to 1.6")
    print(few_strikes().to_string(index=False, float_format="{:.4g}".format))
    print("\nLargest error of the log contract over its limit")
    print(largest_errors().to_string(index=False, float_format="{:.5g}".format))
    print("\nMilliseconds to choose among 500 strikes and certify the choice")
    print(speeds().to_string(index=False, float_format="{:.1f}".format))
    quotes = ro.prepare_quotes(one)
    print(f"\nPrices that the quotes allow: {quotes!r}")
    print(price_bounds(quotes).to_string(index=False, float_format="{:.6g}".format))


if __name__ == "__main__":
    main()

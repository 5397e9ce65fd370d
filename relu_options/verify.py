"""Proves in exact rational arithmetic that an option price surface has no arbitrage.

`python verify.py surface.json` needs Python and this one file; `docs/no_arbitrage.md`
has the theorem. Exit code 0: proved; 1: not proved; 2: no certificate can be read.
"""

import json
import sys
from fractions import Fraction
from math import erf, lcm, sqrt
from operator import mul, sub

__all__ = ["verify"]
FORMAT = "relu_options.SurfaceCertificate/1"
TERMS = ("times", "forwards", "discount_factors")


class NotProved(ValueError):
    """A claim of a certificate fails: which, where, and by how much."""


def verify(certificate: dict) -> list[str]:
    """Prove every claim of a certificate, or raise; returns lines that say which.

    >>> surface = {"format": FORMAT, "expiries": ["June"], "times": [0.5],
    ...            "forwards": [100], "discount_factors": [1], "kinks": [0.5, 1, 2],
    ...            "kernel_prices": [0.2, 0.1, 0.2], "weights": [["1/6", 0.75, "1/12"]]}
    >>> print(verify(surface)[0])
    proved: no butterfly, call-spread or calendar arbitrage, any strike, any time
    """
    if not isinstance(certificate, dict) or certificate.get("format") != FORMAT:
        raise ValueError(f"not a certificate: `format` is not {FORMAT!r}")
    expiries = _listed("expiries", certificate.get("expiries"))
    kinks = _numbers("kinks", certificate.get("kinks"))
    count, n = len(expiries), len(kinks)
    terms = [_numbers(name, certificate.get(name), count) for name in TERMS]
    prices = _numbers("kernel_prices", certificate.get("kernel_prices"), n)
    rows = _listed("weights", certificate.get("weights"), count)
    weights = [_numbers(f"weights[{i}]", row, n) for i, row in enumerate(rows)]
    places = [f"kink {j + 1} of {n} (s = {float(s):.6g})" for j, s in enumerate(kinks)]
    for name, values in zip(TERMS, terms, strict=True):
        _require(f"{name} not positive", values, expiries, strict=True)
    times = terms[0]
    _require("times not rising", map(sub, times[1:], times), expiries[1:], strict=True)
    _require("kinks not positive", kinks[:1], places, strict=any(prices))
    _require("kinks not rising", map(sub, kinks[1:], kinks), places[1:], strict=True)
    _require("no kink is 1", [-min(abs(s - 1) for s in kinks)], ["the nearest"])
    _require("kernel prices below 0", prices, places)
    _require("kernel prices not below 1", [1 - p for p in prices], places, strict=True)
    _require("kernel prices not convex in log s", _bends(kinks, prices), places[1:])
    a = lcm(*(s.denominator for s in kinks))  # a * kinks, b * weights are integers
    b = lcm(*(w.denominator for row in weights for w in row))
    sites, calls = [int(a * s) for s in kinks], [0] * n
    for expiry, row in zip(expiries, weights, strict=True):
        masses = [int(b * w) for w in row]
        mean = sum(map(mul, masses, sites))
        _require(f"weights of {expiry} below 0", masses, places, b)
        _require("sum of weights is not 1", [-abs(sum(masses) - b)], [expiry], b)
        _require("mean of weights is not 1", [-abs(mean - a * b)], [expiry], a * b)
        before, calls, tail = calls, [0] * n, 0
        for j in reversed(range(n - 1)):
            tail += masses[j + 1]
            calls[j] = calls[j + 1] + tail * (sites[j + 1] - sites[j])
        gaps = map(sub, calls, before)
        _require(f"skeleton of {expiry} below the one before", gaps, places, a * b)
    return [
        "proved: no butterfly, call-spread or calendar arbitrage, any strike, any time",
        f"{count} expiries, {n} kinks: times and kinks increase, one kink is exactly 1",
        f"{count * n} weights >= 0; of each expiry the sum and mean are exactly 1",
        f"{(count - 1) * n} calendar inequalities: no skeleton below the one before",
        f"{max(n - 2, 0)} bends of kernel prices in log s >= 0: units are convex in s",
        "rounding: none; numbers are exact binary64 or p/q, and logarithms enclosed",
    ]


def _listed(name, values, length=None):
    if not isinstance(values, list) or len(values) != (length or len(values) or 1):
        raise ValueError(f"{name}: not a list of {length or 'one or more'}")
    return values


def _numbers(name, values, length=None):
    """Exact values of JSON numbers, which are read as binary64, and of strings p/q."""
    for x in _listed(name, values, length):
        if type(x) not in (int, float) and set(str(x)) - set("-/0123456789"):
            raise ValueError(f"{name}: {x!r:.40} is not a number")
    try:
        return [Fraction(x if type(x) is str else float(x)) for x in values]
    except (ValueError, ArithmeticError) as error:
        raise ValueError(f"{name}: {error}") from None


def _require(claim, amounts, places, unit=1, strict=False):
    """Raise unless all amounts / `unit` are at zero or above; `strict`: above."""
    for amount, place in zip(amounts, places, strict=False):
        if amount < 0 or (strict and amount == 0):
            short = float(Fraction(-amount, unit))
            raise NotProved(f"{claim}: {place}, by {short:.6g}")


def _bends(kinks, prices):
    """Changes of slope, bounded from below ever closer until positive; to 1024 bits."""
    rises = list(map(sub, prices[1:], prices))
    for j in range(1, len(rises) if any(rises) else 0):
        for bits in (64, 128, 256, 512, 1024):
            low, high = _log(kinks[j] / kinks[j - 1], bits)
            next_low, next_high = _log(kinks[j + 1] / kinks[j], bits)
            least = rises[j] * (low if rises[j] > 0 else high)
            least -= rises[j - 1] * (next_high if rises[j - 1] > 0 else next_low)
            if least >= 0:
                break
        yield least / 2**bits


def _log(ratio, bits):
    """Integers around 2**bits log(ratio), which is 2 (t + t**3/3 + t**5/5 + ...)."""
    t = (ratio - 1) / (ratio + 1)
    p, q = t.numerator**2, t.denominator**2
    low_power = (t.numerator << bits + 1) // t.denominator
    high_power, low, high = low_power + 1, 0, 0
    for odd in range(1, 2 * bits, 2):
        low, high = low + low_power // odd, high + high_power // odd + 1
        low_power, high_power = low_power * p // q, high_power * p // q + 1
    return low, high + high_power * q // (q - p) + 1  # the rest is a geometric series


def _apart(a, b):
    if isinstance(a, list):
        return max(_apart(x, y) for x, y in zip(a, b, strict=True))
    return abs(Fraction(a) - Fraction(b))


if __name__ == "__main__":
    try:
        with open(sys.argv[1] if sys.argv[1:] else "surface.json", "rb") as file:
            given = json.load(file)
        proof = given.get("certificate", given) if isinstance(given, dict) else given
        code, lines = 0, verify(proof)
        if proof is not given:  # a surface, which must be the one that was certified
            widths = _numbers("bandwidths", given.get("bandwidths"))
            given["kernel_prices"] = [erf(h / sqrt(8)) for h in widths]
            for name in (*TERMS, "kinks", "kernel_prices", "weights"):
                if _apart(proof[name], given.get(name)) > 1e-12:
                    raise NotProved(f"{name} of surface and certificate differ")
    except NotProved as failure:
        code, lines = 1, [f"not proved: {failure}"]
    except (OSError, ValueError, TypeError, ArithmeticError, RecursionError) as error:
        code, lines = 2, [f"no certificate: {error}"]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.exit(code)

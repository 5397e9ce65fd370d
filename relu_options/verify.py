"""Proves in exact rational arithmetic that an option price surface has no arbitrage.

`python verify.py surface.json` needs Python and this one file; `docs/no_arbitrage.md`
has the theorem. Exit code 0: proved; 1: not proved; 2: no certificate can be read.
"""

import json
import sys
from fractions import Fraction
from math import erf, exp, lcm, sqrt
from operator import mul, sub

__all__ = ["verify"]
FORMAT = "relu_options.SurfaceCertificate/1"
SURFACE_FORMAT = "relu_options.PriceSurface/1"
TERMS = ("times", "forwards", "discount_factors")
LIMIT = Fraction(1, 10**13)  # of the change of a price, in discounted forwards
CHANGED = "prices change by more than 1e-13 of the forward"
ERF_ERROR = Fraction(1, 2**50)  # eight times that of a library
LONGEST = 2**42  # numbers times bits squared of their common denominator: seconds


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
    if not all(type(label) is str and label.isprintable() for label in expiries):
        raise ValueError("expiries: a label is not a text of one line")
    kinks = _numbers("kinks", certificate.get("kinks"))
    count, n = len(expiries), len(kinks)
    terms = [_numbers(name, certificate.get(name), count) for name in TERMS]
    prices = _numbers("kernel_prices", certificate.get("kernel_prices"), n)
    rows = _listed("weights", certificate.get("weights"), count)
    weights = [_numbers(f"weights[{i}]", row, n) for i, row in enumerate(rows)]
    changes = _numbers("largest_change", [certificate.get("largest_change", 0)])
    a = _unit("kinks", kinks)  # a * kinks and b * weights are integers
    b = _unit("weights", [w for row in weights for w in row])
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
    _require(CHANGED, [LIMIT - abs(x) for x in changes], ["the given network"])
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


def verify_surface(surface: dict) -> list[str]:
    """Prove the certificate in a surface, and that it is that of the surface's floats.

    Weights and bandwidths are rounded, by which prices may move by a part 1e-13 of the
    discounted forward; all else must be equal.
    """
    if surface.get("format") != SURFACE_FORMAT:
        raise ValueError(f"not a surface: `format` is not {SURFACE_FORMAT!r}")
    proof = surface.get("certificate", {})
    lines, expiries = verify(proof), proof["expiries"]
    if surface.get("expiries") not in ([], expiries):
        raise NotProved("expiries of surface and certificate differ")
    for name in (*TERMS, "kinks"):
        if _floats(name, surface.get(name)) != _numbers(name, proof[name]):
            raise NotProved(f"{name} of surface and certificate differ")
    spot = [] if surface.get("spot") is None else _floats("spot", [surface["spot"]])
    _require("spot not positive", spot, ["time zero"], strict=True)
    kinks, prices = (_numbers(name, proof[name]) for name in ("kinks", "kernel_prices"))
    widths = _floats("bandwidths", surface.get("bandwidths"), len(kinks))
    _require("bandwidths below 0", [min(widths)], ["the least"])
    rows = _listed("weights", surface.get("weights"), len(expiries))
    rows = [_floats(f"weights[{i}]", row, len(kinks)) for i, row in enumerate(rows)]
    _require("weights of the surface below 0", map(min, rows), expiries)
    certified = [_numbers("weights", row) for row in proof["weights"]]
    changes = price_changes(kinks, rows, certified, widths, prices)
    _require(CHANGED, [LIMIT - x for x in changes], expiries)
    return [*lines, "the surface's own prices: the same, to 1e-13 of the forward"]


def price_changes(kinks, weights, certified, bandwidths, kernel_prices):
    """Bounds of |price - certified price| / (D F) at all strikes, one for each expiry.

    A unit changes by s exp(h**2 / 8) |dp| at most, and a price by (1 + s) |dw| for each
    weight. All numbers are fractions.
    """
    units = []
    for h, p in zip(bandwidths, kernel_prices, strict=True):
        apart = abs(Fraction(erf(h / sqrt(8))) - p) + ERF_ERROR
        units.append(apart * Fraction(exp(min(h, 40) ** 2 / 8)))
    rows = zip(weights, certified, strict=True)
    moves = [[abs(v - w) for v, w in zip(*pair, strict=True)] for pair in rows]
    return [max(units) + sum(row) + sum(map(mul, row, kinks)) for row in moves]


def _listed(name, values, length=None):
    if not isinstance(values, list) or len(values) != (length or len(values) or 1):
        raise ValueError(f"{name}: not a list of {length or 'one or more'}")
    return values


def _floats(name, values, length=None):
    return _numbers(name, values, length, (int, float))


def _numbers(name, values, length=None, types=(int, float, str)):
    """Exact values of JSON numbers, which are read as binary64, and of strings p/q."""
    for x in _listed(name, values, length):
        if type(x) not in types or (type(x) is str and set(x) - set("-/0123456789")):
            raise ValueError(f"{name}: {x!r:.40} is not a number")
    try:
        return [Fraction(x if type(x) is str else float(x)) for x in values]
    except (ValueError, ArithmeticError) as error:
        raise ValueError(f"{name}: {error}") from None


def _unit(name, values):
    """The least common denominator, unless it is too long to reckon with."""
    unit = 1
    for x in values:
        unit = lcm(unit, x.denominator)
        if (bits := unit.bit_length()) ** 2 * len(values) > LONGEST:
            size = f"{len(values)} numbers over a denominator of {bits} bits"
            raise ValueError(f"{name}: {size} are too long to verify")
    return unit


def _require(claim, amounts, places, unit=1, strict=False):
    """Raise unless all amounts / `unit` are at zero or above; `strict`: above."""
    for amount, place in zip(amounts, places, strict=False):
        if amount < 0 or (strict and amount == 0):
            short = float(min(Fraction(-amount, unit), 10**300))
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


if __name__ == "__main__":
    try:
        with open(sys.argv[1] if sys.argv[1:] else "surface.json", "rb") as file:
            given = json.load(file)
        holds_proof = isinstance(given, dict) and "certificate" in given
        code, lines = 0, verify_surface(given) if holds_proof else verify(given)
    except NotProved as failure:
        code, lines = 1, [f"not proved: {failure}"]
    except (OSError, ValueError, TypeError, ArithmeticError, RecursionError) as error:
        code, lines = 2, [f"no certificate: {error}"]
    text = "\n".join(lines).encode("ascii", "backslashreplace").decode()
    sys.stdout.write(text + "\n")
    sys.exit(code)

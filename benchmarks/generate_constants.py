"""Generate `relu_options/formulas/constants.py`, the constants of the option formulas.

Run from anywhere, with the development extra installed:

    python benchmarks/generate_constants.py           # writes the module
    python benchmarks/generate_constants.py --check   # compares it with a fresh run

Polynomials that decide the last digit (the Mills ratio, the area below a normal
payoff, the inverse hyperbolic tangent) are Chebyshev interpolants computed with 500
bits and rounded once. First guesses of an implied volatility need three digits only:
they are least-squares fits, reweighted until the largest error is as small as it gets,
in extended precision and rounded to seven digits, so that every platform stores the
same numbers.
"""

import argparse
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import mpmath as mp
import numpy as np
from scipy import special

MODULE = Path(__file__).parent.parent / "relu_options" / "formulas" / "constants.py"

PRECISION_BITS = 500
TAIL_SCALE = 4.5
"""`L` of the variable u / (L + u) that maps the half line onto the unit interval."""
MILLS_START = -0.71
"""Where the Mills polynomial begins; at u = -0.6745 the normal tail passes one half."""
MILLS_DEGREE = 27
NORMAL_PAYOFF_DEGREE = 24
ATANH_DEGREE = 7
COARSE_ATANH_DEGREE = 3
GUESS_DEGREE = 5
LOWER_SCALE = 5.0
UPPER_SCALE = 1.5
NORMAL_GUESS_SCALE = 6.0
NORMAL_GUESS_DEGREE = 8
GUESS_DIGITS = 7

Real: TypeAlias = Any
"""A number of mpmath, of any precision."""
Polynomial: TypeAlias = list[Real]


# Exact polynomials


def mills_ratio(u: Real) -> Real:
    """Upper normal tail over normal density, by its asymptotic series where u > 60."""
    if u < 60:
        return mp.sqrt(mp.pi / 2) * mp.exp(u * u / 2) * mp.erfc(u / mp.sqrt(2))
    return mp.fsum((-1) ** j * mp.fac2(2 * j - 1) / u ** (2 * j + 1) for j in range(40))


def normal_payoff_ratio(u: Real) -> Real:
    """1 - u R(u): expected excess of a normal variable over u, over its density."""
    if u < 60:
        return 1 - u * mills_ratio(u)
    return mp.fsum(
        (-1) ** (j + 1) * mp.fac2(2 * j - 1) / u ** (2 * j) for j in range(1, 40)
    )


def multiply(left: Polynomial, right: Polynomial) -> Polynomial:
    """Product of two polynomials, coefficients in rising powers."""
    product = [mp.mpf(0)] * (len(left) + len(right) - 1)
    for i, a in enumerate(left):
        for j, b in enumerate(right):
            product[i + j] += a * b
    return product


def compose(outer: Polynomial, inner: Polynomial) -> Polynomial:
    """The polynomial `outer(inner(x))`, by Horner's rule."""
    result = [outer[-1]]
    for coefficient in outer[-2::-1]:
        result = multiply(result, inner)
        result[0] += coefficient
    return result


def interpolate(
    function: Callable[[Real], Real], start, stop, degree: int, nodes: int = 80
) -> Polynomial:
    """Truncated Chebyshev series of `function` on an interval, as a polynomial in x."""
    start, stop = mp.mpf(start), mp.mpf(stop)
    centre, radius = (start + stop) / 2, (stop - start) / 2
    angles = [mp.pi * (j + mp.mpf(1) / 2) / nodes for j in range(nodes)]
    values = [function(centre + radius * mp.cos(angle)) for angle in angles]
    series = [
        2
        * mp.fsum(v * mp.cos(i * a) for v, a in zip(values, angles, strict=True))
        / nodes
        for i in range(degree + 1)
    ]
    series[0] /= 2
    chebyshev: list[Polynomial] = [[mp.mpf(1)], [mp.mpf(0), mp.mpf(1)]]
    for _ in range(degree - 1):
        following = [2 * c for c in [mp.mpf(0), *chebyshev[-1]]]
        for j, c in enumerate(chebyshev[-2]):
            following[j] -= c
        chebyshev.append(following)
    in_unit_variable = [
        mp.fsum(series[i] * chebyshev[i][j] for i in range(j, degree + 1))
        for j in range(degree + 1)
    ]
    return compose(in_unit_variable, [-centre / radius, 1 / radius])


def mills_polynomial() -> Polynomial:
    """R(u) / sqrt(2 pi) as a polynomial in tau = u / (L + u), zero at tau = 1."""
    scale = mp.mpf(TAIL_SCALE)

    def divided_by_its_zero(tau):
        u = scale * tau / (1 - tau)
        return mills_ratio(u) / ((1 - tau) * mp.sqrt(2 * mp.pi))

    start = mp.mpf(MILLS_START) / (scale + mp.mpf(MILLS_START))
    quotient = interpolate(divided_by_its_zero, start, 1, MILLS_DEGREE - 1)
    return multiply(quotient, [mp.mpf(1), mp.mpf(-1)])


def normal_payoff_polynomial() -> Polynomial:
    """(1 - u R(u)) (1 + u / L)^2 / sqrt(2 pi) as a polynomial in tau = u / (L + u)."""
    scale = mp.mpf(TAIL_SCALE)

    def scaled(tau):
        u = scale * tau / (1 - tau)
        return normal_payoff_ratio(u) * (1 + u / scale) ** 2 / mp.sqrt(2 * mp.pi)

    return interpolate(scaled, 0, 1, NORMAL_PAYOFF_DEGREE)


def atanh_polynomial(degree: int) -> Polynomial:
    """(2 atanh(s) / s - 2) / s^2 as a polynomial in s^2, for ratios within 2^0.5861.

    The bits of a double are a piecewise linear logarithm, at most 0.0861 from the true
    one, so rounding their difference leaves a ratio within 2 to the power 0.5861.
    """
    largest = mp.tanh(mp.mpf("0.5861") * mp.log(2) / 2) ** 2

    def remainder(z):
        s = mp.sqrt(z)
        return (2 * mp.atanh(s) / s - 2) / z

    return interpolate(remainder, 0, largest, degree, nodes=60)


# First guesses


def lattice(size: int) -> tuple[np.ndarray, np.ndarray]:
    """`size` points that fill the unit square evenly (additive recurrence)."""
    plastic = 1.32471795724474602596
    index = np.arange(1, size + 1)
    return (index / plastic) % 1.0, (index / plastic**2) % 1.0


def piecewise(share: np.ndarray, values: list[float]) -> np.ndarray:
    """Map the unit interval onto `values`, an equal share to each piece between."""
    return np.interp(share, np.linspace(0.0, 1.0, len(values)), values)


def scaled_mills(u: np.ndarray) -> np.ndarray:
    """Mills ratio in double precision."""
    return np.sqrt(np.pi / 2) * special.erfcx(u / np.sqrt(2))


def log_density(u: np.ndarray) -> np.ndarray:
    """Logarithm of the normal density."""
    return -0.5 * u * u - 0.5 * np.log(2 * np.pi)


def sampled_options(size: int, largest_depth: float):
    """Log-moneyness k and total volatility v over all that doubles can hold."""
    first, second = lattice(size)
    k = 10.0 ** piecewise(first, [-8.0, -2.0, -1.0, 0.0, 1.0, 2.3, 3.155])
    depth = piecewise(second, [-8.4, -3.0, -0.76, 1.0, 3.0, 7.0, 37.0, largest_depth])
    # v with k / v - v / 2 = depth, by the root that does not cancel
    root = np.sqrt(depth * depth + 2.0 * k)
    v = np.where(depth > 0.0, 2.0 * k / (depth + root), root - depth)
    return k, v


def lower_samples(size: int):
    """(theta, b, v) of options worth less than half of their upper bound."""
    k, v = sampled_options(size, largest_depth=52.0)
    h, t = k / v, 0.5 * v
    with np.errstate(all="ignore"):
        difference = scaled_mills(h - t) - scaled_mills(h + t)
        # Where t is small the difference cancels: its Taylor series in t instead.
        payoff = 1.0 - h * scaled_mills(h)
        far = 1.0 / (h * h + 3.0 - 6.0 / (h * h + 9.0))
        payoff = np.where(h > 30.0, far, payoff)
        series = 2.0 * t * (payoff + t * t / 6.0 * ((3.0 + h * h) * payoff - 1.0))
        log_price = log_density(h - t) + np.log(np.where(t < 0.02, series, difference))
        log_gap = np.where(k > 30.0, k, np.log(np.expm1(k)))
        b = np.logaddexp(0.0, log_gap - log_price)
    keep = (log_price < np.log(0.505)) & (log_price > -1420.0) & np.isfinite(b)
    return (k / b)[keep], b[keep], v[keep]


def upper_samples(size: int):
    """(theta, b, v) of options worth more than half of their upper bound."""
    k, v = sampled_options(size, largest_depth=52.0)
    h, t = k / v, 0.5 * v
    with np.errstate(all="ignore"):
        remainder = scaled_mills(t - h) + scaled_mills(h + t)
        log_remainder = log_density(h - t) + np.log(remainder)
        b = k - log_remainder
    keep = (log_remainder < np.log(0.505)) & (log_remainder > np.log(1e-17))
    return (k / b)[keep], b[keep], v[keep]


def least_squares(basis: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Solve in extended precision by Gram-Schmidt, twice for orthogonality.

    No linear algebra library takes part, so that platforms agree.
    """
    columns = []
    remainder = target
    triangle = np.zeros((basis.shape[1],) * 2, np.longdouble)
    projected = np.zeros(basis.shape[1], np.longdouble)
    for j in range(basis.shape[1]):
        column = basis[:, j]
        for _ in range(2):
            for i, unit in enumerate(columns):
                overlap = np.sum(unit * column)
                triangle[i, j] += overlap
                column = column - overlap * unit
        triangle[j, j] = np.sqrt(np.sum(column * column))
        columns.append(column / triangle[j, j])
        projected[j] = np.sum(columns[-1] * remainder)
        remainder = remainder - projected[j] * columns[-1]
    solution = np.zeros_like(projected)
    for j in range(len(projected) - 1, -1, -1):
        rest = np.sum(triangle[j, j + 1 :] * solution[j + 1 :])
        solution[j] = (projected[j] - rest) / triangle[j, j]
    return solution


def minimax_fit(basis: np.ndarray, target: np.ndarray, rounds: int = 40):
    """Coefficients with the smallest largest relative error, and that error."""
    relative = basis / target[:, None]
    weights = np.ones(len(target), np.longdouble)
    best, smallest = weights[:0], np.inf
    for _ in range(rounds):
        coefficients = least_squares(relative * weights[:, None], weights)
        error = np.abs(relative @ coefficients - 1)
        if error.max() < smallest:
            best, smallest = coefficients, error.max()
        weights = weights * (np.longdouble(1e-3) + error / error.max()) ** 0.28
        weights = weights / weights.max()
    return best, float(smallest)


def rounded(value) -> float:
    """A fitted coefficient with the digits that matter."""
    return float(f"{float(value):.{GUESS_DIGITS}g}")


def fit_total_volatility(samples, scale: float, prefactor: Callable, size: int):
    """Triangle of coefficients in alpha and s, and the largest relative error."""
    theta, b, v = (np.asarray(x, np.longdouble) for x in samples(size))
    s = np.sqrt(1 - theta)
    growth = 1 + b / np.longdouble(scale)
    alpha = 1 / np.sqrt(growth)
    target = v / (prefactor(theta) * growth * alpha)
    powers = [
        (i, j) for i in range(GUESS_DEGREE + 1) for j in range(GUESS_DEGREE + 1 - i)
    ]
    basis = np.stack([alpha**i * s**j for i, j in powers], axis=1)
    coefficients, error = minimax_fit(basis, target)
    rows = [[0.0] * (GUESS_DEGREE + 1 - i) for i in range(GUESS_DEGREE + 1)]
    for (i, j), coefficient in zip(powers, coefficients, strict=True):
        rows[i][j] = rounded(coefficient)
    return rows, error


def fit_normal_deviations(size: int):
    """Coefficients in alpha of the normal model's guess, and its largest error."""
    first, _ = lattice(size)
    d = 10.0 ** piecewise(np.sort(first), [-6.0, -1.0, 0.0, 0.8, 1.2, 1.6, 1.73])
    payoff = np.where(
        d < 25.0, 1 - d * scaled_mills(d), 1.0 / (d * d + 3.0 - 6.0 / (d * d + 9.0))
    )
    a = np.logaddexp(0.0, np.log(d) - np.log(payoff) - log_density(d))
    a = np.asarray(a, np.longdouble)
    alpha = 1 / np.sqrt(1 + a / np.longdouble(NORMAL_GUESS_SCALE))
    target = np.asarray(d, np.longdouble) / (a * alpha)
    basis = np.stack([alpha**i for i in range(NORMAL_GUESS_DEGREE + 1)], axis=1)
    coefficients, error = minimax_fit(basis, target)
    return [rounded(c) for c in coefficients], error


# The module


@functools.cache
def constants() -> dict[str, tuple[object, str]]:
    """Every constant by name, with the sentence that documents it."""
    root_two_pi = np.sqrt(2 * np.longdouble(np.pi))
    with mp.workprec(PRECISION_BITS):
        mills = [float(c) for c in mills_polynomial()]
        payoff = [float(c) for c in normal_payoff_polynomial()]
        atanh = [float(c) for c in atanh_polynomial(ATANH_DEGREE)]
        coarse_atanh = [float(c) for c in atanh_polynomial(COARSE_ATANH_DEGREE)]
        log_two: Any = mp.log(2)
        # The high part ends in 32 zeros, so that its multiples by exponents are exact.
        log_two_high = int(log_two * 2**32) / 2**32
        difference: Any = log_two - mp.mpf(log_two_high)
        log_two_low = float(difference)
        two_pi: Any = 2 * mp.pi
        inverse_root_two_pi = float(1 / mp.sqrt(two_pi))
        root: Any = mp.sqrt(two_pi)
        root_two_pi_double = float(root)
    lower, lower_error = fit_total_volatility(
        lower_samples, LOWER_SCALE, lambda theta: root_two_pi * theta, size=6000
    )
    upper, upper_error = fit_total_volatility(
        upper_samples, UPPER_SCALE, lambda theta: 1, size=6000
    )
    normal, normal_error = fit_normal_deviations(size=1500)
    return {
        "LOG_TWO_HIGH": (log_two_high, "Leading 32 bits of log 2."),
        "LOG_TWO_LOW": (log_two_low, "log 2 less its leading 32 bits."),
        "ROOT_TWO_PI": (root_two_pi_double, "Square root of 2 pi."),
        "INVERSE_ROOT_TWO_PI": (inverse_root_two_pi, "Normal density at zero."),
        "ATANH": (atanh, "(2 atanh(s) / s - 2) / s^2 in powers of s^2."),
        "COARSE_ATANH": (coarse_atanh, "The same to six digits."),
        "TAIL_SCALE": (TAIL_SCALE, "L of tau = u / (L + u)."),
        "MILLS": (mills, "Mills ratio over sqrt(2 pi), in powers of tau."),
        "NORMAL_PAYOFF": (
            payoff,
            "(1 - u R(u)) (1 + u / L)^2 / sqrt(2 pi), in powers of tau.",
        ),
        "LOWER_GUESS_SCALE": (LOWER_SCALE, "Scale of b for prices below half."),
        "LOWER_GUESS": (
            lower,
            f"Guess below half, by powers of (alpha, s): within {lower_error:.1e}.",
        ),
        "UPPER_GUESS_SCALE": (UPPER_SCALE, "Scale of b for prices above half."),
        "UPPER_GUESS": (
            upper,
            f"Guess above half, by powers of (alpha, s): within {upper_error:.1e}.",
        ),
        "NORMAL_GUESS_SCALE": (NORMAL_GUESS_SCALE, "Scale of a, normal model."),
        "NORMAL_GUESS": (
            normal,
            f"Guess, normal model, in powers of alpha: within {normal_error:.1e}.",
        ),
    }


def _literal(value) -> str:
    """A constant as ruff formats it: one number a line, rows nested."""
    if isinstance(value, float):
        return repr(value)

    def row(items, indent):
        if len(items) == 1:
            return f"({items[0]!r},)"
        lines = []
        for item in items:
            text = repr(item) if isinstance(item, float) else row(item, indent + "    ")
            lines.append(f"{indent}    {text},\n")
        return "(\n" + "".join(lines) + f"{indent})"

    return row(value, "")


def module_text() -> str:
    """Source of the module of constants."""
    header = (
        '"""Constants of the option formulas.\n\n'
        "Written by `benchmarks/generate_constants.py`; change them there.\n"
        '"""\n'
    )
    return header + "".join(
        f'\n{name} = {_literal(value)}\n"""{comment}"""\n'
        for name, (value, comment) in constants().items()
    )


def main() -> None:
    """Write the module, or with `--check` compare it."""
    parser = argparse.ArgumentParser(description="Generate constants.")
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    check = parser.parse_args().check
    text = module_text()
    if not check:
        MODULE.write_text(text)
    elif MODULE.read_text() != text:
        raise SystemExit(f"{MODULE} differs from what {Path(__file__).name} generates")


if __name__ == "__main__":
    main()

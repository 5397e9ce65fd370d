"""Numbers of a payoff: floats, or rationals that are never rounded."""

import math
import sys
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

Number: TypeAlias = float | Fraction
_NO_NUMBERS = "strikes, and other figures of a payoff, are numbers, not {}"
_LEAST = math.ulp(0.0)


def as_numbers(values: Any) -> np.ndarray:
    """As floats; as they are if they are exact rationals."""
    array = np.asarray(values)
    if array.dtype.kind not in "biufO":
        raise TypeError(_NO_NUMBERS.format(array.tolist()))
    return array if is_exact(array) else array.astype(float)


def is_exact(array: np.ndarray) -> bool:
    """Whether numbers are rationals, which NumPy keeps as objects."""
    return array.dtype == object


def as_rationals(array: np.ndarray) -> np.ndarray:
    """Each number as a `Fraction`: exactly, since a float is one too."""
    try:
        rationals = [Fraction(value) for value in array.reshape(-1).tolist()]
    except TypeError as error:
        raise TypeError(_NO_NUMBERS.format(array.tolist())) from error
    return np.array(rationals, object).reshape(array.shape)


def as_floats(array: np.ndarray) -> np.ndarray:
    """The nearest float of each number."""
    if not is_exact(array):
        return array
    numbers = [nearest_float(number) for number in array.reshape(-1)]
    return np.array(numbers, float).reshape(array.shape)


def nearest_float(number: Number) -> float:
    """The nearest float: infinite if there is none, and 0 only for 0 itself.

    Examples:
        >>> nearest_float(Fraction(2) ** 2000), nearest_float(-(Fraction(2) ** -2000))
        (inf, -5e-324)
    """
    try:
        nearest = float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf
    return nearest or (math.copysign(_LEAST, number) if number else 0.0)


def is_full_float(number: float) -> bool:
    """Whether a float has all its digits: it is 0, or neither infinite nor subnormal.

    Examples:
        >>> is_full_float(1e-300), is_full_float(1e-310), is_full_float(math.inf)
        (True, False, False)
    """
    return number == 0.0 or sys.float_info.min <= abs(number) < math.inf


def increasing(values: ArrayLike | Sequence[Number], least: int = 1) -> np.ndarray:
    """Spots or strikes as an array, after checking that they increase."""
    array = as_numbers(values)
    if array.ndim != 1 or len(array) < least:
        raise ValueError(
            f"at least {least} strikes are needed, of shape `(n,)`, not {array.shape}"
        )
    bad = np.flatnonzero(~(array[1:] > array[:-1]))
    if len(bad):
        raise ValueError(
            f"strikes must increase: {short(array[bad[0]])} is followed by "
            f"{short(array[bad[0] + 1])}; sort them and drop repeated ones"
        )
    return array


def short(number: Any, digits: int = 6) -> str:
    """A number to a few digits, for messages; also a rational that is no float.

    Examples:
        >>> short(Fraction(1, 3)), short(-(Fraction(10) ** 400) / 3)
        ('0.333333', '-3.33333e+399')
    """
    nearest = nearest_float(number)
    if isinstance(number, Fraction) and not is_full_float(nearest):
        return (
            f"{(Decimal(number.numerator) / number.denominator).normalize():.{digits}g}"
        )
    return f"{nearest:.{digits}g}"

"""Payoffs that no finite portfolio is equal to: a function and its derivatives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from relu_options.payoffs.numbers import increasing, short
from relu_options.payoffs.piecewise_linear import Payoff, from_function


@dataclass(frozen=True, eq=False, repr=False)
class SmoothPayoff:
    r"""A payoff given by a function of the spot and its first two derivatives.

    It is worth a continuum of options, $f''(K) \, dK$ of each strike (Carr and Madan,
    1998); a portfolio with finitely many strikes comes near to it
    (`piecewise_linear`).

    Attributes:
        function: Of an array of spots, in currency units.
        derivative: Its slope.
        second_derivative: Its second derivative, by strike: the density of options.
        name: For messages and pictures.

    Examples:
        >>> contract = log_contract(100.0)
        >>> strip = contract.piecewise_linear([80.0, 90.0, 100.0, 110.0, 120.0])
        >>> float((contract - strip)(90.0).round(12))
        0.0
        >>> round(strip.approximation_error, 6)
        0.001734

    References:
        Carr, P. and Madan, D. (1998). Towards a theory of volatility trading. In
        *Volatility*, Risk Publications, 417-427.
    """

    function: Callable[[Any], Any]
    derivative: Callable[[Any], Any]
    second_derivative: Callable[[Any], Any]
    name: str = "smooth payoff"

    def __call__(self, spot: Any) -> Any:
        """Value at `spot`."""
        return self.function(spot)

    def piecewise_linear(self, strikes: ArrayLike) -> Payoff:
        r"""The payoff that is equal to this one at `strikes`, and straight between.

        Beyond the first and the last strike it goes on straight. Its kinks are the
        strikes between these two, its weights the changes of slope, which approximate
        $f''(K) \Delta K$; its `approximation_error` is at most $\max (\Delta K)^2
        |f''| / 8$.

        Args:
            strikes: Increasing, of shape `(n,)` with `n >= 2`, in currency units.

        Returns:
            The payoff, with its error.

        Raises:
            ValueError: If strikes are too few, do not increase, or the function is not
                finite at one of them.
        """
        return from_function(self.function, strikes)

    def tangents(self, points: ArrayLike) -> Payoff:
        """The upper envelope of tangents at `points`; the lower one if it is concave.

        A convex payoff is nowhere below its tangents, and nowhere above the straight
        lines of `piecewise_linear` between their strikes.

        Args:
            points: Increasing, of shape `(n,)`, in currency units.

        Returns:
            A payoff with kinks between the points, where neighbouring tangents meet.

        Raises:
            ValueError: If the payoff is neither convex nor concave at the points.
        """
        points = increasing(points, least=1)
        curvature = np.asarray(self.second_derivative(points), float)
        if not ((curvature >= 0.0).all() or (curvature <= 0.0).all()):
            raise ValueError(
                f"{self.name} is neither convex nor concave: its second derivative is "
                f"{curvature.min():.3g} to {curvature.max():.3g}; split it in two"
            )
        value = np.asarray(self.function(points), float)
        slope = np.asarray(self.derivative(points), float)
        turn = np.diff(slope)
        meets = np.flatnonzero(turn)
        above = np.diff(value) - slope[:-1] * np.diff(points)
        kinks = points[1:][meets] - above[meets] / turn[meets]
        return Payoff(value[0] - slope[0] * points[0], slope[0], kinks, turn[meets])

    def __add__(self, other: SmoothPayoff | Payoff | float) -> SmoothPayoff:
        """Sum of payoffs; a kink of `other` has no second derivative."""
        if isinstance(other, (Payoff, SmoothPayoff)):
            second = getattr(other, "second_derivative", _zero)
            return SmoothPayoff(
                lambda spot: self.function(spot) + other(spot),
                lambda spot: self.derivative(spot) + other.derivative(spot),
                lambda spot: self.second_derivative(spot) + second(spot),
                self.name,
            )
        return SmoothPayoff(
            lambda spot: self.function(spot) + other,
            self.derivative,
            self.second_derivative,
            self.name,
        )

    __radd__ = __add__

    def __mul__(self, quantity: float) -> SmoothPayoff:
        """The payoff of `quantity` such positions."""
        return SmoothPayoff(
            lambda spot: quantity * self.function(spot),
            lambda spot: quantity * self.derivative(spot),
            lambda spot: quantity * self.second_derivative(spot),
            self.name,
        )

    __rmul__ = __mul__

    def __neg__(self) -> SmoothPayoff:
        return self * -1.0

    def __sub__(self, other: SmoothPayoff | Payoff | float) -> SmoothPayoff:
        return self + -1.0 * other

    def __rsub__(self, other: Payoff | float) -> SmoothPayoff:
        return -self + other

    def __repr__(self) -> str:
        return f"SmoothPayoff({self.name})"


def log_contract(reference: float) -> SmoothPayoff:
    r"""What delta hedging at `reference` leaves: $(S - R) / R - \log(S / R)$.

    Twice its expectation is the expected quadratic variation of the logarithm of a
    continuous price (Neuberger, 1994).

    Args:
        reference: `R`, where its value and its slope are zero, in currency units.

    Raises:
        ValueError: If the reference is not positive.

    Examples:
        >>> print(log_contract(100.0)(np.array([80.0, 100.0, 120.0])).round(4))
        [0.0231 0.     0.0177]

    References:
        Neuberger, A. (1994). The log contract. *Journal of Portfolio Management*,
        20(2), 74-80.
    """
    _check_reference(reference)
    return SmoothPayoff(
        lambda spot: spot / reference - 1.0 - np.log(spot / reference),
        lambda spot: 1.0 / reference - 1.0 / np.asarray(spot, float),
        lambda spot: 1.0 / np.square(np.asarray(spot, float)),
        f"log contract at {short(reference)}",
    )


def power(exponent: float, *, reference: float = 1.0) -> SmoothPayoff:
    r"""The payoff $(S / R)^p$.

    Args:
        exponent: `p`.
        reference: `R`, in currency units.

    Raises:
        ValueError: If the reference is not positive.

    Examples:
        >>> power(2.0, reference=100.0)(np.array([50.0, 100.0, 200.0]))
        array([0.25, 1.  , 4.  ])
    """
    _check_reference(reference)

    def derivative(times: int) -> Callable[[Any], Any]:
        factor = np.prod([exponent - step for step in range(times)]) / reference**times
        left = exponent - times

        def evaluate(spot: Any) -> Any:
            return factor * (np.asarray(spot, float) / reference) ** left

        return evaluate

    return SmoothPayoff(
        derivative(0), derivative(1), derivative(2), f"power {short(exponent)}"
    )


def _check_reference(reference: float) -> None:
    if not 0.0 < reference < np.inf:
        raise ValueError(f"reference must be positive, not {reference}")


def _zero(spot: Any) -> Any:
    return np.zeros(np.shape(spot))

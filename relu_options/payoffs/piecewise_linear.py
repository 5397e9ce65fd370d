r"""Piecewise-linear payoffs, and what can be done with them exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from relu_options.formulas.elementwise import restorer
from relu_options.networks import ReLUNetwork
from relu_options.payoffs.numbers import (
    Number,
    as_numbers,
    as_rationals,
    increasing,
    is_exact,
    short,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NONE = np.zeros(0)
_SAMPLES = 32  # in each segment, where the distance to a function is measured


@dataclass(frozen=True, eq=False, repr=False)
class Payoff:
    r"""The payoff $f(S) = a + b S + \sum_i q_i \max(S - K_i, 0)$.

    Strikes are sorted, equal ones merged and those without weight dropped, so that two
    payoffs are equal as functions if and only if their numbers are equal.

    Attributes:
        cash: `a`, in currency units paid at expiry.
        slope: `b`: units of the underlying; the slope to the left of every strike.
        strikes: `K`, increasing, of shape `(n,)`, in currency units.
        weights: `q`, of shape `(n,)`: calls; the changes of slope.
        approximation_error: Largest distance, between the first and the last strike, to
            the function that the payoff interpolates; zero if it stands for itself.

    Examples:
        >>> from relu_options.payoffs import call, cash, put
        >>> spread = call(90.0) - call(110.0)
        >>> spread(np.array([80.0, 100.0, 150.0]))
        array([ 0., 10., 20.])
        >>> spread.is_convex, spread.bounds()
        (False, (0.0, 20.0))
        >>> 2.0 * spread
        Payoff(2 calls 90, -2 calls 110)
        >>> maximum(put(100.0), cash(5.0)) == 5.0 + put(95.0)
        True
    """

    cash: Any
    slope: Any
    strikes: np.ndarray
    weights: np.ndarray
    approximation_error: float = 0.0

    def __post_init__(self) -> None:
        strikes, weights = np.asarray(self.strikes), np.asarray(self.weights)
        if strikes.ndim != 1 or strikes.shape != weights.shape:
            raise ValueError(
                "strikes and weights are of one shape `(n,)`; they have "
                f"{strikes.shape} and {weights.shape}"
            )
        for given in (strikes, weights):
            as_numbers(given)  # or an error that shows it
        numbers = np.concatenate([[self.cash, self.slope], strikes, weights])
        exact = is_exact(numbers)
        numbers = as_rationals(numbers) if exact else as_numbers(numbers) + 0.0
        if not ((-np.inf < numbers) & (numbers < np.inf)).all():
            raise ValueError(
                f"cash {self.cash}, slope {self.slope}, strikes and weights of a "
                "payoff are finite numbers; drop those that are not"
            )
        cash, slope = numbers[:2].tolist()
        strikes, weights = numbers[2:].reshape(2, -1)
        object.__setattr__(self, "cash", cash)
        object.__setattr__(self, "slope", slope)
        order = np.argsort(strikes, kind="stable")
        strikes, weights = strikes[order], weights[order]
        if len(strikes):
            first = np.flatnonzero(np.append(True, strikes[1:] != strikes[:-1]))
            strikes, weights = strikes[first], np.add.reduceat(weights, first)
        kept = weights != 0
        object.__setattr__(self, "strikes", strikes[kept])
        object.__setattr__(self, "weights", weights[kept])

    def __call__(self, spot: Any) -> Any:
        """Value at `spot`: a number, an array, a Series or a JAX array, as it is."""
        if isinstance(spot, jax.Array):
            return self.to_network()(spot)
        values, slopes = self._pieces
        anchors = np.append(np.zeros(1, self.strikes.dtype), self.strikes)
        if is_exact(self.strikes):
            spots = as_rationals(np.asarray(spot))
        else:
            spots = np.asarray(spot, float)
        piece = np.searchsorted(self.strikes, spots, side="right")
        result = values[piece] + slopes[piece] * (spots - anchors[piece])
        return restorer((spot,), spots.shape)(np.asarray(result).reshape(-1))

    def derivative(self, spot: ArrayLike) -> np.ndarray:
        """Slope at `spot`; at a strike, the mean of the slopes on its two sides."""
        spots = np.asarray(spot, float)
        slopes = self._pieces[1]
        left = slopes[np.searchsorted(self.strikes, spots, side="left")]
        right = slopes[np.searchsorted(self.strikes, spots, side="right")]
        return 0.5 * (left + right)

    @cached_property
    def _pieces(self) -> tuple[np.ndarray, np.ndarray]:
        """Value at 0 (of the first piece) and at each strike, and the slopes after."""
        kind = self.strikes.dtype
        slopes = np.cumsum(np.append(np.array([self.slope], kind), self.weights))
        values = np.array([self.cash], kind)
        if len(self.strikes):
            first = values + self.slope * self.strikes[:1]
            steps = slopes[1:-1] * np.diff(self.strikes)
            values = np.append(values, np.cumsum(np.append(first, steps)))
        return values, slopes

    @property
    def is_convex(self) -> bool:
        """Whether every call is bought: no weight is negative."""
        return bool((self.weights >= 0).all())

    @property
    def is_concave(self) -> bool:
        """Whether every call is sold: no weight is positive."""
        return bool((self.weights <= 0).all())

    @property
    def left_slope(self) -> Number:
        """Slope below the first strike."""
        return self.slope

    @property
    def right_slope(self) -> Number:
        """Slope above the last strike."""
        return self._pieces[1][-1]

    def bounds(self, lowest: float = 0.0, highest: float = np.inf) -> tuple[Any, Any]:
        """Least and greatest value for spots from `lowest` to `highest`.

        Args:
            lowest: Currency units; minus infinity where spots may be negative.
            highest: Currency units.

        Returns:
            The two values; infinite where there is no bound.

        Raises:
            ValueError: If `lowest` is not below `highest`.
        """
        if not lowest < highest:
            raise ValueError(f"spots go from low to high, not {lowest} to {highest}")
        inside = self.strikes[(self.strikes > lowest) & (self.strikes < highest)]
        ends = [end for end in (lowest, highest) if abs(end) < np.inf]
        corners = self(np.append(inside, ends)).tolist() or [self.cash]
        low, high = min(corners), max(corners)
        for end, outward in ((lowest, -self.slope), (highest, self.right_slope)):
            if abs(end) == np.inf and outward != 0:
                low, high = (low, np.inf) if outward > 0 else (-np.inf, high)
        return low, high

    def exactly(self) -> Payoff:
        """The same payoff in rational numbers, of which nothing will be rounded."""
        return Payoff(
            Fraction(self.cash),
            Fraction(self.slope),
            self.strikes,
            self.weights,
            self.approximation_error,
        )

    def to_network(self) -> ReLUNetwork:
        """The same function as a JAX pytree."""
        if is_exact(self.strikes):
            return ReLUNetwork(self.cash, self.slope, self.strikes, self.weights)  # type: ignore[arg-type]
        return ReLUNetwork(
            self.cash, self.slope, jnp.array(self.strikes), jnp.array(self.weights)
        )

    @staticmethod
    def from_network(network: ReLUNetwork) -> Payoff:
        """The payoff that a network of the spot is."""
        cash, slope = (
            float(value) if isinstance(value, jax.Array) else value
            for value in (network.intercept, network.slope)
        )
        return Payoff(
            cash, slope, np.asarray(network.kinks), np.asarray(network.weights)
        )

    def __add__(self, other: Payoff | Number) -> Payoff:
        """Sum of two payoffs, or of a payoff and cash."""
        if not isinstance(other, Payoff):
            return Payoff(
                self.cash + other,
                self.slope,
                self.strikes,
                self.weights,
                self.approximation_error,
            )
        return Payoff(
            self.cash + other.cash,
            self.slope + other.slope,
            np.append(self.strikes, other.strikes),
            np.append(self.weights, other.weights),
            self.approximation_error + other.approximation_error,
        )

    __radd__ = __add__

    def __mul__(self, quantity: Number) -> Payoff:
        """The payoff of `quantity` such positions."""
        return Payoff(
            self.cash * quantity,
            self.slope * quantity,
            self.strikes,
            self.weights * quantity,
            self.approximation_error * float(abs(quantity)),
        )

    __rmul__ = __mul__

    def __truediv__(self, quantity: Number) -> Payoff:
        return self * (1 / quantity)

    def __neg__(self) -> Payoff:
        return self * -1

    def __sub__(self, other: Payoff | Number) -> Payoff:
        return self + -1 * other

    def __rsub__(self, other: Number) -> Payoff:
        return -self + other

    def __eq__(self, other: object) -> bool:
        """Whether the two are one function."""
        if not isinstance(other, Payoff):
            return NotImplemented
        return (
            bool(self.cash == other.cash and self.slope == other.slope)
            and np.array_equal(self.strikes, other.strikes)
            and np.array_equal(self.weights, other.weights)
        )

    __hash__ = None  # type: ignore[assignment]

    def plot(
        self,
        ax: Axes | None = None,
        *,
        lowest: float | None = None,
        highest: float | None = None,
    ) -> Axes:
        """Draw value against spot; returns the Axes."""
        from relu_options.plotting import plot_payoff

        return plot_payoff(self, ax, lowest=lowest, highest=highest)

    def __repr__(self) -> str:
        legs = [f"cash {short(self.cash)}"] if self.cash != 0 else []
        if self.slope != 0:
            legs.append(f"{short(self.slope)} underlying")
        shown = range(len(self.strikes)) if len(self.strikes) <= 6 else range(3)
        legs += [
            f"{short(self.weights[leg])} calls {short(self.strikes[leg])}"
            for leg in shown
        ]
        if len(self.strikes) > 6:
            legs.append(f"... {len(self.strikes)} strikes")
        if self.approximation_error:
            legs.append(f"within {self.approximation_error:.3g} of its function")
        return f"Payoff({', '.join(legs) or '0'})"


def maximum(first: Payoff | Number, second: Payoff | Number) -> Payoff:
    """The larger of two payoffs, with kinks where they cross.

    Examples:
        >>> from relu_options.payoffs import call
        >>> maximum(call(80.0), 2.0 * call(100.0))
        Payoff(1 calls 80, 1 calls 120)
    """
    first, second = _as_payoff(first), _as_payoff(second)
    difference = first - second
    return second + _positive_part(difference)


def minimum(first: Payoff | Number, second: Payoff | Number) -> Payoff:
    """The smaller of two payoffs, with kinks where they cross.

    Examples:
        >>> from relu_options.payoffs import call, put
        >>> minimum(call(90.0), put(110.0))(np.array([80.0, 100.0, 120.0]))
        array([ 0., 10.,  0.])
    """
    first, second = _as_payoff(first), _as_payoff(second)
    return first - _positive_part(first - second)


def _positive_part(payoff: Payoff) -> Payoff:
    """max(f, 0): the same kinks where f is positive, and kinks at its zeros."""
    values, slopes = payoff._pieces
    strikes, count = payoff.strikes, len(payoff.strikes)
    zero = values[0] * 0
    kinks: list[Any] = []
    weights: list[Any] = []
    for piece in range(count + 1):
        low = strikes[piece - 1] if piece else -np.inf
        high = strikes[piece] if piece < count else np.inf
        slope = slopes[piece]
        anchor = strikes[piece - 1] if piece else zero
        if slope != 0:
            root = anchor - values[piece] / slope
            if low < root < high:
                kinks.append(root)
                weights.append(abs(slope))
        if piece < count:
            at = values[piece + 1]
            left, right = slope, slopes[piece + 1]
            if at == 0:  # the positive part leaves upward only
                left, right = min(left, zero), max(right, zero)
            elif at < 0:
                continue
            kinks.append(high)
            weights.append(right - left)
    # To the left of everything f is positive where it falls, or is level above zero.
    start, level = slopes[0], values[0]
    positive = start < 0 or (start == 0 and level > 0)
    return Payoff(
        payoff.cash if positive else zero,
        start if positive else zero,
        np.array(kinks, strikes.dtype),
        np.array(weights, strikes.dtype),
        payoff.approximation_error,
    )


def capped(payoff: Payoff, cap: float) -> Payoff:
    """The payoff, but no more than `cap`.

    Examples:
        >>> from relu_options.payoffs import call
        >>> capped(call(100.0), 20.0)
        Payoff(1 calls 100, -1 calls 120)
    """
    return minimum(payoff, cap)


def floored(payoff: Payoff, floor: float) -> Payoff:
    """The payoff, but no less than `floor`.

    Examples:
        >>> from relu_options.payoffs import forward
        >>> floored(forward(), 90.0)
        Payoff(cash 90, 1 calls 90)
    """
    return maximum(payoff, floor)


def from_points(
    spots: ArrayLike,
    values: ArrayLike,
    *,
    left_slope: float | None = None,
    right_slope: float | None = None,
) -> Payoff:
    """The payoff through given points, straight between them.

    Args:
        spots: Increasing, of shape `(n,)`, in currency units; at least two, or one if
            both slopes are given.
        values: Of shape `(n,)`, in currency units.
        left_slope: To the left of the first point; by default as between the first two.
        right_slope: To the right of the last; by default as between the last two.

    Returns:
        The payoff.

    Raises:
        ValueError: If spots do not increase, shapes differ or there are too few.

    Examples:
        >>> from relu_options.payoffs import straddle
        >>> from_points([90.0, 100.0, 110.0], [10.0, 0.0, 10.0]) == straddle(100.0)
        True
    """
    least = 1 if left_slope is not None and right_slope is not None else 2
    x, y = increasing(spots, least=least), as_numbers(values)
    if y.shape != x.shape:
        raise ValueError(f"spots and values have shapes {x.shape} and {y.shape}")
    inner = np.diff(y) / np.diff(x)
    first = inner[0] if left_slope is None else left_slope
    last = inner[-1] if right_slope is None else right_slope
    slopes = np.concatenate([as_numbers([first]), inner, as_numbers([last])])
    return Payoff(y[0] - first * x[0], first, x, np.diff(slopes))


def from_function(function: Callable[[Any], Any], strikes: ArrayLike) -> Payoff:
    """The payoff that is equal to a function at `strikes`, and straight between.

    Args:
        function: Of an array of spots.
        strikes: Increasing, of shape `(n,)` with `n >= 2`, in currency units.

    Returns:
        The payoff. Its `approximation_error` is the largest distance to the function
        between the first and the last strike, measured at 32 spots between neighbours
        and by a parabola through the largest of them.

    Raises:
        ValueError: If strikes are too few or do not increase, or the function is not
            finite at one of them.

    Examples:
        >>> square = from_function(lambda spot: spot**2, [0.0, 1.0, 2.0, 3.0])
        >>> square
        Payoff(1 underlying, 2 calls 1, 2 calls 2, within 0.25 of its function)
    """
    x = increasing(strikes, least=2)
    y = np.asarray(function(x), float)
    if y.shape != x.shape or not np.isfinite(y).all():
        bad = x[~np.isfinite(y)] if y.shape == x.shape else x
        raise ValueError(
            f"the function is not finite at {len(bad)} of {len(x)} strikes: "
            f"{', '.join(short(value) for value in bad[:3])}; leave these out"
        )
    payoff = from_points(x, y)
    error = _largest_distance(function, payoff, x)
    return Payoff(payoff.cash, payoff.slope, payoff.strikes, payoff.weights, error)


def _largest_distance(
    function: Callable[[Any], Any], payoff: Payoff, strikes: np.ndarray
) -> float:
    """Largest distance between a function and a payoff, between the strikes."""
    share = np.linspace(0.0, 1.0, _SAMPLES + 1)
    spots = strikes[:-1, None] + np.diff(strikes)[:, None] * share
    distance = np.abs(np.asarray(function(spots), float) - payoff(spots))
    peak = np.clip(distance.argmax(axis=1), 1, _SAMPLES - 1)
    left, middle, right = (
        np.take_along_axis(distance, (peak + step)[:, None], axis=1)[:, 0]
        for step in (-1, 0, 1)
    )
    bend = left - 2.0 * middle + right
    rise = np.square(right - left) / np.where(bend < 0.0, -8.0 * bend, np.inf)
    top = middle + np.where(np.abs(right - left) <= -2.0 * bend, rise, 0.0)
    return float(np.fmax(distance.max(), top.max()))


def _as_payoff(value: Payoff | Number) -> Payoff:
    return value if isinstance(value, Payoff) else Payoff(value, 0, _NONE, _NONE)

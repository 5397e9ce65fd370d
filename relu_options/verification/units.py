"""Hidden units: continuous piecewise-linear functions of one number, and rows of them.

Every float is a rational number; `rational` takes arrays of either.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike

from relu_options.payoffs.numbers import Number, as_floats, as_rationals, is_exact


@dataclass(frozen=True)
class HiddenUnit:
    """A continuous piecewise-linear function of one number that is 0 at 0.

    Attributes:
        name: For messages.
        kinks: Where the slope changes: increasing, none below zero.
        slopes: Left of the first kink, between them, and right of the last.

    Examples:
        >>> clipped = hidden_unit("clipped", width=2.0)
        >>> clipped.kinks, clipped.slopes, clipped(np.array([-1.0, 1.0, 3.0]))
        ((0.0, 2.0), (0.0, 1.0, 0.0), array([0., 1., 2.]))
    """

    name: str
    kinks: tuple[Number, ...]
    slopes: tuple[Number, ...]
    offsets: tuple[Fraction, ...] = field(init=False, repr=False)
    """Of each piece: there the function is its slope times the number, plus this."""

    def __post_init__(self) -> None:
        if any(t < 0 for t in self.kinks) or list(self.kinks) != sorted(
            set(self.kinks)
        ):
            raise ValueError(
                f"kinks of a hidden unit increase from zero or above, not {self.kinks}"
            )
        offsets = [Fraction(0)]
        for left, right, kink in zip(
            self.slopes, self.slopes[1:], self.kinks, strict=False
        ):
            offsets.append(
                offsets[-1] + (Fraction(left) - Fraction(right)) * Fraction(kink)
            )
        object.__setattr__(self, "offsets", tuple(offsets))

    def __call__(self, y: ArrayLike) -> np.ndarray:
        """Value at `y`, of any shape, in floating point."""
        y = np.asarray(y, float)
        result = float(self.slopes[0]) * y
        for kink, left, right in zip(
            self.kinks, self.slopes, self.slopes[1:], strict=False
        ):
            result = result + float(right - left) * np.maximum(y - float(kink), 0.0)
        return result

    @property
    def is_linear(self) -> bool:
        """Whether it has no kink."""
        return not self.kinks

    @property
    def is_homogeneous(self) -> bool:
        """Whether a positive factor can be drawn out of it."""
        return all(kink == 0 for kink in self.kinks)


LINEAR = HiddenUnit("linear", (), (1.0,))
RELU = HiddenUnit("relu", (0.0,), (0.0, 1.0))


def hidden_unit(name: str, *, alpha: float = 0.01, width: float = 1.0) -> HiddenUnit:
    """The hidden unit of a name.

    Args:
        name: "relu"; "leaky" or "leaky_relu"; "clipped" or "clipped_relu"; "linear".
        alpha: Slope of the leaky unit below zero, less than 1.
        width: Where the clipped unit ends to rise; positive.

    Returns:
        The unit.

    Raises:
        ValueError: If the unit is not one of these, such as tanh, which has no linear
            regions to enumerate, or its parameter is out of range.

    Examples:
        >>> hidden_unit("leaky", alpha=0.25).slopes
        (0.25, 1.0)
    """
    kind = str(name).removesuffix("_relu")
    if kind == "relu":
        return RELU
    if kind == "linear":
        return LINEAR
    if kind == "leaky":
        if not -np.inf < alpha < 1.0:
            raise ValueError(f"alpha of a leaky unit must be below 1, not {alpha}")
        return HiddenUnit("leaky", (0.0,), (float(alpha), 1.0))
    if kind == "clipped":
        if not 0.0 < width < np.inf:
            raise ValueError(f"width of a clipped unit must be positive, not {width}")
        return HiddenUnit("clipped", (0.0, float(width)), (0.0, 1.0, 0.0))
    raise ValueError(
        f"activation {name!r} is not one that can be verified exactly; these are "
        "'relu', 'leaky' and 'clipped' (smooth ones have no linear regions)"
    )


@dataclass(frozen=True, eq=False)
class HiddenLayer:
    r"""One layer, $h = \varphi(W x + b)$.

    Attributes:
        weights: `W`, of shape `(n, m)`: one row for each of its units.
        biases: `b`, of shape `(n,)`.
        units: Of each row.
    """

    weights: np.ndarray
    biases: np.ndarray
    units: tuple[HiddenUnit, ...]

    def __len__(self) -> int:
        """Number of units."""
        return len(self.units)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Outputs `(..., n)` at inputs `(..., m)`, in floating point."""
        y = x @ as_floats(self.weights).T + as_floats(self.biases)
        columns = [unit(y[..., k]) for k, unit in enumerate(self.units)]
        return np.stack(columns, axis=-1) if columns else y


def rational(array: np.ndarray) -> np.ndarray:
    """Each number as a `Fraction`."""
    return array if is_exact(array) else as_rationals(array)

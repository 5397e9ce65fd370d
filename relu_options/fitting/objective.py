r"""The objective of one expiry: from normalised quotes to output weights.

With kinks at distances `x`, bandwidths `h` and hidden units
$A_{ij} = \varphi_{h_j}(x_j, k_i)$ the weights minimise

$$
\tfrac12 \sum_i \left(\frac{(A w)_i - m_i}{\tau_i}\right)^2
+ \tfrac12 \lambda^2 \left( \|L w\|^2 + \|G w - g\|^2 \right)
+ \rho \sum_i \frac{e_i}{\tau_i}
\quad \text{subject to} \quad
w \ge 0, \; \sum_j w_j = 1, \; \sum_j w_j s_j = f, \;
\text{bid}_i - e_i \le (A w)_i \le \text{ask}_i + e_i .
$$

The tolerance $\tau_i$ of a quote is half of its spread, or of its neighbours' where
that is wider; of a mid alone it is a hundredth of its vega, so that residuals are those
of the total volatility. `L` measures the roughness of the density
(`relu_options.fitting.grid`); the rows `G`, of a surface, lend an expiry the shape of
its neighbours (`relu_options.fitting.lent_shape`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from relu_options.fitting.grid import KinkGrid
from relu_options.fitting.kernels import FitKernel
from relu_options.fitting.lent_shape import LentShape
from relu_options.fitting.quotes import NormalisedQuotes

PENALTY = 1e4  # price of leaving a spread, per half-spread
MARGIN = 1e-3  # how far inside its spread a fitted price is asked to be, half-spreads


@dataclass(frozen=True, eq=False)
class Objective:
    """What the quotes of one expiry ask of the weights at given kinks.

    Attributes:
        quotes: The quotes.
        grid: The kinks.
        unit: Total volatility at the forward.
        design: `A / tau`, of shape `(m, n)`.
        data: `mid / tau`, of shape `(m,)`.
        lent: What neighbours lend; None for none.
    """

    quotes: NormalisedQuotes
    grid: KinkGrid
    unit: float
    design: np.ndarray
    data: np.ndarray
    lent: LentShape | None

    @classmethod
    def of(
        cls,
        quotes: NormalisedQuotes,
        grid: KinkGrid,
        unit: float,
        *,
        lent: LentShape | None = None,
    ) -> Objective:
        """Evaluate the hidden units at the quotes."""
        hidden = quotes.kernel.design(grid.x, grid.bandwidths, quotes.x)
        design = hidden / quotes.tolerance[:, None]
        data = quotes.mid / quotes.tolerance
        return cls(quotes, grid, unit, design, data, lent)

    @property
    def kernel(self) -> FitKernel:
        """The law of the hidden units."""
        return self.quotes.kernel

    def on(self, grid: KinkGrid) -> Objective:
        """The same with another ruler for the same kinks."""
        other = replace(self, grid=grid)
        vars(other)["gram"] = self.gram
        return other

    @cached_property
    def gram(self) -> np.ndarray:
        """`A' A`, of shape `(n, n)`."""
        return self.design.T @ self.design

    @cached_property
    def prior(self) -> np.ndarray:
        """The quadratic form that the square of `lambda` multiplies."""
        rough = self.grid.roughness
        square = rough.T @ rough
        if self.lent is None:
            return square
        return square + self.lent.rows.T @ self.lent.rows

    @cached_property
    def pull(self) -> np.ndarray:
        """Its linear part, of shape `(n,)`."""
        if self.lent is None:
            return np.zeros(len(self.grid.x))
        return -self.lent.data @ self.lent.rows

    @cached_property
    def fit_gradient(self) -> np.ndarray:
        """The linear part of the residuals' square, of shape `(n,)`."""
        return -self.data @ self.design

    @cached_property
    def equality(self) -> np.ndarray:
        """Rows of the identities, `1` and `s - f` in deviations, of shape `(2, n)`.

        In deviations from the forward: a law that is narrow has kinks all near it, and
        a row of them would hardly differ from the row of ones.
        """
        beyond = self.kernel.beyond(self.grid.x)
        return np.stack([np.ones(len(beyond)), beyond / self.unit])

    @property
    def places(self) -> np.ndarray:
        """The kinks, in the unit of the prices."""
        return self.kernel.place(self.grid.x)

    @property
    def beyond(self) -> np.ndarray:
        """How far they are above the forward, as rounded."""
        return self.places - self.kernel.forward

    def penalty(self, weights: np.ndarray) -> float:
        """What the square of `lambda` multiplies, twice."""
        linear = self.prior @ weights + 2.0 * self.pull
        return float(weights @ linear) + self.offset

    @property
    def offset(self) -> float:
        """Its constant part."""
        return 0.0 if self.lent is None else float(self.lent.data @ self.lent.data)

    def hessian(self, smoothing: float) -> np.ndarray:
        """The quadratic form, of shape `(n, n)`."""
        return self.gram + smoothing**2 * self.prior

    def gradient(self, smoothing: float) -> np.ndarray:
        """The linear part, of shape `(n,)`."""
        return self.fit_gradient + smoothing**2 * self.pull

    def constant(self, smoothing: float) -> float:
        """The constant."""
        return 0.5 * float(self.data @ self.data) + 0.5 * smoothing**2 * self.offset

    def residual(self, weights: np.ndarray) -> np.ndarray:
        """`(A w - mid) / tau`, of shape `(m,)`."""
        return self.design @ weights - self.data

    def fitted(self, weights: np.ndarray) -> np.ndarray:
        """Prices fitted to the quotes, of shape `(m,)`."""
        return self.design @ weights * self.quotes.tolerance

    def outside(self, weights: np.ndarray) -> np.ndarray:
        """Which quotes fitted prices are outside of, a mask of shape `(m,)`."""
        return self.quotes.excess(self.fitted(weights)) > 0.0

    def bounds(self, weights: np.ndarray, count: int) -> Bounds:
        """Spreads of the quotes that a solution is nearest to leaving, or outside of.

        The others cannot bind unless the solution says so.
        """
        quotes = self.quotes
        rows = np.flatnonzero(quotes.two_sided)
        centre = self.data[rows]
        half = 0.5 * (quotes.upper - quotes.lower)[rows]
        reach = half / quotes.tolerance[rows] * (1.0 - MARGIN)
        if count < len(rows):
            near = np.abs(self.design[rows] @ weights - centre) - reach
            nearest = np.argpartition(-near, count - 1)[:count]
            rows, centre, reach = rows[nearest], centre[nearest], reach[nearest]
        return Bounds(rows, self.design[rows], centre - reach, centre + reach)


@dataclass(frozen=True, eq=False)
class Bounds:
    """Elastic rows, in half-spreads.

    Attributes:
        quotes: Which quotes they are of, of shape `(b,)`.
        rows: Of shape `(b, n)`.
        lower: Of shape `(b,)`.
        upper: Of shape `(b,)`.
    """

    quotes: np.ndarray
    rows: np.ndarray
    lower: np.ndarray
    upper: np.ndarray

    @classmethod
    def none(cls, n: int) -> Bounds:
        """No rows."""
        return cls(np.zeros(0, int), np.zeros((0, n)), np.zeros(0), np.zeros(0))

    def padded(self, size: int) -> dict[str, np.ndarray]:
        """As a programme takes them; nothing binds the padding."""
        missing = size - len(self.lower)
        nothing = np.zeros((missing, self.rows.shape[1]))
        return {
            "rows": np.concatenate([self.rows, nothing]),
            "lower": np.concatenate([self.lower, np.full(missing, -1.0)]),
            "upper": np.concatenate([self.upper, np.full(missing, 1.0)]),
            "penalty": np.full(size, PENALTY),
        }


def tilted(weights, beyond):
    """Weights times a straight line, so that mass and mean are met up to rounding.

    Args:
        weights: Of shape `(n,)`, nearly of sum one and mean zero.
        beyond: How far each kink is above the forward, of shape `(n,)`.

    Returns:
        Weights of sum one, whose mean is the forward.
    """
    mass, mean, square = weights.sum(), weights @ beyond, weights @ beyond**2
    determinant = mass * square - mean**2
    level = ((1.0 - mass) * square + mean**2) / determinant
    slope = -mean / determinant
    return weights * (1.0 + level + slope * beyond)

"""Seeded mixtures of normal laws, their quotes, and their truth in closed form."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm


@dataclass(frozen=True)
class NormalMixture:
    """An underlying of either sign at expiry.

    Attributes:
        weights: Of shape `(m,)`, with sum one.
        means: Currency units.
        widths: Deviations, in currency units.
    """

    weights: np.ndarray
    means: np.ndarray
    widths: np.ndarray

    @classmethod
    def draw(
        cls, rng: np.random.Generator, forward: float, deviation: float
    ) -> "NormalMixture":
        """One to four normals, of a given mean and about a given deviation."""
        parts = int(rng.choice([1, 2, 3, 4]))
        weights = rng.dirichlet(2.0 * np.ones(parts))
        means = rng.normal(0.0, 0.7 * deviation * (parts > 1), parts)
        widths = deviation * rng.uniform(0.5, 1.3, parts)
        return cls(weights, means - weights @ means + forward, widths)

    @property
    def forward(self) -> float:
        """The mean."""
        return float(self.weights @ self.means)

    @property
    def moments(self) -> np.ndarray:
        """Mean, variance, skewness and kurtosis, of shape `(4,)`."""
        away, square = self.means - self.forward, self.widths**2
        central = [
            self.weights @ (away**2 + square),
            self.weights @ (away**3 + 3.0 * away * square),
            self.weights @ (away**4 + 6.0 * away**2 * square + 3.0 * square**2),
        ]
        scale = central[0] ** 0.5
        shape = central[1] / scale**3, central[2] / scale**4
        return np.array([self.forward, central[0], *shape])

    def price(self, strike: np.ndarray, is_call: np.ndarray | bool) -> np.ndarray:
        """Undiscounted prices."""
        away = np.subtract.outer(self.means, strike)
        signed = np.where(is_call, away, -away)
        d = signed / self.widths[:, None]
        each = signed * norm.cdf(d) + self.widths[:, None] * norm.pdf(d)
        return self.weights @ each

    def below(self, strike: np.ndarray) -> np.ndarray:
        """Probability of finishing at or below a strike."""
        d = np.subtract.outer(self.means, strike) / self.widths[:, None]
        return self.weights @ norm.cdf(-d)

    def density(self, strike: np.ndarray) -> np.ndarray:
        """Of the underlying."""
        d = np.subtract.outer(self.means, strike) / self.widths[:, None]
        return (self.weights / self.widths) @ norm.pdf(d)

    def quotes(
        self,
        strike: np.ndarray,
        *,
        discount_factor: float = 1.0,
        spread: float | None = None,
    ) -> pd.DataFrame:
        """Calls and puts at every strike: mids, or with a spread around them.

        Args:
            strike: Increasing.
            discount_factor: Price today of one unit paid at expiry.
            spread: Half-spread, as a part of the price and of the law's deviation.
        """
        tables = []
        for kind in ("call", "put"):
            mid = discount_factor * self.price(strike, kind == "call")
            table = pd.DataFrame({"strike": strike, "option_type": kind})
            if spread is None:
                tables.append(table.assign(mid=mid))
                continue
            half = spread * (mid + 0.02 * self.moments[1] ** 0.5)
            tables.append(table.assign(bid=np.maximum(mid - half, 0.0), ask=mid + half))
        return pd.concat(tables, ignore_index=True)

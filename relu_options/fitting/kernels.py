r"""The two laws that a hidden unit may have: lognormal, and normal.

A fit sees strikes and kinks as distances `x` from the forward, and total volatilities
in their unit. All that depends on the law stands here:

| | lognormal | normal |
|---|---|---|
| distance `x` of a strike | $\log(K / F)$ | $(K - F) / u$ |
| prices are in units of | $D F$ | $D u$ |
| kink beyond the forward, in that unit | $e^x - 1$ | $x$ |

The normal law is for what may be negative: rates, spreads, and oil in April 2020. Its
unit `u` is the distance of the farthest strike from the forward; nothing depends on it
but rounding, so that a constant added to forward and strikes changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from relu_options.formulas import bachelier, black_scholes
from relu_options.formulas.elementwise import elementwise
from relu_options.formulas.laws import Law

if TYPE_CHECKING:
    from relu_options.market_data import ExpiryQuotes

LEAST_VEGA = 1e-6  # where a volatility is not known, or tells no price


@dataclass(frozen=True)
class FitKernel:
    """A law of hidden units, on NumPy arrays that broadcast.

    Attributes:
        network: What `PriceNetwork` calls it.
        place: The kink, or strike, at distance `x`, in the unit of prices.
        forward: The forward in that unit.
        price: Of hidden units `(place, strike, total volatility, is_call)`.
        implied: Total volatility, `(price, forward, strike, is_call)`.
        drift: Of the logarithm: half of the squared total volatility, times this.
    """

    network: Literal["black", "bachelier"]
    place: Callable[[np.ndarray], np.ndarray]
    forward: float
    price: Callable[..., np.ndarray]
    implied: Callable[..., np.ndarray]
    drift: float

    def distance(self, strike: np.ndarray, quotes: ExpiryQuotes) -> np.ndarray:
        """`x` of strikes in currency."""
        if self.network == "black":
            return np.log(strike / quotes.forward)
        return (strike - quotes.forward) / quotes.unit

    def currency(self, places: np.ndarray, quotes: ExpiryQuotes) -> np.ndarray:
        """Places in currency, for the quotes whose unit they are in."""
        moved = quotes.unit * places
        return moved if self.network == "black" else quotes.forward + moved

    def width(self, quotes: ExpiryQuotes) -> float:
        """What total volatilities are in units of, in currency."""
        return 1.0 if self.network == "black" else quotes.unit

    def beyond(self, x: np.ndarray) -> np.ndarray:
        """How far a kink is above the forward, exactly, in the unit of prices."""
        return np.expm1(x) if self.network == "black" else x

    def design(self, x: np.ndarray, bandwidths: np.ndarray, at: np.ndarray):
        """Prices of hidden units at distances `at`, out of the money, `(m, n)`."""
        strike, is_call = self.place(at)[:, None], at[:, None] >= 0.0
        return self.price(self.place(x), strike, bandwidths, is_call)

    def vega(self, x: np.ndarray, total_volatility: np.ndarray) -> np.ndarray:
        """Derivative of a price by its total volatility, nowhere zero."""
        with np.errstate(divide="ignore", invalid="ignore"):
            d = x / total_volatility - 0.5 * self.drift * total_volatility
            return np.fmax(np.exp(-0.5 * d * d) / np.sqrt(2.0 * np.pi), LEAST_VEGA)


LOGNORMAL = FitKernel(
    network="black",
    place=np.exp,
    forward=1.0,
    price=elementwise(black_scholes.undiscounted_price),
    implied=elementwise(black_scholes.implied_total_volatility),
    drift=1.0,
)
NORMAL = FitKernel(
    network="bachelier",
    place=np.asarray,
    forward=0.0,
    price=elementwise(bachelier.undiscounted_price),
    implied=elementwise(bachelier.implied_total_volatility),
    drift=0.0,
)
KERNELS: dict[Law, FitKernel] = {"lognormal": LOGNORMAL, "normal": NORMAL}
"""By the law of the quotes."""

r"""Hidden units of a network, each with the option that it is.

A unit takes the spot $s$ and a strike $K$, and its output is in currency. Where it is
written with one argument elsewhere, that is $s - K$ with the parameter set to one.

| unit | formula, $x = (s - K) / h$ | option | law |
|---|---|---|---|
| `relu` | $\max(s - K, 0)$ | call at expiry | certain |
| `leaky_relu` | $\max(s - K, 0) - \alpha \max(K - s, 0)$ | call, short puts | |
| `clipped_relu` | $\min(\max(s - K, 0), w)$ | call spread, $K$ to $K + w$ | |
| `bachelier` | $h\,(x N(x) + n(x))$ | call before expiry | normal |
| `black` | $s N(d_+) - K N(d_-)$ | call before expiry | lognormal |
| `softplus` | $h \log(1 + e^x)$ | call before expiry | logistic |
| `gelu` | $h\,x N(x)$ | none: it admits an arbitrage | |

The law is that of the underlying, with mean $s$, under which the unit is the price of a
call; where none is named there is none.

A unit is the price of a call, $E \max(X - K, 0)$ with $E X = s$, if and only if it is
convex in the strike, with a slope from -1 to 0, and vanishes at high strikes; the
density of the law is then its second derivative in the strike. The leaky and the
clipped unit are portfolios of options and not the price of one: the first does not
vanish at high strikes, and the second is not convex.

GELU is offered for networks that were trained with it. Its second derivative,
$n(x) (2 - x^2) / h$, is negative beyond $|x| = \sqrt{2}$, so that butterflies there
would have a negative price. `bachelier` is GELU plus the term $h\,n(x)$ that it lacks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtr
from jax.typing import ArrayLike

from relu_options.formulas import bachelier as normal_model
from relu_options.formulas import black_scholes


@dataclass(frozen=True)
class Activation:
    """A hidden unit: a function of spot, strike and its own parameter.

    Attributes:
        name: As in the table of this module.
        option: The option or portfolio that it is the price or the payoff of.
        law: Of the underlying, under which it is the price of a call; None if there is
            no such law.
        parameter: Name and meaning of its parameter, if it has one.

    Examples:
        >>> float(relu(105.0, 100.0)), float(clipped_relu(130.0, 100.0, width=10.0))
        (5.0, 10.0)
        >>> black.law, gelu.is_call_price
        ('lognormal', False)
    """

    name: str
    option: str
    law: str | None
    parameter: str | None
    _function: Callable[..., jax.Array] = field(repr=False)

    def __call__(
        self, spot: ArrayLike, strike: ArrayLike = 0.0, **parameter: ArrayLike
    ) -> jax.Array:
        """Output of the unit, in currency; arguments broadcast.

        Args:
            spot: Currency units.
            strike: Currency units.
            **parameter: See `parameter`; its default, if it has one, is in the table.
        """
        return self._function(
            jnp.asarray(spot, float), jnp.asarray(strike, float), **parameter
        )

    @property
    def is_call_price(self) -> bool:
        """Whether it is the price of a call under some law of the underlying."""
        return self.law is not None


def _relu(spot, strike):
    return jax.nn.relu(spot - strike)


def _leaky_relu(spot, strike, alpha=0.01):
    return jax.nn.relu(spot - strike) - alpha * jax.nn.relu(strike - spot)


def _clipped_relu(spot, strike, width=1.0):
    return jnp.clip(spot - strike, 0.0, width)


def _bachelier(spot, strike, bandwidth=1.0):
    return normal_model.undiscounted_price(spot, strike, bandwidth, True)


def _black(spot, strike, total_volatility):
    return black_scholes.undiscounted_price(spot, strike, total_volatility, True)


def _softplus(spot, strike, bandwidth=1.0):
    return bandwidth * jax.nn.softplus((spot - strike) / bandwidth)


def _gelu(spot, strike, bandwidth=1.0):
    return (spot - strike) * ndtr((spot - strike) / bandwidth)


relu = Activation("relu", "a call at expiry", "certain", None, _relu)
leaky_relu = Activation(
    "leaky_relu",
    "a call and alpha short puts: a participation, or ratio risk reversal",
    None,
    "alpha: the slope below the strike, 0.01 by default",
    _leaky_relu,
)
clipped_relu = Activation(
    "clipped_relu",
    "a call spread: two hinges, of weights +1 and -1",
    None,
    "width: between its two strikes, in currency units, 1 by default",
    _clipped_relu,
)
bachelier = Activation(
    "bachelier",
    "a call with a normal volatility",
    "normal",
    "bandwidth: the standard deviation, in currency units, 1 by default",
    _bachelier,
)
black = Activation(
    "black",
    "a call with a lognormal volatility",
    "lognormal",
    "total_volatility: the standard deviation of the logarithm",
    _black,
)
softplus = Activation(
    "softplus",
    "a call under a logistic law",
    "logistic",
    "bandwidth: the scale of the law, in currency units, 1 by default",
    _softplus,
)
gelu = Activation(
    "gelu",
    "none: beyond sqrt(2) bandwidths from the strike its butterflies cost less than 0",
    None,
    "bandwidth: in currency units, 1 by default",
    _gelu,
)

ACTIVATIONS = {
    unit.name: unit
    for unit in (relu, leaky_relu, clipped_relu, bachelier, black, softplus, gelu)
}
"""All hidden units by name."""

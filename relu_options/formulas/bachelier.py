r"""Bachelier prices, Greeks and implied volatilities: the normal model.

The underlying is normal at expiry, so that forward and strike may be of either sign:
spreads, interest rates, and commodities whose price has been below zero. An option is
worth

$$
P = D\, \sigma \sqrt{T} \left(n(d) \pm d N(\pm d)\right), \qquad
d = \frac{F - K}{\sigma \sqrt{T}}.
$$

The formulas of both models, and the conventions, stand in `formulas.option_model`.
`undiscounted_price` and `implied_total_volatility` are the two kernels behind the rest,
functions of JAX arrays only, for use in compiled code.
"""

import jax.numpy as jnp

from relu_options.formulas import lognormal, normal
from relu_options.formulas.elementwise import ArrayLike, Numeric, elementwise
from relu_options.formulas.fusible import square_root
from relu_options.formulas.normal import (
    implied_total_volatility,
    undiscounted_price,
)
from relu_options.formulas.option_model import (
    Greeks,
    MarketArguments,
    OptionModel,
    QuoteStatus,
    root_of_time,
    short_signature,
)

__all__ = [
    "Greeks",
    "MarketArguments",
    "QuoteStatus",
    "charm",
    "delta",
    "density",
    "digital_price",
    "distribution",
    "gamma",
    "greeks",
    "implied_normal_volatility",
    "implied_total_volatility",
    "lognormal_from_normal_volatility",
    "normal_from_lognormal_volatility",
    "price",
    "rho",
    "strike_delta",
    "strike_from_delta",
    "theta",
    "undiscounted_price",
    "vanna",
    "vega",
    "volga",
]

model = OptionModel("bachelier", normal)

price = model.price
implied_normal_volatility = model.implied_volatility
delta = model.delta
gamma = model.gamma
vega = model.vega
theta = model.theta
rho = model.rho
vanna = model.vanna
volga = model.volga
charm = model.charm
greeks = model.greeks
strike_delta = model.strike_delta
digital_price = model.digital_price
distribution = model.distribution
density = model.density
strike_from_delta = model.strike_from_delta


@short_signature
def normal_from_lognormal_volatility(
    *,
    volatility: ArrayLike,
    forward: ArrayLike,
    strike: ArrayLike,
    time_to_expiry: ArrayLike,
) -> Numeric:
    """Normal volatility at which Bachelier and Black-Scholes prices are the same.

    Args:
        volatility: Annualised lognormal volatility, 0.2 meaning 20%.
        forward: Forward price, in currency units; positive.
        strike: Strike, in currency units; positive.
        time_to_expiry: Time to expiry, in years; positive.

    Returns:
        Normal volatility, in currency units per square root of a year; zero where the
        out-of-the-money price is below 1e-300.

    Examples:
        Near the money it is about volatility times forward.

        >>> round(normal_from_lognormal_volatility(
        ...     volatility=0.2, forward=100.0, strike=100.0, time_to_expiry=0.5), 4)
        19.9833
    """
    return _normal_from_lognormal(volatility, forward, strike, time_to_expiry)


@short_signature
def lognormal_from_normal_volatility(
    *,
    volatility: ArrayLike,
    forward: ArrayLike,
    strike: ArrayLike,
    time_to_expiry: ArrayLike,
) -> Numeric:
    """Lognormal volatility at which Black-Scholes and Bachelier prices are the same.

    Args:
        volatility: Normal volatility, in currency units per square root of a year.
        forward: Forward price, in currency units; positive.
        strike: Strike, in currency units; positive.
        time_to_expiry: Time to expiry, in years; positive.

    Returns:
        Annualised lognormal volatility, 0.2 meaning 20%; NaN where the normal price is
        above what the lognormal model can explain, and zero where it is below 1e-300.

    Examples:
        >>> normal = dict(forward=100.0, strike=110.0, time_to_expiry=0.5)
        >>> volatility = normal_from_lognormal_volatility(volatility=0.2, **normal)
        >>> round(lognormal_from_normal_volatility(volatility=volatility, **normal), 12)
        0.2
    """
    return _lognormal_from_normal(volatility, forward, strike, time_to_expiry)


def _of_other_model(source, target):
    """Volatility in the `target` model of an out-of-the-money price in `source`."""

    def formula(volatility, forward, strike, time_to_expiry):
        root = root_of_time(time_to_expiry)
        option = forward, strike
        is_call = strike >= forward
        price = source.undiscounted_price(*option, volatility * root, is_call)
        v = target.implied_total_volatility(price, *option, is_call)
        started = time_to_expiry > 0.0
        return jnp.where(
            started, v / square_root(jnp.where(started, time_to_expiry, 1.0)), jnp.nan
        )

    return elementwise(formula)


_normal_from_lognormal = _of_other_model(lognormal, normal)
_lognormal_from_normal = _of_other_model(normal, lognormal)

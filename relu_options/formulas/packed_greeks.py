"""Price and all Greeks from one pass over the option's geometry, two to a number.

XLA computes one array per loop, and repeats for each what several arrays share. A
complex number holds two reals at no further cost, so price and Greeks come in pairs,
and each pair repeats only the logarithm and the exponential that it needs. Measured,
all of them then cost three times a price, against eight times with a formula each.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from relu_options.formulas.constants import INVERSE_ROOT_TWO_PI
from relu_options.formulas.fusible import reciprocal, square_root
from relu_options.formulas.log_ratio import positive_log_ratio
from relu_options.formulas.lognormal import (
    normalise,
    scaled_moneyness,
    slopes,
    tails,
)
from relu_options.formulas.option_model import Greeks


class PackedGreeks(NamedTuple):
    """Complex arrays: the real part is the first name, the imaginary the second.

    `rate_slope` is the derivative in the rate over the time to expiry. It is None in
    the forward form, where it is the price, negative.
    """

    price_delta: jax.Array
    gamma_vega: jax.Array
    theta_charm: jax.Array
    vanna_volga: jax.Array
    rate_slope: jax.Array | None


def unpack(packed: PackedGreeks, time_to_expiry: np.ndarray) -> Greeks:
    """The real arrays, from those of a `PackedGreeks` in NumPy."""
    price_delta, gamma_vega, theta_charm, vanna_volga, rate_slope = packed
    price = price_delta.real
    return Greeks(
        price=price,
        delta=price_delta.imag,
        gamma=gamma_vega.real,
        vega=gamma_vega.imag,
        theta=theta_charm.real,
        rho=time_to_expiry * (-price if rate_slope is None else rate_slope),
        vanna=vanna_volga.real,
        volga=vanna_volga.imag,
        charm=theta_charm.imag,
    )


def packed_greeks(
    market: Any, time_to_expiry, strike, volatility, is_call
) -> PackedGreeks:
    """Price and Greeks of options whose numbers are all positive and finite.

    The price of any other option is NaN, and its Greeks mean nothing.
    """
    forward, discount_factor, growth = market[:3]
    root = square_root(time_to_expiry)
    v = volatility * root
    sides = normalise(forward, strike, is_call)
    k = positive_log_ratio(sides.higher, sides.lower)
    h, inverse = scaled_moneyness(k, v)
    t = 0.5 * v
    depth = h - t
    above = forward > strike
    d1 = jnp.where(above, h + t, -depth)
    d2 = jnp.where(above, depth, -(h + t))

    probabilities = tails(sides, h, t)
    intrinsic = jnp.where(sides.in_the_money, sides.gap, 0.0)
    regular = (sides.lower > 0.0) & (sides.higher < jnp.inf)
    regular &= (v > 0.0) & (v < jnp.inf)
    undiscounted = sides.lower * probabilities.share + intrinsic
    price = discount_factor * jnp.where(regular, undiscounted, jnp.nan)
    forward_delta, strike_delta = (
        discount_factor * slope for slope in slopes(probabilities, above, is_call)
    )

    vega = discount_factor * sides.lower * (INVERSE_ROOT_TWO_PI * probabilities.density)
    per_volatility = vega * inverse
    inverse_forward = reciprocal(forward)
    theta = -0.5 * vega * volatility * reciprocal(root)
    charm = 0.5 * vega * d2 * inverse_forward * reciprocal(time_to_expiry)
    rate_slope = None
    if market.from_spot:
        theta += market.rate * price - market.carry * forward * forward_delta
        charm -= market.carry * per_volatility * inverse_forward
        charm -= (market.carry - market.rate) * forward_delta
        rate_slope = -strike * strike_delta
    return PackedGreeks(
        lax.complex(price, growth * forward_delta),
        lax.complex(
            per_volatility * reciprocal(forward * forward) * growth * growth,
            vega * root,
        ),
        lax.complex(theta, growth * charm),
        lax.complex(
            -growth * root * per_volatility * d2 * inverse_forward,
            time_to_expiry * per_volatility * d1 * d2,
        ),
        rate_slope,
    )

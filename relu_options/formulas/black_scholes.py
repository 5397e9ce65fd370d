r"""Black-Scholes prices, Greeks and implied volatilities, to the last digits.

The lognormal model, for an option on a forward (Black 1976),

$$
P = D \left(\pm F N(\pm d_1) \mp K N(\pm d_2)\right), \qquad
d_{1,2} = \frac{\log(F / K)}{v} \pm \frac{v}{2}, \quad v = \sigma \sqrt{T}.
$$

The formulas of both models, and the conventions, stand in `formulas.option_model`.
`undiscounted_price` and `implied_total_volatility` are the two kernels behind the rest,
functions of JAX arrays only, for use in compiled code.
"""

import numpy as np

from relu_options.formulas import lognormal
from relu_options.formulas.elementwise import ArrayLike, Numeric, Shortcut, elementwise
from relu_options.formulas.log_ratio import log_ratio
from relu_options.formulas.lognormal import (
    implied_total_volatility,
    undiscounted_price,
)
from relu_options.formulas.option_model import (
    Greeks,
    MarketArguments,
    OptionModel,
    QuoteStatus,
    annualised,
    short_signature,
)
from relu_options.formulas.packed_greeks import packed_greeks, unpack

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
    "implied_total_volatility",
    "implied_volatility",
    "log_moneyness",
    "price",
    "rho",
    "strike_delta",
    "strike_from_delta",
    "theta",
    "total_variance",
    "undiscounted_price",
    "vanna",
    "vega",
    "volga",
]


def _one_step_volatility(market, time_to_expiry, price, strike, is_call):
    """Implied volatility, negative where it may need another step."""
    v = lognormal.one_step_total_volatility(
        price / market.discount_factor, market.forward, strike, is_call
    )
    return annualised(v, market, time_to_expiry)


model = OptionModel(
    "black_scholes",
    lognormal,
    faster_volatility=Shortcut(
        kernel=_one_step_volatility,
        unpack=lambda volatility, _: volatility,
        unfinished=lambda volatility: volatility < 0.0,
    ),
    faster_greeks=Shortcut(
        kernel=packed_greeks,
        unpack=lambda packed, table: unpack(packed, time_to_expiry=table[0]),
        unfinished=lambda result: np.isnan(result.price),
    ),
)

price = model.price
implied_volatility = model.implied_volatility
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
def log_moneyness(*, forward: ArrayLike, strike: ArrayLike) -> Numeric:
    """log(strike / forward), accurate relative to itself also near the money.

    Positive where calls are out of the money.

    Examples:
        >>> print(f"{log_moneyness(forward=100.0, strike=100.00000000000001):.6e}")
        1.421085e-16
    """
    return _log_moneyness(forward, strike)


@short_signature
def total_variance(*, volatility: ArrayLike, time_to_expiry: ArrayLike) -> Numeric:
    """Volatility squared times time to expiry, without unit.

    Examples:
        >>> round(total_variance(volatility=0.2, time_to_expiry=0.5), 12)
        0.02
    """
    return _total_variance(volatility, time_to_expiry)


@elementwise
def _log_moneyness(forward, strike):
    return log_ratio(strike, forward)


@elementwise
def _total_variance(volatility, time_to_expiry):
    return volatility * volatility * time_to_expiry

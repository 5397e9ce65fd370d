"""Prices and Greeks of discounted options, from the kernels of a model.

A kernel knows forward, strike and total volatility. Here they meet a market, in either
of its forms, and time. Each formula takes the model (a module of kernels), the market,
time to expiry, strike or what is given in its place, volatility and the option's type.
"""

import functools
from collections.abc import Callable
from difflib import get_close_matches
from types import ModuleType
from typing import NamedTuple, TypedDict

import jax
import jax.numpy as jnp

from relu_options._formulas.elementwise import (
    ArrayLike,
    Numeric,
    Shortcut,
    boolean,
    elementwise,
)
from relu_options._formulas.fusible import exponential, over, square_root
from relu_options.quote_status import QuoteStatus


class MarketArguments(TypedDict, total=False):
    """The keyword arguments that state the market, in one of two forms.

    Attributes:
        forward: Forward price of the underlying at expiry, in currency units.
        discount_factor: Price today of one unit of currency paid at expiry; with
            `forward`, and 1 unless given.
        spot: Price of the underlying today, in currency units; instead of `forward`.
        rate: Continuous interest rate per year; with `spot`, and 0 unless given.
        dividend_yield: Continuous dividend yield per year; with `spot`, and 0 unless
            given.

    Examples:
        Both forms, of one market.

        >>> import math
        >>> from relu_options import black_scholes
        >>> on_spot = MarketArguments(spot=98.0, rate=0.03, dividend_yield=0.01)
        >>> on_forward = MarketArguments(forward=98.0 * math.exp(0.02 * 0.5),
        ...                              discount_factor=math.exp(-0.03 * 0.5))
        >>> option = dict(strike=100.0, time_to_expiry=0.5, volatility=0.2)
        >>> round(black_scholes.price(**option, **on_spot), 6)
        5.039448
        >>> round(black_scholes.price(**option, **on_forward), 6)
        5.039448
    """

    forward: ArrayLike
    discount_factor: ArrayLike
    spot: ArrayLike
    rate: ArrayLike
    dividend_yield: ArrayLike


class Greeks(NamedTuple):
    """Price and derivatives of an option, named and signed as the functions are.

    Examples:
        >>> from relu_options import black_scholes
        >>> greeks = black_scholes.greeks(forward=100.0, strike=100.0, volatility=0.2,
        ...                               time_to_expiry=0.25)
        >>> round(greeks.price, 4), round(greeks.delta, 4)
        (3.9878, 0.5199)
    """

    price: Numeric
    delta: Numeric
    gamma: Numeric
    vega: Numeric
    theta: Numeric
    rho: Numeric
    vanna: Numeric
    volga: Numeric
    charm: Numeric


# The forms of a market


class Market(NamedTuple):
    """The forward, and how it and the discount factor move with time and rate.

    Attributes:
        forward: Forward price.
        discount_factor: Price today of one unit of currency paid at expiry.
        growth: Forward over the price that delta refers to.
        rate: Rate at which the discount factor falls with time to expiry.
        carry: Rate at which the forward grows with time to expiry.
        from_spot: Whether the forward is a spot price grown at the carry rate; if not,
            carry and rate are zero.
    """

    forward: jax.Array
    discount_factor: jax.Array
    growth: jax.Array | float
    rate: jax.Array | float
    carry: jax.Array | float
    from_spot: bool


def _forward_market(time_to_expiry, forward, discount_factor) -> Market:
    return Market(forward, discount_factor, 1.0, 0.0, 0.0, False)


def _spot_market(time_to_expiry, spot, rate, dividend_yield) -> Market:
    carry = rate - dividend_yield
    growth = exponential(carry * time_to_expiry)
    discount_factor = exponential(-rate * time_to_expiry)
    return Market(spot * growth, discount_factor, growth, rate, carry, True)


def _market_in_use(
    *,
    forward=None,
    discount_factor=None,
    spot=None,
    rate=None,
    dividend_yield=None,
    **unknown,
) -> tuple[Callable[..., Market], tuple]:
    """The form of the market in use, and its numbers with the defaults filled in."""
    if unknown:
        name = next(iter(unknown))
        known = list(MarketArguments.__annotations__)
        usual = {"r": "rate", "q": "dividend_yield", "s": "spot", "f": "forward"}
        near = [usual.get(name.lower()), *get_close_matches(name, known, 1, 0.5)]
        meant = next((f"; did you mean `{one}`?" for one in near if one), "")
        shown = ", ".join(f"`{one}`" for one in known)
        raise TypeError(f"the market takes {shown}, not `{name}`{meant}")
    if (forward is None) == (spot is None):
        raise ValueError(
            "pass either `forward` (with `discount_factor`) or `spot` (with `rate` and "
            f"`dividend_yield`); got {'neither' if forward is None else 'both'}"
        )
    if spot is None:
        if rate is not None or dividend_yield is not None:
            raise ValueError(
                "`rate` and `dividend_yield` go with `spot`; with `forward`, pass "
                "`discount_factor`"
            )
        return _forward_market, (
            forward,
            1.0 if discount_factor is None else discount_factor,
        )
    if discount_factor is not None:
        raise ValueError("`discount_factor` goes with `forward`; with `spot`, `rate`")
    return _spot_market, (
        spot,
        0.0 if rate is None else rate,
        0.0 if dividend_yield is None else dividend_yield,
    )


@functools.cache
def _compiled(
    formula: Callable,
    model: ModuleType,
    market: Callable[..., Market],
    shortcut: Shortcut | None,
) -> Callable:
    """`formula` of `model`, with the market built from its numbers in the kernel."""
    count = 2 if market is _forward_market else 3

    def with_market(formula: Callable) -> Callable:
        def kernel(time_to_expiry, *arguments):
            built = market(time_to_expiry, *arguments[:count])
            return formula(model, built, time_to_expiry, *arguments[count:])

        return kernel

    if shortcut is not None:
        shortcut = shortcut._replace(kernel=with_market(shortcut.kernel))
    return elementwise(with_market(formula), shortcut)


def evaluate(
    formula: Callable,
    model: ModuleType,
    time_to_expiry,
    *rest,
    is_call,
    shortcut: Shortcut | None = None,
    **market,
) -> Numeric:
    """Evaluate `formula(model, market, time_to_expiry, *rest, is_call)` of anything."""
    form, numbers = _market_in_use(**market)
    return _compiled(formula, model, form, shortcut)(
        time_to_expiry, *numbers, *rest, boolean(is_call, name="is_call")
    )


def evaluate_with_status(
    formula: Callable,
    model: ModuleType,
    *arguments,
    is_call,
    shortcut: Shortcut | None = None,
    **market,
) -> tuple[Numeric, Numeric]:
    """`evaluate`, and beside it the `QuoteStatus` of each price."""
    value = evaluate(
        formula, model, *arguments, is_call=is_call, shortcut=shortcut, **market
    )
    status = evaluate(quote_status, model, *arguments, is_call=is_call, **market)
    return value, QuoteStatus(status) if isinstance(status, int) else status


# Formulas


@jax.custom_jvp
def root_of_time(time_to_expiry):
    """Square root, with derivative zero at expiry, where prices no longer change."""
    return square_root(time_to_expiry)


@root_of_time.defjvp
def _(primals, tangents):
    root = root_of_time(*primals)
    started = root > 0.0
    slope = jnp.where(started, 0.5 / jnp.where(started, root, 1.0), 0.0)
    return root, slope * tangents[0]


def price(model, market, time_to_expiry, strike, volatility, is_call):
    """Discounted price."""
    v = volatility * root_of_time(time_to_expiry)
    return market.discount_factor * model.undiscounted_price(
        market.forward, strike, v, is_call
    )


def implied_volatility(model, market, time_to_expiry, price, strike, is_call):
    """Volatility per square root of a year."""
    v = model.implied_total_volatility(
        price / market.discount_factor, market.forward, strike, is_call
    )
    return annualised(v, market, time_to_expiry)


def annualised(v, market, time_to_expiry):
    """Total volatility over the root of time; NaN where time or discounting is none."""
    valid = (time_to_expiry > 0.0) & (time_to_expiry < jnp.inf)
    valid &= (market.discount_factor > 0.0) & (market.discount_factor < jnp.inf)
    root = square_root(jnp.where(valid, time_to_expiry, 1.0))
    return jnp.where(valid, v / root, jnp.nan)


def quote_status(model, market, time_to_expiry, price, strike, is_call):
    """The `QuoteStatus` of a price."""
    undiscounted = price / market.discount_factor
    time_value, complement, defined = model.distances_to_bounds(
        undiscounted, market.forward, strike, is_call
    )
    status = jnp.where(
        time_value == 0.0, QuoteStatus.ZERO_TIME_VALUE, QuoteStatus.FOUND
    )
    status = jnp.where(complement <= 0.0, QuoteStatus.TOO_HIGH, status)
    status = jnp.where(time_value < 0.0, QuoteStatus.TOO_LOW, status)
    defined &= (time_to_expiry > 0.0) & (time_to_expiry < jnp.inf)
    defined &= (market.discount_factor > 0.0) & (market.discount_factor < jnp.inf)
    return jnp.where(defined, status, QuoteStatus.UNDEFINED)


def delta(model, market, time_to_expiry, strike, volatility, is_call):
    """Derivative in spot or forward."""
    v = volatility * root_of_time(time_to_expiry)
    undiscounted = model.forward_delta(market.forward, strike, v, is_call)
    return market.discount_factor * market.growth * undiscounted


def gamma(model, market, time_to_expiry, strike, volatility, is_call):
    """Second derivative in spot or forward."""
    v = volatility * root_of_time(time_to_expiry)
    undiscounted = model.gamma(market.forward, strike, v)
    return market.discount_factor * market.growth * market.growth * undiscounted


def vega(model, market, time_to_expiry, strike, volatility, is_call):
    """Derivative in volatility."""
    root = root_of_time(time_to_expiry)
    undiscounted = model.vega(market.forward, strike, volatility * root)
    return market.discount_factor * root * undiscounted


def theta(model, market, time_to_expiry, strike, volatility, is_call):
    """Minus the derivative in time to expiry."""
    root = root_of_time(time_to_expiry)
    option = market.forward, strike, volatility * root
    change = -over(0.5 * volatility * model.vega(*option), root)
    if market.from_spot:
        change += market.rate * model.undiscounted_price(*option, is_call)
        slope = model.forward_delta(*option, is_call)
        change -= market.carry * market.forward * slope
    return market.discount_factor * change


def rho(model, market, time_to_expiry, strike, volatility, is_call):
    """Derivative in the rate, which the forward follows in the spot form only."""
    option = market.forward, strike, volatility * root_of_time(time_to_expiry), is_call
    change = -model.undiscounted_price(*option)
    if market.from_spot:
        change = model.rate_sensitivity(*option)
    return time_to_expiry * market.discount_factor * change


def vanna(model, market, time_to_expiry, strike, volatility, is_call):
    """Derivative in spot or forward and in volatility."""
    root = root_of_time(time_to_expiry)
    undiscounted = model.vanna(market.forward, strike, volatility * root)
    return market.discount_factor * market.growth * root * undiscounted


def volga(model, market, time_to_expiry, strike, volatility, is_call):
    """Second derivative in volatility."""
    v = volatility * root_of_time(time_to_expiry)
    undiscounted = model.volga(market.forward, strike, v)
    return market.discount_factor * time_to_expiry * undiscounted


def charm(model, market, time_to_expiry, strike, volatility, is_call):
    """Minus the derivative of delta in time to expiry."""
    v = volatility * root_of_time(time_to_expiry)
    option = market.forward, strike, v
    change = over(0.5 * v * model.vanna(*option), time_to_expiry)
    if market.from_spot:
        change += market.carry * market.forward * model.gamma(*option)
        slope = model.forward_delta(*option, is_call)
        change += (market.carry - market.rate) * slope
    return -market.discount_factor * market.growth * change


def greeks(*arguments) -> Greeks:
    """Price and all Greeks."""
    formulas = price, delta, gamma, vega, theta, rho, vanna, volga, charm
    return Greeks(*(formula(*arguments) for formula in formulas))


def strike_delta(model, market, time_to_expiry, strike, volatility, is_call):
    """Derivative in the strike."""
    v = volatility * root_of_time(time_to_expiry)
    undiscounted = model.strike_delta(market.forward, strike, v, is_call)
    return market.discount_factor * undiscounted


def digital_price(*arguments):
    """Price of one unit of currency paid in the money."""
    return jnp.abs(strike_delta(*arguments))


def distribution(model, market, time_to_expiry, strike, volatility, is_call):
    """Probability of finishing below the strike."""
    v = volatility * root_of_time(time_to_expiry)
    return model.strike_delta(market.forward, strike, v, jnp.zeros_like(is_call))


def density(model, market, time_to_expiry, strike, volatility, is_call):
    """Probability density at the strike."""
    v = volatility * root_of_time(time_to_expiry)
    return model.density(market.forward, strike, v)


def strike_from_delta(model, market, time_to_expiry, delta, volatility, is_call):
    """Strike of an option of given delta."""
    v = volatility * root_of_time(time_to_expiry)
    sign = jnp.where(is_call, 1.0, -1.0)
    probability = sign * delta / (market.discount_factor * market.growth)
    d1 = sign * jax.scipy.special.ndtri(probability)
    return model.strike_from_deviation(market.forward, d1, v)

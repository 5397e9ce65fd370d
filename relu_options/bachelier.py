r"""Bachelier prices, Greeks and implied volatilities: the normal model.

The underlying is normal at expiry, so that forward and strike may be of either sign:
spreads, interest rates, and commodities whose price has been below zero. An option is
worth

$$
P = D\, \sigma \sqrt{T} \left(n(d) \pm d N(\pm d)\right), \qquad
d = \frac{F - K}{\sigma \sqrt{T}},
$$

with forward $F$, strike $K$, discount factor $D$, time to expiry $T$ and normal
volatility $\sigma$, in currency units per square root of a year. Conventions are those
of `relu_options.black_scholes`: the market in forward or spot form, Greeks as plain
partial derivatives, floats for numbers and arrays for arrays, exact derivatives.

`undiscounted_price` and `implied_total_volatility` are the two kernels behind the rest,
functions of JAX arrays only, for use in compiled code.
"""

from typing import Unpack

import jax.numpy as jnp

from relu_options._formulas import discounted as formulas
from relu_options._formulas import lognormal_kernels as lognormal_kernels
from relu_options._formulas import normal_kernels as kernels
from relu_options._formulas.discounted import Greeks, MarketArguments
from relu_options._formulas.elementwise import ArrayLike, Numeric, elementwise
from relu_options._formulas.fusible import square_root
from relu_options._formulas.normal_kernels import (
    implied_total_volatility,
    undiscounted_price,
)
from relu_options.quote_status import QuoteStatus

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


# Prices and volatilities


def price(
    *,
    strike: ArrayLike,
    time_to_expiry: ArrayLike,
    volatility: ArrayLike,
    is_call: ArrayLike = True,
    **market: Unpack[MarketArguments],
) -> Numeric:
    """Price of a European call or put on a normal underlying.

    Args:
        strike: Strike, in currency units, of either sign.
        time_to_expiry: Time to expiry, in years.
        volatility: Normal volatility, in currency units per square root of a year.
        is_call: True for calls, False for puts.
        **market: `forward` and `discount_factor`, or `spot`, `rate` and
            `dividend_yield`; see `MarketArguments`.

    Returns:
        Price in currency units paid today, with relative accuracy also far out of the
        money. Exactly the discounted intrinsic value at zero volatility or zero time,
        infinite at infinite volatility; NaN where an argument is NaN, or volatility or
        time is negative.

    Raises:
        ValueError: If neither or both forms of the market are given, or `is_call` is
            not boolean.

    Examples:
        At the money an option is worth volatility times the root of T / (2 pi).

        >>> round(price(forward=-0.5, strike=-0.5, time_to_expiry=0.25,
        ...             volatility=2.0), 6)
        0.398942

    References:
        Bachelier, L. (1900). Theorie de la speculation. *Annales scientifiques de
        l'Ecole normale superieure*, 17, 21-86.
    """
    return formulas.evaluate(
        formulas.price,
        kernels,
        time_to_expiry,
        strike,
        volatility,
        is_call=is_call,
        **market,
    )


def implied_normal_volatility(
    *,
    price: ArrayLike,
    strike: ArrayLike,
    time_to_expiry: ArrayLike,
    is_call: ArrayLike = True,
    return_status: bool = False,
    **market: Unpack[MarketArguments],
) -> Numeric:
    """Normal volatility at which the Bachelier price equals a quoted price.

    Every price above the discounted intrinsic value has one volatility. It is found
    without iteration: a polynomial guess good to four digits, and one step of fourth
    order in the logarithms of price and volatility.

    Args:
        price: Option price, in currency units paid today.
        strike: Strike, in currency units, of either sign.
        time_to_expiry: Time to expiry, in years; positive.
        is_call: True for calls, False for puts.
        return_status: Whether to return a `QuoteStatus` beside each volatility.
        **market: `forward` and `discount_factor`, or `spot`, `rate` and
            `dividend_yield`; see `MarketArguments`.

    Returns:
        Normal volatility, in currency units per square root of a year: zero where
        `price` is exactly the intrinsic value, infinite where it is infinite, NaN below
        the intrinsic value, where an argument is NaN, and where strike or forward is
        infinite or time is not positive. Its derivatives are zero where it is not a
        positive number. With `return_status` a pair of volatilities and statuses.

    Raises:
        ValueError: If neither or both forms of the market are given, or `is_call` is
            not boolean.

    Examples:
        >>> option = dict(forward=-0.5, strike=0.25, time_to_expiry=0.25)
        >>> quote = price(**option, volatility=2.0)
        >>> round(implied_normal_volatility(price=quote, **option), 12)
        2.0
        >>> implied_normal_volatility(price=-0.01, **option, return_status=True)
        (nan, <QuoteStatus.TOO_LOW: 1>)

    References:
        Jaeckel, P. (2017). Implied normal volatility. *Wilmott*, 2017(90), 52-54.
    """
    evaluate = formulas.evaluate_with_status if return_status else formulas.evaluate
    return evaluate(
        formulas.implied_volatility,
        kernels,
        time_to_expiry,
        price,
        strike,
        is_call=is_call,
        **market,
    )


# Greeks


def delta(
    *,
    strike: ArrayLike,
    time_to_expiry: ArrayLike,
    volatility: ArrayLike,
    is_call: ArrayLike = True,
    **market: Unpack[MarketArguments],
) -> Numeric:
    """Derivative of the price in `spot`, or in `forward` in the forward form.

    Arguments are those of `price`; units of the option per unit of the underlying.

    Examples:
        >>> option = dict(forward=2.0, strike=3.0, time_to_expiry=0.5, volatility=1.6)
        >>> round(delta(**option), 4)
        0.1884
    """
    return formulas.evaluate(
        formulas.delta,
        kernels,
        time_to_expiry,
        strike,
        volatility,
        is_call=is_call,
        **market,
    )


def gamma(
    *,
    strike: ArrayLike,
    time_to_expiry: ArrayLike,
    volatility: ArrayLike,
    is_call: ArrayLike = True,
    **market: Unpack[MarketArguments],
) -> Numeric:
    """Second derivative of the price in `spot`, or in `forward` in the forward form.

    Arguments are those of `price`; the same for calls and puts.

    Examples:
        >>> option = dict(forward=2.0, strike=3.0, time_to_expiry=0.5, volatility=1.6)
        >>> round(gamma(**option), 4)
        0.2386
    """
    return formulas.evaluate(
        formulas.gamma,
        kernels,
        time_to_expiry,
        strike,
        volatility,
        is_call=is_call,
        **market,
    )


def vega(
    *,
    strike: ArrayLike,
    time_to_expiry: ArrayLike,
    volatility: ArrayLike,
    is_call: ArrayLike = True,
    **market: Unpack[MarketArguments],
) -> Numeric:
    """Derivative of the price in volatility, per 1.00 of it.

    Arguments are those of `price`; the same for calls and puts.

    Examples:
        >>> option = dict(forward=2.0, strike=3.0, time_to_expiry=0.5, volatility=1.6)
        >>> round(vega(**option), 4)
        0.1909
    """
    return formulas.evaluate(
        formulas.vega,
        kernels,
        time_to_expiry,
        strike,
        volatility,
        is_call=is_call,
        **market,
    )


def theta(
    *,
    strike: ArrayLike,
    time_to_expiry: ArrayLike,
    volatility: ArrayLike,
    is_call: ArrayLike = True,
    **market: Unpack[MarketArguments],
) -> Numeric:
    """Change of the price per year that passes: minus its derivative in time.

    In the spot form spot, rate and dividend yield stay as they are; in the forward form
    forward and discount factor do. Arguments are those of `price`. Minus infinity at
    the money on the day of expiry.

    Examples:
        >>> option = dict(forward=2.0, strike=3.0, time_to_expiry=0.5, volatility=1.6)
        >>> round(theta(**option), 4)
        -0.3054
    """
    return formulas.evaluate(
        formulas.theta,
        kernels,
        time_to_expiry,
        strike,
        volatility,
        is_call=is_call,
        **market,
    )


def rho(
    *,
    strike: ArrayLike,
    time_to_expiry: ArrayLike,
    volatility: ArrayLike,
    is_call: ArrayLike = True,
    **market: Unpack[MarketArguments],
) -> Numeric:
    """Derivative of the price in the interest rate, per 1.00 of it.

    In the spot form the forward moves with the rate. In the forward form it stays, and
    the rate acts through the discount factor alone. Arguments are those of `price`.

    Examples:
        >>> option = dict(forward=2.0, strike=3.0, time_to_expiry=0.5, volatility=1.6)
        >>> round(rho(**option), 4)
        -0.0585
    """
    return formulas.evaluate(
        formulas.rho,
        kernels,
        time_to_expiry,
        strike,
        volatility,
        is_call=is_call,
        **market,
    )


def vanna(
    *,
    strike: ArrayLike,
    time_to_expiry: ArrayLike,
    volatility: ArrayLike,
    is_call: ArrayLike = True,
    **market: Unpack[MarketArguments],
) -> Numeric:
    """Derivative of delta in volatility, and of vega in `spot` or `forward`.

    Arguments are those of `price`; the same for calls and puts.

    Examples:
        >>> option = dict(forward=2.0, strike=3.0, time_to_expiry=0.5, volatility=1.6)
        >>> round(vanna(**option), 4)
        0.1491
    """
    return formulas.evaluate(
        formulas.vanna,
        kernels,
        time_to_expiry,
        strike,
        volatility,
        is_call=is_call,
        **market,
    )


def volga(
    *,
    strike: ArrayLike,
    time_to_expiry: ArrayLike,
    volatility: ArrayLike,
    is_call: ArrayLike = True,
    **market: Unpack[MarketArguments],
) -> Numeric:
    """Second derivative of the price in volatility.

    Arguments are those of `price`; the same for calls and puts.

    Examples:
        >>> option = dict(forward=2.0, strike=3.0, time_to_expiry=0.5, volatility=1.6)
        >>> round(volga(**option), 4)
        0.0932
    """
    return formulas.evaluate(
        formulas.volga,
        kernels,
        time_to_expiry,
        strike,
        volatility,
        is_call=is_call,
        **market,
    )


def charm(
    *,
    strike: ArrayLike,
    time_to_expiry: ArrayLike,
    volatility: ArrayLike,
    is_call: ArrayLike = True,
    **market: Unpack[MarketArguments],
) -> Numeric:
    """Change of delta per year that passes: minus its derivative in time.

    What is held fixed is said at `theta`. Arguments are those of `price`.

    Examples:
        >>> option = dict(forward=2.0, strike=3.0, time_to_expiry=0.5, volatility=1.6)
        >>> round(charm(**option), 4)
        -0.2386
    """
    return formulas.evaluate(
        formulas.charm,
        kernels,
        time_to_expiry,
        strike,
        volatility,
        is_call=is_call,
        **market,
    )


def greeks(
    *,
    strike: ArrayLike,
    time_to_expiry: ArrayLike,
    volatility: ArrayLike,
    is_call: ArrayLike = True,
    **market: Unpack[MarketArguments],
) -> Greeks:
    """Price and all Greeks at once.

    Arguments are those of `price`; each field is what the function of its name returns.

    Examples:
        >>> option = dict(forward=2.0, strike=3.0, time_to_expiry=0.5, volatility=1.6)
        >>> all_at_once = greeks(**option)
        >>> round(all_at_once.delta, 4), round(all_at_once.gamma, 4)
        (0.1884, 0.2386)
    """
    return formulas.evaluate(
        formulas.greeks,
        kernels,
        time_to_expiry,
        strike,
        volatility,
        is_call=is_call,
        **market,
    )


# Derivatives in the strike


def strike_delta(
    *,
    strike: ArrayLike,
    time_to_expiry: ArrayLike,
    volatility: ArrayLike,
    is_call: ArrayLike = True,
    **market: Unpack[MarketArguments],
) -> Numeric:
    """Derivative of the price in the strike, volatility held fixed.

    Arguments are those of `price`. Negative for calls, positive for puts.

    Examples:
        >>> option = dict(forward=2.0, strike=3.0, time_to_expiry=0.5, volatility=1.6)
        >>> round(strike_delta(**option), 4)
        -0.1884
    """
    return formulas.evaluate(
        formulas.strike_delta,
        kernels,
        time_to_expiry,
        strike,
        volatility,
        is_call=is_call,
        **market,
    )


def digital_price(
    *,
    strike: ArrayLike,
    time_to_expiry: ArrayLike,
    volatility: ArrayLike,
    is_call: ArrayLike = True,
    **market: Unpack[MarketArguments],
) -> Numeric:
    """Price of one unit of currency if the option finishes in the money.

    The limit of call (put) spreads of width zero, $D N(d)$ ($D N(-d)$): minus the
    derivative of the call price in the strike. Arguments are those of `price`.

    Examples:
        >>> option = dict(forward=2.0, strike=3.0, time_to_expiry=0.5, volatility=1.6)
        >>> round(digital_price(**option), 4)
        0.1884
    """
    return formulas.evaluate(
        formulas.digital_price,
        kernels,
        time_to_expiry,
        strike,
        volatility,
        is_call=is_call,
        **market,
    )


def distribution(
    *,
    strike: ArrayLike,
    time_to_expiry: ArrayLike,
    volatility: ArrayLike,
    **market: Unpack[MarketArguments],
) -> Numeric:
    """Risk-neutral probability that the underlying finishes below `strike`.

    $N(-d)$, of the normal distribution. Arguments are those of `price`.

    Examples:
        >>> option = dict(forward=2.0, strike=3.0, time_to_expiry=0.5, volatility=1.6)
        >>> round(distribution(**option), 4)
        0.8116
    """
    return formulas.evaluate(
        formulas.distribution,
        kernels,
        time_to_expiry,
        strike,
        volatility,
        is_call=True,
        **market,
    )


def density(
    *,
    strike: ArrayLike,
    time_to_expiry: ArrayLike,
    volatility: ArrayLike,
    **market: Unpack[MarketArguments],
) -> Numeric:
    r"""Risk-neutral probability density of the underlying at `strike`, per currency.

    $n(d) / (\sigma \sqrt{T})$: the second derivative of price over discount factor in
    the strike. Arguments are those of `price`.

    Examples:
        >>> option = dict(forward=2.0, strike=3.0, time_to_expiry=0.5, volatility=1.6)
        >>> round(density(**option), 4)
        0.2386
    """
    return formulas.evaluate(
        formulas.density,
        kernels,
        time_to_expiry,
        strike,
        volatility,
        is_call=True,
        **market,
    )


# Strikes and volatilities of the other model


def strike_from_delta(
    *,
    delta: ArrayLike,
    time_to_expiry: ArrayLike,
    volatility: ArrayLike,
    is_call: ArrayLike = True,
    **market: Unpack[MarketArguments],
) -> Numeric:
    """Strike at which the option has a given delta, as `delta` defines it.

    Args:
        delta: Derivative of the price in `spot` or `forward`; negative for puts.
        time_to_expiry: Time to expiry, in years.
        volatility: Normal volatility, in currency units per square root of a year.
        is_call: True for calls, False for puts.
        **market: See `MarketArguments`.

    Returns:
        Strike, in currency units; NaN where no strike has this delta.

    Examples:
        >>> option = dict(forward=2.0, time_to_expiry=0.5, volatility=1.6)
        >>> strike = strike_from_delta(delta=0.25, **option)
        >>> round(globals()["delta"](strike=strike, **option), 12)
        0.25
    """
    return formulas.evaluate(
        formulas.strike_from_delta,
        kernels,
        time_to_expiry,
        delta,
        volatility,
        is_call=is_call,
        **market,
    )


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
        root = formulas.root_of_time(time_to_expiry)
        option = forward, strike
        is_call = strike >= forward
        price = source.undiscounted_price(*option, volatility * root, is_call)
        v = target.implied_total_volatility(price, *option, is_call)
        started = time_to_expiry > 0.0
        return jnp.where(
            started, v / square_root(jnp.where(started, time_to_expiry, 1.0)), jnp.nan
        )

    return elementwise(formula)


_normal_from_lognormal = _of_other_model(lognormal_kernels, kernels)
_lognormal_from_normal = _of_other_model(kernels, lognormal_kernels)

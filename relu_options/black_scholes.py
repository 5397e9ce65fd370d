r"""Black-Scholes prices, Greeks and implied volatilities, to the last digits.

Everything is stated for an option on a forward (Black 1976),

$$
P = D \left(\pm F N(\pm d_1) \mp K N(\pm d_2)\right), \qquad
d_{1,2} = \frac{\log(F / K)}{v} \pm \frac{v}{2}, \quad v = \sigma \sqrt{T},
$$

with forward $F$, strike $K$, discount factor $D$, volatility $\sigma$ and time to
expiry $T$. Functions that take a market take it in one of two forms:

* the *forward form*, `forward` and `discount_factor` (1 unless given);
* the *spot form*, `spot`, `rate` and `dividend_yield` (continuous, 0 unless given),
  where $F = S e^{(r - q) T}$ and $D = e^{-r T}$.

Every Greek is the plain partial derivative of `price` with the other arguments of the
form in use held fixed: vega is per 1.00 of volatility, theta and charm per year that
passes. All functions broadcast, and give a float for numbers, a Series for Series, and
arrays for arrays; under `jax.jit`, `jax.vmap` and `jax.grad` (to second order, by exact
rules) they are JAX functions like any other.

`undiscounted_price` and `implied_total_volatility` are the two kernels behind the rest,
functions of JAX arrays only, for use in compiled code.
"""

from typing import Unpack

import numpy as np

from relu_options._formulas import discounted as formulas
from relu_options._formulas import lognormal_kernels as kernels
from relu_options._formulas.discounted import Greeks, MarketArguments
from relu_options._formulas.elementwise import ArrayLike, Numeric, Shortcut, elementwise
from relu_options._formulas.log_ratio import log_ratio
from relu_options._formulas.lognormal_kernels import (
    implied_total_volatility,
    undiscounted_price,
)
from relu_options._formulas.packed_greeks import packed_greeks, unpack
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


# Prices and volatilities


def price(
    *,
    strike: ArrayLike,
    time_to_expiry: ArrayLike,
    volatility: ArrayLike,
    is_call: ArrayLike = True,
    **market: Unpack[MarketArguments],
) -> Numeric:
    r"""Price of a European call or put.

    The out-of-the-money option of the strike is computed first, by a difference of two
    Mills ratios that does not cancel, and intrinsic value is added to it: a price keeps
    its relative accuracy however far out of the money, down to about 1e-300.

    Args:
        strike: Strike, in currency units.
        time_to_expiry: Time to expiry, in years.
        volatility: Annualised lognormal volatility, 0.2 meaning 20%.
        is_call: True for calls, False for puts.
        **market: `forward` and `discount_factor`, or `spot`, `rate` and
            `dividend_yield`; see `MarketArguments`.

    Returns:
        Price in currency units paid today. Exactly the discounted intrinsic value at
        zero volatility or zero time, the discounted forward (calls) or strike (puts) at
        infinite volatility, and the limits in between at a strike of zero or infinity;
        NaN where an argument is NaN or negative.

    Raises:
        ValueError: If neither or both forms of the market are given, or `is_call` is
            not boolean.

    Examples:
        Hull's example: a stock at 42 and an interest rate of 10%.

        >>> option = dict(strike=40.0, time_to_expiry=0.5, volatility=0.2)
        >>> round(price(spot=42.0, rate=0.1, **option), 2)
        4.76
        >>> round(price(spot=42.0, rate=0.1, is_call=False, **option), 2)
        0.81

        A call 37 deviations out of the money still has its digits.

        >>> far = price(forward=1.0, strike=40.0, time_to_expiry=1.0, volatility=0.1)
        >>> print(f"{far:.9e}")
        5.975094061e-300

    References:
        Black, F. and Scholes, M. (1973). The pricing of options and corporate
        liabilities. *Journal of Political Economy*, 81(3), 637-654.
        Black, F. (1976). The pricing of commodity contracts. *Journal of Financial
        Economics*, 3, 167-179.
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


def implied_volatility(
    *,
    price: ArrayLike,
    strike: ArrayLike,
    time_to_expiry: ArrayLike,
    is_call: ArrayLike = True,
    return_status: bool = False,
    **market: Unpack[MarketArguments],
) -> Numeric:
    r"""Volatility at which the Black-Scholes price equals a quoted price.

    The price rises with volatility from the discounted intrinsic value to the
    discounted forward (calls) or strike (puts). Between those bounds the volatility is
    unique. It is found without iteration: a polynomial guess good to three digits, and
    one step of sixth order in the logarithms of price and volatility. The rounding
    error is about that of the result, 2.2e-16 of it.

    Args:
        price: Option price, in currency units paid today.
        strike: Strike, in currency units.
        time_to_expiry: Time to expiry, in years; positive.
        is_call: True for calls, False for puts.
        return_status: Whether to return a `QuoteStatus` beside each volatility.
        **market: `forward` and `discount_factor`, or `spot`, `rate` and
            `dividend_yield`; see `MarketArguments`.

    Returns:
        Annualised lognormal volatility, 0.2 meaning 20%: zero where `price` is exactly
        the intrinsic value, infinite where it is exactly the upper bound, NaN beyond
        the bounds, where an argument is NaN, and where strike or forward is zero or
        infinite or time is not positive. Its derivatives are zero where it is not a
        positive number, so that masking a bad quote masks it in gradients too. With
        `return_status` a pair of volatilities and statuses.

    Raises:
        ValueError: If neither or both forms of the market are given, or `is_call` is
            not boolean.

    Examples:
        Volatilities read back from prices at 20%.

        >>> import numpy as np
        >>> options = dict(forward=100.0, strike=np.array([80.0, 100.0, 120.0]),
        ...                time_to_expiry=0.5, discount_factor=0.98)
        >>> quotes = price(**options, volatility=0.2)
        >>> print(np.round(implied_volatility(price=quotes, **options), 12))
        [0.2 0.2 0.2]

        A call struck at 90 is worth at least its intrinsic value of 10.

        >>> below_intrinsic = dict(price=9.5, forward=100.0, strike=90.0)
        >>> implied_volatility(**below_intrinsic, time_to_expiry=0.5,
        ...                    return_status=True)
        (nan, <QuoteStatus.TOO_LOW: 1>)

    Notes:
        The search runs on the out-of-the-money option of the same strike, whose price
        is the time value, and on its distance to the upper bound once it is worth more
        than half of it. Both are exact differences of the arguments. What accuracy
        remains is that of the quote: far from the money, a rounded price no longer
        determines its volatility. Differences of price and bound below 2.2e-308, which
        processors flush, count as zero.

    References:
        Jaeckel, P. (2015). Let's be rational. *Wilmott*, 2015(75), 40-53.
    """
    evaluate = formulas.evaluate_with_status if return_status else formulas.evaluate
    return evaluate(
        formulas.implied_volatility,
        kernels,
        time_to_expiry,
        price,
        strike,
        is_call=is_call,
        shortcut=_ONE_STEP,
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
        >>> option = dict(strike=50.0, time_to_expiry=0.3846, volatility=0.2)
        >>> round(delta(spot=49.0, rate=0.05, **option), 3)  # Hull, Greek letters
        0.522
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
        >>> option = dict(strike=50.0, time_to_expiry=0.3846, volatility=0.2)
        >>> round(gamma(spot=49.0, rate=0.05, **option), 3)
        0.066
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
        >>> option = dict(strike=50.0, time_to_expiry=0.3846, volatility=0.2)
        >>> round(vega(spot=49.0, rate=0.05, **option), 1)
        12.1
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
        >>> option = dict(strike=50.0, time_to_expiry=0.3846, volatility=0.2)
        >>> round(theta(spot=49.0, rate=0.05, **option), 2)
        -4.31
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
        >>> option = dict(strike=50.0, time_to_expiry=0.3846, volatility=0.2)
        >>> round(rho(spot=49.0, rate=0.05, **option), 2)
        8.91
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
        >>> option = dict(strike=50.0, time_to_expiry=0.3846, volatility=0.2)
        >>> round(vanna(spot=49.0, rate=0.05, **option), 4)
        0.1391
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
        >>> option = dict(strike=50.0, time_to_expiry=0.3846, volatility=0.2)
        >>> round(volga(spot=49.0, rate=0.05, **option), 4)
        -0.2291
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
        >>> option = dict(strike=50.0, time_to_expiry=0.3846, volatility=0.2)
        >>> round(charm(spot=49.0, rate=0.05, **option), 4)
        -0.1968
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
    """Price and all Greeks at once, at about the cost of three prices.

    Arguments are those of `price`; each field is what the function of its name returns.

    Examples:
        >>> option = dict(strike=50.0, time_to_expiry=0.3846, volatility=0.2)
        >>> all_at_once = greeks(spot=49.0, rate=0.05, **option)
        >>> round(all_at_once.delta, 3), round(all_at_once.theta, 2)
        (0.522, -4.31)
    """
    return formulas.evaluate(
        formulas.greeks,
        kernels,
        time_to_expiry,
        strike,
        volatility,
        is_call=is_call,
        shortcut=_ALL_GREEKS,
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
        >>> round(strike_delta(forward=100.0, strike=95.0, time_to_expiry=0.5,
        ...                    volatility=0.2, discount_factor=0.98), 4)
        -0.6026
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

    The limit of call (put) spreads of width zero, $D N(d_2)$ ($D N(-d_2)$): minus the
    derivative of the call price in the strike. Arguments are those of `price`.

    Examples:
        A digital call and a digital put pay one unit together.

        >>> option = dict(forward=100.0, strike=95.0, time_to_expiry=0.5,
        ...               volatility=0.2, discount_factor=0.98)
        >>> round(digital_price(**option), 4)
        0.6026
        >>> round(digital_price(**option) + digital_price(is_call=False, **option), 12)
        0.98
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

    $N(-d_2)$, of the lognormal distribution. Arguments are those of `price`.

    Examples:
        >>> round(distribution(forward=100.0, strike=95.0, time_to_expiry=0.5,
        ...                    volatility=0.2), 4)
        0.3851
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

    $n(d_2) / (K \sigma \sqrt{T})$: the second derivative of price over discount factor
    in the strike. Arguments are those of `price`.

    Examples:
        >>> round(density(forward=100.0, strike=95.0, time_to_expiry=0.5,
        ...               volatility=0.2), 4)
        0.0285

    References:
        Breeden, D. and Litzenberger, R. (1978). Prices of state-contingent claims
        implicit in option prices. *Journal of Business*, 51, 621-651.
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


# Coordinates


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
        volatility: Annualised lognormal volatility of the option sought.
        is_call: True for calls, False for puts.
        **market: See `MarketArguments`.

    Returns:
        Strike, in currency units; NaN where no strike has this delta.

    Examples:
        >>> option = dict(forward=100.0, time_to_expiry=0.25, volatility=0.2)
        >>> strike = strike_from_delta(delta=-0.25, is_call=False, **option)
        >>> round(strike, 4)
        93.9461
        >>> round(globals()["delta"](strike=strike, is_call=False, **option), 12)
        -0.25
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


def log_moneyness(*, forward: ArrayLike, strike: ArrayLike) -> Numeric:
    """log(strike / forward), accurate relative to itself also near the money.

    Positive where calls are out of the money.

    Examples:
        >>> print(f"{log_moneyness(forward=100.0, strike=100.00000000000001):.6e}")
        1.421085e-16
    """
    return _log_moneyness(forward, strike)


def total_variance(*, volatility: ArrayLike, time_to_expiry: ArrayLike) -> Numeric:
    """Volatility squared times time to expiry, without unit.

    Examples:
        >>> round(total_variance(volatility=0.2, time_to_expiry=0.5), 12)
        0.02
    """
    return _total_variance(volatility, time_to_expiry)


def _one_step_volatility(model, market, time_to_expiry, price, strike, is_call):
    """`formulas.implied_volatility`, negative where it may need another step."""
    v = model.one_step_total_volatility(
        price / market.discount_factor, market.forward, strike, is_call
    )
    return formulas.annualised(v, market, time_to_expiry)


_ALL_GREEKS = Shortcut(
    kernel=packed_greeks,
    unpack=lambda packed, table: unpack(packed, time_to_expiry=table[0]),
    unfinished=lambda result: np.isnan(result.price),
)
_ONE_STEP = Shortcut(
    kernel=_one_step_volatility,
    unpack=lambda volatility, _: volatility,
    unfinished=lambda volatility: volatility < 0.0,
)


@elementwise
def _log_moneyness(forward, strike):
    return log_ratio(strike, forward)


@elementwise
def _total_variance(volatility, time_to_expiry):
    return volatility * volatility * time_to_expiry

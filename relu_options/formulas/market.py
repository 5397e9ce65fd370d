"""The market of an option in one of its two forms, from spot or from forward."""

from collections.abc import Callable
from difflib import get_close_matches
from typing import NamedTuple, TypedDict

import jax

from relu_options.formulas.elementwise import ArrayLike
from relu_options.formulas.fusible import exponential


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


def market_in_use(
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

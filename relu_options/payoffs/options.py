"""The payoffs that have names: options, their spreads and combinations."""

from typing import Literal

import numpy as np

from relu_options.payoffs.numbers import Number, increasing
from relu_options.payoffs.piecewise_linear import Payoff

_NONE = np.zeros(0)


# One option, one underlying, cash


def call(strike: Number) -> Payoff:
    """The spot above the strike: max(S - K, 0).

    Examples:
        >>> call(100.0)(np.array([80.0, 120.0]))
        array([ 0., 20.])
    """
    return Payoff(0, 0, np.array([strike]), np.array([1]))


def put(strike: Number) -> Payoff:
    """The spot below the strike: max(K - S, 0).

    Examples:
        >>> put(100.0)(np.array([80.0, 120.0]))
        array([20.,  0.])
    """
    return Payoff(strike, -1, np.array([strike]), np.array([1]))


def forward(strike: Number = 0) -> Payoff:
    """A forward contract, S - K; with a strike of zero, the underlying itself.

    Examples:
        >>> forward(100.0) == call(100.0) - put(100.0)
        True
    """
    return Payoff(-strike, 1, _NONE, _NONE)


def cash(amount: Number = 1) -> Payoff:
    """A fixed amount.

    Examples:
        >>> cash(5.0) + call(100.0)
        Payoff(cash 5, 1 calls 100)
    """
    return Payoff(amount, 0, _NONE, _NONE)


# Several options


def call_spread(low: float, high: float) -> Payoff:
    """Long a call at `low`, short one at `high`: from 0 up to `high - low`.

    Examples:
        >>> call_spread(90.0, 110.0)(np.array([80.0, 100.0, 120.0]))
        array([ 0., 10., 20.])
    """
    increasing([low, high])
    return call(low) - call(high)


def put_spread(low: float, high: float) -> Payoff:
    """Long a put at `high`, short one at `low`: from `high - low` down to 0.

    Examples:
        >>> put_spread(90.0, 110.0)(np.array([80.0, 100.0, 120.0]))
        array([20., 10.,  0.])
    """
    increasing([low, high])
    return put(high) - put(low)


def straddle(strike: float) -> Payoff:
    """A call and a put of one strike: the distance of the spot from it.

    Examples:
        >>> straddle(100.0)(np.array([80.0, 100.0, 130.0]))
        array([20.,  0., 30.])
    """
    return call(strike) + put(strike)


def strangle(put_strike: float, call_strike: float) -> Payoff:
    """A put below and a call above.

    Examples:
        >>> strangle(90.0, 110.0)(np.array([80.0, 100.0, 130.0]))
        array([10.,  0., 20.])
    """
    increasing([put_strike, call_strike])
    return put(put_strike) + call(call_strike)


def butterfly(low: float, middle: float, high: float) -> Payoff:
    """One call at `low`, and as many more as make it `middle - low` high and closed.

    With strikes evenly apart these are -2 at `middle` and 1 at `high`.

    Examples:
        >>> butterfly(90.0, 100.0, 110.0)
        Payoff(1 calls 90, -2 calls 100, 1 calls 110)
    """
    increasing([low, middle, high])
    ratio = (middle - low) / (high - middle)
    return Payoff(0, 0, np.array([low, middle, high]), np.array([1, -1 - ratio, ratio]))


def condor(lowest: float, low: float, high: float, highest: float) -> Payoff:
    """A call spread bought below and one sold above: a butterfly with a flat top.

    Examples:
        >>> condor(80.0, 90.0, 110.0, 120.0)(np.array([70.0, 100.0, 130.0]))
        array([ 0., 10.,  0.])
    """
    increasing([lowest, low, high, highest])
    return call_spread(lowest, low) - call_spread(high, highest)


def iron_condor(lowest: float, low: float, high: float, highest: float) -> Payoff:
    """A strangle sold at the inner strikes and bought at the outer ones.

    Examples:
        >>> iron_condor(80.0, 90.0, 110.0, 120.0)(np.array([70.0, 100.0, 130.0]))
        array([-10.,   0., -10.])
    """
    increasing([lowest, low, high, highest])
    return strangle(lowest, highest) - strangle(low, high)


def risk_reversal(put_strike: float, call_strike: float) -> Payoff:
    """Long a call above, short a put below.

    Examples:
        >>> risk_reversal(90.0, 110.0)(np.array([80.0, 100.0, 130.0]))
        array([-10.,   0.,  20.])
    """
    increasing([put_strike, call_strike])
    return call(call_strike) - put(put_strike)


def collar(put_strike: float, call_strike: float) -> Payoff:
    """The underlying, protected below by a put and paid for by a call above.

    Examples:
        >>> collar(90.0, 110.0)(np.array([80.0, 100.0, 130.0]))
        array([ 90., 100., 110.])
    """
    increasing([put_strike, call_strike])
    return forward() + put(put_strike) - call(call_strike)


def ratio_spread(low: float, high: float, *, ratio: float = 2.0) -> Payoff:
    """Long a call at `low`, short `ratio` calls at `high`.

    Examples:
        >>> ratio_spread(90.0, 100.0)(np.array([80.0, 100.0, 120.0]))
        array([  0.,  10., -10.])
    """
    increasing([low, high])
    return call(low) - ratio * call(high)


def participation(strike: float, *, rate: float, floor: float = 0.0) -> Payoff:
    """An amount `floor`, and `rate` of what the spot gains above the strike.

    Examples:
        >>> participation(100.0, rate=0.5, floor=95.0)(np.array([80.0, 120.0]))
        array([ 95., 105.])
    """
    return floor + rate * call(strike)


def note(*, floor: float | None = None, cap: float | None = None) -> Payoff:
    """The underlying, but no less than `floor` and no more than `cap`.

    Examples:
        >>> note(floor=90.0, cap=120.0)
        Payoff(cash 90, 1 calls 90, -1 calls 120)
    """
    if floor is not None and cap is not None:
        increasing([floor, cap])
    result = forward()
    if cap is not None:
        result = result - call(cap)
    if floor is not None:
        result = result + put(floor)
    return result


def digital(
    strike: float,
    *,
    width: float,
    is_call: bool = True,
    side: Literal["middle", "above", "below"] = "middle",
) -> Payoff:
    """One unit of cash above the strike, or below it, as a call spread of a width.

    The jump itself is the limit of a width of zero, and no portfolio of calls.

    Args:
        strike: Currency units.
        width: Currency units between the two strikes of the spread.
        is_call: True if it pays above the strike, False if below.
        side: "middle" centres the spread on the strike; "above" makes it pay no less
            than the jump, "below" no more.

    Raises:
        ValueError: If the width is not positive, or `side` is unknown.

    Examples:
        >>> digital(100.0, width=2.0)(np.array([99.0, 100.0, 101.0]))
        array([0. , 0.5, 1. ])
        >>> digital(100.0, width=2.0, side="above")(np.array([99.0, 100.0]))
        array([0.5, 1. ])
    """
    if not 0.0 < width < np.inf:
        raise ValueError(f"width must be positive, not {width}; the digital is a limit")
    shares = {"middle": 0.5, "above": 1.0, "below": 0.0}
    if side not in shares:
        raise ValueError(f"side must be one of {list(shares)}, not {side!r}")
    share = shares[side] if is_call else 1.0 - shares[side]
    low = strike - share * width
    step = call_spread(low, low + width) / width
    return step if is_call else 1.0 - step

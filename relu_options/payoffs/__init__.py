r"""Payoffs: what a position is worth at expiry, as a function of the spot.

A `Payoff` is piecewise linear, $f(S) = a + b S + \sum_i q_i \max(S - K_i, 0)$: cash,
units of the underlying, and calls. It is a ReLU network, exactly
(`Payoff.to_network`), and the algebra of payoffs is exact: sums, multiples, and the
larger or smaller of two, with kinks where they cross.

A `SmoothPayoff`, such as a log contract, is a function with its two derivatives. No
finite portfolio is equal to it; `SmoothPayoff.piecewise_linear` is the portfolio that
is equal at given strikes, and states how far from it this is between them.

Numbers may also be `fractions.Fraction`: then nothing is ever rounded.

Examples:
    A collar is the underlying, a put below and a short call above.

    >>> collar(90.0, 110.0) == forward() + put(90.0) - call(110.0)
    True
    >>> sum(quantity * call(strike) for quantity, strike in [(1, 90.0), (-2, 100.0)])
    Payoff(1 calls 90, -2 calls 100)
"""

from relu_options.payoffs.options import (
    butterfly,
    call,
    call_spread,
    cash,
    collar,
    condor,
    digital,
    forward,
    iron_condor,
    note,
    participation,
    put,
    put_spread,
    ratio_spread,
    risk_reversal,
    straddle,
    strangle,
)
from relu_options.payoffs.piecewise_linear import (
    Payoff,
    capped,
    floored,
    from_function,
    from_points,
    maximum,
    minimum,
)
from relu_options.payoffs.smooth import SmoothPayoff, log_contract, power

__all__ = [
    "Payoff",
    "SmoothPayoff",
    "butterfly",
    "call",
    "call_spread",
    "capped",
    "cash",
    "collar",
    "condor",
    "digital",
    "floored",
    "forward",
    "from_function",
    "from_points",
    "iron_condor",
    "log_contract",
    "maximum",
    "minimum",
    "note",
    "participation",
    "power",
    "put",
    "put_spread",
    "ratio_spread",
    "risk_reversal",
    "straddle",
    "strangle",
]

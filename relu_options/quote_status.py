"""Whether a quoted price determines a volatility, and why not."""

import enum


class QuoteStatus(enum.IntEnum):
    """What the price of an option says about its volatility.

    Examples:
        >>> QuoteStatus(1).name
        'TOO_LOW'
    """

    FOUND = 0
    """The price lies strictly between its bounds."""
    TOO_LOW = 1
    """Below the intrinsic value; the volatility is NaN."""
    ZERO_TIME_VALUE = 2
    """Exactly the intrinsic value; the volatility is zero."""
    TOO_HIGH = 3
    """At the upper bound, where the volatility is infinite, or above it (NaN)."""
    UNDEFINED = 4
    """An argument is NaN or outside its domain; the volatility is NaN."""

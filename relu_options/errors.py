"""Errors raised by `relu_options`, each named after what the caller can do about it."""

import math


class QuoteError(ValueError):
    """A table of quotes is missing a column or holds values that cannot be prices.

    Examples:
        >>> import pandas as pd
        >>> from relu_options import prepare_quotes
        >>> try:
        ...     prepare_quotes(pd.DataFrame({"strike": [], "mid": []}))
        ... except QuoteError as error:
        ...     print(str(error).split(";")[0])
        the table of quotes has no rows
    """


class MissingColumnError(QuoteError):
    """A table of quotes lacks a column, or nobody finds it.

    Attributes:
        columns: The canonical names of those of which one is needed.

    Examples:
        >>> import pandas as pd
        >>> from relu_options import prepare_quotes
        >>> try:
        ...     prepare_quotes(pd.DataFrame({"K": [90.0], "mid": [1.0]}))
        ... except MissingColumnError as error:
        ...     print(error.columns)
        ('expiry', 'time_to_expiry')
    """

    def __init__(self, message: str, columns: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.columns = columns


class ArbitrageError(ValueError):
    """Quotes admit a static arbitrage, so no price curve passes through them.

    Examples:
        >>> from relu_options.arbitrage import check_quote_arbitrage
        >>> try:
        ...     check_quote_arbitrage(strike=[100.0, 110.0], bid=[3.9, 4.5],
        ...                           ask=[4.1, 4.7], is_call=True, forward=100.0,
        ...                           discount_factor=1.0)
        ... except ArbitrageError as error:
        ...     print(str(error).split(", ")[0])
        static arbitrage in 2 quotes: call_spread 100-110: buy 1 call 100 at 4.1
    """


class FitError(RuntimeError):
    """The fitting core could not reach its tolerance.

    The message holds the figures reached and what to change.

    Examples:
        >>> try:
        ...     raise FitError("duality gap 1.0e-03 after 60 steps; raise `smoothing`")
        ... except FitError as error:
        ...     print(error)
        duality gap 1.0e-03 after 60 steps; raise `smoothing`
    """


class LookAheadError(LookupError):
    """A strategy asked for a date later than the one on which it decides.

    Examples:
        >>> try:
        ...     raise LookAheadError("asked for 2025-03-18 on 2025-03-17")
        ... except LookAheadError as error:
        ...     print(error)
        asked for 2025-03-18 on 2025-03-17
    """


class BacktestError(RuntimeError):
    """A strategy failed or ordered what cannot be an order, or a history has no dates.

    Examples:
        >>> try:
        ...     raise BacktestError("2025-03-17: an order has a quantity that is NaN")
        ... except BacktestError as error:
        ...     print(error)
        2025-03-17: an order has a quantity that is NaN
    """


class VerificationError(RuntimeError):
    """A network could not be examined in the time, or not be repaired.

    Examples:
        >>> try:
        ...     raise VerificationError("more than 9,000 linear regions in 1 s; raise "
        ...                             "`time_limit`")
        ... except VerificationError as error:
        ...     print(error)
        more than 9,000 linear regions in 1 s; raise `time_limit`
    """


def refuse(reason: str, **given: object) -> None:
    """Raise if an argument is given that has no effect: none is ignored in silence.

    Args:
        reason: Why it has none, and what to do.
        **given: The arguments; None where not given.

    Raises:
        ValueError: Naming those that are given.

    Examples:
        >>> refuse("a chain knows its time", quote_time="2025-03-14", columns=None)
        Traceback (most recent call last):
            ...
        ValueError: `quote_time` has no effect: a chain knows its time
    """
    named = [f"`{name}`" for name, value in given.items() if value is not None]
    if named:
        verb = "has" if len(named) == 1 else "have"
        raise ValueError(f"{' and '.join(named)} {verb} no effect: {reason}")


def require_positive(**values: float) -> None:
    """Raise unless all are positive and finite.

    Raises:
        ValueError: Naming the first that is not.

    Examples:
        >>> require_positive(forward=100.0, discount_factor=0.0)
        Traceback (most recent call last):
            ...
        ValueError: discount_factor must be positive, not 0.0
    """
    for name, value in values.items():
        if not 0.0 < value < math.inf:
            raise ValueError(f"{name} must be positive, not {value!r}")


def require_forward(forward: float, *, signed: bool) -> None:
    """Raise unless a forward is positive, or only finite if it may be negative.

    Raises:
        ValueError: With the number.

    Examples:
        >>> require_forward(-37.6, signed=True)
        >>> require_forward(-37.6, signed=False)
        Traceback (most recent call last):
            ...
        ValueError: forward must be positive, not -37.6
    """
    if not signed:
        require_positive(forward=forward)
    if not math.isfinite(forward):
        raise ValueError(f"forward must be finite, not {forward!r}")


def require_payoff(payoff: object) -> None:
    """Raise `TypeError` unless something can be evaluated at spots.

    Examples:
        >>> require_payoff(5.0)
        Traceback (most recent call last):
            ...
        TypeError: a payoff is one such as `payoffs.straddle(100.0)`, a network, or a function of an array of spots, not float
    """  # noqa: E501
    if not callable(payoff):
        raise TypeError(
            "a payoff is one such as `payoffs.straddle(100.0)`, a network, or a "
            f"function of an array of spots, not {type(payoff).__name__}"
        )

"""Errors raised by `relu_options`, each named after what the caller can do about it."""


class QuoteError(ValueError):
    """A table of quotes is missing a column or holds values that cannot be prices."""


class ArbitrageError(ValueError):
    """Quotes admit a static arbitrage, so no price curve passes through them."""


class FitError(RuntimeError):
    """The fitting core could not reach its tolerance."""

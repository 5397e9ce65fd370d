r"""The quotes of one expiry as a fit sees them, and the smile that they tell.

Prices are undiscounted, out of the money and in units of the forward; strikes are
$x = \log(K / F)$; for a normal law see `relu_options.fitting.kernels`. All of this is
NumPy: it is little work for one expiry, and the next has another number of quotes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from relu_options.errors import QuoteError
from relu_options.fitting.kernels import KERNELS, FitKernel
from relu_options.market_data import ExpiryQuotes

VOLATILITY_UNIT = 0.01  # tolerance of a mid, as a total volatility
LOCKED = 1e-4  # of that unit: tolerance of a quote whose bid is its ask
NEIGHBOURS = 3  # to each side, that say how wide the spread of a quote is
FAR = 10.0  # half-spreads outside its spread from which a quote is wrong
MOST_FAR = 0.2  # of the quotes of an expiry that may be
FARTHEST_SMILE = 1.35  # ratio of a volatility to its neighbours' that no smile has
REACH = 5.0  # kinks reach this many at-the-money total volatilities from the forward
BEYOND = 2.0  # and this many of the outermost quote's beyond that quote


COLUMNS = ("x", "mid", "lower", "upper", "half_spread", "total_volatility")
"""Fields of normalised quotes that have a value for each."""


@dataclass(frozen=True, eq=False)
class NormalisedQuotes:
    """Out-of-the-money quotes of one expiry, undiscounted and in units of the forward.

    Attributes:
        kernel: The law by which distances and volatilities go.
        x: Distances of the strikes from the forward, of shape `(m,)` and increasing.
        mid: Of shape `(m,)`.
        lower: Bids, of shape `(m,)`; minus infinity where only the mid is known.
        upper: Asks, of shape `(m,)`; infinity where only the mid is known.
        half_spread: Of a spread, unless those of its neighbours are wider; NaN where
            only the mid is known.
        total_volatility: Implied by the mids, of shape `(m,)`; NaN where none.
    """

    kernel: FitKernel
    x: np.ndarray
    mid: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    half_spread: np.ndarray
    total_volatility: np.ndarray

    def __len__(self) -> int:
        return len(self.mid)

    def take(self, rows: np.ndarray) -> NormalisedQuotes:
        """These quotes only; what each is held to stays as it is."""
        return replace(self, **{name: getattr(self, name)[rows] for name in COLUMNS})

    @property
    def is_call(self) -> np.ndarray:
        """Calls at and above the forward."""
        return self.x >= 0.0

    @property
    def two_sided(self) -> np.ndarray:
        """Where bid and ask are known."""
        return np.isfinite(self.lower) & np.isfinite(self.upper)

    @cached_property
    def vega(self) -> np.ndarray:
        """Derivative of each mid by its total volatility."""
        return self.kernel.vega(self.x, self.total_volatility)

    @cached_property
    def tolerance(self) -> np.ndarray:
        """What each quote is held to: its half-spread, or some volatility for a mid.

        A locked quote is held to a small part of what its volatility is known to.
        """
        unit = VOLATILITY_UNIT * self.vega
        return np.where(self.two_sided, np.fmax(self.half_spread, LOCKED * unit), unit)

    def excess(self, fitted: np.ndarray) -> np.ndarray:
        """How far fitted prices are outside their spreads; negative where inside."""
        return np.maximum(self.lower - fitted, fitted - self.upper)


def normalise(quotes: Sequence[ExpiryQuotes]) -> list[NormalisedQuotes]:
    """Quotes of one law by strike, in its units, with their volatilities."""
    kernel = KERNELS[quotes[0].kernel]
    rows = [_in_units(one, kernel) for one in quotes]
    # One call for all: a formula is faster for many numbers than for a few, many times.
    x, mid = (np.concatenate([row[place] for row in rows]) for place in (0, 1))
    implied = kernel.implied(mid, kernel.forward, kernel.place(x), x >= 0.0)
    ends = np.cumsum([len(row[0]) for row in rows])[:-1]
    return [
        NormalisedQuotes(kernel, **dict(zip(COLUMNS, (*row, part), strict=True)))
        for row, part in zip(rows, np.split(implied, ends), strict=True)
    ]


def _in_units(quotes: ExpiryQuotes, kernel: FitKernel) -> tuple[np.ndarray, ...]:
    """The columns of normalised quotes, but for the volatilities."""
    order = np.argsort(quotes.strike)
    strike = quotes.strike[order]
    unit = quotes.discount_factor * quotes.unit
    x = kernel.distance(strike, quotes)
    bid, mid, ask = (
        each[order] / unit for each in (quotes.bid, quotes.mid, quotes.ask)
    )
    half_spread = credible_half_spreads(x, 0.5 * (ask - bid))
    lower = np.where(np.isnan(bid), -np.inf, bid)
    return x, mid, lower, np.where(np.isnan(ask), np.inf, ask), half_spread


def credible_half_spreads(position: np.ndarray, half_spread: np.ndarray) -> np.ndarray:
    """Half-spreads, none narrower than those on both of its sides say.

    Each two quotes that are one, two or three places to the left and to the right of a
    quote, joined by a straight line in logarithms, say one; the median of the three is
    believed, and near the ends, where there are not three, the narrower neighbour. The
    spread of a wrong price shrinks with it, and what it costs to leave it would grow.

    Args:
        position: Of the quotes, of shape `(m,)`, increasing.
        half_spread: Of shape `(m,)`; NaN or zero where there is none, which says none.

    Returns:
        Half-spreads of shape `(m,)`.
    """
    count = len(position)
    logarithms = np.full(count, np.nan)
    known = half_spread > 0.0
    if not known.any():
        return half_spread
    logarithms[known] = np.log(half_spread[known])
    said = np.full((NEIGHBOURS, count), np.nan)
    for row in range(min(NEIGHBOURS, (count - 1) // 2)):
        left, here, right = (
            slice(first, count - 2 * (row + 1) + first)
            for first in (0, row + 1, 2 * (row + 1))
        )
        share = (position[here] - position[left]) / (position[right] - position[left])
        rise = logarithms[right] - logarithms[left]
        said[row, here] = logarithms[left] + share * rise
    voices = np.isfinite(said).sum(axis=0)
    least = np.zeros(count)
    few, many = (voices > 0) & (voices < NEIGHBOURS), voices == NEIGHBOURS
    least[many] = np.exp(np.median(said[:, many], axis=0))
    # Near the ends no majority can outvote an odd one: the narrower side is believed.
    beside = np.minimum(_shifted(half_spread, 1), _shifted(half_spread, -1))
    least[few] = np.fmax(beside[few], 0.0)
    return np.fmax(half_spread, least)


def far_outside(quotes: NormalisedQuotes, fitted: np.ndarray) -> np.ndarray:
    """Quotes so far outside of their spreads that they are wrong, not tight.

    No curve that is free of arbitrage is near them, and what they draw it by on the
    way is taken from their neighbours: they are set aside, and the rest fitted again.
    Where many are, it is not they who are wrong.

    Args:
        quotes: The quotes.
        fitted: Prices fitted to them, of shape `(m,)`.

    Returns:
        A mask of that shape.
    """
    # A locked quote between locked ones does not say what would be far.
    known = quotes.half_spread > 0.0
    unit = np.where(known, quotes.half_spread, 1.0)
    excess = np.where(known, quotes.excess(fitted), -np.inf) / unit
    # A quote that is less far outside than the one beside it may be right, and drawn
    # away by it.
    beside = np.maximum(_shifted(excess, 1), _shifted(excess, -1))
    far = (excess > FAR) & (excess >= beside)
    return far & (far.sum() <= MOST_FAR * len(quotes))


def _shifted(values: np.ndarray, places: int) -> np.ndarray:
    """The row moved by `places`; what comes in is minus infinity."""
    moved = np.roll(values, places)
    moved[0 if places > 0 else -1] = -np.inf
    return moved


@dataclass(frozen=True, eq=False)
class Smile:
    """Total volatilities of the quotes of one expiry, joined by straight lines.

    Attributes:
        abscissae: Log-moneyness of the quotes that tell one, increasing; maybe none.
        ordinates: Their total volatilities.
        at_the_money: Total volatility at the forward; NaN where no quote tells one.
        low: How far kinks should reach to the left, in log-moneyness.
        high: How far to the right.
    """

    abscissae: np.ndarray
    ordinates: np.ndarray
    at_the_money: float
    low: float
    high: float

    @classmethod
    def of(cls, quotes: NormalisedQuotes) -> Smile:
        """The smile of quotes, and how far kinks should reach beyond them."""
        total = quotes.total_volatility
        known = (total > 0.0) & (total < np.inf)
        # The middle of a spread that starts at zero says little about the volatility.
        telling = known & (quotes.lower != 0.0)
        telling = telling if telling.any() else known
        x, ordinates = quotes.x[telling], _usual(total[telling])
        if not x.size:
            return cls(x, ordinates, np.nan, np.nan, np.nan)
        at_the_money = float(np.interp(0.0, x, ordinates))
        lowest, highest = quotes.x[[0, -1]]
        low = min(x[0] - BEYOND * ordinates[0], -REACH * at_the_money)
        high = max(x[-1] + BEYOND * ordinates[-1], REACH * at_the_money)
        return cls(
            x,
            ordinates,
            at_the_money,
            float(min(low, lowest - 0.5 * ordinates[0])),
            float(max(high, highest + 0.5 * ordinates[-1])),
        )

    def __call__(self, at: np.ndarray) -> np.ndarray:
        """Total volatility at points of shape `(k,)`: flat beyond the quotes."""
        return np.interp(at, self.abscissae, self.ordinates)


def told_smile(quotes: ExpiryQuotes, normalised: NormalisedQuotes) -> Smile:
    """The smile of quotes, of which one must tell a volatility.

    Raises:
        QuoteError: If none does.
    """
    smile = Smile.of(normalised)
    if not 0.0 < smile.at_the_money < np.inf:
        raise QuoteError(
            f"{quotes}: no quote has a time value, so no volatility can be "
            "implied; check prices, forward, discount factor and the unit of "
            "volatilities, or leave the expiry out"
        )
    return smile


def _usual(volatilities: np.ndarray) -> np.ndarray:
    """No volatility far beyond all of its four neighbours: scales are read off them.

    The two outermost have neighbours on one side only, and are believed.
    """
    if len(volatilities) < 5:
        return volatilities
    around = np.lib.stride_tricks.sliding_window_view(volatilities, 5)[:, [0, 1, 3, 4]]
    low, high = around.min(1) / FARTHEST_SMILE, around.max(1) * FARTHEST_SMILE
    usual = volatilities.copy()
    usual[2:-2] = np.clip(volatilities[2:-2], low, high)
    return usual

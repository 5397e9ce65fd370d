r"""Variance swaps and volatility indices: the strip of options of a log contract.

The fair variance of a price that moves without jumps is that of a portfolio (Neuberger,
1994; Demeterfi, Derman, Kamal and Zou, 1999),

$$
\sigma^2 = -\frac{2}{T} E \log \frac{S}{F}
= \frac{2}{D T} \left( \int_0^F \frac{P(K)}{K^2} dK
+ \int_F^\infty \frac{C(K)}{K^2} dK \right),
$$

of which listed strikes give a part (truncation) and in steps (discreteness). With
straight lines between the strikes the second error has a sign and a bound, from the
height of the chords over the logarithm and the probabilities that the quotes allow; the
first likewise, from the convexity of prices in the strike.

References:
    Demeterfi, K., Derman, E., Kamal, M. and Zou, J. (1999). More than you ever wanted
    to know about volatility swaps. *Goldman Sachs Quantitative Strategies Research
    Notes*.
    Cboe (2019). *Cboe Volatility Index*. White paper.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from relu_options.decomposition import decompose, leg_quotes
from relu_options.errors import QuoteError
from relu_options.market_data import ExpiryQuotes, prepare_quotes
from relu_options.payoffs import log_contract
from relu_options.portfolio import StrikePortfolio

if TYPE_CHECKING:
    from relu_options.market_data import OptionChain

Rule = Literal["chords", "cboe"]
RULES = ("chords", "cboe")


@dataclass(frozen=True, eq=False)
class VarianceStrip:
    """A log contract in listed options, and the variance that it is worth.

    Attributes:
        portfolio: Options, and cash, that pay the variance at expiry.
        rule: "chords" or "cboe".
        fair_variance: At mid prices, per year.
        bid: Fair variance with every option at its bid.
        ask: Likewise at its ask.
        discreteness_bound: The strikes' steps make `fair_variance` too high by at most
            this; at mid prices, per year. NaN for "cboe", whose error has no sign.
        truncation_bound: Strikes beyond the listed ones would add at most this.
            Infinite where spots may be zero, since a logarithm is not bounded there.

    Examples:
        >>> import relu_options as ro
        >>> chain = ro.bundled_chain()
        >>> strip = variance_strip(chain[chain.slices[4]])
        >>> largest = strip.to_frame().nlargest(2, "contribution")
        >>> print(largest[["strike", "option_type"]].to_string(index=False))
         strike option_type
         5025.0         put
         5050.0        call
    """

    portfolio: StrikePortfolio
    rule: Rule
    fair_variance: float
    bid: float
    ask: float
    discreteness_bound: float
    truncation_bound: float

    @property
    def fair_volatility(self) -> float:
        """Root of the fair variance, 0.2 meaning 20%."""
        return float(np.sqrt(self.fair_variance))

    def to_frame(self) -> pd.DataFrame:
        """Weight and contribution of each strike.

        Returns:
            One row per leg: `strike`, `option_type`, `quantity` (options per unit of
            variance), `mid`, and `contribution` to the fair variance. A forward is one
            at the forward price, and contributes nothing.
        """
        portfolio = self.portfolio
        forward = portfolio.forward or 0.0
        # A forward at the forward price costs nothing: the rest of it is cash.
        moved = replace(portfolio, cash=portfolio.cash + portfolio.forwards * forward)
        table = moved.to_frame()
        table["mid"] = 0.5 * (table["bid"] + table["ask"])
        free = table["option_type"] == "forward"
        table.loc[free, ["strike", "mid"]] = [forward, 0.0]
        per_unit = table["mid"] / (portfolio.discount_factor or 1.0)
        table["contribution"] = table["quantity"] * per_unit
        return table[["strike", "option_type", "quantity", "mid", "contribution"]]


def variance_strip(
    quotes: ExpiryQuotes | OptionChain | pd.DataFrame,
    *,
    rule: Rule = "chords",
    lowest_spot: float = 0.0,
) -> VarianceStrip:
    r"""Fair variance of one expiry from its quotes, with weights and error bounds.

    Args:
        quotes: Of one expiry.
        rule: "chords" is the portfolio that is equal to the log contract at the listed
            strikes, with tangents beyond them. "cboe" is the formula of the Volatility
            Index, $\frac{2}{T} \sum_i \frac{\Delta K_i}{K_i^2} \frac{Q_i}{D} -
            \frac{1}{T} (F / K_0 - 1)^2$, without options of zero bid, nor any beyond
            two of these in a row.
        lowest_spot: Below which the spot cannot be at expiry, in currency units; for
            the bound on truncation.

    Returns:
        The strip.

    Raises:
        QuoteError: If the quotes cannot be used.
        ValueError: If the rule is unknown or `lowest_spot` is negative.

    Examples:
        >>> import relu_options as ro
        >>> chain = ro.bundled_chain()
        >>> strip = variance_strip(chain[chain.slices[4]], lowest_spot=500.0)
        >>> strip.bid < strip.fair_variance < strip.ask
        True
        >>> round(strip.fair_volatility, 4), round(strip.discreteness_bound, 6)
        (0.1884, 0.000108)
    """
    if rule not in RULES:
        raise ValueError(f"rule must be one of {list(RULES)}, not {rule!r}")
    if not lowest_spot >= 0.0:
        raise ValueError(f"lowest_spot must not be negative, but is {lowest_spot}")
    if not isinstance(quotes, ExpiryQuotes):
        quotes = prepare_quotes(quotes)
    quotes.require_lognormal(
        "it has no logarithm; the variance of its law is `PriceCurve.moments`"
    )
    if rule == "cboe":
        portfolio = _cboe(quotes)
    else:
        contract = 2.0 / quotes.time_to_expiry * log_contract(quotes.forward)
        portfolio = decompose(contract, quotes=quotes)
    discount = quotes.discount_factor
    bid, mid, ask = (portfolio.cost(side) / discount for side in ("bid", "mid", "ask"))
    discreteness, truncation = _bounds(quotes, lowest_spot)
    if rule == "cboe":
        discreteness = np.nan
    return VarianceStrip(portfolio, rule, mid, bid, ask, discreteness, truncation)


def _cboe(quotes: ExpiryQuotes) -> StrikePortfolio:
    """The portfolio behind the formula of the Volatility Index."""
    order = np.argsort(quotes.strike)
    strikes, bids = quotes.strike[order], quotes.bid[order]
    below = np.flatnonzero(strikes <= quotes.forward)
    if not len(below):
        raise QuoteError(
            f"no strike at or below the forward {quotes.forward:.10g}: the index has "
            "no K0; add puts"
        )
    centre = int(below[-1])
    kept = [centre]
    for side in (range(centre - 1, -1, -1), range(centre + 1, len(strikes))):
        zeros = 0
        for place in side:
            zeros = zeros + 1 if bids[place] == 0.0 else 0
            if zeros == 2:
                break
            if zeros == 0:
                kept.append(place)
    strikes = np.sort(strikes[kept])
    if len(strikes) < 2:
        raise QuoteError("the index needs two strikes with bids; there is one")
    steps = np.diff(strikes)
    widths = 0.5 * (np.append(steps[:1], steps) + np.append(steps, steps[-1:]))
    weights = 2.0 / quotes.time_to_expiry * widths / np.square(strikes)
    at = int(np.searchsorted(strikes, quotes.strike[order][centre]))
    # Half of a put and half of a call at K0.
    legs = np.insert(strikes, at, strikes[at])
    units = np.insert(weights, at, 0.5 * weights[at])
    units[at + 1] *= 0.5
    is_call = np.arange(len(legs)) > at
    bid, ask = leg_quotes(quotes, legs, is_call)
    return StrikePortfolio(
        -((quotes.forward / strikes[at] - 1.0) ** 2) / quotes.time_to_expiry,
        0.0,
        legs,
        is_call,
        units,
        bid=bid,
        ask=ask,
        forward=quotes.forward,
        discount_factor=quotes.discount_factor,
        expiry=None if quotes.expiry is None else f"{quotes.expiry:%Y-%m-%d}",
    )


def _bounds(quotes: ExpiryQuotes, lowest_spot: float) -> tuple[float, float]:
    """What steps, and strikes that are not listed, can be worth; at mid prices."""
    strikes = np.sort(quotes.strike)
    discount, years = quotes.discount_factor, quotes.time_to_expiry
    every = np.ones(len(strikes), bool)
    calls = np.mean(leg_quotes(quotes, strikes, every), axis=0) / discount
    puts = np.mean(leg_quotes(quotes, strikes, ~every), axis=0) / discount
    # Of a chord over the logarithm, the height is largest at the logarithmic mean.
    low, high = strikes[:-1], strikes[1:]
    ratio = np.log(high / low)
    mean = (high - low) / ratio
    heights = 2.0 / years * (np.log(mean / low) - (mean - low) / mean)
    # A step of one between two strikes is dominated by spreads of their neighbours.
    levels = np.concatenate([[quotes.forward], calls])
    spreads = -np.diff(levels) / np.diff(np.append(0.0, strikes))
    probability = spreads[:-1] - np.append(spreads[2:], 0.0)
    discreteness = float(np.clip(probability, 0.0, 1.0) @ heights)
    above = calls[-1] / strikes[-1]
    if lowest_spot >= strikes[0] or puts[0] <= 0.0:
        below = 0.0
    elif lowest_spot == 0.0:
        below = np.inf
    else:
        below = puts[0] / strikes[0] * np.log(strikes[0] / lowest_spot)
    return discreteness, float(2.0 / years * (max(above, 0.0) + below))

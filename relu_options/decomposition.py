r"""Read a network off as a portfolio of options that can be traded.

The kinks of a payoff network are strikes and its output weights are quantities, so
that the portfolio is there for the reading. What is to be decided is told to
`decompose`: calls or out-of-the-money options, which parity makes the same,

$$
\max(S - K, 0) = \max(K - S, 0) + S - K;
$$

which strikes are listed; and whether quantities are whole contracts.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from relu_options.errors import refuse
from relu_options.market_data import ExpiryQuotes, prepare_quotes
from relu_options.networks import BachelierNetwork, PriceNetwork, ReLUNetwork
from relu_options.payoffs import Payoff, SmoothPayoff, from_points
from relu_options.payoffs.numbers import as_rationals, increasing, is_exact
from relu_options.portfolio import StrikePortfolio

if TYPE_CHECKING:
    import pandas as pd

    from relu_options.market_data import OptionChain

Options = Literal["calls", "puts", "out_of_the_money"]


def decompose(
    network: ReLUNetwork | BachelierNetwork | PriceNetwork | Payoff | SmoothPayoff,
    *,
    options: Options | None = None,
    boundary: float | None = None,
    strikes: ArrayLike | None = None,
    quotes: ExpiryQuotes | OptionChain | pd.DataFrame | None = None,
    multiplier: float = 1.0,
    whole_contracts: bool = False,
) -> StrikePortfolio:
    r"""The portfolio of cash, forwards and options that a network is.

    A *payoff network*, or a `Payoff`, is a function of the spot at expiry, and the
    portfolio pays just that. So does that of a `BachelierNetwork` with its kinks made
    sharp: fitted to the value of a claim against the spot at some horizon, it is a
    semi-static hedge with options that expire there.

    A *price network* is a function of the strike, and is read in the strike: by
    $\varphi_0(s, K) = \max(s - K, 0)$ its hidden units are puts on the variable $K$,
    struck at the kinks. The portfolio holds, at each possible value $s_j$ of the
    underlying, its state price in puts; its payoff at $x$ is the price of a call
    struck at $x$ on the skeleton of the network. Its legs are the risk-neutral law:
    strikes are outcomes, quantities are discounted probabilities.

    A kink that is not among the listed strikes is shared between its two neighbours
    in proportion to its distance from them, where zero counts as a strike, the forward
    being its call. The portfolio then pays what the network does at every listed
    strike and is straight between; a kink above the last strike moves down to it. The
    exact difference is `StrikePortfolio.error_payoff`. A smooth payoff needs listed
    strikes; beyond the first and the last it is continued by its tangents.

    Args:
        network: What to decompose.
        options: "calls"; "puts"; or "out_of_the_money", puts below the boundary and
            calls above. A kink at the boundary itself is divided between the two such
            that as little of the underlying as possible is held. By default out of the
            money with quotes, puts for a price network, and otherwise calls.
        boundary: Strike that divides puts from calls out of the money, in currency
            units; by default the forward of the quotes.
        strikes: Listed strikes, in currency units, in any order; by default those of
            the quotes, or else every kink is a strike.
        quotes: Of one expiry; each leg then has a bid and an ask, by parity where the
            other option of its strike is quoted.
        multiplier: Units of the underlying in a contract.
        whole_contracts: Round to whole contracts, such that the slope is off by no more
            than half a contract anywhere.

    Returns:
        The portfolio, with the network as its target.

    Raises:
        ValueError: If the boundary or the strikes that are needed are not given, an
            option is unknown, or a boundary divides nothing.
        QuoteError: If the quotes cannot be used.

    Examples:
        >>> from relu_options import payoffs
        >>> straddle = payoffs.straddle(100.0)
        >>> decompose(straddle)
        StrikePortfolio(100 cash, -1 forwards; 2 call 100)
        >>> decompose(straddle, options="out_of_the_money", boundary=100.0)
        StrikePortfolio(1 put 100, 1 call 100)

        With strikes at 90 and 110 only, it is a strangle with some cash: too much by
        10 at 100.

        >>> near = decompose(straddle, strikes=[90.0, 110.0])
        >>> near.error_payoff.bounds()
        (0.0, 10.0)
    """
    options = _chosen_options(options, network, quotes is not None)
    if quotes is not None and not isinstance(quotes, ExpiryQuotes):
        quotes = prepare_quotes(quotes)
    if quotes is not None:
        quotes.require_lognormal(
            "a payoff on listed strikes is one for spots from zero on; decompose it "
            "without quotes, and price it on a curve"
        )
    if strikes is None and quotes is not None:
        strikes = quotes.strike
    listed = None if strikes is None else np.unique(np.asarray(strikes))
    split = _boundary(options, boundary, quotes)
    payoff, target = _as_payoff(network, listed)
    rational = is_exact(payoff.strikes) and not isinstance(network, PriceNetwork)
    payoff = payoff.exactly()
    if listed is not None:
        payoff = onto_strikes(payoff, listed)
    cash, forwards, legs, is_call, units = _by_parity(payoff, split)
    quantities = units / (Fraction(multiplier) if rational else multiplier)
    if not rational:
        cash, forwards = float(cash), float(forwards)
        legs, quantities = legs.astype(float), quantities.astype(float)
    if whole_contracts:
        quantities = _whole(quantities, is_call)
        kept = quantities != 0
        legs, is_call, quantities = legs[kept], is_call[kept], quantities[kept]
    market = {} if quotes is None else _market(quotes, legs, is_call)
    return StrikePortfolio(
        cash,
        forwards,
        legs,
        is_call,
        quantities,
        multiplier=multiplier,
        target=target,
        **market,
    )


def _chosen_options(options: Options | None, network: Any, quoted: bool) -> Options:
    """The options asked for, or those that suit the network best."""
    if options not in (None, "calls", "puts", "out_of_the_money"):
        raise ValueError(
            f"options must be 'calls', 'puts' or 'out_of_the_money', not {options!r}"
        )
    if options is not None:
        return options
    if isinstance(network, PriceNetwork):
        return "puts"
    return "out_of_the_money" if quoted else "calls"


def _boundary(
    options: Options, boundary: float | None, quotes: ExpiryQuotes | None
) -> float:
    """The strike below which options are puts, and calls above it."""
    if options != "out_of_the_money":
        refuse(
            f"options={options!r} holds no others; pass options='out_of_the_money'",
            boundary=boundary,
        )
        return -np.inf if options == "calls" else np.inf
    if boundary is None and quotes is not None:
        boundary = quotes.forward
    if boundary is None:
        raise ValueError(
            "out-of-the-money options need a `boundary=` between puts and calls, "
            "such as the forward"
        )
    return boundary


def _market(
    quotes: ExpiryQuotes, legs: np.ndarray, is_call: np.ndarray
) -> dict[str, Any]:
    """What a portfolio of these legs knows of the market."""
    bid, ask = leg_quotes(quotes, legs, is_call)
    return {
        "bid": bid,
        "ask": ask,
        "forward": quotes.forward,
        "discount_factor": quotes.discount_factor,
        "expiry": None if quotes.expiry is None else f"{quotes.expiry:%Y-%m-%d}",
    }


def onto_strikes(payoff: Payoff, listed: np.ndarray) -> Payoff:
    r"""The payoff with every kink moved to listed strikes.

    A hinge at $k$ between neighbours $K < k < K'$ becomes hinges at $K$ and $K'$, in
    the shares $(K' - k) / (K' - K)$ and the rest: equal at all strikes, and beyond.

    Args:
        payoff: Any.
        listed: Increasing and positive, of shape `(n,)` with `n >= 1`.

    Returns:
        The payoff, with the strikes of `listed` only; equal to the given one at zero
        and at every listed strike, and with its slope beyond the last, as long as it
        has no kink there.

    Raises:
        ValueError: If there are no listed strikes or one is not positive.

    Examples:
        >>> from relu_options.payoffs import call
        >>> onto_strikes(4.0 * call(95.0), np.array([80.0, 100.0]))
        Payoff(1 calls 80, 3 calls 100)
    """
    listed = increasing(listed)
    if not listed[0] > 0:
        raise ValueError(
            f"listed strikes must be positive, not {listed[0]}; drop those that are not"
        )
    if is_exact(payoff.strikes):
        listed = as_rationals(listed)
    nodes = np.append(listed[:1] * 0, listed)
    kinks = np.minimum(np.maximum(payoff.strikes, nodes[0]), nodes[-1])
    above = np.minimum(np.searchsorted(nodes, kinks, side="right"), len(nodes) - 1)
    low, high = nodes[above - 1], nodes[above]
    upper = payoff.weights * ((kinks - low) / (high - low))
    lower = payoff.weights * ((high - kinks) / (high - low))
    # A kink below zero is part of the straight line from zero on.
    negative = payoff.strikes < 0
    gone = payoff.weights[negative] @ payoff.strikes[negative] if negative.any() else 0
    at_zero = low == 0
    slope = payoff.slope + lower[at_zero].sum() if at_zero.any() else payoff.slope
    return Payoff(
        payoff.cash - gone,
        slope,
        np.append(low[~at_zero], high),
        np.append(lower[~at_zero], upper),
    )


def leg_quotes(
    quotes: ExpiryQuotes, strikes: np.ndarray, is_call: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Bid and ask of options at quoted strikes, by parity where the other is quoted.

    Args:
        quotes: Of one expiry; mids count as both bid and ask where only they are known.
        strikes: Of shape `(n,)`.
        is_call: Of shape `(n,)`.

    Returns:
        Bids and asks in currency units paid today, of shape `(n,)`; NaN at strikes that
        are not quoted.

    Examples:
        The put at 110 is the call there, less a forward.

        >>> import pandas as pd
        >>> table = pd.DataFrame({"strike": [90.0, 100.0, 110.0],
        ...                       "option_type": ["put", "call", "call"],
        ...                       "bid": [1.0, 4.0, 1.0], "ask": [1.25, 4.25, 1.25]})
        >>> quotes = prepare_quotes(table, forward=100.0, discount_factor=1.0,
        ...                         time_to_expiry=0.5)
        >>> leg_quotes(quotes, np.array([100.0, 110.0]), np.array([True, False]))
        (array([ 4., 11.]), array([ 4.25, 11.25]))
    """
    order = np.argsort(quotes.strike)
    known = quotes.strike[order]
    place = np.minimum(np.searchsorted(known, strikes), len(known) - 1)
    row = order[place]
    discounted = quotes.discount_factor * (quotes.forward - strikes)
    listed = {name: values[row] for name, values in quotes.listed.items()}
    other = np.asarray(is_call, bool) != listed["is_call"]
    turned = np.where(other, np.where(is_call, discounted, -discounted), 0.0)
    turned = np.where(known[place] == strikes, turned, np.nan)
    return np.maximum(listed["bid"] + turned, 0.0), listed["ask"] + turned


def _as_payoff(network: Any, listed: np.ndarray | None) -> tuple[Payoff, Any]:
    """The piecewise-linear payoff to read off, and what it stands for."""
    if isinstance(network, Payoff):
        return network, network
    if isinstance(network, ReLUNetwork):
        payoff = Payoff.from_network(network)
        return payoff, payoff
    if isinstance(network, BachelierNetwork):
        return Payoff.from_network(network.skeleton), network
    if isinstance(network, PriceNetwork):
        strikes = as_rationals(np.asarray(network.kinks))
        weights = as_rationals(np.asarray(network.weights))
        return Payoff(sum(weights * strikes), -sum(weights), strikes, weights), network
    if isinstance(network, SmoothPayoff):
        if listed is None:
            raise ValueError(
                f"{network.name} has no kinks to read off; pass listed `strikes=`, or "
                "decompose `payoff.piecewise_linear(strikes)`"
            )
        slopes = np.asarray(network.derivative(listed), float)
        values = np.asarray(network(listed), float)
        ends = {"left_slope": slopes[0], "right_slope": slopes[-1]}
        return from_points(listed, values, **ends), network
    raise TypeError(
        f"cannot decompose {type(network).__name__}; pass a network or a payoff, such "
        "as `curve.network`"
    )


def _by_parity(payoff: Payoff, boundary: Any) -> tuple[Any, ...]:
    """Cash, forwards, strikes, flags and units: puts below the boundary, calls above.

    The straight piece of the payoff at the boundary is cash and forwards. All numbers
    are rational.
    """
    strikes, weights = payoff.strikes, payoff.weights
    below, above = strikes < boundary, strikes > boundary
    at = ~below & ~above
    cash = payoff.cash - sum(weights[below] * strikes[below])
    left = payoff.slope + sum(weights[below])
    right = left + sum(weights[at])
    forwards = sorted([Fraction(0), left, right])[1] if at.any() else left
    cash -= sum((forwards - left) * strikes[at])
    units = np.concatenate(
        [
            weights[below],
            np.full(at.sum(), forwards - left),
            np.full(at.sum(), right - forwards),
            weights[above],
        ]
    )
    legs = np.concatenate([strikes[below], strikes[at], strikes[at], strikes[above]])
    is_call = np.arange(len(legs)) >= below.sum() + at.sum()
    held = units != 0
    return cash, forwards, legs[held], is_call[held], units[held]


def _whole(quantities: np.ndarray, is_call: np.ndarray) -> np.ndarray:
    """Whole contracts whose sums, outward from the boundary, are the nearest whole."""
    puts, calls = quantities[~is_call][::-1], quantities[is_call]
    sums = [np.round(np.cumsum(np.asarray(side, float))) for side in (puts, calls)]
    puts, calls = (np.diff(total, prepend=0.0) for total in sums)
    return np.append(puts[::-1], calls)

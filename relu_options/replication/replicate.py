"""Replicate a payoff with the options that are listed."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, Unpack, overload

import numpy as np
from numpy.typing import ArrayLike

from relu_options.curves import PriceCurve
from relu_options.errors import QuoteError, refuse, require_payoff
from relu_options.fitting.curve import fit_curve
from relu_options.market_data import (
    ExpiryQuotes,
    Quotes,
    Reading,
    prepare_quotes,
)
from relu_options.payoffs import Payoff, SmoothPayoff
from relu_options.replication.domination import DominatingHedge, dominate
from relu_options.replication.few_strikes import best_strikes
from relu_options.replication.instruments import Instruments, kinks_of
from relu_options.replication.lots import LotHedge, LotTerms, dominate_in_lots
from relu_options.replication.pieces import Regression
from relu_options.replication.quadratic import QuadraticHedge, quadratic_hedge
from relu_options.replication.spot_law import SpotLaw

Market: TypeAlias = PriceCurve | ExpiryQuotes | Quotes
"""What a payoff is replicated on: a curve, or whatever quotes of one expiry."""

Method = Literal["quadratic", "super", "sub"]
METHODS = ("quadratic", "super", "sub")


@overload
def replicate(
    payoff: Payoff | SmoothPayoff,
    market: Market,
    *,
    method: Literal["quadratic"] = ...,
    strikes: ArrayLike | None = ...,
    curve: PriceCurve | None = ...,
    max_legs: int | None = ...,
    cost_weight: float = ...,
    **reading: Unpack[Reading],
) -> QuadraticHedge: ...


@overload
def replicate(
    payoff: Payoff | SmoothPayoff,
    market: Market,
    *,
    method: Literal["super", "sub"],
    strikes: ArrayLike | None = ...,
    spots: tuple[float, float] = ...,
    max_quantity: float | None = ...,
    trade_forward: bool = ...,
    **reading: Unpack[Reading],
) -> DominatingHedge: ...


@overload
def replicate(
    payoff: Payoff | SmoothPayoff,
    market: Market,
    *,
    method: Literal["super", "sub"],
    lots: LotTerms,
    strikes: ArrayLike | None = ...,
    max_legs: int | None = ...,
    spots: tuple[float, float] = ...,
    trade_forward: bool = ...,
    **reading: Unpack[Reading],
) -> LotHedge: ...


def replicate(
    payoff: Payoff | SmoothPayoff,
    market: Market,
    *,
    method: Method = "quadratic",
    strikes: ArrayLike | None = None,
    curve: PriceCurve | None = None,
    max_legs: int | None = None,
    cost_weight: float = 0.0,
    spots: tuple[float, float] = (0.0, np.inf),
    max_quantity: float | None = None,
    trade_forward: bool = True,
    lots: LotTerms | None = None,
    **reading: Unpack[Reading],
) -> QuadraticHedge | DominatingHedge | LotHedge:
    r"""Replicate a payoff with cash, the forward and listed options.

    * "quadratic" makes the expected squared error least, under the density of a curve.
      With `max_legs` it chooses the strikes, and states a lower bound on the error of
      any choice of as many.
    * "super" is the cheapest portfolio that pays at least as much as the payoff at
      every spot, bought at the ask and sold at the bid; "sub" the dearest that pays at
      most as much. Their costs are the interval of prices that the quotes allow.
      With `lots` quantities are whole contracts, with fees.

    Args:
        payoff: What to replicate.
        market: Quotes of one expiry (what `read_chain` reads, one slice of a chain, or
            prepared quotes), or a price curve. Where the method needs a density and
            there are only quotes, a curve is fitted to them.
        method: "quadratic", "super" or "sub".
        strikes: Those that may be used; by default all that are quoted. A strike that
            is quoted in the money only is held as that option with a forward, so not
            with `trade_forward=False`.
        curve: For its density, beside quotes for their costs.
        max_legs: Number of options at most.
        cost_weight: Squared error that a unit of half-spread is worth, in currency
            units; for "quadratic".
        spots: Lowest and highest spot at which to dominate; for "super" and "sub".
        max_quantity: Of any option, long or short, likewise.
        trade_forward: Whether the forward may be held, likewise.
        lots: Contract size, sizes and fees, likewise.
        **reading: What is known of the quotes, and how to read them, as for
            `read_chain`.

    Returns:
        The portfolio with its error, or with its cost and the worst price system.

    Raises:
        ValueError: If the request makes no sense, or no portfolio of what is listed
            dominates the payoff.
        ArbitrageError: If the quotes admit an arbitrage, for "super" and "sub".
        QuoteError: If the quotes cannot be used.
        FitError: If a solver fails.

    Examples:
        A log contract with four of eleven strikes: the error is within a hundredth of
        the least that is possible.

        >>> import relu_options as ro
        >>> curve = ro.BlackScholesCurve(volatility=0.2, forward=100.0,
        ...                              time_to_expiry=1.0)
        >>> strikes = np.arange(50.0, 151.0, 10.0)
        >>> contract = 200.0 * ro.payoffs.log_contract(100.0)
        >>> hedge = ro.replicate(contract, curve, strikes=strikes, max_legs=4)
        >>> hedge.portfolio.strikes
        array([ 70.,  90., 110., 140.])
        >>> round(hedge.share_explained, 3), hedge.gap < 0.01
        (0.994, True)
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {list(METHODS)}, not {method!r}")
    require_payoff(payoff)
    market = _prepared(market, method, **reading)
    instruments = Instruments.of(market, strikes)
    if not trade_forward:
        instruments = instruments.without_forwards()
    if max_legs is not None and max_legs < 1:
        raise ValueError(f"max_legs must be positive, not {max_legs}")
    if method == "quadratic":
        _refuse_of_domination(spots, lots, max_quantity, trade_forward)
        if curve is None:
            curve = market if isinstance(market, PriceCurve) else fit_curve(market)
        return _quadratic(payoff, instruments, curve, max_legs, cost_weight)
    if curve is not None or cost_weight:
        raise ValueError("curve and cost_weight are for the method 'quadratic'")
    if lots is not None or max_legs is not None:
        if max_quantity is not None:
            raise ValueError("with lots, limit contracts by `LotTerms(max_size=...)`")
        return dominate_in_lots(
            payoff,
            instruments,
            method,
            lots or LotTerms(whole=False),
            max_legs=max_legs,
            spots=spots,
            trade_forward=trade_forward,
        )
    return dominate(
        payoff,
        instruments,
        method,
        spots=spots,
        max_quantity=max_quantity,
        trade_forward=trade_forward,
    )


def price_interval(
    payoff: Payoff | SmoothPayoff,
    quotes: Market,
    *,
    spots: tuple[float, float] = (0.0, np.inf),
    **reading: Unpack[Reading],
) -> tuple[float, float]:
    """Lowest and highest price of a payoff that the quotes allow, whatever the model.

    Args:
        payoff: What is to be priced.
        quotes: Of one expiry, as for `replicate`.
        spots: Lowest and highest spot that are possible.
        **reading: As for `read_chain`.

    Returns:
        Costs today of the hedges below and above it, in currency units.

    Examples:
        >>> import relu_options as ro
        >>> chain = ro.bundled_chain()
        >>> quotes = ro.prepare_quotes(chain[chain.slices[2]])
        >>> low, high = price_interval(ro.payoffs.straddle(5010.0), quotes)
        >>> fair = ro.decompose(ro.payoffs.straddle(5010.0)).price(ro.fit_curve(quotes))
        >>> low < fair < high
        True
    """
    if not isinstance(quotes, PriceCurve | ExpiryQuotes):  # once, not twice
        quotes, reading = prepare_quotes(quotes, **reading), {}
    below = replicate(payoff, quotes, method="sub", spots=spots, **reading)
    above = replicate(payoff, quotes, method="super", spots=spots, **reading)
    return below.cost, above.cost


def _prepared(
    market: Market, method: Method, **reading: Unpack[Reading]
) -> PriceCurve | ExpiryQuotes:
    """The curve, or the quotes that are read, if the method has hedges by them."""
    if isinstance(market, PriceCurve | ExpiryQuotes):
        refuse("a curve, and prepared quotes, have been read", **reading)
    else:
        market = prepare_quotes(market, **reading)
    signed = market.kernel == "normal"
    if signed and (isinstance(market, ExpiryQuotes) or method != "quadratic"):
        raise QuoteError(
            "hedges by quotes, and those that never lose, are for spots from zero on, "
            "and the underlying may be negative (normal kernel); use a curve, "
            "method='quadratic' and positive strikes"
        )
    return market


def _refuse_of_domination(
    spots: tuple[float, float],
    lots: LotTerms | None,
    max_quantity: float | None,
    trade_forward: bool,
) -> None:
    """Raise if a quadratic hedge is asked for what only domination has."""
    everywhere = spots[0] == 0.0 and spots[1] == np.inf
    refuse(
        "the method 'quadratic' weighs all spots by the density of the curve; use "
        "'super' or 'sub'",
        spots=None if everywhere else spots,
    )
    if lots is not None or max_quantity is not None or not trade_forward:
        raise ValueError(
            "lots, max_quantity and trade_forward are for methods 'super' and "
            "'sub'; round a quadratic hedge with `decompose(..., "
            "whole_contracts=True)`"
        )


def _quadratic(
    payoff: Any,
    instruments: Instruments,
    curve: PriceCurve,
    max_legs: int | None,
    cost_weight: float,
) -> QuadraticHedge:
    strikes = instruments.strikes
    law = SpotLaw.of(curve, np.append(strikes, kinks_of(payoff)))
    if max_legs is None or max_legs >= len(strikes):
        return quadratic_hedge(payoff, instruments, law, cost_weight=cost_weight)
    values = np.asarray(payoff(law.spots), float)
    chosen, bound = best_strikes(Regression.of(law, values, strikes), max_legs)
    hedge = quadratic_hedge(payoff, instruments, law, chosen, cost_weight)
    bound = float(np.sqrt(bound / law.probabilities.sum()))
    return QuadraticHedge(hedge.portfolio, hedge.rms_error, hedge.unhedged_error, bound)

"""What a hedge may hold: options of one expiry with what they cost, and the forward."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from relu_options.curves import PriceCurve
from relu_options.decomposition import leg_quotes
from relu_options.market_data import ExpiryQuotes, prepare_quotes
from relu_options.payoffs import Payoff
from relu_options.portfolio import StrikePortfolio


@dataclass(frozen=True, eq=False)
class Instruments:
    """Out-of-the-money options of one expiry, one per strike, cash and the forward.

    Attributes:
        strikes: Increasing and positive, of shape `(n,)`, in currency units.
        is_call: Of shape `(n,)`: puts below the forward, calls at and above it.
        bid: Of shape `(n,)`, in currency units paid today.
        ask: Likewise; equal to the bid where there is no spread.
        forward: Currency units. It is traded without a spread, as is cash.
        discount_factor: Price today of one unit of currency paid at expiry.
        expiry: The date as text, if known.
        listed: Which of the options listed are calls, and their bids and asks, where
            some strikes are quoted in the money only; None where all are as above. A
            put is then the listed call at its strike less a forward.
    """

    strikes: np.ndarray
    is_call: np.ndarray
    bid: np.ndarray
    ask: np.ndarray
    forward: float
    discount_factor: float
    expiry: str | None = None
    listed: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    @property
    def as_listed(self) -> dict[str, np.ndarray]:
        """Strike, type, bid and ask of what is listed."""
        is_call, bid, ask = self.listed or (self.is_call, self.bid, self.ask)
        return {"strike": self.strikes, "is_call": is_call, "bid": bid, "ask": ask}

    def without_forwards(self) -> Instruments:
        """Those that can be held without one: listed out of the money."""
        if self.listed is None:
            return self
        kept = self.listed[0] == self.is_call
        arrays = ("strikes", "is_call", "bid", "ask")
        changes = {name: getattr(self, name)[kept] for name in arrays}
        return replace(self, **changes, listed=None)

    @staticmethod
    def of(market: Any, strikes: ArrayLike | None = None) -> Instruments:
        """Options on quotes at their bids and asks, or on a curve at its prices.

        Args:
            market: Quotes of one expiry, or a price curve.
            strikes: Those to use; by default all that are quoted. A curve that was not
                fitted to quotes has none of its own.

        Raises:
            ValueError: If there are no strikes, or one is not positive or not quoted.
            QuoteError: If the quotes cannot be used.
        """
        if isinstance(market, PriceCurve):
            return _on_curve(market, strikes)
        if not isinstance(market, ExpiryQuotes):
            market = prepare_quotes(market)
        listed = _listed(market.strike if strikes is None else strikes)
        is_call = listed >= market.forward
        bid, ask = leg_quotes(market, listed, is_call)
        unknown = listed[np.isnan(bid) | np.isnan(ask)]
        if len(unknown):
            raise ValueError(
                f"{len(unknown)} of {len(listed)} strikes are not quoted: "
                f"{', '.join(f'{strike:.10g}' for strike in unknown[:3])}; leave "
                "them out, or replicate on a curve"
            )
        expiry = None if market.expiry is None else f"{market.expiry:%Y-%m-%d}"
        own = market.strike.argsort()
        own = own[np.searchsorted(market.strike, listed, sorter=own)]
        quoted = {name: values[own] for name, values in market.listed.items()}
        return Instruments(
            listed,
            is_call,
            bid,
            ask,
            market.forward,
            market.discount_factor,
            expiry,
            (quoted["is_call"], quoted["bid"], quoted["ask"])
            if market.converted.any()
            else None,
        )

    def portfolio(
        self,
        cash: float,
        forwards: float,
        quantities: np.ndarray,
        target: Any,
        multiplier: float = 1.0,
    ) -> StrikePortfolio:
        """Legs with their quotes; `quantities` of shape `(n,)`, in contracts.

        An option that is listed in the money only stands for the other with a forward,
        by parity.
        """
        held = quantities != 0.0
        listed = {name: values[held] for name, values in self.as_listed.items()}
        turned = np.where(
            listed["is_call"] != self.is_call[held], quantities[held], 0.0
        )
        turned = multiplier * np.where(listed["is_call"], -turned, turned)
        return StrikePortfolio(
            float(cash - turned @ listed["strike"]),
            float(forwards + turned.sum()),
            listed["strike"],
            listed["is_call"],
            quantities[held],
            bid=listed["bid"],
            ask=listed["ask"],
            multiplier=multiplier,
            forward=self.forward,
            discount_factor=self.discount_factor,
            expiry=self.expiry,
            target=target,
        )

    def from_calls(
        self, cash: float, slope: float, weights: np.ndarray, target: Any
    ) -> StrikePortfolio:
        """The portfolio of a payoff network with kinks at all strikes.

        Args:
            cash: Value at a spot of zero.
            slope: Left of every strike.
            weights: Of shape `(n,)`: changes of slope.
            target: What the portfolio stands for.
        """
        puts = ~self.is_call
        turned = float(cash - weights[puts] @ self.strikes[puts])
        forwards = float(slope + weights[puts].sum())
        return self.portfolio(turned, forwards, weights, target)


def kinks_of(payoff: Any) -> np.ndarray:
    """Where the slope of a payoff jumps; nowhere, if it is smooth."""
    if isinstance(payoff, Payoff):
        return payoff.strikes.astype(float)
    return np.zeros(0)


def _on_curve(curve: PriceCurve, strikes: ArrayLike | None) -> Instruments:
    """Options at the prices of a curve."""
    if strikes is None:
        if curve.fit is None:
            raise ValueError(
                "the curve was not fitted to quotes, so no strikes are listed; pass "
                "`strikes=`"
            )
        strikes = curve.fit.quotes.strike
    listed = _listed(strikes)
    is_call = listed >= curve.forward
    calls, puts = curve.price(listed), curve.price(listed, is_call=False)
    price = np.where(is_call, calls, puts)
    terms = curve.forward, curve.discount_factor, curve.expiry
    return Instruments(listed, is_call, price, price, *terms)


def _listed(strikes: ArrayLike) -> np.ndarray:
    """Strikes as an increasing array, after checking them."""
    listed = np.unique(np.asarray(strikes, float))
    if not len(listed) or not (listed[0] > 0.0 and np.isfinite(listed).all()):
        raise ValueError(
            f"a hedge needs listed strikes, all positive, not {listed[:3].tolist()}"
        )
    return listed

"""Strategies to start from. Each is a small frozen object, called with a view.

They keep no state: what they hold is read off the view. Hedging with the underlying is
an argument of the backtest (`DeltaHedge`), not of a strategy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from relu_options.backtest.orders import Claim, Order, Target
from relu_options.backtest.view import MarketView
from relu_options.decomposition import decompose
from relu_options.payoffs import Payoff, SmoothPayoff
from relu_options.portfolio import StrikePortfolio
from relu_options.replication import replicate
from relu_options.variance import Rule, variance_strip


@dataclass(frozen=True)
class Leg:
    """One option of a structure, its strike by moneyness or by delta.

    Attributes:
        quantity: Contracts; negative is sold.
        is_call: False for a put.
        moneyness: Strike over forward; the nearest listed strike is taken.
        delta: Instead: 0.25 for a call, -0.25 for a put.

    Raises:
        ValueError: Unless one of the two is given.

    Examples:
        >>> Leg(-1.0, is_call=False, delta=-0.25).moneyness is None
        True
    """

    quantity: float
    is_call: bool
    moneyness: float | None = None
    delta: float | None = None

    def __post_init__(self) -> None:
        if (self.moneyness is None) == (self.delta is None):
            raise ValueError("a leg has either a moneyness or a delta")

    def strike(self, view: MarketView, expiry: str) -> float:
        """The listed strike nearest to what is asked."""
        return view.strike(expiry, moneyness=self.moneyness, delta=self.delta)


@dataclass(frozen=True)
class HoldToExpiry:
    """Buy a structure, hold it until it expires, and buy the next.

    Attributes:
        legs: Options of one expiry, filled together.
        days: To the expiry that is sought.
        renew: Whether to go on after the first has expired.

    Examples:
        A long straddle of a month.

        >>> straddle = HoldToExpiry((Leg(1, is_call=True, moneyness=1.0),
        ...                          Leg(1, is_call=False, moneyness=1.0)))
        >>> straddle.days, len(straddle.legs)
        (30.0, 2)
    """

    legs: tuple[Leg, ...]
    days: float = 30.0
    renew: bool = True

    def __call__(self, view: MarketView) -> StrikePortfolio | None:
        """The structure, if nothing is held."""
        if view.has_options or (view.has_traded and not self.renew):
            return None
        expiry = view.expiry(days=self.days)
        return view.order(
            expiry,
            [leg.strike(view, expiry) for leg in self.legs],
            [leg.is_call for leg in self.legs],
            [leg.quantity for leg in self.legs],
        )


def straddle(quantity: float = 1.0, *, days: float = 30.0) -> HoldToExpiry:
    """A call and a put at the money, held to expiry; sold if negative.

    Examples:
        >>> [leg.quantity for leg in straddle(-2.0).legs]
        [-2.0, -2.0]
    """
    kinds = (False, True)
    legs = tuple(Leg(quantity, is_call=kind, moneyness=1.0) for kind in kinds)
    return HoldToExpiry(legs, days)


def short_strangle(
    quantity: float = 1.0, *, delta: float = 0.25, days: float = 30.0
) -> HoldToExpiry:
    """A put and a call of a delta, sold and held to expiry.

    With `hedge=DeltaHedge()` the account earns what implied volatility was above the
    realised one, weighted by gamma.

    Examples:
        >>> [leg.delta for leg in short_strangle(delta=0.1).legs]
        [-0.1, 0.1]
    """
    legs = (
        Leg(-quantity, is_call=False, delta=-delta),
        Leg(-quantity, is_call=True, delta=delta),
    )
    return HoldToExpiry(legs, days)


@dataclass(frozen=True)
class BuyWrite:
    """Hold the underlying and sell calls on all of it, again at each expiry.

    Attributes:
        contracts: Calls, each on the units of a contract, that the underlying is bought
            for at the start.
        moneyness: Strike over forward of the calls.
        days: To their expiry.

    Examples:
        >>> BuyWrite(moneyness=1.05).days
        30.0
    """

    contracts: float = 1.0
    moneyness: float = 1.02
    days: float = 30.0

    def __call__(self, view: MarketView) -> list[StrikePortfolio] | None:
        """The underlying once, and calls whenever none are held."""
        if view.has_options:
            return None
        expiry = view.expiry(days=self.days)
        call = view.call(expiry, view.strike(expiry, moneyness=self.moneyness))
        units = view.units or self.contracts * call.multiplier
        written = replace(call, quantities=np.array([-units / call.multiplier]))
        bought = [] if view.units else [view.underlying(units)]
        return [*bought, written]


@dataclass(frozen=True)
class Calendar:
    """Sell a near option and buy a later one of the same strike.

    When the near one has expired the later one is sold and the next spread bought.

    Attributes:
        quantity: Spreads, in contracts.
        near, far: Days to the expiries.
        moneyness: Strike over the forward of the near expiry.
        is_call: False for puts.

    Examples:
        >>> Calendar(far=90.0).near
        30.0
    """

    quantity: float = 1.0
    near: float = 30.0
    far: float = 60.0
    moneyness: float = 1.0
    is_call: bool = True

    def __call__(self, view: MarketView) -> list[StrikePortfolio] | None:
        """Both legs when the near one is gone; the old far one is closed."""
        if view.positions["expiry"].nunique() == 2:
            return None
        near = view.expiry(days=self.near)
        far = view.expiry(days=self.far, least=view.days_to_expiry(near) + 1.0)
        if near == far:
            return view.close()
        common = np.intersect1d(view.strikes(near), view.strikes(far))
        if not len(common):
            return view.close()
        wanted = self.moneyness * view.forward(near)
        strike = common[np.argmin(np.abs(common - wanted))]
        return [
            *view.close(),
            view.order(near, strike, self.is_call, -self.quantity),
            view.order(far, strike, self.is_call, self.quantity),
        ]


@dataclass(frozen=True)
class VarianceSwap:
    r"""The options of a log contract, held to expiry.

    With `hedge=DeltaHedge()` a long one earns about notional times realised minus
    implied variance: $\frac{2}{T} \int O(K) / K^2 \, dK$ is what variance costs, and
    trading the delta away pays what the path had.

    Attributes:
        notional: Currency units per unit of variance, which is 1 for 100 % volatility;
            negative is sold.
        days: To the expiry.
        rule: See `relu_options.variance_strip`; "cboe" leaves out options without a
            bid, which cannot be sold.

    Examples:
        >>> VarianceSwap(-1e6).rule
        'cboe'
    """

    notional: float = 1e6
    days: float = 30.0
    rule: Rule = "cboe"

    def __call__(self, view: MarketView) -> StrikePortfolio | None:
        """The strip, if nothing is held."""
        if view.has_options:
            return None
        expiry = view.expiry(days=self.days)
        strip = variance_strip(view.slice_chain(expiry), rule=self.rule).portfolio
        quantities = self.notional * np.asarray(strip.quantities, float)
        return replace(
            strip, forwards=0.0, cash=0.0, quantities=quantities, expiry=expiry
        )


@dataclass(frozen=True)
class Replication:
    """Sell an exotic payoff over the counter and replicate it with listed options.

    The claim is sold at the price of the surface, the hedge bought at its quotes, and
    both held to expiry: the profit is the error of the hedge, and its cost. With
    `listed=False` no options are bought: with `hedge=DeltaHedge()` that is delta
    hedging, to compare it with.

    Attributes:
        payoff: From the forward at inception to the payoff, which it need not list
            strikes for.
        quantity: Claims sold.
        days: To the expiry.
        listed: Whether to buy the replicating portfolio.
        max_legs: Number of options in it, at most.
        renew: Whether to sell the next when the first has expired.

    Examples:
        >>> import relu_options as ro
        >>> def digital(forward):
        ...     return ro.payoffs.digital(forward, width=0.02 * forward)
        >>> Replication(digital, quantity=100.0).listed
        True
    """

    payoff: Callable[[float], Payoff | SmoothPayoff]
    quantity: float = 1.0
    days: float = 90.0
    listed: bool = True
    max_legs: int | None = None
    renew: bool = True

    def __call__(self, view: MarketView) -> list[Order] | None:
        """The claim and its hedge, once what was held has expired."""
        if view.has_options or (view.has_traded and not self.renew):
            return None
        expiry = view.expiry(days=self.days)
        forward = view.forward(expiry)
        payoff = self.payoff(forward)
        fine = forward * np.linspace(0.4, 1.8, 141)
        smooth = isinstance(payoff, SmoothPayoff)
        claim = decompose(payoff, strikes=fine if smooth else None)
        orders: list[Order] = [Claim(_times(claim, -self.quantity, expiry))]
        curve = view.curve(expiry) if self.listed else None
        if curve is not None:
            hedge = replicate(
                payoff,
                view.slice_chain(expiry),
                strikes=_with_bids(view, expiry),
                curve=curve,
                max_legs=self.max_legs,
            )
            orders.append(_times(hedge.portfolio, self.quantity, expiry))
        return orders


@dataclass(frozen=True)
class RichCheap:
    """Sell what is rich against the fitted surface and buy what is cheap.

    Richness is the mid less the fitted price, in half-spreads. The richest and the
    cheapest options beyond a threshold are traded, and all closed after some dates.

    Attributes:
        threshold: Half-spreads.
        count: Options on either side, at most.
        contracts: Of each.
        hold: Dates to hold them.
        days: Fewest and most days to expiry.
        volatility_range: Moneyness in at-the-money deviations, at most.

    Examples:
        >>> RichCheap(threshold=0.5).hold
        5
    """

    threshold: float = 0.5
    count: int = 3
    contracts: float = 1.0
    hold: int = 5
    days: tuple[float, float] = (20.0, 200.0)
    volatility_range: float = 2.0

    def __call__(self, view: MarketView) -> list[Order] | Target | None:
        """Close what was held long enough; open when nothing is held."""
        if view.has_options:
            opened = view.last_order
            held = 0 if opened is None else int((view.dates > opened).sum())
            return Target() if held >= self.hold else None
        found = [
            row
            for expiry, days in view.expiries["days"].items()
            if self.days[0] <= days <= self.days[1]
            for row in self._richness(view, str(expiry))
        ]
        found.sort()
        cheap = [row for row in found if row[0] < -self.threshold][: self.count]
        rich = [row for row in found[::-1] if row[0] > self.threshold][: self.count]
        return [
            view.order(expiry, strike, is_call, sign * self.contracts)
            for sign, rows in ((1.0, cheap), (-1.0, rich))
            for _, expiry, strike, is_call in rows
        ]

    def _richness(
        self, view: MarketView, expiry: str
    ) -> list[tuple[float, str, float, bool]]:
        """Richness, expiry, strike and type of the out-of-the-money options."""
        curve = view.curve(expiry)
        if curve is None:
            return []
        quotes = view.quotes(expiry)
        is_call = (quotes["option_type"] == "call").to_numpy()
        strike = quotes["strike"].to_numpy()
        total = curve.implied_volatility(curve.forward) * curve.time_to_expiry**0.5
        near = np.abs(np.log(strike / curve.forward)) < self.volatility_range * total
        out = is_call == (strike >= curve.forward)
        kept = near & out & (quotes["bid"] > 0.0).to_numpy()
        half = 0.5 * (quotes["ask"] - quotes["bid"]).to_numpy()
        kept &= half > 0.0
        fitted = np.where(
            is_call, curve.price(strike), curve.price(strike, is_call=False)
        )
        richness = (quotes["mid"].to_numpy() - fitted)[kept] / half[kept]
        rows = zip(richness, strike[kept], is_call[kept], strict=True)
        return [
            (float(value), expiry, float(at), bool(kind)) for value, at, kind in rows
        ]


def _with_bids(view: MarketView, expiry: str) -> np.ndarray:
    """Strikes whose out-of-the-money option can be sold as well as bought."""
    quotes = view.quotes(expiry)
    above = quotes["strike"] >= view.forward(expiry)
    out = (quotes["option_type"] == "call") == above
    return np.sort(quotes["strike"][out & (quotes["bid"] > 0.0)].to_numpy())


def _times(portfolio: StrikePortfolio, factor: float, expiry: str) -> StrikePortfolio:
    """A multiple of a portfolio, at an expiry, in plain numbers."""
    return replace(
        portfolio,
        cash=factor * float(portfolio.cash),
        forwards=factor * float(portfolio.forwards),
        strikes=np.asarray(portfolio.strikes, float),
        quantities=factor * np.asarray(portfolio.quantities, float),
        multiplier=float(portfolio.multiplier),
        expiry=expiry,
        target=None,
    )

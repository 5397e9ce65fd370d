r"""The prices without arbitrage that are least outside of quotes, and what proves it.

With rates known and dividends a known share of the spot, the call prices $c_i(k)$ of
several expiries, in units of the discounted forward at strikes in units of the forward,
admit no static arbitrage if, and only if, each is convex with $c_i(0) = 1$, $-1 \le
c_i' \le 0$ and $c_i \ge (1 - k)^+$, and $c_i \le c_{i+1}$ everywhere (Kellerer, 1972;
Carr and Madan, 2005). One expiry is a chain of one, without the last of these.

**Prices at the quoted strikes alone** belong to such a surface if, and only if, none is
above

$$ H_i = \operatorname{hull} \{(0, 1)\} \cup \{(k, c_j(k)) : j \ge i\}, $$

the highest convex, nowhere rising curve below the prices of its own and all later
expiries (Cousot, 2007). Necessary: a surface has $c_i \le c_j$, and $c_i$ is convex.
Sufficient: the $H_i$ are such a surface, and the highest. So whether a surface passes
inside all bids and asks needs no program: take the hulls of the asks, and see whether
a bid is above.

**The least excess** is a linear program. Its unknowns are time values at nodes, of each
expiry its own strikes and a few of later ones; $c_i$ is the straight lines between
them. Then $c_{i+1} \ge c_i$ holds everywhere if, and only if, it holds at the nodes of
expiry $i + 1$: the difference is concave in between, level beyond. A row has three
non-zeros. Every solution is a surface without arbitrage, so the program's value is
never too small. Of expiries that are not related it is exact. Of others it is too large
where a curve would want to bend at a strike of a later expiry that is no node of its
own. Whether it is, the trade made of its dual variables tells: what the trade earns,
and it cannot lose, is never more than the least excess. While it earns less than the
program's value, the corners of its worst payoff are the nodes that are missing; they
are added, and the program is solved again.

References:
    Carr, P. and Madan, D. (2005). A note on sufficient conditions for no arbitrage.
    *Finance Research Letters*, 2, 125-130.

    Cousot, L. (2007). Conditions on option prices for absence of arbitrage and exact
    calibration. *Journal of Banking and Finance*, 31, 3377-3397.

    Kellerer, H. (1972). Markov-Komposition und eine Anwendung auf Martingale.
    *Mathematische Annalen*, 198, 99-122.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from relu_options.arbitrage.price_program import Entries, PriceProgram, joined
from relu_options.arbitrage.quotes import (
    ROUNDING,
    SHOWN,
    CheckedQuotes,
    Curves,
    QuotedChain,
    Surface,
    half_spreads,
    positive_weights,
)
from relu_options.arbitrage.trade import (
    Trade,
    cover_chain,
    legs_in_words,
    legs_of,
    simplest_trade,
)
from relu_options.errors import ArbitrageError

if TYPE_CHECKING:
    from relu_options.market_data import ExpiryQuotes

_SAME_NODE = 1e-11  # of the forward: strikes of two expiries that are one node
_NOISE = 1e-9  # of its weight: a quantity that is nought
_GAP = 1e-8  # of the total excess, that the trade may earn less
_MOST_ROUNDS = 12


@dataclass(frozen=True, eq=False)
class QuoteArbitrage:
    """How near prices without arbitrage can come to quotes of one or several expiries.

    Arrays are of shape `(m,)`; the quotes of all expiries follow one another.

    Attributes:
        expiry: Position of each quote's expiry.
        strike: Currency units.
        bid: Currency units paid today; NaN where unknown.
        ask: Likewise.
        is_call: True for calls.
        forwards: Of each expiry, in currency units.
        discount_factors: Of each expiry.
        weights: How much a unit of excess counts.
        price: Of the nearest curve or surface, in currency units paid today. Where the
            quotes are free of arbitrage it is the highest of those that pass inside.
        excess: By how much these are below the bid or above the ask; zero inside.
        total_excess: Sum of the excesses, each times its weight; in currency units
            where no weights were given. No prices without arbitrage have less, up to
            `gap`: it is what `trade` earns.
        quantity: The quotes that `trade` buys (positive) and sells (negative).
        family: The simplest trade that earns something: "bounds", "parity",
            "call_spread", "butterfly", "calendar_spread" or "calendar_butterfly"; None
            if there is none.
        family_strikes: Its strikes; a strike of zero is the forward itself.
        simplest_quantity: The quotes that `simplest_trade` trades.

    Examples:
        A call struck at 110 that is wanted above where one struck at 100 is offered.

        >>> result = least_excess(strike=[100.0, 110.0], bid=[3.9, 4.5],
        ...                       ask=[4.1, 4.7], is_call=True, forward=100.0,
        ...                       discount_factor=1.0)
        >>> result.is_arbitrage_free, result.family, result.family_strikes
        (False, 'call_spread', (100.0, 110.0))
        >>> print(result.excess.round(6).sum())
        0.4
    """

    expiry: np.ndarray = field(repr=False)
    strike: np.ndarray = field(repr=False)
    bid: np.ndarray = field(repr=False)
    ask: np.ndarray = field(repr=False)
    is_call: np.ndarray = field(repr=False)
    forwards: np.ndarray
    discount_factors: np.ndarray
    weights: np.ndarray = field(repr=False)
    price: np.ndarray = field(repr=False)
    excess: np.ndarray = field(repr=False)
    total_excess: float
    quantity: np.ndarray = field(repr=False)
    family: str | None
    family_strikes: tuple[float, ...]
    simplest_quantity: np.ndarray = field(repr=False)
    _chain: QuotedChain = field(repr=False)
    _optimum: _Optimum | None = field(repr=False)

    @property
    def is_arbitrage_free(self) -> bool:
        """Whether such prices are inside every bid and ask, up to `ROUNDING`."""
        return not self.excess.any()

    @property
    def share_inside(self) -> float:
        """Share of the quotes inside which the nearest prices are."""
        return float(np.mean(self.excess == 0.0))

    @property
    def strikes(self) -> np.ndarray:
        """The distinct strikes of each expiry, increasing, in currency units."""
        return self.strike[self._nodes]

    @property
    def call_prices(self) -> np.ndarray:
        """The nearest call prices at `strikes`, in currency units paid today.

        Of one expiry, straight lines between them, and to the forward at a strike of
        zero, are a price curve.
        """
        at = self._nodes
        expiry, is_call = self.expiry[at], self.is_call[at]
        ahead = self.forwards[expiry] - self.strikes
        return self.price[at] + np.where(
            is_call, 0.0, self.discount_factors[expiry] * ahead
        )

    @property
    def trades(self) -> tuple[Trade, ...]:
        """The portfolios that earn the excess; each cannot lose by itself."""
        return () if self._optimum is None else self._optimum.trades

    @property
    def earned(self) -> float:
        """What `trades` earn today: a bound from below on the total excess."""
        return float(sum(trade.cash_flow for trade in self.trades))

    @property
    def gap(self) -> float:
        """By how much `total_excess` may be too large; a rounding if all is well."""
        return self.total_excess - self.earned

    @cached_property
    def simplest(self) -> Trade | None:
        """The trade with the fewest options that earns something; None if none does."""
        if self.family is None:
            return None
        return _covered(self._chain, self.simplest_quantity)

    @property
    def calendar(self) -> pd.DataFrame:
        """Calls that `trades` hold against those of the expiry before.

        Columns are `expiry` (position of the later), `strike`, `quantity` (its dual
        variable) and `price` (of the call, on the nearest surface).
        """
        columns = np.zeros((0, 4))
        if self._optimum is not None:
            columns = self._optimum.calendar()
        table = pd.DataFrame(columns, columns=["expiry", "strike", "quantity", "price"])
        return table.astype({"expiry": int})

    def trade(self) -> pd.DataFrame:
        """The portfolio of quotes that earns `total_excess` today and cannot lose.

        Its quantities are the dual variables of the program: what a quote's bid or ask
        would have to move for the total excess to change by one. No quantity exceeds
        the weight of its quote (1 where none were given), and no portfolio within these
        limits earns more. Forward and cash legs make its payoff non-negative for every
        spot, exactly, not merely up to rounding.

        Returns:
            One row per leg, with columns `strike`, `option_type` ("call", "put",
            "forward" or "cash"), `side` ("buy" or "sell"), `quantity` (positive is
            long), `price` (paid today: asks where bought, bids where sold) and
            `cash_flow` (received today). A forward at the forward price costs nothing
            and pays the spot minus it; a unit of cash pays 1 at expiry. Of several
            expiries, these come after `trade` (legs with one number cannot lose by
            themselves) and `expiry` (its position). No rows if the quotes are free of
            arbitrage.
        """
        return self._table(self.trades)

    def simplest_trade(self) -> pd.DataFrame:
        """The trade with the fewest options that earns something and cannot lose.

        Its smallest option leg is 1. See `trade` for the columns.
        """
        return self._table(() if self.simplest is None else (self.simplest,))

    def legs(self, *trades: Trade) -> pd.DataFrame:
        """The legs of some of `trades`, or of `simplest`, with `trade` and `expiry`."""
        return legs_of(self._chain, trades)

    def describe(self, expiries: Sequence[str] = ()) -> str:
        """What is wrong with the quotes, in one sentence that names the trade.

        Args:
            expiries: Names of the expiries; by default their positions.
        """
        count, family = f"{len(self.excess):,} quotes", self.family
        if len(self.forwards) == 1 and not expiries:
            nearest, remedy = "price curve", "fit with the least excess"
            family = f"{family} {'-'.join(f'{k:.10g}' for k in self.family_strikes)}"
        else:
            nearest, remedy = "surface", "use `repair_quotes`"
            count = f"{count} of {len(self.forwards)} expiries"
            expiries = expiries or [f"{i}" for i in range(len(self.forwards))]
        if self.is_arbitrage_free:
            return (
                f"no static arbitrage: a {nearest} passes inside the bid and ask of "
                f"all {count}"
            )
        return (
            f"static arbitrage in {count}: {family}: "
            f"{self.simplest_in_words(expiries)} today and cannot lose; the nearest "
            f"{nearest} is outside {np.count_nonzero(self.excess):,} of {count}: "
            f"{self._worst_in_words(expiries)}; drop or widen these quotes, or {remedy}"
        )

    def simplest_in_words(self, expiries: Sequence[str] = ()) -> str:
        """The legs of the simplest trade, and what they earn."""
        simplest = () if self.simplest is None else (self.simplest,)
        return legs_in_words(self.legs(*simplest), expiries)

    def _worst_in_words(self, expiries: Sequence[str]) -> str:
        """The quotes that the nearest prices are most outside of, and by how much."""
        worst = np.argsort(-self.excess, kind="stable")[: np.count_nonzero(self.excess)]
        names = (
            f"{f'{expiries[int(self.expiry[row])]} ' if expiries else ''}"
            f"{'call' if self.is_call[row] else 'put'} {self.strike[row]:.10g} "
            f"({self.excess[row]:.3g})"
            for row in worst[:SHOWN].tolist()
        )
        return ", ".join(names) + (", ..." if len(worst) > SHOWN else "")

    @cached_property
    def _nodes(self) -> np.ndarray:
        """A quote of each strike of each expiry."""
        keys = np.stack([self.expiry, self.strike])
        return np.unique(keys, axis=1, return_index=True)[1]

    def _table(self, trades: tuple[Trade, ...]) -> pd.DataFrame:
        """Legs, of one expiry without its position."""
        table = self.legs(*trades)
        return table if len(self.forwards) > 1 else table.iloc[:, 2:]


def least_excess(
    *,
    strike: ArrayLike,
    bid: ArrayLike,
    ask: ArrayLike,
    is_call: ArrayLike,
    forward: float,
    discount_factor: float,
    weights: ArrayLike | None = None,
    signed: bool = False,
) -> QuoteArbitrage:
    r"""Price curve without arbitrage that is least outside the bids and asks.

    It solves the linear program

    $$
    \text{minimise} \; \sum_i w_i e_i \quad \text{subject to} \quad
    \text{bid}_i - e_i \le p_i \le \text{ask}_i + e_i, \; e_i \ge 0,
    $$

    $p_i$ being today's price of option $i$ on a curve that is convex in the strike,
    with slopes in $[-1, 0]$ and $c(0) = F$, which does not hold where the underlying
    may be negative. Whether the total is zero is decided first, without the program:
    the highest convex curve below all asks must be nowhere below a bid.

    Args:
        strike: Shape `(m,)`, positive unless `signed`, in currency units, in any order;
            a call and a put, or several quotes of one option, may share a strike.
        bid: Shape `(m,)`, in currency units paid today; NaN where unknown.
        ask: Likewise. Equal to `bid` for a price that must be met.
        is_call: Shape `(m,)`, or one value for all.
        forward: Currency units.
        discount_factor: Price today of one unit of currency paid at expiry.
        weights: How much a unit of excess counts, of shape `(m,)` and positive; one
            over the half-spread counts it in half-spreads. By default all 1.
        signed: Whether the underlying may be negative, and so strikes and forward.

    Returns:
        The excess of each quote, the curve, and the trades that earn an arbitrage.

    Raises:
        ValueError: If shapes differ, or forward (unless `signed`), discount factor or a
            weight is not positive.
        QuoteError: If a strike is not positive, a quote is negative or has neither bid
            nor ask, or a bid is above its ask; the message names the quotes.
        FitError: If HiGHS does not solve the program.

    Examples:
        These calls are offered and wanted at one price each; the butterfly at 90, 100
        and 110 costs 12.1 - 2 * 8.0 + 3.6, which is -0.3. Lowering the price at 100 by
        0.15 is the least that mends it.

        >>> price = np.array([20.9, 12.1, 8.0, 3.6])
        >>> result = least_excess(strike=[80.0, 90.0, 100.0, 110.0], bid=price,
        ...                       ask=price, is_call=True, forward=100.0,
        ...                       discount_factor=1.0)
        >>> print(result.excess.round(6), round(result.total_excess, 6))
        [0.   0.   0.15 0.  ] 0.15
        >>> print(result.simplest_trade())
           strike option_type  side  quantity  price  cash_flow
        0    90.0        call   buy       1.0   12.1      -12.1
        1   100.0        call  sell      -2.0    8.0       16.0
        2   110.0        call   buy       1.0    3.6       -3.6

        With 0.08 more to pay and less to receive everywhere, the trade costs money.

        >>> wide = least_excess(strike=[80.0, 90.0, 100.0, 110.0], bid=price - 0.08,
        ...                     ask=price + 0.08, is_call=True, forward=100.0,
        ...                     discount_factor=1.0)
        >>> wide.is_arbitrage_free, wide.share_inside
        (True, 1.0)
    """
    quotes = CheckedQuotes.of(
        strike, bid, ask, is_call, forward, discount_factor, signed
    )
    weights = positive_weights(weights, len(quotes.strike))
    return _least_excess(QuotedChain.of([quotes], weights))


def least_chain_excess(
    expiries: Sequence[Mapping[str, Any]],
    *,
    weights: Sequence[ArrayLike] | None = None,
    calendar: bool = True,
    nearest_to_mids: bool = False,
) -> QuoteArbitrage:
    r"""Surface without arbitrage that is least outside the bids and asks of a chain.

    It minimises $\sum_i w_i e_i$ over all surfaces, $e_i$ being by how much the price
    of quote $i$ is below its bid or above its ask. See the module for how.

    Args:
        expiries: Of each expiry, the earliest first, the arguments of
            `relu_options.arbitrage.least_excess`: `strike`, `bid`, `ask`, `is_call`,
            `forward` and `discount_factor`.
        weights: Of each expiry, how much a unit of excess of its quotes counts. By
            default all 1: the excess is in currency.
        calendar: False to leave the expiries unrelated, so that the total is the sum of
            `least_excess` over the expiries.
        nearest_to_mids: True for the surface which, among those that are outside of no
            quote by more than its excess, is nearest to the mids, each distance times
            its weight.

    Returns:
        The excess of each quote, the surface's prices, and the trades that earn it.

    Raises:
        ValueError: If there are no expiries, shapes differ, or a forward, discount
            factor or weight is not positive.
        QuoteError: If a quote cannot be one; see `least_excess`.
        FitError: If HiGHS does not solve the program.

    Examples:
        The later expiry is quoted at other strikes: 5.2 at 95 and 2.4 at 105 leave at
        most 3.8 at 100, in any earlier expiry too, where 4 is bid.

        >>> terms = {"is_call": True, "forward": 100.0, "discount_factor": 1.0}
        >>> result = least_chain_excess(
        ...     [{"strike": [100.0], "bid": [4.0], "ask": [4.1], **terms},
        ...      {"strike": [95.0, 105.0], "bid": [5.0, 2.2], "ask": [5.2, 2.4],
        ...       **terms}])
        >>> result.family, round(result.total_excess, 9), round(result.earned, 9)
        ('calendar_butterfly', 0.2, 0.2)
        >>> print(result.simplest_trade().drop(columns="trade"))
           expiry  strike option_type  side  quantity  price  cash_flow
        0       0   100.0        call  sell      -2.0    4.0        8.0
        1       1    95.0        call   buy       1.0    5.2       -5.2
        2       1   105.0        call   buy       1.0    2.4       -2.4
    """
    if not len(expiries):
        raise ValueError("a chain has at least one expiry; there are none")
    quotes = [CheckedQuotes.of(**one) for one in expiries]
    counts = [(len(one.strike),) for one in quotes]
    if weights is None:
        weights = [np.ones(count) for count in counts]
    weights = [np.asarray(one, float) for one in weights]
    if [one.shape for one in weights] != counts or not all(
        (np.isfinite(one) & (one > 0.0)).all() for one in weights
    ):
        raise ValueError(
            "weights are positive numbers, one per quote of each expiry: expected "
            f"shapes {counts}"
        )
    chain = QuotedChain.of(quotes, np.concatenate(weights), calendar)
    return _least_excess(chain, nearest_to_mids)


def chain_excess_in_half_spreads(
    quotes: Sequence[ExpiryQuotes], *, calendar: bool = True
) -> QuoteArbitrage:
    """The least excess of prepared quotes, in half-spreads: what no fit can beat.

    Args:
        quotes: Of each expiry, the earliest first.
        calendar: False to leave the expiries unrelated.

    Returns:
        What `least_chain_excess` finds; its `total_excess` is a number of half-spreads.

    Raises:
        ValueError: If there are no expiries, or they are not in order of time.
        QuoteError: If no quote of an expiry has a spread.
        FitError: If HiGHS does not solve the program.

    Examples:
        >>> from relu_options.market_data import prepare_quotes
        >>> from relu_options.simulation import bundled_chain
        >>> quotes = [prepare_quotes(one) for one in bundled_chain()]
        >>> chain_excess_in_half_spreads(quotes).total_excess
        0.0
    """
    times = [one.time_to_expiry for one in quotes]
    if times != sorted(times):
        raise ValueError(f"expiries must be in order of time, not {times} years")
    listed = [one.listed for one in quotes]
    return least_chain_excess(
        [
            {**arrays, "forward": one.forward, "discount_factor": one.discount_factor}
            for arrays, one in zip(listed, quotes, strict=True)
        ],
        weights=[1.0 / half_spreads(one["bid"], one["ask"]) for one in listed],
        calendar=calendar,
    )


def check_quote_arbitrage(
    *,
    strike: ArrayLike,
    bid: ArrayLike,
    ask: ArrayLike,
    is_call: ArrayLike,
    forward: float,
    discount_factor: float,
    signed: bool = False,
) -> None:
    """Raise if no price curve passes inside every bid and ask.

    Args:
        strike: As for `least_excess`, like all the others.
        bid: Currency units paid today.
        ask: Currency units paid today.
        is_call: True for calls.
        forward: Currency units.
        discount_factor: Price today of one unit of currency paid at expiry.
        signed: Whether the underlying may be negative.

    Raises:
        ArbitrageError: If there is none, naming the simplest trade that earns the
            arbitrage and the quotes that a nearest curve is outside of.

    Examples:
        A call struck at 110 that is wanted above where one struck at 100 is offered.

        >>> check_quote_arbitrage(strike=[100.0, 110.0], bid=[3.9, 4.5],
        ...                       ask=[4.1, 4.7], is_call=True, forward=100.0,
        ...                       discount_factor=0.99
        ... )  # doctest: +NORMALIZE_WHITESPACE, +ELLIPSIS
        Traceback (most recent call last):
            ...
        relu_options.errors.ArbitrageError: static arbitrage in 2 quotes: call_spread
            100-110: buy 1 call 100 at 4.1, sell 1 call 110 at 4.5 earns 0.4 today and
            cannot lose; the nearest price curve is outside 1 of 2 quotes: ...
    """
    result = least_excess(
        strike=strike,
        bid=bid,
        ask=ask,
        is_call=is_call,
        forward=forward,
        discount_factor=discount_factor,
        signed=signed,
    )
    if not result.is_arbitrage_free:
        raise ArbitrageError(result.describe())


def _least_excess(chain: QuotedChain, nearest_to_mids: bool = False) -> QuoteArbitrage:
    """The hulls of the asks where they serve, else the program; and the trades."""
    surface = highest = chain.highest_surface(chain.high)
    optimum = None
    if chain.shortfall(highest).max() > ROUNDING:
        optimum = _solve(chain, highest)
        surface = optimum.surface
    if nearest_to_mids:
        nodes = optimum.nodes if optimum else _nodes(chain, highest)
        surface = _nearest_to_mids(chain, surface, nodes)
    excess = quantity = simplest = np.zeros(len(chain.k))
    family, family_strikes = None, ()
    if optimum is not None:
        excess = chain.excess(surface.time_value)
        if excess.any():
            quantity = optimum.quantity
            family, family_strikes, simplest = simplest_trade(chain, highest)
    return QuoteArbitrage(
        expiry=chain.expiry,
        strike=chain.strike,
        bid=chain.bid,
        ask=chain.ask,
        is_call=chain.is_call,
        forwards=chain.forwards,
        discount_factors=chain.discount_factors,
        weights=chain.weights,
        price=chain.notional * (surface.time_value + chain.intrinsic),
        excess=excess,
        total_excess=float(chain.weights @ excess),
        quantity=quantity,
        family=family,
        family_strikes=family_strikes,
        simplest_quantity=simplest,
        _chain=chain,
        _optimum=optimum if excess.any() else None,
    )


@dataclass(frozen=True, eq=False)
class _Optimum:
    """What solves the program on given nodes.

    Attributes:
        quotes: Of the program.
        nodes: Of each expiry.
        surface: The highest through the prices that solve it.
        quantity: Of the quotes, of shape `(m,)`.
        multipliers: Of each expiry but the first: of calendar order at its nodes, in
            currency per unit of call price over discounted forward.
    """

    quotes: QuotedChain
    nodes: Curves
    surface: Surface
    quantity: np.ndarray
    multipliers: Curves

    @cached_property
    def linked_trades(self) -> list[tuple[range, Trade]]:
        """Expiries that calendar order links, and what they trade together."""
        linked = [bool(one.any()) for one in self.multipliers]
        trades, first, expiry = [], 0, self.quotes.expiry
        for last in range(len(self.nodes)):
            if last < len(linked) and linked[last]:
                continue
            together = range(first, last + 1)
            first = last + 1
            inside = (expiry >= together.start) & (expiry < together.stop)
            traded = np.where(inside, self.quantity, 0.0)
            if traded.any():
                trades.append((together, _covered(self.quotes, traded)))
        return trades

    @cached_property
    def trades(self) -> tuple[Trade, ...]:
        """Those that earn something, the largest first."""
        trades = [trade for _, trade in self.linked_trades if trade.cash_flow > 0.0]
        return tuple(sorted(trades, key=lambda trade: -trade.cash_flow))

    @property
    def is_proved(self) -> bool:
        """Whether the trades earn as much as the surface is outside."""
        total = float(self.quotes.weights @ self.quotes.excess(self.surface.time_value))
        return total - sum(trade.cash_flow for trade in self.trades) <= _GAP * total

    def missing_nodes(self) -> list[np.ndarray]:
        """Where curves should be free to bend: corners of worst payoffs, if no nodes.

        Linked expiries without a trade of their own bend where the next one does.
        """
        corners = [np.zeros(0)] * len(self.nodes)
        for together, trade in self.linked_trades:
            for i in together:
                if i <= trade.expiries[-1]:
                    corners[i] = trade.lower_hull(i)[1:]
        return [
            np.setdiff1d(_with_more(have, more), have)
            for have, more in zip(self.nodes, corners, strict=True)
        ]

    def calendar(self) -> np.ndarray:
        """Rows of expiry, strike, quantity and price; see `QuoteArbitrage.calendar`."""
        chain, rows = self.quotes, [np.zeros((0, 4))]
        for i, multiplier in enumerate(self.multipliers, start=1):
            at = np.flatnonzero(multiplier)
            k, notional = (
                self.nodes[i][at],
                chain.forwards[i] * chain.discount_factors[i],
            )
            call = np.interp(k, self.surface.corners[i], self.surface.calls[i])
            columns = (
                np.full(len(at), i),
                k * chain.forwards[i],
                multiplier[at] / notional,
                notional * call,
            )
            rows.append(np.stack(columns, axis=1))
        return np.concatenate(rows)


def _covered(quotes: QuotedChain, quantity: np.ndarray) -> Trade:
    """Quotes bought at their asks and sold at their bids, covered."""
    return cover_chain(
        expiry=quotes.expiry,
        strike=quotes.strike,
        is_call=quotes.is_call,
        quantity=quantity,
        price=np.where(quantity > 0.0, quotes.ask, quotes.bid),
        forwards=quotes.forwards,
        discount_factors=quotes.discount_factors,
        signed=quotes.signed,
    )


def _solve(chain: QuotedChain, highest: Surface) -> _Optimum:
    """The least excess, with as many nodes as its proof needs."""
    optimum = _solve_on(chain, _nodes(chain, highest))
    for _ in range(_MOST_ROUNDS if chain.calendar else 0):
        if optimum.is_proved:
            break
        missing = optimum.missing_nodes()
        if not any(len(one) for one in missing):
            break
        nodes = map(np.union1d, optimum.nodes, missing)
        optimum = _solve_on(chain, tuple(nodes))
    return optimum


def _solve_on(chain: QuotedChain, nodes: Curves) -> _Optimum:
    """The least excess of surfaces that bend at the nodes only, and its duals."""
    program, units = _program(chain, nodes)
    unit, notional = units[chain.expiry], chain.notional
    solution = program.least_distance(
        # A bid below zero time value says nothing, since no curve is there.
        np.where(chain.low > 0.0, chain.low, np.nan) / unit,
        chain.high / unit,
        chain.weights * notional * unit,
    )
    quantity = solution.quantity / (notional * unit)
    quantity[np.abs(quantity) <= _NOISE * chain.weights] = 0.0
    multipliers = [np.zeros(len(one)) for one in nodes[1:]]
    if chain.calendar:
        noise = _NOISE * float((chain.weights * notional).max())
        counts = np.cumsum([len(one) for one in nodes])
        parts = np.split(solution.multipliers[counts[-1] :], counts[1:-1] - counts[0])
        multipliers = [
            np.where(part > noise * units[i], part / units[i], 0.0)
            for i, part in enumerate(parts)
        ]
    time_value = unit * program.prices_of(solution.unknowns, len(unit))
    surface = chain.highest_surface(np.maximum(time_value, 0.0))
    return _Optimum(chain, nodes, surface, quantity, tuple(multipliers))


def _nearest_to_mids(chain: QuotedChain, surface: Surface, nodes: Curves) -> Surface:
    """The surface nearest to the mids that is nowhere further outside."""
    nodes = tuple(
        _with_more(a, b[1:]) for a, b in zip(nodes, surface.corners, strict=True)
    )
    program, units = _program(chain, nodes)
    unit, fitted = units[chain.expiry], surface.time_value
    low, high = np.fmin(chain.low, fitted), np.fmax(chain.high, fitted)
    mid = np.clip(0.5 * (chain.low + chain.high), low, high)
    # Each price is that of a node, so that its limits are bounds.
    node, (lower, upper) = program.prices.column, program.bounds.T
    np.maximum.at(lower, node, np.where(np.isnan(chain.low), 0.0, low / unit))
    np.minimum.at(upper, node, np.where(np.isnan(chain.high), np.inf, high / unit))
    solution = program.least_distance(
        mid / unit, mid / unit, chain.weights * chain.notional * unit
    )
    time_value = unit * program.prices_of(solution.unknowns, len(unit))
    return chain.highest_surface(np.maximum(time_value, 0.0))


def _nodes(chain: QuotedChain, highest: Surface) -> Curves:
    """Where curves may bend: own strikes; if related, the forward and the corners."""
    strikes = [np.unique(chain.k[chain.own(i)]) for i in range(len(chain.forwards))]
    if not chain.calendar:
        return tuple(strikes)
    return tuple(
        _with_more(own, np.append(corners[1:], 1.0))
        for own, corners in zip(strikes, highest.corners, strict=True)
    )


def _program(chain: QuotedChain, nodes: Curves) -> tuple[PriceProgram, np.ndarray]:
    """The program of all expiries, and the unit of each.

    Unknown are the time values at the nodes, in units of the largest that is quoted for
    the expiry. Rows are in the same units, those between expiries, which follow, in the
    units of the earlier one.
    """
    starts = np.cumsum([0, *(len(one) for one in nodes)])
    largest = np.fmax(chain.low, chain.high)
    units = np.array([largest[chain.own(i)].max() for i in range(len(nodes))])
    units = np.clip(units, 1e-6, 1.0)
    rows, limits = [], []
    for i, own in enumerate(nodes):
        entries, limit = curve_rows(own, signed=chain.signed)
        rows.append(entries.moved(starts[i], starts[i]))
        limits.append(limit / units[i])
    for i in range(len(nodes) - 1 if chain.calendar else 0):
        (row, column, value), limit = _order_rows(nodes[i], nodes[i + 1])
        value = value * np.where(column < len(nodes[i]), 1.0, units[i + 1] / units[i])
        first = int(starts[-1] + starts[i + 1] - starts[1])
        rows.append(Entries(row, column, value).moved(first, starts[i]))
        limits.append(limit / units[i])
    at = [
        starts[i] + np.searchsorted(own, chain.k[chain.own(i)])
        for i, own in enumerate(nodes)
    ]
    m = len(chain.k)
    program = PriceProgram(
        Entries(np.arange(m), np.concatenate(at), np.ones(m)),
        joined(*rows),
        np.concatenate(limits),
        np.tile([0.0, np.inf], (starts[-1], 1)),
    )
    return program, units


def curve_rows(
    nodes: np.ndarray, *, signed: bool = False
) -> tuple[Entries, np.ndarray]:
    """Rows of the time values of one expiry: convex, and not rising at the end.

    And the upper limits, of shape `(n,)`. A strike of zero, where the call is the
    forward, stands before the nodes; with it convexity and non-negative time values
    bound every slope. A row is in units of price: the call at a node less what its
    neighbours' straight line has there. Where the underlying may be negative, the price
    before the nodes is that of a line of slope -1 through the first.
    """
    n = len(nodes)
    x = np.append(nodes[0] - 1.0 if signed else 0.0, nodes)
    intrinsic = np.maximum(1.0 - x, 0.0)
    width = np.diff(x)
    left = width[1:] / (width[1:] + width[:-1])
    right = 1.0 - left
    bend = left * intrinsic[:-2] + right * intrinsic[2:] - intrinsic[1:-1]
    limit = np.where((x[:-2] < 1.0) & (x[2:] > 1.0), bend, 0.0)
    # The row of the last node: not above the one before it.
    left, right = np.append(left, 1.0), np.append(right, 0.0)
    limit = np.append(limit, intrinsic[-2] - intrinsic[-1])
    own = np.ones(n)
    if signed and n > 1:  # the limit of a node before that is ever farther away
        right[0], limit[0] = 1.0, width[1] + intrinsic[2] - intrinsic[1]
    elif signed:  # of one strike alone there is nothing to say
        own[0] = limit[0] = 0.0
    row = np.arange(n)
    entries = Entries(
        np.concatenate([row, row[1:], row[:-1]]),
        np.concatenate([row, row[:-1], row[1:]]),
        np.concatenate([own, -left[1:], -right[:-1]]),
    )
    return entries, limit


def _order_rows(earlier: np.ndarray, later: np.ndarray) -> tuple[Entries, np.ndarray]:
    """Rows that put the curve of one expiry below that of the next.

    The straight line between the earlier nodes is at no later node above the later time
    value. Before the first node the line starts from the forward; beyond the last it is
    level. Columns are the earlier nodes, then the later ones; upper limits have shape
    `(len(later),)`.
    """
    x = np.append(0.0, earlier)
    intrinsic = np.maximum(1.0 - x, 0.0)
    j = np.minimum(np.searchsorted(x, later, side="right"), len(x) - 1)
    right = np.minimum((later - x[j - 1]) / (x[j] - x[j - 1]), 1.0)
    left = 1.0 - right
    limit = (
        np.maximum(1.0 - later, 0.0) - left * intrinsic[j - 1] - right * intrinsic[j]
    )
    row = np.arange(len(later))
    inner = (j > 1) & (left > 0.0)
    entries = Entries(
        np.concatenate([row, row[inner], row]),
        np.concatenate([j - 1, j[inner] - 2, len(earlier) + row]),
        np.concatenate([right, left[inner], np.full(len(later), -1.0)]),
    )
    return entries, np.where(np.abs(limit) > 1e-15, limit, 0.0)


def _with_more(nodes: np.ndarray, more: np.ndarray) -> np.ndarray:
    """Nodes and those of `more` that are not among them, up to rounding."""
    more = np.unique(more)
    more = more[np.append(True, np.diff(more) > _SAME_NODE)] if len(more) else more
    at = np.searchsorted(nodes, more)
    before, after = nodes[np.maximum(at - 1, 0)], nodes[np.minimum(at, len(nodes) - 1)]
    nearest = np.minimum(np.abs(more - before), np.abs(more - after))
    return np.sort(np.concatenate([nodes, more[nearest > _SAME_NODE]]))

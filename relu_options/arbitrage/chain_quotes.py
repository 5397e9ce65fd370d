r"""Arbitrage in the quotes of several expiries, calendar trades included.

Call prices of all expiries are compared as $c_i(k) = C_i / (D_i F_i)$ at $k = K / F_i$.
With rates known and dividends a known share of the spot, there is no static arbitrage
if, and only if, each $c_i$ is convex with $c_i(0) = 1$, $-1 \le c_i' \le 0$ and $c_i
\ge (1 - k)^+$, and $c_i \le c_{i+1}$ everywhere (Kellerer, 1972; Carr and Madan, 2005).

**Prices at the quoted strikes alone** belong to such a surface if, and only if, none is
above

$$ H_i = \operatorname{hull} \{(0, 1)\} \cup \{(k, c_j(k)) : j \ge i\}, $$

the highest convex, nowhere rising curve below the prices of its own and all later
expiries (Cousot, 2007). Necessary: a surface has $c_i \le c_j$, and $c_i$ is convex.
Sufficient: the $H_i$ are such a surface, and the highest. So whether a surface passes
inside all bids and asks needs no programme: take the hulls of the asks, and see whether
a bid is above.

**The least excess** is a linear programme. Its unknowns are time values at nodes, of
each expiry its own strikes and a few of later ones; $c_i$ is the straight lines between
them. Then $c_{i+1} \ge c_i$ holds everywhere if, and only if, it holds at the nodes of
expiry $i + 1$: the difference is concave in between, level beyond. A row has three
non-zeros. Every solution is a surface without arbitrage, so the programme's value is
never too small. It is too large where a curve would want to bend at a strike of a later
expiry that is no node of its own. Whether it is, the trade made of its dual variables
tells: what the trade earns, and it cannot lose, is never more than the least excess.
While it earns less than the programme's value, the corners of its worst payoff are the
nodes that are missing; they are added, and the programme is solved again.

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
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.sparse import csr_array

from relu_options.arbitrage.chain_trade import ChainTrade, cover_chain
from relu_options.arbitrage.elastic_programme import ElasticProgramme
from relu_options.arbitrage.quotes import (
    ROUNDING,
    _BestPrices,
    _curve_rows,
    _lower_hull,
    _Quotes,
    _read_quotes,
    _simplest_trade,
)
from relu_options.errors import QuoteError

if TYPE_CHECKING:
    from relu_options.market_data import ExpiryQuotes

Nodes: TypeAlias = tuple[np.ndarray, ...]
"""Strikes of each expiry, in units of its forward, increasing."""

_SAME_NODE = 1e-11  # of the forward: strikes of two expiries that are one node
_NOISE = 1e-9  # of its weight: a quantity that is nought
_GAP = 1e-8  # of the total excess, that the trade may earn less
_MOST_ROUNDS = 12


@dataclass(frozen=True, eq=False)
class ChainArbitrage:
    """How near a surface without arbitrage can come to quotes of several expiries.

    Quotes of all expiries follow one another in arrays of shape `(m,)`.

    Attributes:
        expiry: Position of each quote's expiry, of shape `(m,)`.
        strike: Currency units.
        bid: Currency units paid today; NaN where unknown.
        ask: Likewise.
        is_call: True for calls.
        forwards: Of each expiry, in currency units.
        discount_factors: Of each expiry.
        price: Of shape `(m,)`: the nearest surface's prices, in currency units paid
            today. Where the quotes are free of arbitrage it is the highest of the
            surfaces that pass inside.
        excess: By how much these are outside of bid and ask; zero inside.
        weights: How much a unit of excess counts, of shape `(m,)`.
        total_excess: Sum of the excesses, each times its weight. No surface has less,
            up to `gap`.
        quantity: Of shape `(m,)`: the quotes that `trades` buy and sell.
        trades: The portfolios that earn the excess, the largest first. Each cannot lose
            by itself.
        family: The simplest trade that earns something: "bounds", "parity",
            "call_spread", "butterfly", "calendar_spread" or "calendar_butterfly"; None
            if there is none.
        simplest: That trade; None if there is none.
        calendar: Calls of a later expiry that `trades` hold against those of the one
            before it: columns `expiry` (position of the later), `strike`, `quantity`
            and `price` (of the call, on the nearest surface).

    Examples:
        Calls at one strike, dearer in the first expiry than in the second.

        >>> terms = {"is_call": True, "forward": 100.0, "discount_factor": 1.0}
        >>> result = least_chain_excess(
        ...     [{"strike": [100.0], "bid": [5.0], "ask": [5.2], **terms},
        ...      {"strike": [100.0], "bid": [4.5], "ask": [4.7], **terms}])
        >>> result.family, round(result.total_excess, 9), result.share_inside
        ('calendar_spread', 0.3, 0.5)
        >>> print(result.legs(*result.trades).drop(columns="trade"))
           expiry  strike option_type  side  quantity  price  cash_flow
        0       0   100.0        call  sell      -1.0    5.0        5.0
        1       1   100.0        call   buy       1.0    4.7       -4.7
    """

    expiry: np.ndarray = field(repr=False)
    strike: np.ndarray = field(repr=False)
    bid: np.ndarray = field(repr=False)
    ask: np.ndarray = field(repr=False)
    is_call: np.ndarray = field(repr=False)
    forwards: np.ndarray = field(repr=False)
    discount_factors: np.ndarray = field(repr=False)
    price: np.ndarray = field(repr=False)
    excess: np.ndarray = field(repr=False)
    weights: np.ndarray = field(repr=False)
    total_excess: float
    quantity: np.ndarray = field(repr=False)
    trades: tuple[ChainTrade, ...] = field(repr=False)
    family: str | None
    simplest: ChainTrade | None = field(repr=False)
    calendar: pd.DataFrame = field(repr=False)

    @property
    def is_arbitrage_free(self) -> bool:
        """Whether a surface passes inside every bid and ask, up to `ROUNDING`."""
        return not self.excess.any()

    @property
    def share_inside(self) -> float:
        """Share of the quotes inside which the nearest surface passes."""
        return float(np.mean(self.excess == 0.0))

    @property
    def earned(self) -> float:
        """What `trades` earn today: a bound from below on the total excess."""
        return float(sum(trade.cash_flow for trade in self.trades))

    @property
    def gap(self) -> float:
        """By how much `total_excess` may be too large; a rounding if all is well."""
        return self.total_excess - self.earned

    def legs(self, *trades: ChainTrade) -> pd.DataFrame:
        """The legs of trades of these quotes.

        Args:
            trades: Some of `trades`, or `simplest`.

        Returns:
            One row per leg, with columns `trade` (counted from zero), `expiry` (its
            position), `strike`, `option_type` ("call", "put", "forward" or "cash"),
            `side`, `quantity` (positive is long), `price` (paid today: asks where
            bought, bids where sold) and `cash_flow` (received today). A forward costs
            nothing today and pays the spot minus its strike; a unit of cash pays 1 at
            its expiry.
        """
        columns: dict[str, list] = {
            name: []
            for name in ("trade", "expiry", "strike", "kind", "quantity", "price")
        }
        for number, trade in enumerate(trades):
            rows, first = trade.quotes, trade.expiries[0]
            ends = [trade.forward_quantity, trade.cash_quantity]
            columns["trade"] += [number] * (len(rows) + 2)
            columns["expiry"] += [*self.expiry[rows], first, first]
            columns["strike"] += [*self.strike[rows], self.forwards[first], np.nan]
            columns["kind"] += [*np.where(self.is_call[rows], "call", "put")]
            columns["kind"] += ["forward", "cash"]
            columns["quantity"] += [*trade.quantity, *ends]
            columns["price"] += [
                *np.where(trade.quantity > 0.0, self.ask[rows], self.bid[rows]),
                0.0,
                self.discount_factors[first],
            ]
        quantity = np.array(columns["quantity"], float)
        price = np.array(columns["price"], float)
        table = pd.DataFrame(
            {
                "trade": np.array(columns["trade"], int),
                "expiry": np.array(columns["expiry"], int),
                "strike": np.array(columns["strike"], float),
                "option_type": np.array(columns["kind"], object),
                "side": np.where(quantity > 0.0, "buy", "sell"),
                "quantity": quantity,
                "price": price,
                "cash_flow": 0.0 - quantity * price,
            }
        )
        return table[quantity != 0.0].reset_index(drop=True)


def least_chain_excess(
    expiries: Sequence[Mapping[str, Any]],
    *,
    weights: Sequence[ArrayLike] | None = None,
    calendar: bool = True,
    nearest_to_mids: bool = False,
) -> ChainArbitrage:
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
        FitError: If HiGHS does not solve the programme.

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
        >>> print(result.legs(result.simplest).drop(columns="trade"))
           expiry  strike option_type  side  quantity  price  cash_flow
        0       0   100.0        call  sell      -2.0    4.0        8.0
        1       1    95.0        call   buy       1.0    5.2       -5.2
        2       1   105.0        call   buy       1.0    2.4       -2.4
    """
    chain = _Chain.of(expiries, weights, calendar)
    highest = chain.highest_surface(chain.high)
    nodes = chain.nodes(highest)
    surface, solved = highest, None
    if np.fmax(chain.low - highest.time_value, -highest.time_value).max() > ROUNDING:
        solved = _solve_exactly(chain, nodes)
        surface, nodes = solved.surface, solved.nodes
    if nearest_to_mids:
        surface = chain.nearest_to_mids(surface, nodes)
    return _result(chain, surface, highest, solved)


def chain_excess_in_half_spreads(
    quotes: Sequence[ExpiryQuotes], *, calendar: bool = True
) -> ChainArbitrage:
    """The least excess of prepared quotes, in half-spreads: what no fit can beat.

    Args:
        quotes: Of each expiry, the earliest first.
        calendar: False to leave the expiries unrelated.

    Returns:
        What `least_chain_excess` finds; its `total_excess` is a number of half-spreads.

    Raises:
        ValueError: If there are no expiries, or they are not in order of time.
        QuoteError: If no quote of an expiry has a spread.
        FitError: If HiGHS does not solve the programme.

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
            {
                **arrays,
                "forward": one.forward,
                "discount_factor": one.discount_factor,
            }
            for arrays, one in zip(listed, quotes, strict=True)
        ],
        weights=[1.0 / half_spreads(one["bid"], one["ask"]) for one in listed],
        calendar=calendar,
    )


def half_spreads(bid: np.ndarray, ask: np.ndarray) -> np.ndarray:
    """Half of ask minus bid; the median of the others where a quote has no width.

    Args:
        bid: Of one expiry, of shape `(m,)`, in currency units; NaN where unknown.
        ask: Likewise.

    Returns:
        Positive numbers, of shape `(m,)`. A quote without a width is locked or has one
        side only.

    Raises:
        QuoteError: If no quote has a width.

    Examples:
        >>> print(half_spreads(np.array([1.0, 2.0, 3.0]), np.array([1.2, 2.0, 3.6])))
        [0.1 0.2 0.3]
    """
    width = 0.5 * (ask - bid)
    wide = width > 0.0
    if not wide.any():
        raise QuoteError(
            f"none of {len(width)} quotes has a spread to count in: they are mids, or "
            'bids equal to asks; use `unit="currency"`'
        )
    return np.where(wide, width, np.median(width[wide]))


def _solve_exactly(chain: _Chain, nodes: Nodes) -> _Solved:
    """The least excess, with as many nodes as its proof needs."""
    solved = chain.solve(nodes)
    for _ in range(_MOST_ROUNDS):
        if solved.total_excess - solved.earned <= _GAP * solved.total_excess:
            break
        wanted = chain.missing_nodes(solved)
        if not any(len(one) for one in wanted):
            break
        nodes = tuple(
            np.union1d(a, b) for a, b in zip(solved.nodes, wanted, strict=True)
        )
        solved = chain.solve(nodes)
    return solved


def _result(
    chain: _Chain, surface: _Surface, highest: _Surface, solved: _Solved | None
) -> ChainArbitrage:
    """What is reported of a surface, and of the trades that prove it nearest."""
    excess = chain.excess(surface)
    total_excess = chain.total_excess(surface)
    quantity = np.zeros(len(chain.k))
    trades: tuple[ChainTrade, ...] = ()
    family = simplest = None
    calendar = chain.calendar_table(surface, None)
    if solved is not None and total_excess > 0.0:
        quantity, trades = solved.quantity, solved.trades
        family, simplest = chain.simplest_trade(highest)
        calendar = chain.calendar_table(surface, solved)
    sign = np.where(chain.is_call, 1.0, -1.0)
    intrinsic = np.maximum(sign * (1.0 - chain.k), 0.0)
    return ChainArbitrage(
        expiry=chain.expiry,
        strike=chain.strike,
        bid=chain.bid,
        ask=chain.ask,
        is_call=chain.is_call,
        forwards=chain.forwards,
        discount_factors=chain.discount_factors,
        price=chain.notional[chain.expiry] * (surface.time_value + intrinsic),
        excess=excess,
        weights=chain.weights,
        total_excess=total_excess,
        quantity=quantity,
        trades=trades,
        family=family,
        simplest=simplest,
        calendar=calendar,
    )


@dataclass(frozen=True, eq=False)
class _Surface:
    """A surface of convex curves, each below all later ones.

    Attributes:
        time_value: At the quotes, of shape `(m,)`, in units of the discounted forward.
        corners: Of each expiry: strikes, in units of the forward, from zero on.
        calls: Of each expiry: call prices there, in units of the discounted forward.
        source: Of each expiry: the quote that each corner comes from; -1 at zero.
    """

    time_value: np.ndarray
    corners: Nodes
    calls: Nodes
    source: Nodes


@dataclass(frozen=True, eq=False)
class _Solved:
    """What solves the programme on given nodes.

    Attributes:
        surface: The highest through the prices that solve it.
        total_excess: Of that surface, weighted.
        quantity: Of the quotes, of shape `(m,)`.
        multipliers: Of each expiry but the first: of calendar order at its nodes, in
            currency per unit of call price over discounted forward.
        nodes: Of each expiry.
        covered: Expiries that calendar order links, with what they trade.
    """

    surface: _Surface
    total_excess: float
    quantity: np.ndarray
    multipliers: Nodes
    nodes: Nodes
    covered: list[tuple[range, ChainTrade]]

    @property
    def trades(self) -> tuple[ChainTrade, ...]:
        """Those that earn something, the largest first."""
        trades = [trade for _, trade in self.covered if trade.cash_flow > 0.0]
        return tuple(sorted(trades, key=lambda trade: -trade.cash_flow))

    @property
    def earned(self) -> float:
        """What they earn."""
        return sum(trade.cash_flow for trade in self.trades)


@dataclass(frozen=True, eq=False)
class _Chain:
    """Quotes of all expiries, checked, in units of the discounted forward.

    Attributes:
        quotes: Of each expiry.
        expiry: Position of each quote's expiry, of shape `(m,)`, like those below.
        k: Strike in units of the forward.
        low: Bid minus intrinsic value; NaN where unknown.
        high: Ask minus intrinsic value; likewise.
        weights: How much a unit of currency outside counts.
        calendar: Whether the expiries are related.
    """

    quotes: list[_Quotes]
    expiry: np.ndarray
    k: np.ndarray
    low: np.ndarray
    high: np.ndarray
    weights: np.ndarray
    calendar: bool

    @classmethod
    def of(
        cls,
        expiries: Sequence[Mapping[str, Any]],
        weights: Sequence[ArrayLike] | None,
        calendar: bool,
    ) -> _Chain:
        """The arguments of `least_chain_excess`, after checking them."""
        if not len(expiries):
            raise ValueError("a chain has at least one expiry; there are none")
        quotes = [_read_quotes(**one) for one in expiries]
        counts = [len(one.strike) for one in quotes]
        if weights is None:
            weights = [np.ones(count) for count in counts]
        given = [np.asarray(one, float) for one in weights]
        if [one.shape for one in given] != [(count,) for count in counts] or not all(
            (np.isfinite(one) & (one > 0.0)).all() for one in given
        ):
            raise ValueError(
                "weights are positive numbers, one per quote of each expiry: expected "
                f"shapes {[(count,) for count in counts]}"
            )
        ranges = [one.time_value_range for one in quotes]
        return cls(
            quotes=quotes,
            expiry=np.repeat(np.arange(len(quotes)), counts),
            k=np.concatenate([(one.nodes / one.forward)[one.node] for one in quotes]),
            low=np.concatenate(
                [r[0] / one.forward for r, one in zip(ranges, quotes, strict=True)]
            ),
            high=np.concatenate(
                [r[1] / one.forward for r, one in zip(ranges, quotes, strict=True)]
            ),
            weights=np.concatenate(given),
            calendar=calendar,
        )

    @property
    def strike(self) -> np.ndarray:
        return np.concatenate([one.strike for one in self.quotes])

    @property
    def bid(self) -> np.ndarray:
        return np.concatenate([one.bid for one in self.quotes])

    @property
    def ask(self) -> np.ndarray:
        return np.concatenate([one.ask for one in self.quotes])

    @property
    def is_call(self) -> np.ndarray:
        return np.concatenate([one.is_call for one in self.quotes])

    @property
    def forwards(self) -> np.ndarray:
        return np.array([one.forward for one in self.quotes])

    @property
    def discount_factors(self) -> np.ndarray:
        return np.array([one.discount_factor for one in self.quotes])

    @property
    def notional(self) -> np.ndarray:
        """Discounted forward of each expiry, in currency units."""
        return self.discount_factors * self.forwards

    @property
    def starts(self) -> np.ndarray:
        """Where the quotes of each expiry start, and where the last ones end."""
        return np.append(0, np.cumsum([len(one.strike) for one in self.quotes]))

    def excess(self, surface: _Surface) -> np.ndarray:
        """How far the surface is outside each quote, in currency; roundings are not."""
        fitted = surface.time_value
        outside = np.fmax(np.fmax(self.low - fitted, fitted - self.high), 0.0)
        outside = np.where(outside > ROUNDING, outside, 0.0)
        return self.notional[self.expiry] * outside

    def total_excess(self, surface: _Surface) -> float:
        """Sum of the weighted excesses."""
        return float(self.weights @ self.excess(surface))

    def highest_surface(self, time_value: np.ndarray) -> _Surface:
        """The highest surface that is at or below given time values of the quotes."""
        intrinsic = np.maximum(1.0 - self.k, 0.0)
        call = np.where(np.isnan(time_value), np.inf, time_value + intrinsic)
        origin = np.zeros(1), np.ones(1), np.full(1, -1)
        x, y, source = origin
        found = np.empty(len(call))
        curves = []
        for i in reversed(range(len(self.quotes))):
            if not self.calendar:
                x, y, source = origin
            own = np.arange(*self.starts[i : i + 2])
            x, y = np.append(x, self.k[own]), np.append(y, call[own])
            source = np.append(source, own)
            order = np.lexsort((y, x))
            order = order[np.append(True, np.diff(x[order]) > 0.0)]
            corners = order[_lower_hull(x[order], y[order], 0.0)]
            x, y, source = x[corners], y[corners], source[corners]
            found[own] = np.interp(self.k[own], x, y)
            curves.append((x, y, source))
        corners, calls, sources = (
            tuple(one[::-1]) for one in zip(*curves, strict=True)
        )
        return _Surface(found - intrinsic, corners, calls, sources)

    def nodes(self, surface: _Surface) -> Nodes:
        """Own strikes, the forward, and the corners of a surface: what may bend."""
        return tuple(
            _with_more(one.nodes / one.forward, np.append(corners[1:], 1.0))
            for one, corners in zip(self.quotes, surface.corners, strict=True)
        )

    def programme(
        self, nodes: Nodes
    ) -> tuple[ElasticProgramme, np.ndarray, np.ndarray]:
        """The rows of all expiries; unit of each, and where its nodes start.

        Unknown are the time values at the nodes, in units of the largest that is quoted
        for the expiry. Rows are in the same units, those between expiries in the units
        of the earlier one.
        """
        n = np.array([len(one) for one in nodes])
        starts = np.append(0, np.cumsum(n))
        largest = np.fmax(self.low, self.high)
        units = np.array(
            [largest[self.starts[i] : self.starts[i + 1]].max() for i in range(len(n))]
        )
        units = np.clip(units, 1e-6, 1.0)
        rows, columns, values, limits = [], [], [], []
        for i, one in enumerate(nodes):
            row, column, value, limit = _curve_rows(one, 1.0)
            rows.append(row + starts[i])
            columns.append(column + starts[i])
            values.append(value)
            limits.append(limit / units[i])
        count = int(starts[-1])
        for i in range(len(n) - 1 if self.calendar else 0):
            row, column, value, limit = _order_rows(nodes[i], nodes[i + 1])
            scale = np.where(column < n[i], 1.0, units[i + 1] / units[i])
            rows.append(row + count)
            columns.append(column + starts[i])
            values.append(value * scale)
            limits.append(limit / units[i])
            count += int(n[i + 1])
        at = [
            starts[i] + np.searchsorted(nodes[i], one.nodes / one.forward)[one.node]
            for i, one in enumerate(self.quotes)
        ]
        m = len(self.k)
        prices = csr_array(
            (np.ones(m), (np.arange(m), np.concatenate(at))), shape=(m, starts[-1])
        )
        matrix = csr_array(
            (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))),
            shape=(count, starts[-1]),
        )
        return (
            ElasticProgramme(
                prices, matrix, np.concatenate(limits), np.zeros(starts[-1])
            ),
            units,
            starts,
        )

    def solve(self, nodes: Nodes) -> _Solved:
        """The least excess of surfaces that bend at the nodes only, and its duals."""
        programme, units, starts = self.programme(nodes)
        unit, notional = units[self.expiry], self.notional[self.expiry]
        solution = programme.least_excess(
            self.low / unit, self.high / unit, self.weights * notional * unit
        )
        quantity = solution.quantity / (notional * unit)
        quantity[np.abs(quantity) <= _NOISE * self.weights] = 0.0
        noise = _NOISE * float((self.weights * notional).max())
        multipliers = [np.zeros(len(one)) for one in nodes[1:]]
        if self.calendar:
            parts = solution.multipliers[starts[-1] :]
            parts = np.split(parts, np.cumsum([len(one) for one in nodes[1:-1]]))
            for i, part in enumerate(parts[: len(multipliers)]):
                multipliers[i] = np.where(part > noise * units[i], part / units[i], 0.0)
        time_value = unit * (programme.prices @ solution.unknowns)
        surface = self.highest_surface(np.maximum(time_value, 0.0))
        return _Solved(
            surface,
            self.total_excess(surface),
            quantity,
            tuple(multipliers),
            nodes,
            self._covered(quantity, multipliers),
        )

    def nearest_to_mids(self, surface: _Surface, nodes: Nodes) -> _Surface:
        """The surface nearest to the mids that is nowhere further outside."""
        nodes = tuple(
            _with_more(a, b[1:]) for a, b in zip(nodes, surface.corners, strict=True)
        )
        programme, units, _ = self.programme(nodes)
        unit, notional = units[self.expiry], self.notional[self.expiry]
        fitted = surface.time_value
        low, high = np.fmin(self.low, fitted), np.fmax(self.high, fitted)
        mid = np.clip(0.5 * (self.low + self.high), low, high)
        known = np.isfinite(mid)
        solution = programme.nearest(
            np.where(known, mid, fitted) / unit,
            np.where(known, low, np.where(np.isnan(self.low), -np.inf, low)) / unit,
            np.where(known, high, np.where(np.isnan(self.high), np.inf, high)) / unit,
            np.where(known, self.weights * notional * unit, 0.0),
        )
        time_value = unit * (programme.prices @ solution.unknowns)
        return self.highest_surface(np.maximum(time_value, 0.0))

    def _covered(
        self, quantity: np.ndarray, multipliers: list[np.ndarray]
    ) -> list[tuple[range, ChainTrade]]:
        """Trades of expiries that calendar order links, with forwards and cash."""
        linked = [bool(one.any()) for one in multipliers]
        covered, first = [], 0
        for last in range(len(self.quotes)):
            if last < len(linked) and linked[last]:
                continue
            together = range(first, last + 1)
            first = last + 1
            inside = (self.expiry >= together.start) & (self.expiry < together.stop)
            traded = np.where(inside, quantity, 0.0)
            if traded.any():
                covered.append((together, self.trade(traded)))
        return covered

    def trade(self, quantity: np.ndarray) -> ChainTrade:
        """Quotes bought at their asks and sold at their bids, covered."""
        return cover_chain(
            expiry=self.expiry,
            strike=self.strike,
            is_call=self.is_call,
            quantity=quantity,
            price=np.where(quantity > 0.0, self.ask, self.bid),
            forwards=self.forwards,
            discount_factors=self.discount_factors,
        )

    def missing_nodes(self, solved: _Solved) -> list[np.ndarray]:
        """Where curves should be free to bend: corners of worst payoffs, if no nodes.

        Linked expiries without a trade of their own bend where the next one does.
        """
        wanted = [np.zeros(0)] * len(solved.nodes)
        for together, trade in solved.covered:
            for i in together:
                if i <= trade.expiries[-1]:
                    wanted[i] = trade.lower_hull(i)[1:]
        return [
            np.setdiff1d(_with_more(have, more), have)
            for have, more in zip(solved.nodes, wanted, strict=True)
        ]

    def simplest_trade(self, highest: _Surface) -> tuple[str, ChainTrade]:
        """Family and trade with the fewest options; within one expiry if possible."""
        best = [_BestPrices.of(one) for one in self.quotes]
        short = [one.shortfall.max() for one in best] / self.forwards
        if short.max() > ROUNDING:
            i = int((short * self.notional).argmax())
            one = self.quotes[i]
            family, _, quantity = _simplest_trade(one, best[i], ROUNDING * one.forward)
            traded = np.zeros(len(self.k))
            traded[self.starts[i] : self.starts[i + 1]] = quantity
            return family, self.trade(traded)
        notional = self.notional[self.expiry]
        short = (self.low - highest.time_value) * notional
        sold = int(np.nanargmax(short))
        i, k = self.expiry[sold], self.k[sold]
        corners, source = highest.corners[i], highest.source[i]
        left = int(np.searchsorted(corners, k, side="right")) - 1
        wings = {source[left]: 1.0}
        if corners[left] < k and left + 1 < len(corners):
            share = (k - corners[left]) / (corners[left + 1] - corners[left])
            wings = {source[left]: 1.0 - share, source[left + 1]: share}
        traded = np.zeros(len(self.k))
        traded[sold] = -1.0 / notional[sold]
        for quote, amount in wings.items():
            if quote >= 0:  # at a strike of zero is the forward, which covers
                traded[quote] = amount / notional[quote]
        traded /= np.abs(traded[traded != 0.0]).min()
        family = "calendar_spread"
        if np.count_nonzero(traded) > 2:
            family = "calendar_butterfly"
        return family, self.trade(traded)

    def calendar_table(self, surface: _Surface, solved: _Solved | None) -> pd.DataFrame:
        """Calls held against those of the expiry before; see `ChainArbitrage`."""
        parts = [
            pd.DataFrame(
                {"expiry": np.zeros(0, int)}
                | dict.fromkeys(("strike", "quantity", "price"), np.zeros(0))
            )
        ]
        if solved is not None:
            for i, multiplier in enumerate(solved.multipliers, start=1):
                at = np.flatnonzero(multiplier)
                k, notional = solved.nodes[i][at], self.notional[i]
                call = np.interp(k, surface.corners[i], surface.calls[i])
                parts.append(
                    pd.DataFrame(
                        {
                            "expiry": np.full(len(at), i),
                            "strike": k * self.forwards[i],
                            "quantity": multiplier[at] / notional,
                            "price": notional * call,
                        }
                    )
                )
        return pd.concat(parts, ignore_index=True)


def _order_rows(
    earlier: np.ndarray, later: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows that put the curve of one expiry below that of the next.

    The straight line between the earlier nodes is at no later node above the later time
    value. Before the first node the line starts from the forward; beyond the last it is
    level. Row, column (the earlier nodes, then the later ones) and value of each
    non-zero, and the upper limits, of shape `(len(later),)`.
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
    return (
        np.concatenate([row, row[inner], row]),
        np.concatenate([j - 1, j[inner] - 2, len(earlier) + row]),
        np.concatenate([right, left[inner], np.full(len(later), -1.0)]),
        np.where(np.abs(limit) > 1e-15, limit, 0.0),
    )


def _with_more(nodes: np.ndarray, more: np.ndarray) -> np.ndarray:
    """Nodes and those of `more` that are not among them, up to rounding."""
    more = np.unique(more)
    more = more[np.append(True, np.diff(more) > _SAME_NODE)] if len(more) else more
    at = np.searchsorted(nodes, more)
    before, after = nodes[np.maximum(at - 1, 0)], nodes[np.minimum(at, len(nodes) - 1)]
    nearest = np.minimum(np.abs(more - before), np.abs(more - after))
    return np.sort(np.concatenate([nodes, more[nearest > _SAME_NODE]]))

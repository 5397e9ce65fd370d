r"""Static arbitrage: in quotes, in price curves, and the facts that exclude it.

Call prices of one expiry admit no static arbitrage if, and only if, the undiscounted
price $c$ is a convex function of the strike with

$$
c(0) = F, \qquad -1 \le c'(K) \le 0, \qquad c(K) \ge \max(F - K, 0)
$$

(Davis and Hobson, 2007). Each condition is the price of a trade that cannot lose, and
what violates it is named after that trade: `butterfly` (convexity), `call_spread`
(slopes), `bounds` (against the forward and cash alone), and, between a call and a put
of one strike, `parity`. The conditions are closed: a curve that is level at a positive
price is a limit of curves without arbitrage, and passes.

* `least_excess` asks the quotes: is there a curve inside every bid and ask, and if not,
  how far outside must it be, and which trade earns the difference?
* `certify_network` states the few numbers that prove a network free of arbitrage.
* `static_arbitrage_violations` samples any other curve at given strikes.

References:
    Davis, M. and Hobson, D. (2007). The range of traded option prices. *Mathematical
    Finance*, 17, 1-14.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.optimize import linprog
from scipy.sparse import csr_array

from relu_options.errors import ArbitrageError, FitError, QuoteError
from relu_options.networks import PriceNetwork

ROUNDING = 1e-10
"""Of the forward: prices that differ by less are taken as equal."""

IDENTITY_ROUNDING = 16 * np.finfo(float).eps
"""By how much a certified mass or forward may be off, relative: 3.6e-15."""

_SOLVER_TOLERANCE = 1e-10  # the smallest that HiGHS takes
_QUANTITY_BITS = 44  # to which quantities are rounded: sums of 512 are exact
_SHOWN = 3


@dataclass(frozen=True, eq=False)
class QuoteArbitrage:
    """How near a price curve without arbitrage can come to quotes of one expiry.

    Attributes:
        strike: Of the quotes, of shape `(m,)`, in currency units.
        bid: Of shape `(m,)`, in currency units paid today; NaN where unknown.
        ask: Likewise.
        is_call: Of shape `(m,)`.
        forward: Currency units.
        discount_factor: Price today of one unit of currency paid at expiry.
        excess: Of shape `(m,)`: by how much the nearest curve is below the bid or above
            the ask, in currency units paid today; zero inside.
        total_excess: Sum of the excesses, each times its weight; in currency units
            where no weights were given. It is what `trade` earns.
        strikes: Distinct strikes, increasing, of shape `(n,)`.
        call_prices: The nearest curve's call prices there, in currency units paid
            today. Straight lines between them, and to the forward at a strike of zero,
            are a price curve.
        quantity: Of shape `(m,)`: the quotes that `trade` buys (positive) and sells
            (negative).
        family: The simplest trade that earns something: "bounds", "parity",
            "call_spread" or "butterfly"; None if there is none.
        family_strikes: Its strikes; a strike of zero is the forward itself.
        simplest_quantity: Of shape `(m,)`: the quotes that `simplest_trade` trades.

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

    strike: np.ndarray = field(repr=False)
    bid: np.ndarray = field(repr=False)
    ask: np.ndarray = field(repr=False)
    is_call: np.ndarray = field(repr=False)
    forward: float
    discount_factor: float
    excess: np.ndarray = field(repr=False)
    total_excess: float
    strikes: np.ndarray = field(repr=False)
    call_prices: np.ndarray = field(repr=False)
    quantity: np.ndarray = field(repr=False)
    family: str | None
    family_strikes: tuple[float, ...]
    simplest_quantity: np.ndarray = field(repr=False)

    @property
    def is_arbitrage_free(self) -> bool:
        """Whether a price curve passes inside every bid and ask, up to `ROUNDING`."""
        return not self.excess.any()

    @property
    def share_inside(self) -> float:
        """Share of the quotes inside which the nearest curve passes."""
        return float(np.mean(self.excess == 0.0))

    def trade(self) -> pd.DataFrame:
        """The portfolio of quotes that earns `total_excess` today and cannot lose.

        Its quantities are the dual variables of the programme: what a quote's bid or
        ask would have to move for the total excess to change by one. No quantity
        exceeds the weight of its quote (1 where none were given), and no portfolio
        within these limits earns more. Forward and cash legs make its payoff
        non-negative for every spot, exactly, not merely up to rounding.

        Returns:
            One row per leg, with columns `strike`, `option_type` ("call", "put",
            "forward" or "cash"), `side` ("buy" or "sell"), `quantity` (positive is
            long), `price` (paid today: asks where bought, bids where sold) and
            `cash_flow` (received today). A forward at the forward price costs nothing
            and pays the spot minus it; a unit of cash pays 1 at expiry. No rows if the
            quotes are free of arbitrage.
        """
        return self._legs(self.quantity)

    def simplest_trade(self) -> pd.DataFrame:
        """The trade with the fewest options that earns something and cannot lose.

        Its smallest option leg is 1. See `trade` for the columns.
        """
        return self._legs(self.simplest_quantity)

    def describe(self) -> str:
        """What is wrong with the quotes, in one sentence that names the trade."""
        count = len(self.excess)
        if self.is_arbitrage_free:
            return (
                "no static arbitrage: a price curve passes inside the bid and ask of "
                f"all {count} quotes"
            )
        legs = self.simplest_trade()
        outside = np.flatnonzero(self.excess)
        shown = ", ".join(
            f"{'call' if self.is_call[row] else 'put'} {self.strike[row]:.10g} "
            f"({self.excess[row]:.3g})"
            for row in outside[:_SHOWN]
        )
        more = ", ..." if len(outside) > _SHOWN else ""
        return (
            f"static arbitrage in {count} quotes: {self.family} "
            f"{'-'.join(f'{strike:.10g}' for strike in self.family_strikes)}: "
            f"{', '.join(_leg_in_words(leg) for leg in legs.itertuples())} earns "
            f"{legs['cash_flow'].sum():.6g} today and cannot lose; the nearest price "
            f"curve is outside {len(outside)} of {count} quotes: {shown}{more}; drop "
            "or widen these quotes, or fit with the least excess"
        )

    def _legs(self, quantity: np.ndarray) -> pd.DataFrame:
        """Quotes with the forward and cash that make their payoff non-negative."""
        rows = np.flatnonzero(quantity)
        rows = rows[np.lexsort((~self.is_call[rows], self.strike[rows]))]
        strike, is_call = self.strike[rows], self.is_call[rows]
        quantity, forwards, cash = _cover(strike, is_call, quantity[rows], self.forward)
        strike = np.append(strike, [self.forward, np.nan])
        kind = [*np.where(is_call, "call", "put").tolist(), "forward", "cash"]
        price = np.where(quantity > 0.0, self.ask[rows], self.bid[rows])
        price = np.append(price, [0.0, self.discount_factor])
        quantity = np.append(quantity, [forwards, cash])
        table = pd.DataFrame(
            {
                "strike": strike,
                "option_type": kind,
                "side": np.where(quantity > 0.0, "buy", "sell"),
                "quantity": quantity,
                "price": price,
                "cash_flow": 0.0 - quantity * price,
            }
        )
        return table[quantity != 0.0].reset_index(drop=True)


def least_excess(
    *,
    strike: ArrayLike,
    bid: ArrayLike,
    ask: ArrayLike,
    is_call: ArrayLike,
    forward: float,
    discount_factor: float,
    weights: ArrayLike | None = None,
) -> QuoteArbitrage:
    r"""Price curve without arbitrage that is least outside the bids and asks.

    With undiscounted call prices $c_j$ at the distinct strikes as unknowns, and puts
    turned into calls by parity, it solves the linear programme

    $$
    \text{minimise} \; \sum_i w_i e_i \quad \text{subject to} \quad
    \text{bid}_i - e_i \le p_i \le \text{ask}_i + e_i, \; e_i \ge 0,
    $$

    $p_i$ being today's price of option $i$ on a curve that is convex in the strike,
    with slopes in $[-1, 0]$ and $c(0) = F$. Three non-zeros a row, whatever the number
    of strikes. Whether the total is zero is decided first, without the programme: the
    highest convex curve below all asks must be nowhere below a bid.

    Args:
        strike: Shape `(m,)`, positive, in currency units, in any order; a call and a
            put, or several quotes of one option, may share a strike.
        bid: Shape `(m,)`, in currency units paid today; NaN where unknown.
        ask: Likewise. Equal to `bid` for a price that must be met.
        is_call: Shape `(m,)`, or one value for all.
        forward: Currency units.
        discount_factor: Price today of one unit of currency paid at expiry.
        weights: How much a unit of excess counts, of shape `(m,)` and positive; one
            over the half-spread counts it in half-spreads. By default all 1.

    Returns:
        The excess of each quote, the curve, and the trades that earn an arbitrage.

    Raises:
        ValueError: If shapes differ, or forward, discount factor or a weight is not
            positive.
        QuoteError: If a strike is not positive, a quote is negative or has neither bid
            nor ask, or a bid is above its ask; the message names the quotes.
        FitError: If HiGHS does not solve the programme.

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
    quotes = _read_quotes(strike, bid, ask, is_call, forward, discount_factor)
    count = len(quotes.strike)
    weights = np.ones(count) if weights is None else np.asarray(weights, float)
    if weights.shape != (count,) or not (np.isfinite(weights) & (weights > 0)).all():
        raise ValueError(
            f"weights are {count} positive numbers, one per quote, not {weights!r}"
        )
    best = _BestPrices.of(quotes)
    rounding = ROUNDING * quotes.forward
    simplest = quantity = excess = np.zeros(count)
    family, family_strikes, total_excess = None, (), 0.0
    if best.shortfall.max() <= rounding:
        call_prices = best.highest_curve
    else:
        time_value, quantity = _solve(quotes, weights)
        low, high = quotes.time_value_range
        fitted = time_value[quotes.node]
        excess = np.fmax(np.fmax(low - fitted, fitted - high), 0.0)
        excess = quotes.discount_factor * np.where(excess > rounding, excess, 0.0)
        total_excess = float(weights @ excess)
        call_prices = time_value + quotes.intrinsic
        if total_excess > 0.0:
            family, family_strikes, simplest = _simplest_trade(quotes, best, rounding)
        else:
            quantity = np.zeros(count)
    return QuoteArbitrage(
        strike=quotes.strike,
        bid=quotes.bid,
        ask=quotes.ask,
        is_call=quotes.is_call,
        forward=quotes.forward,
        discount_factor=quotes.discount_factor,
        excess=excess,
        total_excess=total_excess,
        strikes=quotes.nodes,
        call_prices=quotes.discount_factor * call_prices,
        quantity=quantity,
        family=family,
        family_strikes=family_strikes,
        simplest_quantity=simplest,
    )


def check_quote_arbitrage(
    *,
    strike: ArrayLike,
    bid: ArrayLike,
    ask: ArrayLike,
    is_call: ArrayLike,
    forward: float,
    discount_factor: float,
) -> None:
    """Raise if no price curve passes inside every bid and ask.

    Args:
        strike: As for `least_excess`, like all the others.
        bid: Currency units paid today.
        ask: Currency units paid today.
        is_call: True for calls.
        forward: Currency units.
        discount_factor: Price today of one unit of currency paid at expiry.

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
    )
    if not result.is_arbitrage_free:
        raise ArbitrageError(result.describe())


def bound_violations(
    *,
    strike: ArrayLike,
    bid: ArrayLike,
    ask: ArrayLike,
    is_call: ArrayLike,
    forward: float,
    discount_factor: float,
    labels: Sequence[object] | pd.Index | None = None,
) -> pd.DataFrame:
    r"""Quotes offered below intrinsic value, or wanted above their upper bound.

    A call is worth from $D \max(F - K, 0)$ to $D F$, a put from $D \max(K - F, 0)$ to
    $D K$. Outside of these no volatility explains a price.

    Args:
        strike: As for `least_excess`, like those that follow.
        bid: Currency units paid today.
        ask: Currency units paid today.
        is_call: True for calls.
        forward: Currency units.
        discount_factor: Price today of one unit of currency paid at expiry.
        labels: Of the quotes, for the index of the table; by default their positions.

    Returns:
        One row per violation, indexed by label: `strike`, `option_type`, `bid`, `ask`,
        `bound` ("below_intrinsic" or "above_bound"), `bound_price` and `size` (by how
        much the bound is missed, in currency units paid today). No rows if none.

    Raises:
        ValueError: As `least_excess`, or if there are not as many labels as quotes.
        QuoteError: As `least_excess`.

    Examples:
        >>> table = bound_violations(strike=[90.0, 100.0], bid=[9.0, 3.0],
        ...                          ask=[9.5, 3.2], is_call=True, forward=100.0,
        ...                          discount_factor=1.0, labels=["deep", "near"])
        >>> print(table[["strike", "ask", "bound", "bound_price", "size"]])
              strike  ask            bound  bound_price  size
        deep    90.0  9.5  below_intrinsic         10.0   0.5
    """
    quotes = _read_quotes(strike, bid, ask, is_call, forward, discount_factor)
    index = pd.RangeIndex(len(quotes.strike)) if labels is None else pd.Index(labels)
    if len(index) != len(quotes.strike):
        raise ValueError(f"{len(index)} labels for {len(quotes.strike)} quotes")
    discount = quotes.discount_factor
    moneyness = np.where(quotes.is_call, 1.0, -1.0) * (quotes.forward - quotes.strike)
    floor = discount * np.maximum(moneyness, 0.0)
    cap = discount * np.where(quotes.is_call, quotes.forward, quotes.strike)
    below, above = floor - quotes.ask, quotes.bid - cap
    rounding = ROUNDING * discount * quotes.forward
    is_below = below > rounding
    rows = np.flatnonzero(is_below | (above > rounding))
    table = pd.DataFrame(
        {
            "strike": quotes.strike,
            "option_type": np.where(quotes.is_call, "call", "put"),
            "bid": quotes.bid,
            "ask": quotes.ask,
            "bound": np.where(is_below, "below_intrinsic", "above_bound"),
            "bound_price": np.where(is_below, floor, cap),
            "size": np.where(is_below, below, above),
        },
        index=index,
    )
    return table.iloc[rows]


def static_arbitrage_violations(
    price: Callable[[np.ndarray], ArrayLike] | ArrayLike,
    *,
    forward: float,
    discount_factor: float,
    strikes: ArrayLike,
    tolerance: float = 1e-13,
) -> pd.DataFrame:
    """Trades at the given strikes that a curve of call prices pays one to enter.

    Every call against its bounds, every spread of neighbouring strikes against zero and
    its width, every butterfly of three neighbours against zero. Where all strikes are
    positive a strike of zero, which is the forward itself, is put before them; where
    some are not, the underlying may be negative and a call has no upper bound. What
    happens between the strikes is not seen: this samples, it does not prove.

    Args:
        price: Today's call price as a function of an array of strikes, or its values at
            `strikes`, in currency units.
        forward: Currency units.
        discount_factor: Price today of one unit of currency paid at expiry.
        strikes: Shape `(n,)`, all different, in any order; in currency units.
        tolerance: What is taken for rounding, relative to the discounted forward.

    Returns:
        One row per violation, the largest first: `family` ("bounds", "call_spread" or
        "butterfly"), `strikes` (a tuple) and `size`, what the trade earns today in
        currency units: per call, per spread, and per call sold in the middle of a
        butterfly. No rows if there is none.

    Raises:
        ValueError: If strikes repeat, shapes differ, a price is not a finite number, or
            forward or discount factor are not positive.

    Examples:
        >>> table = static_arbitrage_violations(
        ...     [20.9, 12.1, 8.0, 3.6], forward=100.0, discount_factor=1.0,
        ...     strikes=[80.0, 90.0, 100.0, 110.0])
        >>> print(table.round(6))
              family               strikes  size
        0  butterfly  (90.0, 100.0, 110.0)  0.15
    """
    _check_positive(forward=forward, discount_factor=discount_factor)
    x = np.asarray(strikes, float)
    y = np.asarray(price(x) if callable(price) else price, float)
    if x.ndim != 1 or not len(x) or y.shape != x.shape:
        raise ValueError(
            "strikes and prices have one shape `(n,)`, at least one of each; they have "
            f"{x.shape} and {y.shape}"
        )
    if not np.isfinite(y).all():
        bad = np.flatnonzero(~np.isfinite(y))
        raise ValueError(
            f"price is not finite at {len(bad)} of {len(x)} strikes: "
            f"{_some(x[bad])}; leave these strikes out"
        )
    order = np.argsort(x)
    x, y = x[order], y[order]
    floor, cap = discount_factor * np.maximum(forward - x, 0.0), np.inf
    if x[0] > 0.0:
        cap = discount_factor * forward
        x, y = np.append(0.0, x), np.append(cap, y)
        floor = np.append(cap, floor)
    if not (np.diff(x) > 0.0).all():
        raise ValueError(f"strikes repeat: {_some(x[1:][np.diff(x) <= 0.0])}")
    width, rise = np.diff(x), np.diff(y)
    middle = (width[1:] * y[:-2] + width[:-1] * y[2:]) / (width[1:] + width[:-1])
    sizes = {
        "bounds": np.maximum(floor - y, y - cap),
        "call_spread": np.maximum(rise, -rise - discount_factor * width),
        "butterfly": y[1:-1] - middle,
    }
    least = tolerance * discount_factor * forward
    found = [
        (family, tuple(x[row : row + legs].tolist()), float(size[row]))
        for legs, (family, size) in enumerate(sizes.items(), start=1)
        for row in np.flatnonzero(size > least)
    ]
    found.sort(key=lambda violation: -violation[2])
    return pd.DataFrame(found, columns=["family", "strikes", "size"]).astype(
        {"size": float}
    )


@dataclass(frozen=True, repr=False)
class CurveCertificate:
    """The numbers that prove a price network free of static arbitrage.

    A sum of hidden units with non-negative output weights falls with the strike and is
    convex in it, at every strike: each unit is a call price. Its slope is above minus
    the sum of the weights, the mass, and its price at a strike of zero is the forward
    times the mass (with the Black kernel; the Bachelier kernel allows a negative
    underlying, for which there is no such bound). Nothing is sampled and there is no
    tolerance, but for mass and forward, which are those asked for up to the errors
    given.

    Attributes:
        kernel: "black" or "bachelier".
        number_of_kinks: Of the network.
        smallest_weight: Must not be negative.
        smallest_kink: In currency units; with the Black kernel it must not be negative.
        smallest_bandwidth: Must not be negative.
        mass_error: Sum of the weights over the discount factor, minus 1, computed in
            exact arithmetic; at most `IDENTITY_ROUNDING`.
        forward_error: Sum of weights times kinks over the discounted forward, minus 1,
            likewise.

    Examples:
        A certificate is true if, and only if, it holds.

        >>> from relu_options.curves import BlackScholesCurve
        >>> flat = BlackScholesCurve(volatility=0.2, forward=100.0, time_to_expiry=1.0)
        >>> bool(flat.certificate), flat.certificate.smallest_weight
        (True, 1.0)
        >>> negative = certify_network(-flat.network, forward=100.0,
        ...                            discount_factor=1.0)
        >>> bool(negative), negative.smallest_weight
        (False, -1.0)
    """

    kernel: str
    number_of_kinks: int
    smallest_weight: float
    smallest_kink: float
    smallest_bandwidth: float
    mass_error: float
    forward_error: float

    @property
    def holds(self) -> bool:
        """Whether the network is free of static arbitrage."""
        return all(holds for _, _, _, holds in self._facts())

    def __bool__(self) -> bool:
        return self.holds

    def to_frame(self) -> pd.DataFrame:
        """One row per fact: its value, what is required of it, and whether it holds."""
        columns = ["fact", "value", "required", "holds"]
        return pd.DataFrame(self._facts(), columns=columns).set_index("fact")

    def _facts(self) -> list[tuple[str, float, str, bool]]:
        """Name, value, requirement, and whether it is met; NaN meets none."""
        signs = {
            "smallest_weight": self.smallest_weight,
            "smallest_kink": self.smallest_kink,
            "smallest_bandwidth": self.smallest_bandwidth,
        }
        if self.kernel != "black":
            del signs["smallest_kink"]
        errors = {"mass_error": self.mass_error, "forward_error": self.forward_error}
        limit = f"within {IDENTITY_ROUNDING:.1e}"
        return [
            *((name, value, ">= 0", value >= 0.0) for name, value in signs.items()),
            *(
                (name, value, limit, abs(value) <= IDENTITY_ROUNDING)
                for name, value in errors.items()
            ),
        ]

    def __repr__(self) -> str:
        if self.holds:
            return (
                "free of butterfly and call-spread arbitrage at every strike: "
                f"{self.number_of_kinks} output weights >= 0 (least "
                f"{self.smallest_weight:.2g}), mass {_one_plus(self.mass_error)}, "
                f"forward {_one_plus(self.forward_error)}, bandwidths >= 0 (least "
                f"{self.smallest_bandwidth:.2g})"
            )
        broken = ", ".join(
            f"{name} is {value:.3g}, not {required}"
            for name, value, required, holds in self._facts()
            if not holds
        )
        return f"not free of static arbitrage: {broken}"


def certify_network(
    network: PriceNetwork, *, forward: float, discount_factor: float
) -> CurveCertificate:
    r"""State the numbers that decide whether a price network admits arbitrage.

    $$
    p_j \ge 0, \qquad \sum_j p_j = D, \qquad \sum_j p_j s_j = D F.
    $$

    The two sums are computed in rational arithmetic, so their errors are those of the
    network and not of adding up.

    Args:
        network: Call prices by strike, in currency units paid today.
        forward: Currency units.
        discount_factor: Price today of one unit of currency paid at expiry.

    Returns:
        The certificate; true if it holds. A NaN or an infinity in the network makes its
        numbers NaN, and it does not hold.

    Raises:
        ValueError: If forward or discount factor are not positive, or the network has
            no kinks.

    Examples:
        >>> import jax.numpy as jnp
        >>> network = PriceNetwork(jnp.array([80.0, 100.0, 120.0]),
        ...                        jnp.array([0.25, 0.5, 0.25]), jnp.full(3, 0.1))
        >>> certificate = certify_network(network, forward=100.0, discount_factor=1.0)
        >>> certificate  # doctest: +NORMALIZE_WHITESPACE
        free of butterfly and call-spread arbitrage at every strike: 3 output weights
        >= 0 (least 0.25), mass 1, forward 1, bandwidths >= 0 (least 0.1)
        >>> print(certify_network(network, forward=100.5, discount_factor=1.0))
        not free of static arbitrage: forward_error is -0.00498, not within 3.6e-15
    """
    _check_positive(forward=forward, discount_factor=discount_factor)
    kinks, weights, bandwidths = (
        np.asarray(values, float).ravel()
        for values in (network.kinks, network.weights, network.bandwidths)
    )
    if not len(kinks):
        raise ValueError("a network without kinks has no prices to certify")
    mass_error = forward_error = np.nan
    if np.isfinite(kinks).all() and np.isfinite(weights).all():
        discount = Fraction(float(discount_factor))
        mass_error = float(_exact_dot(weights, np.ones_like(kinks)) / discount - 1)
        mean = _exact_dot(weights, kinks) / discount
        forward_error = float(mean / Fraction(float(forward)) - 1)
    return CurveCertificate(
        kernel=network.kernel,
        number_of_kinks=len(kinks),
        smallest_weight=float(weights.min()),
        smallest_kink=float(kinks.min()),
        smallest_bandwidth=float(bandwidths.min()),
        mass_error=mass_error,
        forward_error=forward_error,
    )


@dataclass(frozen=True, eq=False)
class _Quotes:
    """Quotes of one expiry that have been checked; arrays of shape `(m,)`.

    `nodes`, of shape `(n,)`, are the distinct strikes, increasing; `node` is the
    position of each quote's strike among them.
    """

    strike: np.ndarray
    bid: np.ndarray
    ask: np.ndarray
    is_call: np.ndarray
    forward: float
    discount_factor: float
    nodes: np.ndarray
    node: np.ndarray

    @property
    def intrinsic(self) -> np.ndarray:
        """Undiscounted intrinsic value of a call at the nodes."""
        return np.maximum(self.forward - self.nodes, 0.0)

    @property
    def time_value_range(self) -> tuple[np.ndarray, np.ndarray]:
        """Bid and ask, undiscounted, minus intrinsic value; NaN where unknown.

        By parity the same for the call and the put of a strike. Out of the money they
        are the prices themselves, with all their digits.
        """
        sign = np.where(self.is_call, 1.0, -1.0)
        intrinsic = np.maximum(sign * (self.forward - self.strike), 0.0)
        discount = self.discount_factor
        return self.bid / discount - intrinsic, self.ask / discount - intrinsic


def _read_quotes(
    strike: ArrayLike,
    bid: ArrayLike,
    ask: ArrayLike,
    is_call: ArrayLike,
    forward: float,
    discount_factor: float,
) -> _Quotes:
    """The arguments as arrays, after checking them."""
    _check_positive(forward=forward, discount_factor=discount_factor)
    strike, bid, ask = (np.asarray(values, float) for values in (strike, bid, ask))
    flags = np.asarray(is_call, bool)
    if strike.ndim != 1 or not len(strike):
        raise ValueError(f"strikes have shape `(m,)` and m > 0, not {strike.shape}")
    if {bid.shape, ask.shape, flags.shape} - {strike.shape, ()}:
        raise ValueError(
            f"shapes differ: strike {strike.shape}, bid {bid.shape}, ask {ask.shape}, "
            f"is_call {flags.shape}"
        )
    bid, ask, flags = (np.broadcast_to(v, strike.shape) for v in (bid, ask, flags))
    faults = {
        "strike not positive": ~(np.isfinite(strike) & (strike > 0.0)),
        "neither bid nor ask": np.isnan(bid) & np.isnan(ask),
        "negative or infinite quote": (bid < 0.0) | (ask < 0.0) | np.isinf(bid + ask),
        "bid above ask": bid > ask,
    }
    for meaning, bad in faults.items():
        if bad.any():
            rows = np.flatnonzero(bad)
            shown = ", ".join(
                f"strike {strike[row]:.10g} ({bid[row]:.10g} / {ask[row]:.10g})"
                for row in rows[:_SHOWN]
            )
            more = ", ..." if len(rows) > _SHOWN else ""
            raise QuoteError(
                f"{meaning} in {len(rows)} of {len(strike)} quotes: {shown}{more}; "
                "drop these quotes"
            )
    nodes, node = np.unique(strike, return_inverse=True)
    return _Quotes(
        strike, bid, ask, flags, float(forward), float(discount_factor), nodes, node
    )


@dataclass(frozen=True, eq=False)
class _BestPrices:
    """At each node, the most at which a call can be sold, the least at which bought.

    A put, the forward and cash are a call. All in undiscounted currency units and of
    shape `(n,)`.

    Attributes:
        lower: Highest bid; minus infinity where there is none.
        upper: Lowest ask; infinity where there is none.
        seller: The quote that has the bid.
        buyer: The quote that has the ask.
        vertices: Positions among `(0, *nodes)` of the corners of the highest curve.
        highest_curve: The highest convex curve through the forward at a strike of zero,
            at or below all asks and nowhere rising.
        shortfall: How far that curve is below the bid or intrinsic value.
    """

    lower: np.ndarray
    upper: np.ndarray
    seller: np.ndarray
    buyer: np.ndarray
    vertices: list[int]
    highest_curve: np.ndarray
    shortfall: np.ndarray

    @classmethod
    def of(cls, quotes: _Quotes) -> _BestPrices:
        """The best prices of all quotes at each node, and the curve below the asks."""
        intrinsic = quotes.intrinsic
        low, high = quotes.time_value_range
        low = np.where(np.isnan(low), -np.inf, low)
        high = np.where(np.isnan(high), np.inf, high)
        positions = np.arange(len(quotes.nodes))
        sellers = np.lexsort((-low, quotes.node))
        seller = sellers[np.searchsorted(quotes.node[sellers], positions)]
        buyers = np.lexsort((high, quotes.node))
        buyer = buyers[np.searchsorted(quotes.node[buyers], positions)]
        lower, upper = low[seller] + intrinsic, high[buyer] + intrinsic
        x = np.append(0.0, quotes.nodes)
        y = np.append(quotes.forward, upper)
        vertices = _lower_hull(x, y, 0.0)
        curve = np.interp(quotes.nodes, x[vertices], y[vertices])
        shortfall = np.maximum(lower, intrinsic) - curve
        return cls(lower, upper, seller, buyer, vertices, curve, shortfall)


def _lower_hull(x: np.ndarray, y: np.ndarray, tail_slope: float) -> list[int]:
    """Corners of the highest convex curve below points that ends with a given slope.

    `x` increases; infinite `y` are passed over. Beyond the last corner the curve is a
    ray of slope `tail_slope`.
    """
    xs, ys = x.tolist(), y.tolist()
    hull: list[int] = []
    for i in np.flatnonzero(np.isfinite(y)).tolist():
        while len(hull) > 1:
            a, b = hull[-2], hull[-1]
            turn = (ys[b] - ys[a]) * (xs[i] - xs[a]) - (ys[i] - ys[a]) * (xs[b] - xs[a])
            if turn < 0.0:
                break
            hull.pop()
        hull.append(i)
    while len(hull) > 1:
        a, b = hull[-2], hull[-1]
        if ys[b] - ys[a] < tail_slope * (xs[b] - xs[a]):
            break
        hull.pop()
    return hull


def _simplest_trade(
    quotes: _Quotes, best: _BestPrices, rounding: float
) -> tuple[str, tuple[float, ...], np.ndarray]:
    """Family, strikes, and quantities of the quotes, with a smallest of one."""
    family, bought, sold = _simplest_family(quotes, best, rounding)
    amounts = [amount for node, amount in bought.items() if node >= 0]
    unit = min([*amounts, 1.0])
    quantity = np.zeros(len(quotes.strike))
    for node, amount in bought.items():
        if node >= 0:  # a strike of zero is the forward, which covers what is missing
            quantity[best.buyer[node]] += amount / unit
    if sold is not None:
        quantity[best.seller[sold]] -= 1.0 / unit
    nodes = sorted({*bought} if sold is None else {*bought, sold})
    strikes = tuple(float(quotes.nodes[node]) if node >= 0 else 0.0 for node in nodes)
    return family, strikes, quantity


def _simplest_family(
    quotes: _Quotes, best: _BestPrices, rounding: float
) -> tuple[str, dict[int, float], int | None]:
    """The trade with the fewest options that earns: family, and what is traded.

    Nodes and the amounts bought there, and the node where one call is sold, if any;
    node -1 is a strike of zero. Within a family the trade is the one that earns most.
    If none earns, a curve passes inside all quotes, which is how `_BestPrices` decides.
    """
    k, lower, upper = quotes.nodes, best.lower, best.upper
    below, above = quotes.intrinsic - upper, lower - quotes.forward
    if max(below.max(), above.max()) > rounding:
        if below.max() >= above.max():
            return "bounds", {int(below.argmax()): 1.0}, None
        return "bounds", {}, int(above.argmax())

    crossed = lower - upper
    if crossed.max() > rounding:
        node = int(crossed.argmax())
        is_call = quotes.is_call[[best.seller[node], best.buyer[node]]]
        family = "call_spread" if is_call[0] == is_call[1] else "parity"
        return family, {node: 1.0}, node

    # Sold above the price of a lower strike, or of a higher strike and the width.
    cheapest = np.minimum.accumulate(upper)
    nearest = np.minimum.accumulate((upper + k)[::-1])[::-1]
    rising, wide = lower - cheapest, lower + k - nearest
    if max(rising.max(), wide.max()) > rounding:
        if rising.max() >= wide.max():
            sold = int(rising.argmax())
            bought = int(upper[: sold + 1].argmin())
        else:
            sold = int(wide.argmax())
            bought = sold + int((upper + k)[sold:].argmin())
        return "call_spread", {bought: 1.0}, sold

    # The wings are the corners of the highest curve below the asks, around the middle.
    sold = int((lower - best.highest_curve).argmax())
    corners = np.array(best.vertices) - 1
    place = int(np.searchsorted(corners, sold))
    left, right = int(corners[place - 1]), int(corners[place])
    start = k[left] if left >= 0 else 0.0
    share = float((k[sold] - start) / (k[right] - start))
    return "butterfly", {left: 1.0 - share, right: share}, sold


def _solve(quotes: _Quotes, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Time values at the nodes, undiscounted, and quantities of the quotes.

    The unknowns are time values, which are the call prices shifted by constants, in
    units of the largest quoted: HiGHS keeps constraints to 1e-10 of that unit.
    """
    count, n = len(quotes.strike), len(quotes.nodes)
    low, high = quotes.time_value_range
    largest = np.fmax(low, high).max()
    unit = float(np.clip(largest, 1e-6 * quotes.forward, quotes.forward))
    # A bid below zero time value says nothing, since no curve is there.
    sells, buys = np.flatnonzero(low > 0.0), np.flatnonzero(np.isfinite(high))
    quote = np.concatenate([sells, buys])
    sign = np.repeat([-1.0, 1.0], [len(sells), len(buys)])
    limit = np.concatenate([-low[sells], high[buys]]) / unit
    rows = np.arange(len(quote))
    curve_row, curve_node, coefficient, curve_limit = _curve_rows(
        quotes.nodes, quotes.forward
    )
    matrix = csr_array(
        (
            np.concatenate([sign, np.full(len(quote), -1.0), coefficient]),
            (
                np.concatenate([rows, rows, len(quote) + curve_row]),
                np.concatenate([quotes.node[quote], n + quote, curve_node]),
            ),
        ),
        shape=(len(quote) + n, n + count),
    )
    mean_weight = float(weights.mean())
    solution = linprog(
        np.concatenate([np.zeros(n), weights / mean_weight]),
        A_ub=matrix,
        b_ub=np.concatenate([limit, curve_limit / unit]),
        bounds=(0.0, None),
        method="highs-ds",
        options={
            "primal_feasibility_tolerance": _SOLVER_TOLERANCE,
            "dual_feasibility_tolerance": _SOLVER_TOLERANCE,
        },
    )
    if solution["status"] != 0:
        raise FitError(
            f"the linear programme of {count} quotes at {n} strikes was not solved: "
            f"{solution['message']}; check the quotes for prices out by orders of "
            "magnitude"
        )
    marginals = solution["ineqlin"]["marginals"][: len(quote)]
    quantity = np.zeros(count)
    np.add.at(quantity, quote, -sign * mean_weight * marginals)
    return unit * solution["x"][:n], quantity


def _curve_rows(
    nodes: np.ndarray, forward: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows of the time values of one expiry: convex, and not rising at the end.

    Row, column and value of each non-zero, and the upper limits, of shape `(n,)`. A
    strike of zero, where the call is the forward, stands before the nodes; with it
    convexity and non-negative time values bound every slope. A row is in units of
    price: the call at a node less what its neighbours' straight line has there. Several
    expiries are blocks of such rows, with rows of their own between them.
    """
    n = len(nodes)
    x = np.append(0.0, nodes)
    intrinsic = np.maximum(forward - x, 0.0)
    width = np.diff(x)
    left = width[1:] / (width[1:] + width[:-1])
    right = 1.0 - left
    bend = left * intrinsic[:-2] + right * intrinsic[2:] - intrinsic[1:-1]
    limit = np.where((x[:-2] < forward) & (forward < x[2:]), bend, 0.0)
    # The row of the last node: not above the one before it.
    left, right = np.append(left, 1.0), np.append(right, 0.0)
    limit = np.append(limit, intrinsic[-2] - intrinsic[-1])
    row = np.arange(n)
    return (
        np.concatenate([row, row[1:], row[:-1]]),
        np.concatenate([row, row[:-1], row[1:]]),
        np.concatenate([np.ones(n), -left[1:], -right[:-1]]),
        limit,
    )


def _cover(
    strike: np.ndarray, is_call: np.ndarray, quantity: np.ndarray, forward: float
) -> tuple[np.ndarray, float, float]:
    """Quantities, and the cheapest forwards and cash that keep them from losing.

    The payoff of the options is above the supporting line, at the forward, of its
    convex hull over spots from zero on; selling that line leaves what cannot lose. The
    line's slope is rounded first and its level then found in rational arithmetic and
    rounded up, so that the payoff of the floats returned is exactly non-negative.
    Strikes must not decrease.
    """
    if not len(quantity):
        return quantity, 0.0, 0.0
    step = 2.0 ** (math.frexp(float(np.abs(quantity).max()))[1] - _QUANTITY_BITS)
    quantity = step * np.round(quantity / step)
    spots = np.append(0.0, np.unique(strike))
    sign = np.where(is_call, 1.0, -1.0)
    payoff = np.maximum(sign * (spots[:, None] - strike), 0.0) @ quantity
    tail_slope = math.fsum(quantity[is_call])
    hull = _lower_hull(spots, payoff, tail_slope)
    corners = spots[hull]
    slopes = np.append(np.diff(payoff[hull]) / np.diff(corners), tail_slope)
    before = slopes[np.searchsorted(corners, forward, side="left") - 1]
    after = slopes[np.searchsorted(corners, forward, side="right") - 1]
    slope = step * np.round(np.clip(0.0, min(before, after), max(before, after)) / step)
    forwards = max(float(-slope), -tail_slope)
    # From a spot of zero to the right, each strike adds its quantity to the slope.
    amounts = [Fraction(amount) for amount in quantity.tolist()]
    bends = [Fraction(k) for k in strike.tolist()]
    puts = np.flatnonzero(~is_call).tolist()
    spot, rise = Fraction(0), Fraction(forwards) - sum(amounts[leg] for leg in puts)
    level = sum(amounts[leg] * bends[leg] for leg in puts)
    level -= Fraction(forwards) * Fraction(forward)
    least = level
    for bend, amount in zip(bends, amounts, strict=True):
        level += rise * (bend - spot)
        spot, rise, least = bend, rise + amount, min(least, level)
    cash = float(-least)
    if Fraction(cash) < -least:
        cash = math.nextafter(cash, math.inf)
    return quantity, forwards + 0.0, cash + 0.0


def _exact_dot(a: np.ndarray, b: np.ndarray) -> Fraction:
    """Inner product of two arrays in rational arithmetic.

    Denominators of floats are powers of two, so the largest is common to all: summing
    integers is a tenth of the work of summing fractions.
    """
    ratios = [x.as_integer_ratio() for x in a.tolist()]
    others = [x.as_integer_ratio() for x in b.tolist()]
    products = [(p * r, q * s) for (p, q), (r, s) in zip(ratios, others, strict=True)]
    common = max(denominator for _, denominator in products)
    total = sum(p * (common // denominator) for p, denominator in products)
    return Fraction(total, common)


def _leg_in_words(leg) -> str:
    """One row of a trade: buy 1 call 90 at 12.1."""
    amount = f"{abs(leg.quantity):.6g}"
    if leg.option_type == "cash":
        verb = "lend" if leg.side == "buy" else "borrow"
        return f"{verb} {abs(leg.cash_flow):.6g} until expiry"
    if leg.option_type == "forward":
        return f"{leg.side} {amount} forward at {leg.strike:.10g}"
    return f"{leg.side} {amount} {leg.option_type} {leg.strike:.10g} at {leg.price:.6g}"


def _one_plus(error: float) -> str:
    """`1 + 1.1e-16`, and plain `1` where there is no error."""
    if error == 0.0:
        return "1"
    return f"1 {'+' if error > 0.0 else '-'} {abs(error):.1e}"


def _some(values: np.ndarray) -> str:
    """The first few numbers, as text."""
    more = ", ..." if len(values) > _SHOWN else ""
    return ", ".join(f"{value:.10g}" for value in values[:_SHOWN]) + more


def _check_positive(**values: float) -> None:
    """Raise unless all are positive and finite."""
    for name, value in values.items():
        if not (np.isfinite(value) and value > 0.0):
            raise ValueError(f"{name} must be positive, not {value!r}")

r"""Which quotes are too old to stand beside others.

A quote is stale if it was made before its neighbours were: the market has moved, and
the row still shows the old bid and ask. Nothing in it says so but that it disagrees
with fresher ones. So each quote is held against what its neighbours in strike that
traded later imply for it, and set aside where that is outside its own spread.

A source that keeps quotes alive between trades shows quotes that agree, however long
ago the last trade was: age alone condemns nothing, unless the user says so.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from relu_options.errors import QuoteError


@dataclass(frozen=True, eq=False)
class Trading:
    """How lately and how much each contract traded, NaN where that is unknown.

    Attributes:
        age: Days since the last trade, of shape `(rows,)`.
        volume: Contracts traded on the day, likewise.
        open_interest: Contracts open, likewise.
    """

    age: np.ndarray
    volume: np.ndarray
    open_interest: np.ndarray

    @staticmethod
    def of(rows: pd.DataFrame, quote_time: pd.Timestamp | None) -> "Trading":
        """What canonical rows say.

        Examples:
            >>> traded = pd.to_datetime(["2019-05-17 20:00", None], utc=True)
            >>> rows = pd.DataFrame({"last_trade_time": traded, "volume": [3.0, 0.0]})
            >>> Trading.of(rows, pd.Timestamp("2019-05-20 08:00", tz="UTC")).age
            array([2.5, nan])
        """
        unknown = np.full(len(rows), np.nan)
        age = unknown
        if quote_time is not None and "last_trade_time" in rows:
            elapsed = quote_time - rows["last_trade_time"]
            age = (elapsed / pd.Timedelta(days=1)).to_numpy(float)
        volume, open_interest = (
            rows[name].to_numpy(float) if name in rows else unknown
            for name in ("volume", "open_interest")
        )
        return Trading(age, volume, open_interest)


@dataclass(frozen=True)
class TradingLimits:
    """What is asked of a contract's trading before its quote is used.

    Attributes:
        max_age: Days from the last trade to the quote time, at most; a part of a day is
            a fraction.
        min_volume: Contracts traded on the day, at least.
        min_open_interest: Contracts open, at least.

    Raises:
        ValueError: If a number is negative or not finite.

    Examples:
        >>> limits = TradingLimits(max_age=1.0, min_volume=10)
        >>> old, thin = limits.missed(Trading(
        ...     age=np.array([0.1, 3.0, np.nan, 0.2]),
        ...     volume=np.array([50.0, 70.0, 20.0, np.nan]),
        ...     open_interest=np.full(4, np.nan)))
        >>> old.tolist(), thin.tolist()
        ([False, True, True, False], [False, False, False, True])
    """

    max_age: float | None = None
    min_volume: float | None = None
    min_open_interest: float | None = None

    def __post_init__(self):
        for name, value in vars(self).items():
            if value is None:
                continue
            if isinstance(value, str) or np.ndim(value) != 0:
                raise ValueError(f"`{name}` must be one number, not {value!r}")
            if not 0.0 <= float(value) < np.inf:
                raise ValueError(
                    f"`{name}` must be zero or positive, and finite, not {value!r}"
                )

    def __bool__(self) -> bool:
        return any(value is not None for value in vars(self).values())

    def missed(self, trading: Trading) -> tuple[np.ndarray, np.ndarray]:
        """Rows that traded too long ago, and rows that trade too little.

        A row without a number misses a limit on it: a vendor leaves empty what has not
        traded.

        Returns:
            Two masks over the rows.

        Raises:
            QuoteError: If no row has a number that a limit needs.
        """
        old = thin = np.zeros(len(trading.age), dtype=bool)
        if self.max_age is not None:
            _require(trading.age, "max_age", "last_trade_time", " and a quote time")
            old = ~(trading.age <= self.max_age)
        if self.min_volume is not None:
            _require(trading.volume, "min_volume", "volume")
            thin = thin | ~(trading.volume >= self.min_volume)
        if self.min_open_interest is not None:
            _require(trading.open_interest, "min_open_interest", "open_interest")
            thin = thin | ~(trading.open_interest >= self.min_open_interest)
        return old, thin


def _require(values: np.ndarray, limit: str, column: str, also: str = "") -> None:
    """Raise unless some row has the number that a limit needs."""
    if not np.isfinite(values).any():
        raise QuoteError(
            f"`{limit}=` needs a column {column!r}{also}, with values; name it with "
            f"`columns={{{column!r}: ...}}`, or leave the limit out"
        )


@dataclass(frozen=True)
class Neighbours:
    r"""How a quote is judged by the neighbours in strike that are fresher.

    The nearest of them on each side say what it should be: a parabola in the strike
    through the logarithms of their mids, turned by parity into prices of its own type,
    that leaves the least sum of absolute residuals, so that two or three of eight may
    be wrong by any amount. Its standard error comes from the median residual.

    Attributes:
        lag: Days by which the last trade of one quote is later than that of another to
            be called fresher. Within a day both are of one session.
        each_side: Neighbours on each side. Four follow a smile between any two listed
            strikes and outvote two that are wrong.
        reach: Quotes on each side among which they must be: a parabola does not follow
            a smile much farther.
        least: On each side, without which there is no judgement: beyond the quotes a
            parabola follows nothing, and few have small residuals by chance.
        deviations: Standard errors beyond its spread from which a quote contradicts
            them.
        least_error: No mid is known better than to this part of its half-spread.
        most: Share of the quotes of one expiry that may contradict the rest. Where more
            do, it is not they who are wrong.
        steps: Of reweighting, after which the least sum is found to within what the
            standard error counts.
    """

    lag: float = 1.0
    each_side: int = 4
    reach: int = 8
    least: int = 3
    deviations: float = 3.0
    least_error: float = 0.1
    most: float = 0.2
    steps: int = 15


@dataclass(frozen=True, eq=False)
class SliceQuotes:
    """The rows of one expiry, both quotes of a strike where there are both.

    Attributes:
        strike: Shape `(n,)`, in currency units.
        is_call: Shape `(n,)`.
        bid, ask: Shape `(n,)`, in currency units paid today; anything where a row is
            not usable.
        age: Shape `(n,)`, days since the last trade; NaN where it is unknown, which is
            older than any other.
        forward: Currency units.
        discount_factor: Price today of one unit of currency paid at expiry.
        forward_error: Standard error of the forward, in currency units.
        discount_error: Standard error of the discount factor.
    """

    strike: np.ndarray
    is_call: np.ndarray
    bid: np.ndarray
    ask: np.ndarray
    age: np.ndarray
    forward: float
    discount_factor: float
    forward_error: float = 0.0
    discount_error: float = 0.0

    @property
    def out_of_the_money(self) -> np.ndarray:
        """Puts below the forward, calls at and above it."""
        return self.is_call == (self.strike >= self.forward)

    @property
    def parity_error(self) -> np.ndarray:
        r"""Standard error of what parity turns a quote into, in currency units.

        $C - P = D (F - K)$ is off by $D \, \delta F + (F - K) \, \delta D$; zero for
        quotes out of the money, which are not turned.
        """
        error = np.hypot(
            self.discount_factor * self.forward_error,
            (self.forward - self.strike) * self.discount_error,
        )
        return np.where(self.out_of_the_money, 0.0, error)


def stale_quotes(
    quotes: SliceQuotes,
    usable: np.ndarray,
    rule: Neighbours = Neighbours(),
) -> np.ndarray:
    """Quotes that contradict fresher neighbours beyond their spreads.

    The neighbours of a quote are the out-of-the-money quotes of other strikes, and at a
    strike without one the other, that have a bid and traded later than it. Those found
    stale are no neighbours of others.

    Args:
        quotes: Rows of one expiry.
        usable: Those to judge, and to judge by, a mask of shape `(n,)`.
        rule: How they are judged.

    Returns:
        A mask of shape `(n,)`; all false where ages are unknown or do not differ.

    Examples:
        The call at 104 last traded six days ago, when it was worth more.

        >>> strike = np.arange(92.0, 116.0, 2.0)
        >>> is_call = strike >= 100.0
        >>> mid = 4.0 * np.exp(-0.07 * np.abs(strike - 100.0))
        >>> mid[6] += 0.5
        >>> age = np.where(strike == 104.0, 6.0, 0.1)
        >>> quotes = SliceQuotes(strike, is_call, mid - 0.1, mid + 0.1, age,
        ...                      forward=100.0, discount_factor=1.0)
        >>> print(strike[stale_quotes(quotes, np.ones(12, dtype=bool))])
        [104.]
    """
    stale = np.zeros(len(quotes.strike), dtype=bool)
    age = np.where(np.isnan(quotes.age), np.inf, quotes.age)
    known = age[usable]
    if not np.isfinite(known).any() or known.max() - known.min() < rule.lag:
        return stale
    used = _one_per_strike(quotes, usable)
    speaks = used & (quotes.bid > 0.0)
    for _ in range(2):  # what was judged by the stale is judged again without them
        found = usable & _contradicting(quotes, age, speaks & ~stale, rule)
        if (found == stale).all():
            break
        stale = found
    if np.count_nonzero(stale & used) > rule.most * np.count_nonzero(used):
        return np.zeros(len(stale), dtype=bool)
    return stale


def one_sided_quotes(
    quotes: SliceQuotes,
    usable: np.ndarray,
    rule: Neighbours = Neighbours(),
) -> np.ndarray:
    """In-the-money quotes without a twin whose spread is wider than their neighbours'.

    Such a quote stands in for the out-of-the-money one, which nobody quotes. Where its
    spread is wider than those of all out-of-the-money quotes nearest on both sides, it
    says nothing that they do not. Where one side has none, as in a table of calls only,
    it is all that there is.

    Args:
        quotes: Rows of one expiry.
        usable: Those to consider, a mask of shape `(n,)`.
        rule: `each_side` says how many neighbours are asked.

    Returns:
        A mask of shape `(n,)`.

    Examples:
        >>> strike = np.array([80.0, 90.0, 100.0, 110.0])
        >>> quotes = SliceQuotes(strike, np.array([False, True, True, True]),
        ...                      bid=np.array([0.4, 10.2, 3.0, 0.5]),
        ...                      ask=np.array([0.6, 11.2, 3.3, 0.7]),
        ...                      age=np.full(4, np.nan),
        ...                      forward=100.0, discount_factor=1.0)
        >>> print(strike[one_sided_quotes(quotes, np.ones(4, dtype=bool))])
        [90.]
    """
    outside = np.flatnonzero(usable & quotes.out_of_the_money)
    outside = outside[np.argsort(quotes.strike[outside], kind="stable")]
    strike, spread = quotes.strike[outside], (quotes.ask - quotes.bid)[outside]
    wide = np.zeros(len(quotes.strike), dtype=bool)
    alone = usable & ~quotes.out_of_the_money
    alone &= ~np.isin(quotes.strike, strike)
    rounding = 1e-9 * quotes.forward
    for row in np.flatnonzero(alone):
        place = int(np.searchsorted(strike, quotes.strike[row]))
        near = spread[max(place - rule.each_side, 0) : place + rule.each_side]
        both = 0 < place < len(strike)
        own = quotes.ask[row] - quotes.bid[row]
        wide[row] = both and own > near.max() + rounding
    return wide


def _one_per_strike(quotes: SliceQuotes, usable: np.ndarray) -> np.ndarray:
    """The out-of-the-money quotes, and the others at strikes without one."""
    outside = usable & quotes.out_of_the_money
    return outside | (usable & ~np.isin(quotes.strike, quotes.strike[outside]))


def _contradicting(
    quotes: SliceQuotes, age: np.ndarray, speaks: np.ndarray, rule: Neighbours
) -> np.ndarray:
    """Quotes that those which speak, and are fresher, contradict."""
    places = _nearest_fresher(quotes.strike, age, speaks, rule)
    known = places >= 0
    below = known & (quotes.strike[places] < quotes.strike[:, None])
    above = known & (quotes.strike[places] > quotes.strike[:, None])
    enough = (below.sum(1) >= rule.least) & (above.sum(1) >= rule.least)
    found = np.zeros(len(age), dtype=bool)
    rows = np.flatnonzero(enough)
    if not len(rows):
        return found
    price, error = _implied_by(quotes, rows, places[rows], rule)
    slack = rule.deviations * error + quotes.parity_error[rows]
    found[rows] = (quotes.bid[rows] > price + slack) | (
        quotes.ask[rows] < price - slack
    )
    return found


def _nearest_fresher(
    strike: np.ndarray, age: np.ndarray, speaks: np.ndarray, rule: Neighbours
) -> np.ndarray:
    """Positions of the nearest fresher quotes that speak, -1 where there are fewer.

    Shape `(n, 2 * each_side)`: those below each strike, then those above.
    """
    told = np.flatnonzero(speaks)
    told = told[np.argsort(strike[told], kind="stable")]
    sides = []
    for side in (-1.0, 1.0):
        order = told[:: int(side)]  # outwards from every strike
        beyond = side * (strike[order] - strike[:, None]) > 0.0
        near = beyond & (np.cumsum(beyond, axis=1) <= rule.reach)
        fresher = near & (age[order] <= age[:, None] - rule.lag)
        rank = np.cumsum(fresher, axis=1)
        row, column = np.nonzero(fresher & (rank <= rule.each_side))
        places = np.full((len(age), rule.each_side), -1)
        places[row, rank[row, column] - 1] = order[column]
        sides.append(places)
    return np.concatenate(sides, axis=1)


def _implied_by(
    quotes: SliceQuotes, rows: np.ndarray, places: np.ndarray, rule: Neighbours
) -> tuple[np.ndarray, np.ndarray]:
    """What neighbours imply for the quotes in `rows`, with its standard error."""
    mid = 0.5 * (quotes.bid + quotes.ask)
    turned = quotes.discount_factor * (quotes.forward - quotes.strike[places])
    kind = quotes.is_call[rows][:, None]
    other = quotes.is_call[places] != kind
    price = mid[places] + np.where(other, np.where(kind, turned, -turned), 0.0)
    known = (places >= 0) & (price > 0.0)
    price = np.where(known, price, 1.0)
    logarithm = np.log(price)
    half = 0.5 * (quotes.ask - quotes.bid)[places] / price
    x = quotes.strike[places] - quotes.strike[rows][:, None]
    x = x / np.abs(np.where(known, x, 0.0)).max(1, keepdims=True)
    powers = np.stack([np.ones_like(x), x, x * x], axis=-1)
    level, residual, leverage = _least_absolute(powers, logarithm, known, rule.steps)
    degrees = known.sum(1) - powers.shape[-1]
    off = np.where(known, np.abs(residual), np.nan)
    half = np.where(known, half, np.nan)
    # A parabola through as many points as it has parameters has no residuals.
    with np.errstate(all="ignore"):
        scatter = 1.4826 * np.nanmedian(off, axis=1)
        scatter *= np.sqrt(known.sum(1) / np.maximum(degrees, 1))
        least = rule.least_error * np.nanmedian(half, axis=1)
    least = np.where(degrees > 0, least, np.nanmedian(half, axis=1))
    error = np.maximum(scatter, least) * np.sqrt(leverage)
    return np.exp(level), np.exp(level) * error


def _least_absolute(
    powers: np.ndarray, values: np.ndarray, known: np.ndarray, steps: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Polynomials of the least sum of absolute residuals, many at once.

    By weights that are one over the residuals of the step before.

    Returns:
        Each polynomial's value at zero, its residuals, and the variance of that value
        in units of the variance of one observation.
    """
    weights = known.astype(float)
    identity = np.eye(powers.shape[-1])
    ridge = 1e-12 * identity  # for fewer points than parameters
    normal = np.einsum("rki,rk,rkj->rij", powers, weights, powers) + ridge
    leverage = np.linalg.inv(normal)[:, 0, 0]
    solution, residual = values[:, :0], values
    for _ in range(steps):
        normal = np.einsum("rki,rk,rkj->rij", powers, weights, powers) + ridge
        right = np.einsum("rki,rk,rk->ri", powers, weights, values)
        solution = np.linalg.solve(normal, right[..., None])[..., 0]
        residual = values - np.einsum("rki,ri->rk", powers, solution)
        floor = 1e-9 + 1e-3 * np.abs(residual).max(1, keepdims=True)
        weights = known / np.maximum(np.abs(residual), floor) * floor
    return solution[:, 0], residual, leverage

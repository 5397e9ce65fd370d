"""From a table of quotes of one expiry to the arrays that a fit takes."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from relu_options import black_scholes
from relu_options.errors import QuoteError
from relu_options.market_data.cleaning import (
    PLACEHOLDER_BELOW,
    QuoteReport,
    contradicting_rows,
    duplicated_rows,
    mark,
    quote_faults,
)
from relu_options.market_data.clocks import expiry_time, known_times, years_between
from relu_options.market_data.columns import (
    call_flags,
    column_of,
    match_columns,
    numbers,
)
from relu_options.market_data.freshness import (
    SliceQuotes,
    Trading,
    TradingLimits,
    one_sided_quotes,
    stale_quotes,
)
from relu_options.market_data.parity import (
    PRIOR_RATE,
    PRIOR_RATE_DEVIATION,
    ParityEstimate,
    forward_from_parity,
)
from relu_options.market_data.terms import ContractTerms, contract_terms, only_value
from relu_options.market_data.units import PERCENT_ABOVE, VolatilityUnit

if TYPE_CHECKING:
    from relu_options.market_data.chain import OptionChain

LEAST_STRIKES = 3

_NOTED_VOLATILITY = 1.5  # above it, fractions may be percent: 2 is 200 % or 2 %
_MOST_CONTRADICTING = 0.2  # of the strikes: beyond it, the table mixes two expiries
_TOLERANCE = 1e-9  # of the forward, for the bounds on a price
_LONGEST = 50.0  # years: a longer time to expiry is one in days
_HIGHEST_RATE = 0.5  # per year, that a discount factor may imply
_LOWEST_RATE = -0.1
_RATE_SLACK = 0.01
_MOST_AT_ODDS = 5.0  # times what the dates say, for a time to expiry given
_NEAR_DEVIATIONS = 0.25  # from the money: American pairs that tell the forward
_LEAST_NEAR_PAIRS = 4
_STRADDLE = 0.8  # of a deviation: what a straddle at the money costs


@dataclass(frozen=True, eq=False)
class ExpiryQuotes:
    """Quotes of one expiry, one per strike, out of the money, ready to be fitted.

    Arrays have shape `(n,)` and are in the order of the user's rows, which need not be
    that of the strikes.

    Attributes:
        labels: Index labels of the rows used.
        strike: Currency units; each once.
        is_call: Puts below the forward, calls at and above it.
        bid, ask: Currency units paid today; NaN where only mids are known. Where
            converted they are wider by the standard error of what parity adds.
        mid: Currency units paid today.
        implied_volatility: The volatilities quoted, as fractions, if the quotes were
            volatilities; else None.
        converted: True where a strike was quoted in the money only and its quotes were
            turned by parity into those of the out-of-the-money option.
        quoted_bid, quoted_ask: Of the option that is listed: in the money where
            converted. Where only mids are known, each is the mid, a price to be met.
        forward: Currency units.
        discount_factor: Price today of one unit of currency paid at expiry.
        time_to_expiry: Years.
        expiry: The date, if known.
        quote_time: In UTC, if known.
        settlement: "AM" or "PM", if known.
        underlying: Its name, if known.
        parity: How forward and discount factor were implied; None if they were given.
        report: What became of every row.

    Examples:
        >>> from relu_options.market_data import bundled_chain
        >>> quotes = prepare_quotes(bundled_chain()["2025-06-20"])
        >>> len(quotes), quotes.has_spreads, quotes.settlement
        (89, True, 'PM')
        >>> print(quotes.to_frame().head(3))
             strike option_type    bid    ask     mid
        631  5050.0        call  164.4  166.5  165.45
        632  5075.0        call  151.1  152.6  151.85
        633  5100.0        call  136.5  138.3  137.40
    """

    labels: pd.Index
    strike: np.ndarray
    is_call: np.ndarray
    bid: np.ndarray
    ask: np.ndarray
    mid: np.ndarray
    implied_volatility: np.ndarray | None
    converted: np.ndarray
    quoted_bid: np.ndarray
    quoted_ask: np.ndarray
    forward: float
    discount_factor: float
    time_to_expiry: float
    expiry: pd.Timestamp | None
    quote_time: pd.Timestamp | None
    settlement: str | None
    underlying: str | None
    parity: ParityEstimate | None
    report: QuoteReport
    _source: pd.DataFrame = field(repr=False)
    _rows: np.ndarray = field(repr=False)

    def __len__(self) -> int:
        return len(self.strike)

    @property
    def has_spreads(self) -> bool:
        """Whether bids and asks are known, rather than mids or volatilities alone."""
        return bool(np.isfinite(self.bid).all())

    @cached_property
    def table(self) -> pd.DataFrame:
        """The user's rows that are used, with all their columns and their labels."""
        return self._source.iloc[self._rows]

    @property
    def listed(self) -> dict[str, np.ndarray]:
        """Strike, bid, ask and type of each quote, before any parity turned it.

        They are the arguments of `relu_options.arbitrage.least_excess`.
        """
        return {
            "strike": self.strike,
            "bid": self.quoted_bid,
            "ask": self.quoted_ask,
            "is_call": self.is_call != self.converted,
        }

    def as_listed(self, table: pd.DataFrame) -> pd.DataFrame:
        """A table of these quotes, in their order, with what is listed for each.

        Args:
            table: With the columns of `to_frame`, and `fitted_price` if there is one.

        Returns:
            A copy in which a converted quote is again that of the option in the money,
            at the prices that are quoted, and worth by parity what is fitted.
        """
        listed, turned = self.listed, self.converted
        intrinsic = self.discount_factor * np.abs(self.forward - self.strike)
        changes = {
            "option_type": np.where(listed["is_call"], "call", "put"),
            "mid": np.where(turned, self.mid + intrinsic, self.mid),
        }
        if self.has_spreads:
            changes |= {"bid": listed["bid"], "ask": listed["ask"]}
        if "fitted_price" in table:
            fitted = table["fitted_price"].to_numpy()
            changes["fitted_price"] = np.where(turned, fitted + intrinsic, fitted)
        return table.assign(**changes)

    def take(self, rows: np.ndarray) -> "ExpiryQuotes":
        """The quotes at these positions alone."""
        arrays = ("strike", "is_call", "bid", "ask", "mid", "converted", "_rows")
        arrays += ("quoted_bid", "quoted_ask")
        if self.implied_volatility is not None:
            arrays += ("implied_volatility",)
        changes = {name: getattr(self, name)[rows] for name in arrays}
        return replace(self, labels=self.labels[rows], **changes)

    def to_frame(self) -> pd.DataFrame:
        """The arrays as columns, with the labels of the user's rows."""
        columns = {
            "strike": self.strike,
            "option_type": np.where(self.is_call, "call", "put"),
            "bid": self.bid,
            "ask": self.ask,
            "mid": self.mid,
        }
        if self.implied_volatility is not None:
            columns["implied_volatility"] = self.implied_volatility
        return pd.DataFrame(columns, index=self.labels)

    def __repr__(self) -> str:
        name = " ".join(
            text
            for text in (
                self.underlying,
                None if self.expiry is None else f"{self.expiry:%Y-%m-%d}",
                self.settlement,
            )
            if text
        )
        kind = "volatilities" if self.implied_volatility is not None else "mids"
        return (
            f"ExpiryQuotes({name + ': ' if name else ''}{len(self)} "
            f"{'quotes' if self.has_spreads else kind}, "
            f"strikes {self.strike.min():.10g} to {self.strike.max():.10g}, "
            f"forward={self.forward:.10g}, discount_factor={self.discount_factor:.8g}, "
            f"time_to_expiry={self.time_to_expiry:.6g})"
        )


def prepare_quotes(
    quotes: "pd.DataFrame | OptionChain",
    *,
    forward: float | None = None,
    discount_factor: float | None = None,
    time_to_expiry: float | None = None,
    quote_time: object = None,
    columns: Mapping[str, Hashable] | None = None,
    volatility_unit: VolatilityUnit = "auto",
    max_age: float | None = None,
    min_volume: float | None = None,
    min_open_interest: float | None = None,
    on_bad_quotes: Literal["drop", "raise"] = "drop",
) -> ExpiryQuotes:
    """Clean the quotes of one expiry and choose one per strike, out of the money.

    Columns are found by name (`relu_options.market_data.find_columns`): a strike; bid
    and ask, or else a mid, or else an implied volatility; call or put; and, where not
    given as arguments, expiry and quote time or a time to expiry, forward, discount
    factor. A forward or discount factor that is neither given nor in the table is
    implied by put-call parity. Bids and asks win over mids, and prices over
    volatilities: a vendor's volatility, or a last trade, is never used beside a quote.

    Puts are used below the forward and calls at and above it. A strike that is quoted
    in the money only is kept, its quotes turned by parity into those of the
    out-of-the-money option. A bid of zero is a quote; a missing bid or ask is unknown,
    and its row dropped.

    Where last trades are known, a quote that contradicts neighbours which traded a day
    or more after it, beyond its spread, is stale and set aside. A quote in the money
    without an out-of-the-money one is used only if its spread is no wider than its
    neighbours', and with the standard error that parity adds. See
    `relu_options.market_data.freshness`.

    American options are worth more than European ones by the right to exercise early,
    which is least out of the money: only such quotes are used. Parity then tells the
    forward, from the pairs within a quarter of a deviation of the money, but not the
    discount factor (its slope holds the right too): it is that of an assumed rate of
    2 % unless given. The report says so.

    Args:
        quotes: One row per option, or a chain with one slice. It is not modified.
        forward: Forward price of the underlying at this expiry, in currency units.
        discount_factor: Price today of one unit of currency paid at expiry. With a
            forward given and too few pairs to imply it, it is taken as one, and noted.
        time_to_expiry: Years.
        quote_time: When the quotes were taken; see `relu_options.market_data.utc_time`.
        columns: Names of columns that the search does not find: `{"strike": "K_usd"}`.
        volatility_unit: "percent" if 20.5 means 20.5 %, "fraction" if 0.205 does;
            "auto" takes volatilities as percent where their median exceeds 4.
        max_age: Days since the last trade, at most.
        min_volume: Contracts traded, at least.
        min_open_interest: Contracts open, at least.
        on_bad_quotes: "drop" drops bad rows and reports them; "raise" raises instead.

    Returns:
        The quotes as arrays, with a report on every row of the table.

    Raises:
        QuoteError: If a column is missing, the table has no rows or more than one
            expiry, the expiry is not after the quote time, the forward cannot be
            implied, fewer than three strikes can be used, or a limit is set on what the
            table does not say; and, with `on_bad_quotes="raise"`, if any row is bad.
            The message names rows.
        TypeError: If `quotes` is neither a DataFrame nor a chain.
        ValueError: If a number given is not positive, or makes no sense: a time to
            expiry of 365 "years", a discount factor that implies 500 % a year.

    Examples:
        >>> quotes = pd.DataFrame({"K": [80.0, 90.0, 100.0, 110.0, 110.0, 120.0],
        ...                        "right": ["P", "P", "C", "C", "P", "C"],
        ...                        "bid": [0.0, 1.0, 4.0, 0.9, 9.6, 0.1],
        ...                        "ask": [0.1, 1.2, 4.2, 1.1, 9.9, 0.0]})
        >>> prepared = prepare_quotes(quotes, forward=101.0, discount_factor=0.99,
        ...                           time_to_expiry=0.25)
        >>> print(prepared.to_frame())
           strike option_type   bid   ask   mid
        0    80.0         put  0.00  0.10  0.05
        1    90.0         put  1.00  1.20  1.10
        2   100.0         put  3.01  3.21  3.11
        3   110.0        call  0.90  1.10  1.00
        >>> prepared.report
        6 rows in, 4 used
          dropped 1: bid above ask: 5: call 120 (0.1 / 0)
          set aside 1: in the money, at a strike whose out-of-the-money quote is used
    """
    _check_request(  # what can be judged without the table
        volatility_unit,
        on_bad_quotes,
        forward=forward,
        discount_factor=discount_factor,
        time_to_expiry=time_to_expiry,
    )
    if not hasattr(quotes, "columns") and not hasattr(quotes, "single_slice"):
        raise TypeError(
            f"quotes are a DataFrame or an OptionChain, not {type(quotes).__name__}"
        )
    limits = TradingLimits(max_age, min_volume, min_open_interest)
    is_slice = not isinstance(quotes, pd.DataFrame)
    if is_slice:
        frame = quotes.single_slice().table
    else:
        # What the user does to the frame later must not change the result.
        frame = quotes.copy(deep=not _COPIES_ON_WRITE)
    if not len(frame):
        raise QuoteError("the table of quotes has no rows")
    notes: list[str] = []
    names = match_columns(frame, columns)
    terms = contract_terms(
        frame,
        names,
        time_to_expiry=time_to_expiry,
        quote_time=quote_time,
        is_slice=is_slice,
        notes=notes,
    )
    stated_discount = discount_factor
    if discount_factor is None:
        stated_discount = _constant(frame, names, "discount_factor")
    _check_terms(terms, stated_discount, time_to_expiry)
    if is_slice and volatility_unit == "auto":
        volatility_unit = "fraction"  # a chain has converted them
    if "strike" not in names:
        raise QuoteError(
            f"quotes need a column 'strike'; the table has {list(frame.columns)}; "
            "name it with `columns={'strike': ...}`"
        )
    strike = numbers(column_of(frame, names["strike"]))
    values = _quoted_values(frame, names, volatility_unit, notes)
    is_call, type_known = _option_types(frame, names, values)
    codes = quote_faults(
        strike=strike, bid=values.bid, ask=values.ask, type_known=type_known
    )
    if values.volatility is not None:
        mark(codes, values.volatility < PLACEHOLDER_BELOW, "placeholder_volatility")
    trading = _trading(frame, names, terms.quote_time)
    if limits:
        old, thin = limits.missed(trading)
        mark(codes, old, "too_old")
        mark(codes, thin, "thin")
    keys = strike if is_call is None else np.where(is_call, strike, -strike)
    types_known = is_call is not None or values.volatility is not None
    _mark_duplicates(codes, keys, values, types_known=types_known)
    forward, discount_factor, parity = _forward_and_discount(
        _constant(frame, names, "forward") if forward is None else forward,
        stated_discount,
        terms,
        strike,
        is_call,
        values,
        codes,
        notes,
        spot=_spot(frame, names),
    )
    is_out = strike >= forward  # whether the call is out of the money
    if is_call is None:
        is_call = is_out
        if values.volatility is None:
            is_call = _guess_option_types(strike, values.mid, is_out, codes, notes)
    intrinsic = discount_factor * np.where(is_call, forward - strike, strike - forward)
    if values.volatility is None:
        slack = _TOLERANCE * forward
        if parity is not None:
            slack += 3.0 * discount_factor * parity.forward_standard_error
        bound = discount_factor * np.where(is_call, forward, strike)
        mark(codes, values.ask < intrinsic - slack, "below_intrinsic")
        mark(codes, values.bid > bound + slack, "above_bound")
    slice_quotes = SliceQuotes(
        strike,
        is_call,
        values.bid,
        values.ask,
        trading.age,
        forward,
        discount_factor,
        0.0 if parity is None else parity.forward_standard_error,
        0.0 if parity is None else parity.discount_standard_error,
    )
    stale = np.zeros(len(codes), dtype=bool)
    if values.has_spreads:
        fit = (codes == 0) & ((is_call == is_out) | (not terms.american))
        stale = stale_quotes(slice_quotes, fit)
        mark(codes, stale & (is_call == is_out), "stale")
    # In-the-money rows: set aside where the other option is quoted, else converted.
    inside = (is_call != is_out) & (codes == 0)
    if inside.any():
        outside = (is_call == is_out) & (codes == 0)
        quoted = _find(strike[outside], strike) >= 0
        mark(codes, inside & quoted, "in_the_money")
        mark(codes, inside & (values.ask <= intrinsic), "below_intrinsic")
        if terms.american:
            mark(codes, inside, "american_in_the_money")
        mark(codes, stale, "stale")
        if values.has_spreads:
            mark(codes, one_sided_quotes(slice_quotes, codes == 0), "one_sided")

    report = QuoteReport(
        labels=frame.index,
        codes=codes,
        strike=strike,
        bid=values.bid,
        ask=values.ask if values.has_spreads else None,
        is_call=is_call,
        notes=tuple(notes),
    )
    if on_bad_quotes == "raise":
        report.raise_first_fault()
    rows = np.flatnonzero(codes == 0)
    if len(rows) < LEAST_STRIKES:
        raise QuoteError(
            f"only {len(rows)} usable strikes, where at least {LEAST_STRIKES} are "
            f"needed: {report.in_one_line()}"
        )
    if values.has_spreads and not values.bid[rows].any():
        note = "every bid is zero: the quotes bound prices from above only"
        report = replace(report, notes=(*report.notes, note))
    strike, is_call, converted = strike[rows], is_out[rows], inside[rows]
    bid = ask = np.full(len(rows), np.nan)
    volatility = None
    if values.volatility is not None:
        volatility = values.volatility[rows]
        mid = black_scholes.price(
            forward=forward,
            discount_factor=discount_factor,
            strike=strike,
            time_to_expiry=terms.time_to_expiry,
            volatility=volatility,
            is_call=is_call,
        )
    else:
        shift = np.where(converted, intrinsic[rows], 0.0)
        off = slice_quotes.parity_error[rows]
        low = np.maximum(values.bid[rows] - shift - off, 0.0)
        high = values.ask[rows] - shift + off
        mid = 0.5 * (low + high)
        if values.has_spreads:
            bid, ask = low, high
    return ExpiryQuotes(
        labels=frame.index.take(rows),
        strike=strike,
        is_call=is_call,
        bid=bid,
        ask=ask,
        mid=mid,
        implied_volatility=volatility,
        converted=converted,
        quoted_bid=mid if volatility is not None else values.bid[rows],
        quoted_ask=mid if volatility is not None else values.ask[rows],
        forward=forward,
        discount_factor=discount_factor,
        time_to_expiry=terms.time_to_expiry,
        expiry=terms.expiry,
        quote_time=terms.quote_time,
        settlement=terms.settlement,
        underlying=terms.underlying,
        parity=parity,
        report=report,
        _source=frame,
        _rows=rows,
    )


def _trading(
    frame: pd.DataFrame, names: Mapping[str, Hashable], quote_time: pd.Timestamp | None
) -> Trading:
    """What the table says of trading."""
    columns: dict[str, object] = {
        name: numbers(column_of(frame, names[name]))
        for name in ("volume", "open_interest")
        if name in names
    }
    if "last_trade_time" in names:
        columns["last_trade_time"] = known_times(
            column_of(frame, names["last_trade_time"])
        )
    return Trading.of(pd.DataFrame(columns, index=frame.index), quote_time)


@dataclass(frozen=True)
class _Values:
    """The numbers quoted: `bid` and `ask` are both the mid where only that is known."""

    bid: np.ndarray
    ask: np.ndarray
    has_spreads: bool
    volatility: np.ndarray | None = None

    @property
    def mid(self) -> np.ndarray:
        return 0.5 * (self.bid + self.ask)


def _check_request(
    volatility_unit: str, on_bad_quotes: str, **numbers_given: float | None
) -> None:
    """Raise `ValueError` unless what was asked for makes sense."""
    if volatility_unit not in ("auto", "fraction", "percent"):
        raise ValueError(
            '`volatility_unit` must be "auto", "fraction" or "percent", '
            f"not {volatility_unit!r}"
        )
    if on_bad_quotes not in ("drop", "raise"):
        raise ValueError(
            f'`on_bad_quotes` must be "drop" or "raise", not {on_bad_quotes!r}'
        )
    for name, value in numbers_given.items():
        if value is None:
            continue
        if isinstance(value, str) or np.ndim(value) != 0:
            raise ValueError(f"`{name}` must be one number, not {value!r}")
        if not 0.0 < float(value) < np.inf:
            raise ValueError(f"`{name}` must be positive and finite, not {value!r}")


def _quoted_values(
    frame: pd.DataFrame,
    names: Mapping[str, Hashable],
    volatility_unit: VolatilityUnit,
    notes: list[str],
) -> _Values:
    """Bids and asks, or mids, or volatilities: the first that the table has."""
    if "bid" in names and "ask" in names:
        bid = numbers(column_of(frame, names["bid"]))
        ask = numbers(column_of(frame, names["ask"]))
        alternatives = {"mid", "implied_volatility"} & names.keys()
        if not alternatives or (np.isfinite(bid) & np.isfinite(ask)).any():
            return _Values(bid, ask, has_spreads=True)
    elif ("bid" in names or "ask" in names) and "mid" not in names:
        missing = "ask" if "bid" in names else "bid"
        raise QuoteError(
            f"quotes need both 'bid' and 'ask', or 'mid'; missing {missing!r} in "
            f"{list(frame.columns)}; name it with `columns={{{missing!r}: ...}}`"
        )
    if "mid" in names:
        mid = numbers(column_of(frame, names["mid"]))
        if "implied_volatility" not in names or np.isfinite(mid).any():
            return _Values(mid, mid, has_spreads=False)
    if "implied_volatility" not in names:
        raise QuoteError(
            "quotes need columns 'bid' and 'ask', or 'mid', or 'implied_volatility'; "
            f"the table has {list(frame.columns)}; name them with `columns=`"
        )
    volatility = numbers(column_of(frame, names["implied_volatility"]))
    positive = volatility[volatility > 0.0]
    median = float(np.median(positive)) if len(positive) else 0.0
    if volatility_unit == "percent" or (
        volatility_unit == "auto" and median > PERCENT_ABOVE
    ):
        volatility = volatility / 100.0
        if volatility_unit == "auto":
            notes.append(
                f"implied volatilities taken as percent (median {median:.4g}); "
                'call `prepare_quotes(..., volatility_unit="fraction")` if they are not'
            )
    elif volatility_unit == "auto" and median > _NOTED_VOLATILITY:
        notes.append(
            f"implied volatilities taken as fractions, with a median of {median:.0%}; "
            'call `prepare_quotes(..., volatility_unit="percent")` if they are percent'
        )
    return _Values(volatility, volatility, has_spreads=False, volatility=volatility)


def _option_types(
    frame: pd.DataFrame, names: Mapping[str, Hashable], values: _Values
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Which rows are calls and where that is known; None where it does not matter.

    It does not for volatilities, which a call and a put of one strike share.
    """
    if values.volatility is not None:
        return None, None
    if "option_type" in names:
        is_call, known = call_flags(column_of(frame, names["option_type"]))
        return (is_call, known) if known.any() else (None, None)
    if "contract" in names:
        symbols = column_of(frame, names["contract"]).tolist()
        letters = [str(symbol).strip()[-9:-8] for symbol in symbols]
        if set(letters) <= {"C", "P"}:
            return np.array([letter == "C" for letter in letters]), None
    return None, None


def _mark_duplicates(
    codes: np.ndarray, keys: np.ndarray, values: _Values, *, types_known: bool
) -> None:
    """Put repeated contracts under their rule; an error if most contradict."""
    repeated = duplicated_rows(codes, keys, values.ask - values.bid)
    if not repeated.any():
        return
    kept = np.flatnonzero((codes == 0) & ~repeated)
    differs = contradicting_rows(codes, keys, values.bid, values.ask, repeated)
    contradicting = np.unique(keys[differs])
    if len(contradicting) > max(_MOST_CONTRADICTING * len(kept), 1):
        shown = ", ".join(f"{strike:.10g}" for strike in sorted(abs(contradicting))[:3])
        several = (
            "more than one expiry, settlement (AM and PM) or quote time: select one"
        )
        if not types_known:
            several = (
                "calls and puts, with no column that tells them apart: add "
                f"'option_type'; or {several}"
            )
        raise QuoteError(
            f"{len(contradicting)} of {len(kept)} options are quoted again with other "
            f"values: strikes {shown}, ...; the table seems to hold {several}"
        )
    mark(codes, repeated, "duplicated_strike")


def _forward_and_discount(
    forward: float | None,
    discount_factor: float | None,
    terms: ContractTerms,
    strike: np.ndarray,
    is_call: np.ndarray | None,
    values: _Values,
    codes: np.ndarray,
    notes: list[str],
    spot: float | None = None,
) -> tuple[float, float, ParityEstimate | None]:
    """What was given, and by parity what was not."""
    call = put = np.zeros(0, dtype=np.intp)
    if is_call is not None:
        used = codes == 0
        call, put = np.flatnonzero(used & is_call), np.flatnonzero(used & ~is_call)
        at = _find(strike[put], strike[call])
        call, put = call[at >= 0], put[at[at >= 0]]
    if forward is not None and discount_factor is not None:
        if values.has_spreads and not terms.american:
            low = strike[call] + (values.bid[call] - values.ask[put]) / discount_factor
            high = strike[call] + (values.ask[call] - values.bid[put]) / discount_factor
            notes.extend(_parity_note(float(forward), low, high))
        if values.volatility is None and terms.american:
            notes.append("American options: fitted from out-of-the-money quotes")
        return float(forward), float(discount_factor), None
    if forward is not None and len(call) < LEAST_STRIKES:
        notes.append("no discount factor: taken as 1; pass `discount_factor=`")
        return float(forward), 1.0, None
    if is_call is None:
        why = "there is no column 'option_type' that tells calls from puts"
        if values.volatility is not None:
            why = "quotes are volatilities"
        raise QuoteError(f"the forward cannot be implied, since {why}; pass `forward=`")
    years = terms.time_to_expiry
    if terms.american:
        every = len(call)
        call, put = _near_the_money(strike, values.mid, call, put)
        told = "forward"
        if discount_factor is None:
            discount_factor = float(np.exp(-PRIOR_RATE * years))
            told = (
                f"discount factor from an assumed rate of {PRIOR_RATE:.0%} ± "
                f"{PRIOR_RATE_DEVIATION:.0%}, forward"
            )
        if len(call) == 0 and forward is None and spot is not None:
            notes.append(
                f"American options: {told} from the underlying's price, {spot:.8g}, "
                "without dividends, since no strike has both a call and a put; pass "
                "`forward=` and `discount_factor=` if you know them"
            )
            return spot / discount_factor, discount_factor, None
        notes.append(
            f"American options: fitted from out-of-the-money quotes; {told} by parity "
            f"of the {len(call)} of {every} pairs nearest the money, where it nearly "
            "holds; pass `forward=` and `discount_factor=` if you know them"
        )
        if forward is not None:
            return float(forward), discount_factor, None
    parity = forward_from_parity(
        strike=strike[call],
        call_bid=values.bid[call],
        call_ask=values.ask[call],
        put_bid=values.bid[put],
        put_ask=values.ask[put],
        time_to_expiry=years,
        forward=forward,
        discount_factor=discount_factor,
    )
    notes.extend(parity.notes)
    return parity.forward, parity.discount_factor, parity


def _near_the_money(
    strike: np.ndarray, mid: np.ndarray, call: np.ndarray, put: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs within a quarter of a deviation of the money, or the nearest four.

    The money is where calls and puts swap ranks: most calls below it are worth more
    than their puts, most above it less. A deviation is what the straddle there says.
    """
    if len(call) <= _LEAST_NEAR_PAIRS:
        return call, put
    order = np.argsort(strike[call])
    call, put = call[order], put[order]
    k, above = strike[call], mid[call] > mid[put]
    right = np.concatenate([[0], np.cumsum(above)]) + np.concatenate(
        [np.cumsum((~above)[::-1])[::-1], [0]]
    )
    at = min(max(int(np.argmax(right)), 1), len(k) - 1)
    money = 0.5 * (k[at - 1] + k[at])
    straddle = np.median((mid[call] + mid[put])[max(at - 2, 0) : at + 2])
    distance = np.abs(k - money)
    reach = max(
        _NEAR_DEVIATIONS * straddle / _STRADDLE,
        float(np.partition(distance, _LEAST_NEAR_PAIRS - 1)[_LEAST_NEAR_PAIRS - 1]),
    )
    near = distance <= reach
    return call[near], put[near]


def _spot(frame: pd.DataFrame, names: Mapping[str, Hashable]) -> float | None:
    """The median price of the underlying, if the table has one."""
    if "underlying_price" not in names:
        return None
    price = numbers(column_of(frame, names["underlying_price"]))
    price = price[price > 0.0]
    return float(np.median(price)) if len(price) else None


def _check_terms(
    terms: ContractTerms, discount_factor: float | None, years_given: float | None
) -> None:
    """Raise `ValueError` where a number given cannot be what it is called."""
    years = terms.time_to_expiry
    if years > _LONGEST:
        raise ValueError(
            f"`time_to_expiry` of {years:.6g} years: it is in years, so "
            f"{years:.6g} days are {years / 365.0:.4g}"
        )
    if years_given is not None and terms.expiry is not None and terms.quote_time:
        dated = years_between(
            terms.quote_time, expiry_time(terms.expiry, terms.settlement or "PM")
        )
        if dated > 0.0 and not (1.0 / _MOST_AT_ODDS < years / dated < _MOST_AT_ODDS):
            raise ValueError(
                f"`time_to_expiry` of {years:.6g} years, where the dates say "
                f"{dated:.6g}; it is in years"
            )
    if discount_factor is None:
        return
    fall = -float(np.log(discount_factor))
    low = _LOWEST_RATE * years - _RATE_SLACK
    if not low <= fall <= _HIGHEST_RATE * years + _RATE_SLACK:
        raise ValueError(
            f"`discount_factor` of {discount_factor:.6g} over {years:.4g} years is a "
            f"rate of {fall / years:.0%} a year; it is the price today of 1 at expiry, "
            f"{np.exp(-0.05 * years):.4f} at 5 %"
        )


def _parity_note(forward: float, low: np.ndarray, high: np.ndarray) -> list[str]:
    """A note if most pairs of a call and a put exclude the forward that was given.

    `low` and `high` bound the forward that each pair allows, at its bids and asks.
    """
    outside = np.count_nonzero((forward < low) | (forward > high))
    if len(low) < LEAST_STRIKES or outside <= 0.5 * len(low):
        return []
    middle = float(np.median(0.5 * (low + high)))
    return [
        f"{outside} of {len(low)} pairs of a call and a put exclude the forward given, "
        f"{forward:.6g}: by parity it is about {middle:.6g}; check `forward=` and "
        "`discount_factor=`"
    ]


def _constant(
    frame: pd.DataFrame, names: Mapping[str, Hashable], name: str
) -> float | None:
    """The one value of a column of numbers; None if it is absent or empty."""
    if name not in names:
        return None
    values = pd.Series(numbers(column_of(frame, names[name])))
    value = only_value(values, f"values of {name!r}", f"pass `{name}=`")
    if value is None or value != value:
        return None
    if not float(value) > 0.0:  # type: ignore[arg-type]
        raise QuoteError(f"column {names[name]!r} is {value}; it must be positive")
    return float(value)  # type: ignore[arg-type]


def _find(values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where each of `wanted` is among `values`, each there once; -1 where it is not."""
    if not len(values):
        return np.full(len(wanted), -1)
    order = np.argsort(values)
    at = np.searchsorted(values, wanted, sorter=order)
    at = order[np.minimum(at, len(values) - 1)]
    return np.where(values[at] == wanted, at, -1)


def _guess_option_types(
    strike: np.ndarray,
    mid: np.ndarray,
    is_out: np.ndarray,
    codes: np.ndarray,
    notes: list[str],
) -> np.ndarray:
    """Calls or puts by whether prices fall or rise with the strike, on each side."""
    rising = []
    for side in (~is_out, is_out):
        rows = np.flatnonzero(side & (codes == 0))
        steps = np.diff(mid[rows[np.argsort(strike[rows])]])
        rising.append(np.count_nonzero(steps > 0) > np.count_nonzero(steps < 0))
    below, above = rising
    if below and not above:
        kind, is_call = "out-of-the-money options", is_out
    elif below:
        kind, is_call = "puts", np.zeros(len(strike), dtype=bool)
    else:
        kind, is_call = "calls", np.ones(len(strike), dtype=bool)
    notes.append(f"no column tells calls from puts; taken as {kind} from the prices")
    return is_call


_COPIES_ON_WRITE = int(pd.__version__.split(".")[0]) >= 3

"""The quotes of one expiry as the arrays that a fit takes."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from relu_options.errors import QuoteError
from relu_options.formulas import black_scholes
from relu_options.formulas.laws import MODELS, Law
from relu_options.market_data.cleaning import (
    LEAST_STRIKES,
    Kernel,
    QuotedRows,
    QuoteReport,
    SliceQuotes,
    days_since_trade,
    find,
    if_swapped,
    mark,
    one_sided_quotes,
    require_one_quote_each,
)
from relu_options.market_data.clocks import expiry_label
from relu_options.market_data.freshness import stale_quotes
from relu_options.market_data.parity import ParityEstimate
from relu_options.market_data.rates import (
    ImpliedTerms,
    MarketTerms,
    SliceTerms,
    at_odds,
    imply_terms,
)

if TYPE_CHECKING:
    from relu_options.market_data.chain import OptionChain

_TOLERANCE = 1e-9  # of the forward, for the bounds on a price
_LEAST_VOLATILITIES = 5  # that tell the time to expiry


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
        american: Whether the options are known to be American.
        kernel: "lognormal", or "normal" for an underlying that may be negative: where
            that was asked for, or the forward or a strike is zero or below.
            Volatilities are those of this law.

    Examples:
        >>> from relu_options.market_data import prepare_quotes
        >>> from relu_options.simulation import bundled_chain
        >>> quotes = prepare_quotes(bundled_chain()["2025-06-20"])
        >>> len(quotes), quotes.has_spreads, quotes.label
        (89, True, '2025-06-20 PM')
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
    american: bool = False
    kernel: Law = "lognormal"

    @classmethod
    def of(
        cls,
        chain: "OptionChain",
        *,
        on_bad_quotes: Literal["drop", "raise"] = "drop",
        source: tuple[pd.DataFrame, np.ndarray] | None = None,
    ) -> "ExpiryQuotes":
        """The quotes of a chain of one slice, one per strike, out of the money.

        Args:
            chain: Cleaned rows of one slice.
            on_bad_quotes: "raise" to raise where a row is bad.
            source: The user's own table, and the place of each row in it, if `table`
                is not to have the canonical rows.

        Raises:
            QuoteError: As `relu_options.market_data.prepare_quotes`.
            ValueError: If the discount factor or the time to expiry makes no sense.
        """
        chain = chain.single_slice()
        rows, codes = chain.rows, chain.codes.copy()
        quoted = QuotedRows.of(rows)
        used = np.flatnonzero(codes == 0)
        terms = SliceTerms.of(
            rows,
            used,
            time_to_expiry=chain.time_to_expiry,
            dated=chain.dated_time_to_expiry,
            kernel=chain.kernel,
        )
        require_one_quote_each(codes, quoted, chain.strange_types)
        implied = _implied(chain, terms, quoted)
        kernel = _law(chain, quoted.strike[used], implied.forward)
        is_call, notes = _option_types(quoted, codes, implied)
        age = days_since_trade(rows, chain.quote_time)
        quotes = _slice_quotes(quoted, is_call, age, implied, kernel)
        inside = _set_aside(codes, quoted, quotes, american=terms.american)
        report = QuoteReport.of(rows, codes, notes)
        if report.is_call is None:
            report = replace(report, is_call=is_call)
        if on_bad_quotes == "raise":
            report.raise_first_fault()
        kept = np.flatnonzero(codes == 0)
        report = _with_enough(report, quoted, kept)
        expiry, settlement = chain.slices[0]
        table, places = source or (rows, np.arange(len(rows)))
        arrays: dict[str, Any] = _arrays(
            quoted, kept, inside, quotes, terms.time_to_expiry, kernel
        )
        found = cls(
            **arrays,
            labels=rows.index.take(kept),
            forward=implied.forward,
            discount_factor=implied.discount_factor,
            time_to_expiry=terms.time_to_expiry,
            expiry=expiry if isinstance(expiry, pd.Timestamp) else None,
            quote_time=chain.quote_time,
            settlement=settlement,
            underlying=chain.underlying,
            parity=implied.parity,
            report=report,
            _source=table,
            _rows=places[kept],
            american=terms.american,
            kernel=kernel,
        )
        # A vendor's volatilities beside prices are lognormal.
        told = chain.expiry_given and kernel == "lognormal"
        if told and "implied_volatility" in rows:
            _check_expiry(found, rows["implied_volatility"].to_numpy()[kept])
        return found

    def __len__(self) -> int:
        return len(self.strike)

    @property
    def label(self) -> str:
        """Expiry and settlement as text, or the years to expiry."""
        expiry = self.time_to_expiry if self.expiry is None else self.expiry
        return expiry_label(expiry, self.settlement)

    @property
    def has_spreads(self) -> bool:
        """Whether bids and asks are known, rather than mids or volatilities alone."""
        return bool(np.isfinite(self.bid).all())

    @cached_property
    def table(self) -> pd.DataFrame:
        """The user's rows that are used, with all their columns and their labels."""
        return self._source.iloc[self._rows]

    @property
    def is_signed(self) -> bool:
        """Whether the underlying may be negative."""
        return self.kernel == "normal"

    @property
    def unit(self) -> float:
        """What prices are compared with: the forward.

        Where it may be zero or negative, the distance of the farthest strike from it.
        """
        if self.is_signed:
            return float(np.abs(self.strike - self.forward).max())
        return self.forward

    def with_kernel(self, kernel: Kernel) -> "ExpiryQuotes":
        """The quotes with another law of the underlying.

        Raises:
            QuoteError: If it is lognormal, and the forward or a strike is not positive.
            ValueError: If there is no such law.

        Examples:
            >>> from relu_options.market_data import prepare_quotes
            >>> from relu_options.simulation import bundled_chain
            >>> quotes = prepare_quotes(bundled_chain()["2025-06-20"])
            >>> quotes.kernel, quotes.with_kernel("normal").kernel
            ('lognormal', 'normal')
        """
        MarketTerms(kernel=kernel)
        if kernel == "auto":
            return self
        if kernel == "lognormal" and min(self.forward, *self.strike) <= 0.0:
            raise QuoteError(_not_lognormal(self.label, self.forward, self.strike))
        return replace(self, kernel=kernel)

    def require_lognormal(self, what: str) -> None:
        """Raise `QuoteError` if the underlying may be negative.

        Args:
            what: What needs it to be positive, and what to do instead.
        """
        if self.is_signed:
            raise QuoteError(
                f"{self.label}: the quotes are of an underlying that may be negative "
                f"(normal kernel, forward {self.forward:.6g}); {what}"
            )

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
            f"time_to_expiry={self.time_to_expiry:.6g}"
            f"{', normal kernel' if self.is_signed else ''})"
        )


def _law(chain: "OptionChain", strike: np.ndarray, forward: float) -> Law:
    """The law of a slice: the one asked for, or the one that it needs.

    Raises:
        QuoteError: If a lognormal one is asked for, and the forward is not positive.
    """
    if chain.kernel == "auto":
        return "normal" if min(forward, strike.min()) <= 0.0 else "lognormal"
    if chain.kernel == "lognormal" and forward <= 0.0:
        raise QuoteError(_not_lognormal(chain.label, forward, strike))
    return chain.kernel


def _not_lognormal(label: str, forward: float, strike: np.ndarray) -> str:
    """Why quotes cannot be those of a positive underlying."""
    why = f"the forward is {forward:.6g}"
    if forward > 0.0:
        why = f"the lowest strike is {strike.min():.6g}"
    return (
        f"{label}: {why}, and an underlying with a lognormal law is positive; use "
        "`kernel='normal'`"
    )


def _slice_quotes(
    quoted: QuotedRows,
    is_call: np.ndarray,
    age: np.ndarray,
    implied: ImpliedTerms,
    kernel: Law,
) -> SliceQuotes:
    """The rows of one slice with what is known of their ages, and of the forward."""
    parity = implied.parity
    return SliceQuotes(
        quoted.strike,
        is_call,
        quoted.bid,
        quoted.ask,
        age,
        implied.forward,
        implied.discount_factor,
        0.0 if parity is None else parity.forward_standard_error,
        0.0 if parity is None else parity.discount_standard_error,
        signed=kernel == "normal",
    )


def _implied(
    chain: "OptionChain", terms: SliceTerms, quoted: QuotedRows
) -> ImpliedTerms:
    """Forward and discount factor, or why there are none, with what was dropped."""
    try:
        return imply_terms(
            terms,
            quoted,
            chain.codes,
            borrowed=chain.borrowed_rates,
            strange_types=chain.strange_types,
        )
    except QuoteError as error:
        report = QuoteReport.of(chain.rows, chain.codes, ())
        if not report.faults:
            raise
        raise QuoteError(f"{error}; {report.in_one_line()}") from error


def _set_aside(
    codes: np.ndarray,
    quoted: QuotedRows,
    quotes: SliceQuotes,
    *,
    american: bool,
) -> np.ndarray:
    """Put quotes that the forward shows to be unfit under their rules, in place.

    Those outside of the bounds on a price are dropped, those that contradict fresher
    neighbours too; of those in the money, the ones at strikes whose out-of-the-money
    quote is used, or with wide spreads, are set aside.

    Args:
        codes: As in `QuoteReport.codes`.
        quoted: Rows of one slice.
        quotes: The same with what is known of their ages, and of the forward.
        american: Whether the options can be exercised early.

    Returns:
        A mask: in-the-money rows that are used, at strikes with no other quote.
    """
    strike, is_call = quotes.strike, quotes.is_call
    forward, discount = quotes.forward, quotes.discount_factor
    is_out = quotes.out_of_the_money
    intrinsic = discount * np.where(is_call, forward - strike, strike - forward)
    if quoted.kind != "volatility":
        slack = _TOLERANCE * quotes.unit + 3.0 * discount * quotes.forward_error
        mark(codes, quoted.ask < intrinsic - slack, "below_intrinsic")
        if not quotes.signed:  # else prices have no upper bound
            bound = discount * np.where(is_call, forward, strike)
            mark(codes, quoted.bid > bound + slack, "above_bound")
    stale = np.zeros(len(codes), dtype=bool)
    if quoted.kind == "spread" and np.isfinite(quotes.age).any():
        stale = stale_quotes(quotes, (codes == 0) & (is_out | (not american)))
        mark(codes, stale & is_out, "stale")
    inside = ~is_out & (codes == 0)
    if inside.any():
        outside = is_out & (codes == 0)
        mark(codes, inside & (find(strike[outside], strike) >= 0), "in_the_money")
        mark(codes, inside & (quoted.ask <= intrinsic), "below_intrinsic")
        if american:
            mark(codes, inside, "american_in_the_money")
        mark(codes, stale, "stale")
        if quoted.kind == "spread":
            mark(codes, one_sided_quotes(quotes, codes == 0), "one_sided")
    return inside & (codes == 0)


def _with_enough(
    report: QuoteReport, quoted: QuotedRows, kept: np.ndarray
) -> QuoteReport:
    """The report, with a note where nobody bids, if there are strikes enough to fit."""
    if len(kept) < LEAST_STRIKES:
        raise QuoteError(
            f"only {len(kept)} usable strikes, where at least {LEAST_STRIKES} are "
            f"needed: {report.in_one_line()}{if_swapped(report)}"
        )
    if quoted.kind == "spread" and not quoted.bid[kept].any():
        note = "every bid is zero: the quotes bound prices from above only"
        return replace(report, notes=(*report.notes, note))
    return report


def _arrays(
    quoted: QuotedRows,
    kept: np.ndarray,
    inside: np.ndarray,
    quotes: SliceQuotes,
    time_to_expiry: float,
    kernel: Law,
) -> dict[str, np.ndarray | None]:
    """Quotes of the out-of-the-money options at the strikes of the rows kept."""
    forward, discount = quotes.forward, quotes.discount_factor
    strike, converted = quoted.strike[kept], inside[kept]
    is_call = strike >= forward
    bid = ask = np.full(len(kept), np.nan)
    listed_bid, listed_ask = quoted.bid[kept], quoted.ask[kept]
    volatility = None
    if quoted.kind == "volatility":
        volatility = quoted.mid[kept]
        mid = np.asarray(
            MODELS[kernel].price(
                forward=forward,
                discount_factor=discount,
                strike=strike,
                time_to_expiry=time_to_expiry,
                volatility=volatility,
                is_call=is_call,
            )
        )
        listed_bid = listed_ask = mid
    else:
        shift = np.where(converted, discount * np.abs(forward - strike), 0.0)
        off = quotes.parity_error[kept]
        low = np.maximum(listed_bid - shift - off, 0.0)
        high = listed_ask - shift + off
        mid = 0.5 * (low + high)
        if quoted.kind == "spread":
            bid, ask = low, high
    return {
        "strike": strike,
        "is_call": is_call,
        "bid": bid,
        "ask": ask,
        "mid": mid,
        "implied_volatility": volatility,
        "converted": converted,
        "quoted_bid": listed_bid,
        "quoted_ask": listed_ask,
    }


def _option_types(
    quoted: QuotedRows, codes: np.ndarray, implied: ImpliedTerms
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Which rows are calls, and the notes so far.

    Where rows do not say, prices do, by whether they fall or rise with the strike on
    each side of the forward. A call and a put share their volatility, so that of a
    strike is taken as that of the out-of-the-money option.
    """
    is_out, notes = quoted.strike >= implied.forward, implied.notes
    if quoted.kind == "volatility":
        return is_out, notes
    if quoted.type_known[codes == 0].any():
        return quoted.is_call, notes
    rising = []
    for side in (~is_out, is_out):
        rows = np.flatnonzero(side & (codes == 0))
        steps = np.diff(quoted.mid[rows[np.argsort(quoted.strike[rows])]])
        rising.append(np.count_nonzero(steps > 0) > np.count_nonzero(steps < 0))
    below, above = rising
    if below and not above:
        kind, is_call = "out-of-the-money options", is_out
    elif below:
        kind, is_call = "puts", np.zeros(len(is_out), dtype=bool)
    else:
        kind, is_call = "calls", np.ones(len(is_out), dtype=bool)
    note = f"no column tells calls from puts; taken as {kind} from the prices"
    return is_call, (*notes, note)


def _check_expiry(quotes: ExpiryQuotes, volatility: np.ndarray) -> None:
    """Raise if quoted volatilities and prices imply another expiry than the one given.

    A price fixes the total volatility, so that with the volatility that a vendor quotes
    it tells the time.
    """
    if quotes.implied_volatility is not None:
        return
    total = np.asarray(
        black_scholes.implied_volatility(
            price=quotes.mid,
            forward=quotes.forward,
            discount_factor=quotes.discount_factor,
            strike=quotes.strike,
            time_to_expiry=1.0,
            is_call=quotes.is_call,
        )
    )
    near = (quotes.bid > 0.0) & (np.abs(np.log(quotes.strike / quotes.forward)) < total)
    years = np.square(total[near] / volatility[near])
    years = years[np.isfinite(years) & (years > 0.0)]
    if len(years) < _LEAST_VOLATILITIES:
        return
    low, middle, high = np.quantile(years, [0.25, 0.5, 0.75])
    given = quotes.time_to_expiry
    if at_odds(low, given) and at_odds(high, given) and not low < given < high:
        raise QuoteError(
            f"the quotes contradict the expiry given: prices and implied volatilities "
            f"are those of {365.0 * middle:.0f} days to expiry, where {quotes.label} "
            f"is {365.0 * given:.0f} days away; check `expiry=`, `time_to_expiry=` and "
            "`quote_time=`"
        )

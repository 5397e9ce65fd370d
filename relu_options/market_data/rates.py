"""Forward and discount factor of a slice: known, implied by its quotes, or borrowed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from relu_options.errors import QuoteError
from relu_options.market_data.cleaning import LEAST_STRIKES, Kernel, QuotedRows
from relu_options.market_data.clocks import MINUTES_PER_YEAR, as_date
from relu_options.market_data.columns import not_understood
from relu_options.market_data.parity import (
    ASSUMED,
    ParityEstimate,
    RatePrior,
    forward_from_parity,
)

ByExpiry: TypeAlias = float | Mapping | pd.Series
"""One number, or one for each expiry: keys are dates, with AM or PM, or years."""


@dataclass(frozen=True)
class Plausible:
    """What is believed of terms that are given, implied, or shared between slices.

    Attributes:
        most_stated: Per year: a rate or yield beyond it is in per cent.
        high_rate: Per year: a rate implied beyond it is said.
        longest: Years: a longer time to expiry is one in days.
        highest_rate: Per year, that a discount factor may imply.
        lowest_rate: Likewise.
        slack: Of the logarithm of a discount factor: over a few days the rounding of
            prices implies any rate.
        most_at_odds: Times what the dates say, for a time to expiry given.
        expiry_at_odds: Times what quotes say of the time to an expiry given.
        days_at_odds: Years by which they may always differ.
        near_deviations: From the money: American pairs that tell the forward, neither
            option being worth exercising.
        least_near_pairs: How many pairs are near, however far they are.
        straddle: Of a deviation, what a straddle at the money costs: the mean distance
            of a normal law from its mean.
        rate_span: Of log time: slices so far apart share their rate.
        rate_error: Per year: no rate of another expiry is known better.
        same_time: Years, half a minute: times so near are one.
    """

    most_stated: float = 1.0
    high_rate: float = 0.2
    longest: float = 50.0
    highest_rate: float = 0.5
    lowest_rate: float = -0.1
    slack: float = 0.01
    most_at_odds: float = 5.0
    expiry_at_odds: float = 2.0
    days_at_odds: float = 5.0 / 365.0
    near_deviations: float = 0.25
    least_near_pairs: int = 4
    straddle: float = 0.8
    rate_span: float = 0.5
    rate_error: float = 0.001
    same_time: float = 1e-6


PLAUSIBLE = Plausible()
_YIELDS = ("rate", "dividend_yield")
_OUT_OF_THE_MONEY = "American options: fitted from out-of-the-money quotes"


@dataclass(frozen=True, eq=False)
class MarketTerms:
    """What a user knows of a market: it wins over tables and over what quotes imply.

    Attributes:
        forward: Currency units; a number, or one by expiry. A negative one says that
            the underlying may be.
        discount_factor: Price today of one unit of currency paid at expiry; likewise.
        rate: Continuous, per year, in place of a discount factor; likewise.
        dividend_yield: Continuous, per year: with the spot it makes the forward;
            likewise.
        spot: Price of the underlying today, in currency units.
        time_to_expiry: Years, for quotes of one expiry.
        kernel: The law of the underlying: "lognormal" if it is positive, "normal" if it
            may be negative; "auto" to tell it from the quotes.

    Examples:
        >>> terms = MarketTerms(rate={"2025-06-20": 0.04, "2025-09-19": 0.039})
        >>> terms.is_empty, MarketTerms().is_empty
        (False, True)
    """

    forward: ByExpiry | None = None
    discount_factor: ByExpiry | None = None
    rate: ByExpiry | None = None
    dividend_yield: ByExpiry | None = None
    spot: float | None = None
    time_to_expiry: float | None = None
    kernel: Kernel = "auto"

    def __post_init__(self) -> None:
        if self.kernel not in ("auto", "lognormal", "normal"):
            raise ValueError(
                f"kernel must be 'auto', 'lognormal' or 'normal', not {self.kernel!r}"
            )
        for name, value in self._numbers.items():
            for number in _stated(name, value):
                if name in _YIELDS and not abs(number) <= PLAUSIBLE.most_stated:
                    raise ValueError(
                        f"`{name}` of {number:.6g} is {number:.0%} a year; it is "
                        "continuous, per year, and 5 % is 0.05"
                    )
                if name not in _YIELDS and not 0.0 < number < np.inf:
                    self._check_sign(name, number)
        if self.rate is not None and self.discount_factor is not None:
            raise ValueError(
                "`rate` and `discount_factor` say the same; pass one of them"
            )

    def _check_sign(self, name: str, number: float) -> None:
        """Raise unless the underlying may be negative and this is a price of it."""
        negative = name == "forward" and number < 0.0 and self.kernel == "auto"
        priced = name in ("forward", "spot")
        if np.isfinite(number) and priced and (negative or self.kernel == "normal"):
            return
        remedy = ""
        if np.isfinite(number) and priced:
            remedy = "; pass `kernel='normal'` if the underlying may be negative"
        raise ValueError(
            f"`{name}` must be positive and finite, not {number!r}{remedy}"
        )

    @property
    def _numbers(self) -> dict[str, Any]:
        """What is known but for the law."""
        return {name: value for name, value in vars(self).items() if name != "kernel"}

    @property
    def is_empty(self) -> bool:
        """Whether nothing is known."""
        nothing = all(value is None for value in self._numbers.values())
        return nothing and self.kernel == "auto"

    @property
    def is_signed(self) -> bool:
        """Whether they say that the underlying may be negative."""
        if self.kernel != "auto":
            return self.kernel == "normal"
        return any(number < 0.0 for number in _stated("forward", self.forward))

    @property
    def columns(self) -> dict[str, float]:
        """Canonical columns of what is one number for all expiries."""
        said = {"time_to_expiry": self.time_to_expiry, "underlying_price": self.spot}
        return {name: float(one) for name, one in said.items() if one is not None}

    def applied(
        self, rows: pd.DataFrame, quote_time: pd.Timestamp | None
    ) -> pd.DataFrame:
        """Canonical rows with what is known in their columns, in place of their own.

        Raises:
            QuoteError: If terms are given by expiry, and no row has one of these.
        """
        if self.is_empty:
            return rows
        rows = rows.assign(**self.columns)
        for name in ("forward", "discount_factor", *_YIELDS):
            value = getattr(self, name)
            if value is None:
                continue
            said = _by_row(name, value, rows)
            if name == "rate":
                name, said = "discount_factor", np.exp(-said * _years(rows, quote_time))
            known = np.isfinite(said)
            own = rows[name].to_numpy() if name in rows else np.full(len(rows), np.nan)
            rows = rows.assign(**{name: np.where(known, said, own)})
        return rows


def _stated(name: str, value: ByExpiry | None) -> list[float]:
    """The numbers given under a name."""
    if value is None:
        return []
    by_expiry = name not in ("spot", "time_to_expiry")
    several = by_expiry and isinstance(value, Mapping | pd.Series)
    numbers: list[Any] = [value]
    if several:
        numbers = [one for _, one in value.items()]  # type: ignore[union-attr]
    for one in numbers:
        if isinstance(one, str | Mapping | pd.Series) or np.ndim(one) != 0:
            place = f"{name}[...]" if several else name
            others = ", or one for each expiry: a Series, or {'2025-06-20': ...}"
            hint = others if by_expiry and not several else ""
            raise ValueError(f"`{place}` must be one number, not {one!r}{hint}")
    return [float(one) for one in numbers if not (several and pd.isna(one))]


def _by_row(name: str, value: ByExpiry, rows: pd.DataFrame) -> np.ndarray:
    """What is given for each row, NaN where nothing is."""
    if not isinstance(value, Mapping | pd.Series):
        return np.full(len(rows), float(value))
    said = np.full(len(rows), np.nan)
    found = False
    for key, number in value.items():
        expiry, settlement = key if isinstance(key, tuple) else (key, None)
        if isinstance(expiry, float):
            years = rows.get("time_to_expiry", pd.Series(np.nan, index=rows.index))
            here = ((years - expiry).abs() < PLAUSIBLE.same_time).to_numpy()
        else:
            here = (rows["expiry"] == as_date(expiry)).to_numpy()
        if settlement is not None:
            here &= (rows["settlement"] == settlement).to_numpy(bool, na_value=False)
        said[here] = number
        found |= bool(here.any())
    if not found:
        raise QuoteError(
            f"`{name}` is given for {', '.join(map(str, list(value.keys())[:3]))}, "
            "and no row has one of these expiries; write them as '2025-06-20', or as "
            "years where there are no dates"
        )
    return said


def _years(rows: pd.DataFrame, quote_time: pd.Timestamp | None) -> np.ndarray:
    """Time to expiry of each row, as a slice has it."""
    dated = np.full(len(rows), np.nan)
    if quote_time is not None:
        minutes = (rows["expiry_time"] - quote_time).dt.total_seconds().to_numpy() / 60
        dated = np.round(minutes) / MINUTES_PER_YEAR
    if "time_to_expiry" not in rows:
        return dated
    stated = rows["time_to_expiry"].to_numpy()
    return np.where(np.isfinite(stated), stated, dated)


def at_odds(told: float, given: float) -> bool:
    """Whether what quotes tell of the years to expiry denies the expiry given.

    Examples:
        >>> at_odds(117 / 365, 26 / 365), at_odds(1 / 365, 4 / 365)
        (True, False)
    """
    ratio = max(told / given, given / told) if told > 0.0 else np.inf
    apart = abs(told - given)
    return ratio > PLAUSIBLE.expiry_at_odds and apart > PLAUSIBLE.days_at_odds


@dataclass(frozen=True, eq=False)
class RateCurve:
    """A smooth curve of rates through the slices that tell theirs.

    It is the mean of their rates, weighted by one over their variances and by a normal
    density of half a unit of the logarithm of time, and flat beyond them.

    Attributes:
        times: Years, of shape `(n,)`.
        rates: Continuous, per year.
        errors: Their standard errors.

    Examples:
        >>> curve = RateCurve(np.array([0.5, 1.0]), np.array([0.04, 0.03]),
        ...                   np.array([0.001, 0.001]))
        >>> 0.03 < curve.prior(0.7).rate < 0.04
        True
        >>> curve.prior(0.02).rate == curve.prior(0.5).rate
        True
    """

    times: np.ndarray
    rates: np.ndarray
    errors: np.ndarray

    def prior(self, time_to_expiry: float) -> RatePrior:
        """The rate at a time, and by how much it may be off; 2 % ± 3 % if none tell."""
        if not len(self.times):
            return ASSUMED
        at = np.clip(time_to_expiry, self.times.min(), self.times.max())
        away = np.log(self.times / at) / PLAUSIBLE.rate_span
        weights = np.exp(-0.5 * away**2) / np.square(np.maximum(self.errors, 1e-5))
        total = weights.sum()
        rate = float(weights @ self.rates / total)
        scatter = weights @ np.square(self.rates - rate) / total
        deviation = float(np.sqrt(scatter + 1.0 / total + PLAUSIBLE.rate_error**2))
        return RatePrior(rate, deviation, len(self.times))


@dataclass(frozen=True, eq=False)
class SliceTerms:
    """What the rows of one slice share, and what is known of its market.

    Attributes:
        time_to_expiry: Years.
        american: Whether the options are known to be American.
        forward: Currency units, if known.
        discount_factor: Price today of one unit of currency paid at expiry, if known.
        dividend_yield: Continuous, per year, if the user gave it.
        spot: Currency units, if known.
        signed: Whether the underlying is known to be one that may be negative.
    """

    time_to_expiry: float
    american: bool
    forward: float | None = None
    discount_factor: float | None = None
    dividend_yield: float | None = None
    spot: float | None = None
    signed: bool = False

    @classmethod
    def of(
        cls,
        rows: pd.DataFrame,
        used: np.ndarray,
        *,
        time_to_expiry: float,
        dated: float,
        kernel: Kernel = "auto",
    ) -> "SliceTerms":
        """Terms in the columns of canonical rows of one slice.

        Args:
            rows: Of the slice.
            used: Positions of those that are used.
            time_to_expiry: Years.
            dated: Years from the quote time to the expiry, NaN if unknown.
            kernel: The law of the underlying that is asked for.

        Raises:
            QuoteError: If rows do not share them.
            ValueError: If a number cannot be what it is called.
        """
        known = {
            name: _constant(rows, used, name)
            for name in ("forward", "discount_factor", "dividend_yield")
        }
        forward = known["forward"]
        signed = kernel == "normal"
        if kernel == "auto":
            signed = bool((rows["strike"].to_numpy()[used] <= 0.0).any())
            signed |= forward is not None and forward < 0.0
        if forward is not None and not forward > 0.0 and not signed:
            raise QuoteError(
                f"column 'forward' is {forward}; it must be positive, unless the "
                "underlying may be negative: then pass `kernel='normal'`"
            )
        prices = rows["underlying_price"].to_numpy()[used]
        # A price of zero is a vendor's way to say that there is none.
        told = np.isfinite(prices) & (prices != 0.0) if signed else prices > 0.0
        prices = prices[told]
        terms = cls(
            time_to_expiry=time_to_expiry,
            american=rows["exercise_style"].iloc[used[0]] == "american",
            spot=float(np.median(prices)) if len(prices) else None,
            signed=signed,
            **known,
        )
        terms._check(dated)
        return terms

    def _check(self, dated: float) -> None:
        """Raise `ValueError` where a number cannot be what it is called."""
        years, discount = self.time_to_expiry, self.discount_factor
        if years > PLAUSIBLE.longest:
            raise ValueError(
                f"`time_to_expiry` of {years:.6g} years: it is in years, so "
                f"{years:.6g} days are {years / 365.0:.4g}"
            )
        most = PLAUSIBLE.most_at_odds
        if dated > 0.0 and not 1.0 / most < years / dated < most:
            raise ValueError(
                f"`time_to_expiry` of {years:.6g} years, where the dates say "
                f"{dated:.6g}; it is in years"
            )
        if discount is None:
            return
        fall = -float(np.log(discount))
        low = PLAUSIBLE.lowest_rate * years - PLAUSIBLE.slack
        if not low <= fall <= PLAUSIBLE.highest_rate * years + PLAUSIBLE.slack:
            raise ValueError(
                f"`discount_factor` of {discount:.6g} over {years:.4g} years is a "
                f"rate of {fall / years:.0%} a year; it is the price today of 1 at "
                f"expiry, {np.exp(-0.05 * years):.4f} at 5 %"
            )


def _constant(rows: pd.DataFrame, used: np.ndarray, name: str) -> float | None:
    """The one value of a column of numbers; None if it is absent or empty."""
    if name not in rows:
        return None
    values = rows[name].to_numpy()[used]
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    if (values != values[0]).any():
        several = np.unique(values)
        shown = ", ".join(f"{value:.10g}" for value in several[:3])
        more = ", ..." if len(several) > 3 else ""
        raise QuoteError(
            f"{len(several)} values of {name!r} in one table of {len(used)} rows: "
            f"{shown}{more}; pass `{name}=`"
        )
    if name == "discount_factor" and not values[0] > 0.0:
        raise QuoteError(f"column {name!r} is {values[0]}; it must be positive")
    return float(values[0])


@dataclass(frozen=True, eq=False)
class ImpliedTerms:
    """The forward and discount factor of a slice.

    Attributes:
        forward: Currency units.
        discount_factor: Price today of one unit of currency paid at expiry.
        parity: How they were implied; None if they were given.
        notes: For the report.
    """

    forward: float
    discount_factor: float
    parity: ParityEstimate | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Rows of calls, and of puts at the same strikes; none where types are unknown."""

    quoted: QuotedRows
    call: np.ndarray
    put: np.ndarray
    signed: bool

    @classmethod
    def of(cls, terms: SliceTerms, quoted: QuotedRows, codes: np.ndarray) -> "_Pairs":
        """The pairs among the rows that are used."""
        nobody = np.zeros(0, dtype=np.intp)
        call, put = quoted.pairs(codes) if quoted.is_typed else (nobody, nobody)
        return cls(quoted, call, put, terms.signed)

    def __len__(self) -> int:
        return len(self.call)

    def line(self, time_to_expiry: float, **how: Any) -> ParityEstimate:
        """`forward_from_parity` of the pairs."""
        quoted, call, put = self.quoted, self.call, self.put
        return forward_from_parity(
            strike=quoted.strike[call],
            call_bid=quoted.bid[call],
            call_ask=quoted.ask[call],
            put_bid=quoted.bid[put],
            put_ask=quoted.ask[put],
            time_to_expiry=time_to_expiry,
            signed=self.signed,
            **how,
        )

    def near_the_money(self) -> "_Pairs":
        """Those within a quarter of a deviation of the money, or the nearest four.

        The money is where calls and puts swap ranks: most calls below it are worth more
        than their puts, most above it less. A deviation is what the straddle there
        says.
        """
        few = PLAUSIBLE.least_near_pairs
        if len(self) <= few:
            return self
        order = np.argsort(self.quoted.strike[self.call])
        call, put = self.call[order], self.put[order]
        k, mid = self.quoted.strike[call], self.quoted.mid
        above = mid[call] > mid[put]
        right = np.concatenate([[0], np.cumsum(above)]) + np.concatenate(
            [np.cumsum((~above)[::-1])[::-1], [0]]
        )
        at = min(max(int(np.argmax(right)), 1), len(k) - 1)
        money = 0.5 * (k[at - 1] + k[at])
        straddle = np.median((mid[call] + mid[put])[max(at - 2, 0) : at + 2])
        distance = np.abs(k - money)
        deviation = straddle / PLAUSIBLE.straddle
        nearest = np.partition(distance, few - 1)[few - 1]
        near = distance <= max(PLAUSIBLE.near_deviations * deviation, nearest)
        return replace(self, call=call[near], put=put[near])

    def denial(self, forward: float, discount: float) -> tuple[str, ...]:
        """A note if most exclude, at their bids and asks, a forward that was given."""
        quoted, call, put = self.quoted, self.call, self.put
        low = quoted.strike[call] + (quoted.bid[call] - quoted.ask[put]) / discount
        high = quoted.strike[call] + (quoted.ask[call] - quoted.bid[put]) / discount
        outside = np.count_nonzero((forward < low) | (forward > high))
        if len(low) < LEAST_STRIKES or outside <= 0.5 * len(low):
            return ()
        middle = float(np.median(0.5 * (low + high)))
        return (
            f"{outside} of {len(low)} pairs of a call and a put exclude the forward "
            f"given, {forward:.6g}: by parity it is about {middle:.6g}; check "
            "`forward=` and `discount_factor=`",
        )


def imply_terms(
    terms: SliceTerms,
    quoted: QuotedRows,
    codes: np.ndarray,
    *,
    borrowed: Callable[[], RateCurve],
    strange_types: tuple[str, ...] = (),
) -> ImpliedTerms:
    """Forward and discount factor of a slice, from the first that tells them.

    What is told wins; then put-call parity; then the rate that is borrowed from the
    other slices; and where none tells its own, the one that is assumed.

    Args:
        terms: What the rows of the slice share.
        quoted: What they quote.
        codes: As in `QuoteReport.codes`.
        borrowed: Makes the curve of rates of the other slices, where it is needed.
        strange_types: Option types that were not understood, where none was.

    Raises:
        QuoteError: If the forward can be implied in no way.
    """
    pairs = _Pairs.of(terms, quoted, codes)
    if terms.forward is None and terms.dividend_yield is not None:
        return _carried(terms, pairs, borrowed)
    if terms.forward is not None and terms.discount_factor is not None:
        return _told(terms, pairs)
    if terms.forward is not None and len(pairs) < LEAST_STRIKES:
        prior = borrowed().prior(terms.time_to_expiry)
        if prior is ASSUMED:
            note = "no discount factor: taken as 1; pass `discount_factor=`"
            return ImpliedTerms(terms.forward, 1.0, None, (note,))
        note = (
            f"no discount factor: taken from {prior}; pass `discount_factor=` if you "
            "know it"
        )
        discount = prior.discount_factor(terms.time_to_expiry)
        return ImpliedTerms(terms.forward, discount, None, (note,))
    if not quoted.is_typed:
        raise QuoteError(_why_no_forward(quoted, strange_types))
    return (_american if terms.american else _european)(terms, pairs, borrowed)


def _why_no_forward(quoted: QuotedRows, strange_types: tuple[str, ...]) -> str:
    """The message where nothing tells the forward."""
    why = "there is no column 'option_type' that tells calls from puts"
    if quoted.kind == "volatility":
        why = "quotes are volatilities"
    elif strange_types:
        why = not_understood(strange_types)
    return f"the forward cannot be implied, since {why}; pass `forward=`"


def _told(terms: SliceTerms, pairs: _Pairs) -> ImpliedTerms:
    """Both are given; the pairs may say that they cannot be right."""
    forward, discount = terms.forward, terms.discount_factor
    notes: tuple[str, ...] = ()
    if terms.american and pairs.quoted.kind != "volatility":
        notes = (_OUT_OF_THE_MONEY,)
    elif pairs.quoted.kind == "spread":
        notes = pairs.denial(forward, discount)  # type: ignore[arg-type]
        if notes and not forward > 0.0:  # type: ignore[operator]
            raise QuoteError(notes[0])
    return ImpliedTerms(forward, discount, None, notes)  # type: ignore[arg-type]


def _carried(
    terms: SliceTerms, pairs: _Pairs, borrowed: Callable[[], RateCurve]
) -> ImpliedTerms:
    """The forward of the spot, the dividend yield given, and the discount factor."""
    if terms.spot is None or terms.dividend_yield is None:
        raise QuoteError(
            "a dividend yield makes a forward with the spot only, and the table has "
            "none; pass `spot=`"
        )
    years, discount = terms.time_to_expiry, terms.discount_factor
    notes: tuple[str, ...] = ()
    if discount is None and not terms.american and len(pairs) > 1:
        parity = _by_slope(terms, pairs, borrowed)
        discount, notes = parity.discount_factor, parity.notes
    elif discount is None:
        prior = borrowed().prior(years)
        discount = prior.discount_factor(years)
        notes = (
            f"discount factor from {prior}; pass `discount_factor=` or `rate=` if you "
            "know it",
        )
    if terms.american:
        notes = (*notes, _OUT_OF_THE_MONEY)
    note = (
        f"forward from the spot, {terms.spot:.8g}, and the dividend yield given, "
        f"{terms.dividend_yield:.2%}"
    )
    carried = terms.spot * float(np.exp(-terms.dividend_yield * years))
    return ImpliedTerms(carried / discount, discount, None, (*notes, note))


def _by_slope(
    terms: SliceTerms, pairs: _Pairs, borrowed: Callable[[], RateCurve]
) -> ParityEstimate:
    """Parity of all pairs; the rate is borrowed where they do not tell it."""
    known = {"forward": terms.forward, "discount_factor": terms.discount_factor}
    parity = pairs.line(terms.time_to_expiry, **known)
    if not parity.tells_discount_factor:
        prior = borrowed().prior(terms.time_to_expiry)
        if prior is not ASSUMED:
            return pairs.line(terms.time_to_expiry, prior=prior, **known)
    return parity


def _european(
    terms: SliceTerms, pairs: _Pairs, borrowed: Callable[[], RateCurve]
) -> ImpliedTerms:
    """What all pairs tell, and notes where it contradicts what is known."""
    years = terms.time_to_expiry
    parity = _by_slope(terms, pairs, borrowed)
    notes = parity.notes
    if terms.forward is not None and pairs.quoted.kind == "spread":
        # A wrong forward bends the discount factor: that of the pairs alone decides.
        free = pairs.line(years).discount_factor
        notes = (*notes, *pairs.denial(terms.forward, free))
    rate = parity.rate(years)
    sure = abs(rate) - 2.0 * parity.rate_error(years)
    if terms.discount_factor is None and sure > PLAUSIBLE.high_rate:
        note = (
            f"the pairs imply a rate of {rate:.0%} a year: unless the currency has "
            "such rates, check the expiry, or pass `discount_factor=`"
        )
        notes = (*notes, note)
    return ImpliedTerms(parity.forward, parity.discount_factor, parity, notes)


def _american(
    terms: SliceTerms, pairs: _Pairs, borrowed: Callable[[], RateCurve]
) -> ImpliedTerms:
    """By parity of the pairs near the money; the slope holds early exercise too."""
    years, discount = terms.time_to_expiry, terms.discount_factor
    near, told = pairs.near_the_money(), "forward"
    if discount is None:
        prior = borrowed().prior(years)
        discount = prior.discount_factor(years)
        told = f"discount factor from {prior}, forward"
    if len(near) == 0 and terms.forward is None and terms.spot is not None:
        note = (
            f"American options: {told} from the underlying's price, {terms.spot:.8g}, "
            "without dividends, since no strike has both a call and a put; pass "
            "`forward=` and `discount_factor=` if you know them"
        )
        return ImpliedTerms(terms.spot / discount, discount, None, (note,))
    note = (
        f"{_OUT_OF_THE_MONEY}; {told} by parity of the {len(near)} of {len(pairs)} "
        "pairs nearest the money, where it nearly holds; pass `forward=` and "
        "`discount_factor=` if you know them"
    )
    if terms.forward is not None:
        return ImpliedTerms(terms.forward, discount, None, (note,))
    parity = near.line(years, discount_factor=discount)
    return ImpliedTerms(parity.forward, discount, parity, (note, *parity.notes))


def own_rate(
    terms: SliceTerms, quoted: QuotedRows, codes: np.ndarray
) -> tuple[float, float] | None:
    """The rate that a slice tells by itself and its standard error; None if it cannot.

    Raises:
        QuoteError: If its pairs agree on nothing.
    """
    years = terms.time_to_expiry
    if terms.discount_factor is not None:
        return -float(np.log(terms.discount_factor)) / years, 0.0
    if terms.american or not quoted.is_typed:
        return None
    parity = _Pairs.of(terms, quoted, codes).line(years, forward=terms.forward)
    if not parity.tells_discount_factor:
        return None
    return parity.rate(years), parity.rate_error(years)

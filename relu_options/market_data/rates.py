"""Forward and discount factor of a slice: known, implied by its quotes, or borrowed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pandas as pd

from relu_options.errors import QuoteError
from relu_options.market_data.cleaning import LEAST_STRIKES, QuotedRows
from relu_options.market_data.clocks import MINUTES_PER_YEAR, as_date
from relu_options.market_data.parity import (
    ASSUMED,
    ParityEstimate,
    RatePrior,
    forward_from_parity,
)

ByExpiry: TypeAlias = float | Mapping | pd.Series
"""One number, or one for each expiry: keys are dates, with AM or PM, or years."""

_MOST_STATED = 1.0  # per year: a rate or yield beyond it is in per cent
_HIGH_RATE = 0.2  # per year: a rate implied beyond it is said
_LONGEST = 50.0  # years: a longer time to expiry is one in days
_HIGHEST_RATE, _LOWEST_RATE = 0.5, -0.1  # per year, that a discount factor may imply
_RATE_SLACK = 0.01
_MOST_AT_ODDS = 5.0  # times what the dates say, for a time to expiry given
_EXPIRY_AT_ODDS = 2.0  # times what quotes say of the time to an expiry given
_DAYS_AT_ODDS = 5.0 / 365.0  # by which they may always differ
_NEAR_DEVIATIONS = 0.25  # from the money: American pairs that tell the forward
_LEAST_NEAR_PAIRS = 4
_STRADDLE = 0.8  # of a deviation: what a straddle at the money costs
_RATE_SPAN = 0.5  # of log time: slices so far apart share their rate
_RATE_ERROR = 0.001  # per year: no rate of another expiry is known better
_SAME_TIME = 1e-6  # years: half a minute


@dataclass(frozen=True, eq=False)
class MarketTerms:
    """What a user knows of a market: it wins over tables and over what quotes imply.

    Attributes:
        forward: Currency units; a number, or one by expiry.
        discount_factor: Price today of one unit of currency paid at expiry; likewise.
        rate: Continuous, per year, in place of a discount factor; likewise.
        dividend_yield: Continuous, per year: with the spot it makes the forward;
            likewise.
        spot: Price of the underlying today, in currency units.
        time_to_expiry: Years, for quotes of one expiry.

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

    def __post_init__(self) -> None:
        for name in ("spot", "time_to_expiry"):
            value = getattr(self, name)
            if value is not None:
                _require_number(name, value)
                require_finite_positive(name, value)
        for name in ("forward", "discount_factor"):
            for value in _stated(name, getattr(self, name)):
                require_finite_positive(name, value)
        for name in ("rate", "dividend_yield"):
            for value in _stated(name, getattr(self, name)):
                if not abs(value) <= _MOST_STATED:
                    raise ValueError(
                        f"`{name}` of {value:.6g} is {value:.0%} a year; it is "
                        "continuous, per year, and 5 % is 0.05"
                    )
        if self.rate is not None and self.discount_factor is not None:
            raise ValueError(
                "`rate` and `discount_factor` say the same; pass one of them"
            )

    @property
    def is_empty(self) -> bool:
        """Whether nothing is known."""
        return all(value is None for value in vars(self).values())

    def applied(
        self, rows: pd.DataFrame, quote_time: pd.Timestamp | None
    ) -> pd.DataFrame:
        """Canonical rows with what is known in their columns, in place of their own.

        Raises:
            QuoteError: If terms are given by expiry, and no row has one of these.
        """
        if self.is_empty:
            return rows
        columns: dict[str, float] = {}
        if self.time_to_expiry is not None:
            columns["time_to_expiry"] = float(self.time_to_expiry)
        if self.spot is not None:
            columns["underlying_price"] = float(self.spot)
        rows = rows.assign(**columns)
        for name in ("forward", "discount_factor", "dividend_yield", "rate"):
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


def require_finite_positive(name: str, value: float) -> None:
    """Raise `ValueError` unless a number given is positive and finite."""
    if not 0.0 < float(value) < np.inf:
        raise ValueError(f"`{name}` must be positive and finite, not {value!r}")


def _require_number(name: str, value: object) -> None:
    """Raise `ValueError` unless what is given is one number."""
    if isinstance(value, str | Mapping | pd.Series) or np.ndim(value) != 0:  # type: ignore[arg-type]
        raise ValueError(f"`{name}` must be one number, not {value!r}")


def _stated(name: str, value: ByExpiry | None) -> list[float]:
    """The numbers given under a name."""
    if value is None:
        return []
    if isinstance(value, Mapping | pd.Series):
        values = [one for _, one in value.items()]
        for one in values:
            _require_number(f"{name}[...]", one)
        return [float(one) for one in values if not pd.isna(one)]
    if isinstance(value, str) or np.ndim(value) != 0:
        raise ValueError(
            f"`{name}` must be one number, not {value!r}, or one for each expiry: "
            f"a Series, or {{'2025-06-20': ...}}"
        )
    return [float(value)]


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
            here = ((years - expiry).abs() < _SAME_TIME).to_numpy()
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
    return ratio > _EXPIRY_AT_ODDS and abs(told - given) > _DAYS_AT_ODDS


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
        away = np.log(self.times / at) / _RATE_SPAN
        weights = np.exp(-0.5 * away**2) / np.square(np.maximum(self.errors, 1e-5))
        total = weights.sum()
        rate = float(weights @ self.rates / total)
        scatter = weights @ np.square(self.rates - rate) / total
        deviation = float(np.sqrt(scatter + 1.0 / total + _RATE_ERROR**2))
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
    """

    time_to_expiry: float
    american: bool
    forward: float | None = None
    discount_factor: float | None = None
    dividend_yield: float | None = None
    spot: float | None = None

    @classmethod
    def of(
        cls,
        rows: pd.DataFrame,
        used: np.ndarray,
        *,
        time_to_expiry: float,
        dated: float,
    ) -> "SliceTerms":
        """Terms in the columns of canonical rows of one slice.

        Args:
            rows: Of the slice.
            used: Positions of those that are used.
            time_to_expiry: Years.
            dated: Years from the quote time to the expiry, NaN if unknown.

        Raises:
            QuoteError: If rows do not share them.
            ValueError: If a number cannot be what it is called.
        """
        known = {
            name: _constant(rows, used, name)
            for name in ("forward", "discount_factor", "dividend_yield")
        }
        prices = rows["underlying_price"].to_numpy()[used]
        prices = prices[prices > 0.0]
        terms = cls(
            time_to_expiry=time_to_expiry,
            american=rows["exercise_style"].iloc[used[0]] == "american",
            spot=float(np.median(prices)) if len(prices) else None,
            **known,
        )
        terms._check(dated)
        return terms

    def _check(self, dated: float) -> None:
        """Raise `ValueError` where a number cannot be what it is called."""
        years, discount = self.time_to_expiry, self.discount_factor
        if years > _LONGEST:
            raise ValueError(
                f"`time_to_expiry` of {years:.6g} years: it is in years, so "
                f"{years:.6g} days are {years / 365.0:.4g}"
            )
        if dated > 0.0 and not 1.0 / _MOST_AT_ODDS < years / dated < _MOST_AT_ODDS:
            raise ValueError(
                f"`time_to_expiry` of {years:.6g} years, where the dates say "
                f"{dated:.6g}; it is in years"
            )
        if discount is None:
            return
        fall = -float(np.log(discount))
        low = _LOWEST_RATE * years - _RATE_SLACK
        if not low <= fall <= _HIGHEST_RATE * years + _RATE_SLACK:
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
    if name != "dividend_yield" and not values[0] > 0.0:
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


def imply_terms(
    terms: SliceTerms,
    quoted: QuotedRows,
    codes: np.ndarray,
    *,
    borrowed: Callable[[], RateCurve],
    strange_types: tuple[str, ...] = (),
) -> ImpliedTerms:
    """What is known, and by put-call parity what is not.

    Args:
        terms: What the rows of the slice share.
        quoted: What they quote.
        codes: As in `QuoteReport.codes`.
        borrowed: Makes the curve of rates of the other slices, where it is needed.
        strange_types: Option types that were not understood, where none was.

    Raises:
        QuoteError: If the forward can be implied in no way.
    """
    if terms.dividend_yield is not None and terms.forward is None:
        return _from_spot(terms, quoted, codes, borrowed)
    typed = quoted.kind != "volatility" and bool(quoted.type_known.any())
    nobody = np.zeros(0, dtype=np.intp)
    call, put = quoted.pairs(codes) if typed else (nobody, nobody)
    forward, discount = terms.forward, terms.discount_factor
    if forward is not None and discount is not None:
        notes = []
        if quoted.kind == "spread" and not terms.american:
            notes = _parity_note(forward, discount, quoted, call, put)
        if quoted.kind != "volatility" and terms.american:
            notes.append("American options: fitted from out-of-the-money quotes")
        return ImpliedTerms(forward, discount, None, tuple(notes))
    if forward is not None and len(call) < LEAST_STRIKES:
        prior = borrowed().prior(terms.time_to_expiry)
        if prior is ASSUMED:
            note = "no discount factor: taken as 1; pass `discount_factor=`"
            return ImpliedTerms(forward, 1.0, None, (note,))
        note = (
            f"no discount factor: taken from {prior}; pass `discount_factor=` if you "
            "know it"
        )
        discount = float(np.exp(-prior.rate * terms.time_to_expiry))
        return ImpliedTerms(forward, discount, None, (note,))
    if not typed:
        raise QuoteError(_why_no_forward(quoted, strange_types))
    if terms.american:
        return _american(terms, quoted, call, put, borrowed)
    return _european(terms, quoted, call, put, borrowed)


def _why_no_forward(quoted: QuotedRows, strange_types: tuple[str, ...]) -> str:
    """The message where nothing tells the forward."""
    why = "there is no column 'option_type' that tells calls from puts"
    if quoted.kind == "volatility":
        why = "quotes are volatilities"
    elif strange_types:
        why = (
            f"the option types {', '.join(strange_types)} are not understood: write "
            'them as "call" and "put", "C" and "P", or 1 and -1'
        )
    return f"the forward cannot be implied, since {why}; pass `forward=`"


def _from_spot(
    terms: SliceTerms,
    quoted: QuotedRows,
    codes: np.ndarray,
    borrowed: Callable[[], RateCurve],
) -> ImpliedTerms:
    """The forward of the spot, the dividend yield given, and the discount factor."""
    if terms.spot is None:
        raise QuoteError(
            "a dividend yield makes a forward with the spot only, and the table has "
            "none; pass `spot=`"
        )
    years, discount, notes = terms.time_to_expiry, terms.discount_factor, []
    if discount is None:
        prior = borrowed().prior(years)
        call, put = quoted.pairs(codes)
        if quoted.kind != "volatility" and not terms.american and len(call) > 1:
            parity = _estimate(quoted, call, put, years, prior=prior)
            discount, notes = parity.discount_factor, [*parity.notes]
        else:
            discount = float(np.exp(-prior.rate * years))
            notes = [
                f"discount factor from {prior}; pass `discount_factor=` or `rate=` if "
                "you know it"
            ]
    carried = terms.spot * float(np.exp(-terms.dividend_yield * years))  # type: ignore[operator]
    if terms.american:
        notes.append("American options: fitted from out-of-the-money quotes")
    notes.append(
        f"forward from the spot, {terms.spot:.8g}, and the dividend yield given, "
        f"{terms.dividend_yield:.2%}"
    )
    return ImpliedTerms(carried / discount, discount, None, tuple(notes))


def _european(
    terms: SliceTerms,
    quoted: QuotedRows,
    call: np.ndarray,
    put: np.ndarray,
    borrowed: Callable[[], RateCurve],
) -> ImpliedTerms:
    """By parity of all pairs; the rate is borrowed where they do not tell it."""
    years = terms.time_to_expiry
    known = {"forward": terms.forward, "discount_factor": terms.discount_factor}
    parity = _estimate(quoted, call, put, years, **known)
    if not parity.tells_discount_factor:
        prior = borrowed().prior(years)
        if prior is not ASSUMED:
            parity = _estimate(quoted, call, put, years, prior=prior, **known)
    notes = [*parity.notes]
    if terms.forward is not None and quoted.kind == "spread":
        # A wrong forward bends the discount factor: that of the pairs alone decides.
        free = _estimate(quoted, call, put, years).discount_factor
        notes += _parity_note(terms.forward, free, quoted, call, put)
    rate = parity.rate(years)
    error = parity.discount_standard_error / (parity.discount_factor * years)
    if terms.discount_factor is None and abs(rate) - 2.0 * error > _HIGH_RATE:
        notes.append(
            f"the pairs imply a rate of {rate:.0%} a year: unless the currency has "
            "such rates, check the expiry, or pass `discount_factor=`"
        )
    return ImpliedTerms(parity.forward, parity.discount_factor, parity, tuple(notes))


def _estimate(
    quoted: QuotedRows, call: np.ndarray, put: np.ndarray, years: float, **how
) -> ParityEstimate:
    """`forward_from_parity` of pairs of rows."""
    return forward_from_parity(
        strike=quoted.strike[call],
        call_bid=quoted.bid[call],
        call_ask=quoted.ask[call],
        put_bid=quoted.bid[put],
        put_ask=quoted.ask[put],
        time_to_expiry=years,
        **how,
    )


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
    if terms.american or quoted.kind == "volatility" or not quoted.type_known.any():
        return None
    call, put = quoted.pairs(codes)
    parity = _estimate(quoted, call, put, years, forward=terms.forward)
    if not parity.tells_discount_factor:
        return None
    error = parity.discount_standard_error / (parity.discount_factor * years)
    return parity.rate(years), error


def _american(
    terms: SliceTerms,
    quoted: QuotedRows,
    call: np.ndarray,
    put: np.ndarray,
    borrowed: Callable[[], RateCurve],
) -> ImpliedTerms:
    """By parity of the pairs near the money; the slope holds early exercise too."""
    years, discount, every = terms.time_to_expiry, terms.discount_factor, len(call)
    call, put = _near_the_money(quoted.strike, quoted.mid, call, put)
    told = "forward"
    if discount is None:
        prior = borrowed().prior(years)
        discount = float(np.exp(-prior.rate * years))
        told = f"discount factor from {prior}, forward"
    if len(call) == 0 and terms.forward is None and terms.spot is not None:
        note = (
            f"American options: {told} from the underlying's price, {terms.spot:.8g}, "
            "without dividends, since no strike has both a call and a put; pass "
            "`forward=` and `discount_factor=` if you know them"
        )
        return ImpliedTerms(terms.spot / discount, discount, None, (note,))
    note = (
        f"American options: fitted from out-of-the-money quotes; {told} by parity "
        f"of the {len(call)} of {every} pairs nearest the money, where it nearly "
        "holds; pass `forward=` and `discount_factor=` if you know them"
    )
    if terms.forward is not None:
        return ImpliedTerms(terms.forward, discount, None, (note,))
    parity = _estimate(quoted, call, put, years, discount_factor=discount)
    notes = (note, *parity.notes)
    return ImpliedTerms(parity.forward, parity.discount_factor, parity, notes)


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


def _parity_note(
    forward: float,
    discount: float,
    quoted: QuotedRows,
    call: np.ndarray,
    put: np.ndarray,
) -> list[str]:
    """A note if most pairs of a call and a put exclude the forward that was given."""
    # The forward that each pair allows, at its bids and asks.
    low = quoted.strike[call] + (quoted.bid[call] - quoted.ask[put]) / discount
    high = quoted.strike[call] + (quoted.ask[call] - quoted.bid[put]) / discount
    outside = np.count_nonzero((forward < low) | (forward > high))
    if len(low) < LEAST_STRIKES or outside <= 0.5 * len(low):
        return []
    middle = float(np.median(0.5 * (low + high)))
    return [
        f"{outside} of {len(low)} pairs of a call and a put exclude the forward given, "
        f"{forward:.6g}: by parity it is about {middle:.6g}; check `forward=` and "
        "`discount_factor=`"
    ]

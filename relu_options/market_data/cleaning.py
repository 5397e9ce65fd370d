"""Which quotes cannot be used, by which rule, and the report that says so.

Nothing is dropped silently: each row of a table ends up used, or under exactly one rule
of `RULES`, the first that applies in their order there.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd

from relu_options.errors import QuoteError
from relu_options.formulas.laws import Law
from relu_options.market_data.columns import not_understood

RULES: dict[str, str] = {
    "superseded": "an earlier quote of a contract that is quoted again later",
    "nonstandard_contract": "adjusted, or does not deliver the usual",
    "missing_strike": "strike missing",
    "nonpositive_strike": "strike zero or negative",
    "unknown_option_type": "neither call nor put",
    "missing_expiry": "expiry missing",
    "expired": "expired at the quote time",
    "missing_quote": "no bid, ask, mid or volatility",
    "negative_quote": "negative quote",
    "no_quote": "bid and ask, or mid, zero",
    "placeholder_volatility": "the same volatility below 0.5 % in several rows: "
    "a placeholder, not a quote",
    "missing_ask": "ask missing",
    "missing_bid": "bid missing: unknown, where a zero would be a quote",
    "crossed_quote": "bid above ask",
    "too_old": "last traded longer ago than `max_age=` allows",
    "thin": "traded less, or fewer open, than `min_volume=` or `min_open_interest=`",
    "duplicated_strike": "strike quoted again with a wider spread, or later",
    "below_intrinsic": "ask below intrinsic value",
    "above_bound": "bid above the discounted forward (calls) or strike (puts)",
    "stale": "stale: contradicts fresher neighbours beyond its spread",
    "one_sided": "in the money, with no other quote, and wider than its neighbours",
    "american_in_the_money": "in the money and American: no price of a European option",
    "unusable_slice": "in a slice that cannot be fitted; the report on slices says why",
    "in_the_money": "in the money, at a strike whose out-of-the-money quote is used",
}
"""Rules in the order in which they are applied, each with its meaning."""

LEAST_STRIKES = 3
"""Strikes that a fit needs."""

# Below it, a volatility that several rows repeat is a placeholder, such as Yahoo's 1e-5
# and 0.00195; single ones are quotes, on a pegged currency say.
_PLACEHOLDER_BELOW = 0.005
_MOST_CONTRADICTING = 0.2  # of the contracts: beyond it, a table mixes expiries
_MOST_SWAPPED = 0.5  # of the rows: beyond it, bids and asks change places

RULE_NAMES = ("used", *RULES)
RULE_CODES = {name: code for code, name in enumerate(RULE_NAMES)}

# Rows under these rules are sound: they are set aside, not at fault.
SOUND_RULES = frozenset(
    {
        "superseded",
        "too_old",
        "thin",
        "one_sided",
        "american_in_the_money",
        "in_the_money",
    }
)

EXAMPLES_SHOWN = 3


QuoteKind = Literal["spread", "mid", "volatility"]
Kernel = Literal["auto", Law]
"""The law that is asked for, or to be told from the quotes."""
_ALTERNATIVES: dict[str, QuoteKind] = {"mid": "mid", "implied_volatility": "volatility"}


@dataclass(frozen=True, eq=False)
class QuotedRows:
    """What canonical rows quote, as arrays of shape `(rows,)`.

    Attributes:
        strike: Currency units.
        is_call: False too where the type is unknown.
        type_known: Whether a row says that it is a call or a put.
        bid, ask: Currency units; both the mid, or the volatility, where a table has
            only these.
        kind: Which of the three: the first that the rows have.
    """

    strike: np.ndarray
    is_call: np.ndarray
    type_known: np.ndarray
    bid: np.ndarray
    ask: np.ndarray
    kind: QuoteKind

    @classmethod
    def of(cls, rows: pd.DataFrame) -> "QuotedRows":
        """The quotes of canonical rows.

        A vendor's volatility, or a last trade, is never used beside a quote.

        Examples:
            >>> rows = pd.DataFrame({"strike": [90.0, 100.0], "mid": [12.0, 5.0],
            ...                      "option_type": ["call", "call"],
            ...                      "bid": [np.nan] * 2, "ask": [np.nan] * 2})
            >>> QuotedRows.of(rows).kind
            'mid'
        """
        kind: QuoteKind = "spread"
        bid, ask = rows["bid"].to_numpy(), rows["ask"].to_numpy()
        if not (np.isfinite(bid) & np.isfinite(ask)).any():
            for name, other in _ALTERNATIVES.items():
                if name in rows and rows[name].notna().any():
                    bid = ask = rows[name].to_numpy()
                    kind = other
                    break
        types = rows["option_type"]
        return cls(
            strike=rows["strike"].to_numpy(),
            is_call=(types == "call").to_numpy(dtype=bool, na_value=False),
            type_known=types.notna().to_numpy(dtype=bool),
            bid=bid,
            ask=ask,
            kind=kind,
        )

    @cached_property
    def mid(self) -> np.ndarray:
        """Between bid and ask."""
        return 0.5 * (self.bid + self.ask)

    @property
    def is_typed(self) -> bool:
        """Whether rows are known calls and puts, which differ in what is quoted."""
        return self.kind != "volatility" and bool(self.type_known.any())

    def pairs(self, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows of calls, and of puts at the same strikes, among those used."""
        used = (codes == 0) & self.type_known
        call, put = (
            np.flatnonzero(used & self.is_call),
            np.flatnonzero(used & ~self.is_call),
        )
        at = find(self.strike[put], self.strike[call])
        return call[at >= 0], put[at[at >= 0]]


def find(values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where each of `wanted` is among `values`, each there once; -1 where it is not.

    Examples:
        >>> find(np.array([3.0, 1.0]), np.array([1.0, 2.0])).tolist()
        [1, -1]
    """
    if not len(values):
        return np.full(len(wanted), -1)
    order = np.argsort(values)
    at = np.searchsorted(values, wanted, sorter=order)
    at = order[np.minimum(at, len(values) - 1)]
    return np.where(values[at] == wanted, at, -1)


@dataclass(frozen=True)
class DroppedRows:
    """The rows of a table under one rule.

    Attributes:
        rule: One of `RULES`.
        labels: Index labels of the rows.
        rows_in: Number of rows of the table.
        examples: The first few rows, as text with their values.
    """

    rule: str
    labels: pd.Index
    rows_in: int
    examples: tuple[str, ...]

    @property
    def meaning(self) -> str:
        """What the rule says, in words."""
        return RULES[self.rule]

    @property
    def shown(self) -> str:
        """The examples, and whether there are more."""
        return ", ".join([*self.examples, "..."][: len(self)])

    def __len__(self) -> int:
        return len(self.labels)

    def __str__(self) -> str:
        where = f"{len(self):,} of {self.rows_in:,} rows"
        return f"{self.meaning} in {where}: {self.shown}"


@dataclass(frozen=True, eq=False)
class QuoteReport:
    """What became of every row of a table of quotes.

    Attributes:
        labels: Index of the table.
        codes: Shape `(rows,)`: 0 for a used row, else the rule's place in `RULES`,
            counted from 1.
        strike, bid, ask: Shape `(rows,)`: what the examples show; where a table has no
            bids and asks, `bid` holds its mids or volatilities and `ask` is None.
        is_call: Shape `(rows,)`.
        notes: What was assumed or converted, one sentence each.

    Examples:
        >>> from relu_options.market_data import prepare_quotes
        >>> quotes = pd.DataFrame({"strike": [90.0, 100.0, 110.0, 120.0, 130.0],
        ...                        "option_type": ["put"] * 2 + ["call"] * 3,
        ...                        "bid": [1.0, 3.0, 2.0, 0.5, 0.3],
        ...                        "ask": [1.2, 3.2, 2.2, 0.4, 0.4]})
        >>> prepare_quotes(quotes, forward=102.0, discount_factor=0.99,
        ...                time_to_expiry=0.25).report
        5 rows in, 4 used
          dropped 1: bid above ask: 3: call 120 (0.5 / 0.4)
    """

    labels: pd.Index
    codes: np.ndarray
    strike: np.ndarray
    bid: np.ndarray
    ask: np.ndarray | None
    is_call: np.ndarray | None
    notes: tuple[str, ...] = field(default=())

    @classmethod
    def of(
        cls, rows: pd.DataFrame, codes: np.ndarray, notes: tuple[str, ...]
    ) -> "QuoteReport":
        """The report on canonical rows, given the rule that each falls under."""
        quoted = QuotedRows.of(rows)
        return cls(
            labels=rows.index,
            codes=codes,
            strike=quoted.strike,
            bid=quoted.bid,
            ask=quoted.ask if quoted.kind == "spread" else None,
            is_call=quoted.is_call if quoted.type_known.any() else None,
            notes=notes,
        )

    @property
    def rows_in(self) -> int:
        """Number of rows that came in."""
        return len(self.codes)

    @property
    def rows_used(self) -> int:
        """Number of rows that remain."""
        return int(np.count_nonzero(self.codes == 0))

    @property
    def counts(self) -> dict[str, int]:
        """Number of rows under each rule that applied, in the order of `RULES`."""
        counts = np.bincount(self.codes, minlength=len(RULE_NAMES))
        return {
            name: int(count)
            for name, count in zip(RULE_NAMES[1:], counts[1:], strict=True)
            if count
        }

    @property
    def faults(self) -> int:
        """Number of rows dropped for a fault, rather than set aside."""
        return sum(n for rule, n in self.counts.items() if rule not in SOUND_RULES)

    @property
    def dropped(self) -> tuple[DroppedRows, ...]:
        """The rows under each rule that applied, in the order of `RULES`."""
        return tuple(self._rows_under(rule) for rule in self.counts)

    def __iter__(self) -> Iterator[DroppedRows]:
        return iter(self.dropped)

    def _rows_under(self, rule: str) -> DroppedRows:
        positions = np.flatnonzero(self.codes == RULE_CODES[rule])
        examples = tuple(self._example(at) for at in positions[:EXAMPLES_SHOWN])
        labels = self.labels.take(positions)
        return DroppedRows(rule, labels, self.rows_in, examples)

    def _example(self, at: int) -> str:
        kind = ""
        known = self.codes[at] != RULE_CODES["unknown_option_type"]
        if self.is_call is not None and known:
            kind = "call " if self.is_call[at] else "put "
        values = f"{self.bid[at]:.10g}"
        if self.ask is not None:
            values += f" / {self.ask[at]:.10g}"
        return f"{self.labels[at]}: {kind}{self.strike[at]:.10g} ({values})"

    def raise_first_fault(self) -> None:
        """Raise the first faulty group of rows as an error.

        Raises:
            QuoteError: If a row is under any rule but "in_the_money".
        """
        for rows in self.dropped:
            if rows.rule not in SOUND_RULES:
                raise QuoteError(f"{rows}; correct or drop them")

    def to_frame(self) -> pd.DataFrame:
        """One row per rule that applied: its meaning, the number of rows, examples."""
        return pd.DataFrame(
            {
                "meaning": [rows.meaning for rows in self.dropped],
                "rows": [len(rows) for rows in self.dropped],
                "examples": [", ".join(rows.examples) for rows in self.dropped],
            },
            index=pd.Index([rows.rule for rows in self.dropped], name="rule"),
        )

    def in_one_line(self) -> str:
        """The report as part of a message."""
        return "; ".join(line.strip() for line in repr(self).splitlines())

    def __repr__(self) -> str:
        lines = [f"{self.rows_in:,} rows in, {self.rows_used:,} used"]
        for rows in self.dropped:
            if rows.rule in SOUND_RULES:
                lines.append(f"  set aside {len(rows):,}: {rows.meaning}")
            else:
                lines.append(f"  dropped {len(rows):,}: {rows.meaning}: {rows.shown}")
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


def quote_faults(
    *,
    strike: np.ndarray,
    bid: np.ndarray,
    ask: np.ndarray,
    type_known: np.ndarray | None = None,
    signed: bool = False,
) -> np.ndarray:
    """The rule that each row falls under by its own values, all of one shape.

    A zero bid under a positive ask is a quote: the interval from zero to the ask.

    Args:
        strike: Currency units; NaN where missing.
        bid: Currency units; NaN where missing. Where only mids or volatilities are
            known, pass them as bid and as ask.
        ask: Likewise.
        type_known: False where a row is neither call nor put.
        signed: Whether strikes of zero and below are quotes.

    Returns:
        Codes as in `QuoteReport.codes`.

    Examples:
        >>> codes = quote_faults(strike=np.array([90.0, 100.0, np.nan, 120.0]),
        ...                      bid=np.array([2.0, 0.0, 1.0, 0.0]),
        ...                      ask=np.array([1.9, 0.1, 1.2, 0.0]))
        >>> [RULE_NAMES[code] for code in codes]
        ['crossed_quote', 'used', 'missing_strike', 'no_quote']
    """
    codes = np.zeros(strike.shape, dtype=np.int8)
    # Comparisons with NaN are false, so one pass recognises a sound table.
    sound = (strike > -np.inf if signed else strike > 0.0) & (ask >= bid)
    sound &= (bid >= 0.0) & (ask > 0.0)
    if type_known is not None:
        sound &= type_known
    if sound.all():
        return codes
    mark(codes, np.isnan(strike), "missing_strike")
    if not signed:
        mark(codes, strike <= 0.0, "nonpositive_strike")
    if type_known is not None:
        mark(codes, ~type_known, "unknown_option_type")
    mark(codes, np.isnan(bid) & np.isnan(ask), "missing_quote")
    mark(codes, (bid < 0.0) | (ask < 0.0), "negative_quote")
    mark(codes, (bid == 0.0) & (ask == 0.0), "no_quote")
    mark(codes, np.isnan(ask), "missing_ask")
    mark(codes, np.isnan(bid), "missing_bid")
    mark(codes, bid > ask, "crossed_quote")
    return codes


def mark(codes: np.ndarray, rows: np.ndarray, rule: str) -> None:
    """Put `rows` (a mask), where under no rule yet, under `rule`, in place."""
    codes[rows & (codes == 0)] = RULE_CODES[rule]


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
        >>> rows = pd.DataFrame({"volume": [50.0, 7.0, np.nan]})
        >>> codes = np.zeros(3, dtype=int)
        >>> TradingLimits(min_volume=10).mark(codes, rows, quote_time=None)
        >>> [RULE_NAMES[code] for code in codes]
        ['used', 'thin', 'thin']
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

    def mark(
        self, codes: np.ndarray, rows: pd.DataFrame, quote_time: pd.Timestamp | None
    ) -> None:
        """Put canonical rows that miss a limit under its rule, in place.

        A row without a number misses a limit on it: a vendor leaves empty what has not
        traded.

        Raises:
            QuoteError: If no row has a number that a limit needs.
        """
        for name, limit in vars(self).items():
            if limit is None:
                continue
            column, also = name.removeprefix("min_"), ""
            if name == "max_age":
                column, also = "last_trade_time", " and a quote time"
                values = days_since_trade(rows, quote_time)
                missed = ~(values <= limit)
            else:
                values = rows[column].to_numpy(float)
                missed = ~(values >= limit)
            if not np.isfinite(values).any():
                raise QuoteError(
                    f"`{name}=` needs a column {column!r}{also}, with values; name it "
                    f"with `columns={{{column!r}: ...}}`, or leave the limit out"
                )
            mark(codes, missed, "too_old" if name == "max_age" else "thin")


def days_since_trade(rows: pd.DataFrame, quote_time: pd.Timestamp | None) -> np.ndarray:
    """Days since the last trade of each canonical row, NaN where it is unknown.

    Examples:
        >>> traded = pd.to_datetime(["2019-05-17 20:00", None], utc=True)
        >>> rows = pd.DataFrame({"last_trade_time": traded})
        >>> days_since_trade(rows, pd.Timestamp("2019-05-20 08:00", tz="UTC"))
        array([2.5, nan])
    """
    if quote_time is None or "last_trade_time" not in rows:
        return np.full(len(rows), np.nan)
    elapsed = quote_time - rows["last_trade_time"]
    return (elapsed / pd.Timedelta(days=1)).to_numpy(float)


def repeated_rows(
    codes: np.ndarray, keys: np.ndarray, quoted: QuotedRows
) -> tuple[np.ndarray, np.ndarray]:
    """Rows, still used, that repeat the contract of one with a tighter spread.

    Args:
        codes: As in `QuoteReport.codes`.
        keys: A number per contract, as `contract_keys` gives.
        quoted: What the rows quote; the first of equals is kept.

    Returns:
        Masks: of these rows, and of those among them that quote other values.
    """
    repeated, differs = np.zeros((2, len(codes)), dtype=bool)
    used = np.flatnonzero(codes == 0)
    order = used[np.lexsort(((quoted.ask - quoted.bid)[used], keys[used]))]
    again = np.zeros(len(order), dtype=bool)
    again[1:] = keys[order[1:]] == keys[order[:-1]]
    first = order[np.maximum.accumulate(np.where(again, 0, np.arange(len(order))))]
    repeated[order] = again
    for side in (quoted.bid, quoted.ask):
        differs[order] |= side[order] != side[first]
    return repeated, differs


def clean_rows(
    rows: pd.DataFrame,
    quote_time: pd.Timestamp | None,
    *,
    nonstandard: np.ndarray,
    superseded: np.ndarray,
    limits: TradingLimits = TradingLimits(),
    kernel: Kernel = "auto",
) -> tuple[np.ndarray, list[str]]:
    """The rule that each canonical row falls under by itself, 0 where none, and notes.

    Args:
        rows: Canonical rows of one chain.
        quote_time: In UTC, if known.
        nonstandard: Shape `(rows,)`: contracts that do not deliver the usual.
        superseded: Shape `(rows,)`: rows whose contract has a later quote.
        limits: What is asked of a contract's trading.
        kernel: The law of the underlying: with the normal one strikes of zero and below
            are quotes, and where `quotes_are_signed` says so.
    """
    quoted = QuotedRows.of(rows)
    signed, said = quotes_are_signed(rows, quoted, kernel)
    codes = np.zeros(len(rows), dtype=np.int64)
    mark(codes, superseded, "superseded")
    mark(codes, nonstandard, "nonstandard_contract")
    # Calls and puts of one strike share their volatility.
    typed = quoted.kind != "volatility"
    faults = quote_faults(
        strike=quoted.strike,
        bid=quoted.bid,
        ask=quoted.ask,
        type_known=quoted.type_known if typed and quoted.type_known.any() else None,
        signed=signed,
    )
    codes = np.where(codes == 0, faults, codes)
    if not typed and not signed:  # half a per cent is a normal volatility of rates
        mark(codes, _placeholders(quoted.bid), "placeholder_volatility")
    times = _mark_expired(codes, rows, quote_time)
    limits.mark(codes, rows, quote_time)
    keys = contract_keys(times, quoted)
    repeated, differs = repeated_rows(codes, keys, quoted)
    mixed, notes = _contradictions(codes, keys, times, differs)
    repeated &= ~mixed
    notes += _shared_roots(rows, keys, repeated)
    mark(codes, repeated, "duplicated_strike")
    return codes, [*said, *notes]


def quotes_are_signed(
    rows: pd.DataFrame, quoted: QuotedRows, kernel: Kernel
) -> tuple[bool, list[str]]:
    """Whether strikes of zero and below are quotes, and a note where quotes tell it.

    What is told decides: the law, or a negative forward. Else the prices do: a put
    struck at zero or below is worth something only if the underlying may be negative.
    One such row is a fault of the row. Puts at three or more such strikes of one
    expiry, none of them bid for above the ask of a higher strike up to the first above
    zero, are a market.

    Args:
        rows: Canonical rows of one chain.
        quoted: What they quote.
        kernel: The law that is asked for.

    Examples:
        >>> rows = pd.DataFrame({"strike": [-30.0, -20.0, -10.0, 10.0], "ask": 9.0,
        ...                      "bid": [1.0, 2.0, 4.0, 8.0], "option_type": "put",
        ...                      "expiry": pd.NaT, "time_to_expiry": 0.1})
        >>> quotes_are_signed(rows, QuotedRows.of(rows), "auto")[0]
        True
        >>> rows = rows.assign(strike=[-10.0, 80.0, 90.0, 100.0])
        >>> quotes_are_signed(rows, QuotedRows.of(rows), "auto")[0]
        False
    """
    if kernel != "auto":
        return kernel == "normal", []
    if "forward" in rows and (rows["forward"].to_numpy() < 0.0).any():
        return True, []
    low = quoted.strike <= 0.0
    if quoted.kind == "volatility" or np.count_nonzero(low) < LEAST_STRIKES:
        return False, []
    sound = quoted.type_known & ~quoted.is_call
    sound &= (quoted.bid > 0.0) & (quoted.ask >= quoted.bid)
    ends = _ends(rows)
    for end in np.unique(ends[sound & low]):
        puts = np.flatnonzero(sound & (ends == end))
        puts = puts[np.argsort(quoted.strike[puts])]
        count = np.count_nonzero(low[puts])
        told = puts[: count + 1]
        rising = np.maximum.accumulate(quoted.bid[told]) <= quoted.ask[told]
        if (
            len(np.unique(quoted.strike[puts[:count]])) >= LEAST_STRIKES
            and rising.all()
        ):
            note = (
                "puts struck at zero and below have bids that rise with the strike: "
                "the underlying may be negative, and such strikes are quotes; pass "
                "`kernel='lognormal'` if they are not"
            )
            return True, [note]
    return False, []


def strikes_cleaned_again(
    codes: np.ndarray,
    rows: pd.DataFrame,
    quote_time: pd.Timestamp | None,
    kernel: Kernel,
) -> tuple[np.ndarray, list[str]]:
    """The rules of rows that were cleaned before more of the underlying was known.

    Only what becomes a quote, or no quote, by it changes; see `clean_rows`.
    """
    if not (rows["strike"].to_numpy() <= 0.0).any():
        return codes, []
    fresh, notes = clean_rows(
        rows,
        quote_time,
        nonstandard=codes == RULE_CODES["nonstandard_contract"],
        superseded=codes == RULE_CODES["superseded"],
        kernel=kernel,
    )
    rule = RULE_CODES["nonpositive_strike"]
    return np.where((codes == rule) != (fresh == rule), fresh, codes), notes


def _placeholders(volatility: np.ndarray) -> np.ndarray:
    """Volatilities below half a per cent that several rows share."""
    low = (volatility > 0.0) & (volatility < _PLACEHOLDER_BELOW)
    values, counts = np.unique(volatility[low], return_counts=True)
    return np.isin(volatility, values[counts > 1])


def _mark_expired(
    codes: np.ndarray, rows: pd.DataFrame, quote_time: pd.Timestamp | None
) -> np.ndarray:
    """Put rows without an expiry, or past it, under their rules; when each ends."""
    dated, times = rows["expiry"].notna().to_numpy(), _ends(rows)
    if not dated.any():
        mark(codes, np.isnan(times), "missing_expiry")
        mark(codes, times <= 0.0, "expired")
        return times
    mark(codes, ~dated, "missing_expiry")
    if quote_time is not None:
        ends = rows["expiry_time"]
        mark(codes, (ends <= quote_time).to_numpy(dtype=bool), "expired")
    return times


def _ends(rows: pd.DataFrame) -> np.ndarray:
    """When the contract of each canonical row ends, as a number."""
    if not rows["expiry"].notna().any():
        return rows["time_to_expiry"].to_numpy()
    return rows["expiry_time"].astype("int64").to_numpy()


def contract_keys(times: np.ndarray, quoted: QuotedRows) -> np.ndarray:
    """A number per contract: the same end, strike and type."""
    types = quoted.is_call & (quoted.kind != "volatility")
    order = np.lexsort((types, quoted.strike, times))
    new = np.zeros(len(order), dtype=np.int64)
    for values in (times, quoted.strike, types):
        new[1:] |= values[order][1:] != values[order][:-1]
    keys = np.empty_like(new)
    keys[order] = np.cumsum(new)
    return keys


def _contradictions(
    codes: np.ndarray, keys: np.ndarray, times: np.ndarray, differs: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """Repeated rows of slices most of whose repeats contradict, and a note.

    There is nothing to choose by: they stay, so that a fit of the slice says what is
    wrong with it.
    """
    kept = np.zeros(len(codes), dtype=bool)
    worst = (0, 0)
    for time in np.unique(times[differs]):
        here = times == time
        contracts = len(np.unique(keys[here & (codes == 0)]))
        again = len(np.unique(keys[here & differs]))
        if again > max(_MOST_CONTRADICTING * contracts, 1):
            kept |= here & differs
            worst = max(worst, (again, contracts))
    if not kept.any():
        return kept, []
    return kept, [
        f"{worst[0]} of {worst[1]} contracts of one expiry are quoted several times "
        "with other values: the table seems to mix expiries or times"
    ]


def _shared_roots(
    rows: pd.DataFrame, keys: np.ndarray, repeated: np.ndarray
) -> list[str]:
    """A note where contracts of two roots are the same option."""
    roots = rows["root"]
    if not repeated.any() or roots.nunique() < 2:
        return []
    again = np.isin(keys, keys[repeated])
    names = sorted(roots[again].dropna().unique())
    if len(names) < 2:
        return []
    return [
        f"roots {', '.join(map(str, names[:4]))} share expiry, settlement and strike "
        f"in {int(repeated.sum()):,} rows: the tighter quote of each is used"
    ]


def require_one_quote_each(
    codes: np.ndarray, quoted: QuotedRows, strange_types: tuple[str, ...]
) -> None:
    """Raise where contracts of one slice contradict each other, so that none is right.

    Args:
        codes: As in `QuoteReport.codes`.
        quoted: Rows of one slice.
        strange_types: Option types that were not understood, where none was.

    Raises:
        QuoteError: If a contract has several rows that are used.
    """
    keys = contract_keys(np.zeros(len(codes)), quoted)
    repeated, _ = repeated_rows(codes, keys, quoted)
    again, first = np.unique(keys[repeated], return_index=True)
    if not len(again):
        return
    strikes = np.sort(quoted.strike[repeated][first])
    shown = ", ".join(f"{strike:.10g}" for strike in strikes[:EXAMPLES_SHOWN])
    used = codes == 0
    contracts = len(np.unique(keys[used]))
    several = "more than one expiry, settlement (AM and PM) or quote time: select one"
    if strange_types:
        several = f"calls and puts: {not_understood(strange_types)}"
    elif quoted.kind != "volatility" and not quoted.type_known[used].any():
        several = (
            "calls and puts, with no column that tells them apart: add or fill "
            f"'option_type'; or {several}"
        )
    raise QuoteError(
        f"{len(again)} of {contracts} options are quoted again with other values: "
        f"strikes {shown}, ...; the table seems to hold {several}"
    )


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
        signed: Whether the underlying may be negative.
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
    signed: bool = False

    @property
    def unit(self) -> float:
        """What prices are compared with; see `ExpiryQuotes.unit`."""
        if self.signed:
            return float(np.nanmax(np.abs(self.strike - self.forward)))
        return self.forward

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


def one_sided_quotes(
    quotes: SliceQuotes,
    usable: np.ndarray,
    each_side: int = 4,
) -> np.ndarray:
    """In-the-money quotes without a twin whose spread is wider than their neighbours'.

    Such a quote stands in for the out-of-the-money one, which nobody quotes. Where its
    spread is wider than those of all out-of-the-money quotes nearest on both sides, it
    says nothing that they do not. Where one side has none, as in a table of calls only,
    it is all that there is.

    Args:
        quotes: Rows of one expiry.
        usable: Those to consider, a mask of shape `(n,)`.
        each_side: Neighbours that are asked on each side.

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
    rounding = 1e-9 * quotes.unit
    for row in np.flatnonzero(alone):
        place = int(np.searchsorted(strike, quotes.strike[row]))
        near = spread[max(place - each_side, 0) : place + each_side]
        both = 0 < place < len(strike)
        own = quotes.ask[row] - quotes.bid[row]
        wide[row] = both and own > near.max() + rounding
    return wide


def nothing_left(
    rows: pd.DataFrame,
    codes: np.ndarray,
    quote_time: pd.Timestamp | None,
    notes: tuple[str, ...] = (),
) -> str:
    """The message where every canonical row falls under a rule, with what to do."""
    report = QuoteReport.of(rows, codes, notes)
    most = max(report.counts, key=lambda rule: report.counts[rule])
    remedy = {
        "too_old": "raise `max_age=`, or leave it out",
        "thin": "lower `min_volume=` or `min_open_interest=`, or leave it out",
        "nonpositive_strike": "if the underlying may be negative, pass "
        "`kernel='normal'`",
    }.get(most)
    if most == "no_quote" and report.counts[most] > 0.5 * report.rows_in:
        remedy = (
            "quotes are empty outside of trading hours: read those of a time when the "
            "market was open"
        )
    elif most == "expired":
        ends = rows["expiry_time"].max()
        if quote_time is None or pd.isna(ends):
            years = rows["time_to_expiry"].max()
            remedy = f"the time to expiry is {years:.6g} years; it must be positive"
        else:
            remedy = (
                f"the expiry, {ends:%Y-%m-%d %H:%M} UTC, is not after the quote time, "
                f"{quote_time:%Y-%m-%d %H:%M} UTC; check `quote_time` and the expiry"
            )
    elif most in ("missing_strike", "missing_quote", "missing_bid", "missing_ask"):
        name = most.removeprefix("missing_").replace("quote", "bid")
        remedy = (
            "cells that are no numbers count as missing: write numbers, or name "
            f"another column with `columns={{'{name}': ...}}`"
        )
    text = f"no row can be used: {report.in_one_line()}{if_swapped(report)}"
    return text if remedy is None else f"{text}; {remedy}"


def if_swapped(report: QuoteReport) -> str:
    """What is wrong where most bids are above their asks, or nothing."""
    crossed = report.counts.get("crossed_quote", 0)
    if crossed <= _MOST_SWAPPED * report.rows_in:
        return ""
    return (
        f"; bid is above ask in {crossed:,} of {report.rows_in:,} rows: the two "
        "columns seem to be swapped; name them with `columns={'bid': ..., 'ask': ...}`"
    )

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
from relu_options.market_data.columns import not_understood
from relu_options.market_data.freshness import (
    SliceQuotes,
    Trading,
    TradingLimits,
    one_sided_quotes,
    stale_quotes,
)

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
_TOLERANCE = 1e-9  # of the forward, for the bounds on a price

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

    def __len__(self) -> int:
        return len(self.labels)

    def __str__(self) -> str:
        more = ", ..." if len(self) > len(self.examples) else ""
        return (
            f"{self.meaning} in {len(self):,} of {self.rows_in:,} rows: "
            f"{', '.join(self.examples)}{more}"
        )


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
                more = ", ..." if len(rows) > len(rows.examples) else ""
                shown = ", ".join(rows.examples)
                lines.append(f"  dropped {len(rows):,}: {rows.meaning}: {shown}{more}")
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


def quote_faults(
    *,
    strike: np.ndarray,
    bid: np.ndarray,
    ask: np.ndarray,
    type_known: np.ndarray | None = None,
) -> np.ndarray:
    """The rule that each row falls under by its own values, all of one shape.

    A zero bid under a positive ask is a quote: the interval from zero to the ask.

    Args:
        strike: Currency units; NaN where missing.
        bid: Currency units; NaN where missing. Where only mids or volatilities are
            known, pass them as bid and as ask.
        ask: Likewise.
        type_known: False where a row is neither call nor put.

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
    sound = (strike > 0.0) & (bid >= 0.0) & (ask > 0.0) & (ask >= bid)
    if type_known is not None:
        sound &= type_known
    if sound.all():
        return codes
    mark(codes, np.isnan(strike), "missing_strike")
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


def duplicated_rows(
    codes: np.ndarray, keys: np.ndarray, spread: np.ndarray
) -> np.ndarray:
    """Rows, still used, that repeat the contract of a row with a tighter spread.

    Args:
        codes: As in `QuoteReport.codes`.
        keys: A number per contract.
        spread: Ask minus bid, in currency units; the first of equals is kept.

    Returns:
        A mask over the rows.
    """
    repeated = np.zeros(codes.shape, dtype=bool)
    used = np.flatnonzero(codes == 0)
    ordered = np.sort(keys[used])
    if not (ordered[1:] == ordered[:-1]).any():
        return repeated
    order = used[np.lexsort((spread[used], keys[used]))]
    repeated[order[1:]] = keys[order[1:]] == keys[order[:-1]]
    return repeated


def contradicting_rows(
    codes: np.ndarray,
    keys: np.ndarray,
    bid: np.ndarray,
    ask: np.ndarray,
    repeated: np.ndarray,
) -> np.ndarray:
    """Repeated rows whose quote differs from that of the row that is kept.

    Args:
        codes: As in `QuoteReport.codes`.
        keys: A number per contract.
        bid: Currency units.
        ask: Currency units.
        repeated: What `duplicated_rows` gives.

    Returns:
        A mask over the rows.
    """
    differs = np.zeros(codes.shape, dtype=bool)
    again = np.flatnonzero(repeated)
    if not len(again):
        return differs
    kept = np.flatnonzero((codes == 0) & ~repeated)
    kept = kept[np.argsort(keys[kept])]
    first = kept[np.searchsorted(keys[kept], keys[again])]
    differs[again] = (bid[again] != bid[first]) | (ask[again] != ask[first])
    return differs


def clean_rows(
    rows: pd.DataFrame,
    quote_time: pd.Timestamp | None,
    *,
    nonstandard: np.ndarray,
    superseded: np.ndarray,
    limits: TradingLimits = TradingLimits(),  # noqa: B008  (frozen)
) -> tuple[np.ndarray, list[str]]:
    """The rule that each canonical row falls under by itself, 0 where none, and notes.

    Args:
        rows: Canonical rows of one chain.
        quote_time: In UTC, if known.
        nonstandard: Shape `(rows,)`: contracts that do not deliver the usual.
        superseded: Shape `(rows,)`: rows whose contract has a later quote.
        limits: What is asked of a contract's trading.
    """
    quoted = QuotedRows.of(rows)
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
    )
    codes = np.where(codes == 0, faults, codes)
    if not typed:
        mark(codes, _placeholders(quoted.bid), "placeholder_volatility")
    limit_trading(codes, rows, quote_time, limits)
    times = _mark_expired(codes, rows, quote_time)
    keys = _contract_keys(times, quoted)
    repeated = duplicated_rows(codes, keys, quoted.ask - quoted.bid)
    notes: list[str] = []
    if repeated.any():
        repeated &= ~_contradictions(codes, keys, times, quoted, repeated, notes)
        notes += _shared_roots(rows, keys, repeated)
        mark(codes, repeated, "duplicated_strike")
    return codes, notes


def limit_trading(
    codes: np.ndarray,
    rows: pd.DataFrame,
    quote_time: pd.Timestamp | None,
    limits: TradingLimits,
) -> None:
    """Put rows that miss limits on trading under their rules, in place."""
    if not limits:
        return
    old, thin = limits.missed(Trading.of(rows, quote_time))
    mark(codes, old, "too_old")
    mark(codes, thin, "thin")


def _placeholders(volatility: np.ndarray) -> np.ndarray:
    """Volatilities below half a per cent that several rows share."""
    low = (volatility > 0.0) & (volatility < _PLACEHOLDER_BELOW)
    values, counts = np.unique(volatility[low], return_counts=True)
    return np.isin(volatility, values[counts > 1])


def _mark_expired(
    codes: np.ndarray, rows: pd.DataFrame, quote_time: pd.Timestamp | None
) -> np.ndarray:
    """Put rows without an expiry, or past it, under their rules; when each ends."""
    dated = rows["expiry"].notna().to_numpy()
    if not dated.any():
        times = rows["time_to_expiry"].to_numpy()
        mark(codes, np.isnan(times), "missing_expiry")
        mark(codes, times <= 0.0, "expired")
        return times
    mark(codes, ~dated, "missing_expiry")
    if quote_time is not None:
        ends = rows["expiry_time"]
        mark(codes, (ends <= quote_time).to_numpy(dtype=bool), "expired")
    return rows["expiry_time"].astype("int64").to_numpy()


def _contract_keys(times: np.ndarray, quoted: QuotedRows) -> np.ndarray:
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
    codes: np.ndarray,
    keys: np.ndarray,
    times: np.ndarray,
    quoted: QuotedRows,
    repeated: np.ndarray,
    notes: list[str],
) -> np.ndarray:
    """Repeated rows of slices most of whose repeats contradict: nothing to choose by.

    They stay, so that a fit of the slice says what is wrong with it.
    """
    differs = contradicting_rows(codes, keys, quoted.bid, quoted.ask, repeated)
    kept = np.zeros(len(codes), dtype=bool)
    worst = (0, 0)
    for time in np.unique(times[differs]):
        here = times == time
        contracts = len(np.unique(keys[here & (codes == 0)]))
        again = len(np.unique(keys[here & differs]))
        if again > max(_MOST_CONTRADICTING * contracts, 1):
            kept |= here & differs
            worst = max(worst, (again, contracts))
    if kept.any():
        notes.append(
            f"{worst[0]} of {worst[1]} contracts of one expiry are quoted several "
            "times with other values: the table seems to mix expiries or times"
        )
    return kept


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
    used = np.flatnonzero(codes == 0)
    is_call = quoted.is_call[used] & (quoted.kind != "volatility")
    strike = quoted.strike[used]
    keys = np.where(is_call, strike, -strike)
    values, counts = np.unique(keys, return_counts=True)
    again = values[counts > 1]
    if not len(again):
        return
    shown = ", ".join(f"{key:.10g}" for key in np.sort(np.abs(again))[:3])
    several = "more than one expiry, settlement (AM and PM) or quote time: select one"
    if strange_types:
        several = f"calls and puts: {not_understood(strange_types)}"
    elif quoted.kind != "volatility" and not quoted.type_known[used].any():
        several = (
            "calls and puts, with no column that tells them apart: add or fill "
            f"'option_type'; or {several}"
        )
    raise QuoteError(
        f"{len(again)} of {len(values)} options are quoted again with other "
        f"values: strikes {shown}, ...; the table seems to hold {several}"
    )


def set_aside(
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
        slack = _TOLERANCE * forward + 3.0 * discount * quotes.forward_error
        bound = discount * np.where(is_call, forward, strike)
        mark(codes, quoted.ask < intrinsic - slack, "below_intrinsic")
        mark(codes, quoted.bid > bound + slack, "above_bound")
    stale = np.zeros(len(codes), dtype=bool)
    if quoted.kind == "spread":
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


def nothing_left(
    rows: pd.DataFrame,
    report: QuoteReport,
    quote_time: pd.Timestamp | None,
) -> str:
    """The message where every canonical row falls under a rule, with what to do."""
    text = f"no row can be used: {report.in_one_line()}"
    most = max(report.counts, key=lambda rule: report.counts[rule])
    if most == "no_quote" and report.counts[most] > 0.5 * report.rows_in:
        return (
            f"{text}; quotes are empty outside of trading hours: read those of a time "
            "when the market was open"
        )
    if most == "crossed_quote":
        return text + if_swapped(report)
    if most == "expired":
        ends = rows["expiry_time"].max()
        if quote_time is None or pd.isna(ends):
            years = rows["time_to_expiry"].max()
            return (
                f"{text}; the time to expiry is {years:.6g} years; it must be positive"
            )
        return (
            f"{text}; the expiry, {ends:%Y-%m-%d %H:%M} UTC, is not after the quote "
            f"time, {quote_time:%Y-%m-%d %H:%M} UTC; check `quote_time` and the expiry"
        )
    column = {"missing_strike": "strike", "missing_bid": "bid", "missing_ask": "ask"}
    name = column.get(most, "bid" if most == "missing_quote" else None)
    if name is not None:
        return (
            f"{text}; cells that are no numbers count as missing: write numbers, or "
            f"name another column with `columns={{'{name}': ...}}`"
        )
    return text


def if_swapped(report: QuoteReport) -> str:
    """What is wrong where most bids are above their asks, or nothing."""
    crossed = report.counts.get("crossed_quote", 0)
    if crossed <= _MOST_SWAPPED * report.rows_in:
        return ""
    return (
        f"; bid is above ask in {crossed:,} of {report.rows_in:,} rows: the two "
        "columns seem to be swapped; name them with `columns={'bid': ..., 'ask': ...}`"
    )

"""Which quotes cannot be used, by which rule, and the report that says so.

Nothing is dropped silently: each row of a table ends up used, or under exactly one rule
of `RULES`, the first that applies in their order there.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from relu_options.errors import QuoteError

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
    "placeholder_volatility": "volatility below 0.5 %: a placeholder, not a quote",
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

PLACEHOLDER_BELOW = 0.005
"""Volatilities below it are placeholders, such as Yahoo's 1e-5 and 0.00195."""

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

"""An option chain: the quotes of one underlying at one time, slice by slice."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pandas as pd

from relu_options.errors import QuoteError
from relu_options.market_data.cleaning import RULE_CODES, QuoteReport
from relu_options.market_data.clocks import as_date, years_between
from relu_options.market_data.quotes import prepare_quotes

if TYPE_CHECKING:
    from relu_options.quote_check import QuoteCheck

Slice: TypeAlias = tuple[pd.Timestamp | float, str | None]
"""Expiry and settlement; where a source has no dates, years to expiry and None."""


@dataclass(frozen=True, eq=False)
class ChainReport:
    """What became of every row of a chain, and what its slices imply.

    Attributes:
        rows: What became of every row: used, or dropped by which rule.
        slices: One row per slice: `time_to_expiry` (years), `forward` and
            `forward_standard_error` (currency units), `discount_factor` and
            `discount_standard_error`, `rate` (continuous, per year), `pairs`, `rows`,
            `used`, and `problem`, where a slice cannot be fitted.
        notes: What was assumed or found, with the slices that it concerns.

    Examples:
        >>> from relu_options.market_data import bundled_chain
        >>> report = bundled_chain()["2025-06-20"].report()
        >>> print(report.rows)
        178 rows in, 89 used
          set aside 89: in the money, at a strike whose out-of-the-money quote is used
        >>> report.slices[["pairs", "rows", "used"]].iloc[0].to_dict()
        {'pairs': 89, 'rows': 178, 'used': 89}
    """

    rows: QuoteReport
    slices: pd.DataFrame
    notes: tuple[str, ...] = ()
    _chain: "OptionChain | None" = field(default=None, repr=False)

    @cached_property
    def arbitrage(self) -> "QuoteCheck":
        """Whether the quotes used admit arbitrage, and where; found when first asked.

        Raises:
            QuoteError: If no slice can be prepared.
            ValueError: If the report was not made by a chain.
        """
        from relu_options.quote_check import check_quotes

        if self._chain is None:
            raise ValueError("this report has no chain; use `check_quotes(quotes)`")
        return check_quotes(self._chain)

    def to_frame(self) -> pd.DataFrame:
        """One row per rule that applied: its meaning, the number of rows, examples."""
        return self.rows.to_frame()

    def set_aside(self, rule: str) -> pd.DataFrame:
        """The contracts under a rule, in canonical columns, with the user's index.

        Args:
            rule: One of `relu_options.market_data.cleaning.RULES`, such as "stale".

        Raises:
            ValueError: If there is no such rule, or the report was not made by a chain.

        Examples:
            >>> from relu_options.market_data import bundled_chain
            >>> report = bundled_chain()["2025-06-20"].report()
            >>> len(report.set_aside("in_the_money")), len(report.set_aside("stale"))
            (89, 0)
        """
        if rule not in RULE_CODES:
            raise ValueError(f"no rule {rule!r}; rules are {list(RULE_CODES)[1:]}")
        if self._chain is None:
            raise ValueError("this report has no chain; use `OptionChain.report`")
        rows = np.flatnonzero(self.rows.codes == RULE_CODES[rule])
        return self._chain.rows.iloc[rows]

    def describe_slices(self) -> str:
        """The slices as text: columns with values only, problems in full below."""
        shown = self.slices.drop(columns="problem").dropna(axis="columns", how="all")
        text = shown.rename(index=lambda level: "" if pd.isna(level) else level)
        lines = [text.to_string(float_format=lambda value: f"{value:.6g}", na_rep="")]
        problems = self.slices["problem"].dropna()
        for key, problem in problems.items():
            lines.append(f"problem with {_slice_name(key)}: {problem}")  # type: ignore[arg-type]
        return "\n".join(lines)

    def __repr__(self) -> str:
        text = repr(self.rows)
        if len(self.slices):
            text += f"\n{self.describe_slices()}"
        if "arbitrage" in self.__dict__:
            text += f"\n{self.arbitrage.describe()}"
        return text


@dataclass(frozen=True, eq=False)
class OptionChain:
    """Quotes of one underlying at one time, cleaned, in canonical columns.

    A slice is one expiry and settlement: an AM- and a PM-settled contract of one date
    expire hours apart, and are two slices. `chain["2019-06-21"]` and
    `chain["2019-06-21", "PM"]` give the chain of one slice, as does iterating;
    `len(chain)` is the number of slices. A chain all of which has expired on its date
    has none; its rows, and the price of the underlying, are what a history settles on.

    Attributes:
        rows: Every row that was read, in canonical columns, with the user's index.
        codes: Shape `(rows,)`: 0 where a row is used, else the rule that dropped it, as
            in `relu_options.market_data.cleaning.RULES`, counted from 1.
        quote_time: When the quotes were taken, in UTC, if known.
        notes: What was assumed or found while reading.
        layout: Name of the layout that was recognised, if the chain was read.

    Examples:
        >>> from relu_options.market_data import read_chain
        >>> quotes = pd.DataFrame({
        ...     "contract": ["SPX190621P02800000", "SPX190621C02900000",
        ...                  "SPXW190621P02800000", "SPXW190621C02900000"],
        ...     "bid": [31.0, 26.0, 31.5, 26.5], "ask": [31.4, 26.3, 31.9, 26.8]})
        >>> chain = read_chain(quotes, quote_time="2019-05-17 16:15")
        >>> print(len(chain), "slices on", chain.underlying)
        2 slices on SPX
        >>> print(chain["2019-06-21", "PM"].table[["strike", "option_type", "bid"]])
           strike option_type   bid
        2  2800.0         put  31.5
        3  2900.0        call  26.5
        >>> chain.slices[0]
        (Timestamp('2019-06-21 00:00:00'), 'AM')
    """

    rows: pd.DataFrame = field(repr=False)
    codes: np.ndarray = field(repr=False)
    quote_time: pd.Timestamp | None
    notes: tuple[str, ...] = ()
    _only_slice: Slice | None = field(default=None, repr=False)
    layout: str | None = None

    @cached_property
    def table(self) -> pd.DataFrame:
        """The rows that are used, in canonical columns, with the user's index."""
        return self.rows.iloc[np.flatnonzero(self.codes == 0)]

    def to_frame(self) -> pd.DataFrame:
        """The rows that are used: `table`, as a copy."""
        return self.table.copy()

    @cached_property
    def _positions(self) -> dict[Slice, np.ndarray]:
        """Positions in `rows` of each slice, slices in the order of their expiries."""
        rows = self.rows
        if self._only_slice is not None:
            return {self._only_slice: np.arange(len(rows))}
        if rows["expiry"].notna().any():
            keys = [rows["expiry"], rows["settlement"]]
        else:
            keys = [rows["time_to_expiry"], rows["settlement"].fillna("")]
        codes, _ = pd.factorize(pd.MultiIndex.from_arrays(keys))
        usable = self.codes == 0
        found: dict[Slice, np.ndarray] = {}
        for code in np.unique(codes[usable & (codes >= 0)]):
            positions = np.flatnonzero(codes == code)
            first, second = (key.iloc[positions[0]] for key in keys)
            found[first, second or None] = positions
        return dict(sorted(found.items(), key=lambda item: _slice_order(item[0])))

    @property
    def slices(self) -> list[Slice]:
        """Expiry and settlement of each slice, in their order."""
        return list(self._positions)

    @property
    def underlying(self) -> str | None:
        """What the options are written on, if known."""
        names = self.rows["underlying"].dropna()
        return None if names.empty else str(names.iloc[0])

    @property
    def time_to_expiry(self) -> float:
        """Years to the expiry of a chain of one slice.

        Raises:
            QuoteError: If there are several slices.
        """
        first = self.single_slice().table.iloc[0]
        given = "time_to_expiry" in first and first["time_to_expiry"] > 0.0
        if given or self.quote_time is None:
            return float(first["time_to_expiry"])
        return years_between(self.quote_time, first["expiry_time"])

    def single_slice(self) -> "OptionChain":
        """The chain itself, if it has one slice.

        Raises:
            QuoteError: If it has several, naming them, or none.
        """
        self.require_slices()
        if len(self) != 1:
            shown = ", ".join(_slice_name(key) for key in self.slices[:3])
            raise QuoteError(
                f"{len(self)} slices where one expiry is needed: {shown}, ...; select "
                "one, as `chain[expiry]` or `chain[expiry, settlement]`"
            )
        return self

    def require_slices(self) -> None:
        """Raise if there is nothing to fit.

        Raises:
            QuoteError: If all quotes have expired.
        """
        if not len(self):
            raise QuoteError(
                f"all {len(self.rows):,} rows have expired: there is nothing to fit, "
                "and only a history settles on this chain; choose an earlier quote time"
            )

    def _select(self, key: Slice) -> "OptionChain":
        positions = self._positions[key]
        return OptionChain(
            self.rows.iloc[positions],
            self.codes[positions],
            self.quote_time,
            self.notes,
            key,
            self.layout,
        )

    def __len__(self) -> int:
        return len(self._positions)

    def __iter__(self) -> "Iterator[OptionChain]":
        return (self._select(key) for key in self._positions)

    def __getitem__(self, key: object) -> "OptionChain":
        expiry, settlement = key if isinstance(key, tuple) else (key, None)
        if isinstance(expiry, float):
            matches = [one for one in self.slices if _same_time(one[0], expiry)]
            name = f"{expiry:.6g}"
        else:
            date = as_date(expiry)
            name = f"{date:%Y-%m-%d}"
            matches = [one for one in self.slices if one[0] == date]
        if settlement is not None:
            matches = [one for one in matches if one[1] == settlement]
            name += f" {settlement}"
        if len(matches) > 1:
            clocks = [str(one[1]) for one in matches]
            choices = " or ".join(f"chain['{name}', '{clock}']" for clock in clocks)
            raise KeyError(
                f"{name} has contracts settled {' and '.join(clocks)}; choose {choices}"
            )
        if not matches:
            raise KeyError(f"no slice {name}; {self._nearest(expiry)}")
        return self._select(matches[0])

    def _nearest(self, expiry: object) -> str:
        """The slices next to one that is not there, for the message."""
        keys = self.slices
        if not keys:
            return "all have expired"
        target = expiry if isinstance(expiry, float) else as_date(expiry)
        if not all(isinstance(one[0], type(target)) for one in keys):
            return f"slices are {', '.join(_slice_name(one) for one in keys[:3])}, ..."
        near = sorted(keys, key=lambda one: abs(one[0] - target))[:3]  # type: ignore[operator]
        return f"the nearest are {', '.join(_slice_name(one) for one in sorted(near))}"

    def report(self) -> ChainReport:
        """What became of every row, and the forward and discount factor of each slice.

        Rows are dropped by their own values when a chain is read; here, each slice is
        prepared as a fit would, which also sets aside in-the-money quotes and drops
        those outside of their bounds.

        Examples:
            >>> from relu_options.market_data import bundled_chain
            >>> report = bundled_chain().report()
            >>> print(report.rows.rows_in, report.rows.rows_used, report.rows.counts)
            1238 619 {'in_the_money': 619}
        """
        codes = self.codes.copy()
        lines = []
        notes: dict[str, list[str]] = {}
        for key, positions in self._positions.items():
            used = positions[self.codes[positions] == 0]
            line: dict[str, object] = {"rows": len(positions), "problem": None}
            try:
                prepared = prepare_quotes(self._select(key))
            except QuoteError as error:
                line["problem"] = str(error)
                line["used"] = 0
                codes[used] = RULE_CODES["unusable_slice"]
            else:
                codes[used] = prepared.report.codes
                parity = prepared.parity
                years = prepared.time_to_expiry
                line |= {
                    "used": len(prepared),
                    "time_to_expiry": years,
                    "forward": prepared.forward,
                    "discount_factor": prepared.discount_factor,
                    "rate": np.log(1.0 / prepared.discount_factor) / years,
                }
                if parity is not None:
                    line |= {
                        "forward_standard_error": parity.forward_standard_error,
                        "discount_standard_error": parity.discount_standard_error,
                        "pairs": parity.pairs,
                    }
                for note in prepared.report.notes:
                    notes.setdefault(note, []).append(_slice_name(key))
            lines.append(line)
        slices = pd.DataFrame(
            lines,
            index=pd.MultiIndex.from_tuples(self.slices, names=["expiry", "settlement"])
            if self.slices
            else pd.MultiIndex.from_arrays([[], []], names=["expiry", "settlement"]),
            columns=[
                "time_to_expiry",
                "forward",
                "forward_standard_error",
                "discount_factor",
                "discount_standard_error",
                "rate",
                "pairs",
                "rows",
                "used",
                "problem",
            ],
        )
        all_notes = (*self.notes, *_merge_notes(notes, len(self)))
        report = quote_report(self.rows, codes, all_notes)
        return ChainReport(report, slices, all_notes, self)

    def __repr__(self) -> str:
        taken = (
            ""
            if self.quote_time is None
            else f" at {self.quote_time:%Y-%m-%d %H:%M} UTC"
        )
        keys = self.slices
        span = f"1 slice, {_slice_name(keys[0])}" if keys else "all expired"
        if len(keys) > 1:
            span = (
                f"{len(keys)} slices from {_slice_name(keys[0])} "
                f"to {_slice_name(keys[-1])}"
            )
        dropped = int(np.count_nonzero(self.codes))
        bad = f" ({dropped:,} of {len(self.codes):,} rows dropped)" if dropped else ""
        return (
            f"OptionChain({self.underlying or 'options'}{taken}: "
            f"{len(self.table):,} quotes{bad}, {span})"
        )


def _merge_notes(notes: dict[str, list[str]], slices: int) -> list[str]:
    """Notes with the slices that they concern; those that differ in figures are one.

    Such a note shows the figures of the first of its slices, and says so.
    """
    alike: dict[str, dict[str, list[str]]] = {}
    for note, where in notes.items():
        alike.setdefault(re.sub(r"[\d.,]+", "", note), {})[note] = where
    merged = []
    for variants in alike.values():
        note = next(iter(variants))
        where = [name for names in variants.values() for name in names]
        more = f" and {len(where) - 2} more" if len(where) > 2 else ""
        place = "" if len(where) == slices else f"{', '.join(where[:2])}{more}: "
        if len(variants) > 1:
            place, note = f"{where[0]}: ", f"{note}; likewise in {len(where) - 1} more"
        merged.append(place + note)
    return merged


def quote_report(
    rows: pd.DataFrame, codes: np.ndarray, notes: tuple[str, ...]
) -> QuoteReport:
    """The report on canonical rows, given the rule that each falls under."""
    bid, ask = rows["bid"].to_numpy(), rows["ask"].to_numpy()
    if not (np.isfinite(bid) & np.isfinite(ask)).any():
        bid, ask = quoted_without_spread(rows), None
    types = rows["option_type"]
    is_call = (types == "call").to_numpy(dtype=bool, na_value=False)
    return QuoteReport(
        labels=rows.index,
        codes=codes,
        strike=rows["strike"].to_numpy(),
        bid=bid,
        ask=ask,
        is_call=is_call if types.notna().any() else None,
        notes=notes,
    )


def quoted_without_spread(rows: pd.DataFrame) -> np.ndarray:
    """Mids, or else implied volatilities, of canonical rows without bids and asks."""
    for name in ("mid", "implied_volatility"):
        if name in rows and rows[name].notna().any():
            return rows[name].to_numpy()
    return np.full(len(rows), np.nan)


def _slice_order(key: Slice) -> tuple:
    """Slices sort by expiry, AM before PM."""
    return key[0], key[1] or ""


def _same_time(first: object, second: float) -> bool:
    """Whether two times to expiry are one, to the minute."""
    return isinstance(first, float) and abs(first - second) < 1e-6


def _slice_name(key: Slice) -> str:
    """A slice as text: "2019-06-21 AM", "0.25 years"."""
    expiry, settlement = key
    if isinstance(expiry, pd.Timestamp):
        known = isinstance(settlement, str)
        return f"{expiry:%Y-%m-%d} {settlement}" if known else f"{expiry:%Y-%m-%d}"
    return f"{expiry:.6g} years"

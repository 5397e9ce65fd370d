"""An option chain: the quotes of one underlying at one time, slice by slice."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd

from relu_options.errors import QuoteError
from relu_options.market_data.cleaning import (
    RULE_CODES,
    Kernel,
    QuotedRows,
    QuoteReport,
    TradingLimits,
    nothing_left,
    strikes_cleaned_again,
)
from relu_options.market_data.clocks import (
    as_date,
    expiry_label,
    utc_time,
    years_between,
)
from relu_options.market_data.expiry_quotes import ExpiryQuotes
from relu_options.market_data.rates import (
    MarketTerms,
    RateCurve,
    SliceTerms,
    own_rate,
)

if TYPE_CHECKING:
    from relu_options.arbitrage.check import QuoteCheck

Slice: TypeAlias = tuple[pd.Timestamp | float, str | None]
"""Expiry and settlement; where a source has no dates, years to expiry and None."""

_PERIOD = r"\s*(\d{4})(?:-(\d{2}))?\s*"  # a year, or a month of one
_SHOWN = 3


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
        >>> from relu_options.simulation import bundled_chain
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
        from relu_options.arbitrage.check import check_quotes

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
            >>> from relu_options.simulation import bundled_chain
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
            lines.append(f"problem with {expiry_label(*key)}: {problem}")  # type: ignore[arg-type]
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

    Several of them make a chain too: `chain["2019-06":"2019-12"]`, `chain["2019-06"]`
    for a month, and `chain[["2019-06-21", ("2019-09-20", "PM")]]`.

    Attributes:
        rows: Every row that was read, in canonical columns, with the user's index.
        codes: Shape `(rows,)`: 0 where a row is used, else the rule that dropped it, as
            in `relu_options.market_data.cleaning.RULES`, counted from 1.
        quote_time: When the quotes were taken, in UTC, if known.
        notes: What was assumed or found while reading.
        layout: Name of the layout that was recognised, if the chain was read.
        strange_types: Option types that were not understood, where none was.
        expiry_given: Whether the user, not the source, said when the options expire.
        kernel: The law of the underlying, if the user said it, or "auto".

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
    strange_types: tuple[str, ...] = ()
    expiry_given: bool = False
    kernel: Kernel = "auto"
    # The chain that this was selected from, whose other slices may lend their rates.
    _whole: "OptionChain | None" = field(default=None, repr=False)

    @cached_property
    def table(self) -> pd.DataFrame:
        """The rows that are used, in canonical columns, with the user's index."""
        return self.rows.iloc[np.flatnonzero(self.codes == 0)]

    def to_frame(self) -> pd.DataFrame:
        """The rows that are used, as a copy: `table`, with times as text.

        They are in UTC, as ISO 8601 has it, for spreadsheets hold no time zones:
        `read_chain` makes the same chain of the frame, or of an Excel file of it.
        """
        frame = self.table.copy()
        for name in ("quote_time", "expiry_time"):
            codes, unique = pd.factorize(frame[name])
            texts = pd.Series([time.isoformat() for time in unique], dtype="str")
            frame[name] = texts.reindex(codes).set_axis(frame.index)
        return frame

    @cached_property
    def positions(self) -> dict[Slice, np.ndarray]:
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
        order = sorted(found, key=lambda key: (key[0], key[1] or ""))  # AM before PM
        return {key: found[key] for key in order}

    @property
    def slices(self) -> list[Slice]:
        """Expiry and settlement of each slice, in their order."""
        return list(self.positions)

    @property
    def label(self) -> str:
        """The slices as text: "2019-06-21 AM"."""
        keys = [expiry_label(*key) for key in self.slices]
        return keys[0] if len(keys) == 1 else f"{keys[0]} to {keys[-1]}"

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
        stated = self._first("time_to_expiry")
        if isinstance(stated, float) and stated > 0.0:
            return stated
        return self.dated_time_to_expiry

    @property
    def dated_time_to_expiry(self) -> float:
        """Years from quote time to expiry; NaN where there are no dates.

        Raises:
            QuoteError: If there are several slices.
        """
        end = self._first("expiry_time")
        if self.quote_time is None or not isinstance(end, pd.Timestamp):
            return np.nan
        return years_between(self.quote_time, end)

    def _first(self, name: str) -> object:
        """A value of the first row of a single slice that is used; None if absent."""
        rows = self.single_slice().rows
        if name not in rows:
            return None
        value = rows[name].iloc[int(np.argmin(self.codes != 0))]
        return None if pd.isna(value) else value

    def single_slice(self) -> "OptionChain":
        """The chain itself, if it has one slice.

        Raises:
            QuoteError: If it has several, naming them, or none.
        """
        self.require_slices()
        if len(self) == 1:
            return self
        keys = self.slices
        ends = list(dict.fromkeys(key[0] for key in keys))
        what = "expiries" if isinstance(ends[0], pd.Timestamp) else "times to expiry"
        shown = ", ".join(expiry_label(end) for end in ends[:_SHOWN])
        if len(ends) == 1:
            what, ends = "settlements", [key[1] for key in keys]  # type: ignore[misc]
            what += f" ({' and '.join(map(str, ends))})"
            shown = ", ".join(expiry_label(*key) for key in keys[:_SHOWN])
        more = ", ..." if len(ends) > _SHOWN else ""
        raise QuoteError(
            f"{len(keys)} slices where one expiry is needed: {len(ends)} {what} in one "
            f"table of {len(self.rows):,} rows: {shown}{more}; select one, as "
            "`chain[expiry]` or `chain[expiry, settlement]` of what `read_chain` gives"
        )

    def require_slices(self) -> None:
        """Raise if there is nothing to fit.

        Raises:
            QuoteError: If all quotes have expired, or none can be used, with the rules.
        """
        if len(self):
            return
        if not self.has_ended:
            raise QuoteError(
                nothing_left(self.rows, self.codes, self.quote_time, self.notes)
            )
        raise QuoteError(
            f"all {len(self.rows):,} rows have expired: there is nothing to fit, and "
            "only a history settles on this chain; choose an earlier quote time"
        )

    @property
    def has_ended(self) -> bool:
        """Whether all has expired, the last of it within a day before the quotes."""
        ends = self.rows["expiry_time"].dropna()
        if self.quote_time is None or ends.empty:
            return False
        return bool(ends.max() <= self.quote_time < ends.max() + pd.Timedelta(days=1))

    def knowing(self, terms: MarketTerms, quote_time: object = None) -> "OptionChain":
        """The chain with what a user knows of its market, and of when it was quoted.

        Examples:
            >>> from relu_options.simulation import bundled_chain
            >>> known = bundled_chain().knowing(MarketTerms(rate=0.04))
            >>> years = known["2025-06-20"].time_to_expiry
            >>> prepared = ExpiryQuotes.of(known["2025-06-20"])
            >>> bool(np.isclose(prepared.discount_factor, np.exp(-0.04 * years)))
            True
        """
        rows, codes, stamp, notes = self.rows, self.codes, self.quote_time, self.notes
        if quote_time is not None:
            stamp, note = utc_time(quote_time)
            notes = (*notes, note) if note else notes
            if rows["expiry"].notna().any():
                rows = rows.drop(columns="time_to_expiry", errors="ignore")
            times = pd.Series(stamp, index=rows.index).astype("datetime64[us, UTC]")
            rows = rows.assign(quote_time=times)
            ended = (rows["expiry_time"] <= stamp).to_numpy(dtype=bool)
            codes = np.where((codes == 0) & ended, RULE_CODES["expired"], codes)
            if codes.all():
                raise QuoteError(nothing_left(rows, codes, stamp))
        rows = terms.applied(rows, stamp)
        kernel = self.kernel if terms.kernel == "auto" else terms.kernel
        anew = terms.is_signed and self.kernel != "normal"
        if anew and QuotedRows.of(rows).kind == "volatility":
            raise QuoteError(
                "the volatilities of the chain were read as lognormal ones; if they "
                "are normal, pass `kernel='normal'` to `read_chain`"
            )
        codes, said = strikes_cleaned_again(codes, rows, stamp, kernel)
        return replace(
            self,
            rows=rows,
            codes=codes,
            quote_time=stamp,
            notes=tuple(dict.fromkeys((*notes, *said))),
            kernel=kernel,
            _only_slice=None if terms.time_to_expiry is not None else self._only_slice,
            _whole=None,
        )

    def within(self, limits: TradingLimits) -> "OptionChain":
        """The chain with what misses limits on trading set aside.

        Raises:
            QuoteError: If no row says what a limit needs.
        """
        codes = self.codes.copy()
        limits.mark(codes, self.rows, self.quote_time)
        return replace(self, codes=codes)

    def borrowed_rates(self) -> RateCurve:
        """The curve of the rates that slices tell, of the chain this is a part of."""
        return (self if self._whole is None else self._whole)._rates

    @cached_property
    def _rates(self) -> RateCurve:
        found = []
        for one in self:
            rows, codes = one.rows, one.codes
            try:
                terms = SliceTerms.of(
                    rows,
                    np.flatnonzero(codes == 0),
                    time_to_expiry=one.time_to_expiry,
                    dated=np.nan,
                    kernel=one.kernel,
                )
                told = own_rate(terms, QuotedRows.of(rows), codes)
            except (QuoteError, ValueError):
                continue  # its own preparation says why
            if told is not None:
                found.append((terms.time_to_expiry, *told))
        return RateCurve(*np.array(found).reshape(-1, 3).T)

    def _select(self, *keys: Slice) -> "OptionChain":
        """The chain of some of its slices."""
        parts = [self.positions[key] for key in keys]
        positions = parts[0] if len(parts) == 1 else np.sort(np.concatenate(parts))
        return replace(
            self,
            rows=self.rows.iloc[positions],
            codes=self.codes[positions],
            _only_slice=keys[0] if len(keys) == 1 else None,
            _whole=self if self._whole is None else self._whole,
        )

    def __len__(self) -> int:
        return len(self.positions)

    def __iter__(self) -> "Iterator[OptionChain]":
        return (self._select(key) for key in self.positions)

    def __getitem__(self, key: object) -> "OptionChain":
        if isinstance(key, slice):
            return self._select(*self._between(key))
        if isinstance(key, list | np.ndarray | pd.Index):
            chosen = dict.fromkeys(one for each in key for one in self[each].slices)
            if not chosen:
                raise KeyError(f"no expiry is named; {self._nearest(None)}")
            return self._select(*chosen)
        expiry, settlement = key if isinstance(key, tuple) else (key, None)
        if isinstance(expiry, str) and re.fullmatch(_PERIOD, expiry):
            matches, near = self._between(slice(expiry, expiry)), self._days(expiry)[0]
            return self._select(*self._settled(matches, expiry, settlement, near))
        return self._select(self._one(expiry, settlement))

    def _one(self, expiry: object, settlement: object) -> Slice:
        """The slice of a date or a time to expiry, which has to name but one."""
        if isinstance(expiry, float):
            matches = [one for one in self.slices if _same_time(one[0], expiry)]
        else:
            expiry = self._date(expiry)
            matches = [one for one in self.slices if one[0] == expiry]
        name = expiry_label(expiry)
        matches = self._settled(matches, name, settlement, expiry)
        if len(matches) > 1:
            said = expiry if isinstance(expiry, float) else name
            raise KeyError(_choices(name, said, [str(one[1]) for one in matches]))
        return matches[0]

    def _settled(
        self, matches: list[Slice], name: str, settlement: object, near: object
    ) -> list[Slice]:
        """Those of a settlement, if one is named; an error names the nearest."""
        if settlement is not None:
            matches = [one for one in matches if one[1] == settlement]
            name = f"{name} {settlement}"
        if not matches:
            raise KeyError(f"no slice {name}; {self._nearest(near)}")
        return matches

    def _date(self, key: object) -> pd.Timestamp:
        """A key as a date, or an error that says what keys look like."""
        try:
            date = as_date(key)
        except QuoteError:
            date = pd.NaT
        if not pd.isna(date):
            return date
        raise KeyError(
            f"{key!r} is no expiry: keys are dates such as '2019-06-21', with a "
            "settlement such as ('2019-06-21', 'AM'), months such as '2019-06', "
            "slices and lists of these, or years to expiry such as 0.25 where "
            f"there are no dates; {self._nearest(None)}"
        )

    def _between(self, period: slice) -> list[Slice]:
        """The slices from one date, month or time to another, both included."""
        if period.step is not None:
            raise KeyError(f"slices of expiries have no step, such as {period.step!r}")
        start, stop = period.start, period.stop
        low, high = self._limits(start, stop)
        kind = type(low)
        chosen = [one for one in self.slices if isinstance(one[0], kind)]
        chosen = [one for one in chosen if low <= one[0] <= high]
        if not chosen:
            name = f"in {start}" if start == stop else f"from {start} to {stop}"
            near = start if stop is None else stop
            near = self._days(near)[0] if isinstance(near, str) else near
            raise KeyError(f"no slice {name}; {self._nearest(near)}")
        return chosen

    def _limits(self, start: Any, stop: Any) -> tuple[Any, Any]:
        """From where to where two keys reach, which are times or dates."""
        if isinstance(start, float) or isinstance(stop, float):
            return -np.inf if start is None else start, np.inf if stop is None else stop
        low = pd.Timestamp.min if start is None else self._days(start)[0]
        high = pd.Timestamp.max if stop is None else self._days(stop)[1]
        return low, high

    def _days(self, key: object) -> tuple[pd.Timestamp, pd.Timestamp]:
        """The first and the last day of a key that is a date, a month or a year."""
        found = re.fullmatch(_PERIOD, key) if isinstance(key, str) else None
        if found is None:
            return self._date(key), self._date(key)
        first = self._date(f"{found[1]}-{found[2] or '01'}-01")
        months = pd.DateOffset(months=1 if found[2] else 12)
        return first, first + months - pd.Timedelta(days=1)

    def _nearest(self, expiry: object) -> str:
        """The slices next to one that is not there, for the message."""
        keys = self.slices
        if not keys:
            return "all have expired" if self.has_ended else "no row can be used"
        target = expiry if isinstance(expiry, float) else None
        if expiry is not None and target is None:
            target = as_date(expiry)
        if not all(isinstance(one[0], type(target)) for one in keys):
            shown = ", ".join(expiry_label(*one) for one in keys[:_SHOWN])
            return f"slices are {shown}, ..."
        near = sorted(keys, key=lambda one: abs(one[0] - target))[:_SHOWN]  # type: ignore[operator]
        return (
            f"the nearest are {', '.join(expiry_label(*one) for one in sorted(near))}"
        )

    def report(self) -> ChainReport:
        """What became of every row, and the forward and discount factor of each slice.

        Rows are dropped by their own values when a chain is read; here, each slice is
        prepared as a fit would, which also sets aside in-the-money quotes and drops
        those outside of their bounds.

        Examples:
            >>> from relu_options.simulation import bundled_chain
            >>> report = bundled_chain().report()
            >>> print(report.rows.rows_in, report.rows.rows_used, report.rows.counts)
            1238 619 {'in_the_money': 619}
        """
        codes = self.codes.copy()
        lines: list[dict[str, object]] = []
        notes: dict[str, list[str]] = {}
        for key, positions in self.positions.items():
            one = self._select(key)
            line: dict[str, object] = {"rows": len(positions), "problem": None}
            try:
                prepared = ExpiryQuotes.of(one)
            except QuoteError as error:
                line |= {"problem": str(error), "used": 0}
                unusable = positions[self.codes[positions] == 0]
                codes[unusable] = RULE_CODES["unusable_slice"]
            else:
                codes[positions] = prepared.report.codes
                line |= _line(prepared)
                for note in prepared.report.notes:
                    notes.setdefault(note, []).append(one.label)
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
        report = QuoteReport.of(self.rows, codes, all_notes)
        return ChainReport(report, slices, all_notes, self)

    def __repr__(self) -> str:
        taken = (
            ""
            if self.quote_time is None
            else f" at {self.quote_time:%Y-%m-%d %H:%M} UTC"
        )
        span = f"1 slice, {self.label}" if len(self) else self._nearest(None)
        if len(self) > 1:
            span = f"{len(self)} slices from {self.label}"
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


def _choices(name: str, key: object, clocks: list[str]) -> str:
    """That contracts of one date are settled on several clocks, and how to choose."""
    choices = " or ".join(f"chain[{key!r}, {clock!r}]" for clock in clocks)
    return f"{name} has contracts settled {' and '.join(clocks)}; choose {choices}"


def _line(prepared: ExpiryQuotes) -> dict[str, object]:
    """What a report on slices says of one."""
    years, parity = prepared.time_to_expiry, prepared.parity
    line: dict[str, object] = {
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
    return line


def _same_time(first: object, second: float) -> bool:
    """Whether two times to expiry are one, to the minute."""
    return isinstance(first, float) and abs(first - second) < 1e-6

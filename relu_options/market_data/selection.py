"""Which rows of a source make one chain: one quote time, one underlying."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from relu_options.errors import QuoteError
from relu_options.market_data.clocks import (
    MARKET_CLOSE,
    as_date,
    utc_time,
)

_SHOWN_DATES = 31
_SAME_CONTRACT = ["root", "expiry", "settlement", "strike", "option_type"]


@dataclass(frozen=True, eq=False)
class Selection:
    """Rows of a source that make one chain.

    Attributes:
        positions: Of the rows.
        superseded: Shape of `positions`: rows whose contract has a later quote.
        quote_time: In UTC, if known.
        restamped: Whether it is not the table's own: expiries then decide over years.
        notes: For the report.
    """

    positions: np.ndarray
    superseded: np.ndarray
    quote_time: pd.Timestamp | None
    restamped: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wanted:
    """Which chain a user asks for.

    Attributes:
        quote_time: When the quotes were taken.
        date: The day on which they were taken.
        underlying: What the options are written on.
        path_date: The date in the path of the source, if any.
        inferred: Whether the source's own quote time is only implied.
        timezone: Of days, and of times without one.
    """

    quote_time: object = None
    date: object = None
    underlying: str | None = None
    path_date: pd.Timestamp | None = None
    inferred: bool = False
    timezone: str = "America/New_York"

    def day(self) -> pd.Timestamp | None:
        """The day asked for, if any."""
        return None if self.date is None else as_date(self.date)

    def stamp(self) -> tuple[pd.Timestamp | None, str | None]:
        """The time asked for, in UTC, and what was assumed; a day means its close."""
        asked = self.quote_time if self.quote_time is not None else self.day()
        return (None, None) if asked is None else utc_time(asked, self.timezone)


def select_one(table: pd.DataFrame, wanted: Wanted) -> Selection:
    """The rows of the one chain that is asked for.

    Raises:
        QuoteError: If there are several quote dates or underlyings and none is chosen,
            or the one chosen is not there; the message lists them. And if expiries are
            dates, and the quote time is unknown.
    """
    chosen, notes = _of_underlying(table, wanted.underlying)
    times = table["quote_time"].iloc[chosen]
    stamp, note = wanted.stamp()
    if note and (wanted.quote_time is not None or times.isna().all()):
        notes.append(note)
    if times.isna().all():
        return _undated(table, chosen, stamp, wanted, notes)
    days = _local_days(times, wanted.timezone)
    counts = days.value_counts().sort_index()
    only, day = counts.index[0], wanted.day()
    if day is None and stamp is not None and len(counts) > 1:
        day = stamp.tz_convert(wanted.timezone).tz_localize(None).normalize()
    if len(counts) > 1:
        if day is None:
            raise QuoteError(
                f"{len(counts)} quote dates in one table: {_shown_days(counts)}; "
                "choose one with `date=`, or read all with `read_chains`"
            )
        if day not in counts.index:
            raise QuoteError(f"no quotes of {day:%Y-%m-%d}; {_shown_days(counts)}")
        chosen = chosen[(days == day).to_numpy()]
        notes.append(f"quotes of {day:%Y-%m-%d}, one of {len(counts)} dates")
    elif wanted.date is not None and day != only:
        _check_only_day(day, only, wanted, notes)
    elif wanted.path_date is not None and wanted.path_date != only:
        notes.append(
            f"the path says {wanted.path_date:%Y-%m-%d}, but the quotes are of "
            f"{only:%Y-%m-%d}"
        )
    if wanted.quote_time is None and wanted.date is not None:
        kept = len(counts) > 1 or day in (only, wanted.path_date)
        stamp = None if kept else stamp
    return _latest(table, chosen, stamp, notes)


def select_all(table: pd.DataFrame, wanted: Wanted) -> Iterator[tuple[str, Selection]]:
    """The rows of each chain: of each quote date and underlying, in their order."""
    days = _local_days(table["quote_time"], wanted.timezone)
    keys = pd.DataFrame({"day": days, "underlying": table["underlying"]})
    groups = keys.reset_index(drop=True).groupby(
        ["day", "underlying"], dropna=False, sort=True
    )
    stamp, note = wanted.stamp()
    for (day, name), positions in groups.indices.items():  # type: ignore[misc]
        shown = wanted.path_date if pd.isna(day) else day
        known = ["" if shown is None else f"{shown:%Y-%m-%d}"]
        known += ["" if pd.isna(name) else str(name)]
        label = " ".join(filter(None, known)) or "undated"
        if wanted.underlying is not None and not _is_named(name, wanted.underlying):
            continue
        chosen = np.asarray(positions)
        notes = [note] if note else []
        if pd.isna(day):
            yield label, _undated(table, chosen, stamp, wanted, notes)
        else:
            yield label, _latest(table, chosen, None, [])


def _undated(
    table: pd.DataFrame,
    chosen: np.ndarray,
    stamp: pd.Timestamp | None,
    wanted: Wanted,
    notes: list[str],
) -> Selection:
    """Rows without a quote time: it is the one asked for, or the path's date."""
    dated = bool(table["expiry"].iloc[chosen].notna().any())
    years_known = "time_to_expiry" in table
    if stamp is None and dated and not years_known:
        if wanted.path_date is None:
            raise QuoteError(
                "the source does not say when the quotes were taken; pass "
                "`quote_time=`, such as '2019-05-17 16:15' (New York), or name its "
                "column with `columns={'quote_time': ...}`; for one expiry, "
                "`time_to_expiry=` in years will do"
            )
        stamp, note = _close_before(wanted.path_date, wanted.timezone)
        notes.append(note)
    none = np.zeros(len(chosen), dtype=bool)
    return Selection(chosen, none, stamp, stamp is not None, tuple(notes))


def _close_before(date: pd.Timestamp, timezone: str) -> tuple[pd.Timestamp, str]:
    """The last close at the end of a date: that of Friday at weekends."""
    closed = 0 if timezone == "UTC" else max(0, date.weekday() - 4)
    day = date - pd.Timedelta(days=closed)
    stamp = (day + MARKET_CLOSE).tz_localize(timezone).tz_convert("UTC")
    return stamp, (
        f"the path says {date:%Y-%m-%d}: quote time taken as the close of "
        f"{day:%A} {day:%Y-%m-%d}; pass `quote_time=` if you know it"
    )


def _of_underlying(
    table: pd.DataFrame, asked: str | None
) -> tuple[np.ndarray, list[str]]:
    """Positions of the rows on the one underlying, or the one asked for."""
    names = table["underlying"]
    counts = names.value_counts()
    if asked is not None and len(counts):
        rows = np.array([_is_named(name, asked) for name in names.tolist()], dtype=bool)
        if not rows.any():
            raise QuoteError(f"no options on {asked!r}; {_shown_names(counts)}")
        others = len(rows) - int(rows.sum())
        notes = [f"{others:,} rows on other underlyings left aside"] if others else []
        return np.flatnonzero(rows), notes
    if len(counts) > 1:
        raise QuoteError(
            f"{len(counts)} underlyings in one table of {len(names):,} rows: "
            f"{_shown_names(counts)}; choose one with `underlying=`, or read all with "
            "`read_chains`"
        )
    return np.arange(len(table)), []


def _is_named(name: object, asked: str) -> bool:
    """Whether an underlying is the one asked for, whatever the case."""
    return isinstance(name, str) and name.upper() == asked.lstrip("^$").upper()


def _shown_names(counts: pd.Series) -> str:
    """The most frequent underlyings, with their numbers of rows."""
    shown = ", ".join(f"{name} ({count:,})" for name, count in counts[:10].items())
    return shown + (", ..." if len(counts) > 10 else "")


def _shown_days(counts: pd.Series) -> str:
    """The dates there are; the first and last where they are many."""
    days = [f"{day:%Y-%m-%d}" for day in counts.index]
    if len(days) > _SHOWN_DATES:
        days = [*days[:10], "...", *days[-3:]]
    return ", ".join(days)


def _local_days(times: pd.Series, timezone: str) -> pd.Series:
    """The day of each quote time in the market's own time."""
    return times.dt.tz_convert(timezone).dt.tz_localize(None).dt.normalize()


def _check_only_day(
    asked: pd.Timestamp | None, only: pd.Timestamp, wanted: Wanted, notes: list[str]
) -> None:
    """A date asked for that is not the table's: its path may say so, or its guess."""
    if wanted.path_date is not None and wanted.path_date == asked:
        notes.append(
            f"the path says {asked:%Y-%m-%d}, the quotes are of {only:%Y-%m-%d}"
        )
        return
    if wanted.inferred:
        notes.append(f"the source implies {only:%Y-%m-%d}: the date asked for decides")
        return
    raise QuoteError(f"no quotes of {asked:%Y-%m-%d}; {only:%Y-%m-%d} is the only date")


def _latest(
    table: pd.DataFrame,
    chosen: np.ndarray,
    stamp: pd.Timestamp | None,
    notes: list[str],
) -> Selection:
    """The last quote of each contract, not after the time asked for."""
    times = table["quote_time"].iloc[chosen]
    first, last = times.min(), times.max()
    superseded = np.zeros(len(chosen), dtype=bool)
    if first == last:
        return Selection(
            chosen, superseded, stamp or last, stamp is not None, tuple(notes)
        )
    if stamp is not None and first <= stamp < last:
        early = (times <= stamp).to_numpy(dtype=bool, na_value=False)
        notes.append(
            f"{int((~early).sum()):,} quotes after the time asked for left out"
        )
        chosen = chosen[early]
        times = times[early]
    rows = table.iloc[chosen]
    order = np.argsort((last - times.fillna(first)).to_numpy(), kind="stable")
    again = rows[_SAME_CONTRACT].iloc[order].duplicated().to_numpy()
    superseded = np.zeros(len(chosen), dtype=bool)
    superseded[order] = again
    latest = times.max()
    notes.append(
        f"quote times from {times.min():%H:%M} to {latest:%H:%M} UTC on one day: the "
        "last quote of each contract, all taken as of the last"
    )
    return Selection(
        chosen, superseded, stamp or latest, stamp is not None, tuple(notes)
    )


def split_notes(table: pd.DataFrame, timezone: str) -> list[str]:
    """Notes on dates between which strikes fall by a whole factor: splits."""
    days = _local_days(table["quote_time"], timezone)
    if days.nunique() < 2 or table["underlying"].nunique() > 1:
        return []
    middle = table["strike"].groupby(days.to_numpy()).median()
    ratios = (middle.shift(1) / middle).dropna()
    found = []
    for at, ratio in enumerate(ratios):
        whole = round(ratio) if ratio > 1.0 else round(1.0 / ratio)
        near = ratio if ratio > 1.0 else 1.0 / ratio
        if whole >= 2 and abs(near - whole) < 0.05 * whole:
            before, after = middle.index[at], middle.index[at + 1]
            kind = f"{whole}:1" if ratio > 1.0 else f"1:{whole}"
            found.append(
                f"strikes change by a factor of {ratio:.3g} between "
                f"{before:%Y-%m-%d} and {after:%Y-%m-%d}: a {kind} split"
            )
    return found

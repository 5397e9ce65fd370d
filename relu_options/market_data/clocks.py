"""When quotes were taken, when contracts expire, and the years between.

A year has 365 days, and time runs in minutes: a contract settled on the opening prices
(AM) of its expiry ends at 09:30 New York, one settled on the close (PM) at 16:00, or at
16:00 of another market's own time, and one on a coin at 08:00 UTC.
"""

import re
from functools import lru_cache

import numpy as np
import pandas as pd

from relu_options.errors import QuoteError

MARKET_TIMEZONE = "America/New_York"
COIN_SETTLEMENT = "08:00 UTC"
SETTLEMENT_TIMES = {
    "AM": pd.Timedelta(hours=9, minutes=30),
    "PM": pd.Timedelta(hours=16),
    COIN_SETTLEMENT: pd.Timedelta(hours=8),
}
MARKET_CLOSE = SETTLEMENT_TIMES["PM"]
MINUTES_PER_YEAR = 365 * 24 * 60

# Seconds since 1970 written as a number, by its digits: 1.6e9 s, 1.6e12 ms, ...
_EPOCH_UNITS = ((1e10, "s"), (1e13, "ms"), (1e16, "us"), (np.inf, "ns"))
_FIRST_YEAR = 1900  # of an expiry or a quote; an earlier one is no date
_EPOCH_LEAST = 1e8  # below it, a number is a date such as 20190621
_ZONE = r"(?:Z|UTC|[+-]\d{2}:?\d{2})\s*$"
_SLASHED = r"^\s*(\d{1,2})[/.-](\d{1,2})[/.-](\d{2,4})\b"


@lru_cache(maxsize=4096)
def expiry_time(
    expiry: pd.Timestamp, settlement: str = "PM", timezone: str = MARKET_TIMEZONE
) -> pd.Timestamp:
    """The instant at which a contract's payoff is fixed, in UTC.

    Args:
        expiry: The expiry, a date. Saturdays, on which US options expired on paper
            until 2015, stand for the Friday before, except for coins.
        settlement: "AM", "PM" or "08:00 UTC".
        timezone: The market's, for "AM" and "PM".

    Returns:
        09:30 (AM) or 16:00 (PM) of that date in the market's time, or 08:00 UTC.

    Examples:
        >>> print(expiry_time(pd.Timestamp("2019-06-21"), "AM"))
        2019-06-21 13:30:00+00:00
    """
    if settlement not in SETTLEMENT_TIMES:
        raise ValueError(
            f'`settlement` must be "AM", "PM" or "{COIN_SETTLEMENT}", '
            f"not {settlement!r}"
        )
    day = expiry.normalize()
    if settlement == COIN_SETTLEMENT:
        timezone = "UTC"
    elif day.weekday() == 5:
        day -= pd.Timedelta(days=1)
    local = day + SETTLEMENT_TIMES[settlement]
    return local.tz_localize(timezone).tz_convert("UTC")


def expiry_label(expiry: pd.Timestamp | float, settlement: str | None = None) -> str:
    """An expiry by name: its date and settlement, or the years to it.

    Examples:
        >>> expiry_label(pd.Timestamp("2019-06-21"), "AM"), expiry_label(0.25)
        ('2019-06-21 AM', '0.25 years')
    """
    if not isinstance(expiry, pd.Timestamp):
        return f"{expiry:.6g} years"
    known = isinstance(settlement, str)  # tables have NaN for what they do not know
    return f"{expiry:%Y-%m-%d}" + (f" {settlement}" if known else "")


def utc_time(
    time: object, timezone: str = MARKET_TIMEZONE
) -> tuple[pd.Timestamp, str | None]:
    """An instant in UTC, from what a user or a table calls a quote time.

    Args:
        time: Anything that `pandas.Timestamp` reads, a number such as 20190517, or
            seconds (milliseconds, ...) since 1970. A date, or midnight without a time
            zone, means that day's close, 16:00 in the market's time; another time
            without a zone is the market's time.
        timezone: The market's.

    Returns:
        The instant, and a note for the report where something was assumed.

    Raises:
        QuoteError: If `time` is not a time.

    Examples:
        >>> print(*utc_time("2019-05-17 16:15"), sep="; ")
        2019-05-17 20:15:00+00:00; quote time 2019-05-17 16:15 taken as New York time
        >>> print(*utc_time("2019-05-17T20:15Z"), sep="; ")
        2019-05-17 20:15:00+00:00; None
        >>> print(*utc_time(1558124100), sep="; ")
        2019-05-17 20:15:00+00:00; None
    """
    stamp = _quote_time(time, "write it as '2019-05-17 16:00'")
    if stamp is pd.NaT:
        raise QuoteError("the quote time is missing; pass `quote_time=`")
    if stamp.tzinfo is not None:
        return stamp.tz_convert("UTC"), None
    note = _zone_note(stamp, timezone)
    if stamp == stamp.normalize():
        stamp += MARKET_CLOSE
    return stamp.tz_localize(timezone).tz_convert("UTC"), note


def utc_times(
    column: pd.Series, timezone: str = MARKET_TIMEZONE
) -> tuple[pd.Series, list[str]]:
    """A column of quote times in UTC, each read as `utc_time` reads it, and notes.

    Raises:
        QuoteError: If a value is not a time.

    Examples:
        >>> times, notes = utc_times(pd.Series(["2019-05-17", None, "2019-05-20"]))
        >>> print(times.iloc[0], notes)
        2019-05-17 20:00:00+00:00 ['quote dates taken as their close, 16:00 New York']
    """
    codes, unique = pd.factorize(column)
    stamps = _parse_all(pd.Index(unique))
    notes = []
    if stamps.dt.tz is None:
        known = stamps.dropna()
        dates = stamps == stamps.dt.normalize()
        if dates.any():
            stamps = stamps.where(~dates, stamps + MARKET_CLOSE)
        if len(known) == 1:
            notes = [_zone_note(known.iloc[0], timezone)]
        elif len(known):
            place = _place(timezone)
            close = f"quote dates taken as their close, 16:00 {place}"
            notes = [close if dates.all() else f"quote times taken as {place} time"]
        stamps = stamps.dt.tz_localize(
            timezone, ambiguous=np.ones(len(stamps), dtype=bool), nonexistent="NaT"
        )
    stamps = stamps.dt.tz_convert("UTC").astype("datetime64[us, UTC]")
    if not len(stamps):
        return pd.Series(pd.NaT, column.index, dtype="datetime64[us, UTC]"), []
    result = stamps.take(np.maximum(codes, 0))
    result.index = column.index
    return result.where(codes >= 0), notes


def known_times(column: pd.Series, timezone: str = MARKET_TIMEZONE) -> pd.Series:
    """A column of times in UTC, missing where a value is not a time.

    Examples:
        >>> print(known_times(pd.Series(["2019-05-17 10:00", "-"])).iloc[0])
        2019-05-17 14:00:00+00:00
    """
    sound = column
    for _ in range(2):
        try:
            return utc_times(sound, timezone)[0]
        except QuoteError:  # as it is, or numbers that count from no known day
            parsed = pd.to_datetime(column, errors="coerce", format="mixed", utc=True)
            sound = column.where(parsed.notna())
    return pd.Series(pd.NaT, column.index, dtype="datetime64[us, UTC]")


def _parse_all(values: pd.Index) -> pd.Series:
    """Times as `pandas` reads them, with or without a zone; quick where all are ISO."""
    column = pd.Series(values)
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        return column
    if pd.api.types.is_numeric_dtype(column.dtype):
        numbers = column.astype("float64").abs().max() if len(column) else 0.0
        if _EPOCH_LEAST <= numbers < _EPOCH_UNITS[-1][0]:
            unit = next(name for limit, name in _EPOCH_UNITS if numbers < limit)
            return pd.to_datetime(column.astype("int64"), unit=unit, utc=True)  # type: ignore[call-overload]
    elif len(column):
        text = column.astype("str")
        try:
            zoned = bool(text.str.contains(_ZONE).all())
            return pd.to_datetime(text, format="ISO8601", utc=zoned)
        except (ValueError, OverflowError):
            pass
    remedy = (
        "name the column of quote times with `columns={'quote_time': ...}`, or pass "
        "`quote_time=`"
    )
    stamps = [_quote_time(value, remedy) for value in column.tolist()]
    if any(stamp.tzinfo is not None for stamp in stamps):
        stamps = [utc_time(stamp)[0] for stamp in stamps]
    return pd.Series(stamps) if stamps else pd.Series([], dtype="datetime64[us]")


def _quote_time(value: object, remedy: str) -> pd.Timestamp:
    """A timestamp, or an error that says what is not one, and what to do."""
    try:
        return _timestamp(value)
    except (TypeError, ValueError) as error:
        raise QuoteError(f"quote time {value!r} is not a time; {remedy}") from error


def _timestamp(value: object) -> pd.Timestamp:
    """What `pandas.Timestamp` reads, or 20190517, or a number since 1970 (in UTC)."""
    if isinstance(value, str) and re.fullmatch(r"\s*\d{9,}\s*", value):
        value = int(value)
    if isinstance(value, (int, float, np.integer, np.floating)) and value == value:
        if abs(value) < _EPOCH_LEAST:
            return pd.Timestamp(f"{value:.0f}")
        if not abs(value) < _EPOCH_UNITS[-1][0]:
            raise ValueError(f"{value!r} is beyond all times")
        unit = next(name for limit, name in _EPOCH_UNITS if abs(value) < limit)
        return pd.Timestamp(int(value), unit=unit, tz="UTC")  # type: ignore[arg-type]
    return pd.Timestamp(value)  # type: ignore[arg-type]


def _place(timezone: str) -> str:
    """A time zone as a reader would call it: "New York"."""
    return timezone.rsplit("/", 1)[-1].replace("_", " ")


def _zone_note(stamp: pd.Timestamp, timezone: str) -> str:
    """What is assumed of a time without a zone."""
    place = _place(timezone)
    if stamp == stamp.normalize():
        return f"quote date {stamp:%Y-%m-%d} taken as its close, 16:00 {place}"
    return f"quote time {stamp:%Y-%m-%d %H:%M} taken as {place} time"


def as_date(value: object, *, dayfirst: bool = False) -> pd.Timestamp:
    """A date without time or zone, from a date, a text or a number such as 20190621.

    Args:
        value: The date; a number above 1e8 counts seconds (or milliseconds, ...) since
            1970.
        dayfirst: Whether 05/06/2019 is the fifth of June.

    Raises:
        QuoteError: If `value` is not a date.

    Examples:
        >>> print(as_date("06/21/2019"), as_date(20190621), sep="; ")
        2019-06-21 00:00:00; 2019-06-21 00:00:00
    """
    try:
        written = re.match(_SLASHED, value) if isinstance(value, str) else None
        if written:
            first, second, year = (int(part) for part in written.groups())
            month, day = (second, first) if dayfirst else (first, second)
            return pd.Timestamp(year + 2000 if year < 100 else year, month, day)
        stamp = _timestamp(value)
    except (TypeError, ValueError) as error:
        raise QuoteError(f"{value!r} is not a date; write it as 2019-06-21") from error
    if stamp is pd.NaT:
        return stamp  # type: ignore[return-value]
    if stamp.year < _FIRST_YEAR:  # "June" is read as June of the year 1
        raise QuoteError(f"{value!r} is not a date; write it as 2019-06-21")
    return stamp.tz_localize(None).normalize()


def is_dayfirst(values: list) -> bool:
    """Whether dates such as 21/06/2019 or 21.06.2019 show that days come first.

    Examples:
        >>> is_dayfirst(["05/06/2019", "21/06/2019"]), is_dayfirst(["05/06/2019"])
        (True, False)
    """
    texts = [value for value in values if isinstance(value, str)]
    written = [re.match(_SLASHED, text) for text in texts]
    return any(one and int(one[1]) > 12 >= int(one[2]) for one in written)


def years_between(start: pd.Timestamp, end: pd.Timestamp) -> float:
    """Time from one instant to another, in years of 365 days, to the minute.

    Examples:
        >>> close = pd.Timestamp("2019-05-17 20:00", tz="UTC")
        >>> end = expiry_time(pd.Timestamp("2019-06-21"))
        >>> round(365 * years_between(close, end), 9)
        35.0
    """
    return round((end - start).total_seconds() / 60.0) / MINUTES_PER_YEAR

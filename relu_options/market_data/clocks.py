"""When quotes were taken, when contracts expire, and the years between.

A year has 365 days, and time runs in minutes: a contract settled on the opening prices
(AM) of its expiry ends at 09:30 New York, one settled on the close (PM) at 16:00.
"""

from functools import lru_cache

import pandas as pd

from relu_options.errors import QuoteError

MARKET_TIMEZONE = "America/New_York"
SETTLEMENT_TIMES = {
    "AM": pd.Timedelta(hours=9, minutes=30),
    "PM": pd.Timedelta(hours=16),
}
MARKET_CLOSE = SETTLEMENT_TIMES["PM"]
MINUTES_PER_YEAR = 365 * 24 * 60


@lru_cache(maxsize=4096)
def expiry_time(expiry: pd.Timestamp, settlement: str = "PM") -> pd.Timestamp:
    """The instant at which a contract's payoff is fixed, in UTC.

    Args:
        expiry: The expiry, a date. Saturdays, on which US options expired on paper
            until 2015, stand for the Friday before.
        settlement: "AM" or "PM".

    Returns:
        09:30 (AM) or 16:00 (PM) New York of that date, in UTC.

    Examples:
        >>> print(expiry_time(pd.Timestamp("2019-06-21"), "AM"))
        2019-06-21 13:30:00+00:00
    """
    if settlement not in SETTLEMENT_TIMES:
        raise ValueError(f'`settlement` must be "AM" or "PM", not {settlement!r}')
    day = expiry.normalize()
    if day.weekday() == 5:
        day -= pd.Timedelta(days=1)
    local = day + SETTLEMENT_TIMES[settlement]
    return local.tz_localize(MARKET_TIMEZONE).tz_convert("UTC")


def utc_time(time: object) -> tuple[pd.Timestamp, str | None]:
    """An instant in UTC, from what a user or a table calls a quote time.

    Args:
        time: Anything that `pandas.Timestamp` reads. A date, or midnight without a time
            zone, means that day's close, 16:00 New York; another time without a zone is
            a New York time.

    Returns:
        The instant, and a note for the report where something was assumed.

    Raises:
        QuoteError: If `time` is not a time.

    Examples:
        >>> print(*utc_time("2019-05-17 16:15"), sep="; ")
        2019-05-17 20:15:00+00:00; quote time 2019-05-17 16:15 taken as New York time
        >>> print(*utc_time("2019-05-17T20:15Z"), sep="; ")
        2019-05-17 20:15:00+00:00; None
    """
    try:
        stamp = pd.Timestamp(time)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise QuoteError(
            f"quote time {time!r} is not a time; write it as '2019-05-17 16:00'"
        ) from error
    if stamp is pd.NaT:
        raise QuoteError("the quote time is missing; pass `quote_time=`")
    if stamp.tzinfo is not None:
        return stamp.tz_convert("UTC"), None
    if stamp == stamp.normalize():
        note = f"quote date {stamp:%Y-%m-%d} taken as its close, 16:00 New York"
        stamp += MARKET_CLOSE
    else:
        note = f"quote time {stamp:%Y-%m-%d %H:%M} taken as New York time"
    return stamp.tz_localize(MARKET_TIMEZONE).tz_convert("UTC"), note


def as_date(value: object) -> pd.Timestamp:
    """A date without time or zone, from a date, a text or a number such as 20190621.

    Raises:
        QuoteError: If `value` is not a date.

    Examples:
        >>> print(as_date("06/21/2019"), as_date(20190621), sep="; ")
        2019-06-21 00:00:00; 2019-06-21 00:00:00
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = f"{value:.0f}"
    try:
        stamp = pd.Timestamp(value)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise QuoteError(f"{value!r} is not a date; write it as 2019-06-21") from error
    return stamp.tz_localize(None).normalize()


def years_between(start: pd.Timestamp, end: pd.Timestamp) -> float:
    """Time from one instant to another, in years of 365 days, to the minute.

    Examples:
        >>> close = pd.Timestamp("2019-05-17 20:00", tz="UTC")
        >>> end = expiry_time(pd.Timestamp("2019-06-21"))
        >>> round(365 * years_between(close, end), 9)
        35.0
    """
    return round((end - start).total_seconds() / 60.0) / MINUTES_PER_YEAR

"""LEAN, the engine of QuantConnect: archives of quotes, and its universe files.

An archive holds one file per contract, whose name says what it is; prices, and the
strike in the name, are in units of 1/10000.
"""

import re
import zipfile

import numpy as np
import pandas as pd

from relu_options.errors import QuoteError
from relu_options.market_data.layouts import Layout, LayoutRows, fill_bids
from relu_options.market_data.sources import ChainSource, path_date

_SCALE = 10_000.0
_MEMBER = re.compile(
    r"(?:(?P<day>\d{8})_)?(?P<underlying>[^_]+)_(?:(?:minute|second|tick)_)?quote_"
    r"(?P<style>american|european)_(?P<right>call|put)_(?P<strike>\d+)_(?P<expiry>\d{8})"
)
_SPLITS = (2, 3, 4, 5, 7, 8, 10, 15, 20)


def _is_archive(source: ChainSource) -> bool:
    """A zip whose members' names hold a contract."""
    return any(_MEMBER.search(name) for name in source.members[:3])


def _read_archive(source: ChainSource) -> LayoutRows:
    """The last quote of each contract on each day, closing bid and ask."""
    if source.path is None:
        raise ValueError("an archive needs a path")
    found: dict[str, list] = {name: [] for name in _FIELDS}
    with zipfile.ZipFile(source.path) as archive:
        for name in source.members:
            match = _MEMBER.search(name)
            if match is None:
                continue
            last: dict[str, list[str]] = {}
            for line in archive.read(name).decode("utf-8").splitlines():
                fields = line.split(",")
                if len(fields) >= 11:
                    last[_stamp(fields[0], match["day"])] = fields
            for stamp, fields in last.items():
                _append(found, match, stamp, fields)
    if not found["strike"]:
        raise QuoteError(f"{source.path} holds no quotes of contracts")
    rows = pd.DataFrame(found)
    for column in ("bid", "ask"):
        rows[column] = pd.to_numeric(rows[column], errors="coerce") / _SCALE
    rows["strike"] /= _SCALE
    notes = fill_bids(rows)
    rows.index = pd.Index(
        rows["underlying"]
        + " "
        + rows["expiry"]
        + " "
        + rows["strike"].map("{:.10g}".format)
        + " "
        + rows["option_type"]
    )
    rows["currency"] = "USD"
    note = f"LEAN: prices and strikes divided by {_SCALE:g}; the last quote of each day"
    return LayoutRows(rows, (note, *notes), us_listed=True)


_FIELDS = (
    "underlying",
    "expiry",
    "strike",
    "option_type",
    "exercise_style",
    "quote_time",
    "bid",
    "bid_size",
    "ask",
    "ask_size",
)


def _append(
    found: dict[str, list], match: re.Match, stamp: str, fields: list[str]
) -> None:
    """Add one quote: time, bid's open, high, low, close and size, ask's likewise."""
    values = (
        match["underlying"].upper(),
        match["expiry"],
        float(match["strike"]),
        match["right"],
        match["style"],
        stamp,
        fields[4],
        fields[5],
        fields[9],
        fields[10],
    )
    for name, value in zip(_FIELDS, values, strict=True):
        found[name].append(value)


def _stamp(time: str, day: str | None) -> str:
    """A date with its time; minute files count milliseconds since midnight."""
    if day is None or not time.isdigit():
        return f"{time[:4]}-{time[4:6]}-{time[6:]}"
    moment = pd.Timestamp(day) + pd.Timedelta(milliseconds=int(time))
    return f"{moment:%Y-%m-%d %H:%M:%S}"


def _is_universe(source: ChainSource) -> bool:
    """LEAN's daily list of contracts, its header behind a hash."""
    first = source.head[0] if source.head else ""
    return first.startswith("#expiry,strike,right")


def _read_universe(source: ChainSource) -> LayoutRows:
    """Closing prices of the contracts; the first line is the underlying's.

    On the day of a split the list holds every contract twice, with its strike before
    and after; those before are not standard any more.
    """
    table = source.read().rename(columns={"#expiry": "expiry"})
    about = table["strike"].isna() & table["right"].isna()
    price = table.loc[about, "close"]
    rows = table.loc[~about]
    rows = pd.DataFrame(
        {
            "expiry": rows["expiry"].map("{:.0f}".format),
            "strike": rows["strike"],
            "option_type": rows["right"],
            "mid": rows["close"],
            "volume": rows["volume"],
            "open_interest": rows["open_interest"],
        }
    )
    notes = []
    if len(price):
        rows["underlying_price"] = float(price.iloc[0])
    ratio = _split_ratio(rows)
    if ratio is not None:
        rows["nonstandard"] = _before_split(rows, ratio)
        count = int(rows["nonstandard"].sum())
        notes.append(
            f"{count:,} contracts are listed twice, with strikes {ratio} times those "
            "after a split; they are dropped"
        )
    rows["exercise_style"] = "american"
    rows["currency"] = "USD"
    return LayoutRows(rows, tuple(notes), path_date(source.path), us_listed=True)


def _split_ratio(rows: pd.DataFrame) -> int | None:
    """By which factor half of the strikes exceed those of the other half, or None."""
    for ratio in _SPLITS:
        before = _before_split(rows, ratio)
        if before.mean() > 0.4:
            return ratio
    return None


def _before_split(rows: pd.DataFrame, ratio: int) -> np.ndarray:
    """Rows whose contract is also listed at the strike divided by the ratio."""
    cents = np.round(100.0 * rows["strike"] / ratio).astype("int64")
    listed = pd.MultiIndex.from_arrays(
        [
            rows["expiry"],
            rows["option_type"],
            np.round(100.0 * rows["strike"]).astype("int64"),
        ]
    )
    wanted = pd.MultiIndex.from_arrays([rows["expiry"], rows["option_type"], cents])
    return np.asarray(wanted.isin(listed))


LAYOUTS = (
    Layout("lean universe", _is_universe, _read_universe),
    Layout("lean", _is_archive, _read_archive),
)

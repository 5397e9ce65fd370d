"""Expiries found by their labels, as `relu_options.market_data.clocks` writes them."""

import re
from collections.abc import Sequence
from datetime import date

import numpy as np
import pandas as pd

from relu_options.errors import QuoteError
from relu_options.market_data.clocks import SETTLEMENT_TIMES, as_date, expiry_label

NEAREST_SHOWN = 3
_DATED = re.compile(
    rf"(?!.*(?::|\dT\d))(.*\d{{4}}.*?|\d+/\d+/\d+)(?: ({'|'.join(SETTLEMENT_TIMES)}))?"
)
"""A date with its year but no time, and a settlement."""
_YEARS = re.compile(r"\d*\.\d+")


def numbered(labels: Sequence[str]) -> tuple[str, ...]:
    """The labels, those that occur more than once with their number behind them.

    Examples:
        >>> numbered(["2019-06-21", "2019-07-19", "2019-06-21"])
        ('2019-06-21 (1)', '2019-07-19', '2019-06-21 (2)')
    """
    seen: dict[str, int] = {}
    result = []
    for label in labels:
        seen[label] = seen.get(label, 0) + 1
        again = f" ({seen[label]})" if labels.count(label) > 1 else ""
        result.append(label + again)
    return tuple(result)


def find_expiry(labels: Sequence[str], key: object) -> int:
    """Position of the expiry that a key names.

    Args:
        labels: Of the expiries.
        key: A label; or the date alone, as text or as a date, if one expiry has it; or
            a pair of date and settlement.

    Raises:
        KeyError: If there is none, naming the nearest, or if there are several.

    Examples:
        >>> labels = ["2019-06-21 AM", "2019-06-21 PM", "2019-07-19 PM"]
        >>> find_expiry(labels, ("2019-06-21", "PM"))
        1
        >>> find_expiry(labels, pd.Timestamp("2019-07-19"))
        2
    """
    name = key if isinstance(key, str) and key in labels else _as_label(key)
    if name in labels:
        return labels.index(name)
    found = [label for label in labels if label.startswith(f"{name} ")]
    if len(found) == 1:
        return labels.index(found[0])
    if found:
        choices = " or ".join(map(repr, found))
        raise KeyError(f"{name} stands for {len(found)} expiries; choose {choices}")
    raise KeyError(f"no expiry {name}; {_nearest(labels, name)}")


def _as_label(key: object) -> str:
    """A key as the label that it would be."""
    if isinstance(key, tuple):
        return " ".join(_as_label(part) for part in key if part is not None)
    if isinstance(key, date | np.datetime64):  # a timestamp is a date
        return f"{as_date(key):%Y-%m-%d}"
    if isinstance(key, float | np.floating):
        return expiry_label(float(key))
    text = str(key).strip()
    if _YEARS.fullmatch(text):
        return expiry_label(float(text))
    written = _DATED.fullmatch(text)
    if written is None:
        return text
    try:
        return f"{as_date(written[1]):%Y-%m-%d} {written[2] or ''}".strip()
    except QuoteError:
        return text


def _nearest(labels: Sequence[str], name: str) -> str:
    """The expiries next to one that is not there, for the message."""
    if not labels:
        return "there are none"
    dates = [text[:10] for text in (*labels, name)]
    days = pd.to_datetime(dates, format="%Y-%m-%d", errors="coerce")
    if days.isna().any():
        more = ", ..." if len(labels) > NEAREST_SHOWN else ""
        return f"the labels are {', '.join(labels[:NEAREST_SHOWN])}{more}"
    apart = np.abs((days[:-1] - days[-1]).total_seconds())
    near = np.sort(np.argsort(apart, kind="stable")[:NEAREST_SHOWN])
    return f"the nearest are {', '.join(labels[int(place)] for place in near)}"

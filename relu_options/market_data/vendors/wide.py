"""Tables of anybody's with a call and a put in each row.

Either names say which side a column is of ("call_bid", "Put Ask", "C_BID"), or the
table is a mirror: calls left of the strike, puts right of it, under the same names.
"""

import re

import pandas as pd

from relu_options.market_data.columns import find_columns
from relu_options.market_data.layouts import (
    Layout,
    LayoutRows,
    renamed,
    stack_sides,
)
from relu_options.market_data.sources import ChainSource

_SIDES = {"call": r"(?:calls?|ce?)", "put": r"(?:puts?|pe?)"}
_PRICES = frozenset({"bid", "ask", "mid", "implied_volatility"})


def _side_columns(names: list[str], side: str) -> dict[str, str]:
    """Canonical names of one side's columns, by the names that say so."""
    word = _SIDES[side]
    bare = {}
    for name in names:
        match = re.fullmatch(
            rf"\[?(?:{word}[ _.\-]+(?P<after>.+?)|(?P<before>.+?)[ _.\-]+{word})\]?",
            name.strip(),
            re.IGNORECASE,
        )
        if match:
            bare.setdefault(match["after"] or match["before"], name)
    found = find_columns(pd.Index(list(bare)))
    return {canonical: bare[str(own)] for canonical, own in found.items()}


def _is_prefixed(source: ChainSource) -> bool:
    """A strike, and prices of calls and of puts by name."""
    names = source.names
    if "strike" not in find_columns(pd.Index(names)):
        return False
    return all(_PRICES & set(_side_columns(names, side)) for side in _SIDES)


def _read_prefixed(source: ChainSource) -> LayoutRows:
    """Calls and puts by the names of their columns; the other columns are shared."""
    table = source.read(skiprows=source.header)
    names = [str(name) for name in table.columns]
    table = table.set_axis(names, axis=1)
    sides = {side: _side_columns(names, side) for side in _SIDES}
    taken = {name for columns in sides.values() for name in columns.values()}
    shared = find_columns(pd.Index([name for name in names if name not in taken]))
    return _both_sides(table, sides, {key: str(own) for key, own in shared.items()})


def _halves(names: list[str]) -> tuple[list[str], str, list[str]] | None:
    """Names left of the strike, the strike, names right of it; None if no mirror."""
    at = [i for i, name in enumerate(names) if re.fullmatch(r"(?i)strike.*", name)]
    if len(at) != 1:
        return None
    left, right = names[: at[0]], names[at[0] + 1 :]
    repeated = {re.sub(r"[.]?\d+$", "", name) for name in right}
    mirrored = _PRICES & set(find_columns(pd.Index(left)))
    mirrored &= set(find_columns(pd.Index(sorted(repeated))))
    return (left, names[at[0]], right) if mirrored else None


def _is_mirror(source: ChainSource) -> bool:
    """The strike in the middle, prices under the same names on both sides."""
    return _halves(source.names) is not None


def _read_mirror(source: ChainSource) -> LayoutRows:
    """Calls from the columns left of the strike, puts from those right of it."""
    table = source.read(skiprows=source.header)
    names = [str(name).strip() for name in table.columns]
    halves = _halves(names)
    if halves is None:
        raise ValueError("the table has no strike between two sides")
    table = table.set_axis(names, axis=1)
    left, strike, right = halves
    bare = {re.sub(r"[.]?\d+$", "", name): name for name in reversed(right)}
    calls = {key: str(own) for key, own in find_columns(pd.Index(left)).items()}
    puts = {
        key: bare[str(own)] for key, own in find_columns(pd.Index(list(bare))).items()
    }
    shared = {key: own for key, own in calls.items() if key not in puts}
    calls = {key: own for key, own in calls.items() if key in puts}
    return _both_sides(
        table, {"call": calls, "put": puts}, {"strike": strike, **shared}
    )


def _both_sides(
    table: pd.DataFrame, sides: dict[str, dict[str, str]], shared: dict[str, str]
) -> LayoutRows:
    """Calls, then puts, each with the columns that they share."""
    shared.pop("option_type", None)
    parts = {side: renamed(table, {**shared, **own}) for side, own in sides.items()}
    return LayoutRows(stack_sides(parts))


LAYOUTS = (
    Layout("mirror", _is_mirror, _read_mirror),
    Layout("wide", _is_prefixed, _read_prefixed),
)

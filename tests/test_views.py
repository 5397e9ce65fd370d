"""Views: a strategy changes its account by its orders, and nothing else by anything."""

from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from functools import cache, cached_property

import numpy as np
import pandas as pd
import pytest
from test_backtest import (
    EXPIRIES,
    HEDGE,
    assert_conserves_capital,
    assert_same,
    path_history,
    surfaces_of_path,
)

import relu_options as ro
from relu_options.backtest import Setup, backtest, sweep
from relu_options.backtest.strategies import (
    Calendar,
    RichCheap,
    VarianceSwap,
    short_strangle,
    straddle,
)
from relu_options.errors import LookAheadError

REFUSALS = (AttributeError, TypeError, ValueError, KeyError, IndexError)
"""What a write may raise; a getter may raise more, as on a chain of two slices."""


def handed_out(view):
    """One of everything that a view answers, of its past too."""
    expiry, day = view.expiry(days=30), view.dates[0]
    return [
        *(view.chain, view[view.date], view[day], view.slice_chain(expiry)),
        *(view.surface, view.surface_on(view.date), view.surface_on(day)),
        *(view.curve(expiry), view.curve(expiry), view.quotes(expiry)),
        *(view.strikes(expiry), view.expiries, view.positions, view.close()),
        *(view.dates, view.underlying_prices, view.splits, view.settlement_prices),
        *(view.call(expiry, 100.0), view.put(expiry, [95.0, 100.0])),
    ]


def parts_of(thing):
    """What can be reached from an object by attributes and items."""
    if isinstance(thing, np.ndarray):
        return [thing.base]
    if isinstance(thing, pd.DataFrame):
        columns = [thing.iloc[:, at] for at in range(thing.shape[1])]
        return [*columns, thing.index, thing.columns, thing.attrs]
    if isinstance(thing, pd.Series):
        return [thing.array, thing.to_numpy(), thing.index, thing.attrs]
    if isinstance(thing, pd.Index):
        return [thing.array, thing.to_numpy()]
    if isinstance(thing, dict):
        return [*thing.keys(), *thing.values()]
    found = [*getattr(thing, "__dict__", {}).values(), getattr(thing, "_ndarray", None)]
    if isinstance(thing, list | tuple | set):
        found += list(thing)
    if "jax" in type(thing).__module__:
        with suppress(*REFUSALS):
            found.append(np.asarray(thing))
    return found


def properties_of(thing):
    """What the properties of an object of the library say, those that are kept too."""
    found = []
    if type(thing).__module__.startswith("relu_options"):
        for kind in type(thing).__mro__:
            for name, one in vars(kind).items():
                if isinstance(one, property | cached_property):
                    with suppress(Exception):
                        found.append(getattr(thing, name))
    return found


ATOMS = (str, bytes, int, float, complex, type, type(None), pd.Timestamp, np.generic)


def reached(roots):
    """All that can be reached from some objects, each once."""
    found, todo = {}, [one for root in roots for one in [root, *properties_of(root)]]
    while todo:
        thing = todo.pop()
        if isinstance(thing, ATOMS) or id(thing) in found:
            continue
        found[id(thing)] = thing
        todo += parts_of(thing)
    return list(found.values())


def write_into(thing):
    """Change an object in every way that it has."""
    if isinstance(thing, np.ndarray):
        with suppress(*REFUSALS):
            thing.setflags(write=True)
        with suppress(*REFUSALS):
            thing[...] = np.zeros((), thing.dtype)
    elif isinstance(thing, pd.DataFrame | pd.Series):
        for at in range(thing.shape[-1] if thing.ndim == 2 else 1):
            with suppress(*REFUSALS):
                thing.iloc[:, at] = 0.01  # type: ignore[index]
        with suppress(*REFUSALS):
            thing.iloc[:] = 0.01
    elif isinstance(thing, list | dict | set):
        thing.clear()
    if not type(thing).__module__.startswith(("relu_options", "test")):
        return  # dtypes and the like belong to the process
    for name in list(getattr(thing, "__dict__", {})) + list(
        getattr(type(thing), "__annotations__", {})
    ):
        for write in (setattr, object.__setattr__, write_to_vars, delete):
            with suppress(*REFUSALS):
                write(thing, name, 0.01)


def write_to_vars(thing, name, value):
    vars(thing)[name] = value


def delete(thing, name, value):
    del vars(thing)[name]


class Vandal:
    """A strategy that writes to all it can reach, before or after it decides.

    What it was handed on earlier dates it spoils once more.
    """

    def __init__(self, strategy, *, first):
        self.strategy, self.first = strategy, first
        self.kept, self.writes = [], 0

    def __call__(self, view):
        orders = None if self.first else self.strategy(view)
        # A view whose own parts are gone could decide nothing.
        roots = [*self.kept, *handed_out(view), *([] if self.first else [view])]
        things = reached(roots)
        for thing in things:
            write_into(thing)
        self.writes += len(things)
        if self.first:
            orders = self.strategy(view)
        self.kept = [view, *handed_out(view), orders] if self.first else []
        return orders


def reader(view):
    """Trades what it reads off chains, quotes, curves and surfaces, on every date."""
    expiry, first = view.expiry(days=30), view.dates[0]
    past, old = view[first].table, view.surface_on(first)
    read = (
        view.curve(expiry).price(100.0),
        view.surface_on(view.date).price(95.0, old.times[1]),
        old.price(95.0, old.times[1]),
        past["bid"].sum() + view.slice_chain(expiry).table["bid"].sum(),
        view.quotes(expiry)["ask"].sum() + view.strikes(expiry).sum(),
        view.underlying_prices.sum() + len(view.dates) + view.forward(expiry),
        view.cash + view.equity + view.spot + view.positions["price"].sum(),
    )
    return [
        *view.close(),
        view.call(expiry, 100.0, 1.0 + 1e-3 * float(sum(read[:3]))),
        view.underlying(1e-6 * float(sum(read[3:]))),
    ]


@cache
def fitted_surfaces():
    history = path_history()
    return {date: ro.fit_surface(history[date]) for date in history.dates[:3]}


@pytest.mark.parametrize(
    ("kind", "place", "first"),
    [("given", 0, True), ("given", 1, False), ("fitted", 1, True)],
)
def test_what_a_strategy_writes_to_changes_nothing(kind, place, first):
    """Neither its own trades, nor those of the strategy beside it, nor the history."""
    history = deepcopy(path_history())
    surfaces = deepcopy(surfaces_of_path() if kind == "given" else fitted_surfaces())
    end = history.dates[2]
    inner = {
        "strangle": Setup(short_strangle(days=20), hedge=HEDGE, rate="curve"),
        "reader": Setup(reader, marks="surface"),
        "calendar": Setup(Calendar(near=18, far=40)),
    }
    honest = sweep(history, inner, surfaces=surfaces, end=end)
    untouched = deepcopy((history.tables, history.chains, history.underlying_prices))
    name = list(inner)[place]
    vandal = Vandal(inner[name].strategy, first=first)
    spoilt = inner | {name: replace(inner[name], strategy=vandal)}
    found = sweep(history, spoilt, surfaces=surfaces, end=end)
    assert not found.failures
    assert vandal.writes > 3000
    for one in inner:
        assert len(found[one].trades) > 1
        assert_same(found[one], honest[one])
        assert_conserves_capital(found[one])
    for date, table in untouched[0].items():
        pd.testing.assert_frame_equal(table, history.tables[date])
    for date, chain in untouched[1].items():
        pd.testing.assert_frame_equal(chain.rows, history.chains[date].rows)
        np.testing.assert_array_equal(chain.codes, history.chains[date].codes)
    pd.testing.assert_series_equal(untouched[2], history.underlying_prices)
    again = sweep(history, inner, surfaces=surfaces, end=end)
    assert all(one.equity.equals(honest[name].equity) for name, one in again.items())


def test_no_attribute_of_a_view_opens_the_future():
    history, refused = path_history(), []
    later = history.dates[-1]
    now = utc = pd.Timestamp(later, tz="UTC")

    def peek(view):
        for name in ("date", "time", "chain", "spot", "cash", "_today", "new"):
            with pytest.raises(AttributeError, match="returns"):
                setattr(view, name, later)
            for write in (object.__setattr__, write_to_vars):
                with suppress(AttributeError):
                    write(view, name, later)
        vars(view)["_today"] = (later, now, 1.0, ())

        class Always(pd.Timestamp):
            def __gt__(self, other):  # pyright: ignore[reportIncompatibleMethodOverride]
                return False

        for date in (later, str(later.date()), utc, Always(later)):
            for ask in (view.__getitem__, view.surface_on):
                with pytest.raises(LookAheadError):
                    ask(date)
                refused.append(date)
        assert len(view.dates) == len(view.underlying_prices) == 1
        assert not len(view.splits) + len(view.settlement_prices)

    known = replace(
        history,
        splits=pd.Series([2.0], pd.DatetimeIndex([later])),
        settlement_prices=pd.DataFrame(
            {"expiry": EXPIRIES, "settlement": "PM", "price": 100.0}
        ),
    )
    backtest(known, peek, surfaces=surfaces_of_path(), end=history.dates[0])
    assert len(refused) == 8


def test_nothing_that_is_handed_out_holds_the_future():
    """Not even in the memory behind an array."""
    history, date = path_history(), path_history().dates[3]
    prices = history.underlying_prices
    marked = replace(
        history,
        underlying_prices=prices.where(prices.index <= date, 7777.0),
        splits=pd.Series([7777.0], history.dates[-1:]),
        settlement_prices=pd.DataFrame(
            {"expiry": EXPIRIES, "settlement": "PM", "price": 7777.0}
        ),
    )
    seen = []

    def look(view):
        for thing in reached([view, *handed_out(view)]):
            if isinstance(thing, np.ndarray) and thing.dtype.kind == "f":
                seen.append(bool((thing == 7777.0).any()))
            elif isinstance(thing, np.ndarray) and thing.dtype.kind == "M":
                seen.append(history.dates[-2].to_datetime64() in thing)

    backtest(marked, look, surfaces=surfaces_of_path(), end=date)
    assert len(seen) > 100
    assert not any(seen)


def test_what_a_strategy_asks_changes_no_other_and_no_later_mark():
    """One that asks for everything beside one that does not; and both alone."""
    history = path_history()
    gone = history.dates[2]
    # From the third date on no forward can be found for the first expiry, and the
    # second is not listed.
    first, second = (pd.Timestamp(one) for one in EXPIRIES[:2])

    def thinned(date, table):
        if date < gone:
            return table
        few = (table["expiry"] != first) | (table["option_type"] == "call")
        return table[few & (table["expiry"] != second)]

    def hold(view):
        return None if view.has_traded else view.call(EXPIRIES[1], 100.0)

    def curious(view):
        for label in view.expiries.index:
            view.forward(label)
            view.strike(label, delta=0.3)
        return hold(view)

    thin = history.changed(thinned)
    alone = backtest(thin, hold, end=history.dates[4])
    both = sweep(thin, {"curious": curious, "hold": hold}, end=history.dates[4])
    assert_same(both["hold"], alone)
    assert_same(both["curious"], backtest(thin, curious, end=history.dates[4]))
    for name in ("daily", "greeks", "attribution", "positions", "trades"):
        pd.testing.assert_frame_equal(
            getattr(both["curious"], name), getattr(alone, name), check_exact=True
        )


def test_strategies_beside_each_other_are_as_alone():
    strategies = {
        "strangle": short_strangle(days=20),
        "straddle": straddle(-1.0, days=40),
        "swap": VarianceSwap(days=30),
        "rich": RichCheap(threshold=0.01),
    }
    end = path_history().dates[6]
    both = sweep(path_history(), strategies, surfaces=surfaces_of_path(), end=end)
    for name, one in strategies.items():
        alone = backtest(path_history(), one, surfaces=surfaces_of_path(), end=end)
        assert_same(both[name], alone)

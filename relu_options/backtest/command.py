"""The command `backtest`: a strategy over a history, its report and its pictures."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from relu_options.backtest import strategies
from relu_options.backtest.engine import Strategy, backtest
from relu_options.backtest.result import BacktestResult
from relu_options.backtest.terms import Costs, DeltaHedge
from relu_options.errors import refuse
from relu_options.market_data.history import ChainHistory
from relu_options.simulation.bundled import bundled_history

STRATEGIES: dict[str, Callable[[], Strategy]] = {
    "straddle": strategies.straddle,
    "short_strangle": strategies.short_strangle,
    "buy_write": strategies.BuyWrite,
    "calendar": strategies.Calendar,
    "variance_swap": strategies.VarianceSwap,
    "rich_cheap": strategies.RichCheap,
}
"""Strategies that the command knows, with their default terms."""

HEDGED = ("short_strangle", "variance_swap", "rich_cheap")
"""Those that are hedged unless told otherwise."""


HELP = "run a strategy over a history"


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to its parser.

    Examples:
        >>> parser = argparse.ArgumentParser()
        >>> declare(parser)
        >>> parser.parse_args(["--strategy", "calendar"]).strategy
        'calendar'
    """
    parser.add_argument("history", nargs="?", help="a folder; default: bundled")
    parser.add_argument(
        "--strategy", choices=sorted(STRATEGIES), default="short_strangle"
    )
    parser.add_argument("--underlying", help="of a history of several")
    parser.add_argument("--start", help="first date")
    parser.add_argument("--end", help="last date")
    parser.add_argument("--capital", type=float, default=1e6)
    parser.add_argument(
        "--multiplier", type=float, help="units of the underlying in a contract"
    )
    parser.add_argument(
        "--spread", type=float, default=1.0, help="1 at bid and ask, 0 at mid"
    )
    parser.add_argument("--rate", type=float, default=0.0, help="interest on cash")
    parser.add_argument(
        "--hedge",
        choices=["none", "black_scholes", "curve"],
        help="delta of the hedge; default: of the strategy",
    )
    parser.add_argument("--output", default="backtest", help="stem of the files")


def run(options: argparse.Namespace) -> str:
    """Run the command: writes a picture and tables, and returns the report.

    Raises:
        BacktestError: If the strategy fails, or there are no dates.
        OSError: If a file cannot be read or written.
        ValueError: If an option is out of range.
    """
    hedge = options.hedge
    if hedge is None:
        hedge = "black_scholes" if options.strategy in HEDGED else "none"
    result = backtest(
        open_history(options.history, options.underlying),
        STRATEGIES[options.strategy](),
        costs=Costs(spread_fraction=options.spread),
        capital=options.capital,
        multiplier=options.multiplier,
        hedge=None if hedge == "none" else DeltaHedge(delta=hedge),
        rate=options.rate,
        start=options.start,
        end=options.end,
    )
    return f"{result.summary()!r}\n{_counted(result)}written  {_write(result, options)}"


def _counted(result: BacktestResult) -> str:
    """Events by kind, one line each."""
    counts = result.events["kind"].value_counts()
    lines = [f"events: {count} {kind}" for kind, count in counts.items()]
    return "".join(f"{line}\n" for line in lines)


def _write(result: BacktestResult, options: argparse.Namespace) -> str:
    """Write the picture and the tables; returns their names."""
    from relu_options.plotting_backtest import save_report

    stem = Path(options.output)
    picture = stem.with_suffix(".png")
    save_report(result, picture)
    tables = {
        stem.with_suffix(".csv"): result.to_frame(),
        stem.with_name(f"{stem.name}_trades.csv"): result.trades,
        stem.with_name(f"{stem.name}_events.csv"): result.events,
    }
    for path, table in tables.items():
        table.to_csv(path, index=table.index.name is not None)
    return " ".join(str(path) for path in (picture, *tables))


def open_history(folder: str | None, underlying: str | None) -> ChainHistory:
    """The history of a folder, or the bundled one.

    Raises:
        FileNotFoundError: If there is no such folder.
    """
    if folder is None:
        refuse("the bundled history has one; name a folder", underlying=underlying)
        return bundled_history()
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    return ChainHistory(folder, underlying)

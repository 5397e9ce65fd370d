"""The command line: `relu-options COMMAND`, on chains and histories.

`python -m relu_options` is the same, where the script is not on the path.

A command is one `Command`: its name, one line of help, a function that declares its
arguments, and one that runs it. All end with code 0, or with 2 and one line on what is
wrong with the input.
"""

import argparse
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, get_args

import relu_options as ro
from relu_options.backtest import command as backtesting
from relu_options.curves import volatility_in_words
from relu_options.errors import (
    BacktestError,
    FitError,
    MissingColumnError,
    refuse,
)
from relu_options.market_data.cleaning import Kernel
from relu_options.market_data.columns import PriceUnit, VolatilityUnit

FAILURES = (ValueError, KeyError, FitError, BacktestError, OSError, ImportError)
"""What bad input raises."""


@dataclass(frozen=True)
class Command:
    """One command of the command line.

    Attributes:
        name: What is typed.
        help: One line.
        declare: Adds the command's arguments to its parser.
        run: Does it; prints.
    """

    name: str
    help: str
    declare: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]


class _Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one line, and where to read more."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see `{self.prog} --help`\n")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns 0, or 2 with one line on bad input."""
    try:
        try:
            return _run(arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Whoever reads, `head` say, has seen enough. What is left in the buffer goes
        # nowhere, or the interpreter would complain of it when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(arguments: list[str] | None) -> int:
    parser = _Parser(prog="relu-options")
    parser.add_argument(
        "--version", action="version", version=f"relu-options {ro.__version__}"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for command in COMMANDS:
        one = commands.add_parser(command.name, help=command.help)
        command.declare(one)
        one.set_defaults(run=command.run)
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except BrokenPipeError:
        raise
    except FAILURES as error:
        text = error.args[0] if isinstance(error, KeyError) else error
        line = in_shell_words(" ".join(str(text).split()))
        print(f"{type(error).__name__}: {line}", file=sys.stderr)
        return 2
    return 0


def in_shell_words(message: str) -> str:
    """A message that names arguments of Python, naming those of the command line.

    Examples:
        >>> in_shell_words("choose one with `date=`, or read all with `read_chains`")
        'choose one with `--date`, or read all in Python with `read_chains`'
        >>> in_shell_words("name it with `columns={'strike': ...}`")
        'name it with `--column strike=...`'
        >>> in_shell_words('pass `price_unit="currency"` if they are not')
        'pass `--price-unit "currency"` if they are not'
        >>> in_shell_words("30 rows dropped, 1 note: see `report`")
        '30 rows dropped, 1 note: see `relu-options inspect`'
    """
    names = "|".join((*WORDS, *NUMBERS, *CHOICES, "expiry", "settlement"))
    message = re.sub(
        rf"`({names})=?([^`=]*)`",
        lambda match: f"`--{match[1].replace('_', '-')} {match[2]}".rstrip() + "`",
        message,
    )
    message = re.sub(r"`columns=\{'(\w+)': \.\.\.\}`", r"`--column \1=...`", message)
    message = re.sub(r"chain\['[^']+', '([^']+)'\]", r"`--settlement \1`", message)
    message = re.sub(
        "see `(report|fit.left_out)`", "see `relu-options inspect`", message
    )
    return message.replace("all with `read_chains`", "all in Python with `read_chains`")


def declare_source(parser: argparse.ArgumentParser, *, bundled: bool = True) -> None:
    """The arguments of a command that reads a chain."""
    text = "a table of quotes: CSV, Parquet, JSON, zip or a folder"
    if bundled:
        parser.add_argument("file", nargs="?", help=f"{text}; default: bundled")
    else:
        parser.add_argument("file", help=text)
    for name, text in WORDS.items():
        parser.add_argument(_flag(name), help=text)
    parser.add_argument(
        "--column",
        action="append",
        metavar="STRIKE=K_USD",
        help="what a column is called, if its name is not recognised; repeatable",
    )
    for name, text in NUMBERS.items():
        parser.add_argument(_flag(name), type=float, help=text)
    for name, choices in CHOICES.items():
        parser.add_argument(_flag(name), choices=choices, help="default: as it seems")


def _flag(name: str) -> str:
    """What is typed for an argument of `read_chain`."""
    return f"--{name.replace('_', '-')}"


WORDS = {
    "quote_time": "when the quotes were taken",
    "date": "the quote date, where there are several",
    "underlying": "the one to read, where there are several",
    "layout": "a layout's name, if it is not recognised",
}
"""Arguments of `read_chain` that are words, by their names there."""

NUMBERS = {
    "spot": "price of the underlying; of a coin in which prices are quoted",
    "rate": "continuous, per year: 0.04 is 4 %%",
    "dividend_yield": "continuous, per year",
    "forward": "forward price of the underlying, for one expiry",
    "discount_factor": "price today of 1 at expiry, for one expiry",
    "time_to_expiry": "years, for one expiry",
    "multiplier": "units of the underlying in a contract",
    "max_age": "days from a contract's last trade to the quote time, at most",
    "min_volume": "contracts traded, at least",
    "min_open_interest": "contracts open, at least",
    "strike_scale": "by what to divide strikes; 1 leaves them",
}
"""Those that are numbers."""

CHOICES = {
    "price_unit": get_args(PriceUnit),
    "volatility_unit": get_args(VolatilityUnit),
    "kernel": get_args(Kernel),
}
"""Those that choose a unit, or the law of the underlying."""


def declare_slices(parser: argparse.ArgumentParser, otherwise: str) -> None:
    """The arguments that choose slices of a chain."""
    parser.add_argument(
        "--expiry", help=f"a date, or that of a file without; default: {otherwise}"
    )
    parser.add_argument("--settlement", help='"AM" or "PM", where both are listed')


def read_source(options: argparse.Namespace) -> ro.OptionChain:
    """The chain that the arguments name; the bundled one without a file.

    An expiry names the slice, or, where the file has none, is what the file is of.
    """
    how = _reading(options)
    if options.file is None:
        refuse("the bundled chain is what it is; name a file", **how)
        return ro.bundled_chain()
    try:
        return ro.read_chain(options.file, **how)
    except MissingColumnError as error:
        if options.expiry is None or "expiry" not in error.columns:
            raise
        return ro.read_chain(options.file, expiry=options.expiry, **how)


def _reading(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `read_chain` that are given."""
    names = (*WORDS, *NUMBERS, *CHOICES)
    given = {name: getattr(options, name) for name in names}
    given["columns"] = _columns(options.column)
    return {name: value for name, value in given.items() if value is not None}


def _columns(given: list[str] | None) -> dict[str, str] | None:
    """Names of columns, from "strike=K_usd" and the like."""
    if given is None:
        return None
    parts = [one.partition("=") for one in given]
    if not all(name and own for name, _, own in parts):
        raise ValueError(f"`--column` is written as strike=K_usd, not as {given}")
    return {name: own for name, _, own in parts}


def read_slices(options: argparse.Namespace) -> ro.OptionChain:
    """The slices that the arguments name, or the whole chain."""
    chain = read_source(options)
    if options.expiry is None:
        refuse("it goes with `expiry`", settlement=options.settlement)
        return chain
    if options.settlement is None:
        return chain[options.expiry]
    return chain[options.expiry, options.settlement]


def _declare_inspect(parser: argparse.ArgumentParser) -> None:
    declare_source(parser, bundled=False)
    declare_slices(parser, "all")


def _inspect(options: argparse.Namespace) -> None:
    chain = read_slices(options)
    report = chain.report()
    print(f"layout     {chain.layout}")
    print(f"chain      {chain}")
    print(f"contracts  {_kinds(chain)}")
    rows = repr(report.rows).splitlines()
    text = "\n           ".join(line.strip() for line in rows)
    print(f"rows       {in_shell_words(text)}")
    print(f"slices\n{in_shell_words(report.describe_slices())}")


def _kinds(chain: ro.OptionChain) -> str:
    """Exercise styles and currencies of the quotes that are used, with their counts."""
    parts = []
    for name, title in (("exercise_style", "exercise"), ("currency", "currency")):
        counts = chain.table[name].fillna("unknown").value_counts()
        shown = ", ".join(f"{value} ({count:,})" for value, count in counts.items())
        parts.append(f"{title} {shown}")
    return "; ".join(parts)


def _declare_fit(parser: argparse.ArgumentParser) -> None:
    declare_source(parser)
    declare_slices(parser, "the middle one")
    parser.add_argument("--output", default="fit", help="stem of the files written")


def _fit(options: argparse.Namespace) -> None:
    chain = read_slices(options)
    if options.expiry is None:
        chain.require_slices()
        chain = chain[chain.slices[len(chain.slices) // 2]]
    curve = ro.fit_curve(chain)
    print(in_shell_words(str(curve)))
    print(f"forward          {curve.forward:.6f}")
    print(f"discount factor  {curve.discount_factor:.8f}")
    if curve.fit is not None and curve.fit.quotes.has_spreads:
        print(f"inside spread    {curve.share_inside:.2%}")
    error, least = (
        volatility_in_words(value, curve.kernel)
        for value in (curve.volatility_error, curve.least_error)
    )
    print(f"volatility error {error} (least possible {least})")
    print(f"certificate      {curve.certificate}")
    picture = Path(options.output).with_suffix(".png")
    figure, axes = _canvas(figsize=(8, 5))
    curve.plot(axes)
    figure.savefig(str(picture), dpi=120)
    text = picture.with_suffix(".json")
    curve.to_json(text)
    print(f"written          {picture} {text}")


def _canvas(*shape: int, **options: Any) -> tuple[Any, Any]:
    """A figure and its axes, for a file; only now, as matplotlib takes a second."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    mpl.use("Agg")
    return plt.subplots(*shape, **options)


def _declare_surface(parser: argparse.ArgumentParser) -> None:
    declare_source(parser)
    declare_slices(parser, "all")
    parser.add_argument("--output", default="surface", help="stem of the files written")


def _surface(options: argparse.Namespace) -> None:
    surface = ro.fit_surface(read_slices(options))
    print(in_shell_words(str(surface)))
    for label, reason in surface.fit.left_out if surface.fit else ():
        print(f"left out         {label}: {in_shell_words(reason)}")
    print(f"certificate      {surface.certificate}")
    picture = Path(options.output).with_suffix(".png")
    figure, axes = _canvas(2, 2, figsize=(14, 10), layout="constrained")
    kinds = ("smiles", "total_variance", "local_volatility", "density")
    for kind, panel in zip(kinds, axes.flat, strict=True):
        surface.plot(kind, panel)
    figure.savefig(str(picture), dpi=100)
    text = picture.with_suffix(".json")
    surface.to_json(text)
    print(f"written          {picture} {text}")


def _declare_convert(parser: argparse.ArgumentParser) -> None:
    declare_source(parser, bundled=False)
    parser.add_argument("history", help="the folder of the history; made if missing")
    parser.add_argument("--expiry", help="that of a file without")
    parser.add_argument("--format", choices=["parquet", "csv"], help="of its files")


def _convert(options: argparse.Namespace) -> None:
    history = ro.ChainHistory(options.history, file_format=options.format)
    how = _reading(options)
    if options.expiry is not None:
        how["expiry"] = options.expiry
    skipped: dict[str, str] = {}
    if options.date is None:
        chains = ro.read_chains(options.file, on_error="skip", **how)
        skipped = chains.skipped
    else:
        chains = [ro.read_chain(options.file, **how)]
    count = 0
    for chain in chains:
        history.append(chain)
        count += 1
    print(history)
    for label, reason in skipped.items():
        print(f"skipped          {label}: {in_shell_words(reason)}")
    print(f"written          {count} dates to {options.history}")


def _backtest(options: argparse.Namespace) -> None:
    print(backtesting.run(options))


COMMANDS = [
    Command("inspect", "what a file holds", _declare_inspect, _inspect),
    Command("fit", "fit the price curve of one expiry", _declare_fit, _fit),
    Command("surface", "fit the surface of all expiries", _declare_surface, _surface),
    Command("convert", "store chains as a history", _declare_convert, _convert),
    Command("backtest", backtesting.HELP, backtesting.declare, _backtest),
]


if __name__ == "__main__":
    sys.exit(main())

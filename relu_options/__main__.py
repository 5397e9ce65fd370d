"""The command line: `python -m relu_options fit [FILE]`, or `surface [FILE]`."""

import argparse
import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt

import relu_options as ro
from relu_options.errors import ArbitrageError, FitError, QuoteError


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns 0, or 2 with one line on bad input."""
    parser = argparse.ArgumentParser(prog="python -m relu_options")
    commands = parser.add_subparsers(dest="command", required=True)
    fit = commands.add_parser("fit", help="fit the price curve of one expiry")
    fit.add_argument("file", nargs="?", help="a table of quotes; default: bundled")
    fit.add_argument("--expiry", help="a date; default: the middle one")
    fit.add_argument("--settlement", choices=["AM", "PM"])
    fit.add_argument("--quote-time", help="when the quotes were taken")
    fit.add_argument("--output", default="fit", help="stem of the files written")
    surface = commands.add_parser("surface", help="fit the surface of all expiries")
    surface.add_argument("file", nargs="?", help="a table of quotes; default: bundled")
    surface.add_argument("--quote-time", help="when the quotes were taken")
    surface.add_argument(
        "--output", default="surface", help="stem of the files written"
    )
    options = parser.parse_args(arguments)
    try:
        if options.command == "fit":
            _fit(options)
        else:
            _surface(options)
    except (QuoteError, ArbitrageError, FitError, KeyError, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return 0


def _chain(options: argparse.Namespace) -> ro.OptionChain:
    if options.file is None:
        return ro.bundled_chain()
    return ro.read_chain(options.file, quote_time=options.quote_time)


def _surface(options: argparse.Namespace) -> None:
    surface = ro.fit_surface(_chain(options))
    print(surface)
    print(f"certificate      {surface.certificate}")
    picture = Path(options.output).with_suffix(".png")
    mpl.use("Agg")
    figure, axes = plt.subplots(2, 2, figsize=(14, 10), layout="constrained")
    kinds = ("smiles", "total_variance", "local_volatility", "density")
    for kind, panel in zip(kinds, axes.flat, strict=True):
        surface.plot(kind, panel)
    figure.savefig(str(picture), dpi=100)
    text = picture.with_suffix(".json")
    surface.to_json(text)
    print(f"written          {picture} {text}")


def _fit(options: argparse.Namespace) -> None:
    chain = _chain(options)
    if options.expiry is None:
        chosen = chain[chain.slices[len(chain.slices) // 2]]
    elif options.settlement is None:
        chosen = chain[options.expiry]
    else:
        chosen = chain[options.expiry, options.settlement]
    curve = ro.fit_curve(chosen)
    print(curve)
    print(f"forward          {curve.forward:.6f}")
    print(f"discount factor  {curve.discount_factor:.8f}")
    if curve.fit is not None and curve.fit.quotes.has_spreads:
        print(f"inside spread    {curve.share_inside:.2%}")
    error, least = 1e4 * curve.volatility_error, 1e4 * curve.least_error
    print(f"volatility error {error:.2f} bp (least possible {least:.2f} bp)")
    print(f"certificate      {curve.certificate}")
    picture = Path(options.output).with_suffix(".png")
    mpl.use("Agg")
    figure, axes = plt.subplots(figsize=(8, 5))
    curve.plot(axes)
    figure.savefig(str(picture), dpi=120)
    text = picture.with_suffix(".json")
    curve.to_json(text)
    print(f"written          {picture} {text}")


if __name__ == "__main__":
    sys.exit(main())

"""Whether the prices of a network are free of static arbitrage."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any, Literal

from relu_options.errors import require_positive
from relu_options.verification.by_programme import check_by_programme
from relu_options.verification.conditions import (
    Finding,
    check_regions,
    check_segments,
)
from relu_options.verification.domain import DomainLike, domain_of
from relu_options.verification.hinges import check_hinges
from relu_options.verification.layers import LayeredNetwork
from relu_options.verification.network_reader import layered
from relu_options.verification.one_input import enumerate_segments
from relu_options.verification.regions import OutOfTime, enumerate_regions
from relu_options.verification.results import (
    FAMILIES,
    Counterexample,
    Proof,
    Unknown,
)
from relu_options.verification.simplification import simplify
from relu_options.verification.trades import Question

Method = Literal["auto", "programme"]


def verify_no_arbitrage(
    network: Any,
    domain: DomainLike,
    *,
    conditions: Sequence[str] | None = None,
    forward: float = 1.0,
    discount_factor: float = 1.0,
    activation: str = "relu",
    alpha: float = 0.01,
    width: float = 1.0,
    tolerance: float = 0.0,
    time_limit: float = 60.0,
    method: Method = "auto",
) -> Proof | Counterexample | Unknown:
    r"""Prove that a network's call prices admit no static arbitrage, or name the trade.

    The network is a function of the strike, and, if it has more inputs, of the time to
    expiry and of others that are fixed in a trade, such as a volatility. It is the
    price $C$ of a call. The conditions are, everywhere on the domain,

    | name | condition | units of its margin | otherwise |
    |---|---|---|---|
    | "convex" | $C$ is convex in $K$ | change of slope | a butterfly |
    | "decreasing" | $\partial C / \partial K \le 0$ | slope | a call spread |
    | "slope" | $\partial C / \partial K \ge -D$ | slope | a call spread |
    | "calendar" | $\partial C / \partial T \ge 0$ | price a year | a calendar spread |
    | "bounds" | $D \max(F - K, 0) \le C \le D F$ | price | call and underlying |

    Forward $F$ and discount factor $D$ are numbers. A price curve of one expiry has
    those of its expiry. A network of strike *and time* must be the normalised call
    $C / (D_T F_T)$ as a function of $K / F_T$ and $T$, for which both are 1: only then
    is not to fall with time what excludes calendar arbitrage.

    The cheapest complete method is chosen. One input: the kinks, sorted. Convexity with
    one hidden layer: the signs of the hinges that cross the domain, for any number of
    inputs. Two inputs of any depth: all linear regions. These are exact. Three inputs
    and more: mixed-integer programmes, whose proofs hold to a tolerance that is stated,
    while their counterexamples are exact too.

    Args:
        network: See `relu_options.verification.layered`.
        domain: A range `(low, high)` for each input: strike in the units of the
            forward, then time in years, then others. Or a mapping from names to ranges,
            "strike" first; a second input not called "time" is not a time.
        conditions: Names of the table; by default all that the inputs allow.
        forward: Currency units, or 1 for normalised prices.
        discount_factor: Price today of one unit of currency paid at expiry.
        activation: Of the hidden units if `network` is a list of pairs `(W, b)`:
            "relu", "leaky" or "clipped".
        alpha: Slope of leaky units below zero.
        width: Where clipped units end to rise.
        tolerance: Violation to allow, in the units of each margin.
        time_limit: Seconds after which to give up.
        method: "auto"; or "programme", for comparison, which takes mixed-integer
            programmes also where an exact method would do.

    Returns:
        A `Proof`, which is true; a `Counterexample` of the first condition that fails,
        with those of others in `further`; or `Unknown` if the time was too short, or a
        programme's arithmetic too coarse.

    Raises:
        ValueError: If the network has weights that are not finite, units that are not
            piecewise linear or shapes that do not fit; the domain is empty; or a
            condition is unknown or needs a time that the network has not.

    Examples:
        A surface that is convex but falls with time, by one unit a year.

        >>> network = [([[-1.0, -1.0]], [1.5]), ([[1.0]], [0.0])]
        >>> domain = {"strike": (0.5, 1.5), "time": (0.0, 1.0)}
        >>> verdict = verify_no_arbitrage(network, domain,
        ...                               conditions=["convex", "calendar"])
        >>> verdict  # doctest: +NORMALIZE_WHITESPACE
        Counterexample: calendar fails by 1 at strike 0.833333, time 0.333333;
        calendar_spread costs -0.583008
        >>> for time, portfolio in verdict.as_trade().items():
        ...     print(round(time, 2), portfolio.quantities, portfolio.ask.round(2))
        0.04 [-1.] [0.62]
        0.62 [1.] [0.04]

        At one time it is a curve without arbitrage.

        >>> proof = verify_no_arbitrage(network, domain, conditions=["convex", "slope"])
        >>> proof  # doctest: +NORMALIZE_WHITESPACE
        Proof: convex, slope, exactly, on strike 0.5 to 1.5, time 0 to 1; by 1 hinge,
        2 linear regions
    """
    start = time.monotonic()
    require_positive(forward=forward, discount_factor=discount_factor)
    if not 0.0 <= tolerance < math.inf:
        raise ValueError(f"tolerance must not be negative, not {tolerance}")
    if not time_limit > 0.0:
        raise ValueError(f"time_limit must be positive, not {time_limit}")
    if method not in ("auto", "programme"):
        raise ValueError(f"method must be 'auto' or 'programme', not {method!r}")
    network = layered(network, activation=activation, alpha=alpha, width=width)
    box = domain_of(domain, network.inputs)
    if box.names[0] != "strike":
        raise ValueError(
            f"these are conditions on prices by strike, not by {box.names[0]}"
        )
    names = conditions_of(conditions, box.has_time)
    question = Question(
        network.in_integers, box, Fraction(forward), Fraction(discount_factor)
    )
    findings = dict(
        _findings(
            question,
            network,
            names,
            Fraction(tolerance),
            start + time_limit,
            method == "programme",
        )
    )
    seconds = time.monotonic() - start
    margins = tuple(
        margin for name in names if (margin := findings[name].margin) is not None
    )
    found = [
        replace(trade, margins=margins, allowed=tolerance, seconds=seconds)
        for name in names
        if (trade := findings[name].counterexample) is not None
    ]
    if found:
        return replace(found[0], further=tuple(found[1:]))
    undecided = {
        name: findings[name].doubt for name in names if findings[name].margin is None
    }
    if undecided:
        return Unknown(box, margins, undecided, allowed=tolerance, seconds=seconds)
    return Proof(box, margins, allowed=tolerance, seconds=seconds)


def conditions_of(conditions: Sequence[str] | None, has_time: bool) -> tuple[str, ...]:
    """Names of the conditions to decide, after checking them."""
    if conditions is None:
        return tuple(name for name in FAMILIES if has_time or name != "calendar")
    names = (conditions,) if isinstance(conditions, str) else tuple(conditions)
    unknown = [name for name in names if name not in FAMILIES]
    if unknown or not names:
        raise ValueError(
            f"conditions are some of {list(FAMILIES)}, not {unknown or 'none'}"
        )
    if "calendar" in names and not has_time:
        raise ValueError(
            "a calendar condition needs a time as the second input; the domain has none"
        )
    return tuple(dict.fromkeys(names))


def _findings(
    question: Question,
    network: LayeredNetwork,
    names: tuple[str, ...],
    tolerance: Fraction,
    deadline: float,
    by_programme: bool,
) -> Iterator[tuple[str, Finding]]:
    """What is found of each condition, by the cheapest method for it."""
    if network.inputs == 1 and not by_programme:
        try:
            segments = enumerate_segments(network, question.domain, deadline)
        except OutOfTime as late:
            yield from _late(names, late.regions, "segments")
            return
        found = check_segments(question, segments, names, tolerance)
        yield from zip(names, found, strict=True)
        return
    rest = list(names)
    if "convex" in rest and len(network.layers) <= 1:
        rest.remove("convex")
        yield "convex", check_hinges(question, network, tolerance)
    if network.inputs == 2 and not by_programme and rest:
        try:
            regions = enumerate_regions(network, question.domain, deadline)
        except OutOfTime as late:
            yield from _late(rest, late.regions, "linear regions")
            return
        found = check_regions(question, regions, tuple(rest), tolerance, deadline)
        yield from zip(rest, found, strict=True)
        return
    if rest and network.inputs > 2:  # hinges that coincide would puzzle a programme
        network = simplify(network, question.domain)
        question = replace(question, exact=network.in_integers)
    for name in rest:
        yield name, check_by_programme(question, network, name, tolerance, deadline)


def _late(names: Sequence[str], count: int, what: str) -> Iterator[tuple[str, Finding]]:
    """All conditions undecided, because the time is over."""
    doubt = f"out of time: more than {count:,} {what}; raise `time_limit`"
    for name in names:
        yield name, Finding(None, doubt=doubt)

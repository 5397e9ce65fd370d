r"""One hidden layer, any number of inputs: convex in the strike or not, by the hinges.

Unit $k$ has its kinks on planes $a_k \cdot x + b_k = t$. Across such a plane the slope
in strike jumps by $v_k \, \Delta\varphi' \, |a_{k,K}|$, the same everywhere on it.
Planes that coincide add their jumps up. So the network is convex in strike if, and only
if, no plane that crosses the domain has a negative sum: one pass over the units.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from relu_options.verification.conditions import Finding, exact_finding
from relu_options.verification.domain import Domain
from relu_options.verification.layers import LayeredNetwork
from relu_options.verification.results import Counterexample, Margin
from relu_options.verification.trades import Question, butterfly, on_grid
from relu_options.verification.units import HiddenLayer, rational

_PLACES = 12  # on a hinge, of which the one with the most room is taken
_MOST_PLACES = 200  # if there is no room at these


@dataclass(frozen=True)
class Hinge:
    r"""A plane on which the slope in strike jumps, $K = c + \sum_i g_i x_i$.

    Attributes:
        constant: `c`.
        gradient: `g`, of the inputs besides the strike.
        jump: By how much the slope in strike rises across it.
    """

    constant: Fraction
    gradient: tuple[Fraction, ...]
    jump: Fraction

    def strike(self, rest: Sequence[Fraction]) -> Fraction:
        """Where it is, given the other inputs."""
        return self.constant + sum(
            (g * x for g, x in zip(self.gradient, rest, strict=True)), Fraction(0)
        )

    def crosses(self, domain: Domain) -> bool:
        """Whether it goes through the inside of a box."""
        first, last = (self.strike(rest) for rest in self.ends(domain))
        return first < Fraction(domain.high[0]) and last > Fraction(domain.low[0])

    def ends(self, domain: Domain) -> tuple[list[Fraction], list[Fraction]]:
        """The other inputs of the box at which its strike is lowest and highest."""
        ranges = [
            (Fraction(low), Fraction(high))
            if g > 0
            else (Fraction(high), Fraction(low))
            for g, low, high in zip(
                self.gradient, domain.low[1:], domain.high[1:], strict=True
            )
        ]
        return [first for first, _ in ranges], [last for _, last in ranges]


def strike_hinges(network: LayeredNetwork) -> list[Hinge]:
    """The planes on which the slope in strike of a one-layer network may jump.

    Args:
        network: Of one hidden layer.

    Returns:
        Distinct planes; those whose jumps cancel are left out.

    Examples:
        >>> from relu_options.verification.network_reader import layered
        >>> network = layered([([[1.0], [-2.0], [1.0]], [-1.0, 2.0, -3.0]),
        ...                    ([[1.0, -0.25, 1.0]], [0.0])])
        >>> [(str(hinge.constant), str(hinge.jump)) for hinge in strike_hinges(network)]
        [('1', '1/2'), ('3', '1')]
    """
    if not network.layers:
        return []
    (layer,) = network.layers
    jumps: dict[tuple[Fraction, ...], Fraction] = {}
    for row, bias, unit, weight in zip(
        rational(layer.weights),
        rational(layer.biases),
        layer.units,
        rational(network.weights),
        strict=True,
    ):
        if row[0] == 0:
            continue
        gradient = tuple(-a / row[0] for a in row[1:])
        for place, kink in enumerate(unit.kinks):
            plane = ((Fraction(kink) - bias) / row[0], *gradient)
            rise = Fraction(unit.slopes[place + 1]) - Fraction(unit.slopes[place])
            jumps[plane] = jumps.get(plane, Fraction(0)) + weight * rise * abs(row[0])
    return [Hinge(plane[0], plane[1:], jump) for plane, jump in jumps.items() if jump]


def hinge_rows(network: LayeredNetwork, domain: Domain) -> np.ndarray:
    """Jumps across the hinges that cross a domain, by output weight.

    Returns:
        Shape `(m, n)`: the jump across hinge `i` is row `i` times the output weights.
    """
    (layer,) = network.layers
    rows: dict[tuple[Fraction, ...], np.ndarray] = {}
    for k in range(len(layer)):
        alone = replace(
            network,
            layers=(
                HiddenLayer(
                    layer.weights[k : k + 1],
                    layer.biases[k : k + 1],
                    layer.units[k : k + 1],
                ),
            ),
            weights=np.ones(1),
        )
        for hinge in strike_hinges(alone):
            if hinge.crosses(domain):
                plane = (hinge.constant, *hinge.gradient)
                row = rows.setdefault(plane, np.zeros(len(layer)))
                row[k] += float(hinge.jump)
    return np.array(list(rows.values())).reshape(-1, len(layer))


def check_hinges(
    question: Question, network: LayeredNetwork, tolerance: Fraction
) -> Finding:
    """Decide whether a network of one hidden layer is convex in the strike."""
    domain = question.domain
    hinges = strike_hinges(network)
    crossing = [hinge for hinge in hinges if hinge.crosses(domain)]
    method = f"{len(crossing):,} hinge{'s' * (len(crossing) != 1)}"
    if not crossing:
        return Finding(Margin("convex", Fraction(0), None, method))
    worst = min(crossing, key=lambda hinge: hinge.jump)
    rooms = []
    for rest in _places(worst, domain):
        rooms.append((_room(hinges, worst, rest, question), rest))
        if len(rooms) >= _PLACES and max(rooms)[0] > 0:
            break
    room, rest = max(rooms)
    strike = worst.strike(rest)

    def trade(amount: Fraction) -> Counterexample | None:
        if room == 0:
            return None
        return butterfly(question, strike - room, strike, strike + room, rest, amount)

    return exact_finding(
        "convex", worst.jump, (strike, *rest), method, tolerance, trade
    )


def _places(hinge: Hinge, domain: Domain) -> Iterator[list[Fraction]]:
    """Values of the other inputs at which the hinge is inside the domain.

    They are near the diagonal along which its strike rises: in the middle first, and
    then at random, where it meets no other hinge but by accident.
    """
    start, end = hinge.ends(domain)
    bottom, top = Fraction(domain.low[0]), Fraction(domain.high[0])
    first, last = hinge.strike(start), hinge.strike(end)
    enter, leave = Fraction(0), Fraction(1)
    if last > first:
        enter = max(enter, (bottom - first) / (last - first))
        leave = min(leave, (top - first) / (last - first))
    draws = np.random.default_rng(0)
    for number in range(_MOST_PLACES):
        share, shifts = Fraction(1, 2), [Fraction(0)] * len(start)
        if number:
            share = Fraction(int(draws.integers(128, 896)), 1024)
            shifts = [
                Fraction(int(k), 1024) for k in draws.integers(-512, 512, len(start))
            ]
        along = enter + share * (leave - enter)
        place = [x + along * (y - x) for x, y in zip(start, end, strict=True)]
        slack = min(hinge.strike(place) - bottom, top - hinge.strike(place))
        for i, shift in enumerate(shifts):
            reach = min(abs(start[i] - place[i]), abs(end[i] - place[i]))
            if hinge.gradient[i]:
                reach = min(reach, slack / (2 * len(start) * abs(hinge.gradient[i])))
            place[i] = on_grid(place[i] + shift * reach, reach)
        yield place


def _room(
    hinges: list[Hinge], hinge: Hinge, rest: list[Fraction], question: Question
) -> Fraction:
    """How far the strike is from that of the next hinge, or the end of the domain."""
    strike = hinge.strike(rest)
    others = [other.strike(rest) for other in hinges if other is not hinge]
    ends = [question.low(), question.high()]
    return min(abs(other - strike) for other in (*ends, *others))

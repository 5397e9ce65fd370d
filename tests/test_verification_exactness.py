"""No false verdict: networks that are hard on arithmetic, against exact regions."""

import math
import re
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from linear_regions import distance_to_level, linear_regions, margins, slope_range

from relu_options.errors import VerificationError
from relu_options.payoffs.numbers import nearest_float
from relu_options.verification import (
    Counterexample,
    Proof,
    Unknown,
    decision_radius,
    delta_bound,
    layered,
    price_radius,
    repair,
    simplify,
    verify_no_arbitrage,
)

BOXES = [(0.5, 1.5), (0.25, 1.0), (-0.5, 0.5), (0.0, 2.0)]
ACTIVATIONS = ["relu", "relu", "relu", "leaky", "clipped"]
UNITS = {"relu": {}, "leaky": {"alpha": 0.125}, "clipped": {"width": 0.5}}
SHAPES = {1: [5, 3, 2], 2: [5, 3, 2], 3: [4, 2, 2], 4: [3, 2, 1]}
"""Units of each layer in networks of one, two and three layers, by inputs."""


def hard_numbers(rng, kind, shape):
    """Weights of one kind."""
    if kind == "integers":
        return rng.integers(-2, 3, shape).astype(float)
    if kind == "wide":
        return rng.choice([-1.0, 0.0, 1.0], shape) * 2.0 ** rng.integers(
            -600, 601, shape
        )
    if kind == "subnormal":
        return rng.integers(-2, 3, shape) * 2.0 ** rng.choice([-1074, -1060, 0], shape)
    return rng.normal(size=shape)


def hard_network(rng, inputs, kinds=("integers", "normal", "wide", "subnormal")):
    """Coincident and bordering hinges, copies, zero rows; weights of any size."""
    depth = int(rng.integers(1, 4))
    sizes = [inputs, *[SHAPES[inputs][depth - 1]] * depth, 1]
    low, high = np.array(BOXES[:inputs]).T
    kind = rng.choice(kinds)
    arrays = []
    for fan_in, fan_out in pairwise(sizes):
        mixed = rng.choice(["integers", kind])
        weights = hard_numbers(rng, mixed, (fan_out, fan_in))
        biases = hard_numbers(rng, mixed, fan_out)
        if fan_out > 1:
            for k in range(fan_out):
                what = rng.integers(8)
                if what == 0:  # a zero row
                    weights[k] = 0.0
                elif what == 1:  # a copy of another unit, perhaps turned round
                    other, factor = rng.integers(fan_out), rng.choice([-2.0, -1.0, 1.0])
                    weights[k], biases[k] = (
                        factor * weights[other],
                        factor * biases[other],
                    )
                elif what == 2 and not arrays:  # through a corner of the box
                    corner = np.where(rng.integers(2, size=fan_in), low, high)
                    biases[k] = -weights[k] @ corner
                elif what == 3 and not arrays:  # along a face of the box
                    axis = rng.integers(fan_in)
                    weights[k] = np.where(np.arange(fan_in) == axis, weights[k], 0.0)
                    biases[k] = -weights[k, axis] * rng.choice([low[axis], high[axis]])
                elif what == 4:  # a kink at zero
                    biases[k] = 0.0
        arrays.append((weights, biases))
    activation = rng.choice(ACTIVATIONS)
    return layered(arrays, activation=activation, **UNITS[activation])


def check_verdict(network, box, truth, tally):
    """Every margin is the reference's, to its tolerance, and trades are exact."""
    verdict = verify_no_arbitrage(network, box, time_limit=20.0)
    assert isinstance(verdict, Proof | Counterexample | Unknown)
    refuted = {}
    if isinstance(verdict, Counterexample):
        refuted = {found.condition: found for found in (verdict, *verdict.further)}
    decided = {margin.condition: margin for margin in verdict.margins}
    for name, least in truth.items():
        if name not in decided:
            tally["unknown"] += 1
            continue
        tally["agree"] += 1
        margin = decided[name]
        value = Fraction(margin.value)
        if name in refuted:
            assert least <= value < 0, (name, margin, least)
            check_trade(network, refuted[name])
        else:
            assert least >= -Fraction(margin.tolerance), (name, margin, least)
            assert value >= -Fraction(margin.tolerance)
        if len(box) < 3:
            assert margin.tolerance == 0.0
            if name != "convex" or least < 0:  # facets without a jump count or not
                assert value - least <= abs(least) * Fraction(1, 2**32)
    return verdict


def check_trade(network, found):
    """It costs less than nothing at prices that are the network's."""
    assert found.cost < 0
    others = [Fraction(x) for x in found.others.values()]
    for leg, (strike, price) in enumerate(
        zip(found.strikes, found.prices, strict=True)
    ):
        time = [] if found.times is None else [found.times[leg]]
        assert network.exact([strike, *time, *others]) == price


def check_slopes(network, box, regions, tally):
    """The range of slopes is the reference's; exactly with one input or two."""
    for axis in range(len(box)):
        try:
            bound = delta_bound(network, box, of_input=axis, time_limit=20.0)
        except VerificationError:
            tally["unknown"] += 1
            continue
        low, high = slope_range(regions, axis)
        room = Fraction(bound.tolerance)
        assert low <= bound.low <= low + room, (axis, bound, low, high)
        assert high - room <= bound.high <= high, (axis, bound, low, high)
        assert max(-low, high) - room <= bound.lipschitz
        tally["agree"] += 1


def check_simplified(network, box, regions):
    """The same function at all corners of all regions."""
    simple = simplify(network, box)
    assert simple.number_of_kinks <= network.number_of_kinks
    for region in regions:
        for point, value in region.values():
            assert simple.exact(point) == network.exact(point) == value


def check_radii(rng, network, box, regions, tally):
    """The distances to levels are the reference's, to their tolerance."""
    low, high = np.array(box).T
    point = (low + (high - low) * rng.integers(0, 5, len(box)) / 4).tolist()
    start = [Fraction(x) for x in point]
    scales = rng.choice([0.5, 1.0, 2.0], len(box)).tolist()
    units = [Fraction(s) for s in scales]
    values = [value for region in regions for _, value in region.values()]
    value = network.exact(start)
    step = (max(values) - min(values)) * Fraction(int(rng.integers(1, 6)), 8)
    move = nearest_float(step)
    asked = []
    if 0.0 < move < np.inf:
        levels = [(value + Fraction(move), 1), (value - Fraction(move), -1)]
        asked.append((price_radius, (move,), levels))
    asked.append((decision_radius, (), [(Fraction(0), -1 if value > 0 else 1)]))
    for radius, terms, levels in asked:
        try:
            found = radius(network, point, *terms, box, scales=scales, time_limit=20.0)
        except VerificationError:
            tally["unknown"] += 1
            continue
        reached = [
            distance_to_level(network, box, start, units, level, sign)
            for level, sign in levels
        ]
        truth = min((r for r in reached if r is not None), default=np.inf)
        tally["agree"] += 1
        if not found.tolerance or found.radius == np.inf or truth == np.inf:
            assert found.radius == truth, (radius, found, truth)
        else:
            room = found.tolerance * max(1.0, float(truth))
            assert abs(found.radius - float(truth)) <= room, (radius, found, truth)


def check_repair(network, box, tally):
    """What is proved of a repaired network is true."""
    try:
        result = repair(network, box, time_limit=20.0)
    except VerificationError:
        tally["unknown"] += 1
        return
    assert min(margins(result.network, box).values()) >= 0
    tally["agree"] += 1


@pytest.mark.parametrize("inputs", [1, 2])
def test_hard_networks_get_no_false_verdict(inputs):
    """Of one input and two: margins, slopes, radii and repairs are the reference's."""
    exact, rest = {"agree": 0, "unknown": 0}, {"agree": 0, "unknown": 0}
    for seed in range(50):
        rng = np.random.default_rng([inputs, seed])
        network, box = hard_network(rng, inputs), BOXES[:inputs]
        regions = linear_regions(network, box)
        check_verdict(network, box, margins(network, box), exact)
        check_slopes(network, box, regions, exact)
        check_simplified(network, box, regions)
        check_radii(rng, network, box, regions, exact)
        if seed % 4 == 0:
            check_repair(network, box, rest)
    assert exact["unknown"] == 0
    assert rest["agree"] > 0


@pytest.mark.parametrize(("inputs", "count"), [(3, 24), (4, 8)])
def test_hard_networks_of_more_inputs_get_no_false_verdict(inputs, count):
    """By programmes: margins, slopes and radii to their tolerance, or unknown."""
    tally = {"agree": 0, "unknown": 0}
    for seed in range(count):
        rng = np.random.default_rng([inputs, seed])
        kinds = ("integers", "normal") if seed % 4 else ("wide", "subnormal")
        network, box = hard_network(rng, inputs, kinds), BOXES[:inputs]
        regions = linear_regions(network, box)
        check_verdict(network, box, margins(network, box), tally)
        check_slopes(network, box, regions, tally)
        if seed % 6 == 1:
            check_simplified(network, box, regions)
            check_radii(rng, network, box, regions, tally)
    assert tally["agree"] > 2 * tally["unknown"]


def test_slopes_are_those_of_a_region():
    """Not of pieces that occur where hinges coincide, or on the border, alone."""
    box = {"strike": (0.5, 1.5), "time": (0.25, 1.0), "x": (0.5, 1.5)}
    opposite = [([[1, 0, -1], [-1, 0, 1]], [0, 0]), ([[1, -1]], [0])]
    bound = delta_bound(opposite, box)
    assert (bound.low, bound.high) == (1, 1)
    bordering = [([[1, 0, 0], [-1, 0, 0]], [-0.5, 0.5]), ([[1, 5]], [0])]
    bound = delta_bound(bordering, box)
    assert (bound.low, bound.high) == (1, 1)
    # In the second layer: max(h, 0) and max(-h, 0) of h = (x - K)^+ - (K - x)^+ / 2.
    deep = [
        ([[1, 0, -1], [-1, 0, 1]], [0, 0]),
        ([[1, -0.5], [-1, 0.5]], [0, 0]),
        ([[1, -1]], [0]),
    ]
    bound = delta_bound(deep, box)
    assert (bound.low, bound.high) == (Fraction(1, 2), 1)
    proof = verify_no_arbitrage(
        [*deep[:2], ([[-1, 1]], [0])], box, conditions="decreasing"
    )
    assert isinstance(proof, Proof)


def test_a_level_that_is_only_touched_is_reached():
    """At the corner where the value falls to 0, one is indifferent: it counts."""
    network = [([[1.0, 0.0], [0.0, 1.0]], [-0.5, -0.25]), ([[1.0, 1.0]], [0.0])]
    found = decision_radius(network, [1.0, 0.75], {"spot": (0.5, 1.5), "T": (0.25, 1)})
    assert (found.radius, found.there) == (Fraction(1, 2), 0)
    assert found.nearest == (Fraction(1, 2), Fraction(1, 4))


def test_what_underflows_is_not_taken_for_zero():
    """Slope 1 through 2**-1200, which no float holds: f(1) = 0 and f(1.5) = 1/2."""
    tiny = 2.0**-600
    network = [
        ([[1, 0], [tiny, 0]], [-1, 0]),
        ([[1, 0], [0, -tiny]], [0, 0]),
        ([[1, 0], [0, 1 / tiny]], [0, 0]),
        ([[1, 1 / tiny]], [0]),
    ]
    domain = {"strike": (0.5, 1.5), "time": (0.5, 1.5)}
    found = verify_no_arbitrage(network, domain, conditions=["decreasing"])
    assert isinstance(found, Counterexample)
    assert found.amount == 1
    bound = delta_bound(network, domain)
    assert (bound.low, bound.high) == (0, 1)
    simple = simplify(network, domain)
    assert simple.exact([Fraction(3, 2), 1]) == Fraction(1, 2)


def test_an_intrinsic_value_that_underflows_is_a_bound():
    """A price of 0 is below D (F - K) of 1e-400."""
    network = [([[0.0, 0.0]], [0.0]), ([[1.0]], [0.0])]
    domain = {"strike": (0.0, 1e-200), "time": (0.5, 1.5)}
    found = verify_no_arbitrage(
        network, domain, conditions="bounds", forward=1e-200, discount_factor=1e-200
    )
    assert isinstance(found, Counterexample)
    assert found.cost < 0


def test_what_overflows_is_decided():
    """Slopes of 2**1200, which no float holds, in tables and messages too."""
    huge = 2.0**600
    network = [([[huge, 0.0], [1.0, 0.0]], [-huge, 0.0]), ([[huge, -1.0]], [0.0])]
    domain = {"strike": (0.5, 1.5), "time": (0.5, 1.5)}
    found = verify_no_arbitrage(network, domain)
    assert isinstance(found, Counterexample)
    assert {trade.condition for trade in (found, *found.further)} >= {"decreasing"}
    margins_ = found.to_frame()["margin"]
    assert margins_["decreasing"] == -np.inf
    assert re.search(r"costs -\d\.\d+e\+36\d", repr(found))
    bound = delta_bound(network, domain)
    assert (bound.low, bound.high) == (-1, Fraction(huge) ** 2 - 1)
    assert "to 1.72185e+361" in repr(bound)


@pytest.mark.parametrize("power", [0, 300, 600, -300, -600])
def test_the_product_of_norms_over_the_slope_is_one_number_at_any_scale(power, rng):
    """Both grow with the weights: beyond floats, and below them, by powers of two."""
    hidden, out = rng.normal(size=(5, 2)), rng.normal(size=(1, 5))
    box = {"strike": (0.5, 1.5), "time": (0.5, 1.5)}
    bias = rng.normal(size=5)
    bound = delta_bound([(hidden, bias), (out, [0.0])], box)
    scale = 2.0**power
    scaled = delta_bound([(scale * hidden, scale * bias), (scale * out, [0.0])], box)
    assert scaled.lipschitz == bound.lipschitz * Fraction(scale) ** 2
    assert scaled.ratio == pytest.approx(bound.ratio, rel=1e-12)
    assert f", {bound.ratio:.3g} times as large" in repr(scaled)
    assert not re.search("nan|inf", repr(scaled))


def test_norms_stand_beside_slopes_that_are_none_or_much_smaller():
    box, far = {"strike": (0.5, 1.5)}, 2.0**900
    undone = delta_bound([([[far], [far]], [0, 0]), ([[far, -far]], [0])], box)
    assert re.search(r"\(slopes 0 to 0, product of norms 1\.4\d+e\+542; ", repr(undone))
    rest = delta_bound([([[far], [far], [1]], [0, 0, 0]), ([[far, -far, 1]], [0])], box)
    assert (rest.lipschitz, rest.ratio) == (1, math.inf)
    assert re.search(r" norms 1\.4\d+e\+542, 1\.4\de\+542 times as large", repr(rest))
    tiny = delta_bound([([[1 / far]], [0]), ([[1 / far]], [0])], box)
    assert re.search(r"\(slopes 1\.\d+e-542 to 1\.\d+e-542, .*, 1 times", repr(tiny))

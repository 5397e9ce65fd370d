"""Verdicts on networks: exact, complete, and with the trade that refutes."""

import time
from fractions import Fraction
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import relu_options as ro
from relu_options.arbitrage import cover_chain
from relu_options.errors import VerificationError
from relu_options.verification import (
    Counterexample,
    Proof,
    Unknown,
    hidden_unit,
    layered,
    sensitivity,
    verify_no_arbitrage,
)
from relu_options.verification.conditions import check_regions
from relu_options.verification.domain import domain_of
from relu_options.verification.hinges import check_hinges
from relu_options.verification.regions import enumerate_regions
from relu_options.verification.results import simplest
from relu_options.verification.search import Optimum
from relu_options.verification.trades import Question

BOX = [(0.5, 1.5), (0.05, 2.0)]
LOW, HIGH = np.array([0.5, 0.05, 0.1, 0.0]), np.array([1.5, 2.0, 0.4, 0.06])
UNITS = {"relu": {}, "leaky": {"alpha": 0.125}, "clipped": {"width": 0.3}}


def random_arrays(rng, *sizes, activation="relu", coincident=0):
    """Weights whose kinks cross the domain; some of the first layer twice."""
    unit = hidden_unit(activation, **UNITS[activation])
    inputs = sizes[0]
    points = rng.uniform(LOW[:inputs], HIGH[:inputs], (200, inputs))
    arrays = []
    for fan_in, fan_out in pairwise(sizes[:-1]):
        weights = rng.normal(size=(fan_out, fan_in)) / np.sqrt(fan_in)
        through = points[rng.integers(len(points), size=fan_out)]
        biases = -(weights * through).sum(axis=1)
        if not arrays:
            for k in range(coincident):
                factor = rng.choice([-2.0, 0.5, 4.0])
                weights[-1 - k], biases[-1 - k] = (
                    factor * weights[k],
                    factor * biases[k],
                )
        arrays.append((weights, biases))
        points = unit(points @ weights.T + biases)
    return [*arrays, (rng.normal(size=(1, sizes[-2])), rng.normal(size=1))]


def random_network(rng, *sizes, activation="relu", coincident=0):
    arrays = random_arrays(rng, *sizes, activation=activation, coincident=coincident)
    return layered(arrays, activation=activation, **UNITS[activation])


def convex_network(rng, *sizes):
    """Convex in its inputs: weights behind the first layer are not negative."""
    (weights, biases), *rest = random_arrays(rng, *sizes)
    return [(weights, biases), *((np.abs(w), b) for w, b in rest)]


def gradient(network, points):
    """By automatic differentiation, which knows nothing of regions."""
    layers = [
        (jnp.array(x.weights), jnp.array(x.biases), x.units) for x in network.layers
    ]

    def value(x):
        for weights, biases, units in layers:
            y, x = weights @ x + biases, 0.0
            slopes, kinks = units[0].slopes, units[0].kinks
            x = slopes[0] * y + sum(
                (after - before) * jax.nn.relu(y - kink)
                for before, after, kink in zip(slopes, slopes[1:], kinks, strict=False)
            )
        return x @ jnp.array(network.weights) + network.bias

    return np.asarray(jax.vmap(jax.grad(value))(jnp.asarray(points)))


def assert_earns(found) -> Counterexample:
    """The trade of a counterexample costs less than nothing and cannot lose."""
    assert isinstance(found, Counterexample)
    assert isinstance(found.cost, Fraction)
    assert found.cost < 0
    assert found.amount > 0
    trade = found.as_trade()
    if isinstance(trade, dict):
        assert found.condition == "calendar"
        early, late = trade
        assert early < late
        legs = list(trade.values())
        covered = cover_chain(
            expiry=[0, 1],
            strike=[float(leg.strikes[0]) for leg in legs],
            is_call=[True, True],
            quantity=[float(leg.quantities[0]) for leg in legs],
            price=[1.0, 1.0],
            forwards=[float(found.forward)] * 2,
            discount_factors=[float(found.discount_factor)] * 2,
        )
        assert covered.worst_payoff >= 0.0
        assert covered.cash_quantity == covered.forward_quantity == 0.0
    else:
        assert trade.payoff().exactly().bounds()[0] >= 0
        assert trade.cost() == pytest.approx(float(found.cost), rel=1e-6, abs=1e-14)
    return found


def assert_prices_are_the_network_s(found, network):
    """Prices of the legs are the network's, in rational arithmetic."""
    rest = [Fraction(x) for x in found.others.values()]
    for leg, (strike, price) in enumerate(
        zip(found.strikes, found.prices, strict=True)
    ):
        time_ = [] if found.times is None else [found.times[leg]]
        assert network.exact([strike, *time_, *rest]) == price


# --- Linear regions ------------------------------------------------------------------


@pytest.mark.parametrize("activation", UNITS)
@pytest.mark.parametrize("sizes", [(2, 12, 1), (2, 8, 8, 1), (2, 5, 5, 5, 1)])
def test_regions_tile_the_domain(rng, sizes, activation):
    """Their areas add up exactly, and they meet edge to edge (Euler's formula)."""
    network = random_network(rng, *sizes, activation=activation, coincident=2)
    regions = enumerate_regions(network, domain_of(BOX, 2))
    area, edges = Fraction(0), set()
    for region, polygon in enumerate(regions.polygons):
        outline = regions.outline(region)
        twice = sum(
            p[0] * q[1] - p[1] * q[0]
            for p, q in zip(outline, outline[1:] + outline[:1], strict=True)
        )
        assert twice > 0
        area += twice / 2
        edges |= {
            frozenset(pair)
            for pair in zip(polygon, polygon[1:] + polygon[:1], strict=True)
        }
    low, high = ([Fraction(x) for x in ends] for ends in zip(*BOX, strict=True))
    assert area == (high[0] - low[0]) * (high[1] - low[1])
    used = {corner for polygon in regions.polygons for corner in polygon}
    assert len(used) - len(edges) + len(regions) == 1
    on_the_edge = [
        edge
        for edge in edges
        if any(
            len({regions.exact_point(c)[axis] for c in edge} | {end}) == 1
            for axis in (0, 1)
            for end in (low[axis], high[axis])
        )
    ]
    assert len(regions.facets) == len(edges) - len(on_the_edge)


@pytest.mark.parametrize("activation", UNITS)
def test_gradients_of_regions_are_those_of_automatic_differentiation(rng, activation):
    network = random_network(rng, 2, 8, 8, 1, activation=activation)
    regions = enumerate_regions(network, domain_of(BOX, 2))
    middles = np.array([regions.points[list(p)].mean(axis=0) for p in regions.polygons])
    truth = gradient(network, middles)
    np.testing.assert_allclose(regions.gradients.value, truth, atol=1e-12)
    error = np.abs(
        [
            [float(x) for x in regions.exact_gradient(region)] - truth[region]
            for region in range(0, len(regions), 7)
        ]
    )
    assert error.max() < 1e-12
    assert (regions.gradients.error < 1e-11).all()


def test_slope_jumps_are_finite_differences(rng):
    """Of 1000 facets: the second difference over its step, in rationals."""
    seen = 0
    for activation in ("relu", "leaky", "clipped"):
        for sizes in ((2, 24, 1), (2, 16, 16, 1)):
            network = random_network(rng, *sizes, activation=activation)
            regions = enumerate_regions(network, domain_of(BOX, 2))
            across = np.flatnonzero(regions.facets.across_strike)
            for facet in rng.choice(across, min(len(across), 250), replace=False):
                ends = [regions.exact_point(c) for c in regions.facets.corners[facet]]
                strike, height = ((p + q) / 2 for p, q in zip(*ends, strict=True))
                step = _room(regions, facet, strike, height)
                prices = [
                    network.exact([strike + k * step, height]) for k in (-1, 0, 1)
                ]
                bend = (prices[0] - 2 * prices[1] + prices[2]) / step
                assert bend == regions.exact_slope_jump(facet)
                jumps = regions.slope_jumps
                assert abs(jumps.value[facet] - float(bend)) <= jumps.error[facet]
                seen += 1
    assert seen >= 1000


def _room(regions, facet, strike, height):
    """Half of how far the strike can move from a facet within its two regions."""
    room = []
    for region in (regions.facets.below[facet], regions.facets.above[facet]):
        outline = regions.outline(region)
        crossings = []
        for p, q in zip(outline, outline[1:] + outline[:1], strict=True):
            if p[1] != q[1] and min(p[1], q[1]) <= height <= max(p[1], q[1]):
                share = (height - p[1]) / (q[1] - p[1])
                crossings.append(p[0] + share * (q[0] - p[0]))
        room.append(max(abs(x - strike) for x in crossings))
    return min(room) / 2


# --- One hidden layer ----------------------------------------------------------------


def test_hinge_rule_agrees_with_enumeration(rng):
    """On 100 of 100 networks, half of them convex, some with coincident hinges."""
    verdicts = []
    for number in range(100):
        arrays = random_arrays(rng, 2, 10, 1, coincident=number % 4)
        if number % 2:
            weights, bias = arrays[-1]
            arrays[-1] = np.abs(weights), bias
        if number % 6 == 3:  # a negative weight on a hinge that is covered by another
            weights, bias = arrays[-1]
            weights[0, 0] = -0.25 * abs(arrays[-1][0][0, -1])
        network = layered(arrays)
        box = domain_of(BOX, 2)
        question = Question(network.in_integers, box, Fraction(1), Fraction(1))
        by_rule = check_hinges(question, network, Fraction(0))
        regions = enumerate_regions(network, box)
        (by_regions,) = check_regions(question, regions, ("convex",), Fraction(0))
        assert by_rule.margin is not None
        assert by_regions.margin is not None
        fails = by_rule.counterexample is not None
        assert fails == (by_regions.counterexample is not None)
        if fails:
            assert by_rule.margin.value == by_regions.margin.value
            assert_earns(by_rule.counterexample)
            assert_earns(by_regions.counterexample)
        verdicts.append(fails)
    assert 20 < sum(verdicts) < 80


@pytest.mark.parametrize("sizes", [(1, 20, 1), (2, 20, 1), (3, 20, 1), (2, 8, 8, 1)])
def test_a_planted_hinge_of_minus_1e_12_is_found(rng, sizes):
    arrays = convex_network(rng, *sizes)
    domain = list(zip(LOW, HIGH, strict=True))[: sizes[0]]
    assert isinstance(verify_no_arbitrage(arrays, domain, conditions="convex"), Proof)
    (weights, biases), *rest = arrays
    planted = rng.normal(size=(1, sizes[0]))
    middle = 0.5 * (LOW + HIGH)[: sizes[0]]
    planted_bias = -planted @ middle
    if len(sizes) == 3:
        arrays = [
            (np.vstack([weights, planted]), np.append(biases, planted_bias)),
            (np.append(rest[0][0], [[-1e-12]], axis=1), rest[0][1]),
        ]
    else:  # carried to the output by a unit of its own
        deep, deep_bias = rest[0]
        wider = np.zeros((len(deep) + 1, deep.shape[1] + 1))
        wider[:-1, :-1], wider[-1, -1] = deep, 1.0
        arrays = [
            (np.vstack([weights, planted]), np.append(biases, planted_bias)),
            (wider, np.append(deep_bias, 0.0)),
            (np.append(rest[1][0], [[-1e-12]], axis=1), rest[1][1]),
        ]
    found = assert_earns(verify_no_arbitrage(arrays, domain, conditions="convex"))
    assert float(found.amount) == pytest.approx(1e-12 * abs(planted[0, 0]), rel=1e-3)
    assert isinstance(
        verify_no_arbitrage(arrays, domain, conditions="convex", tolerance=1e-11),
        Proof,
    )


@pytest.mark.parametrize("place", range(40))
def test_networks_of_small_integers_are_decided(place):
    """Hinges that meet in one point, coincide or cancel: regions still fit together.

    Whatever a programme proves of them is true, and it may say that it does not know.
    """
    rng = np.random.default_rng(place)
    sizes = [(2, 6, 1), (2, 5, 5, 1), (2, 4, 4, 4, 1)][place % 3]
    activation = ["relu", "leaky", "clipped"][place % 4 % 3]
    arrays = [
        (
            rng.integers(-2, 3, (m, n)).astype(float),
            rng.integers(-3, 4, m).astype(float),
        )
        for n, m in pairwise(sizes)
    ]
    settings: dict[str, Any] = {"activation": activation, **UNITS[activation]}
    box = [(0.0, 3.0), (0.0, 2.0)]
    network = layered(arrays, **settings)
    regions = enumerate_regions(network, domain_of(box, 2))
    for region, polygon in enumerate(regions.polygons):
        outline, slope = regions.outline(region), regions.exact_gradient(region)
        start, value = outline[0], regions.exact_value(polygon[0])
        for corner, point in zip(polygon[1:], outline[1:], strict=True):
            rise = slope[0] * (point[0] - start[0]) + slope[1] * (point[1] - start[1])
            assert regions.exact_value(corner) == value + rise
    verdict = verify_no_arbitrage(network, box)
    margins = verdict.to_frame()
    assert len(margins) == 5
    for found in (verdict, *getattr(verdict, "further", ())):
        if isinstance(found, Counterexample):
            assert_earns(found)
    for _ in range(30):  # butterflies anywhere
        time_, half = Fraction(int(rng.integers(0, 17)), 8), Fraction(1, 4)
        strike = half + Fraction(int(rng.integers(0, 11)), 4)
        low, at, high = (network.exact([strike + k * half, time_]) for k in (-1, 0, 1))
        assert low - 2 * at + high >= 0 or not margins.loc["convex", "holds"]
    programme = verify_no_arbitrage(
        network, box, method="programme", conditions="slope"
    )
    if not isinstance(programme, Unknown):
        assert bool(programme) == margins.loc["slope", "holds"]


def test_a_hinge_is_judged_where_no_other_hinge_meets_it():
    """In the middle of the first hinge, where T is 1, another one makes up for it."""
    network = [
        ([[1.0, -1.0], [1.0, 0.0]], [0.0, -1.0]),
        ([[-2.0, 2.0]], [0.0]),
    ]
    domain = [(0.0, 2.0), (0.0, 2.0)]
    found = assert_earns(verify_no_arbitrage(network, domain, conditions="convex"))
    assert found.amount == 2
    assert found.times is not None
    assert found.times[0] != 1


def test_hinges_outside_the_domain_do_not_matter():
    network = [([[1.0, 0.0], [1.0, 0.0]], [-1.0, -9.0]), ([[1.0, -1.0]], [0.0])]
    assert verify_no_arbitrage(network, BOX, conditions="convex")
    wide = [(0.5, 10.0), BOX[1]]
    found = assert_earns(verify_no_arbitrage(network, wide, conditions="convex"))
    assert found.amount == 1
    assert Fraction(9) in found.strikes


def test_coincident_hinges_are_added_up():
    """-1 and +2 at one place is a convex kink; so is a hinge of the other side."""
    for second in ([1.0, 0.5], [-1.0, -0.5]):
        network = [([[1.0, 0.5], second], [-1.5, -1.5 * second[0]])]
        network.append(([[-1.0, 2.0]], [0.0]))
        assert verify_no_arbitrage(network, BOX, conditions="convex")
        network[1] = ([[-1.0, 0.5]], [0.0])
        found = assert_earns(verify_no_arbitrage(network, BOX, conditions="convex"))
        assert found.amount == Fraction(1, 2)


# --- One input -----------------------------------------------------------------------


def test_price_curves_are_proved(rng):
    """Positive weights that add up to the discounted forward: all conditions hold."""
    for _ in range(20):
        kinks = np.sort(rng.uniform(20.0, 300.0, 12))
        weights = rng.dirichlet(np.ones(12)) * 0.95
        curve = ro.PriceNetwork(jnp.array(kinks), jnp.array(weights), jnp.zeros(12))
        discount = sum(Fraction(w) for w in weights.tolist())
        forward = float(weights @ kinks / float(discount))
        terms: dict[str, Any] = {
            "forward": forward,
            "discount_factor": float(discount) * (1 + 1e-14),
        }
        names = ("convex", "decreasing", "slope")
        proof = verify_no_arbitrage(curve, [(0.0, 400.0)], conditions=names, **terms)
        assert isinstance(proof, Proof)
        assert proof.is_exact
        assert proof.conditions == names
        margins = proof.to_frame()
        assert margins["holds"].all()
        inside = weights[(kinks > 0.0) & (kinks < 400.0)].min()
        assert margins.loc["convex", "margin"] == pytest.approx(inside, abs=1e-14)
        # Bounds are equalities at a strike of zero: they hold to rounding only.
        loose = verify_no_arbitrage(
            curve, [(0.0, 400.0)], conditions="bounds", tolerance=1e-9, **terms
        )
        assert isinstance(loose, Proof)
        assert loose.tolerance == 1e-9


@pytest.mark.parametrize("activation", UNITS)
def test_deep_networks_of_one_input_against_a_fine_grid(rng, activation):
    """Margins are those of differences between the points where the slope changes."""
    for _ in range(10):
        network = random_network(rng, 1, 6, 6, 1, activation=activation)
        verdict = verify_no_arbitrage(network, BOX[:1])
        table = verdict.to_frame()
        strikes = np.linspace(0.5, 1.5, 20_001)
        prices = network(strikes)
        slopes = np.diff(prices) / np.diff(strikes)
        assert table.loc["decreasing", "margin"] <= -slopes.max() + 1e-9
        assert table.loc["slope", "margin"] <= slopes.min() + 1.0 + 1e-9
        # Two cells of the grid without a kink attain them.
        inner = -np.sort(-slopes)[:40]
        assert table.loc["decreasing", "margin"] == pytest.approx(-inner[0], abs=1e-6)
        floor = np.maximum(1.0 - strikes, 0.0)
        worst = min((prices - floor).min(), (1.0 - prices).min())
        assert table.loc["bounds", "margin"] == pytest.approx(worst, abs=1e-3)
        for found in (verdict, *getattr(verdict, "further", ())):
            assert_earns(found)
            assert_prices_are_the_network_s(found, network)


# --- Strike and time -----------------------------------------------------------------


@pytest.mark.parametrize("activation", UNITS)
@pytest.mark.parametrize("sizes", [(2, 16, 1), (2, 8, 8, 1)])
def test_every_violation_is_a_trade(rng, sizes, activation):
    """Of unconstrained networks: exact costs below zero, payoffs never negative."""
    conditions = set()
    for _ in range(4):
        network = random_network(rng, *sizes, activation=activation)
        verdict = verify_no_arbitrage(network, BOX)
        assert isinstance(verdict, Counterexample)
        assert not verdict
        for found in (verdict, *verdict.further):
            assert_earns(found)
            assert_prices_are_the_network_s(found, network)
            conditions.add(found.condition)
            margin = next(m for m in verdict.margins if m.condition == found.condition)
            assert margin.value == -found.amount
    assert conditions == {"convex", "decreasing", "slope", "calendar", "bounds"}


def test_margins_bound_what_samples_find(rng):
    """Slopes of 20,000 points are inside, and the worst region attains its margin."""
    network = random_network(rng, 2, 10, 10, 1)
    table = verify_no_arbitrage(network, BOX).to_frame()
    points = rng.uniform(LOW[:2], HIGH[:2], (20_000, 2))
    slopes = gradient(network, points)
    prices = network(points)
    sampled = {
        "decreasing": -slopes[:, 0].max(),
        "slope": 1.0 + slopes[:, 0].min(),
        "calendar": slopes[:, 1].min(),
        "bounds": min(
            (prices - np.maximum(1.0 - points[:, 0], 0.0)).min(), (1.0 - prices).min()
        ),
    }
    for name, worst in sampled.items():
        assert table.loc[name, "margin"] <= worst + 1e-12
        if name != "bounds":
            at = table.loc[name, ["strike", "time"]].to_numpy(float)
            slope = gradient(network, at[None])[0]
            there = {"decreasing": -slope[0], "slope": 1.0 + slope[0]}.get(
                name, slope[1]
            )
            assert table.loc[name, "margin"] == pytest.approx(there, abs=1e-12)


def test_a_convex_decreasing_surface_is_proved():
    """Units that fall with the strike and rise with time, bounded by construction."""
    # c(k, T) = 0.25 (1 + 2 T - k)^+ + 0.75 (1 + T / 2 - k)^+, on k <= 1: above 1 - k.
    network = [
        ([[-1.0, 0.5], [-1.0, 0.25]], [1.0, 1.0]),
        ([[0.25, 0.75]], [0.0]),
    ]
    proof = verify_no_arbitrage(network, {"strike": (0.5, 1.5), "time": (0.0, 1.0)})
    assert isinstance(proof, Proof)
    assert proof
    table = proof.to_frame()
    assert table.loc["convex", "margin"] == 0.25
    assert table.loc["decreasing", "margin"] == 0.0
    assert table.loc["slope", "margin"] == 0.0
    assert table.loc["calendar", "margin"] == 0.0
    assert table.loc["bounds", "margin"] == 0.0
    assert "exactly" in repr(proof)


def test_second_input_may_be_no_time():
    network = [([[-1.0, 1.0]], [1.0]), ([[1.0]], [0.0])]
    names = {"strike": (0.5, 1.5), "volatility": (0.1, 0.4)}
    verdict = verify_no_arbitrage(network, names, conditions=["convex", "decreasing"])
    assert isinstance(verdict, Proof)
    assert "calendar" not in verify_no_arbitrage(network, names).to_frame().index
    with pytest.raises(ValueError, match="needs a time"):
        verify_no_arbitrage(network, names, conditions=["calendar"])
    falling = [([[1.0, 1.0]], [-1.0]), ([[1.0]], [0.0])]
    found = assert_earns(verify_no_arbitrage(falling, names, conditions=["decreasing"]))
    assert found.times is None
    assert list(found.others) == ["volatility"]


# --- Mixed-integer programmes --------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "activation"),
    [
        ((2, 12, 1), "relu"),
        ((2, 6, 6, 1), "relu"),
        ((2, 5, 4, 1), "leaky"),
        ((2, 4, 4, 1), "clipped"),
    ],
)
def test_programmes_agree_with_enumeration(rng, sizes, activation):
    """To 1e-9, in every condition, convexity of deep networks included."""
    network = random_network(rng, *sizes, activation=activation)
    exact = verify_no_arbitrage(network, BOX)
    programme = verify_no_arbitrage(network, BOX, method="programme")
    np.testing.assert_allclose(
        programme.to_frame()["margin"], exact.to_frame()["margin"], atol=1e-9
    )
    for found in (programme, *getattr(programme, "further", ())):
        assert_earns(found)


def test_a_programme_s_proof_says_to_what_tolerance(rng):
    arrays = convex_network(rng, 2, 6, 6, 1)
    proof = verify_no_arbitrage(arrays, BOX, conditions="convex", method="programme")
    assert isinstance(proof, Proof)
    assert not proof.is_exact
    assert 0.0 < proof.tolerance < 1e-3
    exact = verify_no_arbitrage(arrays, BOX, conditions="convex")
    assert isinstance(exact, Proof)
    assert exact.is_exact


@pytest.mark.parametrize("sizes", [(4, 10, 1), (3, 5, 5, 1)])
def test_more_inputs_exceed_what_samples_find(rng, sizes):
    network = random_network(rng, *sizes)
    domain = list(zip(LOW, HIGH, strict=True))[: sizes[0]]
    verdict = verify_no_arbitrage(network, domain)
    table = verdict.to_frame()
    points = rng.uniform(LOW[: sizes[0]], HIGH[: sizes[0]], (50_000, sizes[0]))
    slopes, prices = gradient(network, points), network(points)
    sampled = {
        "decreasing": -slopes[:, 0].max(),
        "slope": 1.0 + slopes[:, 0].min(),
        "calendar": slopes[:, 1].min(),
        "bounds": min(
            (prices - np.maximum(1.0 - points[:, 0], 0.0)).min(), (1.0 - prices).min()
        ),
    }
    for name, worst in sampled.items():
        assert table.loc[name, "margin"] <= worst + 1e-9
    for found in (verdict, *getattr(verdict, "further", ())):
        assert_earns(found)
        assert_prices_are_the_network_s(found, network)


def test_an_idle_third_input_changes_nothing(rng):
    """Programmes for three inputs against the exact regions of two, convexity too."""
    arrays = random_arrays(rng, 2, 5, 5, 1)
    (weights, biases), *rest = arrays
    wider = [(np.hstack([weights, np.zeros((5, 1))]), biases), *rest]
    exact = verify_no_arbitrage(arrays, BOX)
    programme = verify_no_arbitrage(wider, [*BOX, (0.0, 1.0)])
    np.testing.assert_allclose(
        programme.to_frame()["margin"], exact.to_frame()["margin"], atol=1e-9
    )


# --- Honesty -------------------------------------------------------------------------


def test_too_many_regions_for_the_time_is_unknown(rng):
    network = random_network(rng, 2, 150, 1)
    start = time.process_time()
    verdict = verify_no_arbitrage(network, BOX, time_limit=0.05)
    assert time.process_time() - start < 2.0
    # Convexity needs no regions, and this network is not convex.
    assert isinstance(verdict, Counterexample)
    assert verdict.condition == "convex"
    undecided = verify_no_arbitrage(
        network, BOX, time_limit=0.05, conditions=["decreasing", "calendar"]
    )
    assert isinstance(undecided, Unknown)
    assert not undecided
    assert set(undecided.undecided) == {"decreasing", "calendar"}
    assert "linear regions" in repr(undecided)
    deep = random_network(rng, 3, 30, 30, 1)
    domain = list(zip(LOW, HIGH, strict=True))[:3]
    undecided = verify_no_arbitrage(
        deep, domain, conditions="slope", discount_factor=1e3, time_limit=0.02
    )
    assert isinstance(undecided, Unknown)
    assert "out of time" in undecided.undecided["slope"]


def test_bad_input_is_refused():
    good = [(np.ones((3, 2)), np.zeros(3)), (np.ones((1, 3)), np.zeros(1))]

    def changed(**parts):
        arrays = [(np.array(w), np.array(b)) for w, b in good]
        for place, value in parts.items():
            arrays[int(place[1])][int(place[3])].flat[0] = value
        return arrays

    with pytest.raises(ValueError, match="not finite in 1 of 6 places, first nan at"):
        verify_no_arbitrage(changed(l0a0=np.nan), BOX)
    with pytest.raises(ValueError, match="biases of hidden layer 1 are not finite"):
        verify_no_arbitrage(changed(l0a1=np.inf), BOX)
    with pytest.raises(ValueError, match="output bias"):
        verify_no_arbitrage(changed(l1a1=np.inf), BOX)
    with pytest.raises(ValueError, match="'tanh' is not one that can be verified"):
        verify_no_arbitrage(good, BOX, activation="tanh")
    with pytest.raises(ValueError, match="takes 4 inputs, but the layer before has 3"):
        verify_no_arbitrage([good[0], (np.ones((1, 4)), np.zeros(1))], BOX)
    with pytest.raises(ValueError, match="transpose"):
        verify_no_arbitrage([(np.ones((2, 3)), np.zeros(3)), good[1]], BOX)
    with pytest.raises(ValueError, match="one output, not 2"):
        verify_no_arbitrage([good[0], (np.ones((2, 3)), np.zeros(2))], BOX)
    with pytest.raises(ValueError, match="low to high, not 1"):
        verify_no_arbitrage(good, [(1.5, 0.5), (0.1, 1.0)])
    with pytest.raises(ValueError, match="must go from low to high"):
        verify_no_arbitrage(good, [(0.5, np.nan), (0.1, 1.0)])
    with pytest.raises(ValueError, match="2 inputs and the domain 1 ranges"):
        verify_no_arbitrage(good, [(0.5, 1.5)])
    with pytest.raises(ValueError, match="not negative"):
        verify_no_arbitrage(good, [(-0.5, 1.5), (0.1, 1.0)])
    with pytest.raises(ValueError, match="conditions are some of"):
        verify_no_arbitrage(good, BOX, conditions=["monotone"])
    with pytest.raises(ValueError, match="tolerance"):
        verify_no_arbitrage(good, BOX, tolerance=-1.0)
    with pytest.raises(ValueError, match="by strike, not by spot"):
        verify_no_arbitrage(good, {"spot": (0.5, 1.5), "time": (0.1, 1.0)})
    smooth = ro.PriceNetwork(jnp.array([1.0]), jnp.array([1.0]), jnp.array([0.1]))
    with pytest.raises(ValueError, match="has bandwidths up to"):
        verify_no_arbitrage(smooth, [(0.5, 1.5)])
    with pytest.raises(TypeError, match="cannot read layers of dict"):
        verify_no_arbitrage({}, BOX)


def test_huge_and_tiny_weights_are_exact():
    """2**-1000 next to 2**600: no overflow, no rounding."""
    tiny, huge = 2.0**-500, 2.0**600
    network = [
        ([[huge, 0.0], [1.0, 0.0]], [-huge, -1.25]),
        ([[tiny, -tiny * tiny]], [0.0]),
    ]
    found = assert_earns(verify_no_arbitrage(network, BOX, conditions=["convex"]))
    assert found.amount == Fraction(tiny) ** 2


def test_prices_beyond_floats_are_told_and_are_no_portfolio():
    size = 1e308
    curve = ro.ReLUNetwork(
        0.0, 0.0, jnp.array([80.0, 100.0, 120.0]), size * jnp.array([1.0, -1.0, 1.0])
    )
    found = verify_no_arbitrage(
        curve, [(50.0, 200.0)], forward=100.0, conditions=("convex",)
    )
    assert isinstance(found, Counterexample)
    assert found.cost < -(Fraction(10) ** 308)
    assert "inf" not in repr(found)
    with pytest.raises(VerificationError, match=r"add up to .*e\+30.*read `strikes`"):
        found.as_trade()
    for numbers in ([Fraction(2) ** 2000, Fraction(1)], [Fraction(1, 3)]):
        assert simplest(numbers) == numbers
    assert simplest([Fraction(1, 4)]) == [0.25]


def test_a_search_without_any_point_is_an_error_in_words(monkeypatch):
    """As where rounding in the solver makes every programme infeasible."""
    nothing = Optimum(-np.inf, -np.inf, None, [], 1, True)
    monkeypatch.setattr(sensitivity, "maximise", lambda *_: nothing)
    arrays = [(np.ones((2, 2)), np.zeros(2)), (np.ones((1, 2)), np.zeros(1))]
    network = layered(arrays)
    with pytest.raises(VerificationError, match="rounding in the solver"):
        sensitivity._delta_by_programme(
            network, domain_of([(0, 1), (0, 1)], 2), 0, 1.0, np.inf
        )

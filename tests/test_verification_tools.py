"""What is done with a network besides its verdict: layers, slopes, radii, repairs."""

import math
from fractions import Fraction
from typing import Any

import jax.numpy as jnp
import numpy as np
import onnx
import onnx.reference
import pytest
from scipy.optimize import minimize
from test_verification import BOX, HIGH, LOW, UNITS, gradient, random_network

import relu_options as ro
from relu_options import payoffs
from relu_options.errors import VerificationError
from relu_options.verification import (
    LayeredNetwork,
    Proof,
    decision_radius,
    delta_bound,
    layered,
    price_radius,
    read_onnx,
    repair,
    simplify,
    verify_no_arbitrage,
    worst_case_pnl,
)


def rational_points(rng, inputs, count):
    """Points of the domain, and its corners."""
    points = rng.uniform(LOW[:inputs], HIGH[:inputs], (count, inputs))
    corners = np.stack([LOW[:inputs], HIGH[:inputs]])
    return [
        [Fraction(x) for x in p] for p in np.concatenate([points, corners]).tolist()
    ]


# --- Networks ------------------------------------------------------------------------


def test_our_networks_are_read_without_rounding(rng):
    kinks, weights = np.sort(rng.uniform(50, 150, 9)), rng.normal(size=9)
    network = ro.ReLUNetwork(1.5, -0.25, jnp.array(kinks), jnp.array(weights))
    payoff = ro.Payoff.from_network(network)
    read = layered(network)
    assert isinstance(read, LayeredNetwork)
    for strike in rng.uniform(0.0, 200.0, 20).tolist():
        exact = payoff.exactly()(Fraction(strike))
        assert read.exact([Fraction(strike)]) == exact
        assert layered(payoff).exact([Fraction(strike)]) == exact
    assert read.to_payoff() == payoff.exactly()
    prices = ro.PriceNetwork(jnp.array(kinks), jnp.array(weights), jnp.zeros(9))
    strikes = rng.uniform(0.0, 200.0, 50)
    np.testing.assert_allclose(layered(prices)(strikes), prices(strikes), atol=1e-11)


@pytest.mark.parametrize("activation", UNITS)
def test_floating_point_and_rationals_agree(rng, activation):
    network = random_network(rng, 3, 7, 5, 1, activation=activation)
    points = rng.uniform(LOW[:3], HIGH[:3], (50, 3))
    exact = [float(network.exact([Fraction(x) for x in p])) for p in points.tolist()]
    np.testing.assert_allclose(network(points), exact, rtol=0, atol=1e-13)


def onnx_model(onnx, nodes, constants, inputs=2):
    """A chain of nodes with their constants."""
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", inputs])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 1])],
        [
            numpy_helper.from_array(np.asarray(value, np.float32), name)
            for name, value in constants.items()
        ],
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8)


def test_onnx_networks_are_those_of_its_reference(rng, tmp_path):
    """Scaled inputs, Gemm, MatMul with Add, and all three activations."""
    node = onnx.helper.make_node
    constants = {
        "centre": [1.0, 1.0],
        "scale": [0.5, 1.0],
        "w1": rng.normal(size=(6, 2)),
        "b1": rng.normal(size=6),
        "w2": rng.normal(size=(6, 5)),
        "b2": rng.normal(size=5),
        "w3": rng.normal(size=(4, 5)),
        "b3": rng.normal(size=4),
        "zero": 0.0,
        "one": 0.75,
        "w4": rng.normal(size=(1, 4)),
        "b4": rng.normal(size=1),
    }
    nodes = [
        node("Sub", ["x", "centre"], ["s"]),
        node("Div", ["s", "scale"], ["t"]),
        node("Gemm", ["t", "w1", "b1"], ["a"], transB=1),
        node("Relu", ["a"], ["b"]),
        node("MatMul", ["b", "w2"], ["c"]),
        node("Add", ["c", "b2"], ["d"]),
        node("LeakyRelu", ["d"], ["e"], alpha=0.125),
        node("Gemm", ["e", "w3", "b3"], ["f"], transB=1),
        node("Clip", ["f", "zero", "one"], ["g"]),
        node("Gemm", ["g", "w4", "b4"], ["y"], transB=1),
    ]
    model = onnx_model(onnx, nodes, constants)
    path = tmp_path / "network.onnx"
    onnx.save(model, str(path))
    network = read_onnx(path)
    points = rng.uniform(LOW[:2], HIGH[:2], (100, 2)).astype(np.float32)
    evaluator: Any = onnx.reference.ReferenceEvaluator(model)
    (truth,) = evaluator.run(None, {"x": points})
    np.testing.assert_allclose(network(points), truth[:, 0], atol=2e-5)
    assert not verify_no_arbitrage(str(path), BOX)


def test_onnx_networks_that_cannot_be_read_are_refused(rng):
    node = onnx.helper.make_node
    constants = {"w": rng.normal(size=(1, 2)), "b": rng.normal(size=1)}
    gemm = node("Gemm", ["x", "w", "b"], ["a"], transB=1)
    with pytest.raises(ValueError, match="Tanh"):
        read_onnx(onnx_model(onnx, [gemm, node("Tanh", ["a"], ["y"])], constants))
    with pytest.raises(ValueError, match="joins several branches"):
        read_onnx(onnx_model(onnx, [gemm, node("Add", ["a", "a"], ["y"])], constants))
    with pytest.raises(ValueError, match="must end in an affine map"):
        read_onnx(onnx_model(onnx, [gemm, node("Relu", ["a"], ["y"])], constants))


# --- Slopes --------------------------------------------------------------------------


@pytest.mark.parametrize("activation", UNITS)
def test_delta_bound_is_the_supremum_of_slopes(rng, activation):
    """No slope of 20,000 points is outside, and both ends are attained."""
    network = random_network(rng, 2, 8, 8, 1, activation=activation)
    points = rng.uniform(LOW[:2], HIGH[:2], (20_000, 2))
    slopes = gradient(network, points)
    for of_input in (0, 1):
        bound = delta_bound(network, BOX, of_input=of_input)
        assert bound.tolerance == 0.0
        assert float(bound.low) <= slopes[:, of_input].min() + 1e-12
        assert float(bound.high) >= slopes[:, of_input].max() - 1e-12
        ends = gradient(network, [bound.at_low, bound.at_high])[:, of_input]
        expected = [float(bound.low), float(bound.high)]
        np.testing.assert_allclose(ends, expected, atol=1e-12)
        assert bound.lipschitz == max(abs(bound.low), abs(bound.high))
        assert bound.ratio >= 1.0


def test_delta_bound_by_programme_equals_enumeration(rng):
    """A third input that only shifts one unit's kink; and the spectral norms."""
    network = random_network(rng, 2, 6, 5, 1)
    first = network.layers[0]
    arrays = [
        (np.hstack([first.weights, np.zeros((6, 1))]), first.biases),
        (network.layers[1].weights, network.layers[1].biases),
        (network.weights[None], np.array([network.bias])),
    ]
    exact = delta_bound(network, BOX)
    programme = delta_bound(arrays, [*BOX, (0.0, 1.0)])
    assert programme.tolerance > 0.0
    assert float(programme.low) == pytest.approx(float(exact.low), abs=1e-9)
    assert float(programme.high) == pytest.approx(float(exact.high), abs=1e-9)
    norms = np.linalg.norm(network.weights) * np.linalg.norm(first.weights[:, 0])
    norms *= np.linalg.svd(network.layers[1].weights, compute_uv=False)[0]
    assert exact.norm_product == pytest.approx(norms, rel=1e-12)


# --- Radii ---------------------------------------------------------------------------


def largest_change(network, point, radius, scales, rng, count=20_000):
    """Of the price, at points that move by less than the radius."""
    moved = point + radius * scales * rng.uniform(-1.0, 1.0, (count, len(point)))
    low, high = LOW[: len(point)], HIGH[: len(point)]
    return np.abs(network(np.clip(moved, low, high)) - network(point[None])).max()


@pytest.mark.parametrize("sizes", [(1, 9, 1), (2, 9, 1), (2, 6, 6, 1), (3, 6, 1)])
def test_price_radius_is_where_the_price_has_moved_enough(rng, sizes):
    inputs = sizes[0]
    network = random_network(rng, *sizes)
    scales = np.array([1.0, 3.0, 0.5])[:inputs]
    point = rng.uniform(LOW[:inputs], HIGH[:inputs])
    domain = list(zip(LOW, HIGH, strict=True))[:inputs]
    result = price_radius(network, point.tolist(), 0.05, domain, scales=scales.tolist())
    radius = float(result.radius)
    assert 0.0 < radius < 3.0
    assert result.there is not None
    assert result.nearest is not None
    change = abs(result.there - result.value)
    moves = np.abs(np.array(result.nearest, float) - point) / scales
    assert moves.max() == pytest.approx(radius, rel=1e-6)
    inside = largest_change(network, point, radius, scales, rng)
    if inputs < 3:
        assert result.tolerance == 0.0
        assert change == Fraction(0.05)
        assert inside <= 0.05 + 1e-12
    else:
        assert float(change) == pytest.approx(0.05, abs=1e-6)
        assert inside <= 0.05 + 1e-6
    assert inside > 0.02


def test_radius_of_inputs_that_are_held_fixed(rng):
    """Moving the strike alone is the network of one input at that time."""
    network = random_network(rng, 2, 8, 5, 1)
    alone = price_radius(network, [1.0, 0.75], 0.1, BOX, scales=[1.0, 0.0])
    assert alone.nearest is not None
    assert alone.nearest[1] == Fraction(3, 4)
    both = price_radius(network, [1.0, 0.75], 0.1, BOX)
    assert both.radius <= alone.radius
    low, high = 1.0 - float(alone.radius), 1.0 + float(alone.radius)
    line = np.linspace(max(low, 0.5), min(high, 1.5), 10_001)
    prices = network(np.stack([line, np.full_like(line, 0.75)], axis=1))
    middle = network(np.array([[1.0, 0.75]]))
    assert np.abs(prices - middle).max() == pytest.approx(0.1, abs=1e-4)


def test_decision_radius_of_a_put():
    """Hold exceeds exercise above 85 exactly; at 80 one exercises up to there."""
    hold = payoffs.cash(15.0) - 0.75 * (payoffs.call(85.0) - payoffs.call(105.0))
    domain = {"spot": (50.0, 99.0)}
    exercise = payoffs.put(100.0)
    near = decision_radius(hold, [90.0], domain, exercise=exercise)
    assert (near.radius, near.nearest, near.there) == (5, (85,), 0)
    far = decision_radius(hold, [80.0], domain, exercise=exercise)
    assert far.radius == 5
    assert far.value < 0
    never = decision_radius(hold, [90.0], {"spot": (86.0, 99.0)}, exercise=exercise)
    assert never.radius == math.inf
    assert never.nearest is None


def test_decision_radius_with_a_time_and_exercise_of_the_spot_alone(rng):
    """No sampled point inside the radius has the other decision."""
    network = random_network(rng, 2, 8, 6, 1)
    exercise = payoffs.put(1.0)
    middle = np.array([[1.2, 1.0]])
    network = LayeredNetwork(
        network.layers,
        network.weights,
        network.bias - float(network(middle)[0]) + 0.1,
        2,
    )
    domain = {"spot": (0.5, 1.5), "time": (0.05, 2.0)}
    result = decision_radius(network, [1.2, 1.0], domain, exercise=exercise)
    assert float(result.value) == pytest.approx(0.1)
    radius = float(result.radius)
    points = middle + radius * rng.uniform(-1.0, 1.0, (20_000, 2))
    points = np.clip(points, LOW[:2], HIGH[:2])
    held = network(points) - exercise(points[:, 0])
    assert held.min() > -1e-12
    assert held.min() < 0.05
    assert result.there == 0


def test_radii_refuse_what_makes_no_sense(rng):
    network = random_network(rng, 2, 5, 1)
    with pytest.raises(ValueError, match="not in"):
        price_radius(network, [2.0, 1.0], 0.1, BOX)
    with pytest.raises(ValueError, match="tolerance must be positive"):
        price_radius(network, [1.0, 1.0], 0.0, BOX)
    with pytest.raises(ValueError, match="scales"):
        price_radius(network, [1.0, 1.0], 0.1, BOX, scales=[0.0, 0.0])
    with pytest.raises(ValueError, match="2 inputs; the point has 1"):
        price_radius(network, [1.0], 0.1, BOX)
    with pytest.raises(VerificationError, match="raise `time_limit`"):
        delta_bound(random_network(rng, 2, 150, 1), BOX, time_limit=0.02)


def test_worst_case_is_the_least_payoff_less_its_cost(rng):
    spots = np.linspace(40.0, 180.0, 20_001)
    for _ in range(10):
        payoff = ro.Payoff(
            rng.normal(), rng.normal(), rng.uniform(50, 150, 5), rng.normal(size=5)
        )
        case = worst_case_pnl(payoff, 40.0, 180.0, cost=3.0)
        sampled = payoff(spots) - 3.0
        assert float(case.pnl) <= sampled.min() + 1e-9
        assert float(case.pnl) == pytest.approx(sampled.min(), abs=0.05)
        assert float(case.best) == pytest.approx(sampled.max(), abs=0.05)
        low, high = payoff.bounds(40.0, 180.0)
        assert float(case.pnl) == pytest.approx(low - 3.0)
        assert float(case.best) == pytest.approx(high - 3.0)
        assert float(payoff(float(case.spot))) == pytest.approx(low)


def test_worst_case_of_a_quoted_portfolio_counts_its_cost_with_interest():
    quotes = ro.prepare_quotes(ro.bundled_chain()[ro.bundled_chain().slices[4]])
    middle = float(np.median(quotes.strike))
    portfolio = ro.decompose(payoffs.straddle(middle), quotes=quotes)
    case = worst_case_pnl(portfolio)
    paid = portfolio.cost() / quotes.discount_factor
    assert float(case.paid) == pytest.approx(paid)
    assert float(case.pnl) == pytest.approx(-paid)
    assert float(case.spot) == pytest.approx(middle)
    assert case.best == math.inf
    with pytest.raises(ValueError, match="from low to high"):
        worst_case_pnl(portfolio, 100.0, 50.0)


# --- Simplification ------------------------------------------------------------------


@pytest.mark.parametrize("activation", UNITS)
@pytest.mark.parametrize(
    "sizes", [(1, 9, 1), (2, 9, 1), (1, 7, 6, 1), (2, 7, 6, 1), (3, 8, 1), (3, 6, 6, 1)]
)
def test_simplified_networks_are_equal_exactly(rng, sizes, activation):
    """In rationals, at random points and corners; dead units and copies are gone."""
    inputs = sizes[0]
    network = random_network(
        rng,
        *sizes,
        activation=activation,
        coincident=0 if activation == "clipped" else 3,
    )
    first = network.layers[0]
    always_on = np.append(first.biases[:-2], [50.0, -50.0])
    first = type(first)(first.weights, always_on, first.units)
    network = LayeredNetwork(
        (first, *network.layers[1:]), network.weights, network.bias, inputs
    )
    domain = list(zip(LOW, HIGH, strict=True))[:inputs]
    simple = simplify(network, domain)
    for point in rational_points(rng, inputs, 40):
        assert simple.exact(point) == network.exact(point)
    gone = 2 * len(first.units[0].kinks) + (0 if activation == "clipped" else 1)
    assert simple.number_of_kinks <= network.number_of_kinks - gone
    again = simplify(simple, domain)
    assert again.number_of_kinks == simple.number_of_kinks


def test_copies_become_one_kink():
    """Three hinges at 100, one of them the other way, are one hinge and a line."""
    network = [
        ([[1.0], [2.0], [-3.0]], [-100.0, -200.0, 300.0]),
        ([[1.0, 0.5, 1.0]], [0.0]),
    ]
    simple = simplify(network, {"strike": (50.0, 150.0)})
    assert simple.number_of_kinks == 1
    # (x - 100)^+ + (x - 100)^+ + 3 (100 - x)^+
    assert simple.to_payoff() == 2 * payoffs.call(100.0) + 3 * payoffs.put(100.0)


def test_a_network_that_is_constant_becomes_a_number(rng):
    dead = [
        (np.ones((3, 2)), np.full(3, -50.0)),
        (np.ones((2, 3)), np.array([1.0, -2.0])),
    ]
    network = [*dead, (np.array([[2.0, 5.0]]), np.array([0.5]))]
    simple = simplify(network, BOX)
    assert simple.widths == ()
    assert simple.exact([1, 1]) == Fraction(5, 2)
    proof = verify_no_arbitrage(simple, BOX, conditions=["convex", "calendar"])
    assert isinstance(proof, Proof)


# --- Repair --------------------------------------------------------------------------


@pytest.mark.parametrize("nearest", ["weights", "prices"])
@pytest.mark.parametrize("sizes", [(1, 12, 1), (2, 12, 1), (2, 5, 5, 1)])
def test_repaired_networks_are_proved(rng, sizes, nearest):
    network = random_network(rng, *sizes)
    domain = BOX[: sizes[0]]
    result = repair(network, domain, nearest=nearest)
    assert isinstance(result.proof, Proof)
    assert result.proof.is_exact
    assert verify_no_arbitrage(result.network, domain)
    assert result.distance >= result.largest_change > 0.0


def test_repair_is_the_projection_that_another_solver_finds(rng):
    """Least distance under convexity, slopes and bounds, by SciPy's SLSQP."""
    kinks = np.array([0.7, 0.9, 1.0, 1.1, 1.3])
    weights = np.array([0.4, -0.3, 0.8, -0.1, 0.3])
    curve = ro.ReLUNetwork(0.95, -1.05, jnp.array(kinks), jnp.array(weights))
    result = repair(curve, BOX[:1])
    start = np.append(weights, [-1.05, 0.0, 0.95])
    points = np.array([0.5, *kinks, 1.5])
    hinges = np.maximum(points[:, None] - kinks, 0.0)
    values = np.column_stack([hinges, points, points, np.ones(7)])
    slopes = np.diff(values, axis=0) / np.diff(points)[:, None]
    rows = np.vstack([np.eye(5, 8), -slopes, slopes, values, -values])
    least = np.concatenate(
        [np.zeros(11), -np.ones(6), np.maximum(1.0 - points, 0.0), -np.ones(7)]
    )
    truth = minimize(
        lambda x: np.sum((x - start) ** 2),
        start,
        jac=lambda x: 2.0 * (x - start),
        method="SLSQP",
        constraints={"type": "ineq", "fun": lambda x: rows @ x - least},
        options={"ftol": 1e-15, "maxiter": 500},
    )
    found = np.append(result.network.weights, float(result.network.bias))
    assert np.sum((found - start) ** 2) == pytest.approx(truth.fun, rel=1e-6)
    np.testing.assert_allclose(found, truth.x, atol=1e-5)


def test_repair_of_a_network_that_passes_moves_nothing():
    curve = ro.PriceNetwork(
        jnp.array([0.8, 1.0, 1.25]), jnp.array([0.3, 0.4, 0.25]), jnp.zeros(3)
    )
    result = repair(curve, BOX[:1], conditions=["convex", "slope"])
    assert result.distance < 1e-8


def test_repair_says_for_which_networks(rng):
    with pytest.raises(ValueError, match="one or two inputs"):
        repair(random_network(rng, 3, 5, 1), [*BOX, (0.1, 0.4)])
    with pytest.raises(ValueError, match="nearest must be"):
        repair(random_network(rng, 1, 5, 1), BOX[:1], nearest="slopes")  # type: ignore[arg-type]
    with pytest.raises(VerificationError, match="raise `time_limit`"):
        repair(random_network(rng, 2, 150, 1), BOX, time_limit=0.02)

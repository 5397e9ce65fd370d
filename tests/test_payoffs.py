"""Payoffs against their textbook formulas, and their algebra in exact arithmetic."""

from fractions import Fraction

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from relu_options import payoffs
from relu_options.networks import ReLUNetwork
from relu_options.payoffs import Payoff

SPOTS = np.linspace(0.0, 250.0, 1001)


def above(strike):
    return np.maximum(SPOTS - strike, 0.0)


def below(strike):
    return np.maximum(strike - SPOTS, 0.0)


NAMED = {
    "call": (payoffs.call(100.0), above(100)),
    "put": (payoffs.put(100.0), below(100)),
    "forward": (payoffs.forward(95.0), SPOTS - 95),
    "cash": (payoffs.cash(3.0), 3 + 0 * SPOTS),
    "call_spread": (payoffs.call_spread(90.0, 110.0), np.clip(SPOTS - 90, 0, 20)),
    "put_spread": (payoffs.put_spread(90.0, 110.0), np.clip(110 - SPOTS, 0, 20)),
    "straddle": (payoffs.straddle(100.0), np.abs(SPOTS - 100)),
    "strangle": (payoffs.strangle(90.0, 110.0), below(90) + above(110)),
    "butterfly": (
        payoffs.butterfly(80.0, 100.0, 105.0),
        np.interp(SPOTS, [80, 100, 105], [0, 20, 0]),
    ),
    "condor": (
        payoffs.condor(80.0, 90.0, 110.0, 120.0),
        np.interp(SPOTS, [80, 90, 110, 120], [0, 10, 10, 0]),
    ),
    "iron_condor": (
        payoffs.iron_condor(80.0, 90.0, 110.0, 120.0),
        np.interp(SPOTS, [80, 90, 110, 120], [-10, 0, 0, -10]),
    ),
    "risk_reversal": (payoffs.risk_reversal(90.0, 110.0), above(110) - below(90)),
    "collar": (payoffs.collar(90.0, 110.0), np.clip(SPOTS, 90, 110)),
    "ratio_spread": (payoffs.ratio_spread(90.0, 110.0), above(90) - 2 * above(110)),
    "participation": (
        payoffs.participation(100.0, rate=0.75, floor=95.0),
        95 + 0.75 * above(100),
    ),
    "note": (payoffs.note(floor=90.0, cap=120.0), np.clip(SPOTS, 90, 120)),
    "digital": (
        payoffs.digital(100.0, width=4.0),
        np.interp(SPOTS, [98, 102], [0, 1]),
    ),
    "digital_put": (
        payoffs.digital(100.0, width=4.0, is_call=False, side="above"),
        np.interp(SPOTS, [100, 104], [1, 0]),
    ),
    "capped": (payoffs.capped(payoffs.call(90.0), 25.0), np.clip(SPOTS - 90, 0, 25)),
    "floored": (
        payoffs.floored(payoffs.forward(90.0), -15.0),
        np.maximum(SPOTS - 90, -15),
    ),
}


@pytest.mark.parametrize("name", NAMED)
def test_named_payoffs_are_their_formulas(name):
    payoff, expected = NAMED[name]
    np.testing.assert_allclose(payoff(SPOTS), expected, atol=1e-12)


def random_payoff(rng: np.random.Generator, legs: int) -> Payoff:
    """Of small fractions, so that kinks meet and slopes vanish."""

    def rationals(low, high, size):
        numerators = rng.integers(low, high, size).tolist()
        denominators = rng.integers(1, 4, size).tolist()
        return [Fraction(*both) for both in zip(numerators, denominators, strict=True)]

    cash, slope = rationals(-6, 7, 2)
    strikes = np.array([*rationals(-5, 30, legs), Fraction(0)], object)
    weights = np.array([*rationals(-4, 5, legs), Fraction(0)], object)
    return Payoff(cash, slope, strikes, weights)


def kinks_and_between(*several: Payoff) -> np.ndarray:
    """All strikes, points between neighbours and beyond the last: these decide all."""
    start = payoffs.call(Fraction(0))
    strikes = np.unique(np.concatenate([one.strikes for one in (start, *several)]))
    ends = [strikes[0] - 7, strikes[0] - 1, strikes[-1] + 1, strikes[-1] + 7]
    thirds = strikes[:-1] + np.diff(strikes) * Fraction(1, 3)
    return np.concatenate([strikes, thirds, np.array(ends, object)])


def test_algebra_is_exact_in_rational_arithmetic(rng):
    for _ in range(60):
        one, two = (random_payoff(rng, int(rng.integers(0, 6))) for _ in range(2))
        factor = Fraction(int(rng.integers(-9, 9)), 7)
        combined = {
            "sum": one + two,
            "difference": one - two,
            "multiple": factor * one,
            "maximum": payoffs.maximum(one, two),
            "minimum": payoffs.minimum(one, two),
        }
        spots = kinks_and_between(one, two, *combined.values())
        first, second = one(spots), two(spots)
        expected = {
            "sum": first + second,
            "difference": first - second,
            "multiple": factor * first,
            "maximum": np.maximum(first, second),
            "minimum": np.minimum(first, second),
        }
        for name, values in expected.items():
            assert (combined[name](spots) == values).all(), name
        assert combined["maximum"] + combined["minimum"] == combined["sum"]
        assert one - one == payoffs.cash(Fraction(0))


def test_networks_and_payoffs_turn_into_each_other_without_loss(rng):
    for _ in range(20):
        payoff = random_payoff(rng, 5)
        assert Payoff.from_network(payoff.to_network()) == payoff
    floats = Payoff(
        rng.normal(), rng.normal(), rng.uniform(0, 9, 7), rng.normal(size=7)
    )
    network = floats.to_network()
    assert Payoff.from_network(network) == floats
    spots = rng.uniform(0, 12, 50)
    np.testing.assert_allclose(floats(spots), network(spots), atol=1e-13)
    np.testing.assert_allclose(
        floats.derivative(floats.strikes),
        network.derivative(floats.strikes),
        atol=1e-13,
    )


def test_equal_strikes_merge_and_weightless_ones_vanish():
    merged = Payoff(0, 0, np.array([3, 1, 3, 2]), np.array([1, 2, -1, 0]))
    assert merged == 2 * payoffs.call(1)
    assert sum([payoffs.call(90.0), payoffs.call(90.0)]) == 2.0 * payoffs.call(90.0)


def test_bounds_and_convexity_agree_with_a_fine_grid(rng):
    for _ in range(40):
        payoff = random_payoff(rng, 4)
        low, high = payoff.bounds()
        values = payoff(kinks_and_between(payoff))
        positive = kinks_and_between(payoff) >= 0
        assert low <= values[positive].min()
        assert high >= values[positive].max()
        assert np.isinf(float(high)) == (payoff.right_slope > 0)
        assert np.isinf(float(low)) == (payoff.right_slope < 0)
        inside = payoff.bounds(2.0, 5.0)
        spots = np.union1d(np.linspace(2, 5, 4001), payoff.strikes.astype(float))
        spots = spots[(spots >= 2) & (spots <= 5)]
        fine = np.asarray(payoff(spots), float)
        np.testing.assert_allclose(
            [fine.min(), fine.max()], np.array(inside, float), atol=1e-12
        )
        assert payoff.is_convex == bool((payoff.weights >= 0).all())
    assert payoffs.straddle(100.0).bounds() == (0.0, np.inf)
    assert payoffs.forward().bounds(-np.inf) == (-np.inf, np.inf)
    assert payoffs.straddle(100.0).is_convex
    assert (-payoffs.straddle(100.0)).is_concave


def test_points_are_met_exactly(rng):
    spots = np.sort(rng.uniform(50, 150, 12))
    values = rng.normal(size=12)
    payoff = payoffs.from_points(spots, values, left_slope=-1.0, right_slope=2.0)
    np.testing.assert_allclose(payoff(spots), values, atol=1e-12)
    inside = np.linspace(spots[0], spots[-1], 999)
    np.testing.assert_allclose(
        payoff(inside), np.interp(inside, spots, values), atol=1e-12
    )
    assert payoff.left_slope == -1.0
    assert payoff.right_slope == pytest.approx(2.0, abs=1e-12)


def test_interpolation_states_its_error():
    """A chord of the square is off by a quarter of its width squared."""
    strikes = np.array([0.0, 1.0, 3.0, 4.0])
    square = payoffs.power(2.0).piecewise_linear(strikes)
    assert square.approximation_error == pytest.approx(1.0, rel=1e-12)
    assert (square * -3.0).approximation_error == pytest.approx(3.0, rel=1e-12)
    # Of the logarithm, by log(m) - 1 + 1/m with m the logarithmic mean.
    low, high = 80.0, 100.0
    mean = (high - low) / np.log(high / low)
    expected = np.log(mean / low) - (mean - low) / mean
    strip = payoffs.log_contract(90.0).piecewise_linear([low, high])
    assert strip.approximation_error == pytest.approx(expected, rel=1e-4)


def test_derivatives_of_smooth_payoffs_agree_with_differences():
    step = 1e-4
    for payoff in (
        payoffs.log_contract(90.0),
        3.0 * payoffs.power(1.5, reference=50.0),
    ):
        spots = np.linspace(60.0, 150.0, 31)
        slope = (payoff(spots + step) - payoff(spots - step)) / (2 * step)
        np.testing.assert_allclose(payoff.derivative(spots), slope, atol=1e-9)
        bend = payoff.derivative(spots + step) - payoff.derivative(spots - step)
        np.testing.assert_allclose(
            payoff.second_derivative(spots), bend / (2 * step), rtol=1e-6
        )


def test_tangents_are_below_a_convex_payoff_and_chords_above():
    contract = payoffs.log_contract(100.0)
    points = np.linspace(40.0, 200.0, 9)
    inside = np.linspace(40.0, 200.0, 2001)
    below_it, above_it = contract.tangents(points), contract.piecewise_linear(points)
    assert (below_it(inside) <= contract(inside) + 1e-14).all()
    assert (above_it(inside) >= contract(inside) - 1e-14).all()
    np.testing.assert_allclose(below_it(points), contract(points), atol=1e-14)
    with pytest.raises(ValueError, match="neither convex nor concave"):
        payoffs.power(3.0).tangents([-1.0, 1.0])


def test_what_comes_in_goes_out():
    straddle = payoffs.straddle(100.0)
    assert straddle(90.0) == 10.0
    assert isinstance(straddle(90.0), float)
    spots = pd.Series([90.0, 105.0], index=["low", "high"])
    assert straddle(spots).to_dict() == {"low": 10.0, "high": 5.0}
    assert isinstance(straddle(jnp.array([90.0])), jnp.ndarray)
    assert isinstance(straddle.to_network(), ReLUNetwork)
    assert straddle(np.zeros((2, 3))).shape == (2, 3)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: payoffs.call_spread(110.0, 90.0), "110 is followed by 90"),
        (lambda: payoffs.butterfly(90.0, 90.0, 100.0), "must increase"),
        (lambda: payoffs.digital(100.0, width=0.0), "width must be positive"),
        (lambda: payoffs.digital(100.0, width=1.0, side="over"), "side must be one"),  # type: ignore[arg-type]
        (lambda: payoffs.call(np.nan), "finite numbers"),
        (lambda: payoffs.from_points([1.0, 2.0], [1.0]), "shapes"),
        (lambda: payoffs.from_points([1.0], [1.0]), "at least 2"),
        (lambda: payoffs.log_contract(0.0), "reference must be positive"),
        (lambda: payoffs.log_contract(1.0).piecewise_linear([-1.0, 1.0]), "not finite"),
        (lambda: payoffs.call(1.0).bounds(5.0, 5.0), "from low to high"),
        (lambda: Payoff(0, 0, np.zeros(2), np.zeros(3)), "one shape"),
    ],
)
def test_bad_requests_are_named(build, message):
    with pytest.raises(ValueError, match=message), np.errstate(invalid="ignore"):
        build()


def test_plot_returns_axes():
    assert payoffs.condor(80.0, 90.0, 110.0, 120.0).plot().lines
    assert payoffs.forward().plot(highest=120.0).lines
    plt.close("all")

"""Where training starts: strikes, gains and dead units, against known values."""

from typing import Any

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

import relu_options as ro
from relu_options import activations, black_scholes
from relu_options.fitting.initialisation import (
    StrikeCoverage,
    annealed,
    gain,
    he_strikes,
    quantile_strikes,
    strike_coverage,
    uniform_strikes,
    variance_preserving,
)
from relu_options.fitting.network_training import train_network
from relu_options.fitting.training import TrainingOptions
from relu_options.networks import PriceNetwork, ReLUNetwork


def test_each_strike_at_a_quantile_sees_as_many_of_the_data(rng):
    values = rng.lognormal(0.0, 1.0, 1600)
    strikes = quantile_strikes(values, 16)
    counts = np.histogram(values, np.concatenate([[0.0], strikes, [np.inf]]))[0]
    assert (np.abs(counts[1:-1] - 100) <= 1).all()
    assert (np.abs(counts[[0, -1]] - 50) <= 1).all()


@pytest.mark.parametrize(("low", "high"), [(50.0, 150.0), (1.0, 2.0), (-30.0, -2.0)])
def test_uniform_strikes_have_their_probability(low, high):
    """Beyond one, a strike is above t with probability 1 / 4t."""
    count = 400_000
    strikes = uniform_strikes(count, seed=5)
    near, far = sorted((abs(low), abs(high)))
    expected = 0.25 / near - 0.25 / far
    share = np.mean((strikes > low) & (strikes < high))
    assert share == pytest.approx(expected, abs=4.0 * np.sqrt(expected / count))


def test_he_strikes_are_in_one_place():
    assert (he_strikes(16, seed=3) == 0.0).all()


def test_coverage_agrees_with_values_on_a_grid(rng):
    """A unit is dead if it is zero on all of the data, and on if nowhere zero."""
    layers = [
        (rng.normal(size=(60, 2)), rng.normal(0.0, 2.0, 60)),
        (np.ones((1, 60)), np.zeros(1)),
    ]
    grid = np.stack(np.meshgrid(np.linspace(0, 1, 81), np.linspace(1, 3, 81)), -1)
    before = grid.reshape(-1, 2) @ layers[0][0].T + layers[0][1]
    found = strike_coverage(layers, [0.0, 1.0], [1.0, 3.0])
    assert found.dead == int((before <= 0.0).all(axis=0).sum()) > 0
    assert found.always_on == int((before >= 0.0).all(axis=0).sum()) > 0
    assert found.merged == 0
    assert found.units == 60


def test_hinges_that_coincide_are_counted_once(rng):
    weights, biases = rng.normal(size=(6, 2)), 0.1 * rng.normal(size=6)
    factors = rng.uniform(0.1, 10.0, (6, 1)) * rng.choice([-1.0, 1.0], (6, 1))
    layer = (
        np.concatenate([weights, factors * weights]),
        np.concatenate([biases, factors[:, 0] * biases]),
    )
    found = strike_coverage([layer], [-1.0, -1.0], [1.0, 1.0])
    assert found == StrikeCoverage(useful=6, merged=6, dead=0, always_on=0)


def test_coverage_of_payoff_and_price_networks():
    """A call is dead above its strike's data; a state price below all strikes is."""
    kinks = jnp.array([20.0, 90.0, 110.0, 300.0, 400.0])
    payoff = ReLUNetwork(0.0, 0.0, kinks, jnp.ones(5))
    prices = PriceNetwork(kinks, jnp.full(5, 0.2), jnp.zeros(5))
    assert strike_coverage(payoff, 50, 150) == StrikeCoverage(2, 0, 2, 1)
    assert strike_coverage(prices, 50, 150) == StrikeCoverage(2, 0, 1, 2)
    flat = ro.BlackScholesCurve(volatility=0.2, forward=100.0, time_to_expiry=1.0)
    assert strike_coverage(flat, 50, 150).useful == 1


def test_gains_are_the_gaussian_moments():
    def moment(function):
        density = mpmath.npdf
        points = [-30, -6, 0, 6, 30]
        value: Any = mpmath.quad(lambda x: function(x) ** 2 * density(x), points)
        return float(value)

    normal = mpmath.ncdf
    expected = {
        "relu": (0.5, 0.5),
        "gelu": (
            1.0 / 3.0 + 1.0 / (2.0 * np.pi * np.sqrt(3.0)),
            moment(lambda x: normal(x) + x * mpmath.npdf(x)),
        ),
        "bachelier": (moment(lambda x: x * normal(x) + mpmath.npdf(x)), 1.0 / 3.0),
        "softplus": (
            moment(lambda x: mpmath.log(1 + mpmath.exp(x))),
            moment(lambda x: 1 / (1 + mpmath.exp(-x))),
        ),
    }
    for name, (forward, backward) in expected.items():
        assert gain(name) == pytest.approx(forward, rel=1e-12)
        assert gain(name, backward=True) == pytest.approx(backward, rel=1e-12)
    assert gain("leaky_relu", alpha=0.2) == pytest.approx(0.5 * 1.04, rel=1e-12)


@pytest.mark.parametrize(
    "units", [["relu"] * 3, ["gelu"] * 3, ["relu", "bachelier", "gelu"]], ids=str
)
def test_signals_keep_their_size_through_ten_layers(units, rng):
    width = 240
    hidden = [[name for name in units for _ in range(width // 3)]] * 10
    layers = variance_preserving([width] * 12, hidden, seed=2)
    x = rng.normal(size=(400, width))
    for weights, _ in layers[:-1]:
        before = x @ weights.T
        assert 0.5 < np.mean(before**2) < 2.0
        parts = np.split(before, 3, axis=1)
        pairs = zip(units, parts, strict=True)
        x = np.concatenate(
            [np.asarray(activations.ACTIVATIONS[name](part)) for name, part in pairs],
            axis=1,
        )


def test_an_annealed_unit_is_a_call_whose_volatility_falls():
    x = jnp.linspace(-3.0, 3.0, 61)
    half = annealed(x, 2.0, 0.4)
    np.testing.assert_allclose(half, activations.bachelier(x, 0.0, bandwidth=1.0))
    np.testing.assert_array_equal(annealed(x, 2.0, 0.9), jax.nn.relu(x))
    slope = jax.grad(lambda x, progress: annealed(x, 1.0, progress))
    assert slope(-2.0, 0.0) > 0.02
    assert slope(-2.0, 0.9) == 0.0
    assert slope(2.0, 0.8) == 1.0


def test_annealing_revives_dead_strikes_better_than_leaky_slopes():
    """Sixteen units, all zero on the data: median of five seeds."""
    strikes = np.linspace(50.0, 150.0, 101)
    calls = black_scholes.price(
        spot=100.0, strike=strikes, time_to_expiry=1.0, volatility=0.2
    )
    calls = np.asarray(calls)

    def dead(seed):
        rng = np.random.default_rng(seed)
        facing = np.where(rng.random(16) < 0.5, -1.0, 1.0)
        at = np.where(facing > 0, rng.uniform(155, 200, 16), rng.uniform(0, 45, 16))
        inner = facing[:, None] / strikes.std(), -facing * at / strikes.std()
        assert strike_coverage([inner], 50.0, 150.0).dead == 16
        return [inner, (rng.normal(0.0, 2.5, (1, 16)), np.zeros(1))]

    def median_error(**options):
        networks = [
            train_network(
                strikes,
                calls,
                widths=(16,),
                initial=dead(seed),
                training=TrainingOptions(steps=4000, look_every=100, seed=seed),
                **options,
            )
            for seed in range(5)
        ]
        errors = [np.sqrt(np.mean((one(strikes) - calls) ** 2)) for one in networks]
        useful = [one.coverage(50.0, 150.0).useful for one in networks]
        return np.median(errors), np.median(useful)

    plain, none = median_error()
    leaky, few = min(
        median_error(activation="leaky_relu", alpha=alpha) for alpha in (0.01, 0.1)
    )
    best, several = median_error(annealing=0.5)
    assert plain == pytest.approx(calls.std(), rel=1e-6)
    assert none == 0
    assert best < 0.8 * leaky
    assert several > few


def test_bad_requests_are_named():
    with pytest.raises(ValueError, match="n must be a whole number"):
        quantile_strikes([1.0, 2.0], 0)
    with pytest.raises(ValueError, match="finite data that differ"):
        quantile_strikes([1.0, 1.0], 2)
    with pytest.raises(ValueError, match="activation must be one of"):
        gain("tanh")
    with pytest.raises(ValueError, match="domain is empty"):
        strike_coverage([100.0], 150.0, 50.0)
    with pytest.raises(ValueError, match="2 numbers, one for each input"):
        strike_coverage([(np.ones((3, 2)), np.zeros(3))], 0.0, 1.0)
    with pytest.raises(ValueError, match="1 hidden layers"):
        variance_preserving([1, 2, 1], [])
    with pytest.raises(ValueError, match="3 units, but 2 activations"):
        variance_preserving([1, 3, 1], [["relu", "gelu"]])

"""Training by gradient: derivatives, identities, goals, and what a bad request gets."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest
from jax.flatten_util import ravel_pytree
from scipy.optimize import lsq_linear

import relu_options as ro
from relu_options import black_scholes
from relu_options.errors import FitError
from relu_options.fitting import curve_training, surface_training
from relu_options.fitting.network_training import train_network
from relu_options.fitting.projection import least_objective, optimal_weights
from relu_options.fitting.training import TrainingOptions, squared_residual, train

STRIKES = np.linspace(50.0, 150.0, 101)
CALLS = np.asarray(
    black_scholes.price(spot=100.0, strike=STRIKES, time_to_expiry=1.0, volatility=0.2)
)
BLACK_SCHOLES = pd.DataFrame({"strike": STRIKES, "mid": CALLS, "option_type": "call"})
TERMS: dict[str, Any] = {
    "forward": 100.0,
    "discount_factor": 1.0,
    "time_to_expiry": 1.0,
}
FEW_STEPS = TrainingOptions(steps=50)


def how(fitted) -> Any:
    """How a curve or surface was trained."""
    return fitted.fit


def rms(difference):
    return float(np.sqrt(np.mean(np.square(difference))))


@pytest.fixture(scope="module")
def quotes():
    chain = ro.bundled_chain()
    return ro.prepare_quotes(chain[chain.slices[2]])


@pytest.fixture(scope="module")
def learned(quotes):
    """Eight kinks, learned."""
    training = TrainingOptions(steps=200)
    return ro.fit_curve(quotes, method="gradient", kinks=8, training=training)


def report(fitted) -> Any:
    """How a curve or surface was trained."""
    assert hasattr(fitted.fit, "history")
    return fitted.fit


def slope(function, at, direction, step=1e-6):
    rise = function(at + step * direction) - function(at - step * direction)
    return float(rise) / (2.0 * step)


# The pieces, against finite differences and identities


def test_weights_have_mass_and_mean_one_and_are_positive(rng):
    kinks = np.exp(np.sort(rng.normal(0.0, 0.6, (200, 12)), axis=1))
    kinks[:, 0], kinks[:, -1] = 0.2, 40.0
    kinks = jnp.asarray(kinks)
    logits = rng.normal(0.0, 8.0, (200, 12))
    weights = jax.vmap(curve_training.tilted_softmax)(logits, jnp.asarray(kinks))
    assert (weights >= 0.0).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-14)
    np.testing.assert_allclose(jnp.sum(weights * kinks, axis=1), 1.0, atol=1e-13)


def test_tilted_weights_are_those_of_least_relative_entropy(rng):
    """Logarithms of weights over the softmax are linear in the kinks."""
    kinks, logits = jnp.linspace(0.5, 1.8, 7), jnp.asarray(rng.normal(size=7))
    ratio = (
        np.log(curve_training.tilted_softmax(jnp.asarray(logits), jnp.asarray(kinks)))
        - logits
    )
    np.testing.assert_allclose(np.diff(ratio, 2), 0.0, atol=1e-12)


def test_tilted_weights_have_the_derivatives_of_finite_differences(rng):
    kinks, logits = np.linspace(0.5, 1.8, 7), rng.normal(size=7)
    prices = rng.normal(size=7)

    def value(logits, kinks):
        return curve_training.tilted_softmax(logits, kinks) @ prices

    by_logits, by_kinks = jax.grad(value, (0, 1))(logits, kinks)
    for _ in range(3):
        direction = rng.normal(size=7)
        expected = slope(lambda one: value(one, kinks), logits, direction)
        assert by_logits @ direction == pytest.approx(expected, rel=1e-6)
        expected = slope(lambda one: value(logits, one), kinks, direction)
        assert by_kinks @ direction == pytest.approx(expected, rel=1e-6)


def test_projected_weights_have_the_derivatives_of_whole_solutions(rng):
    """Of the weights implicitly, of the objective by the envelope theorem."""
    strikes = np.linspace(0.6, 1.5, 40)
    data = black_scholes.undiscounted_price(1.0, strikes, 0.2, strikes >= 1.0)
    data = 100.0 * (np.asarray(data) + 3e-3 * rng.normal(size=40))
    x = np.linspace(-0.7, 0.6, 9)
    prices = rng.normal(size=9)

    @jax.jit
    def solved(x):
        kinks = jnp.exp(x)
        design = curve_training.out_of_the_money(
            kinks, jnp.full(9, 0.07), jnp.log(strikes)
        )
        weights, solution = optimal_weights(100.0 * design, data, kinks)
        least, _ = least_objective(100.0 * design, data, kinks)
        implicit = 0.5 * jnp.sum((100.0 * design @ weights - data) ** 2)
        values = jnp.stack([weights @ prices, least, implicit])
        return values, (weights, solution.gap)

    slopes, (weights, gap) = jax.jit(jax.jacrev(solved, has_aux=True))(x)
    assert (weights < 1e-6).any()
    assert (weights > 1e-2).sum() > 3
    assert float(gap) < 1e-8
    for _ in range(3):
        direction = rng.normal(size=9)
        for place, step, tolerance in ((0, 1e-5, 1e-3), (1, 1e-4, 1e-4)):
            expected = slope(lambda x, at=place: solved(x)[0][at], x, direction, step)
            found = float(slopes[place] @ direction)
            assert found == pytest.approx(expected, rel=tolerance)
    np.testing.assert_allclose(slopes[1], slopes[2], rtol=1e-3, atol=1e-5)


def test_steps_of_dupire_are_those_of_the_dense_system(rng):
    kinks = np.sort(np.append(np.exp(rng.normal(0.0, 0.4, 11)), 1.0))
    first = (kinks == 1.0).astype(float)
    variances = np.exp(rng.normal(-4.0, 2.0, (5, 12)))
    weights = surface_training.dupire_weights(
        *map(jnp.asarray, (variances, kinks, first))
    )
    values = np.maximum(kinks[:, None] - kinks, 0.0)  # skeletons as puts
    gaps = np.diff(kinks)
    changes = np.diff(np.diff(np.eye(12), axis=0) / gaps[:, None], axis=0)
    before = first
    for row, variance in zip(weights, variances, strict=True):
        rate = np.zeros(12)
        rate[1:-1] = variance[1:-1] * kinks[1:-1] ** 2 / (gaps[1:] + gaps[:-1])
        columns = np.zeros((12, 12))
        columns[:, 1:-1] = changes.T
        expected = np.linalg.solve(np.eye(12) - columns * rate, before)
        np.testing.assert_allclose(row, expected, rtol=1e-10, atol=1e-15)
        assert (row > 0.0).all()
        assert row.sum() == pytest.approx(1.0, abs=1e-13)
        assert row @ kinks == pytest.approx(1.0, abs=1e-13)
        assert (values @ (row - before) >= -1e-15).all()
        before = row


def test_prices_of_a_surface_have_the_derivatives_of_finite_differences(quotes, rng):
    x = np.linspace(-0.8, 0.6, 8)
    x[np.argmin(np.abs(x))] = 0.0
    parameters = surface_training._parameters(
        x,
        np.sqrt(0.02**2 + 0.1 * x**2),
        np.outer([0.5, 1.0], 0.04 * np.exp(-10.0 * np.abs(x[1:-1]))),
        1e-3,
    )
    context = jnp.arange(8) - int(np.argmax(x == 0.0)), 1e-3
    unknown = jnp.full(6, jnp.nan)
    strikes = jnp.log(jnp.array([0.7, 0.9, 1.0, 1.0, 1.1, 1.3]))
    rows = surface_training.SurfaceRows(
        curve_training.QuoteRows(strikes, *[unknown] * 6),
        jnp.array([0, 1, 0, 1, 0, 1]),
    )
    pull = rng.normal(size=6)
    flat, restore = ravel_pytree(parameters)

    @jax.jit
    def value(flat):
        prices = surface_training.fitted_prices(restore(flat), context, rows, None, 1.0)
        return prices @ pull

    gradient = jax.jit(jax.grad(value))(flat)
    for _ in range(3):
        direction = rng.normal(size=flat.size)
        expected = slope(value, flat, direction)
        assert gradient @ direction == pytest.approx(expected, rel=1e-5)


# The loop


def constant(parameters, context, rows, weight, progress):
    return jnp.full(rows["target"].shape, parameters)


def learn_constant(values, **options):
    return train(
        constant,
        squared_residual,
        jnp.zeros(options.get("restarts", 1)),
        context=None,
        rows={"target": jnp.asarray(values)},
        weight=np.ones(len(values)),
        options=TrainingOptions(**options),
    )


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.sgd(optax.exponential_decay(0.4, 50, 0.5)),
        optax.lbfgs(),
        optax.chain(optax.clip(1.0), optax.adam(0.05)),
    ],
    ids=["sgd with a schedule", "lbfgs with a line search", "clipped adam"],
)
def test_any_optimizer_learns_a_mean(optimizer):
    mean, history = learn_constant([1.0, 2.0, 6.0], steps=300, optimizer=optimizer)
    assert mean == pytest.approx(3.0, abs=1e-3)
    assert history.loss == pytest.approx(14.0 / 3.0, abs=1e-5)


def test_batches_learn_a_mean_and_seeds_reproduce(rng):
    values = rng.normal(2.0, 1.0, 64)
    options = {"steps": 400, "batch_size": 8, "learning_rate": 0.05}
    first, _ = learn_constant(values, seed=3, **options)
    again, _ = learn_constant(values, seed=3, **options)
    other, _ = learn_constant(values, seed=4, **options)
    assert first == again
    assert first != other
    assert first == pytest.approx(values.mean(), abs=0.05)


def test_rows_held_out_stop_the_training_and_choose_its_parameters(rng):
    """The rows learned from pull to 5; what is best for those held out is passed."""
    values = rng.normal(5.0, 0.1, 20)
    drawn = np.random.default_rng(0).permutation(20)[:5]  # as the loop draws
    values[drawn] = 2.0
    kept, history = learn_constant(
        values, steps=2000, learning_rate=0.05, held_out=0.25, patience=4, look_every=5
    )
    assert history.held_out == 5
    assert history.stopped_early
    assert history.steps[-1] == history.step + 4 * 5
    assert kept == pytest.approx(2.0, abs=0.2)
    assert history.loss == history.judged.min()
    everything, _ = learn_constant(values, steps=2000, learning_rate=0.05)
    assert everything == pytest.approx(values.mean(), abs=1e-3)


def test_the_last_steps_are_as_many_as_asked_for():
    _, history = learn_constant([0.0, 1.0], steps=60, look_every=25)
    assert history.steps.tolist() == [0, 25, 50, 60]
    frame = history.to_frame()
    assert len(frame) == 4
    assert np.isnan(frame["training"][0])


def test_a_loss_that_is_never_finite_is_an_error():
    with pytest.raises(FitError, match="not finite in any of 2 restarts"):
        learn_constant([np.nan, 1.0], steps=5, restarts=2)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"steps": 0}, "steps must be a whole number"),
        ({"restarts": 1.5}, "restarts must be a whole number"),
        ({"patience": 0}, "patience must be"),
        ({"held_out": 1.0}, "held_out must be a share"),
        ({"learning_rate": -1.0}, "learning_rate must be positive"),
        ({"weights": "solved"}, "weights must be"),
        ({"loss": 3}, "a name or a function"),
    ],
)
def test_bad_options_are_named(request_, message):
    with pytest.raises(ValueError, match=message):
        TrainingOptions(**request_)


def test_too_few_rows_are_named():
    with pytest.raises(ValueError, match="fewer than two"):
        learn_constant([1.0, 2.0], held_out=0.5)
    with pytest.raises(ValueError, match="batch_size is 5, of 2 rows"):
        learn_constant([1.0, 2.0], batch_size=5)


# Curves


def test_learned_kinks_are_better_than_twice_as_many_fixed_ones(quotes, learned):
    """Of a smile with spreads, in half-spreads and in volatility."""
    fixed = ro.fit_curve(quotes, kinks=16)
    assert learned.share_inside == 1.0 >= fixed.share_inside
    assert learned.volatility_error < fixed.volatility_error


def test_a_trained_curve_is_a_curve_like_any_other(quotes, learned):
    assert bool(learned.certificate)
    weights = np.asarray(learned.network.weights) / learned.discount_factor
    kinks = np.asarray(learned.network.kinks) / learned.forward
    assert weights.sum() == pytest.approx(1.0, abs=1e-13)
    assert weights @ kinks == pytest.approx(1.0, abs=1e-13)
    assert (np.diff(kinks) > 0.0).all()
    assert len(report(learned).quotes) == len(quotes)
    assert report(learned).gap < 1e-6
    assert report(learned).history.loss < 1e-2 * report(learned).history.judged[0, 0]
    assert report(learned).plot_history().get_xlabel() == "step"


def test_seeds_reproduce_a_curve(quotes, learned):
    again = ro.fit_curve(
        quotes, method="gradient", kinks=8, training=TrainingOptions(steps=200)
    )
    np.testing.assert_array_equal(again.network.kinks, learned.network.kinks)


def test_a_loss_of_the_user_is_minimised(quotes):
    """Absolute residuals, in units of the forward."""

    def absolute(fitted, rows):
        return jnp.abs(fitted - rows.mid)

    curve = ro.fit_curve(
        quotes,
        method="gradient",
        kinks=8,
        training=TrainingOptions(steps=200, loss=absolute, weights="learned"),
    )
    residual = curve.quotes["residual"] / quotes.discount_factor / quotes.forward
    expected = np.mean(np.abs(residual))
    assert report(curve).history.loss == pytest.approx(expected, rel=1e-9)
    assert expected < 0.03 * report(curve).history.judged[0, 0]
    assert np.isnan(report(curve).gap)


def test_the_loss_inside_is_the_distance_outside(quotes):
    training = TrainingOptions(steps=600, loss="inside", weights="learned")
    curve = ro.fit_curve(quotes, method="gradient", kinks=8, training=training)
    assert report(curve).objective < 1e-3 * report(curve).history.judged[0, 0]
    table = curve.quotes
    outside = np.abs(table["residual"]) / (0.5 * (table["ask"] - table["bid"])) - 0.9
    expected = np.mean(np.maximum(outside, 0.0) ** 2)
    assert report(curve).objective == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_sharp_kinks_learned_beat_sixteen_fixed_ones():
    """Of a Black-Scholes call curve, in price with a spot of 100."""
    training = TrainingOptions(steps=300, loss="price", restarts=2)
    curve = ro.fit_curve(
        BLACK_SCHOLES,
        **TERMS,
        kinks=16,
        smoothing=0.0,
        method="gradient",
        training=training,
    )
    fixed = np.linspace(50.0, 150.0, 18)[1:-1]
    hinges = np.maximum(STRIKES[:, None] - fixed, 0.0)
    design = np.column_stack([np.ones(101), STRIKES, hinges])
    bounds = np.append([-np.inf] * 2, np.zeros(16)), np.inf
    solution = lsq_linear(design, CALLS, bounds)
    assert (np.asarray(curve.network.bandwidths) == 0.0).all()
    error = rms(curve.price(STRIKES) - CALLS)
    assert error <= rms(design @ solution.x - CALLS) < 0.016
    assert error <= 0.013


def test_bad_requests_of_a_curve_are_named(quotes):
    def fit(table=quotes, training=FEW_STEPS, **request_):
        terms = {} if table is quotes else TERMS
        return ro.fit_curve(table, training=training, **terms, **request_)

    with pytest.raises(ValueError, match="method must be"):
        fit(method="newton")
    with pytest.raises(ValueError, match="training is for method='gradient'"):
        fit()
    with pytest.raises(ValueError, match="as smooth as its bandwidths"):
        fit(method="gradient", smoothing=1.0)
    with pytest.raises(ValueError, match="'vega'"):
        fit(method="gradient", training=TrainingOptions(loss="vega"))
    inside = TrainingOptions(loss="inside")
    with pytest.raises(ValueError, match="needs a bid and an ask"):
        fit(BLACK_SCHOLES, method="gradient", training=inside)


# Surfaces


def test_a_trained_surface_is_proved_and_better_than_where_it_started():
    chain = ro.bundled_chain()
    quotes = [ro.prepare_quotes(chain[one]) for one in chain.slices[1:4]]
    flat = surface_training.train_surface(quotes, kinks=24, training=FEW_STEPS)
    assert bool(flat.certificate)
    assert report(flat).history.loss < 0.1 * report(flat).history.judged[0, 0]
    again = surface_training.train_surface(quotes, start=flat, training=FEW_STEPS)
    assert bool(again.certificate)
    first = report(again).history.judged[0, 0]
    assert first == pytest.approx(report(flat).history.loss, rel=0.05)
    assert report(again).history.loss < first
    assert again.volatility_error < flat.volatility_error
    assert report(again).plot_history().get_ylabel() == "loss"
    with pytest.raises(ValueError, match="has 3 expiries, the quotes have 2"):
        surface_training.train_surface(quotes[:2], start=flat)
    projected = TrainingOptions(weights="projected")
    with pytest.raises(ValueError, match="weights of a surface are learned"):
        surface_training.train_surface(quotes, training=projected)


# Layered networks


@pytest.fixture(scope="module")
def call_networks():
    """Sixteen units of each start, on the call curve, five seeds."""

    def fit(initial, seed):
        return train_network(
            STRIKES,
            CALLS,
            widths=(16,),
            initial=initial,
            training=TrainingOptions(steps=2000, look_every=100, seed=seed),
        )

    starts = "quantile", "uniform", "raw"
    return {start: [fit(start, seed) for seed in range(5)] for start in starts}


def test_strikes_at_quantiles_reach_the_goal(call_networks):
    errors = {
        start: [rms(one(STRIKES) - CALLS) for one in networks]
        for start, networks in call_networks.items()
    }
    assert max(errors["quantile"]) <= 0.03
    assert np.median(errors["uniform"]) > 2.0 * max(errors["quantile"])
    assert min(errors["raw"]) > 1.0


def test_layers_are_in_the_units_of_the_data(call_networks):
    network = call_networks["uniform"][0]
    (inner, shift), (outer, level) = network.layers
    hidden = np.maximum(STRIKES[:, None] @ inner.T + shift, 0.0)
    np.testing.assert_allclose(
        (hidden @ outer.T + level)[:, 0], network(STRIKES), rtol=1e-12
    )
    assert network(100.0).shape == ()
    assert network.coverage(50.0, 150.0).units == 16


def test_a_training_goes_on_from_given_layers(call_networks):
    network = call_networks["quantile"][0]
    again = train_network(
        STRIKES,
        CALLS,
        widths=(16,),
        initial=network.layers,
        training=TrainingOptions(steps=2000, look_every=100),
    )
    first = np.sqrt(again.history.judged[0, 0]) * CALLS.std()
    assert first == pytest.approx(rms(network(STRIKES) - CALLS), rel=1e-9)
    assert again.history.loss <= again.history.judged[0, 0]


def test_positive_output_weights_make_a_convex_network(rng):
    points = rng.uniform(-1.0, 1.0, (200, 2))
    values = np.abs(points[:, 0]) - np.abs(points[:, 1])
    network = train_network(
        points,
        values,
        widths=(8,),
        positive_output=True,
        training=TrainingOptions(steps=200),
    )
    assert (network.layers[-1][0] > 0.0).all()
    one, other = rng.uniform(-2.0, 2.0, (2, 500, 2))
    between = 0.5 * (network(one) + network(other)) - network(0.5 * (one + other))
    assert between.min() >= -1e-12


def test_bad_requests_of_a_network_are_named():
    with pytest.raises(ValueError, match="must have shapes"):
        train_network(STRIKES, CALLS[:-1])
    with pytest.raises(ValueError, match="1 of 101 points are not finite"):
        train_network(STRIKES, np.where(STRIKES == 60.0, np.nan, CALLS))
    with pytest.raises(ValueError, match="widths must be positive"):
        train_network(STRIKES, CALLS, widths=())
    with pytest.raises(ValueError, match="activation must be one of"):
        train_network(STRIKES, CALLS, activation="tanh")
    with pytest.raises(ValueError, match="annealing must be"):
        train_network(STRIKES, CALLS, activation="gelu", annealing=1.0)
    with pytest.raises(ValueError, match="initial must be"):
        train_network(STRIKES, CALLS, initial="zeros")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="ask for"):
        train_network(STRIKES, CALLS, initial=[(np.ones((3, 1)), np.ones(3))])
    training = TrainingOptions(loss="volatility")
    with pytest.raises(ValueError, match="for price curves"):
        train_network(STRIKES, CALLS, training=training)


def test_learned_kinks_of_a_surface_are_better_than_as_many_fixed_ones():
    prepared = [ro.prepare_quotes(one) for one in ro.bundled_chain()]
    fixed = ro.fit_surface(prepared, kinks=24)
    surface = ro.fit_surface(
        prepared, kinks=24, method="gradient", training=TrainingOptions(steps=200)
    )
    assert surface.volatility_error < 0.8 * fixed.volatility_error
    assert surface.share_inside >= fixed.share_inside
    assert bool(surface.certificate)
    with pytest.raises(ValueError, match="method must be"):
        ro.fit_surface(prepared, method="newton")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="training is for"):
        ro.fit_surface(prepared, training=TrainingOptions(steps=1))

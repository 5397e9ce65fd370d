"""Conflicting tasks: cosines, projections, and the joint fit that has no conflict."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from relu_options.fitting.gradient_conflict import (
    gradient_similarity,
    pcgrad,
    task_gradients,
    without_conflict,
)


def quadratic(target):
    return lambda parameters: 0.5 * jnp.sum((parameters["x"] - target) ** 2)


def test_similarities_are_cosines(rng):
    targets = rng.normal(size=(4, 6))
    at = {"x": jnp.asarray(rng.normal(size=6))}
    rows = np.asarray(at["x"]) - targets
    norms = np.linalg.norm(rows, axis=1)
    expected = rows @ rows.T / np.outer(norms, norms)
    found = gradient_similarity([quadratic(one) for one in targets], at)
    np.testing.assert_allclose(found, expected, atol=1e-14)


def test_gradients_that_agree_are_added_up(rng):
    rows = np.abs(rng.normal(size=(5, 7)))
    found = without_conflict(jnp.asarray(rows), jax.random.key(1))
    np.testing.assert_allclose(found, rows.sum(axis=0), rtol=1e-14)


def test_two_tasks_never_pull_against_each_other(rng):
    """Each part is orthogonal to the other task's gradient, so the sum helps both."""
    combine = jax.jit(without_conflict)
    for _ in range(50):
        first, second = rng.normal(size=(2, 5))
        second -= 2.0 * max(first @ second, 0.0) / (first @ first) * first
        found = combine(jnp.stack([first, second]), jax.random.key(0))
        overlap = first @ second
        assert overlap <= 0.0
        expected = first - overlap / (second @ second) * second
        expected = expected + second - overlap / (first @ first) * first
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        assert found @ first >= 0.0
        assert found @ second >= 0.0


def test_the_order_is_drawn_and_a_seed_reproduces_it(rng):
    rows = jnp.asarray(rng.normal(size=(6, 3)))
    draws = [without_conflict(rows, jax.random.key(seed)) for seed in range(8)]
    again = without_conflict(rows, jax.random.key(0))
    np.testing.assert_array_equal(again, draws[0])
    assert max(float(jnp.abs(one - draws[0]).max()) for one in draws) > 1e-3


def test_a_task_without_gradient_is_left_alone():
    rows = jnp.array([[1.0, -2.0], [0.0, 0.0]])
    found = without_conflict(rows, jax.random.key(0))
    np.testing.assert_array_equal(found, rows[0])


def test_chained_with_an_optimizer_it_finds_what_all_tasks_share():
    """Two tasks agree on a line and on one point of it."""
    losses = [
        lambda p: (p["x"][0] - 1.0) ** 2 + 10.0 * (p["x"][1] - 2.0) ** 2,
        lambda p: 10.0 * (p["x"][0] - 1.0) ** 2 + (p["x"][1] - 2.0) ** 2,
    ]
    parameters = {"x": jnp.array([5.0, -3.0])}
    optimizer = optax.chain(pcgrad(seed=2), optax.adam(0.1))
    state = optimizer.init(parameters)

    @jax.jit
    def step(parameters, state):
        gradients = task_gradients(losses, parameters)
        change, state = optimizer.update(gradients, state, parameters)
        return optax.apply_updates(parameters, change), state

    for _ in range(400):
        parameters, state = step(parameters, state)
    np.testing.assert_allclose(parameters["x"], [1.0, 2.0], atol=1e-3)


def test_expiries_with_their_own_weights_have_no_conflict(rng):
    """A joint fit with fixed kinks: gradients of different expiries are orthogonal."""
    kinks, strikes = np.linspace(0.6, 1.4, 9), np.linspace(0.7, 1.3, 20)
    design = jnp.maximum(kinks - strikes[:, None], 0.0)
    prices = rng.uniform(0.0, 0.3, (3, 20))

    def loss(expiry):
        return lambda weights: jnp.sum((design @ weights[expiry] - prices[expiry]) ** 2)

    weights = jnp.asarray(rng.dirichlet(np.ones(9), 3))
    found = gradient_similarity([loss(expiry) for expiry in range(3)], weights)
    np.testing.assert_allclose(found, np.eye(3), atol=1e-14)


def test_no_losses_are_an_error():
    with pytest.raises(ValueError, match="one loss at least"):
        gradient_similarity([], jnp.zeros(2))

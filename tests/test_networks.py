"""Networks as functions: values, derivatives, arithmetic, duality, transformations."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from relu_options.networks import (
    BachelierNetwork,
    Kernel,
    PriceNetwork,
    ReLUNetwork,
    kernel_price,
    price_from_kinks,
    price_from_strikes,
    relu,
)

KERNELS: tuple[Kernel, ...] = ("black", "bachelier")
POINTS = np.linspace(60.0, 150.0, 31)


def price_network(rng, kernel: Kernel = "black", size=12) -> PriceNetwork:
    """States around 100 with mass 0.95; half of them of narrow bandwidth."""
    widths = rng.uniform(0.02, 0.3, size) * np.where(np.arange(size) % 2, 0.1, 1.0)
    return PriceNetwork(
        jnp.asarray(rng.uniform(60, 150, size)),
        jnp.asarray(0.95 * rng.dirichlet(np.ones(size))),
        jnp.asarray(widths * (1.0 if kernel == "black" else 100.0)),
        kernel,
    )


def payoff_network(rng, size=7) -> ReLUNetwork:
    """Long and short calls, some forwards, some cash."""
    return ReLUNetwork(
        rng.normal(),
        rng.normal(),
        jnp.asarray(rng.uniform(60, 150, size)),
        jnp.asarray(rng.normal(size=size)),
    )


def bachelier_network(rng, size=7) -> BachelierNetwork:
    payoff = payoff_network(rng, size)
    return BachelierNetwork(
        payoff.intercept,
        payoff.slope,
        payoff.kinks,
        payoff.weights,
        jnp.asarray(rng.uniform(0.5, 9.0, size)),
    )


def price_unit(state, bandwidth, kernel: Kernel = "black") -> PriceNetwork:
    """One hidden unit of weight one; eleven more have weight zero."""
    return PriceNetwork(
        jnp.full(12, state), jnp.eye(12)[0], jnp.full(12, bandwidth), kernel
    )


@jax.jit
def _evaluate(network: PriceNetwork, strikes):
    return {
        "call": network(strikes),
        "put": network.put(strikes),
        "survival": network.survival(strikes),
        "cumulative": network.cumulative(strikes),
        "derivative": network.derivative(strikes),
        "second_derivative": network.second_derivative(strikes),
    }


def evaluate(network: PriceNetwork, strikes) -> dict[str, np.ndarray]:
    """All that a price network says at up to 31 strikes; one shape, one compilation."""
    strikes = np.atleast_1d(np.asarray(strikes, float))
    padded = np.concatenate([strikes, np.full(31 - len(strikes), 100.0)])
    values = _evaluate(network, padded)
    return {name: np.asarray(v)[: len(strikes)] for name, v in values.items()}


@jax.jit
def two_prices(payoff, prices):
    return price_from_strikes(payoff, prices), price_from_kinks(payoff, prices)


def mp_price_network(network: PriceNetwork, strike: float) -> dict[str, float]:
    """Values of a price network to 50 digits, from its definition, by name."""
    names = ("call", "put", "survival", "cumulative", "density")
    total: dict[str, Any] = dict.fromkeys(names, mpmath.mpf(0))
    with mpmath.workdps(50):
        k = mpmath.mpf(strike)
        for state, weight, width in zip(
            *(
                np.asarray(values).tolist()
                for values in (network.kinks, network.weights, network.bandwidths)
            ),
            strict=True,
        ):
            s, p, h = mpmath.mpf(state), mpmath.mpf(weight), mpmath.mpf(width)
            if network.kernel == "black":
                up = mpmath.log(s / k) / h + h / 2
                down = up - h
                call = s * mpmath.ncdf(up) - k * mpmath.ncdf(down)
                put = k * mpmath.ncdf(-down) - s * mpmath.ncdf(-up)
                density = mpmath.npdf(down) / (h * k)
            else:
                down = (s - k) / h
                call = (s - k) * mpmath.ncdf(down) + h * mpmath.npdf(down)
                put = (k - s) * mpmath.ncdf(-down) + h * mpmath.npdf(down)
                density = mpmath.npdf(down) / h
            parts = (call, put, mpmath.ncdf(down), mpmath.ncdf(-down), density)
            for name, part in zip(names, parts, strict=True):
                total[name] += p * part
        return {name: float(value) for name, value in total.items()}


# Values


@pytest.mark.parametrize("kernel", KERNELS)
def test_price_network_agrees_with_fifty_digits(rng, kernel):
    """To 13 digits, puts far out of the money included; so do all derivatives."""
    network = price_network(rng, kernel)
    strikes = np.array([25.0, 45.0, 70.0, 90.0, 99.9, 100.0, 131.0, 180.0, 260.0])
    truth = [mp_price_network(network, strike) for strike in strikes]
    for name, values in evaluate(network, strikes).items():
        sign = -1.0 if name == "derivative" else 1.0
        of = {"derivative": "survival", "second_derivative": "density"}.get(name, name)
        expected = sign * np.array([one[of] for one in truth])
        assert np.all(expected != 0.0)
        # Far in the tails an ulp of the deviation d is d**2 ulps of the result.
        np.testing.assert_allclose(
            values, expected, rtol=2e-13, atol=1e-200, err_msg=name
        )


def test_bachelier_network_agrees_with_fifty_digits(rng):
    network = bachelier_network(rng)
    value, slope, bend = [], [], []
    with mpmath.workdps(50):
        for point in POINTS.tolist():
            units = [
                (mpmath.mpf(w), mpmath.mpf(h), (mpmath.mpf(point) - mpmath.mpf(k)) / h)
                for k, w, h in zip(
                    *(
                        np.asarray(values).tolist()
                        for values in (
                            network.kinks,
                            network.weights,
                            network.bandwidths,
                        )
                    ),
                    strict=True,
                )
            ]
            line = mpmath.mpf(network.intercept) + mpmath.mpf(network.slope) * point
            hidden = [
                w * h * (d * mpmath.ncdf(d) + mpmath.npdf(d)) for w, h, d in units
            ]
            value.append(float(line + mpmath.fsum(hidden)))
            rise: Any = mpmath.fsum(w * mpmath.ncdf(d) for w, _, d in units)
            slope.append(float(network.slope + rise))
            bent: Any = mpmath.fsum(w * mpmath.npdf(d) / h for w, h, d in units)
            bend.append(float(bent))
    np.testing.assert_allclose(network(POINTS), value, rtol=1e-13, atol=1e-11)
    np.testing.assert_allclose(network.derivative(POINTS), slope, atol=1e-14)
    np.testing.assert_allclose(network.second_derivative(POINTS), bend, atol=1e-15)


def test_relu_network_is_its_definition(rng):
    """Also at its kinks, where the slope is the mean of those on the two sides."""
    network = payoff_network(rng)
    kinks, weights = np.asarray(network.kinks), np.asarray(network.weights)
    points = np.concatenate([POINTS, kinks])
    expected = [
        network.intercept
        + network.slope * x
        + sum(w * max(x - k, 0.0) for k, w in zip(kinks, weights, strict=True))
        for x in points
    ]
    np.testing.assert_allclose(network(points), expected, rtol=1e-14, atol=1e-12)
    for kink, weight in zip(kinks, weights, strict=True):
        left, middle, right = network.derivative(kink + np.array([-1e-9, 0.0, 1e-9]))
        assert float(right - left) == pytest.approx(weight, rel=1e-12)
        assert float(middle) == pytest.approx(float(left + right) / 2, rel=1e-12)


# The limit of vanishing bandwidths


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("bandwidth", [0.0, 1e-300, 1e-18])
def test_vanishing_bandwidths_give_the_relu_network(rng, kernel, bandwidth):
    """To rounding, at every strike, and on the kinks themselves."""
    smooth = price_network(rng, kernel)
    network = replace(smooth, bandwidths=jnp.full(12, bandwidth))
    kinks, weights = np.asarray(smooth.kinks), np.asarray(smooth.weights)
    strikes = np.concatenate([POINTS[::2], kinks])
    distance = kinks - strikes[:, None]
    found = evaluate(network, strikes)
    call = np.maximum(distance, 0.0) @ weights
    put = np.maximum(-distance, 0.0) @ weights
    np.testing.assert_allclose(found["call"], call, rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(found["put"], put, rtol=1e-14, atol=1e-14)
    between = slice(16)
    survival = (distance > 0.0) @ weights
    np.testing.assert_allclose(found["survival"][between], survival[between])
    np.testing.assert_array_equal(found["second_derivative"][between], 0.0)
    np.testing.assert_allclose(smooth.to_relu()(strikes), call, rtol=1e-13, atol=1e-12)
    assert not np.asarray(smooth.skeleton.bandwidths).any()


def test_vanishing_bandwidths_give_the_relu_payoff(rng):
    smooth = bachelier_network(rng)
    network = replace(smooth, bandwidths=jnp.zeros(7))
    points = np.concatenate([POINTS, np.asarray(smooth.kinks)])
    np.testing.assert_allclose(
        network(points), smooth.skeleton(points), rtol=1e-14, atol=1e-12
    )
    np.testing.assert_allclose(
        network.derivative(points), smooth.skeleton.derivative(points), atol=1e-14
    )
    assert not network.second_derivative(POINTS).any()


@pytest.mark.parametrize("kernel", KERNELS)
def test_rounding_a_kink_costs_its_bandwidth(kernel):
    """On the kink a unit of bandwidth h is worth s h / sqrt(2 pi), to order h^3."""
    scale = 100.0 if kernel == "black" else 1.0
    for bandwidth in (1e-2, 1e-4, 1e-8):
        found = evaluate(price_unit(100.0, bandwidth, kernel), 100.0)["call"]
        expected = scale * bandwidth / np.sqrt(2.0 * np.pi)
        assert found[0] == pytest.approx(expected, rel=max(bandwidth**2, 1e-12))


# Ends of the range of strikes


@pytest.mark.parametrize("smooth", [True, False])
def test_strike_zero_is_the_forward_and_infinity_is_worthless(rng, smooth):
    network = price_network(rng)
    network = network if smooth else network.skeleton
    mass, mean = float(network.mass), float(network.mean)
    found = evaluate(network, [0.0, np.inf])
    np.testing.assert_allclose(found["call"], [mean, 0.0], rtol=1e-15)
    np.testing.assert_array_equal(found["put"], [0.0, np.inf])
    np.testing.assert_allclose(found["survival"], [mass, 0.0], rtol=1e-15)
    np.testing.assert_allclose(found["cumulative"], [0.0, mass], rtol=1e-15)
    np.testing.assert_array_equal(found["second_derivative"], 0.0)


def test_a_state_of_zero_is_a_default():
    """Its probability is what the distribution has just above zero."""
    network = PriceNetwork(
        jnp.zeros(12).at[1].set(100.0),
        jnp.zeros(12).at[:2].set(jnp.array([0.1, 0.9])),
        jnp.zeros(12).at[1].set(0.1),
    )
    found = evaluate(network, [0.0, 1e-9, 50.0])
    assert found["call"][0] == pytest.approx(90.0, rel=1e-15)
    assert found["put"][2] == pytest.approx(5.0, rel=1e-9)
    assert found["cumulative"][1] == pytest.approx(0.1, rel=1e-15)
    assert found["survival"][1] == pytest.approx(0.9, rel=1e-15)


def test_prices_at_negative_strikes_need_the_bachelier_kernel():
    assert np.isnan(evaluate(price_unit(100.0, 0.2), -1.0)["call"])
    found = evaluate(price_unit(-5.0, 3.0, "bachelier"), -30.0)
    assert found["call"][0] == pytest.approx(25.0, rel=1e-10)


# Arithmetic


def test_relu_networks_form_a_vector_space(rng):
    left, right = payoff_network(rng), payoff_network(rng, 4)
    expected = 2.5 * left(POINTS) - right(POINTS) / 4 + 3.0
    combined = 2.5 * left - right * 0.25 + 3.0
    np.testing.assert_allclose(combined(POINTS), expected, rtol=1e-13)
    np.testing.assert_allclose((3.0 - left)(POINTS), 3.0 - left(POINTS), rtol=1e-13)
    np.testing.assert_allclose((-left)(POINTS), -left(POINTS), rtol=1e-15)
    total = sum([left, right, left])
    assert isinstance(total, ReLUNetwork)
    np.testing.assert_allclose(total(POINTS), 2 * left(POINTS) + right(POINTS))
    np.testing.assert_allclose(
        combined.derivative(POINTS),
        2.5 * left.derivative(POINTS) - right.derivative(POINTS) / 4,
        rtol=1e-13,
    )


def test_bachelier_networks_form_a_vector_space(rng):
    left, right = bachelier_network(rng), bachelier_network(rng, 4)
    combined = 3.0 - (2.5 * left - right * 0.25)
    np.testing.assert_allclose(
        combined(POINTS), 3.0 - 2.5 * left(POINTS) + right(POINTS) / 4, rtol=1e-12
    )
    total = sum([left, right])
    assert isinstance(total, BachelierNetwork)
    np.testing.assert_allclose(total(POINTS), left(POINTS) + right(POINTS), rtol=1e-12)
    np.testing.assert_allclose((-left - 1.0)(POINTS), -left(POINTS) - 1.0, rtol=1e-12)


@pytest.mark.parametrize("kernel", KERNELS)
def test_price_networks_form_a_vector_space(rng, kernel):
    """Mass and mean are linear too: they are the prices of cash and of the forward."""
    left, right = price_network(rng, kernel), price_network(rng, kernel)
    combined = -(0.7 * left - right * 0.2)
    assert combined.kinks.shape == (24,)
    expected = 0.2 * evaluate(right, POINTS)["call"]
    expected -= 0.7 * evaluate(left, POINTS)["call"]
    found = jax.jit(PriceNetwork.__call__)(combined, POINTS)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(combined.mass, 0.2 * right.mass - 0.7 * left.mass)
    np.testing.assert_allclose(combined.mean, 0.2 * right.mean - 0.7 * left.mean)
    total = left + right
    assert total.kernel == kernel
    np.testing.assert_allclose(total.mass, 1.9, rtol=1e-14)


def test_networks_of_two_kernels_do_not_add(rng):
    with pytest.raises(ValueError, match="'black' and 'bachelier'"):
        _ = price_network(rng) + price_network(rng, "bachelier")
    with pytest.raises(TypeError):
        _ = price_network(rng) + 1.0  # type: ignore[operator]


def test_an_unknown_kernel_is_refused_by_name(rng):
    name: Any = "cauchy"
    with pytest.raises(ValueError, match="not 'cauchy'"):
        kernel_price(name)


# Identities


@pytest.mark.parametrize("kernel", KERNELS)
def test_mass_and_mean_are_the_prices_of_cash_and_forward(rng, kernel):
    network = price_network(rng, kernel)
    assert float(network.mass) == pytest.approx(0.95, rel=1e-14)
    expected = float(np.asarray(network.weights) @ np.asarray(network.kinks))
    assert float(network.mean) == pytest.approx(expected, rel=1e-14)
    found = evaluate(network, POINTS)
    parity = found["call"] - found["put"]
    np.testing.assert_allclose(
        parity, network.mean - network.mass * POINTS, rtol=1e-12, atol=1e-12
    )
    both = found["survival"] + found["cumulative"]
    np.testing.assert_allclose(both, np.full(31, network.mass), rtol=1e-14)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_payoff_costs_the_same_by_strikes_and_by_kinks(rng, kernel):
    """To 1e-14 of the gross price of its parts, and over a hundred draws."""
    for _ in range(100):
        payoff, prices = payoff_network(rng), price_network(rng, kernel)
        by_strikes, by_kinks = two_prices(payoff, prices)
        gross = sum(
            abs(float(part))
            for part in (payoff.intercept * 0.95, payoff.slope * prices.mean)
        ) + float(jnp.abs(payoff.weights).sum() * prices.mean)
        assert abs(float(by_strikes - by_kinks)) <= 1e-14 * gross


def test_a_payoff_on_sharp_states_is_its_mean_over_them(rng):
    """Checked by NumPy, a state at a time."""
    payoff, prices = payoff_network(rng), price_network(rng).skeleton
    expected = sum(
        float(weight) * float(payoff(kink))
        for kink, weight in zip(prices.kinks, prices.weights, strict=True)
    )
    for price in two_prices(payoff, prices):
        assert float(price) == pytest.approx(expected, rel=1e-13)


def test_one_call_costs_its_price(rng):
    prices = price_network(rng)
    call = relu(93.0) + 0.0 * payoff_network(rng, 6)
    expected = evaluate(prices, 93.0)["call"][0]
    for price in two_prices(call, prices):
        assert float(price) == pytest.approx(expected, rel=1e-14)


# Shapes and transformations


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_any_shape_of_argument_is_kept(rng, shape):
    points = jax.ShapeDtypeStruct(shape, np.float64)
    payoff, smooth, prices = (
        payoff_network(rng),
        bachelier_network(rng),
        price_network(rng),
    )
    for function in (
        payoff,
        payoff.derivative,
        smooth,
        smooth.derivative,
        smooth.second_derivative,
        prices,
        prices.put,
        prices.derivative,
        prices.cumulative,
        prices.second_derivative,
    ):
        result = jax.eval_shape(function, points)
        assert (result.shape, result.dtype) == (shape, np.float64)


def test_integers_are_arguments_too(rng):
    payoff = payoff_network(rng)
    np.testing.assert_array_equal(payoff(90), payoff(90.0))
    np.testing.assert_array_equal(
        payoff(np.array([90, 110])), payoff(np.array([90.0, 110.0]))
    )


def test_networks_are_trees_of_their_arrays(rng):
    for network, leaves in (
        (payoff_network(rng), 4),
        (bachelier_network(rng), 5),
        (price_network(rng, "bachelier"), 3),
    ):
        flat, structure = jax.tree.flatten(network)
        assert len(flat) == leaves
        again = jax.tree.unflatten(structure, flat)
        for leaf, other in zip(flat, jax.tree.leaves(again), strict=True):
            np.testing.assert_array_equal(leaf, other)
        assert type(again) is type(network)
        if isinstance(again, PriceNetwork):
            assert again.kernel == "bachelier"  # not a leaf: it selects the formula


@pytest.mark.parametrize("kernel", KERNELS)
def test_jit_and_vmap_change_nothing(rng, kernel):
    networks = [price_network(rng, kernel) for _ in range(3)]
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *networks)
    together = jax.jit(jax.vmap(lambda network: network(POINTS)))(batch)
    assert together.shape == (3, 31)
    for one, network in zip(together, networks, strict=True):
        expected = evaluate(network, POINTS)["call"]
        np.testing.assert_allclose(one, expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("kernel", KERNELS)
def test_automatic_derivatives_are_those_in_closed_form(rng, kernel):
    network = price_network(rng, kernel)
    found = evaluate(network, POINTS)
    slope = jax.jit(jax.vmap(jax.grad(network.__call__)))(POINTS)
    np.testing.assert_allclose(slope, found["derivative"], rtol=1e-12)
    bend = jax.jit(jax.vmap(jax.grad(network.derivative)))(POINTS)
    np.testing.assert_allclose(bend, found["second_derivative"], rtol=1e-11)


def test_the_gradient_in_a_weight_is_its_hidden_unit(rng):
    network = price_network(rng)
    gradient = jax.jit(jax.grad(lambda one: one(97.0)))(network)
    units = [
        evaluate(price_unit(float(kink), float(width)), 97.0)["call"][0]
        for kink, width in zip(network.kinks, network.bandwidths, strict=True)
    ]
    np.testing.assert_allclose(gradient.weights, units, rtol=1e-13, atol=1e-300)


@pytest.mark.parametrize("kernel", KERNELS)
def test_gradients_are_those_of_finite_differences(rng, kernel):
    """In kinks and bandwidths, which a training moves; and they are finite at zero."""
    network = price_network(rng, kernel)

    @jax.jit
    def total(one):
        return one(jnp.asarray(POINTS)).sum()

    gradient = jax.jit(jax.grad(total))(network)
    direction = rng.normal(size=12)
    for name, step in (("kinks", 1e-4), ("bandwidths", 1e-6)):
        value = getattr(network, name)
        moved = [
            float(total(replace(network, **{name: value + sign * step * direction})))
            for sign in (1.0, -1.0)
        ]
        expected = (moved[0] - moved[1]) / (2.0 * step)
        found = float(getattr(gradient, name) @ direction)
        assert found == pytest.approx(expected, rel=2e-6)
    sharp = jax.jit(jax.grad(total))(network.skeleton)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(sharp))

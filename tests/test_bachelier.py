"""Prices, Greeks and implied volatilities of the normal model."""

from typing import Any

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
import QuantLib as ql
from option_truth import load_truth

from relu_options import bachelier, black_scholes
from relu_options.formulas import elementwise
from relu_options.formulas import normal as kernels
from relu_options.formulas.bachelier import QuoteStatus


def random_options(rng, size=200) -> dict[str, Any]:
    """Options on forwards of either sign, struck within three deviations."""
    forward = rng.uniform(-50.0, 100.0, size)
    time_to_expiry = rng.uniform(0.02, 5.0, size)
    volatility = rng.uniform(2.0, 40.0, size)
    deviations = rng.uniform(-3.0, 3.0, size)
    return {
        "forward": forward,
        "strike": forward + deviations * volatility * np.sqrt(time_to_expiry),
        "time_to_expiry": time_to_expiry,
        "volatility": volatility,
        "discount_factor": rng.uniform(0.8, 1.02, size),
        "is_call": rng.random(size) < 0.5,
    }


def random_spot_options(rng, size=200) -> dict[str, Any]:
    """The same with spot, interest rate and dividend yield."""
    options = random_options(rng, size)
    options["spot"] = options.pop("forward")
    del options["discount_factor"]
    return options | {
        "rate": rng.uniform(-0.02, 0.1, size),
        "dividend_yield": rng.uniform(0.0, 0.06, size),
    }


def test_implied_normal_volatility_is_within_four_rounding_errors_of_the_truth():
    truth = load_truth("normal")
    result = bachelier.implied_normal_volatility(price=truth.price, **truth.options)
    assert truth.error_of_volatilities(result).max() < 4.0


def test_price_is_as_accurate_as_its_volatility_allows():
    """An error of v by half a unit moves the price by its elasticity times that."""
    truth = load_truth("normal")
    result = bachelier.price(volatility=truth.volatility, **truth.options)
    v = truth.volatility * np.sqrt(truth.options["time_to_expiry"])
    vega = kernels.vega(truth.options["forward"], truth.options["strike"], v)
    elasticity = v * np.asarray(vega) / truth.price
    assert np.all(truth.error_of_prices(result) < 3.0 * (1.0 + elasticity))


def test_prices_of_quantlib(rng):
    options = random_options(rng, 50)
    prices = bachelier.price(**options)
    for i in range(50):
        one = {name: values[i].item() for name, values in options.items()}
        kind = ql.Option.Call if one["is_call"] else ql.Option.Put
        deviation = one["volatility"] * np.sqrt(one["time_to_expiry"])
        expected = ql.bachelierBlackFormula(
            kind, one["strike"], one["forward"], deviation, one["discount_factor"]
        )
        assert prices[i] == pytest.approx(expected, rel=1e-9, abs=1e-11)


def test_put_call_parity(rng):
    options = random_options(rng)
    call = bachelier.price(**options | {"is_call": True})
    put = bachelier.price(**options | {"is_call": False})
    forward_value = options["discount_factor"] * (
        options["forward"] - options["strike"]
    )
    np.testing.assert_allclose(call - put, forward_value, rtol=0, atol=1e-13 * 300)


def test_volatility_of_price_is_volatility(rng):
    options = random_options(rng)
    price = bachelier.price(**options)
    volatility = options.pop("volatility")
    result = bachelier.implied_normal_volatility(price=price, **options)
    np.testing.assert_allclose(result, volatility, rtol=1e-11)


def test_strike_of_delta_is_strike(rng):
    options = random_spot_options(rng)
    delta = bachelier.delta(**options)
    strike = options.pop("strike")
    result = bachelier.strike_from_delta(delta=delta, **options)
    np.testing.assert_allclose(result, strike, rtol=1e-10, atol=1e-9)


def test_volatilities_of_the_two_models_give_one_price(rng):
    size = 200
    market = {
        "forward": rng.uniform(20.0, 300.0, size),
        "time_to_expiry": rng.uniform(0.02, 5.0, size),
    }
    volatility = rng.uniform(0.08, 0.6, size)
    deviations = rng.uniform(-2.0, 2.0, size)
    total = volatility * np.sqrt(market["time_to_expiry"])
    market["strike"] = market["forward"] * np.exp(deviations * total)
    normal = bachelier.normal_from_lognormal_volatility(volatility=volatility, **market)
    np.testing.assert_allclose(
        bachelier.price(volatility=normal, **market),
        black_scholes.price(volatility=volatility, **market),
        rtol=1e-11,
    )
    np.testing.assert_allclose(
        bachelier.lognormal_from_normal_volatility(volatility=normal, **market),
        volatility,
        rtol=1e-11,
    )


@pytest.mark.parametrize("form", [random_options, random_spot_options])
def test_greeks_are_derivatives_of_each_other(rng, form):
    """Every one of them, with all the other arguments of its form held fixed."""
    options = form(rng)
    is_call = options.pop("is_call")
    underlying = "spot" if "spot" in options else "forward"
    greeks = bachelier.greeks(**options, is_call=is_call)

    def derivatives(name):
        function = getattr(bachelier, name)
        return jax.jit(jax.grad(lambda x: function(**x, is_call=is_call).sum()))(
            options
        )

    def close(result, expected):
        scale = np.max(np.abs(expected))
        np.testing.assert_allclose(result, expected, rtol=1e-9, atol=1e-12 * scale)

    of_price = derivatives("price")
    close(greeks.delta, of_price[underlying])
    close(greeks.vega, of_price["volatility"])
    close(greeks.theta, -of_price["time_to_expiry"])
    of_delta = derivatives("delta")
    close(greeks.gamma, of_delta[underlying])
    close(greeks.vanna, of_delta["volatility"])
    close(greeks.charm, -of_delta["time_to_expiry"])
    close(greeks.volga, derivatives("vega")["volatility"])
    if underlying == "spot":
        close(greeks.rho, of_price["rate"])
    else:
        close(greeks.rho, -options["time_to_expiry"] * greeks.price)


def test_derivatives_against_finite_differences():
    """Price and volatility, to second order, at one point in 50 digits."""
    point = -0.5, 1.25, 0.8

    def price(forward, strike, v):
        d = (forward - strike) / v
        return (forward - strike) * mp.ncdf(d) + v * mp.npdf(d)

    with mp.workdps(50):
        exact = [mp.mpf(number) for number in point]
        quote = float(price(*exact))
        orders = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (2, 0, 0), (1, 0, 1), (0, 0, 2)]
        expected = [float(mp.diff(price, exact, order)) for order in orders]
        inverse = [mp.mpf(quote), *exact[:2]]

        def volatility(quote, forward, strike):
            def error(x):
                return price(forward, strike, mp.exp(x)) - quote

            return mp.exp(mp.findroot(error, mp.log(exact[2])))

        expected_inverse = [float(mp.diff(volatility, inverse, o)) for o in orders]
    for kernel, arguments, values in (
        (kernels.undiscounted_price, point, expected),
        (kernels.implied_total_volatility, (quote, *point[:2]), expected_inverse),
    ):

        def function(first, second, third, kernel=kernel):
            return kernel(first, second, third, True)

        gradient, hessian = jax.jit(
            lambda *x, f=function: (
                jax.grad(f, (0, 1, 2))(*x),
                jax.hessian(f, (0, 1, 2))(*x),
            )
        )(*arguments)
        result = [*gradient, hessian[0][0], hessian[0][2], hessian[2][2]]
        np.testing.assert_allclose(result, values, rtol=1e-10)


@pytest.mark.parametrize(
    ("forward", "strike", "v", "is_call", "expected"),
    [
        (-1.0, -3.0, 0.0, True, 2.0),
        (-1.0, -3.0, 0.0, False, 0.0),
        (2.0, 2.0, 0.0, True, 0.0),
        (2.0, np.inf, 1.0, True, 0.0),
        (2.0, np.inf, 1.0, False, np.inf),
        (2.0, -np.inf, 1.0, True, np.inf),
        (2.0, 3.0, np.inf, True, np.inf),
        (np.nan, 3.0, 1.0, True, np.nan),
        (2.0, 3.0, -1.0, True, np.nan),
    ],
)
def test_limits_of_the_price(forward, strike, v, is_call, expected):
    option = dict(forward=forward, strike=strike, is_call=is_call)
    result = bachelier.price(**option, volatility=v, time_to_expiry=1.0)
    np.testing.assert_array_equal(result, expected)


def test_bad_quotes_say_why():
    rows = [
        (1.9, -1.0, -3.0, np.nan, QuoteStatus.TOO_LOW),
        (2.0, -1.0, -3.0, 0.0, QuoteStatus.ZERO_TIME_VALUE),
        (np.inf, -1.0, -3.0, np.inf, QuoteStatus.TOO_HIGH),
        (np.nan, -1.0, -3.0, np.nan, QuoteStatus.UNDEFINED),
        (2.0, -1.0, np.inf, np.nan, QuoteStatus.UNDEFINED),
    ]
    price, forward, strike, expected, expected_status = map(
        np.array, zip(*rows, strict=True)
    )
    volatility, status = bachelier.implied_normal_volatility(
        price=price,
        forward=forward,
        strike=strike,
        time_to_expiry=1.0,
        return_status=True,
    )
    np.testing.assert_array_equal(volatility, expected)
    np.testing.assert_array_equal(status, expected_status)


def test_gradients_are_finite_where_prices_stop_changing():
    options = {
        "forward": jnp.full(3, 1.0),
        "strike": jnp.array([-1.0, 3.0, 1e5]),
        "time_to_expiry": jnp.array([0.0, 0.0, 0.5]),
        "volatility": jnp.array([0.2, 0.2, 0.2]),
    }
    gradients = jax.grad(lambda x: bachelier.price(**x).sum())(options)
    assert all(np.all(np.isfinite(values)) for values in gradients.values())
    np.testing.assert_array_equal(gradients["forward"], [1.0, 0.0, 0.0])


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="about XLA on a CPU")
@pytest.mark.parametrize(
    "kernel", [kernels._undiscounted_price, kernels._implied_total_volatility]
)
def test_kernels_compile_to_one_loop(kernel):
    """If an upgrade of JAX splits them, they become several times as slow."""
    numbers = jnp.ones(1024)
    arguments = numbers, numbers, numbers, jnp.ones(1024, bool)
    options = elementwise.compiler_options()
    compiled = jax.jit(kernel, compiler_options=options).lower(*arguments).compile()
    assert str(compiled.as_text()).count(" fusion(") == 1

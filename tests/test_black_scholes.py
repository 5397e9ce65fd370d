"""Prices, Greeks and implied volatilities of the lognormal model."""

import importlib.util
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pandas as pd
import pytest
import QuantLib as ql
from option_truth import PATH, load_truth

from relu_options import black_scholes
from relu_options.formulas import elementwise
from relu_options.formulas import lognormal as kernels
from relu_options.formulas.black_scholes import QuoteStatus

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
GREEKS = ("delta", "gamma", "vega", "theta", "rho", "vanna", "volga", "charm")


def random_options(rng, size=200) -> dict[str, Any]:
    """Options of a week to five years, struck within three deviations."""
    forward = rng.uniform(20, 300, size)
    time_to_expiry = rng.uniform(0.02, 5.0, size)
    volatility = rng.uniform(0.08, 0.9, size)
    deviations = rng.uniform(-3.0, 3.0, size)
    return {
        "forward": forward,
        "strike": forward * np.exp(deviations * volatility * np.sqrt(time_to_expiry)),
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


def script(name) -> Any:
    """A module of `benchmarks`, which is no package."""
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# Accuracy


def test_implied_volatility_is_within_four_rounding_errors_of_the_truth():
    """Also K / F from e^-690 to e^690, and prices down to 1e-300."""
    truth = load_truth("lognormal")
    result = black_scholes.implied_volatility(price=truth.price, **truth.options)
    error = truth.error_of_volatilities(result)
    usual = ~np.char.startswith(truth.kind, "extreme")
    assert len(set(truth.kind[usual])) == 8
    assert error[usual].max() < 4.0
    assert error[usual].mean() < 0.5
    assert error[~usual].max() < 16.0


def test_price_is_as_accurate_as_its_volatility_allows():
    """An error of v by half a unit moves the price by its elasticity times that."""
    truth = load_truth("lognormal")
    result = black_scholes.price(volatility=truth.volatility, **truth.options)
    v = truth.volatility * np.sqrt(truth.options["time_to_expiry"])
    vega = kernels.vega(truth.options["forward"], truth.options["strike"], v)
    elasticity = v * np.asarray(vega) / truth.price
    assert np.all(truth.error_of_prices(result) < 3.0 * (1.0 + elasticity))


def test_stored_constants_are_what_the_script_generates():
    generator = script("generate_constants")
    assert generator.MODULE.read_text() == generator.module_text()


def test_stored_truth_is_what_the_script_generates(tmp_path):
    generator = script("generate_option_truth")
    generator.TRUTH = tmp_path / "truth.csv"
    generator.main()
    assert generator.TRUTH.read_text() == PATH.read_text()


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        (
            dict(spot=60, strike=65, time_to_expiry=0.25, rate=0.08, volatility=0.3),
            2.1334,
        ),
        (
            dict(
                spot=100,
                strike=95,
                time_to_expiry=0.5,
                rate=0.1,
                dividend_yield=0.05,
                volatility=0.2,
                is_call=False,
            ),
            2.4648,
        ),
        (
            dict(
                forward=19,
                strike=19,
                time_to_expiry=0.75,
                discount_factor=np.exp(-0.075),
                volatility=0.28,
            ),
            1.7011,
        ),
        (
            dict(
                forward=19,
                strike=19,
                time_to_expiry=0.75,
                discount_factor=np.exp(-0.075),
                volatility=0.28,
                is_call=False,
            ),
            1.7011,
        ),
    ],
)
def test_prices_in_haug(option, expected):
    """Haug (2007), The Complete Guide to Option Pricing Formulas, chapter 1."""
    assert black_scholes.price(**option) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize(
    (
        "name",
        "expected",
        "spot",
        "strike",
        "dividend_yield",
        "rate",
        "time",
        "volatility",
        "is_call",
    ),
    [
        ("delta", 0.5946, 105, 100, 0.10, 0.10, 0.5, 0.36, True),
        ("delta", -0.3566, 105, 100, 0.10, 0.10, 0.5, 0.36, False),
        ("gamma", 0.0278, 55, 60, 0.0, 0.10, 0.75, 0.30, True),
        ("vega", 18.9358, 55, 60, 0.0, 0.10, 0.75, 0.30, True),
        ("theta", -31.1924, 430, 405, 0.05, 0.07, 1 / 12, 0.20, False),
        ("rho", 38.7325, 72, 75, 0.0, 0.09, 1.0, 0.19, True),
    ],
)
def test_greeks_in_haug(
    name, expected, spot, strike, dividend_yield, rate, time, volatility, is_call
):
    """Haug (1998), pages 11 to 16."""
    result = getattr(black_scholes, name)(
        spot=spot,
        strike=strike,
        dividend_yield=dividend_yield,
        rate=rate,
        time_to_expiry=time,
        volatility=volatility,
        is_call=is_call,
    )
    assert result == pytest.approx(expected, abs=5e-5)


def test_prices_and_volatilities_of_quantlib(rng):
    options = random_options(rng, 50)
    prices = black_scholes.price(**options)
    for i in range(50):
        one = {name: values[i].item() for name, values in options.items()}
        kind = ql.Option.Call if one["is_call"] else ql.Option.Put
        deviation = one["volatility"] * np.sqrt(one["time_to_expiry"])
        expected = ql.blackFormula(
            kind, one["strike"], one["forward"], deviation, one["discount_factor"]
        )
        assert prices[i] == pytest.approx(expected, rel=1e-9, abs=1e-11)


# Identities


def test_put_call_parity(rng):
    options = random_options(rng) | {"is_call": True}
    call = black_scholes.price(**options)
    put = black_scholes.price(**options | {"is_call": False})
    forward_value = options["discount_factor"] * (
        options["forward"] - options["strike"]
    )
    np.testing.assert_allclose(call - put, forward_value, rtol=0, atol=1e-13 * 300)


def test_exchange_of_forward_and_strike(rng):
    """A call is a put on the other asset."""
    options = random_options(rng)
    exchanged = options | {
        "forward": options["strike"],
        "strike": options["forward"],
        "is_call": ~options["is_call"],
    }
    np.testing.assert_allclose(
        black_scholes.price(**options), black_scholes.price(**exchanged), rtol=1e-14
    )


def test_volatility_of_price_is_volatility(rng):
    options = random_options(rng)
    price = black_scholes.price(**options)
    volatility = options.pop("volatility")
    result = black_scholes.implied_volatility(price=price, **options)
    np.testing.assert_allclose(result, volatility, rtol=1e-11)


def test_strike_of_delta_is_strike(rng):
    options = random_spot_options(rng)
    delta = black_scholes.delta(**options)
    strike = options.pop("strike")
    np.testing.assert_allclose(
        black_scholes.strike_from_delta(delta=delta, **options), strike, rtol=1e-10
    )


def test_digital_options_and_distribution(rng):
    options = random_options(rng)
    below = black_scholes.digital_price(**options | {"is_call": False})
    above = black_scholes.digital_price(**options | {"is_call": True})
    discount_factor = options["discount_factor"]
    np.testing.assert_allclose(below + above, discount_factor, rtol=1e-14)
    del options["is_call"]
    distribution = black_scholes.distribution(**options)
    np.testing.assert_allclose(below / discount_factor, distribution, rtol=1e-14)


# Derivatives


@pytest.mark.parametrize("form", [random_options, random_spot_options])
def test_greeks_are_derivatives_of_each_other(rng, form):
    """Every one of them, with all the other arguments of its form held fixed."""
    options = form(rng)
    is_call = options.pop("is_call")
    underlying = "spot" if "spot" in options else "forward"

    def derivatives(name):
        function = getattr(black_scholes, name)
        return jax.jit(jax.grad(lambda x: function(**x, is_call=is_call).sum()))(
            options
        )

    def close(name, expected):
        result = getattr(black_scholes, name)(**options, is_call=is_call)
        scale = np.max(np.abs(expected))
        np.testing.assert_allclose(result, expected, rtol=1e-9, atol=1e-12 * scale)

    of_price = derivatives("price")
    close("delta", of_price[underlying])
    close("vega", of_price["volatility"])
    close("theta", -of_price["time_to_expiry"])
    close("strike_delta", of_price["strike"])
    of_delta = derivatives("delta")
    close("gamma", of_delta[underlying])
    close("vanna", of_delta["volatility"])
    close("charm", -of_delta["time_to_expiry"])
    close("volga", derivatives("vega")["volatility"])
    if underlying == "spot":
        close("rho", of_price["rate"])
        return
    price = black_scholes.price(**options, is_call=is_call)
    close("rho", -options["time_to_expiry"] * price)
    curvature = derivatives("strike_delta")["strike"] / options["discount_factor"]
    density = black_scholes.density(**options)
    np.testing.assert_allclose(density, curvature, rtol=1e-9)


@pytest.mark.parametrize("form", [random_options, random_spot_options])
def test_greeks_at_once_are_the_greeks_one_by_one(rng, form):
    """Also where they are limits: the fast kernel leaves those to the formulas."""
    options = form(rng)
    options["volatility"][:2] = 0.0, np.nan
    options["time_to_expiry"][2] = 0.0
    options["strike"][3] = 0.0
    at_once = black_scholes.greeks(**options)
    for name in ("price", *GREEKS):
        np.testing.assert_allclose(
            getattr(at_once, name),
            getattr(black_scholes, name)(**options),
            rtol=1e-12,
            atol=1e-13,
        )


@pytest.fixture(scope="module")
def mp():
    """The mpmath package, at 50 digits."""
    with mpmath.workdps(50):
        yield mpmath


def exact_price(mp: Any, forward, strike, v, is_call):
    """The textbook formula in 50 digits."""
    d1 = mp.log(forward / strike) / v + v / 2
    sign = 1 if is_call else -1
    return sign * (forward * mp.ncdf(sign * d1) - strike * mp.ncdf(sign * (d1 - v)))


HARD_POINTS = [
    (100.0, 100.0, 0.2, True),
    (100.0, 100.0000001, 0.01, False),
    (100.0, 180.0, 0.15, True),
    (100.0, 60.0, 0.12, True),
    (100.0, 130.0, 3.5, False),
]


def derivatives(kernel):
    """Gradient and Hessian in the three numbers, compiled once for all points."""
    return jax.jit(
        lambda *point: (
            jax.grad(kernel, (0, 1, 2))(*point),
            jax.hessian(kernel, (0, 1, 2))(*point),
        )
    )


PRICE_DERIVATIVES = derivatives(kernels.undiscounted_price)
VOLATILITY_DERIVATIVES = derivatives(kernels.implied_total_volatility)


@pytest.mark.parametrize("point", HARD_POINTS)
def test_price_derivatives_against_finite_differences(mp, point):
    *numbers, is_call = point
    gradient, hessian = PRICE_DERIVATIVES(*point)
    exact = [mp.mpf(number) for number in numbers]

    def price(forward, strike, v):
        return exact_price(mp, forward, strike, v, is_call)

    for i in range(3):
        order = [0, 0, 0]
        order[i] = 1
        expected = float(mp.diff(price, exact, tuple(order)))
        assert float(gradient[i]) == pytest.approx(expected, rel=1e-11)
        for j in range(3):
            both = list(order)
            both[j] += 1
            expected = float(mp.diff(price, exact, tuple(both)))
            assert float(hessian[i][j]) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("point", HARD_POINTS)
def test_volatility_derivatives_against_finite_differences(mp, point):
    forward, strike, v, is_call = point
    exact = [mp.mpf(number) for number in (forward, strike, v)]
    quote = float(exact_price(mp, exact[0], exact[1], exact[2], is_call))
    gradient, hessian = VOLATILITY_DERIVATIVES(quote, forward, strike, is_call)

    def volatility(price, forward, strike):
        # The exponential keeps the search positive.
        def error(x):
            return exact_price(mp, forward, strike, mp.exp(x), is_call) - price

        return mp.exp(mp.findroot(error, mp.log(v)))

    exact = [mp.mpf(number) for number in (quote, forward, strike)]
    for i in range(3):
        order = [0, 0, 0]
        order[i] = 1
        expected = float(mp.diff(volatility, exact, tuple(order)))
        assert float(gradient[i]) == pytest.approx(expected, rel=1e-10)
        order[i] = 2
        expected = float(mp.diff(volatility, exact, tuple(order)))
        assert float(hessian[i][i]) == pytest.approx(expected, rel=1e-7)


def test_volatility_gradients_are_those_of_the_price_over_vega():
    """On the truth set: also deep in the money and near the upper bound."""
    truth = load_truth("lognormal")
    usual = ~np.char.startswith(truth.kind, "extreme")
    forward, strike, is_call = (
        jnp.asarray(truth.options[name][usual])
        for name in ("forward", "strike", "is_call")
    )
    price = jnp.asarray(truth.price[usual])

    def total(price, forward, strike):
        return kernels.implied_total_volatility(price, forward, strike, is_call).sum()

    slopes = jax.jit(jax.grad(total, (0, 1, 2)))(price, forward, strike)
    v = kernels.implied_total_volatility(price, forward, strike, is_call)
    vega = kernels.vega(forward, strike, v)
    for slope, of_price in (
        (slopes[1], kernels.forward_delta(forward, strike, v, is_call)),
        (slopes[2], kernels.strike_delta(forward, strike, v, is_call)),
    ):
        np.testing.assert_allclose(slope, -of_price / vega, rtol=2e-12)
    np.testing.assert_allclose(slopes[0], 1.0 / vega, rtol=1e-12)


def test_gradients_are_finite_where_prices_stop_changing():
    """At expiry, without volatility, and so deep that no digit moves."""
    options = {
        "forward": jnp.full(5, 100.0),
        "strike": jnp.array([90.0, 110.0, 90.0, 1e-3, 1e5]),
        "time_to_expiry": jnp.array([0.0, 0.0, 0.5, 0.5, 0.5]),
        "volatility": jnp.array([0.2, 0.2, 0.0, 0.2, 0.2]),
    }

    def total(options):
        return black_scholes.price(**options).sum()

    gradients = jax.grad(total)(options)
    assert all(np.all(np.isfinite(values)) for values in gradients.values())
    np.testing.assert_array_equal(gradients["forward"], [1.0, 0.0, 1.0, 1.0, 0.0])
    np.testing.assert_array_equal(gradients["volatility"], 0.0)


def test_a_masked_quote_leaves_the_gradient_of_its_neighbours_alone():
    good = jnp.array([12.0] * 6)
    mixed = jnp.array([9.0, 10.0, 12.0, 100.0, 200.0, jnp.nan])

    @jax.jit
    @jax.grad
    def slope(forward, price):
        v = kernels.implied_total_volatility(price, forward, 90.0, True)
        return jnp.where((v > 0.0) & (v < jnp.inf), v, 0.0).sum()

    assert float(6.0 * slope(100.0, mixed)) == pytest.approx(float(slope(100.0, good)))


# Limits and failures


@pytest.mark.parametrize(
    ("forward", "strike", "v", "is_call", "expected"),
    [
        (100.0, 90.0, 0.0, True, 10.0),
        (100.0, 90.0, 0.0, False, 0.0),
        (100.0, 100.0, 0.0, True, 0.0),
        (100.0, 0.0, 0.2, True, 100.0),
        (100.0, 0.0, 0.2, False, 0.0),
        (100.0, np.inf, 0.2, True, 0.0),
        (100.0, np.inf, 0.2, False, np.inf),
        (0.0, 100.0, 0.2, True, 0.0),
        (0.0, 100.0, 0.2, False, 100.0),
        (100.0, 90.0, np.inf, True, 100.0),
        (100.0, 90.0, np.inf, False, 90.0),
        (100.0, 90.0, 1e-300, True, 10.0),
        (100.0, 90.0, 1e5, True, 100.0),
        (np.nan, 90.0, 0.2, True, np.nan),
        (100.0, np.nan, 0.2, True, np.nan),
        (100.0, 90.0, np.nan, True, np.nan),
        (100.0, 90.0, -0.1, True, np.nan),
        (-100.0, 90.0, 0.1, True, np.nan),
    ],
)
def test_limits_of_the_price(forward, strike, v, is_call, expected):
    option = dict(forward=forward, strike=strike, is_call=is_call)
    result = black_scholes.price(**option, volatility=v, time_to_expiry=1.0)
    np.testing.assert_array_equal(result, expected)


BAD_QUOTES = [
    (9.99, 100.0, 90.0, 1.0, np.nan, QuoteStatus.TOO_LOW),
    (10.0, 100.0, 90.0, 1.0, 0.0, QuoteStatus.ZERO_TIME_VALUE),
    (0.0, 90.0, 100.0, 1.0, 0.0, QuoteStatus.ZERO_TIME_VALUE),
    (-1.0, 90.0, 100.0, 1.0, np.nan, QuoteStatus.TOO_LOW),
    (100.0, 100.0, 90.0, 1.0, np.inf, QuoteStatus.TOO_HIGH),
    (101.0, 100.0, 90.0, 1.0, np.nan, QuoteStatus.TOO_HIGH),
    (np.inf, 100.0, 90.0, 1.0, np.nan, QuoteStatus.TOO_HIGH),
    (np.nan, 100.0, 90.0, 1.0, np.nan, QuoteStatus.UNDEFINED),
    (10.0, np.nan, 90.0, 1.0, np.nan, QuoteStatus.UNDEFINED),
    (10.0, 100.0, 0.0, 1.0, np.nan, QuoteStatus.UNDEFINED),
    (10.0, 100.0, np.inf, 1.0, np.nan, QuoteStatus.UNDEFINED),
    (10.0, -100.0, 90.0, 1.0, np.nan, QuoteStatus.UNDEFINED),
    (12.0, 100.0, 90.0, 0.0, np.nan, QuoteStatus.UNDEFINED),
    (12.0, 100.0, 90.0, -1.0, np.nan, QuoteStatus.UNDEFINED),
]


def test_bad_quotes_say_why_and_leave_their_neighbours_alone():
    good = (12.0, 100.0, 90.0, 1.0, None, QuoteStatus.FOUND)
    rows = [row for bad in BAD_QUOTES for row in (bad, good)]
    price, forward, strike, time, _, expected = zip(*rows, strict=True)
    volatility, status = black_scholes.implied_volatility(
        price=np.array(price),
        forward=np.array(forward),
        strike=np.array(strike),
        time_to_expiry=np.array(time),
        return_status=True,
    )
    np.testing.assert_array_equal(status, expected)
    np.testing.assert_array_equal(volatility[::2], [bad[4] for bad in BAD_QUOTES])
    alone = black_scholes.implied_volatility(
        price=12.0, forward=100.0, strike=90.0, time_to_expiry=1.0
    )
    np.testing.assert_array_equal(volatility[1::2], alone)


def test_theta_on_the_day_of_expiry():
    option = dict(forward=100.0, volatility=0.2, time_to_expiry=0.0)
    assert black_scholes.theta(strike=100.0, **option) == -np.inf
    assert black_scholes.theta(strike=90.0, **option) == 0.0


@pytest.mark.parametrize(
    ("market", "message"),
    [
        ({}, "got neither"),
        ({"forward": 1.0, "spot": 1.0}, "got both"),
        ({"forward": 1.0, "rate": 0.1}, "`rate` and `dividend_yield` go with `spot`"),
        ({"spot": 1.0, "discount_factor": 0.9}, "goes with `forward`"),
    ],
)
def test_a_market_has_one_form(market, message):
    option = dict(strike=1.0, time_to_expiry=1.0, volatility=0.2)
    with pytest.raises(ValueError, match=message):
        black_scholes.price(**option, **market)


@pytest.mark.parametrize("is_call", [1, -1.0, "call", ["call", "put"], None])
def test_flags_that_are_not_boolean_are_refused(is_call):
    option = dict(strike=1.0, forward=1.0, time_to_expiry=1.0, volatility=0.2)
    with pytest.raises(ValueError, match="`is_call` must be boolean"):
        black_scholes.price(**option, is_call=is_call)


# Kinds of arguments


def test_results_are_of_the_kind_of_the_arguments():
    option = dict(forward=100.0, time_to_expiry=0.5, volatility=0.2)
    strikes = [90.0, 100.0, 110.0]
    number = black_scholes.price(strike=90, **option)
    assert type(number) is float
    array = black_scholes.price(strike=np.array(strikes), **option)
    assert type(array) is np.ndarray
    assert array[0] == pytest.approx(number, rel=1e-14)
    assert isinstance(
        black_scholes.price(strike=jnp.array(strikes), **option), jax.Array
    )
    series = pd.Series(strikes, index=["a", "b", "c"], name="strike")
    result = black_scholes.price(strike=series, **option)
    pd.testing.assert_series_equal(result, pd.Series(array, index=series.index))
    np.testing.assert_array_equal(black_scholes.price(strike=strikes, **option), array)
    assert black_scholes.price(strike=np.array([]), **option).shape == (0,)
    table = black_scholes.price(
        strike=np.array(strikes), **option | {"volatility": np.array([[0.1], [0.2]])}
    )
    assert table.shape == (2, 3)
    np.testing.assert_array_equal(table[1], array)


def test_options_one_by_one_are_as_in_an_array(rng):
    """Numbers, and arrays of one, have a table of their own; so has one left over."""
    options = random_options(rng, 8)
    options["strike"][-1] = 1e4 * options["forward"][-1]  # too far for one step
    options["volatility"][-1] = 3.0 / options["time_to_expiry"][-1] ** 0.5
    options["volatility"][-2] = 0.0  # no Greeks from the shortcut
    price = black_scholes.price(**options)
    quotes = {name: x for name, x in options.items() if name != "volatility"}
    volatility = black_scholes.implied_volatility(price=price, **quotes)
    greeks = black_scholes.greeks(**options)
    for i in range(8):
        single = {name: column[i].item() for name, column in options.items()}
        slices = {name: column[[i]] for name, column in options.items()}
        values = np.array(black_scholes.greeks(**single))
        assert all(type(x) is float for x in black_scholes.greeks(**single))
        np.testing.assert_allclose(values, [x[i] for x in greeks], 1e-13)
        np.testing.assert_allclose(black_scholes.price(**slices), price[[i]], 1e-14)
        del single["volatility"], slices["volatility"]
        one = black_scholes.implied_volatility(price=float(price[i]), **single)
        assert type(one) is float
        assert one == pytest.approx(volatility[i], rel=1e-14, nan_ok=True)
        array = black_scholes.implied_volatility(price=price[[i]], **slices)
        assert array.shape == (1,)
        assert array[0] == pytest.approx(one, rel=1e-14, nan_ok=True)


@pytest.mark.parametrize("length", [1, 3, 100_000])
def test_arrays_returned_may_be_written_to(length):
    option = dict(forward=100.0, time_to_expiry=0.5, volatility=0.2)
    strike = np.full(length, 90.0)
    result = black_scholes.price(strike=strike, **option)
    result[0] = np.nan
    again = black_scholes.price(strike=strike, **option)
    assert np.all(again == again[0])
    assert np.all(again[1:] == result[1:])


def test_series_must_share_their_index():
    option = dict(forward=100.0, time_to_expiry=0.5)
    strike = pd.Series([90.0, 100.0], index=[0, 1])
    volatility = pd.Series([0.2, 0.2], index=[1, 2])
    with pytest.raises(ValueError, match="different indices"):
        black_scholes.price(strike=strike, volatility=volatility, **option)
    with pytest.raises(ValueError, match="broadcast to shape"):
        black_scholes.price(strike=strike, volatility=np.ones((3, 1)), **option)


def test_transformations_change_nothing(rng):
    options = random_options(rng)
    price = black_scholes.price(**options)
    quotes = {name: x for name, x in options.items() if name != "volatility"}
    volatility = black_scholes.implied_volatility(price=price, **quotes)

    def function(quote):
        return black_scholes.implied_volatility(**quote)

    for transformed in (jax.jit(function), jax.vmap(function)):
        result = transformed(quotes | {"price": price})
        np.testing.assert_allclose(result, volatility, rtol=1e-15)


def test_a_new_length_compiles_nothing_new():
    """Lengths 2, 7 / 1000, 1001 / and any above the largest bucket share a kernel."""
    traces = []

    def double(x):
        traces.append(x.shape)
        return 2.0 * x

    function = elementwise.elementwise(double)
    for length in (1, 2, 7, 1000, 1001, 100_000, 150_001):
        values = np.arange(float(length))
        np.testing.assert_array_equal(function(values), 2.0 * values)
    assert function(3.0) == 6.0
    assert traces == [(1,), (16,), (1024,), (65536,)]


def test_long_arrays_go_piece_by_piece(rng):
    size = 2 * elementwise.BUCKETS[-1] + 100
    strike = rng.uniform(80, 120, size)
    option = dict(forward=100.0, time_to_expiry=0.5, volatility=0.2)
    whole = black_scholes.greeks(strike=strike, **option)
    last = black_scholes.greeks(strike=strike[-50:], **option)
    for all_rows, some in zip(whole, last, strict=True):
        np.testing.assert_allclose(all_rows[-50:], some, rtol=1e-14)


def test_compiler_options_that_are_unknown_are_not_passed(monkeypatch):
    monkeypatch.setattr(elementwise, "_WIDE_VECTORS", {"xla_no_such_option": 1})
    elementwise.compiler_options.cache_clear()
    try:
        assert elementwise.compiler_options() is None
    finally:
        monkeypatch.undo()
        elementwise.compiler_options.cache_clear()


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="about XLA on a CPU")
@pytest.mark.parametrize(
    "kernel", [kernels._undiscounted_price, kernels._solve_total_volatility]
)
def test_kernels_compile_to_one_loop(kernel):
    """If an upgrade of JAX splits them, they become several times as slow."""
    numbers = jnp.ones(1024)
    arguments = numbers, numbers, numbers, jnp.ones(1024, bool)
    options = elementwise.compiler_options()
    compiled = jax.jit(kernel, compiler_options=options).lower(*arguments).compile()
    assert str(compiled.as_text()).count(" fusion(") == 1


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [("r", "rate"), ("q", "dividend_yield"), ("rates", "rate"), ("df", None)],
)
def test_a_name_that_no_market_has_is_answered_with_those_it_has(wrong, meant):
    with pytest.raises(TypeError, match=f"takes `forward`, .*not `{wrong}`") as error:
        black_scholes.price(
            strike=100.0, time_to_expiry=1.0, volatility=0.2, spot=100.0, **{wrong: 0.1}
        )
    assert "_market" not in str(error.value)
    assert (f"did you mean `{meant}`?" in str(error.value)) is (meant is not None)

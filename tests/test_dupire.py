"""Dupire's equation on a network, forward and back, against formulas and algebra."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from real_quotes import real_quotes
from scipy.linalg import expm
from scipy.stats import ncx2

import relu_options as ro
from relu_options import black_scholes, dupire
from relu_options.errors import FitError, QuoteError
from relu_options.surfaces import BlackScholesSurface, PriceSurface

STRIKES = np.linspace(0.5, 1.5, 101)


def error(surface, exact, expiry=-1):
    """Relative error over the strikes, in the mean square."""
    payoff = np.maximum(surface.kinks - STRIKES[:, None], 0.0)
    price = payoff @ surface.weights[expiry]
    return np.linalg.norm(price - exact) / np.linalg.norm(exact)


def black_scholes_price(volatility, time):
    return black_scholes.price(
        forward=1.0, strike=STRIKES, time_to_expiry=time, volatility=volatility
    )


def cev_price(scale, beta, time):
    """Calls when dS = scale S^beta dW from 1 (Schroder 1989)."""
    variance = scale**2 * time * (1.0 - beta) ** 2
    x = 1.0 / variance
    y = STRIKES ** (2.0 * (1.0 - beta)) / variance
    nu = 1.0 / (1.0 - beta)
    return 1.0 - ncx2.cdf(y, nu + 2.0, x) - STRIKES * ncx2.cdf(x, nu, y)


def generator(kinks, variance):
    """The chain's generator as a dense matrix, entry by entry."""
    matrix = np.zeros((kinks.size, kinks.size))
    for j in range(1, kinks.size - 1):
        below, above = kinks[j] - kinks[j - 1], kinks[j + 1] - kinks[j]
        matrix[j, j - 1] = variance[j] / (below * (below + above))
        matrix[j, j + 1] = variance[j] / (above * (below + above))
        matrix[j, j] = -matrix[j].sum()
    return matrix


def random_kinks(rng, n):
    """Irregular kinks around 1."""
    steps = rng.uniform(0.2, 1.0, n)
    kinks = np.exp(np.cumsum(steps) * 3.0 / steps.sum())
    kinks /= kinks[n // 2]
    kinks[n // 2] = 1.0
    return kinks


def rough_volatility(rng, shape):
    """From 1 % to some hundred per cent, independent from kink to kink."""
    return np.exp(rng.normal(-1.5, 1.0, shape))


# The chain


def test_rates_are_those_of_the_martingale_generator(rng):
    kinks = random_kinks(rng, 41)
    variance = rng.uniform(0.0, 2.0, 41)
    dense = generator(kinks, variance)
    down, up = dupire.jump_rates(kinks, variance)
    np.testing.assert_allclose(down[1:], np.diag(dense, -1), rtol=1e-12)
    np.testing.assert_allclose(up[:-1], np.diag(dense, 1), rtol=1e-12)
    np.testing.assert_allclose(dense @ kinks, 0.0, atol=1e-9)  # no drift
    second_moment = dense @ kinks**2
    np.testing.assert_allclose(second_moment[1:-1], variance[1:-1], rtol=1e-9)


def test_one_implicit_step_is_the_scheme_of_andreasen_and_huge(rng):
    r"""It solves $c' - \tfrac12 \Delta v c'' = (1 - k)^+$ by second differences."""
    kinks, volatility, time = random_kinks(rng, 41), rng.uniform(0.1, 0.6, 41), 0.7
    h = np.diff(kinks)
    second = np.zeros((41, 41))
    for j in range(1, 40):
        second[j, j - 1 : j + 2] = [
            2.0 / (h[j - 1] * (h[j - 1] + h[j])),
            -2.0 / (h[j - 1] * h[j]),
            2.0 / (h[j] * (h[j - 1] + h[j])),
        ]
    variance = (volatility * kinks) ** 2
    system = np.eye(41) - 0.5 * time * variance[:, None] * second
    calls = np.linalg.solve(system, np.maximum(1.0 - kinks, 0.0))
    surface = ro.local_volatility_surface(
        kinks, volatility, [time], method="implicit", steps=1
    )
    np.testing.assert_allclose(surface.price(kinks, time), calls, atol=1e-12)


def test_weights_never_go_negative_and_keep_mass_mean_and_order(rng):
    """For 200 rough local volatilities, by both methods and in long steps."""
    times = np.array([0.1, 0.4, 3.0])
    for draw in range(200):
        kinks = random_kinks(rng, 41)
        rows = rough_volatility(rng, (3, 41))
        weights = np.asarray(
            dupire.expiry_weights(
                kinks, rows, times, method=dupire.METHODS[draw % 2], steps=4
            )
        )
        assert weights.min() >= 0.0
        np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-12)
        np.testing.assert_allclose(weights @ kinks, 1.0, atol=1e-12)
        skeletons = weights @ np.maximum(kinks[:, None] - kinks, 0.0)
        assert np.diff(skeletons, axis=0).min() >= -1e-12


def too_rough_a_step():
    """Kinks, weights, variance and a duration that Crank-Nicolson cannot take."""
    kinks = np.exp(np.linspace(-0.5, 0.5, 11))
    kinks[5] = 1.0
    rough = np.where(np.arange(11) % 2 == 1, 1.0, 0.05)
    return kinks, np.full(11, 1.0 / 11.0), (rough * kinks) ** 2, 1.0


def test_a_step_that_would_go_negative_is_taken_implicitly():
    kinks, start, variance, time = too_rough_a_step()
    flow, one = generator(kinks, variance).T, np.eye(11)
    half = np.linalg.inv(one - 0.5 * time * flow)
    assert (half @ (start + 0.5 * time * flow @ start)).min() < -0.01
    after = dupire.evolve(
        kinks, start, variance[None], np.array([time]), np.array([False])
    )
    assert bool(after.replaced[0])
    np.testing.assert_allclose(after.weights[0], half @ half @ start, atol=1e-12)


def test_steps_are_all_in_the_first_interval_and_fewer_later():
    times = np.array([0.1, 0.2, 1.0, 1.1])
    plan = dupire.time_steps(times, method="implicit", steps=20)
    np.testing.assert_allclose(np.cumsum(plan.durations)[plan.last], times)
    assert np.bincount(plan.interval).tolist() == [20, 8, 15, 2]
    halved = dupire.time_steps(times, method="rannacher", steps=20)
    assert halved.implicit.sum() == 4
    np.testing.assert_allclose(np.cumsum(halved.durations)[halved.last], times)


# Prices


@pytest.mark.parametrize("volatility", [0.1, 0.2, 0.4])
def test_flat_volatility_gives_black_scholes(volatility):
    surface = ro.local_volatility_surface(401, volatility, [1.0], steps=200)
    assert error(surface, black_scholes_price(volatility, 1.0)) < 2e-5
    assert surface.certificate


def test_constant_elasticity_gives_the_chi_square_formula():
    surface = ro.local_volatility_surface(
        401, lambda moneyness, time: 0.3 / moneyness**0.5, [0.25, 1.0]
    )
    for expiry, time in enumerate((0.25, 1.0)):
        assert error(surface, cev_price(0.3, 0.5, time), expiry) < 3e-5


def test_volatility_that_depends_on_time_gives_its_mean_square():
    surface = ro.local_volatility_surface(
        401, lambda moneyness, time: 0.1 + 0.3 * time, [0.5, 1.0, 2.0]
    )
    for expiry, time in enumerate((0.5, 1.0, 2.0)):
        mean_square = 0.01 + 0.03 * time + 0.03 * time**2
        exact = black_scholes_price(np.sqrt(mean_square), time)
        assert error(surface, exact, expiry) < 1e-4


@pytest.mark.parametrize(("method", "order"), [("implicit", 1.0), ("rannacher", 2.0)])
def test_order_in_time(method, order, rng):
    """Against the matrix exponential, which has no error in time."""
    kinks = dupire.spread_kinks(81, low=-1.5, high=1.5, narrowest=0.2)
    rows = 0.2 + 0.1 * np.stack([np.cos(3.0 * np.log(kinks)), np.log(kinks) ** 2])
    start = (kinks == 1.0).astype(float)
    middle = start @ expm(0.4 * generator(kinks, (rows[0] * kinks) ** 2))
    last = middle @ expm(0.6 * generator(kinks, (rows[1] * kinks) ** 2))
    call = np.maximum(kinks - kinks[:, None], 0.0)
    errors = []
    for steps in (20, 40):
        weights = dupire.expiry_weights(
            kinks, rows, [0.4, 1.0], method=method, steps=steps
        )
        gap = np.asarray(weights) - np.stack([middle, last])
        errors.append(np.abs(gap @ call.T).max(axis=1))
    orders = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    np.testing.assert_allclose(orders, order, atol=0.15)


def test_order_in_space_is_two():
    errors = [
        error(
            ro.local_volatility_surface(n, 0.3, [1.0], steps=200),
            black_scholes_price(0.3, 1.0),
        )
        for n in (51, 101)
    ]
    orders = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    np.testing.assert_allclose(orders, 2.0, atol=0.2)


def test_surface_is_in_currency_and_free_of_arbitrage(rng):
    """Rough volatilities, rates and carry: parity, scaling and the certificate."""
    times, forwards, discounts = [0.5, 1.0], [101.0, 105.0], [0.99, 0.95]
    kinks = random_kinks(rng, 41)
    rows = rough_volatility(rng, (2, 41))
    surface = ro.local_volatility_surface(
        kinks, rows, times, forwards=forwards, discount_factors=discounts
    )
    plain = ro.local_volatility_surface(kinks, rows, times)
    assert surface.certificate
    assert surface.certificate.largest_change < 1e-12
    np.testing.assert_array_equal(surface.bandwidths, 0.0)
    for time, forward, discount in zip(times, forwards, discounts, strict=True):
        strikes = forward * STRIKES
        calls = surface.price(strikes, time)
        np.testing.assert_allclose(
            calls, discount * forward * plain.price(STRIKES, time), rtol=1e-12
        )
        puts = surface.price(strikes, time, is_call=False)
        np.testing.assert_allclose(
            calls - puts, discount * (forward - strikes), atol=1e-12 * forward
        )


def test_no_volatility_leaves_the_payoff_and_kinks_near_one_count_as_one():
    kinks = np.array([0.5, 1.0 + 1e-12, 1.5])
    surface = ro.local_volatility_surface(kinks, 0.0, [1.0, 2.0], steps=2)
    assert surface.kinks[1] == 1.0
    for time in (1.0, 2.0):
        np.testing.assert_allclose(
            surface.price(STRIKES, time), np.maximum(1.0 - STRIKES, 0.0), atol=1e-9
        )


def test_arrays_and_functions_mean_the_same(rng):
    kinks = random_kinks(rng, 41)
    row = rng.uniform(0.1, 0.5, 41)
    given = ro.local_volatility_surface(kinks, row, [0.5, 1.0])
    called = ro.local_volatility_surface(
        kinks, lambda moneyness, time: np.interp(moneyness, kinks, row), [0.5, 1.0]
    )
    np.testing.assert_array_equal(given.weights, called.weights)


def test_a_function_may_be_undefined_in_the_wings(rng):
    kinks = random_kinks(rng, 41)

    def undefined(moneyness, time):
        level = np.clip(moneyness, kinks[8], kinks[32])
        return np.where(level == moneyness, 0.3 * level, np.nan)

    def continued(moneyness, time):
        return 0.3 * np.clip(moneyness, kinks[8], kinks[32])

    np.testing.assert_array_equal(
        ro.local_volatility_surface(kinks, undefined, [0.5, 1.0]).weights,
        ro.local_volatility_surface(kinks, continued, [0.5, 1.0]).weights,
    )


@pytest.mark.parametrize("kind", ["mixture", "black_scholes"])
def test_local_volatility_of_a_surface_prices_it_back(kind):
    """To an error that falls with the square of the spacing in strike and time."""
    surface = PriceSurface(
        kinks=np.array([0.8, 0.9, 1.0, 1.1, 1.2]),
        weights=np.array([[0.02, 0.13, 0.7, 0.13, 0.02], [0.1, 0.2, 0.4, 0.2, 0.1]]),
        bandwidths=np.full(5, 0.12),
        times=np.array([0.5, 1.0]),
        forwards=np.ones(2),
        discount_factors=np.ones(2),
    )
    # Where its local volatility jumps are times that steps should end at.
    times = np.array([*surface.law.times[:2], 0.5, 1.0])
    if kind == "black_scholes":
        surface = BlackScholesSurface(
            volatilities=[0.2, 0.3], times=[0.5, 1.0], forwards=1.0
        )
    errors = []
    for n, steps in ((51, 16), (101, 32)):
        back = ro.local_volatility_surface(
            n, surface.local_volatility, times, steps=steps
        )
        errors.append(
            [
                error(
                    back,
                    surface.price(STRIKES, time),
                    int(np.searchsorted(times, time)),
                )
                for time in (0.5, 1.0)
            ]
        )
    assert np.max(errors[1]) < 3e-4
    assert np.min(np.array(errors[0]) / np.array(errors[1])) > 3.0


# Derivatives


def test_derivatives_go_through_the_solves(rng):
    """In local volatilities and kinks, by finite differences along a direction."""
    kinks = random_kinks(rng, 41)
    rows = rng.uniform(0.1, 0.5, (2, 41))
    payoff = np.maximum(kinks - 1.05, 0.0)
    direction = rng.normal(size=(2, 41)) * rows
    shift = rng.normal(size=41) * 1e-3
    shift[20] = 0.0  # the kink at the forward stays

    def price(volatility, places):
        weights = dupire.expiry_weights(places, volatility, [0.3, 1.0], steps=10)
        return weights[-1] @ payoff

    by_volatility, by_kinks = jax.grad(price, argnums=(0, 1))(
        jnp.asarray(rows), jnp.asarray(kinks)
    )
    step = 1e-5
    up, down = rows + step * direction, rows - step * direction
    np.testing.assert_allclose(
        np.sum(by_volatility * direction),
        (price(up, kinks) - price(down, kinks)) / (2.0 * step),
        rtol=1e-6,
    )
    up, down = kinks + step * shift, kinks - step * shift
    np.testing.assert_allclose(
        np.sum(by_kinks * shift),
        (price(rows, up) - price(rows, down)) / (2.0 * step),
        rtol=1e-5,
    )


def test_a_step_taken_implicitly_is_differentiable():
    kinks, start, variance, time = too_rough_a_step()
    payoff = np.maximum(kinks - 1.0, 0.0)

    def price(scale):
        after = dupire.evolve(
            kinks, start, scale * variance[None], np.array([time]), np.array([False])
        )
        return after.weights[-1] @ payoff

    difference = (price(1.0 + 1e-6) - price(1.0 - 1e-6)) / 2e-6
    np.testing.assert_allclose(jax.grad(price)(1.0), difference, rtol=1e-7)


# Bad requests

FINE = np.array([0.5, 0.8, 1.0, 1.2, 2.0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kinks": FINE[::-1]}, "kinks must be positive, finite and increasing"),
        ({"kinks": FINE * 1.01}, "need one at 1.*nearest at 1.01; insert 1.0"),
        ({"kinks": FINE[2:]}, "need one at 1 between others"),
        ({"kinks": 2}, "kinks must be at least 3, not 2"),
        ({"kinks": 9, "local_volatility": np.ones(5)}, "pass those kinks"),
        ({"kinks": 9, "local_volatility": lambda k, t: 0.0 * k}, "pass kinks"),
        ({"times": [1.0, 0.5]}, r"times must be .* wrong in 1 of 2: 0.5 \(number 1\)"),
        ({"times": []}, r"times must be of shape \(n,\)"),
        (
            {"local_volatility": np.ones((2, 4))},
            r"\(2, 4\) does not broadcast to \(2, 5\)",
        ),
        ({"local_volatility": np.ones((1, 2, 5))}, "does not broadcast"),
        ({"local_volatility": -0.2}, "not negative; wrong in 15 of 15"),
        ({"local_volatility": np.full(5, np.nan)}, "finite and not negative"),
        ({"local_volatility": lambda k, t: np.nan * k}, "nan at moneyness 0.8, time"),
        (
            {"forwards": [1.0, 2.0, 3.0]},
            r"forwards must be one number or of shape \(2,\)",
        ),
        ({"discount_factors": 0.0}, "discount_factors must be positive"),
        ({"method": "explicit"}, "method must be one of"),
        ({"steps": 0}, "steps must be a whole number from 1 on, not 0"),
    ],
)
def test_bad_requests_are_named(changes, message):
    request = {"kinks": FINE, "local_volatility": 0.2, "times": [0.5, 1.0]} | changes
    with pytest.raises(ValueError, match=message):
        ro.local_volatility_surface(steps=request.pop("steps", 2), **request)


# The way back


def chain_of(surface, moneyness, *, noise=0.0, rng=None):
    """A table of volatilities of a surface at its expiries."""
    tables = []
    for time, forward in zip(surface.times, surface.forwards, strict=True):
        strike = forward * moneyness
        volatility = surface.implied_volatility(strike, time)
        if rng is not None:
            volatility = volatility * np.exp(noise * rng.normal(size=strike.size))
        tables.append(
            pd.DataFrame(
                {
                    "time_to_expiry": time,
                    "forward": forward,
                    "strike": strike,
                    "iv": volatility,
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


@pytest.fixture(scope="module")
def known():
    """A surface of known local volatility, at a skew that flattens with time."""

    def volatility(moneyness, time):
        return 0.2 * moneyness ** np.where(time < 0.5, -1.0, -0.5)

    return volatility, ro.local_volatility_surface(
        401, volatility, [0.5, 1.0], forwards=[100.0, 102.0], steps=100
    )


def test_a_known_local_volatility_is_found_again(known):
    volatility, surface = known
    moneyness = np.exp(np.linspace(-0.35, 0.35, 15))
    table = chain_of(surface, moneyness)
    fit = ro.fit_local_volatility(table, kinks=201)
    assert fit.volatility_error < 1e-6
    assert fit.surface.certificate
    for time in (0.3, 0.8):
        strikes = moneyness[1:-1] * fit.surface.forward(time)
        found = fit.local_volatility(strikes, time)
        np.testing.assert_allclose(found, volatility(moneyness[1:-1], time), rtol=0.02)
    between = 100.0 * np.sqrt(moneyness[1:] * moneyness[:-1])
    np.testing.assert_allclose(
        fit.surface.implied_volatility(between, 0.5),
        surface.implied_volatility(between, 0.5),
        atol=3e-4,
    )


def test_the_local_volatility_of_a_fit_gives_its_surface(known):
    _, surface = known
    table = chain_of(surface, np.exp(np.linspace(-0.35, 0.35, 15)))
    fit = ro.fit_local_volatility(table, kinks=201)
    again = ro.local_volatility_surface(
        fit.surface.kinks,
        fit.local_volatilities,
        fit.surface.times,
        method=fit.method,
        steps=fit.steps,
    )
    np.testing.assert_allclose(again.weights, fit.surface.weights, atol=1e-13)
    frame = fit.to_frame()
    assert len(frame) == 30
    late = frame[frame["from_time"] == 0.5]
    np.testing.assert_allclose(
        fit.local_volatility(late["strike"], 1.0),
        late["local_volatility"],
        rtol=1e-12,
    )
    assert isinstance(fit.local_volatility(100.0, 0.2), float)
    assert "30 local volatilities from" in repr(fit)


def test_noisy_quotes_still_give_a_surface_without_arbitrage(known, rng):
    """Volatilities with noise of 3 %, which breaks butterflies and calendars."""
    _, surface = known
    moneyness = np.exp(np.linspace(-0.35, 0.35, 15))
    for smoothing in ("auto", 100.0):
        noisy = chain_of(surface, moneyness, noise=0.03, rng=rng)
        fit = ro.fit_local_volatility(noisy, kinks=201, smoothing=smoothing)
        assert fit.surface.certificate
        assert fit.surface.weights.min() >= 0.0
        assert fit.volatility_error < 0.01


def test_chains_tables_and_prepared_quotes_are_one(known):
    _, surface = known
    table = chain_of(surface, np.exp(np.linspace(-0.35, 0.35, 15)))
    chain = ro.read_chain(table)
    prepared = [ro.prepare_quotes(one) for one in chain]
    fits = [
        ro.fit_local_volatility(one, kinks=201)
        for one in (table, chain, prepared[::-1])
    ]
    for other in fits[1:]:
        np.testing.assert_array_equal(
            fits[0].local_volatilities, other.local_volatilities
        )


def test_quotes_with_spreads_are_met_inside_them():
    fit = ro.fit_local_volatility(ro.bundled_chain(), kinks=201)
    assert fit.surface.share_inside == 1.0
    assert fit.surface.certificate
    assert fit.local_volatilities.max() < 2.0


def test_a_bid_of_zero_only_bounds_the_price(known):
    """A put worth next to nothing, asked at far more, does not lift the volatility."""
    _, surface = known
    moneyness = np.exp(np.linspace(-0.3, 0.3, 13))
    strike = 100.0 * moneyness
    call = moneyness >= 1.0
    price = np.asarray(surface.price(strike, 0.5, is_call=call))
    table = pd.DataFrame(
        {
            "strike": np.append(strike, 45.0),
            "option_type": np.append(np.where(call, "call", "put"), "put"),
            "bid": np.append(price * 0.99, 0.0),
            "ask": np.append(price * 1.01, 0.5),
        }
    )
    terms: dict[str, Any] = {
        "forward": 100.0,
        "discount_factor": 1.0,
        "time_to_expiry": 0.5,
    }
    fits = [
        ro.fit_local_volatility([ro.prepare_quotes(rows, **terms)], kinks=201)
        for rows in (table, table.iloc[:-1])
    ]
    with_it, without = (one.surface.price(45.0, 0.5, is_call=False) for one in fits)
    assert with_it < 0.01
    np.testing.assert_allclose(with_it, without, atol=1e-3)


def test_euro_stoxx_is_fitted_to_its_bound():
    """The bound on any curves is 1.05 bp, one violated butterfly of one expiry."""
    chain = ro.read_chain(real_quotes("sx5e_20100301_andreasen_huge.csv"))
    fit = ro.fit_local_volatility(chain)
    assert fit.volatility_error < 1.08e-4
    assert fit.surface.certificate
    one_step = ro.fit_local_volatility(chain, method="implicit", steps=1)
    assert one_step.volatility_error < 1.08e-4


def test_bad_quotes_and_requests_are_named(known):
    _, surface = known
    table = chain_of(surface, np.exp(np.linspace(-0.3, 0.3, 9)))
    prepared = [ro.prepare_quotes(one) for one in ro.read_chain(table)]
    with pytest.raises(QuoteError, match="two expiries have one time to expiry"):
        ro.fit_local_volatility([prepared[0], prepared[0]])
    with pytest.raises(QuoteError, match="no expiry can be used"):
        ro.fit_local_volatility([])
    changes: dict[str, Any]
    for changes, message in (
        ({"kinks": 3}, "kinks must be a whole number from 16 on, not 3"),
        ({"nodes": 0}, "nodes must be a whole number from 1 on, not 0"),
        ({"smoothing": -1.0}, "smoothing must be 'auto' or >= 0, not -1.0"),
        ({"smoothing": "much"}, "smoothing must be 'auto' or >= 0, not 'much'"),
        ({"method": "explicit"}, "method must be one of"),
        ({"max_steps": 0}, "max_steps must be a whole number from 1 on, not 0"),
    ):
        with pytest.raises(ValueError, match=message):
            ro.fit_local_volatility(prepared, **changes)
    with pytest.raises(FitError, match=r"after 1 steps.*raise `smoothing`"):
        ro.fit_local_volatility(prepared, kinks=201, smoothing=0.0, max_steps=1)

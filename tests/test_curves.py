"""Fitted curves on simulated and on real quotes."""

import json
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import mpmath
import numpy as np
import pandas as pd
import pytest
from compilations import compilations
from real_quotes import real_quotes
from scipy.integrate import quad
from scipy.stats import kstest, norm

import relu_options as ro
from relu_options import bachelier, black_scholes, plotting
from relu_options.arbitrage import static_arbitrage_violations
from relu_options.errors import ArbitrageError
from relu_options.networks import (
    BachelierNetwork,
    PriceNetwork,
    ReLUNetwork,
    price_from_kinks,
    price_from_strikes,
    relu,
)
from relu_options.replication.spot_law import SpotLaw


@pytest.fixture(scope="module")
def curve():
    chain = ro.bundled_chain()
    return ro.fit_curve(chain[chain.slices[4]])


def test_curve_is_inside_every_spread_and_free_of_arbitrage(curve):
    assert curve.share_inside == 1.0
    assert curve.certificate
    deviation = curve.implied_volatility(curve.forward) * np.sqrt(curve.time_to_expiry)
    strikes = curve.forward * np.exp(np.linspace(-10, 10, 2001) * deviation)
    clean = static_arbitrage_violations(
        curve.price,
        forward=curve.forward,
        discount_factor=curve.discount_factor,
        strikes=strikes,
    )
    assert clean.empty
    assert np.isfinite(curve.implied_volatility(strikes)).all()


def test_parity_distribution_quantile_and_density_agree(curve):
    strikes = curve.quantile(np.linspace(0.01, 0.99, 25))
    np.testing.assert_allclose(
        curve.distribution(strikes), np.linspace(0.01, 0.99, 25), atol=1e-12
    )
    parity = curve.price(strikes) - curve.price(strikes, is_call=False)
    np.testing.assert_allclose(
        parity, curve.discount_factor * (curve.forward - strikes), atol=1e-9
    )
    step = 1e-3
    slope = curve.distribution(strikes + step) - curve.distribution(strikes - step)
    np.testing.assert_allclose(
        slope / (2 * step), curve.density(strikes), rtol=1e-6, atol=1e-12
    )


def test_json_keeps_every_digit(curve, tmp_path):
    curve.to_json(tmp_path / "curve.json")
    again = ro.PriceCurve.from_json(tmp_path / "curve.json")
    for name in ("kinks", "weights", "bandwidths"):
        np.testing.assert_array_equal(
            getattr(again.network, name), getattr(curve.network, name)
        )
    assert (again.forward, again.discount_factor) == (
        curve.forward,
        curve.discount_factor,
    )


def test_series_keep_their_index(curve):
    strikes = pd.Series([4800.0, 5000.0], index=["a", "b"])
    assert list(curve.price(strikes).index) == ["a", "b"]
    assert isinstance(curve.price(5000.0), float)


def test_moments_and_samples_agree_with_the_law(curve):
    moments = curve.moments()
    assert moments["mean"] == pytest.approx(curve.forward, rel=1e-12)
    second = curve.expectation(lambda spot: (spot - curve.forward) ** 2)
    assert second == pytest.approx(moments["variance"], rel=1e-10)
    draws = np.asarray(curve.sample(jax.random.key(0), 200_000))
    error = np.sqrt(moments["variance"] / draws.size)
    assert abs(draws.mean() - curve.forward) < 5 * error


def test_expectation_of_a_payoff_is_that_of_its_options(curve):
    """Exactly, although the payoff is a function too, which quadrature would blur."""
    payoff = ro.payoffs.butterfly(4900.0, 5000.0, 5100.0)
    low, middle, high = curve.price(np.array([4900.0, 5000.0, 5100.0]))
    expected = (low - 2.0 * middle + high) / curve.discount_factor
    assert curve.expectation(payoff) == pytest.approx(expected, rel=1e-10)
    assert curve.expectation(payoff.to_network()) == curve.expectation(payoff)


def test_one_hidden_unit_is_black_scholes():
    flat = ro.BlackScholesCurve(volatility=0.3, forward=100.0, time_to_expiry=0.5)
    strikes = np.array([50.0, 100.0, 180.0])
    expected = black_scholes.price(
        forward=100.0, strike=strikes, time_to_expiry=0.5, volatility=0.3
    )
    np.testing.assert_allclose(flat.price(strikes), expected, rtol=1e-13)


def test_price_of_a_payoff_is_one_inner_product(rng):
    kinks = jnp.sort(jnp.asarray(rng.uniform(50, 150, 20)))
    prices = PriceNetwork(
        kinks,
        jnp.asarray(rng.dirichlet(np.ones(20))),
        jnp.asarray(rng.uniform(0.0, 0.2, 20)),
    )
    payoff = ro.ReLUNetwork(
        1.5,
        -0.3,
        jnp.asarray(rng.uniform(60, 140, 7)),
        jnp.asarray(rng.normal(size=7)),
    )
    left, right = price_from_strikes(payoff, prices), price_from_kinks(payoff, prices)
    np.testing.assert_allclose(left, right, rtol=1e-13)


def test_arbitrage_in_the_quotes_is_fitted_or_named():
    quotes = pd.DataFrame(
        {
            "strike": [80.0, 90.0, 100.0, 110.0, 120.0],
            "option_type": "call",
            "bid": [20.85, 12.05, 8.6, 3.55, 1.5],
            "ask": [20.95, 12.15, 8.7, 3.65, 1.6],
        }
    )
    terms: dict[str, Any] = {
        "forward": 100.0,
        "discount_factor": 1.0,
        "time_to_expiry": 0.5,
    }
    curve = ro.fit_curve(quotes, **terms)
    assert curve.certificate
    assert curve.quotes["excess"].sum() > 0.0
    with pytest.raises(ArbitrageError, match="butterfly"):
        ro.fit_curve(quotes, **terms, on_arbitrage="raise")


@pytest.mark.parametrize("request_", [{"smoothing": -1.0}, {"kinks": 2}])
def test_requests_out_of_range_are_refused(request_: dict[str, Any]):
    with pytest.raises(ValueError, match=r"-1|kinks"):
        ro.fit_curve(pd.DataFrame(), **request_)


def test_unsmoothed_fit_reaches_the_least_error_any_curve_can_have():
    """31.5 bp on the long TSLA table, as a second solver finds too."""
    table = pd.read_csv(real_quotes("tsla_20180615_exp20200117.csv"))
    quotes = table.rename(columns={"iv": "implied_volatility"})[
        ["strike", "implied_volatility"]
    ]
    terms: dict[str, Any] = {
        "forward": float(table.forward[0]),
        "discount_factor": 1.0,
        "time_to_expiry": float(table.t[0]),
    }
    exact = ro.fit_curve(quotes, **terms, smoothing=0.0)
    assert 1e4 * exact.volatility_error == pytest.approx(31.47, rel=0.01)
    smooth = ro.fit_curve(quotes, **terms)
    assert exact.volatility_error < smooth.volatility_error < 38e-4


# Every question, on a normal law: known in closed form


NORMAL: Any = norm(100.0, 5.0)
STRIKES = np.array([86.0, 95.0, 100.0, 108.0])


@pytest.fixture(scope="module")
def normal():
    """One hidden unit of the normal kernel."""
    kinks, weights, widths = (jnp.full(1, value) for value in (100.0, 0.97, 5.0))
    unit = PriceNetwork(kinks, weights, widths, "bachelier")
    return ro.PriceCurve(unit, 100.0, 0.97, 0.5)


def test_a_normal_kernel_has_a_normal_law(normal):
    names = ["mean", "variance", "skewness", "kurtosis"]
    expected = pd.Series([100.0, 25.0, 0.0, 3.0], names, name="moments")
    pd.testing.assert_series_equal(normal.moments(), expected, rtol=1e-13)
    np.testing.assert_allclose(normal.density(STRIKES), NORMAL.pdf(STRIKES), rtol=1e-13)
    below = normal.distribution(STRIKES)
    np.testing.assert_allclose(below, NORMAL.cdf(STRIKES), rtol=1e-13)
    shares = np.array([1e-300, 1e-9, 0.3, 0.5, 0.9])
    np.testing.assert_allclose(
        normal.quantile(shares), NORMAL.ppf(shares), rtol=1e-12, atol=1e-12
    )
    assert normal.quantile(1.0 - 1e-12) == pytest.approx(NORMAL.ppf(1.0 - 1e-12))
    np.testing.assert_array_equal(normal.quantile([0.0, 1.0]), [-np.inf, np.inf])
    draws = np.asarray(normal.sample(0, 100_000))
    assert kstest(draws, NORMAL.cdf).pvalue > 0.01


def test_prices_of_a_normal_kernel_are_those_of_the_normal_model(normal):
    terms: dict[str, Any] = {"forward": 100.0, "discount_factor": 0.97}
    for is_call in (True, False):
        expected = bachelier.price(
            strike=STRIKES,
            time_to_expiry=0.5,
            volatility=5.0 / 0.5**0.5,
            is_call=is_call,
            **terms,
        )
        price = normal.price(STRIKES, is_call)
        np.testing.assert_allclose(price, expected, rtol=1e-13)
        sign = 1.0 if is_call else -1.0

        def payoff(spot, sign=sign):
            return np.maximum(sign * (spot - 95.0), 0.0) * NORMAL.pdf(spot)

        integral = quad(payoff, 40.0, 160.0, points=[95.0], epsabs=1e-13)[0]
        assert normal.price(95.0, is_call) == pytest.approx(0.97 * integral, rel=1e-10)
        # The law moves with the forward, without changing its shape.
        step = 1e-3
        moved = [
            ro.PriceCurve(
                replace(normal.network, kinks=normal.network.kinks + shift),
                100.0 + shift,
                0.97,
                0.5,
            ).price(STRIKES, is_call)
            for shift in (-step, 0.0, step)
        ]
        slope = (moved[2] - moved[0]) / (2.0 * step)
        np.testing.assert_allclose(normal.delta(STRIKES, is_call), slope, rtol=1e-6)
        steps = [normal.price(STRIKES + shift, is_call) for shift in (-1e-3, 1e-3)]
        np.testing.assert_allclose(
            normal.strike_delta(STRIKES, is_call),
            (steps[1] - steps[0]) / 2e-3,
            rtol=1e-6,
        )
    volatility = normal.implied_volatility(STRIKES)
    np.testing.assert_allclose(volatility, 5.0 / 0.5**0.5, rtol=1e-12)
    gamma = 0.97 * NORMAL.pdf(STRIKES)
    np.testing.assert_allclose(normal.gamma(STRIKES), gamma, rtol=1e-13)


def test_expectations_under_a_normal_kernel(normal, tmp_path):
    assert normal.expectation(lambda spot: (spot - 100.0) ** 4) == pytest.approx(
        3.0 * 5.0**4, rel=1e-12
    )
    call = ro.payoffs.call(103.0)
    expected = normal.price(103.0) / 0.97
    assert normal.expectation(call) == pytest.approx(expected, rel=1e-13)
    law = SpotLaw.of(normal, np.array([103.0]))
    assert law.probabilities @ call(law.spots) == pytest.approx(expected, rel=1e-11)
    assert law.probabilities @ (law.spots - 100.0) ** 2 == pytest.approx(25.0)
    normal.to_json(tmp_path / "normal.json")
    again = ro.PriceCurve.from_json(tmp_path / "normal.json")
    assert again.network.kernel == "bachelier"
    pd.testing.assert_frame_equal(again.to_frame(), normal.to_frame(), rtol=1e-15)
    assert normal.plot() is not None
    plt.close("all")


# The law in its tails and on its atoms


def mixture(rng, kernel):
    """Five states of a curve of forward 100, and its law to fifty digits."""
    scale = 1.0 if kernel == "black" else 100.0
    network = PriceNetwork(
        jnp.asarray(rng.uniform(70.0, 130.0, 5)),
        jnp.asarray(0.97 * rng.dirichlet(np.ones(5))),
        jnp.asarray(scale * rng.uniform(0.05, 0.3, 5)),
        kernel,
    )
    states = [np.asarray(one).tolist() for one in (network.kinks, network.bandwidths)]
    weights = [mpmath.mpf(weight) for weight in np.asarray(network.weights).tolist()]

    def tails(strike):
        total = [mpmath.mpf(0), mpmath.mpf(0)]
        for kink, width, weight in zip(*states, weights, strict=True):
            kink, width = mpmath.mpf(kink), mpmath.mpf(width)
            moved = (kink - strike) / width
            if kernel == "black":
                moved = mpmath.log(kink / strike) / width - width / 2
            for side, sign in enumerate((-1, 1)):
                total[side] += weight * mpmath.ncdf(sign * moved) / sum(weights)
        return total

    curve = ro.PriceCurve(network, float(network.mean / network.mass), 0.97, 0.5)
    return curve, tails


@pytest.mark.parametrize("kernel", ["black", "bachelier"])
def test_quantiles_invert_the_law_in_both_tails(rng, kernel):
    """From the smallest number to the largest below one, to ten digits of the tail."""
    curve, tails = mixture(rng, kernel)
    shares = np.array([5e-324, 1e-310, 1e-300, 1e-100, 1e-23, 1e-9, 0.02, 0.5])
    shares = np.append(shares, [0.9, 1.0 - 1e-9, 1.0 - 2.0**-52, 1.0 - 2.0**-53])
    with mpmath.workdps(50):
        for share, strike in zip(shares, curve.quantile(shares), strict=True):
            below, above = tails(mpmath.mpf(float(strike)))
            share = mpmath.mpf(float(share))
            error = abs(below - share) if share < 0.5 else abs(above - (1 - share))
            assert error < mpmath.mpf("1e-10") * min(share, 1 - share), share
    assert np.isnan(curve.quantile(np.nan))
    for outside in ([0.5, -1e-300], 1.0 + 1e-15, [95.0]):
        with pytest.raises(ValueError, match="probabilities are from 0 to 1, not"):
            curve.quantile(outside)


@pytest.mark.parametrize("index", ["numbers", "texts", "times", "pairs"])
def test_a_curve_read_back_is_judged_as_before(index, tmp_path):
    """Whatever the labels of the user's rows; the digits are those that were."""
    quotes = ro.bundled_chain()["2025-06-20"].to_frame()
    count = len(quotes)
    quotes.index = {
        "numbers": pd.RangeIndex(7, 7 + count),
        "texts": pd.Index([f"row {place}" for place in range(count)], name="row"),
        "times": pd.date_range("2025-03-14", periods=count, tz="UTC"),
        "pairs": pd.MultiIndex.from_arrays(
            [np.arange(count), ["x"] * count], names=["row", None]
        ),
    }[index]
    bids = quotes["bid"].to_numpy(copy=True)
    bids[3] = np.nan
    quotes["bid"] = bids
    curve: Any = ro.fit_curve(quotes)
    curve.to_json(tmp_path / "curve.json")
    again: Any = ro.PriceCurve.from_json(tmp_path / "curve.json")
    assert again.to_json() == curve.to_json()
    pd.testing.assert_frame_equal(
        again.quotes, curve.quotes, check_exact=True, check_freq=False
    )
    pd.testing.assert_frame_equal(again.report.to_frame(), curve.report.to_frame())
    assert repr(again.report) == repr(curve.report)
    assert str(again) == str(curve)
    np.testing.assert_array_equal(
        again.quote_arbitrage.excess, curve.quote_arbitrage.excess
    )
    assert plotting._title(again) == plotting._title(curve)
    assert plotting._currency(again) == plotting._currency(curve)
    assert ro.PriceCurve.from_json(curve.to_json(quotes=False)).fit is None


def test_a_file_that_is_no_curve_is_named(tmp_path):
    flat = ro.BlackScholesCurve(volatility=0.2, forward=100.0, time_to_expiry=0.5)
    document = json.loads(flat.to_json())
    with pytest.raises(ValueError, match="a JSON object is needed, not a list"):
        ro.PriceCurve.from_json("[1, 2]")
    for text in ("{", '{"format": NaN'):
        with pytest.raises(ValueError, match="not a price curve: not JSON"):
            ro.PriceCurve.from_json(text)
    (tmp_path / "latin").write_bytes('{"a": "é"}'.encode("latin-1"))
    with pytest.raises(ValueError, match="not JSON in UTF-8"):
        ro.PriceCurve.from_json(tmp_path / "latin")
    for name in ("kinks", "forward", "expiry", "kernel"):
        short = {key: value for key, value in document.items() if key != name}
        with pytest.raises(ValueError, match=f"not a price curve: no field '{name}'"):
            ro.PriceCurve.from_json(json.dumps(short))
    for wrong in ({"kind": "os.system"}, {"kind": "FitReport", "steps": 1}):
        with pytest.raises(ValueError, match="not a price curve: "):
            ro.PriceCurve.from_json(json.dumps(document | {"fit": wrong}))
    named = ro.BlackScholesCurve(
        volatility=0.2, forward=100.0, time_to_expiry=0.5, expiry="März"
    )
    (tmp_path / "utf8").write_text(
        json.dumps(json.loads(named.to_json()), ensure_ascii=False), encoding="utf-8"
    )
    assert ro.PriceCurve.from_json(tmp_path / "utf8").expiry == "März"


def test_tables_of_a_curve_are_copies_and_repr_computes_nothing():
    curve = ro.fit_curve(ro.bundled_chain()["2025-06-20"])
    assert "89 quotes" in repr(curve)
    assert not {"_judged", "quote_arbitrage", "certificate"} & set(vars(curve))
    assert "least_error" not in vars(curve.fit)
    quotes = curve.quotes
    quotes["inside"] = False
    assert curve.share_inside == 1.0
    assert "100.00% inside" in str(curve)
    assert isinstance(curve.sample(0, 3), np.ndarray)


def test_strikes_of_any_number_compile_for_two_lengths():
    network = PriceNetwork(
        jnp.linspace(80.0, 120.0, 7), jnp.full(7, 1.0 / 7.0), jnp.full(7, 0.1)
    )
    curve = ro.PriceCurve(network, 100.0, 1.0, 0.5)
    strikes = np.linspace(70.0, 130.0, 700)
    with compilations() as compiled:
        prices = curve.price(strikes)
        for count in (1, 5, 16, 17, 256, 257, 600):
            some = curve.price(strikes[:count])
            np.testing.assert_allclose(some, prices[:count], rtol=1e-13)
        puts = curve.price(strikes, is_call=False)
        strikes_of_either = curve.price(strikes, is_call=strikes >= 100.0)
        assert curve.price([]).shape == (0,)
    assert len(compiled) == 2
    np.testing.assert_array_equal(
        strikes_of_either, np.where(strikes >= 100.0, prices, puts)
    )
    with compilations() as compiled:
        curve.delta(strikes)
        curve.strike_delta(strikes)
        curve.gamma(strikes)
        curve.density(strikes)
        curve.distribution(strikes)
    assert len(compiled) == 4  # survival, with the price, distribution, density


@pytest.mark.parametrize("count", [3, 1_000, 100_000])
def test_a_network_does_not_change_when_the_users_arrays_do(count):
    """JAX shares the memory of large arrays."""
    kinks: Any = np.linspace(80.0, 120.0, count)
    weights: Any = np.full(count, 1.0 / count)
    widths: Any = np.full(count, 0.1)
    networks = [
        PriceNetwork(kinks, weights, widths),
        BachelierNetwork(0.0, 0.0, kinks, weights, widths),
        ReLUNetwork(0.0, 0.0, kinks, weights),
        relu(kinks),
    ]
    before = [[np.array(part) for part in vars(one).values()] for one in networks]
    kinks[:], weights[:], widths[:] = 0.0, 0.0, 0.0
    for one, parts in zip(networks, before, strict=True):
        for part, value in zip(vars(one).values(), parts, strict=True):
            np.testing.assert_array_equal(np.asarray(part), value)


@pytest.mark.parametrize("kernel", ["black", "bachelier"])
def test_the_quantile_of_the_probability_of_an_atom_is_the_atom(rng, kernel):
    """Where probabilities are apart by more than their rounding."""
    quantile = jax.jit(PriceNetwork.quantile)
    apart = 0
    for least in (0.0, -10.0, -250.0, -300.0):
        for _ in range(12):
            atoms = np.sort(rng.uniform(50.0, 150.0, 10))
            weights = rng.dirichlet(np.ones(10)) * 10.0 ** rng.uniform(least, 0.0, 10)
            weights = np.sort(weights) if rng.random() < 0.5 else weights
            network = PriceNetwork(
                jnp.asarray(atoms), jnp.asarray(weights), jnp.zeros(10), kernel
            )
            shares = np.asarray(network.cumulative(atoms) / network.mass)
            told = np.diff(np.append(0.0, shares)) > 1e-13 * shares
            told &= shares < 1.0 - 1e-13
            apart += told.sum()
            found = np.asarray(quantile(network, shares))
            np.testing.assert_array_equal(found[told], atoms[told])
    assert apart > 200


def test_quantiles_of_states_wider_than_floats_reach():
    """40 bandwidths of 15 below its median, a lognormal state is below any float."""
    quantile = jax.jit(PriceNetwork.quantile)
    for width in (15.0, 20.0, 25.0, 37.0):
        network = PriceNetwork(jnp.array([100.0]), jnp.ones(1), jnp.array([width]))
        shares = np.array([0.5, 0.9, 0.999])
        expected = 100.0 * np.exp(width * norm.ppf(shares) - 0.5 * width**2)
        np.testing.assert_allclose(quantile(network, shares), expected, rtol=1e-11)
    both = PriceNetwork(
        jnp.array([100.0, 110.0]), jnp.full(2, 0.5), jnp.array([0.2, 20.0])
    )
    shares = np.array([0.1, 0.35, 0.49, 0.51, 0.75, 0.99])
    np.testing.assert_allclose(
        both.cumulative(both.quantile(shares)), shares, rtol=1e-12
    )


def test_derivatives_of_quantiles_are_those_of_the_inverse(rng):
    curve, _ = mixture(rng, "black")
    strike = curve.quantile(0.3)
    slope = jax.grad(curve.network.quantile)(0.3)
    assert slope == pytest.approx(1.0 / curve.density(strike), rel=1e-10)
    widths = curve.network.bandwidths

    def moved(scale):
        return replace(curve.network, bandwidths=scale * widths).quantile(0.3)

    difference = (moved(1.0 + 1e-5) - moved(1.0 - 1e-5)) / 2e-5
    assert jax.grad(moved)(1.0) == pytest.approx(float(difference), rel=1e-6)


def test_the_moments_of_a_mixture_are_integrals(rng):
    for kernel in ("black", "bachelier"):
        curve, _ = mixture(rng, kernel)
        nodes, weights = np.polynomial.legendre.leggauss(400)
        low, high = curve.quantile(1e-15), curve.quantile(1.0 - 1e-15)
        spots = 0.5 * (low + high) + 0.5 * (high - low) * nodes
        shares = 0.5 * (high - low) * weights * curve.density(spots)
        mean = shares @ spots
        centred = [shares @ (spots - mean) ** power for power in (2, 3, 4)]
        expected = [
            mean,
            centred[0],
            centred[1] / centred[0] ** 1.5,
            centred[2] / centred[0] ** 2,
        ]
        np.testing.assert_allclose(curve.moments(), expected, rtol=1e-9)
        draws = np.asarray(curve.sample(3, 50_000))
        assert kstest(draws, curve.distribution).pvalue > 0.01


def test_atoms_are_at_or_below_themselves():
    """Of curves and surfaces alike, also where strikes over forwards are rounded."""
    kinks = np.array([0.7, 0.85, 1.0, 1.1, 1.37])
    weights = np.array([[0.1, 0.2, 0.4, 0.2, 0.1]])
    weights[0, 2:] += np.array([1.0, -1.0, 0.0]) * (weights[0] @ kinks - 1.0) / 0.1
    surface = ro.PriceSurface(
        kinks, weights, np.zeros(5), np.ones(1), np.array([103.7]), np.ones(1)
    )
    curve = surface.curve(1.0)
    atoms = np.asarray(curve.network.kinks)
    expected = np.cumsum(weights[0])
    for law in (curve.distribution, lambda strike: surface.distribution(strike, 1.0)):
        np.testing.assert_allclose(law(atoms), expected, rtol=1e-14)
        between = law(atoms * (1.0 + 1e-9))
        np.testing.assert_allclose(between, expected, rtol=1e-14)
        np.testing.assert_allclose(law(atoms * (1.0 - 1e-9)), expected - weights[0])
    np.testing.assert_array_equal(curve.density(atoms), np.inf)
    np.testing.assert_array_equal(surface.density(atoms, 1.0), np.inf)
    np.testing.assert_array_equal(curve.quantile(expected - 1e-3), atoms)
    exact = jnp.array([0.125, 0.25, 0.25, 0.25, 0.125])  # that add up without rounding
    fair = replace(curve.network, weights=exact)
    np.testing.assert_array_equal(fair.quantile(np.cumsum(exact)), atoms)
    np.testing.assert_array_equal(curve.quantile([0.0, 1.0]), atoms[[0, -1]])


def test_no_probability_is_above_one(rng):
    """The sum of the state prices is rounded, and probabilities are not above it."""
    for size in rng.integers(2, 64, 20):
        weights = rng.dirichlet(np.ones(64)) * (np.arange(64) < size)
        kinks = jnp.asarray(rng.uniform(60.0, 140.0, 64))
        strikes = rng.uniform(50.0, 200.0, 1000)
        network = PriceNetwork(kinks, jnp.asarray(0.97 * weights), jnp.full(64, 0.01))
        law = ro.PriceCurve(network, 100.0, 0.97, 1.0).distribution(strikes)
        assert law.min() >= 0.0
        assert law.max() == 1.0

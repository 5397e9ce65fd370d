"""The Bates model, simulated chains, and the bundled one."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import QuantLib as ql
from scipy.integrate import quad, trapezoid
from scipy.special import factorial, ndtr

from relu_options import black_scholes
from relu_options.market_data import prepare_quotes
from relu_options.simulation import (
    BatesModel,
    SimulationTerms,
    bundled_chain,
    bundled_path,
    bundled_truth,
    simulate_chain,
)

ROOT = Path(__file__).parents[1]
MODEL = BatesModel(
    initial_variance=0.026,
    long_run_variance=0.045,
    mean_reversion=2.5,
    volatility_of_variance=0.75,
    correlation=-0.72,
    jump_intensity=0.35,
    jump_mean=-0.09,
    jump_volatility=0.07,
)
NO_JUMPS = replace(MODEL, jump_intensity=0.0)
FORWARD, DISCOUNT = 103.0, 0.96
YEARS = [7 / 365, 0.25, 2.0]


def black_call(forward, strike, total_volatility):
    d1 = np.log(forward / strike) / total_volatility + 0.5 * total_volatility
    return forward * ndtr(d1) - strike * ndtr(d1 - total_volatility)


def terms_of(years) -> dict[str, Any]:
    return {"forward": FORWARD, "time_to_expiry": years}


def strikes_of(years, lowest=-6.0, highest=4.0, size=41):
    """Strikes in deviations, so that they make sense for any time."""
    return FORWARD * np.exp(np.linspace(lowest, highest, size) * 0.2 * np.sqrt(years))


@pytest.mark.parametrize("years", YEARS)
def test_without_volatility_of_variance_and_jumps_it_is_black_scholes(years):
    model = replace(NO_JUMPS, volatility_of_variance=0.0)
    strike = strikes_of(years)
    relaxed = -np.expm1(-2.5 * years) / 2.5
    total_variance = 0.045 * (years - relaxed) + 0.026 * relaxed
    np.testing.assert_allclose(
        model.price(strike, forward=FORWARD, time_to_expiry=years),
        black_call(FORWARD, strike, np.sqrt(total_variance)),
        atol=1e-12 * FORWARD,
    )


def test_a_small_volatility_of_variance_is_near_none():
    strike, terms = strikes_of(0.25), terms_of(0.25)
    small = replace(MODEL, volatility_of_variance=1e-5).price(strike, **terms)
    none = replace(MODEL, volatility_of_variance=0.0).price(strike, **terms)
    np.testing.assert_allclose(small, none, atol=1e-4)


def test_without_volatility_of_variance_it_is_mertons():
    """Merton (1976): a Poisson mixture of Black-Scholes prices."""
    years, variance = 0.5, 0.04
    model = replace(
        MODEL,
        initial_variance=variance,
        long_run_variance=variance,
        volatility_of_variance=0.0,
    )
    strike = strikes_of(years)
    size = np.exp(model.jump_mean + 0.5 * model.jump_volatility**2)
    rate = model.jump_intensity * years
    mixture = sum(
        np.exp(-rate)
        * rate**n
        / factorial(n)
        * black_call(
            FORWARD * np.exp(-rate * (size - 1.0)) * size**n,
            strike,
            np.sqrt(variance * years + n * model.jump_volatility**2),
        )
        for n in range(25)
    )
    np.testing.assert_allclose(
        model.price(strike, forward=FORWARD, time_to_expiry=years),
        mixture,
        atol=1e-12 * FORWARD,
    )


@pytest.mark.parametrize("years", YEARS)
def test_prices_agree_with_an_adaptive_integral_on_another_contour(years):
    """Carr and Madan (1999), damping 1.5: another integrand, another quadrature."""
    damping = 1.5
    for strike in FORWARD * np.exp(np.array([0.0, 2.0]) * 0.2 * np.sqrt(years)):
        k = np.log(strike / FORWARD)

        def integrand(u, k=k):
            z = u - (damping + 1.0) * 1j
            value = MODEL.characteristic_function(z, time_to_expiry=years)
            below = damping**2 + damping - u * u + 1j * (2.0 * damping + 1.0) * u
            return float((np.exp(-1j * u * k) * value / below).real)

        total = sum(
            quad(integrand, low, high, epsabs=1e-14, epsrel=1e-12, limit=400)[0]
            for low, high in ((0.0, 5.0), (5.0, 50.0), (50.0, 300.0), (300.0, 1500.0))
        )
        expected = FORWARD * np.exp(-damping * k) / np.pi * total
        price = MODEL.price(np.array([strike]), forward=FORWARD, time_to_expiry=years)
        np.testing.assert_allclose(price, expected, atol=1e-11)


@pytest.mark.parametrize("days", [7, 91, 730])
def test_prices_agree_with_quantlib(days):
    years = days / 365.0
    today = ql.Date(1, 1, 2020)
    ql.Settings.instance().evaluationDate = today
    count = ql.Actual365Fixed()
    rate = ql.YieldTermStructureHandle(
        ql.FlatForward(today, -np.log(DISCOUNT) / years, count)
    )
    process = ql.BatesProcess(
        rate,
        rate,
        ql.QuoteHandle(ql.SimpleQuote(FORWARD)),
        MODEL.initial_variance,
        MODEL.mean_reversion,
        MODEL.long_run_variance,
        MODEL.volatility_of_variance,
        MODEL.correlation,
        MODEL.jump_intensity,
        MODEL.jump_mean,
        MODEL.jump_volatility,
    )
    engine = ql.BatesEngine(ql.BatesModel(process), 1e-12, 100_000)
    strike = strikes_of(years)
    expected = []
    for one in strike:
        kind = ql.Option.Call if one >= FORWARD else ql.Option.Put
        option = ql.VanillaOption(
            ql.PlainVanillaPayoff(kind, float(one)), ql.EuropeanExercise(today + days)
        )
        option.setPricingEngine(engine)
        expected.append(option.NPV())
    prices = MODEL.price(
        strike,
        forward=FORWARD,
        time_to_expiry=years,
        discount_factor=DISCOUNT,
        is_call=strike >= FORWARD,
    )
    np.testing.assert_allclose(prices, expected, atol=1e-10)


@pytest.mark.parametrize("years", YEARS)
def test_parity_holds(years):
    strike = strikes_of(years)
    terms = {
        "forward": FORWARD,
        "time_to_expiry": years,
        "discount_factor": DISCOUNT,
    }
    call = MODEL.price(strike, is_call=True, **terms)
    put = MODEL.price(strike, is_call=False, **terms)
    np.testing.assert_allclose(call - put, DISCOUNT * (FORWARD - strike), atol=1e-12)


@pytest.mark.parametrize("years", YEARS)
def test_distribution_and_density_are_derivatives_of_the_price(years):
    strike = strikes_of(years, -4.0, 3.0, 15)
    step = 1e-4 * FORWARD
    terms = terms_of(years)

    def difference(function):
        up, down = function(strike + step, **terms), function(strike - step, **terms)
        return (up - down) / (2.0 * step)

    np.testing.assert_allclose(
        1.0 + difference(MODEL.price),
        MODEL.distribution(strike, **terms),
        rtol=1e-5,
        atol=1e-6,
    )
    np.testing.assert_allclose(
        difference(MODEL.distribution),
        MODEL.density(strike, **terms),
        rtol=1e-4,
        atol=1e-9,
    )


@pytest.mark.parametrize("years", YEARS)
def test_the_density_is_one_with_the_forward_as_its_mean(years):
    strike = strikes_of(years, -14.0, 10.0, 1501)
    terms = terms_of(years)
    density = MODEL.density(strike, **terms)
    missing = MODEL.distribution(strike[:1], **terms)[0]
    assert trapezoid(density, strike) + missing == pytest.approx(1.0, abs=1e-5)
    assert density.min() > -1e-10
    below = trapezoid(density * strike, strike) + missing * strike[0]
    assert below == pytest.approx(FORWARD, rel=1e-4)
    distribution = MODEL.distribution(strike, **terms)
    assert np.all(np.diff(distribution) > -1e-12)


@pytest.mark.parametrize("years", YEARS)
def test_the_characteristic_function_is_that_of_a_martingale(years):
    at = np.array([0.0, -1j])
    value = MODEL.characteristic_function(at, time_to_expiry=years)
    np.testing.assert_allclose(value, 1.0, atol=1e-13)


def test_volatilities_reprice_the_model():
    strike = strikes_of(0.25, -5.0, 3.0)
    terms = terms_of(0.25)
    volatility = MODEL.implied_volatility(strike, **terms)
    assert np.isfinite(volatility).all()
    assert volatility[0] > volatility[25] > 0.1
    is_call = strike >= FORWARD
    again = black_scholes.price(
        strike=strike, volatility=volatility, is_call=is_call, **terms
    )
    np.testing.assert_allclose(
        again, MODEL.price(strike, is_call=is_call, **terms), rtol=1e-8
    )


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("initial_variance", -0.04, "`initial_variance` must not be negative"),
        ("initial_variance", 0.0, "must be positive"),
        ("correlation", -1.0, "`correlation` must be between -1 and 1"),
        ("jump_volatility", np.nan, "`jump_volatility` must not be negative"),
    ],
)
def test_parameters_must_make_sense(name, value, message):
    with pytest.raises(ValueError, match=message):
        replace(MODEL, **{name: value})


TERMS = SimulationTerms(
    model=MODEL,
    spot=1000.0,
    rate=0.03,
    dividend_yield=0.01,
    quote_time="2025-03-14",
    expiries=("2025-03-28", "2025-09-19"),
    seed=7,
)


def test_a_seed_makes_one_chain():
    one, other = simulate_chain(TERMS), simulate_chain(TERMS)
    pd.testing.assert_frame_equal(one.table, other.table)
    different = simulate_chain(replace(TERMS, seed=8))
    assert not one.table["bid"].equals(different.table["bid"])
    assert SimulationTerms.from_dict(json.loads(json.dumps(TERMS.to_dict()))) == TERMS


def test_expiries_must_be_ahead():
    with pytest.raises(ValueError, match="must be after 2025-03-14"):
        simulate_chain(replace(TERMS, expiries=("2025-03-07",)))


def test_every_interval_holds_the_true_price():
    chain = simulate_chain(TERMS)
    for expiry, quotes in chain.table.groupby("expiry"):
        truth = chain.true_price(
            expiry, quotes["strike"], is_call=quotes["option_type"] == "call"
        )
        assert (quotes["bid"] <= truth + 1e-9).all()
        assert (truth <= quotes["ask"] + 1e-9).all()
        assert (quotes["bid"] < quotes["ask"]).all()
    with pytest.raises(KeyError, match="no expiry 2025-12-19; there are 2025-03-28"):
        chain.true_volatility("2025-12-19", [1000.0])


def test_the_bundled_chain_is_made_by_its_generator(tmp_path):
    """The files in `data/` are, byte for byte, what `data/generate.py` writes."""
    path = ROOT / "data" / "generate.py"
    specification = importlib.util.spec_from_file_location("generate", path)
    assert specification is not None
    assert specification.loader is not None
    generate = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(generate)
    generate.write_bundled(tmp_path, generate.TERMS)
    for name in ("bates_chain.csv", "bates_chain.json"):
        assert (tmp_path / name).read_bytes() == bundled_path(name).read_bytes(), name


def test_the_bundled_chain_looks_like_a_market():
    assert bundled_path().stat().st_size < 200_000
    table = bundled_chain().table
    counts = table.groupby("expiry")["strike"].nunique()
    assert len(counts) == 8
    assert counts.between(40, 150).all()
    ticks = np.where(table[["bid", "ask"]] < 3.0, 0.05, 0.1)
    steps = table[["bid", "ask"]] / ticks
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-6)
    zero = table[table["bid"] == 0.0]
    assert 10 < len(zero) < 100
    assert (zero["ask"] <= 0.3).all()
    spread = table["ask"] - table["bid"]
    assert spread[table["ask"] < 1.0].median() < spread[table["ask"] > 100].median()


def test_parity_finds_the_true_forwards_of_the_bundled_chain():
    truth = bundled_truth()
    for (date, _), one in zip(bundled_chain().slices, bundled_chain(), strict=True):
        prepared = prepare_quotes(one)
        line = truth.slices.loc[date]
        parity = prepared.parity
        assert parity is not None
        assert prepared.time_to_expiry == pytest.approx(line["time_to_expiry"])
        off = prepared.forward - line["forward"]
        assert abs(off) < 3.0 * parity.forward_standard_error
        off = prepared.discount_factor - line["discount_factor"]
        assert abs(off) < 3.0 * parity.discount_standard_error


def test_a_missing_bundled_file_is_an_error():
    with pytest.raises(FileNotFoundError, match=r"no bundled file 'nothing\.csv'"):
        bundled_path("nothing.csv")

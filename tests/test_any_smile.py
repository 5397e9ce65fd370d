"""Whatever the quotes, a fit ends, free of arbitrage, and keeps to the sound ones."""

import numpy as np
import pandas as pd
import pytest
from random_smiles import Expiry, Law, random_chain

import relu_options as ro
from relu_options.errors import QuoteError
from relu_options.fitting.quotes import credible_half_spreads


def prepared(one: Expiry):
    return ro.prepare_quotes(
        one.quotes, forward=one.forward, discount_factor=one.discount_factor
    )


def error_in_half_spreads(one: Expiry, volatility: float) -> float:
    """How far a fitted volatility is from the truth at the money."""
    price = ro.black_scholes.price(
        forward=one.forward,
        strike=one.strike,
        time_to_expiry=one.time_to_expiry,
        volatility=volatility,
        is_call=one.strike >= one.forward,
    )
    return abs(float(price) - one.price) / one.half_spread


@pytest.mark.parametrize("spread", [0.002, 0.005, 0.02])
@pytest.mark.parametrize("strikes", [11, 21])
def test_a_flat_chain_of_one_expiry_is_a_surface(strikes, spread):
    """As for `fit_curve`: nothing is easier."""
    deviation = 0.2 * np.sqrt(0.5)
    moneyness = np.exp(np.linspace(-2.5, 2.5, strikes) * deviation)
    is_call = moneyness >= 1.0
    flat = Law(np.ones(1), np.zeros(1), np.ones(1))
    price = 100.0 * flat.price(moneyness, is_call, deviation)
    quotes = ro.prepare_quotes(
        pd.DataFrame(
            {
                "strike": 100.0 * moneyness,
                "option_type": np.where(is_call, "call", "put"),
                "bid": price * (1.0 - spread),
                "ask": price * (1.0 + spread),
            }
        ),
        forward=100.0,
        discount_factor=1.0,
        time_to_expiry=0.5,
    )
    surface = ro.fit_surface([quotes])
    assert surface.share_inside == 1.0
    np.testing.assert_allclose(
        surface.implied_volatility([90.0, 100.0, 110.0], 0.5), 0.2, atol=2e-5
    )


@pytest.mark.parametrize("expiries", [1, 3])
def test_chains_with_wrong_quotes_are_fitted_through_the_sound_ones(expiries):
    """Of 40 quotes two are wrong, by a factor of up to 4.5: the money stays put."""
    errors = []
    for seed in range(12):
        chain = random_chain(seed, expiries=expiries, strikes=(40, 60), wrong=0.05)
        surface = ro.fit_surface([prepared(one) for one in chain])
        assert surface.certificate
        errors += [
            error_in_half_spreads(
                one, float(surface.implied_volatility(one.strike, one.time_to_expiry))
            )
            for one in chain
        ]
    # A mid is up to 0.8 half-spreads from the truth, a fit up to one from the mid.
    assert np.max(errors) <= 1.8


def test_curves_of_smiles_narrow_and_wide_are_fitted():
    """A minute to thirty years, 1 % to 400 %; ticks, mids and locked quotes."""
    for seed in range(150):
        rng = np.random.default_rng(seed)
        law, count = Law.draw(rng), int(np.exp(rng.uniform(np.log(4), np.log(100))))
        deviation = np.exp(rng.uniform(np.log(1e-4), np.log(4.0)))
        reach = np.linspace(-rng.uniform(0.5, 4.0), rng.uniform(0.5, 4.0), count)
        moneyness = np.exp(reach * deviation)
        is_call = moneyness >= 1.0
        price = law.price(moneyness, is_call, deviation)
        tick = 10.0 ** rng.uniform(-6.0, -3.0)
        values = {
            "spread": {"bid": 0.98 * price, "ask": 1.02 * price},
            "locked": {"bid": price, "ask": price},
            "mid": {"mid": price * np.exp(rng.normal(0.0, 1e-3, count))},
            "tick": {
                "bid": np.floor(0.98 * price / tick) * tick,
                "ask": np.ceil(1.02 * price / tick) * tick,
            },
        }[str(rng.choice(["spread", "locked", "mid", "tick"]))]
        table = pd.DataFrame(
            {
                "strike": moneyness,
                "option_type": np.where(is_call, "call", "put"),
                **values,
            }
        )
        table = table[price > 1e-12]
        if len(table) < 3 or ("bid" in table and not table["bid"].any()):
            continue
        curve = ro.fit_curve(
            table, forward=1.0, discount_factor=1.0, time_to_expiry=deviation**2
        )
        assert curve.certificate, seed


def test_volatilities_that_put_every_price_at_zero_are_refused():
    """4.9 taken as percent: the strikes are then a hundred deviations away."""
    table = pd.DataFrame({"strike": [12.4, 36.3, 57.5], "implied_volatility": 4.9})
    with pytest.raises(QuoteError, match="unit of volatilities"):
        ro.fit_curve(table, forward=6.0, discount_factor=1.0, time_to_expiry=0.066)


def test_spreads_that_agree_with_their_neighbours_are_believed(rng):
    position = np.sort(rng.normal(size=50))
    half_spread = np.exp(0.3 * position - 4.0)
    np.testing.assert_allclose(
        credible_half_spreads(position, half_spread), half_spread, rtol=1e-12
    )


def test_no_spread_is_believed_to_be_narrower_than_on_both_of_its_sides(rng):
    position = np.arange(60.0)
    half_spread = np.exp(rng.normal(0.0, 0.3, 60))
    half_spread[30], half_spread[40] = 1e-4, 1e4
    believed = credible_half_spreads(position, half_spread)
    assert (believed >= half_spread).all()
    assert 0.3 < believed[30] < 3.0
    # The one that is far too wide tells its neighbours nothing.
    assert (np.delete(believed, 40) < 5.0).all()


def test_an_odd_spread_at_an_end_is_not_believed_beside_it():
    """There no majority outvotes it."""
    half_spread = np.full(9, 1e-3)
    half_spread[-1] = 0.1
    believed = credible_half_spreads(np.arange(9.0), half_spread)
    np.testing.assert_allclose(believed, half_spread, rtol=1e-12)


def test_quotes_that_are_locked_are_met_among_others_that_are_not():
    """At the ends of a chain nothing says how wide they might be; they are right."""
    deviation = 0.2 * np.sqrt(0.5)
    moneyness = np.exp(np.linspace(-2.5, 2.5, 23) * deviation)
    price = 100.0 * Law(np.ones(1), np.zeros(1), np.ones(1)).price(
        moneyness, moneyness >= 1.0, deviation
    )
    half = np.full(23, 0.02)
    half[[0, -1]] = 0.0
    table = pd.DataFrame(
        {
            "strike": 100.0 * moneyness,
            "option_type": np.where(moneyness >= 1.0, "call", "put"),
            "bid": np.maximum(price - half, 0.0),
            "ask": price + half,
        }
    )
    quotes = ro.prepare_quotes(
        table, forward=100.0, discount_factor=1.0, time_to_expiry=0.5
    )
    for fitted in (ro.fit_curve(quotes), ro.fit_surface([quotes])):
        assert fitted.share_inside >= 21 / 23
        np.testing.assert_allclose(
            fitted.quotes["residual"].iloc[[0, -1]], 0, atol=1e-4
        )


def test_spreads_that_are_not_known_say_nothing():
    believed = credible_half_spreads(np.arange(4.0), np.array([0.1, 0.0, np.nan, 0.2]))
    np.testing.assert_array_equal(believed, [0.1, 0.0, 0.0, 0.2])


def test_an_expiry_of_a_minute_beside_thirty_years_is_left_out_by_name():
    """Bandwidths that both share would be wider than the law of the first."""
    flat = Law(np.ones(1), np.zeros(1), np.ones(1))
    quotes = []
    for time in (1.0 / 525_600, 1.0, 30.0):
        deviation = 0.2 * np.sqrt(time)
        moneyness = np.exp(np.linspace(-2.5, 2.5, 21) * deviation)
        price = flat.price(moneyness, moneyness >= 1.0, deviation)
        table = pd.DataFrame(
            {
                "strike": moneyness,
                "option_type": np.where(moneyness >= 1.0, "call", "put"),
                "bid": 0.98 * price,
                "ask": 1.02 * price,
            }
        )
        quotes.append(
            ro.prepare_quotes(
                table, forward=1.0, discount_factor=1.0, time_to_expiry=time
            )
        )
    surface = ro.fit_surface(quotes)
    assert surface.fit is not None
    ((name, why),) = surface.fit.left_out
    assert name == "1.90259e-06 years"
    assert "fit the short expiries by themselves" in why
    np.testing.assert_allclose(
        surface.implied_volatility(1.0, [1.0, 30.0]), 0.2, atol=1e-3
    )

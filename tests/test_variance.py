"""Variance strips against the variance that made the quotes, and their bounds."""

import numpy as np
import pandas as pd
import pytest

import relu_options as ro
from relu_options.errors import QuoteError
from relu_options.variance import variance_strip


def flat_quotes(strikes, volatility=0.2, years=0.25, forward=100.0, spread=0.0):
    """Quotes around the prices of one volatility."""
    curve = ro.BlackScholesCurve(
        volatility=volatility, forward=forward, time_to_expiry=years
    )
    is_call = strikes >= forward
    mid = np.where(is_call, curve.price(strikes), curve.price(strikes, is_call=False))
    table = pd.DataFrame(
        {
            "strike": strikes,
            "option_type": np.where(is_call, "call", "put"),
            "bid": mid * (1.0 - spread),
            "ask": mid * (1.0 + spread),
        }
    )
    return ro.prepare_quotes(
        table, forward=forward, discount_factor=1.0, time_to_expiry=years
    )


@pytest.mark.parametrize("step", [0.5, 2.5, 5.0])
def test_fair_variance_is_within_its_bounds_of_the_truth(step):
    quotes = flat_quotes(np.arange(60.0, 150.1, step))
    strip = variance_strip(quotes, lowest_spot=10.0)
    low = strip.fair_variance - strip.discreteness_bound
    high = strip.fair_variance + strip.truncation_bound
    assert low <= 0.04 <= high
    assert strip.discreteness_bound <= 0.7 * step**2 / 100.0**2 / 0.25
    assert strip.to_frame()["contribution"].sum() == pytest.approx(
        strip.fair_variance, rel=1e-12
    )


def test_truncation_is_bounded():
    """With strikes within one deviation only, most of the bound is not slack."""
    quotes = flat_quotes(np.arange(90.0, 110.1, 0.5))
    strip = variance_strip(quotes, lowest_spot=50.0)
    missing = 0.04 - strip.fair_variance
    assert 0.0 < missing < strip.truncation_bound
    assert variance_strip(quotes).truncation_bound == np.inf
    assert variance_strip(quotes, lowest_spot=95.0).truncation_bound < np.inf


def test_both_rules_agree_on_many_strikes():
    quotes = flat_quotes(np.arange(50.0, 180.1, 0.25), spread=0.02)
    chords, cboe = variance_strip(quotes), variance_strip(quotes, rule="cboe")
    assert chords.fair_volatility == pytest.approx(0.2, abs=2e-4)
    assert cboe.fair_volatility == pytest.approx(0.2, abs=2e-4)
    assert np.isnan(cboe.discreteness_bound)
    assert cboe.bid < cboe.fair_variance < cboe.ask
    assert cboe.bid == pytest.approx(0.98 * 0.04, rel=2e-3)


def test_cboe_formula_term_by_term():
    """Written out from the white paper, with a forward between the strikes."""
    strikes = np.array([80.0, 90.0, 95.0, 100.0, 105.0, 110.0, 125.0])
    quotes = flat_quotes(strikes, forward=101.5)
    curve = ro.BlackScholesCurve(volatility=0.2, forward=101.5, time_to_expiry=0.25)
    puts, calls = curve.price(strikes, is_call=False), curve.price(strikes)
    prices = np.where(strikes < 100.0, puts, calls)
    prices[3] = 0.5 * (puts[3] + calls[3])
    widths = np.array([10.0, 7.5, 5.0, 5.0, 5.0, 10.0, 15.0])
    total = 2.0 / 0.25 * np.sum(widths / strikes**2 * prices)
    expected = total - (101.5 / 100.0 - 1.0) ** 2 / 0.25
    strip = variance_strip(quotes, rule="cboe")
    assert strip.fair_variance == pytest.approx(expected, rel=1e-12)


def test_options_beyond_two_zero_bids_are_left_out():
    quotes = flat_quotes(np.arange(80.0, 125.1, 5.0))
    table = quotes.to_frame()[["strike", "option_type", "bid", "ask"]]
    table.loc[table["strike"].isin([85.0, 90.0]), "bid"] = 0.0
    bare = ro.prepare_quotes(
        table, forward=100.0, discount_factor=1.0, time_to_expiry=0.25
    )
    strip = variance_strip(bare, rule="cboe")
    assert strip.portfolio.strikes.min() == 95.0


def test_bad_requests_are_named():
    quotes = flat_quotes(np.arange(80.0, 125.1, 5.0))
    with pytest.raises(ValueError, match="rule must be one of"):
        variance_strip(quotes, rule="vix")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must not be negative"):
        variance_strip(quotes, lowest_spot=-1.0)
    with pytest.raises(QuoteError, match="no strike at or below the forward"):
        variance_strip(flat_quotes(np.arange(105.0, 125.1, 5.0)), rule="cboe")

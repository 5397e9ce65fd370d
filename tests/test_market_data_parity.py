"""Forward and discount factor by put-call parity."""

import numpy as np
import pytest
from scipy.special import ndtr

from relu_options.errors import QuoteError
from relu_options.market_data import forward_from_parity

FORWARD, DISCOUNT, YEARS = 103.0, 0.97, 1.0


def undiscounted_calls(forward, strike, total_volatility):
    d1 = np.log(forward / strike) / total_volatility + 0.5 * total_volatility
    return forward * ndtr(d1) - strike * ndtr(d1 - total_volatility)


def pairs(size=41, half_spread=0.05, noise=0.0, rng=None, forward=FORWARD):
    """Quotes of calls and puts about Black-Scholes prices, spreads as in the market."""
    strike = forward * np.linspace(0.7, 1.3, size)
    call = DISCOUNT * undiscounted_calls(forward, strike, 0.2)
    put = call - DISCOUNT * (forward - strike)
    sides = {}
    for name, price in (("call", call), ("put", put)):
        half = half_spread + 0.01 * price
        shift = 0.0 if rng is None else noise * half * rng.uniform(-1.0, 1.0, size)
        sides[f"{name}_bid"] = price + shift - half
        sides[f"{name}_ask"] = price + shift + half
    return {"strike": strike, **sides, "time_to_expiry": YEARS}


def test_exact_quotes_give_the_forward_and_the_discount_factor():
    estimate = forward_from_parity(**pairs())
    assert estimate.forward == pytest.approx(FORWARD, abs=1e-4)
    assert estimate.discount_factor == pytest.approx(DISCOUNT, abs=1e-4)
    assert estimate.pairs == 41
    assert len(estimate.rejected) == 0
    np.testing.assert_allclose(estimate.residuals, 0.0, atol=3e-3)
    assert estimate.rate(YEARS) == pytest.approx(-np.log(DISCOUNT), abs=1e-4)


def test_mids_alone_give_the_forward_and_the_discount_factor():
    estimate = forward_from_parity(**pairs(half_spread=0.0))
    assert estimate.forward == pytest.approx(FORWARD, abs=1e-3)
    assert estimate.discount_factor == pytest.approx(DISCOUNT, abs=1e-4)


def test_the_order_of_the_quotes_does_not_matter(rng):
    quotes = pairs(noise=0.5, rng=rng)
    order = rng.permutation(41)
    shuffled = {
        name: value if name == "time_to_expiry" else value[order]
        for name, value in quotes.items()
    }
    one, other = forward_from_parity(**quotes), forward_from_parity(**shuffled)
    assert one.forward == pytest.approx(other.forward, rel=1e-12)
    assert one.discount_factor == pytest.approx(other.discount_factor, rel=1e-12)


def test_standard_errors_cover_the_truth(rng):
    scores = []
    for _ in range(60):
        estimate = forward_from_parity(**pairs(noise=0.6, rng=rng))
        scores.append(
            (
                (estimate.forward - FORWARD) / estimate.forward_standard_error,
                (estimate.discount_factor - DISCOUNT)
                / estimate.discount_standard_error,
            )
        )
    deviations = np.std(scores, axis=0)
    assert np.all(deviations > 0.2)
    assert np.all(deviations < 1.3)


def test_a_tenth_of_the_quotes_may_be_wrong(rng):
    """Whatever the corruption, the estimate stays within its clean standard errors."""
    for _ in range(40):
        quotes = pairs(size=60, noise=0.5, rng=rng)
        clean = forward_from_parity(**quotes)
        for side in ("call", "put"):
            rows = rng.choice(60, 6, replace=False)
            factor = rng.choice([0.0, 0.3, 1.5, 3.0], 6)
            quotes[f"{side}_bid"][rows] = quotes[f"{side}_bid"][rows] * factor
            quotes[f"{side}_ask"][rows] = quotes[f"{side}_ask"][rows] * factor + 0.1
        estimate = forward_from_parity(**quotes)
        errors = clean.forward_standard_error, clean.discount_standard_error
        assert abs(estimate.forward - FORWARD) < 5.0 * errors[0]
        assert abs(estimate.discount_factor - DISCOUNT) < 5.0 * errors[1]
        assert len(estimate.rejected) > 0


def test_near_the_money_pairs_decide():
    quotes = pairs()
    wing = np.abs(quotes["strike"] / FORWARD - 1.0) > 0.2
    for side in ("call", "put"):
        quotes[f"{side}_bid"] = quotes[f"{side}_bid"] - 5.0 * wing
        quotes[f"{side}_ask"] = quotes[f"{side}_ask"] + 5.0 * wing
    # A skew of the wide wings, well inside their spreads.
    quotes["call_bid"] = quotes["call_bid"] + 0.5 * wing
    quotes["call_ask"] = quotes["call_ask"] + 0.5 * wing
    assert forward_from_parity(**quotes).forward == pytest.approx(FORWARD, abs=0.01)


def test_a_given_discount_factor_stays():
    estimate = forward_from_parity(**pairs(), discount_factor=DISCOUNT)
    assert estimate.discount_factor == DISCOUNT
    assert estimate.discount_standard_error == 0.0
    assert estimate.forward == pytest.approx(FORWARD, abs=1e-9)


def test_a_given_forward_stays():
    estimate = forward_from_parity(**pairs(), forward=FORWARD)
    assert estimate.forward == FORWARD
    assert estimate.forward_standard_error == 0.0
    assert estimate.discount_factor == pytest.approx(DISCOUNT, abs=1e-4)


@pytest.mark.parametrize("rows", [slice(18, 20), slice(18, 21), slice(16, 24)])
def test_few_pairs_lean_on_an_assumed_rate_and_say_so(rows, rng):
    quotes = {
        name: value if name == "time_to_expiry" else value[rows]
        for name, value in pairs(size=201, noise=0.5, rng=rng).items()
    }
    estimate = forward_from_parity(**quotes)
    assert any("assumed rate of 2%" in note for note in estimate.notes)
    assert estimate.discount_factor == pytest.approx(np.exp(-0.02), abs=0.03)
    assert estimate.discount_standard_error <= 0.031
    distance = abs(FORWARD - quotes["strike"].mean())
    assert estimate.forward == pytest.approx(FORWARD, abs=0.3 + 0.1 * distance)


def test_many_pairs_over_a_wide_range_do_not_lean_on_it():
    assert forward_from_parity(**pairs()).notes == ()


def test_without_a_time_an_unknown_discount_factor_is_an_error():
    quotes = {
        name: value[18:21]
        for name, value in pairs(size=201).items()
        if name != "time_to_expiry"
    }
    with pytest.raises(QuoteError, match="do not tell the discount factor"):
        forward_from_parity(**quotes)


def test_too_few_pairs_are_an_error():
    quotes = {
        name: value if name == "time_to_expiry" else value[20:21]
        for name, value in pairs().items()
    }
    with pytest.raises(QuoteError, match=r"too few strikes .* \(1\)"):
        forward_from_parity(**quotes)
    one = forward_from_parity(**quotes, discount_factor=DISCOUNT)
    assert one.forward == pytest.approx(FORWARD, abs=1e-9)


def test_prices_in_another_unit_than_strikes_are_an_error():
    quotes = {
        name: value if name in ("time_to_expiry", "strike") else value / FORWARD
        for name, value in pairs().items()
    }
    with pytest.raises(QuoteError, match="prices and strikes are in one unit"):
        forward_from_parity(**quotes)


def test_swapped_calls_and_puts_are_an_error():
    quotes = pairs()
    swapped = {
        "strike": quotes["strike"],
        "call_bid": quotes["put_bid"],
        "call_ask": quotes["put_ask"],
        "put_bid": quotes["call_bid"],
        "put_ask": quotes["call_ask"],
    }
    with pytest.raises(QuoteError, match="option types"):
        forward_from_parity(**swapped, time_to_expiry=YEARS)


def test_repr_shows_the_estimate_with_its_errors():
    text = repr(forward_from_parity(**pairs()))
    assert text.startswith("ParityEstimate(forward=10")
    assert "pairs=41" in text

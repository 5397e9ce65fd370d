"""Portfolios learned from values: exact where they can be, bounds on a Bermudan put."""

import numpy as np
import pytest

from relu_options import payoffs
from relu_options.replication.bermudan import bermudan_hedge
from relu_options.replication.learning import fit_payoff


def test_a_network_is_learned_back_from_its_values(rng):
    """Kinks between the candidates are found by the gradient."""
    truth = 3.0 - 0.5 * payoffs.forward() + 1.5 * payoffs.call(93.21)
    truth = truth - 2.0 * payoffs.call(104.57)
    spots = rng.uniform(70.0, 130.0, 800)
    fit = fit_payoff(spots, truth(spots), max_legs=2)
    np.testing.assert_allclose(fit.payoff.strikes, [93.21, 104.57], atol=1e-2)
    np.testing.assert_allclose(fit.payoff.weights, [1.5, -2.0], atol=2e-3)
    assert fit.rms_error < 0.01 * truth(spots).std()


def test_listed_strikes_are_kept(rng):
    spots = rng.uniform(70.0, 130.0, 500)
    listed = np.arange(75.0, 130.0, 5.0)
    noise = rng.normal(scale=0.5, size=500)
    values = np.abs(spots - 100.0) + noise
    fit = fit_payoff(spots, values, max_legs=1, strikes=listed)
    assert fit.payoff.strikes.tolist() == [100.0]
    assert fit.payoff.weights[0] == pytest.approx(2.0, abs=0.05)
    assert fit.rms_error == pytest.approx(0.5, rel=0.1)
    assert fit.lower_bound <= fit.rms_error * (1 + 1e-9)


def binomial_price(spot, strike, rate, volatility, years, dates, steps):
    """Bermudan put on a tree with exercise at evenly spaced dates."""
    step = years / steps
    up = np.exp(volatility * np.sqrt(step))
    odds = (np.exp(rate * step) - 1 / up) / (up - 1 / up)
    spots = spot * up ** (2.0 * np.arange(steps + 1) - steps)
    value = np.maximum(strike - spots, 0.0)
    for left in range(steps - 1, -1, -1):
        value = odds * value[1:] + (1 - odds) * value[:-1]
        value *= np.exp(-rate * step)
        spots = spots[:-1] * up
        if left % (steps // dates) == 0 and left > 0:
            value = np.maximum(value, strike - spots)
    return value[0]


def test_bermudan_put_is_between_its_bounds():
    """The put of Longstaff and Schwartz (2001), with ten exercise dates."""
    reference = np.mean(
        [binomial_price(36.0, 40.0, 0.06, 0.2, 1.0, 10, n) for n in (2000, 2010)]
    )
    hedge = bermudan_hedge(
        payoffs.put(40.0),
        np.linspace(0.1, 1.0, 10),
        spot=36.0,
        volatility=0.2,
        rate=0.06,
        max_legs=8,
        paths=8000,
    )
    assert hedge.price == pytest.approx(reference, rel=1e-3)
    assert hedge.lower - 4 * hedge.lower_error <= reference
    assert reference <= hedge.upper + 4 * hedge.upper_error
    assert hedge.upper - hedge.lower < 0.005 * reference
    assert all(len(payoff.strikes) <= 8 for payoff in hedge.payoffs)


def test_bad_requests_are_named():
    with pytest.raises(ValueError, match="have shapes"):
        fit_payoff([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="three different spots"):
        fit_payoff([1.0, 1.0, 2.0], [1.0, 1.0, 2.0])
    with pytest.raises(ValueError, match="no candidate strike"):
        fit_payoff([1.0, 2.0, 3.0], [1.0, 1.0, 2.0], strikes=[5.0])
    with pytest.raises(ValueError, match="max_legs must be positive"):
        fit_payoff([1.0, 2.0, 3.0], [1.0, 1.0, 2.0], max_legs=0)
    with pytest.raises(ValueError, match="dates increase"):
        bermudan_hedge(payoffs.put(1.0), [1.0, 0.5], spot=1.0, volatility=0.2)
    with pytest.raises(ValueError, match="must be positive"):
        bermudan_hedge(payoffs.put(1.0), [1.0], spot=1.0, volatility=0.0)

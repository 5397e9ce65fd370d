"""Where kinks stand, how much is smoothed, and what the quotes choose."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from random_smiles import Law
from scipy.optimize import nnls
from scipy.signal import find_peaks
from scipy.special import ndtri
from scipy.stats import norm

import relu_options as ro
from relu_options.fitting.coupled import (
    coupled_program,
    fit_apart,
    fit_together,
)
from relu_options.fitting.grid import by_distance, by_score, kinks_by_distance, scores
from relu_options.fitting.kernels import LOGNORMAL
from relu_options.fitting.objective import Objective
from relu_options.fitting.quotes import Smile, normalise
from relu_options.fitting.smooth import rough, solve_mids
from relu_options.fitting.smoothing import Response
from relu_options.simulation import BatesModel

# A month after a crash: a narrow peak right of the forward, a long tail to the left.
CRASH = Law(
    np.array([0.72, 0.2, 0.08]),
    np.array([0.5, -1.6, -4.8]),
    np.array([0.6, 1.4, 3.2]),
)
TWO_MODES = Law(np.ones(2) / 2.0, np.array([-1.0, 1.0]), np.array([0.4, 0.4]))
DEVIATION, TIME = 0.06, 30.0 / 365.0


def volatilities(law: Law, strike: np.ndarray, deviation: float) -> np.ndarray:
    """Of a law, forward 1."""
    is_call = strike >= 1.0
    return np.asarray(
        ro.black_scholes.implied_volatility(
            price=law.price(strike, is_call, deviation),
            forward=1.0,
            strike=strike,
            time_to_expiry=TIME,
            is_call=is_call,
        )
    )


def fit(
    strike: np.ndarray, volatility: np.ndarray, time: float = TIME
) -> ro.PriceCurve:
    """A curve of volatilities, forward 1."""
    table = pd.DataFrame({"strike": strike, "implied_volatility": volatility})
    return ro.fit_curve(table, forward=1.0, discount_factor=1.0, time_to_expiry=time)


def test_a_peak_beside_a_long_tail_is_met_by_the_ruler_of_its_scores(rng):
    strike = np.linspace(0.55, 1.12, 75)
    exact = volatilities(CRASH, strike, DEVIATION)
    noise = 6e-4 * rng.standard_normal(75)
    curve = fit(strike, exact + noise)
    assert curve.volatility_error < 12e-4
    assert np.sqrt(np.mean((curve.implied_volatility(strike) - exact) ** 2)) < 6e-4
    at = np.linspace(0.55, 1.12, 2000)
    density = np.asarray(curve.density(at)) * at
    assert len(find_peaks(density, prominence=0.01 * density.max())[0]) <= 6
    kept = np.arange(75) % 2 == 0
    half = fit(strike[kept], (exact + noise)[kept])
    out = half.implied_volatility(strike[~kept]) - (exact + noise)[~kept]
    assert np.sqrt(np.mean(out**2)) < 16e-4
    assert curve.certificate


@pytest.mark.parametrize("count", [13, 33, 101])
@pytest.mark.parametrize("law", [CRASH, TWO_MODES])
def test_exact_smiles_are_met(law, count):
    """There is no noise to average: within half a basis point."""
    strike = np.exp(DEVIATION * np.linspace(-2.5, 2.0, count))
    curve = fit(strike, volatilities(law, strike, DEVIATION))
    assert curve.volatility_error < 0.5e-4


def test_smiles_of_a_model_and_five_pillars_are_met():
    model = BatesModel(0.04, 0.05, 2.0, 0.5, -0.7, 0.5, -0.1, 0.1)
    for time in (0.05, 0.25, 1.0, 3.0):
        strike = np.exp(0.2 * np.sqrt(time) * np.linspace(-4.0, 3.0, 41))
        is_call = strike >= 1.0
        price = model.price(strike, forward=1.0, time_to_expiry=time, is_call=is_call)
        volatility = ro.black_scholes.implied_volatility(
            price=price,
            forward=1.0,
            strike=strike,
            time_to_expiry=time,
            is_call=is_call,
        )
        assert fit(strike, np.asarray(volatility), time).volatility_error < 0.5e-4
    pillars = np.array([0.31, 0.27, 0.25, 0.25, 0.27])
    deltas = norm.ppf([0.9, 0.75, 0.5, 0.25, 0.1])
    strike = np.exp(-deltas * pillars + 0.5 * pillars**2)
    assert fit(strike, pillars, 1.0).volatility_error < 1e-6


@pytest.mark.parametrize("smoothing", [1e-4, 0.01, 100.0])
@pytest.mark.parametrize("spread", [None, 0.02])
def test_a_smoothing_that_is_asked_for_is_the_one_that_is_used(smoothing, spread):
    """However far from what would be chosen, with spreads and without."""
    strike = np.exp(DEVIATION * np.linspace(-2.5, 2.0, 25))
    quoted = volatilities(CRASH, strike, DEVIATION)
    table = pd.DataFrame({"strike": strike, "implied_volatility": quoted})
    if spread is not None:
        is_call = strike >= 1.0
        mid = CRASH.price(strike, is_call, DEVIATION)
        half = spread * mid
        table = pd.DataFrame(
            {"strike": strike, "is_call": is_call, "bid": mid - half, "ask": mid + half}
        )
    terms: dict[str, Any] = {"forward": 1.0, "discount_factor": 1.0}
    terms["time_to_expiry"] = TIME
    curve = ro.fit_curve(table, smoothing=smoothing, **terms)
    assert curve.fit is not None
    assert curve.fit.smoothing == pytest.approx(smoothing)
    surface = ro.fit_surface([ro.prepare_quotes(table, **terms)], smoothing=smoothing)
    assert surface.fit is not None
    assert surface.fit.curves[0].smoothing == pytest.approx(smoothing)


def test_the_score_of_a_lognormal_is_its_deviation():
    """Of a law that is normal in `x` the two rulers are one."""
    deviation = 0.2
    at = np.linspace(-3.0, 3.0, 25) * deviation
    smile = Smile(at, np.full(25, deviation), deviation, -1.2, 1.2)
    x, bandwidths = kinks_by_distance(64, low=-1.2, high=1.2, narrowest=0.025)
    narrow = np.sqrt(deviation**2 - bandwidths.min() ** 2)
    weights = norm.pdf(x / narrow) * np.gradient(x)
    weights /= weights.sum()
    _, rate, score = scores(x, bandwidths, weights, smile, LOGNORMAL)
    inner = np.abs(x) < 2.5 * deviation
    np.testing.assert_allclose(rate[inner] * deviation, 1.0, atol=0.06)
    np.testing.assert_allclose(score[inner], x[inner] / deviation, atol=0.1)
    below = (norm.cdf((x[:, None] - x) / bandwidths) @ weights)[inner]
    np.testing.assert_allclose(score[inner], ndtri(below), atol=0.1)


def test_kinks_by_score_reach_from_end_to_end_and_leave_no_ripple(rng):
    for _ in range(20):
        x, bandwidths = kinks_by_distance(64, low=-0.5, high=0.3, narrowest=0.006)
        weights = rng.dirichlet(np.full(64, 0.3))
        at = np.array([-0.4, 0.0, 0.25])
        smile = Smile(at, np.array([0.09, 0.05, 0.07]), 0.05, -0.5, 0.3)
        grid = by_distance(x, bandwidths, smile)
        score = by_score(grid, weights, smile, LOGNORMAL)
        np.testing.assert_allclose(score.x[[0, -1]], x[[0, -1]], rtol=1e-9)
        assert (np.diff(score.x) > 0.0).all()
        wider = np.maximum(score.bandwidths[1:], score.bandwidths[:-1])
        assert (np.diff(score.x) <= 2.0 * 1.5 * wider).all()
        assert np.isfinite(score.roughness).all()


def test_the_degrees_of_freedom_are_those_of_the_fit():
    """The trace of what data do to fitted values, against another solver's."""
    strike = np.exp(DEVIATION * np.linspace(-3.0, 2.0, 25))
    table = pd.DataFrame({"strike": strike, "implied_volatility": 0.2})
    quotes = ro.prepare_quotes(
        table, forward=1.0, discount_factor=1.0, time_to_expiry=TIME
    )
    (normalised,) = normalise([quotes])
    smile = Smile.of(normalised)
    kinks = kinks_by_distance(
        64, low=smile.low, high=smile.high, narrowest=0.125 * smile.at_the_money
    )
    objective = Objective.of(normalised, by_distance(*kinks, smile), smile.at_the_money)
    trial = rough(objective, np.nan)
    answer = solve_mids(trial, 1e-10)
    weights, springs = answer.weights, answer.duals / answer.weights
    response = Response(objective, weights, springs, trial.smoothing)
    freedom = np.trace(response.influence(response.root(trial.smoothing)))
    rows = np.vstack(
        [
            objective.design,
            trial.smoothing * objective.grid.roughness,
            1e5 * objective.equality,
        ]
    )
    size = np.linalg.norm(rows, axis=0)

    def fitted(data: np.ndarray) -> np.ndarray:
        target = np.concatenate([data, np.zeros(61), [1e5, 0.0]])
        return objective.design @ (nnls(rows / size, target, maxiter=9000)[0] / size)

    trace, step = 0.0, 0.05
    for place in range(25):
        up, down = objective.data.copy(), objective.data.copy()
        up[place] += step
        down[place] -= step
        trace += (fitted(up) - fitted(down))[place] / (2.0 * step)
    assert freedom == pytest.approx(trace, rel=0.1)


def test_bounds_in_chunks_are_all_bounds(rng):
    """Those that are left out do not bind: the objective is that of all."""
    chain = ro.bundled_chain()
    shaken = []
    for one in chain.slices[:4]:
        quotes = ro.prepare_quotes(chain[one])
        mid = quotes.mid * (1.0 + 0.02 * rng.standard_normal(len(quotes)))
        table = pd.DataFrame(
            {
                "strike": quotes.strike,
                "option_type": np.where(quotes.is_call, "call", "put"),
                "bid": np.maximum(mid - 0.2, 0.0),
                "ask": np.maximum(mid - 0.2, 0.0) + 0.4,
            }
        )
        shaken.append(
            ro.prepare_quotes(
                table,
                forward=quotes.forward,
                discount_factor=quotes.discount_factor,
                time_to_expiry=quotes.time_to_expiry,
            )
        )
    quotes = normalise(shaken)
    smiles = list(map(Smile.of, quotes))
    trials = fit_apart(quotes, smiles, smoothing=np.nan, narrowest=0.125, n=80)
    some = fit_together(trials, tolerance=1e-8)
    outside = [
        np.sum(one.excess(fitted) > 0.0)
        for one, fitted in zip(quotes, some.fitted, strict=True)
    ]
    assert max(outside) > 10
    full = np.array([-(-len(one) // 48) for one in quotes])
    data, bounded = coupled_program(trials, some.weights, full)
    assert list(map(len, bounded)) == list(map(len, quotes))
    assert data["owner"][: full.sum()].tolist() == np.repeat(range(4), full).tolist()
    value = some.values.sum()
    for trial, row in zip(trials, some.weights, strict=True):
        objective = trial.objective
        excess = np.maximum(objective.quotes.excess(objective.fitted(row)), 0.0)
        residual = objective.residual(row)
        value -= 0.5 * residual @ residual
        value -= 0.5 * trial.smoothing**2 * objective.penalty(row)
        value -= 1e4 * np.sum(excess / objective.quotes.tolerance)
    # A price just inside its spread is charged up to the margin.
    total = sum(len(one) for one in quotes)
    assert -1e-6 * some.values.sum() < value < 1e4 * 1e-3 * total

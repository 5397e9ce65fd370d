"""Hedges with listed strikes: bounds that hold, duals that reprice, known optima."""

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from real_quotes import spx
from scipy.optimize import linprog

import relu_options as ro
from relu_options import payoffs
from relu_options.errors import ArbitrageError, FitError
from relu_options.replication import least_largest_error
from relu_options.replication.domination import explain, programme_of
from relu_options.replication.few_strikes import best_strikes
from relu_options.replication.instruments import Instruments
from relu_options.replication.lots import _Lots, dominate_in_lots
from relu_options.replication.pieces import MOST_BREAKS, Regression, least_error_bound
from relu_options.replication.quadratic import penalised_regression
from relu_options.replication.spot_law import SpotLaw

SMOOTH = {
    "log": 2.0 * payoffs.log_contract(1.0),
    "square": payoffs.power(2.0),
    "root": payoffs.power(0.5),
    "power": payoffs.power(1.5),
}


@pytest.fixture(scope="module")
def flat():
    return ro.BlackScholesCurve(volatility=0.2, forward=1.0, time_to_expiry=1.0)


@pytest.fixture(scope="module")
def quotes():
    chain = ro.bundled_chain()
    return ro.prepare_quotes(chain[chain.slices[4]])


@pytest.fixture(scope="module")
def curve(quotes):
    return ro.fit_curve(quotes)


def regression_error(law: SpotLaw, values: np.ndarray, strikes: np.ndarray) -> float:
    """Squared error of the regression on calls, by an orthogonal factorisation."""
    root = np.sqrt(law.probabilities)[:, None]
    calls = np.maximum(law.spots[:, None] - strikes, 0.0)
    design = np.column_stack([np.ones_like(law.spots), law.spots, calls]) * root
    solution = np.linalg.lstsq(design, values * root[:, 0], rcond=None)[0]
    return float(np.sum((values * root[:, 0] - design @ solution) ** 2))


def test_law_has_the_moments_of_the_curve(curve):
    law = SpotLaw.of(curve, np.array([4800.0, 5000.0]))
    moments = curve.moments()
    assert law.probabilities.sum() == pytest.approx(1.0, abs=1e-12)
    mean = law.probabilities @ law.spots
    assert mean == pytest.approx(curve.forward, rel=1e-12)
    variance = law.probabilities @ (law.spots - mean) ** 2
    assert variance == pytest.approx(moments["variance"], rel=1e-10)
    strike = 5000.0
    call = law.probabilities @ np.maximum(law.spots - strike, 0.0)
    expected = curve.price(strike) / curve.discount_factor
    assert call == pytest.approx(expected, rel=1e-11)


def test_no_choice_of_strikes_is_below_the_bound(flat, rng):
    """All choices of 1 to 6 of 8 strikes, for smooth and for kinked payoffs."""
    strikes = np.linspace(0.7, 1.4, 8)
    law = SpotLaw.of(flat, strikes)
    kinked = payoffs.from_points(np.sort(rng.uniform(0.6, 1.5, 8)), rng.normal(size=8))
    for payoff in (*SMOOTH.values(), kinked):
        values = payoff(law.spots)
        regression = Regression.of(law, values, strikes)
        for count in (1, 2, 3, 4, 5, 6):
            every = itertools.combinations(range(8), count)
            least = min(
                regression_error(law, values, strikes[list(one)]) for one in every
            )
            chosen, bound = best_strikes(regression, count)
            error = regression_error(law, values, strikes[chosen])
            assert bound <= least * (1.0 + 1e-6) + 1e-14
            assert least <= error * (1.0 + 1e-9)
            if payoff is not kinked:
                assert error <= least * 1.02


@pytest.mark.parametrize("name", SMOOTH)
def test_few_strikes_are_near_their_bound(name, flat):
    """111 listed strikes: within 0.2 % for up to 8, within 5 % for 16."""
    strikes = np.round(np.arange(0.50, 1.6001, 0.01), 2)
    for count, most in [(4, 0.002), (8, 0.002), (16, 0.05)]:
        hedge = ro.replicate(SMOOTH[name], flat, strikes=strikes, max_legs=count)
        assert len(hedge.portfolio) == count
        assert 0.0 <= hedge.gap <= most
        law = SpotLaw.of(flat, strikes)
        error = np.sqrt(
            regression_error(law, SMOOTH[name](law.spots), hedge.portfolio.strikes)
        )
        assert hedge.rms_error == pytest.approx(error, rel=1e-8)


def test_bound_agrees_with_the_published_experiment():
    """Log contract on 4000 midpoint quantiles: 4.112e-3 with four strikes."""
    from scipy.stats import norm

    share = (np.arange(4000) + 0.5) / 4000
    spots = np.exp(0.2 * norm.ppf(share) - 0.02)
    law = SpotLaw(spots, np.full(4000, 1 / 4000))
    strikes = np.round(np.arange(0.50, 1.6001, 0.01), 2)
    regression = Regression.of(law, SMOOTH["log"](spots), strikes)
    for count, published in [(4, 4.112e-3), (6, 2.197e-3), (8, 1.355e-3)]:
        bound, _ = least_error_bound(regression, count)
        assert np.sqrt(bound) == pytest.approx(published, rel=5e-4)


@pytest.mark.parametrize("count", [5, 9, 13])
def test_least_largest_error_tends_to_its_limit(count):
    """The square of the integral of sqrt(f'') over 16 n^2, for n segments."""
    contract = SMOOTH["log"]
    strikes = np.geomspace(0.5, 1.6, 12 * count + 1)
    error, breaks = least_largest_error(contract, strikes, count - 1)
    limit = 2.0 * np.log(1.6 / 0.5) ** 2 / (16.0 * count**2)
    assert error == pytest.approx(limit, rel=0.01)
    assert len(breaks) == count + 1
    chords = contract.piecewise_linear(strikes[breaks]) - error
    spots = np.linspace(0.5, 1.6, 20001)
    largest = np.abs(contract(spots) - chords(spots)).max()
    assert largest == pytest.approx(error, rel=1e-4)


def test_quadratic_hedge_of_a_listed_payoff_is_the_payoff(curve):
    strikes = np.array([4500.0, 4800.0, 5000.0, 5200.0])
    condor = payoffs.condor(*strikes)
    hedge = ro.replicate(condor, curve, strikes=strikes)
    assert hedge.rms_error < 1e-9
    assert hedge.gap == 0.0
    spots = np.linspace(3000.0, 7000.0, 401)
    np.testing.assert_allclose(hedge.portfolio.error(spots), 0.0, atol=1e-7)


def test_cost_weight_leaves_out_what_is_not_worth_its_spread(quotes, curve):
    contract = 1e4 * payoffs.log_contract(quotes.forward)
    free = ro.replicate(contract, quotes, curve=curve)
    costly = ro.replicate(contract, quotes, curve=curve, cost_weight=30.0)
    assert len(costly.portfolio) < len(free.portfolio)
    assert costly.rms_error > free.rms_error

    def spread(hedge):
        return hedge.portfolio.cost("ask") - hedge.portfolio.cost("mid")

    assert spread(costly) < spread(free)


def test_penalised_regression_meets_its_optimality_conditions(rng):
    design = rng.normal(size=(60, 25))
    gram, moments = design.T @ design, design.T @ rng.normal(size=60)
    penalty = rng.uniform(0.0, 8.0, 25)
    x = penalised_regression(gram, moments, penalty)
    slope = gram @ x - moments
    held = x != 0.0
    np.testing.assert_allclose(
        slope[held], -penalty[held] * np.sign(x[held]), atol=1e-8
    )
    assert (np.abs(slope[~held]) <= penalty[~held] + 1e-8).all()
    assert 0 < held.sum() < 25


def test_pruning_without_loss(rng):
    strikes = np.arange(50.0, 151.0, 10.0)
    payoff = payoffs.Payoff(1.0, 0.5, strikes, rng.normal(size=11))
    spots = rng.uniform(75.0, 118.0, 300)
    left = ro.prune(payoff, spots)
    assert left.strikes.tolist() == [80.0, 90.0, 100.0, 110.0]
    np.testing.assert_allclose(left(spots), payoff(spots), atol=1e-11)


def test_activation_rate_is_a_poor_guide_to_hedges(flat):
    """With eight strikes its error is more than ten times that of the best."""
    strikes = np.round(np.arange(0.50, 1.6001, 0.01), 2)
    strip = SMOOTH["log"].piecewise_linear(
        np.append(strikes, [0.49, 1.61]).tolist()[:-2]
    )
    quantiles = flat.quantile((np.arange(2000) + 0.5) / 2000)

    def error(rule):
        left = ro.prune(strip, quantiles, max_legs=8, rule=rule)
        assert len(left.strikes) <= 8
        return np.sqrt(np.mean((left(quantiles) - strip(quantiles)) ** 2))

    best = error("best")
    assert best <= error("greedy") <= 3.0 * best
    assert best <= error("l1")
    assert error("activation_rate") > 10.0 * best


def listed_payoffs(forward: float) -> dict[str, Any]:
    """Twenty kinds, most of them with kinks between listed strikes."""
    k = forward * np.array([0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.2]) + 0.3
    return {
        "call": payoffs.call(k[4]),
        "put": payoffs.put(k[2]),
        "forward": payoffs.forward(forward),
        "cash": payoffs.cash(7.0),
        "call_spread": payoffs.call_spread(k[3], k[5]),
        "put_spread": payoffs.put_spread(k[1], k[3]),
        "straddle": payoffs.straddle(k[3]),
        "strangle": payoffs.strangle(k[2], k[4]),
        "butterfly": payoffs.butterfly(k[2], k[3], k[4]),
        "condor": payoffs.condor(*k[1:5]),
        "iron_condor": payoffs.iron_condor(*k[1:5]),
        "risk_reversal": payoffs.risk_reversal(k[2], k[4]),
        "collar": payoffs.collar(k[2], k[4]),
        "ratio_spread": payoffs.ratio_spread(k[3], k[5]),
        "participation": payoffs.participation(k[3], rate=0.7, floor=0.9 * forward),
        "note": payoffs.note(floor=k[1], cap=k[5]),
        "digital": payoffs.digital(k[3], width=10.0),
        "capped": payoffs.capped(payoffs.straddle(k[3]), 200.0),
        "root": forward * payoffs.power(0.5, reference=forward),
        "log": 2.0 * forward * payoffs.log_contract(forward),
    }


def check_interval(payoff, quotes, curve) -> None:
    """Domination, the dual measures, and the order of the costs."""
    smooth = not isinstance(payoff, payoffs.Payoff)
    inside = (0.5 * quotes.forward, 1.5 * quotes.forward)
    request: dict[str, Any] = {"spots": inside} if smooth else {}
    above = ro.replicate(payoff, quotes, method="super", **request)
    below = ro.replicate(payoff, quotes, method="sub", **request)
    if smooth:
        fair = curve.discount_factor * curve.expectation(payoff)
    else:
        fair = ro.decompose(payoff).price(curve)
    slack = 1e-9 * quotes.forward
    assert below.cost - slack <= fair <= above.cost + slack
    spots = np.linspace(*(inside if smooth else (0.0, 5.0 * quotes.forward)), 100_001)
    assert above.portfolio.error(spots).min() >= -1e-11 * quotes.forward
    assert below.portfolio.error(spots).max() <= 1e-11 * quotes.forward
    for hedge in (above, below):
        masses, states = hedge.measure["probability"], hedge.measure["spot"]
        assert masses.sum() == pytest.approx(1.0, abs=1e-10)
        mean = float(masses @ states) + hedge.at_infinity
        assert mean == pytest.approx(quotes.forward, rel=1e-10)
        usable = (quotes.strike > hedge.spots[0]) & (quotes.strike < hedge.spots[1])
        price = hedge.reprice(quotes.strike, quotes.is_call)
        assert (price >= quotes.bid - 1e-8)[usable].all()
        assert (price <= quotes.ask + 1e-8)[usable].all()
        # The payoff under the measure is worth the cost: the programme has no gap.
        if not smooth:
            worth = float(masses @ payoff(states.to_numpy()))
            worth += float(payoff.right_slope) * hedge.at_infinity
            expected = quotes.discount_factor * worth
            assert hedge.cost == pytest.approx(expected, abs=1e-8 * quotes.forward)
    if not smooth:
        assert above.portfolio.payoff().right_slope >= payoff.right_slope
        assert below.portfolio.payoff().right_slope <= payoff.right_slope


@pytest.mark.parametrize("name", list(listed_payoffs(1.0)))
def test_interval_of_prices_on_the_bundled_chain(name, quotes, curve):
    check_interval(listed_payoffs(quotes.forward)[name], quotes, curve)


def test_intervals_of_prices_on_real_quotes():
    chain = spx(2019)
    quotes = ro.prepare_quotes(chain["2019-06-21", "PM"])
    curve = ro.fit_curve(quotes)
    for payoff in listed_payoffs(quotes.forward).values():
        check_interval(payoff, quotes, curve)


def test_a_listed_option_costs_its_ask_and_brings_its_bid(quotes):
    row = int(np.argsort(quotes.strike)[40])
    option = (payoffs.call if quotes.is_call[row] else payoffs.put)(quotes.strike[row])
    low, high = ro.price_interval(option, quotes)
    assert high <= quotes.ask[row] + 1e-8
    assert low >= quotes.bid[row] - 1e-8


def test_whole_lots(quotes):
    strikes = np.sort(quotes.strike)[::6]
    payoff = 250.0 * payoffs.straddle(float(strikes[len(strikes) // 2]) + 7.0)
    free = ro.replicate(payoff, quotes, method="super", strikes=strikes)
    terms = ro.LotTerms(multiplier=100.0, fee=1.0, ticket=5.0)
    hedge = ro.replicate(payoff, quotes, method="super", strikes=strikes, lots=terms)
    contracts = hedge.portfolio.quantities
    np.testing.assert_array_equal(contracts, np.round(contracts))
    assert hedge.cost >= hedge.best_possible - 1e-6 * hedge.cost
    assert hedge.best_possible >= free.cost - 1e-6 * free.cost
    assert hedge.gap <= 1e-4 * hedge.cost
    assert hedge.fees == np.abs(contracts).sum() + 5.0 * len(contracts)
    spots = np.linspace(0.0, 3.0 * quotes.forward, 20001)
    assert hedge.portfolio.error(spots).min() >= -1e-9 * quotes.forward
    below = ro.replicate(
        payoff, quotes, method="sub", strikes=strikes, lots=terms, max_legs=2
    )
    assert len(below.portfolio) <= 2
    assert below.portfolio.error(spots).max() <= 1e-9 * quotes.forward
    assert below.cost < hedge.cost


def cheapest_by_enumeration(payoff, instruments, terms, side, max_legs, forwards):
    """Least cost of any hedge: a linear programme for every choice of sides and lots.

    Cash, forward and the quantities of one choice of sides are its unknowns.
    """
    sign = 1.0 if side == "super" else -1.0
    strikes, is_call = instruments.strikes, instruments.is_call
    spots = np.unique(np.concatenate([[0.0], strikes, payoff.strikes]))
    worth = np.where(is_call, 1.0, -1.0) * (spots[:, None] - strikes)
    rise = np.append(np.maximum(worth, 0.0), is_call[None] * 1.0, axis=0)
    base = np.column_stack([np.append(np.ones(len(spots)), 0.0), np.append(spots, 1.0)])
    target = sign * np.append(payoff(spots), payoff.right_slope)
    line = [(None, None), (None, None) if forwards else (0.0, 0.0)]
    forward = np.array([1.0, instruments.forward])
    unit = terms.multiplier
    best = np.inf
    sizes = [s for s in range(1, int(terms.max_size) + 1) if s >= terms.min_size]
    choices = [-1.0, 0.0, 1.0]
    if terms.whole:
        choices = [0.0, *sizes, *(-float(size) for size in sizes)]
    for chosen in itertools.product(choices, repeat=len(strikes)):
        chosen = np.array(chosen)
        legs = np.count_nonzero(chosen)
        if max_legs is not None and legs > max_legs:
            continue
        ends = np.stack([terms.min_size * chosen, terms.max_size * chosen])
        ends = np.stack([chosen, chosen]) if terms.whole else np.sort(ends, axis=0)
        price = np.where(chosen > 0.0, instruments.ask, instruments.bid)
        cost = unit * price + terms.fee * np.sign(chosen)
        result = linprog(
            np.append(instruments.discount_factor * forward, cost),
            A_ub=-np.column_stack([base, unit * rise]),
            b_ub=-target,
            bounds=[*line, *ends.T],
        )
        if result.status == 0:
            best = min(best, result.fun + terms.ticket * legs)
    return sign * best


def test_hedges_in_lots_are_the_cheapest_of_all(rng):
    """Every side and size of two or three options, with fees, tickets and least sizes.

    Half of the options cost nothing to buy and sell, where both at once would tempt.
    """
    for draw in range(24):
        count = 2 if draw % 3 else 3
        strikes = np.sort(rng.choice(np.arange(80.0, 125.0, 5.0), count, replace=False))
        is_call = strikes >= 101.0
        sign = np.where(is_call, 1.0, -1.0)
        mid = 0.5 * (np.hypot(strikes - 101.0, 12.0) - sign * (strikes - 101.0))
        half = rng.choice([0.0, 0.2], count)
        instruments = Instruments(
            strikes, is_call, mid - half, mid + half, 101.0, 0.97, None
        )
        payoff = payoffs.from_points(
            np.sort(rng.uniform(70.0, 135.0, 3)), rng.normal(0.0, 20.0, 3)
        )
        least = float(rng.choice([0.0, 1.0, 2.0, 2.5]))
        terms = ro.LotTerms(
            multiplier=float(rng.choice([0.5, 1.0])),
            whole=bool(draw % 2),
            min_size=least,
            max_size=3.0,
            fee=float(rng.choice([0.0, 0.1])),
            ticket=float(rng.choice([0.0, 0.7])),
        )
        side = ("super", "sub")[draw // 2 % 2]
        max_legs = None if draw % 5 else 1
        forwards = bool(draw % 4)
        asked: dict[str, Any] = {"max_legs": max_legs, "trade_forward": forwards}
        expected = cheapest_by_enumeration(
            payoff, instruments, terms, side, max_legs, forwards
        )
        if not np.isfinite(expected):
            with pytest.raises(ValueError, match="no portfolio within the limits"):
                dominate_in_lots(payoff, instruments, side, terms, **asked)
            continue
        hedge = dominate_in_lots(payoff, instruments, side, terms, **asked)
        held = hedge.portfolio
        sizes = np.abs(held.quantities) * held.multiplier / terms.multiplier
        assert (sizes >= terms.min_size * (1.0 - 1e-12)).all(), (draw, sizes)
        assert (sizes <= 3.0 * (1.0 + 1e-12)).all()
        assert len(held) <= (max_legs or count)
        assert forwards or held.forwards == 0.0
        sign = 1.0 if side == "super" else -1.0
        assert (sign * held.error(np.linspace(0.0, 400.0, 4001))).min() > -1e-9
        assert hedge.cost == pytest.approx(expected, abs=1e-5), draw
        assert sign * (hedge.cost - hedge.best_possible) >= 0.0
        assert hedge.best_possible == pytest.approx(expected, abs=1e-5)


def test_quotes_with_an_arbitrage_are_named():
    table = pd.DataFrame(
        {
            "strike": [90.0, 100.0, 110.0, 120.0],
            "option_type": ["put", "call", "call", "call"],
            "bid": [2.0, 3.9, 4.5, 1.0],
            "ask": [2.1, 4.1, 4.7, 1.1],
        }
    )
    quotes = ro.prepare_quotes(
        table, forward=100.0, discount_factor=1.0, time_to_expiry=0.5
    )
    with pytest.raises(ArbitrageError, match="call_spread 100-110"):
        ro.replicate(payoffs.straddle(100.0), quotes, method="super")


def test_what_cannot_be_dominated_is_named(quotes):
    square, log = payoffs.power(2.0), payoffs.log_contract(quotes.forward)
    with pytest.raises(ValueError, match="slope of power 2 has no bound at high spots"):
        ro.replicate(square, quotes, method="super")
    ro.replicate(square, quotes, method="sub")
    with pytest.raises(ValueError, match="no upper bound as the spot falls to 0"):
        ro.replicate(log, quotes, method="super")
    ro.replicate(log, quotes, method="sub")
    with pytest.raises(ValueError, match=r"slope is 3 at high spots.*raise `max_quan"):
        ro.replicate(
            3.0 * payoffs.call(quotes.forward),
            quotes,
            method="super",
            max_quantity=0.001,
            trade_forward=False,
        )
    calls_only = ro.replicate(
        payoffs.call(quotes.forward), quotes, method="super", trade_forward=False
    )
    assert calls_only.portfolio.forwards == 0.0


def test_what_is_not_held_has_no_quantity_in_lots():
    """A put outside of the spots, which somebody bids for, is no money for nothing."""
    strikes = np.array([20.0, 90.0, 110.0])
    instruments = Instruments(
        strikes,
        strikes > 100.0,
        np.array([0.1, 3.0, 3.0]),
        np.array([0.2, 4.0, 4.0]),
        100.0,
        1.0,
        None,
    )
    programme = programme_of(payoffs.call(105.0), instruments, 50.0, 200.0)
    terms = ro.LotTerms(whole=False, max_size=3.0)
    lots = _Lots.of(programme, instruments, terms, 1.0, None)
    flags = np.ones(len(lots.cost))  # of all options, each bought and sold
    quantities = lots.settled(flags)[-6:].reshape(2, 3)
    np.testing.assert_array_equal(quantities[:, 0], 0.0)
    hedge = dominate_in_lots(
        payoffs.call(105.0), instruments, "super", terms, spots=(50.0, 200.0)
    )
    assert 20.0 not in hedge.portfolio.strikes


@pytest.mark.parametrize(
    ("status", "limited", "spots", "error", "message"),
    [
        (3, False, [0.98, np.inf], ArbitrageError, "contradict spots"),
        (4, False, [0.98, np.inf], ArbitrageError, "contradict spots.*is bid"),
        (4, False, [0.1, 5.0], FitError, "stopped with status 4"),
        (3, False, [0.1, 5.0], ArbitrageError, "contradict spots"),
        (4, True, [0.98, np.inf], ValueError, "within the limits"),
        (3, False, [0, np.inf], FitError, "stopped with status 3"),
    ],
)
def test_a_programme_without_a_solution_is_an_arbitrage_only_if_proved(
    quotes, status, limited, spots, error, message
):
    instruments = Instruments.of(quotes, None)
    bounds: Any = [one * quotes.forward for one in spots]  # a list, as of JSON
    result = SimpleNamespace(status=status, message="as HiGHS has it")
    with pytest.raises(error, match=message):
        explain(result, payoffs.call(100.0), instruments, "super", limited, bounds)


def test_spots_that_the_quotes_contradict_are_named(quotes):
    straddle = payoffs.straddle(quotes.forward)
    for spots in ((0.0, 1.02), (0.98, np.inf), (0.95, 1.1)):
        low, high = (quotes.forward * one for one in spots)
        with pytest.raises(ArbitrageError, match=r"contradict spots from .*is bid"):
            ro.replicate(straddle, quotes, method="super", spots=(low, high))
    wide = (0.1 * quotes.forward, 5.0 * quotes.forward)
    assert ro.replicate(straddle, quotes, method="super", spots=wide).cost > 0.0


def test_bad_requests_are_named(quotes, flat):
    call = payoffs.call(quotes.forward)
    requests: list[tuple[dict[str, Any], str]] = [
        ({"method": "exact"}, "method must be one of"),
        ({"max_legs": 0}, "max_legs must be positive"),
        ({"strikes": [1.0]}, "1 of 1 strikes are not quoted: 1"),
        ({"strikes": []}, "needs listed strikes"),
        ({"max_quantity": 1.0}, "are for methods 'super' and 'sub'"),
        ({"method": "super", "cost_weight": 1.0}, "are for the method 'quadratic'"),
        ({"method": "super", "spots": (9e9, 1e10)}, "spots must go from"),
    ]
    for request, message in requests:
        with pytest.raises(ValueError, match=message):
            ro.replicate(call, quotes, **request)
    with pytest.raises(ValueError, match="pass `strikes=`"):
        ro.replicate(payoffs.call(1.0), flat)
    listed = np.linspace(0.5, 1.5, 100)
    with pytest.raises(ValueError, match=f"1 to {MOST_BREAKS}"):
        ro.replicate(SMOOTH["log"], flat, strikes=listed, max_legs=80)
    with pytest.raises(ValueError, match="must not be negative"):
        ro.LotTerms(fee=-1.0)
    with pytest.raises(ValueError, match="rule must be one of"):
        ro.prune(call, [1.0], rule="luck")  # type: ignore[arg-type]
    instruments = Instruments.of(flat, [0.9, 1.1])
    assert instruments.is_call.tolist() == [False, True]

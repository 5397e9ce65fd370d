"""Underlyings that may be negative: oil in April 2020, rates, spreads."""

import json
from dataclasses import replace
from fractions import Fraction
from typing import Any

import jax
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from random_normals import NormalMixture
from scipy.integrate import quad
from scipy.optimize import linprog

import relu_options as ro
from relu_options.arbitrage import (
    bound_violations,
    check_quote_arbitrage,
    least_excess,
    static_arbitrage_violations,
)
from relu_options.errors import ArbitrageError, QuoteError

YEARS, DISCOUNT = 0.1, 0.99
OIL = NormalMixture(
    np.array([0.5, 0.3, 0.2]),
    np.array([-42.5, -42.5, -15.0]),
    np.array([8.0, 12.0, 25]),
)
OIL_STRIKES = np.arange(-60.0, 30.5, 2.5)


def fit(law: NormalMixture, strike: np.ndarray, **options: Any) -> ro.PriceCurve:
    """A curve of exact mids."""
    return ro.fit_curve(
        law.quotes(strike, discount_factor=DISCOUNT),
        forward=law.forward,
        discount_factor=DISCOUNT,
        time_to_expiry=YEARS,
        **options,
    )


def deviation(law: NormalMixture) -> float:
    return float(law.moments[1] ** 0.5)


@pytest.fixture(scope="module")
def oil() -> ro.PriceCurve:
    """Fitted to bids and asks, of which parity tells the forward."""
    quotes = OIL.quotes(OIL_STRIKES, discount_factor=DISCOUNT, spread=0.02)
    return ro.fit_curve(quotes, time_to_expiry=YEARS, discount_factor=DISCOUNT)


@pytest.mark.parametrize("seed", range(8))
def test_every_method_is_the_truth_of_a_random_mixture(seed):
    """To half a basis point of the deviation, whatever the unit and the sign."""
    rng = np.random.default_rng(seed)
    unit = 10.0 ** rng.uniform(-4.0, 2.0)
    forward = unit * rng.choice([-1.0, 0.0, 1.0]) * 10.0 ** rng.uniform(-1.0, 2.0)
    law = NormalMixture.draw(rng, forward, unit)
    unit, forward = deviation(law), law.forward
    strike = forward + unit * np.linspace(-3.0, 3.0, int(rng.integers(15, 45)))
    curve = fit(law, strike, kernel="normal")
    assert curve.kernel == "normal"
    assert curve.certificate

    at = forward + unit * np.linspace(-2.5, 2.5, 21)
    is_call = at >= forward
    scale = DISCOUNT * unit
    for side in (is_call, ~is_call):
        expected = DISCOUNT * law.price(at, side)
        np.testing.assert_allclose(curve.price(at, side), expected, atol=2e-5 * scale)
    true = ro.bachelier.implied_normal_volatility(
        price=law.price(at, is_call),
        forward=forward,
        strike=at,
        time_to_expiry=YEARS,
        is_call=is_call,
    )
    tolerance = 5e-5 * unit / YEARS**0.5
    np.testing.assert_allclose(curve.implied_volatility(at), true, atol=tolerance)
    assert curve.volatility_error < tolerance
    assert curve.least_error <= curve.volatility_error

    below = law.below(at)
    np.testing.assert_allclose(curve.distribution(at), below, atol=2e-4)
    np.testing.assert_allclose(curve.delta(at), DISCOUNT * (1.0 - below), atol=2e-4)
    np.testing.assert_allclose(curve.delta(at, False), -DISCOUNT * below, atol=2e-4)
    np.testing.assert_array_equal(curve.strike_delta(at), -curve.delta(at))
    np.testing.assert_allclose(
        unit * curve.density(at), unit * law.density(at), atol=2e-3
    )
    np.testing.assert_allclose(
        curve.gamma(at), DISCOUNT * curve.density(at), rtol=1e-12
    )
    np.testing.assert_allclose(law.below(curve.quantile(below)), below, atol=2e-4)
    mean, variance, skewness, kurtosis = curve.moments()
    assert mean == pytest.approx(forward, abs=1e-13 * np.abs(curve.network.kinks).max())
    assert variance == pytest.approx(law.moments[1], rel=5e-3)
    assert skewness == pytest.approx(law.moments[2], abs=0.05)
    assert kurtosis == pytest.approx(law.moments[3], rel=0.1)


def test_expectations_and_samples_are_those_of_the_density(oil):
    def smooth(spot):
        return np.cos(0.05 * spot)

    low, high = oil.quantile(1e-13), oil.quantile(1.0 - 1e-13)
    integral = quad(
        lambda spot: smooth(spot) * oil.density(spot), low, high, limit=400
    )[0]
    assert oil.expectation(smooth) == pytest.approx(integral, rel=1e-8)
    call = ro.payoffs.call(-40.0)
    assert oil.expectation(call) == pytest.approx(oil.price(-40.0) / DISCOUNT)
    portfolio = ro.decompose(ro.payoffs.straddle(-40.0))
    both = oil.price(-40.0) + oil.price(-40.0, is_call=False)
    assert portfolio.price(oil) == pytest.approx(both)
    draws = oil.sample(0, 40_000)
    assert draws.mean() == pytest.approx(oil.forward, abs=0.5)
    assert np.mean(draws <= -37.0) == pytest.approx(oil.distribution(-37.0), abs=0.01)


def test_parity_finds_a_negative_forward_and_the_chain_is_fitted(oil):
    assert oil.kernel == "normal"
    assert oil.forward == pytest.approx(OIL.forward, abs=0.01)
    assert oil.share_inside == 1.0
    assert oil.conflicts.empty
    assert oil.certificate
    assert oil.quote_arbitrage.is_arbitrage_free
    assert len(oil.quotes) == len(OIL_STRIKES)
    np.testing.assert_allclose(
        oil.quotes["fitted_volatility"], oil.quotes["implied_volatility"], rtol=2e-2
    )
    assert "puts struck at zero and below have bids" in repr(oil.report)
    assert oil.report is not None
    assert oil.report.faults == 0


def test_volatilities_are_said_in_their_unit(oil):
    assert "normal kernel, forward=-37" in repr(oil)
    assert "(normal, in currency)" in str(oil)
    assert " bp" not in str(oil)
    assert "normal kernel" in repr(oil.fit.quotes)
    assert "forward off by" in repr(oil.certificate)
    frame = oil.to_frame([-50.0, 0.0])
    np.testing.assert_allclose(
        frame["implied_volatility"], oil.implied_volatility([-50.0, 0.0])
    )
    assert oil.to_frame()["density"].gt(0.0).all()


def test_vega_and_theta_of_a_portfolio_are_those_of_bachelier(oil):
    portfolio = ro.decompose(ro.payoffs.strangle(-50.0, 10.0))
    greeks = portfolio.greeks(oil)
    legs = [
        ro.bachelier.greeks(
            strike=strike,
            is_call=is_call,
            volatility=oil.implied_volatility(strike),
            forward=oil.forward,
            discount_factor=DISCOUNT,
            time_to_expiry=YEARS,
        )
        for strike, is_call in ((-50.0, False), (10.0, True))
    ]
    assert greeks["vega"] == pytest.approx(sum(leg.vega for leg in legs))
    assert greeks["theta"] == pytest.approx(sum(leg.theta for leg in legs))


def test_pictures_of_a_normal_law(oil):
    axes = oil.plot(comparators=[fit(OIL, OIL_STRIKES)])
    assert axes.get_ylabel() == "normal volatility, currency units"
    assert axes.get_xlim()[0] < -60.0
    curves = ro.fit_curves([oil.fit.quotes])
    assert "strike - forward" in curves.plot().get_xlabel()
    ro.decompose(ro.payoffs.straddle(-40.0)).plot(curve=oil)
    plt.close("all")


def test_a_normal_curve_is_read_back_as_it_was(oil):
    again = ro.PriceCurve.from_json(oil.to_json())
    assert again.fit is not None
    assert again.fit.quotes.kernel == again.kernel == "normal"
    pd.testing.assert_frame_equal(again.quotes, oil.quotes)
    assert str(again) == str(oil)
    document = json.loads(oil.to_json())
    del document["fit"]["quotes"]["kernel"]  # as written before there were two laws
    older = ro.PriceCurve.from_json(json.dumps(document))
    assert older.fit is not None
    assert older.fit.quotes.kernel == "lognormal"


@pytest.mark.parametrize("smoothing", ["auto", 0.0])
@pytest.mark.parametrize("shift", [-1024.0, 64.0, 4096.0])
def test_a_constant_added_to_forward_and_strikes_moves_the_kinks_only(smoothing, shift):
    """Numbers are such that the sums are exact."""
    strike = OIL_STRIKES[::2]
    law = replace(OIL, means=OIL.means + 0.5)
    table = law.quotes(strike, discount_factor=DISCOUNT, spread=0.02)
    terms: Any = {
        "discount_factor": DISCOUNT,
        "time_to_expiry": YEARS,
        "kernel": "normal",
    }
    here, there = (
        ro.fit_curve(
            table.assign(strike=table["strike"] + by),
            forward=law.forward + by,
            smoothing=smoothing,
            **terms,
        )
        for by in (0.0, shift)
    )
    np.testing.assert_allclose(there.network.weights, here.network.weights, rtol=1e-12)
    np.testing.assert_array_equal(there.network.bandwidths, here.network.bandwidths)
    np.testing.assert_allclose(
        there.network.kinks - shift, here.network.kinks, atol=1e-15 * 1e4
    )
    np.testing.assert_allclose(
        there.price(strike + shift), here.price(strike), rtol=1e-10, atol=1e-10
    )
    assert there.certificate


def test_a_change_of_currency_changes_nothing():
    """By a power of two, not a bit."""
    table = OIL.quotes(OIL_STRIKES, spread=0.02)
    terms: Any = {"discount_factor": 1.0, "time_to_expiry": YEARS}
    small = ro.fit_curve(table, forward=OIL.forward, **terms)
    prices = ["strike", "bid", "ask"]
    table[prices] *= 1024.0
    large = ro.fit_curve(table, forward=1024.0 * OIL.forward, **terms)
    np.testing.assert_array_equal(large.network.weights, small.network.weights)
    np.testing.assert_array_equal(large.network.kinks, 1024.0 * small.network.kinks)
    assert large.volatility_error == pytest.approx(1024.0 * small.volatility_error)


@pytest.mark.parametrize("ratio", [30.0, 300.0, 3000.0])
def test_both_laws_agree_far_from_zero(ratio):
    """A lognormal unit differs from a normal one by a deviation over the forward."""
    law = replace(OIL, means=OIL.means - OIL.forward + ratio * deviation(OIL))
    strike = law.forward + deviation(law) * np.linspace(-2.0, 3.0, 25)
    normal, lognormal = (fit(law, strike, kernel=name) for name in ("normal", "auto"))
    assert lognormal.kernel == "lognormal"
    at = law.forward + deviation(law) * np.linspace(-1.5, 2.5, 9)
    apart = np.abs(normal.price(at) - lognormal.price(at)).max() / deviation(law)
    assert apart < 1e-3 / ratio + 1e-5
    mapped = ro.bachelier.normal_from_lognormal_volatility(
        volatility=lognormal.implied_volatility(at),
        forward=law.forward,
        strike=at,
        time_to_expiry=YEARS,
    )
    np.testing.assert_allclose(normal.implied_volatility(at), mapped, rtol=2e-4)


@pytest.mark.parametrize("forward", [0.005, -0.003, 0.0])
@pytest.mark.parametrize("quoted", ["mid", "implied_volatility"])
def test_rates_in_decimals(forward, quoted):
    """A forward of half a per cent, below zero, and at zero; normal volatilities."""
    strike = forward + 1e-4 * np.arange(-150.0, 151.0, 25.0)
    is_call = strike >= forward
    volatility = 0.0085 + 0.05 * np.abs(strike - forward)
    market = {"forward": forward, "discount_factor": 0.98, "time_to_expiry": 2.0}
    table = pd.DataFrame(
        {
            "strike": strike,
            "option_type": np.where(is_call, "call", "put"),
            "mid": ro.bachelier.price(
                strike=strike, volatility=volatility, is_call=is_call, **market
            ),
            "implied_volatility": volatility,
        }
    )
    if quoted != "mid":
        table = table.drop(columns="mid")
    curve = ro.fit_curve(table, kernel="normal", **market)
    assert curve.certificate
    np.testing.assert_allclose(
        curve.implied_volatility(strike), volatility, atol=2e-3 * 0.0085
    )
    np.testing.assert_allclose(curve.quotes["implied_volatility"], volatility)
    # A constant volatility below half a per cent is a quote, not a placeholder.
    flat = table.assign(implied_volatility=0.004).drop(columns="mid", errors="ignore")
    low = ro.fit_curve(flat, kernel="normal", **market)
    np.testing.assert_allclose(low.implied_volatility(strike), 0.004, rtol=1e-4)


def test_strikes_may_all_be_positive_where_the_forward_is_not():
    """As on 20 April 2020: no negative strike was listed yet."""
    strike = np.arange(2.5, 40.0, 2.5)
    law = replace(OIL, means=OIL.means + 30.0)  # a forward of -7
    quotes = law.quotes(strike, discount_factor=DISCOUNT, spread=0.01)
    curve = ro.fit_curve(quotes, time_to_expiry=YEARS)
    assert curve.kernel == "normal"
    assert curve.forward == pytest.approx(law.forward, abs=0.3)
    assert curve.share_inside == 1.0
    with pytest.raises(QuoteError, match=r"the forward is -\d.* use `kernel='normal'`"):
        ro.fit_curve(quotes, time_to_expiry=YEARS, kernel="lognormal")


def test_what_is_told_of_the_law_wins_over_what_prices_tell():
    quotes = OIL.quotes(OIL_STRIKES, discount_factor=DISCOUNT, spread=0.02)
    chain = ro.read_chain(quotes, time_to_expiry=YEARS)
    assert ro.prepare_quotes(chain).kernel == "normal"
    assert chain.report().rows.faults == 0
    told = ro.read_chain(quotes, time_to_expiry=YEARS, kernel="lognormal")
    assert told.report().rows.counts["nonpositive_strike"] == 50
    for reread in (
        ro.read_chain(told, kernel="normal"),
        ro.read_chain(chain, kernel="normal"),
    ):
        assert reread.codes.tolist() == chain.codes.tolist()
    assert ro.read_chain(chain, kernel="lognormal").codes.tolist() == (
        told.codes.tolist()
    )
    # Positive strikes, a positive forward: lognormal, unless asked.
    index = ro.bundled_chain()["2025-06-20"]
    assert ro.prepare_quotes(index).kernel == "lognormal"
    normal = ro.fit_curve(index, kernel="normal")
    assert normal.kernel == "normal"
    assert normal.share_inside == 1.0
    assert normal.certificate
    prepared = ro.prepare_quotes(index)
    again = ro.fit_curve(prepared, kernel="normal")
    np.testing.assert_array_equal(again.network.weights, normal.network.weights)
    with pytest.raises(ValueError, match="`forward` has no effect"):
        ro.fit_curve(prepared, forward=5000.0)
    with pytest.raises(QuoteError, match=r"the forward is -3[67]\..* law is posit"):
        ro.prepare_quotes(chain).with_kernel("lognormal")


def test_a_stored_chain_keeps_its_law_and_its_history_says_what_it_cannot(tmp_path):
    quotes = OIL.quotes(OIL_STRIKES, discount_factor=DISCOUNT, spread=0.02)
    quotes["expiry"] = "2020-05-19"
    history = ro.ChainHistory(tmp_path)
    laws: Any = {"2020-04-20": "normal", "2020-04-21": "lognormal"}
    for day, law in laws.items():
        chain = ro.read_chain(
            quotes, quote_time=f"{day} 16:00", underlying="WTI", kernel=law
        )
        history.append(chain)
    first, second = (history[day] for day in ro.ChainHistory(tmp_path))
    assert (first.kernel, second.kernel) == ("normal", "lognormal")
    assert ro.fit_curve(first).kernel == "normal"
    fitted = ro.fit_history(history, progress=False)
    assert "one by one, with `fit_curves`" in fitted.failures["reason"].iloc[0]


@pytest.mark.parametrize("fault", ["zeros", "negated", "negated puts", "some"])
def test_wrong_strikes_of_an_index_are_faults(fault):
    table = ro.bundled_chain()["2025-06-20"].to_frame()
    strike = table["strike"].to_numpy(copy=True)
    put = (table["option_type"] == "put").to_numpy()
    rows = np.zeros(len(table), bool)
    rows[np.random.default_rng(3).choice(len(table), 12, replace=False)] = True
    if fault == "zeros":
        strike[rows] = 0.0
    elif fault == "some":
        strike[rows] = -np.arange(12.0)
    else:
        rows = put if fault == "negated puts" else rows
        strike[rows] *= -1.0
    quotes = ro.prepare_quotes(
        table.assign(strike=strike), forward=5100.0, discount_factor=0.99
    )
    assert quotes.kernel == "lognormal"
    assert quotes.report.counts["nonpositive_strike"] == rows.sum()


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda quotes, _: ro.fit_surface([quotes]), "one by one, with `fit_curves`"),
        (
            lambda quotes, _: ro.fit_curve(quotes, method="gradient"),
            "use method='convex'",
        ),
        (
            lambda quotes, _: ro.decompose(ro.payoffs.call(-5.0), quotes=quotes),
            "decompose it without quotes, and price it on a curve",
        ),
        (lambda quotes, _: ro.variance_strip(quotes), "`PriceCurve.moments`"),
        (lambda quotes, _: ro.check_quotes(quotes), "`least_excess.*signed=True"),
        (
            lambda quotes, _: ro.replicate(ro.payoffs.call(5.0), quotes),
            "use a curve, method='quadratic' and positive strikes",
        ),
        (
            lambda _, curve: ro.replicate(ro.payoffs.call(5.0), curve, method="super"),
            "for spots from zero on",
        ),
        (
            lambda quotes, _: ro.price_interval(ro.payoffs.call(5.0), quotes),
            "for spots from zero on",
        ),
    ],
)
def test_what_needs_a_positive_underlying_says_so(oil, use, message):
    with pytest.raises(QuoteError, match=message):
        use(oil.fit.quotes, oil)


def test_greeks_of_rows_are_those_of_bachelier(oil):
    table = OIL.quotes(OIL_STRIKES, discount_factor=DISCOUNT, spread=0.02)
    chain = ro.read_chain(table, time_to_expiry=YEARS)
    with pytest.raises(QuoteError, match="pass model='bachelier'"):
        ro.add_greeks(chain)
    greeks = ro.add_greeks(chain, model="bachelier")
    assert (greeks["quote_status"] == "found").mean() > 0.9


def test_hedges_on_a_normal_curve_weigh_all_spots(oil):
    payoff = 2.0 * ro.payoffs.call(5.0)
    hedge: Any = ro.replicate(payoff, oil, strikes=[5.0, 10.0])
    assert hedge.rms_error < 1e-6


# Arbitrage in quotes


def random_signed_quotes(rng, *, noise: float) -> dict[str, Any]:
    forward = float(rng.choice([-7.0, 0.0, 3.0]))
    law = NormalMixture.draw(rng, forward, 5.0)
    strike = np.sort(
        rng.choice(np.arange(-20.0, 21.0), int(rng.integers(1, 14)), False)
    )
    if rng.random() < 0.5:  # else each once
        strike = rng.choice(strike, 2 * len(strike))
    is_call = rng.random(len(strike)) < 0.5
    price = 0.97 * law.price(strike, is_call) + noise * rng.standard_normal(len(strike))
    half = rng.uniform(0.0, 0.5 * noise + 1e-3, len(strike))
    bid, ask = np.maximum(price - half, 0.0), np.maximum(price + half, 0.0)
    return {
        "strike": strike,
        "bid": np.where(rng.random(len(strike)) < 0.2, np.nan, bid),
        "ask": ask,
        "is_call": is_call,
        "forward": law.forward,
        "discount_factor": 0.97,
    }


def least_excess_by_slopes(quotes: dict[str, Any]) -> float:
    """The same programme in other unknowns: a level and the slopes between strikes."""
    nodes, node = np.unique(quotes["strike"], return_inverse=True)
    n, m = len(nodes), len(node)
    level = np.zeros((n, n))
    level[:, 0] = 1.0  # the price at the first strike, then minus the slopes
    for row in range(1, n):
        level[row, 1 : row + 1] = -np.diff(nodes)[:row]
    call = level[node]
    shift = np.where(quotes["is_call"], 0.0, nodes[node] - quotes["forward"])
    low = quotes["bid"] / quotes["discount_factor"] - shift
    high = quotes["ask"] / quotes["discount_factor"] - shift
    known = np.isfinite(low)
    excess = np.eye(m)
    rows = [np.hstack([call, -excess]), np.hstack([-call, -excess])[known]]
    limits = [high, -low[known]]
    curve = [level, *([] if n < 3 else [np.eye(n)[1:-1] - np.eye(n)[2:]])]
    floor = np.maximum(quotes["forward"] - nodes, 0.0)
    rows += [np.hstack([-part, np.zeros((len(part), m))]) for part in curve]
    limits += [-floor] + ([] if n < 3 else [np.zeros(n - 2)])
    solved = linprog(
        np.append(np.zeros(n), np.ones(m)),
        A_ub=np.vstack(rows),
        b_ub=np.concatenate(limits),
        bounds=[(None, None)] + [(0.0, 1.0)] * (n - 1) + [(0.0, None)] * m,
    )
    assert solved.status == 0
    return quotes["discount_factor"] * solved.fun


def worst_payoff(strike: np.ndarray, legs: pd.DataFrame) -> Fraction:
    """Of a trade, over all spots of either sign, in exact arithmetic."""
    kinds = legs["option_type"].tolist()
    quantities = [Fraction(quantity) for quantity in legs["quantity"].tolist()]
    struck = [Fraction(k) for k in legs["strike"].fillna(0.0).tolist()]
    slopes = {"call": (0, 1), "put": (-1, 0), "forward": (1, 1), "cash": (0, 0)}
    left, right = (
        sum(q * slopes[kind][side] for q, kind in zip(quantities, kinds, strict=True))
        for side in (0, 1)
    )
    assert left <= 0 <= right

    def payoff(spot: Fraction) -> Fraction:
        total = Fraction(0)
        for quantity, kind, k in zip(quantities, kinds, struck, strict=True):
            worth = {
                "call": max(spot - k, Fraction(0)),
                "put": max(k - spot, Fraction(0)),
                "forward": spot - k,
                "cash": Fraction(1),
            }
            total += quantity * worth[kind]
        return total

    return min(payoff(Fraction(spot)) for spot in strike.tolist())


@pytest.mark.parametrize("noise", [0.0, 0.1, 3.0])
def test_the_least_excess_without_a_bound_at_zero(noise):
    rng = np.random.default_rng(int(10 * noise))
    families = set()
    for _ in range(60):
        quotes = random_signed_quotes(rng, noise=noise)
        result = least_excess(**quotes, signed=True)
        total = least_excess_by_slopes(quotes)
        assert result.total_excess == pytest.approx(total, abs=2e-8)
        families.add(result.family)
        if noise == 0.0:
            assert result.is_arbitrage_free
            check_quote_arbitrage(**quotes, signed=True)
            assert bound_violations(**quotes, signed=True).empty
        if result.is_arbitrage_free:
            continue
        trade, simple = result.trade(), result.simplest_trade()
        assert trade["cash_flow"].sum() == pytest.approx(result.total_excess, abs=1e-6)
        assert simple["cash_flow"].sum() > 0.0
        for legs in (trade, simple):
            assert worst_payoff(result.strike, legs) >= 0
        with pytest.raises(ArbitrageError, match=f"static arbitrage .*{result.family}"):
            check_quote_arbitrage(**quotes, signed=True)
    if noise:
        simplest = "butterfly" if noise < 1.0 else "bounds"
        assert families >= {simplest, "call_spread", "parity"}


def test_a_bound_at_zero_far_below_all_strikes_is_none():
    rng = np.random.default_rng(11)
    for _ in range(20):
        quotes = random_signed_quotes(rng, noise=0.5)
        moved = quotes | {
            "strike": quotes["strike"] + 2.0**20,
            "forward": quotes["forward"] + 2.0**20,
        }
        signed, unsigned = least_excess(**quotes, signed=True), least_excess(**moved)
        assert signed.total_excess == pytest.approx(unsigned.total_excess, abs=5e-4)


def test_quotes_of_a_positive_underlying_may_be_worth_more_where_it_is_not():
    """A put at 5 for 6: above its strike, which no positive underlying allows."""
    put = {"strike": [5.0], "bid": [6.0], "ask": [6.2], "is_call": False}
    terms: Any = {"forward": 1.0, "discount_factor": 1.0}
    assert not least_excess(**put, **terms).is_arbitrage_free
    assert least_excess(**put, **terms, signed=True).is_arbitrage_free
    assert len(bound_violations(**put, **terms)) == 1
    assert bound_violations(**put, **terms, signed=True).empty
    with pytest.raises(QuoteError, match="strike not positive in 1 of 1 quotes"):
        least_excess(**put | {"strike": [-5.0]}, **terms)
    with pytest.raises(ValueError, match="forward must be positive, not -1"):
        least_excess(**put, forward=-1.0, discount_factor=1.0)
    with pytest.raises(ValueError, match="forward must be finite, not nan"):
        least_excess(**put, forward=np.nan, discount_factor=1.0, signed=True)
    with pytest.raises(QuoteError, match="strike not finite"):
        least_excess(**put | {"strike": [np.inf]}, **terms, signed=True)


def test_an_arbitrage_among_negative_strikes_is_fitted_and_named():
    table = OIL.quotes(OIL_STRIKES, discount_factor=DISCOUNT, spread=0.02)
    wrong = (table["strike"] == -50.0) & (table["option_type"] == "put")
    table.loc[wrong, ["bid", "ask"]] += 1.0
    options: Any = {"time_to_expiry": YEARS, "discount_factor": DISCOUNT}
    curve = ro.fit_curve(table, forward=OIL.forward, **options)
    assert curve.conflicts["strike"].tolist() == [-50.0]
    assert curve.quote_arbitrage.family == "call_spread"
    assert "(arbitrage: call_spread -50--47.5)" in str(curve)
    with pytest.raises(ArbitrageError, match=r"call_spread -50--47\.5: sell 1 put -50"):
        ro.fit_curve(table, forward=OIL.forward, on_arbitrage="raise", **options)


def test_no_curve_is_nearer_than_the_least_error():
    """Of mids with an arbitrage; the curve with sharp kinks reaches it."""
    rng = np.random.default_rng(2)
    table = OIL.quotes(OIL_STRIKES, discount_factor=DISCOUNT)
    table["mid"] *= np.exp(0.03 * rng.standard_normal(len(table)))
    options: Any = {"time_to_expiry": YEARS, "discount_factor": DISCOUNT}
    smooth, sharp = (
        ro.fit_curve(table, forward=OIL.forward, smoothing=how, **options)
        for how in ("auto", 0.0)
    )
    least = smooth.least_error
    assert 0.5 * sharp.volatility_error < least <= sharp.volatility_error
    assert least <= smooth.volatility_error
    # In currency units: of twice the unit, twice as much.
    prices = ["strike", "mid"]
    table[prices] *= 2.0
    double = ro.fit_curve(table, forward=2.0 * OIL.forward, **options)
    assert double.least_error == pytest.approx(2.0 * least, rel=1e-9)


def test_sampled_curves_of_either_sign_have_no_violations(oil):
    strikes = np.linspace(-200.0, 200.0, 500)
    terms: Any = {"forward": oil.forward, "discount_factor": DISCOUNT}
    assert static_arbitrage_violations(oil.price, strikes=strikes, **terms).empty
    prices = oil.price(strikes)
    prices[250] += 1.0
    assert len(static_arbitrage_violations(prices, strikes=strikes, **terms)) >= 2


# What is told, in every form


def test_a_normal_curve_can_be_compiled_and_differentiated(oil):
    at = np.array([-50.0, -37.0, 5.0])
    for name in ("price", "implied_volatility", "delta", "gamma", "density"):
        method = getattr(ro.PriceCurve, name)
        compiled = jax.jit(method)(oil, at)
        np.testing.assert_allclose(compiled, getattr(oil, name)(at), rtol=1e-9)
    slope = jax.grad(oil.network)(-50.0)
    assert slope == pytest.approx(oil.strike_delta(-50.0), rel=1e-9)


def test_a_spot_and_a_yield_make_a_negative_forward():
    quotes = OIL.quotes(OIL_STRIKES, discount_factor=DISCOUNT, spread=0.02)
    spot = OIL.forward * DISCOUNT  # the forward without a yield
    terms: Any = {"discount_factor": DISCOUNT, "time_to_expiry": YEARS}
    curve = ro.fit_curve(
        quotes, spot=spot, dividend_yield=0.0, kernel="normal", **terms
    )
    assert curve.forward == pytest.approx(OIL.forward, rel=1e-12)
    with pytest.raises(ValueError, match=r"`spot` must be positive .*'normal'"):
        ro.fit_curve(quotes, spot=spot, dividend_yield=0.0, **terms)


def test_strikes_around_zero_have_no_scale():
    """Those of a spread are not a hundred times its price, though some seem so."""
    law = NormalMixture(np.ones(1), np.array([0.01]), np.array([2.0]))
    strike = np.arange(-4.0, 7.0)  # of median one
    quotes = law.quotes(strike, spread=0.01).assign(underlying_price=0.01)
    curve = ro.fit_curve(quotes, time_to_expiry=YEARS, discount_factor=1.0)
    np.testing.assert_array_equal(np.unique(curve.quotes["strike"]), strike)
    assert curve.forward == pytest.approx(0.01, abs=0.02)


@pytest.mark.parametrize("shift", [0.0, 64.0])
def test_parity_of_an_underlying_near_zero_needs_no_forward_to_compare_with(shift):
    """All strikes positive, and the forward a tenth of their spreads."""
    law = replace(OIL, means=OIL.means - OIL.forward + 0.1 + shift)
    strike = np.arange(2.0, 40.0, 2.0) + shift
    quotes = law.quotes(strike, discount_factor=DISCOUNT, spread=0.05)
    noise = 0.3 * np.random.default_rng(4).standard_normal(len(quotes))
    quotes[["bid", "ask"]] = (quotes[["bid", "ask"]].T + noise).T.clip(0.01)
    curve = ro.fit_curve(quotes, time_to_expiry=YEARS, kernel="normal")
    assert curve.forward == pytest.approx(law.forward, abs=0.5)


def test_exact_mids_in_the_money_are_not_below_intrinsic_value_at_a_forward_of_zero():
    law = NormalMixture(np.ones(1), np.zeros(1), np.ones(1))
    strike = np.linspace(-9.0, 9.0, 37)
    table = law.quotes(strike).query("mid > 0.0")
    table["mid"] *= 1.0 - 2e-16
    quotes = ro.prepare_quotes(
        table, forward=0.0, discount_factor=1.0, time_to_expiry=1.0, kernel="normal"
    )
    assert "below_intrinsic" not in quotes.report.counts


def test_volatilities_of_a_negative_forward_are_normal_and_in_currency():
    """Not per cent, though their median is above four."""
    table = pd.DataFrame({"strike": OIL_STRIKES, "implied_volatility": 45.0})
    terms: Any = {"discount_factor": DISCOUNT, "time_to_expiry": YEARS}
    curve = ro.fit_curve(table, forward=-37.0, **terms)
    np.testing.assert_allclose(curve.implied_volatility(OIL_STRIKES), 45.0, rtol=1e-3)
    chain = ro.read_chain(table.query("strike > 0.0"), **terms, forward=50.0)
    with pytest.raises(QuoteError, match="were read as lognormal ones"):
        ro.fit_curve(chain, kernel="normal")

"""The strategies to start from, and models compared by their predictions."""

import argparse
from functools import cache

import numpy as np
import pandas as pd
import pytest
from backtest_histories import (
    black_scholes_history,
    black_scholes_table,
    lognormal_path,
)
from scipy.optimize import differential_evolution
from test_backtest import (
    EXPIRIES,
    assert_conserves_capital,
    path_history,
    surfaces_of_path,
)

import relu_options as ro
from relu_options.backtest import (
    SVI,
    Costs,
    DeltaHedge,
    Setup,
    backtest,
    command,
    compare_models,
    fit_svi,
    sweep,
)
from relu_options.backtest.strategies import (
    BuyWrite,
    Calendar,
    HoldToExpiry,
    Leg,
    Replication,
    RichCheap,
    VarianceSwap,
    short_strangle,
    straddle,
)
from relu_options.plotting_backtest import plot_model_comparison, plot_profits

FREE = Costs.none()
HEDGE = DeltaHedge(delta="black_scholes")


def capped(forward):
    """Half of what the underlying gains, up to a fifth: three strikes, two unlisted."""
    return ro.payoffs.call_spread(forward, 1.07 * forward)


def test_a_structure_is_renewed_when_it_has_expired():
    result = backtest(path_history(), straddle(days=18))
    bought = result.trades[result.trades["kind"] == "order"]
    assert bought["expiry"].nunique() == 3
    assert bought["date"].nunique() == 3
    once = backtest(
        path_history(), HoldToExpiry((Leg(1.0, True, moneyness=1.0),), 18, renew=False)
    )
    assert len(once.trades) == 2


def test_a_strangle_has_the_deltas_asked_for():
    strikes = np.arange(80.0, 121.0, 1.0)
    history = black_scholes_history(
        [100.0], EXPIRIES, strikes=strikes, half_spread=0.01
    )
    trades = backtest(history, short_strangle(delta=0.2, days=40)).trades
    deltas = ro.black_scholes.delta(
        spot=100.0,
        strike=trades["strike"].to_numpy(),
        time_to_expiry=39.0 / 365.0,
        volatility=0.2,
        is_call=(trades["option_type"] == "call").to_numpy(),
    )
    np.testing.assert_allclose(deltas, [-0.2, 0.2], atol=0.03)
    assert trades["quantity"].tolist() == [-1.0, -1.0]


def test_a_buy_write_is_the_arithmetic_of_covered_calls():
    """The underlying, plus each premium, less what each call paid."""
    history = path_history()
    result = backtest(
        history, BuyWrite(contracts=2.0, moneyness=1.02, days=18), costs=FREE
    )
    prices = history.underlying_prices
    units = 200.0
    profit = units * (prices.iloc[-1] - prices.iloc[0])
    written = result.trades[
        (result.trades["option_type"] == "call") & (result.trades["kind"] == "order")
    ]
    assert len(written) == 3
    for _, call in written.iterrows():
        table = history.tables[call["date"]]
        at = (table["strike"] == call["strike"]) & (table["option_type"] == "call")
        quote = table[at & (table["expiry"] == call["expiry"])].iloc[0]
        profit += units * 0.5 * (quote["bid"] + quote["ask"])
        if call["expiry"] in prices:
            profit -= units * max(prices[call["expiry"]] - call["strike"], 0.0)
    cash_profit = (
        result.daily["cash"].iloc[-1] + units * prices.iloc[-1] - result.capital
    )
    np.testing.assert_allclose(cash_profit, profit, rtol=0, atol=1e-8)
    assert (result.positions.groupby("date")["option_type"].count() == 2).all()


def test_a_calendar_always_holds_two_expiries_of_one_strike():
    result = backtest(path_history(), Calendar(near=18, far=40), end="2025-02-13")
    by_date = result.positions.groupby("date")
    assert (by_date["expiry"].nunique() == 2).all()
    assert (by_date["strike"].nunique() == 1).all()
    assert (by_date["quantity"].sum() == 0.0).all()
    assert_conserves_capital(result)


def test_a_hedged_variance_swap_earns_realised_less_implied_variance():
    """In a world of 20 % quoted and 30 % or 10 % realised, to a tenth of it."""
    strikes = np.arange(60.0, 151.0, 2.5)
    for realised, days in ((0.3, 40), (0.1, 40)):
        spots = lognormal_path(np.random.default_rng(3), 30, volatility=realised)
        history = black_scholes_history(
            spots, ("2025-02-14", "2025-06-20"), strikes=strikes, half_spread=0.001
        )
        swap = VarianceSwap(1e6, days=days)
        result = backtest(history, swap, costs=FREE, hedge=HEDGE)
        years = 39.0 / 365.0
        expected = 1e6 * (np.square(np.diff(np.log(spots))).sum() / years - 0.04)
        assert result.profit.iloc[-1] == pytest.approx(expected, rel=0.1)


def test_a_claim_is_replicated_better_by_options_than_by_trading_the_underlying():
    """Six listed strikes against one look a week: the error scatters less."""
    rng = np.random.default_rng(2)
    setups = {
        "static": Setup(Replication(capped, 100.0, days=25, max_legs=6), costs=FREE),
        "weekly": Setup(
            Replication(capped, 100.0, days=25, listed=False),
            costs=FREE,
            hedge=DeltaHedge(every=5),
        ),
        "naked": Setup(Replication(capped, 100.0, days=25, listed=False), costs=FREE),
    }
    strikes = np.arange(80.0, 121.0, 2.5)
    errors = {name: [] for name in setups}
    for _ in range(4):
        spots = lognormal_path(rng, 20)
        history = black_scholes_history(
            spots, ("2025-01-31", "2025-06-20"), strikes=strikes
        )
        surfaces = {
            date: ro.BlackScholesSurface(
                volatilities=0.2, times=[1.0], forwards=history.underlying_prices[date]
            )
            for date in history.dates
        }
        done = sweep(history, setups, surfaces=surfaces, end="2025-01-31")
        assert not done.failures
        for name, result in done.items():
            before = result.profit[result.profit.index < "2025-01-31"]
            errors[name].append(result.profit.iloc[-1])
            assert len(before) == 19
    scatter = {name: np.std(values) for name, values in errors.items()}
    assert scatter["static"] < scatter["weekly"] < scatter["naked"]


def test_rich_is_sold_and_cheap_bought_then_closed():
    """Two quotes are moved off the surface; they are traded, and closed in time."""
    history = path_history()
    first = history.dates[0]

    def moved(date, table):
        table = table.copy()
        if date == first:
            far = table["expiry"] == pd.Timestamp(EXPIRIES[1])
            call = far & (table["option_type"] == "call") & (table["strike"] == 105.0)
            put = far & (table["option_type"] == "put") & (table["strike"] == 95.0)
            table.loc[call, ["bid", "ask"]] += 0.15
            table.loc[put, ["bid", "ask"]] -= 0.15
        return table

    rule = RichCheap(threshold=1.0, hold=3)
    result = backtest(history.changed(moved), rule, surfaces=surfaces_of_path())
    orders = result.trades[result.trades["kind"] == "order"]
    opened = orders[orders["date"] == first].set_index("strike")["quantity"]
    assert opened.to_dict() == {95.0: 1.0, 105.0: -1.0}
    closed = orders[orders["date"] == history.dates[3]].set_index("strike")["quantity"]
    assert closed.to_dict() == {95.0: -1.0, 105.0: 1.0}
    idle = backtest(history, RichCheap(threshold=1.0), surfaces=surfaces_of_path())
    assert not len(idle.trades)


def test_the_spread_is_what_bid_and_ask_cost_beside_mid():
    """The difference of the two runs is the spread that the one reports."""
    strategy = short_strangle(days=18)
    costs = Costs(fee_per_contract=0.0, underlying_bps=0.0)
    done = sweep(
        path_history(),
        {
            "quotes": Setup(strategy, costs=costs, hedge=HEDGE),
            "mid": Setup(strategy, costs=FREE, hedge=HEDGE),
        },
    )
    paid = done["quotes"].summary()["spread_cost"]
    lost = done["mid"].profit.iloc[-1] - done["quotes"].profit.iloc[-1]
    assert paid > 0.0
    assert lost == pytest.approx(paid, abs=1e-6)
    assert len(plot_profits(done).lines) == 3


# Models


@pytest.mark.parametrize("rho", [-0.7, 0.1])
def test_svi_is_found_again(rng, rho):
    true = SVI(a=0.004, b=0.08, rho=rho, m=0.01, sigma=0.12)
    x = np.linspace(-0.5, 0.3, 31)
    found = fit_svi(x, np.sqrt(true.total_variance(x)), np.ones(31))
    np.testing.assert_allclose(
        found.total_variance(x), true.total_variance(x), rtol=1e-5
    )


def test_svi_is_as_good_as_a_global_search(rng):
    """On a noisy smile, scipy's differential evolution finds nothing better."""
    x = np.linspace(-0.4, 0.25, 25)
    smile = SVI(a=0.004, b=0.08, rho=-0.5, m=0.01, sigma=0.12)
    quoted = np.sqrt(smile.total_variance(x)) * (1.0 + 0.02 * rng.standard_normal(25))

    def loss(p):
        y = x - p[3]
        variance = p[0] + p[1] * (p[2] * y + np.hypot(y, p[4]))
        return np.sum((np.sqrt(np.maximum(variance, 1e-10)) - quoted) ** 2)

    bounds = [(-0.05, 0.05), (0.0, 0.5), (-0.999, 0.999), (-0.5, 0.5), (0.001, 1.0)]
    best = differential_evolution(loss, bounds, rng=1, maxiter=300, tol=1e-12)
    found = fit_svi(x, quoted, np.ones(25))
    assert loss([found.a, found.b, found.rho, found.m, found.sigma]) <= 1.001 * best.fun


@cache
def smiling_history():
    """Four dates whose volatility depends on moneyness and drifts a little."""
    spots = [100.0, 101.0, 99.5, 100.5]
    history = black_scholes_history(spots, EXPIRIES)
    strikes = np.arange(80.0, 121.0, 2.5)

    def smiling(date, table):
        spot = history.underlying_prices[date]
        moneyness = np.log(strikes / spot)
        volatility = 0.2 - 0.2 * moneyness + 0.5 * moneyness**2 + 1e-4 * date.day
        days = [pd.Timestamp(one) for one in EXPIRIES]
        return black_scholes_table(
            date, spot, days, strikes, volatility=volatility, half_spread=0.02
        )

    return history.changed(smiling)


def test_models_rank_as_they_must():
    """A smile is beyond Black-Scholes and within SVI; in sample beats a day later."""
    ahead = compare_models(smiling_history(), models=["svi", "black_scholes"])
    fitted = compare_models(
        smiling_history(), models=["svi", "black_scholes"], horizon=0
    )
    assert ahead["date"].nunique() == 3
    assert fitted["date"].nunique() == 4
    one, now = (
        table.groupby("model")["volatility_rmse"].mean() for table in (ahead, fitted)
    )
    assert now["svi"] < one["svi"] < one["black_scholes"]
    assert 1e-4 < one["svi"] < 1e-3
    assert one["black_scholes"] > 0.02
    inside = ahead.groupby("model")["share_inside"].mean()
    assert inside["svi"] > 0.95 > inside["black_scholes"]


def test_a_true_surface_predicts_a_world_that_does_not_change():
    """As do Black-Scholes, and a user's own model; the last is one that is wrong."""

    def thirty(quotes):
        return lambda log_moneyness: np.full(np.shape(log_moneyness), 0.3)

    models = {"network": None, "thirty": thirty}
    table = compare_models(path_history(), surfaces_of_path(), models, end="2025-01-10")
    by_model = table.set_index(["model", "date"])
    errors = by_model["volatility_rmse"]
    assert errors["network"].max() < 0.02
    np.testing.assert_allclose(errors["thirty"], 0.1, atol=0.03)
    assert (by_model["share_inside"]["network"] == 1.0).all()
    assert len(plot_model_comparison(table).lines) == 2
    assert compare_models(path_history(), {}, ["network"], end="2025-01-10").empty


def test_models_that_are_unknown_are_refused():
    with pytest.raises(ValueError, match="unknown model 'sabr'"):
        compare_models(path_history(), models=["sabr"])
    with pytest.raises(ValueError, match="horizon"):
        compare_models(path_history(), models=["svi"], horizon=-1)


# The command


@pytest.mark.parametrize("strategy", ["short_strangle", "buy_write"])
def test_the_command_writes_its_report(strategy, tmp_path):
    parser = argparse.ArgumentParser()
    command.declare(parser)
    stem = tmp_path / "result"
    arguments = ["--strategy", strategy, "--output", str(stem), "--end", "2025-01-31"]
    report = command.run(parser.parse_args(arguments))
    assert "profit" in report
    assert "events: 1 missing_day" in report
    daily = pd.read_csv(stem.with_suffix(".csv"), index_col="date")
    trades = pd.read_csv(tmp_path / "result_trades.csv")
    parts = daily.filter(like="pnl_").to_numpy().sum()
    assert parts == pytest.approx(daily["equity"].iloc[-1] - 1e6, abs=1e-6)
    assert (trades["kind"] == "hedge").any() == (strategy == "short_strangle")
    assert stem.with_suffix(".png").stat().st_size > 10_000
    missing = parser.parse_args([str(tmp_path / "nowhere")])
    with pytest.raises(FileNotFoundError, match="no folder"):
        command.run(missing)

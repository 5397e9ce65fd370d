"""Simulated histories: paths of the model, quoted by it, so that the truth is known."""

import gzip
import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from relu_options.simulation import BatesModel, bundled_path
from relu_options.simulation.bundled import bundled_history
from relu_options.simulation.path import (
    HistoryTerms,
    settlement_prices,
    simulate_history,
    simulate_paths,
    simulate_underlying,
    us_holidays,
    write_simulated_history,
)

ROOT = Path(__file__).resolve().parent.parent
MODEL = BatesModel(
    initial_variance=0.03,
    long_run_variance=0.05,
    mean_reversion=2.2,
    volatility_of_variance=0.6,
    correlation=-0.65,
    jump_intensity=0.6,
    jump_mean=-0.08,
    jump_volatility=0.09,
)
MODELS = {
    "bates": MODEL,
    "upward": replace(MODEL, correlation=0.5, jump_mean=0.05),
    "low": replace(MODEL, long_run_variance=0.005, volatility_of_variance=0.9),
    "certain variance": replace(MODEL, volatility_of_variance=0.0),
    "no long run": replace(MODEL, long_run_variance=0.0),
    "next to none": replace(MODEL, initial_variance=1e-6, volatility_of_variance=0.9),
}
PATHS = 40_000
TERMS = HistoryTerms(
    model=MODEL,
    spot=1000.0,
    rate=0.03,
    dividend_yield=0.01,
    start="2025-04-10",
    days=8,
    seed=11,
    weeklies=2,
    monthlies=2,
    quarterlies=1,
    strikes_per_deviation=4.0,
)


def mean_is(values, expected, deviations=4.0):
    """Whether the mean of draws is as expected, to its standard error."""
    error = values.std(axis=0) / np.sqrt(len(values))
    return np.all(np.abs(values.mean(axis=0) - expected) < deviations * error)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("step", [0.02, 0.5])
def test_the_forward_is_a_martingale_whatever_the_step(name, step):
    times = [0.02, 0.5]
    logs, variances = simulate_paths(
        MODELS[name], times, seed=3, paths=PATHS, longest_step=step
    )
    assert logs.shape == variances.shape == (PATHS, 2)
    assert mean_is(np.exp(logs), 1.0)
    assert (variances >= 0.0).all()


def test_the_variance_has_its_own_law():
    """A non-central chi-square, as in Cox, Ingersoll and Ross (1985)."""
    time, model = 0.4, MODEL
    _, variance = simulate_paths(model, [time], seed=5, paths=PATHS, longest_step=0.1)
    kappa, eta = model.mean_reversion, model.volatility_of_variance
    decay = np.exp(-kappa * time)
    scale = eta**2 * (1.0 - decay) / (4.0 * kappa)
    degrees = 4.0 * kappa * model.long_run_variance / eta**2
    law = stats.ncx2(degrees, model.initial_variance * decay / scale, scale=scale)
    assert stats.kstest(variance[:, 0], law.cdf).pvalue > 0.01
    assert stats.kstest(variance[:, 0] * 1.05, law.cdf).pvalue < 0.01


@pytest.mark.parametrize("name", MODELS)
def test_paths_pay_what_the_model_asks(name):
    """Calls by simulation and by the characteristic function, two ways to one price."""
    model, time = MODELS[name], 0.25
    logs, _ = simulate_paths(model, [time], seed=7, paths=PATHS, longest_step=0.02)
    strike = np.array([0.8, 0.95, 1.0, 1.05, 1.2])
    payoff = np.maximum(np.exp(logs) - strike, 0.0)
    price = model.price(strike, forward=1.0, time_to_expiry=time)
    assert mean_is(payoff, price)
    assert not mean_is(payoff, 1.1 * price)


@pytest.mark.parametrize("name", MODELS)
def test_smiles_on_the_grid_are_the_model_s_prices(name):
    model = MODELS[name]
    years = np.array([1.0 / 365, 7.0 / 365, 0.1, 0.5, 2.0])
    smiles = model.smiles(years)
    for row, time in enumerate(years):
        k = np.linspace(-15.0, 9.0, 60) * smiles.scale[row]
        at = {"forward": 1.0, "time_to_expiry": time}
        price = model.price(np.exp(k), **at)
        np.testing.assert_allclose(smiles.call(row, k), price, rtol=0, atol=2e-7)
        grid = smiles.grid[300:480] * smiles.scale[row]
        below = model.distribution(np.exp(grid), **at)
        np.testing.assert_allclose(smiles.below[row, 300:480], below, rtol=0, atol=1e-6)
        call = smiles.call(row, grid)
        np.testing.assert_allclose(smiles.calls[row, 300:480], call, rtol=0, atol=1e-15)


def test_the_log_variance_is_the_curvature_of_the_characteristic_function():
    """Of the model with a certain variance, where the log return has no other part."""
    model, h = MODELS["certain variance"], 1e-3
    up, at, down = np.log(
        model.characteristic_function(np.array([h, 0.0, -h]), time_to_expiry=0.7)
    )
    curvature = -(up - 2.0 * at + down).real / h**2
    assert model.log_variance(0.7) == pytest.approx(curvature, rel=1e-5)


def test_a_characteristic_function_too_slow_for_the_grid_is_refused():
    slow = replace(MODEL, volatility_of_variance=40.0, initial_variance=1e-4)
    with pytest.raises(ValueError, match="too large for the grid; use `price`"):
        slow.smiles([0.1])


def test_holidays_are_those_of_the_exchange():
    """As the New York Stock Exchange published them for 2025 to 2027."""
    published = {
        2025: "01-01 01-20 02-17 04-18 05-26 06-19 07-04 09-01 11-27 12-25",
        2026: "01-01 01-19 02-16 04-03 05-25 06-19 07-03 09-07 11-26 12-25",
        2027: "01-01 01-18 02-15 03-26 05-31 06-18 07-05 09-06 11-25 12-24",
    }
    for year, days in published.items():
        first, last = pd.Timestamp(year, 1, 1), pd.Timestamp(year, 12, 31)
        assert " ".join(us_holidays(first, last).strftime("%m-%d")) == days


def test_trading_days_leave_weekends_and_holidays_out():
    days = TERMS.trading_days
    assert days.strftime("%m-%d").tolist() == [
        *("04-10", "04-11", "04-14", "04-15", "04-16", "04-17"),
        *("04-21", "04-22"),
    ]
    own = replace(TERMS, holidays=("2025-04-14", "2025-04-15"))
    assert own.trading_days[2] == pd.Timestamp("2025-04-16")
    assert pd.Timestamp("2025-04-18") in own.trading_days


def test_expiries_are_fridays_or_the_day_before():
    """The third Friday of April 2025 is Good Friday; it settles AM on the Thursday."""
    first, *_, last = simulate_history(TERMS)
    assert [f"{date:%m-%d}" for date in first.slices.index] == [
        *("04-11", "04-17", "04-25", "05-16", "06-20"),
    ]
    clocks = first.table.drop_duplicates("expiry").set_index("expiry")["settlement"]
    assert clocks.tolist() == ["PM", "AM", "PM", "AM", "AM"]
    assert last.slices.index[0] == pd.Timestamp("2025-04-25")
    hours = first.slices["time_to_expiry"] * 365 * 24
    assert hours.iloc[0] == pytest.approx(24.0)
    assert hours.iloc[1] == pytest.approx(7 * 24 - 6.5)


def test_settlement_prices_are_values_of_the_path():
    terms = replace(TERMS, days=30)
    path, table = simulate_underlying(terms), settlement_prices(terms)
    assert table["expiry"].is_monotonic_increasing
    for expiry, clock, price in table.itertuples(index=False):
        assert price == path.loc[expiry, "open" if clock == "AM" else "close"]
    listed = {date for day in simulate_history(terms) for date in day.slices.index}
    known = {date for date in listed if date <= terms.trading_days[-1]}
    assert known == set(table["expiry"])
    assert (path["open"].iloc[1:] != path["close"].iloc[1:]).all()


def test_the_underlying_earns_its_carry_and_premium():
    """Mean over seeds of the simulated close, against the forward."""
    terms = replace(TERMS, days=15, risk_premium=0.5)
    closes = np.array(
        [
            simulate_underlying(replace(terms, seed=seed))["close"].iloc[-1]
            for seed in range(150)
        ]
    )
    years = (terms.trading_days[-1] - terms.trading_days[0]).days / 365
    assert mean_is(closes, 1000.0 * np.exp((0.02 + 0.5) * years), 3.0)


def test_a_path_model_moves_the_path_but_not_the_prices():
    calm = replace(MODEL, long_run_variance=0.001, mean_reversion=50.0)
    calm = replace(calm, volatility_of_variance=0.01, jump_intensity=0.0)
    path = simulate_underlying(replace(TERMS, days=60, path_model=calm))
    assert path["variance"].iloc[0] == MODEL.initial_variance
    assert path["variance"].iloc[30:].max() < 0.0015
    assert np.diff(np.log(path["close"].to_numpy()))[30:].std() * np.sqrt(252) < 0.05


def test_a_split_divides_prices_and_strikes_and_nothing_else():
    split = replace(TERMS, splits=(("2025-04-15", 2.0),))
    whole, path = simulate_underlying(TERMS), simulate_underlying(split)
    assert path["shares"].tolist() == [1.0] * 3 + [2.0] * 5
    np.testing.assert_allclose(
        path["close"] * path["shares"], whole["close"], atol=0.02
    )
    days = zip(simulate_history(TERMS), simulate_history(split), strict=True)
    strikes: dict = {}
    for place, (one, other) in enumerate(days):
        if place < 3:
            pd.testing.assert_frame_equal(one.table, other.table)
            groups = one.table.groupby("expiry")["strike"]
            strikes = {expiry: np.unique(group) for expiry, group in groups}
            continue
        assert one.terms.spot == pytest.approx(2.0 * other.terms.spot, abs=0.02)
        for expiry in set(strikes) & set(other.slices.index):
            halves = strikes[expiry] / 2.0
            price = other.true_price(expiry, halves)
            whole_price = one.true_price(expiry, strikes[expiry])
            np.testing.assert_allclose(price, whole_price / 2.0, atol=0.02)
            quoted = other.table.loc[other.table["expiry"] == expiry, "strike"]
            # What is worth next to nothing is not quoted.
            assert (np.isin(halves, quoted) | (price < 0.01)).all()
            assert np.isin(halves, quoted).mean() > 0.5


def test_every_quote_holds_the_true_price():
    for day in simulate_history(TERMS):
        for expiry, quotes in day.table.groupby("expiry"):
            is_call = quotes["option_type"] == "call"
            truth = day.true_price(expiry, quotes["strike"], is_call=is_call)
            assert (quotes["bid"] <= truth + 1e-9).all()
            assert (truth <= quotes["ask"] + 1e-9).all()


def test_strikes_stay_listed_while_they_are_worth_something():
    """Each quoted strike is quoted the next day, unless it has become worthless."""
    before = None
    dropped = 0
    for day in simulate_history(replace(TERMS, days=20)):
        table = day.table
        strikes = {date: set(one["strike"]) for date, one in table.groupby("expiry")}
        for expiry in set(strikes) & set(before or ()):
            assert before is not None
            gone = np.array(sorted(before[expiry] - strikes[expiry]))
            dropped += len(gone)
            assert (day.true_price(expiry, gone) < 0.002).all()
        before = strikes
    assert dropped > 0


def test_the_same_terms_make_the_same_history():
    once, again = (list(simulate_history(TERMS)) for _ in range(2))
    for one, other in zip(once, again, strict=True):
        pd.testing.assert_frame_equal(one.table, other.table)
    other = next(simulate_history(replace(TERMS, seed=12)))
    assert not once[0].table["bid"].equals(other.table["bid"])
    again = HistoryTerms.from_dict(json.loads(json.dumps(TERMS.to_dict())))
    assert again == TERMS
    rich = replace(
        TERMS,
        path_model=MODEL,
        holidays=("2025-04-14",),
        splits=(("2025-04-15", 2.0),),
        missing=("2025-04-16",),
    )
    assert HistoryTerms.from_dict(json.loads(json.dumps(rich.to_dict()))) == rich


def test_a_missing_day_changes_no_other():
    missing = replace(TERMS, missing=("2025-04-11", "2025-04-15"))
    days = {day.terms.quote_time: day.table for day in simulate_history(TERMS)}
    kept = {day.terms.quote_time: day.table for day in simulate_history(missing)}
    assert len(kept) == len(days) - 2
    for time, table in kept.items():
        pd.testing.assert_frame_equal(table, days[time])


def test_a_written_history_has_chains_and_tables(tmp_path):
    terms = replace(TERMS, missing=("2025-04-16",), splits=(("2025-04-15", 2.0),))
    history = write_simulated_history(terms, tmp_path, "csv")
    assert len(history) == 7
    assert history.missing_dates.strftime("%m-%d").tolist() == ["04-16"]
    path = simulate_underlying(terms)
    pd.testing.assert_series_equal(
        history.underlying_prices,
        path["close"],
        check_names=False,
        check_freq=False,
    )
    pd.testing.assert_frame_equal(
        history.settlement_prices, settlement_prices(terms), check_dtype=False
    )
    assert history.splits.tolist() == [2.0]
    for day, chain in zip(simulate_history(terms), history.scan(), strict=True):
        assert chain.rows["bid"].tolist() == day.table["bid"].tolist()
        assert not chain.codes.any()
        assert [date for date, _ in chain.slices] == day.slices.index.tolist()
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("part*")}
    write_simulated_history(terms, tmp_path, "csv")
    assert {path: path.stat().st_mtime_ns for path in files} == files


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spot": 0.0}, "spot must be positive"),
        ({"days": 0}, "days must be positive"),
        ({"weeklies": -1}, "must not be negative"),
        ({"weeklies": 0, "monthlies": 0, "quarterlies": 0}, "nor all zero"),
        (
            {"splits": (("2025-04-15", 0.0),)},
            "the split of 2025-04-15 must be positive",
        ),
        (
            {"splits": (("2025-04-18", 2.0),)},
            "a split on 2025-04-18, which is no trading",
        ),
    ],
)
def test_terms_must_make_sense(change, message):
    with pytest.raises(ValueError, match=message):
        replace(TERMS, **change)


def test_the_bundled_history_is_made_by_its_generator(tmp_path):
    """Its files are, to the last byte once unpacked, what `data/generate.py` writes."""
    path = ROOT / "data" / "generate.py"
    specification = importlib.util.spec_from_file_location("generate", path)
    assert specification is not None
    assert specification.loader is not None
    generate = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(generate)
    write_simulated_history(generate.HISTORY_TERMS, tmp_path, "csv")

    def files(folder):
        found = {}
        for path in folder.rglob("*.*"):
            if path.is_file():
                content = path.read_bytes()
                unpacked = gzip.decompress(content) if path.suffix == ".gz" else content
                found[path.relative_to(folder).as_posix()] = unpacked
        return found

    bundled = files(bundled_path("bates_history"))
    assert len(bundled) == len(bundled_history()) + 4
    assert files(tmp_path) == bundled

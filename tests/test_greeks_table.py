"""Implied volatilities and Greeks added to tables of quotes."""

import numpy as np
import pandas as pd
import pytest

from relu_options import bachelier, black_scholes
from relu_options.errors import QuoteError
from relu_options.greeks_table import add_greeks, volatility_violations
from relu_options.market_data import prepare_quotes
from relu_options.simulation import bundled_chain


@pytest.fixture
def quotes(rng):
    """Quotes of two expiries at 20%, under an index that is not a range."""
    strike = np.tile(np.linspace(80.0, 120.0, 9), 2)
    time_to_expiry = np.repeat([0.25, 1.0], 9)
    is_call = strike >= 100.0
    price = black_scholes.price(
        forward=101.0,
        discount_factor=0.97,
        strike=strike,
        time_to_expiry=time_to_expiry,
        volatility=0.2,
        is_call=is_call,
    )
    return pd.DataFrame(
        {
            "strike": strike,
            "option_type": np.where(is_call, "call", "put"),
            "time_to_expiry": time_to_expiry,
            "bid": price - 0.01,
            "ask": price + 0.01,
        },
        index=pd.Index(rng.permutation(18) + 100, name="contract"),
    )


def test_rows_get_their_volatilities_and_greeks(quotes):
    before = quotes.copy()
    table = add_greeks(quotes, forward=101.0, discount_factor=0.97)
    pd.testing.assert_frame_equal(quotes, before)
    pd.testing.assert_frame_equal(table[quotes.columns], quotes)
    np.testing.assert_allclose(table["implied_volatility"], 0.2, rtol=1e-12)
    assert set(table["quote_status"]) == {"found"}
    expected = black_scholes.vega(
        forward=101.0,
        discount_factor=0.97,
        strike=quotes["strike"],
        time_to_expiry=quotes["time_to_expiry"],
        volatility=0.2,
    )
    pd.testing.assert_series_equal(table["vega"], expected, check_names=False)


def test_terms_may_be_columns_of_either_form(quotes):
    by_forward = add_greeks(quotes.assign(forward=101.0, discount_factor=0.97))
    spot = 101.0 * np.exp(-0.03 * quotes["time_to_expiry"])
    market = {"spot": spot, "rate": 0.03, "discount_factor": 0.97}
    by_spot = add_greeks(quotes.assign(**market).drop(columns="discount_factor"))
    assert by_spot["quote_status"].eq("found").all()
    in_forward = by_spot["delta"] * np.exp(-0.03 * quotes["time_to_expiry"])
    assert by_forward["delta"].corr(in_forward) > 0.999


def test_the_normal_model(quotes):
    table = add_greeks(quotes, model="bachelier", forward=101.0, discount_factor=0.97)
    expected = bachelier.normal_from_lognormal_volatility(
        volatility=0.2,
        forward=101.0,
        strike=quotes["strike"],
        time_to_expiry=quotes["time_to_expiry"],
    )
    np.testing.assert_allclose(table["implied_volatility"], expected, rtol=1e-10)


def test_a_bad_quote_is_named_and_harms_no_other(quotes):
    good = add_greeks(quotes, forward=101.0, discount_factor=0.97)
    first, second, third = quotes.index[:3]
    quotes.loc[first, ["bid", "ask"]] = -1.0
    quotes.loc[second, "bid"] = np.nan
    quotes.loc[third, ["bid", "ask"]] = 500.0
    table = add_greeks(quotes, forward=101.0, discount_factor=0.97)
    pd.testing.assert_frame_equal(table.iloc[3:], good.iloc[3:])
    assert table.loc[[first, second, third], "delta"].isna().all()
    faults = volatility_violations(quotes, forward=101.0, discount_factor=0.97)
    assert list(faults.index) == [first, second, third]
    assert list(faults["quote_status"]) == ["too_low", "undefined", "too_high"]
    np.testing.assert_allclose(faults["upper_bound"], 0.97 * faults["strike"])


def test_any_table_is_read_and_a_chain_knows_its_terms(quotes, tmp_path):
    expected = add_greeks(quotes, forward=101.0, discount_factor=0.97)
    path = tmp_path / "quotes.csv"
    spelled = quotes.rename(columns={"strike": "level", "option_type": "cp"})
    spelled.assign(cp=spelled["cp"].str[0].str.upper()).to_csv(path, index=False)
    found = add_greeks(
        path, columns={"strike": "level"}, forward=101.0, discount_factor=0.97
    )
    np.testing.assert_allclose(found["delta"], expected["delta"], rtol=1e-9)
    chain = bundled_chain()["2025-06-20"]
    prepared = prepare_quotes(chain, rate=0.04)
    table = add_greeks(chain, rate=0.04)
    assert set(table["discount_factor"]) == {prepared.discount_factor}
    by_rows = add_greeks(chain.to_frame(), rate=0.04)
    np.testing.assert_allclose(by_rows["delta"], table["delta"], rtol=1e-12)


@pytest.mark.parametrize(
    ("change", "terms", "message"),
    [
        (lambda q: q.drop(columns="strike"), {}, "missing \\['strike'\\]"),
        (lambda q: q.drop(columns="ask"), {}, "missing \\['ask'\\]"),
        (lambda q: q.drop(columns="time_to_expiry"), {}, "pass `time_to_expiry=`"),
        (lambda q: q, {"forward": None}, "pass `forward=` or `spot=`"),
        (lambda q: q.assign(delta=0.5), {}, "already have columns \\['delta'\\]"),
        (lambda q: q.assign(option_type="X"), {}, "in 18 of 18 rows: row"),
        (lambda q: q.assign(strike="high"), {}, "column 'strike' holds values"),
    ],
)
def test_tables_that_cannot_be_priced_say_what_is_missing(
    quotes, change, terms, message
):
    terms = {"forward": 101.0} | terms
    terms = {name: value for name, value in terms.items() if value is not None}
    with pytest.raises(QuoteError, match=message):
        add_greeks(change(quotes), **terms)


def test_requests_that_make_no_sense_are_refused(quotes):
    with pytest.raises(ValueError, match="unknown terms \\['foward'\\]"):
        add_greeks(quotes, foward=101.0)
    with pytest.raises(ValueError, match="got both"):
        add_greeks(quotes, forward=101.0, spot=100.0)
    with pytest.raises(ValueError, match="`model` must be one of"):
        add_greeks(quotes, model="heston", forward=101.0)  # type: ignore[arg-type]

"""`prepare_quotes`: from a table of one expiry to the arrays that a fit takes."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import ndtr

from relu_options import black_scholes
from relu_options.errors import QuoteError
from relu_options.market_data import prepare_quotes

FORWARD, DISCOUNT, YEARS, VOLATILITY = 103.0, 0.97, 0.5, 0.25
TERMS: dict[str, Any] = {
    "forward": FORWARD,
    "discount_factor": DISCOUNT,
    "time_to_expiry": YEARS,
}


def black_price(strike, is_call, volatility=VOLATILITY):
    deviation = volatility * np.sqrt(YEARS)
    d1 = np.log(FORWARD / strike) / deviation + 0.5 * deviation
    call = FORWARD * ndtr(d1) - strike * ndtr(d1 - deviation)
    return DISCOUNT * np.where(is_call, call, call - FORWARD + strike)


def two_sided(strikes=None, half_spread=0.05):
    """Calls, then puts, at each strike; an index of its own; a column of the user's."""
    if strikes is None:
        strikes = np.arange(70.0, 145.0, 5.0)
    strike = np.concatenate([strikes, strikes])
    is_call = np.arange(len(strike)) < len(strikes)
    mid = black_price(strike, is_call)
    return pd.DataFrame(
        {
            "strike": strike,
            "option_type": np.where(is_call, "call", "put"),
            "bid": np.maximum(mid - half_spread, 0.0),
            "ask": mid + half_spread,
            "note": "mine",
        },
        index=[f"q{number}" for number in range(len(strike))],
    )


def at(quotes, strike, option_type):
    return (quotes["strike"] == strike) & (quotes["option_type"] == option_type)


def test_out_of_the_money_quotes_are_chosen_one_per_strike():
    quotes = two_sided()
    prepared = prepare_quotes(quotes, **TERMS)
    assert len(prepared) == 15
    assert len(np.unique(prepared.strike)) == 15
    np.testing.assert_array_equal(prepared.is_call, prepared.strike >= FORWARD)
    frame = prepared.to_frame()
    pd.testing.assert_frame_equal(
        frame[["strike", "option_type", "bid", "ask"]],
        quotes.loc[prepared.labels, ["strike", "option_type", "bid", "ask"]],
        check_dtype=False,
    )
    np.testing.assert_allclose(
        prepared.mid, 0.5 * (prepared.bid + prepared.ask), rtol=1e-15
    )
    assert not prepared.converted.any()
    assert prepared.has_spreads
    assert prepared.parity is None
    assert prepared.implied_volatility is None


def test_the_users_rows_keep_their_labels_columns_and_order(rng):
    quotes = two_sided().sample(frac=1.0, random_state=1)
    before = quotes.copy(deep=True)
    prepared = prepare_quotes(quotes, **TERMS)
    pd.testing.assert_frame_equal(quotes, before)
    pd.testing.assert_frame_equal(prepared.table, quotes.loc[prepared.labels])
    assert list(prepared.labels) == [x for x in quotes.index if x in prepared.labels]
    np.testing.assert_array_equal(prepared.table["strike"], prepared.strike)


def test_the_table_is_not_what_the_user_does_to_the_frame_later():
    quotes = two_sided()
    prepared = prepare_quotes(quotes, **TERMS)
    quotes["note"] = "changed"
    quotes.loc[:, "bid"] = -1.0
    assert set(prepared.table["note"]) == {"mine"}
    assert "(-1 /" not in repr(prepared.report.to_frame())
    assert (prepared.table["bid"] >= 0.0).all()


def test_forward_and_discount_factor_are_implied_where_not_given():
    prepared = prepare_quotes(two_sided(), time_to_expiry=YEARS)
    assert prepared.parity is not None
    assert prepared.forward == pytest.approx(FORWARD, abs=1e-3)
    assert prepared.discount_factor == pytest.approx(DISCOUNT, abs=1e-3)
    assert prepared.parity.pairs == 15
    given = prepare_quotes(two_sided(), time_to_expiry=YEARS, forward=FORWARD)
    assert given.forward == FORWARD
    assert given.discount_factor == pytest.approx(DISCOUNT, abs=1e-3)
    given = prepare_quotes(two_sided(), time_to_expiry=YEARS, discount_factor=DISCOUNT)
    assert given.discount_factor == DISCOUNT
    assert given.forward == pytest.approx(FORWARD, abs=1e-6)


def test_terms_may_be_columns():
    quotes = two_sided().assign(F=FORWARD, df=DISCOUNT, ttm=YEARS)
    prepared = prepare_quotes(quotes)
    assert prepared.parity is None
    assert prepared.forward == FORWARD
    assert prepared.discount_factor == DISCOUNT
    assert prepared.time_to_expiry == YEARS


def test_a_strike_quoted_in_the_money_only_is_turned_by_parity():
    quotes = two_sided()
    quotes = quotes[~at(quotes, 90.0, "put") & ~at(quotes, 120.0, "call")]
    prepared = prepare_quotes(quotes, **TERMS)
    assert len(prepared) == 15
    np.testing.assert_array_equal(
        prepared.converted, np.isin(prepared.strike, [90.0, 120.0])
    )
    np.testing.assert_array_equal(prepared.is_call, prepared.strike >= FORWARD)
    np.testing.assert_allclose(
        prepared.mid, black_price(prepared.strike, prepared.is_call), atol=1e-12
    )
    source = quotes.loc[prepared.labels[prepared.converted]]
    assert source["option_type"].tolist() == ["call", "put"]


def test_a_converted_bid_is_never_negative():
    quotes = two_sided(half_spread=0.05)
    wide = at(quotes, 70.0, "call")
    quotes.loc[wide, ["bid", "ask"]] += [-2.0, 2.0]
    quotes = quotes[~at(quotes, 70.0, "put")]
    prepared = prepare_quotes(quotes, **TERMS)
    assert prepared.bid[prepared.strike == 70.0] == 0.0


def test_an_unusable_out_of_the_money_quote_gives_way_to_the_other():
    quotes = two_sided()
    quotes.loc[at(quotes, 120.0, "call"), "ask"] = np.nan
    prepared = prepare_quotes(quotes, **TERMS)
    assert prepared.report.counts == {"missing_ask": 1, "in_the_money": 14}
    assert prepared.converted[prepared.strike == 120.0]


def test_a_zero_bid_is_a_quote():
    quotes = two_sided()
    quotes.loc[at(quotes, 70.0, "put"), ["bid", "ask"]] = [0.0, 0.1]
    prepared = prepare_quotes(quotes, **TERMS)
    row = prepared.strike == 70.0
    assert (prepared.bid[row], prepared.ask[row]) == (0.0, 0.1)


def test_mids_alone():
    quotes = two_sided()
    mids = pd.DataFrame(
        {
            "K": quotes["strike"],
            "cp": quotes["option_type"].str[0].str.upper(),
            "settle": black_price(quotes["strike"], quotes["option_type"] == "call"),
        }
    )
    prepared = prepare_quotes(mids, time_to_expiry=YEARS)
    assert not prepared.has_spreads
    assert np.isnan(prepared.bid).all()
    assert np.isnan(prepared.ask).all()
    assert prepared.forward == pytest.approx(FORWARD, abs=1e-3)
    np.testing.assert_allclose(
        prepared.mid, black_price(prepared.strike, prepared.is_call), atol=1e-2
    )


@pytest.mark.parametrize("missing", [np.nan, None])
def test_mids_are_used_where_bid_and_ask_are_empty(missing):
    quotes = two_sided().assign(mark=1.0).astype({"bid": object, "ask": object})
    quotes["bid"] = quotes["ask"] = missing
    terms: dict[str, Any] = TERMS | {"forward": 70.0}
    prepared = prepare_quotes(quotes, **terms)
    assert not prepared.has_spreads


def test_volatilities_become_prices():
    strike = np.arange(70.0, 140.0, 5.0)
    quotes = pd.DataFrame({"strike": strike, "iv": 0.2 + 0.001 * np.abs(strike - 100)})
    prepared = prepare_quotes(quotes, **TERMS)
    np.testing.assert_array_equal(prepared.implied_volatility, quotes["iv"])
    np.testing.assert_allclose(
        prepared.mid,
        black_price(strike, strike >= FORWARD, quotes["iv"].to_numpy()),
        rtol=1e-11,
    )
    assert not prepared.has_spreads


def test_volatilities_agree_with_the_package():
    quotes = pd.DataFrame({"strike": np.arange(70.0, 140.0, 5.0), "iv": VOLATILITY})
    prepared = prepare_quotes(quotes, **TERMS)
    expected = black_scholes.price(
        strike=prepared.strike,
        volatility=VOLATILITY,
        is_call=prepared.is_call,
        **TERMS,
    )
    np.testing.assert_allclose(prepared.mid, expected, rtol=1e-11)


def test_percent_volatilities_are_recognised_noted_and_overridable():
    quotes = pd.DataFrame({"strike": np.arange(70.0, 140.0, 5.0), "iv": 20.5})
    prepared = prepare_quotes(quotes, **TERMS)
    assert prepared.implied_volatility is not None
    np.testing.assert_allclose(prepared.implied_volatility, 0.205, rtol=1e-15)
    assert any("taken as percent" in note for note in prepared.report.notes)
    as_given = prepare_quotes(quotes, **TERMS, volatility_unit="fraction")
    np.testing.assert_array_equal(as_given.implied_volatility, 20.5)
    small = prepare_quotes(quotes.assign(iv=2.0), **TERMS, volatility_unit="percent")
    assert small.implied_volatility is not None
    np.testing.assert_allclose(small.implied_volatility, 0.02, rtol=1e-15)


def test_prices_win_over_a_vendors_volatilities():
    quotes = two_sided().assign(iv=9.99)
    assert prepare_quotes(quotes, **TERMS).implied_volatility is None


def test_calls_and_puts_of_one_strike_share_their_volatility():
    quotes = two_sided()[["strike", "option_type"]].assign(iv=0.2)
    prepared = prepare_quotes(quotes, **TERMS)
    assert len(prepared) == 15
    assert prepared.report.counts == {"duplicated_strike": 15}


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        (lambda quotes: quotes["option_type"] == "call", "taken as calls"),
        (lambda quotes: quotes["option_type"] == "put", "taken as puts"),
        (
            lambda quotes: (
                (quotes["option_type"] == "call") == (quotes["strike"] >= FORWARD)
            ),
            "taken as out-of-the-money options",
        ),
    ],
)
def test_without_option_types_prices_tell_and_the_report_says_so(keep, words):
    quotes = two_sided()
    untyped = quotes[keep(quotes)].drop(columns="option_type")
    prepared = prepare_quotes(untyped, **TERMS)
    assert any(words in note for note in prepared.report.notes)
    np.testing.assert_allclose(
        prepared.mid, black_price(prepared.strike, prepared.is_call), atol=0.03
    )


def test_contract_symbols_tell_the_option_type_and_the_settlement():
    quotes = two_sided()
    symbols = [
        f"SPX190621{kind[0].upper()}{round(1000 * strike):08d}"
        for kind, strike in zip(quotes["option_type"], quotes["strike"], strict=True)
    ]
    quotes = quotes.drop(columns="option_type").assign(
        contractSymbol=symbols, expiry="2019-06-21"
    )
    prepared = prepare_quotes(
        quotes, forward=FORWARD, discount_factor=DISCOUNT, quote_time="2019-05-17"
    )
    assert prepared.settlement == "AM"
    assert prepared.underlying == "SPX"
    assert prepared.time_to_expiry == pytest.approx((35 - 6.5 / 24) / 365, rel=1e-12)


def test_dates_and_clocks_give_the_time_to_expiry():
    quotes = two_sided().assign(expiration="2019-06-21", quote_date="2019-05-17")
    prepared = prepare_quotes(quotes, forward=FORWARD, discount_factor=DISCOUNT)
    assert prepared.time_to_expiry == pytest.approx(35.0 / 365.0, rel=1e-12)
    assert prepared.expiry == pd.Timestamp("2019-06-21")
    assert prepared.quote_time == pd.Timestamp("2019-05-17 20:00", tz="UTC")
    later = prepare_quotes(
        quotes, forward=FORWARD, discount_factor=DISCOUNT, quote_time="2019-05-18"
    )
    assert later.time_to_expiry == pytest.approx(34.0 / 365.0, rel=1e-12)


def test_every_row_is_accounted_for():
    quotes = two_sided()
    quotes.iloc[0, 0] = np.nan
    quotes.iloc[1, 0] = -80.0
    quotes.iloc[2, 1] = "future"
    quotes.iloc[3, 2:4] = np.nan
    quotes.iloc[4, 2] = -0.1
    quotes.iloc[5, 2:4] = 0.0
    quotes.iloc[7, 2] = np.nan
    quotes.iloc[9, 2] = 99.0
    quotes.iloc[10, 2:4] = [90.0 * DISCOUNT + 30.0, 150.0]
    quotes.iloc[29, 2:4] = [10.0, 10.1]
    report = prepare_quotes(quotes, **TERMS).report
    assert report.counts == {
        "missing_strike": 1,
        "nonpositive_strike": 1,
        "unknown_option_type": 1,
        "missing_quote": 1,
        "negative_quote": 1,
        "no_quote": 1,
        "missing_bid": 1,
        "crossed_quote": 1,
        "below_intrinsic": 1,
        "above_bound": 1,
        "in_the_money": 5,
    }
    assert report.rows_in == report.rows_used + sum(report.counts.values())
    frame = report.to_frame()
    assert str(frame.loc["crossed_quote", "examples"]).startswith("q9: call 115")
    assert frame["rows"].sum() == report.rows_in - report.rows_used
    assert "dropped 1: bid above ask: q9: call 115" in repr(report)
    dropped = {rows.rule: list(rows.labels) for rows in report}
    assert dropped["missing_quote"] == ["q3"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            {"bid": 50.0, "ask": 22.83},
            r"bid above ask in 1 of 30 rows: q2: call 80 \(50 / 22.83\); correct or",
        ),
        ({"bid": -1.0}, r"negative quote in 1 of 30 rows: q2: call 80"),
        ({"bid": 0.0, "ask": 0.0}, r"bid and ask, or mid, zero in 1 of 30 rows"),
        ({"strike": np.nan}, r"strike missing in 1 of 30 rows: q2: call nan"),
        ({"strike": -80.0}, r"strike zero or negative in 1 of 30 rows"),
        ({"bid": 9.0, "ask": 9.1}, r"ask below intrinsic value in 1 of 30 rows"),
        ({"strike": 75.0, "bid": 0.0, "ask": 99.0}, r"strike quoted again"),
    ],
)
def test_bad_rows_raise_where_asked(spoil, message):
    quotes = two_sided()
    quotes.loc["q2", list(spoil)] = list(spoil.values())
    with pytest.raises(QuoteError, match=message):
        prepare_quotes(quotes, **TERMS, on_bad_quotes="raise")
    assert len(prepare_quotes(quotes, **TERMS)) >= 14


def test_only_the_first_three_bad_rows_are_named():
    quotes = two_sided()
    quotes.iloc[:5, 2] = 999.0
    with pytest.raises(QuoteError, match=r"in 5 of 30 rows: q0: .*q1: .*q2: .*\.\.\.;"):
        prepare_quotes(quotes, **TERMS, on_bad_quotes="raise")


def test_repeated_rows_are_dropped_the_tighter_quote_kept():
    quotes = two_sided()
    again = quotes.iloc[[3, 20]].rename(index="again {}".format)
    again["bid"] -= [0.5, 0.0]
    prepared = prepare_quotes(pd.concat([again, quotes]), **TERMS)
    assert prepared.report.counts["duplicated_strike"] == 2
    assert "again q3" not in prepared.labels


def test_contradicting_repeats_look_like_two_expiries():
    quotes = two_sided()
    both = pd.concat([quotes, quotes.assign(ask=quotes["ask"] + 1.0)])
    with pytest.raises(QuoteError, match=r"30 of 30 options are quoted again"):
        prepare_quotes(both, **TERMS)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"expiry": ["2019-06-21"] * 10 + ["2019-07-19"] * 20}, "2 expiries in one"),
        ({"ttm": [0.5] * 10 + [0.25] * 20}, "2 times to expiry in one table"),
        ({"settlement": ["AM"] * 10 + ["PM"] * 20}, r"2 settlements \(AM and PM\)"),
        ({"underlying": ["SPX"] * 10 + ["NDX"] * 20}, "2 underlyings in one table"),
        ({"forward": [100.0] * 10 + [101.0] * 20}, "2 values of 'forward'"),
        (
            {"contract": ["SPX190621C00100000"] * 10 + ["SPXW190621C00100000"] * 20},
            r"2 settlements \(AM and PM\)",
        ),
    ],
)
def test_a_table_of_two_kinds_is_an_error(columns, message):
    with pytest.raises(QuoteError, match=message):
        prepare_quotes(two_sided().assign(**{"ttm": YEARS, **columns}))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pd.DataFrame({"bid": [1.0], "ask": [1.1]}), "need a column 'strike'"),
        (pd.DataFrame({"strike": [1.0], "bid": [1.1]}), "missing 'ask'"),
        (pd.DataFrame({"strike": [1.0]}), "'bid' and 'ask', or 'mid'"),
        (pd.DataFrame({"strike": [], "mid": []}), "has no rows"),
        (
            pd.DataFrame([[1.0, 1.0, 2.0]], columns=["strike", "mid", "mid"]),
            "2 columns are named 'mid'",
        ),
    ],
)
def test_a_table_without_quotes_is_an_error(table, message):
    with pytest.raises(QuoteError, match=message):
        prepare_quotes(table, **TERMS)


def test_unknown_times_are_errors():
    with pytest.raises(QuoteError, match="or `time_to_expiry=` in years"):
        prepare_quotes(two_sided(), forward=FORWARD)
    with pytest.raises(QuoteError, match="does not say when the quotes were taken"):
        prepare_quotes(two_sided().assign(expiry="2019-06-21"), forward=FORWARD)
    with pytest.raises(QuoteError, match="is not after the quote time"):
        prepare_quotes(two_sided().assign(expiry="2019-06-21"), quote_time="2019-06-24")
    with pytest.raises(QuoteError, match="it must be positive"):
        prepare_quotes(two_sided().assign(ttm=-0.1), forward=FORWARD)


def test_fewer_than_three_usable_strikes_are_an_error():
    quotes = two_sided(strikes=np.array([100.0, 105.0]))
    with pytest.raises(QuoteError, match="only 2 usable strikes, where at least 3"):
        prepare_quotes(quotes, **TERMS)


@pytest.mark.parametrize(
    ("quotes", "message"),
    [
        (pd.DataFrame({"strike": [90.0, 100.0, 110.0], "iv": 0.2}), "volatilities"),
        (pd.DataFrame({"strike": [90.0, 100.0, 110.0], "mid": 1.0}), "'option_type'"),
        (two_sided().iloc[:15], r"too few strikes .* \(0\)"),
    ],
)
def test_a_forward_that_cannot_be_implied_is_an_error(quotes, message):
    with pytest.raises(QuoteError, match=message):
        prepare_quotes(quotes, time_to_expiry=YEARS)


def test_a_discount_factor_that_cannot_be_implied_is_one_and_noted():
    prepared = prepare_quotes(
        two_sided().iloc[:15], time_to_expiry=YEARS, forward=FORWARD
    )
    assert prepared.discount_factor == 1.0
    assert any("taken as 1" in note for note in prepared.report.notes)


@pytest.mark.parametrize("name", ["forward", "discount_factor", "time_to_expiry"])
@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_terms_must_be_positive(name, value):
    """A forward may be negative, but not of an index whose pairs say otherwise."""
    message = f"`{name}` must be positive and finite"
    if (name, value) == ("forward", -1.0):
        message = "exclude the forward given, -1"
    with pytest.raises(ValueError, match=message):
        prepare_quotes(two_sided(), **TERMS | {name: value})


def test_unknown_options_are_refused():
    with pytest.raises(TypeError, match="a path or a DataFrame, not float"):
        prepare_quotes(1.0)
    with pytest.raises(ValueError, match="`volatility_unit` must be"):
        prepare_quotes(two_sided(), **TERMS, volatility_unit="bp")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`on_bad_quotes` must be"):
        prepare_quotes(two_sided(), **TERMS, on_bad_quotes="ignore")  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["float64[pyarrow]", "Float64", "object", "float32"])
def test_dtypes_of_every_kind(dtype):
    quotes = two_sided()
    plain = prepare_quotes(quotes, **TERMS)
    other = quotes.astype({name: dtype for name in ("strike", "bid", "ask")})
    prepared = prepare_quotes(other, **TERMS)
    np.testing.assert_allclose(prepared.mid, plain.mid, rtol=1e-6)
    assert prepared.mid.dtype == np.float64


def test_american_options_are_noted():
    quotes = two_sided().assign(exercise_style="american")
    notes = prepare_quotes(quotes, time_to_expiry=YEARS).report.notes
    assert any("American" in note for note in notes)


def test_repr_says_what_matters():
    assert repr(prepare_quotes(two_sided(), **TERMS)) == (
        "ExpiryQuotes(15 quotes, strikes 70 to 140, forward=103, "
        "discount_factor=0.97, time_to_expiry=0.5)"
    )

"""Bad input to `fit_curve`: each kind gets its error or its line in the report."""

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import ndtr

import relu_options as ro
from relu_options.arbitrage import least_excess
from relu_options.errors import ArbitrageError, QuoteError

FORWARD, DISCOUNT, YEARS, VOLATILITY = 103.0, 0.97, 0.5, 0.25
TERMS: dict[str, Any] = {
    "forward": FORWARD,
    "discount_factor": DISCOUNT,
    "time_to_expiry": YEARS,
}
STRIKES = np.arange(70.0, 145.0, 5.0)


def black_price(strike, is_call):
    deviation = VOLATILITY * np.sqrt(YEARS)
    d1 = np.log(FORWARD / strike) / deviation + 0.5 * deviation
    call = FORWARD * ndtr(d1) - strike * ndtr(d1 - deviation)
    return DISCOUNT * np.where(is_call, call, call - FORWARD + strike)


@pytest.fixture
def quotes():
    """Calls, then puts, at fifteen strikes; `c100` and `p100` label those at 100."""
    strike = np.concatenate([STRIKES, STRIKES])
    is_call = np.arange(30) < 15
    mid = black_price(strike, is_call)
    return pd.DataFrame(
        {
            "strike": strike,
            "option_type": np.where(is_call, "call", "put"),
            "bid": np.maximum(mid - 0.05, 0.0),
            "ask": mid + 0.05,
        },
        index=[
            f"{'pc'[int(call)]}{k:g}" for k, call in zip(strike, is_call, strict=True)
        ],
    )


@pytest.fixture
def volatilities():
    return pd.DataFrame({"strike": STRIKES, "implied_volatility": VOLATILITY})


def fit(quotes, **terms) -> ro.PriceCurve:
    return ro.fit_curve(quotes, **(TERMS | terms))


def report(curve: ro.PriceCurve):
    assert curve.report is not None
    return curve.report


def assert_is_the_true_curve(curve, atol=2e-3):
    """Certified, and near the volatility that the quotes were made from."""
    assert curve.certificate
    inside = STRIKES[2:-2]
    np.testing.assert_allclose(
        curve.implied_volatility(inside), VOLATILITY, rtol=0, atol=atol
    )


def test_sound_quotes_need_no_words(quotes):
    curve = fit(quotes)
    assert_is_the_true_curve(curve)
    assert report(curve).counts == {"in_the_money": 15}
    assert report(curve).faults == 0
    assert "dropped" not in repr(curve)
    assert curve.conflicts.empty
    assert curve.quote_arbitrage.is_arbitrage_free


# The table


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        (["strike"], r"need a column 'strike'; the table has \['option_type'"),
        (["ask"], r"both 'bid' and 'ask', or 'mid'; missing 'ask' in"),
        (["bid"], r"missing 'bid' in .*name it with `columns="),
        (["bid", "ask"], r"'bid' and 'ask', or 'mid', or 'implied_volatility'"),
        (
            ["option_type"],
            r"no column that tells them apart: add or fill 'option_type'",
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_a_missing_column_is_named_with_the_columns_there(quotes, missing, message):
    with pytest.raises(QuoteError, match=message):
        fit(quotes.drop(columns=missing))


def test_types_are_read_from_the_prices_where_one_option_per_strike_is_quoted(quotes):
    """And the report says so."""
    out = (quotes["strike"] >= FORWARD) == (quotes["option_type"] == "call")
    for kept, kind in (
        (quotes[out], "out-of-the-money options"),
        (quotes[quotes["option_type"] == "call"], "calls"),
    ):
        curve = fit(kept.drop(columns="option_type"))
        assert_is_the_true_curve(curve)
        assert f"taken as {kind} from the prices" in repr(report(curve))
        assert "1 note: see `report`" in repr(curve)


def test_no_rows(quotes):
    with pytest.raises(QuoteError, match="the table of quotes has no rows"):
        fit(quotes.iloc[:0])


def test_no_table():
    numbers: Any = [1.0, 2.0]
    with pytest.raises(TypeError, match="a path or a DataFrame, not list"):
        fit(numbers)


def test_strikes_that_are_no_prices_are_dropped_by_name(quotes):
    quotes.loc["c120", "strike"] = np.nan
    quotes.loc["p90", "strike"] = -90.0
    quotes.loc["c135", "strike"] = 0.0
    curve = fit(quotes)
    assert_is_the_true_curve(curve)
    assert report(curve).counts["missing_strike"] == 1
    assert report(curve).counts["nonpositive_strike"] == 2
    assert "strike zero or negative: c135: call 0 (" in repr(report(curve))
    assert "3 rows dropped: see `report`" in repr(curve)


def test_a_table_of_strikes_that_are_no_prices_is_refused(quotes):
    with pytest.raises(QuoteError, match=r"no row can be used.*strike missing: c70"):
        fit(quotes.assign(strike=np.nan))


def test_bad_quotes_are_dropped_by_name_and_the_other_option_is_used(quotes):
    quotes.loc["c120", ["bid", "ask"]] = 3.0, 2.0
    quotes.loc["c125", ["bid", "ask"]] = 0.0
    quotes.loc["c135", "bid"] = np.nan
    quotes.loc["c140", "bid"] = -1.0
    quotes.loc["p95", "ask"] = np.inf
    curve = fit(quotes)
    assert_is_the_true_curve(curve)
    counts = report(curve).counts
    assert {name: counts[name] for name in counts if name != "in_the_money"} == {
        "negative_quote": 1,
        "no_quote": 1,
        "missing_ask": 1,
        "missing_bid": 1,
        "crossed_quote": 1,
    }
    assert "bid above ask: c120: call 120 (3 / 2)" in repr(report(curve))
    assert len(curve.quotes) == 15  # the put of each strike was there too
    assert "5 rows dropped" in repr(curve)


def test_a_zero_bid_is_a_quote(quotes):
    """The interval from zero to the ask, which says nothing about the volatility."""
    quotes.loc[["p70", "c140"], "bid"] = 0.0
    curve = fit(quotes)
    assert curve.share_inside == 1.0
    assert report(curve).faults == 0
    assert {"p70", "c140"} < {*curve.quotes.index}


@pytest.mark.parametrize(
    ("change", "meaning"),
    [
        (lambda table: table.assign(bid=table["ask"], ask=table["bid"]), "bid above"),
        (lambda table: table.assign(bid=0.0, ask=0.0), "bid and ask, or mid, zero"),
        (lambda table: table.assign(bid=-1.0), "negative quote"),
        (lambda table: table.assign(ask="n/a"), "ask missing"),
    ],
    ids=["crossed", "zero", "negative", "text"],
)
def test_a_table_of_bad_quotes_is_refused_by_its_rule(quotes, change, meaning):
    with pytest.raises(QuoteError, match=rf"no row can be used.*{meaning}.*c70"):
        fit(change(quotes))


def test_bids_that_are_all_zero_are_noted(quotes):
    """Any low volatility fits: there is no error to state, and none is made up."""
    curve = fit(quotes.assign(bid=0.0))
    assert curve.share_inside == 1.0
    assert "every bid is zero" in repr(report(curve))
    assert "nan" not in str(curve)


# Volatilities


@pytest.mark.parametrize("text", [False, True])
def test_percent_volatilities_are_taken_as_such(volatilities, text):
    """A percent sign is read, and a bare number above four is noted."""
    percent = "25.0%" if text else 25.0
    curve = fit(volatilities.assign(implied_volatility=percent))
    assert_is_the_true_curve(curve, atol=1e-6)
    assert ("taken as percent" in repr(report(curve))) is not text


def test_volatilities_that_may_be_percent_are_noted(volatilities):
    """1.6 may be 1.6 % or 160 %; it is taken as it stands, and the report asks."""
    curve = fit(volatilities.assign(implied_volatility=1.6))
    assert curve.implied_volatility(100.0) == pytest.approx(1.6, rel=1e-2)
    assert "fractions, with a median of 160%" in repr(report(curve))


# Repeated strikes, several expiries


def test_a_strike_quoted_again_is_used_once_at_its_tighter_spread(quotes):
    again = quotes.loc[["c120", "p90"]].assign(bid=0.0, ask=99.0)
    curve = fit(pd.concat([again.set_axis(["wide1", "wide2"]), quotes]))
    assert_is_the_true_curve(curve)
    assert report(curve).counts["duplicated_strike"] == 2
    assert "wide1: call 120 (0 / 99)" in repr(report(curve))
    assert curve.quotes["strike"].is_unique


def test_a_table_twice_is_the_table(quotes):
    once, twice = fit(quotes), fit(pd.concat([quotes, quotes]))
    np.testing.assert_array_equal(twice.network.weights, once.network.weights)


def test_strikes_that_contradict_each_other_are_refused(quotes):
    """They are of two expiries, settlements or times; none of them may be chosen."""
    other = quotes.assign(bid=1.5 * quotes["bid"], ask=1.5 * quotes["ask"])
    with pytest.raises(
        QuoteError, match=r"30 of 30 options.*strikes 70, 70, 75.*select one"
    ):
        fit(pd.concat([quotes, other]))


def test_two_expiries_in_one_table_are_named(quotes):
    both = pd.concat(
        [quotes.assign(expiry="2025-06-20"), quotes.assign(expiry="2025-09-19")]
    )
    with pytest.raises(
        QuoteError, match=r"2 expiries in .* 60 rows: 2025-06-20, 2025-09-19; select"
    ):
        fit(both)
    with pytest.raises(QuoteError, match=r"8 slices where one.*select one, as `chain"):
        fit(ro.bundled_chain())


@pytest.mark.parametrize("as_column", [True, False])
def test_an_expiry_before_the_quote_date_is_refused_with_both(quotes, as_column):
    quotes["expiry"] = "2025-06-20"
    terms: dict[str, Any] = {"forward": FORWARD, "discount_factor": DISCOUNT}
    if as_column:
        quotes["quote_time"] = "2025-07-01"
    else:
        terms["quote_time"] = "2025-07-01"
    with pytest.raises(
        QuoteError, match=r"2025-06-20 20:00 UTC, is not after .* 2025-07-01 20:00"
    ):
        ro.fit_curve(quotes, **terms)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, "need a column 'expiry' or 'time_to_expiry'"),
        ({"expiry": "2025-06-20"}, "when the quotes were taken; pass `quote_time="),
        ({"expiry": "soon", "quote_time": "2025-03-14"}, "'soon' is not a date"),
        ({"expiry": "2025-06-20", "quote_time": "noonish"}, "'noonish' is not a time"),
        ({"time_to_expiry": -0.1}, "is -0.1 years; it must be positive"),
    ],
)
def test_a_time_to_expiry_that_is_not_there_is_asked_for(quotes, columns, message):
    with pytest.raises(QuoteError, match=message):
        ro.fit_curve(
            quotes.assign(**columns), forward=FORWARD, discount_factor=DISCOUNT
        )


def test_fewer_than_three_usable_strikes_are_counted_with_their_reasons(quotes):
    few = quotes[quotes["strike"].isin([95.0, 100.0, 105.0])].copy()
    assert fit(few).certificate
    few.loc[["c100", "p100"], ["bid", "ask"]] = 3.0, 2.0
    with pytest.raises(
        QuoteError, match=r"only 2 usable strikes, .* at least 3.*bid above ask: c100"
    ):
        fit(few)


# Prices against their bounds


def test_quotes_below_intrinsic_value_are_dropped_by_name(quotes):
    """A call at 80 is worth 22.31 at least."""
    quotes.loc["c80", ["bid", "ask"]] = 21.0, 22.0
    curve = fit(quotes)
    assert_is_the_true_curve(curve)
    assert "ask below intrinsic value: c80: call 80 (21 / 22)" in repr(report(curve))
    alone = fit(quotes[quotes["option_type"] == "call"])
    assert_is_the_true_curve(alone, atol=5e-3)
    assert 80.0 not in {*alone.quotes["strike"]}
    assert "1 row dropped" in repr(alone)


def test_quotes_above_their_upper_bound_are_dropped_by_name(quotes):
    quotes.loc["p70", ["bid", "ask"]] = 70.0, 71.0
    curve = fit(quotes)
    assert_is_the_true_curve(curve)
    assert report(curve).counts["above_bound"] == 1
    assert "p70: put 70 (70 / 71)" in repr(report(curve))


# Arbitrage


def spoiled(quotes):
    """The call at 120 is wanted for 0.6 more than its neighbours can explain."""
    quotes = quotes.copy()
    quotes.loc["c120", ["bid", "ask"]] += 0.6
    return quotes


@pytest.mark.parametrize("smoothing", ["auto", 0.0])
def test_an_arbitrage_is_fitted_with_the_least_excess_and_named(quotes, smoothing):
    """The unsmoothed curve is the one that a linear programme finds, quote by quote."""
    curve = fit(spoiled(quotes), smoothing=smoothing)
    assert curve.certificate
    assert list(curve.conflicts.index) == ["c120"]
    assert curve.conflicts["excess"].min() > 0.0
    assert re.search(
        r"1 left by up to 0\.\d+ \(arbitrage: butterfly 115-120-125\)", str(curve)
    )
    prepared = ro.prepare_quotes(spoiled(quotes), **TERMS)
    best = least_excess(
        strike=prepared.strike,
        bid=prepared.bid,
        ask=prepared.ask,
        is_call=prepared.is_call,
        forward=FORWARD,
        discount_factor=DISCOUNT,
    )
    assert best.total_excess > 0.1
    excess = curve.quotes["excess"].to_numpy()
    if smoothing == 0.0:
        np.testing.assert_allclose(excess, best.excess, atol=1e-7)
    else:
        assert best.total_excess <= excess.sum() <= 1.5 * best.total_excess


def test_an_arbitrage_is_named_by_its_trade(quotes):
    curve = fit(spoiled(quotes))
    assert not curve.quote_arbitrage.is_arbitrage_free
    legs = curve.quote_arbitrage.simplest_trade()
    assert list(legs["strike"]) == [115.0, 120.0, 125.0]
    assert legs["cash_flow"].sum() > 0.0
    with pytest.raises(
        ArbitrageError,
        match=r"butterfly 115-120-125: buy 1 call 115 at [\d.]+, sell 2 call 120 at "
        r"[\d.]+, buy 1 call 125 at [\d.]+ earns [\d.]+ today.*call 120 \(0\.\d+\)",
    ):
        fit(spoiled(quotes), on_arbitrage="raise")


def test_an_arbitrage_is_named_in_the_options_that_were_quoted(quotes):
    """In-the-money calls are turned by parity to be fitted, but not in the message."""
    calls = quotes[quotes["option_type"] == "call"].copy()
    calls.loc["c85", ["bid", "ask"]] += 0.7
    with pytest.raises(ArbitrageError, match=r"sell \d+ call 85 at ") as error:
        fit(calls, on_arbitrage="raise")
    assert " put " not in str(error.value)


def test_mids_are_prices_to_be_met(quotes):
    """Where only they are known, an arbitrage in them raises if that was asked for."""
    mids = quotes.assign(mid=0.5 * (quotes["bid"] + quotes["ask"]))
    mids = mids.drop(columns=["bid", "ask"])
    assert fit(mids.drop("p70"), on_arbitrage="raise").certificate
    mids.loc["c120", "mid"] += 0.6
    assert fit(mids).certificate
    with pytest.raises(ArbitrageError, match="butterfly 115-120-125"):
        fit(mids, on_arbitrage="raise")


def test_quotes_without_arbitrage_pass_the_check(quotes):
    assert fit(quotes, on_arbitrage="raise").share_inside == 1.0


# Forward and discount factor


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (lambda table: table["option_type"] == "call", r"put quoted \(0\) to imply"),
        (
            lambda table: (table["option_type"] == "call") | (table["strike"] == 100.0),
            r"put quoted \(1\) to imply the forward; pass `forward=`",
        ),
    ],
    ids=["calls", "one pair"],
)
def test_a_forward_without_pairs_is_asked_for(quotes, chosen, message):
    with pytest.raises(QuoteError, match=message):
        ro.fit_curve(quotes[chosen(quotes)], time_to_expiry=YEARS)


def test_volatilities_do_not_tell_the_forward(volatilities):
    with pytest.raises(QuoteError, match=r"quotes are volatilities; pass `forward=`"):
        ro.fit_curve(volatilities, time_to_expiry=YEARS)


def test_pairs_that_imply_no_discount_factor_are_refused(quotes):
    """As with strikes in another unit than prices."""
    quotes["strike"] *= 1e4
    with pytest.raises(QuoteError, match=r"which no discount factor does; check"):
        ro.fit_curve(quotes, time_to_expiry=YEARS)


def test_a_discount_factor_that_cannot_be_implied_is_taken_as_one_and_noted(quotes):
    calls = quotes[quotes["option_type"] == "call"]
    curve = ro.fit_curve(calls, forward=FORWARD, time_to_expiry=YEARS)
    assert curve.discount_factor == 1.0
    assert "no discount factor: taken as 1" in repr(report(curve))


@pytest.mark.parametrize("forward", [95.0, 160.0])
def test_a_forward_that_parity_excludes_is_noted_with_the_one_implied(quotes, forward):
    curve = fit(quotes, forward=forward)
    assert curve.certificate
    assert re.search(
        rf"15 of 15 pairs .* exclude the forward given, {forward:g}: "
        r"by parity it is about 103;",
        repr(report(curve)),
    )


# The request


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"forward": 0.0}, r"`forward` must be positive and finite, not 0.0"),
        ({"forward": -1.0}, r"15 of 15 pairs .* exclude the forward given, -1"),
        ({"kernel": "log"}, r"kernel must be 'auto', 'lognormal' or 'normal'"),
        ({"forward": "103"}, r"`forward` must be one number, not '103'"),
        ({"discount_factor": 0.0}, r"`discount_factor` must be positive"),
        ({"time_to_expiry": np.nan}, r"`time_to_expiry` must be .* not nan"),
        ({"time_to_expiry": [0.5, 1.0]}, r"`time_to_expiry` must be one number"),
        ({"smoothing": "cv"}, r"smoothing must be 'auto' or >= 0, not 'cv'"),
        ({"smoothing": np.nan}, r"smoothing must be 'auto' or >= 0, not nan"),
        ({"kinks": 3}, r"kinks must be a whole number from 8 on, not 3"),
        ({"kinks": 20.5}, r"kinks must be a whole number from 8 on, not 20.5"),
        ({"narrowest": 0.0}, r"narrowest must be positive and finite, not 0.0"),
        ({"on_arbitrage": "drop"}, r"on_arbitrage must be 'fit' or 'raise', not 'dr"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_requests_that_make_no_sense_are_refused_with_their_value(
    quotes, request_, message
):
    with pytest.raises(ValueError, match=message):
        fit(quotes, **request_)

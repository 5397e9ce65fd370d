"""Columns, clocks, contract symbols, rules and layouts: what a table of quotes says."""

import numpy as np
import pandas as pd
import pytest

from relu_options.errors import QuoteError
from relu_options.market_data import (
    CANONICAL_COLUMNS,
    Layout,
    LayoutRows,
    expiry_time,
    find_columns,
    layout_names,
    parse_contracts,
    read_chain,
    register_layout,
    utc_time,
    years_between,
)
from relu_options.market_data.cleaning import RULE_NAMES, quote_faults
from relu_options.market_data.clocks import as_date
from relu_options.market_data.columns import call_flags, match_columns, numbers
from relu_options.market_data.contracts import contract_root
from relu_options.market_data.layouts import unregister_layout


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            ["K", "right", "mark"],
            {"strike": "K", "option_type": "right", "mid": "mark"},
        ),
        (["strike", "iv", "t"], {"implied_volatility": "iv", "time_to_expiry": "t"}),
        (["Strike Price", "F", "df"], {"strike": "Strike Price", "forward": "F"}),
        (["expiration", "best_bid", "best_offer"], {"expiry": "expiration"}),
        (["strike", "vol"], {"implied_volatility": "vol"}),
        (["strike", "bid", "ask", "vol"], {"volume": "vol"}),
        (["contractSymbol", "openInterest"], {"contract": "contractSymbol"}),
    ],
)
def test_columns_are_found_by_their_usual_names(names, expected):
    assert expected.items() <= find_columns(pd.Index(names)).items()


def test_the_canonical_name_wins_over_its_synonyms():
    assert find_columns(pd.Index(["price", "mark", "mid"]))["mid"] == "mid"


def test_given_columns_win_and_none_hides():
    names = pd.Index(["strike", "K_usd", "iv"])
    found = find_columns(names, {"strike": "K_usd", "implied_volatility": None})
    assert found == {"strike": "K_usd"}


def test_given_columns_must_exist():
    with pytest.raises(QuoteError, match=r"names \['K'\], which the table does not"):
        find_columns(pd.Index(["strike"]), {"strike": "K"})
    with pytest.raises(QuoteError, match=r"unknown names \['stike'\]"):
        find_columns(pd.Index(["strike"]), {"stike": "strike"})


def test_a_maturity_of_dates_is_an_expiry_and_a_numeric_settlement_a_price():
    table = pd.DataFrame({"maturity": ["2025-06-20"], "settlement": [1.5]})
    assert match_columns(table) == {"expiry": "maturity", "mid": "settlement"}
    table = pd.DataFrame({"maturity": [0.25], "settlement": ["AM"]})
    assert match_columns(table) == {
        "time_to_expiry": "maturity",
        "settlement": "settlement",
    }


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([1.5, None]),
        pd.Series(["1.5", "-"]),
        pd.Series([1.5, pd.NA], dtype="Float64"),
        pd.Series([1.5, np.inf]),
        pd.Series([1.5, np.nan], dtype="float32"),
        pd.Series([1.5, "n/a"], dtype="object"),
    ],
)
def test_numbers_of_any_dtype(column):
    before = column.copy()
    values = numbers(column)
    np.testing.assert_array_equal(values, [1.5, np.nan])
    assert values.dtype == np.float64
    pd.testing.assert_series_equal(column, before)


def test_arrow_numbers_and_types():
    column = pd.Series([1, None], dtype="int64[pyarrow]")
    np.testing.assert_array_equal(numbers(column), [1.0, np.nan])
    kinds = pd.Series(["C", "put", None], dtype="string[pyarrow]")
    is_call, known = call_flags(kinds)
    assert is_call.tolist() == [True, False, False]
    assert known.tolist() == [True, True, False]


def test_option_types_as_people_write_them():
    column = pd.Series(["Call", "P", "calls", "Put ", True, False, "X", np.nan])
    is_call, known = call_flags(column.astype(object))
    assert is_call.tolist() == [True, False, True, False, True, False, False, False]
    assert known.tolist() == [True] * 6 + [False] * 2


def test_expiry_clocks_follow_new_york_through_the_seasons():
    summer, winter = pd.Timestamp("2019-06-21"), pd.Timestamp("2019-12-20")
    assert expiry_time(summer, "AM") == pd.Timestamp("2019-06-21 13:30", tz="UTC")
    assert expiry_time(summer, "PM") == pd.Timestamp("2019-06-21 20:00", tz="UTC")
    assert expiry_time(winter, "PM") == pd.Timestamp("2019-12-20 21:00", tz="UTC")


def test_a_saturday_expiry_is_fixed_on_friday():
    saturday = pd.Timestamp("2012-06-16")
    assert expiry_time(saturday, "AM") == pd.Timestamp("2012-06-15 13:30", tz="UTC")
    with pytest.raises(ValueError, match="\"08:00 UTC\", not 'noon'"):
        expiry_time(saturday, "noon")


def test_years_are_counted_in_minutes_of_365_days():
    start = pd.Timestamp("2019-05-17 20:15", tz="UTC")
    assert years_between(start, start + pd.Timedelta(days=365)) == 1.0
    minute = years_between(start, start + pd.Timedelta(minutes=1))
    assert minute == pytest.approx(1.0 / 525600.0, rel=1e-12)


def test_quote_times_are_read_in_new_york_unless_they_say_otherwise():
    assert utc_time("2019-05-17")[0] == pd.Timestamp("2019-05-17 20:00", tz="UTC")
    assert utc_time("2019-05-17 16:15")[0] == pd.Timestamp("2019-05-17 20:15", tz="UTC")
    stamp = pd.Timestamp("2019-05-17 22:15", tz="Europe/Berlin")
    assert utc_time(stamp) == (pd.Timestamp("2019-05-17 20:15", tz="UTC"), None)
    with pytest.raises(QuoteError, match="'yesterday-ish' is not a time"):
        utc_time("yesterday-ish")
    with pytest.raises(QuoteError, match="the quote time is missing"):
        utc_time(None)


def test_dates_as_people_write_them():
    expected = pd.Timestamp("2019-06-21")
    written = ("2019-06-21", "06/21/2019", "Fri Jun 21 2019", 20190621, "20190621")
    assert {as_date(value) for value in written} == {expected}
    with pytest.raises(QuoteError, match="'soon' is not a date"):
        as_date("soon")


def test_contract_symbols_are_parsed():
    symbols = pd.Series(
        ["SPXW190603C02800000", "BRKB  250117P00452500", "^SPX190621P01700500", "X"],
        index=list("abcd"),
    )
    parsed = parse_contracts(symbols)
    assert parsed.index.tolist() == list("abcd")
    assert parsed["root"].tolist()[:3] == ["SPXW", "BRKB", "SPX"]
    assert parsed["strike"].tolist()[:3] == [2800.0, 452.5, 1700.5]
    assert parsed["option_type"].tolist()[:3] == ["call", "put", "put"]
    assert parsed["expiry"].iloc[0] == pd.Timestamp("2019-06-03")
    assert parsed.iloc[3].isna().tolist() == [True] * 4


def test_roots_tell_settlement_and_exercise():
    assert contract_root("SPX").settlement == "AM"
    assert contract_root("SPXW").settlement == "PM"
    assert contract_root("SPXW").underlying == "SPX"
    assert contract_root("AAPL").exercise_style == "american"


def test_each_row_falls_under_the_first_rule_that_applies():
    nan = np.nan
    cases = [
        (100.0, 1.0, 1.2, "used"),
        (100.0, 0.0, 0.1, "used"),
        (100.0, 1.0, 1.0, "used"),
        (nan, 1.0, 1.2, "missing_strike"),
        (0.0, 1.0, 1.2, "nonpositive_strike"),
        (-5.0, -1.0, 1.2, "nonpositive_strike"),
        (100.0, nan, nan, "missing_quote"),
        (100.0, -1.0, 1.2, "negative_quote"),
        (100.0, 0.0, 0.0, "no_quote"),
        (100.0, 1.0, nan, "missing_ask"),
        (100.0, nan, 1.2, "missing_bid"),
        (100.0, 1.3, 1.2, "crossed_quote"),
        (100.0, 1.3, 0.0, "crossed_quote"),
    ]
    strike, bid, ask = (np.array([case[at] for case in cases]) for at in range(3))
    codes = quote_faults(strike=strike, bid=bid, ask=ask)
    assert [RULE_NAMES[code] for code in codes] == [case[3] for case in cases]


def test_a_registered_layout_is_recognised_before_the_others():
    def read(source):
        table = source.read()
        return LayoutRows(
            pd.DataFrame(
                {
                    "strike": table["strike_price"] / 1000.0,
                    "option_type": table["cp"],
                    "expiry": table["exdate"],
                    "bid": table["best_bid"],
                    "ask": table["best_offer"],
                }
            ),
            notes=("strikes divided by 1000",),
            quote_time="2019-05-17",
        )

    def recognises(source):
        return source.table is not None and "strike_price" in source.table

    table = pd.DataFrame(
        {
            "strike_price": [100_000, 110_000],
            "cp": ["C", "C"],
            "exdate": ["2019-06-21"] * 2,
            "best_bid": [5.0, 2.0],
            "best_offer": [5.2, 2.2],
        }
    )
    register_layout(Layout("thousandths", recognises, read))
    try:
        assert layout_names()[0] == "thousandths"
        chain = read_chain(table)
        assert chain.table["strike"].tolist() == [100.0, 110.0]
        assert "strikes divided by 1000" in chain.notes
        assert read_chain(table, layout="tidy", quote_time="2019-05-17").table[
            "strike"
        ].tolist() == [100_000.0, 110_000.0]
    finally:
        unregister_layout("thousandths")
    assert "thousandths" not in layout_names()
    assert layout_names()[-1] == "tidy"


def test_an_unknown_layout_is_refused():
    with pytest.raises(ValueError, match=r"no layout 'nyse'; there are \['cboe'"):
        read_chain(pd.DataFrame({"strike": [1.0]}), layout="nyse")


def test_canonical_columns_are_the_documented_ones():
    assert CANONICAL_COLUMNS[:4] == ("quote_time", "underlying", "root", "expiry")
    assert len(set(CANONICAL_COLUMNS)) == 18

"""What is wrong with the tables that people have: an error, or a line in the report.

Each test is one fault that users meet; nothing is repaired or dropped in silence.
"""

import gzip
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import relu_options as ro
from relu_options import train_network
from relu_options.__main__ import main
from relu_options.errors import QuoteError
from relu_options.market_data import prepare_quotes, read_chain, read_chains
from relu_options.simulation.bundled import bundled_history

STRIKES = np.arange(80.0, 125.0, 5.0)
FORWARD = 102.0
WHEN: dict[str, Any] = {"quote_time": "2025-03-14"}
TERMS: dict[str, Any] = {
    "forward": FORWARD,
    "discount_factor": 0.98,
    "time_to_expiry": 0.5,
}


def table(spot=100.0, expiry: object = "2025-06-20", **more):
    """Calls, then puts, of a forward of 102 and a discount factor of 0.98."""
    strike = np.concatenate([STRIKES, STRIKES])
    is_call = np.arange(len(strike)) < len(STRIKES)
    value = 0.5 * np.hypot(strike - FORWARD, 15.0)
    mid = 0.98 * (value + np.where(is_call, 0.5, -0.5) * (FORWARD - strike))
    return pd.DataFrame(
        {
            "expiry": expiry,
            "strike": strike,
            "type": np.where(is_call, "call", "put"),
            "bid": (mid - 0.05).round(3),
            "ask": (mid + 0.05).round(3),
            "spot": spot,
            **more,
        }
    )


def counts(frame, **arguments):
    chain = read_chain(frame, **(WHEN | arguments))
    return chain.report().rows.counts, chain


def has_note(chain, words):
    return any(words in note for note in chain.report().notes)


def test_a_sound_table_has_no_faults():
    found, chain = counts(table())
    assert found == {"in_the_money": len(STRIKES)}
    prepared = prepare_quotes(chain)
    assert prepared.forward == pytest.approx(FORWARD, abs=0.01)


# Quotes


@pytest.mark.parametrize("empty", [0.0, np.nan])
def test_quotes_that_are_empty_after_hours(empty):
    frame = table(impliedVolatility=1e-5)
    frame["bid"] = frame["ask"] = empty
    expected = r"no row can be used: .*(outside of trading hours|a placeholder)"
    with pytest.raises(QuoteError, match=expected):
        read_chain(frame, **WHEN)


def test_some_quotes_that_are_empty_after_hours():
    frame = table()
    frame.loc[[0, 5], ["bid", "ask"]] = 0.0
    frame.loc[7, ["bid", "ask"]] = np.nan
    found, _ = counts(frame)
    assert (found["no_quote"], found["missing_quote"]) == (2, 1)


@pytest.mark.parametrize("placeholder", [1e-5, 0.00195, 0.0])
def test_volatilities_that_are_placeholders(placeholder):
    frame = pd.DataFrame({"strike": STRIKES, "iv": 0.2, "t": 0.5, "forward": 102.0})
    frame.loc[[1, 3], "iv"] = placeholder
    rule = "placeholder_volatility" if placeholder else "no_quote"
    chain = read_chain(frame)
    assert chain.report().rows.counts == {rule: 2}
    assert prepare_quotes(frame).report.counts == {rule: 2}
    frame["iv"] = 1e-5
    with pytest.raises(QuoteError, match="a placeholder, not a quote"):
        read_chain(frame)


def test_volatilities_in_per_cent_are_converted_with_a_note():
    frame = pd.DataFrame({"strike": STRIKES, "iv": "20.5%", "t": 0.5, "forward": 102.0})
    assert set(read_chain(frame).table["implied_volatility"]) == {0.205}
    chain = read_chain(frame.assign(iv=20.5))
    assert set(chain.table["implied_volatility"]) == {0.205}
    assert has_note(chain, "implied volatilities taken as percent")
    kept = read_chain(frame.assign(iv=20.5), volatility_unit="fraction")
    assert set(kept.table["implied_volatility"]) == {20.5}
    low = read_chain(frame.assign(iv=2.0), volatility_unit="percent")
    assert set(low.table["implied_volatility"]) == {0.02}


def test_crossed_negative_and_missing_quotes():
    frame = table().astype({"bid": object, "ask": object})
    frame.loc[0, ["bid", "ask"]] = [30.0, 29.0]
    frame.loc[1, "bid"] = -1.0
    frame.loc[2, "bid"] = "-"
    frame.loc[3, "ask"] = "N/A"
    frame.loc[4, "strike"] = np.nan
    frame.loc[5, "strike"] = -5.0
    found, _ = counts(frame)
    for rule in (
        "crossed_quote",
        "negative_quote",
        "missing_bid",
        "missing_ask",
        "missing_strike",
        "nonpositive_strike",
    ):
        assert found[rule] == 1


def test_an_unknown_option_type():
    frame = table()
    frame.loc[0, "type"] = "straddle"
    found, _ = counts(frame)
    assert found["unknown_option_type"] == 1


def test_repeated_rows():
    frame = pd.concat([table(), table().iloc[:4]], ignore_index=True)
    found, _ = counts(frame)
    assert found["duplicated_strike"] == 4


def test_rows_that_repeat_a_contract_with_other_quotes_are_not_chosen_in_silence():
    frame = pd.concat([table(), table().assign(ask=table()["ask"] + 1.0)])
    chain = read_chain(frame, **WHEN)
    assert has_note(chain, "18 of 18 contracts of one expiry are quoted several times")
    (problem,) = chain.report().slices["problem"]
    assert "the table seems to hold more than one expiry" in problem


# Numbers as people write them


def test_numbers_with_signs_and_separators():
    frame = table().astype({"strike": object, "bid": object, "ask": object})
    frame["strike"] = [f"${one:,.2f}" for one in 100.0 * frame["strike"].astype(float)]
    for name in ("bid", "ask"):
        frame[name] = [f"{100.0 * one:,.2f}" for one in frame[name].astype(float)]
    frame["spot"] = "10,000.00"
    _, chain = counts(frame)
    assert sorted(set(chain.table["strike"])) == (100.0 * STRIKES).tolist()
    assert prepare_quotes(chain).forward == pytest.approx(10_200.0, rel=1e-3)


def test_decimal_commas_and_semicolons(tmp_path):
    path = tmp_path / "quotes.csv"
    table().to_csv(path, sep=";", decimal=",", index=False)
    chain = read_chain(path, **WHEN)
    expected = read_chain(table(), **WHEN)
    pd.testing.assert_frame_equal(chain.table, expected.table)


def test_a_file_that_begins_with_a_mark_and_remarks(tmp_path):
    path = tmp_path / "quotes.csv"
    text = "Exported by me\n\n" + table().to_csv(index=False)
    path.write_text(text, encoding="utf-8-sig")
    assert len(read_chain(path, **WHEN).table) == 18


@pytest.mark.parametrize("scale", [100, 1_000, 10_000])
def test_strikes_that_are_scaled(scale):
    frame = table().assign(strike=scale * table()["strike"])
    _, chain = counts(frame)
    assert sorted(set(chain.table["strike"])) == STRIKES.tolist()
    assert has_note(chain, f"strikes divided by {scale}; pass `strike_scale=1`")
    _, same = counts(frame.drop(columns="spot"), strike_scale=scale)
    assert sorted(set(same.table["strike"])) == STRIKES.tolist()
    _, kept = counts(frame, strike_scale=1)
    assert sorted(set(kept.table["strike"])) == (scale * STRIKES).tolist()


def test_strikes_that_are_scaled_beside_an_unknown_underlying():
    frame = table().drop(columns="spot")
    chain = read_chain(frame.assign(strike=1000.0 * frame["strike"]), **WHEN)
    (problem,) = chain.report().slices["problem"]
    assert "prices and strikes are in one unit" in problem


# Coins


def coins(**more):
    frame = table(spot=50_000.0, expiry="2025-06-27").drop(columns="type")
    frame["strike"] *= 500.0
    sides = ["C"] * len(STRIKES) + ["P"] * len(STRIKES)
    frame["symbol"] = [
        f"BTC-27JUN25-{strike:.0f}-{side}"
        for strike, side in zip(frame["strike"], sides, strict=True)
    ]
    for name in ("bid", "ask"):
        frame[name] = np.maximum(frame[name] / 100.0, 0.0)
    return frame.assign(**more)


def test_prices_in_a_coin_without_its_price():
    with pytest.raises(QuoteError, match=r"prices are in the coin, .*pass `spot=`"):
        read_chain(coins().drop(columns="spot"), **WHEN)
    chain = read_chain(coins().drop(columns="spot"), spot=50_000.0, **WHEN)
    assert chain.table["ask"].max() > 1000.0


def test_prices_in_a_coin_though_the_table_denies_it():
    chain = read_chain(coins(is_inverse=False, quote_ccy="USDT"), **WHEN)
    assert has_note(chain, "prices are in the coin")
    assert prepare_quotes(chain).forward == pytest.approx(51_000.0, rel=1e-3)


def test_units_must_be_known():
    with pytest.raises(ValueError, match="`price_unit` must be one of"):
        read_chain(table(), price_unit="euro", **WHEN)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`volatility_unit` must be one of"):
        read_chain(table(), volatility_unit="bp", **WHEN)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="strike_scale must be positive"):
        read_chain(table(), strike_scale=0.0, **WHEN)
    with pytest.raises(ValueError, match="`spot` must be positive"):
        read_chain(table(), spot=-1.0, **WHEN)


# Times


def test_expired_rows():
    frame = pd.concat([table(), table(expiry="2025-03-07")], ignore_index=True)
    found, chain = counts(frame)
    assert found["expired"] == 18
    assert len(chain) == 1
    with pytest.raises(QuoteError, match="dropped 36: expired at the quote time"):
        read_chain(frame, quote_time="2026-01-02")


def test_expiry_on_the_quote_date_is_alive_until_its_close():
    frame = table(expiry="2025-03-14")
    assert len(read_chain(frame, quote_time="2025-03-14 15:59")) == 1
    ended = read_chain(frame, quote_time="2025-03-14 16:00")
    assert not len(ended)
    assert set(ended.report().rows.counts) == {"expired"}
    with pytest.raises(QuoteError, match="expired at the quote time"):
        read_chain(frame, quote_time="2025-03-15 16:00")


@pytest.mark.parametrize("quote", ["sound", "zero", "missing"])
def test_a_chain_that_has_expired_can_be_stored_but_not_fitted(quote):
    """A history settles on it, whatever is left of its quotes."""
    frame = table(expiry="2025-03-14", spot=101.5)
    if quote != "sound":
        frame[["bid", "ask"]] = 0.0 if quote == "zero" else np.nan
    chain = read_chain(frame, quote_time="2025-03-14 16:15")
    assert chain.slices == []
    assert "all have expired" in repr(chain)
    assert has_note(chain, "a history settles on this chain")
    assert set(chain.rows["underlying_price"]) == {101.5}
    for fit in (ro.fit_surface, ro.fit_curve, ro.fit_curves, ro.check_quotes):
        with pytest.raises(QuoteError, match="all 18 rows have expired"):
            fit(chain)
    with pytest.raises(KeyError, match="all have expired"):
        chain["2025-03-14"]


def test_times_without_a_zone_are_noted():
    chain = read_chain(table(timestamp="2025-03-14 10:30:00"))
    assert chain.quote_time == pd.Timestamp("2025-03-14 14:30", tz="UTC")
    assert has_note(chain, "2025-03-14 10:30 taken as New York time")
    zoned = read_chain(table(timestamp="2025-03-14T10:30:00-04:00"))
    assert zoned.quote_time == chain.quote_time
    assert not has_note(zoned, "New York")


def test_quotes_of_a_weekend_are_noted():
    chain = read_chain(table(timestamp="2025-03-15T18:00:00-04:00"))
    assert has_note(chain, "quote time on a Saturday, when the market was closed")
    assert has_note(chain, "pass `quote_time='2025-03-14 16:00'`")


def test_times_that_are_not_times():
    with pytest.raises(QuoteError, match="quote time 'noonish' is not a time"):
        read_chain(table(timestamp="noonish"))
    with pytest.raises(QuoteError, match="'soonish' is not a date"):
        read_chain(table(expiry="soonish"), **WHEN)


def test_days_that_come_first_are_noted():
    frame = pd.concat([table(expiry="20/06/2025"), table(expiry="05/09/2025")])
    chain = read_chain(frame, **WHEN)
    assert [date for date, _ in chain.slices] == [
        pd.Timestamp("2025-06-20"),
        pd.Timestamp("2025-09-05"),
    ]
    assert has_note(chain, "expiries are written with the day first")


def test_seconds_since_1970():
    chain = read_chain(table(timestamp=1741962600, expiry=1750377600000))
    assert chain.quote_time == pd.Timestamp("2025-03-14 14:30", tz="UTC")
    assert chain.slices == [(pd.Timestamp("2025-06-20"), "PM")]


def test_several_quote_dates():
    frame = pd.concat([table(date="2025-03-13"), table(date="2025-03-14")])
    with pytest.raises(QuoteError, match=r"2 quote dates .* 2025-03-13, 2025-03-14"):
        read_chain(frame)
    with pytest.raises(QuoteError, match="no quotes of 2025-03-12; 2025-03-13"):
        read_chain(frame, date="2025-03-12")
    requests: list[dict[str, Any]] = [
        {"date": "2025-03-13"},
        {"date": pd.Timestamp("2025-03-13").date()},
        {"quote_time": "2025-03-13 16:15"},
    ]
    for arguments in requests:
        chain = read_chain(frame, **arguments)
        assert len(chain.rows) == 18
        assert f"{chain.quote_time:%Y-%m-%d}" == "2025-03-13"
    assert len(list(read_chains(frame))) == 2


def test_one_quote_date_that_is_not_the_one_asked_for():
    frame = table(date="2025-03-13")
    with pytest.raises(QuoteError, match="no quotes of 2025-03-14; 2025-03-13 is the"):
        read_chain(frame, date="2025-03-14")


def test_a_date_of_many_whose_rows_are_all_bad():
    bad = table(date="2025-03-13").assign(bid=0.0, ask=0.0)
    frame = pd.concat([bad, table(date="2025-03-14")])
    with pytest.raises(QuoteError, match="2025-03-13: no row can be used"):
        list(read_chains(frame))
    reader = read_chains(frame, on_error="skip")
    assert len(list(reader)) == 1
    assert list(reader.skipped) == ["2025-03-13"]
    assert reader.skipped["2025-03-13"].startswith("no row can be used: 18 rows in")
    with pytest.raises(ValueError, match="`on_error` must be"):
        read_chains(frame, on_error="ignore")  # type: ignore[arg-type]
    with pytest.raises(QuoteError, match="none of 1 dates can be read; 2025-03-13: no"):
        list(read_chains(bad, on_error="skip"))
    named = frame.assign(ticker="ABC")
    for how in ("raise", "skip"):
        with pytest.raises(QuoteError, match="no options on 'XYZ'"):
            list(read_chains(named, on_error=how, underlying="XYZ"))


def test_a_broken_file_of_many_is_skipped_with_its_reason(tmp_path):
    for day in ("2025-03-13", "2025-03-14"):
        table(ticker="XYZ").to_csv(tmp_path / f"quotes_{day}.csv", index=False)
    (tmp_path / "quotes_2025-03-17.csv").write_text("strike,bid\n100,1\n")
    with pytest.raises(QuoteError, match=r"^2025-03-17: quotes need both"):
        list(read_chains(tmp_path))
    reader = read_chains(tmp_path, on_error="skip")
    assert [f"{chain.quote_time:%m-%d}" for chain in reader] == ["03-13", "03-14"]
    assert list(reader.skipped) == ["2025-03-17"]
    with pytest.raises(QuoteError, match=r"^quotes need both"):
        list(read_chains(tmp_path / "quotes_2025-03-17.csv", on_error="skip"))


def test_the_date_in_a_name_is_the_last_resort(tmp_path):
    path = tmp_path / "quotes_20250315.csv"  # a Saturday
    table().to_csv(path, index=False)
    chain = read_chain(path)
    assert chain.quote_time == pd.Timestamp("2025-03-14 20:00", tz="UTC")
    assert has_note(chain, "taken as the close of Friday 2025-03-14")
    stated = tmp_path / "quotes_2025-03-10.csv"
    table(date="2025-03-14").to_csv(stated, index=False)
    chain = read_chain(stated)
    assert chain.quote_time == pd.Timestamp("2025-03-14 20:00", tz="UTC")
    assert has_note(chain, "the path says 2025-03-10, but the quotes are of 2025-03-14")


def test_an_expiry_given_where_there_is_one_already():
    with pytest.raises(QuoteError, match="all rows have an expiry"):
        read_chain(table(), expiry="2025-06-20", **WHEN)


# Contracts


def occ(root, kind, strike):
    return f"{root}250620{kind}{1000 * strike:08.0f}"


def symbols(roots):
    kinds = ["C"] * len(STRIKES) + ["P"] * len(STRIKES)
    return [
        occ(root, kind, strike)
        for root, kind, strike in zip(
            roots, kinds, np.concatenate([STRIKES, STRIKES]), strict=True
        )
    ]


def test_adjusted_contracts():
    roots = ["AAPL"] * 18
    roots[3] = "AAPL1"
    found, chain = counts(table(contractSymbol=symbols(roots)))
    assert found["nonstandard_contract"] == 1
    assert chain.underlying == "AAPL"
    with pytest.raises(QuoteError, match="adjusted, or does not deliver the usual"):
        read_chain(table(contractSymbol=symbols(["AAPL1"] * 18)), **WHEN)


def test_roots_that_are_the_same_option():
    both = pd.concat(
        [
            table(contractSymbol=symbols(["SPXW"] * 18)),
            table(contractSymbol=symbols(["SPXPM"] * 18)),
        ],
        ignore_index=True,
    )
    _, chain = counts(both)
    assert has_note(chain, "roots SPXPM, SPXW share expiry, settlement and strike")
    assert len(chain) == 1
    apart = both.assign(contractSymbol=symbols(["SPXW"] * 18) + symbols(["SPX"] * 18))
    assert len(read_chain(apart, **WHEN)) == 2


def test_several_underlyings():
    frame = pd.concat([table(ticker="SPY"), table(ticker="QQQ")])
    with pytest.raises(QuoteError, match=r"2 underlyings .* choose one with `underly"):
        read_chain(frame, **WHEN)
    assert len(read_chain(frame, underlying="QQQ", **WHEN).rows) == 18


def test_american_options_are_fitted_from_out_of_the_money_quotes_with_a_note():
    frame = table(ticker="XYZ", exercise_style="A")
    # Early exercise makes in-the-money puts dearer than parity says.
    rich = (frame["type"] == "put") & (frame["strike"] > 107.0)
    frame.loc[rich, ["bid", "ask"]] += 3.0
    chain = read_chain(frame, **WHEN)
    prepared = prepare_quotes(chain)
    assert prepared.forward == pytest.approx(FORWARD, abs=0.05)
    years = prepared.time_to_expiry
    assert prepared.discount_factor == pytest.approx(np.exp(-0.02 * years))
    given = prepare_quotes(chain, discount_factor=0.98)
    assert given.forward == pytest.approx(FORWARD, abs=0.02)
    both = prepare_quotes(chain, forward=FORWARD, discount_factor=0.98).report.notes
    assert "American options: fitted from out-of-the-money quotes" in both
    assert has_note(chain, "American options: fitted from out-of-the-money quotes")
    lone = frame.drop(frame.index[(frame["strike"] == 115.0) & ~rich])
    report = read_chain(lone, **WHEN).report().rows.counts
    assert report["american_in_the_money"] == 1
    assert 115.0 not in prepare_quotes(read_chain(lone, **WHEN)).strike


def test_american_options_with_hardly_a_pair():
    frame = table(ticker="XYZ", exercise_style="american")
    is_call = frame["type"] == "call"
    none = frame[np.where(is_call, frame["strike"] > 101, frame["strike"] < 99)]
    one = pd.concat([none, frame[frame["strike"] == 100.0]])
    chain = read_chain(one, **WHEN)
    assert has_note(chain, "by parity of the 1 of 1 pairs nearest the money")
    assert prepare_quotes(chain).forward == pytest.approx(FORWARD, abs=0.05)
    chain = read_chain(none, **WHEN)
    assert has_note(
        chain, "forward from the underlying's price, 100, without dividends"
    )
    assert prepare_quotes(chain).forward == pytest.approx(100.5, abs=0.1)
    european = read_chain(none.assign(exercise_style="european"), **WHEN)
    assert "too few strikes" in european.report().slices["problem"].iloc[0]


# What a user states


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"discount_factor": 5.0}, "is a rate of -"),
        ({"discount_factor": 0.05}, r"is a rate of 599% a year; it is the price today"),
        ({"discount_factor": 1.2}, "is a rate of -"),
        ({"time_to_expiry": 180.0}, r"it is in years, so 180 days are 0\.4932"),
        ({"discount_factor": 0.0}, "must be positive"),
        ({"time_to_expiry": -1.0}, "must be positive"),
    ],
)
def test_numbers_that_make_no_sense(stated, message):
    with pytest.raises(ValueError, match=message):
        prepare_quotes(table(), **TERMS | stated)


def test_a_time_to_expiry_that_the_dates_deny():
    frame = table(date="2025-03-14")
    given: dict[str, Any] = {"forward": FORWARD, "discount_factor": 0.98}
    with pytest.raises(ValueError, match=r"9\.8 years, where the dates say 0\.268"):
        prepare_quotes(frame, time_to_expiry=9.8, **given)
    assert prepare_quotes(frame, time_to_expiry=0.27, **given).time_to_expiry == 0.27


def test_a_column_of_discount_factors_that_makes_no_sense():
    with pytest.raises(ValueError, match="is a rate of 599% a year"):
        prepare_quotes(table(df=0.05), forward=FORWARD, time_to_expiry=0.5)


def test_a_deep_discount_over_many_years_is_sound():
    terms: dict[str, Any] = TERMS | {"discount_factor": 0.6, "time_to_expiry": 10.0}
    assert prepare_quotes(table(), **terms).discount_factor == 0.6


# Files


def test_files_that_are_broken(tmp_path):
    cut = tmp_path / "cut.csv.gz"
    cut.write_bytes(gzip.compress(table().to_csv(index=False).encode())[:200])
    with pytest.raises(QuoteError, match=r"is broken|no table"):
        read_chain(cut, **WHEN)
    plain = tmp_path / "plain.csv.gz"
    plain.write_text("strike,bid\n")
    with pytest.raises(QuoteError, match="is broken"):
        read_chain(plain, **WHEN)
    zipped = tmp_path / "quotes.zip"
    zipped.write_text("no archive")
    with pytest.raises(QuoteError, match="is broken"):
        read_chain(zipped, **WHEN)
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    with pytest.raises(QuoteError, match="is an empty archive"):
        read_chain(tmp_path / "empty.zip", **WHEN)
    for text, message in (
        ("[1, 2]", "no list"),
        ("{,}", "not JSON"),
        ("x", "no table"),
    ):
        path = tmp_path / "quotes.json"
        path.write_text(text)
        with pytest.raises(QuoteError, match=message):
            read_chain(path, **WHEN)
    sheet = tmp_path / "quotes.xlsx"
    sheet.write_text("")
    with pytest.raises(QuoteError, match="is broken"):
        read_chain(sheet, **WHEN)
    with pytest.raises(QuoteError, match="read it with pandas and pass"):
        read_chain(sheet.rename(tmp_path / "quotes.xls"), **WHEN)
    parquet = tmp_path / "quotes.parquet"
    parquet.write_text("PAR?")
    with pytest.raises(QuoteError, match="is broken"):
        read_chain(parquet, **WHEN)


def test_inspect_prints_what_a_file_holds(tmp_path, capsys):
    path = tmp_path / "quotes.csv"
    frame = table(ticker="XYZ", exercise_style="american")
    frame.loc[0, ["bid", "ask"]] = [30.0, 29.0]
    frame.to_csv(path, index=False)
    assert main(["inspect", str(path), "--quote-time", "2025-03-14"]) == 0
    shown = capsys.readouterr().out
    for words in (
        "layout     tidy",
        "OptionChain(XYZ at 2025-03-14 20:00 UTC: 17 quotes",
        "exercise american (17); currency unknown (17)",
        "18 rows in",
        "dropped 1: bid above ask: 0: call 80 (30 / 29)",
        "American options",
        "2025-06-20 PM",
    ):
        assert words in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "does not say when the quotes were taken"),
        (["--quote-time", "noonish"], "'noonish' is not a time"),
        (["--date", "2031-01-01"], "expired at the quote time"),
        (["--layout", "nyse"], "no layout 'nyse'"),
    ],
)
def test_bad_input_is_one_line_and_code_2(tmp_path, capsys, arguments, message):
    path = tmp_path / "quotes.csv"
    table().to_csv(path, index=False)
    assert main(["inspect", str(path), *arguments]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert message in shown.err
    assert shown.err.count("\n") == 1


def test_a_missing_file_is_one_line_and_code_2(capsys):
    for command in ("inspect", "fit", "surface"):
        assert main([command, str(Path("nowhere") / "quotes.csv")]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_an_expiry_for_a_file_that_has_none(tmp_path, capsys):
    path = tmp_path / "quotes_2025-03-14.csv"
    table().drop(columns="expiry").to_csv(path, index=False)
    assert main(["inspect", str(path)]) == 2
    assert "pass `--expiry`" in capsys.readouterr().err
    assert main(["inspect", str(path), "--expiry", "2025-06-20"]) == 0
    assert "2025-06-20 PM" in capsys.readouterr().out


def test_inspect_looks_at_one_expiry(tmp_path, capsys):
    path = tmp_path / "quotes_2025-03-14.csv"
    both = [table(expiry="2025-06-20"), table(expiry="2025-09-19")]
    pd.concat(both).to_csv(path, index=False)
    assert main(["inspect", str(path), "--expiry", "2025-09-19"]) == 0
    shown = capsys.readouterr().out
    assert "1 slice, 2025-09-19 PM" in shown
    assert "2025-06-20" not in shown
    assert main(["inspect", str(path), "--expiry", "2025-07-01"]) == 2
    assert "the nearest are 2025-06-20 PM" in capsys.readouterr().err


def test_inspect_chooses_between_settlements_of_one_date(tmp_path, capsys):
    path = tmp_path / "quotes_2025-03-14.csv"
    both = [table(settlement="AM"), table(settlement="PM")]
    pd.concat(both).to_csv(path, index=False)
    arguments = ["inspect", str(path), "--expiry", "2025-06-20"]
    assert main(arguments) == 2
    assert "choose `--settlement AM` or `--settlement PM`" in capsys.readouterr().err
    assert main([*arguments, "--settlement", "AM"]) == 0
    assert "1 slice, 2025-06-20 AM" in capsys.readouterr().out


def test_a_column_that_is_not_found_is_named_in_the_shell(tmp_path, capsys):
    path = tmp_path / "quotes_2025-03-14.csv"
    table().rename(columns={"strike": "level"}).to_csv(path, index=False)
    assert main(["inspect", str(path)]) == 2
    complaint = capsys.readouterr().err
    assert "'level'" in complaint  # the file's own names, to choose from
    assert "name it with `--column strike=...`" in complaint
    assert main(["inspect", str(path), "--column", "strike=level"]) == 0
    assert "18 rows in, 9 used" in capsys.readouterr().out
    assert main(["inspect", str(path), "--column", "level"]) == 2
    assert "written as strike=K_usd" in capsys.readouterr().err


def test_the_price_of_a_coin_is_given_in_the_shell(tmp_path, capsys):
    frame = table(spot=100_000.0)
    frame["instrument_name"] = [
        f"BTC-20JUN25-{1000 * strike:.0f}-{kind[0].upper()}"
        for strike, kind in zip(frame["strike"], frame["type"], strict=True)
    ]
    for name in ("bid", "ask"):
        frame[f"{name}_price"] = frame[name] / 100.0
    frame["mark_price"] = 0.0
    kept = ["instrument_name", "bid_price", "ask_price", "mark_price"]
    path = tmp_path / "coin_2025-03-14.csv"
    frame[kept].to_csv(path, index=False)
    assert main(["inspect", str(path)]) == 2
    assert "pass `--spot`" in capsys.readouterr().err
    assert main(["inspect", str(path), "--spot", "100000"]) == 0
    shown = capsys.readouterr().out
    assert "prices are in the coin" in shown
    assert "102000" in shown  # the forward, in dollars


def test_option_types_that_are_not_understood_are_shown():
    frame = table()
    frame["type"] = np.where(frame["type"] == "call", "long", "short")
    assert has_note(
        read_chain(frame, **WHEN), "types 'long', 'short' are not understood"
    )


def test_a_note_on_several_slices_says_whose_figures_it_shows():
    frames = [table(expiry=date) for date in ("2025-06-20", "2025-09-19")]
    frames[1] = frames[1][frames[1]["strike"] < 120.0]
    for frame in frames:
        frame.loc[2, ["bid", "ask"]] += 5.0  # call 90
    notes = read_chain(pd.concat(frames), **WHEN).report().notes
    (note,) = (note for note in notes if "disagree" in note)
    assert note.startswith("2025-06-20 PM: 1 of 9 call-put pairs disagree")
    assert note.endswith("strikes 90; likewise in 1 more")


def test_slices_are_described_without_empty_columns():
    frame = table(iv=0.2, forward=FORWARD, time_to_expiry=0.25)
    frame = frame[["strike", "iv", "forward", "time_to_expiry"]]
    frame.loc[9:, "time_to_expiry"] = 0.5
    text = read_chain(frame).report().describe_slices()
    assert "NaN" not in text
    assert "pairs" not in text
    frame["forward"] = np.where(frame["time_to_expiry"] == 0.5, np.nan, FORWARD)
    text = read_chain(frame).report().describe_slices()
    assert "problem with 0.5 years: the forward cannot be implied" in text


def test_the_report_shows_no_type_where_it_is_unknown():
    frame = table()
    frame["type"] = frame["type"].astype(object)
    frame.loc[3, "type"] = "straddle"
    (rows,) = (
        rows
        for rows in read_chain(frame, **WHEN).report().rows
        if rows.rule == "unknown_option_type"
    )
    assert rows.examples[0].startswith("3: 95 (")


def test_the_error_of_a_bad_day_names_the_date_of_its_file(tmp_path):
    for day, factor in (("2025-03-14", 1.0), ("2025-03-17", 0.0)):
        frame = table(ticker="XYZ")
        frame[["bid", "ask"]] *= factor
        frame.to_csv(tmp_path / f"quotes_{day}.csv", index=False)
    with pytest.raises(QuoteError, match=r"^2025-03-17 XYZ: no row can be used: \d"):
        list(read_chains(tmp_path))
    assert len(list(read_chains(tmp_path, on_error="skip"))) == 1


def test_the_report_in_the_readme_is_what_is_printed():
    readme = Path(__file__).resolve().parent.parent / "README.md"
    section = readme.read_text(encoding="utf-8").split("## Read your own chain")[1]
    found = re.search(r"```python\n(.*?)```\n\n```\n(.*?)```", section, re.DOTALL)
    assert found is not None
    namespace: dict[str, Any] = {"ro": ro}
    exec(compile(found[1].replace("print(", "str("), "README.md", "exec"), namespace)
    printed = repr(namespace["mine"].report())
    lines = found[2].splitlines()
    assert len(lines) == 4
    assert all(line in printed for line in lines)


# Damage of every kind


def set_column(frame: pd.DataFrame, name: Any, values: Any) -> pd.DataFrame:
    frame = frame.copy()
    frame[name] = values
    return frame


def damaged(frame: Any, rng) -> pd.DataFrame:
    """The table with one thing wrong, in a column or as a whole."""
    name = frame.columns[rng.integers(frame.shape[1])]
    one_bad = frame[name].astype(object) if frame.columns.is_unique else None
    if one_bad is not None:
        bad = [np.inf, "junk", None, [1, 2], pd.NA]
        one_bad.iloc[rng.integers(len(frame))] = bad[rng.integers(5)]
    zone = pd.Timestamp("2025-06-20", tz="Europe/Berlin")
    ways = [
        lambda: frame.drop(columns=name),
        lambda: pd.concat([frame, frame[[name]]], axis=1),
        lambda: frame.rename(columns={name: "other"}),
        lambda: set_column(frame, name, "text"),
        lambda: set_column(frame, name, np.nan),
        lambda: set_column(frame, name, zone),
        lambda: set_column(frame, name, zone.tz_localize(None)),
        lambda: set_column(frame, name, [[1, 2]] * len(frame)),
        lambda: set_column(frame, name, pd.Categorical([str(1.5)] * len(frame))),
        lambda: frame if one_bad is None else set_column(frame, name, one_bad),
        lambda: frame.iloc[:0],
        lambda: frame.iloc[:1],
        lambda: frame.astype(object),
        lambda: frame.convert_dtypes(),
        lambda: frame.set_axis(range(frame.shape[1]), axis=1),
        lambda: frame.set_axis(
            pd.MultiIndex.from_product([["a"], frame.columns]), axis=1
        ),
        lambda: frame.set_axis([0] * len(frame)),
    ]
    return ways[rng.integers(len(ways))]()


def test_damaged_tables_are_read_or_refused_in_words(rng):
    """Whatever is wrong, no error of pandas or Python itself reaches the user."""
    tables = [
        table(),
        table(iv=0.2, volume=10, date="2025-03-14"),
        table(contractSymbol=symbols(["SPXW"] * 18)),
        coins(),
    ]
    refused = []
    for draw in range(80):
        frame = damaged(tables[draw % 4], rng)
        for read in (read_chain, prepare_quotes):
            try:
                read(frame, **WHEN)
            except QuoteError as error:
                refused.append(str(error))
    assert 20 < len(refused) < 160
    assert min(map(len, refused)) > 20


@pytest.mark.parametrize("name", ["strike", "bid", "type", "expiry", "spot"])
def test_a_column_that_is_there_twice_is_named(name):
    frame = pd.concat([table(), table()[[name]]], axis=1)
    with pytest.raises(QuoteError, match=f"2 columns are named '{name}'; rename or"):
        read_chain(frame, **WHEN)


def test_cells_that_hold_lists_are_named():
    kinds: list[Any] = table()["type"].tolist()
    kinds[3] = ["call"]
    frame = set_column(table(), "type", kinds)
    message = r"column 'type' holds list in 1 of 18 rows, first 3: \['call'\]; give"
    for read in (read_chain, prepare_quotes):
        with pytest.raises(QuoteError, match=message):
            read(frame, **WHEN)


@pytest.mark.parametrize("when", [np.inf, -np.inf])
def test_times_beyond_all_times(when):
    for name in ("expiry", "timestamp"):
        frame = table().assign(**{name: when})
        with pytest.raises(QuoteError, match=r"inf is not a (date|time)"):
            read_chain(frame, **({} if name == "timestamp" else WHEN))


# Arguments that have no effect


def without_effect():
    """Calls with an argument that nothing is done with, and its name."""
    chain = read_chain(table(), **WHEN)
    prepared = prepare_quotes(chain)
    several = [prepared]
    straddle = ro.payoffs.straddle(100.0)
    spots: dict[str, Any] = {"spots": (50.0, 200.0)}
    return {
        "forward": lambda: ro.fit_curve(prepared, forward=100.0),
        "discount_factor": lambda: ro.fit_curve(prepared, discount_factor=0.9),
        "time_to_expiry": lambda: ro.fit_curve(prepared, time_to_expiry=0.5),
        "quote_time": lambda: ro.fit_curve(prepared, quote_time="2025-03-14"),
        "kinks": lambda: ro.fit_curve(prepared, smoothing=0.0, kinks=32),
        "narrowest": lambda: ro.fit_curve(prepared, smoothing=0.0, narrowest=0.2),
        "quote_time`": lambda: ro.fit_surface(several, quote_time="2025-03-14"),
        "`quote_time": lambda: ro.fit_local_volatility(
            several, quote_time="2025-03-14"
        ),
        "columns`": lambda: read_chain(
            table(), layout="okx", columns={"strike": "strike"}
        ),
        "columns": lambda: ro.check_quotes(chain, columns={"strike": "K"}),
        "quote_time` and `col": lambda: ro.repair_quotes(
            several, quote_time="2025-03-14", columns={"strike": "K"}
        ),
        "spots": lambda: ro.replicate(straddle, prepared, **spots),
        "boundary": lambda: ro.decompose(straddle, options="puts", boundary=100.0),
        "rule": lambda: ro.prune(straddle, [90.0, 110.0], rule="greedy"),
        "alpha": lambda: train_network([1.0, 2.0, 3.0], [1.0, 0.5, 0.2], alpha=0.1),
        "surfaces": lambda: ro.compare_models(
            bundled_history(), {}, ["svi", "black_scholes"]
        ),
    }


def test_no_argument_is_ignored_in_silence():
    for name, call in without_effect().items():
        with pytest.raises(ValueError, match=f"{name}.* ha(s|ve) no effect: "):
            call()


@pytest.mark.parametrize(
    "arguments",
    [
        ["fit", "--quote-time", "2025-03-14"],
        ["surface", "--date", "2025-03-14"],
        ["fit", "--settlement", "AM"],
        ["backtest", "--underlying", "SPX"],
    ],
)
def test_no_argument_is_ignored_in_the_shell(arguments, capsys):
    assert main(arguments) == 2
    assert "has no effect: " in capsys.readouterr().err

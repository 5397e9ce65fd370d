"""Layouts of vendors and exchanges: each read with no argument but the table.

Every table here has its vendor's true header; the quotes are the same in all of them,
so what is read must be the same too.
"""

import json
import zipfile
from collections import namedtuple
from contextlib import suppress

import numpy as np
import pandas as pd
import pyarrow as arrow
import pytest
from real_quotes import real_quotes

from relu_options.errors import QuoteError
from relu_options.market_data import (
    LayoutRows,
    TableLayout,
    layout_names,
    prepare_quotes,
    read_chain,
    read_chains,
    register_layout,
)
from relu_options.market_data.layouts import Layout, read_layout, unregister_layout
from relu_options.market_data.sources import ChainSource

EXPIRY, DATE = "2021-06-18", "2021-05-14"
STRIKES = np.array([380.0, 400.0, 410.0, 415.0, 420.0, 430.0, 450.0])
FORWARD = 416.0


def quotes():
    """Calls and puts that agree on a forward of 416, by strike."""
    value = 0.5 * np.hypot(STRIKES - FORWARD, 20.0)
    call = np.round(value + 0.5 * (FORWARD - STRIKES), 2)
    put = np.round(value - 0.5 * (FORWARD - STRIKES), 2)
    return pd.DataFrame(
        {
            "strike": STRIKES,
            "c_bid": call - 0.1,
            "c_ask": call + 0.1,
            "p_bid": put - 0.1,
            "p_ask": put + 0.1,
        }
    ).round(2)


def long_quotes():
    """The same, one row per option."""
    wide = quotes()
    sides = [
        pd.DataFrame(
            {
                "strike": wide["strike"],
                "type": name,
                "bid": wide[f"{name[0]}_bid"],
                "ask": wide[f"{name[0]}_ask"],
            }
        )
        for name in ("call", "put")
    ]
    return pd.concat(sides, ignore_index=True)


def occ(row, root="SPY", day="210618", pad=""):
    padded = root.ljust(6, pad) if pad else root
    return f"{padded}{day}{row.type[0].upper()}{1000 * row.strike:08.0f}"


def occ_symbols(root="SPY", pad=""):
    return [occ(row, root, pad=pad) for row in long_quotes().itertuples()]


def yfinance():
    rows = long_quotes()
    return pd.DataFrame(
        {
            "contractSymbol": occ_symbols(),
            "lastTradeDate": "2021-05-14 20:00:00+00:00",
            "strike": rows["strike"],
            "lastPrice": 99.9,
            "bid": rows["bid"],
            "ask": rows["ask"],
            "change": 0.0,
            "percentChange": 0.0,
            "volume": 5.0,
            "openInterest": 7,
            "impliedVolatility": 1e-5,
            "inTheMoney": False,
            "contractSize": "REGULAR",
            "currency": "USD",
        }
    )


def datashop():
    rows = long_quotes()
    return pd.DataFrame(
        {
            "underlying_symbol": "SPY",
            "quote_date": DATE,
            "root": "SPY",
            "expiration": EXPIRY,
            "strike": rows["strike"],
            "option_type": rows["type"].str[0].str.upper(),
            "open": 0.0,
            "high": 0.0,
            "low": 0.0,
            "close": 0.0,
            "trade_volume": 5,
            "bid_size_1545": 3,
            "bid_1545": rows["bid"],
            "ask_size_1545": 4,
            "ask_1545": rows["ask"],
            "underlying_bid_1545": 415.9,
            "underlying_ask_1545": 416.1,
            "bid_size_eod": 3,
            "bid_eod": 0.0,
            "ask_size_eod": 4,
            "ask_eod": 999.0,
            "underlying_bid_eod": 0.0,
            "underlying_ask_eod": 0.0,
            "vwap": 0.0,
            "open_interest": 7,
            "delivery_code": pd.Series(None, index=rows.index, dtype="object"),
        }
    )


def optionmetrics():
    rows = long_quotes()
    return pd.DataFrame(
        {
            "secid": 109820,
            "date": DATE,
            "symbol": [
                f"SPY {'210618'}{kind[0].upper()}{1000 * strike:.0f}"
                for kind, strike in zip(rows["type"], rows["strike"], strict=True)
            ],
            "exdate": EXPIRY,
            "cp_flag": rows["type"].str[0].str.upper(),
            "strike_price": (1000 * rows["strike"]).astype(int),
            "best_bid": rows["bid"],
            "best_offer": rows["ask"],
            "volume": 5,
            "open_interest": 7,
            "impl_volatility": -99.99,
            "am_settlement": 0,
            "ss_flag": "0",
            "ticker": "SPY",
            "exercise_style": "A",
        }
    )


def optionsdx():
    wide = quotes()
    columns = {
        "[QUOTE_UNIXTIME]": 1621022400,
        " [QUOTE_READTIME]": "2021-05-14 16:00",
        " [QUOTE_DATE]": DATE,
        " [QUOTE_TIME_HOURS]": 16.0,
        " [UNDERLYING_LAST]": 416.0,
        " [EXPIRE_DATE]": " 2021-06-18",
        " [EXPIRE_UNIX]": 1624046400,
        " [DTE]": 35.0,
        " [C_DELTA]": 0.5,
        " [C_IV]": " ",
        " [C_VOLUME]": " ",
        " [C_LAST]": 0.0,
        " [C_SIZE]": "1 x 2",
        " [C_BID]": wide["c_bid"],
        " [C_ASK]": wide["c_ask"],
        " [STRIKE]": wide["strike"],
        " [P_BID]": wide["p_bid"],
        " [P_ASK]": wide["p_ask"],
        " [P_SIZE]": "3 x 4",
        " [P_LAST]": 0.0,
        " [P_VOLUME]": 5.0,
        " [STRIKE_DISTANCE]": 0.0,
        " [STRIKE_DISTANCE_PCT]": 0.0,
    }
    return pd.DataFrame(columns, index=wide.index)


def orats():
    wide = quotes()
    return pd.DataFrame(
        {
            "ticker": "SPY",
            "tradeDate": DATE,
            "expirDate": EXPIRY,
            "dte": 36,
            "strike": wide["strike"],
            "stockPrice": 416.0,
            "callVolume": 5,
            "callOpenInterest": 7,
            "callBidSize": 3,
            "callAskSize": 4,
            "putVolume": 5,
            "putOpenInterest": 7,
            "putBidSize": 3,
            "putAskSize": 4,
            "callBidPrice": wide["c_bid"],
            "callValue": 1.0,
            "callAskPrice": wide["c_ask"],
            "putBidPrice": wide["p_bid"],
            "putValue": 1.0,
            "putAskPrice": wide["p_ask"],
            "callBidIv": 0.2,
            "smvVol": 0.2,
            "delta": 0.5,
        }
    )


def orats_files():
    wide = quotes()
    return pd.DataFrame(
        {
            "ticker": "SPY",
            "cOpra": [occ(row) for row in long_quotes().itertuples()][: len(wide)],
            "pOpra": [occ(row) for row in long_quotes().itertuples()][len(wide) :],
            "stkPx": 416.0,
            "expirDate": "6/18/2021",
            "yte": 0.1,
            "strike": wide["strike"],
            "cVolu": 5,
            "cOi": 7,
            "pVolu": 5,
            "pOi": 7,
            "cBidPx": wide["c_bid"],
            "cValue": 1.0,
            "cAskPx": wide["c_ask"],
            "pBidPx": wide["p_bid"],
            "pValue": 1.0,
            "pAskPx": wide["p_ask"],
            "spot_px": 416.0,
            "trade_date": "5/14/2021",
        }
    )


def polygon():
    rows = long_quotes()
    records = [
        {
            "break_even_price": 1.0,
            "day": {"volume": 5, "close": 1.0},
            "details": {
                "contract_type": row.type,
                "exercise_style": "american",
                "expiration_date": EXPIRY,
                "shares_per_contract": 100,
                "strike_price": row.strike,
                "ticker": "O:" + occ(row),
            },
            "greeks": {"delta": 0.5},
            "implied_volatility": 0.2,
            "last_quote": {
                "ask": row.ask,
                "ask_size": 4,
                "bid": row.bid,
                "bid_size": 3,
                "last_updated": 1621022400000000000 - (row.Index == 0) * 10**12,
            },
            "open_interest": 7,
            "underlying_asset": {"price": 416.0, "ticker": "SPY"},
        }
        for row in rows.itertuples()
    ]
    return pd.json_normalize(records)


def databento():
    rows = long_quotes()
    return pd.DataFrame(
        {
            "ts_recv": "2021-05-14T20:00:00.000000000Z",
            "ts_event": "2021-05-14T19:59:58.500000000Z",
            "rtype": 193,
            "publisher_id": 30,
            "instrument_id": 1,
            "side": "N",
            "price": np.nan,
            "size": 1,
            "flags": 128,
            "bid_px_00": rows["bid"],
            "ask_px_00": rows["ask"],
            "bid_sz_00": 3,
            "ask_sz_00": 4,
            "bid_pb_00": 30,
            "ask_pb_00": 30,
            "symbol": occ_symbols(pad=" "),
        }
    )


def thetadata():
    rows = long_quotes()
    return pd.DataFrame(
        {
            "symbol": "SPY",
            "expiration": EXPIRY,
            "strike": rows["strike"],
            "right": rows["type"].str.upper(),
            "timestamp": "2021-05-14T16:00:00.000",
            "bid_size": 3,
            "bid_exchange": 1,
            "bid": rows["bid"],
            "bid_condition": 50,
            "ask_size": 4,
            "ask_exchange": 1,
            "ask": rows["ask"],
            "ask_condition": 50,
        }
    )


def thetadata_eod():
    return (
        thetadata()
        .drop(columns="timestamp")
        .assign(created="2021-05-14T17:15:02.113", last_trade="2021-05-14T15:59:00.000")
    )


def thetadata_v2():
    rows = long_quotes()
    return pd.DataFrame(
        {
            "root": "SPY",
            "expiration": 20210618,
            "strike": (1000 * rows["strike"]).astype(int),
            "right": rows["type"].str[0].str.upper(),
            "ms_of_day": 57_600_000,
            "bid_size": 3,
            "bid_exchange": 1,
            "bid": rows["bid"],
            "bid_condition": 50,
            "ask_size": 4,
            "ask_exchange": 1,
            "ask": rows["ask"],
            "ask_condition": 50,
            "date": 20210514,
        }
    )


def historicaloptiondata():
    rows = long_quotes()
    return pd.DataFrame(
        {
            "UnderlyingSymbol": "SPY",
            "UnderlyingPrice": 416.0,
            "Exchange": "*",
            "OptionSymbol": occ_symbols(),
            "OptionExt": np.nan,
            "Type": rows["type"],
            "Expiration": "06/18/2021",
            "DataDate": "05/14/2021",
            "Strike": rows["strike"],
            "Last": 0.0,
            "Bid": rows["bid"],
            "Ask": rows["ask"],
            "Volume": 5,
            "OpenInterest": 7,
            "IV": 0.3,
            "Delta": 0.5,
            "Gamma": 0.0,
            "Theta": 0.0,
            "Vega": 0.0,
            "AKA": occ_symbols(),
        }
    )


def alpha_vantage():
    """A vendor without an entry: its names are found."""
    rows = long_quotes()
    return pd.DataFrame(
        {
            "contractID": occ_symbols(),
            "symbol": "SPY",
            "expiration": EXPIRY,
            "strike": rows["strike"].map("{:.2f}".format),
            "type": rows["type"],
            "last": "0.00",
            "mark": "0.00",
            "bid": rows["bid"].map("{:.2f}".format),
            "bid_size": 3,
            "ask": rows["ask"].map("{:.2f}".format),
            "ask_size": 4,
            "volume": 5,
            "open_interest": 7,
            "date": DATE,
            "implied_volatility": "0.2",
        }
    )


US_TABLES = [
    (yfinance, "yfinance", "20:00"),
    (datashop, "cboe datashop", "19:45"),
    (optionmetrics, "optionmetrics", "20:00"),
    (optionsdx, "optionsdx", "20:00"),
    (orats, "orats", "19:46"),
    (orats_files, "orats files", "19:46"),
    (polygon, "polygon", "20:00"),
    (databento, "databento", "20:00"),
    (thetadata, "thetadata", "20:00"),
    (thetadata_eod, "thetadata", "20:00"),
    (thetadata_v2, "thetadata v2", "20:00"),
    (historicaloptiondata, "historicaloptiondata", "20:00"),
    (alpha_vantage, "tidy", "20:00"),
]


@pytest.mark.parametrize("how", ["frame", "csv", "arrow", "parquet"])
@pytest.mark.parametrize(
    ("make", "layout", "time"), US_TABLES, ids=[one[0].__name__ for one in US_TABLES]
)
def test_us_vendors_read_alike(tmp_path, make, layout, time, how):
    table = make()
    before = table.copy(deep=True)
    source: object = table
    if how == "csv":
        source = tmp_path / "quotes.csv"
        table.to_csv(source, index=False)
    elif how == "arrow":
        source = table.convert_dtypes(dtype_backend="pyarrow")
    elif how == "parquet":
        source = tmp_path / "quotes.parquet"
        table.to_parquet(source)
    chain = read_chain(source)
    pd.testing.assert_frame_equal(table, before)
    assert chain.layout == layout
    assert chain.quote_time == pd.Timestamp(f"{DATE} {time}", tz="UTC")
    assert chain.slices == [(pd.Timestamp(EXPIRY), "PM")]
    got = chain.table.sort_values(["option_type", "strike"])
    want = long_quotes()
    for name in ("strike", "bid", "ask"):
        np.testing.assert_allclose(got[name], want[name], rtol=1e-12)
    assert got["option_type"].tolist() == want["type"].tolist()
    if layout != "optionsdx":  # which does not say what its options are on
        assert chain.underlying == "SPY"
        assert set(got["exercise_style"]) == {"american"}
    prepared = prepare_quotes(chain)
    assert prepared.forward == pytest.approx(FORWARD, abs=0.05)
    assert len(prepared) == len(STRIKES)


def test_yfinance_pairs_of_calls_and_puts():
    options = namedtuple("Options", ["calls", "puts", "underlying"])
    table = yfinance()
    is_call = table["contractSymbol"].str[-9] == "C"
    about = {
        "symbol": "SPY",
        "regularMarketPrice": 415.5,
        "regularMarketTime": 1621022400,
    }
    pair = options(table[is_call], table[~is_call], about)
    chain = read_chain(pair)
    assert chain.layout == "yfinance"
    assert chain.quote_time == pd.Timestamp("2021-05-14 20:00", tz="UTC")
    assert set(chain.table["underlying_price"]) == {415.5}
    assert len(chain.table) == 14
    later = table.assign(
        contractSymbol=table["contractSymbol"].str.replace("210618", "210716")
    )
    other = options(later[is_call], later[~is_call], about)
    assert len(read_chain([pair, other])) == 2
    calls = read_chain(table[is_call])
    assert set(calls.table["option_type"]) == {"call"}


def test_yfinance_contracts_of_another_size_are_not_standard():
    table = yfinance()
    table.loc[3, "contractSize"] = "MINI"
    counts = read_chain(table).report().rows.counts
    assert counts["nonstandard_contract"] == 1


def test_datashop_closing_quotes_can_be_asked_for():
    table = datashop()
    table[["bid_eod", "ask_eod"]] = table[["bid_1545", "ask_1545"]].to_numpy() + 1.0
    late = read_chain(table, layout="cboe datashop close")
    early = read_chain(table)
    np.testing.assert_allclose(late.table["bid"], early.table["bid"] + 1.0)
    assert late.quote_time == pd.Timestamp(f"{DATE} 20:00", tz="UTC")
    assert set(early.table["underlying_price"]) == {416.0}
    intervals = table.rename(
        columns=lambda name: name.removesuffix("_1545").replace("date", "datetime")
    ).assign(quote_datetime=f"{DATE} 10:30:00")
    chain = read_chain(intervals.filter(regex="(?<!_eod)$"))
    assert chain.layout == "cboe datashop intervals"
    assert chain.quote_time == pd.Timestamp(f"{DATE} 14:30", tz="UTC")


def test_datashop_deliveries_and_index_marks():
    table = datashop().assign(underlying_symbol="^SPX", root="SPXW")
    table.loc[0, "delivery_code"] = "A"
    chain = read_chain(table)
    assert chain.underlying == "SPX"
    assert set(chain.table["exercise_style"]) == {"european"}
    assert chain.report().rows.counts["nonstandard_contract"] == 1


def test_optionmetrics_flags():
    table = optionmetrics()
    table.loc[0, "best_bid"] = -99.99
    table.loc[1, "ss_flag"] = "1"
    table["am_settlement"] = 1
    table["exercise_style"] = "E"
    chain = read_chain(table)
    counts = chain.report().rows.counts
    assert counts["missing_bid"] == 1
    assert counts["nonstandard_contract"] == 1
    assert chain.slices == [(pd.Timestamp(EXPIRY), "AM")]
    assert set(chain.table["exercise_style"]) == {"european"}
    assert any("strikes divided by 1000" in note for note in chain.notes)


def test_wide_rows_keep_their_label():
    table = orats()
    table.index = pd.Index([f"line {at}" for at in range(len(table))])
    assert read_chain(table).table.index[0] == "line 0 call"


def test_optionsdx_files_name_their_underlying(tmp_path):
    path = tmp_path / "spy_eod_202105.txt"
    optionsdx().to_csv(path, index=False)
    chain = read_chain(path)
    assert chain.underlying == "SPY"
    assert set(chain.table["exercise_style"]) == {"american"}
    path = path.rename(tmp_path / "spx_eod_202105.txt")
    assert set(read_chain(path).table["exercise_style"]) == {"european"}


def test_canonical_tables_survive_a_file(tmp_path):
    path = tmp_path / "chain.csv"
    for make in (nse_new, deribit, yfinance):
        chain = read_chain(make())
        chain.table.to_csv(path)
        again = read_chain(path)
        for name in ("expiry_time", "quote_time", "strike", "settlement"):
            assert again.table[name].tolist() == chain.table[name].tolist()
        assert again.time_to_expiry == chain.time_to_expiry


def test_arrow_tables():
    chain = read_chain(arrow.Table.from_pandas(yfinance()))
    pd.testing.assert_frame_equal(
        chain.table, read_chain(yfinance()).table, check_dtype=False
    )


def test_polygon_json_as_downloaded(tmp_path):
    nested = [
        {
            "details": {"ticker": row["details.ticker"], "strike_price": 1.0},
            "last_quote": {"bid": row["last_quote.bid"], "ask": row["last_quote.ask"]},
        }
        for row in polygon().to_dict("records")
    ]
    path = tmp_path / "chain.json"
    path.write_text(json.dumps({"status": "OK", "results": nested}), encoding="utf-8")
    chain = read_chain(path, quote_time=DATE)
    assert chain.layout == "polygon"
    assert len(chain.table) == 14
    assert chain.table["strike"].min() == 380.0


def test_databento_prices_as_whole_numbers_and_without_a_bid():
    table = databento()
    for name in ("bid_px_00", "ask_px_00"):
        table[name] = (table[name] * 1e9).round().astype("int64")
    table.loc[0, "bid_px_00"] = np.iinfo(np.int64).max
    chain = read_chain(table.set_index("ts_recv"))
    expected = long_quotes()["bid"].to_numpy()
    np.testing.assert_allclose(chain.table["bid"].to_numpy()[1:], expected[1:])
    assert chain.table["bid"].iloc[0] == 0.0
    assert any("nobody bids" in note for note in chain.notes)


def test_databento_the_last_quote_of_each_contract():
    early, late = databento(), databento()
    early["ts_recv"] = "2021-05-14T19:00:00Z"
    early["bid_px_00"] -= 1.0
    chain = read_chain(pd.concat([early, late.iloc[3:]], ignore_index=True))
    assert chain.quote_time == pd.Timestamp("2021-05-14 20:00", tz="UTC")
    assert chain.report().rows.counts["superseded"] == 11
    assert len(chain.table) == 14
    before = read_chain(
        pd.concat([early, late], ignore_index=True), quote_time="2021-05-14T19:30Z"
    )
    assert before.table["bid"].tolist() == early["bid_px_00"].tolist()


# Coins: prices in the coin, of which one costs 50,000 dollars.
COIN = 50_000.0
COIN_STRIKES = (40_000, 45_000, 50_000, 55_000, 60_000)


def coin_quotes():
    rows = []
    for strike in COIN_STRIKES:
        value = 0.5 * np.hypot(1.0 - strike / COIN, 0.1)
        for kind, sign in (("C", 1.0), ("P", -1.0)):
            mid = value + 0.5 * sign * (1.0 - strike / COIN)
            rows.append((strike, kind, round(mid - 0.001, 4), round(mid + 0.001, 4)))
    return pd.DataFrame(rows, columns=["strike", "kind", "bid", "ask"])


def deribit():
    rows = coin_quotes()
    return pd.DataFrame(
        {
            "volume": 1.0,
            "underlying_price": COIN,
            "underlying_index": "BTC-25JUN21",
            "quote_currency": "BTC",
            "price_change": None,
            "open_interest": 3.0,
            "mid_price": 0.5 * (rows["bid"] + rows["ask"]),
            "mark_price": 0.5 * (rows["bid"] + rows["ask"]),
            "mark_iv": 80.0,
            "low": None,
            "last": 0.1,
            "interest_rate": 0.0,
            "instrument_name": [
                f"BTC-25JUN21-{row.strike}-{row.kind}" for row in rows.itertuples()
            ],
            "high": None,
            "estimated_delivery_price": COIN,
            "creation_timestamp": 1621022400000,
            "bid_price": rows["bid"],
            "base_currency": "BTC",
            "ask_price": rows["ask"],
        }
    )


def deribit_ticker():
    table = deribit()
    return pd.DataFrame(
        {
            "timestamp": 1621022400000,
            "instrument_name": table["instrument_name"],
            "state": "open",
            "best_bid_price": table["bid_price"],
            "best_bid_amount": 1.0,
            "best_ask_price": table["ask_price"],
            "best_ask_amount": 2.0,
            "index_price": COIN,
            "underlying_price": COIN,
            "mark_iv": 80.0,
            "bid_iv": 79.0,
            "ask_iv": 81.0,
            "open_interest": 3.0,
            "stats.volume": 1.0,
        }
    )


def tardis():
    table = deribit()
    parts = table["instrument_name"].str.split("-", expand=True)
    return pd.DataFrame(
        {
            "exchange": "deribit",
            "symbol": table["instrument_name"],
            "timestamp": 1621022400000000,
            "local_timestamp": 1621022400012345,
            "type": parts[3].map({"C": "call", "P": "put"}),
            "strike_price": parts[2].astype(float),
            "expiration": 1624608000000000,
            "open_interest": 3.0,
            "last_price": 0.1,
            "bid_price": table["bid_price"],
            "bid_amount": 1.0,
            "bid_iv": 79.0,
            "ask_price": table["ask_price"],
            "ask_amount": 2.0,
            "ask_iv": 81.0,
            "mark_price": table["mark_price"],
            "mark_iv": 80.0,
            "underlying_index": "BTC-25JUN21",
            "underlying_price": COIN,
        }
    )


def okx():
    rows = coin_quotes()
    return pd.DataFrame(
        {
            "instType": "OPTION",
            "instId": [
                f"BTC-USD-210625-{row.strike}-{row.kind}" for row in rows.itertuples()
            ],
            "last": "",
            "lastSz": "0",
            "askPx": rows["ask"].astype(str),
            "askSz": "2",
            "bidPx": rows["bid"].astype(str),
            "bidSz": "1",
            "vol24h": "1",
            "ts": "1621022400000",
            "fwdPx": str(COIN),
        }
    )


@pytest.mark.parametrize("make", [deribit, deribit_ticker, tardis, okx])
def test_coin_prices_become_dollars(tmp_path, make):
    path = tmp_path / "quotes.csv"
    make().to_csv(path, index=False)
    for source in (make(), path):
        chain = read_chain(source)
        assert chain.layout == make.__name__.replace("_", " ")
        assert chain.underlying == "BTC"
        assert chain.quote_time == pd.Timestamp("2021-05-14 20:00", tz="UTC")
        end = chain.table["expiry_time"].iloc[0]
        assert end == pd.Timestamp("2021-06-25 08:00", tz="UTC")
        rows = coin_quotes()
        np.testing.assert_allclose(chain.table["bid"], rows["bid"] * COIN)
        np.testing.assert_allclose(chain.table["ask"], rows["ask"] * COIN)
        assert set(chain.table["currency"]) == {"USD"}
        assert set(chain.table["exercise_style"]) == {"european"}
        assert any("prices are in the coin" in note for note in chain.notes)
        prepared = prepare_quotes(chain["2021-06-25"])
        assert prepared.forward == pytest.approx(COIN, rel=1e-3)


def test_futures_among_coin_options_are_left_out():
    table = deribit()
    table.loc[0, "instrument_name"] = "BTC-PERPETUAL"
    assert len(read_chain(table).rows) == len(table) - 1


def test_nobody_bids_on_an_exchange_of_coins():
    table = deribit()
    table["bid_price"] = table["bid_price"].mask(table.index == 2)
    assert read_chain(table).table["bid"].iloc[2] == 0.0


def test_linear_contracts_are_in_dollars_already():
    table = deribit()
    table["instrument_name"] = table["instrument_name"].str.replace("BTC-", "BTC_USDC-")
    table["quote_currency"] = "USDC"
    for name in ("bid_price", "ask_price"):
        table[name] *= COIN
    chain = read_chain(table)
    np.testing.assert_allclose(chain.table["bid"], coin_quotes()["bid"] * COIN)
    assert not any("coin" in note for note in chain.notes)


def test_a_chain_that_was_converted_is_not_converted_again():
    chain = read_chain(deribit())
    again = read_chain(chain.to_frame())
    pd.testing.assert_frame_equal(again.table, chain.table)


def test_units_of_price_can_be_stated():
    table = deribit()
    as_given = read_chain(table, price_unit="currency")
    np.testing.assert_allclose(as_given.table["bid"], coin_quotes()["bid"])
    converted = read_chain(
        table.drop(columns=["underlying_price", "estimated_delivery_price"]),
        spot=40_000.0,
    )
    np.testing.assert_allclose(converted.table["bid"], coin_quotes()["bid"] * 40_000)


def deribit_export():
    rows = coin_quotes()
    mid = 0.5 * (rows["bid"] + rows["ask"])
    years = 42.0 / 365.0
    return pd.DataFrame(
        {
            "Strike": rows["strike"],
            "OptionType": rows["kind"],
            "Volume": "-",
            "Open": "1,234.5",
            "ExtValue": np.nan,
            "Rho": 1.0,
            "Theta": -100.0 * 60.0 * 0.8 / (2.0 * years) / 365.0,
            "Vega": 60.0,
            "Gamma": "-",
            "NDelta": np.nan,
            "Δ|Delta": 0.5,
            "Last": "-",
            "Size": 1.0,
            "IV Bid": 79.0,
            "Bid": rows["bid"].astype(str),
            "Mark": mid,
            "Ask": rows["ask"],
            "IV Ask": 81.0,
            "Size.1": 2.0,
            "Last_USD": "-",
            "Bid_USD": "-",
            "Ask_USD": (rows["ask"] * COIN).map("{:,.2f}".format),
        }
    )


def test_deribits_own_export_tells_its_expiry_in_its_name(tmp_path):
    path = tmp_path / "BTC-25JUN21-export.csv"
    table = deribit_export()
    table.loc[1, "Bid"] = "-"
    table.rename(columns={"Size.1": "Size"}).to_csv(path, index=False)
    chain = read_chain(path, quote_time="2021-05-14 08:00")
    assert chain.layout == "deribit export"
    assert chain.underlying == "BTC"
    assert chain.time_to_expiry == pytest.approx(42.0 / 365.0, rel=1e-12)
    np.testing.assert_allclose(chain.table["ask"], coin_quotes()["ask"] * COIN, 1e-4)
    assert chain.table["bid"].iloc[1] == 0.0
    assert set(chain.table["open_interest"]) == {1234.5}
    assert set(chain.table["ask_size"]) == {2.0}


@pytest.mark.parametrize("name", ["Size", "Bid", "Ask", "Last", "Open"])
def test_deribits_own_export_without_a_column(name):
    frame = deribit_export()
    frame = frame.drop(columns=[one for one in frame.columns if one == name])
    if name in ("Bid", "Ask"):
        with pytest.raises(QuoteError, match="'bid' and 'ask'"):
            read_chain(frame, expiry="2021-06-18", quote_time=DATE)
    else:
        assert len(read_chain(frame, expiry="2021-06-18", quote_time=DATE).table)


def test_deribits_own_export_without_a_name_tells_its_expiry_by_greeks():
    chain = read_chain(deribit_export())
    assert chain.time_to_expiry == pytest.approx(42.0 / 365.0, rel=1e-9)
    assert any("the Greeks imply 42.0 days" in note for note in chain.notes)
    dated = read_chain(
        deribit_export(), expiry="2021-06-25", quote_time="2021-05-14 08:00"
    )
    assert dated.time_to_expiry == pytest.approx(42.0 / 365.0, rel=1e-12)


def lean_archive(path, days=("20140606", "20140609"), strikes=(640, 650, 660)):
    with zipfile.ZipFile(path, "w") as archive:
        for at, strike in enumerate(strikes):
            for kind in ("call", "put"):
                name = f"aapl_quote_american_{kind}_{strike * 10_000}_20140621.csv"
                lines = "".join(
                    f"{day} 00:00,1,1,1,{100_000 + at},30,2,2,2,{110_000 + at},6\n"
                    for day in days
                )
                archive.writestr(name, lines)
        archive.writestr(
            "aapl_quote_american_call_7000000_20140621.csv",
            f"{days[0]} 00:00,,,,,,2,2,2,300,6\n",
        )
    return path


def test_lean_archives_and_their_folders(tmp_path):
    path = lean_archive(tmp_path / "aapl_2014_quote_american.zip")
    (tmp_path / "universe_20140609.csv").write_text("#expiry,strike,right\n")
    with pytest.raises(QuoteError, match="2014-06-06, 2014-06-09; choose one"):
        read_chain(path)
    for source in (path, tmp_path):
        chain = read_chain(source, date="2014-06-06")
        assert chain.layout == "lean"
        assert chain.underlying == "AAPL"
        assert chain.quote_time == pd.Timestamp("2014-06-06 20:00", tz="UTC")
        row = chain.table.loc["AAPL 20140621 650 put"].to_dict()
        assert (row["bid"], row["ask"]) == (10.0001, 11.0001)
        assert (row["bid_size"], row["ask_size"]) == (30.0, 6.0)
        assert row["exercise_style"] == "american"
        # A Saturday on paper: the Friday before.
        assert row["expiry_time"] == pd.Timestamp("2014-06-20 20:00", tz="UTC")
        assert chain.table.loc["AAPL 20140621 700 call", "bid"] == 0.0
    assert len(list(read_chains(tmp_path))) == 2


def test_lean_minutes_are_the_last_of_the_day(tmp_path):
    path = tmp_path / "20140606_quote_american.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for strike in (640, 650, 660):
            archive.writestr(
                f"20140606_aapl_minute_quote_american_call_{strike}0000_20140621.csv",
                "34200000,1,1,1,50000,30,2,2,2,60000,6\n"
                "57540000,1,1,1,70000,30,2,2,2,80000,6\n",
            )
    chain = read_chain(path)
    assert chain.quote_time == pd.Timestamp("2014-06-06 19:59", tz="UTC")
    assert set(chain.table["bid"]) == {7.0}
    morning = read_chain(path, quote_time="2014-06-06 10:00")
    assert set(morning.table["bid"]) == {5.0}


def test_a_lean_universe_on_the_day_of_a_split(tmp_path):
    lines = ["#expiry,strike,right,open,high,low,close,volume,open_interest\n"]
    lines.append(",,,92.69,92.95,92.50,92.72,2467914,\n")
    for strike, close in ((90.0, 4.0), (92.14, 2.5), (95.0, 1.2)):
        lines.append(f"20140621,{strike},C,1,1,1,{close},7,9\n")
        lines.append(f"20140621,{round(7 * strike, 1)},C,1,1,1,{7 * close},7,9\n")
    path = tmp_path / "universe_20140609.csv"
    path.write_text("".join(lines))
    chain = read_chain(path)
    assert chain.layout == "lean universe"
    assert chain.table["strike"].tolist() == [90.0, 92.14, 95.0]
    assert any("7 times those after a split" in note for note in chain.notes)
    assert set(chain.table["underlying_price"]) == {92.72}


def nse_old():
    rows = long_quotes()
    options = pd.DataFrame(
        {
            "INSTRUMENT": "OPTIDX",
            "SYMBOL": "NIFTY",
            "EXPIRY_DT": "18-Jun-2021",
            "STRIKE_PR": rows["strike"],
            "OPTION_TYP": rows["type"].map({"call": "CE", "put": "PE"}),
            "OPEN": 0.0,
            "HIGH": 0.0,
            "LOW": 0.0,
            "CLOSE": 0.5 * (rows["bid"] + rows["ask"]),
            "SETTLE_PR": 1.0,
            "CONTRACTS": 5,
            "VAL_INLAKH": 1.0,
            "OPEN_INT": 7,
            "CHG_IN_OI": 0,
            "TIMESTAMP": "14-May-2021",
        }
    )
    future = options.iloc[:1].assign(
        INSTRUMENT="FUTIDX", OPTION_TYP="XX", STRIKE_PR=0.0
    )
    return pd.concat([future, options], ignore_index=True)


def nse_new():
    rows = long_quotes()
    return pd.DataFrame(
        {
            "TradDt": DATE,
            "BizDt": DATE,
            "Sgmt": "FO",
            "Src": "NSE",
            "FinInstrmTp": "IDO",
            "FinInstrmId": 1,
            "ISIN": np.nan,
            "TckrSymb": "NIFTY",
            "SctySrs": np.nan,
            "XpryDt": EXPIRY,
            "FininstrmActlXpryDt": EXPIRY,
            "StrkPric": rows["strike"],
            "OptnTp": rows["type"].map({"call": "CE", "put": "PE"}),
            "FinInstrmNm": "NIFTY",
            "OpnPric": 0.0,
            "HghPric": 0.0,
            "LwPric": 0.0,
            "ClsPric": 0.5 * (rows["bid"] + rows["ask"]),
            "LastPric": 0.0,
            "PrvsClsgPric": 0.0,
            "UndrlygPric": 416.0,
            "SttlmPric": 1.0,
            "OpnIntrst": 7,
            "ChngInOpnIntrst": 0,
            "TtlTradgVol": 5,
            "TtlTrfVal": 1.0,
            "TtlNbOfTxsExctd": 1,
            "SsnId": "F1",
            "NewBrdLotQty": 25,
        }
    )


@pytest.mark.parametrize(
    ("make", "layout"), [(nse_old, "nse bhavcopy"), (nse_new, "nse udiff")]
)
def test_indian_daily_files(tmp_path, make, layout):
    path = tmp_path / "fo14MAY2021bhav.csv.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("fo14MAY2021bhav.csv", make().to_csv(index=False))
    chain = read_chain(path)
    assert chain.layout == layout
    assert chain.underlying == "NIFTY"
    assert set(chain.table["currency"]) == {"INR"}
    assert set(chain.table["exercise_style"]) == {"european"}
    assert chain.quote_time == pd.Timestamp("2021-05-14 16:00", tz="Asia/Kolkata")
    assert chain.time_to_expiry == pytest.approx(35 / 365, rel=1e-12)
    prepared = prepare_quotes(chain)
    assert not prepared.has_spreads
    assert prepared.forward == pytest.approx(FORWARD, abs=0.1)


def test_indian_contracts_that_did_not_trade_have_no_price():
    table = nse_new()
    table.loc[2, "TtlTradgVol"] = 0
    counts = read_chain(table).report().rows.counts
    assert counts["missing_quote"] == 1


def test_one_underlying_of_many():
    other = nse_new().assign(TckrSymb="BANKNIFTY")
    both = pd.concat([nse_new(), other.iloc[:6]], ignore_index=True)
    with pytest.raises(QuoteError, match=r"NIFTY \(14\), BANKNIFTY \(6\); choose one"):
        read_chain(both)
    chain = read_chain(both, underlying="nifty")
    assert len(chain.table) == 14
    assert [one.underlying for one in read_chains(both)] == ["BANKNIFTY", "NIFTY"]
    with pytest.raises(QuoteError, match="no options on 'FINNIFTY'; NIFTY"):
        read_chain(both, underlying="FINNIFTY")


def barchart(path, footer=True):
    rows = long_quotes()
    lines = [
        "Strike,Moneyness,Bid,Mid,Ask,Latest,Change,%Change,Volume,"
        '"Open Int","OI Chg",IV,Delta,Type,Time\n'
    ]
    lines += [
        f'"{row.strike:,.2f}",+1.0%,{row.bid},1.0,{row.ask},1.0,unch,unch,'
        f'"1,129",7,unch,43.04%,0.93,{str(row.type).title()},05/14/21\n'
        for row in rows.itertuples()
    ]
    if footer:
        lines.append('"Downloaded from Barchart.com as of 05-14-2021 02:30pm CDT"\n')
    path.write_text("".join(lines), encoding="utf-8")
    return path


def test_barchart_files_say_much_in_their_names(tmp_path):
    name = "spy-options-exp-2021-06-18-monthly-show-all-stacked-05-14-2021.csv"
    chain = read_chain(barchart(tmp_path / name))
    assert chain.layout == "barchart"
    assert chain.underlying == "SPY"
    assert chain.slices == [(pd.Timestamp(EXPIRY), "PM")]
    assert chain.quote_time == pd.Timestamp("2021-05-14 19:30", tz="UTC")
    assert len(chain.rows) == 14
    assert set(chain.table["volume"]) == {1129.0}
    assert set(chain.table["exercise_style"]) == {"american"}
    plain = read_chain(barchart(tmp_path / "a.csv", footer=False), expiry=EXPIRY)
    assert plain.quote_time == pd.Timestamp("2021-05-14 20:00", tz="UTC")
    with pytest.raises(QuoteError, match="or pass `expiry=` if all rows share one"):
        read_chain(barchart(tmp_path / "b.csv"))


def test_barchart_options_on_futures(tmp_path):
    path = tmp_path / "wti_2021-05-14_barchart.csv"
    path.write_text(
        "Strike,Open,High,Low,Last,Change,Bid,Ask,Volume,Open Int,Premium,Time,Type\n"
        "19.50C,0,0.03,0.03,0.03,0,0.02,0.04,,89,30,13:05 CT,Call\n"
        '"1,020.00P",0,0.03,0.03,0.03,0,0.02,0.04,,89,30,13:05 CT,Put\n'
    )
    chain = read_chain(path, expiry="2021-06-16")
    assert chain.table["strike"].tolist() == [19.5, 1020.0]
    assert set(chain.table["exercise_style"]) == {"american"}
    assert chain.quote_time == pd.Timestamp("2021-05-14 20:00", tz="UTC")


@pytest.mark.parametrize(
    "names",
    [
        ["call_bid", "call_ask", "put_bid", "put_ask"],
        ["Call Bid", "Call Ask", "Put Bid", "Put Ask"],
        ["bid_c", "ask_c", "bid_p", "ask_p"],
        ["C_BID", "C_ASK", "P_BID", "P_ASK"],
        ["CE_bid", "CE_ask", "PE_bid", "PE_ask"],
    ],
)
def test_anybodys_rows_of_a_call_and_a_put(names):
    wide = quotes().set_axis(["strike", *names], axis=1)
    chain = read_chain(wide.assign(expiry=EXPIRY, date=DATE))
    assert chain.layout == "wide"
    np.testing.assert_allclose(chain.table["ask"], long_quotes()["ask"])
    assert chain.table["option_type"].tolist() == long_quotes()["type"].tolist()


def test_a_mirror_of_calls_and_puts(tmp_path):
    wide = quotes()
    lines = ["OI,VOLUME,IV,LTP,BID,ASK,STRIKE,BID,ASK,LTP,IV,VOLUME,OI\n"]
    lines += [
        f'7,"1,200",20.1,-,{row.c_bid},{row.c_ask},{row.strike},'
        f"{row.p_bid},{row.p_ask},-,20.1,5,7\n"
        for row in wide.itertuples()
    ]
    path = tmp_path / "option-chain.csv"
    path.write_text("".join(lines))
    chain = read_chain(path, quote_time=DATE, expiry=EXPIRY)
    assert chain.layout == "mirror"
    np.testing.assert_allclose(chain.table["ask"], long_quotes()["ask"])
    assert chain.table["volume"].tolist() == [1200.0] * 7 + [5.0] * 7


def test_last_prices_serve_where_there_are_no_quotes():
    rows = long_quotes()
    table = pd.DataFrame(
        {
            "ticker": ["O:" + symbol for symbol in occ_symbols()],
            "volume": 5,
            "open": 1.0,
            "close": 0.5 * (rows["bid"] + rows["ask"]),
            "high": 1.0,
            "low": 1.0,
            "window_start": 1621022400000000000,
        }
    )
    chain = read_chain(table)
    assert chain.quote_time == pd.Timestamp("2021-05-14 20:00", tz="UTC")
    assert any("no quotes: prices are 'close'" in note for note in chain.notes)
    assert prepare_quotes(chain).forward == pytest.approx(FORWARD, abs=0.05)
    quoted = table.assign(bid=rows["bid"], ask=rows["ask"])
    assert "mid" not in read_chain(quoted).table


def test_days_to_expiry_give_way_to_dates():
    table = long_quotes().assign(expiration=EXPIRY, dte=34)
    assert read_chain(table).time_to_expiry == pytest.approx(34 / 365)
    dated = read_chain(table.assign(date=DATE))
    assert dated.time_to_expiry == pytest.approx(35 / 365)


def test_a_layout_of_ones_own():
    mine = TableLayout(
        "desk",
        signature=("K_e3", "px_bid", "px_ask"),
        columns={
            "strike": "K_e3",
            "bid": "px_bid",
            "ask": "px_ask",
            "option_type": "w",
            "expiry": "mat",
        },
        strike_scale=1e3,
        price_scale=1e4,
        missing=(-1.0,),
        values={"underlying": "SX5E", "exercise_style": "european"},
        timezone="Europe/Berlin",
        snapshot="17:30",
    )
    rows = long_quotes()
    table = pd.DataFrame(
        {
            "K_e3": 1e3 * rows["strike"],
            "w": rows["type"],
            "px_bid": 1e4 * rows["bid"],
            "px_ask": 1e4 * rows["ask"],
            "mat": EXPIRY,
        }
    )
    table.loc[0, "px_bid"] = -1.0
    register_layout(mine)
    try:
        assert layout_names()[0] == "desk"
        chain = read_chain(table, quote_time="2021-05-14 17:30")
        assert chain.layout == "desk"
        assert chain.underlying == "SX5E"
        assert chain.quote_time == pd.Timestamp("2021-05-14 15:30", tz="UTC")
        end = chain.table["expiry_time"].iloc[0]
        assert end == pd.Timestamp("2021-06-18 14:00", tz="UTC")
        np.testing.assert_allclose(chain.table["ask"], rows["ask"][1:])
        assert chain.report().rows.counts["missing_bid"] == 1
    finally:
        unregister_layout("desk")
    assert isinstance(LayoutRows(table).rows, pd.DataFrame)


def test_files_of_one_date_are_read_together(tmp_path):
    for day, shift in (("2021-05-13", 0.0), ("2021-05-14", 1.0)):
        folder = tmp_path / day
        folder.mkdir()
        for name in ("SPY", "QQQ"):
            table = long_quotes().assign(underlying=name, expiry=EXPIRY)
            table["bid"] += shift
            table["ask"] += shift
            table.to_csv(folder / f"{name}.csv.gz", index=False)
    with pytest.raises(QuoteError, match="2021-05-13, 2021-05-14; choose one"):
        read_chain(tmp_path)
    with pytest.raises(QuoteError, match=r"2 underlyings .*; choose one"):
        read_chain(tmp_path, date="2021-05-14")
    chain = read_chain(tmp_path, date="2021-05-14", underlying="SPY")
    assert chain.quote_time == pd.Timestamp("2021-05-14 20:00", tz="UTC")
    np.testing.assert_allclose(chain.table["bid"], long_quotes()["bid"] + 1.0)
    found = [
        (f"{one.quote_time:%m-%d}", one.underlying) for one in read_chains(tmp_path)
    ]
    assert found == [
        ("05-13", "QQQ"),
        ("05-13", "SPY"),
        ("05-14", "QQQ"),
        ("05-14", "SPY"),
    ]
    with pytest.raises(QuoteError, match="2021-05-13, 2021-05-14; choose one"):
        read_chain(tmp_path, date="2021-05-15", underlying="SPY")
    (tmp_path / "empty").mkdir()
    with pytest.raises(QuoteError, match="holds no tables"):
        read_chain(tmp_path / "empty")


def test_files_that_names_do_not_date_are_read_together(tmp_path):
    for month in ("210618", "210716"):
        folder = tmp_path / f"expiry {month[:4]}"
        folder.mkdir()
        table = yfinance()
        symbols = table["contractSymbol"].str.replace("210618", month)
        table.assign(contractSymbol=symbols).to_csv(folder / "spy.csv", index=False)
    chain = read_chain(tmp_path)
    assert len(chain) == 2
    assert len(read_chain(tmp_path, date=DATE).table) == 28


@pytest.mark.parametrize(
    ("name", "arguments", "layout", "quotes_in", "slices"),
    [
        ("aapl_2025-09-07_unified.csv", {}, "tidy", 89, 1),
        ("btc_2025-09-07_okx_unified.csv", {}, "tidy", 60, 1),
        ("btc_2025-08-30_deribit_ui.csv", {}, "deribit export", 76, 1),
        ("spx_2019-05-18_cboe_quotedata_body.csv.gz", {}, "cboe", 12_626, 39),
        ("spx_2026-01-30_yfinance.csv.gz", {}, "yfinance", 17_107, 59),
        (
            "wti_2025-09-08_barchart.csv",
            {"expiry": "2025-11-17"},
            "barchart",
            284,
            1,
        ),
        ("spy_2021_top20.parquet", {"date": "2021-06-15"}, "tidy", 20, 4),
        ("dax_2001_17days.parquet", {"date": "2001-06-05"}, "tidy", 460, 2),
        ("aapl_2014_lean", {"date": "2014-06-06"}, "lean", 2_352, 12),
        ("aapl_2014_lean", {"date": "2014-06-09"}, "lean", 2_180, 12),
        ("aapl_2014_lean/universe_20140609.csv", {}, "lean universe", 4_360, 12),
        (
            "us_etf_yfinance",
            {"date": "2026-08-14", "underlying": "IWM"},
            "yfinance",
            2_089,
            17,
        ),
        ("us_etf_yfinance/2026-08-12", {"underlying": "SPY"}, "yfinance", 5_472, 16),
    ],
)
def test_real_files_read_without_help(name, arguments, layout, quotes_in, slices):
    chain = read_chain(real_quotes(name), **arguments)
    assert chain.layout == layout
    assert len(chain.rows) == quotes_in
    assert len(chain) == slices


def test_real_coin_quotes_are_in_dollars():
    chain = read_chain(real_quotes("btc_2025-09-07_okx_unified.csv"))
    prepared = prepare_quotes(chain)
    spot = chain.table["underlying_price"].iloc[0]
    assert prepared.forward == pytest.approx(spot, rel=5e-4)
    export = read_chain(real_quotes("btc_2025-08-30_deribit_ui.csv"))
    assert export.table["underlying_price"].iloc[0] == pytest.approx(108_864, rel=1e-4)
    dated = read_chain(
        real_quotes("btc_2025-08-30_deribit_ui.csv"),
        expiry="2025-12-26",
        quote_time="2025-08-30",
    )
    assert export.time_to_expiry == pytest.approx(dated.time_to_expiry, rel=0.01)


def test_a_real_split_leaves_the_forward_in_its_unit():
    path = real_quotes("aapl_2014_lean")
    before, after = (
        prepare_quotes(chain[chain.slices[6]]) for chain in read_chains(path)
    )
    assert before.expiry == after.expiry
    assert before.forward / after.forward == pytest.approx(645.57 / 93.70, rel=2e-3)
    notes = read_chain(path, date="2014-06-09").notes
    assert any("a 7:1 split" in note for note in notes)


def test_real_quotes_are_taken_at_the_last_trade_not_at_the_folders_date():
    path = real_quotes("us_etf_yfinance/2026-08-12")
    chain = read_chain(path, underlying="QQQ", date="2026-08-12")
    assert chain.quote_time == pd.Timestamp("2026-08-13 15:58", tz="UTC")
    assert any("the path says 2026-08-12" in note for note in chain.notes)


def test_a_year_of_real_dates():
    chains = list(read_chains(real_quotes("spy_2021_top20.parquet")))
    assert len(chains) == 252
    assert {len(chain.rows) for chain in chains} == {20}
    times = pd.Series([chain.quote_time for chain in chains])
    assert times.is_monotonic_increasing


@pytest.mark.parametrize(
    "make", [yfinance, datashop, optionmetrics, thetadata_v2, polygon, nse_old]
)
def test_damaged_vendor_tables_are_read_or_refused_in_words(make, rng):
    """A column missing, twice, or with a cell or all cells that are something else."""
    frame = make()
    for at in rng.permutation(frame.shape[1])[:5]:
        one = frame.iloc[:, at]
        several = one.astype(object).copy()
        several.iloc[0] = [1, 2]
        tables = [frame.drop(columns=one.name), pd.concat([frame, one], axis=1)]
        for values in (
            several,
            pd.Series("7-x", one.index),
            pd.Series(np.nan, one.index),
        ):
            tables.append(frame.copy())
            tables[-1].isetitem(at, values)
        for table in tables:
            with suppress(QuoteError):
                read_chain(table, quote_time=DATE)


def test_a_vendors_column_that_is_there_twice_is_named():
    frame = yfinance()
    with pytest.raises(
        QuoteError, match=r"'yfinance'.*columns are named 'strike'; rename"
    ):
        read_chain(pd.concat([frame, frame["strike"]], axis=1), quote_time=DATE)
    with pytest.raises(QuoteError, match=r"'nse.* no column 'contracts'; mend it, or"):
        read_chain(nse_old().drop(columns="CONTRACTS"))


@pytest.mark.parametrize("name", ["tidy", "other"])
def test_what_a_layout_fails_on_is_told_with_its_cause_and_a_remedy_that_is_another(
    name,
):
    failure = ValueError("no such thing")
    reads = []

    def read(source):
        reads.append(source)
        raise failure

    table = pd.DataFrame([[1.0, 2.0]], columns=["bid", "strike"])
    for columns, reason in (
        (["bid", "strike"], "no such thing"),
        (["bid", "bid"], "several columns are named 'bid'"),
    ):
        source = ChainSource(None, table.set_axis(columns, axis=1))
        with pytest.raises(QuoteError, match=reason) as raised:
            read_layout(Layout(name, lambda source: True, read), source)
        assert raised.value.__cause__ is failure
        assert ("layout='tidy'" in str(raised.value)) == (name != "tidy")
    assert len(reads) == 2

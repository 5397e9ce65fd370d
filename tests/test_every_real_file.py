"""Every real file straight into a surface, or refused with a remedy that works.

What each file holds is counted here with pandas and nothing of the package.
"""

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
from real_quotes import real_quotes

import relu_options as ro
from relu_options.errors import QuoteError
from relu_options.surfaces import SurfaceFit

LEAN = "aapl_2014_lean"
LEAN_QUOTES = f"{LEAN}/aapl_2014_quote_american.zip"
ETFS = "us_etf_yfinance"
DAX = "dax_2001_17days.parquet"


def lines_of(date: str) -> Callable[[str], int]:
    """Counts the contracts quoted on a date: each a file of a zip, a line a date."""

    def count(name: str) -> int:
        path = real_quotes(name)
        path = path if path.suffix == ".zip" else path / LEAN_QUOTES.split("/")[1]
        start = date.replace("-", "").encode()
        with zipfile.ZipFile(path) as files:
            quoted = (files.read(each).splitlines() for each in files.namelist())
            return sum(line.startswith(start) for lines in quoted for line in lines)

    return count


def rows(name: str) -> int:
    path = real_quotes(name)
    return len(
        pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    )


def rows_of(date: str) -> Callable[[str], int]:
    def count(name: str) -> int:
        times = pd.read_parquet(real_quotes(name))["quote_time"]
        return int((times.dt.strftime("%Y-%m-%d") == date).sum())

    return count


def calls_and_puts(name: str) -> int:
    return 2 * rows(name)


def all_but_the_underlying(name: str) -> int:
    return rows(name) - 1


@dataclass(frozen=True)
class File:
    """A file, how it is read, and what is in it.

    Attributes:
        name: Below the folder of real quotes.
        how: What the file does not say.
        count: Counts its rows, each an option.
        expiries: How many a surface has.
        inside: The least share of quotes inside their spreads; American options with
            dividends are no prices of European ones.
        some: Whether the test fits eight of its expiries: all would take long.
    """

    name: str
    how: dict[str, Any]
    count: Callable[[str], int]
    expiries: int
    inside: float | None = 1.0
    some: bool = False

    def __str__(self) -> str:
        return f"{self.name} {' '.join(map(str, self.how.values()))}".strip()


MOST_QUOTES = 128
"""Of an expiry, where the test chooses: the shape that most tests compile."""

FILES = [
    File("sx5e_20100301_andreasen_huge.csv", {}, rows, 12, None),
    File("tsla_20180615_exp20180720.csv", {}, rows, 1, None),
    File("tsla_20180615_exp20200117.csv", {}, rows, 1, None),
    File(
        "spx_2019-05-18_cboe_quotedata_body.csv.gz",
        {},
        calls_and_puts,
        39,
        1.0,
        some=True,
    ),
    File("spx_2026-01-30_yfinance.csv.gz", {}, rows, 59, 1.0, some=True),
    *(
        File(f"{ETFS}/{date}/{name}.csv.gz", {}, rows, expiries, 0.75, some=True)
        for date, name, expiries in (
            ("2026-08-12", "SPY", 16),
            ("2026-08-12", "QQQ", 16),
            ("2026-08-12", "IWM", 14),
            ("2026-08-14", "SPY", 19),
            ("2026-08-14", "QQQ", 19),
            ("2026-08-14", "IWM", 17),
        )
    ),
    *(
        File(name, {"date": date}, lines_of(date), 12, 0.9, some=True)
        for name in (LEAN, LEAN_QUOTES)
        for date in ("2014-06-06", "2014-06-09")
    ),
    File(
        f"{LEAN}/universe_20140609.csv", {}, all_but_the_underlying, 12, None, some=True
    ),
    File("spy_2021_top20.parquet", {"date": "2021-01-12"}, rows_of("2021-01-12"), 2),
    File("aapl_2025-09-07_unified.csv", {}, rows, 1),
    File("btc_2025-09-07_okx_unified.csv", {}, rows, 1),
    File("btc_2025-08-30_deribit_ui.csv", {}, rows, 1),
    File(
        "wti_2025-09-08_barchart.csv",
        {"expiry": "2025-10-16", "min_open_interest": 300},
        rows,
        1,
    ),
]


@pytest.mark.parametrize("file", FILES, ids=str)
def test_a_real_file_is_read_and_every_row_accounted_for(file):
    chain = ro.read_chain(real_quotes(file.name), **file.how)
    report = chain.report()
    assert len(chain) == file.expiries
    assert report.rows.rows_in == len(chain.rows) == file.count(file.name)
    assert report.rows.rows_in == report.rows.rows_used + sum(
        report.rows.counts.values()
    )
    assert report.rows.rows_used == report.slices["used"].sum()
    # A contract is told by its expiry, strike and type: no two roots share them.
    contract = chain.rows.groupby(["expiry_time", "strike", "option_type"])
    assert not (contract["root"].nunique() > 1).any()


@pytest.mark.parametrize("file", FILES, ids=str)
def test_a_real_file_goes_straight_into_a_surface(file):
    path = real_quotes(file.name)
    chain = ro.read_chain(path, **file.how)
    if file.some:
        used = chain.report().slices["used"]
        largest = used[used <= MOST_QUOTES].nlargest(8).index
        chain = chain[[key for key in chain.slices if key in largest]]
        surface, fit = fitted(chain)
    else:
        surface, fit = fitted(path, **file.how)
    report = chain.report()
    assert len(surface) + len(fit.left_out) == len(report.slices)
    assert surface.certificate
    assert sum(map(len, fit.quotes)) == report.rows.rows_used
    if file.inside is not None:
        assert surface.share_inside >= file.inside


def fitted(source: Any, **how: Any) -> tuple[ro.PriceSurface, SurfaceFit]:
    surface = ro.fit_surface(source, **how)
    assert surface.fit is not None
    return surface, surface.fit


REFUSED = [
    (LEAN, {}, "2 quote dates .*2014-06-06.*`date=`", {"date": "2014-06-09"}),
    (LEAN_QUOTES, {}, "2 quote dates .*`date=`", {"date": "2014-06-06"}),
    (ETFS, {}, "2 dates in .*`date=`", None),
    (
        ETFS,
        {"date": "2026-08-14"},
        r"3 underlyings .*SPY \(6,036\).*`underlying=`",
        {"date": "2026-08-14", "underlying": "IWM"},
    ),
    (f"{ETFS}/2026-08-12", {}, "3 underlyings .*`underlying=`", {"underlying": "IWM"}),
    ("spy_2021_top20.parquet", {}, "252 quote dates", {"date": "2021-06-16"}),
    (
        "spy_2021_top20.parquet",
        {"date": "2021-09-17"},
        "bid is above ask in 14 of 16 rows.*`columns={'bid'",
        {"date": "2021-09-17", "columns": {"bid": "ask", "ask": "bid"}},
    ),
    (DAX, {}, "17 quote dates", None),
    (
        "wti_2025-09-08_barchart.csv",
        {},
        "'expiry' or 'time_to_expiry'.*pass `expiry=`",
        {"time_to_expiry": 38 / 365},
    ),
]


@pytest.mark.parametrize(("name", "how", "message", "remedy"), REFUSED)
def test_a_real_file_that_is_refused_names_a_remedy_that_works(
    name, how, message, remedy
):
    path = real_quotes(name)
    with pytest.raises(QuoteError, match=message):
        fitted(path, **how)
    if remedy is not None:  # else the remedy is a case of its own
        assert ro.read_chain(path, **remedy).report().rows.rows_used > 2


def test_a_file_without_a_single_quote_is_refused():
    """The day of the quotes is in the zip beside it."""
    with pytest.raises(QuoteError, match=r"2,180 rows in, 0 used.*the market was open"):
        ro.fit_surface(real_quotes(f"{LEAN}/universe_20140606.csv"))
    assert ro.read_chain(real_quotes(LEAN_QUOTES), date="2014-06-06").report().rows


def test_a_table_of_discount_factors_is_no_chain():
    with pytest.raises(QuoteError, match=r"need a column 'strike'; .*'maturity'"):
        ro.fit_surface(real_quotes("dax_2001_zero_coupon.parquet"))


def test_a_table_that_lost_types_and_expiries_is_fitted_when_told_them():
    """Its column `maturity` is 1 for calls and 2 for puts, `option_type` is empty.

    Where all six expiries are quoted, their order is that of the file. The one to fit
    is the last: the slope of parity is its discount factor, and that tells the time.
    """
    path, date = real_quotes(DAX), "2001-06-05"
    with pytest.raises(
        QuoteError, match=r"57 of 63 .*add or fill 'option_type'.*select"
    ):
        ro.fit_surface(path, date=date)
    table = pd.read_parquet(path)
    table = table[table["date"] == date]
    table["option_type"] = table.pop("maturity").map({1: "call", 2: "put"})
    contracts = table.groupby(["strike", "option_type"])["price"]
    last = table[contracts.transform("size") == 6].groupby(["strike", "option_type"])
    last = last.tail(1)
    years = 0.7786
    surface, fit = fitted(last, time_to_expiry=years)
    zero = pd.read_parquet(real_quotes("dax_2001_zero_coupon.parquet"))
    zero = zero[zero["date"] == date]
    known = np.interp(years, zero["maturity"], zero["discount_factor"])
    assert surface.discount_factors[0] == pytest.approx(known, abs=1e-3)
    assert surface.certificate
    assert len(fit.quotes[0]) == 15

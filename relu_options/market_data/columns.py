"""Canonical columns: how names find them, what cells mean, and in which units.

Units that tables do not state - the scale of strikes, prices in a coin, volatilities in
per cent - are detected from the numbers themselves, noted, and can be overridden.
"""

import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
import pandas as pd

from relu_options.errors import QuoteError, require_positive
from relu_options.market_data.contracts import is_contract, of_roots
from relu_options.market_data.sources import column_key


def words_of(text: str) -> tuple[str, ...]:
    """The words of a text: tables of names are read more easily as such."""
    return tuple(text.split())


CANONICAL_COLUMNS = words_of(
    "quote_time underlying root expiry expiry_time settlement exercise_style strike "
    "option_type bid ask bid_size ask_size volume open_interest underlying_price "
    "multiplier currency"
)
"""Columns that every canonical table has, in this order; missing where unknown."""

OPTIONAL_COLUMNS = words_of(
    "contract mid implied_volatility time_to_expiry forward discount_factor "
    "dividend_yield last_trade_time"
)
"""Columns that a canonical table has where its source, or its user, has them."""

NUMBERS = words_of(
    "strike bid ask bid_size ask_size volume open_interest underlying_price multiplier "
    "mid implied_volatility time_to_expiry forward discount_factor"
)
"""Those that hold numbers."""

LAST_PRICES = ("close", "closeprice", "last", "lastprice", "lasttradeprice")
"""Names of prices of whatever time: used where there are no others."""

# The canonical name itself always comes first. Names are compared in lower case and
# without anything but letters and digits, so "Open Int" and "open_int" are one name.
_SYNONYMS: dict[str, tuple[str, ...]] = {
    name: words_of(text)
    for name, text in {
        "contract": "contractsymbol contractid optionsymbol occsymbol osisymbol osi "
        "optionticker instrumentname instid rawsymbol symbol option",
        "quote_time": "quotedatetime quotedate quotetimestamp timestamp datetime "
        "asofutc asof asofdate snapshottime snapshotdate tradedate datadate eoddate "
        "windowstart valuationdate pricingdate date",
        "underlying": "underlyingsymbol underlyingticker undsymbol ticker actsymbol",
        "root": "optionroot rootsymbol optionclass",
        "expiry": "expiration expirationdate expirydate expdate expiredate expirdate "
        "exdate maturitydate lasttradedateorcontractmonth exp",
        "expiry_time": "expirationtime",
        "settlement": "settlementtype",
        "exercise_style": "exercise exercisetype style",
        "strike": "strikeprice strikepx exerciseprice strikes k",
        "option_type": "type right cpflag callput callorput putcall putorcall "
        "contracttype optionright optiontypecode pcflag iscall cp pc kind flag",
        "bid": "bidprice bidpx bestbid bestbidprice bidclose closebid",
        "ask": "askprice askpx bestask bestaskprice bestoffer offer offerprice "
        "askclose closeask",
        "mid": "midprice midpoint price mark markprice settle settlementprice "
        "optionprice premium " + " ".join(LAST_PRICES),
        "bid_size": "bidsize sizebid bidsz bidqty bidamount",
        "ask_size": "asksize sizeask asksz askqty askamount",
        "volume": "tradevolume totalvolume",
        "open_interest": "openint oi",
        "last_trade_time": "lasttradedate lasttradedatetime lasttradetimestamp "
        "lasttraded lasttradedat",
        "underlying_price": "underlyinglast underlyinglastprice underlyingclose "
        "underlyingmid activeunderlyingprice indexprice spot spotprice stockprice s0 s",
        "multiplier": "contractmultiplier contractsize lotsize",
        "currency": "quoteccy quotecurrency ccy",
        "implied_volatility": "impliedvol iv ivmid midiv markiv impvol implvolatility "
        "impvolatility volatility sigma",
        "time_to_expiry": "timetoexpiration timetomaturity yearstoexpiry yearfraction "
        "maturity ttm tte tau t",
        "days_to_expiry": "daystoexpiration daystomaturity maturitydays expirydays dte",
        "forward": "forwardprice fwd f",
        "discount_factor": "discount disc df",
    }.items()
}

_OPTION_TYPES = {
    **dict.fromkeys(words_of("call c ce ca 1 1.0"), True),
    **dict.fromkeys(words_of("put p pe pa -1 -1.0 0 0.0"), False),
}

PriceUnit = Literal["auto", "currency", "coin"]
VolatilityUnit = Literal["auto", "fraction", "percent"]

_PERCENT_ABOVE = 4.0  # the median of volatilities: 4 is 400 % or 4 %
_NOTED_ABOVE = 1.5  # fractions may be percent: 2 is 200 % or 2 %
_STRIKE_SCALES = (100.0, 1_000.0, 10_000.0)
_SCALE_TOLERANCE = 3.0  # medians of strikes and underlying, apart from the scale
_DEEP = 0.02  # in the money by this share of the underlying, prices show their unit
_COINS = frozenset({"BTC", "XBT", "ETH", "SOL", "XRP", "BNB", "DOGE", "PAXG", "TRUMP"})
_PRICES = ("bid", "ask", "mid")

_MAJORITY = 0.75  # of the steps from strike to strike: stale quotes go astray
_LEAST_STEPS = 2
_LEAST_STEPS_OF_WORDS = 3  # of calls and of puts: fewer may be an arbitrage
_OTHER = {"call": "put", "put": "call"}


def find_columns(
    names: pd.Index, columns: Mapping[str, Hashable] | None = None
) -> dict[str, Hashable]:
    """Canonical column names, each with the name that it has in a table.

    Args:
        names: The columns of the table.
        columns: Names that win over the search: canonical name to the table's name,
            `{"strike": "K_usd"}`; `{"volume": None}` hides a column from the search.

    Returns:
        The columns found. `"vol"` counts as an implied volatility only in a table
        without any price, since exchanges abbreviate volume so.

    Raises:
        QuoteError: If `columns` names what is neither a canonical column nor a column
            of the table.

    Examples:
        >>> find_columns(pd.Index(["K", "cp_flag", "best_offer"]))
        {'strike': 'K', 'option_type': 'cp_flag', 'ask': 'best_offer'}
    """
    found = _search(tuple(names))
    if columns is None:
        return found
    unknown = [name for name in columns if name not in _SYNONYMS]
    if unknown:
        raise QuoteError(
            f"`columns` maps unknown names {unknown}; "
            f"its keys are among {sorted(_SYNONYMS)}"
        )
    absent = [
        name for name in columns.values() if name is not None and name not in names
    ]
    if absent:
        raise QuoteError(
            f"`columns` names {absent}, which the table does not have; "
            f"it has {list(names)}"
        )
    merged = {**found, **columns}
    return {name: column for name, column in merged.items() if column is not None}


def match_columns(
    frame: pd.DataFrame, columns: Mapping[str, Hashable] | None = None
) -> dict[str, Hashable]:
    """`find_columns`, corrected by what the columns hold.

    A "maturity" of dates is an expiry, a "settlement" of numbers is a price, and a
    "symbol" that is no contract's is that of the underlying.
    """
    names = dict(find_columns(frame.columns, columns))
    for own in names.values():
        require_scalars(frame[own])
    given = columns or {}
    _swap_symbols(frame, names, given)
    stated = None if "quote_time" in given else names.get("quote_time")
    first = None if stated is None else _first_value(frame, stated)
    if isinstance(first, str) and re.match(r"\s*\d{1,2}:\d{2}", first):
        del names["quote_time"]  # times of the day without a date, "13:05 CT"

    def is_numeric(name: str) -> bool:
        kind = column_of(frame, names[name]).dtype
        flag = pd.api.types.is_bool_dtype(kind)
        return pd.api.types.is_numeric_dtype(kind) and not flag

    years_only = "time_to_expiry" in names and "expiry" not in names
    if years_only and not is_numeric("time_to_expiry"):
        names["expiry"] = names.pop("time_to_expiry")
    if "settlement" in names and is_numeric("settlement"):
        names.setdefault("mid", names.pop("settlement"))
    return names


def require_scalars(column: pd.Series | pd.DataFrame) -> None:
    """Raise unless a column has one value in each row.

    Raises:
        QuoteError: If a row holds a list or the like.
    """
    if isinstance(column, pd.DataFrame) or column.dtype != object:
        return
    several = [at for at, value in enumerate(column) if not isinstance(value, Hashable)]
    if several:
        first = several[0]
        raise QuoteError(
            f"column {column.name!r} holds {type(column.iloc[first]).__name__} in "
            f"{len(several)} of {len(column)} rows, first {column.index[first]!r}: "
            f"{column.iloc[first]!r}; give each row one value"
        )


def _swap_symbols(
    frame: pd.DataFrame, names: dict[str, Hashable], given: Mapping[str, Hashable]
) -> None:
    """Exchange the columns of contracts and underlyings where they hold the other."""
    held = {
        name: _first_value(frame, names[name])
        for name in ("contract", "underlying", "root")
        if name in names and name not in given
    }
    contract, underlying = names.get("contract"), names.get("underlying")
    if "contract" in held and not is_contract(held["contract"]):
        del names["contract"]
        words = isinstance(held["contract"], str)
        if words and "underlying" not in names and "underlying" not in given:
            names["underlying"] = contract
    if "underlying" in held and is_contract(held["underlying"]):
        del names["underlying"]
        names.setdefault("contract", underlying)
    if "root" in held and is_contract(held["root"]):
        names.setdefault("contract", names.pop("root"))
        names.pop("root", None)


def _first_value(frame: pd.DataFrame, name: Hashable) -> object:
    """The first value of a column that is not missing, or None."""
    column = frame[name]
    if isinstance(column, pd.DataFrame) or not len(column):
        return None
    first = column.iloc[0]
    if pd.isna(first):
        known = column.dropna()
        return known.iloc[0] if len(known) else None
    return first


@lru_cache(maxsize=256)
def _search(names: tuple[Hashable, ...]) -> dict[str, Hashable]:
    """The search of `find_columns`; cached, since fits repeat on equal tables."""
    by_key: dict[str, Hashable] = {}
    for name in names:
        by_key.setdefault(column_key(name), name)
    found: dict[str, Hashable] = {}
    for canonical, synonyms in _SYNONYMS.items():
        for key in (column_key(canonical), *synonyms):
            if key in by_key:
                found[canonical] = by_key[key]
                break
    has_price = {"bid", "ask", "mid", "implied_volatility"} & found.keys()
    if "vol" in by_key:
        found["volume" if has_price else "implied_volatility"] = by_key["vol"]
    return found


def column_of(frame: pd.DataFrame, name: Hashable) -> pd.Series:
    """The one column of that name.

    Raises:
        QuoteError: If several columns share the name.
    """
    column = frame[name]
    if isinstance(column, pd.DataFrame):
        raise QuoteError(
            f"{column.shape[1]} columns are named {name!r}; rename or drop all but one"
        )
    return column


def numbers(column: pd.Series) -> np.ndarray:
    """A column as float64, NaN where it is missing, infinite or not a number.

    Text is read as people export it: `"89,813"` and `"$70"` are numbers, `"-"` is
    missing, `"25%"` is a quarter, and a column with `"12,5"` has decimal commas.

    Examples:
        >>> numbers(pd.Series(["89,813", "-", "$4.5", "25%"]))
        array([8.9813e+04,        nan, 4.5000e+00, 2.5000e-01])
        >>> numbers(pd.Series(["1.234,5", "7"]))
        array([1234.5,    7. ])
    """
    values = column.to_numpy()
    if values.dtype.kind not in "fiu":
        if values.dtype.kind in "OUT":
            text = _without_separators(column.astype("str"))
            percent = text.str.endswith("%").fillna(False).to_numpy(dtype=bool)
            column = pd.to_numeric(text.str.removesuffix("%"), errors="coerce")
            column = column.where(~percent, column / 100.0)
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    values = values.astype(np.float64, copy=False)
    finite = np.isfinite(values)
    return values if finite.all() else np.where(finite, values, np.nan)


def _without_separators(text: pd.Series) -> pd.Series:
    """Numbers without currency signs, spaces and separators of thousands."""
    text = text.str.replace(r"[$€£¥₹\s\u00a0]", "", regex=True)
    text = text.str.replace("\u2212", "-")
    commas = text.str.contains(",", regex=False).fillna(False).astype(bool)
    if not commas.any():
        return text
    thousands = text.str.match(r"[-+]?\d{1,3}(,\d{3})+(\.\d*)?%?$").fillna(False)
    decimals = text.str.match(r"[-+]?\d{1,3}(\.?\d{3})*,\d+%?$").fillna(False)
    if (commas & ~thousands.astype(bool) & decimals.astype(bool)).any():
        text = text.str.replace(".", "", regex=False)
        return text.str.replace(",", ".", regex=False)
    return text.str.replace(",", "", regex=False)


def flags(column: pd.Series) -> np.ndarray:
    """True where a column is true, false where it is false or missing.

    Examples:
        >>> flags(pd.Series([True, None, False], dtype="boolean")).tolist()
        [True, False, False]
    """
    return column.eq(True).to_numpy(dtype=bool, na_value=False)


def call_flags(column: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Which rows are calls, and in which rows that is known.

    Args:
        column: `"call"`/`"put"`, `"C"`/`"P"` in any case, booleans (true: a call), 1
            and -1, or 1 and 0.

    Returns:
        Two boolean arrays; the first is false where the second is.

    Examples:
        >>> call_flags(pd.Series([1, -1]))[0].tolist()
        [True, False]
        >>> is_call, known = call_flags(pd.Series(["C", "put", "straddle"]))
        >>> is_call.tolist(), known.tolist()
        ([True, False, False], [True, True, False])
    """
    values = column.to_numpy()
    if values.dtype.kind == "b":
        return values.copy(), np.ones(len(values), dtype=bool)
    flags = [_option_type(value) for value in values.tolist()]
    known = np.array([flag is not None for flag in flags], dtype=bool)
    return np.array([flag is True for flag in flags], dtype=bool), known


def not_understood(types: tuple[str, ...]) -> str:
    """The message on option types that are neither calls nor puts."""
    return (
        f"the option types {', '.join(types)} are not understood: write them as "
        '"call" and "put", "C" and "P", or 1 and -1'
    )


@lru_cache(maxsize=256)
def _option_type(value: Hashable) -> bool | None:
    """True for a call, False for a put, None for anything else."""
    if isinstance(value, bool):
        return value
    return _OPTION_TYPES.get(str(value).strip().lower().removesuffix("s"))


def check_option_types(
    said: pd.Series,
    is_call: np.ndarray,
    known: np.ndarray,
    *,
    strike: np.ndarray,
    price: np.ndarray,
    slices: np.ndarray,
) -> list[str]:
    """Raise if the prices of calls rise with the strike, and those of puts fall.

    Args:
        said: The option types as a table has them.
        is_call: What they are read as. Shape `(rows,)`.
        known: Where that is anything.
        strike: Strikes.
        price: Prices, NaN where there are none.
        slices: A number for each quote time, underlying and expiry.

    Returns:
        A note, if the types are zeros and ones and prices do not tell.

    Raises:
        QuoteError: If prices say that the types are the reverse.

    Examples:
        >>> types, strike = pd.Series([0, 0, 0]), np.array([90.0, 100.0, 110.0])
        >>> try:
        ...     check_option_types(types, np.zeros(3, bool), np.ones(3, bool),
        ...                        strike=strike, price=np.array([12.0, 5.0, 1.0]),
        ...                        slices=np.zeros(3))
        ... except QuoteError as error:
        ...     print(str(error)[:67])
        option types are read as 0 = put, but their prices say the reverse:
    """
    kinds = {"call": known & is_call, "put": known & ~is_call}
    readings = {
        value: kind
        for kind, rows in kinds.items()
        for value in said[rows].dropna().unique().tolist()
    }
    if not readings:
        return []
    right = {
        kind: _steps(rows, strike, price, slices) == (1.0 if kind == "put" else -1.0)
        for kind, rows in kinds.items()
    }
    every = np.concatenate([*right.values()])
    reading = ", ".join(f"{value!r} = {kind}" for value, kind in readings.items())
    reverse = {value: _OTHER[kind] for value, kind in readings.items()}
    if _are_reversed(readings, right):
        raise QuoteError(
            f"option types are read as {reading}, but their prices say the reverse: "
            "calls are worth less the higher the strike and puts more, here in "
            f"{np.count_nonzero(every):,} of {len(every):,} steps from strike to "
            f"strike; rewrite the column with `.map({reverse})`"
        )
    # 1 and -1 have one meaning, 1 and 0 two.
    unclear = all(str(value).removesuffix(".0") in ("0", "1") for value in readings)
    if not unclear or (len(every) >= _LEAST_STEPS and np.mean(every) >= _MAJORITY):
        return []
    return [
        f"option types are read as {reading}, and prices do not tell whether they are: "
        f"if not, rewrite the column with `.map({reverse})`"
    ]


def _steps(
    rows: np.ndarray, strike: np.ndarray, price: np.ndarray, slices: np.ndarray
) -> np.ndarray:
    """Signs of the steps in price from strike to strike, without the level ones."""
    at = np.flatnonzero(rows & np.isfinite(strike) & np.isfinite(price))
    at = at[np.lexsort((strike[at], slices[at]))]
    before, after = at[:-1], at[1:]
    steps = np.sign(price[after] - price[before])
    of_one = (slices[after] == slices[before]) & (strike[after] > strike[before])
    return steps[of_one & (steps != 0.0)]


def _are_reversed(
    readings: Mapping[Hashable, str], right: Mapping[str, np.ndarray]
) -> bool:
    """Whether most steps go the wrong way; of words, those of calls and of puts."""
    if all(isinstance(value, str) and value[:1].isalpha() for value in readings):
        return all(
            len(steps) >= _LEAST_STEPS_OF_WORDS and np.mean(steps) <= 1.0 - _MAJORITY
            for steps in right.values()
        )
    every = np.concatenate([*right.values()])
    return len(every) >= _LEAST_STEPS and float(np.mean(every)) <= 1.0 - _MAJORITY


@dataclass(frozen=True)
class Units:
    """What a user says of the units of a table; the rest is detected.

    Attributes:
        strike_scale: By what strikes are divided; None to detect 100, 1000 and 10000.
        price_unit: "coin" if prices are in units of the underlying, "currency" if not.
        volatility_unit: "percent" if 20.5 means 20.5 %, "fraction" if 0.205 does.
        multiplier: Units of the underlying in a contract, of all rows.

    Examples:
        >>> Units(strike_scale=1000.0).price_unit
        'auto'
    """

    strike_scale: float | None = None
    price_unit: PriceUnit = "auto"
    volatility_unit: VolatilityUnit = "auto"
    multiplier: float | None = None

    def __post_init__(self) -> None:
        for name, choices in (
            ("price_unit", get_args(PriceUnit)),
            ("volatility_unit", get_args(VolatilityUnit)),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"`{name}` must be one of {choices}, not {getattr(self, name)!r}"
                )
        for name in ("strike_scale", "multiplier"):
            value = getattr(self, name)
            if value is not None:
                require_positive(**{name: value})


def convert_units(columns: dict[str, pd.Series], units: Units) -> list[str]:
    """Bring strikes and prices to currency units, volatilities to fractions, in place.

    Args:
        columns: Columns of numbers, with `root` and `currency` where known.
        units: What the user said.

    Returns:
        Notes on what was converted.

    Raises:
        QuoteError: If prices are in a coin whose price is unknown.
    """
    notes = _convert_strikes(columns, units.strike_scale)
    notes += _convert_prices(columns, units.price_unit)
    return notes + _convert_volatilities(columns, units.volatility_unit)


def _convert_strikes(columns: dict[str, pd.Series], scale: float | None) -> list[str]:
    """Divide strikes by a scale: the one asked for, or the one that spots imply."""
    strike = columns["strike"]
    detected = scale is None
    if detected:
        spot = _median(columns.get("underlying_price"))
        middle = _median(strike)
        # Strikes around zero, not one by mistake, are of an underlying near it.
        signed = (strike <= 0.0).mean() > 0.1
        if not (spot > 0.0 and middle > 0.0) or signed:
            return []
        ratios = {
            one: max(middle / spot / one, one * spot / middle) for one in _STRIKE_SCALES
        }
        scale = min(ratios, key=lambda one: ratios[one])
        if ratios[scale] > _SCALE_TOLERANCE:
            return []
    if scale == 1.0:
        return []
    columns["strike"] = strike / scale
    how = "" if not detected else "; pass `strike_scale=1` if they are not so scaled"
    return [f"strikes divided by {scale:g}{how}"]


def _convert_prices(columns: dict[str, pd.Series], unit: PriceUnit) -> list[str]:
    """Turn prices in a coin into currency units at the underlying's price."""
    in_coin = _in_coin(columns) if unit == "auto" else np.full(1, unit == "coin")
    in_coin = np.broadcast_to(in_coin, len(columns["strike"]))
    if not in_coin.any():
        return []
    price = columns.get("underlying_price")
    known = price is not None and price.notna().to_numpy()
    if price is None or not np.any(known & in_coin):
        raise QuoteError(
            "prices are in the coin, and the table has no price of the coin to convert "
            "them: name its column with `columns={'underlying_price': ...}`, or pass "
            "`spot=` in currency units"
        )
    for name in _PRICES:
        if name in columns:
            converted = columns[name] * price
            columns[name] = columns[name].mask(in_coin, converted)
    currency = columns.get("currency")
    dollars = pd.Series("USD", index=price.index, dtype="str")
    columns["currency"] = (
        dollars if currency is None else currency.mask(in_coin, "USD").astype("str")
    )
    note = "prices are in the coin: multiplied by the underlying's price"
    if unit == "auto":
        note += '; pass `price_unit="currency"` if they are not'
    return [note]


def _in_coin(columns: dict[str, pd.Series]) -> np.ndarray:
    """Rows priced in the coin: what deep in-the-money prices say, or else symbols.

    In dollars such a price is about the distance from the strike to the underlying, in
    the coin about that distance over the underlying.
    """
    size = len(columns["strike"])
    by_symbol = np.zeros(size, dtype=bool)
    if "root" in columns:
        by_symbol = flags(of_roots(columns["root"], "in_coin"))
    currency = columns.get("currency")
    if currency is not None:
        unsaid = currency.isna().to_numpy(dtype=bool)
        coin = currency.isin(list(_COINS)).to_numpy(dtype=bool)
        by_symbol = coin | (by_symbol & unsaid)
    spot = columns.get("underlying_price")
    if spot is None or not spot.notna().any():
        return by_symbol
    price = columns["ask"] if "ask" in columns else columns.get("mid")
    if price is None:
        return by_symbol
    sign = columns["option_type"].map({"call": 1.0, "put": -1.0})
    distance = sign * (spot - columns["strike"])
    deep = ((distance > _DEEP * spot) & (price > 0.0)).to_numpy()
    if np.count_nonzero(deep) < 3:
        return by_symbol
    ratio = float(np.median((price / distance).to_numpy()[deep]))
    coin_ratio = ratio * _median(spot)
    if _median(spot) > 50.0 and 0.5 < coin_ratio < 3.0:
        return np.ones(size, dtype=bool)
    if 0.5 < ratio < 3.0:
        return np.zeros(size, dtype=bool)
    return by_symbol


def _convert_volatilities(
    columns: dict[str, pd.Series], unit: VolatilityUnit
) -> list[str]:
    """Turn volatilities in per cent into fractions."""
    volatility = columns.get("implied_volatility")
    if volatility is None:
        return []
    median = _median(volatility[volatility > 0.0])
    if unit == "percent" or (unit == "auto" and median > _PERCENT_ABOVE):
        columns["implied_volatility"] = volatility / 100.0
    if unit == "auto" and median > _PERCENT_ABOVE:
        return [
            f"implied volatilities taken as percent (median {median:.4g}); pass "
            '`volatility_unit="fraction"` if they are not'
        ]
    quoted = [columns.get(name) for name in _PRICES]
    alone = all(column is None or column.isna().all() for column in quoted)
    if unit == "auto" and median > _NOTED_ABOVE and alone:
        return [
            f"implied volatilities taken as fractions, with a median of {median:.0%}; "
            'pass `volatility_unit="percent"` if they are percent'
        ]
    return []


def _median(column: pd.Series | None) -> float:
    """The median of what is known of a column; NaN where nothing is."""
    if column is None:
        return np.nan
    values = column.to_numpy(dtype=np.float64)
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else np.nan

"""Units that tables do not state: scale of strikes, prices in coin, volatilities in %.

Each is detected from the numbers themselves, noted, and can be overridden.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd

from relu_options.errors import QuoteError, require_positive
from relu_options.market_data.columns import flags
from relu_options.market_data.contracts import contract_root

PriceUnit = Literal["auto", "currency", "coin"]
VolatilityUnit = Literal["auto", "fraction", "percent"]

_PERCENT_ABOVE = 4.0  # the median of volatilities: 4 is 400 % or 4 %
_NOTED_ABOVE = 1.5  # fractions may be percent: 2 is 200 % or 2 %
_STRIKE_SCALES = (100.0, 1_000.0, 10_000.0)
_SCALE_TOLERANCE = 3.0  # medians of strikes and underlying, apart from the scale
_DEEP = 0.02  # in the money by this share of the underlying, prices show their unit
_COINS = frozenset({"BTC", "XBT", "ETH", "SOL", "XRP", "BNB", "DOGE", "PAXG", "TRUMP"})
_PRICES = ("bid", "ask", "mid")


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
        if not (spot > 0.0 and middle > 0.0):
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
    names = columns.get("root")
    size = len(columns["strike"])
    if names is None:
        by_symbol = np.zeros(size, dtype=bool)
    else:
        coins = {root: contract_root(root).in_coin for root in names.dropna().unique()}
        by_symbol = flags(names.map(coins))
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

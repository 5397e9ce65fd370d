"""Implied volatilities and Greeks of a table of quotes."""

from types import ModuleType
from typing import Any, Literal

import numpy as np
import pandas as pd

from relu_options import bachelier, black_scholes
from relu_options.errors import QuoteError
from relu_options.quote_status import QuoteStatus

_MARKET = ("forward", "discount_factor", "spot", "rate", "dividend_yield")
_MODELS: dict[str, ModuleType] = {
    "black_scholes": black_scholes,
    "bachelier": bachelier,
}


def add_greeks(
    quotes: pd.DataFrame,
    *,
    model: Literal["black_scholes", "bachelier"] = "black_scholes",
    prefix: str = "",
    **terms: Any,
) -> pd.DataFrame:
    """Add the implied volatility and the Greeks of each quote to its row.

    Args:
        quotes: One option a row, with columns `strike`, `option_type` ("call" or
            "put") and `price`, or `mid`, or `bid` and `ask`, whose mean is then used.
        model: "black_scholes", or "bachelier" for prices of either sign.
        prefix: Put before the names of the new columns.
        **terms: `time_to_expiry` in years, and `forward` and `discount_factor` or
            `spot`, `rate` and `dividend_yield` as in
            `relu_options.black_scholes.MarketArguments`: a number, or one value a row.
            A term not given is looked up among the columns.

    Returns:
        A copy of `quotes` with the columns `implied_volatility`, `quote_status` (a
        `QuoteStatus` in lower case, "found" where all is well), `delta`, `gamma`,
        `vega`, `theta`, `rho`, `vanna`, `volga` and `charm`. Where there is no
        volatility the Greeks are NaN; `volatility_violations` lists such rows.

    Raises:
        QuoteError: If a column or term is missing, an option type is neither "call" nor
            "put", or a new column would replace one that is there.
        ValueError: If the model is unknown, or a market is given in both forms.

    Examples:
        >>> quotes = pd.DataFrame({"strike": [90.0, 100.0, 110.0],
        ...                        "option_type": ["put", "call", "call"],
        ...                        "bid": [1.1, 5.5, 2.2], "ask": [1.2, 5.7, 2.3]})
        >>> table = add_greeks(quotes, forward=100.0, time_to_expiry=0.5)
        >>> print(table[["strike", "implied_volatility", "delta"]].round(4))
           strike  implied_volatility   delta
        0    90.0              0.1676 -0.1714
        1   100.0              0.1987  0.5280
        2   110.0              0.2016  0.2752
    """
    formulas = _formulas(model)
    option, price = _terms(quotes, terms)
    implied = (
        formulas.implied_volatility
        if model == "black_scholes"
        else formulas.implied_normal_volatility
    )
    volatility, status = implied(price=price, **option, return_status=True)
    greeks = formulas.greeks(volatility=volatility, **option)
    columns = {
        "implied_volatility": volatility,
        "quote_status": [QuoteStatus(code).name.lower() for code in status],
        **{name: getattr(greeks, name) for name in greeks._fields if name != "price"},
    }
    columns = {prefix + name: values for name, values in columns.items()}
    present = [name for name in columns if name in quotes.columns]
    if present:
        raise QuoteError(
            f"quotes already have columns {present}; drop them, or pass `prefix=`"
        )
    return quotes.assign(**columns)


def volatility_violations(
    quotes: pd.DataFrame,
    *,
    model: Literal["black_scholes", "bachelier"] = "black_scholes",
    **terms: Any,
) -> pd.DataFrame:
    """List the quotes that no positive volatility explains, and the bounds they break.

    Arguments are those of `add_greeks`.

    Returns:
        Of the rows concerned, with their index, `strike`, `option_type`, `price`,
        `lower_bound` (the discounted intrinsic value), `upper_bound` and
        `quote_status`. Empty if every quote has a volatility.

    Examples:
        >>> quotes = pd.DataFrame({"strike": [80.0, 90.0], "option_type": "call",
        ...                        "mid": [20.5, 9.5]}, index=["good", "bad"])
        >>> faults = volatility_violations(quotes, forward=100.0, time_to_expiry=0.5)
        >>> print(faults[["price", "lower_bound", "quote_status"]])
             price  lower_bound quote_status
        bad    9.5         10.0      too_low
    """
    table = add_greeks(quotes, model=model, prefix="_", **terms)
    option, price = _terms(quotes, terms)
    formulas = _formulas(model)
    found = pd.DataFrame(
        {
            "strike": quotes["strike"],
            "option_type": quotes["option_type"],
            "price": price,
            "lower_bound": formulas.price(volatility=0.0, **option),
            "upper_bound": formulas.price(volatility=np.inf, **option),
            "quote_status": table["_quote_status"],
        },
        index=quotes.index,
    )
    return found[found["quote_status"] != "found"]


def _formulas(model: str) -> ModuleType:
    if model not in _MODELS:
        raise ValueError(f"`model` must be one of {list(_MODELS)}, got {model!r}")
    return _MODELS[model]


def _terms(quotes: pd.DataFrame, given: dict) -> tuple[dict[str, Any], np.ndarray]:
    """Arguments of the formulas as arrays, and the prices."""
    unknown = set(given) - {*_MARKET, "time_to_expiry"}
    if unknown:
        raise ValueError(
            f"unknown terms {sorted(unknown)}; they are 'time_to_expiry' and "
            f"{list(_MARKET)}"
        )
    _require(quotes, ["strike", "option_type"])
    names = ["time_to_expiry"]
    # One form of the market: columns of the other are no part of it.
    if "forward" in given or ("forward" in quotes and "spot" not in given):
        names += ["forward", "discount_factor"]
    else:
        names += ["spot", "rate", "dividend_yield"]
    option = {name: _column(quotes, name) for name in names if name in quotes}
    option |= {name: np.asarray(value) for name, value in given.items()}
    if "time_to_expiry" not in option:
        raise QuoteError("there is no column 'time_to_expiry'; pass `time_to_expiry=`")
    if "forward" not in option and "spot" not in option:
        raise QuoteError(
            "there is no column 'forward' or 'spot'; pass `forward=` or `spot=`"
        )
    option["strike"] = _column(quotes, "strike")
    option["is_call"] = _is_call(quotes["option_type"])
    return option, _price(quotes)


def _require(quotes: pd.DataFrame, names: list[str]) -> None:
    missing = [name for name in names if name not in quotes]
    if missing:
        raise QuoteError(f"quotes need columns {names}; missing {missing}")


def _column(quotes: pd.DataFrame, name: str) -> np.ndarray:
    """A column as doubles, missing values as NaN."""
    try:
        return quotes[name].to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise QuoteError(f"column {name!r} holds values that are no numbers") from error


def _price(quotes: pd.DataFrame) -> np.ndarray:
    for name in ("price", "mid"):
        if name in quotes:
            return _column(quotes, name)
    missing = [name for name in ("bid", "ask") if name not in quotes]
    if missing:
        raise QuoteError(
            "quotes need a column 'price' or 'mid', or columns ['bid', 'ask']; missing "
            f"{missing}"
        )
    return 0.5 * (_column(quotes, "bid") + _column(quotes, "ask"))


def _is_call(option_type: pd.Series) -> np.ndarray:
    known = option_type.isin(["call", "put"])
    if not known.all():
        wrong = option_type[~known]
        first = ", ".join(f"row {i!r} ({value!r})" for i, value in wrong[:3].items())
        raise QuoteError(
            f"option_type neither 'call' nor 'put' in {len(wrong)} of "
            f"{len(option_type)} rows: {first}"
        )
    return (option_type == "call").to_numpy(dtype=bool)

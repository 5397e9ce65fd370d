"""Implied volatilities and Greeks of a table of quotes."""

from collections.abc import Hashable, Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd

from relu_options.errors import QuoteError
from relu_options.formulas import bachelier, black_scholes
from relu_options.formulas.option_model import OptionModel, QuoteStatus
from relu_options.market_data import (
    OptionChain,
    Quotes,
    Reading,
    prepare_slices,
    read_chain,
)
from relu_options.market_data.columns import (
    LAST_PRICES,
    call_flags,
    check_option_types,
    match_columns,
)
from relu_options.market_data.sources import column_key, open_source

_READING = frozenset(Reading.__annotations__)
_MARKET = ("forward", "discount_factor", "spot", "rate", "dividend_yield")
_MODELS = {model.name: model for model in (black_scholes.model, bachelier.model)}


def add_greeks(
    quotes: Quotes,
    *,
    model: Literal["black_scholes", "bachelier"] = "black_scholes",
    prefix: str = "",
    columns: Mapping[str, Hashable] | None = None,
    **terms: Any,
) -> pd.DataFrame:
    """Add the implied volatility and the Greeks of each quote to its row.

    Args:
        quotes: One option a row: what `read_chain` reads, with a strike, an option type
            and a price, or a mid, or bid and ask, whose mean is then used. Of a chain,
            the rows that are used, at the forward, discount factor and time of their
            slice, in order of expiry; so too of a table that has neither a time to
            expiry nor a forward or a spot, but dates.
        model: "black_scholes", or "bachelier" for prices of either sign.
        prefix: Put before the names of the new columns.
        columns: Names of columns that are not found: `{"strike": "K_usd"}`.
        **terms: `time_to_expiry` in years, and `forward` and `discount_factor` or
            `spot`, `rate` and `dividend_yield` as in
            `relu_options.black_scholes.MarketArguments`: a number, or one value a row.
            A term not given is looked up among the columns. For a chain, arguments
            of `read_chain`.

    Returns:
        A copy of `quotes` with the columns `implied_volatility`, `quote_status` (a
        `QuoteStatus` in lower case, "found" where all is well), `delta`, `gamma`,
        `vega`, `theta`, `rho`, `vanna`, `volga` and `charm`. Where there is no
        volatility the Greeks are NaN; `volatility_violations` lists such rows.

    Raises:
        QuoteError: If a column or term is missing, an option type is neither "call" nor
            "put", or what prices contradict, or a new column would replace one that is
            there.
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
    formulas = _model(model)
    quotes, table, terms = _priced(quotes, columns, terms, model)
    option, price = _terms(table, terms)
    volatility, status = formulas.implied_volatility(
        price=price, **option, return_status=True
    )
    greeks = formulas.greeks(volatility=volatility, **option)
    added = {
        "implied_volatility": volatility,
        "quote_status": [QuoteStatus(code).name.lower() for code in status],
        **{name: getattr(greeks, name) for name in greeks._fields if name != "price"},
    }
    added = {prefix + name: values for name, values in added.items()}
    present = [name for name in added if name in quotes.columns]
    if present:
        raise QuoteError(
            f"quotes already have columns {present}; drop them, or pass `prefix=`"
        )
    return quotes.assign(**added)


def volatility_violations(
    quotes: Quotes,
    *,
    model: Literal["black_scholes", "bachelier"] = "black_scholes",
    columns: Mapping[str, Hashable] | None = None,
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
    table = add_greeks(quotes, model=model, prefix="_", columns=columns, **terms)
    _, quotes, terms = _priced(quotes, columns, terms, model)
    option, price = _terms(quotes, terms)
    formulas = _model(model)
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


def _priced(
    quotes: Quotes,
    columns: Mapping[str, Hashable] | None,
    terms: dict[str, Any],
    model: str,
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """The user's rows, the same under canonical names, and the terms of their market.

    Of a chain, canonical rows with the forward of their slice.
    """
    if not isinstance(quotes, OptionChain):
        source = open_source(quotes, columns)
        table = source.read(skiprows=source.header if source.head else 0)
        found = match_columns(table, columns)
        said = found.keys() | terms.keys() | {*map(str, table.columns)}
        market = {"forward", "spot", "underlying_price"} & said
        dated = {"expiry", "contract"} & found.keys()
        if not dated or ("time_to_expiry" in said and market):
            return table, _named(table, found), terms
        how = {name: terms.pop(name) for name in [*terms] if name in _READING}
        quotes = read_chain(quotes, columns=columns, **how)
    reading = {name: terms[name] for name in terms if name in _READING}
    slices = prepare_slices(quotes, **reading)  # type: ignore[arg-type]
    slices.require_any()
    rows = []
    for prepared, chain in zip(slices.quotes, slices.chains, strict=True):
        if model == "black_scholes":
            prepared.require_lognormal("pass model='bachelier'")
        of_slice = {
            "forward": prepared.forward,
            "discount_factor": prepared.discount_factor,
            "time_to_expiry": prepared.time_to_expiry,
        }
        table = chain.table.drop(columns="implied_volatility", errors="ignore")  # type: ignore[union-attr]
        rows.append(table.assign(**of_slice))
    together = pd.concat(rows)
    rest = {name: terms[name] for name in terms if name not in _READING}
    return together, together, rest


def _named(table: pd.DataFrame, found: Mapping[str, Hashable]) -> pd.DataFrame:
    """Columns under their canonical names; a last trade is no price beside quotes."""
    names = dict(found)
    last = "mid" in names and column_key(names["mid"]) in LAST_PRICES
    if last and {"bid", "ask"} <= names.keys():
        del names["mid"]
    own = {name: table[column] for name, column in names.items()}
    if "underlying_price" in own:
        own.setdefault("spot", own["underlying_price"])
    for name in ("price", "spot", "rate", "dividend_yield"):
        if name in table:
            own[name] = table[name]
    return pd.DataFrame(own, index=table.index)


def _model(model: str) -> OptionModel:
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
    same = pd.DataFrame(option, index=quotes.index)
    option["strike"] = _column(quotes, "strike")
    option["is_call"] = _is_call(quotes["option_type"])
    price = _price(quotes)
    check_option_types(
        quotes["option_type"],
        option["is_call"],
        np.ones(len(quotes), dtype=bool),
        strike=option["strike"],
        price=price,
        slices=same.groupby([*same], dropna=False).ngroup().to_numpy(),
    )
    return option, price


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
    is_call, known = call_flags(option_type)
    if not known.all():
        wrong = option_type[~known]
        first = ", ".join(f"row {i!r} ({value!r})" for i, value in wrong[:3].items())
        raise QuoteError(
            f"option_type neither 'call' nor 'put' in {len(wrong)} of "
            f"{len(option_type)} rows: {first}"
        )
    return is_call

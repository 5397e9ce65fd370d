"""Contract symbols, and what their roots imply.

Symbols of the Options Clearing Corporation ("SPXW190603C02800000") and those of the
exchanges on which coins are traded ("BTC-26DEC25-100000-C").
"""

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

from relu_options.market_data.clocks import COIN_SETTLEMENT, SETTLEMENT_TIMES

_SYMBOL = r"^\s*(?:O:|[\^.])?([A-Z][A-Z0-9.]{0,5}?)\s*(\d{6})([CP])(\d{8})\s*$"
_COIN_SYMBOL = (
    r"^\s*([A-Z0-9]+)(?:[-_](USD|USDC|USDT))?"  # Deribit, OKX, Bybit, Binance
    r"-(\d{1,2}[A-Z]{3}\d{2}|\d{6})-(\d+(?:[.D]\d+)?)-([CP])(?:-(USD|USDC|USDT))?\s*$"
)
_COIN_ROOT = r"([A-Z0-9]+)-(USD|USDC|USDT)"
_OTHER_SIZE = r"-USD-\d{6}-"  # OKX: shares of a coin, which have changed
_ADJUSTED_ROOT = r"[A-Z.]+\d"
_US_SHARES = 100.0


@dataclass(frozen=True)
class ContractRoot:
    """What the root of a contract symbol says about the contract.

    Attributes:
        underlying: What the option is written on.
        settlement: "AM" if settled on opening prices, "PM" if on the close, "08:00 UTC"
            for coins.
        exercise_style: "european" or "american".
        in_coin: Whether prices are in units of the underlying.
        adjusted: Whether a corporate action has changed what is delivered.
        multiplier: Units of the underlying in a contract; NaN where the root alone does
            not tell.
    """

    underlying: str
    settlement: str = "PM"
    exercise_style: str = "american"
    in_coin: bool = False
    adjusted: bool = False
    multiplier: float = np.nan


def _index_roots() -> dict[str, ContractRoot]:
    """Roots of US index options: the standard ones settle AM, the others PM."""

    def root(of: str, clock: str, style: str = "european", size: float = _US_SHARES):
        return ContractRoot(of, clock, style, multiplier=size)

    morning = ("SPX", "NDX", "RUT", "DJX", "VIX", "MXEA", "MXEF", "RLG", "RLV", "RUI")
    evening = dict.fromkeys(("SPXW", "SPXPM"), "SPX")
    evening |= {"NDXP": "NDX", "RUTW": "RUT", "XEO": "OEX"}
    evening |= {name: name for name in ("XSP", "XND", "MRUT", "CBTX")}
    return (
        {name: root(name, "AM") for name in morning}
        | {name: root(of, "PM") for name, of in evening.items()}
        | {
            "VIXW": root("VIX", "AM"),
            "OEX": root("OEX", "PM", "american"),
            "NANOS": root("XSP", "PM", size=1.0),
        }
    )


CONTRACT_ROOTS = _index_roots()
"""Roots that are not simply an American option on the stock of the same name."""

INDEX_MULTIPLIERS = {
    **dict.fromkeys(("DAX", "ODAX"), 5.0),
    **dict.fromkeys(("ESTX50", "OESX", "SX5E", "OSMI", "FTSE", "UKX"), 10.0),
    **dict.fromkeys(("N225", "NK225", "NKY"), 1000.0),
    "HSI": 50.0,
}
"""Units of an index in a contract, by names of indices and roots outside of the US."""

FUTURE_MULTIPLIERS = {
    "CL": 1000.0,
    "ES": 50.0,
    "GC": 100.0,
    "NG": 10_000.0,
    "NQ": 20.0,
    "RTY": 50.0,
    "SI": 5000.0,
    "YM": 5.0,
}
"""Units in an option on a future, by the future's root; shares have such names too."""

_WHOLE_COINS = ("BTC", "ETH")  # of which a contract is one at Deribit, Bybit, Binance


def contract_root(root: str) -> ContractRoot:
    """What a root stands for; unknown roots are American, on the stock of that name.

    A root that ends in a digit is that of adjusted contracts; "BTC-USD" stands for
    options on a coin, priced in the coin.

    Examples:
        >>> contract_root("SPXW").settlement, contract_root("SPXW").exercise_style
        ('PM', 'european')
        >>> contract_root("AAPL1").underlying, contract_root("AAPL1").adjusted
        ('AAPL', True)
        >>> contract_root("BTC-USD").in_coin, contract_root("BTC-USDC").in_coin
        (True, False)
        >>> contract_root("XSP").multiplier, contract_root("AAPL").multiplier
        (100.0, nan)
    """
    if root in CONTRACT_ROOTS:
        return CONTRACT_ROOTS[root]
    coin = re.fullmatch(_COIN_ROOT, root)
    if coin:
        in_coin = coin[2] == "USD"
        whole = coin[1] in _WHOLE_COINS and coin[2] != "USDC"
        size = 1.0 if whole else np.nan
        return ContractRoot(
            coin[1], COIN_SETTLEMENT, "european", in_coin=in_coin, multiplier=size
        )
    if re.fullmatch(_ADJUSTED_ROOT, root):
        return ContractRoot(root[:-1], adjusted=True)
    return ContractRoot(root)


def of_roots(roots: pd.Series, attribute: str) -> pd.Series:
    """What each root says, as an attribute of `ContractRoot`; missing without a root.

    Examples:
        >>> of_roots(pd.Series(["SPXW", None]), "settlement").tolist()
        ['PM', nan]
    """
    known = roots.dropna().unique()
    return roots.map({root: getattr(contract_root(root), attribute) for root in known})


def multipliers_of(
    symbols: pd.Series | None,
    roots: pd.Series,
    underlying: pd.Series,
    *,
    us_listed: bool,
) -> pd.Series:
    """Units of the underlying in each contract; NaN where nothing tells.

    A contract of the Options Clearing Corporation is on 100, unless its root says
    otherwise or it was adjusted; so is any that is listed in the US.

    Args:
        symbols: Contract symbols, if there are any.
        roots: Roots, missing where they are not known.
        underlying: Names, likewise.
        us_listed: Whether all contracts are listed in the US.

    Examples:
        >>> names = pd.Series(["SPXW", "AAPL", "AAPL1", "OESX", None])
        >>> multipliers_of(None, names, names, us_listed=False).tolist()
        [100.0, nan, nan, 10.0, nan]
        >>> multipliers_of(None, names, names, us_listed=True).tolist()
        [100.0, 100.0, nan, 100.0, 100.0]
    """
    found = of_roots(roots, "multiplier").astype(float)
    indices = {name: index_terms(name) for name in underlying.dropna().unique()}
    by_index = {name: one.multiplier for name, one in indices.items() if one}
    found = found.fillna(underlying.map(by_index).astype(float))
    listed = pd.Series(us_listed, index=roots.index)
    if symbols is not None:
        text = symbols.astype("str").str.upper()
        found = found.mask(text.str.contains(_OTHER_SIZE, na=False))
        listed |= text.str.fullmatch(_SYMBOL, na=False)
    other = of_roots(roots, "adjusted").eq(True)
    other |= of_roots(roots, "settlement") == COIN_SETTLEMENT
    found = found.mask(found.isna() & listed & ~other, _US_SHARES)
    for names in (roots, underlying):
        found = found.fillna(names.map(INDEX_MULTIPLIERS).astype(float))
    return found


def index_terms(underlying: str) -> ContractRoot | None:
    """Terms that all contracts on a US index share; None for what is not one.

    Examples:
        >>> index_terms("VIX").settlement, index_terms("SPX").settlement
        ('AM', 'PM')
        >>> index_terms("SPY") is None, index_terms("OEX").exercise_style
        (True, 'american')
    """
    roots = [one for one in CONTRACT_ROOTS.values() if one.underlying == underlying]
    if not roots:
        return None
    clocks = {one.settlement for one in roots}
    clock = clocks.pop() if len(clocks) == 1 else "PM"
    style = min(one.exercise_style for one in roots)  # the American, if there are both
    size = max(one.multiplier for one in roots)
    return ContractRoot(underlying, clock, style, multiplier=size)


def parse_contracts(symbols: pd.Series) -> pd.DataFrame:
    """Root, expiry, option type and strike of contract symbols.

    Args:
        symbols: Symbols such as `"SPXW190603C02800000"`: a root, the expiry as year,
            month and day, C or P, and the strike in thousandths; or such as
            `"BTC-26DEC25-100000-C"` and `"BTC-USD-251226-100000-C"`, on coins.

    Returns:
        Columns `root`, `expiry`, `option_type`, `strike`, with the index of `symbols`;
        missing where a symbol is not of these forms.

    Examples:
        >>> symbols = pd.Series(["SPXW190603C02800000", "SPY 21 Jan 29 P345",
        ...                      "ETH-26DEC25-4000-P"])
        >>> print(parse_contracts(symbols).to_string())
              root     expiry option_type  strike
        0     SPXW 2019-06-03        call  2800.0
        1      NaN        NaT         NaN     NaN
        2  ETH-USD 2025-12-26         put  4000.0
    """
    text = symbols.astype("str").str.upper()
    parts = text.str.extract(_SYMBOL)
    root, expiry = parts[0], pd.to_datetime(parts[1], format="%y%m%d", errors="coerce")
    kind, strike = parts[2], pd.to_numeric(parts[3]) / 1000.0
    if expiry.isna().any():
        coins = text.where(expiry.isna()).str.extract(_COIN_SYMBOL)
        dates = pd.to_datetime(coins[2], format="%d%b%y", errors="coerce")
        numbered = pd.to_datetime(coins[2], format="%y%m%d", errors="coerce")
        # "BTC-250908-..." without a currency is Binance's, in USDT.
        currency = coins[1].where(coins[1].notna(), coins[5])
        currency = currency.where(currency.notna(), "USD")
        bare = numbered.notna() & coins[1].isna() & coins[5].isna()
        names = coins[0] + "-" + currency.where(~bare, "USDT")
        root = root.where(root.notna(), names)
        expiry = expiry.where(expiry.notna(), dates.where(dates.notna(), numbered))
        kind = kind.where(kind.notna(), coins[4])
        level = pd.to_numeric(coins[3].str.replace("D", "."))
        strike = strike.where(strike.notna(), level)
    return pd.DataFrame(
        {
            "root": root,
            "expiry": expiry,
            "option_type": kind.map({"C": "call", "P": "put"}),
            "strike": strike,
        }
    ).where(expiry.notna())


def is_contract(symbol: object) -> bool:
    """Whether a text is a contract symbol.

    Examples:
        >>> is_contract("O:SPXW190603C02800000"), is_contract("SPXW")
        (True, False)
    """
    text = str(symbol).upper()
    return bool(re.match(_SYMBOL, text) or re.match(_COIN_SYMBOL, text))


def settlement_of(value: object) -> str | None:
    """What a table says of a settlement, as "AM", "PM" or "08:00 UTC", or None.

    Examples:
        >>> [settlement_of(value) for value in ("am", "P.M.", True, None)]
        ['AM', 'PM', None, None]
    """
    if str(value).strip() in SETTLEMENT_TIMES:
        return str(value).strip()
    text = re.sub(r"[^A-Z]", "", str(value).upper())
    return text if text in ("AM", "PM") else None

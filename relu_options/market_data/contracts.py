"""Contract symbols of the Options Clearing Corporation, and what their roots imply."""

import re
from dataclasses import dataclass

import pandas as pd

from relu_options.market_data.clocks import SETTLEMENT_TIMES

_SYMBOL = r"^\s*\^?([A-Z][A-Z0-9.]{0,5})\s*(\d{6})([CP])(\d{8})\s*$"


@dataclass(frozen=True)
class ContractRoot:
    """What the root of a contract symbol says about the contract.

    Attributes:
        underlying: What the option is written on.
        settlement: "AM" if settled on opening prices, "PM" if on the close.
        exercise_style: "european" or "american".
    """

    underlying: str
    settlement: str = "PM"
    exercise_style: str = "american"


def _index_roots() -> dict[str, ContractRoot]:
    """Roots of US index options: the standard ones settle AM, the others PM."""
    morning = ("SPX", "NDX", "RUT", "DJX", "VIX", "MXEA", "MXEF", "RLG", "RLV", "RUI")
    roots = {root: ContractRoot(root, "AM", "european") for root in morning}
    evening = {
        "SPXW": "SPX",
        "SPXPM": "SPX",
        "XSP": "XSP",
        "NDXP": "NDX",
        "XND": "XND",
        "RUTW": "RUT",
        "MRUT": "MRUT",
        "XEO": "OEX",
        "CBTX": "CBTX",
    }
    roots |= {root: ContractRoot(of, "PM", "european") for root, of in evening.items()}
    return roots | {"VIXW": ContractRoot("VIX", "AM", "european")}


CONTRACT_ROOTS = _index_roots()
"""Roots that are not simply an American option on the stock of the same name."""


def contract_root(root: str) -> ContractRoot:
    """What a root stands for; unknown roots are American, on the stock of that name.

    Examples:
        >>> contract_root("SPXW")
        ContractRoot(underlying='SPX', settlement='PM', exercise_style='european')
    """
    return CONTRACT_ROOTS.get(root) or ContractRoot(root)


def parse_contracts(symbols: pd.Series) -> pd.DataFrame:
    """Root, expiry, option type and strike of contract symbols.

    Args:
        symbols: Symbols such as `"SPXW190603C02800000"`: a root, the expiry as year,
            month and day, C or P, and the strike in thousandths.

    Returns:
        Columns `root`, `expiry`, `option_type`, `strike`, with the index of `symbols`;
        missing where a symbol is not of this form.

    Examples:
        >>> symbols = pd.Series(["SPXW190603C02800000", "SPY 21 Jan 29 P345"])
        >>> print(parse_contracts(symbols).to_string())
           root     expiry option_type  strike
        0  SPXW 2019-06-03        call  2800.0
        1   NaN        NaT         NaN     NaN
    """
    parts = symbols.astype("str").str.upper().str.extract(_SYMBOL)
    expiry = pd.to_datetime(parts[1], format="%y%m%d", errors="coerce")
    return pd.DataFrame(
        {
            "root": parts[0],
            "expiry": expiry,
            "option_type": parts[2].map({"C": "call", "P": "put"}),
            "strike": pd.to_numeric(parts[3]) / 1000.0,
        }
    ).where(expiry.notna())


def root_of(symbol: object) -> str | None:
    """The root of one contract symbol, or None if it is not of the usual form."""
    match = re.match(_SYMBOL, str(symbol).upper())
    return match[1] if match else None


def settlement_of(value: object) -> str | None:
    """What a table says of a settlement, as "AM" or "PM", or None.

    Examples:
        >>> [settlement_of(value) for value in ("am", "P.M.", True, None)]
        ['AM', 'PM', None, None]
    """
    text = re.sub(r"[^A-Z]", "", str(value).upper())
    return text if text in SETTLEMENT_TIMES else None

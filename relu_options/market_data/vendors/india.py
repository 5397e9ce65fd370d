"""The National Stock Exchange of India: its daily files, old and new."""

import numpy as np
import pandas as pd

from relu_options.market_data.columns import numbers
from relu_options.market_data.layouts import TableLayout

_TIMEZONE = "Asia/Kolkata"
_VALUES = {"currency": "INR", "exercise_style": "european"}
_NOTES = (
    "no bids and asks: closing prices of the contracts that traded; the others have "
    "no price of that day",
)


def _traded(volume: str, close: str):
    """What keeps a close only where the contract traded that day."""

    def prepare(table: pd.DataFrame) -> pd.DataFrame:
        traded = numbers(table[volume]) > 0.0
        table["tradedclose"] = np.where(traded, numbers(table[close]), np.nan)
        kind = "optntp" if "optntp" in table else "optiontyp"
        text = table[kind].astype("str").str.strip().str.upper()
        return table[text.isin(["CE", "PE", "CA", "PA"])]

    return prepare


LAYOUTS = (
    TableLayout(
        "nse bhavcopy",
        signature=("INSTRUMENT", "SYMBOL", "EXPIRY_DT", "STRIKE_PR", "OPTION_TYP"),
        columns={
            "underlying": "SYMBOL",
            "quote_time": "TIMESTAMP",
            "expiry": "EXPIRY_DT",
            "strike": "STRIKE_PR",
            "option_type": "OPTION_TYP",
            "mid": "tradedclose",
            "volume": "CONTRACTS",
            "open_interest": "OPEN_INT",
        },
        values=_VALUES,
        timezone=_TIMEZONE,
        prepare=_traded("contracts", "close"),
        notes=_NOTES,
    ),
    TableLayout(
        "nse udiff",
        signature=("TckrSymb", "XpryDt", "StrkPric", "OptnTp", "ClsPric"),
        columns={
            "underlying": "TckrSymb",
            "quote_time": "TradDt",
            "expiry": ("FininstrmActlXpryDt", "XpryDt"),
            "strike": "StrkPric",
            "option_type": "OptnTp",
            "mid": "tradedclose",
            "volume": "TtlTradgVol",
            "open_interest": "OpnIntrst",
            "underlying_price": "UndrlygPric",
            "multiplier": "NewBrdLotQty",
        },
        values=_VALUES,
        timezone=_TIMEZONE,
        prepare=_traded("ttltradgvol", "clspric"),
        notes=_NOTES,
    ),
)

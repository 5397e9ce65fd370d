"""The stored truth set, and the error of results against it."""

import csv
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

PATH = Path(__file__).parent / "option_truth.csv"
EPS = 2.0**-52


@dataclass(frozen=True)
class Truth:
    """Options of one model, and the volatility of each to 30 digits.

    `price` is the exact price at `volatility`, rounded to a double, and `root` with
    `root_rest` the sum that is the volatility at exactly that price.
    """

    kind: np.ndarray
    options: dict[str, Any]
    volatility: np.ndarray
    price: np.ndarray
    root: np.ndarray
    root_rest: np.ndarray

    def error_of_volatilities(self, volatility: np.ndarray) -> np.ndarray:
        """Relative errors, in units of 2.2e-16."""
        return np.abs((volatility - self.root) - self.root_rest) / self.root / EPS

    def error_of_prices(self, price: np.ndarray) -> np.ndarray:
        """Relative errors, in units of 2.2e-16."""
        return np.abs(price - self.price) / self.price / EPS


def load_truth(model: str) -> Truth:
    """The rows of "lognormal" or "normal"."""
    with PATH.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["model"] == model]

    def column(name: str) -> np.ndarray:
        return np.array([float.fromhex(row[name]) for row in rows])

    roots = [Decimal(row["root"]) for row in rows]
    options = {name: column(name) for name in ("forward", "strike", "time_to_expiry")}
    return Truth(
        kind=np.array([row["kind"] for row in rows]),
        options=options
        | {"is_call": np.array([row["is_call"] == "1" for row in rows])},
        volatility=column("volatility"),
        price=column("price"),
        root=np.array([float(root) for root in roots]),
        root_rest=np.array([float(root - Decimal(float(root))) for root in roots]),
    )

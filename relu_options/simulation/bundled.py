"""The simulated chain and history that come with the package."""

import json
from pathlib import Path

import pandas as pd

from relu_options.market_data.chain import OptionChain
from relu_options.market_data.history import ChainHistory
from relu_options.market_data.reading import read_chain
from relu_options.simulation.chain import (
    SimulatedChain,
    SimulationTerms,
    simulate_chain,
    slice_terms,
)

CHAIN_FILE = "bates_chain.csv"
TRUTH_FILE = "bates_chain.json"
HISTORY_FOLDER = "bates_history"


def bundled_path(name: str = CHAIN_FILE) -> Path:
    """Where a bundled file or folder lies, in an installed package or the repository.

    Raises:
        FileNotFoundError: If there is none of that name.

    Examples:
        >>> bundled_path().name
        'bates_chain.csv'
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "data", package.parent / "data"):
        if (folder / name).exists():
            return folder / name
    raise FileNotFoundError(f"no bundled file {name!r} in {package / 'data'}")


def bundled_chain() -> OptionChain:
    """The bundled chain: eight expiries from a week to two years, simulated.

    Examples:
        >>> chain = bundled_chain()
        >>> len(chain), chain.underlying
        (8, 'SIM')
    """
    return read_chain(bundled_path())


def bundled_truth() -> SimulatedChain:
    """The bundled chain with the model that it was simulated from.

    Examples:
        >>> truth = bundled_truth()
        >>> print(truth.true_volatility("2025-06-20", [4500.0, 5000.0]).round(4))
        [0.2254 0.1732]
    """
    terms = SimulationTerms.from_dict(
        json.loads(bundled_path(TRUTH_FILE).read_text(encoding="utf-8"))["terms"]
    )
    table = read_chain(bundled_path()).to_frame()
    return SimulatedChain(terms=terms, table=table, slices=slice_terms(terms))


def bundled_history() -> ChainHistory:
    """The bundled history: two months of a simulated underlying that splits.

    Examples:
        >>> history = bundled_history()
        >>> len(history), len(history.missing_dates), history.splits.to_dict()
        (40, 2, {Timestamp('2025-02-10 00:00:00'): 2.0})
    """
    return ChainHistory(bundled_path(HISTORY_FOLDER))


def write_bundled(folder: Path, terms: SimulationTerms) -> None:
    """Simulate a chain and write it to a folder, as the two bundled files.

    Args:
        folder: Where to write; it must exist.
        terms: What to simulate.
    """
    chain = simulate_chain(terms)
    table = chain.table.assign(
        quote_time=chain.table["quote_time"].dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
        expiry=chain.table["expiry"].dt.strftime("%Y-%m-%d"),
    )
    for name in ("strike", "underlying_price"):
        table[name] = table[name].map("{:.10g}".format)
    for name in ("bid", "ask"):
        table[name] = table[name].map("{:.2f}".format)
    text = table.to_csv(index=False, lineterminator="\n")
    (folder / CHAIN_FILE).write_bytes(text.encode())
    truth = {"terms": terms.to_dict(), "slices": _rounded(chain.slices)}
    text = json.dumps(truth, indent=2) + "\n"
    (folder / TRUTH_FILE).write_bytes(text.encode())


def _rounded(slices: pd.DataFrame) -> list[dict]:
    """Slices as JSON, to digits that no platform's rounding touches."""
    return [
        {"expiry": f"{expiry:%Y-%m-%d}"}
        | {name: float(f"{value:.12g}") for name, value in line.items()}
        for expiry, line in slices.iterrows()
    ]

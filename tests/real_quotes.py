"""Real quotes: files beside the clone, which not everyone may have."""

from pathlib import Path

import pytest

import relu_options as ro

ABSENT = "real quotes are not beside the clone"
"""Why a test skips that has nothing to read: the one reason that `.ci/run` accepts."""

QUOTE_TIMES = {
    "spx_2019-05-18_cboe_quotedata_body.csv.gz": "2019-05-17 16:15",
    "spx_2026-01-30_yfinance.csv.gz": "2026-01-30 16:15",
}


def real_quotes(name: str) -> Path:
    """A file or folder of real quotes; the test that asks for one that is not skips."""
    path = Path(__file__).resolve().parents[2] / "shared" / "market" / name
    if not path.exists():
        pytest.skip(f"{ABSENT}: {name}")
    return path


def spx(year: int) -> ro.OptionChain:
    """The chain of the S&P 500 of 2019 or of 2026."""
    name = next(name for name in QUOTE_TIMES if name.startswith(f"spx_{year}"))
    return ro.read_chain(real_quotes(name), quote_time=QUOTE_TIMES[name])

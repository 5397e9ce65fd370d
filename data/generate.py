"""Make the bundled chain and history: `python data/generate.py`, in the root."""

import shutil
from dataclasses import replace
from pathlib import Path

from relu_options.simulation.bates import BatesModel
from relu_options.simulation.bundled import HISTORY_FOLDER, write_bundled
from relu_options.simulation.chain import SimulationTerms
from relu_options.simulation.path import (
    HistoryTerms,
    write_simulated_history,
)

MODEL = BatesModel(
    initial_variance=0.026,
    long_run_variance=0.045,
    mean_reversion=2.5,
    volatility_of_variance=0.75,
    correlation=-0.72,
    jump_intensity=0.35,
    jump_mean=-0.09,
    jump_volatility=0.07,
)

TERMS = SimulationTerms(
    model=MODEL,
    spot=5000.0,
    rate=0.04,
    dividend_yield=0.013,
    quote_time="2025-03-14T20:00:00Z",
    expiries=(
        "2025-03-21",
        "2025-04-04",
        "2025-04-17",
        "2025-05-16",
        "2025-06-20",
        "2025-09-19",
        "2026-03-20",
        "2027-03-19",
    ),
    seed=20250314,
)

HISTORY_TERMS = HistoryTerms(
    model=MODEL,
    spot=5000.0,
    rate=0.04,
    dividend_yield=0.013,
    start="2025-01-02",
    days=42,
    seed=20250102,
    path_model=replace(MODEL, long_run_variance=0.035, jump_mean=-0.05),
    risk_premium=0.05,
    weeklies=2,
    monthlies=2,
    quarterlies=1,
    strikes_per_deviation=5.0,
    missing=("2025-01-22", "2025-02-19"),
    splits=(("2025-02-10", 2.0),),
)

if __name__ == "__main__":
    here = Path(__file__).parent
    write_bundled(here, TERMS)
    shutil.rmtree(here / HISTORY_FOLDER, ignore_errors=True)
    write_simulated_history(HISTORY_TERMS, here / HISTORY_FOLDER, "csv")

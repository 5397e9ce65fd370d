"""Make the bundled chain: `python data/generate.py`, in the repository's root."""

from pathlib import Path

from relu_options.market_data.bates import BatesModel
from relu_options.market_data.bundled import write_bundled
from relu_options.market_data.simulation import SimulationTerms

TERMS = SimulationTerms(
    model=BatesModel(
        initial_variance=0.026,
        long_run_variance=0.045,
        mean_reversion=2.5,
        volatility_of_variance=0.75,
        correlation=-0.72,
        jump_intensity=0.35,
        jump_mean=-0.09,
        jump_volatility=0.07,
    ),
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

if __name__ == "__main__":
    write_bundled(Path(__file__).parent, TERMS)

"""Quotes of a known law: of one day, of a history, and those that come bundled."""

from relu_options.simulation.bates import BatesModel
from relu_options.simulation.bundled import (
    bundled_chain,
    bundled_history,
    bundled_path,
    bundled_truth,
)
from relu_options.simulation.chain import (
    SimulatedChain,
    SimulationTerms,
    simulate_chain,
)
from relu_options.simulation.path import (
    HistoryTerms,
    simulate_history,
    write_simulated_history,
)

__all__ = [
    "BatesModel",
    "HistoryTerms",
    "SimulatedChain",
    "SimulationTerms",
    "bundled_chain",
    "bundled_history",
    "bundled_path",
    "bundled_truth",
    "simulate_chain",
    "simulate_history",
    "write_simulated_history",
]

"""Arbitrage-free option prices as one-layer ReLU networks.

Importing the package switches JAX to float64, for the whole process: a price curve
fitted in 64 bits and evaluated in 32 would silently lose half of its digits.
"""

import importlib
from typing import TYPE_CHECKING, Any

import jax

jax.config.update("jax_enable_x64", True)

if TYPE_CHECKING:
    from relu_options import (
        activations,
        bachelier,
        backtest,
        black_scholes,
        payoffs,
        verification,
    )
    from relu_options.backtest import Costs, DeltaHedge, compare_models, sweep
    from relu_options.curves import BlackScholesCurve, PriceCurve
    from relu_options.decomposition import decompose
    from relu_options.dupire import local_volatility_surface
    from relu_options.fitting.convex import fit_convex
    from relu_options.fitting.curve import fit_curve, fit_curves
    from relu_options.fitting.history import FittedHistory, fit_history
    from relu_options.fitting.initialisation import strike_coverage
    from relu_options.fitting.local_volatility import fit_local_volatility
    from relu_options.fitting.network_training import train_network
    from relu_options.fitting.surface import fit_surface
    from relu_options.fitting.training import TrainingOptions
    from relu_options.greeks_table import add_greeks
    from relu_options.market_data import (
        ChainHistory,
        OptionChain,
        bundled_chain,
        bundled_history,
        prepare_quotes,
        read_chain,
        read_chains,
    )
    from relu_options.networks import BachelierNetwork, PriceNetwork, ReLUNetwork
    from relu_options.payoffs import Payoff, SmoothPayoff
    from relu_options.portfolio import StrikePortfolio
    from relu_options.quote_check import check_quotes, repair_quotes
    from relu_options.replication import (
        LotTerms,
        bermudan_hedge,
        fit_payoff,
        price_interval,
        prune,
        replicate,
    )
    from relu_options.surfaces import BlackScholesSurface, PriceSurface
    from relu_options.variance import variance_strip
    from relu_options.verification import (
        decision_radius,
        delta_bound,
        price_radius,
        repair,
        simplify,
        verify_no_arbitrage,
        worst_case_pnl,
    )

__version__ = "0.1.0"

_MODULES = {
    "activations",
    "bachelier",
    "backtest",
    "black_scholes",
    "payoffs",
    "verification",
}
_HOMES = {
    "BachelierNetwork": "networks",
    "BlackScholesCurve": "curves",
    "BlackScholesSurface": "surfaces",
    "ChainHistory": "market_data",
    "Costs": "backtest",
    "DeltaHedge": "backtest",
    "FittedHistory": "fitting.history",
    "LotTerms": "replication",
    "OptionChain": "market_data",
    "Payoff": "payoffs",
    "PriceCurve": "curves",
    "PriceNetwork": "networks",
    "PriceSurface": "surfaces",
    "ReLUNetwork": "networks",
    "SmoothPayoff": "payoffs",
    "StrikePortfolio": "portfolio",
    "TrainingOptions": "fitting.training",
    "add_greeks": "greeks_table",
    "bermudan_hedge": "replication",
    "bundled_chain": "market_data",
    "bundled_history": "market_data",
    "check_quotes": "quote_check",
    "compare_models": "backtest",
    "decision_radius": "verification",
    "decompose": "decomposition",
    "delta_bound": "verification",
    "fit_convex": "fitting.convex",
    "fit_curve": "fitting.curve",
    "fit_curves": "fitting.curve",
    "fit_history": "fitting.history",
    "fit_local_volatility": "fitting.local_volatility",
    "fit_payoff": "replication",
    "fit_surface": "fitting.surface",
    "local_volatility_surface": "dupire",
    "prepare_quotes": "market_data",
    "price_interval": "replication",
    "price_radius": "verification",
    "prune": "replication",
    "read_chain": "market_data",
    "read_chains": "market_data",
    "repair": "verification",
    "repair_quotes": "quote_check",
    "replicate": "replication",
    "simplify": "verification",
    "strike_coverage": "fitting.initialisation",
    "sweep": "backtest",
    "train_network": "fitting.network_training",
    "variance_strip": "variance",
    "verify_no_arbitrage": "verification",
    "worst_case_pnl": "verification",
}

__all__ = [
    "BachelierNetwork",
    "BlackScholesCurve",
    "BlackScholesSurface",
    "ChainHistory",
    "Costs",
    "DeltaHedge",
    "FittedHistory",
    "LotTerms",
    "OptionChain",
    "Payoff",
    "PriceCurve",
    "PriceNetwork",
    "PriceSurface",
    "ReLUNetwork",
    "SmoothPayoff",
    "StrikePortfolio",
    "TrainingOptions",
    "activations",
    "add_greeks",
    "bachelier",
    "backtest",
    "bermudan_hedge",
    "black_scholes",
    "bundled_chain",
    "bundled_history",
    "check_quotes",
    "compare_models",
    "decision_radius",
    "decompose",
    "delta_bound",
    "fit_convex",
    "fit_curve",
    "fit_curves",
    "fit_history",
    "fit_local_volatility",
    "fit_payoff",
    "fit_surface",
    "local_volatility_surface",
    "payoffs",
    "prepare_quotes",
    "price_interval",
    "price_radius",
    "prune",
    "read_chain",
    "read_chains",
    "repair",
    "repair_quotes",
    "replicate",
    "simplify",
    "strike_coverage",
    "sweep",
    "train_network",
    "variance_strip",
    "verification",
    "verify_no_arbitrage",
    "worst_case_pnl",
]


def __getattr__(name: str) -> Any:
    """Import on first use: option formulas need neither pandas nor the fit."""
    if name in _MODULES:
        return importlib.import_module(f"relu_options.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'relu_options' has no attribute {name!r}")
    return getattr(importlib.import_module(f"relu_options.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """What a reader or an editor is shown of the package."""
    return [*__all__, "__version__"]

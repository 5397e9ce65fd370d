"""Strategies over a history of option chains: fills, settlement, marks, results.

The package can be called: `relu_options.backtest(history, strategy)` is
`relu_options.backtest.backtest(history, strategy)`.
"""

import sys
from types import ModuleType

from relu_options.backtest import strategies
from relu_options.backtest.contracts import EVENTS, Contract, Event, Mark, Trade
from relu_options.backtest.day import History
from relu_options.backtest.engine import Setup, Strategy, backtest
from relu_options.backtest.model_comparison import compare_models
from relu_options.backtest.orders import Claim, Target
from relu_options.backtest.result import BacktestResult, Summary, SweepResult
from relu_options.backtest.settlement import Settlement
from relu_options.backtest.svi import SVI, fit_svi
from relu_options.backtest.sweep import sweep
from relu_options.backtest.terms import Costs, DeltaHedge
from relu_options.backtest.view import MarketView

__all__ = [
    "EVENTS",
    "SVI",
    "BacktestResult",
    "Claim",
    "Contract",
    "Costs",
    "DeltaHedge",
    "Event",
    "History",
    "Mark",
    "MarketView",
    "Settlement",
    "Setup",
    "Strategy",
    "Summary",
    "SweepResult",
    "Target",
    "Trade",
    "backtest",
    "compare_models",
    "fit_svi",
    "strategies",
    "sweep",
]


class _CallableModule(ModuleType):
    """A module of which a call is a call of its function `backtest`."""

    __call__ = staticmethod(backtest)


sys.modules[__name__].__class__ = _CallableModule

"""Replicate payoffs with listed options, by regression or by domination."""

from relu_options.replication.domination import DominatingHedge, dominate
from relu_options.replication.few_strikes import (
    best_strikes,
    least_largest_error,
)
from relu_options.replication.instruments import Instruments
from relu_options.replication.lots import LotHedge, LotTerms, dominate_in_lots
from relu_options.replication.pieces import Regression, least_error_bound
from relu_options.replication.pruning import prune
from relu_options.replication.quadratic import QuadraticHedge, quadratic_hedge
from relu_options.replication.replicate import price_interval, replicate
from relu_options.replication.spot_law import SpotLaw

__all__ = [
    "DominatingHedge",
    "Instruments",
    "LotHedge",
    "LotTerms",
    "QuadraticHedge",
    "Regression",
    "SpotLaw",
    "best_strikes",
    "dominate",
    "dominate_in_lots",
    "least_error_bound",
    "least_largest_error",
    "price_interval",
    "prune",
    "quadratic_hedge",
    "replicate",
]

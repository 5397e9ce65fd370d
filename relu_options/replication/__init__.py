"""Replicate payoffs with listed options, by regression or by domination."""

from relu_options.replication.bermudan import BermudanHedge, bermudan_hedge
from relu_options.replication.domination import DominatingHedge
from relu_options.replication.few_strikes import least_largest_error
from relu_options.replication.learning import PayoffFit, fit_payoff
from relu_options.replication.lots import LotHedge, LotTerms
from relu_options.replication.pruning import prune
from relu_options.replication.quadratic import QuadraticHedge
from relu_options.replication.replicate import price_interval, replicate

__all__ = [
    "BermudanHedge",
    "DominatingHedge",
    "LotHedge",
    "LotTerms",
    "PayoffFit",
    "QuadraticHedge",
    "bermudan_hedge",
    "fit_payoff",
    "least_largest_error",
    "price_interval",
    "prune",
    "replicate",
]

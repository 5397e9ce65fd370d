"""The public names of the package, and the modules that define them."""

from relu_options import activations as activations
from relu_options import arbitrage as arbitrage
from relu_options import backtest as backtest
from relu_options import curves as curves
from relu_options import decomposition as decomposition
from relu_options import dupire as dupire
from relu_options import errors as errors
from relu_options import fitting as fitting
from relu_options import market_data as market_data
from relu_options import networks as networks
from relu_options import payoffs as payoffs
from relu_options import plotting as plotting
from relu_options import portfolio as portfolio
from relu_options import replication as replication
from relu_options import simulation as simulation
from relu_options import surfaces as surfaces
from relu_options import variance as variance
from relu_options import verification as verification
from relu_options.arbitrage.check import check_quotes as check_quotes
from relu_options.arbitrage.check import repair_quotes as repair_quotes
from relu_options.backtest import Costs as Costs
from relu_options.backtest import DeltaHedge as DeltaHedge
from relu_options.backtest import compare_models as compare_models
from relu_options.backtest import sweep as sweep
from relu_options.curves import BlackScholesCurve as BlackScholesCurve
from relu_options.curves import PriceCurve as PriceCurve
from relu_options.curves_by_expiry import CurvesByExpiry as CurvesByExpiry
from relu_options.decomposition import decompose as decompose
from relu_options.dupire import local_volatility_surface as local_volatility_surface
from relu_options.errors import ArbitrageError as ArbitrageError
from relu_options.errors import BacktestError as BacktestError
from relu_options.errors import FitError as FitError
from relu_options.errors import LookAheadError as LookAheadError
from relu_options.errors import QuoteError as QuoteError
from relu_options.errors import VerificationError as VerificationError
from relu_options.fitting.convex import fit_convex as fit_convex
from relu_options.fitting.curve import fit_curve as fit_curve
from relu_options.fitting.curve import fit_curves as fit_curves
from relu_options.fitting.history import FittedHistory as FittedHistory
from relu_options.fitting.history import fit_history as fit_history
from relu_options.fitting.initialisation import strike_coverage as strike_coverage
from relu_options.fitting.local_volatility import (
    fit_local_volatility as fit_local_volatility,
)
from relu_options.fitting.network_training import train_network as train_network
from relu_options.fitting.surface import fit_surface as fit_surface
from relu_options.fitting.training import TrainingOptions as TrainingOptions
from relu_options.formulas import bachelier as bachelier
from relu_options.formulas import black_scholes as black_scholes
from relu_options.greeks_table import add_greeks as add_greeks
from relu_options.market_data import ChainHistory as ChainHistory
from relu_options.market_data import OptionChain as OptionChain
from relu_options.market_data import prepare_quotes as prepare_quotes
from relu_options.market_data import read_chain as read_chain
from relu_options.market_data import read_chains as read_chains
from relu_options.networks import BachelierNetwork as BachelierNetwork
from relu_options.networks import PriceNetwork as PriceNetwork
from relu_options.networks import ReLUNetwork as ReLUNetwork
from relu_options.payoffs import Payoff as Payoff
from relu_options.payoffs import SmoothPayoff as SmoothPayoff
from relu_options.portfolio import StrikePortfolio as StrikePortfolio
from relu_options.replication import LotTerms as LotTerms
from relu_options.replication import bermudan_hedge as bermudan_hedge
from relu_options.replication import fit_payoff as fit_payoff
from relu_options.replication import price_interval as price_interval
from relu_options.replication import prune as prune
from relu_options.replication import replicate as replicate
from relu_options.simulation import bundled_chain as bundled_chain
from relu_options.simulation import bundled_history as bundled_history
from relu_options.surfaces import BlackScholesSurface as BlackScholesSurface
from relu_options.surfaces import PriceSurface as PriceSurface
from relu_options.variance import variance_strip as variance_strip
from relu_options.verification import decision_radius as decision_radius
from relu_options.verification import delta_bound as delta_bound
from relu_options.verification import price_radius as price_radius
from relu_options.verification import repair as repair
from relu_options.verification import simplify as simplify
from relu_options.verification import verify_no_arbitrage as verify_no_arbitrage
from relu_options.verification import worst_case_pnl as worst_case_pnl

__version__: str
_HOMES: dict[str, str]

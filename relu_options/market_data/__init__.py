"""Option chains: read, cleaned with a report, and made ready to fit."""

from relu_options.market_data.chain import ChainReport, OptionChain
from relu_options.market_data.cleaning import QuoteReport
from relu_options.market_data.clocks import expiry_time, utc_time, years_between
from relu_options.market_data.columns import CANONICAL_COLUMNS, find_columns
from relu_options.market_data.contracts import parse_contracts
from relu_options.market_data.expiry_quotes import ExpiryQuotes
from relu_options.market_data.history import ChainHistory
from relu_options.market_data.layouts import (
    Layout,
    LayoutRows,
    TableLayout,
    layout_names,
    register_layout,
)
from relu_options.market_data.parity import ParityEstimate, forward_from_parity
from relu_options.market_data.rates import MarketTerms
from relu_options.market_data.reading import (
    Quotes,
    Reading,
    prepare_quotes,
    prepare_slices,
    prepared_again,
    read_chain,
    read_chains,
)
from relu_options.market_data.sources import ChainSource

__all__ = [
    "CANONICAL_COLUMNS",
    "ChainHistory",
    "ChainReport",
    "ChainSource",
    "ExpiryQuotes",
    "Layout",
    "LayoutRows",
    "MarketTerms",
    "OptionChain",
    "ParityEstimate",
    "QuoteReport",
    "Quotes",
    "Reading",
    "TableLayout",
    "expiry_time",
    "find_columns",
    "forward_from_parity",
    "layout_names",
    "parse_contracts",
    "prepare_quotes",
    "prepare_slices",
    "prepared_again",
    "read_chain",
    "read_chains",
    "register_layout",
    "utc_time",
    "years_between",
]

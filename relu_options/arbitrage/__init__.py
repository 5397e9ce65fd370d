r"""Static arbitrage: in quotes, in price curves, and the facts that exclude it.

Call prices of one expiry admit no static arbitrage if, and only if, the undiscounted
price $c$ is a convex function of the strike with

$$
c(0) = F, \qquad -1 \le c'(K) \le 0, \qquad c(K) \ge \max(F - K, 0)
$$

(Davis and Hobson, 2007). Each condition is the price of a trade that cannot lose, and
what violates it is named after that trade: `butterfly` (convexity), `call_spread`
(slopes), `bounds` (against the forward and cash alone), and, between a call and a put
of one strike, `parity`. The conditions are closed: a curve that is level at a positive
price is a limit of curves without arbitrage, and passes.

* `least_excess` asks the quotes: is there a curve inside every bid and ask, and if not,
  how far outside must it be, and which trade earns the difference?
* `least_chain_excess` asks the same of several expiries together, calendar trades
  included, and `imply_forward` of one expiry whose forward is unknown.
* `certify_network` states the few numbers that prove a network free of arbitrage.
* `certify_surface` states them for all expiries at once, calendar included; the
  certificate is proved again by `python -m relu_options.verify`.
* `static_arbitrage_violations` samples any other curve at given strikes.

References:
    Davis, M. and Hobson, D. (2007). The range of traded option prices. *Mathematical
    Finance*, 17, 1-14.
"""

from relu_options.arbitrage.certificate import (
    IDENTITY_ROUNDING,
    CurveCertificate,
    certify_network,
)
from relu_options.arbitrage.excess import (
    QuoteArbitrage,
    chain_excess_in_half_spreads,
    check_quote_arbitrage,
    least_chain_excess,
    least_excess,
)
from relu_options.arbitrage.implied_forward import (
    ForwardRange,
    ImpliedForward,
    forward_range,
    imply_forward,
)
from relu_options.arbitrage.quotes import bound_violations, half_spreads
from relu_options.arbitrage.sampling import static_arbitrage_violations
from relu_options.arbitrage.surface_certificate import (
    SurfaceCertificate,
    certify_surface,
    settle_weights,
)
from relu_options.arbitrage.trade import Trade, cover_chain

__all__ = [
    "IDENTITY_ROUNDING",
    "CurveCertificate",
    "ForwardRange",
    "ImpliedForward",
    "QuoteArbitrage",
    "SurfaceCertificate",
    "Trade",
    "bound_violations",
    "certify_network",
    "certify_surface",
    "chain_excess_in_half_spreads",
    "check_quote_arbitrage",
    "cover_chain",
    "forward_range",
    "half_spreads",
    "imply_forward",
    "least_chain_excess",
    "least_excess",
    "settle_weights",
    "static_arbitrage_violations",
]

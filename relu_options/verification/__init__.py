r"""Exact verdicts on trained networks: a proof, or the trade that refutes it.

Whoever trained a network of call prices, with constraints or without, shallow or deep:
`verify_no_arbitrage` says whether its prices admit static arbitrage on a domain, and if
they do, names the trade. A network of piecewise-linear units is linear on finitely many
regions, so that what holds everywhere is decided by finitely many numbers, and those
are computed without rounding.

| network | method | verdict |
|---|---|---|
| one input | kinks, sorted | exact |
| one hidden layer, any inputs: convexity | signs of the hinges, `O(n)` | exact |
| two inputs, any depth | all linear regions | exact |
| three inputs and more | mixed-integer programmes | proof to a tolerance, counterexample exact |

* `Counterexample.as_trade` is the butterfly, call spread or calendar spread.
* `delta_bound` is the exact range of slopes, `price_radius` and `decision_radius` how
  far inputs may move, `worst_case_pnl` the least profit of a portfolio.
* `simplify` is the same function with fewer kinks, `repair` the nearest network that
  passes.

The module `relu_options.verify` is another thing: it needs nothing but Python, and
checks the certificate of a fitted surface, whose proof is in its weights. Here the
networks are any, without a certificate, and the proof is found.
"""  # noqa: E501

from relu_options.verification.domain import Domain
from relu_options.verification.layers import LayeredNetwork
from relu_options.verification.network_reader import layered, read_onnx
from relu_options.verification.no_arbitrage import verify_no_arbitrage
from relu_options.verification.repairing import Repair, repair
from relu_options.verification.results import Counterexample, Margin, Proof, Unknown
from relu_options.verification.sensitivity import (
    DeltaBound,
    Radius,
    WorstCase,
    decision_radius,
    delta_bound,
    price_radius,
    worst_case_pnl,
)
from relu_options.verification.simplification import simplify
from relu_options.verification.units import hidden_unit

__all__ = [
    "Counterexample",
    "DeltaBound",
    "Domain",
    "LayeredNetwork",
    "Margin",
    "Proof",
    "Radius",
    "Repair",
    "Unknown",
    "WorstCase",
    "decision_radius",
    "delta_bound",
    "hidden_unit",
    "layered",
    "price_radius",
    "read_onnx",
    "repair",
    "simplify",
    "verify_no_arbitrage",
    "worst_case_pnl",
]

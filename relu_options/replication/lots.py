"""Portfolios above or below a payoff in whole contracts, with sizes and fees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array, eye_array, hstack

from relu_options.errors import FitError
from relu_options.payoffs import Payoff, SmoothPayoff
from relu_options.portfolio import StrikePortfolio
from relu_options.replication.domination import (
    Side,
    dominate,
    envelope_of,
    explain,
    programme_of,
)
from relu_options.replication.instruments import Instruments

_LIMIT = 8.0  # times the largest quantity of the hedge without lots


@dataclass(frozen=True)
class LotTerms:
    """Contract size, the sizes in which options are traded, and what trading costs.

    Attributes:
        multiplier: Units of the underlying in a contract.
        whole: Whether contracts are whole.
        min_size: Least number of contracts of an option that is traded.
        max_size: Greatest number; by default eight times what a hedge without lots
            has of any option, and at least ten.
        fee: Paid for each contract, in currency units today.
        ticket: Paid for each option that is traded, in currency units today.
        time_limit: Seconds after which the best hedge so far is returned.

    Examples:
        >>> LotTerms(multiplier=100.0, fee=0.65).whole
        True
    """

    multiplier: float = 1.0
    whole: bool = True
    min_size: float = 0.0
    max_size: float | None = None
    fee: float = 0.0
    ticket: float = 0.0
    time_limit: float = 10.0

    def __post_init__(self) -> None:
        if not (self.multiplier > 0.0 and self.time_limit > 0.0):
            raise ValueError(
                f"multiplier {self.multiplier} and time_limit {self.time_limit} "
                "must be positive"
            )
        if min(self.min_size, self.fee, self.ticket) < 0.0:
            raise ValueError(
                f"min_size {self.min_size}, fee {self.fee} and ticket {self.ticket} "
                "must not be negative"
            )
        if self.max_size is not None and self.max_size < max(self.min_size, 1e-300):
            raise ValueError(
                f"max_size {self.max_size} is below min_size {self.min_size}, or zero"
            )


@dataclass(frozen=True, eq=False)
class LotHedge:
    """A portfolio in whole contracts, and how near to the best it is.

    Attributes:
        portfolio: The hedge; it dominates its target.
        side: "super" or "sub".
        cost: As of `DominatingHedge`, with fees and tickets.
        fees: Fees and tickets, in currency units today.
        best_possible: No hedge on these terms costs less (or brings more, if it is
            below), in currency units today.

    Examples:
        Ten straddles between the listed strikes, in contracts of one.

        >>> import relu_options as ro
        >>> curve = ro.BlackScholesCurve(volatility=0.2, forward=100.0,
        ...                              time_to_expiry=0.25)
        >>> hedge = ro.replicate(10.0 * ro.payoffs.straddle(102.0), curve,
        ...                      method="super", strikes=[95.0, 100.0, 105.0],
        ...                      lots=LotTerms(ticket=0.5))
        >>> hedge.portfolio
        StrikePortfolio(1020 cash, -10 forwards; 12 call 100, 8 call 105; costs 84.3653)
        >>> hedge.gap < 1e-4 * hedge.cost
        True
    """

    portfolio: StrikePortfolio
    side: Side
    cost: float
    fees: float
    best_possible: float

    @property
    def gap(self) -> float:
        """By how much the cost may be from the best possible, in currency units."""
        return abs(self.cost - self.best_possible)


def dominate_in_lots(
    payoff: Payoff | SmoothPayoff,
    instruments: Instruments,
    side: Side,
    terms: LotTerms,
    *,
    max_legs: int | None = None,
    spots: tuple[float, float] = (0.0, np.inf),
    trade_forward: bool = True,
) -> LotHedge:
    """The cheapest portfolio above a payoff, or the dearest below it, in lots.

    It is the programme of `relu_options.replication.domination` with whole numbers of
    contracts and a zero or one for each option that says whether it is traded. Cash and
    forward are not in lots. The hedge without lots bounds the sizes.

    Args:
        payoff: As for `dominate`.
        instruments: Likewise.
        side: Likewise.
        terms: Contract, sizes and fees.
        max_legs: Number of options at most.
        spots: As for `dominate`.
        trade_forward: Likewise.

    Returns:
        The hedge, with a bound on what any other costs.

    Raises:
        ValueError: If no portfolio on these terms dominates.
        ArbitrageError: If the quotes admit an arbitrage.
        FitError: If the time was not enough to find any.
    """
    free = dominate(payoff, instruments, side, spots=spots, trade_forward=trade_forward)
    sign = 1.0 if side == "super" else -1.0
    envelope = envelope_of(payoff, instruments, side, spots)
    programme = programme_of(
        sign * envelope, instruments, *spots, trade_forward=trade_forward
    )
    most = terms.max_size
    if most is None:
        largest = np.abs(free.portfolio.quantities).max(initial=0.0) / terms.multiplier
        most = max(np.ceil(_LIMIT * largest), 10.0, terms.min_size)
    count, options = 2 * len(programme.nodes), len(instruments.strikes)
    # Unknowns of the quantities, in contracts: so that whole numbers are whole.
    contract = terms.multiplier / programme.quantity_unit
    scale = np.concatenate([np.ones(count), np.full(2 * options, contract)])
    money = instruments.discount_factor * programme.quantity_unit * instruments.forward
    fees = np.concatenate(
        [np.full(2 * options, terms.fee), np.full(options, terms.ticket)]
    )
    cost = np.concatenate([programme.cost * scale, np.zeros(options)])
    cost[count:] += fees / money
    system = hstack(
        [programme.system * scale, csr_array((programme.system.shape[0], options))]
    )
    none = csr_array((options, count))
    both = eye_array(options)
    traded = hstack([none, both, both, -most * both])
    constraints = [
        LinearConstraint(csr_array(system), 0.0, 0.0),
        LinearConstraint(csr_array(traded), -np.inf, 0.0),
    ]
    if terms.min_size > 0.0:
        enough = hstack([none, both, both, -terms.min_size * both])
        constraints.append(LinearConstraint(csr_array(enough), 0.0, np.inf))
    if max_legs is not None:
        legs = np.zeros((1, len(cost)))
        legs[0, -options:] = 1.0
        constraints.append(LinearConstraint(csr_array(legs), 0.0, max_legs))
    upper: Any = np.where(programme.upper[count:] > 0.0, most, 0.0)
    low: Any = np.concatenate([programme.lower, np.zeros(options)])
    high: Any = np.concatenate([programme.upper[:count], upper, np.ones(options)])
    result: Any = milp(
        cost,
        constraints=constraints,
        integrality=np.concatenate(
            [np.zeros(count), np.full(2 * options, int(terms.whole)), np.ones(options)]
        ),
        bounds=Bounds(low, high),
        options={"time_limit": terms.time_limit, "mip_rel_gap": 1e-7},
    )
    if result.x is None:
        if result.status == 1:
            raise FitError(
                f"no hedge was found in {terms.time_limit:.6g} s; raise "
                "`time_limit`, or give fewer `strikes`"
            )
        explain(result, sign * envelope, instruments, side, limited=True)
    solution = result.x[:-options] * scale
    whole = terms.multiplier if terms.whole else None
    portfolio = programme.portfolio(
        solution, sign, instruments, envelope, payoff, whole
    )
    contracts = np.abs(portfolio.quantities) * portfolio.multiplier / terms.multiplier
    paid = float(terms.fee * contracts.sum() + terms.ticket * len(portfolio))
    bound = sign * money * _bound(result)
    price = portfolio.cost("ask" if side == "super" else "bid")
    return LotHedge(portfolio, side, price + sign * paid, paid, bound)


def _bound(result: Any) -> float:
    """The dual bound of the programme; its value, where there are no whole numbers."""
    bound = getattr(result, "mip_dual_bound", None)
    return float(result.fun if bound is None else bound)

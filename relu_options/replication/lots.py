"""Portfolios above or below a payoff in whole contracts, with sizes and fees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, linprog, milp
from scipy.sparse import csr_array, eye_array, hstack

from relu_options.errors import FitError
from relu_options.payoffs import Payoff, SmoothPayoff
from relu_options.portfolio import StrikePortfolio
from relu_options.replication.domination import (
    TOLERANCES,
    Programme,
    Side,
    dominate,
    envelope_of,
    explain,
    programme_of,
)
from relu_options.replication.instruments import Instruments

_LIMIT = 8.0  # times the largest quantity of the hedge without lots, or the least size


@dataclass(frozen=True)
class LotTerms:
    """Contract size, the sizes in which options are traded, and what trading costs.

    Attributes:
        multiplier: Units of the underlying in a contract.
        whole: Whether contracts are whole.
        min_size: Least number of contracts of an option that is traded.
        max_size: Greatest number; by default eight times what a hedge without lots
            has of any option, or eight times `min_size`, and at least ten.
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
    contracts and, for each option, a zero or one that says whether it is bought and
    another that says whether it is sold, never both: least sizes and tickets are of
    what is held. Cash and forward are not in lots. The hedge without lots bounds the
    sizes.

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
    largest = np.abs(free.portfolio.quantities).max(initial=0.0) / terms.multiplier
    lots = _Lots.of(programme, instruments, terms, float(largest), max_legs)
    result = lots.solve(terms.time_limit)
    if result.x is None:
        if result.status == 1:
            raise FitError(
                f"no hedge was found in {terms.time_limit:.6g} s; raise "
                "`time_limit`, or give fewer `strikes`"
            )
        explain(result, sign * envelope, instruments, side, True, spots)
    whole = terms.multiplier if terms.whole else None
    portfolio = programme.portfolio(
        lots.settled(result.x), sign, instruments, envelope, payoff, whole
    )
    contracts = np.abs(portfolio.quantities) * portfolio.multiplier / terms.multiplier
    paid = float(terms.fee * contracts.sum() + terms.ticket * len(portfolio))
    money = instruments.discount_factor * programme.quantity_unit * instruments.forward
    price = portfolio.cost("ask" if side == "super" else "bid")
    cost = price + sign * paid
    # The solver's bound is good to its tolerance; the hedge itself is a bound, too.
    bound = sign * min(money * _bound(result), sign * cost)
    return LotHedge(portfolio, side, cost, paid, bound)


@dataclass(frozen=True, eq=False)
class _Lots:
    """The programme in lots.

    Its unknowns are those of `Programme`, but quantities in contracts, so that whole
    numbers are whole; then, for the `m` options, whether each is bought and is sold.

    Attributes:
        programme: Without lots.
        cost: Of the unknowns.
        scale: Unknowns of `programme` for one of those without the last `2 m`.
        terms: Contract, sizes and fees.
        most: Contracts at most of each option bought, and sold, of shape `(2 m,)`;
            zero of those that are not held.
        max_legs: Options at most; None for any number.
    """

    programme: Programme
    cost: np.ndarray
    scale: np.ndarray
    terms: LotTerms
    most: np.ndarray
    max_legs: int | None

    @staticmethod
    def of(
        programme: Programme,
        instruments: Instruments,
        terms: LotTerms,
        largest: float,
        max_legs: int | None,
    ) -> _Lots:
        """Put terms on a programme whose solution has `largest` contracts of one."""
        count, legs = 2 * len(programme.nodes), 2 * len(instruments.strikes)
        contract = terms.multiplier / programme.quantity_unit
        scale = np.concatenate([np.ones(count), np.full(legs, contract)])
        money = (
            instruments.discount_factor * programme.quantity_unit * instruments.forward
        )
        fees = np.repeat([0.0, terms.fee, terms.ticket], [count, legs, legs])
        cost = np.append(programme.cost * scale, np.zeros(legs)) + fees / money
        most = terms.max_size
        if most is None:
            most = max(np.ceil(_LIMIT * max(largest, terms.min_size)), 10.0)
        most = np.where(programme.upper[count:] > 0.0, most, 0.0)
        return _Lots(programme, cost, scale, terms, most, max_legs)

    def solve(self, time_limit: float) -> Any:
        """The best whole numbers, as HiGHS returns them."""
        legs = len(self.cost) - len(self.scale)
        count = len(self.scale) - legs
        system = self.programme.system * self.scale
        system = hstack([system, csr_array((system.shape[0], legs))])
        none, each = csr_array((legs, count)), csr_array(eye_array(legs))
        sides = np.tile(np.eye(legs // 2), 2)
        sides = np.hstack([np.zeros((legs // 2, len(self.scale))), sides])
        constraints = [
            LinearConstraint(csr_array(system), 0.0, 0.0),
            LinearConstraint(
                csr_array(hstack([none, each, -self.most * each])), -np.inf, 0.0
            ),
            LinearConstraint(csr_array(sides), 0.0, 1.0),
        ]
        if self.terms.min_size > 0.0:
            enough = hstack([none, each, -self.terms.min_size * each])
            constraints.append(LinearConstraint(csr_array(enough), 0.0, np.inf))
        if self.max_legs is not None:
            total = csr_array(sides.sum(axis=0, keepdims=True))
            constraints.append(LinearConstraint(total, 0.0, self.max_legs))
        whole = np.repeat([0, int(self.terms.whole), 1], [count, legs, legs])
        low: Any = np.append(self.programme.lower, np.zeros(legs))
        high: Any = np.concatenate(
            [self.programme.upper[:count], self.most, np.ones(legs)]
        )
        return milp(
            self.cost,
            constraints=constraints,
            integrality=whole,
            bounds=Bounds(low, high),
            options={"time_limit": time_limit, "mip_rel_gap": 1e-7},
        )

    def settled(self, unknowns: np.ndarray) -> np.ndarray:
        """The solution for `programme`, with what must be whole exactly so.

        The solver's whole numbers are so to a millionth; once they are, the rest is
        a linear programme.
        """
        legs = len(self.cost) - len(self.scale)
        count = len(self.scale) - legs
        flags = np.round(unknowns[-legs:])
        low, high = self.terms.min_size * flags, self.most * flags
        if self.terms.whole:
            low = high = np.round(unknowns[count:-legs]) * flags
        result: Any = linprog(
            self.cost[:-legs],
            A_eq=self.programme.system * self.scale,
            b_eq=np.zeros(self.programme.system.shape[0]),
            bounds=np.column_stack(
                [
                    np.append(self.programme.lower[:count], low),
                    np.append(self.programme.upper[:count], high),
                ]
            ),
            method="highs",
            options=TOLERANCES,
        )
        if result.x is None:
            raise FitError(
                "the best hedge in lots dominates only within the tolerance of the "
                "solver; allow the forward, or give fewer `strikes`"
            )
        return result.x * self.scale


def _bound(result: Any) -> float:
    """The dual bound of the programme; its value, where there are no whole numbers."""
    bound = getattr(result, "mip_dual_bound", None)
    return float(result.fun if bound is None else bound)

r"""Linear programs of prices that may leave their quotes, at a cost.

The prices of quotes are linear in some unknowns, and these obey linear inequalities,

$$ p = P z, \qquad G z \le g, \qquad l \le z \le u. $$

One program asks for the prices least outside of bids and asks, another for the prices
nearest to given ones within limits, a third for the ends of what the limits allow. A
bid or an ask is a row, a distance that costs is a column.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import coo_array

from relu_options.errors import FitError

_TOLERANCE = 1e-10  # the smallest that HiGHS takes
_UNBOUNDED = 3  # the status that `linprog` returns


class Entries(NamedTuple):
    """The entries of a sparse matrix that are not zero."""

    row: np.ndarray
    column: np.ndarray
    value: np.ndarray

    def moved(self, rows: int, columns: int = 0) -> Entries:
        """The same further down, and further right."""
        return Entries(self.row + rows, self.column + columns, self.value)


def joined(*parts: Entries) -> Entries:
    """The entries of a sum of matrices."""
    return Entries(*map(np.concatenate, zip(*parts, strict=True)))


@dataclass(frozen=True, eq=False)
class PriceProgram:
    """Prices of quotes that are linear in constrained unknowns.

    HiGHS keeps every row and column to 1e-10, so all of them should be in units of
    which that is little.

    Attributes:
        prices: `P`, of shape `(m, n)`.
        rows: `G`, of shape `(r, n)`.
        limits: `g`, of shape `(r,)`.
        bounds: `l` and `u`, of shape `(n, 2)`.

    Examples:
        Two prices that may not rise, wanted at 1 and at 3.

        >>> program = PriceProgram(
        ...     Entries(np.arange(2), np.arange(2), np.ones(2)),
        ...     Entries(np.zeros(2, int), np.arange(2), np.array([-1.0, 1.0])),
        ...     np.zeros(1), np.array([[0.0, np.inf]] * 2))
        >>> quoted = np.array([1.0, 3.0])
        >>> solution = program.least_distance(quoted, quoted, np.array([1.0, 2.0]))
        >>> print(solution.unknowns, solution.cost, solution.quantity)
        [3. 3.] 2.0 [ 1. -1.]
    """

    prices: Entries
    rows: Entries
    limits: np.ndarray
    bounds: np.ndarray

    def prices_of(self, unknowns: np.ndarray, count: int) -> np.ndarray:
        """The prices of `count` quotes."""
        row, column, value = self.prices
        return np.bincount(row, value * unknowns[column], minlength=count)

    def least_distance(
        self,
        low: np.ndarray,
        high: np.ndarray,
        cost: np.ndarray,
        *,
        within: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> Solution:
        """The prices that cost least where a distance outside `[low, high]` costs.

        A limit that is not finite is none. Prices stay `within` others, if given.
        """
        sides = [*self._sides(low, high, distance=True)]
        if within is not None:
            sides += self._sides(*within, distance=False)
        count, n = len(cost), len(self.bounds)
        scale = float(cost.mean())
        solved = self._solve(
            sides,
            np.concatenate([np.zeros(n), cost / scale]),
            np.concatenate([self.bounds, np.tile([0.0, np.inf], (count, 1))]),
        )
        marginals = solved["ineqlin"]["marginals"]
        split = np.cumsum([0, *(len(side.quote) for side in sides)])
        quantity = np.zeros(count)
        for side, first, end in zip(sides[:2], split, split[1:], strict=False):
            quantity[side.quote] -= side.sign * scale * marginals[first:end]
        return Solution(
            unknowns=solved["x"][:n],
            cost=scale * float(solved["fun"]),
            quantity=quantity,
            multipliers=-scale * marginals[split[-1] :],
        )

    def least(self, unknown: np.ndarray, low: np.ndarray, high: np.ndarray) -> float:
        """The least value of a combination of unknowns where prices are within limits.

        Minus infinity if it has none.
        """
        sides = self._sides(low, high, distance=False)
        solved = self._solve(sides, unknown, self.bounds)
        return -np.inf if solved["status"] == _UNBOUNDED else float(solved["fun"])

    def _sides(
        self, low: np.ndarray, high: np.ndarray, *, distance: bool
    ) -> list[_Side]:
        """Rows that keep prices above `low` and below `high`, each where finite."""
        n, sides = len(self.bounds), []
        for sign, limit in ((-1.0, low), (1.0, high)):
            known = np.isfinite(limit)
            quote, at = np.flatnonzero(known), np.cumsum(known) - 1
            row, column, value = (part[known[self.prices.row]] for part in self.prices)
            entries = Entries(at[row], column, sign * value)
            if distance:
                own = Entries(np.arange(len(quote)), n + quote, -np.ones(len(quote)))
                entries = joined(entries, own)
            sides.append(_Side(entries, sign * limit[quote], quote, sign))
        return sides

    def _solve(self, sides: list[_Side], cost: np.ndarray, bounds: np.ndarray) -> Any:
        """What HiGHS finds: the rows of the sides, then those of `rows`."""
        parts, total = [], 0
        for side in sides:
            parts.append(side.entries.moved(total))
            total += len(side.limits)
        row, column, value = joined(*parts, self.rows.moved(total))
        limits = np.concatenate([*(side.limits for side in sides), self.limits])
        solved = linprog(
            cost,
            A_ub=coo_array((value, (row, column)), shape=(len(limits), len(cost))),
            b_ub=limits,
            bounds=bounds,
            method="highs-ds",
            options={
                "presolve": False,  # takes longer than it saves on rows so sparse
                "primal_feasibility_tolerance": _TOLERANCE,
                "dual_feasibility_tolerance": _TOLERANCE,
            },
        )
        if solved["status"] not in (0, _UNBOUNDED):
            count = 1 + self.prices.row.max()
            raise FitError(
                f"the linear program of {count} prices in {len(self.bounds)} unknowns "
                f"was not solved: {solved['message']}; check the quotes for prices out "
                "by orders of magnitude"
            )
        return solved


class _Side(NamedTuple):
    """Rows of the bids, or of the asks, and the quotes that have them."""

    entries: Entries
    limits: np.ndarray
    quote: np.ndarray
    sign: float


class Solution(NamedTuple):
    """What solves a program of prices.

    Attributes:
        unknowns: `z`, of shape `(n,)`.
        cost: The least.
        quantity: Of each quote, by how much the cost falls as its bid and ask rise:
            positive where the price presses on the ask. Shape `(m,)`.
        multipliers: Of each inequality, by how much the cost falls as its limit rises;
            not negative. Shape `(r,)`.
    """

    unknowns: np.ndarray
    cost: float
    quantity: np.ndarray
    multipliers: np.ndarray

r"""Linear programmes whose prices may leave their quotes, at a cost.

The prices are linear in some unknowns $z \ge l$ that obey linear inequalities,

$$ p = P z, \qquad G z \le g, $$

and each has a bid and an ask. One programme asks for the prices least outside of their
quotes, another for the prices nearest to given ones within limits. A quote takes one
equation and a few bounded variables, so the rows are those of $P$ and $G$ and as sparse
as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import csr_array, eye_array, hstack

from relu_options.errors import FitError

_TOLERANCE = 1e-10  # the smallest that HiGHS takes
_UNBOUNDED = 3  # the status that `linprog` returns


@dataclass(frozen=True, eq=False)
class ElasticProgramme:
    """Prices of quotes that are linear in constrained unknowns.

    HiGHS keeps every row and column to 1e-10, so all of them should be in units of
    which that is little.

    Attributes:
        prices: `P`, of shape `(m, n)`.
        rows: `G`, of shape `(r, n)`.
        limits: `g`, of shape `(r,)`.
        lower: `l`, of shape `(n,)`.

    Examples:
        Two prices that may not rise, wanted at 1 and at 3.

        >>> programme = ElasticProgramme(csr_array(np.eye(2)),
        ...                              csr_array([[-1.0, 1.0]]), np.zeros(1),
        ...                              np.zeros(2))
        >>> quoted = np.array([1.0, 3.0])
        >>> solved = programme.least_excess(quoted, quoted, np.array([1.0, 2.0]))
        >>> print(solved.unknowns, solved.objective, solved.quantity)
        [3. 3.] 2.0 [ 1. -1.]
    """

    prices: csr_array
    rows: csr_array
    limits: np.ndarray
    lower: np.ndarray

    def least_excess(
        self, low: np.ndarray, high: np.ndarray, cost: np.ndarray
    ) -> ElasticSolution:
        """Minimise the cost of prices outside `[low, high]`; NaN where no limit."""
        low = np.where(np.isnan(low), -np.inf, low)
        high = np.where(np.isnan(high), np.inf, high)
        free = np.zeros(len(cost))
        return self._solve(
            np.zeros(len(cost)),
            costs=[free, cost, cost],
            signs=[1.0, 1.0, -1.0],
            ranges=[(low, high), (free, free + np.inf), (free, free + np.inf)],
        )

    def nearest(
        self, target: np.ndarray, low: np.ndarray, high: np.ndarray, cost: np.ndarray
    ) -> ElasticSolution:
        """Minimise the cost of the distance to `target`, within `[low, high]`."""
        free = np.zeros(len(cost))
        return self._solve(
            target,
            costs=[cost, cost],
            signs=[1.0, -1.0],
            ranges=[
                (free, np.maximum(high - target, 0.0)),
                (free, np.maximum(target - low, 0.0)),
            ],
        )

    def extreme(
        self, objective: np.ndarray, low: np.ndarray, high: np.ndarray
    ) -> float:
        """The least value of a linear objective where prices are in `[low, high]`.

        Minus infinity if it has none.
        """
        low = np.where(np.isnan(low), -np.inf, low)
        high = np.where(np.isnan(high), np.inf, high)
        free = np.zeros(len(low))
        solved = self._solve(
            free, costs=[free], signs=[1.0], ranges=[(low, high)], objective=objective
        )
        return solved.objective

    def _solve(
        self,
        target: np.ndarray,
        costs: list[np.ndarray],
        signs: list[float],
        ranges: list[tuple[np.ndarray, np.ndarray]],
        objective: np.ndarray | None = None,
    ) -> ElasticSolution:
        """Prices are the target and what is added to, or taken from, it."""
        m, n = len(target), len(self.lower)
        scale = float(np.mean(costs[-1])) or 1.0
        cost = np.concatenate([np.zeros(n) if objective is None else objective, *costs])
        eye = eye_array(m, format="csr")
        rest = csr_array((len(self.limits), m * len(costs)))
        bounds = np.concatenate(
            [
                np.stack([self.lower, np.full(n, np.inf)], axis=1),
                *(np.stack(pair, axis=1) for pair in ranges),
            ]
        )
        solved = linprog(
            cost / scale,
            A_ub=hstack([self.rows, rest], format="csr"),
            b_ub=self.limits,
            A_eq=hstack([self.prices, *(-s * eye for s in signs)], format="csr"),
            b_eq=target,
            bounds=bounds,
            method="highs-ds",
            options={
                "primal_feasibility_tolerance": _TOLERANCE,
                "dual_feasibility_tolerance": _TOLERANCE,
            },
        )
        if objective is not None and solved["status"] == _UNBOUNDED:
            nothing = np.full(0, np.nan)
            return ElasticSolution(nothing, -np.inf, nothing, nothing)
        if solved["status"] != 0:
            raise FitError(
                f"the linear programme of {m} quotes in {n} unknowns was not solved: "
                f"{solved['message']}; check the quotes for prices out by orders of "
                "magnitude"
            )
        return ElasticSolution(
            unknowns=solved["x"][:n],
            objective=scale * float(solved["fun"]),
            quantity=-scale * solved["eqlin"]["marginals"],
            multipliers=-scale * solved["ineqlin"]["marginals"],
        )


@dataclass(frozen=True, eq=False)
class ElasticSolution:
    """What solves an elastic programme.

    Attributes:
        unknowns: `z`, of shape `(n,)`.
        objective: The cost reached.
        quantity: Of each quote, by how much the cost falls as its bid and ask, or its
            target, rise: positive where the price presses on the ask. Shape `(m,)`.
        multipliers: Of each inequality, by how much the cost falls as its limit rises;
            not negative. Shape `(r,)`.

    Examples:
        >>> programme = ElasticProgramme(csr_array([[1.0]]), csr_array([[-1.0]]),
        ...                              np.array([-2.0]), np.zeros(1))
        >>> solved = programme.least_excess(np.zeros(1), np.ones(1), np.array([3.0]))
        >>> print(solved.objective, solved.quantity, solved.multipliers)
        3.0 [3.] [3.]
    """

    unknowns: np.ndarray
    objective: float
    quantity: np.ndarray
    multipliers: np.ndarray

"""Quadratic programmes by Clarabel, a generic interior-point solver."""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse

# The compiled module describes its names to no type checker.
clarabel: Any = import_module("clarabel")

# Dense, or any of SciPy's sparse classes, whose stubs have no common type.
Matrix = Any


@dataclass(frozen=True)
class ConvexSolution:
    """What the solver found.

    Attributes:
        x: The minimiser.
        objective: The minimum, without constants left out of the programme.
        equality_duals: Multipliers `y` of the equalities, in the sign of
            `P x + q + E' y + G' u - z = 0`.
        lower_duals: Multipliers `z >= 0` of `x >= 0`; empty where `x` is free.
        inequality_duals: Multipliers `u >= 0` of `G x <= h`; empty without any.
        iterations: Steps taken.
        seconds: Time of the set-up and the solve, in seconds.
    """

    x: np.ndarray
    objective: float
    equality_duals: np.ndarray
    lower_duals: np.ndarray
    inequality_duals: np.ndarray
    iterations: int
    seconds: float


def solve_clarabel(
    P: Matrix,
    q: ArrayLike,
    E: Matrix,
    b: ArrayLike,
    G: Matrix | None = None,
    h: ArrayLike | None = None,
    *,
    nonnegative: ArrayLike | bool = True,
    tolerance: float = 1e-10,
    accept_reduced: bool = False,
) -> ConvexSolution:
    r"""Minimise $\tfrac12 x'Px + q'x$ subject to $Ex = b$, $x \ge 0$ and $Gx \le h$.

    For $\tfrac12|Mx - r|^2$ pass $P = M'M$ and $q = -M'r$, and the objective lacks the
    constant $\tfrac12 r'r$; or call `solve_least_squares`, which keeps more digits. A
    quote that is to end inside an interval brings two slacks,
    $l \le a'x + s - t \le u$ with $s, t \ge 0$ at the end of `x` and their prices in
    `q`, and its two sides are rows of `G`.

    Args:
        P: Symmetric positive semidefinite matrix, dense or sparse, `(n, n)`.
        q: Linear term, `(n,)`.
        E: Equality rows, `(p, n)`.
        b: Right-hand side of the equalities, `(p,)`.
        G: Inequality rows, `(m, n)`, if any.
        h: Right-hand side of the inequalities, `(m,)`.
        nonnegative: Which variables must not be negative: all, none or a mask.
        tolerance: Duality gap and residuals, absolute and relative, at which to stop.
        accept_reduced: Whether an answer of reduced accuracy (the solver's own
            fall-back tolerances, 5e-5) is good enough.

    Returns:
        The minimiser, the minimum, multipliers, steps and time.

    Raises:
        RuntimeError: If the solver does not reach `tolerance`.
    """
    q = np.asarray(q, float)
    quadratic = sparse.csc_matrix(sparse.triu(sparse.csc_matrix(P)))
    keep = np.flatnonzero(np.broadcast_to(np.asarray(nonnegative, bool), q.shape))
    lower = sparse.csc_matrix(
        (-np.ones(keep.size), (np.arange(keep.size), keep)), (keep.size, q.size)
    )
    rows = [sparse.csc_matrix(E), lower]
    sides = [np.asarray(b, float), np.zeros(keep.size)]
    cones = [clarabel.ZeroConeT(sides[0].size)]
    inequalities = 0
    if G is not None and h is not None:
        rows.append(sparse.csc_matrix(G))
        sides.append(np.asarray(h, float))
        inequalities = sides[-1].size
    cones.append(clarabel.NonnegativeConeT(keep.size + inequalities))
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.max_iter = 200
    settings.max_threads = 1
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = tolerance
    start = time.perf_counter()
    solver = clarabel.DefaultSolver(
        quadratic,
        q,
        sparse.vstack(rows, format="csc"),
        np.concatenate(sides),
        cones,
        settings,
    )
    solution = solver.solve()
    seconds = time.perf_counter() - start
    accepted = [clarabel.SolverStatus.Solved]
    if accept_reduced:
        accepted.append(clarabel.SolverStatus.AlmostSolved)
    if solution.status not in accepted:
        raise RuntimeError(
            f"Clarabel ended with {solution.status} after {solution.iterations} steps"
        )
    first, second = sides[0].size, sides[0].size + keep.size
    duals = np.array(solution.z)
    return ConvexSolution(
        x=np.array(solution.x),
        objective=float(solution.obj_val),
        equality_duals=duals[:first],
        lower_duals=duals[first:second],
        inequality_duals=duals[second:],
        iterations=solution.iterations,
        seconds=seconds,
    )


def solve_least_squares(
    M: Matrix,
    r: ArrayLike,
    E: Matrix,
    b: ArrayLike,
    *,
    penalty: Matrix | None = None,
    tolerance: float = 1e-9,
    accept_reduced: bool = False,
) -> ConvexSolution:
    r"""Minimise $\tfrac12|Mx - r|^2 + \tfrac12 x'Rx$ with $Ex = b$ and $x \ge 0$.

    The errors $Mx - r$ become unknowns of their own, so that the solver never sees
    $M'M$, which has twice as many orders of magnitude as $M$; and each unknown is
    counted in units of its effect. Weights of a price curve span many orders.

    Args:
        M: Rows of the errors, dense, `(m, n)`.
        r: Targets, `(m,)`.
        E: Equality rows, dense, `(p, n)`.
        b: Right-hand side of the equalities, `(p,)`.
        penalty: `R`, symmetric positive semidefinite, `(n, n)`; none if not given.
        tolerance: As in `solve_clarabel`.
        accept_reduced: As in `solve_clarabel`.

    Returns:
        The solution in the unknowns `x` only, signs kept exactly; the objective is
        evaluated from it and lacks no constant.

    Raises:
        RuntimeError: If the solver does not reach `tolerance`.
    """
    M, E = np.asarray(M, float), np.asarray(E, float)
    r, b = np.asarray(r, float), np.asarray(b, float)
    m, n = M.shape
    size = np.maximum(np.linalg.norm(M, axis=0), np.linalg.norm(E, axis=0))
    unit = 1.0 / np.where(size > 0.0, size, 1.0)
    units = sparse.diags_array(unit)
    own = sparse.csr_matrix((n, n)) if penalty is None else units @ penalty @ units
    solution = solve_clarabel(
        sparse.block_diag([own, sparse.identity(m)]),
        np.zeros(n + m),
        sparse.bmat(
            [
                [sparse.csr_matrix(E * unit), None],
                [sparse.csr_matrix(M * unit), -sparse.identity(m)],
            ]
        ),
        np.concatenate([b, r]),
        nonnegative=np.arange(n + m) < n,
        tolerance=tolerance,
        accept_reduced=accept_reduced,
    )
    # An interior point's signs hold to its tolerance only.
    x = np.maximum(unit * solution.x[:n], 0.0)
    objective = 0.5 * float(np.sum((M @ x - r) ** 2))
    if penalty is not None:
        objective += 0.5 * float(x @ (penalty @ x))
    return ConvexSolution(
        x=x,
        objective=objective,
        equality_duals=solution.equality_duals[: b.size],
        lower_duals=solution.lower_duals / unit,
        inequality_duals=solution.inequality_duals,
        iterations=solution.iterations,
        seconds=solution.seconds,
    )

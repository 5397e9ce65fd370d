r"""The best output weights for given kinks, as a function that can be differentiated.

For a design `A` (of the kinks, in units of each row's tolerance) and data `m`,

$$
w^*(\theta) = \arg\min_{w \ge 0} \tfrac12 \|A(\theta) w - m\|^2
+ \tfrac12 \epsilon \|w\|^2
\quad \text{subject to} \quad E(\theta) w = b,
$$

with the rows of `E` one and the kinks. What is left to learn are the kinks (variable
projection). Derivatives come from the optimality conditions at the solution, not from
the steps of the solver. For the programme's own objective the envelope theorem says the
same with fixed weights and multipliers,

$$
\frac{d}{d\theta} \min = \frac{\partial}{\partial\theta}
\left( \tfrac12 \|A w^* - m\|^2 - y^{*\top} (E w^* - b) \right).
$$

References:
    Golub, G. and Pereyra, V. (1973). The differentiation of pseudo-inverses and
    nonlinear least squares problems whose variables separate. *SIAM Journal on
    Numerical Analysis*, 10(2), 413-432.

    Amos, B. and Kolter, Z. (2017). OptNet: differentiable optimization as a layer in
    neural networks. *ICML*.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve

from relu_options.fitting.interior_point import (
    QuadraticProgram,
    Solution,
    no_rows,
    solve,
    starting_point,
)

RIDGE = 1e-10  # of the mean diagonal of the Hessian: kinks may coincide
TOLERANCE = 1e-9
MOST_STEPS = 40


def optimal_weights(
    design: jax.Array, data: jax.Array, kinks: jax.Array
) -> tuple[jax.Array, Solution]:
    """Probability weights of mean one that fit best, and how they were found.

    Args:
        design: `A`, of shape `(m, n)`.
        data: `m`, of shape `(m,)`.
        kinks: In units of the forward, of shape `(n,)`, on both sides of 1.

    Returns:
        The weights, of shape `(n,)`, differentiable in all arguments, and the solution
        of the programme, which is constant.

    Examples:
        Between two kinks there is no choice, and the weights move with them.

        >>> def first(kink):
        ...     kinks = jnp.array([kink, 1.25])
        ...     design = jnp.maximum(kinks - 1.0, 0.0)[None]
        ...     return optimal_weights(design, jnp.ones(1), kinks)[0][0]
        >>> print(f"{first(0.75):.4f} {jax.grad(first)(0.75):.4f}")
        0.5000 1.0000
    """
    program = _program(design, data, kinks)
    fixed = jax.lax.stop_gradient(program)
    start = starting_point(fixed, jnp.full(kinks.shape, 1.0 / kinks.shape[0]))
    solution = solve(fixed, start, tolerance=TOLERANCE, max_steps=MOST_STEPS)
    solution = jax.lax.stop_gradient(solution)
    at = solution.iterate
    # One Newton step from the constant root has the derivatives of the root.
    slope = program.hessian @ at.x + program.gradient
    stationary = slope - program.equality.T @ at.y - at.z
    balance = program.equality @ at.x - program.target
    moved = _newton_step(fixed, at.z / at.x, stationary, balance)
    return at.x + moved - jax.lax.stop_gradient(moved), solution


def least_objective(
    design: jax.Array, data: jax.Array, kinks: jax.Array
) -> tuple[jax.Array, Solution]:
    """The least objective; its derivative is that at fixed weights and multipliers.

    Args:
        design: `A`, of shape `(m, n)`.
        data: `m`, of shape `(m,)`.
        kinks: In units of the forward, of shape `(n,)`, on both sides of 1.

    Returns:
        The objective, differentiable in all arguments, and the solution.

    Examples:
        A forward of 1 between kinks at 0.5 and at 2 is 2 : 1; the call struck at 1
        costs a third, and the data say a half.

        >>> design = jnp.array([[0.0, 1.0]])
        >>> value, _ = least_objective(design, jnp.array([0.5]), jnp.array([0.5, 2.0]))
        >>> print(f"{value:.6f} {(1 / 3 - 1 / 2) ** 2 / 2:.6f}")
        0.013889 0.013889
    """
    program = _program(design, data, kinks)
    _, solution = optimal_weights(*jax.lax.stop_gradient((design, data, kinks)))
    at = solution.iterate
    balance = program.equality @ at.x - program.target
    return program.objective(at.x, at.excess) - at.y @ balance, solution


def _program(design, data, kinks) -> QuadraticProgram:
    n = kinks.shape[0]
    gram = design.T @ design
    ridge = RIDGE * (jnp.trace(gram) / n + 1e-300)
    return QuadraticProgram(
        hessian=gram + ridge * jnp.eye(n),
        gradient=-design.T @ data,
        constant=0.5 * data @ data,
        equality=jnp.stack([jnp.ones(n), kinks]),
        target=jnp.ones(2),
        **no_rows(n),
    )


def _newton_step(program: QuadraticProgram, springs, stationary, balance):
    """How the weights answer to violated optimality conditions."""
    diagonal = jnp.diagonal(program.hessian) + springs
    scale = 1.0 / jnp.sqrt(diagonal)
    unit = program.hessian * scale[:, None] * scale
    unit = jnp.where(jnp.eye(scale.shape[0], dtype=bool), 1.0 + 1e-14, unit)
    factor = jnp.linalg.cholesky(unit, symmetrize_input=False), True
    rows = program.equality * scale
    across = cho_solve(factor, rows.T)
    half = cho_solve(factor, -stationary * scale)
    dual = jnp.linalg.solve(rows @ across, -balance - rows @ half)
    return scale * (half + across @ dual)

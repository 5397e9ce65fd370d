r"""Tasks that pull shared parameters apart: measured, and combined without conflict.

Two tasks (expiries, underlyings) of one network conflict where the cosine of their
gradients is negative: a step for one is a step against the other. PCGrad takes out of
each task's gradient what points against another's,

$$
g_i \leftarrow g_i - \frac{\min(g_i \cdot g_j, 0)}{\lVert g_j \rVert^2} \, g_j
\quad \text{for the other tasks } j \text{ in random order},
$$

and adds up what is left. It matters where tasks share parameters. A joint convex fit
(`relu_options.fit_surface`) has no such conflict: with kinks fixed, every expiry has
its own output weights, so gradients of different expiries are orthogonal, and what
couples them, the calendar order, has exact prices, `PriceSurface.conflicts`.
`benchmarks/training.py` puts the three side by side.

References:
    Yu, T., Kumar, S., Gupta, A., Levine, S., Hausman, K. and Finn, C. (2020). Gradient
    surgery for multi-task learning. *NeurIPS*, 33, 5824-5836.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree


def task_gradients(
    losses: Sequence[Callable[[Any], jax.Array]], parameters: Any
) -> Any:
    """Gradients of every loss, as one pytree with a leading axis of tasks.

    Examples:
        >>> task_gradients([jnp.sum, jnp.max], jnp.array([1.0, 2.0])).tolist()
        [[1.0, 1.0], [0.0, 1.0]]
    """
    if not losses:
        raise ValueError("there must be one loss at least")
    each = [jax.grad(loss)(parameters) for loss in losses]
    return jax.tree.map(lambda *rows: jnp.stack(rows), *each)


def gradient_similarity(
    losses: Sequence[Callable[[Any], jax.Array]], parameters: Any
) -> jax.Array:
    """Cosines between the gradients of several losses at the same parameters.

    Args:
        losses: Functions of the parameters, one for each task.
        parameters: A pytree.

    Returns:
        The matrix, of shape `(tasks, tasks)`; NaN where a gradient is zero.

    Raises:
        ValueError: If there are no losses.

    Examples:
        >>> losses = [lambda x: x[0], lambda x: x[0] + x[1], lambda x: -2.0 * x[0]]
        >>> print(gradient_similarity(losses, jnp.zeros(2)).round(3))
        [[ 1.     0.707 -1.   ]
         [ 0.707  1.    -0.707]
         [-1.    -0.707  1.   ]]
    """
    rows = _flat(task_gradients(losses, parameters))
    units = rows / jnp.linalg.norm(rows, axis=1, keepdims=True)
    return units @ units.T


def without_conflict(gradients: Any, key: jax.Array) -> Any:
    """The sum of the tasks' gradients, each without what points against another's.

    Args:
        gradients: A pytree with a leading axis of tasks.
        key: Of the random order in which the others are looked at.

    Returns:
        A pytree without that axis.

    Examples:
        Of two gradients in conflict, each keeps what is orthogonal to the other.

        >>> rows = jnp.array([[1.0, 0.0], [-1.0, 1.0]])
        >>> print(without_conflict(rows, jax.random.key(0)))
        [0.5 1.5]
    """
    rows = _flat(gradients)
    tasks = rows.shape[0]
    squares = jnp.maximum(jnp.sum(rows**2, axis=1), jnp.finfo(rows.dtype).tiny)

    def project(row, place, key):
        def against(row, other):
            conflict = jnp.minimum(row @ rows[other], 0.0) * (other != place)
            return row - conflict / squares[other] * rows[other], None

        return jax.lax.scan(against, row, jax.random.permutation(key, tasks))[0]

    keys = jax.random.split(key, tasks)
    total = jax.vmap(project)(rows, jnp.arange(tasks), keys).sum(axis=0)
    _, unravel = ravel_pytree(jax.tree.map(lambda each: each[0], gradients))
    return unravel(total)


def pcgrad(seed: int = 0) -> optax.GradientTransformation:
    """A combiner for `optax.chain`: gradients of all tasks in, one gradient out.

    Args:
        seed: Of the order in which tasks are projected.

    Returns:
        The transformation; its updates have a leading axis of tasks.

    Examples:
        >>> optimizer = optax.chain(pcgrad(), optax.sgd(1.0))
        >>> parameters = jnp.zeros(2)
        >>> gradients = jnp.array([[1.0, 0.0], [-1.0, 1.0]])
        >>> change, _ = optimizer.update(gradients, optimizer.init(parameters))
        >>> print(change)
        [-0.5 -1.5]
    """

    def init(params):
        del params
        return jax.random.key(seed)

    def update(updates, state, params=None):
        del params
        state, now = jax.random.split(state)
        return without_conflict(updates, now), state

    return optax.GradientTransformation(init, update)


def _flat(gradients: Any) -> jax.Array:
    """One row for each task."""
    return jax.vmap(lambda one: ravel_pytree(one)[0])(gradients)

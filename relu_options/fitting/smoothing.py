r"""How much smoothing: generalised cross-validation along the whole path, in one go.

For a given $\lambda$ the fit minimises $\|A w - r\|^2 + \lambda^2 \|L w\|^2$ over
weights that are non-negative and satisfy two identities. With the weights that are zero
held at zero the fitted values depend linearly on the data, through a matrix
$H(\lambda)$, and generalised cross-validation asks for the least

$$
V(\lambda) = \frac{m \, \|A w(\lambda) - r\|^2}{(m - \operatorname{tr} H(\lambda))^2}.
$$

A first solution at $\lambda_0$ tells which weights are free (its barrier does: a stiff
spring holds the others). One symmetric eigenproblem of the pencil $(A^\top A,\;
\lambda_0^2 L^\top L + \text{springs})$ then gives residual and trace in closed form for
every $\lambda$ at once.

Cross-validation knows the right smoothing only to an order of magnitude when there are
ten or twenty quotes. The choice is therefore drawn more than half-way, in
logarithms, to a reference in proportion to the number of quotes, and is never below it.

References:
    Craven, P. and Wahba, G. (1979). Smoothing noisy data with spline functions.
    *Numerische Mathematik*, 31, 377-403.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

REFERENCE = 1.8e-4  # the reference for lambda / m, with residuals in quote tolerances
SHRINKAGE = 0.6  # how far the choice is drawn to the reference
LEAST = 1.0  # the least choice, as a multiple of the reference
DECADES = (-1.5, 2.5)  # where cross-validation looks, around the reference
CANDIDATES = 81


def reference_smoothing(count: jax.Array) -> jax.Array:
    """The reference for `lambda`, given the number of quotes."""
    return REFERENCE * count


def choose_smoothing(
    *,
    gram: jax.Array,
    roughness: jax.Array,
    equality: jax.Array,
    springs: jax.Array,
    pull: jax.Array,
    squared_residual: jax.Array,
    count: jax.Array,
    smoothing: jax.Array,
) -> jax.Array:
    r"""Choose `lambda` from a solution at another one.

    Args:
        gram: $A^\top A$, of shape `(n, n)`.
        roughness: $L^\top L$, of shape `(n, n)`.
        equality: Rows of the identities, of shape `(p, n)`.
        springs: Stiffness that holds each weight, `z / x` of the solution; `(n,)`.
        pull: $A^\top (A w - r)$ at the solution, of shape `(n,)`.
        squared_residual: $\|A w - r\|^2$ at the solution.
        count: `m`, the number of quotes.
        smoothing: $\lambda_0$, of the solution.

    Returns:
        The chosen `lambda`, a scalar.
    """
    n = gram.shape[0]
    unit = jnp.trace(gram) / n
    stiff = jnp.minimum(springs, 1e12 * unit)
    pencil = smoothing**2 * roughness + jnp.diag(stiff)
    pencil = pencil + 1e4 * unit * equality.T @ equality
    total = gram + pencil
    scale = 1.0 / jnp.sqrt(jnp.diagonal(total))
    factor = jnp.linalg.cholesky(
        total * scale[:, None] * scale + 1e-15 * jnp.eye(n), symmetrize_input=False
    )
    half = solve_triangular(factor, gram * scale[:, None] * scale, lower=True)
    share = solve_triangular(factor, half.T, lower=True)
    # Eigensolvers may never return from a matrix with a NaN.
    share = jnp.where(jnp.isfinite(share), share, 0.0)
    share, vectors = jnp.linalg.eigh(share)
    share = jnp.clip(share, 0.0, 1.0)  # of the data in each direction, at lambda_0
    force = vectors.T @ solve_triangular(factor, scale * pull, lower=True)

    reference = reference_smoothing(count)
    decades = jnp.linspace(*DECADES, CANDIDATES)
    candidates = reference * 10.0**decades
    ratio = (candidates / smoothing)[:, None] ** 2
    resistance = share + ratio * (1.0 - share)
    move = (1.0 - ratio) / resistance
    change = share * (move * force) ** 2 - 2.0 * move * force**2
    squared = squared_residual + change.sum(1)
    freedom = count - (share / resistance).sum(1)
    score = jnp.where(freedom > 0.5, jnp.maximum(squared, 0.0) / freedom**2, jnp.inf)
    best = candidates[jnp.argmin(score)]

    drawn = best ** (1.0 - SHRINKAGE) * reference**SHRINKAGE
    return jnp.maximum(drawn, LEAST * reference)

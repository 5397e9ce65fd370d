r"""How much smoothing: from the noise that a first solution leaves.

For a given $\lambda$ the fit minimises $\|A w - r\|^2 + \lambda^2 \|L w\|^2$ over
weights that are non-negative and satisfy two identities. Read as a mixed model, the
residuals have variance $\sigma^2$, the components of $L w$ variance $\tau^2$ and
$\lambda = \sigma / \tau$. With the weights that are zero held at zero the fitted values
have $d(\lambda)$ degrees of freedom, the trace of the matrix that makes them from the
data, and

$$
\sigma^2 = \frac{\|A w - r\|^2}{m - d}, \qquad
\tau^2 = \frac{\|L w\|^2}{d}, \qquad
\lambda \leftarrow \frac{\sigma}{\tau}
$$

is a step of Schall's method towards the most likely $\lambda$. Ten or twenty quotes
tell it to an order of magnitude only. The choice therefore starts at a reference in
proportion to the number of quotes and goes half of one step, in logarithms; the whole
step where spreads tell what noise there is.

References:
    Schall, R. (1991). Estimation in generalized linear models with random effects.
    *Biometrika*, 78(4), 719-727.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

REFERENCE = 1.2e-4  # the reference for lambda / m, with residuals in quote tolerances
SHARE = 0.5  # of the step, in logarithms, for mids alone
SHARE_OF_SPREADS = 1.0  # the same for quotes whose spreads tell their noise
SPREAD_NOISE = 0.1  # least variance of a mid in its spread, in half-spreads squared
OUTLYING = 2.0  # half-spreads from which a residual is a wrong quote, not its noise
LEAST, MOST = 0.25, 10.0  # limits of the choice, as multiples of the reference


def reference_smoothing(count: jax.Array) -> jax.Array:
    """The reference for `lambda`, given the number of quotes."""
    return REFERENCE * count


def choose_smoothing(
    *,
    gram: jax.Array,
    roughness: jax.Array,
    equality: jax.Array,
    weights: jax.Array,
    springs: jax.Array,
    residual: jax.Array,
    count: jax.Array,
    smoothing: jax.Array,
    has_spreads: jax.Array,
) -> jax.Array:
    r"""Choose `lambda` from a solution at another one.

    Args:
        gram: $A^\top A$, of shape `(n, n)`.
        roughness: $L^\top L$, of shape `(n, n)`.
        equality: Rows of the identities, of shape `(p, n)`.
        weights: `w` of the solution, of shape `(n,)`.
        springs: Stiffness that holds each weight, `z / w` of the solution; `(n,)`.
        residual: $A w - r$ at the solution, of shape `(m,)`.
        count: `m`, the number of quotes.
        smoothing: $\lambda_0$, of the solution.
        has_spreads: Whether residuals are in half-spreads.

    Returns:
        The chosen `lambda`, a scalar.
    """
    unit = jnp.trace(gram) / gram.shape[0]
    total = gram + smoothing**2 * roughness + 1e4 * unit * equality.T @ equality
    total = total + jnp.diag(jnp.minimum(springs, 1e12 * unit))
    scale = 1.0 / jnp.sqrt(jnp.diagonal(total))
    identity = jnp.eye(gram.shape[0])
    factor = jnp.linalg.cholesky(
        total * scale[:, None] * scale + 1e-15 * identity, symmetrize_input=False
    )
    root = solve_triangular(factor, identity * scale, lower=True)
    freedom = jnp.sum((root @ gram) * root)

    # One quote far off must not have the others smoothed as if they were.
    counted = jnp.where(has_spreads, jnp.clip(residual, -OUTLYING, OUTLYING), residual)
    noise = counted @ counted / jnp.maximum(count - freedom, 0.5)
    # Few quotes can be met too well to tell; but anywhere in a spread is a price.
    noise = jnp.where(has_spreads, jnp.maximum(noise, SPREAD_NOISE), noise)
    signal = weights @ roughness @ weights / jnp.maximum(freedom, 1.0)
    step = jnp.sqrt(noise / signal) / smoothing
    reference = reference_smoothing(count)
    step = jnp.where(jnp.isfinite(step), step, 1.0)
    share = jnp.where(has_spreads, SHARE_OF_SPREADS, SHARE)
    return jnp.clip(smoothing * step**share, LEAST * reference, MOST * reference)

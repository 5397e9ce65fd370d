r"""Where the kinks of a price network stand, how wide they are, and how rough it is.

The kinks are equally spaced in $u$ with $x = (a / b) \sinh(b u)$, where $x = \log s$ is
the log-moneyness of a kink. The bandwidth is the local scale of that map,

$$
h(x) = \frac{dx}{du} = \sqrt{a^2 + b^2 x^2},
$$

narrowest at the forward and proportional to the distance in the wings. A spacing of one
and a half bandwidths leaves a ripple of $2 \exp(-2 \pi^2 / 1.5^2) = 3 \cdot 10^{-4}$ in
a mixture of equal weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtri

SPACING = 1.5  # distance between neighbouring kinks, in bandwidths
NEWTON_STEPS = 10
FINEST = 0.02  # distance of kinks, in deviations, that the roughness resolves
TWO_PI = 6.283185307179586


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class KinkGrid:
    """Kinks and bandwidths of one expiry, in log-moneyness.

    Attributes:
        log_moneyness: `x`, of shape `(n,)` and increasing.
        bandwidths: `h(x)`, of shape `(n,)`.
        narrowest: `a`, the bandwidth at the forward.
        widening: `b`, by how much the bandwidth grows with the distance.
    """

    log_moneyness: jax.Array
    bandwidths: jax.Array
    narrowest: jax.Array
    widening: jax.Array

    @property
    def moneyness(self) -> jax.Array:
        """Kinks over the forward."""
        return jnp.exp(self.log_moneyness)


def kink_grid(
    n: int,
    *,
    low: jax.Array | float,
    high: jax.Array | float,
    narrowest: jax.Array | float,
) -> KinkGrid:
    """Place `n` kinks from `low` to `high` in log-moneyness.

    The widening is chosen so that `n` kinks reach from end to end. Where that takes
    a negative one (more kinks than the range needs) the bandwidth is narrowed instead.

    Args:
        n: Number of kinks.
        low: Log-moneyness of the first, negative.
        high: Log-moneyness of the last, positive.
        narrowest: Largest bandwidth at the forward.

    Returns:
        The grid.
    """
    length = SPACING * (n - 1)
    narrowest = jnp.minimum(narrowest, 0.8 * (high - low) / length)

    def ends(widening):
        scaled = widening / narrowest
        return (
            jnp.arcsinh(scaled * low) / widening,
            jnp.arcsinh(scaled * high) / widening,
        )

    def newton(_, widening):
        """One step for the logarithm of the length, in that of the widening."""
        first, last = ends(widening)
        rate_low, rate_high = (
            end / jnp.sqrt(narrowest**2 + (widening * end) ** 2) for end in (low, high)
        )
        elasticity = (rate_high - rate_low) / (last - first) - 1.0
        step = jnp.log(length / (last - first)) / elasticity
        return widening * jnp.exp(jnp.clip(step, -2.0, 2.0))

    widening = jax.lax.fori_loop(0, NEWTON_STEPS, newton, narrowest / high)
    first, _ = ends(widening)
    u = first + SPACING * jnp.arange(n)
    x = narrowest / widening * jnp.sinh(widening * u)
    bandwidths = jnp.sqrt(narrowest**2 + (widening * x) ** 2)
    return KinkGrid(x, bandwidths, narrowest, widening)


def shared_grid(
    n: int,
    *,
    low: jax.Array | float,
    high: jax.Array | float,
    narrowest: jax.Array | float,
) -> KinkGrid:
    r"""Place kinks for all expiries of a surface, one of them at the forward exactly.

    The kinks are those of `kink_grid`, shifted by at most half of a spacing. Bandwidths
    are such that the price of a hidden unit at its own kink, per unit of the kink,

    $$
    p(x) = 2 N(h(x) / 2) - 1 = \sqrt{(a^2 + b^2 x^2) / 2 \pi},
    $$

    is convex in `x`, which is what carries the order of expiries from the kinks to
    every strike. It differs from $h^2 = a^2 + b^2 x^2$ in the third order of `h` only.

    Args:
        n: Number of kinks.
        low: Log-moneyness of the first, negative.
        high: Log-moneyness of the last, positive.
        narrowest: Largest bandwidth at the forward.

    Returns:
        The grid.
    """
    grid = kink_grid(n, low=low, high=high, narrowest=narrowest)
    scaled = grid.widening / grid.narrowest
    first = jnp.arcsinh(scaled * grid.log_moneyness[0]) / grid.widening
    left = jnp.clip(jnp.round(-first / SPACING), 2, n - 3)
    u = SPACING * (jnp.arange(n) - left)
    x = jnp.sinh(grid.widening * u) / scaled
    kernel_price = jnp.sqrt((grid.narrowest**2 + (grid.widening * x) ** 2) / TWO_PI)
    bandwidths = 2.0 * ndtri(0.5 * (1.0 + kernel_price))
    return KinkGrid(x, bandwidths, grid.narrowest, grid.widening)


def roughness_matrix(
    grid: KinkGrid, *, scale: jax.Array, pilot: jax.Array
) -> jax.Array:
    r"""The matrix `L` whose square is the roughness of the fitted density.

    With $z = x / \text{scale}$, heights $f_j = w_j / \Delta z_j$ and a pilot density
    $f_0$,

    $$
    \|L w\|^2 \approx \int \frac{f'''(z)^2}{f_0(z)} \, dz .
    $$

    The division by the pilot asks for the same relative smoothness in the wings as near
    the money; without it a density that is small may be as rough as it likes. Where
    kinks are closer than `FINEST` they count as that far apart: for an expiry that is
    much later than the first, kinks near the forward are so close that third
    differences would span more orders of magnitude than floating point has.

    Args:
        grid: The kinks.
        scale: At-the-money total volatility, the unit of `z`.
        pilot: `f_0` at the kinks, of shape `(n,)`, positive; its scale is free.

    Returns:
        `L`, of shape `(n - 3, n)`: third divided differences on the grid.
    """
    steps = jnp.diff(grid.log_moneyness) / scale
    z = jnp.concatenate([jnp.zeros(1), jnp.sqrt(steps**2 + FINEST**2).cumsum()])
    cells = SPACING * grid.bandwidths / scale
    differences = jnp.diag(1.0 / cells)
    for order in (1, 2, 3):
        width = (z[order:] - z[:-order]) / order
        differences = (differences[1:] - differences[:-1]) / width[:, None]
    width = (z[3:] - z[:-3]) / 3.0
    log_pilot = jnp.log(pilot)
    between = 0.25 * (
        log_pilot[3:] + log_pilot[2:-1] + log_pilot[1:-2] + log_pilot[:-3]
    )
    return differences * jnp.sqrt(width * jnp.exp(-between))[:, None]

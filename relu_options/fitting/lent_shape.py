r"""What the smiles of neighbouring expiries say where an expiry has no quotes.

In deviations $z = x / \sigma_i$ from the forward, $\sigma_i$ the at-the-money total
volatility, smiles of neighbouring expiries look alike. Where the quotes of an expiry
are far apart or end, it is lent the shape of the others: with
$\rho_j(z) = \log \sigma_j(z) / \sigma_j$ joined by straight lines between the quotes,

$$
\rho_i^*(z) = \rho_i(z) + g_i(z) - (I_i g_i)(z), \qquad
g_i' = \sum_j \omega_{ij} \rho_j' \Big/ \sum_j \omega_{ij},
$$

where $I_i$ joins values at the quotes of expiry `i` by straight lines, constant beyond
the outermost, and the sums are over the other expiries that are quoted at `z`, the
closer in total variance the more: $\omega_{ij} = \exp(-|\log \sigma_i^2 / \sigma_j^2| /
c)$. At its own quotes an expiry keeps its own level.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.scipy.stats import norm

from relu_options import black_scholes
from relu_options.fitting.grid import KinkGrid
from relu_options.fitting.programme import LEAST_VEGA, Smile

POINTS = 48  # at which shape is lent to every expiry
FARTHEST = 8.0  # deviations from the forward of the outermost
CLOSENESS = 0.5  # c
NEAR, FAR = 0.25, 0.75  # deviations from the nearest quote: lent nothing, lent all
UNIT = 0.05  # relative volatility by which a fit may leave what is lent
STRENGTH = 5.0  # of what is lent, against the roughness


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LentShape:
    """Rows that pull the prices of an expiry to the shape of its neighbours.

    Attributes:
        rows: Of shape `(N, POINTS, n)`; zero where nothing is lent.
        data: What they should give, of shape `(N, POINTS)`.
    """

    rows: jax.Array
    data: jax.Array


def lend_shape(smiles: Smile, grid: KinkGrid) -> LentShape:
    """What every expiry is lent by the others.

    Args:
        smiles: Of all expiries, with a leading axis of length `N`; equal ones count as
            one, which pads.
        grid: The kinks, which all share.

    Returns:
        The rows, to be multiplied by the weights of each expiry.
    """
    deviation = jax.vmap(lambda smile: smile.at_the_money)(smiles)
    first, last = smiles.first / deviation, smiles.last / deviation
    z = jnp.linspace(
        jnp.maximum(first.min(), -FARTHEST), jnp.minimum(last.max(), FARTHEST), POINTS
    )
    own = jax.vmap(lambda smile, unit: jnp.log(smile(z * unit) / unit))(
        smiles, deviation
    )
    quoted = (z[:-1] >= first[:, None]) & (z[1:] <= last[:, None])
    apart = jnp.abs(2.0 * jnp.log(deviation / deviation[:, None]))
    closeness = jnp.where(apart > 0.0, jnp.exp(-apart / CLOSENESS), 0.0)
    said = closeness @ quoted
    known = said > 0.0
    slopes = closeness @ jnp.where(quoted, jnp.diff(own, axis=1), 0.0)
    slopes = jnp.where(known, slopes / jnp.where(known, said, 1.0), 0.0)
    shape = jnp.concatenate([jnp.zeros((len(deviation), 1)), slopes], axis=1).cumsum(1)
    heard = jnp.concatenate([known[:, :1], known], axis=1)
    heard = heard & jnp.concatenate([known, known[:, -1:]], axis=1)

    def lend(smile, unit, own, shape, heard):
        """Rows and data of one expiry."""
        x = z * unit
        left, right, share = smile.between(x)
        left, right = (jnp.clip(one, smile.first, smile.last) for one in (left, right))
        at_left, at_right = (jnp.interp(one / unit, z, shape) for one in (left, right))
        total = unit * jnp.exp(own + shape - at_left - share * (at_right - at_left))
        distance = jnp.minimum(jnp.abs(x - left), jnp.abs(x - right)) / unit
        count = jnp.clip((distance - NEAR) / (FAR - NEAR), 0.0, 1.0)
        count = jnp.where(heard & jnp.isfinite(total), count, 0.0)
        total = jnp.where(count > 0.0, total, unit)
        vega = jnp.maximum(norm.pdf(x / total - 0.5 * total), LEAST_VEGA)
        scale = count / (UNIT * total * vega)
        moneyness, is_call = jnp.exp(x), x >= 0.0
        price = black_scholes.undiscounted_price(1.0, moneyness, total, is_call)
        rows = black_scholes.undiscounted_price(
            grid.moneyness, moneyness[:, None], grid.bandwidths, is_call[:, None]
        )
        return rows * scale[:, None], price * scale

    return LentShape(*jax.vmap(lend)(smiles, deviation, own, shape, heard))

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

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from relu_options.fitting.kernels import LOGNORMAL
from relu_options.fitting.quotes import Smile

POINTS = 48  # at which shape is lent to every expiry
FARTHEST = 8.0  # deviations from the forward of the outermost
CLOSENESS = 0.5  # c
NEAR, FAR = 0.25, 0.75  # deviations from the nearest quote: lent nothing, lent all
UNIT = 0.05  # relative volatility by which a fit may leave what is lent
STRENGTH = 5.0  # of what is lent, against the roughness


@dataclass(frozen=True, eq=False)
class LentShape:
    """Rows that pull the prices of an expiry to the shape of its neighbours.

    Attributes:
        rows: Of shape `(p, n)`; there may be none.
        data: What they should give, of shape `(p,)`.
    """

    rows: np.ndarray
    data: np.ndarray


def lend_shape(
    smiles: Sequence[Smile], x: np.ndarray, bandwidths: np.ndarray
) -> list[LentShape]:
    """What every expiry is lent by the others.

    Args:
        smiles: Of all expiries.
        x: Log-moneyness of the kinks, which all share, of shape `(n,)`.
        bandwidths: Of shape `(n,)`.

    Returns:
        The rows of each expiry, to be multiplied by its weights.
    """
    deviation = np.array([smile.at_the_money for smile in smiles])
    first = np.array([smile.abscissae[0] for smile in smiles]) / deviation
    last = np.array([smile.abscissae[-1] for smile in smiles]) / deviation
    z = np.linspace(max(first.min(), -FARTHEST), min(last.max(), FARTHEST), POINTS)
    own = np.stack(
        [
            np.log(smile(z * unit) / unit)
            for smile, unit in zip(smiles, deviation, strict=True)
        ]
    )
    quoted = (z[:-1] >= first[:, None]) & (z[1:] <= last[:, None])
    apart = np.abs(2.0 * np.log(deviation / deviation[:, None]))
    closeness = np.where(apart > 0.0, np.exp(-apart / CLOSENESS), 0.0)
    said = closeness @ quoted
    known = said > 0.0
    slopes = closeness @ np.where(quoted, np.diff(own, axis=1), 0.0)
    slopes = np.where(known, slopes / np.where(known, said, 1.0), 0.0)
    shapes = np.pad(slopes.cumsum(axis=1), ((0, 0), (1, 0)))
    heard = np.pad(known, ((0, 0), (1, 0)), mode="edge")
    heard = heard & np.pad(known, ((0, 0), (0, 1)), mode="edge")

    wanted = [
        _totals(smile, z, *each)
        for smile, *each in zip(smiles, deviation, own, shapes, heard, strict=True)
    ]
    counts = np.array([len(at) for at, _, _ in wanted])
    at, total, scale = (np.concatenate(parts) for parts in zip(*wanted, strict=True))
    hidden = LOGNORMAL.design(x, bandwidths, at) * scale[:, None]
    price = LOGNORMAL.price(1.0, np.exp(at), total, at >= 0.0) * scale
    ends = counts.cumsum()[:-1]
    return [
        LentShape(rows, data)
        for rows, data in zip(
            np.split(hidden, ends), np.split(price, ends), strict=True
        )
    ]


def _totals(
    smile: Smile,
    z: np.ndarray,
    unit: float,
    own: np.ndarray,
    shape: np.ndarray,
    heard: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where an expiry is lent something, what total volatility, and its weight."""
    x, quotes = z * unit, smile.abscissae
    after = np.searchsorted(quotes, x, side="right")
    left, right = (
        quotes[np.maximum(after - 1, 0)],
        quotes[np.minimum(after, len(quotes) - 1)],
    )
    width = np.where(right > left, right - left, 1.0)
    share = np.clip((x - left) / width, 0.0, 1.0)
    at_left, at_right = (
        np.interp(left / unit, z, shape),
        np.interp(right / unit, z, shape),
    )
    total = unit * np.exp(own + shape - at_left - share * (at_right - at_left))
    distance = np.minimum(np.abs(x - left), np.abs(x - right)) / unit
    count = np.clip((distance - NEAR) / (FAR - NEAR), 0.0, 1.0)
    lent = heard & np.isfinite(total) & (count > 0.0)
    x, total, count = x[lent], total[lent], count[lent]
    scale = STRENGTH * count / (UNIT * total * LOGNORMAL.vega(x, total))
    return x, total, scale

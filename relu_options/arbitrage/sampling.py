"""Arbitrage in any price curve, as far as given strikes show it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from relu_options.errors import require_forward, require_positive

_SHOWN = 3


def static_arbitrage_violations(
    price: Callable[[np.ndarray], ArrayLike] | ArrayLike,
    *,
    forward: float,
    discount_factor: float,
    strikes: ArrayLike,
    tolerance: float = 1e-13,
    signed: bool = False,
) -> pd.DataFrame:
    """Trades at the given strikes that a curve of call prices pays one to enter.

    Every call against its bounds, every spread of neighbouring strikes against zero and
    its width, every butterfly of three neighbours against zero. A strike
    of zero, which is the forward itself, is put before them, unless the underlying may
    be negative, as a strike or a forward of zero or below says: then a call has no
    upper bound. What happens between the strikes is not seen: this samples, it does not
    prove.

    Args:
        price: Today's call price as a function of an array of strikes, or its values at
            `strikes`, in currency units.
        forward: Currency units.
        discount_factor: Price today of one unit of currency paid at expiry.
        strikes: Shape `(n,)`, all different, in any order; in currency units.
        tolerance: What is taken for rounding, relative to the discounted forward; where
            the underlying may be negative, to the farthest strike's distance from it.
        signed: Whether the underlying may be negative, where no strike says so.

    Returns:
        One row per violation, the largest first: `family` ("bounds", "call_spread" or
        "butterfly"), `strikes` (a tuple) and `size`, what the trade earns today in
        currency units: per call, per spread, and per call sold in the middle of a
        butterfly. No rows if there is none.

    Raises:
        ValueError: If strikes repeat, shapes differ, a price is not a finite number, or
            the discount factor is not positive.

    Examples:
        >>> table = static_arbitrage_violations(
        ...     [20.9, 12.1, 8.0, 3.6], forward=100.0, discount_factor=1.0,
        ...     strikes=[80.0, 90.0, 100.0, 110.0])
        >>> print(table.round(6))
              family               strikes  size
        0  butterfly  (90.0, 100.0, 110.0)  0.15
    """
    require_forward(forward, signed=True)
    require_positive(discount_factor=discount_factor)
    x = np.asarray(strikes, float)
    y = np.asarray(price(x) if callable(price) else price, float)
    if x.ndim != 1 or not len(x) or y.shape != x.shape:
        raise ValueError(
            "strikes and prices have one shape `(n,)`, at least one of each; they have "
            f"{x.shape} and {y.shape}"
        )
    if not np.isfinite(y).all():
        bad = np.flatnonzero(~np.isfinite(y))
        raise ValueError(
            f"price is not finite at {len(bad)} of {len(x)} strikes: "
            f"{_some(x[bad])}; leave these strikes out"
        )
    order = np.argsort(x)
    x, y = x[order], y[order]
    floor, cap = discount_factor * np.maximum(forward - x, 0.0), np.inf
    unit = forward
    if signed or min(x[0], forward) <= 0.0:
        unit = np.abs(x - forward).max()
    else:
        cap = discount_factor * forward
        x, y = np.append(0.0, x), np.append(cap, y)
        floor = np.append(cap, floor)
    if not (np.diff(x) > 0.0).all():
        raise ValueError(f"strikes repeat: {_some(x[1:][np.diff(x) <= 0.0])}")
    width, rise = np.diff(x), np.diff(y)
    middle = (width[1:] * y[:-2] + width[:-1] * y[2:]) / (width[1:] + width[:-1])
    sizes = {
        "bounds": np.maximum(floor - y, y - cap),
        "call_spread": np.maximum(rise, -rise - discount_factor * width),
        "butterfly": y[1:-1] - middle,
    }
    least = tolerance * discount_factor * unit
    found = [
        (family, tuple(x[row : row + legs].tolist()), float(size[row]))
        for legs, (family, size) in enumerate(sizes.items(), start=1)
        for row in np.flatnonzero(size > least)
    ]
    found.sort(key=lambda violation: -violation[2])
    return pd.DataFrame(found, columns=["family", "strikes", "size"]).astype(
        {"size": float}
    )


def _some(values: np.ndarray) -> str:
    """The first few numbers, as text."""
    more = ", ..." if len(values) > _SHOWN else ""
    return ", ".join(f"{value:.10g}" for value in values[:_SHOWN]) + more

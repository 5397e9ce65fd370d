"""The box of inputs on which a network is verified."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

DomainLike: TypeAlias = (
    "Domain | Mapping[str, tuple[float, float]] | Sequence[tuple[float, float]]"
)
"""A range `(low, high)` for each input, with or without names."""


@dataclass(frozen=True)
class Domain:
    """A box: strike or spot comes first, and then the time, if there is one.

    Attributes:
        names: Of the inputs; "strike" or "spot" first.
        low: Of each input.
        high: Of each input; above `low`.

    Examples:
        >>> domain = domain_of([(0.5, 1.5), (0.1, 2.0)], inputs=2)
        >>> domain
        strike 0.5 to 1.5, time 0.1 to 2
        >>> domain_of({"strike": (80, 120), "volatility": (0.1, 0.4)}, 2).has_time
        False
    """

    names: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    def __len__(self) -> int:
        """Number of inputs."""
        return len(self.names)

    @property
    def has_time(self) -> bool:
        """Whether the second input is the time to expiry."""
        return self.names[1:2] == ("time",)

    def __repr__(self) -> str:
        return ", ".join(
            f"{name} {low:.6g} to {high:.6g}"
            for name, low, high in zip(self.names, self.low, self.high, strict=True)
        )


def domain_of(domain: DomainLike, inputs: int) -> Domain:
    """A box with one range for each input.

    Args:
        domain: Ranges `(low, high)`, the strike's first: a sequence, whose second range
            is of time; or a mapping from names, where the second input is a time only
            if it is called "time".
        inputs: Number of inputs of the network.

    Returns:
        The box.

    Raises:
        ValueError: If a range is empty or not finite, their number is not that of the
            inputs, strike or spot is not first or can be negative.

    Examples:
        >>> domain_of([(100.0, 90.0)], inputs=1)
        Traceback (most recent call last):
            ...
        ValueError: the range of strike must go from low to high, not 100.0 to 90.0
    """
    if isinstance(domain, Domain):
        names, ranges = domain.names, list(zip(domain.low, domain.high, strict=True))
    elif isinstance(domain, Mapping):
        names, ranges = tuple(domain), list(domain.values())
    else:
        ranges = list(domain)
        names = ("strike", "time", *(f"input {i + 3}" for i in range(len(ranges) - 2)))
        names = names[: len(ranges)]
    if len(ranges) != inputs:
        raise ValueError(
            f"the network has {inputs} inputs and the domain {len(ranges)} ranges; "
            "give one (low, high) for each, the strike's first"
        )
    box = []
    for name, interval in zip(names, ranges, strict=True):
        try:
            low, high = (float(end) for end in interval)
        except (TypeError, ValueError):
            raise ValueError(
                f"the range of {name} must be (low, high), not {interval!r}"
            ) from None
        if not (low < high and math.isfinite(low) and math.isfinite(high)):
            raise ValueError(
                f"the range of {name} must go from low to high, not {low} to {high}"
            )
        box.append((low, high))
    if names[0] not in ("strike", "spot"):
        raise ValueError(
            f"the first input must be the 'strike' or the 'spot', not {names[0]!r}"
        )
    if box[0][0] < 0.0:
        raise ValueError(
            f"a {names[0]} is not negative; the domain starts at {box[0][0]}"
        )
    low, high = zip(*box, strict=True)
    return Domain(names, low, high)

"""The few numbers that prove a price network free of static arbitrage."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pandas as pd

from relu_options.errors import require_forward, require_positive
from relu_options.networks import PriceNetwork

IDENTITY_ROUNDING = 16 * np.finfo(float).eps
"""By how much a certified mass or forward may be off, relative: 3.6e-15."""


@dataclass(frozen=True, repr=False)
class CurveCertificate:
    """The numbers that prove a price network free of static arbitrage.

    A sum of hidden units with non-negative output weights falls with the strike and is
    convex in it, at every strike: each unit is a call price. Its slope is above minus
    the sum of the weights, the mass, and its price at a strike of zero is the forward
    times the mass (with the Black kernel; the Bachelier kernel allows a negative
    underlying, for which there is no such bound). Nothing is sampled and there is no
    tolerance, but for mass and forward, which are those asked for up to the errors
    given.

    Attributes:
        kernel: "black" or "bachelier".
        number_of_kinks: Of the network.
        smallest_weight: Must not be negative.
        smallest_kink: In currency units; with the Black kernel it must not be negative.
        smallest_bandwidth: Must not be negative.
        mass_error: Sum of the weights over the discount factor, minus 1, computed in
            exact arithmetic; at most `IDENTITY_ROUNDING`.
        forward_error: Sum of weights times kinks over the discounted forward, minus 1,
            likewise. With the Bachelier kernel, where the forward may be zero: that sum
            minus the discounted forward, over the sum of weights times absolute kinks.

    Examples:
        A certificate is true if, and only if, it holds.

        >>> from relu_options.curves import BlackScholesCurve
        >>> flat = BlackScholesCurve(volatility=0.2, forward=100.0, time_to_expiry=1.0)
        >>> bool(flat.certificate), flat.certificate.smallest_weight
        (True, 1.0)
        >>> negative = certify_network(-flat.network, forward=100.0,
        ...                            discount_factor=1.0)
        >>> bool(negative), negative.smallest_weight
        (False, -1.0)
    """

    kernel: str
    number_of_kinks: int
    smallest_weight: float
    smallest_kink: float
    smallest_bandwidth: float
    mass_error: float
    forward_error: float

    @property
    def holds(self) -> bool:
        """Whether the network is free of static arbitrage."""
        return all(holds for _, _, _, holds in self._facts())

    def __bool__(self) -> bool:
        return self.holds

    def to_frame(self) -> pd.DataFrame:
        """One row per fact: its value, what is required of it, and whether it holds."""
        columns = ["fact", "value", "required", "holds"]
        return pd.DataFrame(self._facts(), columns=columns).set_index("fact")

    def _facts(self) -> list[tuple[str, float, str, bool]]:
        """Name, value, requirement, and whether it is met; NaN meets none."""
        signs = {
            "smallest_weight": self.smallest_weight,
            "smallest_kink": self.smallest_kink,
            "smallest_bandwidth": self.smallest_bandwidth,
        }
        if self.kernel != "black":
            del signs["smallest_kink"]
        errors = {"mass_error": self.mass_error, "forward_error": self.forward_error}
        limit = f"within {IDENTITY_ROUNDING:.1e}"
        return [
            *((name, value, ">= 0", value >= 0.0) for name, value in signs.items()),
            *(
                (name, value, limit, abs(value) <= IDENTITY_ROUNDING)
                for name, value in errors.items()
            ),
        ]

    def _forward_in_words(self) -> str:
        """Over the forward, where that is positive; off by a part of the kinks."""
        if self.kernel == "black":
            return _one_plus(self.forward_error)
        return f"off by {self.forward_error:.1g} of the kinks"

    def __repr__(self) -> str:
        if self.holds:
            return (
                "free of butterfly and call-spread arbitrage at every strike: "
                f"{self.number_of_kinks} output weights >= 0 (least "
                f"{self.smallest_weight:.2g}), mass {_one_plus(self.mass_error)}, "
                f"forward {self._forward_in_words()}, bandwidths >= 0 (least "
                f"{self.smallest_bandwidth:.2g})"
            )
        broken = ", ".join(
            f"{name} is {value:.3g}, not {required}"
            for name, value, required, holds in self._facts()
            if not holds
        )
        return f"not free of static arbitrage: {broken}"


def certify_network(
    network: PriceNetwork, *, forward: float, discount_factor: float
) -> CurveCertificate:
    r"""State the numbers that decide whether a price network admits arbitrage.

    $$
    p_j \ge 0, \qquad \sum_j p_j = D, \qquad \sum_j p_j s_j = D F.
    $$

    The two sums are computed in rational arithmetic, so their errors are those of the
    network and not of adding up.

    Args:
        network: Call prices by strike, in currency units paid today.
        forward: Currency units.
        discount_factor: Price today of one unit of currency paid at expiry.

    Returns:
        The certificate; true if it holds. A NaN or an infinity in the network makes its
        numbers NaN, and it does not hold.

    Raises:
        ValueError: If the discount factor is not positive, or the forward is not
            positive (with the Bachelier kernel: not finite), or the network has no
            kinks.

    Examples:
        >>> import jax.numpy as jnp
        >>> network = PriceNetwork(jnp.array([80.0, 100.0, 120.0]),
        ...                        jnp.array([0.25, 0.5, 0.25]), jnp.full(3, 0.1))
        >>> certificate = certify_network(network, forward=100.0, discount_factor=1.0)
        >>> certificate  # doctest: +NORMALIZE_WHITESPACE
        free of butterfly and call-spread arbitrage at every strike: 3 output weights
        >= 0 (least 0.25), mass 1, forward 1, bandwidths >= 0 (least 0.1)
        >>> print(certify_network(network, forward=100.5, discount_factor=1.0))
        not free of static arbitrage: forward_error is -0.00498, not within 3.6e-15
    """
    require_forward(forward, signed=network.kernel == "bachelier")
    require_positive(discount_factor=discount_factor)
    kinks, weights, bandwidths = (
        np.asarray(values, float).ravel()
        for values in (network.kinks, network.weights, network.bandwidths)
    )
    if not len(kinks):
        raise ValueError("a network without kinks has no prices to certify")
    mass_error = forward_error = np.nan
    if np.isfinite(kinks).all() and np.isfinite(weights).all():
        discount = Fraction(float(discount_factor))
        mass_error = float(_exact_dot(weights, np.ones_like(kinks)) / discount - 1)
        mean = _exact_dot(weights, kinks) / discount
        unit = exact = Fraction(float(forward))
        if network.kernel == "bachelier":
            unit = _exact_dot(np.abs(weights), np.abs(kinks)) / discount
        # Without a unit all is at zero, and so must the forward be.
        forward_error = float((mean - exact) / (unit or 1))
    return CurveCertificate(
        kernel=network.kernel,
        number_of_kinks=len(kinks),
        smallest_weight=float(weights.min()),
        smallest_kink=float(kinks.min()),
        smallest_bandwidth=float(bandwidths.min()),
        mass_error=mass_error,
        forward_error=forward_error,
    )


def _exact_dot(a: np.ndarray, b: np.ndarray) -> Fraction:
    """Inner product of two arrays in rational arithmetic.

    Denominators of floats are powers of two, so the largest is common to all: summing
    integers is a tenth of the work of summing fractions.
    """
    ratios = [x.as_integer_ratio() for x in a.tolist()]
    others = [x.as_integer_ratio() for x in b.tolist()]
    products = [(p * r, q * s) for (p, q), (r, s) in zip(ratios, others, strict=True)]
    common = max(denominator for _, denominator in products)
    total = sum(p * (common // denominator) for p, denominator in products)
    return Fraction(total, common)


def _one_plus(error: float) -> str:
    """`1 + 1.1e-16`, and plain `1` where there is no error."""
    if error == 0.0:
        return "1"
    return f"1 {'+' if error > 0.0 else '-'} {abs(error):.1e}"

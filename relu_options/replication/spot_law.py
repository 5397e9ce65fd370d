"""The risk-neutral law of the spot at expiry, as spots with probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from relu_options.networks import SCALES

if TYPE_CHECKING:
    from relu_options.curves import PriceCurve

_NODES = 8  # of Gauss-Legendre quadrature, in each panel
_REACH = 7.5  # bandwidths beyond a kink: beyond lies a probability of 3e-14
_PANELS = 400  # at most, besides those that end at breaks


@dataclass(frozen=True, eq=False)
class SpotLaw:
    """Spots and probabilities that stand for the law of a curve.

    Attributes:
        spots: Increasing, of shape `(m,)`, in currency units.
        probabilities: Of shape `(m,)`.
    """

    spots: np.ndarray
    probabilities: np.ndarray

    @staticmethod
    def of(curve: PriceCurve, breaks: np.ndarray) -> SpotLaw:
        """Gauss-Legendre quadrature of the density, on panels that end at the breaks.

        Expectations of functions that are smooth between the breaks are exact to about
        1e-13. A curve with sharp kinks has no density: its law is its state prices.

        Args:
            curve: The curve.
            breaks: Spots at which what is to be averaged has kinks, of any shape.
        """
        network = curve.network
        kinks, masses, width = (
            np.asarray(values, float)
            for values in (network.kinks, network.weights, network.bandwidths)
        )
        if not (width > 0.0).all():
            order = np.argsort(kinks)
            return SpotLaw(kinks[order], masses[order] / masses.sum())
        present = masses > 1e-15 * masses.sum()
        # Panels on the scale on which the states are normal.
        forth, back = SCALES[network.kernel]
        ends = np.asarray(network.scaled_states(np.array([-_REACH, _REACH])))
        ends = ends[:, present]
        low, high, width = ends[0].min(), ends[1].max(), width[present]
        panels = int(np.ceil((high - low) / (0.75 * width.min())))
        edges = np.linspace(low, high, 1 + min(panels, _PANELS))
        breaks = np.ravel(breaks)
        breaks = breaks[(breaks > float(back(low))) & (breaks < float(back(high)))]
        inside = np.asarray(forth(breaks))
        edges = np.union1d(edges, inside)
        edges = edges[np.append(True, np.diff(edges) > 1e-12)]
        nodes, weights = np.polynomial.legendre.leggauss(_NODES)
        half, middle = 0.5 * np.diff(edges), 0.5 * (edges[1:] + edges[:-1])
        spots = np.asarray(back(middle[:, None] + half[:, None] * nodes)).ravel()
        measure = (half[:, None] * weights).ravel()
        measure = measure * (spots if network.kernel == "black" else 1.0)
        return SpotLaw(spots, measure * np.asarray(curve.density(spots)))

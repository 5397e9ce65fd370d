"""The curves of several expiries, each fitted by itself, by their labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from relu_options.curves import PriceCurve
from relu_options.expiry_labels import find_expiry

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False, repr=False)
class CurvesByExpiry(Mapping[str, PriceCurve]):
    """Curves in the order in which their quotes were given.

    `curves["2025-06-20"]` is the curve of that date, as is a `Timestamp`;
    `curves["2025-06-20", "PM"]` that of its contracts settled on the close, where a
    date has others too. By position: `list(curves.values())[0]`.

    Attributes:
        labels: The keys, "2025-06-20 PM", or times in years; where several would be the
            same, they are numbered.
        curves: The curves, likewise.
        left_out: Expiries that could not be fitted, each with the reason.

    Examples:
        >>> import relu_options as ro
        >>> curves = ro.fit_curves(ro.bundled_chain())
        >>> curves
        CurvesByExpiry(8 curves from 2025-03-21 PM to 2027-03-19 PM)
        >>> curves["2025-06-20"].expiry, list(curves)[:2]
        ('2025-06-20', ['2025-03-21 PM', '2025-04-04 PM'])
        >>> curves.to_frame().loc["2025-06-20 PM", ["quotes", "inside"]].tolist()
        [89.0, 1.0]
    """

    labels: tuple[str, ...]
    curves: tuple[PriceCurve, ...]
    left_out: tuple[tuple[str, str], ...] = ()

    def __getitem__(self, key: object) -> PriceCurve:
        """The curve of an expiry.

        Raises:
            KeyError: If there is none, saying why or naming the nearest; or if several
                expiries are meant.
        """
        reasons = dict(self.left_out)
        try:
            return self.curves[find_expiry(self.labels, key)]
        except KeyError as error:
            try:
                name = list(reasons)[find_expiry(list(reasons), key)]
            except KeyError:
                raise error from None
        raise KeyError(f"{name} was left out: {reasons[name]}")

    def __iter__(self) -> Iterator[str]:
        return iter(self.labels)

    def __len__(self) -> int:
        return len(self.labels)

    def to_frame(self) -> pd.DataFrame:
        """One row per expiry: what was fitted to it, and how well.

        Returns:
            By label: `time_to_expiry` (years), `forward` (currency), `discount_factor`,
            `volatility` (at the forward), `quotes`, the share of them that the curve
            is `inside` of, the largest `excess` of the others (currency) and
            `volatility_error`.
        """
        rows = [
            {
                "time_to_expiry": curve.time_to_expiry,
                "forward": curve.forward,
                "discount_factor": curve.discount_factor,
                "volatility": curve.implied_volatility(curve.forward),
                "quotes": len(curve.quotes),
                "inside": curve.share_inside,
                "excess": curve.quotes["excess"].max(),
                "volatility_error": curve.volatility_error,
            }
            for curve in self.curves
        ]
        return pd.DataFrame(rows, pd.Index(self.labels, name="expiry"))

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw quotes and curves in volatility, one colour an expiry; gives the Axes.

        Of many, some are drawn, from the first to the last.
        """
        from relu_options.plotting import plot_curves

        return plot_curves(self, ax)

    def __repr__(self) -> str:
        span = f"1 curve, {self.labels[0]}" if self.labels else "no curve"
        if len(self) > 1:
            span = f"{len(self)} curves from {self.labels[0]} to {self.labels[-1]}"
        out = len(self.left_out)
        more = f", {out} left out: see `left_out`" if out else ""
        return f"CurvesByExpiry({span}{more})"

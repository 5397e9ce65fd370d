r"""The proof that travels with a price surface: no arbitrage at any strike and time.

A surface is a network whose kinks $s_j$ and bandwidths $h_j$ all expiries share,

$$
\frac{C_i(k F_i)}{D_i F_i} = \sum_j w_{ij} \varphi_{h_j}(s_j, k), \qquad
w_{ij} \ge 0, \quad \sum_j w_{ij} = \sum_j w_{ij} s_j = 1 .
$$

Its skeletons $g_i(k) = \sum_j w_{ij} (s_j - k)^+$ are ordered if they are at the kinks,
and the prices are ordered with them, at every strike, if the kernel prices $p_j = 2
N(h_j / 2) - 1$ are convex in $\log s_j$. These are finitely many inequalities;
`relu_options.verify` proves each of them in rational arithmetic, and
`docs/no_arbitrage.md` proves that they suffice.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

Number = float | Fraction

# `relu_options.verify` is imported where it is used: it is also a program, and Python
# warns of running a module that its own package has imported.

_MARGIN = 1e-12  # by which settled time values rise, relative: above any rounding
_LEAST_CENTRE = 1e-10  # the least settled weight of the kink at the forward
_LEAST_WEIGHT = 1e-280  # smaller ones are dropped: their sums would lose digits
_LARGEST_MISS = 1e-6  # of mass and mean, that is taken for rounding of a fit
_PASSES = 4  # one settles all but kinks that nearly coincide
_LIGHT = 1e-11  # a weight too small to take up the rounding of mass and mean


@dataclass(frozen=True, repr=False)
class SurfaceCertificate:
    """The numbers that prove a price surface free of static arbitrage.

    It is true if, and only if, each inequality and identity holds exactly; that is
    computed on first use. The same numbers written by `to_json` are proved again, by
    anyone who has Python, with `python verify.py surface.json`.

    Attributes:
        times: Times to expiry, in years; increasing.
        forwards: Of each expiry, currency units.
        discount_factors: Of each expiry.
        kinks: Over the forward; increasing, one is exactly 1.
        kernel_prices: Of each kink, the at-the-money price of its hidden unit over the
            kink, `2 N(h / 2) - 1`: they define the bandwidths `h` exactly.
        weights: One row for each expiry. Two of a row are in general fractions, so
            that the row's sum and its mean are 1 without rounding.
        expiries: Labels.
        largest_change: Of any price, in discounted forwards, between the network that
            was given in binary64 and the certified one: a bound, and rounding if it is
            at most 1e-13, which is claimed as well.

    Examples:
        >>> from dataclasses import replace
        >>> certificate = certify_surface(
        ...     kinks=[0.9, 1.0, 1.1], weights=[[0.1, 0.8, 0.1], [0.25, 0.5, 0.25]],
        ...     bandwidths=[0.02, 0.02, 0.02], times=[0.1, 0.2],
        ...     forwards=[100.0, 101.0], discount_factors=[1.0, 0.99])
        >>> bool(certificate), certificate.largest_change < 1e-14
        (True, True)
        >>> certificate  # doctest: +NORMALIZE_WHITESPACE
        free of butterfly, call-spread and calendar arbitrage at every strike and time,
        by exact arithmetic: 2 x 3 weights >= 0 with masses and means 1, 3 calendar
        inequalities, 1 of the hidden units
        >>> early, late = certificate.weights
        >>> print(replace(certificate, weights=(late, early)).failure)
        skeleton of 0.2 years below the one before: kink 2 of 3 (s = 1), by 0.015
    """

    times: tuple[Number, ...]
    forwards: tuple[Number, ...]
    discount_factors: tuple[Number, ...]
    kinks: tuple[Number, ...]
    kernel_prices: tuple[Number, ...]
    weights: tuple[tuple[Number, ...], ...]
    expiries: tuple[str, ...]
    largest_change: float = 0.0

    def __post_init__(self):
        # Lists could be changed after the proof.
        for name in (*_VECTORS, "expiries"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "weights", tuple(map(tuple, self.weights)))

    def verify(self) -> list[str]:
        """Prove every claim anew; returns lines that say what was proved.

        Raises:
            NotProved: At the first claim that fails (of `relu_options.verify`): which,
                at which expiry and kink, and by how much.
            ValueError: If a value is not a number.
        """
        from relu_options.verify import verify

        return verify(self.to_dict())

    @cached_property
    def failure(self) -> str | None:
        """The first claim that fails, or None if all are proved."""
        try:
            self.verify()
        except (ValueError, ArithmeticError) as error:
            return str(error)
        return None

    @property
    def holds(self) -> bool:
        """Whether the surface is proved free of static arbitrage."""
        return self.failure is None

    def __bool__(self) -> bool:
        return self.holds

    def to_frame(self) -> pd.DataFrame:
        """One row for each expiry: how far its inequalities are from failing.

        `least_weight`; `mass_is_one` and `mean_is_one`, exactly; `least_slack`, how far
        its skeleton is above the one before it, at the kink where that is least and
        relative to its time value; and that kink, `tightest_kink`.
        """
        kinks = np.asarray(self.kinks, float)
        weights = np.array([[float(w) for w in row] for row in self.weights])
        values = _time_values(kinks, weights)
        rise = np.full(values.shape, np.inf)
        np.divide(np.diff(values, axis=0), values[1:], rise[1:], where=values[1:] > 0.0)
        tightest = rise.argmin(axis=1)
        least = rise.min(axis=1)
        known = np.isfinite(least)
        exact = [_identities(self.kinks, row) for row in self.weights]
        return pd.DataFrame(
            {
                "time": self.times,
                "forward": self.forwards,
                "discount_factor": self.discount_factors,
                "least_weight": weights.min(axis=1),
                "mass_is_one": [mass == 1 for mass, _ in exact],
                "mean_is_one": [mean == 1 for _, mean in exact],
                "least_slack": np.where(known, least, np.nan),
                "tightest_kink": np.where(known, kinks[tightest], np.nan),
            },
            index=pd.Index(self.expiries, name="expiry"),
        )

    def to_json(self, path: str | Path | None = None) -> str:
        """The certificate as JSON text, written to `path` if given; it is exact."""
        text = json.dumps(self.to_dict(), indent=1)
        if path is not None:
            Path(path).write_text(text + "\n", encoding="utf-8")
        return text

    @staticmethod
    def from_json(source: str | Path) -> SurfaceCertificate:
        """Read a certificate from JSON text or from a file; it need not hold.

        Raises:
            ValueError: If the text is not that of a certificate.
        """
        from relu_options.verify import FORMAT

        text = source if isinstance(source, str) and "{" in source else None
        if text is None:
            text = Path(source).read_text(encoding="utf-8")
        values = json.loads(text)
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise ValueError(f"not a surface certificate: no format {FORMAT!r}")
        try:
            fields = {name: tuple(map(_number, values[name])) for name in _VECTORS}
            return SurfaceCertificate(
                **fields,
                weights=tuple(tuple(map(_number, row)) for row in values["weights"]),
                expiries=tuple(map(str, values["expiries"])),
                largest_change=float(values.get("largest_change", 0.0)),
            )
        except KeyError as error:
            raise ValueError(f"not a surface certificate: no field {error}") from None
        except (TypeError, ArithmeticError) as error:
            raise ValueError(f"not a surface certificate: {error}") from None

    def to_dict(self) -> dict:
        """The certificate in the types of JSON; fractions are texts "p/q"."""
        from relu_options.verify import FORMAT

        return {
            "format": FORMAT,
            "expiries": list(self.expiries),
            **{name: [_plain(x) for x in getattr(self, name)] for name in _VECTORS},
            "weights": [[_plain(weight) for weight in row] for row in self.weights],
            "largest_change": self.largest_change,
        }

    def __repr__(self) -> str:
        if not self.holds:
            return f"not proved free of arbitrage: {self.failure}"
        count, n = len(self.times), len(self.kinks)
        return (
            "free of butterfly, call-spread and calendar arbitrage at every strike and "
            f"time, by exact arithmetic: {count} x {n} weights >= 0 with masses and "
            f"means 1, {(count - 1) * n} calendar inequalities, {max(n - 2, 0)} of the "
            "hidden units"
        )


_VECTORS = ("times", "forwards", "discount_factors", "kinks", "kernel_prices")


def certify_surface(
    kinks: ArrayLike,
    weights: ArrayLike,
    bandwidths: ArrayLike,
    times: ArrayLike,
    forwards: ArrayLike,
    discount_factors: ArrayLike,
    expiries: Sequence[str] = (),
) -> SurfaceCertificate:
    r"""State the numbers that prove, or fail to prove, a surface free of arbitrage.

    The weights of a network have sum and mean 1 only up to rounding. Two of each
    expiry, at kinks $a$ and $b$, are therefore replaced by the fractions that solve

    $$
    w_a + w_b = 1 - \sum_{j \ne a, b} w_j, \qquad
    w_a s_a + w_b s_b = 1 - \sum_{j \ne a, b} w_j s_j .
    $$

    Here $a$ is the kink at the forward, and $b$ the kink above it whose part of the
    at-the-money price, $w_b (s_b - 1)$, is the largest, so at least one in `n`. Where
    that price is the same from puts and from calls up to a part $\epsilon$ of it, $w_b$
    changes by at most a part $n \epsilon$, and so does any time value, and only those
    between the two kinks. `settle_weights` leaves far more room. If the weight at the
    forward is below $10^{-11}$, that of a kink below it, chosen likewise, is replaced.
    The certificate holds only if no price changes by more than rounding: by at most
    $10^{-13}$ discounted forwards, of which weights that change by $\delta_j$ take
    $\sum_j (1 + s_j) |\delta_j|$ and the rounding of a kernel price of $2^{-50}$ takes
    $2^{-50} e^{h^2 / 8}$, so that bandwidths are at most 6.

    Args:
        kinks: Over the forward, of shape `(n,)`.
        weights: Shape `(N, n)`.
        bandwidths: Total volatilities, of shape `(n,)`.
        times: Times to expiry in years, of shape `(N,)`.
        forwards: Currency units, of shape `(N,)`.
        discount_factors: Shape `(N,)`.
        expiries: Labels; by default the times.

    Returns:
        The certificate; true if it holds.

    Raises:
        ValueError: If shapes do not match.

    Examples:
        A later expiry that is narrower admits a calendar arbitrage.

        >>> certificate = certify_surface(
        ...     kinks=[0.5, 1.0, 1.5], weights=[[0.25, 0.5, 0.25], [0.0, 1.0, 0.0]],
        ...     bandwidths=[0.0, 0.0, 0.0], times=[0.25, 0.5], forwards=[100.0, 100.0],
        ...     discount_factors=[1.0, 1.0], expiries=["March", "June"])
        >>> print(certificate.failure)
        skeleton of June below the one before: kink 2 of 3 (s = 1), by 0.125
    """
    sites, widths = np.asarray(kinks, float), np.asarray(bandwidths, float)
    rows = np.asarray(weights, float)
    terms = [np.asarray(x, float) for x in (times, forwards, discount_factors)]
    count, n = len(terms[0]), len(sites)
    shapes = [x.shape for x in (rows, sites, widths, *terms)]
    if shapes != [(count, n), (n,), (n,), *[(count,)] * 3]:
        raise ValueError(
            "weights, kinks, bandwidths, times, forwards and discount_factors must be "
            f"of shapes (N, n), (n,), (n,), (N,), (N,) and (N,), not {shapes}"
        )
    labels = tuple(str(label) for label in expiries)
    if not labels:
        labels = tuple(f"{time:.6g} years" for time in terms[0])
    if len(labels) != count:
        raise ValueError(f"{len(labels)} expiries for {count} times")
    certified = [_with_exact_identities(sites, row) for row in rows]
    prices = [math.erf(h / math.sqrt(8.0)) for h in widths.tolist()]
    return SurfaceCertificate(
        times=tuple(terms[0].tolist()),
        forwards=tuple(terms[1].tolist()),
        discount_factors=tuple(terms[2].tolist()),
        kinks=tuple(sites.tolist()),
        kernel_prices=tuple(prices),
        weights=tuple(certified),
        expiries=labels,
        largest_change=_largest_change(sites, rows, certified, widths, prices),
    )


def _largest_change(
    kinks: np.ndarray,
    weights: np.ndarray,
    certified: Sequence[Sequence[Number]],
    bandwidths: np.ndarray,
    kernel_prices: Sequence[float],
) -> float:
    """The bound of `relu_options.verify`; infinite if a number is not finite."""
    from relu_options.verify import price_changes

    def exact(values: Iterable[Number]) -> list[Fraction]:
        return [Fraction(value) for value in values]

    try:
        changes = price_changes(
            exact(kinks.tolist()),
            [exact(row) for row in weights.tolist()],
            [exact(row) for row in certified],
            exact(bandwidths.tolist()),
            exact(kernel_prices),
        )
        return float(max(changes))
    except (ValueError, OverflowError):
        return math.inf


def settle_weights(weights: ArrayLike, kinks: ArrayLike) -> np.ndarray:
    r"""Weights that keep their order strictly, above any rounding.

    A fit leaves weights whose sum, mean and calendar order hold up to rounding. This
    leaves weights $w_{ij} \ge 0$ with sum and mean 1, to the last digit of their sums,
    and with time values at the kinks

    $$
    v_i(s_m) = \sum_{s_j < s_m} w_{ij} (s_m - s_j) \ (s_m \le 1), \qquad
    v_i(s_m) = \sum_{s_j > s_m} w_{ij} (s_j - s_m) \ (s_m \ge 1)
    $$

    that rise by at least a part of $10^{-12}$ from each expiry to the next:

    1. Negative weights become zero; weights above and below the forward are scaled to
       give one at-the-money price, and the kink at the forward has the rest. If that is
       less than $10^{-10}$ anywhere, the others shrink by one factor for all expiries.
    2. If $v_i < (1 + 10^{-12}) v_{i-1}$ at any kink, $v_i$ becomes the larger of $v_i$
       and $(1 + 2 \cdot 10^{-12}) v_{i-1}$ at every kink: a maximum of convex functions
       is convex, so that the weights, its changes of slope, stay non-negative. What
       changes is computed apart and added, so that weights elsewhere keep their digits.

    Args:
        weights: Shape `(N, n)`, expiries in order of time.
        kinks: Over the forward, of shape `(n,)`, increasing; one must be 1.

    Returns:
        The settled weights, of shape `(N, n)`. A violation of the order is settled
        whatever its size.

    Raises:
        ValueError: If shapes do not match, a value is not finite, the kinks do not
            increase or have no 1 between them, or mass or mean are off by more than
            $10^{-6}$.

    Examples:
        An expiry that repeats the one before it rises by the margin.

        >>> weights = [[0.25, 0.5, 0.25], [0.25, 0.5, 0.25]]
        >>> early, late = settle_weights(weights, [0.5, 1.0, 1.5])
        >>> print(early, np.round(1e12 * (late - early), 2))
        [0.25 0.5  0.25] [ 0.5 -1.   0.5]
    """
    sites = np.asarray(kinks, float)
    rows = np.maximum(np.asarray(weights, float), 0.0)
    if sites.ndim != 1 or rows.ndim != 2 or rows.shape[1] != len(sites):
        raise ValueError(
            "weights and kinks must have shapes (N, n) and (n,), not "
            f"{rows.shape} and {sites.shape}"
        )
    if not (np.diff(sites) > 0.0).all() or 1.0 not in sites[1:-1]:
        raise ValueError("kinks must increase, with 1.0 between the first and the last")
    missed = np.abs([rows.sum(axis=1) - 1.0, rows @ sites - 1.0]).max(axis=0)
    if not (missed <= _LARGEST_MISS).all():
        expiry = int(np.argmax(~(missed <= _LARGEST_MISS)))
        raise ValueError(
            f"mass or mean of the weights is off by {missed[expiry]:.3g} at expiry "
            f"{expiry + 1} of {len(rows)}; both must be 1 to {_LARGEST_MISS:g}"
        )
    rows[rows < _LEAST_WEIGHT] = 0.0
    _balance(sites, rows)
    centre = sites == 1.0
    most = rows[:, ~centre].sum(axis=1).max(initial=0.0)
    if most > 1.0 - _LEAST_CENTRE:
        # Each rise by the margin takes twice the margin from the centre.
        least = _LEAST_CENTRE + 4.0 * _MARGIN * len(rows)
        rows[:, ~centre] *= (1.0 - least) / most
        _balance(sites, rows)
    values = _time_values(sites, rows)
    for i in range(1, len(rows)):
        for _ in range(_PASSES):
            if (values[i] >= (1.0 + _MARGIN) * values[i - 1]).all():
                break
            # From differences of weights, where rows that nearly agree keep digits.
            excess = rows[i - 1] - rows[i] + 2.0 * _MARGIN * rows[i - 1]
            lift = np.maximum(_time_values(sites, excess), 0.0)
            slopes = np.diff(lift) / np.diff(sites)
            bends = np.diff(slopes, prepend=0.0, append=0.0)
            rows[i] = np.maximum(rows[i] + bends, 0.0)
            _balance(sites, rows[i : i + 1])
            values[i] = _time_values(sites, rows[i])
    return rows


def _balance(kinks: np.ndarray, rows: np.ndarray) -> None:
    """Give each row mass and mean 1, in place: one price on both sides, then the rest.

    A row with weights on one side only, which are then within rounding, loses them.
    """
    below, centre, above = kinks < 1.0, kinks == 1.0, kinks > 1.0
    puts = rows[:, below] @ (1.0 - kinks[below])
    calls = rows[:, above] @ (kinks[above] - 1.0)
    price = np.where((puts > 0.0) & (calls > 0.0), 0.5 * (puts + calls), 0.0)
    for side, given in ((below, puts), (above, calls)):
        factor = np.divide(price, given, np.zeros_like(price), where=given > 0.0)
        rows[:, side] *= factor[:, None]
    rows[:, centre] = 1.0 - rows[:, ~centre].sum(axis=1, keepdims=True)


def _time_values(kinks: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Skeletons at the kinks, less the forward's payoff: sums of positive terms alone.

    Puts up to the forward and calls from there on, of the shape of `weights`.
    """
    widths = np.diff(kinks)
    puts, calls = np.zeros_like(weights), np.zeros_like(weights)
    masses = np.cumsum(weights, axis=-1)[..., :-1]
    np.cumsum(masses * widths, axis=-1, out=puts[..., 1:])
    masses = np.cumsum(weights[..., :0:-1], axis=-1)
    np.cumsum(masses * widths[::-1], axis=-1, out=calls[..., -2::-1])
    return np.where(kinks <= 1.0, puts, calls)


def _with_exact_identities(kinks: np.ndarray, row: np.ndarray) -> tuple[Number, ...]:
    """The weights with two replaced by the fractions that make mass and mean 1.

    The weights as they are where no two can do that, one of the two is negative, or
    values are not finite.
    """
    weights: list[Number] = row.tolist()
    finite = np.isfinite(row).all() and np.isfinite(kinks).all()
    if not finite or (kinks < 1.0).all() or 1.0 not in kinks:
        return tuple(weights)
    b = int(np.argmax(np.where(kinks > 1.0, row * (kinks - 1.0), -np.inf)))
    a = int(np.argmax(kinks == 1.0))
    if row[a] < _LIGHT:
        a = int(np.argmax(np.where(kinks < 1.0, row * (1.0 - kinks), -np.inf)))
    if b <= a or kinks[a] > 1.0 or row[a] < 0.0 or row[b] < 0.0:
        return tuple(weights)
    others = row.copy()
    others[[a, b]] = 0.0
    mass, mean = _identities(kinks.tolist(), others.tolist())
    low, high = Fraction(kinks[a]), Fraction(kinks[b])
    upper = (1 - mean - low * (1 - mass)) / (high - low)
    for place, exact in ((a, 1 - mass - upper), (b, upper)):
        if exact != Fraction(row[place]):
            weights[place] = exact
    return tuple(weights)


def _identities(
    kinks: Sequence[Number], weights: Sequence[Number]
) -> tuple[Fraction, Fraction]:
    """Sum of weights, and of weights times kinks, without rounding.

    Integers over common denominators: a tenth of the work of adding fractions.
    """
    sites, unit = _integers(kinks)
    masses, common = _integers(weights)
    moment = sum(mass * site for mass, site in zip(masses, sites, strict=True))
    return Fraction(sum(masses), common), Fraction(moment, common * unit)


def _integers(values: Sequence[Number]) -> tuple[list[int], int]:
    """Numbers as integers over their least common denominator, and that."""
    exact = [Fraction(value) for value in values]
    common = math.lcm(*(value.denominator for value in exact))
    return [x.numerator * (common // x.denominator) for x in exact], common


def _plain(value: Number) -> str | float:
    """A number in the types of JSON."""
    return str(value) if isinstance(value, Fraction) else value


def _number(value: str | float) -> Number:
    """The reverse of `_plain`."""
    return Fraction(value) if isinstance(value, str) else float(value)

r"""Forward and discount factor from calls and puts at the same strikes.

Put-call parity for European options, whatever the model, is

$$ C(K) - P(K) = D (F - K), $$

a straight line in the strike: its slope is the discount factor, its zero the forward.
"""

from dataclasses import dataclass, replace

import numpy as np

from relu_options.errors import QuoteError


@dataclass(frozen=True)
class RatePrior:
    """What is believed of a rate before the pairs of a slice are seen.

    Attributes:
        rate: Continuous, per year.
        deviation: By how much it may be off.
        expiries: From how many other expiries it is borrowed; zero if it is assumed.
    """

    rate: float = 0.02
    deviation: float = 0.03
    expiries: int = 0

    def discount_factor(self, time_to_expiry: float) -> float:
        """What the rate makes of it over that time, in years."""
        return float(np.exp(-self.rate * time_to_expiry))

    def slope(self, time_to_expiry: float | None) -> tuple[float, float]:
        """The discount factor believed and its variance; without a time, any."""
        if time_to_expiry is None:
            return 1.0, np.inf
        variance = (self.deviation * time_to_expiry) ** 2
        return self.discount_factor(time_to_expiry), variance

    def __str__(self) -> str:
        if not self.expiries:
            return f"an assumed rate of {self.rate:.0%} ± {self.deviation:.0%}"
        return (
            f"a rate of {self.rate:.2%} ± {self.deviation:.2%}, that of the "
            f"{self.expiries} expiries of the chain that tell theirs"
        )


ASSUMED = RatePrior()


@dataclass(frozen=True)
class Agreement:
    """How pairs agree on a line, and when they agree on none.

    Attributes:
        rejection: Deviations from which a pair has no weight: Tukey's constant, 95 %
            efficient on normal errors.
        mad_to_deviation: Of normal errors, the deviation over the median of their
            absolute values.
        least_deviation: No mid is known better than to a tenth of its half-spread.
        shared_skew: Of the half-spread, by which all mids on a side may be off.
        max_steps: Of reweighting, if the line does not stay before.
        scale_steps: After which the deviation stays, so that the rest converges.
        least_pairs_for_slope: Of fewer, one wrong quote decides the median slope.
        noted_shrinkage: Share of a discount factor that rests on a prior, above which a
            report says so.
        worst_scatter: Of the forward: beyond it, the pairs are not of one market.
        worst_discount_error: Standard error beyond which strikes do not tell a discount
            factor.
        discount_range: Of a market's discount factors: 5 % over 32 years, -4 % over
            4.5.
    """

    rejection: float = 4.685
    mad_to_deviation: float = 1.4826
    least_deviation: float = 0.1
    shared_skew: float = 0.05
    max_steps: int = 50
    scale_steps: int = 3
    least_pairs_for_slope: int = 4
    noted_shrinkage: float = 0.1
    worst_scatter: float = 0.02
    worst_discount_error: float = 0.02
    discount_range: tuple[float, float] = (0.2, 1.2)


AGREEMENT = Agreement()


@dataclass(frozen=True, eq=False)
class ParityEstimate:
    """A forward and a discount factor implied by put-call parity.

    Attributes:
        forward: Currency units.
        discount_factor: Price today of one unit of currency paid at expiry.
        forward_standard_error: Currency units; zero for a forward that was given.
        discount_standard_error: Likewise for the discount factor.
        pairs: Number of strikes at which both a call and a put were quoted.
        rejected: Strikes of the pairs that disagree with the rest and got no weight.
        strike: Shape `(pairs,)`.
        residuals: Shape `(pairs,)`: call minus put at their mids, minus
            `discount_factor * (forward - strike)`, in currency units.
        assumed: Share of the discount factor that rests on the prior rather than on
            the pairs.
        notes: What a reader of a report should know.

    Examples:
        >>> strike = np.array([90.0, 100.0, 110.0, 120.0])
        >>> put = np.array([2.0, 5.0, 10.4, 17.9])
        >>> call = put + 0.98 * (101.0 - strike)
        >>> estimate = forward_from_parity(strike=strike, call_bid=call, call_ask=call,
        ...                                put_bid=put, put_ask=put)
        >>> round(estimate.forward, 6), round(estimate.discount_factor, 6)
        (101.0, 0.98)
        >>> round(estimate.rate(time_to_expiry=0.5), 4), len(estimate.rejected)
        (0.0404, 0)
    """

    forward: float
    discount_factor: float
    forward_standard_error: float
    discount_standard_error: float
    pairs: int
    rejected: np.ndarray
    strike: np.ndarray
    residuals: np.ndarray
    assumed: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def tells_discount_factor(self) -> bool:
        """Whether the pairs, rather than an assumption, tell it."""
        return self.assumed <= AGREEMENT.noted_shrinkage

    def rate(self, time_to_expiry: float) -> float:
        """Continuous rate per year that gives the discount factor over that time."""
        return float(np.log(1.0 / self.discount_factor) / time_to_expiry)

    def rate_error(self, time_to_expiry: float) -> float:
        """Standard error of that rate, to first order."""
        return self.discount_standard_error / (self.discount_factor * time_to_expiry)

    def __repr__(self) -> str:
        return (
            f"ParityEstimate(forward={self.forward:.10g} "
            f"± {self.forward_standard_error:.2g}, "
            f"discount_factor={self.discount_factor:.8g} "
            f"± {self.discount_standard_error:.2g}, pairs={self.pairs}, "
            f"rejected={len(self.rejected)})"
        )


def forward_from_parity(
    *,
    strike: np.ndarray,
    call_bid: np.ndarray,
    call_ask: np.ndarray,
    put_bid: np.ndarray,
    put_ask: np.ndarray,
    time_to_expiry: float | None = None,
    forward: float | None = None,
    discount_factor: float | None = None,
    prior: RatePrior = ASSUMED,
    signed: bool = False,
) -> ParityEstimate:
    r"""Forward and discount factor at which calls and puts agree, robustly.

    With `y` the call's mid minus the put's and `s` the two half-spreads together, the
    line minimises

    $$ \sum_i \rho\!\left(\frac{y_i - D (F - K_i)}{\sigma s_i}\right), $$

    `ρ` Tukey's biweight, which gives no weight to pairs beyond 4.7 deviations, and `σ`
    the median deviation. Spreads are narrow near the money, so those pairs decide. The
    search starts from weighted medians of slopes and intercepts: a fifth of the quotes
    may be wrong by any amount.

    What the strikes cannot tell of the discount factor (few pairs, a narrow range, a
    few days to expiry) is filled in: the slope is averaged with `exp(-0.02 T)`, each
    weighted by its precision, that of the latter being `(0.03 T)**-2`. A note says when
    this matters. The forward hardly depends on it.

    Args:
        strike: Shape `(pairs,)`, each once; currency units.
        call_bid: Bids of the calls, of the same shape, in currency units. Where only
            mids are known, pass them as bid and as ask: deviations then count in units
            of 1 % of the price of the pair.
        call_ask: Asks of the calls.
        put_bid: Bids of the puts.
        put_ask: Asks of the puts.
        time_to_expiry: Years; without it nothing is assumed of the discount factor.
        forward: If known, in currency units; then only the discount factor is implied.
        discount_factor: If known; then only the forward is implied.
        prior: The rate to fill in, if not 2 % ± 3 %.
        signed: Whether the underlying is known to be one that may be negative. A strike
            of zero or below says so, and a forward that four pairs tell.

    Returns:
        The estimate with its standard errors. They count the scatter of the mids, and a
        skew of 5 % of the spread shared by all pairs on a side, which is what the
        discount factors of AM- and PM-settled SPX options of one date differ by.

    Raises:
        QuoteError: If there are too few pairs (two are needed, or one where a forward
            or a discount factor is given), or they agree on no forward or discount
            factor.

    Examples:
        Ten pairs, one of them off by five.

        >>> strike = np.arange(80.0, 130.0, 5.0)
        >>> put = 0.02 * strike
        >>> call = put + 0.97 * (103.0 - strike)
        >>> call[3] += 5.0
        >>> estimate = forward_from_parity(
        ...     strike=strike, call_bid=call - 0.1, call_ask=call + 0.1,
        ...     put_bid=put - 0.1, put_ask=put + 0.1, time_to_expiry=1.0)
        >>> print(round(estimate.forward, 3), round(estimate.discount_factor, 4))
        103.0 0.97
        >>> print(estimate.rejected)
        [95.]
    """
    pairs = len(strike)
    if pairs < (2 if forward is None and discount_factor is None else 1):
        raise QuoteError(
            f"too few strikes have both a call and a put quoted ({pairs}) to imply "
            "the forward; pass `forward=`, or quotes of both"
        )
    guess, prior_variance = prior.slope(time_to_expiry)
    order = np.argsort(strike)
    k = strike[order]
    y = 0.5 * (call_bid + call_ask - put_bid - put_ask)[order]
    s = _scale(call_bid, call_ask, put_bid, put_ask)[order]
    line = _robust_line(
        k, y, s, zero=forward, slope=discount_factor, guessed_slope=guess
    )
    shrinkage, discount_error = 0.0, 0.0
    if discount_factor is None:
        line, shrinkage, discount_error = _shrunk(line, guess, prior_variance)
    residuals = y - line.slope * (line.zero - k)
    try:
        _check_line(line, k, residuals, s, signed=signed)
    except QuoteError as error:
        if not (call_bid.any() or put_bid.any()):
            raise QuoteError(f"every bid is zero: {error}") from error
        if forward is None or pairs < 2:
            raise
        raise _against_given(forward, k, y, s, guess, signed=signed) from error
    if time_to_expiry is None and discount_error > AGREEMENT.worst_discount_error:
        raise QuoteError(
            f"{pairs} pairs between strikes {k[0]:.10g} and {k[-1]:.10g} do not tell "
            f"the discount factor ({line.slope:.4f} ± {discount_error:.4f}); pass "
            f"`discount_factor=`, or `time_to_expiry=` for {prior}"
        )
    rejected = k[line.weights == 0.0]
    return ParityEstimate(
        forward=line.zero,
        discount_factor=line.slope,
        forward_standard_error=line.zero_error(discount_error),
        discount_standard_error=discount_error,
        pairs=pairs,
        rejected=rejected,
        strike=k,
        residuals=residuals,
        assumed=shrinkage,
        notes=_notes(shrinkage, prior, rejected, pairs),
    )


def _shrunk(
    line: "_Line", guess: float, prior_variance: float
) -> tuple["_Line", float, float]:
    """The line with a slope between its own and a guess, each by its precision.

    Returns:
        The line, the share of the guess, and the standard error of the slope.
    """
    share = 1.0
    if not np.isinf(line.slope_variance):
        share = 1.0 / (1.0 + prior_variance / line.slope_variance)
    variance = prior_variance if share == 1.0 else line.slope_variance * (1.0 - share)
    line = line.with_slope(line.slope + share * (guess - line.slope))
    return line, share, float(np.sqrt(variance))


def _against_given(
    forward: float,
    k: np.ndarray,
    y: np.ndarray,
    s: np.ndarray,
    guess: float,
    *,
    signed: bool,
) -> QuoteError:
    """The error that pairs contradict a given forward, if they agree on another."""
    told = _robust_line(k, y, s, zero=None, slope=None, guessed_slope=guess)
    _check_line(told, k, y - told.slope * (told.zero - k), s, signed=signed)
    return QuoteError(
        f"the forward is given as {forward:.6g}, but {len(k)} pairs of calls and "
        f"puts imply {told.zero:.6g}; check `forward=`, or leave it out"
    )


@dataclass(frozen=True, eq=False)
class _Line:
    """The line `y = slope * (zero - k)` through weighted points.

    Attributes:
        slope, zero: The discount factor and the forward.
        slope_variance: Variance of the slope; infinite where points do not tell it.
        center: Weighted mean of `k`, and `height` that of `y` there; None where the
            zero was given.
        weights: Of the points, in units of one over variance.
    """

    slope: float
    zero: float
    slope_variance: float
    center: float | None
    height: float
    weights: np.ndarray

    def with_slope(self, slope: float) -> "_Line":
        """The line of another slope through the same center, or the same zero."""
        if self.center is None:
            return replace(self, slope=slope)
        return replace(self, slope=slope, zero=self.center + self.height / slope)

    def zero_error(self, slope_error: float) -> float:
        """Standard error of the zero, from those of the height and the slope."""
        if self.center is None:
            return 0.0
        lever = (self.center - self.zero) * slope_error
        return float(np.hypot(self.weights.sum() ** -0.5, lever) / self.slope)


def _robust_line(
    k: np.ndarray,
    y: np.ndarray,
    s: np.ndarray,
    *,
    zero: float | None,
    slope: float | None,
    guessed_slope: float,
) -> _Line:
    """Tukey's biweight regression of `y` on `k` (increasing) with scales `s`.

    A zero or a slope that is given stays. `guessed_slope` is that of too few points.
    """
    known_zero, known_slope = zero is not None, slope is not None
    # Where to start: a line that a few bad points cannot move.
    if slope is None:
        enough = len(k) >= AGREEMENT.least_pairs_for_slope
        slope = _median_slope(k, y, s) if enough else guessed_slope
    origin = _weighted_median(k + y / slope, 1.0 / s) if zero is None else zero
    # The line is y = height - slope * x, with x counted from a strike near its zero.
    x, height = k - origin, 0.0
    reach = float(np.abs(x).max())
    # Few points agree by chance, so their scatter alone would flatter them.
    floor = deviation = max(AGREEMENT.least_deviation, 1.0 / max(len(k) - 1, 1))
    weights, mean, information = s, 0.0, 0.0
    for step in range(AGREEMENT.max_steps):
        scaled = np.abs(y - height + slope * x) / s
        if step < AGREEMENT.scale_steps:
            median = _weighted_median(scaled, 1.0 / s)
            deviation = max(AGREEMENT.mad_to_deviation * median, floor)
        bounded = np.minimum(scaled / (AGREEMENT.rejection * deviation), 1.0)
        weights = ((1.0 - bounded * bounded) / (deviation * s)) ** 2
        total = weights.sum()
        if not known_zero:
            mean = float(weights @ x / total)
        wx = weights * (x - mean)
        information = float(wx @ x)
        before = height, slope
        if not known_slope and information > 0.0:
            slope = -float(wx @ y) / information
        if not known_zero:
            height = float(weights @ y / total) + slope * mean
        change = abs(height - before[0]) + abs(slope - before[1]) * reach
        if change <= 1e-12 * max(k[-1], -k[0]):
            break
    variance = np.inf
    if known_slope:
        variance = 0.0
    elif information > 0.0:
        skew = AGREEMENT.shared_skew * float(np.abs(weights * (x - mean)) @ s)
        variance = 1.0 / information + (skew / information) ** 2
    return _Line(
        slope=float(slope),
        zero=float(origin + height / slope) if slope > 0.0 else np.nan,
        slope_variance=variance,
        center=None if known_zero else origin + mean,
        height=height - slope * mean,
        weights=weights,
    )


def _check_line(
    line: _Line,
    k: np.ndarray,
    residuals: np.ndarray,
    s: np.ndarray,
    *,
    signed: bool,
) -> None:
    """Raise unless the points lie about a line that a market could have.

    It may have a forward of zero or below, where strikes are, or where enough points
    tell the slope too: then all puts are worth more than their strikes.
    """
    low, high = AGREEMENT.discount_range
    if not low <= line.slope <= high:
        raise QuoteError(
            f"call minus put falls by {line.slope:.6g} per unit of strike over "
            f"{len(s)} pairs, which no discount factor does; check that prices and "
            "strikes are in one unit, and option types, or pass `forward=` and "
            "`discount_factor=`"
        )
    scatter = _weighted_median(np.abs(residuals), 1.0 / s)
    signed = signed or k[0] <= 0.0
    enough = len(k) >= AGREEMENT.least_pairs_for_slope
    sensible = signed or line.zero > 0.0 or enough
    unit = line.zero
    if signed or not line.zero > 0.0:
        unit = max(abs(line.zero), k[-1] - k[0])
    close = scatter <= AGREEMENT.worst_scatter * unit
    if not (np.isfinite(line.zero) and sensible and close):
        raise QuoteError(
            f"calls and puts agree on no forward: {len(s)} pairs give forward "
            f"{line.zero:.6g} and discount factor {line.slope:.6g}, with a median "
            f"deviation of {scatter:.3g}; check option types and expiries, or pass "
            "`forward=` and `discount_factor=`"
        )


def _notes(
    shrinkage: float, prior: RatePrior, rejected: np.ndarray, pairs: int
) -> tuple[str, ...]:
    """What a reader of a report should know."""
    notes = []
    if shrinkage > AGREEMENT.noted_shrinkage:
        notes.append(
            "the pairs hardly tell the discount factor: it rests by "
            f"{shrinkage:.0%} on {prior}; pass `discount_factor=` if you know it"
        )
    if len(rejected):
        shown = ", ".join(f"{strike:.10g}" for strike in rejected[:3])
        more = ", ..." if len(rejected) > 3 else ""
        notes.append(
            f"{len(rejected)} of {pairs} call-put pairs disagree with the forward and "
            f"were given no weight: strikes {shown}{more}"
        )
    return tuple(notes)


def _scale(
    call_bid: np.ndarray, call_ask: np.ndarray, put_bid: np.ndarray, put_ask: np.ndarray
) -> np.ndarray:
    """By how much each pair may be off: its two half-spreads, or 1 % of its mids."""
    mids = 0.5 * (call_bid + call_ask + put_bid + put_ask)
    scale = 0.5 * (call_ask - call_bid + put_ask - put_bid)
    if not (scale > 0.0).any():
        scale = 0.01 * mids
    # A locked market must not decide alone.
    low = float(np.partition(scale, len(scale) // 10)[len(scale) // 10])
    return np.maximum(scale, max(0.5 * low, 1e-12))


def _median_slope(k: np.ndarray, y: np.ndarray, s: np.ndarray) -> float:
    """Minus the weighted median slope of `y` on `k`, each pair with one half away."""
    half = len(k) // 2
    run = k[half:] - k[: len(k) - half]
    fall = y[: len(k) - half] - y[half:]
    weights = run / (s[half:] + s[: len(k) - half])
    return float(
        np.clip(_weighted_median(fall / run, weights), *AGREEMENT.discount_range)
    )


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    """The value that splits the weights in two halves."""
    order = np.argsort(values)
    cumulative = np.cumsum(weights[order])
    return float(values[order[np.searchsorted(cumulative, 0.5 * cumulative[-1])]])

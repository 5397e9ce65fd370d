r"""Portfolios that pay at least, or at most, what a payoff does, whatever happens.

The cheapest portfolio that dominates a payoff $f$ at every spot, bought at the ask and
sold at the bid, is a linear programme in its values $v_j$ at the kinks $x_j$ of payoff
and portfolio, between which both are straight:

$$
\text{minimise} \; D\,v(F) + \sum_i (\text{ask}_i q_i^+ - \text{bid}_i q_i^-)
\quad \text{subject to} \quad v_j \ge f(x_j), \; v'(\infty) \ge f'(\infty),
$$

since out-of-the-money options are worth nothing at the forward, where only cash and
forward are left. Its dual is a price system: probabilities of the spots $x_j$ with the
right forward, under which every option is worth something inside its spread, and the
payoff as much as possible. Super- and sub-replication cost together are the interval of
prices of the payoff that the quotes allow, whatever the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NoReturn

import numpy as np
import pandas as pd
from scipy.optimize import linprog
from scipy.sparse import csr_array, eye_array, hstack, vstack

from relu_options.arbitrage import least_excess
from relu_options.errors import ArbitrageError, FitError
from relu_options.payoffs import Payoff, SmoothPayoff
from relu_options.portfolio import StrikePortfolio
from relu_options.replication.instruments import Instruments

Side = Literal["super", "sub"]
TOLERANCES = {  # the smallest that HiGHS takes
    "primal_feasibility_tolerance": 1e-10,
    "dual_feasibility_tolerance": 1e-10,
}
_FAR = 16.0  # times the last strike: where a smooth payoff is taken as straight
_BETWEEN = 8  # tangents of a smooth payoff between neighbouring strikes


@dataclass(frozen=True, eq=False)
class DominatingHedge:
    """The cheapest portfolio above a payoff, or the dearest below it.

    Attributes:
        portfolio: The hedge; it dominates its target at every spot in `spots`.
        side: "super" or "sub".
        cost: Paid for a portfolio above, bought at the ask and sold at the bid;
            received for one below, sold at the bid: currency units today. The highest,
            or lowest, price of the payoff that leaves no arbitrage.
        spots: Lowest and highest spot at which it dominates.
        measure: The price system under which the payoff is worth `cost`, one row per
            spot: `spot` and `probability`. They add up to one, and to the forward
            together with `at_infinity`.
        at_infinity: Part of the forward that is due to spots beyond any bound.

    Examples:
        With options struck at 90 and 110 only, a straddle at 100 cannot be worth more
        than under the law that puts the spot far out.

        >>> import relu_options as ro
        >>> quotes = pd.DataFrame({"strike": [90.0, 100.0, 110.0],
        ...                        "option_type": ["put", "call", "call"],
        ...                        "bid": [0.9, 3.9, 0.8], "ask": [1.1, 4.1, 1.0]})
        >>> prepared = ro.prepare_quotes(quotes, forward=100.0, discount_factor=1.0,
        ...                              time_to_expiry=0.25)
        >>> hedge = ro.replicate(ro.payoffs.straddle(100.0), prepared, method="super",
        ...                      strikes=[90.0, 110.0])
        >>> hedge.portfolio
        StrikePortfolio(10 cash; 1 put 90, 1 call 110; costs 12.1)
        >>> round(float(hedge.reprice(np.array([110.0]), np.array([True]))[0]), 6)
        1.0
    """

    portfolio: StrikePortfolio
    side: Side
    cost: float
    spots: tuple[float, float]
    measure: pd.DataFrame
    at_infinity: float

    def reprice(self, strikes: np.ndarray, is_call: np.ndarray) -> np.ndarray:
        """Prices of options under the measure, in currency units paid today."""
        spots = self.measure["spot"].to_numpy()
        masses = self.measure["probability"].to_numpy()
        signs = np.where(is_call, 1.0, -1.0)
        options = np.maximum(signs * (spots[:, None] - strikes), 0.0)
        discount = self.portfolio.discount_factor
        return discount * (masses @ options + np.where(is_call, self.at_infinity, 0.0))


def dominate(
    payoff: Payoff | SmoothPayoff,
    instruments: Instruments,
    side: Side,
    *,
    spots: tuple[float, float] = (0.0, np.inf),
    max_quantity: float | None = None,
    trade_forward: bool = True,
) -> DominatingHedge:
    """The cheapest portfolio above a payoff, or the dearest below it.

    Args:
        payoff: A payoff; if it is smooth, then convex or concave.
        instruments: What may be held, with bids and asks.
        side: "super" for above, "sub" for below.
        spots: Lowest and highest spot at which it must dominate.
        max_quantity: Of any option, long or short; unlimited by default.
        trade_forward: Whether the forward may be held.

    Returns:
        The hedge with its dual measure.

    Raises:
        ValueError: If the request makes no sense, or no portfolio dominates: the payoff
            grows faster than what may be held. The message names side, slope, remedy.
        ArbitrageError: If the quotes admit an arbitrage, so that any cost is possible.
        FitError: If HiGHS fails.
    """
    if side not in ("super", "sub"):
        raise ValueError(f"side must be 'super' or 'sub', not {side!r}")
    low, high = spots
    if not 0.0 <= low < instruments.forward < high:
        raise ValueError(
            f"spots must go from 0 or more to beyond the forward "
            f"{instruments.forward:.10g}, not from {low} to {high}"
        )
    sign = 1.0 if side == "super" else -1.0
    envelope = envelope_of(payoff, instruments, side, spots)
    programme = programme_of(
        sign * envelope, instruments, low, high, max_quantity, trade_forward
    )
    result: Any = linprog(
        programme.cost,
        A_eq=programme.system,
        b_eq=np.zeros(programme.system.shape[0]),
        bounds=np.column_stack([programme.lower, programme.upper]),
        method="highs",
        options=TOLERANCES,
    )
    if result.status != 0:
        limited = max_quantity is not None or not trade_forward
        explain(result, sign * envelope, instruments, side, limited, spots)
    portfolio = programme.portfolio(result.x, sign, instruments, envelope, payoff)
    cost = portfolio.cost("ask" if side == "super" else "bid")
    nodes = programme.nodes
    marginals = np.maximum(result.lower.marginals[: 2 * len(nodes)], 0.0)
    masses, tail = marginals[: len(nodes)], marginals[-1] * instruments.forward
    held = masses > 0.0
    measure = pd.DataFrame({"spot": nodes[held], "probability": masses[held]})
    at_infinity = float(tail) if np.isinf(high) else 0.0
    return DominatingHedge(portfolio, side, cost, (low, high), measure, at_infinity)


@dataclass(frozen=True, eq=False)
class Programme:
    """The linear programme of the cheapest portfolio above a payoff.

    Its unknowns, `n` values at the nodes, `n` slopes to their right, and quantities of
    the `m` options bought and sold, are in units of the forward and of the largest
    value of the payoff.

    Attributes:
        cost: Of shape `(2 n + 2 m,)`.
        system: What must be zero, of shape `(2 n - 2, 2 n + 2 m)`.
        lower: Of shape `(2 n + 2 m,)`.
        upper: Likewise.
        nodes: Spots at which the portfolio may have a kink, of shape `(n,)`.
        quantity_unit: Options that an unknown of one stands for.
        spots: Lowest and highest spot at which it must dominate.
    """

    cost: np.ndarray
    system: Any
    lower: np.ndarray
    upper: np.ndarray
    nodes: np.ndarray
    quantity_unit: float
    spots: tuple[float, float]

    def portfolio(
        self,
        solution: np.ndarray,
        sign: float,
        instruments: Instruments,
        envelope: Payoff,
        target: Any,
        multiplier: float | None = None,
    ) -> StrikePortfolio:
        """The solution as a portfolio that dominates to the last digit.

        What rounding took away is given back in cash and forwards.

        Args:
            solution: Of the programme.
            sign: 1 for a portfolio above, -1 for one below.
            instruments: What is held.
            envelope: The piecewise-linear payoff to dominate.
            target: What it stands for.
            multiplier: Of whole contracts; None for any quantities.
        """
        count, options = len(self.nodes), len(instruments.strikes)
        bought, sold = solution[2 * count :].reshape(2, options)
        quantities = sign * self.quantity_unit * (bought - sold)
        if multiplier is None:
            multiplier = 1.0
            least = 1e-11 * np.abs(quantities).max(initial=0.0)
            quantities[np.abs(quantities) < least] = 0.0
        else:
            quantities = np.round(quantities / multiplier)
        # Cash and forwards by what is between the strikes around the forward.
        at = int(np.searchsorted(self.nodes, instruments.forward))
        forwards = sign * solution[count + at - 1] * self.quantity_unit
        forwards = 0.0 if abs(forwards) < 1e-12 * self.quantity_unit else forwards
        value = sign * solution[at] * self.quantity_unit * instruments.forward
        cash = value - forwards * instruments.forward
        held = instruments.portfolio(cash, forwards, quantities, target, multiplier)
        excess = sign * (held.payoff() - envelope)
        low, high = self.spots
        more = 0.0
        if np.isinf(high) and excess.right_slope < 0.0:
            rounding = np.finfo(float).eps * np.abs(excess.weights).sum()
            more = 4.0 * len(excess.weights) * rounding - float(excess.right_slope)
            excess = excess + Payoff(0, more, np.zeros(0), np.zeros(0))
            calls = np.flatnonzero(instruments.is_call & (quantities != 0.0))
            if len(calls) and multiplier == 1.0:  # more of the last call, if there is
                quantities[calls[-1]] += sign * more
                more = 0.0
        lift = max(-float(excess.bounds(low, high)[0]), 0.0)
        if lift > 0.0:
            size = abs(float(held.payoff().cash)) + instruments.forward
            lift += 8.0 * np.finfo(float).eps * size
        cash, forwards = cash + sign * lift, forwards + sign * more
        return instruments.portfolio(cash, forwards, quantities, target, multiplier)


def envelope_of(
    payoff: Any, instruments: Instruments, side: Side, spots: tuple[float, float]
) -> Payoff:
    """A piecewise-linear payoff above (or below) the given one, and near to it.

    Raises:
        ValueError: If there is none: the payoff has no bound, or a slope without one.
    """
    low, high = spots
    if isinstance(payoff, Payoff):
        return payoff
    if not isinstance(payoff, SmoothPayoff):
        raise ValueError(
            "domination needs a Payoff or a SmoothPayoff, not "
            f"{type(payoff).__name__}; use `payoffs.from_function(function, strikes)`"
        )
    edge = high if np.isfinite(high) else _FAR * instruments.strikes[-1]
    inner = instruments.strikes[
        (instruments.strikes > low) & (instruments.strikes < edge)
    ]
    nodes = np.union1d(np.append(inner, instruments.forward), [low, edge])
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.asarray(payoff(nodes), float)
        curvature = np.asarray(payoff.second_derivative(nodes[1:]), float)
    convex, concave = (curvature >= 0.0).all(), (curvature <= 0.0).all()
    if not (convex or concave):
        raise ValueError(
            f"{payoff.name} is neither convex nor concave, so its straight pieces "
            "do not bound it; use `payoff.piecewise_linear(strikes)`"
        )
    grows_up = values[0] == np.inf
    if not np.isfinite(values[0]) and grows_up == (side == "super"):
        raise ValueError(
            f"{payoff.name} has no {'upper' if grows_up else 'lower'} bound as the "
            f"spot falls to {low:.10g}: no portfolio {_above(side)} it; restrict "
            "the spots, as `spots=(lowest, highest)`"
        )
    chords = bool(convex) == (side == "super")
    last_slope = _last_slope(payoff, edge, high, side)
    if chords:
        line = payoff.piecewise_linear(nodes)
        turn = last_slope - line.right_slope
        return Payoff(
            line.cash,
            line.slope,
            np.append(line.strikes, nodes[-1]),
            np.append(line.weights, turn),
        )
    if nodes[0] == 0.0:
        nodes[0] = 1e-3 * nodes[1]
    share = np.arange(_BETWEEN) / _BETWEEN
    points = (nodes[:-1, None] + np.diff(nodes)[:, None] * share).ravel()
    return payoff.tangents(np.append(points, nodes[-1]))


def _last_slope(payoff: SmoothPayoff, edge: float, high: float, side: Side) -> float:
    """The slope at the highest spots; that at the edge where it has no bound.

    Raises:
        ValueError: If it has none on the side on which one is needed.
    """
    slope = float(payoff.derivative(edge))
    if np.isfinite(high):
        return slope
    far = float(payoff.derivative(1e12 * edge))
    further = float(payoff.derivative(1e15 * edge))
    unbounded = abs(further - far) > 1e-6 * max(abs(far), abs(slope))
    if not unbounded:
        return further
    if (further > far) == (side == "super"):
        raise ValueError(
            f"the slope of {payoff.name} has no bound at high spots ({far:.3g} at "
            f"{1e12 * edge:.3g}): no portfolio {_above(side)} it; restrict the "
            "spots, as `spots=(lowest, highest)`, or cap the payoff"
        )
    return slope


def _above(side: Side) -> str:
    return "pays at least" if side == "super" else "pays at most"


def programme_of(
    payoff: Payoff,
    instruments: Instruments,
    low: float,
    high: float,
    max_quantity: float | None = None,
    trade_forward: bool = True,
) -> Programme:
    """The programme for a piecewise-linear payoff; see `dominate` for its arguments."""
    unit = instruments.forward
    inside = payoff.strikes[(payoff.strikes > low) & (payoff.strikes < high)]
    ends = [low, high] if np.isfinite(high) else [low]
    nodes = np.union1d(
        np.concatenate([instruments.strikes, inside]), [instruments.forward, *ends]
    )
    nodes = nodes[(nodes >= low) & (nodes <= high)]
    target = np.asarray(payoff(nodes), float)
    scale = max(float(np.abs(target).max()), 1e-12)
    count, options = len(nodes), len(instruments.strikes)
    # Strikes outside of the spots are straight lines there: not held.
    usable = (instruments.strikes > low) & (instruments.strikes < high)
    x = nodes / unit
    # v[j + 1] - v[j] - s[j] (x[j + 1] - x[j]) = 0; s[j] is the slope right of node j.
    rows = np.arange(count - 1)
    widths = np.diff(x)
    values = csr_array(
        (
            np.concatenate([np.ones(count - 1), -np.ones(count - 1)]),
            (np.concatenate([rows, rows]), np.concatenate([rows + 1, rows])),
        ),
        shape=(count - 1, count),
    )
    slopes = csr_array((-widths, (rows, rows)), shape=(count - 1, count))
    empty = csr_array((count - 1, 2 * options))
    first = hstack([values, slopes, empty])
    # s[j] - s[j - 1] - q[j] = 0 at every node but the first.
    place = np.searchsorted(nodes, instruments.strikes[usable])
    legs = np.flatnonzero(usable)
    kinks = csr_array((np.ones(len(legs)), (place, legs)), shape=(count, options))
    steps = csr_array(eye_array(count) - eye_array(count, k=-1))[1:]
    second = hstack([csr_array((count - 1, count)), steps, -kinks[1:], kinks[1:]])
    system = csr_array(vstack([first, second]))
    at_forward = int(np.searchsorted(nodes, instruments.forward))
    discount = instruments.discount_factor
    prices = np.concatenate([instruments.ask, -instruments.bid])
    cost = np.zeros(2 * count + 2 * options)
    cost[at_forward] = 1.0
    cost[2 * count :] = prices / (discount * unit)
    lower = np.concatenate([target / scale, np.full(count, -np.inf)])
    upper = np.full(2 * count, np.inf)
    if np.isinf(high):
        lower[-1] = float(payoff.right_slope) * unit / scale
    if not trade_forward:
        lower[count + at_forward - 1] = upper[count + at_forward - 1] = 0.0
    most = np.inf if max_quantity is None else max_quantity * unit / scale
    most = np.where(np.tile(usable, 2), most, 0.0)
    lower = np.concatenate([lower, np.zeros(2 * options)])
    upper = np.concatenate([upper, most])
    return Programme(cost, system, lower, upper, nodes, scale / unit, (low, high))


def explain(
    result: Any,
    payoff: Payoff,
    instruments: Instruments,
    side: Side,
    limited: bool,
    spots: tuple[float, float],
) -> NoReturn:
    """Raise what a programme without a solution means to the user.

    Args:
        result: Of HiGHS.
        payoff: What was to be dominated from above.
        instruments: What could be held.
        side: Of the request.
        limited: Whether quantities or the forward are.
        spots: Lowest and highest spot at which to dominate.
    """
    listed = instruments.as_listed
    found = least_excess(
        strike=listed["strike"],
        bid=listed["bid"],
        ask=listed["ask"],
        is_call=listed["is_call"],
        forward=instruments.forward,
        discount_factor=instruments.discount_factor,
    )
    unbounded = result.status == 3
    if not found.is_arbitrage_free and (unbounded or not limited):
        raise ArbitrageError(
            f"{found.describe()}; leave these out of `strikes=`, or replicate on a "
            "curve fitted to the quotes, `fit_curve(quotes)`, which admits none"
        )
    if limited and result.status in (2, 4):
        sign = 1.0 if side == "super" else -1.0
        raise ValueError(
            f"no portfolio within the limits {_above(side)} the payoff: its slope is "
            f"{sign * float(payoff.right_slope):.6g} at high spots, to be met by "
            f"{int(instruments.is_call.sum())} listed calls, and "
            f"{sign * float(payoff.left_slope):.6g} at low spots, to be met by "
            f"{int((~instruments.is_call).sum())} puts; raise `max_quantity`, allow "
            "the forward, or restrict `spots`"
        )
    low, high = spots
    reason, proved = _contradiction(instruments, low, high)
    if (proved or unbounded) and (low > 0.0 or high < np.inf):
        raise ArbitrageError(reason)
    raise FitError(
        f"HiGHS stopped with status {result.status}: {result.message}; check the "
        "quotes for outliers"
    )


def _contradiction(
    instruments: Instruments, low: float, high: float
) -> tuple[str, bool]:
    """Why quotes cannot be if no spot is outside of two bounds, and what to do.

    It is proved where one bid alone is above what its option can be worth.

    A mean of convex payoffs is at most that of the two bounds alone.
    """
    forward, strikes = instruments.forward, instruments.strikes
    beyond = np.isinf(high)
    chance = 0.0 if beyond else (forward - low) / (high - low)
    far = np.where(instruments.is_call, forward - low, 0.0) if beyond else 0.0
    signs = np.where(instruments.is_call, 1.0, -1.0)
    ends = [
        np.maximum(signs * (spot - strikes), 0.0)
        for spot in (low, forward if beyond else high)
    ]
    most = (1.0 - chance) * ends[0] + chance * ends[1] + far
    most = instruments.discount_factor * most
    excess = instruments.bid - most
    text = (
        f"the quotes contradict spots from {low:.10g} to {high:.10g}: between these "
        "they admit an arbitrage, so that any cost is possible"
    )
    worst = int(np.argmax(excess))
    if excess[worst] > 0.0:
        kind = "call" if instruments.is_call[worst] else "put"
        text += (
            f"; the {kind} {strikes[worst]:.10g} is bid {instruments.bid[worst]:.6g} "
            f"and worth {most[worst]:.6g} at most, likewise "
            f"{np.count_nonzero(excess > 0.0) - 1} more"
        )
    return f"{text}; widen `spots`", bool(excess[worst] > 0.0)

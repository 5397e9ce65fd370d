r"""Learn a portfolio from simulated or observed values of a claim.

A claim that depends on the spot at a horizon alone has, at that horizon, a value that
is a function of the spot. A one-layer network fitted to it is a portfolio of options
that expire there: a semi-static hedge (Lokeshwar, Bharadwaj and Jain, 2022). Strikes
are chosen by the dynamic programme among quantiles of the data, and then moved along
the gradient, the weights being, for any strikes, those of the regression.

References:
    Lokeshwar, V., Bharadwaj, V. and Jain, S. (2022). Explainable neural network for
    pricing and universal static hedging of contingent claims. *Applied Mathematics and
    Computation*, 417, 126775.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import ArrayLike

from relu_options.payoffs import Payoff
from relu_options.replication.few_strikes import best_strikes
from relu_options.replication.pieces import Regression
from relu_options.replication.spot_law import SpotLaw

_CANDIDATES = 200
_STEPS = 60


@dataclass(frozen=True, eq=False)
class PayoffFit:
    """A payoff learned from data.

    Attributes:
        payoff: The network, as a payoff: strikes and quantities.
        rms_error: Root mean square of values minus payoff on the data.
        lower_bound: What it is not below with as many strikes at the candidates; moving
            the strikes can go below it.

    Examples:
        >>> fit = fit_payoff([80.0, 90.0, 100.0, 110.0, 120.0],
        ...                  [0.0, 0.0, 0.0, 10.0, 20.0], max_legs=1)
        >>> fit.rms_error < 1e-6
        True
    """

    payoff: Payoff
    rms_error: float
    lower_bound: float


def fit_payoff(
    spots: ArrayLike,
    values: ArrayLike,
    *,
    max_legs: int = 8,
    strikes: ArrayLike | None = None,
    learn_strikes: bool = True,
) -> PayoffFit:
    """Fit a ReLU network to values of a claim by the spot.

    Args:
        spots: Shape `(m,)`, positive, in currency units, in any order.
        values: Shape `(m,)`, in currency units; noise is averaged by the regression.
        max_legs: Number of strikes at most.
        strikes: Candidates, such as those listed; by default 200 quantiles of the data.
        learn_strikes: Whether to move the strikes from the candidates, by gradient;
            never with `strikes` given.

    Returns:
        The payoff with its error.

    Raises:
        ValueError: If shapes differ, numbers are not finite or there are fewer than
            three different spots, or `max_legs` is not positive.

    Examples:
        What a straddle is worth a quarter before its expiry, in four options.

        >>> import relu_options as ro
        >>> spots = np.linspace(70.0, 130.0, 121)
        >>> terms = dict(spot=spots, strike=100.0, time_to_expiry=0.25, volatility=0.2)
        >>> values = sum(ro.black_scholes.price(**terms, is_call=one)
        ...              for one in (True, False))
        >>> fit = fit_payoff(spots, values, max_legs=4)
        >>> len(fit.payoff.strikes), fit.rms_error < 0.15
        (4, True)
    """
    x, y = np.asarray(spots, float), np.asarray(values, float)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"spots and values have shapes {x.shape} and {y.shape}")
    if not (np.isfinite(x) & np.isfinite(y)).all() or len(np.unique(x)) < 3:
        raise ValueError(
            "a fit needs three different spots, and finite values; drop the others"
        )
    if max_legs < 1:
        raise ValueError(f"max_legs must be positive, not {max_legs}")
    order = np.argsort(x)
    x, y = x[order], y[order]
    if strikes is None:
        candidates = np.quantile(np.unique(x), np.linspace(0.0, 1.0, _CANDIDATES + 2))
    else:
        candidates = np.asarray(strikes, float)
    candidates = np.unique(candidates)
    candidates = candidates[(candidates > x[0]) & (candidates < x[-1])]
    if not len(candidates):
        raise ValueError(
            f"no candidate strike is between the spots {x[0]:.6g} and {x[-1]:.6g}"
        )
    law = SpotLaw(x, np.full(len(x), 1.0 / len(x)))
    regression = Regression.of(law, y, candidates)
    chosen, bound = best_strikes(regression, min(max_legs, len(candidates)))
    kinks = candidates[chosen]
    if learn_strikes and strikes is None:
        kinks = _moved(x, y, kinks)
    payoff, error = _regress(x, y, kinks)
    return PayoffFit(payoff, error, float(np.sqrt(bound)))


def _regress(x: np.ndarray, y: np.ndarray, kinks: np.ndarray) -> tuple[Payoff, float]:
    """The best payoff with given strikes, and its error."""
    centre = float(x.mean())
    calls = np.maximum(x[:, None] - kinks, 0.0)
    design = np.column_stack([np.ones_like(x), x - centre, calls])
    solution = np.linalg.lstsq(design, y, rcond=None)[0]
    payoff = Payoff(
        solution[0] - solution[1] * centre, solution[1], kinks, solution[2:]
    )
    return payoff, float(np.sqrt(np.mean((y - design @ solution) ** 2)))


def _moved(x: np.ndarray, y: np.ndarray, kinks: np.ndarray) -> np.ndarray:
    """Strikes moved along the gradient, or as they were where that is better."""
    centre, scale = float(x.mean()), float(x.std())
    moved = _descend((x - centre) / scale, y, (kinks - centre) / scale)
    moved = np.sort(centre + scale * np.asarray(moved))
    inside = (moved > x[0]) & (moved < x[-1])
    distinct = (np.diff(moved) > 0.0).all()
    if (
        inside.all()
        and distinct
        and _regress(x, y, moved)[1] < _regress(x, y, kinks)[1]
    ):
        return moved
    return kinks


@jax.jit
def _descend(x: jax.Array, y: jax.Array, kinks: jax.Array) -> jax.Array:
    """Minimise the error of the regression in the strikes by quasi-Newton steps."""
    spread = jnp.maximum(jnp.var(y), 1e-300)

    def loss(kinks):
        calls = jax.nn.relu(x[:, None] - kinks)
        design = jnp.concatenate([jnp.ones((x.size, 1)), x[:, None], calls], axis=1)
        gram = design.T @ design + 1e-10 * jnp.eye(design.shape[1])
        weights = jnp.linalg.solve(gram, design.T @ y)
        return jnp.mean((y - design @ weights) ** 2) / spread

    solver = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(loss)

    def step(carry, _):
        kinks, state = carry
        value, gradient = value_and_grad(kinks, state=state)
        update, state = solver.update(
            gradient, state, kinks, value=value, grad=gradient, value_fn=loss
        )
        return (kinks + update, state), None

    start = (kinks, solver.init(kinks))
    (kinks, _), _ = jax.lax.scan(step, start, length=_STEPS)
    return kinks

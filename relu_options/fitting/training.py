r"""Training by gradient: one compiled loop for curves, surfaces and layered networks.

What is trained is a *model*, a pure function from parameters to fitted values,

$$
\min_\theta \; \frac{\sum_i \omega_i \, \ell(\hat y_i(\theta), \text{row}_i)}
{\sum_i \omega_i},
$$

by any optimiser of optax, in batches or on all rows. Steps are one `lax.scan`, mapped
over restarts. Every few steps the loss on rows held out, or on all rows if none are, is
looked at: the parameters kept are the best seen, the starting ones among them, so that
training never ends worse than it began.

References:
    Kingma, D. and Ba, J. (2015). Adam: a method for stochastic optimization. *ICLR*.

    Prechelt, L. (1998). Early stopping - but when? *Neural Networks: Tricks of the
    Trade*, 55-69.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd

from relu_options.curves import FitReport
from relu_options.errors import FitError
from relu_options.fitting.compiled import compiled
from relu_options.progress import progress_bar

if TYPE_CHECKING:
    from matplotlib.axes import Axes


Model = Callable[..., jax.Array]
"""From `(parameters, context, rows, weight, progress)` to fitted values `(m,)`."""

RowLoss = Callable[[jax.Array, Any], jax.Array]
"""From fitted values `(m,)` and the rows to what each row is charged, `(m,)`."""


@dataclass(frozen=True)
class TrainingOptions:
    """How a network is trained.

    Attributes:
        steps: Gradient steps.
        learning_rate: Of Adam, falling to zero along a cosine; None for the default of
            what is trained.
        optimizer: Any of optax, with its own schedule, in the place of Adam; those that
            search along a line, such as `optax.lbfgs()`, are given the loss.
        loss: Of prices: `"auto"` (squared residuals in half-spreads, or of mids in
            volatility: what the convex fit minimises), `"volatility"`, `"price"` or
            `"inside"` (squared distance outside nine tenths of the spread). Of other
            values: `"auto"`, squared residuals. Or a function of the fitted values and
            the rows that returns what each row is charged.
        weights: How the output weights of a price network are found: `"projected"`, by
            the convex programme for every position of the kinks, or `"learned"`, by
            gradient too; `"auto"` is the first for a curve and the second for a
            surface, where it is the only one.
        batch_size: Rows of each step, drawn anew; None for all.
        held_out: Share of the rows that are not trained on, but judge.
        patience: Looks without improvement after which to stop; None never to.
        look_every: Steps between looks.
        restarts: Trainings from different starting points, side by side.
        seed: Of everything drawn.
        progress: Whether to show a bar; by default for long jobs. See
            `relu_options.progress`.

    Raises:
        ValueError: If a number is out of range or a name unknown.

    Examples:
        >>> TrainingOptions(steps=100, held_out=0.2, patience=3).look_every
        25
        >>> TrainingOptions(held_out=1.5)
        Traceback (most recent call last):
            ...
        ValueError: held_out must be a share from 0 to 0.9, not 1.5
    """

    steps: int = 500
    learning_rate: float | None = None
    optimizer: optax.GradientTransformation | None = None
    loss: str | RowLoss = "auto"
    weights: Literal["auto", "projected", "learned"] = "auto"
    batch_size: int | None = None
    held_out: float = 0.0
    patience: int | None = None
    look_every: int = 25
    restarts: int = 1
    seed: int = 0
    progress: bool | None = None

    def __post_init__(self):
        counts = {name: getattr(self, name) for name in ("look_every", "restarts")}
        for name in ("batch_size", "patience"):
            if getattr(self, name) is not None:
                counts[name] = getattr(self, name)
        for name, value in {"steps": self.steps, **counts}.items():
            if not isinstance(value, int | np.integer) or value < 1:
                raise ValueError(
                    f"{name} must be a whole number from 1 on, not {value!r}"
                )
        if not 0.0 <= self.held_out <= 0.9:
            raise ValueError(
                f"held_out must be a share from 0 to 0.9, not {self.held_out!r}"
            )
        if self.learning_rate is not None and not 0.0 < self.learning_rate < np.inf:
            raise ValueError(
                f"learning_rate must be positive, not {self.learning_rate!r}"
            )
        if self.weights not in ("auto", "projected", "learned"):
            raise ValueError(
                "weights must be 'auto', 'projected' or 'learned', not "
                f"{self.weights!r}"
            )
        if not callable(self.loss) and not isinstance(self.loss, str):
            raise ValueError(f"loss must be a name or a function, not {self.loss!r}")


@dataclass(frozen=True, eq=False)
class TrainingHistory:
    """How a training went.

    Attributes:
        steps: Of the looks, of shape `(k + 1,)`; the first is 0, before any step.
        training: Mean loss of the steps before each look, of shape `(restarts, k + 1)`;
            NaN at the first.
        judged: Loss on the rows that judge, likewise: those held out, or all.
        held_out: Number of rows held out.
        restart: Which restart was kept.
        step: At which step its parameters were kept.
        stopped_early: Whether steps were left when no look had improved for long.

    Examples:
        >>> history = TrainingHistory(np.array([0, 25]), np.array([[np.nan, 2.0]]),
        ...                           np.array([[3.0, 1.0]]), 0, 0, 25, False)
        >>> history.loss, history.to_frame()["judged"].tolist()
        (1.0, [3.0, 1.0])
    """

    steps: np.ndarray = field(repr=False)
    training: np.ndarray = field(repr=False)
    judged: np.ndarray = field(repr=False)
    held_out: int
    restart: int
    step: int
    stopped_early: bool

    @property
    def loss(self) -> float:
        """The loss of the parameters kept, on the rows that judge."""
        return float(np.nanmin(self.judged))

    def to_frame(self) -> pd.DataFrame:
        """One row for each restart and look: `training` and `judged` losses."""
        restarts, looks = self.judged.shape
        return pd.DataFrame(
            {
                "restart": np.repeat(np.arange(restarts), looks),
                "step": np.tile(self.steps, restarts),
                "training": self.training.reshape(-1),
                "judged": self.judged.reshape(-1),
            }
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the losses by step; returns the Axes."""
        from relu_options.plotting import plot_training

        return plot_training(self, ax)


@dataclass(frozen=True, eq=False)
class TrainingReport(FitReport):
    """How a curve was trained, and on which quotes.

    Attributes:
        history: Of the training. `steps` counts gradient steps, `gap` is that of the
            last convex programme (NaN if there was none) and `objective` the loss.

    Examples:
        >>> import relu_options as ro
        >>> from relu_options.fitting.training import TrainingOptions
        >>> chain = ro.bundled_chain()
        >>> curve = ro.fit_curve(chain[chain.slices[2]], method="gradient", kinks=12,
        ...                      training=TrainingOptions(steps=50))
        >>> bool(curve.fit.history.judged[0, 0] > curve.fit.history.loss)
        True
    """

    history: TrainingHistory

    def plot_history(self, ax: Axes | None = None) -> Axes:
        """Draw the losses by step; returns the Axes."""
        return self.history.plot(ax)


def train(
    model: Model,
    row_loss: RowLoss,
    starts: Any,
    *,
    context: Any,
    rows: Any,
    weight: np.ndarray,
    options: TrainingOptions,
    learning_rate: float = 0.01,
    description: str = "training",
) -> tuple[Any, TrainingHistory]:
    """Minimise the weighted mean loss of the rows over the parameters of a model.

    Args:
        model: Fitted values, from parameters, context, rows, the weights of the rows
            that it may learn from, and the share of the steps taken.
        row_loss: What each row is charged.
        starts: Parameters to start from, a pytree with a leading axis of restarts.
        context: What else the model needs, a pytree.
        rows: A pytree with a leading axis of length `m`.
        weight: How much each row counts, of shape `(m,)`; zero for padding.
        options: How to train.
        learning_rate: Of Adam where the options say none.
        description: Of the progress bar.

    Returns:
        The best parameters seen, of the best restart, and the history.

    Raises:
        FitError: If no loss is finite.
        ValueError: If rows are too few to hold some out, or for the batch.

    Examples:
        The mean is what least squares learns.

        >>> def constant(parameters, context, rows, weight, progress):
        ...     return jnp.full(rows.shape, parameters)
        >>> def squared(fitted, rows):
        ...     return (fitted - rows) ** 2
        >>> mean, history = train(constant, squared, jnp.zeros(1), context=None,
        ...                       rows=jnp.array([1.0, 2.0, 6.0]), weight=np.ones(3),
        ...                       options=TrainingOptions(steps=600), learning_rate=0.1)
        >>> round(float(mean), 3), round(history.loss, 3)
        (3.0, 4.667)
    """
    learned, judges, count = _split(np.asarray(weight, float), options)
    begin, advance, look, keep = _programs(model, row_loss, options, learning_rate)
    data = context, rows, learned, judges
    keys = jax.random.split(jax.random.key(options.seed), options.restarts)
    states = begin(starts)
    best, least = starts, np.asarray(look(starts, *data))
    first = np.full(least.shape, np.nan)
    steps, training, judged = [0], [first], [least]
    kept = np.zeros(options.restarts, int)
    idle = 0
    with progress_bar(description, options.steps, options.progress) as bar:
        while steps[-1] < options.steps and idle != options.patience:
            states, mean = advance(
                states, keys, context, rows, learned, steps[-1], options.steps
            )
            loss = np.asarray(look(states[0], *data))
            better = (loss < least) | (np.isnan(least) & np.isfinite(loss))
            best, least = keep(better, states[0], best), np.where(better, loss, least)
            taken = min(options.look_every, options.steps - steps[-1])
            steps.append(steps[-1] + taken)
            training.append(np.asarray(mean))
            judged.append(loss)
            kept[better] = steps[-1]
            idle = 0 if better.any() else idle + 1
            bar.update(taken)
            bar.set_postfix_str(f"loss={np.min(least):.4g}", refresh=False)
    if not np.isfinite(least).any():
        raise FitError(
            f"the loss is not finite in any of {options.restarts} restarts, from step "
            "0 on; check the starting point and the loss"
        )
    chosen = int(np.nanargmin(least))
    history = TrainingHistory(
        steps=np.array(steps),
        training=np.stack(training, axis=1),
        judged=np.stack(judged, axis=1),
        held_out=count,
        restart=chosen,
        step=int(kept[chosen]),
        stopped_early=steps[-1] < options.steps,
    )
    return jax.tree.map(lambda each: each[chosen], best), history


def _programs(
    model: Model, row_loss: RowLoss, options: TrainingOptions, learning_rate: float
) -> tuple[Callable[..., Any], ...]:
    """What is compiled: to begin, to advance, to look, and to keep the better."""
    optimizer = options.optimizer
    if optimizer is None:
        rate = options.learning_rate or learning_rate
        optimizer = adam(rate, options.steps)
    static = {"model": model, "row_loss": row_loss}
    advance = compiled(
        _advance,
        **static,
        optimizer=optimizer,
        batch_size=options.batch_size,
        length=options.look_every,
    )
    begin = compiled(_begin, optimizer=optimizer)
    return begin, advance, compiled(_look, **static), compiled(_keep)


@cache
def adam(learning_rate: float, steps: int) -> optax.GradientTransformation:
    """Adam with a rate that falls to zero along a cosine; one object, compiled once."""
    return optax.adam(optax.cosine_decay_schedule(learning_rate, steps))


def squared_residual(fitted: jax.Array, rows: Any) -> jax.Array:
    """The loss of rows that have a `target`."""
    return (fitted - rows["target"]) ** 2


def learned_rows(weight: np.ndarray, options: TrainingOptions) -> np.ndarray:
    """The weights of the rows, with zero for those that `train` holds out."""
    return _split(np.asarray(weight, float), options)[0]


def _split(weight: np.ndarray, options: TrainingOptions):
    """Weights of the rows that are learned from and that judge, and how many judge."""
    counted = np.flatnonzero(weight > 0.0)
    if not options.held_out:
        learned, judges, count = weight, weight, 0
    else:
        count = max(round(options.held_out * counted.size), 1)
        if counted.size - count < 2:
            raise ValueError(
                f"{count} of {counted.size} rows held out leave fewer than two; lower "
                "`held_out`"
            )
        drawn = np.random.default_rng(options.seed).permutation(counted)[:count]
        learned, judges = weight.copy(), np.zeros_like(weight)
        learned[drawn], judges[drawn] = 0.0, weight[drawn]
    left = counted.size - count
    if options.batch_size is not None and options.batch_size > left:
        raise ValueError(
            f"batch_size is {options.batch_size}, of {left} rows to learn from"
        )
    return learned, judges, count


def _begin(starts, *, optimizer):
    """Parameters, with the state of the optimiser of each restart."""
    return starts, jax.vmap(optimizer.init)(starts)


def _loss(
    parameters, context, rows, learned, judges, progress, *, model, row_loss
) -> jax.Array:
    fitted = model(parameters, context, rows, learned, progress)
    charged = jnp.where(judges > 0.0, row_loss(fitted, rows), 0.0)
    return judges @ charged / judges.sum()


def _look(parameters, context, rows, learned, judges, *, model, row_loss):
    """The loss on the rows that judge, of every restart."""
    judge = partial(_loss, model=model, row_loss=row_loss)
    terms = context, rows, learned, judges, 1.0
    return jax.vmap(lambda one: judge(one, *terms))(parameters)


def _advance(
    states,
    keys,
    context,
    rows,
    learned,
    taken,
    total,
    *,
    model,
    row_loss,
    optimizer,
    batch_size,
    length,
):
    """Some steps of every restart, and their mean loss; none beyond the total."""
    loss = partial(_loss, model=model, row_loss=row_loss)
    update = optax.with_extra_args_support(optimizer).update

    def one(state, key):
        def step(state, place):
            parameters, memory = state
            batch, weight = rows, learned
            if batch_size is not None:
                chosen = jax.random.choice(
                    jax.random.fold_in(key, place),
                    learned.shape[0],
                    (batch_size,),
                    replace=False,
                    p=(learned > 0.0) / jnp.sum(learned > 0.0),
                )
                batch = jax.tree.map(lambda each: each[chosen], rows)
                weight = learned[chosen]

            def value(parameters):
                return loss(parameters, context, batch, weight, weight, place / total)

            charged, gradient = jax.value_and_grad(value)(parameters)
            change, memory = update(
                gradient,
                memory,
                parameters,
                value=charged,
                grad=gradient,
                value_fn=value,
            )
            moved = optax.apply_updates(parameters, change), memory
            going = place < total
            state = jax.tree.map(partial(jnp.where, going), moved, state)
            return state, jnp.where(going, charged, jnp.nan)

        state, charged = jax.lax.scan(step, state, taken + jnp.arange(length))
        return state, jnp.nanmean(charged)

    return jax.vmap(one)(states, keys)


def _keep(better, new, old):
    """The new parameters of the restarts that are better, else the old ones."""
    return jax.tree.map(lambda *each: jax.vmap(jnp.where)(better, *each), new, old)

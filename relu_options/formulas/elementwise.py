"""Call a compiled formula with numbers, arrays, JAX arrays or pandas Series.

A formula is written for arrays of one shape. Here its arguments become the rows of a
table of one of a few lengths, so that a new length compiles nothing new and one array
is handed over instead of many; longer arguments go through it piece by piece. The
result is given back as what came in: a float for numbers, a Series with its index for
Series, a JAX array for JAX arrays, otherwise a NumPy array.

A single option has a table of its own. XLA computes so little at once; what is longer
it hands to another thread, which takes longer than the formula.
"""

import functools
import math
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.core import Tracer

ArrayLike: TypeAlias = npt.ArrayLike | jax.Array
"""What converts to an array: a number, a sequence, an array or a Series."""

Numeric: TypeAlias = Any
"""A float, `numpy.ndarray`, `jax.Array` or `pandas.Series`, as the arguments are."""

BUCKETS = (16, 64, 256, 1024, 4096, 16384, 65536)
"""Lengths that arrays are padded to; longer ones go piece by piece."""

PIECES = (16, 256)
"""Lengths of pieces of what meets every kink of a network: see `by_pieces`."""

_WIDE_VECTORS = {"xla_cpu_prefer_vector_width": 512}


@functools.cache
def compiler_options() -> dict[str, int] | None:
    """The options under which formulas compile, or None where XLA knows them not.

    XLA's CPU compiler uses half of an AVX-512 register unless told otherwise.
    """
    if jax.default_backend() != "cpu":
        return None
    try:
        jax.jit(jnp.negative, compiler_options=_WIDE_VECTORS).lower(1.0).compile()
    except jax.errors.JaxRuntimeError:
        return None
    return _WIDE_VECTORS


class Shortcut(NamedTuple):
    """A faster form of a formula, for numbers but not for derivatives.

    Attributes:
        kernel: Function of the formula's arguments.
        unpack: Function from the kernel's result, of NumPy arrays, and the rows that
            it was computed from, to the formula's result.
        unfinished: Mask of the rows, by the unpacked result, that are to be asked of
            the formula itself.
    """

    kernel: Callable
    unpack: Callable
    unfinished: Callable


def elementwise(formula: Callable, shortcut: Shortcut | None = None) -> Callable:
    """Wrap `formula`, of arrays of one shape, to take anything that broadcasts.

    Args:
        formula: Pure function of positional arrays of one shape, float64 or boolean.
            It returns an array of that shape or a named tuple of them, of one type.
        shortcut: What to evaluate in its place outside JAX transformations.

    Returns:
        A function of the same arguments, each a number, an array, a JAX array or a
        Series. Under a JAX transformation it is `formula` itself, compiled.
    """
    evaluate = _evaluator(formula, shortcut)
    traceable = jax.jit(formula)

    @functools.wraps(formula)
    def call(*arguments: Any) -> Any:
        types = tuple(map(type, arguments))
        if _NUMBERS.issuperset(types):
            flags = tuple([each in _FLAGS for each in types])
            return _each(evaluate(arguments, flags, 1), np.ndarray.item)
        plain = _PLAIN.issuperset(types)
        if not plain and any(map(_stays_in_jax, arguments)):
            return traceable(*jnp.broadcast_arrays(*map(_as_jax, arguments)))
        arrays = [np.asarray(argument) for argument in arguments]
        shape = _broadcast_shape(arrays)
        restore = restorer(() if plain else arguments, shape)
        columns = [x.item() if x.size == 1 else _flattened(x, shape) for x in arrays]
        flags = tuple([array.dtype.char == "?" for array in arrays])
        return _each(evaluate(columns, flags, math.prod(shape)), restore)

    return call


def _evaluator(formula: Callable, shortcut: Shortcut | None) -> Callable:
    """`formula` of flat arrays and numbers, by its shortcut as far as that reaches."""
    compiled = functools.cache(_compile)

    def evaluate(columns: Sequence[Any], flags: tuple[bool, ...], size: int) -> Any:
        """Results for flat arrays of `size`, and numbers that hold for all of it."""
        if shortcut is None:
            return _evaluate(compiled(formula, flags), columns, size)
        kernel = compiled(shortcut.kernel, flags)
        result = _evaluate(kernel, columns, size, shortcut.unpack)
        left = shortcut.unfinished(result)
        if left.any():
            count = int(left.sum())
            which = left if count > 1 else left.argmax()  # a single one is a number
            rows = [x[which] if isinstance(x, np.ndarray) else x for x in columns]
            rest = _evaluate(compiled(formula, flags), rows, count)
            for values, others in zip(_parts(result), _parts(rest), strict=True):
                values[left] = others
        return result

    return evaluate


_FLAGS = frozenset({bool, np.bool_})
_NUMBERS = _FLAGS | {float, int, np.float64}
"""Types of single numbers."""

_PLAIN = _NUMBERS | {np.ndarray}
"""Types of which nothing need be asked before they become NumPy arrays."""


def _compile(formula: Callable, flags: tuple[bool, ...]) -> Callable:
    """`formula` of a table's rows; `flags` says which of them are boolean."""

    def kernel(table):
        rows = zip(table, flags, strict=True)
        return formula(*(row != 0.0 if flag else row for row, flag in rows))

    return jax.jit(kernel, compiler_options=compiler_options())


def _parts(result: Any) -> tuple[np.ndarray, ...]:
    """The arrays of a result: its own only, or those of a named tuple."""
    return result if isinstance(result, tuple) else (result,)


def _each(result: Any, function: Callable) -> Any:
    """Apply `function` to an array, or to each of a named tuple of arrays."""
    if isinstance(result, tuple):
        return type(result)(*map(function, result))
    return function(result)


def _as_numpy(array: jax.Array | None) -> np.ndarray | None:
    return None if array is None else np.asarray(array)


def boolean(argument: Any, name: str) -> Any:
    """Return `argument`, after checking that it is True or False everywhere.

    Raises:
        ValueError: If it is not boolean. A flag of 1 and -1, or of words, would
            otherwise count as True throughout.
    """
    if isinstance(argument, bool):
        return argument
    kept = argument if hasattr(argument, "dtype") else np.asarray(argument)
    if kept.dtype != bool:
        raise ValueError(
            f"`{name}` must be boolean, got {kept.dtype}; for a column of words pass "
            '`option_type == "call"`, for a sign pass `sign > 0`'
        )
    return kept


def _as_jax(argument: Any) -> jax.Array:
    """A float64 or boolean JAX array."""
    array = jnp.asarray(argument)
    return array if array.dtype == bool else array.astype(jnp.float64)


def _broadcast_shape(arrays: list[np.ndarray]) -> tuple[int, ...]:
    shapes = {array.shape for array in arrays} - {()}
    if len(shapes) == 1:
        return shapes.pop()
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError as error:
        shown = " and ".join(map(str, sorted(shapes)))
        raise ValueError(
            f"arguments of shapes {shown} do not go together; give numbers, or arrays "
            "of one shape"
        ) from error


def _stays_in_jax(argument: Any) -> bool:
    """Whether `argument` is traced, or lives on another device than the host."""
    if isinstance(argument, Tracer):
        return True
    return isinstance(argument, jax.Array) and any(
        device.platform != "cpu" for device in argument.devices()
    )


def _is_series(argument: Any) -> bool:
    """Whether `argument` is a pandas Series; pandas is not imported to find out."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(argument, pandas.Series)


def restorer(arguments: tuple, shape: tuple[int, ...]) -> Callable[[np.ndarray], Any]:
    """The function that turns a flat array of results into what the caller uses."""
    series = [argument for argument in arguments if _is_series(argument)]
    if series:
        index = series[0].index
        for other in series[1:]:
            if not index.equals(other.index):
                raise ValueError(
                    "Series arguments have different indices; align them first, for "
                    "instance as columns of one DataFrame"
                )
        if shape != (len(index),):
            raise ValueError(
                f"Series of length {len(index)} with arguments that broadcast to shape "
                f"{shape}; pass numbers or Series of the same index"
            )
        return lambda flat: type(series[0])(flat, index=index)
    if any(isinstance(argument, jax.Array) for argument in arguments):
        return lambda flat: jnp.asarray(flat.reshape(shape))
    if shape:
        return lambda flat: flat.reshape(shape)
    return lambda flat: flat.item()


def _evaluate(
    kernel: Callable,
    columns: Sequence[Any],
    size: int,
    unpack: Callable | None = None,
) -> Any:
    """Results of a compiled kernel for flat arrays of `size`, and numbers."""

    def results() -> Any:
        result = _each(kernel(table), _as_numpy)
        return result if unpack is None else unpack(result, table)

    if size == 1:
        table = _tables.empty(len(columns), 1)
        table[:, 0] = columns
        return _each(results(), np.copy)  # JAX's own cannot be written to
    length = next((bucket for bucket in BUCKETS if bucket >= size), BUCKETS[-1])
    table = _tables.empty(len(columns), length)
    varying = []
    for row, column in zip(table, columns, strict=True):
        if isinstance(column, np.ndarray):
            varying.append((row, column))
        else:
            row[:] = column
    output: Any = None
    for start in range(0, max(size, 1), length):
        count = min(length, size - start)
        for row, column in varying:
            row[:count] = column[start : start + count]
        if count < length:
            table[:, count:] = 1.0
        result = results()
        if output is None:
            output = _empty_like(result, size)
        for whole, part in zip(_parts(output), _parts(result), strict=True):
            whole[start : start + count] = part[:count]
    return output


def by_pieces(
    function: Callable[..., Any],
    *columns: np.ndarray,
    lengths: tuple[int, ...] = PIECES,
) -> Any:
    """Results of a function that compiles for each length, of columns of any length.

    Args:
        function: Of arrays of one of the lengths; it returns arrays with such an axis
            first, or a pytree of them.
        columns: Arrays of one length; a piece is filled up with their last row.
        lengths: Of pieces, increasing.

    Returns:
        Its results, as NumPy arrays of the columns' length.

    Raises:
        ValueError: If the columns are empty: the shape of the results is not known.

    Examples:
        >>> print(by_pieces(np.add, np.arange(3.0), np.ones(3)))
        [1. 2. 3.]
    """
    size = len(columns[0])
    length = next((length for length in lengths if length >= size), lengths[-1])
    results = []
    for start in range(0, size, length):
        rows = np.minimum(np.arange(start, start + length), size - 1)
        pieces = function(*(column[rows] for column in columns))
        results.append(jax.tree.map(np.asarray, pieces))
    if len(results) == 1:
        return jax.tree.map(lambda part: np.array(part[:size]), *results)
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:size], *results)


class _Tables(threading.local):
    """Memory for the tables of each thread, kept, since a new page costs its filling.

    It is aligned as XLA wants it; other arrays XLA copies.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[int, int], np.ndarray] = {}

    def empty(self, rows: int, length: int) -> np.ndarray:
        if (rows, length) not in self._kept:
            size = rows * length
            memory = np.empty(size + _ALIGNMENT // 8)
            start = -memory.ctypes.data % _ALIGNMENT // 8
            table = memory[start : start + size].reshape(rows, length)
            self._kept[rows, length] = table
        return self._kept[rows, length]


_ALIGNMENT = 64
_tables = _Tables()


def _empty_like(result: Any, size: int) -> Any:
    """Uninitialised arrays of `size` like those of `result`, in one block."""
    if not isinstance(result, tuple):
        return np.empty(size, result.dtype)
    return type(result)(*np.empty((len(result), size), result[0].dtype))


def _flattened(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if array.shape != shape:
        array = np.broadcast_to(array, shape)
    return array if array.ndim == 1 else array.reshape(-1)

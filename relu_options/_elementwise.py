"""Call a compiled formula with numbers, arrays, JAX arrays or pandas Series.

A formula is written for arrays of one shape. Here its arguments are broadcast, cut or
padded to one of a few lengths, so that a new length compiles nothing new, and the
result is given back as what came in: a float for numbers, a Series with its index for
Series, a JAX array for JAX arrays, otherwise a NumPy array.
"""

import functools
import math
import sys
from collections.abc import Callable
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
"""Lengths that formulas are compiled for; longer arrays go piece by piece."""

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
        unpack: Function from the kernel's result, of NumPy arrays, to the formula's.
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
            It returns an array of that shape or a named tuple of them.
        shortcut: What to evaluate in its place outside JAX transformations.

    Returns:
        A function of the same arguments, each a number, an array, a JAX array or a
        Series. Under a JAX transformation it is `formula` itself, compiled.
    """
    compiled = functools.cache(_compile)
    traceable = jax.jit(formula)

    @functools.wraps(formula)
    def call(*arguments: Any) -> Any:
        plain = all(type(argument) in _PLAIN for argument in arguments)
        if not plain:
            if any(isinstance(argument, Tracer) for argument in arguments):
                return traceable(*jnp.broadcast_arrays(*map(_as_jax, arguments)))
            if any(map(_on_accelerator, arguments)):
                arrays = jnp.broadcast_arrays(*map(_as_jax, arguments))
                return compiled(formula)(*arrays)
        arrays = [_as_numpy(argument) for argument in arguments]
        shape = _broadcast_shape(arrays)
        restore = _restorer(() if plain else arguments, shape)
        if shortcut is None:
            result = _evaluate(compiled(formula), arrays, shape)
        else:
            kernel = compiled(shortcut.kernel)
            result = _evaluate(kernel, arrays, shape, shortcut.unpack)
            left = shortcut.unfinished(result)
            if left.any():
                rows = [_flattened(array, shape)[left] for array in arrays]
                rest = _evaluate(compiled(formula), rows, (int(left.sum()),))
                result = _each(result, lambda part: part.copy())
                for values, replacement in zip(
                    _parts(result), _parts(rest), strict=True
                ):
                    values[left] = replacement
        return _each(result, restore)

    return call


_PLAIN = frozenset({float, int, bool, np.ndarray, np.float64, np.bool_})
"""Types of which nothing need be asked before they become NumPy arrays."""


def _compile(formula: Callable) -> Callable:
    return jax.jit(formula, compiler_options=compiler_options())


def _parts(result: Any) -> tuple[np.ndarray, ...]:
    """The arrays of a result: its own only, or those of a named tuple."""
    return result if isinstance(result, tuple) else (result,)


def _each(result: Any, function: Callable) -> Any:
    """Apply `function` to an array, or to each of a named tuple of arrays."""
    if isinstance(result, tuple):
        return type(result)(*map(function, result))
    return function(result)


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


def _as_numpy(argument: Any) -> np.ndarray:
    """A float64 or boolean NumPy array."""
    array = np.asarray(argument)
    return array if array.dtype.char in "d?" else array.astype(np.float64)


def _broadcast_shape(arrays: list[np.ndarray]) -> tuple[int, ...]:
    shapes = {array.shape for array in arrays} - {()}
    return shapes.pop() if len(shapes) == 1 else np.broadcast_shapes(*shapes)


def _on_accelerator(argument: Any) -> bool:
    """Whether `argument` lives on another device than the host."""
    return isinstance(argument, jax.Array) and any(
        device.platform != "cpu" for device in argument.devices()
    )


def _is_series(argument: Any) -> bool:
    """Whether `argument` is a pandas Series; pandas is not imported to find out."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(argument, pandas.Series)


def _restorer(arguments: tuple, shape: tuple[int, ...]) -> Callable[[np.ndarray], Any]:
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
    arrays: list[np.ndarray],
    shape: tuple[int, ...],
    unpack: Callable | None = None,
) -> Any:
    """Flat results of a compiled kernel, piece by piece for long arrays."""

    def evaluate(piece: list[np.ndarray]) -> Any:
        result = _each(kernel(*piece), np.asarray)
        return result if unpack is None else unpack(result)

    size = math.prod(shape)
    length = next((bucket for bucket in BUCKETS if bucket >= size), BUCKETS[-1])
    if size <= length:
        result = evaluate([_padded(array, shape, length) for array in arrays])
        return _each(result, lambda part: part[:size])
    # A number is repeated once, to be used for every piece.
    flat = [
        np.full(length, array) if array.size == 1 else _flattened(array, shape)
        for array in arrays
    ]
    output: Any = None
    for start in range(0, size, length):
        # The last piece reaches back, so that every piece is of the same length.
        rows = slice(min(start, size - length), min(start, size - length) + length)
        result = evaluate([a if a.size == length else a[rows] for a in flat])
        if output is None:
            output = _each(result, lambda part: np.empty(size, part.dtype))
        for whole, part in zip(_parts(output), _parts(result), strict=True):
            whole[rows] = part
    return output


def _flattened(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if array.shape != shape:
        array = np.broadcast_to(array, shape)
    return np.ascontiguousarray(array).reshape(-1)


def _padded(array: np.ndarray, shape: tuple[int, ...], length: int) -> np.ndarray:
    """`array` broadcast to `shape`, flat, and followed by ones up to `length`."""
    padded = np.empty(length, array.dtype)
    if array.size == 1:
        padded.fill(array.item())
        return padded
    flat = _flattened(array, shape)
    padded[: flat.size] = flat
    padded[flat.size :] = 1
    return padded

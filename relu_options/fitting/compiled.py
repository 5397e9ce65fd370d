"""How the programmes of the fit are compiled and run."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import jax
from threadpoolctl import ThreadpoolController

from relu_options.formulas.elementwise import compiler_options

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController as Controller


@cache
def compiled(function: Callable, **static: Any) -> Callable:
    """The function, compiled once for each shape of its arguments."""
    return jax.jit(partial(function, **static), compiler_options=compiler_options())


def one_thread():
    """A context in which the linear algebra libraries keep to one thread.

    A team of threads costs a small matrix more than it saves.
    """
    return _blas().limit(limits=1)


@cache
def _blas() -> Controller:
    """The linear algebra libraries."""
    return ThreadpoolController().select(user_api="blas")

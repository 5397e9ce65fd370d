"""Arbitrage-free option prices as one-layer ReLU networks.

Importing the package switches JAX to float64, for the whole process: a price curve
fitted in 64 bits and evaluated in 32 would silently lose half of its digits. And JAX
keeps what it compiles in the user's folder of caches: see `compilation_cache`.

The public names, and where each is defined, are in `__init__.pyi`: type checkers and
editors read them there, and so does the package.
"""

import ast
import pkgutil
from importlib import import_module
from typing import Any

import jax

from relu_options.compilation_cache import keep_compiled

jax.config.update("jax_enable_x64", True)
keep_compiled()

__version__ = "0.1.0"

_HOMES = {
    alias.name: line.module
    for line in ast.parse(pkgutil.get_data(__name__, "__init__.pyi") or b"").body
    if isinstance(line, ast.ImportFrom)
    for alias in line.names
}
"""The module that defines each name; of a module, the package."""

__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Import on first use: option formulas need neither pandas nor the fit."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = vars(import_module(home)).get(name)
    return import_module(f"{home}.{name}") if found is None else found


def __dir__() -> list[str]:
    """What a reader or an editor is shown of the package."""
    return [*__all__, "__version__"]

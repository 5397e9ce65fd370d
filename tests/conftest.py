"""What every test file shares: compiled code, and a generator of random numbers."""

import ctypes
import gc
import os
import sys
import tempfile

import jax
import matplotlib.font_manager  # finds the fonts, and says so, before a test listens
import numpy as np
import psutil
import pytest

matplotlib.use("Agg")

ENOUGH = 1.2e9
"""Bytes that a process may hold of compiled code and what else earlier tests left."""


def pytest_configure(config):
    """What one process compiles, all others read: workers, notebooks, subprocesses.

    The controller makes the folder before it starts workers, who find its name in the
    environment. One that the environment named before is kept, so that the next run
    starts warm.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        config.add_cleanup(folder.cleanup)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder.name
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        jax.config.update("jax_compilation_cache_dir", folder.name)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    # Not before: it would name the user's own folder. It switches JAX to float64.
    import relu_options  # noqa: F401


@pytest.fixture(autouse=True)
def limited_memory():
    """A process that holds much forgets what it compiled; the folder still has it."""
    yield
    if psutil.Process().memory_info().rss > ENOUGH:
        jax.clear_caches()
        gc.collect()
        if sys.platform == "linux":  # else freed pages stay with the process
            ctypes.CDLL(None).malloc_trim(0)


@pytest.fixture
def rng():
    """A generator with a fixed seed: every run draws the same numbers."""
    return np.random.default_rng(20190517)

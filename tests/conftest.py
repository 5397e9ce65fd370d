"""Fixtures that every test file shares."""

import os

import jax
import matplotlib
import numpy as np
import pytest

import relu_options  # noqa: F401  (switches JAX to float64 before any test runs)

matplotlib.use("Agg")


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory):
    """Notebooks and worker processes reuse what another process has compiled.

    A folder that the environment names is kept, so that the next run starts warm.
    """
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    folder = folder or str(tmp_path_factory.mktemp("compiled"))
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"


@pytest.fixture
def rng():
    """A generator with a fixed seed: every run draws the same numbers."""
    return np.random.default_rng(20190517)

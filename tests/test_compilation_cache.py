"""What is compiled is kept, and keeping it is never in anybody's way."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import pytest

from relu_options import compilation_cache
from relu_options.compilation_cache import cache_folder, keep_compiled, sweep

ROOT = Path(__file__).resolve().parents[1]
FOLDER = "jax_compilation_cache_dir"
LEAST = "jax_persistent_cache_min_compile_time_secs"
PRICE = """
from relu_options import black_scholes
print(black_scholes.price(forward=100.0, strike=95.0, time_to_expiry=1.0,
                          volatility=0.2))
"""


def environment(home: Path) -> dict[str, str]:
    """That of a user who has said nothing about caches."""
    said = {name: os.environ[name] for name in os.environ if "CACHE" not in name}
    places = dict.fromkeys(["HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"], str(home))
    return said | places | {"PYTHONPATH": str(ROOT)}


def start(home: Path, script: str = PRICE) -> subprocess.Popen[str]:
    """A fresh process to which every warning is an error."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", script],
        env=environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def outputs(*processes: subprocess.Popen[str]) -> set[str]:
    """What processes printed, all of them without a word of complaint."""
    printed = set()
    for process in processes:
        out, error = process.communicate(timeout=300)
        assert (process.returncode, error) == (0, "")
        printed.add(out)
    return printed


def entries(home: Path) -> dict[Path, float]:
    """The files of compiled programs, and when each was written."""
    return {path: path.stat().st_mtime for path in home.rglob("*-cache")}


@pytest.fixture
def unsaid(tmp_path, monkeypatch):
    """A home whose user has said nothing; JAX's settings are put back afterwards."""
    for name in list(os.environ):
        if "CACHE" in name:
            monkeypatch.delenv(name)
    for name in ("HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path))
    before = {name: jax.config.values[name] for name in (FOLDER, LEAST)}
    jax.config.update(FOLDER, None)
    jax.config.update(LEAST, 1.0)
    with warnings.catch_warnings():
        yield tmp_path
    for name, value in before.items():
        jax.config.update(name, value)


def test_processes_at_once_and_later_ones_share_what_is_compiled(tmp_path):
    printed = outputs(start(tmp_path), start(tmp_path))
    written = entries(tmp_path)
    assert written
    assert outputs(start(tmp_path)) == printed
    assert entries(tmp_path) == written
    assert len(printed) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="sizes of files have no limit")
def test_a_full_disk_is_harmless_and_what_it_left_is_swept(tmp_path):
    """A limit on the size of a file fails as a full disk does, within a write."""
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))"
    printed = outputs(start(tmp_path, limit + PRICE))
    parts = [path for path in entries(tmp_path) if path.stat().st_size == 4096]
    assert parts
    assert outputs(start(tmp_path)) == printed  # finds parts, and compiles
    (mark,) = tmp_path.rglob("swept")
    os.utime(mark, (0, 0))
    outputs(start(tmp_path))
    assert all(path.stat().st_size % 4096 for path in entries(tmp_path))
    assert set(parts) <= set(entries(tmp_path))


def test_a_home_that_cannot_be_written_to_is_left_alone(tmp_path):
    home = tmp_path / "home"
    home.write_text("a file")
    outputs(start(home))
    assert os.listdir(tmp_path) == ["home"]


def test_a_folder_that_may_only_be_read_is_read(unsaid, monkeypatch):
    cache_folder().mkdir(parents=True)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    keep_compiled()
    assert jax.config.values[FOLDER] == str(cache_folder())
    assert jax.config.values[LEAST] == float("inf")
    assert os.listdir(cache_folder()) == []


def test_a_disk_that_is_nearly_full_is_only_read(unsaid, monkeypatch):
    monkeypatch.setattr(compilation_cache, "SPARE", float("inf"))
    keep_compiled()
    assert jax.config.values[LEAST] == float("inf")


@pytest.mark.skipif(sys.platform == "win32", reason="files have no such owner")
def test_a_folder_of_another_user_is_not_read(unsaid, monkeypatch):
    """He could have put any program there."""
    cache_folder().mkdir(parents=True)
    monkeypatch.setattr(os, "getuid", lambda: 12345678)
    keep_compiled()
    assert jax.config.values[FOLDER] is None


def test_whoever_says_otherwise_has_it(unsaid, monkeypatch):
    jax.config.update(FOLDER, "of his own")
    keep_compiled()
    assert jax.config.values[FOLDER] == "of his own"
    jax.config.update(FOLDER, None)
    monkeypatch.setenv(compilation_cache.SWITCH, "off")
    keep_compiled()
    assert jax.config.values[FOLDER] is None
    assert os.listdir(unsaid) == []
    monkeypatch.delenv(compilation_cache.SWITCH)
    jax.config.update(LEAST, 2.5)
    keep_compiled()
    assert jax.config.values[FOLDER] == str(cache_folder())
    assert jax.config.values[LEAST] == 2.5


def test_the_switch_says_what_it_can_be(unsaid, monkeypatch):
    monkeypatch.setenv(compilation_cache.SWITCH, "/elsewhere")
    with pytest.raises(ValueError, match=r"can be off, not '/elsewhere'.*name it in"):
        keep_compiled()


def test_a_large_folder_loses_what_was_longest_unread(tmp_path, rng):
    """Whole entries, down to three quarters, once a day; other files stay."""
    sizes = rng.integers(1, 4096, 200)
    used = rng.permutation(200)
    for name, (size, time) in enumerate(zip(sizes, used, strict=True)):
        path = tmp_path / f"jit_{name}-cache"
        path.write_bytes(bytes(size))
        os.utime(path, (time, time))
    (tmp_path / "mine").write_bytes(bytes(8192))
    sweep(tmp_path, largest=float(sizes.sum()))
    assert len(os.listdir(tmp_path)) == 201
    largest = 0.5 * sizes.sum()
    sweep(tmp_path, largest)
    kept = [int(path.name[4:-6]) for path in tmp_path.glob("*-cache")]
    assert sizes[kept].sum() <= 0.75 * largest
    oldest = min(used[kept])
    assert set(used[kept]) == set(range(oldest, 200))
    assert sizes[used >= oldest - 1].sum() > 0.75 * largest
    assert (tmp_path / "mine").exists()

"""What is compiled is kept on disk, so that the next process starts at once.

JAX can keep compiled programs in a folder. Importing the package names one for it, in
the user's folder of caches, unless a folder is named already, JAX's cache is switched
off, or `RELU_OPTIONS_COMPILATION_CACHE=off` is in the environment. Whoever names
another (`JAX_COMPILATION_CACHE_DIR`, or `jax.config` before anything is compiled) has
that. The setting is the process's: what else it compiles with JAX is kept too.

JAX's names of entries cover all that a program depends on: its operations, options,
JAX's version, and the features of the processor, so a home that different machines
share holds the programs of each. It writes an entry in place; who reads one that is
unfinished finds so, and compiles for himself.

Where the folder cannot be made or written to, or the disk is nearly full, what is there
is read and nothing is written; another user's, who might have put anything there, is
not read. A disk that fills up while an entry is written leaves a part of it, in whole
blocks. `sweep` removes those, and what was longest unread once the folder is large.
(JAX's own bound, `jax_compilation_cache_max_size`, needs another package, looks through
the folder before each entry that it writes, under a lock that others give up waiting
for, and writes none ever again after it was killed while it wrote one.)
"""

import os
import shutil
import sys
import time
import warnings
from contextlib import suppress
from pathlib import Path

import jax

SWITCH = "RELU_OPTIONS_COMPILATION_CACHE"
"""The variable of the environment that switches the cache off."""

LARGEST = 256e6
"""Bytes that the folder may hold; all of the README's Python compiles some 3 MB."""

SPARE = 256e6
"""Bytes of the disk that are left to others."""

_BLOCK = 4096  # bytes; disks and memory fill up by the block
_DAY = 86400.0  # seconds
_SWEPT = "swept"


def keep_compiled() -> None:
    """Have JAX keep what it compiles, if nobody said otherwise.

    Raises:
        ValueError: If the variable that switches it off says anything else.

    Examples:
        Importing the package calls it; called again it changes nothing.

        >>> folder = jax.config.values["jax_compilation_cache_dir"]
        >>> keep_compiled()
        >>> jax.config.values["jax_compilation_cache_dir"] == folder
        True
    """
    switch = os.environ.get(SWITCH, "")
    if switch not in ("", "off"):
        raise ValueError(
            f"{SWITCH} can be off, not {switch!r}; to keep what is compiled in another "
            "folder, name it in JAX_COMPILATION_CACHE_DIR"
        )
    named = jax.config.values["jax_compilation_cache_dir"]
    enabled = jax.config.values["jax_enable_compilation_cache"]
    if switch == "off" or named is not None or not enabled:
        return
    writable = False
    with suppress(OSError, RuntimeError):  # RuntimeError: the user has no home
        folder = cache_folder()
        with suppress(OSError):
            folder.mkdir(0o700, parents=True, exist_ok=True)
            writable = _has_room(folder)
            if writable:
                _sweep_daily(folder)
        if _is_own(folder):
            _hand_over(folder, writable)


def is_kept() -> bool:
    """Whether other processes find what this one compiles.

    Examples:
        >>> is_kept() in (True, False)
        True
    """
    values = jax.config.values
    return (
        bool(values["jax_compilation_cache_dir"])
        and values["jax_enable_compilation_cache"]
        and values["jax_persistent_cache_min_compile_time_secs"] < float("inf")
    )


def cache_folder() -> Path:
    """Where the user's system keeps what can be made again.

    Examples:
        >>> cache_folder().parts[-2:]
        ('relu_options', 'compiled')
    """
    if sys.platform == "win32":
        named, usual = os.environ.get("LOCALAPPDATA"), "AppData/Local"
    elif sys.platform == "darwin":
        named, usual = None, "Library/Caches"
    else:
        named, usual = os.environ.get("XDG_CACHE_HOME"), ".cache"
    base = Path(named) if named and Path(named).is_absolute() else Path.home() / usual
    return base / "relu_options" / "compiled"


def sweep(folder: Path, largest: float = LARGEST) -> None:
    """Remove parts of entries, and the longest unread until the rest is small.

    An entry whose size is a multiple of a block may be a part of one; of whole ones it
    is one in 4,096, which is compiled again.

    Args:
        folder: Of JAX's entries.
        largest: Bytes above which entries are removed, down to three quarters of it.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name:
        ...     for number, size in enumerate([4096, 3000, 3000]):
        ...         path = Path(name, f"jit_{number}-cache")
        ...         _ = path.write_bytes(bytes(size))
        ...         os.utime(path, (number, number))
        ...     sweep(Path(name), largest=5000)
        ...     os.listdir(name)
        ['jit_2-cache']
    """
    entries = []
    for path in folder.glob("*-cache"):
        with suppress(OSError):  # another process removes, too
            status = path.stat()
            if status.st_size % _BLOCK == 0:
                path.unlink()
            else:
                # Most disks note at least the first read of a day.
                used = max(status.st_atime, status.st_mtime)
                entries.append((used, status.st_size, path))
    total = sum(size for _, size, _ in entries)
    if total > largest:
        for _, size, path in sorted(entries):
            if total <= 0.75 * largest:
                break
            total -= size
            with suppress(OSError):
                path.unlink()


def _is_own(folder: Path) -> bool:
    """Whether a folder is there, and the user's."""
    return folder.is_dir() and (
        sys.platform == "win32" or folder.stat().st_uid == os.getuid()
    )


def _has_room(folder: Path) -> bool:
    """Whether entries can be written."""
    return os.access(folder, os.W_OK | os.X_OK) and (
        shutil.disk_usage(folder).free > SPARE
    )


def _sweep_daily(folder: Path) -> None:
    """Sweep, unless a process has done so today: looking at all files takes time."""
    mark = folder / _SWEPT
    age = time.time() - mark.stat().st_mtime if mark.exists() else _DAY
    if not 0.0 <= age < _DAY:
        mark.touch()
        sweep(folder)


def _hand_over(folder: Path, writable: bool) -> None:
    """Name the folder to JAX, and what to keep in it.

    Everything is kept, however quickly it was compiled: a program takes ten times as
    long to compile as to read.
    """
    jax.config.update("jax_compilation_cache_dir", str(folder))
    least = "jax_persistent_cache_min_compile_time_secs"
    if not writable:
        jax.config.update(least, float("inf"))
    elif jax.config.values[least] == 1.0:  # JAX's default: the user has named none
        jax.config.update(least, 0.0)
    # What a cache fails at is no matter of the user, who has the result all the same.
    warnings.filterwarnings(
        "ignore", "Error (reading|writing) persistent compilation cache", UserWarning
    )

"""Files that appear whole or not at all, from one writer at a time, and show damage.

A file is written beside its place under a hidden name, then moved there. Who reads
finds what was there or what is new, whenever a writer is killed.

Who writes in a folder holds the lock of the operating system on its hidden file
`.lock`, which ends with the process. What a killed writer leaves, that file and
unfinished ones, readers pass over and the next writer removes. Across machines a lock
is worth what the network file system's locks are.

On Windows a file is not replaced or removed while another process has it open: the
writer is refused with a `PermissionError`, and what was there stays.

A digest inside a file shows damage: it is that of all bytes, with zeros in its place.
"""

from __future__ import annotations

import errno
import json
import os
import re
import sys
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

PATIENCE = 60.0  # seconds that a writer waits for another, who needs milliseconds
UNSEALED = "0" * 32
"""What stands in the place of a digest until `seal`."""

_DIGEST_KEY = b'"digest": "'
_DIGEST = re.compile(_DIGEST_KEY + rb'([0-9a-f]{32})"')
_LOCK = ".lock"
_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")
# On Windows a file that is being removed may not be opened either.
_BUSY = PermissionError if sys.platform == "win32" else BlockingIOError
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def seal(content: bytes) -> bytes:
    r"""Put the digest of some bytes in its place, their last `"digest": "000..."`.

    Examples:
        >>> sealed = seal(b'{"price": 1.5, "digest": "%s"}' % UNSEALED.encode())
        >>> sealed
        b'{"price": 1.5, "digest": "76aeb1d1bad3f65cf947935b02d40d50"}'
    """
    before, after = _around_digest(content)
    digest = blake2b(before + UNSEALED.encode() + after, digest_size=16).hexdigest()
    return before + digest.encode() + after


def check_seal(content: bytes) -> None:
    """Raise unless bytes are as `seal` made them.

    Raises:
        ValueError: If they have no digest, or it is not theirs.

    Examples:
        >>> sealed = b'{"price": 1.5, "digest": "76aeb1d1bad3f65cf947935b02d40d50"}'
        >>> check_seal(sealed)
        >>> check_seal(sealed.replace(b"1.5", b"2.5"))
        Traceback (most recent call last):
            ...
        ValueError: it is not as it was written: its digest is of other content
    """
    if seal(content) != content:
        raise ValueError("it is not as it was written: its digest is of other content")


def _around_digest(content: bytes) -> tuple[bytes, bytes]:
    """The bytes before the digest, and those after it."""
    found = _DIGEST.match(content, content.rfind(_DIGEST_KEY))
    if found is None:
        raise ValueError("it has no digest")
    return content[: found.start(1)], content[found.end(1) :]


def sealed_json(document: dict[str, Any]) -> str:
    """A document as JSON text with its digest.

    Examples:
        >>> text = sealed_json({"price": 1.5})
        >>> check_seal(text.encode())
        >>> json.loads(text)["price"]
        1.5
    """
    return seal(json.dumps(document | {"digest": UNSEALED}).encode()).decode()


@contextmanager
def sole_writer(folder: Path) -> Iterator[Callable[[str, bytes], None]]:
    """Hold the lock of a folder, made if missing, and have what writes a file in it.

    Yields:
        A function of name and bytes of a file, which appears whole or not at all.

    Raises:
        TimeoutError: If another process held the lock for a minute.
        OSError: If the folder cannot be written to.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as path:
        ...     folder = Path(path) / "date=2025-03-14"
        ...     with sole_writer(folder) as write:
        ...         write("part.csv", b"strike")
        ...     [(file.name, file.read_bytes()) for file in folder.iterdir()]
        [('part.csv', b'strike')]
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = _acquire(folder)
    try:
        if lock is not None:
            for path in folder.glob(".*.tmp"):
                if _UNFINISHED.fullmatch(path.name):  # not those of other programs
                    path.unlink(missing_ok=True)
        yield partial(_write, folder)
    finally:
        if lock is not None:
            _release(folder / _LOCK, lock)


def _write(folder: Path, name: str, content: bytes) -> None:
    path, temporary = folder / name, folder / f".{name}.{uuid.uuid4().hex}.tmp"
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        why = f"{error.strerror}; not written, and as it was before"
        raise OSError(error.errno, why, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def _acquire(folder: Path) -> int | None:
    """The open file of a folder's lock, held; None where the system has no locks."""
    deadline = time.monotonic() + PATIENCE
    try:
        while (lock := _try_lock(folder / _LOCK)) is None:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"another process has been writing in {folder} for {PATIENCE:.0f} "
                    "s; wait for it, or end it, and try again"
                )
            time.sleep(0.005)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        (folder / _LOCK).unlink(missing_ok=True)
        warnings.warn(
            f"the file system of {folder} has no locks ({error.strerror}): let one "
            "process write there at a time",
            stacklevel=4,
        )
        return None
    return lock


def _try_lock(path: Path) -> int | None:
    """The open file of a lock, held; None if another has it."""
    descriptor = None
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        _lock(descriptor)
        # Who held it may have removed the file since it was opened here.
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            held, descriptor = descriptor, None
            return held
    except _BUSY:
        pass
    except FileNotFoundError:  # removed, or else the folder is
        if not path.parent.is_dir():
            raise
    finally:
        if descriptor is not None:
            os.close(descriptor)
    return None


def _lock(descriptor: int) -> None:
    """Lock an open file, or raise if another has it."""
    if sys.platform == "win32":
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _release(path: Path, descriptor: int) -> None:
    """Remove the file of a lock and let it go: closing alone leaves it to a fork."""
    if sys.platform == "win32":  # where an open file is not removed
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
        os.close(descriptor)
        with suppress(OSError):
            path.unlink()
    else:
        path.unlink(missing_ok=True)
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)

"""Files: whole whoever is killed, from one writer at a time, and damage shows."""

import errno
import os
import subprocess
import sys
import threading

import pytest

from relu_options import files
from relu_options.files import UNSEALED, check_seal, seal, sealed_json, sole_writer


def contents(folder):
    """Every file of a folder, hidden ones too, with its bytes."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def flipped(content, rng):
    """Bytes of which one bit, drawn at random, is the other."""
    damaged = bytearray(content)
    damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
    return bytes(damaged)


def test_a_seal_shows_every_bit_and_every_cut(rng):
    body = rng.bytes(300)
    for content in (
        sealed_json({"digest": "of another", "weights": [0.1, 0.2]}).encode(),
        seal(body + b'"digest": "%s"' % UNSEALED.encode() + body),
    ):
        check_seal(content)
        assert seal(content) == content
        for place in range(8 * len(content)):
            damaged = bytearray(content)
            damaged[place // 8] ^= 1 << place % 8
            with pytest.raises(ValueError, match=r"no digest|not as it was written"):
                check_seal(bytes(damaged))
        for length in range(len(content)):
            with pytest.raises(ValueError, match=r"no digest|not as it was written"):
                check_seal(content[:length])


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    with sole_writer(tmp_path) as write:
        write("one.txt", b"first")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with (
        pytest.raises(OSError, match=r"No space left on device; not written.*one\.txt"),
        sole_writer(tmp_path) as write,
    ):
        write("one.txt", b"second")
    assert contents(tmp_path) == {"one.txt": b"first"}


@pytest.mark.skipif(os.name != "posix", reason="needs limits of resources")
def test_a_file_that_becomes_too_large_leaves_what_was_there(tmp_path):
    import resource

    with sole_writer(tmp_path) as write:
        write("one.txt", b"first")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with (
            pytest.raises(OSError, match=r"too large; not written, .*one\.txt"),
            sole_writer(tmp_path) as write,
        ):
            write("one.txt", bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert contents(tmp_path) == {"one.txt": b"first"}


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path):
    for left in (".lock", f".one.txt.{'1' * 32}.tmp", f".other.{'a' * 32}.tmp"):
        (tmp_path / left).write_bytes(b"left")
    with sole_writer(tmp_path) as write:
        write("one.txt", b"first")
    assert contents(tmp_path) == {"one.txt": b"first"}
    (tmp_path / ".another program.tmp").write_bytes(b"")
    with sole_writer(tmp_path):
        pass
    assert set(contents(tmp_path)) == {"one.txt", ".another program.tmp"}


def test_threads_write_one_after_the_other(tmp_path):
    """Each reads a number and writes the next one: none is lost."""
    (tmp_path / "number").write_text("0")

    def count():
        for _ in range(25):
            with sole_writer(tmp_path) as write:
                number = int((tmp_path / "number").read_text())
                write("number", str(number + 1).encode())

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert contents(tmp_path) == {"number": b"100"}


COUNT = """
import importlib.util, os, signal, sys
from pathlib import Path

folder, seed = Path(sys.argv[1]), int(sys.argv[2])
found = importlib.util.spec_from_file_location("files", sys.argv[3])
found.loader.exec_module(files := importlib.util.module_from_spec(found))

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

for step in range(40):
    if step == 30:  # it dies with the lock, before or after the number is there
        setattr(*((files.os, "fsync") if seed % 2 else (files, "_release")), die)
    with files.sole_writer(folder) as write:
        number = int((folder / "number").read_text())
        write(f"by {seed}", str(step).encode())
        write("number", str(number + 1).encode())
"""


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_writer_killed_with_the_lock_stops_nobody(tmp_path):
    """Of three processes that count, none loses a number of another."""
    (tmp_path / "number").write_text("0")
    command = [sys.executable, "-c", COUNT, str(tmp_path)]
    running = [
        subprocess.Popen([*command, str(seed), files.__file__]) for seed in (1, 2, 3)
    ]
    for process in running:
        assert process.wait(timeout=600) == -9
    steps = {seed: int((tmp_path / f"by {seed}").read_text()) for seed in (1, 2, 3)}
    assert steps == {1: 29, 2: 30, 3: 29}
    assert (tmp_path / "number").read_text() == "91"
    with sole_writer(tmp_path):
        pass
    assert set(contents(tmp_path)) == {"number", "by 1", "by 2", "by 3"}


def test_a_writer_does_not_wait_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PATIENCE", 0.05)
    with (
        sole_writer(tmp_path),
        pytest.raises(TimeoutError, match="another process has been writing in"),
        sole_writer(tmp_path),
    ):
        pass
    with sole_writer(tmp_path) as write:
        write("one.txt", b"first")


def test_a_file_system_without_locks_is_told_of(tmp_path, monkeypatch):
    def refuse(_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files, "_lock", refuse)
    unfinished = (
        tmp_path / f".one.txt.{'0' * 32}.tmp"
    )  # perhaps another's, at this moment
    unfinished.write_bytes(b"")
    with (
        pytest.warns(UserWarning, match="has no locks .*let one process write there"),
        sole_writer(tmp_path) as write,
    ):
        write("one.txt", b"first")
    assert contents(tmp_path) == {"one.txt": b"first", unfinished.name: b""}


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"), sole_writer(tmp_path / "file"):
        pass
    (tmp_path / ".lock").mkdir()
    with pytest.raises(OSError, match=r"\.lock"), sole_writer(tmp_path):
        pass

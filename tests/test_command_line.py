"""The command line as a shell sees it."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import relu_options as ro
from relu_options.__main__ import main

ROOT = Path(__file__).resolve().parents[1]


def test_the_script_that_is_installed_is_the_module(capsys):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"relu-options": f"{main.__module__}:main"}
    with pytest.raises(SystemExit) as exit_:
        main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"relu-options {ro.__version__}\n"


@pytest.mark.parametrize("unbuffered", [[], ["-u"]], ids=["at the end", "at once"])
@pytest.mark.parametrize("command", ["--help", "inspect"])
def test_a_reader_that_has_seen_enough_is_no_error(command, unbuffered, tmp_path):
    """As `| head -0` does: nobody reads from the pipe when the first line comes."""
    ro.bundled_chain()["2025-06-20"].to_frame().to_csv(tmp_path / "quotes.csv")
    files = ["quotes.csv"] if command == "inspect" else []
    read, write = os.pipe()
    os.close(read)
    run = subprocess.run(
        [sys.executable, *unbuffered, "-m", "relu_options", command, *files],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write)
    assert (run.returncode, run.stderr) == (0, "")

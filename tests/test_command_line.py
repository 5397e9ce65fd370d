"""The command line as a shell sees it."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pandas as pd
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


def test_dates_are_converted_and_what_is_skipped_is_said(tmp_path, capsys):
    """The last date has expired and is kept; a date without quotes is not."""
    rows = []
    for date, bid, ask in (
        ("2025-01-15 16:15", 4.0, 4.2),
        ("2025-01-16 16:15", 0.0, 0.0),
        ("2025-01-17 16:15", 3.0, 3.1),
    ):
        for strike in (5800, 5900, 6000):
            for side in "CP":
                rows.append(
                    {
                        "quote_datetime": date,
                        "option_symbol": f"SPXW250117{side}0{strike}000",
                        "bid": bid,
                        "ask": ask,
                        "underlying_price": 5900.0,
                    }
                )
    path, folder = tmp_path / "quotes.csv", tmp_path / "history"
    pd.DataFrame(rows).to_csv(path, index=False)
    command = ["convert", str(path), str(folder), "--format", "csv"]
    assert main(command) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[1].startswith("skipped          2025-01-16 SPX: no row can be used")
    assert printed[-1] == f"written          2 dates to {folder}"
    history = ro.ChainHistory(folder)
    assert [len(chain) for chain in history.values()] == [1, 0]
    assert history.underlying_prices.tolist() == [5900.0, 5900.0]
    assert set(history.to_frame()["multiplier"]) == {100.0}
    command = ["convert", str(path), str(tmp_path / "tens"), "--date", "2025-01-15"]
    assert main([*command, "--multiplier", "10"]) == 0
    assert set(ro.ChainHistory(tmp_path / "tens").to_frame()["multiplier"]) == {10.0}
    fitted = ro.fit_history(history)
    assert "all 6 rows have expired" in fitted.failures["reason"].iloc[-1]

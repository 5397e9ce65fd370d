"""The command line as a shell sees it."""

import inspect
import os
import re
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


READERS = ("inspect", "fit", "surface", "convert")


def run(command: str, path: Path, *more: str) -> int:
    """One command on a file, what it writes beside it."""
    own = {
        "inspect": [],
        "fit": ["--output", str(path.parent / "fit")],
        "surface": ["--output", str(path.parent / "surface")],
        "convert": [str(path.parent / "history"), "--format", "csv"],
    }
    return main([command, str(path), *own[command], *more])


@pytest.mark.parametrize("command", READERS)
def test_a_command_that_reads_quotes_has_every_argument_of_read_chain(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    flags = set(re.findall(r"^  --([\w-]+)", capsys.readouterr().out, re.MULTILINE))
    arguments = {
        name.replace("_", "-") for name in inspect.signature(ro.read_chain).parameters
    }
    assert arguments - flags == {"source", "columns"}
    assert "column" in flags


@pytest.fixture
def traded(tmp_path):
    """A file of 58 quotes, some of them old, some thinly traded."""
    chain = ro.bundled_chain()["2025-06-20"].to_frame()
    table = chain[chain["strike"].between(4300, 5700)].reset_index(drop=True)
    table["volume"], table["open_interest"] = 50, 500
    table["last_trade_time"] = "2025-03-14T19:00Z"
    table.loc[[3, 40], "last_trade_time"] = "2025-03-11T19:00Z"
    table.loc[[5, 6, 50], "volume"] = 2
    table.loc[7, "open_interest"] = 1
    table.to_csv(tmp_path / "quotes.csv", index=False)
    return tmp_path / "quotes.csv"


@pytest.mark.parametrize(
    ("limits", "missed"),
    [
        ({"--max-age": "2"}, {"too_old": 2}),
        ({"--min-volume": "10"}, {"thin": 3}),
        ({"--min-open-interest": "5"}, {"thin": 1}),
        (
            {"--max-age": "2", "--min-volume": "10", "--min-open-interest": "5"},
            {"too_old": 2, "thin": 4},
        ),
    ],
)
def test_quotes_that_miss_limits_on_their_trading_are_set_aside(
    limits, missed, traded, capsys
):
    given = [word for limit in limits.items() for word in limit]
    assert run("convert", traded, *given) == 0
    stored = ro.ChainHistory(traded.parent / "history")["2025-03-14"].report().rows
    assert {rule: stored.counts[rule] for rule in missed} == missed
    capsys.readouterr()
    assert run("inspect", traded, *given) == 0
    printed = capsys.readouterr().out
    for count in missed.values():
        assert re.search(rf"set aside {count}: ", printed)


@pytest.mark.parametrize("command", ["fit", "surface"])
def test_a_fit_in_the_shell_keeps_to_limits_on_trading(command, traded, capsys):
    limits = ["--max-age", "2", "--min-volume", "10"]
    assert run(command, traded, *limits, "--expiry", "2025-06") == 0
    kept = ro.prepare_quotes(ro.read_chain(traded, max_age=2.0, min_volume=10.0))
    assert f"{len(kept)} quotes" in capsys.readouterr().out
    assert len(kept) < len(ro.prepare_quotes(ro.read_chain(traded)))


@pytest.mark.parametrize("command", READERS)
def test_limits_that_a_file_cannot_answer_name_flags_of_the_shell(
    command, traded, capsys
):
    table = pd.read_csv(traded).drop(columns="open_interest").assign(contracts=500)
    table.to_csv(traded, index=False)
    assert run(command, traded, "--min-open-interest", "5") == 2
    said = capsys.readouterr().err
    assert "`--min-open-interest` needs a column 'open_interest'" in said
    assert "`--column open_interest=...`" in said
    remedy = ["--column", "open_interest=contracts"]
    assert run(command, traded, "--min-open-interest", "5", *remedy) == 0


@pytest.mark.parametrize("command", READERS)
def test_the_expiry_of_a_file_without_one_is_given_in_the_shell(
    command, traded, capsys
):
    table = pd.read_csv(traded)
    table = table[["quote_time", "strike", "option_type", "bid", "ask"]]
    table.to_csv(traded, index=False)
    assert run(command, traded) == 2
    assert "pass `--expiry` if all rows share one" in capsys.readouterr().err
    assert run(command, traded, "--expiry", "2025-06-20") == 0


def test_a_unit_that_a_note_tells_to_pass_can_be_passed(traded, capsys):
    table = pd.read_csv(traded)
    table["strike"] *= 100.0
    table.assign(underlying_price=5000.0).to_csv(traded, index=False)
    assert run("inspect", traded) == 0
    assert "pass `--strike-scale 1` if they are not" in capsys.readouterr().out
    assert run("inspect", traded, "--strike-scale", "100") == 0
    assert "strikes divided by 100" in capsys.readouterr().out

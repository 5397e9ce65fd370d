"""Fits of many dates: the same whoever makes them, and whatever interrupts them."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pandas as pd
import pytest
from test_files import contents
from test_history import DAMAGED, damages

import relu_options as ro
from relu_options.files import sealed_json
from relu_options.fitting import history as fitting
from relu_options.fitting.history import FittedHistory, fit_history, fit_stored
from relu_options.market_data.history import ChainHistory
from relu_options.simulation.bundled import bundled_history
from relu_options.surfaces import PriceSurface

EXPIRIES = ["2025-02-21", "2025-03-21"]
OPTIONS: dict[str, Any] = {"kinks": 24}
TESTS = Path(__file__).resolve().parent


@pytest.fixture(scope="module", autouse=True)
def found_by_workers():
    """Processes that a test starts find this file's functions, and this package."""
    with pytest.MonkeyPatch.context() as patch:
        path = [str(TESTS), str(TESTS.parent), *sys.path]
        patch.setenv("PYTHONPATH", os.pathsep.join(path))
        yield


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    """Five dates of two expiries, of which the third cannot be fitted."""
    history = ChainHistory(tmp_path_factory.mktemp("history"), file_format="csv")
    dates = ["2025-01-06", "2025-01-07", "2025-01-08", "2025-01-10", "2025-01-13"]
    for place, chain in enumerate(bundled_history().scan(dates, expiries=EXPIRIES)):
        table = chain.to_frame()
        if place == 2:
            table = table[table["strike"].isin([5000.0, 5050.0])]
        history.append(ro.read_chain(table))
    assert len(history) == 5
    return history


@pytest.fixture(scope="module")
def folder(history, tmp_path_factory):
    """A folder of fits that one process made in one go."""
    path = tmp_path_factory.mktemp("fits")
    fit_history(history, output=path, **OPTIONS)
    return path


def test_a_fitted_history_is_a_mapping_from_dates_to_surfaces(history, folder):
    fitted = FittedHistory(folder)
    assert len(fitted) == 4
    assert list(fitted) == list(fitted.dates)
    assert repr(fitted) == (
        "FittedHistory(4 dates from 2025-01-06 to 2025-01-13, 1 failed: see `failures`)"
    )
    assert "2025-01-07" in fitted
    assert "2025-01-09" not in fitted
    for date, surface in fitted.items():
        assert bool(surface.certificate)
        spots = history[date].table["underlying_price"]
        assert surface.spot == spots.iloc[0]
    with pytest.raises(
        KeyError, match="no surface of 2025-01-09; the nearest are 2025-"
    ):
        fitted["2025-01-09"]


def test_surfaces_are_those_of_fit_surface(history, folder):
    surface = ro.fit_surface(history["2025-01-10"], **OPTIONS)
    fitted = FittedHistory(folder)["2025-01-10"]
    for name in ("kinks", "weights", "bandwidths", "times", "forwards"):
        np.testing.assert_array_equal(getattr(fitted, name), getattr(surface, name))
    assert fitted.expiries == surface.expiries
    line = FittedHistory(folder).to_frame().loc["2025-01-10"].to_dict()
    assert {name: line[name] for name in list(line)[:6]} == {
        "slices": len(surface),
        "left_out": 0,
        "quotes": len(surface.quotes),
        "inside": surface.share_inside,
        "excess": surface.quotes["excess"].max(),
        "volatility_error": surface.volatility_error,
    }


def test_volatilities_are_at_the_forward_between_the_expiries(history, tmp_path):
    other = ChainHistory(tmp_path, file_format="csv")
    (chain,) = bundled_history().scan("2025-02-18", expiries=EXPIRIES)
    other.append(chain)
    fitted = fit_history(other, **OPTIONS)
    line = fitted.to_frame().iloc[0]
    surface = fitted["2025-02-18"]
    years = 7 / 365
    assert surface.times[0] < years < surface.times[-1]
    expected = surface.implied_volatility(surface.forward(years), years)
    assert line["volatility_7d"] == pytest.approx(expected, rel=1e-12)
    assert np.isnan(line["volatility_91d"])


def test_failures_have_their_reasons_and_the_rest_goes_on(folder):
    fitted = FittedHistory(folder)
    failures = fitted.failures
    assert failures.index.tolist() == [pd.Timestamp("2025-01-08")]
    assert failures["error"].tolist() == ["QuoteError"]
    assert "usable strikes" in failures["reason"].iloc[0]
    with pytest.raises(KeyError, match="2025-01-08 could not be fitted: no expiry"):
        fitted["2025-01-08"]
    assert (folder / "2025-01-08.failed.json").is_file()
    assert not (folder / "2025-01-08.json").exists()


def test_a_damaged_date_is_a_failure(history, folder, tmp_path):
    damaged = ChainHistory(tmp_path / "history", file_format="csv")
    for chain in history.scan(["2025-01-06", "2025-01-07"]):
        damaged.append(chain)
    path = next(damaged.path.glob("*/date=2025-01-06/part*"))
    path.write_bytes(path.read_bytes()[:-100])
    fitted = fit_history(damaged, output=tmp_path / "fits", **OPTIONS)
    assert "cannot be read" in fitted.failures["reason"].iloc[0]
    # Once repaired, it is fitted, and the failure is gone.
    damaged.append(history["2025-01-06"], overwrite=True)
    fitted = fit_history(damaged, output=tmp_path / "fits", **OPTIONS)
    assert fitted.failures.empty
    expected = contents(folder)
    found = contents(tmp_path / "fits")
    assert found == {name: expected[name] for name in found}
    assert len(found) == 3


def test_faults_of_the_program_are_not_failures_of_a_date(history, monkeypatch):
    def broken(*_, **__):
        raise TypeError("no such thing")

    monkeypatch.setattr(fitting, "fit_surface", broken)
    with pytest.raises(TypeError, match="no such thing") as caught:
        fit_history(history)
    assert "while fitting underlying=SIM/date=2025-01-06" in caught.value.__notes__[0]


def test_without_a_folder_the_surfaces_are_in_memory(history, folder):
    fitted = fit_history(history, dates=slice("2025-01-07", "2025-01-08"), **OPTIONS)
    assert fitted.folder is None
    assert fitted.dates.strftime("%m-%d").tolist() == ["01-07"]
    assert len(fitted.failures) == 1
    on_disk = FittedHistory(folder)["2025-01-07"]
    assert fitted["2025-01-07"].to_json() == on_disk.to_json()


def test_the_files_are_surfaces_that_anybody_proves(folder):
    path = folder / "2025-01-10.json"
    assert bool(PriceSurface.from_json(path).certificate)
    text = path.read_text()
    with pytest.raises(ValueError, match="not as it was written"):
        PriceSurface.from_json(text.replace('"spot": ', '"spot": 1'))
    run = subprocess.run(
        [sys.executable, "-m", "relu_options.verify", str(path)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert run.returncode == 0, run.stdout
    assert run.stdout.startswith("proved")


def test_two_workers_write_the_same_bytes_as_one(history, folder, tmp_path):
    fitted = fit_history(history, output=tmp_path, n_jobs=2, progress=True, **OPTIONS)
    assert len(fitted) == 4
    assert contents(tmp_path) == contents(folder)


def test_threads_write_the_same_bytes(history, folder, tmp_path):
    with ThreadPoolExecutor(2) as executor:
        fit_history(history, output=tmp_path, executor=executor, **OPTIONS)
    assert contents(tmp_path) == contents(folder)


def test_a_dask_cluster_writes_the_same_bytes(history, folder, tmp_path):
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address=":0",
            local_directory=str(tmp_path / "scratch"),
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        executor = client.get_executor()
        fit_history(history, output=tmp_path / "fits", executor=executor, **OPTIONS)
    assert contents(tmp_path / "fits") == contents(folder)


class LazyExecutor(Executor):
    """Fits when it is asked for a result; counts what is with it at a time."""

    def __init__(self):
        self.most = self.now = 0

    def submit(self, function, /, *args, **kwargs):
        self.now += 1
        self.most = max(self.most, self.now)
        future = Future()
        future.set_running_or_notify_cancel()
        try:
            future.set_result(function(*args, **kwargs))
        except ValueError as error:
            future.set_exception(error)
        self.now -= 1
        return future


def test_chains_are_sent_a_few_at_a_time(history, folder, tmp_path, monkeypatch):
    """However many dates there are, so memory does not grow with them."""
    monkeypatch.setattr(fitting, "AHEAD", 2)
    read, kept = [], []
    stored, keep = ChainHistory.stored, FittedHistory._keep
    monkeypatch.setattr(
        ChainHistory, "stored", lambda *args: read.append(1) or stored(*args)
    )
    monkeypatch.setattr(
        FittedHistory, "_keep", lambda *args: kept.append(len(read)) or keep(*args)
    )
    fit_history(history, output=tmp_path, executor=LazyExecutor(), **OPTIONS)
    assert contents(tmp_path) == contents(folder)
    ahead = np.array(kept) - np.arange(len(kept))
    assert ahead.max() <= 1 + 2  # one is read to learn the underlying


@pytest.mark.parametrize("kept", [True, False])
def test_workers_wait_for_what_one_process_compiles(history, kept, monkeypatch):
    """Unless they would not find it."""
    fits = []

    class Recording(LazyExecutor):
        def submit(self, function, /, *args, **kwargs):
            fits.append(("sent", args[0].date) if args else "started")
            future = Future()
            future.set_running_or_notify_cancel()
            future.set_result(fitting.Outcome(args[0].date, True, "{}") if args else 0)
            return future

    def fit_here(stored, options):
        fits.append(("here", stored.date))
        return fitting.Outcome(stored.date, True, "{}")

    monkeypatch.setattr(fitting, "processes", lambda jobs: Recording())
    monkeypatch.setattr(fitting, "is_kept", lambda: kept)
    monkeypatch.setattr(fitting, "fit_stored", fit_here)
    fit_history(history, n_jobs=2)
    first, *others = history.dates
    sent = [("sent", date) for date in others]
    if kept:
        assert fits == ["started", "started", ("here", first), *sent]
    else:
        assert fits == [("sent", first), *sent]


def test_a_worker_needs_bytes_alone(history, folder):
    stored = history.stored("2025-01-10")
    options = {"smoothing": "auto", "narrowest": fitting.NARROWEST, **OPTIONS}
    outcome = fit_stored(stored, options)
    assert not outcome.failed
    assert f"{outcome.text}\n" == (folder / "2025-01-10.json").read_text()
    assert len(stored.content) < 20_000


FIT = """
import sys, time
from relu_options.fitting import history as fitting
from relu_options.market_data.history import ChainHistory

keep = fitting.FittedHistory._keep

def slowly(*arguments):
    keep(*arguments)
    time.sleep(0.5)  # for the test to kill this in the middle

if __name__ == "__main__":
    fitting.FittedHistory._keep = slowly
    history, output, jobs = ChainHistory(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    fitting.fit_history(history, output=output, n_jobs=jobs, kinks=24)
"""


def children(process):
    """Folders of the processes that a process started, on Linux."""
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    numbers = listed.read_text().split() if listed.is_file() else []
    return [Path(f"/proc/{number}") for number in numbers]


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_killed_fit_goes_on_to_the_same_bytes(jobs, history, folder, tmp_path):
    output = tmp_path / "fits"
    script = tmp_path / "fit.py"
    script.write_text(FIT)
    command = [sys.executable, str(script), str(history.path), str(output), str(jobs)]
    process = subprocess.Popen(command)
    try:
        deadline = time.monotonic() + 600
        while not (output.is_dir() and len(FittedHistory(output)) >= 1):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.002)
        workers = children(process)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 120
    while any(worker.exists() for worker in workers):
        assert time.monotonic() < deadline, "workers outlive who started them"
        time.sleep(0.05)
    done = contents(output)
    expected = contents(folder)
    assert len(done) < len(expected)
    whole = {name: text for name, text in done.items() if not name.startswith(".")}
    assert whole == {name: expected[name] for name in whole}
    (output / f".2025-01-13.json.{'0' * 32}.tmp").write_text('{"format": "relu')
    times = {name: (output / name).stat().st_mtime_ns for name in whole}
    fit_history(ChainHistory(history.path), output=output, **OPTIONS)
    assert contents(output) == expected
    assert {name: (output / name).stat().st_mtime_ns for name in whole} == times


def test_what_is_fitted_is_not_fitted_again(history, folder, monkeypatch):
    def refuse(*_):
        raise AssertionError("fitted again")

    monkeypatch.setattr(fitting, "fit_stored", refuse)
    fitted = fit_history(history, output=folder, **OPTIONS)
    assert len(fitted) == 4


def test_a_chain_that_changed_is_fitted_again(history, folder, tmp_path):
    changed = ChainHistory(tmp_path / "history", file_format="csv")
    for chain in history.scan(["2025-01-06", "2025-01-07"]):
        changed.append(chain)
    output = tmp_path / "fits"
    fit_history(changed, output=output, **OPTIONS)
    before = contents(output)
    assert before["2025-01-06.json"] == contents(folder)["2025-01-06.json"]
    table = history["2025-01-07"].to_frame()
    table["ask"] += 0.1
    changed.append(ro.read_chain(table), overwrite=True)
    fit_history(changed, output=output, **OPTIONS)
    after = contents(output)
    assert after["2025-01-06.json"] == before["2025-01-06.json"]
    assert after["2025-01-07.json"] != before["2025-01-07.json"]


def test_a_folder_holds_fits_of_one_kind(history, folder):
    with pytest.raises(ValueError, match="fitted otherwise: kinks 24 for 32; choose"):
        fit_history(history, output=folder, kinks=32)
    options = json.loads((folder / "_options.json").read_text())
    assert options["underlying"] == "SIM"


def copy_of(folder, path):
    """A folder with the same files."""
    return Path(shutil.copytree(folder, path))


def test_no_damage_of_a_fit_is_read_as_something_else(folder, tmp_path, rng):
    """A file with a bit flipped is named, or nothing that is read of it changes."""
    damaged = copy_of(folder, tmp_path / "fits")

    def read(name):
        fitted = FittedHistory(damaged)
        try:
            if name == "_options.json":
                return fitted._document(name)
            if "failed" in name:
                return fitted.failures.to_csv()
            return fitted["2025-01-10"].to_json(), fitted.to_frame().to_csv()
        except ValueError as error:
            return f"{error}".startswith(f"{damaged / name} cannot be read: ")

    for name in ("2025-01-10.json", "2025-01-08.failed.json", "_options.json"):
        expected, content = read(name), (damaged / name).read_bytes()
        found = []
        for changed in damages(content, rng, DAMAGED // 3):
            (damaged / name).write_bytes(changed)
            found.append(read(name))
        assert [one for one in found if one is not True and one != expected] == []
        assert found.count(True) > 0.9 * len(found)
        (damaged / name).write_bytes(content)


@pytest.mark.parametrize("damage", [b"", b'{"format": "relu', "weights", "newer"])
def test_a_damaged_fit_is_named_and_fitted_again(damage, history, folder, tmp_path):
    output = copy_of(folder, tmp_path / "fits")
    path = output / "2025-01-10.json"
    document = json.loads(path.read_text())
    if damage == "weights":
        damage = json.dumps(document | {"weights": []}).encode()
    if damage == "newer":
        document["source"] = "of another chain"
        damage = sealed_json(document | {"format": "relu_options.PriceSurface/9"})
        path.write_text(damage)
    else:
        path.write_bytes(damage)
    again = "2025-01-10.json cannot be read: .*`fit_history` with this folder"
    with pytest.raises(ValueError, match=again):
        FittedHistory(output)["2025-01-10"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit_history(history, output=output, **OPTIONS)
    told = [str(one.message) for one in caught if "2025-01-10" in str(one.message)]
    if not isinstance(damage, str):
        (message,) = told
        assert message.endswith("fits its date again, as is done now")
    assert contents(output) == contents(folder)


def test_a_process_killed_between_two_files_is_resumed(history, folder, tmp_path):
    """An older failure beside a surface, or the other way round, is replaced."""
    output = copy_of(folder, tmp_path / "fits")
    older = sealed_json({"source": "older", "error": "QuoteError", "reason": "no"})
    (output / "2025-01-10.failed.json").write_text(older)
    fit_history(history, output=output, **OPTIONS)
    assert contents(output) == contents(folder)
    newer = json.loads((output / "2025-01-10.json").read_text())
    text = sealed_json(newer | {"source": "older"})
    (output / "2025-01-08.json").write_text(text)
    fit_history(history, output=output, **OPTIONS)
    assert contents(output) == contents(folder)


def test_a_folder_that_lost_or_damaged_its_options_is_refused(
    history, folder, tmp_path
):
    output = copy_of(folder, tmp_path / "fits")
    options = output / "_options.json"
    options.write_text(options.read_text().replace("24", "25"))
    with pytest.raises(ValueError, match=r"_options\.json cannot be .*restore it"):
        fit_history(history, output=output, **OPTIONS)
    options.unlink()
    with pytest.raises(ValueError, match=r"not _options\.json, .*restore it, choose"):
        fit_history(history, output=output, **OPTIONS)


def test_what_is_no_fit_is_passed_over_and_folders_are_named(history, folder, tmp_path):
    output = copy_of(folder, tmp_path / "fits")
    (output / "2025-99-99.json").write_text("{}")
    (output / "0000000000.json").write_text("{}")
    (output / "2025-01-06 copy.json").write_text("{}")
    assert FittedHistory(output).dates.equals(FittedHistory(folder).dates)
    (output / "2025-01-10.json").unlink()
    (output / "2025-01-10.json").mkdir()
    with pytest.raises(ValueError, match=r"2025-01-10\.json cannot be .*director"):
        FittedHistory(output)["2025-01-10"]
    with (
        pytest.warns(UserWarning, match=r"2025-01-10\.json cannot be read"),
        pytest.raises(OSError, match=r"not written, .*2025-01-10\.json"),
    ):
        fit_history(history, output=output, **OPTIONS)


def test_a_full_disk_stops_the_fit_and_is_told(history, folder, tmp_path, monkeypatch):
    output = tmp_path / "fits"
    dates = ["2025-01-06", "2025-01-07"]
    fit_history(history, dates=dates, output=output, **OPTIONS)
    before = contents(output)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("relu_options.files.os.fsync", full)
        with pytest.raises(OSError, match=r"No space left .*2025-01-08\.failed\.json"):
            fit_history(history, output=output, **OPTIONS)
    assert contents(output) == before
    fit_history(history, output=output, **OPTIONS)
    assert contents(output) == contents(folder)


TOGETHER = """
import sys, time
from pathlib import Path
from relu_options.fitting.history import fit_history
from relu_options.market_data.history import ChainHistory

history, start, me = ChainHistory(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
fit_history(history, dates=history.dates[:1], kinks=24)  # compiled
for place, output in enumerate(sys.argv[4:]):
    (start / f"{place} {me}").touch()
    while len(list(start.glob(f"{place} *"))) < 2:
        time.sleep(0.001)
    smoothing = "auto" if place or me == "first" else 0.5
    try:
        fit_history(history, output=output, kinks=24, smoothing=smoothing)
        print(smoothing)
    except ValueError as error:
        print("fitted otherwise" in str(error))
"""


def test_two_processes_fit_into_one_folder(history, folder, tmp_path):
    """With the same options to the same bytes; of two with others, one is told."""
    expected = contents(folder)
    rounds = [tmp_path / "others", *(tmp_path / str(place) for place in range(2))]
    command = [sys.executable, "-c", TOGETHER, str(history.path), str(tmp_path)]
    running = [
        subprocess.Popen([*command, me, *map(str, rounds)], stdout=subprocess.PIPE)
        for me in ("first", "second")
    ]
    while any(process.poll() is None for process in running):
        for output in rounds:  # what can be read is whole, at any time
            FittedHistory(output).to_frame()
            assert set(FittedHistory(output).failures["error"]) <= {"QuoteError"}
        time.sleep(0.05)
    lines = [process.communicate()[0].decode().split() for process in running]
    assert [process.returncode for process in running] == [0, 0]
    (told,) = {line[0] for line in lines} - {"True"}
    assert {line[0] for line in lines} == {told, "True"}
    assert [line[1:] for line in lines] == [["auto"] * 2] * 2
    if told != "auto":
        folder = tmp_path / "one"
        fit_history(history, output=folder, smoothing=float(told), **OPTIONS)
    assert contents(rounds.pop(0)) == contents(folder)
    for output in rounds:
        assert contents(output) == expected


def test_a_worker_that_dies_is_told_of(history, tmp_path):
    class Dying(Executor):
        def submit(self, function, /, *args, **kwargs):
            raise BrokenExecutor("a child process terminated abruptly")

    with pytest.raises(BrokenExecutor, match="a worker died with 0 of 5 dates done"):
        fit_history(history, output=tmp_path, executor=Dying(), **OPTIONS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_jobs": 0}, "n_jobs must be a positive number or -1, not 0"),
        ({"n_jobs": 1.5}, "n_jobs must be"),
        ({"kinks": 3}, "kinks must be a whole number from 8 on"),
        ({"smoothing": 0.0}, "smoothing must be positive"),
        ({"smoothing": "much"}, "smoothing must be 'auto'"),
        ({"dates": slice("2030-01-01", None)}, "there is no chain to fit"),
    ],
)
def test_requests_must_make_sense(options, message, history):
    with pytest.raises(ValueError, match=message):
        fit_history(history, **options)


def test_unknown_dates_and_empty_histories_are_refused(history, tmp_path):
    with pytest.raises(KeyError, match="no chain of 1 of 1 dates, first 2025-01-09"):
        fit_history(history, dates=["2025-01-09"])
    with pytest.raises(ValueError, match="there is no chain to fit in ChainHistory"):
        fit_history(ChainHistory(tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file, and fits are in a folder"):
        FittedHistory(tmp_path / "file")


def test_nothing_is_said_of_a_silent_fit(history, capfd):
    """In tests and notebooks, where standard error is no terminal."""
    fit_history(history, dates=["2025-01-06"], progress=True, **OPTIONS)
    assert capfd.readouterr() == ("", "")


def test_the_picture_shows_the_maturities_there_are_and_gaps(folder, tmp_path):
    ax = FittedHistory(folder).plot()
    assert not ax.lines  # one expiry is beyond 30 days, the other before 91
    for name, value in {"2025-01-06": 0.2, "2025-01-08": 0.3}.items():
        statistics = dict.fromkeys(fitting._STATISTICS, 0.0)
        statistics |= {"volatility_30d": value, "volatility_91d": None}
        text = sealed_json({"statistics": statistics})
        (tmp_path / f"{name}.json").write_text(text)
    failed = sealed_json({"error": "QuoteError", "reason": "no"})
    (tmp_path / "2025-01-07.failed.json").write_text(failed)
    lines = {line.get_label(): line for line in FittedHistory(tmp_path).plot().lines}
    assert set(lines) == {"7 days", "30 days", "182 days", "365 days"}
    np.testing.assert_array_equal(lines["30 days"].get_ydata(), [20.0, np.nan, 30.0])


def test_an_empty_fitted_history_has_empty_tables(tmp_path):
    fitted = FittedHistory(tmp_path)
    assert repr(fitted) == "FittedHistory(no date)"
    assert fitted.to_frame().empty
    assert fitted.failures.empty
    with pytest.raises(KeyError, match="there is none of any date"):
        fitted["2025-01-06"]

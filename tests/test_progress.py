import io
import json
import re
import sys
from types import SimpleNamespace

import nbformat
import pytest
from nbclient import NotebookClient

from relu_options import progress
from relu_options.progress import has_reader, progress_bar, with_progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def terminal(monkeypatch):
    """Standard error, from now on a terminal."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    return screen


def test_a_terminal_shows_a_bar_that_is_asked_for(monkeypatch):
    screen = terminal(monkeypatch)
    assert list(with_progress("abc", "letters", 3, progress=True)) == ["a", "b", "c"]
    assert "letters: 100%" in screen.getvalue()
    assert "3/3" in screen.getvalue()


def test_a_bar_appears_unasked_once_a_job_is_long(monkeypatch):
    screen = terminal(monkeypatch)
    for _ in with_progress(range(3), "short", 3, progress=None):
        pass
    assert screen.getvalue() == ""
    monkeypatch.setattr(progress, "LONG_JOB", 1e-9)
    with progress_bar("long", 2, progress=None) as bar:
        bar.set_postfix_str("loss=0.5", refresh=False)
        bar.update(2)
    assert "long: 100%" in screen.getvalue()
    assert "loss=0.5" in screen.getvalue()


@pytest.mark.parametrize("asked", [True, False, None])
def test_nothing_is_written_where_nobody_reads(asked, capfd):
    """In a pipe, as in tests; nor anywhere, if so asked."""
    assert list(with_progress(range(3), "numbers", 3, asked)) == [0, 1, 2]
    assert capfd.readouterr() == ("", "")


def test_no_bar_is_shown_that_is_refused(monkeypatch):
    screen = terminal(monkeypatch)
    list(with_progress(range(3), "numbers", 3, progress=False))
    assert screen.getvalue() == ""


@pytest.mark.parametrize("answers", [True, False])
def test_a_notebook_has_a_reader_if_it_may_ask(answers, monkeypatch):
    kernel = SimpleNamespace(_allow_stdin=answers)
    shell = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=kernel))
    monkeypatch.setitem(sys.modules, "IPython", shell)
    assert has_reader() is answers


class Live(NotebookClient):
    """A notebook that somebody has open: its cells may ask for input."""

    async def async_start_new_kernel_client(self):
        client = await super().async_start_new_kernel_client()
        client.allow_stdin = True
        return client


@pytest.mark.parametrize("client", [Live, NotebookClient])
def test_jupyter_shows_the_bar_and_a_notebook_that_is_only_run_does_not(client):
    cell = (
        "import sys; sys.path.insert(0, '.')\n"
        "from relu_options.progress import with_progress\n"
        "total = sum(with_progress(range(3), 'numbers', 3, progress=True))"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    client(notebook, timeout=600, kernel_name="python3").execute()
    shown = json.dumps(notebook.cells[0].outputs)
    assert bool(re.search(r"numbers", shown)) is (client is Live)
    assert "IProgress" not in shown

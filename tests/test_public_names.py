import subprocess
import sys

import pytest

import relu_options as ro


def test_every_public_name_exists_in_a_fresh_process():
    """Without an import of the submodule before; names and modules alike."""
    script = (
        "import relu_options as ro\n"
        "for name in ro.__all__:\n"
        "    value = getattr(ro, name)\n"
        "    home = ro._HOMES[name]\n"
        "    if home == 'relu_options':\n"
        "        assert value.__name__ == f'relu_options.{name}', name\n"
    )
    for first in ("market_data", "arbitrage", "errors", "QuoteError", "fit_curve"):
        assert first in dir(ro)
    run = subprocess.run(
        [sys.executable, "-c", f"import relu_options as ro; ro.arbitrage\n{script}"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert run.stderr == ""
    assert run.returncode == 0


def test_the_package_shows_its_names_and_no_others():
    assert set(dir(ro)) == {*ro._HOMES, "__version__"}
    assert ro.errors.QuoteError is ro.QuoteError
    absent = "fit"
    with pytest.raises(AttributeError, match="'relu_options' has no attribute 'fit'"):
        getattr(ro, absent)

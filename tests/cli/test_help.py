"""`expunge --help` and what every verb says of itself."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

import expunge as ex
from expunge.cli import app
from shell import Shell

VERBS = ("demo", "methods", "data", "check", "unlearn", "run", "audit", "report")
HEAVY = ("torch", "sklearn", "scipy", "numpy", "matplotlib", "pydantic", "yaml")
COMMAND = "import sys; from expunge.cli import main; sys.argv = ['expunge', '--help']; main()"


def test_these_are_the_verbs() -> None:
    assert {c.name or c.callback.__name__ for c in app.registered_commands if c.callback} >= set(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_an_example_that_starts_with_it(expunge: Shell, verb: str) -> None:
    outcome = expunge(verb, "--help")
    assert outcome.code == 0
    text = " ".join(outcome.out.split())
    example = text.split("Example:")[1]
    assert f"expunge {verb}" in example
    assert "--help" in text


def test_the_overview_names_every_verb_and_shell_completion(expunge: Shell) -> None:
    outcome = expunge("--help")
    assert outcome.code == 0
    assert all(f" {verb} " in outcome.out for verb in VERBS)
    assert "--install-completion" in outcome.out
    assert "expunge demo" in outcome.out  # where to begin


def test_version(expunge: Shell) -> None:
    outcome = expunge("--version")
    assert (outcome.code, outcome.out.strip()) == (0, ex.__version__)


def test_an_unknown_verb_and_an_unknown_option_end_with_2(expunge: Shell) -> None:
    assert expunge("lern").code == 2
    assert expunge("run", "run.yaml", "--sedes", "0-1").code == 2


def test_help_does_not_import_what_only_work_needs() -> None:
    script = f"import atexit; atexit.register(lambda: print('LOADED', *sys.modules)); {COMMAND}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split("LOADED")[1].split())
    assert not loaded & set(HEAVY)
    assert "typer" in loaded  # the list is that of the process that printed the help


def test_help_is_there_in_under_half_a_second() -> None:
    """Best of five; of the processor's time, which does not depend on what else the machine is doing."""
    seconds = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", COMMAND], check=True, capture_output=True, timeout=60)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.5, seconds

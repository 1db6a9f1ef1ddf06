"""The benchmarks start as `make bench` calls them: they measure for hours; a wrong import should not wait for it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CALLS = re.compile(r"^\t\$\(BIN\)/python (benchmarks/\w+\.py)", re.MULTILINE)
CALLED = sorted(set(CALLS.findall((ROOT / "Makefile").read_text())))


def asked_for_help(script: str) -> subprocess.CompletedProcess[str]:
    """Called from the repository's root, as make does."""
    command = [sys.executable, script, "--help"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_every_benchmark_that_make_calls_starts() -> None:
    assert len(CALLED) >= 12
    with ThreadPoolExecutor(os.cpu_count()) as workers:  # all that takes time is imports
        done = dict(zip(CALLED, workers.map(asked_for_help, CALLED), strict=True))
    assert {script: one.stderr for script, one in done.items() if one.returncode} == {}
    assert [script for script, one in done.items() if f"usage: {Path(script).name}" not in one.stdout] == []


@pytest.mark.parametrize("script", CALLED)
def test_a_missed_promise_is_an_exit_code(script: str) -> None:
    text = (ROOT / script).read_text()
    assert "def main() -> int:" in text
    assert text.endswith("sys.exit(main())\n")

"""What `make demo` does, from nothing, with the real tools."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e
REPOSITORY = Path(__file__).parents[2]


def figures(text: str) -> dict[str, float]:
    """Figures by name in what the command prints at its end."""
    return {name: float(value) for name, value in re.findall(r"^  (\w+_meV_per_\w+) +([\d.]+)$", text, re.MULTILINE)}


@pytest.mark.long
def test_the_bundled_example_converges(tmp_path: Path) -> None:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "DISTILL_"))},
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PYTHONPATH": str(REPOSITORY),
    }
    command = [sys.executable, "-m", "flows.distill"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "runs" / "silicon" / "report.json").read_text())
    assert report["converged"]
    assert not report["stub"]
    assert report["labels"]["computed"] > 330, "the pool, structures for properties, and 30 of molecular dynamics"
    runs = report["metrics"]["trajectory_errors"]["runs"]
    assert [(one["run"], one["labelled"]) for one in runs[:2]] == [("NVE", 10), ("NVT 300 K", 10)]
    assert runs[1]["force_mae_meV_per_A"] < 100
    assert report["fidelity"]["teacher"]["force_mae_meV_per_A"] < 60
    assert "silicon: converged" in done.stdout
    said, written = figures(done.stdout), figures((REPOSITORY / "README.md").read_text())
    assert list(said) == list(written)
    assert said == pytest.approx(written, rel=0.2), "README: the figures of make demo"
    assert "pace_train: " in done.stderr + done.stdout, "no progress was shown"

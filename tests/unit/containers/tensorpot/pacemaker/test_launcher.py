from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from containers.tensorpot.pacemaker.launcher import Keeper, kept, minimize


def texts(folder: Path) -> dict[int, str]:
    return {iteration: path.read_text() for iteration, path in kept(folder).items()}


def test_each_potential_is_kept_and_counts_on_over_cycles_and_interruptions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("kept_000040.yaml").write_text("before")
    keep = Keeper()
    for cycle, text in ((0, "one"), (0, "two"), (1, "three")):
        Path(f"interim_potential_{cycle}.yaml").write_text(text)
        keep(current_fit_cycle=cycle, basis_config=None)
    assert list(texts(tmp_path).items()) == [(43, "three"), (42, "two"), (41, "one"), (40, "before")]


def test_a_link_is_no_potential_of_ours(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("")
    (tmp_path / "kept_000009.yaml").symlink_to(tmp_path / "secret")
    assert kept(tmp_path) == {}


class Fitter:
    """Calls back as pacemaker does: what keeps the potential is called last, and not when it stops early."""

    def __init__(self, last: int) -> None:
        self.last, self.calls, self.kept = last, 0, list[float]()

    def global_callback(self, x: np.ndarray[Any, Any]) -> None:
        self.kept.append(float(x @ x))

    def callback(self, x: np.ndarray[Any, Any]) -> None:
        self.calls += 1
        if self.calls == self.last:
            raise StopIteration
        self.global_callback(x)


@pytest.mark.parametrize("method", ["BFGS", "L-BFGS-B"])
def test_the_potential_of_an_early_stop_is_kept_too(method: str) -> None:
    fitter, start = Fitter(3), np.linspace(1, 2, 5)
    scale = np.arange(1, 6)
    loss = lambda x: (float(scale @ x**4), 4 * scale * x**3)  # noqa: E731
    result = minimize(loss, start, method=method, jac=True, callback=fitter.callback, options={"maxiter": 50})
    assert (result.status, result.success, "StopIteration" in result.message) == (99, False, True)
    assert (fitter.calls, len(fitter.kept)) == (3, 3)
    assert fitter.kept[-1] == float(result.x @ result.x)

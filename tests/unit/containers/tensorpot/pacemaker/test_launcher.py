"""What the launcher keeps of a fit, and its BFGS, which walks as scipy's own does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize as scipy_minimize
from scipy.optimize import rosen, rosen_der

from containers.tensorpot.pacemaker.bfgs import bfgs
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
    (tmp_path / "secret").write_text("")
    (tmp_path / "kept_000009.yaml").symlink_to(tmp_path / "secret")
    assert 9 not in kept(tmp_path)


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


# ---- the BFGS of a fit walks as scipy's own does


N = 20
COUNTED = ("nit", "nfev", "njev", "status", "message")
METHODS: tuple[Any, Any] = ("BFGS", bfgs)


def walk(method: Any, start: np.ndarray[Any, Any], **options: float) -> tuple[Any, np.ndarray[Any, Any]]:
    path: list[np.ndarray[Any, Any]] = []

    def loss(x: np.ndarray[Any, Any]) -> tuple[float, np.ndarray[Any, Any]]:
        return rosen(x), rosen_der(x)

    result = scipy_minimize(
        loss, start, method=method, jac=True, callback=lambda x: path.append(x.copy()), options=options
    )
    return result, np.array(path)


@pytest.mark.filterwarnings("ignore:Maximum number of iterations")
def test_every_step_is_scipys() -> None:
    start = np.random.default_rng(0).normal(size=N)
    options = {"maxiter": 25, "gtol": 1e-8}
    (theirs, their_path), (ours, our_path) = (walk(one, start, **options) for one in METHODS)
    np.testing.assert_allclose(our_path, their_path, atol=1e-6)
    assert {name: ours[name] for name in COUNTED} == {name: theirs[name] for name in COUNTED}
    assert set(ours) == set(theirs) - {"hess_inv"}  # pacemaker logs no result where a count is missing: a crash to us
    assert ours.fun == pytest.approx(theirs.fun)


def test_it_ends_at_the_minimum_and_at_a_loss_that_is_no_number_as_scipy_does() -> None:
    start = np.full(N, 1.1)
    (theirs, _), (ours, _) = (walk(one, start, gtol=1e-8, maxiter=500) for one in METHODS)
    assert (ours.success, ours.status, ours.message) == (True, theirs.status, theirs.message)
    np.testing.assert_allclose(ours.x, np.ones(N), atol=1e-6)

    def loss(x: np.ndarray[Any, Any]) -> tuple[float, np.ndarray[Any, Any]]:
        return (float("nan") if abs(x[0]) < 0.5 else float(x @ x)), 2 * x

    ends = [
        scipy_minimize(
            loss, np.ones(N), method=one, jac=True, callback=lambda x: None, options={"gtol": 1e-8, "maxiter": 9}
        )
        for one in METHODS
    ]
    assert ends[0].status == ends[1].status != 0
    assert ends[0].message == ends[1].message


def test_a_callback_stops_it_as_it_stops_scipys() -> None:
    def stopped(method: Any) -> Any:
        seen: list[np.ndarray[Any, Any]] = []

        def callback(x: np.ndarray[Any, Any]) -> None:
            seen.append(x)
            if len(seen) == 3:
                raise StopIteration

        return scipy_minimize(
            rosen, np.zeros(N), method=method, jac=rosen_der, callback=callback, options={"maxiter": 9}
        )

    theirs, ours = (stopped(one) for one in METHODS)
    assert (ours.status, ours.success, ours.message) == (theirs.status, theirs.success, theirs.message)
    assert (ours.nit, ours.status) == (3, 99)
    np.testing.assert_allclose(ours.x, theirs.x)

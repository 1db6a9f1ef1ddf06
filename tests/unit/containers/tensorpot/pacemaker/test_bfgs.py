"""The BFGS of a fit walks as scipy's own does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize, rosen, rosen_der

from containers.tensorpot.pacemaker.bfgs import bfgs

N = 20
COUNTED = ("nit", "nfev", "njev", "status", "message")
METHODS: tuple[Any, Any] = ("BFGS", bfgs)


def walk(method: Any, start: np.ndarray[Any, Any], **options: float) -> tuple[Any, np.ndarray[Any, Any]]:
    path: list[np.ndarray[Any, Any]] = []

    def loss(x: np.ndarray[Any, Any]) -> tuple[float, np.ndarray[Any, Any]]:
        return rosen(x), rosen_der(x)

    result = minimize(loss, start, method=method, jac=True, callback=lambda x: path.append(x.copy()), options=options)
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


def test_it_ends_at_the_minimum_as_scipy_does() -> None:
    start = np.full(N, 1.1)
    (theirs, _), (ours, _) = (walk(one, start, gtol=1e-8, maxiter=500) for one in METHODS)
    assert (ours.success, ours.status, ours.message) == (True, theirs.status, theirs.message)
    np.testing.assert_allclose(ours.x, np.ones(N), atol=1e-6)


def test_a_loss_that_is_no_number_ends_as_with_scipy() -> None:
    def loss(x: np.ndarray[Any, Any]) -> tuple[float, np.ndarray[Any, Any]]:
        return (float("nan") if abs(x[0]) < 0.5 else float(x @ x)), 2 * x

    ends = [
        minimize(loss, np.ones(N), method=one, jac=True, callback=lambda x: None, options={"gtol": 1e-8, "maxiter": 9})
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

        return minimize(rosen, np.zeros(N), method=method, jac=rosen_der, callback=callback, options={"maxiter": 9})

    theirs, ours = (stopped(one) for one in METHODS)
    assert (ours.status, ours.success, ours.message) == (theirs.status, theirs.success, theirs.message)
    assert (ours.nit, ours.status) == (3, 99)
    np.testing.assert_allclose(ours.x, theirs.x)

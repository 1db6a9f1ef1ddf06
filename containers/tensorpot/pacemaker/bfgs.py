"""BFGS that updates its inverse Hessian in place, by two vectors; a `method` of scipy.optimize.minimize.

scipy's BFGS makes the same update as two products of dense matrices. With n parameters, an iteration costs 4 n^3
operations beside the evaluation of the loss, and memory for five matrices of n x n. The update by two vectors costs
4 n^2 operations and one matrix. All else is scipy's: the line search, the limits, the messages. Source: Nocedal and
Wright, Numerical Optimization (2006), equation 6.17 multiplied out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.linalg.blas import dsymv, dsyr, dsyr2
from scipy.optimize import OptimizeResult
from scipy.optimize._optimize import _line_search_wolfe12, _LineSearchError, _status_message

Vector = np.ndarray[Any, np.dtype[np.float64]]

SUCCESS, LIMIT_REACHED, NO_WAY_DOWN, NOT_A_NUMBER, STOPPED = 0, 1, 2, 3, 99
MESSAGES = {
    SUCCESS: _status_message["success"],
    LIMIT_REACHED: _status_message["maxiter"],
    NO_WAY_DOWN: _status_message["pr_loss"],
    NOT_A_NUMBER: _status_message["nan"],
    STOPPED: "`callback` raised `StopIteration`.",
}
FLAT_CURVATURE = 1000.0  # scipy's: 1 / (y s) where y s is zero


def bfgs(
    fun: Callable[..., float],
    x0: Vector,
    args: tuple[Any, ...] = (),
    *,
    jac: Callable[..., Vector],
    callback: Callable[[Vector], None],
    maxiter: int,
    gtol: float = 1e-5,
    xrtol: float = 0.0,
    c1: float = 1e-4,
    c2: float = 0.9,
    **_others: object,
) -> OptimizeResult:
    """Minimise `fun` from `x0` as scipy's BFGS does, until `callback` raises StopIteration.

    `gtol` is the largest component of the gradient at which it ends, `xrtol` the relative length of a step.
    """
    evaluations = gradients = 0

    def value(x: Vector) -> float:
        nonlocal evaluations
        evaluations += 1
        return float(fun(x, *args))

    def slope(x: Vector) -> Vector:
        nonlocal gradients
        gradients += 1
        return np.asarray(jac(x, *args), dtype=float)

    x, iterations, status = np.array(x0, dtype=float), 0, SUCCESS
    now, gradient = value(x), slope(x)
    before = now + np.linalg.norm(gradient) / 2  # a first step of length one
    inverse = np.eye(len(x), order="F")  # only its upper triangle is kept
    while np.abs(gradient).max() > gtol and iterations < maxiter:
        direction = -dsymv(1.0, inverse, gradient)
        try:
            length, _, _, now, before, new_gradient = _line_search_wolfe12(
                value, slope, x, direction, gradient, now, before, amin=1e-100, amax=1e100, c1=c1, c2=c2
            )
        except _LineSearchError:
            status = NO_WAY_DOWN
            break
        step = length * direction
        x = x + step
        new_gradient = slope(x) if new_gradient is None else new_gradient
        change, gradient = new_gradient - gradient, new_gradient
        iterations += 1
        try:
            callback(x)
        except StopIteration:
            status = STOPPED
            break
        if np.abs(gradient).max() <= gtol or np.linalg.norm(step) <= xrtol * (xrtol + np.linalg.norm(x)):
            break
        if not np.isfinite(now):
            status = NO_WAY_DOWN
            break
        update(inverse, step, change)
    if status == SUCCESS and iterations >= maxiter:
        status = LIMIT_REACHED
    elif status == SUCCESS and not (np.isfinite(now) and np.isfinite(gradient).all() and np.isfinite(x).all()):
        status = NOT_A_NUMBER
    return OptimizeResult(
        x=x,
        fun=now,
        jac=gradient,
        nit=iterations,
        nfev=evaluations,
        njev=evaluations,  # the loss and its gradient come together
        status=status,
        success=status == SUCCESS,
        message=MESSAGES[status],
    )


def update(inverse: Vector, step: Vector, change: Vector) -> None:
    """Update the inverse Hessian (n, n), its upper triangle, in place for a step and the change of the gradient."""
    along = float(change @ step)
    scale = 1 / along if along else FLAT_CURVATURE
    turned = dsymv(1.0, inverse, change)
    dsyr2(-scale, step, turned, a=inverse, overwrite_a=1)
    dsyr(scale * (scale * float(change @ turned) + 1), step, a=inverse, overwrite_a=1)

"""A running fit as one Markdown artifact of its task run, which is updated now and then and not made anew.

What takes time, drawing and the way to the server, runs in a thread of its own: a slow or dead server never holds up
the fit, and none of its faults ends it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import copy_context
from types import TracebackType
from typing import Any, Self, cast
from uuid import UUID

from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate

from tasks.errors import StepFailed
from tasks.fit_figures import Curves, LiveFit, course, ended_words, markdown
from tasks.fit_pictures import live_curve
from tasks.page_parts import markdown_pictures

SHOW_EVERY_S = 5.0
DRAW_EVERY_S = 30.0  # a drawing takes 0.1 to 0.25 s of a processor, a table next to nothing
END_WITHIN_S = 10.0  # that the end of a fit waits for the server, twice
ARTIFACT_KEY = "fit-live"

Show = Callable[[str], object]
_drawing = threading.Lock()  # matplotlib is not made for several threads, and a sweep has several fits


class FitProgress:
    """The progress function of a step that may be a fit: with the first figures its artifact appears.

    A context manager: when the block is left, the artifact says how the fit ended.

    Args:
        name: of the task run.
        log: takes a line when the artifact cannot be updated, once.
        show: takes the whole text now and then; Prefect's Markdown artifact by default.
        clock: seconds.
        pool: where texts are drawn and shown, one after another; a thread by default.
    """

    def __init__(
        self,
        name: str,
        log: Callable[[str], object],
        show: Show | None = None,
        clock: Callable[[], float] = time.monotonic,
        pool: Executor | None = None,
    ) -> None:
        self._name, self._log, self._clock = name, log, clock
        self._show = show or markdown_artifact(ARTIFACT_KEY, f"{name}: the fit as it runs")
        self._pool, self._context = pool or ThreadPoolExecutor(1, "fit-live"), copy_context()
        self._live, self._ended = LiveFit(), ""
        self._began = clock()
        self._first: tuple[float, float] | None = None  # seconds and iterations at the first figures
        self._far = (0.0, 0.0)
        self._shown = self._drawn = -float("inf")  # when
        self._pictures: dict[str, bytes] = {}
        self._sent: Future[None] | None = None
        self._faults: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._first is not None:
            self._ended = self._ended or _words_of(error)
            self._wait()
            self._send(draw=True)
            self._wait()
        self._pool.shutdown(wait=False)

    def __call__(self, done: float, total: float, text: str = "", figures: Mapping[str, float] | None = None) -> None:
        """Take what the step tells; nothing but figures with an `iteration` is looked at."""
        if not figures or "iteration" not in figures:
            return
        now = self._clock()
        if self._first is None:
            self._first, self._drawn = (now, done), now  # nothing to draw yet
        self._far = (done, total)
        self._live.take(figures)
        if now - self._shown >= SHOW_EVERY_S and (self._sent is None or self._sent.done()):
            self._send(draw=now - self._drawn >= DRAW_EVERY_S)

    def ended(self, metrics: Mapping[str, Any]) -> None:
        """The step has ended well, with these metrics."""
        self._ended = ended_words(metrics)

    def _send(self, draw: bool) -> None:
        self._shown = self._clock()
        if draw:
            self._drawn = self._shown
        curves = self._live.curves() if draw else None
        with self._harmless():  # figures are what the step tells, and may be any
            text = markdown(self._live, self._name, self._when(), self._ended)
            self._sent = self._pool.submit(self._context.run, self._publish, text, curves)

    def _when(self) -> str:
        assert self._first is not None
        now, (done, total) = self._clock(), self._far
        seconds, made = now - self._first[0], done - self._first[1]
        per_s = made / seconds if made > 0 and seconds > 0 else None
        return course(self._live.known["iteration"], done, total, now - self._began, per_s, bool(self._ended))

    def _wait(self) -> None:
        """For what was sent last, but not for a server that does not answer."""
        if self._sent is not None:
            wait([self._sent], timeout=END_WITHIN_S)

    def _publish(self, text: str, curves: Curves | None) -> None:
        with self._harmless():
            if curves is not None:
                with _drawing:
                    self._pictures["learning-curve"] = live_curve(curves)
            picture = markdown_pictures(self._pictures, "learning-curve") if self._pictures else []
            self._show("\n".join([text, *picture]))

    @contextmanager
    def _harmless(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001  a server that has a bad day must not end the run
            if (told := f"{type(error).__name__}: {error}") not in self._faults:
                self._log(f"the artifact of the running fit cannot be updated: {told}")
            self._faults.add(told)


def _words_of(error: BaseException | None) -> str:
    if isinstance(error, StepFailed):
        return f"failed ({error.kind}): {error.message}"
    if isinstance(error, Exception):
        return f"failed ({type(error).__name__})"
    return "cancelled" if error else "well"


def markdown_artifact(key: str, description: str) -> Show:
    """What creates a Markdown artifact of the run that calls, and updates it from then on."""
    made: list[UUID] = []

    def show(text: str) -> None:
        if made:
            get_client(sync_client=True).update_artifact(made[0], ArtifactUpdate(data=text))
        else:
            made.append(cast(UUID, create_markdown_artifact(text, key, description)))  # a flow that is not async

    return show

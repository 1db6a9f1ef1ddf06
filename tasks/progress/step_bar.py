"""Progress of a running step: a bar on a terminal, a log line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from tqdm import tqdm

from containers.contract import Progress
from tasks.progress.live_fit import words

LOG_EVERY_S = 15.0


@contextmanager
def shown_progress(
    name: str, log: Callable[[str], None], clock: Callable[[], float] = time.monotonic
) -> Iterator[Progress]:
    """A progress function for the step called `name`; `clock` gives seconds.

    Figures of a fit are told in place of the step's text, each as it was told last.
    """
    if not sys.stderr.isatty():
        yield _logged(name, log, clock)
        return
    told = _Told()
    with tqdm(
        desc=name, leave=False, dynamic_ncols=True, bar_format="{desc}: {percentage:3.0f}%|{bar}| {postfix}"
    ) as bar:

        def draw(done: float, total: float, text: str = "", figures: Mapping[str, float] | None = None) -> None:
            bar.total = total
            bar.n = done
            bar.set_postfix_str(told(text, figures, short=True), refresh=False)
            bar.refresh()

        yield draw


def to_all(*listeners: Progress) -> Progress:
    """A progress function that tells several."""

    def tell(done: float, total: float, text: str = "", figures: Mapping[str, float] | None = None) -> None:
        for listener in listeners:
            listener(done, total, text, figures)

    return tell


class _Told:
    """A step's words, or those of the fit that it runs."""

    def __init__(self) -> None:
        self._known: dict[str, float] = {}

    def __call__(self, text: str, figures: Mapping[str, float] | None, short: bool = False) -> str:
        self._known.update(figures or {})
        return words(self._known, short) if "iteration" in self._known else text


def _logged(name: str, log: Callable[[str], None], clock: Callable[[], float]) -> Progress:
    last, told = clock(), _Told()

    def tell(done: float, total: float, text: str = "", figures: Mapping[str, float] | None = None) -> None:
        nonlocal last
        said = told(text, figures)
        if clock() - last >= LOG_EVERY_S:
            last = clock()
            log(f"{name}: {done:g} of {total:g} {said}".rstrip())

    return tell

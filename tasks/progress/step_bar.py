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
BAR = "{desc}: {percentage:3.0f}%|{bar}| {postfix}"


@contextmanager
def shown_progress(
    name: str, log: Callable[[str], None], clock: Callable[[], float] = time.monotonic
) -> Iterator[Progress]:
    """A progress function for the step called `name`; `clock` gives seconds.

    The newest figures of a fit stand in place of the step's text.
    """
    known: dict[str, float] = {}
    logged, terminal = clock(), sys.stderr.isatty()
    with tqdm(desc=name, leave=False, dynamic_ncols=True, bar_format=BAR, disable=not terminal) as bar:

        def show(done: float, total: float, text: str = "", figures: Mapping[str, float] | None = None) -> None:
            nonlocal logged
            known.update(figures or {})
            if "iteration" in known:
                text = words(known, short=terminal)
            if terminal:
                bar.total, bar.n = total, done
                bar.set_postfix_str(text, refresh=False)
                bar.refresh()
            elif clock() - logged >= LOG_EVERY_S:
                logged = clock()
                log(f"{name}: {done:g} of {total:g} {text}".rstrip())

        yield show


def to_all(*listeners: Progress) -> Progress:
    """A progress function that calls several."""

    def call(done: float, total: float, text: str = "", figures: Mapping[str, float] | None = None) -> None:
        for listener in listeners:
            listener(done, total, text, figures)

    return call

"""Progress of a running step: a bar on a terminal, a log line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

from containers.contract import Progress

LOG_EVERY_S = 15.0


@contextmanager
def shown_progress(
    name: str, log: Callable[[str], None], clock: Callable[[], float] = time.monotonic
) -> Iterator[Progress]:
    """A progress function for the step called `name`; `clock` gives seconds."""
    if not sys.stderr.isatty():
        yield _logged(name, log, clock)
        return
    with tqdm(
        desc=name, leave=False, dynamic_ncols=True, bar_format="{desc}: {percentage:3.0f}%|{bar}| {postfix}"
    ) as bar:

        def draw(done: float, total: float, text: str = "") -> None:
            bar.total = total
            bar.n = done
            bar.set_postfix_str(text, refresh=False)
            bar.refresh()

        yield draw


def _logged(name: str, log: Callable[[str], None], clock: Callable[[], float]) -> Progress:
    last = clock()

    def tell(done: float, total: float, text: str = "") -> None:
        nonlocal last
        if clock() - last >= LOG_EVERY_S:
            last = clock()
            log(f"{name}: {done:g} of {total:g} {text}".rstrip())

    return tell

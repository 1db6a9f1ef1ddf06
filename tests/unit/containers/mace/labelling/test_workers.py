"""Forked processes that are killed, raise, or are waited for; the work is plain Python."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event, Thread

import pytest

from containers.contract import StepError
from containers.mace.labelling.workers import Crew, Window, WorkerKilled, in_a_process
from containers.processes import processes_for


def squares(places: Sequence[int], bound: int) -> list[int]:
    return [place**2 for place in places]


def windows(count: int, size: int = 4) -> list[Window]:
    return [Window(tuple(range(start, start + size))) for start in range(0, count * size, size)]


def done_by(crew: Crew[list[int]], given: list[Window]) -> dict[int, int | WorkerKilled]:
    """Each place, done exactly once."""
    found: dict[int, int | WorkerKilled] = {}
    for window, answer in crew.results(given):
        values = [answer] * len(window.places) if isinstance(answer, WorkerKilled) else answer
        for place, value in zip(window.places, values, strict=True):
            assert place not in found
            found[place] = value
    return found


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("given", [0, 1, 20])
def test_every_window_is_done_once(count, given):
    with Crew(squares, count) as crew:
        assert done_by(crew, windows(given)) == {place: place**2 for place in range(4 * given)}


def test_processes_work_at_the_same_time():
    def slow(places: Sequence[int], bound: int) -> float:
        started = time.monotonic()
        time.sleep(0.2)
        return started

    with Crew(slow, 2) as crew:
        starts = [started for _, started in crew.results(windows(2))]
    assert abs(starts[0] - starts[1]) < 0.2
    with Crew(squares, 2) as crew:
        for worker in crew._workers:
            worker.process.kill()
            worker.process.join()
        assert done_by(crew, windows(5)) == {place: place**2 for place in range(20)}


def killed_by(places: set[int], log: Path | None = None, how: int = signal.SIGKILL) -> Callable[..., list[int]]:
    """Work whose process dies of some structures."""

    def work(given: Sequence[int], bound: int) -> list[int]:
        if log:
            with log.open("a") as file:
                file.write(f"{list(given)} {bound}\n")
        if places & set(given):
            os.kill(os.getpid(), how)
        return squares(given, bound)

    return work


def test_what_kills_its_process_is_found_by_halving_and_the_rest_is_done():
    with Crew(killed_by({5, 22}), 2, bound=8000) as crew:
        found = done_by(crew, windows(10))
    assert {place for place, value in found.items() if isinstance(value, WorkerKilled)} == {5, 22}
    assert len(found) == 40
    assert str(found[5]) == "its process was killed twice (out of memory?)"
    assert crew.bound == 2000  # halved by each of the two windows, not by their pieces

    # memory that Python itself misses counts as a kill
    def hungry(places: Sequence[int], bound: int) -> list[int]:
        if 3 in places:
            raise MemoryError
        return squares(places, bound)

    with Crew(hungry, 2) as crew:
        found = done_by(crew, windows(3))
    assert isinstance(found.pop(3), WorkerKilled)
    assert len(found) == 11


def test_killing_windows_lower_the_bound_within_limits(tmp_path):
    with Crew(killed_by(set(range(0, 40, 4)), tmp_path / "log"), 1, bound=8000) as crew:
        done_by(crew, windows(12))
    assert crew.bound == 500
    bounds = {line.split("] ")[0]: int(line.split()[-1]) for line in (tmp_path / "log").read_text().splitlines()}
    assert bounds["[44, 45, 46, 47"] == 500  # a whole window
    assert bounds["[36"] < 500  # a piece
    with Crew(killed_by({0}), 1, bound=300) as crew:
        done_by(crew, windows(1))
    assert crew.bound == 300


def test_pieces_have_smaller_bounds_and_a_last_try_and_a_crash_its_signal(tmp_path):
    with Crew(killed_by({0}, how=signal.SIGUSR1), 1) as crew:
        assert str(done_by(crew, windows(1))[0]) == "its process was killed twice (SIGUSR1)"
    with Crew(killed_by({2}, tmp_path / "log"), 1, bound=800) as crew:
        done_by(crew, windows(1))
    assert (tmp_path / "log").read_text().splitlines() == [
        "[0, 1, 2, 3] 800",
        "[0, 1] 400",
        "[2, 3] 400",
        "[2] 200",
        "[3] 200",
        "[2] 100",
    ]


def test_a_structure_that_killed_once_is_tried_again_alone(tmp_path):
    """It may have died of what the other processes took."""

    def work(places: Sequence[int], bound: int) -> list[int]:
        others = len([path for path in tmp_path.iterdir() if path.suffix == ".runs"])
        mark = tmp_path / f"{places[0]}.runs"
        mark.touch()
        first = not (tmp_path / "died").exists()
        if places == (0,) and first:
            (tmp_path / "died").touch()
            mark.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.01)
        mark.unlink()
        return [others if not first and places == (0,) else -1]

    with Crew(work, 3) as crew:
        found = done_by(crew, windows(30, size=1))
    assert len(found) == 30
    assert found[0] == 0


def test_what_the_work_raises_and_a_process_that_ends_by_itself_are_errors():
    def work(places: Sequence[int], bound: int) -> list[int]:
        raise StepError(f"odd structure {places[0]}")

    with pytest.raises(StepError, match="odd structure 0"), Crew(work, 2) as crew:
        done_by(crew, windows(1))
    assert multiprocessing.active_children() == []

    def ends(places: Sequence[int], bound: int) -> list[int]:
        os._exit(3)

    with pytest.raises(StepError, match="exit code 3"), Crew(ends, 1) as crew:
        done_by(crew, windows(1))


def test_work_in_a_process_of_its_own_which_one_with_threads_never_forks():
    assert in_a_process(os.getpid) != os.getpid()
    assert in_a_process(lambda: os.kill(os.getpid(), signal.SIGKILL)) == WorkerKilled(signal.SIGKILL)
    if sys.platform != "linux":
        assert processes_for(4) == 0
        return
    assert in_a_process(lambda: processes_for(4)) == 4  # one that has no threads, whatever ran here before
    end = Event()
    thread = Thread(target=end.wait)
    thread.start()
    try:
        assert processes_for(4) == 0
    finally:
        end.set()
        thread.join()

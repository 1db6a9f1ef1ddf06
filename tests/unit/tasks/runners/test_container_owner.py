"""Whether the process that started a container is surely gone; in doubt it is not."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from pydantic import ValidationError

from tasks.runners.container_owner import Owner, is_gone, this_process


def owner(**changes: object) -> Owner:
    return this_process().model_copy(update=changes)


def test_this_process_runs() -> None:
    assert not is_gone(this_process())


def test_a_child_is_gone_when_it_has_ended() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = int(_stat(child.pid)[19])
    running = owner(pid=child.pid, started=started)
    assert not is_gone(running)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has asked how
    assert _stat(child.pid)[0] == "Z"
    assert is_gone(running)
    child.communicate()
    assert is_gone(running)


def _stat(pid: int) -> list[str]:
    with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123  as `man 5 proc` says
        return file.read().rpartition(")")[2].split()


def test_another_process_that_got_the_number_later_is_not_it() -> None:
    assert is_gone(owner(started=this_process().started - 1))


def test_among_other_process_numbers_nothing_is_sure() -> None:
    assert not is_gone(owner(namespace="pid:[1]", pid=2**22 + 1))


def test_on_another_host_nothing_is_sure() -> None:
    assert not is_gone(owner(host="elsewhere", boot="another", pid=2**22 + 1))


def test_a_restart_ends_all_that_ran_on_this_host() -> None:
    assert is_gone(owner(boot="before"), running=False)
    assert is_gone(owner(boot="before", namespace="pid:[1]"), running=False)


def test_what_runs_under_another_boot_is_another_machine_of_the_same_name() -> None:
    assert not is_gone(owner(boot="before"), running=True)


def test_a_process_that_proc_hides_is_taken_to_live(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(pid: int, signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr("tasks.runners.container_owner.os.kill", refused)
    monkeypatch.setattr("tasks.runners.container_owner._started", lambda pid: None)
    assert not is_gone(owner())


def test_labels_and_back() -> None:
    assert Owner.of({**this_process().labels(), "other": "label"}) == this_process()


def test_labels_that_are_not_ours_are_refused() -> None:
    labels = this_process().labels()
    for name in labels:
        with pytest.raises(ValidationError):
            Owner.of({other: value for other, value in labels.items() if other != name})
    with pytest.raises(ValidationError):
        Owner.of({**labels, "mace-to-ace.pid": "many"})

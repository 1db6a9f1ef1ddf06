from __future__ import annotations

from containers.tensorpot.fit.log import TAIL_LINES, Closing, FitLog

LINES = """\
2026 I - Fitting dataset size: 60 structures / 3710 atoms
2026 I - Test dataset size: 15 structures / 957 atoms
2026 I - Total number of functions: 100 / number of parameters: 464
2026 I - Initial state:#0    (1 evals):        Loss: 1.0470e+00 | Time/eval: 4107.93 mcs/at
2026 I - Initial(TEST):#0    (1 evals):        Loss: 1.0197e+00 | Time/eval:   0.00 mcs/at
2026 I - Iteration   #1    (4 evals):        Loss: 5.6078e-01 | Time/eval: 206.75 mcs/at
2026 I - Optimization result(success=False, status=1, message=Maximum number of iterations has been exceeded., \
nfev=38, njev=38)
"""


def fed(text: str) -> FitLog:
    log = FitLog()
    for line in text.splitlines(keepends=True):
        log.feed(line)
    return log


def test_what_a_fit_says() -> None:
    log = fed(LINES)
    assert log.structures == {"Fitting": 60, "Test": 15}
    assert log.shapes == [(100, 464)]
    assert log.closing == Closing(False, 1, "Maximum number of iterations has been exceeded.", 38)
    assert log.evaluations == 38
    assert [log.memory_refused, log.early_stop, log.new_reference] == [False] * 3


def test_a_new_step_of_a_ladder_forgets_the_end_of_the_last() -> None:
    assert fed(LINES + "Total number of functions: 150 / number of parameters: 700\n").closing is None


def test_memory_early_stop_and_a_new_reference_are_seen() -> None:
    assert fed("tensorflow ResourceExhaustedError: OOM when allocating tensor").memory_refused
    assert fed("numpy MemoryError: Unable to allocate").memory_refused
    assert fed("EARLY STOPPING: Too small").early_stop
    assert fed("`reference_energy` will be computed automatically.").new_reference


def test_the_tail_is_short() -> None:
    log = fed("\n".join(str(number) for number in range(100)))
    assert list(log.tail) == [str(number) for number in range(100 - TAIL_LINES, 100)]


def test_the_force_share_in_use_is_read() -> None:
    assert fed("Loss function specification: LossFunctionSpecification(kappa=0.3, L1=1e-08, L2=1e-08)").kappa == 0.3


def test_a_library_that_finds_no_room_is_a_lack_of_memory() -> None:
    assert fed("x.so: failed to map segment from shared object").memory_refused
    assert not fed("x.so: failed to map segment from shared object: Operation not permitted").memory_refused

from __future__ import annotations

import math

from containers.tensorpot.fit.log import TAIL_LINES, Closing, FitLog, Spoken

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
    assert log.microseconds_per_atom == [4107.93, 206.75]
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


TABLES = """\
2026 I - Total number of functions: 12 / number of parameters: 60
2026 I - Loss function specification: LossFunctionSpecification(kappa=0.3, L1=1e-08, L2=1e-08, DeltaRad=(0, 0, 0))
2026 I - Iteration   #2    (4 evals):        Loss: 1.3719e+00 | RMSE Energy(low): 1031.75 | Time/eval: 444.93 mcs/at
2026 I -
--------------------------------------------FIT STATS--------------------------------------------
Iteration:  #3   Loss:    Total:  1.0256e+00 (100%)
                         Energy:  2.7909e-01 ( 27%)
Number of params./funcs:     60/12                                   Avg. time:     427.91 mcs/at
-------------------------------------------------------------------------------------------------
           Energy/at, meV/at   Energy_low/at, meV/at      Force, meV/A        Force_low, meV/A
   RMSE:          631.42               631.42               910.76                  910.76
    MAE:          402.62               402.62               520.57                  520.57
 MAX_AE:         1240.21              1240.21              4119.64                 4119.64
-------------------------------------------------------------------------------------------------
2026 I -
--------------------------------------------TEST STATS--------------------------------------------
Iteration:  #3   Loss:    Total:  2.9351e-01 (100%)
Number of params./funcs:     60/12                                   Avg. time:       0.00 mcs/at
    MAE:          323.67               323.67               326.18                  326.18
 MAX_AE:          808.47               808.47               842.39                  842.39
"""


def test_the_tables_give_what_the_metrics_files_lack() -> None:
    log = fed(TABLES)
    assert log.kappa == 0.3
    assert log.spoken[0, "train", 2] == Spoken(microseconds_per_atom=444.93)
    assert log.spoken[0, "train", 3] == Spoken(402.62, 1240.21, 4119.64, 427.91)
    assert log.spoken[0, "validation", 3] == Spoken(323.67, 808.47, 842.39)


def test_a_new_step_of_a_ladder_has_its_own_tables() -> None:
    log = fed(TABLES + TABLES.replace("402.62", "1.5"))
    assert log.spoken[0, "train", 3].energy_mae_meV_per_atom == 402.62
    assert log.of_last_fit()[0, "train", 3].energy_mae_meV_per_atom == 1.5


def test_an_error_that_is_no_number_is_read() -> None:
    told = fed(TABLES.replace("1240.21", "nan")).spoken[0, "train", 3].energy_max_meV_per_atom
    assert told is not None
    assert math.isnan(told)


def test_a_library_that_finds_no_room_is_a_lack_of_memory() -> None:
    assert fed("x.so: failed to map segment from shared object").memory_refused
    assert not fed("x.so: failed to map segment from shared object: Operation not permitted").memory_refused

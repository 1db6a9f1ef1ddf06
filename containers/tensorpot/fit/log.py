"""What pacemaker says while it fits, read line by line. Pure."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field

TAIL_LINES = 15

SIZE = re.compile(r"(Fitting|Test) dataset size: (\d+) structures")
SHAPE = re.compile(r"Total number of functions: (\d+) / number of parameters: (\d+)")
ITERATION = re.compile(r"(?:Iteration|Initial)\D*#(\d+)\s+\((\d+) evals\).*Time/eval:\s*([\d.]+) mcs/at")
CLOSING = re.compile(r"Optimization result\(success=(\w+), status=(-?\d+), message=(.*?), nfev=(\d+)")
KAPPA = re.compile(r"LossFunctionSpecification\(kappa=([\d.e+-]+),")
MEMORY = re.compile(
    r"ResourceExhausted|MemoryError|std::bad_alloc|OOM when allocating|Cannot allocate memory|failed to allocate memory"
    r"|failed to map segment from shared object(?!: Operation not permitted)"
    r"|zlib\.error: Error -4\b"  # Z_MEM_ERROR
)
NEW_REFERENCE = "`reference_energy` will be computed automatically"
EARLY_STOP_TOO_LATE = "TestLossChangeTooSmallException"  # early stopping after the last iteration, which nobody catches

TITLE = re.compile(r"-{44}([A-Za-z][A-Za-z :_]*)-{44}")
TABLE_ITERATION = re.compile(r"Iteration:\s+#(\d+)")
TABLE_TIME = re.compile(r"Avg\. time:\s*([\d.]+) mcs/at")
TABLE_ERRORS = re.compile(r"\s*(MAE|MAX_AE):\s+(\S+)\s+\S+\s+(\S+)")


@dataclass(frozen=True)
class Closing:
    """How the optimizer says that it ended (scipy's OptimizeResult)."""

    success: bool
    status: int
    message: str
    evaluations: int


@dataclass
class Spoken:
    """Figures that pacemaker prints and leaves out of its metrics files; None: not told."""

    energy_mae_meV_per_atom: float | None = None
    energy_max_meV_per_atom: float | None = None
    force_max_meV_per_A: float | None = None
    microseconds_per_atom: float | None = None


Place = tuple[int, str, int]
"""Which fit in a ladder or of the cycles (from 0), "train" or "validation", and the iteration pacemaker names."""


@dataclass
class FitLog:
    """What is known from the lines fed so far."""

    structures: dict[str, int] = field(default_factory=dict)  # "Fitting" and "Test", as pacemaker counts them
    shapes: list[tuple[int, int]] = field(default_factory=list)  # functions and parameters of each fit of a ladder
    evaluations: int = 0  # over all steps of a ladder
    evaluations_before: int = 0  # in the steps that have ended
    microseconds_per_atom: list[float] = field(
        default_factory=list
    )  # one an evaluation it tells of, the first includes tracing
    closing: Closing | None = None
    kappa: float | None = None  # the force share in use, also where it was chosen automatically
    memory_refused: bool = False
    early_stop: bool = False
    early_stop_too_late: bool = False
    new_reference: bool = False  # pacemaker replaced the reference energies of the whole set
    spoken: dict[Place, Spoken] = field(default_factory=dict)
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL_LINES))
    side: str = "train"  # of the table that is being told
    table: Spoken | None = None

    def feed(self, line: str) -> None:
        """Take in one line, with or without its end."""
        line = line.rstrip()
        if line:
            self.tail.append(line)
        if found := SIZE.search(line):
            self.structures[found[1]] = int(found[2])
        if found := SHAPE.search(line):
            self.shapes.append((int(found[1]), int(found[2])))
            self.closing = None  # a new step of a ladder: the last one's end is not the fit's
        if found := KAPPA.search(line):
            self.kappa = float(found[1])
        if found := CLOSING.search(line):
            self._close(Closing(found[1] == "True", int(found[2]), found[3].strip(), int(found[4])))
        self._iteration(line)
        self._table(line)
        self.memory_refused |= bool(MEMORY.search(line))
        self.early_stop |= "EARLY STOPPING" in line
        self.early_stop_too_late |= EARLY_STOP_TOO_LATE in line
        self.new_reference |= NEW_REFERENCE in line

    def of_last_fit(self) -> dict[Place, Spoken]:
        """`spoken` of the last step of the ladder or the last cycle, as if there were no other."""
        last = len(self.shapes) - 1
        return {(0, side, iteration): told for (fit, side, iteration), told in self.spoken.items() if fit == last}

    def _close(self, closing: Closing) -> None:
        self.closing = closing
        self.evaluations_before += closing.evaluations
        self.evaluations = self.evaluations_before

    def _iteration(self, line: str) -> None:
        if not (found := ITERATION.search(line)):
            return
        self.evaluations = self.evaluations_before + int(found[2])
        if float(found[3]) > 0:  # it says 0.00 for the validation frame
            self._time(self._at("train", int(found[1])), float(found[3]))

    def _time(self, spoken: Spoken, microseconds: float) -> None:
        if spoken.microseconds_per_atom is None:
            self.microseconds_per_atom.append(microseconds)
        spoken.microseconds_per_atom = microseconds

    def _at(self, side: str, iteration: int) -> Spoken:
        return self.spoken.setdefault((len(self.shapes) - 1, side, iteration), Spoken())

    def _table(self, line: str) -> None:
        if found := TITLE.search(line):
            self.side, self.table = "validation" if "TEST" in found[1] else "train", None
        elif found := TABLE_ITERATION.search(line):
            self.table = self._at(self.side, int(found[1]))
        elif self.table is None:
            return
        elif (found := TABLE_TIME.search(line)) and float(found[1]) > 0:
            self._time(self.table, float(found[1]))
        elif found := TABLE_ERRORS.match(line):
            self._errors(self.table, found[1], float(found[2]), float(found[3]))

    def _errors(self, table: Spoken, kind: str, energy: float, force: float) -> None:
        if kind == "MAE":
            table.energy_mae_meV_per_atom = energy
        else:
            table.energy_max_meV_per_atom, table.force_max_meV_per_A = energy, force
            self.table = None

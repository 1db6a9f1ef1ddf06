"""pacemaker's log of a fit, read line by line. Pure."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field

TAIL_LINES = 15

SIZE = re.compile(r"(Fitting|Test) dataset size: (\d+) structures")
SHAPE = re.compile(r"Total number of functions: (\d+) / number of parameters: (\d+)")
CLOSING = re.compile(r"Optimization result\(success=(\w+), status=(-?\d+), message=(.*?), nfev=(\d+)")
KAPPA = re.compile(r"LossFunctionSpecification\(kappa=([\d.e+-]+),")
MEMORY = re.compile(
    r"ResourceExhausted|MemoryError|std::bad_alloc|OOM when allocating|Cannot allocate memory|failed to allocate memory"
    r"|failed to map segment from shared object(?!: Operation not permitted)"
    r"|zlib\.error: Error -4\b"  # Z_MEM_ERROR
)
NEW_REFERENCE = "`reference_energy` will be computed automatically"
EARLY_STOP_TOO_LATE = "TestLossChangeTooSmallException"  # early stopping after the last iteration, which nobody catches


@dataclass(frozen=True)
class Closing:
    """Last line of the optimizer about how it ended (scipy's OptimizeResult)."""

    success: bool
    status: int
    message: str
    evaluations: int


@dataclass
class FitLog:
    """Content of the lines fed so far."""

    structures: dict[str, int] = field(default_factory=dict)  # "Fitting" and "Test", as pacemaker counts them
    shapes: list[tuple[int, int]] = field(default_factory=list)  # functions and parameters of each fit of a ladder
    evaluations: int = 0  # in the steps of a ladder and the cycles that have ended
    closing: Closing | None = None
    kappa: float | None = None  # the force share in use, also where it was chosen automatically
    memory_refused: bool = False
    early_stop: bool = False
    early_stop_too_late: bool = False
    new_reference: bool = False  # pacemaker replaced the reference energies of the whole set
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL_LINES))

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
            self.closing = Closing(found[1] == "True", int(found[2]), found[3].strip(), int(found[4]))
            self.evaluations += self.closing.evaluations
        self.memory_refused |= bool(MEMORY.search(line))
        self.early_stop |= "EARLY STOPPING" in line
        self.early_stop_too_late |= EARLY_STOP_TOO_LATE in line
        self.new_reference |= NEW_REFERENCE in line

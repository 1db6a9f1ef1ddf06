"""What pacemaker says while it fits, read line by line. Pure."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field

TAIL_LINES = 15

SIZE = re.compile(r"(Fitting|Test) dataset size: (\d+) structures")
SHAPE = re.compile(r"Total number of functions: (\d+) / number of parameters: (\d+)")
EVALUATIONS = re.compile(r"\((\d+) evals\)")
ATOM_TIME = re.compile(r"(?:Time/eval|Avg\. time):\s*([\d.]+) mcs/at")
CLOSING = re.compile(r"Optimization result\(success=(\w+), status=(-?\d+), message=(.*?), nfev=(\d+)")
MEMORY = re.compile(r"ResourceExhausted|MemoryError|std::bad_alloc|OOM when allocating|Cannot allocate memory")
NEW_REFERENCE = "`reference_energy` will be computed automatically"


@dataclass(frozen=True)
class Closing:
    """How the optimizer says that it ended (scipy's OptimizeResult)."""

    success: bool
    status: int
    message: str
    evaluations: int


@dataclass
class FitLog:
    """What is known from the lines fed so far."""

    structures: dict[str, int] = field(default_factory=dict)  # "Fitting" and "Test", as pacemaker counts them
    shapes: set[tuple[int, int]] = field(default_factory=set)  # functions and parameters; several in a ladder
    evaluations: int = 0  # over all steps of a ladder
    evaluations_before: int = 0  # in the steps that have ended
    microseconds_per_atom: list[float] = field(
        default_factory=list
    )  # one an evaluation it tells of, the first includes tracing
    closing: Closing | None = None
    memory_refused: bool = False
    early_stop: bool = False
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
            self.shapes.add((int(found[1]), int(found[2])))
            self.closing = None  # a new step of a ladder: the last one's end is not the fit's
        if found := EVALUATIONS.search(line):
            self.evaluations = self.evaluations_before + int(found[1])
        if (found := ATOM_TIME.search(line)) and float(found[1]) > 0:  # it says 0.00 for the validation frame
            self.microseconds_per_atom.append(float(found[1]))
        if found := CLOSING.search(line):
            self.closing = Closing(found[1] == "True", int(found[2]), found[3].strip(), int(found[4]))
            self.evaluations_before += self.closing.evaluations
            self.evaluations = self.evaluations_before
        self.memory_refused |= bool(MEMORY.search(line))
        self.early_stop |= "EARLY STOPPING" in line
        self.new_reference |= NEW_REFERENCE in line

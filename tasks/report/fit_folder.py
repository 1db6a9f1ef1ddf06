"""The folder `fit` of a run: with its files pacemaker alone repeats the fits that led to the potential. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from containers.tensorpot.fit import draw
from containers.tensorpot.pacemaker.input import START_FILE, TRAIN_FILE, VALIDATION_FILE
from containers.tensorpot.pacemaker.program import INPUT_FILE
from tasks.report.summary import FitFiles

FOLDER = "fit"
README = f"{FOLDER}/README.md"
WHOLE_FILE = "whole.pckl.gzip"
DRAW = Path(draw.__file__)


def fit_files(fits: Sequence[FitFiles]) -> dict[str, Path]:
    """Name in the run folder -> file that is copied there."""
    found: dict[str, Path] = {}
    for fit in fits:
        inside = {INPUT_FILE: fit.input_yaml, VALIDATION_FILE: fit.validation}
        if fit.bootstrap is None:
            inside[TRAIN_FILE] = fit.train
        else:
            inside |= {WHOLE_FILE: fit.train, DRAW.name: DRAW}
        if fit.start_yaml is not None:
            inside[START_FILE] = fit.start_yaml
        found |= {f"{FOLDER}/{fit.folder}/{name}": path for name, path in inside.items()}
    return found


def fit_readme(fits: Sequence[FitFiles], best_iteration: int | None) -> str:
    """README.md of the folder.

    Args:
        best_iteration: of the last fit, whose potential is published.
    """
    rows = [f"| `{fit.folder}` | {fit.attempt} | {fit.start or 'nothing: all functions are new'} |" for fit in fits]
    first = fits[0]
    drawing = "" if first.bootstrap is None else f"python draw.py {first.bootstrap}    # draws the training rows\n"
    return f"""# The fits that led to the potential

Each folder has all that pacemaker reads. Repeat a fit in it:

```
cd {first.folder}
{drawing}pacemaker --no-predict input.yaml
```

| folder | attempt of the report | starts from |
|---|---|---|
{chr(10).join(rows)}

- A start is in the folder as `{START_FILE}`, so each fit can be repeated without those before it.
- `../potential.yaml` is the potential of iteration {best_iteration} of the last folder, the best on the validation
  frame. It also has a core repulsion, added after the fit. `interim_potential_0.yaml` of pacemaker has none.
- On one machine, one thread gives the same losses to the last digit. Other numbers of threads change the last digits,
  and a long fit amplifies that. A fit that was interrupted and resumed (see the report) differs more.
- Set `TF_USE_LEGACY_KERAS=1`. `OMP_NUM_THREADS`, `TF_NUM_INTRAOP_THREADS` and `TF_NUM_INTEROP_THREADS` set the threads.
- To repeat a fit again, remove `metrics.txt` and `test_metrics.txt` first: pacemaker appends to them.
- `*.pckl.gzip` are pickles: loading one runs its code, so load only those of people you trust. They need about the
  numpy and pandas of `../manifest.json`. `../frames.extxyz` has the structures of the last fit as text.
"""

"""pacemaker in a process of ours: with our BFGS, every error in its metrics files, and each potential kept.

`python -P -m containers.tensorpot.pacemaker.launcher --no-predict input.yaml` takes the arguments of `pacemaker` and
reads the same `input.yaml`. What it adds to python-ace 0.4.0rc1:

- `optimizer: BFGS` is `bfgs.bfgs`.
- TensorFlow builds pacemaker's graphs without AutoGraph, so a fit begins some 4 s sooner. The graphs are the same: no
  `if` and no loop in them depends on a tensor, and TensorFlow raises an error where one would.
- It draws no pictures of the data, which nobody sees.
- `metrics.txt` and `test_metrics.txt` have the columns of COLUMNS, which pacemaker only prints, in the units of its
  others (eV, Å, s).
- `kept_000012.yaml` is the potential of iteration 12, also of the one at which pacemaker stops early. Iterations count
  on over the steps of a ladder, over cycles, and from the latest kept file at the start. A file appears by a rename,
  after the rows of its iteration.

Only `main` and `minimize` import pacemaker: the step reads the names of the files here.
"""

from __future__ import annotations

import re
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Any

COLUMNS = ("mae_epa", "max_abs_epa", "max_abs_f_comp", "eval_count", "eval_time", "nat")
KEPT = re.compile(r"kept_(\d+)\.yaml")


def kept(folder: Path) -> dict[int, Path]:
    """Return the kept potentials in a folder by iteration, the latest first. Links are left out."""
    found = {
        int(match[1]): path
        for path in folder.iterdir()
        if (match := KEPT.fullmatch(path.name)) and path.is_file() and not path.is_symlink()
    }
    return dict(sorted(found.items(), reverse=True))


class Keeper:
    """Callback of pacemaker: keeps the potential that pacemaker has just written over that of the iteration before."""

    def __init__(self) -> None:
        self.iteration = max(kept(Path()), default=0)

    def __call__(self, *, current_fit_cycle: int, **_others: object) -> None:
        """Keep the potential of one more iteration."""
        self.iteration += 1
        shutil.copyfile(f"interim_potential_{current_fit_cycle}.yaml", "kept.partial")
        Path("kept.partial").replace(f"kept_{self.iteration:06d}.yaml")


def minimize(*args: Any, method: Any, callback: Any, **options: Any) -> Any:
    """Call scipy.optimize.minimize with our BFGS; pacemaker itself saves no potential when it stops early."""
    import scipy.optimize

    from containers.tensorpot.pacemaker.bfgs import bfgs

    def listened(x: Any) -> None:
        try:
            callback(x)
        except StopIteration:
            callback.__self__.global_callback(x)
            raise

    return scipy.optimize.minimize(*args, method=bfgs if method == "BFGS" else method, callback=listened, **options)


def main() -> None:
    """Run pacemaker with the arguments of this program."""
    import tensorflow

    tensorflow.function = partial(tensorflow.function, autograph=False)  # before tensorpotential, which decorates by it
    from pyace import generalfit
    from pyace.cli import pacemaker
    from pyace.metrics_aggregator import MetricsAggregator
    from tensorpotential.compat.pace import fit

    fit.minimize = minimize
    MetricsAggregator.columns = [*MetricsAggregator.columns, *COLUMNS]
    pacemaker.GeneralACEFit = lambda **given: generalfit.GeneralACEFit(**given | {"callbacks": [Keeper()]})
    generalfit.plot_ef_distributions = lambda *_data, **_names: None
    pacemaker.main(sys.argv[1:])


if __name__ == "__main__":
    main()

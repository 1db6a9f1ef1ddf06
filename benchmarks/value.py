"""What the combined selection is worth: 150 of the first 1,000 structures by id of the silicon pool, against a
fit to all training structures and against random choices. One line a figure; about half an hour on two cores.

python benchmarks/value.py [--data benchmarks/data/silicon] [--size 150] [--set train.maxiter=150 ...]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow.parquet as pq
import yaml
from ase.io import iread

from containers.structures.table import structure_id, structures_table
from tasks.studies.value_curve import Point, ValueCurve

REPOSITORY = Path(__file__).parent.parent
STRUCTURES = 1000
WORST_FORCE_MAE = 1.15  # of the fit to all
LONGEST_FIT = 0.25  # of the fit to all
ERRORS = ("force_mae_meV_per_A", "energy_mae_meV_per_atom", "force_max_meV_per_A", "energy_max_meV_per_atom")


def write_pool(source: Path, target: Path) -> None:
    """The first STRUCTURES of a file by content id, families and groups kept."""
    structures = []
    for row, atoms in enumerate(iread(source)):
        kept = {key: str(atoms.info[key]) for key in ("group", "family")}
        atoms.info = {"id": structure_id(atoms), "source": source.name, "row": row, **kept}
        structures.append(atoms)
    structures.sort(key=lambda atoms: atoms.info["id"])
    pq.write_table(structures_table(structures[:STRUCTURES]), target)


def config(data: Path, pool: Path) -> dict[str, Any]:
    """The defaults, labelled in float64."""
    return {
        "name": "value",
        "teacher": {"model": str(data / "teacher.model"), "dtype": "float64"},
        "pool": {"files": [str(pool)]},
    }


def run(root: Path, size: int, changes: Sequence[str]) -> ValueCurve:
    """The value curve of one size and of everything; ends the benchmark when the command fails."""
    command = [sys.executable, "-m", "flows.value_curve", str(root / "value.yaml"), "--work-root", str(root)]
    command += ["--sizes", str(size), "--everything"]
    command += [word for change in changes for word in ("--set", change)]
    environment = {**os.environ, "PREFECT_HOME": str(root / "prefect")}
    if code := subprocess.run(command, cwd=REPOSITORY, env=environment).returncode:
        sys.exit(code)
    return ValueCurve.model_validate_json((root / "runs" / "value" / "value_curve" / "value_curve.json").read_bytes())


def figures(points: Sequence[Point]) -> Iterator[tuple[str, float, float | None]]:
    """Name, value and promised upper limit of every figure."""
    (combined,), (everything,) = ([one for one in points if one.method == name] for name in ("combined", "all"))
    random = [one for one in points if one.method == "random"]
    for point in sorted(points, key=lambda one: (one.method, one.seed)):
        name = f"{point.method}_{point.seed}_{point.structures}"
        yield f"{name}_fit_s", point.fit_s, None
        yield from ((f"{name}_{error}", float(point.figures[error] or 0.0), None) for error in ERRORS)

    def of(point: Point, error: str) -> float:
        value = point.figures[error]
        assert value is not None
        return float(value)

    mae = ERRORS[0]
    yield "combined_force_mae_over_all", of(combined, mae) / of(everything, mae), WORST_FORCE_MAE
    yield "combined_fit_s_over_all", combined.fit_s / everything.fit_s, LONGEST_FIT
    for error in ERRORS:
        yield f"combined_{error}_over_random", of(combined, error) / fmean(of(one, error) for one in random), 1.0
        best = min(of(one, error) for one in random)
        yield f"combined_{error}_over_best_random", of(combined, error) / best, None


def main() -> int:
    """Run in a fresh work root; exit 1 when a promise is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=REPOSITORY / "benchmarks" / "data" / "silicon")
    parser.add_argument("--size", type=int, default=150)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    if not (options.data / "pool.extxyz").is_file():
        print(f"no pool at {options.data}: python benchmarks/data/make_pools.py, or give --data", file=sys.stderr)
        return 2
    data = options.data.resolve()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_pool(data / "pool.extxyz", root / "pool.parquet")
        (root / "value.yaml").write_text(yaml.safe_dump(config(data, root / "pool.parquet")))
        measured = list(figures(run(root, options.size, options.set).points))
    for name, value, limit in measured:
        print(f"{name:<60} {value:10.3f}" + (f"   promised at most {limit:g}" if limit else ""))
    return int(any(limit is not None and value > limit for _, value, limit in measured))


if __name__ == "__main__":
    sys.exit(main())

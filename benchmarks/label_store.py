"""How long a fully labelled pool takes to be found so.

python benchmarks/label_store.py [--structures 100000 1000000] [--folder FOLDER]

For each size a store of stub rows (32 atoms each) is made as the flow makes it, shard by shard, in a scratch folder;
then a new process decides that nothing is missing. What it costs should grow no faster than the pool. Exit 1 when it
takes more than is promised for 100,000.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from processes import peak_MB

from containers.labels.rows import ID_BYTES, ROWS, LabelRows
from containers.structures.table import write_table
from tasks.label_store.store import LabelStore, TeacherKey

ATOMS = 32
SHARD = 2_000
TEACHER = TeacherKey(model="0" * 64, head="Default", dtype="float32", version=2, stub=True)
LIMITED = 100_000
MOST = {"seconds": 5.0, "MB": 500.0}  # for so many structures
TAKEN = 10_000  # rows that are read at once, as the step `pool_labels` does


def ids_of(count: int) -> pa.Array:
    """`count` ids, spread as digests are."""
    data = np.random.default_rng(0).bytes(ID_BYTES * count)
    return pa.Array.from_buffers(pa.binary(ID_BYTES), count, [None, pa.py_buffer(data)])


def stub_rows(ids: pa.Array) -> pa.Table:
    """A row of ROWS for each id, as of `ATOMS` atoms."""
    count = len(ids)
    starts = pa.array(3 * ATOMS * np.arange(count + 1, dtype=np.int32))
    texts = {"device": "cpu", "acceleration": "none", "mace_version": "stub"}
    columns = {
        "id": ids,
        "energy": pa.array(np.full(count, -float(ATOMS))),
        "forces": pa.ListArray.from_arrays(starts, pa.array(np.random.default_rng(1).normal(size=3 * ATOMS * count))),
        "stress": pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(6 * count)), 6),
        "edges": pa.array(np.full(count, 60 * ATOMS)),
        "min_distance_A": pa.array(np.full(count, 2.2)),
        "reason": pa.nulls(count, pa.string()),
        **{name: pa.array([text] * count) for name, text in texts.items()},
    }
    return pa.table(columns, schema=ROWS)


def fill(root: Path, ids: pa.Array) -> float:
    """Commit all shards, compacting when due; gives the store's own seconds."""
    store, seconds = LabelStore(root, TEACHER), 0.0
    for start in range(0, len(ids), SHARD):
        shard = pa.concat_arrays([ids.slice(start, SHARD)])
        write_table(root / "labels.parquet", stub_rows(shard))
        began = time.perf_counter()
        store.commit(root / "labels.parquet", shard, np.full(len(shard), ATOMS))
        store.compact()
        seconds += time.perf_counter() - began
    return seconds


def decide(root: Path, count: int) -> None:
    """In a process of its own: print seconds, and peak memory before and after."""
    ids, before = ids_of(count), peak_MB()
    began = time.perf_counter()
    missing = int(LabelStore(root, TEACHER).missing(ids).sum())
    print(missing, time.perf_counter() - began, peak_MB(), before)


def read(root: Path, count: int) -> None:
    """In a process of its own: read every row in the pool's order, as the step `pool_labels` does."""
    ids, began = ids_of(count), time.perf_counter()
    with LabelStore(root, TEACHER).reading() as paths:
        rows = LabelRows(paths)
        taken = sum(len(rows.take(ids.slice(start, TAKEN))) for start in range(0, count, TAKEN))
    print(count - taken, time.perf_counter() - began, peak_MB(), 0)


def measured(what: str, root: Path, count: int) -> dict[str, float]:
    """`decide` or `read` in a new process."""
    command = [sys.executable, __file__, f"--{what}", str(root), "--structures", str(count)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    missing, seconds, peak, before = map(float, printed)
    if missing:
        sys.exit(f"{missing:.0f} of {count} structures are missing")
    return {"seconds": seconds, "MB": peak, "before": before}


def compare(sizes: list[int], folder: Path | None) -> bool:
    """Print one line per figure; whether the promised ones are kept."""
    first: tuple[int, float] | None = None
    met = True
    for count in sizes:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            filling = fill(Path(scratch), ids_of(count))
            files = len(list(Path(scratch).rglob("*.arrow")))
            tell(count, f"committed and compacted in {filling:.1f} s, {files} files")
            found = measured("decide", Path(scratch), count)
            told = f"nothing is missing: {found['seconds']:.2f} s, peak {found['MB']:.0f} MB"
            if count == LIMITED:
                met &= (kept := all(found[name] <= most for name, most in MOST.items()))
                verdict = "met" if kept else "MISSED"
                told += f", wanted at most {MOST['seconds']:.0f} s and {MOST['MB']:.0f} MB: {verdict}"
            tell(count, told)
            first = first or (count, found["seconds"])
            if count != first[0]:
                times = f"{count / first[0]:.0f} times the structures of the first"
                tell(count, f"{found['seconds'] / first[1]:.1f} times the seconds for {times}")
            rows = measured("read", Path(scratch), count)
            tell(count, f"all rows read in the pool's order: {rows['seconds']:.1f} s, peak {rows['MB']:.0f} MB")
    return met


def tell(count: int, what: str) -> None:
    """One line."""
    print(f"label store, {count} structures: {what}", flush=True)


def main() -> int:
    """Measure, or be the process that is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--structures", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--folder", type=Path, help="where the scratch store is made (1 GB a million rows)")
    parser.add_argument("--decide", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.decide:
        decide(options.decide, options.structures[0])
    elif options.read:
        read(options.read, options.structures[0])
    else:
        return 0 if compare(options.structures, options.folder) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

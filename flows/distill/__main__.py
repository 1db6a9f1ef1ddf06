"""The command line: `python -m flows.distill [CONFIG.yaml]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from flows.command_line import CONVERGED, NOT_CONVERGED, guarded, parser_of
from flows.config.loading import load_config, teacher_files, user_files
from flows.config.run_name import difference, refuse_other
from flows.config.schema import DistillConfig
from flows.distill import dry_run
from flows.distill.flow import distill
from flows.distill.summary import Outcome
from tasks.prefect_logging import command_line_run
from tasks.runners.readiness import ready
from tasks.settings import read_settings
from tasks.workspace import open_workspace

EPILOG = """\
examples:
  python -m flows.distill                                   the bundled silicon example, into ./runs/silicon/
  python -m flows.distill my.yaml --dry-run                 check everything, show what would run
  python -m flows.distill my.yaml --set train.maxiter=300 --set selection.max_structures=500

more:     python -m flows.value_curve --help (what structures are worth), python -m flows.sweep --help (many fits)
results:  runs/NAME/report.html, potential.yace, in.lammps, ...; a second run computes only what changed.
machine:  DISTILL_RUNNER=subprocess|docker|apptainer|in_process|stub, DISTILL_DEVICE=cpu|cuda|auto, DISTILL_CORES,
          DISTILL_STEP_TIMEOUT_S, DISTILL_SELECT_MEMORY_GB, DISTILL_FIT_MEMORY_GB, DISTILL_INTER_OP_THREADS,
          DISTILL_WORK_ROOT
          interpreters: DISTILL_MACE_PYTHON, DISTILL_TENSORPOT_PYTHON
          containers: DISTILL_MACE_IMAGE, DISTILL_TENSORPOT_IMAGE, DISTILL_ENGINE_URL, DISTILL_STEP_MEMORY_GB
          labelling: DISTILL_LABEL_DEVICE, DISTILL_SHARD_S, DISTILL_EDGES_PER_BATCH, DISTILL_SHARDS_AT_ONCE,
          DISTILL_GPU_SHARDS, DISTILL_ACCELERATION=none|cuequivariance|compile
          on a Dask cluster: DISTILL_DASK_ADDRESS, or DISTILL_DASK_CLUSTER with DISTILL_DASK_CLUSTER_OPTIONS
exit:     0 converged, 3 finished but not converged, 2 bad config or input, 1 failed

config keys (YAML; paths are relative to the file):
"""


@guarded
def main(arguments: list[str]) -> int:
    """Run the command; the exit code says how it ended."""
    options, settings = parser().parse_args(arguments), read_settings()
    config = load_config(options.config, tuple(options.set))
    files, models = user_files(config), teacher_files(config)  # a missing file is reported before a server starts
    workspace = open_workspace(options.work_root, settings, options.verify)
    folder = workspace.run_folder(config.name)  # so is what is in its way
    if options.dry_run and not options.replace:
        if other := difference(config, files, models, folder, "manifest.json"):
            print(f"warning: {other}\nThe run will need --replace, or another name.", file=sys.stderr)
    else:
        refuse_other(config, files, models, folder, "manifest.json", options.replace)
    with ready(workspace) as machine:  # so is an engine, an image or a GPU that is not there
        if options.dry_run:
            print(dry_run.plan(config, machine))
            return 0
        with command_line_run():
            outcome = distill(config, workspace.root, options.verify, options.replace, options.approve_labels)
    print(summary_lines(outcome))
    return CONVERGED if outcome.converged else NOT_CONVERGED


def summary_lines(outcome: Outcome) -> str:
    """Return the result in a few lines."""
    verdict = "converged" if outcome.converged else f"not converged: {outcome.not_converged_because}"
    figures = [f"  {name:<28} {value:.2f}" for name, value in outcome.figures.items()]
    against = "against the teacher, on structures that training never saw:"
    if outcome.stub:
        verdict += "  (STUB RUN: nothing was labelled or fitted, no figure is real)"
    return "\n".join(["", f"{outcome.name}: {verdict}", against, *figures, f"report: {outcome.folder}/report.html"])


def parser() -> argparse.ArgumentParser:
    """Return the options, with every config key in the help."""
    description = "Distil a MACE teacher into an ACE potential: label, select, fit, evaluate, report."
    made = parser_of("distill", description, EPILOG + "\n".join(_keys(DistillConfig)))
    made.add_argument(
        "--dry-run", action="store_true", help="validate, write plan and input.yaml; label and fit nothing"
    )
    made.add_argument(
        "--approve-labels", action="store_true", help="label any number of structures, see explore.ask_above"
    )
    made.add_argument("--verify", action="store_true", help="digest every stored file again before it is used")
    return made


def _keys(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _keys(field.annotation, f"{prefix}{name}.")
        else:
            value = field.default
            default = "(required)" if value is PydanticUndefined else "null" if value is None else str(value)
            yield f"  {prefix + name:<42} {default:<12} {field.description or ''}".rstrip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

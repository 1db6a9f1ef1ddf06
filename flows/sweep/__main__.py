"""The command line of the sweep: `python -m flows.sweep [CONFIG.yaml]`."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from flows.command_line import guarded, parser_of
from flows.config.loading import load_config, validated
from flows.config.schema import DistillConfig
from flows.sweep.flow import checked, refuse_other_sweep, sweep
from tasks.errors import UserError
from tasks.prefect_logging import command_line_run
from tasks.runners.readiness import ready
from tasks.settings import read_settings
from tasks.workspace import open_workspace

EPILOG = """\
examples:
  python -m flows.sweep my.yaml --vary pacemaker.cutoff=4.5,5.0,6.0 --vary pacemaker.functions_per_element=100,250
  python -m flows.sweep my.yaml --vary 'train.stages=[],[{kappa: 0.3, maxiter: 150}, {kappa: 0.02, maxiter: 50}]'
  python -m flows.sweep my.yaml --set sweep.take=cheapest --set sweep.within=0.05 --set sweep.at_once=2
  python -m flows.sweep my.yaml --set sweep.committee=4

keys:     any key of the config, each combination of values is one student; labels are made once. The cutoff is worth
          trying: a teacher of two layers sees twice its own cutoff, a student only its own.
results:  runs/NAME/sweep/: index.html, sweep.png, sweep.csv, sweep.json and chosen.yaml, the config of the student
          that sweep.take chose: python -m flows.distill runs/NAME/sweep/chosen.yaml makes its run folder from what is
          computed already (a last fit that was broken off before it converged is continued). runs/NAME/committee/: one
          folder a student, committee.py evaluates them all (ASE).
machine:  sweep.at_once fits share the cores; on a Dask cluster (DISTILL_DASK_...) each worker thread takes one.
exit:     0 done, 2 bad config or input, 1 failed
"""


@guarded
def main(arguments: list[str]) -> int:
    """Run the command; the exit code says how it ended."""
    options, settings = parser().parse_args(arguments), read_settings()
    config = with_more(load_config(options.config, tuple(options.set)), options.vary)
    checked(config)  # a wrong value or a missing file is reported before a server starts
    workspace = open_workspace(options.work_root, settings)
    refuse_other_sweep(config, workspace, options.replace)
    with ready(workspace), command_line_run():
        folder = sweep(config, workspace.root, options.replace)
    if config.sweep.vary:
        found = folder / "sweep"
        print(f"\n{(found / 'sweep.md').read_text()}\nresults: {found}/index.html")
        print(f"its run folder: python -m flows.distill {found}/chosen.yaml")
    if config.sweep.committee:
        print(f"\n{(folder / 'committee' / 'committee.md').read_text()}\ncommittee: {folder}/committee")
    return 0


def with_more(config: DistillConfig, options: Sequence[str]) -> DistillConfig:
    """Return the config with `KEY=VALUE,VALUE` added to the keys that the sweep varies."""
    values = config.model_dump()
    values["sweep"]["vary"] |= dict(map(_key_and_values, options))
    return validated(values, "--vary")


def _key_and_values(option: str) -> tuple[str, list[Any]]:
    match = re.fullmatch(r"([A-Za-z_][\w.-]*)=(.+)", option, flags=re.DOTALL)
    if match is None:
        raise UserError(f"--vary {option}: write it as key.key=value,value, for example --vary train.maxiter=50,100")
    try:
        listed = YAML(typ="safe", pure=True).load(f"[{match[2]}]")
    except YAMLError:
        raise UserError(f"--vary {option}: {match[2]!r} are no YAML values with commas between them") from None
    return match[1], listed


def parser() -> argparse.ArgumentParser:
    """Return the options."""
    description = "Fit a student for every combination of config values, or a committee of students."
    made = parser_of("sweep", description, EPILOG)
    made.add_argument(
        "--vary", action="append", default=[], metavar="KEY=A,B", help="a key and its values, beside sweep.vary"
    )
    return made


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

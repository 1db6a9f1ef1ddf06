"""The command line of the value curve: `python -m flows.value_curve [CONFIG.yaml]`."""

from __future__ import annotations

import argparse
import sys

from flows.command_line import guarded, parser_of
from flows.config.loading import load_config, teacher_files, user_files
from flows.config.run_name import refuse_other
from flows.value_curve.flow import METHODS, value_curve
from tasks.prefect_logging import command_line_run
from tasks.runners.readiness import ready
from tasks.settings import read_settings
from tasks.workspace import open_workspace

EPILOG = """\
examples:
  python -m flows.value_curve                                      the bundled silicon example
  python -m flows.value_curve my.yaml --sizes 50 100 200 --everything
  python -m flows.value_curve my.yaml --methods combined random --random-seeds 5 --set train.maxiter=80

results:  runs/NAME/value_curve/: value_curve.png, value_curve.json, index.html. The config is that of
          python -m flows.distill; one fit a point and stage (train.max_attempts does not count), all cached: more
          sizes cost only the new fits. One whose last stage was broken off is continued when the
          command is run again.
exit:     0 done, 2 bad config or input, 1 failed
"""


@guarded
def main(arguments: list[str]) -> int:
    """Run the command; the exit code says how it ended."""
    options, settings = parser().parse_args(arguments), read_settings()
    config = load_config(options.config, tuple(options.set))
    user_files(config)  # a missing file is reported before a server starts
    teacher_files(config)
    workspace = open_workspace(options.work_root, settings)
    folder = workspace.run_folder(config.name)
    refuse_other(config, {}, {}, folder, "value_curve/value_curve.json", options.replace)
    with ready(workspace), command_line_run():
        folder = value_curve(
            config,
            options.sizes,
            options.methods,
            options.random_seeds,
            options.everything,
            workspace.root,
            options.replace,
        )
    print(f"\n{(folder / 'value_curve.md').read_text()}\nresults: {folder}/index.html")
    return 0


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def parser() -> argparse.ArgumentParser:
    """Return the options."""
    description = "Fit students on growing training sets chosen by several methods; plot what structures are worth."
    made = parser_of("value_curve", description, EPILOG)
    made.add_argument(
        "--sizes", nargs="+", type=_count, metavar="N", help="structures (default: 5, 10, 20, 40 %% of the candidates)"
    )
    made.add_argument("--methods", nargs="+", choices=METHODS, help="default: all of them")
    made.add_argument("--random-seeds", type=_count, default=3, metavar="N", help="random choices of a size (3)")
    made.add_argument("--everything", action="store_true", help="also one fit to all training structures")
    return made


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

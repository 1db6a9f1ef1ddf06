"""The command line of the comparison: `python -m flows.compare RUN RUN ...`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from flows.command_line import guarded
from tasks.errors import StoreError, UserError
from tasks.studies.comparison import comparison_page, read_runs

EPILOG = """\
examples:
  python -m flows.compare runs/first runs/second
  python -m flows.compare runs/first runs/second /other/root/runs/first --output first-and-second.html
  python -m flows.compare runs/* --output all.html

results:  one HTML page that loads nothing from outside: verdict, errors, properties of crystals with their deviations,
          speed, and for each crystal the curves of all runs in one picture. It reads only the run folders.
exit:     0 done, 2 a folder is no run folder, 1 failed
"""


@guarded
def main(arguments: list[str]) -> int:
    """Run the command; the exit code says how it ended."""
    options = parser().parse_args(arguments)
    if len(options.runs) < 2:
        raise UserError("give two run folders or more, such as: python -m flows.compare runs/first runs/second")
    page = comparison_page(read_runs(options.runs))
    try:
        options.output.write_text(page, encoding="utf-8")
    except OSError as error:
        raise StoreError(f"cannot write {options.output}: {error.strerror}. Choose another place: --output") from error
    print(f"comparison: {options.output.resolve()}")
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the options."""
    made = argparse.ArgumentParser(
        prog="python -m flows.compare",
        description="Show two or more finished runs side by side.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folder: runs/NAME")
    made.add_argument("--output", type=Path, default=Path("compare.html"), metavar="FILE", help="default: compare.html")
    return made


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

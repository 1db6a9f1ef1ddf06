"""Options, exit codes and errors that the commands share."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path

from tasks.errors import DistillError
from tasks.settings import prepare_process

EXAMPLE = Path(__file__).parent.parent / "examples" / "silicon" / "distill.yaml"
CONVERGED, FAILED, BAD_INPUT, NOT_CONVERGED = 0, 1, 2, 3


def guarded(main: Callable[[list[str]], int]) -> Callable[[list[str]], int]:
    """Make a command of `main`: an error is one sentence on stderr and an exit code."""

    @wraps(main)
    def command(arguments: list[str]) -> int:
        prepare_process()
        # Prefect ends the flow at SIGTERM and then raises the signal again: leave in order, so that its server ends too
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        try:
            return main(arguments)
        except DistillError as error:
            print(f"\nerror: {error}", file=sys.stderr)
            return error.exit_code
        except KeyboardInterrupt:
            end = "nothing half-written is kept as a result; run the same command to continue."
            print(f"\ninterrupted: {end}", file=sys.stderr)
            return FAILED

    return command


def parser_of(flow: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """Return a parser with the options of every flow."""
    made = argparse.ArgumentParser(
        prog=f"python -m flows.{flow}",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "config", nargs="?", type=Path, default=EXAMPLE, help="YAML config (default: the silicon example)"
    )
    made.add_argument("--work-root", type=Path, metavar="DIR", help="gets store/ and runs/ (default: this directory)")
    made.add_argument("--replace", action="store_true", help="replace results of another config with the same name")
    made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key: train.maxiter=50")
    return made

"""The command line of the exploration: `python -m flows.explore CONFIG.yaml`. It is `flows.distill` for a config with
`explore`."""

from __future__ import annotations

import sys

from flows.command_line import guarded
from flows.config.loading import load_config
from flows.distill.__main__ import main as distill
from flows.distill.__main__ import parser
from tasks.errors import UserError


@guarded
def main(arguments: list[str]) -> int:
    """Run the command; the exit code says how it ended."""
    options = parser().parse_args(arguments)
    if not load_config(options.config, tuple(options.set)).explore.conditions:
        raise UserError(f"{options.config}: explore.conditions is empty: give simulations.")
    return distill(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

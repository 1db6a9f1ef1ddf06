"""The command that explores: `python -m flows.explore CONFIG.yaml`."""

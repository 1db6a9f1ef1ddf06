"""Tests; a package, because installed ones are called `tests` too."""

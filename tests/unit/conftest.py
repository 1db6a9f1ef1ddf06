"""Unit tests know no settings of the caller's, nor those that the integration tests leave until the session ends."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def no_settings_of_the_caller_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every DISTILL_ variable is unset."""
    for name in os.environ:
        if name.startswith("DISTILL_"):
            monkeypatch.delenv(name)

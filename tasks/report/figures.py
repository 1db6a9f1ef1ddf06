"""Figures as text, and the labels of those that several places show. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DASH = "–"
ERRORS = {
    "energy_mae_meV_per_atom": "energy MAE (meV/atom)",
    "energy_rmse_meV_per_atom": "energy RMSE (meV/atom)",
    "energy_max_meV_per_atom": "largest energy error (meV/atom)",
    "force_mae_meV_per_A": "force MAE (meV/Å)",
    "force_rmse_meV_per_A": "force RMSE (meV/Å)",
    "force_max_meV_per_A": "largest force error (meV/Å)",
    "stress_mae_meV_per_A3": "stress MAE (meV/Å³)",
    "stress_rmse_meV_per_A3": "stress RMSE (meV/Å³)",
    "stress_max_meV_per_A3": "largest stress error (meV/Å³)",
}


def number(value: Any) -> str:
    """Four significant digits; a dash for no number; lists and mappings item by item; anything else as it is."""
    if value is None:
        return DASH
    if isinstance(value, Mapping):
        items = {key: f"({number(item)})" if isinstance(item, Mapping) else number(item) for key, item in value.items()}
        return ", ".join(f"{key} {item}" for key, item in items.items() if item != DASH)
    if isinstance(value, list | tuple):
        return ", ".join(map(number, value))
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def percent(share: float | None) -> str:
    """A share as `5.00 %`."""
    return DASH if share is None else f"{100 * share:.2f} %"


def duration(seconds: float) -> str:
    """`0.42 s`, `42 s`, `3 min 05 s`, `1 h 02 min`."""
    if seconds < 9.95:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"

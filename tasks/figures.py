"""Numbers by name as reports take them."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import BeforeValidator


def _numbers_only(figures: Any) -> Any:
    """A fit that diverged leaves NaN; JSON and tables take None for "no number"."""
    if not isinstance(figures, dict):
        return figures
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in figures.items()
    }


Figures = Annotated[dict[str, float | None], BeforeValidator(_numbers_only)]
"""Numbers by name, the unit in the name; None where there is no (finite) number."""

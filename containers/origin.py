"""x"""

from __future__ import annotations

from typing import Literal

Origin = Literal["teacher", "dft"]

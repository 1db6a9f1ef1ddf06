"""What pictures show."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def ink(png: bytes, colour: str, third: int | None = None, near: int = 12) -> int:
    """Pixels whose colour is within `near` of this one, in one third of the width if it is given."""
    wanted = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)])
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    if third is not None:
        width = pixels.shape[1] // 3
        pixels = pixels[:, third * width : (third + 1) * width]
    return int((np.abs(pixels - wanted).max(axis=2) < near).sum())

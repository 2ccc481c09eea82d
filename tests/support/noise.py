"""Pictures of noise, the same in every run."""

import numpy as np
from PIL import Image


def noise(size: tuple[int, int], seed: int = 0, spread: float = 90) -> Image.Image:
    """Grey noise of this width and height, in RGB. Pillow's own (`effect_noise`) hangs on how much of it was
    drawn before in the same process."""
    width, height = size
    values = np.random.default_rng(seed).normal(128, spread, (height, width)).clip(0, 255)
    return Image.fromarray(values.astype(np.uint8)).convert("RGB")

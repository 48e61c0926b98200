"""A contact sheet: one identity a row group, its photographs side by side."""

from __future__ import annotations

import numpy as np
from PIL import Image

from tipr.data.synthetic.attributes import sample_person, sample_shot
from tipr.data.synthetic.photograph import render
from tipr.data.synthetic.scene import World


def sheet(
    *,
    identities: int = 12,
    images: int = 4,
    size: tuple[int, int] = (384, 128),
    columns: int = 3,
    seed: int = 0,
    difficulty: float = 1.0,
    gap: int = 4,
) -> Image.Image:
    """Photograph `identities` people with `images` cameras each and lay them out, `columns` people a row."""
    world = World(seed)
    height, width = size
    rows = -(-identities // columns)
    block = images * width + gap * 3
    canvas = Image.new("RGB", (columns * block - gap * 3, rows * (height + gap) - gap), (250, 250, 250))
    for number in range(identities):
        random = np.random.default_rng([seed, number])
        person = sample_person(random)
        cameras = random.permutation(world.cameras)[:images]
        for place, camera in enumerate(cameras):
            shot = sample_shot(random, person, int(camera), difficulty=difficulty)
            picture = Image.fromarray(render(world, person, shot, size, difficulty=difficulty))
            canvas.paste(picture, ((number % columns) * block + place * width, (number // columns) * (height + gap)))
    return canvas

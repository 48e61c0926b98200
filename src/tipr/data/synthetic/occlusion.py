"""Things that stand between camera and person: a post, a wall or barrier, a hedge."""

from __future__ import annotations

import numpy as np

from tipr.data.synthetic.materials import folds, grain, look_up
from tipr.data.synthetic.palette import Floats, colour

F = np.float32


def cover(picture: Floats, kind: str, r: np.random.Generator, light: Floats) -> Floats:
    """A copy of `picture` (H, W, 3) with the occluder `kind` ("pole", "low" or "plant") in front."""
    picture = picture.copy()
    {"pole": _pole, "low": _wall, "plant": _hedge}[kind](picture, r, light)
    return picture


def _pole(picture: Floats, r: np.random.Generator, light: Floats) -> None:
    """A lamp post, a column or a tree trunk at one side."""
    height, width, _ = picture.shape
    kind = int(r.integers(3))
    thick = width * float(r.uniform(0.07, 0.11) if kind == 0 else r.uniform(0.12, 0.18))
    left = float(r.uniform(0.02, 0.20) if r.random() < 0.5 else r.uniform(0.68, 0.88)) * width
    tone = (colour(86, 92, 94), colour(178, 172, 162), colour(98, 80, 64))[kind] * F(r.uniform(0.85, 1.12))
    x = (np.arange(width, dtype=F) + F(0.5) - F(left)) / F(thick)
    alpha = np.clip(np.minimum(x, 1 - x) * F(thick) + F(0.5), 0, 1)
    round_ = np.clip(2 * x - 1, -1, 1)
    lit = F(0.62) + F(0.42) * np.clip(round_ * light[0] + np.sqrt(1 - round_**2) * light[2], 0, 1)
    body = np.broadcast_to(tone * lit[:, None], (height, width, 3)).copy()
    y = np.arange(height, dtype=F)[:, None] / F(height)
    if kind == 2:
        bark = look_up(folds(), (x[None, :] * F(0.5) + y * F(0.07)) % 1, np.broadcast_to(y * F(0.9), (height, width)))
        body *= (1 + F(0.3) * bark)[:, :, None]
    elif kind == 0:
        body *= (1 - F(0.25) * (np.abs((y * 3.1 + F(0.3)) % 1 - F(0.5)) < F(0.012)))[:, :, None]
    picture += (body - picture) * alpha[None, :, None]


def _wall(picture: Floats, r: np.random.Generator, light: Floats) -> None:
    """A low wall, a concrete barrier or a wooden planter across the lower edge."""
    height, width, _ = picture.shape
    top = int(height * r.uniform(0.74, 0.87))
    kind = int(r.integers(3))
    tone = (colour(160, 112, 92), colour(166, 164, 158), colour(128, 98, 70))[kind] * F(r.uniform(0.82, 1.08))
    rows, unit = height - top, height / 384
    y = np.arange(rows, dtype=F)[:, None] / F(unit)
    x = (np.arange(width, dtype=F)[None, :] + F(r.uniform(0, 40))) / F(unit)
    tile = np.ones((rows, width), dtype=F)
    if kind == 0:
        course = np.floor(y / 9)
        tile *= 1 + F(0.10) * look_up(
            grain(), (np.floor((x + (course % 2) * 11) / 22) * F(0.37)) % 1, course * F(0.137) % 1
        )
        joint = (y % 9 < 1.4) | ((x + (course % 2) * 11) % 22 < 1.6)
        tile = np.where(joint, F(1.16), tile)
    elif kind == 1:
        tile *= 1 - F(0.18) * ((x % 70) < 2)
    else:
        tile *= 1 - F(0.30) * ((y % 15) < 1.6) + F(0.05) * look_up(folds(), x * F(0.004) % 1, y * F(0.05) % 1)
    tile *= 1 + F(0.03) * look_up(grain(), x / 90 % 1, y / 90 % 1)
    tile *= F(1.02) - F(0.22) * y / F(max(rows / unit, 1))
    body = tone * tile[:, :, None]
    cap = max(2, round(9 * unit))
    body[:cap] = np.minimum(tone * F(1.22), F(1))
    body[cap : cap + max(1, round(2 * unit))] *= F(0.6)
    picture[top:] = body


def _hedge(picture: Floats, r: np.random.Generator, light: Floats) -> None:
    """A hedge with an uneven top that hides the feet."""
    height, width, _ = picture.shape
    unit = height / 384
    top = height * float(r.uniform(0.76, 0.86))
    count = 380
    x = r.uniform(-0.05, 1.05, count) * width
    depth = np.sort(r.random(count))
    y = top + (depth * 1.05 - 0.02) * (height - top) + r.normal(0, 4 * unit, count)
    size = r.uniform(4.5, 9.0, count) * unit
    green = colour(70, 108, 52) * F(r.uniform(0.85, 1.15))
    lower = int(min(height, top + 5 * unit))
    picture[lower:] = green * F(0.42)
    for px, py, s, d, turn in zip(x, y, size, depth, r.uniform(0, np.pi, count), strict=True):
        x0, x1 = max(0, int(px - s)), min(width, int(px + s) + 2)
        y0, y1 = max(0, int(py - s)), min(height, int(py + s) + 2)
        if x0 >= x1 or y0 >= y1:
            continue
        gx = (np.arange(x0, x1, dtype=F) - F(px))[None, :]
        gy = (np.arange(y0, y1, dtype=F) - F(py))[:, None]
        along = gx * F(np.cos(turn)) + gy * F(np.sin(turn))
        across = gy * F(np.cos(turn)) - gx * F(np.sin(turn))
        leaf = np.clip((1 - (along / F(s)) ** 2 - (across / F(s * 0.52)) ** 2) * F(s * 0.6), 0, 1)
        tone = green * F(1.25 - 0.55 * d + 0.25 * np.sin(turn * 7))
        part = picture[y0:y1, x0:x1]
        part += (tone * (1 + F(0.18) * across / F(s))[:, :, None] - part) * leaf[:, :, None]

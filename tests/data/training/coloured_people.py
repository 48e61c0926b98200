"""A data set of coloured blocks and a configuration that learns it in seconds.

Tests of several folders load this file with `runpy.run_path`; it needs no renderer and no fixed files.
"""

from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from tipr.data.manifest import Caption, Record, write_manifest

COLOURS = {
    "red": ((200, 30, 30), "红色"),
    "green": ((30, 170, 40), "绿色"),
    "blue": ((30, 40, 200), "蓝色"),
    "white": ((235, 235, 235), "白色"),
    "black": ((20, 20, 20), "黑色"),
}


def make_data(root: Path) -> Path:
    """20 people in two colours, 3 pictures each, captions in two languages; every fifth person is for validation."""
    rng = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    pairs = [(top, legs) for top in COLOURS for legs in COLOURS if top != legs]
    records = []
    for person, (top, legs) in enumerate(pairs):
        for shot in range(3):
            picture = np.full((48, 24, 3), 128, np.uint8)
            picture[8:26, 4:20] = COLOURS[top][0]
            picture[26:44, 6:18] = COLOURS[legs][0]
            noisy = np.clip(picture + rng.normal(0, 12, picture.shape), 0, 255).astype(np.uint8)
            name = f"images/{person:02d}_{shot}.png"
            Image.fromarray(noisy).save(root / name)
            captions = (
                Caption("en", f"a person in a {top} top and {legs} trousers"),
                Caption("zh", f"一个人穿着{COLOURS[top][1]}上衣和{COLOURS[legs][1]}裤子"),
            )
            records.append(Record(name, captions, identity=person, split="val" if person % 5 == 4 else "train"))
    write_manifest(root / "manifest.jsonl", records)
    return root


def make_config(path: Path, folder: Path, /, **changes: object) -> Path:
    """A tiny IRRA run over all its parts: MLM, trimming, EMA, bfloat16; changes replace whole top-level values."""
    tree: dict[str, object] = {
        "out": str(path.parent / "run"),
        "method": {"name": "irra", "padding": "trimmed", "depth": 1},
        "encoder": {
            "name": "compact",
            "image_size": [48, 24],
            "patch": 4,
            "widths": [8, 16],
            "blocks": [1, 1],
            "stripes": 3,
            "max_tokens": 24,
            "text_width": 16,
            "text_layers": 1,
            "embed_dim": 16,
            "head_width": 8,
        },
        "tokenizer": {"kind": "subword", "vocabulary_size": 300},
        "data": {"dataset": "manifest", "root": str(folder), "batch_size": 16},
        "augmentation": {"pad": 2},
        "optimizer": {"name": "adamw", "lr": 3e-3, "eps": 1e-8, "clip_grad_norm": 1.0},
        "schedule": {"unit": "step", "warmup": 3},
        "epochs": 3,
        "precision": "bf16",
        "ema": 0.9,
        "log_every": 2,
        "threads": 1,
        "device": "cpu",
    }
    path.write_text(yaml.safe_dump({**tree, **changes}), encoding="utf-8")
    return path

"""The coloured people with a third language, and small runs in two languages on them; loaded with `runpy.run_path`."""

import json
import runpy
from pathlib import Path
from typing import Any

PEOPLE = runpy.run_path(str(Path(__file__).with_name("coloured_people.py")))
FRENCH = {"red": "rouge", "green": "vert", "blue": "bleu", "white": "blanc", "black": "noir"}
ENCODER: dict[str, Any] = {
    "name": "beit_xlmr",
    "image_size": [48, 24],
    "patch": 8,
    "width": 16,
    "vision_layers": 1,
    "vision_heads": 2,
    "vision_mlp": 32,
    "max_positions": 32,
    "max_tokens": 32,
    "text_layers": 1,
    "text_heads": 2,
    "text_mlp": 32,
    "fusion_layers": 1,
    "embed_dim": 8,
    "target_languages": ["zh", "fr"],
    "attention": "eager",
}
SHARED = {**ENCODER, "text_projections": "shared"}


def make_data(root: Path) -> Path:
    """See `coloured_people.make_data`; every English caption has a French one too."""
    PEOPLE["make_data"](root)
    manifest = root / "manifest.jsonl"
    lines = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    for line in lines:
        top, legs = (
            line["captions"][0]["text"].removeprefix("a person in a ").removesuffix(" trousers").split(" top and ")
        )
        text = f"une personne avec un haut {FRENCH[top]} et un pantalon {FRENCH[legs]}"
        line["captions"].append({"language": "fr", "text": text})
    manifest.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return root


def make_config(path: Path, folder: Path, /, **changes: Any) -> Path:
    """A small Bi-IRRA run, English with Chinese and French, over all its parts; 3 steps an epoch."""
    data = {"dataset": "manifest", "root": str(folder), "batch_size": 16, "languages": ["en", "zh", "fr"]}
    settings: dict[str, Any] = {
        "method": {"name": "bi_irra"},
        "encoder": ENCODER,
        "data": data | changes.pop("section", {}),
        "augmentation": {"kind": "two_of_six"},
        "preprocessing": {"statistics": "imagenet", "interpolation": "bicubic"},
        "schedule": {"unit": "step", "warmup_epochs": 1, "warmup_inclusive": True, "warmup_start": 0.02, "final": 0.1},
        "ema": None,
        "sampler": {"name": "random", "drop_last": True},
    }
    made: Path = PEOPLE["make_config"](path, folder, **settings | changes)
    return made

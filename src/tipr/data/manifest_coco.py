"""A manifest in COCO style: `images` with `id` and `file_name`, `annotations` with `image_id` and caption or box.

An image or an annotation may say who is shown (`identity` or `person_id`), the `camera`, the `time`, the `split` and
`tags`; a caption may say its `language` (English without). Every annotation with a `bbox` is a person of its own, so
such an image makes a record for each; captions without a box belong to the image.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tipr.data.manifest import Record, parse_record
from tipr.errors import DatasetError

DEFAULT_LANGUAGE = "en"
_KNOWN = ("identity", "camera", "time", "split", "tags")


def read_coco(path: Path) -> tuple[list[int], list[Record]]:
    """Read a COCO-style JSON file.

    Returns:
        position of each record's image in `images`, from 1, and the records.

    Raises:
        DatasetError: not JSON, not of that form, an annotation of no image, or a value that is not allowed.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: not JSON: {error}") from None
    except OSError as error:
        raise DatasetError(f"cannot read manifest {path}: {error.strerror or error}") from None
    if not isinstance(tree, Mapping) or not isinstance(tree.get("images"), list):
        raise DatasetError(f"{path}: a COCO-style manifest is an object with the lists images and annotations")
    annotations: dict[Any, list[Mapping[str, Any]]] = {}
    ids = [_key(image, "id", f"{path}: images {place}") for place, image in enumerate(tree["images"], start=1)]
    for place, annotation in enumerate(tree.get("annotations", []), start=1):
        of = _key(annotation, "image_id", f"{path}: annotations {place}")
        annotations.setdefault(of, []).append(annotation)
    if len(set(ids)) < len(ids):
        raise DatasetError(f"{path}: two images have one id")
    stray = annotations.keys() - set(ids)
    if stray:
        raise DatasetError(
            f"{path}: {len(stray)} image_id of annotations are no id of images, first {min(map(str, stray))}"
        )
    lines, records = [], []
    for place, (key, image) in enumerate(zip(ids, tree["images"], strict=True), start=1):
        for part in _people(image, annotations.get(key, [])):
            lines.append(place)
            records.append(parse_record(json.dumps(part), source=f"{path}: images {place}"))
    return lines, records


def _key(item: Any, name: str, source: str) -> Any:
    value = item.get(name) if isinstance(item, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise DatasetError(f"{source}: {name}: must be an integer or a string")
    return value


def _people(image: Mapping[str, Any], annotations: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    whole = {"image": image.get("file_name"), "captions": [], **_facts(image)}
    boxed = []
    for annotation in annotations:
        caption = annotation.get("caption")
        captions = (
            [] if caption is None else [{"language": annotation.get("language", DEFAULT_LANGUAGE), "text": caption}]
        )
        if "bbox" in annotation:
            boxed.append({**whole, "captions": captions, **_facts(annotation), "box": annotation["bbox"]})
        else:
            whole = {**whole, **_facts(annotation), "captions": [*whole["captions"], *captions]}
    return [*boxed, *([whole] if whole["captions"] or not boxed else [])]


def _facts(item: Mapping[str, Any]) -> dict[str, Any]:
    facts = {key: item[key] for key in _KNOWN if item.get(key) is not None}
    if "person_id" in item:
        facts["identity"] = item["person_id"]
    return facts

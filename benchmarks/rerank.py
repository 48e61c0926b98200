"""What reranking a shortlist costs beside the fusion encoder's own forward on the same tokens.

    python benchmarks/rerank.py [--rounds 3] [--sizes small published] [--write]

`reranking` is all that a search does for its second stage once the image tokens are there: encode the words, widen
the tokens from half precision, fuse, judge, block by block. `fusion` is one bare forward of the fusion encoder over the
same words and all tokens, in single precision already. Weights are random, which costs the same. The two alternate, one
thread; the ratio is that of the least processor times, because other work shares the machine. The word table is small:
a search looks up a dozen rows of it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from record import write
from tipr.data.images import Preprocessing
from tipr.encoders import BeitXlmrEncoder
from tipr.encoders.tokenizers import SubwordTokenizer
from tipr.retrieval import Reranker, Retriever

WANTED = 1.25
QUERY = "a woman in a red coat with a black backpack, wearing white shoes and blue jeans"
SIZES: dict[str, dict[str, Any]] = {
    "small": {
        "image_size": (96, 32), "patch": 8, "width": 192, "vision_layers": 3, "vision_heads": 4, "vision_mlp": 768,
        "text_layers": 3, "text_heads": 4, "text_mlp": 768, "fusion_layers": 3, "embed_dim": 128,
    },
    "published": {},
}  # fmt: skip


def model(size: dict[str, Any]) -> Retriever:
    """A retriever of one size with random weights."""
    tokenizer = SubwordTokenizer.train([QUERY] * 2, vocabulary_size=400, max_tokens=77)
    common = {"vocabulary_size": tokenizer.vocabulary_size, "pad_id": tokenizer.pad_id}
    settings = BeitXlmrEncoder.Config.model_validate({**size, **common})
    torch.manual_seed(0)
    return Retriever(BeitXlmrEncoder.build(settings).eval(), tokenizer, Preprocessing(settings.image_size))


def spent(step: Callable[[], object]) -> tuple[float, float]:
    """(wall, processor) seconds of one call."""
    wall, processor = time.perf_counter(), time.process_time()
    step()
    return time.perf_counter() - wall, time.process_time() - processor


def measure(name: str, candidates: int, rounds: int) -> dict[str, Any]:
    """Both ways, in turn."""
    retriever = model(SIZES[name])
    reranker = Reranker(retriever)
    tokens = np.random.default_rng(0).normal(size=(candidates, *reranker.token_shape)).astype(np.float16)
    words, mask = (torch.from_numpy(part) for part in retriever.text_tokens([QUERY]))
    text = words.expand(candidates, -1, -1), mask.expand(candidates, -1)
    keys = torch.from_numpy(tokens).float()

    def fusion() -> None:
        with torch.inference_mode():
            retriever.encoder.fusion(*text, keys, None)  # type: ignore[operator]

    reranker.score(QUERY, tokens[:4])
    with torch.inference_mode():
        retriever.encoder.fusion(*(part[:4] for part in text), keys[:4], None)  # type: ignore[operator]
    pairs = [(spent(lambda: reranker.score(QUERY, tokens)), spent(fusion)) for _ in range(rounds)]
    ours, theirs = ([pair[side] for pair in pairs] for side in (0, 1))
    least = [min(processor for _, processor in side) for side in (ours, theirs)]
    return {
        "size": name,
        "candidates": candidates,
        "image_tokens": list(reranker.token_shape),
        "text_tokens": int(mask.sum()),
        "fusion_layers": retriever.encoder.config.fusion_layers,  # type: ignore[union-attr]
        "pictures_a_block": reranker.block,
        "reranking_processor_seconds": [round(processor, 3) for _, processor in ours],
        "fusion_processor_seconds": [round(processor, 3) for _, processor in theirs],
        "reranking_wall_seconds": [round(wall, 3) for wall, _ in ours],
        "fusion_wall_seconds": [round(wall, 3) for wall, _ in theirs],
        "ratio": round(least[0] / least[1], 3),
        "wanted_ratio": WANTED,
        "half_precision_kb_a_picture": round(tokens[0].nbytes / 1e3, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/rerank.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = {"threads": 1, "sizes": [measure(name, options.candidates, options.rounds) for name in options.sizes]}
    json.dump(results, sys.stdout, indent=2)
    print()
    if options.write:
        print(write("rerank", " ".join(["python", "benchmarks/rerank.py", *sys.argv[1:]]), results))


if __name__ == "__main__":
    main()

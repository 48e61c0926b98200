"""Every encoder and every tokenizer survives the model folder: same vectors, same fingerprint after loading."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_encoders import make_encoder

from tipr.data.images import Preprocessing
from tipr.encoders import ENCODERS
from tipr.encoders.tokenizers import SubwordTokenizer
from tipr.retrieval import Retriever


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_an_encoder_comes_back_from_its_folder(name: str, tmp_path: Path) -> None:
    encoder = make_encoder(name)
    tokenizer = SubwordTokenizer.train(
        ["a red coat", "一件红色外套"], vocabulary_size=260, max_tokens=encoder.max_tokens
    )
    model = Retriever(encoder, tokenizer, Preprocessing(encoder.image_size))
    picture = Image.effect_noise((30, 60), 90).convert("RGB")
    before = model.encode_images([picture, picture.rotate(180)])
    model.save(tmp_path / "model")
    loaded = Retriever.load(tmp_path / "model")
    assert loaded.fingerprint == model.fingerprint
    assert type(loaded.encoder) is ENCODERS[name]
    np.testing.assert_array_equal(loaded.encode_images([picture, picture.rotate(180)]), before)

"""`tipr import` of Bi-IRRA's two layouts: XLM-R's vocabulary beside the file, and the preprocessing of each."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Engine
from tokenizers import models

sys.path.insert(0, str(Path(__file__).parents[1] / "contract"))
from checkpoint_samples import SAMPLES

from tipr.data.images import CLIP_MEAN, IMAGENET_MEAN
from tipr.encoders.xlmr_tokenizer import MASK, SPECIAL, XlmrTokenizer
from tipr.errors import WeightsError
from tipr.importers import IMPORTERS
from tipr.importers.model_folder import COMPANIONS, import_model
from tipr.retrieval import Retriever

pytestmark = pytest.mark.usefixtures("foreign_files_read_here")
MODEL = Path(__file__).parents[1] / "data" / "xlmr_tokenizer" / "sentencepiece.bpe.model"


def vocabulary(folder: Path, tokens: int) -> Path:
    """A `tokenizer.json` as published, of `tokens` ids."""
    letters = [(chr(ord("a") + number % 26) * (1 + number // 26), -float(number)) for number in range(tokens - 5)]
    pieces = [*((token, 0.0) for token in SPECIAL), *letters, (MASK, 0.0)]
    engine = Engine(models.Unigram(pieces, unk_id=3, byte_fallback=False))
    engine.add_special_tokens([*SPECIAL, MASK])
    (folder / "tokenizer.json").write_text(engine.to_str())
    return folder / "tokenizer.json"


def test_every_format_has_companions() -> None:
    assert COMPANIONS.keys() == IMPORTERS.keys()


@pytest.mark.parametrize(("format", "mean"), [("bi_irra", IMAGENET_MEAN), ("x2vlm", CLIP_MEAN)])
def test_a_checkpoint_becomes_a_model_that_searches_and_reranks(
    format: str, mean: tuple[float, ...], tmp_path: Path
) -> None:
    file = SAMPLES[format](tmp_path)
    vocabulary(tmp_path, 300)
    (tmp_path / "heads.yaml").write_text("text_heads: 4\n")
    found = import_model(format, file, tmp_path / "model", config=tmp_path / "heads.yaml", verify=True)
    model = Retriever.load(tmp_path / "model")
    assert found.verified == len(model.encoder.state_dict())
    assert isinstance(model.tokenizer, XlmrTokenizer)
    assert model.encoder.can_rerank
    assert (model.preprocessing.mean, model.preprocessing.interpolation) == (mean, "bicubic")
    assert json.loads((tmp_path / "model" / "model.json").read_text())["encoder"]["text_heads"] == 4


def test_the_vocabulary_of_another_model_is_refused(tmp_path: Path) -> None:
    file = SAMPLES["bi_irra"](tmp_path)
    with pytest.raises(WeightsError, match=r"get sentencepiece.bpe.model from https://huggingface.co/FacebookAI"):
        import_model("bi_irra", file, tmp_path / "model")
    shutil.copy(MODEL, tmp_path)
    with pytest.raises(WeightsError, match="has 422 tokens, the model 300"):
        import_model("bi_irra", file, tmp_path / "model")
    assert not (tmp_path / "model").exists()

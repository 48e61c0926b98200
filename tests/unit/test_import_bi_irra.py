"""`tipr import` of Bi-IRRA's two layouts: XLM-R's vocabulary beside the file, and the preprocessing of each."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from checkpoint_samples import SAMPLES
from tokenizers import Tokenizer as Engine
from tokenizers import models

from tipr.data.images import CLIP_MEAN, IMAGENET_MEAN
from tipr.encoders.xlmr_tokenizer import MASK, SPECIAL, XlmrTokenizer
from tipr.errors import WeightsError
from tipr.importers import IMPORTERS, read
from tipr.importers.model_folder import COMPANIONS, import_model
from tipr.methods import ClipBaseline, TrainingFacts
from tipr.methods.bi_irra import BiIrra
from tipr.methods.bi_irra_config import BiIrraConfig
from tipr.retrieval import Retriever
from tipr.retrieval.model_folder import read_heads
from tipr.training import assembly
from tipr.training.card import research_only

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
    released = read("bi_irra", SAMPLES["bi_irra"](tmp_path), config=tmp_path / "heads.yaml")
    heads = read_heads(tmp_path / "model")
    assert heads is not None
    assert heads.method == "bi_irra"
    assert {name.split(".")[0] for name in heads.tensors} == {"temp", "mlm_head", "mim_head"}
    assert torch.equal(heads.tensors["mlm_head.dense.weight"], released.state_dict()["mlm_head.dense.weight"])
    description = json.loads((tmp_path / "model" / "model.json").read_text())
    assert description["encoder"]["text_heads"] == 4
    assert research_only(description["card"]) == (format == "bi_irra"), "a benchmark's licence goes with the weights"


def test_the_vocabulary_of_another_model_is_refused(tmp_path: Path) -> None:
    file = SAMPLES["bi_irra"](tmp_path)
    with pytest.raises(WeightsError, match=r"get sentencepiece.bpe.model from https://huggingface.co/FacebookAI"):
        import_model("bi_irra", file, tmp_path / "model")
    shutil.copy(MODEL, tmp_path)
    with pytest.raises(WeightsError, match="has 422 tokens, the model 300"):
        import_model("bi_irra", file, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_run_starts_with_the_heads_that_are_its_own_and_fit(tmp_path: Path) -> None:
    file = SAMPLES["bi_irra"](tmp_path)
    vocabulary(tmp_path, 300)
    import_model("bi_irra", file, tmp_path / "model")
    imported = read("bi_irra", file).state_dict()
    encoder = Retriever.load(tmp_path / "model").encoder
    facts = TrainingFacts(pairs=4, mask_id=299, vocabulary_size=300, identities=2)

    notes: list[str] = []
    method = BiIrra.build(BiIrraConfig(losses=("itc", "itm", "mlm")), encoder, facts)
    assert not torch.equal(method.state_dict()["mlm_head.dense.weight"], imported["mlm_head.dense.weight"])
    assembly._take_heads(method, str(tmp_path / "model"), notes.append)
    assert all(torch.equal(tensor, imported[name]) for name, tensor in method.state_dict().items())
    assert [note.partition("model: ")[2] for note in notes] == [
        "taken too: mlm_head, temp",
        "not taken, as they do not fit: mim_head",
    ]

    notes.clear()
    other = ClipBaseline.build(ClipBaseline.Config(), encoder, facts)
    assembly._take_heads(other, str(tmp_path / "model"), notes.append)
    assert notes == []
    (tmp_path / "model" / "heads.safetensors").write_bytes(b"cut")
    with pytest.raises(WeightsError, match=r"heads.safetensors is damaged"):
        assembly._take_heads(method, str(tmp_path / "model"), notes.append)

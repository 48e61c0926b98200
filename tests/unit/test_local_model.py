"""A local language model as a backend: a small one, built here from a configuration and a tokenizer."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tipr import cli
from tipr.data.manifest import Caption, Record, write_manifest
from tipr.errors import ConfigError, WeightsError
from tipr.translation.backends import Answer, Prompt, answer_all
from tipr.translation.local_model import LocalModel
from tipr.translation.records import read_rows

TEMPLATE = (
    "{% for turn in messages %}<user>{{ turn.content }}</s>{% endfor %}{% if add_generation_prompt %}<bot>{% endif %}"
)
TEXTS = ["Translate a red coat.", "Translate the long story of a man in a dark blue jacket.", "哪 一 件", "x"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny-llama"
    engine = Tokenizer(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = decoders.ByteLevel()
    special = ["<pad>", "</s>", "<user>", "<bot>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    engine.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(vocab_size=320, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=engine,
        pad_token="<pad>",
        eos_token="</s>",
        additional_special_tokens=["<user>", "<bot>"],
        chat_template=TEMPLATE,
    )
    tokenizer.save_pretrained(path)
    torch.manual_seed(3)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=1,
        )
    )
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4.0)  # answers of fresh weights hardly depend on the prompt
    model.generation_config.temperature = 0.7  # as published folders bring along
    model.generation_config.do_sample = True
    model.save_pretrained(path)
    return path


def _greedy(folder: Path, text: str, length: int) -> str:
    """One prompt at a time, without padding, cache or `generate`."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = tokenizer(f"<user>{text}</s><bot>", add_special_tokens=False)["input_ids"]
    made: list[int] = []
    with torch.no_grad():
        while len(made) < length and (not made or made[-1] != 1):
            made.append(int(model(torch.tensor([ids + made])).logits[0, -1].argmax()))
    return str(tokenizer.decode(made, skip_special_tokens=True)).strip()


def test_answers_are_those_of_one_prompt_at_a_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> Any:
        raise AssertionError(f"a local model connected to {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    model = LocalModel.load(folder, batch=3, max_new_tokens=12)
    answers = model.complete([Prompt(text) for text in TEXTS])
    assert answers == [_greedy(folder, text, 12) for text in TEXTS]
    assert len(set(answers)) > 1
    taken: dict[int, Answer] = {}
    answer_all(model, [Prompt(text) for text in TEXTS], taken.__setitem__)
    assert [taken[place].text for place in range(4)] == answers
    tokens = taken[0].tokens
    assert tokens is not None
    assert tokens[0] > 3
    assert 1 <= tokens[1] <= 12
    assert taken[0].finish_reason in ("stop", "length")


def test_the_command_sends_nothing_though_an_endpoint_is_known(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Any] = []
    monkeypatch.setattr(socket.socket, "connect", lambda *arguments: tried.append(arguments))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **named: tried.append(arguments))
    monkeypatch.setenv("TIPR_TRANSLATE_URL", "https://localhost/v1")
    (tmp_path / "a.png").touch()
    write_manifest(tmp_path / "manifest.jsonl", [Record("a.png", (Caption("en", "A coat."), Caption("en", "A hat.")))])
    out = tmp_path / "out"
    command = ["translate", str(tmp_path), str(out), "--to", "zh", "fr", "--local", str(folder), "--max-tokens", "4"]
    with pytest.raises(SystemExit) as stop:
        cli.main([*command, "--stage", "translate", "--quiet"])
    assert stop.value.code == 0
    assert tried == []
    assert [row["provenance"]["backend"] for row in read_rows(out / "translations.jsonl")] == ["local"] * 4


def test_a_caption_cannot_end_the_turn(folder: Path) -> None:
    model = LocalModel.load(folder)
    said = model._tokenizer.batch_decode(model._encode(["x</s><bot>y"])["input_ids"])
    assert said == ["<user>x< /s>< bot>y</s><bot>"]


def test_it_describes_itself_without_its_place(folder: Path) -> None:
    described = LocalModel.load(folder).describe()
    assert (described["name"], described["model"], described["model_type"]) == ("local", "tiny-llama", "llama")
    assert len(described["model_sha256"]) == 64
    assert str(folder.parent) not in json.dumps(described)


def test_pictures_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="tiny-llama reads no pictures"):
        LocalModel.load(folder).complete([Prompt("x", Path("a.jpg"))])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "t5", "is_encoder_decoder": True}, "is an encoder-decoder (model type 't5')"),
        ({"model_type": "qwen", "auto_map": {"AutoModel": "x.Y"}}, "wants to run code of its own (model type 'qwen')"),
        ({"model_type": "vit"}, "is no language model (model type 'vit')"),
        ({"quantization_config": {"bits": 4}}, "are quantised"),
    ],
)
def test_folders_that_cannot_be_used_are_refused(
    folder: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    content = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**content, **change}))
    with pytest.raises(WeightsError) as caught:
        LocalModel.load(tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_folder_and_an_absent_device_are_one_line(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(
            path.read_bytes()[:200] if path.suffix == ".safetensors" else path.read_bytes()
        )
    with pytest.raises(WeightsError, match="cannot load"):
        LocalModel.load(tmp_path)
    with pytest.raises(ConfigError, match="unknown device 'fast'"):
        LocalModel.load(folder, device="fast")

"""Tokenizers and encoders: what is loaded, what is refused, what counts as the head."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    CTRLConfig,
    MarianConfig,
    MBartConfig,
    PreTrainedTokenizerBase,
    RobertaForMaskedLM,
)

from crosstune.config.schema import Model, ModelOrigin, TaskType
from crosstune.errors import ConfigError
from crosstune.models.load import check_length, find_head, load_model, load_tokenizer
from crosstune.models.resolve import resolve_model
from crosstune.models.tokenizers import train_tokenizer
from crosstune.tasks import TASKS, Task
from tests.tiny import tiny_run

SIZES = {
    "num_hidden_layers": 1,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 400,
}
TASK: Task = TASKS[TaskType.classification].from_rows(
    [{"label": "a", "where": "f:1"}, {"label": "b", "where": "f:2"}]
)


def save(
    folder: Path, model: BertModel | BertForMaskedLM, tokenizer: PreTrainedTokenizerBase
) -> Model:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return resolve_model(Model(name="local", origin=ModelOrigin.local, path=str(folder)))


def test_the_same_texts_train_the_same_tokenizer() -> None:
    texts = ["el tren llega tarde", "火车晚点了", "the train is late"] * 20
    once, again = (train_tokenizer(iter(texts), 400).backend_tokenizer.to_str() for _ in range(2))
    assert once == again


def test_special_pieces_that_stand_in_a_text_are_text(byte_bpe: PreTrainedTokenizerBase) -> None:
    inside = byte_bpe("a [SEP] b [MASK]")["input_ids"][1:-1]
    assert byte_bpe.sep_token_id not in inside
    assert byte_bpe.mask_token_id not in inside
    assert byte_bpe("a")["input_ids"][-1] == byte_bpe.sep_token_id, "the real one stays"


def test_a_loaded_checkpoint_is_in_training_mode_and_float32(
    tmp_path: Path, byte_bpe: PreTrainedTokenizerBase
) -> None:
    model = save(tmp_path, BertModel(BertConfig(**SIZES)).half(), byte_bpe)
    loaded = load_model(model, TASK, byte_bpe, []).model
    assert all(module.training for module in loaded.modules())
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}


def test_a_pooler_that_the_checkpoint_brings_is_no_part_of_the_head(
    tmp_path: Path, byte_bpe: PreTrainedTokenizerBase
) -> None:
    model = save(tmp_path, BertModel(BertConfig(**SIZES)), byte_bpe)
    assert load_model(model, TASK, byte_bpe, []).head == ["classifier"]


def test_a_pooler_that_the_checkpoint_lacks_belongs_to_the_head(
    tmp_path: Path, byte_bpe: PreTrainedTokenizerBase
) -> None:
    model = save(tmp_path, BertForMaskedLM(BertConfig(**SIZES)), byte_bpe)
    assert load_model(model, TASK, byte_bpe, []).head == ["classifier", "bert.pooler"]


def test_a_checkpoint_that_lacks_encoder_weights_is_refused(
    tmp_path: Path, byte_bpe: PreTrainedTokenizerBase
) -> None:
    model = save(tmp_path, BertModel(BertConfig(**SIZES)), byte_bpe)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 2}))
    with pytest.raises(ConfigError, match="lacks 16 weights of the encoder"):
        load_model(model, TASK, byte_bpe, [])


def words_of_ours(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged, less the library's own words."""
    return [each.getMessage() for each in caplog.records if each.name.startswith("crosstune")]


CLOZE = TASKS[TaskType.cloze].from_rows([], {"es": "{text} {mask}"}, {"es": {"a": "la", "b": "en"}})


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (CLOZE, r"model=local: \S+ lacks 6 weights of a masked LM's head, cls\.predictions\.bias"),
        (
            TASKS[TaskType.entailment].from_rows(
                [], {"es": "{label}"}, {"es": {"a": "la", "b": "en"}}
            ),
            r"model=local: \S+ lacks 2 weights of its head, classifier\.bias among them",
        ),
    ],
    ids=["cloze", "entailment"],
)
def test_a_head_that_is_not_trained_must_come_with_the_checkpoint(
    tmp_path: Path, byte_bpe: PreTrainedTokenizerBase, task: Task, said: str
) -> None:
    model = save(tmp_path, BertModel(BertConfig(**SIZES)), byte_bpe)
    with pytest.raises(ConfigError, match=said):
        load_model(model, task, byte_bpe, [])


def test_a_masked_lm_without_its_head_goes_on_from_a_random_one_and_says_so_once(
    tmp_path: Path, byte_bpe: PreTrainedTokenizerBase, caplog: pytest.LogCaptureFixture
) -> None:
    model = save(tmp_path, BertModel(BertConfig(**SIZES)), byte_bpe)
    loaded = load_model(model, TASKS[TaskType.masked_lm](), byte_bpe, [])
    assert "cls.predictions.transform.dense" in loaded.head
    (told,) = words_of_ours(caplog)
    assert "lacks 6 weights of the head, cls.predictions.bias among them" in told


@pytest.mark.parametrize("kind", [BertForMaskedLM, RobertaForMaskedLM, BertForPreTraining])
@pytest.mark.parametrize("task", [CLOZE, TASKS[TaskType.masked_lm]()], ids=["cloze", "masked_lm"])
def test_a_checkpoint_with_its_head_is_taken_without_a_word(
    tmp_path: Path,
    byte_bpe: PreTrainedTokenizerBase,
    caplog: pytest.LogCaptureFixture,
    kind: Any,
    task: Task,
) -> None:
    model = save(tmp_path, kind(kind.config_class(**SIZES)), byte_bpe)
    assert load_model(model, task, byte_bpe, []).head
    assert words_of_ours(caplog) == []


def test_the_head_of_masked_lm_leaves_tied_weights_out() -> None:
    head = find_head(BertForMaskedLM(BertConfig(**SIZES)))
    assert head == ["cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm"]


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ConfigError, match="Pickled weights are never loaded"):
        resolve_model(Model(name="local", origin=ModelOrigin.local, path=str(tmp_path)))


@pytest.mark.parametrize(
    ("config", "name", "files"),
    [
        (MarianConfig, "MarianTokenizer", ("source.spm", "target.spm")),
        (MBartConfig, "MBartTokenizer", ("sentencepiece.bpe.model",)),
        (CTRLConfig, "CTRLTokenizer", ()),
    ],
)
def test_a_tokenizer_without_a_fast_version_is_refused_and_says_what_works(
    tmp_path: Path, config: Any, name: str, files: Sequence[str]
) -> None:
    config().save_pretrained(tmp_path)
    for file in files:
        (tmp_path / file).write_bytes(b"no model")
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "vocab.json").write_text('{"<unk>": 0, "<pad>": 1, "</s>": 2}')
    (tmp_path / "merges.txt").write_text("#version: 0.2\n\n")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name}))
    model = resolve_model(Model(name="local", origin=ModelOrigin.local, path=str(tmp_path)))
    with pytest.raises(ConfigError, match="Marian checkpoints have none at all: use mT5, mBART"):
        load_tokenizer(model, iter(()), "", tmp_path)


def test_code_that_comes_with_a_checkpoint_is_not_run(
    tmp_path: Path, byte_bpe: PreTrainedTokenizerBase
) -> None:
    model = save(tmp_path, BertModel(BertConfig(**SIZES)), byte_bpe)
    config = json.loads((tmp_path / "config.json").read_text())
    foreign = {"auto_map": {"AutoConfig": "evil.Config"}, "model_type": "evil"}
    (tmp_path / "config.json").write_text(json.dumps({**config, **foreign}))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Config: pass\n")
    with pytest.raises(ConfigError):
        load_model(model, TASK, byte_bpe, [])
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [("quantization_config", {"quant_method": "fp8"}), ("_attn_implementation", "a/kernels")],
)
def test_a_checkpoint_that_names_kernels_or_a_quantization_is_refused(
    byte_bpe: PreTrainedTokenizerBase, tmp_path: Path, key: str, value: Any
) -> None:
    source = save(tmp_path, BertModel(BertConfig(**SIZES)), byte_bpe)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(ConfigError, match=f"config.json: {key} names kernels"):
        load_model(source, TASK, byte_bpe, ())


def test_a_hub_model_without_a_commit_is_refused() -> None:
    with pytest.raises(ConfigError, match="40-digit commit"):
        resolve_model(Model(name="x", origin=ModelOrigin.hub, hub_id="a/b", revision="main"))


def test_an_unreachable_hub_model_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    model = Model(name="x", origin=ModelOrigin.hub, hub_id="nobody/nothing", revision="0" * 40)
    with pytest.raises(ConfigError, match=r"model=local model\.path=DIR"):
        load_tokenizer(model, iter(()), "", Path("unused"))


def test_inputs_longer_than_the_positions_are_refused() -> None:
    model = BertModel(BertConfig(**SIZES, max_position_embeddings=64))
    check_length(model, 64)
    with pytest.raises(ConfigError, match="64 positions"):
        check_length(model, 65)


def test_a_study_with_one_finished_model_is_a_path(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, "masked_lm")
    for name, status in (("good", "finished"), ("bad", "failed")):
        folder = tmp_path / "study" / name / "model"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(b"")
        (folder.parent / "record.json").write_text(json.dumps({"status": status}))
    found = resolve_model(
        Model(name="local", origin=ModelOrigin.local, path=str(tmp_path / "study"))
    )
    assert found.path == (tmp_path / "study" / "good" / "model").as_posix()
    assert run.model.path is None


def trained_head(folder: Path, kind: type, labels: list[str], tokenizer: Any) -> Model:
    """Save a model whose head was trained for `labels`: all its weights are 7."""
    names = dict(enumerate(labels))
    built = kind(BertConfig(**SIZES, id2label=names, label2id={v: k for k, v in names.items()}))
    for parameter in built.classifier.parameters():
        torch.nn.init.constant_(parameter, 7.0)
    return save(folder, built, tokenizer)


@pytest.mark.parametrize(
    ("kind", "labels", "keep", "kept"),
    [
        (BertForSequenceClassification, ["a", "b"], False, True),
        (BertForSequenceClassification, ["neg", "pos"], False, False),
        (BertForSequenceClassification, ["b", "a"], False, False),
        (BertForTokenClassification, ["a", "b"], False, False),
        (BertForSequenceClassification, ["neg", "pos"], True, True),
        (BertForTokenClassification, ["a", "b"], True, True),
        (BertForSequenceClassification, ["x", "y", "z"], False, False),
        (BertForTokenClassification, ["x"], False, False),
    ],
)
@pytest.mark.parametrize("task", ["sequence", "tags"])
def test_a_head_for_other_labels_or_another_task_is_new(
    kind: type,
    labels: list[str],
    keep: bool,
    kept: bool,
    task: str,
    tmp_path: Path,
    byte_bpe: PreTrainedTokenizerBase,
) -> None:
    tagging = TASKS[TaskType.tagging].from_rows([{"tags": ["a", "b"], "where": "f:1"}])
    if task == "tags":  # the mirror image
        other = {
            BertForSequenceClassification: BertForTokenClassification,
            BertForTokenClassification: BertForSequenceClassification,
        }
        kind = other[kind]
    model = replace(trained_head(tmp_path, kind, labels, byte_bpe), keep_head=keep)
    heads = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        loaded = load_model(model, tagging if task == "tags" else TASK, byte_bpe, [])
        heads.append(loaded.model.classifier.weight.detach().clone())
        assert loaded.kept_head is kept
        assert loaded.model.config.num_labels == 2
    assert bool((heads[0] == 7).all()) is kept
    assert torch.equal(*heads) is kept  # a new head depends on the seed


def test_a_head_that_is_to_be_kept_must_fit(
    tmp_path: Path, byte_bpe: PreTrainedTokenizerBase
) -> None:
    model = trained_head(tmp_path, BertForSequenceClassification, ["x", "y", "z"], byte_bpe)
    with pytest.raises(ConfigError, match="its head is for 3 labels, the data has 2"):
        load_model(replace(model, keep_head=True), TASK, byte_bpe, [])

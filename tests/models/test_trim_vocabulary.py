import json

import pytest
import torch
from transformers import (
    AutoModelForMaskedLM,
    BertConfig,
    BertForMaskedLM,
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
)

from crosstune.config.compose import compose_run
from crosstune.config.schema import Model, ModelOrigin
from crosstune.errors import ConfigError
from crosstune.inference.predict import predict
from crosstune.languages import list_character_scripts
from crosstune.models.load import load_tokenizer
from crosstune.models.trim_vocabulary import trim_checkpoint, trim_tokenizer
from crosstune.training.train import train
from tests.conftest import TEXTS
from tests.tiny import DATA, ROWS

SPANISH = [text for text in TEXTS if "ñ" in text or "Pérez" in text]
CHINESE = [text for text in TEXTS if "。" in text]
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZES |= {"intermediate_size": 64, "max_position_embeddings": 128}


@pytest.fixture(params=["wordpiece", "unigram"])
def checkpoint(request):
    """Return a masked LM with its tokenizer."""
    tokenizer = request.getfixturevalue(request.param)
    torch.manual_seed(1)
    known = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    if request.param == "unigram":
        return XLMRobertaForMaskedLM(XLMRobertaConfig(**SIZES, **known)).eval(), tokenizer
    return BertForMaskedLM(BertConfig(**SIZES, **known)).eval(), tokenizer


def trim(checkpoint, folder, texts, languages):
    """Return the trimmed model and its tokenizer."""
    for part in checkpoint:
        part.save_pretrained(folder / "base")
    source = Model("base", ModelOrigin.local, path=str(folder / "base"), languages=languages)
    trimmed = trim_checkpoint(source, texts, "content", folder)
    tokenizer = load_tokenizer(trimmed, [], "", folder)
    return AutoModelForMaskedLM.from_pretrained(trimmed.path).eval(), tokenizer


@pytest.mark.parametrize("languages", [["zh"], ["es"], ["es", "zh", "en"]])
def test_texts_of_the_study_and_of_the_languages_have_the_same_logits(
    checkpoint, languages, tmp_path
):
    model, tokenizer = checkpoint
    small, trimmed = trim(checkpoint, tmp_path, SPANISH, languages)
    kept = tokenizer.convert_tokens_to_ids(trimmed.convert_ids_to_tokens(range(len(trimmed))))
    assert small.get_input_embeddings().weight.shape[0] == small.config.vocab_size == len(trimmed)
    unseen = [] if languages == ["es"] else CHINESE
    for text in (*SPANISH, *unseen):
        before, after = (one(text, return_tensors="pt") for one in (tokenizer, trimmed))
        assert tokenizer.convert_ids_to_tokens(before.input_ids[0]) == (
            trimmed.convert_ids_to_tokens(after.input_ids[0])
        )
        with torch.no_grad():
            wide, narrow = model(**before).logits, small(**after).logits
        torch.testing.assert_close(narrow, wide[..., kept], atol=1e-5, rtol=0)


def test_words_of_other_scripts_go_and_their_characters_stay(checkpoint):
    _, tokenizer = checkpoint
    trimmed = trim_tokenizer(tokenizer, [], ["zh"])
    assert len(trimmed) < len(tokenizer)
    assert "York" not in " ".join(trimmed.get_vocab())
    for text in TEXTS:
        assert trimmed.unk_token_id not in trimmed.encode(text)


def test_special_tokens_are_where_the_post_processor_puts_them(checkpoint):
    _, tokenizer = checkpoint
    trimmed = trim_tokenizer(tokenizer, [], ["zh"])
    before, after = (one("茶", "水").input_ids for one in (tokenizer, trimmed))
    assert trimmed.convert_ids_to_tokens(after) == tokenizer.convert_ids_to_tokens(before)
    for name, token in tokenizer.special_tokens_map.items():
        assert trimmed.special_tokens_map[name] == token
        assert trimmed.convert_tokens_to_ids(token) == trimmed.get_vocab()[token]


def test_a_byte_level_vocabulary_is_refused(byte_bpe):
    with pytest.raises(ConfigError, match=r"model\.languages: not for a tokenizer of type BPE"):
        trim_tokenizer(byte_bpe, [], ["es"])


def test_random_weights_have_no_vocabulary_to_trim(tmp_path):
    model = Model("mini", ModelOrigin.scratch, languages=["es"])
    with pytest.raises(ConfigError, match="its tokenizer is trained on the study's texts"):
        trim_checkpoint(model, [], "", tmp_path)


def test_scripts_are_those_of_characters():
    assert list_character_scripts(["ja"]) == ["Hani", "Hira", "Kana", "Zinh", "Zyyy"]
    assert "Cyrl" in list_character_scripts(["ru"])
    assert "Cyrl" not in list_character_scripts(["sr-Latn"])


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_run_on_a_trimmed_checkpoint_predicts_from_its_folder(checkpoint, method, tmp_path):
    model, tokenizer = checkpoint
    model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    words = ["model=local", f"model.path={tmp_path / 'base'}", "model.languages=[zh]"]
    run = compose_run(
        [
            *(*DATA["classification"], ROWS, *words, f"method={method}", "data.max_tokens=24"),
            *("trainer=cpu", "trainer.max_epochs=1", "logger=none", f"outputs={tmp_path}"),
        ]
    )
    folder = train(run)
    record = json.loads((folder / "record.json").read_text())
    saved = load_tokenizer(
        Model("saved", ModelOrigin.local, path=str(folder / "model")), iter(()), "", tmp_path
    )
    assert len(saved) < len(tokenizer)
    lost = 32 * (len(tokenizer) - len(saved))
    embeddings = sum(p.numel() for p in model.base_model.embeddings.parameters())
    assert record["cost"]["embedding_parameters"] <= embeddings - lost
    source = tmp_path / "rows.tsv"
    source.write_text("text\nUna película muy buena.\nNo me gusta.\n", "utf-8")
    assert predict(folder, source, tmp_path / "out.jsonl") == 2

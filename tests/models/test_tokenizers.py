"""Tokenizers trained and grown here: which are functions of the texts, and what keeps its id."""

import json
import subprocess
import sys

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from crosstune.errors import ConfigError
from crosstune.models.tokenizers import (
    TRAINERS,
    extend_embeddings,
    extend_tokenizer,
    make_literal,
    split_subword,
    train_tokenizer,
    wrap_tokenizer,
)

SPANISH = [
    "El niño come una manzana en Málaga , y la niña bebe agua fresca .",
    "María Pérez vive en Buenos Aires desde 1998 y trabaja en la Universidad .",
    "La niña come pan y el niño come queso , pero la manzana es mejor .",
] * 5
CHINESE = ["小明住在北京，他喜欢喝茶。", "昨天张伟去了上海的银行。", "他去了北京的银行。"] * 5
SIZE = {"bpe": 330, "wordpiece": 120, "unigram": 80}
ALGORITHMS = pytest.mark.parametrize("algorithm", TRAINERS)


def grown(algorithm):
    old = train_tokenizer(SPANISH, SIZE[algorithm], algorithm)
    return old, extend_tokenizer(old, CHINESE, SIZE[algorithm])


def train_elsewhere(algorithms):
    """Return the vocabularies that another process, with other hashes, trains."""
    code = (
        "import json, sys; from crosstune.models.tokenizers import train_tokenizer;"
        "texts, sizes = json.load(sys.stdin);"
        "print(json.dumps([train_tokenizer(texts, n, a).get_vocab() for a, n in sizes.items()]))"
    )
    given = json.dumps([SPANISH + CHINESE, {name: SIZE[name] for name in algorithms}])
    done = subprocess.run(
        [sys.executable, "-c", code], input=given, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@ALGORITHMS
def test_the_vocabulary_is_at_most_as_large_as_asked(algorithm):
    assert len(train_tokenizer(SPANISH + CHINESE, SIZE[algorithm], algorithm)) <= SIZE[algorithm]


@ALGORITHMS
def test_special_pieces_come_first_and_stand_around_a_text(algorithm):
    tokenizer = train_tokenizer(SPANISH, SIZE[algorithm], algorithm)
    assert tokenizer.convert_ids_to_tokens([0, 1, 2, 3, 4]) == [
        "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]",
    ]  # fmt: skip
    ids = tokenizer("la niña", "come")
    assert (ids["input_ids"][0], ids["input_ids"][-1]) == (2, 3)
    assert max(ids["token_type_ids"]) == 1


@ALGORITHMS
def test_a_text_that_was_trained_on_comes_back(algorithm):
    tokenizer = train_tokenizer(SPANISH, SIZE[algorithm], algorithm)
    ids = tokenizer("la niña come pan", add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids).strip() == "la niña come pan"


@pytest.mark.slow
def test_the_texts_alone_decide_the_vocabulary():
    names = ("bpe", "wordpiece")
    here = [train_tokenizer(SPANISH + CHINESE, SIZE[n], n).get_vocab() for n in names]
    assert train_elsewhere(names) == here


def test_wordpiece_marks_what_does_not_begin_a_word():
    pieces = train_tokenizer(SPANISH, 90, "wordpiece").tokenize("come niñ")
    assert [piece.startswith("##") for piece in pieces].count(False) == 2
    assert "".join(pieces).replace("##", "") == "comeniñ"


def test_wordpiece_leaves_what_it_never_saw_unknown():
    assert train_tokenizer(SPANISH, 120, "wordpiece").tokenize("茶") == ["[UNK]"]


# --- special pieces that stand in a text

HOSTILE = ("[MASK]", "la[MASK]niña", "[SEP] [CLS]", "[[PAD]][MASK]", "［ＭＡＳＫ］")


def special_ids_in(tokenizer, text):
    """Return the ids of special pieces, but for the unknown one, that a text alone becomes."""
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    return special.intersection(tokenizer(text, add_special_tokens=False)["input_ids"])


def trained_on_hostile_texts(algorithm):
    return train_tokenizer([*SPANISH, *HOSTILE * 3], SIZE[algorithm], algorithm)


@ALGORITHMS
@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_spells_a_special_piece(algorithm, text):
    tokenizer = make_literal(trained_on_hostile_texts(algorithm))
    assert special_ids_in(tokenizer, text) == set()
    words = tokenizer(text.split(), is_split_into_words=True, add_special_tokens=False)
    assert not set(words["input_ids"]) & {0, 2, 3, 4}


@ALGORITHMS
def test_special_pieces_around_a_text_stay(algorithm):
    tokenizer = make_literal(trained_on_hostile_texts(algorithm))
    ids = tokenizer("[MASK]")["input_ids"]
    assert (ids[0], ids[-1]) == (2, 3)


def test_a_vocabulary_that_reads_special_pieces_like_others_is_a_control():
    tokenizer = trained_on_hostile_texts("unigram")
    tokenizer.split_special_tokens = True  # all that transformers does about it
    assert special_ids_in(tokenizer, "[MASK]") == {tokenizer.mask_token_id}


@ALGORITHMS
def test_texts_without_special_pieces_are_read_as_before(algorithm):
    tokenizer = trained_on_hostile_texts(algorithm)
    before = [tokenizer(text)["input_ids"] for text in [*SPANISH, "a [ b ] <s> MASK"]]
    make_literal(tokenizer)
    assert [tokenizer(text)["input_ids"] for text in [*SPANISH, "a [ b ] <s> MASK"]] == before


@ALGORITHMS
def test_a_tokenizer_is_made_literal_once(algorithm):
    once = make_literal(trained_on_hostile_texts(algorithm)).backend_tokenizer.to_str()
    again = make_literal(wrap_tokenizer(Tokenizer.from_str(once))).backend_tokenizer.to_str()
    assert again == once


def test_saved_for_plain_transformers_a_mask_can_still_be_written(tmp_path):
    tokenizer = make_literal(trained_on_hostile_texts("unigram"))
    tokenizer.save_pretrained(tmp_path)
    ids = AutoTokenizer.from_pretrained(tmp_path)("la [MASK]")["input_ids"]
    assert ids.count(tokenizer.mask_token_id) == 1


# --- growing


@ALGORITHMS
def test_old_pieces_keep_their_ids_and_new_ones_follow(algorithm):
    old, new = grown(algorithm)
    before, after = old.get_vocab(), new.get_vocab()
    assert {piece: after[piece] for piece in before} == before
    assert sorted(after.values()) == list(range(len(new)))
    assert len(new) > len(old)


@ALGORITHMS
def test_a_grown_tokenizer_needs_fewer_pieces_or_knows_more(algorithm):
    old, new = grown(algorithm)
    text = "他去了北京的银行"
    before, after = (t(text, add_special_tokens=False)["input_ids"] for t in (old, new))
    assert len(after) < len(before) or before.count(old.unk_token_id) > 0
    assert new.unk_token_id not in after


@pytest.mark.parametrize("algorithm", ["bpe", "wordpiece"])
def test_growing_too_is_a_function_of_the_texts(algorithm):
    assert grown(algorithm)[1].get_vocab() == grown(algorithm)[1].get_vocab()


@ALGORITHMS
def test_old_texts_are_still_read_without_unknown_pieces(algorithm):
    _, new = grown(algorithm)
    assert new.unk_token_id not in new("la niña come", add_special_tokens=False)["input_ids"]


def test_a_tokenizer_of_another_kind_is_refused():
    words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0})))
    with pytest.raises(ConfigError, match="WordLevel"):
        extend_tokenizer(words, CHINESE, 50)


# --- embeddings


def model_for(tokenizer, tied=True, spare=0):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer) + spare,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        tie_word_embeddings=tied,
    )
    model = BertForMaskedLM(config).eval()
    torch.nn.init.normal_(model.cls.predictions.bias)
    return model


@ALGORITHMS
@pytest.mark.parametrize("tied", [True, False])
def test_a_new_row_is_the_mean_of_the_old_pieces_of_its_piece(algorithm, tied):
    old, new = grown(algorithm)
    model = model_for(old, tied)
    before = [model.get_input_embeddings().weight.detach().clone()]
    before.append(model.get_output_embeddings().weight.detach().clone())
    before.append(model.get_output_embeddings().bias.detach().clone())
    extend_embeddings(model, old, new)
    output = model.get_output_embeddings()
    after = [model.get_input_embeddings().weight, output.weight, output.bias]
    pieces = new.convert_ids_to_tokens(list(range(len(old), len(new))))
    for values, was in zip(after, before, strict=True):
        assert torch.equal(values[: len(old)], was)
        for row, piece in enumerate(pieces, start=len(old)):
            parts = split_subword(piece, old)
            wanted = was[parts].mean(0) if parts else was.mean(0)
            assert torch.allclose(values[row], wanted, atol=1e-6)


def test_the_parts_of_a_piece_spell_it(byte_bpe):
    parts = byte_bpe.convert_ids_to_tokens(split_subword("Ġmanzanas", byte_bpe))
    assert "".join(parts) == "Ġmanzanas"


def test_an_inner_wordpiece_is_made_of_inner_wordpieces(wordpiece):
    parts = wordpiece.convert_ids_to_tokens(split_subword("##oa", wordpiece))
    assert parts == ["##o", "##a"]


def test_old_texts_of_old_pieces_are_read_by_the_model_as_before():
    old, new = grown("wordpiece")
    model = model_for(old)
    ids = torch.tensor([[2, 10, 11, 12, 3]])
    before = model(input_ids=ids).logits
    extend_embeddings(model, old, new)
    assert torch.allclose(model(input_ids=ids).logits[..., : len(old)], before, atol=1e-6)


def test_rows_that_a_checkpoint_has_to_spare_are_used_first():
    old, new = grown("wordpiece")
    model = model_for(old, spare=500)
    extend_embeddings(model, old, new)
    assert model.get_input_embeddings().weight.shape[0] == len(old) + 500

"""Train tokenizers, extend the vocabulary of a checkpoint, and keep special tokens out of texts.

`bpe` and `wordpiece` depend on the texts alone. `unigram` sums scores in no fixed order, so that it
differs from one training to the next (github.com/huggingface/tokenizers/issues/1794): the trained
file stays in the cache, and its digest is part of a run's record.
"""

import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from crosstune.errors import ConfigError
from crosstune.files import atomic_write

log = logging.getLogger(__name__)

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CONTINUATION = "##"  # before a WordPiece that does not start a word


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, algorithm: str = "bpe"
) -> PreTrainedTokenizerFast:
    """Train a tokenizer of at most `vocab_size` subwords.

    `bpe` has a subword for every byte, so its vocabulary has at least 261; the others encode unseen
    and very rare characters as [UNK]. WordPiece: Schuster and Nakajima 2012
    (https://doi.org/10.1109/ICASSP.2012.6289079), on the words of cased BERT; Unigram: Kudo
    2018 (https://aclanthology.org/P18-1007); byte-level BPE: Radford et al. 2019.
    """
    tokenizer = TRAINERS[algorithm](iter(texts), vocab_size)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    return wrap_tokenizer(tokenizer)


def wrap_tokenizer(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """Return a trained tokenizer as one of transformers, with its special tokens."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        model_max_length=512,
        pad_token="[PAD]",  # noqa: S106 - a token, not a secret
        unk_token="[UNK]",  # noqa: S106
        cls_token="[CLS]",  # noqa: S106
        sep_token="[SEP]",  # noqa: S106
        mask_token="[MASK]",  # noqa: S106
    )


def make_literal(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Make the tokenizer read "[SEP]" or "<mask>" in a text as text; return the same tokenizer.

    Some vocabularies, Unigram above all, contain special tokens as ordinary subwords. There texts
    are split behind the first character of such a token, so that no text can produce it.
    """
    tokenizer.split_special_tokens = True
    backend: Any = tokenizer.backend_tokenizer
    readable = [
        str(token.content)
        for token_id, token in sorted(tokenizer.added_tokens_decoder.items())
        if token.special and len(token.content) > 1 and token_id != tokenizer.unk_token_id
        if token_id in tokenizer.encode(str(token.content), add_special_tokens=False)
    ]
    if readable:
        inside = "|".join(f"{re.escape(text[0])}(?={re.escape(text[1:])})" for text in readable)
        split = pre_tokenizers.Split(Regex(inside), "merged_with_previous")
        steps = [backend.pre_tokenizer, split] if backend.pre_tokenizer else [split]
        backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    return tokenizer


def _train_bpe(texts: Iterator[str], vocab_size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _train_wordpiece(texts: Iterator[str], vocab_size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece())
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    vocabulary = _learn_wordpieces(tokenizer, texts, vocab_size)
    tokenizer.model = models.WordPiece(vocabulary, unk_token="[UNK]")  # noqa: S106
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.decoder = decoders.WordPiece(prefix=CONTINUATION)
    return tokenizer


def _learn_wordpieces(splitter: Tokenizer, texts: Iterable[str], size: int) -> dict[str, int]:
    """Return at most `size` WordPieces; the splitter is used to split texts into words.

    The library numbers characters in hash order and breaks ties between merges by these numbers.
    Here each character gets its number beforehand, so that the result depends on the texts alone.
    """
    normalizer, pre_tokenizer = splitter.normalizer, splitter.pre_tokenizer
    words: Counter[str] = Counter()
    for text in texts:
        plain = normalizer.normalize_str(text)
        words.update(word for word, _ in pre_tokenizer.pre_tokenize_str(plain))
    characters: Counter[str] = Counter()
    for word, count in words.items():
        characters.update({character: count * word.count(character) for character in set(word)})
    inside = {character for word in words for character in word[1:]}
    alphabet = list(SPECIAL)
    for character in sorted(characters, key=lambda one: (-characters[one], one)):
        forms = [character, CONTINUATION + character] if character in inside else [character]
        if len(alphabet) + len(forms) > size // 2:
            break  # rare characters become [UNK]
        alphabet += forms
    learner = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # noqa: S106
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=alphabet, limit_alphabet=0, show_progress=False
    )
    learner.train_from_iterator((" ".join([w] * n) for w, n in sorted(words.items())), trainer)
    return learner.get_vocab()


def _train_unigram(texts: Iterator[str], vocab_size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL,
        unk_token="[UNK]",  # noqa: S106
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


TRAINERS: dict[str, Callable[[Iterator[str], int], Tokenizer]] = {
    "bpe": _train_bpe,
    "wordpiece": _train_wordpiece,
    "unigram": _train_unigram,
}


def _extend_wordpiece(
    model: dict[str, Any], tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], size: int
) -> None:
    backend: Any = tokenizer.backend_tokenizer
    learned = _learn_wordpieces(backend, texts, size)
    _append(model["vocab"], sorted(learned, key=learned.__getitem__), len(tokenizer))


def _extend_bpe(
    model: dict[str, Any], tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], size: int
) -> None:
    learned = _retrain(tokenizer, texts, size)["vocab"]
    vocabulary = model["vocab"]
    for subword in _append(vocabulary, sorted(learned, key=learned.__getitem__), len(tokenizer)):
        # any two subwords into which the old merges split it must be merged
        model["merges"] += [
            [subword[:cut], subword[cut:]]
            for cut in range(1, len(subword))
            if subword[:cut] in vocabulary and subword[cut:] in vocabulary
        ]


def _extend_unigram(
    model: dict[str, Any], tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], size: int
) -> None:
    known = {subword for subword, _ in model["vocab"]}
    learned = _retrain(tokenizer, texts, size)["vocab"]
    # ids are positions in this list
    model["vocab"] += [[subword, score] for subword, score in learned if subword not in known]


def _append(vocabulary: dict[str, int], subwords: Iterable[str], first: int) -> list[str]:
    """Add the subwords that are missing, with ids from `first`; return them."""
    new = [one for one in subwords if one not in vocabulary and one not in SPECIAL]
    vocabulary.update({subword: index for index, subword in enumerate(new, start=first)})
    return new


def _retrain(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], size: int) -> dict[str, Any]:
    """Return the state of the model that the tokenizer's algorithm learns from other texts."""
    trainable: Any = tokenizer
    trained = trainable.train_new_from_iterator(texts, size, show_progress=False)
    return json.loads(trained.backend_tokenizer.to_str())["model"]


EXTENDERS = {"BPE": _extend_bpe, "WordPiece": _extend_wordpiece, "Unigram": _extend_unigram}


def extend_tokenizer(
    tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], size: int
) -> PreTrainedTokenizerFast:
    """Return the tokenizer with the new subwords of a vocabulary of `size` trained on `texts`.

    Old subwords keep their ids and the new ones follow. The longest match (WordPiece), later merges
    (BPE) or the best score (Unigram) decides between them, so texts may be split differently.

    Raises:
        ConfigError: the tokenizer's algorithm is none of these.
    """
    backend: Any = tokenizer.backend_tokenizer
    state = json.loads(backend.to_str())
    kind = state["model"]["type"]
    if kind not in EXTENDERS:
        raise ConfigError(
            f"model.extend_vocab: not for a tokenizer of type {kind}. "
            f"Allowed: {', '.join(EXTENDERS)}."
        )
    EXTENDERS[kind](state["model"], tokenizer, texts, size)
    names = {name: value for name, value in tokenizer.special_tokens_map.items() if value}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        model_input_names=tokenizer.model_input_names,
        model_max_length=tokenizer.model_max_length,
        **names,
    )


def extend_embeddings(
    model: PreTrainedModel,
    old_tokenizer: PreTrainedTokenizerBase,
    new_tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Add an embedding for each new subword: the mean of the embeddings of its old subwords.

    The output layer and its bias grow likewise; the old rows do not change. A subword that the old
    tokenizer cannot encode gets the mean of all old embeddings.
    """
    first, last = len(old_tokenizer), len(new_tokenizer)
    table: Any = model.get_input_embeddings()
    rows = max(table.weight.shape[0], last)  # some checkpoints have unused rows
    model.resize_token_embeddings(rows, mean_resizing=False)
    output: Any = model.get_output_embeddings()
    table = model.get_input_embeddings()
    tables = [table.weight]
    if output is not None:
        tables += [] if output.weight is table.weight else [output.weight]
        tables += [] if output.bias is None else [output.bias]
    subwords: Any = new_tokenizer.convert_ids_to_tokens(list(range(first, last)))
    with torch.no_grad():
        means = [values[:first].mean(0) for values in tables]
        for row, subword in enumerate(subwords, start=first):
            parts = split_subword(subword, old_tokenizer)
            for values, mean in zip(tables, means, strict=True):
                values[row] = values[parts].mean(0) if parts else mean


def split_subword(subword: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the ids of the known subwords into which a tokenizer splits an unknown one."""
    backend: Any = tokenizer.backend_tokenizer
    model = backend.model
    text = subword.removeprefix(CONTINUATION) if isinstance(model, models.WordPiece) else subword
    tokens = [token.value for token in model.tokenize(text)] if text else []
    if text != subword and tokens:
        first = CONTINUATION + tokens[0]
        tokens[0] = first if model.token_to_id(first) is not None else tokens[0]
    ids: Any = tokenizer.convert_tokens_to_ids(tokens)
    return [token_id for token_id in ids if token_id != tokenizer.unk_token_id]


def digest_tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the sha256 of everything that decides how a text is tokenized."""
    backend: Any = tokenizer.backend_tokenizer
    backend.no_truncation()  # settings of the last call are part of the state otherwise
    backend.no_padding()
    return hashlib.sha256(backend.to_str().encode()).hexdigest()


def write_tokenizer(backend: Any, path: Path) -> Tokenizer:
    """Write a trained tokenizer to the cache, with a digest of itself; return what is there.

    Of several processes the last counts for all: Unigram is trained anew by each.
    """
    text = backend.to_str()
    digest = hashlib.sha256(text.encode()).hexdigest()
    with atomic_write(path) as partial:
        partial.write_text(json.dumps({"sha256": digest, "tokenizer": text}), "utf-8")
    return read_tokenizer(path) or backend


def read_tokenizer(path: Path) -> Tokenizer | None:
    """Return a cached tokenizer; None if there is none, or it was damaged on disk."""
    try:
        content = json.loads(path.read_text("utf-8"))
        text = content["tokenizer"]
        intact = hashlib.sha256(text.encode()).hexdigest() == content["sha256"]
        return Tokenizer.from_str(text) if intact else _report_damage(path)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError):
        return _report_damage(path)


def _report_damage(path: Path) -> None:
    log.warning("%s was damaged on disk: the tokenizer is trained again", path)

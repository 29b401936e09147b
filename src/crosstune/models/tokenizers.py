"""Tokenizers made here: trained from nothing, or grown by pieces of another language.

`make_literal` sees to it that no text spells a special piece, whoever made the tokenizer.
`bpe` and `wordpiece` are functions of the texts alone. `unigram` is not: its scores are sums in
no fixed order, so ids and scores differ from one training to the next even on one machine; the
trained file is therefore kept in the cache, and its digest belongs into a run's record
(github.com/huggingface/tokenizers/issues/1794). Called by `models.py`.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
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

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
INSIDE = "##"  # before a WordPiece that does not begin a word


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, algorithm: str = "bpe"
) -> PreTrainedTokenizerFast:
    """Train a tokenizer of at most `vocab_size` pieces.

    `bpe` has a piece for every byte, so its vocabulary is never below 261; what the others never
    saw, or hardly ever, is [UNK] to them. WordPiece: Schuster and Nakajima 2012
    (https://doi.org/10.1109/ICASSP.2012.6289079), with the words of BERT, cased; Unigram: Kudo
    2018 (https://aclanthology.org/P18-1007); byte-level BPE: Radford et al. 2019.
    """
    tokenizer = TRAINERS[algorithm](iter(texts), vocab_size)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(piece, tokenizer.token_to_id(piece)) for piece in ("[CLS]", "[SEP]")],
    )
    return wrap_tokenizer(tokenizer)


def wrap_tokenizer(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """Return a trained tokenizer as transformers uses it, with the names of its special pieces."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        model_max_length=512,
        pad_token="[PAD]",  # noqa: S106 - a piece of the vocabulary, no secret
        unk_token="[UNK]",  # noqa: S106
        cls_token="[CLS]",  # noqa: S106
        sep_token="[SEP]",  # noqa: S106
        mask_token="[MASK]",  # noqa: S106
    )


def make_literal(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Let a "[SEP]" or "<mask>" that stands in a text be text, and nothing special; return it.

    A vocabulary may read such a piece as it reads any other, Unigram above all. There the words
    are parted inside the piece, behind its first character, so that nothing spells it.
    """
    tokenizer.split_special_tokens = True
    backend: Any = tokenizer.backend_tokenizer
    spelled = [
        str(token.content)
        for number, token in sorted(tokenizer.added_tokens_decoder.items())
        if token.special and len(token.content) > 1 and number != tokenizer.unk_token_id
        if number in tokenizer.encode(str(token.content), add_special_tokens=False)
    ]
    if spelled:
        inside = "|".join(f"{re.escape(piece[0])}(?={re.escape(piece[1:])})" for piece in spelled)
        parting = pre_tokenizers.Split(Regex(inside), "merged_with_previous")
        steps = [backend.pre_tokenizer, parting] if backend.pre_tokenizer else [parting]
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
    tokenizer.decoder = decoders.WordPiece(prefix=INSIDE)
    return tokenizer


def _learn_wordpieces(splitter: Tokenizer, texts: Iterable[str], size: int) -> dict[str, int]:
    """Return at most `size` WordPieces; only the splitter's way of parting words is used.

    The library numbers characters in the order of a hash, and parts ties between pieces by their
    numbers. Each character gets its number beforehand here, so that the texts alone decide.
    """
    normalizer, pre_tokenizer = splitter.normalizer, splitter.pre_tokenizer
    words: Counter[str] = Counter()
    for text in texts:
        plain = normalizer.normalize_str(text)
        words.update(word for word, _ in pre_tokenizer.pre_tokenize_str(plain))
    letters: Counter[str] = Counter()
    for word, count in words.items():
        letters.update({letter: count * word.count(letter) for letter in set(word)})
    inside = {letter for word in words for letter in word[1:]}
    given = list(SPECIAL)
    for letter in sorted(letters, key=lambda letter: (-letters[letter], letter)):
        forms = [letter, INSIDE + letter] if letter in inside else [letter]
        if len(given) + len(forms) > size // 2:
            break  # rare characters are left to [UNK]
        given += forms
    learner = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # noqa: S106
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=given, limit_alphabet=0, show_progress=False
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
    learnt = _learn_wordpieces(backend, texts, size)
    _append(model["vocab"], sorted(learnt, key=learnt.__getitem__), len(tokenizer))


def _extend_bpe(
    model: dict[str, Any], tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], size: int
) -> None:
    learnt = _learn_again(tokenizer, texts, size)["vocab"]
    vocabulary = model["vocab"]
    for piece in _append(vocabulary, sorted(learnt, key=learnt.__getitem__), len(tokenizer)):
        # whatever two pieces the old merges leave of it must join
        model["merges"] += [
            [piece[:cut], piece[cut:]]
            for cut in range(1, len(piece))
            if piece[:cut] in vocabulary and piece[cut:] in vocabulary
        ]


def _extend_unigram(
    model: dict[str, Any], tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], size: int
) -> None:
    known = {piece for piece, _ in model["vocab"]}
    learnt = _learn_again(tokenizer, texts, size)["vocab"]
    # an id is a place in the list here
    model["vocab"] += [[piece, score] for piece, score in learnt if piece not in known]


def _append(vocabulary: dict[str, int], pieces: Iterable[str], first: int) -> list[str]:
    """Number the pieces that are missing, from `first`; return them."""
    fresh = [piece for piece in pieces if piece not in vocabulary and piece not in SPECIAL]
    vocabulary.update({piece: first + number for number, piece in enumerate(fresh)})
    return fresh


def _learn_again(
    tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], size: int
) -> dict[str, Any]:
    """Return the model that the tokenizer's own way of training makes of other texts."""
    learner: Any = tokenizer
    trained = learner.train_new_from_iterator(texts, size, show_progress=False)
    return json.loads(trained.backend_tokenizer.to_str())["model"]


EXTENDERS = {"BPE": _extend_bpe, "WordPiece": _extend_wordpiece, "Unigram": _extend_unigram}


def extend_tokenizer(
    tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], size: int
) -> PreTrainedTokenizerFast:
    """Return the tokenizer with the pieces that a vocabulary of `size`, made of `texts`, adds.

    Old pieces keep their ids; the new ones follow. The longest match (WordPiece), later merges
    (BPE) or the best score (Unigram) decides where they are used, so texts may be parted otherwise
    than before.

    Raises:
        ConfigError: the tokenizer is of another kind.
    """
    backend: Any = tokenizer.backend_tokenizer
    state = json.loads(backend.to_str())
    kind = state["model"]["type"]
    if kind not in EXTENDERS:
        raise ConfigError(
            f"model.extend_vocab: not for a tokenizer of kind {kind}. "
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
    """Give the model a row for each new piece: the mean of the rows of its old pieces.

    The output layer grows likewise, with its bias; all old rows stay as they are. A piece of
    which the old tokenizer knows nothing gets the mean of all old pieces.
    """
    first, last = len(old_tokenizer), len(new_tokenizer)
    table: Any = model.get_input_embeddings()
    rows = max(table.weight.shape[0], last)  # some checkpoints have rows to spare
    model.resize_token_embeddings(rows, mean_resizing=False)
    output: Any = model.get_output_embeddings()
    table = model.get_input_embeddings()
    tables = [table.weight]
    if output is not None:
        tables += [] if output.weight is table.weight else [output.weight]
        tables += [] if output.bias is None else [output.bias]
    pieces: Any = new_tokenizer.convert_ids_to_tokens(list(range(first, last)))
    with torch.no_grad():
        means = [values[:first].mean(0) for values in tables]
        for row, piece in enumerate(pieces, start=first):
            parts = part_piece(piece, old_tokenizer)
            for values, mean in zip(tables, means, strict=True):
                values[row] = values[parts].mean(0) if parts else mean


def part_piece(piece: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the ids of the known pieces that the tokenizer makes of a piece it does not have."""
    backend: Any = tokenizer.backend_tokenizer
    bare = piece.removeprefix(INSIDE) if isinstance(backend.model, models.WordPiece) else piece
    found = [token.value for token in backend.model.tokenize(bare)] if bare else []
    if bare != piece and found:
        inner = INSIDE + found[0]
        found[0] = inner if backend.model.token_to_id(inner) is not None else found[0]
    ids: Any = tokenizer.convert_tokens_to_ids(found)
    return [number for number in ids if number != tokenizer.unk_token_id]

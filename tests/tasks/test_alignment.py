"""Real corpora through three kinds of tokenizer and back: no gold tag or span gets lost."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from torch.nn.functional import one_hot
from transformers import BertTokenizer, PreTrainedTokenizerFast

from crosstune.config.schema import Model, ModelOrigin
from crosstune.data.readers import read_conll, read_conllu, read_segmented
from crosstune.data.tag_schemes import read_spans
from crosstune.data.windows import IGNORE, EncodedDataset
from crosstune.models.load import load_tokenizer
from crosstune.tasks.tagging import Tagging
from tests.tiny import batch_of, saying

pytestmark = [pytest.mark.shared, pytest.mark.slow]
SHARED = Path(__file__).parents[3] / "shared" / "data"
UNIVERSAL = {"word": 1, "tag": 2}
SLOTS = {"word": 1, "tag": 3, "skip_empty": True}
READ = {
    "ner/zh/weibo": (read_conll, {"strip_digit": True}),
    "ner/zh/panx_sample": (read_conll, {}),
    "ner/zh/uner_gsd": (read_conll, UNIVERSAL),
    "ner/zh/uner_pud": (read_conll, UNIVERSAL),
    "ner/es/panx_sample": (read_conll, {}),
    "ner/es/meddocan": (read_conll, {}),
    "ner/en/panx_sample": (read_conll, {}),
    "ner/en/uner_pud": (read_conll, UNIVERSAL),
    "ner/en/wnut17": (read_conll, {}),
    "intent/zh/xsid": (read_conll, SLOTS),
    "intent/en/xsid": (read_conll, SLOTS),
    "cws/zh/ud_gsd_seg": (read_segmented, {}),
    "pos_dep/es/ud_gsd": (read_conllu, {}),
    "pos_dep/en/ud_ewt": (read_conllu, {}),
    "pos_dep/zh/ud_gsdsimp": (read_conllu, {"characters": True}),
}
NAMES = {"cls_token": "<s>", "pad_token": "<pad>", "sep_token": "</s>", "unk_token": "<unk>"}
BARE = {"▁", "Ġ"}
CHUNK = 256  # windows
SIZES = (48, 512)  # sub-words in a window: one that most sentences do not fit into, one they do


def rows_of(name):
    """Return the rows of all splits."""
    read, options = READ[name]
    files = sorted((SHARED / name).iterdir())
    return [row for file in files if file.is_file() for row in read(str(file), **options).rows]


def train_unigram(texts):
    """Return a SentencePiece-like Unigram: "▁" for spaces, NFKC, no byte fallback."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace()
    letters = len({letter for text in texts for letter in text})
    trainer = trainers.UnigramTrainer(
        vocab_size=letters + 1000,
        special_tokens=list(NAMES.values()),
        unk_token=NAMES["unk_token"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    ends = [(piece, tokenizer.token_to_id(piece)) for piece in ("<s>", "</s>")]
    tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=512, **NAMES)


def make_wordpiece(texts):
    """Return a BERT that knows every letter of the texts by itself."""
    letters = sorted({letter for text in texts for letter in text if letter.strip()})
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters)]
    return BertTokenizer(vocab={p: n for n, p in enumerate(pieces)}, do_lower_case=False)


def train_byte_bpe(texts, cache):
    mini = Model(name="mini", origin=ModelOrigin.scratch, vocab_size=3000)
    return load_tokenizer(mini, iter(texts), "content", cache)


@pytest.fixture(scope="module", params=sorted(READ))
def corpus(request):
    return rows_of(request.param)


@pytest.fixture(scope="module")
def tokenizers(corpus, tmp_path_factory):
    """Return the three, made from every third text, so that the others hold what they never saw."""
    texts = [" ".join(row["words"]) for row in corpus[::3]]
    cache = tmp_path_factory.mktemp("cache")
    return [train_unigram(texts), make_wordpiece(texts), train_byte_bpe(texts, cache)]


@pytest.fixture(scope="module")
def journeys(corpus, tokenizers):
    """Return what comes back of the gold for each tokenizer and size of window."""
    task = Tagging.from_rows(corpus)
    return {
        (number, size): fed_back(task, corpus, tokenizer, size)
        for number, tokenizer in enumerate(tokenizers)
        for size in SIZES
    }


def fed_back(task, rows, tokenizer, max_tokens):
    """Return each row's tags as a model says them that is right at every label, and the labels."""
    encoded = task.encode(rows, tokenizer, max_tokens)
    outputs = []
    for start in range(0, len(encoded), CHUNK):
        windows = range(start, min(start + CHUNK, len(encoded)))
        labels = task.collate(encoded, windows, tokenizer, None)["labels"]
        logits = 9.0 * one_hot(labels.clamp(min=0), len(task.labels)).float()
        read = task.predict_batch(saying(logits), batch_of(labels))
        outputs += [(window, *found) for window, found in zip(windows, read, strict=True)]
    said = {p.item: p.prediction for p in task.decode(rows, encoded, outputs)}
    return [said[item] for item in range(len(rows))], encoded


def test_every_gold_tag_comes_back(corpus, journeys):
    gold = [row["tags"] for row in corpus]
    assert {key: said == gold for key, (said, _) in journeys.items()} == dict.fromkeys(
        journeys, True
    )


def test_every_gold_span_comes_back(corpus, journeys):
    if Tagging.from_rows(corpus).scheme == "spans":  # parts of speech mark none
        gold = [read_spans(row["tags"]) for row in corpus]
        for said, _ in journeys.values():
            assert [read_spans(tags) for tags in said] == gold


def test_no_window_is_longer_than_asked(journeys):
    for (_, size), (_, encoded) in journeys.items():
        assert encoded.lengths.max() <= size


def test_no_bare_word_mark_carries_a_tag(tokenizers, journeys):
    for (number, _), (_, encoded) in journeys.items():
        carriers = set(encoded.ids[encoded.labels != IGNORE].tolist())
        assert not BARE & set(tokenizers[number].convert_ids_to_tokens(list(carriers)))


class OneWindow(Tagging):
    """A planted bug: what does not fit into the first window is cut off, as truncation would."""

    def encode(self, rows, tokenizer, max_tokens):
        encoded = super().encode(rows, tokenizer, max_tokens)
        labels = encoded.labels.copy()
        for window in range(1, len(encoded)):
            if encoded.items[window] == encoded.items[window - 1]:
                labels[encoded.starts[window] : encoded.starts[window + 1]] = IGNORE
        return EncodedDataset(**{**vars(encoded), "labels": labels})


def test_truncation_would_lose_tags(corpus, tokenizers):
    some = corpus[:CHUNK]
    task = Tagging.from_rows(some)
    planted = OneWindow(task.labels, task.scheme)
    for tokenizer in tokenizers:
        said, _ = fed_back(planted, some, tokenizer, 16)
        assert sum(map(len, said)) < sum(len(row["tags"]) for row in some)

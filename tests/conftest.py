"""Small real things that many tests share: three kinds of tokenizer and files in `tmp_path`."""

import gc
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch loads; a worker has a core

from dataclasses import replace

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertTokenizer, PreTrainedTokenizerFast

from crosstune.config.schema import Data, Method, Model, ModelOrigin, Optimizer, Run, TaskType
from crosstune.models.load import load_tokenizer

TEXTS = (
    "El niño come una manzana en Málaga , y la niña bebe agua fresca .",
    "María Pérez vive en Buenos Aires desde 1998 y trabaja en la Universidad .",
    "小明住在北京，他喜欢喝茶。",
    "昨天张伟去了上海的银行。",
    "Alice Johnson moved to New York because the company hired her .",
    "We did n't like the film at all , but the music was wonderful .",
)
NAMES = {"cls_token": "<s>", "pad_token": "<pad>", "sep_token": "</s>", "unk_token": "<unk>"}
NAMES |= {"mask_token": "<mask>"}
WORDS = ("El", "la", "en", "de", "mor", "the", "New", "York", "film", "music", "niñ", "##o", "##a")


def pytest_collection_finish():
    """Keep the libraries out of every later search for garbage: a run begins with one."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def byte_bpe(tmp_path_factory):
    """Return what `model=mini` trains: byte-level BPE, which has a piece for every byte."""
    cache = tmp_path_factory.mktemp("cache")
    mini = Model(name="mini", origin=ModelOrigin.scratch, vocab_size=400)
    return load_tokenizer(mini, iter(TEXTS), "content", cache)


@pytest.fixture(scope="session")
def wordpiece():
    """Return a cased BERT: it parts Chinese characters and drops control characters."""
    letters = sorted({letter for text in TEXTS for letter in text if letter.strip()})
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *letters]
    pieces += [f"##{letter}" for letter in letters if letter.isalnum()]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    return BertTokenizer(vocab=vocabulary, do_lower_case=False, model_max_length=512)


@pytest.fixture(scope="session")
def unigram():
    """Return a Unigram of the SentencePiece kind: "▁" marks words, sometimes as a bare piece."""
    letters = sorted({letter for text in TEXTS for letter in text if letter.strip()})
    special = [(piece, 0.0) for piece in NAMES.values()]
    pieces = [("▁", -4.0), *((f"▁{word}", -5.0) for word in WORDS if word.isalpha())]
    pieces += [(letter, -8.0) for letter in letters]
    tokenizer = Tokenizer(models.Unigram([*special, *pieces], unk_id=3))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=512,
        **NAMES,
    )


@pytest.fixture(params=["byte_bpe", "wordpiece", "unigram"])
def tokenizer(request):
    """Return each of the three in turn."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a file below `tmp_path`, line feeds as they are."""

    def write_file(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write_file


READER = {"_target_": "crosstune.data.readers.read_table", "text": "text", "label": "label"}
ROWS = "text\tlabel\nbueno\ta\nmalo\tb\n"


@pytest.fixture
def make_local_run(tmp_path):
    """Return a function that makes a run over files and weights below a folder of its own."""

    def make_run(folder, rows=ROWS, weights=b"weights", **changes):
        home = tmp_path / folder
        (home / "encoder").mkdir(parents=True, exist_ok=True)
        (home / "encoder" / "config.json").write_text("{}")
        (home / "encoder" / "model.safetensors").write_bytes(weights)
        (home / "rows.tsv").write_text(rows)
        file = str(home / "rows.tsv")
        data = Data("words", TaskType.classification, "es", READER, file, file, {"es": file})
        run = Run(
            experiment="study",
            data=replace(data, metric="accuracy"),
            model=Model("encoder", ModelOrigin.local, path=str(home / "encoder")),
            method=Method("full", 5e-5),
            optimizer=Optimizer({"_target_": "torch.optim.AdamW"}, 5e-5),
        )
        return replace(run, **changes)

    return make_run

"""A text from a text: encoded, learnt teacher-forced, written with beams, scored over all ranks."""

import json
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
import torch
from peft import PeftModel
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    T5Config,
    T5ForConditionalGeneration,
)

from crosstune.config.compose import compose_run
from crosstune.config.schema import Method, Model, ModelOrigin
from crosstune.data.windows import IGNORE
from crosstune.errors import ConfigError, DataError
from crosstune.methods import adapt
from crosstune.models.load import check_length, load_model, save_base_model
from crosstune.tasks.generation import Generation
from crosstune.tasks.metrics.overlap import report_overlap
from crosstune.training.prepare import prepare
from crosstune.training.train import train

ROWS = [
    {"id": "a", "text": "El niño come", "target": "the boy eats", "language": "es"},
    {"id": "b", "text": "la niña bebe agua fresca", "target": "the girl", "language": "es"},
    {"id": "c", "text": "小明喝茶", "target": "Xiaoming drinks tea .", "language": "es"},
    {"id": "d", "text": "María", "target": "María vive en Buenos Aires", "language": "es"},
    {"id": "e", "text": "el film y la música", "target": "film", "language": "es"},
]
TASK = Generation.from_rows(ROWS, max_target_tokens=12, beams=3)
BY_LOSS = Generation.from_rows(ROWS, max_target_tokens=12, validate="loss")
SIZES = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16}
SIZES |= {"decoder_ffn_dim": 16, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
KINDS = ("mini", "bart", "t5", "bert2bert")
SOME = (
    "mini",
    "t5",
    *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("bart", "bert2bert")),
)

# peft asks a model of this transformers for a name that it gives up later
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")


def save(folder, kind, tokenizer):
    """Save a tiny random checkpoint of a kind; return the option that loads it."""
    ends = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    size = len(tokenizer)
    if kind == "bart":
        start = {"decoder_start_token_id": 3, "forced_eos_token_id": None}
        model = BartForConditionalGeneration(BartConfig(vocab_size=size, **SIZES, **ends, **start))
    elif kind == "t5":
        small = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
        start = {"decoder_start_token_id": 0}
        model = T5ForConditionalGeneration(T5Config(vocab_size=size, **small, **ends, **start))
    else:
        small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        small |= {"intermediate_size": 16, "max_position_embeddings": 128}
        model = BertForMaskedLM(BertConfig(vocab_size=size, **small))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    both = "same" if kind == "bert2bert" else None
    return Model(name=kind, origin=ModelOrigin.local, path=str(folder), decoder=both)


def load(folder, kind, tokenizer, task=TASK):
    """Return a tiny model of a kind with sharp outputs, so that beams part clearly."""
    torch.manual_seed(3)
    config = {"_target_": "transformers.BartConfig", **SIZES, "max_position_embeddings": 64}
    if kind == "mini":
        model = Model(name="mini_seq2seq", origin=ModelOrigin.scratch, config=config)
    else:
        model = save(folder / kind, kind, tokenizer)
    loaded = load_model(model, task, tokenizer, [])
    with torch.no_grad():
        for parameter in loaded.model.parameters():
            parameter.mul_(4 if parameter.ndim > 1 else 1)
    return loaded


@pytest.fixture(scope="module")
def models(tmp_path_factory, byte_bpe):
    folder = tmp_path_factory.mktemp("models")
    return {kind: load(folder, kind, byte_bpe).model.eval() for kind in KINDS}


def batch_of(tokenizer, windows, task=TASK):
    return task.collate(task.encode(ROWS, tokenizer, 32), windows, tokenizer, None)


# --- options


@pytest.mark.parametrize(
    "options",
    [
        {"validate": "never"},
        {"beams": 0},
        {"beams": True},
        {"max_target_tokens": 2},
        {"max_target_tokens": "many"},
        {"target_language": "Spanish"},
    ],
)
def test_an_option_that_means_nothing_is_refused(options):
    with pytest.raises(ConfigError):
        Generation.from_rows(ROWS, **options)


@pytest.mark.parametrize(
    "row",
    [{"text": "a"}, {"target": "b"}, {"text": "a", "target": " "}, {"text": 1, "target": "b"}],
)
def test_a_row_without_a_text_on_either_side_is_faulty(row):
    assert len(TASK.find_row_faults(row)) == 1


def test_a_whole_row_has_no_fault():
    assert [TASK.find_row_faults(row) for row in ROWS] == [[]] * len(ROWS)


# --- encoding


def test_source_and_target_are_encoded_as_the_tokenizer_encodes_them(tokenizer):
    task = Generation.from_rows(ROWS)
    encoded = task.encode(ROWS, tokenizer, 64)
    batch = task.collate(encoded, [3, 1], tokenizer, None)
    for number, row in enumerate((ROWS[3], ROWS[1])):
        target = tokenizer(row["target"])["input_ids"]
        assert batch["labels"][number].tolist()[: len(target)] == target
        assert set(batch["labels"][number].tolist()[len(target) :]) <= {IGNORE}
        source = tokenizer(row["text"])["input_ids"]
        assert batch["inputs"]["input_ids"][number].tolist()[: len(source)] == source


def test_what_is_cut_ends_as_a_whole_text_does_and_is_counted_apart(tokenizer, caplog):
    whole = Generation.from_rows(ROWS, max_target_tokens=64).encode(ROWS, tokenizer, 64)
    sizes = [len(tokenizer(row["target"])["input_ids"]) for row in ROWS]
    encoded = Generation.from_rows(ROWS, max_target_tokens=5).encode(ROWS, tokenizer, 6)
    starts = encoded.extra["target_starts"]
    assert (starts[1:] - starts[:-1]).tolist() == [min(size, 5) for size in sizes]
    assert {int(encoded.labels[end - 1]) for end in starts[1:]} == {tokenizer.sep_token_id}
    assert encoded.extra["target_cut"].tolist() == [size > 5 for size in sizes]
    assert encoded.cut.tolist() == [int((whole.lengths > 6).sum())]
    assert "targets cut to 5 sub-words" in caplog.text


# --- loss


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:Version v4.12.0:FutureWarning")  # it tells how labels shift
def test_the_loss_is_that_of_the_model_itself(models, kind, byte_bpe):
    model, batch = models[kind], batch_of(byte_bpe, [0, 2, 3])
    total, count = TASK.loss(model, batch)
    inputs = {name: batch["inputs"][name] for name in ("input_ids", "attention_mask")}
    assert torch.isclose(total / count, model(**inputs, labels=batch["labels"]).loss)
    assert int(count) == int((batch["labels"] != IGNORE).sum())


def test_labels_that_are_ignored_count_nothing(models, byte_bpe):
    batch = batch_of(byte_bpe, [0, 2])
    batch["labels"].fill_(IGNORE)
    total, count = TASK.loss(models["mini"], batch)
    assert (total.item(), count.item()) == (0.0, 0)


# --- writing


def written(task, model, tokenizer, batches):
    """Return window -> what is read off, in these batches."""
    return {
        window: found
        for windows in batches
        for window, found in zip(
            windows, task.predict_batch(model, batch_of(tokenizer, windows, task)), strict=True
        )
    }


def agree(some, others):
    """Say whether the texts are equal, and their scores up to a rounding."""
    return all(
        some[w][0][:3] == others[w][0][:3] and abs(some[w][1] - others[w][1]) < 1e-3 for w in some
    )


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_does_not_depend_on_the_batch(models, kind, byte_bpe):
    alone = written(TASK, models[kind], byte_bpe, [[n] for n in range(5)])
    assert agree(alone, written(TASK, models[kind], byte_bpe, [[4, 3, 2, 1, 0]]))
    assert agree(alone, written(TASK, models[kind], byte_bpe, [[1, 0], [3, 4, 2]]))


class Blind(Generation):
    """A planted bug: padding is read like text."""

    def collate(self, encoded, windows, tokenizer, draw):
        batch = super().collate(encoded, windows, tokenizer, draw)
        batch["inputs"]["attention_mask"].fill_(1)
        return batch


def test_a_model_that_reads_padding_is_found(models, byte_bpe):
    blind = Blind(None, 12, 3, "decode")
    alone = written(blind, models["t5"], byte_bpe, [[n] for n in range(5)])
    assert not agree(alone, written(blind, models["t5"], byte_bpe, [[4, 3, 2, 1, 0]]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_score_is_the_log_probability_of_the_text_with_its_end(models, kind, byte_bpe):
    model, batch = models[kind], batch_of(byte_bpe, [1])
    ((_, score),) = TASK.predict_batch(model, batch)
    inputs = {name: batch["inputs"][name] for name in ("input_ids", "attention_mask")}
    ids = model.generate(**inputs, num_beams=3, max_new_tokens=12)
    logits = model(**inputs, decoder_input_ids=ids[:, :-1]).logits
    assert score == pytest.approx(-cross_entropy(logits[0], ids[0, 1:], reduction="sum").item())


def test_padding_behind_the_end_is_no_part_of_the_text_or_its_score(models, byte_bpe):
    model, batch = models["mini"], batch_of(byte_bpe, [0, 1])
    end, pad = byte_bpe.sep_token_id, byte_bpe.pad_token_id
    short = [end, *byte_bpe(" a")["input_ids"]]
    long = [end, *byte_bpe(" a b c d")["input_ids"]]
    ids = torch.tensor([short + [pad] * (len(long) - len(short)), long])
    fixed = SimpleNamespace(
        prepare_decoder_input_ids_from_labels=model.prepare_decoder_input_ids_from_labels,
        generate=lambda **_: ids,
        generation_config=model.generation_config,
    )

    class Fixed:
        def __getattr__(self, name):
            return getattr(fixed, name)

        def __call__(self, **inputs):
            return model(**inputs)

    first, second = TASK.predict_batch(Fixed(), batch)
    assert (first[0][0], second[0][0]) == ("a", "a b c d")
    row = {name: batch["inputs"][name][:1] for name in ("input_ids", "attention_mask")}
    alone = model(**row, decoder_input_ids=torch.tensor([short[:-1]])).logits[0]
    expected = -cross_entropy(alone, torch.tensor(short[1:]), reduction="sum").item()
    assert first[1] == pytest.approx(expected, abs=1e-3)


def test_validation_by_the_loss_writes_nothing_and_the_test_writes_all_the_same(models, byte_bpe):
    batch = batch_of(byte_bpe, [0, 1], BY_LOSS)
    (quick, score), _ = BY_LOSS.predict_batch(models["mini"], batch)
    (slow, _), _ = BY_LOSS.prepare_for_test({}).predict_batch(models["mini"], batch)
    assert quick[0] == ""
    assert slow[0] != ""
    assert quick[1:] == slow[1:]
    assert score == -quick[-1]


# --- scores


def predictions_of(task, texts):
    """Return predictions of the rows: these texts, each with 10 sub-words of which 4 are right."""
    encoded = SimpleNamespace(
        items=torch.arange(len(ROWS)), extra={"target_cut": [True] + [False] * (len(ROWS) - 1)}
    )
    outputs = [(n, (text, 10, 4, 20.0), -1.0) for n, text in enumerate(texts)]
    return task.decode(ROWS, encoded, outputs)


def test_a_prediction_begins_as_every_prediction_does(byte_bpe):
    first = predictions_of(TASK, ["the boy", "", "", "", ""])[0]
    assert first[:5] == (0, "a", ["the boy eats"], "the boy", -1.0)


def test_the_scores_are_those_of_the_texts_with_the_names_that_the_task_announces():
    texts = ["the boy eats", "a girl", "", "María", "film"]
    measured = TASK.compute_metrics(predictions_of(TASK, texts), torch.device("cpu"))
    expected = report_overlap(texts, [[row["target"]] for row in ROWS], "es")["scores"]
    assert measured["scores"] == {**expected, "token_accuracy": 0.4}
    assert set(measured["scores"]) == set(TASK.metrics)
    assert measured["report"]["loss"] == 2.0
    assert measured["report"]["targets_cut"] == 1


def test_the_language_of_the_targets_reads_the_words():
    chinese = Generation.from_rows(ROWS, target_language="zh")
    cpu = torch.device("cpu")
    texts = [row["target"] for row in ROWS]
    for task, words in ((chinese, "tok:zh"), (TASK, "tok:13a")):
        report = task.compute_metrics(predictions_of(task, texts), cpu)["report"]
        assert words in report["bleu_signature"]


def test_by_the_loss_only_token_accuracy_is_a_score():
    measured = BY_LOSS.compute_metrics(predictions_of(BY_LOSS, [""] * 5), torch.device("cpu"))
    assert measured["scores"] == {"token_accuracy": 0.4}
    assert BY_LOSS.metrics == ("token_accuracy",)


def test_all_references_of_a_row_count():
    row = {**ROWS[0], "references": ["the boy eats", "a child eats"]}
    encoded = SimpleNamespace(items=[0], extra={"target_cut": [False]})
    found = TASK.decode([row], encoded, [(0, ("a child eats", 1, 1, 0.0), 0.0)])
    assert TASK.compute_metrics(found, torch.device("cpu"))["scores"]["rougeL"] == 1


def test_nothing_written_is_nothing_measured():
    assert TASK.compute_metrics([], torch.device("cpu")) == {"scores": {}, "report": {}}


def test_a_mean_over_ranks_would_be_another_bleu():
    found = predictions_of(TASK, ["the boy eats", "a girl", "", "María vive en Buenos", "film"])
    halves = [
        TASK.compute_metrics(part, torch.device("cpu"))["scores"] for part in (found[:1], found[1:])
    ]
    mean = (halves[0]["bleu"] + halves[1]["bleu"]) / 2
    assert mean != pytest.approx(TASK.compute_metrics(found, torch.device("cpu"))["scores"]["bleu"])


# --- models


def test_the_decoder_of_a_new_model_begins_and_ends_with_its_tokenizers_pieces(models, byte_bpe):
    for kind in ("mini", "bert2bert"):
        config = models[kind].generation_config
        assert config.decoder_start_token_id == config.eos_token_id == byte_bpe.sep_token_id
        assert config.pad_token_id == byte_bpe.pad_token_id
        assert config.forced_eos_token_id is None


def test_a_model_says_how_it_writes_wherever_it_is_loaded(models):
    config = models["bart"].generation_config
    assert (config.num_beams, config.max_new_tokens) == (3, 12)


def test_both_halves_begin_with_the_encoders_weights_and_only_what_is_new_is_head(
    tmp_path, byte_bpe
):
    loaded = load_model(save(tmp_path, "bert2bert", byte_bpe), TASK, byte_bpe, [])
    bert = BertForMaskedLM.from_pretrained(tmp_path).bert
    for half in (loaded.model.encoder, loaded.model.decoder.bert):
        own = half.state_dict()
        for name, tensor in bert.state_dict().items():
            assert torch.equal(own[name], tensor)
    assert "decoder.bert.encoder.layer.0.crossattention" in loaded.head
    known = [name for name in loaded.head if "crossattention" not in name]
    assert all(name.startswith("decoder.cls.predictions.transform.") for name in known)


def test_every_trainable_weight_of_both_halves_learns(tmp_path, byte_bpe):
    for kind in KINDS:
        model = load(tmp_path, kind, byte_bpe).model
        TASK.loss(model, batch_of(byte_bpe, [0, 1, 2]))[0].backward()
        idle = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert idle == [], kind


def test_more_positions_than_the_model_has_are_refused_on_both_sides(tmp_path, byte_bpe):
    with pytest.raises(ConfigError, match=r"max_target_tokens=129: the decoder .* 128 positions"):
        load(tmp_path, "bert2bert", byte_bpe, Generation.from_rows(ROWS, max_target_tokens=129))
    with pytest.raises(ConfigError, match=r"max_tokens=129: .* 128 positions"):
        check_length(load(tmp_path, "bert2bert", byte_bpe).model, 129)


def test_an_encoder_alone_is_refused_with_what_to_do(tmp_path, byte_bpe):
    encoder = save(tmp_path, "bert2bert", byte_bpe)
    scratch = {"_target_": "transformers.BertConfig", "num_hidden_layers": 1}
    for model in (
        Model(name="local", origin=ModelOrigin.local, path=encoder.path),
        Model(name="mini", origin=ModelOrigin.scratch, config=scratch),
    ):
        with pytest.raises(ConfigError, match=r"model=mini_seq2seq, .* model\.decoder=same"):
            load_model(model, TASK, byte_bpe, [])


@pytest.mark.parametrize("options", [{"origin": ModelOrigin.scratch}, {"decoder": "other"}])
def test_a_decoder_from_elsewhere_is_refused(tmp_path, byte_bpe, options):
    given = {"origin": ModelOrigin.local, "path": str(tmp_path), "decoder": "same", **options}
    with pytest.raises(ConfigError, match=r"^model\.decoder="):
        load_model(Model(name="x", **given), TASK, byte_bpe, [])


def test_a_checkpoint_that_lacks_weights_of_the_decoder_is_refused(tmp_path, byte_bpe):
    model = save(tmp_path, "t5", byte_bpe)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_decoder_layers": 2}))
    with pytest.raises(ConfigError, match="lacks"):
        load_model(model, TASK, byte_bpe, [])


def test_lora_on_two_halves_of_an_encoder_is_loaded_back_whole(tmp_path, byte_bpe):
    loaded = load(tmp_path, "bert2bert", byte_bpe)
    source = Model(name="bert2bert", origin=ModelOrigin.local, path=str(tmp_path), decoder="same")
    save_base_model(loaded.model, source, byte_bpe, tmp_path)
    options = {"_target_": "peft.LoraConfig", "target_modules": ["query", "value"]}
    adapted = adapt(loaded, Method(name="lora", peft=options), TASK.peft_type, [])
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) / 10)
    adapted.save_pretrained(str(tmp_path / "adapter"))
    base = AutoModelForSeq2SeqLM.from_pretrained(loaded.model.name_or_path)
    again = PeftModel.from_pretrained(base, str(tmp_path / "adapter")).eval()
    batches = [[0, 1, 2]]
    adapted.eval()
    assert written(TASK, adapted, byte_bpe, batches) == written(TASK, again, byte_bpe, batches)


# --- whole runs

SENTENCES = [
    (f"el {who[0]} {does[0]}", f"the {who[1]} {does[1]}")
    for who in (("perro", "dog"), ("gato", "cat"), ("niño", "boy"))
    for does in (("come", "eats"), ("bebe", "drinks"), ("duerme", "sleeps"))
]
TINY = ["model=mini_seq2seq", "model.vocab_size=300"]
TINY += [f"model.config.{name}={value}" for name, value in SIZES.items()]


@pytest.fixture
def run_of(tmp_path, write):
    parts = {"train": SENTENCES, "validation": SENTENCES, "test": SENTENCES[2:]}
    for split, some in parts.items():
        write(f"{split}.tsv", "es\ten\n" + "".join(f"{a}\t{b}\n" for a, b in some))

    def compose(*more):
        files = [f"data.{s}={tmp_path / s}.tsv" for s in ("train", "validation", "test")]
        columns = ["data.text=es", "data.target=en", "data.language=es"]
        task = ["data.task.target_language=en", "data.task.max_target_tokens=10"]
        small = ["trainer=cpu", "trainer.max_steps=2", "data.batch_size=4", "logger=none"]
        return compose_run(
            ["data=files_generation", *files, *columns, *task, *small, f"outputs={tmp_path}", *more]
        )

    return compose


def predictions(folder):
    return pq.read_table(folder / "predictions.parquet").to_pydict()


def write_plainly(model, folder, **options):
    """Return what transformers alone writes for the test's texts, with a run's tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    texts = [text for text, _ in SENTENCES[2:]]
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    ids = model.eval().generate(**inputs, **options)
    return [text.strip() for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]


@pytest.mark.parametrize("kind", SOME)
def test_a_run_leaves_a_model_that_plain_transformers_loads_and_that_writes_the_same(
    run_of, kind, tmp_path, byte_bpe
):
    options = TINY
    if kind != "mini":
        model = save(tmp_path / kind, kind, byte_bpe)
        name = "bert2bert" if model.decoder else "local"
        options = (f"model={name}", f"model.path={model.path}")
    folder = train(run_of(*options))
    found = predictions(folder)
    plain = AutoModelForSeq2SeqLM.from_pretrained(folder / "model")
    assert write_plainly(plain, folder) == found["prediction"]
    assert found["gold"] == [[target] for _, target in SENTENCES[2:]]
    record = json.loads((folder / "record.json").read_text())
    assert set(record["scores"]["test"]["es"]) == set(TASK.metrics)


def test_lora_leaves_an_adapter_that_plain_peft_loads_and_that_writes_the_same(run_of):
    folder = train(run_of(*TINY, "method=lora"))
    base = json.loads((folder / "model" / "adapter_config.json").read_text())
    model = AutoModelForSeq2SeqLM.from_pretrained(base["base_model_name_or_path"])
    adapted = PeftModel.from_pretrained(model, str(folder / "model"))
    same = write_plainly(adapted, folder, num_beams=4, max_new_tokens=10)
    assert same == predictions(folder)["prediction"]


def test_a_run_that_is_chosen_by_the_loss_is_tested_by_its_texts(run_of):
    folder = train(run_of(*TINY, "data.task.validate=loss", "data.metric=token_accuracy"))
    scores = json.loads((folder / "record.json").read_text())["scores"]
    assert set(scores["validation"]["es"]) == {"token_accuracy"}
    assert set(scores["test"]["es"]) == set(TASK.metrics)


def test_a_score_that_the_loss_alone_cannot_give_is_refused(run_of):
    with pytest.raises(ConfigError, match=r"data\.metric=chrf\. .*token_accuracy"):
        prepare(run_of(*TINY, "data.task.validate=loss"))


@pytest.mark.slow
def test_a_run_learns_to_translate(run_of):
    longer = ("trainer.max_steps=150", "trainer.max_epochs=60", "optimizer.learning_rate=2e-3")
    quick = ("data.task.validate=loss", "data.metric=token_accuracy")
    wide = [f"model.config.{half}_ffn_dim=32" for half in ("encoder", "decoder")]
    wide += ["model.config.d_model=64", "+model.config.dropout=0.0"]
    folder = train(run_of(*TINY, *longer, *quick, *wide))
    scores = json.loads((folder / "record.json").read_text())["scores"]["test"]["es"]
    assert scores["chrf"] > 0.7, "untrained it is below 0.1"


def test_a_row_without_a_target_stops_the_run_before_it_starts(run_of, write):
    write("train.tsv", "es\ten\nuno\tone\ndos\t\n")
    with pytest.raises(DataError, match=r"train\.tsv:3: column 'en' \(data\.target\)"):
        prepare(run_of(*TINY))

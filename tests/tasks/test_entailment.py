"""One hypothesis a label: windows, the checkpoint's own head, and the label entailed most."""

import json
from dataclasses import replace

import pandas as pd
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from crosstune.config.compose import compose_run
from crosstune.data.windows import IGNORE
from crosstune.errors import ConfigError
from crosstune.tasks.entailment import Entailment
from crosstune.training.train import train
from tests.tiny import batch_of

TEMPLATES = {"es": "Trata de {label} .", "zh": "这是{label}。"}
NAMES = {
    "es": {"film": "la música", "drink": "agua fresca", "city": "York"},
    "zh": {"film": "电影", "drink": "茶", "city": "北京"},
}
ITEMS = [
    {"id": "a", "text": "El niño come una manzana", "label": "drink", "language": "es"},
    {"id": "b", "text": "the film was wonderful", "label": "film", "language": "es"},
    {"id": "c", "text": "小明住在北京", "label": "city", "language": "zh"},
]
TASK = Entailment.from_rows(ITEMS, TEMPLATES, NAMES)
HEAD = {0: "contradiction", 1: "ENTAILMENT", 2: "neutral"}

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*")


class Saying(torch.nn.Module):
    """A model with a head of inference that gives these logits whatever it reads."""

    def __init__(self, logits, labels=None):
        super().__init__()
        self.logits = logits
        self.config = BertConfig(id2label=HEAD if labels is None else labels)

    def forward(self, **inputs):
        return self


def windows_of(encoded):
    ends = zip(encoded.starts, encoded.starts[1:], strict=False)
    return [encoded.ids[start:end].tolist() for start, end in ends]


def test_a_row_is_one_window_for_each_label_in_order(tokenizer):
    encoded = TASK.encode(ITEMS, tokenizer, 64)
    pairs = [
        (row["text"], TEMPLATES[row["language"]].replace("{label}", NAMES[row["language"]][label]))
        for row in ITEMS
        for label in ("city", "drink", "film")
    ]
    assert windows_of(encoded) == [tokenizer(*pair)["input_ids"] for pair in pairs]
    assert encoded.items.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_the_label_of_a_window_says_whether_it_is_the_rows_own(byte_bpe):
    encoded = TASK.encode(ITEMS, byte_bpe, 64)
    assert encoded.labels.tolist() == [0, 1, 0, 0, 0, 1, 1, 0, 0]


def test_a_long_text_is_cut_and_the_hypothesis_never(byte_bpe):
    rows = [{**ITEMS[0], "text": "la niña bebe " * 60}, ITEMS[1]]
    encoded = TASK.encode(rows, byte_bpe, 56)
    whole = windows_of(TASK.encode(ITEMS[:1], byte_bpe, 200))
    assert (encoded.lengths.max(), encoded.cut.tolist()) == (56, [1])
    for cut, short in zip(windows_of(encoded)[:3], whole, strict=True):
        behind = short[short.index(byte_bpe.sep_token_id) :]
        assert cut[-len(behind) :] == behind


def test_a_hypothesis_that_fills_the_window_is_refused(tokenizer):
    with pytest.raises(ConfigError, match=r"data\.max_tokens=9: a hypothesis .* takes \d+"):
        TASK.encode(ITEMS, tokenizer, 9)


def test_braces_in_a_text_stay_text(byte_bpe):
    row = {**ITEMS[0], "text": "{label} {0} {"}
    window = windows_of(TASK.encode([row], byte_bpe, 64))[0]
    assert "{label} {0} {" in byte_bpe.decode(window)


def test_the_score_of_a_window_is_the_log_probability_of_entailment():
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0]])
    read = TASK.predict_batch(Saying(logits), batch_of(torch.tensor([1, 0])))
    assert [s for _, s in read] == pytest.approx(logits.log_softmax(-1)[:, 1].tolist())


def test_the_column_of_another_label_would_give_other_scores():
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0]])
    planted = replace(TASK, entailment="neutral")
    read = planted.predict_batch(Saying(logits), batch_of(torch.tensor([1, 0])))
    assert [s for _, s in read] != pytest.approx(logits.log_softmax(-1)[:, 1].tolist())


def test_another_name_for_entailment_finds_another_column():
    logits = torch.tensor([[0.0, 2.0, 1.0]])
    task = replace(TASK, entailment="yes")
    ((_, score),) = task.predict_batch(
        Saying(logits, {0: "yes", 1: "no"}), batch_of(torch.tensor([1]))
    )
    assert score == pytest.approx(float(logits.log_softmax(-1)[0, 0]))


@pytest.mark.parametrize("labels", [{0: "LABEL_0", 1: "LABEL_1"}, {0: "not_entailment", 1: "no"}])
def test_a_head_without_entailment_is_refused(labels):
    with pytest.raises(ConfigError, match="entailment: the model's head has the labels"):
        TASK.add_modules(Saying(None, labels))


def test_a_head_with_entailment_gets_nothing_new():
    assert TASK.add_modules(Saying(None)) == []


def test_the_answer_is_the_label_entailed_most_in_whatever_order_windows_come(byte_bpe):
    encoded = TASK.encode(ITEMS, byte_bpe, 64)
    scores = [-3.0, -1.0, -2.0, -1.0, -1.0, -9.0, -7.0, -8.0, -0.5]
    outputs = [(window, None, score) for window, score in enumerate(scores)]
    for order in (outputs, outputs[::-1], outputs[4:] + outputs[:4]):
        found = sorted(TASK.decode(ITEMS, encoded, order), key=lambda p: p.item)
        assert [p.prediction for p in found] == ["drink", "city", "film"]
        assert [p.score for p in found] == [-1.0, -1.0, -0.5]
    assert [p.gold for p in found] == ["drink", "film", "city"]


def test_only_rows_that_were_read_are_answered(byte_bpe):
    encoded = TASK.encode(ITEMS, byte_bpe, 64)
    found = TASK.decode(ITEMS, encoded, [(3, None, -1.0), (4, None, -0.1), (5, None, -2.0)])
    assert [(p.id, p.prediction) for p in found] == [("b", "drink")]


def test_the_loss_is_that_of_entailed_or_not():
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    total, count = TASK.loss(Saying(logits), batch_of(torch.tensor([1, 0, IGNORE])))
    p = logits.softmax(-1)[:, 1]
    assert total.item() == pytest.approx(-float(p[0].log() + (1 - p[1]).log()))
    assert int(count) == 2


def test_a_batch_that_counts_nothing_has_no_loss():
    total, count = TASK.loss(Saying(torch.zeros(1, 3)), batch_of(torch.tensor([IGNORE])))
    assert (total.item(), int(count)) == (0.0, 0)


def test_the_head_keeps_the_checkpoints_labels():
    assert (TASK.labels, TASK.classes) == ([], ["city", "drink", "film"])


def test_the_scores_are_those_of_classification(byte_bpe):
    encoded = TASK.encode(ITEMS, byte_bpe, 64)
    outputs = [(window, None, -float(window % 3)) for window in range(9)]
    scores = TASK.compute_metrics(TASK.decode(ITEMS, encoded, outputs), torch.device("cpu"))[
        "scores"
    ]
    assert scores["accuracy"] == pytest.approx(1 / 3)
    assert set(scores) == set(TASK.metrics)


@pytest.mark.parametrize(
    ("row", "faults"),
    [
        (ITEMS[0], []),
        (
            {**ITEMS[0], "language": "en"},
            ["no template for its language: give data.task.templates.en"],
        ),
        ({**ITEMS[0], "label": "war"}, ["label 'war' has no name in data.task.names"]),
    ],
)
def test_a_row_without_a_hypothesis_is_a_fault(row, faults):
    assert TASK.find_row_faults(row) == faults


@pytest.mark.parametrize(
    ("templates", "names", "fault"),
    [
        (
            {"es": "Trata de {mask}"},
            {"es": NAMES["es"]},
            r"\{mask\} is no gap\. Allowed: \{label\}",
        ),
        ({"es": "Trata de"}, {"es": NAMES["es"]}, r"\{label\} must stand in it exactly once"),
        (TEMPLATES, {"es": NAMES["es"]}, "It must have those with a pattern: es, zh"),
        ({"es": "{label}"}, {"es": {"a": ["x", "y"], "b": "z"}}, r"names\.es\.a=.*give one name"),
    ],
)
def test_options_that_do_not_fit_are_refused(templates, names, fault):
    with pytest.raises(ConfigError, match=fault):
        Entailment.from_rows(ITEMS, templates, names)


# --- a whole run


@pytest.fixture
def checkpoint(tmp_path, byte_bpe):
    """Return a folder with a tiny model of inference, random, and the model."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(byte_bpe),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        initializer_range=0.5,
        id2label=HEAD,
        label2id={name: number for number, name in HEAD.items()},
    )
    model = BertForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path / "nli")
    byte_bpe.save_pretrained(tmp_path / "nli")
    return tmp_path / "nli", model


def test_without_training_the_answers_are_those_of_plain_transformers(
    write, tmp_path, checkpoint, byte_bpe
):
    folder, model = checkpoint
    rows = "".join(f"{row['text']}\t{row['label']}\n" for row in ITEMS[:2] * 3)
    source = write("es.tsv", "text\tlabel\n" + rows)
    run = train(
        compose_run(
            [
                *("data=files_entailment", "data.language=es", "data.text=text"),
                *("data.label=label", "trainer=cpu", "logger=none", "trainer.max_epochs=0"),
                *(f"data.{split}={source}" for split in ("train", "validation", "test")),
                'data.task.templates={es: "Trata de {label} ."}',
                'data.task.names={es: {film: "la música", drink: "agua fresca", city: York}}',
                *("model=local", f"model.path={folder}", f"outputs={tmp_path / 'out'}"),
            ]
        )
    )
    record = json.loads((run / "record.json").read_text())
    assert record["status"] == "finished"
    assert "train_seconds" not in record["cost"]
    found = pd.read_parquet(run / "predictions.parquet")
    for row, prediction, score in zip(
        ITEMS[:2] * 3, found["prediction"], found["score"], strict=True
    ):
        with torch.no_grad():
            wanted = {
                label: float(
                    model(
                        **byte_bpe(row["text"], f"Trata de {name} .", return_tensors="pt")
                    ).logits.log_softmax(-1)[0, 1]
                )
                for label, name in NAMES["es"].items()
            }
        assert prediction == max(wanted, key=wanted.__getitem__)
        assert score == pytest.approx(max(wanted.values()), abs=1e-4)
    saved = BertForSequenceClassification.from_pretrained(run / "model")
    assert saved.config.id2label == HEAD

"""Scores against scikit-learn and seqeval, and against any way of splitting the same items."""

import json
import pickle
from functools import cache
from itertools import chain
from pathlib import Path
from time import process_time

import numpy
import pytest
import seqeval.metrics as seqeval
import sklearn.metrics as sklearn
import torch
from seqeval.metrics.sequence_labeling import get_entities
from torch import distributed, multiprocessing

from crosstune.data.tag_schemes import read_spans
from crosstune.errors import DataError
from crosstune.tasks.metrics.classes import ClassReport, add_unseen, report_classes
from crosstune.tasks.metrics.spans import SpanReport
from crosstune.tasks.metrics.tokens import TokenLoss

LABELS = ["negative", "neutral", "positive", "mixed"]
WITH_UNSEEN = [*LABELS, "bored", "angry"]  # the last two in gold only
TYPES = ["LOC", "ORG", "PER"]
TAGS = ["O", *(f"{mark}-{kind}" for mark in "BIES" for kind in TYPES)]
IOB = [tag for tag in TAGS if tag[0] in "OBI"]
WORDS = ["B", "M", "E", "S"]
RATES = {"precision": "precision", "recall": "recall", "f1": "f1-score", "support": "support"}

CLOSE = {"rel": 1e-12, "abs": 1e-12}

# scikit-learn asks for labels when only one class occurs, and we ask it for one class on purpose
pytestmark = pytest.mark.filterwarnings("ignore:A single label was found:UserWarning")


def draw_classes(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Predictions and gold of 1 to 30 items: some leave classes out, some hold unseen gold."""
    draw = numpy.random.default_rng(seed)
    size = draw.integers(1, 31)
    used = draw.permutation(len(LABELS))[: draw.integers(1, len(LABELS) + 1)].tolist()
    strangers = [len(LABELS), len(LABELS) + 1] if seed % 3 == 0 else []
    prediction, gold = draw.choice(used, size), draw.choice([*used, *strangers], size)
    return torch.from_numpy(prediction), torch.from_numpy(gold)


def draw_sequence(seed: int, tags: list[str], size: int = 12) -> list[str]:
    """One sequence of random, so mostly ill-formed, tags."""
    return numpy.random.default_rng(seed).choice(tags, size).tolist()


def draw_tags(seed: int, tags: list[str]) -> tuple[list[list[str]], list[list[str]]]:
    """Predicted and gold sentences of random tags, seven in ten of which agree."""
    draw = numpy.random.default_rng(seed)
    golds = [draw.choice(tags, size) for size in draw.integers(1, 16, draw.integers(1, 9))]
    guesses = [
        numpy.where(draw.random(len(gold)) < 0.7, gold, draw.choice(tags, len(gold)))
        for gold in golds
    ]
    return [guess.tolist() for guess in guesses], [gold.tolist() for gold in golds]


def score(metric, *batches):
    for batch in batches:
        metric.update(*batch)
    return metric.compute()


def names(indices: torch.Tensor) -> list[str]:
    return [WITH_UNSEEN[index] for index in indices.tolist()]


def same_table(report: dict, reference: dict) -> bool:
    """Whether the report holds the classes and means of a classification_report, and no others."""
    means = {"macro": "macro avg", "weighted": "weighted avg", "micro": "micro avg"}
    ours = report["classes"] | {means[mean]: report[mean] for mean in means}
    ours = {
        name: row for name, row in ours.items() if name in reference or name in report["classes"]
    }
    theirs = {name: row for name, row in reference.items() if name != "accuracy"}
    return ours.keys() == theirs.keys() and all(
        ours[name][rate] == pytest.approx(row[key], **CLOSE)
        for name, row in theirs.items()
        for rate, key in RATES.items()
    )


# ---- classes -------------------------------------------------------------------------------------


@cache
def reference_report(seed: int) -> dict:
    prediction, gold = draw_classes(seed)
    return sklearn.classification_report(
        names(gold), names(prediction), zero_division=0, output_dict=True
    )


def test_class_report_equals_scikit_learn_on_200_random_draws():
    for seed in range(200):
        report = score(ClassReport(WITH_UNSEEN), draw_classes(seed))["report"]
        assert same_table(report, reference_report(seed)), seed


def test_class_scores_equal_scikit_learn_on_200_random_draws():
    for seed in range(200):
        prediction, gold = draw_classes(seed)
        report = reference_report(seed)
        expected = {
            "accuracy": report["accuracy"],
            "macro_f1": report["macro avg"]["f1-score"],
            "micro_f1": report["accuracy"],  # the same number with one label per item
            "weighted_f1": report["weighted avg"]["f1-score"],
            "macro_precision": report["macro avg"]["precision"],
            "macro_recall": report["macro avg"]["recall"],
            "mcc": sklearn.matthews_corrcoef(names(gold), names(prediction)),
            "macro_f1_all": sklearn.f1_score(
                names(gold),
                names(prediction),
                labels=WITH_UNSEEN,
                average="macro",
                zero_division=0,
            ),
        }
        scores = score(ClassReport(WITH_UNSEEN), (prediction, gold))["scores"]
        assert scores == pytest.approx(expected, **CLOSE), seed


@pytest.mark.parametrize(
    ("labels", "predictions", "golds"),
    [
        (["a"], ["a", "a", "a"], ["a", "b", "c"]),
        (["a", "b"], ["b", "a", "b", "a"], ["x", "x", "y", "b"]),
        (["b", "a"], ["a", "b"], ["a", "b"]),
        (["a", "b"], ["a"] * 5, ["z", "y", "x", "w", "v"]),
    ],
)
def test_each_label_that_train_never_shows_is_a_class_as_in_scikit_learn(
    labels, predictions, golds
):
    result = report_classes(labels, predictions, golds, torch.device("cpu"))
    expected = sklearn.classification_report(golds, predictions, zero_division=0, output_dict=True)
    assert same_table(result["report"], expected)
    assert result["scores"]["macro_f1"] == pytest.approx(expected["macro avg"]["f1-score"])


@pytest.mark.parametrize("unseen", [["MISC"], ["MISC", "TIME"]])
def test_each_span_type_that_train_never_shows_is_a_class_as_in_seqeval(unseen):
    golds = [["B-PER", "O", *(f"B-{name}" for name in unseen)]]
    guesses = [["B-PER", "O", *["B-PER"] * len(unseen)]]
    scores = score(SpanReport(add_unseen(TYPES, unseen)), (guesses, golds))["scores"]
    assert scores["macro_f1"] == pytest.approx(seqeval.f1_score(golds, guesses, average="macro"))


def test_a_class_that_does_not_occur_is_absent_from_report_and_macro_mean():
    result = score(ClassReport(["a", "b", "c"]), (torch.tensor([0, 1]), torch.tensor([0, 1])))
    assert list(result["report"]["classes"]) == ["a", "b"]
    assert result["scores"]["macro_f1"] == 1.0


@pytest.mark.parametrize("gold", [-100, -1, 2])
def test_a_gold_that_is_no_label_is_refused(gold):
    with pytest.raises(ValueError, match="gold: an index outside 0 to 1"):
        ClassReport(["a", "b"]).update(torch.tensor([0]), torch.tensor([gold]))


def test_a_prediction_that_is_no_label_is_refused():
    with pytest.raises(ValueError, match="outside 0 to 1"):
        ClassReport(["a", "b"]).update(torch.tensor([2]), torch.tensor([0]))


def test_prediction_and_gold_of_different_length_are_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        ClassReport(["a", "b"]).update(torch.tensor([0, 1]), torch.tensor([0]))


@pytest.mark.parametrize("labels", [[], ["a", "a"]])
@pytest.mark.parametrize("metric", [ClassReport, SpanReport])
def test_labels_that_are_none_or_repeated_are_refused(metric, labels):
    with pytest.raises(DataError, match="must be at least one, all different"):
        metric(labels)


# ---- spans ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tags", [IOB, TAGS, ["B", "I", "E", "S", "O"]], ids=["iob", "iobes", "bare"]
)
def test_spans_equal_seqeval_on_300_random_sequences(tags):
    for seed in range(300):
        sequence = draw_sequence(seed, tags)
        expected = {(kind, first, last + 1) for kind, first, last in get_entities(sequence)}
        assert read_spans(sequence) == expected, sequence


def test_iob1_reads_as_iob2():
    assert read_spans(["I-PER", "I-PER", "B-PER", "O"]) == {("PER", 0, 2), ("PER", 2, 3)}


def test_a_middle_tag_acts_as_an_inside_tag():
    for seed in range(200):
        sequence = draw_sequence(seed, WORDS)
        assert read_spans(sequence) == read_spans(["I" if tag == "M" else tag for tag in sequence])


@pytest.mark.parametrize("tag", ["PER", "", "X-PER", "O-PER", "b-per", "BPER"])
def test_a_tag_of_another_scheme_is_refused_by_name(tag):
    with pytest.raises(DataError, match=f"{tag!r} is not a tag"):
        read_spans(["O", tag])


@pytest.mark.parametrize("tags", [IOB, TAGS], ids=["iob", "iobes"])
def test_span_report_equals_seqeval_on_200_random_draws(tags):
    for seed in range(200):
        guesses, golds = draw_tags(seed, tags)
        if not any(read_spans(sentence) for sentence in guesses + golds):
            continue  # seqeval's report cannot be printed without a span
        result = score(SpanReport(TYPES), (guesses, golds))
        reference = seqeval.classification_report(golds, guesses, zero_division=0, output_dict=True)
        assert same_table(result["report"], reference), seed


def test_span_scores_equal_seqeval_on_200_random_draws():
    for seed in range(200):
        guesses, golds = draw_tags(seed, TAGS)
        expected = {
            "f1": seqeval.f1_score(golds, guesses, zero_division=0),
            "precision": seqeval.precision_score(golds, guesses, zero_division=0),
            "recall": seqeval.recall_score(golds, guesses, zero_division=0),
            "macro_f1": seqeval.f1_score(golds, guesses, average="macro", zero_division=0),
            "weighted_f1": seqeval.f1_score(golds, guesses, average="weighted", zero_division=0),
            "accuracy": seqeval.accuracy_score(golds, guesses),
        }
        result = score(SpanReport(TYPES), (guesses, golds))
        f1 = sum(row["f1"] for row in result["report"]["classes"].values())
        expected["macro_f1_all"] = f1 / len(TYPES)
        assert result["scores"] == pytest.approx(expected, **CLOSE), seed


def test_words_of_a_segmentation_are_spans_of_one_type():
    guess, gold = ["B", "E", "S", "S"], ["B", "E", "B", "E"]
    report = score(SpanReport(["_"]), ([guess], [gold]))["report"]
    assert report["classes"]["_"] == {
        "precision": 1 / 3,
        "recall": 1 / 2,
        "f1": 2 / 5,
        "support": 2,
    }


def test_predicting_no_span_scores_zero():
    scores = score(SpanReport(TYPES), ([["O", "O"]], [["B-PER", "O"]]))["scores"]
    assert (scores["f1"], scores["precision"], scores["recall"]) == (0.0, 0.0, 0.0)


def test_no_span_in_gold_and_prediction_scores_zero_as_in_seqeval():
    result = score(SpanReport(TYPES), ([["O", "O"]], [["O", "O"]]))
    assert (result["scores"]["f1"], result["scores"]["accuracy"]) == (0.0, 1.0)


def test_a_span_of_a_type_that_is_not_listed_is_refused():
    sentence = ["B-PER", "O", "B-MISC"]
    with pytest.raises(ValueError, match="not listed: \\['MISC'\\]"):
        SpanReport(TYPES).update([sentence], [sentence])


def test_sentences_of_different_length_are_refused():
    with pytest.raises(DataError, match="Sentence 1 of the batch has 2 gold tags but 1 predicted"):
        SpanReport(TYPES).update([["O"], ["O"]], [["O"], ["O", "O"]])


def test_100_000_sentences_take_seconds():
    guesses, golds = draw_tags(1, TAGS)
    sentences = 100_000 // len(golds) + 1
    start = process_time()
    score(SpanReport(TYPES), (guesses * sentences, golds * sentences))
    assert process_time() - start < 10


# ---- token loss ----------------------------------------------------------------------------------


def draw_losses(seed: int, size: int = 50) -> tuple[torch.Tensor, torch.Tensor]:
    logits = torch.randn(size, 11, generator=torch.Generator().manual_seed(seed))
    target = torch.arange(size) % 11
    loss = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    return loss, logits.argmax(-1) == target


def test_token_loss_is_the_mean_over_tokens():
    loss, correct = draw_losses(0)
    result = score(TokenLoss(), (loss[:49], correct[:49]), (loss[49:], correct[49:]))
    mean = loss.double().mean()
    assert result["scores"] == {"accuracy": correct.double().mean().item()}
    assert result["report"] == pytest.approx(
        {"loss": mean.item(), "perplexity": mean.exp().item(), "tokens": 50}, **CLOSE
    )


def test_mean_of_batch_means_is_another_loss():
    loss, _ = draw_losses(0)
    wrong = (loss[:49].double().mean() + loss[49:].double().mean()) / 2
    assert abs(wrong - loss.double().mean()) > 1e-3


def test_the_sum_of_losses_stays_in_double_precision_through_half():
    metric = TokenLoss().half()
    metric.update(*draw_losses(0))
    assert metric.loss.dtype == torch.float64


# ---- any split, any number of ranks --------------------------------------------------------------


def many_items():
    """Each metric with 60 items as columns, a few of them unseen."""
    prediction, gold = zip(*(draw_classes(3 * seed) for seed in range(20)), strict=True)
    guesses, golds = zip(*(draw_tags(seed, [*TAGS, "B-MISC"]) for seed in range(20)), strict=True)
    return {
        "class": (ClassReport(WITH_UNSEEN), torch.cat(prediction)[:60], torch.cat(gold)[:60]),
        "span": (SpanReport([*TYPES, "MISC"]), [*chain(*guesses)][:60], [*chain(*golds)][:60]),
        "token": (TokenLoss(), *draw_losses(1, 60)),
    }


def flat(result: dict, path: str = "") -> dict[str, float]:
    rows = {}
    for key, value in result.items():
        rows |= (
            flat(value, f"{path}/{key}") if isinstance(value, dict) else {f"{path}/{key}": value}
        )
    return rows


@pytest.mark.parametrize("kind", ["class", "span", "token"])
@pytest.mark.parametrize("sizes", [[60], [1, 59], [7, 0, 13, 40], [1] * 60], ids=len)
def test_any_batch_split_gives_the_same_result(kind, sizes):
    metric, *columns = many_items()[kind]
    whole = score(metric.clone(), columns)
    ends = [sum(sizes[: number + 1]) for number in range(len(sizes))]
    batches = [
        [column[end - size : end] for column in columns]
        for size, end in zip(sizes, ends, strict=True)
    ]
    assert flat(score(metric, *batches)) == pytest.approx(flat(whole), **CLOSE)


def test_mean_of_batch_f1_is_another_score():
    metric, guesses, golds = many_items()["span"]
    parts = [
        score(metric.clone(), (guesses[part], golds[part]))["scores"]["f1"]
        for part in (slice(0, 7), slice(7, 60))
    ]
    whole = score(metric, (guesses, golds))["scores"]["f1"]
    assert abs(sum(parts) / 2 - whole) > 1e-3


def run_rank(rank: int, folder: str) -> None:
    """Score one rank's shards of 50 and 10 items, then of all and none; write what it computes."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    results = {}
    for split in (50, 60):
        for kind, (metric, *columns) in many_items().items():
            part = slice(0, split) if rank == 0 else slice(split, 60)
            shard = [column[part] for column in columns]
            if len(shard[0]):
                metric.update(*shard)
            results[f"{kind} {split}"] = metric.compute()
    distributed.destroy_process_group()
    Path(folder, f"{rank}.json").write_text(json.dumps(results))


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    multiprocessing.spawn(run_rank, args=(str(folder),), nprocs=2)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["class", "span", "token"])
@pytest.mark.parametrize("split", [50, 60], ids=["uneven", "one-empty"])
@pytest.mark.parametrize("rank", [0, 1])
def test_each_of_two_ranks_computes_the_result_of_one_process(ranks, rank, split, kind):
    metric, *columns = many_items()[kind]
    expected = score(metric, columns)
    assert flat(ranks[rank][f"{kind} {split}"]) == pytest.approx(flat(expected), **CLOSE)


def test_mean_over_ranks_is_another_score():
    metric, guesses, golds = many_items()["span"]
    parts = [
        score(metric.clone(), (guesses[part], golds[part]))["scores"]["f1"]
        for part in (slice(0, 50), slice(50, 60))
    ]
    assert abs(sum(parts) / 2 - score(metric, (guesses, golds))["scores"]["f1"]) > 1e-3


# ---- as torchmetrics -----------------------------------------------------------------------------


@pytest.fixture(params=["class", "span", "token"])
def item(request):
    return many_items()[request.param]


def test_results_are_plain_python_numbers(item):
    metric, *columns = item
    assert {type(value) for value in flat(score(metric, columns)).values()} <= {int, float}


def test_results_are_ready_for_json(item):
    metric, *columns = item
    result = score(metric, columns)
    assert json.loads(json.dumps(result)) == result


def test_nothing_counted_gives_no_scores(item):
    metric, *columns = item
    empty = [column[:0] for column in columns]
    assert score(metric, empty) == {"scores": {}, "report": {}}


def test_reset_forgets_everything(item):
    metric, *columns = item
    once = score(metric, columns)
    metric.reset()
    assert score(metric, columns) == once


def test_clone_counts_apart(item):
    metric, *columns = item
    copy = metric.clone()
    score(metric, columns)
    assert score(copy, columns) == metric.compute()


def test_pickle_keeps_what_was_counted(item):
    metric, *columns = item
    result = score(metric, columns)
    assert pickle.loads(pickle.dumps(metric)).compute() == result  # noqa: S301 - our own bytes


def test_forward_returns_the_batch_and_keeps_the_whole(item):
    metric, *columns = item
    whole = score(metric.clone(), columns)
    head, tail = [c[:20] for c in columns], [c[20:] for c in columns]
    alone = score(metric.clone(), tail)
    metric(*head)
    assert metric(*tail) == alone
    assert flat(metric.compute()) == pytest.approx(flat(whole), **CLOSE)


def test_counting_goes_on_after_inference_mode(item):
    metric, *columns = item
    whole = score(metric.clone(), columns)
    with torch.inference_mode():
        metric.reset()
        metric.update(*[c[:20] for c in columns])
    metric.update(*[c[20:] for c in columns])
    assert flat(metric.compute()) == pytest.approx(flat(whole), **CLOSE)

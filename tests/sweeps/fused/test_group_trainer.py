"""Runs trained together are what they are alone: the same losses, scores and weights."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch.func import vmap

from crosstune.config.compose import compose_run
from crosstune.config.schema import Run
from crosstune.models.acceleration.dropout import FastDropout
from crosstune.runs.record import read_record
from crosstune.sweeps.fused import joint_step as step_module
from crosstune.sweeps.fused.group_trainer import GroupTrainer
from crosstune.sweeps.fused.hyperparameters import RatedDropout
from crosstune.sweeps.fused.joint_step import JointStep, MemberBatch, MemberLoss, split_rows
from crosstune.sweeps.process_pool import JobResult
from crosstune.training.train import train
from tests.tiny import DATA, ROWS

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*")

METHODS = {
    "lora": ("method.peft.lora_dropout=0.0",),
    "bitfit": (),
    "houlsby": (),
    "pfeiffer": (),
    "ia3": (),
    "head_only": (),
}
MORE_METHODS = {
    "dora": ("method.peft.lora_dropout=0.0",),
    "rslora": ("method.peft.lora_dropout=0.0",),
    "layernorm": (),
    "top_layers": ("method.layers=1",),
    "parallel_adapter": ("method.peft.dropout=0.0",),
}
CASES: list[Any] = [("houlsby", "tagging")]
CASES += [
    pytest.param(method, kind, marks=pytest.mark.slow)
    for method in (*METHODS, *MORE_METHODS)
    for kind in ("classification", "tagging")
    if (method, kind) not in (("lora", "classification"), ("houlsby", "tagging"))
]
RUNS = (("seed=1", "optimizer.learning_rate=0.003"), ("seed=2", "optimizer.learning_rate=0.001"))
RUNS += (("seed=3", "optimizer.learning_rate=0.002", "optimizer.weight_decay=0.1"),)


def save_base(folder: Path, kind: str, tokenizer: Any) -> Path:
    """Write an encoder of a kind, without a head and without dropout."""
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    torch.manual_seed(0)
    getattr(transformers, f"{kind}Model")(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory, byte_bpe: Any) -> Path:
    """Return the folder of a BERT."""
    return save_base(tmp_path_factory.mktemp("base"), "Bert", byte_bpe)


def make_runs(base: Path, outputs: Path, kind: str, method: str, *more: str) -> dict[int, Run]:
    """Return runs that differ in what may differ in a group."""
    options = [*METHODS.get(method, ()), *MORE_METHODS.get(method, ()), *more]
    common = [*DATA[kind], ROWS, "model=local", f"model.path={base}", f"method={method}"]
    common += ["trainer=cpu", "trainer.max_epochs=2", "trainer.log_every_n_steps=1"]
    common += ["data.batch_size=8", "logger=none", f"outputs={outputs}"]
    return {n: compose_run([*common, *options, *own]) for n, own in enumerate(RUNS)}


def results_of(runs: dict[int, Run], step: JointStep | None = None) -> dict[int, JobResult]:
    """Train runs together and return their results."""
    results: dict[int, JobResult] = {}
    trainer = GroupTrainer(runs, results.__setitem__)
    trainer.barrier.work = step or Joint()
    trainer.train()
    return dict(sorted(results.items()))


def train_together(runs: dict[int, Run], step: JointStep | None = None) -> list[Path]:
    """Train runs together; return their folders."""
    results = results_of(runs, step)
    assert not [result.error for result in results.values() if result.error]
    return [Path(result.folder) for result in results.values()]


def train_alone(runs: dict[int, Run]) -> list[Path]:
    """Train runs one by one; return their folders."""
    return [train(run) for run in runs.values()]


def losses(folder: Path) -> list[float]:
    """Return the loss of every step of a run."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line["train/loss"] for line in lines if "train/loss" in line]


@pytest.fixture(scope="module")
def alone(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return the folders of three runs of LoRA that were trained alone."""
    outputs = tmp_path_factory.mktemp("alone")
    return train_alone(make_runs(base, outputs, "classification", "lora"))


@pytest.fixture(scope="module")
def together(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], "Watched"]:
    """Return the folders of the same runs trained together, and what was watched meanwhile."""
    outputs, watched = tmp_path_factory.mktemp("together"), Watched()
    return train_together(make_runs(base, outputs, "classification", "lora"), watched), watched


class Joint(JointStep):
    """A joint step even where a model skips its padding, so that each run alone costs less."""

    def is_cheaper(self, *_: Any) -> bool:
        return True


class Watched(Joint):
    """A joint step that keeps the models it saw last."""

    def __call__(self, brought: Mapping[int, MemberBatch]) -> dict[int, MemberLoss]:
        if len(brought) > 1:
            self.models = [run.model for run in brought.values()]
        return super().__call__(brought)


class Mixed(Joint):
    """A joint step with a fault: each run gets the gradients of its neighbour."""

    def __call__(self, brought: Mapping[int, MemberBatch]) -> dict[int, MemberLoss]:
        given = super().__call__(brought)
        others = [*list(given.values())[1:], given[min(given)]]
        return {
            number: own._replace(gradients=other.gradients)
            for (number, own), other in zip(given.items(), others, strict=True)
        }


def check_same(alone: Sequence[Path], together: Sequence[Path]) -> None:
    for one, other in zip(alone, together, strict=True):
        assert one.name == other.name
        assert len(losses(one)) >= 10
        assert losses(other) == pytest.approx(losses(one), rel=1e-5)
        scores = [read_record(folder / "record.json")["scores"] for folder in (one, other)]
        assert scores[0] == scores[1]


def test_runs_have_the_losses_and_scores_together_that_they_have_alone(
    alone: list[Path], together: tuple[list[Path], Watched]
) -> None:
    folders, watched = together
    check_same(alone, folders)
    assert watched.together > watched.alone


def test_so_they_have_where_their_batches_differ_in_the_number_of_texts(
    base: Path, tmp_path: Path
) -> None:
    budget = ("data.batch_tokens=160", "data.max_tokens=32")
    folders: list[list[Path]] = []
    for outputs, how in ((tmp_path / "alone", train_alone), (tmp_path / "joint", train_together)):
        folders.append(how(make_runs(base, outputs, "classification", "lora", *budget)))
    check_same(*folders)


def test_so_they_have_where_each_skips_its_padding_within_the_group(
    alone: list[Path], base: Path, tmp_path: Path
) -> None:
    step = JointStep()
    check_same(alone, train_together(make_runs(base, tmp_path, "classification", "lora"), step))
    assert step.alone > step.together


@pytest.mark.parametrize(("whole", "joint"), [(False, True), (True, False)])
def test_a_step_is_joint_where_that_costs_less(whole: bool, joint: bool) -> None:
    """A batch of 20 and 30 sub-words, whose padding costs as much as half a pass."""
    nothing: Any = None
    one = MemberBatch(nothing, nothing, {}, {}, [{"lengths": [20, 30]}], whole, 0, (0, 0))
    assert JointStep().is_cheaper([one, one], split_rows([one, one], 20), 20) == joint


@pytest.mark.parametrize(("method", "kind"), CASES)
def test_so_they_have_with_every_method_that_is_fused_and_in_tagging(
    method: str, kind: str, base: Path, tmp_path: Path
) -> None:
    alone = [train(run) for run in make_runs(base, tmp_path / "a", kind, method).values()]
    step = Joint()
    check_same(alone, train_together(make_runs(base, tmp_path / "b", kind, method), step))
    assert step.together > step.alone


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Camembert", "Electra", "Roberta", "XLMRoberta"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_so_they_have_in_every_encoder_that_is_mapped_over(
    kind: str, attention: str, byte_bpe: Any, tmp_path: Path
) -> None:
    encoder = save_base(tmp_path / "encoder", kind, byte_bpe)
    options = ("classification", "lora", f"model.attention={attention}", "data.max_tokens=48")
    alone = [train(run) for run in make_runs(encoder, tmp_path / "a", *options).values()]
    step = Joint()
    check_same(alone, train_together(make_runs(encoder, tmp_path / "b", *options), step))
    assert step.together > step.alone


@pytest.mark.slow
def test_an_encoder_that_cannot_be_mapped_over_is_trained_as_if_alone(
    byte_bpe: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encoder, step = save_base(tmp_path / "encoder", "DebertaV2", byte_bpe), JointStep()
    options = ("tagging", "lora", "model.attention=eager")
    alone = [train(run) for run in make_runs(encoder, tmp_path / "a", *options).values()]
    together = train_together(make_runs(encoder, tmp_path / "b", *options), step)
    check_same(alone, together)
    assert step.together == step.alone == 0
    assert "encoders of type deberta-v2 are not mapped over" in caplog.text
    assert "train_seconds" in read_record(together[0] / "record.json")["cost"]


@pytest.mark.slow
def test_in_half_precision_they_have_about_the_same_losses(base: Path, tmp_path: Path) -> None:
    options = ("classification", "lora", "trainer.precision=bf16")
    alone = [train(run) for run in make_runs(base, tmp_path / "a", *options).values()]
    step = Joint()
    together = train_together(make_runs(base, tmp_path / "b", *options), step)
    assert step.together > step.alone
    for one, other in zip(alone, together, strict=True):
        assert losses(other) == pytest.approx(losses(one), rel=1e-2)


def test_gradients_that_are_swapped_between_runs_are_told(
    alone: list[Path], base: Path, tmp_path: Path
) -> None:
    mixed = train_together(make_runs(base, tmp_path, "classification", "lora"), Mixed())
    with pytest.raises(AssertionError):
        check_same(alone, mixed)


@pytest.mark.slow
def test_runs_of_different_scales_have_their_own_together(base: Path, tmp_path: Path) -> None:
    def make(outputs: Path) -> dict[int, Run]:
        of = [make_runs(base, outputs, "classification", "lora", f"method.peft.lora_alpha={alpha}")
              for alpha in (16, 40)]  # fmt: skip
        return {0: of[0][0], 1: of[1][0]}

    alone = [train(run) for run in make(tmp_path / "a").values()]
    assert losses(alone[0]) != pytest.approx(losses(alone[1]), rel=1e-5)
    check_same(alone, train_together(make(tmp_path / "b")))


def test_what_is_frozen_is_held_once(together: tuple[list[Path], Watched]) -> None:
    parts = [
        {name: part.data_ptr() for name, part in model.named_parameters()
         if part.requires_grad is trained and ".original_module." not in name}
        for trained in (False, True) for model in together[1].models
    ]  # fmt: skip
    assert len(parts[0]) > 20
    assert parts[0] == parts[1] == parts[2]
    assert not set(parts[3].values()) & set(parts[4].values())


def test_a_record_says_with_how_many_others_and_claims_no_cost_of_the_group(
    alone: list[Path], together: tuple[list[Path], Watched]
) -> None:
    by_itself, shared = (read_record(f[0] / "record.json") for f in (alone, together[0]))
    assert "fused_with" not in by_itself
    assert shared["fused_with"] == 2
    gone = {"train_seconds", "train_tokens_per_second", "peak_memory_bytes"}
    assert by_itself["cost"].keys() - shared["cost"].keys() == gone & by_itself["cost"].keys()


def test_a_log_tells_of_its_own_run_alone(together: tuple[list[Path], Watched]) -> None:
    folders, _ = together
    for folder in folders:
        others = [other.name for other in folders if other != folder]
        log = (folder / "log.txt").read_text()
        assert folder.name in log
        assert not any(name in log for name in others)


def test_a_run_that_stops_early_leaves_the_others_as_they_are(
    alone: list[Path], base: Path, tmp_path: Path
) -> None:
    runs = make_runs(base, tmp_path, "classification", "lora")
    runs[1].trainer.max_steps = 3
    folders = train_together(runs)
    assert len(losses(folders[1])) == 3
    check_same([alone[0], alone[2]], [folders[0], folders[2]])


def test_patience_ends_one_run_and_no_other(base: Path, tmp_path: Path) -> None:
    runs = make_runs(base, tmp_path, "classification", "lora", "trainer.max_epochs=6")
    runs[0].trainer.patience = 1
    runs[0].optimizer.learning_rate = 0.0  # no score is better than the first
    folders = train_together(runs)
    assert [len(losses(folder)) for folder in folders] == [10, 30, 30]


def test_a_run_that_diverges_fails_and_leaves_the_others_as_they_are(
    alone: list[Path], base: Path, tmp_path: Path
) -> None:
    runs = make_runs(base, tmp_path, "classification", "lora")
    runs[1].optimizer.learning_rate = 1e30
    results = results_of(runs)
    assert "the loss is" in results[1].error
    statuses = [read_record(path)["status"] for path in tmp_path.glob("adhoc/*/record.json")]
    assert sorted(statuses) == ["diverged", "finished", "finished"]
    check_same([alone[0], alone[2]], [Path(results[n].folder) for n in (0, 2)])


def test_a_base_that_is_not_the_others_is_refused(base: Path, tmp_path: Path) -> None:
    runs = make_runs(base, tmp_path, "classification", "lora")
    config = transformers.BertConfig.from_pretrained(base)
    torch.manual_seed(1)
    transformers.BertModel(config).save_pretrained(tmp_path / "other")
    transformers.AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "other")
    runs[1].model.path = str(tmp_path / "other")
    errors = [result.error for result in results_of(runs).values()]
    assert errors[0] == errors[2] == ""
    assert "is frozen, but differs from the other runs of the group" in errors[1]


@pytest.mark.slow
def test_where_memory_runs_out_fewer_runs_go_through_a_pass(
    alone: list[Path], base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enough, sizes = step_module._step_together, []

    def scarce(runs: Sequence[MemberBatch], cuts: Any) -> list[MemberLoss]:
        sizes.append(len(runs))
        if len(runs) > 2:
            raise torch.OutOfMemoryError
        return enough(runs, cuts)

    monkeypatch.setattr(step_module, "_step_together", scarce)
    runs = make_runs(base, tmp_path, "classification", "lora")
    runs[3] = replace(runs[0], seed=4)
    folders = train_together(runs)
    check_same(alone, folders[:3])
    assert sizes.count(4) == 1
    assert set(sizes) == {4, 2}


def test_dropout_draws_for_each_run_and_the_same_in_the_same_group(
    base: Path, tmp_path: Path
) -> None:
    dropping = shutil.copytree(base, tmp_path / "base")
    config = json.loads((base / "config.json").read_text()) | {"hidden_dropout_prob": 0.3}
    (dropping / "config.json").write_text(json.dumps(config))

    def make(outputs: Path) -> dict[int, Run]:
        one = make_runs(dropping, outputs, "classification", "lora")[0]
        return {0: one, 1: replace(one, optimizer=replace(one.optimizer, weight_decay=0.5))}

    found = [train_together(make(tmp_path / name)) for name in "ab"]
    assert [losses(folder) for folder in found[0]] == [losses(folder) for folder in found[1]]
    first = [losses(folder)[0] for folder in found[0]]
    assert first[0] != pytest.approx(first[1], rel=1e-3)


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_cheap_dropout_draws_for_each_run_that_it_is_mapped_over(rate: float) -> None:
    torch.manual_seed(0)
    ones = torch.ones(3, 100_000)
    dropped = (vmap(FastDropout(rate), randomness="different")(ones) == 0).double()
    assert dropped.mean(1).tolist() == pytest.approx([rate] * 3, abs=0.01)
    assert torch.corrcoef(dropped).fill_diagonal_(0).abs().max() < 0.02


def test_dropout_at_a_rate_of_each_run_drops_as_much() -> None:
    def drop(rate: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        module = RatedDropout()
        module.p = rate
        return module(values)

    torch.manual_seed(0)
    rates = torch.tensor([0.1, 0.5])
    left = vmap(drop, randomness="different")(rates, torch.ones(2, 100_000))
    assert (left == 0).double().mean(1).tolist() == pytest.approx(rates.tolist(), abs=0.01)
    assert left.mean(1).tolist() == pytest.approx([1.0, 1.0], abs=0.02)

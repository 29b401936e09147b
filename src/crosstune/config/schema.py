"""The typed configuration: every option of ours is declared here once.

Hydra composes `conf/` against these dataclasses, so an unknown key, a wrong type or a missing value
is refused before data or weights load. Each option says whether it can change a result, and so
belongs to the run id. Options of other libraries (`_target_` nodes) are typed `dict`;
`config/instantiate.py` checks them against the signatures of their targets.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from typing import Any

# omegaconf's mark of a mandatory value; reports read the options and do not load omegaconf
MISSING: Any = "???"


@dataclass(frozen=True)
class Option:
    """The facts about an option that its name and type do not say."""

    default: Any  # MISSING: a file of its group or the command line sets it
    sentence: str
    changes_result: bool = True  # False: two runs that differ in it alone are the same run
    is_path: bool = False  # the content at the path can change the result, the path cannot
    minimum: float | None = None
    exclusive_minimum: float | None = None
    maximum: float | None = None
    allowed: tuple[str, ...] = ()
    added_later: bool = False  # than run ids; at its default a run does what it did before


def option(default: Any, sentence: str, **facts: Any) -> Any:
    """Return the dataclass field of an option; `facts` are further fields of `Option`."""
    metadata = {"option": Option(default, sentence, **facts)}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: deepcopy(default), metadata=metadata)
    return field(default=default, metadata=metadata)


class TaskType(Enum):
    """Task types; `tasks/__init__.py` maps each to its class."""

    classification = "classification"
    tagging = "tagging"
    extraction = "extraction"
    relation = "relation"
    regression = "regression"
    generation = "generation"
    masked_lm = "masked_lm"
    cloze = "cloze"
    entailment = "entailment"


class ModelOrigin(Enum):
    """Where the weights come from."""

    scratch = "scratch"
    local = "local"
    hub = "hub"


class TokenizerType(Enum):
    """Algorithm of a tokenizer trained from scratch; `unigram` training is not deterministic."""

    bpe = "bpe"
    wordpiece = "wordpiece"
    unigram = "unigram"


class Precision(Enum):
    """Precision of the forward and backward pass; `auto` is bf16 on a GPU that supports it."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


class UnseenLabels(Enum):
    """What to do with a validation or test label that never occurs in train."""

    error = "error"
    miss = "miss"


class TargetModules(Enum):
    """What a method adapts in each layer; `models/architectures.py` names the modules."""

    query_value = "query_value"
    key_value_down = "key_value_down"  # and the last matrix of the feed-forward block
    linear = "linear"  # every matrix of attention and feed-forward
    norms = "norms"


class FrozenLayers(Enum):
    """Mode, in training, of the frozen layers below the lowest trainable one."""

    train = "train"
    evaluation = "evaluation"  # no dropout, as in a linear probe; outputs are computed once


class Tracker(Enum):
    """Where a run is mirrored."""

    wandb = "wandb"
    csv = "csv"
    tensorboard = "tensorboard"
    none = "none"


class WandbMode(Enum):
    """Whether Weights & Biases is contacted during the run."""

    offline = "offline"
    online = "online"


@dataclass
class Data:
    """One data set: task type, reader, splits and how its rows become batches."""

    name: str = option(MISSING, "name of the data set in records and tables")
    kind: TaskType = option(MISSING, "task type")
    language: str = option(MISSING, "language code of the training data")
    reader: dict[str, Any] = option(MISSING, "_target_ of a read_… function and its options")
    train: Any = option(MISSING, "training file, or {language: file}", is_path=True)
    validation: Any = option(MISSING, "validation file, or {language: file}", is_path=True)
    test: Any = option(MISSING, "test file, or {language: file}; null: no test", is_path=True)
    text: str | None = option(None, "column of the text")
    text_pair: str | None = option(None, "column of the second text of a pair task")
    label: str | None = option(None, "column of the label")
    target: str | None = option(None, "column of the text to generate")
    task: dict[str, Any] = option({}, "options of the task type")
    unseen_labels: UnseenLabels = option(
        UnseenLabels.error, "labels that train lacks: an error, or counted as missed"
    )
    allowed: list[str] = option(
        [], "rules that `crosstune check` tolerates, by id or name", changes_result=False
    )
    metric: str = option(MISSING, "headline metric: chooses the checkpoint, heads the table")
    batch_size: int | None = option(
        None, "examples per batch, over all devices; null: 8, 16 or 32 by train's rows", minimum=1
    )
    batch_tokens: int | None = option(
        None, "about so many subwords per batch, in place of batch_size", minimum=1
    )
    max_tokens: int = option(128, "subwords per input", minimum=8)
    limit: int | None = option(None, "first N training rows of each language", minimum=1)
    shots: int | None = option(
        None, "N training rows of each label and language, drawn by the seed", minimum=1
    )
    further_languages: list[str] = option([], "languages to train on beside data.language")
    root: str | None = option(None, "folder of a data set's files", is_path=True)
    in_turn: bool = option(False, "train on one language after another (continual learning)")
    sampling_temperature: float = option(
        1.0, "languages with n rows are sampled with p ∝ n^(1/T)", exclusive_minimum=0
    )
    languages: dict[str, str] | None = option(
        None, "language code -> the reader's name for that language"
    )

    @property
    def train_languages(self) -> list[str]:
        """The languages trained on, the main one first."""
        return [self.language, *self.further_languages]

    @property
    def resolved_batch_size(self) -> int:
        """The batch size of a run whose data has been read.

        Raises:
            ValueError: it has not been read.
        """
        if self.batch_size is None:
            raise ValueError("data.batch_size is known once the data has been read")
        return self.batch_size

    @property
    def stages(self) -> list[list[str]]:
        """The languages of each stage of training: one after another, or all in one stage."""
        together = [self.train_languages]
        return [[language] for language in self.train_languages] if self.in_turn else together

    @property
    def trained_on(self) -> str:
        """The languages trained on, as one name: `es`, `es+zh` together, `es>zh` in turn."""
        return ">".join("+".join(stage) for stage in self.stages)


@dataclass
class Model:
    """One model: a hub checkpoint, a local folder, or random weights from a config."""

    name: str = option(MISSING, "name of the model in records and tables")
    origin: ModelOrigin = option(MISSING, "where the weights come from: scratch, local or hub")
    path: str | None = option(
        None, "origin=local: folder of a transformers model, a run or a study", is_path=True
    )
    hub_id: str | None = option(None, "origin=hub: owner/name")
    revision: str | None = option(None, "origin=hub: commit of the hub repository")
    config: dict[str, Any] | None = option(
        None, "origin=scratch: _target_ of a transformers config and its options"
    )
    do_lower_case: bool | None = option(
        None, "lower-case the text, where the checkpoint's tokenizer does not say"
    )
    tokenizer: TokenizerType = option(
        TokenizerType.bpe, "origin=scratch: tokenizer trained on the training text"
    )
    vocab_size: int | None = option(None, "origin=scratch: maximal vocabulary size", minimum=300)
    extend_vocab: int | None = option(
        None, "add the subwords that a vocabulary of this size would have", minimum=300
    )
    keep_head: bool = option(
        False,
        "keep the checkpoint's head although its labels or its task differ; else it is new",
        added_later=True,
    )
    languages: list[str] | None = option(
        None, "keep only the subwords that these languages and the texts need", added_later=True
    )
    package: str | None = option(
        None,
        "origin=hub: Python package with the weights, used if installed and the hub cache has none",
        added_later=True,
    )
    learning_rate_scale: float = option(
        1.0, "factor on a method's default learning rate: small models need larger steps", minimum=0
    )
    decoder: str | None = option(None, "same: initialize a decoder from the encoder's weights")
    attention: str = option("sdpa", "attention kernel", allowed=("sdpa", "eager"))


@dataclass
class Method:
    """One way of fine-tuning."""

    name: str = option(MISSING, "name of the method in records and tables")
    learning_rate: float = option(MISSING, "the method's default learning rate")
    peft: dict[str, Any] | None = option(
        None, "_target_ of a peft config and its options; null trains every weight"
    )
    targets: TargetModules | None = option(
        None, "modules to adapt, unless method.peft.target_modules names them"
    )
    layers: int = option(0, "fully train so many of the last layers, beside the head")
    frozen_layers: FrozenLayers = option(
        FrozenLayers.train,
        "mode of the frozen layers below the lowest trainable one: train (dropout) or evaluation",
        added_later=True,
    )
    language_adapters: Any = option(
        None, "madx: {language: run folder of method=madx_language}", is_path=True
    )


@dataclass
class Optimizer:
    """Optimizer and schedule."""

    algorithm: dict[str, Any] = option(MISSING, "_target_ of a torch optimizer and its options")
    learning_rate: float = option(MISSING, "peak learning rate", minimum=0)
    weight_decay: float = option(
        0.01,
        "weight decay of matrices; biases, norms and scales (as of ia3 and adalora) have none",
        minimum=0,
    )
    schedule: str = option("linear", "learning rate schedule: a transformers.SchedulerType")
    warmup_ratio: float = option(0.1, "share of all steps spent on warm-up", minimum=0, maximum=1)


@dataclass
class Trainer:
    """The training loop: how long, on what, in which precision."""

    accelerator: str = option("auto", "Lightning's accelerator", changes_result=False)
    devices: int = option(1, "number of devices", changes_result=False, minimum=1)
    strategy: str = option(
        "auto",
        "strategy; others shard weights or start their own processes, and save incomplete runs",
        changes_result=False,
        allowed=("auto", "ddp"),
    )
    precision: Precision = option(Precision.fp32, "precision of the forward and backward pass")
    max_epochs: int | None = option(
        None, "epochs; 0: none, the model as it is; null: 3, or more up to 200 steps", minimum=0
    )
    max_steps: int | None = option(None, "stop after so many optimizer steps", minimum=1)
    accumulate_grad_batches: int = option(1, "batches per optimizer step", minimum=1)
    gradient_clip_val: float | None = option(1.0, "maximal gradient norm; null does not clip")
    accelerate: bool = option(
        True, "use crosstune's own speed-ups; false: plain torch and transformers", added_later=True
    )
    compile: bool = option(False, "compile the layers with torch.compile; slower on a CPU")
    patience: int | None = option(
        None, "stop after so many epochs without a better headline score", minimum=1
    )
    log_every_n_steps: int = option(10, "steps per log line", changes_result=False, minimum=1)
    checkpoint_every_seconds: float = option(
        60.0, "seconds between checkpoints, beside those of each epoch", changes_result=False
    )
    stand_in: bool = option(False, "train on generated rows: a rehearsal without a real score")


@dataclass
class Logger:
    """The mirror of a run; metrics.jsonl and record.json are written in any case."""

    tracker: Tracker = option(Tracker.wandb, "where to mirror the run", changes_result=False)
    mode: WandbMode = option(WandbMode.offline, "mode of Weights & Biases", changes_result=False)
    project: str = option("crosstune", "project at Weights & Biases", changes_result=False)


@dataclass
class Run:
    """The whole configuration of one run."""

    experiment: str = option(MISSING, "name of the study", changes_result=False)
    seed: int = option(1, "seed of weights, data order and dropout", minimum=0, maximum=2**32 - 1)
    outputs: str = option("outputs", "root folder of everything written", changes_result=False)
    retry: bool = option(False, "run again what failed, diverged or is stale", changes_result=False)
    lock: bool = option(
        True, "lock the run's folder; false: the file system has no locks", changes_result=False
    )
    # what it changes is in the configuration that the run id is made of
    tuned: bool = option(
        False, "use the values that `crosstune tune` chose for this study", changes_result=False
    )
    allow: list[str] = option(
        [], "own packages for _target_; on the command line only", changes_result=False
    )
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    method: Method = field(default_factory=Method)
    optimizer: Optimizer = field(default_factory=Optimizer)
    trainer: Trainer = field(default_factory=Trainer)
    logger: Logger = field(default_factory=Logger)


def _list_options(schema: Any, prefix: str = "") -> dict[str, Option]:
    options: dict[str, Option] = {}
    for entry in fields(schema):
        key = f"{prefix}{entry.name}"
        if is_dataclass(entry.type):
            options |= _list_options(entry.type, f"{key}.")
        else:
            options[key] = entry.metadata["option"]
    return options


OPTIONS = _list_options(Run)  # by dotted key
# Options of older records. The code does what it did at their defaults.
RETIRED_OPTIONS = {
    "data.batching": Option("uniform", "which windows share a training batch"),
    "method.search": Option({}, "further values that a search tries", changes_result=False),
}


def select_result_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's configuration, as plain values, without what cannot change its result.

    Paths are left out too: digests identify what they lead to. Run ids hash this selection, so a
    retired option stays in it at its default, and so does `data.root`, which has always been there.
    An option that was added later is left out at its default, which is what runs did before.
    """
    left_out = {
        key
        for key, facts in (OPTIONS | RETIRED_OPTIONS).items()
        if not facts.changes_result or (facts.is_path and key != "data.root")
    }
    groups = {
        group: {name: value for name, value in part.items() if f"{group}.{name}" not in left_out}
        for group, part in config.items()
        if isinstance(part, dict)
    }
    for key, facts in RETIRED_OPTIONS.items():
        if key not in left_out:
            group, _, name = key.partition(".")
            groups[group].setdefault(name, facts.default)
    for key, facts in OPTIONS.items():
        group, _, name = key.partition(".")
        default = getattr(facts.default, "name", facts.default)
        if facts.added_later and groups.get(group, {}).get(name) == default:
            del groups[group][name]
    alone = {key: value for key, value in config.items() if key not in {*groups, *left_out}}
    return alone | {group: part for group, part in groups.items() if part}

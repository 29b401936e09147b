"""The typed root configuration: every option of ours is declared here once, with its sentence.

Hydra composes `conf/` against these dataclasses, so an unknown key, a wrong type or a missing
value is refused before data or weights load. Other people's options (`_target_` nodes) are
typed `dict` here and bound against their signatures by `build.check`.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from omegaconf import MISSING


class TaskType(Enum):
    """Task kinds; `tasks/__init__.py` maps each to its class."""

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
    """Where the encoder comes from."""

    scratch = "scratch"
    local = "local"
    hub = "hub"


class TokenizerType(Enum):
    """How a tokenizer is trained; `unigram` differs a little from one training to the next."""

    bpe = "bpe"
    wordpiece = "wordpiece"
    unigram = "unigram"


class Precision(Enum):
    """Arithmetic of the forward and backward pass; `auto` is bf16 on a GPU that has it."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


class UnseenLabels(Enum):
    """What to do with a label of validation or test that never occurs in train."""

    error = "error"
    miss = "miss"


class Batching(Enum):
    """Which windows share a training batch."""

    uniform = "uniform"  # any; what padding they need is cut down without changing the gradient
    bucketed = "bucketed"  # those of like length; measured: faster still, and worse scores


class TargetModules(Enum):
    """What a method adapts in each layer; `methods/anatomy.py` knows the modules by model type."""

    query_value = "query_value"
    key_value_down = "key_value_down"  # and the last matrix of the feed-forward block
    linear = "linear"  # every matrix of attention and feed-forward
    norms = "norms"


class FrozenLayers(Enum):
    """Mode, in training, of the frozen layers below the lowest trainable one."""

    train = "train"
    evaluation = "evaluation"  # no dropout, as in a linear probe; outputs are computed once


class Tracker(Enum):
    """Where a run is mirrored to."""

    wandb = "wandb"
    csv = "csv"
    tensorboard = "tensorboard"
    none = "none"


class WandbMode(Enum):
    """Whether Weights & Biases is contacted while the run goes on."""

    offline = "offline"
    online = "online"


@dataclass
class Data:
    """One data set: its kind, its reader, its splits and how its items become batches."""

    name: str = MISSING  # the data set's name in records and tables
    kind: TaskType = MISSING
    language: str = MISSING  # ISO code of the language trained on
    reader: dict[str, Any] = MISSING  # `_target_` of a read_… function and its options
    train: Any = MISSING  # a source for the reader (a file), or {language: source}
    validation: Any = MISSING
    test: Any = MISSING  # null: no test
    text: str | None = None  # column of the text
    text_pair: str | None = None  # column of the second text of a pair task
    label: str | None = None  # column of the label
    target: str | None = None  # column of the text to write
    task: dict[str, Any] = field(default_factory=dict)  # options of the task kind
    unseen_labels: UnseenLabels = UnseenLabels.error
    allowed: list[str] = field(default_factory=list)  # rules that `check` tolerates: id or name
    metric: str = MISSING  # headline metric: chooses the checkpoint, heads the table
    batch_size: int = 32  # examples per batch, over all devices
    batching: Batching = Batching.uniform
    batch_tokens: int | None = None  # sub-words per batch, about, in place of batch_size
    max_tokens: int = 128  # sub-words per input
    limit: int | None = None  # use the first N training rows of each language
    shots: int | None = None  # use N training rows of each label and language, drawn by the seed
    further_languages: list[str] = field(default_factory=list)  # trained on as well
    root: str | None = None  # folder of the files of a data set that is named in conf/data
    in_turn: bool = False  # train on one language after another (continual learning)
    sampling_temperature: float = 1.0  # trained together, n rows are drawn with p ∝ n^(1/T)
    languages: dict[str, str] | None = None  # ISO code -> the reader's `name` for that part

    @property
    def train_languages(self) -> list[str]:
        """The languages trained on, the main one first."""
        return [self.language, *self.further_languages]

    @property
    def stages(self) -> list[list[str]]:
        """The languages of each stage of training: one after another, or all in one stage."""
        together = [self.train_languages]
        return [[language] for language in self.train_languages] if self.in_turn else together

    @property
    def trained_on(self) -> str:
        """Name of what is trained on: `es`, `es+zh` together, `es>zh` in turn."""
        return ">".join("+".join(stage) for stage in self.stages)


@dataclass
class Model:
    """One encoder: a hub checkpoint, a local folder, or random weights from a config."""

    name: str = MISSING
    origin: ModelOrigin = MISSING
    path: str | None = None  # origin=local: transformers folder, run folder or study folder
    hub_id: str | None = None  # origin=hub: owner/name
    revision: str | None = None  # origin=hub: commit of the hub repository
    config: dict[str, Any] | None = None  # origin=scratch: `_target_` of a transformers config
    do_lower_case: bool | None = None  # set where the checkpoint's tokenizer does not say it
    tokenizer: TokenizerType = TokenizerType.bpe  # origin=scratch: trained on the training text
    vocab_size: int | None = None  # origin=scratch: at most so many pieces
    extend_vocab: int | None = None  # add the pieces that a vocabulary of this size would have
    learning_rate_scale: float = 1.0  # times a method's default: small encoders take large steps
    decoder: str | None = None  # "same": a decoder begins with the encoder's weights, too
    attention: str = "sdpa"  # attention kernel: sdpa or eager


@dataclass
class Method:
    """One way of fine-tuning."""

    name: str = MISSING
    learning_rate: float = MISSING  # the method's own default
    peft: dict[str, Any] | None = None  # `_target_` of a peft config; null trains every weight
    targets: TargetModules | None = None  # what it adapts, unless peft.target_modules names it
    layers: int = 0  # train so many of the last layers whole, beside the head
    frozen_layers: FrozenLayers = FrozenLayers.train  # mode of those below the lowest trainable one
    language_adapters: Any = None  # madx: {ISO code: run of method=madx_language}
    search: dict[str, list[Any]] = field(default_factory=dict)  # `crosstune tune` tries these, too


@dataclass
class Optimizer:
    """Optimizer and schedule."""

    algorithm: dict[str, Any] = MISSING  # `_target_` of a torch optimizer and its options
    learning_rate: float = MISSING  # peak learning rate
    weight_decay: float = 0.01  # on matrices; biases and norms are never decayed
    schedule: str = "linear"  # a name of transformers.SchedulerType
    warmup_ratio: float = 0.1  # share of all steps with a rising learning rate


@dataclass
class Trainer:
    """The training loop: how long, on what, in which precision."""

    accelerator: str = "auto"
    devices: int = 1
    strategy: str = "auto"
    precision: Precision = Precision.fp32
    max_epochs: int = 3  # 0: evaluate the model as it is
    max_steps: int | None = None  # stop after so many optimizer steps
    accumulate_grad_batches: int = 1
    gradient_clip_val: float | None = 1.0
    accelerate: bool = True  # use crosstune's own speed-ups; false: plain torch and transformers
    compile: bool = False  # the layers, by torch.compile: for GPUs; measured: slower on a CPU
    patience: int | None = None  # epochs without a better headline score before stopping
    log_every_n_steps: int = 10
    checkpoint_every_seconds: float = 60.0  # what a killed run may lose; epochs end with one, too
    stand_in: bool = False  # generated rows in place of the data set's: a rehearsal, no result


@dataclass
class Logger:
    """The mirror of a run; its truth is metrics.jsonl and record.json."""

    tracker: Tracker = Tracker.wandb
    mode: WandbMode = WandbMode.offline
    project: str = "crosstune"


@dataclass
class Run:
    """One run, whole."""

    experiment: str = MISSING  # the study's name
    seed: int = 1
    outputs: str = "outputs"  # root folder of everything written
    retry: bool = False  # try again what failed or diverged, and what other versions finished
    tuned: bool = False  # take the values that `crosstune tune` chose for this study
    allow: list[str] = field(default_factory=list)  # own packages for `_target_`; command line only
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    method: Method = field(default_factory=Method)
    optimizer: Optimizer = field(default_factory=Optimizer)
    trainer: Trainer = field(default_factory=Trainer)
    logger: Logger = field(default_factory=Logger)

"""Laws that every tuning method keeps, whatever the kind of task: a new YAML is held to them too.

The methods are those of `conf/method`. What differs by method stands in literal tables below, so a
new method must say what it trains, whether it starts as the base model, and whether it merges.
"""

import copy
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import pytorch_lightning as pl
import torch
import transformers
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from torch import nn

from crosstune.config.paths import find_conf
from crosstune.config.schema import Data, Method, Model, ModelOrigin, Optimizer, Run, TaskType
from crosstune.config.schema import Trainer as Loop
from crosstune.data.splits import Split
from crosstune.errors import ConfigError, CrosstuneError
from crosstune.logs import silence_libraries
from crosstune.methods import adapt, find_tuning_method
from crosstune.models.architectures import find_layers
from crosstune.models.load import LoadedModel, load_model, save_base_model
from crosstune.tasks import TASKS
from crosstune.training.datamodule import FineTuningData
from crosstune.training.lightning_module import FineTuningModule

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*"),
    pytest.mark.filterwarnings("ignore:Unsupported layer type"),  # LNTuning is made for norms
]

D, F, LAYERS, WORDS, PLACES = 32, 64, 2, 400, 64  # hidden, feed-forward, layers, vocabulary, length
METHODS = sorted(path.stem for path in (find_conf() / "method").glob("*.yaml"))

# ---- what differs by method ----------------------------------------------------------------------


class Shape(NamedTuple):
    """What an encoder, or an encoder and a decoder together, is made of."""

    vectors: int  # of D numbers: embeddings of words, places and kinds
    attentions: int
    halves: int  # feed-forward halves of layers, each after the attentions
    norms: int
    top: int  # numbers of the two uppermost layers


ATTENTION, HALF, NORM = 4 * (D * D + D), (D * F + F) + (F * D + D), 2 * D
ENCODER = Shape(
    WORDS + PLACES + 2, LAYERS, LAYERS, 1 + 2 * LAYERS, 2 * (ATTENTION + HALF + 2 * NORM)
)
BOTH = Shape(  # BART leaves two places of each half unused
    WORDS + 2 * (PLACES + 2),
    3 * LAYERS,
    2 * LAYERS,
    2 + 5 * LAYERS,
    2 * (2 * ATTENTION + HALF + 3 * NORM),
)


def formulas(shape: Shape) -> dict[str, int]:
    """Return how many numbers each method trains beside the head's."""
    inputs = outputs = 4 * D * shape.attentions + (D + F) * shape.halves  # of all matrices
    matrices = 4 * shape.attentions + 2 * shape.halves
    two = 2 * shape.attentions  # queries and values
    norms = NORM * shape.norms
    whole = D * shape.vectors + ATTENTION * shape.attentions + HALF * shape.halves + norms
    language = (2 * 16 * D + 16 + D) * shape.halves + 2 * (2 * 8 * 16 + 8 + 16)
    return {
        "full": whole,
        "head_only": 0,
        "top_layers": shape.top,
        "bitfit": outputs + D * shape.norms,
        "layernorm": norms,
        "lora": 8 * 2 * D * two,
        "rslora": 64 * (inputs + outputs),
        "dora": 16 * (inputs + outputs) + outputs,  # and the length of each output's weights
        "adalora": 12 * (inputs + outputs + matrices),  # and a singular value a rank
        "ia3": 2 * D * shape.attentions + F * shape.halves,
        "vera": (1024 + D) * two,
        "loha": 2 * 8 * 2 * D * two,
        "oft": inputs // 16 * (16 * 15 // 2),  # a skew matrix for each block of inputs
        "fourierft": 1000 * two,
        "prompt_tuning": 20 * D,
        "prefix_tuning": 20 * 2 * LAYERS * D,  # of one half, where there are two
        "p_tuning": 20 * D + 3 * (D * D + D),  # the prompt and an MLP of three layers
        # one after each attention and feed-forward half; and the norms
        "houlsby": (shape.attentions + shape.halves) * (2 * 64 * D + 64 + D) + norms,
        "pfeiffer": (2 * 2 * D + 2 + D) * shape.halves,
        "parallel_adapter": (2 * 64 * D + 64 + D) * shape.halves,
        "madx": (2 * 2 * D + 2 + D) * shape.halves,
        "madx_language": language,  # the layers' adapters and the embeddings'
    }


LINEAR, POOLER = D + 1, D * D + D  # an output's weights and bias; what reads a whole text
HEADS: dict[str, int] = {
    "classification": POOLER + 2 * LINEAR,
    "multilabel": POOLER + 3 * LINEAR,
    "tagging": 3 * LINEAR,
    "crf": 3 * LINEAR + 3 * 3 + 2 * 3,
    "extraction": 2 * LINEAR,
    "relation": POOLER + 2 * LINEAR,
    "regression": POOLER + LINEAR,
    "generation": 0,
    "masked_lm": POOLER + NORM,  # as large as a pooler, and a norm
    "cloze": POOLER + NORM,
    "entailment": 3 * LINEAR,  # it came with its pooler, which is the base's
}
BESIDE: dict[tuple[str, str], int] = {  # what belongs to the base above its layers
    ("masked_lm", "full"): WORDS,
    ("masked_lm", "bitfit"): WORDS,
    ("cloze", "full"): WORDS,
    ("cloze", "bitfit"): WORDS,
    ("entailment", "full"): POOLER,
    ("entailment", "bitfit"): D,
}
BASE_TRAINED: dict[str, Callable[[Any], list[str]]] = {  # modules of the base, beside the head
    "full": lambda model: [name for name, _ in model.named_children()],
    "top_layers": lambda model: find_layers(model)[-2:],
    "layernorm": lambda model: norms_of(model),
    "houlsby": lambda model: norms_of(model),
}
OTHER_AT_START = {"fourierft", "prompt_tuning", "prefix_tuning", "p_tuning"}
OWN_DROPOUT = {"lora", "rslora", "dora", "adalora", "parallel_adapter"}
COPIES = ".ln_tuning_layers.default"  # what peft trains in place of a norm
UNMERGEABLE = {"prompt_tuning", "prefix_tuning", "p_tuning"}
UNMERGEABLE |= {"houlsby", "pfeiffer", "parallel_adapter", "madx", "madx_language"}

# ---- a tiny run of each kind ---------------------------------------------------------------------

TEXTS = (
    "El niño come una manzana",
    "la niña bebe agua fresca",
    "小明喝茶",
    "the film was wonderful",
)
SPANISH = {"templates": {"es": "Trata de {label} ."}, "names": {"es": {"a": "agua", "b": "York"}}}
GAPS = {"patterns": {"es": "{text} : {mask} ."}, "verbalizers": {"es": {"a": "agua", "b": "York"}}}
CELLS: dict[str, tuple[TaskType, dict[str, Any], list[dict[str, Any]]]] = {
    "classification": (TaskType.classification, {}, [{"label": one} for one in "abab"]),
    "multilabel": (
        TaskType.classification,
        {"separator": ","},
        [{"label": one} for one in ("a,b", "", "c", "a")],
    ),
    "tagging": (TaskType.tagging, {}, [{"tags": tags} for tags in ("OBI", "BOO", "OOB", "BIO")]),
    "crf": (
        TaskType.tagging,
        {"crf": True},
        [{"tags": tags} for tags in ("OBI", "BOO", "OOB", "BIO")],
    ),
    "extraction": (
        TaskType.extraction,
        {},
        [{"question": "?", "context": text, "answers": [text.split()[-1]]} for text in TEXTS],
    ),
    "relation": (
        TaskType.relation,
        {},
        [{"head": [0, 1], "tail": [2, 4], "label": one} for one in "abba"],
    ),
    "regression": (TaskType.regression, {}, [{"label": one} for one in ("1", "2.5", "-3", "0")]),
    "generation": (
        TaskType.generation,
        {"max_target_tokens": 8, "beams": 2},
        [{"target": one} for one in ("film", "agua", "una", "New York")],
    ),
    "masked_lm": (TaskType.masked_lm, {"mask_rate": 0.3}, [{}] * 4),
    "cloze": (TaskType.cloze, GAPS, [{"label": one} for one in "abab"]),
    "entailment": (TaskType.entailment, SPANISH, [{"label": one} for one in "abab"]),
}
FEW = ("full", "lora", "bitfit")  # the methods that every kind is tried with at once
AT_ONCE = dict.fromkeys(CELLS, FEW) | {"classification": tuple(METHODS)}
AT_ONCE["tagging"] = (*FEW, "adalora", "houlsby", "madx_language")
AT_ONCE["tagging"] += ("prefix_tuning", "prompt_tuning", "p_tuning")  # which move the places
PAIRS = [(kind, method) for kind, methods in AT_ONCE.items() for method in methods]
REFUSED = [("generation", "head_only"), ("generation", "madx_language")]  # no head, two embeddings
SLOW = [
    (kind, method)
    for kind in CELLS
    for method in METHODS
    if (kind, method) not in [*PAIRS, *REFUSED]
]


def tried(pairs: Iterable[tuple[str, str]]) -> pytest.MarkDecorator:
    """Return the parameters of a law: the pairs that are not tried at once are slow."""
    marked = [pytest.param(*one, marks=[pytest.mark.slow] * (one in SLOW)) for one in pairs]
    return pytest.mark.parametrize(("kind", "method"), marked)


EVERY = [*PAIRS, *SLOW]
every_pair = tried(EVERY)
every_adapter = tried(pair for pair in EVERY if pair[1] != "full")
BERT = {
    "_target_": "transformers.BertConfig",
    "hidden_size": D,
    "intermediate_size": F,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "max_position_embeddings": PLACES,
}
BART = {"_target_": "transformers.BartConfig", "d_model": D, "max_position_embeddings": PLACES}
BART |= {f"{half}_layers": LAYERS for half in ("encoder", "decoder")}
BART |= {f"{half}_attention_heads": 2 for half in ("encoder", "decoder")}
BART |= {f"{half}_ffn_dim": F for half in ("encoder", "decoder")}
NLI = {0: "contradiction", 1: "entailment", 2: "neutral"}


def rows_of(kind: str) -> list[dict[str, Any]]:
    """Return eight rows of a kind."""
    rows = []
    for number, (text, own) in enumerate(zip(TEXTS * 2, CELLS[kind][2] * 2, strict=True)):
        row = {"id": str(number), "where": f"a:{number}", "language": "es", "text": text, **own}
        if "tags" in own:
            tags = [tag if tag == "O" else f"{tag}-PER" for tag in own["tags"]]
            row |= {"words": ["María", "vive", "aquí"], "tags": tags}
        if "answers" in own:
            row["answers"] = [{"text": a, "start": text.index(a)} for a in own["answers"]]
        rows.append(row)
    return rows


class Shop:
    """Makes tiny models of every kind and method, each once."""

    def __init__(self, folder: Path, tokenizer: Any):
        self.folder, self.tokenizer = folder, tokenizer
        self.data, self.base, self.trained = map(cache, (self._data, self._base, self._trained))
        self.fresh = cache(self.adapted)  # to look at, not to change

    def _data(self, kind: str) -> FineTuningData:
        family, options, _ = CELLS[kind]
        rows = rows_of(kind)
        task = TASKS[family].from_rows(rows, **options)
        data = Data(name=kind, kind=family, language="es", batch_size=4, max_tokens=40)
        splits = {name: {"es": Split(rows, {})} for name in ("train", "validation")}
        return FineTuningData(splits, task, self.tokenizer, data, 1, self.folder)

    def _base(self, kind: str) -> LoadedModel:
        torch.manual_seed(0)
        config = BART if kind == "generation" else BERT
        model = Model(name="mini", origin=ModelOrigin.scratch, config=config)
        if kind == "entailment":
            options = {key: value for key, value in BERT.items() if key != "_target_"}
            plain = transformers.BertConfig(vocab_size=len(self.tokenizer), id2label=NLI, **options)
            transformers.BertForSequenceClassification(plain).save_pretrained(self.folder / "nli")
            self.tokenizer.save_pretrained(self.folder / "nli")
            model = Model(name="nli", origin=ModelOrigin.local, path=str(self.folder / "nli"))
        loaded = load_model(model, self.data(kind).task, self.tokenizer, [])
        with torch.no_grad():
            for parameter in loaded.model.parameters():  # no bias or norm is what it began as
                parameter.add_(0.05 * torch.randn_like(parameter))
        if kind == "entailment":
            loaded.model.save_pretrained(self.folder / "nli")
        else:
            save_base_model(loaded.model, model, self.tokenizer, self.folder)
        return loaded

    def adapted(self, kind: str, method: str, dropout: bool = True) -> Any:
        """Return a fresh adapter on a copy of the base."""
        base = self.base(kind)
        model = copy.deepcopy(base.model)
        for module in model.modules():
            if isinstance(module, nn.Dropout) and not dropout:
                module.p = 0.0
        torch.manual_seed(1)
        chosen = method_of(method)
        return adapt(
            LoadedModel(model, list(base.head)), chosen, self.data(kind).task.peft_type, []
        )

    def fit(self, kind: str, model: Any) -> pl.Trainer:
        """Train three steps as a run does."""
        algorithm = {"_target_": "torch.optim.AdamW"}
        optimizer = Optimizer(algorithm=algorithm, learning_rate=1e-3, schedule="constant")
        data = self.data(kind)
        run = Run(data=data.data, optimizer=optimizer, trainer=Loop(log_every_n_steps=1))
        learner = FineTuningModule(model, data.task, data, run)
        options = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}
        options |= {"enable_progress_bar": False, "enable_model_summary": False}
        trainer = pl.Trainer(
            max_steps=3,
            limit_val_batches=0,
            callbacks=find_tuning_method(model).callbacks(SimpleNamespace(score=0.0)),
            **options,
        )
        with silence_libraries():
            trainer.fit(learner, data)
        return trainer

    def _trained(self, kind: str, method: str) -> "Trained":
        model = self.adapted(kind, method)
        agreed = holds_what_is_trainable(self.fit(kind, model), model)
        find_tuning_method(model).finish()
        folder = self.folder / f"{kind}-{method}"
        model.save_pretrained(folder)
        return Trained(model.eval(), folder, agreed)

    def batch(self, kind: str) -> dict[str, Any]:
        """Return the batch that models are asked about."""
        data = self.data(kind)
        encoded = data.encoded["validation"]["es"]
        batch = data.task.collate(encoded, list(range(4)), self.tokenizer, (0, 0))
        return {**batch, "windows": list(range(4))}

    def says(self, kind: str, model: Any) -> Any:
        """Return all that a model says of the batch: the loss and what is read off."""
        task, batch = self.data(kind).task, self.batch(kind)
        with torch.no_grad():
            total, count = task.loss(model.eval(), batch)
            return total.item(), int(count), task.predict_batch(model, batch)


class Trained(NamedTuple):
    """A model after three steps, and where it was saved."""

    model: Any
    folder: Path
    optimizer_holds_what_is_trainable: bool


@pytest.fixture(scope="module")
def shop(tmp_path_factory, byte_bpe):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Shop(tmp_path_factory.mktemp("laws"), byte_bpe)
    torch.set_num_threads(threads)


@cache
def method_of(name: str) -> Method:
    """Return what a file says, without the rest of a run."""
    said = OmegaConf.load(find_conf() / "method" / f"{name}.yaml")
    method: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Method), said))
    return method


def plain(name: str) -> tuple[str, str]:
    """Return the names that a weight may have had before: prompts add one prefix less."""
    for inner in (".base_layer", ".original_module", ".modules_to_save.default", COPIES):
        name = name.replace(inner, "")
    return name.removeprefix("base_model.model."), name.removeprefix("base_model.")


def changed(base: nn.Module, model: nn.Module) -> list[str]:
    """Return the base's weights and buffers that are gone or other in an adapted model."""
    now = {
        before: tensor
        for name, tensor in model.state_dict().items()
        if ".modules_to_save." not in name and COPIES not in name
        for before in plain(name)
    }
    was = base.state_dict()
    return [n for n, t in was.items() if n not in now or not torch.equal(t, now[n])]


def norms_of(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, nn.LayerNorm)]


def belongs(name: str, modules: list[str]) -> bool:
    return any(name.startswith(f"{module}.") for module in modules)


def said_by(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return all the scores that a model gives, in one row."""
    with torch.no_grad():
        found = model.eval()(**inputs)
        scores = [found[name] for name in ("logits", "start_logits", "end_logits") if name in found]
        if hasattr(model, "crf"):
            scores += model.crf(scores[0])
        return torch.cat([one.flatten() for one in scores])


def scores(shop: Shop, kind: str, model: Any) -> torch.Tensor:
    return said_by(model, asked(shop, kind))


def asked(shop: Shop, kind: str) -> dict[str, torch.Tensor]:
    """Return a batch as a model takes it; a decoder reads what it is to write."""
    batch, base = shop.batch(kind), shop.base(kind).model
    if kind != "generation":
        return batch["inputs"]
    written = base.prepare_decoder_input_ids_from_labels(batch["labels"])
    return {**batch["inputs"], "decoder_input_ids": written}


# ---- the laws ------------------------------------------------------------------------------------


def test_the_tables_name_every_method_and_kind():
    assert set(formulas(ENCODER)) == set(METHODS)
    assert set(HEADS) == set(CELLS)


@every_pair
def test_a_fresh_adapter_is_the_base_model_to_the_last_bit_where_the_method_says_so(
    shop, kind, method
):
    same = shop.says(kind, shop.fresh(kind, method)) == shop.says(kind, shop.base(kind).model)
    assert same == (method not in OTHER_AT_START)


def test_an_adapter_that_starts_elsewhere_would_show(shop):
    model = shop.adapted("classification", "lora")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(1e-4)
    base = shop.base("classification").model
    assert shop.says("classification", model) != shop.says("classification", base)


@pytest.mark.parametrize(("kind", "method"), REFUSED)
def test_a_method_without_a_place_in_a_kind_is_refused(shop, kind, method):
    with pytest.raises(ConfigError):
        shop.adapted(kind, method)


@every_pair
def test_training_leaves_the_base_as_it_was(shop, kind, method):
    base, model = shop.base(kind).model, shop.trained(kind, method).model
    assert bool(changed(base, model)) == (method == "full")


def test_a_base_weight_that_is_trained_would_show(shop):
    model = shop.adapted("classification", "lora")
    bias = model.base_model.model.bert.embeddings.LayerNorm.bias
    bias.requires_grad_(True)
    shop.fit("classification", model)
    assert changed(shop.base("classification").model, model) == ["bert.embeddings.LayerNorm.bias"]


@every_pair
def test_training_changes_what_the_model_says(shop, kind, method):
    fresh, trained = shop.fresh(kind, method), shop.trained(kind, method).model
    assert shop.says(kind, fresh) != shop.says(kind, trained)


@every_pair
def test_the_trained_base_weights_are_the_head_and_what_the_table_says(shop, kind, method):
    base, model = shop.base(kind), shop.fresh(kind, method)
    whole = [*base.head, *BASE_TRAINED.get(method, lambda model: [])(base.model)]
    names = {name for name, p in base.model.named_parameters() if p.requires_grad}
    trained = {one for n, p in model.named_parameters() if p.requires_grad for one in plain(n)}
    assert trained & names == {name for name in names if belongs(name, whole)}


@every_pair
def test_the_number_of_trained_parameters_is_the_closed_formula(shop, kind, method):
    shape = BOTH if kind == "generation" else ENCODER
    expected = formulas(shape)[method] + HEADS[kind] + BESIDE.get((kind, method), 0)
    assert count_trained(shop.fresh(kind, method)) == expected


def test_a_bias_too_many_would_show_in_the_number(shop):
    model = shop.adapted("classification", "lora")
    model.base_model.model.bert.embeddings.LayerNorm.bias.requires_grad_(True)
    expected = formulas(ENCODER)["lora"] + HEADS["classification"]
    assert count_trained(model) == expected + D


def count_trained(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@every_pair
def test_the_optimizer_holds_what_is_trainable_and_nothing_else(shop, kind, method):
    assert shop.trained(kind, method).optimizer_holds_what_is_trainable


def test_a_weight_that_no_optimizer_holds_would_show(shop):
    model = shop.adapted("classification", "lora")
    trainer = shop.fit("classification", model)
    model.base_model.model.bert.embeddings.LayerNorm.bias.requires_grad_(True)
    assert not holds_what_is_trainable(trainer, model)


@pytest.mark.parametrize("method", sorted({"ia3", "adalora", "lora", "dora", "vera", "full"}))
def test_what_scales_is_not_decayed(shop, method):
    model = shop.adapted("classification", method)
    assert decayed_scales(shop.fit("classification", model), model) == []


def test_a_scale_that_is_decayed_would_show(shop):
    model = shop.adapted("classification", "ia3")
    trainer = shop.fit("classification", model)
    for group in trainer.optimizers[0].param_groups:
        group["weight_decay"] = 0.01
    assert decayed_scales(trainer, model)


def decayed_scales(trainer: pl.Trainer, model: nn.Module) -> list[str]:
    """Return the parameters that weight decay pulls to 0 and that are vectors, whatever shape."""
    groups = trainer.optimizers[0].param_groups
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    return [
        name
        for name, parameter in model.named_parameters()
        if id(parameter) in decayed and parameter.squeeze().ndim < 2
    ]


def holds_what_is_trainable(trainer: pl.Trainer, model: nn.Module) -> bool:
    """Say whether the optimizer holds all that is trainable and nothing else."""
    trainable = {id(p) for p in model.parameters() if p.requires_grad}
    held = {id(p) for o in trainer.optimizers for g in o.param_groups for p in g["params"]}
    return held == trainable


@pytest.mark.parametrize("method", METHODS)
def test_dropout_of_the_base_is_on_while_a_method_trains(shop, method):
    assert not passes_agree(shop, shop.fresh("classification", method))


@pytest.mark.parametrize("method", METHODS)
def test_a_method_drops_what_its_table_says(shop, method):
    model = shop.adapted("classification", method, dropout=False)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "original" not in name:
                parameter.add_(0.02 * torch.randn_like(parameter))
    assert passes_agree(shop, model) == (method not in OWN_DROPOUT)
    model.eval()
    first = shop.says("classification", model)
    assert first == shop.says("classification", model)


def passes_agree(shop: Shop, model: Any) -> bool:
    """Say whether two passes in training mode give the same."""
    batch = shop.batch("classification")
    with torch.no_grad():
        first, second = (model.train()(**batch["inputs"]).logits for _ in range(2))
    return torch.equal(first, second)


@every_adapter
def test_the_saved_folder_holds_no_weight_of_the_base(shop, kind, method):
    assert base_weights_in(load_file(adapter_file(shop, kind, method)), shop, kind, method) == []


def test_a_weight_of_the_base_in_the_saved_folder_would_show(shop):
    base = shop.base("tagging").model
    for method in ("lora", "houlsby"):
        saved = load_file(adapter_file(shop, "tagging", method))
        saved["base_model.model.bert.embeddings.LayerNorm.bias"] = (
            base.bert.embeddings.LayerNorm.bias
        )
        assert base_weights_in(saved, shop, "tagging", method)


def base_weights_in(saved: dict[str, Any], shop: Shop, kind: str, method: str) -> list[str]:
    """Return the weights of the base, as it has them, among those that a method saved."""
    base = shop.base(kind)
    names = {name for name, _ in base.model.named_parameters() if not belongs(name, base.head)}
    whole = {before for name in saved for before in plain(name)} & names
    if method not in BASE_TRAINED:
        return sorted(whole)
    # these save what they trained, under its own name
    frozen = {name: base.model.get_parameter(name) for name in whole}
    return [n for n, p in frozen.items() for t in saved.values() if torch.equal(p, t)]


def adapter_file(shop: Shop, kind: str, method: str) -> Path:
    return shop.trained(kind, method).folder / "adapter_model.safetensors"


@every_adapter
def test_merging_keeps_what_the_model_says_or_is_refused(shop, kind, method):
    model = copy.deepcopy(shop.trained(kind, method).model)
    if method in UNMERGEABLE:
        with pytest.raises((AttributeError, TypeError, ValueError, CrosstuneError)):
            model.merge_adapter()
    else:
        before = scores(shop, kind, model)
        model.merge_adapter()
        torch.testing.assert_close(scores(shop, kind, model), before, atol=1e-5, rtol=0)


def test_an_adapter_that_is_left_out_of_the_merge_would_show(shop):
    model = copy.deepcopy(shop.trained("tagging", "lora").model)
    before = scores(shop, "tagging", model)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(
            scores(shop, "tagging", model.unload()), before, atol=1e-5, rtol=0
        )


# ---- what a new process reads --------------------------------------------------------------------

READ = """
import json, sys, warnings
from pathlib import Path
from typing import Any
warnings.simplefilter("error")
warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*")
warnings.filterwarnings("ignore", "The following rank_pattern keys")  # peft reads them as LoRA's
warnings.filterwarnings("ignore", "Unsupported layer type")
import torch, transformers
from safetensors.torch import load_file
from peft import PeftModel
from crosstune.methods.prompts import install_prompt_hooks
from crosstune.tasks.crf import Transitions
"""
READ += inspect.getsource(said_by)
READ += """
found = {}
torch.set_num_threads(1)
for name, auto, base, folder, sizes in json.loads(Path(sys.argv[1]).read_text()):
    kept = load_file(f"{folder}/asked.safetensors")
    said = kept.pop("said")
    auto = getattr(transformers, auto)
    if base is None:
        model = auto.from_pretrained(folder)
        if "crf" in sizes:  # no class of transformers has one
            model.crf = Transitions(model.num_labels)
            model.load_state_dict(load_file(f"{folder}/model.safetensors"))
    else:
        model = auto.from_pretrained(base)
        if "crf" in sizes:
            model.crf = Transitions(model.num_labels)
        with torch.no_grad():
            for own in sizes:
                for parameter in model.get_submodule(own).parameters():
                    parameter.normal_()
        model = install_prompt_hooks(PeftModel.from_pretrained(model, folder))
    with torch.no_grad():
        found[name] = (said_by(model, kept) - said).abs().max().item()
print(json.dumps(found))
"""


def read_in_a_new_process(
    shop: Shop, pairs: list[tuple[str, str]], spoil: Callable[[Path], None]
) -> dict[str, float]:
    """Return, by kind and method, how far a saved model is from what it said before."""
    cases = []
    for kind, method in pairs:
        base, trained = shop.base(kind), shop.trained(kind, method)
        said = {"said": scores(shop, kind, trained.model)}
        kept = {key: tensor.contiguous() for key, tensor in asked(shop, kind).items()}
        save_file(kept | said, trained.folder / "asked.safetensors")
        spoil(trained.folder)
        where = None if method == "full" else base.model.name_or_path
        auto = shop.data(kind).task.auto_class
        cases.append([f"{kind}-{method}", auto, where, str(trained.folder), base.head])
    plan = shop.folder / "cases.json"
    plan.write_text(json.dumps(cases))
    done = subprocess.run(
        [sys.executable, "-c", READ, str(plan)],
        capture_output=True,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "pairs",
    [
        pytest.param(PAIRS, id="at_once"),
        pytest.param(EVERY, id="all", marks=pytest.mark.slow),
    ],
)
def test_a_new_process_reads_every_method_to_the_last_bit_on_a_base_with_another_head(shop, pairs):
    wrong = shop.trained("tagging", "lora").folder

    def spoil(folder: Path) -> None:
        """Move one trained number of one case: the control."""
        if folder == wrong:
            saved = load_file(folder / "adapter_model.safetensors")
            name = next(name for name in saved if "lora_B" in name)
            saved[name][0, 0] += 0.1
            save_file(saved, folder / "adapter_model.safetensors")

    found = read_in_a_new_process(shop, pairs, spoil)
    assert len(found) == len(pairs)
    assert {case for case, gap in found.items() if gap} == {"tagging-lora"}

"""BitFit against closed formulas, the untouched base model and BitFit made by hand."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import transformers
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from peft import mapping as mappings
from peft.utils import PeftType
from safetensors.torch import load_file, save_file
from torch import nn

from crosstune.errors import ConfigError, RunError
from crosstune.methods.bitfit import BitFitConfig, BitFitLayer, BitFitModel
from crosstune.methods.tuning_method import register

# peft asks transformers by the old name of the property
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

HIDDEN, INNER, LAYERS, VOCABULARY, CLASSES, EMBEDDING = 32, 64, 2, 50, 3, 16
SIZES = {"vocab_size": VOCABULARY, "max_position_embeddings": 40, "num_labels": CLASSES}
DISTILBERT = {"dim": HIDDEN, "hidden_dim": INNER, "n_layers": LAYERS, "n_heads": 2}
BERT = {
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
}
FAMILIES = {
    "Bert": BERT,
    "Roberta": BERT,
    "XLMRoberta": BERT,
    "Electra": BERT | {"embedding_size": EMBEDDING},
    "DistilBert": DISTILBERT,
}
TASKS = {"SequenceClassification": "SEQ_CLS", "TokenClassification": "TOKEN_CLS", "MaskedLM": None}
CASES = [(family, task) for family in FAMILIES for task in TASKS]
INPUT = torch.arange(36).view(3, 12) % 45 + 3


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Models this small run many times faster on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


every_case = pytest.mark.parametrize("case", CASES, ids="-".join)


class Trained(NamedTuple):
    """A model after three steps, what it was before, and the folder it was saved in."""

    model: PeftModel
    base: nn.Module
    folder: Path


def build(case: tuple[str, str]) -> transformers.PreTrainedModel:
    """A tiny model whose biases and normalisations are not the zeros and ones of the start."""
    family, task = case
    config = getattr(transformers, f"{family}Config")(**SIZES, **FAMILIES[family])
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}For{task}")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def adapt(model: nn.Module, task: str, **options) -> PeftModel:
    return get_peft_model(model, BitFitConfig(task_type=TASKS[task], **options)).eval()


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=INPUT).logits


def train(model: nn.Module, steps: int = 3) -> list[float]:
    """Train with dropout on fixed targets; return the losses."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=1e-3, weight_decay=0.0)
    losses = []
    for step in range(steps):
        torch.manual_seed(step)
        output = model.train()(input_ids=INPUT).logits.flatten(0, -2)
        loss = nn.functional.cross_entropy(output, torch.arange(len(output)) % CLASSES)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def count_trainable(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def frozen_values(model: nn.Module) -> dict[str, torch.Tensor]:
    """The base model's own parameters under the names they had before adaptation."""
    names = {
        name.removeprefix("base_model.model.")
        .replace(".base_layer", "")
        .replace(".original_module", ""): parameter
        for name, parameter in model.named_parameters()
        if ".bitfit_delta." not in name and ".modules_to_save." not in name
    }
    return {name: parameter.detach().clone() for name, parameter in names.items()}


def same_values(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> dict[tuple[str, str], Trained]:
    root = tmp_path_factory.mktemp("bitfit")
    results = {}
    for case in CASES:
        base, folder = build(case), root / "-".join(case)
        base.save_pretrained(folder / "base")
        model = adapt(copy.deepcopy(base), case[1])
        train(model)
        model.eval().save_pretrained(folder / "adapter")
        results[case] = Trained(model, base, folder)
    return results


# ---- what is trained -----------------------------------------------------------------------------


def trained_by_formula(family: str, task: str) -> int:
    """Per layer: four projections, the inner and outer one, two normalisations; then the ends."""
    layers = LAYERS * (7 * HIDDEN + INNER)
    embeddings = EMBEDDING + HIDDEN if family == "Electra" else HIDDEN
    width = EMBEDDING if family == "Electra" else HIDDEN
    classifier = HIDDEN * CLASSES + CLASSES
    dense = HIDDEN if family == "Bert" else HIDDEN * HIDDEN + HIDDEN
    ends = {
        "SequenceClassification": dense + classifier,
        "TokenClassification": classifier,
        "MaskedLM": 2 * width + VOCABULARY,
    }
    return layers + embeddings + ends[task]


@every_case
def test_a_fresh_adapter_is_the_base_model_to_the_last_bit(case):
    base = build(case)
    before = logits(base)
    assert torch.equal(logits(adapt(base, case[1])), before)


@every_case
def test_the_number_of_trained_parameters_is_the_closed_formula(trained, case):
    assert count_trainable(trained[case].model) == trained_by_formula(*case)


@pytest.mark.parametrize(("layers", "width", "biases"), [(12, 768, 102_912), (24, 1024, 272_384)])
def test_bert_base_and_large_train_under_a_thousandth_as_published(layers, width, biases):
    config = transformers.BertConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
    )
    with torch.device("meta"):
        model = transformers.BertModel(config)
    total = sum(parameter.numel() for parameter in model.parameters())
    adapted = get_peft_model(model, BitFitConfig())
    assert count_trainable(adapted) == biases
    assert 0.0008 < biases / total < 0.00095


@every_case
def test_training_leaves_every_base_parameter_as_it_was(trained, case):
    assert same_values(frozen_values(trained[case].model), frozen_values(trained[case].base))


def test_a_weight_left_trainable_would_show():
    base = build(CASES[0])
    before = frozen_values(base)
    model = adapt(base, CASES[0][1])
    model.get_input_embeddings().weight.requires_grad_(True)
    train(model)
    assert not same_values(frozen_values(model), before)


@every_case
def test_every_trained_parameter_gets_a_gradient(trained, case):
    model = trained[case].model
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


def train_by_hand(case: tuple[str, str], leave_out: str = "nothing") -> list[float]:
    """BitFit as a loop over the base model's own parameters."""
    model = build(case)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.endswith(".bias") and leave_out not in name)
        if "classifier" in name:
            parameter.requires_grad_(True)
    return train(model, steps=5)


@every_case
def test_losses_equal_those_of_training_the_base_biases(case):
    losses = train(adapt(build(case), case[1]), steps=5)
    assert losses == pytest.approx(train_by_hand(case), abs=1e-6, rel=0)


def test_losses_differ_without_the_normalisation_biases():
    losses = train(adapt(build(CASES[0]), CASES[0][1]), steps=5)
    assert losses != pytest.approx(train_by_hand(CASES[0], "LayerNorm"), abs=1e-5, rel=0)


def test_modules_to_save_are_trained_whole_and_keep_their_plain_layers():
    model = adapt(build(CASES[0]), CASES[0][1], modules_to_save=["classifier", "bert.pooler"])
    pooler = model.get_submodule("base_model.model.bert.pooler.modules_to_save.default")
    assert type(pooler.dense) is nn.Linear
    assert pooler.dense.weight.requires_grad


def test_target_modules_choose_layers_by_the_end_of_their_name():
    model = adapt(build(CASES[0]), CASES[0][1], target_modules=["query", "LayerNorm"])
    adapted = [name for name, module in model.named_modules() if isinstance(module, BitFitLayer)]
    assert len(adapted) == LAYERS * 3 + 1
    assert {name.rpartition(".")[2] for name in adapted} == {"query", "LayerNorm"}


@pytest.mark.parametrize(
    ("family", "kept"), [("Bert", ["classifier"]), ("DistilBert", ["classifier", "pre_classifier"])]
)
def test_named_targets_spare_the_modules_that_peft_saves_whole(family, kept):
    task = "TokenClassification" if family == "Bert" else "SequenceClassification"
    model = adapt(build((family, task)), task, target_modules=r".*(query|q_lin|classifier)")
    adapted = {n.rpartition(".")[2] for n, m in model.named_modules() if isinstance(m, BitFitLayer)}
    assert adapted.isdisjoint(kept)
    assert len(adapted) == 1


def test_question_answering_trains_its_head_whole():
    config = transformers.BertConfig(**SIZES | {"num_labels": 2}, **BERT)
    model = transformers.BertForQuestionAnswering(config)
    adapted = get_peft_model(model, BitFitConfig(task_type="QUESTION_ANS"))
    assert count_trainable(adapted) == LAYERS * (7 * HIDDEN + INNER) + HIDDEN + 2 * HIDDEN + 2


# ---- saved and loaded ----------------------------------------------------------------------------

RELOAD = """
import sys
from pathlib import Path
import torch, transformers
from peft import PeftConfig, PeftModel

torch.set_num_threads(1)
root = Path(sys.argv[1])
folders = sorted(path for path in root.iterdir() if path.is_dir())
try:
    PeftConfig.from_pretrained(folders[0] / "adapter")
except KeyError as error:
    (root / "unknown.txt").write_text(str(error))
import crosstune.methods.bitfit

for folder in folders:
    family, task = folder.name.split("-")
    base = getattr(transformers, f"{family}For{task}").from_pretrained(folder / "base")
    with torch.no_grad():
        for name, parameter in base.named_parameters():
            if "classifier" in name:
                parameter.add_(1)
    model = PeftModel.from_pretrained(base, folder / "adapter", adapter_name="other").eval()
    with torch.no_grad():
        logits = model(input_ids=torch.arange(36).view(3, 12) % 45 + 3).logits
    torch.save(logits, folder / "logits.pt")
"""


@pytest.fixture(scope="module")
def reloaded(trained) -> Path:
    """The folder in which a new process wrote each reloaded model's logits."""
    root = next(iter(trained.values())).folder.parent
    command = [sys.executable, "-c", RELOAD, str(root)]
    subprocess.run(command, check=True, capture_output=True)
    return root


@pytest.mark.slow  # test_laws.py has one process for all methods
@every_case
def test_a_new_process_reloads_adapter_and_head_to_the_last_bit(trained, reloaded, case):
    expected = logits(trained[case].model)
    assert torch.equal(torch.load(reloaded / "-".join(case) / "logits.pt"), expected)
    assert not torch.equal(expected, logits(trained[case].base))


@pytest.mark.slow
def test_without_the_import_peft_does_not_know_the_method(reloaded):
    assert "BITFIT" in (reloaded / "unknown.txt").read_text()


@every_case
def test_the_folder_holds_the_trained_numbers_and_no_others(trained, case):
    saved = load_file(trained[case].folder / "adapter" / "adapter_model.safetensors")
    assert sum(tensor.numel() for tensor in saved.values()) == trained_by_formula(*case)
    assert all(".bitfit_delta" in key or "classifier." in key for key in saved)


@every_case
def test_loading_under_another_name_misses_no_key_and_gives_the_same_logits(trained, case):
    model = adapt(copy.deepcopy(trained[case].base), case[1])
    result = model.load_adapter(trained[case].folder / "adapter", "second")
    assert (result.missing_keys, result.unexpected_keys) == ([], [])
    model.set_adapter("second")
    assert torch.equal(logits(model), logits(trained[case].model))


def test_a_bias_lost_from_the_file_shows_as_a_missing_key(trained, tmp_path):
    case = CASES[0]
    source = trained[case].folder / "adapter"
    saved = load_file(source / "adapter_model.safetensors")
    lost = next(key for key in saved if key.endswith("bitfit_delta"))
    del saved[lost]
    save_file(saved, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_bytes((source / "adapter_config.json").read_bytes())
    model = adapt(build(case), case[1])
    assert model.load_adapter(tmp_path, "second").missing_keys == [f"{lost}.second"]


def test_loading_without_initial_memory_gives_the_same_logits(trained):
    case = CASES[0]
    folder = trained[case].folder / "adapter"
    model = PeftModel.from_pretrained(build(case), folder, low_cpu_mem_usage=True)
    assert torch.equal(logits(model), logits(trained[case].model))


# ---- merged, unloaded, disabled ------------------------------------------------------------------


@every_case
def test_a_merged_model_is_plain_and_gives_the_same_logits(trained, case):
    expected = logits(trained[case].model)
    merged = copy.deepcopy(trained[case].model).merge_and_unload()
    assert frozen_values(merged).keys() == frozen_values(trained[case].base).keys()
    torch.testing.assert_close(logits(merged), expected, atol=1e-6, rtol=0)


@every_case
def test_a_merged_bias_is_exactly_base_plus_change(trained, case):
    model = copy.deepcopy(trained[case].model)
    expected = {
        name: module.bias + module.bitfit_delta["default"]
        for name, module in model.named_modules()
        if isinstance(module, BitFitLayer)
    }
    model.merge_adapter()
    assert same_values({name: model.get_submodule(name).bias for name in expected}, expected)


@every_case
def test_merging_in_place_adds_each_change_once(trained, case):
    model = copy.deepcopy(trained[case].model)
    model.merge_adapter()
    torch.testing.assert_close(logits(model), logits(trained[case].model), atol=1e-6, rtol=0)


@every_case
def test_unload_returns_the_base_parameters_and_the_trained_head(trained, case):
    model = copy.deepcopy(trained[case].model)
    head = {
        name.removeprefix("base_model.model.").replace(".modules_to_save.default", ""): parameter
        for name, parameter in model.named_parameters()
        if ".modules_to_save.default." in name
    }
    expected = frozen_values(trained[case].base) | head
    assert same_values(frozen_values(model.unload()), expected)


@every_case
def test_a_disabled_adapter_is_the_base_model_even_after_merging(trained, case):
    model = copy.deepcopy(trained[case].model)
    model.merge_adapter()
    with model.disable_adapter():
        assert torch.equal(logits(model), logits(trained[case].base))
    assert torch.equal(logits(model), logits(trained[case].model))


def test_subtracting_the_change_again_would_not_restore_the_bias(trained):
    for module in trained[CASES[0]].model.modules():
        if isinstance(module, BitFitLayer):
            delta = module.bitfit_delta["default"]
            if not torch.equal(module.bias + delta - delta, module.bias):
                return
    pytest.fail("no bias lost a bit")


def test_a_safe_merge_refuses_a_bias_that_is_not_finite(trained):
    model = copy.deepcopy(trained[CASES[0]].model)
    layer = next(module for module in model.modules() if isinstance(module, BitFitLayer))
    with torch.no_grad():
        layer.bitfit_delta["default"][0] = torch.nan
    with pytest.raises(RunError, match="default is not merged"):
        model.merge_adapter(safe_merge=True)


def test_a_half_precision_base_keeps_its_type_and_its_logits():
    base = build(CASES[0]).bfloat16()
    before = logits(base)
    after = logits(adapt(base, CASES[0][1]))
    assert after.dtype == torch.bfloat16
    assert torch.equal(after, before)


# ---- the tied output bias of masked language models ----------------------------------------------

TIED = ["Bert", "Roberta", "XLMRoberta"]


def output_biases(model: nn.Module) -> tuple[nn.Parameter, nn.Parameter]:
    head = model.cls.predictions if hasattr(model, "cls") else model.lm_head
    return head.bias, head.decoder.bias


@pytest.mark.parametrize("family", TIED)
def test_merging_keeps_the_output_bias_tied(trained, family):
    merged = copy.deepcopy(trained[family, "MaskedLM"].model).merge_and_unload()
    first, second = output_biases(merged)
    assert first is second
    assert not torch.equal(first, output_biases(trained[family, "MaskedLM"].base)[0])


@pytest.mark.parametrize("family", TIED)
def test_a_merged_model_reloads_by_transformers_alone(trained, family, tmp_path):
    merged = copy.deepcopy(trained[family, "MaskedLM"].model).merge_and_unload()
    merged.save_pretrained(tmp_path)
    assert torch.equal(logits(type(merged).from_pretrained(tmp_path)), logits(merged))


# ---- several adapters ----------------------------------------------------------------------------


def test_training_a_second_adapter_leaves_the_first_as_it_was(trained):
    case = ("Bert", "SequenceClassification")
    model = copy.deepcopy(trained[case].model)
    model.add_adapter("second", BitFitConfig(task_type="SEQ_CLS"))
    model.set_adapter("second")
    train(model, steps=1)
    second = logits(model)
    model.set_adapter("default")
    assert torch.equal(logits(model), logits(trained[case].model))
    assert not torch.equal(second, logits(model))


@every_case
def test_a_second_adapter_trains_what_the_first_trained(trained, case):
    model = copy.deepcopy(trained[case].model)
    model.add_adapter("second", BitFitConfig(task_type=TASKS[case[1]]))
    model.set_adapter("second")
    assert count_trainable(model) == trained_by_formula(*case)


def test_two_active_adapters_add_up_and_merge(trained):
    case = ("Bert", "MaskedLM")
    model = copy.deepcopy(trained[case].model)
    model.load_adapter(trained[case].folder / "adapter", "second")
    model.base_model.set_adapter(["default", "second"])
    both = logits(model)
    assert not torch.allclose(both, logits(trained[case].model), atol=1e-5)
    merged = model.merge_and_unload()
    torch.testing.assert_close(logits(merged), both, atol=1e-6, rtol=0)


def test_deleting_an_adapter_leaves_the_other():
    model = adapt(build(("Bert", "MaskedLM")), "MaskedLM")
    model.add_adapter("second", BitFitConfig())
    model.set_adapter("second")
    model.delete_adapter("default")
    assert not any(".default" in name for name in model.state_dict())
    assert any(".second" in name for name in model.state_dict())


def test_adapters_with_other_modules_to_save_are_refused():
    model = adapt(build(CASES[0]), CASES[0][1])
    with pytest.raises(ConfigError, match="must have the same modules_to_save"):
        model.add_adapter("second", BitFitConfig(modules_to_save=["pooler"]))


# ---- what is refused -----------------------------------------------------------------------------


def test_a_model_without_biases_outside_its_head_is_refused():
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2))
    with pytest.raises(ConfigError, match="Sequential has none outside its head"):
        get_peft_model(net, BitFitConfig(modules_to_save=["1"]))


def test_a_bias_of_another_kind_of_layer_is_refused_by_name():
    net = nn.Sequential(nn.Linear(2, 2), nn.Conv1d(2, 2, 1), nn.MultiheadAttention(2, 1))
    with pytest.raises(ConfigError, match=r"1\.bias, 2\.in_proj_bias"):
        get_peft_model(net, BitFitConfig())


def test_a_head_that_is_saved_whole_may_hold_any_bias():
    net = nn.Sequential(nn.Linear(2, 2), nn.Conv1d(2, 2, 1))
    adapted = get_peft_model(net, BitFitConfig(modules_to_save=["1"]))
    assert count_trainable(adapted) == 2 + (2 * 2 + 2)


def test_a_bias_that_two_layers_share_is_refused():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[1].bias = net[0].bias
    with pytest.raises(ConfigError, match="1 and 0 share one bias"):
        get_peft_model(net, BitFitConfig())


def test_a_named_layer_without_a_bias_is_refused():
    with pytest.raises(ConfigError, match="cannot train word_embeddings, a Embedding"):
        adapt(build(CASES[0]), CASES[0][1], target_modules=["word_embeddings"])


# ---- registration --------------------------------------------------------------------------------


def test_registering_the_same_method_again_changes_nothing():
    register(BitFitConfig, BitFitModel)
    assert [kind.value for kind in PeftType].count("BITFIT") == 1


def test_a_name_that_peft_holds_is_refused():
    foreign = type("Foreign", (BitFitModel,), {"prefix": "lora_"})
    with pytest.raises(ConfigError, match=r"name lora .* is taken .* by peft\.tuners\.lora"):
        register(BitFitConfig, foreign)


def test_a_name_that_peft_lists_without_a_method_is_refused(monkeypatch):
    monkeypatch.delitem(mappings.PEFT_TYPE_TO_CONFIG_MAPPING, PeftType["BITFIT"])
    with pytest.raises(ConfigError, match=r"name bitfit .* is taken in the installed peft"):
        register(BitFitConfig, BitFitModel)


def test_the_same_class_of_a_reloaded_module_takes_the_place_of_the_earlier(monkeypatch):
    again = type("BitFitConfig", (BitFitConfig,), {"__module__": BitFitConfig.__module__})
    for mapping in (mappings.PEFT_TYPE_TO_CONFIG_MAPPING, mappings.PEFT_TYPE_TO_TUNER_MAPPING):
        monkeypatch.setitem(mapping, PeftType["BITFIT"], mapping[PeftType["BITFIT"]])
    register(again, BitFitModel)
    assert mappings.PEFT_TYPE_TO_CONFIG_MAPPING[PeftType["BITFIT"]] is again


def test_a_config_survives_pickle_and_disk(tmp_path):
    config = BitFitConfig(target_modules=["query"], modules_to_save=["classifier"])
    config.save_pretrained(tmp_path)
    assert pickle.loads(pickle.dumps(config)) == config  # noqa: S301 - our own bytes
    assert PeftConfig.from_pretrained(tmp_path) == config


def test_the_methods_of_peft_still_work_beside_ours():
    model = get_peft_model(build(CASES[0]), LoraConfig(task_type="SEQ_CLS", r=1))
    assert count_trainable(model) > 0

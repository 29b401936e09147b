"""MAD-X: the invertible adapter, languages below a task, and what stays frozen."""

import copy
import logging
from pathlib import Path

import pytest
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.functional import relu

from crosstune.errors import ConfigError
from crosstune.methods import find_tuning_method
from crosstune.methods.bottleneck import (
    AroundNorm,
    BottleneckConfig,
    BottleneckLayer,
    InvertibleAdapter,
)
from crosstune.methods.madx import (
    list_language_adapters,
    load_language_adapters,
)

# peft asks transformers by the old name of the property
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

D, LAYERS, VOCABULARY, EMBEDDING = 32, 2, 50, 18
SIZES = {"vocab_size": VOCABULARY, "max_position_embeddings": 40, "num_labels": 3}
BERT = {
    "hidden_size": D,
    "intermediate_size": 64,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
}
FAMILIES = {
    "Bert": BERT,
    "Roberta": BERT,
    "Electra": BERT | {"embedding_size": EMBEDDING},
    "DebertaV2": BERT,
    "DistilBert": {"dim": D, "hidden_dim": 64, "n_layers": LAYERS, "n_heads": 2},
}
LANGUAGE = {"reduction": 2, "std": 0.02, "invertible": True, "task_type": "FEATURE_EXTRACTION"}
TASK = {"reduction": 16, "std": 0.02, "above_language": True, "task_type": "SEQ_CLS"}
INPUT = torch.arange(36).view(3, 12) % 45 + 3

every_family = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Models this small run many times faster on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def build(family: str = "Bert", head: str = "MaskedLM") -> transformers.PreTrainedModel:
    """A tiny model with a head; the encoder's weights are the same under every head."""
    config = getattr(transformers, f"{family}Config")(**SIZES, **FAMILIES[family])
    torch.manual_seed(1)
    model = getattr(transformers, f"{family}For{head}")(config).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.base_model.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter))
    return model


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=INPUT).logits


def stir(model: nn.Module, seed: int) -> nn.Module:
    """Give all adapters weights at random, as if they had been trained."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".bottleneck_" in name:
                parameter.copy_(0.2 * torch.randn_like(parameter))
    return model


def language_model(family: str = "Bert", **more) -> PeftModel:
    return get_peft_model(build(family), BottleneckConfig(**LANGUAGE | more)).eval()


def task_model(family: str = "Bert") -> PeftModel:
    model = get_peft_model(build(family, "SequenceClassification"), BottleneckConfig(**TASK))
    return stir(model, seed=9).eval()


def train(model: nn.Module, steps: int = 3) -> None:
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=1e-2)
    for _ in range(steps):
        output = model.train()(input_ids=INPUT).logits.flatten(0, -2)
        loss = nn.functional.cross_entropy(output, torch.arange(len(output)) % 3)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, dict[str, str]]:
    """Return family -> language -> the folder of its saved adapter."""
    root = tmp_path_factory.mktemp("languages")
    found: dict[str, dict[str, str]] = {}
    for family in FAMILIES:
        for seed, language in enumerate(("es", "zh")):
            folder = root / family / language
            stir(language_model(family), seed).save_pretrained(str(folder))
            found.setdefault(family, {})[language] = str(folder)
    return found


@pytest.fixture
def speaker(folders) -> PeftModel:
    """Return a task's model that has learned two languages and speaks none yet."""
    model = task_model()
    load_language_adapters(model, folders["Bert"])
    return model


def coupling_of(model: nn.Module) -> InvertibleAdapter:
    (found,) = (module for module in model.modules() if isinstance(module, InvertibleAdapter))
    return found


def language_values(model: nn.Module) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters() if ".language_" in n}


def same_values(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


# ---- the invertible adapter ----------------------------------------------------------------------


@pytest.mark.parametrize("width", [8, 9])
def test_the_inverse_gives_back_what_was_adapted(width):
    config = BottleneckConfig(reduction=2, invertible=True)
    layer = stir(
        nn.ModuleDict(
            {"a": InvertibleAdapter(nn.Identity(), "default", config, torch.ones(width))}
        ),
        0,
    )
    x = torch.randn(5, width)
    adapted = layer["a"](x)
    assert not torch.allclose(adapted, x, atol=1e-2)
    torch.testing.assert_close(layer["a"].invert(adapted), x, atol=1e-6, rtol=0)


def test_two_couplings_are_undone_in_the_other_order():
    config = BottleneckConfig(reduction=2, invertible=True)
    layer = InvertibleAdapter(nn.Identity(), "default", config, torch.ones(8))
    layer.update_layer("second", config)
    stir(nn.ModuleDict({"a": layer}), 0)
    layer.set_adapter(["default", "second"])
    x = torch.randn(5, 8)
    adapted = layer(x)
    torch.testing.assert_close(layer.invert(adapted), x, atol=1e-6, rtol=0)
    layer.set_adapter(["second", "default"])
    assert not torch.allclose(layer.invert(adapted), x, atol=1e-2)


@every_family
def test_a_fresh_language_adapter_is_the_base_model_to_the_last_bit(family):
    base = build(family)
    before = logits(base)
    assert torch.equal(logits(get_peft_model(base, BottleneckConfig(**LANGUAGE))), before)


@every_family
def test_the_number_of_parameters_of_a_language_is_the_closed_formula(family):
    model = language_model(family)
    width = EMBEDDING if family == "Electra" else D
    half, m = width // 2, D // 2
    quarter = half // 2
    coupling = 2 * (2 * half * quarter + quarter + half)
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert count == LAYERS * (2 * D * m + m + D) + coupling


@every_family
def test_the_output_embeddings_are_given_the_inverse(family):
    model = stir(language_model(family), seed=3)
    output = model.get_base_model().get_output_embeddings()
    given = []
    output.register_forward_hook(lambda module, args, out: given.append((args[0], out)))
    outside = []
    hooks = list(output._forward_pre_hooks.values())
    output._forward_pre_hooks.clear()
    output.register_forward_pre_hook(lambda module, args: outside.append(args[0]))
    for hook in hooks:
        output.register_forward_pre_hook(hook)
    logits(model)
    expected = coupling_of(model).invert(outside[0])
    assert torch.equal(given[0][0], expected)
    assert not torch.allclose(outside[0], expected, atol=1e-3)


def test_without_the_inverse_the_logits_would_be_others():
    model = stir(language_model(), seed=3)
    expected = logits(model)
    coupling_of(model).remove_hooks()
    assert not torch.allclose(logits(model), expected, atol=1e-3)


def test_unload_takes_the_inverse_off_the_output():
    base = build()
    model = stir(get_peft_model(copy.deepcopy(base), BottleneckConfig(**LANGUAGE)), seed=3)
    assert torch.equal(logits(model.unload()), logits(base))


def test_an_encoder_with_a_decoder_has_no_place_for_an_invertible_adapter():
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    model = transformers.T5Model(transformers.T5Config(vocab_size=50, **sizes))
    with pytest.raises(ConfigError, match="invertible: not for t5"):
        get_peft_model(model, BottleneckConfig(size=4, invertible=True))


# ---- languages below a task ----------------------------------------------------------------------


@every_family
def test_a_language_at_work_is_the_first_of_two_stacked_adapters(folders, family):
    model = task_model(family)
    load_language_adapters(model, folders[family])
    find_tuning_method(model).activate_language("zh")
    spoken = logits(model)
    find_tuning_method(model).activate_language("es")
    assert not torch.allclose(logits(model), spoken, atol=1e-4)
    plain = task_model(family)
    load_language_adapters(plain, folders[family])
    for module in plain.modules():
        if isinstance(module, BottleneckLayer):
            module.set_adapter(["language_zh", "default"])
    assert torch.equal(logits(plain), spoken)


def test_the_task_works_on_what_the_language_gives(speaker):
    find_tuning_method(speaker).activate_language("es")
    layer = next(module for module in speaker.modules() if isinstance(module, AroundNorm))
    norm = layer.base_layer

    def f(name: str, x: torch.Tensor) -> torch.Tensor:
        return layer.bottleneck_up[name](relu(layer.bottleneck_down[name](x)))

    total = torch.randn(4, D)
    below = total + f("language_es", norm(total))
    expected = norm(below + f("default", norm(below)))
    torch.testing.assert_close(layer(total), expected, atol=1e-6, rtol=0)
    swapped = total + f("default", norm(total))
    swapped = norm(swapped + f("language_es", norm(swapped)))
    assert not torch.allclose(layer(total), swapped, atol=1e-4)


def test_a_language_is_the_same_adapter_under_a_task_as_in_its_own_training(folders):
    model = task_model()
    load_language_adapters(model, folders["Bert"])
    for language, folder in folders["Bert"].items():
        saved = load_file(Path(folder) / "adapter_model.safetensors")
        loaded = {
            name.replace(f".language_{language}", ""): value
            for name, value in language_values(model).items()
            if f".language_{language}." in name
        }
        assert same_values(loaded, saved)


def test_only_the_task_adapter_and_the_head_are_trained(speaker):
    find_tuning_method(speaker).activate_language("es")
    names = [name for name, p in speaker.named_parameters() if p.requires_grad]
    assert all(".default." in name for name in names)
    assert sum(p.numel() for p in speaker.parameters() if p.requires_grad) == (
        LAYERS * (2 * D * 2 + 2 + D) + 3 * D + 3
    )


def test_training_leaves_the_languages_as_they_were(speaker):
    before, task = language_values(speaker), logits(speaker)
    find_tuning_method(speaker).activate_language("es")
    train(speaker)
    find_tuning_method(speaker).activate_language("zh")
    train(speaker)
    assert same_values(language_values(speaker), before)
    assert not torch.equal(logits(speaker), task)


def test_a_language_left_trainable_would_show(speaker):
    before = language_values(speaker)
    find_tuning_method(speaker).activate_language("es")
    for name, parameter in speaker.named_parameters():
        parameter.requires_grad_(parameter.requires_grad or ".language_es." in name)
    train(speaker)
    assert not same_values(language_values(speaker), before)


def test_a_disabled_model_is_the_base_model_in_every_language(speaker):
    base = build(head="SequenceClassification")
    base.load_state_dict(
        {
            name: value
            for name, value in copy.deepcopy(speaker).unload().state_dict().items()
            if name in base.state_dict()
        }
    )
    find_tuning_method(speaker).activate_language("es")
    with speaker.disable_adapter():
        assert torch.equal(logits(speaker), logits(base))


def test_a_masked_lm_task_adapts_the_language_and_undoes_its_embeddings(folders):
    model = get_peft_model(build(), BottleneckConfig(**TASK | {"task_type": "FEATURE_EXTRACTION"}))
    load_language_adapters(model, folders["Bert"])
    find_tuning_method(model).activate_language("es")
    alone = PeftModel.from_pretrained(build(), folders["Bert"]["es"])
    alone.get_base_model().cls.load_state_dict(model.get_base_model().cls.state_dict())
    assert torch.equal(logits(model), logits(alone))


# ---- saved and loaded ----------------------------------------------------------------------------


def test_a_saved_run_finds_its_languages_again(speaker, tmp_path):
    speaker.save_pretrained(str(tmp_path))
    base = copy.deepcopy(speaker).unload()
    model = PeftModel.from_pretrained(base, str(tmp_path))
    load_language_adapters(model, list_language_adapters(tmp_path))
    for language in ("es", "zh"):
        find_tuning_method(model).activate_language(language)
        find_tuning_method(speaker).activate_language(language)
        assert torch.equal(logits(model), logits(speaker))


def test_a_run_without_its_languages_would_say_something_else(speaker, tmp_path):
    speaker.save_pretrained(str(tmp_path))
    model = PeftModel.from_pretrained(copy.deepcopy(speaker).unload(), str(tmp_path))
    find_tuning_method(speaker).activate_language("es")
    assert not torch.allclose(logits(model), logits(speaker), atol=1e-4)


def test_the_task_and_each_language_have_a_file_of_their_own(speaker, tmp_path):
    speaker.save_pretrained(str(tmp_path))
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert not any("language_" in key or "embeddings" in key for key in saved)
    assert sum(t.numel() for t in saved.values()) == LAYERS * (2 * D * 2 + 2 + D) + 3 * D + 3
    assert list(list_language_adapters(tmp_path)) == ["es", "zh"]


def test_the_head_of_masked_lm_is_left_behind(tmp_path):
    config = BottleneckConfig(**LANGUAGE, modules_to_save=["cls.predictions.transform"])
    get_peft_model(build(), config).save_pretrained(str(tmp_path))
    keys = load_file(tmp_path / "adapter_model.safetensors")
    assert any("cls." in key for key in keys)
    model = task_model()
    load_language_adapters(model, {"es": str(tmp_path)})
    assert not any("cls." in name for name in model.state_dict())


# ---- what is refused -----------------------------------------------------------------------------


def test_a_language_that_was_not_learned_is_refused(speaker):
    with pytest.raises(ConfigError, match="no language adapter for en, only for es, zh"):
        find_tuning_method(speaker).activate_language("en")


@pytest.mark.parametrize("adapted", [True, False])
def test_a_model_without_languages_speaks_any(adapted):
    model = task_model() if adapted else build()
    before = logits(model)
    find_tuning_method(model).activate_language("en")
    assert torch.equal(logits(model), before)


def test_a_task_adapter_without_languages_is_told(caplog):
    with caplog.at_level(logging.WARNING):
        load_language_adapters(task_model(), {})
    assert "the task adapter is on the bare encoder" in caplog.text
    assert "method.language_adapters={" in caplog.text


def test_a_method_that_is_not_for_languages_is_told_nothing(caplog):
    load_language_adapters(language_model(), {})
    assert caplog.text == ""


def test_languages_are_not_for_other_methods(folders):
    with pytest.raises(ConfigError, match="for method=madx only"):
        load_language_adapters(build(), folders["Bert"])


def test_a_folder_without_an_adapter_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"language_adapters\.es=.*no adapter_config.json"):
        load_language_adapters(task_model(), {"es": str(tmp_path)})


@pytest.mark.parametrize("config", [BottleneckConfig(size=4, style="houlsby"), LoraConfig()])
def test_an_adapter_of_another_kind_is_refused(tmp_path, config):
    get_peft_model(build(), config).save_pretrained(str(tmp_path))
    with pytest.raises(ConfigError, match="not what method=madx_language trains"):
        load_language_adapters(task_model(), {"es": str(tmp_path)})


def test_a_language_of_another_encoder_is_refused(folders):
    with pytest.raises(ConfigError, match="does not fit this encoder"):
        load_language_adapters(task_model(), {"es": folders["Roberta"]["es"]})


def test_a_matrix_lost_from_a_language_is_found(folders, tmp_path):
    source = Path(folders["Bert"]["es"])
    saved = load_file(source / "adapter_model.safetensors")
    del saved[next(iter(saved))]
    save_file(saved, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_bytes((source / "adapter_config.json").read_bytes())
    with pytest.raises(ConfigError, match="has no counterpart"):
        load_language_adapters(task_model(), {"es": str(tmp_path)})

"""Bottleneck adapters against closed formulas, the untouched base model and layers made by hand."""

import copy
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import transformers
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.functional import gelu, relu

from crosstune.errors import ConfigError
from crosstune.methods.bottleneck import BottleneckConfig, BottleneckLayer, ParallelInput

# peft asks transformers by the old name of the property
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

D, INNER, LAYERS, CLASSES, M = 32, 64, 2, 3, 6
SIZES = {"vocab_size": 50, "max_position_embeddings": 40, "num_labels": CLASSES}
BERT = {
    "hidden_size": D,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
}
BART = {"d_model": D, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
for half in ("encoder", "decoder"):
    BART |= {f"{half}_layers": LAYERS, f"{half}_attention_heads": 2, f"{half}_ffn_dim": INNER}
T5 = {"d_model": D, "d_kv": 16, "d_ff": INNER, "num_layers": LAYERS, "num_heads": 2}
ENCODERS = {
    "Bert": BERT,
    "Roberta": BERT,
    "Electra": BERT | {"embedding_size": 16},
    "DebertaV2": BERT,
    "DistilBert": {"dim": D, "hidden_dim": INNER, "n_layers": LAYERS, "n_heads": 2},
}
WRITERS = {
    "T5": T5 | {"decoder_start_token_id": 0},
    "MT5": T5 | {"decoder_start_token_id": 0},  # its feed-forward block has two first matrices
    "Bart": BART | {"decoder_start_token_id": 2},
    "MBart": BART | {"decoder_start_token_id": 2},
    "Marian": BART | {"decoder_start_token_id": 0},
}
MODELS = {"Marian": "MarianMTModel"}
STYLES = {
    "houlsby": {"activation": "gelu", "std": 0.01, "norms": True},
    "pfeiffer": {"std": 0.02},
    "parallel": {"scale": 4.0, "dropout": 0.1},
}
CASES = [(family, style) for family in ENCODERS | WRITERS for style in STYLES]
INPUT = torch.arange(36).view(3, 12) % 45 + 3


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Models this small run many times faster on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


every_case = pytest.mark.parametrize("case", CASES, ids="-".join)
every_style = pytest.mark.parametrize("style", STYLES)


class Trained(NamedTuple):
    """A model after three steps, what it was before, and the folder it was saved in."""

    model: PeftModel
    base: nn.Module
    folder: Path


def build(family: str) -> transformers.PreTrainedModel:
    """A tiny model whose biases and normalisations are not the zeros and ones of the start."""
    config = getattr(transformers, f"{family}Config")(**SIZES, **(ENCODERS | WRITERS)[family])
    end = "ForSequenceClassification" if family in ENCODERS else "ForConditionalGeneration"
    torch.manual_seed(0)
    model = getattr(transformers, MODELS.get(family, f"{family}{end}"))(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def options_of(family: str, style: str) -> dict:
    task = "SEQ_CLS" if family in ENCODERS else "SEQ_2_SEQ_LM"
    return {"style": style, "size": M, "task_type": task} | STYLES[style]


def adapt(model: nn.Module, family: str, style: str, **more) -> PeftModel:
    return get_peft_model(model, BottleneckConfig(**options_of(family, style) | more)).eval()


def call(model: nn.Module) -> torch.Tensor:
    both = model.config.is_encoder_decoder
    return model(input_ids=INPUT, **({"decoder_input_ids": INPUT[:, :5]} if both else {})).logits


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return call(model.eval())


def train(model: nn.Module, steps: int = 3) -> None:
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=1e-2, weight_decay=0.0)
    for step in range(steps):
        torch.manual_seed(step)
        output = call(model.train()).flatten(0, -2)
        loss = nn.functional.cross_entropy(output, torch.arange(len(output)) % CLASSES)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def stir(model: nn.Module) -> nn.Module:
    """Give the adapters weights at random, as if they had been trained."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".bottleneck_" in name:
                parameter.copy_(0.2 * torch.randn_like(parameter))
    return model


def layers_of(model: nn.Module) -> list[BottleneckLayer]:
    return [module for module in model.modules() if isinstance(module, BottleneckLayer)]


def base_values(model: nn.Module) -> dict[str, torch.Tensor]:
    """The base model's own parameters under the names they had before adaptation."""
    return {
        name.removeprefix("base_model.model.")
        .replace(".base_layer", "")
        .replace(".original_module", ""): parameter.detach().clone()
        for name, parameter in model.named_parameters()
        if ".bottleneck_" not in name and ".modules_to_save." not in name
    }


def same_values(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> dict[tuple[str, str], Trained]:
    root = tmp_path_factory.mktemp("bottleneck")
    results = {}
    for case in CASES:
        base, folder = build(case[0]), root / "-".join(case)
        model = adapt(copy.deepcopy(base), *case)
        train(model)
        model.eval().save_pretrained(folder)
        results[case] = Trained(model, base, folder)
    return results


# ---- what is trained -----------------------------------------------------------------------------


def trained_by_formula(family: str, style: str) -> int:
    """Per place d·m + m down and m·d + d up; Houlsby's two places a layer, and the norms."""
    sides = 1 if family in ENCODERS else 2
    places = sides * LAYERS
    norms = 0
    if style == "houlsby":
        places += sides * LAYERS + (0 if sides == 1 else LAYERS)  # also where a decoder looks
        in_layers = 2 * LAYERS if sides == 1 else 5 * LAYERS
        ends = {"T5": 2, "MT5": 2, "MBart": 4, "Bart": 2, "Marian": 0}.get(family, 1)
        weights = 1 if family in ("T5", "MT5") else 2  # no bias
        norms = (in_layers + ends) * D * weights
        norms -= 2 * (D - 16) if family == "Electra" else 0  # its embeddings are narrower
    head = {"Roberta": 1, "Electra": 1, "DistilBert": 1}.get(family, 0)
    classifier = head * (D * D + D) + D * CLASSES + CLASSES if family in ENCODERS else 0
    return places * (2 * D * M + D + M) + norms + classifier


@every_case
def test_a_fresh_adapter_is_the_base_model_to_the_last_bit(case):
    base = build(case[0])
    before = logits(base)
    assert torch.equal(logits(adapt(base, *case)), before)


@every_case
def test_every_place_has_a_part_in_what_the_model_says(case):
    model = adapt(build(case[0]), *case)
    fresh = logits(model)
    for layer in layers_of(model):
        before = copy.deepcopy(layer.state_dict())
        stir(layer)
        with torch.no_grad():
            layer.bottleneck_up["default"].weight.normal_()
        assert not torch.allclose(logits(model), fresh, atol=1e-4)
        layer.load_state_dict(before)
        assert torch.equal(logits(model), fresh)


@every_case
def test_the_number_of_trained_parameters_is_the_closed_formula(trained, case):
    model = trained[case].model
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert count == trained_by_formula(*case)


@every_case
def test_adapters_norms_and_head_are_trained_and_nothing_else(trained, case):
    kept = ("classifier", "LayerNorm", "layer_norm", "_norm.", "layernorm_embedding", "attn_layer")
    for name, parameter in trained[case].model.named_parameters():
        own = ".bottleneck_" in name or ".modules_to_save." in name
        assert parameter.requires_grad == own
        if own and ".bottleneck_" not in name:
            assert any(part in name for part in kept)


@every_case
def test_training_leaves_every_base_parameter_as_it_was(trained, case):
    assert same_values(base_values(trained[case].model), base_values(trained[case].base))


def test_a_weight_left_trainable_would_show():
    base = build("Bert")
    before = base_values(base)
    model = adapt(base, "Bert", "pfeiffer")
    model.get_input_embeddings().weight.requires_grad_(True)
    train(model)
    assert not same_values(base_values(model), before)


@every_case
def test_every_trained_parameter_gets_a_gradient(trained, case):
    model = trained[case].model
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


def test_bert_large_has_the_adapters_that_the_paper_counts():
    config = transformers.BertConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16
    )
    with torch.device("meta"):
        model = transformers.BertModel(config)
    total = sum(parameter.numel() for parameter in model.parameters())
    adapted = get_peft_model(model, BottleneckConfig(style="houlsby", size=64))
    count = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert count == 24 * 2 * (2 * 1024 * 64 + 1024 + 64)
    assert 0.018 < count / total < 0.022  # "2.1 %", table 1, of BERT large with its own head


# ---- where the adapters are ----------------------------------------------------------------------


def by_hand(base: nn.Module, places: list[BottleneckLayer], style: str) -> torch.Tensor:
    """BERT's layers written out, with the adapters of a style."""

    def f(place: BottleneckLayer, x: torch.Tensor) -> torch.Tensor:
        down, up = place.bottleneck_down["default"], place.bottleneck_up["default"]
        act = gelu if style == "houlsby" else relu
        return STYLES[style].get("scale", 1.0) * up(act(down(x)))

    rest = iter(places)
    hidden = base.bert.embeddings(input_ids=INPUT)
    for layer in base.bert.encoder.layer:
        attended = layer.attention.output.dense(layer.attention.self(hidden)[0])
        if style == "houlsby":
            attended = attended + f(next(rest), attended)
        x = layer.attention.output.LayerNorm(attended + hidden)
        y, norm = layer.output.dense(gelu(layer.intermediate.dense(x))), layer.output.LayerNorm
        if style == "houlsby":
            y = y + f(next(rest), y)
        if style == "parallel":
            y = y + f(next(rest), x)
        total = y + x
        if style == "pfeiffer":
            total = total + f(next(rest), norm(total))
        hidden = norm(total)
    return base.classifier(base.bert.pooler(hidden))


@every_style
def test_logits_are_those_of_the_layers_written_out(style):
    base = build("Bert")
    model = stir(adapt(copy.deepcopy(base), "Bert", style))
    with torch.no_grad():
        expected = by_hand(base, layers_of(model), style)
    torch.testing.assert_close(logits(model), expected, atol=1e-5, rtol=0)


@every_style
def test_layers_written_out_otherwise_would_give_others(style):
    base = build("Bert")
    model = stir(adapt(copy.deepcopy(base), "Bert", style))
    other = "pfeiffer" if style == "parallel" else "parallel"
    with torch.no_grad():
        changed = by_hand(base, layers_of(model), other)
    assert not torch.allclose(logits(model), changed, atol=1e-3)


@pytest.mark.parametrize("family", ENCODERS | WRITERS)
def test_a_parallel_adapter_is_fed_with_what_its_block_is_fed_with(family):
    model = stir(adapt(build(family), family, "parallel"))
    heard: dict[str, torch.Tensor] = {}
    ends = ("intermediate.dense", "lin1", "fc1", "wi", "wi_0")
    firsts = [m for n, m in model.named_modules() if n.endswith(tuple(f".{e}" for e in ends))]
    last = layers_of(model)[-1]
    firsts[-1].register_forward_pre_hook(lambda m, args: heard.update(fed=args[0]))
    last.base_layer.register_forward_hook(lambda m, args, out: heard.update(block=out))
    last.register_forward_hook(lambda m, args, out: heard.update(out=out))
    logits(model)
    with torch.no_grad():
        change = last.apply_adapter("default", heard["fed"])
    assert torch.equal(heard["out"], heard["block"] + change)
    assert change.abs().max() > 1e-3


PLACES = {
    ("Bert", "houlsby"): "attention.output.dropout output.dropout",
    ("Bert", "pfeiffer"): "output.LayerNorm",
    ("DistilBert", "houlsby"): "attention.out_lin ffn",
    ("DistilBert", "pfeiffer"): "output_layer_norm",
    ("Bart", "pfeiffer"): "final_layer_norm",
    ("MBart", "pfeiffer"): "fc2",  # its final_layer_norm comes before the block
    ("T5", "pfeiffer"): "layer.1.DenseReluDense",
}


@pytest.mark.parametrize("case", PLACES, ids="-".join)
def test_the_places_in_the_first_layer(case):
    model = adapt(build(case[0]), *case)
    first = r".0."
    names = [
        name.partition(first)[2]
        for name, module in model.named_modules()
        if isinstance(module, BottleneckLayer) and first in name.replace("decoder", "")
        if "decoder" not in name
    ]
    assert names == PLACES[case].split()


def test_both_halves_of_two_encoders_have_adapters():
    encoder = transformers.BertConfig(**BERT, vocab_size=50)
    decoder = transformers.BertConfig(
        **BERT, vocab_size=50, is_decoder=True, add_cross_attention=True
    )
    config = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    model = transformers.EncoderDecoderModel(config=config)
    adapted = adapt(model, "T5", "houlsby")
    names = [n for n, m in adapted.named_modules() if isinstance(m, BottleneckLayer)]
    assert [n.split(".")[2] for n in names] == ["encoder"] * 4 + ["decoder"] * 4


def test_gradients_are_the_same_with_and_without_checkpointing():
    def gradients(checkpointed: bool) -> list[torch.Tensor]:
        model = stir(adapt(build("Bert"), "Bert", "parallel", dropout=0.0))
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        if checkpointed:
            model.get_base_model().activation_checkpointing_enable({"use_reentrant": False})
        call(model.train()).square().sum().backward()
        return [p.grad for p in model.parameters() if p.grad is not None]

    for plain, checkpointed in zip(gradients(False), gradients(True), strict=True):
        torch.testing.assert_close(plain, checkpointed, atol=1e-6, rtol=0)


# ---- dropout -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "differs"), [(0.5, True), (0.0, False)])
def test_the_bottleneck_is_dropped_out_in_training_if_asked_for(share, differs):
    layer = layers_of(stir(adapt(build("Bert"), "Bert", "parallel", dropout=share)))[0].train()
    x = torch.randn(4, D)
    assert (
        torch.equal(layer.apply_adapter("default", x), layer.apply_adapter("default", x))
        is not differs
    )
    layer.eval()
    assert torch.equal(layer.apply_adapter("default", x), layer.apply_adapter("default", x))


@every_style
def test_the_base_drops_out_in_training_as_before(style):
    model = adapt(build("Bert"), "Bert", style, dropout=0.0).train()
    with torch.no_grad():
        assert not torch.equal(call(model), call(model))


# ---- saved and loaded ----------------------------------------------------------------------------


@every_case
def test_a_saved_adapter_and_its_head_load_to_the_last_bit_under_another_name(trained, case):
    base = copy.deepcopy(trained[case].base)
    with torch.no_grad():
        for name, parameter in base.named_parameters():
            if "classifier" in name:
                parameter.add_(1)
    model = PeftModel.from_pretrained(base, trained[case].folder, adapter_name="other")
    assert torch.equal(logits(model), logits(trained[case].model))
    assert not torch.equal(logits(model), logits(trained[case].base))


@every_case
def test_the_folder_holds_the_trained_numbers_and_no_others(trained, case):
    saved = load_file(trained[case].folder / "adapter_model.safetensors")
    assert sum(tensor.numel() for tensor in saved.values()) == trained_by_formula(*case)


@every_case
def test_loading_beside_another_adapter_misses_no_key(trained, case):
    model = adapt(copy.deepcopy(trained[case].base), *case)
    result = model.load_adapter(trained[case].folder, "second")
    assert (result.missing_keys, result.unexpected_keys) == ([], [])
    model.set_adapter("second")
    assert torch.equal(logits(model), logits(trained[case].model))


@every_style
def test_a_matrix_lost_from_the_file_shows_as_a_missing_key(trained, style, tmp_path):
    source = trained["Bert", style].folder
    saved = load_file(source / "adapter_model.safetensors")
    lost = next(key for key in saved if ".bottleneck_up" in key)
    del saved[lost]
    save_file(saved, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_bytes((source / "adapter_config.json").read_bytes())
    model = adapt(build("Bert"), "Bert", style)
    result = model.load_adapter(tmp_path, "second")
    assert result.missing_keys == [lost.replace("_up.", "_up.second.")]


@every_style
def test_loading_without_initial_memory_gives_the_same_logits(trained, style):
    case = ("Bert", style)
    model = PeftModel.from_pretrained(build("Bert"), trained[case].folder, low_cpu_mem_usage=True)
    assert torch.equal(logits(model), logits(trained[case].model))


@every_style
def test_a_deep_copy_is_a_model_of_its_own(trained, style):
    model = copy.deepcopy(trained["Bert", style].model)
    expected = logits(trained["Bert", style].model)
    stir(model)
    assert not torch.equal(logits(model), expected)
    assert torch.equal(logits(trained["Bert", style].model), expected)


# ---- disabled, unloaded, merged ------------------------------------------------------------------


@every_case
def test_a_disabled_adapter_is_the_base_model(trained, case):
    model = trained[case].model
    with model.disable_adapter():
        assert torch.equal(logits(model), logits(trained[case].base))
    assert not torch.equal(logits(model), logits(trained[case].base))


@pytest.mark.parametrize("case", [c for c in CASES if c[1] != "houlsby"], ids="-".join)
def test_unload_leaves_the_base_model_with_the_trained_head(trained, case):
    bare = copy.deepcopy(trained[case].model).unload()
    expected = base_values(trained[case].base)
    head = {name: value for name, value in base_values(bare).items() if "classifier" in name}
    assert same_values(base_values(bare), expected | head)
    assert [str(module) for module in bare.children()] == [
        str(module) for module in trained[case].base.children()
    ]


@every_style
def test_unload_leaves_no_hook_behind(trained, style):
    model = copy.deepcopy(trained["Bert", style].model)
    listened = [m for m in model.modules() if m._forward_pre_hooks]
    assert bool(listened) == (style == "parallel")
    assert [m for m in model.unload().modules() if m._forward_pre_hooks] == []


def test_unload_of_houlsby_keeps_the_trained_norms(trained):
    case = ("Bert", "houlsby")
    model = copy.deepcopy(trained[case].model)
    norm = model.get_submodule("base_model.model.bert.embeddings.LayerNorm.modules_to_save.default")
    bare = model.unload()
    assert torch.equal(bare.bert.embeddings.LayerNorm.weight, norm.weight)
    assert not torch.equal(norm.weight, trained[case].base.bert.embeddings.LayerNorm.weight)


@every_style
@pytest.mark.parametrize("way", ["merge_adapter", "merge_and_unload"])
def test_merging_is_refused(trained, style, way):
    model = copy.deepcopy(trained["Bert", style].model)
    with pytest.raises(ConfigError, match="not linear"):
        getattr(model, way)()


@every_style
def test_training_a_second_adapter_leaves_the_first_as_it_was(trained, style):
    case = ("Bert", style)
    model = copy.deepcopy(trained[case].model)
    model.add_adapter("second", BottleneckConfig(**options_of(*case)))
    model.set_adapter("second")
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert count == trained_by_formula(*case)
    train(model, steps=1)
    second = logits(model)
    model.set_adapter("default")
    assert torch.equal(logits(model), logits(trained[case].model))
    assert not torch.equal(second, logits(model))


@every_style
def test_a_second_adapter_is_where_the_model_has_moved_to(style):
    model = adapt(build("Bert"), "Bert", style).to("meta")
    model.add_adapter("second", BottleneckConfig(**options_of("Bert", style)))
    second = [p for n, p in model.named_parameters() if ".bottleneck_" in n and ".second." in n]
    assert {parameter.device.type for parameter in second} == {"meta"}


def test_a_half_precision_base_keeps_its_type_and_its_logits():
    base = build("Bert").bfloat16()
    before = logits(base)
    after = logits(adapt(base, "Bert", "pfeiffer"))
    assert after.dtype == torch.bfloat16
    assert torch.equal(after, before)


def test_nothing_is_kept_between_two_calls():
    model = adapt(build("Bert"), "Bert", "parallel")
    logits(model)
    assert all(
        layer.captured == [] for layer in layers_of(model) if isinstance(layer, ParallelInput)
    )


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "one of size and reduction"),
        ({"size": 4, "reduction": 4}, "one of size and reduction"),
        ({"size": 0}, "size=0: must be at least 1"),
        ({"reduction": -2}, "reduction=-2: must be at least 1"),
        ({"size": 4, "dropout": 1.0}, "must be below 1"),
        ({"size": 4, "norms": True}, "norms as they are"),
        ({"size": 4, "style": "pfeifer"}, "Did you mean pfeiffer"),
        ({"size": 4, "activation": "tanh"}, "Allowed: gelu, relu"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(options, said):
    with pytest.raises(ConfigError, match=said):
        BottleneckConfig(**options)


def test_a_model_whose_layers_are_not_known_is_refused():
    config = transformers.FNetConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1)
    model = transformers.FNetModel(config)
    with pytest.raises(ConfigError, match="fnet"):
        get_peft_model(model, BottleneckConfig(size=4))


@pytest.mark.parametrize(("reduction", "size"), [(16, 2), (3, 10), (1000, 1)])
def test_a_reduction_is_of_the_width(reduction, size):
    model = get_peft_model(build("Bert"), BottleneckConfig(reduction=reduction))
    assert layers_of(model)[0].bottleneck_down["default"].out_features == size

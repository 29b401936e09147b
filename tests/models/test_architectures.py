"""Where each type of model keeps its matrices: every role once in each layer, and no head."""

import inspect
from functools import cache

import pytest
import transformers
from torch import nn

from crosstune.config.schema import TargetModules
from crosstune.errors import ConfigError
from crosstune.models.architectures import (
    ARCHITECTURES,
    ROLES,
    choose_targets,
    find_layers,
    find_norms,
    find_parts,
)
from crosstune.models.load import find_head

SIZES = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 20,
}
BART = {
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "vocab_size": 50,
    "pad_token_id": 0,
}
BART |= {f"{half}_{key}": 2 for half in ("encoder", "decoder") for key in ("attention_heads",)}
BART |= {"encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_position_embeddings": 20}
BART |= {"bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
T5 = {"vocab_size": 50, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}
CONFIGS = {
    "bert": (transformers.BertConfig, SIZES),
    "roberta": (transformers.RobertaConfig, SIZES),
    "xlm-roberta": (transformers.XLMRobertaConfig, SIZES),
    "camembert": (transformers.CamembertConfig, SIZES),
    "electra": (transformers.ElectraConfig, SIZES | {"embedding_size": 8}),
    "distilbert": (
        transformers.DistilBertConfig,
        {"vocab_size": 50, "dim": 16, "hidden_dim": 24, "n_layers": 2, "n_heads": 2},
    ),
    "deberta-v2": (
        transformers.DebertaV2Config,
        SIZES | {"relative_attention": True, "share_att_key": True, "pos_att_type": ["c2p", "p2c"]},
    ),
    "t5": (transformers.T5Config, T5),
    "mt5": (transformers.MT5Config, T5),
    "bart": (transformers.BartConfig, BART),
    "mbart": (transformers.MBartConfig, BART),
    "marian": (transformers.MarianConfig, BART | {"decoder_vocab_size": 50}),
}
READERS = ("SequenceClassification", "TokenClassification", "QuestionAnswering", "MaskedLM")
WRITERS = {"t5", "mt5", "bart", "mbart", "marian"}
CASES = [
    (kind, head) for kind in CONFIGS for head in (("Seq2SeqLM",) if kind in WRITERS else READERS)
] + [("bert2bert", "Seq2SeqLM")]

# The full names in one layer, as the models' own code writes them: query, key, value, output of
# attention, first and last matrix of the feed-forward block.
NAMES = {
    "bert": [
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
    ],
    "deberta-v2": [
        "attention.self.query_proj",
        "attention.self.key_proj",
        "attention.self.value_proj",
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
    ],
    "distilbert": [
        "attention.q_lin",
        "attention.k_lin",
        "attention.v_lin",
        "attention.out_lin",
        "ffn.lin1",
        "ffn.lin2",
    ],
}
ONE = [f"self_attn.{part}_proj" for part in ("q", "k", "v", "out")]
TWO = [f"encoder_attn.{part}_proj" for part in ("q", "k", "v", "out")]
T5_ONE = [f"layer.0.SelfAttention.{part}" for part in "qkvo"]
T5_TWO = [f"layer.1.EncDecAttention.{part}" for part in "qkvo"]
every_case = pytest.mark.parametrize("case", CASES, ids="-".join)


@cache
def build(case):
    """Return a tiny random model of a type with a head."""
    kind, head = case
    auto = getattr(transformers, f"AutoModelFor{head}")
    if kind == "bert2bert":
        both = transformers.BertConfig(**SIZES), transformers.BertConfig(**SIZES)
        config = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(*both)
        return transformers.EncoderDecoderModel(config)
    config, sizes = CONFIGS[kind]
    return auto.from_config(config(**sizes))


def expected(case):
    """Return, in order, every layer's path and the names of its matrices, written by hand."""
    kind, _ = case
    if kind in ("bart", "mbart", "marian"):
        ends = ["fc1", "fc2"]
        encoder = [(f"model.encoder.layers.{n}", ONE + ends) for n in range(2)]
        return encoder + [(f"model.decoder.layers.{n}", ONE + TWO + ends) for n in range(2)]
    if kind in ("t5", "mt5"):
        inner = ["wi"] if kind == "t5" else ["wi_0", "wi_1"]
        ends = [f"DenseReluDense.{name}" for name in (*inner, "wo")]
        encoder = [
            (f"encoder.block.{n}", T5_ONE + [f"layer.1.{end}" for end in ends]) for n in range(2)
        ]
        decoder = T5_ONE + T5_TWO + [f"layer.2.{end}" for end in ends]
        return encoder + [(f"decoder.block.{n}", decoder) for n in range(2)]
    if kind == "bert2bert":
        halves = ("encoder", "decoder.bert")
        return [(f"{half}.encoder.layer.{n}", NAMES["bert"]) for half in halves for n in range(2)]
    prefix = {"distilbert": "distilbert.transformer", "deberta-v2": "deberta.encoder"}.get(kind)
    prefix = prefix or {"bert": "bert", "electra": "electra"}.get(kind, "roberta") + ".encoder"
    names = NAMES.get(kind, NAMES["bert"])
    return [(f"{prefix}.layer.{n}", names) for n in range(2)]


def role_of(name):
    """Return the role that a name of the lists above has."""
    last = name.rsplit(".", 1)[-1]
    if name in ("intermediate.dense", "ffn.lin1", "fc1") or last.startswith("wi"):
        return "up"
    if name in ("output.dense", "ffn.lin2", "fc2") or last == "wo":
        return "down"
    if last in ("o", "out_proj", "out_lin") or name == "attention.output.dense":
        return "attention_output"
    return {"q": "query", "k": "key", "v": "value"}[last[0]]


def test_every_type_of_the_table_is_tried():
    assert {kind for kind, _ in CASES} - {"bert2bert"} == set(ARCHITECTURES)


@every_case
def test_the_layers_are_found_from_input_to_output(case):
    assert find_layers(build(case)) == [layer for layer, _ in expected(case)]


@every_case
@pytest.mark.parametrize("role", ROLES[TargetModules.linear])
def test_a_role_is_found_in_each_layer_and_nowhere_else(case, role):
    wanted = [
        f"{layer}.{name}"
        for layer, names in expected(case)
        for name in names
        if role_of(name) == role
    ]
    found = find_parts(build(case), (role,))
    assert sorted(found) == sorted(wanted)


@every_case
def test_all_roles_together_are_every_matrix_of_the_layers_but_the_heads(case):
    model = build(case)
    inside = {
        f"{layer}.{name}"
        for layer in find_layers(model)
        for name, module in model.get_submodule(layer).named_modules()
        if isinstance(module, nn.Linear) and ".crossattention." not in f".{name}"
    }
    assert set(find_parts(model, ROLES[TargetModules.linear])) == inside


@every_case
@pytest.mark.parametrize("targets", TargetModules)
def test_nothing_of_the_head_is_adapted(case, targets):
    model = build(case)
    head = find_head(model)
    chosen = choose_targets(model, targets, head)["target_modules"]
    assert chosen
    assert not [name for name in chosen for one in head if f"{name}.".startswith(f"{one}.")]


@every_case
def test_the_rescaled_feed_forward_matrices_are_among_the_adapted(case):
    chosen = choose_targets(build(case), TargetModules.key_value_down, [])
    assert chosen["feedforward_modules"]
    assert set(chosen["feedforward_modules"]) < set(chosen["target_modules"])


@every_case
def test_every_normalisation_is_found_but_the_heads(case):
    model = build(case)
    head = find_head(model)
    kinds = {type(m).__name__ for m in model.modules() if "norm" in type(m).__name__.lower()}
    outside = [
        name
        for name, module in model.named_modules()
        if type(module).__name__ in kinds
        and not any(f"{name}.".startswith(f"{one}.") for one in head)
    ]
    assert find_norms(model, head) == outside


def test_a_head_with_a_norm_of_its_own_is_left_to_be_trained_whole():
    model = build(("bert", "MaskedLM"))
    assert "cls.predictions.transform.LayerNorm" in find_norms(model, [])
    assert "cls.predictions.transform.LayerNorm" not in find_norms(model, find_head(model))


ENCODERS = [kind for kind in CONFIGS if kind not in WRITERS]


@pytest.mark.parametrize("kind", ENCODERS)
def test_an_encoder_takes_a_prefix_where_its_pass_accepts_keys_and_values(kind):
    encoder = build((kind, "TokenClassification")).base_model
    accepts = "past_key_values" in inspect.signature(encoder.forward).parameters
    assert ARCHITECTURES[kind].encoder_takes_prefix == accepts


@pytest.mark.parametrize("kind", ENCODERS)
def test_positions_begin_behind_the_padding_where_the_embeddings_have_a_row_for_it(kind):
    encoder = build((kind, "TokenClassification")).base_model
    table = getattr(encoder.embeddings, "position_embeddings", None)
    after_padding = table is not None and table.padding_idx is not None
    assert ARCHITECTURES[kind].positions_after_padding == after_padding


@pytest.mark.parametrize("kind", ENCODERS)
def test_the_stack_of_layers_is_where_the_layers_are(kind):
    stack = ARCHITECTURES[kind].layer_stack
    model = build((kind, "TokenClassification"))
    layers = find_layers(model)
    assert stack is None or all(f".{stack}.layer." in layer for layer in layers)


def test_a_type_that_the_table_lacks_is_refused_by_name():
    config = transformers.AlbertConfig(**SIZES | {"embedding_size": 8})
    model = transformers.AutoModelForMaskedLM.from_config(config)
    with pytest.raises(ConfigError, match=r"layers of albert models .*method\.peft\.target_mod"):
        find_parts(model, ("query",))


def test_a_pattern_that_took_the_pooler_for_a_layers_output_would_show():
    model = build(("bert", "SequenceClassification"))
    loose = [name for name, module in model.named_modules() if name.endswith(".dense")]
    assert set(loose) - set(find_parts(model, ("up", "down", "attention_output"))) == {
        "bert.pooler.dense"
    }

"""Prompt methods against real pieces as a prompt, plain peft, closed formulas and beam search."""

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import transformers
from peft import PeftModel, PrefixTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file

from crosstune.config.schema import Method
from crosstune.errors import ConfigError
from crosstune.methods import adapt, find_tuning_method
from crosstune.methods.prompts import install_prompt_hooks
from crosstune.models.load import LoadedModel, find_head
from crosstune.tasks.classification import Classification
from crosstune.tasks.generation import Generation
from crosstune.tasks.span_boundary import add_boundary, predict_masked
from crosstune.tasks.tagging import Tagging

# peft asks transformers by the old name of the property
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

HIDDEN, LAYERS, HEADS, VOCABULARY, CLASSES, EMBEDDING, SIZE = 32, 2, 2, 50, 3, 16, 4
SIZES = {
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 40,
    "num_labels": CLASSES,
    "pad_token_id": 1,
}
BERT = {
    "hidden_size": HIDDEN,
    "intermediate_size": 64,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
}
DISENTANGLED = {
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "type_vocab_size": 0,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "Bert": BERT,
    "Roberta": BERT | {"type_vocab_size": 2},
    "Electra": BERT | {"embedding_size": EMBEDDING},
    "DistilBert": {"dim": HIDDEN, "hidden_dim": 64, "n_layers": LAYERS, "n_heads": HEADS},
    "DebertaV2": BERT | DISENTANGLED,
}
TASKS = {
    "SequenceClassification": "SEQ_CLS",
    "TokenClassification": "TOKEN_CLS",
    "QuestionAnswering": "QUESTION_ANS",
    "MaskedLM": "FEATURE_EXTRACTION",
}
PEFT = {
    "prompt_tuning": {"_target_": "peft.PromptTuningConfig", "prompt_tuning_init": "SAMPLE_VOCAB"},
    "p_tuning": {"_target_": "peft.PromptEncoderConfig"},
    "prefix_tuning": {"_target_": "peft.PrefixTuningConfig"},
}
PREFIXED = ("Bert", "Roberta", "Electra")  # those that take a prefix
CASES = [
    (family, task, method)
    for family in FAMILIES
    for task in TASKS
    for method in PEFT
    if family == "Bert" or task == "SequenceClassification" or method == "prompt_tuning"
    if method != "prefix_tuning" or family in PREFIXED
]
every_case = pytest.mark.parametrize("case", CASES, ids="-".join)
SOFT = [case for case in CASES if case[2] == "prompt_tuning"]

SIDE = {
    "vocab_size": VOCABULARY,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
}
BART = {
    "d_model": HIDDEN,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 40,
    "forced_eos_token_id": None,
}
T5 = {"d_model": HIDDEN, "d_kv": 8, "num_heads": 2, "num_layers": 2, "d_ff": 64}
WRITERS = {
    "T5": lambda: transformers.T5ForConditionalGeneration(transformers.T5Config(**SIDE, **T5)),
    "Bart": lambda: transformers.BartForConditionalGeneration(
        transformers.BartConfig(**SIDE, **BART)
    ),
    "Marian": lambda: transformers.MarianMTModel(
        transformers.MarianConfig(**SIDE, **BART, scale_embedding=True)
    ),
    "BertToBert": lambda: transformers.EncoderDecoderModel(
        transformers.EncoderDecoderConfig.from_encoder_decoder_configs(
            transformers.BertConfig(**SIZES, **BERT),
            transformers.BertConfig(**SIZES, **BERT, is_decoder=True, add_cross_attention=True),
            **SIDE,
        )
    ),
}
WRITING = [(writer, method) for writer in WRITERS for method in PEFT]
every_writing = pytest.mark.parametrize("case", WRITING, ids="-".join)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Models this small run many times faster on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def shaken(model: Any) -> Any:
    """Return a model whose biases and normalisations are not the zeros and ones of the start."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def build(case: tuple[str, ...], **more: Any) -> Any:
    family, task = case[:2]
    torch.manual_seed(0)
    labels = {"num_labels": 2} if task == "QuestionAnswering" else {}
    config = getattr(transformers, f"{family}Config")(**SIZES | FAMILIES[family] | labels | more)
    return shaken(getattr(transformers, f"{family}For{task}")(config))


def build_writer(case: tuple[str, str]) -> Any:
    torch.manual_seed(0)
    model = shaken(WRITERS[case[0]]())
    Generation.from_rows([], max_target_tokens=8, beams=3).add_modules(model)
    return model


def put_on(model: Any, method: str, kind: str, head: list[str] | None = None, **options: Any):
    peft = {**PEFT[method], "num_virtual_tokens": SIZE, **options}
    found = find_head(model) if head is None else head
    made = Method(name=method, learning_rate=1e-2, peft=peft)
    return adapt(LoadedModel(model, found), made, kind, []).eval()


def adapted(case: tuple[str, ...], base: Any = None, **options: Any) -> Any:
    model = build(case) if base is None else base
    return put_on(model, case[-1], TASKS[case[1]], **options)


def writing(case: tuple[str, str], base: Any = None) -> Any:
    model = build_writer(case) if base is None else base
    head = [] if case[0] == "BertToBert" else None
    return put_on(model, case[1], "SEQ_2_SEQ_LM", head)


def inputs(family: str = "Bert") -> dict[str, torch.Tensor]:
    """Three windows of 12 sub-words, the second one of 7 and padding, with two segments."""
    ids = torch.arange(36).view(3, 12) % 40 + 3
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    types = (torch.arange(12) > 4).long() * mask * (family in ("Bert", "Roberta", "Electra"))
    return {
        "input_ids": ids * mask + 1 - mask,
        "attention_mask": mask,
        "token_type_ids": types,
    }


def logits(model: Any, given: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        output = model(**given)
    if "start_logits" in output:
        return torch.stack([output.start_logits, output.end_logits], dim=-1)
    return output.logits


def train(model: Any, given: dict[str, torch.Tensor], steps: int = 2) -> list[str]:
    """Take steps on the mean square of the logits; return what got no gradient."""
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(weights, lr=0.1)
    for step in range(steps):
        torch.manual_seed(step)
        output = model.train()(**given)
        said = (
            output.start_logits + output.end_logits if "start_logits" in output else output.logits
        )
        optimizer.zero_grad()
        said.square().mean().backward()
        optimizer.step()
    model.eval()
    return [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]


def frozen(model: Any) -> dict[str, torch.Tensor]:
    named = model.named_parameters()
    return {name: p.detach().clone() for name, p in named if not p.requires_grad}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


class Trained(NamedTuple):
    """A model after two steps, what it was before, and the folder it was saved in."""

    model: Any
    base: Any
    folder: Path
    before: dict[str, torch.Tensor]  # its frozen weights
    idle: list[str]  # trainable weights without a gradient


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> dict[tuple[str, ...], Trained]:
    root, results = tmp_path_factory.mktemp("prompts"), {}
    for case in CASES:
        base, folder = build(case), root / "-".join(case)
        base.save_pretrained(folder / "base")
        model = adapted(case, copy.deepcopy(base))
        before = frozen(model)
        idle = train(model, inputs(case[0]))
        model.save_pretrained(folder / "adapter")
        results[case] = Trained(model, base, folder, before, idle)
    return results


# ---- what the encoder reads ----------------------------------------------------------------------


def with_pieces(given: dict[str, torch.Tensor], pieces: torch.Tensor, at: int) -> dict[str, Any]:
    """Return windows into which pieces are written at a place, of the first segment."""
    new = {
        "input_ids": pieces,
        "attention_mask": torch.ones_like(pieces),
        "token_type_ids": torch.zeros_like(pieces),
    }
    return {
        name: torch.cat([tensor[:, :at], new[name].expand(len(tensor), -1), tensor[:, at:]], dim=1)
        for name, tensor in given.items()
    }


def speak_pieces(model: Any, pieces: torch.Tensor) -> None:
    """Make the prompt say what some pieces of the vocabulary say."""
    prompt = model.prompt_encoder["default"].embedding.weight
    with torch.no_grad():
        prompt.copy_(model.word_embeddings.weight[pieces])


PIECES = torch.tensor([44, 9, 23, 31])


@pytest.mark.parametrize("case", SOFT, ids="-".join)
def test_a_prompt_of_pieces_is_read_like_these_pieces_behind_the_first(case):
    given = inputs(case[0])
    expected = logits(build(case), with_pieces(given, PIECES, at=1))
    if case[1] != "SequenceClassification":
        expected = torch.cat([expected[:, :1], expected[:, 1 + SIZE :]], dim=1)
    model = adapted(case)
    speak_pieces(model, PIECES)
    real = given["attention_mask"].bool() if expected.ndim == 3 else slice(None)
    torch.testing.assert_close(logits(model, given)[real], expected[real], atol=2e-6, rtol=0)


def test_a_prompt_where_peft_puts_it_is_read_otherwise():
    case = SOFT[0]
    plain = get_peft_model(build(case), adapted(case).peft_config["default"]).eval()
    speak_pieces(plain, PIECES)
    expected = logits(build(case), with_pieces(inputs(), PIECES, at=1))
    assert (logits(plain, inputs()) - expected).abs().max() > 1e-3


@pytest.mark.parametrize("writer", WRITERS)
def test_a_prompt_of_pieces_is_read_like_these_pieces_before_a_source(writer):
    given = inputs() | {"decoder_input_ids": torch.arange(15).view(3, 5) + 5}
    given.pop("token_type_ids")
    base = build_writer((writer, ""))
    more = with_pieces({k: given[k] for k in ("input_ids", "attention_mask")}, PIECES, at=0)
    expected = logits(base, given | more)
    model = writing((writer, "prompt_tuning"))
    speak_pieces(model, PIECES)
    torch.testing.assert_close(logits(model, given), expected, atol=1e-5, rtol=1e-5)


def test_words_of_another_scale_than_marians_would_show():
    given = inputs() | {"decoder_input_ids": torch.arange(15).view(3, 5) + 5}
    given.pop("token_type_ids")
    model = writing(("Marian", "prompt_tuning"))
    expected = logits(model, given)
    model.get_encoder()._forward_pre_hooks.clear()
    assert (logits(model, given) - expected).abs().max() > 1e-3


@every_case
def test_logits_of_a_window_do_not_depend_on_the_padding_of_its_batch(trained, case):
    given, model = inputs(case[0]), trained[case].model
    alone = {name: tensor[1:2, :7] for name, tensor in given.items()}
    together = logits(model, given)[1:2]
    if together.ndim == 3:
        together = together[:, :7]
    torch.testing.assert_close(together, logits(model, alone), atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", PEFT)
def test_padding_that_is_read_would_show(trained, method):
    model, given = trained["Bert", "TokenClassification", method].model, inputs()
    read = given | {"attention_mask": torch.ones_like(given["attention_mask"])}
    assert (logits(model, read)[1, :7] - logits(model, given)[1, :7]).abs().max() > 1e-4


@every_case
def test_there_is_one_output_a_sub_word(trained, case):
    shape = logits(trained[case].model, inputs(case[0])).shape
    assert shape[0] == 3
    assert len(shape) == 2 or shape[1] == 12


def test_plain_peft_gives_outputs_for_the_prompt_too(trained):
    case = ("Bert", "TokenClassification", "prompt_tuning")
    plain = PeftModel.from_pretrained(build(case), trained[case].folder / "adapter")
    assert logits(plain, inputs()).shape[1] == 12 + SIZE


@pytest.mark.parametrize("method", PEFT)
@pytest.mark.parametrize("task", TASKS)
def test_segments_are_read_on_every_kind(trained, task, method):
    model, given = trained["Bert", task, method].model, inputs()
    one = given | {"token_type_ids": torch.zeros_like(given["token_type_ids"])}
    assert (logits(model, one) - logits(model, given)).abs().max() > 1e-4


@pytest.mark.parametrize("method", PEFT)
def test_masked_places_are_seen_where_they_are(trained, method):
    model, given = trained["Bert", "MaskedLM", method].model, inputs()
    masked = torch.zeros(3, 12, dtype=torch.bool)
    masked[0, 0] = masked[0, 5] = masked[2, 11] = True
    seen = predict_masked(model, given, masked)
    torch.testing.assert_close(seen.logits, logits(model, given)[masked], atol=1e-6, rtol=0)
    assert seen.hidden is not None
    assert seen.hidden.shape == (3, 12, HIDDEN)


@pytest.mark.parametrize("method", PEFT)
def test_hidden_states_have_one_place_a_sub_word(trained, method):
    model = trained["Bert", "MaskedLM", method].model
    states = model(**inputs(), output_hidden_states=True).hidden_states
    assert [state.shape for state in states] == [(3, 12, HIDDEN)] * (LAYERS + 1)


@pytest.mark.parametrize("method", PEFT)
def test_dropout_is_on_in_training(trained, method):
    model, given = trained["Bert", "TokenClassification", method].model, inputs()
    first, second = logits(model.train(), given), logits(model, given)
    model.eval()
    assert not torch.equal(first, second)
    assert torch.equal(logits(model, given), logits(model, given))


@every_case
def test_the_encoder_by_itself_reads_no_prompt(case):
    base = build(case)
    expected = logits(base, inputs(case[0]))
    model = adapted(case, base)
    logits(model, inputs(case[0]))
    assert torch.equal(logits(model.get_base_model(), inputs(case[0])), expected)


def test_a_call_that_fails_leaves_no_prompt_behind():
    case = SOFT[0]
    model = adapted(case)
    with pytest.raises((IndexError, RuntimeError)):
        logits(model, {"input_ids": torch.full((1, 99), 5)})  # of more places than it has
    assert torch.equal(logits(model.get_base_model(), inputs()), logits(build(case), inputs()))


# ---- what is trained -----------------------------------------------------------------------------


def prompt_by_formula(family: str, method: str) -> int:
    width = EMBEDDING if family == "Electra" else HIDDEN
    if method == "prefix_tuning":
        return SIZE * 2 * LAYERS * HIDDEN
    if method == "prompt_tuning":
        return SIZE * width
    return SIZE * width + 3 * (width * width + width)


def count(named: Any) -> int:
    return sum(p.numel() for _, p in named if p.requires_grad)


@every_case
def test_the_number_of_trained_parameters_is_the_closed_formula(trained, case):
    model = trained[case].model
    head = count((n, p) for n, p in model.base_model.named_parameters() if ".modules_to_save." in n)
    assert head > 0
    assert count(model.named_parameters()) == head + prompt_by_formula(case[0], case[2])


def test_a_prompt_by_an_lstm_has_two_layers_each_way_and_two_more_matrices():
    options = {"encoder_reparameterization_type": "LSTM"}
    encoder = adapted(("Bert", "MaskedLM", "p_tuning"), **options).prompt_encoder
    lstm = 2 * sum(4 * HIDDEN * (inside + HIDDEN + 2) for inside in (HIDDEN, 2 * HIDDEN))
    ends = (2 * HIDDEN + 1) * (2 * HIDDEN + HIDDEN)
    assert count(encoder.named_parameters()) == SIZE * HIDDEN + lstm + ends


@pytest.mark.parametrize(
    ("writer", "numbers"),
    [("T5", 2 * 2 * 16), ("Bart", 2 * 3 * HIDDEN), ("BertToBert", 2 * LAYERS * HIDDEN)],
)
def test_a_prefix_of_an_encoder_decoder_is_of_the_decoders_own_attention(writer, numbers):
    model = writing((writer, "prefix_tuning"))
    assert count(model.named_parameters()) == SIZE * numbers


@every_case
def test_every_trained_parameter_gets_a_gradient(trained, case):
    assert trained[case].idle == []


@every_case
def test_training_leaves_every_other_parameter_as_it_was(trained, case):
    assert same(frozen(trained[case].model), trained[case].before)


def test_a_weight_left_trainable_would_show():
    case = CASES[0]
    model = adapted(case)
    before = frozen(model)
    model.get_input_embeddings().weight.requires_grad_(True)
    train(model, inputs())
    assert not same({n: p for n, p in model.named_parameters() if n in before}, before)


@every_case
def test_a_fresh_prompt_is_not_the_base_model(case):
    given = inputs(case[0])
    assert (logits(adapted(case), given) - logits(build(case), given)).abs().max() > 1e-6


def test_a_prompt_starts_as_pieces_of_the_vocabulary_that_the_seed_draws():
    def drawn(seed: int) -> torch.Tensor:
        base = build(SOFT[0])
        torch.manual_seed(seed)
        return adapted(SOFT[0], base).prompt_encoder["default"].embedding.weight

    rows = build(SOFT[0]).get_input_embeddings().weight
    assert all((row == rows).all(-1).any() for row in drawn(1))
    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


class Loop(NamedTuple):
    """Plain training: the losses of a model that says its own."""

    rate: float = 1e-2

    def losses(self, model: Any, loss_of: Any, steps: int = 6) -> list[float]:
        weights = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=self.rate)
        found = []
        for step in range(steps):
            torch.manual_seed(step)
            loss = loss_of(model.train())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        return found


def prefix_losses(size: int, plain: bool) -> list[float]:
    """Losses of prefix tuning on classification, by plain peft or by our task and method."""
    case = ("Bert", "SequenceClassification", "prefix_tuning")
    base, labels = build(case), torch.tensor([0, 2, 1])
    torch.manual_seed(7)
    if plain:
        config = PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=size)
        model = get_peft_model(base, config)
        return Loop().losses(model, lambda model: model(**inputs(), labels=labels).loss)
    model = adapted(case, base, num_virtual_tokens=size)
    task, batch = Classification(["a", "b", "c"]), {"inputs": inputs(), "labels": labels}

    def mean(model: Any) -> torch.Tensor:
        total, terms = task.loss(model, batch)
        return total / terms

    return Loop().losses(model, mean)


def test_losses_of_prefix_tuning_equal_those_of_plain_peft_at_every_step():
    assert prefix_losses(SIZE, plain=False) == pytest.approx(prefix_losses(SIZE, True), abs=1e-7)


def test_losses_tell_a_prefix_of_another_size():
    ours = prefix_losses(SIZE + 1, plain=False)
    assert ours != pytest.approx(prefix_losses(SIZE, plain=True), abs=1e-5)


# ---- saved and loaded ----------------------------------------------------------------------------

RELOAD = """
import sys
from pathlib import Path
import torch, transformers
from peft import PeftModel
from crosstune.methods.prompts import install_prompt_hooks

torch.set_num_threads(1)
for folder in sorted(path for path in Path(sys.argv[1]).iterdir() if path.is_dir()):
    family, task, _ = folder.name.split("-")
    base = getattr(transformers, f"{family}For{task}").from_pretrained(folder / "base")
    with torch.no_grad():
        for name, parameter in base.named_parameters():
            if "classifier" in name or "qa_outputs" in name:
                parameter.add_(1)
        model = install_prompt_hooks(PeftModel.from_pretrained(base, folder / "adapter")).eval()
        output = model(**torch.load(folder / "inputs.pt"))
    said = [output.start_logits, output.end_logits] if "start_logits" in output else [output.logits]
    torch.save(said, folder / "logits.pt")
"""


@pytest.fixture(scope="module")
def reloaded(trained) -> Path:
    """The folder in which a new process wrote each reloaded model's logits."""
    root = next(iter(trained.values())).folder.parent
    for case, one in trained.items():
        torch.save(inputs(case[0]), one.folder / "inputs.pt")
    command = [sys.executable, "-W", "ignore", "-c", RELOAD, str(root)]
    subprocess.run(command, check=True, capture_output=True)
    return root


@pytest.mark.slow  # test_laws.py has one process for all methods
@every_case
def test_a_new_process_reloads_prompt_and_head_to_the_last_bit(trained, reloaded, case):
    said = torch.load(reloaded / "-".join(case) / "logits.pt")
    found = torch.stack(said, dim=-1) if len(said) == 2 else said[0]
    expected = logits(trained[case].model, inputs(case[0]))
    assert torch.equal(found, expected)
    assert not torch.equal(expected, logits(trained[case].base, inputs(case[0])))


@pytest.mark.parametrize("method", PEFT)
def test_loading_into_the_same_process_gives_the_same_logits(trained, method):
    case = ("Bert", "SequenceClassification", method)
    loaded = install_prompt_hooks(
        PeftModel.from_pretrained(build(case), trained[case].folder / "adapter")
    )
    assert torch.equal(logits(loaded, inputs()), logits(trained[case].model, inputs()))


@every_case
def test_the_folder_holds_the_prompt_and_the_head_and_no_more(trained, case):
    saved = load_file(trained[case].folder / "adapter" / "adapter_model.safetensors")
    prompt = saved.pop("prompt_embeddings")
    width = EMBEDDING if case[0] == "Electra" else HIDDEN
    assert prompt.shape == (SIZE, 2 * LAYERS * HIDDEN if case[2] == "prefix_tuning" else width)
    named = trained[case].model.base_model.named_parameters()
    heads = {n.replace(".modules_to_save.default", "") for n, p in named if p.requires_grad}
    assert {name.removeprefix("base_model.") for name in saved} == heads


def test_a_head_lost_from_the_file_shows(trained, tmp_path):
    case = CASES[0]
    source = trained[case].folder / "adapter"
    saved = load_file(source / "adapter_model.safetensors")
    del saved["base_model.classifier.weight"]
    save_file(saved, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_bytes((source / "adapter_config.json").read_bytes())
    with pytest.raises(KeyError, match="classifier"):
        PeftModel.from_pretrained(build(case), tmp_path)


def test_without_restore_a_loaded_prompt_is_read_elsewhere(trained):
    case = SOFT[0]
    plain = PeftModel.from_pretrained(build(case), trained[case].folder / "adapter")
    expected = logits(trained[case].model, inputs())
    assert (logits(plain, inputs()) - expected).abs().max() > 1e-4
    assert torch.equal(logits(install_prompt_hooks(plain), inputs()), expected)


def test_a_prefix_on_classification_is_plain_peft_to_the_last_bit(trained):
    case = ("Bert", "SequenceClassification", "prefix_tuning")
    plain = PeftModel.from_pretrained(build(case), trained[case].folder / "adapter")
    assert torch.equal(logits(plain, inputs()), logits(trained[case].model, inputs()))


@every_case
def test_restoring_twice_changes_nothing(trained, case):
    model = adapted(case)
    assert torch.equal(
        logits(install_prompt_hooks(model), inputs(case[0])), logits(model, inputs(case[0]))
    )
    assert len(model._forward_pre_hooks) == 1


def test_restore_leaves_a_model_without_a_prompt_as_it_is():
    model = build(CASES[0])
    assert install_prompt_hooks(model) is model
    assert not model._forward_pre_hooks


@pytest.mark.parametrize("method", PEFT)
def test_a_copy_reads_its_own_prompt(trained, method):
    model = trained["Bert", "MaskedLM", method].model
    twin = copy.deepcopy(model)
    assert torch.equal(logits(twin, inputs()), logits(model, inputs()))
    with torch.no_grad():
        twin.prompt_encoder["default"].embedding.weight.add_(0.5)
    assert not torch.equal(logits(twin, inputs()), logits(model, inputs()))


def crf_and_boundary(kind: str) -> Any:
    """Return a model with a head of a kind's own, and the names of all its heads."""
    if kind == "crf":
        base = build(("Bert", "TokenClassification"))
        return base, [
            *find_head(base),
            *Tagging(["B", "I", "O"], "tags", crf=True).add_modules(base),
        ]
    base = build(("Bert", "MaskedLM"))
    add_boundary(base)
    return base, [*find_head(base), "bert.pooler", "span_boundary"]


@pytest.mark.parametrize("kind", ["crf", "boundary"])
@pytest.mark.parametrize("method", PEFT)
def test_heads_of_a_kinds_own_are_trained_saved_and_loaded(kind, method, tmp_path):
    task = "TOKEN_CLS" if kind == "crf" else "FEATURE_EXTRACTION"
    model = put_on(crf_and_boundary(kind)[0], method, task, crf_and_boundary(kind)[1])
    own = {n: p for n, p in model.named_parameters() if "crf" in n or "span_boundary" in n}
    new = {n: p for n, p in own.items() if ".modules_to_save." in n}
    assert new
    assert all(p.requires_grad for p in new.values())
    with torch.no_grad():
        for parameter in new.values():
            parameter.add_(torch.randn_like(parameter))
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(crf_and_boundary(kind)[0], tmp_path)
    found = dict(loaded.named_parameters())
    assert all(torch.equal(found[name], parameter) for name, parameter in new.items())


# ---- generation ----------------------------------------------------------------------------------


def source() -> dict[str, torch.Tensor]:
    return {name: inputs()[name] for name in ("input_ids", "attention_mask")}


def batch() -> dict[str, Any]:
    labels = torch.arange(15).view(3, 5) + 7
    labels[:, -1] = 2
    return {"inputs": inputs(), "labels": labels}


def write(model: Any, given: dict[str, torch.Tensor], beams: int = 3) -> Any:
    """Return texts with the sums of their log-probabilities."""
    return model.generate(
        **given,
        num_beams=beams,
        max_new_tokens=8,
        length_penalty=0.0,
        do_sample=False,
        return_dict_in_generate=True,
        output_scores=True,
    )


def told(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Return the log-probabilities of texts when the model is told them."""
    log_p = logits(model, source() | {"decoder_input_ids": ids[:, :-1], "use_cache": False})
    found = log_p.log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
    ended = (ids[:, 1:] == 2).long()
    return (found * (ended.cumsum(-1) - ended == 0)).sum(-1)


@pytest.fixture(scope="module")
def writers() -> dict[tuple[str, str], Any]:
    """Return encoder-decoders after some steps, with what got no gradient."""
    found = {}
    for case in WRITING:
        model = writing(case)
        weights = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=0.05)
        for _ in range(3):
            total, terms = Generation.from_rows([]).loss(model.train(), batch())
            optimizer.zero_grad()
            (total / terms).backward()
            optimizer.step()
        idle = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
        found[case] = (model.eval(), idle)
    return found


@every_writing
def test_beam_search_writes_by_the_probabilities_of_teacher_forcing(writers, case):
    model, idle = writers[case]
    assert idle == []
    found = write(model, source())
    expected = told(model, found.sequences)
    torch.testing.assert_close(found.sequences_scores, expected, atol=2e-5, rtol=0)


@every_writing
def test_another_prompt_would_show_in_the_probabilities(writers, case):
    model = copy.deepcopy(writers[case][0])
    found = write(model, source())
    with torch.no_grad():
        model.prompt_encoder["default"].embedding.weight.normal_(std=5)
    assert (found.sequences_scores - told(model, found.sequences)).abs().max() > 1e-4


@every_writing
def test_greedy_texts_are_the_best_pieces_of_teacher_forcing(writers, case):
    model, _ = writers[case]
    ids = write(model, source(), beams=1).sequences
    said = logits(model, source() | {"decoder_input_ids": ids[:, :-1], "use_cache": False})
    ended = (ids[:, 1:] == 2).long()
    inside = ended.cumsum(-1) - ended == 0
    assert torch.equal(said.argmax(-1)[inside], ids[:, 1:][inside])


@every_writing
def test_a_text_does_not_depend_on_the_padding_of_its_batch(writers, case):
    model, _ = writers[case]
    alone = write(model, {name: tensor[1:2, :7] for name, tensor in source().items()})
    together = write(model, source())
    torch.testing.assert_close(
        together.sequences_scores[1:2], alone.sequences_scores, atol=1e-4, rtol=1e-5
    )


@every_writing
def test_a_loaded_writer_writes_the_same_texts(writers, case, tmp_path):
    model, _ = writers[case]
    model.save_pretrained(tmp_path)
    loaded = install_prompt_hooks(PeftModel.from_pretrained(build_writer(case), tmp_path)).eval()
    first, second = write(loaded, source()), write(model, source())
    assert torch.equal(first.sequences, second.sequences)
    assert torch.equal(first.sequences_scores, second.sequences_scores)


# ---- room and refusals ---------------------------------------------------------------------------


@every_case
def test_a_prompt_and_a_prefix_take_positions_of_an_encoder(case):
    assert find_tuning_method(adapted(case)).virtual_tokens == SIZE


@every_writing
def test_a_prefix_of_a_decoder_takes_none_of_the_encoder(case):
    assert find_tuning_method(writing(case)).virtual_tokens == (
        0 if case[1] == "prefix_tuning" else SIZE
    )


def test_a_model_without_a_prompt_takes_no_positions():
    assert find_tuning_method(build(CASES[0])).virtual_tokens == 0


@pytest.mark.parametrize("method", PEFT)
@pytest.mark.parametrize("family", ["Bert", "Roberta", "Electra"])
def test_the_last_position_of_the_table_can_be_taken(family, method):
    model = adapted((family, "TokenClassification", method))
    start = 2 if family == "Roberta" else 0  # where its positions begin: behind that of padding
    full = torch.full((1, 40 - start - SIZE), 5)
    assert logits(model, {"input_ids": full}).isfinite().all()
    with pytest.raises((IndexError, RuntimeError)):
        logits(model, {"input_ids": torch.full((1, full.shape[1] + 1), 5)})


@pytest.mark.parametrize("family", ["DistilBert", "DebertaV2"])
def test_a_prefix_where_no_attention_takes_one_is_refused(family):
    with pytest.raises(ConfigError, match="takes no keys and values beside its own"):
        adapted((family, "MaskedLM", "prefix_tuning"))


def test_an_encoder_decoder_that_does_not_generate_is_refused():
    with pytest.raises(ConfigError, match="generation only"):
        put_on(build_writer(("T5", "")), "prompt_tuning", "SEQ_CLS")


@pytest.mark.parametrize("size", [0, -1])
def test_a_prompt_without_a_whole_size_is_refused(size):
    with pytest.raises(ConfigError, match=f"num_virtual_tokens={size}: must be a whole number"):
        adapted(CASES[0], num_virtual_tokens=size)


def test_a_decoder_without_room_for_prefix_and_text_is_refused():
    with pytest.raises(ConfigError, match=r"max_target_tokens=8 and .*=33: .* has 40 positions"):
        put_on(build_writer(("Bart", "")), "prefix_tuning", "SEQ_2_SEQ_LM", num_virtual_tokens=33)
    put_on(build_writer(("Bart", "")), "prefix_tuning", "SEQ_2_SEQ_LM", num_virtual_tokens=32)

"""Exports a finished run as a folder that plain transformers and peft load, with a model card.

An adapter of a peft method stays an adapter, beside its base unless the base is on a model hub. Our
own methods are merged into the weights where that is exact.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from crosstune.errors import ConfigError, CrosstuneError, one_line
from crosstune.files import atomic_folder
from crosstune.inference.load_run import (
    ADAPTER,
    FinishedRun,
    is_on_hub,
    load_adapter,
    load_base,
    load_run,
)
from crosstune.inference.model_card import render_card

TOLERANCE = 1e-4  # largest difference between the logits of adapted and exported model, in float32
ALTERNATIVE = (
    "Use crosstune predict, or load it in a process that imports crosstune.inference.load_run."
)
PROBE = "El 2 de mayo, she said: 你好！"  # both models must give the same logits for it


def export(run: Path, target: Path) -> None:
    """Write the model of a finished run, its tokenizer and its model card to a new folder.

    Raises:
        ConfigError: there is no finished run, the folder exists, or the model does not work without
            crosstune.
    """
    if target.exists():
        raise ConfigError(f"output={target}: it exists already. Give the name of a new folder.")
    saved = load_run(run)
    _check_modules(saved)
    with atomic_folder(target) as partial:
        if saved.adapted and _is_peft_method(saved.model):
            base_arguments = _write_adapter(saved, partial)
        else:
            model = _merge(saved) if saved.adapted else saved.model
            model.save_pretrained(partial)
            base_arguments = ""
        # without it a "[SEP]" in a text becomes a special token; save_pretrained drops the option
        saved.tokenizer.init_kwargs["split_special_tokens"] = True
        saved.tokenizer.save_pretrained(partial)
        (partial / "README.md").write_text(render_card(saved, base_arguments), "utf-8")


def _is_peft_method(model: Any) -> bool:
    return type(model.peft_config["default"]).__module__.startswith("peft.")


def _check_modules(saved: FinishedRun) -> None:
    """Raise ConfigError if crosstune added a module that plain transformers lacks (a CRF)."""
    model: PreTrainedModel = saved.model.get_base_model() if saved.adapted else saved.model
    with torch.device("meta"):
        plain: Any = type(model)(model.config)
    plain_names = dict(plain.named_children())
    added = [name for name, _ in model.named_children() if name not in plain_names]
    if added:
        raise ConfigError(
            f"run={saved.folder}: its model has the module {added[0]}, which transformers' "
            f"{type(model).__name__} lacks: without crosstune it would predict otherwise. Train "
            "without that option to export, or use crosstune predict."
        )


def _write_adapter(saved: FinishedRun, folder: Path) -> str:
    """Write an adapter and, unless it is on a hub, its base; return arguments that load the base.

    The head of the base is random: the adapter brings the trained one.

    Raises:
        ConfigError: plain peft gives other logits, as for prompts, which crosstune inserts itself.
    """
    source, model = saved.folder / "model", saved.run.model
    torch.manual_seed(saved.run.seed)
    base = load_base(saved).eval()
    if not is_on_hub(model):
        base.save_pretrained(folder / "base")
    plain = load_adapter(base, saved.folder).eval()
    _check_same_logits(saved, _compute_logits(saved, saved.model), _compute_logits(saved, plain))
    for path in source.glob("adapter_model*.safetensors"):
        shutil.copyfile(path, folder / path.name)
    config = json.loads((source / ADAPTER).read_text("utf-8"))
    arguments = "'base'"
    config["base_model_name_or_path"] = "base"
    if is_on_hub(model):
        config |= {"base_model_name_or_path": model.hub_id, "revision": model.revision}
        labels = f", num_labels={len(saved.task.labels)}" if saved.task.labels else ""
        arguments = f"{model.hub_id!r}, revision={model.revision!r}{labels}"
    (folder / ADAPTER).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return arguments


def _merge(saved: FinishedRun) -> PreTrainedModel:
    """Merge the adapter into the weights.

    Raises:
        ConfigError: the method cannot be merged, or not exactly.
    """
    before = _compute_logits(saved, saved.model)
    try:
        merged = saved.model.merge_and_unload()
    except (CrosstuneError, AttributeError, NotImplementedError, ValueError) as error:
        raise ConfigError(
            f"run={saved.folder}: peft has no method {saved.run.method.name}, and it cannot be "
            f"merged into the model's weights: {one_line(error)} {ALTERNATIVE}"
        ) from error
    _check_same_logits(saved, before, _compute_logits(saved, merged))
    return merged


@torch.inference_mode()
def _compute_logits(saved: FinishedRun, model: Any) -> dict[str, torch.Tensor]:
    inputs: Any = saved.tokenizer(PROBE, PROBE, return_tensors="pt")
    if saved.model.config.is_encoder_decoder:
        inputs = {"input_ids": inputs["input_ids"], "decoder_input_ids": inputs["input_ids"]}
    return {k: tensor for k, tensor in model(**inputs).items() if k.endswith("logits")}


def _check_same_logits(
    saved: FinishedRun, before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]
) -> None:
    if not all(
        before[name].shape == after[name].shape
        and torch.allclose(before[name], after[name], rtol=0, atol=TOLERANCE)
        for name in before
    ):
        raise ConfigError(
            f"run={saved.folder}: with method {saved.run.method.name} the model gives other logits "
            f"without crosstune. {ALTERNATIVE}"
        )

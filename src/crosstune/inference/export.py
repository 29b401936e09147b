"""Export: a finished run as a folder that plain transformers and peft load, with a model card.

An adapter of a method that peft knows stays one, beside its base unless a model hub has that;
methods of crosstune's own are merged into the weights where that is exact. Called by `cli.py`.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from crosstune.errors import ConfigError, CrosstuneError
from crosstune.files import atomic_folder
from crosstune.inference.load_run import (
    ADAPTER,
    FinishedRun,
    is_on_hub,
    load_adapter,
    load_base,
    load_run,
)
from crosstune.inference.model_card import Card, find_other_seeds, render_card

TOLERANCE = 1e-4  # largest difference between the logits of adapted and merged weights, in float32
INSTEAD = (
    "Use crosstune predict, or load it in a process that imports crosstune.inference.load_run."
)
WORDS = "El 2 de mayo, she said: 你好！"


def export(run: Path, target: Path) -> None:
    """Write the model of a finished run, its tokenizer and its card to a new folder.

    Raises:
        ConfigError: there is no finished run, the folder exists, or the model cannot do without
            crosstune.
    """
    if target.exists():
        raise ConfigError(f"output={target}: it exists already. Give the name of a new folder.")
    saved = load_run(run)
    _refuse_own_modules(saved)
    with atomic_folder(target) as partial:
        if saved.adapted and _is_known(saved.model):
            load, form = _write_adapter(saved, partial)
        else:
            load, form = _write_whole(saved, partial)
        # what keeps a "[SEP]" in a text from being more than text is not saved by itself
        saved.tokenizer.init_kwargs["split_special_tokens"] = True
        saved.tokenizer.save_pretrained(partial)
        card = Card(
            record=saved.record,
            others=find_other_seeds(saved.folder, saved.record),
            auto_class=saved.task.auto_class,
            options={k: v for k, v in vars(saved.task).items() if k != "vocabulary"},
            load=load,
            form=form,
            library="peft" if (partial / ADAPTER).is_file() else "transformers",
        )
        (partial / "README.md").write_text(render_card(card), "utf-8")


def _is_known(model: Any) -> bool:
    """Say whether peft itself has the method of an adapter."""
    return type(model.peft_config["default"]).__module__.startswith("peft.")


def _refuse_own_modules(saved: FinishedRun) -> None:
    whole: PreTrainedModel = saved.model.get_base_model() if saved.adapted else saved.model
    with torch.device("meta"):
        plain: Any = type(whole)(whole.config)
    known = dict(plain.named_children())
    own = [name for name, _ in whole.named_children() if name not in known]
    if own:
        raise ConfigError(
            f"run={saved.folder}: its model has the module {own[0]}, which transformers' "
            f"{type(whole).__name__} lacks: without crosstune it would answer otherwise. Train "
            "without that option to export, or use crosstune predict."
        )


def _write_adapter(saved: FinishedRun, folder: Path) -> tuple[str, str]:
    """Write an adapter and, where no hub has it, its base; return how to load it, and what it is.

    The base's head is as random as it was: the adapter brings the trained one.

    Raises:
        ConfigError: crosstune does more for the method than plain peft (prompts).
    """
    held, model = saved.folder / "model", saved.run.model
    torch.manual_seed(saved.run.seed)
    base = load_base(saved).eval()
    if not is_on_hub(model):
        base.save_pretrained(folder / "base")
    plain = load_adapter(base, saved.folder).eval()
    _check_same(saved, _say(saved, saved.model), _say(saved, plain))
    for path in held.glob("adapter_model*.safetensors"):
        shutil.copyfile(path, folder / path.name)
    config = json.loads((held / ADAPTER).read_text("utf-8"))
    if is_on_hub(model):
        config |= {"base_model_name_or_path": model.hub_id, "revision": model.revision}
        labels = f", num_labels={len(saved.task.labels)}" if saved.task.labels else ""
        named = f"{model.hub_id!r}, revision={model.revision!r}{labels}"
        form = "A peft adapter, with the task's head, for the checkpoint named below."
    else:
        config["base_model_name_or_path"] = "base"
        named, form = "'base'", "A peft adapter, with the task's head, beside its base model."
    (folder / ADAPTER).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", "utf-8")
    auto = saved.task.auto_class
    lines = (
        "from peft import PeftModel",
        f"from transformers import {auto}, AutoTokenizer",
        "",
        f"base = {auto}.from_pretrained({named})  # in this folder",
        "model = PeftModel.from_pretrained(base, '.').eval()",
        "tokenizer = AutoTokenizer.from_pretrained('.')",
    )
    return "\n".join(lines), form


def _write_whole(saved: FinishedRun, folder: Path) -> tuple[str, str]:
    """Write all weights, an adapter merged into them; return how to load it, and what it is."""
    form = "A whole model."
    whole = saved.model
    if saved.adapted:
        method = saved.run.method.name
        whole = _merge(saved)
        form = f"A whole model: peft has no method {method}, so its changes are merged into it."
    whole.save_pretrained(folder)
    auto = saved.task.auto_class
    lines = (
        f"from transformers import {auto}, AutoTokenizer",
        "",
        f"model = {auto}.from_pretrained('.').eval()  # in this folder",
        "tokenizer = AutoTokenizer.from_pretrained('.')",
    )
    return "\n".join(lines), form


def _merge(saved: FinishedRun) -> PreTrainedModel:
    """Return the weights with the adapter in them.

    Raises:
        ConfigError: the method cannot be merged, or not exactly.
    """
    method = saved.run.method.name
    before = _say(saved, saved.model)
    try:
        merged = saved.model.merge_and_unload()
    except (CrosstuneError, AttributeError, NotImplementedError, ValueError) as error:
        raise ConfigError(
            f"run={saved.folder}: peft has no method {method}, and it cannot be merged into the "
            f"model's weights: {' '.join(str(error).split())} {INSTEAD}"
        ) from error
    _check_same(saved, before, _say(saved, merged))
    return merged


@torch.inference_mode()
def _say(saved: FinishedRun, model: Any) -> dict[str, torch.Tensor]:
    """Return the logits that a model gives for a pair of texts."""
    inputs: Any = saved.tokenizer(WORDS, WORDS, return_tensors="pt")
    if saved.model.config.is_encoder_decoder:
        inputs = {"input_ids": inputs["input_ids"], "decoder_input_ids": inputs["input_ids"]}
    return {k: tensor for k, tensor in model(**inputs).items() if k.endswith("logits")}


def _check_same(
    saved: FinishedRun, before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]
) -> None:
    same = (
        before[name].shape == after[name].shape
        and torch.allclose(before[name], after[name], rtol=0, atol=TOLERANCE)
        for name in before
    )
    if not all(same):
        raise ConfigError(
            f"run={saved.folder}: with method {saved.run.method.name} the model answers otherwise "
            f"without crosstune. {INSTEAD}"
        )

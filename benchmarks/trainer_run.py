"""One run of transformers.Trainer, as its documentation shows it: crosstune's measure.

Reads a spec as `cases.py` writes it, trains, keeps the best checkpoint on validation, tests it;
prints one JSON object. `padding` is max, dynamic or group. The rows come shuffled (`rivals.py`).
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from datasets import Dataset

from rivals import load_items, load_model, score_indices


def main() -> None:
    """Train and test as the spec on the command line says."""
    spec: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    labels, tokenizer, items = load_items(spec)
    sets: Any = {split: Dataset.from_list(found) for split, found in items.items()}
    trainer = transformers.Trainer(
        model=load_model(spec, labels),
        args=_arguments(spec, len(items["train"])),
        train_dataset=sets["train"],
        eval_dataset=sets["validation"],
        data_collator=_collator(spec, tokenizer),
        processing_class=tokenizer,
        compute_metrics=lambda found: {
            "score": score_indices(
                spec, labels, np.argmax(found.predictions, -1).tolist(), items["validation"]
            )
        },
    )
    trained = trainer.train().metrics
    evaluated = sum(line.get("eval_runtime", 0.0) for line in trainer.state.log_history)
    trainer.compute_metrics = None
    best: Any = trainer.predict(sets["test"]).predictions
    trainer.save_model(spec["output"])
    tokens = sum(len(item["input_ids"]) for item in items["train"])
    seconds = trained["train_runtime"] - evaluated
    said = {
        "score": score_indices(spec, labels, best.argmax(-1).tolist(), items["test"]),
        "tokens_per_second": tokens * spec["epochs"] / seconds,
    }
    print(json.dumps(said))


def _arguments(spec: dict[str, Any], rows: int) -> transformers.TrainingArguments:
    steps = -(-rows // spec["batch_size"]) * spec["epochs"]
    grouped = spec["padding"] == "group"
    return transformers.TrainingArguments(
        output_dir=spec["output"],
        num_train_epochs=spec["epochs"],
        per_device_train_batch_size=spec["batch_size"],
        per_device_eval_batch_size=spec["batch_size"],
        learning_rate=spec["learning_rate"],
        weight_decay=spec["weight_decay"],
        warmup_steps=round(spec["warmup_ratio"] * steps),
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="score",
        train_sampling_strategy="group_by_length" if grouped else "sequential",
        logging_steps=10,
        seed=spec["seed"],
        report_to="none",
        disable_tqdm=True,
        use_cpu=spec.get("device", "cpu") == "cpu",
        bf16=spec.get("device", "cpu") != "cpu" and torch.cuda.is_bf16_supported(),
    )


def _collator(spec: dict[str, Any], tokenizer: Any) -> Any:
    padding: Any = "max_length" if spec["padding"] == "max" else True
    kind = (
        transformers.DataCollatorWithPadding
        if spec["kind"] == "classification"
        else transformers.DataCollatorForTokenClassification
    )
    return kind(tokenizer, padding=padding, max_length=spec["max_tokens"])


if __name__ == "__main__":
    main()

"""One run of a plain PyTorch loop: the least that trains the same model on the same batches' sizes.

Uniform random batches (the rows come shuffled), padded to their longest text; the weights of the
last step are tested. Reads a spec as `cases.py` writes it; prints one JSON object.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
import transformers

from rivals import IGNORE, load_items, load_model, score_indices


def main() -> None:
    """Train and test as the spec on the command line says."""
    spec: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    labels, tokenizer, items = load_items(spec)
    model = load_model(spec, labels)
    seconds = train(model, items["train"], spec, tokenizer.pad_token_id)
    scores = {
        split: score_indices(
            spec, labels, predict(model, items[split], spec, tokenizer.pad_token_id), items[split]
        )
        for split in ("validation", "test")
    }
    model.save_pretrained(spec["output"])
    tokens = sum(len(item["input_ids"]) for item in items["train"])
    rate = tokens * spec["epochs"] / seconds
    print(json.dumps({"score": scores["test"], "tokens_per_second": rate}))


def train(model: Any, items: list[dict[str, Any]], spec: dict[str, Any], pad_id: int) -> float:
    """Train the model and return the seconds that it took."""
    size = spec["batch_size"]
    steps = -(-len(items) // size) * spec["epochs"]
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": spec["weight_decay"]},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=spec["learning_rate"],
        fused=True,
    )
    schedule = transformers.get_linear_schedule_with_warmup(
        optimizer, round(spec["warmup_ratio"] * steps), steps
    )
    model.train()
    began = time.perf_counter()
    for _ in range(spec["epochs"]):
        for start in range(0, len(items), size):
            batch = collate(items[start : start + size], pad_id)
            loss = model(**batch).loss
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
    return time.perf_counter() - began


@torch.inference_mode()
def predict(
    model: Any, items: list[dict[str, Any]], spec: dict[str, Any], pad_id: int
) -> list[Any]:
    """Return the best label of each item, or of each of its sub-words."""
    model.eval()
    size = spec["batch_size"]
    best: list[Any] = []
    for start in range(0, len(items), size):
        batch = collate(items[start : start + size], pad_id)
        best += model(**batch).logits.argmax(-1).tolist()
    return best


def collate(items: list[dict[str, Any]], pad_id: int) -> dict[str, torch.Tensor]:
    """Return items as tensors, padded to the longest."""
    longest = max(len(item["input_ids"]) for item in items)
    fillers = {"input_ids": pad_id, "attention_mask": 0, "labels": IGNORE}
    return {
        name: torch.tensor(
            [
                [*item[name], *[filler] * (longest - len(item[name]))]
                if isinstance(item[name], list)
                else item[name]
                for item in items
            ]
        )
        for name, filler in fillers.items()
    }


if __name__ == "__main__":
    main()

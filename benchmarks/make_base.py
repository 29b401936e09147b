"""Make the encoder that all start from: a tokenizer of the training text, random weights.

Reads a spec as `cases.py` writes it; leaves the folder that its `base` names, as transformers loads
it. A script of its own, so that the process that measures others never imports torch.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertModel

from crosstune.models.tokenizers import train_tokenizer
from rivals import read_rows, texts_of

VOCABULARY = 8000


def main() -> None:
    """Make the base that the spec on the command line names."""
    spec: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    sizes = spec["sizes"]
    rows = read_rows(spec["kind"], spec["files"]["train"])
    tokenizer: Any = train_tokenizer(texts_of(spec["kind"], rows), VOCABULARY)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=max(len(tokenizer), sizes.get("vocabulary", 0)),
        pad_token_id=tokenizer.pad_token_id,
        num_hidden_layers=sizes["layers"],
        hidden_size=sizes["hidden"],
        num_attention_heads=sizes["heads"],
        intermediate_size=sizes["inner"],
    )
    BertModel(config).save_pretrained(spec["base"])
    tokenizer.save_pretrained(spec["base"])


if __name__ == "__main__":
    main()

"""How many processor seconds the rows of a run take to become sub-words, and from the cache.

Overrides on the command line; prints one JSON object.
"""

import json
import sys
import time
from pathlib import Path

from crosstune.config.compose import compose_run
from crosstune.models.load import load_tokenizer
from crosstune.training.datamodule import FineTuningData
from crosstune.training.prepare import prepare


def main() -> None:
    """Encode what the command line names, twice."""
    prepared = prepare(compose_run(sys.argv[1:]))
    run, cache = prepared.run, Path(prepared.run.outputs) / ".cache"
    texts, content = prepared.tokenizer_texts()
    tokenizer = load_tokenizer(run.model, texts, content, cache)
    tokenizer("a")  # what it sets up at its first text does not grow with the rows

    def encode() -> tuple[FineTuningData, float]:
        began = time.process_time()
        data = FineTuningData(prepared.splits, prepared.task, tokenizer, run.data, run.seed, cache)
        return data, time.process_time() - began

    if list((cache / "encoded").glob("*")):
        raise SystemExit(f"{cache}: rows are encoded already, so nothing would be measured")
    data, seconds = encode()
    _, cached = encode()
    found = [encoded for splits in data.encoded.values() for encoded in splits.values()]
    said = {
        "rows": sum(len(rows) for splits in data.rows.values() for rows in splits.values()),
        "tokens": sum(len(encoded.ids) for encoded in found),
        "cpu_seconds": seconds,
        "cached_seconds": cached,
    }
    print(json.dumps(said))


if __name__ == "__main__":
    main()

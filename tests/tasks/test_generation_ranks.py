"""Texts that are spread over ranks are measured as if one rank had them all."""

import json
from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing

from crosstune.tasks.generation import Generation, ReferenceStats
from crosstune.tasks.prediction import Prediction

TASK = Generation.from_rows([])
PAIRS = [
    ("the boy eats bread now", ["the boy eats bread", "a boy"]),
    ("a girl", ["the girl"]),
    ("", ["Xiaoming drinks tea"]),
    ("María vive en Buenos", ["María vive en Buenos Aires"]),
    ("film", ["film"]),
]
WRITTEN = [
    Prediction(n, str(n), gold, text, -1.0, ReferenceStats("es", 7, n, loss=0.1 * n, cut=n == 2))
    for n, (text, gold) in enumerate(PAIRS)
]
SHARES = [([4, 0, 2], [3, 1]), ([0, 1, 2, 3, 4], []), ([], [1, 3, 0, 2, 4])]


def measure_on_a_rank(rank: int, folder: str) -> None:
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    mine = [[WRITTEN[n] for n in shares[rank]] for shares in SHARES]
    found = [TASK.compute_metrics(some, torch.device("cpu")) for some in mine]
    Path(folder, f"{rank}.json").write_text(json.dumps(found))
    distributed.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_measure_what_one_does_however_the_texts_are_shared(tmp_path):
    multiprocessing.spawn(measure_on_a_rank, args=(str(tmp_path),), nprocs=2)
    alone = TASK.compute_metrics(WRITTEN, torch.device("cpu"))
    for rank in (0, 1):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == [alone] * len(SHARES)

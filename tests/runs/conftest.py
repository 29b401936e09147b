from dataclasses import replace

import pytest

from crosstune.config.schema import Data, Method, Model, ModelOrigin, Optimizer, Run, TaskType

READER = {"_target_": "crosstune.data.readers.read_table", "text": "text", "label": "label"}
ROWS = "text\tlabel\nbueno\ta\nmalo\tb\n"


@pytest.fixture
def make(tmp_path):
    """Return a function that makes a run over files and weights below a folder of its own."""

    def make_run(folder, rows=ROWS, weights=b"weights", **changes):
        home = tmp_path / folder
        (home / "encoder").mkdir(parents=True, exist_ok=True)
        (home / "encoder" / "config.json").write_text("{}")
        (home / "encoder" / "model.safetensors").write_bytes(weights)
        (home / "rows.tsv").write_text(rows)
        file = str(home / "rows.tsv")
        data = Data("words", TaskType.classification, "es", READER, file, file, {"es": file})
        run = Run(
            experiment="study",
            data=replace(data, metric="accuracy"),
            model=Model("encoder", ModelOrigin.local, path=str(home / "encoder")),
            method=Method("full", 5e-5),
            optimizer=Optimizer({"_target_": "torch.optim.AdamW"}, 5e-5),
        )
        return replace(run, **changes)

    return make_run

"""What a method brings besides its weights reaches training through one interface."""

from pathlib import Path

import torch
from torch import nn
from typing_extensions import override

from crosstune import training
from crosstune.methods import TuningMethod, find_tuning_method


class Marked(nn.Linear):
    """A model that the method below takes for its own."""


class Penalised(TuningMethod):
    """A method of one's own that adds to the loss."""

    @classmethod
    @override
    def fits(cls, model):
        return isinstance(model, Marked)

    @override
    def penalty(self):
        return self.model.weight.sum()


def test_a_method_of_ones_own_is_found_by_its_model():
    model = Marked(2, 2)
    assert torch.equal(torch.as_tensor(find_tuning_method(model).penalty()), model.weight.sum())


def test_a_model_of_no_such_method_gets_the_defaults():
    method = find_tuning_method(nn.Linear(2, 2))
    assert type(method) is TuningMethod
    assert (method.penalty(), method.callbacks(best=None), method.shape()) == (0.0, [], {})
    assert method.virtual_tokens == 0


def test_training_imports_no_file_of_a_method():
    """`prepare` alone asks MAD-X's file whether every language has its adapter."""
    texts = {path.name: path.read_text() for path in Path(training.__path__[0]).rglob("*.py")}
    naming = {
        name
        for name, text in texts.items()
        if "crosstune.methods." in text or "AllocateRanks" in text
    }
    assert naming == {"prepare.py"}

"""What transformers raises about a checkpoint becomes an error that says what to do."""

import pytest

from crosstune.config.schema import Model, ModelOrigin
from crosstune.errors import ConfigError
from crosstune.models.load_errors import explain_load_errors

LOCAL = Model("local", ModelOrigin.local, path="memory/encoder")


@pytest.mark.parametrize("error", [OSError("memory/encoder has no weights"), KeyError("layers")])
def test_an_error_about_the_files_is_one_of_the_configuration(error):
    with pytest.raises(ConfigError, match="memory/encoder"), explain_load_errors(LOCAL):
        raise error


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory")])
def test_a_want_of_memory_is_no_fault_of_the_files(error):
    with pytest.raises(type(error)), explain_load_errors(LOCAL):
        raise error

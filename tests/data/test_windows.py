"""Windows in flat arrays: padding, writing and loading."""

from pathlib import Path

import numpy as np
import pytest
import torch

from crosstune.data.windows import IGNORE, EncodedDataset, concatenate

IDS = [[5, 6, 7], [8], [9, 10]]
TYPES = [[0, 0, 1], [0], [0, 1]]
PAD = 99


@pytest.fixture
def encoded():
    return concatenate(IDS, TYPES, items=[0, 0, 1], labels=[1, 2, 3, 4, 5, 6], cut=1)


def test_windows_keep_their_sub_words_and_lengths(encoded):
    assert len(encoded) == 3
    assert encoded.lengths.tolist() == [3, 1, 2]
    assert encoded.ids.tolist() == [5, 6, 7, 8, 9, 10]


def test_a_batch_is_padded_to_its_longest_window(encoded):
    inputs = encoded.pad([2, 1], PAD)
    assert inputs["input_ids"].tolist() == [[9, 10], [8, PAD]]
    assert inputs["attention_mask"].tolist() == [[1, 1], [1, 0]]
    assert inputs["token_type_ids"].tolist() == [[0, 1], [0, 0]]


def test_padding_has_no_label(encoded):
    assert encoded.pad_labels([1, 0]).tolist() == [[4, IGNORE, IGNORE], [1, 2, 3]]


def test_every_tensor_of_a_batch_is_int64(encoded):
    batch = [*encoded.pad([0, 1], PAD).values(), encoded.pad_labels([0, 1])]
    assert {tensor.dtype for tensor in batch} == {torch.int64}


def test_a_piece_above_16_bits_is_kept():
    large = concatenate([[250_001]], [[0]], [0], [0], cut=0)
    assert large.pad([0], PAD)["input_ids"].tolist() == [[250_001]]


def test_what_is_written_loads_the_same(encoded, tmp_path):
    encoded.write(tmp_path / "folder" / "a.safetensors")
    loaded = EncodedDataset.load(tmp_path / "folder" / "a.safetensors")
    assert loaded.extra == {}
    for name in ("ids", "types", "starts", "items", "labels", "cut"):
        array = getattr(encoded, name)
        assert np.array_equal(getattr(loaded, name), array), name
        assert getattr(loaded, name).dtype == array.dtype


def test_arrays_of_a_kinds_own_are_written_and_loaded(tmp_path):
    encoded = concatenate(IDS, TYPES, [0, 0, 1], [0.5, 1.0, 2.0], cut=0, places=[[1, 2], [3, 4]])
    encoded.write(tmp_path / "a.safetensors")
    loaded = EncodedDataset.load(tmp_path / "a.safetensors")
    assert loaded.extra["places"].tolist() == [[1, 2], [3, 4]]
    assert loaded.labels.tolist() == [0.5, 1.0, 2.0]


def test_an_array_that_does_not_lie_in_order_is_written_as_it_reads(tmp_path):
    encoded = concatenate(
        IDS, TYPES, [0, 0, 1], [0, 1, 2], cut=0, places=np.array([[1, 2], [3, 4]]).T
    )
    encoded.write(tmp_path / "a.safetensors")
    loaded = EncodedDataset.load(tmp_path / "a.safetensors")
    assert loaded.extra["places"].tolist() == [[1, 3], [2, 4]]


def test_what_is_loaded_stays_in_the_file_until_it_is_read(encoded, tmp_path):
    encoded.write(tmp_path / "a.safetensors")
    loaded = EncodedDataset.load(tmp_path / "a.safetensors")
    assert loaded.ids.tolist() == encoded.ids.tolist()
    assert str(tmp_path / "a.safetensors") in Path("/proc/self/maps").read_text("utf-8")


def test_writing_leaves_nothing_beside_the_file(encoded, tmp_path):
    encoded.write(tmp_path / "a.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_no_windows_are_still_arrays():
    empty = concatenate([], [], [], [], cut=0)
    assert len(empty) == 0
    assert empty.lengths.tolist() == []

"""While heavy libraries are imported no garbage is collected; afterwards it is again."""

import gc
import weakref

import pytest

from crosstune.startup import defer_garbage_collection


class Knot:
    def __init__(self):
        self.me = self


@pytest.fixture(autouse=True)
def unfrozen():
    yield
    gc.unfreeze()


def test_meanwhile_nothing_is_collected():
    with defer_garbage_collection():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_what_was_made_meanwhile_is_not_looked_through_again():
    before = gc.get_freeze_count()
    with defer_garbage_collection():
        kept = [Knot() for _ in range(1000)]
    assert gc.get_freeze_count() >= before + len(kept)


def test_garbage_made_later_is_collected():
    with defer_garbage_collection():
        pass
    seen = weakref.ref(Knot())
    gc.collect()
    assert seen() is None


def test_a_failed_import_leaves_the_collector_on():
    with pytest.raises(ImportError), defer_garbage_collection():
        raise ImportError
    assert gc.isenabled()

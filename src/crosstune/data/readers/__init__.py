"""Readers: a source and its options to rows in canonical columns.

Every reader returns a `Split`, whose rows carry `id`, `where` (file:line) and the columns of their
task type: `text`, `text_pair`, `label`; `words`, `tags`; and others that the reader names. A
malformed file raises one DataError with every fault; nothing is skipped, guessed or sampled. A
data YAML names a reader as `crosstune.data.readers.read_…`.
"""

from crosstune.data.readers.brat import read_brat
from crosstune.data.readers.clue import read_clue
from crosstune.data.readers.conll import read_conll, read_conllu, read_segmented
from crosstune.data.readers.files import read_text
from crosstune.data.readers.hub import read_hub
from crosstune.data.readers.parallel import read_parallel
from crosstune.data.readers.relations import (
    read_marked,
    read_relation_table,
    read_semeval,
    read_tacred,
)
from crosstune.data.readers.squad import read_squad
from crosstune.data.readers.tables import read_label_sets, read_table

__all__ = [
    "read_brat",
    "read_clue",
    "read_conll",
    "read_conllu",
    "read_hub",
    "read_label_sets",
    "read_marked",
    "read_parallel",
    "read_relation_table",
    "read_segmented",
    "read_semeval",
    "read_squad",
    "read_table",
    "read_tacred",
    "read_text",
]

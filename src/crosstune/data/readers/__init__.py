"""Readers: functions that turn data files into a `Split` of rows in canonical columns.

Each row has `id`, `where` (file:line) and the columns that its task needs, such as `text` and
`label`. A reader reports all faults of a file in one `DataError`; it leaves a row out only where
its docstring says so. In YAML: `_target_: crosstune.data.readers.read_…`.
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

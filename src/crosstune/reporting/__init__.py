"""From run records to the tables, figures and page of a study.

`records` (records -> DataFrame) -> `aggregate`, `comparison` -> `tables` (typed cells) -> `render`,
`figures`, `html`. Reads local records only; imports no torch, transformers, Lightning or Hydra.
"""

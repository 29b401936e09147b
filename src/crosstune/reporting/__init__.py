"""From run records to the tables, figures and pages of a study.

`frame` (records -> tidy data frame) -> `stats` -> `tables`, `figures` -> `report`. Only local
records are read, and torch, transformers, Lightning and Hydra are never imported here.
"""

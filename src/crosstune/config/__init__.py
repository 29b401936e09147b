"""The typed configuration: schema, composition by Hydra, validation, `_target_` objects.

Nothing here reads data or loads weights.
"""

"""The typed configuration: schema, composition by Hydra, checks of values, `_target_` objects.

Nothing here reads data or loads weights.
"""

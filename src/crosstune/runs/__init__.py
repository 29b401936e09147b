"""What identifies a run on disk: its id, record, lock and tuned values.

Nothing here loads a model.
"""

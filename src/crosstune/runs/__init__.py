"""What identifies a run on disk: fingerprint, record, locks, tuned values.

Nothing here loads a model.
"""

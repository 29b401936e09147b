"""Runs of a sweep trained together: one pass through the model makes the training steps of all.

`grouping.py` forms the groups; `group_trainer.py` trains one.
"""

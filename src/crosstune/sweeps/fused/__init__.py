"""Runs of a sweep that are trained together: each its own run, with one pass through the model.

`groups.py` says which runs go together, `company.py` trains a group, `meeting.py` lets its threads
take turns, `step.py` makes the pass and `folding.py` its kernels. Called by the launcher
`hydra/launcher=fused`.
"""

"""A study as a whole: its plan and status, tuning, and the launchers of its runs.

A single run lives in `training`.
"""

"""A finished run applied: loaded again, used for predictions, exported with a model card.

Training lives in `training`.
"""

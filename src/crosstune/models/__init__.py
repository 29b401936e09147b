"""Loading of encoders and tokenizers, the table of model types, and the speed-ups of training.

Code that adapts a loaded model to a tuning method lives in `methods`.
"""

"""crosstune: compare ways of fine-tuning transformer encoders across languages."""

__version__ = "0.1.0"

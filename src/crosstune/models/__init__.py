"""Encoders and tokenizers: loading, architectures, acceleration.

What adapts a loaded model lives in `methods`.
"""

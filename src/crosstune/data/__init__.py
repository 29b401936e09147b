"""Reading, checking, encoding and batching of text in any language."""

"""Data: readers of files and hubs, checks, synthetic text, splits, and encoded windows."""

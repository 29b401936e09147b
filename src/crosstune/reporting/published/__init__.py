"""Published tables as data, and their comparison with a study."""

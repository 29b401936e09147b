"""Published tables as data, and their comparison with the runs of a study."""

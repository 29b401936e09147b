"""One run on several devices: the processes, one per rank, and their supervision."""

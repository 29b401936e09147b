"""Speed-ups of training. They change run time and last digits, never the method."""

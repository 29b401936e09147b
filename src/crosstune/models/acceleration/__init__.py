"""Speed-ups of model layers. They change run time, never the method that is measured."""

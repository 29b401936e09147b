"""Generated data: the demo's texts, and stand-in rows for rehearsing a study."""

"""The HTTP service: several finished runs on one shared base model."""

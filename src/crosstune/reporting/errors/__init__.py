"""The errors of a study's runs, item by item, from their saved predictions."""

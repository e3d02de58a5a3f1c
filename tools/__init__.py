"""Programs for the repository's own upkeep."""

"""From an error of the database to its class, its HTTP status and whether a retry helps."""

"""`make bench`: this package beside its peers, measured in one run."""

"""What `make test-scale` runs: several servers and processes at a time; `make test` leaves it out."""

"""CLI agents at work: one run of a program, and the leases that offer runs as an endpoint."""

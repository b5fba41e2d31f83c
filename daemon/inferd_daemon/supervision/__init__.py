"""Processes and their owners: who runs, who restarts them, who holds them."""

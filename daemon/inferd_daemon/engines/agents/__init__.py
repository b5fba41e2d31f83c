"""CLI agents as engines: how each provider's program is found, told what to do, and understood."""

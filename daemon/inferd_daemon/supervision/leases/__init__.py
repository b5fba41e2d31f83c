"""Who holds which runtime, for how long, and what the journal keeps of it."""

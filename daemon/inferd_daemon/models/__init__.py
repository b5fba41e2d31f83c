"""Where model files come from: the store, what it pulls and imports, and the demo model."""

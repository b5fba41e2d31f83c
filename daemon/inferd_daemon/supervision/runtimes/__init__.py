"""The life of one runtime, and the registry of all of them."""

"""The model that comes with inferd."""

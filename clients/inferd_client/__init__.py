"""The client library of inferd."""

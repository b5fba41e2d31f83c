"""The inferd daemon: one long-running process that owns model servers and answers requests."""

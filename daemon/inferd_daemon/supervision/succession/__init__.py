"""What one run of the daemon leaves to the next: by crash, restart or upgrade."""

"""Which backend answers a request, and when its turn is."""

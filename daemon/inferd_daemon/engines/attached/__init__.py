"""Services that others run and inferd only looks at."""

"""One operating system process, from its spawn to its end, and what it writes."""

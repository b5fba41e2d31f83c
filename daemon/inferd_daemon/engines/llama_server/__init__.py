"""A llama-server process: its boot spec, its flags, what its model takes, how it is judged."""

"""The OpenAI surface of the HTTP front: mapping files, which do no I/O, and endpoints."""

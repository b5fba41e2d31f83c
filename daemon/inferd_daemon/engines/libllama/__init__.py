"""llama.cpp by FFI in a worker process of our own."""

"""Where bytes come in and go out."""

"""Prompt caches kept on disk while their server is down."""

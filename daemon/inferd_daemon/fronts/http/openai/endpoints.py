"""The routes of the OpenAI surface."""

from starlette.routing import Route


def routes() -> list[Route]:
    """None yet."""
    return []

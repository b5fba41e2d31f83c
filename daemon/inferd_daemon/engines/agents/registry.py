"""The providers there are. A new one is one file and one line here."""

from collections.abc import Mapping
from types import MappingProxyType

from .amp import AmpProfile
from .claude import ClaudeProfile
from .codex import CodexProfile
from .gemini import GeminiProfile
from .profile import AgentProfile

PROFILES: Mapping[str, AgentProfile] = MappingProxyType(
    {
        profile.name: profile
        for profile in (CodexProfile(), ClaudeProfile(), GeminiProfile(), AmpProfile())
    }
)
"""By name."""

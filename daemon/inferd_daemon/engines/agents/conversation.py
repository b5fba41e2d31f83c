"""A conversation as a CLI can be told it: the system text apart, and the rest as one prompt.

One user's turn alone is the prompt as it is. A longer conversation is written out in full:

    The conversation so far follows. A line that begins with "### " opens the turn of the speaker
    it names. Reply with the assistant's next turn alone, without such a line.

    ### user
    …

    ### assistant
    …

Where a text has a line that begins with the mark, the mark of the whole prompt is longer by as
many `#` as it takes: no text can open a turn.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from inferd_proto import Block, ErrorCode, Message, Text, ToolResult, ToolUse

from ...errors import CallerFault
from .request import Turn

MARK = "###"
_MENTION = re.compile(r"@(?=\S)")
_PREFACE = (
    'The conversation so far follows. A line that begins with "{mark} " opens the turn of the '
    "speaker it names. Reply with the assistant's next turn alone, without such a line."
)


def read_messages(messages: Iterable[Message]) -> tuple[str, tuple[Turn, ...]]:
    """The system texts, joined by empty lines, and the turns, of which there is at least one.

    Raises CallerFault for media, which no CLI takes, and where nobody but the system speaks.
    """
    system: list[str] = []
    turns: list[Turn] = []
    for index, message in enumerate(messages):
        path = f"messages[{index}].content"
        if message.role == "system":
            system.append(_join(message.content, path))
        else:
            turns += _turns(message, path)
    if not any(turn.text.strip() for turn in turns):
        raise CallerFault("`messages`: nothing is asked; an agent needs a user's text")
    return "\n\n".join(system), tuple(turns)


def render_prompt(turns: Sequence[Turn], system: str = "") -> str:
    """The prompt for stdin. With `system`, for a CLI that takes none apart, that stands first."""
    if len(turns) == 1 and turns[0].role == "user" and not system:
        return turns[0].text
    spoken = [(_speaker(turn), turn.text) for turn in turns]
    if system:
        spoken.insert(0, ("system", system))
    mark = _free_mark(text for _, text in spoken)
    written = [f"{mark} {speaker}\n{text}" for speaker, text in spoken]
    return "\n\n".join([_PREFACE.format(mark=mark), *written]) + "\n"


def without_mentions(prompt: str) -> str:
    """`prompt` for a CLI that puts the file of an `@path` into its request, wherever that stands:
    nothing in it names a file any more. It looks the same, and models read it the same.
    """
    return _MENTION.sub("@\N{WORD JOINER}", prompt)


def _speaker(turn: Turn) -> str:
    # The name is the caller's and must stay on its line.
    name = " ".join(turn.name.split())
    return f"{turn.role} ({name})" if name else turn.role


def _free_mark(texts: Iterable[str]) -> str:
    longest = max((_longest_mark(text) for text in texts), default=0)
    return MARK if longest < len(MARK) else "#" * (longest + 1)


def _longest_mark(text: str) -> int:
    lines = (line.lstrip() for line in text.splitlines())
    return max((len(line) - len(line.lstrip("#")) for line in lines), default=0)


def _turns(message: Message, path: str) -> list[Turn]:
    """Results of tools are turns of their own, before what else the user says."""
    results: list[Turn] = []
    texts: list[str] = []
    for index, block in enumerate(message.content):
        match block:
            case Text():
                texts.append(block.text)
            case ToolUse():
                arguments = msgspec.json.encode(block.input).decode()
                texts.append(f"[called {block.name} ({block.tool_call_id}) with {arguments}]")
            case ToolResult():
                text = _join(block.content, f"{path}[{index}].content")
                results.append(Turn("tool", text, name=block.tool_call_id))
            case _:
                raise _refused(block, f"{path}[{index}]")
    if not texts:
        return results
    speaker: Literal["user", "assistant"] = "assistant" if message.role == "assistant" else "user"
    return [*results, Turn(speaker, "\n".join(texts))]


def _join(blocks: Sequence[Block], path: str) -> str:
    texts: list[str] = []
    for index, block in enumerate(blocks):
        if not isinstance(block, Text):
            raise _refused(block, f"{path}[{index}]")
        texts.append(block.text)
    return "\n".join(texts)


def _refused(block: Block, path: str) -> CallerFault:
    kind = block.__struct_config__.tag
    return CallerFault(f"`{path}`: an agent takes no {kind} here", ErrorCode.ATTACHMENT_UNSUPPORTED)

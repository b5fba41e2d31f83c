"""The answers as families: which there are for a kind of request, and which end one."""

from .control import Error, Item, Result, StreamDone
from .generate_v1 import DoneV1, Token
from .generate_v2 import BlockAnswer, DoneV2
from .vectors import Embeddings, Ranking

AnswerV1 = Token | DoneV1 | Error
AnswerV2 = BlockAnswer | DoneV2 | Error
AnswerEmbed = Embeddings | Error
AnswerRerank = Ranking | Error
AnswerControl = Result | Item | StreamDone | Error
Answer = AnswerV1 | AnswerV2 | AnswerEmbed | AnswerRerank | AnswerControl


_PARTS = (Token, BlockAnswer, Item)


def is_terminal(answer: Answer) -> bool:
    """True for the one answer that ends a request."""
    return not isinstance(answer, _PARTS)

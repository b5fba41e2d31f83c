"""Build the demo model that ships with inferd: `python -m tests.support.demo_model OUT`.

No training: the embedding is the identity, attention and feed-forward weights are zero, so the
hidden state names the current token and the output matrix is a table of what follows it. The file
depends on this source alone, byte for byte. Needs the development dependencies gguf and numpy:
what ships must not import it.
"""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

CHAT_TEMPLATE = (Path(__file__).resolve().parent / "demo_chat_template.jinja").read_text("utf-8")

GREETING = (
    "Hello! I am inferd's built-in demo model, and I know nothing: a table of next tokens, under "
    "one megabyte, that recites these words whatever you ask. The rest is real. llama.cpp loaded "
    "me from an ordinary GGUF file, your prompt was tokenised and evaluated, and each token you "
    "are reading was sampled and streamed on its own. So streaming, cancelling, queueing, tool "
    "calls and JSON schemas all work as they would with any other model. For answers worth "
    "having, give the daemon a real one: `inferd --model FILE.gguf`."
)
AFTER_TOOL = (
    "The tool has answered. Another model would now read its result and carry on; this demo only "
    "recites, so here the turn ends."
)

END = "<|im_end|>"
TURN = "<|im_start|>"
TOOLS_GIVEN = "<|tools_given|>"
TOOL_ANSWERED = "<|tool_answered|>"
CONTROL = (END, TURN, TOOLS_GIVEN, TOOL_ANSWERED)
CALL, CALL_END = "<tool_call>", "</tool_call>"
# The fixed parts of a call as one token each, which halves its length.
CALL_NAME, CALL_ARGUMENTS = '{"name":"', '","arguments":'

# What a free JSON string holds. A token of its own, so that an opening quote can lead to it while
# a closing quote, where no grammar allows it, leads on.
FILLER = "demo"

# Where a prompt without a chat template leads. The newlines keep it out of every JSON grammar: a
# raw newline is illegal in a string, and a letter after one is illegal elsewhere.
OPENING = "\n\nHello!"

# What `preferences` needs in every vocabulary.
FIXED = (CALL, CALL_END, CALL_NAME, CALL_ARGUMENTS, FILLER, OPENING)

# Between a choice and the next best: out of reach even at temperature 5. A power of two, so that
# every rank's multiple is exact in half precision.
LOGIT_GAP = 64.0

CONTEXT_TOKENS = 32_768
# The heads compute nothing; their size is the least that keeps vector kernels aligned.
HEAD_SIZE = 32
FEED_FORWARD = 32


def byte_symbols() -> list[str]:
    """Return the printable stand-in that byte-level BPE writes for each byte, indexed by byte."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(spare)) for byte in range(256)]


def split_passage(text: str, taken: set[str]) -> list[str]:
    """Cut `text` into words no one has used, and add them to `taken`.

    What follows is a function of the current token, so a word that comes again takes its
    neighbour along: "and", then "and evaluated,". Raises ValueError when the end is no longer
    unique.
    """
    words = text.split(" ")
    pieces = words[:1] + [f" {word}" for word in words[1:]]
    chunks, chunk = [], ""
    for piece in pieces:
        chunk += piece
        if chunk not in taken:
            taken.add(chunk)
            chunks.append(chunk)
            chunk = ""
    if chunk:
        raise ValueError(f"passage ends in words already used: {chunk!r}")
    return chunks


@dataclass
class Vocabulary:
    """Token texts in order of their ids: 256 bytes, a merge, control tokens, whole words."""

    control: Sequence[str]
    words: Sequence[str]
    # Byte-level BPE wants at least one merge to load; two spaces disturb nothing.
    merge: tuple[str, str] = (" ", " ")
    texts: list[str] = field(init=False)

    def __post_init__(self) -> None:
        singles = [chr(byte) for byte in range(256)]
        self.texts = [*singles, "".join(self.merge), *self.control, *self.words]
        self._ids = {text: index for index, text in reversed(list(enumerate(self.texts)))}

    def __len__(self) -> int:
        return len(self.texts)

    def ids(self, texts: Iterable[str]) -> list[int]:
        """Return the ids of `texts`; a single character stands for the byte of that value."""
        return [self._ids[text] for text in texts]

    def write(self, writer: gguf.GGUFWriter) -> None:
        """Add the tokenizer's metadata to `writer`."""
        symbols = byte_symbols()
        merge = [symbols[ord(part)] for part in self.merge]
        kinds = gguf.TokenType
        normal, control = 257, len(self.control)
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("qwen2")
        writer.add_token_list([*symbols, "".join(merge), *self.texts[normal:]])
        writer.add_token_types(
            [kinds.NORMAL] * normal
            + [kinds.CONTROL] * control
            + [kinds.USER_DEFINED] * (len(self) - normal - control)
        )
        writer.add_token_merges([" ".join(merge)])
        writer.add_add_bos_token(False)
        [end] = self.ids([END])
        writer.add_bos_token_id(end)
        writer.add_eos_token_id(end)
        writer.add_pad_token_id(end)


# What a token leads to, best first; the engine takes the first that its grammar allows. What ends
# a value comes before what would prolong it, so that a masked generation ends.
_VALUE = ('"', "1", "0", "t", "{", "[", "-", "f", "n")
JSON_PREFERENCES: dict[str, tuple[str, ...]] = {
    # A string opens: fill it, or leave it empty where the filler is too long. It closes: go on.
    '"': (FILLER, '"', "x", ":", "}", "]", ",", END),
    FILLER: ('"', FILLER),
    # Optional properties stay away.
    "{": ("}", '"'),
    # One item if it is a scalar; nested ones could nest for ever.
    "[": ('"', "1", "t", "]", "{", "["),
    ":": _VALUE,
    ",": _VALUE,
    " ": _VALUE,
    "\n": (END, CALL_END, CALL_NAME, "{", *_VALUE),
    CALL_NAME: (FILLER,),
    CALL_ARGUMENTS: ("{",),
    # The engine would take a comma and a second call before the end of the first.
    "}": ("}", "]", END, CALL_END, ",", "\n"),
}
# For every other token. Letters and digits come last: a grammar's `[a-z]+` must reach what follows.
_LAST = "1023456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ\\"
FALLBACK = (
    OPENING,
    CALL_ARGUMENTS,
    *('"', "}", "]", ",", ":", END, " ", "\n", "."),
    *(chr(byte) for byte in range(0x20, 0x7F) if chr(byte) not in _LAST),
    *_LAST,
)


def preferences(chains: Sequence[Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Return what each token of `chains` and of JSON leads to, best first.

    A chain is a sequence of token texts, each followed by the next. Where chains and JSON meet,
    the earlier chain comes first and JSON last.
    """
    leads: dict[str, list[str]] = {}
    for chain in chains:
        for current, following in pairwise(chain):
            leads.setdefault(current, []).append(following)
    for current, order in JSON_PREFERENCES.items():
        leads.setdefault(current, [OPENING]).extend(order)
    return {current: tuple(order) for current, order in leads.items()}


def next_token_table(
    vocabulary: Vocabulary, leads: dict[str, tuple[str, ...]]
) -> npt.NDArray[np.float16]:
    """Return logits of shape (next token, current token): 0 for the best, a gap less for each rank.

    Ranks go over the whole vocabulary: what a grammar allows always has one clear best.
    """
    size = len(vocabulary)
    fallback = [*vocabulary.ids(FALLBACK), *range(size)]
    table = np.empty((size, size), dtype=np.float16)
    for current, text in enumerate(vocabulary.texts):
        order = dict.fromkeys(vocabulary.ids(leads.get(text, ())) + fallback)
        table[list(order), current] = -LOGIT_GAP * np.arange(len(order))
    return table


def demo_vocabulary() -> tuple[Vocabulary, list[list[str]]]:
    """Return the vocabulary and the chains it was cut from."""
    taken = set(FIXED)
    greeting = split_passage(GREETING, taken)
    after_tool = split_passage(AFTER_TOOL, taken)
    chains = [
        # The newline that ends the template's generation prompt.
        ["\n", *greeting, END],
        [OPENING, *greeting[1:2]],
        [TOOLS_GIVEN, CALL, "\n"],
        [CALL_END, END],
        [TOOL_ANSWERED, *after_tool, END],
        # Where another call is required, the grammar refuses the end.
        [after_tool[-1], CALL],
    ]
    return Vocabulary(CONTROL, [*FIXED, *greeting, *after_tool]), chains


def add_description(writer: gguf.GGUFWriter) -> None:
    """Add what the model says about itself to those who list it."""
    writer.add_name("inferd demo")
    writer.add_description(
        "Recites a fixed text and fills in tool calls and JSON schemas; knows nothing. "
        "Made without training, so that inferd answers before any download."
    )
    writer.add_author("The inferd authors")
    writer.add_license("MIT")
    writer.add_languages(["en"])
    writer.add_tags(["demo", "text-generation"])


def add_recital(
    writer: gguf.GGUFWriter,
    vocabulary: Vocabulary,
    table: npt.NDArray[np.float16],
    *,
    layers: int = 1,
    feed_forward: int = FEED_FORWARD,
) -> None:
    """Add the shape and the tensors of a llama that looks `table` up, of shape (next, current).

    `layers` and `feed_forward` only cost time: their weights are zero.
    """
    size = len(vocabulary)
    writer.add_context_length(CONTEXT_TOKENS)
    writer.add_embedding_length(size)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(feed_forward)
    writer.add_head_count(1)
    writer.add_head_count_kv(1)
    writer.add_key_length(HEAD_SIZE)
    writer.add_value_length(HEAD_SIZE)
    writer.add_rope_dimension_count(HEAD_SIZE)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(size)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)

    ones = np.ones(size, dtype=np.float32)
    shapes = {
        "attn_q": (HEAD_SIZE, size),
        "attn_k": (HEAD_SIZE, size),
        "attn_v": (HEAD_SIZE, size),
        "attn_output": (size, HEAD_SIZE),
        "ffn_gate": (feed_forward, size),
        "ffn_up": (feed_forward, size),
        "ffn_down": (size, feed_forward),
    }
    writer.add_tensor("token_embd.weight", np.eye(size, dtype=np.float16))
    for layer in range(layers):
        writer.add_tensor(f"blk.{layer}.attn_norm.weight", ones)
        writer.add_tensor(f"blk.{layer}.ffn_norm.weight", ones)
        for name, shape in shapes.items():
            zeros = np.zeros(shape, dtype=np.float16)
            writer.add_tensor(f"blk.{layer}.{name}.weight", zeros)
    # RMS normalisation makes a one of the identity's row sqrt(size): undo it.
    writer.add_tensor("output_norm.weight", ones / np.sqrt(np.float32(size)))
    writer.add_tensor("output.weight", table)


def save(writer: gguf.GGUFWriter) -> None:
    """Write everything added to `writer` to its file and close it."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def build(out: Path) -> None:
    """Write the demo model to `out`."""
    vocabulary, chains = demo_vocabulary()
    writer = gguf.GGUFWriter(out, "llama")
    add_description(writer)
    add_recital(writer, vocabulary, next_token_table(vocabulary, preferences(chains)))
    vocabulary.write(writer)
    writer.add_chat_template(CHAT_TEMPLATE)
    save(writer)


if __name__ == "__main__":
    build(Path(sys.argv[1]))

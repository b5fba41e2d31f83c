"""Tiny models that llama.cpp really loads, built by seed into a path of the caller's choosing.

Each is whole: weights, tokenizer, template. None is trained, and none takes a second to build or to
load. The vocabulary and the recital come from the demo model. Corrupt copies stand at the end.
"""

import struct
from pathlib import Path

import gguf
import numpy as np

from tests.support.demo_model import (
    CHAT_TEMPLATE,
    CONTROL,
    END,
    FIXED,
    OPENING,
    Vocabulary,
    add_recital,
    build,
    demo_vocabulary,
    next_token_table,
    preferences,
    save,
    split_passage,
)

EMBEDDING_SIZE = 64
IMAGE_TOKENS = 4
AUDIO_TOKENS = 750
THOUGHT = "Somebody asks, so an answer is due."
ANSWER = "Here is the answer that was due."

# ChatML that writes past thoughts as Qwen does, and skips the next one when told to.
THINKING_TEMPLATE = """\
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.role == 'assistant' and message.reasoning_content %}
{{- '<think>\\n' + message.reasoning_content + '\\n</think>\\n\\n' }}
{%- endif %}
{{- message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and not enable_thinking %}
{{- '<think>\\n\\n</think>\\n\\n' }}
{%- endif %}
{%- endif %}"""


class Weights:
    """Adds seeded random tensors to a writer, in float32."""

    def __init__(self, writer: gguf.GGUFWriter, seed: int) -> None:
        self._writer = writer
        self._random = np.random.default_rng(seed)

    def random(self, name: str, *shape: int, scale: float = 0.3) -> None:
        """Add `name`, normally distributed with deviation `scale`."""
        values = self._random.standard_normal(shape, dtype=np.float32) * np.float32(scale)
        self._writer.add_tensor(name, values)

    def constant(self, name: str, value: float, *shape: int) -> None:
        """Add `name`, filled with `value`."""
        self._writer.add_tensor(name, np.full(shape, value, dtype=np.float32))

    def linear(self, name: str, outputs: int, inputs: int, *, bias: bool = True) -> None:
        """Add a random matrix and, with `bias`, a bias of zero."""
        self.random(f"{name}.weight", outputs, inputs, scale=0.1)
        if bias:
            self.constant(f"{name}.bias", 0, outputs)

    def norm(self, name: str, size: int) -> None:
        """Add a layer norm that scales and shifts nothing."""
        self.constant(f"{name}.weight", 1, size)
        self.constant(f"{name}.bias", 0, size)


def build_embedding_model(path: Path) -> None:
    """Write a bert that pools `EMBEDDING_SIZE` numbers by their mean: texts alike lie close.

    Serve it with `embedding=True`.
    """
    _build_encoder(path, gguf.PoolingType.MEAN)


def build_rerank_model(path: Path) -> None:
    """Write a bert with a scoring head: documents score differently, by no sense.

    Serve it with `embedding=True` and `pooling_type` RANK: the file's own pooling is not enough.
    """
    _build_encoder(path, gguf.PoolingType.RANK)


def _build_encoder(path: Path, pooling: gguf.PoolingType) -> None:
    vocabulary = Vocabulary(("[CLS]", END), ())
    size, width = len(vocabulary), EMBEDDING_SIZE
    context = 512
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_name(f"tiny bert, pooling {pooling.name.lower()}")
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(width)
    writer.add_head_count(2)
    writer.add_layer_norm_eps(1e-6)
    writer.add_causal_attention(False)
    writer.add_pooling_type(pooling)
    writer.add_vocab_size(size)
    writer.add_token_type_count(1)
    vocabulary.write(writer)

    weights = Weights(writer, seed=1)
    weights.random("token_embd.weight", size, width)
    weights.constant("token_types.weight", 0, 1, width)
    weights.random("position_embd.weight", context, width, scale=0.05)
    weights.norm("token_embd_norm", width)
    for part in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_down"):
        weights.linear(f"blk.0.{part}", width, width)
    weights.norm("blk.0.attn_output_norm", width)
    weights.norm("blk.0.layer_output_norm", width)
    if pooling == gguf.PoolingType.RANK:
        weights.linear("cls", width, width)
        weights.linear("cls.output", 1, width)
    save(writer)


def build_generate_model(path: Path, *, layers: int = 2, feed_forward: int = 768) -> None:
    """Write the demo recital as an endless one that costs real matrix products.

    It starts over where the demo ends, so only a limit or a cancel stops it. The layers add nothing
    to the result. Two megabytes a layer at 768, on top of a half.
    """
    vocabulary, chains = demo_vocabulary()
    endless = [[OPENING if text == END else text for text in chain] for chain in chains]
    leads = {
        current: tuple(text for text in order if text != END)
        for current, order in preferences(endless).items()
    }
    table = next_token_table(vocabulary, leads)
    # The fallback has the end in it as well.
    table[vocabulary.ids([END]), :] = np.finfo(np.float16).min
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny endless llama")
    add_recital(writer, vocabulary, table, layers=layers, feed_forward=feed_forward)
    vocabulary.write(writer)
    writer.add_chat_template(CHAT_TEMPLATE)
    save(writer)


def build_thinking_model(path: Path) -> None:
    """Write a model that recites `THOUGHT` between think tags, then `ANSWER`.

    The engine streams the thought as `reasoning_content`; with `enable_thinking` false in
    `chat_template_kwargs` the answer comes at once.
    """
    taken = {*FIXED, "<think>", "</think>"}
    thought = split_passage(f"\n{THOUGHT}\n", taken)
    answer = split_passage(ANSWER, taken)
    chains = [
        ["\n", "<think>", *thought, "</think>", "\n\n", *answer, END],
        [OPENING, *answer[1:2]],
    ]
    words = [*FIXED, "<think>", "</think>", *thought, *answer]
    # Two newlines as one token: what follows them differs from what follows one.
    vocabulary = Vocabulary(CONTROL, words, merge=("\n", "\n"))
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny thinking llama")
    add_recital(writer, vocabulary, next_token_table(vocabulary, preferences(chains)))
    vocabulary.write(writer)
    writer.add_chat_template(THINKING_TEMPLATE)
    save(writer)


def build_multimodal_model(path: Path, mmproj_path: Path) -> None:
    """Write the demo model and a projector that brings images and audio into it.

    An image takes `IMAGE_TOKENS` and half a minute of audio `AUDIO_TOKENS`, beside the text around
    them; what is in them changes nothing in the recital.
    """
    build(path)
    vocabulary, _ = demo_vocabulary()
    writer = gguf.GGUFWriter(mmproj_path, "clip")
    writer.add_name("tiny projector")
    _add_vision(writer, len(vocabulary))
    _add_audio(writer, len(vocabulary))
    save(writer)


def _add_vision(writer: gguf.GGUFWriter, outputs: int) -> None:
    side, patch, width = 32, 8, 32
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_vision_projector_type(gguf.VisionProjectorType.GEMMA3)
    writer.add_vision_image_size(side)
    writer.add_vision_patch_size(patch)
    writer.add_vision_embedding_length(width)
    writer.add_vision_feed_forward_length(2 * width)
    writer.add_vision_block_count(1)
    writer.add_vision_head_count(2)
    writer.add_vision_attention_layernorm_eps(1e-6)
    writer.add_vision_projection_dim(outputs)
    writer.add_vision_image_mean([0.5, 0.5, 0.5])
    writer.add_vision_image_std([0.5, 0.5, 0.5])
    # Two by two patches become one token.
    writer.add_vision_projector_scale_factor(2)

    weights = Weights(writer, seed=3)
    weights.random("v.patch_embd.weight", width, 3, patch, patch)
    weights.constant("v.patch_embd.bias", 0, width)
    weights.random("v.position_embd.weight", (side // patch) ** 2, width)
    _add_encoder_layer(weights, "v.blk.0", width)
    weights.norm("v.post_ln", width)
    weights.constant("mm.soft_emb_norm.weight", 1, width)
    weights.random("mm.input_projection.weight", width, outputs)


def _add_audio(writer: gguf.GGUFWriter, outputs: int) -> None:
    mels, width, frames = 80, 32, 1500
    writer.add_clip_has_audio_encoder(True)
    writer.add_clip_audio_projector_type(gguf.VisionProjectorType.QWEN2A)
    writer.add_audio_num_mel_bins(mels)
    writer.add_audio_embedding_length(width)
    writer.add_audio_feed_forward_length(2 * width)
    writer.add_audio_block_count(1)
    writer.add_audio_head_count(2)
    writer.add_audio_attention_layernorm_eps(1e-5)
    writer.add_audio_projection_dim(outputs)

    weights = Weights(writer, seed=4)
    weights.random("a.conv1d.1.weight", width, mels, 3, scale=0.1)
    weights.constant("a.conv1d.1.bias", 0, width, 1)
    weights.random("a.conv1d.2.weight", width, width, 3, scale=0.1)
    weights.constant("a.conv1d.2.bias", 0, width, 1)
    weights.random("a.position_embd.weight", frames, width)
    _add_encoder_layer(weights, "a.blk.0", width, key_bias=False)
    weights.norm("a.post_ln", width)
    weights.linear("mm.a.fc", outputs, width)


def _add_encoder_layer(weights: Weights, prefix: str, width: int, *, key_bias: bool = True) -> None:
    weights.norm(f"{prefix}.ln1", width)
    weights.linear(f"{prefix}.attn_q", width, width)
    # Whisper's keys have no bias, and the engine insists.
    weights.linear(f"{prefix}.attn_k", width, width, bias=key_bias)
    weights.linear(f"{prefix}.attn_v", width, width)
    weights.linear(f"{prefix}.attn_out", width, width)
    weights.norm(f"{prefix}.ln2", width)
    weights.linear(f"{prefix}.ffn_up", 2 * width, width)
    weights.linear(f"{prefix}.ffn_down", width, 2 * width)


def truncate(source: Path, path: Path, *, keep: float = 0.5) -> None:
    """Copy the first part of `source`, as an interrupted download leaves it."""
    content = source.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])


def spoil_magic(source: Path, path: Path) -> None:
    """Copy `source` with another magic: no GGUF at all."""
    path.write_bytes(b"GGML" + source.read_bytes()[4:])


def spoil_version(source: Path, path: Path, *, version: int = 99) -> None:
    """Copy `source` with a GGUF version that no engine knows."""
    content = source.read_bytes()
    path.write_bytes(content[:4] + struct.pack("<I", version) + content[8:])

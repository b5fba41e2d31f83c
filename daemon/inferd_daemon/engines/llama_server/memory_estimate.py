"""How much memory a llama-server will take, told from the head of its model before it starts.

Pure. An estimate: weights and cache are exact to a few per cent, the compute buffers follow a
formula fitted to llama.cpp b11434 with flash attention. Host and device memory are one sum.
Unknown architectures count as plain attention, which is never too little.
"""

from typing import NamedTuple

from .boot_spec import BootSpec
from .flag_table import option
from .gguf import GgufHead

MIB = 1 << 20

PROCESS_BYTES = 20 * MIB
"""The program, its libraries and threads, without any model."""
VOCABULARY_ENTRY_BYTES = 300
"""Text, score, and two maps for each token."""
PROJECTOR_EXTRA_BYTES = 32 * MIB
"""What a projector allocates beside its weights; large images need more."""
DEFAULT_PARALLEL = 4
DEFAULT_BATCH = 2048
DEFAULT_UBATCH = 512
CELL_PADDING = 256
MAX_LAYERS = 4096
"""A file may claim more than there is memory to count them."""

CACHE_TYPE_BYTES = {
    "f32": 4.0,
    "f16": 2.0,
    "bf16": 2.0,
    "q8_0": 34 / 32,
    "q5_1": 24 / 32,
    "q5_0": 22 / 32,
    "q4_1": 20 / 32,
    "q4_0": 18 / 32,
    "iq4_nl": 18 / 32,
}

WINDOW_PERIODS = {
    "gemma2": 2,
    "gemma3": 6,
    "gemma3n": 5,
    "cohere2": 4,
    "gpt-oss": 2,
    "exaone4": 4,
    "olmo2": 4,
}
"""Of so many layers all but one see a sliding window, where the file itself does not tell."""


class MemoryEstimate(NamedTuple):
    """Bytes by what they are for."""

    weights: int
    cache: int
    compute: int
    projector: int
    process: int

    @property
    def total(self) -> int:
        """What the process will have resident when it is busy."""
        return sum(self)


class _Layout(NamedTuple):
    """How a context is divided: `cells` in all, of which `per_sequence` are one slot's."""

    cells: int
    per_sequence: int
    sequences: int
    ubatch: int


def estimate(spec: BootSpec, model: GgufHead, projector: GgufHead | None = None) -> MemoryEstimate:
    """What `spec` takes, given the heads of its files."""
    layout = _layout(spec, model)
    return MemoryEstimate(
        weights=model.size_bytes,
        cache=_cache(spec, model, layout) + _states(model, layout),
        compute=_compute(spec, model, layout),
        projector=0 if projector is None else projector.size_bytes + PROJECTOR_EXTRA_BYTES,
        process=PROCESS_BYTES + _vocabulary(model) * VOCABULARY_ENTRY_BYTES,
    )


def _layout(spec: BootSpec, model: GgufHead) -> _Layout:
    context = spec.ctx_size or model.number("context_length", 4096)
    sequences = spec.parallel or DEFAULT_PARALLEL
    batch = _integer(spec, DEFAULT_BATCH, "--batch-size", "-b")
    ubatch = min(_integer(spec, DEFAULT_UBATCH, "--ubatch-size", "-ub"), batch)
    # Where nobody chose the number of slots, they share the whole context.
    shared = spec.parallel is None or {"--kv-unified", "-kvu"} & set(spec.extra_args)
    if shared:
        cells = _padded(context)
        return _Layout(cells, cells, sequences, min(ubatch, cells))
    per_sequence = _padded(-(-context // sequences))
    return _Layout(per_sequence * sequences, per_sequence, sequences, min(ubatch, per_sequence))


def _cache(spec: BootSpec, model: GgufHead, layout: _Layout) -> int:
    if not model.values.get(f"{model.architecture}.attention.causal", True):
        return 0  # an encoder sees all of its text at once
    key_bytes = _type_bytes(spec, "--cache-type-k", "-ctk")
    value_bytes = _type_bytes(spec, "--cache-type-v", "-ctv")
    layers = _layers(model)
    heads = _heads(model, layers)
    default = _head_size(model)
    key_length = model.number("attention.key_length", default)
    value_length = model.number("attention.value_length", default)
    per_cell = key_length * key_bytes + value_length * value_bytes
    windowed = _windowed(model, layers)
    narrow = _window_cells(model, layout)
    total = 0.0
    for layer in range(layers):
        cells = narrow if windowed[layer] else layout.cells
        total += cells * heads[layer] * per_cell
    return int(total)


def _heads(model: GgufHead, layers: int) -> list[int]:
    """Heads that are cached, for each layer; none where a layer keeps a state instead."""
    heads = model.per_layer("attention.head_count_kv", layers, model.number("attention.head_count"))
    interval = model.number("full_attention_interval")
    if interval > 1:
        return [head if (at + 1) % interval == 0 else 0 for at, head in enumerate(heads)]
    return heads


def _windowed(model: GgufHead, layers: int) -> list[bool]:
    window = model.number("attention.sliding_window")
    if not window:
        return [False] * layers
    pattern = model.values.get(f"{model.architecture}.attention.sliding_window_pattern")
    if isinstance(pattern, list) and len(pattern) == layers:
        return [bool(item) for item in pattern]
    period = pattern if isinstance(pattern, int) else WINDOW_PERIODS.get(model.architecture, 1)
    if period <= 1:
        return [False] * layers
    return [(layer + 1) % period != 0 for layer in range(layers)]


def _window_cells(model: GgufHead, layout: _Layout) -> int:
    window = model.number("attention.sliding_window")
    shared = layout.cells == layout.per_sequence
    caches = 1 if shared else layout.sequences
    seen = window * (layout.sequences if shared else 1) + layout.ubatch
    return min(layout.per_sequence, _padded(seen)) * caches


def _states(model: GgufHead, layout: _Layout) -> int:
    """What recurrent layers keep for each sequence, in f32."""
    inner = model.number("ssm.inner_size")
    if not inner:
        return 0
    state = model.number("ssm.state_size")
    rolling = max(0, model.number("ssm.conv_kernel") - 1)
    width = inner + 2 * model.number("ssm.group_count") * state
    layers = _layers(model)
    attending = sum(1 for heads in _heads(model, layers) if heads)
    recurrent = layers if attending == layers else layers - attending
    return recurrent * layout.sequences * (rolling * width + state * inner) * 4


def _compute(spec: BootSpec, model: GgufHead, layout: _Layout) -> int:
    heads = model.number("attention.head_count", 1)
    width = max(model.number("embedding_length"), heads * _head_size(model))
    experts = model.number("expert_used_count") * model.number("expert_feed_forward_length")
    feed_forward = max(model.number("feed_forward_length"), experts)
    activations = layout.ubatch * 4 * (3 * feed_forward + 5 * width)
    scores = layout.per_sequence * layout.ubatch
    # Flash attention only needs the mask, in halves; without it all heads' scores are laid out.
    attention = scores * 4 * (1 + heads) if spec.flash_attn == "off" else scores * 2
    logits = _vocabulary(model) * 4 * layout.sequences
    return activations + attention + 2 * logits


def _layers(model: GgufHead) -> int:
    return min(model.number("block_count"), MAX_LAYERS)


def _head_size(model: GgufHead) -> int:
    heads = model.number("attention.head_count", 1) or 1
    return model.number("attention.key_length", model.number("embedding_length") // heads)


def _vocabulary(model: GgufHead) -> int:
    counted = model.lengths.get("tokenizer.ggml.tokens", 0)
    return counted or model.number("vocab_size")


def _type_bytes(spec: BootSpec, *flags: str) -> float:
    # A type that is not known here will be refused by the server.
    return CACHE_TYPE_BYTES.get(option(spec.extra_args, *flags) or "f16", 2.0)


def _integer(spec: BootSpec, default: int, *flags: str) -> int:
    text = option(spec.extra_args, *flags)
    return int(text) if text is not None and text.isdecimal() and int(text) > 0 else default


def _padded(cells: int) -> int:
    return -(-cells // CELL_PADDING) * CELL_PADDING

"""What a training holds in memory: by formulas, from a network's measurements, so that parts of a batch are chosen and
checkpointing is decided before memory runs out.

They count what the layers keep of each token for the way back, tensor by tensor, what one layer holds while it
computes, scores of target tokens, and adapters with gradients and moments. A test compares them with the tensors that
are really kept. They do not count what torch and CUDA take themselves (about 0.5 GB on a GPU). Needs no torch.
Sources: Korthikanti et al., Reducing Activation Recomputation (2022), section 4, for what a layer keeps; Dao et al.,
FlashAttention (2022): attention weights are computed again and count for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rung.engine.memory import free_bytes
from rung.engine.shapes import Shape, shape_of

_FLOAT = 4  # bytes
_ADAPTED = 7  # linear layers of a decoder layer: query, key, value, output, gate, up, down
_SCORES = 3  # logits, probabilities and gradients of a target token, in float32
_TARGETS = 0.25  # of tokens that have scores
_MARGIN = 0.1  # of what is needed: blocks that do not fill their place
_UNCOUNTED = 256 << 20  # bytes on a GPU: workspaces of libraries


@dataclass(frozen=True)
class Steps:
    """How the layers of a network compute in a training.

    itemsize: bytes of a number in the type of the weights. rank: of the adapter; 0 where all weights are trained.
    fused: in `fused_steps`; else as transformers wrote them. packed: adapters stand beside layers in few bits, as PEFT
    computes them; such layers are never fused. head_norms: queries and keys are normed. behind: attention and the
    feed-forward network have a norm behind them too. spread: attention keeps keys and values once for each head of a
    query (where its mask is written out), not once for each of theirs.
    """

    itemsize: int
    rank: int = 16
    fused: bool = True
    packed: bool = False
    head_norms: bool = False
    behind: bool = False
    spread: bool = True


def kept_bytes(shape: Shape, steps: Steps) -> int:
    """Bytes that one layer keeps of one token from its forward to its backward pass, its input included."""
    size, width, inner, queries, keys = steps.itemsize, shape.width, shape.inner, shape.queries, shape.keys
    attention = 2 * queries * size + 2 * (queries if steps.spread else keys) * size + _FLOAT * shape.heads
    if steps.fused:  # the saved tensors of Enter, Leave and FeedForward
        kept = 2 * width * _FLOAT + 2 * _FLOAT + 2 * inner * size + _ADAPTED * steps.rank * size
        kept += (queries + keys) * size + _FLOAT * (shape.heads + shape.key_heads) if steps.head_norms else 0
        return kept + attention + (2 * (width * size + _FLOAT) if steps.behind else 0)
    norms = (4 if steps.behind else 2) * (width + 1) * _FLOAT  # each keeps its input in float32
    if steps.head_norms:
        norms += (queries + keys + shape.heads + shape.key_heads) * _FLOAT
    gated = 3 * inner * size  # into and out of the activation, and what that is multiplied with
    return norms + attention + gated + _kept_by_linear_layers(shape, steps)


def _kept_by_linear_layers(shape: Shape, steps: Steps) -> int:
    """Inputs that linear layers, or the adapters beside them, keep for the gradients of their weights.

    Beside packed layers, PEFT converts the input of each adapter to the adapter's float32; else they share it.
    """
    size, narrow = steps.itemsize, _ADAPTED * steps.rank
    if steps.packed and size < _FLOAT:
        return (5 * shape.width + shape.queries + shape.inner + narrow) * _FLOAT
    inputs = 2 * shape.width + shape.inner  # that of the output projection is attention's own output
    of_norms = 0 if steps.rank else 2 * shape.width  # where their weights are trained too
    return (inputs + of_norms + narrow) * size


def working_bytes(shape: Shape, steps: Steps) -> int:
    """Bytes of one token that one layer holds while it computes, beside what it keeps: gradients on the way back."""
    size = steps.itemsize
    return (4 * shape.inner + 2 * shape.queries + 2 * shape.keys) * size + 3 * shape.width * _FLOAT


def bytes_per_token(shape: Shape, steps: Steps, *, checkpointing: bool = False) -> int:
    """Bytes that a training takes for each token that goes through the network at once, scores not counted.

    checkpointing: layers keep their input alone, and one at a time keeps the rest.
    """
    layer, ends = kept_bytes(shape, steps), 3 * shape.width * _FLOAT  # the last norm's and the output layer's inputs
    if checkpointing:
        of_input = shape.width * (_FLOAT if steps.fused else steps.itemsize)
        return shape.layers * of_input + layer + working_bytes(shape, steps) + ends
    return shape.layers * layer + working_bytes(shape, steps) + ends


def bytes_per_target(shape: Shape) -> int:
    """Bytes of the scores of one target token: logits, probabilities and gradients, in float32."""
    return _SCORES * _FLOAT * shape.vocabulary


def fixed_bytes(shape: Shape, rank: int) -> int:
    """Bytes of an adapter of that rank on all linear layers: in float32, with gradients and two moments of AdamW."""
    attention = 4 * shape.width + 2 * shape.queries + 2 * shape.keys  # rows and columns of the four projections
    return shape.layers * rank * (attention + 3 * (shape.width + shape.inner)) * 4 * _FLOAT


# ---- of an engine --------------------------------------------------------------------------------


def shape_of_engine(engine: Any) -> Shape | None:
    """The measurements of its network; None where its configuration does not name them as most decoders do."""
    return shape_of(engine.network.config.to_dict())


def steps_of(engine: Any) -> Steps:
    """How its layers compute in the training that has begun, or in one of an adapter of rank 16."""
    network = engine.network
    layers, fused = engine.fused[1], engine.fused[0]
    trained = [name for name, p in network.named_parameters() if p.requires_grad]
    ranks = [int(p.shape[0]) for name, p in network.named_parameters() if p.requires_grad and "lora_A" in name]
    names = {name.rpartition(".")[2] for name, _ in network.get_decoder().named_modules()}
    return Steps(
        itemsize=engine.dtype.itemsize,
        rank=max(ranks, default=0 if trained else 16),
        fused=layers > 0 and 2 * fused >= layers and (bool(ranks) or not trained),
        packed=engine.adapters.plain or any(not p.is_floating_point() for p in network.parameters()),
        head_norms="q_norm" in names and "k_norm" in names,
        behind=bool(names & {"post_feedforward_layernorm", "post_mlp_layernorm"}),
    )


def training_bytes_per_token(engine: Any, *, checkpointing: bool = False) -> int:
    """As `bytes_per_token`, of an engine's network, with a margin; 0 where its measurements are not known."""
    shape = shape_of_engine(engine)
    if shape is None:
        return 0
    return int(bytes_per_token(shape, steps_of(engine), checkpointing=checkpointing) * (1 + _MARGIN))


def tokens_at_once(engine: Any, *, checkpointing: bool = False, targets: float = _TARGETS) -> int | None:
    """Tokens of rows that fit what is free on the device now, beside moments and gradients that are there already.

    targets: the share of them that have scores. At least 1; None where the network's measurements are not known.
    """
    shape = shape_of_engine(engine)
    if shape is None:
        return None
    each = training_bytes_per_token(engine, checkpointing=checkpointing) + targets * bytes_per_target(shape)
    return max(1, int((free_bytes(engine.device) - _uncounted(engine)) / each))


def scored_at_once(engine: Any) -> int | None:
    """Tokens that fit what is free now where nothing is kept for a way back: one layer at work, and scores of a few.

    None where the network's measurements are not known.
    """
    shape = shape_of_engine(engine)
    if shape is None:
        return None
    each = working_bytes(shape, Steps(engine.dtype.itemsize)) + _TARGETS * _FLOAT * shape.vocabulary
    each += shape.layers * 2 * shape.keys * engine.dtype.itemsize  # keys and values, where they are kept
    return max(1, int((free_bytes(engine.device) - _uncounted(engine)) / (each * (1 + _MARGIN))))


def checkpointing_needed(engine: Any, longest_row_tokens: int, targets: int = 0) -> bool:
    """Whether memory that is free now cannot hold what the layers keep of the longest row or pair by itself.

    Call it with the optimiser's moments in place. targets: tokens of that row with scores. Where it looks so, what can
    be freed is freed first. False where the network's measurements are not known: memory that runs out then tells.
    """
    shape = shape_of_engine(engine)
    if shape is None:
        return False
    needed = longest_row_tokens * training_bytes_per_token(engine) + targets * bytes_per_target(shape)
    if needed + _uncounted(engine) <= free_bytes(engine.device):
        return False
    engine.make_room()
    return needed + _uncounted(engine) > free_bytes(engine.device)


def _uncounted(engine: Any) -> int:
    return _UNCOUNTED if engine.device.type == "cuda" else 0

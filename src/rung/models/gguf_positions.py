"""How a GGUF file scales rotary positions, which transformers leaves out when it reads the file's config.

Without it a network answers from the first token on otherwise than the one that was converted.
Sources: llama.cpp, convert_hf_to_gguf.py (Llama 3 keeps its scale as one factor for each frequency in
`rope_freqs.weight`, Phi-3 as `rope_factors_long` and `_short`), gguf-py, constants.py (`rope.scaling.*`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rung.errors import ModelError

_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
_FACTORS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")


def scale_positions(gguf: Path, config: Any) -> None:
    """Writes the file's scale of positions into a config that transformers read from the same file.

    Raises ModelError for a scale that cannot be written so. What transformers read itself stays as it is.
    """
    from gguf import GGUFReader

    text = config.get_text_config()
    parameters = getattr(text, "rope_parameters", None)
    if not isinstance(parameters, dict):
        return
    nested = [value for value in parameters.values() if isinstance(value, dict)]  # one for each kind of layer
    if any(one.get("rope_type", "default") != "default" for one in nested or [parameters]):
        return
    reader = GGUFReader(str(gguf))
    start = f"{reader.fields['general.architecture'].contents()}.rope.scaling."
    written = {key.removeprefix(start): f.contents() for key, f in reader.fields.items() if key.startswith(start)}
    factors = {tensor.name: np.array(tensor.data) for tensor in reader.tensors if tensor.name in _FACTORS}
    found = _scale(written, factors, parameters.get("rope_theta", 10_000.0))
    if found is None:
        kind = written.get("type") or "own factors"
        raise ModelError(
            f"model {gguf}: this GGUF file scales positions in a way that is not read from GGUF ({kind}), and without "
            "it the model would answer otherwise. Use the model's Hugging Face folder or id."
        )
    parameters.get("full_attention", parameters).update(found)


def _scale(written: dict[str, Any], factors: dict[str, Any], base: float) -> dict[str, Any] | None:
    """As `rope_parameters` of transformers has it; empty where nothing is scaled, None where it cannot be said so."""
    kind, factor = written.get("type"), float(written.get("factor") or 1.0)
    if factors:
        return _of_llama3(factors.get("rope_freqs.weight"), base)
    if kind in (None, "linear"):
        return {"rope_type": "linear", "factor": factor} if factor != 1.0 else {}
    if kind == "yarn" and set(written) <= {"type", "factor", "original_context_length", "finetuned"}:
        original = written.get("original_context_length")
        found = {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original}
        return found if original else None
    return {} if kind == "none" else None


def _of_llama3(factors: Any, base: float) -> dict[str, Any] | None:
    """Llama 3's scale, where it gives exactly these factors: one for low frequencies, none for high, a ramp between."""
    if factors is None:
        return None
    factors = factors.astype(np.float64).reshape(-1)
    if np.allclose(factors, 1.0):
        return {}
    scale = float(factors.max())
    low, high, context = _LLAMA3.values()
    lengths = 2 * np.pi * base ** (np.arange(len(factors)) / len(factors))
    ramp = (context / lengths - low) / (high - low)
    expected = 1 / ((1 - np.clip(ramp, 0, 1)) / scale + np.clip(ramp, 0, 1))
    if not np.allclose(factors, expected, rtol=1e-3):
        return None
    return {"rope_type": "llama3", "factor": scale, **_LLAMA3}

"""vLLM on a shape with random weights: prompts that share a prefix, and one request. Needs vLLM alone, in any Python.

    python gpu_vllm.py '{"config": FOLDER, "prompts": FILE, "new": 32, "few": 8, "many": 72, "share": 0.5}'

config: a folder with a config.json. prompts: a JSON list of lists of token ids. share: of the GPU's memory.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

MARK = "@measured "  # as in gpu_part, which this Python may not be able to import


def main() -> None:
    from vllm import LLM, SamplingParams  # type: ignore[import-not-found]

    given = json.loads(sys.argv[1])
    asked: list[list[int]] = json.loads(Path(given["prompts"]).read_text("utf-8"))
    room = max(map(len, asked)) + max(given["new"], given["many"]) + 8
    engine = LLM(
        given["config"],
        load_format="dummy",
        skip_tokenizer_init=True,
        dtype="bfloat16",
        max_model_len=room,
        max_num_seqs=len(asked),
        enable_prefix_caching=True,
        gpu_memory_utilization=given["share"],
    )

    def seconds(rows: list[list[int]], new: int) -> float:
        how = SamplingParams(temperature=0.0, max_tokens=new, ignore_eos=True, detokenize=False)
        started = time.perf_counter()
        out: Any = engine.generate([{"prompt_token_ids": row} for row in rows], how, use_tqdm=False)
        assert all(len(o.outputs[0].token_ids) == new for o in out)
        return time.perf_counter() - started

    def fresh() -> None:
        reset = getattr(engine, "reset_prefix_cache", None)
        if reset is not None:
            reset()

    seconds(asked[:2], 2)
    found = []
    for _ in range(2):
        fresh()
        found.append(seconds(asked, given["new"]))
    say("prompts", {"seconds": min(found), "prompts": len(asked), "new_tokens": given["new"]})
    few, many = (min(seconds(asked[:1], given[name]) for _ in range(3)) for name in ("few", "many"))
    each = 1000 * (many - few) / (given["many"] - given["few"])
    say("request", {"ms_per_token": each if each > 0 else None})


def say(name: str, value: dict[str, Any]) -> None:
    print(f"\n{MARK}{json.dumps({'measure': name, 'value': value})}", flush=True)


if __name__ == "__main__":
    main()

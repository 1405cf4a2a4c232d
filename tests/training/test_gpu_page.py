"""The programs in docs/gpu.md, with a tiny model in two processes on the CPU."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from gloo import in_processes

from rung.testing import save_tiny_model

PAGE = Path(__file__).parents[2] / "docs" / "gpu.md"


def program(*, divided: bool) -> str:
    """The first one on the page; divided: with what the second one puts in the place of its last lines."""
    whole, replaced = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.S)
    if divided:
        whole = whole[: whole.index("model = load_model(")] + replaced
    for theirs, ours in (
        ('torch.device("cuda", int(os.environ["LOCAL_RANK"]))', 'torch.device("cpu")'),
        ("torch.cuda.set_device(card)\n", ""),
        ('"Qwen/Qwen2.5-7B-Instruct"', '"./base"'),
        ('"Qwen/Qwen2.5-72B-Instruct", card', '"./base", card, dtype=torch.float32'),
        ("steps=200, batch_size=32", "steps=2, batch_size=4"),
    ):
        whole = whole.replace(theirs, ours)
    assert not {"cuda", "Qwen", "200"} & set(re.findall(r"\w+", whole.partition("adapter =")[0])), whole
    return whole


@pytest.mark.parametrize("divided", [False, True])
def test_the_programs_of_the_page_train_an_adapter(
    divided: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_tiny_model(tmp_path / "base")
    rows = [json.dumps({"input": f"number {i}", "output": f"answer {i}"}) for i in range(6)]
    (tmp_path / "train.jsonl").write_text("\n".join(rows) + "\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    code = program(divided=divided)

    def work(rank: int) -> str:
        warnings.simplefilter("ignore")  # of torch itself
        names: dict[str, Any] = {}
        exec(compile(code, "train.py", "exec"), names)
        return str(names["adapter"])

    torch.set_num_threads(1)
    assert in_processes(2, work) == ["adapters/tickets/step-2"] * 2
    assert (tmp_path / "adapters" / "tickets" / "step-2" / "adapter_config.json").is_file()

"""The prompt of a bundle as a DSPy program.

    import dspy
    from program import load

    program = load(dspy.LM("openai/MODEL", api_base="http://127.0.0.1:8000/v1", api_key="…"))
    program(input="an input").answer

program.json is DSPy's own state of it: instruction and examples, which its optimisers may change. The model must be one
that adds nothing to a chat: the base model, the endpoint, or a server that has the adapter.
`python program.py --messages < inputs.jsonl` shows what would be sent.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import dspy  # type: ignore[import-not-found]

HERE = Path(__file__).resolve().parent
PROMPT: dict[str, Any] = json.loads((HERE / "prompt.json").read_text("utf-8"))
"""fields: of an input. instruction: as it was tested, and said_as: how DSPy keeps it. nearest, demos: where examples
are chosen for each input. temperature and max_tokens."""


class Verbatim(dspy.Adapter):  # type: ignore[misc]
    """Sends instruction, examples and input as they were tested, without DSPy's marks around fields."""

    def format(self, signature: Any, demos: Sequence[Mapping[str, Any]], inputs: Mapping[str, Any]) -> list[Any]:
        """The chat turns."""
        kept = signature.instructions == PROMPT["said_as"]
        said = PROMPT["instruction"] if kept else signature.instructions
        turns = [{"role": "system", "content": said}] if said else []
        for demo in demos:
            turns += [_user(demo), {"role": "assistant", "content": str(demo["answer"])}]
        return [*turns, _user(inputs)]

    def parse(self, signature: Any, completion: str) -> dict[str, Any]:
        """The whole reply is the answer."""
        return {"answer": completion.strip()}


class PromptProgram(dspy.Module):  # type: ignore[misc]
    """One call of the model."""

    def __init__(self) -> None:
        super().__init__()
        fields: dict[str, Any] = {name: (str, dspy.InputField()) for name in PROMPT["fields"]}
        signature = dspy.Signature({**fields, "answer": (str, dspy.OutputField())}, PROMPT["said_as"])
        self.answer = dspy.Predict(signature, temperature=PROMPT["temperature"], max_tokens=PROMPT["max_tokens"])
        self._near: Any = None
        if PROMPT["nearest"] is not None:
            self._near = import_module("search").DemoSearch(PROMPT["demos"], PROMPT["nearest"])

    def forward(self, **inputs: str) -> Any:
        """The prediction, whose `answer` is the model's reply."""
        with dspy.context(adapter=Verbatim()):
            return self.answer(**inputs, demos=self.demos(inputs))

    def messages(self, **inputs: str) -> list[Any]:
        """What is sent."""
        return list(Verbatim().format(self.answer.signature, self.demos(inputs), inputs))

    def demos(self, inputs: Mapping[str, str]) -> list[Any]:
        """The examples for an input."""
        if self._near is None:
            return list(self.answer.demos)
        return [{"input": d["input"], "answer": d["output"]} for d in self._near.demos(inputs["input"])]


def load(lm: Any = None) -> PromptProgram:
    """The program with its instruction and examples. lm: None: the one that DSPy is configured with."""
    program = PromptProgram()
    program.load(str(HERE / "program.json"))
    if lm is not None:
        program.set_lm(lm)
    return program


def _user(fields: Mapping[str, Any]) -> dict[str, str]:
    """Passages stand before the input; an example holds its own."""
    parts = (fields.get("passages"), fields["input"])
    return {"role": "user", "content": "\n\n".join(str(part) for part in parts if part)}


if __name__ == "__main__":
    shown = load()
    for line in sys.stdin.buffer.read().decode("utf-8").split("\n"):
        if line.strip():
            print(json.dumps(shown.messages(**json.loads(line)), ensure_ascii=False))

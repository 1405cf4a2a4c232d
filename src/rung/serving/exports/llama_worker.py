"""llama.cpp in a process of its own: one JSON line in, one out. Run by a Python that has llama-cpp-python.

It imports nothing of rung, so that the Python may be another one than rung's. Operations: see `OPERATIONS`.
"""

import json
import os
import sys
from typing import Any


class Worker:
    """A model, and what is asked of it."""

    def __init__(self) -> None:
        self.llama: Any = None

    def open(self, model: str, lora: str | None, context: int) -> dict[str, Any]:
        """Loads the files. context: tokens of prompt and answer together."""
        import llama_cpp

        self.llama = llama_cpp.Llama(model, lora_path=lora, n_ctx=context, n_threads=_threads(), verbose=False, seed=0)
        return {"version": llama_cpp.__version__}

    def facts(self) -> dict[str, Any]:
        """Tokens with a role, and what a text gets by itself."""
        import llama_cpp

        return {
            "eos": self.llama.token_eos(),
            "bos": self.llama.token_bos(),
            "alone": self.llama.tokenize(b"a", add_bos=True, special=False),
            "add_bos": bool(llama_cpp.llama_vocab_get_add_bos(self._vocabulary())),
        }

    def ends(self, token: int) -> dict[str, Any]:
        """Whether a token ends an answer."""
        import llama_cpp

        return {"ends": bool(llama_cpp.llama_vocab_is_eog(self._vocabulary(), token))}

    def chat_ids(self, messages: list[dict[str, str]]) -> dict[str, Any]:
        """Ids of a chat by the file's own template, as create_chat_completion makes them."""
        shown = self._formatter()(messages=messages)
        ids = self.llama.tokenize(shown.prompt.encode(), add_bos=not shown.added_special, special=True)
        return {"ids": ids}

    def chat(self, messages: list[dict[str, str]], tokens: int, grammar: dict[str, Any] | None) -> dict[str, Any]:
        """A greedy answer to a chat."""
        done = self.llama.create_chat_completion(
            messages, max_tokens=tokens, temperature=0.0, repeat_penalty=1.0, grammar=_grammar(grammar)
        )
        return {"text": done["choices"][0]["message"]["content"] or ""}

    def text_ids(self, text: str) -> dict[str, Any]:
        """Ids of a text in which the names of control tokens are these tokens."""
        return {"ids": self.llama.tokenize(text.encode(), add_bos=True, special=True)}

    def complete(self, prompt: str, tokens: int, stop: list[str], grammar: dict[str, Any] | None) -> dict[str, Any]:
        """A greedy continuation of a text in which the names of control tokens are these tokens."""
        ids = self.text_ids(prompt)["ids"]
        done = self.llama.create_completion(
            ids, max_tokens=tokens, temperature=0.0, repeat_penalty=1.0, stop=stop, grammar=_grammar(grammar)
        )
        return {"text": done["choices"][0]["text"]}

    def _vocabulary(self) -> Any:
        import llama_cpp

        return llama_cpp.llama_model_get_vocab(self.llama.model)

    def _formatter(self) -> Any:
        def text(token: int) -> str:
            return self.llama._model.token_get_text(token) if token >= 0 else ""

        from llama_cpp.llama_chat_format import Jinja2ChatFormatter

        return Jinja2ChatFormatter(
            template=self.llama.metadata["tokenizer.chat_template"],
            eos_token=text(self.llama.token_eos()),
            bos_token=text(self.llama.token_bos()),
        )


OPERATIONS = ("open", "facts", "ends", "chat_ids", "chat", "text_ids", "complete")


def _threads() -> int | None:
    """As many as other programs are told to use; waiting threads of llama.cpp spin, and slow each other down."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    return int(told) if told.isdecimal() else os.cpu_count()


def _grammar(held: dict[str, Any] | None) -> Any:
    """held: {"labels": […]} or {"schema": {…}}; None holds to nothing."""
    from llama_cpp.llama_grammar import LlamaGrammar, json_schema_to_gbnf

    if held is None:
        return None
    if "labels" in held:
        choices = " | ".join(json.dumps(label, ensure_ascii=False) for label in held["labels"])
        return LlamaGrammar.from_string(f"root ::= {choices}", verbose=False)
    rules = json_schema_to_gbnf(json.dumps(held["schema"])).splitlines()
    # Objects are written without white space, as rung has them written.
    tight = ['space ::= ""' if rule.startswith("space ::=") else rule for rule in rules]
    return LlamaGrammar.from_string("\n".join(tight), verbose=False)


def main() -> None:
    """Answers lines until there are no more; an operation that fails is a line with `error`."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the library prints must not stand among the answers
    worker = Worker()
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            operation = asked.pop("operation")
            if operation not in OPERATIONS:
                raise ValueError(f"no operation {operation!r}")
            result = getattr(worker, operation)(**asked)
        except Exception as error:  # whatever it is, the other side is told
            result = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(result) + "\n")
        answers.flush()


if __name__ == "__main__":
    sys.path.pop(0)  # this folder, in which files have the names of packages
    main()

"""Answers as the bundle that it was exported from, with plain transformers and PEFT.

    python answer.py "an input"
    python answer.py --lines < inputs.txt       one input a line; one answer a line
    python answer.py --jsonl < inputs.jsonl     rows of input, context, instruction, turns; rows of answer and sources

solution.json holds the instruction, examples and limits, and may be read and changed. chat.json holds what the
tokenizer is known to do, and the ids of the labels. Everything else lies in the folders beside this file.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
Row = Mapping[str, Any]
"""input; where there are any, also context, instruction (both texts) and turns (earlier ones: role, content)."""


class PlainSolution:
    """The solution with its network loaded."""

    def __init__(self, folder: Path = HERE, *, base: str | None = None, dtype: str | None = None) -> None:
        """base: folder or Hub id of the base model, where it is not the one in solution.json. dtype: to compute in."""
        import torch

        self.says = json.loads((folder / "solution.json").read_text("utf-8"))
        self.chat = PlainChat(folder)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.network = _network(folder, self.says, base, dtype).to(device)
        self.search = _search(folder, self.says)
        self.near = _near(folder, self.says)

    def reply(self, row: Row) -> dict[str, Any]:
        """The answer to a row, and the passages that its prompt showed. Raises ValueError for a prompt without room."""
        passages = self.search.shown(row, self.chat.count) if self.search is not None else []
        prompt = self.chat.prompt(self.messages(row, passages))
        room = min(self.says["max_new_tokens"], self.says["context_length"] - len(prompt))
        if room < 1:
            raise ValueError(f"the prompt has {len(prompt)} tokens and {self.says['context_length']} fit")
        text = self.chat.text(self._generate(prompt, room))
        text = text.rstrip() if self.says["keep_space"] else text.strip()
        found: dict[str, Any] = {"answer": text}
        if self.says["cite"]:  # the best passage stands last, so that numbers run from the worst
            shown = {n: p["id"] for n, p in enumerate(reversed(passages), 1)}
            cited = import_module("citing").cited(text, shown)
            found = {"answer": cited.text, "cited": list(cited.ids)}
        return {**found, "sources": [p["id"] for p in passages]} if self.search is not None else found

    def messages(self, row: Row, passages: Sequence[Row]) -> list[dict[str, str]]:
        """The chat: instruction, examples, earlier turns, and the input behind its passages."""
        turns = [{"role": "system", "content": self.says["instruction"]}]
        for demo in self.near.demos(_whole(row)) if self.near is not None else self.says["demos"]:
            turns += [{"role": "user", "content": demo["input"]}, {"role": "assistant", "content": demo["output"]}]
        asked = _asked(row)
        if self.search is not None:
            asked = self.search.before(asked, passages)
        for turn in [*row.get("turns", ()), {"role": "user", "content": asked}]:
            if turn["role"] == turns[-1]["role"] == "user":
                turn = {"role": "user", "content": f"{turns.pop()['content']}\n\n{turn['content']}"}
            turns.append(turn)
        return turns

    def _generate(self, prompt: list[int], room: int) -> list[int]:
        """Ids of the answer, greedy, without the token that ends it."""
        import torch

        guide = self.chat.guide()
        ids = torch.tensor([prompt], device=next(self.network.parameters()).device)
        with torch.inference_mode():
            written = self.network.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=room,
                logits_processor=[] if guide is None else [_held(guide, len(prompt))],
            )
        answer: list[int] = written[0, len(prompt) :].tolist()
        return answer[:-1] if answer and answer[-1] in self.chat.stops else answer


def _network(folder: Path, says: Mapping[str, Any], base: str | None, dtype: str | None) -> Any:
    """The base model with the adapter, or the folder of whole weights. Nothing but safetensors is read."""
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    place = str(folder / says["weights"]) if says["weights"] else base or says["base"]
    if not Path(place).is_dir() and (Path(place).is_absolute() or place.startswith((".", "~"))):
        raise SystemExit(f"{place}: there is no such folder. Name that of the base model with --base.")
    for name, size in says["base_files"].items() if Path(place).is_dir() and not says["weights"] else ():
        if not (Path(place) / name).is_file() or (Path(place) / name).stat().st_size != size:
            raise SystemExit(f"{place}: {name} is not the base model's. Give the right folder with --base.")
    load: Any = AutoModelForCausalLM.from_pretrained
    network = load(place, dtype=getattr(torch, dtype or says["dtype"]), use_safetensors=True, trust_remote_code=False)
    if says["adapter"]:
        from peft import PeftModel

        network = PeftModel.from_pretrained(network, folder / says["adapter"])
    stops = json.loads((folder / "chat.json").read_text("utf-8"))["stop_ids"]
    # In the place of the base's own, which may sample, or punish repetition.
    config: Any = GenerationConfig
    plain = config(do_sample=False, eos_token_id=stops, pad_token_id=stops[0])
    for one in {id(n): n for n in (network, getattr(network, "base_model", network), _inner(network))}.values():
        one.generation_config = plain
    return network.eval()


def _inner(network: Any) -> Any:
    return network.get_base_model() if hasattr(network, "get_base_model") else network


def _asked(row: Row) -> str:
    """The last thing that the model is asked: instruction of the row, context, input."""
    if row.get("instruction") is None and row.get("context") is None:
        return str(row["input"])
    return "\n\n".join(part for part in (row.get("instruction"), row.get("context"), row["input"]) if part)


def _whole(row: Row) -> str:
    """All that the model reads of a row, in one text."""
    turns = [*row.get("turns", ()), {"role": "user", "content": _asked(row)}]
    return "\n".join(f"{t['role']}: {t['content']}" for t in turns) if len(turns) > 1 else _asked(row)


# ---- text and token ids -------------------------------------------------------------------------


class PlainChat:
    """The tokenizer with its chat template. Text that spells a control token stays text."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer

        self._folder = folder
        self.knows = json.loads((folder / "chat.json").read_text("utf-8"))
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder / "tokenizer", trust_remote_code=False)
        self.stops = self.knows["stop_ids"]
        self._hidden: list[str] = []
        self._plain: Any = None
        self._grammar: Any = None

    def prompt(self, messages: Sequence[Row]) -> list[int]:
        """Ids of the turns, up to where the answer begins."""
        turns = []
        for turn in messages:
            text = self._hide(turn["content"])
            if turn["role"] == "assistant" and text[:1].isspace():
                text = self.knows["border"] + text  # its tokens do not merge with what stands before
            turns.append(
                {"role": turn["role"], "content": [{"type": "text", "text": text}] if self.knows["in_parts"] else text}
            )
        rendered = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return self._ids(rendered)

    def count(self, text: str) -> int:
        """Tokens of a text."""
        return len(self._ids(self._hide(text)))

    def text(self, ids: Sequence[int]) -> str:
        """Text that the ids of an answer add behind other text."""
        anchor = self.knows["anchor"]
        kept = [i for i in ids if i not in self.knows["dropped"]]
        before, whole = self._decode(anchor), self._decode([*anchor, *kept])
        text = whole.removeprefix(before) if whole.startswith(before) else self._decode(kept)
        text = text.removeprefix(self.knows["lead"])
        return text.partition(self.knows["next_turn"])[0] if self.knows["next_turn"] else text

    def guide(self) -> Any:
        """What holds an answer to its labels, schema or pattern; None where it is free."""
        if self.knows["labels"] is not None:
            return LabelGuide(self.knows["labels"].values(), self.stops, self.knows["end_id"])
        if self.knows["grammar"] is None:
            return None
        if self._grammar is None:
            self._grammar = _matcher(self._folder, self.knows)
        return GrammarGuide(self._grammar.deep_copy(), self.knows)

    def _hide(self, text: str) -> str:
        """The text with one private character in the place of every string that spells a control token."""

        def hidden(found: re.Match[str]) -> str:
            if found[0] not in self._hidden:
                self._hidden.append(found[0])
            return chr(self.knows["first_placeholder"] + self._hidden.index(found[0]))

        return re.sub(self.knows["guarded"], hidden, text)

    def _ids(self, text: str) -> list[int]:
        """Ids of a rendered text. What was hidden is ordinary text there."""
        border = self.knows["border"]
        if border in text:
            split = [i for part in text.split(border) for i in self._ids(part)]
            joint = self._ids(text.replace(border, ""))
            return split if self._decode(split) == self._decode(joint) else joint
        names = {chr(self.knows["first_placeholder"] + n): hidden for n, hidden in enumerate(self._hidden)}
        if not any(name in text for name in names):
            return [int(i) for i in self.tokenizer.encode(text, add_special_tokens=False)]
        if self._plain is None:
            from tokenizers import Tokenizer

            self._plain = Tokenizer.from_file(str(self._folder / "plain_tokenizer.json"))
        control = sorted(self.knows["named"], key=len, reverse=True)
        text = re.sub("|".join(map(re.escape, control)) or "(?!)", lambda found: self.knows["named"][found[0]], text)
        for name, hidden in names.items():
            text = text.replace(name, hidden)
        return [int(i) for i in self._plain.encode(text, add_special_tokens=False).ids]

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


# ---- answers that are held to a form ------------------------------------------------------------


class LabelGuide:
    """Holds an answer to one of the labels, by the ids of each."""

    def __init__(self, labels: Any, stops: Sequence[int], end: int) -> None:
        self._going = [list(ids) for ids in labels]
        self._stops, self._end, self._length = list(stops), end, 0

    def allowed(self) -> list[int]:
        """The tokens that may come next."""
        following = {ids[self._length] for ids in self._going if len(ids) > self._length}
        if not following:
            return [self._end]
        return [*following, *(self._stops if any(len(ids) == self._length for ids in self._going) else ())]

    def take(self, token: int) -> None:
        """The answer goes on with this token."""
        self._going = [ids for ids in self._going if len(ids) > self._length and ids[self._length] == token]
        self._length += 1


class GrammarGuide:
    """Holds an answer to a grammar of llguidance. What can only follow is taken over as it is."""

    def __init__(self, matcher: Any, knows: Mapping[str, Any]) -> None:
        self._matcher, self._knows = matcher, knows
        self._forced: list[int] = []

    def allowed(self) -> list[int]:
        """The tokens that may come next."""
        import numpy as np

        if self._forced:
            return self._forced[:1]
        if self._matcher.is_stopped():
            return [self._knows["end_id"]]
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        return [int(i) for i in np.flatnonzero(np.unpackbits(bits, bitorder="little")[: self._knows["vocabulary"]])]

    def take(self, token: int) -> None:
        """The answer goes on with this token."""
        if self._forced:
            del self._forced[0]
            return
        if not self._matcher.is_stopped():
            self._matcher.consume_token(token)
            self._forced = [int(i) for i in self._matcher.compute_ff_tokens()]
            if self._forced:
                self._matcher.consume_tokens(self._forced)


def _matcher(folder: Path, knows: Mapping[str, Any]) -> Any:
    import llguidance

    stops = [knows["end_id"], *(i for i in knows["stop_ids"] if i != knows["end_id"] and i < knows["vocabulary"])]
    serialised = (folder / "plain_tokenizer.json").read_text("utf-8")
    tokenizer = llguidance.LLTokenizer(serialised, n_vocab=knows["vocabulary"], eos_token=stops)
    return llguidance.LLMatcher(tokenizer, knows["grammar"])


def _held(guide: Any, prompt: int) -> Any:
    """The guide for `generate`. prompt: tokens of the prompt."""
    import torch
    from transformers import LogitsProcessor

    class Held(LogitsProcessor):
        def __call__(self, input_ids: Any, scores: Any) -> Any:
            if input_ids.shape[1] > prompt:
                guide.take(int(input_ids[0, -1]))
            allowed = torch.tensor(guide.allowed(), device=scores.device)
            held = torch.full_like(scores, float("-inf"))
            held[0, allowed] = scores[0, allowed]
            return held

    return Held()


# ---- passages and examples that are searched ----------------------------------------------------


def _search(folder: Path, says: Mapping[str, Any]) -> Any:
    if says["search"] is None:
        return None
    return import_module("search").PassageSearch(folder, says["search"], numbered=says["cite"])


def _near(folder: Path, says: Mapping[str, Any]) -> Any:
    return None if says["nearest"] is None else import_module("search").DemoSearch(says["demos"], says["nearest"])


# ---- the command --------------------------------------------------------------------------------


def main() -> None:
    """Answers what the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("input", nargs="?", help="one input")
    parser.add_argument("--lines", action="store_true", help="answer each line of standard input")
    parser.add_argument("--jsonl", action="store_true", help="answer each row of standard input, a JSON object a line")
    parser.add_argument("--base", help="folder or Hub id of the base model")
    parser.add_argument("--dtype", help="float32, bfloat16, …")
    chosen = parser.parse_args()
    if chosen.input is None and not (chosen.lines or chosen.jsonl):
        parser.error("give an input, or --lines or --jsonl")
    _quiet()
    solution = PlainSolution(base=chosen.base, dtype=chosen.dtype)
    if chosen.input is not None:
        print(solution.reply({"input": chosen.input})["answer"])
        return
    given = sys.stdin.buffer.read().decode("utf-8")
    for number, line in enumerate(given.removesuffix("\n").split("\n") if given else (), 1):
        if chosen.jsonl and line.strip():
            print(json.dumps(_replied(solution, json.loads(line)), ensure_ascii=False), flush=True)
        elif chosen.lines:
            reply = _replied(solution, {"input": line.rstrip("\r")}) if line.strip() else {}
            if "error" in reply:
                print(f"line {number}: {reply['error']}", file=sys.stderr)
            print(" ".join(reply.get("answer", "").splitlines()), flush=True)


def _replied(solution: PlainSolution, row: Row) -> dict[str, Any]:
    try:
        return solution.reply(row)
    except ValueError as error:
        return {"error": str(error)}


def _quiet() -> None:
    """No bars of progress, and no warnings that are for programmers."""
    import warnings

    warnings.simplefilter("ignore", FutureWarning)
    from transformers.utils import logging

    library: Any = logging
    library.set_verbosity_error()
    library.disable_progress_bar()


if __name__ == "__main__":
    main()

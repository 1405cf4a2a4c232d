"""Chat turns to text, by the tokenizer's own chat template.

Knows how templates differ: several by name, contents as lists of parts, no system turn, today's date, switches for
thinking. Knows nothing of token ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any

from rung.types import Message

# For models without a template (base models): turns one under the other.
PLAIN_TEMPLATE = (
    "{% for m in messages %}{{ m['role'].capitalize() + ': ' + m['content'] + '\\n\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
TODAY = date(2024, 7, 26)
"""The date in prompts of templates that write today's, so that they are equal every day; Llama's own default."""

_SWITCHES = ("enable_thinking", "thinking")  # of models that can think before they answer
_WITHOUT_EMPTY_SYSTEM = (
    "{%- if messages | length > 1 and messages[0]['role'] == 'system' and not messages[0]['content'] -%}"
    "{%- set messages = messages[1:] -%}{%- endif -%}"
)
_WITH_EMPTY_SYSTEM = (
    "{%- if messages[0]['role'] != 'system' -%}"
    "{%- set messages = [{'role': 'system', 'content': ''}] + messages -%}{%- endif -%}"
)
_SYSTEM_INTO_USER = (
    "{%- if messages | length > 1 and messages[0]['role'] == 'system' -%}"
    "{%- set messages = [{'role': 'user', 'content': messages[0]['content'] + '\\n\\n' + messages[1]['content']}]"
    " + messages[2:] -%}{%- endif -%}"
)
_DIRECTIVES = ("%Y", "%y", "%m", "%B", "%b", "%-d", "%d", "%e", "%A", "%a", "%H", "%M", "%S", "%p", "%j")
_SYSTEM, _USER, _ANSWER, _NEXT = (f"@@{letter}" for letter in "suan")


class Turns:
    """A tokenizer's template, and how it takes turns. Where it cannot take a system turn, the first user turn opens
    with that text. A system turn without text is left out, unless the template would write a text of its own there.

    source: the template. has_template: False where it is the plain one.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.has_template = bool(tokenizer.chat_template)
        self._in_parts, self._takes_system = False, True
        self.source = self._sources()[0]
        self._settle()
        self._takes_empty = self._takes_system and self._writes_own_system()

    def render(self, messages: Sequence[Message], *, answer_next: bool = True) -> str:
        """Text of the turns. answer_next: ends where the template wants an answer to begin. Raises what it raises."""
        turns = [(m.role, m.content) for m in messages]
        if len(turns) > 1 and turns[0] == ("system", "") and not self._takes_empty:
            del turns[0]
        if not self._takes_system and len(turns) > 1 and turns[0][0] == "system":
            turns[:2] = [("user", f"{turns[0][1]}\n\n{turns[1][1]}")]
        return self._written(turns, answer_next)

    def whole_template(self, *, first: str = "", closed: str = "") -> str:
        """One template that writes for a plain `apply_chat_template` what `render` writes, its contents aside.

        Others need then not know how turns are handed over: no text of the template's own where there is no system
        turn, thinking off, a fixed date. first: text before all turns. closed: text that an answer begins behind.
        """
        parts = [f"{{%- set {name} = false -%}}" for name in _SWITCHES if name in self.source]
        if "date_string" in self.source:
            parts.append(f"{{%- set date_string = {_formatted('%d %b %Y')!r} -%}}")
        if self._takes_empty:
            parts.append(_WITH_EMPTY_SYSTEM)
        else:
            parts.append(_WITHOUT_EMPTY_SYSTEM)
        if not self._takes_system:
            parts.append(_SYSTEM_INTO_USER)
        before = "".join(parts) + (f"{{{{- {first!r} -}}}}" if first else "")
        after = f"{{% if add_generation_prompt %}}{{{{ {closed!r} }}}}{{% endif %}}" if closed else ""
        source = _with_fixed_date(self.source)
        return f"{before}\n{source.removesuffix(chr(10)) if after else source}{after}"

    @property
    def in_parts(self) -> bool:
        """Whether the template takes contents as lists of parts."""
        return self._in_parts

    def _written(self, turns: Sequence[tuple[str, str]], answer_next: bool) -> str:
        # Switches for models that can think before they answer: Qwen and others; Granite, DeepSeek and Kimi.
        more: dict[str, Any] = {"enable_thinking": False, "thinking": False}
        if "date_string" in self.source:
            more["date_string"] = _formatted("%d %b %Y")
        text: str = self._tokenizer.apply_chat_template(
            [{"role": role, "content": self._content(content)} for role, content in turns],
            tokenize=False,
            add_generation_prompt=answer_next,
            chat_template=_with_fixed_date(self.source),
            **more,
        )
        return text

    def _content(self, text: str) -> str | list[dict[str, str]]:
        return [{"type": "text", "text": text}] if self._in_parts else text

    def _sources(self) -> list[str]:
        """Templates to try: the default one first, as transformers does."""
        template = self._tokenizer.chat_template
        if not template:
            return [PLAIN_TEMPLATE]
        if isinstance(template, dict):
            return [template[name] for name in sorted(template, key=lambda name: name != "default")]
        return [str(template)]

    def _settle(self) -> None:
        """Takes the first template and way to hand turns over by which no text is lost, in long conversations too."""
        short = [Message("system", _SYSTEM), Message("user", _USER)]
        long = [*short, Message("assistant", _ANSWER), Message("user", _NEXT)]
        for conversations in ([short, long], [short], [short[1:]]):
            for way in self._ways():
                self.source, self._in_parts, self._takes_system = way
                if all(self._renders(messages) for messages in conversations):
                    return
        self.source, self._in_parts, self._takes_system = next(self._ways())

    def _ways(self) -> Iterator[tuple[str, bool, bool]]:
        for source in self._sources():
            for takes_system in (True, False):
                for in_parts in (False, True):
                    yield source, in_parts, takes_system

    def _writes_own_system(self) -> bool:
        """Whether an empty system turn makes a prompt shorter: the template has a text for where there is none."""
        user = ("user", _USER)
        try:
            given = self._written([("system", ""), user], True)
        except Exception:  # a template may raise anything
            return False
        try:
            return len(given) < len(self._written([user], True))
        except Exception:  # it demands a system turn
            return True

    def _renders(self, messages: Sequence[Message]) -> bool:
        try:
            text = self.render(messages)
        except Exception:  # a template may raise anything
            return False
        return all(m.content in text for m in messages) and "{'type':" not in text


def _formatted(directive: str) -> str:
    if directive == "%-d":
        return str(TODAY.day)
    return f"{TODAY:{directive}}"


def _with_fixed_date(source: str) -> str:
    """The template with a macro in place of `strftime_now`.

    Line feed at the end: Jinja removes the one behind a block, so the template starts a line, as it does by itself.
    """
    if "strftime_now" not in source:
        return source
    filters = "".join(f" | replace('{d}', '{_formatted(d)}')" for d in _DIRECTIVES)
    return "{%- macro strftime_now(format) -%}{{ format" + filters + " }}{%- endmacro %}\n" + source

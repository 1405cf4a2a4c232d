"""What a request may hold, as its OpenAPI schema says it. Knows nothing of models and answers.

Types are strict: "5" is no number. A field of OpenAI's or vLLM's interface that cannot be honoured is named here with
the values that change nothing; any other value of it is refused. Fields that nobody knows are ignored.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, cast

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from rung.serving.http.limits import (
    LONGEST_NAME,
    LONGEST_STOP,
    MOST_CHOICES,
    MOST_MESSAGES,
    MOST_PARTS,
    MOST_PROMPTS,
    MOST_STOPS,
    MOST_TOKENS,
    MOST_TOP,
)


def _only(*values: object) -> Any:
    """A field that is not supported: values that change nothing are taken."""
    return Field(None, json_schema_extra={"enum": [None, *values]})  # type: ignore[list-item]


def _no_token_ids(value: object) -> object:
    if isinstance(value, list) and any(isinstance(one, int | list) for one in value):
        raise ValueError("token ids are not supported here. Send texts")
    return value


class _Asked(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="ignore", protected_namespaces=())

    @field_validator("*", mode="after")
    @classmethod
    def _supported(cls, value: object, info: ValidationInfo) -> object:
        field = cls.model_fields.get(info.field_name or "")
        extra = field.json_schema_extra if field is not None else None
        if isinstance(extra, dict) and not any(
            type(value) is type(neutral) and value == neutral for neutral in cast("list[object]", extra["enum"])
        ):
            raise ValueError("is not supported here. Leave it out")
        return value


class TextPart(_Asked):
    """A part of a message. Images, sound and files are refused."""

    type: Literal["text"]
    text: str


class ChatTurn(_Asked):
    """role: "developer" is "system". content: parts are joined by line breaks."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(min_length=1, max_length=MOST_PARTS)]
    name: str | None = None
    tool_calls: Any = _only([])
    function_call: Any = _only()
    audio: Any = _only()

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "\n".join(part.text for part in self.content)


class StreamOptions(_Asked):
    include_usage: bool = False
    include_obfuscation: bool | None = None
    continuous_usage_stats: Any = _only(False)


class NamedSchema(_Asked):
    model_config = ConfigDict(validate_by_name=True, serialize_by_alias=True)

    name: str = "answer"
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None

    @field_validator("schema_")
    @classmethod
    def _is_json(cls, value: dict[str, Any]) -> dict[str, Any]:
        json.dumps(value, allow_nan=False)  # a number may be too large to be one
        return value


class TextFormat(_Asked):
    type: Literal["text"]


class JsonFormat(_Asked):
    type: Literal["json_object"]


class SchemaFormat(_Asked):
    type: Literal["json_schema"]
    json_schema: NamedSchema


class AskedOfRung(_Asked):
    """What OpenAI's schema has no place for. context: that the input comes with, where the examples have one."""

    model_config = ConfigDict(extra="forbid")

    context: str | None = None


_Stop = Annotated[str, Field(min_length=1, max_length=LONGEST_STOP)]


class _Common(_Asked):
    """Fields of both kinds of completions."""

    model: str = Field(min_length=1, max_length=LONGEST_NAME)
    max_tokens: int | None = Field(None, ge=1, le=MOST_TOKENS)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    n: int | None = Field(None, ge=1, le=MOST_CHOICES)
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1)
    stop: _Stop | Annotated[list[_Stop], Field(max_length=MOST_STOPS)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: Annotated[TextFormat | JsonFormat | SchemaFormat, Field(discriminator="type")] | None = None
    rung: AskedOfRung | None = None
    user: str | None = None

    frequency_penalty: Any = _only(0.0, 0)
    presence_penalty: Any = _only(0.0, 0)
    repetition_penalty: Any = _only(1.0, 1)
    length_penalty: Any = _only(1.0, 1)
    logit_bias: Any = _only({})
    best_of: Any = _only(1)
    top_k: Any = _only(-1, 0)
    min_p: Any = _only(0.0, 0)
    min_tokens: Any = _only(0)
    use_beam_search: Any = _only(False)
    ignore_eos: Any = _only(False)
    bad_words: Any = _only([])
    stop_token_ids: Any = _only([])
    allowed_token_ids: Any = _only()
    prompt_logprobs: Any = _only()
    include_stop_str_in_output: Any = _only(False)
    guided_json: Any = _only()
    guided_regex: Any = _only()
    guided_choice: Any = _only()
    guided_grammar: Any = _only()
    structured_outputs: Any = _only()

    @model_validator(mode="after")
    def _stream_options_with_stream(self) -> _Common:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options: is only allowed where stream is true")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def choices(self) -> int:
        return self.n or 1

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


class ChatAsked(_Common):
    """A chat completion. To a bundle, the last user turn is the input, and the turns before it are the conversation."""

    messages: list[ChatTurn] = Field(min_length=1, max_length=MOST_MESSAGES)
    max_completion_tokens: int | None = Field(None, ge=1, le=MOST_TOKENS)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MOST_TOP)

    tools: Any = _only([])
    tool_choice: Any = _only("none", "auto")
    functions: Any = _only([])
    function_call: Any = _only("none", "auto")
    modalities: Any = _only(["text"])
    audio: Any = _only()
    store: Any = _only(False)
    reasoning_effort: Any = _only()
    verbosity: Any = _only()
    web_search_options: Any = _only()
    chat_template: Any = _only()
    chat_template_kwargs: Any = _only({})
    documents: Any = _only([])
    echo: Any = _only(False)
    add_generation_prompt: Any = _only(True)
    continue_final_message: Any = _only(False)

    @model_validator(mode="after")
    def _top_with_logprobs(self) -> ChatAsked:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs: is only allowed where logprobs is true")
        return self

    @property
    def top(self) -> int | None:
        """Likeliest tokens to tell at each place; None: no log-probabilities."""
        return (self.top_logprobs or 0) if self.logprobs else None


_Prompt = Annotated[str, Field(min_length=1)]


class CompletionAsked(_Common):
    """A completion. To a bundle the prompt is the input; to a base, a text that it continues."""

    prompt: Annotated[
        _Prompt | Annotated[list[_Prompt], Field(min_length=1, max_length=MOST_PROMPTS)],
        BeforeValidator(_no_token_ids),
    ]
    logprobs: int | None = Field(None, ge=0, le=MOST_TOP)

    suffix: Any = _only("")
    echo: Any = _only(False)

    @property
    def prompts(self) -> tuple[str, ...]:
        return (self.prompt,) if isinstance(self.prompt, str) else tuple(self.prompt)


class AdapterToLoad(_Asked):
    """As vLLM takes it. lora_path: a folder inside the server's folder of adapters. base_model: needed where the server
    has several bases. load_inplace: whether it may take the place of an adapter of this name."""

    lora_name: str = Field(min_length=1, max_length=LONGEST_NAME)
    lora_path: str = Field(min_length=1, max_length=4096)
    base_model: str | None = None
    load_inplace: bool = False


class AdapterToUnload(_Asked):
    lora_name: str = Field(min_length=1, max_length=LONGEST_NAME)

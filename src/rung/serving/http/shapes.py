"""What a response holds, as its OpenAPI schema says it: OpenAI's fields, and one more, `rung`."""

from __future__ import annotations

from typing import Literal, NotRequired

from typing_extensions import TypedDict


class ErrorFields(TypedDict):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(TypedDict):
    error: ErrorFields


class SourceShape(TypedDict):
    """A passage that the answer was given with; `serving.sources.ShownPassage` says what each field means."""

    number: int
    id: str
    title: str | None
    page: int | None
    last_page: int | None
    source: str | None
    text: str
    cited: bool
    supports: bool | None


class RungShape(TypedDict):
    """solution: the name of the bundle's solution, None of a base or a plain adapter. refused: the answer says that
    there is none. fault: how the answer breaks what is demanded of its form."""

    solution: str | None
    sources: list[SourceShape]
    refused: bool
    fault: str | None


class CachedTokens(TypedDict):
    cached_tokens: int


class UsageShape(TypedDict):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens


class TopToken(TypedDict):
    token: str
    logprob: float
    bytes: list[int]


class ChatToken(TopToken):
    top_logprobs: list[TopToken]


class ChatLogprobs(TypedDict):
    content: list[ChatToken]
    refusal: None


class AnswerTurn(TypedDict):
    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(TypedDict):
    index: int
    message: AnswerTurn
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length"]
    rung: NotRequired[RungShape]


class ChatAnswer(TypedDict):
    """rung: of the first choice; where there are several, each has its own too."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: UsageShape
    rung: RungShape


class CompletionLogprobs(TypedDict):
    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class CompletionChoice(TypedDict):
    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Literal["stop", "length"]
    rung: NotRequired[RungShape]


class CompletionAnswer(TypedDict):
    """rung: of the first choice; where there are several, each has its own too."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: UsageShape
    rung: RungShape


class ModelKind(TypedDict):
    """context: whether inputs may come with one, as `rung.context`."""

    kind: Literal["base", "bundle", "adapter"]
    solution: str | None
    context: bool


class ModelShape(TypedDict):
    """parent: the name of its base. root: what stands behind the name."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str
    parent: str | None
    max_model_len: int
    rung: ModelKind


class ModelsShape(TypedDict):
    object: Literal["list"]
    data: list[ModelShape]


class HealthShape(TypedDict):
    status: str

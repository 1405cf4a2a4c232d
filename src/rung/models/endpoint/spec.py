"""What names a model behind an OpenAI-compatible endpoint, as text and as a value. It never holds an API key.

The text is what `open_model` takes, and what records keep: canonical JSON, or by hand `https://host/v1#name`. Keys come
from environment variables alone, and are read at the moment of use.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args
from urllib.parse import quote, urlsplit

from rung.errors import ModelError
from rung.models.endpoint.proxies import is_loopback
from rung.models.endpoint.transport import Hidden

Format = Literal["auto", "json_schema", "json_object", "none"]
"""How an endpoint is asked for structured output. none: it is not; replies are parsed, and asked for again."""

_KEY_ENVS = {
    "api.openai.com": "OPENAI_API_KEY",
    "openai.azure.com": "AZURE_OPENAI_API_KEY",
    "cognitiveservices.azure.com": "AZURE_OPENAI_API_KEY",
    "services.ai.azure.com": "AZURE_OPENAI_API_KEY",
    "generativelanguage.googleapis.com": "GEMINI_API_KEY",
    "api.anthropic.com": "ANTHROPIC_API_KEY",
    "openrouter.ai": "OPENROUTER_API_KEY",
    "api.together.xyz": "TOGETHER_API_KEY",
    "api.together.ai": "TOGETHER_API_KEY",
    "api.groq.com": "GROQ_API_KEY",
    "api.mistral.ai": "MISTRAL_API_KEY",
    "api.deepseek.com": "DEEPSEEK_API_KEY",
    "api.x.ai": "XAI_API_KEY",
    "api.fireworks.ai": "FIREWORKS_API_KEY",
    "api.cerebras.ai": "CEREBRAS_API_KEY",
    "api.perplexity.ai": "PERPLEXITY_API_KEY",
    "api.cohere.ai": "COHERE_API_KEY",
    "api.cohere.com": "COHERE_API_KEY",
    "api.deepinfra.com": "DEEPINFRA_API_KEY",
    "api.sambanova.ai": "SAMBANOVA_API_KEY",
    "api.moonshot.ai": "MOONSHOT_API_KEY",
    "dashscope-intl.aliyuncs.com": "DASHSCOPE_API_KEY",
    "dashscope.aliyuncs.com": "DASHSCOPE_API_KEY",
    "integrate.api.nvidia.com": "NVIDIA_API_KEY",
    "router.huggingface.co": "HF_TOKEN",
}
"""Known hosts, or the ends of their names, and the variable that their users keep the key in."""

ANY = "*"
"""The name in the spec of an endpoint that is only asked what it serves."""

_AZURE = ("openai.azure.com", "cognitiveservices.azure.com", "services.ai.azure.com")


@dataclass(frozen=True)
class EndpointSpec:
    """A model behind an OpenAI-compatible endpoint.

    endpoint: the base address, such as https://api.openai.com/v1, without a slash at its end. name: as the endpoint
    calls the model; for Azure the deployment's name. key_env: the environment variable with the key; None: that of the
    host, where it is known. api_version: Azure's. in_flight: calls at once at most; None: it is found out. timeout:
    seconds that a call may take with all its retries. batch: use the provider's batch interface. params: more fields of
    each request's body, such as reasoning_effort.
    """

    endpoint: str
    name: str
    key_env: str | None = None
    api_version: str | None = None
    in_flight: int | None = None
    timeout: float = 600.0
    response_format: Format = "auto"
    batch: bool = False
    params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """Canonical JSON: keys sorted, defaults left out. `parse` reads it back."""
        record = {f.name: getattr(self, f.name) for f in fields(self)}
        defaults = {f.name: f.default for f in fields(self)} | {"params": {}}
        kept = {name: value for name, value in record.items() if value != defaults[name]}
        return json.dumps(kept, sort_keys=True, ensure_ascii=False, default=dict)

    @property
    def host(self) -> str:
        """The host's name, in lower case and without a port."""
        return urlsplit(self.endpoint).hostname or ""

    @property
    def authority(self) -> str:
        """The host, and the port where the address has one, for messages."""
        return urlsplit(self.endpoint).netloc

    @property
    def where(self) -> str:
        """The model, the host and its port, for messages."""
        return f"the endpoint at {self.authority}" if self.name == ANY else f"model {self.name} at {self.authority}"

    @property
    def is_azure(self) -> bool:
        """Whether it is Azure's interface, by its host or because only Azure's has an api_version."""
        return self.api_version is not None or _is_of(self.host, _AZURE)

    @property
    def is_loopback(self) -> bool:
        """Whether the server is on this machine."""
        return is_loopback(self.host)

    @property
    def key_variable(self) -> str | None:
        """The environment variable that the key is read from; None: requests are sent without a key."""
        if self.key_env is not None or self.is_loopback:
            return self.key_env
        return next((env for known, env in _KEY_ENVS.items() if _is_of(self.host, (known,))), None)

    def key(self) -> str | None:
        """The API key, from the environment now; None where none is needed. Raises ModelError with the variable."""
        variable = self.key_variable
        if variable is None:
            return None
        if not (key := os.environ.get(variable, "").strip()):
            raise ModelError(f"{self.where}: the environment variable {variable} is not set. Set it to your API key.")
        if not (key.isascii() and key.isprintable()):
            del key
            raise ModelError(f"{self.where}: the key in {variable} holds characters that no key has. Set it anew.")
        return key

    @property
    def base(self) -> str:
        """The address that all paths stand behind."""
        return f"{self.endpoint.removesuffix('/openai')}/openai" if self._by_deployment else self.endpoint

    @property
    def chat_path(self) -> str:
        deployment = f"/deployments/{quote(self.name, safe='')}" if self._by_deployment else ""
        return f"{deployment}/chat/completions{self.query}"

    @property
    def query(self) -> str:
        """What stands behind every path; empty where there is no api_version."""
        return f"?api-version={quote(self.api_version, safe='')}" if self.api_version else ""

    def headers(self) -> dict[str, str | Hidden]:
        """Of every request. The key is read when a request is written. Raises ModelError where it is missing now."""
        headers: dict[str, str | Hidden] = {"content-type": "application/json", "accept": "application/json"}
        if self.key() is not None:
            azure = self.is_azure
            headers["api-key" if azure else "authorization"] = Hidden(
                lambda: (self.key() or "") if azure else f"Bearer {self.key()}"
            )
        return headers

    @property
    def _by_deployment(self) -> bool:
        """Whether it is Azure's older interface, in which the deployment is a part of the address."""
        return self.api_version is not None and not self.endpoint.endswith("/v1")


def parse(text: str) -> EndpointSpec:
    """The spec in canonical JSON, or in the form https://host/v1#name. Raises ModelError."""
    if text.lstrip().startswith("{"):
        try:
            record = json.loads(text)
        except ValueError as error:
            # The text is not shown, here or by a traceback: it may hold a key.
            raise ModelError(f"an endpoint is given as JSON, and this is none ({error.args[0]}).") from None
    else:
        address, _, name = text.partition("#")
        record = {"endpoint": address, "name": name}
    return _checked(record)


def version_of(spec: EndpointSpec) -> str:
    """A hash of what decides the answers, as far as a spec says it: address, model, interface, fields of the body, and
    how answers are held to a form."""
    deciding: list[Any] = [spec.endpoint, spec.name, spec.api_version, spec.params]
    if spec.response_format != "auto":
        deciding.append(spec.response_format)
    return hashlib.sha256(json.dumps(deciding, sort_keys=True, default=dict).encode()).hexdigest()[:16]


def _checked(record: Mapping[str, Any]) -> EndpointSpec:
    names = [f.name for f in fields(EndpointSpec)]
    if unknown := [key for key in record if key not in names]:
        raise ModelError(f"endpoint: there is no key {unknown[0]!r}; keys are {', '.join(names)}.")
    for key in ("endpoint", "name"):
        if not isinstance(record.get(key), str) or not record[key].strip():
            example = '{"endpoint": "https://api.openai.com/v1", "name": "gpt-5-mini"}'
            raise ModelError(f"endpoint: {key} is missing. Write {example}, or https://api.openai.com/v1#gpt-5-mini.")
    address, api_version = _address(record["endpoint"])
    spec = EndpointSpec(**{**record, "endpoint": address, "name": record["name"].strip()})
    if spec.api_version is None and api_version is not None:
        spec = EndpointSpec(**{**record, "endpoint": address, "name": spec.name, "api_version": api_version})
    _check_values(spec)
    return spec


def _address(text: str) -> tuple[str, str | None]:
    """The base address in one spelling, and the api-version where the address names one."""
    from rung.data.model_keys import NoAddress, PrivateParts, base_address

    try:
        found = base_address(text)
    except NoAddress as fault:
        example = "Write it as https://host/v1 or http://localhost:8000/v1."
        raise ModelError(f"endpoint: {str(fault) or 'it'} is no address. {example}") from None
    except PrivateParts as host:
        raise ModelError(
            f"endpoint: the address of {host} holds a user, a password or parameters. Leave them out: a key is read "
            "from the environment variable that key_env names."
        ) from None
    return found.url, found.api_version


def _check_values(spec: EndpointSpec) -> None:
    from rung.data.model_keys import SET_BY_RUNG, looks_like_a_secret, secret_in

    def refuse(key: str, must: str) -> None:
        raise ModelError(f"{spec.where}: {key} must be {must}; it is {getattr(spec, key)!r}.")

    for key in ("key_env", "api_version"):
        if not isinstance(getattr(spec, key), str | None) or getattr(spec, key) == "":
            refuse(key, "a text")
    if spec.key_env is not None and (not spec.key_env.isidentifier() or looks_like_a_secret(spec.key_env)):
        # It may be the key itself: it must not be shown.
        raise ModelError(f"{spec.where}: key_env is no name of an environment variable. Write the name, never the key.")
    if spec.in_flight is not None and (type(spec.in_flight) is not int or spec.in_flight < 1):
        refuse("in_flight", "a whole number of at least 1")
    if isinstance(spec.timeout, bool) or not isinstance(spec.timeout, int | float) or not spec.timeout > 0:
        refuse("timeout", "a number of seconds above 0")
    if spec.response_format not in get_args(Format):
        refuse("response_format", f"one of {', '.join(get_args(Format))}")
    if not isinstance(spec.batch, bool):
        refuse("batch", "true or false")
    if not isinstance(spec.params, Mapping):
        refuse("params", "a mapping of fields to values")
    for key in spec.params:
        if key in SET_BY_RUNG:
            raise ModelError(f"{spec.where}: params must not set {key}; rung does.")
    if (fact := secret_in(spec.params)) is not None:
        raise ModelError(f"{spec.where}: params {fact}. Delete it, and name the key's variable with key_env.")


def _is_of(host: str, ends: tuple[str, ...]) -> bool:
    return any(host == end or host.endswith("." + end) for end in ends)

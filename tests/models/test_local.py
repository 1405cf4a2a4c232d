from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rung.engine.prefix_tree import grow
from rung.errors import ModelError
from rung.models import request_rows
from rung.models.loading import load_model
from rung.testing import save_tiny_model, tiny_model
from rung.types import Constraint, Decoding, Message, Request, TrainingOptions, TrainingRow

TEXTS = [
    "",
    "a",
    "the card",
    "What is my answer?",
    "x" * 40,
    "1 2 3",
    "日本",
    "a longer question about a card that has not arrived",
]
LABELS = Constraint("labels", ("card", "card arrival", "the answer", "no"))
END = 2


def ask(text: str, *, most: int = 24, adapter: str | None = None, constraint: Constraint | None = None) -> Request:
    turns = (Message("system", "Answer."), Message("user", text))
    return Request(turns, Decoding(most), constraint, adapter)


def texts(model: Any, requests: list[Request]) -> list[str]:
    return [g.text for g in model.generate(requests)]


def label_rule(tokenizer: Any, prompt: int, labels: tuple[str, ...]) -> Any:
    """Which tokens keep an answer on the way to a label, as labels are trained: written without a grammar."""
    answers = [[*tokenizer.encode(label, add_special_tokens=False), END] for label in labels]

    def allowed(_: int, ids: torch.Tensor) -> list[int]:
        so_far = ids[prompt:].tolist()
        return [answer[len(so_far)] for answer in answers if answer[: len(so_far)] == so_far]

    return allowed


def transformers_answer(network: Any, model: Any, request: Request, constraint: bool = False) -> tuple[str, int, str]:
    """(text, tokens, finish) by transformers' own greedy search, one row at a time."""
    prompt = model.encode(request.messages)
    ids = network.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        max_new_tokens=request.decoding.max_new_tokens,
        do_sample=False,
        eos_token_id=END,
        pad_token_id=END,
        prefix_allowed_tokens_fn=label_rule(model.chat.tokenizer, len(prompt), LABELS.value) if constraint else None,  # type: ignore[arg-type]
    )[0, len(prompt) :].tolist()
    stopped = ids[-1] == END
    text = model.chat.tokenizer.decode(ids[:-1] if stopped else ids, skip_special_tokens=True)
    return text, len(ids), "stop" if stopped else "length"


def test_greedy_answers_equal_transformers_own(tiny: Any, plain_network: Any) -> None:
    requests = [ask(text, most=most) for text, most in zip(TEXTS * 3, [1, 7, 24, 40, 15, 30] * 4, strict=True)]
    expected = [transformers_answer(plain_network, tiny, r) for r in requests]
    found = [(g.text, g.tokens_out, g.finish) for g in tiny.generate(requests)]
    assert found == expected
    assert len({text for text, _, _ in expected}) > 8, "too alike to prove anything"


def test_answers_that_stop_early_equal_transformers_own(plain_network: Any, tiny_folder: Path) -> None:
    model = load_model(str(tiny_folder), device="cpu", dtype=torch.float32)
    for network in (model.network, plain_network):  # a likelier end token, so that rows leave the batch at many steps
        with torch.no_grad():
            row = network.get_output_embeddings().weight[END]
            row.copy_(row * 0 + network.get_output_embeddings().weight[3:].mean(0) * 2)
            row += torch.randn(row.shape, generator=torch.Generator().manual_seed(5)) * 0.45
    requests = [ask(f"{text} {i}", most=60) for i in range(4) for text in TEXTS]
    expected = [transformers_answer(plain_network, model, r) for r in requests]
    assert [(g.text, g.tokens_out, g.finish) for g in model.generate(requests)] == expected
    assert len({n for _, n, finish in expected if finish == "stop"}) >= 5, "rows should stop at several steps"


def test_constrained_answers_equal_transformers_own(tiny: Any, plain_network: Any) -> None:
    mixed = [ask(text, constraint=LABELS if i % 2 else None) for i, text in enumerate(TEXTS)]
    expected = [transformers_answer(plain_network, tiny, r, r.constraint is not None) for r in mixed]
    found = tiny.generate(mixed)
    assert [(g.text, g.tokens_out, g.finish) for g in found] == expected
    assert {g.text for g in found[1::2]} <= set(LABELS.value)


def test_a_batch_gives_the_answers_of_one_by_one_in_any_order(tiny: Any) -> None:
    requests = [ask(text, constraint=LABELS if i % 3 == 0 else None) for i, text in enumerate(TEXTS)]
    together = texts(tiny, requests)
    assert together == [texts(tiny, [r])[0] for r in requests]
    assert together == texts(tiny, requests[::-1])[::-1]
    assert tiny.generate([]) == []


def test_small_batches_give_the_answers_of_one_large_one(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = [ask(text) for text in TEXTS]
    whole = texts(tiny, requests)
    monkeypatch.setattr(tiny.engine, "limits", replace(tiny.engine.limits, rows=3))
    assert texts(tiny, requests) == whole
    monkeypatch.setattr(tiny.engine, "limits", replace(tiny.engine.limits, cache_bytes=1))
    assert texts(tiny, requests) == whole


def sampled(text: str, seed: int) -> Request:
    return replace(ask(text), decoding=Decoding(16, temperature=0.9, seed=seed))


def test_a_sampled_answer_depends_on_its_seed_and_not_on_its_batch(tiny: Any) -> None:
    requests = [sampled(text, seed) for seed in (1, 2) for text in TEXTS]
    once = texts(tiny, requests)
    assert texts(tiny, requests) == once
    assert [texts(tiny, [r])[0] for r in requests] == once
    assert texts(tiny, [ask("greedy among them"), *requests[::-1]])[:0:-1] == once
    assert once[: len(TEXTS)] != once[len(TEXTS) :]


def test_samples_follow_the_models_probabilities(tiny: Any) -> None:
    prompt = tiny.encode(ask("odds").messages)
    with torch.no_grad():
        logits = tiny.engine.logits(tiny.engine.hidden_of(grow([prompt]))[-1])
    expected = torch.softmax(logits / 0.7, -1)
    n = 1500
    requests = [replace(ask("odds"), decoding=Decoding(1, temperature=0.7, seed=seed)) for seed in range(n)]
    counts: dict[str, int] = {}
    for text in texts(tiny, requests):
        counts[text] = counts.get(text, 0) + 1
    top = int(expected.argmax())
    share, odds = counts[tiny.chat.decode([top])] / n, float(expected[top])
    assert abs(share - odds) < 5 * (odds * (1 - odds) / n) ** 0.5 + 0.01


def test_a_prompt_too_long_is_an_error_generation_and_the_others_are_answered(tiny: Any) -> None:
    short = ask("a card")
    found = tiny.generate([short, ask("x" * 3000)])
    assert [g.finish for g in found] == [tiny.generate([short])[0].finish, "error"]
    assert found[0].text == texts(tiny, [short])[0]
    assert found[1].text == "" and found[1].error is not None and "does not fit the context of 2048" in found[1].error
    assert found[1].tokens_in > 2048 and found[1].tokens_out == 0


def test_a_whole_answer_that_breaks_what_no_grammar_holds_is_an_error_with_the_reason(tiny: Any) -> None:
    held, only = Constraint("regex", "(?=a)ab"), Constraint("regex", "(?!ab)ab")
    found = tiny.generate([replace(ask("a card"), constraint=c) for c in (held, only)])
    assert (found[0].text, found[0].error) == ("ab", None)
    assert found[1].finish == "error" and found[1].text == "ab"
    assert found[1].error == "the answer breaks pattern: 'ab' does not match (?!ab)ab"
    assert found[1].tokens_out > 0


def test_an_answer_has_the_room_that_its_prompt_leaves(tiny: Any) -> None:
    empty = len(tiny.encode(ask("").messages))
    (found,) = tiny.generate([replace(ask("x" * (2045 - empty)), decoding=Decoding(2047))])
    assert found.error is None and 2040 < found.tokens_in < 2048
    assert 1 <= found.tokens_out <= 2048 - found.tokens_in


def test_usage_is_counted_in_tokens(tiny: Any) -> None:
    found = tiny.generate([ask("the card", most=5)])[0]
    assert found.tokens_in == len(tiny.encode(ask("the card").messages))
    assert (found.tokens_out, found.finish) == (5, "length")
    assert found.latency_s > 0


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> list[str]:
    """Two random adapters as PEFT folders."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folders = []
    for seed, rank in ((1, 4), (2, 2)):
        torch.manual_seed(seed)
        network = AutoModelForCausalLM.from_pretrained(tiny_folder)
        config = LoraConfig(r=rank, lora_alpha=8, target_modules="all-linear", init_lora_weights=False)
        folder = tmp_path_factory.mktemp(f"adapter-{seed}")
        get_peft_model(network, config).save_pretrained(str(folder), save_embedding_layers=False)
        folders.append(str(folder))
    return folders


def merged(tiny_folder: Path, adapter: str) -> Any:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(tiny_folder, attn_implementation="eager")
    return PeftModel.from_pretrained(network, adapter).merge_and_unload().eval()


def test_adapters_and_the_base_answer_side_by_side(tiny_folder: Path, adapters: list[str]) -> None:
    model = tiny_model()
    base = texts(model, [ask(text) for text in TEXTS])
    choices = [None, adapters[0], adapters[1], None, adapters[1], adapters[0], None, adapters[0]]
    requests = [ask(text, adapter=choice) for text, choice in zip(TEXTS, choices, strict=True)]
    found = texts(model, requests)
    for i, choice in enumerate(choices):
        if choice is None:
            assert found[i] == base[i]
        else:
            assert found[i] == transformers_answer(merged(tiny_folder, choice), model, requests[i])[0]
            assert found[i] != base[i]
    assert texts(model, [ask(text) for text in TEXTS]) == base, "the base is as before"
    assert texts(model, requests) == found


def test_an_adapter_rewritten_on_disk_is_read_afresh_once_released(tmp_path: Path, adapters: list[str]) -> None:
    import shutil

    model, folder = tiny_model(), tmp_path / "adapter"
    shutil.copytree(adapters[0], folder)
    first = texts(model, [ask(t, adapter=str(folder)) for t in TEXTS])
    shutil.rmtree(folder)
    shutil.copytree(adapters[1], folder)
    model.release(folder)
    second = texts(model, [ask(t, adapter=str(folder)) for t in TEXTS])
    assert second == texts(model, [ask(t, adapter=adapters[1]) for t in TEXTS]) != first
    assert first == texts(model, [ask(t, adapter=adapters[0]) for t in TEXTS])


def test_releasing_one_adapter_leaves_the_others(adapters: list[str]) -> None:
    model = tiny_model()
    expected = texts(tiny_model(), [ask(t, adapter=adapters[1]) for t in TEXTS])
    base = texts(model, [ask(t) for t in TEXTS])
    texts(model, [ask("x", adapter=adapters[0]), ask("x", adapter=adapters[1])])
    model.release(Path(adapters[0]))
    assert texts(model, [ask(t, adapter=adapters[1]) for t in TEXTS]) == expected
    texts(model, [ask("x", adapter=adapters[0])])
    assert texts(model, [ask(t, adapter=adapters[1]) for t in TEXTS]) == expected
    assert texts(model, [ask(t) for t in TEXTS]) == base


def test_parameters_are_the_base_networks(tiny: Any, adapters: list[str], plain_network: Any) -> None:
    expected = sum(p.numel() for p in plain_network.parameters())
    assert tiny.parameters == expected
    tiny.generate([ask("x", adapter=adapters[0])])
    assert tiny.parameters == expected


def test_rows_are_encoded_once_a_call_and_forgotten_when_a_training_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, encoded = tiny_model(), list[str]()
    whole = model.chat.encode
    monkeypatch.setattr(model.chat, "encode", lambda m: encoded.append(m[-1].content) or whole(m))
    rows = [TrainingRow(str(i), (Message("user", f"row {i}"),), "no") for i in range(20)]
    assert model.too_long(rows) == [] and len(model.encode_rows(rows)) == 20
    assert len(encoded) == 20 and len(model._encoded) == 20
    model.train(rows, TrainingOptions(1e-3, steps=1, batch_size=2), tmp_path)
    assert len(encoded) == 20 and not model._encoded
    length = model._encoded_tokens + sum(len(r.prompt) + len(r.target) for r in model.encode_rows(rows[:1]))
    monkeypatch.setattr(request_rows, "_REMEMBERED_TOKENS", 5 * length)
    encoded.clear()
    assert len(model.encode_rows(rows)) == 20 and len(encoded) == 19, "once each, although not all are remembered"
    assert list(model._encoded) == rows[-len(model._encoded) :] and 0 < len(model._encoded) <= 5
    assert model._encoded_tokens == sum(len(r.prompt) + len(r.target) for r in model._encoded.values())


def test_an_adapter_without_safetensors_is_refused(tiny: Any, adapters: list[str], tmp_path: Path) -> None:
    import shutil

    pickled = tmp_path / "pickled"
    shutil.copytree(adapters[0], pickled)
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"pickle.* Save them as adapter_model\.safetensors"):
        tiny.generate([ask("x", adapter=str(pickled))])
    with pytest.raises(ModelError, match=r"no adapter_config\.json"):
        tiny.generate([ask("x", adapter=str(tmp_path / "missing"))])


def test_a_folder_that_is_no_model_is_an_error(tmp_path: Path) -> None:
    save_tiny_model(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(ModelError, match=r"model\.safetensors is cut off: it has 4 bytes"):
        load_model(str(tmp_path), device="cpu")


def test_a_request_that_the_template_refuses_does_not_stop_the_others(tmp_path: Path) -> None:
    strict = (
        "{% for m in messages %}{% if m['content'] == 'bad' %}{{ raise_exception('refused') }}{% endif %}"
        "{{ '<|im_start|>' + m['role'] + m['content'] + '<|im_end|>' }}{% endfor %}"
    )
    model = tiny_model(template=strict)
    found = model.generate([ask("good"), ask("bad"), ask("good")])
    assert [g.error is None for g in found] == [True, False, True]
    assert found[1].error is not None and "refused" in found[1].error


def test_an_adapter_that_does_not_fit_the_network_is_an_error_that_names_it(
    tiny: Any, adapters: list[str], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    (tmp_path / "adapter_config.json").write_bytes((Path(adapters[0]) / "adapter_config.json").read_bytes())
    weights = load_file(Path(adapters[0]) / "adapter_model.safetensors")
    save_file({k: torch.zeros(3, 3) for k in weights}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ModelError, match=tmp_path.name):
        tiny.generate([ask("x", adapter=str(tmp_path))])

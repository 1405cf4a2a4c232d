"""PEFT folders, merged weights and GGUF files of a tiny model, read back by other programs."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from export_cases import INPUTS, make_adapter, make_bundle
from rung.errors import ExportError
from rung.serving.exports import export_named
from rung.serving.exports.export import ExportOptions, ExportSource
from rung.serving.exports.exporting import export
from rung.serving.exports.source import SourceOptions, read_source
from rung.serving.exports.tokenizer_files import chat_of, write_prompt, write_tokenizer
from rung.types import Constraint, Decoding, Demo, DemoSelection, Solution


@pytest.mark.parametrize("name", ["peft", "merged"])
def test_what_is_written_answers_as_the_bundle_does_in_plain_transformers(
    source: ExportSource, tmp_path: Path, name: str
) -> None:
    report = export(source, export_named(name), tmp_path / "out", ExportOptions())
    assert report.parity is not None and report.parity.equal == len(INPUTS) and not report.faults
    assert len({ask.text for ask in source.asks}) > 3  # else equality shows little
    prompt = json.loads((tmp_path / "out" / "prompt.json").read_text())
    assert prompt["messages"] == [{"role": "system", "content": "Answer."}, {"role": "user", "content": "{input}"}]
    assert not any(str(tmp_path) in p.read_text("utf-8", "ignore") for p in (tmp_path / "out").glob("*.json"))


def test_an_export_with_another_adapter_fails(source: ExportSource, tiny_folder: Path, tmp_path: Path) -> None:
    other = make_adapter(tiny_folder, tmp_path / "other", lora_alpha=64)
    wrong = replace(source, packed=replace(source.packed, solution=replace(source.packed.solution, adapter=str(other))))
    wrong.again = None
    report = export(wrong, export_named("peft"), tmp_path / "out", ExportOptions())
    assert report.faults and report.folder.name == "out.failed"


@pytest.mark.parametrize("name", ["peft", "merged", "gguf", "ollama"])
def test_a_bundle_over_a_base_in_4_bits_counts_as_quantised(source: ExportSource, tmp_path: Path, name: str) -> None:
    small = replace(source, packed=replace(source.packed, model=f"{source.packed.model}:4bit"))
    report = export(small, export_named(name), tmp_path / "out", ExportOptions(), parity=False)
    assert report.exported.quantised
    assert any("base in 4 bits" in note for note in report.notes)


def test_what_transformers_cannot_load_fails_and_is_not_called_untested(
    source: ExportSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(source: ExportSource, folder: Path, dtype: Any = "auto") -> None:
        shutil.copyfile(source.base / "config.json", folder / "config.json")
        (folder / "model.safetensors").write_bytes(b"cut short")

    monkeypatch.setattr("rung.serving.exports.merged.write_network", broken)
    with pytest.raises(ExportError, match="cannot load what was written"):
        export(source, export_named("merged"), tmp_path / "out", ExportOptions())
    assert not list(tmp_path.iterdir())


def test_no_setting_of_the_base_that_changes_answers_is_carried_along(
    source: ExportSource, tiny_folder: Path, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(tiny_folder, tmp_path / "base"))
    ids = (
        json.loads((base / "generation_config.json").read_text()) if (base / "generation_config.json").is_file() else {}
    )
    odd = {"num_beams": 4, "suppress_tokens": [5], "min_new_tokens": 9, "temperature": 0.6, "pad_token_id": 0}
    (base / "generation_config.json").write_text(json.dumps({**ids, **odd}))
    (tmp_path / "out").mkdir()
    write_tokenizer(base, chat_of(base), tmp_path / "out", source.packed.solution)
    written = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert set(written) <= {"bos_token_id", "pad_token_id", "eos_token_id", "do_sample", "max_new_tokens"}


def test_the_turns_of_prompt_json_are_those_of_the_bundle_also_where_a_demo_answers_nothing(tmp_path: Path) -> None:
    demos = (Demo("a card", ""), Demo("a use", "use"), Demo("none", "none"))
    solution = Solution("s", "", Decoding(8), demos, DemoSelection("fixed", 2))
    assert len(write_prompt(solution, tmp_path)) == 1
    turns = json.loads((tmp_path / "prompt.json").read_text())["messages"]
    assert [(t["role"], t["content"]) for t in turns] == [
        *(("user", "a card"), ("assistant", ""), ("user", "a use"), ("assistant", "use")),
        ("user", "{input}"),
    ]
    write_prompt(replace(solution, demos=(), demo_selection=DemoSelection("nearest", 2)), tmp_path)
    assert len(json.loads((tmp_path / "prompt.json").read_text())["messages"]) == 1


def test_labels_are_held_in_transformers_too(tiny_folder: Path, adapter: Path, tmp_path: Path) -> None:
    labels = Constraint("labels", ("card", "use", "none"))
    bundle = make_bundle(tiny_folder, tmp_path / "bundle", adapter, constraint=labels)
    report = export(read_source(bundle), export_named("merged"), tmp_path / "out", ExportOptions())
    assert report.parity is not None and report.parity.equal == len(INPUTS) and report.parity.holds


def test_a_bundle_without_an_adapter_has_no_peft_folder_and_its_base_can_be_written(
    tiny_folder: Path, tmp_path: Path
) -> None:
    plain = read_source(make_bundle(tiny_folder, tmp_path / "bundle", None))
    with pytest.raises(ExportError, match="--to merged"):
        export(plain, export_named("peft"), tmp_path / "out", ExportOptions())
    with pytest.raises(ExportError, match="copied as they are"):
        export(plain, export_named("merged"), tmp_path / "out", ExportOptions(quantise="f16"))
    report = export(plain, export_named("merged"), tmp_path / "out", ExportOptions())
    assert report.parity is not None and report.parity.equal == len(INPUTS)


def test_weights_that_were_trained_whole_are_copied(tiny_folder: Path, tmp_path: Path) -> None:
    from rung.testing import save_tiny_model

    whole = save_tiny_model(tmp_path / "whole", seed=3)
    bundle = read_source(make_bundle(tiny_folder, tmp_path / "bundle", whole))
    with pytest.raises(ExportError, match="all weights were trained"):
        export(bundle, export_named("peft"), tmp_path / "out", ExportOptions())
    report = export(bundle, export_named("merged"), tmp_path / "out", ExportOptions())
    assert report.parity is not None and report.parity.equal == len(INPUTS) and not report.faults
    written = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert written == (whole / "model.safetensors").read_bytes()


def test_merged_weights_have_the_type_that_is_asked_for(source: ExportSource, tmp_path: Path) -> None:
    export(source, export_named("merged"), tmp_path / "out", ExportOptions(quantise="bf16"), parity=False)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"
    with pytest.raises(ExportError, match="whole"):
        export(source, export_named("merged"), tmp_path / "other", ExportOptions(quantise="q8_0"), parity=False)


def test_inputs_alone_are_answered_by_the_bundle_first(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "inputs.jsonl").write_text('{"input": "What is a card?"}\n{"input": "no", "output": "x"}\n')
    read = read_source(bundle, SourceOptions(parity=tmp_path / "inputs.jsonl"))
    assert read.reference == "given by the bundle now" and [a.query.input for a in read.asks] == [
        "What is a card?",
        "no",
    ]
    assert all(a.text for a in read.asks)
    (tmp_path / "bad.jsonl").write_text('{"question": "?"}\n')
    with pytest.raises(ExportError, match="at least input"):
        read_source(bundle, SourceOptions(parity=tmp_path / "bad.jsonl"))


def test_rows_are_spread_over_the_recorded_ones(bundle: Path) -> None:
    assert [a.query.id for a in read_source(bundle, SourceOptions(rows=3)).asks] == ["d0", "d2", "d4"]
    assert not read_source(bundle, SourceOptions(rows=0)).asks


# ---- GGUF -----------------------------------------------------------------------------------


def _logits(folder: Path, **how: Any) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **how).eval()
    with torch.no_grad():
        return network(torch.arange(40)[None]).logits


def test_a_merged_gguf_is_read_by_transformers_as_the_merged_folder(source: ExportSource, tmp_path: Path) -> None:
    import torch

    options = ExportOptions(merged=True, quantise="f32")
    export(source, export_named("gguf"), tmp_path / "gguf", options, parity=False)
    export(source, export_named("merged"), tmp_path / "merged", ExportOptions(), parity=False)
    assert not (tmp_path / "gguf" / "adapter.gguf").exists()
    ours = _logits(tmp_path / "gguf", gguf_file="model-f32.gguf")
    assert torch.allclose(ours, _logits(tmp_path / "merged"), atol=1e-4)


def test_base_and_adapter_of_gguf_make_the_merged_weights(source: ExportSource, tmp_path: Path) -> None:
    import numpy as np
    from gguf import GGUFReader

    for folder, merged in (("apart", False), ("one", True)):
        options = ExportOptions(merged=merged, quantise="f32")
        export(source, export_named("gguf"), tmp_path / folder, options, parity=False)

    def read(path: str) -> tuple[Any, dict[str, Any]]:
        reader = GGUFReader(str(tmp_path / path))
        return reader, {t.name: np.asarray(t.data) for t in reader.tensors}

    (_, base), (says, adapter), (_, one) = map(
        read, ("apart/base-f32.gguf", "apart/adapter.gguf", "one/model-f32.gguf")
    )
    alpha = says.fields["adapter.lora.alpha"].contents()
    changed = [name.removesuffix(".lora_a") for name in adapter if name.endswith(".lora_a")]
    assert len(changed) == 10
    for name in changed:
        a, b = adapter[f"{name}.lora_a"], adapter[f"{name}.lora_b"]
        assert np.allclose(base[name] + alpha / len(a) * (b @ a), one[name], atol=1e-5), name
    assert all(np.array_equal(base[name], one[name]) for name in base if name not in changed)


def test_a_module_with_a_rank_and_alpha_of_its_own_keeps_its_scale(tiny_folder: Path, tmp_path: Path) -> None:
    import numpy as np
    from gguf import GGUFReader

    own = {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.1.self_attn.v_proj": 3}, "use_rslora": True}
    source = read_source(
        make_bundle(tiny_folder, tmp_path / "b", make_adapter(tiny_folder, tmp_path / "a", **own), text="x")
    )
    test_base_and_adapter_of_gguf_make_the_merged_weights(source, tmp_path)
    shapes = {t.name: np.asarray(t.data).shape for t in GGUFReader(str(tmp_path / "apart" / "adapter.gguf")).tensors}
    assert shapes["blk.0.attn_q.weight.lora_a"][0] == 2


def test_the_metadata_of_gguf_names_the_tokens_with_a_role_and_the_template(
    source: ExportSource, tmp_path: Path
) -> None:
    from gguf import GGUFReader

    from rung.serving.exports.tokenizer_files import chat_of

    export(source, export_named("gguf"), tmp_path / "out", ExportOptions(quantise="q8_0"), parity=False)
    fields = GGUFReader(str(tmp_path / "out" / "base-q8_0.gguf")).fields
    said = {key: fields[f"tokenizer.{key}"].contents() for key in ("ggml.model", "ggml.pre", "ggml.eos_token_id")}
    chat = chat_of(source.base)
    assert said == {"ggml.model": "gpt2", "ggml.pre": "gpt-2", "ggml.eos_token_id": chat.end_id}
    assert fields["tokenizer.ggml.add_bos_token"].contents() is False
    assert fields["tokenizer.chat_template"].contents() == chat.whole_template()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "mamba"}, "convert_hf_to_gguf.py"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "yarn"),
        ({"attn_logit_softcapping": 50.0}, "caps its logits"),
        ({"hidden_act": "gelu"}, "'gelu' otherwise"),
        (
            {
                "model_type": "gemma3_text",
                "hidden_act": None,
                "layer_types": ["sliding_attention", "full_attention"],
            },
            "windows on other layers",
        ),
    ],
)
def test_networks_that_cannot_be_written_right_are_refused_with_the_tool_that_can(
    source: ExportSource, tiny_folder: Path, tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    base = Path(shutil.copytree(tiny_folder, tmp_path / "base"))
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, **change}))
    other = replace(source)
    other.__dict__["base"] = base
    with pytest.raises(ExportError, match=says):
        export(other, export_named("gguf"), tmp_path / "out", ExportOptions(), parity=False)


@pytest.mark.parametrize("change", [{"lora_alpha": 0}, {"use_dora": True}, {"use_qalora": True}])
def test_an_adapter_that_llama_cpp_would_apply_otherwise_is_refused(
    source: ExportSource, tmp_path: Path, change: dict[str, Any]
) -> None:
    assert source.adapter is not None
    adapter = Path(shutil.copytree(source.adapter, tmp_path / "adapter"))
    says = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**says, **change}))
    solution = replace(source.packed.solution, adapter=str(adapter))
    other = replace(source, packed=replace(source.packed, solution=solution))
    with pytest.raises(ExportError, match="--merged"):
        export(other, export_named("gguf"), tmp_path / "out", ExportOptions(), parity=False)
    assert not (tmp_path / "out").exists()


def test_a_type_that_is_not_written_here_is_refused(source: ExportSource, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="llama-quantize"):
        export(source, export_named("gguf"), tmp_path / "out", ExportOptions(quantise="q4_k_m"), parity=False)


def test_without_llama_cpp_the_user_is_told_what_to_install(source: ExportSource, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    try:
        import llama_cpp  # noqa: F401
    except ImportError:
        report = export(source, export_named("gguf"), tmp_path / "out", ExportOptions())
        assert report.untested is not None and "pip install llama-cpp-python" in report.untested
    else:
        pytest.skip("llama-cpp-python is installed")


@pytest.mark.parametrize("merged", [False, True])
def test_llama_cpp_answers_as_the_bundle_does(tiny_folder: Path, adapter: Path, tmp_path: Path, merged: bool) -> None:
    """Held to a schema: what a random network writes freely are bytes that are no text, and programs cut them apart."""
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    word = {"enum": ["card", "use", "none", "answer"]}
    names = ("a", "b", "c")
    schema = {"type": "object", "properties": dict.fromkeys(names, word), "required": list(names)}
    held = Constraint("json_schema", {**schema, "additionalProperties": False})
    source = read_source(make_bundle(tiny_folder, tmp_path / "bundle", adapter, constraint=held, tokens=60))
    assert len({ask.text for ask in source.asks}) > 2  # else equality shows little
    for name, checks in (("gguf", 3), ("ollama", 1)):
        report = export(source, export_named(name), tmp_path / name, ExportOptions(merged=merged, quantise="f32"))
        assert not report.faults and [check.ok for check in report.checks] == [True] * checks

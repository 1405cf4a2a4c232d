"""Writes an export, has it answer in its own runtime, and keeps it only where it answers as the bundle does."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rung import __version__
from rung.errors import ExportError, first_line
from rung.models.places import is_endpoint
from rung.records import scratch_beside, write_json, write_text
from rung.serving.exports.export import (
    HERE,
    Export,
    Exported,
    ExportOptions,
    ExportRuntime,
    ExportSource,
    NamedCheck,
    NoRuntime,
)
from rung.serving.exports.parity import ParityResult, measured

RECORD = "export.json"
"""File of an export: what it was made of, and what its parity test found."""


CARD = "BUNDLE.md"
"""File of an export: the card of the bundle, with its figures and licences; a run's solution has none."""

NOTES = "NOTES.md"
"""File of an export that brings no README.md: how it is used, as it is told when it is written."""


@dataclass(frozen=True)
class ExportReport:
    """What came of an export. folder: where it lies, which is beside the wanted place where it failed. untested: why
    there was no parity test, None where there was one or nothing can answer. faults: why it must not be used."""

    export: str
    folder: Path
    exported: Exported
    checks: tuple[NamedCheck, ...]
    parity: ParityResult | None
    untested: str | None
    faults: tuple[str, ...]

    @property
    def notes(self) -> list[str]:
        """Lines for the user, with the folder in its place."""
        return [note.replace(HERE, str(self.folder)) for note in self.exported.notes]

    def record(self, source: ExportSource) -> dict[str, Any]:
        """For export.json and `--json`; no path but the notes' is in it."""
        return {
            "export": self.export,
            "rung": __version__,
            "solution": source.packed.solution.name,
            "model": _name_of(source.packed.model),
            "model_version": source.packed.model_version,
            "licenses": source.packed.note.get("licenses"),
            "files": list(self.exported.files),
            "quantised": self.exported.quantised,
            "checks": [asdict(check) for check in self.checks],
            "parity": self.parity.record() if self.parity is not None else None,
            "untested": self.untested,
            "faults": list(self.faults),
        }


def check_options(chosen: Export, options: ExportOptions) -> None:
    """Raises ExportError for an option that this export has no use for."""
    from rung.serving.exports import EXPORTS, export_named

    for name in ("merged", "quantise", "runtime_python"):
        if getattr(options, name) and name not in chosen.heeds:
            others = [other for other in EXPORTS if name in export_named(other).heeds]
            option = f"--{name.replace('_', '-')}"
            raise ExportError(
                f"{option}: changes nothing of {chosen.name}. Leave it out; it is for {', '.join(others)}."
            )


def check_place(out: Path, *, force: bool) -> None:
    """Raises ExportError where something is there that must not be replaced. force: an earlier export may be."""
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise ExportError(f"{out}: is a file or a link, which is not replaced. Name a folder with --out.")
    if out.exists() and any(out.iterdir()) and not force:
        raise ExportError(f"{out}: is there already. Use --force to replace it, or name another folder with --out.")
    if out.exists() and any(out.iterdir()) and not (out / RECORD).is_file():
        raise ExportError(f"{out}: holds no earlier export, so it is not replaced. Name another folder with --out.")


def export(
    source: ExportSource, chosen: Export, out: Path, options: ExportOptions, *, parity: bool = True
) -> ExportReport:
    """Writes the folder `out`; where a check or the parity test fails, `out` with ".failed" behind its name.

    An export at that place is replaced. Raises ExportError where the bundle cannot be exported so, and where something
    else is there (see `check_place`).
    """
    out = out.absolute()
    for place in (out, _failed(out)):
        check_place(place, force=True)
    scratch = scratch_beside(out)
    try:
        scratch.mkdir(parents=True)
        source.say(f"writing {chosen.name} …")
        exported = chosen.write(source, scratch, options)
        asked = parity or chosen.runtime is None  # where nothing answers, nothing is left out
        checks, result, untested = (
            _asked(source, chosen, scratch, exported, options) if asked else (exported.checks, None, "--no-parity")
        )
        untested = untested or (exported.untested if result is None else None)
        faults = [f"{check.name}: {check.fact}" for check in checks if not check.ok]
        if result is not None and (fault := result.fault(quantised=exported.quantised)) is not None:
            faults.append(fault)
        place = _failed(out) if faults else out
        report = ExportReport(chosen.name, place, exported, tuple(checks), result, untested, tuple(faults))
        if (card := source.packed.place / "README.md").is_file():
            shutil.copyfile(card, scratch / CARD)
        if not (scratch / "README.md").is_file():
            write_text(scratch / NOTES, _notes(source, report))
        write_json(scratch / RECORD, report.record(source))
        if place.is_dir():
            shutil.rmtree(place)
        os.replace(scratch, place)
        return report
    except OSError as error:  # a full disk, a folder that may not be written, a Python that is none
        raise ExportError(f"{out}: not written ({first_line(error)}). Nothing is left of it.") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _notes(source: ExportSource, report: ExportReport) -> str:
    """NOTES.md, which goes wherever the folder goes."""
    head = f"{source.name}, exported by rung {__version__} as {report.export}"
    lines = [note.replace(HERE, ".") for note in report.exported.notes]
    return "\n".join(
        [f"# {head}", "", "Commands are as given in this folder.", "", *(f"- {line}" for line in lines), ""]
    )


def _failed(out: Path) -> Path:
    return out.with_name(f"{out.name}.failed")


def _name_of(model: str) -> str:
    """A model without its place on this machine; of an endpoint, its name there."""
    if is_endpoint(model):
        from rung.models.endpoint.spec import parse

        return parse(model).name
    return Path(model).name


def _asked(
    source: ExportSource, chosen: Export, folder: Path, exported: Exported, options: ExportOptions
) -> tuple[Sequence[NamedCheck], ParityResult | None, str | None]:
    """The checks, the parity test's result, and why there is none where something could answer."""
    if chosen.runtime is None:
        return exported.checks, None, None
    if not source.asks:
        return exported.checks, None, "the bundle has no dev examples with answers; give inputs with --parity FILE"
    runtime = chosen.runtime(source, folder, options)
    if isinstance(runtime, NoRuntime):
        return exported.checks, None, runtime.reason
    try:
        checks = [*exported.checks, *runtime.checks(source.asks)]
        source.say(f"{runtime.name} answers {len(source.asks)} inputs …")
        texts = runtime.answers(source.asks)
    finally:
        runtime.close()
    return checks, _compared(source, runtime, texts, quantised=exported.quantised), None


def _compared(source: ExportSource, runtime: ExportRuntime, texts: Sequence[str], *, quantised: bool) -> ParityResult:
    """The texts beside the bundle's answers: the recorded ones, and where too few are equal, those that it gives in
    float32. In another numeric type near ties fall otherwise, in the bundle as in the export; the score must still be
    that of the recorded answers, by its interval, for those are what was tested."""
    solution = source.packed.solution
    holds = runtime.holds if solution.constraint is not None else None
    compare = partial(measured, solution, metric=source.metric, runtime=runtime.name, holds=holds)
    recorded = compare(asks=source.asks, texts=texts, reference=source.reference)
    if quantised or source.again is None or recorded.fault(quantised=False) is None:
        return recorded
    exact = compare(asks=source.again(source.asks), texts=texts, reference="given by the bundle now, in float32")
    return replace(exact, as_recorded=recorded.equal, since_recorded=recorded.score)

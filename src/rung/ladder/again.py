"""What --again makes of an earlier run: what is set aside, what is void because train changed, and what is kept.

A run without decision.json is not finished, so whatever interrupts this, the same command goes on: with the recorded
finalists to the same verdict, or, once these are set aside too, by climbing. The log of test openings is never touched.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rung import runs
from rung.ladder.identity import name_in_record
from rung.records import read_lines, write_json
from rung.resume import is_done, record_of
from rung.runs import Files
from rung.strategies import STRATEGIES, strategy_of
from rung.strategies.course import made_from
from rung.types import Budget, kind_of, model_of

if TYPE_CHECKING:
    from rung.data.growth import Growth
    from rung.ladder.ledger import Spent
    from rung.ladder.options import Listener

_VERDICT = ("decision", "consistency", "finalists", "curve", "winner", "finished")
_LEARNT = ("search", "diagnosis", "diagnosed", "pilot", "piloted", "baselines", "plan", "checks")
"""Records that rest on the train examples, beside the solutions that learn from them."""


def models_changed(before: Mapping[str, str], record: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """(names of models that are new in a run, names of those that it had and that are no longer named).

    before: name -> version, as the run had them. record: task.json as it will be. The model that the run began with by
    itself may change its name.
    """
    now: Mapping[str, str] = record["model_versions"]
    homes = {record["home"]} & set(before.values()) & set(now.values())
    return (
        [name for name, version in now.items() if before.get(name) != version and version not in homes],
        [name for name, version in before.items() if now.get(name) != version and version not in homes],
    )


def reopen(
    folder: Path,
    record: Mapping[str, Any],
    growth: Growth | None,
    split: Mapping[str, Any],
    checks: Mapping[str, Any],
    listener: Listener,
) -> None:
    """Makes a run climb again, with other models or more rows in train.

    record: task.json as it will be. growth: what changed in train; None: nothing did. split, checks: split.json and
    checks.json as they will be where train changed; the split is written last, so that after a kill all of this is
    done again.
    """
    files = Files(folder)
    known = record_of(files.task)
    before = known.get("model_versions", {})
    added, dropped = models_changed(before, record)
    grown = growth is not None and growth.any
    taught = _changed(known.get("taught", {}), record["taught"])
    retaught = _other_needs(taught, record["taught"])
    if not (is_done(files.finished) or grown or retaught or before != record["model_versions"]):
        return  # a run that was interrupted: it simply goes on
    number = 1
    while (files.earlier / str(number)).exists():
        number += 1
    aside = files.earlier / str(number)
    exchanged = _exchanged(folder, before, record)
    unmade = {
        name
        for name in _begun(files)
        if (grown and _learns(name)) or model_of(name) in exchanged or _needs(name) & retaught
    }
    void = _with_what_rests_on_them(files, unmade)
    kept = [name for name in files.built if name not in void]
    moved = [getattr(files, name) for name in (*_VERDICT, *(_LEARNT if grown else ()))]
    if "teacher" in retaught:
        moved += [files.teacher, files.plan]  # it holds how fast the other one was
    moved += [files.solution(name) for name in void]
    for path in (folder / "models").glob("*/*"):
        if path.parent.name in exchanged or (grown and path.name.startswith(("diagnosis", "pilot"))):
            moved.append(path)
    facts: dict[str, Any] = {"added": added, "dropped": dropped, "taught": taught, "void": void, "kept": kept}
    if growth is not None:
        facts |= {"rows": {"added": growth.added, "removed": growth.removed, "changed": growth.changed}}
    runs.log(folder, "reopened", **facts)
    for path in dict.fromkeys(moved):
        if path.exists():
            place = aside / path.relative_to(folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            path.replace(place)
    if grown:
        write_json(files.checks, checks)
        write_json(files.split, split)
    for text in _said(facts, growth):
        listener.say(text)


def changed_documents(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """How files of documents differ between two records of task.json, as "1 added, 2 changed"; empty: they do not, or
    the earlier record does not say it."""
    if "data" not in before:  # of an older version, or not readable
        return ""
    old, new = _documents(before), _documents(now)
    numbers = {
        "added": len(new.keys() - old.keys()),
        "removed": len(old.keys() - new.keys()),
        "changed": sum(old[name] != new[name] for name in old.keys() & new.keys()),
    }
    return ", ".join(f"{number:,} {what}" for what, number in numbers.items() if number)


def _documents(record: Mapping[str, Any]) -> dict[str, str]:
    """Path of each file of documents -> its hash."""
    if not record.get("corpus"):
        return {}
    named = record["examples"]
    paths = [path for some in named.values() for path in some] if isinstance(named, Mapping) else named
    home = Path(record["path"]).parent
    others = {name_in_record(path, home) for path in paths}
    return {name: hash_ for name, hash_ in record["data"].items() if name not in others and not name.endswith(".py")}


def _begun(files: Files) -> list[str]:
    return sorted(path.name for path in (files.folder / "solutions").glob("*") if path.is_dir())


def _learns(name: str) -> bool:
    """Whether the solution of that name is built from the train examples."""
    strategy = STRATEGIES.get(kind_of(name))
    return strategy is None or strategy.learns


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What teaches beside the train examples and is another one than before, by its key in the task."""
    return [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]


def _other_needs(changed: Sequence[str], now: Mapping[str, Any]) -> set[str]:
    """The same as needs of strategies name it: a teacher also proposes, and writes rows where the task names none."""
    written = {"synthetic"} if "synthetic" not in now else set()
    return {*changed, *({"proposer", *written} if "teacher" in changed else ())}


def _with_what_rests_on_them(files: Files, unmade: Collection[str]) -> list[str]:
    """The solutions that are to be made again, and those that were repaired, shortened or trained on from them, or from
    one that a command which was killed had set aside already."""
    void, names = set(unmade), _begun(files)

    def rests(name: str) -> bool:
        before = made_from(files.solution(name))
        return before is not None and (before in void or not files.solution(before).is_dir())

    while more := {name for name in names if name not in void and rests(name)}:
        void |= more
    return sorted(void)


def _needs(name: str) -> set[str]:
    """What the strategy of a solution needs; of one that was shortened or repaired, what the first one did."""
    strategy = strategy_of(kind_of(name))
    return set(strategy.needs) if strategy is not None else set()


def _exchanged(folder: Path, before: Mapping[str, str], record: Mapping[str, Any]) -> set[str]:
    """Names that last meant another model, be it some commands ago: what bears them is void."""
    last: dict[str, str] = {}
    for event in runs.events(folder):
        last |= event.get("versions", {})
    last |= before
    return {name for name, version in record["model_versions"].items() if last.get(name, version) != version}


def _said(facts: Mapping[str, Any], growth: Growth | None) -> list[str]:
    said = []
    if facts["added"]:
        said.append(f"New in this run: {', '.join(facts['added'])}.")
    if facts["dropped"]:
        said.append(f"No longer compared: {', '.join(facts['dropped'])}; what was built with it stays on disk.")
    if growth is not None and growth.any:
        said.append(f"Train has other {changes_of_train(facts['rows'])}. Dev and the test are as they were.")
    if growth is not None and growth.held_out:
        said.append(
            f"{growth.held_out:,} new rows are in no set: they nearly repeat rows of dev or of the test, or stand in a "
            "file of one of these."
        )
    if facts["void"]:
        said.append(f"Built again, because what they were built from is another: {', '.join(facts['void'])}.")
    if facts["kept"]:
        said.append(f"Kept from before: {', '.join(facts['kept'])}.")
    return said


def changes_of_train(rows: Mapping[str, int]) -> str:
    """In words: rows: 40 added, 2 changed."""
    parts = [f"{number:,} {what}" for what, number in rows.items() if number]
    return f"rows: {', '.join(parts)}"


def continued_notes(folder: Path) -> list[str]:
    """Whole sentences for the verdict: what was added to the run after it had begun, and when."""
    notes = []
    for event in runs.events(folder):
        if event["event"] != "reopened":
            continue
        what = [f"the model {name} was added" for name in event["added"]]
        if any((event.get("rows") or {}).values()):
            what.append(f"train was changed ({changes_of_train(event['rows'])})")
        if other := event.get("taught"):
            what.append(f"what teaches beside train was changed ({', '.join(other)})")
        if what:
            notes.append(f"This run was continued on {event['time'][:10]}: {' and '.join(what)}.")
    return list(dict.fromkeys(notes))  # after a kill a reopening is noted again


def opened_again_notes(folder: Path) -> list[str]:
    """That the test was opened before for the same finalists, where --again came to these once more.

    Openings that an interruption makes necessary are one reading and are not told.
    """
    reads = read_lines(Files(folder).test_reads)
    log = runs.events(folder)
    last = max((place for place, e in enumerate(log) if e["event"] == "reopened"), default=0)
    before = [set(e["solutions"]) for e in log[:last] if e["event"] == "finalists"]
    if not reads or not reads[-1].get("continues") or set(reads[-1]["solutions"]) not in before:
        return []
    first = next(r for r in reads if r["read"] == reads[-1]["read"])
    return [
        f"The sealed test had been opened for {', '.join(first['solutions'])} on {str(first.get('time', ''))[:10]}, "
        "and was opened again for the same: their answers of then count."
    ]


def spent_already(budget: Budget, spent: Spent) -> str | None:
    """What to say where a budget is spent before a command begins; None where something is left of it.

    spent.usd: for tokens; the hours of the machine are in the seconds.
    """
    limits = [
        ("minutes", budget.minutes, spent.seconds / 60),
        ("calls", budget.calls, spent.calls),
        ("usd", budget.usd, spent.usd),
    ]
    over = [(name, limit, used) for name, limit, used in limits if limit is not None and used >= limit]
    if not over:
        return None
    said = " and ".join(f"{used:,.3g} of {limit:g} {'USD' if name == 'usd' else name}" for name, limit, used in over)
    more = " and ".join(f"--{name}" for name, _, _ in over)
    return (
        f"The budget counts all commands on this run, and is spent: {said}. Nothing that takes more is begun. To go "
        f"on, give a larger {more}."
    )

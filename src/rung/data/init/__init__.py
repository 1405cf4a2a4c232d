"""`rung init`: a first task.yaml for data that nobody has described yet.

`sources` finds the files, `rung.data.shapes` reads their rows, `answers` guesses what the answers are and how to
compare them, `draft` writes it down, and `trial` reads the result as `rung run` would.
"""

from __future__ import annotations

from rung.data.init.draft import Draft, draft_task
from rung.data.init.trial import TriedDraft, try_draft

__all__ = ["Draft", "TriedDraft", "draft_task", "try_draft"]

"""The verdict: rules over numbers, and the words for them. Touches no disk, model or clock.

evidence: what it rests on. rule: numbers in, a ruling out. headline, warnings, reasons, advice: its sentences. verdict:
all of it together. record: decision.json. figures: how numbers are written.
"""

from rung.decision.evidence import ClosedBook as ClosedBook
from rung.decision.evidence import Evidence as Evidence
from rung.decision.evidence import MoreExamples as MoreExamples
from rung.decision.evidence import Skills as Skills
from rung.decision.figures import Scale as Scale
from rung.decision.record import answers_of as answers_of
from rung.decision.record import decision_from_record as decision_from_record
from rung.decision.record import decision_record as decision_record
from rung.decision.verdict import decide as decide
from rung.decision.verdict import unfinished as unfinished
from rung.decision.words import cause_evidence as cause_evidence
from rung.decision.words import cause_words as cause_words

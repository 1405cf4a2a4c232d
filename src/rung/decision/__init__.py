"""The verdict: rules over numbers, and the words for them. Touches no disk, model or clock."""

from rung.decision.rule import ALPHA as ALPHA
from rung.decision.rule import RATES as RATES
from rung.decision.rule import Evidence as Evidence
from rung.decision.rule import cause_told as cause_told
from rung.decision.rule import decide as decide
from rung.decision.rule import decision_from_record as decision_from_record
from rung.decision.rule import decision_record as decision_record

"""Synthetic examples: inputs that a teacher writes, with answers that its own votes agree on, each with its origin."""

from rung.teaching.synthesis.counts import BAR as BAR
from rung.teaching.synthesis.counts import KINDS as KINDS
from rung.teaching.synthesis.counts import MOST_ROWS as MOST_ROWS
from rung.teaching.synthesis.counts import Counts as Counts
from rung.teaching.synthesis.counts import Kind as Kind
from rung.teaching.synthesis.counts import counts_of as counts_of
from rung.teaching.synthesis.counts import kinds_for as kinds_for
from rung.teaching.synthesis.pipeline import Synthesis as Synthesis
from rung.teaching.synthesis.pipeline import SynthesisOptions as SynthesisOptions
from rung.teaching.synthesis.pipeline import synthesise as synthesise
from rung.teaching.synthesis.rows import SyntheticRow as SyntheticRow

"""Strategies: examples to a Solution, one function each.

Each function takes the materials (train, dev, a model, perhaps passages) and returns the best
Solution of its kind it can build, choosing on dev. None of them can reach the test set: it is not
among the materials. Which strategy to try, and when to stop, is the ladder's business.
"""

from __future__ import annotations

from rung.types import Family

STRATEGIES: dict[str, tuple[Family, str]] = {
    "zero_shot": ("prompt", "rung.strategies.prompting:zero_shot"),
    "constrained": ("prompt", "rung.strategies.prompting:constrained"),
    "few_shot": ("prompt", "rung.strategies.prompting:few_shot"),
    "rag": ("rag", "rung.strategies.retrieving:rag"),
    "lora": ("fine-tune", "rung.strategies.fine_tuning:lora"),
    "rag_lora": ("rag+fine-tune", "rung.strategies.fine_tuning:rag_lora"),
}
"""Cheapest first: name -> (family, where its function is)."""

"""Solutions: a Solution and inputs to predictions; the one place where prompts are rendered.

Knows how a Solution becomes chat turns, how it answers, and how it lies in a folder. Never sees the
right answer of what it is answering.
"""

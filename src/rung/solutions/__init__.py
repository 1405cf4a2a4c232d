"""Solutions: a Solution and inputs become predictions. This is the one place where prompts are rendered.

Knows how a Solution becomes chat turns, how it answers, and how it lies in a folder. Never sees the
right answer of what it is answering.
"""

"""Reading, checking and splitting what the user brings: task.yaml, examples and documents.

This room knows files, rows, columns and what can be wrong with them, and it says so with file, line and next
step. It does not know models, prompts, scores or solutions, and it builds nothing from test examples.
"""

"""Models: messages in, text and usage out.

Knows the catalogue of named models, how to fetch and convert them, chat templates, and how to
answer and keep gradients on the local machine. Knows nothing of tasks, metrics or solutions.
"""

"""What the export `python` copies: a program of transformers and PEFT alone. It imports nothing of rung."""

"""Training: token ids of prompts and answers in, an adapter folder out.

Knows the engine, losses and optimisers. Knows nothing of text or models by name, scores no answers and does not choose
between adapters.
"""

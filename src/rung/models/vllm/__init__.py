"""vLLM as what computes a local model's answers: its process, its calls, and a model that trains with rung's engine."""

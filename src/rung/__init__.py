"""rung: prompt, retrieve or fine-tune? An answer by experiment, on your own task."""

__version__ = "0.1.0"

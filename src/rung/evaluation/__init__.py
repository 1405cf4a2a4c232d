"""Predictions and accepted answers in; scores, intervals and comparisons out. Knows no strategy and no model."""

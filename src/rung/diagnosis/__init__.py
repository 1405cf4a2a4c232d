"""Diagnosis: why the remaining answers are wrong, by experiment.

Changes one field of a Solution, answers again and compares. Knows what was changed and what that fixed;
never recommends, never reads what the instruction says, never sees the test.
"""

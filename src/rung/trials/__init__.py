"""Trials: one solution answered on one set of examples, kept in blocks. Opens no test."""

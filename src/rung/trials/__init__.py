"""Trials: one solution answered on one set of examples, kept in blocks. Chooses nothing and opens no test."""

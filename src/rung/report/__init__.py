"""A run folder's records laid out for people: the terminal's screens and one HTML file.

Recomputes no number: scores, intervals and the verdict are read from the records. It counts rows
where a table needs a count. Knows nothing of models and data files; inputs are handed in.
"""

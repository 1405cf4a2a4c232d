"""What a stronger model does for a weaker one: proposes instructions, writes inputs, answers them.

Every request to it is kept in a journal, so that no answer is asked for, or paid, twice. Opens no test.
"""

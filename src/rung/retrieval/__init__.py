"""Retrieval: passages to ranked passages.

Knows how documents are cut into passages and how passages are found. Writes no prompts.
"""

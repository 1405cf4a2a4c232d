"""Serving: a bundle to answers for clients. Trains nothing."""

"""Models behind an OpenAI-compatible endpoint: over the network, paid by the token, many calls in flight at once."""

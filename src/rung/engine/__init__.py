"""The local engine: token ids in, token ids or hidden states out.

Knows networks, prefix trees, attention, adapters and grammars. Knows nothing of chat turns, files of tasks or HTTP.
"""

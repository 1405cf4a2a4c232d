"""Training: rendered examples to an adapter folder.

Knows token ids, losses and optimisers. Neither scores answers nor chooses between adapters: the
caller passes what to do after each epoch.
"""

"""Bundles: a run's solution in a folder that answers the same wherever it is copied to.

`packing` fills the folder from the records of a run; `files` holds its hashes, `bases` the name of its base, `recorded`
the dev examples with what the run answered, `scoring` the metric, `card` the model card, `licences` who allows what.
Reading one and answering with it is the room `serving`.
"""

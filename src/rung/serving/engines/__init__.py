"""Other engines than rung's own: each opens a base as an Answerer (`models.streaming`)."""

"""A ModelService over HTTP, with OpenAI's interface. Its modules need the extra `serve`; what stands here does not."""

"""Exports: a bundle as files of other tools, each with a parity test in that tool's own runtime."""

"""Watching a run: subjects, the watcher, the trace on disk, growth exponents, and checkpoints read afterwards."""

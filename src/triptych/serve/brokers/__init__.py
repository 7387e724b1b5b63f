"""Brokers: where messages wait before the pipeline takes them."""

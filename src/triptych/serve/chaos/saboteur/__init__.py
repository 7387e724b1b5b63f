"""A folder for PYTHONPATH: Python runs its `sitecustomize` in every process of the server under test."""

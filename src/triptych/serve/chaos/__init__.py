"""Fault experiments: a real server, real load, real signals, and what must hold all the while."""

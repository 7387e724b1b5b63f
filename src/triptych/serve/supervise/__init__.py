"""Supervision: children that are processes, tasks or supervisors, restarted by strategy and within limits."""

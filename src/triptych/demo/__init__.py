"""The main job, end to end, on real data: what `triptych demo` runs.

Everything goes through the front doors a user has: the command line, the bundle, HTTP, and `kill -9`.
"""

from triptych.demo.story import run

__all__ = ["run"]

"""Every test executes the shapes that the formulas promise: a wrong axis anywhere is an error, not a broadcast."""

from jaxtyping import install_import_hook

install_import_hook("triptych.learn.maths", "beartype.beartype")

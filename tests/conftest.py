"""Every test executes the shapes that the formulas promise: a wrong axis is an error, not a broadcast."""

from hypothesis import settings
from jaxtyping import install_import_hook

install_import_hook("triptych.learn.maths", "beartype.beartype")

# Examples are drawn the same in every run; each test has a timeout already, so single examples need no
# deadline.
settings.register_profile("triptych", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("triptych")

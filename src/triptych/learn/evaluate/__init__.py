"""The figures a model card reports, measured over a whole split.

What is worth measuring belongs to the family (`model.figures`); how it is measured belongs here: evaluation
mode, no gradients, noise of its own that depends on the seed alone.
"""

from triptych.learn.evaluate.evaluate import evaluate

__all__ = ["evaluate"]

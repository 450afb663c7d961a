"""The testbed: problem families and a small model trained from scratch, on which the method can be seen to work.

Builds on errors alone and is a room below ``tacit.tasks.sources``. Importing it loads neither torch nor transformers.
"""

from tacit.testbed.families import Item, problems
from tacit.testbed.weights import check_set, model_path, reward_model_path, shipped

__all__ = ["Item", "check_set", "model_path", "problems", "reward_model_path", "shipped"]

"""Imports TensorFlow: without what it says about the processor, and without Keras.

TensorFlow imports Keras where it can, and does without where it is missing, as sessions do. That is a third of the time
that the import takes, and 80 MB.
"""

import os
import sys

__all__ = ["tensorflow"]

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
sys.modules.setdefault("keras", None)  # type: ignore[arg-type]  # as if it were missing

import tensorflow  # noqa: E402

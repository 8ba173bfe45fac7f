"""Which quantization of a Keras model to ship as TFLite, with the evidence."""

import os
import warnings

# TensorFlow Model Optimization accepts Keras 2 models only, and TensorFlow decides which Keras it is when it is
# imported. So this has to stand before anybody imports TensorFlow.
os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# Launchers' cards bear the names of the plugins they configure, whose schemas they are checked against: this is meant.
warnings.filterwarnings("ignore", message=r"(?s)\s*'hydra/launcher/\w+' is validated against ConfigStore schema")

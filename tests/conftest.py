"""What holds for every process of the tests."""

import os

# Some tests multiply with PyTorch before one makes a model: see `distsgd.models.torch.steady`.
os.environ.setdefault("MKL_CBWR", "AUTO")

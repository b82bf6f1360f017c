"""Squared norm of each sample's own gradient, exactly, in the one backward pass.

`SampleNorms` watches the modules that hold parameters: what each takes in the forward, and the
gradient of each sample's own loss by what it gives in the backward (losses are summed, and samples
do not mix). From these a rule of the layer (`rules`) finds the norms, or the layer is run again row
by row (`recompute`). `plan` finds out beforehand who uses which parameter, and where the rows lie.
"""

from distsgd.models.torch.norms.sample_norms import SampleNorms

__all__ = ["SampleNorms"]

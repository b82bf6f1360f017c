"""Circuits drawn: the gates that a tape has recorded, with values and gradients."""

"""Who computes a step: the plan, the workers that are there, the sum of what they give."""

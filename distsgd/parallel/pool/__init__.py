"""Who computes a step: the plan, the workers that are connected, the sum of what they give."""

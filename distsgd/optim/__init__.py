"""How the weights move: update rules, search rules, schedules, clipping. Pure; no I/O here."""

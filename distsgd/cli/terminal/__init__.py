"""What a person sees and presses: messages, progress, streams that last, signals and how they end.

Nothing heavy is imported here: rich is, when something is printed.
"""

"""How a run is launched (`launch`): in a thread of this process, or on Ray.

From the top down: `supervisor` over `actors` and `nodes`, over `session`, over `calls`. Modules of
Ray are loaded in this room and in `distsgd/jobs` only, and by calls that need them: importing a
module of ours loads none.
"""

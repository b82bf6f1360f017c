"""What stands for numpy's functions that are no ufuncs, entered where `Variable` looks them up.

No I/O here.
"""

from __future__ import annotations

import numpy as np

from distsgd.autodiff import functions
from distsgd.autodiff.ufuncs import FUNCTIONS

FUNCTIONS |= {
    np.sum: functions.sum,
    np.mean: functions.mean,
    np.max: functions.max,
    np.amax: functions.max,
    np.min: functions.min,
    np.amin: functions.min,
    np.clip: functions.clip,
    np.where: functions.where,
    np.reshape: functions.reshape,
    np.transpose: functions.transpose,
    np.stack: functions.stack,
    np.concatenate: functions.concatenate,
    np.dot: functions.dot,
    np.outer: functions.outer,
}

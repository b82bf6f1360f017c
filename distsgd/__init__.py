"""distsgd: distributed data-parallel mini-batch SGD, the same bits for any number of workers.

Public names are loaded when they are first used: importing the package loads neither numpy nor Ray
nor Arrow. What they are: `PUBLIC`.

What can be your own: the class to derive from, or to be like, and what takes it. A name is
``"module:Class"``, with which each process finds it.

    worker        BlockWorker   Trainer(worker=MyWorker), or its name in [parallel] worker
    update rule   UpdateRule    Trainer(rule=MyRule()), or its name in [optimizer] type
    search rule   SearchRule    Trainer(rule=MyRule()), the same: it asks for losses, no gradient
    sampler       Sampler       its name in [batch] sampler, called with a SamplerSpec
    loss          Loss          Network(layers, MyLoss(), shape), or its name in [model] loss
    model         Model         Trainer(model=make), or its factory's name in [model] factory
    layer         Layer         Trainer(model=Network([MyLayer(), ...], loss, shape))
    gate          Gate          autodiff.apply(MyGate(), x), in a layer, a loss, under a tape
    observer      Observer      its name in [parallel] observer; told of the phases of the loop
    callback      Callback      Trainer(callbacks=[MyCallback()])
    data source   TableSource   Trainer(data=my_source), prepare(my_source, ...)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distsgd import errors
    from distsgd.autodiff.gate import Gate
    from distsgd.autodiff.tape import GradientTape, Variable
    from distsgd.config import TrainConfig
    from distsgd.data.dataset import DataSet
    from distsgd.data.options import PrepareOptions
    from distsgd.data.prepare.prepare import prepare
    from distsgd.data.sampler import Sampler
    from distsgd.data.sources.source import TableSource
    from distsgd.errors import DistSGDError
    from distsgd.models.protocol import Model
    from distsgd.nn.layers import Layer
    from distsgd.nn.losses import Loss
    from distsgd.nn.network import Network
    from distsgd.optim.rules import UpdateRule
    from distsgd.optim.search import SearchRule
    from distsgd.parallel.observer import Observer
    from distsgd.parallel.server.step_runner import EpochEnd, StepView
    from distsgd.parallel.worker import BlockWorker, Worker
    from distsgd.run.callbacks import Callback
    from distsgd.run.progress import Progress
    from distsgd.run.run import Result, Run
    from distsgd.run.trainer import Trainer

__version__ = "0.6.0"
__all__ = [
    "BlockWorker",
    "Callback",
    "DataSet",
    "DistSGDError",
    "EpochEnd",
    "Gate",
    "GradientTape",
    "Layer",
    "Loss",
    "Model",
    "Network",
    "Observer",
    "PrepareOptions",
    "Progress",
    "Result",
    "Run",
    "Sampler",
    "SearchRule",
    "StepView",
    "TableSource",
    "TrainConfig",
    "Trainer",
    "UpdateRule",
    "Variable",
    "Worker",
    "errors",
    "prepare",
]

# Each public name: where it lies, and what it is.
PUBLIC: dict[str, tuple[str, str]] = {
    "Trainer": ("distsgd.run.trainer", "makes one run from a configuration"),
    "TrainConfig": ("distsgd.config", "the configuration of a run, checked as a whole"),
    "Run": ("distsgd.run.run", "a run, to predict, evaluate and verify with; what fit returns"),
    "Result": ("distsgd.run.run", "another name of Run"),
    "Callback": ("distsgd.run.callbacks", "what is called while a run is trained"),
    "Progress": ("distsgd.run.progress", "where a run is, as on_progress gets it"),
    "StepView": ("distsgd.parallel.server.step_runner", "a step, as on_step gets it"),
    "EpochEnd": ("distsgd.parallel.server.step_runner", "an epoch, as on_epoch_end gets it"),
    "Model": ("distsgd.models.protocol", "what a run trains: parameters, a program, predictions"),
    "Network": ("distsgd.nn.network", "layers and a loss over flat parameters"),
    "Layer": ("distsgd.nn.layers", "what a model is made of; the base of your own"),
    "Loss": ("distsgd.nn.losses", "what a model is trained by"),
    "UpdateRule": ("distsgd.optim.rules", "how a mean gradient moves the weights"),
    "SearchRule": ("distsgd.optim.search", "how losses alone move the weights"),
    "Sampler": ("distsgd.data.sampler", "what draws the rows of each mini-batch"),
    "Observer": ("distsgd.parallel.observer", "what is told of the phases of the loop"),
    "BlockWorker": (
        "distsgd.parallel.worker",
        "computes blocks of prepared rows; the base of your own",
    ),
    "Worker": ("distsgd.parallel.worker", "what computes blocks of rows"),
    "GradientTape": ("distsgd.autodiff.tape", "records gates, gives gradients"),
    "Variable": ("distsgd.autodiff.tape", "an array that a tape knows"),
    "Gate": ("distsgd.autodiff.gate", "an operation with its derivative; the base of your own"),
    "prepare": ("distsgd.data.prepare.prepare", "files or arrays into a prepared data set"),
    "TableSource": ("distsgd.data.sources.source", "rows to train on, as Arrow record batches"),
    "PrepareOptions": ("distsgd.data.options", "how rows are prepared"),
    "DataSet": ("distsgd.data.dataset", "a prepared data set, memory-mapped"),
    "errors": ("distsgd.errors", "every error, drawn as a tree"),
    "DistSGDError": ("distsgd.errors", "the root of all errors"),
}


def __dir__() -> list[str]:
    return [*globals(), *PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(PUBLIC[name][0])
    return module if name == "errors" else getattr(module, name)

"""What may stand in each section of a configuration: keys, defaults, bounds, meanings. No I/O here.

Every key states its rule in words beside the bounds that pydantic checks, so that a mistake is
answered by the rule.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

Names = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]
Name = Annotated[str, Field(min_length=1)]
Activation = Literal["relu", "sigmoid", "tanh", "softmax"]
Loss = Literal[
    "softmax_cross_entropy",
    "sigmoid_cross_entropy",
    "squared_error",
    "quadratic",
    "cross_entropy",
    "exponential",
    "hellinger",
    "kullback_leibler",
    "generalised_kullback_leibler",
    "itakura_saito",
    "mean_absolute",
    "huber",
    "hinge",
]
CLASS_LOSSES = frozenset({"softmax_cross_entropy", "hinge"})  # The others compare numbers.
LOSS_OPTIONS = {"exponential": ("tau",), "huber": ("delta",)}
DEFAULT_EPOCHS = 10


def _key(meaning: str, rule: str, **bounds: Any) -> Any:
    """What a key means, the rule its value must keep in words, and the same rule for pydantic."""
    return Field(description=meaning, json_schema_extra={"rule": rule}, **bounds)


def _count(meaning: str, rule: str = "a whole number, 1 or more") -> Any:
    return _key(meaning, rule, ge=1)


class Section(BaseModel):
    """A table of the TOML file: immutable, no unknown keys, no silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class DataSection(Section):
    """Where the rows come from and how they are read."""

    path: Annotated[
        Name | Names | None,
        _key("the training rows", "a file, a list of files, a glob or a prepared directory"),
    ] = None
    label: Annotated[
        Name | Names | None, _key("what to predict", "a column or a list of columns")
    ] = None
    features: Annotated[
        Literal["rest"] | Names,
        _key("what to predict from", '"rest" (every other column) or a list of columns'),
    ] = "rest"
    test_fraction: Annotated[
        float,
        _key("share of the rows held out for testing", "at least 0 and below 1", ge=0, lt=1),
    ] = 0.0
    test_path: Annotated[
        Name | Names | None, _key("test rows of their own", "a file, a list of files or a glob")
    ] = None
    one_hot: Annotated[
        bool, _key("a class as 0/1 numbers, for losses on numbers", "true or false")
    ] = False
    shards: Annotated[
        Literal["auto"] | Annotated[int, Field(ge=1)],
        _key("files of the prepared data", '"auto" or a whole number, 1 or more'),
    ] = "auto"
    standardise: Annotated[
        Literal["mean_std", "min_max", "none"],
        _key("by the statistics of the training rows", '"mean_std", "min_max" or "none"'),
    ] = "mean_std"

    @property
    def paths(self) -> tuple[str, ...]:
        """The sources as a tuple, also when there is one; empty where the rows are handed in."""
        return _as_tuple(self.path)

    @property
    def test_paths(self) -> tuple[str, ...]:
        """The test sources as a tuple, empty when there are none."""
        return _as_tuple(self.test_path)

    @property
    def labels(self) -> tuple[str, ...]:
        """The label columns as a tuple, also when there is one; may be empty beside no path."""
        return _as_tuple(self.label)


def _as_tuple(names: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names or ()


class DenseLayer(Section):
    """``activation(x @ W + b)``."""

    type: Literal["dense"]
    units: Annotated[int, _count("number of outputs")]
    activation: Annotated[
        Activation | None,
        _key("applied to the outputs", '"relu", "sigmoid", "tanh", "softmax" or left out'),
    ] = None
    bias: Annotated[bool, _key("whether b is added", "true or false")] = True


class FlattenLayer(Section):
    """Every axis but the rows' made one."""

    type: Literal["flatten"]


class ActivationLayer(Section):
    """An activation as a layer of its own."""

    type: Activation


class ReshapeLayer(Section):
    """Each row in another shape, as images: rows, columns, channels."""

    type: Literal["reshape"]
    shape: Annotated[
        tuple[Annotated[int, Field(ge=1)], ...],
        _key("sizes of a row's axes", "a list of whole numbers, 1 or more", min_length=1),
    ]


class ConvolutionLayer(Section):
    """``activation(patches @ W + b)`` at each place of a square kernel on an image."""

    type: Literal["convolution"]
    channels: Annotated[int, _count("number of output channels")]
    kernel: Annotated[int, _count("rows and columns of the kernel")]
    stride: Annotated[int, _count("pixels from one place to the next")] = 1
    padding: Annotated[
        Literal["valid", "same"],
        _key("places inside the image only, or zeros around it", '"valid" or "same"'),
    ] = "valid"
    activation: Annotated[
        Literal["relu", "sigmoid", "tanh"] | None,
        _key("applied to the outputs", '"relu", "sigmoid", "tanh" or left out'),
    ] = None
    bias: Annotated[bool, _key("whether b is added", "true or false")] = True


class MaxPoolLayer(Section):
    """The largest of each window of an image."""

    type: Literal["max_pool"]
    size: Annotated[int, _count("rows and columns of a window")]


class LayerNormLayer(Section):
    """Each row with mean 0 and variance 1, times a gain, plus a bias."""

    type: Literal["layer_norm"]


class DropoutLayer(Section):
    """Numbers left out by chance, in training only."""

    type: Literal["dropout"]
    rate: Annotated[float, _key("share left out", "at least 0 and below 1", ge=0, lt=1)]


Layer = Annotated[
    DenseLayer
    | FlattenLayer
    | ReshapeLayer
    | ConvolutionLayer
    | MaxPoolLayer
    | LayerNormLayer
    | DropoutLayer
    | ActivationLayer,
    Field(discriminator="type"),
]


class ModelSection(Section):
    """The network and what it is measured by."""

    layers: Annotated[
        tuple[Layer, ...],
        _key("the network, first layer first", "a list of one or more layers", min_length=1),
    ]
    loss: Annotated[
        Loss,
        _key(
            "what training makes small",
            ", ".join(f'"{name}"' for name in get_args(Loss)[:-1]) + f' or "{get_args(Loss)[-1]}"',
        ),
    ]
    loss_options: Annotated[
        dict[str, float],
        _key("settings of the loss", "{tau = 1.0} for exponential, {delta = 1.0} for huber"),
    ] = {}
    init: Annotated[
        Literal["glorot", "he"], _key("first weights at random", '"glorot" or "he"')
    ] = "glorot"
    initial_weights: Annotated[
        str, _key("first weights from a file", 'a safetensors file, or "" for none')
    ] = ""


class OptimizerSection(Section):
    """The update rule."""

    type: Annotated[
        Literal["sgd", "momentum", "nesterov", "hot_and_cold"],
        _key("the update rule", '"sgd", "momentum", "nesterov" or "hot_and_cold"'),
    ] = "sgd"
    learning_rate: Annotated[
        float, _key("step size at the top of the schedule", "a number above 0", gt=0)
    ] = 0.1
    momentum: Annotated[
        float, _key("share of the velocity kept", "at least 0 and below 1", ge=0, lt=1)
    ] = 0.9
    weight_decay: Annotated[
        float, _key("L2: added to the gradient, times the weight", "a number, 0 or more", ge=0)
    ] = 0.0
    decoupled_weight_decay: Annotated[
        float, _key("taken off the weight itself (SGDW)", "a number, 0 or more", ge=0)
    ] = 0.0
    clip_norm: Annotated[
        float | None,
        _key("largest norm of the mean gradient", "a number above 0, or left out", gt=0),
    ] = None
    step_size: Annotated[
        float, _key('how far "hot_and_cold" tries a weight up and down', "a number above 0", gt=0)
    ] = 0.001
    frozen: Annotated[
        tuple[Name, ...],
        _key(
            "weights that stay as they are",
            'a list of parameters or entries, such as "layers.0.weight" or "layers.1.weight[2,3]"',
        ),
    ] = ()


class ScheduleSection(Section):
    """How the learning rate changes from step to step."""

    type: Annotated[
        Literal["constant", "step", "cosine"],
        _key("shape of the learning rate", '"constant", "step" or "cosine"'),
    ] = "constant"
    warmup_steps: Annotated[
        int, _key("steps in which it rises to its top", "a whole number, 0 or more", ge=0)
    ] = 0
    every_steps: Annotated[
        int | None, _count('steps between two falls of "step"', "a whole number, 1 or more")
    ] = None
    factor: Annotated[
        float, _key('what "step" multiplies by', "above 0 and at most 1", gt=0, le=1)
    ] = 0.1
    final_fraction: Annotated[
        float, _key('what "cosine" ends at, of the top', "at least 0 and at most 1", ge=0, le=1)
    ] = 0.0


class BatchSection(Section):
    """The rows of one update."""

    size: Annotated[
        Literal["full"] | Annotated[int, Field(ge=1)],
        _key("rows of one update", '1 to the number of rows or "full"'),
    ] = 64
    sampling: Annotated[
        Literal["one_stage", "two_stage"],
        _key("from the data, or from a pool drawn from the data", '"one_stage" or "two_stage"'),
    ] = "one_stage"
    pool: Annotated[
        int, _count('rows of a pool of "two_stage", of which size "full" takes all')
    ] = 50


def _default_epochs(validated: dict[str, Any]) -> int | None:
    return None if validated.get("steps") else DEFAULT_EPOCHS


class TrainSection(Section):
    """How long, from which seed, and what is written down on the way."""

    steps: Annotated[int | None, _count("updates at most; alone: no limit of epochs")] = None
    epochs: Annotated[
        int | None, _count(f"passes at most; {DEFAULT_EPOCHS} where steps is left out too")
    ] = Field(default_factory=_default_epochs)
    seed: Annotated[int, _key("of all chance", "a whole number, 0 to 2^63 - 1", ge=0, lt=2**63)] = 0
    dtype: Annotated[
        Literal["float32", "float64"], _key("of all numbers", '"float32" or "float64"')
    ] = "float32"
    stop_gradient_norm: Annotated[
        float | None,
        _key("norm of the mean gradient that ends it", "a number above 0, or left out", gt=0),
    ] = None
    on_divergence: Annotated[
        Literal["stop", "halve_lr"],
        _key("when the loss grows without bound", '"stop" or "halve_lr" (go back, half the rate)'),
    ] = "stop"
    evaluate_every_epochs: Annotated[int, _count("epochs between two evaluations")] = 1
    history_every: Annotated[int, _count("steps a row of the history holds")] = 1
    digest_every: Annotated[int, _count("steps between two digests of the weights")] = 100


class ParallelSection(Section):
    """Lanes and blocks, which the bits depend on; workers and their ways, which they do not."""

    workers: Annotated[
        Literal["auto"]
        | Annotated[int, Field(ge=0)]
        | tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]],
        _key(
            "worker processes; 0: in this process, without Ray; [1, 4]: what the cluster gives",
            '"auto", 0 or more, or [fewest, most] with fewest 1 or more',
        ),
    ] = "auto"
    lanes: Annotated[
        int,
        _key(
            "fixed shares of the rows: logical workers",
            "a whole number, 1 to 65536",
            ge=1,
            le=65_536,
        ),
    ] = 16
    lane_rows: Annotated[
        Literal["auto"] | Annotated[int, Field(ge=1)],
        _key("rows a lane gives to a mini-batch at least", '"auto" or a whole number, 1 or more'),
    ] = "auto"
    block_rows: Annotated[
        int, _key("rows computed at once at most", "a whole number, 1 to 65536", ge=1, le=65_536)
    ] = 256
    plan: Annotated[
        Literal["measured", "all"],
        _key("which workers a step uses", '"measured" or "all" (every one in every step)'),
    ] = "measured"
    exchange: Annotated[
        Literal["auto", "shared_memory", "zmq"],
        _key("how arrays travel", '"auto", "shared_memory" or "zmq"'),
    ] = "auto"
    address: Annotated[Name, _key("the Ray cluster", '"local" or the address of a cluster')] = (
        "local"
    )
    step_timeout_s: Annotated[
        float,
        _key(
            "longest wait for a worker before others compute its blocks",
            "a number of seconds above 0",
            gt=0,
        ),
    ] = 60.0


class StatisticsSection(Section):
    """What is measured besides the loss."""

    per_sample: Annotated[
        bool, _key("norms of per-sample gradients, noise scale", "true or false")
    ] = True


class CheckpointSection(Section):
    """When the run is saved. No input to the bits."""

    every_s: Annotated[
        float, _key("seconds between two checkpoints; 0: never by time", "0 or more", ge=0)
    ] = 30.0
    every_steps: Annotated[int | None, _count("steps between two checkpoints")] = None
    keep: Annotated[int, _count("newest checkpoints kept, besides the best by test loss")] = 3


class ChaosSection(Section):
    """Faults on purpose, to see that nothing can hurt a run. No input to the bits."""

    faults: Annotated[
        tuple[Name, ...],
        _key("what shall happen", 'a list of faults, such as "kill worker every 50 steps"'),
    ] = ()

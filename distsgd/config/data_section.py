"""``[data]``: where the rows come from, and what they are. No I/O here."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, model_validator

from distsgd.config.problems import in_words
from distsgd.config.section import CsvSection, Name, Names, Section, key
from distsgd.data.options import AskedLabelKind, FeatureKind, Standardise
from distsgd.data.sampler import Shuffle

Axes = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]


class DataSection(Section):
    """Where the rows come from and how they are read."""

    path: Annotated[
        Name | Names | None,
        key("the training rows", "a file, a list of files, a glob or a prepared directory"),
    ] = None
    label: Annotated[
        Name | Names | None, key("what to predict", "a column or a list of columns")
    ] = None
    features: Annotated[
        Literal["rest"] | Names,
        key(
            "what to predict from",
            '"rest" (every other column) or a list of columns and patterns, such as ["c*"]',
        ),
    ] = "rest"
    label_kind: Annotated[
        AskedLabelKind,
        key(
            "what the labels are, where no [model] loss says it: classes or quantities; auto takes "
            "integers, booleans and text as classes",
            in_words(get_args(AskedLabelKind)),
        ),
    ] = "auto"
    feature_kind: Annotated[
        FeatureKind,
        key(
            "what the features are: quantities, or whole numbers from 0 on that stand for "
            "something, such as tokens, and are kept as they are",
            in_words(get_args(FeatureKind)),
        ),
    ] = "number"
    input_shape: Annotated[
        Axes | None,
        key(
            "axes of a row as the network takes it, row-major; the rows are prepared alike",
            "a list of whole numbers, 1 or more, whose product is the number of features, such as "
            "[28, 28, 1]; or left out (one axis)",
        ),
    ] = None
    target_shape: Annotated[
        Axes | None,
        key(
            "axes of a label that is a list of numbers, or of classes; of arrays also that y "
            "[N, K] is one class at each of K places",
            "a list of whole numbers, 1 or more, whose product is the length of the lists, such as "
            "[2, 3]; or left out (one axis, or those of the tensors or arrays)",
        ),
    ] = None
    exclude: Annotated[
        tuple[Name, ...],
        key("what is no feature", 'a list of columns and patterns, such as ["id", "tmp_*"]'),
    ] = ()
    test_fraction: Annotated[
        float,
        key("share of the rows held out for testing", "at least 0 and below 1", ge=0, lt=1),
    ] = 0.0
    stratify: Annotated[
        bool, key("whether that share is held out of each class", "true or false")
    ] = False
    split_seed: Annotated[
        int,
        key(
            "of the choice of test rows and of their order in the prepared data",
            "a whole number, 0 to 2^63 - 1",
            ge=0,
            lt=2**63,
        ),
    ] = 0
    test_path: Annotated[
        Name | Names | None,
        key("test rows of their own", "a file, a list of files or a glob"),
    ] = None
    one_hot: Annotated[
        bool, key("a class as 0/1 numbers, for losses on numbers", "true or false")
    ] = False
    shards: Annotated[
        Literal["auto"] | Annotated[int, Field(ge=1)],
        key("files of the prepared data", '"auto" or a whole number, 1 or more'),
    ] = "auto"
    shuffle: Annotated[
        Shuffle,
        key(
            "what the rows of a mini-batch are drawn from: any rows, or windows of neighbours, for "
            "data larger than the memory",
            '"auto" ("rows" up to 4,194,304 rows and 2 GiB), "rows" or "windows"',
        ),
    ] = "auto"
    standardise: Annotated[
        Standardise,
        key(
            'by the statistics of the training rows; left out: "mean_std", "none" for integers',
            in_words(get_args(Standardise)),
        ),
    ] = "mean_std"
    cache_size_gb: Annotated[
        float,
        key(
            "what the cache of a node may hold; beyond, the longest unused are removed",
            "a number of gigabytes above 0",
            gt=0,
        ),
    ] = 20.0
    csv: Annotated[
        CsvSection,
        key("how CSV files are written", "a table (write [data.csv], its keys below it)"),
    ] = CsvSection()

    @model_validator(mode="before")
    @classmethod
    def _integers_stay(cls, values: Any) -> Any:
        """Integers are not standardised unless that is asked for, which is then refused."""
        kind = values.get("feature_kind") if isinstance(values, dict) else None
        if isinstance(kind, str) and kind == "integer":
            return {"standardise": "none"} | values
        return values

    def replaced_by(self, key: str, value: object) -> set[str]:
        """How integers are kept, where the features are no more to be integers."""
        were_integers = self.feature_kind == "integer" != value
        return {"standardise"} if key == "feature_kind" and were_integers else set()

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
        """The label columns as a tuple, also of one; empty where none is set."""
        return _as_tuple(self.label)


def _as_tuple(names: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names or ()

"""What gates, variables and losses refuse, and what they say then."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from distsgd import autodiff as f
from distsgd.autodiff.ops.elementwise import Exp
from distsgd.autodiff.tape import GradientTape, Variable, apply
from distsgd.errors import ModelError
from distsgd.lessons import draw_text


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: f.matmul(np.ones((2, 3)), np.ones((2, 3))), "columns as many as"),
        (lambda: f.matmul(np.ones((2, 3)), np.ones(2)), r"\(2, 3\) and \(2,\); must be matrices"),
        (lambda: f.matmul(np.ones(2), np.ones((3, 2))), r"transpose one of them: x.T"),
        (lambda: f.matmul(np.ones(2), np.ones(3)), r"outer\(x, y\)"),
        (lambda: f.matmul(2.0, np.ones(3)), r"\(\) and \(3,\)"),
        (lambda: f.matmul(np.ones((2, 2, 2)), np.ones(2)), "must be matrices or vectors"),
        (lambda: f.transpose(np.ones((2, 3)), (0, 0)), "name each of 0 to 1 once"),
        (lambda: f.transpose(np.ones((2, 3)), (0,)), "array of rank 2"),
        (lambda: Variable(np.ones((2, 3))).transpose(0.5), "axes is .0.5,.; must be whole"),  # type: ignore[arg-type] # the mistake
        (lambda: Variable([1.0, 2.0]).reshape("2"), "must be whole numbers"),  # type: ignore[arg-type] # the mistake
        (lambda: Variable([1.0, 2.0]).reshape(-2, -1), "cannot reshape"),
        (lambda: f.max(np.ones((0, 2)), axis=0), r"shape \(0, 2\); must have numbers"),
        (lambda: f.max([1.0], axis=1), "max along axes .1,.; must be from -1 to 0"),
        (lambda: f.sum([1.0], axis=0.5), "axis is .0.5,.; must be whole"),  # type: ignore[arg-type] # the mistake
        (lambda: f.stack([[1.0], [1.0, 2.0]]), r"cannot stack shapes \(1,\) and \(2,\)"),
        (lambda: f.stack([]), "0 operands"),
        (lambda: f.matmul(np.ones((2, 3), np.float32), np.ones((3, 2))), "one dtype"),
        (lambda: f.affine(np.ones((2, 3)), np.ones((3, 2)), np.ones(3)), "one number for each"),
        (lambda: Variable([1.0, 2.0]) + np.ones(3), "cannot add shapes"),
        (lambda: Variable([1.0, 2.0]).reshape(3), "cannot reshape"),
        (lambda: Variable([1.0, 2.0]).sum(axis=1), "must be from -1 to 0"),
        (lambda: f.softmax(2.0), "flatten first"),
        (lambda: f.softmax(np.ones((2, 2, 2))), "flatten first"),
        (lambda: f.affine(np.ones(3), np.ones((3, 2)), np.ones(2)), r"shapes \(3,\) and \(3, 2\)"),
        (lambda: f.softmax_cross_entropy([1.0, 2.0], 2), "class 2 at .0.; must be from 0 to 1"),
        (lambda: f.softmax_cross_entropy([1.0, 2.0], -1), "class -1 at"),
        (lambda: f.softmax_cross_entropy([1.0, 2.0], 0.5), "class 0.5; must be a whole number"),
        (lambda: f.softmax_cross_entropy([1.0, 2.0], np.nan), "class nan; must be a whole"),
        (lambda: f.softmax_cross_entropy([1.0, 2.0], "1"), "dtype <U1; must be real"),
        (lambda: f.softmax_cross_entropy([1.0, 2.0], [1, 1]), "sum to 2 in row 0"),
        (lambda: f.softmax_cross_entropy(np.ones((2, 2)), np.zeros((2, 2))), "sum to 0 in row 0"),
        (lambda: f.softmax_cross_entropy([1.0, 2.0], [-1, 2]), "target -1 at"),
        (lambda: f.softmax_cross_entropy([1.0, 2.0], [np.nan, 1]), "sum to nan in row 0"),
        (lambda: f.softmax_cross_entropy([1.0, 2.0], [1, 0, 0]), r"\(2,\) and targets .* \(3,\)"),
        (lambda: f.softmax_cross_entropy(1.0, 0), r"outputs of shape \(\)"),
        (lambda: f.softmax_cross_entropy([1.0, 2.0], Variable(1.0)), "classes of dtype float64"),
        (lambda: f.hinge([1.0, 2.0], 2), "class 2 at"),
        (lambda: f.hinge([1.0, 2.0], [0.5, 0.5]), "not one-hot"),
        (lambda: f.hinge([1.0, 2.0], Variable([0.0, 1.0])), "one-hot targets as a Variable"),
        (lambda: f.squared_error([1.0, 2.0], 1.0), r"\(2,\) and targets of shape \(\)"),
        (lambda: f.squared_error([1.0, 2.0], np.ones((2, 1))), "must be of one shape"),
        (lambda: Variable("three"), "'three' is of dtype <U5; must be real"),
        (lambda: Variable([[1.0], [1.0, 2.0]]), "rows of equal length"),
        (lambda: Variable([10**400]), "numbers that floats can hold"),
        (lambda: Variable(1j), "dtype complex128; must be real"),
        (lambda: Variable(None), "dtype object; must be real"),  # type: ignore[arg-type] # the mistake
        (lambda: Variable(1.0) + "2", "'2' is of dtype <U1; must be real"),
        (lambda: Variable(1.0) * [Variable(1.0), 2.0], "put them together by stack"),  # type: ignore[operator] # the mistake
        (lambda: Variable([2.0, 3.0]) ** np.ones(3), r"cannot raise shapes \(2,\) and \(3,\)"),
        (lambda: f.power([1.0], None), "None is of dtype object; must be real"),  # type: ignore[arg-type] # the mistake
        (lambda: Variable(3.0) % 2, "x % y got a Variable"),
        (lambda: 3 % Variable(2.0), "x % y got a Variable"),
        (lambda: Variable(3.0) // 2, "x // y got a Variable"),
        (lambda: 3 // Variable(2.0), "x // y got a Variable"),
        (lambda: divmod(Variable(3.0), 2.0), r"divmod\(x, y\) got a Variable"),
        (lambda: int(Variable([1.0, 2.0])), r"shape \(2,\) cannot be taken as a number"),
        (lambda: Variable([1.0, 2.0]).item(), r"shape \(2,\) cannot be taken as a number"),
        (lambda: Variable(3.0) < "a", "dtype <U1; must be real"),
        (lambda: Variable(3.0) >= None, "None is of dtype object; must be real"),
        (lambda: f.where([1.0, 0.0], 1.0, 2.0), "dtype float64; must be booleans"),
        (lambda: f.concatenate([1.0, 2.0]), "concatenate along axis 0.*put side by side by stack"),
        (lambda: f.concatenate([[1.0], [[2.0]]]), r"cannot concatenate shapes \(1,\) and \(1, 1\)"),
        (lambda: f.concatenate([np.ones((2, 1)), np.ones((1, 2))], 1), "equal but for axis 1"),
        (lambda: f.concatenate(3.0), "concatenate got 3.0; must be a list"),  # type: ignore[arg-type] # the mistake
        (lambda: np.sum(Variable(1.0), initial=2.0), "distsgd.autodiff.sum, which does not take"),
        (lambda: Variable(1.0, dtype="nonsense"), "dtype is 'nonsense'; must be of real"),
        (lambda: Variable(1.0, dtype=complex), "must be of real numbers"),
        (lambda: f.stack(3.0), "stack got 3.0; must be a list"),  # type: ignore[arg-type] # the mistake
        (lambda: f.softmax([]), r"a row of shape \(0,\)"),
        (lambda: f.softmax(np.ones((2, 0))), r"a row of shape \(0,\)"),
        (lambda: f.squared_error(Variable([1], dtype=np.int64), [1.0]), "outputs of dtype int64"),
        (lambda: f.hinge(Variable([1, 2], dtype=np.int64), 0), "outputs of dtype int64"),
        (lambda: f.convolution(np.ones((1, 2, 2, 1)), np.ones((1, 1, 1, 1)), stride=0), "stride"),
        (lambda: f.max_pool(np.ones((1, 2, 2, 1)), 0), "size of max-pooling is 0"),
        (lambda: f.dropout(np.ones((2, 1)), [0.5, 1.0], 0.5), "keys of dtype float64"),
        (lambda: f.dropout(np.ones((2, 1)), [0, 1], "half"), "rate of dropout is 'half'"),  # type: ignore[arg-type] # the mistake
        (lambda: np.arctan(Variable(1.0)), "numpy's arctan got a Variable"),
        (lambda: np.add.reduce(Variable([1.0])), "numpy's add got a Variable"),
        (lambda: draw_text(GradientTape(), 3.0), "target is 3.0; must be a Variable"),  # type: ignore[arg-type] # the mistake
        (lambda: float(Variable([1.0, 2.0])), r"shape \(2,\) cannot be taken as a number"),
        (lambda: bool(Variable([1.0, 2.0])), "cannot be taken as true or false"),
        (lambda: apply(Exp, 1.0), "Exp\\(\\), not Exp"),  # type: ignore[arg-type] # the mistake
        (lambda: f.softmax_cross_entropy(np.ones((2, 3)), [0, 1, 2]), "class numbers"),
        (lambda: f.squared_error(np.ones((2, 3)), np.ones((2, 1))), "one column of targets"),
        (lambda: f.hinge([1.0, 2.0], 2), "number the classes from 0"),
    ],
)
def test_gate_refuses_what_does_not_fit(call: Callable[[], object], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        call()


def test_loss_has_no_gradient_by_its_targets() -> None:
    target = Variable([[1.0]])
    with GradientTape() as tape:
        loss = f.squared_error(Variable([[2.0]]), target)
    with pytest.raises(ModelError, match="no gradient by its targets"):
        tape.gradient(loss, target)

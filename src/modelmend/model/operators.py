"""The operators that a model file may name: pure, bounded by their inputs, without side effects outside tensors."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch._ops import OpOverload

from modelmend.errors import ModelRefused, ModelUnsupported

_ALLOWED = """
conv1d.default conv1d.padding conv2d.default conv2d.padding conv3d.default conv3d.padding convolution.default
conv_transpose1d.default conv_transpose2d.input linear.default addmm.default matmul.default mm.default bmm.default
baddbmm.default einsum.default bilinear.default
batch_norm.default _native_batch_norm_legit_no_training.default native_batch_norm.default
layer_norm.default native_layer_norm.default group_norm.default native_group_norm.default instance_norm.default
rms_norm.default
relu.default relu6.default leaky_relu.default prelu.default elu.default selu.default celu.default rrelu.default
gelu.default silu.default mish.default hardtanh.default hardsigmoid.default hardswish.default hardshrink.default
softshrink.default softplus.default sigmoid.default log_sigmoid.default tanh.default threshold.default
glu.default softmax.int _softmax.default log_softmax.int _log_softmax.default
add.Tensor add.Scalar sub.Tensor sub.Scalar rsub.Scalar rsub.Tensor mul.Tensor mul.Scalar div.Tensor div.Scalar
div.Tensor_mode floor_divide.default remainder.Scalar pow.Tensor_Scalar pow.Tensor_Tensor sqrt.default rsqrt.default
reciprocal.default exp.default expm1.default log.default log1p.default abs.default neg.default sign.default
square.default
sin.default cos.default erf.default floor.default ceil.default round.default clamp.default clamp.Tensor
clamp_min.default
clamp_max.default maximum.default minimum.default lerp.Scalar addcmul.default fill.Scalar fill.Tensor
eq.Scalar eq.Tensor ne.Scalar ne.Tensor lt.Scalar lt.Tensor le.Scalar le.Tensor gt.Scalar gt.Tensor ge.Scalar
ge.Tensor
logical_not.default logical_and.default logical_or.default bitwise_not.default bitwise_and.Tensor bitwise_or.Tensor
where.self where.ScalarOther where.ScalarSelf where.Scalar masked_fill.Scalar masked_fill.Tensor isnan.default
mean.default mean.dim sum.default sum.dim_IntList amax.default amin.default max.default max.dim min.dim argmax.default
var.correction var.dim std.correction std.dim var_mean.correction linalg_vector_norm.default norm.ScalarOpt_dim
logsumexp.default cumsum.default prod.dim_int any.dim all.dim topk.default sort.default
max_pool1d.default max_pool2d.default max_pool3d.default max_pool2d_with_indices.default avg_pool1d.default
avg_pool2d.default avg_pool3d.default adaptive_avg_pool1d.default adaptive_avg_pool2d.default
adaptive_avg_pool3d.default _adaptive_avg_pool2d.default adaptive_max_pool1d.default adaptive_max_pool2d.default
upsample_nearest1d.vec upsample_nearest2d.vec upsample_bilinear2d.vec upsample_bicubic2d.vec
upsample_nearest2d.default
upsample_bilinear2d.default pixel_shuffle.default pixel_unshuffle.default channel_shuffle.default
cat.default concat.default stack.default split.Tensor split_with_sizes.default split.sizes chunk.default unbind.int
tensor_split.sections
view.default _unsafe_view.default reshape.default flatten.using_ints unflatten.int permute.default transpose.int
t.default
numpy_T.default mT.default movedim.int movedim.intlist swapaxes.default squeeze.default squeeze.dim squeeze.dims
unsqueeze.default expand.default expand_as.default view_as.default reshape_as.default broadcast_to.default
repeat.default
repeat_interleave.self_int tile.default select.int slice.Tensor narrow.default flip.default roll.default
index_select.default index.Tensor gather.default tril.default triu.default pad.default constant_pad_nd.default
reflection_pad2d.default replication_pad2d.default im2col.default unfold.default diagonal.default
dropout.default feature_dropout.default alpha_dropout.default feature_alpha_dropout.default native_dropout.default
clone.default contiguous.default detach.default detach_copy.default alias.default lift_fresh_copy.default
lift_fresh.default
to.dtype to.dtype_layout to.device to.other _to_copy.default type_as.default
scaled_dot_product_attention.default embedding.default one_hot.default lstm.input gru.input rnn_tanh.input
rnn_relu.input
zeros_like.default ones_like.default full_like.default new_zeros.default new_ones.default new_full.default
zeros.default ones.default full.default arange.default arange.start arange.start_step scalar_tensor.default
eye.default
linspace.default sym_size.int sym_numel.default zero.default copy.default slice_scatter.default select_scatter.default
index_put.default
"""

SYMBOLIC: dict[str, Callable[..., Any]] = {
    "_operator.add": operator.add,
    "_operator.sub": operator.sub,
    "_operator.mul": operator.mul,
    "_operator.floordiv": operator.floordiv,
    "_operator.mod": operator.mod,
    "_operator.neg": operator.neg,
    "torch.sym_max": torch.sym_max,
    "torch.sym_min": torch.sym_min,
}
"""Arithmetic on the batch size."""

CHECKS = frozenset(
    {
        "torch.ops.aten._assert_tensor_metadata.default",
        "torch.ops.aten._assert_scalar.default",
        "torch.ops.aten.sym_constrain_range_for_size.default",
        "torch.ops.aten.sym_constrain_range.default",
        "_operator.eq",
        "_operator.ne",
        "_operator.le",
        "_operator.ge",
        "_operator.lt",
        "_operator.gt",
    }
)
"""Assertions about shapes and their conditions: read over, the shapes are checked anew."""

_DATA_DEPENDENT = (
    "higher_order.cond", "higher_order.while_loop", "higher_order.map", "higher_order.scan", "aten.nonzero",
    "aten.item", "aten._local_scalar_dense", "aten.masked_select", "aten.unique", "aten._unique2", "aten.is_nonzero",
    "aten.bincount", "torch.sym_ite", "_operator.truediv", "_operator.pow",
)  # fmt: skip
_RANDOM = ("aten.rand", "aten.bernoulli", "aten.multinomial", "aten.normal", "aten.uniform", "aten.poisson")
ALIASING = frozenset({"aten.dropout.default", "aten.feature_dropout.default", "aten.alpha_dropout.default"})
"""Operators that hand back their own input in eval mode, though their schema does not say so."""
_MADE_OF_NUMBERS = """
zeros.default ones.default full.default arange.default arange.start arange.start_step scalar_tensor.default eye.default
linspace.default new_zeros.default new_ones.default new_full.default
"""
CONSTRUCTORS = frozenset(f"aten.{name}" for name in _MADE_OF_NUMBERS.split())
"""Operators that make a tensor from numbers alone."""


def _resolve(name: str) -> OpOverload | None:
    packet, overload = name.split(".")
    found = getattr(getattr(torch.ops.aten, packet, None), overload, None)
    return found if isinstance(found, OpOverload) else None


OPERATORS: dict[str, OpOverload] = {
    f"torch.ops.aten.{name}": op for name in _ALLOWED.split() if (op := _resolve(name)) is not None
}
"""Name in the file to operator. Entries that this torch does not have are left out."""


_CHANGES_SHAPE_OR_TYPE = (
    "eq ne lt le gt ge logical_not logical_and logical_or squeeze unsqueeze t swapaxes detach cumsum rrelu"
)


def in_place(op: OpOverload) -> OpOverload | None:
    """The operator that writes its result into its first argument; ``None`` where there is none to allow."""
    packet, overload = str(op).removeprefix("aten.").split(".")
    twin = None if packet in _CHANGES_SHAPE_OR_TYPE.split() else _resolve(f"{packet}_.{overload}")
    return twin if twin is not None and _types(twin) == _types(op) else None


def _types(op: OpOverload) -> list[str]:
    return [str(a.real_type) for a in op._schema.arguments]


IN_PLACE: dict[str, OpOverload] = {
    f"torch.ops.{twin}": op for op in OPERATORS.values() if (twin := in_place(op)) is not None
}
"""In-place name in the file to the operator that computes the same without writing to its input."""


def refuse(target: str, where: object) -> ModelRefused | ModelUnsupported:
    """The error for an operator that is on no list, in words that say why."""
    short = target.removeprefix("torch.ops.")[:120]
    if short.startswith(_DATA_DEPENDENT):
        return ModelUnsupported(
            f"the model's path depends on its data (operator {short}); only a fixed graph can be repaired",
            where=where,
            field="graph",
            fix="export the part that classifies, without branches on values",
        )
    if short.startswith(_RANDOM):
        return ModelUnsupported(
            f"the model draws random numbers at inference (operator {short})",
            where=where,
            field="graph",
            fix="export the model in eval mode",
        )
    return ModelRefused(
        f"operator {short!r} is not on the allow-list",
        where=where,
        field="graph",
        fix="export the model with torch.export.export and no decompositions or custom operators",
    )


_TRAINING_FLAG = {
    "batch_norm.default": "training",
    "native_batch_norm.default": "training",
    "dropout.default": "train",
    "feature_dropout.default": "train",
    "alpha_dropout.default": "train",
    "feature_alpha_dropout.default": "train",
    "native_dropout.default": "train",
    "rrelu.default": "training",
}


def refuse_training(op: OpOverload, values: dict[str, Any], where: object) -> None:
    """Raise ``ModelUnsupported`` when the operator runs in training mode, so that its output is random or drifts."""
    flag = _TRAINING_FLAG.get(str(op).removeprefix("aten."))
    random = values.get("dropout_p") or (values.get("dropout") and values.get("train"))
    if random or (flag is not None and values.get(flag, flag == "train") is not False):
        if str(op) == "aten.rrelu.default" and flag not in values:
            return
        raise ModelUnsupported(
            f"the model was exported in training mode (operator {op})",
            where=where,
            field="graph",
            fix="call model.eval() before torch.export.export",
        )


def aliases(op: OpOverload) -> bool:
    """Whether a result may share memory with an input."""
    return str(op) in ALIASING or any(a.alias_info is not None for a in op._schema.arguments)

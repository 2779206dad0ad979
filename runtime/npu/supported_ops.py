"""The operations that an Ascend 910's adapter is known to run, with the evidence for each.

The adapter's own list, npu_supported_ops.json, is part of CANN and was not available. Evidence:
  L  the graph engine's prototype says that it is compatible with TensorFlow's operation
  P  the graph engine has a prototype of that name (or of the name in brackets)
  M  training scripts of Ascend's ModelZoo use it
  W  the adapter's white list names it
  A  the adapter itself makes or names it
The prototypes are fwkacllib/inc/ops/*.h of the public graphengine repositories; docs/ascend.md has
more. python -m tools.npu_lint refuses operations that are not listed here.
"""

from typing import Dict

EVIDENCE: Dict[str, str] = {
    # structure
    "Const": "M",
    "Identity": "L",
    "IdentityN": "L",
    "NoOp": "P",
    "Placeholder": "M (fed: an argument)",
    "PlaceholderWithDefault": "M (fed: an argument)",
    "IteratorGetNext": "A (enable_data_pre_proc)",
    "StopGradient": "L",
    "Switch": "L, M (the loss scale's condition)",
    "RefSwitch": "L, M (the loss scale's condition)",
    "Merge": "L, M (the loss scale's condition)",
    # variables
    "VariableV2": "P, M",
    "Assign": "L, W, M",
    "AssignAdd": "L, W, M",
    "ApplyMomentum": "L, M",
    "ScatterUpdate": "L, W, M",
    # the net
    "Conv2D": "P, M",
    "Conv2DBackpropInput": "P, M",
    "Conv2DBackpropFilter": "P, M",
    "DepthwiseConv2dNative": "L (DepthwiseConv2D), M",
    "DepthwiseConv2dNativeBackpropInput": "P (DepthwiseConv2DBackpropInput), M",
    "DepthwiseConv2dNativeBackpropFilter": "P (DepthwiseConv2DBackpropFilter), M",
    "FusedBatchNormV3": "P (BatchNorm), M",
    "FusedBatchNormGradV3": "P (BatchNormGrad), M",
    "MaxPool": "L, M",
    "MaxPoolGrad": "P, M",
    "AvgPool": "L, M",
    "AvgPoolGrad": "P, M",
    "Pad": "L, M",
    "Relu": "L, M",
    "ReluGrad": "P, M",
    "Sigmoid": "P, M",
    "SigmoidGrad": "P, M",
    "BiasAdd": "L, M",
    "BiasAddGrad": "P, M",
    "MatMul": "P, M",
    "BatchMatMulV2": "P (BatchMatMul)",
    "DropOutDoMask": "A (npu_ops.dropout)",
    # elementwise
    "Add": "P, M",
    "AddV2": "P (Add), M",
    "AddN": "L, M",
    "Sub": "P, M",
    "Mul": "P, M",
    "RealDiv": "P, M",
    "Neg": "L, M",
    "Square": "L, M",
    "SquaredDifference": "P, M",
    "Sqrt": "L, M",
    "SqrtGrad": "P, M",
    "Rsqrt": "L, M",
    "RsqrtGrad": "L",
    "Maximum": "L, M",
    "Minimum": "P, M",
    "Exp": "P, M",
    "Expm1": "P",
    "Log": "P, M",
    "Cos": "L, M",
    "Sin": "P",
    "Atan2": "L",
    "ClipByValue": "L, M",
    "Cast": "L, M",
    "Equal": "L, M",
    "NotEqual": "P, M",
    "Greater": "L, M",
    "GreaterEqual": "L, M",
    "Less": "P, M",
    "LessEqual": "P, M",
    "LogicalAnd": "L, M",
    "LogicalNot": "P, M",
    "Select": "L, M",
    "SelectV2": "L, M",
    "IsFinite": "P, W",
    # reductions
    "Sum": "L (ReduceSum), M",
    "Mean": "P (ReduceMean), M",
    "Max": "P (ReduceMax), M",
    "All": "L (ReduceAll)",
    "L2Loss": "L, M",
    "ArgMax": "L (ArgMaxV2), M",
    "Softmax": "L, M",
    # shapes and indices
    "Reshape": "L, M",
    "Squeeze": "P, M",
    "ExpandDims": "L, M",
    "Transpose": "L, M",
    "ConcatV2": "L, M",
    "Split": "L, M",
    "SplitV": "L, M",
    "Pack": "P, M",
    "Unpack": "L, M",
    "Tile": "L, M",
    "Fill": "L, M",
    "Range": "L, M",
    "OneHot": "L, M",
    "Slice": "P, M",
    "StridedSlice": "L, M",
    "StridedSliceGrad": "L, M",
    "ReverseV2": "L",
    "GatherV2": "L, M",
    "GatherNd": "L, M",
    "ScatterNd": "L, M",
    "UnsortedSegmentSum": "L, M",
    "Bitcast": "P",
    # collectives, and operations of the device alone
    "HcomAllReduce": "P, A, M",
    "HcomAllGather": "P, A, M",
    "HcomBroadcast": "P, A, M",
    "NpuGetFloatStatus": "A (NPULossScaleOptimizer)",
    "NpuGetFloatStatusV2": "A (NPULossScaleOptimizer)",
    "NpuClearFloatStatus": "A (NPULossScaleOptimizer)",
    "NpuClearFloatStatusV2": "A (NPULossScaleOptimizer)",
    "NpuAllocFloatStatus": "A (NPULossScaleOptimizer)",
    "DropOutGenMask": "A (npu_ops.dropout)",
}

# Operations that are known to fail or to be slow, with the reason and the replacement.
_HOST = "its shape is dynamic; the host does it in the input pipeline"
_SCATTER = "its prototype says not to use it; runtime/npu/kernels.py selects in a whole matrix"
_RESOURCE = "it is not known to run on a resource variable; an NPU's graph holds ref variables"
NEVER = {
    "Where": _HOST,
    "Unique": _HOST,
    "UniqueV2": _HOST,
    "UniqueWithCounts": _HOST,
    "DynamicPartition": _HOST,
    "DynamicStitch": _HOST,
    "TensorScatterUpdate": _SCATTER,
    "TensorScatterAdd": _SCATTER,
    "TensorScatterSub": _SCATTER,
    "ResourceGather": _RESOURCE,
    "ResourceScatterUpdate": _RESOURCE,
    "ResourceApplyMomentum": _RESOURCE,
    "Assert": "it holds text; an NPU's graph has no checks of that kind",
    "PyFunc": "it is Python",
    "Timestamp": "the device has no clock",
}

HOST = ("IteratorV2", "MakeIterator", "OneShotIterator", "Iterator")  # run on the host
# Operations that may take the reference of a variable; the others need its value.
REF_USERS = ("Identity", "Assign", "AssignAdd", "ApplyMomentum", "ScatterUpdate", "RefSwitch")
SPARE_OUTPUTS = {"FusedBatchNormV3": 5}  # a workspace of GPUs, which has no shape before it runs

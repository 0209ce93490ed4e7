"""The fixed network beside which a model's time is stated: a time in milliseconds belongs to one machine on one day.

Six 3 x 3 convolutions with ReLU on 3 x 32 x 32 pixels (16, 16, 32, 32, 64, 64 channels, every second with stride 2),
the mean over the picture, and one linear layer to 10 logits: 4.6 million multiply-adds a picture. Its
weights are those of one seed. It must never change: ratios would no longer be comparable; VERSION is in every result.
"""

import numpy as np

VERSION = 1
SIZE = 32
CHANNELS = (16, 16, 32, 32, 64, 64)
OPSET, IR_VERSION = 20, 10


def build_reference() -> bytes:
    """Return the network as an ONNX file: input `image`, float32, B x 3 x 32 x 32; output `logits`, B x 10."""
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.RandomState(0)
    nodes, weights, last, channels = [], [], "image", 3
    for number, width in enumerate(CHANNELS):
        kernel = random.normal(0, 0.1, (width, channels, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel, f"w{number}"))
        stride = [1 + number % 2] * 2
        nodes.append(helper.make_node("Conv", [last, f"w{number}"], [f"c{number}"], pads=[1] * 4, strides=stride))
        nodes.append(helper.make_node("Relu", [f"c{number}"], [f"r{number}"]))
        last, channels = f"r{number}", width
    head = random.normal(0, 0.1, (channels, 10)).astype(np.float32)
    weights.append(numpy_helper.from_array(head, "head"))
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"]))
    nodes.append(helper.make_node("MatMul", ["flat", "head"], ["logits"]))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, SIZE, SIZE])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])
    graph = helper.make_graph(nodes, "reference", [image], [logits], initializer=weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    return bytes(model.SerializeToString(deterministic=True))

"""Export a trained model as ONNX, and predict with the exported model."""

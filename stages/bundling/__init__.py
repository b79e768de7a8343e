"""What `bundle` gathers: networks as ONNX graphs, how far their answers are from those that were scored."""

"""Chains as ONNX graphs, with a program of one file that runs them without PyTorch."""

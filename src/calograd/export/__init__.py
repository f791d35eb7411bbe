"""Surrogates as ONNX graphs, for C++ and other programs without PyTorch."""

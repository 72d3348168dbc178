"""Parallelism, applied from outside: no layer knows of it. The engine is PyTorch's own: DeviceMesh, fully_shard, DTensor.

mesh.py     which process is which: copies × shards × parts of layers
shard.py    weights, gradients and optimizer divided among processes
tensor.py   layers divided among processes, by heads and hidden neurons
whole.py    tensors that are divided, as if they were not
"""

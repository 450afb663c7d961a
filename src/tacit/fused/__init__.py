"""Small models on the CPU: whole passes as compiled calls, forward and backward.

Builds on decoder, logprobs and numba (``pip install 'tacit[fast]'``), without which everything runs through PyTorch.
From the ground up: lanes (registers), loops and loops_backward (between products), forward and backward (passes), model
(weights and calls) and gradient (of a group of rollouts).
"""

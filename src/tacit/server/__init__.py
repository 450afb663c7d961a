"""The server: who may ask (keys), what is learned from their traffic (jobs, worker) and what of it is used (promotion).

Builds on the agent and the bank, in whose database all of its state lives, in the same transactions as the memories.
"""

"""Serve and learn: the memory behind the API that clients already speak.

Builds on the agent's parts (engine, recall, routing, bank) and FastAPI. ``app`` wires the routes; a request's way is
access (who asks) -> schemas (what is asked) -> prompts (token ids) -> answering (recall, generate, route) -> chat or
completions (the answer in OpenAI's shape) -> jobs (what may be learned of it, by another process).
"""

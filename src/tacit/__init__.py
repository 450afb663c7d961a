"""Tacit: a frozen language model that learns from its own experience.

Experiential latent memories (arXiv 2606.17803): each problem leaves a soft prompt of about twenty vectors, trained with
no labels, stored apart from all others and found again for the next similar problem. Start reading at ``tacit.agent``.
"""

"""The name under which vLLM servers were told to load the draw; it lives in ``tacit.engines.vllm.draw``."""

from tacit.engines.vllm.draw import TacitDraws

__all__ = ["TacitDraws"]

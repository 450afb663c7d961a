"""The engine that settings name: in this process, or at the addresses of vLLM servers.

Builds on the engines.
"""

from __future__ import annotations

from collections.abc import Sequence

from tacit.engines.local import LocalEngine
from tacit.engines.vllm.engine import VLLMEngine
from tacit.model.backbone import Backbone


def open_engine(backbone: Backbone, addresses: Sequence[str] = ()) -> LocalEngine | VLLMEngine:
    """An engine, to be closed after use.

    Args:
        backbone: the model.
        addresses: of vLLM servers; none for this process.

    Raises:
        ConfigError, EngineError: see ``VLLMEngine``.
    """
    return VLLMEngine(backbone, addresses) if addresses else LocalEngine(backbone)

"""An engine in one file: the one of this process, which leaves a note."""

from pathlib import Path

from tacit import register
from tacit.config import Settings
from tacit.engines.local import LocalEngine
from tacit.model.backbone import Backbone


@register("engine", "noted")
def noted(backbone: Backbone, settings: Settings) -> LocalEngine:
    Path("engine.txt").write_text(backbone.name)
    return LocalEngine(backbone)

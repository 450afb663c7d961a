"""One memory of the carrier *layers* as a control vector, which llama.cpp loads beside a model:

    llama-server -m MODEL.gguf --control-vector MEMORY.gguf

A GGUF file with one tensor ``direction.N`` per layer N from 1 on, which llama.cpp adds after that layer. Several files
are added up; --control-vector-scaled makes one weaker.

Builds on memory and errors; the package gguf writes it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tacit.errors import BankError, needed
from tacit.memory import Memory


def export_gguf(memory: Memory, path: str | Path) -> None:
    """Write ``memory`` as a control vector to ``path``, which must not exist.

    Args:
        memory: of the carrier layers, [layers - 1, d].
        path: the new file.

    Raises:
        BankError: the memory is of another carrier, the file exists or cannot be written.
        ConfigError: the package gguf is missing.
    """
    target = Path(path)
    if memory.carrier != "layers":
        raise BankError(
            f"memory {memory.id} is of the carrier {memory.carrier}, and llama.cpp loads vectors by layer; learn with "
            "--carrier layers"
        )
    gguf = needed("gguf", "a control vector", "gguf")
    if target.exists():
        raise BankError(f"{target} exists; export to a new file")
    writer = gguf.GGUFWriter(None, "controlvector")
    writer.add_uint32("controlvector.layer_count", len(memory.prompt))
    writer.add_string("tacit.memory", memory.id)
    for layer, vector in enumerate(memory.prompt, start=1):
        writer.add_tensor(f"direction.{layer}", np.ascontiguousarray(vector))
    try:
        writer.write_header_to_file(target)
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    except OSError as error:
        raise BankError(f"the control vector cannot be written to {target} ({error.strerror})") from error

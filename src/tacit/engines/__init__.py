"""Generation engines: the protocol in ``base``, the in-process implementation in ``local``."""

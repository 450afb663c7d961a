"""vLLM servers as the engine: the pool of servers, the wire format, and the draw that runs inside the server."""

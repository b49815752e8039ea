"""How lwB4s come to their bindings."""

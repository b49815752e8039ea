"""From bindings to OpenFlow rules: declarations, a pure compiler, an encoder."""

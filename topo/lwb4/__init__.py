"""The lab's lwB4: provisions itself, translates into its port set, encapsulates (RFC 7596)."""

"""The faces: ways to write programs with sessions. Thin; they hold no protocol state."""

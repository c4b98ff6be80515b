"""matrix-nio, with encryption, against a Matrix server."""

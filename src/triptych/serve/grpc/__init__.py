"""The V2 inference protocol over gRPC: each call becomes an exchange, and its answer a message."""

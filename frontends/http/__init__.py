"""HTTP: the V2 inference protocol in JSON with the binary tensor extension."""

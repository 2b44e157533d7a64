"""The DSPex port protocol: framing, values, messages, connection, client."""

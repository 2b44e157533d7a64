"""The DSPex bridge: DSPy programs behind length-prefixed MessagePack on stdio."""

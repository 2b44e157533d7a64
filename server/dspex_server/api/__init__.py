"""What is served: GraphQL, and plain JSON over HTTP."""

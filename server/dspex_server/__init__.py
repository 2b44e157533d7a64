"""The server: programs, executions and jobs in a database, behind GraphQL and plain JSON."""

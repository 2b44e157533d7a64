"""The commands that run, score and improve programs from a shell: clients of a bridge of their
own."""

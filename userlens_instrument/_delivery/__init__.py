"""The imperative shell: threads, time and sockets; as thin as it gets."""

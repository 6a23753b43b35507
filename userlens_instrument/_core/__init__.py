"""The functional core: values in, values out; no thread, clock, socket, file or random draw."""

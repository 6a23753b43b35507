"""How `auto` looks on: light to import, until a line comes that may become an event."""

"""Models behind OpenAI-compatible servers: what is sent to them, and their replies, each of which is asked for once."""

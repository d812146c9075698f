"""Models that write annotations, behind any OpenAI-compatible server: prompts, calls, replies, and what is read."""

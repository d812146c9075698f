"""Students: vision-language models behind one protocol."""

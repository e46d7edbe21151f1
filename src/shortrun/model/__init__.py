"""The GPT, and what can be asked of one."""
